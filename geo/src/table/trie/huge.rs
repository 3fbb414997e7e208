//! Memory for slots: in huge pages, where the kernel gives them.
//!
//! A lookup reads one word anywhere in 64 MiB. In pages of 4 KiB the translation of its address is rarely in the TLB; 32 pages of 2 MiB
//! stay there, and a build has 32 faults in the place of 16,384. Debian's kernel gives huge pages to those who ask (`madvise`), but not for what
//! an allocator hands out a second time, hence a mapping of its own. A kernel that refuses gives small pages: slower, nothing else.
//!
//! The one place of `unsafe` in this crate. What it pays: `tests/bench/geo`, IPv4, see [`crate::table`].
#![expect(unsafe_code, reason = "bytes of a mapping are words: the standard library has no other way to say so")]

use std::alloc::{Layout, handle_alloc_error};
use std::ops::Deref;
use std::sync::atomic::AtomicU32;

use memmap2::{Advice, MmapMut};

/// Words that are 0 until they are stored to, and not in RAM before.
#[derive(Debug)]
pub(super) struct Slots(MmapMut);

impl Slots {
    /// So many, at least one. Without memory the process ends, as it does when a `Vec` finds none.
    pub(super) fn zeros(count: usize) -> Self {
        let bytes = count.max(1) * size_of::<AtomicU32>();
        let map = MmapMut::map_anon(bytes).unwrap_or_else(|error| {
            tracing::error!(bytes, %error, "no memory for the table");
            handle_alloc_error(Layout::array::<AtomicU32>(count.max(1)).unwrap_or(Layout::new::<AtomicU32>()))
        });
        if bytes >= HUGE_PAGE
            && let Err(error) = map.advise(Advice::HugePage)
        {
            tracing::debug!(%error, "no huge pages");
        }
        Self(map)
    }
}

impl Deref for Slots {
    type Target = [AtomicU32];

    #[inline]
    fn deref(&self) -> &[AtomicU32] {
        // SAFETY: a mapping begins at a page, so it is aligned; any bits are a word; and its bytes are reached in no other way than this,
        // as words that are only changed by atomic operations, for as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() / size_of::<AtomicU32>()) }
    }
}

const HUGE_PAGE: usize = 2 << 20;
