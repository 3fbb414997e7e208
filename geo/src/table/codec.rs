//! The file that a table is kept in, which is also what a server publishes (compressed by HTTP).
//!
//! ```text
//!   "SUNGEO" 0 1                      8 bytes: the format and its version
//!   epoch, sequence, made, topology   8 bytes each, low byte first: the stamp
//!   leaves of prefixes                part: see `leaves`
//!   IPv4 prefixes, IPv6 prefixes      part: count, then as parts: lengths (a byte each), addresses, leaves
//!   leaves of the base                part
//!   IPv4 ranges, IPv6 ranges          part: count, then as parts: shifts (a byte each), starts, leaves + 1 (0: nothing)
//!   CRC-32C of all before             4 bytes, low byte first
//! ```
//!
//! A part is its length in bytes and the bytes. Numbers are LEB128. Prefixes are in order of address, the shorter first, and
//! an address is the difference to the one before, both cut to the prefix's length: most are one byte. A start is the difference to the start
//! before, without its `shift` low zero bits. Same things stand together, so that they compress.
//!
//! Loading is decoding and building. It is not a mapping of ready memory: that would be 70 MB on disk and over HTTP
//! instead of 5, would tie the file to the processor, and would need trust in every index of it.

mod bytes;
mod leaves;

use super::base::{Base, NOTHING, RANGES_MAX, Ranges};
use super::key::Key;
use super::prefixes::{LEAVES_MAX, PREFIXES_MAX};
use super::writer::{Content, Writer, v4_key, v6_key};
use bytes::{Reader, put};

/// Which state of which table it is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Stamp {
    /// A number that the table's server chose when it started: sequences of different epochs do not compare.
    pub epoch: u64,
    /// Rises with each change within the epoch.
    pub sequence: u64,
    /// When it was made, seconds since 1970.
    pub made_unix_s: u64,
    /// The version of the topology that its regions are of.
    pub topology_version: u64,
}

/// The bytes are no table.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("byte {offset}: {what}")]
pub struct DecodeError {
    /// From the beginning of the file.
    pub offset: usize,
    /// What is wrong there.
    pub what: &'static str,
}

impl Writer {
    /// The table as a file.
    #[must_use]
    pub fn encode(&self, stamp: &Stamp) -> Vec<u8> {
        encoded(self.content(), stamp)
    }

    /// The table of a file. Prefixes are bounded at 4,194,304 of each family, ranges at twice that, leaves by both, and nodes
    /// at 256 MiB for the prefixes of a family and as much for its ranges: what [`Self::encode`] makes is within.
    ///
    /// # Errors
    ///
    /// The first byte that no table has there.
    pub fn decode(bytes: &[u8]) -> Result<(Self, Stamp), DecodeError> {
        let mut reader = checked(bytes)?;
        let stamp = Stamp {
            epoch: reader.u64()?,
            sequence: reader.u64()?,
            made_unix_s: reader.u64()?,
            topology_version: reader.u64()?,
        };
        let leaves = reader.part()?;
        let (v4, v6) = (reader.part()?, reader.part()?);
        let leaves = leaves::decode(leaves, counted(v4, PREFIXES_MAX)? + counted(v6, PREFIXES_MAX)?)?;
        let base = (reader.part()?, reader.part()?, reader.part()?);
        reader.end()?;
        let mut v4 = Prefixes::of(v4, 32, leaves.len())?;
        let mut v6 = Prefixes::of(v6, 128, leaves.len())?;
        let base = || {
            let leaves = leaves::decode(base.0, counted(base.1, RANGES_MAX)? + counted(base.2, RANGES_MAX)?)?;
            let v4 = ranges(base.1, 32, leaves.len())?.into_iter().map(|(start, leaf)| (start as u32, leaf)).collect();
            Ok(Base::build(Ranges { v4, v6: ranges(base.2, 128, leaves.len())?, leaves }))
        };
        let writer = Self::assemble(leaves, &mut v4, &mut v6, base)?;
        v4.result()?;
        v6.result()?;
        if writer.table().is_cut() {
            return Err(DecodeError { offset: bytes.len(), what: "more than a table has room for" });
        }
        Ok((writer, stamp))
    }
}

/// Of prefixes in order.
pub(super) fn encoded(content: Content, stamp: &Stamp) -> Vec<u8> {
    let Content { v4, v6, leaves, base } = content;
    let mut bytes = MAGIC.to_vec();
    for number in [stamp.epoch, stamp.sequence, stamp.made_unix_s, stamp.topology_version] {
        bytes.extend(number.to_le_bytes());
    }
    part(&mut bytes, &leaves::encode(leaves.iter()));
    part(&mut bytes, &prefixes(v4.into_iter().map(v4_key), 32));
    part(&mut bytes, &prefixes(v6.into_iter().map(v6_key), 128));
    let ranges = base.ranges();
    part(&mut bytes, &leaves::encode(ranges.leaves.iter()));
    part(&mut bytes, &starts(ranges.v4.into_iter().map(|(start, leaf)| (start.into(), leaf))));
    part(&mut bytes, &starts(ranges.v6.into_iter()));
    let sum = crc32c::crc32c(&bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

/// How many items a part has: it names so many leaves at most.
fn counted(mut part: Reader<'_>, max: usize) -> Result<usize, DecodeError> {
    part.count(max, 3)
}

/// What is between the magic and the sum, when both are right.
fn checked(bytes: &[u8]) -> Result<Reader<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    if reader.take(MAGIC.len())? != MAGIC {
        return Err(DecodeError { offset: 0, what: "not a geo table of version 1" });
    }
    let end = bytes.len().saturating_sub(4).max(MAGIC.len());
    let sum = bytes.get(end..).unwrap_or_default();
    let bytes = bytes.get(..end).unwrap_or_default();
    if sum != crc32c::crc32c(bytes).to_le_bytes() {
        return Err(DecodeError { offset: end, what: "the checksum is another" });
    }
    let mut reader = Reader::new(bytes);
    reader.take(MAGIC.len())?;
    Ok(reader)
}

fn part(bytes: &mut Vec<u8>, part: &[u8]) {
    put(bytes, part.len() as u128);
    bytes.extend(part);
}

fn parts(count: usize, columns: [Vec<u8>; 3]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(columns.iter().map(Vec::len).sum::<usize>() + 32);
    put(&mut bytes, count as u128);
    columns.iter().for_each(|column| part(&mut bytes, column));
    bytes
}

fn prefixes(sorted: impl ExactSizeIterator<Item = (Key, u32)>, width: u8) -> Vec<u8> {
    let count = sorted.len();
    let [mut lengths, mut addresses, mut leaves] = [(); 3].map(|()| Vec::with_capacity(count));
    let mut before = 0;
    for (key, leaf) in sorted {
        let cut = |bits: u128| bits.checked_shr(u32::from(128 - key.len)).unwrap_or(0);
        lengths.push(key.len);
        put(&mut addresses, cut(key.bits) - cut(before));
        put(&mut leaves, leaf.into());
        before = key.bits;
    }
    debug_assert!(lengths.iter().all(|len| *len <= width));
    parts(count, [lengths, addresses, leaves])
}

/// The prefixes of a part, as they are read. The first error ends them.
struct Prefixes<'a> {
    left: usize,
    width: u8,
    known_leaves: usize,
    lengths: Reader<'a>,
    addresses: Reader<'a>,
    leaves: Reader<'a>,
    before: Option<Key>,
    failed: Option<DecodeError>,
}

impl<'a> Prefixes<'a> {
    fn of(mut reader: Reader<'a>, width: u8, known_leaves: usize) -> Result<Self, DecodeError> {
        let left = reader.count(PREFIXES_MAX, 3)?;
        let (lengths, addresses, leaves) = (reader.part()?, reader.part()?, reader.part()?);
        reader.end()?;
        Ok(Self { left, width, known_leaves, lengths, addresses, leaves, before: None, failed: None })
    }

    fn read(&mut self) -> Result<(Key, u32), DecodeError> {
        let len = self.lengths.byte_upto(self.width, "too long a prefix")?;
        let at = self.addresses;
        let before = self.before.map_or(0, |before| before.bits);
        let low = u32::from(128 - len);
        let cut = before.checked_shr(low).unwrap_or(0).checked_add(self.addresses.number()?);
        let bits = cut.filter(|bits| len == 128 || bits >> len == 0).map(|bits| bits.checked_shl(low).unwrap_or(0));
        let key = Key::new(bits.ok_or_else(|| at.error("behind the last address"))?, len);
        if self.before.is_some_and(|before| before >= key) {
            return Err(at.error("a prefix out of order"));
        }
        self.before = Some(key);
        let leaf = self.leaves.below(self.known_leaves, "no such leaf")?;
        Ok((key, leaf as u32))
    }

    /// After the last one was read.
    fn result(&self) -> Result<(), DecodeError> {
        match self.failed {
            Some(error) => Err(error),
            None => self.lengths.end().and_then(|()| self.addresses.end()).and_then(|()| self.leaves.end()),
        }
    }
}

impl Iterator for Prefixes<'_> {
    type Item = (Key, u32);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        match self.read() {
            Ok(prefix) => Some(prefix),
            Err(error) => {
                self.failed = Some(error);
                self.left = 0;
                None
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Prefixes<'_> {}

fn starts(sorted: impl ExactSizeIterator<Item = (u128, u32)>) -> Vec<u8> {
    let count = sorted.len();
    let [mut shifts, mut starts, mut leaves] = [(); 3].map(|()| Vec::with_capacity(count));
    let mut before = 0;
    for (start, leaf) in sorted {
        let behind: u128 = start - before;
        let shift = if behind == 0 { 0 } else { behind.trailing_zeros() };
        shifts.push(shift as u8);
        put(&mut starts, behind >> shift);
        put(&mut leaves, if leaf == NOTHING { 0 } else { u128::from(leaf) + 1 });
        before = start;
    }
    parts(count, [shifts, starts, leaves])
}

fn ranges(mut reader: Reader<'_>, width: u8, known_leaves: usize) -> Result<Vec<(u128, u32)>, DecodeError> {
    let count = reader.count(RANGES_MAX, 3)?;
    let (mut shifts, mut starts, mut leaves) = (reader.part()?, reader.part()?, reader.part()?);
    reader.end()?;
    let mut ranges = Vec::with_capacity(count);
    let mut before: Option<u128> = None;
    for _ in 0..count {
        let shift = u32::from(shifts.byte_upto(width - 1, "too large a shift")?);
        let at = starts;
        let number = starts.number()?;
        let behind = number.checked_shl(shift).filter(|behind| behind >> shift == number);
        let start = behind.and_then(|behind| before.unwrap_or(0).checked_add(behind));
        let start = start.filter(|start| width == 128 || start >> width == 0);
        let start = start.ok_or_else(|| at.error("behind the last address"))?;
        if before.is_some_and(|before| before >= start) {
            return Err(at.error("a range out of order"));
        }
        before = Some(start);
        let leaf = leaves.below(known_leaves + 1, "no such leaf")? as u32;
        ranges.push((start, leaf.wrapping_sub(1)));
    }
    shifts.end().and_then(|()| starts.end()).and_then(|()| leaves.end())?;
    Ok(ranges)
}

const MAGIC: [u8; 8] = *b"SUNGEO\0\x01";
