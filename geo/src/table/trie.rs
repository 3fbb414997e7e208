//! Keys of 128 bits to numbers, read by anyone while one writer changes it.
//!
//! ```text
//!   3 bits     up to 21 more bits              8 bits          8 bits
//!   8 pages -> 2,097,152 slots (24 bits) --+--> node ------+--> node ...   a value with NODE set leads on,
//!   (made when needed)                     +--> number     +--> number     any other is the answer; 0: nothing
//! ```
//!
//! IPv4 addresses are keys with 96 zero bits behind: almost every IPv4 prefix ends within the slots, so a lookup is two loads,
//! one of them from a list of pages that stays in the first-level cache (DIR-24-8). Of IPv6, whose allocations are in six pages, a /32
//! costs one node and a /48 three.
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
//! - Slots alone, without pages: 64 MiB even for a handful of prefixes.

mod build;
mod huge;
mod node;
mod paint;

use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Acquire;

use super::arena::Arena;
pub(super) use build::Builder;
use huge::Slots;
use node::Node;
pub(super) use paint::Tail;

/// Keys to numbers below [`NODE`]; 0 is "nothing".
#[derive(Debug)]
pub(super) struct Trie {
    /// By the first bits; a page has a slot for each of the next `root_bits - PAGE_BITS` bits. No page: nothing.
    pages: Box<[Page; PAGES]>,
    /// 8..=24.
    root_bits: u32,
    /// Words of nodes.
    nodes: Arena<AtomicU32>,
    /// Not everything that it was built of found room.
    cut: bool,
}

type Page = OnceLock<Slots>;

impl Trie {
    /// The number of a key; 0 where there is nothing.
    #[inline]
    pub(super) fn get(&self, key: u128) -> u32 {
        let mut value = self.root((key >> (128 - self.root_bits)) as usize);
        let mut rest = key << self.root_bits;
        while value & NODE != 0 {
            value = self.node(value).map_or(0, |node| node.value((rest >> 120) as u8));
            rest <<= 8;
        }
        value
    }

    /// The same of an IPv4 address, without arithmetic of 128 bits where it is not needed.
    #[inline]
    pub(super) fn get_v4(&self, address: u32) -> u32 {
        let value = self.root((address >> (32 - self.root_bits)) as usize);
        if value & NODE == 0 { value } else { self.get(u128::from(address) << 96) }
    }

    /// The value of a slot, counted from the first of the first page.
    #[inline]
    fn root(&self, slot: usize) -> u32 {
        let bits = self.root_bits - PAGE_BITS;
        let page = self.pages.get(slot >> bits).and_then(OnceLock::get);
        page.and_then(|slots| slots.get(slot & ((1 << bits) - 1))).map_or(0, |slot| slot.load(Acquire))
    }

    #[inline]
    fn node(&self, value: u32) -> Option<Node<'_>> {
        Node::at(self.nodes.from((value & !NODE) as usize))
    }

    /// The number of a key, and the last key of the keys behind it that have the same without a gap; or an earlier
    /// one, where the trie has a border that it no longer needs.
    pub(super) fn run(&self, key: u128) -> (u32, u128) {
        let slot = (key >> (128 - self.root_bits)) as usize;
        let mut value = self.root(slot);
        if value & NODE == 0 {
            return (value, self.slot_last(self.equal_slots(slot, value)));
        }
        let mut depth = self.root_bits;
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

    /// The last slot of those from `slot` on that have the same value.
    fn equal_slots(&self, mut slot: usize, value: u32) -> usize {
        let bits = self.root_bits - PAGE_BITS;
        loop {
            let page = self.pages.get(slot >> bits).and_then(OnceLock::get);
            match page {
                None if value == 0 => slot |= (1 << bits) - 1,
                None => return slot - 1,
                Some(slots) => {
                    let behind = slots.iter().skip(slot & ((1 << bits) - 1));
                    let equal = behind.take_while(|slot| slot.load(Acquire) == value).count();
                    if equal == 0 {
                        return slot - 1;
                    }
                    slot += equal - 1;
                    if !(slot + 1).is_multiple_of(1 << bits) {
                        return slot;
                    }
                }
            }
            if slot + 1 == PAGES << bits {
                return slot;
            }
            slot += 1;
        }
    }

    fn slot_last(&self, slot: usize) -> u128 {
        (slot as u128) << (128 - self.root_bits) | (u128::MAX >> self.root_bits)
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
        let pages = self.pages.iter().filter_map(OnceLock::get).map(|slots| size_of_val(&**slots));
        pages.sum::<usize>() + size_of_val(&*self.pages) + self.nodes.bytes()
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
/// Pages of slots. Few and large, so that they are in huge pages, and enough that IPv6, whose allocations are in one of them, does not
/// pay for all.
const PAGES: usize = 1 << PAGE_BITS;
const PAGE_BITS: u32 = 3;
/// Words of nodes that come by changes: a segment of 256 KiB each, 256 MiB at most. Tests have less, to come to the end of it.
const SEGMENT_BITS: u32 = 16;
const SEGMENTS: usize = if cfg!(test) { 1 << 4 } else { 1 << 10 };
/// Words of nodes that are in use: 256 MiB, ten times what a full table of today takes. It is what a broken or hostile file can
/// make a trie take; a table that is made here has the same bound, so that whoever gets its file can use it.
const NODE_WORDS_MAX: usize = if cfg!(test) { 1 << 20 } else { 1 << 26 };
