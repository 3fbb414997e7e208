//! What others copy of the engine's folder while it is written to: snapshots, and the binlog's frames as they become
//! durable. Replicas follow by it and backups are taken by it.
//!
//! ```text
//!   folder:   snapshot-1000  snapshot-2000    binlog-1000  binlog-2000
//!                                 |                             |
//!   copy:     1. read in pieces --'    2. frames from 2000 on --'  and then each as it comes
//! ```
//!
//! # Invariants
//!
//! - No frame is handed out before it is durable, so no copy has what its origin lost.
//! - Frames are handed out as they stand on the disk, whole ones only. Whoever takes them checks them; a copy has the
//!   same bytes at the same offsets.
//! - What was asked for in the last minute is not removed under the one who reads it, as long as no more than
//!   `copies_binlog_bytes` of binlog is kept for that ([`Asked`]). Whoever is further behind is told [`FeedError::Gone`] and starts
//!   again from a snapshot.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::binlog::{self, SEGMENT_HEADER_BYTES};
use super::folder::Folder;
use super::lineage::Lineage;
use super::snapshot;

/// The reading end of a folder that is written to; cheap to clone.
#[derive(Clone, Debug)]
pub struct Feed {
    folder: Arc<dyn Folder>,
    lineage: Lineage,
    end: watch::Receiver<u64>,
    asked: Arc<Asked>,
}

/// What there is to copy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Copyable {
    /// Offset after the last durable frame.
    pub end: u64,
    /// Snapshots, oldest first: offset and bytes.
    pub snapshots: Vec<(u64, u64)>,
    /// Offset of the oldest frame that is kept; `end` when there is none.
    pub binlog_start: u64,
}

/// Why a part cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// It is not there any more, never was, or is damaged: begin with another snapshot.
    #[error("{0}; start again from a snapshot")]
    Gone(String),
    /// The disk.
    #[error("{file}: {error}")]
    Disk {
        /// What was read.
        file: String,
        /// What the operating system says.
        error: io::Error,
    },
}

impl Feed {
    pub(super) fn new(folder: Arc<dyn Folder>, lineage: Lineage, end: watch::Receiver<u64>, asked: Arc<Asked>) -> Self {
        Self { folder, lineage, end, asked }
    }

    /// Which binlog it is.
    #[must_use]
    pub const fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Offset after the last durable frame.
    #[must_use]
    pub fn end(&self) -> u64 {
        *self.end.borrow()
    }

    /// Resolves when there is a durable frame behind `after`; never when the engine was closed.
    pub async fn beyond(&self, after: u64) {
        let mut end = self.end.clone();
        if end.wait_for(|end| *end > after).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What there is to copy. Blocks on the disk, as everything below.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn copyable(&self) -> io::Result<Copyable> {
        let end = self.end();
        let names = self.folder.list()?;
        let mut snapshots = Vec::new();
        for name in &names {
            if let Some(offset) = snapshot::offset_of(name) {
                snapshots.push((offset, self.folder.size(name)?));
            }
        }
        let binlog_start = names.iter().find_map(|name| binlog::segment_start(name)).unwrap_or(end).min(end);
        Ok(Copyable { end, snapshots, binlog_start })
    }

    /// Bytes of the snapshot at `offset`, from the byte `from` on, at most `bytes_max`; none at its end.
    ///
    /// # Errors
    ///
    /// [`FeedError`].
    pub fn snapshot(&self, offset: u64, from: u64, bytes_max: usize) -> Result<Vec<u8>, FeedError> {
        self.asked.snapshot(offset, Instant::now());
        let file = snapshot::name(offset);
        self.folder.read_at(&file, from, bytes_max).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Err(FeedError::Gone(format!("there is no snapshot at {offset} any more"))),
            // EINVAL: no file of this disk can be that long, so it is behind the end of this one.
            io::ErrorKind::InvalidInput => Ok(Vec::new()),
            _ => Err(FeedError::Disk { file, error }),
        })
    }

    /// Whole frames from `after` on, at most `bytes_max` or one frame; none when there is none behind it yet.
    ///
    /// # Errors
    ///
    /// [`FeedError`].
    pub fn frames(&self, after: u64, bytes_max: usize) -> Result<Vec<u8>, FeedError> {
        let end = self.end();
        if after > end {
            return Err(FeedError::Gone(format!("the binlog ends at {end}, before {after}")));
        }
        self.asked.frames(after, Instant::now());
        if after == end {
            return Ok(Vec::new());
        }
        let list = self.folder.list().map_err(|error| FeedError::Disk { file: "folder".to_owned(), error })?;
        let starts: Vec<u64> = list.iter().filter_map(|name| binlog::segment_start(name)).collect();
        let index = starts.partition_point(|&start| start <= after);
        let Some(&start) = index.checked_sub(1).and_then(|index| starts.get(index)) else {
            let oldest = starts.first().copied().unwrap_or(end);
            return Err(FeedError::Gone(format!("the binlog is kept from {oldest} on, not from {after}")));
        };
        let segment_end = starts.get(index).map_or(end, |&next| next.min(end));
        self.frames_of(start, after, segment_end, bytes_max)
    }

    fn frames_of(&self, start: u64, after: u64, end: u64, bytes_max: usize) -> Result<Vec<u8>, FeedError> {
        let file = binlog::segment_name(start);
        let left = usize::try_from(end - after).unwrap_or(usize::MAX);
        let read = |bytes: usize| {
            let at = after - start + SEGMENT_HEADER_BYTES as u64;
            self.folder.read_at(&file, at, bytes.min(left)).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => FeedError::Gone(format!("the binlog is no longer kept from {after} on")),
                _ => FeedError::Disk { file: file.clone(), error },
            })
        };
        let damaged = || FeedError::Gone(format!("the binlog is damaged at {after}"));
        let mut bytes = read(bytes_max.max(binlog::FRAME_HEADER_BYTES))?;
        let first = binlog::frame_bytes(&bytes).filter(|&first| first <= left).ok_or_else(damaged)?;
        if first > bytes.len() {
            bytes = read(first)?;
        }
        let mut whole = 0;
        while let Some(frame) = bytes.get(whole..).and_then(binlog::frame_bytes) {
            if whole + frame > bytes.len() {
                break;
            }
            whole += frame;
        }
        bytes.truncate(whole);
        if bytes.is_empty() { Err(damaged()) } else { Ok(bytes) }
    }
}

/// What was asked for lately, so that it is kept a little longer. By seconds: who asked does not matter.
#[derive(Debug)]
pub struct Asked {
    recent: Mutex<Recent>,
    binlog_bytes_max: u64,
}

#[derive(Debug, Default)]
struct Recent {
    /// By the second in which it was asked for: the least offset.
    frames: Vec<(Instant, u64)>,
    /// When each snapshot was asked for last.
    snapshots: BTreeMap<u64, Instant>,
}

/// What the journal is not to remove yet.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Needs {
    /// Frames from here on; none: nobody asked.
    pub binlog_from: Option<u64>,
    /// Snapshots.
    pub snapshots: Vec<u64>,
}

impl Asked {
    /// Nobody has asked; so much binlog is kept at most for those who do.
    #[must_use]
    pub fn new(binlog_bytes_max: u64) -> Self {
        Self { recent: Mutex::default(), binlog_bytes_max }
    }

    fn frames(&self, from: u64, now: Instant) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        match recent.frames.last_mut() {
            Some((at, least)) if now.saturating_duration_since(*at) < SECOND => *least = from.min(*least),
            _ => recent.frames.push((now, from)),
        }
        recent.forget(now);
    }

    fn snapshot(&self, offset: u64, now: Instant) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.snapshots.insert(offset, now);
        recent.forget(now);
    }

    /// What is needed now, of a binlog that ends at `end`.
    pub(super) fn needs(&self, end: u64, now: Instant) -> Needs {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.forget(now);
        let floor = end.saturating_sub(self.binlog_bytes_max);
        // A snapshot is no use without what comes after it.
        let snapshots: Vec<u64> = recent.snapshots.keys().copied().filter(|&offset| offset >= floor).collect();
        let frames = recent.frames.iter().map(|&(_, from)| from);
        let binlog_from = frames.chain(snapshots.iter().copied()).min().map(|from| from.max(floor));
        Needs { binlog_from, snapshots }
    }
}

impl Recent {
    fn forget(&mut self, now: Instant) {
        self.frames.retain(|&(at, _)| now.saturating_duration_since(at) < KEPT_FOR);
        self.snapshots.retain(|_, at| now.saturating_duration_since(*at) < KEPT_FOR);
        // Offsets of snapshots that never were cannot fill the map.
        while self.snapshots.len() > SNAPSHOTS_MAX {
            self.snapshots.pop_first();
        }
    }
}

/// How long what was asked for is kept: whoever reads on asks again within seconds.
const KEPT_FOR: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
/// Snapshots that are kept because somebody reads them.
const SNAPSHOTS_MAX: usize = 4;

#[cfg(test)]
mod tests;
