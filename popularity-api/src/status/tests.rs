//! Registries that servers report to, second by second.

use geo::{CanonicalName, Scheme};

use super::*;
use crate::testing::topology;
use crate::wire::{HotFile, HotNow, HotRate, Load};

#[test]
fn a_server_is_gone_when_it_has_not_been_well_for_long() {
    let topology = topology();
    let mut registry = Registry::new(RULE, 0);
    let server = &topology.cache("cache4-1").unwrap().server;
    let check = |registry: &Registry, now_ms, gone| {
        assert_eq!(registry.at(now_ms).gone(server, 60_000), gone, "at {now_ms}");
    };
    check(&registry, 100_000, false); // Nobody has ever reported.
    registry.report(&topology, healthy("cache4-2"), 1000);
    check(&registry, 59_999, false);
    check(&registry, 60_000, true);
    registry.report(&topology, healthy("cache4-1"), 70_000);
    check(&registry, 129_999, false);
    check(&registry, 130_000, true);
    registry.report(&topology, StatusReport { healthy: false, ..healthy("cache4-1") }, 120_000);
    check(&registry, 130_000, true); // It reports, and is ill.
    registry.report(&topology, healthy("cache4-1"), 130_000);
    check(&registry, 130_000, false);
}

#[test]
fn a_server_is_linked_while_it_reports_and_is_healthy() {
    let mut registry = Registry::new(RULE, 0);
    check(&registry, 10_000, "sun4-1-1 sun4-1-2 sun4-1-3"); // Nobody has ever reported.
    registry.report(&topology(), healthy("sun4-1-1"), 1000);
    check(&registry, 2999, "sun4-1-1 sun4-1-2 sun4-1-3"); // Others may just not have had the time.
    check(&registry, 3000, "sun4-1-1");
    check(&registry, 3999, "sun4-1-1");
    check(&registry, 4000, "");
    registry.report(&topology(), healthy("sun4-1-2"), 5000);
    registry.report(&topology(), StatusReport { healthy: false, ..healthy("sun4-1-1") }, 5000);
    check(&registry, 5001, "sun4-1-2");
    let names: Vec<String> =
        registry.at(5001).servers(region(&topology())).into_iter().map(|server| server.name).collect();
    assert_eq!(names, ["sun4-1-1", "sun4-1-2"]);
    assert_eq!(registry.at(9000).servers(region(&topology())), []);
}

#[test]
fn who_says_that_it_is_ill_is_not_linked_from_the_start() {
    let mut registry = Registry::new(RULE, 0);
    registry.report(&topology(), StatusReport { healthy: false, ..healthy("sun4-1-1") }, 10);
    check(&registry, 20, "sun4-1-2 sun4-1-3");
}

#[test]
fn a_file_is_hot_by_what_all_suns_of_its_region_say() {
    let mut registry = Registry::new(RULE, 0);
    let topology = topology();
    for (server, requests) in [("sun4-1-1", 40.0), ("sun4-1-2", 40.0), ("sun4-1-3", 40.0), ("sun5-1-1", 500.0)] {
        registry.report(&topology, busy(server, "c1/a", requests), 0);
    }
    registry.report(&topology, busy("sun4-1-1", "c1/a", 40.0), 1000);
    assert_eq!(registry.at(1000).spread(region(&topology), "c1/a"), 3);
    assert_eq!(registry.at(1000).spread(region(&topology), "c1/b"), 1);
    assert_eq!(
        registry.at(1000).hot(region(&topology)),
        [HotFile { file: "c1/a".to_owned(), spread: 3 }],
        "120 requests/s of a mean of 1,000 want 2.4 suns"
    );
    assert_eq!(registry.at(1000).hot(topology.region(RegionId(5)).unwrap()), [], "it has one sun");
    registry.forget(Some(RegionId(5)), |_| true);
    assert_eq!(registry.at(1000).spread(region(&topology), "c1/a"), 3);
    registry.forget(None, |file| file == "c1/a");
    assert_eq!(registry.at(1000).spread(region(&topology), "c1/a"), 1);
}

#[test]
fn what_is_hot_is_found_out_once_a_second_and_region() {
    let mut registry = Registry::new(RULE, 0);
    let topology = topology();
    let mut spread = |server: &str, requests, now_ms| {
        registry.report(&topology, busy(server, "c1/a", requests), now_ms);
        registry.at(now_ms).spread(region(&topology), "c1/a")
    };
    assert_eq!(spread("sun4-1-1", 80.0, 5000), 2, "the first report counts at once");
    assert_eq!(spread("sun4-1-2", 80.0, 5001), 2);
    assert_eq!(spread("sun4-1-2", 80.0, 5999), 2);
    assert_eq!(spread("sun5-1-1", 80.0, 6000), 2, "another region");
    assert_eq!(spread("sun4-1-2", 80.0, 6000), 3);
}

#[test]
fn the_hot_files_of_now_name_the_living_suns_that_share_them() {
    let mut registry = Registry::new(RULE, 0);
    let topology = topology();
    let hottest = |rates: &[(&str, f64)]| {
        let rate = |&(file, requests_per_second): &(&str, f64)| HotRate {
            file: file.to_owned(),
            requests_per_second,
            bits_per_second: requests_per_second * 8e3,
        };
        rates.iter().map(rate).collect::<Vec<_>>()
    };
    let asked = [("c1/a", 30.0), ("c1/b", 50.0), ("c1/cold", 10.0)];
    for server in ["sun4-1-1", "sun4-1-2", "sun4-1-3"] {
        registry.report(&topology, StatusReport { hottest: hottest(&asked), ..busy(server, "", 0.0) }, 5000);
    }
    // What is hot is found out anew when a second has passed.
    registry.report(&topology, StatusReport { hottest: hottest(&asked), ..busy("sun4-1-3", "", 0.0) }, 6000);
    let shown = |now_ms, limit| {
        let files = registry.at(now_ms).hot_now(region(&topology), limit);
        let line = |hot: &HotNow| format!("{} {} r {}", hot.file, hot.requests_per_second, hot.spread);
        (files.iter().map(line).collect::<Vec<_>>().join(", "), files)
    };
    let (line, files) = shown(6000, 100);
    assert_eq!(line, "c1/b 150 r 3, c1/a 90 r 2");
    let name = CanonicalName::parse("c1/a").unwrap();
    let order = region(&topology).sun_order(name.content_id());
    assert_eq!(files[1].suns, [&*order[0].server.name, &*order[1].server.name]);
    assert_eq!(files[1].bits_per_second, 90.0 * 8e3);
    assert_eq!(shown(6000, 1).0, "c1/b 150 r 3");
    // All have fallen silent: the files are hot until they were low for ten minutes, and nobody is named.
    let (line, files) = shown(10_000, 100);
    assert_eq!(line, "c1/a 0 r 2, c1/b 0 r 3");
    assert_eq!(files[0].suns, [""; 0]);
}

#[test]
fn load_is_told_as_a_share_of_the_network_card() {
    let mut registry = Registry::new(RULE, 0);
    let topology = topology();
    registry.report(&topology, busy("sun4-1-1", "c1/a", 1.0), 0);
    let server = &topology.sun("sun4-1-1").unwrap().server;
    assert_eq!(registry.at(0).utilisation(server), 0.1);
    assert_eq!(registry.at(3000).utilisation(server), 0.0);
}

#[test]
fn a_region_stands_as_its_servers_do() {
    let topology = topology();
    let mut registry = Registry::new(RULE, 0).with_saturation(Bounds { above: 0.8, below: 0.6, per_s: 1.0 });
    let client = [192, 0, 2, 1].into();
    let check = |registry: &Registry, now_ms, scheme, expected: &str| {
        let standing =
            |id| format!("{:?}", registry.at(now_ms).standing(topology.region(RegionId(id)).unwrap(), scheme, client));
        assert_eq!([4, 5, 6].map(standing).join(" "), expected, "at {now_ms}");
    };
    let report = |registry: &mut Registry, server: &str, bits_per_second, now_ms| {
        let load = Load { bits_per_second, ..Load::default() };
        registry.report(&topology, StatusReport { load, ..healthy(server) }, now_ms);
    };
    // Nothing is known; the servers of region 6 have no port for plain links.
    check(&registry, 0, Scheme::Https, "Live Live Live");
    check(&registry, 0, Scheme::Http, "Live Live Down");
    report(&mut registry, "sun4-1-1", 9.5e9, 5000);
    check(&registry, 5000, Scheme::Https, "Live Down Down"); // It takes time.
    report(&mut registry, "sun4-1-1", 9.5e9, 6000);
    check(&registry, 6000, Scheme::Https, "Saturated Down Down");
    report(&mut registry, "sun4-1-2", 5e9, 6500);
    report(&mut registry, "sun4-1-2", 5e9, 7500);
    check(&registry, 7500, Scheme::Https, "Saturated Down Down"); // 72.5 % is between the bounds.
    report(&mut registry, "sun4-1-3", 2e9, 7500);
    report(&mut registry, "sun4-1-1", 2e9, 8500);
    report(&mut registry, "sun4-1-3", 2e9, 8500);
    check(&registry, 8500, Scheme::Https, "Live Down Down");
    // Caches are idle together, then one of them is full and the other one gone.
    report(&mut registry, "cache4-1", 9.5e9, 8500);
    report(&mut registry, "cache4-1", 9.5e9, 9500);
    check(&registry, 9500, Scheme::Https, "Saturated Down Down");
    report(&mut registry, "cache4-2", 0.0, 9500);
    report(&mut registry, "cache4-2", 0.0, 10_500);
    check(&registry, 10_500, Scheme::Https, "Live Down Down");
    // A draining cache keeps no region alive, and one that is ill neither.
    report(&mut registry, "cache6-1", 0.0, 10_500);
    registry.report(&topology, StatusReport { healthy: false, ..healthy("sun5-1-1") }, 10_500);
    check(&registry, 10_500, Scheme::Https, "Live Down Down");
    report(&mut registry, "cache5-1", 0.0, 10_500);
    check(&registry, 10_500, Scheme::Https, "Live Live Down");
    check(&registry, 14_500, Scheme::Https, "Down Down Down");
}

#[test]
fn a_sun_that_carries_more_than_its_share_is_busy() {
    let mut registry = Registry::new(RULE, 0);
    let topology = topology();
    let busy = |registry: &Registry, now_ms, name| registry.at(now_ms).busy(&topology.sun(name).unwrap().server);
    assert_eq!(busy(&registry, 0, "sun4-1-1"), 1.0, "nothing is known");
    // Weights 100, 100 and 50.
    for (server, requests) in [("sun4-1-1", 300.0), ("sun4-1-2", 150.0), ("sun4-1-3", 50.0)] {
        let load = Load { requests_per_second: requests, ..Load::default() };
        registry.report(&topology, StatusReport { load, ..healthy(server) }, 1000);
    }
    assert_eq!(busy(&registry, 1000, "sun4-1-1"), 1.5);
    assert_eq!(busy(&registry, 1000, "sun4-1-3"), 0.5);
    assert_eq!(registry.at(1000).servers(region(&topology))[1].busy, 0.75, "the answer says it too");
    assert_eq!(busy(&registry, 4000, "sun4-1-1"), 1.0, "silent");
    registry.report(&topology, healthy("sun4-1-1"), 9000);
    assert_eq!(busy(&registry, 9000, "sun4-1-1"), 1.0, "it begins anew");
}

fn healthy(server: &str) -> StatusReport {
    StatusReport { server: server.to_owned(), healthy: true, ..StatusReport::default() }
}

fn busy(server: &str, file: &str, requests_per_second: f64) -> StatusReport {
    StatusReport {
        load: Load { requests_per_second: 1000.0, bits_per_second: 1e9, ..Load::default() },
        hottest: vec![HotRate { file: file.to_owned(), requests_per_second, bits_per_second: 0.0 }],
        ..healthy(server)
    }
}

fn region(topology: &Topology) -> &Region {
    topology.region(RegionId(4)).unwrap()
}

#[track_caller]
fn check(registry: &Registry, now_ms: u64, expected: &str) {
    let topology = topology();
    let linkable: Vec<&str> = region(&topology)
        .suns
        .iter()
        .filter(|sun| registry.at(now_ms).linkable(&sun.server))
        .map(|sun| sun.server.name.as_str())
        .collect();
    assert_eq!(linkable.join(" "), expected, "at {now_ms}");
}

const RULE: Rule = Rule {
    request_share: 0.05,
    nic_share: 0.5,
    requests_min: 20.0,
    lower_after_ms: 600_000,
    files_max: 10,
    copies_max: 20,
};
