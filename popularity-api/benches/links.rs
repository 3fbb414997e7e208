//! How many links one core makes: `tests/bench/links`.
//!
//! From the body of a call for 10,000 files to the body of its answer, as `POST /v1/links` has it, without the socket: the
//! JSON read, the client's region found, every file's name, id, class, holders and owner, the JSON written. The region has
//! 20 suns and 8 caches, all alive and reporting; the caches hold a million files, one of which each second file asked for
//! is; 200 files are hot, and none of those asked for is. Names are 40 bytes long. Best of five runs over a million files
//! each, in CPU time of the thread, so that a busy machine says nearly the same as an idle one.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use geo::{Resolver, Topology};
use popularity_api::holdings::{Bounds, Checked, Holdings};
use popularity_api::hot::Rule;
use popularity_api::links::bulk::{self, Question};
use popularity_api::links::{Knowledge, Maker, Visitor};
use popularity_api::purge::Ledger;
use popularity_api::purge::log::Log;
use popularity_api::signing::Keys;
use popularity_api::status::Registry;
use popularity_api::wire::{Held, HoldingsReport, HotRate, LinksRequest, Load, StatusReport};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    println!("| what | links per second and core | each |\n|---|---|---|");
    let (plain, signed) = (World::new("")?, World::new("signed = true")?);
    let folder = World::new("signed = true\nlink_covers = \"folder\"")?;
    plain.measure("half held by caches, half of their owner suns", &bodies(PER_CALL, |n| n * 2));
    plain.measure("all of their owner suns", &bodies(PER_CALL, |n| FILES + n));
    plain.measure("all held by caches", &bodies(PER_CALL, |n| n));
    plain.measure("the same as the first, 100 files a call", &bodies(100, |n| n * 2));
    plain.measure("the same as the first, 1 file a call", &bodies(1, |n| n * 2));
    signed.measure("the same as the first, each file signed", &bodies(PER_CALL, |n| n * 2));
    folder.measure("the same as the first, each file's folder signed", &bodies(PER_CALL, |n| n * 2));
    parts(&plain);
    Ok(())
}

/// What the parts take, to see where a regression is.
fn parts(world: &World) {
    let names: Vec<String> = (0..100_000).map(name).collect();
    let region = &world.topology.regions[0];
    let parsed: Vec<_> = names.iter().map(|name| geo::CanonicalName::parse(name).expect("a name")).collect();
    let contents: Vec<_> = parsed.iter().map(geo::CanonicalName::content_id).collect();
    println!("\n| part | ns |\n|---|---|");
    part("a name read", &names, |name| geo::CanonicalName::parse(name).map(|name| name.content_server()));
    part("its content id", &parsed, |name| name.content_id().prefix());
    part("its class, of six", &parsed, |name| world.topology.class_of(name).ttl_s);
    part("its owner, of 20 suns", &contents, |content| region.owner_place(*content));
    part("its order, of 20 suns", &contents, |content| region.sun_places(*content).len());
    let held: Vec<_> = region.caches.iter().filter_map(|cache| world.holdings.of(&cache.server.name)).collect();
    part("its holders, of 8 caches", &contents, |content| {
        held.iter().filter(|held| held.holds(content.prefix())).count()
    });
}

fn part<T, A>(what: &str, all: &[T], run: impl Fn(&T) -> A) {
    let took = best(|| all.iter().for_each(|one| drop(black_box(run(black_box(one))))));
    println!("| {what} | {:.0} |", took.as_secs_f64() * 1e9 / all.len() as f64);
}

/// What the API knows.
struct World {
    topology: Topology,
    resolver: Resolver,
    holdings: Holdings,
    registry: Registry,
    purges: Ledger,
    keys: Keys,
}

impl World {
    fn new(class: &str) -> anyhow::Result<Self> {
        let topology = Topology::parse(&document(class))?;
        let folder = tempfile::tempdir()?;
        let mut world = Self {
            resolver: Resolver::load(&geo::resolver::Sources::default(), &topology)?,
            holdings: Holdings::new(Bounds { files_max: 2_000_000, log_max: 1000 }),
            registry: Registry::new(Rule::default(), 0),
            purges: Ledger::new(Log::open(&folder.path().join("purges"), 1, 100)?),
            keys: Keys::parse(&format!("[keys]\na = \"{}\"", "5a".repeat(32))).map_err(anyhow::Error::msg)?,
            topology,
        };
        world.report();
        world.hold();
        Ok(world)
    }

    fn report(&mut self) {
        let region = self.topology.regions[0].clone();
        let servers = region.suns.iter().map(|sun| &sun.server).chain(region.caches.iter().map(|cache| &cache.server));
        for (n, server) in servers.enumerate() {
            let file = |at: usize| format!("c1/hot/{}.jpg", n * 10 + at);
            let rate = |at| HotRate { file: file(at), requests_per_second: 900.0, bits_per_second: 1e9 };
            let load = Load { requests_per_second: 3000.0, bits_per_second: 4e9, ..Load::default() };
            let report = StatusReport {
                server: server.name.clone(),
                healthy: true,
                load,
                hottest: (0..10).map(rate).collect(),
                ..StatusReport::default()
            };
            self.registry.report(&self.topology, report, 0);
        }
    }

    /// Each file by one cache.
    fn hold(&mut self) {
        for cache in 0..CACHES {
            let files: Vec<u64> = (0..FILES).filter(|file| file % CACHES == cache).collect();
            for (generation, files) in (1..).zip(files.chunks(10_000)) {
                let added = files.iter().map(|file| Held { file: name(*file), size: 1 }).collect();
                let since = (generation > 1).then(|| generation - 1);
                let report = HoldingsReport { generation, since, added, removed: Vec::new() };
                let checked = Checked::new(&report).expect("canonical names");
                self.holdings.report(&format!("cache4-{}", cache + 1), checked);
            }
        }
    }

    fn measure(&self, what: &str, bodies: &[Vec<u8>]) {
        let mut made = 0;
        let took = best(|| {
            made = 0;
            for body in bodies {
                made += self.answer(body);
            }
        });
        let each = took.as_secs_f64() / made as f64;
        println!("| {what} | {:.2} M | {:.0} ns |", 1e-6 / each, each * 1e9);
    }

    /// As `Api::links`.
    fn answer(&self, body: &[u8]) -> u64 {
        let question = Question::parse(body).expect("a question");
        let view = self.registry.at(0);
        let visitor = Visitor::new(question.client, question.scheme, &self.resolver, &self.topology, view);
        let knowledge = Knowledge {
            topology: &self.topology,
            holdings: &self.holdings,
            view,
            purges: &self.purges,
            signer: self.topology.signing.as_ref().and_then(|signing| self.keys.signer(signing)),
            now_s: 1_893_456_000,
        };
        let maker = Maker::new(knowledge, &visitor);
        let mut json = Vec::with_capacity(body.len() + question.files.len() * 140);
        let tally = bulk::answer(&maker, &question, &mut |below| rand::random_range(0..below), &mut json);
        black_box(&json);
        assert_eq!(tally.none, 0);
        tally.cache + tally.sun
    }
}

/// A million files in calls of so many.
fn bodies(per_call: u64, file: impl Fn(u64) -> u64) -> Vec<Vec<u8>> {
    let files = if per_call < 100 { FILES / 10 } else { FILES };
    let calls = (0..files / per_call).map(|call| {
        let request = LinksRequest {
            client: [192, 0, 2, 77].into(),
            files: (call * per_call..(call + 1) * per_call).map(|n| name(file(n))).collect(),
            scheme: geo::Scheme::Https,
            explain: false,
        };
        serde_json::to_vec(&request).expect("a request is JSON")
    });
    calls.collect()
}

fn best(mut run: impl FnMut()) -> Duration {
    let mut once = || {
        let began = cpu_time();
        run();
        cpu_time() - began
    };
    (0..5).map(|_| once()).min().unwrap_or_default()
}

/// What this thread has had of a processor (Documentation/scheduler/sched-stats.rst of Linux: the first number,
/// nanoseconds).
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(stat.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0))
}

/// Region 4 with 20 suns and 8 caches; six classes, of which the last has the files.
fn document(class: &str) -> String {
    let mut text = "version = 1\ndomain = \"example.org\"\ndefault_region = 4\n[signing]\nkey = \"a\"\n\
        [content_servers]\nurl = \"http://cs{number}.storage.example.org\"\nnumbers = [\"1-199\"]\n\
        [[region]]\nid = 4\nname = \"Moscow\"\nlatitude = 55.75\nlongitude = 37.6\n\
        [[group]]\nname = \"sun4-1\"\nsubnet = \"192.0.2.0/25\"\n"
        .to_owned();
    for n in 1..=SUNS {
        let _ = write!(text, "[[sun]]\nname = \"sun4-1-{n}\"\naddresses = [\"192.0.2.{n}\"]\n");
        let _ = write!(text, "internal = \"10.4.1.{n}:8081\"\nweight = {}\n", 60 + 10 * (n % 5));
    }
    for n in 1..=CACHES {
        let _ = write!(text, "[[cache]]\nname = \"cache4-{n}\"\naddresses = [\"192.0.2.{}\"]\n", 200 + n);
        let _ = write!(text, "internal = \"10.4.9.{n}:8081\"\nweight = 100\nbytes = 1000000000000\n");
    }
    for (name, path) in [("a", "*.webp"), ("b", "c*/avatars/*"), ("c", "*.svg"), ("d", "*.png"), ("e", "c*/films/*")] {
        let _ = write!(text, "[[class]]\nname = \"{name}\"\npaths = [\"{path}\"]\n");
    }
    let _ = write!(text, "[[class]]\nname = \"f\"\npaths = [\"c*/photos/*\"]\n{class}\n");
    text
}

fn name(file: u64) -> String {
    let mixed = (file ^ (file >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("c{}/photos/{:016x}/{file:08}.jpg", file % 100 + 1, mixed ^ (mixed >> 29))
}

const FILES: u64 = 1_000_000;
const PER_CALL: u64 = 10_000;
const SUNS: u64 = 20;
const CACHES: u64 = 8;
