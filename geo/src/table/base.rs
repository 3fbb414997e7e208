//! The ground under the prefixes: what a geoip file says of every address, as ranges that never change.
//!
//! It is shared by a table and the one built after it, so that rebuilding for routes costs nothing here. Ranges are kept as
//! a trie, without slots for each /24: a range is 4 bytes where its neighbours share a node with it.

use std::net::IpAddr;
use std::sync::Arc;

use super::leaf::Leaf;
use super::trie::{Builder, Trie};

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
    /// Of ranges in order; what is out of order is left out, and so is a leaf that is not there.
    #[must_use]
    pub fn build(ranges: Ranges) -> Self {
        let known = ranges.leaves.len();
        let (v4, ranges_v4) =
            trie(ROOT_BITS, ranges.v4.iter().map(|(start, leaf)| (u128::from(*start) << 96, *leaf)), known);
        let (v6, ranges_v6) = trie(ROOT_BITS, ranges.v6.iter().copied(), known);
        Self(Arc::new(Ground { v4, v6, leaves: ranges.leaves.into(), ranges_v4, ranges_v6 }))
    }

    /// What it was built of, neighbours with equal leaves merged.
    #[must_use]
    pub fn ranges(&self) -> Ranges {
        let leaf = |number: u32| number.wrapping_sub(1);
        let v4 = merged(&self.0.v4).map(|(start, number)| ((start >> 96) as u32, leaf(number)));
        let v6 = merged(&self.0.v6).map(|(start, number)| (start, leaf(number)));
        Ranges { v4: v4.collect(), v6: v6.collect(), leaves: self.0.leaves.to_vec() }
    }

    /// The number of an address: its leaf's index + 1; 0: nothing.
    #[inline]
    pub(super) fn number(&self, client: IpAddr) -> u32 {
        match client {
            IpAddr::V4(client) => self.0.v4.get_v4(client.into()),
            IpAddr::V6(client) => self.0.v6.get(client.into()),
        }
    }

    /// The trie of an address's family.
    #[inline]
    pub(super) fn trie(&self, client: IpAddr) -> &Trie {
        if client.is_ipv4() { &self.0.v4 } else { &self.0.v6 }
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
fn trie(root_bits: u32, ranges: impl Iterator<Item = (u128, u32)>, leaves: usize) -> (Trie, usize) {
    let mut builder = Builder::new(root_bits);
    let mut begun = 0;
    for (start, leaf) in ranges {
        if start < begun {
            continue;
        }
        begun = start;
        let known = leaf != NOTHING && (leaf as usize) < leaves;
        builder.push(start, if known { leaf + 1 } else { 0 });
    }
    let trie = builder.finish();
    let count = merged(&trie).filter(|(_, number)| *number != 0).count();
    (trie, count)
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

/// Slots for each /16: geoip ranges are anywhere, and one may go on to the last address, which would be 64 MiB of equal
/// slots for each /24.
const ROOT_BITS: u32 = 16;
