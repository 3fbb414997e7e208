//! BMP (RFC 7854): what a router tells of the sessions with its neighbours.
//!
//! ```text
//!   version 1 = 3 | length 4, of everything | type 1                                                 common header
//!   type 1 | flags 1 | distinguisher 8 | address 16 | AS 4 | BGP id 4 | seconds 4 | microseconds 4   per-peer header
//!            V 0x80: IPv6, L 0x40: post-policy, A 0x20: 2-byte AS_PATH, O 0x10: what is sent (RFC 8671)
//! ```
//!
//! A [`Decoder`] belongs to one connection of one router. It remembers of each peer that is up what its OPEN messages said.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::attributes::AsWidth;
use super::open;
use super::reader::{Fault, Reader};
use super::update::{Families, Terms, tell};
use super::{Event, FeedError, FeedErrorKind, Ignored, PeerId, View};

/// Characters of a text that a router sends; more are cut off.
pub const TEXT_CHARS_MAX: usize = 256;

/// Peers of one router that may be up at once, at about 50 bytes each; a Peer Up beyond is an error.
pub const PEERS_MAX: usize = 16_384;

/// Version of the protocol.
pub(super) const VERSION: u8 = 3;

/// Bytes of the common header.
pub(super) const HEADER_BYTES: usize = 6;

/// Decodes what one router sends over one connection.
#[derive(Debug, Default)]
pub struct Decoder {
    sessions: HashMap<Session, Agreed>,
}

/// What a Peer Up is of: the router's own table or a session with a neighbour, whatever the view.
type Session = ((IpAddr, u64), bool);

/// What the OPEN messages of a session said.
#[derive(Clone, Copy, Debug, Default)]
struct Agreed {
    /// The router's.
    own_as: u32,
    /// Both are of one AS.
    internal: bool,
    /// Families with path identifiers in what the router receives and in what it sends.
    inbound: Families,
    outbound: Families,
}

impl Decoder {
    /// Adds what one message says; `message` starts at its common header, as [`super::Framing`] gives it.
    ///
    /// # Errors
    /// [`FeedErrorKind::Content`] and [`FeedErrorKind::Routes`]: what is in it cannot be read; events told before the fault
    /// stay. What follows can be read.
    pub fn decode(&mut self, message: &[u8], events: &mut Vec<Event>) -> Result<(), FeedError> {
        let mut reader = Reader::new(message, 0);
        let kind = header(&mut reader).map_err(|fault| FeedError::content(fault, None))?;
        let of_peer = match kind {
            0 => Self::monitoring,
            2 => Self::down,
            3 => Self::up,
            _ => return of_router(kind, reader, events).map_err(|fault| FeedError::content(fault, None)),
        };
        let peer = PeerHeader::read(&mut reader).map_err(|fault| FeedError::content(fault, None))?;
        let Some(peer) = peer else {
            events.push(Event::Ignored(Ignored::Kind));
            return Ok(());
        };
        of_peer(self, &peer, reader, events).map_err(|fault| {
            let kind = if kind == 0 { FeedErrorKind::Routes } else { FeedErrorKind::Content };
            FeedError { kind, ..FeedError::content(fault, Some(peer.id)) }
        })
    }

    /// RFC 7854 4.6
    fn monitoring(&mut self, peer: &PeerHeader, body: Reader<'_>, events: &mut Vec<Event>) -> Result<(), Fault> {
        let agreed = self.sessions.get(&peer.session()).copied().unwrap_or_default();
        if agreed.internal {
            events.push(Event::Ignored(Ignored::Internal));
            return Ok(());
        }
        let heard = matches!(peer.view, View::PrePolicy | View::PostPolicy);
        let own_as = Some(agreed.own_as).filter(|own| heard && *own != 0 && *own != peer.id.asn);
        let add_path = if peer.view == View::AdjOut { agreed.outbound } else { agreed.inbound };
        tell(body, Terms { width: peer.width, add_path, own_as }, peer.id, peer.view, events)
    }

    /// RFC 7854 4.10: local address and ports, the OPEN sent, the OPEN received, information.
    fn up(&mut self, peer: &PeerHeader, mut body: Reader<'_>, events: &mut Vec<Event>) -> Result<(), Fault> {
        let start = body;
        body.part(20, "a Peer Up is cut")?;
        let sent = open::read(&mut body)?;
        let received = open::read(&mut body)?;
        // Both OPENs are asked: a router that swaps them would have no other sessions.
        let internal = peer.view != View::LocRib && [sent.asn, received.asn] == [peer.id.asn; 2];
        let (inbound, outbound) = (received.towards(sent), sent.towards(received));
        let agreed = Agreed { own_as: sent.asn, internal, inbound, outbound };
        let session = peer.session();
        if self.sessions.len() >= PEERS_MAX && !self.sessions.contains_key(&session) {
            return Err(start.fault("more peers are up than 16384"));
        }
        self.sessions.insert(session, agreed);
        if internal {
            // Before, it may have been a session of another kind.
            let reason = "sessions within the router's own AS are left out";
            events.push(Event::Down { peer: peer.id, view: peer.view, reason });
            events.push(Event::Ignored(Ignored::Internal));
            return Ok(());
        }
        events.push(Event::Up { peer: peer.id, view: peer.view, bgp_id: peer.bgp_id, add_path: agreed.inbound.list() });
        Ok(())
    }

    /// RFC 7854 4.9, RFC 9069 5.3. The peer is down, whatever the reason; even if it is cut off.
    fn down(&mut self, peer: &PeerHeader, mut body: Reader<'_>, events: &mut Vec<Event>) -> Result<(), Fault> {
        self.sessions.remove(&peer.session());
        let reason = match body.u8("a Peer Down has no reason").unwrap_or_default() {
            1 => "the router closed the session with a notification",
            2 => "the router closed the session",
            3 => "the peer closed the session with a notification",
            4 => "the peer closed the session",
            5 => "the peer is no longer monitored",
            6 => "the router's own table is no longer monitored",
            _ => "for a reason that is not known here",
        };
        events.push(Event::Down { peer: peer.id, view: peer.view, reason });
        Ok(())
    }
}

/// One message without what others before it said of the session: for tools and tests; connections use a [`Decoder`].
///
/// # Errors
/// As [`Decoder::decode`].
pub fn bmp(message: &[u8], events: &mut Vec<Event>) -> Result<(), FeedError> {
    Decoder::default().decode(message, events)
}

/// The message's type; the reader is cut to what the length says.
fn header(reader: &mut Reader<'_>) -> Result<u8, Fault> {
    const SHORT: &str = "a BMP message's header is cut";
    let start = *reader;
    if reader.u8(SHORT)? != VERSION {
        return Err(start.fault("the version of BMP is not 3"));
    }
    let bytes = reader.u32(SHORT)?;
    let kind = reader.u8(SHORT)?;
    if u64::from(bytes) != start.len() as u64 {
        return Err(start.fault("a BMP message is not as long as it says"));
    }
    Ok(kind)
}

/// Messages that are of no peer, or of none that matters.
fn of_router(kind: u8, reader: Reader<'_>, events: &mut Vec<Event>) -> Result<(), Fault> {
    events.push(match kind {
        1 => Event::Ignored(Ignored::Statistics),
        4 => initiation(reader)?,
        5 => termination(reader)?,
        6 => Event::Ignored(Ignored::Mirroring),
        // RFC 7854 4.1: unknown types are ignored.
        _ => Event::Ignored(Ignored::Kind),
    });
    Ok(())
}

/// RFC 7854 4.3
fn initiation(mut reader: Reader<'_>) -> Result<Event, Fault> {
    let (mut name, mut description) = (None, None);
    while !reader.is_empty() {
        match information(&mut reader)? {
            (1, value) => description = Some(text(value.bytes())),
            (2, value) => name = Some(text(value.bytes())),
            _ => {}
        }
    }
    Ok(Event::Initiation { name, description })
}

/// RFC 7854 4.5
fn termination(mut reader: Reader<'_>) -> Result<Event, Fault> {
    let (mut reason, mut said) = ("no reason given", String::new());
    while !reader.is_empty() {
        match information(&mut reader)? {
            (0, value) => said = text(value.bytes()),
            (1, mut value) => {
                reason = match value.u16("a reason is not two bytes")? {
                    0 => "closed by the operator",
                    1 => "unspecified",
                    2 => "out of resources",
                    3 => "a second connection to the same station",
                    4 => "closed by the operator for good",
                    _ => "for a reason that is not known here",
                };
            }
            _ => {}
        }
    }
    let reason = if said.is_empty() { reason.to_owned() } else { format!("{reason}: {said}") };
    Ok(Event::Termination { reason })
}

/// RFC 7854 4.4: type 2, length 2, value.
fn information<'a>(reader: &mut Reader<'a>) -> Result<(u16, Reader<'a>), Fault> {
    const SHORT: &str = "an information TLV is cut";
    let kind = reader.u16(SHORT)?;
    let bytes = reader.u16(SHORT)?;
    Ok((kind, reader.part(usize::from(bytes), "an information TLV is longer than its message")?))
}

/// For people and logs: what is no text or would move the cursor is replaced.
fn text(bytes: &[u8]) -> String {
    let bytes = bytes.get(..TEXT_CHARS_MAX * 4).unwrap_or(bytes);
    let clean = |letter: char| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter };
    String::from_utf8_lossy(bytes).chars().take(TEXT_CHARS_MAX).map(clean).collect()
}

/// What the per-peer header (RFC 7854 4.2) says.
struct PeerHeader {
    id: PeerId,
    view: View,
    width: AsWidth,
    bgp_id: Ipv4Addr,
}

impl PeerHeader {
    /// None: a type of peer that is not known.
    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, Fault> {
        const SHORT: &str = "a per-peer header is cut";
        let kind = reader.u8(SHORT)?;
        let flags = reader.u8(SHORT)?;
        let distinguisher = reader.u64(SHORT)?;
        let address = Ipv6Addr::from(reader.array::<16>(SHORT)?);
        let asn = reader.u32(SHORT)?;
        let bgp_id = Ipv4Addr::from(reader.array::<4>(SHORT)?);
        reader.part(8, SHORT)?;
        let view = match (kind, flags & 0x10 != 0, flags & 0x40 != 0) {
            (3, ..) => View::LocRib,
            (0..=2, true, _) => View::AdjOut,
            (0..=2, false, true) => View::PostPolicy,
            (0..=2, false, false) => View::PrePolicy,
            _ => return Ok(None),
        };
        // RFC 9069 4.2 gives the flags of the router's own table other meanings, and no address.
        let of_table = view == View::LocRib;
        let wide_address = !of_table && flags & 0x80 != 0;
        let narrow = !of_table && flags & 0x20 != 0;
        let [.., a, b, c, d] = address.octets();
        let address = if wide_address { IpAddr::V6(address) } else { IpAddr::V4(Ipv4Addr::new(a, b, c, d)) };
        let width = if narrow { AsWidth::Two } else { AsWidth::Four };
        Ok(Some(Self { id: PeerId { address, distinguisher, asn }, view, width, bgp_id }))
    }

    fn session(&self) -> Session {
        (self.id.identity(), self.view == View::LocRib)
    }
}
