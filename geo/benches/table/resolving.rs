//! Nanoseconds of an answer: the ordered list of regions for an address, with 200 regions, from prefixes and geoip.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use geo::regions::Regions;
use geo::resolver::{Resolver, Standing};
use geo::table::Table;
use geo::{RegionId, Topology};

use crate::data::{ADDRESSES, Full, anywhere, within};

pub(crate) fn run(full: &Full, table: &Arc<Table>) {
    let resolver = Resolver::new(Arc::clone(table), Regions::of(&topology()));
    println!("| resolve, ns, median | all regions live | a tenth of them down |\n|---|---|---|");
    for (what, addresses) in [
        ("IPv4, any", anywhere(false)),
        ("IPv4, of prefixes", within(&full.v4)),
        ("IPv6, any", anywhere(true)),
        ("IPv6, of prefixes", within(&full.v6)),
    ] {
        let live = median_ns(&addresses, |client| resolver.resolve(client).regions.len());
        let some_down = |region: RegionId| if region.0.is_multiple_of(10) { Standing::Down } else { Standing::Live };
        let down = median_ns(&addresses, |client| resolver.resolve_with(client, some_down).regions.len());
        println!("| {what} | {live:.0} | {down:.0} |");
    }
    println!();
}

/// As many regions as the table's leaves name, on a ring around the world.
fn topology() -> Topology {
    let mut document = "version = 1\ndomain = \"example.org\"\ndefault_region = 0\n\
        [content_servers]\nurl = \"http://cs{number}.example.org\"\nnumbers = [\"1-9\"]\n"
        .to_owned();
    for id in 0..REGIONS {
        let longitude = f64::from(id) * 360.0 / f64::from(REGIONS) - 180.0;
        document += &format!("[[region]]\nid = {id}\nname = \"r{id}\"\nlatitude = 10.0\nlongitude = {longitude}\n");
    }
    Topology::parse(&document).expect("it is as the checks want it")
}

/// Of parts so small that most are not interrupted.
fn median_ns(addresses: &[IpAddr], mut resolve: impl FnMut(IpAddr) -> usize) -> f64 {
    let mut times: Vec<f64> = addresses[..ADDRESSES]
        .chunks(PART)
        .map(|part| {
            let began = Instant::now();
            part.iter().for_each(|client| {
                black_box(resolve(*client));
            });
            began.elapsed().as_secs_f64() * 1e9 / part.len() as f64
        })
        .collect();
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}

const REGIONS: u16 = 200;
const PART: usize = 1 << 10;
