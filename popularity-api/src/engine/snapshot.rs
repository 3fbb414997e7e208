//! The snapshot's format: the whole table, shard by shard, each as of an offset of the binlog. Pure: bytes in, bytes out.
//!
//! Its file is named by the offset at which it was begun, `snapshot-00000000000000000000`. All numbers are little-endian.
//!
//! ```text
//!   "SUNSNAP2" | offset u64 | time_ms u64 | half-lives, ms: f64 f64
//!   sources u32 | source: name bytes u16, name, boot u64, sequence u64 | ...       by name
//!   crc32c u32 of everything before
//!
//!   section:  "SUNS" | payload bytes u64 | crc32c u32 | payload: one shard         those that have files
//!             crc32c over: the snapshot's offset u64 | payload
//!   payload:  shard u16 | offset u64 | time_ms u64
//!             files u32   | file: size u64, name bytes u16, name | ...             by index
//!             regions u32 | region: id u16, pairs u32, pair ... | ...              as the table met them
//!                           pair: file u32 (place in the list above), hour u32, days u32     by file
//!
//!   "SUNE" | sections u32 | crc32c u32 over: the snapshot's offset u64 | sections u32
//! ```
//!
//! Ratings are in units of 2^-20, modulo 2^32, near to the section's `time_ms` (`packed.rs`).
//!
//! # Written while batches come
//!
//! The sources are as of the snapshot's offset, and a shard as of its own, which is the same or later. A frame of the
//! binlog counts for a shard when it stands at or after the shard's offset, so whoever reads it goes through the frames from
//! the snapshot's offset on, and counts each for the shards that do not have it. So nobody waits for more
//! than one shard's section to be put together, and nothing is counted twice.
//!
//! It is written beside its place and renamed, so a snapshot is there whole or not at all; the checksums find what a disk
//! does to it later. The latest two are kept, with the binlog since the older one, so one bad snapshot costs nothing.
//!
//! Half-lives are kept because the numbers mean nothing without them: a table that is read under others is translated
//! as of the snapshot's time.
//!
//! Snapshots of earlier builds, `SUNSNAP1`, are read (`earlier.rs`) and replaced by the next one.

mod earlier;

use std::io::{self, Write};
use std::sync::{PoisonError, RwLock};

use geo::RegionId;

use super::bytes::{Reader, put_text};
use super::decay::{Decay, Rating};
use super::files::FileIndex;
use super::folder::Folder;
use super::packed::{Now, Packed};
use super::table::{Mark, SHARDS, Table};

/// Up to where in the binlog a snapshot has everything.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Covered {
    /// Where it was begun: no frame before is needed.
    pub(super) offset: u64,
    /// For each shard, not before that.
    pub(super) shards: Box<[u64; SHARDS]>,
}

impl Covered {
    /// As without a snapshot: the binlog has everything.
    pub(super) fn nothing() -> Self {
        Self { offset: 0, shards: Box::new([0; SHARDS]) }
    }
}

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

/// The bytes of a snapshot of `table`, in which every frame before `offset` was counted, and none after it.
#[must_use]
pub fn write(table: &Table, offset: u64, time_ms: u64) -> Vec<u8> {
    let mut out = header(table, offset, time_ms);
    let sections = (0..SHARDS).filter_map(|shard| section(table, shard, offset, offset));
    let count = sections.inspect(|section| out.extend(section)).count();
    out.extend(end(count, offset));
    out
}

/// Writes a snapshot of a table that is at `offset` of the binlog to its place, while others write to the table. They wait
/// for a shard to be put together, never for the disk.
///
/// # Errors
///
/// What the operating system says.
pub fn write_shared(folder: &dyn Folder, table: &RwLock<Table>, offset: u64, time_ms: u64) -> io::Result<()> {
    let header = header(&table.read().unwrap_or_else(PoisonError::into_inner), offset, time_ms);
    write_begun(folder, table, offset, &header)
}

/// The same when what it begins with was made before.
pub(super) fn write_begun(folder: &dyn Folder, table: &RwLock<Table>, offset: u64, header: &[u8]) -> io::Result<()> {
    let of = |shard| {
        let table = table.read().unwrap_or_else(PoisonError::into_inner);
        section(&table, shard, offset, table.reached)
    };
    folder.replace_with(&name(offset), &mut |out| write_to(out, header, offset, of))
}

/// Writes a snapshot whose `header` was made at `offset`, with the sections that `section` gives for each shard.
///
/// # Errors
///
/// What `out` says.
pub(super) fn write_to(
    out: &mut dyn Write,
    header: &[u8],
    offset: u64,
    section: impl Fn(usize) -> Option<Vec<u8>>,
) -> io::Result<()> {
    out.write_all(header)?;
    let mut sections = 0;
    for section in (0..SHARDS).filter_map(section) {
        out.write_all(&section)?;
        sections += 1;
    }
    out.write_all(&end(sections, offset))
}

/// What a snapshot that is begun at `offset` begins with.
pub(super) fn header(table: &Table, offset: u64, time_ms: u64) -> Vec<u8> {
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
    out.extend(crc32c::crc32c(&out).to_le_bytes());
    out
}

/// A shard, in which every frame before `at` was counted and none after it, as a section of the snapshot at `offset`;
/// nothing when it has no files.
pub(super) fn section(table: &Table, shard: usize, offset: u64, at: u64) -> Option<Vec<u8>> {
    let part = table.shards.get(shard).filter(|part| part.files.len() > 0)?;
    let files = part.files.sorted();
    let mut out = Vec::with_capacity(SECTION_HEADER_BYTES + files.len() * 96);
    out.extend(SECTION_MAGIC);
    out.extend([0; SECTION_HEADER_BYTES - 4]);
    out.extend(u16::try_from(shard).unwrap_or(u16::MAX).to_le_bytes());
    out.extend(at.to_le_bytes());
    out.extend(table.time_ms.to_le_bytes());
    out.extend(count(files.len()).to_le_bytes());
    for &file in &files {
        out.extend(part.files.size(file).to_le_bytes());
        put_text(&mut out, part.files.name(file));
    }
    let regions: Vec<_> = table.regions.iter().zip(&part.regions).filter(|(_, pairs)| pairs.len() > 0).collect();
    out.extend(count(regions.len()).to_le_bytes());
    for (region, pairs) in regions {
        out.extend(region.id.0.to_le_bytes());
        out.extend(count(pairs.len()).to_le_bytes());
        let mut sorted: Vec<(FileIndex, Packed)> = pairs.iter().map(|pair| (pair.file, pair.rating)).collect();
        sorted.sort_unstable_by_key(|pair| pair.0);
        let mut place = 0;
        for (file, rating) in sorted {
            // Both are in order of file, and every pair's file is among the files.
            while files[place] != file {
                place += 1;
            }
            out.extend(count(place).to_le_bytes());
            out.extend(rating.hour.to_le_bytes());
            out.extend(rating.days.to_le_bytes());
        }
    }
    let payload_bytes = (out.len() - SECTION_HEADER_BYTES) as u64;
    let checksum = checksum(offset, &out[SECTION_HEADER_BYTES..]);
    out[4..12].copy_from_slice(&payload_bytes.to_le_bytes());
    out[12..16].copy_from_slice(&checksum.to_le_bytes());
    Some(out)
}

/// What a snapshot ends with.
fn end(sections: usize, offset: u64) -> Vec<u8> {
    let mut out = END_MAGIC.to_vec();
    let sections = count(sections).to_le_bytes();
    out.extend(sections);
    out.extend(checksum(offset, &sections).to_le_bytes());
    out
}

/// Reads what was written into an empty `table`; what it covers, or nothing when it is damaged (what is in the table then
/// means nothing).
pub(super) fn read(bytes: &[u8], table: &mut Table) -> Option<Covered> {
    if bytes.starts_with(earlier::MAGIC) {
        let offset = earlier::read(bytes, table)?;
        return Some(Covered { offset, shards: Box::new([offset; SHARDS]) });
    }
    let mut reader = Reader::new(bytes);
    let (offset, scale) = read_header(&mut reader, bytes, table)?;
    let mut covered = Covered { offset, shards: Box::new([offset; SHARDS]) };
    for sections in 0.. {
        let magic: [u8; 4] = reader.array()?;
        if magic == *END_MAGIC {
            let stored = reader.array()?;
            let sound = stored == u32::to_le_bytes(sections) && reader.u32()? == checksum(offset, &stored);
            return (sound && reader.is_empty()).then_some(covered);
        }
        let payload_bytes = usize::try_from(reader.u64()?).ok().filter(|_| magic == *SECTION_MAGIC)?;
        let stored = reader.u32()?;
        let payload = reader.bytes(payload_bytes)?;
        if stored != checksum(offset, payload) {
            return None;
        }
        let (shard, at) = read_section(payload, &scale, table)?;
        *covered.shards.get_mut(shard)? = at.max(offset);
    }
    None
}

/// How a snapshot's numbers are to be read.
struct Scale {
    /// Its half-lives.
    decay: Decay,
    translation: Translation,
}

fn read_header(reader: &mut Reader<'_>, bytes: &[u8], table: &mut Table) -> Option<(u64, Scale)> {
    if reader.array()? != *MAGIC {
        return None;
    }
    let (offset, time_ms) = (reader.u64()?, reader.u64()?);
    let (hour_ms, days_ms) = (reader.f64()?, reader.f64()?);
    let mut sources = Vec::new();
    for _ in 0..reader.u32()? {
        let name = reader.text()?.to_owned();
        sources.push((name, Mark { boot: reader.u64()?, sequence: reader.u64()? }));
    }
    let read = bytes.len() - reader.left();
    if reader.u32()? != crc32c::crc32c(&bytes[..read]) {
        return None;
    }
    table.sources.extend(sources);
    let seconds = |ms: f64| (ms / 1000.0).round() as u64;
    let decay = Decay::new(seconds(hour_ms), seconds(days_ms), 0.5)?;
    Some((offset, Scale { decay, translation: Translation::new(hour_ms, days_ms, &table.decay, time_ms) }))
}

/// Reads a shard: its number and offset.
fn read_section(payload: &[u8], scale: &Scale, table: &mut Table) -> Option<(usize, u64)> {
    let mut reader = Reader::new(payload);
    let (shard, at, time_ms) = (reader.u16()?, reader.u64()?, reader.u64()?);
    let now = Now::at(&scale.decay, time_ms);
    table.advance(time_ms);
    // A name that is no longer taken is read and left out.
    let mut files = Vec::new();
    for _ in 0..reader.u32()? {
        let size = reader.u64()?;
        files.push(table.restore_file(reader.text()?, size));
    }
    for _ in 0..reader.u32()? {
        let region = RegionId(reader.u16()?);
        for _ in 0..reader.u32()? {
            let file = *files.get(reader.u32()? as usize)?;
            let rating = now.unpack(Packed { hour: reader.u32()?, days: reader.u32()? });
            if let Some(file) = file {
                table.restore_pair(region, file, scale.translation.apply(rating));
            }
        }
    }
    reader.is_empty().then_some((usize::from(shard), at))
}

fn checksum(offset: u64, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&offset.to_le_bytes()), payload)
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
const MAGIC: &[u8; 8] = b"SUNSNAP2";
const SECTION_MAGIC: &[u8; 4] = b"SUNS";
const SECTION_HEADER_BYTES: usize = 16;
const END_MAGIC: &[u8; 4] = b"SUNE";

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
        let header = [
            &b"SUNSNAP2"[..],
            &77_u64.to_le_bytes(),
            &256_u64.to_le_bytes(),
            &3_600_000_f64.to_le_bytes(),
            &172_800_000_f64.to_le_bytes(),
            &[1, 0, 0, 0],
            &[3, 0, b's', b'u', b'n'],
            &9_u64.to_le_bytes(),
            &1_u64.to_le_bytes(),
        ]
        .concat();
        let payload = [
            &[236, 0][..],
            &77_u64.to_le_bytes(),
            &LANDMARK_MS.to_le_bytes(),
            &[1, 0, 0, 0],
            &1000_u64.to_le_bytes(),
            &[4, 0, b'c', b'1', b'/', b'a'],
            &[1, 0, 0, 0],
            &[4, 0],
            &[1, 0, 0, 0],
            &[0, 0, 0, 0],
            &[0, 0, 16, 0],
            &[0, 0, 16, 0],
        ]
        .concat();
        let crc = |of: &[u8]| crc32c::crc32c(of).to_le_bytes();
        let offset = 77_u64.to_le_bytes();
        let expected = [
            &header[..],
            &crc(&header),
            b"SUNS",
            &(payload.len() as u64).to_le_bytes(),
            &crc(&[&offset[..], &payload].concat()),
            &payload,
            b"SUNE",
            &[1, 0, 0, 0],
            &crc(&[&offset[..], &[1, 0, 0, 0]].concat()),
        ]
        .concat();
        assert_eq!(written, expected);
        assert_eq!((name(77).as_str(), offset_of(&name(77))), ("snapshot-00000000000000000077", Some(77)));
        assert_eq!(offset_of("snapshot-77"), None);
    }

    #[test]
    fn what_was_written_is_read() {
        let mut table = empty(3600);
        table.apply(&group(LANDMARK_MS, &[(4, "c1/a", 2.0), (5, "c1/a", 1.0), (4, "c1/b", 3.0)]));
        let mut again = empty(3600);
        assert_eq!(read(&write(&table, 77, 1), &mut again).map(|covered| covered.offset), Some(77));
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
        assert_eq!(read(&write(&table, 0, now), &mut again), Some(Covered::nothing()));
        let left = again.decay.at(now).left(again.top(RegionId(4), 1)[0].rating);
        assert!((left.0 - 2.0).abs() < 1e-5, "{left:?}");
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
