//! Bytes on a device, encoded and decoded; the shapes are drawn in [`crate::store`]. Pure. All numbers are little
//! endian, every structure carries a crc32c of its own.

use geo::ContentId;

use crate::store::policy::Queue;

/// The unit that structures at fixed places have to themselves, bytes; each holds two copies, half a page apart.
pub const PAGE_BYTES: u64 = 4096;

/// Where the first segment begins, bytes.
pub const SEGMENTS_START: u64 = 1 << 20;

/// Records begin at multiples of it, bytes.
pub const UNIT_BYTES: u64 = 64;

/// Bytes of a body that one checksum covers.
pub const CHUNK_BYTES: usize = 16 * 1024;

/// Longest body of a record, bytes.
pub const BODY_BYTES_MAX: usize = 4 << 20;

/// Longest metadata of a record, bytes.
pub const META_BYTES_MAX: usize = 256 << 10;

/// Bytes of a record's header before its checksums.
pub const HEADER_BYTES: usize = 68;

/// Bytes of an entry of a segment's table.
pub const ENTRY_BYTES: usize = 48;

/// Shortest and longest segment, bytes; each is a power of two. Other sizes are not a store of this program.
pub const SEGMENT_BYTES: std::ops::RangeInclusive<u32> = 64 << 10..=1 << 30;

/// Sequences on a device are below it. Writing a million records a second gets there in four years of nothing else;
/// what RAM holds of a sequence has twice the room.
pub const SEQUENCE_END: u64 = 1 << 47;

/// The version of all this.
pub const VERSION: u32 = 1;

/// The first page of a device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Superblock {
    /// Random; segments of another device, or of this one before it was made anew, do not carry it.
    pub device: u64,
    /// Bytes of a segment; how many there are follows from the device's bytes.
    pub segment_bytes: u32,
}

/// What the first pages of a device say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Opening {
    /// A store.
    Store(Superblock),
    /// Nothing but zeros in all that there is before [`SEGMENTS_START`].
    Blank,
    /// A store of another version of this program.
    Version(u32),
    /// Something else.
    Foreign,
}

/// The page that begins a segment, and (with `sealed`) the one that ends it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SegmentPage {
    /// See [`Superblock::device`].
    pub device: u64,
    /// Random for each use of the segment: records of an earlier use, and bytes of a body that look like a
    /// record, do not carry it.
    pub incarnation: u64,
    /// Order in which segments were begun.
    pub sequence: u64,
    /// The queue its records are in.
    pub queue: Queue,
    /// Its table, once it is sealed.
    pub sealed: Option<Sealed>,
}

/// Where a sealed segment's table is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sealed {
    /// From the segment's first byte.
    pub table_offset: u32,
    /// Entries of it.
    pub entries: u32,
    /// crc32c of all of it.
    pub table_crc: u32,
    /// Highest sequence of a record in it.
    pub last_sequence: u64,
}

/// What a record is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// A file's metadata, with the body of a small one.
    Head,
    /// A block of a large file.
    Block,
    /// Everything older of the content is forgotten.
    Tombstone,
}

/// Names a record.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Key {
    /// What it is.
    pub kind: Kind,
    /// The file.
    pub content: ContentId,
    /// The version of the file.
    pub generation: u64,
    /// Which block; 0 for others.
    pub index: u32,
}

/// The header of a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// Whose it is.
    pub key: Key,
    /// Order in which records were offered; kept when a record is moved. Below 2^48.
    pub sequence: u64,
    /// See [`SegmentPage::incarnation`].
    pub incarnation: u64,
    /// Length of the metadata, bytes.
    pub meta_bytes: u32,
    /// Length of the body, bytes.
    pub body_bytes: u32,
    /// crc32c of the metadata.
    pub meta_crc: u32,
}

/// An entry of a segment's table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Whose record it is.
    pub key: Key,
    /// See [`Header::sequence`].
    pub sequence: u64,
    /// From the segment's first byte, bytes.
    pub offset: u32,
    /// Length of the record with its padding, bytes.
    pub bytes: u32,
}

impl Superblock {
    /// The first two pages.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = SUPERBLOCK_MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.segment_bytes.to_le_bytes());
        bytes.extend(self.device.to_le_bytes());
        twice(bytes)
    }
}

impl Opening {
    /// Reads the first [`SEGMENTS_START`] bytes, or what there is of them. The first page alone tells of a store, but
    /// not that a device is blank: btrfs, ZFS, LVM and mdraid leave zeros there and begin behind it.
    #[must_use]
    pub fn decode(front: &[u8]) -> Self {
        if front.iter().all(|byte| *byte == 0) {
            return Self::Blank;
        }
        let Some(fields) = either(front, SUPERBLOCK_MAGIC, 24) else { return Self::Foreign };
        match u32_at(fields, 8) {
            VERSION => {
                let superblock = Superblock { segment_bytes: u32_at(fields, 12), device: u64_at(fields, 16) };
                let sane = superblock.segment_bytes.is_power_of_two();
                if sane && SEGMENT_BYTES.contains(&superblock.segment_bytes) {
                    Self::Store(superblock)
                } else {
                    Self::Foreign
                }
            }
            version => Self::Version(version),
        }
    }
}

impl SegmentPage {
    /// A page; with [`SegmentPage::sealed`] the one that ends a segment.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let magic = if self.sealed.is_some() { SEALED_MAGIC } else { SEGMENT_MAGIC };
        let mut bytes = magic.to_vec();
        bytes.extend(self.device.to_le_bytes());
        bytes.extend(self.incarnation.to_le_bytes());
        bytes.extend(self.sequence.to_le_bytes());
        bytes.extend(u64::from(self.queue == Queue::Main).to_le_bytes());
        if let Some(sealed) = &self.sealed {
            bytes.extend(sealed.table_offset.to_le_bytes());
            bytes.extend(sealed.entries.to_le_bytes());
            bytes.extend(sealed.last_sequence.to_le_bytes());
            bytes.extend(sealed.table_crc.to_le_bytes());
        }
        twice(bytes)
    }

    /// The page that begins a segment of `device`.
    #[must_use]
    pub fn decode_header(page: &[u8], device: u64) -> Option<Self> {
        Self::fields(either(page, SEGMENT_MAGIC, 40)?, device)
    }

    /// The page that ends a sealed segment of `device`.
    #[must_use]
    pub fn decode_footer(page: &[u8], device: u64) -> Option<Self> {
        let fields = either(page, SEALED_MAGIC, 60)?;
        let sealed = Sealed {
            table_offset: u32_at(fields, 40),
            entries: u32_at(fields, 44),
            last_sequence: u64_at(fields, 48),
            table_crc: u32_at(fields, 56),
        };
        let sane = sealed.last_sequence < SEQUENCE_END;
        let page = Self::fields(fields, device).filter(|_| sane)?;
        Some(Self { sealed: Some(sealed), ..page })
    }

    fn fields(fields: &[u8], device: u64) -> Option<Self> {
        let page = Self {
            device: u64_at(fields, 8),
            incarnation: u64_at(fields, 16),
            sequence: u64_at(fields, 24),
            queue: if u64_at(fields, 32) == 0 { Queue::Probation } else { Queue::Main },
            sealed: None,
        };
        (page.device == device && page.sequence < SEQUENCE_END).then_some(page)
    }
}

impl Sealed {
    /// Whether a table of so many entries ends where the footer of a segment of this length begins.
    #[must_use]
    pub fn fits(&self, segment_bytes: u64) -> bool {
        let table = u64::from(self.entries) * ENTRY_BYTES as u64;
        u64::from(self.table_offset) >= PAGE_BYTES && u64::from(self.table_offset) + table + PAGE_BYTES == segment_bytes
    }
}

impl Header {
    /// Header and checksums of a record with this metadata and body.
    #[must_use]
    pub fn encode(key: Key, sequence: u64, incarnation: u64, meta: &[u8], body: &[u8]) -> Vec<u8> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("offers are bounded").to_le_bytes();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + 4 * body.len().div_ceil(CHUNK_BYTES));
        bytes.extend(RECORD_MAGIC);
        bytes.extend([kind_code(key.kind), 0, 0, 0]);
        bytes.extend(key.content.as_bytes());
        bytes.extend(key.generation.to_le_bytes());
        bytes.extend(sequence.to_le_bytes());
        bytes.extend(incarnation.to_le_bytes());
        bytes.extend(key.index.to_le_bytes());
        bytes.extend(length(meta));
        bytes.extend(length(body));
        bytes.extend(crc32c::crc32c(meta).to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body.chunks(CHUNK_BYTES).flat_map(|chunk| crc32c::crc32c(chunk).to_le_bytes()));
        let crc = header_crc(&bytes);
        bytes[64..68].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at the start of `bytes`, which may go on; None: it is none, or cut, or damaged.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let fixed = bytes.get(..HEADER_BYTES).filter(|fixed| fixed[..4] == RECORD_MAGIC)?;
        let key = Key {
            kind: kind_of(fixed[4])?,
            content: content_at(fixed, 8),
            generation: u64_at(fixed, 24),
            index: u32_at(fixed, 48),
        };
        let header = Self {
            key,
            sequence: u64_at(fixed, 32),
            incarnation: u64_at(fixed, 40),
            meta_bytes: u32_at(fixed, 52),
            body_bytes: u32_at(fixed, 56),
            meta_crc: u32_at(fixed, 60),
        };
        let sane = header.meta_bytes as usize <= META_BYTES_MAX && header.body_bytes as usize <= BODY_BYTES_MAX;
        let whole = sane.then(|| bytes.get(..header.payload_at())).flatten()?;
        (header_crc(whole) == u32_at(whole, 64)).then_some(header)
    }

    /// Where the metadata begin, from the record's first byte.
    #[must_use]
    pub const fn payload_at(&self) -> usize {
        HEADER_BYTES + 4 * (self.body_bytes as usize).div_ceil(CHUNK_BYTES)
    }

    /// Where the body begins, from the record's first byte.
    #[must_use]
    pub const fn body_at(&self) -> usize {
        self.payload_at() + self.meta_bytes as usize
    }

    /// Bytes of the record with its padding.
    #[must_use]
    pub const fn record_bytes(&self) -> u64 {
        record_bytes(self.meta_bytes as usize, self.body_bytes as usize)
    }

    /// The checksum of a chunk, from the record's first bytes.
    #[must_use]
    pub fn checksum(record: &[u8], chunk: usize) -> u32 {
        u32_at(record, HEADER_BYTES + 4 * chunk)
    }

    /// Whether `bytes`, which begin with chunk `first`, have their checksums. `record` begins with the header.
    #[must_use]
    pub fn verifies(record: &[u8], first: usize, bytes: &[u8]) -> bool {
        let mut chunks = bytes.chunks(CHUNK_BYTES).enumerate();
        chunks.all(|(at, chunk)| crc32c::crc32c(chunk) == Self::checksum(record, first + at))
    }
}

/// Bytes of a record of this metadata and body with its padding.
#[must_use]
pub const fn record_bytes(meta_bytes: usize, body_bytes: usize) -> u64 {
    let exact = HEADER_BYTES + 4 * body_bytes.div_ceil(CHUNK_BYTES) + meta_bytes + body_bytes;
    (exact as u64).next_multiple_of(UNIT_BYTES)
}

impl Entry {
    /// Appends the entry to a table.
    pub fn encode(&self, table: &mut Vec<u8>) {
        table.extend(self.key.content.as_bytes());
        table.extend(self.key.generation.to_le_bytes());
        table.extend(self.sequence.to_le_bytes());
        table.extend(self.key.index.to_le_bytes());
        table.extend(self.offset.to_le_bytes());
        table.extend(self.bytes.to_le_bytes());
        table.extend([kind_code(self.key.kind), 0, 0, 0]);
    }

    /// Reads [`ENTRY_BYTES`].
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let key = Key {
            kind: kind_of(*bytes.get(44)?)?,
            content: content_at(bytes, 0),
            generation: u64_at(bytes, 16),
            index: u32_at(bytes, 32),
        };
        Some(Self { key, sequence: u64_at(bytes, 24), offset: u32_at(bytes, 36), bytes: u32_at(bytes, 40) })
    }
}

/// Fields, their crc, and the same again half a page later: one flipped bit does not cost a segment.
fn twice(mut fields: Vec<u8>) -> Vec<u8> {
    fields.extend(crc32c::crc32c(&fields).to_le_bytes());
    let mut page = vec![0; PAGE_BYTES as usize];
    page[..fields.len()].copy_from_slice(&fields);
    page[PAGE_BYTES as usize / 2..][..fields.len()].copy_from_slice(&fields);
    page
}

fn either<'a>(page: &'a [u8], magic: &[u8; 8], length: usize) -> Option<&'a [u8]> {
    let (first, second) = page.split_at_checked(PAGE_BYTES as usize / 2)?;
    [first, second]
        .into_iter()
        .filter_map(|copy| copy.get(..length + 4))
        .find(|copy| copy[..8] == *magic && crc32c::crc32c(&copy[..length]) == u32_at(copy, length))
}

fn header_crc(whole: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&whole[..64]), &whole[HEADER_BYTES..])
}

const fn kind_code(kind: Kind) -> u8 {
    match kind {
        Kind::Head => 1,
        Kind::Block => 2,
        Kind::Tombstone => 3,
    }
}

const fn kind_of(code: u8) -> Option<Kind> {
    match code {
        1 => Some(Kind::Head),
        2 => Some(Kind::Block),
        3 => Some(Kind::Tombstone),
        _ => None,
    }
}

fn content_at(bytes: &[u8], at: usize) -> ContentId {
    ContentId::from_bytes(bytes[at..at + 16].try_into().expect("16 bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

const SUPERBLOCK_MAGIC: &[u8; 8] = b"SUNSTORE";
const SEGMENT_MAGIC: &[u8; 8] = b"SUNSEGMT";
const SEALED_MAGIC: &[u8; 8] = b"SUNSEALD";
const RECORD_MAGIC: [u8; 4] = *b"SREC";
