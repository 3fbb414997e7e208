//! What the engine does in a second, on one core: `cargo bench -p popularity-api`.
//!
//! Names are 40 bytes long, downloads follow a Zipf-like choice among a million files, batches have 1,000 entries:
//! what suns send. Every figure is the best of three runs, printed as a line of Markdown.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use geo::RegionId;
use popularity_api::engine::batch::{Batch, Entry, Group};
use popularity_api::engine::decay::{Decay, LANDMARK_MS};
use popularity_api::engine::folder::{Disk, Folder};
use popularity_api::engine::journal::Journal;
use popularity_api::engine::snapshot;
use popularity_api::engine::table::{Mark, Table};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let mut groups = groups();
    println!("| what | figure |\n|---|---|");
    per_second("pair updates of new and known files, from decoded batches", UPDATES, || {
        let mut table = empty();
        groups.iter().for_each(|group| table.apply(group));
        table
    });
    let mut table = empty();
    groups.iter().for_each(|group| table.apply(group));
    per_second("pair updates of known files", UPDATES, || {
        for group in &mut groups {
            group.batches.iter_mut().for_each(|batch| batch.mark.boot += 1);
            table.apply(group);
        }
    });
    let pairs: usize = table.pairs().map(|(_, pairs)| pairs).sum();
    println!("| pairs in the table | {pairs} |");
    milliseconds("top 1,000 of them", || table.top(RegionId(4), 1000).len());
    milliseconds("best 10,000 by rating / size^0.5", || table.best(RegionId(4), 0.5, 10_000, |_| true).len());
    milliseconds("snapshot, encoded", || snapshot::write(&table, 0, 0).len());
    recovery(&groups)
}

/// Writes the groups to a binlog of a real folder and starts from it.
fn recovery(groups: &[Group]) -> anyhow::Result<()> {
    let place = tempfile::tempdir()?;
    let folder: Arc<dyn Folder> = Arc::new(Disk::open(place.path())?);
    let (mut journal, ..) = Journal::open(Arc::clone(&folder), empty)?;
    let began = Instant::now();
    for group in groups {
        journal.commit(group)?;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("| pair updates into the binlog, one sync per {PER_BATCH} | {:.2} M/s |", millions(UPDATES) / seconds);
    println!("| binlog per pair update | {} bytes |", journal.end() / UPDATES as u64);
    drop(journal);
    let began = Instant::now();
    let (.., recovered) = Journal::open(folder, empty)?;
    let seconds = began.elapsed().as_secs_f64();
    anyhow::ensure!(recovered.groups == groups.len() as u64, "{recovered:?}");
    println!("| pair updates recovered from the binlog | {:.2} M/s |", millions(UPDATES) / seconds);
    Ok(())
}

fn per_second<T>(what: &str, count: usize, mut run: impl FnMut() -> T) {
    let best = (0..3).map(|_| seconds(&mut run)).fold(f64::INFINITY, f64::min);
    println!("| {what} | {:.2} M/s |", millions(count) / best);
}

fn milliseconds<T>(what: &str, mut run: impl FnMut() -> T) {
    let best = (0..3).map(|_| seconds(&mut run)).fold(f64::INFINITY, f64::min);
    println!("| {what} | {:.1} ms |", best * 1000.0);
}

fn seconds<T>(run: &mut impl FnMut() -> T) -> f64 {
    let began = Instant::now();
    black_box(run());
    began.elapsed().as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "a figure to print")]
fn millions(count: usize) -> f64 {
    count as f64 / 1e6
}

fn empty() -> Table {
    Table::new(Decay::new(3600, 172_800, 0.25).expect("the defaults are sound"), 5_000_000)
}

/// All updates, the same in every run.
fn groups() -> Vec<Group> {
    let mut state = 1_u64;
    (0..UPDATES / PER_BATCH)
        .map(|n| {
            let entries = (0..PER_BATCH).map(|_| entry(&mut state)).collect();
            let mark = Mark { boot: 1, sequence: n as u64 + 1 };
            let batch = Batch { source: "sun4-1-1".to_owned(), mark, entries };
            Group { time_ms: LANDMARK_MS + n as u64 * 200, batches: vec![batch] }
        })
        .collect()
}

/// A file whose rank is log-uniform, which is Zipf's law with exponent 1.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
fn entry(state: &mut u64) -> Entry {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let uniform = (*state >> 11) as f64 / (1_u64 << 53) as f64;
    let rank = (FILES as f64).powf(uniform) as u64;
    let file = format!("c{}/photos/{:016x}/{rank:08}.jpg", rank % 100 + 1, rank.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    Entry { region: RegionId(4), file: file.into(), size: 2000 + rank % 1_000_000, downloads: 1.0 }
}

const FILES: u64 = 1_000_000;
const UPDATES: usize = 4_000_000;
const PER_BATCH: usize = 1000;
