//! What a full table of routes costs the engine: `cargo bench -p geo --bench engine`. Three routers of three regions,
//! each with 1.04 million IPv4 and 246 thousand IPv6 prefixes; then one of them changes, and is gone. Arguments are geoip
//! files with positions.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use geo::engine::{Engine, Inputs, Loaded, Stepped, Update};
use geo::feed::{Event, Family, PeerId, View};
use geo::resolver::Standing;
use geo::rib::{Feed, FeedKind};
use geo::route::{Attributes, SessionClass};
use geo::{RegionId, Topology};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

fn main() {
    let prefixes = prefixes();
    let files = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let geoip = files.map(Into::into).collect();
    let inputs = Inputs { feeds: (0..3).map(feed).collect(), geoip, changes_max: 200_000, ..Inputs::default() };
    let start = Instant::now();
    let loaded = Loaded::read(&inputs, &topology()).expect("good inputs");
    println!("inputs read in {:.1?}", start.elapsed());
    let mut now = Instant::now();
    let mut engine = Engine::start(loaded, None, 1, now);
    let say = |engine: &mut Engine, now, router: usize, events: Vec<Event>| {
        let feed = engine.feeds()[router].expect("few feeds");
        engine.step(now, [(feed, Update::Events(events))])
    };
    let start = Instant::now();
    for router in 0..3 {
        let (peer, view) = (peer(router), View::PrePolicy);
        let feed = engine.feeds()[router].expect("few feeds");
        engine.step(now, [(feed, Update::Connected)]);
        say(&mut engine, now, router, vec![Event::Up { peer, view, bgp_id: Ipv4Addr::UNSPECIFIED, add_path: vec![] }]);
        for (index, some) in prefixes.chunks(100).enumerate() {
            say(&mut engine, now, router, vec![announced(router, index, some)]);
        }
        let ends = [Family::V4, Family::V6].map(|family| Event::EndOfRib { peer, view, family });
        if router == 2 {
            println!("heard {} routes in {:.1?}", 3 * prefixes.len(), start.elapsed());
        }
        timed(&format!("end of the table of router {router}"), || say(&mut engine, now, router, ends.to_vec()));
    }
    let stats = engine.stats(now);
    println!("{:?}\n{:?}", stats.table, stats.routes);
    timed("encoding", || engine.encode(0).1.len());
    timed("auditing", || engine.audit(now).several.count);
    timed("explaining", || engine.explain([193, 7, 7, 7].into()).chain.len());
    resolve(&engine);
    let small: Vec<IpNet> = prefixes.iter().copied().step_by(1000).collect();
    timed("1,287 prefixes change their path", || say(&mut engine, now, 0, vec![announced(0, 7, &small)]));
    now += Duration::from_secs(61);
    timed("they waited long enough", || engine.step(now, []));
    let gone = vec![Event::Down { peer: peer(0), view: View::PrePolicy, reason: "" }];
    let start = Instant::now();
    let mut stepped = say(&mut engine, now, 0, gone);
    let (mut steps, mut slowest, mut changed) = (1, start.elapsed(), stepped.changed);
    for _ in 0..2 {
        while stepped.more {
            let begin = Instant::now();
            stepped = engine.step(now, []);
            slowest = slowest.max(begin.elapsed());
            changed += stepped.changed;
            steps += 1;
        }
        println!(
            "router 0 is gone: {changed} changes so far, {steps} steps in {:.2?}, slowest {slowest:.1?}",
            start.elapsed()
        );
        now += Duration::from_secs(61);
        stepped = Stepped { changed: 0, more: true };
    }
}

/// Addresses all over IPv4, most of them of some prefix.
fn resolve(engine: &Engine) {
    const COUNT: u32 = 4_000_000;
    let resolver = engine.resolver().load_full();
    for (what, saturated) in [("all live", None), ("region 0 saturated", Some(RegionId(0)))] {
        let standing = |region| if Some(region) == saturated { Standing::Saturated } else { Standing::Live };
        let start = Instant::now();
        let mut sum = 0;
        for index in 0..COUNT {
            let client = Ipv4Addr::from(index.wrapping_mul(0x9e37_79b9));
            sum += usize::from(resolver.resolve_with(client.into(), standing).regions[0].0);
        }
        println!("resolving, {what}: {:.0?} an address ({sum})", start.elapsed() / COUNT);
    }
}

fn timed<T: std::fmt::Debug>(what: &str, work: impl FnOnce() -> T) {
    let start = Instant::now();
    let told = work();
    println!("{what}: {:.2?}, {told:?}", start.elapsed());
}

/// As many as a full table has, most of them /24 and /48.
fn prefixes() -> Vec<IpNet> {
    let v4 = (0..1_040_000_u32).map(|index| {
        let length = if index % 5 < 3 { 24 } else { 20 + u8::try_from(index % 4).expect("small") };
        let net = Ipv4Net::new(Ipv4Addr::from(0x0100_0000 + index * 3037), length).expect("a length");
        IpNet::V4(net.trunc())
    });
    let v6 = (0..246_000_u128).map(|index| {
        let length = if index % 2 == 0 { 48 } else { 32 + u8::try_from(index % 13).expect("small") };
        let net = Ipv6Net::new(Ipv6Addr::from((0x2001 << 112) + ((index * 7919) << 80)), length).expect("a length");
        IpNet::V6(net.trunc())
    });
    let mut all: Vec<IpNet> = v4.chain(v6).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Routers prefer different prefixes: path lengths are 1 to 4.
fn announced(router: usize, index: usize, prefixes: &[IpNet]) -> Event {
    let number = |value: usize| u32::try_from(value).expect("small");
    let path: Vec<u32> =
        (0..=number((index * 7 + router * 3) % 4)).map(|hop| 64_500 + number(index % 50) + hop).collect();
    let attributes = Attributes {
        path_length: u16::try_from(path.len()).expect("short"),
        origin_as: path.last().copied(),
        as_path: path.into(),
        ..Attributes::default()
    };
    let (peer, view, announced) = (peer(router), View::PrePolicy, prefixes.to_vec());
    Event::Routes { peer, view, announced, withdrawn: Vec::new(), attributes: Some(attributes) }
}

fn peer(router: usize) -> PeerId {
    PeerId { address: [192, 0, 2, 1].into(), distinguisher: 0, asn: 64_500 + u32::try_from(router).expect("few") }
}

fn feed(router: u16) -> Feed {
    let (region, class, view) = (RegionId(router), SessionClass::Transit, View::PrePolicy);
    let (name, peers, kind) = (format!("r{router}"), Vec::new(), FeedKind::Live);
    Feed { name, region, class, peers, view, prefixes_max: None, kind }
}

fn topology() -> Topology {
    let document = r#"
version = 1
domain = "example.org"
default_region = 0
content_servers = { url = "http://cs{number}", numbers = ["1"] }
region = [
    { id = 0, name = "Moscow", latitude = 55.75, longitude = 37.6, neighbours = [1] },
    { id = 1, name = "Berlin", latitude = 52.5, longitude = 13.4 },
    { id = 2, name = "Oslo", latitude = 59.9, longitude = 10.7 },
]
group = [{ name = "sun0-1", subnet = "192.0.2.0/24" }]
sun = [{ name = "sun0-1-1", addresses = ["192.0.2.1"], internal = "10.0.0.1:81", weight = 1 }]
"#;
    Topology::parse(document).expect("a good document")
}
