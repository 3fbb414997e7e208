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
pub struct Pass {
    probe: bool,
}

impl Pass {
    /// Of a question that no breaker was asked about.
    pub const ORDINARY: Self = Self { probe: false };
}

impl Breakers {
    /// Whether a question may be asked now: in a half-open breaker one at a time.
    pub fn admits(&mut self, number: u32, now_ms: u64) -> Option<Pass> {
        let Some(breaker) = self.by_number.get_mut(&number) else { return Some(Pass::ORDINARY) };
        match *breaker {
            Breaker::Closed { .. } => return Some(Pass::ORDINARY),
            Breaker::Open { until_ms: wait_ms } | Breaker::HalfOpen { probe_until_ms: wait_ms } if now_ms < wait_ms => {
                return None;
            }
            Breaker::Open { .. } | Breaker::HalfOpen { .. } => {}
        }
        *breaker = Breaker::HalfOpen { probe_until_ms: now_ms + PROBE_MS };
        Some(Pass { probe: true })
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
    pub fn failed(&mut self, number: u32, pass: Pass, now_ms: u64) {
        let breaker = self.by_number.entry(number).or_insert(Breaker::Closed { failures: 0 });
        *breaker = match *breaker {
            Breaker::Closed { failures } if failures + 1 < FAILURES => Breaker::Closed { failures: failures + 1 },
            Breaker::HalfOpen { .. } if !pass.probe => return,
            Breaker::Open { .. } => return,
            Breaker::Closed { .. } | Breaker::HalfOpen { .. } => Breaker::Open { until_ms: now_ms + OPEN_MS },
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
    fn others_are_not_affected() {
        let mut breakers = Breakers::default();
        for _ in 0..FAILURES {
            breakers.failed(7, Pass::ORDINARY, 0);
        }
        assert!(!breakers.closed(7) && breakers.closed(8));
        assert_eq!(breakers.admits(8, 0), Some(Pass::ORDINARY));
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
                    "failed" => breakers.failed(7, Pass::ORDINARY, at_ms),
                    "probe-failed" => breakers.failed(7, Pass { probe: true }, at_ms),
                    "ok" => breakers.succeeded(7),
                    "admits" => assert_eq!(breakers.admits(7, at_ms), Some(Pass { probe: true }), "{events}"),
                    "later" => at_ms = OPEN_MS,
                    other => panic!("{other}"),
                }
            }
        }
        let found = match breakers.admits(7, now_ms) {
            None => "wait",
            Some(Pass { probe: false }) => "ask",
            Some(Pass { probe: true }) => "probe",
        };
        assert_eq!(found, expected, "{events} at {now_ms}");
    }
}
