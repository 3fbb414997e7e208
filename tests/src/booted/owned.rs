//! Folders that are a test's for as long as it runs, control groups among them, and what became of those of tests that were killed.
//!
//! The owner holds a lock (`flock`) on the folder itself. The kernel releases it however the owner ends and shows it to every
//! container that sees the folder, so that nobody ends what another still uses: ids of processes would say neither.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open};

/// A folder that nobody sweeps while this lives.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) path: PathBuf,
    _lock: OwnedFd,
}

impl Owned {
    /// Makes one with a name of its own.
    ///
    /// # Panics
    ///
    /// When the operating system refuses.
    pub(super) fn make(parent: &Path) -> Self {
        for _ in 0..TRIES {
            let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent).expect("a folder");
            if let Some(owned) = Self::take(folder.keep()) {
                return owned;
            }
        }
        panic!("{}: others remove what is made there", parent.display());
    }

    /// Takes what is there and nobody's.
    fn take(path: PathBuf) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = open(&path, flags, Mode::empty()).ok()?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
        // Another may have removed it before it was locked.
        let still = std::fs::symlink_metadata(&path).ok()?.ino() == fstat(&lock).ok()?.st_ino;
        still.then_some(Self { path, _lock: lock })
    }
}

/// Takes what the owners of such folders left.
pub(super) fn abandoned(parent: &Path) -> impl Iterator<Item = Owned> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    ours.filter_map(|entry| Owned::take(entry.path()))
}

/// Of the names of such folders.
const PREFIX: &str = "sun-machine-";

/// A folder is made so often until it could be locked before others swept it.
const TRIES: usize = 10;
