//! Reading a held file: positioned reads, each block checked against its checksum.
//!
//! A block that is in the page cache is read in place with `preadv2(RWF_NOWAIT)`; only one that is not costs
//! the hop to a blocking thread, so a worker never waits for a disk.

use std::io::IoSliceMut;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::ReadWriteFlags;

use crate::fill::window::slice;
use crate::held::{HELD_BLOCK_BYTES, HeldFile};

/// Why a block cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The operating system refused.
    #[error("{0}")]
    Disk(#[from] std::io::Error),
    /// The bytes are not those that were stored.
    #[error("block {0} does not have its checksum")]
    Corrupt(u64),
}

/// The bytes at `position`, at most up to `end` and to the end of their block.
///
/// # Errors
///
/// When the block cannot be read or is not what was stored.
pub async fn read(held: &Arc<HeldFile>, position: u64, end: u64) -> Result<Bytes, VaultError> {
    let block = position / HELD_BLOCK_BYTES;
    let range = bytes_of(block, held.size);
    let bytes = match read_cached(held, &range) {
        Some(bytes) => bytes,
        None => {
            let held = Arc::clone(held);
            let read = tokio::task::spawn_blocking(move || read_blocking(&held, &range));
            read.await.map_err(std::io::Error::other)??
        }
    };
    let expected = usize::try_from(block).ok().and_then(|block| held.checksums.get(block));
    if expected != Some(&crc32c::crc32c(&bytes)) {
        return Err(VaultError::Corrupt(block));
    }
    let first = block * HELD_BLOCK_BYTES;
    Ok(slice(&Bytes::from(bytes), position - first, end - first))
}

fn bytes_of(block: u64, size: u64) -> Range<u64> {
    let start = block * HELD_BLOCK_BYTES;
    start..(start + HELD_BLOCK_BYTES).min(size)
}

/// All of the block if it can be had without waiting.
fn read_cached(held: &HeldFile, range: &Range<u64>) -> Option<Vec<u8>> {
    let mut buffer = buffer(range);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let read = rustix::io::preadv2(&held.file, &mut slices, held.offset + range.start, ReadWriteFlags::NOWAIT).ok()?;
    (read == buffer.len()).then_some(buffer)
}

fn read_blocking(held: &HeldFile, range: &Range<u64>) -> std::io::Result<Vec<u8>> {
    let mut buffer = buffer(range);
    std::os::unix::fs::FileExt::read_exact_at(&held.file, &mut buffer, held.offset + range.start)?;
    Ok(buffer)
}

fn buffer(range: &Range<u64>) -> Vec<u8> {
    vec![0; usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[tokio::test]
    async fn every_byte_is_checked() {
        let size = HELD_BLOCK_BYTES + 1000;
        let body: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let good = Arc::new(held(&body, &body));
        let read_at = |held: Arc<HeldFile>, position, end| async move { read(&held, position, end).await };
        assert_eq!(read_at(Arc::clone(&good), 10, 20).await.unwrap(), body[10..20]);
        let second = read_at(Arc::clone(&good), HELD_BLOCK_BYTES, size).await.unwrap();
        assert_eq!(second, body[HELD_BLOCK_BYTES as usize..]);
        assert_eq!(read_at(good, 0, size).await.unwrap().len() as u64, HELD_BLOCK_BYTES, "one block at most");

        let mut flipped = body.clone();
        flipped[HELD_BLOCK_BYTES as usize + 5] ^= 1;
        let bad = Arc::new(held(&body, &flipped));
        assert!(read_at(Arc::clone(&bad), 0, 10).await.is_ok());
        assert!(matches!(read_at(bad, HELD_BLOCK_BYTES, size).await, Err(VaultError::Corrupt(1))));

        let short = Arc::new(held(&body, &body[..size as usize - 1]));
        assert!(matches!(read_at(short, HELD_BLOCK_BYTES, size).await, Err(VaultError::Disk(_))));
    }

    fn held(stored: &[u8], on_disk: &[u8]) -> HeldFile {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(on_disk).unwrap();
        HeldFile {
            file,
            size: stored.len() as u64,
            offset: 0,
            checksums: stored.chunks(HELD_BLOCK_BYTES as usize).map(crc32c::crc32c).collect(),
            headers: http::HeaderMap::new(),
            stored_at: 0,
            mark: crate::purge::Mark::default(),
            tags: Box::default(),
        }
    }
}
