//! A trie from ranges in order, in one pass.

use std::sync::atomic::AtomicU32;

use super::node::{HEADER_WORDS, Runs, header};
use super::{Arena, NODE, NODE_WORDS_MAX, Root, SEGMENT_BITS, SEGMENTS, Shape, Slots, Trie, starts};

/// Takes the ranges of all keys, in order.
pub(in super::super) struct Builder {
    shape: Shape,
    slots: Option<Slots>,
    starts: starts::Builder,
    nodes: Vec<u32>,
    /// The range that is not placed yet: its first key and number.
    pending: (u128, u32),
    /// The ranges so far of a unit that is cut in several: clipped to the unit.
    open: Vec<(u128, u32)>,
    /// Some node found no room.
    cut: bool,
}

impl Builder {
    /// Nothing, up to the first [`push`](Self::push).
    pub(in super::super) fn new(shape: Shape) -> Self {
        let slots = (shape == Shape::Slots).then(Slots::new);
        let starts = starts::Builder::default();
        Self { shape, slots, starts, nodes: Vec::new(), pending: (0, 0), open: Vec::new(), cut: false }
    }

    /// Keys from `first` on have this number, up to the next push. Keys must not fall; the last of several for one key counts.
    pub(in super::super) fn push(&mut self, first: u128, number: u32) {
        let (begun, current) = self.pending;
        if number == current {
            return;
        }
        if first > begun {
            self.place(begun, first - 1, current);
        }
        self.pending = (first, number);
    }

    /// There are more ranges than there is room for: keys from `first` on have none.
    pub(in super::super) fn cut(&mut self, first: u128) {
        self.push(first, 0);
        self.cut = true;
    }

    /// The trie.
    pub(in super::super) fn finish(mut self) -> Trie {
        let (begun, current) = self.pending;
        self.place(begun, u128::MAX, current);
        let nodes = Arena::new(atomic(self.nodes), SEGMENT_BITS, SEGMENTS);
        let root = self.slots.map_or_else(|| Root::Starts(self.starts.finish()), Root::Slots);
        Trie { root, nodes, cut: self.cut }
    }

    fn place(&mut self, mut first: u128, last: u128, number: u32) {
        let in_unit = u128::MAX >> self.shape.bits();
        if !self.open.is_empty() {
            if self.open.last().is_none_or(|(_, before)| *before != number) {
                self.open.push((first, number));
            }
            let end = first | in_unit;
            if last < end {
                return;
            }
            let runs = std::mem::take(&mut self.open);
            let value = self.node(&runs, self.shape.bits());
            self.open = runs;
            self.open.clear();
            self.fill(first, end, value);
            if last == end {
                return;
            }
            first = end + 1;
        }
        if last | in_unit == last {
            self.fill(first, last, number);
            return;
        }
        let begun = last & !in_unit;
        if begun > first {
            self.fill(first, begun - 1, number);
        }
        self.open.push((begun, number));
    }

    /// The value of the units of these keys.
    #[inline]
    fn fill(&mut self, first: u128, last: u128, value: u32) {
        match &self.slots {
            Some(slots) => slots.fill((first >> 104) as usize, (last >> 104) as usize, value),
            None => self.starts.push((last >> 64) as u64, value),
        }
    }

    /// The value for keys that share their first `depth` bits: a number when one range has them all, else a new node.
    fn node(&mut self, ranges: &[(u128, u32)], depth: u32) -> u32 {
        if let [(_, number)] = ranges {
            return *number;
        }
        let byte = |key: u128| (key << depth >> 120) as u8;
        let mut runs = Runs::new();
        let mut index = 0;
        while let Some((first, number)) = ranges.get(index) {
            let at = byte(*first);
            let begin = *first & !(u128::MAX >> depth >> 8);
            // Those behind it that begin within the same byte.
            let inside = ranges[index + 1..].iter().take_while(|(key, _)| byte(*key) == at).count();
            if inside == 0 && *first == begin {
                add(&mut runs, at, *number);
                index += 1;
                continue;
            }
            // The byte's beginning is of the range before, unless this one begins there.
            let before = index.checked_sub(1).filter(|_| *first != begin).map(|before| (begin, ranges[before].1));
            let parts: Vec<_> = before.into_iter().chain(ranges[index..=index + inside].iter().copied()).collect();
            add(&mut runs, at, self.node(&parts, depth + 8));
            index += inside;
            let next = ranges.get(index + 1).map_or(256, |(key, _)| u16::from(byte(*key)));
            if next > u16::from(at) + 1 {
                add(&mut runs, at + 1, ranges[index].1);
            }
            index += 1;
        }
        self.append(&runs)
    }

    /// Nothing, where [`NODE_WORDS_MAX`] is reached.
    fn append(&mut self, runs: &[(u8, u32)]) -> u32 {
        if self.nodes.len() + HEADER_WORDS + runs.len() > NODE_WORDS_MAX {
            self.cut = true;
            return 0;
        }
        let offset = self.nodes.len() as u32;
        self.nodes.extend(header(runs));
        self.nodes.extend(runs.iter().map(|(_, value)| value));
        NODE | offset
    }
}

/// A run from this byte on, unless the run before goes on.
fn add(runs: &mut Runs, byte: u8, value: u32) {
    if runs.last().is_none_or(|(_, before)| *before != value) {
        runs.push((byte, value));
    }
}

pub(super) fn atomic(words: Vec<u32>) -> Box<[AtomicU32]> {
    words.into_iter().map(AtomicU32::new).collect()
}
