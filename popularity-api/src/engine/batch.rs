//! Batches of downloads as the engine knows them: checked, and grouped as they become durable.
//!
//! How a group is written, all numbers little-endian:
//!
//! ```text
//!   group:   time_ms u64 | batches u32 | batch ...
//!   batch:   source bytes u16 | source | boot u64 | sequence u64 | entries u32 | entry ...
//!   entry:   region u16 | size u64 | downloads f64 | name bytes u16 | name
//! ```
//!
//! `a_group_is_written_like_this` pins it. Reading checks every length against what is there.

use geo::RegionId;

use super::bytes::{Reader, put_text};
use super::table::Mark;

/// What one source reported at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Who.
    pub source: String,
    /// Its boot and sequence.
    pub mark: Mark,
    /// What was downloaded.
    pub entries: Vec<Entry>,
}

/// Downloads of one file by one region's clients.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Region of the clients.
    pub region: RegionId,
    /// Canonical name.
    pub file: Box<str>,
    /// Bytes of the whole file.
    pub size: u64,
    /// Above 0 and finite.
    pub downloads: f64,
}

/// Batches that become durable together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// The moment that their downloads count as of, milliseconds since 1970.
    pub time_ms: u64,
    /// In the order in which they are counted.
    pub batches: Vec<Batch>,
}

impl Batch {
    /// Bytes of RAM and of binlog that it takes, roughly; what queues are bounded by.
    #[must_use]
    pub fn bytes(&self) -> usize {
        64 + self.source.len() + self.entries.iter().map(|entry| 64 + entry.file.len()).sum::<usize>()
    }
}

impl Group {
    /// Appends the group as drawn above.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.time_ms.to_le_bytes());
        out.extend(count(self.batches.len()).to_le_bytes());
        for batch in &self.batches {
            put_text(out, &batch.source);
            out.extend(batch.mark.boot.to_le_bytes());
            out.extend(batch.mark.sequence.to_le_bytes());
            out.extend(count(batch.entries.len()).to_le_bytes());
            for entry in &batch.entries {
                out.extend(entry.region.0.to_le_bytes());
                out.extend(entry.size.to_le_bytes());
                out.extend(entry.downloads.to_le_bytes());
                put_text(out, &entry.file);
            }
        }
    }

    /// Reads what [`Group::write`] wrote; nothing when it is not exactly that.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let time_ms = reader.u64()?;
        let batches = (0..reader.u32()?).map(|_| read_batch(&mut reader)).collect::<Option<Vec<_>>>()?;
        reader.is_empty().then_some(Self { time_ms, batches })
    }
}

fn read_batch(reader: &mut Reader<'_>) -> Option<Batch> {
    let source = reader.text()?.to_owned();
    let mark = Mark { boot: reader.u64()?, sequence: reader.u64()? };
    let entries = (0..reader.u32()?).map(|_| read_entry(reader)).collect::<Option<Vec<_>>>()?;
    Some(Batch { source, mark, entries })
}

fn read_entry(reader: &mut Reader<'_>) -> Option<Entry> {
    let region = RegionId(reader.u16()?);
    let (size, downloads) = (reader.u64()?, reader.f64()?);
    let file = reader.text()?.into();
    (downloads.is_finite() && downloads > 0.0).then_some(Entry { region, file, size, downloads })
}

fn count(of: usize) -> u32 {
    u32::try_from(of).expect("batches and entries are bounded far below 2^32")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_written_like_this() {
        let mut written = Vec::new();
        group().write(&mut written);
        let expected = [
            &[7, 0, 0, 0, 0, 0, 0, 0][..],
            &[1, 0, 0, 0],
            &[4, 0, b's', b'u', b'n', b'4'],
            &[2, 1, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0],
            &[4, 0],
            &[0, 2, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 0, 0, 0, 0xf8, 0x3f],
            &[4, 0, b'c', b'1', b'/', b'a'],
        ]
        .concat();
        assert_eq!(written, expected);
        assert_eq!(Group::read(&written), Some(group()));
    }

    #[test]
    fn a_group_that_lacks_or_exceeds_a_byte_is_not_read() {
        let mut written = Vec::new();
        group().write(&mut written);
        for end in 0..written.len() {
            assert_eq!(Group::read(&written[..end]), None, "cut at {end}");
        }
        written.push(0);
        assert_eq!(Group::read(&written), None);
    }

    fn group() -> Group {
        let entry = Entry { region: RegionId(4), file: "c1/a".into(), size: 512, downloads: 1.5 };
        let mark = Mark { boot: 258, sequence: 3 };
        Group { time_ms: 7, batches: vec![Batch { source: "sun4".to_owned(), mark, entries: vec![entry] }] }
    }
}
