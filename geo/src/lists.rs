//! Prefix lists: which region serves a prefix, or which AS announces it, from a file.
//!
//! ```text
//!   # text          CSV, header optional     CSV, columns by its header     JSON
//!   127.1.0.0/16 4  192.0.2.0/24,4           asn,name,prefix                {"192.0.2.0/24": 4}
//!   192.0.2.1 4     "2001:db8::/32","4"      64500,"One, Inc.",192.0.2.0/24 [{"prefix": "192.0.2.0/24", "region": 4}]
//!   192.0.2.0/24 AS64500                     ("AS64500" is an AS anywhere)  [{"prefix": "192.0.2.0/24", "as": 64500}]
//! ```
//!
//! A comment begins with `#`, or with `;` at the start of a line, as in the files of pyasn. A number is a region unless
//! the config, the header or the JSON key says AS, or it is written `AS64500`. An AS leads to a region by the
//! operator's `[[origin]]`s; prefixes of other ASes are counted and left out, since such files list the whole Internet.
//!
//! # Invariants
//!
//! - A file is taken whole or refused with up to 20 errors, each with its place.
//! - An entry's prefix has no bits behind its length and is never IPv4 in IPv6's clothes; its region is in the topology.

mod json;
#[cfg(test)]
mod tests;
mod text;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::file;
use crate::regions::Regions;
use crate::route::SessionClass;
use crate::topology::RegionId;

/// One `[[list]]` of the config.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file.
    pub file: PathBuf,
    /// What its numbers are. Default: what the file's header or keys say, else regions. A file whose header says otherwise
    /// is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Values>,
    /// As what its prefixes count beside routes that are heard. Default private: before exchanges and transit, after
    /// the network that our servers stand in. Its AS path counts as empty, so among routes of its class it is first.
    #[serde(default = "class")]
    pub class: SessionClass,
}

const fn class() -> SessionClass {
    SessionClass::Private
}

/// What the numbers of a list are.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Values {
    /// Regions that serve the prefix.
    Regions,
    /// ASes that announce it.
    Origins,
}

/// The region of what an AS announces, if the operator says one.
pub type Origins<'a> = &'a dyn Fn(u32) -> Option<RegionId>;

/// A listed prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    /// What is listed.
    pub prefix: IpNet,
    /// Who serves it.
    pub region: RegionId,
    /// Who announces it, where the list says that.
    pub origin_as: Option<u32>,
}

/// The list cannot be used: what is wrong, a line each, with the file and the place in it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ListError(pub String);

/// The bytes of a list of bounded size.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, ListError> {
    file::read_bounded(path, FILE_BYTES_MAX).map_err(|error| ListError(format!("{}: {error}", path.display())))
}

/// Gives every entry to the sink, in the file's order; what that refuses is an error at the entry's place. How many entries were
/// left out because no `[[origin]]` has their AS, and the first of them.
pub(crate) fn each(
    path: &Path,
    bytes: &[u8],
    values: Option<Values>,
    origins: Origins<'_>,
    regions: &Regions,
    sink: &mut dyn FnMut(Entry) -> Result<(), String>,
) -> Result<Unplaced, ListError> {
    let text = std::str::from_utf8(bytes).map_err(|_| {
        let what = "it is not a text in UTF-8: a list is text, CSV or JSON, not packed";
        ListError(format!("{}: {what}", path.display()))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reading = Reading { path, origins, regions, sink, unplaced: Unplaced::default(), errors: Vec::new() };
    if text.trim_start().starts_with(['[', '{']) {
        json::read(text, values, &mut reading);
    } else {
        text::read(text, values, &mut reading);
    }
    if reading.errors.is_empty() { Ok(reading.unplaced) } else { Err(ListError(reading.errors.join("\n"))) }
}

/// Entries that lead to no region.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Unplaced {
    /// How many.
    pub(crate) count: u64,
    /// The first, and the AS that no `[[origin]]` has.
    pub(crate) first: Option<(IpNet, u32)>,
}

impl Unplaced {
    /// "2 prefixes: no [[origin]] has their AS (192.0.2.0/24 of AS64999 is the first)"
    pub(crate) fn told(&self) -> Option<String> {
        let (prefix, origin) = self.first?;
        let many = if self.count == 1 { "1 prefix".to_owned() } else { format!("{} prefixes", self.count) };
        Some(format!("{many} left out: no [[origin]] has their AS (the first is {prefix} of AS{origin})"))
    }
}

/// The error of what is listed with two regions: a prefix, or an AS.
pub(crate) fn one_region(what: &impl std::fmt::Display, region: RegionId, before: RegionId) -> Result<(), String> {
    if region == before {
        return Ok(());
    }
    Err(format!("{what} is in region {region} here and in region {before} further up; keep one"))
}

/// What the readers of the formats share.
struct Reading<'a> {
    path: &'a Path,
    origins: Origins<'a>,
    regions: &'a Regions,
    sink: &'a mut dyn FnMut(Entry) -> Result<(), String>,
    unplaced: Unplaced,
    errors: Vec<String>,
}

impl Reading<'_> {
    /// Takes one entry. False when there have been so many errors that reading stops.
    fn take(&mut self, place: impl std::fmt::Display, fields: Result<(&str, &str, Values), String>) -> bool {
        let taken = fields.and_then(|(prefix, value, values)| self.entry(prefix, value, values));
        let Err(why) = taken else { return true };
        self.errors.push(format!("{}:{place}: {why}", self.path.display()));
        if self.errors.len() < ERRORS_MAX {
            return true;
        }
        self.errors.push(format!("{}: perhaps more: reading stopped after {ERRORS_MAX} errors", self.path.display()));
        false
    }

    /// An error of the whole file.
    fn refuse(&mut self, why: &str) {
        self.errors.push(format!("{}:{why}", self.path.display()));
    }

    fn entry(&mut self, text: &str, value: &str, values: Values) -> Result<(), String> {
        let value = self.value(value, values)?;
        let prefix = prefix(text)?;
        match value {
            (Some(region), origin_as) => (self.sink)(Entry { prefix, region, origin_as }),
            (None, origin_as) => {
                self.unplaced.count += 1;
                self.unplaced.first = self.unplaced.first.or(origin_as.map(|origin| (prefix, origin)));
                Ok(())
            }
        }
    }

    /// The region, if the list leads to one, and the AS, if it says one.
    fn value(&self, text: &str, values: Values) -> Result<(Option<RegionId>, Option<u32>), String> {
        let as_number = text.get(..2).filter(|start| start.eq_ignore_ascii_case("as")).and_then(|_| text.get(2..));
        if as_number.is_some() || values == Values::Origins {
            let origin = as_number
                .unwrap_or(text)
                .parse()
                .map_err(|_| format!("as = {}: an AS is 0..=4294967295", quoted(text)))?;
            return Ok(((self.origins)(origin), Some(origin)));
        }
        let region =
            text.parse().map(RegionId).map_err(|_| format!("region = {}: a region is 0..=65535", quoted(text)))?;
        self.regions.known(region)?;
        Ok((Some(region), None))
    }
}

/// A network, or one address; an IPv4 network in IPv6's clothes is an IPv4 network.
pub(crate) fn prefix(text: &str) -> Result<IpNet, String> {
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

/// The text as the file has it, cut where it gets long.
pub(crate) fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(80).collect::<String>())
}

/// What a column or a key with this name has.
fn named(name: &str) -> Option<Column> {
    let is = |names: &[&str]| names.iter().any(|known| name.eq_ignore_ascii_case(known));
    if is(&["prefix", "network", "cidr"]) {
        Some(Column::Prefix)
    } else if is(&["region"]) {
        Some(Column::Value(Values::Regions))
    } else if is(&["as", "asn", "origin", "origin_as"]) {
        Some(Column::Value(Values::Origins))
    } else {
        None
    }
}

/// See [`named`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Column {
    Prefix,
    Value(Values),
}

/// Longest list, bytes: ten full tables of the Internet's routes.
pub(crate) const FILE_BYTES_MAX: u64 = 256 << 20;
/// Of all lists together; a full table has 1.3 million.
pub(crate) const PREFIXES_MAX: usize = 4_000_000;
const ERRORS_MAX: usize = 20;
