//! The ratings in RAM: pure, no clock, no disk. What the committer writes and everybody else reads.
//!
//! ```text
//!   regions: 4 --> pairs: file 0 --> (log2 hour, log2 days)       files: 0 --> "c1/a.jpg", 20 KB
//!                         file 7 --> ...                                 7 --> ...
//!            5 --> ...                                            sources: sun4-2-1 --> (boot, sequence)
//! ```
//!
//! # Invariants
//!
//! - A region never has more than `pairs_max` pairs after a group was applied. When it would, those with the
//!   lowest scores go, a sixteenth of the table at a time so that the cost of a scan is shared by many; files that
//!   are asked for once and never again go first, since they score lowest.
//! - A batch is counted once: its source's mark (boot, sequence) rises with it, and what is not above the
//!   mark is not counted: it was before, or its source has to take a later boot.
//! - The same groups in the same order give the same table, also after a detour through a snapshot: time comes
//!   with the group, and ties are broken by name.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use geo::RegionId;

use super::batch::{Batch, Group};
use super::decay::{Decay, Pulse, Rating};
use super::files::{FileIndex, Files, RatedFile};

/// All ratings of all regions.
#[derive(Debug)]
pub struct Table {
    pub(super) decay: Decay,
    pub(super) files: Files,
    pub(super) regions: BTreeMap<RegionId, Pairs>,
    pub(super) sources: BTreeMap<String, Mark>,
    pairs_max: usize,
    evicted: u64,
}

/// The ratings of one region.
pub(super) type Pairs = HashMap<FileIndex, Rating, BuildHasherDefault<IndexHasher>>;

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
    pub file: &'a RatedFile,
    /// Its rating in the region asked about.
    pub rating: Rating,
    /// What it was ranked by.
    pub score: f64,
}

impl Table {
    /// No ratings yet; `pairs_max` bounds the pairs of each region and is at least 16.
    #[must_use]
    pub fn new(decay: Decay, pairs_max: usize) -> Self {
        Self {
            decay,
            files: Files::default(),
            regions: BTreeMap::new(),
            sources: BTreeMap::new(),
            pairs_max: pairs_max.max(16),
            evicted: 0,
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
        let pulse = self.decay.at(group.time_ms);
        for batch in &group.batches {
            if batch.mark.standing(self.mark(&batch.source)) == Standing::New {
                self.sources.insert(batch.source.clone(), batch.mark);
                self.count(batch, pulse);
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
    pub fn best(
        &self,
        region: RegionId,
        exponent: f64,
        limit: usize,
        mut accept: impl FnMut(&RatedFile) -> bool,
    ) -> Vec<Ranked<'_>> {
        let pairs = self.regions.get(&region).into_iter().flatten();
        // The worst on top: it goes when a better one comes.
        let mut best: BinaryHeap<Reverse<Contender<'_>>> = BinaryHeap::new();
        for (&index, &rating) in pairs {
            let file = self.files.file(index);
            let contender = Contender(Ranked { file, rating, score: self.worth(file, rating, exponent) });
            if best.len() < limit {
                if accept(file) {
                    best.push(Reverse(contender));
                }
            } else if let Some(mut worst) = best.peek_mut()
                && contender > worst.0
                && accept(file)
            {
                *worst = Reverse(contender);
            }
        }
        // Ascending by the reversed order: best first.
        best.into_sorted_vec().into_iter().map(|Reverse(Contender(ranked))| ranked).collect()
    }

    /// What [`Table::best`] would rank this file by; nothing when the region does not rate it.
    #[must_use]
    pub fn score(&self, region: RegionId, name: &str, exponent: f64) -> Option<f64> {
        let index = self.files.find(name)?;
        let rating = *self.regions.get(&region)?.get(&index)?;
        Some(self.worth(self.files.file(index), rating, exponent))
    }

    /// Pairs of each region, in order of region.
    pub fn pairs(&self) -> impl Iterator<Item = (RegionId, usize)> {
        self.regions.iter().map(|(&region, pairs)| (region, pairs.len()))
    }

    /// Files that at least one region rates.
    #[must_use]
    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// Pairs that had to go since the start, all regions.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    fn count(&mut self, batch: &Batch, pulse: Pulse) {
        for entry in &batch.entries {
            let Some(index) = self.files.add(&entry.file, entry.size) else { continue };
            let pairs = self.regions.entry(entry.region).or_default();
            let rating = pairs.entry(index).or_insert_with(|| {
                self.files.hold(index);
                Rating::NONE
            });
            pulse.add(rating, entry.downloads);
        }
    }

    /// Takes the lowest pairs away where there are more than `pairs_max`.
    fn evict(&mut self) {
        for pairs in self.regions.values_mut() {
            if pairs.len() <= self.pairs_max {
                continue;
            }
            let too_many = pairs.len() - (self.pairs_max - self.pairs_max / 16);
            let mut scored: Vec<(f64, FileIndex)> =
                pairs.iter().map(|(&index, &rating)| (self.decay.score(rating), index)).collect();
            let files = &self.files;
            scored.select_nth_unstable_by(too_many - 1, |a, b| {
                a.0.total_cmp(&b.0).then_with(|| files.file(a.1).name.cmp(&files.file(b.1).name))
            });
            for &(_, index) in &scored[..too_many] {
                pairs.remove(&index);
                self.files.release(index);
            }
            self.evicted += too_many as u64;
        }
    }

    /// `log2(rating / size^exponent)`; an empty file counts as one byte.
    #[expect(clippy::cast_precision_loss, reason = "a byte in a petabyte ranks nothing")]
    fn worth(&self, file: &RatedFile, rating: Rating, exponent: f64) -> f64 {
        self.decay.score(rating) - exponent * (file.size.max(1) as f64).log2()
    }
}

/// The higher score is the greater; of equal ones the name that comes first.
#[derive(Debug)]
struct Contender<'a>(Ranked<'a>);

impl Ord for Contender<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.score.total_cmp(&other.0.score).then_with(|| other.0.file.name.cmp(&self.0.file.name))
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

/// Spreads an index that this process itself gave out: nobody can choose collisions (Fibonacci hashing).
#[derive(Debug, Default)]
pub(super) struct IndexHasher(u64);

impl Hasher for IndexHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(u32::from(byte));
        }
    }

    fn write_u32(&mut self, index: u32) {
        let mixed = (self.0 ^ u64::from(index)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The map takes its buckets from the low bits, which the multiplication leaves poor.
        self.0 = mixed ^ (mixed >> 32);
    }
}

#[cfg(test)]
mod tests;
