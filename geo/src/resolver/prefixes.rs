//! Listed prefixes, and the longest that holds an address.
//!
//! ```text
//!   # prefix      region             prefix,region
//!   127.1.0.0/16  4                  192.0.2.0/24,4
//!   2001:db8::/32 5                  "2001:db8::/32","5"
//!   192.0.2.1     5   one address
//! ```
//!
//! Why not one trie for both families: an IPv4 address would walk 96 levels more.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use super::ResolverError;
use crate::file;
use crate::regions::Regions;
use crate::topology::RegionId;

/// The table.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    v4: PrefixMap<Ipv4Net, RegionId>,
    v6: PrefixMap<Ipv6Net, RegionId>,
}

impl Prefixes {
    /// Reads all lists.
    pub(super) fn load(files: &[PathBuf], regions: &Regions) -> Result<Self, ResolverError> {
        let mut table = Self::default();
        for path in files {
            let name = path.display();
            let bytes =
                file::read_bounded(path, FILE_BYTES_MAX).map_err(|error| ResolverError(format!("{name}: {error}")))?;
            let text = std::str::from_utf8(&bytes).map_err(|error| ResolverError(format!("{name}: {error}")))?;
            table.add(path, text, regions)?;
        }
        Ok(table)
    }

    /// Adds a list; when it has errors, up to [`ERRORS_MAX`] of them are told.
    fn add(&mut self, file: &Path, text: &str, regions: &Regions) -> Result<(), ResolverError> {
        let mut errors = Vec::new();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let is_header = index == 0 && line.replace(['"', ' '], "").eq_ignore_ascii_case("prefix,region");
            if line.is_empty() || is_header {
                continue;
            }
            let added = entry(line, regions).and_then(|(prefix, region)| self.insert(prefix, region));
            if let Err(why) = added {
                errors.push(format!("{}:{}: {why}", file.display(), index + 1));
            }
            if errors.len() == ERRORS_MAX {
                errors.push(format!("{}: perhaps more: reading stopped after {ERRORS_MAX} errors", file.display()));
                break;
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(ResolverError(errors.join("\n"))) }
    }

    fn insert(&mut self, prefix: IpNet, region: RegionId) -> Result<(), String> {
        if self.v4.len() + self.v6.len() >= PREFIXES_MAX {
            return Err(format!("more than {PREFIXES_MAX} prefixes"));
        }
        let before = match prefix {
            IpNet::V4(prefix) => self.v4.insert(prefix, region),
            IpNet::V6(prefix) => self.v6.insert(prefix, region),
        };
        match before {
            Some(before) if before != region => {
                Err(format!("{prefix} is in region {region} here and in region {before} further up; keep one"))
            }
            _ => Ok(()),
        }
    }

    /// The prefixes that hold the address, most specific first.
    pub(super) fn covering(&self, address: IpAddr) -> Vec<(IpNet, RegionId)> {
        let mut found: Vec<(IpNet, RegionId)> = match address {
            IpAddr::V4(address) => {
                self.v4.cover(&address.into()).map(|(prefix, &region)| (IpNet::V4(prefix), region)).collect()
            }
            IpAddr::V6(address) => {
                self.v6.cover(&address.into()).map(|(prefix, &region)| (IpNet::V6(prefix), region)).collect()
            }
        };
        found.reverse();
        found
    }
}

/// Reads a line.
fn entry(line: &str, regions: &Regions) -> Result<(IpNet, RegionId), String> {
    let mut fields = line.split(|c: char| c == ',' || c.is_whitespace()).filter(|field| !field.is_empty());
    let (Some(first), Some(second), None) = (fields.next(), fields.next(), fields.next()) else {
        return Err(format!("{}: a line is `prefix region` or `prefix,region`", quoted(line)));
    };
    let (first, second) = (first.trim_matches('"'), second.trim_matches('"'));
    let region =
        second.parse().map(RegionId).map_err(|_| format!("region = {}: a region is 0..=65535", quoted(second)))?;
    if !regions.contains(region) {
        return Err(format!("region = {region}: the topology has no such region"));
    }
    Ok((prefix(first)?, region))
}

/// A network, or one address; an IPv4 network in IPv6's clothes is an IPv4 network.
fn prefix(text: &str) -> Result<IpNet, String> {
    let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let prefix = parsed
        .map_err(|_| format!("prefix = {}: a prefix is 192.0.2.0/24, 2001:db8::/32 or an address", quoted(text)))?;
    if prefix != prefix.trunc() {
        return Err(format!("prefix = {}: it has bits behind its length; write {}", quoted(text), prefix.trunc()));
    }
    let mapped = match prefix {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => v6.addr().to_ipv4_mapped().map(|v4| (v4, v6.prefix_len() - 96)),
        _ => None,
    };
    Ok(mapped.and_then(|(v4, length)| Ipv4Net::new(v4, length).ok()).map_or(prefix, IpNet::V4))
}

/// The text as the list has it, cut where it gets long.
fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(80).collect::<String>())
}

/// Longest list, bytes: ten full tables of the Internet's routes.
pub(super) const FILE_BYTES_MAX: u64 = 256 << 20;
/// Of all lists together; a full table has 1.3 million.
const PREFIXES_MAX: usize = 4_000_000;
const ERRORS_MAX: usize = 20;
