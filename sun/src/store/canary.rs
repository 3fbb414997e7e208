//! Whether a device does what it is for: a small record is written as any other, and read back from the device itself.
//!
//! ```text
//!   round n:  device ready? --> what round n - 1 wrote: on its way? gone? read back, the same? --> offer the next
//! ```
//!
//! A round never waits for a device, only for its read to end: the caller sets a deadline, and begins no other round of
//! this device meanwhile. The record replaces the one before, is found by nobody else, and passes by the policy: its bytes
//! (4 KiB a round) are not counted among those of the day.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use geo::ContentId;

use super::format::{Key, Kind};
use super::pending::Item;
use super::policy::Queue;
use super::read::{self, ReadError, Wait};
use super::slot::{Slot, State};
use super::{Offered, Store};

/// What a round finds of one device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Found {
    /// What was written came back.
    Well,
    /// What was written is on its way, not for too long: nothing is known that was not known before.
    Waits,
    /// Nothing can be said of it, and nothing is wrong: its index is being read, another process has it, or this is the
    /// first round.
    Unknown(&'static str),
    /// Something is wrong, for people.
    Failed(String),
}

/// What was written to the devices and is to come back.
#[derive(Debug, Default)]
pub struct Canaries(Mutex<Vec<Ongoing>>);

/// What is known of one device between two rounds.
#[derive(Clone, Debug, Default)]
struct Ongoing {
    written: Option<Written>,
    /// Since when nothing more can be offered to it.
    full: Option<Instant>,
}

/// A record that was offered.
#[derive(Clone, Debug)]
struct Written {
    generation: u64,
    body: Bytes,
    since: Instant,
}

impl Store {
    /// Names of the devices.
    #[must_use]
    pub fn device_names(&self) -> Vec<String> {
        self.0.slots.iter().map(|slot| slot.name.clone()).collect()
    }

    /// One round of one device; blocks as long as a read takes.
    #[must_use]
    pub fn canary_round(&self, at: usize, canaries: &Canaries) -> Found {
        let Some(slot) = self.0.slots.get(at) else { return Found::Unknown("there is no such device") };
        match slot.state() {
            State::Aside if slot.is_occupied() => return Found::Unknown("another process has it"),
            State::Aside => return Found::Failed("it failed or cannot be opened, and stands aside".to_owned()),
            State::Recovering => return Found::Unknown("its index is being read"),
            State::Ready => {}
        }
        let found = match canaries.of(at) {
            None => Found::Unknown("nothing was written yet"),
            Some(written) => match self.look_back(slot, at, &written) {
                Some(found) => found,
                // The next round looks again, at the same record: a device that writes nothing is not asked for something else.
                None => return waiting(written.since.elapsed()),
            },
        };
        let written = Written::next();
        if self.offer_canary(slot, at, &written) == Offered::Stored {
            canaries.keep(at, written);
            return found;
        }
        // A queue that is full for a moment is a busy device, not a broken one.
        match canaries.full(at, Instant::now()) {
            waited if waited <= WRITE_MAX => found,
            waited => Found::Failed(format!("too much waits to be written for {:.1} s", waited.as_secs_f64())),
        }
    }

    fn offer_canary(&self, slot: &Slot, at: usize, written: &Written) -> Offered {
        let key = Key { generation: written.generation, ..key(at) };
        let hash = self.0.shared.index.hash(&key);
        let (meta, body) = (Bytes::new(), written.body.clone());
        let item = Item { key, hash, meta, body, queue: Queue::Probation, sequence: 0 };
        if slot.pending.offer(item, &self.0.shared.sequence) { Offered::Stored } else { Offered::QueueFull }
    }

    /// What became of a record; None: it waits still.
    fn look_back(&self, slot: &Slot, at: usize, written: &Written) -> Option<Found> {
        let key = key(at);
        let hash = self.0.shared.index.hash(&key);
        if slot.pending.find(&key, hash).is_some() {
            return None;
        }
        let place = self.0.shared.index.find(hash).filter(|place| place.device() == at);
        let (Some(place), Some(device)) = (place, slot.device()) else {
            return Some(Found::Failed("what was offered could not be written".to_owned()));
        };
        device.0.drop_cached(place.offset(), place.bytes());
        Some(match read::read(&*device.0, place, &key, 0..u64::MAX, Wait::Yes) {
            Ok(loaded) if loaded.body == written.body => Found::Well,
            Ok(_) => Found::Failed("what was written came back otherwise".to_owned()),
            Err(error) => {
                if matches!(error, ReadError::Device(_)) {
                    slot.counts.errors.fetch_add(1, Ordering::Relaxed);
                }
                Found::Failed(format!("what was written cannot be read: {error}"))
            }
        })
    }
}

/// What a record says that waits to be written.
fn waiting(waited: Duration) -> Found {
    if waited <= WRITE_MAX {
        return Found::Waits;
    }
    Found::Failed(format!("nothing was written for {:.1} s", waited.as_secs_f64()))
}

impl Canaries {
    fn of(&self, at: usize) -> Option<Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(at)?.written.clone()
    }

    /// Its queue is full; for how long it is so.
    fn full(&self, at: usize, now: Instant) -> Duration {
        self.with(at, |device| now.saturating_duration_since(*device.full.get_or_insert(now)))
    }

    fn keep(&self, at: usize, written: Written) {
        self.with(at, |device| *device = Ongoing { written: Some(written), full: None });
    }

    fn with<T>(&self, at: usize, change: impl FnOnce(&mut Ongoing) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() <= at {
            all.resize_with(at + 1, Ongoing::default);
        }
        change(&mut all[at])
    }
}

impl Written {
    fn next() -> Self {
        let generation = rand::random();
        let mut body = vec![0; BODY_BYTES];
        blake3::Hasher::new().update(&u64::to_le_bytes(generation)).finalize_xof().fill(&mut body);
        Self { generation, body: body.into(), since: Instant::now() }
    }
}

/// The record of one device: no file has this id but by an accident of 128 bits.
fn key(at: usize) -> Key {
    let digest = blake3::hash(format!("the canary of device {at}").as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&digest.as_bytes()[..16]);
    Key { kind: Kind::Head, content: ContentId::from_bytes(id), generation: 0, index: 0 }
}

/// Body of a record: a page of most devices.
const BODY_BYTES: usize = 4096;

/// A record that waits for longer is one that the device does not take. Writes are handed to it ten times a second; this
/// leaves room for a full queue of a slow drive.
pub const WRITE_MAX: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::device::Device;
    use super::super::policy::Settings;
    use super::super::simulated::Simulated;
    use super::super::{DeviceConfig, slot::Opener};
    use super::*;

    #[test]
    fn what_is_written_comes_back_from_every_device() {
        let (store, _) = store(2);
        let canaries = Canaries::default();
        for at in 0..2 {
            until(&store, &canaries, at, |found| *found == Found::Well);
            until_written(&store, at);
            assert_eq!(store.canary_round(at, &canaries), Found::Well, "and again");
        }
        assert_eq!(store.device_names(), ["device 0", "device 1"]);
        store.close();
    }

    #[test]
    fn a_device_that_refuses_writes_is_told_by_its_own_round() {
        let (store, devices) = store(2);
        let canaries = Canaries::default();
        until(&store, &canaries, 0, |found| *found == Found::Well);
        devices[0].refuse_writes(1000);
        until(
            &store,
            &canaries,
            0,
            |found| matches!(found, Found::Failed(why) if why.contains("could not be written")),
        );
        until(&store, &canaries, 1, |found| *found == Found::Well);
        store.close();
    }

    #[test]
    fn a_record_that_waits_is_no_news_and_then_a_failure_for_as_long_as_it_waits() {
        assert_eq!([0, 3000].map(|ms| waiting(Duration::from_millis(ms))), [Found::Waits, Found::Waits]);
        for (ms, told) in [(3100, "3.1 s"), (4100, "4.1 s"), (60_000, "60.0 s")] {
            assert_eq!(waiting(Duration::from_millis(ms)), Found::Failed(format!("nothing was written for {told}")));
        }
    }

    #[test]
    fn what_waits_is_not_replaced() {
        let (store, devices) = store(1);
        let canaries = Canaries::default();
        until(&store, &canaries, 0, |found| *found == Found::Well);
        let held = devices[0].hold_writes();
        let generation = || canaries.of(0).unwrap().generation;
        // One that was not taken by the device before it was held.
        until(&store, &canaries, 0, |found| *found == Found::Waits);
        let waits = generation();
        canaries.with(0, |device| device.written.as_mut().unwrap().since -= 2 * WRITE_MAX);
        for _ in 0..3 {
            assert!(matches!(store.canary_round(0, &canaries), Found::Failed(_)));
            assert_eq!(generation(), waits);
        }
        drop(held);
        until(&store, &canaries, 0, |found| *found == Found::Well);
        store.close();
    }

    #[test]
    fn a_full_queue_is_waited_for_and_the_wait_ends_with_what_is_taken() {
        let (canaries, start) = (Canaries::default(), Instant::now());
        let full = |ms| canaries.full(1, start + Duration::from_millis(ms)).as_millis();
        assert_eq!([0, 1000, 3001].map(full), [0, 1000, 3001]);
        canaries.keep(1, Written::next());
        assert_eq!([4000, 4500].map(full), [0, 500]);
    }

    #[test]
    fn a_device_that_refuses_reads_is_told() {
        let (store, devices) = store(1);
        let canaries = Canaries::default();
        until(&store, &canaries, 0, |found| *found == Found::Well);
        devices[0].refuse_reads(1000);
        until(&store, &canaries, 0, |found| matches!(found, Found::Failed(why) if why.contains("cannot be read")));
        store.close();
    }

    fn store(count: usize) -> (Store, Vec<Arc<Simulated>>) {
        let devices: Vec<_> = (0..count).map(|_| Arc::new(Simulated::new(BYTES))).collect();
        let config = |(at, device): (usize, &Arc<Simulated>)| {
            let device = Arc::clone(device);
            let opener: Opener = Box::new(move || Ok(Arc::clone(&device) as Arc<dyn Device>));
            DeviceConfig { name: format!("device {at}"), bytes: BYTES as u64, segment_bytes: 2 << 20, opener }
        };
        let configs = devices.iter().enumerate().map(config).collect();
        let registry = prometheus::Registry::new();
        (Store::with_devices(configs, Settings::default(), &registry).unwrap(), devices)
    }

    /// Rounds until one finds what is waited for.
    #[track_caller]
    fn until(store: &Store, canaries: &Canaries, at: usize, wanted: impl Fn(&Found) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let found = store.canary_round(at, canaries);
            if wanted(&found) {
                return;
            }
            assert!(Instant::now() < deadline, "{found:?}");
            std::thread::yield_now();
        }
    }

    #[track_caller]
    fn until_written(store: &Store, at: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let key = key(at);
        while store.0.slots[at].pending.find(&key, store.0.shared.index.hash(&key)).is_some() {
            assert!(Instant::now() < deadline, "it waits");
            std::thread::yield_now();
        }
    }

    const BYTES: usize = 64 << 20;
}
