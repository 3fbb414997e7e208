//! Whether a snapshot and the binlog after it are whole and fit together, and what they come to. Reads, changes nothing.

use super::binlog;
use super::decay::Decay;
use super::snapshot;
use super::table::Table;

/// What a snapshot and a segment of the binlog come to.
#[derive(Clone, Debug, Default, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Inspected {
    /// Up to where in the binlog.
    pub offset: u64,
    /// Frames in the segment.
    pub groups: u64,
    /// Rated files of each region.
    pub pairs: std::collections::BTreeMap<u16, u64>,
    /// Files that at least one region rates.
    pub files: u64,
    /// Servers whose batches were counted.
    pub sources: u64,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Flaw {
    /// A checksum of the snapshot does not fit.
    #[error("the snapshot is damaged, or of a later build")]
    Snapshot,
    /// The snapshot says another offset than its name.
    #[error("the snapshot is of the offset {is}, and {expected} was expected")]
    Offset {
        /// In its name.
        expected: u64,
        /// In it.
        is: u64,
    },
    /// Frames are damaged or missing.
    #[error("{0} bytes of the binlog are damaged")]
    Damaged(u64),
    /// The end of the binlog is missing.
    #[error("the binlog's last {0} bytes are no whole frame")]
    Torn(u64),
    /// The snapshot has downloads of frames that are not there.
    #[error("the snapshot needs the binlog up to {needed}, and it ends at {end}")]
    Short {
        /// By the snapshot.
        needed: u64,
        /// What there is.
        end: u64,
    },
}

/// Reads the snapshot at `start` (none: there is none, and `start` is 0) and the segment that starts there.
///
/// # Errors
///
/// [`Flaw`].
pub fn inspect(snapshot: Option<&[u8]>, segment: &[u8], start: u64) -> Result<Inspected, Flaw> {
    // Counts do not depend on half-lives, and with this bound nothing goes: they are the same whoever counts.
    let mut table = Table::new(Decay::new(3600, 172_800, 0.25).expect("the defaults are sound"), PAIRS_MAX);
    let covered = match snapshot {
        Some(bytes) => snapshot::read(bytes, &mut table).ok_or(Flaw::Snapshot)?,
        None => snapshot::Covered::nothing(),
    };
    if covered.offset != start {
        return Err(Flaw::Offset { expected: start, is: covered.offset });
    }
    let mut groups = 0;
    let scanned = binlog::scan(segment, start, None, start, |offset, group| {
        groups += 1;
        table.replay(&group, offset, &covered.shards);
    });
    if segment.get(..binlog::SEGMENT_HEADER_BYTES) != Some(&binlog::segment_header(start)[..]) {
        return Err(Flaw::Damaged(binlog::SEGMENT_HEADER_BYTES as u64));
    }
    if scanned.damaged_bytes > 0 {
        return Err(Flaw::Damaged(scanned.damaged_bytes));
    }
    if scanned.torn_bytes > 0 {
        return Err(Flaw::Torn(scanned.torn_bytes));
    }
    let needed = covered.shards.iter().copied().max().unwrap_or(start);
    if needed > scanned.end {
        return Err(Flaw::Short { needed, end: scanned.end });
    }
    Ok(Inspected {
        offset: scanned.end,
        groups,
        pairs: table.pairs().map(|(region, pairs)| (region.0, pairs as u64)).collect(),
        files: table.file_count() as u64,
        sources: table.sources.len() as u64,
    })
}

/// Of one region; no snapshot has more.
const PAIRS_MAX: usize = u32::MAX as usize;

#[cfg(test)]
mod tests {
    use geo::RegionId;

    use super::super::batch::{Batch, Entry, Group};
    use super::super::decay::LANDMARK_MS;
    use super::super::table::Mark;
    use super::*;

    #[test]
    fn what_is_whole_is_counted() {
        let (snapshot, segment) = parts();
        let found = inspect(Some(&snapshot), &segment, 100).unwrap();
        assert_eq!((found.groups, found.files, found.sources), (2, 3, 1));
        assert_eq!(found.pairs.into_iter().collect::<Vec<_>>(), [(4, 3)]);
        assert_eq!(found.offset, 100 + (segment.len() - binlog::SEGMENT_HEADER_BYTES) as u64);
    }

    #[test]
    fn no_flipped_bit_and_no_cut_passes() {
        let (snapshot, segment) = parts();
        for at in 0..snapshot.len() {
            let mut flipped = snapshot.clone();
            flipped[at] ^= 4;
            inspect(Some(&flipped), &segment, 100).unwrap_err();
        }
        for at in 0..segment.len() {
            let mut flipped = segment.clone();
            flipped[at] ^= 4;
            inspect(Some(&snapshot), &flipped, 100).unwrap_err();
        }
        let cut = &segment[..segment.len() - 1];
        assert!(matches!(inspect(Some(&snapshot), cut, 100), Err(Flaw::Torn(_))));
        assert_eq!(inspect(Some(&snapshot), &segment, 99), Err(Flaw::Offset { expected: 99, is: 100 }));
        assert_eq!(inspect(None, &segment, 100), Err(Flaw::Offset { expected: 100, is: 0 }));
    }

    #[test]
    fn a_snapshot_that_was_written_for_longer_than_the_binlog_reaches_is_refused() {
        let mut table = Table::new(Decay::new(3600, 172_800, 0.25).unwrap(), 100);
        table.apply(&group(1, "c1/a"));
        let header = snapshot::header(&table, 100, 5);
        let mut late = Vec::new();
        snapshot::write_to(&mut late, &header, 100, |shard| snapshot::section(&table, shard, 100, 900)).unwrap();
        let segment = binlog::segment_header(100);
        assert_eq!(inspect(Some(&late), &segment, 100), Err(Flaw::Short { needed: 900, end: 100 }));
    }

    /// A snapshot at 100, and two frames after it.
    fn parts() -> (Vec<u8>, Vec<u8>) {
        let mut table = Table::new(Decay::new(3600, 172_800, 0.25).unwrap(), 100);
        table.apply(&group(1, "c1/a"));
        let mut segment = binlog::segment_header(100);
        for (sequence, file) in [(2, "c1/b"), (3, "c1/c")] {
            let offset = 100 + (segment.len() - binlog::SEGMENT_HEADER_BYTES) as u64;
            binlog::write_frame(&group(sequence, file), offset, &mut segment);
        }
        (snapshot::write(&table, 100, LANDMARK_MS), segment)
    }

    fn group(sequence: u64, file: &str) -> Group {
        let entry = Entry { region: RegionId(4), file: file.into(), size: 1000, downloads: 1.0 };
        let mark = Mark { boot: 1, sequence };
        Group {
            time_ms: LANDMARK_MS + sequence,
            batches: vec![Batch { source: "sun".to_owned(), mark, entries: vec![entry] }],
        }
    }
}
