//! What became of the sun: its last changes of state, starts and ends of this daemon and orders that changed none, in memory and
//! as lines of JSON in a file; and the operator's order.
//!
//! ```text
//!   driver --> History (memory) --channel, bounded--> thread: Journal --> history.jsonl
//! ```
//!
//! The file has at most twice as many lines as are kept; then it is written anew with the last ones, beside and renamed. A
//! history that cannot be written is one WARN and no reason to stop. A disk that hangs holds up the thread and nobody else: what
//! does not fit into the channel is missing in the file, and counted.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::machine::State;

/// A change of state; or something that changed none: `from` and `to` are the same.
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

/// The penalty for falls, as it was once; it halves with time, also while nothing runs.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Penalty {
    /// How much.
    pub points: f64,
    /// When, milliseconds since 1970.
    pub at_ms: u64,
}

/// What is to be written.
#[derive(Clone, Debug)]
enum Record {
    Changed(Entry),
    Penalty(Penalty),
}

/// See the module's doc.
#[derive(Debug)]
pub struct History {
    entries: Entries,
    journal: SyncSender<Record>,
    thread: Option<JoinHandle<()>>,
}

impl History {
    /// Reads what there is, and starts the thread that writes.
    ///
    /// # Errors
    ///
    /// When the thread cannot be made.
    pub fn open(folder: &Path, entries_max: usize) -> io::Result<Self> {
        let journal = Journal::open(folder, entries_max);
        let (mut history, waiting) = Self::of(journal.entries.clone());
        let write = move || write_all(journal, &waiting);
        history.thread = Some(std::thread::Builder::new().name("history".to_owned()).spawn(write)?);
        Ok(history)
    }

    fn of(entries: Entries) -> (Self, Receiver<Record>) {
        let (journal, waiting) = sync_channel(WAITING_MAX);
        (Self { entries, journal, thread: None }, waiting)
    }

    /// Keeps one more; waits for nothing. False: the file will not have it.
    #[must_use]
    pub fn add(&mut self, entry: Entry) -> bool {
        self.entries.push(entry.clone());
        self.journal.try_send(Record::Changed(entry)).is_ok()
    }

    /// Has the penalty kept over a restart; waits for nothing. False: it will not be.
    #[must_use]
    pub fn keep_penalty(&self, penalty: Penalty) -> bool {
        self.journal.try_send(Record::Penalty(penalty)).is_ok()
    }

    /// The last ones, oldest first.
    #[must_use]
    pub fn last(&self, count: usize) -> Vec<Entry> {
        self.entries.last(count)
    }

    /// What ends when everything is written; for somebody who may wait.
    #[must_use]
    pub fn close(self) -> Option<JoinHandle<()>> {
        self.thread
    }
}

fn write_all(mut journal: Journal, waiting: &Receiver<Record>) {
    for record in waiting {
        match record {
            Record::Changed(entry) => journal.add(entry),
            Record::Penalty(penalty) => {
                let file = journal.file.with_file_name(PENALTY);
                if let Err(error) = write_penalty(&file, penalty) {
                    tracing::warn!(file = %file.display(), %error, "the penalty for falls does not outlive a restart");
                }
            }
        }
    }
}

fn write_penalty(file: &Path, penalty: Penalty) -> io::Result<()> {
    let beside = file.with_extension("new");
    fs::write(&beside, serde_json::to_vec(&penalty)?)?;
    fs::rename(&beside, file)
}

/// What is left of the penalty for the falls before a restart, at `now_ms` since 1970. What cannot be read is none.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "milliseconds of some years")]
pub fn penalty(folder: &Path, half_life_s: f64, now_ms: u64) -> f64 {
    let read = || -> Option<Penalty> { serde_json::from_slice(&fs::read(folder.join(PENALTY)).ok()?).ok() };
    read().map_or(0.0, |Penalty { points, at_ms }| {
        points * (-(now_ms.saturating_sub(at_ms) as f64) / (half_life_s * 1000.0)).exp2()
    })
}

/// What is said of a start, after what the history has last.
#[must_use]
pub fn began(last: Option<&Entry>) -> String {
    let after = match last {
        None => "the history begins",
        Some(last) if last.cause == STOP => "the one before was told to end",
        Some(_) => "the one before did not come to its end: it was killed or crashed, or its machine did",
    };
    format!("sun-check {} started; {after}", env!("CARGO_PKG_VERSION"))
}

/// The last changes, oldest first.
#[derive(Clone, Debug)]
struct Entries {
    all: VecDeque<Entry>,
    count_max: usize,
}

impl Entries {
    fn push(&mut self, entry: Entry) {
        self.all.push_back(entry);
        while self.all.len() > self.count_max {
            self.all.pop_front();
        }
    }

    fn last(&self, count: usize) -> Vec<Entry> {
        self.all.iter().skip(self.all.len().saturating_sub(count)).cloned().collect()
    }
}

/// The file, and what is to be in it.
#[derive(Debug)]
struct Journal {
    file: PathBuf,
    entries: Entries,
    lines: usize,
    failed: bool,
}

impl Journal {
    /// Lines that are no entry (cut off by a crash) are left out.
    fn open(folder: &Path, count_max: usize) -> Self {
        let file = folder.join("history.jsonl");
        let mut entries = Entries { all: VecDeque::new(), count_max };
        let text = fs::read(&file).unwrap_or_default();
        for line in text.split(|byte| *byte == b'\n') {
            if let Ok(entry) = serde_json::from_slice(line) {
                entries.push(entry);
            }
        }
        let lines = text.iter().filter(|byte| **byte == b'\n').count();
        // The next line would continue one that was cut off: the file is written anew.
        let failed = text.last().is_some_and(|byte| *byte != b'\n');
        Self { file, entries, lines, failed }
    }

    fn add(&mut self, entry: Entry) {
        self.entries.push(entry);
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

    fn write(&mut self) -> io::Result<()> {
        let entries = &self.entries.all;
        if self.failed || self.lines >= self.entries.count_max.saturating_mul(2) {
            let beside = self.file.with_extension("new");
            let mut file = File::create(&beside)?;
            for entry in entries {
                writeln!(file, "{}", serde_json::to_string(entry)?)?;
            }
            file.sync_all()?;
            fs::rename(&beside, &self.file)?;
            self.lines = entries.len();
            return Ok(());
        }
        let Some(entry) = entries.back() else { return Ok(()) };
        let line = serde_json::to_string(entry)? + "\n";
        let mut file = File::options().create(true).append(true).open(&self.file)?;
        file.write_all(line.as_bytes())?;
        self.lines += 1;
        Ok(())
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
/// What the disk says; then the file may have the one before, or this one.
pub fn keep_order(folder: &Path, order: Option<&Disabled>) -> io::Result<()> {
    let file = folder.join(ORDER);
    let Some(order) = order else {
        return match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            // Also of a removal that was not known to be durable.
            Ok(()) | Err(_) => sync(folder),
        };
    };
    let beside = file.with_extension("new");
    let mut written = File::create(&beside)?;
    written.write_all(&serde_json::to_vec(order)?)?;
    written.sync_all()?;
    fs::rename(&beside, &file)?;
    sync(folder)
}

/// Names are the folder's: without this, a renamed or removed file may be back after a loss of power.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Causes of what changes no state.
pub const START: &str = "start";
/// See [`START`].
pub const STOP: &str = "stop";

const ORDER: &str = "disabled.json";
const PENALTY: &str = "penalty.json";

/// Changes that may wait for the disk: a sun that flaps as fast as it can makes some ten a second.
const WAITING_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_changes_outlive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path(), 3);
        for at_ms in 0..20 {
            journal.add(entry(at_ms));
            let lines = fs::read_to_string(folder.path().join("history.jsonl")).unwrap().lines().count();
            assert!(lines <= 6, "{lines}");
        }
        let times = |entries: Vec<Entry>| entries.iter().map(|entry| entry.at_ms).collect::<Vec<_>>();
        assert_eq!(times(journal.entries.last(10)), [17, 18, 19]);
        let mut file = File::options().append(true).open(folder.path().join("history.jsonl")).unwrap();
        file.write_all(b"{\"at_ms\": 20, \"fr").unwrap();
        let mut again = History::open(folder.path(), 3).unwrap();
        assert_eq!(times(again.last(10)), [17, 18, 19]);
        assert_eq!(again.last(1), [entry(19)]);
        assert!(again.add(entry(21)));
        again.close().unwrap().join().unwrap();
        let written = Journal::open(folder.path(), 3);
        assert_eq!(times(written.entries.last(10)), [18, 19, 21]);
    }

    #[test]
    fn a_disk_that_hangs_holds_nobody_up() {
        let (mut history, waiting) = History::of(Entries { all: VecDeque::new(), count_max: 3 });
        let taken = (0..WAITING_MAX as u64 + 2).filter(|at_ms| history.add(entry(*at_ms))).count();
        assert_eq!(taken, WAITING_MAX, "nobody writes them");
        assert_eq!(history.last(1), [entry(WAITING_MAX as u64 + 1)], "in memory they are");
        drop(waiting);
        assert!(!history.add(entry(0)));
    }

    #[test]
    fn the_penalty_outlives_a_restart_and_halves_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let left = |now_ms| penalty(folder.path(), 300.0, now_ms);
        assert_eq!(left(0).to_bits(), 0.0_f64.to_bits());
        let history = History::open(folder.path(), 3).unwrap();
        assert!(history.keep_penalty(Penalty { points: 1000.0, at_ms: 5000 }));
        assert!(history.keep_penalty(Penalty { points: 2000.0, at_ms: 5000 }));
        history.close().unwrap().join().unwrap();
        let near = |value: f64, expected: f64| assert!((value - expected).abs() < 1e-9, "{value}");
        near(left(5000), 2000.0);
        near(left(305_000), 1000.0);
        near(left(0), 2000.0);
        fs::write(folder.path().join(PENALTY), "odd").unwrap();
        near(left(5000), 0.0);
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

    #[test]
    fn a_start_says_how_the_one_before_ended() {
        let after = |cause: &str| began(Some(&Entry { cause: cause.to_owned(), ..entry(1) }));
        assert!(began(None).ends_with("; the history begins"));
        assert!(after(STOP).ends_with("; the one before was told to end"));
        assert!(after("probe").contains("; the one before did not come to its end"));
    }

    fn entry(at_ms: u64) -> Entry {
        let (cause, reason) = ("probe".to_owned(), "why".to_owned());
        Entry { at_ms, from: State::Up, to: State::Falling, cause, reason }
    }
}
