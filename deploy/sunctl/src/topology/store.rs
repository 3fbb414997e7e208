//! Where the document is read and written: a file, or a key of an etcd cluster; with the history beside it.
//!
//! A write names what it was made from, and is refused when that is no longer what is there: of two operators at once one
//! is told to look again. In etcd one transaction compares the key's revision and writes document and history; of a file,
//! the folder is locked, the history is written first and the file then replaced. Killed in between, that leaves a change
//! in the history that was not made; the next one tells what was there instead.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use geo::etcd::{Gateway, Put, Written};
use geo::topology::DOCUMENT_BYTES_MAX;
use geo::{Source, Topology};

use super::entry::{Entry, HISTORY_MAX};
use crate::edit::version_of;

/// A document that can be read and written.
#[derive(Debug)]
pub enum Store {
    /// A file, with a folder of history beside it.
    File(PathBuf),
    /// Keys of a cluster.
    Etcd(Box<Gateway>),
}

/// What is there, and what tells whether it still is.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// The document; none: there is none yet.
    pub text: Option<String>,
    /// The key's revision in etcd, 0 without a key; of a file the text tells.
    revision: u64,
}

/// A write that was refused: somebody else's came first.
#[derive(Debug, thiserror::Error)]
#[error("somebody changed it meanwhile; nothing was written, look again")]
pub struct Conflict;

impl Held {
    /// A document as a file has it.
    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        Self { text: Some(text.to_owned()), revision: 0 }
    }

    /// The document, checked; none: there is none yet.
    ///
    /// # Errors
    ///
    /// When it does not check.
    pub fn topology(&self) -> anyhow::Result<Option<Topology>> {
        self.text
            .as_deref()
            .map(Topology::parse)
            .transpose()
            .context("what is there does not check (`sunctl topology put FILE` or `rollback N` replaces it)")
    }

    /// The document as far as it goes, for who replaces it: one that does not check is none.
    #[must_use]
    pub fn sound(&self) -> Option<Topology> {
        self.text.as_deref().and_then(|text| Topology::parse(text).ok())
    }

    /// Its version, also of one that does not check, where it can be read; 0: none.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.text.as_deref().and_then(version_of).unwrap_or(0)
    }
}

impl Store {
    /// Asks nobody yet.
    ///
    /// # Errors
    ///
    /// What is wrong with the settings of a cluster.
    pub fn open(source: &Source) -> anyhow::Result<Self> {
        match source {
            // A link stays one, and the history is beside the file that it leads to, by whatever name that is said.
            Source::File(file) if file.is_symlink() => {
                Ok(Self::File(fs::canonicalize(file).unwrap_or_else(|_| file.clone())))
            }
            Source::File(file) => Ok(Self::File(file.clone())),
            Source::Etcd(etcd) => Ok(Self::Etcd(Box::new(Gateway::new(etcd).map_err(anyhow::Error::msg)?))),
        }
    }

    /// What is there.
    ///
    /// # Errors
    ///
    /// When it cannot be read; that there is none is no error in a cluster, whose first document `put` writes.
    pub async fn read(&self) -> anyhow::Result<Held> {
        let about = || format!("topology {self}");
        match self {
            Self::File(file) => read_file(file).with_context(about),
            Self::Etcd(gateway) => {
                let Some(document) = gateway.read().await.with_context(about)?.document else {
                    return Ok(Held { text: None, revision: 0 });
                };
                let text = String::from_utf8(document.bytes).context("it is not UTF-8").with_context(about)?;
                Ok(Held { text: Some(text), revision: document.revision })
            }
        }
    }

    /// Replaces what is `held`; the entry's number is set here.
    ///
    /// # Errors
    ///
    /// [`Conflict`] when something else is there by now, and what the disk or the cluster says.
    pub async fn write(&self, held: &Held, entry: Entry) -> anyhow::Result<()> {
        let about = || format!("topology {self}");
        if entry.document.len() > DOCUMENT_BYTES_MAX {
            bail!("a topology has at most {DOCUMENT_BYTES_MAX} bytes");
        }
        let entries = numbered(self.history(1).await?.first(), held, entry);
        match self {
            Self::File(file) => write_file(file, held, &entries).with_context(about),
            Self::Etcd(gateway) => match write_etcd(gateway, held, &entries).await.with_context(about)? {
                Written::Done(_) => Ok(()),
                Written::Conflict => Err(anyhow::Error::new(Conflict).context(about())),
            },
        }
    }

    /// The latest changes, the last first.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn history(&self, count_max: usize) -> anyhow::Result<Vec<Entry>> {
        let count_max = count_max.min(HISTORY_MAX);
        match self {
            Self::File(file) => {
                let mut files = history_files(file)?;
                files.reverse();
                let read = |file: &PathBuf| Entry::decode(&fs::read(file)?);
                files
                    .iter()
                    .take(count_max)
                    .map(|file| read(file).with_context(|| file.display().to_string()))
                    .collect()
            }
            Self::Etcd(gateway) => {
                let prefix = history_prefix(gateway);
                let stored = gateway.list(&prefix, count_max).await.with_context(|| format!("topology {self}"))?;
                stored.iter().map(|put| Entry::decode(&put.value).with_context(|| put.key.clone())).collect()
            }
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => file.display().fmt(f),
            Self::Etcd(gateway) => write!(f, "{} in etcd", gateway.key()),
        }
    }
}

/// The entries to write: the change, and before it what something else did to the document. A step replaces the entry of the
/// step before it, as long as nothing came between them.
fn numbered(last: Option<&Entry>, held: &Held, entry: Entry) -> Vec<Entry> {
    let follows = |last: &&Entry| entry.series.is_some() && last.series == entry.series;
    if let Some(last) = last.filter(follows).filter(|last| held.text.as_ref() == Some(&last.document)) {
        return vec![Entry { number: last.number, ..entry }];
    }
    let next = last.map_or(1, |last| last.number + 1);
    let found = held.text.clone().filter(|text| last.is_none_or(|last| last.document != *text));
    let Some(document) = found else { return vec![Entry { number: next, ..entry }] };
    let found = Entry {
        number: next,
        version: Topology::parse(&document).map_or(0, |topology| topology.version),
        at: entry.at,
        author: "-".to_owned(),
        reason: String::new(),
        change: "found: not made with sunctl".to_owned(),
        document,
        series: None,
    };
    vec![found, Entry { number: next + 1, ..entry }]
}

async fn write_etcd(gateway: &Gateway, held: &Held, entries: &[Entry]) -> anyhow::Result<Written> {
    let prefix = history_prefix(gateway);
    let key = |number: u64| format!("{prefix}{number:020}");
    let last = entries.last().context("there is nothing to write")?;
    let mut puts = vec![Put { key: gateway.key().to_owned(), value: last.document.clone().into_bytes() }];
    for entry in entries {
        puts.push(Put { key: key(entry.number), value: entry.encode()? });
    }
    let (first, end) = (key(0), key((last.number + 1).saturating_sub(HISTORY_MAX as u64)));
    Ok(gateway
        .change(held.revision, &puts, Some((first.as_str(), end.as_str())).filter(|(first, end)| first < end))
        .await?)
}

fn history_prefix(gateway: &Gateway) -> String {
    format!("{}.history/", gateway.key())
}

fn read_file(file: &Path) -> anyhow::Result<Held> {
    Ok(Held { text: Some(fs::read_to_string(file)?), revision: 0 })
}

fn write_file(file: &Path, held: &Held, entries: &[Entry]) -> anyhow::Result<()> {
    let _lock = lock_folder_of(file)?;
    if read_file(file)? != *held {
        bail!(Conflict);
    }
    let folder = history_folder(file);
    fs::create_dir_all(&folder).with_context(|| format!("folder {}", folder.display()))?;
    let mut text = None;
    for entry in entries {
        let written = folder.join(format!("{:020}.json", entry.number));
        let bytes = String::from_utf8(entry.encode()?)?;
        geo::watch::write_atomically(&written, &bytes).with_context(|| written.display().to_string())?;
        text = Some(&entry.document);
    }
    geo::watch::write_atomically(file, text.context("there is nothing to write")?)?;
    let files = history_files(file)?;
    for old in files.iter().rev().skip(HISTORY_MAX) {
        // Too many of them are no reason to call the change failed.
        let _ = fs::remove_file(old);
    }
    Ok(())
}

/// In the order of their numbers; without a folder there are none.
fn history_files(file: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let folder = history_folder(file);
    let listed = match fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.with_context(|| format!("folder {}", folder.display()))?,
    };
    let mut files: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| {
        let number = file.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".json"));
        number.is_some_and(|number| number.len() == 20 && number.bytes().all(|byte| byte.is_ascii_digit()))
    });
    files.sort();
    Ok(files)
}

fn history_folder(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".history");
    name.into()
}

/// Two changes at once would lose one of them. The lock is on the folder, since the file itself is replaced.
fn lock_folder_of(file: &Path) -> anyhow::Result<File> {
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let lock = File::open(folder).with_context(|| format!("folder {}", folder.display()))?;
    lock.lock().with_context(|| format!("locking folder {}", folder.display()))?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_history_of_a_file_is_bounded_and_tells_what_was_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("topology.toml");
        fs::write(&file, "version = 1\n").unwrap();
        let store = Store::File(file.clone());
        for version in 2..=HISTORY_MAX as u64 + 20 {
            let held = store.read().await.unwrap();
            store.write(&held, entry(version)).await.unwrap();
        }
        let entries = store.history(usize::MAX).await.unwrap();
        assert_eq!(entries.len(), HISTORY_MAX);
        assert_eq!((entries[0].version, entries[0].number), (120, 120));
        assert!(entries.windows(2).all(|pair| pair[0].number == pair[1].number + 1));
        fs::write(&file, "version = 500\n").unwrap();
        let held = store.read().await.unwrap();
        store.write(&held, entry(501)).await.unwrap();
        let entries = store.history(2).await.unwrap();
        assert_eq!((entries[1].author.as_str(), entries[1].document.as_str()), ("-", "version = 500\n"));
        assert_eq!((entries[0].author.as_str(), entries[0].number), ("ann", 122));
    }

    #[tokio::test]
    async fn the_steps_of_a_change_are_one_entry_until_something_else_comes_between() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("topology.toml");
        fs::write(&file, "version = 1\n").unwrap();
        let store = Store::File(file.clone());
        for (version, series) in
            [(2, Some("a")), (3, Some("a")), (4, Some("a")), (5, None), (6, Some("a")), (7, Some("b"))]
        {
            let held = store.read().await.unwrap();
            let series = series.map(str::to_owned);
            store.write(&held, Entry { series, ..entry(version) }).await.unwrap();
        }
        let versions =
            |entries: Vec<Entry>| entries.iter().map(|entry| (entry.number, entry.version)).collect::<Vec<_>>();
        assert_eq!(versions(store.history(9).await.unwrap()), [(5, 7), (4, 6), (3, 5), (2, 4), (1, 0)]);
        fs::write(&file, "version = 8\n").unwrap();
        let held = store.read().await.unwrap();
        store.write(&held, Entry { series: Some("b".into()), ..entry(9) }).await.unwrap();
        assert_eq!(versions(store.history(2).await.unwrap()), [(7, 9), (6, 0)], "what was found stands between");
    }

    #[tokio::test]
    async fn a_link_stays_one_and_has_the_history_of_the_file_that_it_leads_to() {
        let (folder, links) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (file, link) = (folder.path().join("topology.toml"), links.path().join("link.toml"));
        fs::write(&file, "version = 1\n").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let store = Store::open(&Source::File(link.clone())).unwrap();
        let held = store.read().await.unwrap();
        store.write(&held, entry(2)).await.unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "version = 2\n");
        assert_eq!(fs::read_dir(links.path()).unwrap().count(), 1, "no history beside the link");
        assert_eq!(Store::open(&Source::File(file)).unwrap().history(9).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn who_writes_on_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("topology.toml");
        fs::write(&file, "version = 1\n").unwrap();
        let store = Store::File(file.clone());
        let held = store.read().await.unwrap();
        store.write(&held, entry(2)).await.unwrap();
        let error = store.write(&held, entry(3)).await.unwrap_err();
        assert!(error.is::<Conflict>(), "{error:#}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "version = 2\n");
        assert_eq!(store.history(9).await.unwrap().len(), 2);
    }

    fn entry(version: u64) -> Entry {
        Entry {
            number: 0,
            version,
            at: 0,
            author: "ann".into(),
            reason: String::new(),
            change: "put".into(),
            document: format!("version = {version}\n"),
            series: None,
        }
    }
}
