//! Holdings as a replica takes them over: by name, in pages or as what changed. Pure.

use std::collections::HashSet;

use geo::CanonicalName;

use super::{Checked, Held, Holdings};
use crate::wire::{CacheGeneration, CacheHoldings, HOLDINGS_PAGE_MAX};

impl Holdings {
    /// How far the holdings of each cache are, by name.
    #[must_use]
    pub fn generations(&self) -> Vec<CacheGeneration> {
        let generation =
            |(cache, held): (&String, &Held)| CacheGeneration { cache: cache.clone(), generation: held.generation };
        let mut generations: Vec<_> = self.caches.iter().map(generation).collect();
        generations.sort_by(|a, b| a.cache.cmp(&b.cache));
        generations
    }

    /// Forgets caches that are not among these.
    pub fn keep_only(&mut self, known: &HashSet<&str>) {
        self.caches.retain(|cache, _| known.contains(cache.as_str()));
    }
}

impl Held {
    /// What changed since a generation, when that is still known, or else the page of everything that begins at `from`.
    #[must_use]
    pub fn following(&self, since: Option<u64>, from: u64) -> CacheHoldings {
        match since.filter(|since| (self.log_since..=self.generation).contains(since)) {
            Some(since) => self.changes(since),
            None => self.page(from, HOLDINGS_PAGE_MAX),
        }
    }

    /// All of it.
    #[must_use]
    pub fn whole(&self) -> CacheHoldings {
        self.page(0, usize::MAX)
    }

    /// The canonical name of the file with this content id prefix, if it is held.
    #[must_use]
    pub fn name(&self, prefix: u64) -> Option<&str> {
        self.files.get(&prefix).map(|name| &**name)
    }

    fn changes(&self, since: u64) -> CacheHoldings {
        let after = self.log.partition_point(|change| change.generation <= since);
        let changed: HashSet<u64> = self.log.range(after..).map(|change| change.prefix).collect();
        let mut added: Vec<String> =
            changed.iter().filter_map(|prefix| self.files.get(prefix)).map(ToString::to_string).collect();
        added.sort_unstable();
        let removed = super::hexadecimal(changed.into_iter().filter(|prefix| !self.files.contains_key(prefix)));
        CacheHoldings { generation: self.generation, since: Some(since), added, removed, next: None }
    }

    /// Files with prefixes from `from` on, in their order.
    fn page(&self, from: u64, files_max: usize) -> CacheHoldings {
        let mut prefixes: Vec<u64> = self.files.keys().copied().filter(|&prefix| prefix >= from).collect();
        let next = (prefixes.len() > files_max).then(|| *prefixes.select_nth_unstable(files_max).1);
        prefixes.truncate(files_max);
        prefixes.sort_unstable();
        let added = prefixes.iter().filter_map(|prefix| self.files.get(prefix)).map(ToString::to_string).collect();
        let next = next.map(|prefix| format!("{prefix:016x}"));
        CacheHoldings { generation: self.generation, since: None, added, removed: Vec::new(), next }
    }
}

impl Checked {
    /// What a replica was told, of one or several pages, as a report; what names no file is left out.
    #[must_use]
    pub fn followed(told: &CacheHoldings) -> Self {
        let named = |file: &String| {
            let name = CanonicalName::from_written(file).ok()?;
            Some((name.content_id().prefix(), file.as_str().into()))
        };
        Self {
            generation: told.generation,
            since: told.since,
            added: told.added.iter().filter_map(named).collect(),
            removed: told.removed.iter().filter_map(|prefix| u64::from_str_radix(prefix, 16).ok()).collect(),
        }
    }
}

/// A place in the order of prefixes, as [`CacheHoldings::next`] says it.
#[must_use]
pub fn place(from: &str) -> Option<u64> {
    (from.len() == 16).then(|| u64::from_str_radix(from, 16).ok())?
}
