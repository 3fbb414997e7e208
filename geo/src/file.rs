//! Files that others rewrite while we run: what counts as a change, and how to write one whole.
//!
//! ```text
//!   look --metadata as before, and old enough to trust?--> Same
//!     |
//!     +--content as before?------------------------------> Same
//!     +--content new, not seen twice yet?----------------> Unsettled: look again soon
//!     +--content new, and the same at the look before?---> Changed
//!     +--cannot be read?---------------------------------> Unreadable
//! ```
//!
//! Metadata alone misses a rewrite within one tick of the file system's clock, so a file that was
//! modified less than [`TRUST_AFTER`] before it was read is read again. A new content counts when it was
//! seen twice, so a file that is being rewritten in place is not taken half-written.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// One file that is followed.
#[derive(Debug)]
pub(crate) struct Followed {
    path: PathBuf,
    bytes_max: u64,
    /// Of the last read that need not be repeated.
    trusted: Option<Stamp>,
    /// Of the content that was taken last.
    taken: Option<blake3::Hash>,
    /// Of a new content that was seen once.
    candidate: Option<blake3::Hash>,
    unreadable: bool,
}

/// What a look finds.
#[derive(Debug, PartialEq)]
pub(crate) enum Look {
    /// What was taken last.
    Same,
    /// What was taken last, after looks that could not read it.
    Back,
    /// Something new, perhaps unfinished.
    Unsettled,
    /// Something new; it is taken now.
    Changed(Vec<u8>),
    /// Why it cannot be read.
    Unreadable(String),
}

/// What tells two states of a file apart without reading it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Followed {
    /// A file that is not looked at yet; it is refused when it has more than `bytes_max` bytes.
    pub(crate) fn new(path: PathBuf, bytes_max: u64) -> Self {
        Self { path, bytes_max, trusted: None, taken: None, candidate: None, unreadable: false }
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the content as it is, seen twice or not.
    pub(crate) fn take(&mut self) -> io::Result<Vec<u8>> {
        let bytes = read_bounded(&self.path, self.bytes_max)?;
        self.taken = Some(blake3::hash(&bytes));
        Ok(bytes)
    }

    /// Looks whether there is something new; `now` is the time of the file system's clock.
    pub(crate) fn look(&mut self, now: SystemTime) -> Look {
        let looked = self.try_look(now);
        let was_unreadable = std::mem::replace(&mut self.unreadable, looked.is_err());
        match looked {
            Ok(Look::Same) if was_unreadable => Look::Back,
            Ok(look) => look,
            Err(error) => {
                self.trusted = None;
                self.candidate = None;
                Look::Unreadable(error.to_string())
            }
        }
    }

    fn try_look(&mut self, now: SystemTime) -> io::Result<Look> {
        if self.trusted.is_some() && self.trusted == Some(Stamp::of(&fs::metadata(&self.path)?)) {
            return Ok(Look::Same);
        }
        let (bytes, stamp) = read(&self.path, self.bytes_max)?;
        let digest = Some(blake3::hash(&bytes));
        self.trusted = None;
        if digest == self.taken {
            self.candidate = None;
            self.trusted = Some(stamp).filter(|stamp| stamp.is_old(now));
            return Ok(Look::Same);
        }
        if digest != self.candidate {
            self.candidate = digest;
            return Ok(Look::Unsettled);
        }
        self.taken = self.candidate.take();
        Ok(Look::Changed(bytes))
    }
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a later write would show in the metadata. Times from the future never do: no clock to trust.
    fn is_old(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let last = self.modified.max(self.changed).0;
        u64::try_from(last).is_ok_and(|last| last + TRUST_AFTER.as_secs() < now.as_secs())
    }
}

/// Reads a regular file of at most `bytes_max` bytes.
pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    read(path, bytes_max).map(|(bytes, _)| bytes)
}

fn read(path: &Path, bytes_max: u64) -> io::Result<(Vec<u8>, Stamp)> {
    // Before it is opened, since opening a pipe waits for its other end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(bytes_max)).unwrap_or_default());
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("it has more than {bytes_max} bytes")));
    }
    Ok((bytes, Stamp::of(&metadata)))
}

/// Replaces a file's content: whoever opens it, and whoever finds it after a power failure, sees the old
/// content or the new one, whole. A file that is there keeps its mode, and its owner where we may set
/// it; a symbolic link is followed.
pub(crate) fn write_atomically(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let name = file.file_name().ok_or_else(|| io::Error::other("it has no file name"))?.to_string_lossy();
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    let temporary = folder.join(format!(".{name}.{}-{number}.tmp", std::process::id()));
    let written = write_and_rename(&temporary, &file, bytes);
    if written.is_err() {
        // What is left is no use to anyone, and what went wrong first is what counts.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    File::open(folder)?.sync_all()
}

/// Removes the temporary files that writers of this file left when they were killed. To be called before the first write, by
/// whoever is the file's one writer. What cannot be removed stays: it is in nobody's way.
pub(crate) fn remove_temporaries(file: &Path) {
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else { return };
    let folder = if folder == Path::new("") { Path::new(".") } else { folder };
    let begin = format!(".{}.", name.to_string_lossy());
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(&begin)?.strip_suffix(".tmp"));
        let ours = number.and_then(|number| number.split_once('-')).is_some_and(|(process, number)| {
            let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            is_number(process) && is_number(number)
        });
        if ours && let Err(error) = fs::remove_file(entry.path()) {
            tracing::warn!(file = %entry.path().display(), %error, "what a killed process left cannot be removed");
        }
    }
}

fn write_and_rename(temporary: &Path, file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut output = match File::create_new(temporary) {
        // Of a process that had our number and was killed, as happens in containers. It is made anew, not opened: it may be
        // a link to elsewhere.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(temporary)?;
            File::create_new(temporary)?
        }
        created => created?,
    };
    if let Ok(before) = fs::metadata(file) {
        output.set_permissions(before.permissions())?;
        // Only root may give files away; for others the file is theirs, as if they had made it.
        let _ = std::os::unix::fs::fchown(&output, Some(before.uid()), Some(before.gid()));
    }
    output.write_all(bytes)?;
    output.sync_all()?;
    fs::rename(temporary, file)
}

/// Makes the names of temporary files of one process differ.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// Longer than the tick of any file system's clock, FAT's 2 s being the longest.
const TRUST_AFTER: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_content_counts_when_it_was_seen_twice() {
        let (_folder, mut file) = followed("a");
        fs::write(file.path(), "b").unwrap();
        assert_eq!(file.look(now()), Look::Unsettled);
        fs::write(file.path(), "bc").unwrap();
        assert_eq!(file.look(now()), Look::Unsettled);
        assert_eq!(file.look(now()), Look::Changed(b"bc".to_vec()));
        assert_eq!(file.look(now()), Look::Same);
    }

    #[test]
    fn a_content_that_goes_back_is_no_change() {
        let (_folder, mut file) = followed("a");
        fs::write(file.path(), "b").unwrap();
        assert_eq!(file.look(now()), Look::Unsettled);
        fs::write(file.path(), "a").unwrap();
        assert_eq!(file.look(now()), Look::Same);
    }

    #[test]
    fn a_rewrite_that_metadata_hides_is_seen() {
        let (_folder, mut file) = followed("a");
        let times = fs::FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
        fs::write(file.path(), "b").unwrap();
        File::options().write(true).open(file.path()).unwrap().set_times(times).unwrap();
        assert_eq!(file.look(now()), Look::Unsettled);
        assert_eq!(file.look(now()), Look::Changed(b"b".to_vec()));
    }

    #[test]
    fn an_old_file_is_not_read_again() {
        let (_folder, mut file) = followed("a");
        let later = now() + TRUST_AFTER + Duration::from_secs(2);
        assert_eq!(file.look(now()), Look::Same);
        assert_eq!(file.trusted, None);
        assert_eq!(file.look(later), Look::Same);
        assert!(file.trusted.is_some());
        write_atomically(file.path(), b"b").unwrap();
        assert_eq!(file.look(later), Look::Unsettled);
        assert_eq!(file.look(later), Look::Changed(b"b".to_vec()));
    }

    #[test]
    fn a_file_that_is_away_is_told_until_it_is_back() {
        let (_folder, mut file) = followed("a");
        fs::remove_file(file.path()).unwrap();
        assert!(matches!(file.look(now()), Look::Unreadable(_)));
        assert!(matches!(file.look(now()), Look::Unreadable(_)));
        fs::write(file.path(), "a").unwrap();
        assert_eq!(file.look(now()), Look::Back);
        assert_eq!(file.look(now()), Look::Same);
    }

    #[test]
    fn only_a_regular_file_of_bounded_size_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_bounded(folder.path(), 10).is_err());
        let file = folder.path().join("f");
        fs::write(&file, "0123456789").unwrap();
        assert_eq!(read_bounded(&file, 10).unwrap(), b"0123456789");
        assert_eq!(read_bounded(&file, 9).unwrap_err().to_string(), "it has more than 9 bytes");
    }

    #[test]
    fn an_atomic_write_replaces_the_content_and_keeps_the_rest() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("f"), folder.path().join("link"));
        write_atomically(&file, b"a").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_atomically(&link, b"b").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"b");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_content() {
        let folder = tempfile::tempdir().unwrap();
        assert!(write_atomically(&folder.path().join("missing/f"), b"a").is_err());
        let in_the_way = folder.path().join("in the way");
        fs::create_dir(&in_the_way).unwrap();
        assert!(write_atomically(&in_the_way, b"a").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn what_killed_writers_left_is_removed_and_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        let names = ["f", "g", ".f.12-3.tmp", ".f.12-.tmp", ".f.x-1.tmp", ".g.12-3.tmp", ".f.12-3.tmp.old"];
        names.iter().for_each(|name| fs::write(folder.path().join(name), "a").unwrap());
        remove_temporaries(&file);
        let left = |name: &&&str| folder.path().join(name).exists();
        let expected = ["f", "g", ".f.12-.tmp", ".f.x-1.tmp", ".g.12-3.tmp", ".f.12-3.tmp.old"];
        assert_eq!(names.iter().filter(left).copied().collect::<Vec<_>>(), expected);

        let temporary = folder.path().join(".f.12-3.tmp");
        fs::write(&temporary, "longer than what is written").unwrap();
        write_and_rename(&temporary, &file, b"b").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"b");
        remove_temporaries(&folder.path().join("missing/f"));
    }

    fn followed(content: &str) -> (tempfile::TempDir, Followed) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("followed");
        fs::write(&path, content).unwrap();
        let mut file = Followed::new(path, 1000);
        assert_eq!(file.take().unwrap(), content.as_bytes());
        (folder, file)
    }

    fn now() -> SystemTime {
        SystemTime::now()
    }
}
