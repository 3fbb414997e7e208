//! What changed in the published table: for followers, and for people.
//!
//! ```text
//!   sequence   1 2 3 4 5 6 7 8 9      oldest changes go when there are too many
//!                    [- kept --]      a follower at 3 or later gets the rest, one at 2 the whole table
//! ```
//!
//! When a table is built anew, no changes lead there: the sequence rises by one, and nothing before it is kept.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::table::Leaf;
use crate::topology::RegionId;
use crate::wire::{Change, Changes, Position};

/// The last changes.
#[derive(Debug)]
pub(super) struct Log {
    epoch: u64,
    /// Of the last change.
    sequence: u64,
    kept: VecDeque<Change>,
    kept_max: usize,
}

impl Log {
    pub(super) const fn new(epoch: u64, kept_max: usize) -> Self {
        Self { epoch, sequence: 0, kept: VecDeque::new(), kept_max }
    }

    pub(super) const fn position(&self) -> Position {
        Position { epoch: self.epoch, sequence: self.sequence }
    }

    pub(super) fn push(&mut self, prefix: IpNet, leaf: Option<Leaf>) {
        self.sequence += 1;
        self.kept.push_back(Change { prefix, leaf });
        self.shorten(self.kept_max);
    }

    /// The table is another one.
    pub(super) fn begin_anew(&mut self) {
        self.sequence += 1;
        self.kept = VecDeque::new();
    }

    /// From now on so many are kept.
    pub(super) fn shorten(&mut self, kept_max: usize) {
        self.kept_max = kept_max;
        let surplus = self.kept.len().saturating_sub(kept_max);
        self.kept.drain(..surplus);
    }

    /// Where in the kept ones those after a position begin.
    pub(super) fn reaches(&self, after: Position) -> Option<usize> {
        let missing = usize::try_from(self.sequence.checked_sub(after.sequence)?).ok()?;
        (after.epoch == self.epoch).then(|| self.kept.len().checked_sub(missing))?
    }

    /// The first `most` changes after a position; none when they are not known.
    pub(super) fn after(&self, after: Position, most: usize) -> Option<Changes> {
        let changes: Vec<Change> = self.kept.iter().skip(self.reaches(after)?).take(most).cloned().collect();
        let count = u64::try_from(changes.len()).unwrap_or(u64::MAX);
        Some(Changes { epoch: self.epoch, sequence: after.sequence.saturating_add(count), changes })
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }
}

/// A prefix whose first regions changed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Move {
    pub(super) at: Instant,
    pub(super) prefix: IpNet,
    /// Empty: it was not in the table.
    pub(super) from: Vec<RegionId>,
    /// Empty: it is not in the table any more.
    pub(super) to: Vec<RegionId>,
}

/// The moves of the last day, at most [`MOVES_MAX`].
#[derive(Debug, Default)]
pub(super) struct Moves {
    last: VecDeque<Move>,
    forgotten: u64,
}

impl Moves {
    pub(super) fn push(&mut self, moved: Move) {
        while self.last.front().is_some_and(|first| moved.at.saturating_duration_since(first.at) > DAY) {
            self.last.pop_front();
        }
        if self.last.len() >= MOVES_MAX {
            self.last.pop_front();
            self.forgotten += 1;
        }
        self.last.push_back(moved);
    }

    /// Of the last day, newest first.
    pub(super) fn recent(&self, now: Instant) -> impl Iterator<Item = &Move> {
        self.last.iter().rev().take_while(move |moved| now.saturating_duration_since(moved.at) <= DAY)
    }

    /// Moves that may be of the last day and were not kept, since the start.
    pub(super) const fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

const DAY: Duration = Duration::from_secs(86_400);
/// Some 100 bytes each.
const MOVES_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_gets_what_comes_after_it_or_the_whole_table() {
        let mut log = Log::new(7, 3);
        for index in 1..=5_u8 {
            log.push(net(index), None);
        }
        check(&log, 5, "5:");
        check(&log, 4, "5: 5");
        check(&log, 2, "4: 3 4"); // At most two at a time.
        check(&log, 1, "gone");
        check(&log, 6, "gone"); // From the future.
        assert_eq!(log.after(Position { epoch: 8, sequence: 5 }, 2), None);
        log.begin_anew();
        check(&log, 5, "gone");
        check(&log, 6, "6:");
        log.push(net(7), None);
        check(&log, 6, "7: 7");
        log.shorten(0);
        check(&log, 6, "gone");
        check(&log, 7, "7:");
    }

    #[test]
    fn moves_are_of_the_last_day() {
        let (mut moves, start) = (Moves::default(), Instant::now());
        let hour = Duration::from_secs(3600);
        for index in 0..30_u8 {
            let at = start + u32::from(index) * hour;
            moves.push(Move { at, prefix: net(index), from: Vec::new(), to: Vec::new() });
        }
        assert_eq!(moves.last.len(), 25);
        let recent: Vec<IpNet> = moves.recent(start + 50 * hour).map(|moved| moved.prefix).collect();
        assert_eq!(recent, [net(29), net(28), net(27), net(26)]);
        for _ in 0..MOVES_MAX {
            moves.push(Move { at: start + 29 * hour, prefix: net(1), from: Vec::new(), to: Vec::new() });
        }
        assert_eq!((moves.last.len(), moves.forgotten()), (MOVES_MAX, 25));
    }

    #[track_caller]
    fn check(log: &Log, sequence: u64, expected: &str) {
        let told = log.after(Position { epoch: 7, sequence }, 2).map_or("gone".to_owned(), |changes| {
            let numbers = changes.changes.iter().map(|change| match change.prefix.addr() {
                std::net::IpAddr::V4(v4) => format!(" {}", v4.octets()[0]),
                std::net::IpAddr::V6(_) => unreachable!(),
            });
            format!("{}:{}", changes.sequence, numbers.collect::<String>())
        });
        assert_eq!(told, expected, "after {sequence}");
    }

    fn net(index: u8) -> IpNet {
        IpNet::new([index, 0, 0, 0].into(), 8).unwrap()
    }
}
