//! The price of falling: a penalty for each fall that halves with time, as routers damp routes (RFC 2439, section 4.3).

use crate::selfcheck::config::Thresholds;

/// See the module's doc.
#[derive(Clone, Debug, PartialEq)]
pub struct Flaps {
    penalty: f64,
    at_ms: u64,
    each: f64,
    half_life_ms: f64,
    hold_above: f64,
    release_below: f64,
}

impl Flaps {
    /// So much is left of its falls.
    #[must_use]
    pub fn new(rules: &Thresholds, penalty: f64, now_ms: u64) -> Self {
        let mut flaps = Self {
            penalty: 0.0,
            at_ms: now_ms,
            each: rules.flap_penalty,
            half_life_ms: rules.flap_half_life_s * 1000.0,
            hold_above: rules.flap_hold_above,
            release_below: rules.flap_release_below,
        };
        if penalty.is_finite() {
            flaps.penalty = penalty.clamp(0.0, flaps.penalty_max());
        }
        flaps
    }

    /// Bounded, so that no outage, however often it fell in it, holds it for longer than a few half-lives.
    fn penalty_max(&self) -> f64 {
        self.hold_above + PENALTIES_MAX * self.each
    }

    /// It fell.
    pub fn fell(&mut self, now_ms: u64) {
        self.penalty = (self.penalty(now_ms) + self.each).min(self.penalty_max());
        self.at_ms = now_ms;
    }

    /// The operator says that it is well.
    pub const fn forgive(&mut self, now_ms: u64) {
        (self.penalty, self.at_ms) = (0.0, now_ms);
    }

    /// What is left of its falls.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of some years")]
    pub fn penalty(&self, now_ms: u64) -> f64 {
        self.penalty * (-(now_ms.saturating_sub(self.at_ms) as f64) / self.half_life_ms).exp2()
    }

    /// Whether it is to be held when it is well.
    #[must_use]
    pub fn holds(&self, now_ms: u64) -> bool {
        self.penalty(now_ms) > self.hold_above
    }

    /// Whether it is to be held no longer.
    #[must_use]
    pub fn releases(&self, now_ms: u64) -> bool {
        self.penalty(now_ms) < self.release_below
    }
}

/// The penalty stays within so many falls above the hold.
const PENALTIES_MAX: f64 = 4.0;
