//! When to try again. Pure: randomness comes in.

use std::time::Duration;

/// Doubles from [`FIRST`] to [`LONGEST`] with every failure, and begins anew with a success.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    failures: u32,
}

impl Pace {
    /// It went well.
    pub const fn success(&mut self) {
        self.failures = 0;
    }

    /// It failed: how long to wait. `draw` is uniform in 0..1; half of the wait is by chance, so that several APIs do not
    /// come back to a database that has just started all at once.
    pub fn failure(&mut self, draw: f64) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        whole.mul_f64(0.5 + 0.5 * draw.clamp(0.0, 1.0))
    }
}

/// Wait after a first failure.
pub const FIRST: Duration = Duration::from_millis(500);
/// Longest wait.
pub const LONGEST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_begin_anew() {
        let mut pace = Pace::default();
        let waits: Vec<u128> = (0..9).map(|_| pace.failure(1.0).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(pace.failure(0.0), LONGEST / 2, "half by chance");
        pace.success();
        assert_eq!(pace.failure(1.0), FIRST);
        let mut long = Pace { failures: u32::MAX };
        assert_eq!(long.failure(1.0), LONGEST);
    }
}
