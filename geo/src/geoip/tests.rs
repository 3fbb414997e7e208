//! Files that the tests write themselves, against the format's own reader.

use std::fs;

use mmdb_writer::{Value, Writer};
use proptest::prelude::*;

use super::*;
use crate::topology::Topology;

#[test]
fn neighbours_of_one_leaf_are_one_range() {
    let mut file = Writer::new("City");
    // Two records of Moscow, one of Fiji, one of nowhere, and two countries.
    for (net, value) in [
        ("10.0.0.0/24", record(Some((55.7, 37.6)), "RU")),
        ("10.0.1.0/24", record(Some((56.0, 38.0)), "RU")),
        ("10.0.2.0/24", record(Some((-17.7, 178.1)), "FJ")),
        ("10.0.3.0/24", record(None, "XX")),
        ("10.0.4.0/24", record(None, "GB")),
        ("2001:db8::/32", record(Some((55.7, 37.6)), "RU")),
    ] {
        file.insert_value(net.parse::<ipnet::IpNet>().unwrap(), value).unwrap();
    }
    let (_, geoip) = load(&file);
    assert_eq!(geoip.position([10, 0, 1, 9].into()), Some((56.0, 38.0)));
    let countries = BTreeMap::from([("GB".to_owned(), RegionId(1))]);
    let baked = geoip.bake(&countries, &regions()).unwrap();
    let told: Vec<String> = baked
        .v4
        .iter()
        .map(|&(start, leaf)| format!("{} {}", std::net::Ipv4Addr::from(start), printed(&baked, leaf)))
        .collect();
    let expected = ["0.0.0.0 -", "10.0.0.0 1 RU", "10.0.2.0 2 FJ", "10.0.3.0 -", "10.0.4.0 1 GB", "10.0.5.0 -"];
    assert_eq!(told, expected);
    assert_eq!(baked.leaves.len(), 3);
    let v6: Vec<String> = baked
        .v6
        .iter()
        .filter(|(start, _)| start >> 96 == 0x2001_0db8 || start >> 96 == 0x2001_0db9)
        .map(|&(start, leaf)| format!("{} {}", std::net::Ipv6Addr::from(start), printed(&baked, leaf)))
        .collect();
    assert_eq!(v6, ["2001:db8:: 1 RU", "2001:db9:: -"]);
}

#[test]
fn what_leads_nowhere_is_no_ranges() {
    let mut file = Writer::new("Country");
    file.insert_value("10.0.0.0/24".parse::<ipnet::IpNet>().unwrap(), record(None, "GB")).unwrap();
    let (_, geoip) = load(&file);
    let nowhere = BTreeMap::from([("FR".to_owned(), RegionId(1))]);
    assert!(geoip.bake(&nowhere, &regions()).unwrap_err().0.ends_with("`countries` has none of its countries"));
    assert_eq!(geoip.place([10, 0, 0, 1].into()), Some(Place { position: None, country: Some(*b"GB") }));
    assert_eq!(geoip.place([10, 0, 1, 1].into()), None);
}

proptest! {
    #[test]
    fn every_address_is_where_the_formats_reader_has_it(
        v4 in prop::collection::vec((any::<u32>(), 1_u8..=32, 0_usize..6), 0..20),
        v6 in prop::collection::vec((any::<u128>(), 1_u8..=128, 0_usize..6), 0..20),
        low in prop::collection::vec((any::<u32>(), 90_u8..=128, 0_usize..6), 0..5),
        others in prop::collection::vec(any::<u128>(), 10),
    ) {
        let v4 = v4.into_iter().map(|(bits, length, record)| (ipnet::Ipv4Net::new(bits.into(), length).unwrap().trunc().into(), record));
        let low = low.into_iter().map(|(bits, length, record)| (u128::from(bits), length, record));
        let v6 = v6.into_iter().chain(low).map(|(bits, length, record)| (ipnet::Ipv6Net::new(bits.into(), length).unwrap().trunc().into(), record));
        let nets: Vec<(ipnet::IpNet, usize)> = v4.chain(v6).collect();
        let mut file = Writer::new("City");
        let mut addresses: Vec<IpAddr> = others.into_iter().map(|bits| IpAddr::V6(bits.into())).collect();
        for &(net, index) in &nets {
            // What the writer refuses, such as networks it has as aliases, is not in the file.
            let _ = file.insert_value(net, records()[index].clone());
            addresses.extend([net.network(), net.broadcast(), before(net.network()), after(net.broadcast())]);
            if let IpAddr::V4(v4) = net.network() {
                let low = u128::from(u32::from(v4));
                // IPv4 seen again: mapped, 6to4, Teredo.
                addresses.extend([0xffff << 32 | low, 0x2002 << 112 | low << 80, 0x2001 << 112 | low << 64].map(|bits| IpAddr::V6(bits.into())));
            }
        }
        let (reader, geoip) = load(&file);
        for address in addresses {
            let found = reader.lookup(address.to_canonical()).unwrap();
            let expected = place(&found).unwrap();
            prop_assert_eq!(geoip.place(address).unwrap_or_default(), expected, "{}", address);
        }
    }
}

fn before(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(u32::from(v4).wrapping_sub(1).into()),
        IpAddr::V6(v6) => IpAddr::V6(u128::from(v6).wrapping_sub(1).into()),
    }
}

fn after(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(u32::from(v4).wrapping_add(1).into()),
        IpAddr::V6(v6) => IpAddr::V6(u128::from(v6).wrapping_add(1).into()),
    }
}

fn records() -> [Value; 6] {
    [
        record(Some((55.7, 37.6)), "RU"),
        record(Some((56.0, 38.0)), "RU"),
        record(Some((-17.7, 178.1)), "FJ"),
        record(None, "GB"),
        record(None, "xx"),
        Value::map([("city", Value::from("nowhere"))]),
    ]
}

fn record(position: Option<(f64, f64)>, country: &str) -> Value {
    let country = ("country", Value::map([("iso_code", Value::from(country))]));
    let location = position.map(|(latitude, longitude)| {
        ("location", Value::map([("latitude", Value::Double(latitude)), ("longitude", Value::Double(longitude))]))
    });
    Value::map([country].into_iter().chain(location))
}

fn printed(baked: &table::Ranges, leaf: u32) -> String {
    let Some(leaf) = baked.leaves.get(leaf as usize) else { return "-".to_owned() };
    let Source::Geoip(Some(country)) = leaf.source else { return "?".to_owned() };
    format!("{} {}", leaf.candidates[0].region, std::str::from_utf8(&country).unwrap())
}

fn load(file: &Writer) -> (Reader<Vec<u8>>, Geoip) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("geoip");
    let bytes = file.to_bytes().unwrap();
    fs::write(&path, &bytes).unwrap();
    (Reader::from_source(bytes).unwrap(), Geoip::load(&path).unwrap())
}

/// 1 is Moscow, 2 is Fiji.
fn regions() -> Regions {
    let document = r#"
version = 1
domain = "example.org"
default_region = 1
content_servers = { url = "http://cs{number}", numbers = ["1"] }
region = [
    { id = 1, name = "Moscow", latitude = 55.75, longitude = 37.6 },
    { id = 2, name = "Fiji", latitude = -18, longitude = 178 },
]
group = [{ name = "sun1-1", subnet = "192.0.2.0/24" }]
sun = [{ name = "sun1-1-1", addresses = ["192.0.2.1"], internal = "10.0.0.1:81", weight = 1 }]
"#;
    Regions::of(&Topology::parse(document).unwrap())
}
