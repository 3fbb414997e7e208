//! Contents that were forgotten: records offered before that are dead, wherever they are.
//!
//! Forgetting a file of a million blocks is one entry here and one tombstone in the log. The entry goes when the
//! log holds nothing older than the tombstone.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Mutex, MutexGuard};

use geo::ContentId;

/// See the module's doc.
#[derive(Debug, Default)]
pub struct Forgotten {
    at: Mutex<HashMap<ContentId, Mark>>,
    /// How many, to be asked without the lock: mostly none.
    count: AtomicUsize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    sequence: u64,
    /// Devices whose log may hold something older, one bit each.
    devices: u64,
}

impl Forgotten {
    /// Everything of the content with a lower sequence is dead, on these devices (one bit each).
    pub fn forget(&self, content: ContentId, sequence: u64, devices: u64) {
        let mut at = self.lock();
        let mark = at.entry(content).or_default();
        match sequence.cmp(&mark.sequence) {
            Ordering::Less => {}
            Ordering::Equal => mark.devices |= devices,
            Ordering::Greater => *mark = Mark { sequence, devices },
        }
        self.count.store(at.len(), Release);
    }

    /// The sequence below which everything of the content is dead.
    #[must_use]
    pub fn sequence(&self, content: ContentId) -> Option<u64> {
        if self.count.load(Acquire) == 0 {
            return None;
        }
        self.lock().get(&content).map(|mark| mark.sequence)
    }

    /// Nothing older than this is in the log of this device any more.
    pub fn expire(&self, content: ContentId, sequence: u64, device: u8) {
        let mut at = self.lock();
        if let Some(mark) = at.get_mut(&content).filter(|mark| mark.sequence == sequence) {
            mark.devices &= !(1 << device);
            if mark.devices == 0 {
                at.remove(&content);
            }
        }
        self.count.store(at.len(), Release);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ContentId, Mark>> {
        self.at.lock().expect("no code that holds this lock panics")
    }
}
