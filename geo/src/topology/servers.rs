//! Suns and caches, checked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::check::name_numbers;
use super::document;
use super::problems::{Problems, Row};
use super::{Cache, RegionId, Server, Sun};
use crate::placement::Weight;

/// What the servers seen so far have taken, each with who has it.
#[derive(Debug)]
pub(super) struct Servers<'a> {
    domain: &'a str,
    names: BTreeSet<&'a str>,
    internal: BTreeMap<SocketAddr, &'a str>,
    public: BTreeMap<SocketAddr, &'a str>,
}

impl<'a> Servers<'a> {
    /// Nobody has anything yet.
    pub(super) fn new(domain: &'a str) -> Self {
        Self { domain, names: BTreeSet::new(), internal: BTreeMap::new(), public: BTreeMap::new() }
    }

    /// All suns; complete when no problem was added.
    pub(super) fn suns(
        &mut self,
        raw: &'a [document::Server],
        groups: &BTreeSet<&str>,
        problems: &mut Problems,
    ) -> Vec<Sun> {
        let mut suns = Vec::with_capacity(raw.len());
        for (index, raw) in raw.iter().enumerate() {
            let mut row = Row::new(problems, "sun", index, &raw.name);
            if let Some(bytes) = raw.bytes {
                row.refuse("bytes", bytes, "only a cache has bytes");
            }
            let numbers = name_numbers::<3>(&raw.name, "sun");
            if let Some([region, group, _]) = numbers {
                let group = format!("sun{region}-{group}");
                if !groups.contains(group.as_str()) {
                    row.refuse("name", &raw.name, format!("there is no group {group}"));
                }
            } else {
                row.refuse("name", &raw.name, "a sun is sun4-2-1: region, group and number, each 0..=65535");
            }
            let server = self.server(raw, numbers.map(|[region, ..]| region), &mut row);
            let group = numbers.map(|[_, group, _]| group);
            suns.extend(server.zip(group).map(|(server, group)| Sun { server, group }));
        }
        suns
    }

    /// All caches; complete when no problem was added.
    pub(super) fn caches(
        &mut self,
        raw: &'a [document::Server],
        regions: &BTreeSet<i64>,
        problems: &mut Problems,
    ) -> Vec<Cache> {
        let mut caches = Vec::with_capacity(raw.len());
        for (index, raw) in raw.iter().enumerate() {
            let mut row = Row::new(problems, "cache", index, &raw.name);
            let bytes = if let Some(bytes) = raw.bytes {
                row.integer("bytes", bytes, 1..=u64::MAX, "a cache has 1 byte or more")
            } else {
                row.refuse_whole("bytes is missing: a cache says how much disk it may fill");
                None
            };
            let numbers = name_numbers::<2>(&raw.name, "cache");
            match numbers {
                Some([region, _]) if !regions.contains(&i64::from(region)) => {
                    row.refuse("name", &raw.name, format!("there is no region {region}"));
                }
                Some(_) => {}
                None => row.refuse("name", &raw.name, "a cache is cache4-1: region and number, each 0..=65535"),
            }
            let server = self.server(raw, numbers.map(|[region, _]| region), &mut row);
            caches.extend(server.zip(bytes).map(|(server, bytes)| Cache { server, bytes }));
        }
        caches
    }

    fn server(&mut self, raw: &'a document::Server, region: Option<u16>, row: &mut Row<'_>) -> Option<Server> {
        if !self.names.insert(&raw.name) {
            row.refuse("name", &raw.name, "another server has this name");
        }
        let https_port = row.integer("https_port", raw.https_port, 1..=u16::MAX, PORT);
        let http_port = raw.http_port.and_then(|port| row.integer("http_port", port, 1..=u16::MAX, PORT));
        if let Some(port) = http_port.filter(|_| http_port == https_port) {
            row.refuse("http_port", port, "https_port is the same");
        }
        let addresses = addresses(&raw.addresses, row);
        for port in https_port.into_iter().chain(http_port) {
            for &address in &addresses {
                claim(&mut self.public, SocketAddr::new(address, port), &raw.name, "addresses", row);
            }
        }
        let internal = internal(&raw.internal, row);
        if let Some(internal) = internal {
            claim(&mut self.internal, internal, &raw.name, "internal", row);
        }
        let weight = row.integer("weight", raw.weight, 0..=Weight::MAX, "a weight is 0..=256");
        let nic_gbps = row.float("nic_gbps", raw.nic_gbps, NIC_GBPS, "a network card has 0.001..=10000 Gbit/s");
        Some(Server {
            name: raw.name.clone(),
            host: format!("{}.{}", raw.name, self.domain),
            region: RegionId(region?),
            addresses,
            https_port: https_port?,
            http_port,
            internal: internal?,
            weight: if raw.draining { Weight::default() } else { weight.and_then(Weight::new)? },
            weight_wanted: weight.and_then(Weight::new)?,
            draining: raw.draining,
            nic_gbps: nic_gbps?,
        })
    }
}

/// Nobody else may have this address and port.
fn claim<'a>(
    taken: &mut BTreeMap<SocketAddr, &'a str>,
    address: SocketAddr,
    name: &'a str,
    key: &str,
    row: &mut Row<'_>,
) {
    if let Some(other) = taken.insert(address, name).filter(|other| *other != name) {
        row.refuse(key, address, format!("{other} has it too"));
    }
}

fn addresses(texts: &[String], row: &mut Row<'_>) -> Vec<IpAddr> {
    if texts.is_empty() || texts.len() > ADDRESSES_MAX {
        row.refuse("addresses", texts, "a server has 1..=64 addresses");
    }
    let mut addresses = Vec::new();
    for text in texts {
        match text.parse::<IpAddr>() {
            Ok(address) if address.is_unspecified() || address.is_multicast() => {
                row.refuse("addresses", text, "an address is one host's");
            }
            Ok(IpAddr::V6(address)) if address.is_unicast_link_local() => {
                row.refuse("addresses", text, "it is of one link alone: clients do not reach it");
            }
            Ok(IpAddr::V4(address)) if address.is_link_local() => {
                row.refuse("addresses", text, "it is of one link alone: clients do not reach it");
            }
            Ok(address) if addresses.contains(&address) => row.refuse("addresses", text, "it is there twice"),
            Ok(address) => addresses.push(address),
            Err(_) => row.refuse("addresses", text, "an address is 192.0.2.1 or 2001:db8::1"),
        }
    }
    addresses
}

fn internal(text: &str, row: &mut Row<'_>) -> Option<SocketAddr> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast() => {
            Some(address)
        }
        _ => {
            row.refuse("internal", text, "it is where other servers reach it, 10.4.2.1:8081 or [2001:db8::1]:8081");
            None
        }
    }
}

const PORT: &str = "a port is 1..=65535";
const ADDRESSES_MAX: usize = 64;
const NIC_GBPS: (f64, f64) = (0.001, 10_000.0);
