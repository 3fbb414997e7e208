//! MRT dumps (RFC 6396): whole tables and the updates between them.
//!
//! ```text
//!   seconds 4 | type 2 | subtype 2 | length 4 | body                      every record
//!
//!   13 TABLE_DUMP_V2   1 peers of the table, once, first
//!                      2 RIB_IPV4_UNICAST, 4 RIB_IPV6_UNICAST: a prefix and a route of each peer
//!                      8, 10 the same with path identifiers (RFC 8050)
//!   16 BGP4MP, 17 BGP4MP_ET (microseconds 4 before the body)
//!                      0, 5 a session changed state     1, 4 a message of a peer, AS numbers of 2 or 4 bytes
//! ```
//!
//! [`Mrt`] gives a table route by route: one record and one route are in RAM, whatever the file's size. A cut file gives
//! what was whole, then the error. Everything else than the above is [`Ignored`]: multicast, the older TABLE_DUMP, messages that the
//! collector itself sent, updates with path identifiers.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::attributes::{self, AsWidth};
use super::nlri;
use super::reader::{Fault, Reader};
use super::update::{Families, Terms, tell};
use super::{Event, Family, FeedError, FeedErrorKind, Ignored, PeerId, View, input};

/// Bytes of one record; one that says more ends the dump. A prefix that a thousand peers tell takes about 200 kB.
pub const RECORD_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// Events of a dump, in its order. After an error out of step ([`FeedError::in_step`]) there is nothing more.
pub struct Mrt<'a> {
    input: Box<dyn Read + Send + 'a>,
    /// Of `body`'s first byte, unpacked.
    offset: u64,
    body: Vec<u8>,
    peers: Option<Vec<PeerId>>,
    /// The rest of a prefix's routes.
    rib: Option<Rib>,
    told: VecDeque<Event>,
    events: Vec<Event>,
    ended: bool,
    failed: Option<FeedError>,
}

/// A record of routes that is being told.
struct Rib {
    prefix: IpNet,
    add_path: bool,
    left: u16,
    /// Of the next entry, in the body.
    at: usize,
    /// Peers of which a path was told, with path identifiers only.
    seen: HashSet<u16>,
}

/// Reads a dump, plain, gzip or bzip2.
pub fn mrt<'a>(reader: impl Read + Send + 'a) -> Mrt<'a> {
    let (input, failed): (Box<dyn Read + Send + 'a>, _) = match input::unpacked(reader) {
        Ok(input) => (input, None),
        Err(error) => (Box::new(io::empty()), Some(unreadable(&error, 0))),
    };
    Mrt {
        input,
        offset: 0,
        body: Vec::new(),
        peers: None,
        rib: None,
        told: VecDeque::new(),
        events: Vec::new(),
        ended: false,
        failed,
    }
}

impl Iterator for Mrt<'_> {
    type Item = Result<Event, FeedError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(event) = self.told.pop_front() {
                return Some(Ok(event));
            }
            if let Some(error) = self.failed.take() {
                self.ended |= !error.in_step();
                return Some(Err(error));
            }
            if self.ended {
                return None;
            }
            if let Some(rib) = self.rib.take() {
                self.entry(rib);
                continue;
            }
            match self.read_record() {
                Ok(Some((kind, subtype))) => self.record(kind, subtype),
                Ok(None) => self.ended = true,
                Err(error) => self.failed = Some(error),
            }
        }
    }
}

impl Mrt<'_> {
    /// Bytes that are done with, unpacked.
    #[must_use]
    pub fn bytes_done(&self) -> u64 {
        self.offset + self.body.len() as u64
    }

    /// The next record's type and subtype, its body in `self.body`; none at the end.
    fn read_record(&mut self) -> Result<Option<(u16, u16)>, FeedError> {
        const HEADER_BYTES: usize = 12;
        self.offset = self.bytes_done();
        self.body.clear();
        let start = self.offset;
        self.fill(HEADER_BYTES, start)?;
        let header = Reader::new(&self.body, start);
        if header.is_empty() {
            return Ok(None);
        }
        let (kind, subtype, bytes) = record_header(header)
            .map_err(|fault| FeedError { kind: FeedErrorKind::Cut, ..FeedError::content(fault, None) })?;
        self.offset += HEADER_BYTES as u64;
        self.body.clear();
        let length = usize::try_from(bytes).ok().filter(|bytes| *bytes <= RECORD_BYTES_MAX);
        let Some(length) = length else {
            // The first "length" of a text is four of its letters.
            let no_dump = if start == 0 { ": this is no MRT dump (RFC 6396)" } else { "" };
            let what = format!("a record of {bytes} bytes; at most {RECORD_BYTES_MAX} can be{no_dump}");
            return Err(FeedError { kind: FeedErrorKind::Framing, what: what.into(), offset: start, peer: None });
        };
        self.fill(length, start)?;
        if self.body.len() < length {
            let what = format!("the dump ends within a record: {} of its {length} bytes are there", self.body.len());
            return Err(FeedError { kind: FeedErrorKind::Cut, what: what.into(), offset: start, peer: None });
        }
        Ok(Some((kind, subtype)))
    }

    /// Reads so many bytes into the body, fewer when the file ends. Room grows as bytes come.
    fn fill(&mut self, bytes: usize, start: u64) -> Result<(), FeedError> {
        let read = self.input.by_ref().take(bytes as u64).read_to_end(&mut self.body);
        read.map(|_| ()).map_err(|error| unreadable(&error, start))
    }

    fn record(&mut self, kind: u16, subtype: u16) {
        let body = Reader::new(&self.body, self.offset);
        let outcome = match (kind, subtype) {
            (13, 1) => peer_index(body).map(|peers| self.peers = Some(peers)).map_err(|fault| (fault, None)),
            (13, 2 | 4 | 8 | 10) => rib(body, subtype).map(|rib| self.rib = Some(rib)).map_err(|fault| (fault, None)),
            (16, _) => bgp4mp(body, subtype, &mut self.events),
            (17, _) => microseconds(body)
                .map_err(|fault| (fault, None))
                .and_then(|body| bgp4mp(body, subtype, &mut self.events)),
            _ => {
                self.events.push(Event::Ignored(Ignored::Kind));
                Ok(())
            }
        };
        self.told.extend(self.events.drain(..));
        self.failed = outcome.err().map(|(fault, peer)| FeedError::content(fault, peer));
    }

    /// Tells the next route of a prefix; a fault gives up the rest of the record.
    fn entry(&mut self, mut rib: Rib) {
        if rib.left == 0 {
            return;
        }
        rib.left -= 1;
        let bytes = self.body.get(rib.at..).unwrap_or_default();
        let mut reader = Reader::new(bytes, self.offset + rib.at as u64);
        match entry(&mut reader, &mut rib, self.peers.as_deref()) {
            Ok(event) => {
                self.told.extend(event);
                rib.at += bytes.len() - reader.len();
                self.rib = Some(rib);
            }
            Err((fault, peer)) => self.failed = Some(FeedError::content(fault, peer)),
        }
    }
}

fn unreadable(error: &io::Error, offset: u64) -> FeedError {
    let (kind, what) = match error.kind() {
        io::ErrorKind::UnexpectedEof => (FeedErrorKind::Cut, format!("the packed dump is cut: {error}")),
        _ => (FeedErrorKind::Read, error.to_string()),
    };
    FeedError { kind, what: Cow::Owned(what), offset, peer: None }
}

/// A fault, and in whose routes.
type PeerFault = (Fault, Option<PeerId>);

/// RFC 6396 2: type, subtype, length.
fn record_header(mut reader: Reader<'_>) -> Result<(u16, u16, u32), Fault> {
    const SHORT: &str = "the dump ends within a record's header";
    reader.u32(SHORT)?;
    Ok((reader.u16(SHORT)?, reader.u16(SHORT)?, reader.u32(SHORT)?))
}

/// RFC 6396 3: `BGP4MP_ET` has microseconds first.
fn microseconds(mut body: Reader<'_>) -> Result<Reader<'_>, Fault> {
    body.u32("BGP4MP_ET is cut")?;
    Ok(body)
}

/// RFC 6396 4.3.1
fn peer_index(mut body: Reader<'_>) -> Result<Vec<PeerId>, Fault> {
    const SHORT: &str = "PEER_INDEX_TABLE is cut";
    body.u32(SHORT)?;
    let name_bytes = body.u16(SHORT)?;
    body.part(usize::from(name_bytes), SHORT)?;
    let count = body.u16(SHORT)?;
    let mut peers = Vec::new();
    for _ in 0..count {
        let kind = body.u8(SHORT)?;
        body.u32(SHORT)?;
        let address = address(&mut body, kind & 1 != 0, SHORT)?;
        let asn = if kind & 2 != 0 { body.u32(SHORT)? } else { u32::from(body.u16(SHORT)?) };
        peers.push(PeerId { address, distinguisher: 0, asn });
    }
    Ok(peers)
}

fn address(reader: &mut Reader<'_>, wide: bool, what: &'static str) -> Result<IpAddr, Fault> {
    Ok(match wide {
        true => IpAddr::V6(Ipv6Addr::from(reader.array::<16>(what)?)),
        false => IpAddr::V4(Ipv4Addr::from(reader.array::<4>(what)?)),
    })
}

/// RFC 6396 4.3.2, RFC 8050 4.1: sequence number, prefix, count of entries.
fn rib(mut body: Reader<'_>, subtype: u16) -> Result<Rib, Fault> {
    const SHORT: &str = "a RIB record is cut";
    let whole = body.len();
    body.u32(SHORT)?;
    let family = if matches!(subtype, 2 | 8) { Family::V4 } else { Family::V6 };
    let prefix = nlri::prefix(&mut body, family)?;
    let left = body.u16(SHORT)?;
    Ok(Rib { prefix, add_path: subtype >= 8, left, at: whole - body.len(), seen: HashSet::new() })
}

/// RFC 6396 4.3.4. None: a further path of a peer, with path identifiers.
fn entry(reader: &mut Reader<'_>, rib: &mut Rib, peers: Option<&[PeerId]>) -> Result<Option<Event>, PeerFault> {
    const SHORT: &str = "a RIB entry is cut";
    let unknown = |fault| (fault, None);
    let start = *reader;
    let index = reader.u16(SHORT).map_err(unknown)?;
    let peers = peers.ok_or(unknown(start.fault("routes come before the table of peers")))?;
    let peer = *peers.get(usize::from(index)).ok_or(unknown(start.fault("a peer is not in the table of peers")))?;
    let of_peer = |fault| (fault, Some(peer));
    reader.u32(SHORT).map_err(of_peer)?;
    if rib.add_path {
        reader.u32(SHORT).map_err(of_peer)?;
    }
    let bytes = reader.u16(SHORT).map_err(of_peer)?;
    let list =
        reader.part(usize::from(bytes), "a RIB entry's attributes are longer than the record").map_err(of_peer)?;
    if rib.add_path && !rib.seen.insert(index) {
        return Ok(None);
    }
    // RFC 6396 4.3.4: AS numbers are of four bytes, whatever the session had.
    let said = attributes::read(list, AsWidth::Four).map_err(of_peer)?;
    let missing = (!said.has_origin || !said.has_as_path).then(|| list.fault("ORIGIN or AS_PATH is missing"));
    let view = View::PrePolicy;
    Ok(Some(match said.malformed.or(missing) {
        Some(Fault { what, offset }) => Event::Malformed { peer, view, what, offset },
        None => Event::Routes {
            peer,
            view,
            announced: vec![rib.prefix],
            withdrawn: Vec::new(),
            attributes: Some(said.attributes),
        },
    }))
}

/// RFC 6396 4.4
fn bgp4mp(mut body: Reader<'_>, subtype: u16, events: &mut Vec<Event>) -> Result<(), PeerFault> {
    let (width, is_state) = match subtype {
        0 => (AsWidth::Two, true),
        1 => (AsWidth::Two, false),
        4 => (AsWidth::Four, false),
        5 => (AsWidth::Four, true),
        _ => {
            let add_path = matches!(subtype, 8 | 9);
            events.push(Event::Ignored(if add_path { Ignored::AddPath } else { Ignored::Kind }));
            return Ok(());
        }
    };
    let Some(peer) = session(&mut body, width).map_err(|fault| (fault, None))? else {
        events.push(Event::Ignored(Ignored::Family));
        return Ok(());
    };
    let view = View::PrePolicy;
    let outcome = if is_state {
        state_change(body, peer, events)
    } else {
        tell(body, Terms { width, add_path: Families::default(), own_as: None }, peer, view, events)
    };
    outcome.map_err(|fault| (fault, Some(peer)))
}

/// What precedes the message: AS of the peer and of the collector, interface, AFI, both addresses. None: another AFI.
fn session(body: &mut Reader<'_>, width: AsWidth) -> Result<Option<PeerId>, Fault> {
    const SHORT: &str = "a BGP4MP record is cut";
    let asn = match width {
        AsWidth::Two => {
            let asn = u32::from(body.u16(SHORT)?);
            body.u16(SHORT)?;
            asn
        }
        AsWidth::Four => {
            let asn = body.u32(SHORT)?;
            body.u32(SHORT)?;
            asn
        }
    };
    body.u16(SHORT)?;
    let afi = body.u16(SHORT)?;
    if !matches!(afi, 1 | 2) {
        return Ok(None);
    }
    let peer = address(body, afi == 2, SHORT)?;
    address(body, afi == 2, SHORT)?;
    Ok(Some(PeerId { address: peer, distinguisher: 0, asn }))
}

/// RFC 6396 4.4.1: the old state and the new one; 6 is Established.
fn state_change(mut body: Reader<'_>, peer: PeerId, events: &mut Vec<Event>) -> Result<(), Fault> {
    const SHORT: &str = "a change of state is cut";
    const ESTABLISHED: u16 = 6;
    let old = body.u16(SHORT)?;
    let new = body.u16(SHORT)?;
    let view = View::PrePolicy;
    events.push(match (old, new) {
        (_, ESTABLISHED) => Event::Up { peer, view, bgp_id: Ipv4Addr::UNSPECIFIED, add_path: Vec::new() },
        (ESTABLISHED, _) => Event::Down { peer, view, reason: "the session of the collector ended" },
        _ => Event::Ignored(Ignored::Kind),
    });
    Ok(())
}
