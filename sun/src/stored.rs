//! RAM and store together: what is kept goes to both, what is not found in RAM comes from the store.
//!
//! ```text
//!   a fill keeps ---> RAM, always           a request looks ---> RAM --absent--> store: head, small file
//!                \--> store, if this sun is the file's          \                       |
//!                     owner (or one of those that spread it)     \              RAM, if nothing came meanwhile
//!   an extent that is read from the store a second time goes to RAM too; before that the page cache is enough
//!
//!   a hit in RAM, one in 16 ---> store: a hit of it as well, or an offer (by an owner) if it is not there
//! ```
//!
//! Without the last line the log would take what RAM answers for what nobody asks for, and reclaim it: a crash would
//! lose the hottest files, and nothing else. Every hit instead of some would cost each of them a lock.
//!
//! A version that is forgotten or replaced in RAM is forgotten in the store, so that it never comes back. Variants
//! (`Vary`) and notes are kept in RAM alone: what tells them apart is known there alone.

use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use geo::{CanonicalName, ContentId};

use crate::caching::vary;
use crate::edge::Edge;
use crate::extent::{self, EXTENT_BYTES};
use crate::meta::Meta;
use crate::purge::Verdict;
use crate::ram::{Head, Known};
use crate::store::{Offered, Store, StoredHead, meta_codec};

/// Where what is kept goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keep {
    /// RAM.
    Ram,
    /// RAM, and the store if it admits it.
    Store,
}

impl Edge {
    /// Where a file goes: to the store on the suns that keep it (DESIGN, "Owner first").
    #[must_use]
    pub fn keep(&self, name: &CanonicalName, content: ContentId, site: Option<&str>) -> Keep {
        if self.store.is_configured() && self.keeps(name, content, site) { Keep::Store } else { Keep::Ram }
    }

    /// What the store knows of a slot of which RAM knows nothing; RAM knows it from then on. Nothing when it was purged
    /// hard, a stale copy when it was purged softly.
    pub async fn recall(&self, name: &CanonicalName, content: ContentId, slot: ContentId) -> Option<Known> {
        let stored = self.store.head(slot).wait().await?;
        let Some(head) = head_of(stored) else {
            // Of another version of this program, or what should not have been written.
            self.store.forget(slot);
            return None;
        };
        let verdict = self.purges.of(name, content, head.meta());
        self.metrics.purge_found(verdict);
        match verdict {
            Verdict::Gone => {
                self.store.forget(slot);
                None
            }
            Verdict::Current => {
                self.keep_recalled(slot, head.clone());
                Some(Known::File(head))
            }
            Verdict::Stale => {
                // RAM judges it again by its mark.
                self.keep_recalled(slot, head.clone());
                Some(Known::File(head.stale()))
            }
        }
    }

    fn keep_recalled(&self, slot: ContentId, head: Head) {
        self.ram.keep_if_absent(slot, head);
        if !self.store.has_head(slot) {
            // It was forgotten while it was read.
            self.ram.forget(slot);
        }
    }

    /// Keeps a whole small file.
    pub fn keep_small(&self, slot: ContentId, meta: Arc<Meta>, body: Bytes, keep: Keep) {
        self.store_head(slot, &meta, body.clone(), keep);
        self.ram.keep_small(slot, meta, body);
    }

    /// Keeps the metadata of a large file.
    pub fn keep_large(&self, slot: ContentId, meta: Arc<Meta>, keep: Keep) {
        self.store_head(slot, &meta, Bytes::new(), keep);
        self.ram.keep_large(slot, meta);
    }

    /// Keeps an extent of a large file.
    pub fn keep_extent(&self, slot: ContentId, generation: u64, index: u32, bytes: Bytes, keep: Keep) {
        if keep == Keep::Store {
            let _ = self.store.offer_block(slot, generation, index, bytes.clone());
        }
        self.ram.keep_extent(slot, generation, index, bytes);
    }

    /// The version that is held was found current: its metadata are replaced, its bytes stay.
    pub fn refresh(&self, slot: ContentId, meta: Arc<Meta>) {
        let generation = meta.generation;
        self.ram.refresh(slot, meta);
        if !self.store.has_head(slot) {
            return;
        }
        let held = self.ram.head(slot).filter(|head| head.meta().generation == generation);
        match held {
            Some(Head::Large { meta }) => self.store_head(slot, &meta, Bytes::new(), Keep::Store),
            // A larger one is not worth the wear: should RAM lose it, it is asked about once more.
            Some(Head::Small { meta, body }) if body.len() <= REWRITTEN_BYTES_MAX => {
                self.store_head(slot, &meta, body, Keep::Store);
            }
            Some(Head::Small { .. }) | None => {}
        }
    }

    /// Forgets a slot in RAM and store.
    pub fn forget(&self, slot: ContentId) {
        // In this order: who recalls it meanwhile looks at the store once more.
        self.unstore(slot);
        self.ram.forget(slot);
    }

    /// Forgets a slot if this is still the version that is held.
    pub fn forget_version(&self, slot: ContentId, generation: u64) {
        let replaced = self.ram.head(slot).is_some_and(|head| head.meta().generation != generation);
        if !replaced {
            self.forget(slot);
        }
    }

    /// What the slot has in the store is not to come back.
    pub fn unstore(&self, slot: ContentId) {
        // What is not known yet is on a device that is still being read, or that stands aside.
        if self.store.has_head(slot) || !self.store.knows_all() {
            self.store.forget(slot);
        }
    }

    /// Whether an extent of a large file is in RAM or store. Counts as no use of it.
    #[must_use]
    pub fn has_extent(&self, slot: ContentId, generation: u64, index: u32) -> bool {
        self.ram.has_extent(slot, generation, index) || self.store.has_block(slot, generation, index)
    }

    /// Bytes of a large file from the store: from `position` up to `end` or the end of their extent.
    pub async fn read_store(&self, slot: ContentId, generation: u64, position: u64, end: u64) -> Option<Bytes> {
        let index = extent::index_of(position);
        let first = extent::start_of(index);
        let range = position - first..(end - first).min(EXTENT_BYTES);
        let hits = self.store.hits(slot, generation, index);
        let bytes = self.store.block(slot, generation, index, range.clone()).wait().await?;
        if hits > 0 && range == (0..EXTENT_BYTES) && bytes.len() as u64 == EXTENT_BYTES {
            self.ram.keep_extent(slot, generation, index, bytes.clone());
        }
        Some(bytes).filter(|bytes| !bytes.is_empty())
    }

    /// RAM has answered with a file, or with an extent of it: some of such hits are told to the store.
    pub fn hit_in_ram(
        &self,
        (name, content, site): (&CanonicalName, ContentId, Option<&str>),
        slot: ContentId,
        extent: Option<Extent<'_>>,
    ) {
        if !self.store.is_configured() || !SAMPLER.with(Sampler::chooses) {
            return;
        }
        let Some(head) = self.ram.head(slot) else { return };
        let variant = || slot != content && slot != vary::slot(content);
        let offered = touch(&self.store, slot, &head, extent, || !variant() && self.keeps(name, content, site));
        // Who forgot it meanwhile may have looked at the store before it was there.
        let same = || self.ram.head(slot).is_some_and(|now| now.meta().generation == head.meta().generation);
        if offered && !same() {
            self.unstore(slot);
        }
    }

    /// Offers a head, or has what it replaces forgotten.
    fn store_head(&self, slot: ContentId, meta: &Meta, body: Bytes, keep: Keep) {
        match meta_codec::encode(meta).filter(|_| keep == Keep::Store) {
            Some(bytes) => {
                let _ = self.store.offer_head(slot, meta.generation, bytes.into(), body);
            }
            None => self.unstore(slot),
        }
    }
}

/// An extent of a large file, in RAM.
#[derive(Clone, Copy, Debug)]
pub struct Extent<'a> {
    /// The version of the file.
    pub generation: u64,
    /// Which of its extents.
    pub index: u32,
    /// All of its bytes.
    pub bytes: &'a Bytes,
}

/// Counts a hit of what RAM has, or offers what the store does not have if this sun `keeps` it; whether it took
/// anything. An extent is of no use without its file's head: that is touched too.
fn touch(store: &Store, slot: ContentId, head: &Head, extent: Option<Extent<'_>>, keeps: impl Fn() -> bool) -> bool {
    let (meta, body) = match head {
        Head::Small { meta, body } => (meta, body.clone()),
        Head::Large { meta } => (meta, Bytes::new()),
    };
    let mut stored = false;
    if !store.touch_head(slot)
        && keeps()
        && let Some(bytes) = meta_codec::encode(meta)
    {
        stored |= store.offer_head_again(slot, meta.generation, bytes.into(), body) == Offered::Stored;
    }
    if let Some(Extent { generation, index, bytes }) = extent
        && generation == meta.generation
        && meta.size.is_some_and(|size| size > EXTENT_BYTES)
        && !store.touch_block(slot, generation, index)
        && keeps()
    {
        stored |= store.offer_block_again(slot, generation, index, bytes.clone()) == Offered::Stored;
    }
    stored
}

/// Chooses one hit in [`HITS_PER_TOUCH`]: the high bits of a linear congruential sequence (Knuth's MMIX), so that no
/// pattern of requests hides a file from it as every 16th would hide 15 of 16 extents. One a thread: no lock, no cache
/// line that cores pass around.
#[derive(Debug)]
struct Sampler(Cell<u64>);

impl Sampler {
    const fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    fn chooses(&self) -> bool {
        let next = self.0.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0.set(next);
        next < u64::MAX / HITS_PER_TOUCH
    }
}

thread_local! {
    static SAMPLER: Sampler = const { Sampler::new(0x9e37_79b9_7f4a_7c15) };
}

/// Hits in RAM of which the store hears of one; `tests/bench/cache` runs with as many.
const HITS_PER_TOUCH: u64 = 16;

fn head_of(stored: StoredHead) -> Option<Head> {
    let meta = Arc::new(meta_codec::decode(&stored.meta, stored.generation)?);
    let size = meta.size?;
    if size > EXTENT_BYTES {
        return stored.body.is_empty().then_some(Head::Large { meta });
    }
    (size == stored.body.len() as u64).then_some(Head::Small { meta, body: stored.body })
}

/// A small file up to this size is written again when its metadata are, bytes.
const REWRITTEN_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::policy::Settings;
    use crate::store::{Lookup, StoreConfig};

    #[tokio::test]
    async fn what_ram_answers_survives_the_log_and_a_restart() {
        // Heads and blocks of other files go through the log five times; RAM answers with two files all the while.
        let survivors = async |touched: bool| {
            let directory = tempfile::tempdir().unwrap();
            let store = open(directory.path());
            let (small, large) = (head(1000), head(2 * EXTENT_BYTES));
            let bytes = Bytes::from(vec![7; EXTENT_BYTES as usize]);
            let extent = Extent { generation: 4, index: 1, bytes: &bytes };
            for number in 0..200 {
                if touched && number % 4 == 0 {
                    touch(&store, id(1), &small, None, || true);
                    touch(&store, id(2), &large, Some(extent), || true);
                }
                while store.offer_block(id(3), 1, number, bytes.clone()) == Offered::QueueFull {
                    tokio::task::yield_now().await;
                }
            }
            store.close();
            drop(store);
            let store = open(directory.path());
            while !store.ready() {
                tokio::task::yield_now().await;
            }
            let block = store.block(id(2), 4, 1, 0..u64::MAX).wait().await;
            let found = store.head(id(1)).wait().await.and_then(head_of);
            (found.map(|head| head.meta().size), store.head(id(2)).wait().await.is_some(), block == Some(bytes))
        };
        assert_eq!(survivors(true).await, (Some(Some(1000)), true, true));
        assert_eq!(survivors(false).await, (None, false, false));
    }

    #[test]
    fn what_is_not_this_suns_is_not_offered() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        assert!(!touch(&store, id(1), &head(10), None, || false));
        assert!(matches!(store.head(id(1)), Lookup::Absent));
        let bytes = Bytes::from_static(b"of an older version");
        let extent = Extent { generation: 2, index: 1, bytes: &bytes };
        assert!(touch(&store, id(1), &head(2 * EXTENT_BYTES), Some(extent), || true));
        assert!(!store.has_block(id(1), 2, 1));
        assert!(!touch(&store, id(1), &head(2 * EXTENT_BYTES), None, || true), "it is there");
    }

    #[test]
    fn one_hit_in_sixteen_is_told_and_no_pattern_is_missed() {
        let sampler = Sampler::new(1);
        let mut told = [0_u32; 16];
        for number in 0..160_000 {
            told[number % 16] += u32::from(sampler.chooses());
        }
        assert!(told.iter().all(|times| (500..750).contains(times)), "{told:?}");
    }

    fn open(directory: &std::path::Path) -> Store {
        let config = StoreConfig { path: directory.to_owned(), bytes: 40 << 20 };
        Store::open(&[config], Settings::default(), &prometheus::Registry::new()).unwrap()
    }

    fn head(size: u64) -> Head {
        let meta = Arc::new(Meta::new(&http::HeaderMap::new(), Some(size), 0, 0, 4));
        match size {
            ..=EXTENT_BYTES => Head::Small { meta, body: vec![1; size as usize].into() },
            _ => Head::Large { meta },
        }
    }

    fn id(at: u8) -> ContentId {
        ContentId::from_bytes([at; 16])
    }
}
