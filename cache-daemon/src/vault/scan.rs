//! What a start finds: the folders are walked, every record is read, what is not whole is removed.
//!
//! Bodies are not read: a disk of terabytes would take hours. A body that changed fails its block's checksum when
//! it is read, and the edge then tells the vault so.

use std::fs::{DirEntry, File};
use std::io;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::record::{ReadError, Record};
use super::{TEMPORARY, Vault, VaultError, disk_error};

/// What a scan found.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Scanned {
    /// Files that are held now.
    pub files: u64,
    /// Files that were torn, short or changed; removed.
    pub dropped: u64,
    /// Files that the disk does not give out; left alone, not held.
    pub unreadable: u64,
}

/// Makes the vault's folders and removes what was on its way in when the last process ended.
pub(super) fn prepare(folder: &Path) -> Result<(), VaultError> {
    let temporary = folder.join(TEMPORARY);
    match std::fs::remove_dir_all(&temporary) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(VaultError::Disk { path: temporary, source });
        }
        _ => {}
    }
    std::fs::create_dir(&temporary).map_err(disk_error(&temporary))?;
    for first in 0..FOLDERS {
        let path = folder.join(format!("{first:02x}"));
        match std::fs::create_dir(&path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(VaultError::Disk { path, source });
            }
            _ => {}
        }
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(disk_error(folder))
}

/// Reads the records of all folders, several folders at a time.
pub(super) fn scan(vault: &Vault) -> Scanned {
    let counts = Counts::default();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let first = next.fetch_add(1, Ordering::Relaxed);
                    if first >= FOLDERS {
                        break;
                    }
                    scan_folder(vault, &vault.folder.join(format!("{first:02x}")), &counts);
                }
            });
        }
    });
    // Whoever asks for changes later is to ask for the whole list first.
    vault.index.write().unwrap_or_else(PoisonError::into_inner).changes = None;
    let scanned = counts.done();
    tracing::info!(files = scanned.files, dropped = scanned.dropped, unreadable = scanned.unreadable, "vault scanned");
    scanned
}

fn scan_folder(vault: &Vault, folder: &Path, counts: &Counts) {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            counts.unreadable.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(folder = %folder.display(), %error, "a folder of the vault cannot be read");
            return;
        }
    };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        match read(&entry) {
            Ok(record) => {
                counts.files.fetch_add(1, Ordering::Relaxed);
                vault.write().insert(record);
            }
            Err(ReadError::Bad(why)) => {
                counts.dropped.fetch_add(1, Ordering::Relaxed);
                counts.warn(|| tracing::warn!(path = %path.display(), why, "a stored file is dropped"));
                vault.unlink(&path);
            }
            Err(ReadError::Disk(error)) => {
                counts.unreadable.fetch_add(1, Ordering::Relaxed);
                counts.warn(|| tracing::warn!(path = %path.display(), %error, "a stored file cannot be read"));
            }
        }
    }
}

fn read(entry: &DirEntry) -> Result<Record, ReadError> {
    let record = Record::read(&File::open(entry.path())?)?;
    if entry.file_name().to_str() == Some(&record.name.content_id().to_string()) {
        Ok(record)
    } else {
        Err(ReadError::Bad("is not where its name belongs"))
    }
}

#[derive(Default)]
struct Counts {
    files: AtomicU64,
    dropped: AtomicU64,
    unreadable: AtomicU64,
    warnings: AtomicU64,
}

impl Counts {
    /// Logs the first few; a ruined filesystem must not fill the log as well.
    fn warn(&self, log: impl FnOnce()) {
        if self.warnings.fetch_add(1, Ordering::Relaxed) < WARNINGS_MAX {
            log();
        }
    }

    fn done(self) -> Scanned {
        Scanned {
            files: self.files.into_inner(),
            dropped: self.dropped.into_inner(),
            unreadable: self.unreadable.into_inner(),
        }
    }
}

/// One for each first byte of an id.
const FOLDERS: usize = 256;

/// Reads of small records wait for the disk, so more than there are cores.
const THREADS: usize = 8;

/// Files that a scan complains about one by one.
const WARNINGS_MAX: u64 = 20;
