//! What a follower asks next, given what it has and what the last answer was. Pure: no socket, no clock.
//!
//! ```text
//!               copy on disk? --yes--+
//!                     | no           v
//!                     |        +--> changes after (epoch, sequence), long poll --+
//!                     v        |        | 410, or an answer that cannot be ours  | changes, none: the position moves
//!               whole table <--|--------+                                        |
//!                     |        +<------------------------------------------------+
//!                     +--------^
//!   a failure of either: the same question again, after a pause that doubles
//! ```
//!
//! # Invariants
//!
//! - The position is that of the table that the follower holds: every change up to it was given out to be applied, and
//!   none behind it.
//! - A position of another epoch is never mixed with ours, and changes that do not add up are none: a sequence is one change.
//! - A server that answers nothing, and at once, is not asked at wire speed.

use std::time::Duration;

use crate::wire::{CHANGES_MAX, Changes, Position};

/// A follower's state.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Course {
    at: Option<Position>,
    /// Only the whole table will do.
    whole: bool,
    /// Of the last questions.
    failures: u32,
    /// Whole tables since changes were last heard: a server whose changes never reach back to its own table must not
    /// be asked for tables without a pause.
    tables: u32,
    /// The last answer was that nothing changed, and came sooner than it may.
    hurried: bool,
}

/// A question.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ask {
    /// The whole table, unless it is this one.
    Table(Option<Position>),
    /// What changed after it.
    Changes(Position),
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Heard<'a> {
    /// A whole table, decoded and in use.
    Table(Position),
    /// The table is the one we have.
    Same,
    /// Changes, not applied yet, and how long the server took for them.
    Changes(&'a Changes, Duration),
    /// The server does not know what changed.
    Gone,
    /// No answer, or one that is of no use.
    Failed,
}

/// What to do with an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Then {
    /// Nothing more.
    Go,
    /// Apply the changes.
    Apply,
    /// They are not changes of what we have: nothing is applied, the whole table comes next.
    Doubt,
}

impl Course {
    /// Begins with a copy, or with nothing.
    pub(super) fn from(at: Option<Position>) -> Self {
        Self { at, ..Self::default() }
    }

    /// Of the table that the follower holds.
    pub(super) const fn at(&self) -> Option<Position> {
        self.at
    }

    /// What to ask, and how long to wait before.
    pub(super) fn next(&self) -> (Ask, Duration) {
        match self.at {
            Some(at) if !self.whole => (Ask::Changes(at), pause(self.failures.max(self.hurried.into()))),
            _ => (Ask::Table(self.at), pause(self.failures.max(self.tables))),
        }
    }

    /// Takes the answer to [`Course::next`].
    pub(super) fn heard(&mut self, heard: Heard<'_>) -> Then {
        if heard != Heard::Failed {
            self.failures = 0;
        }
        self.hurried = false;
        match heard {
            Heard::Table(position) => {
                self.at = Some(position);
                self.whole = false;
                self.tables = self.tables.saturating_add(1);
            }
            Heard::Same => {
                self.whole = false;
                self.tables = self.tables.saturating_add(1);
            }
            Heard::Changes(changes, took) => return self.changes(changes, took),
            Heard::Gone => self.whole = true,
            Heard::Failed => self.failures = self.failures.saturating_add(1),
        }
        Then::Go
    }

    fn changes(&mut self, changes: &Changes, took: Duration) -> Then {
        let count = changes.changes.len();
        let sound = self.at.is_some_and(|at| {
            let moved = changes.sequence.checked_sub(at.sequence);
            changes.epoch == at.epoch && moved == u64::try_from(count).ok() && count <= CHANGES_MAX
        });
        if !sound {
            self.whole = true;
            self.failures = self.failures.saturating_add(1);
            return Then::Doubt;
        }
        self.at = Some(Position { epoch: changes.epoch, sequence: changes.sequence });
        self.tables = 0;
        self.hurried = count == 0 && took < WAIT / 2;
        if count == 0 { Then::Go } else { Then::Apply }
    }
}

/// Before the n-th try: at once, then 0.5 s, 1 s, 2 s, ... 16 s.
fn pause(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        _ => AGAIN * (1 << (failures - 1).min(DOUBLINGS_MAX)),
    }
}

/// How long a question waits at the server for a change; an answer that nothing changed is expected no sooner, and half
/// of it is taken for a server that waits less. Shorter: more questions. Longer: a connection that is dead without a sign is
/// noticed later.
pub(super) const WAIT: Duration = Duration::from_secs(5);

/// The first pause. Shorter: a server that comes back is stormed. Longer: what it knows is late.
const AGAIN: Duration = Duration::from_millis(500);
const DOUBLINGS_MAX: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Change;

    #[test]
    fn a_follower_takes_the_table_once_and_then_changes() {
        check(None, &[], "table of none, 0 ms");
        check(None, &["table 7-3"], "changes after 7-3, 0 ms");
        check(None, &["table 7-3", "changes 7-3 0"], "changes after 7-3, 0 ms");
        check(None, &["table 7-3", "changes 7-5 2"], "changes after 7-5, 0 ms");
        check(None, &["table 7-3", "changes 7-5 2", "changes 7-9 4"], "changes after 7-9, 0 ms");
    }

    #[test]
    fn a_copy_on_disk_spares_the_table() {
        check(Some("7-3"), &[], "changes after 7-3, 0 ms");
        check(Some("7-3"), &["changes 7-4 1"], "changes after 7-4, 0 ms");
    }

    #[test]
    fn what_the_server_no_longer_knows_costs_one_table() {
        check(Some("7-3"), &["gone"], "table of 7-3, 0 ms");
        check(Some("7-3"), &["gone", "table 9-1"], "changes after 9-1, 0 ms");
        check(Some("7-3"), &["gone", "same"], "changes after 7-3, 0 ms");
        check(Some("7-3"), &["gone", "failed"], "table of 7-3, 500 ms");
    }

    #[test]
    fn a_server_that_is_away_is_asked_less_and_less_often() {
        check(None, &["failed"], "table of none, 500 ms");
        check(Some("7-3"), &["failed"], "changes after 7-3, 500 ms");
        check(Some("7-3"), &["failed", "failed", "failed"], "changes after 7-3, 2000 ms");
        check(Some("7-3"), &["failed"; 100], "changes after 7-3, 16000 ms");
        check(Some("7-3"), &["failed", "failed", "changes 7-3 0"], "changes after 7-3, 0 ms");
        check(Some("7-3"), &["failed", "gone"], "table of 7-3, 0 ms");
    }

    #[test]
    fn tables_that_are_gone_at_once_are_not_fetched_in_a_circle() {
        check(None, &["table 7-3", "gone"], "table of 7-3, 500 ms");
        check(None, &["table 7-3", "gone", "table 7-9", "gone"], "table of 7-9, 1000 ms");
        check(None, &["table 7-3", "gone", "same", "gone"], "table of 7-3, 1000 ms");
        check(None, &["table 7-3", "gone", "table 7-9", "changes 7-9 0", "gone"], "table of 7-9, 0 ms");
    }

    #[test]
    fn changes_that_cannot_be_ours_are_not_applied() {
        check(Some("7-3"), &["doubt 8-4 1"], "table of 7-3, 500 ms");
        check(Some("7-3"), &["doubt 7-2 1"], "table of 7-3, 500 ms");
        check(Some("7-3"), &["doubt 7-3 1"], "table of 7-3, 500 ms");
        check(Some("7-3"), &["doubt 7-10004 10001"], "table of 7-3, 500 ms");
        check(Some("7-3"), &["changes 7-10003 10000"], "changes after 7-10003, 0 ms");
        // Some are missing, all are missing, there are too many.
        check(Some("7-3"), &["doubt 7-9 1"], "table of 7-3, 500 ms");
        check(Some("7-3"), &["doubt 7-103 0"], "table of 7-3, 500 ms");
        check(Some("7-3"), &["doubt 7-4 2"], "table of 7-3, 500 ms");
        check(Some("7-3"), &["doubt 8-4 1", "table 8-4"], "changes after 8-4, 0 ms");
    }

    #[test]
    fn a_server_that_has_nothing_to_say_at_once_is_not_asked_at_wire_speed() {
        check(Some("7-3"), &["changes 7-3 0 0s"], "changes after 7-3, 500 ms");
        check(Some("7-3"), &["changes 7-3 0 0s"; 9], "changes after 7-3, 500 ms");
        check(Some("7-3"), &["changes 7-3 0 2s"], "changes after 7-3, 500 ms");
        check(Some("7-3"), &["changes 7-3 0 3s"], "changes after 7-3, 0 ms");
        check(Some("7-3"), &["changes 7-3 0 0s", "changes 7-4 1 0s"], "changes after 7-4, 0 ms");
        check(Some("7-3"), &["changes 7-3 0 0s", "gone"], "table of 7-3, 0 ms");
    }

    /// `events` are answers: "table E-N", "same", "gone", "failed", "changes E-N COUNT" or, where the answer did not take as long
    /// as it may, "changes E-N COUNT 0s", and "doubt E-N COUNT" for changes that must not be applied.
    #[track_caller]
    fn check(copy: Option<&str>, events: &[&str], expected: &str) {
        let position = |text: &str| text.parse::<Position>().unwrap();
        let mut course = Course::from(copy.map(position));
        for event in events {
            let words: Vec<&str> = event.split(' ').collect();
            let then = match words[..] {
                ["table", at] => course.heard(Heard::Table(position(at))),
                ["same"] => course.heard(Heard::Same),
                ["gone"] => course.heard(Heard::Gone),
                ["failed"] => course.heard(Heard::Failed),
                [_, at, count, ref took @ ..] => {
                    let took = took.first().map_or(5, |took| took.trim_end_matches('s').parse().unwrap());
                    let change = Change { prefix: "192.0.2.0/24".parse().unwrap(), leaf: None };
                    let Position { epoch, sequence } = position(at);
                    let changes = Changes { epoch, sequence, changes: vec![change; count.parse().unwrap()] };
                    course.heard(Heard::Changes(&changes, Duration::from_secs(took)))
                }
                _ => panic!("{event}"),
            };
            let wanted = match words[0] {
                "doubt" => Then::Doubt,
                "changes" if words[2] != "0" => Then::Apply,
                _ => Then::Go,
            };
            assert_eq!(then, wanted, "{event}");
        }
        let (ask, pause) = course.next();
        let at = course.at().map_or("none".to_owned(), |at| at.to_string());
        let ask = match ask {
            Ask::Table(have) => format!("table of {}", have.map_or("none".to_owned(), |have| have.to_string())),
            Ask::Changes(after) => format!("changes after {after}"),
        };
        assert!(ask.ends_with(&at), "{ask} at {at}");
        assert_eq!(format!("{ask}, {} ms", pause.as_millis()), expected, "{events:?}");
    }
}
