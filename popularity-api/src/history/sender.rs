//! The two tasks of the history: one fills the spool, one empties it. They wait; what they do is decided in
//! [`super::buffer`], [`super::spool`] and [`super::pace`]. The spool is locked while it writes to the disk, so only
//! blocking threads lock it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daemon::clock;
use daemon::metrics::level;
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;

use super::buffer::Buffer;
use super::clickhouse::{Access, ClickHouseError};
use super::pace::Pace;
use super::spool::{Batch, ReadError, Spool};
use super::{Metrics, Noted};

/// What both tasks know.
#[derive(Clone, Debug)]
pub struct Sender {
    spool: Arc<Mutex<Spool>>,
    more: Arc<Notify>,
    metrics: Arc<Metrics>,
}

impl Sender {
    /// For a spool that was opened.
    #[must_use]
    pub fn new(spool: Spool, metrics: Arc<Metrics>) -> Self {
        let sender = Self { spool: Arc::new(Mutex::new(spool)), more: Arc::new(Notify::new()), metrics };
        sender.tell(&sender.spool());
        sender
    }

    /// Sums up what is noted and seals a batch every `flush`, or at `rows_max`. Ends, with the rest sealed, when nobody can
    /// note any more.
    pub async fn gather(self, mut noted: mpsc::Receiver<Noted>, flush: Duration, rows_max: usize) {
        let mut ticks = tokio::time::interval(flush);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        let mut buffer = Buffer::new(clock::unix_s(), rows_max);
        loop {
            let full = tokio::select! {
                taken = noted.recv() => match taken {
                    Some(taken) => buffer.add(taken),
                    None => break,
                },
                _ = ticks.tick() => true,
            };
            if full {
                let next = Buffer::new(clock::unix_s(), rows_max);
                self.seal(std::mem::replace(&mut buffer, next)).await;
            }
        }
        self.seal(buffer).await;
    }

    async fn seal(&self, buffer: Buffer) {
        if buffer.is_empty() {
            return;
        }
        let sender = self.clone();
        let done = tokio::task::spawn_blocking(move || sender.keep(buffer)).await;
        if done.is_err() {
            tracing::error!("a batch of the history is lost: the thread that writes it panicked; see above why");
        }
    }

    /// Writes a batch. Blocks on the disk.
    fn keep(&self, buffer: Buffer) {
        let rows = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
        let mut spool = self.spool();
        let number = spool.number(clock::unix_us());
        let lines = buffer.seal(number);
        match spool.push(number, rows, &lines) {
            Ok(0) => {}
            Ok(dropped) => {
                tracing::warn!(rows = dropped, "the history's spool is full: its oldest batches are dropped");
                self.metrics.dropped("full", dropped);
            }
            Err(error) => {
                tracing::warn!(%error, rows, "a batch of the history cannot be written and is dropped");
                self.metrics.dropped("disk", rows);
            }
        }
        self.tell(&spool);
        drop(spool);
        self.more.notify_one();
    }

    /// Sends what waits, oldest first, until it is dropped. A server that is away or refuses is asked again, later and
    /// later; a batch that itself is refused for good is put away with those that were sent, for `sunctl history fill`.
    pub async fn deliver(self, access: Access) {
        let (mut pace, mut refusals) = (Pace::default(), Refusals::default());
        let mut is_away = false;
        loop {
            let (batch, lines) = match self.next().await {
                Next::Batch(batch, lines) => (batch, lines),
                Next::Nothing => {
                    self.more.notified().await;
                    continue;
                }
                Next::Later => {
                    tokio::time::sleep(pace.failure(rand::random())).await;
                    continue;
                }
            };
            match access.insert(lines).await {
                Ok(()) => {
                    pace.success();
                    if std::mem::take(&mut is_away) {
                        tracing::info!("the history is taken again");
                    }
                    self.metrics.sent.inc_by(batch.rows);
                    self.done(batch).await;
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_away, true) {
                        tracing::warn!(%error, "the history is not taken: it waits on disk");
                    }
                    self.metrics.failures.inc();
                    if refusals.is_for_good(batch.number, &error) {
                        let (batch_number, rows) = (batch.number, batch.rows);
                        tracing::warn!(%error, batch_number, rows, "a batch of the history is refused and put aside");
                        self.metrics.dropped("refused", rows);
                        self.done(batch).await;
                    }
                    tokio::time::sleep(pace.failure(rand::random())).await;
                }
            }
        }
    }

    /// The oldest batch; those that are damaged or gone are given up. One that the disk does not give stays, and those behind
    /// it wait.
    async fn next(&self) -> Next {
        let sender = self.clone();
        tokio::task::spawn_blocking(move || sender.oldest()).await.unwrap_or(Next::Later)
    }

    fn oldest(&self) -> Next {
        let mut spool = self.spool();
        while let Some(batch) = spool.oldest() {
            let why = match spool.read(&batch) {
                Ok(lines) => return Next::Batch(batch, lines),
                Err(ReadError::Damaged) => "damaged",
                Err(ReadError::Gone) => "gone",
                Err(ReadError::Disk(error)) => {
                    tracing::warn!(%error, batch = batch.number, "a batch of the history cannot be read now and waits");
                    self.metrics.failures.inc();
                    return Next::Later;
                }
            };
            tracing::warn!(batch = batch.number, why, "a batch of the history is lost");
            spool.discard(&batch);
            self.metrics.dropped(why, batch.rows);
            self.tell(&spool);
        }
        Next::Nothing
    }

    async fn done(&self, batch: Batch) {
        let sender = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut spool = sender.spool();
            if let Err(error) = spool.sent(&batch) {
                tracing::warn!(%error, batch = batch.number, "a batch of the history cannot be put away");
            }
            sender.tell(&spool);
        });
        drop(done.await);
    }

    fn tell(&self, spool: &Spool) {
        let (batches, bytes) = spool.waiting();
        self.metrics.spool_batches.set(level(batches));
        self.metrics.spool_bytes.set(level(bytes));
        let oldest_s = spool.oldest().map_or(0, |batch| batch.number / 1_000_000);
        self.metrics.oldest.set(level(oldest_s));
    }

    fn spool(&self) -> MutexGuard<'_, Spool> {
        // What a panic leaves behind is a list of files all the same.
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to be sent.
#[derive(Debug, PartialEq)]
enum Next {
    /// A batch and its lines.
    Batch(Batch, Vec<u8>),
    /// All is sent.
    Nothing,
    /// The disk does not give it now.
    Later,
}

/// How often the batch that is tried was refused for what is in it. Pure.
#[derive(Debug, Default)]
struct Refusals {
    batch: u64,
    times: u32,
}

impl Refusals {
    /// Notes an answer about a batch; whether it is to be given up. A table that is missing (404) or a server that has no
    /// room is no fault of the batch's.
    const fn is_for_good(&mut self, batch: u64, error: &ClickHouseError) -> bool {
        if !matches!(error, ClickHouseError::Refused { status: 400 | 413, .. }) {
            return false;
        }
        if self.batch != batch {
            *self = Self { batch, times: 0 };
        }
        self.times += 1;
        self.times >= REFUSALS_MAX
    }
}

/// How often a batch is refused before the next one is tried. Too small: a table that is being changed costs batches; too
/// large: one batch holds the others up.
const REFUSALS_MAX: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_the_disk_does_not_give_for_a_moment_waits_and_one_that_is_gone_is_given_up() {
        let place = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(place.path(), 1 << 20, 0).unwrap();
        for (number, line) in [(1, b"a\n"), (2, b"b\n")] {
            spool.push(number, 1, line).unwrap();
        }
        let (first, path) = (spool.oldest().unwrap(), super::super::spool::kept(place.path()).unwrap().remove(0).0);
        let lines = spool.read(&first).unwrap();
        let metrics = Arc::new(Metrics::register(&prometheus::Registry::new()).unwrap());
        let sender = Sender::new(spool, Arc::clone(&metrics));
        let aside = place.path().join("aside");
        std::fs::rename(&path, &aside).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!((sender.oldest(), metrics.failures.get()), (Next::Later, 1));
        std::fs::remove_dir(&path).unwrap();
        std::fs::rename(&aside, &path).unwrap();
        assert_eq!(sender.oldest(), Next::Batch(first, lines));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(sender.oldest(), Next::Batch(second, _) if second.number == 2));
    }

    #[test]
    fn only_a_batch_that_is_refused_again_and_again_for_what_is_in_it_is_given_up() {
        let mut refusals = Refusals::default();
        for (batch, status, expected) in [
            (7, 400, false),
            (7, 404, false),
            (7, 500, false),
            (7, 400, false),
            (7, 413, false),
            (7, 400, false),
            (7, 404, false),
            (7, 400, true),
            (8, 400, false),
        ] {
            let error = ClickHouseError::Refused { status, said: String::new() };
            assert_eq!(refusals.is_for_good(batch, &error), expected, "{batch} {status}");
        }
        let away = ClickHouseError::Unreachable { url: String::new(), why: String::new() };
        assert!((0..9).all(|_| !refusals.is_for_good(8, &away)));
    }
}
