//! What a start finds on a device.
//!
//! ```text
//!   1  superblock              blank: made new; another's or another version's: refused
//!   2  first and last page of each segment      free, sealed, or open when the process died
//!   3  open ones: record by record, then sealed
//!      -- from here on offers are taken --
//!   4  tables of the sealed ones, newest first, into the index; lookups find what is there so far
//! ```
//!
//! Steps 1 to 3 read two pages a segment; step 4 reads 48 bytes a record, in one piece a segment.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::store::device::Device;
use crate::store::format::{
    BODY_BYTES_MAX, ENTRY_BYTES, Entry, HEADER_BYTES, Header, Kind, META_BYTES_MAX, Opening, PAGE_BYTES,
    SEGMENTS_START, SEQUENCE_END, SegmentPage, Superblock, UNIT_BYTES, record_bytes,
};
use crate::store::index::Place;
use crate::store::log::{self, Log, Parts, Segment};

/// Why a device is not used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system refused; it may work later.
    #[error("{0}")]
    Device(#[from] io::Error),
    /// Something else is there. The operator removes it (or wipes its first MiB), or names another path.
    #[error("it holds something that is not a store: remove it (or wipe its first MiB) if it may be overwritten")]
    Foreign,
    /// Another version of this program wrote it. What is in it is a cache: it can be removed.
    #[error("it holds a store of format {0}, this is format {ours}: remove the file to begin anew", ours = crate::store::format::VERSION)]
    Version(u32),
    /// Fewer than [`SEGMENTS_MIN`] segments fit.
    #[error("{0} bytes are too few for a store: at least {SEGMENTS_MIN} segments must fit")]
    TooSmall(u64),
    /// More than [`SEGMENTS_MAX`] segments: it was made for a much smaller device. What is in it is a cache.
    #[error("it holds a store with segments of {0} bytes, too small for this many bytes: remove it to begin anew")]
    TooMany(u32),
}

/// What steps 1 and 2 found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) superblock: Superblock,
    pub(crate) segments: Vec<Segment>,
    pub(crate) next_segment: u64,
}

/// Tables that are still to be read.
#[derive(Debug)]
pub struct Recovery {
    /// Sealed segments, oldest first.
    left: Mutex<Vec<(usize, SegmentPage)>>,
    /// How many there were.
    pub segments: usize,
}

/// Steps 1 to 3. A blank device is made a store with segments of `segment_bytes`.
///
/// # Errors
///
/// [`OpenError`].
pub fn open(id: u8, device: Arc<dyn Device>, segment_bytes: u32, parts: Parts) -> Result<(Log, Recovery), OpenError> {
    let superblock = superblock(&*device, segment_bytes, parts.random)?;
    let found = segments(&*device, superblock)?;
    let mut left: Vec<_> = (0..).zip(&found.segments).filter_map(used).collect();
    let mut log = Log::new(id, device, found, parts);
    left.sort_by_key(|(_, page)| page.sequence);
    let mut sequence = 0;
    for (segment, page) in &mut left {
        if page.sealed.is_none() {
            *page = seal(&mut log, *segment, *page);
        }
        sequence = sequence.max(page.sealed.map_or(0, |sealed| sealed.last_sequence));
    }
    // More than the records that may have been lost with an unreadable segment.
    log.shared.sequence.fetch_max(sequence + SEQUENCE_MARGIN, Ordering::Relaxed);
    let (segments, left) = (left.len(), Mutex::new(left));
    Ok((log, Recovery { left, segments }))
}

impl Recovery {
    /// Makes room in the index for all that the tables will tell: growing while it is filled costs as much as filling.
    pub fn prepare(&self, log: &Log) {
        let left = self.lock();
        let entries = left.iter().filter_map(|(_, page)| page.sealed).map(|sealed| sealed.entries as usize).sum();
        log.shared.index.reserve(entries);
    }

    /// Step 4, for one segment; false: there is none left. Several threads may take steps.
    pub fn step(&self, log: &Log) -> bool {
        let (segment, page, later) = {
            let mut left = self.lock();
            let Some((segment, page)) = left.pop() else { return false };
            (segment, page, left.len().checked_sub(TABLES_AHEAD).map(|at| left[at]))
        };
        if let Some((later, SegmentPage { sealed: Some(sealed), .. })) = later {
            let offset = log.start_of(later) + u64::from(sealed.table_offset);
            log.device.will_read(offset, u64::from(sealed.entries) * ENTRY_BYTES as u64);
        }
        // A segment that cannot be read is a loss of that segment.
        let entries = entries(log, segment, &page).unwrap_or_default();
        let places = entries.iter().filter_map(|entry| learn(log, segment, entry));
        log.shared.index.insert_all(places.collect());
        true
    }

    /// Segments whose tables are still to be read.
    #[must_use]
    pub fn left(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(usize, SegmentPage)>> {
        self.left.lock().expect("no code that holds this lock panics")
    }
}

/// Takes a tombstone in, or says where a record is.
fn learn(log: &Log, segment: usize, entry: &Entry) -> Option<(u64, Place)> {
    let shared = &log.shared;
    if entry.sequence >= SEQUENCE_END {
        return None;
    }
    if entry.key.kind == Kind::Tombstone {
        let Segment::Used(page) = log.segments[segment] else { return None };
        shared.forgotten.found(entry.key.content, entry.sequence, log.id, page.queue);
        return None;
    }
    if shared.forgotten.sequence(entry.key.content).is_some_and(|at| entry.sequence < at) {
        return None;
    }
    let (offset, bytes) = (u64::from(entry.offset), u64::from(entry.bytes));
    let fits = offset.is_multiple_of(UNIT_BYTES) && bytes.is_multiple_of(UNIT_BYTES) && bytes <= RECORD_BYTES_MAX;
    let fits = fits && offset + bytes <= log.segment_bytes();
    let place = || Place::new(log.id, log.start_of(segment) + offset, bytes, entry.sequence);
    fits.then(|| (shared.index.hash(&entry.key), place()))
}

fn superblock(device: &dyn Device, segment_bytes: u32, random: fn() -> u64) -> Result<Superblock, OpenError> {
    let fits = |superblock: &Superblock| {
        let segments = device.bytes().saturating_sub(SEGMENTS_START) / u64::from(superblock.segment_bytes.max(1));
        match segments {
            ..SEGMENTS_MIN => Err(OpenError::TooSmall(device.bytes())),
            SEGMENTS_MIN..=SEGMENTS_MAX => Ok(*superblock),
            _ => Err(OpenError::TooMany(superblock.segment_bytes)),
        }
    };
    match opening(device)? {
        Opening::Store(superblock) => fits(&superblock),
        Opening::Foreign => Err(OpenError::Foreign),
        Opening::Version(version) => Err(OpenError::Version(version)),
        Opening::Blank => {
            let superblock = fits(&Superblock { device: random(), segment_bytes })?;
            device.write(0, &superblock.encode())?;
            device.sync()?;
            Ok(superblock)
        }
    }
}

/// A page is enough to know a store by; that there is nothing takes all before the first segment.
fn opening(device: &dyn Device) -> Result<Opening, OpenError> {
    let mut front = vec![0; PAGE_BYTES as usize];
    device.read(0, &mut front)?;
    let opening = Opening::decode(&front);
    let all = usize::try_from(SEGMENTS_START.min(device.bytes())).unwrap_or(0);
    if opening != Opening::Blank || all < front.len() {
        return Ok(opening);
    }
    front.resize(all, 0);
    device.read(0, &mut front)?;
    Ok(Opening::decode(&front))
}

/// Reads the pages of all segments, on several threads: each read waits for the disk.
fn segments(device: &dyn Device, superblock: Superblock) -> Result<Found, OpenError> {
    let segment_bytes = u64::from(superblock.segment_bytes);
    let count = usize::try_from((device.bytes() - SEGMENTS_START) / segment_bytes).unwrap_or(0);
    let mut segments = vec![Segment::Free; count];
    std::thread::scope(|scope| {
        for (chunk, part) in (0..).zip(segments.chunks_mut(count.div_ceil(PAGE_READERS).max(1))) {
            let first = chunk * count.div_ceil(PAGE_READERS).max(1);
            scope.spawn(move || {
                for (at, segment) in part.iter_mut().enumerate() {
                    let start = SEGMENTS_START + (first + at) as u64 * segment_bytes;
                    *segment = look(device, superblock.device, start, segment_bytes);
                }
            });
        }
    });
    let next = (0..).zip(&segments).filter_map(used).map(|(_, page)| page.sequence + 1).max().unwrap_or(0);
    Ok(Found { superblock, segments, next_segment: next })
}

/// What a segment's pages say; a page that cannot be read says nothing.
fn look(device: &dyn Device, id: u64, start: u64, segment_bytes: u64) -> Segment {
    let page = |offset| {
        let mut page = vec![0; PAGE_BYTES as usize];
        device.read(offset, &mut page).ok().map(|()| page)
    };
    let header = page(start).and_then(|page| SegmentPage::decode_header(&page, id));
    let footer = page(start + segment_bytes - PAGE_BYTES).and_then(|page| SegmentPage::decode_footer(&page, id));
    // One whose table cannot be is as good as none: the records are looked for one by one.
    let footer = footer.filter(|page| page.sealed.is_some_and(|sealed| sealed.fits(segment_bytes)));
    match (header, footer) {
        // The footer of an earlier use is wiped before the next; only a device that lies has both.
        (Some(header), Some(footer)) if header.incarnation != footer.incarnation => Segment::Used(header),
        (_, Some(footer)) => Segment::Used(footer),
        (Some(header), None) => Segment::Used(header),
        (None, None) => Segment::Free,
    }
}

/// Seals a segment that was open, with the records that are found in it.
fn seal(log: &mut Log, segment: usize, page: SegmentPage) -> SegmentPage {
    let entries = scan(log, segment, &page).unwrap_or_default();
    let last = entries.iter().map(|entry| entry.sequence).max().unwrap_or(0);
    let mut table = Vec::with_capacity(entries.len() * ENTRY_BYTES);
    entries.iter().for_each(|entry| entry.encode(&mut table));
    let (sealed, tail) = log::sealed(page, &table, last, log.segment_bytes());
    let offset = log.start_of(segment) + log.segment_bytes() - tail.len() as u64;
    // If that fails, this run knows no table and scans again when the segment's turn comes.
    let written = log.device.write(offset, &tail).and_then(|()| log.device.sync());
    let page = if written.is_ok() { sealed } else { SegmentPage { sealed: None, ..page } };
    log.segments[segment] = Segment::Used(page);
    page
}

/// The records of a segment: by its table, or record by record.
///
/// # Errors
///
/// What the device says.
pub(crate) fn entries(log: &Log, segment: usize, page: &SegmentPage) -> io::Result<Vec<Entry>> {
    match &page.sealed {
        Some(sealed) => {
            if sealed.fits(log.segment_bytes()) {
                let mut table = vec![0; sealed.entries as usize * ENTRY_BYTES];
                log.device.read(log.start_of(segment) + u64::from(sealed.table_offset), &mut table)?;
                if crc32c::crc32c(&table) == sealed.table_crc {
                    return Ok(table.chunks_exact(ENTRY_BYTES).filter_map(Entry::decode).collect());
                }
            }
            scan(log, segment, page)
        }
        None => scan(log, segment, page),
    }
}

/// Walks over the records of a segment. Where none begins, one is looked for at each unit: a damaged header costs
/// its own record. Bodies are not checked here but when they are read.
fn scan(log: &Log, segment: usize, page: &SegmentPage) -> io::Result<Vec<Entry>> {
    let (start, end) = (log.start_of(segment), log.segment_bytes() - PAGE_BYTES);
    let mut window = Window { device: &*log.device, start, end, at: 0, bytes: Vec::new() };
    let (mut entries, mut offset) = (Vec::new(), PAGE_BYTES);
    while offset + UNIT_BYTES <= end {
        let header = Header::decode(window.from(offset)?);
        let ours = |header: &Header| {
            let fits = offset + header.record_bytes() <= end && header.sequence < SEQUENCE_END;
            header.incarnation == page.incarnation && fits
        };
        match header.filter(ours) {
            Some(header) => {
                let bytes = header.record_bytes();
                let short = |number| u32::try_from(number).expect("a segment is below 4 GiB");
                let (at, length) = (short(offset), short(bytes));
                entries.push(Entry { key: header.key, sequence: header.sequence, offset: at, bytes: length });
                offset += bytes;
            }
            None => offset += UNIT_BYTES,
        }
    }
    Ok(entries)
}

/// A part of a segment, read in large pieces.
struct Window<'a> {
    device: &'a dyn Device,
    start: u64,
    end: u64,
    at: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// Bytes from `offset` on: enough for any header, or all there are.
    fn from(&mut self, offset: u64) -> io::Result<&[u8]> {
        let has = self.at + self.bytes.len() as u64;
        if offset < self.at || (offset + HEADERS_BYTES > has && has < self.end) {
            let length = WINDOW_BYTES.min(self.end - offset);
            self.bytes.resize(usize::try_from(length).unwrap_or(0), 0);
            self.at = offset;
            self.device.read(self.start + offset, &mut self.bytes)?;
        }
        Ok(&self.bytes[usize::try_from(offset - self.at).unwrap_or(0)..])
    }
}

fn used((at, segment): (usize, &Segment)) -> Option<(usize, SegmentPage)> {
    match segment {
        Segment::Free => None,
        Segment::Used(page) => Some((at, *page)),
    }
}

/// Fewest segments of a device: two open, two free, and some that hold something.
pub const SEGMENTS_MIN: u64 = 8;

/// Most segments of a device, 72 bytes of RAM each: 8 TiB of 8 MiB, the segments of a store that began with 8 GiB.
pub const SEGMENTS_MAX: u64 = 1 << 20;

/// Tables that are on their way from the device while one is taken in: without, each waits for the disk in pieces of
/// a few pages.
const TABLES_AHEAD: usize = 8;

/// Threads that read the segments' pages.
const PAGE_READERS: usize = 16;

/// Bytes that a scan reads at once.
const WINDOW_BYTES: u64 = 64 * 1024;

/// The longest header with its checksums.
const HEADERS_BYTES: u64 = (HEADER_BYTES + 4 * (BODY_BYTES_MAX / crate::store::format::CHUNK_BYTES)) as u64;

const RECORD_BYTES_MAX: u64 = record_bytes(META_BYTES_MAX, BODY_BYTES_MAX);

/// Sequences that a start leaves out.
const SEQUENCE_MARGIN: u64 = 1 << 20;
