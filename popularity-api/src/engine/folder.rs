//! Where the engine keeps its files: one folder, flat. A real one, and in tests one that crashes, fills up and lies.
//!
//! Writers promise what the engine's recovery rests on:
//!
//! - bytes that [`Folder::append`] wrote are durable after [`Folder::sync`] returned;
//! - [`Folder::replace`] leaves the old file or the new one, whole and durable, never a part.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A flat folder of files.
pub trait Folder: fmt::Debug + Send + Sync {
    /// Names of all files, sorted.
    ///
    /// # Errors
    ///
    /// What the operating system says, here and in every method below.
    fn list(&self) -> io::Result<Vec<String>>;

    /// A file's bytes.
    #[expect(clippy::missing_errors_doc, reason = "said once above")]
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// At most so many of a file's bytes from `from` on; fewer, or none, only at its end.
    #[expect(clippy::missing_errors_doc, reason = "said once above")]
    fn read_at(&self, name: &str, from: u64, bytes_max: usize) -> io::Result<Vec<u8>>;

    /// A file's bytes, counted.
    #[expect(clippy::missing_errors_doc, reason = "said once above")]
    fn size(&self, name: &str) -> io::Result<u64>;

    /// An empty file to append to; one that is there is emptied.
    #[expect(clippy::missing_errors_doc, reason = "said once above")]
    fn create(&self, name: &str) -> io::Result<()>;

    /// Writes at the end of the file that was created last.
    #[expect(clippy::missing_errors_doc, reason = "said once above")]
    fn append(&self, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was appended durable.
    #[expect(clippy::missing_errors_doc, reason = "said once above")]
    fn sync(&self) -> io::Result<()>;

    /// Cuts the file that was created last.
    #[expect(clippy::missing_errors_doc, reason = "said once above")]
    fn truncate(&self, bytes: u64) -> io::Result<()>;

    /// Puts a whole file in the place of the one with this name: what `write` writes, if it does not fail.
    #[expect(clippy::missing_errors_doc, reason = "said once above")]
    fn replace_with(&self, name: &str, write: Writing<'_>) -> io::Result<()>;

    /// The same with bytes that are there.
    #[expect(clippy::missing_errors_doc, reason = "said once above")]
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.replace_with(name, &mut |out| out.write_all(bytes))
    }

    /// Gives a file another name.
    #[expect(clippy::missing_errors_doc, reason = "said once above")]
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    #[expect(clippy::missing_errors_doc, reason = "said once above")]
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// Writes a file.
pub type Writing<'a> = &'a mut dyn FnMut(&mut dyn Write) -> io::Result<()>;

/// A folder of the file system; held by one process at a time.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    appended: Mutex<Option<File>>,
    /// Locked as long as it is open.
    _lock: File,
}

impl Disk {
    /// Opens the folder, making it if need be, and locks it.
    ///
    /// # Errors
    ///
    /// What the operating system says, or that another process has it.
    pub fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK))?;
        lock.try_lock().map_err(|_| {
            io::Error::new(io::ErrorKind::WouldBlock, "another process uses this folder; end it or name another one")
        })?;
        Ok(Self { path: path.to_owned(), appended: Mutex::new(None), _lock: lock })
    }

    fn with_appended<T>(&self, act: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
        let mut appended = self.appended.lock().unwrap_or_else(PoisonError::into_inner);
        act(appended.as_mut().ok_or_else(|| io::Error::other("nothing was created to append to"))?)
    }

    /// Makes names that were made, changed or removed durable.
    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl Folder for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort();
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        std::fs::read(self.path.join(name))
    }

    fn read_at(&self, name: &str, from: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path.join(name))?;
        file.seek(io::SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(u64::try_from(bytes_max).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn size(&self, name: &str) -> io::Result<u64> {
        Ok(std::fs::metadata(self.path.join(name))?.len())
    }

    fn create(&self, name: &str) -> io::Result<()> {
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(self.path.join(name))?;
        self.sync_names()?;
        *self.appended.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(())
    }

    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.with_appended(|file| file.write_all(bytes))
    }

    fn sync(&self) -> io::Result<()> {
        self.with_appended(|file| file.sync_data())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.with_appended(|file| {
            file.set_len(bytes)?;
            file.seek(io::SeekFrom::Start(bytes)).map(drop)
        })
    }

    fn replace_with(&self, name: &str, write: Writing<'_>) -> io::Result<()> {
        let beside = self.path.join(format!("{name}{UNFINISHED}"));
        let written = File::create(&beside).and_then(|file| {
            let mut out = BufWriter::with_capacity(BUFFER_BYTES, Steady { file, unsynced_bytes: 0 });
            write(&mut out)?;
            out.flush()?;
            out.get_ref().file.sync_all()
        });
        if let Err(error) = written.and_then(|()| std::fs::rename(&beside, self.path.join(name))) {
            // What is left of it is overwritten by the next try.
            drop(std::fs::remove_file(&beside));
            return Err(error);
        }
        self.sync_names()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))?;
        self.sync_names()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }
}

/// A large file that goes to the disk bit by bit: the binlog's syncs do not wait behind all of it.
struct Steady {
    file: File,
    unsynced_bytes: usize,
}

impl Write for Steady {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced_bytes += written;
        if self.unsynced_bytes >= STEADY_BYTES {
            self.file.sync_data()?;
            self.unsynced_bytes = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Written at a time.
const BUFFER_BYTES: usize = 1 << 20;
/// Synced at a time.
const STEADY_BYTES: usize = 16 << 20;

/// What a file that is being replaced is called until it is whole.
pub const UNFINISHED: &str = ".unfinished";

const LOCK: &str = "lock";

#[cfg(test)]
pub(crate) mod simulated;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_appended_cut_replaced_and_removed() {
        let place = tempfile::tempdir().unwrap();
        let disk = Disk::open(&place.path().join("new/folder")).unwrap();
        check(&disk);
    }

    #[test]
    fn the_simulated_folder_behaves_alike() {
        check(&simulated::Simulated::default());
    }

    #[test]
    fn a_folder_belongs_to_one_process() {
        let place = tempfile::tempdir().unwrap();
        let first = Disk::open(place.path()).unwrap();
        assert_eq!(Disk::open(place.path()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        Disk::open(place.path()).unwrap();
    }

    fn check(folder: &dyn Folder) {
        assert!(folder.append(b"x").is_err(), "nothing was created");
        folder.create("a").unwrap();
        folder.append(b"hello").unwrap();
        folder.append(b" world").unwrap();
        folder.sync().unwrap();
        assert_eq!(folder.read("a").unwrap(), b"hello world");
        folder.truncate(5).unwrap();
        folder.append(b"!").unwrap();
        assert_eq!(folder.read("a").unwrap(), b"hello!");
        for (from, bytes_max, expected) in [(0, 3, "hel"), (4, 9, "o!"), (6, 9, ""), (9, 9, ""), (0, 0, "")] {
            assert_eq!(folder.read_at("a", from, bytes_max).unwrap(), expected.as_bytes(), "{from} {bytes_max}");
        }
        assert_eq!(folder.size("a").unwrap(), 6);
        assert_eq!(folder.read_at("none", 0, 1).unwrap_err().kind(), io::ErrorKind::NotFound);
        folder.replace("b", b"1").unwrap();
        folder.replace("b", b"22").unwrap();
        assert_eq!(folder.read("b").unwrap(), b"22");
        folder.rename("a", "c").unwrap();
        folder.remove("b").unwrap();
        let names: Vec<String> = folder.list().unwrap().into_iter().filter(|name| name != LOCK).collect();
        assert_eq!(names, ["c"]);
        folder.create("c").unwrap();
        assert_eq!(folder.read("c").unwrap(), b"");
        assert!(folder.read("a").is_err());
    }
}
