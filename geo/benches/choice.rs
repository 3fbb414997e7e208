//! What choosing regions for a whole table takes, on one core: `cargo bench -p geo --bench choice`.
//!
//! 1.3 million prefixes, as many as the Internet's two tables have, with one to five routes each from eight regions. The
//! routes refer to 100,000 sets of attributes, since announcements of one network share theirs. Every figure is the
//! best of five runs' time on the core and includes that the routes of each prefix are put together; printed as lines of Markdown.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use geo::choice::{Chooser, Options};
use geo::regions::{Point, Regions};
use geo::route::{Attributes, Community, Heard, SessionClass};
use geo::rules::{Action, Rule, Rules};
use geo::{RegionId, Topology};
use ipnet::{IpNet, Ipv4Net};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

fn main() -> anyhow::Result<()> {
    let regions = Regions::of(&Topology::parse(&document())?);
    println!("| {PREFIXES} prefixes, {REGIONS} regions | ms | candidates |\n|---|---|---|");
    for (meds, what) in [(false, "no MED"), (true, "every tenth route with a MED")] {
        let data = Data::make(meds);
        let nowhere = |_| None;
        data.measure(what, &Rules::default(), &regions, &nowhere);
        let positions = |prefix| Some(data.position(prefix));
        data.measure(&format!("{what}, positions known"), &Rules::default(), &regions, &positions);
        if !meds {
            data.measure(&format!("{what}, positions, 300 rules"), &rules(&regions)?, &regions, &positions);
        }
    }
    Ok(())
}

/// The routes, as a RIB keeps them: small numbers beside shared attributes.
struct Data {
    attributes: Vec<Attributes>,
    prefixes: Vec<(IpNet, u32)>,
    routes: Vec<(RegionId, SessionClass, u32)>,
    positions: Vec<Point>,
}

impl Data {
    fn make(meds: bool) -> Self {
        let mut random = SmallRng::seed_from_u64(4);
        let attributes = (0..ATTRIBUTES).map(|_| attributes(meds, &mut random)).collect();
        let mut routes = Vec::new();
        let prefix = |index: u32| {
            let first: u16 = random.random_range(0..REGIONS);
            for at in 0..random.random_range(1..=5) {
                let class = CLASSES[random.random_range(0..CLASSES.len())];
                // One network's announcements look much alike wherever they are heard.
                let attributes = (index / 8 * 7 + random.random_range(0..4)) % ATTRIBUTES;
                routes.push((RegionId((first + at) % REGIONS), class, attributes));
            }
            let net = Ipv4Net::new_assert(Ipv4Addr::from(0x0100_0000 + index * 2048), 21 + (index % 4) as u8);
            (IpNet::V4(net), routes.len() as u32)
        };
        let prefixes = (0..PREFIXES).map(prefix).collect();
        let positions =
            (0..1000).map(|_| (random.random_range(-60.0..70.0), random.random_range(-180.0..180.0)).into());
        Self { attributes, prefixes, routes, positions: positions.collect() }
    }

    fn position(&self, prefix: IpNet) -> Point {
        let IpNet::V4(prefix) = prefix else { return self.positions[0] };
        self.positions[prefix.addr().to_bits() as usize / 65536 % self.positions.len()]
    }

    fn measure(&self, what: &str, rules: &Rules, regions: &Regions, position: &dyn Fn(IpNet) -> Option<Point>) {
        let mut best = Duration::MAX;
        let mut candidates = 0;
        for _ in 0..5 {
            let began = on_core();
            let mut chooser = Chooser::new(rules, regions, Options::default(), position);
            candidates = self.choose_all(&mut chooser);
            best = best.min(on_core().saturating_sub(began));
        }
        println!("| {what} | {:.0} | {candidates} |", best.as_secs_f64() * 1000.0);
    }

    fn choose_all(&self, chooser: &mut Chooser<'_>) -> usize {
        let mut heard = Vec::new();
        let mut start = 0;
        let mut candidates = 0;
        for &(prefix, end) in &self.prefixes {
            heard.clear();
            let routes = &self.routes[start..end as usize];
            heard.extend(routes.iter().map(|&(region, class, attributes)| Heard {
                region,
                class,
                attributes: &self.attributes[attributes as usize],
                stale: false,
                listed: false,
                source: "",
            }));
            start = end as usize;
            candidates += black_box(chooser.choose(prefix, &heard)).map_or(0, |leaf| leaf.candidates.len());
        }
        candidates
    }
}

/// How long this thread has had a core, which others that want one do not add to; where the kernel does not say, the
/// time that has passed.
fn on_core() -> Duration {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = told.and_then(|told| told.split(' ').next()?.parse().ok());
    nanoseconds.map_or_else(|| BEGAN.elapsed(), Duration::from_nanos)
}

fn attributes(meds: bool, random: &mut SmallRng) -> Attributes {
    let length = random.random_range(1..6);
    let as_path: Box<[u32]> = (0..length).map(|_| random.random_range(1..ASES)).collect();
    let med = (meds && random.random_ratio(1, 10)).then(|| random.random_range(1..100));
    let communities = (0..random.random_range(0..10)).map(|_| Community::Standard(random.random(), random.random()));
    Attributes {
        path_length: as_path.len() as u16,
        origin_as: as_path.last().copied(),
        as_path,
        med,
        communities: communities.collect(),
    }
}

/// A hundred of each kind.
fn rules(regions: &Regions) -> anyhow::Result<Rules> {
    let rule = |index: u32| Rule {
        action: [Action::Pin, Action::Deny, Action::Prefer][index as usize % 3],
        region: RegionId((index % u32::from(REGIONS)) as u16),
        prefix: index.is_multiple_of(3).then(|| format!("{}.{}.0.0/16", 1 + index % 150, index % 256)),
        origin_as: (index % 3 == 1).then_some(index * 7),
        via: None,
        community: (index % 3 == 2).then(|| format!("{}:{index}", index * 5)),
        note: String::new(),
    };
    Ok(Rules::check(&(0..300).map(rule).collect::<Vec<_>>(), &[], regions)?)
}

fn document() -> String {
    let mut document = String::from(
        "version = 1\ndomain = \"example.org\"\ndefault_region = 0\n\
         content_servers = { url = \"http://cs{number}\", numbers = [\"1\"] }\n",
    );
    for id in 0..REGIONS {
        let (latitude, longitude) = (60.0 - 12.0 * f64::from(id), 45.0 * f64::from(id) - 170.0);
        document += &format!("[[region]]\nid = {id}\nname = \"R\"\nlatitude = {latitude}\nlongitude = {longitude}\n");
    }
    document
}

const PREFIXES: u32 = 1_300_000;
const ATTRIBUTES: u32 = 100_000;
const ASES: u32 = 80_000;
const REGIONS: u16 = 8;
/// Exchanges and transit are most of what is heard.
const CLASSES: [SessionClass; 5] = [
    SessionClass::Private,
    SessionClass::Exchange,
    SessionClass::Exchange,
    SessionClass::Transit,
    SessionClass::Transit,
];
