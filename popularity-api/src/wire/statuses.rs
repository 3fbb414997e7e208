//! How servers are, and what their region knows of each other.

use geo::RegionId;
use serde::{Deserialize, Serialize};

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
