//! What each cache hands out, as it reports it, and what changed since whom was told. Pure.
//!
//! ```text
//!   report since none: replaces everything       generation 7
//!   report since 7:    +a -b                     generation 8     log: 8 +a, 8 -b
//!   report since 8:    +c                        generation 9          9 +c
//!
//!   a sun that knows 8 is told +c; one that knows 6, or nothing, is told everything
//! ```
//!
//! The API keeps none of this on disk: after its restart every cache finds in the answer to its report, or to its
//! question what is wanted, that its generation is not known, and sends everything.
//!
//! # Invariants
//!
//! - What is kept of a cache is the state that its generation names, except that files above `files_max` are left out.
//! - The log has every change after `log_since`, so a delta applied to the state at its `since` gives the state
//!   at its `generation`.

pub mod following;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use geo::CanonicalName;

use crate::wire::{HOLDINGS_PER_REPORT_MAX, HoldingsDelta, HoldingsReport};

/// The holdings of all caches.
#[derive(Debug)]
pub struct Holdings {
    caches: HashMap<String, Held>,
    bounds: Bounds,
}

/// How much is kept of one cache.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bounds {
    /// Files; further ones are not known to be held, so they are not linked.
    pub files_max: usize,
    /// Changes; who is further behind is told everything.
    pub log_max: usize,
}

/// What one cache hands out.
#[derive(Debug, Default)]
pub struct Held {
    generation: u64,
    /// By the first eight bytes of the content id.
    files: HashMap<u64, Box<str>, BuildHasherDefault<AsItIs>>,
    log: VecDeque<Change>,
    log_since: u64,
}

/// The beginning of a content id is a hash already: eight bytes of blake3.
#[derive(Clone, Copy, Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        // Of other keys than numbers, which there are none of.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Clone, Copy, Debug)]
struct Change {
    generation: u64,
    prefix: u64,
    held: bool,
}

/// A report whose names are names. Made apart from [`Holdings::report`], so that nobody waits for the hashing.
#[derive(Clone, Debug)]
pub struct Checked {
    generation: u64,
    since: Option<u64>,
    added: Vec<(u64, Box<str>)>,
    removed: Vec<u64>,
}

impl Checked {
    /// Checks a report.
    ///
    /// # Errors
    ///
    /// [`BadReport`].
    pub fn new(report: &HoldingsReport) -> Result<Self, BadReport> {
        let count = report.added.len() + report.removed.len();
        if count > HOLDINGS_PER_REPORT_MAX {
            return Err(BadReport::TooLong { count });
        }
        let added = report.added.iter().enumerate().map(|(n, held)| {
            let name = name(&held.file, || format!("added[{n}].file"))?;
            Ok((name.content_id().prefix(), name.as_str().into()))
        });
        let removed = report.removed.iter().enumerate().map(|(n, file)| {
            let name = name(file, || format!("removed[{n}]"))?;
            Ok(name.content_id().prefix())
        });
        Ok(Self {
            generation: report.generation,
            since: report.since,
            added: added.collect::<Result<_, _>>()?,
            removed: removed.collect::<Result<_, _>>()?,
        })
    }
}

impl Checked {
    /// Content id prefixes of what is now held.
    pub fn added(&self) -> impl Iterator<Item = u64> {
        self.added.iter().map(|(prefix, _)| *prefix)
    }
}

/// A report that is refused whole: 400.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadReport {
    /// More than [`HOLDINGS_PER_REPORT_MAX`] files.
    #[error(
        "added, removed: {count} files: at most {HOLDINGS_PER_REPORT_MAX} a report; send the rest as further \
         generations that build on this one"
    )]
    TooLong {
        /// How many.
        count: usize,
    },
    /// Something that is not the canonical name of a file.
    #[error("{field}: {file:?} is no canonical name: {why}")]
    Name {
        /// Where in the report, "added[3].file".
        field: String,
        /// What was there.
        file: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Holdings {
    /// Nothing is known.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { caches: HashMap::new(), bounds }
    }

    /// Whether the report is complete or builds on what is known. One that comes again, its answer lost, does not.
    #[must_use]
    pub fn takes(&self, cache: &str, report: &Checked) -> bool {
        report.since.is_none_or(|since| since == self.of(cache).map_or(0, Held::generation))
    }

    /// Takes a report in if it [takes](Self::takes) it; the generation that is known now.
    pub fn report(&mut self, cache: &str, report: Checked) -> u64 {
        let takes = self.takes(cache, &report);
        let held = self.caches.entry(cache.to_owned()).or_default();
        if !takes {
            return held.generation;
        }
        let complete = report.since.is_none();
        if complete {
            *held = Held { log_since: report.generation, ..Held::default() };
        }
        held.generation = report.generation;
        for prefix in report.removed {
            if held.files.remove(&prefix).is_some() && !complete {
                held.changed(prefix, false);
            }
        }
        for (prefix, name) in report.added {
            if held.files.len() >= self.bounds.files_max {
                tracing::warn!(cache, files_max = self.bounds.files_max, "holds more files than are kept track of");
                break;
            }
            if held.files.insert(prefix, name).is_none() && !complete {
                held.changed(prefix, true);
            }
        }
        held.forget(self.bounds.log_max);
        held.generation
    }

    /// What is known of one cache; nothing when it has not reported.
    #[must_use]
    pub fn of(&self, cache: &str) -> Option<&Held> {
        self.caches.get(cache)
    }

    /// Whether the cache is known to hold the file with this content id prefix.
    #[must_use]
    pub fn holds(&self, cache: &str, prefix: u64) -> bool {
        self.of(cache).is_some_and(|held| held.holds(prefix))
    }

    /// What somebody who knows the holdings of some caches up to some generations is to be told of `caches`. Those
    /// without a change are left out, and so are further ones after [`CHANGES_PER_ANSWER_MAX`]: they come next time.
    pub fn deltas<'a>(
        &self,
        caches: impl Iterator<Item = &'a str>,
        known: impl Fn(&str) -> Option<u64>,
    ) -> Vec<HoldingsDelta> {
        let mut deltas: Vec<HoldingsDelta> = Vec::new();
        let mut changes = 0;
        for cache in caches {
            let Some(delta) = self.of(cache).and_then(|held| held.delta(cache, known(cache))) else { continue };
            changes += delta.added.len() + delta.removed.len();
            if changes > CHANGES_PER_ANSWER_MAX && !deltas.is_empty() {
                break;
            }
            deltas.push(delta);
        }
        deltas
    }
}

impl Held {
    /// What the cache called this state.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether the file with this content id prefix is in it.
    #[must_use]
    pub fn holds(&self, prefix: u64) -> bool {
        self.files.contains_key(&prefix)
    }

    /// How many files it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Canonical names, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.values().map(|name| &**name)
    }

    fn changed(&mut self, prefix: u64, held: bool) {
        self.log.push_back(Change { generation: self.generation, prefix, held });
    }

    /// Shortens the log, by whole generations.
    fn forget(&mut self, log_max: usize) {
        while self.log.len() > log_max
            && let Some(&Change { generation, .. }) = self.log.front()
        {
            self.log_since = generation;
            while self.log.front().is_some_and(|change| change.generation == generation) {
                self.log.pop_front();
            }
        }
    }

    fn delta(&self, cache: &str, known: Option<u64>) -> Option<HoldingsDelta> {
        if known == Some(self.generation) {
            return None;
        }
        let mut delta = HoldingsDelta {
            cache: cache.to_owned(),
            generation: self.generation,
            since: known.filter(|known| (self.log_since..self.generation).contains(known)),
            added: Vec::new(),
            removed: Vec::new(),
        };
        if let Some(since) = delta.since {
            let after = self.log.partition_point(|change| change.generation <= since);
            // Only how a file ended matters, not how often it came and went.
            let mut last: HashMap<u64, bool> = HashMap::new();
            for change in self.log.range(after..) {
                last.insert(change.prefix, change.held);
            }
            let (added, removed): (Vec<_>, Vec<_>) = last.into_iter().partition(|&(_, held)| held);
            delta.added = hexadecimal(added.into_iter().map(|(prefix, _)| prefix));
            delta.removed = hexadecimal(removed.into_iter().map(|(prefix, _)| prefix));
        } else {
            delta.added = hexadecimal(self.files.keys().copied());
        }
        Some(delta)
    }
}

/// Changes of one status answer; one cache's are never split, so it can be as many as one cache holds files.
pub const CHANGES_PER_ANSWER_MAX: usize = 100_000;

fn name(file: &str, field: impl Fn() -> String) -> Result<CanonicalName, BadReport> {
    let bad = |why: String| BadReport::Name { field: field(), file: file.to_owned(), why };
    CanonicalName::from_written(file).map_err(|error| bad(error.to_string()))
}

/// 16 digits each, sorted.
fn hexadecimal(prefixes: impl Iterator<Item = u64>) -> Vec<String> {
    let sorted: BTreeSet<u64> = prefixes.collect();
    sorted.into_iter().map(|prefix| format!("{prefix:016x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::wire;

    #[test]
    fn only_what_builds_on_the_known_state_is_taken_in() {
        let mut holdings = holdings(100);
        assert_eq!(holdings.report("cache4-1", report(5, Some(4), "a", "")), 0, "nothing is known yet");
        assert_eq!(holdings.report("cache4-1", report(6, None, "a b", "")), 6);
        check(&holdings, "a b");
        assert!(holdings.takes("cache4-1", &report(7, Some(6), "c", "a")));
        assert_eq!(holdings.report("cache4-1", report(7, Some(6), "c", "a")), 7);
        check(&holdings, "b c");
        assert!(!holdings.takes("cache4-1", &report(7, Some(6), "c", "a")), "it comes again");
        assert_eq!(holdings.report("cache4-1", report(7, Some(6), "c", "a")), 7);
        assert_eq!(holdings.report("cache4-1", report(9, Some(8), "d", "")), 7);
        check(&holdings, "b c");
        assert_eq!(holdings.report("cache4-1", report(2, None, "e", "")), 2, "a full list always counts");
        check(&holdings, "e");
    }

    #[test]
    fn a_report_with_a_bad_name_is_refused_whole() {
        let refused = |added: &[&str], removed: &[&str]| {
            let held = |file: &&str| wire::Held { file: (*file).to_owned(), size: 1 };
            let report = HoldingsReport {
                generation: 1,
                since: None,
                added: added.iter().map(held).collect(),
                removed: removed.iter().map(ToString::to_string).collect(),
            };
            Checked::new(&report).unwrap_err().to_string()
        };
        let not_canonical = "\"c1/ \" is no canonical name: the path has a character that must be percent-encoded";
        assert_eq!(refused(&["c1/a", "c1/ "], &[]), format!("added[1].file: {not_canonical}"));
        assert_eq!(refused(&[], &["c1/ "]), format!("removed[0]: {not_canonical}"));
        let many = vec!["c1/a"; HOLDINGS_PER_REPORT_MAX];
        assert!(refused(&many, &["c1/b"]).starts_with("added, removed: 10001 files: at most 10000 a report"));
    }

    #[test]
    fn who_is_too_far_behind_is_told_everything() {
        let mut holdings = holdings(3);
        holdings.report("cache4-1", report(10, None, "a b", ""));
        for (generation, name) in [(11, "c"), (12, "d"), (13, "e"), (14, "f")] {
            holdings.report("cache4-1", report(generation, Some(generation - 1), name, ""));
        }
        check_delta(&holdings, None, "everything +6");
        check_delta(&holdings, Some(9), "everything +6");
        check_delta(&holdings, Some(10), "everything +6");
        check_delta(&holdings, Some(11), "since 11 +3 -0");
        check_delta(&holdings, Some(13), "since 13 +1 -0");
        check_delta(&holdings, Some(14), "nothing");
        check_delta(&holdings, Some(15), "everything +6");
    }

    #[test]
    fn what_came_and_went_is_told_as_it_ended() {
        let mut holdings = holdings(100);
        holdings.report("cache4-1", report(1, None, "a", ""));
        holdings.report("cache4-1", report(2, Some(1), "b", "a"));
        holdings.report("cache4-1", report(3, Some(2), "a", "b"));
        check_delta(&holdings, Some(1), "since 1 +1 -1");
        check_delta(&holdings, Some(2), "since 2 +1 -1");
    }

    #[test]
    fn an_answer_is_bounded_and_the_rest_comes_later() {
        let mut holdings = Holdings::new(Bounds { files_max: CHANGES_PER_ANSWER_MAX, log_max: 0 });
        for cache in ["one", "two"] {
            for (generation, since) in (1..=6).zip([None, Some(1), Some(2), Some(3), Some(4), Some(5)]) {
                let many: Vec<String> = (0..10_000).map(|n| format!("{generation}/{n}")).collect();
                holdings.report(cache, report(generation, since, &many.join(" "), ""));
            }
        }
        let told: Vec<String> =
            holdings.deltas(["one", "two"].into_iter(), |_| None).into_iter().map(|delta| delta.cache).collect();
        assert_eq!(told, ["one"]);
        let rest = holdings.deltas(["one", "two"].into_iter(), |cache| (cache == "one").then_some(6));
        assert_eq!(rest.len(), 1);
        assert_eq!(rest[0].cache, "two");
    }

    #[test]
    fn files_above_the_bound_are_left_out() {
        let mut holdings = Holdings::new(Bounds { files_max: 2, log_max: 9 });
        holdings.report("cache4-1", report(1, None, "a b c", ""));
        assert_eq!(holdings.of("cache4-1").unwrap().names().count(), 2);
    }

    proptest! {
        #[test]
        fn a_sun_that_applies_the_deltas_knows_what_the_cache_holds(
            steps in prop::collection::vec((prop::collection::vec((0..30_u8, any::<bool>()), 0..8), 0..4_u8), 1..60)
        ) {
            let mut holdings = holdings(10);
            let mut cache: BTreeSet<u8> = BTreeSet::new();
            let mut sun: (Option<u64>, BTreeSet<String>) = (None, BTreeSet::new());
            for (generation, (changes, dice)) in (1..).zip(steps) {
                // The last word about a file counts.
                let changes: BTreeMap<u8, bool> = changes.into_iter().collect();
                let (mut added, mut removed) = (Vec::new(), Vec::new());
                for (&file, &held) in &changes {
                    if held { cache.insert(file); added.push(file.to_string()); }
                    else { cache.remove(&file); removed.push(file.to_string()); }
                }
                let mut told = report(generation, Some(generation - 1), &added.join(" "), &removed.join(" "));
                if dice == 0 {
                    let all: Vec<String> = cache.iter().map(ToString::to_string).collect();
                    told = report(generation, None, &all.join(" "), "");
                }
                if holdings.report("cache4-1", told) != generation {
                    let all: Vec<String> = cache.iter().map(ToString::to_string).collect();
                    holdings.report("cache4-1", report(generation, None, &all.join(" "), ""));
                }
                if dice == 1 {
                    continue; // The sun does not ask this time.
                }
                for delta in holdings.deltas(["cache4-1"].into_iter(), |_| sun.0) {
                    if delta.since.is_none() { sun.1.clear(); } else { prop_assert_eq!(delta.since, sun.0); }
                    sun.1.extend(delta.added);
                    for removed in delta.removed { sun.1.remove(&removed); }
                    sun.0 = Some(delta.generation);
                }
                let expected: BTreeSet<String> = cache.iter().map(|file| id(&file.to_string())).collect();
                prop_assert_eq!(&sun.1, &expected);
            }
        }
    }

    fn holdings(log_max: usize) -> Holdings {
        Holdings::new(Bounds { files_max: 1000, log_max })
    }

    fn report(generation: u64, since: Option<u64>, added: &str, removed: &str) -> Checked {
        let file = |name: &str| format!("c1/{name}");
        let report = HoldingsReport {
            generation,
            since,
            added: added.split_whitespace().map(|name| wire::Held { file: file(name), size: 1 }).collect(),
            removed: removed.split_whitespace().map(file).collect(),
        };
        Checked::new(&report).unwrap()
    }

    fn id(name: &str) -> String {
        format!("{:016x}", CanonicalName::parse(&format!("c1/{name}")).unwrap().content_id().prefix())
    }

    #[track_caller]
    fn check(holdings: &Holdings, expected: &str) {
        let mut names: Vec<&str> = holdings.of("cache4-1").unwrap().names().map(|name| &name[3..]).collect();
        names.sort_unstable();
        assert_eq!(names.join(" "), expected);
        assert!(expected.split(' ').all(|name| {
            holdings.holds("cache4-1", CanonicalName::parse(&format!("c1/{name}")).unwrap().content_id().prefix())
        }));
    }

    #[track_caller]
    fn check_delta(holdings: &Holdings, known: Option<u64>, expected: &str) {
        let deltas = holdings.deltas(["cache4-1", "cache4-2"].into_iter(), |_| known);
        let answer = match &deltas[..] {
            [] => "nothing".to_owned(),
            [delta] => match delta.since {
                None => format!("everything +{}", delta.added.len()),
                Some(since) => format!("since {since} +{} -{}", delta.added.len(), delta.removed.len()),
            },
            _ => panic!("{deltas:?}"),
        };
        assert_eq!(answer, expected, "{known:?}");
    }
}
