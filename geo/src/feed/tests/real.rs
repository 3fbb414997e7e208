//! Real dumps and recordings, when the environment names one. Prints what was read and how fast.

use std::collections::HashSet;
use std::fs::{self, File};
use std::time::Instant;

use bytes::BytesMut;
use tokio_util::codec::Decoder as _;

use super::super::{Decoder, Event, Framing, mrt};
use super::line;

/// `GEO_FEED_MRT=rib.bz2 cargo test -p geo --lib feed::tests::real -- --nocapture`
#[test]
fn a_real_dump_is_read_to_its_end_or_to_where_it_is_cut() {
    let Some(path) = std::env::var_os("GEO_FEED_MRT") else { return };
    let (mut prefixes, mut peers) = (HashSet::new(), HashSet::new());
    let (mut routes, mut malformed, mut others, mut errors) = (0_u64, 0_u64, 0_u64, Vec::new());
    let start = Instant::now();
    let mut dump = mrt(File::open(path).unwrap());
    for item in dump.by_ref() {
        match item {
            Ok(Event::Routes { peer, announced, .. }) => {
                routes += 1;
                peers.insert(peer);
                prefixes.extend(announced);
            }
            Ok(Event::Malformed { .. }) => malformed += 1,
            Ok(_) => others += 1,
            Err(error) => errors.push(error.to_string()),
        }
    }
    println!(
        "{routes} routes, {} prefixes, {} peers, {malformed} malformed, {others} others",
        prefixes.len(),
        peers.len()
    );
    println!("{} bytes unpacked, {:?}, ended with {errors:?}", dump.bytes_done(), start.elapsed());
    assert!(routes > 0 && errors.len() <= 1, "{errors:?}");
}

/// `GEO_FEED_BMP=stream.bmp`: what a router sent, recorded from its socket.
#[test]
fn a_recorded_session_is_read_to_its_end() {
    let Some(path) = std::env::var_os("GEO_FEED_BMP") else { return };
    let mut stream = BytesMut::from(fs::read(path).unwrap().as_slice());
    let (mut framing, mut decoder, mut messages) = (Framing::default(), Decoder::default(), 0_u64);
    let mut events = Vec::new();
    while let Some(message) = framing.decode_eof(&mut stream).unwrap() {
        messages += 1;
        decoder.decode(&message, &mut events).unwrap();
    }
    events.iter().take(60).for_each(|event| println!("{:?} {}", super::view(event), line(event)));
    println!("{messages} messages, {} events", events.len());
    assert!(!events.iter().any(|event| matches!(event, Event::Malformed { .. })));
}
