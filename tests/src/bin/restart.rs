//! The two processes of `tests/bench/restart`: one fills a store until it is killed, the other opens what is left.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use bytes::Bytes;
use geo::ContentId;
use sun::store::policy::Settings;
use sun::store::{Offered, Store, StoreConfig};

/// Body of a small file: with its metadata 1,280 bytes in the log.
const BODY_BYTES: usize = 1000;
const META_BYTES: usize = 200;
const RECORD_BYTES: u64 = 1280;

fn main() -> anyhow::Result<()> {
    let began = Instant::now();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, folder, count] = arguments.as_slice() else { bail!("fill|probe FOLDER COUNT") };
    let count: u64 = count.parse().context("COUNT")?;
    match mode.as_str() {
        "fill" => fill(Path::new(folder), count),
        "probe" => probe(Path::new(folder), count, began),
        other => bail!("{other}: fill or probe"),
    }
}

fn open(folder: &Path, count: u64) -> anyhow::Result<Store> {
    // Room for them, their tables (48 bytes each), and the segments that are kept free.
    let bytes = count * (RECORD_BYTES + 48) / 100 * 103 + (128 << 20);
    let config = StoreConfig { path: folder.to_owned(), bytes };
    Store::open(&[config], Settings::default(), &prometheus::Registry::new())
}

/// Offers files in order, and tells every 10 ms how far it is: `milliseconds-since-1970 offered`.
fn fill(folder: &Path, count: u64) -> anyhow::Result<()> {
    let store = open(folder, count)?;
    let (meta, mut out) = (Bytes::from(vec![7; META_BYTES]), std::io::stdout());
    let mut told = Instant::now();
    for number in 0.. {
        let body = body(number);
        while store.offer_head(content(number), 1, meta.clone(), body.clone()) != Offered::Stored {
            std::thread::sleep(Duration::from_millis(1));
        }
        if number == count {
            writeln!(out, "full")?;
        }
        if told.elapsed() >= Duration::from_millis(10) {
            told = Instant::now();
            writeln!(out, "{} {number}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
        }
        if number > count {
            // Some thousand a second, as a busy sun admits.
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    Ok(())
}

fn probe(folder: &Path, count: u64, began: Instant) -> anyhow::Result<()> {
    let offered = offered()?;
    let (_, last) = *offered.last().context("nothing was offered")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let store = open(folder, count)?;
    println!("store open, offers are taken   {:8.3} s", began.elapsed().as_secs_f64());
    let mut hit = None;
    while hit.is_none() {
        // Files of all ages, as requests come; the second half of the log is surely there.
        let number = last - u64::from(rand()) % (count / 2);
        let found = runtime.block_on(async { store.head(content(number)).wait().await });
        if let Some(head) = found {
            anyhow::ensure!(head.body == body(number), "wrong bytes of {number}");
            hit = Some(began.elapsed());
        }
    }
    println!("first hit                      {:8.3} s", hit.unwrap_or_default().as_secs_f64());
    while !store.ready() {
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("whole index                    {:8.3} s", began.elapsed().as_secs_f64());
    let entries = store.entries();
    println!("entries                        {entries:8}");
    println!("RAM of the index               {:8.1} bytes an entry", store.index_bytes() as f64 / entries as f64);
    println!("resident memory                {:8.1} bytes an entry", resident()? as f64 / entries as f64);
    tell_lost(&store, &offered, last);
    let began = Instant::now();
    let mut right = 0;
    for turn in 0..1000_u64 {
        let number = last - count / 2 + turn * (count / 2500);
        let found = runtime.block_on(async { store.head(content(number)).wait().await });
        right += u64::from(found.is_some_and(|head| head.body == body(number)));
    }
    println!("cold reads, right              {right:8} of 1000, {:.0} us each", began.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

/// What was offered in the last seconds and is not there.
fn tell_lost(store: &Store, offered: &[(u64, u64)], last: u64) {
    let is_lost = |number: &u64| !store.has_head(content(*number));
    let recent = last.saturating_sub(100_000)..=last;
    let lost: Vec<u64> = recent.filter(is_lost).collect();
    let at_ms = |number: u64| offered.iter().find(|(_, told)| *told >= number).map_or(0, |(at_ms, _)| *at_ms);
    let span_ms = lost.first().map_or(0, |first| at_ms(last) - at_ms(*first));
    println!("lost of the last 100,000       {:8}, offered within the last {span_ms} ms", lost.len());
}

/// The lines of [`fill`]: milliseconds since 1970, and the number offered by then.
fn offered() -> anyhow::Result<Vec<(u64, u64)>> {
    let mut offered = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if let Some((at_ms, number)) = line.split_once(' ')
            && let (Ok(at_ms), Ok(number)) = (at_ms.parse(), number.parse())
        {
            offered.push((at_ms, number));
        }
    }
    Ok(offered)
}

fn content(number: u64) -> ContentId {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let bytes = [number.to_le_bytes(), (mixed ^ (mixed >> 29)).to_le_bytes()].concat();
    ContentId::from_bytes(bytes.try_into().unwrap_or_default())
}

fn body(number: u64) -> Bytes {
    let mut bytes = vec![number.to_le_bytes()[0]; BODY_BYTES];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes.into()
}

fn rand() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.subsec_nanos().wrapping_mul(2_654_435_761)
}

fn resident() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? * 1024)
}
