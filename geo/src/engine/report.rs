//! What people see: why an address is served from where it is, what an operator should look at, how much there is.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use serde::Serialize;

use super::dumps::DumpRead;
use super::listed;
use super::routes::{Routes, firsts};
use super::{Engine, Move};
use crate::choice::Choice;
use crate::geoip::Geoip;
use crate::regions::Regions;
use crate::rib;
use crate::table::{Content, Counts, Found, Leaf, Table};
use crate::topology::RegionId;
use crate::wire::Position;

/// Why an address is served from where it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The address, an IPv4 one as IPv4.
    pub address: IpAddr,
    /// The regions that serve it while all of them are live, best first.
    pub regions: Vec<RegionId>,
    /// What told the first: "prefix 192.0.2.0/24", "geoip RU", "default".
    pub evidence: String,
    /// Prefixes that have it, most specific first.
    pub chain: Vec<Link>,
    /// What geoip knows of it, whether or not a prefix hides that.
    pub geoip: Option<Place>,
    /// Where everybody is about whom nothing is known.
    pub default_region: RegionId,
    /// Whether the table is what routers say now; else all that differs waits for them.
    pub settled: bool,
    /// Sources that could not be used at the start, and why: until they can, the table is what was saved.
    pub missing: Vec<String>,
}

/// One prefix of an explanation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Link {
    /// Which.
    pub prefix: IpNet,
    /// What the table says of it; nothing while it waits.
    pub published: Option<Leaf>,
    /// What is chosen now, and why.
    pub chosen: Choice,
    /// Whether these differ: the change has to be wished for a while, or the routers have not told all they have.
    pub waits: bool,
}

/// What geoip knows of an address.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Place {
    /// ISO 3166-1 alpha-2.
    pub country: Option<String>,
    /// Degrees north and east.
    pub position: Option<(f64, f64)>,
    /// The region that it leads to.
    pub region: Option<RegionId>,
}

/// What an audit is made of. What changes meanwhile in the table may be in it or not.
#[derive(Debug)]
pub struct Survey {
    table: Arc<Table>,
    content: Content,
    regions: Regions,
    idle: Vec<RegionId>,
    moved: Examples<Moved>,
    moves_forgotten: u64,
}

/// What an operator should look at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Audit {
    /// What the answers for IPv4 addresses rest on.
    pub v4: Evidence,
    /// The same of IPv6.
    pub v6: Evidence,
    /// Prefixes with candidates in several regions.
    pub several: Examples<Candidates>,
    /// Prefixes whose first regions changed during the last day.
    pub moved: Examples<Moved>,
    /// Moves that were forgotten since the start because there were too many.
    pub moves_forgotten: u64,
    /// All regions of the topology.
    pub regions: Vec<RegionAudit>,
}

/// How many addresses have which evidence, and the largest ranges that have none but geoip.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Evidence {
    /// Addresses that are heard or listed, or have a rule.
    pub prefixes: f64,
    /// Addresses that geoip alone knows.
    pub geoip: f64,
    /// Addresses that nobody knows.
    pub nothing: f64,
    /// Ranges that geoip alone knows; the largest are shown.
    pub geoip_only: Examples<Range>,
}

/// How many there are, and some of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Examples<T> {
    /// All of them.
    pub count: usize,
    /// At most [`EXAMPLES_MAX`].
    pub examples: Vec<T>,
}

/// Addresses from one to another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Range {
    /// The first.
    pub first: IpAddr,
    /// The last, inclusive.
    pub last: IpAddr,
    /// Where geoip sends them.
    pub regions: Vec<RegionId>,
}

/// A prefix and its candidates.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidates {
    /// Which.
    pub prefix: IpNet,
    /// Best first.
    pub regions: Vec<RegionId>,
}

/// A prefix whose first regions changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Moved {
    /// Which.
    pub prefix: IpNet,
    /// Empty: it was not in the table.
    pub from: Vec<RegionId>,
    /// Empty: it is not in the table any more.
    pub to: Vec<RegionId>,
    /// How long ago, seconds.
    pub ago_s: u64,
}

/// A region, by what depends on it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RegionAudit {
    /// Which.
    pub region: RegionId,
    /// Prefixes for which it is first.
    pub first: usize,
    /// Prefixes for which it is the only candidate, also through the prefixes around them.
    pub only: usize,
    /// Regions that take its clients over.
    pub neighbours: Vec<RegionId>,
    /// Somebody has nowhere else to go but the default region: it is the only candidate of some prefix, or geoip's
    /// word, and has no neighbours.
    pub without_alternative: bool,
    /// No sun of it has weight.
    pub idle: bool,
}

/// How much there is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stats {
    /// How far the table's changes go.
    pub position: Position,
    /// The table.
    pub table: Counts,
    /// Whether it is what routers say now, and not what was saved.
    pub settled: bool,
    /// Routers that are waited for until then.
    pub waits_for: Vec<rib::Waiting>,
    /// Changes that are kept for followers.
    pub changes_kept: usize,
    /// Prefixes that wait for their change.
    pub pending: usize,
    /// Prefixes that did not wait long enough since too many others waited.
    pub moved_early: u64,
    /// Routes of routers.
    pub routes: rib::Counts,
    /// Routers and their peers.
    pub feeds: Vec<rib::FeedState>,
    /// Lists.
    pub lists: Vec<listed::File>,
    /// Dumps.
    pub dumps: Vec<DumpRead>,
    /// Geoip files.
    pub geoip: Vec<GeoipFile>,
    /// Sources that could not be used at the start, and why: the table is what was saved until they can.
    pub missing: Vec<String>,
    /// What was changed since and is refused, and why: what was there before counts.
    pub refused: Vec<String>,
    /// The topology whose regions these are.
    pub topology_version: u64,
}

/// How much a geoip file says.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct GeoipFile {
    /// Which.
    pub file: String,
    /// Ranges of IPv4 addresses.
    pub ranges_ipv4: usize,
    /// Ranges of IPv6 addresses.
    pub ranges_ipv6: usize,
}

impl GeoipFile {
    fn of(file: &str, content: &Geoip) -> Self {
        let (ranges_ipv4, ranges_ipv6) = content.ranges();
        Self { file: file.to_owned(), ranges_ipv4, ranges_ipv6 }
    }
}

impl Engine {
    /// Why an address is served from where it is.
    #[must_use]
    pub fn explain(&self, address: IpAddr) -> Explanation {
        let address = address.to_canonical();
        let resolution = self.resolver.load().resolve(address);
        let routes = Routes { loaded: &self.loaded, live: &self.live };
        let mut heard = Vec::new();
        let mut chain = Vec::new();
        routes.with_chooser(|chooser| {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            let nets = (0..=bits).rev().filter_map(|length| IpNet::new(address, length).ok());
            for prefix in nets.map(|net| net.trunc()) {
                routes.evidence(&prefix, &mut heard);
                let published = self.writer.get(&prefix);
                if !heard.is_empty() || published.is_some() || self.loaded.rules.has(prefix) {
                    let chosen = chooser.explain(prefix, &heard);
                    let waits = published != chosen.leaf.as_ref();
                    chain.push(Link { prefix, published: published.cloned(), chosen, waits });
                }
            }
        });
        Explanation {
            address,
            regions: resolution.regions.to_vec(),
            evidence: resolution.evidence.to_string(),
            chain,
            geoip: self.place(address),
            default_region: self.loaded.regions.default(),
            settled: self.settled,
            missing: self.loaded.missing().to_vec(),
        }
    }

    fn place(&self, address: IpAddr) -> Option<Place> {
        let place = self.loaded.geoip.iter().find_map(|(_, file)| file.place(address))?;
        let table = self.table();
        let leaf = table.base(address).map(|found| table.leaf(found));
        let country = place.country.map(|code| String::from_utf8_lossy(&code).into_owned());
        let region = leaf.and_then(|leaf| leaf.candidates.first()).map(|candidate| candidate.region);
        Some(Place { country, position: place.position, region })
    }

    /// What an operator should look at. Goes through the whole table, some 100 ms for a full one: see [`Engine::survey`].
    #[must_use]
    pub fn audit(&self, now: Instant) -> Audit {
        self.survey(now).audit()
    }

    /// What an [`Audit`] is made of, which then needs no engine. Copies what the table says of each prefix.
    #[must_use]
    pub fn survey(&self, now: Instant) -> Survey {
        let tell = |moved: &Move| Moved {
            prefix: moved.prefix,
            from: moved.from.clone(),
            to: moved.to.clone(),
            ago_s: now.saturating_duration_since(moved.at).as_secs(),
        };
        Survey {
            table: Arc::clone(self.table()),
            content: self.writer.content(),
            regions: self.loaded.regions.clone(),
            idle: self.loaded.idle.clone(),
            moved: Examples::of(self.moves.recent(now), tell),
            moves_forgotten: self.moves.forgotten(),
        }
    }

    /// How much there is.
    #[must_use]
    pub fn stats(&self, now: Instant) -> Stats {
        Stats {
            position: self.position(),
            table: self.table().counts(),
            settled: self.settled,
            waits_for: self.live.waits_for(self.since_start(now)),
            changes_kept: self.log.len(),
            pending: self.damping.pending(),
            moved_early: self.damping.early_total(),
            routes: self.live.counts(),
            feeds: self.live.states(self.since_start(now)),
            lists: self.loaded.listed.files.clone(),
            dumps: self.loaded.dumped.files.clone(),
            geoip: self.loaded.geoip.iter().map(|(path, file)| GeoipFile::of(path, file)).collect(),
            missing: self.loaded.missing.clone(),
            refused: Vec::new(),
            topology_version: self.loaded.topology_version,
        }
    }
}

impl Survey {
    /// What an operator should look at.
    #[must_use]
    pub fn audit(self) -> Audit {
        Audit {
            v4: evidence(&self.table, IpAddr::from([0; 4])),
            v6: evidence(&self.table, IpAddr::from([0; 16])),
            several: several(&self.content),
            regions: self.regions(),
            moved: self.moved,
            moves_forgotten: self.moves_forgotten,
        }
    }

    fn regions(&self) -> Vec<RegionAudit> {
        let Self { table, content, regions, idle, .. } = self;
        let (mut first, mut only): (BTreeMap<RegionId, usize>, BTreeMap<RegionId, usize>) = Default::default();
        for (prefix, leaf) in prefixes(content) {
            for region in firsts(Some(leaf)) {
                *first.entry(region).or_default() += 1;
            }
            if let Some(region) = alone(table, prefix, leaf) {
                *only.entry(region).or_default() += 1;
            }
        }
        let base = content.base.ranges().leaves;
        let audit = |region| {
            let neighbours: Vec<RegionId> = regions.from(region).iter().skip(1).copied().collect();
            let only = only.get(&region).copied().unwrap_or(0);
            let by_geoip = base.iter().any(|leaf| leaf.candidates.iter().any(|candidate| candidate.region == region));
            let without_alternative = neighbours.is_empty() && (only > 0 || by_geoip);
            RegionAudit {
                region,
                first: first.get(&region).copied().unwrap_or(0),
                only,
                neighbours,
                without_alternative,
                idle: idle.contains(&region),
            }
        };
        regions.iter().map(audit).collect()
    }
}

impl<T> Default for Examples<T> {
    fn default() -> Self {
        Self { count: 0, examples: Vec::new() }
    }
}

impl<T> Examples<T> {
    /// The first ones.
    fn of<U>(all: impl Iterator<Item = U>, tell: impl Fn(U) -> T) -> Self {
        let mut told = Self::default();
        for one in all {
            if told.count < EXAMPLES_MAX {
                told.examples.push(tell(one));
            }
            told.count += 1;
        }
        told
    }
}

fn prefixes(content: &Content) -> impl Iterator<Item = (IpNet, &Leaf)> {
    let v4 = content.v4.iter().map(|&(net, leaf)| (IpNet::V4(net), leaf));
    let v6 = content.v6.iter().map(|&(net, leaf)| (IpNet::V6(net), leaf));
    v4.chain(v6).filter_map(|(prefix, leaf)| Some((prefix, content.leaves.get(leaf as usize)?)))
}

fn several(content: &Content) -> Examples<Candidates> {
    let several = prefixes(content).filter(|(_, leaf)| leaf.candidates.len() > 1);
    Examples::of(several, |(prefix, leaf)| Candidates {
        prefix,
        regions: leaf.candidates.iter().map(|candidate| candidate.region).collect(),
    })
}

/// The only region that a prefix's clients have, if it is one.
fn alone(table: &Table, prefix: IpNet, leaf: &Leaf) -> Option<RegionId> {
    let [candidate] = *leaf.candidates else { return None };
    let mut around = table.lookup(prefix.addr());
    while let Some(found) = around {
        let covers = table.prefix(prefix.addr(), found).is_some_and(|net| net.prefix_len() < prefix.prefix_len());
        if covers && table.leaf(found).candidates.iter().any(|other| other.region != candidate.region) {
            return None;
        }
        around = table.covering(prefix.addr(), found);
    }
    Some(candidate.region)
}

/// Walks a family.
fn evidence(table: &Table, from: IpAddr) -> Evidence {
    let mut told = Evidence::default();
    let mut largest: Vec<(f64, Range)> = Vec::new();
    let mut below = |told: &mut Evidence, first, last, found: Option<Found>, denied: &[RegionId]| {
        let addresses = count(first, last);
        let leaf = found.map(|found| table.leaf(found));
        let Some(leaf) = leaf.filter(|leaf| leaves_somebody(leaf, denied)) else {
            told.nothing += addresses;
            return;
        };
        told.geoip += addresses;
        told.geoip_only.count += 1;
        if largest.len() < EXAMPLES_MAX || largest.last().is_some_and(|(least, _)| addresses > *least) {
            let at = largest.partition_point(|(larger, _)| *larger >= addresses);
            largest.insert(at, (addresses, Range { first, last, regions: firsts(Some(leaf)) }));
            largest.truncate(EXAMPLES_MAX);
        }
    };
    for (first, last, found) in table.ranges(from) {
        match found.filter(|found| found.is_prefix()) {
            None => below(&mut told, first, last, found, &[]),
            Some(prefix) => match left_by_prefixes(table, first, prefix) {
                Ok(()) => told.prefixes += count(first, last),
                // Prefixes that only deny leave it to geoip who serves.
                Err(denied) => {
                    let under = table.base_ranges(first).take_while(|(start, _, _)| *start <= last);
                    under.for_each(|(start, end, base)| below(&mut told, start, end.min(last), base, &denied));
                }
            },
        }
    }
    told.geoip_only.examples = largest.into_iter().map(|(_, range)| range).collect();
    told
}

/// Whether the prefixes around leave anybody who serves.
///
/// # Errors
///
/// Whom they deny, when they do not.
fn left_by_prefixes(table: &Table, client: IpAddr, found: Found) -> Result<(), Vec<RegionId>> {
    let (mut denied, mut next) = (Vec::new(), Some(found));
    while let Some(found) = next {
        let leaf = table.leaf(found);
        denied.extend(&leaf.denied);
        if leaves_somebody(leaf, &denied) {
            return Ok(());
        }
        next = table.covering(client, found);
    }
    Err(denied)
}

fn leaves_somebody(leaf: &Leaf, denied: &[RegionId]) -> bool {
    leaf.candidates.iter().any(|candidate| !denied.contains(&candidate.region))
}

/// Addresses from one to another, both included.
#[expect(clippy::cast_precision_loss, reason = "shares of IPv6 are told, not addresses")]
fn count(first: IpAddr, last: IpAddr) -> f64 {
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => f64::from(u32::from(last) - u32::from(first)) + 1.0,
        (IpAddr::V6(first), IpAddr::V6(last)) => u128::from(last).wrapping_sub(first.into()) as f64 + 1.0,
        _ => 0.0,
    }
}

/// Of each kind.
const EXAMPLES_MAX: usize = 20;
