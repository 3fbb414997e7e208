//! Resolving with lists and geoip files that the tests write themselves.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mmdb_writer::{Value, Writer};
use proptest::prelude::*;

use super::*;

#[test]
fn the_longest_listed_prefix_says_the_region() {
    let list = "127.0.0.0/8 1\n127.1.0.0/16 2\n127.1.2.0/24 3\n127.1.2.3 4\n2001:db8::/32 2\n2001:db8:1::/48 3\n";
    let resolver = with_list(list).unwrap();
    check(&resolver, "127.9.9.9", "1 2 3 4 prefix 127.0.0.0/8");
    check(&resolver, "127.1.9.9", "2 1 prefix 127.1.0.0/16");
    check(&resolver, "127.1.2.9", "3 2 1 prefix 127.1.2.0/24");
    check(&resolver, "127.1.2.3", "4 3 2 1 prefix 127.1.2.3/32");
    check(&resolver, "128.0.0.1", "5 1 default");
    check(&resolver, "2001:db8::1", "2 prefix 2001:db8::/32");
    check(&resolver, "2001:db8:1:ffff::1", "3 2 1 prefix 2001:db8:1::/48");
    check(&resolver, "2001:db9::1", "5 1 default");
}

#[test]
fn an_ipv4_address_in_ipv6s_clothes_is_an_ipv4_address() {
    let resolver = with_list("127.1.0.0/16 2\n::ffff:10.0.0.0/104 3\n::/0 4\n").unwrap();
    check(&resolver, "::ffff:127.1.2.3", "2 prefix 127.1.0.0/16");
    check(&resolver, "::ffff:8.8.8.8", "5 1 default");
    check(&resolver, "10.1.1.1", "3 1 prefix 10.0.0.0/8");
    check(&resolver, "::127.1.2.3", "4 prefix ::/0");
}

#[test]
fn a_list_is_text_or_csv() {
    let expected = "2 prefix 127.1.0.0/16";
    for line in [
        "127.1.0.0/16 2",
        "127.1.0.0/16,2",
        "127.1.0.0/16, 2",
        "  127.1.0.0/16\t2  # Moscow",
        "\"127.1.0.0/16\",\"2\"",
        "127.1.0.0/16 2\r",
        "127.1.0.0/16 2\n127.1.0.0/16 2",
        "prefix,region\n127.1.0.0/16,2",
        "\u{feff}Prefix, Region\r\n127.1.0.0/16,2\r\n",
        "# comment\n\n   \n127.1.0.0/16 2\n#",
    ] {
        check(&with_list(line).unwrap(), "127.1.2.3", expected);
    }
}

#[test]
fn a_list_is_json_too_but_not_one_of_ases() {
    check(&with_list("{\"127.1.0.0/16\": 2}").unwrap(), "127.1.2.3", "2 prefix 127.1.0.0/16");
    let error = with_list("127.1.0.0/16 2\n127.2.0.0/16 AS64500").unwrap_err().0;
    assert!(error.ends_with("list: it lists ASes, and only a geo server has their regions"), "{error}");
}

#[test]
fn a_wrong_line_is_told_with_its_file_and_line() {
    let form = "a line is `prefix region` or `prefix,region`";
    check_list("127.1.0.0/16", &[&format!("1: \"127.1.0.0/16\": {form}")]);
    check_list("\n127.1.0.0/16 2 3", &[&format!("2: \"127.1.0.0/16 2 3\": {form}")]);
    check_list(
        "a,region\nprefix,region",
        &["1: region = \"region\": a region is 0..=65535"; 1]
            .iter()
            .copied()
            .chain(["2: region = \"region\": a region is 0..=65535"])
            .collect::<Vec<_>>(),
    );
    check_list("127.1.0.0/16 65536", &["1: region = \"65536\": a region is 0..=65535"]);
    check_list("127.1.0.0/16 9", &["1: region = 9: the topology has no such region"]);
    let prefix = "a prefix is 192.0.2.0/24, 2001:db8::/32 or an address";
    check_list("127.1.0.0/33 2", &[&format!("1: prefix = \"127.1.0.0/33\": {prefix}")]);
    check_list("127.1/16 2", &[&format!("1: prefix = \"127.1/16\": {prefix}")]);
    check_list("127.1.0.1/16 2", &["1: prefix = \"127.1.0.1/16\": it has bits behind its length; write 127.1.0.0/16"]);
    check_list(
        "10.0.0.0/8 1\n10.0.0.0/8 2",
        &["2: 10.0.0.0/8 is in region 2 here and in region 1 further up; keep one"],
    );
}

#[test]
fn a_flood_of_wrong_lines_is_cut() {
    let error = with_list(&"x\n".repeat(1000)).unwrap_err().0;
    assert_eq!(error.lines().count(), 21);
    let error = with_list(&format!("{} 1", "x".repeat(1_000_000))).unwrap_err().0;
    assert!(error.len() < 1000, "{} bytes", error.len());
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let sources = Sources { prefixes: vec!["/nonexistent/list".into()], ..Sources::default() };
    let error = Resolver::load(&sources, &topology()).unwrap_err().0;
    assert!(error.starts_with("/nonexistent/list: No such file"), "{error}");
    let sources = Sources { geoip: vec!["/nonexistent/geoip".into()], ..Sources::default() };
    let error = Resolver::load(&sources, &topology()).unwrap_err().0;
    assert!(error.starts_with("/nonexistent/geoip: No such file"), "{error}");
}

#[test]
fn a_position_leads_to_the_nearest_region() {
    let regions = Regions::of(&topology());
    // The regions: 1 Moscow, 2 Fiji, 3 Samoa, 4 Svalbard, 5 Quito.
    for (position, nearest) in [
        ((55.75, 37.6), 1),
        ((50.45, 30.52), 1),
        ((-18.0, 179.9), 2),
        ((-18.0, -179.9), 2), // Over the antimeridian.
        ((-13.5, -173.0), 3),
        ((90.0, 123.0), 4), // The pole has every longitude.
        ((80.0, -160.0), 4),
        ((0.0, -60.0), 5),
        ((-90.0, 0.0), 2),
    ] {
        assert_eq!(regions.nearest(position), RegionId(nearest), "{position:?}");
    }
}

#[test]
fn a_city_file_leads_to_the_nearest_region() {
    let mut city = Writer::new("City");
    city.insert_value(net("81.2.69.0/24"), city_record(51.5, -0.13, "GB")).unwrap();
    city.insert_value(net("103.1.0.0/16"), city_record(-17.7, 178.1, "FJ")).unwrap();
    city.insert_value(net("104.1.0.0/16"), nested("EC")).unwrap();
    city.insert_value(net("105.1.0.0/16"), city_record(f64::NAN, 0.0, "EC")).unwrap();
    city.insert_value(net("2001:218::/32"), city_record(79.0, 20.0, "SJ")).unwrap();
    let resolver = with_geoip(&city, &[("EC", 5)]).unwrap();
    check(&resolver, "81.2.69.7", "1 2 3 4 geoip GB");
    check(&resolver, "::ffff:81.2.69.7", "1 2 3 4 geoip GB");
    check(&resolver, "103.1.2.3", "2 geoip FJ");
    check(&resolver, "104.1.2.3", "5 1 geoip EC");
    check(&resolver, "105.1.2.3", "5 1 geoip EC"); // No position on the globe: the country.
    check(&resolver, "2001:218::1", "4 geoip SJ");
    check(&resolver, "8.8.8.8", "5 1 default");
}

#[test]
fn a_country_file_leads_where_countries_say() {
    for record in [nested as fn(&str) -> Value, flat, flat_country] {
        let mut file = Writer::new("Country");
        file.insert_value(net("81.2.69.0/24"), record("GB")).unwrap();
        file.insert_value(net("103.1.0.0/16"), record("FJ")).unwrap();
        file.insert_value(net("104.1.0.0/16"), record("US")).unwrap();
        let resolver = with_geoip(&file, &[("GB", 1), ("FJ", 2)]).unwrap();
        check(&resolver, "81.2.69.7", "1 2 3 4 geoip GB");
        check(&resolver, "103.1.2.3", "2 geoip FJ");
        check(&resolver, "104.1.2.3", "5 1 default");
    }
}

#[test]
fn a_flat_city_file_has_positions_too() {
    let mut file = Writer::new("City");
    let record =
        [("country_code", Value::from("FJ")), ("latitude", Value::Float(-17.5)), ("longitude", Value::Float(178.0))];
    file.insert_value(net("103.1.0.0/16"), Value::map(record)).unwrap();
    check(&with_geoip(&file, &[]).unwrap(), "103.1.2.3", "2 geoip FJ");
}

#[test]
fn a_listed_prefix_comes_before_geoip() {
    let place = tempfile::tempdir().unwrap();
    let mut file = Writer::new("Country");
    file.insert_value(net("81.2.69.0/24"), flat("GB")).unwrap();
    let sources = Sources {
        prefixes: vec![write(&place, "list", b"81.2.69.128/25 3")],
        geoip: vec![write(&place, "geoip", &file.to_bytes().unwrap())],
        countries: BTreeMap::from([("GB".to_owned(), RegionId(1))]),
        server: None,
    };
    let resolver = Resolver::load(&sources, &topology()).unwrap();
    check(&resolver, "81.2.69.1", "1 2 3 4 geoip GB");
    check(&resolver, "81.2.69.129", "3 1 prefix 81.2.69.128/25");
}

#[test]
fn a_geoip_file_that_can_tell_nothing_is_refused() {
    let file = || {
        let mut file = Writer::new("Country");
        file.insert_value(net("81.2.69.0/24"), flat("GB")).unwrap();
        file
    };
    let none = "no record leads to a region: none has a position, and `countries`";
    check_geoip(with_geoip(&file(), &[]), &format!("{none} is empty"));
    check_geoip(with_geoip(&file(), &[("FR", 1)]), &format!("{none} has none of its countries"));
    let nothing = "no record has a position or a country: it is no city or country file, but one of AS, perhaps";
    check_geoip(with_geoip(&Writer::new("Empty"), &[]), nothing);
    let mut of_as = Writer::new("GeoLite2-ASN");
    let number = ("autonomous_system_number", mmdb_writer::Value::U32(64_500));
    of_as.insert_value(net("81.2.69.0/24"), mmdb_writer::Value::map([number])).unwrap();
    check_geoip(with_geoip(&of_as, &[("GB", 1)]), nothing);
    let region = with_geoip(&file(), &[("GB", 9)]).unwrap_err().0;
    assert_eq!(region, "countries: \"GB\" = 9: the topology has no such region");
    let code = with_geoip(&file(), &[("gb", 1)]).unwrap_err().0;
    assert_eq!(code, "countries: \"gb\" = 1: a country is two letters in upper case, \"RU\"");
}

#[test]
fn an_ipv4_file_knows_nothing_of_ipv6() {
    let mut file = Writer::builder("Country").ip_version(mmdb_writer::IpVersion::V4).build();
    file.insert_value(net("81.2.69.0/24"), flat("GB")).unwrap();
    let resolver = with_geoip(&file, &[("GB", 1)]).unwrap();
    check(&resolver, "81.2.69.7", "1 2 3 4 geoip GB");
    check(&resolver, "2001:218::1", "5 1 default");
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let place = tempfile::tempdir().unwrap();
    let whole = small_city_file();
    for end in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
        assert!(load_geoip(&place, &whole[..end]).is_err(), "cut at {end} of {}", whole.len());
    }
    assert!(load_geoip(&place, &whole).is_ok());
}

#[test]
fn a_broken_byte_is_an_error_or_harmless_and_never_a_panic() {
    let place = tempfile::tempdir().unwrap();
    let (whole, regions) = (small_city_file(), Regions::of(&topology()));
    let mut refused = 0;
    for (index, flip) in (0..whole.len()).zip([0x01, 0x80, 0xff].into_iter().cycle()) {
        let mut broken = whole.clone();
        broken[index] ^= flip;
        // A table of each of them would take a minute; what is baked is as good as any other ranges.
        let baked = crate::geoip::Geoip::load(&write(&place, "geoip", &broken)).and_then(|file| {
            let _ = EVERYWHERE.map(|address| file.place(address.parse().unwrap()));
            file.bake(&BTreeMap::new(), &regions)
        });
        refused += usize::from(baked.is_err());
    }
    assert!(refused > whole.len() / 9, "only {refused} of {} were noticed", whole.len());
}

#[test]
fn a_tree_without_an_end_is_an_error() {
    let place = tempfile::tempdir().unwrap();
    let whole = small_city_file();
    let reader = maxminddb::Reader::from_source(&whole).unwrap();
    let (nodes, record_size) = (reader.metadata().node_count, reader.metadata().record_size);
    assert!(record_size == 24 && nodes > 120);
    // Both children of each node are the next one, which makes 2 to the power of the depth leaves, or its
    // own parent. IPv4 begins at node 96, and a depth of 97 has nearly all leaves there.
    for (depth, onward) in [(120, true), (97, true), (120, false)] {
        let mut broken = whole.clone();
        for node in 0..nodes {
            let next = if onward { node + 1 } else { node.saturating_sub(1) };
            let child = if node < depth { next } else { nodes };
            let bytes = &child.to_be_bytes()[1..];
            let start = node as usize * 6;
            broken[start..start + 6].copy_from_slice(&[bytes, bytes].concat());
        }
        let error = load_geoip(&place, &broken).unwrap_err().0;
        assert!(error.contains("the search tree has more leaves") || error.contains("cycle"), "{error}");
    }
}

#[test]
fn of_several_geoip_files_each_family_is_taken_from_the_first_that_has_it() {
    let place = tempfile::tempdir().unwrap();
    let file = |name: &str, network: &str, country: &str| {
        let mut file = Writer::new("Country");
        file.insert_value(net(network), nested(country)).unwrap();
        write(&place, name, &file.to_bytes().unwrap())
    };
    let text = |paths: &[&PathBuf]| format!("geoip = {paths:?}\ncountries = {{ GB = 5, FR = 2 }}\n");
    let (v4, v6) = (file("v4", "81.2.69.0/24", "GB"), file("v6", "2001:218::/32", "FR"));
    let both: Sources = toml::from_str(&text(&[&v4, &v6])).unwrap();
    let resolver = Resolver::load(&both, &topology()).unwrap();
    check(&resolver, "81.2.69.1", "5 1 geoip GB");
    assert_eq!(resolver.resolve("2001:218::1".parse().unwrap()).evidence.to_string(), "geoip FR");
    let one: Sources = toml::from_str("geoip = \"a.mmdb\"").unwrap();
    assert_eq!(one.geoip, [PathBuf::from("a.mmdb")]);
    let bad = toml::from_str::<Sources>("geoip = 4").unwrap_err().to_string();
    assert!(bad.contains("a path or a list of paths"), "{bad}");
}

#[test]
fn what_is_no_geoip_file_is_refused() {
    let place = tempfile::tempdir().unwrap();
    for bytes in [&b""[..], b"127.0.0.0/8 1\n", &[0; 4096], b"\xab\xcd\xefMaxMind.com"] {
        let error = load_geoip(&place, bytes).unwrap_err().0;
        assert!(error.contains("geoip: it is no whole file in MaxMind's format: "), "{error}");
    }
}

#[test]
fn regions_are_at_most_four_and_all_neighbours_are_asked() {
    let resolver = with_list("127.0.0.0/8 1\n").unwrap();
    check(&resolver, "127.0.0.1", "1 2 3 4 prefix 127.0.0.0/8");
    let down = |region| if [1, 2, 4].map(RegionId).contains(&region) { Standing::Down } else { Standing::Live };
    let resolution = resolver.resolve_with([127, 0, 0, 1].into(), down);
    assert_eq!(
        (&*resolution.regions, resolution.evidence.to_string().as_str()),
        (&[3, 5].map(RegionId)[..], "prefix 127.0.0.0/8")
    );
}

#[test]
fn sources_are_read_from_a_config_of_any_part() {
    let sources: Sources = toml::from_str("prefixes = [\"a\"]\n[countries]\nRU = 4").unwrap();
    assert_eq!(sources.prefixes, [Path::new("a")]);
    assert_eq!(sources.countries["RU"], RegionId(4));
    assert_eq!(toml::from_str::<Sources>("").unwrap(), Sources::default());
    assert!(toml::from_str::<Sources>("prefix = []").is_err());
}

#[test]
fn changed_files_and_regions_are_read_anew_and_bad_ones_are_not() {
    let place = tempfile::tempdir().unwrap();
    let list = write(&place, "list", b"127.0.0.0/8 1");
    let (sender, watched) = tokio::sync::watch::channel(Arc::new(topology()));
    let mut following = Following::of(Sources { prefixes: vec![list.clone()], ..Sources::default() }, watched);
    check(&following.start().unwrap(), "127.0.0.1", "1 2 3 4 prefix 127.0.0.0/8");
    assert!(settled(&mut following).is_none());

    fs::write(&list, "127.0.0.0/8 2").unwrap();
    check(&settled(&mut following).unwrap(), "127.0.0.1", "2 prefix 127.0.0.0/8");
    fs::write(&list, "127.0.0.0/8 9").unwrap();
    assert!(settled(&mut following).is_none());
    assert!(following.said.as_ref().unwrap().ends_with("list:1: region = 9: the topology has no such region"));

    // The region that was missing comes, and the list is good without having changed.
    sender.send_replace(Arc::new(parse(&DOCUMENT.replace("id = 4", "id = 9").replace("[2, 3, 4, 5]", "[2]"))));
    check(&settled(&mut following).unwrap(), "127.0.0.1", "9 prefix 127.0.0.0/8");
    assert!(following.said.is_none());
    assert!(settled(&mut following).is_none());

    fs::remove_file(&list).unwrap();
    assert!(settled(&mut following).is_none());
    sender.send_replace(Arc::new(parse(&DOCUMENT.replace("id = 4", "id = 9").replace("[2, 3, 4, 5]", "[9]"))));
    assert!(settled(&mut following).is_none());
    fs::write(&list, "127.0.0.0/8 1").unwrap();
    check(&settled(&mut following).unwrap(), "127.0.0.1", "1 9 prefix 127.0.0.0/8");

    // Unchanged, but what was read of it while it went away may have failed.
    fs::remove_file(&list).unwrap();
    assert!(settled(&mut following).is_none());
    fs::write(&list, "127.0.0.0/8 1").unwrap();
    assert!(settled(&mut following).is_some());
}

#[test]
fn a_changed_weight_is_no_reason_to_read_everything_anew() {
    let (sender, watched) = tokio::sync::watch::channel(Arc::new(topology()));
    let mut following = Following::of(Sources::default(), watched);
    following.start().unwrap();
    sender.send_replace(Arc::new(parse(&DOCUMENT.replace("weight = 1", "weight = 2"))));
    assert!(settled(&mut following).is_none());
}

#[tokio::test]
async fn a_followed_table_is_replaced_while_it_is_used() {
    let place = tempfile::tempdir().unwrap();
    let list = write(&place, "list", b"127.0.0.0/8 1");
    let (_sender, watched) = tokio::sync::watch::channel(Arc::new(topology()));
    let sources = Sources { prefixes: vec![list.clone()], ..Sources::default() };
    let shared = follow(sources, watched, None, &prometheus::Registry::new()).await.unwrap();
    check(&shared.load(), "127.0.0.1", "1 2 3 4 prefix 127.0.0.0/8");
    fs::write(&list, "127.0.0.0/8 2").unwrap();
    let replaced = async {
        while *shared.load().resolve([127, 0, 0, 1].into()).regions != [RegionId(2)] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), replaced).await.expect("a new table in time");
}

#[test]
fn a_server_is_all_the_evidence_there_is() {
    let server = "[server]\nurl = 'http://127.0.0.1:1'\ntoken_file = '/nonexistent/token'\n";
    let sources: Sources = toml::from_str(server).unwrap();
    let error = Resolver::load(&sources, &topology()).unwrap_err().0;
    assert!(error.starts_with("/nonexistent/token: cannot be read"), "{error}");
    let both: Sources = toml::from_str(&format!("prefixes = ['list']\n{server}")).unwrap();
    let error = Resolver::load(&both, &topology()).unwrap_err().0;
    assert!(error.starts_with("geo: a server is all the evidence there is"), "{error}");
}

#[tokio::test]
async fn bad_sources_are_an_error_of_the_start() {
    let (_sender, watched) = tokio::sync::watch::channel(Arc::new(topology()));
    let sources = Sources { prefixes: vec!["/nonexistent/list".into()], ..Sources::default() };
    assert!(follow(sources, watched, None, &prometheus::Registry::new()).await.is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_trie_answers_as_a_scan_of_the_list_does(
        prefixes in prop::collection::btree_map((0_u32..64, 0_u8..=12), 1_u16..=5, 0..30),
        addresses in prop::collection::vec(0_u32..64, 1..20),
    ) {
        let nets: BTreeMap<IpNet, u16> = prefixes
            .into_iter()
            .map(|((bits, length), region)| (ipv4(bits, length), region))
            .collect();
        let list: String = nets.iter().map(|(net, region)| format!("{net} {region}\n")).collect();
        let resolver = with_list(&list).unwrap();
        for address in addresses {
            let address = IpAddr::V4((address << 26 | 77).into());
            let longest = nets.iter().filter(|(net, _)| net.contains(&address)).max_by_key(|(net, _)| net.prefix_len());
            let expected = longest.map_or(Evidence::Default, |(net, _)| Evidence::Prefix(*net));
            let resolution = resolver.resolve(address);
            prop_assert_eq!(resolution.evidence, expected);
            prop_assert_eq!(resolution.regions[0].0, longest.map_or(5, |(_, &region)| region));
        }
    }
}

/// Networks whose first bits vary most.
fn ipv4(bits: u32, length: u8) -> IpNet {
    IpNet::from(ipnet::Ipv4Net::new((bits << 26).into(), length).unwrap()).trunc()
}

/// Looks until nothing is left to settle; the last new table.
fn settled(following: &mut Following) -> Option<Resolver> {
    let looks: Vec<_> = (0..3).map(|_| following.look(SystemTime::now())).collect();
    looks.into_iter().flatten().last()
}

const EVERYWHERE: [&str; 7] = ["81.2.69.7", "103.1.2.3", "8.8.8.8", "255.255.255.255", "::", "2001:218::1", "ffff::"];

fn small_city_file() -> Vec<u8> {
    let mut city = Writer::new("City");
    city.insert_value(net("81.2.69.0/24"), city_record(51.5, -0.13, "GB")).unwrap();
    city.insert_value(net("103.1.0.0/16"), city_record(-17.7, 178.1, "FJ")).unwrap();
    city.insert_value(net("2001:218::/32"), city_record(79.0, 20.0, "SJ")).unwrap();
    city.to_bytes().unwrap()
}

fn city_record(latitude: f64, longitude: f64, country: &str) -> Value {
    let location = [("latitude", Value::Double(latitude)), ("longitude", Value::Double(longitude))];
    let names = Value::map([("en", Value::from("Somewhere"))]);
    Value::map([
        ("city", Value::map([("names", names)])),
        ("country", Value::map([("iso_code", Value::from(country))])),
        ("location", Value::map(location)),
    ])
}

fn nested(country: &str) -> Value {
    Value::map([("country", Value::map([("iso_code", Value::from(country))]))])
}

fn flat(country: &str) -> Value {
    Value::map([("country_code", Value::from(country))])
}

fn flat_country(country: &str) -> Value {
    Value::map([("country", Value::from(country))])
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn with_geoip(file: &Writer, countries: &[(&str, u16)]) -> Result<Resolver, ResolverError> {
    let place = tempfile::tempdir().unwrap();
    let countries = countries.iter().map(|&(code, region)| (code.to_owned(), RegionId(region))).collect();
    let geoip = vec![write(&place, "geoip", &file.to_bytes().unwrap())];
    Resolver::load(&Sources { geoip, countries, ..Sources::default() }, &topology())
}

fn load_geoip(place: &tempfile::TempDir, bytes: &[u8]) -> Result<Resolver, ResolverError> {
    Resolver::load(&Sources { geoip: vec![write(place, "geoip", bytes)], ..Sources::default() }, &topology())
}

fn with_list(list: &str) -> Result<Resolver, ResolverError> {
    let place = tempfile::tempdir().unwrap();
    let prefixes = vec![write(&place, "list", list.as_bytes())];
    Resolver::load(&Sources { prefixes, ..Sources::default() }, &topology())
}

fn write(place: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = place.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// `expected` is the regions, best first, and the evidence.
#[track_caller]
fn check(resolver: &Resolver, client: &str, expected: &str) {
    let Resolution { regions, evidence } = resolver.resolve(client.parse().unwrap());
    let regions: Vec<String> = regions.iter().map(ToString::to_string).collect();
    assert_eq!(format!("{} {evidence}", regions.join(" ")), expected, "{client}");
}

/// `expected` is the errors without the list's path.
#[track_caller]
fn check_list(list: &str, expected: &[&str]) {
    let error = with_list(list).unwrap_err().0;
    let errors: Vec<&str> = error.lines().map(|line| line.split_once("list:").unwrap().1).collect();
    assert_eq!(errors, expected);
}

#[track_caller]
fn check_geoip(loaded: Result<Resolver, ResolverError>, expected: &str) {
    let error = loaded.unwrap_err().0;
    assert_eq!(error.split_once("geoip: ").unwrap().1, expected);
}

fn topology() -> Topology {
    parse(DOCUMENT)
}

fn parse(document: &str) -> Topology {
    Topology::parse(document).unwrap()
}

const DOCUMENT: &str = r#"
version = 1
domain = "example.org"
default_region = 5
content_servers = { url = "http://cs{number}", numbers = ["1"] }
region = [
    { id = 1, name = "Moscow", latitude = 55.75, longitude = 37.6, neighbours = [2, 3, 4, 5] },
    { id = 2, name = "Fiji", latitude = -18, longitude = 178 },
    { id = 3, name = "Samoa", latitude = -13.8, longitude = -172, neighbours = [1] },
    { id = 4, name = "Svalbard", latitude = 78.2, longitude = 15.6 },
    { id = 5, name = "Quito", latitude = -0.2, longitude = -78.5, neighbours = [1] },
]
group = [{ name = "sun1-1", subnet = "192.0.2.0/24" }]
sun = [{ name = "sun1-1-1", addresses = ["192.0.2.1"], internal = "10.0.0.1:81", weight = 1 }]
"#;
