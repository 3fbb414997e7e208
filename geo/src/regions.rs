//! The regions as the table and the resolver see them: positions, and who serves a region's clients.
//!
//! ```text
//!   Topology --of--> Regions: region --> unit vector, the region and its neighbours
//!                       ^
//!   degrees --> Point: one of the unit sphere; the chord between two points grows with the great circle's arc
//! ```
//!
//! Why vectors and not degrees: sines and cosines are taken once for each position, and a distance is three products.
//! The chord is as exact for near points as the haversine is (Sinnott, "Virtues of the Haversine", Sky and
//! Telescope, 1984), whose square root it is, twice.

use crate::topology::{RegionId, Topology};

/// What of a topology decides about regions; equal for two topologies that differ in weights alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Regions {
    default: RegionId,
    /// In order of id.
    places: Vec<(RegionId, Place)>,
    /// Where in `places` a region is, by its number; `ABSENT` for those between.
    index: Vec<u16>,
}

#[derive(Clone, Debug, PartialEq)]
struct Place {
    position: Point,
    /// The region and its neighbours.
    served_by: Vec<RegionId>,
}

/// A point on the globe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point([f64; 3]);

/// From degrees north and east, both finite.
impl From<(f64, f64)> for Point {
    fn from((latitude, longitude): (f64, f64)) -> Self {
        let (sin_north, cos_north) = latitude.to_radians().sin_cos();
        let (sin_east, cos_east) = longitude.to_radians().sin_cos();
        Self([cos_north * cos_east, cos_north * sin_east, sin_north])
    }
}

impl Point {
    /// The great-circle distance, kilometres: 0 to 20,015.
    #[must_use]
    pub fn km(&self, other: &Self) -> f64 {
        let half_chord = self.chord_squared(other).sqrt() / 2.0;
        2.0 * EARTH_RADIUS_KM * half_chord.min(1.0).asin()
    }

    /// Grows with the distance; 0 to 4.
    fn chord_squared(&self, other: &Self) -> f64 {
        let along = |axis: [f64; 2]| (axis[0] - axis[1]).powi(2);
        let ([a, b, c], [x, y, z]) = (self.0, other.0);
        along([a, x]) + along([b, y]) + along([c, z])
    }
}

impl Regions {
    /// The regions of a topology.
    #[must_use]
    pub fn of(topology: &Topology) -> Self {
        let places = topology.regions.iter().map(|region| {
            let served_by = std::iter::once(region.id).chain(region.neighbours.iter().copied());
            (region.id, Place { position: (region.latitude, region.longitude).into(), served_by: served_by.collect() })
        });
        let mut places: Vec<(RegionId, Place)> = places.collect();
        places.sort_by_key(|(id, _)| *id);
        let mut index = vec![ABSENT; places.last().map_or(0, |(id, _)| usize::from(id.0) + 1)];
        for (at, (id, _)) in (0..).zip(&places) {
            index[usize::from(id.0)] = at;
        }
        Self { default: topology.default_region, places, index }
    }

    /// The region of clients about whom nothing is known.
    #[must_use]
    pub const fn default(&self) -> RegionId {
        self.default
    }

    /// Whether the topology has it.
    #[must_use]
    pub fn contains(&self, region: RegionId) -> bool {
        self.index.get(usize::from(region.0)).is_some_and(|&at| at != ABSENT)
    }

    /// As [`Regions::contains`], for what names a region.
    ///
    /// # Errors
    ///
    /// "region = 9: the topology has no such region"
    pub(crate) fn known(&self, region: RegionId) -> Result<(), String> {
        if self.contains(region) { Ok(()) } else { Err(format!("region = {region}: the topology has no such region")) }
    }

    /// All of them, in order of id.
    pub fn iter(&self) -> impl Iterator<Item = RegionId> {
        self.places.iter().map(|(id, _)| *id)
    }

    /// The region, then those that take its clients over; none when the topology does not have it.
    #[must_use]
    pub fn from(&self, region: RegionId) -> &[RegionId] {
        self.place(region).map_or(&[], |place| &place.served_by)
    }

    /// The region that is nearest to a position by great circle; of several, the lowest id.
    #[must_use]
    pub fn nearest(&self, position: impl Into<Point>) -> RegionId {
        let position = position.into();
        let distances = self.places.iter().map(|(id, place)| (position.chord_squared(&place.position), *id));
        distances.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(self.default, |(_, id)| id)
    }

    /// How far a region is from a position by great circle, kilometres; none when the topology does not have it.
    #[must_use]
    pub fn km(&self, region: RegionId, position: &Point) -> Option<f64> {
        self.place(region).map(|place| place.position.km(position))
    }

    fn place(&self, region: RegionId) -> Option<&Place> {
        let at = *self.index.get(usize::from(region.0))?;
        self.places.get(usize::from(at)).map(|(_, place)| place)
    }
}

/// Regions of one answer.
pub const REGIONS_PER_CLIENT_MAX: usize = 4;

/// No region is at this place: a topology has at most 1,024.
const ABSENT: u16 = u16::MAX;

/// The mean radius (IUGG, 1980).
const EARTH_RADIUS_KM: f64 = 6371.0088;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_great_circles() {
        // Karney's geodesics on the ellipsoid differ from the sphere's by up to 0.5 %.
        check_km((55.75, 37.62), (59.94, 30.31), 634.0);
        check_km((51.47, -0.45), (40.64, -73.78), 5540.0);
        check_km((-18.0, 179.9), (-18.0, -179.9), 21.2); // Over the antimeridian.
        check_km((0.0, 0.0), (0.0, 180.0), 20_015.1);
        check_km((90.0, 12.0), (90.0, -100.0), 0.0); // The pole has every longitude.
        check_km((55.75, 37.62), (55.75, 37.62), 0.0);
    }

    #[track_caller]
    fn check_km(a: (f64, f64), b: (f64, f64), expected: f64) {
        let km = Point::from(a).km(&b.into());
        assert!((km - expected).abs() <= 0.005 * expected + 0.001, "{km} km");
    }
}
