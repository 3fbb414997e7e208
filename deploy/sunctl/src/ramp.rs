//! `--over` of `sunctl weight set`, `drain` and `resume`: a weight that changes in steps, so that caches keep up. The plan is
//! here, and pure; [`walk`] carries it out.
//!
//! ```text
//!   share of the region      at most 5 % a minute, in at most 20 steps of equal share
//!        ____
//!            \____
//!                 \____            Ctrl-C: it stays where it is
//!   0    1    2    3    ... minutes
//! ```

mod walk;

use std::time::Duration;

pub use walk::set;

use crate::topology::change::percent;

/// What weight a server gets when.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Weights in order; the last one is what is wished for. Empty when that is what it has.
    pub weights: Vec<u16>,
    /// Between two of them.
    pub every: Duration,
    /// The most that moves at once, as a share of the region's files.
    pub moved_max: f64,
    /// How long it was to take.
    pub said: Duration,
}

impl Plan {
    /// From one weight to another beside the weights of the others of its kind in the region, over so long or longer: at
    /// most [`SHARE_PER_MINUTE`] moves in a minute. Where weights are so small that one more or less is a larger share, a
    /// step is one weight.
    #[must_use]
    pub fn new(others: &[u16], from: u16, to: u16, over: Duration) -> Self {
        let rest: f64 = others.iter().map(|&weight| f64::from(weight)).sum();
        let share = |weight: u16| f64::from(weight) / (f64::from(weight) + rest).max(1.0);
        let (first, last) = (share(from), share(to));
        let slowest = Duration::from_secs_f64((last - first).abs() / SHARE_PER_MINUTE * 60.0);
        let (said, over) = (over, over.max(slowest));
        let count = (over.as_secs_f64() / STEP_S).floor().clamp(1.0, STEPS_MAX);
        let mut weights = Vec::new();
        for step in 1..=STEPS_MAX as u16 {
            let done = (f64::from(step) / count).min(1.0);
            let weight = if done >= 1.0 { to } else { weight_of(first + (last - first) * done, rest, from, to) };
            if weights.last().map_or(from, |&last| last) != weight {
                weights.push(weight);
            }
        }
        let before = std::iter::once(&from).chain(&weights);
        let moved_max = before.zip(&weights).map(|(&a, &b)| (share(a) - share(b)).abs()).fold(0.0, f64::max);
        // Nothing is waited for after the last one.
        let every = over.div_f64(weights.len().saturating_sub(1).max(1) as f64);
        Self { weights, every, moved_max, said }
    }

    /// How long all of it takes, from the first step to the last; where there is one alone, what it was to take.
    #[must_use]
    pub fn over(&self) -> Duration {
        self.every * u32::try_from(self.weights.len().saturating_sub(1).max(1)).unwrap_or(u32::MAX)
    }
}

/// The weight that gives a share beside the others, between the two ends.
fn weight_of(share: f64, rest: f64, from: u16, to: u16) -> u16 {
    let (low, high) = (f64::from(from.min(to)), f64::from(from.max(to)));
    let weight = if share >= 1.0 { high } else { rest * share / (1.0 - share) };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between two weights")]
    let weight = weight.round().clamp(low, high) as u16;
    weight
}

impl Plan {
    pub(crate) fn text(&self) -> String {
        let slower = if self.over() > self.said + Duration::from_secs(1) && self.weights.len() > 1 {
            format!(
                "{} s are too few: at most {} of the region's files may change their server in a minute.\n",
                self.said.as_secs(),
                percent(SHARE_PER_MINUTE)
            )
        } else {
            String::new()
        };
        match self.weights.len() {
            0 | 1 => "In one step.\n".to_owned(),
            count => format!(
                "{slower}In {count} steps over {:.0} s, one every {:.0} s, each moving {} of the files at most.\n",
                self.over().as_secs_f64(),
                self.every.as_secs_f64(),
                percent(self.moved_max)
            ),
        }
    }
}

/// A duration as it is said, `90s`, `10m`, `2h`.
///
/// # Errors
///
/// How it is said.
pub fn duration(text: &str) -> Result<Duration, String> {
    let unit = text.char_indices().next_back().map_or(0, |(at, _)| at);
    let seconds = match &text[unit..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => 0,
    };
    let count: Option<u64> = text[..unit].parse().ok().filter(|_| seconds > 0);
    let said = count.and_then(|count| count.checked_mul(seconds)).filter(|said| (1..=OVER_S_MAX).contains(said));
    said.map(Duration::from_secs).ok_or_else(|| "a duration is 90s, 10m or 2h, at most 24h".to_owned())
}

/// Most that may move in a minute, as a share of the region's files: a region that keeps a million files of 100 kB then
/// fetches 5 GB anew in it.
pub const SHARE_PER_MINUTE: f64 = 0.05;
/// Shortest step, seconds: the fills of one are behind it before the next one.
const STEP_S: f64 = 5.0;
/// Each is a write, and a topology that every daemon takes over.
const STEPS_MAX: f64 = 20.0;
const OVER_S_MAX: u64 = 86_400;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_ramp_moves_equal_shares_and_ends_where_it_is_to() {
        let plan = Plan::new(&[100], 100, 50, Duration::from_secs(600));
        assert_eq!(plan.weights.last(), Some(&50));
        assert_eq!(plan.weights.len(), 20);
        assert!(
            (plan.every.as_secs_f64() - 600.0 / 19.0).abs() < 1e-6,
            "nothing is waited for after the last: {plan:?}"
        );
        assert!((plan.over().as_secs_f64() - 600.0).abs() < 1e-6, "{plan:?}");
        // A sixth of the files in twenty steps, give or take the half of a weight.
        assert!(plan.moved_max < 1.0 / 6.0 / 20.0 + 0.003, "{plan:?}");
    }

    #[test]
    fn a_ramp_that_is_too_fast_takes_longer() {
        let plan = Plan::new(&[100], 100, 0, Duration::from_secs(60));
        assert!((plan.over().as_secs_f64() - 600.0).abs() < 1.0, "half of the files at 5 % a minute: {plan:?}");
        assert_eq!(plan.weights.last(), Some(&0));
    }

    #[test]
    fn a_ramp_that_takes_longer_than_was_said_says_so_before_it_begins() {
        let short = Plan::new(&[100], 100, 50, Duration::from_secs(5)).text();
        assert!(short.starts_with("5 s are too few: at most 5.0% of the region's files may change"), "{short}");
        assert!(short.contains("steps over 200 s"), "{short}");
        let long = Plan::new(&[100], 100, 50, Duration::from_secs(600)).text();
        assert!(long.starts_with("In 20 steps over 600 s"), "{long}");
    }

    #[test]
    fn what_moves_nothing_takes_one_step() {
        let alone = Plan::new(&[], 100, 50, Duration::from_secs(5));
        assert_eq!((alone.weights, alone.moved_max), (vec![50], 0.0));
        assert_eq!(Plan::new(&[100], 50, 50, Duration::from_secs(600)).weights, [0_u16; 0]);
    }

    #[test]
    fn a_duration_is_said_with_its_unit() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("2h", 7200), ("24h", 86_400)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "10", "m", "0s", "25h", "10 m", "-1s", "1d", "5\u{00e9}"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_minute_moves_more_than_it_may(
            others in proptest::collection::vec(0_u16..=256, 0..8), from in 0_u16..=256, to in 0_u16..=256, over in 1_u64..4000,
        ) {
            let plan = Plan::new(&others, from, to, Duration::from_secs(over));
            let rest: f64 = others.iter().map(|&weight| f64::from(weight)).sum();
            let share = |weight: u16| f64::from(weight) / (f64::from(weight) + rest).max(1.0);
            prop_assert_eq!(plan.weights.last().copied().unwrap_or(from), to);
            prop_assert!(plan.weights.len() <= 20);
            prop_assert!(plan.weights.is_empty() || plan.over().as_secs_f64() + 1e-6 >= over as f64);
            let mut last = from;
            for &weight in &plan.weights {
                prop_assert!((weight > last) == (to > from), "always towards its end");
                // What one weight more or less is here: no step can be smaller.
                let unit = (share(weight + 1) - share(weight)).max(share(weight) - share(weight.saturating_sub(1)));
                let moved = (share(weight) - share(last)).abs();
                let allowed = SHARE_PER_MINUTE * plan.every.as_secs_f64() / 60.0;
                prop_assert!(moved <= allowed + 2.0 * unit + 1e-9, "{moved} of {allowed}, {plan:?}");
                last = weight;
            }
        }
    }
}
