//! Batches on disk: those that ClickHouse does not have yet, and the last ones that it has.
//!
//! ```text
//! history/00001790000010123456-200-1c2d3e4f.jsonl.gz         waits: number, rows, crc32c of the file
//! history/sent/00001790000000123456-180-99aabbcc.jsonl.gz    was taken
//! history/00001790000020123456-7-00000000.tmp                was being written when the process died: removed
//! ```
//!
//! # Invariants
//!
//! - A file under its final name is whole: written beside, flushed, then renamed.
//! - Numbers rise, across restarts too, also when the clock goes back.
//! - Each of the two folders holds at most its bound; the oldest go first.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// A folder of batches.
#[derive(Debug)]
pub struct Spool {
    waiting: Shelf,
    sent: Shelf,
    last: u64,
}

/// A batch's file, without its bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Batch {
    /// Its number: when it was sealed, microseconds since 1970.
    pub number: u64,
    /// Lines in it.
    pub rows: u64,
    /// crc32c of the file.
    checksum: u32,
    /// Length of the file.
    bytes: u64,
}

/// Why a batch cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Its bytes are not those that were written.
    #[error("the file is damaged")]
    Damaged,
    /// There is no such file: somebody removed it.
    #[error("the file is gone")]
    Gone,
    /// The disk, or the system, does not give it now: it may later.
    #[error(transparent)]
    Disk(#[from] io::Error),
}

impl Spool {
    /// Opens a folder, which is made if it is not there, with bounds in bytes for what waits and for what was sent.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn open(folder: &Path, waiting_bytes_max: u64, sent_bytes_max: u64) -> io::Result<Self> {
        let sent = Shelf::open(folder.join("sent"), sent_bytes_max)?;
        let waiting = Shelf::open(folder.to_owned(), waiting_bytes_max)?;
        let last = [&waiting, &sent].into_iter().filter_map(|shelf| shelf.batches.keys().next_back());
        let last = last.copied().max().unwrap_or(0);
        let mut spool = Self { waiting, sent, last };
        spool.sent.trim();
        Ok(spool)
    }

    /// A number for a batch that is sealed now, microseconds since 1970.
    pub fn number(&mut self, now_us: u64) -> u64 {
        self.last = now_us.max(self.last.saturating_add(1));
        self.last
    }

    /// Keeps a batch until it is sent; the rows of older ones that had to go for it.
    ///
    /// # Errors
    ///
    /// The disk's: the batch is not kept.
    pub fn push(&mut self, number: u64, rows: u64, lines: &[u8]) -> io::Result<u64> {
        let mut packed = GzEncoder::new(Vec::with_capacity(lines.len() / 8), Compression::fast());
        packed.write_all(lines)?;
        let packed = packed.finish()?;
        let bytes = u64::try_from(packed.len()).unwrap_or(u64::MAX);
        self.waiting.write(Batch { number, rows, checksum: crc32c::crc32c(&packed), bytes }, &packed)?;
        Ok(self.waiting.trim())
    }

    /// What is to be sent next.
    #[must_use]
    pub fn oldest(&self) -> Option<Batch> {
        self.waiting.batches.values().next().copied()
    }

    /// A waiting batch, gzipped lines.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn read(&self, batch: &Batch) -> Result<Vec<u8>, ReadError> {
        self.waiting.read(batch)
    }

    /// A batch was taken.
    ///
    /// # Errors
    ///
    /// The disk's: it may be sent again.
    pub fn sent(&mut self, batch: &Batch) -> io::Result<()> {
        if self.waiting.batches.remove(&batch.number).is_none() {
            return Ok(());
        }
        self.waiting.bytes -= batch.bytes;
        if self.sent.bytes_max == 0 {
            return fs::remove_file(self.waiting.path(batch));
        }
        fs::rename(self.waiting.path(batch), self.sent.path(batch))?;
        self.sent.put(*batch);
        self.sent.trim();
        Ok(())
    }

    /// A batch that can never be sent goes.
    pub fn discard(&mut self, batch: &Batch) {
        self.waiting.remove(batch);
    }

    /// Batches that wait, and their bytes.
    #[must_use]
    pub fn waiting(&self) -> (usize, u64) {
        (self.waiting.batches.len(), self.waiting.bytes)
    }
}

/// Every batch of a folder as an API left it, sent ones too, oldest first: for filling tables again. Reads names only.
///
/// # Errors
///
/// The disk's.
pub fn kept(folder: &Path) -> io::Result<Vec<(PathBuf, Batch)>> {
    let mut found = Vec::new();
    for folder in [folder.to_owned(), folder.join("sent")] {
        match list(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !found.is_empty() => {}
            listed => found.extend(listed?),
        }
    }
    found.sort_by_key(|(_, batch)| batch.number);
    Ok(found)
}

/// A batch's file, gzipped lines, checked.
///
/// # Errors
///
/// [`ReadError`].
pub fn read(path: &Path, batch: &Batch) -> Result<Vec<u8>, ReadError> {
    let packed = fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ReadError::Gone,
        _ => ReadError::Disk(error),
    })?;
    if crc32c::crc32c(&packed) == batch.checksum { Ok(packed) } else { Err(ReadError::Damaged) }
}

/// The lines of a batch's file.
///
/// # Errors
///
/// When it is no gzip, or longer than [`LINES_BYTES_MAX`].
pub fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut lines = Vec::new();
    GzDecoder::new(packed).take(LINES_BYTES_MAX).read_to_end(&mut lines)?;
    Ok(lines)
}

/// Longest batch, bytes of lines.
pub const LINES_BYTES_MAX: u64 = 1 << 32;

/// One of the two folders.
#[derive(Debug)]
struct Shelf {
    folder: PathBuf,
    batches: BTreeMap<u64, Batch>,
    bytes: u64,
    bytes_max: u64,
}

impl Shelf {
    fn open(folder: PathBuf, bytes_max: u64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(path)?;
            }
        }
        let mut shelf = Self { batches: BTreeMap::new(), bytes: 0, bytes_max, folder };
        for (_, batch) in list(&shelf.folder)? {
            shelf.put(batch);
        }
        Ok(shelf)
    }

    fn put(&mut self, batch: Batch) {
        self.bytes += batch.bytes;
        self.batches.insert(batch.number, batch);
    }

    fn path(&self, batch: &Batch) -> PathBuf {
        self.folder.join(name(batch))
    }

    fn write(&mut self, batch: Batch, packed: &[u8]) -> io::Result<()> {
        let path = self.path(&batch);
        let unfinished = path.with_extension("tmp");
        let written = File::create(&unfinished).and_then(|mut file| {
            file.write_all(packed)?;
            file.sync_all()
        });
        let written = written.and_then(|()| fs::rename(&unfinished, &path));
        if let Err(error) = written {
            drop(fs::remove_file(&unfinished));
            return Err(error);
        }
        self.put(batch);
        File::open(&self.folder)?.sync_all()
    }

    fn read(&self, batch: &Batch) -> Result<Vec<u8>, ReadError> {
        read(&self.path(batch), batch)
    }

    fn remove(&mut self, batch: &Batch) {
        if self.batches.remove(&batch.number).is_some() {
            self.bytes -= batch.bytes;
            // One that stays on the disk all the same is found, and goes, with the next start.
            drop(fs::remove_file(self.path(batch)));
        }
    }

    /// Removes the oldest until the bound is kept; their rows.
    fn trim(&mut self) -> u64 {
        let mut rows = 0;
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.batches.values().next().copied() else { break };
            self.remove(&oldest);
            rows += oldest.rows;
        }
        rows
    }
}

fn list(folder: &Path) -> io::Result<Vec<(PathBuf, Batch)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let text = entry.file_name();
        if let Some(batch) = text.to_str().and_then(parse) {
            found.push((entry.path(), Batch { bytes: entry.metadata()?.len(), ..batch }));
        }
    }
    Ok(found)
}

fn name(batch: &Batch) -> String {
    let Batch { number, rows, checksum, .. } = batch;
    format!("{number:020}-{rows}-{checksum:08x}{ENDING}")
}

/// What a file's name says; its length is not in it.
fn parse(name: &str) -> Option<Batch> {
    let mut parts = name.strip_suffix(ENDING)?.splitn(3, '-');
    let (number, rows) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some(Batch { number, rows, checksum: u32::from_str_radix(parts.next()?, 16).ok()?, bytes: 0 })
}

const ENDING: &str = ".jsonl.gz";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_wait_in_order_across_restarts_and_are_kept_when_sent() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path(), 1 << 20, 1 << 20).unwrap();
        for line in ["a\n", "b\n", "c\n"] {
            let number = spool.number(1000);
            assert_eq!(spool.push(number, 1, line.as_bytes()).unwrap(), 0);
        }
        let first = spool.oldest().unwrap();
        assert_eq!((first.number, unpack(&spool.read(&first).unwrap()).unwrap()), (1000, b"a\n".to_vec()));
        spool.sent(&first).unwrap();
        fs::write(folder.path().join("0-0-0.tmp"), "half").unwrap();
        fs::write(folder.path().join("notes.txt"), "an operator's").unwrap();
        let mut spool = Spool::open(folder.path(), 1 << 20, 1 << 20).unwrap();
        assert_eq!(spool.oldest().unwrap().number, 1001);
        assert_eq!(spool.waiting().0, 2);
        assert_eq!(spool.number(5), 1003, "also when the clock went back");
        assert!(!folder.path().join("0-0-0.tmp").exists() && folder.path().join("notes.txt").exists());
        let kept: Vec<_> = kept(folder.path()).unwrap();
        let lines: Vec<_> = kept.iter().map(|(path, batch)| unpack(&read(path, batch).unwrap()).unwrap()).collect();
        assert_eq!(lines, [b"a\n", b"b\n", b"c\n"]);
    }

    #[test]
    fn the_oldest_go_when_there_is_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path(), 1 << 20, 1 << 20).unwrap();
        spool.push(1, 7, b"line\n").unwrap();
        let each = spool.waiting().1;
        let mut spool = Spool::open(folder.path(), 2 * each, each).unwrap();
        let dropped: Vec<u64> = (2..6).map(|number| spool.push(number, number, b"line\n").unwrap()).collect();
        assert_eq!(dropped, [0, 7, 2, 3]);
        assert_eq!((spool.oldest().unwrap().number, spool.waiting()), (4, (2, 2 * each)));
        while let Some(oldest) = spool.oldest() {
            spool.sent(&oldest).unwrap();
        }
        assert_eq!(kept(folder.path()).unwrap().len(), 1, "sent ones have a bound of their own");
    }

    #[test]
    fn without_room_for_sent_ones_none_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path(), 1 << 20, 0).unwrap();
        spool.push(1, 1, b"line\n").unwrap();
        let oldest = spool.oldest().unwrap();
        spool.sent(&oldest).unwrap();
        assert_eq!((spool.oldest(), kept(folder.path()).unwrap().len()), (None, 0));
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path(), 1 << 20, 0).unwrap();
        spool.push(1, 1, b"line\n").unwrap();
        let oldest = spool.oldest().unwrap();
        let path = spool.waiting.path(&oldest);
        let mut bytes = fs::read(&path).unwrap();
        bytes[12] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(spool.read(&oldest), Err(ReadError::Damaged)));
        fs::remove_file(spool.waiting.path(&oldest)).unwrap();
        assert!(matches!(spool.read(&oldest), Err(ReadError::Gone)));
        fs::create_dir(spool.waiting.path(&oldest)).unwrap();
        assert!(matches!(spool.read(&oldest), Err(ReadError::Disk(_))), "no file, but there is something");
        spool.discard(&oldest);
        assert_eq!((spool.oldest(), spool.waiting()), (None, (0, 0)));
    }
}
