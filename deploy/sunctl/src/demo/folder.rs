//! The demo's data folder: temporary and removed at the end, or named by the user and kept.
//!
//! A named one is empty, or a demo's: that is told by its lock, the first file that a demo makes. Nothing is written before
//! the lock is held and no daemon that was started from the folder runs.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

/// A folder that this demo alone uses.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    temporary: Option<tempfile::TempDir>,
    /// Held until the end, so that no second demo uses the folder.
    _lock: File,
}

impl Folder {
    /// The named folder, made if it is not there; or a temporary one.
    ///
    /// # Errors
    ///
    /// When it cannot be made, somebody else has files in it, or another demo uses it.
    pub fn open(named: Option<&Path>) -> anyhow::Result<Self> {
        let temporary = match named {
            Some(_) => None,
            None => Some(tempfile::Builder::new().prefix("sun-demo-").tempdir().context("a temporary folder")?),
        };
        let path = match (&temporary, named) {
            (Some(temporary), _) => temporary.path().to_owned(),
            (None, named) => named.unwrap_or(Path::new(".")).to_owned(),
        };
        let about = || format!("data folder {}", path.display());
        fs::create_dir_all(&path).with_context(about)?;
        let path = path.canonicalize().with_context(about)?;
        if !path.join(LOCK).exists() && fs::read_dir(&path).with_context(about)?.next().is_some() {
            bail!(
                "data folder {}: it is not empty, and no demo made it (it has no {LOCK}): nothing was written; name an empty \
                 one with --data",
                path.display()
            );
        }
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK));
        let lock = lock.with_context(about)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                bail!("data folder {}: another demo uses it; name another with --data", path.display())
            }
            Err(fs::TryLockError::Error(error)) => return Err(error).with_context(about),
        }
        Ok(Self { path, temporary, _lock: lock })
    }

    /// Where it is, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it stays when the demo ends.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        self.temporary.is_none()
    }

    /// A folder below it, made if it is not there.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn below(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).with_context(|| format!("folder {}", path.display()))?;
        Ok(path)
    }

    /// Refuses while a daemon that was started from this folder runs: it has a lock of its own in a folder below.
    ///
    /// # Errors
    ///
    /// That it runs.
    pub fn unused(&self, name: &str) -> anyhow::Result<()> {
        let lock = self.path.join(name).join("lock");
        let file = match OpenOptions::new().write(true).open(&lock) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            file => file.with_context(|| lock.display().to_string())?,
        };
        match file.try_lock() {
            Err(fs::TryLockError::WouldBlock) => bail!(
                "data folder {}: a daemon uses {name} in it: nothing was written; end it, or name another folder with --data",
                self.path.display()
            ),
            _ => Ok(()),
        }
    }

    /// Removes a temporary folder now and says what went wrong; a kept one stays. A daemon's copy of a topology that
    /// changed just now may still be on its way into it: it is tried a few times.
    ///
    /// # Errors
    ///
    /// When something in it cannot be removed.
    pub fn close(self) -> anyhow::Result<()> {
        let Some(temporary) = self.temporary else { return Ok(()) };
        for _ in 1..REMOVALS_MAX {
            match fs::remove_dir_all(&self.path) {
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => std::thread::sleep(REMOVAL_PAUSE),
                _ => break,
            }
        }
        match temporary.close() {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing the temporary folder {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Tells a demo's folder, and is held by the one that uses it.
const LOCK: &str = "sun-demo.lock";

/// How often a folder that is not empty yet is tried to be removed.
const REMOVALS_MAX: u32 = 20;
const REMOVAL_PAUSE: Duration = Duration::from_millis(50);

/// Writes a file that anyone may read.
///
/// # Errors
///
/// What the operating system says, with the file's name.
pub fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

/// Writes a file that only its owner may read, from its first byte on.
///
/// # Errors
///
/// What the operating system says, with the file's name.
pub fn write_private(file: &Path, text: &str) -> anyhow::Result<()> {
    let written = || {
        match fs::remove_file(file) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut private = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        private.set_permissions(fs::Permissions::from_mode(0o600))?;
        private.write_all(text.as_bytes())
    };
    written().with_context(|| format!("writing {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_folder_is_removed_and_a_named_one_kept() {
        let temporary = Folder::open(None).unwrap();
        let path = temporary.path().to_owned();
        write(&path.join("a"), "text").unwrap();
        temporary.close().unwrap();
        assert!(!path.exists());

        let outer = tempfile::tempdir().unwrap();
        let named = Folder::open(Some(&outer.path().join("new/data"))).unwrap();
        let path = named.path().to_owned();
        named.close().unwrap();
        assert!(path.exists());
    }

    #[test]
    fn two_demos_do_not_share_a_folder() {
        let outer = tempfile::tempdir().unwrap();
        let first = Folder::open(Some(outer.path())).unwrap();
        let error = Folder::open(Some(outer.path())).unwrap_err().to_string();
        assert!(error.contains("another demo uses it"), "{error}");
        first.close().unwrap();
        assert!(Folder::open(Some(outer.path())).is_ok());
    }

    #[test]
    fn a_folder_of_somebody_else_is_left_alone() {
        let outer = tempfile::tempdir().unwrap();
        let file = outer.path().join("topology.toml");
        write(&file, "important").unwrap();
        let error = Folder::open(Some(outer.path())).unwrap_err().to_string();
        assert!(error.contains("it is not empty, and no demo made it"), "{error}");
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1, "nothing was written");
        assert_eq!(fs::read_to_string(&file).unwrap(), "important");
        // A demo's own is opened again with all that is in it.
        let own = outer.path().join("own");
        let folder = Folder::open(Some(&own)).unwrap();
        write(&own.join("topology.toml"), "kept").unwrap();
        folder.close().unwrap();
        Folder::open(Some(&own)).unwrap();
    }

    #[test]
    fn a_folder_whose_daemon_runs_is_refused() {
        let folder = Folder::open(None).unwrap();
        folder.unused("sun4-2-1/edge").unwrap();
        let lock = File::create(folder.below("sun4-2-1/edge").unwrap().join("lock")).unwrap();
        folder.unused("sun4-2-1/edge").unwrap();
        lock.lock().unwrap();
        let error = folder.unused("sun4-2-1/edge").unwrap_err().to_string();
        assert!(error.contains("a daemon uses sun4-2-1/edge in it"), "{error}");
        drop(lock);
        folder.unused("sun4-2-1/edge").unwrap();
        folder.close().unwrap();
    }

    #[test]
    fn a_secret_is_its_owners_alone_even_where_an_open_file_was() {
        let outer = tempfile::tempdir().unwrap();
        let file = outer.path().join("token");
        write(&file, "old").unwrap();
        write_private(&file, "secret").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&file).unwrap(), "secret");
    }
}
