//! One node of the trie: what 256 neighbouring keys lead to, equal neighbours written once.
//!
//! ```text
//!   words   0..8    bit k: a run begins at byte k (bit 0 always)
//!           8..10   runs that begin before each of the eight words of bits, a byte each
//!           10..    each run's value
//! ```
//!
//! The header of a published node never changes; its values do, by atomic stores.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

/// A node, seen in its storage.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    header: &'a [AtomicU32; HEADER_WORDS],
    values: &'a [AtomicU32],
}

impl<'a> Node<'a> {
    /// `words` begin with the node.
    #[inline]
    pub(super) fn at(words: &'a [AtomicU32]) -> Option<Self> {
        words.split_first_chunk().map(|(header, values)| Self { header, values })
    }

    /// What a byte leads to.
    #[inline]
    pub(super) fn value(&self, byte: u8) -> u32 {
        self.slot(self.run(byte)).map_or(0, |slot| slot.load(Acquire))
    }

    /// The number of the run that a byte is in.
    #[inline]
    pub(super) fn run(&self, byte: u8) -> usize {
        let word = usize::from(byte / 32);
        let upto = self.header[word].load(Relaxed) & (u32::MAX >> (31 - u32::from(byte % 32)));
        let before = self.header[8 + word / 4].load(Relaxed) >> (8 * (word % 4)) & 0xff;
        (before + upto.count_ones()) as usize - 1
    }

    /// Where a run's value is.
    #[inline]
    pub(super) fn slot(&self, run: usize) -> Option<&'a AtomicU32> {
        self.values.get(run)
    }

    /// Whether a run begins at the byte.
    pub(super) fn begins(&self, byte: u8) -> bool {
        self.header[usize::from(byte / 32)].load(Relaxed) >> (byte % 32) & 1 == 1
    }

    /// The last byte of the run that `byte` is in.
    pub(super) fn run_end(&self, byte: u8) -> u8 {
        let mut word = usize::from(byte / 32);
        // Two shifts: one by 32 is none.
        let mut bits = self.header[word].load(Relaxed) & (u32::MAX << (byte % 32) << 1);
        while bits == 0 {
            word += 1;
            if word == 8 {
                return u8::MAX;
            }
            bits = self.header[word].load(Relaxed);
        }
        (word * 32 + bits.trailing_zeros() as usize - 1) as u8
    }

    /// Its values, one for each run.
    pub(super) fn slots(&self) -> &'a [AtomicU32] {
        self.values.get(..self.run(u8::MAX) + 1).unwrap_or(&[])
    }

    /// Words it takes.
    pub(super) fn words(&self) -> usize {
        HEADER_WORDS + self.slots().len()
    }

    /// Each run's first byte and value.
    pub(super) fn runs(&self) -> Runs {
        let begins = (0..=u8::MAX).filter(|byte| self.begins(*byte));
        begins.zip(self.slots()).map(|(byte, slot)| (byte, slot.load(Relaxed))).collect()
    }
}

/// First bytes and values of runs, the first at 0.
pub(super) type Runs = Vec<(u8, u32)>;

/// The header of a node of these runs.
pub(super) fn header(runs: &[(u8, u32)]) -> [u32; HEADER_WORDS] {
    let mut header = [0_u32; HEADER_WORDS];
    for (byte, _) in runs {
        header[usize::from(byte / 32)] |= 1 << (byte % 32);
    }
    let mut before = 0;
    for word in 0..8 {
        header[8 + word / 4] |= before << (8 * (word % 4));
        before += header[word].count_ones();
    }
    header
}

/// Words before the values.
pub(super) const HEADER_WORDS: usize = 10;
