//! Snapshots as earlier builds wrote them, read so that an update loses nothing. No more are written.
//!
//! ```text
//!   "SUNSNAP1" | offset u64 | time_ms u64 | half-lives, ms: f64 f64
//!   sources u32 | source: name bytes u16, name, boot u64, sequence u64 | ...
//!   files u32   | file: size u64, name bytes u16, name | ...
//!   regions u32 | region: id u16, pairs u32, pair ... | ...
//!                 pair: file u32 (place in the list above), hour f64, days f64
//!   crc32c u32 of everything before
//! ```
//!
//! All of it is as of one offset.

use geo::RegionId;

use super::super::bytes::Reader;
use super::super::decay::Rating;
use super::super::table::{Mark, Table};
use super::Translation;

/// What such a snapshot begins with.
pub(super) const MAGIC: &[u8; 8] = b"SUNSNAP1";

/// Reads one into an empty `table`; the offset it is of, or nothing when it is damaged.
pub(super) fn read(bytes: &[u8], table: &mut Table) -> Option<u64> {
    let (body, checksum) = bytes.split_last_chunk()?;
    if u32::from_le_bytes(*checksum) != crc32c::crc32c(body) {
        return None;
    }
    let mut reader = Reader::new(body);
    if reader.array()? != *MAGIC {
        return None;
    }
    let (offset, time_ms) = (reader.u64()?, reader.u64()?);
    let (hour_ms, days_ms) = (reader.f64()?, reader.f64()?);
    for _ in 0..reader.u32()? {
        let name = reader.text()?.to_owned();
        table.sources.insert(name, Mark { boot: reader.u64()?, sequence: reader.u64()? });
    }
    let mut files = Vec::new();
    for _ in 0..reader.u32()? {
        let size = reader.u64()?;
        files.push(table.restore_file(reader.text()?, size));
    }
    table.advance(time_ms);
    let translation = Translation::new(hour_ms, days_ms, &table.decay, time_ms);
    for _ in 0..reader.u32()? {
        let region = RegionId(reader.u16()?);
        for _ in 0..reader.u32()? {
            let file = *files.get(reader.u32()? as usize)?;
            let rating = Rating { hour: reader.f64()?, days: reader.f64()? };
            if let Some(file) = file {
                table.restore_pair(region, file, translation.apply(rating));
            }
        }
    }
    reader.is_empty().then_some(offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::decay::{Decay, LANDMARK_MS};

    #[test]
    fn what_an_earlier_build_wrote_is_read() {
        let decay = Decay::new(3600, 172_800, 0.25).unwrap();
        let mut table = Table::new(decay, 100);
        assert_eq!(read(&written(), &mut table), Some(77));
        let top = table.top(RegionId(4), 9);
        assert_eq!((top.len(), top[0].file.name, top[0].file.size), (1, "c1/a", 1000));
        assert_eq!(top[0].rating, Rating { hour: 1.0, days: 2.0 });
        assert_eq!(table.mark("sun"), Mark { boot: 9, sequence: 1 });
    }

    #[test]
    fn no_damage_of_it_is_read() {
        let decay = Decay::new(3600, 172_800, 0.25).unwrap();
        for at in 0..written().len() {
            let mut flipped = written();
            flipped[at] ^= 1;
            assert_eq!(super::super::read(&flipped, &mut Table::new(decay, 100)), None, "byte {at}");
        }
    }

    fn written() -> Vec<u8> {
        let mut written = [
            &b"SUNSNAP1"[..],
            &77_u64.to_le_bytes(),
            &LANDMARK_MS.to_le_bytes(),
            &3_600_000_f64.to_le_bytes(),
            &172_800_000_f64.to_le_bytes(),
            &[1, 0, 0, 0],
            &[3, 0, b's', b'u', b'n'],
            &9_u64.to_le_bytes(),
            &1_u64.to_le_bytes(),
            &[1, 0, 0, 0],
            &1000_u64.to_le_bytes(),
            &[4, 0, b'c', b'1', b'/', b'a'],
            &[1, 0, 0, 0],
            &[4, 0],
            &[1, 0, 0, 0],
            &[0, 0, 0, 0],
            &1_f64.to_le_bytes(),
            &2_f64.to_le_bytes(),
        ]
        .concat();
        written.extend(crc32c::crc32c(&written).to_le_bytes());
        written
    }
}
