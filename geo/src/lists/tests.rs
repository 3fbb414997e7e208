//! Lists as people and tools write them. What the resolver's tests say of plain lines is not said again.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::topology::Topology;

#[test]
fn a_list_is_text_csv_or_json() {
    for list in [
        "192.0.2.0/24 4\n2001:db8::/32 5",
        "192.0.2.0/24,4\n\"2001:db8::/32\",\"5\"",
        "prefix,region\n192.0.2.0/24,4\n2001:db8::/32,5\n",
        "# Who\n\n; serves whom\nprefix,region\n# and\n192.0.2.0/24,4\n2001:db8::/32,5\n",
        "; a comment\n192.0.2.0/24\t4 # another\n2001:db8::/32\t5",
        "region,name,network\n4,\"One, Inc. #1\",192.0.2.0/24\r\n 5 , \"say \"\"two\"\"\" , 2001:db8::/32\r\n",
        r#"{"192.0.2.0/24": 4, "2001:db8::/32": "5"}"#,
        r#" [{"prefix": "192.0.2.0/24", "region": 4, "name": ["x"]}, {"region": "5", "prefix": "2001:db8::/32"}] "#,
        "\u{feff}{\"192.0.2.0/24\": 4, \"2001:db8::/32\": 5}",
    ] {
        check(list, None, "192.0.2.0/24 4, 2001:db8::/32 5");
    }
    check("", None, "");
    check("[]", None, "");
    check("192.0.2.0/24 4\n192.0.2.0/24 4", None, "192.0.2.0/24 4");
    check("::ffff:192.0.2.7 4", None, "192.0.2.7/32 4");
}

#[test]
fn an_as_leads_to_its_region_and_others_are_left_out() {
    let origins = Some(Values::Origins);
    check("192.0.2.0/24 64500", origins, "192.0.2.0/24 4 AS64500");
    check("192.0.2.0/24 AS64500", None, "192.0.2.0/24 4 AS64500");
    check("192.0.2.0/24 as64500", Some(Values::Regions), "192.0.2.0/24 4 AS64500");
    // The header, the key and the notation say it.
    check("asn,prefix\n64500,192.0.2.0/24", None, "192.0.2.0/24 4 AS64500");
    check("origin_as,region,prefix\n64500,5,192.0.2.0/24", None, "192.0.2.0/24 5");
    check(r#"[{"prefix": "192.0.2.0/24", "as": 64500}]"#, None, "192.0.2.0/24 4 AS64500");
    check(r#"[{"prefix": "192.0.2.0/24", "as": 64500, "region": 5}]"#, None, "192.0.2.0/24 5");
    check(r#"[{"prefix": "192.0.2.0/24", "as": 64500, "region": 5}]"#, origins, "192.0.2.0/24 4 AS64500");
    check(r#"{"192.0.2.0/24": "AS64500"}"#, None, "192.0.2.0/24 4 AS64500");
    // As pyasn writes it; nobody said a region of the first.
    let pyasn = "; IP-ASN32-DAT file\n; Original file : rib\n1.0.0.0/24\t13335\n192.0.2.0/24\t64500\n";
    check(pyasn, origins, "192.0.2.0/24 4 AS64500, 1 left out");
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let check = |list: &str, expected: &[&str]| check_errors(list, None, expected);
    let prefix = "a prefix is 192.0.2.0/24, 2001:db8::/32 or an address";
    check("prefix,region\n192.0.2.0,x", &["2: region = \"x\": a region is 0..=65535"]);
    check("prefix,as\n192.0.2.0,x\n10.0.0.0/8,1", &["2: as = \"x\": an AS is 0..=4294967295"]);
    check("10.0.0.0/8 AS", &["1: as = \"AS\": an AS is 0..=4294967295"]);
    let columns = "the header has 2 columns, this line has not";
    check("prefix,region\n10.0.0.0/8", &[&format!("2: \"10.0.0.0/8\": {columns}")]);
    check("prefix,region\n10.0.0.0/8,4,5", &[&format!("2: \"10.0.0.0/8,4,5\": {columns}")]);
    check("prefix,region\n\"10.0.0.0/8,4", &[&format!("2: \"\\\"10.0.0.0/8,4\": {columns}")]);
    check(
        r#"{"x": 4, "10.0.0.0/8": -1}"#,
        &[&format!("entry 1: prefix = \"x\": {prefix}"), "entry 2: region = \"-1\": a region is 0..=65535"],
    );
    check(r#"{"10.0.0.0/8": null}"#, &["entry 1: region = \"null\": a region is 0..=65535"]);
    check(
        r#"{"10.0.0.0/8": 4, "10.0.0.0/8": 5}"#,
        &["entry 2: 10.0.0.0/8 is in region 5 here and in region 4 further up; keep one"],
    );
    check(
        r#"[{"prefix": "10.0.0.0/8"}, {"region": 4}]"#,
        &["entry 1: prefix = \"10.0.0.0/8\": it has no \"region\" or \"as\"", "entry 2: it has no \"prefix\""],
    );
    let json = "it is no list in JSON";
    check("{\n\"10.0.0.0/8\"\n", &[&format!("3: {json}: EOF while parsing an object at line 3 column 0")]);
    check("{} {}", &[&format!("1: {json}: trailing characters at line 1 column 4")]);
    check(
        "[4]",
        &[&format!(
            "1: {json}: invalid type: integer `4`, expected an object with a \"prefix\" and a \"region\" or an \"as\" at line 1 column 2"
        )],
    );
    let twice = "\"prefix\" is there twice at line 1 column 28";
    check(r#"[{"prefix":"", "prefix": ""}]"#, &[&format!("1: {json}: {twice}")]);
    let contradiction = "1: the header's columns are not what the config's `values` says";
    check_errors("prefix,region\n10.0.0.0/8,4", Some(Values::Origins), &[contradiction]);
    let further = contradiction.replace("1:", "3:");
    check_errors("\n# x\nprefix,region\n10.0.0.0/8,4", Some(Values::Origins), &[&further]);
    check("# x\nprefix,region\n10.0.0.0/8", &[&format!("3: \"10.0.0.0/8\": {columns}")]);
}

#[test]
fn reading_stops_after_twenty_errors() {
    for list in ["x\n".repeat(100), format!("[{}{{}}]", "{},".repeat(99))] {
        let error = parse(&list, None).unwrap_err().0;
        assert_eq!(error.lines().count(), 21, "{error}");
        assert!(error.ends_with("list: perhaps more: reading stopped after 20 errors"), "{error}");
    }
    let deep = parse(&"[".repeat(100_000), None).unwrap_err().0;
    assert!(deep.len() < 300, "{deep}");
    let long = parse(&format!("{{\"{}\": 4}}", "x".repeat(1_000_000)), None).unwrap_err().0;
    assert!(long.len() < 300, "{} bytes", long.len());
}

#[test]
fn a_list_is_read_from_its_file() {
    let place = tempfile::tempdir().unwrap();
    let config = |name: &str| {
        toml::from_str::<Config>(&format!("file = {:?}\nclass = \"exchange\"", place.path().join(name))).unwrap()
    };
    std::fs::write(place.path().join("list"), "192.0.2.0/24 4").unwrap();
    assert_eq!(read_bytes(&config("list").file).unwrap(), b"192.0.2.0/24 4");
    assert_eq!(config("list").class, SessionClass::Exchange);
    let error = read_bytes(&config("none").file).unwrap_err().0;
    assert!(error.contains("none: No such file"), "{error}");
    let mut nothing = |_| Ok(());
    let error = each(Path::new("list"), b"\xff", None, &origins, &regions(), &mut nothing).unwrap_err().0;
    assert!(error.contains("list: it is not a text in UTF-8"), "{error}");
    assert_eq!(toml::from_str::<Config>("file = \"x\"").unwrap().class, SessionClass::Private);
    assert!(toml::from_str::<Config>("file = \"x\"\nclas = \"transit\"").is_err());
}

proptest! {
    #[test]
    fn nothing_panics(list in "[\\[{]?[ -~\n\"{}:,#;\u{e9}]{0,80}") {
        let _ = parse(&list, None);
        let _ = parse(&format!("prefix,region\n{list}"), None);
    }

    #[test]
    fn csv_is_split_as_it_was_joined(fields in prop::collection::vec("[a-z\", ]{0,8}", 1..5)) {
        let quoted: Vec<String> = fields.iter().map(|field| format!("\"{}\"", field.replace('"', "\"\""))).collect();
        let (mut split, line) = (Vec::new(), quoted.join(" , "));
        prop_assert!(super::text::split(&line, &mut split).is_some());
        let split: Vec<String> = split.iter().map(|field| field.replace("\"\"", "\"")).collect();
        prop_assert_eq!(split, fields);
    }
}

#[track_caller]
fn check(list: &str, values: Option<Values>, expected: &str) {
    let (entries, without_region) = parse(list, values).unwrap_or_else(|error| panic!("{list}: {error}"));
    let mut told: Vec<String> = entries
        .iter()
        .map(|Entry { prefix, region, origin_as }| {
            format!("{prefix} {region}{}", origin_as.map_or(String::new(), |origin| format!(" AS{origin}")))
        })
        .collect();
    if without_region > 0 {
        told.push(format!("{without_region} left out"));
    }
    assert_eq!(told.join(", "), expected, "{list}");
}

#[track_caller]
fn check_errors(list: &str, values: Option<Values>, expected: &[&str]) {
    let error = parse(list, values).unwrap_err().0;
    let errors: Vec<&str> = error.lines().map(|line| line.split_once("list:").unwrap().1).collect();
    assert_eq!(errors, expected);
}

/// Entries and how many were left out; a prefix that is there twice comes once.
fn parse(list: &str, values: Option<Values>) -> Result<(Vec<Entry>, u64), ListError> {
    let (mut entries, mut known) = (Vec::new(), HashMap::new());
    let mut sink = |entry: Entry| match known.insert(entry.prefix, entry.region) {
        None => {
            entries.push(entry);
            Ok(())
        }
        Some(before) => one_region(&entry.prefix, entry.region, before),
    };
    let left_out = each(Path::new("list"), list.as_bytes(), values, &origins, &regions(), &mut sink)?;
    Ok((entries, left_out.count))
}

fn origins(origin_as: u32) -> Option<RegionId> {
    (origin_as == 64500).then_some(RegionId(4))
}

fn regions() -> Regions {
    let document = r#"
        version = 1
        domain = "example.org"
        default_region = 4
        content_servers = { url = "http://cs{number}", numbers = ["1"] }
        region = [
            { id = 4, name = "Moscow", latitude = 55.75, longitude = 37.6 },
            { id = 5, name = "Quito", latitude = -0.2, longitude = -78.5 },
        ]
    "#;
    Regions::of(&Topology::parse(document).unwrap())
}
