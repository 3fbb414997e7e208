//! What a region's cache would save that carries what [`popularity_api::wanted`] says: `tests/bench/wanted`.
//!
//! ```text
//!   first half of a trace: rates are learnt by the engine             second half: who had the file?
//!   |----------------------------------------------------------------|------------------------------------->
//!                     carried once, here, and kept as it is ---------^
//!                     carried on: asked, planned and replaced every five minutes  ^    ^    ^    ^    ^
//! ```
//!
//! Ratings, their decay, what pays and what replaces what are the product's own code. Beside them stand the best cache
//! that the counts of the first half allow (a knapsack, for bytes and for requests), the best that the second half
//! itself allows (clairvoyant), both kept as they are, and an LRU of the same size that was warm from the first half.
//!
//! What is simplified: one cache, one region; a file has the first size that the trace gives it; nothing is counted for
//! metadata or for the vault's pages; a fetch takes no time.

mod caches;
mod replay;
mod trace;

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use popularity_api::worth::sure;

use caches::{Outcome, best_by, lru, score};
use replay::{Policy, carried_on, carried_once};
use trace::Trace;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What was asked for.
struct Arguments {
    traces: Vec<PathBuf>,
    /// Time from the first to the last request.
    hours: f64,
    /// Cache sizes, of the catalogue's bytes.
    shares: Vec<f64>,
    seed: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    if arguments.traces.is_empty() {
        return measure("generated: Zipf 0.9", &Trace::generated(arguments.seed)?, &arguments);
    }
    for path in &arguments.traces {
        let trace = Trace::open(path).with_context(|| path.display().to_string())?;
        measure(&path.file_name().unwrap_or_default().to_string_lossy(), &trace, &arguments)?;
    }
    Ok(())
}

impl Arguments {
    fn parse(given: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut arguments = Self { traces: Vec::new(), hours: 96.0, shares: vec![0.01, 0.05, 0.1], seed: 1 };
        let mut rest = given.filter(|argument| argument != "--bench");
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().with_context(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--hours" => arguments.hours = value()?.parse()?,
                "--seed" => arguments.seed = value()?.parse()?,
                "--sizes" => {
                    let percents = value()?;
                    let shares = percents.split(',').map(|percent| Ok(percent.trim().parse::<f64>()? / 100.0));
                    arguments.shares = shares.collect::<anyhow::Result<_>>()?;
                }
                unknown if unknown.starts_with('-') => bail!("{unknown} is no option: --hours, --sizes, --seed"),
                file => arguments.traces.push(file.into()),
            }
        }
        ensure!((0.1..=100_000.0).contains(&arguments.hours), "--hours is not within 0.1 and 100000");
        ensure!(arguments.shares.iter().all(|share| *share > 0.0 && *share <= 1.0), "--sizes are percent, above 0");
        Ok(arguments)
    }
}

fn measure(title: &str, trace: &Trace, arguments: &Arguments) -> anyhow::Result<()> {
    println!(
        "\n## {title}: {} requests for {} files, {:.1} MB once each, as {} hours\n",
        trace.requests.len(),
        trace.sizes.len(),
        trace.catalogue_bytes() as f64 / 1e6,
        arguments.hours
    );
    foresight(trace);
    for &share in &arguments.shares {
        let bytes_max = (trace.catalogue_bytes() as f64 * share) as u64;
        println!("\n### A cache of {:.3} % of the catalogue, {bytes_max} bytes\n", share * 100.0);
        let (requests, bytes) = lru(trace, bytes_max, 0).ratios();
        println!("LRU over the whole trace, empty at its beginning: request {requests:.4}, byte {bytes:.4}\n");
        table(trace, bytes_max, arguments.hours)?;
    }
    Ok(())
}

/// The rows of one cache size, and whether the bar is met.
fn table(trace: &Trace, bytes_max: u64, hours: f64) -> anyhow::Result<()> {
    let (first, second) = trace.counts();
    let per_request = |counts: &[u32]| best_by(trace, bytes_max, |key| value(counts, key) / trace.size_f64(key));
    let per_byte = |counts: &[u32]| best_by(trace, bytes_max, |key| value(counts, key));
    let optimum = score(trace, &per_byte(&first));
    println!("| cache | request hits | byte hits | of the optimum | sent by content servers | filled |");
    println!("|---|---|---|---|---|---|");
    let row = |name: &str, outcome: &Outcome| {
        let (requests, bytes) = outcome.ratios();
        println!(
            "| {name} | {requests:.4} | {bytes:.4} | {:.3} | {:.4} | {:.2} |",
            bytes / optimum.ratios().1,
            outcome.upstream(),
            outcome.held_bytes as f64 / bytes_max as f64
        );
        bytes
    };
    let optimal = row("optimum of the first half, for bytes", &optimum);
    row("optimum of the first half, for requests", &score(trace, &per_request(&first)));
    let mut met = 0.0;
    for exponent in [0.0, 0.5, 1.0] {
        let policy = Policy { exponent, ..Policy::shipped() };
        let bytes = row(&format!("carried once, exponent {exponent}"), &carried_once(trace, bytes_max, hours, policy)?);
        if exponent == Policy::shipped().exponent {
            met = bytes;
        }
    }
    let all = Policy { pays: false, ..Policy::shipped() };
    row("carried once, exponent 0.5, also what does not pay", &carried_once(trace, bytes_max, hours, all)?);
    let recent = Policy { hour_share: 0.25, ..Policy::shipped() };
    row("carried once, exponent 0.5, hour_share 0.25", &carried_once(trace, bytes_max, hours, recent)?);
    for exponent in [0.0, 0.5, 1.0] {
        let policy = Policy { exponent, ..Policy::shipped() };
        row(&format!("carried on, exponent {exponent}"), &carried_on(trace, bytes_max, hours, policy)?);
    }
    row("carried on, exponent 0.5, hour_share 0.25", &carried_on(trace, bytes_max, hours, recent)?);
    row("LRU", &lru(trace, bytes_max, trace.requests.len() / 2));
    let clairvoyant = row("clairvoyant, for bytes", &score(trace, &per_byte(&second)));
    row("clairvoyant, for requests", &score(trace, &per_request(&second)));
    let verdict = if met >= 0.95 * optimal { "within" } else { "NOT within" };
    println!(
        "\nAs shipped: byte hit ratio {met:.4}, {:.1} % of the optimum that knows the first half ({verdict} 5 % of it), {:.1} % \
         of the clairvoyant one.",
        100.0 * met / optimal,
        100.0 * met / clairvoyant
    );
    Ok(())
}

/// What files that were asked for n times got later, beside what is expected of them.
fn foresight(trace: &Trace) {
    let (first, second) = trace.counts();
    println!("| asked for in the first half | files | in the second, mean | expected |\n|---|---|---|---|");
    for asked in [1, 2, 3, 4, 6, 10] {
        let later: Vec<f64> =
            first.iter().zip(&second).filter(|(n, _)| **n == asked).map(|(_, later)| f64::from(*later)).collect();
        if !later.is_empty() {
            let mean = later.iter().sum::<f64>() / later.len() as f64;
            println!("| {asked} | {} | {mean:.2} | {:.2} |", later.len(), sure(f64::from(asked)));
        }
    }
}

fn value(counts: &[u32], key: usize) -> f64 {
    counts.get(key).copied().map_or(0.0, f64::from)
}
