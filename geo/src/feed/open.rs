//! What the two OPEN messages of a BMP Peer Up say of how the session's UPDATEs read: the router's own AS, and which families have
//! add-path.
//!
//! An OPEN (RFC 4271 4.2) has optional parameters, those of type 2 have capabilities (RFC 5492). Number 65 has the AS in four
//! bytes (RFC 6793 3), number 69 lists families with a direction (RFC 7911 4), which both sides must have said. A router
//! that accepted these messages has read them already: what cannot be read ends the list and is no error.

use super::Family;
use super::reader::{Fault, Reader};
use super::update::{self, Families, family};

/// What one side said.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Offer {
    /// Its AS; 0 when its OPEN could not be read.
    pub(super) asn: u32,
    receives: Families,
    sends: Families,
}

impl Offer {
    /// Families with path identifiers in what `self` sends to `other`.
    pub(super) const fn towards(self, other: Self) -> Families {
        Families { v4: self.sends.v4 && other.receives.v4, v6: self.sends.v6 && other.receives.v6 }
    }
}

/// The next BGP message, which must be an OPEN.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<Offer, Fault> {
    let start = *reader;
    let (kind, body) = update::message(reader)?;
    if kind != update::OPEN {
        return Err(start.fault("a Peer Up has something else where an OPEN belongs"));
    }
    let mut offer = Offer::default();
    // What is broken in it ends the list.
    let _ = parameters(body, &mut offer);
    Ok(offer)
}

const SHORT: &str = "an OPEN is cut";

fn parameters(mut body: Reader<'_>, offer: &mut Offer) -> Result<(), Fault> {
    body.u8(SHORT)?;
    offer.asn = u32::from(body.u16(SHORT)?);
    // Hold time, identifier.
    body.part(6, SHORT)?;
    let bytes = body.u8(SHORT)?;
    let mut peek = body;
    // RFC 9072 2: long parameters, their lengths in two bytes.
    let long = bytes != 0 && peek.u8(SHORT)? == 255;
    let bytes = if long { usize::from(peek.u16(SHORT)?) } else { usize::from(bytes) };
    let mut list = if long { peek } else { body }.part(bytes, SHORT)?;
    while !list.is_empty() {
        let kind = list.u8(SHORT)?;
        let bytes = if long { usize::from(list.u16(SHORT)?) } else { usize::from(list.u8(SHORT)?) };
        let parameter = list.part(bytes, SHORT)?;
        if kind == 2 {
            capabilities(parameter, offer)?;
        }
    }
    Ok(())
}

fn capabilities(mut list: Reader<'_>, offer: &mut Offer) -> Result<(), Fault> {
    const FOUR_BYTE_AS: u8 = 65;
    const ADD_PATH: u8 = 69;
    while !list.is_empty() {
        let code = list.u8(SHORT)?;
        let bytes = list.u8(SHORT)?;
        let mut value = list.part(usize::from(bytes), SHORT)?;
        if code == FOUR_BYTE_AS {
            offer.asn = value.u32(SHORT)?;
        }
        while code == ADD_PATH && !value.is_empty() {
            let family = family(&mut value, SHORT)?;
            let direction = value.u8(SHORT)?;
            for (set, bit) in [(&mut offer.receives, 1), (&mut offer.sends, 2)] {
                let said = direction & bit != 0;
                match family {
                    Some(Family::V4) => set.v4 |= said,
                    Some(Family::V6) => set.v6 |= said,
                    None => {}
                }
            }
        }
    }
    Ok(())
}
