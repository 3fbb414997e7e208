//! Backups of the ratings: a copy in a folder, taken while the API counts on, and put back into an empty data folder.
//!
//! ```text
//!   DIR.unfinished --copied, checked, counted, durable--> DIR/snapshot-S    as in an engine's folder
//!                                                         DIR/binlog-S
//!                                                         DIR/backup.json   Sealed: what is here, and what it comes to
//!
//!   DIR --everything verified--> DATA/ratings.restoring --whole--> DATA/ratings
//! ```
//!
//! - A backup that is not whole has no `backup.json`, and none of its name: the folder gets its name last.
//! - A restore reads and compares everything before it writes a byte: lengths and blake3 of both files, every checksum in
//!   them, that the binlog goes on where the snapshot needs it, and the counts of regions, pairs and files.
//! - What was restored has a lineage of its own at its next start, so replicas of the API as it was start again from a
//!   snapshot.
//!
//! A backup has every batch that was acknowledged before it began, and perhaps some of those that came meanwhile. Batches that
//! were acknowledged after it are lost with what it replaces; what servers have not been told is kept comes again. Holdings
//! and status are not in it (servers tell them within seconds), and neither is the log of purges: one that begins anew has
//! servers drop what they hold from before.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use daemon::clock::unix_ms;
use daemon::folder::{DataFolder, FolderError};

use crate::client::Client;
use crate::engine::folder::{Disk, Folder};
use crate::engine::inspect::{Flaw, Inspected, inspect};
use crate::engine::{binlog, snapshot};
use crate::replica::copying::{self, Avoided, CopyError, Progress, Written};

/// What a backup is.
#[derive(Clone, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Of this description: [`FORMAT`].
    pub format: u32,
    /// When it was begun, milliseconds since 1970.
    pub taken_ms: u64,
    /// Of which binlog it is a copy.
    pub lineage: String,
    /// Where the snapshot was begun; 0 without one.
    pub start: u64,
    /// The snapshot; none: the binlog is there from its beginning.
    pub snapshot: Option<Written>,
    /// The binlog since then.
    pub binlog: Written,
    /// What both come to.
    pub counts: Inspected,
}

/// The file `backup.json`.
#[derive(Debug, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    manifest: Manifest,
    /// Of the manifest as JSON, hexadecimal.
    blake3: String,
}

/// Why there is no backup, or none that is restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The API does not give what is needed.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The disk.
    #[error("{}: {error}", path.display())]
    Disk {
        /// What was read or written.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// The backup is not what it says it is.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The place is taken.
    #[error("{}: {what}", path.display())]
    Taken {
        /// The folder.
        path: PathBuf,
        /// By what.
        what: &'static str,
    },
}

/// Copies an API's ratings into the folder `to`, which does not exist yet or is empty.
///
/// # Errors
///
/// [`BackupError`]; there is no folder of this name then.
pub async fn take(client: &Client, to: &Path, mut progress: impl FnMut(Progress)) -> Result<Manifest, BackupError> {
    if !is_empty(to)? {
        return Err(BackupError::Taken { path: to.to_owned(), what: "is not empty; name a new folder" });
    }
    let unfinished = beside(to, "unfinished");
    let (mut avoided, mut failed) = (Avoided::default(), 0);
    let taken = loop {
        let taken = attempt(client, &unfinished, &mut avoided, &mut progress).await;
        failed += 1;
        match taken {
            // The newest snapshot is damaged on the API's disk: another one may not be.
            Err(Attempt::Snapshot(offset)) if failed < ATTEMPTS_MAX => avoided.snapshot(offset),
            Err(Attempt::Gone(_)) if failed < ATTEMPTS_MAX => {}
            Err(Attempt::Snapshot(offset)) => {
                break Err(BackupError::Copy(CopyError::Nothing(offset)));
            }
            Err(Attempt::Gone(error) | Attempt::Failed(error)) => break Err(error),
            Ok(manifest) => break Ok(manifest),
        }
    };
    let finished = taken.and_then(|manifest| finish(&unfinished, to, &manifest).map(|()| manifest));
    if finished.is_err() {
        drop(std::fs::remove_dir_all(&unfinished));
    }
    finished
}

/// Why an attempt failed.
enum Attempt {
    /// This snapshot is damaged.
    Snapshot(u64),
    /// What was being read is not kept any more.
    Gone(BackupError),
    /// Another one would fail as well.
    Failed(BackupError),
}

impl From<BackupError> for Attempt {
    fn from(error: BackupError) -> Self {
        match &error {
            BackupError::Copy(CopyError::Api(api)) if api.is_gone() => Self::Gone(error),
            _ => Self::Failed(error),
        }
    }
}

async fn attempt(
    client: &Client,
    unfinished: &Path,
    avoided: &mut Avoided,
    progress: &mut impl FnMut(Progress),
) -> Result<Manifest, Attempt> {
    let taken_ms = unix_ms();
    let made = remove(unfinished).and_then(|()| std::fs::create_dir_all(unfinished));
    made.map_err(|error| disk(unfinished, error))?;
    let copied = copying::copy(client, unfinished, avoided, progress).await.map_err(BackupError::Copy)?;
    let (folder, start) = (unfinished.to_owned(), copied.start);
    let files = (copied.snapshot.clone(), copied.binlog.clone());
    let counting = move || count(&folder, files.0.as_ref(), &files.1, start);
    let counted = tokio::task::spawn_blocking(counting).await;
    let counted = counted.unwrap_or_else(|_| Err(damaged(unfinished, "it cannot be counted; see above")));
    let counts = counted.map_err(|error| match (&error, &copied.snapshot) {
        (BackupError::Damaged { what, .. }, Some(_)) if *what == Flaw::Snapshot.to_string() => {
            Attempt::Snapshot(copied.start)
        }
        _ => Attempt::from(error),
    })?;
    let (lineage, snapshot, binlog) = (copied.lineage, copied.snapshot, copied.binlog);
    Ok(Manifest { format: FORMAT, taken_ms, lineage, start, snapshot, binlog, counts })
}

/// Gives a backup its manifest and its name.
fn finish(unfinished: &Path, to: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    let path = unfinished.join(MANIFEST);
    let sealed = Sealed { blake3: seal(manifest), manifest: manifest.clone() };
    let text = serde_json::to_vec_pretty(&sealed).map_err(|error| disk(&path, error.into()))?;
    let mut file = File::create(&path).map_err(|error| disk(&path, error))?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(|error| disk(&path, error))?;
    sync(unfinished)?;
    if to.exists() {
        std::fs::remove_dir(to).map_err(|error| disk(to, error))?;
    }
    std::fs::rename(unfinished, to).map_err(|error| disk(to, error))?;
    sync(parent(to))
}

/// Reads a backup and compares all of it with what it says.
///
/// # Errors
///
/// [`BackupError`]: what is damaged or missing.
pub fn verify(backup: &Path) -> Result<Manifest, BackupError> {
    let path = backup.join(MANIFEST);
    let text = std::fs::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => damaged(&path, "is not there: this is no backup, or none that was finished"),
        _ => disk(&path, error),
    })?;
    let Sealed { manifest, blake3 } = serde_json::from_slice(&text)
        .map_err(|error| damaged(&path, &format!("is damaged, or of a later build: {error}")))?;
    if blake3 != seal(&manifest) {
        return Err(damaged(&path, "is damaged: its checksum does not fit"));
    }
    if manifest.format != FORMAT {
        return Err(damaged(&path, &format!("is of the format {}, and this build reads {FORMAT}", manifest.format)));
    }
    let names = [snapshot::name(manifest.start), binlog::segment_name(manifest.start)];
    for (written, name) in manifest.snapshot.iter().zip(&names).chain([(&manifest.binlog, &names[1])]) {
        check_name(backup, written, name)?;
        check_file(backup, written)?;
    }
    let counts = count(backup, manifest.snapshot.as_ref(), &manifest.binlog, manifest.start)?;
    if counts != manifest.counts {
        let what = format!("comes to {counts:?}, and its manifest says {:?}", manifest.counts);
        return Err(damaged(backup, &what));
    }
    Ok(manifest)
}

/// Verifies a backup and puts it into the data folder of an API that does not run and has no ratings.
///
/// # Errors
///
/// [`BackupError`]; the data folder is as before then.
pub fn restore(backup: &Path, data: &Path) -> Result<Manifest, BackupError> {
    let (ratings, restoring) = (data.join("ratings"), data.join("ratings.restoring"));
    check_free(&ratings)?;
    let manifest = verify(backup)?;
    // No API starts there until the ratings are in their place.
    let _held = DataFolder::open(data).map_err(|error| match error {
        FolderError::Taken(path) => BackupError::Taken { path, what: RUNNING },
        FolderError::Unusable { folder, why } => disk(&folder, why),
    })?;
    let written = write_all(backup, &restoring, &manifest).and_then(|()| {
        // Somebody may have started it while the backup was verified.
        check_free(&ratings)?;
        remove(&ratings).map_err(|error| disk(&ratings, error))?;
        std::fs::rename(&restoring, &ratings).map_err(|error| disk(&ratings, error))?;
        sync(data)
    });
    if written.is_err() {
        drop(std::fs::remove_dir_all(&restoring));
    }
    written.map(|()| manifest)
}

fn write_all(backup: &Path, restoring: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    let made = remove(restoring).and_then(|()| std::fs::create_dir_all(restoring));
    made.map_err(|error| disk(restoring, error))?;
    for written in manifest.snapshot.iter().chain([&manifest.binlog]) {
        let (from, to) = (backup.join(&written.file), restoring.join(&written.file));
        let copy = || {
            std::fs::copy(&from, &to)?;
            File::open(&to)?.sync_all()
        };
        copy().map_err(|error| disk(&to, error))?;
        // What was verified is what is there now.
        check_file(restoring, written)?;
    }
    sync(restoring)
}

/// No API runs there, and nothing would be overwritten.
fn check_free(ratings: &Path) -> Result<(), BackupError> {
    let taken = |what| BackupError::Taken { path: ratings.to_owned(), what };
    if !ratings.exists() {
        return Ok(());
    }
    let folder = Disk::open(ratings).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => taken(RUNNING),
        _ => disk(ratings, error),
    })?;
    let names = folder.list().map_err(|error| disk(ratings, error))?;
    if names.iter().any(|name| name != "lock") {
        return Err(taken("has ratings; move them away first"));
    }
    Ok(())
}

/// A file has the name that an engine looks for: any other one would be restored and never read. What a manifest says is not
/// trusted to stay in its folder either.
fn check_name(folder: &Path, written: &Written, name: &str) -> Result<(), BackupError> {
    if written.file == name {
        return Ok(());
    }
    Err(damaged(&folder.join(MANIFEST), &format!("{:?} is no name of its file, which is {name}", written.file)))
}

/// A file has the length and the bytes that the manifest says.
fn check_file(folder: &Path, written: &Written) -> Result<(), BackupError> {
    let path = folder.join(&written.file);
    let mut file = File::open(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => damaged(&path, "is missing"),
        _ => disk(&path, error),
    })?;
    let (mut hash, mut bytes, mut piece) = (blake3::Hasher::new(), 0, vec![0; PIECE_BYTES]);
    loop {
        let read = file.read(&mut piece).map_err(|error| disk(&path, error))?;
        if read == 0 {
            break;
        }
        hash.update(&piece[..read]);
        bytes += read as u64;
    }
    if bytes != written.bytes {
        return Err(damaged(&path, &format!("has {bytes} bytes, and its manifest says {}", written.bytes)));
    }
    if hash.finalize().to_hex().as_str() != written.blake3 {
        return Err(damaged(&path, "is damaged: its blake3 is not what the manifest says"));
    }
    Ok(())
}

fn count(folder: &Path, snapshot: Option<&Written>, binlog: &Written, start: u64) -> Result<Inspected, BackupError> {
    let read = |written: &Written| {
        let path = folder.join(&written.file);
        std::fs::read(&path).map_err(|error| disk(&path, error))
    };
    let snapshot = snapshot.map(read).transpose()?;
    inspect(snapshot.as_deref(), &read(binlog)?, start).map_err(|flaw| damaged(folder, &flaw.to_string()))
}

fn seal(manifest: &Manifest) -> String {
    blake3::hash(&serde_json::to_vec(manifest).unwrap_or_default()).to_hex().to_string()
}

fn is_empty(folder: &Path) -> Result<bool, BackupError> {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(disk(folder, error)),
    }
}

/// `DIR.what`.
fn beside(folder: &Path, what: &str) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{what}"));
    folder.with_file_name(name)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn remove(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes names in a folder durable.
fn sync(folder: &Path) -> Result<(), BackupError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| disk(folder, error))
}

fn disk(path: &Path, error: io::Error) -> BackupError {
    BackupError::Disk { path: path.to_owned(), error }
}

fn damaged(path: &Path, what: &str) -> BackupError {
    BackupError::Damaged { path: path.to_owned(), what: what.to_owned() }
}

/// Of the manifest, as this build writes it.
pub const FORMAT: u32 = 1;
const MANIFEST: &str = "backup.json";
const RUNNING: &str = "an API runs there; end it first";
/// Read at a time, bytes.
const PIECE_BYTES: usize = 1 << 20;
/// Attempts at a copy.
const ATTEMPTS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_whose_files_have_other_names_is_none() {
        let place = tempfile::tempdir().unwrap();
        let good = write(place.path(), &binlog::segment_name(0));
        assert_eq!(verify(place.path()).unwrap(), good);
        for name in ["a", "binlog-1", &binlog::segment_name(1), &snapshot::name(0), "lineage"] {
            write(place.path(), name);
            let error = verify(place.path()).unwrap_err().to_string();
            assert!(error.contains("is no name of"), "{name}: {error}");
        }
    }

    #[test]
    fn nothing_is_restored_while_an_api_has_the_data_folder() {
        let place = tempfile::tempdir().unwrap();
        let (backup, data) = (place.path().join("backup"), place.path().join("data"));
        std::fs::create_dir(&backup).unwrap();
        write(&backup, &binlog::segment_name(0));
        // One without ratings of its own has nothing else to lock.
        let api = DataFolder::open(&data).unwrap();
        let error = restore(&backup, &data).unwrap_err().to_string();
        assert!(error.ends_with("an API runs there; end it first"), "{error}");
        assert!(!data.join("ratings").exists() && !data.join("ratings.restoring").exists());
        drop(api);
        restore(&backup, &data).unwrap();
        assert!(data.join("ratings").join(binlog::segment_name(0)).exists());
    }

    /// A backup of an empty binlog, which is in the file `name`.
    fn write(folder: &Path, name: &str) -> Manifest {
        let bytes = binlog::segment_header(0).to_vec();
        std::fs::write(folder.join(name), &bytes).unwrap();
        let blake3 = blake3::hash(&bytes).to_hex().to_string();
        let binlog = Written { file: name.to_owned(), bytes: bytes.len() as u64, blake3 };
        let counts = inspect(None, &bytes, 0).unwrap();
        let manifest =
            Manifest { format: FORMAT, taken_ms: 1, lineage: "0".repeat(32), start: 0, snapshot: None, binlog, counts };
        let sealed = Sealed { blake3: seal(&manifest), manifest: manifest.clone() };
        std::fs::write(folder.join(MANIFEST), serde_json::to_vec(&sealed).unwrap()).unwrap();
        manifest
    }
}
