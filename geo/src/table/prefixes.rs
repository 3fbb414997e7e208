//! The prefixes of one family: which one is the longest that has a key, and which ones are around it.
//!
//! ```text
//!   key --deep--> entry --parent--> entry --parent--> 0 --top--> entry --parent--> 0
//!         |                                                ^
//!         +--0: no prefix of `top_bits` or more------------+
//!
//!   entry (64 bits)   parent: 32 | prefix length: 8 | leaf: 24
//! ```
//!
//! A prefix has one entry for life. Its leaf changes by one store. When it goes, its keys and its children get its
//! parent, and the entry waits for it to come back: an entry never means another prefix, so whoever still
//! holds it reads nothing that was not true a moment ago, and routes that flap leave no garbage.
//!
//! The few prefixes that are shorter than `top_bits` are in a trie of their own, looked at last: 0.0.0.0/0 would
//! otherwise be a change of 16 million slots, and ::/0 one of every range.

use std::collections::HashMap;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};

use super::arena::Arena;
use super::key::Key;
use super::trie::{Builder, Runs, Shape, Tail, Trie};

/// What readers see.
#[derive(Debug)]
pub(super) struct Prefixes {
    deep: Trie,
    top: Trie,
    top_bits: u8,
    entries: Arena<AtomicU64>,
    /// Prefixes, those that went apart.
    count: AtomicUsize,
}

/// What only the writer needs.
#[derive(Debug)]
pub(super) struct Growth {
    deep: Tail,
    top: Tail,
    next: usize,
    /// Entries of prefixes that went.
    gone: HashMap<Key, u32>,
}

impl Prefixes {
    /// Of prefixes with their leaves: sorted, none twice, at most [`PREFIXES_MAX`].
    pub(super) fn build(
        sorted: impl ExactSizeIterator<Item = (Key, u32)>,
        shape: Shape,
        top_bits: u8,
    ) -> (Self, Growth) {
        let mut entries = Vec::with_capacity(sorted.len() + 1);
        entries.push(AtomicU64::new(0));
        let mut deep = Flattened::new(shape);
        let mut top = Flattened::new(Shape::Starts);
        for (key, leaf) in sorted {
            let flattened = if key.len < top_bits { &mut top } else { &mut deep };
            let parent = flattened.push(key, entries.len() as u32);
            entries.push(AtomicU64::new(Entry { parent, len: key.len, leaf }.into()));
        }
        let count = AtomicUsize::new(entries.len() - 1);
        let entries = Arena::new(entries.into(), ENTRY_SEGMENT_BITS, ENTRY_SEGMENTS);
        let prefixes = Self { deep: deep.finish(), top: top.finish(), top_bits, entries, count };
        if prefixes.is_cut() {
            prefixes.count.store(prefixes.all().len(), Relaxed);
        }
        let growth = Growth {
            deep: prefixes.deep.tail(),
            top: prefixes.top.tail(),
            next: prefixes.entries.first_len(),
            gone: HashMap::new(),
        };
        (prefixes, growth)
    }

    /// The longest prefix that has the key, of those of `top_bits` or more; 0: none.
    #[inline]
    pub(super) fn deep(&self, key: u128) -> u32 {
        self.deep.get(key)
    }

    /// The same of an IPv4 address.
    #[inline]
    pub(super) fn deep_v4(&self, address: u32) -> u32 {
        self.deep.get_v4(address)
    }

    /// The longest of the others.
    pub(super) fn top(&self, key: u128) -> u32 {
        self.top.get(key)
    }

    /// The next shorter prefix that has the key; 0: none.
    pub(super) fn covering(&self, entry: u32, key: u128) -> u32 {
        let Some(found) = self.entry(entry) else { return 0 };
        if found.parent == 0 && found.len >= self.top_bits { self.top.get(key) } else { found.parent }
    }

    #[inline]
    pub(super) fn entry(&self, entry: u32) -> Option<Entry> {
        self.entries.get(entry as usize).filter(|_| entry != 0).map(|word| word.load(Acquire).into())
    }

    /// The entry of exactly this prefix.
    pub(super) fn exact(&self, prefix: Key) -> Option<u32> {
        let (entry, found) = self.around(prefix)?;
        (found.len == prefix.len).then_some(entry)
    }

    /// The longest prefix, this one or around it, of those in the same trie.
    fn around(&self, prefix: Key) -> Option<(u32, Entry)> {
        let mut at = self.trie_of(prefix).get(prefix.bits);
        loop {
            let entry = self.entry(at)?;
            if entry.len <= prefix.len {
                return Some((at, entry));
            }
            at = entry.parent;
        }
    }

    fn trie_of(&self, prefix: Key) -> &Trie {
        if prefix.len < self.top_bits { &self.top } else { &self.deep }
    }

    /// Adds the prefix or changes its leaf; whether anything changed. Nothing does when the storage is full: then none.
    pub(super) fn set(&self, growth: &mut Growth, prefix: Key, leaf: u32) -> Option<bool> {
        let parent = match self.around(prefix) {
            Some((at, entry)) if entry.len == prefix.len => {
                self.store(at, Entry { leaf, ..entry });
                return Some(entry.leaf != leaf);
            }
            around => around.map_or(0, |(at, _)| at),
        };
        let trie = self.trie_of(prefix);
        let tail = if prefix.len < self.top_bits { &mut growth.top } else { &mut growth.deep };
        if !trie.has_room(tail) || self.count() >= PREFIXES_MAX {
            return None;
        }
        let entry = match growth.gone.remove(&prefix) {
            Some(entry) => entry,
            None => {
                let entry = self.entries.reserve(growth.next, 1).filter(|entry| *entry < ENTRIES_MAX)?;
                growth.next = entry + 1;
                entry as u32
            }
        };
        self.store(entry, Entry { parent, len: prefix.len, leaf });
        trie.paint(tail, prefix, &mut |number| {
            if number == parent {
                return entry;
            }
            self.move_child(number, parent, entry);
            number
        });
        self.count.fetch_add(1, Relaxed);
        Some(true)
    }

    /// Whether it was there.
    pub(super) fn remove(&self, growth: &mut Growth, prefix: Key) -> bool {
        let Some((gone, entry)) = self.around(prefix).filter(|(_, entry)| entry.len == prefix.len) else {
            return false;
        };
        let tail = if prefix.len < self.top_bits { &mut growth.top } else { &mut growth.deep };
        let trie = self.trie_of(prefix);
        // It needs no new nodes: where this prefix begins and ends, runs do.
        trie.paint(tail, prefix, &mut |number| {
            if number == gone {
                return entry.parent;
            }
            self.move_child(number, gone, entry.parent);
            number
        });
        growth.gone.insert(prefix, gone);
        self.count.fetch_sub(1, Relaxed);
        true
    }

    /// Of those around `number`, the one whose parent is `from` gets the parent `to`.
    fn move_child(&self, number: u32, from: u32, to: u32) {
        let mut at = number;
        // A chain that has `to` but not `from` was moved already.
        while let Some(entry) = self.entry(at).filter(|_| at != to) {
            if entry.parent == from {
                self.store(at, Entry { parent: to, ..entry });
                return;
            }
            at = entry.parent;
        }
    }

    fn store(&self, at: u32, entry: Entry) {
        if let Some(word) = self.entries.get(at as usize) {
            word.store(entry.into(), Release);
        }
    }

    /// All prefixes with their leaves, sorted.
    pub(super) fn all(&self) -> Vec<(Key, u32)> {
        let mut all = Vec::with_capacity(self.entries.first_len());
        self.collect(&self.top, &mut all);
        let short = all.len();
        self.collect(&self.deep, &mut all);
        if short > 0 {
            all.sort_unstable();
        }
        all
    }

    fn collect(&self, trie: &Trie, all: &mut Vec<(Key, u32)>) {
        // Those around the run, outermost first.
        let mut open: Vec<(u32, Key)> = Vec::new();
        let mut fresh = Vec::new();
        for (first, _, number) in trie.runs() {
            while open.last().is_some_and(|(_, key)| key.last() < first) {
                open.pop();
            }
            let mut at = number;
            while let Some(entry) = self.entry(at).filter(|_| open.last().is_none_or(|(last, _)| *last != at)) {
                fresh.push((at, entry));
                at = entry.parent;
            }
            for (at, entry) in fresh.drain(..).rev() {
                let key = Key::new(first, entry.len);
                open.push((at, key));
                all.push((key, entry.leaf));
            }
        }
    }

    /// The runs of both tries.
    pub(super) fn runs(&self) -> (Runs<'_>, Runs<'_>) {
        (self.deep.runs(), self.top.runs())
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Whether a build would save much, or half of the room for changes is taken.
    pub(super) fn wants_rebuild(&self, growth: &Growth) -> bool {
        let entries = growth.next.saturating_sub(self.entries.first_len());
        growth.deep.garbage_words() > GARBAGE_WORDS_MAX
            || growth.gone.len() > self.count() / 4 + GONE_MAX
            || self.deep.is_half_full(&growth.deep)
            || self.top.is_half_full(&growth.top)
            || entries > ENTRY_SEGMENTS << ENTRY_SEGMENT_BITS >> 1
    }

    /// Whether some of what it was built of found no room.
    pub(super) fn is_cut(&self) -> bool {
        self.deep.is_cut() || self.top.is_cut()
    }

    pub(super) fn bytes(&self) -> usize {
        self.deep.bytes() + self.top.bytes() + self.entries.bytes()
    }
}

#[cfg(test)]
impl Growth {
    pub(super) fn garbage_words(&self) -> usize {
        self.deep.garbage_words() + self.gone.len()
    }
}

/// An entry's word.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) parent: u32,
    pub(super) len: u8,
    pub(super) leaf: u32,
}

impl From<u64> for Entry {
    fn from(word: u64) -> Self {
        Self { parent: (word >> 32) as u32, len: (word >> 24) as u8, leaf: word as u32 & LEAF_MASK }
    }
}

impl From<Entry> for u64 {
    fn from(entry: Entry) -> Self {
        u64::from(entry.parent) << 32 | u64::from(entry.len) << 24 | u64::from(entry.leaf & LEAF_MASK)
    }
}

/// Sorted prefixes, which may be nested, become ranges that are not.
struct Flattened {
    builder: Builder,
    /// Those that are not over, outermost first: last key, number.
    open: Vec<(u128, u32)>,
}

impl Flattened {
    fn new(shape: Shape) -> Self {
        Self { builder: Builder::new(shape), open: Vec::new() }
    }

    /// Its parent; 0: none.
    fn push(&mut self, key: Key, number: u32) -> u32 {
        self.close(|last| last < key.bits);
        let parent = self.innermost();
        self.open.push((key.last(), number));
        self.builder.push(key.bits, number);
        parent
    }

    fn close(&mut self, over: impl Fn(u128) -> bool) {
        while let Some((last, _)) = self.open.pop_if(|(last, _)| over(*last)) {
            if let Some(behind) = last.checked_add(1) {
                self.builder.push(behind, self.innermost());
            }
        }
    }

    fn innermost(&self) -> u32 {
        self.open.last().map_or(0, |(_, number)| *number)
    }

    fn finish(mut self) -> Trie {
        self.close(|_| true);
        self.builder.finish()
    }
}

/// Leaves of a table; one more is refused.
pub(super) const LEAVES_MAX: usize = 1 << 24;
/// Prefixes of one family that a table is built of: four times a full table of today, and few enough for a trie's 31 bits.
pub(super) const PREFIXES_MAX: usize = 1 << 22;
const LEAF_MASK: u32 = (1 << 24) - 1;
/// Entries that come by changes: segments of 128 KiB.
const ENTRY_SEGMENT_BITS: u32 = 14;
const ENTRY_SEGMENTS: usize = 1 << 10;
/// Below the marks of a [`Found`](super::Found).
const ENTRIES_MAX: usize = 1 << 30;
/// 16 MiB.
const GARBAGE_WORDS_MAX: usize = 1 << 22;
const GONE_MAX: usize = 1 << 16;
