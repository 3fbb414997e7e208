//! The vault: whole files on an ordinary filesystem, one file each, and what is known about them in RAM.
//!
//! ```text
//!   FOLDER/lock                                 held while a daemon uses the vault
//!   FOLDER/tmp/17                               on its way in; removed at the start
//!   FOLDER/9a/9a3f0c...                         a held file, named by its content id: body and record
//!          |  +-- 32 hexadecimal digits
//!          +-- 256 folders by the id's first byte
//! ```
//!
//! # Invariants
//!
//! - A file that can be opened is whole: it was written, counted, synced and renamed before the index knew it.
//! - After any crash, [`Vault::scan`] finds exactly the files that were committed and not dropped.
//! - Dropping a file never disturbs who reads it: it stays readable through descriptors that are open.
//! - An error of the disk is an error of one call; the vault goes on.
//!
//! Why not one large file with an index of its own: files stay for days and are read as a whole, so a filesystem's
//! allocation and page cache do what that would do. Why not a database: its log would write every byte twice.

mod record;
mod scan;
mod writer;

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use geo::{CanonicalName, ContentId};
use sun::held::{HeldFile, HeldFiles};
use sun::purge::Mark;

pub use record::{FILE_BYTES_MAX, footprint};
pub use scan::Scanned;
pub use writer::Writer;

use record::Record;

/// Whole, checked files on this machine's disk.
#[derive(Debug)]
pub struct Vault {
    folder: PathBuf,
    index: RwLock<Index>,
    bytes_max: AtomicU64,
    distrusted_count: AtomicU64,
    changed: tokio::sync::Notify,
    lock: File,
}

/// A held file as the plan sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Held {
    /// Which file.
    pub content: ContentId,
    /// Length of its body, bytes.
    pub size: u64,
}

/// What became of the vault since it was last asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Changes {
    /// One entry a change, in order: the size of a file that is held now, nothing for one that no longer is.
    Since(Vec<(CanonicalName, Option<u64>)>),
    /// Too many to be remembered: look at everything.
    All,
}

impl Vault {
    /// Opens the vault of a folder, which is made if it is not there; nothing is held before [`Vault::scan`].
    ///
    /// # Errors
    ///
    /// When another process uses it, or its folders cannot be made or written.
    pub fn open(folder: &Path) -> Result<Self, VaultError> {
        std::fs::create_dir_all(folder).map_err(disk_error(folder))?;
        let lock = lock(folder)?;
        scan::prepare(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            index: RwLock::default(),
            bytes_max: AtomicU64::new(0),
            distrusted_count: AtomicU64::new(0),
            changed: tokio::sync::Notify::new(),
            lock,
        })
    }

    /// Finds what the folders hold and drops what is torn, short or changed. Blocks, for about 5 us a file when
    /// their inodes are in memory.
    #[must_use]
    pub fn scan(&self) -> Scanned {
        scan::scan(self)
    }

    /// Begins to write a file of exactly `size` bytes.
    ///
    /// # Errors
    ///
    /// What the disk says, and when the file is larger than [`FILE_BYTES_MAX`].
    pub fn begin(self: &Arc<Self>, name: &CanonicalName, size: u64) -> Result<Writer, VaultError> {
        if size > FILE_BYTES_MAX {
            return Err(VaultError::Length { announced: size, got: 0 });
        }
        let number = TEMPORARY_COUNT.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(TEMPORARY).join(number.to_string());
        Writer::new(Arc::clone(self), name.clone(), size, path)
    }

    /// Forgets a file and removes it from the disk; false when it was not held.
    pub fn remove(&self, content: ContentId) -> bool {
        let known = self.write().remove(content);
        if known {
            self.unlink(&self.path(content));
            self.changed.notify_one();
        }
        known
    }

    /// Drops every file of which `purged` says so, asked with name, mark and tags; how many. Blocks, for about 0.1 us a
    /// file that stays; nobody waits for it but who writes.
    pub fn sweep(&self, purged: impl Fn(&CanonicalName, Mark, &[u64]) -> bool) -> usize {
        let held: Vec<Arc<Record>> = self.read().files.values().cloned().collect();
        let gone = held.iter().filter(|record| purged(&record.name, record.mark, &record.tags));
        let newer = |record: &Arc<Record>| {
            self.read().files.get(&record.name.content_id()).is_none_or(|now| now.mark != record.mark)
        };
        gone.filter(|record| !newer(record) && self.remove(record.name.content_id())).count()
    }

    /// Everything that is held, in no order.
    #[must_use]
    pub fn held(&self) -> Vec<Held> {
        self.read().files.iter().map(|(&content, record)| Held { content, size: record.size }).collect()
    }

    /// Names and sizes of everything that is held, in no order; what changed before is part of it.
    #[must_use]
    pub fn list(&self) -> Vec<(CanonicalName, u64)> {
        let mut index = self.write();
        index.changes = Some(Vec::new());
        index.files.values().map(|record| (record.name.clone(), record.size)).collect()
    }

    /// What changed since this or [`Vault::list`] was last called.
    #[must_use]
    pub fn changes(&self) -> Changes {
        self.write().changes.replace(Vec::new()).map_or(Changes::All, Changes::Since)
    }

    /// Resolves when something changed since it last resolved; for one waiter.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Files held.
    #[must_use]
    pub fn files(&self) -> usize {
        self.read().files.len()
    }

    /// Files that the edge found changed on disk, since the start.
    #[must_use]
    pub fn distrusted(&self) -> u64 {
        self.distrusted_count.load(Ordering::Relaxed)
    }

    /// How much may be held from now on, bytes of disk.
    pub fn limit(&self, bytes_max: u64) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// Lets another vault use the folder; for the end of a daemon whose process goes on. What is held can still be
    /// read by whoever still does.
    pub fn release(&self) {
        // Unlocked and not only closed: a process that is just being started may have a copy of the descriptor.
        drop(self.lock.unlock());
    }

    /// Renames a written file to its place and takes it into the index.
    fn adopt(&self, temporary: &Path, record: Record) -> Result<(), VaultError> {
        let path = self.path(record.name.content_id());
        std::fs::rename(temporary, &path).map_err(disk_error(&path))?;
        let folder = path.parent().unwrap_or(&self.folder);
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(disk_error(folder))?;
        self.write().insert(record);
        self.changed.notify_one();
        Ok(())
    }

    fn unlink(&self, path: &Path) {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "a dropped file cannot be removed; its room stays taken");
            }
            _ => {}
        }
    }

    fn path(&self, content: ContentId) -> PathBuf {
        let id = content.to_string();
        self.folder.join(&id[..2]).join(id)
    }

    // The index is changed in one step each, so it is whole also when a thread panicked while it held the lock.
    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeldFiles for Vault {
    fn open(&self, content: ContentId) -> Option<HeldFile> {
        let record = Arc::clone(self.read().files.get(&content)?);
        match File::open(self.path(content)) {
            Ok(file) => Some(HeldFile {
                file,
                size: record.size,
                offset: 0,
                checksums: Arc::clone(&record.checksums),
                headers: record.headers.unpack(),
                stored_at: record.stored_at,
                mark: record.mark,
                tags: record.tags.clone(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Dropped between the two lines above, or somebody else removed it.
                self.distrust(content);
                None
            }
            Err(error) => {
                tracing::debug!(name = %record.name, %error, "a held file cannot be opened");
                None
            }
        }
    }

    fn distrust(&self, content: ContentId) {
        if self.remove(content) {
            self.distrusted_count.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%content, "a held file is not what was stored; dropped");
        }
    }

    fn confirmed(&self, content: ContentId, mark: Mark) {
        let mut index = self.write();
        if let Some(record) = index.files.get_mut(&content) {
            // On disk it keeps the old one: after a restart the content server is asked once more.
            *record = Arc::new(Record { mark, ..Record::clone(record) });
        }
    }

    fn outdated(&self, content: ContentId) {
        self.remove(content);
    }

    fn fullness(&self) -> (u64, u64) {
        (self.read().bytes, self.bytes_max.load(Ordering::Relaxed))
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        self.release();
    }
}

/// What is held.
#[derive(Debug)]
struct Index {
    files: HashMap<ContentId, Arc<Record>>,
    /// Sum of footprints.
    bytes: u64,
    /// Since [`Vault::changes`]; nothing when there were more than [`CHANGES_MAX`].
    changes: Option<Vec<(CanonicalName, Option<u64>)>>,
}

impl Default for Index {
    fn default() -> Self {
        Self { files: HashMap::new(), bytes: 0, changes: Some(Vec::new()) }
    }
}

impl Index {
    fn insert(&mut self, record: Record) {
        self.remember(record.name.clone(), Some(record.size));
        self.bytes += footprint(record.size);
        if let Some(before) = self.files.insert(record.name.content_id(), Arc::new(record)) {
            self.bytes -= footprint(before.size);
        }
    }

    fn remove(&mut self, content: ContentId) -> bool {
        let Some(record) = self.files.remove(&content) else { return false };
        self.bytes -= footprint(record.size);
        self.remember(record.name.clone(), None);
        true
    }

    fn remember(&mut self, name: CanonicalName, size: Option<u64>) {
        self.changes.take_if(|changes| changes.len() >= CHANGES_MAX);
        if let Some(changes) = &mut self.changes {
            changes.push((name, size));
        }
    }
}

/// What keeps the vault from doing what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// Two daemons on one folder would drop each other's files.
    #[error("{}: another process uses this vault; give each daemon a folder of its own", .folder.display())]
    Locked {
        /// The vault's folder.
        folder: PathBuf,
    },
    /// The disk is full, broken, missing or not ours to write.
    #[error("{}: {source}", .path.display())]
    Disk {
        /// Where.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A body is not as long as announced.
    #[error("the body has {got} bytes and not {announced} as announced")]
    Length {
        /// Bytes announced.
        announced: u64,
        /// Bytes that came, or would have.
        got: u64,
    },
}

/// Changes that are remembered until somebody asks.
const CHANGES_MAX: usize = 100_000;

const TEMPORARY: &str = "tmp";

/// Names temporary files. One count for the process: a writer that outlives its daemon must not remove another's.
static TEMPORARY_COUNT: AtomicU64 = AtomicU64::new(0);

fn lock(folder: &Path) -> Result<File, VaultError> {
    let path = folder.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(disk_error(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(VaultError::Locked { folder: folder.to_owned() }),
        Err(TryLockError::Error(source)) => Err(VaultError::Disk { path, source }),
    }
}

fn disk_error(path: &Path) -> impl Fn(io::Error) -> VaultError + use<> {
    let path = path.to_owned();
    move |source| VaultError::Disk { path: path.clone(), source }
}

#[cfg(test)]
mod tests;
