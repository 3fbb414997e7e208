//! From counts of one second to rates that neither jump nor lag. Pure.
//!
//! ```text
//!   rate = max( smoothed over 5 s,                        steady: what decides on a copy is not noise
//!               (count - 3 * sqrt(count)) / seconds )     at once: what a jump is with certainty
//! ```
//!
//! Requests come at random: of a file with 50 a second, one second in six has more than 57. Spreads are raised at
//! once and lowered late, so noise would ratchet every spread up. Three standard deviations of a Poisson count below
//! the count is what is hardly ever more than the truth; of a jump to 4,000 a second it says 3,810 after a second.

use std::collections::HashMap;
use std::sync::Arc;

use popularity_api::wire::{HOTTEST_MAX, HotRate};

use super::detector::Counted;

/// Rates of the most asked-for files; at most [`HOTTEST_MAX`] files between two calls.
#[derive(Debug, Default)]
pub struct Rates {
    files: HashMap<u64, Smoothed>,
}

#[derive(Clone, Debug)]
struct Smoothed {
    file: Arc<str>,
    requests: f64,
    bits: f64,
    rate: Rate,
}

/// How often a file is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    /// First 8 bytes of its content id.
    pub prefix: u64,
    /// Its canonical name.
    pub file: Arc<str>,
    /// Requests per second.
    pub requests: f64,
    /// Bits per second.
    pub bits: f64,
}

impl Rates {
    /// Takes in what was counted within the last `seconds`; the hottest come first, at most [`HOTTEST_MAX`].
    pub fn take_in(&mut self, counted: &[Counted], seconds: f64) -> Vec<Rate> {
        let seconds = seconds.max(0.001);
        let kept = (-seconds / SMOOTHED_S).exp();
        for smoothed in self.files.values_mut() {
            smoothed.fade(kept);
        }
        for counted in counted {
            let new = || Smoothed::new(counted);
            self.files.entry(counted.prefix).or_insert_with(new).add(counted, seconds, 1.0 - kept);
        }
        let mut hottest: Vec<Rate> = self.files.values().map(|smoothed| smoothed.rate.clone()).collect();
        let (requests, bits) =
            hottest.iter().fold((1e-9, 1e-9), |(requests, bits), rate| (requests + rate.requests, bits + rate.bits));
        let heat = |rate: &Rate| (rate.requests / requests).max(rate.bits / bits);
        hottest.sort_by(|a, b| heat(b).total_cmp(&heat(a)).then_with(|| a.file.cmp(&b.file)));
        hottest.truncate(HOTTEST_MAX);
        hottest.retain(|rate| rate.requests > FORGOTTEN || rate.bits > FORGOTTEN);
        let stay: std::collections::HashSet<u64> = hottest.iter().map(|rate| rate.prefix).collect();
        self.files.retain(|prefix, _| stay.contains(prefix));
        hottest
    }
}

impl Smoothed {
    fn new(counted: &Counted) -> Self {
        let file = Arc::clone(&counted.file);
        let rate = Rate { prefix: counted.prefix, file: Arc::clone(&file), requests: 0.0, bits: 0.0 };
        Self { file, requests: 0.0, bits: 0.0, rate }
    }

    /// Time passes without a request.
    fn fade(&mut self, kept: f64) {
        self.requests *= kept;
        self.bits *= kept;
        (self.rate.requests, self.rate.bits) = (self.requests, self.bits);
    }

    #[expect(clippy::cast_precision_loss, reason = "rates need no more than 53 bits")]
    fn add(&mut self, counted: &Counted, seconds: f64, share: f64) {
        debug_assert_eq!(self.file, counted.file);
        let (requests, bits) = (counted.requests as f64, counted.bytes as f64 * 8.0);
        self.requests += share * requests / seconds;
        self.bits += share * bits / seconds;
        // What a count certainly is, as a share of the count; bits come by requests, and are as uncertain.
        let certain = if requests > 0.0 { (1.0 - 3.0 / requests.sqrt()).max(0.0) } else { 0.0 };
        self.rate.requests = self.requests.max(certain * requests / seconds);
        self.rate.bits = self.bits.max(certain * bits / seconds);
    }
}

impl From<&Rate> for HotRate {
    fn from(rate: &Rate) -> Self {
        Self { file: rate.file.to_string(), requests_per_second: rate.requests, bits_per_second: rate.bits }
    }
}

/// As long as gauges are smoothed.
const SMOOTHED_S: f64 = 5.0;
/// Requests per second, and bits per second, below which a file is forgotten.
const FORGOTTEN: f64 = 0.01;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_told_at_once_and_noise_is_not() {
        let mut rates = Rates::default();
        let rate = |rates: &mut Rates, requests: u64| {
            let hottest = rates.take_in(&[counted("c1/a", requests, requests * 1000)], 1.0);
            (hottest[0].requests.round(), (hottest[0].bits / 8000.0).round())
        };
        assert_eq!(rate(&mut rates, 4000), (3810.0, 3810.0));
        for _ in 0..60 {
            rate(&mut rates, 100);
        }
        assert_eq!(rate(&mut rates, 100), (100.0, 100.0));
        assert_eq!(rate(&mut rates, 120), (104.0, 104.0), "a second of some more");
        assert_eq!(rate(&mut rates, 300), (248.0, 248.0), "a second of many more");
        assert_eq!(rate(&mut rates, 0), (114.0, 114.0));
    }

    #[test]
    fn the_hottest_come_first_by_requests_or_by_bits() {
        let mut rates = Rates::default();
        let counted: Vec<Counted> =
            (0..150).map(|n| counted(&format!("c1/{n:03}"), 100 + n, if n == 7 { 1 << 40 } else { 1 })).collect();
        let hottest = rates.take_in(&counted, 1.0);
        assert_eq!(hottest.len(), HOTTEST_MAX);
        assert_eq!(&*hottest[0].file, "c1/007");
        assert_eq!(&*hottest[1].file, "c1/149");
        assert_eq!(rates.files.len(), HOTTEST_MAX);
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten() {
        let mut rates = Rates::default();
        rates.take_in(&[counted("c1/a", 1000, 0)], 1.0);
        assert_eq!(rates.take_in(&[], 10.0).len(), 1);
        assert_eq!(rates.take_in(&[], 100.0), []);
        assert!(rates.files.is_empty());
    }

    fn counted(file: &str, requests: u64, bytes: u64) -> Counted {
        let prefix = geo::CanonicalName::parse(file).unwrap().content_id().prefix();
        Counted { prefix, file: file.into(), requests, bytes }
    }
}
