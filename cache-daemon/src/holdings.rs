//! What the popularity API is told about the holdings: deltas, or everything when it does not follow. Pure.
//!
//! ```text
//!   changed --> pending --report()--> sent --answered(generation)--> known to the API
//!                  ^                    |
//!                  +------failed()------+     another generation: restart(), everything is pending again
//! ```
//!
//! A report carries at most [`REPORT_FILES_MAX`] files, so a full list of a large cache is a first report without
//! `since` and further ones that build on it.
//!
//! # Invariants
//!
//! - After any sequence of reports that were answered, the API's list is the pending changes short of the cache's.
//! - Generations rise over restarts: they begin at the time of the start, in microseconds.

use std::collections::BTreeMap;

use geo::CanonicalName;
use popularity_api::wire;

/// What the API has been told and what it has not.
#[derive(Debug)]
pub struct Holdings {
    /// Of the last report that was made.
    generation: u64,
    /// What the API has; nothing when it must be told everything.
    acknowledged: Option<u64>,
    /// Not told yet: size of a file that is held, nothing for one that is not.
    pending: BTreeMap<CanonicalName, Option<u64>>,
    /// In the report that is under way.
    sent: BTreeMap<CanonicalName, Option<u64>>,
    /// Whether `pending` is the whole list or a change of what the API has.
    complete: bool,
}

impl Holdings {
    /// Nothing has been told, and everything must be: call [`Holdings::restart`] first. `boot_us`: the time of the
    /// start, microseconds since 1970.
    #[must_use]
    pub const fn new(boot_us: u64) -> Self {
        Self {
            generation: boot_us,
            acknowledged: None,
            pending: BTreeMap::new(),
            sent: BTreeMap::new(),
            complete: false,
        }
    }

    /// Whether the API must be told everything and the list is not here yet.
    #[must_use]
    pub const fn needs_list(&self) -> bool {
        self.acknowledged.is_none() && !self.complete
    }

    /// Tells everything anew: this is what is held.
    pub fn restart(&mut self, held: impl IntoIterator<Item = (CanonicalName, u64)>) {
        self.acknowledged = None;
        self.sent.clear();
        self.pending = held.into_iter().map(|(name, size)| (name, Some(size))).collect();
        self.complete = true;
    }

    /// The API does not have what it was thought to have.
    pub fn lost(&mut self) {
        self.acknowledged = None;
        self.complete = false;
    }

    /// A file is held now, or no longer.
    pub fn changed(&mut self, name: CanonicalName, size: Option<u64>) {
        self.pending.insert(name, size);
    }

    /// The generation that the API must name for its answers to be about what is held; nothing while it has not
    /// been told all.
    #[must_use]
    pub fn settled(&self) -> Option<u64> {
        self.acknowledged.filter(|_| self.pending.is_empty() && self.sent.is_empty())
    }

    /// The next report, or nothing when the API knows all; answer it with [`Holdings::answered`] or
    /// [`Holdings::failed`] before the next one.
    pub fn report(&mut self) -> Option<wire::HoldingsReport> {
        if self.needs_list() || (self.acknowledged.is_some() && self.pending.is_empty()) {
            return None;
        }
        let since = self.acknowledged;
        for _ in 0..REPORT_FILES_MAX {
            let Some((name, size)) = self.pending.pop_first() else { break };
            self.sent.insert(name, size);
        }
        self.generation += 1;
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for (name, size) in &self.sent {
            let file = name.as_str().to_owned();
            match size {
                Some(size) => added.push(wire::Held { file, size: *size }),
                // A full list says what there is; what is not in it is not there.
                None if since.is_some() => removed.push(file),
                None => {}
            }
        }
        Some(wire::HoldingsReport { generation: self.generation, since, added, removed })
    }

    /// The API has this generation now.
    pub fn answered(&mut self, generation: u64) {
        self.sent.clear();
        if generation == self.generation {
            self.acknowledged = Some(generation);
            self.complete = false;
        } else {
            self.lost();
        }
    }

    /// The report may or may not have arrived: its changes are told again.
    pub fn failed(&mut self) {
        for (name, size) in std::mem::take(&mut self.sent) {
            self.pending.entry(name).or_insert(size);
        }
    }
}

/// Files of one report.
pub const REPORT_FILES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_report_is_the_whole_list() {
        let mut holdings = Holdings::new(100);
        assert!(holdings.needs_list());
        assert_eq!(holdings.report(), None);
        holdings.restart([(name("b"), 2), (name("a"), 1)]);
        check(&mut holdings, "101 all +a1 +b2");
        assert_eq!(holdings.settled(), Some(101));
        assert_eq!(holdings.report(), None);
    }

    #[test]
    fn an_empty_cache_says_so() {
        let mut holdings = Holdings::new(0);
        holdings.restart([]);
        check(&mut holdings, "1 all");
        assert_eq!(holdings.report(), None);
    }

    #[test]
    fn changes_are_deltas_and_the_last_of_a_file_counts() {
        let mut holdings = settled();
        holdings.changed(name("a"), Some(5));
        holdings.changed(name("b"), Some(6));
        holdings.changed(name("a"), None);
        assert_eq!(holdings.settled(), None);
        check(&mut holdings, "2 since 1 +b6 -a");
        holdings.changed(name("b"), None);
        check(&mut holdings, "3 since 2 -b");
    }

    #[test]
    fn a_report_that_failed_is_told_again_with_what_came_since() {
        let mut holdings = settled();
        holdings.changed(name("a"), Some(1));
        holdings.changed(name("b"), Some(2));
        assert!(holdings.report().is_some());
        holdings.changed(name("b"), None);
        holdings.failed();
        check(&mut holdings, "3 since 1 +a1 -b");
    }

    #[test]
    fn an_api_that_does_not_follow_is_told_everything() {
        let mut holdings = settled();
        holdings.changed(name("a"), Some(1));
        assert!(holdings.report().is_some());
        holdings.answered(0);
        assert!(holdings.needs_list());
        holdings.restart([(name("a"), 1)]);
        holdings.changed(name("c"), None);
        check(&mut holdings, "3 all +a1");
    }

    #[test]
    fn a_long_list_is_told_in_parts() {
        let mut holdings = Holdings::new(0);
        holdings.restart((0..REPORT_FILES_MAX + 1).map(|number| (name(&format!("{number:06}")), 1)));
        let first = holdings.report().unwrap();
        assert_eq!((first.since, first.added.len()), (None, REPORT_FILES_MAX));
        holdings.answered(first.generation);
        assert_eq!(holdings.settled(), None);
        check(&mut holdings, "2 since 1 +0100001");
    }

    proptest! {
        /// Model: an API that keeps a set, sometimes forgets it, and sometimes answers without being heard.
        #[test]
        fn the_api_ends_up_with_what_is_held(steps in prop::collection::vec((0_u8..6, 0_u8..5), 0..60)) {
            let mut holdings = Holdings::new(0);
            let mut held = BTreeSet::new();
            let mut api = Api::default();
            for (step, file) in steps {
                let file = name(&file.to_string());
                match step {
                    0 | 1 => { held.insert(file.clone()); holdings.changed(file, Some(1)); }
                    2 => { held.remove(&file); holdings.changed(file, None); }
                    3 => exchange(&mut holdings, &held, &mut api, true),
                    4 => exchange(&mut holdings, &held, &mut api, false),
                    _ => api = Api::default(),
                }
            }
            for _ in 0..4 {
                // The API's next answer names the generation it has; another one than ours means it forgot.
                if holdings.settled().is_some_and(|generation| generation != api.generation) {
                    holdings.lost();
                }
                exchange(&mut holdings, &held, &mut api, true);
            }
            prop_assert_eq!(holdings.settled(), Some(api.generation));
            prop_assert_eq!(api.files, held);
        }
    }

    #[derive(Default)]
    struct Api {
        generation: u64,
        files: BTreeSet<CanonicalName>,
    }

    fn exchange(holdings: &mut Holdings, held: &BTreeSet<CanonicalName>, api: &mut Api, heard: bool) {
        if holdings.needs_list() {
            holdings.restart(held.iter().map(|name| (name.clone(), 1)));
        }
        let Some(report) = holdings.report() else { return };
        if report.since.is_none() {
            api.files.clear();
        }
        if report.since.is_none_or(|since| since == api.generation) {
            api.generation = report.generation;
            api.files.extend(report.added.iter().map(|held| CanonicalName::parse(&held.file).unwrap()));
            for file in &report.removed {
                api.files.remove(&CanonicalName::parse(file).unwrap());
            }
        }
        if heard {
            holdings.answered(api.generation);
        } else {
            holdings.failed();
        }
    }

    fn settled() -> Holdings {
        let mut holdings = Holdings::new(0);
        holdings.restart([]);
        check(&mut holdings, "1 all");
        holdings
    }

    /// Makes the next report, which the API acknowledges: "2 since 1 +b6 -a".
    #[track_caller]
    fn check(holdings: &mut Holdings, expected: &str) {
        let report = holdings.report().unwrap();
        let since = report.since.map_or_else(|| "all".to_owned(), |since| format!("since {since}"));
        let short = |file: &str| file.strip_prefix("c1/").unwrap().to_owned();
        let added = report.added.iter().map(|held| format!(" +{}{}", short(&held.file), held.size));
        let removed = report.removed.iter().map(|file| format!(" -{}", short(file)));
        let changes: String = added.chain(removed).collect();
        assert_eq!(format!("{} {since}{changes}", report.generation), expected);
        holdings.answered(report.generation);
    }

    fn name(file: &str) -> CanonicalName {
        CanonicalName::parse(&format!("c1/{file}")).unwrap()
    }
}
