//! The order of regions from routes written as text.

use proptest::prelude::*;

use super::*;
use crate::route::Attributes;
use crate::rules::Rule;
use crate::topology::Topology;

#[test]
fn the_first_difference_decides() {
    check(&["4 private 64500"], "4");
    check(&["4 transit 1", "5 exchange 1", "6 private 1", "7 embedded 1"], "7 6 5 4 / class class class");
    check(&["4 private 1 2 3", "5 private 1 2", "6 exchange 1"], "5 4 6 / path class");
    check(&["4 exchange 1 med=20", "5 exchange 1 med=10"], "5 4 / med");
    check(&["4 exchange 1 med=20", "5 exchange 2 med=10"], "4=5 / nothing");
    check(&["4 exchange 1", "5 exchange 1 med=10"], "4 5 / med"); // Missing is lowest.
    check(&["4 exchange 1 2 med=20", "5 exchange 1 med=30"], "5 4 / path");
    check(&["4 exchange 1", "5 exchange 2"], "4=5 / nothing");
    check(&["5 exchange 1", "4 exchange 1", "6 exchange 9 9"], "4=5 6 / nothing path");
}

#[test]
fn each_region_is_there_with_its_best_route() {
    check(&["4 transit 1", "4 private 1 2 3", "5 exchange 1"], "4 5 / class");
    check(&["4 private 1 2 3", "4 private 1", "5 private 1 2"], "4 5 / path");
    check(&["4 private 1 med=30", "4 private 1 med=10", "5 private 1 med=20"], "4 5 / med");
    // By its route of AS 2, region 4 is as good as region 5.
    check(&["4 private 1 med=10", "4 private 2", "5 private 1"], "4=5 / nothing");
    // MED of a longer path does not count.
    check(&["4 private 1 med=10", "4 private 1 9 med=0", "5 private 1 med=5"], "5 4 / med");
}

#[test]
fn med_has_levels_so_that_everybody_has_a_place() {
    let routes = ["4 private 1 med=0", "5 private 1 med=10", "6 private 2 med=50", "7 private 2 med=90"];
    check(&routes, "4=6 5=7 / nothing med nothing");
}

#[test]
fn the_nearer_region_is_first_when_nothing_else_differs() {
    let moscow = Some((55.75, 37.6));
    let check = |routes: &[&str], position, expected| check_all("", routes, "192.0.2.0/24", position, expected);
    // 4 and 5 are in Moscow, 6 in Saint Petersburg, 7 in Fiji.
    check(&["7 private 1", "6 private 1", "5 private 1", "4 private 1"], moscow, "4=5 6 7 / nothing distance distance");
    check(&["7 private 1", "6 private 1"], Some((-18.0, 178.0)), "7 6 / distance");
    check(&["7 private 1", "6 exchange 1"], moscow, "7 6 / class");
    check(&["7 private 1", "6 private 1"], None, "6=7 / nothing");
}

#[test]
fn default_routes_say_nothing_of_clients() {
    let check = |prefix, expected| check_all("", &["4 private 1"], prefix, None, expected);
    check("0.0.0.0/0", "");
    check("8.0.0.0/7", "");
    check("8.0.0.0/8", "4");
    check("2000::/3", "");
    check("2001::/16", "4");
    let listed = "5 private list";
    check_all("", &["4 embedded 1", listed], "0.0.0.0/0", None, "5 list");
    check_all("pin 4 prefix=0.0.0.0/0", &["5 embedded 1"], "0.0.0.0/0", None, "4 rule");
}

#[test]
fn a_pinned_region_is_first_whatever_is_heard() {
    let pin = "pin 4 prefix=192.0.2.0/24";
    check_rules(pin, &["5 embedded 1", "4 transit 1 2"], "4 5 rule / rule");
    check_rules(pin, &["5 embedded 1"], "4 5 rule / rule");
    check_rules(pin, &[], "4 rule");
    check_rules("pin 4 as=1\npin 5 as=1", &["5 private 1", "6 embedded 1"], "5 4 6 rule / heard rule");
    check_rules("pin 4 as=1\npin 5 as=1", &["6 embedded 1"], "4=5 6 rule / nothing rule");
}

#[test]
fn a_preferred_region_is_first_if_it_hears_the_prefix() {
    let prefer = "prefer 4 prefix=192.0.2.0/24";
    check_rules(prefer, &["5 embedded 1", "4 transit 1 2"], "4 5 rule / rule");
    check_rules(prefer, &["5 embedded 1"], "5");
    check_rules(prefer, &[], "");
}

#[test]
fn a_denied_region_never_serves() {
    let deny = "deny 4 prefix=192.0.2.0/24";
    check_rules(deny, &["5 transit 1", "4 embedded 1"], "5 -4");
    check_rules(deny, &["4 embedded 1"], "-4 rule");
    check_rules(deny, &[], "-4 rule");
    check_rules(
        "deny 6 as=1\ndeny 4 via=2\ndeny 5 community=3:4",
        &["4 private 2 1", "5 private 1 c=3:4"],
        "-4 -5 -6 rule",
    );
    check_rules("deny 4 as=1", &["4 private 2"], "4");
}

#[test]
fn the_more_specific_rule_is_stronger_and_a_prefix_than_an_as() {
    let routes = &["4 private 1", "5 private 1", "6 private 1 c=3:4"];
    check_rules("deny 4 prefix=192.0.0.0/16\npin 4 prefix=192.0.2.0/24", routes, "4 5=6 rule / rule nothing");
    check_rules("pin 4 prefix=192.0.0.0/16\ndeny 4 prefix=192.0.2.0/24", routes, "5=6 -4 / nothing");
    check_rules("pin 4 prefix=192.0.0.0/16\nprefer 5 prefix=192.0.2.0/24", routes, "5 4 6 rule / rule rule");
    check_rules("prefer 5 prefix=192.0.2.0/24\npin 4 prefix=192.0.2.0/24", routes, "4 5 6 rule / rule rule");
    check_rules("deny 4 as=1\nprefer 4 prefix=192.0.0.0/16", routes, "4 5=6 rule / rule nothing");
    check_rules("pin 4 as=1\nprefer 5 prefix=0.0.0.0/0", routes, "5 4 6 rule / rule rule");
    // Of equally strong ones: deny, pin, prefer.
    check_rules("prefer 4 as=1\ndeny 4 community=3:4", routes, "5=6 -4 / nothing");
    check_rules("prefer 6 as=1\npin 6 community=3:4", routes, "6 4=5 rule / rule nothing");
    // Rules for others.
    check_rules("deny 4 prefix=192.0.2.0/25\ndeny 4 prefix=192.0.3.0/24", routes, "4=5=6 / nothing nothing");
}

#[test]
fn a_prefix_without_routes_is_its_covering_rules_matter() {
    check_rules("pin 4 prefix=192.0.0.0/16", &[], "");
    check_rules("pin 4 prefix=192.0.0.0/16\ndeny 5 prefix=192.0.2.0/24", &[], "4 -5 rule");
}

#[test]
fn a_region_that_the_topology_does_not_have_does_not_count() {
    check(&["9 embedded 1", "4 transit 1"], "4");
    check(&["9 embedded 1"], "");
}

#[test]
fn what_is_left_out_is_told() {
    let rules = rules("deny 4 prefix=192.0.2.0/24 note=broken_link");
    let regions = Regions::of(&topology());
    let mut chooser = Chooser::new(&rules, &regions, Options::default(), &|_| None);
    let routes = routes(&["4 private 1", "9 private 1", "5 private 1"]);
    let choice = chooser.explain("192.0.2.0/24".parse().unwrap(), &heard(&routes));
    let told: Vec<String> = choice
        .left_out
        .iter()
        .map(|left| format!("{} {} {}", left.region, left.source.as_deref().unwrap_or("-"), left.why))
        .collect();
    let denied = "4 - rule deny region 4 prefix 192.0.2.0/24 (broken_link)";
    assert_eq!(told, [denied, "9 router 1 the topology has no such region"]);
    let choice = chooser.explain("0.0.0.0/0".parse().unwrap(), &heard(&routes));
    assert!(choice.leaf.is_none());
    assert!(choice.left_out.iter().all(|left| left.why == Why::DefaultRoute) && choice.left_out.len() == 3);
}

#[test]
fn an_explanation_is_read_by_people_and_programs() {
    let rules = rules("prefer 6 as=3 note=new_link");
    let regions = Regions::of(&topology());
    let mut chooser = Chooser::new(&rules, &regions, Options::default(), &|_| Some((55.75, 37.6).into()));
    let routes = routes(&["4 private 2 3 med=7", "5 private 2 3 med=9", "6 transit 3", "7 private 8 3"]);
    let choice = chooser.explain("192.0.2.0/24".parse().unwrap(), &heard(&routes));
    let told: Vec<String> = choice.why.iter().map(ToString::to_string).collect();
    let expected = [
        "region 6 before region 4 by rule prefer region 6 as 3 (new_link)",
        "region 4 before region 7 by distance: 0 km, 14700 km",
        "region 7 before region 5 by MED of AS 2: it asks for 7 elsewhere, 9 here",
    ];
    assert_eq!(told, expected);
    let json = serde_json::to_value(&choice).unwrap();
    let step = serde_json::json!({"before": 4, "after": 7, "by": "distance", "better_km": 0, "worse_km": 14700});
    assert_eq!(json["why"][1], step);
    let route = serde_json::json!({"source": "router 0", "class": "private", "as_path": [2, 3], "path_length": 2,
        "med": 7, "stale": false, "listed": false});
    assert_eq!(json["candidates"][1]["route"], route);
    assert_eq!(json["candidates"][0]["rule"]["note"], "new_link");
}

#[test]
fn a_leaf_has_a_bounded_number_of_regions() {
    let mut document = String::from(DOCUMENT);
    for id in 100..130 {
        document += &format!("[[region]]\nid = {id}\nname = \"R\"\nlatitude = 0\nlongitude = {id}\n");
    }
    let regions = Regions::of(&Topology::parse(&document).unwrap());
    let rules = Rules::default();
    let mut chooser = Chooser::new(&rules, &regions, Options::default(), &|_| None);
    let routes: Vec<String> = (100..130).map(|id| format!("{id} private {}", "1 ".repeat(id - 99))).collect();
    let routes = self::routes(&routes.iter().map(String::as_str).collect::<Vec<_>>());
    let choice = chooser.explain("192.0.2.0/24".parse().unwrap(), &heard(&routes));
    let leaf = choice.leaf.unwrap();
    let expected = (0..8).map(|rank| Candidate { region: RegionId(100 + u16::from(rank)), rank });
    assert_eq!(leaf.candidates, expected.collect::<Vec<_>>());
    assert_eq!((choice.why.len(), choice.candidates.len(), choice.left_out.len()), (7, 8, 22));
}

proptest! {
    /// The order of the routes does not matter, and no region is left out.
    #[test]
    fn the_order_is_one_of_the_set(
        routes in prop::collection::vec((4_u16..10, 0_u8..4, 1_u32..4, 1_usize..4, prop::option::of(0_u32..4)), 0..12),
        turn in 0_usize..12,
    ) {
        let told: Vec<String> = routes.iter().map(|(region, class, neighbour, length, med)| {
            let class = ["embedded", "private", "exchange", "list"][usize::from(*class)];
            let (path, med) = (format!("{neighbour} ").repeat(*length), med.map_or(String::new(), |med| format!("med={med}")));
            if class == "list" { format!("{region} private list") } else { format!("{region} {class} {path} {med}") }
        }).collect();
        let told = self::routes(&told.iter().map(String::as_str).collect::<Vec<_>>());
        let (rules, regions) = (Rules::default(), Regions::of(&topology()));
        let mut chooser = Chooser::new(&rules, &regions, Options::default(), &|_| None);
        let prefix = "192.0.2.0/24".parse().unwrap();
        let mut heard = heard(&told);
        let leaf = chooser.choose(prefix, &heard).cloned();
        if !heard.is_empty() {
            let turn = turn % heard.len();
            heard.rotate_left(turn);
        }
        prop_assert_eq!(chooser.choose(prefix, &heard), leaf.as_ref());
        heard.reverse();
        prop_assert_eq!(&chooser.explain(prefix, &heard).leaf, &leaf);
        let mut known: Vec<RegionId> = heard.iter().map(|route| route.region).filter(|region| region.0 < 8).collect();
        known.sort();
        known.dedup();
        let mut chosen: Vec<RegionId> = leaf.iter().flat_map(|leaf| leaf.candidates.iter().map(|c| c.region)).collect();
        chosen.sort();
        prop_assert_eq!(chosen, known);
    }
}

#[track_caller]
fn check(routes: &[&str], expected: &str) {
    check_all("", routes, "192.0.2.0/24", None, expected);
}

#[track_caller]
fn check_rules(rules: &str, routes: &[&str], expected: &str) {
    check_all(rules, routes, "192.0.2.0/24", None, expected);
}

/// `expected` is `4=5 6 -7 rule / nothing path`: candidates by rank, denied ones, the source unless it is routes, and
/// what separates the candidates.
#[track_caller]
fn check_all(rules: &str, routes: &[&str], prefix: &str, position: Option<(f64, f64)>, expected: &str) {
    let (rules, regions) = (self::rules(rules), Regions::of(&topology()));
    let routes = self::routes(routes);
    let heard = heard(&routes);
    let position = |_| position.map(Point::from);
    let mut chooser = Chooser::new(&rules, &regions, Options::default(), &position);
    let prefix = prefix.parse().unwrap();
    let leaf = chooser.choose(prefix, &heard).cloned();
    let choice = chooser.explain(prefix, &heard);
    assert_eq!(choice.leaf, leaf, "explained and chosen");
    assert_eq!(written(&choice), expected);
}

fn written(choice: &Choice) -> String {
    let Some(leaf) = &choice.leaf else { return String::new() };
    let mut written = String::new();
    let mut before = None;
    for Candidate { region, rank } in &leaf.candidates {
        let separator = if before == Some(rank) { "=" } else { " " };
        written += &format!("{separator}{region}");
        before = Some(rank);
    }
    leaf.denied.iter().for_each(|region| written += &format!(" -{region}"));
    written += match leaf.source {
        Source::Bgp => "",
        Source::List => " list",
        Source::Rule => " rule",
        _ => " ?",
    };
    let why: Vec<&str> = choice.why.iter().map(|step| by(&step.by)).collect();
    if !why.is_empty() {
        written += &format!(" / {}", why.join(" "));
    }
    written.trim_start().to_owned()
}

fn by(by: &By) -> &'static str {
    match by {
        By::Rule { .. } => "rule",
        By::Heard => "heard",
        By::SessionClass { .. } => "class",
        By::PathLength { .. } => "path",
        By::Med { .. } => "med",
        By::Distance { .. } => "distance",
        By::Nothing => "nothing",
    }
}

/// What of a route owns something.
struct Route {
    region: RegionId,
    class: SessionClass,
    listed: bool,
    attributes: Attributes,
    source: String,
}

/// `4 private 64500 64501 med=10 c=3:4`, or `4 private list`.
fn routes(told: &[&str]) -> Vec<Route> {
    let route = |(index, told): (usize, &&str)| {
        let mut words = told.split_whitespace();
        let region = RegionId(words.next().unwrap().parse().unwrap());
        let class = SessionClass::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(
            words.next().unwrap(),
        ));
        let words: Vec<&str> = words.collect();
        let path: Vec<u32> = words.iter().filter_map(|word| word.parse().ok()).collect();
        let med = words.iter().find_map(|word| word.strip_prefix("med=")).map(|med| med.parse().unwrap());
        let communities = words.iter().filter_map(|word| word.strip_prefix("c=")?.split_once(':'));
        let communities =
            communities.map(|(a, b)| crate::route::Community::Standard(a.parse().unwrap(), b.parse().unwrap()));
        let attributes = Attributes {
            path_length: path.len().try_into().unwrap(),
            origin_as: path.last().copied(),
            as_path: path.into(),
            med,
            communities: communities.collect(),
        };
        let listed = words.contains(&"list");
        Route { region, class: class.unwrap(), listed, attributes, source: format!("router {index}") }
    };
    told.iter().enumerate().map(route).collect()
}

fn heard(routes: &[Route]) -> Vec<Heard<'_>> {
    let heard = routes.iter().map(|route| Heard {
        region: route.region,
        class: route.class,
        attributes: &route.attributes,
        stale: false,
        listed: route.listed,
        source: &route.source,
    });
    heard.collect()
}

/// A rule a line: `deny 4 prefix=192.0.2.0/24 note=why`.
fn rules(lines: &str) -> Rules {
    let rule = |line: &str| {
        let mut words = line.split_whitespace();
        let (action, region) = (words.next().unwrap(), words.next().unwrap());
        let rest: Vec<String> = words
            .map(|word| {
                let (key, value) = word.split_once('=').unwrap();
                if value.parse::<u32>().is_ok() { word.to_owned() } else { format!("{key} = \"{value}\"") }
            })
            .collect();
        let text = format!("action = \"{action}\"\nregion = {region}\n{}", rest.join("\n"));
        toml::from_str::<Rule>(&text).unwrap()
    };
    let rules: Vec<Rule> = lines.lines().map(rule).collect();
    Rules::check(&rules, &[], &Regions::of(&topology())).unwrap()
}

fn topology() -> Topology {
    Topology::parse(DOCUMENT).unwrap()
}

const DOCUMENT: &str = r#"
version = 1
domain = "example.org"
default_region = 4
content_servers = { url = "http://cs{number}", numbers = ["1"] }

[[region]]
id = 4
name = "Moscow"
latitude = 55.75
longitude = 37.6

[[region]]
id = 5
name = "Moscow, too"
latitude = 55.9
longitude = 37.5

[[region]]
id = 6
name = "Saint Petersburg"
latitude = 59.94
longitude = 30.31

[[region]]
id = 7
name = "Fiji"
latitude = -18
longitude = 178
"#;
