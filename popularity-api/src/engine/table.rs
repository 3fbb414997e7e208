//! The ratings in RAM: pure, no clock, no disk. What the committer writes and everybody else reads.
//!
//! ```text
//!   shard 0    files.rs: names, each once            pairs.rs: of region 4: file --> (log2 hour, log2 days), 16 bytes
//!   shard 1                                                    of region 5: ...
//!   ...        by a hash of the name: a file and its pairs in all regions are in one shard
//!   shard 255
//!
//!   regions:   4 --> how many pairs, which are low, who waits to be let in (newcomers.rs)
//!   sources:   sun4-2-1 --> (boot, sequence)
//! ```
//!
//! Shards are not for threads but for time: what grows, is swept or is written to a snapshot is so a 256th at a time.
//! The hash that picks the shard is an open one, so that shards mean the same after a restart; within
//! a shard names are found by a keyed one.
//!
//! # Invariants
//!
//! - A region never has more than `pairs_max` pairs after a group was applied. A full one lets in only what was seen
//!   before and scores above its lowest; for each of those one of the lowest sixteenth goes.
//! - A batch is counted once: its source's mark (boot, sequence) rises with it, and what is not above the
//!   mark is not counted: it was before, or its source has to take a later boot.
//! - The same groups in the same order give the same table, also after a detour through a snapshot: time comes
//!   with the group, and ties are broken by name. Only in full regions it may be another one of the lowest that goes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::hash::{BuildHasher, RandomState};

use geo::RegionId;

use super::batch::{Batch, Entry, Group};
use super::decay::{Decay, Rating};
use super::files::{FileIndex, Files, RatedFile, Tag};
use super::newcomers::Newcomers;
use super::packed::{Now, Packed, SWEEP_HALF_LIVES, Sums};
use super::pairs::{Pair, Pairs, Peak};

/// All ratings of all regions.
#[derive(Debug)]
pub struct Table {
    pub(super) decay: Decay,
    pub(super) shards: Vec<Shard>,
    pub(super) regions: Vec<Region>,
    pub(super) sources: BTreeMap<String, Mark>,
    /// Where in `regions`, and in the lists of every shard, a region is.
    places: BTreeMap<RegionId, u16>,
    hash: RandomState,
    /// The latest group's; see [`Table::advance`].
    pub(super) time_ms: u64,
    pub(super) now: Now,
    swept: i64,
    /// Where in the binlog the last group that was counted ends; the committer keeps it.
    pub(super) reached: u64,
    pairs_max: usize,
    evicted: u64,
    turned_away: u64,
}

/// A 256th of the files, and their pairs.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) files: Files,
    /// By the region's place.
    pub(super) regions: Vec<Pairs>,
}

/// A region as a whole.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) id: RegionId,
    pairs: usize,
    /// When it is full: what its lowest sixteenth scores at most, as of some while ago.
    lowest: Option<f64>,
    /// Where the next pair to go is looked for: shard and slot.
    cursor: (usize, usize),
    newcomers: Option<Newcomers>,
}

/// The last batch of a source that was counted; (boot, sequence) rise together.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Mark {
    /// When the source started, as it says.
    pub boot: u64,
    /// Its batch since then.
    pub sequence: u64,
}

/// How a batch stands to the last one of its source that was counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// It comes after it.
    New,
    /// It was counted before.
    Counted,
    /// It is of a start before the last one known: the source's clock went back, and it may never have been counted.
    Stale,
}

impl Mark {
    /// How a batch with this mark stands to the mark `known` of its source.
    #[must_use]
    pub const fn standing(self, known: Self) -> Standing {
        if self.boot < known.boot {
            Standing::Stale
        } else if self.boot > known.boot || self.sequence > known.sequence {
            Standing::New
        } else {
            Standing::Counted
        }
    }
}

/// A file and what ranks it.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranked<'a> {
    /// The file.
    pub file: RatedFile<'a>,
    /// Its rating in the region asked about.
    pub rating: Rating,
    /// What it was ranked by.
    pub score: f64,
}

/// RAM of a table, bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bytes {
    /// The pairs, what orders them, and what waits to be let in.
    pub pairs: usize,
    /// The names, each with its size and how many pairs it has.
    pub names: usize,
    /// What names are found by.
    pub index: usize,
}

impl Table {
    /// No ratings yet; `pairs_max` bounds the pairs of each region and is at least 16.
    #[must_use]
    pub fn new(decay: Decay, pairs_max: usize) -> Self {
        Self {
            decay,
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            regions: Vec::new(),
            sources: BTreeMap::new(),
            places: BTreeMap::new(),
            hash: RandomState::new(),
            time_ms: 0,
            now: Now::at(&decay, 0),
            swept: Now::at(&decay, 0).half_lives() / SWEEP_EVERY,
            reached: 0,
            pairs_max: pairs_max.max(16),
            evicted: 0,
            turned_away: 0,
        }
    }

    /// How downloads fade here.
    #[must_use]
    pub const fn decay(&self) -> &Decay {
        &self.decay
    }

    /// The last batch of this source that was counted.
    #[must_use]
    pub fn mark(&self, source: &str) -> Mark {
        self.sources.get(source).copied().unwrap_or_default()
    }

    /// Counts a group of batches; those that were counted before are passed over.
    pub fn apply(&mut self, group: &Group) {
        self.replay(group, u64::MAX, &[0; SHARDS]);
    }

    /// Counts a group that stands at `offset` in the binlog, but only what belongs to shards that were not written to a
    /// snapshot after it, at the offsets `written`.
    pub(super) fn replay(&mut self, group: &Group, offset: u64, written: &[u64; SHARDS]) {
        self.advance(group.time_ms);
        let of = Now::at(&self.decay, group.time_ms);
        let mut counting = Counting { of, sums: Sums::table(), salt: 0, offset, written };
        for batch in &group.batches {
            if batch.mark.standing(self.mark(&batch.source)) == Standing::New {
                self.sources.insert(batch.source.clone(), batch.mark);
                self.count(batch, &mut counting);
            }
        }
        self.evict();
    }

    /// The best-rated files of a region, best first, at most `limit`.
    #[must_use]
    pub fn top(&self, region: RegionId, limit: usize) -> Vec<Ranked<'_>> {
        self.best(region, 0.0, limit, |_| true)
    }

    /// The files of a region best in `rating / size^exponent`, best first, at most `limit` of those that
    /// `accept` takes. It keeps no more than `limit` at a time, and asks `accept` only about files that beat the worst
    /// of those.
    ///
    /// With an exponent of 0 it looks into the blocks with the highest peaks, until no other can have a better one; else
    /// at all pairs of the region, one after the other, as a large file may be anywhere.
    pub fn best(
        &self,
        region: RegionId,
        exponent: f64,
        limit: usize,
        mut accept: impl FnMut(&RatedFile<'_>) -> bool,
    ) -> Vec<Ranked<'_>> {
        let Some(&place) = self.places.get(&region).filter(|_| limit > 0) else { return Vec::new() };
        let mut best = Best { limit, exponent, heap: BinaryHeap::new() };
        if exponent == 0.0 {
            let mut blocks: BinaryHeap<(Peak, u8, u32)> = self.blocks(place).collect();
            while let Some((_, shard, block)) = blocks.pop().filter(|block| best.admits(block.0.score())) {
                best.block(self, shard, place, block, &mut accept);
            }
        } else {
            for (peak, shard, block) in self.blocks(place) {
                // A file has a byte at least, so nothing is worth more than it scores.
                if best.admits(peak.score()) {
                    best.block(self, shard, place, block, &mut accept);
                }
            }
        }
        best.sorted()
    }

    /// What [`Table::best`] would rank this file by; nothing when the region does not rate it.
    #[must_use]
    pub fn score(&self, region: RegionId, name: &str, exponent: f64) -> Option<f64> {
        let place = *self.places.get(&region)?;
        let (shard, _) = shard_of(name);
        let shard = &self.shards[usize::from(shard)];
        let pairs = shard.regions.get(usize::from(place))?;
        let file = shard.files.find(name, tag(&self.hash, name))?;
        let pair = pairs.at(pairs.find(file)?)?;
        Some(worth(pair, pair.score(&self.decay, self.now), exponent))
    }

    /// Pairs of each region, in order of region.
    pub fn pairs(&self) -> impl Iterator<Item = (RegionId, usize)> {
        self.places.iter().map(|(&region, &place)| (region, self.regions[usize::from(place)].pairs))
    }

    /// Files that at least one region rates.
    #[must_use]
    pub fn file_count(&self) -> usize {
        self.shards.iter().map(|shard| shard.files.len()).sum()
    }

    /// Pairs that had to go since the start, all regions.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Reports of files that full regions do not rate and did not let in, since the start.
    #[must_use]
    pub const fn turned_away(&self) -> u64 {
        self.turned_away
    }

    /// RAM that the table takes.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        let mut bytes = Bytes::default();
        for shard in &self.shards {
            let (names, index) = shard.files.bytes();
            bytes.names += names;
            bytes.index += index;
            bytes.pairs += shard.regions.capacity() * size_of::<Pairs>();
            bytes.pairs += shard.regions.iter().map(Pairs::bytes).sum::<usize>();
        }
        let newcomers = self.regions.iter().filter_map(|region| region.newcomers.as_ref());
        bytes.pairs += newcomers.map(Newcomers::bytes).sum::<usize>();
        bytes
    }

    /// Puts back a file of a snapshot, which is not there yet: its shard and number; nothing when this build does not
    /// take its name for canonical.
    pub(super) fn restore_file(&mut self, name: &str, size: u64) -> Option<(u8, FileIndex)> {
        let (shard, _) = shard_of(name);
        let tag = tag(&self.hash, name);
        Some((shard, self.shards[usize::from(shard)].files.add(name, tag, size)?))
    }

    /// Puts back a pair of a snapshot; one that is there already stays as it is.
    pub(super) fn restore_pair(&mut self, region: RegionId, (shard, file): (u8, FileIndex), rating: Rating) {
        let Some(place) = self.place(region) else { return };
        let (decay, now) = (self.decay, self.now);
        let shard = &mut self.shards[usize::from(shard)];
        let size = shard.files.size(file);
        let pairs = shard.pairs(place);
        if pairs.find(file).is_none() {
            let pair = Pair::new(file, now.pack(rating), size);
            let peak = |pair: &Pair| Peak::of(pair.score(&decay, now));
            pairs.insert(pair, peak(&pair), peak);
            shard.files.hold(file);
            self.regions[usize::from(place)].pairs += 1;
        }
    }

    /// Takes time on to a group's, or back when it is far behind: what is kept is near to it then. A group that is a
    /// little behind is counted as of its own time and changes nothing here.
    pub(super) fn advance(&mut self, time_ms: u64) {
        let (before, now) = (self.now, Now::at(&self.decay, time_ms));
        let passed = now.half_lives_since(before);
        if passed.abs() >= SWEEP_HALF_LIVES {
            (0..SHARDS).for_each(|shard| self.sweep(shard, now));
        } else if time_ms <= self.time_ms {
            return;
        }
        self.time_ms = time_ms;
        self.now = now;
        let due = now.half_lives() / SWEEP_EVERY;
        while self.swept != due {
            let backwards_or_all = due < self.swept || due - self.swept > SHARDS as i64;
            self.swept = if backwards_or_all { due } else { self.swept + 1 };
            self.sweep(usize::try_from(self.swept.rem_euclid(SHARDS as i64)).unwrap_or(0), now);
        }
    }

    /// Holds a shard's ratings, as of `self.now`, near to `now`.
    fn sweep(&mut self, shard: usize, now: Now) {
        let (decay, before) = (self.decay, self.now);
        for pairs in &mut self.shards[shard].regions {
            pairs.revise(|rating| now.hold(rating, before), |pair| Peak::of(pair.score(&decay, now)));
        }
    }

    /// Counts a batch, some entries at a time. What all of them need is looked for first, one kind of memory after the
    /// other: a processor waits for many lines at once as long as none depends on another.
    fn count(&mut self, batch: &Batch, counting: &mut Counting<'_>) {
        let mut spots = [Spot::default(); AT_ONCE];
        for entries in batch.entries.chunks(AT_ONCE) {
            let spots = &mut spots[..entries.len()];
            for (spot, entry) in spots.iter_mut().zip(entries) {
                let (shard, mark) = shard_of(&entry.file);
                *spot = Spot { shard, mark, tag: tag(&self.hash, &entry.file), ..Spot::default() };
                spot.region = self.place(entry.region);
            }
            for spot in spots.iter_mut() {
                spot.file = self.shards[usize::from(spot.shard)].files.likely(spot.tag);
            }
            for (spot, entry) in spots.iter_mut().zip(entries) {
                let files = &self.shards[usize::from(spot.shard)].files;
                spot.file = spot.file.and_then(|_| files.find(&entry.file, spot.tag));
            }
            for spot in spots.iter_mut() {
                let regions = &self.shards[usize::from(spot.shard)].regions;
                let pairs = spot.region.and_then(|region| regions.get(usize::from(region)));
                spot.slot = pairs.and_then(|pairs| pairs.find(spot.file?));
            }
            for (spot, entry) in spots.iter().zip(entries) {
                self.count_entry(*spot, entry, counting);
            }
        }
    }

    /// Counts an entry. Entries before it may have moved its slot, or added its file.
    fn count_entry(&mut self, spot: Spot, entry: &Entry, counting: &mut Counting<'_>) {
        counting.salt = counting.salt.wrapping_add(1);
        let Some(place) = spot.region else { return };
        if counting.written[usize::from(spot.shard)] > counting.offset {
            return;
        }
        let (decay, now, arrival) = (self.decay, self.now, self.now.arrival(counting.of, entry.downloads));
        let peak = |rating: Packed| Peak::of(decay.score(now.unpack(rating)));
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
        let region = &mut self.regions[usize::from(place)];
        let Some(rating) =
            region.admit(self.pairs_max, spot, entry, arrival, counting, |rating| decay.score(now.unpack(rating)))
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

    /// Takes low pairs away where there are more than `pairs_max`.
    fn evict(&mut self) {
        for place in 0..self.regions.len() {
            let mut looked_at = 0;
            while self.regions[place].pairs > self.pairs_max {
                if self.regions[place].lowest.is_none() || looked_at == SHARDS {
                    self.regions[place].lowest = Some(self.low_score(place));
                    looked_at = 0;
                }
                self.evict_some(place);
                looked_at += 1;
            }
            let region = &self.regions[place];
            if region.pairs == self.pairs_max && region.lowest.is_none() {
                self.regions[place].lowest = Some(self.low_score(place));
            }
        }
    }

    /// Takes the low pairs of a region in one shard, as many as there are too many, and goes on to the next shard.
    fn evict_some(&mut self, place: usize) {
        let (decay, now, hash) = (self.decay, self.now, &self.hash);
        let region = &mut self.regions[place];
        let lowest = region.lowest.unwrap_or(f64::INFINITY);
        let (at, mut slot) = region.cursor;
        let shard = &mut self.shards[at];
        let Some(pairs) = shard.regions.get_mut(place) else {
            region.cursor = ((at + 1) % SHARDS, 0);
            return;
        };
        while slot < pairs.slots() {
            if region.pairs <= self.pairs_max {
                region.cursor = (at, slot);
                return;
            }
            match pairs.at(slot).filter(|pair| pair.score(&decay, now) <= lowest).map(|pair| pair.file) {
                // Another one may have moved up into the slot.
                Some(file) => {
                    pairs.remove(slot);
                    shard.files.release(file, |name| tag(hash, name));
                    region.pairs -= 1;
                    self.evicted += 1;
                }
                None => slot += 1,
            }
        }
        region.cursor = ((at + 1) % SHARDS, 0);
        if at + 1 == SHARDS {
            region.lowest = None;
        }
    }

    /// What the lowest sixteenth of a region's pairs scores at most, by a sample; of a small region by all of them.
    fn low_score(&self, place: usize) -> f64 {
        let regions = || self.shards.iter().filter_map(|shard| shard.regions.get(place));
        let step = regions().map(Pairs::slots).sum::<usize>() / SAMPLE_SLOTS + 1;
        let mut scores = Vec::new();
        let mut slot = 0;
        for pairs in regions() {
            while slot < pairs.slots() {
                scores.extend(pairs.at(slot).map(|pair| pair.score(&self.decay, self.now)));
                slot += step;
            }
            slot -= pairs.slots();
        }
        let sixteenth = scores.len() / 16;
        if scores.is_empty() { f64::INFINITY } else { *scores.select_nth_unstable_by(sixteenth, f64::total_cmp).1 }
    }

    /// The blocks of a region in all shards.
    fn blocks(&self, place: u16) -> impl Iterator<Item = (Peak, u8, u32)> {
        (0..=u8::MAX).zip(&self.shards).flat_map(move |(at, shard)| {
            let pairs = shard.regions.get(usize::from(place));
            let peaks = pairs.map(Pairs::peaks).unwrap_or_default();
            (0..).zip(peaks).map(move |(block, &peak)| (peak, at, block))
        })
    }

    /// Where a region is in the lists; nothing for a 65,536th region.
    fn place(&mut self, region: RegionId) -> Option<u16> {
        if let Some(&place) = self.places.get(&region) {
            return Some(place);
        }
        let place = u16::try_from(self.regions.len()).ok().filter(|&place| place < u16::MAX)?;
        self.places.insert(region, place);
        self.regions.push(Region { id: region, pairs: 0, lowest: None, cursor: (0, 0), newcomers: None });
        Some(place)
    }
}

impl Shard {
    fn pairs(&mut self, place: u16) -> &mut Pairs {
        let place = usize::from(place);
        if self.regions.len() <= place {
            self.regions.resize_with(place + 1, Pairs::default);
        }
        &mut self.regions[place]
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
struct Counting<'a> {
    of: Now,
    sums: Sums,
    /// Differs from entry to entry.
    salt: u32,
    /// Where the group is in the binlog, and up to where shards have it already.
    offset: u64,
    written: &'a [u64; SHARDS],
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

fn tag(hash: &RandomState, name: &str) -> Tag {
    Tag((hash.hash_one(name) >> 32) as u32)
}

/// The shard of a name, and 32 bits that tell it from most others.
fn shard_of(name: &str) -> (u8, u32) {
    let mark = crc32c::crc32c(name.as_bytes());
    (mark.to_le_bytes()[0], mark)
}

/// `log2(rating / size^exponent)`.
fn worth(pair: &Pair, score: f64, exponent: f64) -> f64 {
    score - exponent * pair.log2_size()
}

/// The best that were found so far, the worst of them on top: it goes when a better one comes.
struct Best<'a> {
    limit: usize,
    exponent: f64,
    heap: BinaryHeap<Reverse<Contender<'a>>>,
}

impl<'a> Best<'a> {
    /// Whether a score may be among the best.
    fn admits(&self, score: f64) -> bool {
        self.heap.len() < self.limit || self.heap.peek().is_none_or(|worst| score >= worst.0.0.score)
    }

    /// Looks at the pairs of a block.
    fn block(
        &mut self,
        table: &'a Table,
        shard: u8,
        place: u16,
        block: u32,
        accept: &mut impl FnMut(&RatedFile<'_>) -> bool,
    ) {
        let shard = &table.shards[usize::from(shard)];
        let Some(pairs) = shard.regions.get(usize::from(place)) else { return };
        for pair in pairs.block(block as usize) {
            let rating = table.now.unpack(pair.rating);
            let score = worth(pair, table.decay.score(rating), self.exponent);
            if !self.admits(score) {
                continue;
            }
            let contender = Contender(Ranked { file: shard.files.file(pair.file), rating, score });
            if self.heap.len() < self.limit {
                if accept(&contender.0.file) {
                    self.heap.push(Reverse(contender));
                }
            } else if let Some(mut worst) = self.heap.peek_mut()
                && contender > worst.0
                && accept(&contender.0.file)
            {
                *worst = Reverse(contender);
            }
        }
    }

    /// Best first.
    fn sorted(self) -> Vec<Ranked<'a>> {
        // Ascending by the reversed order.
        self.heap.into_sorted_vec().into_iter().map(|Reverse(Contender(ranked))| ranked).collect()
    }
}

/// The higher score is the greater; of equal ones the name that comes first.
#[derive(Debug)]
struct Contender<'a>(Ranked<'a>);

impl Ord for Contender<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.score.total_cmp(&other.0.score).then_with(|| other.0.file.name.cmp(self.0.file.name))
    }
}

impl PartialOrd for Contender<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Contender<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Contender<'_> {}

/// Parts of the table; a shard's number is one byte of a hash.
pub(super) const SHARDS: usize = 256;
/// One shard is swept whenever so many half-lives have passed, so that all are in time.
const SWEEP_EVERY: i64 = SWEEP_HALF_LIVES / SHARDS as i64;
/// Entries that are looked for together.
const AT_ONCE: usize = 64;
/// Slots that the lowest score of a region is judged by.
const SAMPLE_SLOTS: usize = 16_384;
/// An entry with so many downloads was seen more than once.
const SEVERAL: f64 = 2.0;

#[cfg(test)]
mod tests;
