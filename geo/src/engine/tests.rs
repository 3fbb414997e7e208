//! Scenarios of an engine: what routers, lists and rules say, and what is published.

mod world;

use std::fs;
use std::net::Ipv4Addr;

use super::*;
use crate::feed::Event;
use crate::rules::{Action, Rule};
use crate::topology::{RegionId, Topology};
use world::{World, rule, said_by, topology};

#[test]
fn without_routers_the_table_is_there_at_once() {
    let mut world = World::new();
    world.list("10.0.0.0/8 4\n10.1.0.0/16 5\n");
    world.rule(Action::Deny, 4, "10.1.2.0/24");
    world.start(None);
    check(&world, "10.2.0.1", "4 5 prefix 10.0.0.0/8");
    check(&world, "10.1.0.1", "5 4 prefix 10.1.0.0/16");
    check(&world, "10.1.2.1", "5 prefix 10.1.2.0/24");
    check(&world, "192.0.2.1", "4 5 default");
    assert_eq!(world.step(1, &[]), Stepped::default());
}

#[test]
fn what_was_saved_stands_until_all_routers_told_what_they_have() {
    let mut world = World::new();
    world.router("a", 4);
    world.router("b", 5);
    world.start(None);
    check(&world, "10.0.0.1", "4 5 default");
    world.step(1, &[(0, "connect"), (0, "up"), (0, "+10.0.0.0/8"), (0, "end")]);
    world.step(1, &[(1, "connect"), (1, "up"), (1, "+11.0.0.0/8"), (1, "+10.0.0.0/8 longer")]);
    check(&world, "10.0.0.1", "4 5 default");
    assert!(!world.engine().settled);
    world.step(1, &[(1, "end")]);
    check(&world, "10.0.0.1", "4 5 prefix 10.0.0.0/8");
    check(&world, "11.0.0.1", "5 prefix 11.0.0.0/8");

    let (_, saved) = world.engine().encode(1_700_000_000);
    world.start(Some(&saved));
    check(&world, "11.0.0.1", "5 prefix 11.0.0.0/8");
    world.step(1, &[(1, "connect"), (1, "up"), (1, "+11.0.0.0/8"), (1, "end")]);
    check(&world, "10.0.0.1", "4 5 prefix 10.0.0.0/8");
    // Router a never comes: it is waited for as long as its routes would count as stale.
    world.step(world.inputs.limits.gate.as_secs(), &[]);
    check(&world, "10.0.0.1", "4 5 prefix 10.0.0.0/8");
    world.step(world.inputs.limits.stale.as_secs(), &[]);
    check(&world, "10.0.0.1", "4 5 default");
    check(&world, "11.0.0.1", "5 prefix 11.0.0.0/8");
    world.start(Some(&saved[..saved.len() - 1]));
    check(&world, "11.0.0.1", "4 5 default");
}

#[test]
fn without_a_saved_table_there_is_none_for_others_until_routers_told_theirs() {
    let mut world = World::new();
    world.list("10.0.0.0/8 4\n");
    world.start(None);
    assert!(world.engine().is_published(), "nobody is waited for");
    let (_, saved) = world.engine().encode(0);
    world.router("a", 4);
    world.start(Some(&saved));
    assert!(world.engine().is_published(), "what was saved");
    world.start(Some(&saved[1..]));
    assert!(!world.engine().is_published(), "nothing was saved");
    check(&world, "10.0.0.1", "4 5 prefix 10.0.0.0/8");
    world.install();
    assert!(!world.engine().is_published());
    world.settle();
    assert!(world.engine().is_published());
    world.start(None);
    let gate = world.inputs.limits.gate.as_secs();
    world.step(gate - 1, &[]);
    assert!(!world.engine().is_published(), "a router may still come");
    world.step(gate, &[]);
    assert!(world.engine().is_published(), "it is not waited for as long as if there were something to keep");
}

#[test]
fn what_was_saved_stands_until_a_source_that_is_away_is_back() {
    let mut world = World::new();
    world.list("10.0.0.0/8 5\n");
    world.geoip();
    world.start(None);
    let (_, saved) = world.engine().encode(0);
    let (before, unknown) = (["5 prefix 10.0.0.0/8", "5 geoip GB"], "4 5 default");
    let both = |world: &World, told: [&str; 2]| {
        check(world, "10.0.0.1", told[0]);
        check(world, "81.2.69.1", told[1]);
    };
    let list = world.inputs.lists[0].file.clone();
    for (with_router, away) in [(false, &list), (true, &list), (false, &world.inputs.geoip[0].clone())] {
        if with_router {
            world.router("a", 4);
        }
        let aside = away.with_extension("away");
        fs::rename(away, &aside).unwrap();
        assert!(world.read().is_err());
        let partly = Loaded::read_partly(&world.inputs, &topology()).unwrap();
        world.engine = Some(Engine::start(partly, Some(&saved), 7, world.now));
        both(&world, before);
        assert!(world.engine().is_published());
        assert_eq!(world.engine().stats(world.now).missing.len(), 1);
        // Whatever routers say, and however long it takes.
        if with_router {
            world.step(1, &[(0, "connect"), (0, "up"), (0, "+10.0.0.0/8"), (0, "end")]);
        }
        world.step(10_000, &[]);
        both(&world, before);
        assert!(!world.engine().settled);
        fs::rename(&aside, away).unwrap();
        world.install();
        world.step(10_000, &[]);
        assert!(world.engine().settled && world.engine().stats(world.now).missing.is_empty());
        both(&world, if with_router { ["5 4 prefix 10.0.0.0/8", before[1]] } else { before });
        world.inputs.feeds.clear();
    }
    // Without a table to stand on there is nothing for others.
    fs::remove_file(&list).unwrap();
    let partly = || Loaded::read_partly(&world.inputs, &topology()).unwrap();
    let engine = Engine::start(partly(), None, 7, world.now);
    assert!(!engine.is_published());
    let engine = Engine::start(partly(), Some(&saved[1..]), 7, world.now);
    assert!(!engine.is_published());
    world.engine = Some(engine);
    both(&world, [unknown, "5 geoip GB"]);
}

#[test]
fn another_version_of_the_topology_is_told_without_reading_anything() {
    let mut world = World::new();
    world.start(None);
    assert_eq!(world.engine().stats(world.now).topology_version, 1);
    let told = |world: &mut World, next: &Topology| {
        world.engine.as_mut().unwrap().sees_topology(next);
        world.engine().stats(world.now).topology_version
    };
    let mut next = topology();
    next.version = 2;
    assert_eq!(told(&mut world, &next), 2);
    // One whose regions are not in use is not told of: the load with them may be refused.
    next.version = 3;
    let region = next.regions.pop().unwrap();
    assert_eq!(told(&mut world, &next), 2);
    next.version = 4;
    next.regions.push(region);
    assert_eq!(told(&mut world, &next), 4);
}

#[test]
fn what_is_configured_today_counts_while_routers_are_waited_for() {
    // Routers have 10.0.0.0/8 of 4 and 5, 11.0.0.0/8 of 5, 12.0.0.0/8 of 4; 12.0.0.0/8 is preferred to be of 4.
    let mut world = World::new();
    world.router("a", 4);
    world.router("b", 5);
    world.list("20.0.0.0/8 4\n21.0.0.0/8 4\n10.0.0.0/8 5\n");
    world.rule(Action::Pin, 5, "30.0.0.0/8");
    world.rule(Action::Deny, 4, "31.0.0.0/8");
    world.rule(Action::Prefer, 5, "12.0.0.0/8");
    world.rule(Action::Pin, 5, "13.0.0.0/8");
    world.start(None);
    world.step(1, &[(0, "connect"), (0, "up"), (0, "+10.0.0.0/8"), (0, "+12.0.0.0/8"), (0, "+13.0.0.0/8"), (0, "end")]);
    let last = [(1, "+10.0.0.0/8 longer"), (1, "+11.0.0.0/8"), (1, "+12.0.0.0/8 longer"), (1, "end")];
    world.step(1, &[&[(1, "connect"), (1, "up")], &last[..]].concat());
    assert!(world.engine().settled);
    let settled = world.engine().writer.content();
    let (_, saved) = world.engine().encode(0);

    world.start(Some(&saved));
    assert_eq!(world.engine().differences(&settled), [], "nothing is configured otherwise");
    check(&world, "12.0.0.1", "5 4 rule 12.0.0.0/8");
    check(&world, "30.0.0.1", "5 rule 30.0.0.0/8");

    // Rules and lists go, others come; in a restart and while it waits.
    let old = std::mem::take(&mut world.inputs.rules);
    world.inputs.lists.clear();
    world.list("20.0.0.0/8 5\n22.0.0.0/8 5\n");
    world.rule(Action::Deny, 4, "10.0.0.0/8");
    world.rule(Action::Pin, 4, "11.0.0.0/8");
    world.rule(Action::Pin, 4, "10.1.0.0/16");
    world.rule(Action::Deny, 5, "23.0.0.0/8");
    let check_today = |world: &World| {
        check(world, "10.0.0.1", "5 prefix 10.0.0.0/8");
        check(world, "10.1.0.1", "4 5 rule 10.1.0.0/16");
        check(world, "11.0.0.1", "4 5 rule 11.0.0.0/8");
        check(world, "12.0.0.1", "4 5 prefix 12.0.0.0/8");
        check(world, "13.0.0.1", "4 5 prefix 13.0.0.0/8");
        check(world, "20.0.0.1", "5 prefix 20.0.0.0/8");
        check(world, "21.0.0.1", "4 5 default");
        check(world, "22.0.0.1", "5 prefix 22.0.0.0/8");
        check(world, "23.0.0.1", "4 default");
        check(world, "30.0.0.1", "4 5 default");
        check(world, "31.0.0.1", "4 5 default");
    };
    world.start(Some(&saved));
    assert!(!world.engine().settled);
    check_today(&world);
    let new = std::mem::replace(&mut world.inputs.rules, old);
    world.install();
    check(&world, "10.0.0.1", "4 5 prefix 10.0.0.0/8");
    check(&world, "12.0.0.1", "5 4 rule 12.0.0.0/8");
    world.inputs.rules = new;
    world.install();
    check_today(&world);
}

#[test]
fn a_prefix_changes_region_after_a_minute_and_goes_at_once() {
    let mut world = World::new();
    world.router("a", 4);
    world.router("b", 5);
    world.start(None);
    world.settle();
    world.step(1, &[(1, "+10.0.0.0/8")]);
    check(&world, "10.0.0.1", "4 5 default"); // New ones wait, too.
    world.step(60, &[]);
    check(&world, "10.0.0.1", "5 prefix 10.0.0.0/8");
    // Region 4 is nearer by its path now: for half a minute, then for a whole one.
    world.step(1, &[(1, "+10.0.0.0/8 longer"), (0, "+10.0.0.0/8")]);
    world.step(30, &[(0, "-10.0.0.0/8")]);
    world.step(31, &[(0, "+10.0.0.0/8")]);
    check(&world, "10.0.0.1", "5 prefix 10.0.0.0/8");
    world.step(59, &[]);
    check(&world, "10.0.0.1", "5 prefix 10.0.0.0/8");
    let stepped = world.step(1, &[]);
    check(&world, "10.0.0.1", "4 5 prefix 10.0.0.0/8");
    assert_eq!(stepped, Stepped { changed: 1, more: false });
    // Both withdraw it.
    world.step(1, &[(0, "-10.0.0.0/8"), (1, "-10.0.0.0/8")]);
    check(&world, "10.0.0.1", "4 5 default");
}

#[test]
fn followers_hear_every_change_until_there_is_another_table() {
    let mut world = World::new();
    world.router("a", 4);
    world.start(None);
    world.settle();
    let start = world.engine().position();
    assert_eq!(world.engine().changes_since(start, 9).unwrap().changes, []);
    let mut moved = world.engine().moved();
    assert!(!moved.has_changed().unwrap());
    world.step(1, &[(0, "+10.0.0.0/8"), (0, "+10.1.0.0/16")]);
    world.step(60, &[]);
    world.step(1, &[(0, "-10.1.0.0/16")]);
    assert_eq!(*moved.borrow_and_update(), world.engine().position());
    let told = |world: &World, after: Position| {
        let changes = world.engine().changes_since(after, 9)?.changes;
        let line = |change: &crate::wire::Change| {
            format!("{} {}", change.prefix, change.leaf.as_ref().map_or("-".to_owned(), firsts_of))
        };
        Some(changes.iter().map(line).collect::<Vec<_>>())
    };
    assert_eq!(told(&world, start).unwrap(), ["10.0.0.0/8 4", "10.1.0.0/16 4", "10.1.0.0/16 -"]);

    // A rule that changes little is some more changes.
    let before = world.engine().position();
    world.rule(Action::Pin, 5, "10.0.0.0/8");
    world.install();
    assert_eq!(told(&world, before).unwrap(), ["10.0.0.0/8 5"]);
    check(&world, "10.0.0.1", "5 4 rule 10.0.0.0/8");
    // Another base is another table.
    world.geoip();
    world.install();
    assert_eq!(told(&world, before), None);
    assert!(!world.engine().reaches(start));
    check(&world, "81.2.69.1", "5 geoip GB");
    check(&world, "10.0.0.1", "5 4 rule 10.0.0.0/8");
}

#[test]
fn a_rule_inside_a_heard_prefix_goes_by_what_is_heard_there() {
    let mut world = World::new();
    world.router("a", 4);
    world.router("b", 5);
    world.rule(Action::Prefer, 5, "10.1.0.0/16");
    world.start(None);
    world.settle();
    world.step(1, &[(0, "+10.0.0.0/8"), (1, "+10.0.0.0/8 longer")]);
    world.step(60, &[]);
    check(&world, "10.0.0.1", "4 5 prefix 10.0.0.0/8");
    check(&world, "10.1.0.1", "5 4 rule 10.1.0.0/16");
    // A default route is nobody to prefer.
    world.step(1, &[(1, "-10.0.0.0/8"), (1, "+0.0.0.0/0")]);
    world.step(60, &[]);
    check(&world, "10.1.0.1", "4 5 prefix 10.1.0.0/16");
    world.step(1, &[(1, "+10.0.0.0/8")]);
    world.step(60, &[]);
    check(&world, "10.1.0.1", "5 4 rule 10.1.0.0/16");
    world.step(1, &[(1, "-10.0.0.0/8")]);
    world.step(60, &[]);
    check(&world, "10.1.0.1", "4 5 prefix 10.1.0.0/16");
    world.step(1, &[(0, "-10.0.0.0/8")]);
    check(&world, "10.1.0.1", "4 5 default");
}

#[test]
fn a_rule_inside_a_prefix_that_is_due_waits_on_its_own() {
    let mut world = World::new();
    world.router("a", 4);
    world.router("b", 5);
    world.rule(Action::Prefer, 5, "10.1.0.0/16");
    world.start(None);
    world.settle();
    world.step(1, &[(0, "+10.0.0.0/8")]);
    world.step(60, &[]);
    check(&world, "10.1.0.1", "4 5 prefix 10.1.0.0/16");
    // 10.0.0.0/8 shall be of 5 in a minute; after half of it 10.1.0.0/16 is heard itself, of 4 alone.
    world.step(1, &[(1, "+10.0.0.0/8"), (0, "-10.0.0.0/8"), (0, "+10.1.0.0/16")]);
    world.step(30, &[(1, "+10.1.0.0/16")]);
    world.step(30, &[]);
    check(&world, "10.0.0.1", "5 prefix 10.0.0.0/8");
    check(&world, "10.1.0.1", "4 5 prefix 10.1.0.0/16");
    world.step(30, &[]);
    check(&world, "10.1.0.1", "5 4 rule 10.1.0.0/16");
}

#[test]
fn a_list_that_is_replaced_publishes_what_it_says_and_nothing_else() {
    let mut world = World::new();
    world.router("a", 4);
    world.router("b", 5);
    world.list("20.0.0.0/8 4\n");
    world.start(None);
    world.settle();
    world.step(1, &[(0, "+10.0.0.0/8")]);
    world.step(60, &[]);
    world.step(1, &[(0, "+10.0.0.0/8 longer"), (1, "+10.0.0.0/8"), (1, "+11.0.0.0/8")]);
    world.step(30, &[]);
    world.inputs.lists.clear();
    world.list("20.0.0.0/8 5\n11.0.0.0/8 4\n");
    world.install();
    check(&world, "20.0.0.1", "5 prefix 20.0.0.0/8");
    check(&world, "11.0.0.1", "4 5 prefix 11.0.0.0/8");
    check(&world, "10.0.0.1", "4 5 prefix 10.0.0.0/8");
    world.step(29, &[]);
    check(&world, "10.0.0.1", "4 5 prefix 10.0.0.0/8");
    world.step(1, &[]);
    check(&world, "10.0.0.1", "5 4 prefix 10.0.0.0/8");
    assert_eq!(world.engine().damping.pending(), 0);
    // Rules put all in another order.
    world.step(1, &[(0, "+10.0.0.0/8"), (1, "+10.0.0.0/8 longer")]);
    world.rule(Action::Pin, 4, "30.0.0.0/8");
    world.install();
    check(&world, "10.0.0.1", "4 5 prefix 10.0.0.0/8");
}

#[test]
fn routers_wait_while_too_many_prefixes_do() {
    let mut world = World::new();
    world.router("a", 4);
    world.start(None);
    let nets: Vec<IpNet> =
        (0..110_000).map(|bits| IpNet::new(Ipv4Addr::from(10 << 24 | bits << 8).into(), 24).unwrap()).collect();
    let said = |world: &mut World| {
        let Update::Events(mut events) = said_by(0, "+10.0.0.0/24") else { panic!("a route") };
        let Event::Routes { announced, .. } = &mut events[0] else { panic!("a route") };
        announced.clone_from(&nets);
        let (feed, now) = (world.engine().feeds()[0].unwrap(), world.now);
        world.engine.as_mut().unwrap().step(now, [(feed, Update::Events(events))])
    };
    world.step(1, &[(0, "connect"), (0, "up")]);
    said(&mut world);
    assert!(world.engine().takes_updates(), "not before it is settled");
    world.step(0, &[(0, "lost")]);
    world.start(None);
    world.settle();
    assert!(said(&mut world).more);
    assert!(!world.engine().takes_updates());
    assert!(world.engine.as_mut().unwrap().step(world.now, []).more);
    assert!(!world.engine().takes_updates());
    world.step(0, &[]);
    assert!(world.engine().takes_updates());
}

#[test]
fn geoip_is_asked_where_nothing_is_heard_and_where_routes_are_equal() {
    let mut world = World::new();
    world.router("a", 4);
    world.router("b", 5);
    world.geoip();
    world.start(None);
    world.settle();
    check(&world, "81.2.69.1", "5 geoip GB");
    world.step(1, &[(0, "+81.2.69.0/24"), (1, "+81.2.69.0/24"), (0, "+82.0.0.0/8")]);
    world.step(60, &[]);
    check(&world, "81.2.69.1", "5 4 prefix 81.2.69.0/24"); // London is nearer to Berlin than to Moscow.
    check(&world, "82.0.0.1", "4 5 prefix 82.0.0.0/8");
}

#[test]
fn what_cannot_be_used_is_said_and_changes_nothing() {
    let mut world = World::new();
    world.list("10.0.0.0/8 4\n");
    world.start(None);
    world.inputs.rules.push(Rule { region: RegionId(9), ..rule(Action::Pin, 4, "10.0.0.0/8") });
    assert!(world.read().unwrap_err().0.contains("region"));
    world.inputs.rules.clear();
    world.router("a", 9);
    assert_eq!(world.read().unwrap_err().0, "router a: region = 9: the topology has no such region");
    check(&world, "10.0.0.1", "4 5 prefix 10.0.0.0/8");
}

#[test]
fn an_explanation_tells_the_chain_and_what_waits() {
    let mut world = World::new();
    world.router("a", 4);
    world.router("b", 5);
    world.list("10.0.0.0/8 4\n");
    world.geoip();
    world.start(None);
    world.settle();
    world.step(1, &[(1, "+10.1.0.0/16")]);
    let told = world.engine().explain("10.1.2.3".parse().unwrap());
    assert_eq!(told.evidence, "prefix 10.0.0.0/8");
    let chain: Vec<String> = told
        .chain
        .iter()
        .map(|link| {
            let published = link.published.as_ref().map_or("-".to_owned(), firsts_of);
            format!("{} {published} {}", link.prefix, if link.waits { "waits" } else { "stands" })
        })
        .collect();
    assert_eq!(chain, ["10.1.0.0/16 - waits", "10.0.0.0/8 4 stands"]);
    assert_eq!(told.chain[0].chosen.candidates[0].region, RegionId(5));
    assert_eq!(told.geoip, None);
    let told = world.engine().explain("::ffff:81.2.69.1".parse().unwrap());
    let geoip = told.geoip.unwrap();
    assert_eq!((geoip.country.as_deref(), geoip.region), (Some("GB"), Some(RegionId(5))));
    assert!(serde_json::to_string(&world.engine().explain("2001:db8::1".parse().unwrap())).is_ok());
}

#[test]
fn an_audit_tells_what_to_look_at() {
    let mut world = World::new();
    world.router("a", 4);
    world.router("b", 5);
    world.geoip();
    world.start(None);
    world.settle();
    world.step(1, &[(0, "+10.0.0.0/8"), (1, "+10.0.0.0/8 longer"), (1, "+11.0.0.0/8"), (1, "+10.1.0.0/16")]);
    world.step(60, &[]);
    let audit = world.engine().audit(world.now);
    assert_eq!(audit.v4.prefixes, f64::from(2 << 24));
    assert_eq!((audit.v4.geoip, audit.v4.geoip_only.count), (256.0, 1));
    assert_eq!(audit.v4.geoip_only.examples[0].first.to_string(), "81.2.69.0");
    assert_eq!(audit.v4.prefixes + audit.v4.geoip + audit.v4.nothing, 2_f64.powi(32));
    assert_eq!(audit.v6.nothing, 2_f64.powi(128));
    assert_eq!((audit.several.count, audit.several.examples[0].prefix.to_string().as_str()), (1, "10.0.0.0/8"));
    assert_eq!(audit.moved.count, 3);
    assert_eq!((audit.moved.examples[0].from.len(), audit.moved.examples[0].ago_s), (0, 0));
    let regions: Vec<String> = audit
        .regions
        .iter()
        .map(|region| format!("{} {} {} {}", region.region, region.first, region.only, region.without_alternative))
        .collect();
    // 10.1.0.0/16 has region 4 through 10.0.0.0/8.
    assert_eq!(regions, ["4 1 0 false", "5 2 1 true"]);
    let stats = world.engine().stats(world.now);
    assert_eq!((stats.table.prefixes_v4, stats.routes.routes, stats.changes_kept), (3, 4, 3));
    assert!(serde_json::to_string(&(audit, stats)).is_ok());
}

#[test]
fn what_prefixes_only_deny_is_not_served_by_prefixes() {
    let mut world = World::new();
    world.geoip();
    world.rule(Action::Deny, 4, "81.2.69.0/25");
    world.rule(Action::Deny, 5, "81.2.69.192/26");
    world.start(None);
    let audit = world.engine().audit(world.now);
    // Geoip says 5 for all of the /24, which a quarter of it may not have.
    assert_eq!((audit.v4.prefixes, audit.v4.geoip, audit.v4.nothing), (0.0, 192.0, 2_f64.powi(32) - 192.0));
    world.list("81.2.69.0/26 5\n");
    world.install();
    let audit = world.engine().audit(world.now);
    assert_eq!((audit.v4.prefixes, audit.v4.geoip), (64.0, 128.0));
}

#[test]
fn any_history_leads_to_what_is_chosen_at_its_end() {
    use rand::{RngExt, SeedableRng};
    for seed in 0..6 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let mut world = World::new();
        ["a", "b", "c"].iter().zip([4, 5, 4]).for_each(|(name, region)| world.router(name, region));
        world.rule(Action::Prefer, 5, "10.0.1.0/24");
        world.rule(Action::Deny, 4, "10.0.0.0/14");
        world.list("10.0.0.0/15 4\n10.0.0.0/16 5\n");
        world.start(None);
        world.settle();
        let (at, bytes) = world.engine().encode(0);
        let (mut follower, mut at) = (Writer::decode(&bytes).unwrap().0, at);
        for _ in 0..300 {
            let router = random.random_range(0..3);
            let word = match random.random_range(0..20) {
                0 => "lost".to_owned(),
                1 => "connect".to_owned(),
                2 => "up".to_owned(),
                3 => "end".to_owned(),
                n => {
                    let sign = if n % 3 == 0 { '-' } else { '+' };
                    let (bits, length): (u32, u8) = (random.random_range(0..16), random.random_range(12..=26));
                    let net = IpNet::new(Ipv4Addr::from(10 << 24 | bits << 6).into(), length).unwrap().trunc();
                    format!("{sign}{net}{}", if n % 2 == 0 { " longer" } else { "" })
                }
            };
            world.step(random.random_range(0..40), &[(router, word.as_str())]);
            let changes = world.engine().changes_since(at, usize::MAX).unwrap();
            for change in changes.changes {
                match change.leaf {
                    Some(leaf) => follower.set(change.prefix, &leaf),
                    None => follower.remove(change.prefix),
                };
            }
            at.sequence = changes.sequence;
            assert_eq!(at, world.engine().position());
        }
        // Nothing flaps any more.
        world.step(61, &[]);
        world.step(61, &[]);
        let engine = world.engine();
        let wanted = Routes { loaded: &engine.loaded, live: &engine.live }.content();
        assert_eq!(engine.differences(&wanted), [], "seed {seed}");
        assert_eq!(engine.damping.pending(), 0);
        for change in engine.changes_since(at, usize::MAX).unwrap().changes {
            match change.leaf {
                Some(leaf) => follower.set(change.prefix, &leaf),
                None => follower.remove(change.prefix),
            };
        }
        assert_eq!(engine.differences(&follower.content()), [], "seed {seed}: the follower");
    }
}

/// `expected` is the regions of a client, best first, and the evidence.
#[track_caller]
fn check(world: &World, client: &str, expected: &str) {
    let resolution = world.engine().resolver().load().resolve(client.parse().unwrap());
    let regions: Vec<String> = resolution.regions.iter().map(ToString::to_string).collect();
    assert_eq!(format!("{} {}", regions.join(" "), resolution.evidence), expected, "{client}");
}

fn firsts_of(leaf: &Leaf) -> String {
    firsts(Some(leaf)).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
