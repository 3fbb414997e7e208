//! The engine: ratings in RAM, durable through a binlog and snapshots.
//!
//! ```text
//!   count(batch) --queue, bounded in bytes--> committer thread: gathers for commit_ms, or until a group is full
//!        ^                                      |  journal: one frame, one fdatasync
//!        |                                      v
//!        +---- counted, or counted before --- table (RwLock; this thread alone writes) <--- table(): everybody reads
//!                                               |  now and then
//!                                               v
//!                                             snapshot thread: a 256th of the table at a time, as of then; the committer
//!                                             goes on in between
//! ```
//!
//! In reading order:
//!
//! - [`decay`]: what downloads are worth as time passes; the score.
//! - [`table`] and its parts: `packed` (a rating in eight bytes), `pairs` (a region's ratings and their order), [`files`]
//!   (the names), `newcomers` (who is let into a full region).
//! - [`marks`]: which batch may follow which. [`batch`], [`binlog`], [`snapshot`]: what is written, byte by byte.
//! - [`folder`], [`journal`]: where it is written, and what a start finds there.
//! - [`lineage`], [`feed`], [`inspect`]: copies: which binlog it is, what replicas and backups read of it, whether what they have
//!   is whole.
//! - this file: the thread that waits and writes.
//!
//! Everything but this file is free of threads and clocks. What another engine has to offer is [`Engine::count`]
//! and what [`Table`] answers: `top`, `best`, `score`.

pub mod batch;
pub mod binlog;
mod bytes;
mod committer;
pub mod decay;
pub mod feed;
pub mod files;
pub mod folder;
pub mod inspect;
pub mod journal;
pub mod lineage;
pub mod marks;
mod newcomers;
mod packed;
mod pairs;
pub mod snapshot;
pub mod table;

use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, TryLockError};
use std::thread::JoinHandle;
use std::time::Duration;

use daemon::metrics::{Meters, level};
use geo::RegionId;
use prometheus::{Histogram, IntCounter, IntGauge, IntGaugeVec, Registry};
use tokio::sync::{Semaphore, oneshot, watch};

use batch::{Batch, Group};
use committer::{Command, Committer, Followed, Submission};
use decay::Decay;
use feed::{Asked, Feed};
use folder::Folder;
use journal::{Journal, Recovered, RecoveryError};
use lineage::Lineage;
use marks::{BadMark, Gaps};
use table::{Standing, Table, Takes};

use crate::wire::RatingsSettings;

/// How an engine works; the config explains each.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How downloads fade.
    pub decay: Decay,
    /// Pairs of one region.
    pub pairs_max: usize,
    /// How long a group gathers.
    pub commit: Duration,
    /// Bytes of batches that wait for their commit.
    pub queue_bytes_max: usize,
    /// How often a snapshot is written.
    pub snapshot_every: Duration,
    /// A snapshot is written as soon as so much binlog would have to be replayed.
    pub snapshot_binlog_bytes: u64,
    /// Binlog that is kept for those who copy it, beyond what a start needs.
    pub copies_binlog_bytes: u64,
}

impl Settings {
    /// What a copy of these ratings has to have alike.
    #[must_use]
    pub fn told(&self) -> RatingsSettings {
        let (hour_ms, days_ms) = self.decay.half_lives_ms();
        RatingsSettings {
            half_life_hour_s: hour_ms / 1000.0,
            half_life_days_s: days_ms / 1000.0,
            hour_share: self.decay.hour_share(),
            pairs_max: self.pairs_max,
        }
    }
}

/// A running engine.
#[derive(Debug)]
pub struct Engine {
    table: Arc<RwLock<Table>>,
    commands: Sender<Command>,
    queue: Arc<Semaphore>,
    queue_bytes_max: usize,
    thread: Mutex<Option<JoinHandle<()>>>,
    failed: watch::Receiver<bool>,
    feed: Feed,
    duplicate_batches: IntCounter,
}

/// Says so when the thread that holds it panics.
#[derive(Debug)]
pub(crate) struct Alarm(pub(crate) watch::Sender<bool>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.send_replace(true);
        }
    }
}

/// Why a batch was not counted. It may be sent again (if it is stale: under a later boot), and is counted once then.
#[derive(Debug, thiserror::Error)]
pub enum CountError {
    /// Too much waits for its commit: 429, try again in a second.
    #[error("more batches wait for the disk than fit; send this one again in a second")]
    Busy,
    /// Its source started again with an earlier boot: 409, never counted under this mark.
    #[error("its boot {boot} is older than the known boot {known}; restart with a later one (known boot {known})")]
    Stale {
        /// The batch's.
        boot: u64,
        /// The source's latest.
        known: u64,
    },
    /// Nothing of its source could be counted after it: 409.
    #[error(transparent)]
    Mark(#[from] BadMark),
    /// The disk refused it: 503.
    #[error("the batch could not be made durable and is not counted: {0}; send it again")]
    Disk(String),
    /// The cluster that ratings are kept in did not say that it is counted, which it may be: 503.
    #[error("the ratings' cluster did not confirm the batch: {0}; send it again, it is counted once")]
    Away(String),
    /// The engine is being closed, or its thread failed: 503.
    #[error("the API counts no more until it is started again; send the batch again then")]
    Closed,
}

/// Why frames were not counted.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The frame at this offset is not what its checksum says.
    #[error("the frame at {0} is damaged")]
    Damaged(u64),
    /// They cannot be made durable.
    #[error(transparent)]
    Count(CountError),
}

impl Engine {
    /// Recovers what the folder has and starts. A folder that was a copy has its own binlog from now on.
    ///
    /// # Errors
    ///
    /// [`RecoveryError`].
    pub fn open(
        folder: Arc<dyn Folder>,
        settings: &Settings,
        metrics: Metrics,
    ) -> Result<(Self, Recovered), RecoveryError> {
        Self::open_taking(folder, settings, metrics, None)
    }

    /// The same, without files whose names are not taken: what a release before this one counted, or a topology before
    /// this one had, is left out of the ratings, and gone for good with the next snapshot.
    ///
    /// # Errors
    ///
    /// [`RecoveryError`].
    pub fn open_taking(
        folder: Arc<dyn Folder>,
        settings: &Settings,
        metrics: Metrics,
        takes: Option<Takes>,
    ) -> Result<(Self, Recovered), RecoveryError> {
        Self::start(folder, settings, metrics, takes, |folder, recovered| {
            Lineage::own(folder, recovered.damaged_bytes == 0 && recovered.torn_bytes == 0).map_err(of_lineage)
        })
    }

    /// The same with a copy of another API's folder, which goes on as one: by [`Engine::follow`] alone.
    ///
    /// # Errors
    ///
    /// [`RecoveryError`], also when the folder is no copy, or frames of it are lost: nothing is written then, so the next
    /// start finds the same.
    pub fn open_copy(
        folder: Arc<dyn Folder>,
        settings: &Settings,
        metrics: Metrics,
    ) -> Result<(Self, Recovered), RecoveryError> {
        Self::start(folder, settings, metrics, None, |folder, recovered| {
            if recovered.damaged_bytes > 0 {
                return Err(RecoveryError::Damaged { bytes: recovered.damaged_bytes });
            }
            let lineage = Lineage::read(folder).map_err(of_lineage)?.filter(Lineage::is_copy);
            let lineage = lineage.map(|lineage| (lineage, true));
            lineage.ok_or_else(|| of_lineage(std::io::Error::other("the folder is no copy of another API's")))
        })
    }

    /// What a start would find in a folder. Only what was left unfinished is removed.
    ///
    /// # Errors
    ///
    /// [`RecoveryError`].
    pub fn check(folder: Arc<dyn Folder>, settings: &Settings) -> Result<Recovered, RecoveryError> {
        let empty = || Table::new(settings.decay, settings.pairs_max);
        Journal::open(folder, empty).map(|(_, _, recovered)| recovered)
    }

    fn start(
        folder: Arc<dyn Folder>,
        settings: &Settings,
        metrics: Metrics,
        takes: Option<Takes>,
        lineage: impl FnOnce(&dyn Folder, &Recovered) -> Result<(Lineage, bool), RecoveryError>,
    ) -> Result<(Self, Recovered), RecoveryError> {
        let empty = || Table::new(settings.decay, settings.pairs_max).taking(takes.clone());
        let (mut journal, mut table, recovered) = Journal::open(Arc::clone(&folder), empty)?;
        let left_out = table.takes_all();
        if left_out > 0 {
            tracing::info!(left_out, "ratings of names that are no longer taken are left out");
        }
        let (lineage, kept) = lineage(&*folder, &recovered)?;
        if !kept {
            journal.keep_first(lineage.clone());
        }
        let (end, asked) = (watch::Sender::new(journal.end()), Arc::new(Asked::new(settings.copies_binlog_bytes)));
        let feed = Feed::new(Arc::clone(&folder), lineage, end.subscribe(), Arc::clone(&asked));
        metrics.recovered(&recovered);
        metrics.table(&table);
        let table = Arc::new(RwLock::new(table));
        let (commands, received) = mpsc::channel();
        let (alarm, failed) = watch::channel(false);
        let duplicate_batches = metrics.duplicate_batches.clone();
        let committer =
            Committer::new(journal, Arc::clone(&table), folder, settings, commands.clone(), metrics, (end, asked));
        let thread = std::thread::Builder::new()
            .name("committer".to_owned())
            .spawn(move || {
                let _alarm = Alarm(alarm);
                committer.run(&received);
            })
            .map_err(|error| RecoveryError::Disk { file: "committer thread".to_owned(), error })?;
        let engine = Self {
            table,
            commands,
            queue: Arc::new(Semaphore::new(settings.queue_bytes_max)),
            queue_bytes_max: settings.queue_bytes_max,
            thread: Mutex::new(Some(thread)),
            failed,
            feed,
            duplicate_batches,
        };
        Ok((engine, recovered))
    }

    /// What others copy of it.
    #[must_use]
    pub const fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Counts frames of the binlog that this one is a copy of, and resolves when they are durable here. They stand at this
    /// copy's end, [`Feed::end`]; nobody else follows at the same time. Gives what was in them.
    ///
    /// # Errors
    ///
    /// [`FollowError`]: nothing of them is counted.
    pub async fn follow(&self, frames: Vec<u8>) -> Result<Vec<Group>, FollowError> {
        let at = self.feed.end();
        let read = move || binlog::read_frames(&frames, at).map(|groups| (frames, groups));
        let read = tokio::task::spawn_blocking(read).await.map_err(|_| FollowError::Count(CountError::Closed))?;
        let (frames, groups) = read.map_err(FollowError::Damaged)?;
        let (reply, answer) = oneshot::channel();
        let closed = || FollowError::Count(CountError::Closed);
        self.commands.send(Command::Follow(Followed { frames, groups, reply })).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?.map_err(FollowError::Count)
    }

    /// Counts a batch and resolves when it is durable: true, or false when it had been counted before.
    ///
    /// # Errors
    ///
    /// [`CountError`]: it is not counted.
    pub async fn count(&self, batch: Batch) -> Result<bool, CountError> {
        if let Some(answer) = self.counted_before(&batch) {
            return answer;
        }
        // A batch that is larger than the whole queue waits for an empty one.
        let bytes = u32::try_from(batch.bytes().min(self.queue_bytes_max)).map_err(|_| CountError::Busy)?;
        let room = Arc::clone(&self.queue).try_acquire_many_owned(bytes).map_err(|_| CountError::Busy)?;
        let (reply, answer) = oneshot::channel();
        let submission = Submission { batch, reply, _room: room };
        self.commands.send(Command::Count(submission)).map_err(|_| CountError::Closed)?;
        answer.await.map_err(|_| CountError::Closed)?
    }

    /// The answer to a batch that need not go to the committer. Nothing while the table is in use by a commit: a runtime
    /// thread does not wait for it, and the committer looks again anyway.
    fn counted_before(&self, batch: &Batch) -> Option<Result<bool, CountError>> {
        let table = match self.table.try_read() {
            Ok(table) => table,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let known = table.mark(&batch.source);
        match batch.mark.standing(known) {
            Standing::New => None,
            Standing::Counted => {
                self.duplicate_batches.inc();
                Some(Ok(false))
            }
            Standing::Stale => Some(Err(CountError::Stale { boot: batch.mark.boot, known: known.boot })),
        }
    }

    /// The ratings as of the last commit. Commits wait as long as this is held.
    pub fn table(&self) -> RwLockReadGuard<'_, Table> {
        // The committer changes the table in steps that do not panic; a poisoned lock still guards a whole table.
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes in the table what a cache of a region says it holds and no longer holds, by canonical name; with `complete`
    /// it holds nothing else. It only makes [`Table::carried`] quick, see there. Commits wait as long as it takes: half a
    /// microsecond a file, and for a complete list once through the region's ratings.
    pub fn note_held<'a>(
        &self,
        region: RegionId,
        cache: &str,
        complete: bool,
        added: impl Iterator<Item = &'a str>,
        removed: impl Iterator<Item = &'a str>,
    ) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if complete {
            table.forget_held(region, cache);
        }
        for (name, held) in removed.map(|name| (name, false)).chain(added.map(|name| (name, true))) {
            table.note_held(region, cache, name, held);
        }
    }

    /// Resolves when the committer thread has panicked: no batch is counted any more, and only a restart mends it.
    /// What was acknowledged is on disk. Never resolves when the thread ends as it should.
    pub fn failed(&self) -> impl Future<Output = ()> + use<> {
        let mut failed = self.failed.clone();
        async move {
            if failed.wait_for(|&failed| failed).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Commits what waits, writes a last snapshot, and returns when the folder is no longer used. Blocks.
    pub fn close(&self) {
        // When it cannot be sent, the thread has ended already.
        drop(self.commands.send(Command::Close));
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the committer thread panicked; what was acknowledged is on disk");
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.commands.send(Command::Close));
    }
}

fn of_lineage(error: std::io::Error) -> RecoveryError {
    RecoveryError::Disk { file: lineage::FILE.to_owned(), error }
}

/// `log2` of a file's bytes as ratings are ranked by it: to 1,024ths, an empty file as one byte.
pub(crate) fn log2_size(size: u64) -> f64 {
    pairs::kept_log2_size(size)
}

/// What `popularity_commits_failing` says, of both kinds of ratings.
pub(crate) const COMMITS_FAILING: &str = "1 while batches cannot be made durable and are answered 503";

/// What an engine tells about itself.
#[derive(Clone, Debug)]
pub struct Metrics {
    pairs: IntGaugeVec,
    files: IntGauge,
    evicted: IntCounter,
    turned_away: IntCounter,
    table_bytes: IntGauge,
    counted_pairs: IntCounter,
    counted_batches: IntCounter,
    duplicate_batches: IntCounter,
    commit_seconds: Histogram,
    commit_failures: IntCounter,
    commits_failing: IntGauge,
    gaps: Gaps,
    snapshot_seconds: Histogram,
    snapshot_failures: IntCounter,
    unsnapshot_bytes: IntGauge,
    damaged_bytes: IntGauge,
    torn_bytes: IntGauge,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    ///
    /// When the registry has one of these names already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let meters = Meters::new(registry, "popularity_");
        Ok(Self {
            pairs: meters.gauges("pairs", "Rated files of each region", &["region"])?,
            files: meters.gauge("files", "Files that at least one region rates")?,
            evicted: meters.counter("pairs_evicted_total", "Lowest-rated pairs dropped to keep a region's bound")?,
            turned_away: meters
                .counter("pairs_turned_away_total", "Reports of files that a full region did not let in")?,
            table_bytes: meters.gauge("table_bytes", "RAM of the ratings and names")?,
            counted_pairs: meters.counter("pair_updates_total", "Downloads entries counted")?,
            counted_batches: meters.counter("batches_counted_total", "Batches counted")?,
            duplicate_batches: meters.counter("batches_duplicate_total", "Batches that had been counted before")?,
            commit_seconds: meters.histogram(
                "commit_seconds",
                "Write and fdatasync of one group of batches",
                &SECONDS,
            )?,
            commit_failures: meters.counter("commit_failures_total", "Groups that the disk refused")?,
            commits_failing: meters.gauge("commits_failing", COMMITS_FAILING)?,
            gaps: Gaps::register(registry)?,
            snapshot_seconds: meters.histogram("snapshot_seconds", "Writing one snapshot", &SECONDS)?,
            snapshot_failures: meters.counter("snapshot_failures_total", "Snapshots that the disk refused")?,
            unsnapshot_bytes: meters.gauge("binlog_replay_bytes", "Binlog that a start would have to replay")?,
            damaged_bytes: meters
                .gauge("binlog_damaged_bytes", "Acknowledged bytes that the last start could not read")?,
            torn_bytes: meters.gauge("binlog_torn_bytes", "Unacknowledged bytes that the last start cut off")?,
        })
    }

    fn recovered(&self, recovered: &Recovered) {
        self.damaged_bytes.set(level(recovered.damaged_bytes));
        self.torn_bytes.set(level(recovered.torn_bytes));
    }

    fn table(&self, table: &Table) {
        for (region, pairs) in table.pairs() {
            self.pairs.with_label_values(&[&region.to_string()]).set(level(pairs));
        }
        self.files.set(level(table.file_count()));
        self.evicted.inc_by(table.evicted().saturating_sub(self.evicted.get()));
        self.turned_away.inc_by(table.turned_away().saturating_sub(self.turned_away.get()));
        let table::Bytes { pairs, names, index } = table.bytes();
        self.table_bytes.set(level(pairs + names + index));
    }
}

/// Bounds of the buckets of what the disk takes part in, and clusters.
pub(crate) const SECONDS: [f64; 9] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

#[cfg(test)]
mod tests;
