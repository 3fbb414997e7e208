//! What goes over the wire: every body of the API, completely.
//!
//! JSON both ways. Unknown fields of a request are refused, unknown fields of an answer are ignored.
//! Files are named by their canonical name, `c100500/path`. Scores are `log2` of a forward-decayed sum
//! and mean nothing but their order; ratings are the decayed downloads that the score stands for now.

mod following;

use std::net::IpAddr;

pub use following::*;
use geo::{RegionId, Scheme};
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
    /// is refused: 409, with `known boot N` in its detail. 409 without that: it is more than a day ahead.
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

// ---- POST /v1/links ----------------------------------------------------------------------------

/// A back end asks for links.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LinksRequest {
    /// Address of the client who will follow the links.
    pub client: IpAddr,
    /// Canonical names or URL paths, at most [`LINKS_PER_REQUEST_MAX`].
    pub files: Vec<String>,
    /// Scheme of the links; servers without a port for it are passed over.
    #[serde(default)]
    pub scheme: Scheme,
    /// Say why each link names its server.
    #[serde(default)]
    pub explain: bool,
}

/// Links, in the order of the request's files.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Links {
    /// Regions of the client, best first.
    pub regions: Vec<RegionId>,
    /// One a file.
    pub links: Vec<Link>,
}

/// Where one file is to be fetched.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Link {
    /// As asked for.
    pub file: String,
    /// The link; none when the name is no file of ours (`error` says why).
    pub url: Option<String>,
    /// Name of the server, `cache4-1` or `sun4-2-1`; `content server 7` when the link leads there itself.
    pub server: Option<String>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// With `explain`: evidence for the region, order of suns, holders, hot spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explain: Option<Explanation>,
}

/// Why a link names its server.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Explanation {
    /// What told the region, "prefix 127.1.0.0/16". When another region comes first and has nobody to name, that too:
    /// "...; region 5 comes first, and no server of it can be linked".
    pub evidence: String,
    /// Region whose server the link names.
    pub region: RegionId,
    /// Suns of that region in the file's order, owner first.
    pub suns: Vec<String>,
    /// Caches of that region that hold it.
    pub holders: Vec<String>,
    /// How many suns share it, 1 unless hot.
    pub spread: usize,
    /// "held by a cache", "owner", "stand-in: owner is down", "hot: one of 3", ...
    pub reason: String,
    /// How the link is signed, where the file's class has signed links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<SignedBy>,
}

/// The signature of a link; see [`crate::signing`] for its form.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SignedBy {
    /// Id of the key.
    pub key: String,
    /// Until when the link is good, seconds since 1970.
    pub expires_s: u64,
    /// What it is good for, "file" or "folder /c7/films/1/".
    pub covers: String,
}

/// Files of one [`LinksRequest`].
pub const LINKS_PER_REQUEST_MAX: usize = 10_000;

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

// ---- POST /v1/status ---------------------------------------------------------------------------

/// How a sun or cache is, each second.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StatusReport {
    /// Name of the reporting server.
    pub server: String,
    /// Version of the topology it goes by.
    pub topology_version: u64,
    /// False: do not link to it (draining, or it knows itself to be ill).
    pub healthy: bool,
    /// What it carries.
    pub load: Load,
    /// Its fullness, tier by tier.
    pub tiers: Vec<Tier>,
    /// Its most requested files, at most [`HOTTEST_MAX`].
    pub hottest: Vec<HotRate>,
    /// Generations of the holdings it knows, so that the answer can be a delta.
    pub holdings_known: Vec<CacheGeneration>,
    /// The share of its weight that it takes, above 0 and below 1, while it rests. Left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<f64>,
}

/// What a server carries.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Sent to clients, bits per second.
    pub bits_per_second: f64,
    /// Requests of clients per second.
    pub requests_per_second: f64,
    /// Open client connections.
    pub connections: u64,
    /// `some avg10` of /proc/pressure/cpu, percent; 0 where the kernel has none.
    pub cpu_pressure: f64,
}

/// One cache tier.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// "ram", "nvme", "vault".
    pub name: String,
    /// Bytes held.
    pub bytes: u64,
    /// Bytes it may hold.
    pub bytes_max: u64,
    /// Client requests it answered since start.
    pub hits: u64,
}

/// How often one file is asked for at one server.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HotRate {
    /// Canonical name.
    pub file: String,
    /// Requests per second.
    pub requests_per_second: f64,
    /// Bits per second.
    pub bits_per_second: f64,
}

/// How far holdings of one cache are known.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CacheGeneration {
    /// The cache's name.
    pub cache: String,
    /// Generation of its holdings.
    pub generation: u64,
}

/// What the reporter's region knows.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RegionState {
    /// Suns and caches of the region that reported within 3 s, by name.
    pub servers: Vec<ServerState>,
    /// Files with more than one owner.
    pub hot: Vec<HotFile>,
    /// Changes of the holdings since what the report knows; caches without a change are left out.
    pub holdings: Vec<HoldingsDelta>,
    /// Version of the topology the API goes by.
    pub topology_version: u64,
}

/// A live server.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ServerState {
    /// Its name.
    pub name: String,
    /// As it reported.
    pub healthy: bool,
    /// As it reported.
    pub load: Load,
    /// How busy it is, smoothed over seconds: 1.0 as the mean of the region's suns ([`crate::balance`]); what those
    /// go by who choose between the suns that share a hot file. An answer without it is an older API's.
    #[serde(default = "as_the_mean")]
    pub busy: f64,
    /// The share of its weight that it takes while it rests. Left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<f64>,
}

const fn as_the_mean() -> f64 {
    1.0
}

/// A file that several suns keep.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct HotFile {
    /// Canonical name.
    pub file: String,
    /// How many first suns of its order keep it, at least 2.
    pub spread: usize,
}

/// What one cache holds, compactly: the first eight bytes of content ids as 16 hexadecimal digits.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct HoldingsDelta {
    /// The cache's name.
    pub cache: String,
    /// Generation after this delta.
    pub generation: u64,
    /// What it builds on; none: the full list.
    pub since: Option<u64>,
    /// Now held.
    pub added: Vec<String>,
    /// No longer held.
    pub removed: Vec<String>,
}

/// Hottest files of one report.
pub const HOTTEST_MAX: usize = 100;

/// A server that has not reported for so long is not linked, seconds.
pub const SILENT_S: f64 = 3.0;

// ---- GET /v1/regions/{region}/servers ----------------------------------------------------------

/// The servers of a region that reported within [`SILENT_S`].
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Servers {
    /// The region asked about.
    pub region: RegionId,
    /// By name.
    pub servers: Vec<ServerNow>,
}

/// A server as it reported last.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ServerNow {
    /// How it is.
    pub state: ServerState,
    /// Its fullness, tier by tier.
    pub tiers: Vec<Tier>,
    /// Version of the topology it goes by.
    pub topology_version: u64,
}

// ---- GET /v1/regions/{region}/hot?limit=N ------------------------------------------------------

/// The hot files of a region at this moment, most asked-for first.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Hot {
    /// The region asked about.
    pub region: RegionId,
    /// At most `limit` (default 100, at most 10,000; a region has at most `hot.files_max`).
    pub files: Vec<HotNow>,
}

/// A file that several suns share, and how much it is asked for.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct HotNow {
    /// Canonical name.
    pub file: String,
    /// Requests per second, all suns of the region together. 0 for a file that nobody has among its hottest any more.
    pub requests_per_second: f64,
    /// Bits per second, likewise.
    pub bits_per_second: f64,
    /// How many suns may share it, at least 2: `r`.
    pub spread: usize,
    /// The suns that links name for it now, its owner first: the first `spread` living ones of its order.
    pub suns: Vec<String>,
}

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

// ---- errors ------------------------------------------------------------------------------------

pub use daemon::problem::Problem;

#[cfg(test)]
mod tests;
