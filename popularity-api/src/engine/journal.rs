//! The binlog and the snapshots of one folder: what is written when, what is kept, and what a start finds.
//! It waits for nothing but the disk, and knows no thread and no clock.
//!
//! ```text
//!   commit:    group --> frame --> append, fdatasync --> the table counts it --> acknowledged
//!                                        | fails
//!                                        +--> cut back; the next commit begins a new segment; 503
//!
//!   snapshot:  a new segment begins at offset S; the table is written as snapshot-S, shard by shard, while commits go on
//!              (another thread; snapshot.rs says why nothing is counted twice); then everything that the snapshot
//!              before it does not need is removed
//!
//!   snapshot-1000   snapshot-2000                       kept: the latest two,
//!        binlog-1000     binlog-2000 .. binlog-2600     and the segments since the older one
//! ```

use std::io;
use std::sync::Arc;

use super::batch::Group;
use super::binlog::{self, SEGMENT_HEADER_BYTES};
use super::feed::Needs;
use super::folder::{Folder, UNFINISHED};
use super::lineage::Lineage;
use super::snapshot::{self, Covered};
use super::table::Table;

/// The writing end of a folder.
#[derive(Debug)]
pub struct Journal {
    folder: Arc<dyn Folder>,
    /// Offset after the last durable frame.
    end: u64,
    /// Where the segment that is written to starts; none: the next commit begins one.
    segment: Option<u64>,
    /// Offset of the latest snapshot.
    snapshot: u64,
    /// What the folder is to say before anything else is written.
    unkept: Option<Lineage>,
    /// Segments with lost frames: set aside instead of removed.
    damaged: Vec<u64>,
    frame: Vec<u8>,
}

/// What a start found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Recovered {
    /// Offset of the snapshot it began with.
    pub snapshot: Option<u64>,
    /// Groups read from the binlog after it.
    pub groups: u64,
    /// Bytes of frames that had been acknowledged and cannot be read.
    pub damaged_bytes: u64,
    /// Bytes at the end that had not been acknowledged.
    pub torn_bytes: u64,
    /// Snapshots that cannot be read.
    pub damaged_snapshots: u64,
}

impl Recovered {
    /// Nothing was damaged or torn.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.damaged_bytes == 0 && self.torn_bytes == 0 && self.damaged_snapshots == 0
    }
}

/// Why a folder cannot be started from.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The disk.
    #[error("{file}: {error}")]
    Disk {
        /// What was asked for.
        file: String,
        /// What the operating system says.
        error: io::Error,
    },
    /// Every snapshot is damaged, and so what came before the binlog's first segment is lost.
    #[error(
        "{files}: damaged, or of a later build, and there is no other snapshot; restore one from a backup, or remove it \
         to start with what the binlog has"
    )]
    Snapshots {
        /// Their names.
        files: String,
    },
    /// A copy has lost frames: another is to be made.
    #[error("{bytes} bytes of the binlog are damaged")]
    Damaged {
        /// So many.
        bytes: u64,
    },
}

impl Journal {
    /// Reads the newest good snapshot and the binlog after it into a new table.
    ///
    /// # Errors
    ///
    /// [`RecoveryError`]; torn and damaged frames are no error but part of [`Recovered`].
    pub fn open(folder: Arc<dyn Folder>, empty: impl Fn() -> Table) -> Result<(Self, Table, Recovered), RecoveryError> {
        let names = folder.list().map_err(|error| RecoveryError::Disk { file: "folder".to_owned(), error })?;
        for unfinished in names.iter().filter(|name| name.ends_with(UNFINISHED)) {
            drop(folder.remove(unfinished));
        }
        let mut recovered = Recovered::default();
        let (mut table, covered) = read_snapshot(&*folder, &names, &empty, &mut recovered)?;
        let from = covered.offset;
        let (damaged, frame) = (Vec::new(), Vec::new());
        let mut journal = Self { folder, end: from, segment: None, snapshot: from, unkept: None, damaged, frame };
        journal.replay(&names, &mut table, &covered, &mut recovered)?;
        table.reached = journal.end;
        Ok((journal, table, recovered))
    }

    /// Makes a group durable; when this fails it is as if it had never been tried.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn commit(&mut self, group: &Group) -> io::Result<()> {
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        binlog::write_frame(group, self.end, &mut frame);
        let written = self.commit_frames(&frame);
        self.frame = frame;
        written
    }

    /// Makes whole frames durable that stand at the journal's end in the binlog that this folder is a copy of; when this
    /// fails it is as if it had never been tried.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn commit_frames(&mut self, frames: &[u8]) -> io::Result<()> {
        let start = self.writable_segment()?;
        let written = self.folder.append(frames).and_then(|()| self.folder.sync());
        if let Err(error) = written {
            // After a failed sync nobody knows what the disk has: nothing is appended to this file again. A new
            // segment that starts at `end` also ends this one there, whether the cut succeeds or not; when it was this
            // segment's first frame, the new one has the same name and is created anew, empty, in its place.
            self.segment = None;
            if let Err(error) = self.folder.truncate(self.end - start + SEGMENT_HEADER_BYTES as u64) {
                tracing::debug!(%error, "a frame that failed cannot be cut off; the next segment overrules it");
            }
            return Err(error);
        }
        self.end += frames.len() as u64;
        Ok(())
    }

    /// Nothing is written before the folder says that it has this lineage: an older one would stand for other bytes.
    pub(super) fn keep_first(&mut self, lineage: Lineage) {
        self.unkept = Some(lineage);
    }

    /// Writes down the lineage that is to be kept first, if there is one. Snapshots wait for it, commits call it.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub(super) fn keep_lineage(&mut self) -> io::Result<()> {
        if let Some(lineage) = &self.unkept {
            lineage.keep(&*self.folder)?;
            self.unkept = None;
        }
        Ok(())
    }

    /// Begins a snapshot at the offset that this returns: the next frame goes to a new segment.
    pub const fn begin_snapshot(&mut self) -> u64 {
        self.segment = None;
        self.end
    }

    /// The snapshot at `offset` is durable: removes what neither it, nor the one before it, nor those who copy need.
    ///
    /// # Errors
    ///
    /// What the operating system says; what could not be removed is tried again after the next snapshot.
    pub fn end_snapshot(&mut self, offset: u64, needs: &Needs) -> io::Result<()> {
        let before = std::mem::replace(&mut self.snapshot, offset);
        let names = self.folder.list()?;
        for name in &names {
            if snapshot::offset_of(name).is_some_and(|other| other < before && !needs.snapshots.contains(&other)) {
                self.folder.remove(name)?;
            }
        }
        let before = needs.binlog_from.map_or(before, |from| from.min(before));
        let starts: Vec<u64> = names.iter().filter_map(|name| binlog::segment_start(name)).collect();
        for pair in starts.windows(2) {
            let (start, next) = (pair[0], pair[1]);
            if next > before {
                break;
            }
            let name = binlog::segment_name(start);
            if self.damaged.contains(&start) {
                self.folder.rename(&name, &format!("{name}.damaged"))?;
            } else {
                self.folder.remove(&name)?;
            }
        }
        Ok(())
    }

    /// Offset after the last durable frame.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Bytes that a start would have to replay.
    #[must_use]
    pub const fn since_snapshot_bytes(&self) -> u64 {
        self.end - self.snapshot
    }

    fn replay(
        &mut self,
        names: &[String],
        table: &mut Table,
        covered: &Covered,
        found: &mut Recovered,
    ) -> Result<(), RecoveryError> {
        let from = self.snapshot;
        let starts: Vec<u64> = names.iter().filter_map(|name| binlog::segment_start(name)).collect();
        // The first segment that is needed begins at or before the snapshot's offset.
        let first = starts.partition_point(|&start| start <= from).saturating_sub(1);
        let needed = &starts[first.min(starts.len())..];
        if let Some(&start) = needed.first() {
            found.damaged_bytes += start.saturating_sub(from);
        }
        for (index, &start) in needed.iter().enumerate() {
            let file = binlog::segment_name(start);
            let bytes = self.folder.read(&file).map_err(|error| RecoveryError::Disk { file: file.clone(), error })?;
            let scanned = binlog::scan(&bytes, start, needed.get(index + 1).copied(), from, |offset, group| {
                found.groups += 1;
                table.replay(&group, offset, &covered.shards);
            });
            if scanned.damaged_bytes > 0 {
                tracing::error!(
                    file,
                    lost_bytes = scanned.damaged_bytes,
                    "the binlog is damaged: its good frames count"
                );
                self.damaged.push(start);
            }
            if scanned.torn_bytes > 0 {
                tracing::warn!(
                    file,
                    cut_bytes = scanned.torn_bytes,
                    "the binlog's end is torn: nobody was told it is kept"
                );
            }
            found.damaged_bytes += scanned.damaged_bytes;
            found.torn_bytes += scanned.torn_bytes;
            self.end = self.end.max(scanned.end);
        }
        Ok(())
    }

    fn writable_segment(&mut self) -> io::Result<u64> {
        if let Some(start) = self.segment {
            return Ok(start);
        }
        self.keep_lineage()?;
        self.folder.create(&binlog::segment_name(self.end))?;
        self.folder.append(&binlog::segment_header(self.end))?;
        self.folder.sync()?;
        self.segment = Some(self.end);
        Ok(self.end)
    }
}

/// The table of the newest good snapshot and what it covers; an empty one and nothing when there never was any, or when
/// none can be read and the binlog is still there from its beginning.
fn read_snapshot(
    folder: &dyn Folder,
    names: &[String],
    empty: impl Fn() -> Table,
    found: &mut Recovered,
) -> Result<(Table, Covered), RecoveryError> {
    let mut damaged = Vec::new();
    for name in names.iter().rev().filter(|name| snapshot::offset_of(name).is_some()) {
        let bytes = folder.read(name).map_err(|error| RecoveryError::Disk { file: name.clone(), error })?;
        let mut table = empty();
        if let Some(covered) = snapshot::read(&bytes, &mut table) {
            found.snapshot = Some(covered.offset);
            return Ok((table, covered));
        }
        tracing::error!(
            file = name,
            "the snapshot is damaged or of a later build: an older one or more of the binlog is needed"
        );
        found.damaged_snapshots += 1;
        damaged.push(name.clone());
    }
    if damaged.is_empty() {
        return Ok((empty(), Covered::nothing()));
    }
    let files = damaged.join(", ");
    // Segments go from the oldest on: while the first is there, so are all.
    if names.contains(&binlog::segment_name(0)) {
        tracing::error!(files, "no snapshot can be read: the whole binlog is, from its beginning");
        return Ok((empty(), Covered::nothing()));
    }
    Err(RecoveryError::Snapshots { files })
}

#[cfg(test)]
mod tests;
