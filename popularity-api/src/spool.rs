//! What a reporter has counted and the API has not acknowledged: batches on disk, a file each, oldest first.
//!
//! ```text
//!   downloads --push--> NUMBER.batch, synced --first--> API --done--> removed
//!                          |
//!                          +-- beyond bytes_max the oldest go, counted
//!                          +-- the disk refuses it: it waits in RAM, bounded as well, and ends with the process
//!
//!   NUMBER:  boot, 20 digits | '-' | sequence, 20 digits
//!   file:    "SUNSPL02" | entries u32 | payload bytes u32 | sealed u64 | crc32c u32 of these and the payload | payload
//!             0           8             12                  16           24                                    28
//!   sealed:  when its last download was counted, milliseconds since 1970; the API is told how long ago that is
//!   payload: zstd, JSON: the batch's downloads ([`crate::wire::Download`]). Numbers are little-endian
//! ```
//!
//! # Why nothing is counted twice
//!
//! - A batch keeps its boot and sequence, also across a restart: the API counts a mark once, whatever became of the
//!   answer.
//! - The API forgets a boot once it has heard of a later one. So batches go out in order, and a start's boot is above all
//!   that it finds, also when the clock went back.
//! - A batch of an earlier life that the API finds stale (409) is most likely back although it was done with: the disk forgot
//!   that it was removed, or an old copy of the folder was put in place. It is dropped.
//! - A batch of this life that it finds stale was never counted: the server lost its folder, and its clock is behind what it
//!   was. That batch and all behind it get a later boot ([`Spool::renumber`]). This rests on nobody else reporting under the
//!   server's name.
//!
//! # What may go wrong
//!
//! - A kill, a crash: a file is whole and synced or it is not there.
//! - A batch that is too long for the API (413) becomes two ([`Spool::split`]), each under a mark of its own. A kill between
//!   the two files loses the second half; nothing is counted twice.
//! - A folder that could not be used at the start is used as soon as it can be ([`Spool::attach`]).
//! - A file that is gone, or was read and is not what was written: it is removed and counted as damaged, the others count.
//! - A file that the disk or the system does not let be read (no descriptors, no memory, a bad sector): it stays, and those
//!   behind it wait, as a later one that the API has heard of would make it outdated. When that lasts, remove it by hand.
//! - A full or broken disk: above. Dropped, damaged and failed are [`Figures`].
//! - A server that lost its folder and whose clock is behind, and that ends before all is renumbered: what it did not get to is
//!   of an earlier life then, and dropped when the API finds it stale. That is counted as refused by the reporter.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::encoding::{self, Encoding};
use crate::engine::folder::{Folder, UNFINISHED};
use crate::wire::{Download, DownloadsBatch};

/// Batches that wait.
#[derive(Debug)]
pub struct Spool {
    /// None: batches wait in RAM alone.
    folder: Option<Arc<dyn Folder>>,
    bytes_max: u64,
    source: String,
    boot: u64,
    next: u64,
    waiting: VecDeque<Waiting>,
    figures: Figures,
}

#[derive(Debug)]
struct Waiting {
    boot: u64,
    sequence: u64,
    entries: u32,
    sealed_ms: u64,
    /// What it takes of the disk, or of RAM.
    bytes: u64,
    /// The file's bytes, when the disk did not take them.
    ram: Option<Vec<u8>>,
    /// It was pushed in this life.
    own: bool,
}

/// What became of a batch that is too long for the API.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Split {
    /// It is two now.
    Done,
    /// It has one entry, or none.
    Single,
    /// The disk refused it: it is as it was.
    Failed,
}

/// What became of batches, since the start but for the first three.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Figures {
    /// Batches that wait.
    pub batches: u64,
    /// What they take on disk, bytes.
    pub disk_bytes: u64,
    /// What they take in RAM, bytes.
    pub ram_bytes: u64,
    /// Entries (a file's downloads) dropped because too much waited.
    pub dropped: u64,
    /// Batches found damaged.
    pub damaged: u64,
    /// Times that the disk refused something.
    pub failures: u64,
}

impl Spool {
    /// Takes up what an earlier process left in `folder`. Without a folder everything waits in RAM. `boot` is now, in
    /// microseconds since 1970, and above the last start's; the spool's is above all that it finds as well: write down
    /// [`Spool::boot`] for the next start. Blocks on the disk, as everything here.
    ///
    /// # Errors
    ///
    /// When the folder cannot be listed, or what is unfinished not be removed.
    pub fn open(folder: Option<Arc<dyn Folder>>, source: String, boot: u64, bytes_max: u64) -> io::Result<Self> {
        let (waiting, figures) = (VecDeque::new(), Figures::default());
        let mut spool = Self { folder: None, bytes_max: 0, source, boot, next: 1, waiting, figures };
        if let Some(folder) = folder {
            spool.attach(folder, bytes_max)?;
        }
        Ok(spool)
    }

    /// Uses a folder from now on. What an earlier process left there goes first: the API takes it unless it has heard of this
    /// life already. What waits in RAM stays there until it is sent.
    ///
    /// # Errors
    ///
    /// When the folder cannot be listed, or what is unfinished not be removed: it is not used then.
    pub fn attach(&mut self, folder: Arc<dyn Folder>, bytes_max: u64) -> io::Result<()> {
        let names = folder.list()?;
        for name in names.iter().filter(|name| name.ends_with(UNFINISHED)) {
            folder.remove(name)?;
        }
        (self.folder, self.bytes_max) = (Some(Arc::clone(&folder)), bytes_max);
        let mut before = VecDeque::new();
        for (name, (boot, sequence)) in names.iter().filter_map(|name| Some((name, number(name)?))) {
            if boot >= self.boot {
                (self.boot, self.next) = (boot.saturating_add(1), 1);
            }
            let sealed_ms = sealed_at_least(boot);
            let mut found = Waiting { boot, sequence, entries: 0, sealed_ms, bytes: 0, ram: None, own: false };
            match folder.read(name) {
                Ok(file) => {
                    let Some(head) = checked(&file) else {
                        self.damaged(name);
                        self.remove(&found);
                        continue;
                    };
                    (found.entries, found.bytes) = (head.entries, cost(file.len()));
                    found.sealed_ms = head.sealed_ms.unwrap_or(sealed_ms);
                }
                // That is no damage: it is read when its turn comes.
                Err(error) => {
                    self.failed(&error);
                    found.bytes = folder.size(name).map_or(DISK_BLOCK_BYTES, size_on_disk);
                }
            }
            before.push_back(found);
        }
        before.append(&mut self.waiting);
        self.waiting = before;
        self.make_room(false, 0);
        Ok(())
    }

    /// Whether batches go to a folder.
    #[must_use]
    pub const fn is_on_disk(&self) -> bool {
        self.folder.is_some()
    }

    /// Numbers a batch that was counted up to `sealed_ms` (milliseconds since 1970) and puts it last. It is durable unless the
    /// disk refuses it; when too much waits, the oldest go.
    pub fn push(&mut self, downloads: &[Download], sealed_ms: u64) {
        let (boot, sequence) = (self.boot, self.next);
        self.next += 1;
        let count = u32::try_from(downloads.len()).unwrap_or(u32::MAX);
        let Ok(file) = file(downloads, count, sealed_ms) else {
            self.figures.dropped += u64::from(count);
            return;
        };
        let bytes = cost(file.len());
        if self.folder.is_some() && bytes > self.bytes_max {
            self.figures.dropped += u64::from(count);
            return;
        }
        let mut one = Waiting { boot, sequence, entries: count, sealed_ms, bytes, ram: None, own: true };
        if let Some(folder) = self.folder.clone() {
            // Room first: a full spool takes no more of the disk, not even for a moment.
            self.make_room(false, bytes);
            if let Err(error) = folder.replace(&name(boot, sequence), &file) {
                self.failed(&error);
                one.ram = Some(file);
            }
        } else {
            one.ram = Some(file);
        }
        if one.ram.is_some() {
            self.make_room(true, bytes);
        }
        self.waiting.push_back(one);
    }

    /// The batch to send next, with its age at `now_ms` (milliseconds since 1970); it stays until [`Spool::done`]. None also
    /// when it cannot be read now.
    pub fn first(&mut self, now_ms: u64) -> Option<DownloadsBatch> {
        loop {
            let first = self.waiting.front()?;
            let (boot, sequence, name) = (first.boot, first.sequence, name(first.boot, first.sequence));
            let read = match (&first.ram, &self.folder) {
                (Some(file), _) => downloads(file),
                (None, Some(folder)) => match folder.read(&name) {
                    Ok(file) => downloads(&file),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    Err(error) => {
                        self.failed(&error);
                        return None;
                    }
                },
                (None, None) => None,
            };
            if let Some(downloads) = read {
                let age_ms = now_ms.saturating_sub(first.sealed_ms);
                return Some(DownloadsBatch { source: self.source.clone(), boot, sequence, age_ms, downloads });
            }
            self.damaged(&name);
            self.done(boot, sequence);
        }
    }

    /// The API takes no batch as long as this one, which [`Spool::first`] gave: its first half stays in its place, the second
    /// goes last. Nothing when it was dropped meanwhile.
    pub fn split(&mut self, batch: &DownloadsBatch) -> Split {
        let Some(first) = self.waiting.front_mut() else { return Split::Done };
        if (first.boot, first.sequence) != (batch.boot, batch.sequence) {
            return Split::Done;
        }
        let (kept, moved) = batch.downloads.split_at(batch.downloads.len() / 2);
        if kept.is_empty() {
            return Split::Single;
        }
        let (sealed_ms, count) = (first.sealed_ms, u32::try_from(kept.len()).unwrap_or(u32::MAX));
        let written = file(kept, count, sealed_ms).and_then(|file| {
            let bytes = cost(file.len());
            match (&mut first.ram, &self.folder) {
                (Some(ram), _) => *ram = file,
                (None, Some(folder)) => folder.replace(&name(batch.boot, batch.sequence), &file)?,
                (None, None) => {}
            }
            (first.entries, first.bytes) = (count, bytes);
            Ok(())
        });
        if let Err(error) = written {
            self.failed(&error);
            return Split::Failed;
        }
        self.push(moved, sealed_ms);
        Split::Done
    }

    /// Whether the batch to send next was pushed in this life.
    #[must_use]
    pub fn first_is_own(&self) -> bool {
        self.waiting.front().is_some_and(|first| first.own)
    }

    /// A batch was acknowledged, or refused for good. Nothing when it was dropped meanwhile.
    pub fn done(&mut self, boot: u64, sequence: u64) {
        let first = self.waiting.front().is_some_and(|first| (first.boot, first.sequence) == (boot, sequence));
        if let Some(first) = first.then(|| self.waiting.pop_front()).flatten() {
            self.remove(&first);
        }
    }

    /// The API knows a later boot than this life's, of which the first batch is: everything that waits gets one above it.
    pub fn renumber(&mut self, known: u64) {
        self.boot = self.boot.max(known).saturating_add(1);
        self.next = 1;
        for at in 0..self.waiting.len() {
            let (boot, sequence) = (self.boot, self.next);
            self.next += 1;
            let Some(one) = self.waiting.get_mut(at) else { break };
            let (before, after) = (name(one.boot, one.sequence), name(boot, sequence));
            let (renamed, has_new_name) = match (&one.ram, &self.folder) {
                (None, Some(folder)) => {
                    let renamed = folder.rename(&before, &after);
                    let has_new_name = renamed.is_ok() || folder.size(&after).is_ok();
                    (renamed, has_new_name)
                }
                _ => (Ok(()), true),
            };
            // One without its new name is refused again, and renamed then.
            if has_new_name {
                (one.boot, one.sequence) = (boot, sequence);
            }
            if let Err(error) = renamed {
                self.failed(&error);
            }
        }
    }

    /// What waits, and what was lost.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let (disk_bytes, ram_bytes) = (self.bytes(false), self.bytes(true));
        Figures { batches: self.waiting.len() as u64, disk_bytes, ram_bytes, ..self.figures }
    }

    /// The boot of batches that are pushed now.
    #[must_use]
    pub const fn boot(&self) -> u64 {
        self.boot
    }

    /// Drops the oldest until so many bytes more fit, on disk or in RAM.
    fn make_room(&mut self, in_ram: bool, more: u64) {
        let most = if in_ram { RAM_BYTES_MAX } else { self.bytes_max };
        let mut bytes = self.bytes(in_ram).saturating_add(more);
        while bytes > most {
            let Some(at) = self.waiting.iter().position(|one| one.ram.is_some() == in_ram) else { break };
            let Some(dropped) = self.waiting.remove(at) else { break };
            bytes -= dropped.bytes;
            self.figures.dropped += u64::from(dropped.entries);
            self.remove(&dropped);
        }
    }

    /// What waits on disk or in RAM takes.
    fn bytes(&self, in_ram: bool) -> u64 {
        self.waiting.iter().filter(|one| one.ram.is_some() == in_ram).map(|one| one.bytes).sum()
    }

    fn remove(&mut self, one: &Waiting) {
        let (None, Some(folder)) = (&one.ram, &self.folder) else { return };
        match folder.remove(&name(one.boot, one.sequence)) {
            Ok(()) => {}
            // Somebody else removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.failed(&error),
        }
    }

    fn damaged(&mut self, name: &str) {
        tracing::warn!(file = name, "a spooled batch of downloads is damaged and dropped; the others count");
        self.figures.damaged += 1;
    }

    fn failed(&mut self, error: &io::Error) {
        if self.figures.failures == 0 {
            tracing::warn!(%error, "downloads cannot be spooled on disk: what it does not take waits in RAM, what it does not give waits there");
        }
        self.figures.failures += 1;
    }
}

/// A batch as it is written.
fn file(downloads: &[Download], count: u32, sealed_ms: u64) -> io::Result<Vec<u8>> {
    let payload = encoding::pack(&serde_json::to_vec(downloads)?)?;
    let bytes = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut file = MAGIC.to_vec();
    file.extend(count.to_le_bytes());
    file.extend(bytes.to_le_bytes());
    file.extend(sealed_ms.to_le_bytes());
    file.extend(checksum(&file[MAGIC.len()..], &payload).to_le_bytes());
    file.extend(payload);
    Ok(file)
}

/// What a whole, undamaged file says.
struct Head<'a> {
    entries: u32,
    /// Files of an earlier release do not say when.
    sealed_ms: Option<u64>,
    payload: &'a [u8],
}

fn downloads(file: &[u8]) -> Option<Vec<Download>> {
    let Head { entries, payload, .. } = checked(file)?;
    let json = Encoding::Zstd.unpack(payload, JSON_BYTES_MAX, |_| true).ok()?;
    let downloads: Vec<Download> = serde_json::from_slice(&json).ok()?;
    (downloads.len() as u64 == u64::from(entries)).then_some(downloads)
}

fn checked(file: &[u8]) -> Option<Head<'_>> {
    let (head, sealed_ms, rest) = if let Some(rest) = file.strip_prefix(MAGIC) {
        let (head, rest) = rest.split_at_checked(16)?;
        (head, Some(u64::from_le_bytes(*head.last_chunk()?)), rest)
    } else {
        let (head, rest) = file.strip_prefix(MAGIC_WITHOUT_TIME)?.split_at_checked(8)?;
        (head, None, rest)
    };
    let (stored, payload) = rest.split_first_chunk::<4>()?;
    let (entries, rest) = head.split_first_chunk::<4>()?;
    let whole = u32::from_le_bytes(*rest.first_chunk()?) as usize == payload.len();
    let sound = u32::from_le_bytes(*stored) == checksum(head, payload);
    (whole && sound).then_some(Head { entries: u32::from_le_bytes(*entries), sealed_ms, payload })
}

/// A batch was sealed after its boot, which is in microseconds since 1970.
const fn sealed_at_least(boot: u64) -> u64 {
    boot / 1000
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(head), payload)
}

fn name(boot: u64, sequence: u64) -> String {
    format!("{boot:020}-{sequence:020}{SUFFIX}")
}

fn number(name: &str) -> Option<(u64, u64)> {
    let (boot, sequence) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    let digits = |text: &str| text.len() == 20 && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(boot) && digits(sequence)).then(|| Some((boot.parse().ok()?, sequence.parse().ok()?)))?
}

/// What a file of so many bytes takes on disk.
const fn cost(bytes: usize) -> u64 {
    size_on_disk(bytes as u64)
}

const fn size_on_disk(bytes: u64) -> u64 {
    bytes.next_multiple_of(DISK_BLOCK_BYTES)
}

const MAGIC: &[u8] = b"SUNSPL02";
/// Of an earlier release's files, which are read: they have no `sealed`, and count as old as the life that they are of.
const MAGIC_WITHOUT_TIME: &[u8] = b"SUNSPL01";
const SUFFIX: &str = ".batch";
/// What file systems give a file at least, and in steps of.
const DISK_BLOCK_BYTES: u64 = 4096;
/// Batches in RAM, when the disk does not take them: some minutes of a busy server.
const RAM_BYTES_MAX: u64 = 32 << 20;
/// Longest JSON of one file; a batch's is bounded by the reporter below that.
const JSON_BYTES_MAX: usize = 128 << 20;

#[cfg(test)]
mod tests;
