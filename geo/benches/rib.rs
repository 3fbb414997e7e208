//! What the RIB costs: two peers with the same large table, from their first route to the end of one of them.
//!
//! ```text
//!   cargo bench -p geo --bench rib                  512,621 made-up prefixes, half of them /24
//!   cargo bench -p geo --bench rib -- FILE          lines of `prefix AS`, as pyasn has them
//! ```
//!
//! Prints RAM for each route (what the process grew by, and what the RIB says of itself), the rate of events, and how
//! long single calls take while a whole peer comes and goes: nothing may hold the engine for long.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use geo::RegionId;
use geo::feed::{Event, Family, PeerId, View};
use geo::rib::{Feed, FeedId, FeedKind, Limits, Rib};
use geo::route::{Attributes, Community, SessionClass};
use ipnet::{IpNet, Ipv4Net};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const ROUTER: FeedId = FeedId(0);
const PREFIXES: usize = 512_621;

fn main() {
    let file = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let origins = file.map_or_else(made_up, |file| read(&file));
    let prefixes: usize = origins.values().map(Vec::len).sum();
    println!("{prefixes} prefixes of {} ASes, two peers", origins.len());

    let events: [Vec<Event>; 2] = [1, 2].map(|number| table(&origins, number));
    let before = resident_bytes();
    let mut rib = Rib::new(Limits::default());
    rib.set_feeds(&[feed()], Duration::ZERO);
    let now = Duration::from_secs(1);
    for (number, events) in (1..).zip(&events) {
        rib.apply(ROUTER, &up(number), now);
        let took = timed(|| events.iter().for_each(|event| rib.apply(ROUTER, event, now)));
        println!("peer {number}: {prefixes} routes in {} messages applied in {took:?}", events.len());
    }
    let (grown, counts) = (resident_bytes() - before, rib.counts());
    let each = |bytes: u64| bytes as f64 / counts.routes as f64;
    println!("{} routes, {} different attributes", counts.routes, counts.attributes);
    println!(
        "RAM: {} MB grown, {:.0} bytes a route; by its own count {:.0}",
        grown >> 20,
        each(grown),
        each(counts.bytes)
    );

    for number in [1, 2] {
        let end = Event::EndOfRib { peer: peer(number), view: View::PrePolicy, family: Family::V4 };
        phase(&mut rib, &format!("end-of-RIB of peer {number}"), |rib| rib.apply(ROUTER, &end, now));
    }
    let down = Event::Down { peer: peer(1), view: View::PrePolicy, reason: "" };
    phase(&mut rib, "peer 1 goes down", |rib| rib.apply(ROUTER, &down, now));
    phase(&mut rib, "the router is lost", |rib| rib.lost(ROUTER, now));
    phase(&mut rib, "stale routes are over", |rib| rib.tick(now + Duration::from_secs(900)));
    assert_eq!(rib.counts().routes, 0);
}

/// What one event costs, and the calls after it that tell what changed.
fn phase(rib: &mut Rib, what: &str, event: impl FnOnce(&mut Rib)) {
    if rib.overflowed() {
        rib.take_everything();
    }
    let took = timed(|| event(rib));
    let (mut told, mut longest, mut calls) = (0, Duration::ZERO, 0);
    let all = timed(|| {
        while rib.pending() {
            longest = longest.max(timed(|| told += rib.take_dirty(1000).len()));
            calls += 1;
        }
    });
    println!("{what}: {took:?}, then {told} prefixes told in {all:?}, {calls} calls, the longest {longest:?}");
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

fn feed() -> Feed {
    Feed {
        name: "r1".to_owned(),
        region: RegionId(1),
        class: SessionClass::Transit,
        peers: Vec::new(),
        view: View::PrePolicy,
        prefixes_max: None,
        kind: FeedKind::Live,
    }
}

fn peer(number: u8) -> PeerId {
    PeerId { address: [192, 0, 2, number].into(), distinguisher: 0, asn: 64_500 + u32::from(number) }
}

fn up(number: u8) -> Event {
    Event::Up { peer: peer(number), view: View::PrePolicy, bgp_id: Ipv4Addr::UNSPECIFIED, add_path: Vec::new() }
}

/// A peer's table: each origin has its prefixes in a few bundles of equal attributes, up to 100 prefixes a message.
fn table(origins: &BTreeMap<u32, Vec<IpNet>>, number: u8) -> Vec<Event> {
    let mut random = StdRng::seed_from_u64(number.into());
    let mut events = Vec::new();
    for (&origin, prefixes) in origins {
        for bundle in prefixes.chunks(1 + prefixes.len() / 3) {
            let attributes = attributes(&mut random, number, origin);
            events.extend(bundle.chunks(100).map(|announced| Event::Routes {
                peer: peer(number),
                view: View::PrePolicy,
                announced: announced.to_vec(),
                withdrawn: Vec::new(),
                attributes: Some(attributes.clone()),
            }));
        }
    }
    events
}

/// A path of three to seven ASes and up to eight communities.
fn attributes(random: &mut StdRng, number: u8, origin: u32) -> Attributes {
    let between: Vec<u32> = (0..random.random_range(1..6)).map(|_| random.random_range(1..400_000)).collect();
    let path = [&[64_500 + u32::from(number)], &*between, &[origin]].concat();
    let communities = (0..random.random_range(0..9)).map(|_| {
        let network = random.random_range(1..65_000);
        Community::Standard(network, random.random())
    });
    let communities: BTreeSet<Community> = communities.collect();
    Attributes {
        path_length: u16::try_from(path.len()).unwrap_or(u16::MAX),
        as_path: path.into(),
        origin_as: Some(origin),
        med: Some(random.random_range(0..3)),
        communities: communities.into_iter().collect(),
    }
}

fn made_up() -> BTreeMap<u32, Vec<IpNet>> {
    let mut random = StdRng::seed_from_u64(4);
    let mut origins: BTreeMap<u32, Vec<IpNet>> = BTreeMap::new();
    let mut known = BTreeSet::new();
    while known.len() < PREFIXES {
        let length = if random.random_bool(0.55) { 24 } else { random.random_range(14..24) };
        let address = Ipv4Addr::from(random.random_range(0x0100_0000_u32..0xdf00_0000));
        let prefix = Ipv4Net::new_assert(address, length).trunc();
        if known.insert(prefix) {
            // A few ASes have thousands of prefixes, most have one or two.
            let origin = (47_000.0 * random.random::<f64>().powi(3)) as u32;
            origins.entry(origin).or_default().push(prefix.into());
        }
    }
    origins
}

fn read(file: &str) -> BTreeMap<u32, Vec<IpNet>> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut origins: BTreeMap<u32, Vec<IpNet>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with(';')) {
        let mut fields = line.split_whitespace();
        let (Some(prefix), Some(origin)) = (fields.next(), fields.next()) else { continue };
        if let (Ok(prefix), Ok(origin)) = (prefix.parse(), origin.parse()) {
            origins.entry(origin).or_default().push(prefix);
        }
    }
    origins
}

/// What the kernel counts of this process.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("resident pages");
    pages * 4096
}
