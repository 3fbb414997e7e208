//! The DNS zone of a topology, as a master file (RFC 1035, section 5).
//!
//! | name | addresses |
//! |---|---|
//! | `sun4-2` | of every sun of the group, so that clients spread by themselves |
//! | `sun4-2-1` | the sun's own |
//! | `cache4-1` | the cache's own |
//!
//! Names do not change with health: an address of a sun that is down is answered by another member of its group.

use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::{Context, ensure};
use geo::Topology;

use super::ZoneArgs;

/// The zone.
///
/// # Errors
///
/// A name server that is no name, or lies in the zone without an address.
pub(super) fn zone(topology: &Topology, said: &ZoneArgs) -> anyhow::Result<String> {
    let mut text = String::new();
    if !said.records {
        text += &head(topology, said)?;
    }
    for region in &topology.regions {
        for group in &region.groups {
            let suns = region.suns.iter().filter(|sun| sun.group == group.number);
            let of_group = suns.clone().flat_map(|sun| sun.server.addresses.iter().copied());
            records(&mut text, &group.name, of_group);
            suns.for_each(|sun| records(&mut text, &sun.server.name, sun.server.addresses.iter().copied()));
        }
        for cache in &region.caches {
            records(&mut text, &cache.server.name, cache.server.addresses.iter().copied());
        }
    }
    Ok(text)
}

fn head(topology: &Topology, said: &ZoneArgs) -> anyhow::Result<String> {
    let domain = &topology.domain;
    let hostmaster = said.hostmaster.clone().unwrap_or_else(|| format!("hostmaster.{domain}"));
    let (first, rest) = said.nameservers.split_first().context("a zone has a name server: --nameserver NAME")?;
    let servers = std::iter::once(first).chain(rest).map(|text| nameserver(text, domain));
    let servers: Vec<(String, Option<IpAddr>)> = servers.collect::<anyhow::Result<_>>()?;
    // RFC 1982: serials are numbers modulo 2^32.
    let serial = topology.version % (1 << 32);
    let mut text = format!(
        "; The servers of {domain}, by `sunctl render zone`.\n$ORIGIN {domain}.\n$TTL {}\n\
         @ IN SOA {} {} ( {serial} {REFRESH_S} {RETRY_S} {EXPIRE_S} {} )\n",
        said.ttl_s,
        servers[0].0,
        absolute(&hostmaster)?,
        said.ttl_s
    );
    for (name, _) in &servers {
        let _ = writeln!(text, "@ IN NS {name}");
    }
    for (name, address) in &servers {
        records(&mut text, name, *address);
    }
    Ok(text)
}

/// `ns1.example.net`, or `ns1.example.org=192.0.2.53` within the zone.
fn nameserver(text: &str, domain: &str) -> anyhow::Result<(String, Option<IpAddr>)> {
    let (name, address) = text.split_once('=').map_or((text, None), |(name, address)| (name, Some(address)));
    let address = address.map(|address| address.parse().with_context(|| format!("--nameserver {text}: {address}")));
    let (name, address) = (absolute(name)?, address.transpose()?);
    let within = name.ends_with(&format!(".{domain}."));
    ensure!(
        !within || address.is_some(),
        "--nameserver {text}: within the zone it needs its address, {text}=192.0.2.53"
    );
    Ok((name, address.filter(|_| within)))
}

/// With the dot at the end.
fn absolute(name: &str) -> anyhow::Result<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        let inside = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        (1..=63).contains(&label.len()) && inside
    };
    ensure!(name.len() <= 253 && name.split('.').all(is_label), "{name:?} is no name of a host");
    Ok(format!("{name}."))
}

fn records(text: &mut String, name: &str, addresses: impl IntoIterator<Item = IpAddr>) {
    for address in addresses {
        let kind = if address.is_ipv4() { "A" } else { "AAAA" };
        let _ = writeln!(text, "{name} IN {kind} {address}");
    }
}

/// How secondary servers follow, seconds: often, and for two weeks without the primary.
const REFRESH_S: u32 = 3600;
const RETRY_S: u32 = 300;
const EXPIRE_S: u32 = 1_209_600;
