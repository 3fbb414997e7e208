//! How fast a dump is read: nanoseconds a route, of the file as it is and of its records in RAM.

use std::io::Read;
use std::time::Instant;

use geo::feed::{Event, mrt};

/// Says what the dump has up to its end, or to where it is cut.
pub(crate) fn run(file: &str) {
    let packed = std::fs::read(file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut unpacked = Vec::new();
    let bzip2 = packed.starts_with(b"BZh");
    if bzip2 {
        // What a cut file still has counts.
        let _ = bzip2::read::BzDecoder::new(packed.as_slice()).read_to_end(&mut unpacked);
    } else if packed.starts_with(&[0x1f, 0x8b]) {
        let _ = flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut unpacked);
    } else {
        unpacked.clone_from(&packed);
    }
    println!("| dump | routes | ns a route | |\n|---|---|---|---|");
    for (what, bytes) in [("the file", &packed), ("its records in RAM", &unpacked)] {
        let mut times: Vec<f64> = (0..ROUNDS).map(|_| read(bytes).1).collect();
        times.sort_unstable_by(f64::total_cmp);
        let (routes, _, end) = read(bytes);
        println!("| {what} | {routes} | {:.0} | {end} |", times[ROUNDS / 2]);
    }
    println!();
}

/// Routes, nanoseconds of each, and how it ended.
fn read(bytes: &[u8]) -> (usize, f64, String) {
    let began = Instant::now();
    let (mut routes, mut end) = (0, "whole".to_owned());
    for event in mrt(bytes) {
        match event {
            Ok(Event::Routes { announced, .. }) => routes += announced.len(),
            Ok(_) => {}
            Err(error) => end = error.to_string(),
        }
    }
    (routes, began.elapsed().as_secs_f64() * 1e9 / routes.max(1) as f64, end)
}

const ROUNDS: usize = 5;
