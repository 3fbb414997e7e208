//! The last state, on disk: what links are made from when a replica starts while its primary is away.
//!
//! ```text
//!   DATA/state/links              KeptLinks, each few seconds
//!   DATA/state/holdings-NAME      wire::CacheHoldings, whole, of each cache
//!
//!   file:   "SUNKEPT1" | crc32c u32, little-endian, of the rest | JSON
//! ```
//!
//! Files are replaced as a whole; one that is damaged counts as none, and costs what it held until the primary answers.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::engine::folder::{Disk, Folder};
use crate::wire::{CacheHoldings, LinkState};

/// Where the last state is.
#[derive(Debug)]
pub struct Kept {
    folder: Disk,
}

/// What links are made from, but for holdings and purges.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct KeptLinks {
    /// The state.
    pub state: LinkState,
    /// Its moment on the primary's scale.
    pub now_ms: u64,
    /// When it was heard, milliseconds since 1970.
    pub heard_ms: u64,
}

impl Kept {
    /// Opens the folder, making it if need be.
    ///
    /// # Errors
    ///
    /// What the operating system says, or that another process has it.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { folder: Disk::open(path)? })
    }

    /// The last state; nothing when there is none that can be read.
    #[must_use]
    pub fn links(&self) -> Option<KeptLinks> {
        self.read(LINKS)
    }

    /// What each cache held, by name.
    #[must_use]
    pub fn holdings(&self) -> Vec<(String, CacheHoldings)> {
        let names = self.folder.list().unwrap_or_default();
        let caches = names.iter().filter_map(|file| file.strip_prefix(HOLDINGS));
        caches.filter_map(|cache| Some((cache.to_owned(), self.read(&format!("{HOLDINGS}{cache}"))?))).collect()
    }

    /// Keeps the state.
    ///
    /// # Errors
    ///
    /// What the operating system says; the one before is kept then.
    pub fn keep_links(&self, links: &KeptLinks) -> io::Result<()> {
        self.write(LINKS, links)
    }

    /// Keeps what a cache holds, as a whole.
    ///
    /// # Errors
    ///
    /// What the operating system says; what it held before is kept then.
    pub fn keep_holdings(&self, cache: &str, holdings: &CacheHoldings) -> io::Result<()> {
        // Names of servers are host names; anything else would be a path.
        if cache.is_empty() || !cache.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{cache:?} is no name of a cache")));
        }
        self.write(&format!("{HOLDINGS}{cache}"), holdings)
    }

    /// Forgets caches that are not among these.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn keep_only(&self, caches: &BTreeSet<String>) -> io::Result<()> {
        for file in self.folder.list()? {
            if file.strip_prefix(HOLDINGS).is_some_and(|cache| !caches.contains(cache)) {
                self.folder.remove(&file)?;
            }
        }
        Ok(())
    }

    fn read<T: DeserializeOwned>(&self, file: &str) -> Option<T> {
        let bytes = self.folder.read(file).ok()?;
        let read = open(&bytes);
        if read.is_none() {
            tracing::warn!(file, "the last state is damaged or of another build: it counts as none");
        }
        read
    }

    fn write(&self, file: &str, value: &impl Serialize) -> io::Result<()> {
        self.folder.replace(file, &seal(value)?)
    }
}

fn seal(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend([0; 4]);
    serde_json::to_writer(&mut bytes, value)?;
    let checksum = crc32c::crc32c(&bytes[MAGIC.len() + 4..]);
    bytes[MAGIC.len()..MAGIC.len() + 4].copy_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

fn open<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (checksum, json) = bytes.strip_prefix(MAGIC)?.split_first_chunk()?;
    (u32::from_le_bytes(*checksum) == crc32c::crc32c(json)).then(|| serde_json::from_slice(json).ok())?
}

const MAGIC: &[u8] = b"SUNKEPT1";
const LINKS: &str = "links";
const HOLDINGS: &str = "holdings-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_there_after_a_restart_and_no_damage_is() {
        let place = tempfile::tempdir().unwrap();
        let links = KeptLinks { now_ms: 7, heard_ms: 8, ..KeptLinks::default() };
        let held = |name: &str| CacheHoldings {
            generation: 5,
            since: None,
            added: vec![name.to_owned()],
            removed: Vec::new(),
            next: None,
        };
        let kept = Kept::open(place.path()).unwrap();
        assert_eq!((kept.links(), kept.holdings()), (None, vec![]));
        kept.keep_links(&links).unwrap();
        kept.keep_holdings("cache4-1", &held("c1/a")).unwrap();
        kept.keep_holdings("cache4-2", &held("c1/b")).unwrap();
        kept.keep_holdings("../cache", &held("c1/b")).unwrap_err();
        drop(kept);
        let kept = Kept::open(place.path()).unwrap();
        assert_eq!(kept.links(), Some(links));
        assert_eq!(kept.holdings().len(), 2);
        kept.keep_only(&BTreeSet::from(["cache4-2".to_owned()])).unwrap();
        assert_eq!(kept.holdings(), [("cache4-2".to_owned(), held("c1/b"))]);
        let file = place.path().join(LINKS);
        let whole = std::fs::read(&file).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            assert_eq!(open::<KeptLinks>(&flipped), None, "byte {at}");
            assert_eq!(open::<KeptLinks>(&whole[..at]), None, "cut at {at}");
        }
        std::fs::write(&file, &whole[1..]).unwrap();
        assert_eq!(kept.links(), None);
    }
}
