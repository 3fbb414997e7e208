//! A daemon's data folder: used by one process at a time.
//!
//! Two servers that write one folder overwrite each other's files, and each starts from the other's state the next time. So
//! whoever opens a folder locks its file `lock` as long as it lives; the system gives the lock back however the process ends.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// A folder that nobody else uses.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

/// A folder cannot be used; the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process has it.
    #[error("data: {}: another process uses this folder; end it, or name another folder", .0.display())]
    Taken(PathBuf),
    /// It cannot be made, or written to.
    #[error("data: {}: {why}", .folder.display())]
    Unusable {
        /// Which, or its lock.
        folder: PathBuf,
        /// What the system says.
        why: io::Error,
    },
}

impl DataFolder {
    /// Opens the folder, making it if need be, and locks it.
    ///
    /// # Errors
    ///
    /// Another process has it, or it cannot be written to.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let unusable = |why| FolderError::Unusable { folder: path.to_owned(), why };
        fs::create_dir_all(path).map_err(unusable)?;
        let file = path.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&file);
        // A lock that another user made is the trouble of that file, not of the folder.
        let lock = lock.map_err(|why| FolderError::Unusable { folder: file, why })?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(FolderError::Taken(path.to_owned())),
            Err(TryLockError::Error(why)) => Err(unusable(why)),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What keeps a start from using a folder, but for its lock: a server that runs has that. Leaves nothing behind.
///
/// # Errors
///
/// It, or the folder that it would be made in, cannot be written to.
pub fn check(path: &Path) -> Result<(), FolderError> {
    let there = path.ancestors().find(|folder| folder.as_os_str().is_empty() || folder.exists());
    let there = there.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let probe = there.join(format!(".check-{}", std::process::id()));
    let tried = File::create_new(&probe).and_then(|_| fs::remove_file(&probe));
    tried.map_err(|why| FolderError::Unusable { folder: path.to_owned(), why })?;
    let lock = path.join(LOCK);
    match File::options().write(true).open(&lock) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(FolderError::Unusable { folder: lock, why }),
        Ok(_) | Err(_) => Ok(()),
    }
}

const LOCK: &str = "lock";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_used_by_one_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a/data");
        let first = DataFolder::open(&path).unwrap();
        assert_eq!(first.path(), path);
        let taken = DataFolder::open(&path).unwrap_err().to_string();
        assert!(taken.contains("a/data: another process uses this folder"), "{taken}");
        drop(first);
        DataFolder::open(&path).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_told_beforehand() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        for (path, good) in [("", true), ("new/folder", true), ("file", false), ("file/folder", false)] {
            let path = place.path().join(path);
            assert_eq!(check(&path).is_ok(), good, "{}", path.display());
            assert_eq!(DataFolder::open(&path).is_ok(), good, "{}", path.display());
            // What was opened is not there for the next case.
            let _ = fs::remove_dir_all(place.path().join("new"));
        }
        // As a lock of another user's: nobody, root neither, opens a folder for writing.
        let place = place.path().join("locked");
        fs::create_dir_all(place.join(LOCK)).unwrap();
        for told in [check(&place).unwrap_err(), DataFolder::open(&place).unwrap_err()] {
            assert!(told.to_string().contains("/locked/lock: "), "{told}");
        }
        assert!(check(Path::new("not-there")).is_ok(), "a relative one is of the working directory");
    }
}
