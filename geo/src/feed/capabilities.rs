//! Which families a session uses add-path for, from the two OPEN messages that a BMP Peer Up carries.
//!
//! An OPEN (RFC 4271 4.2) has optional parameters, those of type 2 have capabilities (RFC 5492), and number 69 among them lists
//! families with a direction (RFC 7911 4). Both sides must have said it. A router that accepted these messages has
//! read them already: what cannot be read ends the list and is no error.

use super::Family;
use super::reader::{Fault, Reader};
use super::update::{self, Families, family};

/// What one side said it would do, per family.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AddPath {
    receives: Families,
    sends: Families,
}

impl AddPath {
    /// Families in which `self` sends what `other` receives.
    pub(super) const fn towards(self, other: Self) -> Families {
        Families { v4: self.sends.v4 && other.receives.v4, v6: self.sends.v6 && other.receives.v6 }
    }
}

/// The next BGP message, which must be an OPEN.
pub(super) fn open(reader: &mut Reader<'_>) -> Result<AddPath, Fault> {
    let start = *reader;
    let (kind, body) = update::message(reader)?;
    if kind != update::OPEN {
        return Err(start.fault("a Peer Up has something else where an OPEN belongs"));
    }
    let mut add_path = AddPath::default();
    // What is broken in it ends the list.
    let _ = parameters(body, &mut add_path);
    Ok(add_path)
}

const SHORT: &str = "an OPEN is cut";

fn parameters(mut body: Reader<'_>, add_path: &mut AddPath) -> Result<(), Fault> {
    // Version, AS, hold time, identifier.
    body.part(9, SHORT)?;
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
            capabilities(parameter, add_path)?;
        }
    }
    Ok(())
}

fn capabilities(mut list: Reader<'_>, add_path: &mut AddPath) -> Result<(), Fault> {
    const ADD_PATH: u8 = 69;
    while !list.is_empty() {
        let code = list.u8(SHORT)?;
        let bytes = list.u8(SHORT)?;
        let mut value = list.part(usize::from(bytes), SHORT)?;
        while code == ADD_PATH && !value.is_empty() {
            let family = family(&mut value, SHORT)?;
            let direction = value.u8(SHORT)?;
            for (set, bit) in [(&mut add_path.receives, 1), (&mut add_path.sends, 2)] {
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
