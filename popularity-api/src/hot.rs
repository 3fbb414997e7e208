//! Which files of a region are asked for so much that one sun is not enough. Pure.
//!
//! ```text
//!   demand = max(requests/s / (0.05 * mean requests/s of a sun), bits/s / (0.5 * network card))
//!
//!   spread
//!     4 |        .---------.                 raised at once to ceil(demand), at most the suns there are
//!     3 |        |         |
//!     2 |    .---'         '-------          lowered after 10 minutes of demand below half of it
//!     1 |----'                              and at most 20 extra copies (`copies_max`)
//!       +---------------------------> time
//! ```
//!
//! A region that serves little has files above 5 % of a sun's load all the time; spreading them costs copies and wins
//! nothing, so a file below `requests_min` is never hot for its share of requests.

use std::collections::BTreeMap;

/// When a file is spread, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Share of a sun's mean requests that one sun takes of one file.
    pub request_share: f64,
    /// Share of a network card that one sun takes for one file.
    pub nic_share: f64,
    /// Below so many requests per second a file's share of them does not matter.
    pub requests_min: f64,
    /// How long demand stays low before the spread is lowered, milliseconds.
    pub lower_after_ms: u64,
    /// Files of one region.
    pub files_max: usize,
    /// Suns beside the owner that keep one file.
    pub copies_max: usize,
}

/// What DESIGN.md says: 5 % of a sun, half a network card, ten minutes.
impl Default for Rule {
    fn default() -> Self {
        Self {
            request_share: 0.05,
            nic_share: 0.5,
            requests_min: 20.0,
            lower_after_ms: 600_000,
            files_max: 1000,
            copies_max: 20,
        }
    }
}

/// How much a file is asked for, in a whole region.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Requests per second.
    pub requests: f64,
    /// Bits per second.
    pub bits: f64,
}

/// The suns that share the load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Suns {
    /// How many have weight.
    pub count: usize,
    /// Mean requests per second of those that are alive.
    pub mean_requests: f64,
    /// Bandwidth of the smallest network card, bits per second.
    pub nic_bits: f64,
}

/// The hot files of one region.
#[derive(Debug, Default)]
pub struct HotFiles {
    files: BTreeMap<String, Hot>,
}

#[derive(Clone, Copy, Debug)]
struct Hot {
    spread: usize,
    /// Since when its demand has been low, milliseconds.
    low_since: Option<u64>,
}

impl HotFiles {
    /// Files and how many suns keep each, as they were found out elsewhere.
    #[must_use]
    pub fn restored(files: impl Iterator<Item = (String, usize)>) -> Self {
        Self { files: files.map(|(file, spread)| (file, Hot { spread, low_since: None })).collect() }
    }

    /// Takes in what the region is asked for now; `rates` are the hottest files, others count as unasked.
    pub fn update(&mut self, rule: &Rule, suns: Suns, rates: &BTreeMap<&str, Rate>, now_ms: u64) {
        for (&file, &rate) in rates {
            let wanted = spread(rule, demand(rule, suns, rate), suns);
            if wanted > self.spread(file, usize::MAX) {
                self.files.insert(file.to_owned(), Hot { spread: wanted, low_since: None });
            }
        }
        for (file, hot) in &mut self.files {
            let demand = rates.get(file.as_str()).map_or(0.0, |&rate| demand(rule, suns, rate));
            hot.settle(rule, demand, suns, now_ms);
        }
        self.files.retain(|_, hot| hot.spread > 1);
        self.keep_hottest(rule.files_max);
    }

    /// How many suns keep the file, of `suns` that there are; 1 when it is not hot.
    #[must_use]
    pub fn spread(&self, file: &str, suns: usize) -> usize {
        self.files.get(file).map_or(1, |hot| hot.spread.min(suns).max(1))
    }

    /// Files that more than one of `suns` keep, by name.
    pub fn iter(&self, suns: usize) -> impl Iterator<Item = (&str, usize)> {
        self.files
            .iter()
            .map(move |(file, hot)| (file.as_str(), hot.spread.min(suns)))
            .filter(|&(_, spread)| spread > 1)
    }

    /// Forgets files, until they are asked for so much again.
    pub fn forget(&mut self, forgotten: impl Fn(&str) -> bool) {
        self.files.retain(|file, _| !forgotten(file));
    }

    fn keep_hottest(&mut self, files_max: usize) {
        while self.files.len() > files_max {
            let least = self.files.iter().min_by_key(|(_, hot)| hot.spread).map(|(file, _)| file.clone());
            self.files.remove(&least.expect("more files than the bound are at least one"));
        }
    }
}

impl Hot {
    fn settle(&mut self, rule: &Rule, demand: f64, suns: Suns, now_ms: u64) {
        #[expect(clippy::cast_precision_loss, reason = "suns of a region are few")]
        let low = demand < self.spread as f64 / 2.0;
        let since = match (low, self.low_since) {
            (false, _) => None,
            (true, None) => Some(now_ms),
            (true, since) => since,
        };
        self.low_since = since;
        if since.is_some_and(|since| now_ms.saturating_sub(since) >= rule.lower_after_ms) {
            *self = Self { spread: spread(rule, demand, suns), low_since: None };
        }
    }
}

/// How many suns the file would keep busy, as a fraction.
fn demand(rule: &Rule, suns: Suns, rate: Rate) -> f64 {
    let by_requests = if rate.requests < rule.requests_min || suns.mean_requests <= 0.0 {
        0.0
    } else {
        rate.requests / (rule.request_share * suns.mean_requests)
    };
    let by_bits = if suns.nic_bits > 0.0 { rate.bits / (rule.nic_share * suns.nic_bits) } else { 0.0 };
    by_requests.max(by_bits)
}

/// At least one sun, at most all, and no more than the owner and its extra copies.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates, then it is clamped")]
fn spread(rule: &Rule, demand: f64, suns: Suns) -> usize {
    (demand.ceil() as usize).clamp(1, suns.count.max(1).min(rule.copies_max.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_follows_the_rule() {
        // 20 suns of 1,000 requests/s and 10 Gbit/s each.
        check(0.0, 0.0, 1);
        check(50.0, 0.0, 1);
        check(51.0, 0.0, 2);
        check(4000.0, 0.0, 20); // A fifth of all traffic.
        check(120.0, 0.0, 3);
        check(0.0, 5e9, 1);
        check(0.0, 5.1e9, 2);
        check(120.0, 16e9, 4);
        check(f64::MAX, f64::MAX, 20);
    }

    #[test]
    fn little_is_never_hot() {
        let mut hot = HotFiles::default();
        let quiet = Suns { mean_requests: 10.0, ..SUNS };
        hot.update(&RULE, quiet, &BTreeMap::from([("c1/a", Rate { requests: 19.0, bits: 1e6 })]), 0);
        assert_eq!(hot.iter(20).count(), 0);
        hot.update(&RULE, quiet, &BTreeMap::from([("c1/a", Rate { requests: 20.0, bits: 1e6 })]), 0);
        assert_eq!(hot.spread("c1/a", 20), 20);
        // Nobody is alive, or nobody says how much it does.
        hot.update(
            &RULE,
            Suns { mean_requests: 0.0, nic_bits: 0.0, count: 0 },
            &BTreeMap::from([("c1/b", Rate { requests: 99.0, bits: 9.0 })]),
            0,
        );
        assert_eq!(hot.spread("c1/b", 20), 1);
    }

    #[test]
    fn it_is_raised_at_once_and_lowered_after_ten_minutes_below_half() {
        let mut hot = HotFiles::default();
        let mut check = |second: u64, requests: f64, expected: usize| {
            hot.update(&RULE, SUNS, &BTreeMap::from([("c1/a", Rate { requests, bits: 0.0 })]), second * 1000);
            assert_eq!(hot.spread("c1/a", 20), expected, "at {second} s");
        };
        check(0, 190.0, 4);
        check(1, 390.0, 8);
        check(2, 250.0, 8); // Five of eight is not below half.
        check(3, 150.0, 8);
        check(602, 150.0, 8);
        check(603, 150.0, 3);
        check(604, 51.0, 3);
        check(1203, 90.0, 3); // Not below half for a moment: it starts again.
        check(1204, 0.0, 3);
        check(1803, 0.0, 3);
        check(1804, 0.0, 1);
    }

    #[test]
    fn the_list_is_bounded_and_never_more_than_the_suns() {
        let names: Vec<String> = (0..20).map(|n| format!("c1/{n:02}")).collect();
        let rates = (0..)
            .zip(&names)
            .map(|(n, name)| (name.as_str(), Rate { requests: 51.0 + 50.0 * f64::from(n), bits: 0.0 }));
        let mut hot = HotFiles::default();
        hot.update(&RULE, SUNS, &rates.collect(), 0);
        let kept: Vec<(&str, usize)> = hot.iter(12).collect();
        assert_eq!(kept.len(), 10);
        assert_eq!(kept[0], ("c1/10", 12));
        assert_eq!(hot.spread("c1/19", 1), 1);
        assert_eq!(hot.iter(1).count(), 0);
    }

    #[test]
    fn extra_copies_are_bounded() {
        let wide = Suns { count: 50, ..SUNS };
        let rates = BTreeMap::from([("c1/a", Rate { requests: 1e6, bits: 0.0 })]);
        for (copies_max, expected) in [(20, 21), (0, 1), (usize::MAX, 50)] {
            let mut hot = HotFiles::default();
            hot.update(&Rule { copies_max, ..RULE }, wide, &rates, 0);
            assert_eq!(hot.spread("c1/a", 50), expected, "at most {copies_max} extra copies");
        }
    }

    #[track_caller]
    fn check(requests: f64, bits: f64, expected: usize) {
        let mut hot = HotFiles::default();
        hot.update(&RULE, SUNS, &BTreeMap::from([("c1/a", Rate { requests, bits })]), 0);
        assert_eq!(hot.spread("c1/a", usize::MAX), expected, "{requests} requests/s, {bits} bits/s");
    }

    const SUNS: Suns = Suns { count: 20, mean_requests: 1000.0, nic_bits: 10e9 };
    const RULE: Rule = Rule {
        request_share: 0.05,
        nic_share: 0.5,
        requests_min: 20.0,
        lower_after_ms: 600_000,
        files_max: 10,
        copies_max: 20,
    };
}
