//! Scenarios of links, as tables: who lives, who holds, what comes out.

use geo::RegionId;

use super::*;
use crate::holdings::{Bounds, Checked};
use crate::hot::Rule;
use crate::purge::Ledger;
use crate::signing::Keys;
use crate::status::Registry;
use crate::testing;
use crate::wire::{Held, HoldingsReport, HotRate, Load, StatusReport};

const FILE: &str = "c1/a.jpg";

#[test]
fn before_anybody_reported_everybody_counts_as_alive() {
    let world = World::new();
    let owner = world.order(4)[0].clone();
    check(&world, 0, &format!("{owner}: owner"));
}

#[test]
fn a_cache_that_holds_the_file_is_named_before_the_owner() {
    let mut world = World::new();
    world.hold("cache4-2", 1);
    check(&world, 0, "cache4-2: held by a cache");
    world.alive(&["sun4-1-1", "sun4-1-2", "sun4-1-3"], 10_000);
    let owner = world.order(4)[0].clone();
    check(&world, 10_000, &format!("{owner}: owner"));
    world.alive(&["cache4-2"], 10_000);
    check(&world, 10_000, "cache4-2: held by a cache");
}

#[test]
fn a_cache_is_not_named_for_a_purged_file_until_it_says_that_it_knows() {
    let mut world = World::new();
    world.hold("cache4-2", 1);
    let sequence = testing::purge(&world.purges, FILE, Some(4));
    let owner = world.order(4)[0].clone();
    check(&world, 0, &format!("{owner}: owner"));
    world.purges.acknowledge("cache4-2", sequence, 0);
    check(&world, 0, "cache4-2: held by a cache");
}

#[test]
fn a_silent_owner_is_replaced_by_its_stand_in() {
    let mut world = World::new();
    let order = world.order(4);
    world.alive(&[&order[1], &order[2]], 10_000);
    check(&world, 10_000, &format!("{}: stand-in: {} is not linked", order[1], order[0]));
    world.alive(&[&order[0]], 11_000);
    check(&world, 11_000, &format!("{}: owner", order[0]));
}

#[test]
fn an_empty_region_sends_its_clients_to_the_neighbour() {
    let mut world = World::new();
    world.alive(&["sun5-1-1"], 10_000);
    check(&world, 10_000, "sun5-1-1: owner");
    let owner = world.order(4)[0].clone();
    check(&world, 99_000, &format!("{owner}: owner, although no server is known to live"));
}

#[test]
fn the_regions_of_a_client_are_those_that_stand() {
    let mut world = World::new();
    // Nothing is known of the client: the default region 4, and its neighbours 5 and 6.
    let regions = |world: &World, scheme, now_ms| {
        let resolver = Resolver::load(&geo::resolver::Sources::default(), &world.topology).unwrap();
        let view = world.registry.at(now_ms);
        let visitor = Visitor::new([192, 0, 2, 1].into(), scheme, &resolver, &world.topology, view);
        visitor.regions.iter().map(|region| region.id.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(regions(&world, Scheme::Https, 0), "4 5 6");
    assert_eq!(regions(&world, Scheme::Http, 0), "4 5");
    world.alive(&["sun4-1-1", "sun6-1-1"], 10_000);
    assert_eq!(regions(&world, Scheme::Https, 10_000), "4 6");
    // Ten minutes at the bound of the card divert everybody.
    let full = Load { bits_per_second: 10e9, ..Load::default() };
    for second in (0..=600).rev() {
        world.report("sun4-1-1", full, Vec::new(), 620_000 - second * 1000);
    }
    assert_eq!(regions(&world, Scheme::Https, 620_000), "4", "better full than none");
    world.alive(&["sun6-1-1"], 620_000);
    assert_eq!(regions(&world, Scheme::Https, 620_000), "6 4");
    assert_eq!(regions(&world, Scheme::Https, 699_000), "4 5 6", "nobody lives");
}

#[test]
fn an_explanation_says_which_region_is_passed_over_and_why() {
    let mut world = World::new();
    let evidence = |world: &World, now_ms| {
        let resolver = Resolver::load(&geo::resolver::Sources::default(), &world.topology).unwrap();
        let (client, view) = ([192, 0, 2, 1].into(), world.registry.at(now_ms));
        let visitor = Visitor::new(client, Scheme::Https, &resolver, &world.topology, view);
        visitor.with_whom_it_misses(client, &resolver, &world.topology, view).evidence
    };
    assert_eq!(evidence(&world, 0), "default");
    world.alive(&["sun6-1-1"], 10_000);
    let silent = |region| format!("; region {region} comes first, and no server of it can be linked");
    assert_eq!(evidence(&world, 10_000), format!("default{}{}", silent(4), silent(5)));
    world.alive(&["sun4-1-1"], 10_000);
    assert_eq!(evidence(&world, 10_000), "default");
    let full = Load { bits_per_second: 10e9, ..Load::default() };
    for second in (0..=600).rev() {
        world.report("sun4-1-1", full, Vec::new(), 620_000 - second * 1000);
    }
    world.alive(&["sun5-1-1"], 620_000);
    let sends_on = "; region 4 comes first, and it is full, and sends this client on";
    assert_eq!(evidence(&world, 620_000), format!("default{sends_on}"));
}

#[test]
fn of_a_full_region_a_share_of_the_networks_goes_elsewhere() {
    let mut world = World::new();
    world.alive(&["sun5-1-1"], 0);
    // Full speed is a hundredth of the clients a second.
    for second in 0..=30 {
        world.report("sun4-1-1", Load { bits_per_second: 10e9, ..Load::default() }, Vec::new(), second * 1000);
    }
    world.alive(&["sun5-1-1"], 30_000);
    let resolver = Resolver::load(&geo::resolver::Sources::default(), &world.topology).unwrap();
    let goes = |network: u32| {
        let client = std::net::Ipv4Addr::from((network << 8) + 7).into();
        let visitor = Visitor::new(client, Scheme::Https, &resolver, &world.topology, world.registry.at(30_000));
        visitor.regions.iter().map(|region| region.id.0).collect::<Vec<_>>()
    };
    let gone = (0..1000).map(goes).filter(|regions| *regions == [5, 4]).count();
    let stay = (0..1000).map(goes).filter(|regions| *regions == [4, 5]).count();
    assert_eq!(gone + stay, 1000);
    assert!((260..340).contains(&gone), "{gone} of 1,000");
}

#[test]
fn a_server_without_a_port_for_the_scheme_is_passed_over() {
    let world = World::new();
    let ask = |scheme| {
        let visitor = world.visitor(6, scheme);
        link(world.knowledge(0), &visitor, FILE, false, &mut |_| 0)
    };
    assert_eq!(ask(Scheme::Https).server.as_deref(), Some("sun6-1-1"));
    assert_eq!(ask(Scheme::Http).server, None);
    assert!(ask(Scheme::Http).error.unwrap().contains("port"), "an error says why");
}

#[test]
fn what_is_no_file_of_ours_gets_an_error_and_the_others_a_link() {
    let world = World::new();
    let visitor = world.visitor(4, Scheme::Https);
    let error = |file: &str| link(world.knowledge(0), &visitor, file, false, &mut |_| 0).error;
    assert_eq!(error("c1/a.jpg"), None);
    assert_eq!(error("/c1/%61.jpg"), None);
    assert_eq!(error("c77/a.jpg").as_deref(), Some("content server 77 is not one of the topology's"));
    assert!(error("c1/../a").is_some() && error("nonsense").is_some() && error("").is_some());
}

#[test]
fn a_hot_file_is_shared_and_the_less_busy_of_two_is_named() {
    let mut world = World::new();
    let order = world.order(4);
    for (sun, bits) in order.iter().zip([9e9, 1e9, 5e9]) {
        let hot = HotRate { file: FILE.to_owned(), requests_per_second: 1000.0, bits_per_second: 1e9 };
        world.report(sun, Load { bits_per_second: bits, requests_per_second: 1000.0, ..Load::default() }, vec![hot], 0);
    }
    let visitor = world.visitor(4, Scheme::Https);
    let named = |first, second| {
        // The third draw is the coin: as good as never the busier one.
        let mut draws = [first, second, 1 << 19].into_iter();
        link(world.knowledge(0), &visitor, FILE, true, &mut |_| draws.next().unwrap())
    };
    assert_eq!(named(0, 0).server.as_ref(), Some(&order[1]), "of the first and the second");
    assert_eq!(named(0, 1).server.as_ref(), Some(&order[2]), "of the first and the third");
    assert_eq!(named(2, 1).server.as_ref(), Some(&order[1]), "of the third and the second");
    assert_eq!(named(0, 0).explain.unwrap().reason, "hot: one of 3");
}

#[test]
fn a_class_can_be_spread_over_all_suns() {
    let world = World::new();
    let visitor = world.visitor(4, Scheme::Https);
    let named = link(world.knowledge(0), &visitor, "c1/logo.svg", true, &mut |_| 0);
    assert_eq!(named.explain.unwrap().spread, 3);
}

#[test]
fn the_answer_is_what_the_wire_says() {
    let mut world = World::new();
    world.hold("cache4-2", 1);
    let visitor = world.visitor(4, Scheme::Https);
    let maker = Maker::new(world.knowledge(0), &visitor);
    let files = [FILE, "/c1/%61.jpg", "c1/b.jpg", "c9/a/b/c.mp4", "c77/a", "", "\"\n\u{444}"];
    for explain in [false, true] {
        let request = crate::wire::LinksRequest {
            client: [192, 0, 2, 1].into(),
            files: files.iter().map(ToString::to_string).collect(),
            scheme: Scheme::Https,
            explain,
        };
        let body = serde_json::to_vec(&request).unwrap();
        let question = bulk::Question::parse(&body).unwrap();
        let mut json = Vec::new();
        let tally = bulk::answer(&maker, &question, &mut |_| 0, &mut json);
        let links = request.files.iter().map(|file| maker.link(file, explain, &mut |_| 0)).collect();
        let expected = crate::wire::Links { regions: vec![RegionId(4), RegionId(5), RegionId(6)], links };
        assert_eq!(String::from_utf8(json).unwrap(), serde_json::to_string(&expected).unwrap());
        assert_eq!(tally, bulk::Tally { cache: 2, sun: 2, content_server: 0, none: 3 });
    }
}

#[test]
fn heavy_files_that_no_cache_holds_come_from_their_content_server_where_it_has_a_public_name() {
    let mut world = World::new();
    let heavy = |signed: &str| {
        let class = format!("[[class]]\nname = \"films\"\npaths = [\"*.mp4\"]\nkind = \"heavy\"\n{signed}");
        format!("{}\n{class}", testing::TOPOLOGY)
    };
    let public = "public = \"https://cs{number}.example.net\"\nnumbers = [";
    let signing = "[signing]\nkey = \"a\"\n[content_servers]";
    let ask = |world: &World, file: &str, scheme| {
        let link = link(world.knowledge(0), &world.visitor(4, scheme), file, true, &mut |_| 0);
        format!("{} {}", link.server.unwrap(), link.url.unwrap())
    };
    let sun = world.topology.region(RegionId(4)).unwrap();
    let sun = sun.owner(CanonicalName::parse("c3/a.mp4").unwrap().content_id()).unwrap().server.name.clone();
    let by_sun = format!("{sun} https://{sun}.example.org/c3/a.mp4");
    world.topology = Topology::parse(&heavy("")).unwrap();
    assert_eq!(ask(&world, "c3/a.mp4", Scheme::Https), by_sun);
    world.topology = Topology::parse(&heavy("").replace("numbers = [", public)).unwrap();
    let straight = "content server 3 https://cs3.example.net/a.mp4";
    assert_eq!(ask(&world, "c3/a.mp4", Scheme::Https), straight);
    assert_eq!(ask(&world, "c3/a.mp4", Scheme::Http), straight);
    assert!(ask(&world, "c3/a.jpg", Scheme::Https).starts_with("sun4-1-"), "light files do not");
    world.hold_file("cache4-1", "c3/a.mp4", 1);
    assert!(ask(&world, "c3/a.mp4", Scheme::Https).starts_with("cache4-1"));
    // What is not signed for them would be open to everybody.
    let text = heavy("signed = true").replace("numbers = [", public).replace("[content_servers]", signing);
    world.topology = Topology::parse(&text).unwrap();
    world.keys = Keys::parse(&format!("[keys]\na = \"{}\"", "a".repeat(64))).unwrap();
    assert!(ask(&world, "c4/a.mp4", Scheme::Https).starts_with("sun4-1-"));
}

#[test]
fn of_several_holders_the_less_loaded_is_named_by_weight() {
    let mut world = World::new();
    world.hold("cache4-1", 1);
    world.hold("cache4-2", 1);
    let shares = |world: &World| {
        let mut seed = 1_u64;
        let mut draw = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(seed >> 33).unwrap() % below
        };
        let visitor = world.visitor(4, Scheme::Https);
        let maker = Maker::new(world.knowledge(0), &visitor);
        let named = |_: &i32| maker.link(FILE, false, &mut draw).server.as_deref() == Some("cache4-1");
        (0..1000).filter(named).count()
    };
    assert!((450..550).contains(&shares(&world)), "{}", shares(&world));
    world.report("cache4-1", Load { bits_per_second: 5e9, ..Load::default() }, Vec::new(), 0);
    world.report("cache4-2", Load { bits_per_second: 1e9, ..Load::default() }, Vec::new(), 0);
    assert_eq!(shares(&world), 0);
    world.report("cache4-2", Load { bits_per_second: 4.6e9, ..Load::default() }, Vec::new(), 0);
    assert!((300..400).contains(&shares(&world)), "{}", shares(&world));
    // Hardly any load says nothing.
    world.report("cache4-1", Load { bits_per_second: 5e6, ..Load::default() }, Vec::new(), 0);
    world.report("cache4-2", Load { bits_per_second: 1e6, ..Load::default() }, Vec::new(), 0);
    assert!((450..550).contains(&shares(&world)), "{}", shares(&world));
}

#[test]
fn all_caches_that_hold_a_file_are_told() {
    let mut world = World::new();
    let told = |world: &World, now_ms| {
        let name = CanonicalName::parse(FILE).unwrap();
        let view = world.registry.at(now_ms);
        let held = held_by(&world.topology, &world.holdings, &world.purges, view, &name);
        let one = |holder: &crate::wire::Holder| {
            format!("{} {}{}", holder.region, holder.cache, if holder.linked { "" } else { " not linked" })
        };
        held.caches.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(told(&world, 0), "");
    for cache in ["cache6-1", "cache5-1", "cache4-2"] {
        world.hold(cache, 1);
    }
    assert_eq!(told(&world, 0), "4 cache4-2, 5 cache5-1, 6 cache6-1 not linked", "weight 0 drains");
    world.alive(&["cache5-1"], 10_000);
    assert_eq!(told(&world, 10_000), "4 cache4-2 not linked, 5 cache5-1, 6 cache6-1 not linked");
    let sequence = testing::purge(&world.purges, FILE, None);
    world.purges.acknowledge("cache4-2", sequence, 0);
    assert_eq!(told(&world, 10_000), "4 cache4-2 not linked");
}

#[test]
fn links_of_a_signed_class_are_signed_and_others_are_not() {
    let mut world = World::new();
    let text = testing::TOPOLOGY.replace("spread = \"all\"", "signed = true");
    let signing = "[signing]\nkey = \"b\"\naccepted = [\"a\"]\n[content_servers]";
    world.topology = Topology::parse(&text.replace("[content_servers]", signing)).unwrap();
    let ask = |world: &World, file: &str| {
        let visitor = world.visitor(6, Scheme::Https);
        let link = link(world.knowledge(0), &visitor, file, true, &mut |_| 0);
        link.error.or(link.url).unwrap()
    };
    assert_eq!(ask(&world, "c1/a.jpg"), "https://sun6-1-1.example.org/c1/a.jpg");
    let none = "links to files of the class logos are signed, and this server has no key for it (signing_keys)";
    assert_eq!(ask(&world, "c1/a.svg"), none);
    world.keys = Keys::parse(&format!("[keys]\na = \"{}\"", "a".repeat(64))).unwrap();
    let url = ask(&world, "c1/a.svg");
    assert!(url.starts_with("https://sun6-1-1.example.org/c1/a.svg?e=1893456900&k=a&s="), "{url}");
    let explained = link(world.knowledge(0), &world.visitor(6, Scheme::Https), "c1/a.svg", true, &mut |_| 0);
    let signed = explained.explain.unwrap().signed.unwrap();
    assert_eq!((signed.key.as_str(), signed.expires_s, signed.covers.as_str()), ("a", 1_893_456_900, "file"));
}

#[track_caller]
fn check(world: &World, now_ms: u64, expected: &str) {
    let visitor = world.visitor(4, Scheme::Https);
    let link = link(world.knowledge(now_ms), &visitor, FILE, true, &mut |_| 0);
    let answer = format!("{}: {}", link.server.unwrap(), link.explain.unwrap().reason);
    assert_eq!(answer, expected, "at {now_ms} ms");
}

struct World {
    topology: Topology,
    holdings: Holdings,
    registry: Registry,
    purges: Ledger,
    keys: Keys,
}

impl World {
    fn new() -> Self {
        let rule = Rule { lower_after_ms: 1, files_max: 10, ..Rule::default() };
        Self {
            topology: testing::topology(),
            holdings: Holdings::new(Bounds { files_max: 100, log_max: 100 }),
            registry: Registry::new(rule, 0),
            purges: testing::ledger(),
            keys: Keys::default(),
        }
    }

    fn knowledge(&self, now_ms: u64) -> Knowledge<'_> {
        let view = self.registry.at(now_ms);
        let signer = self.topology.signing.as_ref().and_then(|signing| self.keys.signer(signing));
        Knowledge {
            topology: &self.topology,
            holdings: &self.holdings,
            view,
            purges: &self.purges,
            signer,
            now_s: 1_893_452_401,
        }
    }

    fn visitor(&self, region: u16, scheme: Scheme) -> Visitor<'_> {
        let region = self.topology.region(RegionId(region)).unwrap();
        let neighbours = region.neighbours.iter().filter_map(|&id| self.topology.region(id));
        let regions = std::iter::once(region).chain(neighbours).collect();
        Visitor { regions, evidence: "default".to_owned(), scheme }
    }

    fn order(&self, region: u16) -> Vec<String> {
        let content = CanonicalName::parse(FILE).unwrap().content_id();
        let region = self.topology.region(RegionId(region)).unwrap();
        region.sun_order(content).iter().map(|sun| sun.server.name.clone()).collect()
    }

    fn hold(&mut self, cache: &str, generation: u64) {
        self.hold_file(cache, FILE, generation);
    }

    fn hold_file(&mut self, cache: &str, file: &str, generation: u64) {
        let added = vec![Held { file: file.to_owned(), size: 1 }];
        let report = HoldingsReport { generation, since: None, added, removed: Vec::new() };
        self.holdings.report(cache, Checked::new(&report).unwrap());
    }

    fn alive(&mut self, servers: &[&str], now_ms: u64) {
        for server in servers {
            self.report(server, Load::default(), Vec::new(), now_ms);
        }
    }

    fn report(&mut self, server: &str, load: Load, hottest: Vec<HotRate>, now_ms: u64) {
        let report =
            StatusReport { server: server.to_owned(), healthy: true, load, hottest, ..StatusReport::default() };
        self.registry.report(&self.topology, report, now_ms);
    }
}
