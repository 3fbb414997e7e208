//! Whether the cluster can be reached and keeps what it is given, for the log and the metrics: without that, one that is away
//! shows only in the answers of those who report.
//!
//! ```text
//!   every 2 s: CLUSTER INFO of some node --> state ok         up,   said when it comes back
//!                                        --> anything else    away, said at the start at once, later the second time
//!   when it comes: CONFIG GET appendonly of every node --> "no": said
//!   each batch: confirmed or not --> failing or not, with five quiet seconds in between: a part of the cluster may be away
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::Value;
use tokio::time::timeout;

use super::link::Link;

/// Looks at the cluster until it is aborted.
pub(super) async fn watch(link: Arc<Link>) {
    let mut reach = Reach::default();
    loop {
        let found =
            timeout(PROBE_MAX, link.probe()).await.unwrap_or_else(|_| Err("it did not answer in time".to_owned()));
        let found = found.and_then(|info| state(&info));
        match reach.heard(found.is_ok()) {
            Some(true) => {
                tracing::info!("the ratings' cluster can be reached");
                tell_durability(link.appendonly().await);
            }
            Some(false) => {
                let why = found.err().unwrap_or_default();
                tracing::warn!(nodes = ?link.nodes(), why,
                    "the ratings' cluster cannot be used: batches and rankings are answered 503 until it can");
            }
            None => {}
        }
        link.metrics.up.set(i64::from(reach.up));
        tokio::time::sleep(EVERY).await;
    }
}

fn tell_durability(answer: Result<Value, String>) {
    let Durable { no, unknown } = match &answer {
        Ok(answer) => durable(answer),
        Err(why) => Durable { no: Vec::new(), unknown: vec![why.clone()] },
    };
    if !no.is_empty() {
        tracing::warn!(nodes = ?no,
            "nodes of the ratings' cluster keep nothing on disk (appendonly no): what they have is lost when they are killed");
    }
    if !unknown.is_empty() {
        tracing::info!(
            ?unknown,
            "whether nodes of the ratings' cluster have appendonly yes cannot be looked at (CONFIG GET): see to it"
        );
    }
}

/// What is believed of the cluster.
#[derive(Debug, Default)]
struct Reach {
    up: bool,
    /// Probes that failed in a row.
    failed: u32,
    heard: bool,
}

impl Reach {
    /// A probe succeeded or not; what is to be told.
    fn heard(&mut self, well: bool) -> Option<bool> {
        let (first, before) = (!std::mem::replace(&mut self.heard, true), self.up);
        self.failed = if well { 0 } else { self.failed.saturating_add(1) };
        // One probe may have met a node that has just died.
        self.up = well || (before && self.failed < AWAY_AFTER);
        (first || self.up != before).then_some(self.up)
    }
}

/// Whether batches are confirmed.
#[derive(Debug, Default)]
pub(super) struct Confirmed {
    /// When one last was not, while they fail.
    failed_at: Mutex<Option<Instant>>,
}

impl Confirmed {
    /// A batch was confirmed or not; what is to be told: true, they are again, false, they are not.
    pub(super) fn heard(&self, well: bool, now: Instant) -> Option<bool> {
        // A panic leaves a moment behind.
        let mut failed_at = self.failed_at.lock().unwrap_or_else(PoisonError::into_inner);
        match (well, *failed_at) {
            (false, before) => {
                *failed_at = Some(now);
                before.is_none().then_some(false)
            }
            (true, Some(last)) if now.saturating_duration_since(last) >= QUIET => {
                *failed_at = None;
                Some(true)
            }
            (true, _) => None,
        }
    }
}

/// What `CLUSTER INFO` says.
fn state(info: &Value) -> Result<(), String> {
    let text = match info {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => text.clone(),
        // A user who may not ask is answered by a node that is there.
        _ => return Ok(()),
    };
    let found = |key: &str| text.lines().find_map(|line| line.trim_end().strip_prefix(key)).map(str::to_owned);
    match found("cluster_state:") {
        Some(state) if state != "ok" => {
            let slots = found("cluster_slots_ok:").unwrap_or_default();
            Err(format!("its state is {state}: {slots} of 16384 slots are served"))
        }
        _ => Ok(()),
    }
}

/// What nodes say of `appendonly`.
#[derive(Debug, Default, Eq, PartialEq)]
struct Durable {
    /// Those that say no.
    no: Vec<String>,
    /// Those that do not say.
    unknown: Vec<String>,
}

/// Reads the answers to `CONFIG GET appendonly`, by node.
fn durable(answer: &Value) -> Durable {
    let text = |value: &Value| match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        _ => String::new(),
    };
    let Value::Map(nodes) = answer else { return Durable { no: Vec::new(), unknown: vec!["all".to_owned()] } };
    let mut durable = Durable::default();
    for (node, settings) in nodes {
        let says = match settings {
            Value::Array(pair) => pair.get(1).map(text),
            Value::Map(pairs) => pairs.first().map(|(_, value)| text(value)),
            _ => None,
        };
        match says.as_deref() {
            Some("yes") => {}
            Some("no") => durable.no.push(text(node)),
            _ => durable.unknown.push(text(node)),
        }
    }
    durable
}

/// From one look to the next. Shorter: needless questions; longer: one that is away is told of late.
const EVERY: Duration = Duration::from_secs(2);
/// How long a look may take.
const PROBE_MAX: Duration = Duration::from_secs(4);
/// Looks in a row that make a cluster that was there count as away.
const AWAY_AFTER: u32 = 2;
/// Batches are confirmed again when none failed for so long.
const QUIET: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_goes_and_comes_is_told_of_once() {
        for (probes, expected) in [
            ("+", "up"),
            ("-", "away"),
            ("---", "away . ."),
            ("-+", "away up"),
            ("++-+", "up . . ."),
            ("+--+", "up . away up"),
            ("+-+-+", "up . . . ."),
            ("+----", "up . away . ."),
        ] {
            let mut reach = Reach::default();
            let told = probes.chars().map(|probe| match reach.heard(probe == '+') {
                Some(true) => "up",
                Some(false) => "away",
                None => ".",
            });
            assert_eq!(told.collect::<Vec<_>>().join(" "), expected, "{probes}");
        }
    }

    #[test]
    fn batches_that_fail_now_and_then_are_one_trouble() {
        let (confirmed, start) = (Confirmed::default(), Instant::now());
        for (well, seconds, expected) in [
            (true, 0, None),
            (false, 1, Some(false)),
            (true, 2, None),
            (false, 3, None),
            (true, 7, None),
            (true, 8, Some(true)),
            (true, 9, None),
            (false, 10, Some(false)),
        ] {
            assert_eq!(confirmed.heard(well, start + Duration::from_secs(seconds)), expected, "at {seconds}");
        }
    }

    #[test]
    fn what_nodes_say_is_read() {
        let info = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        assert_eq!(state(&info("cluster_state:ok\r\ncluster_slots_ok:16384\r\n")), Ok(()));
        let away = "its state is fail: 10923 of 16384 slots are served".to_owned();
        assert_eq!(state(&info("cluster_state:fail\r\ncluster_slots_ok:10923\r\n")), Err(away));
        assert_eq!(state(&Value::Nil), Ok(()));
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let node = |name: &str, says: &str| (text(name), Value::Array(vec![text("appendonly"), text(says)]));
        let map = (text("10.0.0.3:6379"), Value::Map(vec![(text("appendonly"), text("no"))]));
        // It may not be asked.
        let denied = (text("10.0.0.4:6379"), Value::Array(Vec::new()));
        let nodes = vec![node("10.0.0.1:6379", "yes"), node("10.0.0.2:6379", "no"), map, denied];
        let expected = Durable {
            no: ["10.0.0.2:6379", "10.0.0.3:6379"].map(str::to_owned).to_vec(),
            unknown: vec!["10.0.0.4:6379".to_owned()],
        };
        assert_eq!(durable(&Value::Map(nodes)), expected);
        assert_eq!(durable(&Value::Nil).unknown, ["all"]);
    }

    #[tokio::test]
    async fn a_cluster_that_is_away_at_the_start_is_seen() {
        let registry = prometheus::Registry::new();
        let metrics = super::super::Metrics::register(&registry).unwrap();
        metrics.up.set(7);
        let cluster =
            super::super::Cluster::start(super::super::tests::settings("127.0.0.1:1"), metrics.clone()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while metrics.up.get() != 0 {
            assert!(Instant::now() < deadline, "it is not seen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(cluster);
    }
}
