//! Dumps of routing tables, as routes.
//!
//! ```text
//!   a dump with a region     --> one feed of the RIB
//!   one without a region     --> a feed for each region that origin rules name;  origin AS --[[origin]]--> which of them
//! ```
//!
//! A dump that ends in the middle counts as far as it goes, and so does one with a broken record: what it says is
//! better than nothing, and what is missing is told.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use super::inputs::InputsError;
use crate::feed::{self, Event, FeedError, View};
use crate::rib::{Feed, FeedId, FeedKind, Limits, Rib};
use crate::route::SessionClass;
use crate::rules::{Origin, Rules};
use crate::topology::RegionId;

/// A dump of a router's table, or of what it heard since (MRT, RFC 6396).
#[derive(Clone, Debug, PartialEq)]
pub struct Dump {
    /// The file; plain, gzip or bzip2.
    pub file: PathBuf,
    /// Where the router stands; none: an origin rule says the region of each route.
    pub region: Option<RegionId>,
    /// What its peers are.
    pub class: SessionClass,
}

/// A dump that was read, for people.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct DumpRead {
    /// Its path.
    pub file: String,
    /// Routes that it told, one for each peer and prefix, later ones of the same again.
    pub routes: u64,
    /// Routes that were left out because no origin rule has their AS.
    pub without_region: u64,
    /// The first of those, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_without: Option<String>,
    /// Routes that were left out because there were too many, or too many peers: one for each time it was told.
    pub refused: u64,
    /// The first thing in it that could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl DumpRead {
    /// Routes of it that count.
    pub(crate) const fn taken(&self) -> u64 {
        self.routes.saturating_sub(self.without_region).saturating_sub(self.refused)
    }

    /// What of it does not count.
    pub(crate) fn left_out(&self) -> Option<String> {
        let cut = self.problem.as_ref().map(|why| format!("it counts as far as it goes: {why}"));
        let without =
            self.first_without.as_ref().map(|first| format!("{} routes left out: {first}", self.without_region));
        let refused = format!("{} routes left out: too many, or of too many peers", self.refused);
        let told: Vec<String> = cut.into_iter().chain(without).chain((self.refused > 0).then_some(refused)).collect();
        (!told.is_empty()).then(|| told.join("; "))
    }
}

/// All dumps.
#[derive(Debug)]
pub(super) struct Dumped {
    pub(super) rib: Rib,
    pub(super) files: Vec<DumpRead>,
}

impl Dumped {
    /// Routes of each file that are left at its end, IPv4 and IPv6: what is told again counts once.
    pub(super) fn sizes(&self) -> BTreeMap<String, [u64; 2]> {
        let mut sizes: BTreeMap<String, [u64; 2]> = self.files.iter().map(|dump| (dump.file.clone(), [0; 2])).collect();
        for feed in self.rib.states(Duration::ZERO) {
            let Some((file, _)) = feed.name.rsplit_once(REGION) else { continue };
            let [v4, v6] = sizes.entry(file.to_owned()).or_default();
            *v4 += feed.peers.iter().map(|peer| u64::from(peer.v4.routes)).sum::<u64>();
            *v6 += feed.peers.iter().map(|peer| u64::from(peer.v6.routes)).sum::<u64>();
        }
        sizes
    }
}

/// Bounds on dumps: a collector has many peers' full tables, and without a region each of its peers is one in each region.
pub(super) fn limits(of_routers: Limits) -> Limits {
    Limits { peers_max: u16::MAX, routes_max: ROUTES_MAX, attribute_bytes_max: ATTRIBUTE_BYTES_MAX, ..of_routers }
}

/// Reads the dumps. Those that cannot be used are left out, and told.
pub(super) fn read(
    dumps: &[Dump],
    origins: &[Origin],
    rules: &Rules,
    limits: Limits,
    missing: &mut Vec<String>,
) -> Dumped {
    let mut rib = Rib::new(limits);
    let regions: BTreeSet<RegionId> = origins.iter().map(|origin| origin.region).collect();
    let of_dump = |dump: &Dump| match dump.region {
        Some(region) => vec![feed_of(dump, region)],
        None => regions.iter().map(|&region| feed_of(dump, region)).collect(),
    };
    let feeds: Vec<Vec<Feed>> = dumps.iter().map(of_dump).collect();
    let mut ids = rib.set_feeds(&feeds.concat(), Duration::ZERO).into_iter();
    let mut files = Vec::new();
    for (dump, feeds) in dumps.iter().zip(&feeds) {
        let ways = feeds.iter().zip(&mut ids).filter_map(|(feed, id)| Some(Way { region: feed.region, feed: id? }));
        let mut reading =
            Reading { ways: ways.collect(), by_origin: dump.region.is_none(), seen: HashSet::new(), rules };
        let mut done = reading.read(dump, &mut rib).unwrap_or_else(|InputsError(why)| {
            missing.push(why.clone());
            DumpRead { file: dump.file.display().to_string(), problem: Some(why), ..DumpRead::default() }
        });
        done.refused += reading.refused(&rib);
        if done.refused > 0 {
            let DumpRead { file, refused, routes, .. } = &done;
            tracing::warn!(
                file,
                refused,
                routes,
                "routes of a dump are left out: there are too many, or too many peers"
            );
        }
        files.push(done);
    }
    rib.take_everything();
    Dumped { rib, files }
}

fn feed_of(dump: &Dump, region: RegionId) -> Feed {
    let name = format!("{}{REGION}{region}", dump.file.display());
    let (class, peers, view, kind) = (dump.class, Vec::new(), View::PrePolicy, FeedKind::Dump);
    Feed { name, region, class, peers, view, prefixes_max: None, kind }
}

/// A region that routes of a dump may be of.
struct Way {
    region: RegionId,
    feed: FeedId,
}

struct Reading<'a> {
    ways: Vec<Way>,
    by_origin: bool,
    /// Peers that have said something, by region.
    seen: HashSet<(FeedId, (std::net::IpAddr, u64))>,
    rules: &'a Rules,
}

impl Reading<'_> {
    fn read(&mut self, dump: &Dump, rib: &mut Rib) -> Result<DumpRead, InputsError> {
        let file = dump.file.display().to_string();
        let refuse = |why: &dyn std::fmt::Display| InputsError(format!("{file}: {why}"));
        // Another kind may have no end.
        let about = std::fs::metadata(&dump.file).map_err(|error| refuse(&error))?;
        if !about.is_file() {
            return Err(refuse(&"it is no regular file"));
        }
        let input = File::open(&dump.file).map_err(|error| refuse(&error))?;
        let mut done = DumpRead { file: file.clone(), ..DumpRead::default() };
        for event in feed::mrt(input) {
            match event {
                Ok(event) => self.take(event, rib, &mut done),
                Err(error) => problem(&mut done, &error),
            }
        }
        match &done.problem {
            Some(problem) if done.routes == 0 => return Err(refuse(problem)),
            Some(problem) => tracing::warn!(file, %problem, routes = done.routes, "a dump counts as far as it goes"),
            None => {}
        }
        Ok(done)
    }

    /// Routes of peers within the limit that were too many.
    fn refused(&self, rib: &Rib) -> u64 {
        self.ways.iter().map(|way| rib.refused_of(way.feed)).sum()
    }

    /// Takes in a peer's routes, or counts those of one that is beyond the limit.
    fn apply(&self, way: &Way, event: &Event, rib: &mut Rib, done: &mut DumpRead) {
        rib.apply(way.feed, event, Duration::ZERO);
        if let Event::Routes { peer, announced, .. } = event
            && !rib.has_peer(way.feed, peer)
        {
            done.refused += announced.len() as u64;
        }
    }

    fn take(&mut self, event: Event, rib: &mut Rib, done: &mut DumpRead) {
        let Event::Routes { peer, announced, attributes, .. } = &event else {
            self.ways.iter().for_each(|way| rib.apply(way.feed, &event, Duration::ZERO));
            return;
        };
        done.routes += announced.len() as u64;
        if !self.by_origin {
            self.ways.iter().for_each(|way| self.apply(way, &event, rib, done));
            return;
        }
        let origin_as = attributes.as_ref().and_then(|attributes| attributes.origin_as);
        let region = origin_as.and_then(|origin_as| self.rules.origin(origin_as));
        if region.is_none() {
            done.without_region += announced.len() as u64;
            if let (None, Some(prefix)) = (&done.first_without, announced.first()) {
                let origin = origin_as.map_or("its path has no origin AS".to_owned(), |of| format!("of AS{of}"));
                done.first_without = Some(format!("no [[origin]] has their AS (the first is {prefix}, {origin})"));
            }
        }
        let identity = peer.identity();
        let elsewhere = elsewhere(&event);
        for way in &self.ways {
            if region == Some(way.region) {
                self.seen.insert((way.feed, identity));
                self.apply(way, &event, rib, done);
            } else if self.seen.contains(&(way.feed, identity)) {
                rib.apply(way.feed, &elsewhere, Duration::ZERO);
            }
        }
    }
}

/// What an event means for a region that its routes are not of: the peer has no route there.
fn elsewhere(event: &Event) -> Event {
    let Event::Routes { peer, view, announced, withdrawn, .. } = event else { return event.clone() };
    let withdrawn = withdrawn.iter().chain(announced).copied().collect();
    Event::Routes { peer: *peer, view: *view, announced: Vec::new(), withdrawn, attributes: None }
}

/// Between the file and the region in the name of a dump's feed.
const REGION: &str = " region ";
/// Routes of all dumps: a collector with sixty full tables, at some 60 bytes each.
const ROUTES_MAX: u32 = 64_000_000;
/// Bytes of their attributes.
const ATTRIBUTE_BYTES_MAX: u64 = 4 << 30;

fn problem(done: &mut DumpRead, error: &FeedError) {
    done.problem.get_or_insert_with(|| error.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regions::Regions;
    use crate::route::Heard;
    use crate::topology::Topology;

    #[test]
    fn a_dump_of_a_router_is_of_its_region() {
        check(
            Some(5),
            &whole(),
            Ok("10.0.0.0/8: 5 AS64510 (peer 0), 5 AS64511 (peer 1); 10.1.0.0/16: 5 AS64511 (peer 0)"),
        );
    }

    #[test]
    fn a_dump_of_a_collector_is_of_the_regions_that_origin_rules_say() {
        check(
            None,
            &whole(),
            Ok("10.0.0.0/8: 4 AS64510 (peer 0), 5 AS64511 (peer 1); 10.1.0.0/16: 5 AS64511 (peer 0)"),
        );
        // The peer says that another AS announces it now, then that a third one does, which is nowhere.
        let later = [whole(), rib([10, 0, 0, 0], 8, &[(0, 64_511)])].concat();
        check(None, &later, Ok("10.0.0.0/8: 5 AS64511 (peer 0), 5 AS64511 (peer 1); 10.1.0.0/16: 5 AS64511 (peer 0)"));
        let later = [whole(), rib([10, 0, 0, 0], 8, &[(0, 64_999)])].concat();
        check(None, &later, Ok("10.0.0.0/8: 5 AS64511 (peer 1); 10.1.0.0/16: 5 AS64511 (peer 0)"));
    }

    #[test]
    fn a_cut_dump_counts_as_far_as_it_goes() {
        let whole = whole();
        let (cut, read) = (&whole[..whole.len() - 1], read_one(Some(5), &whole[..whole.len() - 1]).unwrap());
        check(Some(5), cut, Ok("10.0.0.0/8: 5 AS64510 (peer 0), 5 AS64511 (peer 1)"));
        assert_eq!(read.files[0].routes, 2);
        assert!(read.files[0].problem.as_ref().unwrap().starts_with("byte "), "{:?}", read.files[0].problem);
        check(Some(5), b"no dump at all", Err("dump: byte "));
    }

    #[track_caller]
    fn check(region: Option<u16>, bytes: &[u8], expected: Result<&str, &str>) {
        let read = match (read_one(region, bytes), expected) {
            (Ok(read), Ok(_)) => read,
            (Err(InputsError(why)), Err(expected)) => {
                assert!(why.rsplit('/').next().unwrap().starts_with(expected), "{why}");
                return;
            }
            (read, _) => panic!("{read:?}"),
        };
        let line = |prefix: ipnet::IpNet| {
            let mut heard: Vec<Heard<'_>> = Vec::new();
            read.rib.heard(&prefix, &mut heard);
            heard.sort_by_key(|route| (route.region, route.source));
            let told = |route: &Heard<'_>| {
                let peer = if route.source.contains("192.0.2.1 ") { 0 } else { 1 };
                format!("{} AS{} (peer {peer})", route.region, route.attributes.origin_as.unwrap())
            };
            format!("{prefix}: {}", heard.iter().map(told).collect::<Vec<_>>().join(", "))
        };
        let told: Vec<String> = read.rib.prefixes().map(line).collect();
        assert_eq!(told.join("; "), expected.unwrap());
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let refused = |limits, region| read_within(limits, region, &whole()).unwrap().files[0].refused;
        assert_eq!(refused(Limits::default(), Some(5)), 0);
        assert_eq!(refused(Limits { peers_max: 1, ..Limits::default() }, Some(5)), 1, "of the other peer");
        assert_eq!(refused(Limits { peers_max: 1, ..Limits::default() }, None), 2, "of both in region 5");
        assert_eq!(refused(Limits { routes_max: 1, ..Limits::default() }, Some(5)), 2);
        let (one, all) = (Limits { peers_max: 1, routes_max: 1, ..Limits::default() }, limits(Limits::default()));
        assert_eq!(refused(limits(one), None), 0);
        assert!(all.routes_max > Limits::default().routes_max && all.peers_max > Limits::default().peers_max);
    }

    fn read_one(region: Option<u16>, bytes: &[u8]) -> Result<Dumped, InputsError> {
        read_within(Limits::default(), region, bytes)
    }

    fn read_within(limits: Limits, region: Option<u16>, bytes: &[u8]) -> Result<Dumped, InputsError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dump");
        std::fs::write(&file, bytes).unwrap();
        let origin = |origin_as, region| Origin { origin_as, region: RegionId(region) };
        let origins = [origin(64_510, 4), origin(64_511, 5)];
        let document = r#"
            version = 1
            domain = "example.org"
            default_region = 4
            content_servers = { url = "http://cs{number}", numbers = ["1"] }
            region = [
                { id = 4, name = "Moscow", latitude = 55.75, longitude = 37.6 },
                { id = 5, name = "Berlin", latitude = 52.5, longitude = 13.4 },
            ]
            group = [{ name = "sun4-1", subnet = "192.0.2.0/24" }]
            sun = [{ name = "sun4-1-1", addresses = ["192.0.2.1"], internal = "10.0.0.1:81", weight = 1 }]
        "#;
        let regions = Regions::of(&Topology::parse(document).unwrap());
        let rules = Rules::check(&[], &origins, &regions).unwrap();
        let dump = Dump { file, region: region.map(RegionId), class: SessionClass::Transit };
        let mut missing = Vec::new();
        let read = read(&[dump], &origins, &rules, limits, &mut missing);
        missing.pop().map_or(Ok(read), |why| Err(InputsError(why)))
    }

    /// Two peers; both have 10.0.0.0/8, one has 10.1.0.0/16.
    fn whole() -> Vec<u8> {
        let mut peers = vec![0, 0, 0, 0, 0, 0, 0, 2];
        for (last, asn) in [(1, 64_500_u32), (2, 64_501)] {
            // A peer with an IPv4 address and an AS of four bytes (RFC 6396, section 4.3.1).
            peers.extend([2, 0, 0, 0, 0, 192, 0, 2, last]);
            peers.extend(asn.to_be_bytes());
        }
        let both = rib([10, 0, 0, 0], 8, &[(0, 64_510), (1, 64_511)]);
        [record(1, &peers), both, rib([10, 1, 0, 0], 16, &[(0, 64_511)])].concat()
    }

    /// Peers' routes to a prefix, with their origin AS.
    fn rib(prefix: [u8; 4], length: u8, routes: &[(u16, u32)]) -> Vec<u8> {
        let mut body = vec![0, 0, 0, 0, length];
        body.extend(&prefix[..usize::from(length / 8)]);
        body.extend(u16::try_from(routes.len()).unwrap().to_be_bytes());
        for (peer, origin) in routes {
            // ORIGIN, AS_PATH of one AS, NEXT_HOP.
            let path = [&[0x40, 2, 6, 2, 1][..], &origin.to_be_bytes()].concat();
            let attributes = [&[0x40, 1, 1, 0][..], &path, &[0x40, 3, 4, 192, 0, 2, 9]].concat();
            body.extend(peer.to_be_bytes());
            body.extend([0; 4]);
            body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
            body.extend(attributes);
        }
        record(2, &body)
    }

    fn record(subtype: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[0, 0, 0, 0, 0, 13][..], &subtype.to_be_bytes(), &length, body].concat()
    }
}
