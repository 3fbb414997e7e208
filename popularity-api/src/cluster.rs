//! Ratings in a Redis or Valkey Cluster, for more than one node holds: the same operations as the embedded engine's, by any
//! number of API processes at once.
//!
//! ```text
//!   count(batch) --> count.rs: gathers, by shard --+                         node A: shards 4.0, 4.3 ...  --> its copy
//!   top, carried --> ask.rs: asks all shards ------+--> link.rs: slots ----> node B: shards 4.1 ...       --> its copy
//!                                                       redirections         node C: shards 4.2 ...       --> its copy
//!   places.rs: which key, which shard      scripts.rs: what runs in the nodes      health.rs: whether it can be used
//! ```
//!
//! # What is kept, and what is not
//!
//! A shard's sums and the marks (source, boot, sequence) of the batches in them are in one hash slot and change in one
//! script. So each part of a batch is counted once, however often it is sent and whichever copy of the shard survives.
//!
//! Redis copies from a primary to its replicas after it has answered: what a primary alone had is lost with it. So a batch is
//! acknowledged only when `replicas` copies confirmed each part (`WAIT`), and `replicas` nodes besides the primary have
//! to be lost before an acknowledged batch is. What remains, and no client can mend:
//!
//! - More nodes of one shard lost at a time than confirmed it, for good. (Killed processes that come back have what they
//!   acknowledged if `appendonly yes`; a power cut takes the last second with `appendfsync everysec`.)
//! - With two or more replicas a shard, a failover may choose one that had not confirmed. It prefers the one that has
//!   read most, and does not promise it. `replicas` = all of them closes this.
//! - `replicas = 0` acknowledges what one node has in RAM.
//!
//! A primary that was cut off goes on counting what it is sent until it notices (`cluster-node-timeout`), and forgets it when it
//! comes back as a replica. Nothing of that is acknowledged here: its copies did not confirm. `min-replicas-to-write 1`
//! makes it refuse instead. The price of both: a primary without a replica takes no batches (503; they are sent again).

mod ask;
mod count;
mod health;
mod link;
mod metrics;
mod places;
mod scripts;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use daemon::clock::unix_ms;
use geo::RegionId;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::engine::batch::Batch;
use crate::engine::decay::{Decay, Pulse};
use crate::engine::marks::{self, BadMark};
use crate::engine::{Alarm, CountError};
use crate::ratings::{Answer, AskError, Carried, Carry, HeldNote, RankedFile, Ratings};
use count::Submission;
use health::Confirmed;
use link::Link;
pub use metrics::Metrics;
use scripts::Opened;

/// How ratings are kept in a cluster; the config explains each.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Some of its nodes, `host:port`.
    pub nodes: Vec<String>,
    /// As whom.
    pub username: Option<String>,
    /// With which password.
    pub password: Option<Secret>,
    /// What keys begin with.
    pub prefix: String,
    /// Shards of a region.
    pub shards: u32,
    /// Copies that have to confirm a batch.
    pub replicas: u32,
    /// How long they have for it.
    pub wait: Duration,
    /// How long is tried.
    pub timeout: Duration,
    /// Files of a region that a cache's wish is chosen from.
    pub scan_max: usize,
    /// How downloads fade.
    pub decay: Decay,
    /// Pairs of one region.
    pub pairs_max: usize,
    /// How long a group gathers.
    pub commit: Duration,
    /// Bytes of batches that wait for their commit.
    pub queue_bytes_max: usize,
    /// What time it is.
    pub clock: Clock,
}

/// Tells the time, milliseconds since 1970.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl std::fmt::Debug for Clock {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Clock")
    }
}

impl Clock {
    /// This machine's.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(unix_ms))
    }

    /// One that is set as one likes.
    #[must_use]
    pub fn simulated(now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }
}

/// A password; not printed.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Secret")
    }
}

impl AsRef<str> for Secret {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Secret {
    /// The first line of a file that nobody else may read.
    ///
    /// # Errors
    ///
    /// What is wrong with the file.
    pub fn load(file: &Path) -> Result<Self, String> {
        let text = daemon::config::read_private(file).map_err(|error| error.to_string())?;
        let password = text.lines().next().unwrap_or_default().trim();
        if password.is_empty() {
            return Err(format!("{}: there is no password in its first line", file.display()));
        }
        Ok(Self(password.to_owned()))
    }
}

impl Settings {
    /// What sums in the cluster depend on: who differs in it must not touch them.
    fn fingerprint(&self) -> String {
        let (hour_ms, days_ms) = self.decay.half_lives_ms();
        let (shards, share) = (self.shards, self.decay.hour_share());
        format!("shards={shards} half_lives_ms={hour_ms},{days_ms} hour_share={share}")
    }

    /// The first arguments of [`scripts::COUNT`].
    fn shard_arguments(&self) -> [String; 3] {
        let pairs = self.pairs_max.div_ceil(self.shards as usize).max(1);
        let bits = (pairs * SEEN_BITS_A_PAIR).next_power_of_two().clamp(1 << 10, 1 << 24);
        [pairs.to_string(), self.decay.hour_share().to_string(), bits.to_string()]
    }
}

/// Ratings in a cluster.
#[derive(Debug)]
pub struct Cluster {
    link: Arc<Link>,
    settings: Settings,
    queue: Arc<Semaphore>,
    submit: Mutex<Option<mpsc::UnboundedSender<Submission>>>,
    gatherer: Mutex<Option<JoinHandle<()>>>,
    failed: watch::Receiver<bool>,
    confirmed: Confirmed,
    watcher: JoinHandle<()>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl Cluster {
    /// Starts; the cluster is connected to when it is first needed, so it may be away. Within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When a node is not `host:port`.
    pub fn start(settings: Settings, metrics: Metrics) -> Result<Self, redis::RedisError> {
        let link = Arc::new(Link::new(settings.clone(), metrics)?);
        let (submit, submitted) = mpsc::unbounded_channel();
        let (alarm, failed) = watch::channel(false);
        let gathering = count::gather(submitted, Arc::clone(&link), settings.clone());
        let gatherer = tokio::spawn(async move {
            let _alarm = Alarm(alarm);
            gathering.await;
        });
        let queue = Arc::new(Semaphore::new(settings.queue_bytes_max));
        let (submit, gatherer) = (Mutex::new(Some(submit)), Mutex::new(Some(gatherer)));
        let watcher = tokio::spawn(health::watch(Arc::clone(&link)));
        Ok(Self { link, settings, queue, submit, gatherer, failed, confirmed: Confirmed::default(), watcher })
    }

    async fn count_now(&self, batch: Batch) -> Result<bool, CountError> {
        // As the engine's: a batch that is larger than the whole queue waits for an empty one.
        let bytes = u32::try_from(batch.bytes().min(self.settings.queue_bytes_max)).map_err(|_| CountError::Busy)?;
        let room = Arc::clone(&self.queue).try_acquire_many_owned(bytes).map_err(|_| CountError::Busy)?;
        let parts = places::parts(&batch, self.settings.shards, self.pulse());
        let known = match self.open(&batch, parts.is_empty()).await? {
            Opened::Stale(known) => return Err(CountError::Stale { boot: batch.mark.boot, known: known.boot }),
            Opened::Counted => return Ok(false),
            Opened::FarBoot => return Err(BadMark::Boot { boot: batch.mark.boot }.into()),
            Opened::FarSequence(known) => {
                let known = if known.boot == batch.mark.boot { known.sequence } else { 0 };
                return Err(BadMark::Sequence { sequence: batch.mark.sequence, known }.into());
            }
            Opened::New(known) => known,
        };
        // Now: when it is sent again nobody knows of the gap.
        self.link.metrics.gaps.note(&batch.source, batch.mark, known);
        if parts.is_empty() {
            return Ok(true);
        }
        let (reply, answer) = oneshot::channel();
        let entries = batch.entries.len();
        let submission = Submission { source: batch.source, mark: batch.mark, parts, reply, room };
        let submit = self.submit.lock().unwrap_or_else(PoisonError::into_inner).clone();
        submit.ok_or(CountError::Closed)?.send(submission).map_err(|_| CountError::Closed)?;
        let counted = answer.await.map_err(|_| CountError::Closed)??;
        if counted {
            self.link.metrics.counted_pairs.inc_by(entries as u64);
        }
        Ok(counted)
    }

    /// Asks whether the batch is its source's next one, or the last one again; with `empty` no shard knows whether it was counted.
    async fn open(&self, batch: &Batch, empty: bool) -> Result<Opened, CountError> {
        let key = places::source_key(&self.settings.prefix, &batch.source);
        let latest_us = (self.settings.clock.0)().saturating_mul(1000).saturating_add(marks::BOOT_AHEAD_US_MAX);
        let [boot, sequence, latest] = [batch.mark.boot, batch.mark.sequence, latest_us].map(scripts::digits);
        let (ahead, step) = (marks::BOOT_AHEAD_US_MAX.to_string(), marks::SEQUENCE_STEP_MAX.to_string());
        let arguments = [boot, sequence, u8::from(!empty).to_string(), latest, ahead, step];
        let answer = self.link.ask(scripts::OPEN, &[key], &arguments).await.map_err(CountError::Away)?;
        let strange = || CountError::Away("an answer that is none of the script's".to_owned());
        scripts::opened(&answer).ok_or_else(strange)
    }

    fn tell_confirmed(&self, answer: &Result<bool, CountError>) {
        let well = match answer {
            Ok(true) => true,
            Err(CountError::Away(_)) => false,
            Ok(false) | Err(_) => return,
        };
        match self.confirmed.heard(well, Instant::now()) {
            Some(true) => tracing::info!("batches are confirmed by the cluster again"),
            Some(false) => {
                let why = answer.as_ref().err().map(ToString::to_string).unwrap_or_default();
                tracing::warn!(why, "batches are not confirmed by the cluster and are answered 503 until that ends");
            }
            None => return,
        }
        self.link.metrics.commits_failing.set(i64::from(!well));
    }

    fn pulse(&self) -> Pulse {
        self.settings.decay.at((self.settings.clock.0)())
    }

    fn asked<T>(&self, answer: Result<T, String>) -> Result<T, AskError> {
        let outcome = if answer.is_ok() { "answered" } else { "failed" };
        self.link.metrics.asks.with_label_values(&[outcome]).inc();
        answer.map_err(AskError::Away)
    }
}

impl Ratings for Cluster {
    fn count(&self, batch: Batch) -> Answer<'_, Result<bool, CountError>> {
        Box::pin(async move {
            let answer = self.count_now(batch).await;
            let outcome = match &answer {
                Ok(true) => "counted",
                Ok(false) => "duplicate",
                Err(CountError::Stale { .. }) => "stale",
                Err(CountError::Mark(_)) => "misnumbered",
                Err(CountError::Busy) => "busy",
                Err(_) => "unconfirmed",
            };
            self.tell_confirmed(&answer);
            self.link.metrics.batches.with_label_values(&[outcome]).inc();
            answer
        })
    }

    fn top(&self, region: RegionId, limit: usize) -> Answer<'_, Result<Vec<RankedFile>, AskError>> {
        Box::pin(async move { self.asked(ask::top(&self.link, &self.settings, region, limit, self.pulse()).await) })
    }

    fn carried(&self, ask: Carry) -> Answer<'_, Result<Carried, AskError>> {
        Box::pin(async move { self.asked(ask::carried(&self.link, &self.settings, &ask, self.pulse()).await) })
    }

    fn note_held(&self, _: HeldNote) -> Answer<'_, ()> {
        // What a cache holds comes with its question.
        Box::pin(async {})
    }

    fn failed(&self) -> Answer<'static, ()> {
        let mut failed = self.failed.clone();
        Box::pin(async move {
            if failed.wait_for(|&failed| failed).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            drop(self.submit.lock().unwrap_or_else(PoisonError::into_inner).take());
            let gatherer = self.gatherer.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(gatherer) = gatherer
                && gatherer.await.is_err()
            {
                tracing::error!("gathering batches ended with a panic; what was acknowledged is in the cluster");
            }
        })
    }
}

/// So many bits of `seen` for each pair: with an eighth of them set, one in eight files that a full shard never saw is let in.
const SEEN_BITS_A_PAIR: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a cluster with this node.
    pub(super) fn settings(node: &str) -> Settings {
        Settings {
            nodes: vec![node.to_owned()],
            username: None,
            password: None,
            prefix: "test".to_owned(),
            shards: 8,
            replicas: 1,
            wait: Duration::from_millis(100),
            timeout: Duration::from_millis(200),
            scan_max: 100,
            decay: Decay::new(3600, 172_800, 0.25).unwrap(),
            pairs_max: 1000,
            commit: Duration::ZERO,
            queue_bytes_max: 1 << 20,
            clock: Clock::system(),
        }
    }

    #[tokio::test]
    async fn batches_that_nobody_confirms_are_told_of() {
        let registry = prometheus::Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let cluster = Cluster::start(settings("127.0.0.1:1"), metrics.clone()).unwrap();
        assert_eq!(metrics.commits_failing.get(), 0);
        let mark = crate::engine::table::Mark { boot: 1, sequence: 1 };
        let batch = Batch { source: "sun4-1-1".to_owned(), mark, entries: Vec::new() };
        assert!(matches!(cluster.count(batch).await, Err(CountError::Away(_))));
        assert_eq!(metrics.commits_failing.get(), 1);
    }
}
