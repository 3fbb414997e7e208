//! What became of the sun: its last changes of state, in memory and as lines of JSON in a file; and the operator's order.
//!
//! The file has at most twice as many lines as are kept; then it is written anew with the last ones, beside and renamed. A
//! history that cannot be written is one WARN and no reason to stop.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use super::machine::State;

/// A change of state.
#[derive(Clone, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Entry {
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// Before.
    pub from: State,
    /// After.
    pub to: State,
    /// The cause in one word.
    pub cause: String,
    /// The cause for people.
    pub reason: String,
}

/// The operator took the sun out.
#[derive(Clone, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Disabled {
    /// Since when, milliseconds since 1970.
    pub since_ms: u64,
    /// Why, and who says so.
    pub reason: String,
}

/// See the module's doc.
#[derive(Debug)]
pub struct History {
    file: PathBuf,
    entries: VecDeque<Entry>,
    entries_max: usize,
    lines: usize,
    failed: bool,
}

impl History {
    /// Reads what there is; lines that are no entry (cut off by a crash) are left out.
    #[must_use]
    pub fn open(folder: &Path, entries_max: usize) -> Self {
        let file = folder.join("history.jsonl");
        let mut entries = VecDeque::new();
        let mut lines = 0;
        if let Ok(text) = File::open(&file) {
            for line in BufReader::new(text).lines().map_while(Result::ok) {
                lines += 1;
                if let Ok(entry) = serde_json::from_str(&line) {
                    push(&mut entries, entry, entries_max);
                }
            }
        }
        Self { file, entries, entries_max, lines, failed: false }
    }

    /// Keeps one more. Blocks on the disk for a line.
    pub fn add(&mut self, entry: Entry) {
        push(&mut self.entries, entry, self.entries_max);
        let written = self.write();
        match (&written, self.failed) {
            (Err(error), false) => {
                tracing::warn!(file = %self.file.display(), %error, "the history is kept in memory only");
            }
            (Ok(()), true) => tracing::info!("the history is written again"),
            _ => {}
        }
        self.failed = written.is_err();
    }

    /// The last ones, oldest first.
    #[must_use]
    pub fn last(&self, count: usize) -> Vec<Entry> {
        self.entries.iter().skip(self.entries.len().saturating_sub(count)).cloned().collect()
    }

    fn write(&mut self) -> io::Result<()> {
        if self.failed || self.lines >= self.entries_max.saturating_mul(2) {
            let beside = self.file.with_extension("new");
            let mut file = File::create(&beside)?;
            for entry in &self.entries {
                writeln!(file, "{}", serde_json::to_string(entry)?)?;
            }
            file.sync_all()?;
            fs::rename(&beside, &self.file)?;
            self.lines = self.entries.len();
            return Ok(());
        }
        let Some(entry) = self.entries.back() else { return Ok(()) };
        let line = serde_json::to_string(entry)? + "\n";
        let mut file = File::options().create(true).append(true).open(&self.file)?;
        file.write_all(line.as_bytes())?;
        self.lines += 1;
        Ok(())
    }
}

fn push(entries: &mut VecDeque<Entry>, entry: Entry, entries_max: usize) {
    entries.push_back(entry);
    while entries.len() > entries_max {
        entries.pop_front();
    }
}

/// The operator's order that is in force; none: none.
///
/// # Errors
///
/// When there is one that cannot be read: then nobody knows what it says.
pub fn order(folder: &Path) -> io::Result<Option<Disabled>> {
    match fs::read(folder.join(ORDER)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
    }
}

/// Puts an order in force, or takes it back; durable when this returns.
///
/// # Errors
///
/// What the disk says; then the one before is in force.
pub fn keep_order(folder: &Path, order: Option<&Disabled>) -> io::Result<()> {
    let file = folder.join(ORDER);
    let Some(order) = order else {
        return match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
    };
    let beside = file.with_extension("new");
    let mut written = File::create(&beside)?;
    written.write_all(&serde_json::to_vec(order)?)?;
    written.sync_all()?;
    fs::rename(&beside, &file)
}

const ORDER: &str = "disabled.json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_changes_outlive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut history = History::open(folder.path(), 3);
        for at_ms in 0..20 {
            history.add(entry(at_ms));
            let lines = fs::read_to_string(folder.path().join("history.jsonl")).unwrap().lines().count();
            assert!(lines <= 6, "{lines}");
        }
        let times = |history: &History| history.last(10).iter().map(|entry| entry.at_ms).collect::<Vec<_>>();
        assert_eq!(times(&history), [17, 18, 19]);
        let mut file = File::options().append(true).open(folder.path().join("history.jsonl")).unwrap();
        file.write_all(b"{\"at_ms\": 20, \"fr").unwrap();
        let again = History::open(folder.path(), 3);
        assert_eq!(times(&again), [17, 18, 19]);
        assert_eq!(again.last(1), [entry(19)]);
    }

    #[test]
    fn an_order_outlives_a_restart_until_it_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(order(folder.path()).unwrap(), None);
        keep_order(folder.path(), None).unwrap();
        let disabled = Disabled { since_ms: 1, reason: "maintenance".into() };
        keep_order(folder.path(), Some(&disabled)).unwrap();
        assert_eq!(order(folder.path()).unwrap(), Some(disabled));
        keep_order(folder.path(), None).unwrap();
        assert_eq!(order(folder.path()).unwrap(), None);
        fs::write(folder.path().join(ORDER), "{").unwrap();
        assert!(order(folder.path()).is_err());
    }

    fn entry(at_ms: u64) -> Entry {
        let (cause, reason) = ("probe".to_owned(), "why".to_owned());
        Entry { at_ms, from: State::Up, to: State::Falling, cause, reason }
    }
}
