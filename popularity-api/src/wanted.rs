//! What a cache is to carry. Pure.
//!
//! ```text
//!   ratings of the region, best rating / size^exponent first
//!       fits                      size <= bytes_max
//!       pays                      a copy is expected to be downloaded more than once while it stays (worth.rs)
//!       not held by this cache    by its holdings
//!       not purged                or downloaded again since
//!       this cache's              one of the first caches of the file's order, as many as its busiest hour takes
//!                                 and as pay (copies.rs)
//!     -> candidates, each with the caches that have it already, nearest first
//!   and the scores of what it holds, on the same scale: the cache decides what to replace
//! ```

use geo::Topology;
use geo::regions::Point;
use geo::topology::{Region, Server};

use crate::copies::{self, Copies};
use crate::engine::files::RatedFile;
use crate::holdings::Holdings;
use crate::purge::Ledger;
use crate::ratings::{Carried, Decayed, RankedFile};
use crate::status::View;
use crate::wire::{Candidate, HeldScore, Wanted};
use crate::worth::Worth;

/// What the answer is made from.
#[derive(Clone, Copy, Debug)]
pub struct Knowledge<'a> {
    /// The topology.
    pub topology: &'a Topology,
    /// What caches hold.
    pub holdings: &'a Holdings,
    /// Who lives.
    pub view: View<'a>,
    /// What was purged.
    pub purges: &'a Ledger,
}

/// What is worth carrying, and how often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// What is expected to pay.
    pub worth: Worth,
    /// What the busiest hour takes.
    pub copies: Copies,
}

/// The cache that asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Asker {
    /// Its name.
    pub cache: String,
    /// Disk it may fill, bytes.
    pub bytes_max: u64,
    /// How long it keeps a file, seconds.
    pub residence_s: f64,
    /// Caches of its region that have not been well for a while.
    pub gone: Vec<String>,
    /// The smallest network card of its region's caches, bits per second.
    pub nic_bits: f64,
}

impl Rules {
    /// Caches of a region that are to carry a file; 0 when it is not expected to pay.
    #[must_use]
    pub fn copies(&self, rating: Decayed, size: u64, nic_bits: f64, residence_s: f64) -> usize {
        let pay = self.worth.copies_max(rating, residence_s);
        if pay == 0 { 0 } else { self.copies.count(rating, size, nic_bits).min(pay) }
    }

    /// Whether the cache that asks, of `region`, may be asked to carry the file; `holds` tells by content id prefix what it
    /// has.
    #[must_use]
    pub fn acceptable(
        &self,
        file: &RatedFile<'_>,
        rating: Decayed,
        (region, asker): (&Region, &Asker),
        purges: &Ledger,
        holds: impl Fn(u64) -> bool,
    ) -> bool {
        let copies = self.copies(rating, file.size, asker.nic_bits, asker.residence_s);
        let gone = |name: &str| asker.gone.iter().any(|gone| gone == name);
        let order = || region.cache_order(file.content).into_iter().map(|cache| &cache.server);
        file.size <= asker.bytes_max
            && copies > 0
            && !holds(file.content.prefix())
            && !purges.unwanted(region.id, file.name, file.content)
            && copies::carries(order(), &asker.cache, copies, gone)
    }
}

/// Whether the cache gets no new files.
#[must_use]
pub fn draining(region: &Region, cache: &str) -> bool {
    region.caches.iter().any(|one| one.server.name == cache && one.server.weight.get() == 0)
}

/// Answers the cache `cache` of `region` with the acceptable files that the ratings found for it, and with what those
/// that it holds are worth.
#[must_use]
pub fn wanted(knowledge: Knowledge<'_>, carried: Carried, region: &Region, cache: &str) -> Wanted {
    let nearest = nearest(knowledge.topology, region);
    let held = knowledge.holdings.of(cache);
    let candidates = carried
        .best
        .into_iter()
        // It may have been told of since.
        .filter(|ranked| !held.is_some_and(|held| held.holds(ranked.content.prefix())))
        .map(|ranked| Candidate {
            sources: sources(knowledge, &nearest, cache, &ranked),
            file: ranked.name.into(),
            size: ranked.size,
            score: ranked.score,
        })
        .collect();
    let mut scores: Vec<HeldScore> = carried.held.into_iter().map(|(file, score)| HeldScore { file, score }).collect();
    scores.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.file.cmp(&b.file)));
    Wanted { candidates, held: scores, holdings_generation: held.map_or(0, super::holdings::Held::generation) }
}

/// The caches of all regions: the region's own, those of its neighbours in their order, then the others by distance.
fn nearest<'a>(topology: &'a Topology, region: &'a Region) -> Vec<&'a Server> {
    let neighbours: Vec<&Region> = region.neighbours.iter().filter_map(|&id| topology.region(id)).collect();
    let others = topology.regions.iter().filter(|one| one.id != region.id && !region.neighbours.contains(&one.id));
    let place = |region: &Region| Point::from((region.latitude, region.longitude));
    let mut others: Vec<(f64, &Region)> = others.map(|other| (place(region).km(&place(other)), other)).collect();
    others.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.id.cmp(&b.1.id)));
    let regions = std::iter::once(region).chain(neighbours).chain(others.into_iter().map(|(_, region)| region));
    regions.flat_map(|region| &region.caches).map(|cache| &cache.server).collect()
}

/// Living caches that hold the file, the nearest ones.
fn sources(knowledge: Knowledge<'_>, nearest: &[&Server], asker: &str, file: &RankedFile) -> Vec<String> {
    let content = file.content;
    nearest
        .iter()
        .filter(|server| server.name != asker && knowledge.holdings.holds(&server.name, content.prefix()))
        .filter(|server| !knowledge.purges.doubted(&server.name, server.region, &file.name, content))
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
    use crate::config;
    use crate::engine::batch::{Batch, Entry, Group};
    use crate::engine::decay::Decay;
    use crate::engine::table::{Mark, Table};
    use crate::holdings::{Bounds, Checked, Held};
    use crate::hot::Rule;
    use crate::status::Registry;
    use crate::testing;
    use crate::wire::{self, HoldingsReport};
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

    #[test]
    fn what_is_not_expected_to_pay_is_not_wanted() {
        let world = World { downloads: 1.0, ..World::new() };
        assert_eq!(world.candidates("cache4-1", 1_000_000), [""; 0]);
    }

    #[test]
    fn what_one_network_card_cannot_send_is_wanted_by_several_caches() {
        // 100 bytes, 8e10 downloads in an hour: 12 Gbit/s, 5 of which one card gives.
        let world = World { downloads: 8e10, ..World::new() };
        for cache in ["cache4-1", "cache4-2"] {
            assert_eq!(world.candidates(cache, 1_000_000).len(), 20, "{cache}");
        }
    }

    #[test]
    fn the_files_of_a_cache_that_is_gone_are_wanted_by_the_others() {
        let world = World { gone: vec!["cache4-2".to_owned()], ..World::new() };
        assert_eq!(world.candidates("cache4-1", 1_000_000).len(), 20);
        let world = World { gone: vec!["cache4-1".to_owned()], ..World::new() };
        assert!(world.candidates("cache4-1", 1_000_000).len() < 20, "it asks, so it is back");
    }

    #[test]
    fn the_nearest_caches_come_first() {
        let topology = testing::topology();
        for (region, expected) in [
            (4, "cache4-1 cache4-2 cache5-1 cache6-1"),
            (5, "cache5-1 cache4-1 cache4-2 cache6-1"),
            // It has no neighbours: Berlin is 840 km from Oslo, Moscow 1,640.
            (6, "cache6-1 cache5-1 cache4-1 cache4-2"),
        ] {
            let nearest = nearest(&topology, topology.region(RegionId(region)).unwrap());
            assert_eq!(nearest.iter().map(|server| server.name.as_str()).collect::<Vec<_>>().join(" "), expected);
        }
    }

    const FILES: u64 = 20;

    struct World {
        topology: Topology,
        table: Table,
        holdings: Holdings,
        purges: Ledger,
        /// What is left of the downloads of each file.
        downloads: f64,
        gone: Vec<String>,
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
            Self {
                topology: testing::topology(),
                table,
                holdings,
                purges: testing::ledger(),
                downloads: 5.0,
                gone: Vec::new(),
            }
        }

        fn hold(&mut self, cache: &str, file: &str) {
            let added = vec![wire::Held { file: file.to_owned(), size: 1 }];
            let report = HoldingsReport { generation: 1, since: None, added, removed: Vec::new() };
            self.holdings.report(cache, Checked::new(&report).unwrap());
        }

        fn ask(&self, cache: &str, bytes_max: u64) -> Wanted {
            let rule = Rule { lower_after_ms: 1, files_max: 10, ..Rule::default() };
            let registry = Registry::new(rule, 0);
            let knowledge = Knowledge {
                topology: &self.topology,
                holdings: &self.holdings,
                view: registry.at(0),
                purges: &self.purges,
            };
            let region = self.topology.region(self.topology.cache(cache).unwrap().server.region).unwrap();
            let holds = |prefix| self.holdings.holds(cache, prefix);
            let asker = Asker {
                cache: cache.to_owned(),
                bytes_max,
                residence_s: 604_800.0,
                gone: self.gone.clone(),
                nic_bits: 10e9,
            };
            let rating = Decayed { hour: self.downloads, days: self.downloads };
            let accept = |file: &RatedFile<'_>| {
                config::Wanted::default().rules(self.table.decay()).acceptable(
                    file,
                    rating,
                    (region, &asker),
                    &self.purges,
                    holds,
                )
            };
            let limit = if draining(region, cache) { 0 } else { 100 };
            let best = self.table.best(region.id, 0.5, limit, accept).into_iter().map(|ranked| RankedFile {
                name: ranked.file.name.into(),
                content: ranked.file.content,
                size: ranked.file.size,
                rating,
                score: ranked.score,
            });
            let names = self.holdings.of(cache).into_iter().flat_map(Held::names).map(str::to_owned);
            let score = |name: String| self.table.score(region.id, &name, 0.5).map(|score| (name, score));
            let carried = Carried { best: best.collect(), held: names.filter_map(score).collect() };
            wanted(knowledge, carried, region, cache)
        }

        fn candidates(&self, cache: &str, bytes_max: u64) -> Vec<String> {
            self.ask(cache, bytes_max).candidates.into_iter().map(|candidate| candidate.file).collect()
        }
    }
}
