//! How many caches of a region carry a file, and which. Pure.
//!
//! ```text
//!   forecast peak, bits/s = 8 * size * max(downloads/s by the short half-life, peak_factor * downloads/s by the long one)
//!   copies                = ceil(peak / (nic_share * network card)), at least 1
//!
//!   the file's order:   cache4-3   cache4-1   cache4-2          copies = 2, cache4-3 is gone:
//!                         gone       carries    carries         the next ones stand in
//! ```
//!
//! A cache is *gone* when it has not been well for a while, not when it is silent for three seconds: links go by that,
//! but the files of a cache that restarts are not worth carrying elsewhere.

use geo::topology::Server;

use crate::ratings::Decayed;

/// What makes copies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Copies {
    /// Half-lives, short and long, seconds.
    pub half_lives_s: (f64, f64),
    /// The busiest hour of a day beside its mean hour.
    pub peak_factor: f64,
    /// Share of a network card that one file may fill.
    pub nic_share: f64,
}

impl Copies {
    /// What the file will ask for in the busiest hour, bits per second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a forecast")]
    pub fn peak_bits(&self, left: Decayed, size: u64) -> f64 {
        let (hour_s, days_s) = self.half_lives_s;
        let now = left.hour * std::f64::consts::LN_2 / hour_s;
        let usual = left.days * std::f64::consts::LN_2 / days_s;
        8.0 * size as f64 * now.max(self.peak_factor * usual)
    }

    /// Caches that the file takes, with network cards of so many bits per second; at least 1.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and bounded by clamp")]
    pub fn count(&self, left: Decayed, size: u64, nic_bits: f64) -> usize {
        (self.peak_bits(left, size) / (self.nic_share * nic_bits)).ceil().clamp(1.0, 1e6) as usize
    }
}

/// Whether `cache` is among the first `copies` of the file's order, those that are gone left out. One that is gone itself
/// is so from the place it would have: it asks, so it lives.
pub fn carries<'a>(
    order: impl Iterator<Item = &'a Server>,
    cache: &str,
    copies: usize,
    gone: impl Fn(&str) -> bool,
) -> bool {
    let mut living = order.filter(|server| server.name == cache || !gone(&server.name)).take(copies);
    living.any(|server| server.name == cache)
}

/// Bits per second of the smallest network card; that of no cache is boundless.
#[must_use]
pub fn smallest_nic_bits<'a>(servers: impl Iterator<Item = &'a Server>) -> f64 {
    servers.map(|server| server.nic_gbps * 1e9).fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn copies_are_what_the_busiest_hour_takes() {
        let gigabyte = 1_000_000_000;
        check(0.0, 0.0, gigabyte, 1);
        // 1,000 downloads an hour, as long as can be remembered: 2.2 Gbit/s, at the evening's peak 4.4, half of 10 is 5.
        check(1443.0, 69_240.0, gigabyte, 1);
        check(1.2 * 1443.0, 1.2 * 69_240.0, gigabyte, 2);
        // The same since an hour ago: as many as have come, and no peak beyond.
        check(721.0, 721.0, gigabyte, 1);
        check(10.0 * 721.0, 10.0 * 721.0, gigabyte, 3);
        check(1e9, 1e9, 1, 1);
        check(1e300, 1e300, u64::MAX, 1_000_000);
    }

    #[test]
    fn the_first_living_caches_of_the_order_carry_a_file() {
        let all = ["cache4-1", "cache4-2"];
        carried_by(1, &[], &["first"]);
        carried_by(2, &[], &["first", "second"]);
        carried_by(9, &[], &["first", "second"]);
        carried_by(1, &["first"], &["first", "second"]);
        carried_by(1, &["second"], &["first"]);
        assert_eq!(all.len(), testing::topology().region(geo::RegionId(4)).unwrap().caches.len());
    }

    #[track_caller]
    fn carried_by(copies: usize, gone: &[&str], expected: &[&str]) {
        let topology = testing::topology();
        let content = geo::CanonicalName::parse("c1/a").unwrap().content_id();
        let order = topology.region(geo::RegionId(4)).unwrap().cache_order(content);
        let places = [("first", &order[0].server.name), ("second", &order[1].server.name)];
        let is_gone = |name: &str| places.iter().any(|(place, known)| *known == name && gone.contains(place));
        let carrying =
            places.iter().filter(|(_, cache)| carries(order.iter().map(|cache| &cache.server), cache, copies, is_gone));
        assert_eq!(carrying.map(|(place, _)| *place).collect::<Vec<_>>(), expected);
    }

    #[track_caller]
    fn check(hour: f64, days: f64, size: u64, expected: usize) {
        let copies = Copies { half_lives_s: (3600.0, 172_800.0), peak_factor: 2.0, nic_share: 0.5 };
        assert_eq!(copies.count(Decayed { hour, days }, size, 10e9), expected);
    }
}
