//! Which of the suns that keep a file is to serve it next. Pure.
//!
//! ```text
//!   reports, each second --> smoothed over 5 s --> busy: 1.0 = as the region's mean
//!
//!   two different servers drawn; the second one is taken with the probability
//!
//!     1   |            .-----      1/2 + 4/2 * (busy of the first - busy of the second)
//!     1/2 |       . '
//!     0   | -----'
//!         +--------+--------> busy of the first - busy of the second
//!                  0
//! ```
//!
//! This is the power of two choices (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE
//! TPDS 2001), damped. Why not simply the less loaded of the two: gauges are one to two seconds old, and for so long
//! everybody who chooses sees the same one. The sun that is lowest then gets twice its share of all hot files, the
//! highest nothing, and a second later they change places. Choosing in proportion to the difference, by gauges that
//! are smoothed over more than their age, settles instead (`tests/bench/spread` prints both).

use geo::topology::Server;

use crate::wire::Load;

/// The load of one server, smoothed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gauge {
    /// Requests per second.
    pub requests: f64,
    /// Bits per second.
    pub bits: f64,
}

impl Gauge {
    /// The gauge of a server that reports for the first time.
    #[must_use]
    pub const fn new(load: &Load) -> Self {
        Self { requests: load.requests_per_second, bits: load.bits_per_second }
    }

    /// Takes in what the server reported `seconds` after its last report.
    pub fn take_in(&mut self, load: &Load, seconds: f64) {
        let share = 1.0 - (-seconds.max(0.0) / SMOOTHED_S).exp();
        self.requests += share * (load.requests_per_second - self.requests);
        self.bits += share * (load.bits_per_second - self.bits);
    }
}

/// What the suns of a region carry and can carry, summed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Requests per second.
    requests: f64,
    /// Bits per second.
    bits: f64,
    /// Weights.
    weight: f64,
    /// Bandwidth of network cards, bits per second.
    nic_bits: f64,
}

impl Sums {
    /// Adds a living sun; one without weight (draining) has no share of anything.
    pub fn add(&mut self, server: &Server, gauge: Gauge) {
        if server.weight.get() > 0 {
            self.requests += gauge.requests;
            self.bits += gauge.bits;
            self.weight += f64::from(server.weight.get());
            self.nic_bits += server.nic_gbps * 1e9;
        }
    }

    /// What a server would carry if all did as much for their weight (requests) and network card (bits); no bits
    /// while the cards are idle. Nothing when nobody has weight.
    #[must_use]
    pub fn expected(&self, server: &Server) -> Option<Gauge> {
        let idle = self.bits < NIC_SHARE_MIN * self.nic_bits;
        (self.weight > 0.0 && self.nic_bits > 0.0).then(|| Gauge {
            requests: f64::from(server.weight.get()) / self.weight * self.requests,
            bits: if idle { 0.0 } else { server.nic_gbps * 1e9 / self.nic_bits * self.bits },
        })
    }

    /// How busy a server is: 1.0 as the region's mean, by requests for its weight or by bits for its network card,
    /// whichever is more. 1.0 where nothing is known, and without load.
    #[must_use]
    pub fn busy(&self, server: &Server, gauge: Gauge) -> f64 {
        let expected = self.expected(server).unwrap_or_default();
        let ratio = |load: f64, expected: f64| if expected > 0.0 { load / expected } else { 1.0 };
        let by_requests = ratio(gauge.requests, expected.requests);
        if expected.bits > 0.0 { by_requests.max(ratio(gauge.bits, expected.bits)) } else { by_requests }
    }
}

/// The place of the server to take, of servers that are so busy; at least one. `draw` gives random numbers below
/// its argument.
///
/// # Panics
///
/// When there is none to choose from.
pub fn choose(busy: &[f64], draw: &mut impl FnMut(usize) -> usize) -> usize {
    choose_with(EAGERNESS, busy, draw)
}

/// As [`choose`], with another eagerness; infinity is the undamped power of two choices.
///
/// # Panics
///
/// As [`choose`].
pub fn choose_with(eagerness: f64, busy: &[f64], draw: &mut impl FnMut(usize) -> usize) -> usize {
    if busy.len() == 1 {
        return 0;
    }
    let first = draw(busy.len());
    let second = (first + 1 + draw(busy.len() - 1)) % busy.len();
    let difference = busy[first] - busy[second];
    // Equal ones have no product with infinity.
    let push = if difference == 0.0 { 0.0 } else { eagerness * difference };
    if fraction(draw) < 0.5 + push / 2.0 { second } else { first }
}

/// The place of the server to take, of servers with a weight and so busy; at least one. The two are drawn by weight.
///
/// # Panics
///
/// When there is none to choose from.
pub fn choose_weighted(servers: &[(u16, f64)], draw: &mut impl FnMut(usize) -> usize) -> usize {
    if servers.len() == 1 {
        return 0;
    }
    let first = draw_weighted(servers, usize::MAX, draw);
    let second = draw_weighted(servers, first, draw);
    let push = EAGERNESS * (servers[first].1 - servers[second].1);
    if fraction(draw) < 0.5 + push / 2.0 { second } else { first }
}

/// One of them by weight, but not the one at `without`; those without weight as if they had the least.
fn draw_weighted(servers: &[(u16, f64)], without: usize, draw: &mut impl FnMut(usize) -> usize) -> usize {
    let others = servers.iter().enumerate().filter(|(index, _)| *index != without);
    let weights = others.map(|(index, (weight, _))| (index, usize::from(*weight).max(1)));
    let mut left = draw(weights.clone().map(|(_, weight)| weight).sum());
    for (index, weight) in weights {
        let Some(rest) = left.checked_sub(weight) else { return index };
        left = rest;
    }
    0
}

/// A random number in 0..1.
#[expect(clippy::cast_precision_loss, reason = "2^20 is exact")]
pub fn fraction(draw: &mut impl FnMut(usize) -> usize) -> f64 {
    draw(1 << 20) as f64 / (1_u32 << 20) as f64
}

/// What gauges are smoothed over, seconds: several times their age, so that a choice by them does not chase itself.
const SMOOTHED_S: f64 = 5.0;
/// How strongly a difference decides: a server that is 1/4 of the mean busier than the other one is not taken.
/// With smoothed gauges less corrects little, and more begins to swing.
const EAGERNESS: f64 = 4.0;
/// While the network cards of a region are used below this, bits say nothing of who is busy.
const NIC_SHARE_MIN: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::topology;

    #[test]
    fn the_less_busy_is_taken_by_as_much_as_it_is_less_busy() {
        // Of 1,000 draws of the first and the second server, how many took the second.
        check(&[1.0, 1.0], 500);
        check(&[1.1, 1.0], 700);
        check(&[1.0, 1.1], 300);
        check(&[1.25, 1.0], 1000);
        check(&[1.0, 1.5], 0);
        check(&[9.0, 0.0], 1000);
    }

    #[test]
    fn undamped_it_is_the_power_of_two_choices() {
        let taken = |busy: &[f64], coin: usize| {
            let mut draws = [0, 0, coin].into_iter();
            choose_with(f64::INFINITY, busy, &mut |_| draws.next().unwrap())
        };
        for coin in [0, (1 << 20) - 1] {
            assert_eq!(taken(&[1.001, 1.0], coin), 1);
            assert_eq!(taken(&[1.0, 1.001], coin), 0);
        }
    }

    #[test]
    fn of_weighted_servers_the_less_busy_of_two_is_taken() {
        let mut seed = 1_u64;
        let mut shares = |servers: &[(u16, f64)]| {
            let mut taken = vec![0; servers.len()];
            for _ in 0..10_000 {
                let place = choose_weighted(servers, &mut |below| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    usize::try_from(seed >> 33).unwrap() % below
                });
                taken[place] += 1;
            }
            taken.iter().map(|count| (count + 250) / 500 * 5).collect::<Vec<_>>()
        };
        // Percent of the draws, to five.
        assert_eq!(shares(&[(100, 1.0), (100, 1.0)]), [50, 50]);
        assert_eq!(shares(&[(100, 1.0), (100, 1.25)]), [100, 0]);
        assert_eq!(shares(&[(100, 1.0), (100, 1.0), (100, 1.0)]), [35, 35, 35]);
        assert_eq!(shares(&[(200, 1.0), (100, 1.0), (100, 1.0)]), [40, 30, 30]);
        assert_eq!(shares(&[(0, 1.0), (0, 1.0)]), [50, 50]);
    }

    #[test]
    fn one_server_needs_no_draw() {
        assert_eq!(choose(&[9.0], &mut |_| unreachable!()), 0);
        assert_eq!(choose_weighted(&[(100, 9.0)], &mut |_| unreachable!()), 0);
    }

    #[test]
    fn gauges_follow_within_seconds() {
        let load = |requests_per_second| Load { requests_per_second, ..Load::default() };
        let mut gauge = Gauge::new(&load(100.0));
        gauge.take_in(&load(200.0), 5.0);
        assert!((gauge.requests - 163.2).abs() < 0.1, "{gauge:?}");
        gauge.take_in(&load(0.0), 1e9);
        assert_eq!(gauge.requests, 0.0);
        gauge.take_in(&load(9.0), -1.0);
        assert_eq!(gauge.requests, 0.0);
    }

    #[test]
    fn busy_is_relative_to_what_a_server_can_do() {
        let topology = topology(); // Weights 100, 100 and 50, 10 Gbit/s each.
        let servers: Vec<&Server> = topology.regions[0].suns.iter().map(|sun| &sun.server).collect();
        let busy = |loads: [(f64, f64); 3]| {
            let gauges = loads.map(|(requests, bits)| Gauge { requests, bits });
            let mut sums = Sums::default();
            servers.iter().zip(gauges).for_each(|(server, gauge)| sums.add(server, gauge));
            let busy: Vec<f64> =
                servers.iter().zip(gauges).map(|(server, gauge)| (sums.busy(server, gauge) * 100.0).round()).collect();
            busy
        };
        assert_eq!(busy([(0.0, 0.0); 3]), [100.0, 100.0, 100.0]);
        assert_eq!(busy([(100.0, 0.0), (100.0, 0.0), (50.0, 0.0)]), [100.0, 100.0, 100.0]);
        assert_eq!(busy([(100.0, 0.0), (50.0, 0.0), (100.0, 0.0)]), [100.0, 50.0, 200.0]);
        assert_eq!(busy([(100.0, 1e9), (100.0, 1e9), (50.0, 4e9)]), [100.0, 100.0, 200.0]);
        assert_eq!(busy([(100.0, 1e6), (100.0, 1e6), (50.0, 4e6)]), [100.0; 3], "the cards are idle");
        assert_eq!(Sums::default().busy(servers[0], Gauge::default()), 1.0);
        assert_eq!(Sums::default().expected(servers[0]), None);
    }

    #[track_caller]
    fn check(busy: &[f64], expected: usize) {
        let taken = (0..1000).filter(|&coin| {
            let mut draws = [0, 0, coin * (1 << 20) / 1000].into_iter();
            choose(busy, &mut |_| draws.next().unwrap()) == 1
        });
        let taken = taken.count();
        assert!(taken.abs_diff(expected) <= 1, "{busy:?}: {taken} of 1,000, expected {expected}");
    }
}
