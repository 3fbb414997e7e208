//! What this API takes over from the one that it is a copy of, for links.
//!
//! ```text
//!   state of the primary, each second --> registry, looked at as of the primary's own moment
//!                                     --> holdings, purges
//!   older than state_max_s            --> nothing known of servers, and holdings laid aside: links name the owner sun
//! ```
//!
//! Servers that were alive when the primary was heard last count as alive until then: nobody here hears them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use daemon::metrics::level;
use daemon::problem::Refusal;
use geo::RegionId;

use super::{Api, read};
use crate::holdings::{Checked, Held, Holdings};
use crate::ratings::HeldNote;
use crate::status::Registry;
use crate::wire::{CacheHoldings, LinkState};

/// What a copy keeps beside what every API has.
#[derive(Debug)]
pub(super) struct Followed {
    /// The primary's moment at its last answer.
    now_ms: AtomicU64,
    /// Holdings while they are too old to be believed.
    aside: Mutex<Option<Holdings>>,
}

impl Default for Followed {
    fn default() -> Self {
        // Until the first answer nothing is known.
        Self { now_ms: AtomicU64::new(0), aside: Mutex::default() }
    }
}

impl Followed {
    /// The moment as of which servers are looked at.
    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Acquire)
    }
}

impl Api {
    /// The primary answered at its moment `now_ms`: with another state than last time, or with the same.
    pub fn take_state(&self, state: Option<&LinkState>, now_ms: u64) {
        let Some(followed) = &self.followed else { return };
        let mut registry = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = state {
            registry.restore(state, &self.topology(), now_ms);
        }
        followed.now_ms.store(now_ms, Ordering::Release);
        let resting = registry.at(now_ms).all_resting();
        drop(registry);
        self.rests.send_if_modified(|rests| std::mem::replace(rests, resting.clone()) != resting);
        for server in state.map(|state| state.servers.as_slice()).unwrap_or_default() {
            if let Some(applied) = server.purges {
                self.purges.acknowledge(&server.name, applied, now_ms);
            }
        }
        self.believe(followed);
    }

    /// What a cache holds, whole or since what is known; the generation that is known now.
    pub fn take_holdings(&self, cache: &str, told: &CacheHoldings) -> (u64, Option<HeldNote>) {
        let checked = Checked::followed(told);
        let mut holdings = self.holdings.write().unwrap_or_else(PoisonError::into_inner);
        let named = |prefix: &String| Some(holdings.of(cache)?.name(u64::from_str_radix(prefix, 16).ok()?)?.to_owned());
        let removed = told.removed.iter().filter_map(named).collect();
        let generation = holdings.report(cache, checked);
        let files = holdings.of(cache).map_or(0, Held::len);
        drop(holdings);
        self.metrics.held.with_label_values(&[cache]).set(level(files));
        let region: Option<RegionId> = self.topology().cache(cache).map(|cache| cache.server.region);
        let note = region.filter(|_| generation == told.generation).map(|region| HeldNote {
            region,
            cache: cache.to_owned(),
            complete: told.since.is_none(),
            added: told.added.clone(),
            removed,
        });
        (generation, note)
    }

    /// How far the holdings of a cache are known here.
    #[must_use]
    pub fn held_generation(&self, cache: &str) -> Option<u64> {
        read(&self.holdings).of(cache).map(Held::generation)
    }

    /// All that a cache is known to hold.
    #[must_use]
    pub fn held_by(&self, cache: &str) -> Option<CacheHoldings> {
        read(&self.holdings).of(cache).map(Held::whole)
    }

    /// Forgets what caches hold that are not among these.
    pub fn keep_only(&self, caches: &HashSet<&str>) {
        self.holdings.write().unwrap_or_else(PoisonError::into_inner).keep_only(caches);
    }

    /// The state is too old: links go by the topology alone until the primary answers.
    pub fn doubt(&self) {
        let Some(followed) = &self.followed else { return };
        let mut aside = followed.aside.lock().unwrap_or_else(PoisonError::into_inner);
        if aside.is_none() {
            let mut holdings = self.holdings.write().unwrap_or_else(PoisonError::into_inner);
            *aside = Some(std::mem::replace(&mut *holdings, Holdings::new(self.config.holdings())));
            drop(holdings);
            *self.registry.write().unwrap_or_else(PoisonError::into_inner) =
                Registry::new(self.config.rule(), 0).with_saturation(self.config.saturation());
        }
    }

    /// Refuses what makes no sense without knowing what caches hold.
    pub(super) fn believed(&self) -> Result<(), Refusal> {
        let doubted = self
            .followed
            .as_ref()
            .is_some_and(|followed| followed.aside.lock().unwrap_or_else(PoisonError::into_inner).is_some());
        if doubted {
            let detail = "what caches hold has not been heard of for too long: keep what you have and ask again";
            return Err(Refusal::unavailable(detail.to_owned()));
        }
        Ok(())
    }

    fn believe(&self, followed: &Followed) {
        let mut aside = followed.aside.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(holdings) = aside.take() {
            *self.holdings.write().unwrap_or_else(PoisonError::into_inner) = holdings;
        }
    }
}
