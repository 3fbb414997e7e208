//! Which regions serve a prefix, best first, from the routes that are heard to it; and why.
//!
//! ```text
//!   Heard, Heard, ...  --best of each region--+
//!   rules: pin, prefer, deny -----------------+--> Key --sort--> rank 0, 1, 1, 2 ... --> Leaf
//!   geoip's position, if keys are equal ------+     rule, session class, AS path, MED, distance
//! ```
//!
//! Regions are compared by their best routes, in this order; the first difference decides:
//!
//! 1. The operator's rules ([`crate::rules`]): the more specific first, pin before prefer, then those without a rule.
//! 2. The session class: embedded, private peer, exchange, transit.
//! 3. The length of the AS path (RFC 4271, section 9.1.2.2 a).
//! 4. MED, only among routes from the same neighbour AS (9.1.2.2 c). Those with the lowest MED of their neighbour
//!    AS come first, then those with the second lowest, and so on: regions that different ASes prefer alike are equal.
//! 5. The distance from the clients' position to the region, in steps of 100 km: geoip's error is of that size, and
//!    regions at about the same distance shall share the load.
//!
//! Regions that are still equal have the same rank, and whoever asks orders them by a hash of the client's /24 or /48.
//!
//! # Invariants
//!
//! - The order depends on the set of routes, never on the order in which they are given.
//! - Whether a route is stale does not matter: a lost feed shall not move clients.
//! - Every candidate is in the topology, none is denied, none is there twice.
//!
//! # Why MED has levels
//!
//! BGP looks for one best route and takes out all that lose to a route of the same neighbour. Here everybody gets
//! a place, and "better than" that holds only for some pairs makes no order. A level is what BGP's elimination
//! would leave when it is run again without the routes that were best.

mod explain;
mod key;
#[cfg(test)]
mod tests;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use key::{Key, NO_RULE};

pub use explain::{By, Choice, Chosen, LeftOut, RouteTold, Step, Why};

use crate::regions::{Point, Regions};
use crate::route::{Heard, SessionClass};
use crate::rules::{Action, Rules, Verdict};
use crate::table::{CANDIDATES_MAX, Candidate, Leaf, Source};
use crate::topology::RegionId;

/// What counts as evidence.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Routes to shorter IPv4 prefixes say nothing about clients: they are default routes. Bits, default 8. With too few,
    /// whoever sends us a default route gets every client that nobody else announces, and geoip is not asked; with
    /// too many, routes of large networks are passed over. Lists and rules count at any length.
    pub ipv4_length_min: u8,
    /// The same for IPv6. Bits, default 16.
    pub ipv6_length_min: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self { ipv4_length_min: 8, ipv6_length_min: 16 }
    }
}

impl Options {
    /// Whether routes to this prefix are default routes.
    pub(crate) fn is_default_route(&self, prefix: IpNet) -> bool {
        let length_min = match prefix {
            IpNet::V4(_) => self.ipv4_length_min,
            IpNet::V6(_) => self.ipv6_length_min,
        };
        prefix.prefix_len() < length_min
    }
}

/// Chooses for one prefix after the other. It keeps its buffers, so that choosing allocates nothing.
pub struct Chooser<'a> {
    rules: &'a Rules,
    regions: &'a Regions,
    position: &'a dyn Fn(IpNet) -> Option<Point>,
    options: Options,
    /// Of the prefix at hand, at most one for a region.
    verdicts: Vec<Verdict>,
    /// Of the prefix at hand, best first, none twice.
    entrants: Vec<Entrant>,
    meds: Vec<Med>,
    leaf: Leaf,
}

/// A region that hears the prefix or is pinned.
#[derive(Clone, Copy, Debug)]
struct Entrant {
    key: Key,
    region: RegionId,
    /// Its best route, by place in what was given; none of a pinned region that hears nothing.
    route: Option<u32>,
    listed: bool,
}

/// A route whose MED may count.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Med {
    /// Without a level.
    key: Key,
    neighbour_as: Option<u32>,
    med: u32,
    listed: bool,
    route: u32,
    entrant: usize,
}

impl<'a> Chooser<'a> {
    /// A chooser by these rules and regions; `position` says where the clients of a prefix are, if geoip knows. It is
    /// asked only where nothing else separates two regions.
    #[must_use]
    pub fn new(
        rules: &'a Rules,
        regions: &'a Regions,
        options: Options,
        position: &'a dyn Fn(IpNet) -> Option<Point>,
    ) -> Self {
        let (verdicts, entrants, meds, leaf) = Default::default();
        Self { rules, regions, position, options, verdicts, entrants, meds, leaf }
    }

    /// What the table says of a prefix with these routes; none when there is neither a region that serves it nor a denied
    /// one. The leaf is good until the next call.
    ///
    /// Nothing is in the table of a prefix without routes unless a rule names it; that others cover it is
    /// their entries' matter. For such a rule's prefix the caller may give the routes of the nearest covering prefix, so
    /// that `prefer` has somebody to choose from.
    pub fn choose(&mut self, prefix: IpNet, heard: &[Heard<'_>]) -> Option<&Leaf> {
        if self.options.is_default_route(prefix) && heard.iter().any(|route| !route.listed) {
            let listed: Vec<Heard<'_>> = heard.iter().filter(|route| route.listed).copied().collect();
            self.order(prefix, &listed);
        } else {
            self.order(prefix, heard);
        }
        self.fill_leaf()
    }

    /// Puts the regions in order.
    fn order(&mut self, prefix: IpNet, heard: &[Heard<'_>]) {
        self.verdicts.clear();
        self.entrants.clear();
        if heard.is_empty() && !self.rules.has(prefix) {
            return;
        }
        self.rules.judge(prefix, heard, &mut self.verdicts);
        let mut with_med = false;
        for (index, route) in (0..).zip(heard) {
            self.enter(index, route);
            with_med |= route.attributes.med.is_some_and(|med| med > 0);
        }
        self.enter_pinned();
        if self.entrants.len() < 2 {
            return;
        }
        if with_med {
            self.compare_meds(heard);
        }
        sort(&mut self.entrants);
        let equal = |pair: &[Entrant]| matches!(pair, [a, b] if a.key == b.key);
        if self.entrants.windows(2).any(equal)
            && let Some(position) = (self.position)(prefix)
        {
            self.compare_distances(&position);
        }
    }

    /// Enters a route's region, or its best route so far.
    fn enter(&mut self, index: u32, route: &Heard<'_>) {
        let listed = route.listed;
        let Heard { region, class, .. } = *route;
        let (path_length, route) = (route.attributes.path_length, Some(index));
        if let Some(known) = self.entrants.iter_mut().find(|entrant| entrant.region == region) {
            let key = Key { class, path_length, ..known.key };
            // What a router says is taken before what a list says, so that the order of the routes does not matter.
            if (key, listed) < (known.key, known.listed) {
                *known = Entrant { key, route, listed, ..*known };
            }
            return;
        }
        let rule = match self.verdicts.iter().find(|verdict| verdict.region == region) {
            Some(verdict) if verdict.action == Action::Deny => return,
            Some(verdict) => verdict.order(),
            None => NO_RULE,
        };
        if self.regions.contains(region) {
            let key = Key { rule, class, path_length, med_level: 0, distance: 0 };
            self.entrants.push(Entrant { key, region, route, listed });
        }
    }

    /// Enters pinned regions that hear nothing, behind those of equal rules that do.
    fn enter_pinned(&mut self) {
        for verdict in &self.verdicts {
            let region = verdict.region;
            let is_new = !self.entrants.iter().any(|entrant| entrant.region == region);
            if verdict.action == Action::Pin && is_new && self.regions.contains(region) {
                let (class, path_length) = (SessionClass::Transit, u16::MAX);
                let key = Key { rule: verdict.order(), class, path_length, med_level: 0, distance: 0 };
                self.entrants.push(Entrant { key, region, route: None, listed: false });
            }
        }
    }

    /// Gives each region the level of its best route's MED among routes that are equal up to there.
    fn compare_meds(&mut self, heard: &[Heard<'_>]) {
        self.meds.clear();
        for (route, told) in (0..).zip(heard) {
            let found = self.entrants.iter().position(|entrant| entrant.region == told.region);
            let Some((entrant, known)) = found.and_then(|at| self.entrants.get(at).map(|known| (at, known))) else {
                continue;
            };
            let attributes = told.attributes;
            if (known.key.class, known.key.path_length) == (told.class, attributes.path_length) {
                // RFC 4271, section 9.1.2.2 c: a route without MED has the lowest.
                let (neighbour_as, med) = (attributes.neighbour_as(), attributes.med.unwrap_or(0));
                let listed = told.listed;
                self.meds.push(Med { key: known.key, neighbour_as, med, listed, route, entrant });
            }
        }
        self.meds.sort_unstable();
        for entrant in &mut self.entrants {
            entrant.key.med_level = u16::MAX;
        }
        let mut level = 0_u16;
        let mut before: Option<Med> = None;
        for med in &self.meds {
            level = match before {
                Some(before) if (before.key, before.neighbour_as) != (med.key, med.neighbour_as) => 0,
                Some(before) if before.med < med.med => level.saturating_add(1),
                Some(_) => level,
                None => 0,
            };
            before = Some(*med);
            if let Some(entrant) = self.entrants.get_mut(med.entrant)
                && level < entrant.key.med_level
            {
                entrant.key.med_level = level;
                entrant.route = Some(med.route);
                entrant.listed = med.listed;
            }
        }
        for entrant in self.entrants.iter_mut().filter(|entrant| entrant.key.med_level == u16::MAX) {
            entrant.key.med_level = 0;
        }
    }

    /// Puts regions that are equal so far in the order of their distances.
    fn compare_distances(&mut self, position: &Point) {
        for equal in self.entrants.chunk_by_mut(|a, b| a.key == b.key).filter(|equal| equal.len() > 1) {
            for entrant in &mut *equal {
                entrant.key.distance = self.regions.km(entrant.region, position).map_or(u8::MAX, steps);
            }
            sort(equal);
        }
    }

    fn fill_leaf(&mut self) -> Option<&Leaf> {
        let Leaf { candidates, denied, source } = &mut self.leaf;
        candidates.clear();
        let mut rank = 0;
        let mut before = None;
        for entrant in self.entrants.iter().take(CANDIDATES_MAX) {
            rank += u8::from(before.is_some_and(|key| key != entrant.key));
            before = Some(entrant.key);
            candidates.push(Candidate { region: entrant.region, rank });
        }
        denied.clear();
        denied.extend(
            self.verdicts.iter().filter(|verdict| verdict.action == Action::Deny).map(|verdict| verdict.region),
        );
        denied.sort_unstable();
        *source = match self.entrants.first() {
            Some(first) if first.key.rule == NO_RULE && first.listed => Source::List,
            Some(first) if first.key.rule == NO_RULE => Source::Bgp,
            _ => Source::Rule,
        };
        (!candidates.is_empty() || !denied.is_empty()).then_some(&self.leaf)
    }
}

/// Best first.
fn sort(entrants: &mut [Entrant]) {
    entrants.sort_unstable_by_key(|entrant| (entrant.key.packed(), entrant.region));
}

/// A distance as it is compared.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 200 fit")]
fn steps(km: f64) -> u8 {
    (km / f64::from(KM_STEP)).round() as u8
}

/// How exact distances are compared, kilometres: half around the globe is 200 steps. With smaller steps, noise of
/// geoip files would separate regions that are equally far; with larger ones, near regions would not come first.
const KM_STEP: u32 = 100;
