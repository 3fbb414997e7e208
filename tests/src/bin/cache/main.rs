//! `tests/bench/cache`: what the cache tiers keep of a trace, beside what others would keep and what anybody could.
//!
//! ```text
//!   trace      a file of requests, or generate: one made here
//!     |
//!     +--> ram, disk      our policies: the sun's own code, without bytes
//!     +--> classic, list  LRU, FIFO, SLRU, S3-FIFO
//!     +--> offline        Belady, packing, PFOO-L: what knows the future
//!     v
//!   a table per cache size; chart: the same as a picture
//! ```
//!
//! Every cache begins empty and its first misses count: on a short trace all ratios are lower than they would
//! be later, most of all those of policies that wait for a second request.

mod chart;
mod classic;
mod disk;
mod generate;
mod list;
mod offline;
mod policy;
mod ram;
mod trace;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};

use classic::{Recency, S3Fifo, Slru};
use disk::{Both, Disk};
use policy::{Outcome, Policy, run};
use ram::{Names, RamTier};
use sun::store::policy::Admission;
use trace::{Trace, Versions};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = Arguments::parse(&arguments).and_then(|arguments| measure(&arguments));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cache: {error:#}");
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// What was asked for.
#[derive(Debug)]
struct Arguments {
    source: Source,
    versions: Versions,
    /// Cache sizes, of the footprint; ascending.
    shares: Vec<f64>,
    /// RAM in front of the disk tier, of the disk's size.
    ram_share: f64,
    /// See [`disk::Settings::turnover`].
    turnover: f64,
    /// What sizes are multiplied with.
    scale: u64,
    svg: Option<PathBuf>,
}

#[derive(Debug)]
enum Source {
    File(PathBuf),
    Generated(String),
}

impl Arguments {
    fn parse(arguments: &[String]) -> anyhow::Result<Self> {
        let (mut source, mut versions, mut svg) = (None, Versions::New, None);
        let (mut shares, mut ram_share, mut turnover, mut scale) = (SHARES.to_vec(), RAM_SHARE, TURNOVER, 1);
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().with_context(|| format!("{argument} needs a value"));
            let given = match argument.as_str() {
                "--generate" => Source::Generated(value()?.clone()),
                "--same-version" => {
                    versions = Versions::Same;
                    continue;
                }
                "--sizes" => {
                    shares = value()?.split(',').map(percent).collect::<Result<_, _>>()?;
                    shares.sort_by(f64::total_cmp);
                    continue;
                }
                "--ram" => {
                    ram_share = percent(value()?)?;
                    continue;
                }
                "--turnover" => {
                    turnover = value()?.parse()?;
                    ensure!((0.01..=1e6).contains(&turnover), "--turnover is not within 0.01 and 1000000");
                    continue;
                }
                "--scale" => {
                    scale = value()?.parse()?;
                    ensure!((1..=1 << 30).contains(&scale), "--scale is not within 1 and 2^30");
                    continue;
                }
                "--svg" => {
                    svg = Some(PathBuf::from(value()?));
                    continue;
                }
                unknown if unknown.starts_with('-') => bail!("{unknown} is no option"),
                file => Source::File(PathBuf::from(file)),
            };
            ensure!(source.is_none(), "one trace at a time");
            source = Some(given);
        }
        let source = source.context("no trace is given")?;
        Ok(Self { source, versions, shares, ram_share, turnover, scale, svg })
    }

    fn trace(&self) -> anyhow::Result<(String, Trace)> {
        match &self.source {
            Source::File(path) => {
                let trace = Trace::open(path, self.versions).with_context(|| path.display().to_string())?;
                Ok((path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()), trace))
            }
            Source::Generated(words) => Ok((words.clone(), generate::generate(words)?)),
        }
    }
}

/// A share written in percent.
fn percent(text: &str) -> anyhow::Result<f64> {
    let percent: f64 = text.trim().parse().with_context(|| format!("{text:?} is not a share in percent"))?;
    ensure!(percent > 0.0 && percent <= 100.0, "{text} % is not above 0 and at most 100");
    Ok(percent / 100.0)
}

fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let (title, mut trace) = arguments.trace()?;
    trace.scale(arguments.scale)?;
    introduce(&title, &trace, arguments);
    let names = ram::names(&trace);
    let reuse = offline::Reuse::new(&trace);
    let file_bytes = trace.footprint_bytes / u64::from(trace.keys);
    print_row("a cache without bounds", &reuse.everything());

    let mut lines: Vec<chart::Line> = Vec::new();
    for share in &arguments.shares {
        let bytes_max = ((trace.footprint_bytes as f64 * share) as u64).max(1);
        println!("\n{} % of the footprint: {}", share * 100.0, bytes_text(bytes_max));
        println!("{:34} {:>11} {:>9} {:>15} {:>15}", "", "request hit", "byte hit", "written/served", "CPU ns/request");
        let plan =
            Plan { bytes_max, file_bytes, ram_share: arguments.ram_share, turnover: arguments.turnover, names: &names };
        let mut row = |name: &'static str, outcome: Outcome| {
            print_row(name, &outcome);
            let point = (*share, outcome.byte_hit_ratio);
            match lines.iter_mut().find(|line| line.name == name) {
                Some(line) => line.points.push(point),
                None => lines.push(chart::Line { name, points: vec![point] }),
            }
        };
        for (name, make) in POLICIES {
            row(name, run(&trace, &mut *make(&plan)));
        }
        row("Belady (could be had)", reuse.belady(&trace, bytes_max));
        row("offline packing (could be had)", reuse.packing(bytes_max));
        row("PFOO-L (no cache has more)", reuse.ceiling(bytes_max));
    }
    if let Some(path) = &arguments.svg {
        std::fs::write(path, chart::svg(&title, &lines)).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn introduce(title: &str, trace: &Trace, arguments: &Arguments) {
    println!("== {title}");
    println!(
        "RAM in front of the disk: {} % of it; a drive write a day while {} disk sizes a day are served",
        arguments.ram_share * 100.0,
        arguments.turnover
    );
    println!(
        "{} requests for {} files of {}; {} asked for; {:.0} % of the files once",
        trace.requests.len(),
        trace.keys,
        bytes_text(trace.footprint_bytes),
        bytes_text(trace.bytes()),
        trace.once() * 100.0
    );
    match (trace.changed, arguments.versions) {
        (0, _) => {}
        (changed, Versions::New) => println!("{changed} requests see another size: a new version, so a miss"),
        (changed, Versions::Same) => println!("{changed} requests see another size: taken for the same file"),
    }
}

fn print_row(name: &str, outcome: &Outcome) {
    let or_dash = |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
    println!(
        "{name:34} {:>11.3} {:>9.3} {:>15} {:>15}",
        outcome.request_hit_ratio,
        outcome.byte_hit_ratio,
        or_dash(outcome.written_per_served, 3),
        or_dash(outcome.cpu_ns_per_request, 0)
    );
}

fn bytes_text(bytes: u64) -> String {
    let (unit, name) = match bytes {
        1_000_000_000.. => (1e9, "GB"),
        1_000_000.. => (1e6, "MB"),
        1_000.. => (1e3, "KB"),
        _ => (1.0, "bytes"),
    };
    format!("{:.1} {name}", bytes as f64 / unit)
}

/// What a cache is made by.
struct Plan<'a> {
    bytes_max: u64,
    /// Mean over the files of the trace.
    file_bytes: u64,
    ram_share: f64,
    turnover: f64,
    names: &'a Names,
}

impl Plan<'_> {
    fn ram(&self, bytes_max: u64) -> RamTier {
        RamTier::new(bytes_max, self.names.clone())
    }

    fn disk(&self, admission: Admission, turnover: f64) -> Disk {
        Disk::new(self.bytes_max, self.file_bytes, disk::Settings { admission, turnover }, self.names.clone())
    }

    fn both(&self, admission: Admission, turnover: f64) -> Both {
        Both::new(self.ram((self.bytes_max as f64 * self.ram_share) as u64), self.disk(admission, turnover))
    }
}

/// Makes an empty cache.
type Make = fn(&Plan<'_>) -> Box<dyn Policy>;

const POLICIES: [(&str, Make); 11] = [
    ("FIFO", |plan| Box::new(Recency::fifo(plan.bytes_max))),
    ("LRU", |plan| Box::new(Recency::lru(plan.bytes_max))),
    ("SLRU", |plan| Box::new(Slru::new(plan.bytes_max))),
    ("S3-FIFO", |plan| Box::new(S3Fifo::new(plan.bytes_max))),
    ("sun: all of it RAM", |plan| Box::new(plan.ram(plan.bytes_max))),
    ("sun: disk, no budget", |plan| Box::new(plan.disk(Admission::Always, 0.0))),
    ("sun: disk, a drive write a day", |plan| Box::new(plan.disk(Admission::Always, plan.turnover))),
    ("sun: disk, second offers only", |plan| Box::new(plan.disk(Admission::SecondOffer, 0.0))),
    ("sun: RAM+disk, no budget", |plan| Box::new(plan.both(Admission::Always, 0.0))),
    ("sun: RAM+disk, a drive write a day", |plan| Box::new(plan.both(Admission::Always, plan.turnover))),
    ("sun: RAM+disk, second offers only", |plan| Box::new(plan.both(Admission::SecondOffer, 0.0))),
];

/// Share of the footprint: from what a small sun has of a large catalogue to what a region holds.
const SHARES: [f64; 4] = [0.001, 0.01, 0.05, 0.2];
const RAM_SHARE: f64 = 0.05;
/// A 4 TB disk of a sun that serves 3.7 Gbit/s.
const TURNOVER: f64 = 10.0;

const USAGE: &str = "usage: tests/bench/cache [--same-version] [--sizes 0.1,1,5,20] [--ram 5] [--turnover 10] \
                     [--scale 1] [--svg FILE] TRACE|--generate WORDS";
