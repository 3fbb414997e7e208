//! What keeps a table within its bounds: low pairs that go, and dead ratings that stay dead.

use super::count::tag;
use super::{SHARDS, Table};
use crate::engine::packed::{Now, SWEEP_HALF_LIVES, Scorer};
use crate::engine::pairs::{Pairs, Peak};

impl Table {
    /// Takes time on to a group's, or back when it is far behind: what is kept is near to it then. A group that is a
    /// little behind is counted as of its own time and changes nothing here.
    pub(in crate::engine) fn advance(&mut self, time_ms: u64) {
        let (before, now) = (self.now, Now::at(&self.decay, time_ms));
        let passed = now.half_lives_since(before);
        if passed.abs() >= SWEEP_HALF_LIVES {
            (0..SHARDS).for_each(|shard| self.sweep(shard, now));
        } else if time_ms <= self.time_ms {
            return;
        }
        self.time_ms = time_ms;
        self.now = now;
        self.scorer = Scorer::new(&self.decay, now);
        let due = now.half_lives() / SWEEP_EVERY;
        while self.swept != due {
            let backwards_or_all = due < self.swept || due - self.swept > SHARDS as i64;
            self.swept = if backwards_or_all { due } else { self.swept + 1 };
            self.sweep(usize::try_from(self.swept.rem_euclid(SHARDS as i64)).unwrap_or(0), now);
        }
    }

    /// Holds a shard's ratings, as of `self.now`, near to `now`.
    fn sweep(&mut self, shard: usize, now: Now) {
        let (scorer, before) = (Scorer::new(&self.decay, now), self.now);
        for pairs in &mut self.shards[shard].regions {
            pairs.revise(|rating| now.hold(rating, before), |pair| Peak::of(scorer.score(pair.rating)));
        }
    }

    /// Takes low pairs away where there are more than `pairs_max`.
    pub(super) fn evict(&mut self) {
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
        let (scorer, hash) = (self.scorer, &self.hash);
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
            match pairs.at(slot).filter(|pair| scorer.score(pair.rating) <= lowest).map(|pair| pair.file) {
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
                scores.extend(pairs.at(slot).map(|pair| self.scorer.score(pair.rating)));
                slot += step;
            }
            slot -= pairs.slots();
        }
        let sixteenth = scores.len() / 16;
        if scores.is_empty() { f64::INFINITY } else { *scores.select_nth_unstable_by(sixteenth, f64::total_cmp).1 }
    }
}

/// One shard is swept whenever so many half-lives have passed, so that all are in time.
const SWEEP_EVERY: i64 = SWEEP_HALF_LIVES / SHARDS as i64;
/// Slots that the lowest score of a region is judged by.
const SAMPLE_SLOTS: usize = 16_384;
