//! Several parts of a file in one response: `multipart/byteranges`. Pure.
//!
//! Implements RFC 9110, sections 14.2, 14.6 and 15.3.7.2. [`Several`] is the request's side, [`Multipart`] the
//! response's:
//!
//! ```text
//!   bytes=0-99, 150-199, 5000-5999, -10       file of 100,000 bytes
//!         [ 50 bytes apart ]
//!         0-199                5000-5999  99990-99999
//!
//!   --BOUNDARY  Content-Type, Content-Range: bytes 0-199/100000     <200 bytes of the file>
//!   --BOUNDARY  Content-Type, Content-Range: bytes 5000-5999/100000 <1000 bytes of the file>
//!   --BOUNDARY  Content-Type, Content-Range: bytes 99990-99999/...  <10 bytes of the file>
//!   --BOUNDARY--
//! ```
//!
//! # Invariants
//!
//! - Parts that are sent do not overlap, so a response has at most the file's bytes and one head a part.
//! - Only heads are made here; the file's bytes are streamed between them by whoever reads the file.
//! - The boundary is 128 random bits: nobody can have put it into a file.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

use crate::range::Spec;

/// A `Range` header that is a list: at least one range, at most [`RANGES_MAX`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Several(Arc<[Spec]>);

/// What a list of ranges means for a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Selection {
    /// These bytes, in the order in which they were asked for; none of them overlap. One: a plain 206.
    Parts(Vec<Range<u64>>),
    /// The list is ignored: 200.
    Whole,
    /// Every range lies past the end: 416.
    Unsatisfiable,
}

impl Several {
    /// Reads a `Range` header with a comma in it; empty elements are passed over (RFC 9110, section 5.6.1.2).
    /// Nothing when any range is malformed, the unit is another or there are more than [`RANGES_MAX`]: such a
    /// header is ignored as if it had not been sent (section 14.2).
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let (unit, list) = header.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") || !list.contains(',') {
            return None;
        }
        let ranges = list.split(',').map(str::trim).filter(|range| !range.is_empty());
        let specs = ranges.take(RANGES_MAX + 1).map(Spec::parse_range).collect::<Option<Vec<Spec>>>()?;
        (1..=RANGES_MAX).contains(&specs.len()).then(|| Self(specs.into()))
    }

    /// The range that is asked for first while nothing is known of the file. It lies past the end of the file
    /// only if all of them do.
    #[must_use]
    pub fn lead(&self) -> Spec {
        let last = |spec: &&Spec| matches!(spec, Spec::Suffix { length } if *length > 0);
        let start = |spec: &&Spec| match spec {
            Spec::From { start, .. } => *start,
            Spec::Suffix { .. } => u64::MAX,
        };
        let lead = self.0.iter().find(last).or_else(|| self.0.iter().min_by_key(start));
        *lead.expect("a list has a range")
    }

    /// What is meant of a file of `size` bytes: ranges past its end are dropped, those that overlap or nearly
    /// touch become one.
    #[must_use]
    pub fn within(&self, size: u64) -> Selection {
        let asked: Vec<Range<u64>> = self.0.iter().filter_map(|spec| spec.within(size)).collect();
        if asked.is_empty() {
            return Selection::Unsatisfiable;
        }
        let mut ordered: Vec<(usize, Range<u64>)> = asked.iter().cloned().enumerate().collect();
        ordered.sort_by_key(|(place, part)| (part.start, *place));
        if hostile(&asked, &ordered) {
            return Selection::Whole;
        }
        let mut parts = joined(ordered);
        parts.sort_by_key(|(place, _)| *place);
        let parts: Vec<Range<u64>> = parts.into_iter().map(|(_, part)| part).collect();
        let sent: u64 = parts.iter().map(|part| part.end - part.start + PART_OVERHEAD_BYTES).sum();
        if parts.len() > 1 && sent >= size {
            // "It can be less efficient to transfer many small disjoint parts than ... the entire selected
            // representation" (RFC 9110, section 15.3.7.2).
            return Selection::Whole;
        }
        Selection::Parts(parts)
    }
}

/// RFC 9110, section 14.2 lets a server ignore "more than two overlapping ranges, or a set of many small ranges
/// that are not listed in ascending order", as signs of a broken client or an attack (section 17.15).
fn hostile(asked: &[Range<u64>], ordered: &[(usize, Range<u64>)]) -> bool {
    let mut reached = 0;
    let mut overlapping = 0;
    for (_, part) in ordered {
        overlapping += usize::from(part.start < reached);
        reached = reached.max(part.end);
    }
    let small = asked.iter().filter(|part| part.end - part.start < SMALL_BYTES).count();
    overlapping > OVERLAPPING_MAX || (small > UNORDERED_MAX && !asked.is_sorted_by_key(|part| part.start))
}

/// Parts in order of their start, merged where the gap is shorter than another part's head (RFC 9110, section
/// 15.3.7.2); a merged part takes the first place of those in it.
fn joined(ordered: Vec<(usize, Range<u64>)>) -> Vec<(usize, Range<u64>)> {
    let mut parts: Vec<(usize, Range<u64>)> = Vec::with_capacity(ordered.len());
    for (place, part) in ordered {
        match parts.last_mut() {
            Some((first, last)) if part.start < last.end.saturating_add(PART_OVERHEAD_BYTES) => {
                last.end = last.end.max(part.end);
                *first = place.min(*first);
            }
            _ => parts.push((place, part)),
        }
    }
    parts
}

/// A multipart body that is still to be sent: what stands before each part, and the part.
#[derive(Clone, Debug)]
pub struct Multipart {
    boundary: String,
    /// The last one is the closing delimiter and no bytes.
    left: VecDeque<(Bytes, Range<u64>)>,
}

/// In a response's extensions: length of the file, bytes, where no header tells it.
#[derive(Clone, Copy, Debug)]
pub struct FileSize(pub u64);

impl Multipart {
    /// These parts of a file of `size` bytes; `random` makes the boundary.
    #[must_use]
    pub fn new(parts: &[Range<u64>], size: u64, content_type: Option<&HeaderValue>, random: u128) -> Self {
        let boundary = format!("{random:032x}");
        let content_type = content_type.and_then(|kind| kind.to_str().ok());
        let content_type = content_type.map(|kind| format!("Content-Type: {kind}\r\n")).unwrap_or_default();
        let heads = parts.iter().enumerate().map(|(place, part)| {
            let before = if place == 0 { "" } else { "\r\n" };
            let last = part.end.saturating_sub(1);
            let range = format!("Content-Range: bytes {}-{last}/{size}", part.start);
            (Bytes::from(format!("{before}--{boundary}\r\n{content_type}{range}\r\n\r\n")), part.clone())
        });
        let end = (Bytes::from(format!("\r\n--{boundary}--\r\n")), 0..0);
        let left = heads.chain([end]).collect();
        Self { boundary, left }
    }

    /// Bytes that are still to be sent.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.left.iter().map(|(head, part)| head.len() as u64 + part.end - part.start).sum()
    }

    /// Says in a response's head what its body is. No `Content-Range`: that stands in each part (RFC 9110,
    /// section 15.3.7.2).
    pub fn describe(&self, headers: &mut HeaderMap) {
        let kind = HeaderValue::from_str(&format!("multipart/byteranges; boundary={}", self.boundary));
        headers.insert(header::CONTENT_TYPE, kind.expect("hexadecimal digits can stand in a header"));
        headers.insert(header::CONTENT_LENGTH, self.length().into());
    }

    /// What stands before the next part, and that part; after the last one the closing delimiter and no bytes.
    pub fn next_part(&mut self) -> Option<(Bytes, Range<u64>)> {
        self.left.pop_front()
    }

    /// All of it, of a file that is at hand.
    #[must_use]
    pub fn pieces(self, file: &Bytes) -> VecDeque<Bytes> {
        let pieces = self.left.into_iter().flat_map(|(head, part)| {
            let bytes = crate::fill::window::slice(file, part.start, part.end);
            [head, bytes]
        });
        pieces.filter(|piece| !piece.is_empty()).collect()
    }
}

/// Ranges of one request. Players and readers of documents send up to a dozen.
pub const RANGES_MAX: usize = 64;

/// What a part costs beside its bytes, as RFC 9110, section 15.3.7.2 puts it: "around 80 bytes".
pub const PART_OVERHEAD_BYTES: u64 = 80;

/// Ranges that may overlap one before them.
const OVERLAPPING_MAX: usize = 2;
/// Small ranges that may come in any order.
const UNORDERED_MAX: usize = 8;
/// A range below this is small.
const SMALL_BYTES: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn several_ranges_are_parts_in_the_order_asked() {
        check("bytes=0-99,5000-5099", "0..100 5000..5100");
        check("bytes=5000-5099,0-99", "5000..5100 0..100");
        check("bytes=0-0,-1", "0..1 99999..100000");
        check("bytes=0-99 , ,\t5000-5099,", "0..100 5000..5100");
        check("BYTES=0-99,99000-", "0..100 99000..100000");
        check("bytes=0-99,99990-200000", "0..100 99990..100000");
    }

    #[test]
    fn what_overlaps_or_nearly_touches_is_one_part() {
        check("bytes=0-99,50-149", "0..150");
        check("bytes=0-99,100-199", "0..200");
        check("bytes=0-99,179-199", "0..200");
        check("bytes=0-99,180-199", "0..100 180..200");
        check("bytes=5000-5099,0-99,5050-5199", "5000..5200 0..100");
        check("bytes=200-299,0-99,100-149", "0..300");
        check("bytes=9000-9999,0-49999,-50000", "0..100000");
        check("bytes=0-99,0-99", "0..100");
    }

    #[test]
    fn what_lies_past_the_end_is_dropped() {
        check("bytes=0-99,100000-", "0..100");
        check("bytes=200000-300000,-0,7-7", "7..8");
        check("bytes=100000-,200000-300000", "416");
        check("bytes=100000-,-0", "416");
    }

    #[test]
    fn what_is_malformed_or_hostile_is_ignored() {
        for header in ["bytes=0-1,x", "bytes=0-1,9-5", "lines=0-1,5-6", "bytes=,", "bytes=0-1", "0-1,5-6"] {
            check(header, "ignored");
        }
        check("bytes=0-,0-,0-,0-", "whole");
        check("bytes=0-100,50-150,100-200,150-250", "whole");
        check("bytes=0-60000,60100-99998", "whole");
        let many = |ranges: &mut dyn Iterator<Item = u64>| {
            let ranges: Vec<String> = ranges.map(|at| format!("{}-{}", at * 1000, at * 1000 + 9)).collect();
            format!("bytes={}", ranges.join(","))
        };
        check(&many(&mut (0..9).rev()), "whole");
        check(&many(&mut (0..65)), "ignored");
        let selection = Several::parse(&many(&mut (0..64))).unwrap().within(SIZE);
        assert!(matches!(selection, Selection::Parts(parts) if parts.len() == 64));
    }

    #[test]
    fn the_lead_lies_past_the_end_only_if_all_do() {
        for (header, expected) in [
            ("bytes=500-,100-199,300-", Spec::From { start: 100, end: 200 }),
            ("bytes=500-,-7", Spec::Suffix { length: 7 }),
            ("bytes=-0,500-", Spec::From { start: 500, end: u64::MAX }),
        ] {
            assert_eq!(Several::parse(header).unwrap().lead(), expected, "{header}");
        }
    }

    #[test]
    fn a_body_is_as_long_as_announced_and_reads_as_the_standard_shows() {
        let file = Bytes::from_iter((0..100_u8).cycle().take(1000));
        let kind = HeaderValue::from_static("text/plain");
        let multipart = Multipart::new(&[0..3, 990..1000], 1000, Some(&kind), 0xabc);
        let mut headers = HeaderMap::new();
        multipart.describe(&mut headers);
        let boundary = "00000000000000000000000000000abc";
        assert_eq!(headers[header::CONTENT_TYPE], format!("multipart/byteranges; boundary={boundary}"));
        let mut expected =
            format!("--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-2/1000\r\n\r\n").into_bytes();
        expected.extend_from_slice(&file[..3]);
        expected.extend_from_slice(
            format!("\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 990-999/1000\r\n\r\n")
                .as_bytes(),
        );
        expected.extend_from_slice(&file[990..]);
        expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        assert_eq!(headers[header::CONTENT_LENGTH], expected.len().to_string());
        assert_eq!(multipart.pieces(&file).into_iter().flatten().collect::<Vec<u8>>(), expected);
    }

    proptest! {
        /// Against a model that marks bytes: every byte asked for is sent once, in few more than were asked for.
        #[test]
        fn parts_cover_what_was_asked_and_do_not_overlap(
            asked in prop::collection::vec((0..3000_u64, 0..300_u64), 1..20),
        ) {
            let header: Vec<String> = asked.iter().map(|(at, more)| format!("{at}-{}", at + more)).collect();
            let several = Several::parse(&format!("bytes={},", header.join(","))).unwrap();
            let wanted = |byte: u64| asked.iter().any(|(at, more)| (*at..=at + more).contains(&byte));
            match several.within(2500) {
                Selection::Whole => {}
                Selection::Unsatisfiable => prop_assert!(asked.iter().all(|(at, _)| *at >= 2500)),
                Selection::Parts(parts) => {
                    for byte in 0..2500 {
                        let sent = parts.iter().filter(|part| part.contains(&byte)).count();
                        prop_assert!(sent <= 1 && (sent == 1 || !wanted(byte)), "byte {byte} in {parts:?}");
                    }
                    prop_assert!(parts.iter().all(|part| part.end <= 2500 && wanted(part.start)));
                }
            }
        }
    }

    const SIZE: u64 = 100_000;

    #[track_caller]
    fn check(header: &str, expected: &str) {
        let found = match Several::parse(header).map(|several| several.within(SIZE)) {
            None => "ignored".to_owned(),
            Some(Selection::Whole) => "whole".to_owned(),
            Some(Selection::Unsatisfiable) => "416".to_owned(),
            Some(Selection::Parts(parts)) => parts.iter().map(|part| format!("{part:?}")).collect::<Vec<_>>().join(" "),
        };
        assert_eq!(found, expected, "{header}");
    }
}
