//! Whether carrying a file is expected to pay. Pure.
//!
//! Carrying a file costs one transfer, and every download that finds it saves one. So a copy that is downloaded once
//! while it is held saves nothing: it has to be [`Worth::pays_min`] times, a little more than once.
//!
//! ```text
//!   days: d downloads are left of the long half-life     the catalogue: goes on at that rate as long as the copy stays
//!   hour: h are left of the short one, of which
//!         d * short / long are the catalogue's own       the rest is a burst: brings as many again as it has brought
//!
//!   expected = sure(d) * residence * ln 2 / long  +  sure(h - d * short / long)          sure(n) = n * n / (n + 2)
//! ```
//!
//! A file that was seen once is mostly never seen again, one that was seen ten times comes nearly as often once more
//! (Good and Turing's estimate): that is `sure`. Its 2 is measured: `tests/bench/wanted` prints what files that were asked
//! for n times in the first half of a trace got in the second, beside it.
//!
//! How long a copy stays is learnt from the cache's own turnover ([`crate::turnover`]). A cache that drops files after an
//! hour is offered less, so that they stay longer.

use crate::engine::decay::Decay;
use crate::ratings::Decayed;

/// What makes a file worth carrying.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Worth {
    /// Half-lives, short and long, seconds.
    pub half_lives_s: (f64, f64),
    /// Downloads of one copy that pay for its transfer.
    pub pays_min: f64,
}

impl Worth {
    /// With the half-lives of the ratings.
    #[must_use]
    pub const fn new(decay: &Decay, pays_min: f64) -> Self {
        let (hour_ms, days_ms) = decay.half_lives_ms();
        Self { half_lives_s: (hour_ms / 1000.0, days_ms / 1000.0), pays_min }
    }

    /// Downloads of its region that are expected while a copy of the file stays.
    #[must_use]
    pub fn expected(&self, left: Decayed, residence_s: f64) -> f64 {
        let (hour_s, days_s) = self.half_lives_s;
        let catalogue = sure(left.days) * residence_s * std::f64::consts::LN_2 / days_s;
        // A burst outlasts few of its half-lives; a copy that stays for a shorter time sees a part of it.
        let seen = (residence_s * std::f64::consts::LN_2 / hour_s).min(1.0);
        catalogue + seen * sure(left.hour - left.days * hour_s / days_s)
    }

    /// Of a file that pays, at least so many downloads are left of the long half-life, whatever those of the short one,
    /// of which there are never more.
    #[must_use]
    pub fn downloads_min(&self, residence_s: f64) -> f64 {
        let (hour_s, days_s) = self.half_lives_s;
        let seen = (residence_s * std::f64::consts::LN_2 / hour_s).min(1.0);
        // sure(d) * most is no less than what is expected, so d * d / (d + DOUBT) >= least.
        let most = residence_s * std::f64::consts::LN_2 / days_s + seen;
        let least = self.pays_min / most;
        let downloads = f64::midpoint(least, (least * least + 4.0 * DOUBT * least).sqrt());
        // Ratings are kept in fixed point.
        0.999 * downloads
    }

    /// How many copies are expected to pay.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "neither negative nor, after min, large"
    )]
    pub fn copies_max(&self, left: Decayed, residence_s: f64) -> usize {
        (self.expected(left, residence_s) / self.pays_min).min(1e6) as usize
    }
}

/// Downloads that are expected where `seen` were, in an equally long time.
#[must_use]
pub fn sure(seen: f64) -> f64 {
    let seen = seen.max(0.0);
    seen * seen / (seen + DOUBT)
}

/// Downloads that are half believed.
const DOUBT: f64 = 2.0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_that_was_seen_once_does_not_pay_and_one_seen_twice_today_does() {
        check("once, just now", 1.0, 1.0, WEEK, 0);
        check("once, today", 0.0, 1.0, WEEK, 0);
        check("twice, just now", 2.0, 2.0, WEEK, 2);
        check("twice, today", 0.0, 1.8, WEEK, 1);
        check("never", 0.0, 0.0, WEEK, 0);
    }

    #[test]
    fn what_stays_shorter_has_to_be_better() {
        check("daily, in a cache that keeps for a week", 0.0, 3.0, WEEK, 3);
        check("daily, in one that keeps for a day", 0.0, 3.0, WEEK / 7.0, 0);
        check("hourly, in one that keeps for a day", 1.0, 69.0, WEEK / 7.0, 17);
        check("a burst, in one that keeps for an hour", 100.0, 100.0, 3600.0, 52);
    }

    #[test]
    fn a_burst_counts_once_and_the_catalogue_as_long_as_the_copy_stays() {
        let burst = Decayed { hour: 50.0, days: 50.0 };
        let steady = Decayed { hour: 50.0 / 48.0, days: 50.0 };
        let difference = worth().expected(burst, WEEK) - worth().expected(steady, WEEK);
        assert!((40.0..50.0).contains(&difference), "{difference}");
        assert!(worth().expected(steady, 2.0 * WEEK) > 1.99 * worth().expected(steady, WEEK));
    }

    proptest! {
        #[test]
        fn what_pays_is_not_below_the_least(days in 0.01..100.0_f64, hour in 0.0..1.0_f64, residence_s in 60.0..1e7_f64) {
            let left = Decayed { hour: hour * days, days };
            if worth().copies_max(left, residence_s) > 0 {
                prop_assert!(days >= worth().downloads_min(residence_s));
            }
        }
    }

    fn worth() -> Worth {
        Worth::new(&Decay::new(3600, 172_800, 0.25).unwrap(), 1.3)
    }

    #[track_caller]
    fn check(what: &str, hour: f64, days: f64, residence_s: f64, copies: usize) {
        let left = Decayed { hour, days };
        let expected = worth().expected(left, residence_s);
        assert_eq!(worth().copies_max(left, residence_s), copies, "{what}: {expected} downloads are expected");
    }

    const WEEK: f64 = 7.0 * 86_400.0;
}
