//! The snapshot's format: the whole table at one offset of the binlog. Pure: bytes in, bytes out.
//!
//! Its file is named by that offset, `snapshot-00000000000000000000`. All numbers are little-endian.
//!
//! ```text
//!   "SUNSNAP1" | offset u64 | time_ms u64 | half-lives, ms: f64 f64
//!   sources u32 | source: name bytes u16, name, boot u64, sequence u64 | ...       by name
//!   files u32   | file: size u64, name bytes u16, name | ...                       by index
//!   regions u32 | region: id u16, pairs u32, pair ... | ...                        by id
//!                 pair: file u32 (place in the list above), hour f64, days f64     by file
//!   crc32c u32 of everything before
//! ```
//!
//! Frames of the binlog before the offset are in it, frames at and after it are not. It is written beside its place
//! and renamed, so a snapshot is there whole or not at all; the checksum finds what a disk does to it later. The
//! latest two are kept, with the binlog since the older one, so one bad snapshot costs nothing.
//!
//! Half-lives are kept because the numbers mean nothing without them: a table that is read under others is translated
//! as of the snapshot's time.

use std::collections::HashMap;

use geo::RegionId;

use super::bytes::{Reader, put_text};
use super::decay::{Decay, Rating};
use super::files::FileIndex;
use super::table::{Mark, Pairs, Table};

/// The file of the snapshot at `offset`.
#[must_use]
pub fn name(offset: u64) -> String {
    format!("{PREFIX}{offset:020}")
}

/// The offset that a snapshot's file is named by; nothing for other files.
#[must_use]
pub fn offset_of(file: &str) -> Option<u64> {
    let digits = file.strip_prefix(PREFIX)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The bytes of a snapshot of `table`, in which every frame before `offset` was counted.
#[must_use]
pub fn write(table: &Table, offset: u64, time_ms: u64) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(offset.to_le_bytes());
    out.extend(time_ms.to_le_bytes());
    let (hour_ms, days_ms) = table.decay.half_lives_ms();
    out.extend(hour_ms.to_le_bytes());
    out.extend(days_ms.to_le_bytes());
    out.extend(count(table.sources.len()).to_le_bytes());
    for (name, mark) in &table.sources {
        put_text(&mut out, name);
        out.extend(mark.boot.to_le_bytes());
        out.extend(mark.sequence.to_le_bytes());
    }
    let mut places: HashMap<FileIndex, u32> = HashMap::with_capacity(table.files.len());
    out.extend(count(table.files.len()).to_le_bytes());
    for (place, (index, file)) in (0..).zip(table.files.iter()) {
        places.insert(index, place);
        out.extend(file.size.to_le_bytes());
        put_text(&mut out, &file.name);
    }
    out.extend(count(table.regions.len()).to_le_bytes());
    for (region, pairs) in &table.regions {
        out.extend(region.0.to_le_bytes());
        out.extend(count(pairs.len()).to_le_bytes());
        let mut sorted: Vec<(u32, Rating)> = pairs.iter().map(|(index, &rating)| (places[index], rating)).collect();
        sorted.sort_unstable_by_key(|pair| pair.0);
        for (place, rating) in sorted {
            out.extend(place.to_le_bytes());
            out.extend(rating.hour.to_le_bytes());
            out.extend(rating.days.to_le_bytes());
        }
    }
    out.extend(crc32c::crc32c(&out).to_le_bytes());
    out
}

/// Reads what [`write`] wrote into an empty `table`; the offset it is of, or nothing when it is damaged (what is
/// in the table then means nothing).
#[must_use]
pub fn read(bytes: &[u8], table: &mut Table) -> Option<u64> {
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
    // A name that this build no longer takes for canonical is read and left out.
    let mut files = Vec::new();
    for _ in 0..reader.u32()? {
        let size = reader.u64()?;
        files.push(table.files.add(reader.text()?, size));
    }
    let translate = Translation::new(hour_ms, days_ms, &table.decay, time_ms);
    for _ in 0..reader.u32()? {
        let region = RegionId(reader.u16()?);
        let mut pairs = Pairs::default();
        for _ in 0..reader.u32()? {
            let file = *files.get(reader.u32()? as usize)?;
            let rating = Rating { hour: reader.f64()?, days: reader.f64()? };
            if let Some(file) = file
                && pairs.insert(file, translate.apply(rating)).is_none()
            {
                table.files.hold(file);
            }
        }
        table.regions.insert(region, pairs);
    }
    reader.is_empty().then_some(offset)
}

/// From the half-lives that ratings were written under to those of now.
struct Translation {
    hour: f64,
    days: f64,
}

impl Translation {
    fn new(hour_ms: f64, days_ms: f64, now: &Decay, time_ms: u64) -> Self {
        if (hour_ms, days_ms) == now.half_lives_ms() {
            return Self { hour: 0.0, days: 0.0 };
        }
        let (hour, days) = now.at(time_ms).log2_ages();
        let (hour_now, days_now) = now.half_lives_ms();
        Self { hour: hour - hour * hour_now / hour_ms, days: days - days * days_now / days_ms }
    }

    fn apply(&self, rating: Rating) -> Rating {
        Rating { hour: rating.hour + self.hour, days: rating.days + self.days }
    }
}

fn count(of: usize) -> u32 {
    u32::try_from(of).expect("tables are bounded far below 2^32")
}

const PREFIX: &str = "snapshot-";
const MAGIC: &[u8; 8] = b"SUNSNAP1";

#[cfg(test)]
mod tests {
    use super::super::batch::{Batch, Entry, Group};
    use super::*;
    use crate::engine::decay::LANDMARK_MS;

    #[test]
    fn a_snapshot_is_written_like_this() {
        let mut table = empty(3600);
        table.apply(&group(LANDMARK_MS, &[(4, "c1/a", 2.0)]));
        let written = write(&table, 77, 256);
        let expected = [
            &b"SUNSNAP1"[..],
            &77_u64.to_le_bytes(),
            &256_u64.to_le_bytes(),
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
            &1_f64.to_le_bytes(),
        ]
        .concat();
        assert_eq!(written[..written.len() - 4], expected);
        assert_eq!(written[written.len() - 4..], crc32c::crc32c(&expected).to_le_bytes());
        assert_eq!((name(77).as_str(), offset_of(&name(77))), ("snapshot-00000000000000000077", Some(77)));
        assert_eq!(offset_of("snapshot-77"), None);
    }

    #[test]
    fn what_was_written_is_read() {
        let mut table = empty(3600);
        table.apply(&group(LANDMARK_MS, &[(4, "c1/a", 2.0), (5, "c1/a", 1.0), (4, "c1/b", 3.0)]));
        let mut again = empty(3600);
        assert_eq!(read(&write(&table, 77, 1), &mut again), Some(77));
        assert_eq!(write(&again, 77, 1), write(&table, 77, 1));
        assert_eq!(again.top(RegionId(4), 9), table.top(RegionId(4), 9));
        assert_eq!(again.mark("sun"), Mark { boot: 9, sequence: 1 });
    }

    #[test]
    fn other_half_lives_leave_the_same_downloads() {
        let mut table = empty(3600);
        table.apply(&group(LANDMARK_MS, &[(4, "c1/a", 8.0)]));
        let now = LANDMARK_MS + 2 * 3_600_000;
        let mut again = empty(1800);
        assert_eq!(read(&write(&table, 0, now), &mut again), Some(0));
        let left = again.decay.at(now).left(again.top(RegionId(4), 1)[0].rating);
        assert!((left.0 - 2.0).abs() < 1e-9, "{left:?}");
    }

    #[test]
    fn no_damage_is_read() {
        let mut table = empty(3600);
        table.apply(&group(LANDMARK_MS, &[(4, "c1/a", 2.0)]));
        let written = write(&table, 77, 1);
        for at in 0..written.len() {
            let mut flipped = written.clone();
            flipped[at] ^= 1;
            assert_eq!(read(&flipped, &mut empty(3600)), None, "byte {at}");
            assert_eq!(read(&written[..at], &mut empty(3600)), None, "cut at {at}");
        }
    }

    fn empty(half_life_hour_s: u64) -> Table {
        Table::new(Decay::new(half_life_hour_s, 172_800, 0.25).unwrap(), 100)
    }

    fn group(time_ms: u64, downloads: &[(u16, &str, f64)]) -> Group {
        let entries = downloads
            .iter()
            .map(|&(region, file, downloads)| Entry {
                region: RegionId(region),
                file: file.into(),
                size: 1000,
                downloads,
            })
            .collect();
        let mark = Mark { boot: 9, sequence: 1 };
        Group { time_ms, batches: vec![Batch { source: "sun".to_owned(), mark, entries }] }
    }
}
