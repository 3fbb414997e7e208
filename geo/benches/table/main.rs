//! The table beside two crates that hold prefixes, with a full routing table: `tests/bench/geo [PREFIX LIST [DUMP]]`.
//!
//! All of it in one run, contestants in turn, medians of rounds: on a busy machine ratios hold where nanoseconds do not. What takes
//! milliseconds is told in time of processors as well, of all threads together: others' work does not count in it.

mod changes;
mod data;
mod dump;
mod lookups;
mod resolving;

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use data::Full;
use flate2::Compression;
use flate2::write::GzEncoder;
use geo::table::{Base, Content, Stamp, Writer};

fn main() {
    // `cargo bench` adds a flag of its own.
    let mut files = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let full = Full::of(files.next().as_deref());
    println!("{} IPv4 and {} IPv6 prefixes\n", full.v4.len(), full.v6.len());
    let mut writer = build_and_load(&full);
    // The others have no base: beside them, neither have we.
    let bare = Writer::build(Content { base: Base::default(), ..full.content() });
    lookups::run(&full, bare.table());
    drop(bare);
    resolving::run(&full, writer.table());
    changes::run(&full, &mut writer);
    if let Some(dump) = files.next() {
        dump::run(&dump);
    }
}

fn build_and_load(full: &Full) -> Writer {
    println!("| table | median of {ROUNDS} | | of processors, ms |\n|---|---|---|---|");
    let content = full.content();
    let mut copies: Vec<_> = (0..ROUNDS).map(|_| content.clone()).collect();
    let mut last = None;
    row("rebuild, ms", || copies.pop().expect("one for each round"), |copy| drop(last.replace(Writer::build(copy))));
    let writer = last.expect("there were rounds");
    row("what a table says, for a rebuild, ms", || (), |()| used(writer.content()));
    let mut bytes = Vec::new();
    row("encode, ms", || (), |()| bytes = writer.encode(&Stamp::default()));
    let mut zipped = Vec::new();
    row(
        "gzip of that, ms",
        || (),
        |()| {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
            gzip.write_all(&bytes).expect("to RAM");
            zipped = gzip.finish().expect("to RAM");
        },
    );
    row("load: decode and build, ms", || (), |()| used(Writer::decode(&bytes).expect("a table")));
    let bare = Writer::build(Content { base: Base::default(), ..content.clone() }).encode(&Stamp::default());
    row("load without a base, ms", || (), |()| used(Writer::decode(&bare).expect("a table")));
    let counts = writer.table().counts();
    println!("| file, bytes | {} | gzip {} |", bytes.len(), zipped.len());
    let prefixes = Writer::build(Content { base: Base::default(), ..content }).table().counts().bytes;
    println!("| RAM of the prefixes, MiB | {:.1} | |", prefixes as f64 / f64::from(1 << 20));
    println!("| RAM with the base, MiB | {:.1} | {counts:?} |\n", counts.bytes as f64 / f64::from(1 << 20));
    writer
}

/// Times `run` on what `prepare` gives.
fn row<T>(what: &str, mut prepare: impl FnMut() -> T, mut run: impl FnMut(T)) {
    let mut of_processors = 0.0;
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let prepared = prepare();
            let (began, used) = (Instant::now(), processor_ms());
            run(prepared);
            of_processors += processor_ms() - used;
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_unstable_by(f64::total_cmp);
    let mean = of_processors / ROUNDS as f64;
    println!("| {what} | {:.1} | {:.1} .. {:.1} | {mean:.0} |", times[ROUNDS / 2], times[0], times[ROUNDS - 1]);
}

/// What this process used so far, in steps of 10 ms (proc_pid_stat(5): utime and stime, in hundredths of a second); 0 where there is no procfs.
fn processor_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    behind_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() * 10.0
}

/// What is computed and not looked at.
fn used<T>(what: T) {
    black_box(what);
}

const ROUNDS: usize = 7;
