//! What it costs to read a block from a device, by block size and way of reading.
//!
//! ```sh
//! cargo bench -p sun --bench device [-- FOLDER]      # FOLDER: on the device to measure; default: the target folder
//! ```
//!
//! For each size: CPU and latency a read (median and 99th percentile), one read at a time, warm and with the file's
//! pages dropped before. CPU is that of all threads of this process, from `/proc/self/task/*/schedstat`; what kernel
//! threads do for them is not in it. `checksum` is crc32c of each 16 KiB, which the store adds to every way.

#![allow(clippy::unwrap_used, reason = "a benchmark ends where it fails")]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, OFlags};
use rustix::io::ReadWriteFlags;

const FILE_BYTES: u64 = 1 << 30;
const READS: u64 = 400;

#[derive(Clone, Copy, PartialEq)]
enum Way {
    NowThenPool,
    Pool,
    DirectPool,
    Uring,
    Checksum,
}

fn main() {
    let folder = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let path = Path::new(folder.as_deref().unwrap_or(env!("CARGO_TARGET_TMPDIR"))).join("device-bench");
    make(&path);
    let buffered = Arc::new(File::open(&path).unwrap());
    rustix::fs::fadvise(&buffered, 0, None, Advice::Random).unwrap();
    let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap();
    let direct = OpenOptions::new().read(true).custom_flags(flags).open(&path).ok().map(Arc::new);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    println!("one read at a time, {READS} reads     CPU us    median us       p99 us");
    for kib in [64, 256, 1024, 4096] {
        for warm in [true, false] {
            for way in [Way::NowThenPool, Way::Pool, Way::DirectPool, Way::Uring, Way::Checksum] {
                let file = if way == Way::DirectPool { direct.clone() } else { Some(Arc::clone(&buffered)) };
                let Some(file) = file else { continue };
                if warm || way != Way::Checksum {
                    runtime.block_on(async move {
                        tokio::spawn(measure(file, kib * 1024, warm, way)).await.unwrap();
                    });
                }
            }
        }
    }
    std::fs::remove_file(&path).unwrap();
}

async fn measure(file: Arc<File>, bytes: u64, warm: bool, way: Way) {
    // 32 MiB are read again and again when warm.
    let span = if warm { 32 << 20 } else { FILE_BYTES };
    let mut ring = io_uring::IoUring::new(8).unwrap();
    if warm && way != Way::DirectPool {
        for at in (0..span).step_by(1 << 20) {
            let _ = read_whole(&file, at, 1 << 20);
        }
    } else {
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }
    let mut took = Vec::new();
    let cpu = cpu();
    for turn in 0..READS.min(if warm { READS } else { span / bytes }) {
        // A stride that visits every block once before any twice.
        let offset = turn * 7919 % (span / bytes) * bytes;
        let began = Instant::now();
        let read = match way {
            Way::NowThenPool => match read_now(&file, offset, bytes) {
                Some(read) => read,
                None => pool(&file, offset, bytes).await,
            },
            Way::Pool => pool(&file, offset, bytes).await,
            Way::DirectPool => direct(&file, offset, bytes).await,
            Way::Uring => uring(&mut ring, &file, offset, bytes),
            Way::Checksum => read_whole(&file, offset, bytes),
        };
        if way == Way::Checksum {
            let began = Instant::now();
            let sum = read.chunks(16 << 10).fold(0, |sum, chunk| sum ^ crc32c::crc32c(chunk));
            std::hint::black_box(sum);
            took.push(began.elapsed());
        } else {
            took.push(began.elapsed());
        }
        std::hint::black_box(read);
    }
    report(bytes, warm, way, self::cpu() - cpu, &mut took);
}

fn report(bytes: u64, warm: bool, way: Way, cpu: Duration, took: &mut [Duration]) {
    took.sort();
    let name = match way {
        Way::NowThenPool => "NOWAIT, then pool",
        Way::Pool => "pool",
        Way::DirectPool => "O_DIRECT, pool",
        Way::Uring => "io_uring, in place",
        Way::Checksum => "checksum",
    };
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let each = if way == Way::Checksum { took.iter().sum() } else { cpu };
    println!(
        "{:>5} KiB {} {name:<20} {:>9.1} {:>12.1} {:>12.1}",
        bytes / 1024,
        if warm { "warm" } else { "cold" },
        us(each) / took.len() as f64,
        us(took[took.len() / 2]),
        us(took[took.len() * 99 / 100])
    );
}

fn read_now(file: &File, offset: u64, bytes: u64) -> Option<Vec<u8>> {
    let mut buffer = vec![0; usize::try_from(bytes).unwrap()];
    let mut slices = [std::io::IoSliceMut::new(&mut buffer)];
    let read = rustix::io::preadv2(file, &mut slices, offset, ReadWriteFlags::NOWAIT).ok()?;
    (read == buffer.len()).then_some(buffer)
}

fn read_whole(file: &File, offset: u64, bytes: u64) -> Vec<u8> {
    let mut buffer = vec![0; usize::try_from(bytes).unwrap()];
    file.read_exact_at(&mut buffer, offset).unwrap();
    buffer
}

async fn pool(file: &Arc<File>, offset: u64, bytes: u64) -> Vec<u8> {
    let file = Arc::clone(file);
    tokio::task::spawn_blocking(move || read_whole(&file, offset, bytes)).await.unwrap()
}

/// Into a part of a buffer that begins at a page, as direct reads ask for.
async fn direct(file: &Arc<File>, offset: u64, bytes: u64) -> Vec<u8> {
    let file = Arc::clone(file);
    let read = move || {
        let mut buffer = vec![0; usize::try_from(bytes).unwrap() + 4096];
        let start = buffer.as_ptr().align_offset(4096);
        file.read_exact_at(&mut buffer[start..start + usize::try_from(bytes).unwrap()], offset).unwrap();
        buffer
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

#[allow(unsafe_code, reason = "the ring takes pointers")]
fn uring(ring: &mut io_uring::IoUring, file: &File, offset: u64, bytes: u64) -> Vec<u8> {
    let mut buffer = vec![0; usize::try_from(bytes).unwrap()];
    let length = u32::try_from(bytes).unwrap();
    let entry = io_uring::opcode::Read::new(io_uring::types::Fd(file.as_raw_fd()), buffer.as_mut_ptr(), length)
        .offset(offset)
        .build();
    // SAFETY: buffer and file outlive the read, which is over when its completion is here.
    unsafe { ring.submission().push(&entry).unwrap() };
    ring.submit_and_wait(1).unwrap();
    assert_eq!(ring.completion().next().unwrap().result().cast_unsigned(), length);
    buffer
}

/// A file of bytes that no filesystem compresses or leaves out.
fn make(path: &Path) {
    let file = File::create(path).unwrap();
    let mut word = 1_u64;
    for at in (0..FILE_BYTES).step_by(1 << 20) {
        let next = |_| {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            word
        };
        let piece: Vec<u8> = (0..1 << 17).map(next).flat_map(u64::to_le_bytes).collect();
        file.write_all_at(&piece, at).unwrap();
    }
    file.sync_all().unwrap();
}

/// CPU time of all threads so far.
fn cpu() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let of = |thread: std::fs::DirEntry| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
    };
    Duration::from_nanos(threads.flatten().map(of).sum())
}
