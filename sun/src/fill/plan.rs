//! What a fill asks upstream for.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::extent::{self, EXTENT_BYTES};
use crate::meta::Meta;
use crate::range::Spec;

/// One question to a source.
#[derive(Clone, Debug)]
pub enum Plan {
    /// The whole file; nothing is known of it.
    Whole,
    /// Whole extents of a file of which nothing is known; the end is open when it is `u64::MAX`.
    Span(Range<u64>),
    /// Only what the file is: its first byte, for the `Content-Range` that tells the size.
    Size,
    /// Whole extents of a version that is known.
    Continue {
        /// The version.
        meta: Arc<Meta>,
        /// The bytes.
        range: Range<u64>,
    },
    /// The whole file, unless it is still the version that is held.
    Revalidate {
        /// The version that is held.
        meta: Arc<Meta>,
    },
    /// What follows the piece that is held of a small file's beginning.
    Complete {
        /// The version of the piece.
        meta: Arc<Meta>,
        /// The piece.
        body: Bytes,
    },
    /// The client's own range, handed on as it is asked and answered.
    Part,
    /// HEAD.
    Head,
    /// The whole file, unless it is still the version that the client has.
    Conditional,
}

impl Plan {
    /// For a request of which nothing is held.
    #[must_use]
    pub fn cold(head_only: bool, range: Option<Spec>) -> Self {
        match range {
            _ if head_only => Self::Size,
            None => Self::Whole,
            // The start of the file is wanted: it may as well be fetched whole, as players ask for `0-` first.
            Some(Spec::From { start, end: u64::MAX }) if start < EXTENT_BYTES => Self::Whole,
            Some(Spec::From { start, .. }) if start > extent::FILE_BYTES_MAX => Self::Size,
            Some(Spec::From { start, end }) => Self::Span(extent::aligned(&(start..end))),
            // The extents of a suffix are known only with the size.
            Some(Spec::Suffix { .. }) => Self::Size,
        }
    }

    /// For a request under the policy "rfc" of which nothing is held. A part that is counted from an end that is not
    /// known is asked for as the client does.
    #[must_use]
    pub fn cold_rfc(head_only: bool, range: Option<Spec>) -> Self {
        match range {
            _ if head_only => Self::Head,
            Some(Spec::Suffix { .. }) => Self::Part,
            Some(Spec::From { start, .. }) if start > extent::FILE_BYTES_MAX => Self::Part,
            range => Self::cold(false, range),
        }
    }

    /// For the extents of a known version from the one that holds `position` to the first one that is `here`
    /// already, at most up to `end`: neighbouring misses are one question, and nothing is asked for that is held
    /// or comes by another fill. The first extent is asked for whatever `here` says of it.
    ///
    /// `here` is asked about [`GAP_EXTENTS_MAX`] extents at most. A gap that is longer is asked for to the end;
    /// should something of it turn up beyond, the writer stops where it meets it.
    #[must_use]
    pub fn missing(meta: Arc<Meta>, position: u64, end: u64, here: impl Fn(u32) -> bool) -> Self {
        let size = meta.size.unwrap_or(u64::MAX);
        let aligned = extent::aligned(&(position..end));
        let first = extent::index_of(aligned.start);
        let last = aligned.end.min(size).div_ceil(EXTENT_BYTES);
        let seen = u64::from(first) + 1..last.min(u64::from(first) + GAP_EXTENTS_MAX);
        let held = seen.filter_map(|index| u32::try_from(index).ok()).find(|index| here(*index));
        let end = held.map_or(aligned.end, extent::start_of).min(size);
        Self::Continue { meta, range: aligned.start..end }
    }

    /// Position of the first byte it will bring, if upstream does as asked.
    #[must_use]
    pub const fn start(&self) -> u64 {
        match self {
            Self::Whole
            | Self::Size
            | Self::Revalidate { .. }
            | Self::Complete { .. }
            | Self::Part
            | Self::Head
            | Self::Conditional => 0,
            Self::Span(range) | Self::Continue { range, .. } => range.start,
        }
    }

    /// Whether it is to bring the byte at `position`.
    #[must_use]
    pub fn covers(&self, position: u64) -> bool {
        match self {
            Self::Whole | Self::Revalidate { .. } | Self::Complete { .. } | Self::Conditional => true,
            Self::Size | Self::Part | Self::Head => false,
            Self::Span(range) | Self::Continue { range, .. } => range.contains(&position),
        }
    }

    /// The `Range` header of the question; none: the whole file.
    #[must_use]
    pub fn range(&self) -> Option<Range<u64>> {
        match self {
            Self::Whole | Self::Revalidate { .. } | Self::Part | Self::Head | Self::Conditional => None,
            Self::Complete { body, .. } => Some(body.len() as u64..u64::MAX),
            Self::Size => Some(0..1),
            Self::Span(range) | Self::Continue { range, .. } => Some(range.clone()),
        }
    }

    /// The version that the answer must belong to.
    #[must_use]
    pub const fn version(&self) -> Option<&Arc<Meta>> {
        match self {
            Self::Continue { meta, .. } => Some(meta),
            _ => None,
        }
    }
}

/// Extents that a question is compared with before it is asked: 64 lookups of about 0.3 us each, under the
/// lock of the registry.
pub const GAP_EXTENTS_MAX: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = EXTENT_BYTES;

    #[test]
    fn only_the_extents_that_a_cold_range_needs_are_asked_for() {
        check(None, None);
        check(Some("bytes=0-"), None);
        check(Some("bytes=100-"), None);
        check(Some("bytes=0-99"), Some(0..MIB));
        check(Some("bytes=5000000-5000001"), Some(4 * MIB..5 * MIB));
        check(Some("bytes=5000000-"), Some(4 * MIB..u64::MAX));
        check(Some("bytes=-100"), Some(0..1));
        check(Some("bytes=99999999999999999999-"), Some(0..1));
    }

    #[test]
    fn a_missing_part_ends_with_the_file() {
        let meta = Arc::new(Meta::new(&http::HeaderMap::new(), Some(5 * MIB + 7), 0, 0, 2));
        let nothing = |_| false;
        assert_eq!(Plan::missing(Arc::clone(&meta), MIB + 1, 2 * MIB, nothing).range(), Some(MIB..2 * MIB));
        assert_eq!(Plan::missing(meta, 5 * MIB, 5 * MIB + 7, nothing).range(), Some(5 * MIB..5 * MIB + 7));
    }

    #[test]
    fn a_question_ends_where_something_is_held() {
        check_gap(0..10 * MIB, &[], 0..10 * MIB);
        check_gap(3 * MIB..10 * MIB, &[5], 3 * MIB..5 * MIB);
        check_gap(6 * MIB..10 * MIB, &[5], 6 * MIB..10 * MIB);
        check_gap(3 * MIB + 9..10 * MIB - 9, &[5, 7], 3 * MIB..5 * MIB);
        check_gap(3 * MIB..4 * MIB, &[4], 3 * MIB..4 * MIB);
        // The extent that is asked for was found missing a moment ago: what is said of it now does not count.
        check_gap(3 * MIB..10 * MIB, &[3, 6], 3 * MIB..6 * MIB);
        check_gap(95 * MIB..u64::MAX, &[99], 95 * MIB..99 * MIB);
        check_gap(95 * MIB..u64::MAX, &[], 95 * MIB..100 * MIB + 7);
        check_gap(99 * MIB..u64::MAX, &[100], 99 * MIB..100 * MIB);
        check_gap(0..u64::MAX, &[63], 0..63 * MIB);
        check_gap(0..u64::MAX, &[64], 0..100 * MIB + 7);
    }

    /// The question for `wanted` of a file of 100 MiB and 7 bytes of which the extents `held` are here.
    #[track_caller]
    fn check_gap(wanted: Range<u64>, held: &[u32], expected: Range<u64>) {
        let meta = Arc::new(Meta::new(&http::HeaderMap::new(), Some(100 * MIB + 7), 0, 0, 2));
        let plan = Plan::missing(meta, wanted.start, wanted.end, |index| held.contains(&index));
        assert_eq!(plan.range(), Some(expected), "{wanted:?} without {held:?}");
    }

    #[track_caller]
    fn check(header: Option<&str>, expected: Option<Range<u64>>) {
        let plan = Plan::cold(false, header.and_then(Spec::parse));
        assert_eq!(plan.range(), expected, "{header:?}");
    }
}
