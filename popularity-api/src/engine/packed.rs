//! Ratings in eight bytes: two `log2` in fixed point, modulo 4,096 half-lives. Pure.
//!
//! A [`Rating`] is two `f64` that grow by one a half-life for ever. Of each, 32 bits are kept: the whole in units of
//! 2^-20, without what is above 2^12. That is enough, because what is live is near to now:
//!
//! ```text
//!              now - 1024                        now    now + 64
//!   ---+-----------[===============================|======]--------------+--->  log2, half-lives
//!      |            a dead rating waits here       |      2^64 downloads |
//!      +------------------------- 4,096, then the same numbers again ----+
//! ```
//!
//! # The landmark moves by itself
//!
//! Two kept numbers are less than 2,048 apart, so their difference, taken modulo 2^32, is right (serial numbers,
//! RFC 1982), and no rating is ever rewritten because time has passed. Only what nobody downloads for 1,024 half-lives
//! (43 days of the hourly one) has to be kept from going round: a sweep that comes by once in 512 half-lives, a 256th of
//! the table at a time, puts such ratings at `now - 1024`, where 2^-1024 of a download is left ([`Now::hold`]).
//!
//! # What is lost
//!
//! - Sums come from a table with straight lines between its points: at most 4 in a million too much of an increment.
//! - An increment is kept in 2^-20 and computed in 2^-31; which way it is rounded is drawn, so that a file with a
//!   million downloads counts the next one in the mean, not never. It is drawn from the numbers themselves and `salt`:
//!   the same downloads in the same order give the same rating.

use std::sync::LazyLock;

use super::decay::{Decay, Rating};

/// What is kept of a [`Rating`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Packed {
    pub(super) hour: u32,
    pub(super) days: u32,
}

/// Downloads that have to be left of the long half-life, as `log2` in units.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Floor(i64);

impl Floor {
    /// Nothing is below it.
    pub(super) const NONE: Self = Self(i64::MIN);

    /// So many downloads; 0 and less is none.
    pub(super) fn of(downloads: f64) -> Self {
        if downloads > 0.0 { Self(units(downloads.log2())) } else { Self::NONE }
    }
}

/// One moment in both half-lives, in units of 2^-20 since the landmark: what kept numbers are read by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Now {
    hour: i64,
    days: i64,
}

impl Now {
    /// The moment, milliseconds since 1970.
    pub(super) fn at(decay: &Decay, time_ms: u64) -> Self {
        let (hour, days) = decay.at(time_ms).log2_ages();
        Self { hour: units(hour), days: units(days) }
    }

    /// Half-lives from `earlier` to this moment, of the half-life of which there were more; negative backwards.
    pub(super) fn half_lives_since(self, earlier: Self) -> i64 {
        let (hour, days) = (self.hour - earlier.hour, self.days - earlier.days);
        (if hour.abs() > days.abs() { hour } else { days }) / ONE
    }

    /// Half-lives since the landmark, of the half-life of which there were more.
    pub(super) fn half_lives(self) -> i64 {
        (if self.hour.abs() > self.days.abs() { self.hour } else { self.days }).div_euclid(ONE)
    }

    /// Downloads of the moment `of`, which is near to this one; `downloads` is finite and above 0.
    pub(super) fn arrival(self, of: Self, downloads: f64) -> Packed {
        // Most entries are of one download.
        let new = if downloads == 1.0 { 0 } else { units(downloads.log2()) };
        Packed { hour: kept(self.hour, of.hour + new), days: kept(self.days, of.days + new) }
    }

    /// Keeps a rating.
    pub(super) fn pack(self, rating: Rating) -> Packed {
        Packed { hour: kept(self.hour, units(rating.hour)), days: kept(self.days, units(rating.days)) }
    }

    /// Whether as many downloads are left as the floor says, at this moment.
    pub(super) fn is_above(self, packed: Packed, floor: Floor) -> bool {
        i64::from(apart(packed.days, self.days as u32)) >= floor.0
    }

    /// The rating that was kept not more than 1,500 half-lives before or after this moment.
    pub(super) fn unpack(self, packed: Packed) -> Rating {
        let whole = |now: i64, kept: u32| (now + i64::from(apart(kept, now as u32))) as f64 / ONE as f64;
        Rating { hour: whole(self.hour, packed.hour), days: whole(self.days, packed.days) }
    }

    /// What was near to `before`, near to this moment: only the dead and the impossible change.
    pub(super) fn hold(self, packed: Packed, before: Self) -> Packed {
        let held = |now: i64, before: i64, old: u32| kept(now, before + i64::from(apart(old, before as u32)));
        Packed { hour: held(self.hour, before.hour, packed.hour), days: held(self.days, before.days, packed.days) }
    }
}

/// What kept ratings are ranked by, as of a moment: [`Decay::score`] in two multiplications.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scorer {
    now: Now,
    /// The score of one download at the moment.
    base: f64,
    /// Of a unit.
    hour: f64,
    days: f64,
}

impl Scorer {
    pub(super) fn new(decay: &Decay, now: Now) -> Self {
        let one = ONE as f64;
        let of = |hour: f64, days: f64| decay.score(Rating { hour, days });
        let base = of(now.hour as f64 / one, now.days as f64 / one);
        Self { now, base, hour: of(1.0, 0.0) / one, days: of(0.0, 1.0) / one }
    }

    /// What ranks a rating; differs from [`Decay::score`] by the last bits.
    pub(super) fn score(&self, packed: Packed) -> f64 {
        let hour = f64::from(apart(packed.hour, self.now.hour as u32)) * self.hour;
        let days = f64::from(apart(packed.days, self.now.days as u32)) * self.days;
        self.base + (hour + days)
    }
}

/// Adds kept ratings. Look it up once for many: [`Sums::table`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Sums(&'static [u32; POINTS]);

impl Sums {
    pub(super) fn table() -> Self {
        Self(&TABLE)
    }

    /// The sum of two; `salt` differs between additions of one moment.
    pub(super) fn add(self, a: Packed, b: Packed, salt: u32) -> Packed {
        Packed { hour: self.log2_sum(a.hour, b.hour, salt), days: self.log2_sum(a.days, b.days, salt) }
    }

    /// `log2(2^a + 2^b)`.
    fn log2_sum(self, a: u32, b: u32, salt: u32) -> u32 {
        let apart = a.wrapping_sub(b).cast_signed();
        let (high, apart) = if apart < 0 { (b, apart.unsigned_abs()) } else { (a, apart.unsigned_abs()) };
        let point = (apart >> STEP_BITS) as usize;
        let (Some(&left), Some(&right)) = (self.0.get(point), self.0.get(point + 1)) else { return high };
        let rest = u64::from(apart & ((1 << STEP_BITS) - 1));
        let fine = left - ((u64::from(left - right) * rest) >> STEP_BITS) as u32;
        high.wrapping_add((fine + draw(a, b, salt)) >> FINE_BITS)
    }
}

/// `log2(1 + 2^-x)` in units of 2^-31, for x = 0, 1/128, 2/128 ... 31.
static TABLE: LazyLock<[u32; POINTS]> = LazyLock::new(|| {
    std::array::from_fn(|point| {
        let x = point as f64 / f64::from(1 << (UNIT_BITS - STEP_BITS));
        ((-x).exp2().ln_1p() * std::f64::consts::LOG2_E * f64::from(1_u32 << (UNIT_BITS + FINE_BITS))).round() as u32
    })
});

/// A number of units near to `now`, without what is above 2^12 half-lives.
fn kept(now: i64, units: i64) -> u32 {
    (now + (units.saturating_sub(now)).clamp(-BEHIND, AHEAD)) as u32
}

/// [`FINE_BITS`] that look like chance; what is added to an increment before it is cut to units.
const fn draw(a: u32, b: u32, salt: u32) -> u32 {
    let mixed = a.wrapping_mul(0x9e37_79b1) ^ b.rotate_left(16) ^ salt.wrapping_mul(0x85eb_ca77);
    let mixed = (mixed ^ (mixed >> 15)).wrapping_mul(0xc2b2_ae3d);
    (mixed ^ (mixed >> 13)).wrapping_mul(0x27d4_eb2f) >> (32 - FINE_BITS)
}

/// From `b` to `a`, which are less than 2,048 half-lives apart.
const fn apart(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

fn units(half_lives: f64) -> i64 {
    (half_lives * ONE as f64).round() as i64
}

const UNIT_BITS: u32 = 20;
/// One half-life.
const ONE: i64 = 1 << UNIT_BITS;
/// Bits below a unit in which increments are computed.
const FINE_BITS: u32 = 11;
/// Units from one point of the table to the next.
const STEP_BITS: u32 = 13;
/// Beyond 31 half-lives an increment is less than 2^-30.
const POINTS: usize = (31 << (UNIT_BITS - STEP_BITS)) + 1;
const BEHIND: i64 = 1024 * ONE;
const AHEAD: i64 = 64 * ONE;

/// A sweep has to have come by everything within so many half-lives.
pub(super) const SWEEP_HALF_LIVES: i64 = 512;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::decay::LANDMARK_MS;

    #[test]
    fn a_rating_comes_back_wherever_time_has_got_to() {
        // Before the landmark, at it, in the year 2049, and where 32 bits have gone round.
        for hours in [-5000_i64, 0, 1, 4095, 4096, 200_000] {
            let now = at_hours(hours);
            for (hour, days) in [(0.0, 0.0), (3.25, 7.5), (-900.0, -20.0), (63.0, 63.0)] {
                let rating = around(now, hour, days);
                assert_eq!(now.unpack(now.pack(rating)), rating, "{hours} {hour} {days}");
                let later = at_hours(hours + 500);
                assert_eq!(later.unpack(now.pack(rating)), rating, "read later: {hours} {hour} {days}");
            }
        }
    }

    #[test]
    fn what_is_dead_stays_dead_and_does_not_come_round() {
        let now = at_hours(0);
        let mut packed = now.pack(around(now, -1000.0, 3.0));
        let mut before = now;
        for hours in (0..20_000).step_by(500) {
            let now = at_hours(hours);
            packed = now.hold(packed, before);
            before = now;
        }
        let left = before.unpack(packed);
        assert_eq!(left.hour, around(before, -1024.0, 0.0).hour);
        assert!((left.days - 3.0).abs() < 1e-5, "the long half-life has seen only 406 of them: {left:?}");
    }

    #[test]
    fn a_clock_that_jumps_is_held() {
        let (now, far) = (at_hours(0), at_hours(1_000_000));
        let there = far.hold(now.pack(around(now, 5.0, 5.0)), now);
        assert_eq!(far.unpack(there), around(far, -1024.0, -1024.0));
        let back = now.hold(far.pack(around(far, 5.0, 5.0)), far);
        assert_eq!(now.unpack(back), around(now, 64.0, 64.0));
    }

    #[test]
    fn a_million_downloads_one_by_one_are_a_million() {
        let (now, sums) = (at_hours(77), Sums::table());
        let mut packed = now.arrival(now, 1.0);
        for salt in 1..1_000_000 {
            packed = sums.add(packed, now.arrival(now, 1.0), salt);
        }
        let downloads = (now.unpack(packed).hour - around(now, 0.0, 0.0).hour).exp2();
        assert!((downloads / 1e6 - 1.0).abs() < 1e-3, "{downloads}");
    }

    proptest! {
        #[test]
        fn sums_are_as_good_as_said(a in -30.0..30.0_f64, b in -30.0..30.0_f64, hours in -9000..9000_i64, salt: u32) {
            let now = at_hours(hours);
            let sum = Sums::table().add(now.pack(around(now, a, 0.0)), now.pack(around(now, b, 0.0)), salt);
            let exact = around(now, (a.exp2() + b.exp2()).log2(), 0.0).hour;
            prop_assert!((now.unpack(sum).hour - exact).abs() < 4e-6, "{} {exact}", now.unpack(sum).hour);
        }
    }

    fn at_hours(hours: i64) -> Now {
        let decay = Decay::new(3600, 172_800, 0.25).unwrap();
        Now::at(&decay, LANDMARK_MS.checked_add_signed(hours * 3_600_000).unwrap())
    }

    /// So many half-lives after (or before) the moment.
    fn around(now: Now, hour: f64, days: f64) -> Rating {
        Rating { hour: now.hour as f64 / ONE as f64 + hour, days: now.days as f64 / ONE as f64 + days }
    }
}
