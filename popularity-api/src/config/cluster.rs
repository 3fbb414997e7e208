//! `[cluster]`: ratings in a Redis or Valkey Cluster instead of the embedded engine.

use std::path::PathBuf;
use std::time::Duration;

use super::Config;
use crate::cluster::{Clock, Secret, Settings};

/// Where ratings are kept when one node does not hold them.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// Some nodes of the cluster, `host:port`; the others are found through them. Default none: the embedded engine. Too
    /// few: nothing is found while those are away.
    pub nodes: Vec<String>,
    /// Name to authenticate with. Default none.
    pub username: Option<String>,
    /// File with the password in its first line (mode 600). Default none.
    pub password_file: Option<PathBuf>,
    /// What all keys begin with. Default "sun".
    pub prefix: String,
    /// Parts that a region's ratings are spread over the nodes in, 1..=1024; all APIs of a cluster say the same, and it stays.
    /// Default 16; too small: a large region is on few nodes, too large: batches and rankings are many small calls.
    pub shards: u32,
    /// Copies, beside the primary, that have to confirm a batch before it is acknowledged, 0..=5. Default 1; too small: what
    /// was acknowledged is lost with so many nodes, too large: batches are refused while a copy is away.
    pub replicas: u32,
    /// How long copies have to confirm, milliseconds. Default 1000; too small: batches are sent twice, too large: one slow copy
    /// holds up the batches of its node.
    pub wait_ms: u64,
    /// How long a call to the cluster is tried, milliseconds; with `commit_ms` at most half of `limits.request_s`. Default
    /// 4000; too small: failovers are seen by reporters (503, they send again), too large: they wait.
    pub timeout_ms: u64,
    /// Best-rated files of a region that a cache's wish is chosen from. Default 100000; too small: small files of low rating
    /// are overlooked, too large: each question moves so many names.
    pub scan_max: usize,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            username: None,
            password_file: None,
            prefix: "sun".to_owned(),
            shards: 16,
            replicas: 1,
            wait_ms: 1000,
            timeout_ms: 4000,
            scan_max: 100_000,
        }
    }
}

impl Cluster {
    /// Everything that is wrong with it and the file it names; `commit_ms` and `request_s` are the API's.
    pub(super) fn problems(&self, commit_ms: u64, request_s: u64) -> Vec<String> {
        let mut problems = Vec::new();
        let size = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        // Without a cluster it bounds nothing, and a commit_ms that is too large is told of by itself.
        let left_ms = request_s.saturating_mul(500).checked_sub(commit_ms).filter(|_| !self.nodes.is_empty());
        let timeout_ms_max = left_ms.map_or(u64::MAX, |most| most.max(1));
        for (key, value, least, most) in [
            ("shards", u64::from(self.shards), 1, 1024),
            ("replicas", u64::from(self.replicas), 0, 5),
            ("wait_ms", self.wait_ms, 1, 60_000),
            ("timeout_ms", self.timeout_ms, 1, timeout_ms_max),
            ("scan_max", size(self.scan_max), 1, 10_000_000),
        ] {
            if !(least..=most).contains(&value) {
                problems.push(format!("cluster.{key} = {value}: it is within {least}..={most}"));
            }
        }
        for node in &self.nodes {
            let sound = node.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty()
                    && !host.contains(['/', '@', '?', '#'])
                    && port.parse::<u16>().is_ok_and(|port| port > 0)
            });
            if !sound {
                problems.push(format!("cluster.nodes: {node:?}: a node is host:port"));
            }
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if self.prefix.is_empty() || self.prefix.len() > 64 || !self.prefix.bytes().all(plain) {
            problems.push(format!(
                "cluster.prefix = {:?}: it is 1..=64 letters, digits, \"-\", \"_\" or \".\"",
                self.prefix
            ));
        }
        problems
    }
}

impl Config {
    /// The cluster's part; nothing when ratings are embedded.
    ///
    /// # Errors
    ///
    /// What is wrong with the password's file.
    pub fn cluster(&self) -> Result<Option<Settings>, String> {
        let Cluster { nodes, username, password_file, prefix, shards, replicas, wait_ms, timeout_ms, scan_max } =
            self.cluster.clone();
        let Some(engine) = self.engine().filter(|_| !nodes.is_empty()) else { return Ok(None) };
        let password = password_file.map(|file| Secret::load(&file)).transpose();
        Ok(Some(Settings {
            nodes,
            username,
            password: password.map_err(|error| format!("cluster.password_file: {error}"))?,
            prefix,
            shards,
            replicas,
            wait: Duration::from_millis(wait_ms),
            timeout: Duration::from_millis(timeout_ms),
            scan_max,
            decay: engine.decay,
            pairs_max: engine.pairs_max,
            commit: engine.commit,
            queue_bytes_max: engine.queue_bytes_max,
            clock: Clock::system(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn bad_settings_are_named() {
        for (bad, expected) in [
            ("shards = 0", "cluster.shards = 0: it is within 1..=1024"),
            ("replicas = 6", "cluster.replicas = 6: it is within 0..=5"),
            ("nodes = [\"a:1\"]\ntimeout_ms = 4801", "cluster.timeout_ms = 4801: it is within 1..=4800"),
            ("prefix = \"a b\"", "cluster.prefix = \"a b\": it is 1..=64 letters, digits, \"-\", \"_\" or \".\""),
            ("nodes = [\"10.0.0.1\"]", "cluster.nodes: \"10.0.0.1\": a node is host:port"),
            ("nodes = [\"a:b@10.0.0.1:1\"]", "cluster.nodes: \"a:b@10.0.0.1:1\": a node is host:port"),
            ("nodes = [\"10.0.0.1:0\"]", "cluster.nodes: \"10.0.0.1:0\": a node is host:port"),
        ] {
            let config: Config = daemon::config::parse(&format!("[cluster]\n{bad}"), "test").unwrap();
            assert_eq!(config.problems(), [expected]);
        }
        let good: Config = daemon::config::parse("[cluster]\nnodes = [\"[::1]:7000\", \"a.b:1\"]", "test").unwrap();
        assert_eq!(good.problems(), Vec::<String>::new());
    }

    #[test]
    fn the_password_is_a_file_of_its_own() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("password");
        let config = Config {
            cluster: Cluster { nodes: vec!["a:1".to_owned()], password_file: Some(file.clone()), ..Cluster::default() },
            ..Config::default()
        };
        let check = |text: &str, mode: u32, expected: &str| {
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let found = match config.cluster() {
                Ok(settings) => settings.unwrap().password.unwrap().as_ref().to_owned(),
                Err(error) => error.replace(&file.display().to_string(), "FILE"),
            };
            assert_eq!(found, expected);
        };
        check("secret\n", 0o600, "secret");
        let open = "others than its owner may use this secret (mode 0640); run `chmod 600 FILE`";
        check("secret\n", 0o640, &format!("cluster.password_file: FILE: {open}"));
        check("\n", 0o600, "cluster.password_file: FILE: there is no password in its first line");
        assert!(Config::default().cluster().unwrap().is_none());
    }
}
