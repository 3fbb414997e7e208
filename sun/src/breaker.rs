//! A content server that fails is left alone for a moment, so that misses are answered at once.
//!
//! ```text
//!            FAILURES in a row            OPEN_MS later
//!   closed ---------------------> open -----------------> half open: one question goes through
//!     ^  ^                         ^                        |            |
//!     |  +-------------------------|----- it succeeds ------+            |
//!     +--- a question succeeds     +------------------ it fails ---------+
//! ```

use std::collections::HashMap;

/// Breakers of all content servers. Pure: time is an argument, in milliseconds of any monotonic clock.
#[derive(Debug, Default)]
pub struct Breakers {
    by_number: HashMap<u32, Breaker>,
}

#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    closed_until_ms: u64,
}

impl Breakers {
    /// Whether a question may be asked now. In a half-open breaker that is true once per [`OPEN_MS`].
    pub fn admits(&mut self, number: u32, now_ms: u64) -> bool {
        let Some(breaker) = self.by_number.get_mut(&number) else {
            return true;
        };
        if breaker.failures < FAILURES {
            return true;
        }
        if now_ms < breaker.closed_until_ms {
            return false;
        }
        breaker.closed_until_ms = now_ms + OPEN_MS;
        true
    }

    /// The content server answered (whatever it said, short of a 5xx).
    pub fn succeeded(&mut self, number: u32) {
        self.by_number.remove(&number);
    }

    /// It could not be reached, did not answer in time, or answered 5xx.
    pub fn failed(&mut self, number: u32, now_ms: u64) {
        let breaker = self.by_number.entry(number).or_default();
        breaker.failures = breaker.failures.saturating_add(1);
        if breaker.failures >= FAILURES {
            breaker.closed_until_ms = now_ms + OPEN_MS;
        }
    }
}

/// Failures in a row that open a breaker.
pub const FAILURES: u32 = 5;
/// How long it stays open, milliseconds.
pub const OPEN_MS: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_probes_once_a_second() {
        let mut breakers = Breakers::default();
        for _ in 0..FAILURES {
            assert!(breakers.admits(7, 0));
            breakers.failed(7, 0);
        }
        assert!(!breakers.admits(7, OPEN_MS - 1));
        assert!(breakers.admits(8, OPEN_MS - 1), "others are not affected");
        assert!(breakers.admits(7, OPEN_MS), "a probe");
        assert!(!breakers.admits(7, OPEN_MS), "only one");
        breakers.succeeded(7);
        assert!(breakers.admits(7, OPEN_MS));
    }

    #[test]
    fn a_success_between_failures_keeps_it_closed() {
        let mut breakers = Breakers::default();
        for _ in 0..3 * FAILURES {
            breakers.failed(7, 0);
            breakers.succeeded(7);
        }
        assert!(breakers.admits(7, 0));
    }
}
