//! What noticing hot files costs a request: `cargo bench -p sun --bench hot`. Prints nanoseconds, best of five runs.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use geo::{CanonicalName, ContentId};
use sun::hot::detector::{Detector, Window};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let names: Vec<(ContentId, Arc<str>)> = (0..FILES).map(|file| named(&format!("c1/photos/{file}.jpg"))).collect();
    let stream = zipf();
    println!("| what | ns |\n|---|---|");
    let detector = Detector::new(1);
    figure("a request, Zipf 1.0 over 200,000 files, exchanged every 20,000", stream.len(), || {
        for (number, &file) in stream.iter().enumerate() {
            let (content, name) = &names[file];
            detector.requested(*content, || Arc::clone(name));
            if number % 20_000 == 0 {
                black_box(detector.take());
            }
        }
    });
    figure("the same without the exchange", stream.len(), || {
        for &file in &stream {
            let (content, name) = &names[file];
            detector.requested(*content, || Arc::clone(name));
        }
    });
    let _ = detector.take();
    figure("a request of the hottest file alone", stream.len(), || {
        let (content, name) = &names[0];
        (0..stream.len()).for_each(|_| detector.requested(*content, || Arc::clone(name)));
    });
    figure("a piece of 1 MiB sent", stream.len(), || {
        for &file in &stream {
            let (content, name) = &names[file];
            detector.sent(*content, 1 << 20, || Arc::clone(name));
        }
    });
    println!("| an exchange: clear, merge | {:.0} |", exchange(&names, &stream));
    println!("\nmemory of a shard: {} KiB", 2 * 2 * size_of::<u64>() * 2 * 4096 / 1024);
}

fn exchange(names: &[(ContentId, Arc<str>)], stream: &[usize]) -> f64 {
    let mut window = Window::new(1);
    for &file in &stream[..20_000] {
        let (content, name) = &names[file];
        window.requested(*content, || Arc::clone(name));
    }
    let windows = [window];
    let began = Instant::now();
    (0..100).for_each(|_| drop(black_box(Window::merged(&windows))));
    began.elapsed().as_nanos() as f64 / 100.0
}

fn figure(what: &str, calls: usize, mut run: impl FnMut()) {
    let best = (0..5).map(|_| {
        let began = Instant::now();
        run();
        began.elapsed().as_nanos() as f64 / calls as f64
    });
    println!("| {what} | {:.1} |", best.fold(f64::INFINITY, f64::min));
}

fn zipf() -> Vec<usize> {
    let mut sums: Vec<f64> = Vec::with_capacity(FILES);
    for file in 1..=FILES {
        sums.push(sums.last().unwrap_or(&0.0) + 1.0 / file as f64);
    }
    let mut random = 88_172_645_463_325_252_u64;
    let mut draw = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let drawn = (random >> 11) as f64 / (1_u64 << 53) as f64 * sums[FILES - 1];
        sums.partition_point(|sum| *sum < drawn).min(FILES - 1)
    };
    (0..1_000_000).map(|_| draw()).collect()
}

fn named(name: &str) -> (ContentId, Arc<str>) {
    (CanonicalName::parse(name).expect("a file's name").content_id(), name.into())
}

const FILES: usize = 200_000;
