//! What rules are refused, and that a verdict is found as a scan of the rules would find it.

use proptest::prelude::*;

use super::*;
use crate::route::{Attributes, SessionClass};
use crate::topology::Topology;

#[test]
fn a_rule_has_one_condition_and_a_region() {
    let none = "it has no condition: give one of prefix, as, via and community";
    let several = "it has several conditions: keep one of prefix, as, via and community";
    check("", "");
    check("pin 4 as=64500\ndeny 4 via=64500\nprefer 4 community=1:2:3", "");
    check("pin 4", &format!("rule[0]: {none}"));
    check("pin 4 as=1\npin 4 as=1 via=2", &format!("rule[1]: {several}"));
    check("pin 9 as=1", "rule[0]: region = 9: the topology has no such region");
    let hint = "it has bits behind its length; write 192.0.0.0/16";
    check("pin 4 prefix=192.0.2.0/16", &format!("rule[0]: prefix = \"192.0.2.0/16\": {hint}"));
    for wrong in ["64500", "1:65536", "1:2:3:4", "1:2:4294967296", ":", "a:b", "-1:2"] {
        let form = "a community is 64500:20, two numbers up to 65535, or 64500:1:20, three up to 4294967295";
        let expected = format!("rule[0]: community = {wrong:?}: {form}");
        check(&format!("pin 4 community={wrong}"), &expected);
    }
}

#[test]
fn a_region_is_left_for_everybody() {
    let told = |what: &str| format!("{what}: every region is denied: leave one that serves these clients");
    let denied = |condition: &str| -> String {
        let rules: Vec<String> = regions(6).iter().map(|region| format!("deny {region} {condition}")).collect();
        rules.join("\n")
    };
    check(&denied("prefix=10.0.0.0/8"), &told("prefix 10.0.0.0/8"));
    check(&denied("as=64500"), &told("as 64500"));
    check(&denied("community=1:2"), &told("community 1:2"));
    let inside = denied("prefix=10.0.0.0/8").replacen("/8", "/9", 1);
    check(&inside, &told("prefix 10.0.0.0/9"));
    let pinned = format!("{inside}\npin 4 prefix=10.0.0.0/10");
    check(&pinned, &told("prefix 10.0.0.0/9"));
    check(&denied("prefix=10.0.0.0/8").replacen("deny", "pin", 1), "");
}

#[test]
fn equal_rules_may_not_contradict_each_other() {
    check("pin 4 prefix=10.0.0.0/8\npin 4 prefix=10.0.0.0/8", "");
    check("pin 4 prefix=10.0.0.0/8\npin 5 prefix=10.0.0.0/8", "");
    check("pin 4 prefix=10.0.0.0/8\ndeny 4 prefix=10.0.0.0/9", "");
    check("pin 4 as=1\ndeny 4 via=1", "");
    let keep = "prefix 10.0.0.0/8, region 4: deny here and pin in rule[0]; keep one";
    check("pin 4 prefix=10.0.0.0/8\ndeny 4 prefix=::ffff:10.0.0.0/104", &format!("rule[1]: {keep}"));
    check("prefer 4 as=1\npin 4 as=1", "rule[1]: as 1, region 4: pin here and prefer in rule[0]; keep one");
}

#[test]
fn an_as_is_in_one_region() {
    let check = |origins: &[(u32, u16)], expected: &str| {
        let origins: Vec<Origin> =
            origins.iter().map(|&(origin_as, region)| Origin { origin_as, region: RegionId(region) }).collect();
        let checked = Rules::check(&[], &origins, &regions(6)).map_err(|error| error.0);
        assert_eq!(checked.as_ref().err().map_or("", String::as_str), expected);
        checked.ok()
    };
    let rules = check(&[(64500, 4), (64501, 5), (64500, 4)], "").unwrap();
    assert_eq!([64500, 64501, 64502].map(|origin| rules.origin(origin)), [Some(RegionId(4)), Some(RegionId(5)), None]);
    check(&[(1, 9)], "origin[0]: as = 1: region = 9: the topology has no such region");
    check(&[(1, 4), (1, 5)], "origin[1]: as = 1 is in region 5 here and in region 4 further up; keep one");
}

#[test]
fn more_denied_regions_than_a_leaf_holds_are_refused() {
    let regions = regions(100);
    let denied = |count: u16, condition: &str| -> String {
        (0..count).map(|region| format!("deny {region} {condition}\n")).collect()
    };
    let outer = denied(64, "prefix=10.0.0.0/8");
    check_with(&regions, &outer, "");
    let inner = format!("{outer}deny 64 prefix=10.1.0.0/16");
    check_with(&regions, &inner, "up to 65 regions are denied for 10.1.0.0/16: at most 64");
    check_with(&regions, &format!("{inner}\npin 3 prefix=10.1.0.0/16"), "");
    check_with(&regions, &format!("{outer}deny 64 as=1"), "up to 65 regions are denied for 10.0.0.0/8: at most 64");
    check_with(&regions, &denied(65, "as=1"), "rules by AS and community deny 65 regions: at most 64");
}

#[test]
fn a_flood_of_wrong_rules_is_cut() {
    let error = Rules::check(&rules(&"pin 9 as=1\n".repeat(1000)), &[], &regions(6)).unwrap_err().0;
    assert_eq!(error.lines().count(), 101);
    assert!(error.ends_with("and 900 more problems"));
}

#[test]
fn the_config_is_read_strictly() {
    let rule = toml::from_str::<Rule>("action = \"deny\"\nregion = 4\nas = 64500\nnote = \"why\"").unwrap();
    assert_eq!((rule.action, rule.origin_as, rule.note.as_str()), (Action::Deny, Some(64500), "why"));
    assert_eq!(toml::from_str::<Rule>(&toml::to_string(&rule).unwrap()).unwrap(), rule);
    for wrong in ["action = \"drop\"\nregion = 4", "action = \"pin\"", "action = \"pin\"\nregion = 4\nasn = 1"] {
        assert!(toml::from_str::<Rule>(wrong).is_err(), "{wrong}");
    }
    assert!(toml::from_str::<Origin>("as = 1\nregion = 4\nname = 2").is_err());
}

#[test]
fn the_prefixes_of_rules_are_known() {
    let rules = rules("pin 4 prefix=2001:db8::/32\ndeny 4 prefix=10.1.0.0/16\npin 4 prefix=10.0.0.0/8\npin 5 as=1");
    let rules = Rules::check(&rules, &[], &regions(6)).unwrap();
    let prefixes: Vec<String> = rules.prefixes().map(|prefix| prefix.to_string()).collect();
    assert_eq!(prefixes, ["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"]);
    assert!(rules.has("10.1.0.0/16".parse().unwrap()) && !rules.has("10.1.0.0/17".parse().unwrap()));
    assert!(rules.has("2001:db8::/32".parse().unwrap()) && !rules.has("::/0".parse().unwrap()));
}

proptest! {
    #[test]
    fn verdicts_are_those_of_a_scan(
        given in prop::collection::vec((0_u8..3, 0_u16..4, 0_u8..4, 0_u32..4, 0_u8..4), 0..20),
        (bits, length, hops, origin, community) in (0_u32..4, 0_u8..4, prop::collection::vec(0_u32..4, 0..3), 0_u32..4, 0_u16..4),
    ) {
        let net = |bits: u32, length: u8| IpNet::new(std::net::Ipv4Addr::from(bits << 30 | bits << 28).into(), length).unwrap().trunc();
        let given: Vec<Rule> = given.into_iter().map(|(action, region, kind, value, length)| Rule {
            action: [Action::Deny, Action::Pin, Action::Prefer][usize::from(action)],
            region: RegionId(region),
            prefix: (kind == 0).then(|| net(value, length).to_string()),
            origin_as: (kind == 1).then_some(value),
            via: (kind == 2).then_some(value),
            community: (kind == 3).then(|| format!("1:{value}")),
            note: String::new(),
        }).collect();
        let Ok(rules) = Rules::check(&given, &[], &regions(4)) else { return Ok(()) };
        let mut path = hops;
        path.push(origin);
        let attributes = Attributes {
            path_length: 1,
            origin_as: Some(origin),
            as_path: path.clone().into(),
            med: None,
            communities: [Community::Standard(1, community)].into(),
        };
        let route = Heard {
            region: RegionId(0), class: SessionClass::Transit, attributes: &attributes, stale: false, listed: false, source: "",
        };
        let prefix = net(bits, length);
        let mut verdicts = Vec::new();
        rules.judge(prefix, &[route], &mut verdicts);
        let mut found: Vec<(u16, Action)> = verdicts.iter().map(|verdict| (verdict.region.0, verdict.action)).collect();
        found.sort();
        let mut expected = Vec::new();
        for region in 0..4 {
            let matching = given.iter().filter(|rule| rule.region.0 == region).filter_map(|rule| {
                let covering = rule.prefix.as_ref().map(|text| text.parse::<IpNet>().unwrap());
                let strength = match covering {
                    Some(covering) => covering.contains(&prefix).then(|| 1 + covering.prefix_len()),
                    None => (rule.origin_as == Some(origin)
                        || rule.via.is_some_and(|hop| path.contains(&hop))
                        || rule.community == Some(format!("1:{community}"))).then_some(0),
                };
                strength.map(|strength| (std::cmp::Reverse(strength), rule.action))
            });
            expected.extend(matching.min().map(|(_, action)| (region, action)));
        }
        prop_assert_eq!(found, expected);
    }
}

#[track_caller]
fn check(lines: &str, expected: &str) {
    check_with(&regions(6), lines, expected);
}

/// `expected` is the error, empty if there is none.
#[track_caller]
fn check_with(regions: &Regions, lines: &str, expected: &str) {
    let error = Rules::check(&rules(lines), &[], regions).err().map_or(String::new(), |error| error.0);
    assert_eq!(error, expected, "{lines}");
}

/// A rule a line: `deny 4 as=64500`.
fn rules(lines: &str) -> Vec<Rule> {
    let rule = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let value = |key: &str| words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        Rule {
            action: match words[0] {
                "deny" => Action::Deny,
                "pin" => Action::Pin,
                _ => Action::Prefer,
            },
            region: RegionId(words[1].parse().unwrap()),
            prefix: value("prefix").map(str::to_owned),
            origin_as: value("as").map(|number| number.parse().unwrap()),
            via: value("via").map(|number| number.parse().unwrap()),
            community: value("community").map(str::to_owned),
            note: String::new(),
        }
    };
    lines.lines().map(rule).collect()
}

/// A topology with regions from 0.
fn regions(count: u16) -> Regions {
    let mut document = String::from(
        "version = 1\ndomain = \"example.org\"\ndefault_region = 0\ncontent_servers = { url = \"http://cs{number}\", numbers = [\"1\"] }\n",
    );
    for id in 0..count {
        document += &format!("[[region]]\nid = {id}\nname = \"R\"\nlatitude = 0\nlongitude = {id}\n");
    }
    Regions::of(&Topology::parse(&document).unwrap())
}
