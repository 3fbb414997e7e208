//! The writer's side of a trie: new numbers for the keys of a prefix, while readers read.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, Release};

use super::huge::Slots;
use super::node::{Runs, header};
use super::{NODE, NODE_WORDS_MAX, PAGE_BITS, SEGMENT_BITS, SEGMENTS, Trie};
use crate::table::key::Key;

/// Where a trie's next node goes, and what it no longer uses. The one writer's.
#[derive(Debug)]
pub(in super::super) struct Tail {
    next: usize,
    /// Words of nodes that were replaced.
    pub(in super::super) garbage_words: usize,
}

impl Trie {
    /// Of a trie that was just built.
    pub(in super::super) fn tail(&self) -> Tail {
        Tail { next: self.nodes.first_len(), garbage_words: 0 }
    }

    /// Whether a change of any prefix finds room: for what it adds, and for all that is in use when it is built anew.
    pub(in super::super) fn has_room(&self, tail: &Tail) -> bool {
        let used = tail.next.saturating_sub(tail.garbage_words);
        self.nodes.has_room(tail.next, CHANGE_WORDS_MAX) && used + CHANGE_WORDS_MAX <= NODE_WORDS_MAX
    }

    /// Whether changes took half of the room that there is for them.
    pub(in super::super) fn is_half_full(&self, tail: &Tail) -> bool {
        tail.next.saturating_sub(self.nodes.first_len()) > SEGMENTS << SEGMENT_BITS >> 1
    }

    /// Gives every number within the prefix the one that `map` makes of it; each key has, at any moment, its old or its new
    /// number. There must be [room](Self::has_room).
    ///
    /// `map` sees a number as often as it is found, but not for every key that has it.
    pub(in super::super) fn paint(&self, tail: &mut Tail, prefix: Key, map: &mut dyn FnMut(u32) -> u32) {
        let below = 128 - self.root_bits;
        let (first, last) = ((prefix.bits >> below) as usize, (prefix.last() >> below) as usize);
        let (per_page, page_bits) = (1 << (self.root_bits - PAGE_BITS), self.root_bits - PAGE_BITS);
        for page in first >> page_bits..=last >> page_bits {
            let Some(slots) = self.pages.get(page) else { return };
            let slots = slots.get_or_init(|| Slots::zeros(per_page));
            let begin = first.saturating_sub(page * per_page);
            let end = (last - page * per_page).min(per_page - 1);
            let Some(slots) = slots.get(begin..=end) else { return };
            if u32::from(prefix.len) > self.root_bits {
                for slot in slots {
                    let value = slot.load(Relaxed);
                    let new = self.painted(tail, value, self.root_bits, prefix, map);
                    slot.store(new, Release);
                }
            } else {
                self.paint_slots(slots, map);
            }
        }
    }

    /// Every number in and below these values.
    fn paint_slots(&self, slots: &[AtomicU32], map: &mut dyn FnMut(u32) -> u32) {
        let mut memory = None;
        for slot in slots {
            let value = slot.load(Relaxed);
            if value & NODE != 0 {
                if let Some(node) = self.node(value) {
                    self.paint_slots(node.slots(), map);
                }
                continue;
            }
            let new = match memory {
                Some((before, after)) if before == value => after,
                _ => map(value),
            };
            memory = Some((value, new));
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
            self.respanned(tail, value, (byte, last), &mut |value| {
                if value & NODE == 0 {
                    return map(value);
                }
                if let Some(node) = self.node(value) {
                    self.paint_slots(node.slots(), map);
                }
                value
            })
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
