//! The arithmetic of ratings: downloads that fade, without anything ever being rescanned.
//!
//! A rating is *forward decayed* (Cormode, Shkapenyuk, Srivastava and Xu, "Forward Decay", ICDE 2009): not
//! old downloads are made smaller, new ones are made larger, by `2^((t - LANDMARK) / half_life)`. Sums of such
//! numbers overflow within weeks, so their `log2` is kept: it grows by one a half-life, 8,766 a year for one
//! hour, and an `f64` of that size still tells downloads a billionth apart. So the landmark need never move.
//!
//! ```text
//!   log2
//!    ^            d = 8 at t1            a = log2(8 * 2^(t1/h))    = 3 + t1/h
//!    |          .x--------------- sum    b = log2(1 * 2^(t2/h))    = 0 + t2/h
//!    |        .'                         sum = log2(2^a + 2^b)
//!    |   b  .x d = 1 at t2               downloads that are left at t = 2^(sum - t/h)
//!    +-------+----+----------------> t
//! ```
//!
//! # The one score
//!
//! Two half-lives are kept, one that notices what goes viral (1 h) and one that knows the catalogue (48 h).
//! What files are ranked by is a weighted mean of the two logarithms (that is, a weighted geometric mean of the
//! two ratings):
//!
//! ```text
//!   score = hour_share * log2_hour + (1 - hour_share) * log2_days
//! ```
//!
//! Time alone lowers every file's score by the same amount, so it never changes the order: an index by
//! score stays right until the file is downloaded again. `time_alone_never_changes_the_order` holds it to that.
//!
//! Why not the larger of the two rates, or their sum: both change the order as time passes, and both rank a file
//! that was downloaded once, just now, above one that is downloaded every two hours. With a share of 0.05 a single
//! fresh download counts as much as a steady rate of one in 59 hours, and a file that suddenly gets n downloads an
//! hour counts as a steady n/59 after its first hour, n/21 after three, n/3.2 after a day. Why not a larger share: the
//! short half-life of a file that is asked for less than hourly says little but when that was last. A day without a
//! download costs 1.2 of its `log2` with 0.05 and 6 with 0.25; `tests/bench/wanted` prints what caches lose by that.

/// `log2` of the two forward-decayed sums of one (region, file).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rating {
    /// With the short half-life.
    pub hour: f64,
    /// With the long one.
    pub days: f64,
}

impl Rating {
    /// No downloads yet.
    pub const NONE: Self = Self { hour: f64::NEG_INFINITY, days: f64::NEG_INFINITY };
}

/// How downloads fade and what ranks files.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decay {
    hour_ms: f64,
    days_ms: f64,
    hour_share: f64,
}

impl Decay {
    /// From two half-lives in seconds and the weight of the first in the score.
    ///
    /// Nothing when a half-life is 0 or the weight is not within 0..=1.
    #[must_use]
    pub fn new(half_life_hour_s: u64, half_life_days_s: u64, hour_share: f64) -> Option<Self> {
        let sound = half_life_hour_s > 0 && half_life_days_s > 0 && (0.0..=1.0).contains(&hour_share);
        sound.then(|| Self {
            hour_ms: milliseconds(half_life_hour_s),
            days_ms: milliseconds(half_life_days_s),
            hour_share,
        })
    }

    /// The two half-lives, in milliseconds.
    #[must_use]
    pub const fn half_lives_ms(&self) -> (f64, f64) {
        (self.hour_ms, self.days_ms)
    }

    /// The weight of the short half-life in the score.
    #[must_use]
    pub const fn hour_share(&self) -> f64 {
        self.hour_share
    }

    /// What downloads at one moment are worth; see [`Pulse`].
    #[must_use]
    pub fn at(&self, now_ms: u64) -> Pulse {
        let age = since_landmark_ms(now_ms);
        Pulse { hour: age / self.hour_ms, days: age / self.days_ms }
    }

    /// What ranks files; means nothing but its order.
    #[must_use]
    pub fn score(&self, rating: Rating) -> f64 {
        let share = self.hour_share;
        // A share of 0 or 1 must not multiply it with an infinity.
        match share {
            0.0 => rating.days,
            1.0 => rating.hour,
            _ => share.mul_add(rating.hour, (1.0 - share) * rating.days),
        }
    }
}

/// One moment, as both half-lives see it: all downloads of a group are added with one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pulse {
    hour: f64,
    days: f64,
}

impl Pulse {
    /// Adds downloads of this moment; `downloads` is finite and above 0.
    pub fn add(self, rating: &mut Rating, downloads: f64) {
        debug_assert!(downloads > 0.0 && downloads.is_finite());
        let new = downloads.log2();
        rating.hour = log2_sum(rating.hour, new + self.hour);
        rating.days = log2_sum(rating.days, new + self.days);
    }

    /// Downloads that are left of a rating at this moment: (short half-life, long half-life).
    #[must_use]
    pub fn left(self, rating: Rating) -> (f64, f64) {
        ((rating.hour - self.hour).exp2(), (rating.days - self.days).exp2())
    }

    /// Half-lives since the landmark, short and long: what a rating of one download now is.
    #[must_use]
    pub const fn log2_ages(self) -> (f64, f64) {
        (self.hour, self.days)
    }
}

/// What time is counted from: 2026-01-01 00:00 UTC, in milliseconds since 1970. It only keeps numbers small.
pub const LANDMARK_MS: u64 = 1_767_225_600_000;

/// `log2(2^a + 2^b)` without leaving the logarithms.
fn log2_sum(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    let apart = low - high;
    // Beyond 2^-60 the smaller one is below the last bit of the larger one.
    if apart < -60.0 { high } else { high + apart.exp2().ln_1p() * std::f64::consts::LOG2_E }
}

#[expect(clippy::cast_precision_loss, reason = "a second in 285,000 years from now is not told apart")]
fn milliseconds(seconds: u64) -> f64 {
    seconds as f64 * 1000.0
}

/// Negative before the landmark: a wrong clock gives small ratings, nothing worse.
#[expect(clippy::cast_precision_loss, reason = "a millisecond in 285,000 years from now is not told apart")]
fn since_landmark_ms(now_ms: u64) -> f64 {
    if now_ms >= LANDMARK_MS { (now_ms - LANDMARK_MS) as f64 } else { -((LANDMARK_MS - now_ms) as f64) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_half_life_halves() {
        check(&[(0, 8.0)], 0, 8.0, 8.0);
        check(&[(0, 8.0)], HOUR, 4.0, 7.8853);
        check(&[(0, 8.0)], 48 * HOUR, 0.0, 4.0);
        check(&[(0, 8.0), (HOUR, 4.0)], HOUR, 8.0, 11.8853);
        check(&[(0, 1.0), (0, 1.0), (0, 0.5)], 0, 2.5, 2.5);
        // Ten years on, a download is still told from none.
        check(&[(0, 1e9), (10 * 8766 * HOUR, 1.0)], 10 * 8766 * HOUR, 1.0, 1.0);
    }

    #[test]
    fn downloads_of_an_earlier_time_may_come_later() {
        check(&[(HOUR, 4.0), (0, 8.0)], HOUR, 8.0, 11.8853);
    }

    #[test]
    fn the_score_is_between_the_two_logarithms() {
        let rating = Rating { hour: 1.0, days: 5.0 };
        for (share, expected) in [(0.0, 5.0), (0.25, 4.0), (0.5, 3.0), (1.0, 1.0)] {
            assert_eq!(Decay::new(3600, 172_800, share).unwrap().score(rating), expected);
        }
        assert_eq!(Decay::new(3600, 172_800, 0.0).unwrap().score(Rating { hour: f64::NEG_INFINITY, days: 5.0 }), 5.0);
    }

    #[test]
    fn unsound_settings_are_refused() {
        for (hour, days, share) in [(0, 1, 0.5), (1, 0, 0.5), (1, 1, -0.1), (1, 1, 1.1), (1, 1, f64::NAN)] {
            assert_eq!(Decay::new(hour, days, share), None, "{hour} {days} {share}");
        }
    }

    proptest! {
        #[test]
        fn it_equals_the_plain_sum(
            downloads in prop::collection::vec((0..200 * HOUR, 0.001..1e6_f64), 1..50),
            after in 0..100 * HOUR,
        ) {
            let now = downloads.iter().map(|&(t, _)| t).max().unwrap_or(0) + after;
            let (mut rating, mut hour, mut days) = (Rating::NONE, 0.0, 0.0);
            for &(t, d) in &downloads {
                decay().at(LANDMARK_MS + t).add(&mut rating, d);
                #[expect(clippy::cast_precision_loss, reason = "test values")]
                let age = (now - t) as f64;
                hour += d * (-age / 3_600_000.0).exp2();
                days += d * (-age / 172_800_000.0).exp2();
            }
            let left = decay().at(LANDMARK_MS + now).left(rating);
            prop_assert!((left.0 - hour).abs() <= 1e-9 * hour && (left.1 - days).abs() <= 1e-9 * days);
        }

        #[test]
        fn time_alone_never_changes_the_order(a in rating(), b in rating(), later in 0..10_000 * HOUR) {
            // What a file's decayed ratings say at any moment gives the same order as the kept logarithms.
            let fresh = |rating: Rating, now: u64| {
                let (hour, days) = decay().at(now).left(rating);
                decay().score(Rating { hour: hour.log2(), days: days.log2() })
            };
            let kept = decay().score(a) - decay().score(b);
            let now = fresh(a, LANDMARK_MS) - fresh(b, LANDMARK_MS);
            prop_assert!((kept - now).abs() < 1e-6);
            let (a_later, b_later) = (fresh(a, LANDMARK_MS + later), fresh(b, LANDMARK_MS + later));
            // Downloads underflow to 0 after some 1,000 half-lives; the logarithms do not.
            if a_later.is_finite() && b_later.is_finite() && kept.abs() > 1e-3 {
                prop_assert_eq!(kept > 0.0, a_later > b_later);
            }
        }
    }

    fn rating() -> impl Strategy<Value = Rating> {
        (0.0..50.0, 0.0..50.0).prop_map(|(hour, days)| Rating { hour, days })
    }

    fn decay() -> Decay {
        Decay::new(3600, 172_800, 0.25).unwrap()
    }

    #[track_caller]
    fn check(downloads: &[(u64, f64)], at: u64, hour: f64, days: f64) {
        let mut rating = Rating::NONE;
        for &(t, d) in downloads {
            decay().at(LANDMARK_MS + t).add(&mut rating, d);
        }
        let left = decay().at(LANDMARK_MS + at).left(rating);
        assert!((left.0 - hour).abs() < 1e-4 && (left.1 - days).abs() < 1e-4, "{left:?}, expected {hour} {days}");
    }

    const HOUR: u64 = 3_600_000;
}
