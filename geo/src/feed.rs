//! What feeds tell of peers and their routes.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::route::Attributes;

/// A peer of a router.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PeerId {
    /// Its address.
    pub address: IpAddr,
    /// Which of the router's routing instances it is in.
    pub distinguisher: u64,
    /// Its AS.
    pub asn: u32,
}

/// Which of a router's tables routes are of.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum View {
    /// What the peer sent.
    PrePolicy,
    /// What the router's policy left of it.
    PostPolicy,
    /// What the router chose.
    LocRib,
    /// What it sends on.
    AdjOut,
}

/// Address family.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// The router tells its name.
    Initiation {
        /// sysName.
        name: Option<String>,
        /// sysDescr.
        description: Option<String>,
    },
    /// A peer's session is up.
    Up {
        /// Which.
        peer: PeerId,
        /// Of what.
        view: View,
        /// BGP identifier.
        bgp_id: std::net::Ipv4Addr,
        /// Families with path identifiers.
        add_path: Vec<Family>,
    },
    /// A peer's session is down.
    Down {
        /// Which.
        peer: PeerId,
        /// Of what.
        view: View,
        /// Why.
        reason: &'static str,
    },
    /// Routes came or went.
    Routes {
        /// Whose.
        peer: PeerId,
        /// Of which table.
        view: View,
        /// What there is now.
        announced: Vec<IpNet>,
        /// What there is no more.
        withdrawn: Vec<IpNet>,
        /// Of those announced.
        attributes: Option<Attributes>,
    },
    /// The peer's table is told whole.
    EndOfRib {
        /// Whose.
        peer: PeerId,
        /// Of which table.
        view: View,
        /// Of which family.
        family: Family,
    },
    /// The router ends the session.
    Termination {
        /// Why.
        reason: String,
    },
    /// Attributes were malformed.
    Malformed {
        /// Whose.
        peer: PeerId,
        /// Of which table.
        view: View,
        /// What.
        what: &'static str,
        /// Where.
        offset: u64,
    },
    /// Nothing of interest.
    Ignored(Ignored),
}

/// What is not looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ignored {
    /// Counters.
    Statistics,
}
