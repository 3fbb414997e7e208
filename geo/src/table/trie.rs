//! Keys of 128 bits to numbers, read by anyone while one writer changes it.
//!
//! ```text
//!   a unit's value                              8 bits          8 bits
//!   24 bits: 16,777,216 slots, or       --+--> node ------+--> node ...   a value with NODE set leads on,
//!   64 bits: a balanced tree of ranges    +--> number     +--> number     any other is the answer; 0: nothing
//! ```
//!
//! IPv4 addresses are keys with 96 zero bits behind: almost every IPv4 prefix ends within the slots, so a lookup is one load
//! (DIR-24-8). Of IPv6 almost every prefix ends within the 64 bits of a network, which the tree finds in as many steps for any of them.
//! What is looked up less, or is small, is a tree too.
//!
//! # Invariants
//!
//! - A published node's runs never change, only their values. A change that needs a new border between runs makes a new node
//!   and stores it in its parent's place, so a reader is in the old one or the new one. The old one is garbage.
//! - Borders stay when what made them goes: a prefix that comes and goes makes no garbage the second time.
//!
//! # Why not
//!
//! - A binary or a path-compressed trie: a cache miss for every few bits; see the figures in [`super`].
//! - Slots for IPv6 with nodes below: how many there are on the way differs, see [`starts`].
//! - A tree for IPv4, to have 10 MiB in the place of 64: memory answers 64 independent questions as fast as 10, and slots take a fifth of
//!   the instructions, so more of them are asked at a time.

mod build;
mod huge;
mod node;
mod paint;
mod slots;
mod starts;

use std::sync::atomic::AtomicU32;

use super::arena::Arena;
pub(super) use build::Builder;
use node::Node;
pub(super) use paint::Tail;
use slots::Slots;
use starts::Starts;

/// Keys to numbers below [`NODE`]; 0 is "nothing".
#[derive(Debug)]
pub(super) struct Trie {
    root: Root,
    /// Words of nodes.
    nodes: Arena<AtomicU32>,
    /// Not everything that it was built of found room.
    cut: bool,
}

/// The values of units, by the first bits of a key.
#[derive(Debug)]
enum Root {
    Slots(Slots),
    Starts(Starts),
}

/// How a trie finds the value of a unit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Shape {
    /// By a slot for each 24 bits.
    Slots,
    /// By a tree over 64 bits.
    Starts,
}

impl Shape {
    /// Bits of a unit.
    const fn bits(self) -> u32 {
        match self {
            Self::Slots => slots::BITS,
            Self::Starts => 64,
        }
    }
}

impl Trie {
    /// The number of a key; 0 where there is nothing.
    #[inline]
    pub(super) fn get(&self, key: u128) -> u32 {
        let value = match &self.root {
            Root::Slots(slots) => slots.get((key >> 104) as usize),
            Root::Starts(starts) => starts.get((key >> 64) as u64),
        };
        if value & NODE == 0 { value } else { self.below(value, key) }
    }

    /// The same of an IPv4 address, without arithmetic of 128 bits where it is not needed.
    #[inline]
    pub(super) fn get_v4(&self, address: u32) -> u32 {
        let key = || u128::from(address) << 96;
        // What is not in slots goes the long way: few instructions are left, and become part of the caller.
        let Root::Slots(slots) = &self.root else { return self.far(key()) };
        let value = slots.get((address >> 8) as usize);
        if value & NODE == 0 { value } else { self.below(value, key()) }
    }

    #[inline(never)]
    fn far(&self, key: u128) -> u32 {
        self.get(key)
    }

    /// What the key's unit leads to.
    #[cold]
    fn below(&self, mut value: u32, key: u128) -> u32 {
        let mut rest = key << self.shape().bits();
        while value & NODE != 0 {
            value = self.node(value).map_or(0, |node| node.value((rest >> 120) as u8));
            rest <<= 8;
        }
        value
    }

    fn shape(&self) -> Shape {
        match self.root {
            Root::Slots(_) => Shape::Slots,
            Root::Starts(_) => Shape::Starts,
        }
    }

    #[inline]
    fn node(&self, value: u32) -> Option<Node<'_>> {
        Node::at(self.nodes.from((value & !NODE) as usize))
    }

    /// The number of a key, and the last key of the keys behind it that have the same without a gap; or an earlier
    /// one, where the trie has a border that it no longer needs.
    pub(super) fn run(&self, key: u128) -> (u32, u128) {
        let mut depth = self.shape().bits();
        let unit = key >> (128 - depth);
        let (mut value, last) = match &self.root {
            Root::Slots(slots) => {
                let (value, last) = slots.run(unit as usize);
                (value, last as u128)
            }
            Root::Starts(starts) => {
                let (value, last) = starts.run(unit as u64);
                (value, last.into())
            }
        };
        if value & NODE == 0 {
            return (value, last << (128 - depth) | (u128::MAX >> depth));
        }
        while let Some(node) = self.node(value) {
            let byte = (key << depth >> 120) as u8;
            value = node.value(byte);
            if value & NODE == 0 || depth >= 120 {
                let below = 120 - depth;
                let last = (key & !(u128::MAX >> depth)) | u128::from(node.run_end(byte)) << below;
                return (value, last | ((1 << below) - 1));
            }
            depth += 8;
        }
        (0, key)
    }

    /// All keys in order, as ranges with one number each.
    pub(super) fn runs(&self) -> Runs<'_> {
        Runs { trie: self, at: Some(0) }
    }

    /// Whether what it was built of takes more than 256 MiB of nodes: some of its keys then have no number.
    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }

    /// Bytes of RAM.
    pub(super) fn bytes(&self) -> usize {
        let root = match &self.root {
            Root::Slots(slots) => slots.bytes(),
            Root::Starts(starts) => starts.bytes(),
        };
        root + self.nodes.bytes()
    }
}

/// Ranges of keys: first, last, number. Neighbours may have the same number.
#[derive(Clone)]
pub(super) struct Runs<'a> {
    trie: &'a Trie,
    at: Option<u128>,
}

impl Runs<'_> {
    /// From this key on.
    pub(super) fn starting(mut self, key: u128) -> Self {
        self.at = Some(key);
        self
    }
}

impl Iterator for Runs<'_> {
    type Item = (u128, u128, u32);

    fn next(&mut self) -> Option<Self::Item> {
        let first = self.at?;
        let (value, last) = self.trie.run(first);
        self.at = last.checked_add(1);
        Some((first, last, value))
    }
}

/// Marks a value that leads to a node; the rest is the index of the node's first word.
const NODE: u32 = 1 << 31;
/// Words of nodes that come by changes: a segment of 256 KiB each, 256 MiB at most. Tests have less, to come to the end of it.
const SEGMENT_BITS: u32 = 16;
const SEGMENTS: usize = if cfg!(test) { 1 << 4 } else { 1 << 10 };
/// Words of nodes that are in use: 256 MiB, ten times what a full table of today takes. It is what a broken or hostile file can
/// make a trie take, beside a tree of 124 MiB for the 8,388,608 borders of as many ranges, or of half as many prefixes; a table that is made
/// here has the same bound, so that whoever gets its file can use it.
const NODE_WORDS_MAX: usize = if cfg!(test) { 1 << 20 } else { 1 << 26 };
