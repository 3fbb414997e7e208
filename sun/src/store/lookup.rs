//! Looking a record up: in the queue of those that are not written yet, in the index, on a device.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::format::{self, Key, Kind};
use super::index::Place;
use super::metrics::{Miss, Origin};
use super::pending::Item;
use super::read::{self, Loaded, ReadError, Wait};
use super::{Inner, Store};

/// What a question to the store gives.
pub enum Lookup<T> {
    /// It was in RAM.
    Now(T),
    /// A blocking thread reads it; None: it is absent after all.
    Later(Pin<Box<dyn Future<Output = Option<T>> + Send>>),
    /// The store does not have it.
    Absent,
}

impl<T> Lookup<T> {
    /// The answer, however long it takes.
    pub async fn wait(self) -> Option<T> {
        match self {
            Self::Now(found) => Some(found),
            Self::Later(later) => later.await,
            Self::Absent => None,
        }
    }
}

impl<T> std::fmt::Debug for Lookup<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Now(_) => "Now",
            Self::Later(_) => "Later",
            Self::Absent => "Absent",
        })
    }
}

impl Store {
    /// Whether a record is found, without counting a hit.
    pub(super) fn knows(&self, key: &Key) -> bool {
        let hash = self.0.shared.index.hash(key);
        self.0.shared.index.find(hash).is_some() || self.waiting(key, hash).is_some()
    }

    fn waiting(&self, key: &Key, hash: u64) -> Option<Arc<Item>> {
        self.0.slots.iter().find_map(|slot| slot.pending.find(key, hash))
    }

    /// Counts a hit; false: it is not found.
    pub(super) fn touch(&self, key: &Key) -> bool {
        let hash = self.0.shared.index.hash(key);
        self.0.shared.index.hit(hash).is_some() || self.waiting(key, hash).is_some()
    }

    /// A record's bytes, of its body the range; counted as a hit.
    pub(super) fn look<T: Send + 'static>(&self, key: Key, range: Range<u64>, make: fn(Loaded) -> T) -> Lookup<T> {
        let inner = &self.0;
        let hash = inner.shared.index.hash(&key);
        if let Some(item) = self.waiting(&key, hash) {
            return match loaded(&item, &key, &range) {
                Some(loaded) => {
                    inner.metrics.hit(Origin::Queue, loaded.body.len());
                    Lookup::Now(make(loaded))
                }
                None => inner.absent(Miss::Unknown),
            };
        }
        let Some(place) = inner.shared.index.hit(hash) else { return inner.absent(Miss::Unknown) };
        let slot = &inner.slots[place.device()];
        let Some(device) = slot.device() else { return inner.absent(Miss::Aside) };
        match read::read(&*device.0, place, &key, range.clone(), Wait::No) {
            Err(ReadError::NotNow) => {}
            read => {
                return inner
                    .conclude(Asked { key, hash, place }, read, Origin::Now)
                    .map_or(Lookup::Absent, |loaded| Lookup::Now(make(loaded)));
            }
        }
        let Ok(permit) = Arc::clone(&slot.reads).try_acquire_owned() else { return inner.absent(Miss::Busy) };
        let inner = Arc::clone(inner);
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let read = read::read(&*device.0, place, &key, range, Wait::Yes);
            inner.conclude(Asked { key, hash, place }, read, Origin::Pool).map(make)
        });
        Lookup::Later(Box::pin(async move { reading.await.ok().flatten() }))
    }
}

/// A record that was looked for on a device.
struct Asked {
    key: Key,
    hash: u64,
    place: Place,
}

impl Inner {
    fn absent<T>(&self, miss: Miss) -> Lookup<T> {
        self.metrics.miss(miss);
        Lookup::Absent
    }

    /// Counts a read, and forgets a place that does not hold what it should.
    fn conclude(&self, asked: Asked, read: Result<Loaded, ReadError>, origin: Origin) -> Option<Loaded> {
        let miss = match read {
            Ok(loaded) => {
                let forgotten_at = self.shared.forgotten.sequence(asked.key.content);
                if forgotten_at.is_none_or(|at| loaded.header.sequence > at) {
                    self.metrics.hit(origin, loaded.body.len());
                    return Some(loaded);
                }
                Miss::Gone
            }
            Err(ReadError::Elsewhere) => Miss::Gone,
            Err(ReadError::Corrupt) => Miss::Corrupt,
            Err(ReadError::Device(error)) => {
                tracing::debug!(%error, "a record cannot be read");
                self.slots[asked.place.device()].counts.errors.fetch_add(1, Ordering::Relaxed);
                Miss::Device
            }
            Err(ReadError::NotNow) => Miss::Busy,
        };
        self.metrics.miss(miss);
        // If the segment was used again between index and read, the index says something else by now.
        self.shared.index.remove(asked.hash, asked.place);
        None
    }
}

/// A record that is not written yet, as if it were read.
fn loaded(item: &Item, key: &Key, range: &Range<u64>) -> Option<Loaded> {
    let same_version = key.kind == Kind::Head || item.key.generation == key.generation;
    if !same_version || item.key.kind != key.kind || item.key.index != key.index {
        return None;
    }
    let clamp = |at: u64| usize::try_from(at).map_or(item.body.len(), |at| at.min(item.body.len()));
    let body = item.body.slice(clamp(range.start).min(clamp(range.end))..clamp(range.end));
    let header =
        format::Header { key: item.key, sequence: 0, incarnation: 0, meta_bytes: 0, body_bytes: 0, meta_crc: 0 };
    Some(Loaded { header, meta: item.meta.clone(), body })
}
