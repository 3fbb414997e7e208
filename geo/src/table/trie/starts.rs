//! The values of 64-bit units as a balanced tree of ranges: each range is its last unit and its value.
//!
//! ```text
//!   node, 192 bytes, at a cache line    lasts: 15 of 64 bits, then the greatest number   values: 16 of 32 bits
//!                                       slot k has the units behind last k - 1, up to last k; the last one goes on to the node's end
//!
//!   root --value--> node --value--> ... --value--> leaf --value--> of the unit        all leaves are at one depth
//! ```
//!
//! Why not 8 bits of key a step, as below a unit: how many steps it takes differs from address to address, a processor guesses
//! wrong, and then nothing of the next lookup overlaps with this one. Here all lookups take the same steps without a branch in
//! them: five for a full IPv6 table, of which the upper three stay in the caches.
//!
//! # Invariants
//!
//! - A published node's lasts never change; its values do, by atomic stores. A new border makes new nodes, up to the one where the number
//!   of children stays the same, and one store there shows them all. The old ones are garbage, and right for who is still in them.
//! - Borders stay when what made them goes.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::super::arena::Arena;

/// Units to values.
#[derive(Debug)]
pub(super) struct Starts {
    /// Levels below the root's: 32, index of the root: 32.
    root: AtomicU64,
    nodes: Arena<Node>,
}

/// Where the next node goes, and what is no longer used. The one writer's.
#[derive(Debug)]
pub(super) struct Tail {
    next: usize,
    pub(super) garbage_nodes: usize,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Node {
    lasts: [AtomicU64; FANOUT],
    values: [AtomicU32; FANOUT],
}

/// A node's lasts and values, those that it uses. The last one's last is the greatest number.
type Items = Vec<(u64, u32)>;

impl Starts {
    /// The value of a unit.
    #[inline]
    pub(super) fn get(&self, unit: u64) -> u32 {
        let root = self.root.load(Acquire);
        let mut value = root as u32;
        let mut levels = root >> 32;
        loop {
            let Some(node) = self.nodes.get(value as usize) else { return 0 };
            value = node.value(node.slot(unit));
            if levels == 0 {
                return value;
            }
            levels -= 1;
        }
    }

    /// The value of a unit, and the last one behind it of its range.
    pub(super) fn run(&self, unit: u64) -> (u32, u64) {
        let root = self.root.load(Acquire);
        let (mut value, mut last) = (root as u32, u64::MAX);
        for _ in 0..=root >> 32 {
            let Some(node) = self.nodes.get(value as usize) else { return (0, last) };
            let slot = node.slot(unit);
            last = node.last(slot).min(last);
            value = node.value(slot);
        }
        (value, last)
    }

    /// Gives each value of these units the one that `map` makes of it.
    pub(super) fn paint(&self, tail: &mut Tail, first: u64, last: u64, map: &mut dyn FnMut(u32) -> u32) {
        first.checked_sub(1).into_iter().for_each(|before| self.split(tail, before));
        self.split(tail, last);
        let mut path = Path::default();
        let mut unit = first;
        loop {
            self.descend(unit, &mut path);
            let Some(&(leaf, slot)) = path.steps.last() else { return };
            let Some(leaf) = self.nodes.get(leaf as usize) else { return };
            let mut end = path.last;
            for (slot, value) in leaf.values.iter().enumerate().skip(slot) {
                let old = value.load(Relaxed);
                let new = map(old);
                if new != old {
                    value.store(new, Release);
                }
                end = leaf.last(slot).min(path.end);
                if end >= path.end.min(last) {
                    break;
                }
            }
            if end >= last {
                return;
            }
            unit = end + 1;
        }
    }

    /// A range ends with this unit.
    fn split(&self, tail: &mut Tail, last: u64) {
        let mut path = Path::default();
        self.descend(last, &mut path);
        if path.last == last {
            return;
        }
        // What takes the place of a slot one level above: one node, or two and the last unit of the first.
        let mut left = (last, path.value);
        let mut right = Some(path.value);
        while let Some((index, slot)) = path.steps.pop() {
            let Some(node) = self.nodes.get(index as usize) else { return };
            let Some(new) = right else {
                node.values[slot].store(left.1, Release);
                return;
            };
            let mut items = node.items();
            let Some(item) = items.get_mut(slot) else { return };
            let behind = (item.0, new);
            *item = left;
            items.insert(slot + 1, behind);
            tail.garbage_nodes += 1;
            let half = items.len().div_ceil(2);
            if items.len() <= FANOUT {
                (left, right) = ((u64::MAX, self.append(tail, &items)), None);
            } else {
                let (one, two) = items.split_at(half);
                left = (one.last().map_or(0, |(last, _)| *last), self.append(tail, one));
                right = Some(self.append(tail, two));
            }
        }
        let levels = self.root.load(Relaxed) >> 32;
        let root = match right {
            None => levels << 32 | u64::from(left.1),
            Some(right) => (levels + 1) << 32 | u64::from(self.append(tail, &[left, (u64::MAX, right)])),
        };
        self.root.store(root, Release);
    }

    fn descend(&self, unit: u64, path: &mut Path) {
        let root = self.root.load(Acquire);
        path.steps.clear();
        (path.value, path.last, path.end) = (root as u32, u64::MAX, u64::MAX);
        for _ in 0..=root >> 32 {
            let Some(node) = self.nodes.get(path.value as usize) else { return };
            let slot = node.slot(unit);
            path.steps.push((path.value, slot));
            path.end = path.last;
            path.last = node.last(slot).min(path.end);
            path.value = node.value(slot);
        }
    }

    fn append(&self, tail: &mut Tail, items: &[(u64, u32)]) -> u32 {
        let Some(index) = self.nodes.reserve(tail.next, 1) else { return 0 };
        tail.next = index + 1;
        if let Some(node) = self.nodes.get(index) {
            node.fill(items);
        }
        index as u32
    }

    /// Of a tree that was just built.
    pub(super) fn tail(&self) -> Tail {
        Tail { next: self.nodes.first_len(), garbage_nodes: 0 }
    }

    /// Whether a change finds room.
    pub(super) fn has_room(&self, tail: &Tail) -> bool {
        self.nodes.has_room(tail.next, CHANGE_NODES_MAX)
    }

    /// Whether changes took half of the room that there is for them.
    pub(super) fn is_half_full(&self, tail: &Tail) -> bool {
        tail.next.saturating_sub(self.nodes.first_len()) > SEGMENTS << SEGMENT_BITS >> 1
    }

    /// Bytes of RAM.
    pub(super) fn bytes(&self) -> usize {
        self.nodes.bytes()
    }
}

/// The way to a unit.
#[derive(Default)]
struct Path {
    /// Each node with the slot that leads on.
    steps: Vec<(u32, usize)>,
    value: u32,
    /// The last unit of the range.
    last: u64,
    /// The last unit of the leaf.
    end: u64,
}

impl Node {
    fn fill(&self, items: &[(u64, u32)]) {
        // Published by the store of what leads here.
        self.lasts.iter().for_each(|last| last.store(u64::MAX, Relaxed));
        for (last, (end, _)) in self.lasts.iter().zip(items.iter().take(items.len().saturating_sub(1))) {
            last.store(*end, Relaxed);
        }
        self.values.iter().zip(items).for_each(|(value, (_, new))| value.store(*new, Relaxed));
    }

    fn items(&self) -> Items {
        let items = self.lasts.iter().zip(&self.values);
        let mut items: Items = items.map(|(last, value)| (last.load(Relaxed), value.load(Relaxed))).collect();
        let used = items.partition_point(|(last, _)| *last < u64::MAX);
        items.truncate(used + 1);
        items
    }

    /// Where a unit is: how many lasts are before it.
    #[inline]
    fn slot(&self, unit: u64) -> usize {
        let mut slot = 0;
        for step in [8, 4, 2, 1] {
            let last = self.lasts[(slot + step - 1) % FANOUT].load(Relaxed);
            slot += step * usize::from(last < unit);
        }
        slot
    }

    /// The greatest number for the last slot that is used, whose last unit is that of the node.
    #[inline]
    fn last(&self, slot: usize) -> u64 {
        self.lasts[slot % FANOUT].load(Relaxed)
    }

    #[inline]
    fn value(&self, slot: usize) -> u32 {
        self.values[slot % FANOUT].load(Acquire)
    }
}

/// Takes the ranges of all units, in order.
#[derive(Debug, Default)]
pub(super) struct Builder {
    nodes: Vec<Node>,
    /// Of the leaf that is not full.
    open: Items,
    /// Each leaf's last unit and index.
    leaves: Items,
}

impl Builder {
    /// The units behind those so far, up to this one, have the value.
    pub(super) fn push(&mut self, last: u64, value: u32) {
        self.open.push((last, value));
        if self.open.len() == BUILT_ITEMS {
            self.close();
        }
    }

    fn close(&mut self) {
        if let Some((last, _)) = self.open.last() {
            self.leaves.push((*last, self.nodes.len() as u32));
            let node = Node::default();
            node.fill(&self.open);
            self.nodes.push(node);
            self.open.clear();
        }
    }

    pub(super) fn finish(mut self) -> Starts {
        self.close();
        let mut levels = 0;
        let mut level = self.leaves;
        while level.len() > 1 {
            let mut above = Items::with_capacity(level.len() / BUILT_ITEMS + 1);
            for items in level.chunks(BUILT_ITEMS) {
                above.push((items.last().map_or(0, |(last, _)| *last), self.nodes.len() as u32));
                let node = Node::default();
                node.fill(items);
                self.nodes.push(node);
            }
            level = above;
            levels += 1;
        }
        let root = level.first().map_or(0, |(_, root)| u64::from(*root));
        let nodes = Arena::new(self.nodes.into(), SEGMENT_BITS, SEGMENTS);
        Starts { root: AtomicU64::new(levels << 32 | root), nodes }
    }
}

/// Slots of a node.
const FANOUT: usize = 16;
/// Of a node that is built: the others are room, so that a new border does not make two nodes of each on its way.
const BUILT_ITEMS: usize = 13;
/// Words of 32 bits.
pub(super) const NODE_WORDS: usize = size_of::<Node>() / 4;
/// More than two new borders make, of two nodes on each of eleven levels.
const CHANGE_NODES_MAX: usize = 64;
/// Nodes that come by changes: segments of 192 KiB, 192 MiB at most.
const SEGMENT_BITS: u32 = 10;
const SEGMENTS: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// Ranges by their last unit.
    type Model = BTreeMap<u64, u32>;

    fn paint(model: &mut Model, first: u64, last: u64, value: u32) {
        let behind = first.checked_sub(1).map(|before| (before, at(model, before).0));
        let (under, _) = at(model, last);
        model.retain(|end, _| *end < first || *end > last);
        model.extend(behind);
        if !model.contains_key(&last) && model.range(last..).next().is_none() {
            model.insert(u64::MAX, under);
        }
        model.insert(last, value);
    }

    /// The value of a unit, and the last unit of its range.
    fn at(model: &Model, unit: u64) -> (u32, u64) {
        model.range(unit..).next().map_or((0, u64::MAX), |(last, value)| (*value, *last))
    }

    /// As large as it takes for the root to be split more than once, with borders in any order.
    #[test]
    fn a_tree_answers_as_a_list_of_ranges_does() {
        let mut random = SmallRng::seed_from_u64(5);
        for (built, bits) in [(0, 64), (0, 13), (1, 64), (13, 10), (14, 64), (5_000, 20)] {
            let mut model = Model::new();
            let mut starts: Vec<u64> = (0..built).map(|_| random.random::<u64>() >> (64 - bits)).collect();
            starts.extend([u64::MAX]);
            starts.sort_unstable();
            starts.dedup();
            let mut builder = Builder::default();
            for last in starts {
                let value = random.random_range(0..9);
                builder.push(last, value);
                model.insert(last, value);
            }
            let tree = builder.finish();
            let mut tail = tree.tail();
            check(&tree, &model, &mut random);
            for round in 0..6_000 {
                let one = random.random::<u64>() >> (64 - bits);
                let other =
                    if round % 3 == 0 { one } else { one.saturating_add(random.random::<u64>() >> (66 - bits)) };
                let other = if round % 97 == 0 { u64::MAX - round / 97 } else { other };
                let (first, last) = (one.min(other), one.max(other));
                // Few large ones: what they cover has no borders then, in the model.
                let last = if round % 50 == 0 { last } else { last.min(first.saturating_add(1 << (bits / 2))) };
                assert!(tree.has_room(&tail));
                tree.paint(&mut tail, first, last, &mut |_| round as u32);
                paint(&mut model, first, last, round as u32);
                for unit in [first, last, first.wrapping_sub(1), last.wrapping_add(1)] {
                    assert_eq!(tree.get(unit), at(&model, unit).0, "{unit} in {first}..={last}");
                }
                if round % 500 == 0 {
                    check(&tree, &model, &mut random);
                }
            }
            check(&tree, &model, &mut random);
            let garbage = tail.garbage_nodes;
            tree.paint(&mut tail, 77, 88, &mut |_| 1);
            let once = tail.garbage_nodes;
            tree.paint(&mut tail, 77, 88, &mut |value| value + 1);
            assert_eq!((once, tree.get(80)), (tail.garbage_nodes, 2), "borders stay: no garbage, it was {garbage}");
        }
    }

    /// Everywhere: ranges have no gaps and end where the model's end or where a border was left.
    fn check(tree: &Starts, model: &Model, random: &mut SmallRng) {
        let mut unit = 0;
        loop {
            let (value, last) = tree.run(unit);
            let (expected, end) = at(model, unit);
            assert!(
                value == expected && (unit..=end).contains(&last),
                "{unit}: {value} to {last}, not {expected} to {end}"
            );
            assert_eq!((tree.get(unit), tree.get(last)), (value, value));
            let inside = random.random_range(unit..=last);
            assert_eq!((tree.get(inside), tree.run(inside)), (value, (value, last)));
            let Some(next) = last.checked_add(1) else { return };
            unit = next;
        }
    }

    #[test]
    fn a_change_beneath_a_full_path_has_its_room() {
        // Eleven levels of nodes of at least eight are more units than a table may have prefixes' borders.
        assert!(8_u64.pow(11) > 4 * (1 << 22) && CHANGE_NODES_MAX > 2 * 2 * 11);
        assert_eq!((size_of::<Node>(), align_of::<Node>()), (192, 64));
    }
}
