//! Reading a record: positioned reads, everything checked before a byte is handed out.
//!
//! A record is read whole when it is small or all of it is wanted; of a larger one its first bytes (header and
//! checksums) are read, then the chunks that hold the range. The record must be the one that the index named
//! (sequence) and the one that was asked for (key): a segment that was used again answers with neither.

use std::io;
use std::ops::Range;

use bytes::Bytes;

use crate::store::device::Device;
use crate::store::format::{CHUNK_BYTES, HEADER_BYTES, Header, Key, Kind};
use crate::store::index::Place;

/// What was read.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The record's header.
    pub header: Header,
    /// Metadata; empty when only a range of the body was read.
    pub meta: Bytes,
    /// The part of the body that was asked for.
    pub body: Bytes,
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not in RAM, and the read was not to wait.
    #[error("not in the page cache")]
    NotNow,
    /// The device refused.
    #[error("{0}")]
    Device(#[from] io::Error),
    /// The record there is another: its place was used again. Nothing is wrong.
    #[error("the place holds another record")]
    Elsewhere,
    /// The bytes there are not what was written.
    #[error("a checksum does not match")]
    Corrupt,
}

/// How a read may wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wait {
    /// Not at all.
    No,
    /// As long as the device takes.
    Yes,
}

/// Reads the record at `place` if it is `key`'s; `range` of its body, cut at its end.
///
/// # Errors
///
/// [`ReadError`].
pub fn read(device: &dyn Device, place: Place, key: &Key, range: Range<u64>, wait: Wait) -> Result<Loaded, ReadError> {
    let bytes = usize::try_from(place.bytes()).map_err(|_| ReadError::Corrupt)?;
    let wanted = range.end.min(place.bytes()).saturating_sub(range.start);
    if bytes <= WHOLE_BYTES || wanted.saturating_mul(2) >= place.bytes() {
        let record = Bytes::from(get(device, place.offset(), bytes, wait)?);
        return parse_whole(&record, place, key, range);
    }
    let prefix = get(device, place.offset(), (HEADER_BYTES + 4 * bytes.div_ceil(CHUNK_BYTES)).min(bytes), wait)?;
    let header = checked(&prefix, place, key)?;
    let body_bytes = header.body_bytes as usize;
    let part = clamp(&range, body_bytes);
    let first = part.start / CHUNK_BYTES;
    let chunks = first * CHUNK_BYTES..part.end.next_multiple_of(CHUNK_BYTES).min(body_bytes);
    let at = place.offset() + (header.body_at() + chunks.start) as u64;
    let body = get(device, at, chunks.len(), wait)?;
    if !Header::verifies(&prefix, first, &body) {
        return Err(ReadError::Corrupt);
    }
    let body = Bytes::from(body).slice(part.start - chunks.start..part.end - chunks.start);
    Ok(Loaded { header, meta: Bytes::new(), body })
}

/// Metadata and body of the record at `place`; None: it is not (any more) what was written.
///
/// # Errors
///
/// What the device says.
pub fn whole(device: &dyn Device, place: Place, key: &Key) -> io::Result<Option<(Bytes, Bytes)>> {
    match read(device, place, key, 0..u64::MAX, Wait::Yes) {
        Ok(loaded) => Ok(Some((loaded.meta, loaded.body))),
        Err(ReadError::Device(error)) => Err(error),
        Err(_) => Ok(None),
    }
}

fn parse_whole(record: &Bytes, place: Place, key: &Key, range: Range<u64>) -> Result<Loaded, ReadError> {
    let header = checked(record, place, key)?;
    if header.record_bytes() != place.bytes() {
        return Err(ReadError::Corrupt);
    }
    let meta = record.slice(header.payload_at()..header.body_at());
    let body = record.slice(header.body_at()..header.body_at() + header.body_bytes as usize);
    let part = clamp(&range, body.len());
    let first = part.start / CHUNK_BYTES;
    let chunks = first * CHUNK_BYTES..part.end.next_multiple_of(CHUNK_BYTES).min(body.len());
    if crc32c::crc32c(&meta) != header.meta_crc || !Header::verifies(record, first, &body[chunks]) {
        return Err(ReadError::Corrupt);
    }
    Ok(Loaded { header, meta, body: body.slice(part) })
}

/// The header, if it is the one that the index named and that was asked for.
fn checked(record: &[u8], place: Place, key: &Key) -> Result<Header, ReadError> {
    let header = Header::decode(record).ok_or(ReadError::Corrupt)?;
    let same_version = key.kind == Kind::Head || header.key.generation == key.generation;
    let same = header.key.kind == key.kind && header.key.content == key.content && header.key.index == key.index;
    if header.sequence != place.sequence() || !same || !same_version {
        return Err(ReadError::Elsewhere);
    }
    Ok(header)
}

fn get(device: &dyn Device, offset: u64, bytes: usize, wait: Wait) -> Result<Vec<u8>, ReadError> {
    let mut buffer = vec![0; bytes];
    match wait {
        Wait::Yes => device.read(offset, &mut buffer)?,
        Wait::No if device.read_now(offset, &mut buffer)? => {}
        Wait::No => return Err(ReadError::NotNow),
    }
    Ok(buffer)
}

fn clamp(range: &Range<u64>, length: usize) -> Range<usize> {
    let end = usize::try_from(range.end).unwrap_or(usize::MAX).min(length);
    usize::try_from(range.start).unwrap_or(usize::MAX).min(end)..end
}

/// Records up to this size are read whole, bytes: one read costs less than two.
const WHOLE_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::simulated::Simulated;
    use geo::ContentId;

    #[test]
    fn a_place_that_was_used_again_answers_with_nothing() {
        let key = Key { kind: Kind::Block, content: ContentId::from_bytes([1; 16]), generation: 5, index: 2 };
        let device = Simulated::new(1 << 20);
        for (offset, bytes) in [(64, 1000), (4096, 200_000)] {
            let body = vec![7; bytes];
            let record = [Header::encode(key, 9, 3, &[], &body), body].concat();
            device.write(offset, &record).unwrap();
            let length = record.len().next_multiple_of(64) as u64;
            let look = |key: &Key, sequence| {
                let place = Place::new(0, offset, length, sequence);
                read(&device, place, key, 0..10, Wait::Yes)
            };
            assert_eq!(look(&key, 9).unwrap().body, [7; 10][..]);
            let others = [
                Key { kind: Kind::Head, ..key },
                Key { content: ContentId::from_bytes([2; 16]), ..key },
                Key { generation: 6, ..key },
                Key { index: 3, ..key },
            ];
            assert!(matches!(look(&key, 8), Err(ReadError::Elsewhere)), "an older record was there");
            for other in others {
                assert!(matches!(look(&other, 9), Err(ReadError::Elsewhere)), "{other:?}");
            }
        }
    }
}
