//! What copies of the API read: ratings (binlog and snapshots), and what links are made from.

use geo::RegionId;
use serde::{Deserialize, Serialize};

use super::{CacheGeneration, HotFile, Load};

// ---- GET /v1/snapshot --------------------------------------------------------------------------

/// What there is to copy of the ratings.
///
/// `GET /v1/snapshot/{offset}?lineage=ID&from=N` gives bytes of a snapshot from the byte N on, at most
/// [`COPY_BYTES_MAX`], none at its end. `GET /v1/binlog?lineage=ID&after=OFFSET&wait_ms=N` gives whole frames from OFFSET on,
/// as they stand in the binlog, at most so many bytes or one frame; none when there is none within the wait. Both are
/// `application/octet-stream`; the binlog's answer has the headers [`BINLOG_END`] and [`BINLOG_TIME`]. What is not there, or of
/// another lineage, is answered 410.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Copies {
    /// Which binlog the offsets are of, 32 hexadecimal digits.
    pub lineage: String,
    /// Offset after the last durable frame.
    pub end: u64,
    /// Offset of the oldest frame that is kept.
    pub binlog_start: u64,
    /// Oldest first.
    pub snapshots: Vec<SnapshotFile>,
    /// How the ratings are kept; none of an older API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<RatingsSettings>,
}

/// What a copy has to have in its config as its primary has it: otherwise the two rank and forget differently.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct RatingsSettings {
    /// `ratings.half_life_hour_s`, seconds.
    pub half_life_hour_s: f64,
    /// `ratings.half_life_days_s`, seconds.
    pub half_life_days_s: f64,
    /// `ratings.hour_share`.
    pub hour_share: f64,
    /// `limits.pairs_max`.
    pub pairs_max: usize,
}

impl RatingsSettings {
    /// What differs from the primary's, "ratings.hour_share is 0.5 here and 0.05 there", one an entry.
    #[must_use]
    pub fn differences(&self, primary: &Self) -> Vec<String> {
        let pairs = |settings: &Self| settings.pairs_max.to_string();
        [
            ("ratings.half_life_hour_s", self.half_life_hour_s.to_string(), primary.half_life_hour_s.to_string()),
            ("ratings.half_life_days_s", self.half_life_days_s.to_string(), primary.half_life_days_s.to_string()),
            ("ratings.hour_share", self.hour_share.to_string(), primary.hour_share.to_string()),
            ("limits.pairs_max", pairs(self), pairs(primary)),
        ]
        .into_iter()
        .filter(|(_, here, there)| here != there)
        .map(|(key, here, there)| format!("{key} is {here} here and {there} there"))
        .collect()
    }
}

/// A snapshot that can be copied.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct SnapshotFile {
    /// Where in the binlog it was begun: frames from here on are needed with it.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
}

/// Bytes of one answer with parts of a snapshot or the binlog.
pub const COPY_BYTES_MAX: usize = 4 << 20;

/// Header: offset after the last durable frame at the moment of the answer.
pub const BINLOG_END: &str = "binlog-end";

/// Header: that moment, milliseconds since 1970.
pub const BINLOG_TIME: &str = "binlog-time-ms";

// ---- GET /v1/state -----------------------------------------------------------------------------

/// What links are made from, beside topology, geo table, purges ([`super::PurgeLog`]) and holdings ([`CacheHoldings`]). The
/// answer has an `ETag`; with `If-None-Match` one that has not changed is answered 304. The header [`STATE_NOW`] is on both.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct LinkState {
    /// All servers that have ever reported since the API started, by name.
    pub servers: Vec<ServerSeen>,
    /// Hot files of the regions that have some.
    pub hot: Vec<HotRegion>,
    /// Regions that are full.
    pub diverted: Vec<Diverted>,
    /// How far the holdings of each cache are, by name.
    pub holdings: Vec<CacheGeneration>,
    /// Sequence of the last purge, 0 while there was none.
    pub purge_sequence: u64,
}

/// A server's last report.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ServerSeen {
    /// Its name.
    pub name: String,
    /// When, on the scale of [`STATE_NOW`].
    pub at_ms: u64,
    /// When it last said that it is well, likewise.
    pub well_ms: u64,
    /// As it reported.
    pub healthy: bool,
    /// As it reported.
    pub load: Load,
    /// Requests per second, smoothed.
    pub requests: f64,
    /// Bits per second, smoothed.
    pub bits: f64,
    /// The purges that it goes by; none: it has not said.
    pub purges: Option<u64>,
    /// The share of its weight that it takes while it rests. Left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<f64>,
}

/// The hot files of a region.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct HotRegion {
    /// The region.
    pub region: RegionId,
    /// By name.
    pub files: Vec<HotFile>,
}

/// A region that is full.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Diverted {
    /// The region.
    pub region: RegionId,
    /// Share of its clients that goes elsewhere, 0..=1.
    pub share: f64,
}

/// Header: the moment of the answer, milliseconds since the API started.
pub const STATE_NOW: &str = "state-now-ms";

// ---- GET /v1/state/holdings/{cache}?since=GENERATION&from=PREFIX ----------------------------------

/// What one cache holds, in pages when it is everything: ask on with `from` until there is no `next`, then from the
/// first page's generation on with `since`, for what changed meanwhile.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct CacheHoldings {
    /// Generation after this answer.
    pub generation: u64,
    /// What it builds on; none: a page of everything.
    pub since: Option<u64>,
    /// Canonical names of what it holds (now).
    pub added: Vec<String>,
    /// What it no longer holds: first eight bytes of content ids as 16 hexadecimal digits.
    pub removed: Vec<String>,
    /// Where the next page begins, as in `removed`; none: this was the last one.
    pub next: Option<String>,
}

/// Files of one page of [`CacheHoldings`].
pub const HOLDINGS_PAGE_MAX: usize = 50_000;

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::openapi::tests::check_body;

    #[test]
    fn bodies_are_written_like_this() {
        check::<Copies>(
            r#"{"lineage":"0123456789abcdef0123456789abcdef","end":9,"binlog_start":5,"snapshots":[{"offset":5,"bytes":70}]}"#,
        );
        check::<Copies>(
            r#"{"lineage":"0123456789abcdef0123456789abcdef","end":9,"binlog_start":5,"snapshots":[],"settings":{"half_life_hour_s":3600.0,"half_life_days_s":172800.0,"hour_share":0.05,"pairs_max":100}}"#,
        );
        check::<LinkState>(
            r#"{"servers":[{"name":"sun4-1-1","at_ms":7,"well_ms":6,"healthy":true,"load":{"bits_per_second":1.0,"requests_per_second":2.0,"connections":3,"cpu_pressure":0.5},"requests":2.5,"bits":1.5,"purges":null}],"hot":[{"region":4,"files":[{"file":"c1/a","spread":2}]}],"diverted":[{"region":4,"share":0.25}],"holdings":[{"cache":"cache4-1","generation":3}],"purge_sequence":0}"#,
        );
        check::<CacheHoldings>(
            r#"{"generation":3,"since":2,"added":["c1/a"],"removed":["0123456789abcdef"],"next":null}"#,
        );
        check::<CacheHoldings>(
            r#"{"generation":3,"since":null,"added":["c1/a"],"removed":[],"next":"0123456789abcdef"}"#,
        );
    }

    #[test]
    fn what_a_copy_has_otherwise_is_named() {
        let there =
            RatingsSettings { half_life_hour_s: 3600.0, half_life_days_s: 172_800.0, hour_share: 0.05, pairs_max: 100 };
        assert_eq!(there.differences(&there), [] as [&str; 0]);
        let here = RatingsSettings { half_life_hour_s: 60.0, pairs_max: 7, ..there };
        assert_eq!(
            here.differences(&there),
            ["ratings.half_life_hour_s is 60 here and 3600 there", "limits.pairs_max is 7 here and 100 there"]
        );
        let here = RatingsSettings { half_life_days_s: 5.0, hour_share: 0.5, ..there };
        assert_eq!(
            here.differences(&there),
            ["ratings.half_life_days_s is 5 here and 172800 there", "ratings.hour_share is 0.5 here and 0.05 there"]
        );
    }

    #[track_caller]
    fn check<T: DeserializeOwned + Serialize>(body: &str) {
        let value: T = serde_json::from_str(body).unwrap();
        assert_eq!(serde_json::to_string(&value).unwrap(), body);
        check_body::<T>(body);
    }
}
