//! The ground under the prefixes: what a geoip file says of every address, as ranges that never change.
//!
//! It is shared by a table and the one built after it, so that rebuilding for routes costs nothing here. Ranges are kept as
//! a tree: some 16 bytes a range.

use std::sync::Arc;

use super::leaf::Leaf;
use super::trie::{Builder, Shape, Trie};

/// What geoip says. A clone is the same one.
#[derive(Clone, Debug)]
pub struct Base(Arc<Ground>);

#[derive(Debug)]
struct Ground {
    v4: Trie,
    v6: Trie,
    leaves: Box<[Leaf]>,
    ranges_v4: usize,
    ranges_v6: usize,
}

/// The ranges that a [`Base`] is made of. Each goes from its start up to the next one's; before the first there is nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ranges {
    /// First address, and the index of the leaf or [`NOTHING`]. In order, none twice; of equal starts the last counts.
    pub v4: Vec<(u32, u32)>,
    /// The same.
    pub v6: Vec<(u128, u32)>,
    /// The leaves that the ranges name.
    pub leaves: Vec<Leaf>,
}

/// In the place of a leaf's index: nothing is known of this range.
pub const NOTHING: u32 = u32::MAX;

impl Base {
    /// Of ranges in order; what is out of order is left out, and so is a leaf that is not there or beyond a leaf's bounds.
    /// What has no room in 256 MiB of nodes for each family says nothing: a WARN tells it.
    #[must_use]
    pub fn build(ranges: Ranges) -> Self {
        let known: Vec<bool> = ranges.leaves.iter().map(Leaf::fits).collect();
        let (v4, ranges_v4) = trie(ranges.v4.iter().map(|(start, leaf)| (u128::from(*start) << 96, *leaf)), &known);
        let (v6, ranges_v6) = trie(ranges.v6.iter().copied(), &known);
        let base = Self(Arc::new(Ground { v4, v6, leaves: ranges.leaves.into(), ranges_v4, ranges_v6 }));
        if base.is_cut() {
            tracing::warn!(
                ranges_v4,
                ranges_v6,
                "geoip has more ranges than the table has room for: some are left out"
            );
        }
        base
    }

    /// Whether some of it found no room.
    pub(super) fn is_cut(&self) -> bool {
        self.0.v4.is_cut() || self.0.v6.is_cut()
    }

    /// What it was built of, neighbours with equal leaves merged, without leaves that no range has.
    #[must_use]
    pub fn ranges(&self) -> Ranges {
        let leaf = |number: u32| number.wrapping_sub(1);
        let v4 = merged(&self.0.v4).map(|(start, number)| ((start >> 96) as u32, leaf(number)));
        let v6 = merged(&self.0.v6).map(|(start, number)| (start, leaf(number)));
        let (mut v4, mut v6): (Vec<_>, Vec<_>) = (v4.collect(), v6.collect());
        let named = || v4.iter().map(|(_, leaf)| *leaf).chain(v6.iter().map(|(_, leaf)| *leaf));
        let mut numbers = vec![NOTHING; self.0.leaves.len()];
        for leaf in named() {
            if let Some(number) = numbers.get_mut(leaf as usize) {
                *number = 0;
            }
        }
        let mut leaves = Vec::new();
        for (number, leaf) in numbers.iter_mut().zip(&*self.0.leaves).filter(|(number, _)| **number != NOTHING) {
            *number = leaves.len() as u32;
            leaves.push(leaf.clone());
        }
        let renumber = |leaf: &mut u32| *leaf = numbers.get(*leaf as usize).copied().unwrap_or(NOTHING);
        v4.iter_mut().for_each(|(_, leaf)| renumber(leaf));
        v6.iter_mut().for_each(|(_, leaf)| renumber(leaf));
        Ranges { v4, v6, leaves }
    }

    /// The number of a key: its leaf's index + 1; 0: nothing.
    pub(super) fn number(&self, v4: bool, key: u128) -> u32 {
        self.trie(v4).get(key)
    }

    /// The trie of a family.
    pub(super) fn trie(&self, v4: bool) -> &Trie {
        if v4 { &self.0.v4 } else { &self.0.v6 }
    }

    #[inline]
    pub(super) fn leaf(&self, number: u32) -> Option<&Leaf> {
        self.0.leaves.get((number as usize).checked_sub(1)?)
    }

    pub(super) fn counts(&self) -> (usize, usize) {
        (self.0.ranges_v4, self.0.ranges_v6)
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.v4.bytes() + self.0.v6.bytes() + size_of_val(&*self.0.leaves)
    }
}

/// Whether both say the same of every address, by the same leaves. Of two that are not the same one, both are gone through.
impl PartialEq for Base {
    fn eq(&self, other: &Self) -> bool {
        let (one, two) = (&*self.0, &*other.0);
        Arc::ptr_eq(&self.0, &other.0)
            || (one.leaves == two.leaves && merged(&one.v4).eq(merged(&two.v4)) && merged(&one.v6).eq(merged(&two.v6)))
    }
}

/// Nothing is known of any address.
impl Default for Base {
    fn default() -> Self {
        Self::build(Ranges::default())
    }
}

/// The trie, and how many ranges with a leaf it has.
fn trie(ranges: impl Iterator<Item = (u128, u32)>, known: &[bool]) -> (Trie, usize) {
    let mut builder = Builder::new(Shape::Starts);
    let (mut begun, mut before, mut pushed, mut count) = (0, 0, 0, 0);
    for (start, leaf) in ranges {
        if start < begun {
            continue;
        }
        begun = start;
        let known = known.get(leaf as usize).is_some_and(|known| *known);
        let number = if known { leaf + 1 } else { 0 };
        if number == before {
            continue;
        }
        before = number;
        pushed += 1;
        // The last one that there is room for goes on to the end, as if nothing were known from there on.
        if pushed < RANGES_MAX {
            builder.push(start, number);
            // Of several for one start the last counts, so this is one too many for each; files have none.
            count += usize::from(number != 0);
        } else {
            builder.cut(start);
            break;
        }
    }
    (builder.finish(), count)
}

/// First keys and numbers of ranges; the first only if it is not nothing.
fn merged(trie: &Trie) -> impl Iterator<Item = (u128, u32)> {
    let mut before = 0;
    trie.runs().filter_map(move |(first, _, number)| {
        let new = number != before;
        before = number;
        new.then_some((first, number))
    })
}

/// Ranges of one family, those of which nothing is known among them.
pub(super) const RANGES_MAX: usize = 1 << 23;
