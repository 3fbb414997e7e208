//! RAM and store together: what is kept goes to both, what is not found in RAM comes from the store.
//!
//! ```text
//!   a fill keeps ---> RAM, always           a request looks ---> RAM --absent--> store: head, small file
//!                \--> store, if this sun is the file's          \                       |
//!                     owner (or one of those that spread it)     \              RAM, if nothing came meanwhile
//!   an extent that is read from the store a second time goes to RAM too; before that the page cache is enough
//! ```
//!
//! A version that is forgotten or replaced in RAM is forgotten in the store, so that it never comes back. Variants
//! (`Vary`) and notes are kept in RAM alone: what tells them apart is known there alone.

use std::sync::Arc;

use bytes::Bytes;
use geo::{CanonicalName, ContentId};

use crate::edge::Edge;
use crate::extent::{self, EXTENT_BYTES};
use crate::meta::Meta;
use crate::purge::Verdict;
use crate::ram::{Head, Known};
use crate::store::{StoredHead, meta_codec};

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
