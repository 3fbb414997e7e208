//! When links pass a region over because it is full. Pure.
//!
//! ```text
//!   carried by the region's living suns (or caches) / their network cards
//!
//!   1.0 |          ____
//!       |  ---.---/----\---- above: links go to the client's next region
//!       |    /          \
//!       |  -/------------\-- below: links come back
//!       | /               \
//!       +--------------------> time
//! ```
//!
//! Between the two it stays what it was, since links are followed for a while after they were made: what a region
//! carries falls slowly when it gets no more of them, and one bound would send everybody back and forth.
//!
//! Why suns and caches apart, and the fuller kind counts: the network cards of one are no help to the other.

use std::collections::HashSet;

use geo::RegionId;

/// Shares of the network cards of a region's living servers, at which it is full and is not any more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Saturated above.
    pub above: f64,
    /// Not any more below.
    pub below: f64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { above: 0.9, below: 0.75 }
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

/// The regions that are full.
#[derive(Debug, Default)]
pub struct Saturated {
    bounds: Bounds,
    regions: HashSet<RegionId>,
}

impl Saturated {
    /// No region is.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, regions: HashSet::new() }
    }

    /// A region's servers carry this share.
    pub fn update(&mut self, region: RegionId, share: f64) {
        if share > self.bounds.above {
            self.regions.insert(region);
        } else if share < self.bounds.below {
            self.regions.remove(&region);
        }
    }

    /// Whether a region is full.
    #[must_use]
    pub fn is(&self, region: RegionId) -> bool {
        self.regions.contains(&region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_its_bounds_a_region_stays_what_it_was() {
        let mut saturated = Saturated::new(Bounds { above: 0.9, below: 0.75 });
        for (share, expected) in [
            (0.0, false),
            (0.8, false),
            (0.9, false),
            (0.91, true),
            (0.8, true),
            (0.75, true),
            (0.74, false),
            (0.8, false),
            (f64::NAN, false),
            (7.0, true),
        ] {
            saturated.update(RegionId(4), share);
            assert_eq!(saturated.is(RegionId(4)), expected, "after {share}");
            assert!(!saturated.is(RegionId(5)));
        }
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
