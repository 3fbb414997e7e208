//! The best of a region: found by looking into few blocks, or at all pairs one after the other.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use geo::RegionId;

use super::{Ranked, Table};
use crate::engine::files::RatedFile;
use crate::engine::pairs::{Pair, Pairs, Peak};

impl Table {
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
        let mut best = Best::new(limit, exponent);
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

    /// The blocks of a region in all shards.
    fn blocks(&self, place: u16) -> impl Iterator<Item = (Peak, u8, u32)> {
        (0..=u8::MAX).zip(&self.shards).flat_map(move |(at, shard)| {
            let pairs = shard.regions.get(usize::from(place));
            let peaks = pairs.map(Pairs::peaks).unwrap_or_default();
            (0..).zip(peaks).map(move |(block, &peak)| (peak, at, block))
        })
    }
}

/// `log2(rating / size^exponent)`.
pub(super) fn worth(pair: &Pair, score: f64, exponent: f64) -> f64 {
    score - exponent * pair.log2_size()
}

/// The best that were found so far, the worst of them on top: it goes when a better one comes.
pub(super) struct Best<'a> {
    limit: usize,
    exponent: f64,
    heap: BinaryHeap<Reverse<Contender<'a>>>,
}

impl<'a> Best<'a> {
    pub(super) const fn new(limit: usize, exponent: f64) -> Self {
        Self { limit, exponent, heap: BinaryHeap::new() }
    }

    /// Whether a score may be among the best.
    pub(super) fn admits(&self, score: f64) -> bool {
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
            if self.admits(score) {
                let ranked = Ranked { file: shard.files.file(pair.file), rating, score };
                self.offer(ranked, accept);
            }
        }
    }

    /// Takes a file in if it is among the best and accepted.
    pub(super) fn offer(&mut self, ranked: Ranked<'a>, accept: &mut impl FnMut(&RatedFile<'_>) -> bool) {
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

    /// Best first.
    pub(super) fn sorted(self) -> Vec<Ranked<'a>> {
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
