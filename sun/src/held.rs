//! Whole files that a daemon keeps on its own disk and lends to the edge for serving.

use std::fs::File;

use geo::ContentId;

use crate::purge::Mark;

/// A store of whole, checked files. Called on a worker thread for each request: it must answer from
/// memory and at most open one file.
pub trait HeldFiles: std::fmt::Debug + Send + Sync {
    /// The file, if it is held.
    fn open(&self, content: ContentId) -> Option<HeldFile>;

    /// The edge read something else than was stored (short file, checksum): drop it.
    fn distrust(&self, content: ContentId);

    /// The edge asked the content server about a file that was purged softly, and it is unchanged: from now on it counts
    /// as fetched at `mark`.
    fn confirmed(&self, content: ContentId, mark: Mark);

    /// The file was purged, or there is another version: drop it.
    fn outdated(&self, content: ContentId);

    /// Bytes held and bytes that may be held, for the status report.
    fn fullness(&self) -> (u64, u64);
}

/// A held file, opened: it stays readable when it is dropped from the store meanwhile.
#[derive(Debug)]
pub struct HeldFile {
    /// The bytes, positioned reads only.
    pub file: File,
    /// Length, bytes.
    pub size: u64,
    /// Where the body starts in `file`, bytes.
    pub offset: u64,
    /// crc32c of each [`HELD_BLOCK_BYTES`] of the body, the last one shorter.
    pub checksums: std::sync::Arc<[u32]>,
    /// Response headers that were kept from the content server (allow-listed by the edge when it filled).
    pub headers: http::HeaderMap,
    /// When it was fetched, seconds since 1970.
    pub stored_at: u64,
    /// The last purge that was gone by when its fetch began.
    pub mark: Mark,
    /// Hashes of its tags.
    pub tags: Box<[u64]>,
}

/// Bytes that one checksum covers.
pub const HELD_BLOCK_BYTES: u64 = 256 * 1024;
