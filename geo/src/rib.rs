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
//! In reading order: `feeds` and `configure` (what is configured, and the bounds), `peer` (the life of a peer), `store` and
//! `interner` (where routes are kept), `walk` (clearing up), `state` (what operators see).
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
mod state;
mod store;
#[cfg(test)]
mod tests;
mod walk;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::IpNet;

use crate::feed::{Event, Family, PeerId, View};
use crate::route::{Attributes, Heard};

pub use feeds::{Feed, FeedId, FeedKind, Fits, Limits, PeerClass};
pub use state::{Counts, FeedState, PeerState, SideState, Standing};

use interner::{AttributesId, Interner};
use peer::{Peer, Peers, Worth};
use store::{Key, Mark, PeerIndex, Route, SESSIONS_APART_MAX, Store};
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
    settled: bool,
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
    /// Events that were left out: of other views, of peers that are not up, of peers beyond the limit.
    skipped: u64,
}

impl Rib {
    /// Nothing is heard yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            feeds: Vec::new(),
            peers: Peers::default(),
            store: Store::default(),
            interner: Interner::default(),
            walks: Walks::default(),
            dirty: BTreeSet::new(),
            settled: false,
            slice: SLICE,
        }
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
            Event::EndOfRib { peer, view, family } if *view == wanted => self.end_of_rib(feed, peer, *family),
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

    /// About how many prefixes [`Rib::take_dirty`] would still tell, never less than it would: whether it is better to begin anew from
    /// [`Rib::prefixes`].
    #[must_use]
    pub fn dirty_at_most(&self) -> usize {
        let concerned = self.peers.iter().filter(|(index, _)| self.walks.concern(*index));
        self.dirty.len() + concerned.map(|(_, peer)| peer.kept as usize).sum::<usize>()
    }

    /// Forgets what is dirty: for a reader that looks at everything now, by [`Rib::prefixes`] and [`Rib::heard`].
    pub fn take_everything(&mut self) {
        self.dirty.clear();
        self.walks.hush();
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

    /// Whether every feed has told what it has, once: each that is connected up to its peers' ends-of-RIB, or was waited for as long as
    /// [`Limits::gate`]. Before that, what the RIB knows is too little to be published. Stays so.
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

    fn up(&mut self, feed: FeedId, id: &PeerId, now: Duration) {
        let Some(index) = self.peers.find_or_add(feed, id, self.limits.peers_max) else {
            return self.refuse_peer(feed, id);
        };
        // Without a word of its end the session of before is over all the same, and its routes with it.
        if self.peers.get(index).is_some_and(|peer| peer.up) {
            self.kill(index, now);
        }
        let Some(peer) = self.peers.get_mut(index) else { return };
        peer.begin(now, false);
        peer.id = *id;
        if peer.session % SESSIONS_APART_MAX == 0 {
            peer.set_apart();
            self.walks.want(index, Tell::Changed);
            self.finish_walks();
        }
        self.place(index);
    }

    fn refuse_peer(&mut self, feed: FeedId, id: &PeerId) {
        self.skip(feed);
        let router = self.feed(feed).map_or("", |feed| &feed.name);
        let (address, asn, peers_max) = (id.address, id.asn, self.limits.peers_max);
        tracing::warn!(router, peer = %address, asn, peers_max, "a peer is left out: there are too many");
    }

    /// Gives a peer the region and class that its feed says.
    fn place(&mut self, index: PeerIndex) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let Some(slot) = self.feeds.get(usize::from(peer.feed.0)) else { return };
        (peer.region, peer.class) = (slot.feed.region, slot.feed.class_of(&peer.id));
        peer.label = format!("{} peer {} AS{}", slot.feed.name, peer.id.address, peer.id.asn);
    }

    fn down(&mut self, feed: FeedId, id: &PeerId, now: Duration) {
        match self.peers.find(feed, id) {
            Some(index) => self.kill(index, now),
            None => self.skip(feed),
        }
    }

    fn kill(&mut self, index: PeerIndex, now: Duration) {
        if self.peers.get_mut(index).is_some_and(|peer| peer.kill(now)) {
            self.walks.want(index, Tell::Changed);
        }
    }

    fn lose_peer(&mut self, index: PeerIndex, now: Duration) {
        let Some(peer) = self.peers.get(index).filter(|peer| peer.up) else { return };
        // A second session that broke before its gate opened: what is left of the first one must be cleared up before.
        if peer.sides.iter().any(|side| side.unopened.is_some()) {
            self.finish_walks();
        }
        if self.peers.get_mut(index).is_some_and(|peer| peer.lose(now)) {
            self.walks.want(index, Tell::Changed);
        }
    }

    fn end_of_rib(&mut self, feed: FeedId, id: &PeerId, family: Family) {
        let Some(index) = self.peers.find(feed, id) else { return self.skip(feed) };
        let Some(peer) = self.peers.get_mut(index).filter(|peer| peer.up) else { return self.skip(feed) };
        if peer.open(family, true) {
            self.walks.want(index, Tell::Changed);
        }
    }

    fn routes(
        &mut self,
        feed: FeedId,
        id: &PeerId,
        announced: &[IpNet],
        withdrawn: &[IpNet],
        attributes: Option<&Attributes>,
        now: Duration,
    ) {
        let Some(index) = self.session_of(feed, id, now) else { return self.skip(feed) };
        if let Some(peer) = self.peers.get_mut(index) {
            peer.heard_at = Some(now);
        }
        for prefix in withdrawn {
            self.withdraw(index, Key::from(prefix));
        }
        let Some(attributes) = attributes.filter(|_| !announced.is_empty()) else {
            announced.iter().for_each(|prefix| self.withdraw(index, Key::from(prefix)));
            return;
        };
        let attributes = without_own_as(attributes, id);
        match self.interner.hold(&attributes, self.limits.attribute_bytes_max) {
            Some(id) => {
                let bytes = interner::bytes_of(&attributes);
                announced.iter().for_each(|prefix| self.announce(index, Key::from(prefix), id, bytes));
                self.interner.release(id);
            }
            None => announced.iter().for_each(|prefix| self.refuse(index, Key::from(prefix))),
        }
    }

    /// The peer, if its session is up. Those of dumps come up by themselves.
    fn session_of(&mut self, feed: FeedId, id: &PeerId, now: Duration) -> Option<PeerIndex> {
        let is_up = |rib: &Self, index: &PeerIndex| rib.peers.get(*index).is_some_and(|peer| peer.up);
        if let Some(index) = self.peers.find(feed, id).filter(|index| is_up(self, index)) {
            return Some(index);
        }
        if self.feed(feed)?.kind == FeedKind::Live {
            return None;
        }
        self.up(feed, id, now);
        let index = self.peers.find(feed, id)?;
        let peer = self.peers.get_mut(index)?;
        peer.sides.iter_mut().for_each(|side| side.open = true);
        Some(index)
    }

    fn announce(&mut self, index: PeerIndex, key: Key, attributes: AttributesId, bytes: u64) {
        let is_new = self.kept_route(index, key).is_none_or(|(_, worth)| worth == Worth::Dead);
        if is_new && !self.has_room(index) {
            return self.refuse(index, key);
        }
        let before = self.kept_route(index, key);
        let had = before.map_or(0, |(route, _)| interner::bytes_of(self.interner.get(route.attributes)));
        let Some(peer) = self.peers.get_mut(index) else { return };
        let attribute_bytes = peer.attribute_bytes - had + bytes;
        if attribute_bytes > self.limits.peer_attribute_bytes_max {
            return self.refuse(index, key);
        }
        let (session, side) = (peer.session, &mut peer.sides[key.family() as usize]);
        let worth = before.map_or(Worth::Dead, |(_, worth)| worth);
        let held = worth == Worth::Held || (worth == Worth::Dead && !side.open);
        side.count_announced(worth, before.map(|(route, _)| route.mark.session(session)), session, held);
        peer.attribute_bytes = attribute_bytes;
        self.interner.hold_again(attributes);
        let mark = Mark::new(session, held);
        if let Some(route) = self.store.get_mut(key, index) {
            (route.mark, route.attributes) = (mark, attributes);
        } else {
            peer.kept += 1;
            self.store.insert(key, Route::new(index, mark, attributes));
        }
        // Where a dead one was, its end may not be told; of one that was held, that it counts now.
        let is_told = |route: &Route| route.attributes == attributes && !route.mark.held();
        let same = before.is_some_and(|(route, worth)| worth == Worth::Counts && is_told(&route));
        let had_dead = before.is_some() && worth == Worth::Dead;
        if (!held && !same) || had_dead {
            self.dirty.insert(key);
        }
        if let Some((route, _)) = before {
            self.interner.release(route.attributes);
        }
    }

    /// A peer's route to a prefix and what it is worth.
    fn kept_route(&mut self, index: PeerIndex, key: Key) -> Option<(Route, Worth)> {
        let (peer, route) = (self.peers.get(index)?, *self.store.get_mut(key, index)?);
        Some((route, peer.worth(key.family(), route.mark)))
    }

    /// Whether a peer may have one prefix more.
    fn has_room(&mut self, index: PeerIndex) -> bool {
        let Some(peer) = self.peers.get(index) else { return false };
        let prefixes_max = self.feed(peer.feed).and_then(|feed| feed.prefixes_max).unwrap_or(self.limits.prefixes_max);
        if peer.routes() >= prefixes_max {
            return false;
        }
        let full = |rib: &Self| rib.store.routes() >= rib.limits.routes_max as usize;
        if full(self) && self.walks.pending() {
            self.finish_walks();
        }
        !full(self)
    }

    /// A prefix is not taken, and what the peer said of it before is no longer so.
    fn refuse(&mut self, index: PeerIndex, key: Key) {
        self.withdraw(index, key);
        let Some(peer) = self.peers.get_mut(index) else { return };
        peer.refused += 1;
        if peer.refused == 1 {
            let (peer, prefix, routes) = (&peer.label, IpNet::from(key), peer.routes());
            tracing::warn!(peer, %prefix, routes, "a peer's further prefixes are refused: it has too many");
        }
    }

    fn withdraw(&mut self, index: PeerIndex, key: Key) {
        let mut gone = None;
        self.store.remove_where(key, |route| route.peer == index, |route| gone = Some(route));
        let (Some(route), Some(peer)) = (gone, self.peers.get_mut(index)) else { return };
        let worth = peer.worth(key.family(), route.mark);
        let is_fresh = route.mark.session(peer.session) == peer.session;
        peer.sides[key.family() as usize].count_withdrawn(worth, is_fresh);
        self.forget_route(route);
        // The end of a dead one may not be told.
        if worth != Worth::Held {
            self.dirty.insert(key);
        }
    }

    /// What a route that was taken out of the store held.
    fn forget_route(&mut self, route: Route) {
        let bytes = interner::bytes_of(self.interner.get(route.attributes));
        self.interner.release(route.attributes);
        if let Some(peer) = self.peers.get_mut(route.peer) {
            peer.kept -= 1;
            peer.attribute_bytes -= bytes;
        }
    }

    /// Looks whether everything was told once. A peer that comes up again and again is waited for only the first time.
    fn settle(&mut self, now: Duration) {
        if self.settled {
            return;
        }
        self.settled = self.feeds.iter().enumerate().all(|(index, slot)| {
            if !slot.configured || slot.feed.kind == FeedKind::Dump {
                return true;
            }
            let own = |peer: &&Peer| usize::from(peer.feed.0) == index && peer.up;
            let mut up = self.peers.iter().map(|(_, peer)| peer).filter(own).peekable();
            let is_over = now.saturating_sub(slot.configured_at) >= self.limits.gate;
            (is_over || up.peek().is_some()) && up.all(|peer| peer.session > 1 || peer.is_settled())
        });
    }
}

/// FRR (8.4.4) puts its own AS before the path that a peer sent, which makes it one longer than others' and of another
/// neighbour. Nobody else's path has the peer's AS in the second place and not in the first: a peer begins its paths
/// with its own AS, except a route server, which is in none.
fn without_own_as<'a>(attributes: &'a Attributes, peer: &PeerId) -> Cow<'a, Attributes> {
    match &*attributes.as_path {
        [first, path @ ..] if *first != peer.asn && path.first() == Some(&peer.asn) => Cow::Owned(Attributes {
            as_path: path.into(),
            path_length: attributes.path_length.saturating_sub(1),
            ..attributes.clone()
        }),
        _ => Cow::Borrowed(attributes),
    }
}

/// Slices of one call of [`Rib::take_dirty`].
const STEPS: usize = 4;
