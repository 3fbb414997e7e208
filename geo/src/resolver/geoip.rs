//! A city or country file in MaxMind's format.
//!
//! ```text
//!   address --search tree--> offset of a record --table, made at load--> region, "RU 55.75,37.62"
//! ```
//!
//! Many networks share a record. Each record is decoded once, when the file is loaded, and a broken tree
//! or record is an error then; an answer is a walk of the tree and one look into a table.
//!
//! A record tells a position (`location.latitude`, MaxMind's city files; or `latitude` beside
//! `country_code`, flat files) or a country (`country.iso_code`, or flat `country_code` or `country`). A
//! position leads to the nearest region. A country leads where `countries` says, since a file without
//! positions cannot tell which region is near.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::Path;

use maxminddb::{LookupResult, MaxMindDbError, Reader, WithinOptions};
use serde::Deserialize;

use super::ResolverError;
use crate::file;
use crate::regions::Regions;
use crate::topology::RegionId;

/// The file and where its records lead.
#[derive(Debug)]
pub(super) struct Geoip {
    reader: Reader<Vec<u8>>,
    /// By offset in the file's data section; records that lead nowhere are left out.
    records: HashMap<usize, (RegionId, Box<str>)>,
}

impl Geoip {
    /// Reads the file and looks at every record.
    pub(super) fn load(
        path: &Path,
        countries: &BTreeMap<String, RegionId>,
        regions: &Regions,
    ) -> Result<Self, ResolverError> {
        let refuse = |why: String| ResolverError(format!("{}: {why}", path.display()));
        let bytes = file::read_bounded(path, FILE_BYTES_MAX).map_err(|error| refuse(error.to_string()))?;
        let broken = |error: MaxMindDbError| refuse(format!("it is no whole file in MaxMind's format: {error}"));
        let reader = Reader::from_source(bytes).map_err(broken)?;
        let records = records(&reader, countries, regions).map_err(broken)?;
        if records.is_empty() {
            let have = if countries.is_empty() { "is empty" } else { "has none of its countries" };
            return Err(refuse(format!("no record leads to a region: none has a position, and `countries` {have}")));
        }
        Ok(Self { reader, records })
    }

    /// The region of an address and what the file says about it.
    pub(super) fn of(&self, address: IpAddr) -> Option<(RegionId, &str)> {
        // An IPv4 file answers an IPv6 address with an error; it knows nothing about it.
        let offset = self.reader.lookup(address).ok()?.offset()?;
        self.records.get(&offset).map(|(region, record)| (*region, &**record))
    }
}

/// Decodes every record of the tree once.
fn records(
    reader: &Reader<Vec<u8>>,
    countries: &BTreeMap<String, RegionId>,
    regions: &Regions,
) -> Result<HashMap<usize, (RegionId, Box<str>)>, MaxMindDbError> {
    let mut seen: HashMap<usize, Option<(RegionId, Box<str>)>> = HashMap::new();
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
        let Some(offset) = leaf.offset() else { continue };
        if let std::collections::hash_map::Entry::Vacant(entry) = seen.entry(offset) {
            entry.insert(place(&leaf, countries, regions)?);
        }
    }
    Ok(seen.into_iter().filter_map(|(offset, place)| place.map(|place| (offset, place))).collect())
}

/// Where a record leads.
fn place(
    leaf: &LookupResult<'_, Vec<u8>>,
    countries: &BTreeMap<String, RegionId>,
    regions: &Regions,
) -> Result<Option<(RegionId, Box<str>)>, MaxMindDbError> {
    let Some(record) = leaf.decode::<Record<'_>>()? else {
        return Ok(None);
    };
    let country = record.country().filter(|code| is_country(code));
    if let Some((latitude, longitude)) = record.position() {
        let country = country.map(|code| format!("{code} ")).unwrap_or_default();
        let told = format!("{country}{latitude:.2},{longitude:.2}");
        return Ok(Some((regions.nearest((latitude, longitude)), told.into())));
    }
    let region = country.and_then(|code| countries.get(code).map(|&region| (region, code.into())));
    Ok(region)
}

/// Refuses codes that no record can have and regions that are not there.
pub(super) fn check_countries(countries: &BTreeMap<String, RegionId>, regions: &Regions) -> Result<(), ResolverError> {
    let mut problems = Vec::new();
    for (code, &region) in countries {
        if !is_country(code) {
            problems.push(format!("countries: {code:?} = {region}: a country is two letters in upper case, \"RU\""));
        }
        if !regions.contains(region) {
            problems.push(format!("countries: {code:?} = {region}: the topology has no such region"));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(ResolverError(problems.join("\n"))) }
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

/// Files see IPv4 through at most five prefixes of IPv6.
const LEAVES_PER_NODE_MAX: u64 = 8;
/// Largest file, bytes; the largest city files have some 150 MB.
pub(super) const FILE_BYTES_MAX: u64 = 512 << 20;
