//! What routers and dumps say, decoded into events. Pure: bytes in, events out; no socket, no clock.
//!
//! ```text
//!   TCP ---[framing]---> message ---[bmp]----+--> [update] --> [attributes] --+
//!                                            |        +------> [nlri] --------+--> Event, for the RIB
//!   file --[input]--> plain ---[mrt]---------+                                |
//!          gzip, bzip2 by their magic                Initiation, Up, Down, End-of-RIB
//! ```
//!
//! **What comes in is hostile.** Nothing here indexes a slice: a [`Reader`](reader) gives bytes or says what is missing
//! and where. Every error names its offset and, once it is known, the peer. Memory follows from the input's length:
//! a BMP message is at most [`framing::MESSAGE_BYTES_MAX`] (an option), an MRT record at most [`mrt::RECORD_BYTES_MAX`];
//! a prefix takes at least one byte of it and 18 in RAM, an AS number or a community at least two and at most 16, at most
//! [`attributes::AS_PATH_MAX`] and [`attributes::COMMUNITIES_MAX`] of them; a dump is decoded route by route, so one record and one route
//! are in RAM at a time.
//!
//! **Two kinds of wrong.** Malformed attributes of an UPDATE withdraw its routes (RFC 7606, treat-as-withdraw) and are told by
//! [`Event::Malformed`]. What leaves it unknown *which* routes are meant is a [`FeedError`]; when its frame was whole, what
//! follows can still be read ([`FeedError::in_step`]).
//!
//! **Sessions within an AS** tell what was heard elsewhere: a router that passed a route on inside its AS heard it where *it*
//! stands, and the one that got it would make its own region hear it. A BMP peer of the router's own AS is left out and counted
//! ([`Ignored::Internal`]); the router's own table (RFC 9069) is not a session.
//!
//! **Add-path** (RFC 7911): a peer with several paths to a prefix needs path identifiers in the RIB, which has none. Routes
//! that a BMP peer tells this way are ignored and counted ([`Ignored::AddPath`]), never misread; of a dump's paths of one peer the first
//! is taken.
//!
//! **Attribute flags** are not judged: the router that sent them on has done so, and nothing here is sent on.
//!
//! Why not bgpkit-parser 0.23, which decodes all of this and never panicked on 17 million mutated messages: it guesses. A
//! list of prefixes that contains 0.0.0.0/0 is tried as add-path first, so that a router's default route turns the
//! prefixes behind it into others or into an error; an attribute longer than the rest is left out with a log line, which
//! RFC 7606 wants to be a withdrawal; a dump's record ends silently at its first broken entry; a broken withdrawal without
//! attributes reads as End-of-RIB; no error has an offset. It stays as the tests' independent second opinion and as their encoder.

pub mod attributes;
pub mod bmp;
pub mod framing;
pub mod fuzz;
mod input;
pub mod mrt;
mod nlri;
mod open;
mod reader;
mod update;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::route::Attributes;

pub use bmp::{Decoder, bmp};
pub use framing::Framing;
pub use mrt::{Mrt, mrt};

use reader::Fault;

/// A router's neighbour, as the feed names it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PeerId {
    /// Its address; `0.0.0.0` for the router's own table (RFC 9069 4.1).
    pub address: IpAddr,
    /// Tells neighbours of several routing instances with equal addresses apart (RFC 7854 4.2); 0 is the global instance.
    pub distinguisher: u64,
    /// Its AS. It is not part of the identity, but one session never changes it.
    pub asn: u32,
}

impl PeerId {
    /// What tells peers of one router apart.
    #[must_use]
    pub const fn identity(&self) -> (IpAddr, u64) {
        (self.address, self.distinguisher)
    }
}

/// `192.0.2.1 (AS64500)`, with the distinguisher in hex when there is one.
impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.distinguisher {
            0 => write!(f, "{} (AS{})", self.address, self.asn),
            distinguisher => write!(f, "{} (AS{}, {distinguisher:#x})", self.address, self.asn),
        }
    }
}

/// Which of a router's tables a route was seen in. A router that sends several tells every route as often.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum View {
    /// As the peer sent it (RFC 7854, Adj-RIB-In). Dumps count as this.
    PrePolicy,
    /// After the router's own import rules (RFC 7854, the L flag).
    PostPolicy,
    /// The routes that the router itself chose (RFC 9069).
    LocRib,
    /// What the router tells the peer (RFC 8671), before or after its export rules.
    AdjOut,
}

/// Of addresses.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Family {
    /// IPv4 unicast.
    V4,
    /// IPv6 unicast.
    V6,
}

/// What happened at a router.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// The router introduces itself (RFC 7854 4.3). Text is at most [`bmp::TEXT_CHARS_MAX`] characters, without control characters.
    Initiation {
        /// `sysName`.
        name: Option<String>,
        /// `sysDescr`.
        description: Option<String>,
    },
    /// A session with a peer is up; its routes follow.
    Up {
        /// Whose.
        peer: PeerId,
        /// [`View::LocRib`], or whatever else the flags said: one Up stands for all views of a peer's own session (RFC 7854 4.10, RFC 8671 5).
        view: View,
        /// The peer's BGP identifier; unspecified in dumps.
        bgp_id: Ipv4Addr,
        /// Families whose routes are ignored because the session has add-path for them.
        add_path: Vec<Family>,
    },
    /// The session is gone, and its routes with it.
    Down {
        /// Whose.
        peer: PeerId,
        /// As for [`Event::Up`].
        view: View,
        /// Why, in words (RFC 7854 4.9).
        reason: &'static str,
    },
    /// Routes changed. What is withdrawn is to be applied first: a prefix in both is announced (RFC 4271 4.3).
    Routes {
        /// Who told.
        peer: PeerId,
        /// Where it was seen.
        view: View,
        /// Prefixes without host bits, both families; replaces what the peer told of them before.
        announced: Vec<IpNet>,
        /// Likewise; the peer has no route to them any more.
        withdrawn: Vec<IpNet>,
        /// Of what is announced; none exactly when nothing is.
        attributes: Option<Attributes>,
    },
    /// Everything the peer knows has been told once (RFC 4724 2).
    EndOfRib {
        /// By whom.
        peer: PeerId,
        /// Of which table.
        view: View,
        /// Of which family.
        family: Family,
    },
    /// Attributes were malformed. If routes were announced with them, the event after this withdraws them.
    Malformed {
        /// By whom.
        peer: PeerId,
        /// Where it was seen.
        view: View,
        /// What is wrong.
        what: &'static str,
        /// Where: bytes from the start of the message, or of the (unpacked) dump.
        offset: u64,
    },
    /// The router ends the session (RFC 7854 4.5).
    Termination {
        /// Why, in words.
        reason: String,
    },
    /// Something was said that nobody here needs.
    Ignored(Ignored),
}

/// What is not looked at.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Ignored {
    /// A router's counters (RFC 7854 4.8).
    Statistics,
    /// A copy of a session's messages (RFC 7854 4.7).
    Mirroring,
    /// Routes of other kinds than IPv4 and IPv6 unicast.
    Family,
    /// Routes with path identifiers (RFC 7911).
    AddPath,
    /// Sessions within a router's own AS, and what they tell: it was heard where another router stands.
    Internal,
    /// Types of messages, peers or records that mean nothing here.
    Kind,
}

impl Ignored {
    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Statistics => "statistics",
            Self::Mirroring => "mirroring",
            Self::Family => "family",
            Self::AddPath => "add_path",
            Self::Internal => "internal",
            Self::Kind => "kind",
        }
    }
}

/// Something could not be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct FeedError {
    /// What a caller does about it.
    pub kind: FeedErrorKind,
    /// What is wrong.
    pub what: Cow<'static, str>,
    /// Where: bytes from the start of the message; of the stream for errors of framing; of the unpacked bytes for dumps.
    pub offset: u64,
    /// In whose routes, when that was known already.
    pub peer: Option<PeerId>,
}

/// Kinds of [`FeedError`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FeedErrorKind {
    /// The message or record is whole, what is in it is not. The next one can be read.
    Content,
    /// As [`FeedErrorKind::Content`], and which routes of its peer changed cannot be known: what the peer told of them before
    /// stands, until everything is told anew (RFC 7606 3 j resets the session).
    Routes,
    /// A length or version that cannot be: where the next message starts is unknown.
    Framing,
    /// The bytes end in the middle.
    Cut,
    /// The bytes could not be read or unpacked.
    Read,
}

impl FeedError {
    /// Whether what follows can be read all the same.
    #[must_use]
    pub fn in_step(&self) -> bool {
        matches!(self.kind, FeedErrorKind::Content | FeedErrorKind::Routes)
    }

    fn content(fault: Fault, peer: Option<PeerId>) -> Self {
        Self { kind: FeedErrorKind::Content, what: Cow::Borrowed(fault.what), offset: fault.offset, peer }
    }
}

/// `peer 192.0.2.1 (AS64500): byte 57: AS_PATH: a segment is longer than the attribute`
impl fmt::Display for FeedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(peer) = &self.peer {
            write!(f, "peer {peer}: ")?;
        }
        write!(f, "byte {}: {}", self.offset, self.what)
    }
}
