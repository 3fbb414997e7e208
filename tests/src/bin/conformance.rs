//! The score of a sun in the public conformance suite for HTTP caches; `tests/conformance` starts it.
//!
//! ```text
//!   conformance                      the npm package, beside the baseline
//!   conformance --update             ... and the baseline becomes what was found
//!   conformance --suite DIR          a checkout of http-tests/cache-tests: its score
//!   conformance ... ID...            these tests alone, one line each
//! ```
//!
//! Published results of the suite's current version, for comparison (required of 160, optimal of 105): Apache Traffic
//! Server 9.2.5 134 and 72; all 13 measured proxies together 155 and 88.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use tests::conformance::{self, Baseline, Bench, Suite};

fn main() -> anyhow::Result<ExitCode> {
    let (mut update, mut folder, mut ids) = (false, None, BTreeSet::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--update" => update = true,
            "--suite" => folder = arguments.next().map(PathBuf::from),
            other if other.starts_with('-') => bail!("usage: conformance [--update] [--suite DIR] [ID...]"),
            id => drop(ids.insert(id.to_owned())),
        }
    }
    if update && (folder.is_some() || !ids.is_empty()) {
        bail!("--update is for all tests of the package");
    }
    let suite = folder.as_deref().map_or_else(Suite::package, Suite::at)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(suite, folder.is_none() && ids.is_empty(), update, &ids))
}

async fn run(suite: Suite, whole_package: bool, update: bool, ids: &BTreeSet<String>) -> anyhow::Result<ExitCode> {
    let bench = Bench::start(suite).await?;
    let baseline = match Baseline::load() {
        _ if !whole_package => Baseline::default(),
        Err(_) if update => Baseline::default(),
        other => other?,
    };
    if !ids.is_empty() {
        for test in conformance::judge(&bench.run(ids).await?) {
            println!("{:<10} {:?} {}", test.verdict, test.kind, test.id);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let judged = conformance::run_against(&bench, &baseline).await?;
    for test in judged.iter().filter(|test| test.verdict != conformance::Verdict::Pass) {
        println!("{:<10} {:?} {}", test.verdict, test.kind, test.id);
    }
    print!("\n{}", conformance::score(&judged));
    if !whole_package {
        return Ok(ExitCode::SUCCESS);
    }
    let found = baseline.compare(&judged);
    for (what, ids) in [("fallen", &found.fallen), ("risen", &found.risen), ("gone", &found.gone)] {
        for id in ids {
            println!("{what}: {id}");
        }
    }
    if update {
        std::fs::write(Baseline::file(), Baseline::of(&judged).render())?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(if found.fallen.is_empty() && found.gone.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
