//! How fast a body is taken: a token bucket. Pure; time is an argument.

use std::time::Duration;

/// A bucket that holds [`BURST_MS`] of its rate and is full at first. Taking more than it holds is paid for by
/// waiting afterwards, so a piece of any size can be taken at once.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    bytes_per_second: u64,
    /// When what was taken is paid for, on the caller's clock.
    paid_at: Duration,
}

impl Pace {
    /// So many bytes per second; 0: no limit.
    #[must_use]
    pub const fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, paid_at: Duration::ZERO }
    }

    /// `bytes` were taken at `now`, a time on any clock that does not run backwards: how long to wait before the next.
    #[must_use]
    pub fn taken(&mut self, bytes: u64, now: Duration) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let price = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let now = now + BURST;
        self.paid_at = self.paid_at.max(now.saturating_sub(BURST)).saturating_add(price);
        self.paid_at.saturating_sub(now)
    }
}

/// What a bucket holds: as much as comes in this time at its rate. Long enough that a timer's grain does not slow a
/// fast body, short enough that many bodies that begin together are no flood.
pub const BURST_MS: u64 = 250;
const BURST: Duration = Duration::from_millis(BURST_MS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_taken_at_its_rate_after_the_first_burst() {
        check(1000, &[(0, 250, 0), (0, 100, 100), (100, 100, 100), (200, 1000, 1000)]);
        check(1000, &[(0, 10_000, 9750)]);
        check(1, &[(0, 1, 750)]);
    }

    #[test]
    fn what_is_not_taken_is_saved_up_to_one_burst_only() {
        check(1000, &[(0, 250, 0), (60_000, 250, 0), (60_000, 1, 1)]);
        check(1000, &[(60_000, 251, 1)]);
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        check(0, &[(0, u64::MAX, 0), (0, u64::MAX, 0)]);
        check(u64::MAX, &[(0, u64::MAX, 750)]);
    }

    /// Each: taken at, bytes, expected wait; milliseconds.
    #[track_caller]
    fn check(bytes_per_second: u64, taken: &[(u64, u64, u64)]) {
        let mut pace = Pace::new(bytes_per_second);
        for &(at_ms, bytes, expected_ms) in taken {
            let wait = pace.taken(bytes, Duration::from_millis(at_ms));
            assert_eq!(wait.as_millis(), u128::from(expected_ms), "{bytes} bytes at {at_ms} ms");
        }
    }
}
