//! A small file of lines that survives crashes: purges, here and at every server.
//!
//! ```text
//!   9a3f0c11 {"sequence":7,"at_ms":5,...}\n
//!      |            |
//!      |            a JSON value, which never has a line feed in it
//!      crc32c of the JSON's bytes, eight hexadecimal digits
//! ```
//!
//! Lines are appended, each batch with one write and one `fdatasync`; now and then the whole file is replaced.
//!
//! # Why this is enough
//!
//! - A bad end without a good line behind it is a **torn tail**: whoever wrote it was never told that it is kept.
//!   It is cut.
//! - A bad line with a good one behind it was kept and is **damaged**. The caller is told between which lines,
//!   and decides what a lost purge means to it.
//! - A write that fails is taken back, by cutting the file to what was durable; when even that fails, nothing is
//!   written any more until a restart has looked at the file.
//!
//! Why text: an operator who asks why a file was fetched again can `grep` for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A file of lines, open for more.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    file: File,
    /// Length of what is durable; none after a failure that could not be taken back.
    durable: Option<u64>,
}

/// What a start finds.
#[derive(Debug, Eq, PartialEq)]
pub struct Found<T> {
    /// The good lines, in order.
    pub lines: Vec<T>,
    /// How many of them stand before the last damage; none: nothing is damaged.
    pub damaged_before: Option<usize>,
    /// Bytes that were cut from the end.
    pub torn_bytes: u64,
}

impl Lines {
    /// Opens the file, which is made if it is not there, reads it and cuts a torn tail.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn open<T: DeserializeOwned>(path: &Path) -> io::Result<(Self, Found<T>)> {
        let bytes = match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let (found, good) = scan(&bytes);
        let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        file.set_len(good)?;
        file.seek(SeekFrom::Start(good))?;
        file.sync_all()?;
        sync_folder(path)?;
        Ok((Self { path: path.to_owned(), file, durable: Some(good) }, found))
    }

    /// Appends lines; they are durable when this returns. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// What the operating system says; then none of them counts.
    pub fn append<T: Serialize>(&mut self, lines: &[T]) -> io::Result<()> {
        let durable = self.durable.ok_or_else(|| io::Error::other("an earlier failure could not be taken back"))?;
        let mut bytes = Vec::new();
        lines.iter().try_for_each(|line| write_line(line, &mut bytes))?;
        match self.file.write_all(&bytes).and_then(|()| self.file.sync_data()) {
            Ok(()) => {
                self.durable = Some(durable + bytes.len() as u64);
                Ok(())
            }
            Err(error) => {
                let taken_back = self.file.set_len(durable).and_then(|()| self.file.seek(SeekFrom::Start(durable)));
                self.durable = taken_back.is_ok().then_some(durable);
                Err(error)
            }
        }
    }

    /// Puts these lines in the place of all that there are: the old file or the new one is there after any crash.
    /// Blocks on the disk.
    ///
    /// # Errors
    ///
    /// What the operating system says; then the old lines count.
    pub fn replace<T: Serialize>(&mut self, lines: impl IntoIterator<Item = T>) -> io::Result<()> {
        let beside = self.path.with_extension("unfinished");
        let mut bytes = Vec::new();
        lines.into_iter().try_for_each(|line| write_line(&line, &mut bytes))?;
        let mut file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)?;
        (self.file, self.durable) = (file, Some(bytes.len() as u64));
        sync_folder(&self.path)
    }

    /// Appends nothing more until it is replaced, as after a failure that could not be taken back.
    #[cfg(test)]
    pub(super) const fn jam(&mut self) {
        self.durable = None;
    }

    /// Length of the file, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.durable.unwrap_or(0)
    }
}

fn write_line<T: Serialize>(line: &T, out: &mut Vec<u8>) -> io::Result<()> {
    let json = serde_json::to_vec(line)?;
    write!(out, "{:08x} ", crc32c::crc32c(&json))?;
    out.extend(json);
    out.push(b'\n');
    Ok(())
}

/// Good lines, and the length of the file up to the end of the last one.
fn scan<T: DeserializeOwned>(bytes: &[u8]) -> (Found<T>, u64) {
    let (mut lines, mut damaged_before, mut good, mut at, mut bad) = (Vec::new(), None, 0, 0, false);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        at += line.len();
        match read_line(line) {
            Some(value) => {
                if std::mem::take(&mut bad) {
                    damaged_before = Some(lines.len());
                }
                lines.push(value);
                good = at;
            }
            None => bad = true,
        }
    }
    (Found { lines, damaged_before, torn_bytes: (bytes.len() - good) as u64 }, good as u64)
}

fn read_line<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let (checksum, rest) = line.split_first_chunk::<8>()?;
    let json = rest.strip_prefix(b" ")?.strip_suffix(b"\n")?;
    let checksum = u32::from_str_radix(std::str::from_utf8(checksum).ok()?, 16).ok()?;
    (checksum == crc32c::crc32c(json)).then(|| serde_json::from_slice(json).ok())?
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_like_this() {
        let mut out = Vec::new();
        write_line(&7, &mut out).unwrap();
        write_line(&"a\nb", &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "b6547e0b 7\n7b809e80 \"a\\nb\"\n");
    }

    #[test]
    fn what_was_appended_is_found_and_what_was_replaced_is_not() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("purges");
        let (mut lines, found) = Lines::open::<u32>(&path).unwrap();
        assert_eq!(found, Found { lines: vec![], damaged_before: None, torn_bytes: 0 });
        lines.append(&[1, 2]).unwrap();
        lines.append(&[3]).unwrap();
        drop(lines);
        let (mut lines, found) = Lines::open::<u32>(&path).unwrap();
        assert_eq!(found.lines, [1, 2, 3]);
        lines.replace([8, 9]).unwrap();
        lines.append(&[10]).unwrap();
        assert_eq!(Lines::open::<u32>(&path).unwrap().1.lines, [8, 9, 10]);
    }

    #[test]
    fn a_file_cut_anywhere_keeps_its_whole_lines() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("purges");
        Lines::open::<u32>(&path).unwrap().0.append(&[11, 22, 33]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for cut in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let whole = bytes[..cut].iter().filter(|byte| **byte == b'\n').count();
            let (mut lines, found) = Lines::open::<u32>(&path).unwrap();
            assert_eq!((found.lines.len(), found.damaged_before), (whole, None), "cut at {cut}");
            lines.append(&[44]).unwrap();
            assert_eq!(Lines::open::<u32>(&path).unwrap().1.lines.last(), Some(&44));
        }
    }

    #[test]
    fn damage_before_a_good_line_is_told() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("purges");
        Lines::open::<u32>(&path).unwrap().0.append(&[11, 22, 33]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let (found, _) = scan::<u32>(&changed);
            let line = bytes[..at].iter().filter(|byte| **byte == b'\n').count();
            // A changed line feed takes the next line with it.
            let lost_last = line == 2 || (line == 1 && bytes[at] == b'\n');
            assert_eq!(found.damaged_before.is_none(), lost_last, "byte {at}: {found:?}");
            assert!(found.lines.iter().all(|value| [11, 22, 33].contains(value)), "byte {at}: {found:?}");
        }
    }
}
