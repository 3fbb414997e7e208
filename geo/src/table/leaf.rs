//! What the table says of a prefix.

use serde::{Deserialize, Serialize};

use crate::topology::RegionId;

/// What the table says of one prefix or, for geoip, of one range. Equal leaves are kept once.
///
/// A leaf has only what its own prefix told. What covering prefixes add is found by walking up the chain.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Leaf {
    /// Regions to serve from, best first by rank, none twice, at most [`CANDIDATES_MAX`]. May be empty: a rule that only denies.
    pub candidates: Vec<Candidate>,
    /// Regions that must not serve these clients, whatever covering prefixes say; sorted, at most [`DENIED_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<RegionId>,
    /// What told it.
    pub source: Source,
}

/// A region that a prefix's clients can be served from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Candidate {
    /// The region.
    pub region: RegionId,
    /// 0 is best, without gaps. Equal ones are as good as each other: a hash of the client's /24 or /48 orders them.
    pub rank: u8,
}

/// What told a leaf.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// An operator's rule.
    Rule,
    /// Routes: BMP or a dump.
    Bgp,
    /// A prefix list.
    List,
    /// A geoip file; the country's code when it told one.
    Geoip(Option<[u8; 2]>),
    /// Nothing is known.
    #[default]
    Default,
}

/// Regions of one leaf; what ranks behind is left out.
pub const CANDIDATES_MAX: usize = 8;

/// Denied regions of one leaf; rules that deny more are refused.
pub const DENIED_MAX: usize = 64;
