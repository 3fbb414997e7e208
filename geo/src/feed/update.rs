//! BGP messages (RFC 4271 4.1) and what an UPDATE among them changes (4.3, RFC 4760).
//!
//! ```text
//!   marker 16 | length 2 | type 1 | body                                        every message
//!   length 2 | withdrawn prefixes | length 2 | attributes | prefixes            body of an UPDATE
//!                                   MP_REACH_NLRI, MP_UNREACH_NLRI: prefixes of other families, within the attributes
//! ```

use ipnet::IpNet;

use super::attributes::{self, AsWidth, Said};
use super::nlri::prefixes;
use super::reader::{Fault, Reader};
use super::{Event, Family, Ignored, PeerId, View};
use crate::route::Attributes;

/// What a session agreed on, as far as it changes how an UPDATE reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) width: AsWidth,
    pub(super) add_path: Families,
    /// The router's own AS, if its neighbour is another one's and this is what came in: see [`without_own`].
    pub(super) own_as: Option<u32>,
}

/// A set of families.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Families {
    pub(super) v4: bool,
    pub(super) v6: bool,
}

impl Families {
    pub(super) const fn has(self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    pub(super) fn list(self) -> Vec<Family> {
        [Family::V4, Family::V6].into_iter().filter(|family| self.has(*family)).collect()
    }
}

/// Types of BGP messages.
pub(super) const OPEN: u8 = 1;
const UPDATE: u8 = 2;

/// The next BGP message: its type and body. The marker is not looked at: it says nothing that length and type do not.
pub(super) fn message<'a>(reader: &mut Reader<'a>) -> Result<(u8, Reader<'a>), Fault> {
    const SHORT: &str = "a BGP message's header is cut";
    let start = *reader;
    reader.part(16, SHORT)?;
    let bytes = reader.u16(SHORT)?;
    let kind = reader.u8(SHORT)?;
    let body = usize::from(bytes).checked_sub(19).ok_or(start.fault("a BGP message is shorter than its header"))?;
    Ok((kind, reader.part(body, "a BGP message is longer than what carries it")?))
}

/// Tells what the BGP messages change that one peer sent: one as a rule (RFC 7854 4.6), more from some routers.
///
/// # Errors
/// Which routes are meant cannot be read. Events of messages before stay told.
pub(super) fn tell(
    mut reader: Reader<'_>,
    terms: Terms,
    peer: PeerId,
    view: View,
    events: &mut Vec<Event>,
) -> Result<(), Fault> {
    loop {
        let (kind, body) = message(&mut reader)?;
        if kind == UPDATE {
            Update::read(body, terms)?.tell(peer, view, events);
        } else {
            events.push(Event::Ignored(Ignored::Kind));
        }
        if reader.is_empty() {
            return Ok(());
        }
    }
}

/// What one UPDATE says.
#[derive(Default)]
struct Update {
    announced: Vec<IpNet>,
    withdrawn: Vec<IpNet>,
    attributes: Attributes,
    malformed: Option<Fault>,
    end_of_rib: Option<Family>,
    ignored: Option<Ignored>,
}

impl Update {
    fn read(mut body: Reader<'_>, terms: Terms) -> Result<Self, Fault> {
        let bytes = body.u16("UPDATE: the length of what is withdrawn is cut")?;
        let withdrawn = body.part(usize::from(bytes), "UPDATE: what is withdrawn is longer than the message")?;
        let bytes = body.u16("UPDATE: the length of the attributes is cut")?;
        let attributes = body.part(usize::from(bytes), "UPDATE: the attributes are longer than the message")?;
        if withdrawn.is_empty() && attributes.is_empty() && body.is_empty() {
            return Ok(Self { end_of_rib: Some(Family::V4), ..Self::default() });
        }
        let mut said = attributes::read(attributes, terms.width)?;
        let without_prefixes =
            withdrawn.is_empty() && body.is_empty() && said.reach.is_none() && said.unreach.is_none();
        if let Some(fault) = said.cut.filter(|_| without_prefixes) {
            // RFC 7606 3 j: the prefixes must be behind the cut.
            return Err(fault);
        }
        let mut update = Self { malformed: said.malformed, ..Self::default() };
        update.plain(withdrawn, body, terms)?;
        update.multiprotocol(&said, terms)?;
        update.check_mandatory(&said, !body.is_empty(), attributes.offset());
        if update.malformed.is_some() {
            // RFC 7606 2: treat-as-withdraw.
            let announced = std::mem::take(&mut update.announced);
            update.withdrawn.extend(announced);
        }
        update.attributes = without_own(std::mem::take(&mut said.attributes), terms.own_as);
        Ok(update)
    }

    /// IPv4 prefixes outside the attributes.
    fn plain(&mut self, withdrawn: Reader<'_>, announced: Reader<'_>, terms: Terms) -> Result<(), Fault> {
        if terms.add_path.v4 {
            if !withdrawn.is_empty() || !announced.is_empty() {
                self.ignored = Some(Ignored::AddPath);
            }
            return Ok(());
        }
        prefixes(withdrawn, Family::V4, &mut self.withdrawn)?;
        prefixes(announced, Family::V4, &mut self.announced)
    }

    /// RFC 4760 3 and 4.
    fn multiprotocol(&mut self, said: &Said<'_>, terms: Terms) -> Result<(), Fault> {
        if let Some(mut reach) = said.reach {
            const SHORT: &str = "MP_REACH_NLRI is cut";
            let family = family(&mut reach, SHORT)?;
            let bytes = reach.u8(SHORT)?;
            reach.part(usize::from(bytes), "MP_REACH_NLRI: the next hop is longer than the attribute")?;
            reach.u8(SHORT)?;
            if let Some(family) = self.wanted(family, terms) {
                prefixes(reach, family, &mut self.announced)?;
            }
        }
        if let Some(mut unreach) = said.unreach {
            let family = family(&mut unreach, "MP_UNREACH_NLRI is cut")?;
            if unreach.is_empty() && said.count == 1 && self.announced.is_empty() && self.withdrawn.is_empty() {
                // RFC 4724 2
                self.end_of_rib = family;
                self.ignored = family.is_none().then_some(Ignored::Family);
            } else if let Some(family) = self.wanted(family, terms) {
                prefixes(unreach, family, &mut self.withdrawn)?;
            }
        }
        Ok(())
    }

    fn wanted(&mut self, family: Option<Family>, terms: Terms) -> Option<Family> {
        let Some(family) = family else {
            self.ignored = Some(Ignored::Family);
            return None;
        };
        if terms.add_path.has(family) {
            self.ignored = Some(Ignored::AddPath);
            return None;
        }
        Some(family)
    }

    /// RFC 7606 3 d: a missing mandatory attribute withdraws what is announced.
    fn check_mandatory(&mut self, said: &Said<'_>, plain: bool, offset: u64) {
        if self.announced.is_empty() {
            return;
        }
        let missing = match said {
            Said { has_origin: false, .. } => "ORIGIN is missing",
            Said { has_as_path: false, .. } => "AS_PATH is missing",
            Said { has_next_hop: false, .. } if plain => "NEXT_HOP is missing",
            _ => return,
        };
        self.malformed.get_or_insert(Fault { what: missing, offset });
    }

    fn tell(self, peer: PeerId, view: View, events: &mut Vec<Event>) {
        if let Some(Fault { what, offset }) = self.malformed {
            events.push(Event::Malformed { peer, view, what, offset });
        }
        if !self.announced.is_empty() || !self.withdrawn.is_empty() {
            let attributes = (!self.announced.is_empty()).then_some(self.attributes);
            events.push(Event::Routes { peer, view, announced: self.announced, withdrawn: self.withdrawn, attributes });
        }
        if let Some(family) = self.end_of_rib {
            events.push(Event::EndOfRib { peer, view, family });
        }
        if let Some(ignored) = self.ignored {
            events.push(Event::Ignored(ignored));
        }
    }
}

/// The path as the neighbour sent it. FRR (8.4) writes routes for BMP as if it sent them on, with its own AS in front. No neighbour
/// of another AS can have sent such a path: it would be a loop (RFC 4271 9.1.2).
fn without_own(mut attributes: Attributes, own_as: Option<u32>) -> Attributes {
    let Some(own_as) = own_as else { return attributes };
    if let [first, rest @ ..] = &*attributes.as_path
        && *first == own_as
    {
        attributes.as_path = rest.into();
        attributes.path_length = attributes.path_length.saturating_sub(1);
        attributes.origin_as = attributes.origin_as.filter(|_| !attributes.as_path.is_empty());
    }
    attributes
}

/// The family that an AFI and a SAFI name, if it is one of ours.
pub(super) fn family(reader: &mut Reader<'_>, what: &'static str) -> Result<Option<Family>, Fault> {
    let afi = reader.u16(what)?;
    let safi = reader.u8(what)?;
    Ok(match (afi, safi) {
        (1, 1) => Some(Family::V4),
        (2, 1) => Some(Family::V6),
        _ => None,
    })
}
