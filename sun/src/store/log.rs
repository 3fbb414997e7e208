//! The log of one device: appends, seals, reclaims. No thread, no clock: its owner calls it.
//!
//! ```text
//!   append --> buffer of an open segment (one a queue) --write_out--> device, then the index knows it
//!                      | full: table, footer                            --sync--> durable
//!                      v
//!                   sealed ---- oldest, when free segments run out ---> reclaim: what the policy keeps is
//!                      ^                                                appended again and synced, then the
//!                      +------- free <--sync-- wiped <------------------ segment's pages are zeroed
//! ```
//!
//! # Invariants
//!
//! - A place is in the index only when its bytes were handed to the device.
//! - A segment is wiped only after what was kept of it is durable, and used again only after the wipe is: a crash
//!   finds a record in its old segment, in its new one, or in both, and never a forgotten one without the
//!   tombstone that forgot it.
//! - Three segments are kept free, and a reclaimed one gives back at least a tenth: an append always finds room.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::store::device::Device;
use crate::store::forgotten::Forgotten;
use crate::store::format::{
    ENTRY_BYTES, Entry, Header, Key, Kind, PAGE_BYTES, SEGMENTS_START, Sealed, SegmentPage, Superblock, UNIT_BYTES,
    record_bytes,
};
use crate::store::index::{Index, Place};
use crate::store::policy::{Fate, Live, Policy, Queue, Reclaimed};
use crate::store::{read, recover};

/// What the logs of a store share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Where each record is.
    pub index: Arc<Index>,
    /// Contents that were forgotten.
    pub forgotten: Arc<Forgotten>,
    /// The sequence of the next record.
    pub sequence: Arc<AtomicU64>,
}

/// What a log counts.
#[derive(Debug, Default)]
pub struct Counts {
    /// Bytes written.
    pub written_bytes: AtomicU64,
    /// Bytes of records written again.
    pub kept_bytes: AtomicU64,
    /// Errors of the device.
    pub errors: AtomicU64,
}

/// See the module's doc.
#[derive(Debug)]
pub struct Log {
    pub(crate) id: u8,
    pub(crate) device: Arc<dyn Device>,
    pub(crate) superblock: Superblock,
    pub(crate) segments: Vec<Segment>,
    pub(crate) shared: Shared,
    pub(crate) next_segment: u64,
    pub(crate) free: VecDeque<usize>,
    wiped: Vec<usize>,
    open: [Option<Open>; 2],
    policy: Arc<Mutex<Policy>>,
    counts: Arc<Counts>,
    /// Numbers for incarnations.
    random: fn() -> u64,
}

/// One segment, as far as RAM knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Segment {
    /// Nothing in it, or wiped.
    Free,
    /// Records in it; without [`SegmentPage::sealed`] there is no table (it was abandoned, or is open).
    Used(SegmentPage),
}

/// A segment that is being written.
#[derive(Debug)]
struct Open {
    segment: usize,
    page: SegmentPage,
    /// Bytes that are not written yet, and where they begin in the segment.
    buffer: Vec<u8>,
    written: u64,
    table: Vec<u8>,
    last_sequence: u64,
    /// Records in the buffer, for the index; with the place that they are moved from, and the hits that they keep.
    fresh: Vec<(u64, Place, Option<Moved>)>,
}

/// Where a record is moved from, and the hits that it keeps.
type Moved = (Place, u8);

/// One record to append.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its name.
    pub key: Key,
    /// Metadata, at most [`crate::store::format::META_BYTES_MAX`].
    pub meta: &'a [u8],
    /// Body, at most [`crate::store::format::BODY_BYTES_MAX`].
    pub body: &'a [u8],
}

impl Log {
    /// A log with segments as they were found.
    pub(crate) fn new(id: u8, device: Arc<dyn Device>, found: recover::Found, parts: Parts) -> Self {
        let free = (0..found.segments.len()).filter(|at| matches!(found.segments[*at], Segment::Free)).collect();
        Self {
            id,
            device,
            superblock: found.superblock,
            segments: found.segments,
            shared: parts.shared,
            next_segment: found.next_segment,
            free,
            wiped: Vec::new(),
            open: [None, None],
            policy: parts.policy,
            counts: parts.counts,
            random: parts.random,
        }
    }

    /// Appends a record whose sequence was drawn when it was offered: what was forgotten or offered since is newer,
    /// even if room has to be made first. It is found after the next [`Log::write_out`].
    ///
    /// # Errors
    ///
    /// When the device refuses a write; the segment that was open is abandoned, the record is lost.
    pub fn append(&mut self, record: Record<'_>, sequence: u64, queue: Queue) -> io::Result<()> {
        self.make_room()?;
        self.push(record, sequence, queue, None)
    }

    /// Writes that everything of a content so far is forgotten, into each queue: what it covers there lies before it,
    /// and is given up before it or with it. The content is in [`Shared::forgotten`] already.
    ///
    /// # Errors
    ///
    /// As [`Log::append`].
    pub fn append_tombstone(&mut self, key: Key, sequence: u64) -> io::Result<()> {
        self.make_room()?;
        let record = Record { key, meta: &[], body: &[] };
        self.push(record, sequence, Queue::Probation, None)?;
        self.push(record, sequence, Queue::Main, None)
    }

    /// Hands the buffers to the device and tells the index.
    ///
    /// # Errors
    ///
    /// As [`Log::append`].
    pub fn write_out(&mut self) -> io::Result<()> {
        self.write_queue(Queue::Probation)?;
        self.write_queue(Queue::Main)
    }

    /// Makes everything appended durable.
    ///
    /// # Errors
    ///
    /// When the device refuses; what was not durable may be lost.
    pub fn sync(&mut self) -> io::Result<()> {
        self.write_out()?;
        if let Err(error) = self.device.sync() {
            // What the kernel could not write it may have dropped: nothing more is appended behind it.
            self.abandon(Queue::Probation);
            self.abandon(Queue::Main);
            return Err(self.failed(error));
        }
        self.free.extend(self.wiped.drain(..));
        Ok(())
    }

    /// Seals the open segments, so that the next start reads tables only.
    ///
    /// # Errors
    ///
    /// As [`Log::sync`].
    pub fn close(&mut self) -> io::Result<()> {
        self.seal(Queue::Probation)?;
        self.seal(Queue::Main)?;
        self.sync()
    }

    /// First byte of a segment.
    pub(crate) fn start_of(&self, segment: usize) -> u64 {
        start_of(&self.superblock, segment)
    }

    pub(crate) fn segment_bytes(&self) -> u64 {
        self.superblock.segment_bytes.into()
    }

    fn push(&mut self, record: Record<'_>, sequence: u64, queue: Queue, from: Option<Moved>) -> io::Result<()> {
        let bytes = record_bytes(record.meta.len(), record.body.len());
        if !self.open[at(queue)].as_ref().is_some_and(|open| open.has_room(bytes, self.segment_bytes())) {
            self.seal(queue)?;
            self.begin(queue)?;
        }
        let (id, hash) = (self.id, self.shared.index.hash(&record.key));
        let Some(open) = &mut self.open[at(queue)] else { return Err(io::Error::other("no segment is open")) };
        if !open.has_room(bytes, self.superblock.segment_bytes.into()) {
            return Err(io::Error::other("the record is larger than a segment"));
        }
        let offset = open.position();
        let place = Place::new(id, start_of(&self.superblock, open.segment) + offset, bytes, sequence);
        open.buffer.extend(Header::encode(record.key, sequence, open.page.incarnation, record.meta, record.body));
        open.buffer.extend(record.meta);
        open.buffer.extend(record.body);
        open.buffer.resize(usize::try_from(offset + bytes - open.written).expect("a segment fits RAM"), 0);
        let short = |number| u32::try_from(number).expect("a segment is below 4 GiB");
        Entry { key: record.key, sequence, offset: short(offset), bytes: short(bytes) }.encode(&mut open.table);
        open.last_sequence = open.last_sequence.max(sequence);
        if record.key.kind != Kind::Tombstone {
            open.fresh.push((hash, place, from));
        }
        if open.buffer.len() >= WRITE_BYTES { self.write_queue(queue) } else { Ok(()) }
    }

    fn begin(&mut self, queue: Queue) -> io::Result<()> {
        let Some(segment) = self.free.pop_front() else {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no segment is free"));
        };
        let page = SegmentPage {
            device: self.superblock.device,
            incarnation: (self.random)(),
            sequence: self.next_segment,
            queue,
            sealed: None,
        };
        self.next_segment += 1;
        self.segments[segment] = Segment::Used(page);
        self.open[at(queue)] = Some(Open {
            segment,
            page,
            buffer: page.encode(),
            written: 0,
            table: Vec::new(),
            last_sequence: 0,
            fresh: Vec::new(),
        });
        Ok(())
    }

    fn write_queue(&mut self, queue: Queue) -> io::Result<()> {
        let Some(open) = &mut self.open[at(queue)] else { return Ok(()) };
        if open.buffer.is_empty() {
            return Ok(());
        }
        let offset = start_of(&self.superblock, open.segment) + open.written;
        if let Err(error) = self.device.write(offset, &open.buffer) {
            self.abandon(queue);
            return Err(self.failed(error));
        }
        self.counts.written_bytes.fetch_add(open.buffer.len() as u64, Ordering::Relaxed);
        open.written += open.buffer.len() as u64;
        open.buffer.clear();
        for (hash, place, from) in open.fresh.drain(..) {
            match from {
                None => self.shared.index.insert(hash, place),
                Some((from, hits)) => {
                    self.shared.index.moved(hash, from, place);
                    for _ in 0..hits {
                        let _ = self.shared.index.hit(hash);
                    }
                }
            }
        }
        Ok(())
    }

    fn seal(&mut self, queue: Queue) -> io::Result<()> {
        self.write_queue(queue)?;
        let Some(open) = self.open[at(queue)].take() else { return Ok(()) };
        let (page, tail) = sealed(open.page, &open.table, open.last_sequence, self.segment_bytes());
        let offset = self.start_of(open.segment) + self.segment_bytes() - tail.len() as u64;
        if let Err(error) = self.device.write(offset, &tail) {
            return Err(self.failed(error));
        }
        self.counts.written_bytes.fetch_add(tail.len() as u64, Ordering::Relaxed);
        self.segments[open.segment] = Segment::Used(page);
        Ok(())
    }

    /// The open segment of a queue is written no further; what is on the device of it stays found.
    fn abandon(&mut self, queue: Queue) {
        self.open[at(queue)] = None;
    }

    fn failed(&self, error: io::Error) -> io::Error {
        self.counts.errors.fetch_add(1, Ordering::Relaxed);
        error
    }

    fn policy(&self) -> MutexGuard<'_, Policy> {
        self.policy.lock().expect("no code that holds this lock panics")
    }
}

/// Reclaiming.
impl Log {
    fn make_room(&mut self) -> io::Result<()> {
        for _ in 0..self.segments.len() * 4 {
            if self.free.len() >= FREE_MIN {
                return Ok(());
            }
            self.reclaim()?;
        }
        Err(io::Error::new(io::ErrorKind::StorageFull, "nothing in the log can be given up"))
    }

    /// Gives back the oldest segment of the queue that the policy names.
    fn reclaim(&mut self) -> io::Result<()> {
        if !self.wiped.is_empty() {
            return self.sync();
        }
        let Some((victim, page)) = self.victim() else {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "every segment is open"));
        };
        // A table that cannot be read costs the segment: its places are found to be wrong when they are asked for.
        let entries = recover::entries(self, victim, &page).unwrap_or_default();
        let mut kept = Reclaimed { segment_bytes: self.segment_bytes(), kept_bytes: 0 };
        for entry in entries {
            self.reclaim_record(victim, &page, &entry, &mut kept)?;
        }
        self.counts.kept_bytes.fetch_add(kept.kept_bytes, Ordering::Relaxed);
        self.sync()?;
        self.wipe(victim)
    }

    fn reclaim_record(
        &mut self,
        victim: usize,
        page: &SegmentPage,
        entry: &Entry,
        kept: &mut Reclaimed,
    ) -> io::Result<()> {
        let forgotten_at = self.shared.forgotten.sequence(entry.key.content);
        if entry.key.kind == Kind::Tombstone {
            // The oldest segment of its queue is the victim: what it covers there goes with it, or went before.
            self.shared.forgotten.expire(entry.key.content, entry.sequence, self.id, page.queue);
            return Ok(());
        }
        let hash = self.shared.index.hash(&entry.key);
        let offset = self.start_of(victim) + u64::from(entry.offset);
        let here = |place: &Place| place.device() == usize::from(self.id) && place.offset() == offset;
        let Some(place) = self.shared.index.find(hash).filter(here) else { return Ok(()) };
        let live = Live { hash, queue: page.queue, hits: place.hits(), bytes: place.bytes() };
        let dead = forgotten_at.is_some_and(|at| place.sequence() < at);
        let fate = if dead { Fate::Drop } else { self.policy().reclaimed(live, *kept) };
        let Fate::Keep { queue, hits } = fate else {
            self.shared.index.remove(hash, place);
            return Ok(());
        };
        // What cannot be read any more is a loss of that record.
        let Ok(Some((meta, body))) = read::whole(&*self.device, place, &entry.key) else {
            self.shared.index.remove(hash, place);
            return Ok(());
        };
        kept.kept_bytes += place.bytes();
        self.push(Record { key: entry.key, meta: &meta, body: &body }, place.sequence(), queue, Some((place, hits)))
    }

    fn victim(&self) -> Option<(usize, SegmentPage)> {
        let open = |at: usize| self.open.iter().flatten().any(|open| open.segment == at);
        let oldest = |queue| {
            let sealed = self.used().filter(move |(at, page)| page.queue == queue && !open(*at));
            sealed.min_by_key(|(_, page)| page.sequence)
        };
        let count = |queue| self.used().filter(|(_, page)| page.queue == queue).count() as u64;
        let queue = self.policy().victim(count(Queue::Probation), count(Queue::Main));
        let other = if queue == Queue::Main { Queue::Probation } else { Queue::Main };
        oldest(queue).or_else(|| oldest(other))
    }

    fn used(&self) -> impl Iterator<Item = (usize, SegmentPage)> {
        let page = |(at, segment): (usize, &Segment)| match segment {
            Segment::Free => None,
            Segment::Used(page) => Some((at, *page)),
        };
        self.segments.iter().enumerate().filter_map(page)
    }

    fn wipe(&mut self, segment: usize) -> io::Result<()> {
        let zeros = vec![0; PAGE_BYTES as usize];
        let start = self.start_of(segment);
        for offset in [start, start + self.segment_bytes() - PAGE_BYTES] {
            if let Err(error) = self.device.write(offset, &zeros) {
                return Err(self.failed(error));
            }
        }
        self.segments[segment] = Segment::Free;
        self.wiped.push(segment);
        Ok(())
    }
}

impl Open {
    fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn has_room(&self, bytes: u64, segment_bytes: u64) -> bool {
        let table = (self.table.len() + ENTRY_BYTES) as u64;
        self.position() + bytes + table + PAGE_BYTES <= segment_bytes
    }
}

/// What [`Log::new`] needs beside the device.
#[derive(Clone, Debug)]
pub struct Parts {
    /// What all logs share.
    pub shared: Shared,
    /// What is written and kept.
    pub policy: Arc<Mutex<Policy>>,
    /// What is counted.
    pub counts: Arc<Counts>,
    /// Unguessable numbers.
    pub random: fn() -> u64,
}

/// The page and the last bytes (table and footer) of a segment that is sealed with this table.
pub(crate) fn sealed(
    page: SegmentPage,
    table: &[u8],
    last_sequence: u64,
    segment_bytes: u64,
) -> (SegmentPage, Vec<u8>) {
    let short = |number| u32::try_from(number).expect("a segment is below 4 GiB");
    let sealed = Sealed {
        table_offset: short(segment_bytes - PAGE_BYTES - table.len() as u64),
        entries: short((table.len() / ENTRY_BYTES) as u64),
        table_crc: crc32c::crc32c(table),
        last_sequence,
    };
    let page = SegmentPage { sealed: Some(sealed), ..page };
    (page, [table, &page.encode()].concat())
}

const fn start_of(superblock: &Superblock, segment: usize) -> u64 {
    SEGMENTS_START + segment as u64 * superblock.segment_bytes as u64
}

const fn at(queue: Queue) -> usize {
    match queue {
        Queue::Probation => 0,
        Queue::Main => 1,
    }
}

/// Segments that are kept free: one for each queue, and one that a reclaim may need before it gives one back.
const FREE_MIN: usize = 3;

/// Bytes that are written at once.
const WRITE_BYTES: usize = 1 << 20;

const _: () = assert!((WRITE_BYTES as u64).is_multiple_of(UNIT_BYTES));
