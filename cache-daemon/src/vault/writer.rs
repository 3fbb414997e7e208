//! One file on its way into the vault.
//!
//! ```text
//!   begin --> write, write, ... --> commit: length is as announced --> record and trailer --> fsync
//!     |             |                                                     --> rename --> fsync of the folder --> held
//!     +-------------+------ dropped, failed: the temporary file is removed
//! ```
//!
//! Nothing of it can be opened before `commit` has returned. Everything here blocks on the disk: call it where
//! blocking is allowed.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use geo::CanonicalName;
use http::HeaderMap;
use sun::held::HELD_BLOCK_BYTES;
use sun::purge::Mark;

use super::record::{PackedHeaders, Record};
use super::{Vault, VaultError, disk_error};

/// A file that is being written; it vanishes unless it is committed.
#[derive(Debug)]
pub struct Writer {
    vault: Arc<Vault>,
    name: CanonicalName,
    size: u64,
    mark: Mark,
    tags: Box<[u64]>,
    temporary: Temporary,
    written: u64,
    checksums: Vec<u32>,
    /// Checksum of the block that is not full yet.
    block: u32,
}

impl Writer {
    pub(super) fn new(vault: Arc<Vault>, name: CanonicalName, size: u64, path: PathBuf) -> Result<Self, VaultError> {
        let file = File::create_new(&path).map_err(disk_error(&path))?;
        let temporary = Temporary { file, path };
        Ok(Self::of(vault, name, size, temporary))
    }

    fn of(vault: Arc<Vault>, name: CanonicalName, size: u64, temporary: Temporary) -> Self {
        let (mark, tags) = (Mark::default(), Box::default());
        Self { vault, name, size, mark, tags, temporary, written: 0, checksums: Vec::new(), block: 0 }
    }

    /// Says by what it can be purged: the last purge that was gone by when its fetch began (before the first, without
    /// this), and hashes of its tags.
    #[must_use]
    pub fn marked(self, mark: Mark, tags: Box<[u64]>) -> Self {
        Self { mark, tags, ..self }
    }

    /// Appends bytes of the body.
    ///
    /// # Errors
    ///
    /// What the disk says, and when there are more bytes than were announced.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), VaultError> {
        if bytes.len() as u64 > self.size - self.written {
            return Err(VaultError::Length { announced: self.size, got: self.written + bytes.len() as u64 });
        }
        self.temporary.file.write_all(bytes).map_err(disk_error(&self.temporary.path))?;
        self.count(bytes);
        Ok(())
    }

    /// Makes the file part of the vault: it can be opened when this returns, and survives a power cut.
    ///
    /// # Errors
    ///
    /// What the disk says, and when bytes are missing.
    pub fn commit(mut self, headers: &HeaderMap, stored_at: u64) -> Result<(), VaultError> {
        if self.written != self.size {
            return Err(VaultError::Length { announced: self.size, got: self.written });
        }
        if !self.size.is_multiple_of(HELD_BLOCK_BYTES) {
            self.checksums.push(self.block);
        }
        let record = Record {
            name: self.name.clone(),
            size: self.size,
            stored_at,
            mark: self.mark,
            tags: std::mem::take(&mut self.tags),
            checksums: std::mem::take(&mut self.checksums).into(),
            headers: PackedHeaders::pack(headers),
        };
        let failed = disk_error(&self.temporary.path);
        self.temporary.file.write_all(&record.encode()).map_err(&failed)?;
        self.temporary.file.sync_all().map_err(&failed)?;
        self.vault.adopt(&self.temporary.path, record)
    }

    fn count(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = HELD_BLOCK_BYTES - self.written % HELD_BLOCK_BYTES;
            let taken = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(taken);
            self.block = crc32c::crc32c_append(self.block, now);
            self.written += taken as u64;
            if self.written.is_multiple_of(HELD_BLOCK_BYTES) {
                self.checksums.push(std::mem::take(&mut self.block));
            }
            bytes = later;
        }
    }

    /// As [`Writer::new`], onto something that is there already.
    #[cfg(test)]
    pub(super) fn onto(vault: Arc<Vault>, name: CanonicalName, size: u64, file: File) -> Self {
        let temporary = Temporary { file, path: PathBuf::from("/nonexistent/temporary") };
        Self::of(vault, name, size, temporary)
    }
}

/// A file that is removed when it is dropped; after the rename there is nothing left to remove.
#[derive(Debug)]
struct Temporary {
    file: File,
    path: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone after a commit; what cannot be removed now is removed by the next start.
        drop(std::fs::remove_file(&self.path));
    }
}
