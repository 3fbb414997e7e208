//! Whether this sun rests: it takes less than its weight while its processors are pressed. Pure: the clock comes in as an
//! argument.
//!
//! ```text
//!   pressure above `pressure_high` for `after_s` on end  --> one `step` less, down to `share_min`
//!   pressure below `pressure_low` for `after_s` on end   --> one `step` more, up to all
//!   between                                              --> nothing changes, and `after_s` begins anew
//! ```
//!
//! The share goes into the status report; link makers and the suns of the region go by it as by a weight, and this sun does
//! too, as soon as it hears of itself. Where all suns of a region are pressed, all rest alike and little moves.

use crate::config::RestConfig;

/// How much of its weight this sun takes.
#[derive(Clone, Debug, Default)]
pub struct Resting {
    steps: u32,
    pressed_since_ms: Option<u64>,
    at_ease_since_ms: Option<u64>,
}

impl Resting {
    /// Takes the pressure of a moment in, percent; the share of its weight to take from now on, `share_min..=1`.
    pub fn look(&mut self, config: &RestConfig, pressure: f64, now_ms: u64) -> f64 {
        if !config.enabled {
            *self = Self::default();
            return 1.0;
        }
        let after_ms = config.after_s.saturating_mul(1000);
        let lasted = |since: &mut Option<u64>| now_ms.saturating_sub(*since.get_or_insert(now_ms)) >= after_ms;
        if pressure > config.pressure_high {
            self.at_ease_since_ms = None;
            if lasted(&mut self.pressed_since_ms) {
                self.pressed_since_ms = Some(now_ms);
                if config.share(self.steps) > config.share_min {
                    self.steps += 1;
                }
            }
        } else if pressure < config.pressure_low {
            self.pressed_since_ms = None;
            if lasted(&mut self.at_ease_since_ms) {
                self.at_ease_since_ms = Some(now_ms);
                self.steps = self.steps.saturating_sub(1);
            }
        } else {
            (self.pressed_since_ms, self.at_ease_since_ms) = (None, None);
        }
        config.share(self.steps)
    }
}

impl RestConfig {
    fn share(&self, steps: u32) -> f64 {
        (1.0 - self.step * f64::from(steps)).clamp(self.share_min, 1.0)
    }

    /// What is wrong with it first.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let Self { pressure_high, pressure_low, after_s, step, share_min, .. } = self;
        let said = [
            (!(0.0..=100.0).contains(pressure_high), format!("rest.pressure_high = {pressure_high}: must be 0..=100")),
            (
                !(0.0..=*pressure_high).contains(pressure_low),
                format!("rest.pressure_low = {pressure_low}: must be 0..=rest.pressure_high"),
            ),
            (!(1..=3600).contains(after_s), format!("rest.after_s = {after_s}: must be 1..=3600")),
            (!(0.01..=0.5).contains(step), format!("rest.step = {step}: must be 0.01..=0.5")),
            (!(0.1..=1.0).contains(share_min), format!("rest.share_min = {share_min}: must be 0.1..=1")),
        ];
        said.into_iter().find(|(wrong, _)| *wrong).map(|(_, problem)| problem)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_rests_step_by_step_while_it_is_pressed_and_recovers_by_itself() {
        let (config, mut resting) = (RestConfig::default(), Resting::default());
        let mut at = |second: u64, pressure: f64| (resting.look(&config, pressure, second * 1000) * 100.0).round();
        assert_eq!(
            [at(0, 90.0), at(29, 90.0), at(30, 90.0), at(59, 90.0), at(60, 90.0)],
            [100.0, 100.0, 95.0, 95.0, 90.0]
        );
        for step in 3..=30 {
            at(step * 30, 90.0);
        }
        assert_eq!(at(930, 90.0), 50.0, "no less than that");
        // Neither pressed nor at ease: it stays, and both times begin anew.
        assert_eq!([at(931, 50.0), at(2000, 50.0), at(2001, 90.0), at(2030, 90.0), at(2031, 10.0)], [50.0; 5]);
        assert_eq!([at(2060, 10.0), at(2061, 10.0), at(2091, 10.0)], [50.0, 55.0, 60.0]);
        for step in 0..20 {
            at(2121 + step * 30, 10.0);
        }
        assert_eq!(at(9999, 10.0), 100.0);
    }

    #[test]
    fn it_can_be_switched_off() {
        let (mut config, mut resting) = (RestConfig::default(), Resting::default());
        for second in 0..1000 {
            resting.look(&config, 100.0, second * 1000);
        }
        config.enabled = false;
        assert_eq!(resting.look(&config, 100.0, 1_000_000), 1.0);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let usual = RestConfig::default();
        assert_eq!(usual.problem(), None);
        for (config, says) in [
            (RestConfig { pressure_high: 101.0, ..usual.clone() }, "pressure_high = 101"),
            (RestConfig { pressure_low: 99.0, ..usual.clone() }, "pressure_low = 99"),
            (RestConfig { pressure_low: f64::NAN, ..usual.clone() }, "pressure_low = NaN"),
            (RestConfig { after_s: 0, ..usual.clone() }, "after_s = 0"),
            (RestConfig { step: 0.0, ..usual.clone() }, "step = 0"),
            (RestConfig { share_min: 0.0, ..usual.clone() }, "share_min = 0"),
        ] {
            let problem = config.problem().unwrap();
            assert!(problem.contains(says), "{problem}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_pressure_it_is_bounded_slow_and_temporary(
            pressures in proptest::collection::vec((0_u64..20, 0.0..100.0_f64), 1..200),
        ) {
            let (config, mut resting) = (RestConfig::default(), Resting::default());
            let (mut now_ms, mut share, mut changed_ms) = (0, 1.0, None);
            for (seconds, pressure) in pressures {
                now_ms += seconds * 1000;
                let next = resting.look(&config, pressure, now_ms);
                prop_assert!((config.share_min..=1.0).contains(&next));
                if (next - share).abs() > 1e-9 {
                    prop_assert!((next - share).abs() <= config.step + 1e-9);
                    prop_assert!(changed_ms.is_none_or(|at: u64| now_ms - at >= config.after_s * 1000), "too soon");
                    let cause = if next < share { pressure > config.pressure_high } else { pressure < config.pressure_low };
                    prop_assert!(cause, "at {pressure} %");
                    changed_ms = Some(now_ms);
                }
                share = next;
            }
            for _ in 0..30 {
                now_ms += config.after_s * 1000;
                share = resting.look(&config, 0.0, now_ms);
            }
            prop_assert_eq!(share, 1.0);
        }
    }
}
