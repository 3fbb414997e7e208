//! A route as it was heard: what feeds tell, and what the choice of regions goes by.
//!
//! ```text
//!   BMP, dumps (MRT) --Event--> RIB --+
//!   prefix lists ---------------------+--Heard, for each prefix--> choice --Leaf--> table
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::topology::RegionId;

/// How a route reaches the region: through which kind of session. Earlier is better: cheaper and nearer.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionClass {
    /// The network in which our servers stand.
    Embedded,
    /// A network with a link of its own to ours.
    Private,
    /// A network at an exchange point.
    Exchange,
    /// A paid way to everywhere.
    Transit,
}

impl SessionClass {
    /// Its name in configs and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Private => "private",
            Self::Exchange => "exchange",
            Self::Transit => "transit",
        }
    }
}

/// A community of a route.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Community {
    /// RFC 1997: `64500:20`.
    Standard(u16, u16),
    /// RFC 8092: `64500:1:20`.
    Large(u32, u32, u32),
}

/// As operators write them.
impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(a, b) => write!(f, "{a}:{b}"),
            Self::Large(a, b, c) => write!(f, "{a}:{b}:{c}"),
        }
    }
}

/// What the choice needs of a path's attributes. The RIB keeps equal ones once.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Attributes {
    /// The AS path from the neighbour to the origin, sets flattened, confederation segments left out.
    pub as_path: Box<[u32]>,
    /// Its length as RFC 4271 9.1.2.2 (a) counts it: a set is one, a confederation segment none (RFC 5065).
    pub path_length: u16,
    /// The AS that announced the prefix; none when the path is empty or ends in a set.
    pub origin_as: Option<u32>,
    /// `MULTI_EXIT_DISC` (RFC 4271 5.1.4); comparable among routes of one neighbour AS.
    pub med: Option<u32>,
    /// Sorted, none twice.
    pub communities: Box<[Community]>,
}

impl Attributes {
    /// The AS the route was heard from.
    #[must_use]
    pub fn neighbour_as(&self) -> Option<u32> {
        self.as_path.first().copied()
    }
}

/// One route to a prefix, as the choice sees it.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// The region whose router, dump or list told it.
    pub region: RegionId,
    /// The session it came over.
    pub class: SessionClass,
    /// What else was said.
    pub attributes: &'a Attributes,
    /// Whether the feed is lost and the route only kept for a while.
    pub stale: bool,
    /// Whether a prefix list says it and no router or dump does.
    pub listed: bool,
    /// Who told: the router and peer, or the file. For people.
    pub source: &'a str,
}
