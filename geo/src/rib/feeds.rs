//! The feeds a RIB knows: which region and class their peers' routes are of.

use std::net::IpAddr;
use std::time::Duration;

use crate::feed::{PeerId, View};
use crate::route::SessionClass;
use crate::topology::RegionId;

/// A feed that a [`super::Rib`] was told of. A name keeps its id for as long as the RIB lives; ids are not used again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FeedId(pub u16);

/// A router, or a dump of one: where it stands and what its peers are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Feed {
    /// For people, and what the feed is known by when the config is read again.
    pub name: String,
    /// Whose clients are served from where this router stands.
    pub region: RegionId,
    /// Class of peers that no entry of `peers` is of.
    pub class: SessionClass,
    /// Classes of single peers: the first that fits an address, else the first that fits an AS.
    pub peers: Vec<PeerClass>,
    /// The one of the router's tables that counts; messages about the others are left out.
    pub view: View,
    /// Prefixes of one peer, both families; none: [`super::Limits::prefixes_max`].
    pub prefixes_max: Option<u32>,
    /// How its routes come.
    pub kind: FeedKind,
}

impl Feed {
    /// The class of a peer's routes.
    #[must_use]
    pub fn class_of(&self, peer: &PeerId) -> SessionClass {
        let by_address = self.peers.iter().find(|class| class.fits == Fits::Address(peer.address));
        let named = by_address.or_else(|| self.peers.iter().find(|class| class.fits == Fits::As(peer.asn)));
        named.map_or(self.class, |named| named.class)
    }

    /// Whether an event about a peer itself concerns the table that counts. A session's end and begin are told once for
    /// all of a peer's tables (RFC 7854 4.2, RFC 8671 5.2 and 5.3); the local RIB is a peer of its own (RFC 9069 4.1).
    pub(super) fn wants_peer(&self, view: View) -> bool {
        (self.view == View::LocRib) == (view == View::LocRib)
    }
}

/// How a feed's routes come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FeedKind {
    /// BMP: peers come up, tell their tables up to an end-of-RIB, and can be lost.
    Live,
    /// A dump: peers are there with their first route, which counts at once and stays until the feed is forgotten.
    Dump,
}

/// The class of a peer, or of the peers of an AS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PeerClass {
    /// Which peers.
    pub fits: Fits,
    /// Their class.
    pub class: SessionClass,
}

/// What a peer is told by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fits {
    /// Its address in the BGP session.
    Address(IpAddr),
    /// Its AS.
    As(u32),
}

/// Bounds of a RIB.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Peers of all feeds together, lost ones included. More are refused.
    pub peers_max: u16,
    /// Prefixes of one peer, both families. Further ones are refused and counted; the peer stays.
    pub prefixes_max: u32,
    /// Routes of all peers together. Further ones are refused and counted.
    pub routes_max: u32,
    /// Bytes of the attributes of one peer's routes, counted as though no two routes shared theirs.
    pub peer_attribute_bytes_max: u64,
    /// Bytes of all attributes, as they are kept: equal ones once.
    pub attribute_bytes_max: u64,
    /// How long routes of a lost feed count, and how long a feed that never connected is waited for before [`super::Rib::settled`].
    pub stale: Duration,
    /// A peer that told routes and then none for so long has told its table, also without an end-of-RIB. Too small: a router
    /// that pauses is believed with half a table. Too large: with routers that send no end-of-RIB, peers that come up wait for so long.
    pub quiet: Duration,
    /// How long a peer's routes wait for its end-of-RIB, or such a pause, before they count without.
    pub gate: Duration,
}

/// Three full tables of all regions' routers, at about 1 GB.
impl Default for Limits {
    fn default() -> Self {
        Self {
            peers_max: 4096,
            prefixes_max: 2_000_000,
            routes_max: 16_000_000,
            peer_attribute_bytes_max: 1 << 30,
            attribute_bytes_max: 2 << 30,
            stale: Duration::from_secs(900),
            quiet: Duration::from_secs(10),
            gate: Duration::from_secs(120),
        }
    }
}
