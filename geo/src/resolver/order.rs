//! In which order regions serve a client, from what the table says of its address and how regions stand. Pure.
//!
//! ```text
//!   leaf of the longest prefix --covering--> leaf --covering--> ...      no candidate there? geoip's leaf
//!     candidates by rank (equal ones: by a hash of the client's /24 or /48), less those denied so far
//!         |
//!         +-- live      --> 1. in this order
//!         +-- saturated --> 3. behind the live neighbours
//!         +-- down      --> not at all
//!   neighbours of the first candidate, be it down or not, less those denied anywhere in the chain
//!         +-- live 2., saturated 4.
//!   nobody so far --> geoip's leaf and its neighbours; then the default region and its neighbours; then anybody
//!   nobody at all --> as if all were live: what is known of who lives may be wrong
//! ```
//!
//! # Invariants
//!
//! - At least one region, at most [`REGIONS_PER_CLIENT_MAX`], all of the topology, none twice.
//! - A denied region is in no answer, unless every region is denied: then it is the default region.
//! - **Frozen.** What orders equal candidates is the same in every build; `equal_candidates_never_change` pins it.

use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;

use crate::placement::mix;
use crate::regions::{REGIONS_PER_CLIENT_MAX, Regions};
use crate::table::{CANDIDATES_MAX, Candidate, Leaf};
use crate::topology::RegionId;

/// How a region stands at the moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// It serves.
    Live,
    /// It serves, and others are better asked to.
    Saturated,
    /// Nobody there serves.
    Down,
}

/// Regions, best first; at most [`REGIONS_PER_CLIENT_MAX`], none twice. It is a slice.
#[derive(Clone, Copy)]
pub struct RegionList {
    regions: [RegionId; REGIONS_PER_CLIENT_MAX],
    count: usize,
}

/// Orders the regions of a client, with what told the first: nothing when it is the default. `chain` is what the
/// prefixes say, most specific first; `base` is geoip's word.
pub(super) fn order<'a, Told: Copy>(
    client: IpAddr,
    regions: &Regions,
    chain: &(impl Iterator<Item = (Told, &'a Leaf)> + Clone),
    base: impl Fn() -> Option<(Told, &'a Leaf)>,
    standing: impl Fn(RegionId) -> Standing,
) -> (RegionList, Option<Told>) {
    let walk = |standing: &dyn Fn(RegionId) -> Standing| {
        let mut walk = Walk { client, regions, standing, denied: Vec::new(), live: None, saturated: None };
        walk.all(chain.clone(), &base);
        walk.finish()
    };
    let found = walk(&standing).or_else(|| walk(&|_| Standing::Live));
    found.unwrap_or_else(|| (RegionList::of(regions.default()), None))
}

/// An answer while it is made.
struct Walk<'a, 'b, Told> {
    client: IpAddr,
    regions: &'b Regions,
    standing: &'b dyn Fn(RegionId) -> Standing,
    denied: Vec<&'a [RegionId]>,
    live: Option<(RegionList, Option<Told>)>,
    saturated: Option<(RegionList, Option<Told>)>,
}

/// A region and what told it.
type First<Told> = (RegionId, Option<Told>);

impl<'a, Told: Copy> Walk<'a, '_, Told> {
    fn all(&mut self, chain: impl Iterator<Item = (Told, &'a Leaf)>, base: &impl Fn() -> Option<(Told, &'a Leaf)>) {
        let mut first = None;
        for (told, leaf) in chain {
            self.denied.extend((!leaf.denied.is_empty()).then_some(&*leaf.denied));
            let of_leaf = self.candidates(told, leaf);
            first = first.or(of_leaf);
        }
        self.neighbours(first);
        if let (true, Some((told, leaf))) = (self.nobody(), base()) {
            self.candidates(told, leaf);
            // Denied or not, it tells what is near.
            self.neighbours(leaf.candidates.first().map(|candidate| (candidate.region, Some(told))));
        }
        if self.nobody() {
            self.neighbours(Some((self.regions.default(), None)));
        }
        for region in self.regions.iter() {
            if self.nobody() {
                self.take((region, None));
            }
        }
    }

    /// Takes a leaf's candidates; the first of them that may serve, down or not.
    fn candidates(&mut self, told: Told, leaf: &Leaf) -> Option<First<Told>> {
        let mut first = None;
        for region in ranked(self.client, &leaf.candidates).into_iter().take(leaf.candidates.len()) {
            if self.take((region, Some(told))) {
                first.get_or_insert((region, Some(told)));
            }
        }
        first
    }

    /// Takes a region and its neighbours.
    fn neighbours(&mut self, first: Option<First<Told>>) {
        let Some((region, told)) = first else { return };
        let regions = self.regions;
        for &neighbour in regions.from(region) {
            self.take((neighbour, told));
        }
    }

    /// Takes a region by its standing; whether it may serve.
    fn take(&mut self, (region, told): First<Told>) -> bool {
        if !self.regions.contains(region) || self.denied.iter().any(|denied| denied.contains(&region)) {
            return false;
        }
        let taken = match (self.standing)(region) {
            Standing::Live => &mut self.live,
            Standing::Saturated => &mut self.saturated,
            Standing::Down => return true,
        };
        match taken {
            Some((list, _)) => list.push(region),
            None => *taken = Some((RegionList::of(region), told)),
        }
        true
    }

    const fn nobody(&self) -> bool {
        self.live.is_none() && self.saturated.is_none()
    }

    fn finish(self) -> Option<(RegionList, Option<Told>)> {
        let (Some((mut list, told)), Some((behind, _))) = (self.live, self.saturated) else {
            return self.live.or(self.saturated);
        };
        for &region in &*behind {
            list.push(region);
        }
        Some((list, told))
    }
}

/// The candidates by rank; equal ones by rendezvous hash, so that of two equal regions each has half of the
/// networks, and one that goes leaves the others' networks where they are. What is beyond the candidates is filled up.
fn ranked(client: IpAddr, candidates: &[Candidate]) -> [RegionId; CANDIDATES_MAX] {
    let mut regions = [RegionId(0); CANDIDATES_MAX];
    for (slot, candidate) in regions.iter_mut().zip(candidates) {
        *slot = candidate.region;
    }
    // Leaves are sorted by rank.
    if candidates.windows(2).all(|pair| pair[0].rank < pair[1].rank) {
        return regions;
    }
    let network = network(client);
    let mut scored = [(u8::MAX, 0, RegionId(0)); CANDIDATES_MAX];
    for (slot, candidate) in scored.iter_mut().zip(candidates) {
        *slot = (candidate.rank, u64::MAX - mix(network ^ mix(candidate.region.0.into())), candidate.region);
    }
    scored[..candidates.len().min(CANDIDATES_MAX)].sort_unstable();
    scored.map(|(_, _, region)| region)
}

/// The place of a client among those of a region, 0..1: the same for all of its /24 or /48 and in every build, another
/// one for each region, and none that goes with which of equal regions is the client's. Diverting those below a share
/// takes that share of the networks; as it grows, others join, and nobody who was diverted comes back.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64 exactly")]
pub fn place_among_clients(client: IpAddr, region: RegionId) -> f64 {
    let hash = mix(mix(network(client) ^ mix(region.0.into())) ^ PLACE);
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

/// Keeps [`place_among_clients`] apart from the order of equal candidates.
const PLACE: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a client shares with its neighbours and with itself tomorrow: its /24, or of IPv6 its /48.
fn network(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(v4) => u64::from(u32::from(v4) >> 8),
        IpAddr::V6(v6) => u64::try_from(u128::from(v6) >> 80).expect("48 bits"),
    }
}

impl RegionList {
    /// One region.
    #[must_use]
    pub const fn of(region: RegionId) -> Self {
        Self { regions: [region; REGIONS_PER_CLIENT_MAX], count: 1 }
    }

    /// Puts a region behind the others, unless it is among them or there is no room.
    fn push(&mut self, region: RegionId) {
        if self.contains(&region) {
            return;
        }
        if let Some(slot) = self.regions.get_mut(self.count) {
            *slot = region;
            self.count += 1;
        }
    }
}

impl Deref for RegionList {
    type Target = [RegionId];

    fn deref(&self) -> &[RegionId] {
        &self.regions[..self.count]
    }
}

impl fmt::Debug for RegionList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().map(|region| region.0).collect::<Vec<_>>().fmt(f)
    }
}

impl PartialEq for RegionList {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl serde::Serialize for RegionList {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Topology;

    #[test]
    fn the_covering_chain_and_then_the_neighbours_of_the_first() {
        check("", "", &["4", "5"], "4 5", "0");
        check("", "", &["2"], "2 3 1", "0");
        check("", "", &["2", "4"], "2 4 3 1", "0");
        check("", "", &["2", "2 4", "5"], "2 4 5 3", "0");
        check("", "", &["2 5 3 4 1"], "2 5 3 4", "0");
    }

    #[test]
    fn regions_that_are_down_are_passed_over() {
        check("2", "", &["2", "4"], "4 3 1", "1");
        check("2 4", "", &["2", "4"], "3 1", "0"); // Neighbours of the first.
        check("2 3 1", "", &["2"], "4 5", "base"); // Nobody of the chain: geoip.
        check("2 3 1 4 5", "", &["2"], "2 3 1", "0"); // Nobody at all.
    }

    #[test]
    fn saturated_regions_are_passed_over_while_others_live() {
        check("", "2", &["2", "4"], "4 3 1 2", "1");
        check("", "2", &["2"], "3 1 2", "0");
        check("3 1", "2", &["2"], "2", "0");
        check("", "2 3", &["2"], "1 2 3", "0");
        check("", "2 4", &["2 4"], "3 1 2 4", "0");
        check("", "1 2 3 4 5", &["2 4"], "2 4 3 1", "0");
    }

    #[test]
    fn a_denied_region_is_not_reached_by_other_ways() {
        check("", "", &["2 !3"], "2 1", "0");
        check("", "", &["!2", "2 4"], "4 5", "1");
        check("", "", &["4", "2 !4"], "4 2 5", "0"); // Only what is less specific is denied.
        check("", "", &["!4"], "5", "base"); // What is near the one denied.
        check("", "", &["!4 !5"], "1 2", "default");
        check("", "", &["!1 !4 !5"], "2", "default");
        check("", "", &["!1 !2 !4 !5"], "3", "default");
        check("", "", &["!1 !2 !3 !4 !5"], "1", "default");
        check("1 2 3", "", &["!4 !5"], "1 2", "default"); // Rather one that seems down than one denied.
    }

    #[test]
    fn without_a_candidate_geoip_counts_and_then_the_default() {
        check("", "", &[], "4 5", "base");
        check("4 5", "", &[], "1 2", "default");
        check("", "", &["9"], "4 5", "base"); // A region that is no longer.
    }

    #[test]
    fn equal_candidates_share_the_networks() {
        let regions = regions();
        let first = |client: u32, leaf: &str| {
            let leaf = parse(leaf);
            order(IpAddr::V4(client.into()), &regions, &[(0, &leaf)].into_iter(), || None, |_| Standing::Live).0[0].0
        };
        let networks: Vec<u32> = (0..3000).map(|network: u32| network.wrapping_mul(0x9e37_7900)).collect();
        for region in [1, 2, 3] {
            let share = networks.iter().filter(|&&network| first(network, "1=2=3") == region).count();
            assert!((900..1100).contains(&share), "region {region} has {share} of 3,000");
        }
        for network in networks {
            assert_eq!(first(network, "1=2=3"), first(network | 0xff, "3=2=1"), "a /24 stays together");
            let with_three = first(network, "1=2=3");
            assert!(with_three == 3 || first(network, "1=2") == with_three, "who goes takes nobody else along");
            assert_eq!(first(network, "5 1=2=3"), 5);
        }
    }

    #[test]
    fn equal_candidates_never_change() {
        let order = |client: &str| {
            let leaf = parse("1=2=3=4=5");
            ranked(client.parse().unwrap(), &leaf.candidates).map(|region| region.0.to_string())[..5].join(" ")
        };
        assert_eq!(order("192.0.2.1"), "4 1 3 2 5");
        assert_eq!(order("::ffff:192.0.2.255"), "4 1 3 2 5");
        assert_eq!(order("198.51.100.1"), "2 3 5 4 1");
        assert_eq!(order("2001:db8::1"), "2 1 4 5 3");
        assert_eq!(order("2001:db8:0:ff::"), "2 1 4 5 3");
    }

    #[test]
    fn a_place_is_even_and_goes_with_nothing_else() {
        let regions = [RegionId(1), RegionId(2)];
        let leaf = parse("1=2");
        let clients = (0..4000_u32).map(|network| IpAddr::V4(network.wrapping_mul(0x9e37_7900).into()));
        // Of those below a third in region 1: all, those below a third in region 2, those that have region 1 first.
        let mut counts = [0; 3];
        for client in clients {
            let [one, two] = regions.map(|region| place_among_clients(client, region));
            assert!((0.0..1.0).contains(&one));
            if one < 1.0 / 3.0 {
                let first = ranked(client, &leaf.candidates)[0] == RegionId(1);
                counts = [counts[0] + 1, counts[1] + u32::from(two < 1.0 / 3.0), counts[2] + u32::from(first)];
            }
        }
        let [all, both, first] = counts;
        assert!((1240..1430).contains(&all) && (390..500).contains(&both) && (600..740).contains(&first), "{counts:?}");
        let place = |client: &str| place_among_clients(client.parse().unwrap(), RegionId(4));
        assert_eq!(place("192.0.2.1"), place("::ffff:192.0.2.255"));
        assert_eq!(place("2001:db8::1"), place("2001:db8:0:ff::"));
        assert_eq!((place("192.0.2.1") * 1e6).floor(), 16_738.0, "frozen");
    }

    #[test]
    fn a_list_prints_and_compares_as_what_is_in_it() {
        let mut list = RegionList::of(RegionId(4));
        for region in [5, 4, 6, 7, 8] {
            list.push(RegionId(region));
        }
        assert_eq!(format!("{list:?}"), "[4, 5, 6, 7]");
        assert_eq!(serde_json::to_string(&list).unwrap(), "[4,5,6,7]");
        assert_eq!(RegionList::of(RegionId(4)), RegionList::of(RegionId(4)));
    }

    /// `down` and `saturated` are regions; `chain` the leaves; `expected` the answer, and whose word the first is.
    #[track_caller]
    fn check(down: &str, saturated: &str, chain: &[&str], expected: &str, told: &str) {
        let listed = |list: &str, region: RegionId| list.split_whitespace().any(|id| id == region.to_string());
        let standing = |region| match () {
            () if listed(down, region) => Standing::Down,
            () if listed(saturated, region) => Standing::Saturated,
            () => Standing::Live,
        };
        let leaves: Vec<Leaf> = chain.iter().map(|leaf| parse(leaf)).collect();
        let names: Vec<String> = (0..leaves.len()).map(|index| index.to_string()).collect();
        let chain = names.iter().map(String::as_str).zip(&leaves);
        let base = parse("4");
        let client = [192, 0, 2, 1].into();
        let (list, whose) = order(client, &regions(), &chain, || Some(("base", &base)), standing);
        let list: Vec<String> = list.iter().map(ToString::to_string).collect();
        assert_eq!((list.join(" ").as_str(), whose.unwrap_or("default")), (expected, told));
    }

    /// `2=4 5 !3`: 2 and 4 are best, then 5; 3 is denied.
    fn parse(leaf: &str) -> Leaf {
        let mut parsed = Leaf::default();
        for (rank, word) in (0..).zip(leaf.split_whitespace()) {
            match word.strip_prefix('!') {
                Some(denied) => parsed.denied.push(RegionId(denied.parse().unwrap())),
                None => parsed.candidates.extend(
                    word.split('=').map(|region| Candidate { region: RegionId(region.parse().unwrap()), rank }),
                ),
            }
        }
        parsed
    }

    fn regions() -> Regions {
        let mut document = "version = 1\ndomain = \"example.org\"\ndefault_region = 1\n\
            content_servers = { url = \"http://cs{number}\", numbers = [\"1\"] }\n"
            .to_owned();
        for (id, neighbours) in [(1, "2"), (2, "3, 1"), (3, "1"), (4, "5"), (5, "3")] {
            document += &format!(
                "[[region]]\nid = {id}\nname = \"R\"\nlatitude = 0\nlongitude = {id}\nneighbours = [{neighbours}]\n"
            );
        }
        document += "[[group]]\nname = \"sun1-1\"\nsubnet = \"192.0.2.0/24\"\n[[sun]]\nname = \"sun1-1-1\"\n\
            addresses = [\"192.0.2.1\"]\ninternal = \"10.0.0.1:81\"\nweight = 1\n";
        Regions::of(&Topology::parse(&document).unwrap())
    }
}
