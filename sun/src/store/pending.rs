//! Records on their way to a device: a bounded queue between many that offer and one thread that writes.
//!
//! What waits here is read from here. Nobody who offers ever waits: when the queue is full, the offer is refused.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use geo::ContentId;

use crate::store::format::{Key, record_bytes};
use crate::store::policy::Queue;

/// A record that waits to be written.
#[derive(Debug)]
pub struct Item {
    /// Its name.
    pub key: Key,
    /// Its hash in the index.
    pub hash: u64,
    /// Metadata.
    pub meta: Bytes,
    /// Body.
    pub body: Bytes,
    /// Where it goes.
    pub queue: Queue,
    /// Its place in the order of offers and forgets; given by [`Pending::offer`].
    pub sequence: u64,
}

/// What the writer is to do.
#[derive(Clone, Debug)]
pub enum Job {
    /// Append a record, if it is still wanted.
    Write(Arc<Item>),
    /// Append a tombstone.
    Forget {
        /// The content.
        content: ContentId,
        /// Of the tombstone.
        sequence: u64,
    },
}

/// See the module's doc.
#[derive(Debug, Default)]
pub struct Pending {
    state: Mutex<State>,
    news: Condvar,
    /// Records that wait, to be asked without the lock: mostly none.
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    by_hash: HashMap<u64, Arc<Item>>,
    bytes: u64,
    stopped: bool,
}

impl Pending {
    /// Queues a record with the next sequence; false: the queue is full. A forget that is told of it later has a
    /// higher one, however long the record waits and its write takes.
    pub fn offer(&self, mut item: Item, sequence: &AtomicU64) -> bool {
        let bytes = item.bytes();
        let mut state = self.lock();
        if state.stopped || state.bytes + bytes > QUEUE_BYTES_MAX {
            return false;
        }
        state.bytes += bytes;
        // Under the lock: jobs wait in the order of their sequences.
        item.sequence = sequence.fetch_add(1, Ordering::Relaxed);
        let item = Arc::new(item);
        state.by_hash.insert(item.hash, Arc::clone(&item));
        state.jobs.push_back(Job::Write(item));
        self.waiting.store(state.by_hash.len(), Ordering::Release);
        let wake = state.bytes >= WAKE_BYTES || state.jobs.len() >= WAKE_JOBS;
        drop(state);
        if wake {
            self.news.notify_one();
        }
        true
    }

    /// Queues a tombstone, and what waits of the content is not found any more; false: the queue is full.
    pub fn forget(&self, content: ContentId, sequence: u64) -> bool {
        let mut state = self.lock();
        if !state.by_hash.is_empty() {
            state.by_hash.retain(|_, item| item.key.content != content);
            self.waiting.store(state.by_hash.len(), Ordering::Release);
        }
        if state.jobs.len() >= JOBS_MAX {
            return false;
        }
        state.jobs.push_back(Job::Forget { content, sequence });
        true
    }

    /// A record that waits.
    #[must_use]
    pub fn find(&self, key: &Key, hash: u64) -> Option<Arc<Item>> {
        if self.waiting.load(Ordering::Acquire) == 0 {
            return None;
        }
        let state = self.lock();
        let item = state.by_hash.get(&hash).filter(|item| item.key.content == key.content)?;
        Some(Arc::clone(item))
    }

    /// Waits for something worth writing, at most `patience`; then takes all that waits.
    pub fn take(&self, patience: Duration) -> VecDeque<Job> {
        let idle = |state: &mut State| state.bytes < WAKE_BYTES && state.jobs.len() < WAKE_JOBS && !state.stopped;
        let waited = self.news.wait_timeout_while(self.lock(), patience, idle);
        let (mut state, _) = waited.expect("no code that holds this lock panics");
        std::mem::take(&mut state.jobs)
    }

    /// Whether the record is still wanted: it may have been forgotten or replaced while it waited.
    #[must_use]
    pub fn wants(&self, item: &Arc<Item>) -> bool {
        self.lock().by_hash.get(&item.hash).is_some_and(|other| Arc::ptr_eq(other, item))
    }

    /// The record was written, or cannot be.
    pub fn done(&self, item: &Arc<Item>) {
        let mut state = self.lock();
        state.bytes -= item.bytes();
        if state.by_hash.get(&item.hash).is_some_and(|other| Arc::ptr_eq(other, item)) {
            state.by_hash.remove(&item.hash);
            self.waiting.store(state.by_hash.len(), Ordering::Release);
        }
    }

    /// Nothing is taken any more; [`Pending::take`] does not wait any more.
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.news.notify_all();
    }

    /// Whether it was stopped.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.lock().stopped
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code that holds this lock panics")
    }
}

impl Item {
    fn bytes(&self) -> u64 {
        record_bytes(self.meta.len(), self.body.len()) + ITEM_OVERHEAD_BYTES
    }
}

/// Bytes that may wait for one device: 64 MiB, a few tens of milliseconds of an NVMe drive and half a second of
/// a slow one. Too small: bursts of fills are not kept; too large: it is RAM on top of `ram_bytes`.
pub const QUEUE_BYTES_MAX: u64 = 64 << 20;

/// The writer is woken for so much; less waits for the tick.
const WAKE_BYTES: u64 = 4 << 20;
const WAKE_JOBS: usize = 4096;

/// Records and tombstones that may wait.
const JOBS_MAX: usize = 1 << 20;

/// An estimate of what an item costs beside its bytes.
const ITEM_OVERHEAD_BYTES: u64 = 256;
