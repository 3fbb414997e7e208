//! The thread that writes: gathers batches into groups, commits them, and has snapshots written.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use daemon::clock::{unix_ms, unix_us};
use daemon::metrics::level;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::batch::{Batch, Group};
use super::feed::Asked;
use super::folder::Folder;
use super::journal::Journal;
use super::table::{Mark, Standing, Table};
use super::{CountError, Metrics, Settings, marks, snapshot};

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Command {
    /// Count a batch.
    Count(Submission),
    /// Count frames of the binlog that this one is a copy of.
    Follow(Followed),
    /// The snapshot thread has ended.
    Snapshot(Written),
    /// Finish and end.
    Close,
}

/// A batch that waits for its commit.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) batch: Batch,
    pub(super) reply: oneshot::Sender<Result<bool, CountError>>,
    /// Its place in the queue, given back when it is answered.
    pub(super) _room: OwnedSemaphorePermit,
}

/// Whole frames that stand at the journal's end, and what is in them.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) frames: Vec<u8>,
    pub(super) groups: Vec<Group>,
    pub(super) reply: oneshot::Sender<Result<Vec<Group>, CountError>>,
}

/// How writing a snapshot ended.
#[derive(Debug)]
pub(super) struct Written {
    offset: u64,
    took: Duration,
    result: std::io::Result<()>,
}

/// A snapshot that is to be written, as of now or later.
#[derive(Debug)]
struct Begun {
    offset: u64,
    header: Vec<u8>,
}

impl Begun {
    /// Writes it. Commits go on but while a shard is put together.
    fn write(self, folder: &dyn Folder, table: &RwLock<Table>) -> Written {
        let (Self { offset, header }, began) = (self, Instant::now());
        let result = snapshot::write_begun(folder, table, offset, &header);
        Written { offset, took: began.elapsed(), result }
    }
}

/// The thread's state.
pub(super) struct Committer {
    journal: Journal,
    table: Arc<RwLock<Table>>,
    folder: Arc<dyn Folder>,
    commit: Duration,
    snapshot_every: Duration,
    snapshot_binlog_bytes: u64,
    to_self: Sender<Command>,
    metrics: Metrics,
    /// Tells how far the binlog is durable and counted.
    end: watch::Sender<u64>,
    asked: Arc<Asked>,
    snapshot_due: Instant,
    snapshot_not_before: Instant,
    snapshot_runs: bool,
    commits_fail: bool,
}

impl Committer {
    pub(super) fn new(
        journal: Journal,
        table: Arc<RwLock<Table>>,
        folder: Arc<dyn Folder>,
        settings: &Settings,
        to_self: Sender<Command>,
        metrics: Metrics,
        (end, asked): (watch::Sender<u64>, Arc<Asked>),
    ) -> Self {
        Self {
            journal,
            table,
            folder,
            commit: settings.commit,
            snapshot_every: settings.snapshot_every,
            snapshot_binlog_bytes: settings.snapshot_binlog_bytes,
            to_self,
            metrics,
            end,
            asked,
            snapshot_due: Instant::now() + settings.snapshot_every,
            snapshot_not_before: Instant::now(),
            snapshot_runs: false,
            commits_fail: false,
        }
    }

    /// Runs until it is told to close.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        let mut open = true;
        while open {
            self.snapshot_if_due();
            match commands.recv_timeout(self.snapshot_due.saturating_duration_since(Instant::now())) {
                Ok(Command::Count(first)) => {
                    let mut pending = Pending::default();
                    pending.add(first, &self.table(), unix_us());
                    open = self.gather(commands, &mut pending);
                    self.commit(pending);
                }
                Ok(Command::Follow(followed)) => self.follow(followed),
                Ok(Command::Snapshot(written)) => self.snapshot_written(written),
                Ok(Command::Close) => open = false,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.last_snapshot(commands);
    }

    /// Takes in what comes while the group gathers; false when it is told to close.
    fn gather(&mut self, commands: &Receiver<Command>, pending: &mut Pending) -> bool {
        let deadline = Instant::now() + self.commit;
        while pending.bytes < GROUP_BYTES_MAX {
            match commands.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Command::Count(submission)) => pending.add(submission, &self.table(), unix_us()),
                Ok(Command::Follow(followed)) => self.follow(followed),
                Ok(Command::Snapshot(written)) => self.snapshot_written(written),
                Ok(Command::Close) => return false,
                Err(_) => break,
            }
        }
        true
    }

    fn commit(&mut self, mut pending: Pending) {
        pending.group.time_ms = unix_ms();
        let began = Instant::now();
        let committed = if pending.group.batches.is_empty() { Ok(()) } else { self.journal.commit(&pending.group) };
        match committed {
            Ok(()) => {
                self.committed(std::slice::from_ref(&pending.group), began);
                self.metrics.duplicate_batches.inc_by(pending.duplicates());
                for (batch, known) in pending.group.batches.iter().zip(&pending.known) {
                    self.metrics.gaps.note(&batch.source, batch.mark, *known);
                }
                pending.answer(None);
            }
            Err(error) => {
                self.failed(&error);
                pending.answer(Some(&error));
            }
        }
    }

    fn follow(&mut self, followed: Followed) {
        let Followed { frames, groups, reply } = followed;
        let began = Instant::now();
        let answer = match self.journal.commit_frames(&frames) {
            Ok(()) => {
                self.committed(&groups, began);
                Ok(groups)
            }
            Err(error) => {
                self.failed(&error);
                Err(CountError::Disk(error.to_string()))
            }
        };
        // A follower that has gone away is closing.
        drop(reply.send(answer));
    }

    /// Groups are durable: the table counts them.
    fn committed(&mut self, groups: &[Group], began: Instant) {
        self.metrics.commit_seconds.observe(began.elapsed().as_secs_f64());
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        groups.iter().for_each(|group| table.apply(group));
        table.reached = self.journal.end();
        drop(table);
        self.end.send_replace(self.journal.end());
        // It walks the table: readers need not wait for that.
        self.metrics.table(&self.table.read().unwrap_or_else(PoisonError::into_inner));
        self.metrics.unsnapshot_bytes.set(level(self.journal.since_snapshot_bytes()));
        let batches = || groups.iter().flat_map(|group| &group.batches);
        self.metrics.counted_pairs.inc_by(batches().map(|batch| batch.entries.len() as u64).sum());
        self.metrics.counted_batches.inc_by(batches().count() as u64);
        if std::mem::take(&mut self.commits_fail) {
            self.metrics.commits_failing.set(0);
            tracing::info!("batches are durable again");
        }
    }

    fn failed(&mut self, error: &std::io::Error) {
        self.metrics.commit_failures.inc();
        self.metrics.commits_failing.set(1);
        if !std::mem::replace(&mut self.commits_fail, true) {
            tracing::warn!(%error, "batches cannot be made durable and are answered 503 until that ends");
        }
    }

    fn end_snapshot(&mut self, offset: u64) -> std::io::Result<()> {
        let needs = self.asked.needs(self.journal.end(), Instant::now());
        self.journal.end_snapshot(offset, &needs)
    }

    fn snapshot_if_due(&mut self) {
        let (now, since) = (Instant::now(), self.journal.since_snapshot_bytes());
        let in_time = now >= self.snapshot_due;
        let by_size = since >= self.snapshot_binlog_bytes && now >= self.snapshot_not_before;
        if !in_time && !by_size {
            return;
        }
        self.snapshot_due = now + self.snapshot_every;
        self.snapshot_not_before = now + SNAPSHOT_PAUSE.min(self.snapshot_every);
        if since == 0 || self.snapshot_runs || !self.has_lineage() {
            return;
        }
        let begun = self.begin_snapshot();
        let (folder, table, to_self) = (Arc::clone(&self.folder), Arc::clone(&self.table), self.to_self.clone());
        let write = move || drop(to_self.send(Command::Snapshot(begun.write(&*folder, &table))));
        match std::thread::Builder::new().name("snapshot".to_owned()).spawn(write) {
            Ok(_) => self.snapshot_runs = true,
            Err(error) => tracing::warn!(%error, "no thread for the snapshot; the next one is tried in its time"),
        }
    }

    /// What a start would otherwise replay is written before the end.
    fn last_snapshot(&mut self, commands: &Receiver<Command>) {
        while self.snapshot_runs {
            match commands.recv() {
                Ok(Command::Snapshot(written)) => self.snapshot_written(written),
                // Dropped: its sender learns that the engine is closed.
                Ok(Command::Count(_) | Command::Follow(_) | Command::Close) => {}
                Err(_) => break,
            }
        }
        if self.journal.since_snapshot_bytes() > 0 && self.has_lineage() {
            let written = self.begin_snapshot().write(&*self.folder, &self.table);
            self.snapshot_written(written);
        }
    }

    /// Whether the folder says which binlog it has; no snapshot hides before that what a start would find lost.
    fn has_lineage(&mut self) -> bool {
        let kept = self.journal.keep_lineage();
        if let Err(error) = &kept {
            tracing::warn!(%error, "no snapshot is written: the folder's lineage cannot be");
        }
        kept.is_ok()
    }

    fn begin_snapshot(&mut self) -> Begun {
        let offset = self.journal.begin_snapshot();
        Begun { offset, header: snapshot::header(&self.table(), offset, unix_ms()) }
    }

    fn snapshot_written(&mut self, written: Written) {
        self.snapshot_runs = false;
        let Written { offset, took, result } = written;
        match result.and_then(|()| self.end_snapshot(offset)) {
            Ok(()) => {
                self.metrics.snapshot_seconds.observe(took.as_secs_f64());
                tracing::debug!(offset, took_s = took.as_secs_f64(), "snapshot");
            }
            Err(error) => {
                self.metrics.snapshot_failures.inc();
                tracing::warn!(%error, offset, "the snapshot failed; the binlog grows until one succeeds");
            }
        }
        self.metrics.unsnapshot_bytes.set(level(self.journal.since_snapshot_bytes()));
    }

    fn table(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A group that gathers, and who waits for it.
#[derive(Debug, Default)]
struct Pending {
    group: Group,
    /// Of each batch of the group, the last mark of its source before it.
    known: Vec<Mark>,
    bytes: usize,
    /// Marks of the sources in it, on top of the table's.
    marks: HashMap<String, Mark>,
    replies: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    reply: oneshot::Sender<Result<bool, CountError>>,
    /// What it is told once the group is durable.
    answer: Result<bool, CountError>,
    _room: OwnedSemaphorePermit,
}

impl Pending {
    fn add(&mut self, submission: Submission, table: &Table, now_us: u64) {
        let Submission { batch, reply, _room } = submission;
        let mark = self.marks.get(&batch.source).copied().unwrap_or_else(|| table.mark(&batch.source));
        // A batch that is twice in one group is acknowledged twice, but only once the group is durable.
        let answer = match batch.mark.standing(mark) {
            Standing::New => marks::check(batch.mark, mark, now_us).map(|()| true).map_err(CountError::from),
            Standing::Counted => Ok(false),
            Standing::Stale => Err(CountError::Stale { boot: batch.mark.boot, known: mark.boot }),
        };
        let is_new = matches!(answer, Ok(true));
        self.replies.push(Waiting { reply, answer, _room });
        if is_new {
            self.known.push(mark);
            self.bytes += batch.bytes();
            self.marks.insert(batch.source.clone(), batch.mark);
            self.group.batches.push(batch);
        }
    }

    fn duplicates(&self) -> u64 {
        self.replies.iter().filter(|waiting| matches!(waiting.answer, Ok(false))).count() as u64
    }

    fn answer(self, error: Option<&std::io::Error>) {
        for Waiting { reply, answer, _room } in self.replies {
            let answer = error.map_or(answer, |error| Err(CountError::Disk(error.to_string())));
            // A requester that has gone away asks again and learns then.
            drop(reply.send(answer));
        }
    }
}

/// A group that has gathered so much does not wait longer, bytes.
const GROUP_BYTES_MAX: usize = 16 << 20;

/// Between two snapshots for the size of the binlog, so that a full disk is not written to all the time.
const SNAPSHOT_PAUSE: Duration = Duration::from_secs(10);
