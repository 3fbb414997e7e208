//! The best of a region.
//!
//! By rating alone they are found by looking into few blocks, those with the highest peaks. By rating and size a large
//! file may be anywhere, so all pairs are walked over, in memory's own order and without a look at names; a short list is
//! kept, and only of what is on it the names are read and the caller is asked, best first. When too few of it are
//! accepted the walk is made again for a list eight times as long.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use geo::RegionId;

use super::{HeldFile, Ranked, Table};
use crate::engine::decay::Rating;
use crate::engine::files::{FileIndex, RatedFile};
use crate::engine::packed::{Floor, Packed};
use crate::engine::pairs::{Pair, Pairs, Peak};

impl Table {
    /// The files of a region best in `rating / size^exponent`, best first, at most `limit` of those that
    /// `accept` takes; of equal ones the name that comes first. With an exponent (at least 0) `accept` is asked about
    /// each file at most once, best first, and no longer than need be.
    pub fn best(
        &self,
        region: RegionId,
        exponent: f64,
        limit: usize,
        accept: impl FnMut(&RatedFile<'_>) -> bool,
    ) -> Vec<Ranked<'_>> {
        let Some(&place) = self.places.get(&region).filter(|_| limit > 0) else { return Vec::new() };
        if exponent == 0.0 {
            self.best_rated(place, limit, accept)
        } else {
            let mut accept = accept;
            let search = Search { place, bit: 0, exponent, limit, floor: Floor::NONE };
            self.best_worth(search, |file, _| accept(file), &mut Vec::new())
        }
    }

    fn best_rated(&self, place: u16, limit: usize, mut accept: impl FnMut(&RatedFile<'_>) -> bool) -> Vec<Ranked<'_>> {
        let mut best = Best { limit, heap: BinaryHeap::new() };
        let mut blocks: BinaryHeap<(Peak, u8, u32)> = self.blocks(place).collect();
        while let Some((_, shard, block)) = blocks.pop().filter(|block| best.admits(block.0.score())) {
            best.block(self, shard, place, block, &mut accept);
        }
        best.sorted()
    }

    /// As [`Table::best`], among pairs above the floor and without the bit, `accept` being told the rating too; pairs
    /// with the bit are added to `held`.
    pub(super) fn best_worth(
        &self,
        search: Search,
        mut accept: impl FnMut(&RatedFile<'_>, Rating) -> bool,
        held: &mut Vec<HeldFile>,
    ) -> Vec<Ranked<'_>> {
        let limit = search.limit;
        let mut best = Vec::new();
        let mut list = ShortList::default();
        let (mut length, mut asked) = (limit.saturating_mul(2).saturating_add(LIST_MIN), 0);
        loop {
            list = ShortList { length, by_number: list.by_number, ..ShortList::default() };
            let mut ignored = Vec::new();
            self.walk(search, &mut list, if asked == 0 { held } else { &mut ignored });
            list.sort(self);
            for listed in list.listed.iter().skip(asked) {
                if best.len() >= limit {
                    break;
                }
                let file = self.shards[usize::from(listed.shard)].files.file(listed.file);
                let rating = self.now.unpack(listed.rating);
                if accept(&file, rating) {
                    best.push(Ranked { file, rating, score: listed.worth });
                }
            }
            if best.len() >= limit || !list.cut {
                return best;
            }
            asked = list.listed.len();
            length = length.saturating_mul(8);
        }
    }

    /// All pairs of a region.
    fn walk(&self, search: Search, list: &mut ShortList, held: &mut Vec<HeldFile>) {
        let Search { place, bit, exponent, floor, .. } = search;
        for (shard, part) in (0..=u8::MAX).zip(&self.shards) {
            for pair in part.regions.get(usize::from(place)).into_iter().flat_map(Pairs::iter) {
                let worth = worth(pair, self.scorer.score(pair.rating), exponent);
                if pair.held & bit != 0 {
                    held.push(HeldFile { score: worth, shard, file: pair.file });
                } else if worth >= list.least && self.now.is_above(pair.rating, floor) {
                    list.add(Listed { worth, rating: pair.rating, file: pair.file, shard });
                }
            }
        }
    }

    /// The blocks of a region in all shards.
    fn blocks(&self, place: u16) -> impl Iterator<Item = (Peak, u8, u32)> {
        (0..=u8::MAX).zip(&self.shards).flat_map(move |(at, shard)| {
            let pairs = shard.regions.get(usize::from(place));
            let peaks = pairs.map(Pairs::peaks).unwrap_or_default();
            (0..).zip(peaks).map(move |(block, &peak)| (peak, at, block))
        })
    }
}

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search {
    /// The region's.
    pub(super) place: u16,
    /// Of what is held; 0 for nobody's.
    pub(super) bit: u16,
    pub(super) exponent: f64,
    pub(super) limit: usize,
    /// What is below is passed over without a question.
    pub(super) floor: Floor,
}

/// `log2(rating / size^exponent)`.
pub(super) fn worth(pair: &Pair, score: f64, exponent: f64) -> f64 {
    score - exponent * pair.log2_size()
}

/// The best pairs of a walk, with all that are worth as much as the last of them.
#[derive(Debug)]
struct ShortList {
    length: usize,
    listed: Vec<Listed>,
    /// What is worth less is not among the best.
    least: f64,
    /// Something was left out.
    cut: bool,
    /// There were too many of one worth: which of those are listed goes by their number, not by their name.
    by_number: bool,
}

/// A pair on the list.
#[derive(Clone, Copy, Debug)]
struct Listed {
    worth: f64,
    rating: Packed,
    file: FileIndex,
    shard: u8,
}

impl Default for ShortList {
    fn default() -> Self {
        Self { length: 0, listed: Vec::new(), least: f64::NEG_INFINITY, cut: false, by_number: false }
    }
}

impl ShortList {
    fn add(&mut self, listed: Listed) {
        self.listed.push(listed);
        if self.listed.len() > 2 * self.length + EQUALS_MAX {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.listed.len() <= self.length {
            return;
        }
        self.cut = true;
        self.least = self.listed.select_nth_unstable_by(self.length - 1, Listed::by_number).1.worth;
        if !self.by_number {
            let least = self.least;
            let equals = self.listed.iter().filter(|listed| listed.worth == least).count();
            self.by_number = equals > EQUALS_MAX;
        }
        if self.by_number {
            self.listed.truncate(self.length);
        } else {
            self.listed.retain(|listed| listed.worth >= self.least);
        }
    }

    /// Best first.
    fn sort(&mut self, table: &Table) {
        self.cut();
        if self.by_number {
            self.listed.sort_unstable_by(Listed::by_number);
            return;
        }
        let name = |listed: &Listed| table.shards[usize::from(listed.shard)].files.name(listed.file);
        self.listed.sort_unstable_by(|a, b| b.worth.total_cmp(&a.worth).then_with(|| name(a).cmp(name(b))));
    }
}

impl Listed {
    fn by_number(&self, other: &Self) -> std::cmp::Ordering {
        other.worth.total_cmp(&self.worth).then_with(|| (self.shard, self.file).cmp(&(other.shard, other.file)))
    }
}

/// The best that were found so far, the worst of them on top: it goes when a better one comes.
struct Best<'a> {
    limit: usize,
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
            let score = table.scorer.score(pair.rating);
            if !self.admits(score) {
                continue;
            }
            let ranked = Ranked { file: shard.files.file(pair.file), rating: table.now.unpack(pair.rating), score };
            let contender = Contender(ranked);
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

/// A short list is not shorter than this.
const LIST_MIN: usize = 64;
/// Pairs of one worth that are told apart by their names.
const EQUALS_MAX: usize = 65_536;
