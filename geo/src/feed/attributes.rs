//! Path attributes (RFC 4271 4.3): what the choice of regions needs of them, and what is wrong with them.
//!
//! ```text
//!   flags 1 | type 1 | length 1, or 2 with flag 0x10 | value       again and again
//! ```
//!
//! RFC 7606 says what each mistake means: most make the routes withdrawn (`malformed`), those of attributes that
//! no choice depends on are as if they were not there, a second attribute of a type is discarded. Only two of one of the MP
//! attributes leave open which routes are meant, and are an error.

use super::reader::{Fault, Reader};
use crate::route::{Attributes, Community};

/// AS numbers in one path; a longer one is malformed. Real paths have under a hundred.
pub const AS_PATH_MAX: usize = 1_024;

/// Communities of one route, of both kinds together; the first ones are kept.
pub const COMMUNITIES_MAX: usize = 1_024;

/// AS 23456, which stands for what does not fit into two bytes (RFC 6793 9).
const AS_TRANS: u16 = 23_456;

/// How wide AS numbers are in `AS_PATH` (RFC 6793).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum AsWidth {
    Two,
    Four,
}

/// What attributes said.
#[derive(Debug, Default)]
pub(super) struct Said<'a> {
    pub(super) attributes: Attributes,
    /// Why the routes that they belong to count as withdrawn.
    pub(super) malformed: Option<Fault>,
    /// Where one attribute's end could not be found: further ones were not read.
    pub(super) cut: Option<Fault>,
    pub(super) has_origin: bool,
    pub(super) has_as_path: bool,
    pub(super) has_next_hop: bool,
    /// `MP_REACH_NLRI` and `MP_UNREACH_NLRI` (RFC 4760), not looked into.
    pub(super) reach: Option<Reader<'a>>,
    pub(super) unreach: Option<Reader<'a>>,
    /// How many there were.
    pub(super) count: usize,
}

/// Reads all of them.
///
/// # Errors
/// `MP_REACH_NLRI` or `MP_UNREACH_NLRI` twice (RFC 7606 3 g).
pub(super) fn read(mut list: Reader<'_>, width: AsWidth) -> Result<Said<'_>, Fault> {
    let mut said = Said::default();
    let mut parts = Parts::default();
    let mut seen = [false; 256];
    while !list.is_empty() {
        let start = list;
        let (kind, value) = match next(&mut list) {
            Ok(attribute) => attribute,
            Err(fault) => {
                // RFC 7606 4: the length of all attributes still tells where the prefixes are.
                said.malformed.get_or_insert(fault);
                said.cut = Some(fault);
                break;
            }
        };
        said.count += 1;
        if let Some(seen) = seen.get_mut(usize::from(kind))
            && std::mem::replace(seen, true)
        {
            if kind == MP_REACH || kind == MP_UNREACH {
                return Err(start.fault("MP_REACH_NLRI or MP_UNREACH_NLRI is there twice"));
            }
            continue;
        }
        if let Err(fault) = one(kind, value, width, &mut said, &mut parts) {
            said.malformed.get_or_insert(fault);
        }
    }
    finish(&mut said, parts, width);
    Ok(said)
}

const ORIGIN: u8 = 1;
const AS_PATH: u8 = 2;
const NEXT_HOP: u8 = 3;
const MULTI_EXIT_DISC: u8 = 4;
const AGGREGATOR: u8 = 7;
const COMMUNITIES: u8 = 8;
const MP_REACH: u8 = 14;
const MP_UNREACH: u8 = 15;
const AS4_PATH: u8 = 17;
const AS4_AGGREGATOR: u8 = 18;
const LARGE_COMMUNITIES: u8 = 32;

/// What is put together when all are read.
#[derive(Default)]
struct Parts<'a> {
    as_path: Option<Reader<'a>>,
    as4_path: Option<Reader<'a>>,
    aggregator_as: Option<u16>,
    has_as4_aggregator: bool,
    communities: Vec<Community>,
}

fn next<'a>(list: &mut Reader<'a>) -> Result<(u8, Reader<'a>), Fault> {
    const SHORT: &str = "an attribute's header is cut";
    let flags = list.u8(SHORT)?;
    let kind = list.u8(SHORT)?;
    let bytes = match flags & 0x10 {
        0 => usize::from(list.u8(SHORT)?),
        _ => usize::from(list.u16(SHORT)?),
    };
    Ok((kind, list.part(bytes, "an attribute is longer than what is left")?))
}

/// Looks at one attribute; the fault of it is one that makes its routes withdrawn.
fn one<'a>(
    kind: u8,
    value: Reader<'a>,
    width: AsWidth,
    said: &mut Said<'a>,
    parts: &mut Parts<'a>,
) -> Result<(), Fault> {
    match kind {
        // RFC 7606 7.1
        ORIGIN => {
            said.has_origin = true;
            match value.bytes() {
                [0..=2] => {}
                _ => return Err(value.fault("ORIGIN is not 0, 1 or 2")),
            }
        }
        AS_PATH => {
            said.has_as_path = true;
            parts.as_path = Some(value);
        }
        // RFC 7606 7.3
        NEXT_HOP => {
            said.has_next_hop = true;
            if value.len() != 4 {
                return Err(value.fault("NEXT_HOP is not four bytes"));
            }
        }
        // RFC 7606 7.4
        MULTI_EXIT_DISC => match <[u8; 4]>::try_from(value.bytes()) {
            Ok(bytes) => said.attributes.med = Some(u32::from_be_bytes(bytes)),
            Err(_) => return Err(value.fault("MULTI_EXIT_DISC is not four bytes")),
        },
        COMMUNITIES => standard_communities(value, &mut parts.communities)?,
        LARGE_COMMUNITIES => large_communities(value, &mut parts.communities)?,
        MP_REACH => said.reach = Some(value),
        MP_UNREACH => said.unreach = Some(value),
        // Only 2-byte sessions use these; a 4-byte speaker discards them otherwise (RFC 6793 4.1).
        AS4_PATH if width == AsWidth::Two => parts.as4_path = Some(value),
        AS4_AGGREGATOR => parts.has_as4_aggregator = true,
        AGGREGATOR if width == AsWidth::Two => {
            parts.aggregator_as = value.bytes().first_chunk().map(|asn| u16::from_be_bytes(*asn));
        }
        _ => {}
    }
    Ok(())
}

/// RFC 1997; RFC 7606 7.8.
fn standard_communities(value: Reader<'_>, into: &mut Vec<Community>) -> Result<(), Fault> {
    let (each, rest) = value.bytes().as_chunks::<4>();
    if each.is_empty() || !rest.is_empty() {
        return Err(value.fault("COMMUNITIES is not a multiple of four bytes"));
    }
    let room = COMMUNITIES_MAX.saturating_sub(into.len());
    into.extend(
        each.iter()
            .take(room)
            .map(|[a, b, c, d]| Community::Standard(u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))),
    );
    Ok(())
}

/// RFC 8092 3 and 6.
fn large_communities(value: Reader<'_>, into: &mut Vec<Community>) -> Result<(), Fault> {
    let (words, rest) = value.bytes().as_chunks::<4>();
    let (each, odd) = words.as_chunks::<3>();
    if each.is_empty() || !rest.is_empty() || !odd.is_empty() {
        return Err(value.fault("LARGE_COMMUNITY is not a multiple of twelve bytes"));
    }
    let room = COMMUNITIES_MAX.saturating_sub(into.len());
    into.extend(
        each.iter()
            .take(room)
            .map(|[a, b, c]| Community::Large(u32::from_be_bytes(*a), u32::from_be_bytes(*b), u32::from_be_bytes(*c))),
    );
    Ok(())
}

fn finish(said: &mut Said<'_>, mut parts: Parts<'_>, width: AsWidth) {
    parts.communities.sort_unstable();
    parts.communities.dedup();
    said.attributes.communities = parts.communities.into_boxed_slice();
    let Some(as_path) = parts.as_path else { return };
    let ignored = parts.has_as4_aggregator && parts.aggregator_as.is_some_and(|asn| asn != AS_TRANS);
    let as4_path = parts.as4_path.filter(|_| !ignored);
    match path(as_path, as4_path, width) {
        Ok(path) => {
            said.attributes.path_length = path.length;
            said.attributes.origin_as = if path.ends_in_set { None } else { path.numbers.last().copied() };
            said.attributes.as_path = path.numbers.into_boxed_slice();
        }
        Err(fault) => {
            said.malformed.get_or_insert(fault);
        }
    }
}

/// A path that is being put together.
#[derive(Default)]
struct Path {
    numbers: Vec<u32>,
    length: u16,
    ends_in_set: bool,
}

/// `AS_PATH`, its narrow numbers replaced by what `AS4_PATH` has (RFC 6793 4.2.3). A malformed `AS4_PATH` is as if it were
/// not there (RFC 6793 6).
fn path(as_path: Reader<'_>, as4_path: Option<Reader<'_>>, width: AsWidth) -> Result<Path, Fault> {
    let mut path = Path::default();
    let wide = as4_path.and_then(|wide| Some((wide, units(wide, AsWidth::Four).ok()?)));
    let whole = if wide.is_some() { units(as_path, width)? } else { 0 };
    match wide {
        Some((wide, wide_units)) if wide_units <= whole => {
            segments(as_path, width, |set, numbers| path.add(set, numbers, whole - wide_units))?;
            path.length = whole - wide_units;
            segments(wide, AsWidth::Four, |set, numbers| path.add(set, numbers, u16::MAX))?;
            path.length = whole;
        }
        _ => segments(as_path, width, |set, numbers| path.add(set, numbers, u16::MAX))?,
    }
    if path.numbers.len() > AS_PATH_MAX {
        return Err(as_path.fault("AS_PATH has more than 1024 AS numbers"));
    }
    Ok(path)
}

impl Path {
    /// Adds a segment, as far as the path is then no longer than `most`.
    fn add(&mut self, set: bool, numbers: Numbers<'_>, most: u16) {
        let room = usize::from(most.saturating_sub(self.length));
        if room == 0 {
            return;
        }
        let before = self.numbers.len();
        self.numbers.extend(numbers.iter().take(if set { usize::MAX } else { room }));
        let added = if set { 1 } else { self.numbers.len() - before };
        self.length = self.length.saturating_add(u16::try_from(added).unwrap_or(u16::MAX));
        self.ends_in_set = set;
    }
}

/// How long a path is: a set is one, segments of confederations are none (RFC 4271 9.1.2.2 a, RFC 5065 5.3).
fn units(path: Reader<'_>, width: AsWidth) -> Result<u16, Fault> {
    let mut units = 0_u16;
    segments(path, width, |set, numbers| {
        let more = if set { 1 } else { numbers.count() };
        units = units.saturating_add(u16::try_from(more).unwrap_or(u16::MAX));
    })?;
    Ok(units)
}

/// The AS numbers of one segment.
#[derive(Clone, Copy)]
enum Numbers<'a> {
    Two(&'a [[u8; 2]]),
    Four(&'a [[u8; 4]]),
}

impl<'a> Numbers<'a> {
    fn count(self) -> usize {
        match self {
            Self::Two(numbers) => numbers.len(),
            Self::Four(numbers) => numbers.len(),
        }
    }

    fn iter(self) -> impl Iterator<Item = u32> + 'a {
        let (two, four) = match self {
            Self::Two(numbers) => (numbers, [].as_slice()),
            Self::Four(numbers) => ([].as_slice(), numbers),
        };
        let two = two.iter().map(|bytes| u32::from(u16::from_be_bytes(*bytes)));
        two.chain(four.iter().map(|bytes| u32::from_be_bytes(*bytes)))
    }
}

/// Calls `each` with every segment that counts: whether it is a set, and its numbers. Confederation segments are left out.
///
/// # Errors
/// A type that does not exist, no number in a segment, or more than there are bytes (RFC 7606 7.2).
fn segments<'a>(mut path: Reader<'a>, width: AsWidth, mut each: impl FnMut(bool, Numbers<'a>)) -> Result<(), Fault> {
    const SHORT: &str = "AS_PATH: a segment's header is cut";
    while !path.is_empty() {
        let start = path;
        let kind = path.u8(SHORT)?;
        let count = usize::from(path.u8(SHORT)?);
        if count == 0 {
            return Err(start.fault("AS_PATH: a segment is empty"));
        }
        let bytes = count * if width == AsWidth::Two { 2 } else { 4 };
        let part = path.part(bytes, "AS_PATH: a segment is longer than the attribute")?;
        let numbers = match width {
            AsWidth::Two => Numbers::Two(part.bytes().as_chunks().0),
            AsWidth::Four => Numbers::Four(part.bytes().as_chunks().0),
        };
        match kind {
            1 => each(true, numbers),
            2 => each(false, numbers),
            3 | 4 => {}
            _ => return Err(start.fault("AS_PATH: a segment's type is unknown")),
        }
    }
    Ok(())
}
