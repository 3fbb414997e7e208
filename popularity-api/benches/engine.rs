//! What the engine does on one core, and at what size: `tests/bench/popularity`.
//!
//! ```text
//!   --pairs N     pairs of the large table, default 10,000,000, at most 5,000,000 a region; 100,000,000 take 4 GB
//!                 and about 7 while they are read from their snapshot
//!   --alone       the large table alone
//!   --beside      no large table: the rates alone, and those of redb and of a Redis Cluster
//! ```
//!
//! Names are 40 bytes long, batches have 1,000 entries: what suns send. Of the large table every file is rated by four
//! regions. Rates and milliseconds are the best of three runs, in CPU time of their thread, so that a busy machine
//! says the same as an idle one; what waits for the disk or for others is in seconds of the clock, and marked.
//! Figures are lines of Markdown; progress goes to the standard error.

#[expect(unreachable_pub, unused_imports, reason = "the tests use all of it")]
#[path = "../../tests/src/addresses.rs"]
mod addresses;
#[path = "beside/redis.rs"]
mod beside;
#[expect(dead_code, unreachable_pub, reason = "the tests use all of it")]
#[path = "../../tests/src/redis_cluster.rs"]
mod redis_cluster;

use std::collections::HashSet;
use std::hint::black_box;
use std::io::Write;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use geo::RegionId;
use popularity_api::encoding::{self, Encoding};
use popularity_api::engine::batch::{Batch, Entry, Group};
use popularity_api::engine::decay::{Decay, LANDMARK_MS, Rating};
use popularity_api::engine::folder::{Disk, Folder};
use popularity_api::engine::journal::Journal;
use popularity_api::engine::snapshot;
use popularity_api::engine::table::{Bytes, Mark, Table};
use popularity_api::wire::{Download, DownloadsBatch};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let pairs = match arguments.iter().position(|argument| argument == "--pairs") {
        Some(at) => {
            arguments.get(at + 1).ok_or_else(|| anyhow::anyhow!("--pairs N"))?.replace(['_', ','], "").parse()?
        }
        None => 10_000_000,
    };
    println!("| what | figure |\n|---|---|");
    let asked = |option: &str| arguments.iter().any(|argument| argument == option);
    if !asked("--beside") {
        large(pairs)?;
    }
    if asked("--alone") { Ok(()) } else { rates() }
}

/// Reports of a million files, each as often as Zipf's law says.
fn rates() -> anyhow::Result<()> {
    let mut groups = zipf_groups();
    per_second("pair updates, new and known files", UPDATES, || {
        let mut table = empty();
        groups.iter().for_each(|group| table.apply(group));
        table
    });
    let mut table = empty();
    groups.iter().for_each(|group| table.apply(group));
    per_second("pair updates, known files", UPDATES, || {
        for group in &mut groups {
            group.batches.iter_mut().for_each(|batch| batch.mark.boot += 1);
            table.apply(group);
        }
    });
    let bodies: Vec<Vec<u8>> =
        groups.iter().take(1000).map(|group| json(&group.batches[0])).collect::<Result<_, _>>()?;
    let mut boot = 1_000_000;
    per_second(
        "pair updates, known files, from JSON as suns send it, parsed and not checked against a topology",
        bodies.len() * PER_BATCH,
        || {
            boot += 1;
            for (sequence, body) in (1..).zip(&bodies) {
                table.apply(&parsed(body, Mark { boot, sequence }));
            }
            table.mark("sun4-1-1")
        },
    );
    packed(&bodies, &mut table)?;
    redb(&groups)?;
    beside::redis(&groups)?;
    binlog(&groups)
}

/// The same bodies packed: what the API does with a body before and until it is counted, and what a server does to send it.
fn packed(bodies: &[Vec<u8>], table: &mut Table) -> anyhow::Result<()> {
    let gzip = |body: &Vec<u8>| -> std::io::Result<Vec<u8>> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(body)?;
        encoder.finish()
    };
    let gzipped: Vec<Vec<u8>> = bodies.iter().map(gzip).collect::<Result<_, _>>()?;
    let zstd: Vec<Vec<u8>> = bodies.iter().map(|body| encoding::pack(body)).collect::<Result<_, _>>()?;
    let updates = bodies.len() * PER_BATCH;
    let mut boot = 2_000_000;
    for (name, how, packed) in [("zstd", Encoding::Zstd, &zstd), ("gzip", Encoding::Gzip, &gzipped)] {
        per_second(&format!("pair updates, known files, from JSON packed with {name}"), updates, || {
            boot += 1;
            for (sequence, body) in (1..).zip(packed) {
                let json = how.unpack(body, 32 << 20, |_| true).expect("it was packed above");
                table.apply(&parsed(&json, Mark { boot, sequence }));
            }
            table.mark("sun4-1-1")
        });
    }
    per_second("downloads packed with zstd by who reports them", updates, || {
        bodies.iter().map(|body| encoding::pack(body).map_or(0, |packed| packed.len())).sum::<usize>()
    });
    let per_update = |bodies: &[Vec<u8>]| bodies.iter().map(Vec::len).sum::<usize>() as f64 / updates as f64;
    for (name, bodies) in [("JSON", bodies), ("JSON, zstd", &zstd), ("JSON, gzip", &gzipped)] {
        println!("| on the wire per pair update, {name} | {:.1} bytes |", per_update(bodies));
    }
    Ok(())
}

/// The same as a table of redb: name to two numbers, a transaction for 10,000 updates, not even written to disk.
fn redb(groups: &[Group]) -> anyhow::Result<()> {
    use redb::ReadableTable;
    let ratings = redb::TableDefinition::<&str, (f64, f64)>::new("ratings");
    let place = tempfile::tempdir()?;
    let database = redb::Database::create(place.path().join("ratings"))?;
    let decay = Decay::new(3600, 172_800, 0.25).expect("the defaults are sound");
    let mut took = [Duration::ZERO; 2];
    for round in &mut took {
        let began = cpu_time();
        for groups in groups[..400].chunks(10) {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(redb::Durability::None)?;
            {
                let mut table = transaction.open_table(ratings)?;
                for group in groups {
                    let pulse = decay.at(group.time_ms);
                    for entry in &group.batches[0].entries {
                        let known = table.get(&*entry.file)?.map(|known| known.value());
                        let mut rating = known.map_or(Rating::NONE, |(hour, days)| Rating { hour, days });
                        pulse.add(&mut rating, entry.downloads);
                        table.insert(&*entry.file, (rating.hour, rating.days))?;
                    }
                }
            }
            transaction.commit()?;
        }
        *round = cpu_time() - began;
    }
    println!("| redb: pair updates, new and known files, without durability | {:.2} M/s |", rate(400_000, took[0]));
    println!("| redb: pair updates, known files, without durability | {:.2} M/s |", rate(400_000, took[1]));
    Ok(())
}

/// Writes the groups to a binlog of a real folder and starts from it.
fn binlog(groups: &[Group]) -> anyhow::Result<()> {
    let place = tempfile::tempdir()?;
    let folder: Arc<dyn Folder> = Arc::new(Disk::open(place.path())?);
    let (mut journal, ..) = Journal::open(Arc::clone(&folder), empty)?;
    let began = Instant::now();
    for group in groups {
        journal.commit(group)?;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "| pair updates into the binlog, one sync per {PER_BATCH}, clock | {:.2} M/s |",
        millions(UPDATES) / seconds
    );
    println!("| binlog per pair update | {} bytes |", journal.end() / UPDATES as u64);
    drop(journal);
    let began = cpu_time();
    let (.., recovered) = Journal::open(folder, empty)?;
    let seconds = (cpu_time() - began).as_secs_f64();
    anyhow::ensure!(recovered.groups == groups.len() as u64, "{recovered:?}");
    println!("| pair updates recovered from the binlog | {:.2} M/s |", millions(UPDATES) / seconds);
    Ok(())
}

/// A table of so many pairs, and what is asked of it.
fn large(pairs: usize) -> anyhow::Result<()> {
    let regions = pairs.div_ceil(PER_REGION).max(4);
    let before = resident_bytes();
    let mut table = empty();
    let (mut applying, mut slowest) = (Duration::ZERO, Duration::ZERO);
    let files = pairs / RATED_BY;
    let mut done = 0;
    while done < files {
        let group = filling(done, files.min(done + 2500), regions);
        let began = cpu_time();
        table.apply(&group);
        let took = cpu_time() - began;
        applying += took;
        slowest = slowest.max(took);
        done = files.min(done + 2500);
        if done % 1_000_000 < 2500 {
            eprintln!("{done} of {files} files, {:.0} s", applying.as_secs_f64());
        }
    }
    let count: usize = table.pairs().map(|(_, pairs)| pairs).sum();
    println!("| pairs of the large table | {count} in {regions} regions, {} files |", table.file_count());
    println!("| filled with | {:.2} M/s, 10,000 at once in at most {:.1} ms |", rate(count, applying), ms(slowest));
    memory(&table, count, resident_bytes().saturating_sub(before));
    let mut updates: Vec<Group> = (0..100).map(|n| asked_again(n, files, regions)).collect();
    per_second("pair updates, anywhere in it", updates.len() * 10_000, || {
        for group in &mut updates {
            group.batches[0].mark.boot += 1;
            table.apply(group);
        }
    });
    questions(&mut table)?;
    snapshots(table, &updates)
}

fn memory(table: &Table, count: usize, resident: usize) {
    let Bytes { pairs, names, index } = table.bytes();
    let per = |bytes: usize, count: usize| bytes as f64 / count as f64;
    println!("| RAM per pair | {:.1} bytes |", per(pairs, count));
    let files = table.file_count();
    let name = name(0).len();
    println!("| RAM per file | {:.1} bytes, of which {name} are its name |", per(names + index, files));
    println!(
        "| RAM, as accounted / as the system sees it | {} / {} MB |",
        (pairs + names + index) >> 20,
        resident >> 20
    );
}

/// What the API asks of the table.
fn questions(table: &mut Table) -> anyhow::Result<()> {
    let region = RegionId(2);
    milliseconds("top 1,000 of a region", || table.top(region, 1000).len());
    milliseconds("best 10,000 of a region by rating / size^0.5", || table.best(region, 0.5, 10_000, |_| true).len());
    let million = table.best(region, 0.5, 1_000_000, |_| true);
    let held: HashSet<u64> = million.iter().map(|ranked| ranked.file.content.prefix()).collect();
    let wanted = || table.best(region, 0.5, 10_000, |file| !held.contains(&file.content.prefix())).len();
    milliseconds(&format!("the same, {} files held", held.len()), wanted);
    let names: Vec<String> = million.iter().map(|ranked| ranked.file.name.to_owned()).collect();
    let mut marked = |name: &String| table.note_held(region, "cache2-1", name, true);
    anyhow::ensure!(names.iter().filter(|name| marked(name)).count() == names.len());
    let table = &*table;
    let carried = || {
        let carried = table.carried(region, "cache2-1", 0.5, 10_000, |file, _| !held.contains(&file.content.prefix()));
        carried.best.len() + carried.held.len()
    };
    milliseconds("the same when that is noted, with the scores of what is held, no names", carried);
    let told = || {
        let carried = table.carried(region, "cache2-1", 0.5, 10_000, |file, _| !held.contains(&file.content.prefix()));
        let best: Vec<(&str, u64, f64)> =
            carried.best.iter().map(|one| (one.file.name, one.file.size, one.score)).collect();
        let scores: Vec<(&str, f64)> = carried.held.iter().map(|held| (table.name(held), held.score)).collect();
        serde_json::to_vec(&(best, scores)).map_or(0, |json| json.len())
    };
    milliseconds("the same with all names, written as JSON", told);
    let scores = || names.iter().filter_map(|name| table.score(region, name, 0.5)).count();
    milliseconds(&format!("scores of {} files by name", names.len()), scores);
    Ok(())
}

/// A snapshot while groups come, and starts from it.
fn snapshots(table: Table, updates: &[Group]) -> anyhow::Result<()> {
    let place = tempfile::tempdir_in(std::env::var_os("BENCH_FOLDER").map_or_else(std::env::temp_dir, Into::into))?;
    let folder: Arc<dyn Folder> = Arc::new(Disk::open(place.path())?);
    let count: usize = table.pairs().map(|(_, pairs)| pairs).sum();
    let table = Arc::new(RwLock::new(table));
    let (shared, disk) = (Arc::clone(&table), Arc::clone(&folder));
    let began = Instant::now();
    let writing = std::thread::spawn(move || snapshot::write_shared(&*disk, &shared, 0, LANDMARK_MS));
    let (mut slowest, mut groups) = (Duration::ZERO, 0);
    for group in updates.iter().cycle() {
        if writing.is_finished() {
            break;
        }
        let mut group = group.clone();
        group.batches[0].mark.boot = 70 + groups;
        let began = Instant::now();
        table.write().unwrap_or_else(std::sync::PoisonError::into_inner).apply(&group);
        slowest = slowest.max(began.elapsed());
        groups += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    writing.join().map_err(|_| anyhow::anyhow!("the snapshot's thread panicked"))??;
    println!("| snapshot, written and synced, clock | {:.1} s |", began.elapsed().as_secs_f64());
    println!("| meanwhile {groups} groups of 10,000, the slowest, clock | {:.1} ms |", ms(slowest));
    let bytes = std::fs::metadata(place.path().join(snapshot::name(0)))?.len();
    println!("| snapshot per pair, names included | {} bytes |", bytes / count as u64);
    drop(table);
    let began = (Instant::now(), cpu_time());
    let (_, table, recovered) = Journal::open(folder, empty)?;
    anyhow::ensure!(recovered.snapshot == Some(0), "{recovered:?}");
    let (clock, cpu) = (began.0.elapsed().as_secs_f64(), (cpu_time() - began.1).as_secs_f64());
    println!("| recovered from the snapshot, clock / CPU | {clock:.1} / {cpu:.1} s |");
    let found: usize = table.pairs().map(|(_, pairs)| pairs).sum();
    anyhow::ensure!(found >= count, "{found} of {count}");
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
    let began = cpu_time();
    black_box(run());
    (cpu_time() - began).as_secs_f64()
}

/// What this thread has had of a processor (Documentation/scheduler/sched-stats.rst of Linux: the first number,
/// nanoseconds).
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(stat.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0))
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn rate(count: usize, took: Duration) -> f64 {
    millions(count) / took.as_secs_f64()
}

fn millions(count: usize) -> f64 {
    count as f64 / 1e6
}

/// RAM of this process that is in use.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn empty() -> Table {
    Table::new(Decay::new(3600, 172_800, 0.25).expect("the defaults are sound"), PER_REGION)
}

/// All updates of the first part, the same in every run.
fn zipf_groups() -> Vec<Group> {
    let mut state = 1_u64;
    (0..UPDATES / PER_BATCH)
        .map(|n| {
            let entries = (0..PER_BATCH).map(|_| zipf_entry(&mut state)).collect();
            group(n as u64, entries)
        })
        .collect()
}

fn group(n: u64, entries: Vec<Entry>) -> Group {
    let mark = Mark { boot: 1, sequence: n + 1 };
    let batch = Batch { source: "sun4-1-1".to_owned(), mark, entries };
    Group { time_ms: LANDMARK_MS + n * 200, batches: vec![batch] }
}

/// A file whose rank is log-uniform, which is Zipf's law with exponent 1.
fn zipf_entry(state: &mut u64) -> Entry {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let uniform = (*state >> 11) as f64 / (1_u64 << 53) as f64;
    let rank = (FILES as f64).powf(uniform) as u64;
    Entry { region: RegionId(4), file: name(rank).into(), size: 2000 + rank % 1_000_000, downloads: 1.0 }
}

/// Some files' first reports, each from four regions.
fn filling(from: usize, to: usize, regions: usize) -> Group {
    let entries = (from..to).flat_map(|file| (0..RATED_BY).map(move |nth| entry(file as u64, nth, regions)));
    let mut group = group(from as u64, entries.collect());
    group.time_ms = LANDMARK_MS + from as u64;
    group
}

/// 10,000 reports of files anywhere in the table.
fn asked_again(n: u64, files: usize, regions: usize) -> Group {
    let file = |at: u64| spread(n * 10_000 + at) % files as u64;
    let mut group = group(n, (0..10_000).map(|at| entry(file(at), (at % 4) as usize, regions)).collect());
    group.batches[0].mark.boot = 2;
    group.time_ms = LANDMARK_MS + 3_600_000 + n * 200;
    group
}

/// How popular and how large a file is, is the same in all regions, and says nothing of when it is first seen.
fn entry(file: u64, nth: usize, regions: usize) -> Entry {
    let uniform = |salt: u64| ((spread(file ^ (salt << 40)) >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
    let downloads = (1.0 / uniform(1)).powf(0.9).min(1e6);
    let size = (10.0 + 16.0 * uniform(2)).exp2() as u64;
    let region = RegionId(((file as usize + nth * (regions / RATED_BY)) % regions) as u16);
    Entry { region, file: name(file).into(), size, downloads }
}

fn name(file: u64) -> String {
    format!("c{}/photos/{:016x}/{file:08}.jpg", file % 100 + 1, spread(file))
}

fn spread(n: u64) -> u64 {
    let mixed = (n ^ (n >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (mixed >> 32)
}

/// The batch as a sun sends it.
fn json(batch: &Batch) -> serde_json::Result<Vec<u8>> {
    let download = |entry: &Entry| Download {
        region: entry.region,
        file: entry.file.to_string(),
        size: entry.size,
        downloads: entry.downloads,
        bytes: entry.size,
    };
    let downloads = batch.entries.iter().map(download).collect();
    serde_json::to_vec(&DownloadsBatch { source: batch.source.clone(), boot: 1, sequence: 1, age_ms: 0, downloads })
}

/// A body as the table is given it.
fn parsed(body: &[u8], mark: Mark) -> Group {
    let batch: DownloadsBatch = serde_json::from_slice(body).expect("it was written above");
    let entry = |one: Download| Entry {
        region: one.region,
        file: one.file.into_boxed_str(),
        size: one.size,
        downloads: one.downloads,
    };
    let entries = batch.downloads.into_iter().map(entry).collect();
    let mut group = group(1, entries);
    group.batches[0].mark = mark;
    group
}

const FILES: u64 = 1_000_000;
const UPDATES: usize = 4_000_000;
const PER_BATCH: usize = 1000;
const PER_REGION: usize = 5_000_000;
const RATED_BY: usize = 4;
