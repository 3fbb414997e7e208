//! How long a change of region has to be wished for before clients are moved.
//!
//! ```text
//!              same best regions, or nobody left: now
//!   published, wanted ------------------------------------> publish
//!        |                                                     ^
//!        | other best regions                                  | wished for `stable` without a change,
//!        v                                                     | or the oldest of too many
//!     pending (since when, which regions) --due---------------+
//!        |
//!        +-- wish is back at what is published: forgotten; another wish: waits anew
//! ```
//!
//! A client that moves to another region leaves what is cached for it behind and finds a cold cache, so a route that
//! comes and goes must not take its clients along. What moves them is a change of the best regions (all of rank 0: equal ones
//! share the clients). Changes behind those are published at once, and so is a prefix that nobody serves any
//! more: waiting would send clients where nobody hears them. A prefix that is new waits too: what covers it serves
//! it meanwhile, and a flapping prefix is new each time it comes back.
//!
//! Pure: the caller says what time it is, and asks again when something is due.
//!
//! # Invariants
//!
//! - Between two publications of a prefix with other best regions lie at least `stable`, unless nobody served it
//!   in between, a rule denied what was published, or more prefixes waited than there is room for.
//! - At most [`Options::pending_max`] prefixes are pending, and as many handed out before their time.
//!
//! # Where it does not belong
//!
//! The first table after a start, and tables after a change of config, topology, lists or geoip: nothing
//! flaps there. The caller publishes those whole and calls [`Damping::clear`].

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::table::Leaf;
use crate::topology::RegionId;

/// How damping is done.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// How long another best region has to be wished for. Seconds, default 60; 0 switches damping off. With too little,
    /// flapping routes move clients between caches; with too much, clients stay in the worse region after real changes.
    pub stable_s: u64,
    /// Prefixes that wait at the same time. Default 200,000: less than 40 MB. With too few, those that wait longest are
    /// moved before their time when a large peer flaps; too many only take memory.
    pub pending_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { stable_s: 60, pending_max: 200_000 }
    }
}

/// What shall become of a wish.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// Publish what is wanted.
    Now,
    /// Leave what is published; [`Damping::due`] gives the prefix at this time, if the wish is still the same.
    At(Instant),
}

/// Prefixes whose best regions shall change.
#[derive(Debug)]
pub struct Damping {
    stable: Duration,
    pending_max: usize,
    pending: HashMap<IpNet, Wish>,
    /// Of `pending`, oldest first.
    by_age: BTreeSet<(Instant, IpNet)>,
    /// Taken out of `pending` before their time, at this time, for [`Damping::due`].
    early: BTreeMap<IpNet, Instant>,
    early_total: u64,
}

/// A wish that waits.
#[derive(Debug)]
struct Wish {
    since: Instant,
    /// In the leaf's order.
    best: Box<[RegionId]>,
}

impl Damping {
    /// Nothing pends.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            stable: Duration::from_secs(options.stable_s),
            pending_max: options.pending_max,
            pending: HashMap::new(),
            by_age: BTreeSet::new(),
            early: BTreeMap::new(),
            early_total: 0,
        }
    }

    /// Decides about a prefix whose routes changed: `published` is what the table says, `wanted` what was chosen. It is
    /// to be called for each change, also when the two are equal again: the wish is forgotten then.
    pub fn decide(&mut self, prefix: IpNet, published: Option<&Leaf>, wanted: Option<&Leaf>, now: Instant) -> Decision {
        if self.stable.is_zero() || moves_nobody(published, wanted) {
            self.forget(prefix);
            return Decision::Now;
        }
        let since = match self.pending.get(&prefix) {
            Some(wish) if best(wanted).eq(wish.best.iter().copied()) => wish.since,
            _ if self.early.contains_key(&prefix) => return Decision::At(now),
            _ => {
                self.forget(prefix);
                if !self.make_room(now) {
                    self.early_total += 1;
                    return Decision::Now;
                }
                self.pending.insert(prefix, Wish { since: now, best: best(wanted).collect() });
                self.by_age.insert((now, prefix));
                now
            }
        };
        let due = since + self.stable;
        if due > now {
            return Decision::At(due);
        }
        self.forget(prefix);
        Decision::Now
    }

    /// The prefixes whose wish is old enough, at most `count_max` of them, oldest first. They are forgotten here: the
    /// caller publishes what is wanted of them now. To be called after the changes of the same moment are decided.
    pub fn due(&mut self, now: Instant, count_max: usize) -> Vec<IpNet> {
        let mut due = Vec::new();
        while due.len() < count_max {
            if let Some((prefix, _)) = self.early.pop_first() {
                due.push(prefix);
                continue;
            }
            match self.by_age.first() {
                Some(&(since, prefix)) if since + self.stable <= now => {
                    self.forget(prefix);
                    due.push(prefix);
                }
                _ => break,
            }
        }
        due
    }

    /// When [`Damping::due`] will have something; none while nothing pends.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        let oldest = self.by_age.first().map(|(since, _)| *since + self.stable);
        self.early.values().next().copied().or(oldest)
    }

    /// Prefixes that wait.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len() + self.early.len()
    }

    /// Prefixes that were moved before their time because too many waited, since the start.
    #[must_use]
    pub const fn early_total(&self) -> u64 {
        self.early_total
    }

    /// Forgets every wish: what is wanted is published whole.
    pub fn clear(&mut self) {
        self.pending.clear();
        self.by_age.clear();
        self.early.clear();
    }

    fn forget(&mut self, prefix: IpNet) {
        if let Some(wish) = self.pending.remove(&prefix) {
            self.by_age.remove(&(wish.since, prefix));
        }
        self.early.remove(&prefix);
    }

    /// Makes room for one more by letting the oldest go early; false when there is no room for that either.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.pending.len() < self.pending_max {
            return true;
        }
        if self.early.len() >= self.pending_max {
            return false;
        }
        let Some(&(_, oldest)) = self.by_age.first() else { return false };
        self.forget(oldest);
        self.early.insert(oldest, now);
        self.early_total += 1;
        true
    }
}

/// Whether the change can be published at once.
fn moves_nobody(published: Option<&Leaf>, wanted: Option<&Leaf>) -> bool {
    let mut wanted_best = best(wanted).peekable();
    let nobody_left = wanted_best.peek().is_none();
    let is_denied = |region| wanted.is_some_and(|leaf| leaf.denied.binary_search(&region).is_ok());
    nobody_left || best(published).any(is_denied) || best(published).eq(wanted_best)
}

/// The regions that clients are in, as far as the leaf tells: those of rank 0.
fn best(leaf: Option<&Leaf>) -> impl Iterator<Item = RegionId> + '_ {
    leaf.into_iter().flat_map(Leaf::firsts)
}
