//! What may be called with any bytes at all: the functions behind the fuzz targets of `geo/fuzz` and behind the tests' seeded
//! mutations. Each panics when the decoder breaks a promise, and is the only code of the feed that may.

use bytes::BytesMut;
use tokio_util::codec::Decoder as _;

use super::attributes::{AS_PATH_MAX, COMMUNITIES_MAX};
use super::{Decoder, Event, FeedError, Framing, mrt};
use crate::route::Attributes;

/// One BMP message, after another one that may have set up a session with add-path.
pub fn bmp(bytes: &[u8]) {
    let mut events = Vec::new();
    let mut decoder = Decoder::default();
    for _ in 0..2 {
        let before = events.len();
        check_error(decoder.decode(bytes, &mut events).err(), bytes.len());
        check_events(events.get(before..).unwrap_or_default(), bytes.len());
    }
}

/// A connection: its bytes arrive in pieces, and the messages are the same however it is cut.
pub fn stream(bytes: &[u8]) {
    let whole = messages(bytes, bytes.len().max(1));
    let pieces = messages(bytes, 7);
    assert_eq!(whole, pieces, "messages depend on how the stream was cut");
    let mut decoder = Decoder::default();
    for message in &whole.0 {
        let mut events = Vec::new();
        check_error(decoder.decode(message, &mut events).err(), message.len());
        check_events(&events, message.len());
    }
}

/// A dump, packed or not.
pub fn dump(bytes: &[u8]) {
    let mut dump = mrt(bytes);
    while let Some(item) = dump.next() {
        match item {
            // A prefix of a record stands for its routes, so the bytes bound each route and not their sum.
            Ok(event) => check_events(std::slice::from_ref(&event), super::mrt::RECORD_BYTES_MAX),
            Err(error) => {
                let last = !error.in_step();
                assert!(!last || dump.next().is_none(), "something follows an error out of step");
            }
        }
    }
}

/// Messages of a stream that arrives so many bytes at a time, and how it ended.
fn messages(bytes: &[u8], piece: usize) -> (Vec<bytes::Bytes>, Option<FeedError>) {
    let mut framing = Framing::new(64 * 1_024);
    let mut stream = BytesMut::new();
    let mut messages = Vec::new();
    for piece in bytes.chunks(piece) {
        stream.extend_from_slice(piece);
        loop {
            match framing.decode(&mut stream) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    let end = framing.decode_eof(&mut stream).err();
    (messages, end)
}

fn check_error(error: Option<FeedError>, bytes: usize) {
    if let Some(error) = error {
        assert!(error.in_step() && error.offset <= bytes as u64, "{error:?}");
    }
}

fn check_events(events: &[Event], bytes: usize) {
    assert!(events.len() <= bytes.max(1), "{} events of {bytes} bytes", events.len());
    let mut prefixes = 0;
    for event in events {
        let Event::Routes { announced, withdrawn, attributes, .. } = event else { continue };
        prefixes += announced.len() + withdrawn.len();
        assert!(announced.iter().chain(withdrawn).all(|prefix| *prefix == prefix.trunc()), "host bits");
        assert_eq!(attributes.is_some(), !announced.is_empty(), "attributes are of what is announced");
        attributes.iter().for_each(check_attributes);
    }
    assert!(prefixes <= bytes, "{prefixes} prefixes of {bytes} bytes");
}

fn check_attributes(attributes: &Attributes) {
    let Attributes { as_path, path_length, origin_as, communities, .. } = attributes;
    assert!(as_path.len() <= AS_PATH_MAX && communities.len() <= COMMUNITIES_MAX);
    assert!(usize::from(*path_length) <= as_path.len());
    assert!(origin_as.is_none() || as_path.last() == origin_as.as_ref());
    assert!(communities.is_sorted_by(|a, b| a < b));
}
