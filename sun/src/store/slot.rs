//! One device of a store, and the thread that owns its log.
//!
//! ```text
//!   open ---> recovering ---> ready --- errors, too many ---> aside ---30 s---> open
//!     | refused                  | stop                         ^
//!     +--------------------------|------------------------------+
//!                                v
//!                              sealed, closed; or unlocked for another process, and read on
//! ```

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::Semaphore;

use crate::store::device::Device;
use crate::store::format::{Key, Kind};
use crate::store::log::{Counts, Log, Parts, Record, Shared};
use crate::store::pending::{Item, Job, Pending};
use crate::store::policy::Policy;
use crate::store::recover::{self, OpenError, Recovery};

/// Opens the device, at the start and after it stepped aside.
pub type Opener = Box<dyn Fn() -> io::Result<Arc<dyn Device>> + Send + Sync>;

/// What a device is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum State {
    /// Its index is being read; what is known is served, offers are taken.
    Recovering = 0,
    /// All is known.
    Ready = 1,
    /// It failed and is left alone for a while.
    Aside = 2,
}

/// See the module's doc.
pub struct Slot {
    /// For people.
    pub name: String,
    /// Bytes that are configured.
    pub bytes: u64,
    /// Records on their way.
    pub pending: Pending,
    /// What is written and kept.
    pub policy: Arc<Mutex<Policy>>,
    /// What is counted.
    pub counts: Arc<Counts>,
    /// Reads that wait for this device at the same time.
    pub reads: Arc<Semaphore>,
    /// Tables of segments that recovery has still to read.
    pub recovery_left: AtomicU64,
    id: u8,
    segment_bytes: u32,
    device: ArcSwapOption<Opened>,
    state: AtomicU8,
    opener: Opener,
    /// Another process has it, as was said once.
    occupied: AtomicBool,
    /// Its end is that another process writes it.
    handing_over: AtomicBool,
}

/// A device that is in use.
#[derive(Debug)]
pub struct Opened(pub Arc<dyn Device>);

/// A log that was opened, and what is left to be read of it.
pub type Begun = Option<(Log, Recovery)>;

impl Slot {
    /// A device that is not opened yet.
    #[must_use]
    pub fn new(id: u8, name: String, bytes: u64, segment_bytes: u32, policy: Policy, opener: Opener) -> Self {
        Self {
            name,
            bytes,
            pending: Pending::default(),
            policy: Arc::new(Mutex::new(policy)),
            counts: Arc::default(),
            reads: Arc::new(Semaphore::new(READS_MAX)),
            recovery_left: AtomicU64::new(0),
            id,
            segment_bytes,
            device: ArcSwapOption::empty(),
            state: AtomicU8::new(State::Aside as u8),
            opener,
            occupied: AtomicBool::new(false),
            handing_over: AtomicBool::new(false),
        }
    }

    /// Opens the device; on failure it is aside.
    pub fn open(&self, shared: &Shared) -> Begun {
        match self.try_open(shared) {
            Ok((log, recovery)) => {
                self.occupied.store(false, Ordering::Relaxed);
                self.recovery_left.store(recovery.left() as u64, Ordering::Relaxed);
                self.state.store(State::Recovering as u8, Ordering::Release);
                self.device.store(Some(Arc::new(Opened(Arc::clone(&log.device)))));
                Some((log, recovery))
            }
            Err(error) if is_occupied(&error) => {
                if !self.occupied.swap(true, Ordering::Relaxed) {
                    tracing::info!(store = %self.name, "another process has it: the store does without it until that ends");
                }
                None
            }
            Err(error) => {
                self.occupied.store(false, Ordering::Relaxed);
                tracing::warn!(store = %self.name, %error, "the store does without it, tried again in {RETRY:?}");
                None
            }
        }
    }

    /// The device, unless it is aside.
    #[must_use]
    pub fn device(&self) -> Option<Arc<Opened>> {
        self.device.load_full()
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Recovering,
            1 => State::Ready,
            _ => State::Aside,
        }
    }

    /// Whether it is aside because another process has it, as while one takes over from another.
    #[must_use]
    pub fn is_occupied(&self) -> bool {
        self.occupied.load(Ordering::Relaxed)
    }

    /// The life of the thread that writes. `begun` is what [`Slot::open`] gave.
    pub fn run(&self, shared: &Shared, mut begun: Begun) {
        loop {
            if let Some((log, recovery)) = begun.take() {
                self.serve(shared, log, recovery);
            }
            if self.handing_over.load(Ordering::Acquire) {
                self.unlock();
                return;
            }
            self.step_aside();
            let retry = if self.occupied.load(Ordering::Relaxed) { RETRY_OCCUPIED } else { RETRY };
            let since = Instant::now();
            while since.elapsed() < retry {
                if self.pending.stopped() {
                    return;
                }
                // What is offered meanwhile has nowhere to go.
                self.discard(shared, self.pending.take(TICK));
            }
            begun = self.open(shared);
        }
    }

    fn try_open(&self, shared: &Shared) -> Result<(Log, Recovery), OpenError> {
        let parts = Parts {
            shared: shared.clone(),
            policy: Arc::clone(&self.policy),
            counts: Arc::clone(&self.counts),
            random: rand::random,
        };
        recover::open(self.id, (self.opener)()?, self.segment_bytes, parts)
    }

    /// Recovers, then writes until the device fails too often or the store is closed.
    fn serve(&self, shared: &Shared, mut log: Log, recovery: Recovery) {
        self.recover(&log, &recovery);
        if recovery.left() > 0 {
            // A log that is not known whole must not be written: room would be made of records and tombstones that the
            // index has not heard of yet. What waits is lost, as in a crash.
            tracing::info!(store = %self.name, "stopped before its index was read: what was offered is not kept");
            return;
        }
        drop(recovery);
        self.state.store(State::Ready as u8, Ordering::Release);
        let (mut errors, mut since) = (self.counts.errors.load(Ordering::Relaxed), Instant::now());
        let mut synced = Instant::now();
        loop {
            let stopped = self.pending.stopped();
            self.write(shared, &mut log, self.pending.take(TICK));
            if synced.elapsed() >= SYNC {
                // Counted where it arose.
                let _ = log.sync();
                synced = Instant::now();
            }
            let now = self.counts.errors.load(Ordering::Relaxed);
            if now - errors >= ERRORS_MAX {
                let failed = now - errors;
                tracing::warn!(store = %self.name, errors = failed, "a device fails: the store does without it");
                return;
            }
            if since.elapsed() >= ERRORS_OVER {
                (errors, since) = (now, Instant::now());
            }
            if stopped {
                if let Err(error) = log.close() {
                    tracing::warn!(store = %self.name, %error, "not closed: the next start takes a little longer");
                }
                return;
            }
        }
    }

    /// Reads the tables on as many threads as there are cores, at most four: a table is read while another is taken in.
    fn recover(&self, log: &Log, recovery: &Recovery) {
        recovery.prepare(log);
        let threads = std::thread::available_parallelism().map_or(1, usize::from).clamp(2, RECOVERY_THREADS_MAX);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while !self.pending.stopped() && recovery.step(log) {
                        self.recovery_left.store(recovery.left() as u64, Ordering::Relaxed);
                    }
                });
            }
        });
    }

    fn write(&self, shared: &Shared, log: &mut Log, jobs: impl IntoIterator<Item = Job>) {
        let mut batch: Vec<Arc<Item>> = Vec::new();
        for job in jobs {
            let appended = match job {
                Job::Write(item) => {
                    let record = Record { key: item.key, meta: &item.meta, body: &item.body };
                    let wanted = self.pending.wants(&item);
                    let appended = if wanted { log.append(record, item.sequence, item.queue) } else { Ok(()) };
                    batch.push(item);
                    appended
                }
                Job::Forget { content, sequence } => {
                    let key = Key { kind: Kind::Tombstone, content, generation: 0, index: 0 };
                    log.append_tombstone(key, sequence)
                }
            };
            if batch.len() >= BATCH || appended.is_err() {
                self.finish(shared, log, &mut batch, appended);
            }
        }
        self.finish(shared, log, &mut batch, Ok(()));
    }

    /// The batch is on the device, or as much of it as could be written. An error is counted by the log.
    fn finish(&self, shared: &Shared, log: &mut Log, batch: &mut Vec<Arc<Item>>, appended: io::Result<()>) {
        let lost = log.write_out().is_err() || appended.is_err();
        for item in batch.drain(..) {
            if lost {
                self.lose(shared, &item);
            }
            self.pending.done(&item);
        }
    }

    /// A head that was not written must not leave an older one to be found.
    fn lose(&self, shared: &Shared, item: &Item) {
        if item.key.kind == Kind::Head {
            shared.index.forget(item.hash);
        }
    }

    fn discard(&self, shared: &Shared, jobs: impl IntoIterator<Item = Job>) {
        for job in jobs {
            if let Job::Write(item) = job {
                self.lose(shared, &item);
                self.pending.done(&item);
            }
        }
    }

    /// From now on, the end of the log ([`Pending::stop`]) leaves the device to another process.
    pub fn hand_over(&self) {
        self.handing_over.store(true, Ordering::Release);
    }

    /// The log is sealed: another process may write the device. It is read on here, and nothing is offered to it.
    fn unlock(&self) {
        self.state.store(State::Aside as u8, Ordering::Release);
        if let Some(device) = self.device() {
            device.0.unlock();
        }
    }

    fn step_aside(&self) {
        self.state.store(State::Aside as u8, Ordering::Release);
        self.device.store(None);
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("name", &self.name).field("state", &self.state()).finish_non_exhaustive()
    }
}

/// Whether another process has the device, as one has that this one takes over from.
fn is_occupied(error: &OpenError) -> bool {
    let kind = match error {
        OpenError::Device(error) => error.kind(),
        _ => return false,
    };
    matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy)
}

/// How long a small write waits for company.
const TICK: Duration = Duration::from_millis(100);

/// From a write to the sync that makes it durable: with [`TICK`] well within the second that a crash may cost.
const SYNC: Duration = Duration::from_millis(400);

/// A device with so many errors within [`ERRORS_OVER`] steps aside.
const ERRORS_MAX: u64 = 16;
const ERRORS_OVER: Duration = Duration::from_secs(60);

/// A device that stepped aside is tried again after this.
const RETRY: Duration = Duration::from_secs(30);

/// The same, of one that another process has.
const RETRY_OCCUPIED: Duration = Duration::from_millis(200);

/// Reads of one device that wait at the same time; one more is answered "absent" rather than queued behind them.
const READS_MAX: usize = 64;

const RECOVERY_THREADS_MAX: usize = 4;

/// Records that are handed to the device together at the latest.
const BATCH: usize = 1024;
