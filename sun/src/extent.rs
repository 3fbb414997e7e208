//! Extents: the pieces that large files are cached in.
//!
//! ```text
//!   a file of 2.3 MiB   |0        1 MiB|         2 MiB|    2.3|
//!                       |  extent 0    |   extent 1   |  ext 2|      extents k * 1 MiB .. (k + 1) * 1 MiB
//! ```
//!
//! A file of at most one extent is cached as one entry with its metadata. Why 1 MiB: one moka lookup (0.25 to
//! 1.5 us) then costs less than a thousandth of sending the bytes, a range wastes at most two of them, and a
//! fill's memory is a few of them.

use std::ops::Range;

/// Bytes of an extent.
pub const EXTENT_BYTES: u64 = 1024 * 1024;

/// The extent that holds a byte.
#[must_use]
pub fn index_of(position: u64) -> u32 {
    // Fills refuse files above FILE_BYTES_MAX, which is far below.
    u32::try_from(position / EXTENT_BYTES).unwrap_or(u32::MAX)
}

/// First byte of an extent.
#[must_use]
pub fn start_of(index: u32) -> u64 {
    u64::from(index) * EXTENT_BYTES
}

/// `range` grown to whole extents; its end stays open when it is `u64::MAX`.
#[must_use]
pub const fn aligned(range: &Range<u64>) -> Range<u64> {
    let start = range.start / EXTENT_BYTES * EXTENT_BYTES;
    let end = match range.end.checked_next_multiple_of(EXTENT_BYTES) {
        Some(end) => end,
        None => u64::MAX,
    };
    start..end
}

/// Largest file that is handled at all, bytes (1 PiB): positions fit an extent index with room to spare.
pub const FILE_BYTES_MAX: u64 = 1 << 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_grows_to_whole_extents() {
        assert_eq!(aligned(&(0..1)), 0..EXTENT_BYTES);
        assert_eq!(aligned(&(EXTENT_BYTES - 1..EXTENT_BYTES + 1)), 0..2 * EXTENT_BYTES);
        assert_eq!(aligned(&(EXTENT_BYTES..u64::MAX)), EXTENT_BYTES..u64::MAX);
    }

    #[test]
    fn positions_fit_an_index() {
        assert_eq!(index_of(2 * EXTENT_BYTES - 1), 1);
        assert!(index_of(FILE_BYTES_MAX) < u32::MAX);
    }
}
