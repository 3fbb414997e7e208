//! A folder in RAM that does what real ones do on bad days: it fills up, its syncs fail, and a crash takes what was
//! not synced, wholly or from any byte on.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use super::{Folder, Writing};

/// The folder; share it by reference, crash it with [`Simulated::crash`].
#[derive(Debug, Default)]
pub(crate) struct Simulated {
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    files: BTreeMap<String, Content>,
    appended: Option<String>,
    bytes_max: Option<usize>,
    sync_fails: bool,
    truncate_fails: bool,
    read_fails: bool,
    rename_fails: Option<Renamed>,
}

/// Where a file is after a rename that failed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Renamed {
    /// Under its old name.
    Not,
    /// Under its new name: only making that durable failed.
    Already,
}

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: usize,
}

impl Simulated {
    /// The folder that the next process finds when this one dies now; of every file, `unsynced` bytes that were
    /// written and not synced have reached the disk.
    pub(crate) fn crash(&self, unsynced: usize) -> Self {
        let mut state = self.state.lock().unwrap().clone();
        for content in state.files.values_mut() {
            let kept = content.bytes.len().min(content.synced.saturating_add(unsynced));
            content.bytes.truncate(kept);
            content.synced = kept;
        }
        Self { state: Mutex::new(State { files: state.files, ..State::default() }) }
    }

    /// From now on the disk holds at most so many bytes.
    pub(crate) fn fill_up(&self, bytes_max: Option<usize>) {
        self.state.lock().unwrap().bytes_max = bytes_max;
    }

    /// From now on syncs fail, and with `truncate` cutting does as well.
    pub(crate) fn fail(&self, sync: bool, truncate: bool) {
        let mut state = self.state.lock().unwrap();
        (state.sync_fails, state.truncate_fails) = (sync, truncate);
    }

    /// From now on no file can be read, as if there were no descriptors left.
    pub(crate) fn fail_reads(&self, fail: bool) {
        self.state.lock().unwrap().read_fails = fail;
    }

    /// From now on renames fail like this.
    pub(crate) fn fail_renames(&self, how: Option<Renamed>) {
        self.state.lock().unwrap().rename_fails = how;
    }

    /// Changes a file behind everybody's back.
    pub(crate) fn tamper(&self, name: &str, with: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state.lock().unwrap();
        let content = state.files.get_mut(name).unwrap();
        with(&mut content.bytes);
        content.synced = content.bytes.len();
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> usize {
        self.state.lock().unwrap().bytes()
    }
}

impl State {
    fn bytes(&self) -> usize {
        self.files.values().map(|content| content.bytes.len()).sum()
    }

    fn appended(&mut self) -> io::Result<&mut Content> {
        let name = self.appended.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok(self.files.get_mut(name).unwrap())
    }

    /// How many of these bytes still fit.
    fn room(&self, bytes: usize) -> usize {
        self.bytes_max.map_or(bytes, |max| bytes.min(max.saturating_sub(self.bytes())))
    }
}

impl Folder for Simulated {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state.lock().unwrap().files.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let state = self.state.lock().unwrap();
        if state.read_fails {
            return Err(io::Error::other("too many open files"));
        }
        Ok(state.files.get(name).ok_or(io::ErrorKind::NotFound)?.bytes.clone())
    }

    fn read_at(&self, name: &str, from: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        let bytes = self.read(name)?;
        let from = usize::try_from(from).unwrap().min(bytes.len());
        Ok(bytes[from..].iter().copied().take(bytes_max).collect())
    }

    fn size(&self, name: &str) -> io::Result<u64> {
        let state = self.state.lock().unwrap();
        Ok(state.files.get(name).ok_or(io::ErrorKind::NotFound)?.bytes.len() as u64)
    }

    fn create(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.files.insert(name.to_owned(), Content::default());
        state.appended = Some(name.to_owned());
        Ok(())
    }

    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let room = state.room(bytes.len());
        state.appended()?.bytes.extend(&bytes[..room]);
        if room < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        if state.sync_fails {
            return Err(io::Error::other("the disk is ill"));
        }
        let content = state.appended()?;
        content.synced = content.bytes.len();
        Ok(())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        if state.truncate_fails {
            return Err(io::Error::other("the disk is ill"));
        }
        let content = state.appended()?;
        content.bytes.truncate(usize::try_from(bytes).unwrap());
        content.synced = content.synced.min(content.bytes.len());
        Ok(())
    }

    fn replace_with(&self, name: &str, write: Writing<'_>) -> io::Result<()> {
        // Others use the folder meanwhile.
        let mut bytes = Vec::new();
        write(&mut bytes)?;
        let mut state = self.state.lock().unwrap();
        if state.room(bytes.len()) < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let synced = bytes.len();
        state.files.insert(name.to_owned(), Content { bytes, synced });
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let ill = || Err(io::Error::other("the disk is ill"));
        if let Some(Renamed::Not) = state.rename_fails {
            return ill();
        }
        let content = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), content);
        if state.rename_fails.is_some() { ill() } else { Ok(()) }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.state.lock().unwrap().files.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
