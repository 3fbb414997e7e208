//! What is worth carrying into a cache, and what caches hold.

use geo::RegionId;
use serde::{Deserialize, Serialize};

// ---- POST /v1/regions/{region}/caches/{cache}/wanted -------------------------------------------

/// A cache asks what to carry.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WantedRequest {
    /// Disk it may fill, bytes.
    pub bytes_max: u64,
    /// Candidates it wants at most; at most 10,000.
    pub limit: usize,
}

/// What is worth carrying, and what the things carried are worth.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Wanted {
    /// Best first; none that the cache's holdings name.
    pub candidates: Vec<Candidate>,
    /// Score of everything that the cache's holdings name; unrated files are left out.
    pub held: Vec<HeldScore>,
    /// Generation of the holdings that the answer goes by; when it is not the cache's own, send them in full.
    pub holdings_generation: u64,
}

/// A file worth carrying.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Candidate {
    /// Canonical name.
    pub file: String,
    /// Bytes, as reported by those who sent it.
    pub size: u64,
    /// What it is ranked by, on the scale of [`HeldScore::score`].
    pub score: f64,
    /// Caches that hold it, nearest first (names); the content server comes after them.
    pub sources: Vec<String>,
}

/// What a held file is worth.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct HeldScore {
    /// Canonical name.
    pub file: String,
    /// What it is ranked by.
    pub score: f64,
}

// ---- POST /v1/regions/{region}/caches/{cache}/holdings -----------------------------------------

/// What a cache holds, in full or since a generation.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HoldingsReport {
    /// State after this report; rises with every change the cache makes. A list that is longer than one report may
    /// be is told as the first report's full list and further reports that build on it, each a generation of its own.
    pub generation: u64,
    /// What this report builds on; none: it is the full list.
    pub since: Option<u64>,
    /// Files it now hands out.
    pub added: Vec<Held>,
    /// Files it no longer has (canonical names).
    pub removed: Vec<String>,
}

/// A file that a cache hands out.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// Canonical name.
    pub file: String,
    /// Bytes.
    pub size: u64,
}

/// Answer to a [`HoldingsReport`].
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct HoldingsAck {
    /// What the API now has. When it is not the report's generation (a delta on something it does not have), send in full.
    pub generation: u64,
}

/// Files added and removed in one [`HoldingsReport`].
pub const HOLDINGS_PER_REPORT_MAX: usize = 10_000;

// ---- POST /v1/regions/{region}/caches/{cache}/fetches ------------------------------------------

/// A cache is about to fetch a file from its content server, or could not.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FetchNote {
    /// Canonical name.
    pub file: String,
    /// Bytes, as far as is known.
    pub size: u64,
    /// Which of the two. That it has the file is told by its holdings.
    pub state: FetchState,
}

/// How far a fetch is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FetchState {
    /// It is about to begin.
    Begins,
    /// It failed.
    Failed,
}

/// Whether a fetch may begin.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct FetchAnswer {
    /// A cache that fetches the file from its content server already: wait, and ask that one. None: go ahead.
    pub fetching: Option<String>,
}

// ---- GET /v1/held?file=NAME --------------------------------------------------------------------

/// Which caches hold a file.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct HeldBy {
    /// Its canonical name.
    pub file: String,
    /// All caches that hand it out, by region and name; none that a purge of it has not reached yet.
    pub caches: Vec<Holder>,
}

/// A cache that holds a file.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Holder {
    /// Its region.
    pub region: RegionId,
    /// Its name.
    pub cache: String,
    /// Links name it: it is alive and not draining.
    pub linked: bool,
}
