//! Which share of a region's clients is sent to their next region, because it is full. Pure: the clock is an argument.
//!
//! ```text
//!   carried by the region's living suns (or caches) / their network cards, "utilisation"
//!
//!   1.0 |      .---.                        diverted, a share of the clients
//!   0.9 |- - -/- - -\- - - - - - above: it rises      .-----------------
//!       |    /       `----------- between: it stays  /
//!   0.75|- -/- - - - - - - - - - below: it falls    /
//!       |  /                                    ___/
//!       +-----------------------> time          +-----------------------> time
//!
//!   a client is diverted when its place, a hash of its /24 or /48 and the region, is below that share
//! ```
//!
//! Why a share of the clients and not all of them: the whole of a full region is too much for the next one. That is
//! full then, the first one empty, and they change places for ever, although both together have room for everybody.
//!
//! What is damped: the share moves in proportion to how far the utilisation is outside its bounds, and at most by
//! `per_s` a second. Why: links are followed for a while after they were made and gauges are seconds old and smoothed,
//! so the effect of a step shows late; with faster steps too many would have been diverted by then. Within the bounds
//! nothing moves at all, which absorbs what is overshot.
//!
//! Why suns and caches apart, and the fuller kind counts: the network cards of one are no help to the other.

use std::collections::HashMap;

use geo::RegionId;

/// When a region is full, and how fast its clients go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Utilisation above which more and more clients are diverted.
    pub above: f64,
    /// Utilisation below which they come back.
    pub below: f64,
    /// Most that the diverted share changes in a second: when the utilisation is [`FULL_SPEED`] or more outside its
    /// bounds.
    pub per_s: f64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { above: 0.9, below: 0.75, per_s: 0.01 }
    }
}

/// What one kind of servers of a region carry and can carry, summed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Carried {
    bits: f64,
    nic_bits: f64,
}

impl Carried {
    /// Adds a living server.
    pub fn add(&mut self, bits: f64, nic_gbps: f64) {
        self.bits += bits.max(0.0);
        self.nic_bits += nic_gbps * 1e9;
    }

    /// The share; 0 of nobody.
    #[must_use]
    pub fn share(&self) -> f64 {
        if self.nic_bits > 0.0 { self.bits / self.nic_bits } else { 0.0 }
    }
}

/// The shares of clients that are sent elsewhere.
#[derive(Debug, Default)]
pub struct Saturated {
    bounds: Bounds,
    regions: HashMap<RegionId, Diverted>,
}

#[derive(Clone, Copy, Debug)]
struct Diverted {
    share: f64,
    at_ms: u64,
}

impl Saturated {
    /// No client is.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, regions: HashMap::new() }
    }

    /// A region's servers are utilised so much.
    #[expect(clippy::cast_precision_loss, reason = "at most a few seconds")]
    pub fn update(&mut self, region: RegionId, utilisation: f64, now_ms: u64) {
        let diverted = self.regions.entry(region).or_insert(Diverted { share: 0.0, at_ms: now_ms });
        let elapsed_s = now_ms.saturating_sub(diverted.at_ms).min(STEP_MS_MAX) as f64 / 1000.0;
        diverted.at_ms = now_ms;
        let Bounds { above, below, per_s } = self.bounds;
        let outside = if utilisation > above {
            utilisation - above
        } else if utilisation < below {
            utilisation - below
        } else {
            // Between the bounds, or not a number.
            return;
        };
        let step = per_s * elapsed_s * (outside / FULL_SPEED).clamp(-1.0, 1.0);
        diverted.share = (diverted.share + step).clamp(0.0, 1.0);
    }

    /// The share of a region's clients that goes elsewhere, 0..=1.
    #[must_use]
    pub fn diverted(&self, region: RegionId) -> f64 {
        self.regions.get(&region).map_or(0.0, |diverted| diverted.share)
    }

    /// The shares of all regions, in no order.
    pub fn shares(&self) -> impl Iterator<Item = (RegionId, f64)> {
        self.regions.iter().map(|(&region, diverted)| (region, diverted.share))
    }

    /// Takes shares over that were found out elsewhere.
    pub fn restore(&mut self, shares: impl Iterator<Item = (RegionId, f64)>, now_ms: u64) {
        self.regions = shares.map(|(region, share)| (region, Diverted { share, at_ms: now_ms })).collect();
    }

    /// Whether a client with this place among those of the region is one of them.
    #[must_use]
    pub fn diverts(&self, region: RegionId, place: f64) -> bool {
        place < self.diverted(region)
    }
}

/// How far outside its bounds the utilisation is when the share moves at full speed. A network card that is full shows
/// 1.0 however much is asked of it: by default that is full speed.
pub const FULL_SPEED: f64 = 0.1;
/// Time that one update counts for at most, milliseconds: of a longer silence nothing is known.
const STEP_MS_MAX: u64 = 3000;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use geo::resolver::place_among_clients;

    use super::*;
    use crate::balance::Gauge;
    use crate::wire::Load;

    #[test]
    fn the_share_moves_outside_the_bounds_only_and_in_proportion() {
        let bounds = Bounds { above: 0.9, below: 0.75, per_s: 0.01 };
        let mut saturated = Saturated::new(bounds);
        // Seconds since the last one, utilisation, the share in thousandths.
        for (line, (now_ms, utilisation, expected)) in [
            (0, 1.0, 0.0), // The first says nothing of how long.
            (1, 1.0, 10.0),
            (1, 7.0, 20.0),
            (1, 0.95, 25.0),
            (2, 0.95, 35.0),
            (0, 1.0, 35.0),
            (1, 0.9, 35.0),
            (1, 0.75, 35.0),
            (1, f64::NAN, 35.0),
            (3600, 1.0, 65.0), // A silence.
            (1, 0.7, 60.0),
            (1, 0.0, 50.0),
        ]
        .into_iter()
        .scan(0, |now_ms, (seconds, utilisation, expected)| {
            *now_ms += seconds * 1000;
            Some((*now_ms, utilisation, expected))
        })
        .enumerate()
        {
            saturated.update(RegionId(4), utilisation, now_ms);
            assert!((saturated.diverted(RegionId(4)) * 1e3 - expected).abs() < 1e-6, "line {line}: {saturated:?}");
        }
        assert!(saturated.diverts(RegionId(4), 0.049) && !saturated.diverts(RegionId(4), 0.051));
        assert!(!saturated.diverts(RegionId(5), 0.0), "another region");
        for second in 0..1000 {
            saturated.update(RegionId(4), 2.0, 10_000_000 + second * 1000);
        }
        assert_eq!(saturated.diverted(RegionId(4)), 1.0);
        assert!(saturated.diverts(RegionId(4), 0.999_999));
    }

    #[test]
    fn two_regions_that_have_room_together_settle() {
        // Downloads of a second, of ten, of a minute; what two regions of 10 Gbit/s, neighbours, are asked for.
        for demand in [[9.5, 5.0], [12.0, 5.0], [5.0, 9.5], [9.2, 8.5]] {
            for download_s in [1.0, 10.0, 60.0] {
                for carried in two_regions(Bounds::default(), demand, download_s) {
                    let settled = &carried[1600..];
                    let least = settled.iter().copied().fold(f64::INFINITY, f64::min);
                    let most = settled.iter().copied().fold(0.0, f64::max);
                    let about = format!("{demand:?}, {download_s} s: {least:.2} to {most:.2}");
                    assert!(most < 9.3 && most - least < 0.1, "{about}");
                }
            }
        }
    }

    #[test]
    fn undamped_they_would_swing() {
        let [a, _] = two_regions(Bounds { per_s: 1.0, ..Bounds::default() }, [9.5, 5.0], 60.0);
        let settled = &a[1600..];
        let swing = settled.iter().copied().fold(0.0, f64::max) - settled.iter().copied().fold(f64::INFINITY, f64::min);
        assert!(swing > 1.0, "{swing}");
    }

    /// Of each region.
    const NETWORKS: u32 = 200;

    /// What regions 4 and 5 carry, Gbit/s, each second of forty minutes. Links are followed for `download_s`, gauges are two
    /// seconds old and smoothed as the registry does it.
    fn two_regions(bounds: Bounds, demand: [f64; 2], download_s: f64) -> [Vec<f64>; 2] {
        let regions = [RegionId(4), RegionId(5)];
        let place = |network: u32, region| place_among_clients(Ipv4Addr::from(network << 8).into(), region);
        let places: Vec<[f64; 2]> = (0..NETWORKS).map(|network| regions.map(|region| place(network, region))).collect();
        let mut saturated = Saturated::new(bounds);
        let mut carried = [vec![0.0_f64; 2], vec![0.0; 2]];
        let mut gauges = [Gauge::default(); 2];
        for second in 0..2400 {
            for (index, region) in regions.into_iter().enumerate() {
                let seen = carried[index][second].min(10.0);
                gauges[index].take_in(&Load { bits_per_second: seen, ..Load::default() }, 1.0);
                saturated.update(region, gauges[index].bits / 10.0, second as u64 * 1000);
            }
            let mut asked = [0.0; 2];
            for places in &places {
                let away = [0, 1].map(|index: usize| saturated.diverts(regions[index], places[index]));
                for home in [0, 1] {
                    let goes = if away[home] && !away[1 - home] { 1 - home } else { home };
                    asked[goes] += demand[home] / f64::from(NETWORKS);
                }
            }
            for (carried, asked) in carried.iter_mut().zip(asked) {
                let last = carried[second + 1];
                carried.push(last + (asked - last) * (1.0 - (-1.0 / download_s).exp()));
            }
        }
        carried
    }

    #[test]
    fn a_share_is_of_all_network_cards() {
        let mut carried = Carried::default();
        assert_eq!(carried.share(), 0.0);
        carried.add(9e9, 10.0);
        carried.add(-1.0, 20.0);
        assert_eq!(carried.share(), 0.3);
    }
}
