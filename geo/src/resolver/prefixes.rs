//! Listed prefixes, and the longest that holds an address.
//!
//! Why not one trie for both families: an IPv4 address would walk 96 levels more.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use super::ResolverError;
use crate::lists::{self, Entry, ListError};
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
        let refuse = |ListError(why)| ResolverError(why);
        for path in files {
            let bytes = lists::read_bytes(path).map_err(refuse)?;
            let mut insert = |entry| table.insert(&entry);
            lists::each(path, &bytes, None, &|_| None, regions, &mut insert).map_err(refuse)?;
        }
        Ok(table)
    }

    fn insert(&mut self, entry: &Entry) -> Result<(), String> {
        if self.v4.len() + self.v6.len() >= lists::PREFIXES_MAX {
            return Err(format!("more than {} prefixes", lists::PREFIXES_MAX));
        }
        let before = match entry.prefix {
            IpNet::V4(prefix) => self.v4.insert(prefix, entry.region),
            IpNet::V6(prefix) => self.v6.insert(prefix, entry.region),
        };
        before.map_or(Ok(()), |before| lists::one_region(entry, before))
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
