//! Settings of the daemon; `deploy/config/cache-daemon.toml` shows them all with their defaults.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Settings; `deploy/config/cache-daemon.toml` shows them all with their defaults.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder of the vault. Default /var/lib/sun/cache. How much of its disk is used is the cache's `bytes` of the
    /// topology: too small, and rated files do not fit; too large, and the disk is full before the plan knows
    /// (downloads then fail, with one WARN, until there is room).
    pub vault: PathBuf,
    /// How often the plan is made, milliseconds. Default 3000. Too small: the popularity API ranks the region all
    /// the time; too large: what becomes popular is carried late.
    pub plan_ms: u64,
    /// Candidates asked for at a time. Default 1000, at most 10,000. Too small: when the first ones cannot be
    /// fetched, nothing else is; too large: answers of megabytes that are mostly not used.
    pub candidates_max: usize,
    /// Downloading.
    pub prefill: PrefillConfig,
    /// The edge that serves clients and other servers: name, listeners, topology, certificates, API, geo.
    pub edge: sun::Config,
}

/// How files are downloaded.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrefillConfig {
    /// Downloads at a time. Default 4. Too small: a new cache fills slowly; too large: content servers and the
    /// region's uplink are busy with files that nobody waits for.
    pub parallel: usize,
    /// Deadline of a connection, milliseconds. Default 2000. Too small: distant content servers are never reached;
    /// too large: dead ones hold the downloads up.
    pub connect_ms: u64,
    /// Longest silence of a source, milliseconds. Default 10,000. Too small: busy content servers are given up; too
    /// large: hung ones hold the downloads up.
    pub idle_ms: u64,
    /// Slowest download that is worth it, bytes per second. Default 65,536. Too small: a crawling source holds a
    /// download for hours; too large: distant sources are given up.
    pub bytes_per_second_min: u64,
    /// How long a file is left alone after a failure that may pass, milliseconds; doubled by each further one.
    /// Default 5000. Too small: an ill content server is asked all the time; too large: it is well long before.
    pub retry_ms: u64,
    /// How long a file is left alone that its content server does not have or that must not be kept, milliseconds.
    /// Default 600,000. Too small: 404s all the time; too large: a file that appears is carried late.
    pub absent_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vault: "/var/lib/sun/cache".into(),
            plan_ms: 3000,
            candidates_max: 1000,
            prefill: PrefillConfig::default(),
            edge: sun::Config::default(),
        }
    }
}

impl Default for PrefillConfig {
    fn default() -> Self {
        Self {
            parallel: 4,
            connect_ms: 2000,
            idle_ms: 10_000,
            bytes_per_second_min: 65_536,
            retry_ms: 5000,
            absent_ms: 600_000,
        }
    }
}

impl Config {
    /// What is out of bounds, one problem a line; empty when nothing is.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let prefill = &self.prefill;
        let bounds: [(&str, u64, std::ops::RangeInclusive<u64>); 8] = [
            ("plan_ms", self.plan_ms, 10..=3_600_000),
            ("candidates_max", self.candidates_max as u64, 1..=CANDIDATES_MAX),
            ("prefill.parallel", prefill.parallel as u64, 1..=1024),
            ("prefill.connect_ms", prefill.connect_ms, 1..=600_000),
            ("prefill.idle_ms", prefill.idle_ms, 1..=600_000),
            ("prefill.bytes_per_second_min", prefill.bytes_per_second_min, 1..=u64::MAX),
            ("prefill.retry_ms", prefill.retry_ms, 1..=prefill.absent_ms),
            ("prefill.absent_ms", prefill.absent_ms, 1..=86_400_000),
        ];
        let outside = bounds.into_iter().filter(|(_, value, allowed)| !allowed.contains(value));
        let mut problems: Vec<String> =
            outside.map(|(key, value, allowed)| format!("{key} = {value}: must be {allowed:?}")).collect();
        let (edge, usual) = (&self.edge, sun::Config::default());
        let of_suns = [
            ("edge.store", edge.store == usual.store),
            ("edge.store_write_bytes_per_day", edge.store_write_bytes_per_day == usual.store_write_bytes_per_day),
            ("edge.store_admission", edge.store_admission == usual.store_admission),
            ("edge.hot", edge.hot == usual.hot),
            ("edge.rest", edge.rest == usual.rest),
        ];
        let set = of_suns.into_iter().filter(|(_, usual)| !usual);
        problems.extend(set.map(|(key, _)| format!("{key}: only a sun has it; a cache keeps files in its vault")));
        problems
    }
}

/// Candidates of one answer of the popularity API.
const CANDIDATES_MAX: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_told_with_key_and_value() {
        assert_eq!(Config::default().problems(), Vec::<String>::new());
        check(
            |config| config.edge.hot.redirect = false,
            "edge.hot: only a sun has it; a cache keeps files in its vault",
        );
        check(|config| config.plan_ms = 0, "plan_ms = 0: must be 10..=3600000");
        check(|config| config.candidates_max = 10_001, "candidates_max = 10001: must be 1..=10000");
        check(|config| config.prefill.parallel = 0, "prefill.parallel = 0: must be 1..=1024");
        check(|config| config.prefill.retry_ms = 600_001, "prefill.retry_ms = 600001: must be 1..=600000");
    }

    #[test]
    fn the_shipped_file_shows_the_defaults() {
        let shipped: Config = daemon::config::parse(SHIPPED, "cache-daemon.toml").unwrap();
        assert_eq!(shipped, Config::default());
    }

    #[test]
    fn the_shipped_file_shows_every_option_in_its_section() {
        let edge = sun::Config {
            name: "cache4-1".into(),
            certificates: vec![sun::Certificate { chain: "a".into(), key: "b".into() }],
            geo: geo::resolver::Sources { geoip: vec!["c".into()], ..Default::default() },
            popularity: Some(popularity_api::ClientConfig {
                url: "http://d".into(),
                token_file: "e".into(),
                timeout_ms: 1,
            }),
            ticket_secret: Some("f".into()),
            signing_keys: Some("g".into()),
            ..sun::Config::default()
        };
        let known = serde_json::to_value(Config { edge, ..Config::default() }).unwrap();
        let shown: serde_json::Value = daemon::config::parse(&all_options_used(), "cache-daemon.toml").unwrap();
        let shown = options("", &shown);
        let of_a_cache =
            |option: &String| ![".edge.store", ".edge.hot", ".edge.rest"].iter().any(|suns| option.starts_with(suns));
        for option in options("", &known).into_iter().filter(of_a_cache) {
            assert!(shown.contains(&option), "{option} is not shown");
        }
    }

    #[test]
    fn what_the_shipped_file_shows_commented_out_can_be_used() {
        let config: Config = daemon::config::parse(&all_options_used(), "cache-daemon.toml").unwrap();
        assert_eq!(config.edge.certificates.len(), 1);
        assert_eq!(config.edge.popularity.map(|api| api.timeout_ms), Some(2000));
        assert!(!config.edge.geo.geoip.is_empty());
    }

    /// The shipped file with the options that are commented out.
    fn all_options_used() -> String {
        let shown = |line: &str| {
            let option = line.strip_prefix("# ")?;
            let is_table = option.starts_with('[') && option.ends_with(']');
            let key = option.split(" = ").next().filter(|key| key.len() < option.len());
            let is_key = key.is_some_and(|key| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
            (is_table || is_key).then(|| option.to_owned())
        };
        let used: Vec<String> = SHIPPED.lines().map(|line| shown(line).unwrap_or_else(|| line.to_owned())).collect();
        used.join("\n")
    }

    /// Every key below this one, as `.edge.limits.head_s`.
    fn options(key: &str, value: &serde_json::Value) -> Vec<String> {
        let below: Vec<String> = match value {
            serde_json::Value::Object(table) => {
                table.iter().flat_map(|(name, value)| options(&format!("{key}.{name}"), value)).collect()
            }
            serde_json::Value::Array(list) => list.iter().flat_map(|value| options(key, value)).collect(),
            _ => Vec::new(),
        };
        [key.to_owned()].into_iter().chain(below).collect()
    }

    const SHIPPED: &str = include_str!("../../deploy/config/cache-daemon.toml");

    #[track_caller]
    fn check(change: impl FnOnce(&mut Config), expected: &str) {
        let mut config = Config::default();
        change(&mut config);
        assert_eq!(config.problems(), [expected]);
    }
}
