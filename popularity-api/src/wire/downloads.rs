//! What was downloaded, and the ratings that follow from it.

use geo::RegionId;
use serde::{Deserialize, Serialize};

// ---- POST /v1/downloads ------------------------------------------------------------------------

/// What a sun or cache sent to clients since its last batch. The reporter's token names it: `source` must match.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DownloadsBatch {
    /// Name of the reporting server, `sun4-2-1`. An operator who reports what content servers' logs say uses `log:1` to
    /// `log:1000`, for each reporting program one.
    pub source: String,
    /// When the reporter started, microseconds since 1970; a larger one begins a new sequence, a smaller one
    /// is refused: 409, with `known boot N` in its detail. 409 without that: it is more than ten years ahead.
    pub boot: u64,
    /// 1, 2, 3, ... within a boot. A batch that was counted before is acknowledged and not counted again. One that failed (429,
    /// 503) is repeated before the next is sent: what comes after a larger number is lost.
    pub sequence: u64,
    /// How long it has waited since its last download was counted, milliseconds, by the reporter's clock; absent is 0. Downloads
    /// of a file that was purged hard since then are not counted: they say nothing of what is there now.
    #[serde(default)]
    pub age_ms: u64,
    /// At most [`DOWNLOADS_PER_BATCH_MAX`].
    pub downloads: Vec<Download>,
}

/// Downloads of one file by one region's clients.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Download {
    /// Region of the clients.
    pub region: RegionId,
    /// Canonical name.
    pub file: String,
    /// Bytes of the whole file.
    pub size: u64,
    /// Sum over requests of bytes sent / size, at most 1 per request; of those that were counted, over the probability
    /// with which they were, when not all are ([`DownloadsAck::sample`]).
    pub downloads: f64,
    /// Bytes sent; as above.
    pub bytes: u64,
}

/// The batch is durable.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct DownloadsAck {
    /// False when a batch with this or a larger number of the same boot had been counted before: nothing of this one
    /// was. Numbers may be left out; one that comes after a larger one is lost, so a batch that failed (429, 503) is
    /// repeated before the next is sent.
    pub counted: bool,
    /// Entries whose name is not canonical or not of the topology's content servers, of an unknown region, or with numbers
    /// that cannot be: dropped.
    pub refused: usize,
    /// The first of those, at most [`REFUSALS_PER_ANSWER_MAX`]; left out when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<RefusedEntry>,
    /// Share of its responses that the server is to count from now on, above 0 and at most 1: each one with this
    /// probability, and `1 / sample` times. Below 1 while the API is pressed ([`crate::pressure`]).
    #[serde(default = "all_of_them")]
    pub sample: f64,
}

/// An entry of a batch that was dropped, and why.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RefusedEntry {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// Its name; of a long one the beginning.
    pub file: String,
    /// What is wrong, behind the name of the field: "file: the path has an empty segment".
    pub why: String,
}

/// Entries of one [`DownloadsAck::refusals`].
pub const REFUSALS_PER_ANSWER_MAX: usize = 5;

const fn all_of_them() -> f64 {
    1.0
}

/// Entries of a batch.
pub const DOWNLOADS_PER_BATCH_MAX: usize = 10_000;

// ---- GET /v1/regions/{region}/top?limit=N ------------------------------------------------------

/// The best-rated files of a region, best first.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Top {
    /// The region asked about.
    pub region: RegionId,
    /// At most `limit` (default 100, at most 10,000).
    pub files: Vec<Rated>,
}

/// A file and its rating in one region.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Rated {
    /// Canonical name.
    pub file: String,
    /// Bytes.
    pub size: u64,
    /// What it is ranked by.
    pub score: f64,
    /// Decayed downloads, half-life 1 h.
    pub rating_hour: f64,
    /// Decayed downloads, half-life 48 h.
    pub rating_days: f64,
}
