//! A content server that fails is left alone for a moment, so that misses are answered at once.
//!
//! ```text
//!            FAILURES in a row            OPEN_MS later
//!   closed ---------------------> open -----------------> half open: one question, the probe, goes through
//!     ^  ^                         ^                        |            |
//!     |  +-------------------------|---- anything succeeds -+            |
//!     +--- a question succeeds     +---------------- the probe fails ----+
//! ```
//!
//! Questions that were under way when it opened may still fail or succeed: their failures say nothing new, their
//! success closes it.

use std::collections::HashMap;

/// Breakers of all content servers. Pure: time is an argument, in milliseconds of any monotonic clock.
#[derive(Debug, Default)]
pub struct Breakers {
    /// Those that have failed lately; all others are closed.
    by_number: HashMap<u32, Breaker>,
}

#[derive(Clone, Copy, Debug)]
enum Breaker {
    Closed {
        /// In a row.
        failures: u32,
    },
    Open {
        until_ms: u64,
    },
    HalfOpen {
        /// From then on the probe counts as lost.
        probe_until_ms: u64,
    },
}

/// Leave to ask; to be given back with the verdict.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Leave {
    probe: bool,
}

impl Leave {
    /// Of a question that no breaker was asked about.
    pub const ORDINARY: Self = Self { probe: false };
}

impl Breakers {
    /// Whether a question may be asked now: in a half-open breaker one at a time.
    pub fn admits(&mut self, number: u32, now_ms: u64) -> Option<Leave> {
        let Some(breaker) = self.by_number.get_mut(&number) else { return Some(Leave::ORDINARY) };
        match *breaker {
            Breaker::Closed { .. } => return Some(Leave::ORDINARY),
            Breaker::Open { until_ms: wait_ms } | Breaker::HalfOpen { probe_until_ms: wait_ms } if now_ms < wait_ms => {
                return None;
            }
            Breaker::Open { .. } | Breaker::HalfOpen { .. } => {}
        }
        *breaker = Breaker::HalfOpen { probe_until_ms: now_ms + PROBE_MS };
        Some(Leave { probe: true })
    }

    /// Whether a question may be asked now that may end without a verdict, and so cannot be a probe: not while
    /// the breaker is open or a probe is out. Once it has been open for long enough such questions go through
    /// until the first of them fails.
    #[must_use]
    pub fn admits_unprobed(&self, number: u32, now_ms: u64) -> bool {
        match self.by_number.get(&number) {
            None | Some(Breaker::Closed { .. }) => true,
            Some(Breaker::Open { until_ms: wait_ms } | Breaker::HalfOpen { probe_until_ms: wait_ms }) => {
                now_ms >= *wait_ms
            }
        }
    }

    /// Whether nothing is held against the content server.
    #[must_use]
    pub fn closed(&self, number: u32) -> bool {
        matches!(self.by_number.get(&number), None | Some(Breaker::Closed { .. }))
    }

    /// The content server answered (whatever it said, short of a 5xx).
    pub fn succeeded(&mut self, number: u32) {
        self.by_number.remove(&number);
    }

    /// It could not be reached, did not answer in time, or answered 5xx.
    pub fn failed(&mut self, number: u32, leave: Leave, now_ms: u64) {
        let breaker = self.by_number.entry(number).or_insert(Breaker::Closed { failures: 0 });
        *breaker = match *breaker {
            Breaker::Closed { failures } if failures + 1 < FAILURES => Breaker::Closed { failures: failures + 1 },
            Breaker::HalfOpen { .. } if !leave.probe => return,
            Breaker::Open { until_ms } if now_ms < until_ms => return,
            Breaker::Closed { .. } | Breaker::Open { .. } | Breaker::HalfOpen { .. } => {
                Breaker::Open { until_ms: now_ms + OPEN_MS }
            }
        };
    }
}

/// Failures in a row that open a breaker.
pub const FAILURES: u32 = 5;
/// How long it stays open, milliseconds.
pub const OPEN_MS: u64 = 1000;
/// After so long without a verdict another probe goes through, milliseconds.
pub const PROBE_MS: u64 = 30_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row() {
        check("failed*4", 0, "ask");
        check("failed*5", 0, "wait");
        check("failed*4 ok failed*4", 0, "ask");
        check("failed*5", OPEN_MS - 1, "wait");
        check("failed*5", OPEN_MS, "probe");
    }

    #[test]
    fn half_open_lets_one_probe_through_at_a_time() {
        check("failed*5 later admits", OPEN_MS, "wait");
        check("failed*5 later admits", PROBE_MS, "wait");
        check("failed*5 later admits", OPEN_MS + PROBE_MS, "probe");
        check("failed*5 later admits ok", OPEN_MS, "ask");
        check("failed*5 later admits probe-failed", OPEN_MS, "wait");
        check("failed*5 later admits probe-failed", 2 * OPEN_MS - 1, "wait");
        check("failed*5 later admits probe-failed", 2 * OPEN_MS, "probe");
    }

    #[test]
    fn questions_from_before_decide_only_for_the_better() {
        check("failed*9", OPEN_MS, "probe");
        check("failed*5 later admits failed*9", OPEN_MS, "wait");
        check("failed*5 later admits failed*9 probe-failed", 2 * OPEN_MS, "probe");
        check("failed*5 ok", 0, "ask");
    }

    #[test]
    fn questions_that_are_no_probes_go_through_until_one_fails() {
        let mut breakers = Breakers::default();
        assert!(breakers.admits_unprobed(7, 0));
        for _ in 0..FAILURES {
            breakers.failed(7, Leave::ORDINARY, 0);
        }
        assert!(!breakers.admits_unprobed(7, OPEN_MS - 1));
        assert!(breakers.admits_unprobed(7, OPEN_MS) && breakers.admits_unprobed(7, OPEN_MS));
        breakers.failed(7, Leave::ORDINARY, OPEN_MS);
        assert!(!breakers.admits_unprobed(7, 2 * OPEN_MS - 1));
        assert!(breakers.admits(7, 2 * OPEN_MS).is_some(), "a probe");
        assert!(!breakers.admits_unprobed(7, 2 * OPEN_MS), "while a probe is out");
        breakers.succeeded(7);
        assert!(breakers.admits_unprobed(7, 0));
    }

    #[test]
    fn others_are_not_affected() {
        let mut breakers = Breakers::default();
        for _ in 0..FAILURES {
            breakers.failed(7, Leave::ORDINARY, 0);
        }
        assert!(!breakers.closed(7) && breakers.closed(8));
        assert_eq!(breakers.admits(8, 0), Some(Leave::ORDINARY));
    }

    /// Plays events at time 0, or at `OPEN_MS` after `later`, and then asks for leave at `now_ms`.
    #[track_caller]
    fn check(events: &str, now_ms: u64, expected: &str) {
        let mut breakers = Breakers::default();
        let mut at_ms = 0;
        for event in events.split(' ') {
            let (event, times) = event.split_once('*').unwrap_or((event, "1"));
            for _ in 0..times.parse().unwrap() {
                match event {
                    "failed" => breakers.failed(7, Leave::ORDINARY, at_ms),
                    "probe-failed" => breakers.failed(7, Leave { probe: true }, at_ms),
                    "ok" => breakers.succeeded(7),
                    "admits" => assert_eq!(breakers.admits(7, at_ms), Some(Leave { probe: true }), "{events}"),
                    "later" => at_ms = OPEN_MS,
                    other => panic!("{other}"),
                }
            }
        }
        let found = match breakers.admits(7, now_ms) {
            None => "wait",
            Some(Leave { probe: false }) => "ask",
            Some(Leave { probe: true }) => "probe",
        };
        assert_eq!(found, expected, "{events} at {now_ms}");
    }
}
