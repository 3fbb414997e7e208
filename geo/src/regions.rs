//! The regions as the resolver sees them: positions, and who serves a region's clients.

use std::collections::BTreeMap;

use crate::topology::{RegionId, Topology};

/// What of a topology decides about regions; equal for two topologies that differ in weights alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Regions {
    default: RegionId,
    places: BTreeMap<RegionId, Place>,
}

#[derive(Clone, Debug, PartialEq)]
struct Place {
    /// Degrees north and east.
    position: (f64, f64),
    /// The region and its neighbours, at most [`REGIONS_PER_CLIENT_MAX`].
    served_by: Vec<RegionId>,
}

impl Regions {
    /// The regions of a topology.
    #[must_use]
    pub fn of(topology: &Topology) -> Self {
        let places = topology.regions.iter().map(|region| {
            let served_by = std::iter::once(region.id).chain(region.neighbours.iter().copied());
            let served_by = served_by.take(REGIONS_PER_CLIENT_MAX).collect();
            (region.id, Place { position: (region.latitude, region.longitude), served_by })
        });
        Self { default: topology.default_region, places: places.collect() }
    }

    /// The region of clients about whom nothing is known.
    #[must_use]
    pub const fn default(&self) -> RegionId {
        self.default
    }

    /// Whether the topology has it.
    #[must_use]
    pub fn contains(&self, region: RegionId) -> bool {
        self.places.contains_key(&region)
    }

    /// The region, then those that take its clients over.
    #[must_use]
    pub fn from(&self, region: RegionId) -> &[RegionId] {
        self.places.get(&region).map_or(&[], |place| &place.served_by)
    }

    /// All of them, in order of id.
    pub fn iter(&self) -> impl Iterator<Item = RegionId> {
        self.places.keys().copied()
    }

    /// Kilometres between a position, degrees north and east, and a region.
    #[must_use]
    pub fn distance_km(&self, region: RegionId, position: (f64, f64)) -> Option<f64> {
        let half = haversine(position, self.places.get(&region)?.position).clamp(0.0, 1.0);
        Some(2.0 * EARTH_RADIUS_KM * half.sqrt().asin())
    }

    /// The region that is nearest to a position by great circle; of several, the lowest id.
    #[must_use]
    pub fn nearest(&self, position: (f64, f64)) -> RegionId {
        let distances = self.places.iter().map(|(&id, place)| (haversine(position, place.position), id));
        distances.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(self.default, |(_, id)| id)
    }
}

/// Grows with the great-circle distance of two positions, degrees north and east; 0..=1.
///
/// It is the sine, squared, of half the angle between them: exact for near points, where the cosine of
/// the angle is not (Sinnott, "Virtues of the Haversine", Sky and Telescope, 1984).
fn haversine(a: (f64, f64), b: (f64, f64)) -> f64 {
    let half = |degrees: f64| (degrees.to_radians() / 2.0).sin().powi(2);
    half(a.0 - b.0) + a.0.to_radians().cos() * b.0.to_radians().cos() * half(a.1 - b.1)
}

/// Mean radius (IUGG), kilometres.
const EARTH_RADIUS_KM: f64 = 6371.0088;
/// Regions of one answer.
pub const REGIONS_PER_CLIENT_MAX: usize = 4;
