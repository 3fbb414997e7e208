//! What must not be handed out any more, and who goes by that.

use geo::RegionId;
use serde::{Deserialize, Serialize};

// ---- POST /v1/purge ----------------------------------------------------------------------------

/// What is stored must no longer be handed out (hard), or not without asking the content server (soft).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeRequest {
    /// Chosen by the caller, 1..=64 of `a-z 0-9 -`: a purge that is sent again under its id is one purge.
    pub id: String,
    /// What `value` names.
    pub what: PurgeWhat,
    /// The file, prefix or tag; see [`PurgeWhat`].
    pub value: String,
    /// How.
    pub mode: PurgeMode,
    /// Servers of this region only; none: the fleet.
    #[serde(default)]
    pub region: Option<RegionId>,
}

/// What a purge names.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PurgeWhat {
    /// One file, by its canonical name or as a site's URL writes it.
    File,
    /// Everything in a folder and below, `c100500/photos/`; whole segments. Empty: everything.
    Prefix,
    /// Every response whose `Cache-Tag` or `Surrogate-Key` had this tag.
    Tag,
}

/// How a purge works.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PurgeMode {
    /// Gone: as if it had never been stored.
    Hard,
    /// Stale: revalidated before it is served, and served only if the content server cannot be had.
    Soft,
}

/// The purge is durable.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PurgeAck {
    /// Its place in the log.
    pub sequence: u64,
    /// What may be wrong with it: a content server that the topology does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Longest [`PurgeRequest::id`], bytes.
pub const PURGE_ID_BYTES_MAX: usize = 64;

// ---- GET /v1/purge?after=SEQ&wait_ms=N ---------------------------------------------------------

/// Entries of the log after the one that the follower named; by asking it says that it goes by all up to that one.
/// The answer waits up to `wait_ms` (at most half the API's `limits.request_s`) when there are none.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PurgeLog {
    /// The log's last entry; 0 while there is none.
    pub latest: u64,
    /// The follower has missed entries that are no longer kept, or knows some that the log has lost: what was stored before this sequence must go.
    pub floor: Option<u64>,
    /// In order, at most [`PURGES_PER_ANSWER_MAX`]; there is more when the last one is not `latest`.
    pub purges: Vec<Purge>,
}

/// An entry of the log.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Purge {
    /// Its place; each is greater than the one before.
    pub sequence: u64,
    /// When it was accepted, milliseconds since 1970; for people, nothing is decided by it at a server.
    pub at_ms: u64,
    /// As the caller chose it.
    pub id: String,
    /// What `value` names.
    pub what: PurgeWhat,
    /// As in the request, without a leading slash.
    pub value: String,
    /// How.
    pub mode: PurgeMode,
    /// Servers of this region only; none: the fleet.
    pub region: Option<RegionId>,
}

/// Entries of one [`PurgeLog`].
pub const PURGES_PER_ANSWER_MAX: usize = 10_000;

// ---- GET /v1/purge/{sequence}/acknowledgements -------------------------------------------------

/// Who goes by a purge.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PurgeAcknowledgements {
    /// The purge.
    pub sequence: u64,
    /// Suns and caches that it is for, by name.
    pub servers: Vec<PurgeServer>,
}

/// One server and one purge.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PurgeServer {
    /// Its name.
    pub server: String,
    /// Whether it goes by the purge.
    pub state: PurgeState,
    /// Sequence up to which it goes by the log; none: it has not asked since the API started.
    pub applied: Option<u64>,
}

/// How far a server is with a purge.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PurgeState {
    /// It goes by it.
    Applied,
    /// It asks for entries and has not got there.
    Waiting,
    /// It has not asked for a while: down, or cut off.
    Silent,
}

// ---- a server's internal listener: GET and POST /v1/purge --------------------------------------

/// A purge that an operator brings to a server without the log, while the API is away. Answered with [`PurgeMark`];
/// 409, with the server's mark as well, when `number` is not above its `direct`.
///
/// It is in force at the servers that answered 200, and nowhere else: no log has it, so a server that was down or cut off
/// never hears of it, and serves what it holds when it is back. Who sends it keeps count of the servers that did not
/// answer and repeats the purge, best through the API's log once that is back; `sunctl purge` does so while it waits.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DirectPurge {
    /// As of a [`PurgeRequest`]: the same id under the same number is one purge.
    pub id: String,
    /// Above the greatest `direct` of all servers that answer, so that it means the same everywhere.
    pub number: u64,
    /// What `value` names.
    pub what: PurgeWhat,
    /// The file, prefix or tag.
    pub value: String,
    /// How.
    pub mode: PurgeMode,
}

/// How far a server goes by purges.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct PurgeMark {
    /// Sequence of the API's log.
    pub log: u64,
    /// Number of the last direct purge.
    pub direct: u64,
}
