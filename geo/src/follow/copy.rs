//! The follower's copy of the last good table, written beside the following: nothing waits for the disk.
//!
//! ```text
//!   followed --due? encode--> bytes --a thread of its own--> disk
//!      ^           | no: unchanged, a moment after the last one, or one is under way
//!      +-----------+
//! ```
//!
//! # Invariants
//!
//! - One write at a time: a disk that hangs holds one thread and one table's bytes, and nobody waits for it.
//! - The file is a table that was in use, whole, or not there.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::file;
use crate::wire::Position;

/// How bytes get into a file, whole: a disk, or what a test has for one.
pub(super) type Disk = Arc<dyn Fn(&Path, &[u8]) -> io::Result<()> + Send + Sync>;

/// The disk there is.
pub(super) fn disk() -> Disk {
    Arc::new(|path, bytes| {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        file::write_atomically(path, bytes)
    })
}

/// The file of the last good table.
pub(super) struct Copy {
    path: PathBuf,
    disk: Disk,
    /// What it has.
    saved: Option<Position>,
    /// What is being written.
    writing: Option<(Position, JoinHandle<io::Result<()>>)>,
    /// Before that it is not written again.
    rest_until: Option<Instant>,
    /// That it cannot be written was said.
    failed: bool,
}

impl Copy {
    /// Of a file that has the table of this position, or none.
    pub(super) fn new(path: PathBuf, disk: Disk, saved: Option<Position>) -> Self {
        Self { path, disk, saved, writing: None, rest_until: None, failed: false }
    }

    /// Whether a table at this position is to be written now. Takes the result of the last write, if it is over.
    pub(super) async fn is_due(&mut self, at: Position, now: Instant) -> bool {
        if let Some((written, task)) = self.writing.take_if(|(_, task)| task.is_finished()) {
            match task.await.map_err(io::Error::other).flatten() {
                Ok(()) => (self.saved, self.failed) = (Some(written), false),
                Err(error) if !std::mem::replace(&mut self.failed, true) => {
                    tracing::warn!(copy = %self.path.display(), %error, "the table's copy cannot be kept");
                }
                Err(_) => {}
            }
        }
        let rests = self.rest_until.is_some_and(|until| now < until);
        Some(at) != self.saved && self.writing.is_none() && !rests
    }

    /// Begins to write it.
    pub(super) fn write(&mut self, at: Position, bytes: Vec<u8>, now: Instant) {
        self.rest_until = Some(now + rest(bytes.len()));
        let (path, disk) = (self.path.clone(), Arc::clone(&self.disk));
        self.writing = Some((at, tokio::task::spawn_blocking(move || disk(&path, &bytes))));
    }
}

impl fmt::Debug for Copy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copy").field("path", &self.path).field("saved", &self.saved).finish_non_exhaustive()
    }
}

/// How long a copy of so many bytes is good for: disks take [`COPY_BYTES_PER_S`] of it on average.
fn rest(bytes: usize) -> Duration {
    let seconds = u64::try_from(bytes).unwrap_or(u64::MAX) / COPY_BYTES_PER_S;
    Duration::from_secs(seconds.clamp(1, REST_MAX_S))
}

/// Of a disk's writing: 8.6 GB a day. Less: a start begins with an older table. More: it wears flash.
const COPY_BYTES_PER_S: u64 = 100_000;
const REST_MAX_S: u64 = 600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_not_worn() {
        for (bytes, seconds) in [(0, 1), (99_999, 1), (10_000_000, 100), (usize::MAX, 600)] {
            assert_eq!(rest(bytes), Duration::from_secs(seconds), "{bytes}");
        }
    }

    #[tokio::test]
    async fn one_copy_is_written_at_a_time_and_a_moment_after_the_last() {
        let (release, released) = std::sync::mpsc::channel::<io::Result<()>>();
        let released = std::sync::Mutex::new(released);
        let disk: Disk = Arc::new(move |_, _| released.lock().unwrap().recv().unwrap());
        let mut copy = Copy::new("copy".into(), disk, None);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let at = |sequence| Position { epoch: 7, sequence };
        assert!(copy.is_due(at(3), start).await);
        copy.write(at(3), vec![], start);
        assert!(!copy.is_due(at(4), after(99)).await, "one is under way");

        release.send(Err(io::Error::other("full"))).unwrap();
        over(&copy).await;
        assert!(!copy.is_due(at(3), start).await && copy.failed, "a moment ago");
        assert!(copy.is_due(at(3), after(1)).await, "it was not written");
        copy.write(at(3), vec![], after(1));
        release.send(Ok(())).unwrap();
        over(&copy).await;
        assert!(!copy.is_due(at(3), after(99)).await && !copy.failed, "it is written");
        assert!(copy.is_due(at(4), after(99)).await);
    }

    /// The write that is under way.
    async fn over(copy: &Copy) {
        while copy.writing.as_ref().is_some_and(|(_, task)| !task.is_finished()) {
            tokio::task::yield_now().await;
        }
    }
}
