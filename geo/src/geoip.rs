//! A city or country file in MaxMind's format, read once into sorted ranges.
//!
//! ```text
//!   file --one walk of its tree--> ranges: start, place      places: "RU 55.75,37.62", each once
//!                                    |                              |
//!                                    |        +--nearest region by position, else what `countries` says
//!                                    v        v
//!                                  bake: start, leaf; neighbours of equal leaf are one range --> table's base
//! ```
//!
//! Many networks share a record, and many records a place. Each record is decoded once, when the file is loaded, and
//! a broken tree or record is an error then. The file's bytes are not kept: where regions stand may change, and
//! baking anew is one pass over the ranges.
//!
//! A record tells a position (`location.latitude`, MaxMind's city files; or `latitude` beside `country_code`, flat
//! files) or a country (`country.iso_code`, or flat `country_code` or `country`). A position leads to the nearest
//! region. A country leads where `countries` says, since a file without positions cannot tell which region is near.
//!
//! # Invariants
//!
//! - Starts ascend, the first is the family's first address, and neighbours differ, in what is read and in what is baked.
//! - IPv4 is what the file has at `::/96`, as the format's readers have it. The same seen as `::ffff:0:0/96` is left
//!   out: such a client is an IPv4 client to everybody here. Other places where a file shows IPv4 again (6to4, Teredo)
//!   are ranges like any others, so that an answer is the one of the file for every address.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::Path;

use maxminddb::{LookupResult, MaxMindDbError, Reader, WithinOptions};
use serde::Deserialize;

use crate::file;
use crate::regions::Regions;
use crate::table::{self, Candidate, Leaf, NOTHING, Source};
use crate::topology::RegionId;

/// What a file says of every address.
#[derive(Debug)]
pub struct Geoip {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
    places: Vec<Place>,
}

/// A file cannot be used; names the file and what is wrong with it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct GeoipError(pub String);

/// Where a record says that its addresses are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Place {
    /// Degrees north and east.
    pub position: Option<(f64, f64)>,
    /// ISO 3166-1 alpha-2.
    pub country: Option<[u8; 2]>,
}

impl Geoip {
    /// Reads the file and looks at every record; up to seconds for a city file.
    ///
    /// # Errors
    ///
    /// The file, and what is wrong with it.
    pub fn load(path: &Path) -> Result<Self, GeoipError> {
        let refuse = |why: String| GeoipError(format!("{}: {why}", path.display()));
        let bytes = file::read_bounded(path, FILE_BYTES_MAX).map_err(|error| refuse(error.to_string()))?;
        let broken = |error: MaxMindDbError| refuse(format!("it is no whole file in MaxMind's format: {error}"));
        let reader = Reader::from_source(bytes).map_err(broken)?;
        walk(&reader).map_err(broken)
    }

    /// What the file says of an address. An IPv4 address in IPv6's clothes is an IPv4 address.
    #[must_use]
    pub fn place(&self, address: IpAddr) -> Option<Place> {
        let index = match address.to_canonical() {
            IpAddr::V4(v4) => self.v4.find(v4.into()),
            IpAddr::V6(v6) => self.v6.find(v6.into()),
        };
        self.places.get(index? as usize).copied()
    }

    /// Degrees north and east of an address.
    #[must_use]
    pub fn position(&self, address: IpAddr) -> Option<(f64, f64)> {
        self.place(address)?.position
    }

    /// The leaf of every range: the region that is nearest to its position, else that of its country. A family in which
    /// no address has one has no ranges.
    ///
    /// # Errors
    ///
    /// When no record leads to a region; the caller names the file.
    pub fn bake(&self, countries: &BTreeMap<String, RegionId>, regions: &Regions) -> Result<table::Ranges, GeoipError> {
        let mut known = table::Leaves::default();
        let index_of = |place: &Place| leaf(place, countries, regions).map_or(NOTHING, |leaf| known.intern(&leaf));
        let leaves: Vec<u32> = self.places.iter().map(index_of).collect();
        let known = known.into_vec();
        if known.is_empty() {
            if self.places.iter().all(|place| *place == Place::default()) {
                let what =
                    "no record has a position or a country: it is no city or country file, but one of AS, perhaps";
                return Err(GeoipError(what.to_owned()));
            }
            let have = if countries.is_empty() { "is empty" } else { "has none of its countries" };
            return Err(GeoipError(format!(
                "no record leads to a region: none has a position, and `countries` {have}"
            )));
        }
        Ok(table::Ranges { v4: self.v4.mapped(&leaves), v6: self.v6.mapped(&leaves), leaves: known })
    }

    /// Ranges of both families about which something is known; those where a file shows IPv4 again are not IPv6's.
    #[must_use]
    pub fn known(&self) -> [u64; 2] {
        let v4 = self.v4.places.iter().filter(|place| **place != NOWHERE).count();
        let v6 = self.v6.starts.iter().zip(&self.v6.places);
        let v6 = v6.filter(|(start, place)| **place != NOWHERE && !shows_v4(**start)).count();
        [v4 as u64, v6 as u64]
    }

    /// Ranges of both families as the file has them.
    #[must_use]
    pub const fn ranges(&self) -> (usize, usize) {
        (self.v4.starts.len(), self.v6.starts.len())
    }
}

/// Whether a file of IPv4 alone in IPv6's form shows its records again there: at `::/96`, and through Teredo (RFC 4380, section
/// 2.6) and 6to4 (RFC 3056, section 2).
pub(crate) const fn shows_v4(start: u128) -> bool {
    start >> 32 == 0 || start >> 96 == 0x2001_0000 || start >> 112 == 0x2002
}

/// Where addresses of a place are served.
fn leaf(place: &Place, countries: &BTreeMap<String, RegionId>, regions: &Regions) -> Option<Leaf> {
    let by_country = || {
        let code = place.country?;
        countries.get(std::str::from_utf8(&code).ok()?).copied()
    };
    let region = match place.position {
        Some(position) => regions.nearest(position),
        None => by_country()?,
    };
    let candidates = vec![Candidate { region, rank: 0 }];
    Some(Leaf { candidates, denied: Vec::new(), source: Source::Geoip(place.country) })
}

/// First addresses of ranges and the place of each. Two lists, since a pair with a `u128` has 12 bytes of nothing.
#[derive(Debug, Default)]
struct Ranges<A> {
    starts: Vec<A>,
    /// Indices of places; [`NOWHERE`] where nothing is known.
    places: Vec<u32>,
}

impl<A: Copy + Ord> Ranges<A> {
    /// The next range begins; it is the same one when it is the same place.
    fn push(&mut self, start: A, place: u32) -> Result<(), MaxMindDbError> {
        if self.places.last() == Some(&place) {
            return Ok(());
        }
        if self.starts.len() == RANGES_MAX {
            return Err(MaxMindDbError::invalid_database(format!("more than {RANGES_MAX} ranges")));
        }
        self.starts.push(start);
        self.places.push(place);
        Ok(())
    }

    fn find(&self, address: A) -> Option<u32> {
        let after = self.starts.partition_point(|start| *start <= address);
        self.places.get(after.checked_sub(1)?).copied()
    }

    fn mapped(&self, leaves: &[u32]) -> Vec<(A, u32)> {
        let of = |&place: &u32| leaves.get(place as usize).copied().unwrap_or(NOTHING);
        let mut mapped: Vec<(A, u32)> = Vec::new();
        for (&start, leaf) in self.starts.iter().zip(self.places.iter().map(of)) {
            if mapped.last().is_none_or(|last| last.1 != leaf) {
                mapped.push((start, leaf));
            }
        }
        // What has no leaf at all is no ranges rather than one.
        if mapped.iter().all(|(_, leaf)| *leaf == NOTHING) { Vec::new() } else { mapped }
    }
}

/// Comes to every leaf of the tree, in order of address, and decodes every record once.
fn walk(reader: &Reader<Vec<u8>>) -> Result<Geoip, MaxMindDbError> {
    let mut found = Geoip { v4: Ranges::default(), v6: Ranges::default(), places: Vec::new() };
    let mut records: HashMap<usize, u32> = HashMap::new();
    let mut known: HashMap<([u64; 2], [u8; 2]), u32> = HashMap::new();
    let is_v4 = reader.metadata().ip_version == 4;
    // A tree of n nodes has n + 1 leaves, an IPv6 file some of them again where IPv4 is seen through other
    // prefixes. A broken tree, whose nodes share children at every level, has no end in practice, so
    // what is counted is everything that the walk comes to.
    let mut leaves_left = LEAVES_PER_NODE_MAX * u64::from(reader.metadata().node_count);
    let every_leaf = WithinOptions::default().include_networks_without_data().include_aliased_networks();
    for leaf in reader.networks(every_leaf)? {
        let leaf = leaf?;
        leaves_left = leaves_left
            .checked_sub(1)
            .ok_or_else(|| MaxMindDbError::invalid_database("the search tree has more leaves than nodes allow"))?;
        let place = match leaf.offset() {
            None => NOWHERE,
            Some(offset) => match records.get(&offset) {
                Some(&place) => place,
                None => {
                    let place = intern(place(&leaf)?, &mut known, &mut found.places);
                    records.insert(offset, place);
                    place
                }
            },
        };
        match leaf.network()?.ip() {
            IpAddr::V4(start) if is_v4 => found.v4.push(start.into(), place)?,
            // What an IPv6 file has at ::/96 is told as IPv4.
            IpAddr::V4(start) => found.v6.push(u32::from(start).into(), place)?,
            IpAddr::V6(start) if MAPPED.contains(&start.into()) => found.v6.push(*MAPPED.start(), NOWHERE)?,
            IpAddr::V6(start) => found.v6.push(start.into(), place)?,
        }
    }
    if !is_v4 {
        for (&start, &place) in found.v6.starts.iter().zip(&found.v6.places) {
            let Ok(start) = u32::try_from(start) else { break };
            found.v4.push(start, place)?;
        }
    }
    Ok(found)
}

/// The index of a place among those found so far.
fn intern(place: Place, known: &mut HashMap<([u64; 2], [u8; 2]), u32>, places: &mut Vec<Place>) -> u32 {
    if place == Place::default() {
        return NOWHERE;
    }
    // No position on the globe is the same as one that is not a number.
    let (latitude, longitude) = place.position.unwrap_or((f64::NAN, f64::NAN));
    let key = ([latitude.to_bits(), longitude.to_bits()], place.country.unwrap_or_default());
    *known.entry(key).or_insert_with(|| {
        places.push(place);
        u32::try_from(places.len() - 1).expect("a file has fewer records than bytes")
    })
}

/// What a record tells.
fn place(leaf: &LookupResult<'_, Vec<u8>>) -> Result<Place, MaxMindDbError> {
    let Some(record) = leaf.decode::<Record<'_>>()? else { return Ok(Place::default()) };
    let country = record.country().filter(|code| is_country(code)).and_then(|code| code.as_bytes().try_into().ok());
    Ok(Place { position: record.position(), country })
}

/// Everything that is wrong with `countries`: codes that no record can have and regions that are not there.
pub(crate) fn check_countries(countries: &BTreeMap<String, RegionId>, regions: &Regions) -> Result<(), GeoipError> {
    let mut problems = Vec::new();
    for (code, &region) in countries {
        if !is_country(code) {
            problems.push(format!("countries: {code:?} = {region}: a country is two letters in upper case, \"RU\""));
        }
        if !regions.contains(region) {
            problems.push(format!("countries: {code:?} = {region}: the topology has no such region"));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(GeoipError(problems.join("\n"))) }
}

/// ISO 3166-1 alpha-2.
fn is_country(code: &str) -> bool {
    code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// What of a record counts; the rest is passed over.
#[derive(Debug, Deserialize)]
struct Record<'a> {
    #[serde(default)]
    location: Option<Location>,
    #[serde(default, borrow)]
    country: Option<Country<'a>>,
    #[serde(default)]
    country_code: Option<&'a str>,
    #[serde(default)]
    latitude: Option<Degrees>,
    #[serde(default)]
    longitude: Option<Degrees>,
}

#[derive(Debug, Deserialize)]
struct Location {
    #[serde(default)]
    latitude: Option<Degrees>,
    #[serde(default)]
    longitude: Option<Degrees>,
}

/// A number of either width.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Degrees {
    Are(f64),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Country<'a> {
    Flat(&'a str),
    Nested {
        #[serde(default)]
        iso_code: Option<&'a str>,
    },
}

impl Record<'_> {
    /// Degrees north and east, when both are there and on the globe.
    fn position(&self) -> Option<(f64, f64)> {
        let (Degrees::Are(latitude), Degrees::Are(longitude)) = match &self.location {
            Some(location) => (location.latitude?, location.longitude?),
            None => (self.latitude?, self.longitude?),
        };
        ((-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude)).then_some((latitude, longitude))
    }

    fn country(&self) -> Option<&str> {
        match &self.country {
            Some(Country::Flat(code)) => Some(code),
            Some(Country::Nested { iso_code }) => *iso_code,
            None => self.country_code,
        }
    }
}

/// The place of a range about which nothing is known.
const NOWHERE: u32 = u32::MAX;
/// `::ffff:0:0/96`, IPv4 in IPv6's clothes (RFC 4291, section 2.5.5.2).
const MAPPED: std::ops::RangeInclusive<u128> = 0xffff_0000_0000..=0xffff_ffff_ffff;
/// Files see IPv4 through at most five prefixes of IPv6.
const LEAVES_PER_NODE_MAX: u64 = 8;
/// Ranges of one family that one file may have; the largest city files have some 4 million. 20 bytes each.
const RANGES_MAX: usize = 16_000_000;
/// Largest file, bytes; the largest city files have some 150 MB.
pub(crate) const FILE_BYTES_MAX: u64 = 512 << 20;

#[cfg(test)]
mod tests;
