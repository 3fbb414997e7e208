//! What a RIB holds, for metrics and for operators.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use crate::feed::{Family, PeerId};
use crate::route::SessionClass;
use crate::topology::RegionId;

use super::peer::{Peer, Side};
use super::{FeedId, FeedSlot, Rib};

/// Sizes of a RIB.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Counts {
    /// IPv4 prefixes with routes.
    pub prefixes_v4: u64,
    /// IPv6 prefixes with routes.
    pub prefixes_v6: u64,
    /// Routes, those that wait for a gate or for clearing up included.
    pub routes: u64,
    /// Different attributes.
    pub attributes: u64,
    /// RAM in bytes, about: routes, prefixes and attributes.
    pub bytes: u64,
    /// Changed prefixes that wait for [`Rib::take_dirty`].
    pub dirty: u64,
}

/// A router that is waited for after a start.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Waiting {
    /// Its name.
    pub router: String,
    /// What it has yet to do, so that it reads well behind its name: "to connect".
    pub what: String,
    /// After so many seconds, rounded up, it is not waited for any more.
    pub at_most_s: u64,
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}, {} s at most", self.router, self.what, self.at_most_s)
    }
}

/// A configured feed.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct FeedState {
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: RegionId,
    /// Whether its router is connected.
    pub connected: bool,
    /// Seconds since it was configured, connected or lost.
    pub since_s: u64,
    /// Events left out: of another view, of peers that are not up, too many, or to be left out.
    pub skipped: u64,
    /// Its peers, by address.
    pub peers: Vec<PeerState>,
}

/// A peer of a feed.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct PeerState {
    /// Its address.
    pub address: IpAddr,
    /// Its routing instance at the router; 0 is the global one.
    pub distinguisher: u64,
    /// Its AS.
    pub asn: u32,
    /// Its class.
    pub class: SessionClass,
    /// Whether it is up.
    pub standing: PeerStanding,
    /// Seconds since then.
    pub since_s: u64,
    /// Prefixes refused in this session because of a limit.
    pub refused: u64,
    /// Its IPv4 routes.
    pub v4: SideState,
    /// Its IPv6 routes.
    pub v6: SideState,
}

/// Whether a peer is up.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerStanding {
    /// Its session is up.
    Up,
    /// Its feed is lost; its routes count for a while.
    Stale,
    /// It has no routes.
    Down,
}

/// Routes of a peer in one family.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct SideState {
    /// Routes, those below included.
    pub routes: u32,
    /// Those of a lost session.
    pub stale: u32,
    /// Those that wait for the end-of-RIB.
    pub held: u32,
    /// Whether this session's end-of-RIB came.
    pub end_of_rib: bool,
}

impl Rib {
    /// Sizes.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let [v4, v6] = self.store.prefixes();
        Counts {
            prefixes_v4: v4 as u64,
            prefixes_v6: v6 as u64,
            routes: self.store.routes() as u64,
            attributes: self.interner.count() as u64,
            bytes: self.store.bytes() + self.interner.bytes(),
            dirty: self.dirty.len() as u64,
        }
    }

    /// Configured feeds and their peers, in the order in which they were configured first.
    #[must_use]
    pub fn states(&self, now: Duration) -> Vec<FeedState> {
        let configured = self.feeds.iter().zip(0..).filter(|(slot, _)| slot.configured);
        configured.map(|(slot, id)| self.feed_state(slot, FeedId(id), now)).collect()
    }

    /// Whether a peer is among those that are kept.
    pub(crate) fn has_peer(&self, feed: FeedId, peer: &PeerId) -> bool {
        self.peers.find(feed, peer).is_some()
    }

    /// Prefixes of a feed's peers that were refused because of a limit.
    pub(crate) fn refused_of(&self, feed: FeedId) -> u64 {
        let peers = self.peers.of_feed(feed).into_iter().filter_map(|index| self.peers.get(index));
        peers.map(|peer| peer.refused).sum()
    }

    fn feed_state(&self, slot: &FeedSlot, id: FeedId, now: Duration) -> FeedState {
        let peers = self.peers.of_feed(id);
        FeedState {
            name: slot.feed.name.clone(),
            region: slot.feed.region,
            connected: slot.connected,
            since_s: now.saturating_sub(slot.since).as_secs(),
            skipped: slot.skipped,
            peers: peers.into_iter().filter_map(|index| Some(peer_state(self.peers.get(index)?, now))).collect(),
        }
    }
}

fn peer_state(peer: &Peer, now: Duration) -> PeerState {
    let side = |family: Family| side_state(&peer.sides[family as usize], peer.up);
    PeerState {
        address: peer.id.address,
        distinguisher: peer.id.distinguisher,
        asn: peer.id.asn,
        class: peer.class,
        standing: match (peer.up, peer.routes()) {
            (true, _) => PeerStanding::Up,
            (false, 0) => PeerStanding::Down,
            (false, _) => PeerStanding::Stale,
        },
        since_s: now.saturating_sub(peer.since).as_secs(),
        refused: peer.refused,
        v4: side(Family::V4),
        v6: side(Family::V6),
    }
}

fn side_state(side: &Side, up: bool) -> SideState {
    let routes = side.fresh + side.old;
    SideState { routes, stale: if up { side.old } else { routes }, held: side.held, end_of_rib: side.ended }
}
