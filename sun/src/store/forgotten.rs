//! Contents that were forgotten: records offered before that are dead, wherever they are.
//!
//! Forgetting a file of a million blocks is one entry here and two tombstones in each log, one a queue. Within a queue
//! nothing that is dead is appended behind its tombstone, and segments are given up oldest first: with a tombstone
//! goes the last of its queue that it covers. The entry goes when that is so of both queues of every device.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Mutex, MutexGuard};

use geo::ContentId;

use crate::store::policy::Queue;

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
    /// Devices that may hold something older in this queue of their log, one bit each.
    probation: u64,
    main: u64,
}

impl Forgotten {
    /// Everything of the content with a lower sequence is dead, in both queues of these devices (one bit each).
    pub fn forget(&self, content: ContentId, sequence: u64, devices: u64) {
        self.mark(content, Mark { sequence, probation: devices, main: devices });
    }

    /// A tombstone was found in this queue of the log of this device.
    pub fn found(&self, content: ContentId, sequence: u64, device: u8, queue: Queue) {
        let mut mark = Mark { sequence, ..Mark::default() };
        *mark.devices(queue) = 1 << device;
        self.mark(content, mark);
    }

    fn mark(&self, content: ContentId, new: Mark) {
        let mut at = self.lock();
        let mark = at.entry(content).or_default();
        match new.sequence.cmp(&mark.sequence) {
            Ordering::Less => {}
            Ordering::Equal => (mark.probation, mark.main) = (mark.probation | new.probation, mark.main | new.main),
            Ordering::Greater => *mark = new,
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

    /// Nothing older than this is in this queue of the log of this device any more.
    pub fn expire(&self, content: ContentId, sequence: u64, device: u8, queue: Queue) {
        let mut at = self.lock();
        if let Some(mark) = at.get_mut(&content).filter(|mark| mark.sequence == sequence) {
            *mark.devices(queue) &= !(1 << device);
            if mark.probation | mark.main == 0 {
                at.remove(&content);
            }
        }
        self.count.store(at.len(), Release);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ContentId, Mark>> {
        self.at.lock().expect("no code that holds this lock panics")
    }
}

impl Mark {
    const fn devices(&mut self, queue: Queue) -> &mut u64 {
        match queue {
            Queue::Probation => &mut self.probation,
            Queue::Main => &mut self.main,
        }
    }
}
