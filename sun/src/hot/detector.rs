//! What all workers count into: a window of sketches each, exchanged each second.
//!
//! ```text
//!   worker 1 --> shard 1: window {requests, units of bytes} --+
//!   worker 2 --> shard 2: window                              +--take: exchanged for cleared ones--> merged counts
//! ```
//!
//! Why a shard a worker: with one lock all workers would wait at the hottest file, of all places. A shard's lock is
//! its worker's own but for the moment of the exchange.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use geo::ContentId;

use super::sketch::Sketch;

/// See the module's doc.
#[derive(Debug)]
pub struct Detector {
    shards: Vec<Mutex<Window>>,
    /// Cleared windows, as many as there are shards.
    spare: Mutex<Vec<Window>>,
}

/// What one worker counted since the last exchange. Pure.
#[derive(Debug)]
pub struct Window {
    requests: Sketch,
    /// Bytes, in units of [`UNIT_BYTES`].
    units: Sketch,
    remainder: u64,
}

/// What was counted of one file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Counted {
    /// First 8 bytes of its content id.
    pub prefix: u64,
    /// Its canonical name.
    pub file: Arc<str>,
    /// Requests of clients that were served, at least.
    pub requests: u64,
    /// Bytes sent to them, at least.
    pub bytes: u64,
}

impl Window {
    /// Nothing was counted.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { requests: Sketch::new(seed), units: Sketch::new(!seed), remainder: 0 }
    }

    /// A client's request for a file is served.
    pub fn requested(&mut self, content: ContentId, name: impl FnOnce() -> Arc<str>) {
        self.requests.add(content, 1, name);
    }

    /// Bytes of a file were sent to a client. What does not fill a unit is kept for whoever sends next: over many
    /// pieces every file gets its share of units.
    pub fn sent(&mut self, content: ContentId, bytes: u64, name: impl FnOnce() -> Arc<str>) {
        self.remainder += bytes;
        let units = self.remainder / UNIT_BYTES;
        self.remainder %= UNIT_BYTES;
        if units > 0 {
            self.units.add(content, u32::try_from(units).unwrap_or(u32::MAX), name);
        }
    }

    /// The counts of all files that are among the most asked-for in any window, in order of name.
    #[must_use]
    pub fn merged(windows: &[Self]) -> Vec<Counted> {
        let mut names: HashMap<u64, &Arc<str>> = HashMap::new();
        for window in windows {
            let candidates = window.requests.candidates().iter().chain(window.units.candidates());
            names.extend(candidates.map(|candidate| (candidate.prefix, &candidate.file)));
        }
        let sum = |of: &dyn Fn(&Self) -> u32| windows.iter().map(|window| u64::from(of(window))).sum::<u64>();
        let mut counted: Vec<Counted> = names
            .into_iter()
            .map(|(prefix, file)| Counted {
                prefix,
                file: Arc::clone(file),
                requests: sum(&|window| window.requests.estimate(prefix)),
                bytes: sum(&|window| window.units.estimate(prefix)) * UNIT_BYTES,
            })
            .collect();
        counted.sort_by(|a, b| a.file.cmp(&b.file));
        counted
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.requests.clear();
        self.units.clear();
        self.remainder = 0;
    }
}

impl Detector {
    /// For so many workers; memory is taken for at most [`SHARDS_MAX`].
    #[must_use]
    pub fn new(workers: usize) -> Self {
        let shards = workers.clamp(1, SHARDS_MAX);
        let windows = || (0..shards).map(|_| Window::new(rand::random()));
        Self { shards: windows().map(Mutex::new).collect(), spare: Mutex::new(windows().collect()) }
    }

    /// A client's request for a file is served.
    pub fn requested(&self, content: ContentId, name: impl FnOnce() -> Arc<str>) {
        self.window().requested(content, name);
    }

    /// Bytes of a file were sent to a client.
    pub fn sent(&self, content: ContentId, bytes: u64, name: impl FnOnce() -> Arc<str>) {
        self.window().sent(content, bytes, name);
    }

    /// What was counted since the last call, in order of name.
    #[must_use]
    pub fn take(&self) -> Vec<Counted> {
        let mut spare = lock(&self.spare);
        for (shard, spare) in self.shards.iter().zip(&mut *spare) {
            std::mem::swap(&mut *lock(shard), spare);
        }
        let counted = Window::merged(&spare);
        spare.iter_mut().for_each(Window::clear);
        counted
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        let worker = WORKER.with(|worker| *worker);
        lock(&self.shards[worker % self.shards.len()])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code that holds this lock panics")
}

static WORKERS: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    /// Numbers threads in the order in which they first count something.
    static WORKER: usize = WORKERS.fetch_add(1, Ordering::Relaxed);
}

/// Bytes of one count: small enough that the share of a network card that matters is thousands a second, large
/// enough that an hour of a window fits 32 bits at any speed.
const UNIT_BYTES: u64 = 16 * 1024;
/// A shard takes about 300 KiB, spare included.
const SHARDS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_taken_once() {
        let detector = Detector::new(3);
        for _ in 0..5 {
            detector.requested(content("c1/a"), || "c1/a".into());
        }
        detector.sent(content("c1/b"), 10 * UNIT_BYTES, || "c1/b".into());
        let counted: Vec<(String, u64, u64)> =
            detector.take().into_iter().map(|one| (one.file.to_string(), one.requests, one.bytes)).collect();
        assert_eq!(counted, [("c1/a".to_owned(), 5, 0), ("c1/b".to_owned(), 0, 10 * UNIT_BYTES)]);
        assert_eq!(detector.take(), []);
    }

    #[test]
    fn workers_are_summed() {
        let detector = Detector::new(2);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..100).for_each(|_| detector.requested(content("c1/a"), || "c1/a".into())));
            }
        });
        assert_eq!(detector.take()[0].requests, 300);
    }

    #[test]
    fn small_pieces_add_up_to_units() {
        let mut window = Window::new(1);
        for _ in 0..64 {
            window.sent(content("c1/a"), UNIT_BYTES / 64, || "c1/a".into());
        }
        assert_eq!(Window::merged(&[window])[0].bytes, UNIT_BYTES);
    }

    fn content(name: &str) -> ContentId {
        geo::CanonicalName::parse(name).unwrap().content_id()
    }
}
