//! What this server believes of the others of its region.
//!
//! Two witnesses: the popularity API's answer to each status report (who reported lately, what is hot, which
//! cache holds what), and this server's own failures to reach somebody. While the API is away its last word
//! on who lives counts for nothing after [`WORD_S`], and everybody counts as alive who was not seen to fail.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use geo::topology::Server;
use geo::{ContentId, Topology};
use popularity_api::balance::{Gauge, Sums};
use popularity_api::wire::{CacheGeneration, HoldingsDelta, Load, RegionState};

use crate::sources::Belief;

/// See the module's doc. Pure: time is an argument, in milliseconds of any monotonic clock.
#[derive(Clone, Debug, Default)]
pub struct RegionView {
    heard_at: Option<u64>,
    alive: HashSet<String>,
    hot: HashMap<String, usize>,
    /// What this sun spreads itself while the API is away.
    own: HashMap<String, usize>,
    /// Loads and how busy that is, of those alive.
    gauges: HashMap<String, (Load, f64)>,
    holdings: HashMap<String, Holdings>,
}

#[derive(Clone, Debug, Default)]
struct Holdings {
    generation: u64,
    /// Shared between views: a view is copied each second, a million prefixes are not.
    prefixes: Arc<HashSet<u64>>,
}

impl RegionView {
    /// Takes the API's answer in.
    pub fn hear(&mut self, state: &RegionState, now_ms: u64) {
        self.heard_at = Some(now_ms);
        self.alive = state.servers.iter().filter(|server| server.healthy).map(|server| server.name.clone()).collect();
        self.gauges = state.servers.iter().map(|server| (server.name.clone(), (server.load, server.busy))).collect();
        self.hot = state.hot.iter().map(|hot| (hot.file.clone(), hot.spread)).collect();
        for delta in &state.holdings {
            self.apply(delta);
        }
    }

    /// Which holdings are known, for the next report.
    #[must_use]
    pub fn known(&self) -> Vec<CacheGeneration> {
        let mut known: Vec<CacheGeneration> = self
            .holdings
            .iter()
            .map(|(cache, holdings)| CacheGeneration { cache: cache.clone(), generation: holdings.generation })
            .collect();
        known.sort_by(|a, b| a.cache.cmp(&b.cache));
        known
    }

    /// Takes in what this sun spreads by what it sees itself.
    pub fn see(&mut self, own: HashMap<String, usize>) {
        self.own = own;
    }

    /// How many first suns of a file's order keep it: by the API, and while it is away also by what this sun sees.
    #[must_use]
    pub fn spread(&self, file: &str, now_ms: u64) -> usize {
        let agreed = self.hot.get(file).copied().unwrap_or(1);
        if self.recent(now_ms) { agreed } else { agreed.max(self.own.get(file).copied().unwrap_or(1)) }
    }

    /// The files that several suns keep, in no order.
    pub fn hot(&self, now_ms: u64) -> impl Iterator<Item = &str> {
        let own = self.own.keys().filter(move |file| !self.recent(now_ms) && !self.hot.contains_key(*file));
        self.hot.keys().chain(own).map(String::as_str)
    }

    /// How busy a server is by a recent word of the API, 1.0 as the mean of the region's suns; also when there is none.
    #[must_use]
    pub fn busy(&self, server: &str, now_ms: u64) -> f64 {
        self.gauges.get(server).filter(|_| self.recent(now_ms)).map_or(1.0, |&(_, busy)| busy)
    }

    /// What a sun would carry if all did as much for their weight (requests) and network card (bits), by a recent
    /// word of the API. Bits of a region whose cards are idle count as none.
    #[must_use]
    pub fn mean(&self, topology: &Topology, server: &Server, now_ms: u64) -> Option<Load> {
        let region = topology.region(server.region).filter(|_| self.recent(now_ms))?;
        let mut sums = Sums::default();
        for sun in &region.suns {
            if let Some((load, _)) = self.gauges.get(&sun.server.name) {
                sums.add(&sun.server, Gauge::new(load));
            }
        }
        let expected = sums.expected(server)?;
        Some(Load { requests_per_second: expected.requests, bits_per_second: expected.bits, ..Load::default() })
    }

    /// Whether the API said something lately.
    #[must_use]
    pub fn recent(&self, now_ms: u64) -> bool {
        self.heard_at.is_some_and(|heard| now_ms.saturating_sub(heard) < WORD_S * 1000)
    }

    /// Whether the API's last word says that the server lives; without a recent word, yes.
    #[must_use]
    pub fn alive(&self, server: &str, now_ms: u64) -> bool {
        !self.recent(now_ms) || self.alive.contains(server)
    }

    /// Whether the cache said that it holds the file.
    #[must_use]
    pub fn holds(&self, cache: &str, content: ContentId) -> bool {
        self.holdings.get(cache).is_some_and(|holdings| holdings.prefixes.contains(&content.prefix()))
    }

    fn apply(&mut self, delta: &HoldingsDelta) {
        let holdings = self.holdings.entry(delta.cache.clone()).or_default();
        match delta.since {
            None => holdings.prefixes = Arc::default(),
            Some(since) if since == holdings.generation => {}
            // A delta on something else: the next report names what is known, and the answer builds on that.
            Some(_) => return,
        }
        let prefix = |text: &String| u64::from_str_radix(text, 16).ok();
        let prefixes = Arc::make_mut(&mut holdings.prefixes);
        for removed in delta.removed.iter().filter_map(prefix) {
            prefixes.remove(&removed);
        }
        prefixes.extend(delta.added.iter().filter_map(prefix));
        holdings.generation = delta.generation;
    }
}

/// Servers that this one failed to reach lately.
#[derive(Clone, Debug, Default)]
pub struct Suspended {
    until_ms: HashMap<String, u64>,
}

impl Suspended {
    /// The server could not be reached: it is not asked again for [`SUSPENDED_MS`].
    pub fn suspend(&mut self, server: &str, now_ms: u64) {
        self.until_ms.retain(|_, until| *until > now_ms);
        self.until_ms.insert(server.to_owned(), now_ms + SUSPENDED_MS);
    }

    /// Whether it is passed over now.
    #[must_use]
    pub fn contains(&self, server: &str, now_ms: u64) -> bool {
        self.until_ms.get(server).is_some_and(|until| *until > now_ms)
    }
}

/// Both witnesses at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Witnesses<'a> {
    /// The API's.
    pub view: &'a RegionView,
    /// This server's own.
    pub suspended: &'a Suspended,
    /// The moment, milliseconds.
    pub now_ms: u64,
}

impl Belief for Witnesses<'_> {
    fn alive(&self, server: &str) -> bool {
        self.view.alive(server, self.now_ms) && !self.suspended.contains(server, self.now_ms)
    }

    fn holds(&self, cache: &str, content: ContentId) -> bool {
        self.view.holds(cache, content)
    }
}

/// How long the API's word on who lives counts, seconds.
pub const WORD_S: u64 = 5;
/// How long a server that could not be reached is passed over, milliseconds: one request in so long pays for
/// finding out whether it is back.
pub const SUSPENDED_MS: u64 = 2000;

#[cfg(test)]
mod tests {
    use super::*;
    use popularity_api::wire::{HotFile, ServerState};

    #[test]
    fn without_a_recent_word_everybody_counts_as_alive() {
        let mut view = RegionView::default();
        assert!(view.alive("sun4-1-1", 0));
        view.hear(&state(&["sun4-1-2"]), 1000);
        assert!(!view.alive("sun4-1-1", 2000) && view.alive("sun4-1-2", 2000));
        assert!(view.alive("sun4-1-1", 1000 + WORD_S * 1000));
    }

    #[test]
    fn a_server_that_failed_is_passed_over_for_a_while() {
        let (view, mut suspended) = (RegionView::default(), Suspended::default());
        suspended.suspend("sun4-1-1", 100);
        let alive = |now_ms| Witnesses { view: &view, suspended: &suspended, now_ms }.alive("sun4-1-1");
        assert!(!alive(100) && !alive(99 + SUSPENDED_MS) && alive(100 + SUSPENDED_MS));
    }

    #[test]
    fn holdings_follow_their_deltas() {
        let content = geo::CanonicalName::parse("c1/a").unwrap().content_id();
        let prefix = format!("{:016x}", content.prefix());
        let mut view = RegionView::default();
        let mut hear = |since, generation, added: &[&String], removed: &[&String]| {
            let owned = |list: &[&String]| list.iter().map(|&text| text.clone()).collect();
            let delta = HoldingsDelta {
                cache: "cache4-1".into(),
                generation,
                since,
                added: owned(added),
                removed: owned(removed),
            };
            view.hear(&RegionState { holdings: vec![delta], ..RegionState::default() }, 0);
            (view.holds("cache4-1", content), view.known()[0].generation)
        };
        assert_eq!(hear(None, 5, &[&prefix], &[]), (true, 5));
        assert_eq!(hear(Some(4), 6, &[], &[&prefix]), (true, 5), "a delta on something else is left alone");
        assert_eq!(hear(Some(5), 6, &[], &[&prefix]), (false, 6));
        assert_eq!(hear(None, 1, &[], &[]), (false, 1));
    }

    #[test]
    fn hot_files_have_more_keepers() {
        let mut view = RegionView::default();
        let hot = vec![HotFile { file: "c1/a".into(), spread: 3 }];
        view.hear(&RegionState { hot, ..RegionState::default() }, 0);
        assert_eq!((view.spread("c1/a", 0), view.spread("c1/b", 0)), (3, 1));
    }

    #[test]
    fn while_the_api_is_away_a_sun_spreads_what_it_sees_hot_itself() {
        let mut view = RegionView::default();
        let hot = vec![HotFile { file: "c1/a".into(), spread: 3 }];
        view.hear(&RegionState { hot, ..RegionState::default() }, 0);
        view.see(HashMap::from([("c1/a".to_owned(), 2), ("c1/b".to_owned(), 4)]));
        let spreads = |now_ms| (view.spread("c1/a", now_ms), view.spread("c1/b", now_ms), view.hot(now_ms).count());
        assert_eq!(spreads(WORD_S * 1000 - 1), (3, 1, 1));
        assert_eq!(spreads(WORD_S * 1000), (3, 4, 2));
    }

    fn state(alive: &[&str]) -> RegionState {
        let server = |name: &&str| ServerState {
            name: (*name).to_owned(),
            healthy: true,
            load: Load::default(),
            busy: 1.0,
            rest: None,
        };
        RegionState { servers: alive.iter().map(server).collect(), ..RegionState::default() }
    }
}
