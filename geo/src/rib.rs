//! What all routers hear, prefix by prefix, and what of it counts now.
//!
//! ```text
//!   feed, event, now --apply--> peers: what a route of theirs is worth (up, gate, stale)
//!          lost                 store: prefix -> routes (peer, mark, attributes), attributes kept once
//!          tick                 walks: what concerns a whole peer, a slice at a time
//!                                 |
//!                                 +--take_dirty--> prefixes whose routes changed --heard--> choice
//! ```
//!
//! In reading order: `feeds` and `configure` (what is configured, and the bounds), `peer` (what a peer's routes are worth),
//! `sessions` (up, down, lost), `routes` (come and go), `store` and `interner` (where they are kept), `walk` (clearing
//! up), `state` (what operators see).
//!
//! # Invariants
//!
//! - **What counts is known at once, what is told comes in slices.** [`Rib::heard`] is right after every event; no call
//!   but [`Rib::take_everything`]'s reader does work for a whole table.
//! - A peer's routes count only when its table was told to the end once: half a table would send clients by its covering
//!   prefixes. The end is an end-of-RIB (RFC 4724, by family), or a pause of [`Limits::quiet`], or
//!   [`Limits::gate`]: gobgpd 3.10 sends no end-of-RIB at all, FRR 8.4 none for a peer that comes up while it is connected. What is said again of a stale route counts at once:
//!   it is the same peer's newer word.
//! - A lost feed makes its routes stale, not gone, for [`Limits::stale`]. A peer that its router says is down has none. Routes that
//!   never counted do not begin to because their session broke.
//! - Staleness alone makes no prefix dirty: it is told for people and does not change a choice.
//! - Pure: time comes in, nothing is waited for. Memory is bounded by [`Limits`]; what is refused is counted.

mod configure;
mod feeds;
mod interner;
mod peer;
mod routes;
mod sessions;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::IpNet;

use crate::feed::{Event, Family, View};
use crate::route::Heard;

pub use feeds::{Feed, FeedId, FeedKind, Fits, Limits, PeerClass};
pub use state::{Counts, FeedState, PeerStanding, PeerState, SideState, Waiting};

use interner::Interner;
use peer::{Peers, Worth};
use store::{Key, PeerIndex, Route, Store};
use walk::{SLICE, Tell, Walks};

/// All routes of all feeds.
#[derive(Debug)]
pub struct Rib {
    limits: Limits,
    feeds: Vec<FeedSlot>,
    peers: Peers,
    store: Store,
    interner: Interner,
    walks: Walks,
    /// Changed prefixes that were not taken.
    dirty: BTreeSet<Key>,
    /// So many changed, or nobody looked at anything yet, that the reader has to look at everything: nothing is collected.
    overflowed: bool,
    /// Changed prefixes that are kept, beyond as many as there are prefixes.
    dirty_max: usize,
    settled: bool,
    /// How long routers that are not connected are waited for: with a saved table never shorter than without one.
    patience: Duration,
    /// Prefixes that a walk looks at in one go.
    slice: usize,
}

/// A feed that is, or was, configured.
#[derive(Debug)]
struct FeedSlot {
    feed: Feed,
    configured: bool,
    configured_at: Duration,
    connected: bool,
    /// When it was configured, connected or lost.
    since: Duration,
    /// Events that were left out: of other views, of peers that are not up, are to be left out, or are beyond the limit.
    skipped: u64,
    /// How often a peer was left out because there were too many.
    refusals: u64,
}

impl Rib {
    /// Nothing is heard yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            patience: limits.stale.max(limits.gate),
            limits,
            feeds: Vec::new(),
            peers: Peers::default(),
            store: Store::default(),
            interner: Interner::default(),
            walks: Walks::default(),
            dirty: BTreeSet::new(),
            overflowed: true,
            dirty_max: DIRTY_MAX,
            settled: false,
            slice: SLICE,
        }
    }

    /// Nothing that is better was saved: routers that are not connected are waited for no longer than [`Limits::gate`].
    pub const fn has_nothing_saved(&mut self) {
        self.patience = self.limits.gate;
    }

    /// What happened at a feed. Events of feeds that are not configured, of other views than the feed's, and routes of
    /// peers that are not up are left out and counted.
    pub fn apply(&mut self, feed: FeedId, event: &Event, now: Duration) {
        let Some(configured) = self.feed(feed) else { return };
        let (wanted, wants_peer) = (configured.view, |view: View| configured.wants_peer(view));
        match event {
            Event::Up { peer, view, .. } if wants_peer(*view) => self.up(feed, peer, now),
            Event::Down { peer, view, .. } if wants_peer(*view) => self.down(feed, peer, now),
            Event::Routes { peer, view, announced, withdrawn, attributes } if *view == wanted => {
                self.routes(feed, peer, announced, withdrawn, attributes.as_ref(), now);
            }
            Event::EndOfRib { peer, view, family } if *view == wanted => self.end_of_rib(feed, peer, *family, now),
            Event::Up { .. } | Event::Down { .. } | Event::Routes { .. } | Event::EndOfRib { .. } => self.skip(feed),
            Event::Initiation { .. } | Event::Malformed { .. } | Event::Termination { .. } | Event::Ignored(_) => {}
        }
        if matches!(event, Event::Up { .. } | Event::Down { .. } | Event::EndOfRib { .. }) {
            self.settle(now);
        }
    }

    /// A feed's connection ended: its routes become stale. Its peers come up anew when it is back.
    pub fn lost(&mut self, feed: FeedId, now: Duration) {
        if let Some(slot) = self.feeds.get_mut(usize::from(feed.0)) {
            (slot.connected, slot.since) = (false, now);
        }
        for index in self.peers.of_feed(feed) {
            self.lose_peer(index, now);
        }
        self.settle(now);
    }

    /// What time brings: gates that waited too long open, stale routes that are over go. To be called each second or so.
    pub fn tick(&mut self, now: Duration) {
        let indices: Vec<PeerIndex> = self.peers.iter().map(|(index, _)| index).collect();
        for index in indices {
            let Some(peer) = self.peers.get_mut(index) else { continue };
            let mut changed = peer.expire(now, self.limits.stale);
            if peer.up && peer.is_told(now, &self.limits) {
                changed |= peer.open(Family::V4, false) | peer.open(Family::V6, false);
            }
            let over = !peer.up && peer.kept == 0 && now.saturating_sub(peer.since) >= self.limits.stale;
            if changed {
                self.walks.want(index, Tell::Changed);
            } else if over && !self.walks.concern(index) {
                self.peers.remove(index);
            }
        }
        self.settle(now);
    }

    /// Up to `max` prefixes whose routes changed since they were last taken, after at most some milliseconds of clearing
    /// up. May be empty while [`Rib::pending`]: then the lock can be let go before the next call.
    pub fn take_dirty(&mut self, max: usize) -> Vec<IpNet> {
        for _ in 0..STEPS {
            if self.dirty.len() >= max || !self.step(self.slice) {
                break;
            }
        }
        let mut taken = Vec::with_capacity(max.min(self.dirty.len()));
        while taken.len() < max
            && let Some(key) = self.dirty.pop_first()
        {
            taken.push(IpNet::from(key));
        }
        taken
    }

    /// Whether [`Rib::take_dirty`] has more to do.
    #[must_use]
    pub fn pending(&self) -> bool {
        !self.dirty.is_empty() || self.walks.pending()
    }

    /// About how many prefixes [`Rib::take_dirty`] would still tell, never less than it would: whether it is better to
    /// take in no more before some were taken.
    #[must_use]
    pub fn dirty_at_most(&self) -> usize {
        let concerned = self.peers.iter().filter(|(index, _)| self.walks.concern(*index));
        self.dirty.len() + concerned.map(|(_, peer)| peer.kept as usize).sum::<usize>()
    }

    /// Forgets what is dirty: for a reader that looks at everything now, by [`Rib::prefixes`] and [`Rib::heard`].
    pub fn take_everything(&mut self) {
        self.dirty.clear();
        self.overflowed = false;
        self.walks.hush();
    }

    /// Whether [`Rib::take_dirty`] cannot tell what changed: nobody called [`Rib::take_everything`] yet, or more prefixes changed
    /// and went since than are kept in mind. Until that call nothing is told.
    #[must_use]
    pub const fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// A prefix changed.
    fn touch(&mut self, key: Key) {
        if self.overflowed {
            return;
        }
        self.dirty.insert(key);
        if self.dirty.len() > self.dirty_max + self.store.prefixes().iter().sum::<usize>() {
            self.overflowed = true;
            self.dirty = BTreeSet::new();
        }
    }

    /// Adds the routes to exactly this prefix that count, by peer.
    pub fn heard<'a>(&'a self, prefix: &IpNet, out: &mut Vec<Heard<'a>>) {
        let key = Key::from(prefix);
        out.extend(self.store.routes_to(key).filter_map(|route| self.as_heard(key.family(), route)));
    }

    /// Every prefix that has a route that counts: IPv4 first, covering ones before what they cover.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        let counts = |family, route: &Route| {
            self.peers.get(route.peer).is_some_and(|peer| peer.worth(family, route.mark) == Worth::Counts)
        };
        let counting = self
            .store
            .iter()
            .filter_map(move |(key, mut routes)| routes.any(|route| counts(key.family(), route)).then_some(key));
        counting.map(IpNet::from)
    }

    /// Whether every feed has told what it has, once: each that is connected up to its peers' ends-of-RIB; one without a peer was
    /// waited for as long as [`Limits::gate`], one that is not connected as long as [`Limits::stale`] (or the gate, if
    /// that is longer), and so is a peer that comes up again and again and never tells its table. Before that, what the
    /// RIB knows is too little to be published. Stays so.
    #[must_use]
    pub const fn settled(&self) -> bool {
        self.settled
    }

    fn as_heard(&self, family: Family, route: &Route) -> Option<Heard<'_>> {
        let peer = self.peers.get(route.peer)?;
        (peer.worth(family, route.mark) == Worth::Counts).then(|| Heard {
            region: peer.region,
            class: peer.class,
            attributes: self.interner.get(route.attributes),
            stale: peer.is_stale(route.mark),
            listed: false,
            source: &peer.label,
        })
    }

    fn feed(&self, feed: FeedId) -> Option<&Feed> {
        self.feeds.get(usize::from(feed.0)).filter(|slot| slot.configured).map(|slot| &slot.feed)
    }

    fn skip(&mut self, feed: FeedId) {
        if let Some(slot) = self.feeds.get_mut(usize::from(feed.0)) {
            slot.skipped += 1;
        }
    }
}

/// Slices of one call of [`Rib::take_dirty`].
const STEPS: usize = 4;

/// Changed prefixes beyond those that there are: a peer that announces and withdraws ever others must not grow it without end.
const DIRTY_MAX: usize = 1 << 20;
