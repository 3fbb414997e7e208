//! What moves between two tables: which share of addresses goes from which region to which other. Pure.
//!
//! ```text
//!   before   |---- 4 ----|-- 5 --|------- none -------|
//!   after    |-- 4 --|------ 5 ------|----- 6 --|-none-|
//!                    ^^^^^       ^^^^ ^^^^^^^^^^^
//!                    4 -> 5      none -> 5, none -> 6
//! ```
//!
//! Both are ascending ranges without gaps or overlaps. A /24 (or /48) is where its first address is, so that blocks sum up to
//! what there is however the ranges cut them. What neither table knows anything of is not counted.

use std::collections::BTreeMap;
use std::fmt;

use crate::topology::RegionId;

/// Regions that are first for a range's clients, ascending: one, or several that are equally good. Empty: nothing is known.
pub type Firsts = Vec<RegionId>;

/// What a range of addresses says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Range {
    /// The first address, as a number.
    pub first: u128,
    /// The last, inclusive: the whole of IPv6 has no end that would fit.
    pub last: u128,
    /// Who serves them.
    pub firsts: Firsts,
}

/// The difference of one family.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moves {
    /// Everything that one of the tables knows something of.
    pub known: Count,
    /// What moved, by from and to.
    pub moved: BTreeMap<(Firsts, Firsts), Count>,
}

/// How much it is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Count {
    /// Addresses; exact up to 2^53 of them, which all of IPv4 is far below.
    pub addresses: f64,
    /// /24s of IPv4, /48s of IPv6.
    pub blocks: u64,
}

impl Count {
    /// The addresses `first..=last` of blocks of `2^block_bits` addresses.
    fn of(first: u128, last: u128, block_bits: u32) -> Self {
        // Starts of blocks before an address, and up to and with it.
        let before = |address: u128| address.checked_sub(1).map_or(0, |address| (address >> block_bits) + 1);
        let blocks = ((last >> block_bits) + 1).saturating_sub(before(first));
        Self { addresses: (last - first) as f64 + 1.0, blocks: u64::try_from(blocks).unwrap_or(u64::MAX) }
    }

    fn add(&mut self, other: Self) {
        self.addresses += other.addresses;
        self.blocks = self.blocks.saturating_add(other.blocks);
    }
}

/// The difference of two tables' ranges of one family; `block_bits` is 8 for /24s of IPv4, 80 for /48s of IPv6. Those of whom
/// nothing is known are in the `default` region, where that is told, and do not move when a table says the same of them.
pub fn diff(
    before: impl Iterator<Item = Range>,
    after: impl Iterator<Item = Range>,
    block_bits: u32,
    default: Option<RegionId>,
) -> Moves {
    let default: Firsts = default.into_iter().collect();
    let served_by = |firsts: &Firsts| if firsts.is_empty() { default.clone() } else { firsts.clone() };
    let (mut before, mut after) = (before.peekable(), after.peekable());
    let mut moves = Moves::default();
    let mut first = 0;
    while let (Some(old), Some(new)) = (before.peek(), after.peek()) {
        let last = old.last.min(new.last);
        // Only ranges out of order would end before they begin; they are skipped.
        if last >= first && (!old.firsts.is_empty() || !new.firsts.is_empty()) {
            let count = Count::of(first, last, block_bits);
            moves.known.add(count);
            if served_by(&old.firsts) != served_by(&new.firsts) {
                moves.moved.entry((old.firsts.clone(), new.firsts.clone())).or_default().add(count);
            }
        }
        let (old_ends, new_ends) = (old.last == last, new.last == last);
        if old_ends {
            before.next();
        }
        if new_ends {
            after.next();
        }
        let Some(next) = last.checked_add(1) else { break };
        first = next;
    }
    moves
}

impl Moves {
    /// All that moved.
    #[must_use]
    pub fn total(&self) -> Count {
        let mut total = Count::default();
        self.moved.values().for_each(|&count| total.add(count));
        total
    }
}

/// "4", "4=5" for two that are equally good, "-" where nothing is known.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a>(pub &'a [RegionId]);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("-");
        }
        for (index, region) in self.0.iter().enumerate() {
            write!(f, "{}{region}", if index == 0 { "" } else { "=" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const V4: u128 = 0xffff_ffff;

    #[test]
    fn what_is_the_same_does_not_move() {
        check("4@255 -@max", "4@255 -@max", "known 256/1");
        check("4@127 4@255 -@max", "4@255 -@max", "known 256/1");
        check("-@max", "-@max", "known 0/0");
        check("4@max", "4@max", "known 4294967296/16777216");
    }

    #[test]
    fn what_differs_is_counted_by_from_and_to() {
        check("4@255 -@max", "5@255 -@max", "known 256/1, 4>5 256/1");
        check("4@511 5@1023 -@max", "4@255 5@1279 6@1535 -@max", "known 1536/6, ->5 256/1, ->6 256/1, 4>5 256/1");
        check("4@255 -@max", "-@max", "known 256/1, 4>- 256/1");
        check("4@max", "4=5@max", "known 4294967296/16777216, 4>4=5 4294967296/16777216");
    }

    #[test]
    fn who_is_unknown_and_stays_in_the_default_region_does_not_move() {
        check_with(Some(4), "-@255 5@511 -@max", "4@511 -@max", "known 512/2, 5>4 256/1");
        check_with(Some(4), "4@255 -@max", "-@max", "known 256/1");
        check_with(Some(4), "-@255 -@max", "5@255 -@max", "known 256/1, ->5 256/1");
        check_with(None, "-@255 -@max", "4@255 -@max", "known 256/1, ->4 256/1");
    }

    #[test]
    fn a_block_is_where_its_first_address_is() {
        check("4@255 -@max", "5@127 4@255 -@max", "known 256/1, 4>5 128/1");
        check("4@255 -@max", "4@127 5@255 -@max", "known 256/1, 4>5 128/0");
    }

    #[test]
    fn all_of_ipv6_has_an_end() {
        let range = |firsts: &[u16]| Range { first: 0, last: u128::MAX, firsts: regions(firsts) };
        let moves = diff([range(&[4])].into_iter(), [range(&[5])].into_iter(), 80, None);
        assert_eq!(moves.total(), Count { addresses: 2_f64.powi(128), blocks: 1 << 48 });
    }

    proptest! {
        #[test]
        fn a_sweep_finds_what_looking_at_each_address_does(
            before in prop::collection::vec((0_u128..600, 3_u16..6), 0..8),
            after in prop::collection::vec((0_u128..600, 3_u16..6), 0..8),
        ) {
            let (before, after) = (ranges(before), ranges(after));
            let moves = diff(before.iter().cloned(), after.iter().cloned(), 4, None);
            let at = |ranges: &[Range], address: u128| {
                ranges.iter().find(|range| range.last >= address).map(|range| range.firsts.clone()).unwrap()
            };
            let mut expected = Moves::default();
            for address in 0..640 {
                let (old, new) = (at(&before, address), at(&after, address));
                let one = Count { addresses: 1.0, blocks: u64::from(address % 16 == 0) };
                if !old.is_empty() || !new.is_empty() {
                    expected.known.add(one);
                }
                if old != new {
                    expected.moved.entry((old, new)).or_default().add(one);
                }
            }
            prop_assert_eq!(moves, expected);
        }
    }

    /// Ranges up to 639 from their ends; 3 stands for nothing.
    fn ranges(mut ends: Vec<(u128, u16)>) -> Vec<Range> {
        ends.sort_unstable();
        ends.dedup_by_key(|(end, _)| *end);
        ends.push((639, 3));
        let mut first = 0;
        let mut range = |(last, region): (u128, u16)| {
            let firsts = if region == 3 { vec![] } else { regions(&[region]) };
            Range { first: std::mem::replace(&mut first, last + 1), last, firsts }
        };
        ends.into_iter().map(&mut range).collect()
    }

    fn regions(numbers: &[u16]) -> Firsts {
        numbers.iter().copied().map(RegionId).collect()
    }

    /// Tables are `REGIONS@LAST`; the answer is `addresses/blocks` of what is known and of every move.
    #[track_caller]
    fn check(before: &str, after: &str, expected: &str) {
        check_with(None, before, after, expected);
    }

    #[track_caller]
    fn check_with(default: Option<u16>, before: &str, after: &str, expected: &str) {
        let table = |text: &str| -> Vec<Range> {
            let mut first = 0;
            let mut range = |word: &str| {
                let (names, last) = word.split_once('@').unwrap();
                let last = if last == "max" { V4 } else { last.parse().unwrap() };
                let firsts = names.split('=').filter(|name| *name != "-").map(|name| RegionId(name.parse().unwrap()));
                Range { first: std::mem::replace(&mut first, last + 1), last, firsts: firsts.collect() }
            };
            text.split(' ').map(&mut range).collect()
        };
        let moves = diff(table(before).into_iter(), table(after).into_iter(), 8, default.map(RegionId));
        let mut found = format!("known {}/{}", moves.known.addresses, moves.known.blocks);
        for ((from, to), count) in &moves.moved {
            found += &format!(", {}>{} {}/{}", Named(from), Named(to), count.addresses, count.blocks);
        }
        assert_eq!(found, expected);
    }
}
