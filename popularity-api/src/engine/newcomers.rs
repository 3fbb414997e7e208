//! What a full region has seen of files that it does not rate: a sketch that decides who is let in. Pure.
//!
//! ```text
//!   a report of a file that a full region does not rate
//!      its mark is here (it was seen lately), or it brings several downloads at once
//!           and with all it has it is above the region's lowest       -> rated; one of the lowest goes
//!      else                                                           -> it waits here, and takes the place of the
//!                                                                        lowest of the seven others in its row
//! ```
//!
//! So a flood of files that nobody asks for again changes nothing but this sketch, and a file that comes back
//! brings along what it had.
//!
//! A mark is 32 bits of a hash that everybody can compute, in one of many rows that the keyed hash picks: a file is
//! taken for another one once in 500 million, and nobody can choose which. What waits is not written to disk: after a start
//! every newcomer is new again.

use super::files::Tag;
use super::packed::{Packed, Sums};

/// The sketch of one region: eight bytes a place.
#[derive(Debug)]
pub(super) struct Newcomers {
    rows: Vec<[Newcomer; ROW]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Newcomer {
    mark: u32,
    /// `log2` of what it has, by the long half-life; see `packed.rs`.
    days: u32,
}

impl Newcomers {
    /// One place for eight pairs that the region may have: a byte a pair.
    pub(super) fn new(pairs_max: usize) -> Self {
        Self { rows: vec![[Newcomer::default(); ROW]; (pairs_max / 8 / ROW).max(1)] }
    }

    /// Counts downloads of a file; all it has now if it was here, and nothing if it is new.
    pub(super) fn count(&mut self, tag: Tag, mark: u32, arrival: Packed, sums: Sums, salt: u32) -> Option<Packed> {
        let mark = mark.max(1);
        let row = ((u64::from(tag.0) * self.rows.len() as u64) >> 32) as usize;
        let row = &mut self.rows[row];
        if let Some(known) = row.iter_mut().find(|newcomer| newcomer.mark == mark) {
            let so_far = Packed { days: known.days, ..arrival };
            let days = sums.add(so_far, arrival, salt).days;
            known.days = days;
            return Some(Packed { hour: arrival.hour, days });
        }
        let behind = |newcomer: &&mut Newcomer| match newcomer.mark {
            0 => i32::MIN,
            _ => newcomer.days.wrapping_sub(arrival.days).cast_signed(),
        };
        let place = row.iter_mut().min_by_key(behind).expect("a row has eight places");
        *place = Newcomer { mark, days: arrival.days };
        None
    }

    /// A file is rated now.
    pub(super) fn forget(&mut self, tag: Tag, mark: u32) {
        let row = ((u64::from(tag.0) * self.rows.len() as u64) >> 32) as usize;
        for newcomer in self.rows[row].iter_mut().filter(|newcomer| newcomer.mark == mark.max(1)) {
            *newcomer = Newcomer::default();
        }
    }

    /// Bytes of RAM.
    pub(super) const fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<[Newcomer; ROW]>()
    }
}

/// Places of a row: one line of the processor's cache.
const ROW: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_back_is_known_and_has_the_sum() {
        let (mut newcomers, sums) = (Newcomers::new(64), Sums::table());
        assert_eq!(newcomers.count(Tag(1), 7, one(0), sums, 0), None);
        assert_eq!(newcomers.count(Tag(1), 8, one(0), sums, 0), None, "another mark");
        assert_eq!(newcomers.count(Tag(1), 7, one(0), sums, 0), Some(Packed { hour: 0, days: 1 << 20 }));
        newcomers.forget(Tag(1), 7);
        assert_eq!(newcomers.count(Tag(1), 7, one(0), sums, 0), None);
    }

    #[test]
    fn who_has_least_gives_way() {
        let (mut newcomers, sums) = (Newcomers::new(64), Sums::table());
        // Ten half-lives' worth, on both sides of where the numbers go round.
        for mark in 1..=10_u32 {
            assert_eq!(newcomers.count(Tag(0), mark, one(0_u32.wrapping_sub(5).wrapping_add(mark)), sums, 0), None);
        }
        for mark in 3..=10 {
            assert!(newcomers.count(Tag(0), mark, one(9), sums, 0).is_some(), "{mark}");
        }
        assert_eq!(newcomers.count(Tag(0), 1, one(9), sums, 0), None);
    }

    fn one(at: u32) -> Packed {
        Packed { hour: at, days: at }
    }
}
