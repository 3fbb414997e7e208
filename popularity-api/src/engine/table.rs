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

mod best;
mod count;
mod held;
mod room;

use std::collections::BTreeMap;
use std::hash::RandomState;
use std::sync::Arc;

use geo::RegionId;

use super::batch::Group;
use super::decay::{Decay, Rating};
use super::files::{FileIndex, Files, RatedFile};
use super::newcomers::Newcomers;
use super::packed::{Now, Scorer, Sums};
use super::pairs::{Pair, Pairs, Peak};
use best::worth;
use count::{Counting, shard_of, tag};
pub use held::{Carried, HeldFile};

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
    scorer: Scorer,
    swept: i64,
    /// Where in the binlog the last group that was counted ends; the committer keeps it.
    pub(super) reached: u64,
    pairs_max: usize,
    evicted: u64,
    turned_away: u64,
    /// Which names are taken while a start reads what is on disk; none: all.
    takes: Option<Takes>,
    /// Names that were not, each as often as it was met.
    left_out: u64,
}

/// Tells of a file's name whether it is still rated.
#[derive(Clone)]
pub struct Takes(Arc<dyn Fn(&str) -> bool + Send + Sync>);

impl Takes {
    /// Those for which `takes` says true.
    #[must_use]
    pub fn new(takes: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(takes))
    }
}

impl std::fmt::Debug for Takes {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Takes")
    }
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
    /// Whose bits say what they hold, by bit.
    caches: Vec<String>,
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
            scorer: Scorer::new(&decay, Now::at(&decay, 0)),
            swept: 0,
            reached: 0,
            pairs_max: pairs_max.max(16),
            evicted: 0,
            turned_away: 0,
            takes: None,
            left_out: 0,
        }
    }

    /// The same, which takes no other new names than these until [`Table::takes_all`].
    #[must_use]
    pub fn taking(self, takes: Option<Takes>) -> Self {
        Self { takes, ..self }
    }

    /// From now on every name is taken. Tells how many were not.
    pub fn takes_all(&mut self) -> u64 {
        self.takes = None;
        self.left_out
    }

    /// Whether a name that is new here is taken.
    fn takes(&mut self, name: &str) -> bool {
        let taken = self.takes.as_ref().is_none_or(|takes| (takes.0)(name));
        self.left_out += u64::from(!taken);
        taken
    }

    /// How downloads fade here.
    #[must_use]
    pub const fn decay(&self) -> &Decay {
        &self.decay
    }

    /// When the latest group was counted, milliseconds since 1970; 0 when none was.
    #[must_use]
    pub const fn time_ms(&self) -> u64 {
        self.time_ms
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

    /// What [`Table::best`] would rank this file by; nothing when the region does not rate it.
    #[must_use]
    pub fn score(&self, region: RegionId, name: &str, exponent: f64) -> Option<f64> {
        let place = *self.places.get(&region)?;
        let (shard, _) = shard_of(name);
        let shard = &self.shards[usize::from(shard)];
        let pairs = shard.regions.get(usize::from(place))?;
        let file = shard.files.find(name, tag(&self.hash, name))?;
        let pair = pairs.at(pairs.find(file)?)?;
        Some(worth(pair, self.scorer.score(pair.rating), exponent))
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

    /// Puts back a file of a snapshot, which is not there yet: its shard and number; nothing when its name is not taken.
    pub(super) fn restore_file(&mut self, name: &str, size: u64) -> Option<(u8, FileIndex)> {
        if !self.takes(name) {
            return None;
        }
        let (shard, _) = shard_of(name);
        let tag = tag(&self.hash, name);
        Some((shard, self.shards[usize::from(shard)].files.add(name, tag, size)?))
    }

    /// Puts back a pair of a snapshot; one that is there already stays as it is.
    pub(super) fn restore_pair(&mut self, region: RegionId, (shard, file): (u8, FileIndex), rating: Rating) {
        let Some(place) = self.place(region) else { return };
        let (scorer, now) = (self.scorer, self.now);
        let shard = &mut self.shards[usize::from(shard)];
        let size = shard.files.size(file);
        let pairs = shard.pairs(place);
        if pairs.find(file).is_none() {
            let pair = Pair::new(file, now.pack(rating), size);
            let peak = |pair: &Pair| Peak::of(scorer.score(pair.rating));
            pairs.insert(pair, peak(&pair), peak);
            shard.files.hold(file);
            self.regions[usize::from(place)].pairs += 1;
        }
    }

    /// Where a region is in the lists; nothing for a 65,536th region.
    fn place(&mut self, region: RegionId) -> Option<u16> {
        if let Some(&place) = self.places.get(&region) {
            return Some(place);
        }
        let place = u16::try_from(self.regions.len()).ok().filter(|&place| place < u16::MAX)?;
        self.places.insert(region, place);
        self.regions.push(Region {
            id: region,
            pairs: 0,
            lowest: None,
            cursor: (0, 0),
            newcomers: None,
            caches: Vec::new(),
        });
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

/// Parts of the table; a shard's number is one byte of a hash.
pub(super) const SHARDS: usize = 256;

#[cfg(test)]
mod tests;
