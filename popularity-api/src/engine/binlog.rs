//! The binlog's format: groups of batches, one frame each, in segments. Pure: bytes in, bytes out.
//!
//! An *offset* counts the bytes of all frames ever written, across segments; headers of segments are not counted.
//! A segment's file is named by the offset of its first frame, `binlog-00000000000000000000`. All numbers are
//! little-endian.
//!
//! ```text
//!   segment:  "SUNBLOG1" | start offset u64 | crc32c u32 of the 16 bytes before | frame | frame ...
//!
//!   frame:    "SUNF" | payload bytes u32 | crc32c u32 | payload: one group (batch.rs)
//!              0       4                   8            12
//!             crc32c over: the frame's offset u64 | payload bytes u32 | payload
//! ```
//!
//! # Why this is enough
//!
//! - A frame is what one `write` and one `fdatasync` made durable, and the next one is written only after that
//!   succeeded. So a bad frame with nothing good behind it is a **torn tail**: the process or the machine died before
//!   the sync returned, nobody was told that it is kept, and it is cut with a WARN. (A bit that flips in the very last
//!   frame looks the same.)
//! - A bad frame with a good one behind it was acknowledged and is **damaged**: a disk lied. Everything else is
//!   recovered, the lost range is an ERROR and a metric, and its segment is kept aside for whoever looks into it. Why
//!   not refuse to start: the lost frames do not come back by it, and ratings fade anyway. Nothing is counted
//!   twice either way: each frame is read once, and a batch in a lost frame is not sent again.
//! - The offset inside the checksum tells a frame from a copy of it elsewhere, as a disk that reused a block
//!   or a file that was copied over another would leave it.
//! - Where the next segment starts, this one ends, whatever else is in it: a frame whose sync failed was
//!   answered 503 and may have reached the disk nevertheless.

use super::batch::Group;
use super::bytes::Reader;

/// Bytes before a segment's first frame.
pub const SEGMENT_HEADER_BYTES: usize = 20;

/// Bytes of a frame before its payload.
pub const FRAME_HEADER_BYTES: usize = 12;

/// Longest payload; a longer one is damage.
pub const PAYLOAD_BYTES_MAX: usize = 256 << 20;

/// The file of the segment that starts at `offset`.
#[must_use]
pub fn segment_name(offset: u64) -> String {
    format!("{SEGMENT_PREFIX}{offset:020}")
}

/// The offset that a segment's file is named by; nothing for other files.
#[must_use]
pub fn segment_start(file: &str) -> Option<u64> {
    let digits = file.strip_prefix(SEGMENT_PREFIX)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The first bytes of a segment that starts at `offset`.
#[must_use]
pub fn segment_header(offset: u64) -> Vec<u8> {
    let mut header = SEGMENT_MAGIC.to_vec();
    header.extend(offset.to_le_bytes());
    header.extend(crc32c::crc32c(&header).to_le_bytes());
    header
}

/// Appends the frame of `group` that stands at `offset`.
pub fn write_frame(group: &Group, offset: u64, out: &mut Vec<u8>) {
    let at = out.len();
    out.extend(FRAME_MAGIC);
    out.extend([0; 8]);
    group.write(out);
    let payload = out.len() - at - FRAME_HEADER_BYTES;
    let payload_bytes = u32::try_from(payload).expect("a group is bounded far below 4 GiB").to_le_bytes();
    let checksum = checksum(offset, payload_bytes, &out[at + FRAME_HEADER_BYTES..]);
    out[at + 4..at + 8].copy_from_slice(&payload_bytes);
    out[at + 8..at + 12].copy_from_slice(&checksum.to_le_bytes());
}

/// What a segment holds.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Scanned {
    /// Offset after its last good frame.
    pub end: u64,
    /// Bytes of acknowledged frames that are lost.
    pub damaged_bytes: u64,
    /// Bytes at the end that were never acknowledged.
    pub torn_bytes: u64,
}

/// Reads a segment and hands every good frame that stands at or after `from` to `group`, with its offset, in order.
///
/// `start` is what its file is named by, `next` the start of the segment after it, if there is one.
pub fn scan(bytes: &[u8], start: u64, next: Option<u64>, from: u64, mut group: impl FnMut(u64, Group)) -> Scanned {
    let mut scanned = Scanned { end: start, ..Scanned::default() };
    let sound_header = bytes.get(..SEGMENT_HEADER_BYTES) == Some(&segment_header(start)[..]);
    let frames = bytes.get(SEGMENT_HEADER_BYTES..).unwrap_or_default();
    let known = next.map_or(frames.len(), |next| usize::try_from(next.saturating_sub(start)).unwrap_or(usize::MAX));
    let frames = &frames[..frames.len().min(known)];
    if !sound_header {
        tracing::debug!(start, "the header of a binlog segment is damaged");
    }
    let mut position = 0;
    while position < frames.len() {
        let Some((at, bytes, found)) = next_frame(frames, position, start) else { break };
        scanned.damaged_bytes += lost(start + position as u64, start + at as u64, from);
        if start + at as u64 >= from {
            group(start + at as u64, found);
        }
        position = at + bytes;
    }
    scanned.end = start + position as u64;
    let rest = (frames.len() - position) as u64;
    match next {
        // Everything up to the next segment was acknowledged, also what is not even there.
        Some(next) => {
            scanned.damaged_bytes += lost(scanned.end, next, from);
            scanned.end = scanned.end.max(next);
        }
        None => scanned.torn_bytes = rest,
    }
    scanned
}

/// Bytes of `begin..end` that no snapshot has.
fn lost(begin: u64, end: u64, from: u64) -> u64 {
    end.max(from) - begin.max(from).min(end.max(from))
}

/// The first good frame at or after `position`: where it is, its bytes with header, its group.
fn next_frame(frames: &[u8], position: usize, start: u64) -> Option<(usize, usize, Group)> {
    (position..frames.len()).find_map(|at| {
        let (bytes, group) = frame_at(&frames[at..], start + at as u64)?;
        Some((at, bytes, group))
    })
}

/// Bytes, with its header, of the frame that these bytes begin with, whole or not; nothing when they begin with none.
#[must_use]
pub fn frame_bytes(frames: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(frames);
    let magic: [u8; 4] = reader.array()?;
    let payload_bytes = usize::try_from(reader.u32()?).ok()?;
    reader.u32()?;
    (magic == *FRAME_MAGIC && payload_bytes <= PAYLOAD_BYTES_MAX).then_some(FRAME_HEADER_BYTES + payload_bytes)
}

/// The groups of whole frames that stand at `offset`, one after another.
///
/// # Errors
///
/// The offset of the first one that is not good.
pub fn read_frames(frames: &[u8], offset: u64) -> Result<Vec<Group>, u64> {
    let (mut groups, mut at) = (Vec::new(), 0);
    while at < frames.len() {
        let stands_at = offset + at as u64;
        let (bytes, group) = frame_at(&frames[at..], stands_at).ok_or(stands_at)?;
        groups.push(group);
        at += bytes;
    }
    Ok(groups)
}

/// The frame that begins here, if it is good: its bytes with header, its group.
fn frame_at(frames: &[u8], offset: u64) -> Option<(usize, Group)> {
    let mut reader = Reader::new(frames);
    if reader.array()? != *FRAME_MAGIC {
        return None;
    }
    let payload_bytes: [u8; 4] = reader.array()?;
    let stored = reader.u32()?;
    let bytes = FRAME_HEADER_BYTES + u32::from_le_bytes(payload_bytes) as usize;
    if bytes > FRAME_HEADER_BYTES + PAYLOAD_BYTES_MAX {
        return None;
    }
    let payload = frames.get(FRAME_HEADER_BYTES..bytes)?;
    (stored == checksum(offset, payload_bytes, payload)).then(|| Some((bytes, Group::read(payload)?)))?
}

fn checksum(offset: u64, payload_bytes: [u8; 4], payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&offset.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &payload_bytes), payload)
}

const SEGMENT_PREFIX: &str = "binlog-";
const SEGMENT_MAGIC: &[u8; 8] = b"SUNBLOG1";
const FRAME_MAGIC: &[u8; 4] = b"SUNF";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_written_like_this() {
        let mut written = segment_header(256);
        write_frame(&Group { time_ms: 5, batches: vec![] }, 256, &mut written);
        let expected = [
            &b"SUNBLOG1"[..],
            &[0, 1, 0, 0, 0, 0, 0, 0],
            &SEGMENT_CRC,
            b"SUNF",
            &[12, 0, 0, 0],
            &FRAME_CRC,
            &[5, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(written, expected);
        assert_eq!(segment_name(256), "binlog-00000000000000000256");
        assert_eq!(segment_start("binlog-00000000000000000256"), Some(256));
        for file in ["binlog-256", "binlog-0000000000000000025x", "binlog-00000000000000000256.damaged", "lock"] {
            assert_eq!(segment_start(file), None, "{file}");
        }
    }

    #[test]
    fn every_cut_gives_the_frames_before_it() {
        let (segment, ends) = segment(3);
        for cut in 0..segment.len() {
            let whole = ends.iter().filter(|&&end| end <= cut).count();
            let good = if whole == 0 { SEGMENT_HEADER_BYTES } else { ends[whole - 1] };
            let torn = cut.saturating_sub(good);
            check(&segment[..cut], None, 0, &format!("{} damaged 0 torn {torn}", times(0..whole)));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed_and_costs_one_frame() {
        let (segment, ends) = segment(3);
        for at in SEGMENT_HEADER_BYTES..segment.len() {
            for bit in 0..8 {
                let mut flipped = segment.clone();
                flipped[at] ^= 1 << bit;
                let hit = ends.iter().filter(|&&end| end <= at).count();
                let bytes = ends[hit] - if hit == 0 { SEGMENT_HEADER_BYTES } else { ends[hit - 1] };
                let lost = if hit == 2 { (0, bytes) } else { (bytes, 0) };
                let left: Vec<String> = (0..3).filter(|&n| n != hit).map(|n| n.to_string()).collect();
                check(&flipped, None, 0, &format!("{} damaged {} torn {}", left.join(" "), lost.0, lost.1));
            }
        }
    }

    #[test]
    fn a_damaged_header_costs_no_frame() {
        let (mut segment, _) = segment(2);
        segment[3] ^= 1;
        check(&segment, None, 0, "0 1 damaged 0 torn 0");
    }

    #[test]
    fn frames_before_the_snapshot_are_passed_over() {
        let (segment, ends) = segment(3);
        let offset = |n: usize| (ends[n] - SEGMENT_HEADER_BYTES) as u64;
        check(&segment, None, offset(0), "1 2 damaged 0 torn 0");
        check(&segment, None, offset(2), " damaged 0 torn 0");
    }

    #[test]
    fn a_segment_ends_where_the_next_one_starts() {
        let (segment, ends) = segment(3);
        let offset = |n: usize| (ends[n] - SEGMENT_HEADER_BYTES) as u64;
        // The third frame's sync failed: its batches were refused, and sent again.
        check(&segment, Some(offset(1)), 0, "0 1 damaged 0 torn 0");
        check(&segment, Some(offset(2)), 0, "0 1 2 damaged 0 torn 0");
        check(&segment[..ends[1] + 4], Some(offset(2)), 0, &format!("0 1 damaged {} torn 0", offset(2) - offset(1)));
        check(&segment, Some(offset(2) + 50), 0, "0 1 2 damaged 50 torn 0");
    }

    #[test]
    fn a_frame_at_another_offset_is_no_frame() {
        let (segment, _) = segment(1);
        assert_eq!(scan(&segment, 8, None, 0, |_, _| panic!("misplaced")).end, 8);
    }

    /// A segment that starts at 0, its frames timed 0, 1, 2..., and where each ends.
    fn segment(frames: u64) -> (Vec<u8>, Vec<usize>) {
        let mut segment = segment_header(0);
        let ends = (0..frames)
            .map(|time_ms| {
                let offset = (segment.len() - SEGMENT_HEADER_BYTES) as u64;
                write_frame(&Group { time_ms, batches: vec![] }, offset, &mut segment);
                segment.len()
            })
            .collect();
        (segment, ends)
    }

    fn times(range: std::ops::Range<usize>) -> String {
        range.map(|n| n.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    fn check(segment: &[u8], next: Option<u64>, from: u64, expected: &str) {
        let mut found = Vec::new();
        let scanned = scan(segment, 0, next, from, |_, group| found.push(group.time_ms.to_string()));
        let answer = format!("{} damaged {} torn {}", found.join(" "), scanned.damaged_bytes, scanned.torn_bytes);
        assert_eq!(answer, expected);
    }

    const SEGMENT_CRC: [u8; 4] = [191, 118, 18, 57];
    const FRAME_CRC: [u8; 4] = [234, 27, 127, 74];
}
