//! A whole copy of another API's ratings: a snapshot and the binlog after it, over HTTP into a folder, while that one goes on.
//!
//! ```text
//!   GET /v1/snapshot          snapshots, and where the binlog ends now, E
//!   GET /v1/snapshot/S        in pieces                                     --> DIR/snapshot-S
//!   GET /v1/binlog?after=S    frames, each checked, until E is reached      --> DIR/binlog-S
//! ```
//!
//! A snapshot is written while batches come, so each of its shards is as of an offset between S and E (`engine/snapshot.rs`): it means
//! something only with the frames up to E. Both files are as they would stand in an engine's own folder.

use std::path::Path;
use std::time::Duration;

use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use crate::client::{Client, ClientError};
use crate::engine::{binlog, snapshot};
use crate::wire::{Copies, SnapshotFile};

/// What was copied.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Copied {
    /// Which binlog it is.
    pub lineage: String,
    /// Where the snapshot was begun, and the binlog goes on; 0 without a snapshot.
    pub start: u64,
    /// Where the binlog ends.
    pub end: u64,
    /// The snapshot's file, if there was one.
    pub snapshot: Option<Written>,
    /// The binlog's file.
    pub binlog: Written,
}

/// A file that was written.
#[derive(Clone, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Written {
    /// Its name.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// Of its bytes, hexadecimal.
    pub blake3: String,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// "snapshot" or "binlog".
    pub part: &'static str,
    /// Bytes that are there.
    pub bytes: u64,
    /// Of so many.
    pub of: u64,
}

/// Why there is no copy. What is in the folder is no use then.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The other API.
    #[error(transparent)]
    Api(#[from] ClientError),
    /// This machine's disk.
    #[error("{file}: {error}")]
    Disk {
        /// What was written.
        file: String,
        /// What the operating system says.
        error: std::io::Error,
    },
    /// A frame is not what its checksum says.
    #[error("the binlog's frame at {0} is damaged: the other API's disk, or the way here")]
    Damaged(u64),
    /// Fewer bytes came than were announced.
    #[error("the {0} breaks off")]
    Short(&'static str),
    /// The binlog is not whole there, and nothing behind it is to be had yet.
    #[error("the binlog cannot be read on at {0}, and there is no snapshot behind that yet")]
    Hole(u64),
    /// There is no snapshot, and the binlog does not begin at its beginning.
    #[error("there is no snapshot that could be copied, and the binlog begins at {0}")]
    Nothing(u64),
}

/// What of another API's ratings was found to be of no use, so that it is not copied again.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Avoided {
    /// Offsets of damaged snapshots.
    snapshots: Vec<u64>,
    /// Of which binlog the rest is.
    lineage: String,
    /// Where it could not be read on.
    once: Option<u64>,
    /// Where that was so twice: what begins before it is of no use.
    hole: Option<u64>,
}

impl Avoided {
    /// Its snapshot at `offset` is damaged.
    pub fn snapshot(&mut self, offset: u64) {
        self.snapshots.push(offset);
    }

    /// Its snapshots may be read again.
    pub fn forget_snapshots(&mut self) {
        self.snapshots.clear();
    }

    /// Its binlog cannot be read on at `offset`; true when that was so the last time, and more tries are in vain.
    pub fn stopped(&mut self, lineage: &str, offset: u64) -> bool {
        if self.lineage != lineage {
            (self.lineage, self.once, self.hole) = (lineage.to_owned(), None, None);
        }
        let again = self.once.replace(offset) == Some(offset);
        if again {
            self.hole = self.hole.max(Some(offset));
        }
        again
    }

    /// Its binlog could be read on.
    pub const fn went_on(&mut self) {
        self.once = None;
    }

    /// Where the hole in this binlog is.
    fn hole(&self, lineage: &str) -> Option<u64> {
        self.hole.filter(|_| self.lineage == lineage)
    }

    /// The newest snapshot that a copy can begin with.
    fn choose(&self, lineage: &str, snapshots: &[SnapshotFile]) -> Option<SnapshotFile> {
        let hole = self.hole(lineage);
        let usable = |offset: u64| !self.snapshots.contains(&offset) && hole.is_none_or(|hole| offset > hole);
        snapshots.iter().copied().filter(|one| usable(one.offset)).max_by_key(|one| one.offset)
    }
}

/// Copies into the folder `to`, which is there and has no such files: with the newest snapshot that is not `avoided`, which
/// learns where the binlog cannot be read on.
///
/// # Errors
///
/// [`CopyError`].
pub async fn copy(
    client: &Client,
    to: &Path,
    avoided: &mut Avoided,
    mut progress: impl FnMut(Progress),
) -> Result<Copied, CopyError> {
    let Copies { lineage, end, binlog_start, snapshots, .. } = client.copies().await?;
    let chosen = avoided.choose(&lineage, &snapshots);
    let start = match (chosen, avoided.hole(&lineage)) {
        (Some(SnapshotFile { offset, .. }), _) => offset,
        (None, Some(hole)) => return Err(CopyError::Hole(hole)),
        (None, None) if binlog_start == 0 => 0,
        (None, None) => return Err(CopyError::Nothing(binlog_start)),
    };
    let snapshot = match chosen {
        Some(SnapshotFile { offset, bytes }) => {
            let mut file = Copying::create(to, snapshot::name(offset)).await?;
            while file.bytes < bytes {
                let piece = client.snapshot(&lineage, offset, file.bytes).await?;
                if piece.is_empty() {
                    return Err(CopyError::Short("snapshot"));
                }
                file.write(&piece).await?;
                progress(Progress { part: "snapshot", bytes: file.bytes, of: bytes });
            }
            Some(file.end().await?)
        }
        None => None,
    };
    let mut file = Copying::create(to, binlog::segment_name(start)).await?;
    file.write(&binlog::segment_header(start)).await?;
    let mut at = start;
    while at < end {
        let frames = match frames(client, &lineage, at).await {
            Err(CopyError::Damaged(at)) => {
                avoided.stopped(&lineage, at);
                return Err(CopyError::Damaged(at));
            }
            // The other API has found the damage itself, or keeps it no longer.
            Err(CopyError::Api(error)) if error.is_gone() => {
                avoided.stopped(&lineage, at);
                return Err(CopyError::Api(error));
            }
            frames => frames?,
        };
        file.write(&frames).await?;
        at += frames.len() as u64;
        progress(Progress { part: "binlog", bytes: at - start, of: (end - start).max(at - start) });
    }
    let binlog = file.end().await?;
    Ok(Copied { lineage, start, end: at, snapshot, binlog })
}

/// Whole frames from `at` on.
async fn frames(client: &Client, lineage: &str, at: u64) -> Result<Vec<u8>, CopyError> {
    let frames = client.binlog(lineage, at, Duration::ZERO).await?.bytes;
    if frames.is_empty() {
        return Err(CopyError::Short("binlog"));
    }
    binlog::read_frames(&frames, at).map(drop).map_err(CopyError::Damaged)?;
    Ok(frames)
}

/// A file that is being written, and what it has come to.
struct Copying {
    name: String,
    file: File,
    bytes: u64,
    hash: blake3::Hasher,
}

impl Copying {
    async fn create(folder: &Path, name: String) -> Result<Self, CopyError> {
        let created = File::options().write(true).create_new(true).open(folder.join(&name)).await;
        match created {
            Ok(file) => Ok(Self { name, file, bytes: 0, hash: blake3::Hasher::new() }),
            Err(error) => Err(CopyError::Disk { file: name, error }),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), CopyError> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).await.map_err(|error| CopyError::Disk { file: self.name.clone(), error })
    }

    /// Makes it durable.
    async fn end(mut self) -> Result<Written, CopyError> {
        let durable = match self.file.flush().await {
            Ok(()) => self.file.sync_all().await,
            error => error,
        };
        durable.map_err(|error| CopyError::Disk { file: self.name.clone(), error })?;
        Ok(Written { file: self.name, bytes: self.bytes, blake3: self.hash.finalize().to_hex().to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_copied_twice_that_ends_at_the_same_hole() {
        let snapshots = [100, 200].map(|offset| SnapshotFile { offset, bytes: 1 << 30 });
        let mut avoided = Avoided::default();
        let check = |avoided: &Avoided, lineage: &str, snapshots: &[SnapshotFile], expected: Option<u64>| {
            assert_eq!(avoided.choose(lineage, snapshots).map(|one| one.offset), expected, "{avoided:?}");
        };
        check(&avoided, "a", &snapshots, Some(200));
        assert!(!avoided.stopped("a", 250), "once may have been the way here");
        check(&avoided, "a", &snapshots, Some(200));
        assert!(avoided.stopped("a", 250));
        check(&avoided, "a", &snapshots, None);
        assert_eq!((avoided.hole("a"), avoided.hole("b")), (Some(250), None));
        check(&avoided, "b", &snapshots, Some(200));
        let behind = [snapshots[1], SnapshotFile { offset: 251, bytes: 1 }];
        check(&avoided, "a", &behind, Some(251));
        // Another hole behind it does not make the first one whole.
        assert!(!avoided.stopped("a", 300));
        check(&avoided, "a", &snapshots, None);
        avoided.snapshot(251);
        check(&avoided, "a", &behind, None);
        avoided.forget_snapshots();
        check(&avoided, "a", &behind, Some(251));
        assert!(avoided.stopped("a", 300) && !avoided.stopped("b", 300));
        check(&avoided, "b", &snapshots, Some(200));
    }
}
