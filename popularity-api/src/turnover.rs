//! How long a cache keeps what it carries, learnt from what it drops. Pure: the time comes in, milliseconds on any scale
//! that only rises.
//!
//! ```text
//!   residence = files held / files dropped per second            (Little's law: a mean over all that come and go)
//! ```
//!
//! Drops are counted with a half-life of a day. A cache that drops nothing, because it is not full or carries what is
//! best already, keeps its files as long as the option says at most.

/// The drops of one cache.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Turnover {
    /// Decayed, as of `at_ms`.
    dropped: f64,
    at_ms: u64,
}

impl Turnover {
    /// The cache dropped so many files.
    #[expect(clippy::cast_precision_loss, reason = "files of a report")]
    pub fn dropped(&mut self, files: usize, now_ms: u64) {
        self.dropped = self.left(now_ms) + files as f64;
        self.at_ms = self.at_ms.max(now_ms);
    }

    /// How long a file stays, seconds, at least an hour and at most `max_s`, in a cache that holds so many.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "files of a cache")]
    pub fn residence_s(&self, held: usize, now_ms: u64, max_s: f64) -> f64 {
        let per_s = self.left(now_ms) * std::f64::consts::LN_2 / HALF_LIFE_S;
        // Nothing dropped: infinite, which is not above the bound for long.
        (held.max(1) as f64 / per_s).clamp(RESIDENCE_MIN_S.min(max_s), max_s)
    }

    #[expect(clippy::cast_precision_loss, reason = "milliseconds since a start")]
    fn left(&self, now_ms: u64) -> f64 {
        self.dropped * (-(now_ms.saturating_sub(self.at_ms) as f64) / 1000.0 / HALF_LIFE_S).exp2()
    }
}

const HALF_LIFE_S: f64 = 86_400.0;
/// A cache that turns over faster (one that has just been made smaller, say) is taken to keep files for an hour.
const RESIDENCE_MIN_S: f64 = 3600.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_as_long_as_it_takes_to_drop_as_many_as_are_held() {
        check(&[], 1000, 0, 7.0 * DAY);
        // A tenth a day, for long: each stays for ten days.
        let daily: Vec<(u64, usize)> = (0..30).map(|day| (day, 100)).collect();
        check(&daily, 1000, 29, 7.0 * DAY);
        check(&daily, 500, 29, 3.6 * DAY);
        check(&daily, 0, 29, 3600.0);
        // It has dropped nothing for ten days.
        check(&daily, 500, 39, 7.0 * DAY);
        check(&[(0, 1000)], 1000, 0, 1.44 * DAY);
        check(&[(0, 1_000_000)], 1000, 0, 3600.0);
    }

    #[track_caller]
    fn check(dropped: &[(u64, usize)], held: usize, at_day: u64, expected_s: f64) {
        let mut turnover = Turnover::default();
        for &(day, files) in dropped {
            turnover.dropped(files, day * 86_400_000);
        }
        let residence_s = turnover.residence_s(held, at_day * 86_400_000, 7.0 * DAY);
        assert!((residence_s / expected_s - 1.0).abs() < 0.02, "{} days", residence_s / DAY);
    }

    const DAY: f64 = 86_400.0;
}
