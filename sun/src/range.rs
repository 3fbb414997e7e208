//! The part of a file that a request asks for.
//!
//! Implements the `Range` request header of RFC 9110, section 14, for one range of bytes; lists of them are
//! [`crate::multipart`]'s.
//!
//! ```text
//!   file     |0        |8        |16       |24    29|     size = 30
//!   bytes=10-19         ...[========]...                Part(10..20)
//!   bytes=-10                              [========]   Part(20..30)
//!   bytes=30-                                           Unsatisfiable, a 416
//! ```
//!
//! The header counts from zero and names the last byte; everything here is half-open. A range is read in two
//! steps because a file that is not held yet has no known size: [`Spec::parse`] reads the header,
//! [`Spec::within`] applies it to a size.

use std::ops::Range;

/// One byte range as asked for, before the size is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Spec {
    /// `first-last`; `end` is one past the last byte, `u64::MAX` for `first-`.
    From {
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
    /// `-length`: the last bytes of the file.
    Suffix {
        /// How many.
        length: u64,
    },
}

impl Spec {
    /// Reads a `Range` header with one range. Nothing when it is malformed or in another unit: such a header is
    /// ignored as if it had not been sent (RFC 9110, section 14.2). Also nothing when it is a list.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let (unit, range) = header.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        Self::parse_range(range.trim())
    }

    /// Reads one range of such a header: `first-last`, `first-` or `-length`.
    #[must_use]
    pub fn parse_range(range: &str) -> Option<Self> {
        let (first, last) = range.split_once('-')?;
        match (position(first), position(last)) {
            (Some(first), Some(last)) if first <= last => {
                Some(Self::From { start: first, end: last.saturating_add(1) })
            }
            (Some(first), None) if last.is_empty() => Some(Self::From { start: first, end: u64::MAX }),
            (None, Some(length)) if first.is_empty() => Some(Self::Suffix { length }),
            _ => None,
        }
    }

    /// The bytes of a file of `size` that are meant; nothing when every one lies past its end (416).
    #[must_use]
    pub fn within(self, size: u64) -> Option<Range<u64>> {
        let part = match self {
            Self::From { start, end } => start..end.min(size),
            Self::Suffix { length } => size.saturating_sub(length)..size,
        };
        (!part.is_empty()).then_some(part)
    }
}

/// A `Content-Range` answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ContentRange {
    /// `bytes 10-19/30`.
    Part {
        /// The bytes that follow.
        part: Range<u64>,
        /// Length of the whole file.
        size: u64,
    },
    /// `bytes */30`, with a 416.
    Unsatisfied {
        /// Length of the whole file.
        size: u64,
    },
}

impl ContentRange {
    /// Reads a `Content-Range` header (RFC 9110, section 14.4). Nothing when it is malformed, contradicts
    /// itself or leaves the size open.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let (unit, rest) = header.trim().split_once(' ')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (range, size) = rest.trim().split_once('/')?;
        let size = position(size)?;
        if range == "*" {
            return Some(Self::Unsatisfied { size });
        }
        let (first, last) = range.split_once('-')?;
        let (first, last) = (position(first)?, position(last)?);
        (first <= last && last < size).then(|| Self::Part { part: first..last + 1, size })
    }
}

/// A number of bytes: digits only, since `str::parse` would also take a sign.
fn position(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Digits alone fail to parse only when there are too many, which is past any end of file.
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_served() {
        check("bytes=0-0", 30, "0..1");
        check("bytes=10-19", 30, "10..20");
        check("bytes=10-", 30, "10..30");
        check("bytes=-10", 30, "20..30");
        check("Bytes=0-29", 30, "0..30");
    }

    #[test]
    fn a_range_is_cut_at_the_end_of_the_file() {
        check("bytes=20-99", 30, "20..30");
        check("bytes=-99", 30, "0..30");
        check("bytes=0-99999999999999999999", 30, "0..30");
        check("bytes=0-18446744073709551615", 30, "0..30");
    }

    #[test]
    fn a_range_past_the_end_is_refused() {
        check("bytes=30-", 30, "416");
        check("bytes=30-40", 30, "416");
        check("bytes=-0", 30, "416");
        check("bytes=0-", 0, "416");
    }

    #[test]
    fn anything_else_is_ignored() {
        for header in ["", "bytes", "bytes=", "bytes=-", "bytes=5", "bytes=9-5", "bytes=+5-9", "bytes=5-9x"] {
            check(header, 30, "whole");
        }
        check("bytes=0-1,5-6", 30, "whole");
        check("blocks=0-1", 30, "whole");
    }

    #[test]
    fn a_content_range_is_believed_only_when_it_is_consistent() {
        let part = |part, size| Some(ContentRange::Part { part, size });
        assert_eq!(ContentRange::parse("bytes 0-9/30"), part(0..10, 30));
        assert_eq!(ContentRange::parse("bytes 29-29/30"), part(29..30, 30));
        assert_eq!(ContentRange::parse("bytes */30"), Some(ContentRange::Unsatisfied { size: 30 }));
        for header in ["bytes 0-30/30", "bytes 9-0/30", "bytes 0-9/*", "bytes 0-9", "chars 0-9/30", "bytes -9/30", ""] {
            assert_eq!(ContentRange::parse(header), None, "{header}");
        }
    }

    #[track_caller]
    fn check(header: &str, size: u64, expected: &str) {
        let answer = match Spec::parse(header) {
            None => "whole".to_owned(),
            Some(spec) => spec.within(size).map_or("416".to_owned(), |part| format!("{part:?}")),
        };
        assert_eq!(answer, expected, "Range: {header}");
    }
}
