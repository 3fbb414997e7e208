//! Which of a region's rated files its caches hold: a bit a cache beside each rating, so that what a cache is to carry
//! is found in one walk over the ratings of its region, in memory's own order, without a look at names.
//!
//! ```text
//!   pair: file, rating, size, held = 0b01          cache4-1 holds it: its worth is listed
//!   pair: file, rating, size, held = 0b10          cache4-2 does:     a candidate for cache4-1, if it is worth it
//! ```
//!
//! The bits are a help and not the truth: a file that was not rated when its cache told of it has none, nor has one of a
//! seventeenth cache, and none is on disk. So whoever asks still has to refuse candidates that are held.

use geo::RegionId;

use super::best::Search;
use super::count::{shard_of, tag};
use super::{Ranked, Table};
use crate::engine::decay::Rating;
use crate::engine::files::{FileIndex, RatedFile};
use crate::engine::packed::Floor;

/// What a cache is to carry, and what that which it holds is worth.
#[derive(Clone, Debug, PartialEq)]
pub struct Carried<'a> {
    /// The best that it does not hold, best first.
    pub best: Vec<Ranked<'a>>,
    /// What it holds, in no order; [`Table::name`] tells the names.
    pub held: Vec<HeldFile>,
}

/// A rated file that a cache holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeldFile {
    /// What it is ranked by, as [`Ranked::score`].
    pub score: f64,
    pub(super) shard: u8,
    pub(super) file: FileIndex,
}

impl Table {
    /// Notes that a cache of the region holds a file, or that it no longer does. False when there is nowhere to note it:
    /// the region does not rate the file, or has sixteen other caches.
    pub fn note_held(&mut self, region: RegionId, cache: &str, name: &str, held: bool) -> bool {
        let Some(&place) = self.places.get(&region) else { return false };
        let caches = &mut self.regions[usize::from(place)].caches;
        if held && !caches.iter().any(|known| known == cache) {
            match caches.iter().position(String::is_empty) {
                Some(free) => cache.clone_into(&mut caches[free]),
                None if caches.len() < CACHES_MAX => caches.push(cache.to_owned()),
                None => return false,
            }
        }
        let Some(bit) = self.cache_bit(place, cache) else { return false };
        let (shard, _) = shard_of(name);
        let tag = tag(&self.hash, name);
        let shard = &mut self.shards[usize::from(shard)];
        let Some(pairs) = shard.regions.get_mut(usize::from(place)) else { return false };
        let slot = shard.files.find(name, tag).and_then(|file| pairs.find(file));
        slot.is_some_and(|slot| {
            pairs.set_held(slot, bit, held);
            true
        })
    }

    /// Forgets what is noted of a cache: it tells everything anew, or is no more. It goes through all pairs of the region.
    pub fn forget_held(&mut self, region: RegionId, cache: &str) {
        let Some(&place) = self.places.get(&region) else { return };
        let Some(bit) = self.cache_bit(place, cache) else { return };
        for shard in &mut self.shards {
            if let Some(pairs) = shard.regions.get_mut(usize::from(place)) {
                pairs.clear_held(bit);
            }
        }
        // The bit is free for another cache; those of the others stay where they are.
        self.regions[usize::from(place)].caches[bit.trailing_zeros() as usize].clear();
    }

    /// As [`Table::best`], among what is not noted as held by this cache, `accept` being told the rating too; and what is
    /// noted, with what it is worth.
    pub fn carried(
        &self,
        region: RegionId,
        cache: &str,
        exponent: f64,
        limit: usize,
        accept: impl FnMut(&RatedFile<'_>, Rating) -> bool,
    ) -> Carried<'_> {
        self.carried_above(region, cache, exponent, limit, 0.0, accept)
    }

    /// As [`Table::carried`], without a question about files of whose long half-life fewer downloads are left as of the
    /// last group: of millions that nobody would accept neither are names read nor is an order found.
    pub fn carried_above(
        &self,
        region: RegionId,
        cache: &str,
        exponent: f64,
        limit: usize,
        downloads_min: f64,
        accept: impl FnMut(&RatedFile<'_>, Rating) -> bool,
    ) -> Carried<'_> {
        let mut held = Vec::new();
        let Some(&place) = self.places.get(&region) else { return Carried { best: Vec::new(), held } };
        let bit = self.cache_bit(place, cache).unwrap_or(0);
        let search = Search { place, bit, exponent, limit, floor: Floor::of(downloads_min) };
        let best = self.best_worth(search, accept, &mut held);
        Carried { best, held }
    }

    /// The canonical name of a held file that this table told of, as long as nothing was counted since.
    #[must_use]
    pub fn name(&self, held: &HeldFile) -> &str {
        self.shards[usize::from(held.shard)].files.name(held.file)
    }

    /// Whether it is noted what this cache of the region holds; not of a seventeenth one.
    #[must_use]
    pub fn notes(&self, region: RegionId, cache: &str) -> bool {
        self.places.get(&region).is_some_and(|&place| self.cache_bit(place, cache).is_some())
    }

    fn cache_bit(&self, place: u16, cache: &str) -> Option<u16> {
        let caches = &self.regions[usize::from(place)].caches;
        caches.iter().position(|known| known == cache).map(|at| 1 << at)
    }
}

/// As many as there are bits.
const CACHES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::super::tests::{group, table};
    use super::*;

    #[test]
    fn what_is_noted_as_held_is_listed_and_what_is_not_is_a_candidate() {
        let mut table = rated();
        for (cache, file, held, noted) in [
            ("cache4-1", "c1/b", true, true),
            ("cache4-1", "c1/a", true, true),
            ("cache4-2", "c1/c", true, true),
            ("cache4-1", "c1/a", false, true),
            ("cache4-1", "c1/unrated", true, false),
            ("cache4-3", "c1/a", false, false),
        ] {
            assert_eq!(table.note_held(RegionId(4), cache, file, held), noted, "{cache} {file} {held}");
        }
        check(&table, "cache4-1", 9, "c1/c c1/a", "c1/b");
        check(&table, "cache4-1", 1, "c1/c", "c1/b");
        check(&table, "cache4-2", 9, "c1/b c1/a", "c1/c");
        check(&table, "cache4-9", 9, "c1/c c1/b c1/a", "");
        assert_eq!(table.carried(RegionId(9), "cache4-1", 0.5, 9, |_, _| true).held, []);
        // Counting on leaves the bits.
        table.apply(&group(1, 2, &[(4, "c1/b", 9.0), (4, "c1/d", 1.0)]));
        check(&table, "cache4-1", 9, "c1/c c1/a c1/d", "c1/b");
        table.forget_held(RegionId(4), "cache4-1");
        check(&table, "cache4-1", 9, "c1/b c1/c c1/a c1/d", "");
        check(&table, "cache4-2", 9, "c1/b c1/a c1/d", "c1/c");
    }

    #[test]
    fn a_seventeenth_cache_has_to_be_asked() {
        let mut table = rated();
        for cache in 0..16 {
            assert!(table.note_held(RegionId(4), &format!("cache4-{cache}"), "c1/a", true));
        }
        assert!(!table.note_held(RegionId(4), "cache4-16", "c1/a", true));
        assert!(table.notes(RegionId(4), "cache4-15") && !table.notes(RegionId(4), "cache4-16"));
        check(&table, "cache4-16", 9, "c1/c c1/b c1/a", "");
        table.forget_held(RegionId(4), "cache4-3");
        assert!(table.note_held(RegionId(4), "cache4-16", "c1/b", true), "there is room again");
        check(&table, "cache4-16", 9, "c1/c c1/a", "c1/b");
    }

    #[test]
    fn what_is_below_the_floor_is_not_asked_about_and_what_is_held_is_told_all_the_same() {
        let mut table = rated();
        table.note_held(RegionId(4), "cache4-1", "c1/a", true);
        for (downloads_min, expected) in [(0.0, "c1/c c1/b"), (1.99, "c1/c c1/b"), (2.01, "c1/c"), (3.01, "")] {
            let mut asked = Vec::new();
            let carried = table.carried_above(RegionId(4), "cache4-1", 0.5, 9, downloads_min, |file, _| {
                asked.push(file.name.to_owned());
                true
            });
            assert_eq!((asked.join(" ").as_str(), carried.held.len()), (expected, 1), "{downloads_min}");
        }
    }

    fn rated() -> Table {
        let mut table = table(100);
        table.apply(&group(0, 1, &[(4, "c1/a", 1.0), (4, "c1/b", 2.0), (4, "c1/c", 3.0), (5, "c1/a", 1.0)]));
        table
    }

    #[track_caller]
    fn check(table: &Table, cache: &str, limit: usize, best: &str, held: &str) {
        let carried = table.carried(RegionId(4), cache, 0.5, limit, |_, _| true);
        let found: Vec<&str> = carried.best.iter().map(|ranked| ranked.file.name).collect();
        assert_eq!(found.join(" "), best);
        let mut found: Vec<&str> = carried.held.iter().map(|held| table.name(held)).collect();
        found.sort_unstable();
        assert_eq!(found.join(" "), held);
        for held in &carried.held {
            assert_eq!(table.score(RegionId(4), table.name(held), 0.5), Some(held.score));
        }
    }
}
