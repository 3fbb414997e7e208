//! Which region a client is in.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::topology::{RegionId, Topology};

/// Where the resolver's evidence is.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sources {
    /// Prefix lists: a line `prefix region` or `prefix,region`, `#` begins a comment. Default none.
    pub prefixes: Vec<PathBuf>,
    /// A city or country file in MaxMind's format. Default none.
    pub geoip: Option<PathBuf>,
}

/// A table of evidence; cheap to share, replaced whole.
#[derive(Debug)]
pub struct Resolver {}

/// The regions that serve a client, best first, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolution {
    /// At least one, at most four.
    pub regions: Vec<RegionId>,
    /// What decided the first.
    pub evidence: Evidence,
}

/// What told the region.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// The most specific listed prefix.
    Prefix(IpNet),
    /// A position or country of the geoip file: nearest region.
    Geoip(String),
    /// Nothing is known.
    Default,
}

impl Resolver {
    /// Reads the sources.
    ///
    /// # Errors
    ///
    /// The file, the line and what is wrong there; a region the topology does not have.
    pub fn load(sources: &Sources, topology: &Topology) -> Result<Self, ResolverError> {
        let _ = (sources, topology);
        todo!()
    }

    /// The regions of an address.
    #[must_use]
    pub fn resolve(&self, client: IpAddr) -> Resolution {
        let _ = client;
        todo!()
    }
}

/// The sources cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ResolverError(pub String);

/// Loads the resolver and follows its files and the topology (every second); a source that turns bad is
/// refused with one WARN and the running table stays.
///
/// # Errors
///
/// When the sources are bad at the start.
pub async fn follow(
    sources: Sources,
    topology: crate::topology::Watched,
) -> Result<Arc<ArcSwap<Resolver>>, ResolverError> {
    let _ = (sources, topology);
    todo!()
}
