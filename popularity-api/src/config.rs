//! Settings of the API; `deploy/config/popularity-api.toml` shows them all with their defaults.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::engine;
use crate::engine::decay::Decay;
use crate::holdings::Bounds;
use crate::hot::Rule;
use crate::saturation;

/// All settings.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the API listens; never where clients are. Default 127.0.0.1:8090.
    pub listen: SocketAddr,
    /// Admin port. Default 127.0.0.1:9090.
    pub admin: SocketAddr,
    /// The topology's file. Default /etc/sun/topology.toml.
    pub topology: PathBuf,
    /// Binlog, snapshots, last good topology. Default /var/lib/sun/popularity-api.
    pub data: PathBuf,
    /// Token file of all bearers. Default /etc/sun/tokens.toml.
    pub tokens: PathBuf,
    /// Evidence for the region of a client. Default none: every client is in the topology's default region.
    pub geo: geo::resolver::Sources,
    /// Group commit of the binlog, milliseconds; at most half of `limits.request_s`. Default 200; too small: a disk flush for every batch, too
    /// large: reporters wait.
    pub commit_ms: u64,
    /// How long a drain may take, seconds. Default 30; too small: batches are not acknowledged and come again,
    /// too large: a restart waits for the slowest caller.
    pub drain_s: u64,
    /// How ratings fade and rank.
    pub ratings: Ratings,
    /// Bounds on what is kept and on callers.
    pub limits: Limits,
    /// Snapshots of the ratings.
    pub snapshots: Snapshots,
    /// When a file is spread over several suns.
    pub hot: Hot,
    /// When links pass a region over because it is full.
    pub saturation: Saturation,
    /// Logs.
    pub log: daemon::telemetry::LogConfig,
}

/// How ratings fade and rank.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ratings {
    /// Half-life of the rating that notices what goes viral, seconds. Default 3600; too small: noise, too
    /// large: it notices late.
    pub half_life_hour_s: u64,
    /// Half-life of the rating that knows the catalogue, seconds. Default 172800; too small: caches churn, too
    /// large: they keep what was popular.
    pub half_life_days_s: u64,
    /// Weight of the first in the score, 0..=1. Default 0.25; too small: viral files come late, too large:
    /// a single download counts for much.
    pub hour_share: f64,
    /// Exponent of size in what a cache wants, `rating / size^exponent`, 0..=1. Default 0.5; 0 saves the most
    /// bytes, 1 answers the most requests.
    pub size_exponent: f64,
}

/// Bounds on what is kept and on callers.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Rated files of one region; beyond, the lowest go, for files that are seen a second time. Default 5000000; too
    /// small: the tail is forgotten, too large: RAM (24 bytes each, and every name once with about 27 bytes beside it).
    pub pairs_max: usize,
    /// Files of one cache that are known to be held. Default 2000000; too small: held files are not linked,
    /// too large: RAM (about 100 bytes each).
    pub held_max: usize,
    /// Changes of one cache's holdings that are kept for suns; who is further behind is told everything.
    /// Default 100000; too small: full lists go out, too large: RAM (24 bytes each).
    pub holdings_log_max: usize,
    /// Body of one call, bytes. Default 33554432; too small: large batches and full holdings are refused
    /// with 413, too large: one call can take much of `bodies_bytes_max`.
    pub body_bytes_max: usize,
    /// Bodies of all calls under way, bytes; further ones wait for their turn. At least `body_bytes_max`. Default
    /// 268435456; too small: large calls wait for each other, too large: callers can fill RAM.
    pub bodies_bytes_max: usize,
    /// Bytes of batches that wait for their commit. Default 67108864; too small: reporters are told to come
    /// again (429), too large: RAM.
    pub queue_bytes_max: usize,
    /// Open connections; more wait. Default 1024; too small: callers wait, too large: descriptors run out.
    pub connections_max: usize,
    /// One call, seconds. Default 10; too small: large calls fail, too large: hung ones hold their connection.
    pub request_s: u64,
}

/// Snapshots of the ratings.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Snapshots {
    /// How often one is written, seconds. Default 600; too small: needless writing, too large: a start replays
    /// much binlog.
    pub every_s: u64,
    /// One is written as soon as so much binlog would have to be replayed, bytes. Default 268435456; as above.
    pub binlog_bytes: u64,
}

/// When a file is spread over several suns.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hot {
    /// Share of a sun's mean requests that one sun takes of one file. Default 0.05; too small: needless
    /// copies, too large: uneven suns.
    pub request_share: f64,
    /// Share of a network card that one sun takes for one file. Default 0.5; as above.
    pub nic_share: f64,
    /// Requests per second below which a file's share of requests does not make it hot. Default 20; too
    /// small: quiet regions spread everything, too large: small regions never spread.
    pub requests_min: f64,
    /// How long demand stays below half before the spread is lowered, seconds. Default 600; too small:
    /// copies come and go, too large: they stay.
    pub lower_after_s: u64,
    /// Hot files of one region. Default 1000; too small: hot files stay on one sun, too large: long answers.
    pub files_max: usize,
    /// Suns beside the owner that keep one hot file. Default 20; too small: in a region of more suns than that a very
    /// hot file overloads those that keep it, too large: each of them fetches and keeps a copy.
    pub copies_max: usize,
}

/// When links pass a region over because it is full, for a share of its clients.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Saturation {
    /// Share of the network cards of a region's living suns, or of its living caches, above which more and more of its
    /// clients are sent to their next region, 0..=2; 2 never. Default 0.9; too small: clients go far without need, too
    /// large: it is noticed when downloads are slow already.
    pub above: f64,
    /// Share below which they come back, at most `above`; between the two nothing changes. Default 0.75; too small: they
    /// are away for long, too large: they come and go.
    pub below: f64,
    /// Most that the share of diverted clients changes, of all clients a second, 0..=1: when the cards are 0.1 or more
    /// outside the two bounds, in proportion when they are less. Default 0.01; too small: a region is full for long, too
    /// large: all of them go before what they carried is gone, and regions fill and drain in turn.
    pub per_s: f64,
}

impl Config {
    /// Everything that is wrong with the numbers. What is let through cannot make a clock or a counter overflow.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let Self { ratings, hot, limits, snapshots, saturation, .. } = self;
        let mut problems = Vec::new();
        let mut whole = |key: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                problems.push(format!("{key} = {value}: it is within {least}..={most}"));
            }
        };
        let size = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        // A batch that gathers as long as a call may take is never acknowledged.
        whole("commit_ms", self.commit_ms, 0, limits.request_s.saturating_mul(500).min(60_000));
        whole("drain_s", self.drain_s, 0, DAY_S);
        whole("ratings.half_life_hour_s", ratings.half_life_hour_s, 1, 3650 * DAY_S);
        whole("ratings.half_life_days_s", ratings.half_life_days_s, 1, 3650 * DAY_S);
        whole("limits.pairs_max", size(limits.pairs_max), 16, 100_000_000);
        whole("limits.held_max", size(limits.held_max), 1, 100_000_000);
        whole("limits.holdings_log_max", size(limits.holdings_log_max), 0, 100_000_000);
        whole("limits.body_bytes_max", size(limits.body_bytes_max), 1024, 1 << 30);
        whole("limits.bodies_bytes_max", size(limits.bodies_bytes_max), size(limits.body_bytes_max), 1 << 40);
        whole("limits.queue_bytes_max", size(limits.queue_bytes_max), 1 << 20, 1 << 31);
        whole("limits.connections_max", size(limits.connections_max), 1, 1_000_000);
        whole("limits.request_s", limits.request_s, 1, DAY_S);
        whole("snapshots.every_s", snapshots.every_s, 1, DAY_S);
        whole("snapshots.binlog_bytes", snapshots.binlog_bytes, 1 << 20, 1 << 40);
        whole("hot.lower_after_s", hot.lower_after_s, 0, DAY_S);
        whole("hot.files_max", size(hot.files_max), 0, 100_000);
        whole("hot.copies_max", size(hot.copies_max), 0, 100_000);
        let mut fraction = |key: &str, value: f64, good: bool, allowed: &str| {
            if !good {
                problems.push(format!("{key} = {value}: it is {allowed}"));
            }
        };
        for (key, value) in
            [("ratings.hour_share", ratings.hour_share), ("ratings.size_exponent", ratings.size_exponent)]
        {
            fraction(key, value, (0.0..=1.0).contains(&value), "within 0..=1");
        }
        for (key, value) in [("hot.request_share", hot.request_share), ("hot.nic_share", hot.nic_share)] {
            fraction(key, value, value > 0.0 && value <= 1.0, "above 0 and at most 1");
        }
        let Saturation { above, below, per_s } = *saturation;
        fraction("saturation.above", above, above > 0.0 && above <= 2.0, "above 0 and at most 2");
        fraction("saturation.below", below, below >= 0.0 && below <= above, "within 0..=saturation.above");
        fraction("saturation.per_s", per_s, per_s > 0.0 && per_s <= 1.0, "above 0 and at most 1");
        let requests_min = hot.requests_min;
        fraction("hot.requests_min", requests_min, requests_min >= 0.0 && requests_min.is_finite(), "not negative");
        problems
    }

    /// The engine's part. Nothing when [`Config::problems`] finds a bad half-life or share.
    #[must_use]
    pub fn engine(&self) -> Option<engine::Settings> {
        let Ratings { half_life_hour_s, half_life_days_s, hour_share, .. } = self.ratings;
        Some(engine::Settings {
            decay: Decay::new(half_life_hour_s, half_life_days_s, hour_share)?,
            pairs_max: self.limits.pairs_max,
            commit: Duration::from_millis(self.commit_ms),
            queue_bytes_max: self.limits.queue_bytes_max,
            snapshot_every: Duration::from_secs(self.snapshots.every_s),
            snapshot_binlog_bytes: self.snapshots.binlog_bytes,
        })
    }

    /// The bounds on holdings.
    #[must_use]
    pub const fn holdings(&self) -> Bounds {
        Bounds { files_max: self.limits.held_max, log_max: self.limits.holdings_log_max }
    }

    /// The bounds of full regions.
    #[must_use]
    pub const fn saturation(&self) -> saturation::Bounds {
        let Saturation { above, below, per_s } = self.saturation;
        saturation::Bounds { above, below, per_s }
    }

    /// The rule for hot files.
    #[must_use]
    pub const fn rule(&self) -> Rule {
        Rule {
            request_share: self.hot.request_share,
            nic_share: self.hot.nic_share,
            requests_min: self.hot.requests_min,
            lower_after_ms: self.hot.lower_after_s.saturating_mul(1000),
            files_max: self.hot.files_max,
            copies_max: self.hot.copies_max,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 8090).into(),
            admin: ([127, 0, 0, 1], 9090).into(),
            topology: "/etc/sun/topology.toml".into(),
            data: "/var/lib/sun/popularity-api".into(),
            tokens: "/etc/sun/tokens.toml".into(),
            geo: geo::resolver::Sources::default(),
            commit_ms: 200,
            drain_s: 30,
            ratings: Ratings::default(),
            limits: Limits::default(),
            snapshots: Snapshots::default(),
            hot: Hot::default(),
            saturation: Saturation::default(),
            log: daemon::telemetry::LogConfig::default(),
        }
    }
}

impl Default for Ratings {
    fn default() -> Self {
        Self { half_life_hour_s: 3600, half_life_days_s: 48 * 3600, hour_share: 0.25, size_exponent: 0.5 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pairs_max: 5_000_000,
            held_max: 2_000_000,
            holdings_log_max: 100_000,
            body_bytes_max: 32 << 20,
            bodies_bytes_max: 256 << 20,
            queue_bytes_max: 64 << 20,
            connections_max: 1024,
            request_s: 10,
        }
    }
}

impl Default for Snapshots {
    fn default() -> Self {
        Self { every_s: 600, binlog_bytes: 256 << 20 }
    }
}

impl Default for Saturation {
    fn default() -> Self {
        let saturation::Bounds { above, below, per_s } = saturation::Bounds::default();
        Self { above, below, per_s }
    }
}

impl Default for Hot {
    fn default() -> Self {
        let Rule { request_share, nic_share, requests_min, lower_after_ms, files_max, copies_max } = Rule::default();
        Self { request_share, nic_share, requests_min, lower_after_s: lower_after_ms / 1000, files_max, copies_max }
    }
}

const DAY_S: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_shows_the_defaults_and_every_option() {
        let text = include_str!("../../deploy/config/popularity-api.toml");
        let shipped: Config = daemon::config::parse(text, "popularity-api.toml").unwrap();
        assert_eq!(shipped, Config::default());
        let all = serde_json::to_value(Config::default()).unwrap();
        for (key, value) in all.as_object().unwrap() {
            assert!(text.contains(key.as_str()), "{key} is not in the shipped file");
            for inner in value.as_object().into_iter().flat_map(|table| table.keys()) {
                assert!(text.contains(inner.as_str()), "{key}.{inner} is not in the shipped file");
            }
        }
    }

    #[test]
    fn bad_numbers_are_named() {
        assert_eq!(Config::default().problems(), Vec::<String>::new());
        for (bad, expected) in [
            ("commit_ms = 5001", "commit_ms = 5001: it is within 0..=5000"),
            ("ratings.hour_share = 1.5", "ratings.hour_share = 1.5: it is within 0..=1"),
            ("ratings.half_life_hour_s = 0", "ratings.half_life_hour_s = 0: it is within 1..=315360000"),
            ("hot.nic_share = nan", "hot.nic_share = NaN: it is above 0 and at most 1"),
            ("saturation.above = 2.5", "saturation.above = 2.5: it is above 0 and at most 2"),
            ("saturation.below = 0.95", "saturation.below = 0.95: it is within 0..=saturation.above"),
            ("saturation.per_s = 0.0", "saturation.per_s = 0: it is above 0 and at most 1"),
            ("hot.requests_min = inf", "hot.requests_min = inf: it is not negative"),
            ("limits.connections_max = 0", "limits.connections_max = 0: it is within 1..=1000000"),
            ("limits.pairs_max = 15", "limits.pairs_max = 15: it is within 16..=100000000"),
            ("limits.bodies_bytes_max = 1024", "limits.bodies_bytes_max = 1024: it is within 33554432..=1099511627776"),
            ("snapshots.every_s = 0", "snapshots.every_s = 0: it is within 1..=86400"),
            (
                "snapshots.every_s = 9223372036854775807",
                "snapshots.every_s = 9223372036854775807: it is within 1..=86400",
            ),
        ] {
            let config: Config = daemon::config::parse(bad, "test").unwrap();
            assert_eq!(config.problems(), [expected]);
        }
    }
}
