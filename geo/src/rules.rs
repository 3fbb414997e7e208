//! What the operator says of regions: rules that pin, deny or prefer, and which AS is in which region.
//!
//! ```text
//!   [[rule]]  --check--> trie of prefixes: each with its own verdicts and those it inherits --longest match--+
//!                        hash maps: origin AS, AS on the path, community --any route to the prefix has it-----+--> verdicts,
//!   [[origin]] -check--> AS -> region, for lists and dumps that do not say a region                                one per region
//! ```
//!
//! For one prefix, each region has at most one verdict. A prefix rule covers what is inside its prefix; the more
//! specific one is stronger, and any prefix rule is stronger than the others. Rules by AS and community match a
//! prefix when any counted route to it, heard in whichever region, matches. They are all equally strong; of those that
//! disagree about a region, deny is taken first, then pin, then prefer.
//!
//! # Invariants
//!
//! - Every region of a verdict was in the topology that the rules were checked for.
//! - No prefix has more than [`DENIED_MAX`] denied regions.
//! - Of two rules with the same condition and region, the first counts; that they say the same is checked.

mod check;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use serde::{Deserialize, Serialize};

use crate::regions::Regions;
use crate::route::{Community, Heard};
#[cfg(doc)]
use crate::table::DENIED_MAX;
use crate::topology::RegionId;

/// One `[[rule]]` of the config. Exactly one of `prefix`, `as`, `via` and `community` is given.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What becomes of the region.
    pub action: Action,
    /// The region it is about.
    pub region: RegionId,
    /// Clients inside this network, whether or not a route to it is heard: `"192.0.2.0/24"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Clients whose prefix is announced by this AS (the last on the path).
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub origin_as: Option<u32>,
    /// Clients whose prefix is heard with this AS anywhere on the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<u32>,
    /// Clients whose prefix is heard with this community: `"64500:20"`, or a large one, `"64500:1:20"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub community: Option<String>,
    /// Why, for whoever reads what `geo explain` prints. Default empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// What a rule does with its region.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It never serves these clients, not as a neighbour or through a covering prefix either.
    Deny,
    /// It is first, whether or not it hears the prefix.
    Pin,
    /// It is first if it hears the prefix.
    Prefer,
}

impl Action {
    /// Its name in configs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Pin => "pin",
            Self::Prefer => "prefer",
        }
    }
}

/// One `[[origin]]` of the config: the region of what an AS announces, for sources that do not say a region.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The AS.
    #[serde(rename = "as")]
    pub origin_as: u32,
    /// Its region.
    pub region: RegionId,
}

/// The checked rules; none by default.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    v4: PrefixMap<Ipv4Net, Box<[Verdict]>>,
    v6: PrefixMap<Ipv6Net, Box<[Verdict]>>,
    origin: Loose<u32>,
    via: Loose<u32>,
    /// By [`packed`].
    community: Loose<u128>,
    origins: HashMap<u32, RegionId>,
    /// As configured, in the config's order, for people.
    told: Vec<Told>,
}

/// By AS or community.
type Loose<K> = HashMap<K, Box<[Verdict]>, BuildHasherDefault<Mix>>;

/// A rule as `geo explain` tells it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Told {
    /// "pin prefix 192.0.2.0/24".
    pub rule: String,
    /// The operator's note; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// `rule pin prefix 192.0.2.0/24 (a note)`
impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}", self.rule)?;
        if self.note.is_empty() { Ok(()) } else { write!(f, " ({})", self.note) }
    }
}

/// What the rules say of a region for one prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) region: RegionId,
    pub(crate) action: Action,
    /// The prefix rule's length; none of a rule by AS or community.
    pub(crate) length: Option<u8>,
    /// Which rule, for [`Rules::told`].
    pub(crate) rule: u32,
}

impl Verdict {
    /// 0 is the strongest: more specific first, prefix before the others, pin before prefer. What has no rule is
    /// behind all of them.
    pub(crate) fn order(&self) -> u16 {
        let by_length = self.length.map_or(129, |length| 128 - u16::from(length.min(128)));
        by_length * 2 + u16::from(self.action == Action::Prefer)
    }
}

/// The rules cannot be used: what is wrong, a line each.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RulesError(pub String);

impl Rules {
    /// Makes rules of the config.
    ///
    /// # Errors
    ///
    /// Every rule that has no condition or several, a wrong one, or a region that the topology does not have; rules
    /// that contradict each other; more denied regions than [`DENIED_MAX`] for one prefix. At most a hundred are told.
    pub fn check(rules: &[Rule], origins: &[Origin], regions: &Regions) -> Result<Self, RulesError> {
        check::check(rules, origins, regions)
    }

    /// The region of what an AS announces, by `[[origin]]`.
    #[must_use]
    pub fn origin(&self, origin_as: u32) -> Option<RegionId> {
        self.origins.get(&origin_as).copied()
    }

    /// The prefixes that have rules: they are in the table even if nobody hears them. Sorted, IPv4 first.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.v4.keys().map(IpNet::V4).chain(self.v6.keys().map(IpNet::V6))
    }

    /// Whether a rule names exactly this prefix.
    #[must_use]
    pub fn has(&self, prefix: IpNet) -> bool {
        match prefix {
            IpNet::V4(prefix) => !self.v4.is_empty() && self.v4.contains_key(&prefix),
            IpNet::V6(prefix) => !self.v6.is_empty() && self.v6.contains_key(&prefix),
        }
    }

    /// The rule of a verdict.
    pub(crate) fn told(&self, verdict: &Verdict) -> Option<&Told> {
        self.told.get(usize::try_from(verdict.rule).ok()?)
    }

    /// Appends what the rules say of a prefix and the routes to it: at most one verdict for a region, in no order.
    pub(crate) fn judge(&self, prefix: IpNet, heard: &[Heard<'_>], verdicts: &mut Vec<Verdict>) {
        verdicts.extend_from_slice(self.covering(prefix));
        if self.origin.is_empty() && self.via.is_empty() && self.community.is_empty() {
            return;
        }
        let strong = verdicts.len();
        for route in heard {
            self.judge_route(route, strong, verdicts);
        }
    }

    /// The verdicts of the most specific prefix rule, which has those of the less specific ones too.
    fn covering(&self, prefix: IpNet) -> &[Verdict] {
        let found = match prefix {
            IpNet::V4(_) if self.v4.is_empty() => None,
            IpNet::V6(_) if self.v6.is_empty() => None,
            IpNet::V4(prefix) => self.v4.get_lpm(&prefix).map(|(_, verdicts)| verdicts),
            IpNet::V6(prefix) => self.v6.get_lpm(&prefix).map(|(_, verdicts)| verdicts),
        };
        found.map_or(&[], |verdicts| &**verdicts)
    }

    /// Adds the verdicts by AS and community; the first `strong` ones are of prefix rules and stay.
    fn judge_route(&self, route: &Heard<'_>, strong: usize, verdicts: &mut Vec<Verdict>) {
        let mut add = |found: Option<&Box<[Verdict]>>| {
            for verdict in found.into_iter().flatten() {
                match verdicts.iter().position(|known| known.region == verdict.region) {
                    None => verdicts.push(*verdict),
                    Some(at) if at < strong => {}
                    Some(at) => {
                        if let Some(known) = verdicts.get_mut(at)
                            && (verdict.action, verdict.rule) < (known.action, known.rule)
                        {
                            *known = *verdict;
                        }
                    }
                }
            }
        };
        let attributes = route.attributes;
        if !self.origin.is_empty()
            && let Some(origin) = attributes.origin_as
        {
            add(self.origin.get(&origin));
        }
        if !self.via.is_empty() {
            attributes.as_path.iter().for_each(|hop| add(self.via.get(hop)));
        }
        if !self.community.is_empty() {
            attributes.communities.iter().for_each(|community| add(self.community.get(&packed(community))));
        }
    }
}

/// A community as one number, quicker to hash.
fn packed(community: &Community) -> u128 {
    match *community {
        Community::Standard(a, b) => u128::from(a) << 16 | u128::from(b),
        Community::Large(a, b, c) => 1 << 96 | u128::from(a) << 64 | u128::from(b) << 32 | u128::from(c),
    }
}

/// A quick hash for the few numbers of an AS or a community. Who announces routes can choose what is looked up, but
/// not what is in the maps, so it cannot make a lookup slow.
#[derive(Clone, Copy, Debug, Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }

    fn write_u8(&mut self, part: u8) {
        self.write_u64(part.into());
    }

    fn write_u16(&mut self, part: u16) {
        self.write_u64(part.into());
    }

    fn write_u32(&mut self, part: u32) {
        self.write_u64(part.into());
    }

    /// Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4): multiplied by 2^64 over the golden ratio.
    fn write_u64(&mut self, part: u64) {
        self.0 = (self.0.rotate_left(23) ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u128(&mut self, part: u128) {
        let (high, low) = ((part >> 64) as u64, part as u64);
        self.write_u64(high.rotate_left(32) ^ low);
    }

    /// The map takes its place from the low bits, which depend on the lowest of the input alone: mixed with the high ones.
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}
