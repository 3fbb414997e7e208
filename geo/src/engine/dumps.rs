//! Dumps of routing tables, as routes.
//!
//! ```text
//!   a dump with a region     --> one feed of the RIB
//!   one without a region     --> a feed for each region that origin rules name;  origin AS --[[origin]]--> which of them
//! ```
//!
//! A dump that ends in the middle counts as far as it goes, and so does one with a broken record: what it says is
//! better than nothing, and what is missing is told.

use std::collections::{BTreeSet, HashSet};
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
    /// The first thing in it that could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// All dumps.
#[derive(Debug)]
pub(super) struct Dumped {
    pub(super) rib: Rib,
    pub(super) files: Vec<DumpRead>,
}

/// Reads the dumps.
pub(super) fn read(
    dumps: &[Dump],
    origins: &[Origin],
    rules: &Rules,
    limits: Limits,
) -> Result<Dumped, InputsError> {
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
        let mut reading = Reading { ways: ways.collect(), by_origin: dump.region.is_none(), seen: HashSet::new(), rules };
        files.push(reading.read(dump, &mut rib)?);
    }
    rib.take_everything();
    Ok(Dumped { rib, files })
}

fn feed_of(dump: &Dump, region: RegionId) -> Feed {
    let name = format!("{} region {region}", dump.file.display());
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

    fn take(&mut self, event: Event, rib: &mut Rib, done: &mut DumpRead) {
        let Event::Routes { peer, announced, attributes, .. } = &event else {
            self.ways.iter().for_each(|way| rib.apply(way.feed, &event, Duration::ZERO));
            return;
        };
        done.routes += announced.len() as u64;
        if !self.by_origin {
            self.ways.iter().for_each(|way| rib.apply(way.feed, &event, Duration::ZERO));
            return;
        }
        let origin_as = attributes.as_ref().and_then(|attributes| attributes.origin_as);
        let region = origin_as.and_then(|origin_as| self.rules.origin(origin_as));
        if region.is_none() {
            done.without_region += announced.len() as u64;
        }
        let identity = peer.identity();
        let elsewhere = elsewhere(&event);
        for way in &self.ways {
            if region == Some(way.region) {
                self.seen.insert((way.feed, identity));
                rib.apply(way.feed, &event, Duration::ZERO);
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

fn problem(done: &mut DumpRead, error: &FeedError) {
    done.problem.get_or_insert_with(|| error.to_string());
}
