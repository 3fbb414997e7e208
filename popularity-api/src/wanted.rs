//! What a cache is to carry. Pure.
//!
//! ```text
//!   ratings of the region, best rating / size^exponent first
//!       not held by this cache    by its holdings
//!       this cache's              first in the file's order among the region's caches
//!       fits                      size <= bytes_max
//!       not purged                or downloaded again since
//!     -> candidates, each with the caches that have it already
//!   and the scores of what it holds, on the same scale: the cache decides what to replace
//! ```

use geo::Topology;
use geo::topology::Region;

use crate::engine::files::RatedFile;
use crate::engine::table::{Ranked, Table};
use crate::holdings::Holdings;
use crate::purge::Ledger;
use crate::status::View;
use crate::wire::{Candidate, HeldScore, Wanted, WantedRequest};

/// What the answer is made from.
#[derive(Clone, Copy, Debug)]
pub struct Knowledge<'a> {
    /// The topology.
    pub topology: &'a Topology,
    /// The ratings.
    pub table: &'a Table,
    /// What caches hold.
    pub holdings: &'a Holdings,
    /// Who lives.
    pub view: View<'a>,
    /// What was purged.
    pub purges: &'a Ledger,
    /// Exponent of size in `rating / size^exponent`.
    pub exponent: f64,
}

/// The best files that the cache `cache` of `region` is to carry and does not hold. It takes long, so it comes before
/// [`wanted`] and locks nothing: `holds` and `purges` are asked file by file.
pub fn rank<'a>(
    table: &'a Table,
    exponent: f64,
    region: &Region,
    cache: &str,
    request: &WantedRequest,
    purges: &Ledger,
    holds: impl Fn(u64) -> bool,
) -> Vec<Ranked<'a>> {
    // A draining cache comes first for no file: all of them would be looked at to find that out.
    let draining = region.caches.iter().any(|one| one.server.name == cache && one.server.weight.get() == 0);
    if draining {
        return Vec::new();
    }
    let accept = |file: &RatedFile| {
        file.size <= request.bytes_max
            && !holds(file.content.prefix())
            && !purges.unwanted(region.id, file.name, file.content)
            && region.cache_order(file.content).first().is_some_and(|first| first.server.name == cache)
    };
    table.best(region.id, exponent, request.limit.min(CANDIDATES_MAX), accept)
}

/// Answers the cache `cache` of `region` with the files that [`rank`] found for it.
#[must_use]
pub fn wanted(knowledge: Knowledge<'_>, ranked: Vec<Ranked<'_>>, region: &Region, cache: &str) -> Wanted {
    let Knowledge { table, holdings, exponent, .. } = knowledge;
    let held = holdings.of(cache);
    let candidates = ranked
        .into_iter()
        // It may have been told of since.
        .filter(|ranked| !held.is_some_and(|held| held.holds(ranked.file.content.prefix())))
        .map(|ranked| Candidate {
            file: ranked.file.name.to_string(),
            size: ranked.file.size,
            score: ranked.score,
            sources: sources(knowledge, region, cache, &ranked.file),
        })
        .collect();
    let mut scores: Vec<HeldScore> = held
        .into_iter()
        .flat_map(super::holdings::Held::names)
        .filter_map(|name| Some(HeldScore { file: name.to_owned(), score: table.score(region.id, name, exponent)? }))
        .collect();
    scores.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.file.cmp(&b.file)));
    Wanted { candidates, held: scores, holdings_generation: held.map_or(0, super::holdings::Held::generation) }
}

/// Living caches that hold the file: the region's own, then its neighbours', nearest first.
fn sources(knowledge: Knowledge<'_>, region: &Region, asker: &str, file: &RatedFile) -> Vec<String> {
    let content = file.content;
    let neighbours = region.neighbours.iter().filter_map(|&id| knowledge.topology.region(id));
    std::iter::once(region)
        .chain(neighbours)
        .flat_map(|region| &region.caches)
        .map(|cache| &cache.server)
        .filter(|server| server.name != asker && knowledge.holdings.holds(&server.name, content.prefix()))
        .filter(|server| !knowledge.purges.doubted(&server.name, server.region, file.name, content))
        .filter(|server| knowledge.view.linkable(server))
        .take(SOURCES_MAX)
        .map(|server| server.name.clone())
        .collect()
}

/// Candidates of one answer.
pub const CANDIDATES_MAX: usize = 10_000;
/// Caches named for one candidate.
const SOURCES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::batch::{Batch, Entry, Group};
    use crate::engine::decay::Decay;
    use crate::engine::table::Mark;
    use crate::holdings::{Bounds, Checked};
    use crate::hot::Rule;
    use crate::status::Registry;
    use crate::testing;
    use crate::wire::{Held, HoldingsReport};
    use geo::RegionId;

    #[test]
    fn every_file_is_wanted_by_exactly_one_cache_of_its_region() {
        let world = World::new();
        let first = world.candidates("cache4-1", 1_000_000);
        let second = world.candidates("cache4-2", 1_000_000);
        let mut all: Vec<&String> = first.iter().chain(&second).collect();
        all.sort();
        let mut expected: Vec<String> = (0..FILES).map(|n| format!("c1/{n:02}")).collect();
        expected.sort();
        assert_eq!(all, expected.iter().collect::<Vec<_>>());
        assert!(!first.is_empty() && !second.is_empty());
        assert!(world.candidates("cache6-1", 1_000_000).is_empty(), "a draining cache carries nothing");
    }

    #[test]
    fn what_is_held_is_scored_and_not_wanted_again() {
        let mut world = World::new();
        let before = world.candidates("cache4-1", 1_000_000);
        world.hold("cache4-1", &before[0]);
        assert_eq!(world.candidates("cache4-1", 1_000_000), before[1..]);
        let answer = world.ask("cache4-1", 1_000_000);
        assert_eq!(answer.held.len(), 1);
        assert_eq!((answer.held[0].file.as_str(), answer.holdings_generation), (before[0].as_str(), 1));
    }

    #[test]
    fn what_does_not_fit_is_not_wanted_and_the_best_come_first() {
        let world = World::new();
        let answer = world.ask("cache4-1", 100 + 5);
        assert!(answer.candidates.iter().all(|candidate| candidate.size <= 105));
        assert!(answer.candidates.is_sorted_by(|a, b| a.score >= b.score));
    }

    #[test]
    fn a_cache_that_has_it_is_named_as_a_source() {
        let mut world = World::new();
        let file = world.candidates("cache4-1", 1_000_000)[0].clone();
        world.hold("cache5-1", &file);
        let answer = world.ask("cache4-1", 1_000_000);
        assert_eq!(answer.candidates[0].sources, ["cache5-1"]);
        assert!(answer.candidates[1].sources.is_empty());
    }

    #[test]
    fn what_was_purged_is_not_wanted_and_no_cache_is_its_source() {
        let mut world = World::new();
        let files = world.candidates("cache4-1", 1_000_000);
        world.hold("cache5-1", &files[0]);
        testing::purge(&world.purges, &files[0], Some(5));
        let answer = world.ask("cache4-1", 1_000_000);
        assert_eq!(answer.candidates[0].file, files[0], "it was purged in another region");
        assert!(answer.candidates[0].sources.is_empty(), "where the cache has not said that it knows");
        testing::purge(&world.purges, &files[0], None);
        assert_eq!(world.candidates("cache4-1", 1_000_000), files[1..]);
    }

    const FILES: u64 = 20;

    struct World {
        topology: Topology,
        table: Table,
        holdings: Holdings,
        purges: Ledger,
    }

    impl World {
        fn new() -> Self {
            let mut table = Table::new(Decay::new(3600, 172_800, 0.25).unwrap(), 1000);
            let entry = |region, n: u64| Entry {
                region: RegionId(region),
                file: format!("c1/{n:02}").into(),
                size: 100 + n,
                downloads: 1.0 + n as f64,
            };
            let entries = [4, 6].iter().flat_map(|&region| (0..FILES).map(move |n| entry(region, n))).collect();
            let mark = Mark { boot: 1, sequence: 1 };
            table.apply(&Group { time_ms: 1, batches: vec![Batch { source: "sun4-1-1".into(), mark, entries }] });
            let holdings = Holdings::new(Bounds { files_max: 100, log_max: 100 });
            Self { topology: testing::topology(), table, holdings, purges: testing::ledger() }
        }

        fn hold(&mut self, cache: &str, file: &str) {
            let added = vec![Held { file: file.to_owned(), size: 1 }];
            let report = HoldingsReport { generation: 1, since: None, added, removed: Vec::new() };
            self.holdings.report(cache, Checked::new(&report).unwrap());
        }

        fn ask(&self, cache: &str, bytes_max: u64) -> Wanted {
            let rule = Rule { lower_after_ms: 1, files_max: 10, ..Rule::default() };
            let registry = Registry::new(rule, 0);
            let knowledge = Knowledge {
                topology: &self.topology,
                table: &self.table,
                holdings: &self.holdings,
                view: registry.at(0),
                purges: &self.purges,
                exponent: 0.5,
            };
            let region = self.topology.region(self.topology.cache(cache).unwrap().server.region).unwrap();
            let request = WantedRequest { bytes_max, limit: 100 };
            let holds = |prefix| self.holdings.holds(cache, prefix);
            let ranked = rank(&self.table, knowledge.exponent, region, cache, &request, &self.purges, holds);
            wanted(knowledge, ranked, region, cache)
        }

        fn candidates(&self, cache: &str, bytes_max: u64) -> Vec<String> {
            self.ask(cache, bytes_max).candidates.into_iter().map(|candidate| candidate.file).collect()
        }
    }
}
