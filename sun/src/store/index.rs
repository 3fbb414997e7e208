//! Where each record is: a hash table in RAM, in shards.
//!
//! An entry is 24 bytes, (hash, place); the table keeps one more byte for each slot and is between 7/16 and 7/8
//! full, so an entry costs 29 to 57 bytes. The hash is all it knows of a key: two keys with the same 64 bits
//! (one pair in 10^6 stores of 10 million blocks) push each other out, and the record's header says whose it
//! is, so no reader ever gets the other's bytes.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::store::format::{Key, Kind, UNIT_BYTES};

/// Where a record is, packed into 16 bytes.
///
/// ```text
///   where  device 6 | offset in units of 64 bytes 40 | length in units 18        (4 TiB.. 64 TiB a device)
///   what   sequence 48 | 0 | kind head 1 | hits 3
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    location: u64,
    what: u64,
}

impl Place {
    /// Of a record of `bytes` (a multiple of [`UNIT_BYTES`]) at `offset` of a device.
    #[must_use]
    pub const fn new(device: u8, offset: u64, bytes: u64, sequence: u64) -> Self {
        debug_assert!(offset.is_multiple_of(UNIT_BYTES) && bytes.is_multiple_of(UNIT_BYTES));
        debug_assert!(device < DEVICES_MAX && bytes / UNIT_BYTES < 1 << 18 && sequence < 1 << 48);
        let location = ((device as u64) << 58) | ((offset / UNIT_BYTES) << 18) | (bytes / UNIT_BYTES);
        Self { location, what: sequence << 16 }
    }

    /// Which device.
    #[must_use]
    pub const fn device(self) -> usize {
        (self.location >> 58) as usize
    }

    /// First byte.
    #[must_use]
    pub const fn offset(self) -> u64 {
        ((self.location >> 18) & ((1 << 40) - 1)) * UNIT_BYTES
    }

    /// Length with padding.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        (self.location & ((1 << 18) - 1)) * UNIT_BYTES
    }

    /// See [`crate::store::format::Header::sequence`].
    #[must_use]
    pub const fn sequence(self) -> u64 {
        self.what >> 16
    }

    /// Hits since it was written, at most 7.
    #[must_use]
    pub const fn hits(self) -> u8 {
        (self.what & 7) as u8
    }

    const fn hit(&mut self) {
        if self.what & 7 < 7 {
            self.what += 1;
        }
    }
}

/// Most devices that a place can name.
pub const DEVICES_MAX: u8 = 64;

/// See the module's doc.
#[derive(Debug)]
pub struct Index {
    shards: Vec<Mutex<Shard>>,
    seed: u64,
    entries: AtomicU64,
    /// Bytes of records that are found, by device.
    bytes: Vec<AtomicU64>,
}

type Shard = HashMap<u64, Place, BuildHasherDefault<Ready>>;

impl Index {
    /// An empty index; `seed` is random, so that nobody can choose names that share a slot.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut shards = Vec::with_capacity(SHARDS);
        shards.resize_with(SHARDS, Mutex::default);
        let mut bytes = Vec::with_capacity(DEVICES_MAX.into());
        bytes.resize_with(DEVICES_MAX.into(), AtomicU64::default);
        Self { shards, seed, entries: AtomicU64::new(0), bytes }
    }

    /// The hash of a key. A head is found without knowing its generation: there is one a file.
    #[must_use]
    pub fn hash(&self, key: &Key) -> u64 {
        let (high, low) = key.content.as_bytes().split_at(8);
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
        let which = match key.kind {
            Kind::Head | Kind::Tombstone => 0,
            Kind::Block => mix(key.generation ^ mix(u64::from(key.index) + 1)),
        };
        mix(mix(word(high) ^ self.seed) ^ word(low) ^ which)
    }

    /// Where a record may be.
    #[must_use]
    pub fn find(&self, hash: u64) -> Option<Place> {
        self.shard(hash).get(&hash).copied()
    }

    /// The same, counted as a hit.
    #[must_use]
    pub fn hit(&self, hash: u64) -> Option<Place> {
        let mut shard = self.shard(hash);
        let place = shard.get_mut(&hash)?;
        place.hit();
        Some(*place)
    }

    /// A record is at `place`, unless a newer one is known.
    pub fn insert(&self, hash: u64, place: Place) {
        self.put(&mut self.shard(hash), hash, place);
    }

    fn put(&self, shard: &mut Shard, hash: u64, place: Place) {
        match shard.entry(hash) {
            Slot::Occupied(mut slot) if slot.get().sequence() <= place.sequence() => {
                self.count(slot.insert(place), -1);
                self.count(place, 1);
            }
            Slot::Occupied(_) => {}
            Slot::Vacant(slot) => {
                slot.insert(place);
                self.count(place, 1);
            }
        }
    }

    /// Many records, each as [`Index::insert`] does; sorted by shard, so that a lock is taken once for all of them.
    pub fn insert_all(&self, mut records: Vec<(u64, Place)>) {
        records.sort_unstable_by_key(|(hash, _)| shard_of(*hash));
        for of_shard in records.chunk_by(|(one, _), (other, _)| shard_of(*one) == shard_of(*other)) {
            let mut shard = lock(&self.shards[shard_of(of_shard[0].0)]);
            of_shard.iter().for_each(|(hash, place)| self.put(&mut shard, *hash, *place));
        }
    }

    /// Makes room for so many more.
    pub fn reserve(&self, entries: usize) {
        // Shards differ: a few spare in each, so that hardly any grows after all.
        let each = entries / SHARDS + entries / SHARDS / 64;
        self.shards.iter().for_each(|shard| lock(shard).reserve(each));
    }

    /// The record at `from` is at `to` now, unless it was replaced or forgotten meanwhile.
    pub fn moved(&self, hash: u64, from: Place, to: Place) {
        if let Some(place) = self.shard(hash).get_mut(&hash)
            && place.location == from.location
            && place.sequence() == from.sequence()
        {
            self.count(std::mem::replace(place, to), -1);
            self.count(to, 1);
        }
    }

    /// The record at `place` is of no use any more.
    pub fn remove(&self, hash: u64, place: Place) {
        if let Slot::Occupied(slot) = self.shard(hash).entry(hash)
            && slot.get().location == place.location
            && slot.get().sequence() == place.sequence()
        {
            self.count(slot.remove(), -1);
        }
    }

    /// Whatever is known under this hash is forgotten.
    pub fn forget(&self, hash: u64) {
        if let Some(place) = self.shard(hash).remove(&hash) {
            self.count(place, -1);
        }
    }

    /// Records that are found.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Bytes of the records that are found on a device.
    #[must_use]
    pub fn bytes(&self, device: usize) -> u64 {
        self.bytes[device].load(Ordering::Relaxed)
    }

    /// Bytes of RAM, as the table's capacity tells: 25 bytes a slot, 7 of 8 slots usable.
    #[must_use]
    pub fn ram_bytes(&self) -> u64 {
        let slots = |shard: &Mutex<Shard>| (lock(shard).capacity() * 8 / 7) as u64;
        self.shards.iter().map(slots).sum::<u64>() * 25
    }

    fn count(&self, place: Place, sign: i64) {
        self.entries.fetch_add(sign.cast_unsigned(), Ordering::Relaxed);
        let bytes = place.bytes().cast_signed() * sign;
        self.bytes[place.device()].fetch_add(bytes.cast_unsigned(), Ordering::Relaxed);
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        lock(&self.shards[shard_of(hash)])
    }
}

/// Neither the low bits of the hash, which choose the slot, nor the high ones, which the table compares first.
const fn shard_of(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().expect("no code that holds this lock panics")
}

/// Shards are locked one at a time: a lookup waits for another, or for one of 256 tables to double.
const SHARDS: usize = 256;

/// The finaliser of splitmix64: every bit of the input changes half of the output's.
const fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// The keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only hashes are hashed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_keeps_its_numbers() {
        let place = Place::new(63, ((1 << 40) - 1) * UNIT_BYTES, ((1 << 18) - 1) * UNIT_BYTES, (1 << 48) - 1);
        assert_eq!(place.device(), 63);
        assert_eq!(place.offset(), ((1 << 40) - 1) * UNIT_BYTES);
        assert_eq!(place.bytes(), ((1 << 18) - 1) * UNIT_BYTES);
        assert_eq!((place.sequence(), place.hits()), ((1 << 48) - 1, 0));
    }

    #[test]
    fn hits_saturate_and_the_newer_record_wins() {
        let index = Index::new(1);
        let (old, new) = (Place::new(0, 0, 64, 1), Place::new(0, 64, 128, 2));
        index.insert(9, new);
        index.insert(9, old);
        assert_eq!(index.find(9), Some(new));
        for _ in 0..20 {
            let _ = index.hit(9);
        }
        assert_eq!(index.find(9).map(Place::hits), Some(7));
        assert_eq!((index.entries(), index.bytes(0)), (1, 128));
        index.remove(9, old);
        assert_eq!(index.entries(), 1, "another record's place removes nothing");
        index.remove(9, new);
        assert_eq!((index.entries(), index.bytes(0), index.find(9)), (0, 0, None));
    }

    #[test]
    fn a_record_that_was_replaced_meanwhile_is_not_moved() {
        let index = Index::new(1);
        let (old, new, to) = (Place::new(0, 0, 64, 1), Place::new(0, 64, 64, 2), Place::new(0, 128, 64, 1));
        index.insert(9, old);
        index.insert(9, new);
        index.moved(9, old, to);
        assert_eq!(index.find(9), Some(new));
    }
}
