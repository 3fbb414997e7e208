//! Counting a group of batches: what every report goes through.

use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;

use geo::RegionId;

use super::{Region, SHARDS, Table};
use crate::engine::batch::{Batch, Entry};
use crate::engine::files::{FileIndex, Tag};
use crate::engine::newcomers::Newcomers;
use crate::engine::packed::{Now, Packed, Sums};
use crate::engine::pairs::{Pair, Peak};

impl Table {
    /// Counts a batch, some entries at a time, in steps that each ask for one kind of memory. A processor waits for many
    /// lines at once as long as no branch depends on one, so lines are touched in a loop without branches before
    /// they are searched: of known files anywhere in ten million pairs a fifth more are counted by that.
    pub(super) fn count(&mut self, batch: &Batch, counting: &mut Counting<'_>) {
        let mut spots = [Spot::default(); AT_ONCE];
        let mut places = [None; PLACES];
        for entries in batch.entries.chunks(AT_ONCE) {
            let spots = &mut spots[..entries.len()];
            for (spot, entry) in spots.iter_mut().zip(entries) {
                let (shard, mark) = shard_of(&entry.file);
                *spot = Spot { shard, mark, tag: tag(&self.hash, &entry.file), ..Spot::default() };
                spot.region = self.place_near(entry.region, &mut places);
            }
            self.find(spots, entries);
            for (spot, entry) in spots.iter().zip(entries) {
                self.count_entry(*spot, entry, counting);
            }
        }
    }

    /// Where a region is in the lists, by a look at where it was a moment ago.
    fn place_near(&mut self, region: RegionId, places: &mut [Option<(RegionId, u16)>; PLACES]) -> Option<u16> {
        let near = &mut places[usize::from(region.0) % PLACES];
        if near.is_none_or(|(known, _)| known != region) {
            *near = self.place(region).map(|place| (region, place));
        }
        near.map(|(_, place)| place)
    }

    /// Finds files and slots of what is known.
    fn find(&self, spots: &mut [Spot], entries: &[Entry]) {
        let files = |spot: &Spot| &self.shards[usize::from(spot.shard)].files;
        let pairs = |spot: &Spot| self.shards[usize::from(spot.shard)].regions.get(usize::from(spot.region?));
        black_box(spots.iter().fold(0, |read, spot| read ^ files(spot).touch(spot.tag)));
        for spot in spots.iter_mut() {
            spot.file = files(spot).likely(spot.tag);
        }
        let mut read = 0;
        for (spot, entry) in spots.iter().zip(entries) {
            if let Some(file) = spot.file {
                read ^= files(spot).touch_record(file, entry.file.len());
                read ^= pairs(spot).map_or(0, |pairs| pairs.touch(file));
            }
        }
        black_box(read);
        for (spot, entry) in spots.iter_mut().zip(entries) {
            spot.file = spot.file.and_then(|_| files(spot).find(&entry.file, spot.tag));
        }
        for spot in spots.iter_mut() {
            spot.slot = pairs(spot).and_then(|pairs| pairs.find(spot.file?));
        }
    }

    /// Counts an entry. Entries before it may have moved its slot, or added its file.
    fn count_entry(&mut self, spot: Spot, entry: &Entry, counting: &mut Counting<'_>) {
        counting.salt = counting.salt.wrapping_add(1);
        let Some(place) = spot.region else { return };
        if counting.written[usize::from(spot.shard)] > counting.offset {
            return;
        }
        let (scorer, arrival) = (self.scorer, self.now.arrival(counting.of, entry.downloads));
        let peak = |rating: Packed| Peak::of(scorer.score(rating));
        let shard = &mut self.shards[usize::from(spot.shard)];
        let file = spot.file.or_else(|| shard.files.find(&entry.file, spot.tag));
        if let Some(file) = file {
            let pairs = shard.pairs(place);
            let near = spot.slot.filter(|&slot| pairs.at(slot).is_some_and(|pair| pair.file == file));
            if let Some(slot) = near.or_else(|| pairs.find(file))
                && let Some(pair) = pairs.at(slot)
            {
                let rating = counting.sums.add(pair.rating, arrival, counting.salt);
                pairs.set(slot, rating, entry.size, peak(rating));
                shard.files.resize(file, entry.size);
                return;
            }
        }
        if file.is_none() && self.takes.is_some() && !self.takes(&entry.file) {
            return;
        }
        let shard = &mut self.shards[usize::from(spot.shard)];
        let region = &mut self.regions[usize::from(place)];
        let Some(rating) = region.admit(self.pairs_max, spot, entry, arrival, counting, |rating| scorer.score(rating))
        else {
            self.turned_away += 1;
            return;
        };
        let Some(file) = file.or_else(|| shard.files.add(&entry.file, spot.tag, entry.size)) else { return };
        shard.files.resize(file, entry.size);
        shard.files.hold(file);
        let pair = Pair::new(file, rating, entry.size);
        shard.pairs(place).insert(pair, peak(rating), |pair| peak(pair.rating));
        region.pairs += 1;
    }
}

impl Region {
    /// The rating that a file begins with; nothing when it is not let in.
    fn admit(
        &mut self,
        pairs_max: usize,
        spot: Spot,
        entry: &Entry,
        arrival: Packed,
        counting: &Counting<'_>,
        score: impl Fn(Packed) -> f64,
    ) -> Option<Packed> {
        if self.pairs < pairs_max {
            return Some(arrival);
        }
        let newcomers = self.newcomers.get_or_insert_with(|| Newcomers::new(pairs_max));
        let known = newcomers.count(spot.tag, spot.mark, arrival, counting.sums, counting.salt);
        let rating = known.or((entry.downloads >= SEVERAL).then_some(arrival))?;
        if self.lowest.is_some_and(|lowest| score(rating) <= lowest) {
            return None;
        }
        newcomers.forget(spot.tag, spot.mark);
        Some(rating)
    }
}

/// What the entries of a group have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counting<'a> {
    pub(super) of: Now,
    pub(super) sums: Sums,
    /// Differs from entry to entry.
    pub(super) salt: u32,
    /// Where the group is in the binlog, and up to where shards have it already.
    pub(super) offset: u64,
    pub(super) written: &'a [u64; SHARDS],
}

/// Where an entry belongs, as far as it was found.
#[derive(Clone, Copy, Debug)]
struct Spot {
    shard: u8,
    mark: u32,
    tag: Tag,
    region: Option<u16>,
    file: Option<FileIndex>,
    slot: Option<usize>,
}

impl Default for Spot {
    fn default() -> Self {
        Self { shard: 0, mark: 0, tag: Tag(0), region: None, file: None, slot: None }
    }
}

pub(super) fn tag(hash: &RandomState, name: &str) -> Tag {
    Tag((hash.hash_one(name) >> 32) as u32)
}

/// The shard of a name, and 32 bits that tell it from most others.
pub(super) fn shard_of(name: &str) -> (u8, u32) {
    let mark = crc32c::crc32c(name.as_bytes());
    (mark.to_le_bytes()[0], mark)
}

/// Regions of a batch whose places are at hand.
const PLACES: usize = 64;
/// Entries that are looked for together.
const AT_ONCE: usize = 64;
/// An entry with so many downloads was seen more than once.
const SEVERAL: f64 = 2.0;
