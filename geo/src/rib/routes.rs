//! Routes come and go, within their bounds.

use std::borrow::Cow;
use std::time::Duration;

use ipnet::IpNet;

use crate::feed::PeerId;
use crate::route::Attributes;

use super::interner::{AttributesId, bytes_of};
use super::peer::Worth;
use super::store::{Key, Mark, PeerIndex, Route};
use super::{FeedId, FeedKind, Rib};

impl Rib {
    /// One UPDATE: what it withdraws goes first (RFC 4271 4.3).
    pub(super) fn routes(
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
                let bytes = bytes_of(&attributes);
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
        self.peers.find(feed, id)
    }

    fn announce(&mut self, index: PeerIndex, key: Key, attributes: AttributesId, bytes: u64) {
        let is_new = self.kept_route(index, key).is_none_or(|(_, worth)| worth == Worth::Dead);
        if is_new && !self.has_room(index) {
            return self.refuse(index, key);
        }
        let before = self.kept_route(index, key);
        let had = before.map_or(0, |(route, _)| bytes_of(self.interner.get(route.attributes)));
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
    pub(super) fn forget_route(&mut self, route: Route) {
        let bytes = bytes_of(self.interner.get(route.attributes));
        self.interner.release(route.attributes);
        if let Some(peer) = self.peers.get_mut(route.peer) {
            peer.kept -= 1;
            peer.attribute_bytes -= bytes;
        }
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
