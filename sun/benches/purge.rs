//! What purges cost: `cargo bench -p sun --bench purge`.
//!
//! A million small files with one tag in the RAM tier; the tag is purged while lookups go on. A lookup is what a hit
//! does: the tier's head, then what purges say of it. Every figure is a line of Markdown.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use geo::{CanonicalName, RegionId};
use http::HeaderMap;
use popularity_api::purge::log::Log;
use popularity_api::purge::target::tag_hash;
use popularity_api::wire::{Purge, PurgeLog, PurgeMode, PurgeRequest, PurgeWhat};
use sun::meta::Meta;
use sun::purge::{Mark, Purges, Subject, Verdict};
use sun::ram::Ram;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FILES: usize = 1_000_000;
const RULES: u64 = 200_000;

fn main() -> anyhow::Result<()> {
    println!("| what | figure |\n|---|---|");
    let place = tempfile::tempdir()?;
    let purges = Arc::new(Purges::open(place.path(), RegionId(4))?);
    let names: Vec<CanonicalName> = (0..FILES)
        .map(|number| CanonicalName::parse(&format!("c1/photos/{}/{number}.jpg", number % 97)))
        .collect::<Result<_, _>>()?;
    let ram = filled(&names);
    verdicts(&purges, &names[0], "no rules");
    lookups(&ram, &purges, &names, "before any purge", &AtomicBool::new(false));
    tag(&ram, &purges, &names)?;
    for first in (2..RULES).step_by(1000) {
        purges.follow(&answer((first..first + 1000).map(file)))?;
    }
    verdicts(&purges, &names[0], "200,000 rules");
    accepting(place.path())
}

/// The tag of all files is purged while a thread looks files up.
fn tag(ram: &Ram, purges: &Arc<Purges>, names: &[CanonicalName]) -> anyhow::Result<()> {
    let stop = AtomicBool::new(false);
    let (visible, done) = std::thread::scope(|scope| -> anyhow::Result<(Duration, Duration)> {
        let load = scope.spawn(|| lookups(ram, purges, names, "while a tag of a million files is purged", &stop));
        std::thread::sleep(Duration::from_millis(500));
        let began = Instant::now();
        let seen = scope.spawn(move || {
            let tags = [tag_hash("everything")];
            let subject = Subject { name: names[7].as_str(), content: names[7].content_id(), tags: &tags };
            while purges.verdict(subject, Mark::default()) != Verdict::Gone {
                std::hint::spin_loop();
            }
            began.elapsed()
        });
        let mut purge = file(1);
        (purge.what, purge.value) = (PurgeWhat::Tag, "everything".to_owned());
        purges.follow(&answer(std::iter::once(purge)))?;
        let done = began.elapsed();
        let visible = seen.join().expect("it only looks");
        std::thread::sleep(Duration::from_millis(500));
        stop.store(true, Ordering::Relaxed);
        load.join().expect("it only looks");
        Ok((visible, done))
    })?;
    println!("| a million files purged by tag: visible after | {visible:?} |");
    println!("| durable, so acknowledged, after | {done:?} |");
    Ok(())
}

/// Looks files up for a second, or until told to stop; prints quantiles of one lookup.
fn lookups(ram: &Ram, purges: &Purges, names: &[CanonicalName], what: &str, stop: &AtomicBool) {
    let (mut times, began) = (Vec::with_capacity(4_000_000), Instant::now());
    let mut found = 0_usize;
    for index in (0..).map(|step: usize| step.wrapping_mul(7919) % names.len()) {
        let name = &names[index];
        let content = name.content_id();
        let at = Instant::now();
        let head = ram.head(content);
        let current = head.is_some_and(|head| purges.of(name, content, head.meta()) == Verdict::Current);
        times.push(at.elapsed());
        found += usize::from(current);
        if stop.load(Ordering::Relaxed) || began.elapsed() > Duration::from_secs(2) {
            break;
        }
    }
    times.sort_unstable();
    let quantile = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "| {} lookups {what} ({} % current): p50, p99, p99.9, most | {:?}, {:?}, {:?}, {:?} |",
        times.len(),
        100 * found / times.len(),
        quantile(0.5),
        quantile(0.99),
        quantile(0.999),
        quantile(1.0)
    );
}

/// One verdict, of a copy that nothing is newer than and of the oldest one.
fn verdicts(purges: &Purges, name: &CanonicalName, rules: &str) {
    let tags: Vec<u64> = (0..3).map(|number| tag_hash(&number.to_string())).collect();
    let subject = Subject { name: name.as_str(), content: name.content_id(), tags: &tags };
    for (copy, mark) in [("of a new copy", purges.mark()), ("of an old copy", Mark::default())] {
        let began = Instant::now();
        for _ in 0..ROUNDS {
            black_box(purges.verdict(black_box(subject), black_box(mark)));
        }
        println!("| verdict {copy}, {rules}, 3 tags, 4 segments | {:?} |", began.elapsed() / ROUNDS);
    }
}

/// The API's side: from the post to durable.
fn accepting(place: &std::path::Path) -> anyhow::Result<()> {
    let log = Log::open(&place.join("log"), 1, 1 << 18)?;
    let mut times = Vec::new();
    for number in 0..500 {
        let Purge { what, value, mode, region, .. } = file(number);
        let request = PurgeRequest { id: format!("id-{number}"), what, value, mode, region };
        let began = Instant::now();
        log.post(request, 0)?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    println!("| accepted by the log (one fdatasync): p50, p99 | {:?}, {:?} |", times[250], times[495]);
    Ok(())
}

fn filled(names: &[CanonicalName]) -> Ram {
    let ram = Ram::new(8 << 30);
    let meta = Meta::new(&HeaderMap::new(), Some(16), 0, u64::MAX, 2);
    let meta = Arc::new(Meta { tags: [tag_hash("everything")].into(), ..meta });
    for name in names {
        ram.keep_small(name.content_id(), Arc::clone(&meta), Bytes::from_static(&[7; 16]));
    }
    ram
}

fn file(sequence: u64) -> Purge {
    Purge {
        sequence,
        at_ms: 0,
        id: format!("id-{sequence}"),
        what: PurgeWhat::File,
        value: format!("c9/other/{sequence}.jpg"),
        mode: PurgeMode::Hard,
        region: None,
    }
}

fn answer(purges: impl Iterator<Item = Purge>) -> PurgeLog {
    let purges: Vec<Purge> = purges.collect();
    PurgeLog { latest: purges.last().map_or(0, |purge| purge.sequence), floor: None, purges }
}

const ROUNDS: u32 = 10_000_000;
