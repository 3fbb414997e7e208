//! The format of a stored file: the body, then what is known about it.
//!
//! ```text
//!   byte 0
//!   +----------------------------------------------------------------------------+
//!   | body                                                          `size` bytes |
//!   +----------------------------------------------------------------------------+  <- record, `record_bytes`
//!   | name_bytes  u16 | name: canonical name, UTF-8, `name_bytes` bytes          |
//!   | stored_at   u64   seconds since 1970                                       |
//!   | mark        u64 | u64   purges gone by when its fetch began: log, direct   |
//!   | tags        u16 | hashes of its tags: `tags` times u64                     |
//!   | blocks      u32 | crc32c of each 256 KiB of the body: `blocks` times u32   |
//!   | headers     u16 | `headers` times:                                         |
//!   |                     name_bytes  u16 | name, lower case, `name_bytes` bytes |
//!   |                     value_bytes u16 | value, `value_bytes` bytes           |
//!   +----------------------------------------------------------------------------+  <- trailer, 32 bytes
//!   | size          u64                                                          |
//!   | record_bytes  u32                                                          |
//!   | version       u32   2                                                      |
//!   | checksum      u32   crc32c of the record and the 16 bytes of the trailer   |
//!   |                     before this                                            |
//!   | zero          u32   0                                                      |
//!   | magic     8 bytes   "SUNVAULT"                                             |
//!   +----------------------------------------------------------------------------+  end of file
//! ```
//!
//! Version 1, still read, has neither mark nor tags: such a file is as old as can be and has, for all that is known, every
//! tag.
//!
//! Numbers are little-endian. The length of the file is exactly `size + record_bytes + 32`.
//!
//! # Why a torn file is never taken for a whole one
//!
//! The trailer is the last thing written, and it states the length of everything before it: a file that was cut
//! anywhere has no trailer at its end, or one that contradicts its length. A record that was changed fails its
//! checksum. A body that was changed fails its block's checksum, which is compared when the block is read.
//!
//! Why a trailer and not a header: the checksums are known when the body has been written, and the body begins
//! at byte 0, aligned for whoever reads it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use geo::CanonicalName;
use http::{HeaderMap, HeaderName, HeaderValue};
use popularity_api::purge::target::ANY_TAG;
use sun::held::HELD_BLOCK_BYTES;
use sun::purge::Mark;

/// What is known about a stored file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Record {
    /// Its canonical name.
    pub name: CanonicalName,
    /// Length of the body, bytes.
    pub size: u64,
    /// When it was fetched, seconds since 1970.
    pub stored_at: u64,
    /// The last purge that was gone by when its fetch began.
    pub mark: Mark,
    /// Hashes of its tags.
    pub tags: Box<[u64]>,
    /// crc32c of each block of the body.
    pub checksums: Arc<[u32]>,
    /// Kept response headers.
    pub headers: PackedHeaders,
}

impl Record {
    /// Record and trailer, as they follow the body.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + 4 * self.checksums.len());
        put_bytes(&mut out, self.name.as_str().as_bytes());
        out.extend_from_slice(&self.stored_at.to_le_bytes());
        out.extend_from_slice(&self.mark.to_bytes());
        let tags = u16::try_from(self.tags.len()).expect("a response has at most TAGS_MAX tags");
        out.extend_from_slice(&tags.to_le_bytes());
        self.tags.iter().for_each(|tag| out.extend_from_slice(&tag.to_le_bytes()));
        let blocks = u32::try_from(self.checksums.len()).expect("a file has at most FILE_BYTES_MAX bytes");
        out.extend_from_slice(&blocks.to_le_bytes());
        for checksum in &*self.checksums {
            out.extend_from_slice(&checksum.to_le_bytes());
        }
        out.extend_from_slice(&self.headers.0);
        let record_bytes = u32::try_from(out.len()).expect("a record has at most RECORD_BYTES_MAX bytes");
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&record_bytes.to_le_bytes());
        out.extend_from_slice(&VERSION.to_le_bytes());
        let checksum = crc32c::crc32c(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(&0_u32.to_le_bytes());
        out.extend_from_slice(MAGIC);
        out
    }

    /// Reads record and trailer of a stored file; its body is not looked at.
    pub(crate) fn read(file: &File) -> Result<Self, ReadError> {
        let length = file.metadata()?.len();
        let at = length.checked_sub(TRAILER_BYTES).ok_or(ReadError::Bad("is shorter than a trailer"))?;
        let mut trailer = [0; TRAILER_BYTES as usize];
        file.read_exact_at(&mut trailer, at)?;
        let trailer = Trailer::decode(&trailer)?;
        let record_bytes = u64::from(trailer.record_bytes);
        if trailer.record_bytes > RECORD_BYTES_MAX || trailer.size > FILE_BYTES_MAX {
            return Err(ReadError::Bad("has a trailer that states an impossible size"));
        }
        if trailer.size + record_bytes != at {
            return Err(ReadError::Bad("is not as long as its trailer says"));
        }
        let mut bytes = vec![0; trailer.record_bytes as usize];
        file.read_exact_at(&mut bytes, trailer.size)?;
        if crc32c::crc32c_append(crc32c::crc32c(&bytes), &trailer.checked) != trailer.checksum {
            return Err(ReadError::Bad("has a record that fails its checksum"));
        }
        Self::decode(&bytes, trailer.size, trailer.version).ok_or(ReadError::Bad("has a record that cannot be read"))
    }

    fn decode(bytes: &[u8], size: u64, version: u32) -> Option<Self> {
        let mut rest = bytes;
        let name = std::str::from_utf8(take_bytes(&mut rest)?).ok()?;
        let canonical = CanonicalName::from_written(name).ok()?;
        let stored_at = u64::from_le_bytes(take(&mut rest)?);
        let (mark, tags) = match version {
            1 => (Mark::default(), [ANY_TAG].into()),
            _ => {
                let mark = Mark::from_bytes(take(&mut rest)?);
                let count = u16::from_le_bytes(take(&mut rest)?);
                let tags = (0..count).map(|_| take(&mut rest).map(u64::from_le_bytes)).collect::<Option<_>>()?;
                (mark, tags)
            }
        };
        let blocks = u32::from_le_bytes(take(&mut rest)?);
        if u64::from(blocks) != blocks_of(size) {
            return None;
        }
        let checksums = (0..blocks).map(|_| take(&mut rest).map(u32::from_le_bytes)).collect::<Option<_>>()?;
        let headers = PackedHeaders(rest.into());
        headers.try_unpack()?;
        Some(Self { name: canonical, size, stored_at, mark, tags, checksums, headers })
    }
}

/// Kept headers as the record has them: a hundred bytes a file in RAM, where a `HeaderMap` is a thousand.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PackedHeaders(Box<[u8]>);

impl PackedHeaders {
    /// Packs headers; a value of more than [`HEADER_VALUE_BYTES_MAX`] bytes is left out, and so is whatever
    /// comes after [`HEADERS_MAX`].
    pub(crate) fn pack(headers: &HeaderMap) -> Self {
        let kept: Vec<_> =
            headers.iter().filter(|(_, value)| value.len() <= HEADER_VALUE_BYTES_MAX).take(HEADERS_MAX).collect();
        let mut out = Vec::new();
        out.extend_from_slice(&u16::try_from(kept.len()).expect("at most HEADERS_MAX").to_le_bytes());
        for (name, value) in kept {
            put_bytes(&mut out, name.as_str().as_bytes());
            put_bytes(&mut out, value.as_bytes());
        }
        Self(out.into())
    }

    /// The headers.
    pub(crate) fn unpack(&self) -> HeaderMap {
        self.try_unpack().expect("checked when the record was read, or packed by this process")
    }

    fn try_unpack(&self) -> Option<HeaderMap> {
        let mut rest = &*self.0;
        let count = u16::from_le_bytes(take(&mut rest)?);
        let mut headers = HeaderMap::with_capacity(usize::from(count).min(HEADERS_MAX));
        for _ in 0..count {
            let name = HeaderName::from_lowercase(take_bytes(&mut rest)?).ok()?;
            headers.append(name, HeaderValue::from_bytes(take_bytes(&mut rest)?).ok()?);
        }
        rest.is_empty().then_some(headers)
    }
}

/// Why a stored file is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// It is torn, short or changed: it is dropped.
    #[error("{0}")]
    Bad(&'static str),
    /// The disk does not give it out: it is left alone.
    #[error("cannot be read: {0}")]
    Disk(#[from] io::Error),
}

struct Trailer {
    size: u64,
    record_bytes: u32,
    version: u32,
    checksum: u32,
    /// What the checksum covers besides the record.
    checked: [u8; 16],
}

impl Trailer {
    fn decode(bytes: &[u8; TRAILER_BYTES as usize]) -> Result<Self, ReadError> {
        let bad = ReadError::Bad("does not end in a trailer");
        let mut rest = &bytes[..];
        let Some(checked) = take::<16>(&mut rest) else { return Err(bad) };
        let (Some(checksum), Some(zero), MAGIC) = (take(&mut rest), take(&mut rest), rest) else { return Err(bad) };
        let mut fields = &checked[..];
        let (Some(size), Some(record_bytes), Some(version)) = (take(&mut fields), take(&mut fields), take(&mut fields))
        else {
            return Err(bad);
        };
        let version = u32::from_le_bytes(version);
        if !(1..=VERSION).contains(&version) || u32::from_le_bytes(zero) != 0 {
            return Err(ReadError::Bad("is of a version that this program does not know"));
        }
        Ok(Self {
            size: u64::from_le_bytes(size),
            record_bytes: u32::from_le_bytes(record_bytes),
            version,
            checksum: u32::from_le_bytes(checksum),
            checked,
        })
    }
}

/// Blocks of a body.
pub(crate) const fn blocks_of(size: u64) -> u64 {
    size.div_ceil(HELD_BLOCK_BYTES)
}

/// Disk that a file of `size` bytes is counted with: body, checksums and record, in whole 4 KiB pages.
#[must_use]
pub const fn footprint(size: u64) -> u64 {
    let size = if size > FILE_BYTES_MAX { FILE_BYTES_MAX } else { size };
    (size + 4 * blocks_of(size) + RECORD_BYTES_USUAL).next_multiple_of(4096)
}

/// Largest file, bytes: 1 TiB.
pub const FILE_BYTES_MAX: u64 = 1 << 40;

/// Kept headers of a file.
const HEADERS_MAX: usize = 32;

/// Longest value of a kept header, bytes.
const HEADER_VALUE_BYTES_MAX: usize = 2048;

/// Checksums of the largest file, name and headers.
const RECORD_BYTES_MAX: u32 = 4 * (FILE_BYTES_MAX / HELD_BLOCK_BYTES) as u32 + (1 << 20);

/// What name, headers and trailer are counted with, bytes.
const RECORD_BYTES_USUAL: u64 = 1024;

const TRAILER_BYTES: u64 = 32;
const VERSION: u32 = 2;
const MAGIC: &[u8] = b"SUNVAULT";

/// A length and that many bytes.
fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).expect("names and kept values are shorter than 64 KiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u16::from_le_bytes(take(rest)?);
    let (bytes, after) = rest.split_at_checked(usize::from(length))?;
    *rest = after;
    Some(bytes)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    /// Do not update these bytes: a change here empties every vault at once. A new layout is a new version.
    #[test]
    fn the_format_never_changes() {
        let expected: &[&[u8]] = &[
            b"hello",
            b"\x09\x00c1/a/b.js",
            &[0x00, 0xf1, 0x53, 0x65, 0, 0, 0, 0], // 1,700,000,000
            &[7, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0, 0, 0, 0, 0],
            b"\x02\x00",
            &[9, 0, 0, 0, 0, 0, 0, 0],
            &[10, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0],
            &[0x4c, 0xbb, 0x71, 0x9a],
            b"\x02\x00",
            b"\x0c\x00content-type\x0f\x00text/javascript",
            b"\x04\x00etag\x05\x00\"1-2\"",
            &[5, 0, 0, 0, 0, 0, 0, 0],
            &[107, 0, 0, 0],
            &[2, 0, 0, 0],
            &[0x85, 0xff, 0xec, 0x5c],
            &[0, 0, 0, 0],
            b"SUNVAULT",
        ];
        let stored = [b"hello".to_vec(), example().encode()].concat();
        assert_eq!(hex(&stored), hex(&expected.concat()));
    }

    /// Do not update these bytes either: vaults are full of them.
    #[test]
    fn a_file_of_the_first_version_is_read_as_one_of_unknown_age_and_tags() {
        let expected: &[&[u8]] = &[
            b"hello",
            b"\x09\x00c1/a/b.js",
            &[0x00, 0xf1, 0x53, 0x65, 0, 0, 0, 0], // 1,700,000,000
            &[1, 0, 0, 0],
            &[0x4c, 0xbb, 0x71, 0x9a],
            b"\x02\x00",
            b"\x0c\x00content-type\x0f\x00text/javascript",
            b"\x04\x00etag\x05\x00\"1-2\"",
            &[5, 0, 0, 0, 0, 0, 0, 0],
            &[73, 0, 0, 0],
            &[1, 0, 0, 0],
            &[0x68, 0x4b, 0x28, 0x27],
            &[0, 0, 0, 0],
            b"SUNVAULT",
        ];
        let record = Record { mark: Mark::default(), tags: [ANY_TAG].into(), ..example() };
        assert_eq!(read(&expected.concat()).unwrap(), record);
    }

    #[test]
    fn what_was_written_is_read() {
        for size in [0, 1, HELD_BLOCK_BYTES, HELD_BLOCK_BYTES + 1, 3 * HELD_BLOCK_BYTES] {
            let checksums = (0..blocks_of(size)).map(|block| u32::try_from(block).unwrap()).collect();
            let record = Record { size, checksums, ..example() };
            let body = vec![7; usize::try_from(size).unwrap()];
            assert_eq!(read(&[body, record.encode()].concat()).unwrap(), record);
        }
    }

    #[test]
    fn headers_survive_and_excessive_ones_are_left_out() {
        let mut headers = HeaderMap::new();
        headers.append("cache-control", HeaderValue::from_static("public"));
        headers.append("cache-control", HeaderValue::from_static("max-age=60"));
        headers.append("content-disposition", HeaderValue::from_bytes(b"attachment; filename=\"\xe4\"").unwrap());
        assert_eq!(PackedHeaders::pack(&headers).unpack(), headers);
        let mut excessive = headers.clone();
        excessive.append("etag", HeaderValue::from_str(&"x".repeat(HEADER_VALUE_BYTES_MAX + 1)).unwrap());
        assert_eq!(PackedHeaders::pack(&excessive).unpack(), headers);
    }

    #[test]
    fn the_name_must_be_one() {
        let bytes = example().encode();
        let at = bytes.windows(8).position(|window| window == b"c1/a/b.j").unwrap();
        let record_bytes = bytes.len() - usize::try_from(TRAILER_BYTES).unwrap();
        let mut record = bytes[..record_bytes].to_vec();
        record[at + 3] = b' ';
        assert_eq!(Record::decode(&record, 5, VERSION), None);
    }

    #[test]
    fn a_footprint_counts_body_checksums_and_record() {
        assert_eq!(footprint(0), 4096);
        assert_eq!(footprint(3000), 4096);
        assert_eq!(footprint(3072), 8192);
        assert_eq!(footprint(1 << 30), (1 << 30) + 20480);
        assert!(footprint(u64::MAX) > FILE_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn a_file_that_was_cut_is_refused(cut in 0_usize..90) {
            let stored = stored();
            let cut = cut % stored.len();
            prop_assert!(matches!(read(&stored[..cut]), Err(ReadError::Bad(_))));
            prop_assert!(matches!(read(&stored[cut + 1..]), Err(ReadError::Bad(_))));
        }

        #[test]
        fn a_changed_record_is_refused(at in 5_usize..200, flip in 1_u8..=255) {
            let mut stored = stored();
            let at = 5 + at % (stored.len() - 5);
            stored[at] ^= flip;
            prop_assert!(matches!(read(&stored), Err(ReadError::Bad(_))), "byte {at}");
        }

        #[test]
        fn garbage_is_refused(garbage: Vec<u8>) {
            prop_assert!(matches!(read(&garbage), Err(ReadError::Bad(_))));
            prop_assert!(matches!(read(&[garbage, MAGIC.to_vec()].concat()), Err(ReadError::Bad(_))));
        }
    }

    fn example() -> Record {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("text/javascript"));
        headers.insert("etag", HeaderValue::from_static("\"1-2\""));
        Record {
            name: CanonicalName::parse("c1/a/b.js").unwrap(),
            size: 5,
            stored_at: 1_700_000_000,
            mark: Mark { log: 7, direct: 2 },
            tags: [9, 10].into(),
            checksums: [crc32c::crc32c(b"hello")].into(),
            headers: PackedHeaders::pack(&headers),
        }
    }

    fn stored() -> Vec<u8> {
        [b"hello".to_vec(), example().encode()].concat()
    }

    fn read(bytes: &[u8]) -> Result<Record, ReadError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Record::read(&file)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.chunks(16).map(|row| row.iter().map(|byte| format!("{byte:02x} ")).collect::<String>() + "\n").collect()
    }
}
