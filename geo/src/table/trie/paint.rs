//! The writer's side of a trie: new numbers for the keys of a prefix, while readers read.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, Release};

use super::node::{Runs, header};
use super::{NODE, NODE_WORDS_MAX, Root, SEGMENT_BITS, SEGMENTS, Trie, starts};
use crate::table::key::Key;

/// Where a trie's next node goes, and what it no longer uses. The one writer's.
#[derive(Debug)]
pub(in super::super) struct Tail {
    next: usize,
    /// Words of nodes that were replaced.
    garbage_words: usize,
    /// None: slots need no room.
    starts: Option<starts::Tail>,
}

impl Tail {
    /// Words of nodes that were replaced.
    pub(in super::super) fn garbage_words(&self) -> usize {
        self.garbage_words + self.starts.as_ref().map_or(0, |starts| starts.garbage_nodes * starts::NODE_WORDS)
    }
}

impl Trie {
    /// Of a trie that was just built.
    pub(in super::super) fn tail(&self) -> Tail {
        let starts = match &self.root {
            Root::Slots(_) => None,
            Root::Starts(starts) => Some(starts.tail()),
        };
        Tail { next: self.nodes.first_len(), garbage_words: 0, starts }
    }

    /// Whether a change of any prefix finds room: for what it adds, and for all that is in use when it is built anew.
    pub(in super::super) fn has_room(&self, tail: &Tail) -> bool {
        let used = tail.next.saturating_sub(tail.garbage_words);
        let root = match (&self.root, &tail.starts) {
            (Root::Starts(starts), Some(tail)) => starts.has_room(tail),
            _ => true,
        };
        root && self.nodes.has_room(tail.next, CHANGE_WORDS_MAX) && used + CHANGE_WORDS_MAX <= NODE_WORDS_MAX
    }

    /// Whether changes took half of the room that there is for them.
    pub(in super::super) fn is_half_full(&self, tail: &Tail) -> bool {
        let root = match (&self.root, &tail.starts) {
            (Root::Starts(starts), Some(tail)) => starts.is_half_full(tail),
            _ => false,
        };
        root || tail.next.saturating_sub(self.nodes.first_len()) > SEGMENTS << SEGMENT_BITS >> 1
    }

    /// Gives every number within the prefix the one that `map` makes of it; each key has, at any moment, its old or its new
    /// number. There must be [room](Self::has_room).
    ///
    /// `map` sees a number as often as it is found, but not for every key that has it.
    pub(in super::super) fn paint(&self, tail: &mut Tail, prefix: Key, map: &mut dyn FnMut(u32) -> u32) {
        let depth = self.shape().bits();
        if u32::from(prefix.len) <= depth {
            self.paint_units(tail, prefix.bits, prefix.last(), &mut |value| self.mapped(value, map));
            return;
        }
        let value = match &self.root {
            Root::Slots(slots) => slots.get((prefix.bits >> 104) as usize),
            Root::Starts(starts) => starts.get((prefix.bits >> 64) as u64),
        };
        let new = self.painted(tail, value, depth, prefix, map);
        if new != value {
            self.paint_units(tail, prefix.bits, prefix.bits, &mut |_| new);
        }
    }

    fn paint_units(&self, tail: &mut Tail, first: u128, last: u128, map: &mut dyn FnMut(u32) -> u32) {
        match (&self.root, &mut tail.starts) {
            (Root::Slots(slots), _) => slots.paint((first >> 104) as usize, (last >> 104) as usize, map),
            (Root::Starts(starts), Some(tail)) => starts.paint(tail, (first >> 64) as u64, (last >> 64) as u64, map),
            (Root::Starts(_), None) => {}
        }
    }

    /// What takes the place of a value that the prefix has all keys of: numbers below a node change in their places.
    fn mapped(&self, value: u32, map: &mut dyn FnMut(u32) -> u32) -> u32 {
        if value & NODE == 0 {
            return map(value);
        }
        if let Some(node) = self.node(value) {
            self.paint_slots(node.slots(), map);
        }
        value
    }

    /// Every number in and below these values.
    fn paint_slots(&self, slots: &[AtomicU32], map: &mut dyn FnMut(u32) -> u32) {
        for slot in slots {
            let value = slot.load(Relaxed);
            let new = self.mapped(value, map);
            if new != value {
                slot.store(new, Release);
            }
        }
    }

    /// What takes the place of `value`, which the keys that share the prefix's first `depth` bits have; the prefix is longer.
    fn painted(&self, tail: &mut Tail, value: u32, depth: u32, prefix: Key, map: &mut dyn FnMut(u32) -> u32) -> u32 {
        let byte = (prefix.bits << depth >> 120) as u8;
        let len = u32::from(prefix.len);
        if len > depth + 8 {
            let old = if value & NODE == 0 { value } else { self.node(value).map_or(0, |node| node.value(byte)) };
            let new = self.painted(tail, old, depth + 8, prefix, map);
            if new == old { value } else { self.respanned(tail, value, (byte, byte), &mut |_| new) }
        } else {
            let last = byte | (u8::MAX as u16 >> (8 - (depth + 8 - len))) as u8;
            self.respanned(tail, value, (byte, last), &mut |value| self.mapped(value, map))
        }
    }

    /// `value` with its bytes first..=last mapped: in place, where its runs have these borders; else a new node.
    fn respanned(&self, tail: &mut Tail, value: u32, (first, last): (u8, u8), map: &mut dyn FnMut(u32) -> u32) -> u32 {
        let node = if value & NODE == 0 { None } else { self.node(value) };
        if let Some(node) = node.filter(|node| node.begins(first) && (last == u8::MAX || node.begins(last + 1))) {
            for slot in node.slots().iter().take(node.run(last) + 1).skip(node.run(first)) {
                let old = slot.load(Relaxed);
                slot.store(map(old), Release);
            }
            return value;
        }
        let mut runs = node.map_or_else(|| vec![(0, value)], |node| node.runs());
        split(&mut runs, first);
        if let Some(behind) = last.checked_add(1) {
            split(&mut runs, behind);
        }
        for (_, value) in runs.iter_mut().filter(|(byte, _)| (first..=last).contains(byte)) {
            *value = map(*value);
        }
        tail.garbage_words += node.map_or(0, |node| node.words());
        self.append(tail, &runs)
    }

    fn append(&self, tail: &mut Tail, runs: &Runs) -> u32 {
        let header = header(runs);
        let words = header.len() + runs.len();
        let Some(index) = self.nodes.reserve(tail.next, words) else { return 0 };
        tail.next = index + words;
        let values = header.iter().chain(runs.iter().map(|(_, value)| value));
        for (word, value) in self.nodes.from(index).iter().zip(values) {
            // Published by the store of what leads here.
            word.store(*value, Relaxed);
        }
        NODE | index as u32
    }
}

/// A run begins at this byte.
fn split(runs: &mut Runs, byte: u8) {
    let behind = runs.partition_point(|(begin, _)| *begin < byte);
    if runs.get(behind).is_none_or(|(begin, _)| *begin != byte) && behind > 0 {
        runs.insert(behind, (byte, runs[behind - 1].1));
    }
}

/// More than the nodes on the way to the longest prefix take: 13 of 266 words.
const CHANGE_WORDS_MAX: usize = 1 << 12;
