//! Memory for slots: in huge pages, where the kernel gives them.
//!
//! A lookup reads one word anywhere in 56 MiB. In pages of 4 KiB its address translation misses the TLB nearly every time and costs
//! more than the word; 28 pages of 2 MiB stay in it. Debian's kernel gives huge pages to those who ask (`madvise`), so we
//! ask. A kernel that refuses gives small ones: slower, nothing else.
//!
//! The one place of `unsafe` in this crate. What it pays: `tests/bench/geo`, IPv4, see [`crate::table`].
#![expect(
    unsafe_code,
    reason = "madvise is unsafe for advice that we do not give; u32 and AtomicU32 are one in memory"
)]

use std::sync::atomic::AtomicU32;

use rustix::mm::{Advice, madvise};

/// So many zeros, not in RAM before they are written.
pub(super) fn zeros(count: usize) -> Vec<u32> {
    let mut zeros = vec![0_u32; count];
    advise(&mut zeros);
    zeros
}

/// The same words, from now on changed by atomic stores. Copies nothing.
pub(super) fn atomic(words: Box<[u32]>) -> Box<[AtomicU32]> {
    const { assert!(align_of::<AtomicU32>() == align_of::<u32>() && size_of::<AtomicU32>() == size_of::<u32>()) };
    // SAFETY: the pointer comes from a box of the same layout (`AtomicU32` has the size and bit validity of `u32`, and here its
    // alignment), and that box is given up.
    unsafe { Box::from_raw(Box::into_raw(words) as *mut [AtomicU32]) }
}

/// Asks for huge pages for what of `words` is in whole small pages.
fn advise(words: &mut [u32]) {
    let skipped = words.as_ptr().addr().wrapping_neg() % SMALL_PAGE / size_of::<u32>();
    let Some(words) = words.get_mut(skipped..).filter(|words| size_of_val(*words) >= HUGE_PAGE) else { return };
    let bytes = size_of_val(words) / SMALL_PAGE * SMALL_PAGE;
    // SAFETY: the range is memory of ours, which this advice neither changes nor unmaps.
    let advised = unsafe { madvise(words.as_mut_ptr().cast(), bytes, Advice::LinuxHugepage) };
    if let Err(error) = advised {
        tracing::debug!(%error, "no huge pages");
    }
}

const SMALL_PAGE: usize = 4 << 10;
const HUGE_PAGE: usize = 2 << 20;
