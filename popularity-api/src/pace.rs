//! When a reporter that was not heard tries again. Pure: the clock and the dice come in as arguments.
//!
//! ```text
//!   no answer, or a broken one     wait 1, 2, 4, 5, 5, ... seconds, each between half and one and a half times that
//!   429 with Retry-After: N        wait N seconds and up to N more, so that not all who were told the same come at once
//! ```

use std::time::Duration;

/// What is waited for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    failures: u32,
    not_before_ms: u64,
    told_ms: u64,
}

impl Pace {
    /// Whether it is time to try, `now_ms` by any clock that does not go back.
    #[must_use]
    pub const fn may(&self, now_ms: u64) -> bool {
        now_ms >= self.not_before_ms && now_ms >= self.told_ms
    }

    /// A try got through.
    pub const fn succeeded(&mut self) {
        (self.failures, self.not_before_ms) = (0, 0);
    }

    /// The reporter is about to end: it tries once more, unless it was told not to.
    pub const fn hurry(&mut self) {
        self.not_before_ms = 0;
    }

    /// A try failed; `dice` is evenly distributed in 0..1.
    pub fn failed(&mut self, now_ms: u64, dice: f64) {
        let wait = FIRST.saturating_mul(2_u32.saturating_pow(self.failures)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.not_before_ms = now_ms.saturating_add(ms(wait.mul_f64(0.5 + dice.clamp(0.0, 1.0))));
    }

    /// The API asked to come again after so long; not sooner (RFC 9110, section 10.2.3).
    pub fn told(&mut self, now_ms: u64, after: Duration, dice: f64) {
        let after = after.clamp(TOLD_MIN, TOLD_MAX);
        self.told_ms = now_ms.saturating_add(ms(after.mul_f64(1.0 + dice.clamp(0.0, 1.0))));
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// First wait after a failure.
const FIRST: Duration = Duration::from_secs(1);
/// Longest wait after failures.
const LONGEST: Duration = Duration::from_secs(5);
/// Shortest wait that is taken from the API, or a proxy before it: 0 would have a reporter try without a pause.
const TOLD_MIN: Duration = Duration::from_secs(1);
/// Longest wait that the API can ask for: nobody stays away for days because of one wrong header.
const TOLD_MAX: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_waited_for_longer_and_longer_up_to_a_bound() {
        for (dice, expected) in [
            (0.0, [500, 1000, 2000, 2500, 2500]),
            (0.5, [1000, 2000, 4000, 5000, 5000]),
            (1.0, [1500, 3000, 6000, 7500, 7500]),
        ] {
            let mut pace = Pace::default();
            let waits = [0; 5].map(|_: u64| {
                pace.failed(10_000, dice);
                wait(&pace, 10_000)
            });
            assert_eq!(waits, expected, "{dice}");
        }
    }

    #[test]
    fn what_was_told_is_the_least_wait() {
        for (after_s, dice, expected_ms) in
            [(0, 0.5, 1500), (1, 0.0, 1000), (7, 0.5, 10_500), (7, 1.0, 14_000), (u64::MAX, 0.0, 300_000)]
        {
            let mut pace = Pace::default();
            pace.told(10_000, Duration::from_secs(after_s), dice);
            assert_eq!(wait(&pace, 10_000), expected_ms, "{after_s} {dice}");
        }
    }

    #[test]
    fn who_got_through_waits_no_more() {
        let mut pace = Pace::default();
        pace.failed(10_000, 0.5);
        pace.failed(10_000, 0.5);
        pace.succeeded();
        assert!(pace.may(10_000));
        pace.failed(10_000, 0.5);
        assert_eq!(wait(&pace, 10_000), 1000, "as after the first failure");
    }

    #[test]
    fn who_is_about_to_end_hurries_unless_told_otherwise() {
        let mut pace = Pace::default();
        pace.failed(10_000, 0.5);
        pace.hurry();
        assert!(pace.may(10_000));
        pace.told(10_000, Duration::from_secs(2), 0.0);
        pace.hurry();
        assert_eq!(wait(&pace, 10_000), 2000);
    }

    /// Milliseconds after `now_ms` until it may.
    fn wait(pace: &Pace, now_ms: u64) -> u64 {
        (0..).find(|&wait| pace.may(now_ms + wait)).unwrap()
    }
}
