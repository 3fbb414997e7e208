//! Sun's disk tier without bytes: the sun's own [`Policy`] over segments that only know what would be in them.
//!
//! ```text
//!   probation   [full][full][open]          a segment is full when the next record does not fit;
//!   main        [full][full][full][open]    the policy says whose oldest is reclaimed, and what of it is kept
//! ```
//!
//! What stands for [`sun::store`]'s log here is [`Disk::append`] and [`Disk::reclaim`]: where a record goes and
//! when room is made, not how. A file is one record however large; headers and padding (100 bytes or so a
//! record) are not counted. A segment is 1/128 of the disk, or one record if that is larger; the policy is told
//! that it has room for eight at least, as a real one has for 32.
//!
//! The write budget is a drive write a day. How long a day is, a trace does not say: [`Settings::turnover`]
//! does, in disk sizes that are served a day.

use std::collections::{HashMap, VecDeque};

use sun::store::policy::{Admission, Fate, Live, Policy as Deciding, Queue, Reclaimed, Settings as Rules, Verdict};

use crate::policy::Policy;
use crate::ram::{Names, RamTier};
use crate::trace::Request;

/// How a disk is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// First offers: by budget or never.
    pub(crate) admission: Admission,
    /// Disk sizes that are served a day while a disk may be written once; 0: no budget.
    pub(crate) turnover: f64,
}

/// See the module's doc.
#[derive(Debug)]
pub(crate) struct Disk {
    bytes_max: u64,
    segment_bytes: u64,
    policy: Deciding,
    /// Oldest first; the last is open. Probation, main.
    queues: [VecDeque<Segment>; 2],
    used_bytes: u64,
    held: HashMap<u32, Held>,
    names: Names,
    records: u64,
    written_bytes: u64,
    /// Bytes asked for so far: what the clock goes by.
    asked_bytes: u64,
    turnover: f64,
}

#[derive(Debug, Default)]
struct Segment {
    records: Vec<(u32, u64)>,
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    /// Number of the record: an older one of the same key is garbage.
    record: u64,
    bytes: u64,
    hits: u8,
}

impl Disk {
    pub(crate) fn new(bytes_max: u64, file_bytes: u64, settings: Settings, names: Names) -> Self {
        let rules = Rules {
            admission: settings.admission,
            // What the disk holds of files of the trace's mean size.
            ghost_entries: usize::try_from(bytes_max / file_bytes.max(1)).unwrap_or(usize::MAX).max(64),
            write_bytes_per_day: if settings.turnover > 0.0 { bytes_max } else { 0 },
            ..Rules::default()
        };
        Self {
            bytes_max,
            segment_bytes: (bytes_max / SEGMENTS).max(1),
            policy: Deciding::new(rules, 0),
            queues: Default::default(),
            used_bytes: 0,
            held: HashMap::new(),
            names,
            records: 0,
            written_bytes: 0,
            asked_bytes: 0,
            turnover: settings.turnover,
        }
    }

    /// So many bytes are served: time passes.
    pub(crate) fn served(&mut self, bytes: u64) {
        self.asked_bytes += bytes;
    }

    /// Whether it has a file; counts as a hit.
    pub(crate) fn hit(&mut self, key: u32) -> bool {
        // A record's hits have three bits.
        self.held.get_mut(&key).map(|held| held.hits = (held.hits + 1).min(7)).is_some()
    }

    /// A file that it does not have is at hand; `again`: RAM has answered with it.
    pub(crate) fn offer(&mut self, request: Request, again: bool) {
        if request.size > self.bytes_max / 4 {
            return;
        }
        let (hash, now_ms) = (self.hash(request.key), self.now_ms());
        let verdict = match again {
            true => self.policy.offered_again(hash, request.size, now_ms),
            false => self.policy.offered(hash, request.size, now_ms),
        };
        if let Verdict::Store(queue) = verdict {
            while self.used_bytes + self.segment_bytes.max(request.size) > self.bytes_max && self.reclaim() {}
            self.append(queue, request.key, request.size, 0);
        }
    }

    fn append(&mut self, queue: Queue, key: u32, bytes: u64, hits: u8) {
        let segments = &mut self.queues[at(queue)];
        if segments.back().is_none_or(|open| open.bytes + bytes > self.segment_bytes) {
            segments.push_back(Segment::default());
        }
        self.records += 1;
        if let Some(open) = segments.back_mut() {
            open.records.push((key, self.records));
            open.bytes += bytes;
        }
        self.used_bytes += bytes;
        self.written_bytes += bytes;
        self.held.insert(key, Held { record: self.records, bytes, hits });
    }

    /// Gives back a segment, less what is kept of it; whether there was one.
    fn reclaim(&mut self) -> bool {
        let count = |queue: Queue| self.queues[at(queue)].len() as u64;
        let queue = self.policy.victim(count(Queue::Probation), count(Queue::Main));
        let Some(segment) = self.queues[at(queue)].pop_front() else { return false };
        self.used_bytes -= segment.bytes;
        let largest = segment.records.iter().filter_map(|(key, _)| self.held.get(key)).map(|held| held.bytes).max();
        let segment_bytes = segment.bytes.max(RECORDS_MIN * largest.unwrap_or(0));
        let mut kept = Reclaimed { segment_bytes, kept_bytes: 0 };
        for (key, record) in segment.records {
            let Some(held) = self.held.get(&key).copied().filter(|held| held.record == record) else { continue };
            let live = Live { hash: self.hash(key), queue, hits: held.hits, bytes: held.bytes };
            match self.policy.reclaimed(live, kept) {
                Fate::Drop => drop(self.held.remove(&key)),
                Fate::Keep { queue, hits } => {
                    kept.kept_bytes += held.bytes;
                    self.append(queue, key, held.bytes, hits);
                }
            }
        }
        true
    }

    fn hash(&self, key: u32) -> u64 {
        let (half, _) = self.names[key as usize].as_bytes().split_at(8);
        u64::from_le_bytes(half.try_into().expect("8 bytes"))
    }

    fn now_ms(&self) -> u64 {
        (self.asked_bytes as f64 / (self.bytes_max as f64 * self.turnover.max(1e-9)) * DAY_MS) as u64
    }
}

impl Policy for Disk {
    fn request(&mut self, request: Request) -> bool {
        self.served(request.size);
        let hit = self.hit(request.key);
        if !hit {
            self.offer(request, false);
        }
        hit
    }

    fn written_bytes(&self) -> u64 {
        self.written_bytes
    }
}

/// RAM in front of a disk: what is found on the disk is kept in RAM as well, what comes from upstream is kept in
/// RAM and offered to the disk, and of hits in RAM one in [`HITS_PER_TOUCH`] is a hit on the disk as well, or an
/// offer to it: after a restart the hottest files are there.
#[derive(Debug)]
pub(crate) struct Both {
    ram: RamTier,
    disk: Disk,
    hits: u64,
}

impl Both {
    pub(crate) fn new(ram: RamTier, disk: Disk) -> Self {
        Self { ram, disk, hits: 0 }
    }
}

impl Policy for Both {
    fn request(&mut self, request: Request) -> bool {
        self.disk.served(request.size);
        if self.ram.holds(request) {
            self.hits += 1;
            if self.hits.is_multiple_of(HITS_PER_TOUCH) && !self.disk.hit(request.key) {
                self.disk.offer(request, true);
            }
            return true;
        }
        self.ram.keep(request);
        let hit = self.disk.hit(request.key);
        if !hit {
            self.disk.offer(request, false);
        }
        hit
    }

    fn written_bytes(&self) -> u64 {
        self.disk.written_bytes()
    }
}

const fn at(queue: Queue) -> usize {
    match queue {
        Queue::Probation => 0,
        Queue::Main => 1,
    }
}

const SEGMENTS: u64 = 128;
const RECORDS_MIN: u64 = 8;
const HITS_PER_TOUCH: u64 = 16;
const DAY_MS: f64 = 24.0 * 60.0 * 60.0 * 1000.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::generate;
    use crate::policy::run;
    use crate::ram;

    #[test]
    fn it_stays_within_its_bytes_and_what_is_held_is_in_a_segment() {
        let trace = generate("media,requests=20000,seed=3").unwrap();
        let (bytes_max, names) = (trace.footprint_bytes / 20, ram::names(&trace));
        let mut disk = Disk::new(bytes_max, 1 << 20, Settings { admission: Admission::Always, turnover: 0.0 }, names);
        for (number, request) in trace.requests.iter().enumerate() {
            disk.request(*request);
            assert!(disk.used_bytes <= bytes_max, "{} of {bytes_max}", disk.used_bytes);
            if number % 1_000 == 0 {
                let segments = || disk.queues.iter().flatten();
                assert_eq!(disk.used_bytes, segments().map(|segment| segment.bytes).sum::<u64>());
                let found = segments().flat_map(|segment| &segment.records);
                let found = found.filter(|(key, record)| disk.held.get(key).is_some_and(|held| held.record == *record));
                assert_eq!(found.count(), disk.held.len());
            }
        }
    }

    #[test]
    fn a_budget_bounds_what_is_written() {
        let trace = generate("media,requests=60000,seed=3").unwrap();
        let names = ram::names(&trace);
        let bytes_max = trace.footprint_bytes / 20;
        let written = |turnover| {
            let settings = Settings { admission: Admission::Always, turnover };
            run(&trace, &mut Disk::new(bytes_max, 1 << 20, settings, names.clone())).written_per_served.unwrap()
        };
        let free = written(0.0);
        assert!(free > 0.3, "without a budget it writes {free}");
        for turnover in [5.0, 20.0] {
            // A day's bytes and an hour's, a reclaimed segment and a record may come on top.
            let days = 1.0 + 1.0 / 24.0 + 2.0 / SEGMENTS as f64;
            let most = 1.0 / turnover + days * bytes_max as f64 / trace.bytes() as f64;
            let written = written(turnover);
            assert!(written <= most && written > most / 2.0, "{written}, at most {most}");
        }
    }
}
