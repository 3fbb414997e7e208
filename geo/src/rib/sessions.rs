//! What becomes of sessions: up, down, lost, told to the end.

use std::time::Duration;

use crate::feed::{Family, PeerId};

use super::store::{PeerIndex, SESSIONS_APART_MAX};
use super::walk::Tell;
use super::{FeedId, FeedKind, Rib, Waiting};

impl Rib {
    /// A peer's session is up.
    pub(super) fn up(&mut self, feed: FeedId, id: &PeerId, now: Duration) {
        if self.feed(feed).is_none_or(|feed| feed.class_of(id).is_none()) {
            self.peers.find(feed, id).into_iter().for_each(|index| self.kill(index, now));
            return self.skip(feed);
        }
        let Some(index) = self.peers.find_or_add(feed, id, self.limits.peers_max) else {
            return self.refuse_peer(feed, id);
        };
        // Without a word of its end the session of before is over all the same, and its routes with it.
        if self.peers.get(index).is_some_and(|peer| peer.up) {
            self.kill(index, now);
        }
        let open = self.feed(feed).is_some_and(|feed| feed.kind == FeedKind::Dump);
        let Some(peer) = self.peers.get_mut(index) else { return };
        peer.begin(now, open);
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
        let Some(slot) = self.feeds.get_mut(usize::from(feed.0)) else { return };
        slot.refusals += 1;
        if slot.refusals > 1 {
            return;
        }
        let router = &slot.feed.name;
        let (address, asn, peers_max) = (id.address, id.asn, self.limits.peers_max);
        tracing::warn!(router, peer = %address, asn, peers_max, "a peer is left out, and so are further ones: there are too many");
    }

    /// Gives a peer the region and class that its feed says. False when the feed says that it is left out.
    pub(super) fn place(&mut self, index: PeerIndex) -> bool {
        let Some(peer) = self.peers.get_mut(index) else { return false };
        let Some(slot) = self.feeds.get(usize::from(peer.feed.0)) else { return false };
        let Some(class) = slot.feed.class_of(&peer.id) else { return false };
        (peer.region, peer.class) = (slot.feed.region, class);
        peer.label = format!("{} peer {} AS{}", slot.feed.name, peer.id.address, peer.id.asn);
        true
    }

    /// A peer's session is down.
    pub(super) fn down(&mut self, feed: FeedId, id: &PeerId, now: Duration) {
        match self.peers.find(feed, id) {
            Some(index) => self.kill(index, now),
            None => self.skip(feed),
        }
    }

    /// All routes of a peer go.
    pub(super) fn kill(&mut self, index: PeerIndex, now: Duration) {
        if self.peers.get_mut(index).is_some_and(|peer| peer.kill(now)) {
            self.walks.want(index, Tell::Changed);
        }
    }

    /// A peer's feed is lost.
    pub(super) fn lose_peer(&mut self, index: PeerIndex, now: Duration) {
        if self.peers.get_mut(index).is_some_and(|peer| peer.up && peer.lose(now)) {
            self.walks.want(index, Tell::Changed);
        }
    }

    /// A peer's table of one family is told whole.
    pub(super) fn end_of_rib(&mut self, feed: FeedId, id: &PeerId, family: Family, now: Duration) {
        let Some(index) = self.peers.find(feed, id) else { return self.skip(feed) };
        let Some(peer) = self.peers.get_mut(index).filter(|peer| peer.up) else { return self.skip(feed) };
        // The other family's table may begin only now.
        peer.heard_at = Some(now);
        if peer.open(family, true) {
            self.walks.want(index, Tell::Changed);
        }
    }

    /// Looks whether everything was told once. A peer that told its table is not waited for again.
    pub(super) fn settle(&mut self, now: Duration) {
        if !self.settled {
            self.settled = (0..self.feeds.len()).all(|index| self.waits_for_feed(index, now).is_none());
        }
    }

    /// Routers that are waited for before [`super::Rib::settled`], in the order in which they are configured.
    #[must_use]
    pub fn waits_for(&self, now: Duration) -> Vec<Waiting> {
        let feeds = if self.settled { 0 } else { self.feeds.len() };
        (0..feeds).filter_map(|index| self.waits_for_feed(index, now)).collect()
    }

    /// What a router has yet to do, and how long it may take. Routers that are not connected are waited for as long as what
    /// they said before the start would count as stale: until then what was saved is better than what is known without them.
    fn waits_for_feed(&self, index: usize, now: Duration) -> Option<Waiting> {
        let slot = self.feeds.get(index).filter(|slot| slot.configured && slot.feed.kind != FeedKind::Dump)?;
        let mut up =
            self.peers.iter().map(|(_, peer)| peer).filter(|peer| usize::from(peer.feed.0) == index && peer.up);
        let (what, until) = match (up.next(), slot.connected) {
            (Some(first), _) => {
                let peer = std::iter::once(first).chain(up).find(|peer| !peer.is_settled(now, self.patience))?;
                let what = format!("to tell all routes of its peer {}", peer.id.address);
                (what, peer.known_since + self.patience)
            }
            (None, true) => ("to tell of a peer".to_owned(), slot.since + self.limits.gate),
            (None, false) => ("to connect".to_owned(), slot.configured_at + self.patience),
        };
        let left = until.checked_sub(now).filter(|left| !left.is_zero())?;
        Some(Waiting { router: slot.feed.name.clone(), what, at_most_s: left.as_millis().div_ceil(1000) as u64 })
    }
}
