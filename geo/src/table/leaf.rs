//! What the table says of a prefix.

use serde::{Deserialize, Serialize};

use crate::topology::RegionId;

/// What the table says of one prefix or, for geoip, of one range. Equal leaves are kept once.
///
/// A leaf has only what its own prefix told. What covering prefixes add is found by walking up the chain.
///
/// A leaf of JSON that is beyond the bounds is refused, as a table's file with it would be.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(try_from = "Stated")]
pub struct Leaf {
    /// Regions to serve from, best first by rank, none twice, at most [`CANDIDATES_MAX`]. May be empty: a rule that only denies.
    pub candidates: Vec<Candidate>,
    /// Regions that must not serve these clients, whatever covering prefixes say; sorted, at most [`DENIED_MAX`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<RegionId>,
    /// What told it.
    pub source: Source,
}

impl Leaf {
    /// The regions that clients are in, as far as it tells: those of rank 0.
    pub(crate) fn firsts(&self) -> impl Iterator<Item = RegionId> {
        self.candidates.iter().take_while(|candidate| candidate.rank == 0).map(|candidate| candidate.region)
    }

    /// Whether it is within the bounds of its lists: a table has no others.
    pub(super) fn fits(&self) -> bool {
        self.candidates.len() <= CANDIDATES_MAX && self.denied.len() <= DENIED_MAX
    }
}

/// A leaf as somebody states it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stated {
    candidates: Vec<Candidate>,
    #[serde(default)]
    denied: Vec<RegionId>,
    source: Source,
}

impl TryFrom<Stated> for Leaf {
    type Error = String;

    fn try_from(Stated { candidates, denied, source }: Stated) -> Result<Self, String> {
        let leaf = Self { candidates, denied, source };
        if leaf.fits() {
            return Ok(leaf);
        }
        Err(format!(
            "{} candidates and {} denied regions: at most {CANDIDATES_MAX} and {DENIED_MAX}",
            leaf.candidates.len(),
            leaf.denied.len()
        ))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_of_json_has_the_bounds_of_a_file() {
        check(0, 0, true);
        check(8, 64, true);
        check(9, 0, false);
        check(0, 65, false);
    }

    #[track_caller]
    fn check(candidates: u16, denied: u16, taken: bool) {
        let candidates = (0..candidates).map(|region| Candidate { region: RegionId(region), rank: 0 }).collect();
        let leaf = Leaf { candidates, denied: (0..denied).map(RegionId).collect(), source: Source::Bgp };
        let read = serde_json::from_str::<Leaf>(&serde_json::to_string(&leaf).unwrap());
        assert_eq!(read.is_ok(), taken, "{read:?}");
        assert!(read.is_err() || read.unwrap() == leaf);
        assert!(serde_json::from_str::<Leaf>(r#"{"candidates":[],"source":"bgp","more":1}"#).is_err());
    }
}
