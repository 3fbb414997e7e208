//! Settings of the API; `deploy/config/popularity-api.toml` shows them all with their defaults.

mod cluster;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::copies::Copies;
use crate::engine;
use crate::engine::decay::Decay;
use crate::history;
use crate::holdings::Bounds;
use crate::hot::Rule;
use crate::pressure::Pressure;
use crate::saturation;
use crate::wanted::Rules;
use crate::worth::Worth;
pub use cluster::Cluster;

/// All settings.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the API listens; never where clients are. Default 127.0.0.1:8090.
    pub listen: SocketAddr,
    /// Admin port. Default 127.0.0.1:9090.
    pub admin: SocketAddr,
    /// Where the topology is: a file, or a key of an etcd cluster. Default the file /etc/sun/topology.toml.
    pub topology: geo::Source,
    /// Binlog, snapshots, last good topology. Default /var/lib/sun/popularity-api.
    pub data: PathBuf,
    /// Token file of all bearers. Default /etc/sun/tokens.toml.
    pub tokens: PathBuf,
    /// File with the keys that links are signed with (see [`crate::signing::Keys`]), reread when it changes. Default
    /// none: there are no links to files of classes that are `signed`.
    pub signing_keys: Option<PathBuf>,
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
    /// What caches are to carry.
    pub wanted: Wanted,
    /// Bounds on what is kept and on callers.
    pub limits: Limits,
    /// Snapshots of the ratings.
    pub snapshots: Snapshots,
    /// Ratings in a cluster instead.
    pub cluster: Cluster,
    /// Follow another API. Default none: this one counts for itself.
    pub replica: Option<Replica>,
    /// When a file is spread over several suns.
    pub hot: Hot,
    /// When links pass a region over because it is full.
    pub saturation: Saturation,
    /// What was downloaded, row by row into ClickHouse.
    pub history: history::Settings,
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
    /// Weight of the first in the score, 0..=1. Default 0.05; too small: viral files come late, too large:
    /// a single download counts for much, and caches go by what was asked for last.
    pub hour_share: f64,
    /// Exponent of size in what a cache wants, `rating / size^exponent`, 0..=1. Default 0.5; 0 saves the most
    /// bytes, 1 answers the most requests.
    pub size_exponent: f64,
}

/// What caches are to carry.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    /// Downloads that are expected of one copy while it stays in a cache, for it to be carried. Default 1.3; too small:
    /// content servers send files ahead that nobody asks for, too large: caches stay empty.
    pub pays_min: f64,
    /// How long a cache is taken to keep a file at most, seconds; a shorter time is learnt from what it drops. Default
    /// 604800; too small: slow files are not carried, too large: downloads are expected that the rating cannot foresee.
    pub residence_max_s: u64,
    /// The busiest hour of a day beside its mean hour, at least 1. Default 2; too small: a file has too few copies in the
    /// evening, too large: needless copies.
    pub peak_factor: f64,
    /// Share of a cache's network card that one file may fill in its busiest hour; beyond, another cache carries it too.
    /// Default 0.5; too small: needless copies, too large: caches are full.
    pub nic_share: f64,
    /// How long a cache is not well before others carry its files, seconds. Default 60; too small: a restart is worth a
    /// copy of everything, too large: the region does without for so long.
    pub stand_in_after_s: u64,
    /// How long others wait for a cache that fetches a file from its content server, seconds, and one more for each
    /// mebibyte, up to an hour. Default 30; too small: a file is fetched twice, too large: they wait for a cache that hangs.
    pub claim_s: u64,
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
    /// Body of one call, as it comes and unpacked, bytes. Default 33554432; too small: large batches and full holdings are refused
    /// with 413, too large: one call can take much of `bodies_bytes_max`.
    pub body_bytes_max: usize,
    /// Bodies of all calls under way, packed and unpacked, bytes; further ones wait for their turn. At least three times
    /// `body_bytes_max`. Default 268435456; too small: large calls wait for each other, or are told to come again (429),
    /// too large: callers can fill RAM.
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
    /// Binlog that is kept for replicas and backups that read it, beyond what a start needs, bytes. Default 1073741824;
    /// too small: a replica that falls behind copies a whole snapshot, too large: disk.
    pub copies_binlog_bytes: u64,
}

/// This API is a copy of another one. It answers what is read, refuses what is written, and names the other one.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Replica {
    /// The API that it follows, `http://10.0.0.5:8090`.
    pub url: String,
    /// File with a token of the role `replica` for it.
    pub token_file: PathBuf,
    /// Follow the ratings too, not only what links are made from. Default true; false: no disk and RAM for ratings, and no
    /// answers from them (`top`, `wanted`).
    #[serde(default = "yes")]
    pub ratings: bool,
    /// Further behind than this it is not ready, seconds. Default 30; too small: it is taken out of service by every hiccup, too
    /// large: old ratings are answered.
    #[serde(default = "lag_max_s")]
    pub lag_max_s: u64,
    /// What servers and caches said is believed for so long while the other API is away, seconds; then links name the owner
    /// sun. Default 60; too small: a restart of the other API costs what caches hold, too large: links name servers that are
    /// gone.
    #[serde(default = "state_max_s")]
    pub state_max_s: u64,
}

const fn yes() -> bool {
    true
}

const fn lag_max_s() -> u64 {
    30
}

const fn state_max_s() -> u64 {
    60
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
    /// Everything that is wrong, but for files that are named. What is let through cannot make a clock or a counter overflow.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.wrong_numbers();
        problems.extend(self.one_port());
        problems.extend(self.cluster.problems(self.commit_ms, self.limits.request_s));
        problems.extend(self.history.problems());
        problems
    }

    /// One port cannot be listened on twice; port 0 is another one each time.
    fn one_port(&self) -> Option<String> {
        let (listen, admin) = (self.listen, self.admin);
        let meet = listen.ip() == admin.ip() || listen.ip().is_unspecified() || admin.ip().is_unspecified();
        (meet && listen.port() == admin.port() && listen.port() != 0)
            .then(|| format!("admin = \"{admin}\": it needs another port than listen = \"{listen}\""))
    }

    fn wrong_numbers(&self) -> Vec<String> {
        let Self { ratings, wanted, hot, limits, snapshots, saturation, .. } = self;
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
        whole("wanted.residence_max_s", wanted.residence_max_s, 1, 3650 * DAY_S);
        whole("wanted.stand_in_after_s", wanted.stand_in_after_s, 1, 3650 * DAY_S);
        whole("wanted.claim_s", wanted.claim_s, 0, DAY_S);
        whole("limits.pairs_max", size(limits.pairs_max), 16, 100_000_000);
        whole("limits.held_max", size(limits.held_max), 1, 100_000_000);
        whole("limits.holdings_log_max", size(limits.holdings_log_max), 0, 100_000_000);
        whole("limits.body_bytes_max", size(limits.body_bytes_max), 1024, 1 << 30);
        whole(
            "limits.bodies_bytes_max",
            size(limits.bodies_bytes_max),
            size(limits.body_bytes_max).saturating_mul(3),
            1 << 40,
        );
        whole("limits.queue_bytes_max", size(limits.queue_bytes_max), 1 << 20, 1 << 31);
        whole("limits.connections_max", size(limits.connections_max), 1, 1_000_000);
        whole("limits.request_s", limits.request_s, 1, DAY_S);
        whole("snapshots.every_s", snapshots.every_s, 1, DAY_S);
        whole("snapshots.binlog_bytes", snapshots.binlog_bytes, 1 << 20, 1 << 40);
        whole("snapshots.copies_binlog_bytes", snapshots.copies_binlog_bytes, 0, 1 << 44);
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
        for (key, value) in [
            ("hot.request_share", hot.request_share),
            ("hot.nic_share", hot.nic_share),
            ("wanted.nic_share", wanted.nic_share),
        ] {
            fraction(key, value, value > 0.0 && value <= 1.0, "above 0 and at most 1");
        }
        let Wanted { pays_min, peak_factor, .. } = *wanted;
        fraction("wanted.pays_min", pays_min, pays_min > 0.0 && pays_min <= 1e6, "above 0 and at most 1000000");
        fraction("wanted.peak_factor", peak_factor, (1.0..=1e6).contains(&peak_factor), "within 1..=1000000");
        let Saturation { above, below, per_s } = *saturation;
        fraction("saturation.above", above, above > 0.0 && above <= 2.0, "above 0 and at most 2");
        fraction("saturation.below", below, below >= 0.0 && below <= above, "within 0..=saturation.above");
        fraction("saturation.per_s", per_s, per_s > 0.0 && per_s <= 1.0, "above 0 and at most 1");
        let requests_min = hot.requests_min;
        fraction("hot.requests_min", requests_min, requests_min >= 0.0 && requests_min.is_finite(), "not negative");
        problems.extend(self.copy_problems());
        problems
    }

    /// What is wrong with `[replica]`.
    fn copy_problems(&self) -> Vec<String> {
        let Some(replica) = &self.replica else { return Vec::new() };
        let mut problems = Vec::new();
        for (key, value) in [("replica.lag_max_s", replica.lag_max_s), ("replica.state_max_s", replica.state_max_s)] {
            if !(1..=DAY_S).contains(&value) {
                problems.push(format!("{key} = {value}: it is within 1..={DAY_S}"));
            }
        }
        if !self.cluster.nodes.is_empty() {
            let both = "replica, cluster: an API is a copy of another one or counts in a cluster: have one of them";
            problems.push(both.to_owned());
        }
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
            copies_binlog_bytes: self.snapshots.copies_binlog_bytes,
        })
    }

    /// When reporters are asked for less.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        Pressure::new(self.limits.queue_bytes_max, Duration::from_millis(self.commit_ms))
    }

    /// What caches are to carry. Nothing when [`Config::problems`] finds a bad half-life or share.
    #[must_use]
    pub fn rules(&self) -> Option<Rules> {
        let Ratings { half_life_hour_s, half_life_days_s, hour_share, .. } = self.ratings;
        Some(self.wanted.rules(&Decay::new(half_life_hour_s, half_life_days_s, hour_share)?))
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
            topology: geo::Source::File("/etc/sun/topology.toml".into()),
            data: "/var/lib/sun/popularity-api".into(),
            tokens: "/etc/sun/tokens.toml".into(),
            signing_keys: None,
            geo: geo::resolver::Sources::default(),
            commit_ms: 200,
            drain_s: 30,
            ratings: Ratings::default(),
            wanted: Wanted::default(),
            limits: Limits::default(),
            snapshots: Snapshots::default(),
            cluster: Cluster::default(),
            replica: None,
            hot: Hot::default(),
            saturation: Saturation::default(),
            history: history::Settings::default(),
            log: daemon::telemetry::LogConfig::default(),
        }
    }
}

impl Default for Ratings {
    fn default() -> Self {
        Self { half_life_hour_s: 3600, half_life_days_s: 48 * 3600, hour_share: 0.05, size_exponent: 0.5 }
    }
}

impl Wanted {
    /// The rules, with the half-lives of the ratings.
    #[must_use]
    pub const fn rules(&self, decay: &Decay) -> Rules {
        let worth = Worth::new(decay, self.pays_min);
        let copies =
            Copies { half_lives_s: worth.half_lives_s, peak_factor: self.peak_factor, nic_share: self.nic_share };
        Rules { worth, copies }
    }
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            pays_min: 1.3,
            residence_max_s: 7 * DAY_S,
            peak_factor: 2.0,
            nic_share: 0.5,
            stand_in_after_s: 60,
            claim_s: 30,
        }
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
        Self { every_s: 600, binlog_bytes: 256 << 20, copies_binlog_bytes: 1 << 30 }
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
        let anywhere = "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"";
        let elsewhere = "listen = \"127.0.0.2:9090\"";
        for good in [anywhere, elsewhere] {
            let config: Config = daemon::config::parse(good, "test").unwrap();
            assert_eq!(config.problems(), Vec::<String>::new(), "{good}");
        }
        for (bad, expected) in [
            (
                "listen = \"127.0.0.1:9090\"",
                "admin = \"127.0.0.1:9090\": it needs another port than listen = \"127.0.0.1:9090\"",
            ),
            (
                "listen = \"0.0.0.0:9090\"",
                "admin = \"127.0.0.1:9090\": it needs another port than listen = \"0.0.0.0:9090\"",
            ),
            ("commit_ms = 5001", "commit_ms = 5001: it is within 0..=5000"),
            ("wanted.pays_min = 0.0", "wanted.pays_min = 0: it is above 0 and at most 1000000"),
            ("wanted.peak_factor = 0.5", "wanted.peak_factor = 0.5: it is within 1..=1000000"),
            ("wanted.nic_share = 1.5", "wanted.nic_share = 1.5: it is above 0 and at most 1"),
            ("wanted.residence_max_s = 0", "wanted.residence_max_s = 0: it is within 1..=315360000"),
            ("ratings.hour_share = 1.5", "ratings.hour_share = 1.5: it is within 0..=1"),
            ("ratings.half_life_hour_s = 0", "ratings.half_life_hour_s = 0: it is within 1..=315360000"),
            ("hot.nic_share = nan", "hot.nic_share = NaN: it is above 0 and at most 1"),
            ("saturation.above = 2.5", "saturation.above = 2.5: it is above 0 and at most 2"),
            ("saturation.below = 0.95", "saturation.below = 0.95: it is within 0..=saturation.above"),
            ("saturation.per_s = 0.0", "saturation.per_s = 0: it is above 0 and at most 1"),
            ("hot.requests_min = inf", "hot.requests_min = inf: it is not negative"),
            ("limits.connections_max = 0", "limits.connections_max = 0: it is within 1..=1000000"),
            ("limits.pairs_max = 15", "limits.pairs_max = 15: it is within 16..=100000000"),
            (
                "limits.bodies_bytes_max = 1024",
                "limits.bodies_bytes_max = 1024: it is within 100663296..=1099511627776",
            ),
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
