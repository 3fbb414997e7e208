//! What the engine is told to go by, and what of it is read once: lists, dumps, rules, geoip.
//!
//! ```text
//!   Inputs, Topology --read: files, checked as a whole--> Loaded --Engine::start, Engine::install--> in use
//! ```
//!
//! Reading takes seconds where files are large and needs no engine, so that a running one goes on meanwhile. What
//! cannot be read or contradicts itself is an error that names the file and the place; what runs stays.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

use super::dumps::{self, Dump, Dumped};
use super::listed::Listed;
use super::routes::Routes;
use crate::choice;
use crate::damping;
use crate::geoip::{self, Geoip, GeoipError};
use crate::lists;
use crate::regions::Regions;
use crate::resolver::Resolver;
use crate::rib::{self, Feed, Rib};
use crate::rules::{Origin, Rule, Rules};
use crate::table::{Base, NOTHING, Ranges, Writer};
use crate::topology::{RegionId, Topology};

/// What the operator configured.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Prefix lists.
    pub lists: Vec<lists::Config>,
    /// A prefix that two lists have with two regions is an error; otherwise both count.
    pub lists_agree: bool,
    /// Dumps of routing tables.
    pub dumps: Vec<Dump>,
    /// Rules.
    pub rules: Vec<Rule>,
    /// Regions of origin AS, for lists and dumps that do not say a region.
    pub origins: Vec<Origin>,
    /// Files in MaxMind's format. Of several, each family is taken from the first that has it.
    pub geoip: Vec<PathBuf>,
    /// The region of a country, for geoip records without a position.
    pub countries: BTreeMap<String, RegionId>,
    /// Routers that send their routes.
    pub feeds: Vec<Feed>,
    /// Bounds on what routers tell; counts from the next start.
    pub limits: rib::Limits,
    /// What counts as evidence.
    pub choice: choice::Options,
    /// How long a change has to be wished for.
    pub damping: damping::Options,
    /// Changes that are kept for followers.
    pub changes_max: usize,
}

/// What was read.
#[derive(Debug)]
pub struct Loaded {
    pub(super) inputs: Inputs,
    pub(super) regions: Regions,
    pub(super) topology_version: u64,
    pub(super) rules: Rules,
    /// Prefixes with rules, sorted.
    pub(super) ruled: Vec<IpNet>,
    pub(super) listed: Listed,
    pub(super) dumped: Dumped,
    pub(super) geoip: Vec<Geoip>,
    pub(super) base: Base,
}

/// What is wrong, a line each, with the file and the place in it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct InputsError(pub String);

impl From<GeoipError> for InputsError {
    fn from(GeoipError(why): GeoipError) -> Self {
        Self(why)
    }
}

impl Loaded {
    /// Reads everything. It takes seconds where files are large: not for an async task.
    ///
    /// # Errors
    ///
    /// A file that cannot be used; a rule, feed or country with a region that the topology does not have.
    pub fn read(inputs: &Inputs, topology: &Topology) -> Result<Self, InputsError> {
        let regions = Regions::of(topology);
        geoip::check_countries(&inputs.countries, &regions)?;
        let rules = Rules::check(&inputs.rules, &inputs.origins, &regions).map_err(|error| InputsError(error.0))?;
        check_regions(inputs, &regions)?;
        let listed = Listed::read(&inputs.lists, inputs.lists_agree, &rules, &regions)?;
        let limits = dumps::limits(inputs.limits);
        let dumped = dumps::read(&inputs.dumps, &inputs.origins, &rules, limits)?;
        let geoip: Vec<Geoip> = inputs.geoip.iter().map(|file| Geoip::load(file)).collect::<Result<_, _>>()?;
        let base = base(inputs, &geoip, &regions)?;
        let mut ruled: Vec<IpNet> = rules.prefixes().collect();
        ruled.sort_unstable();
        let (inputs, topology_version) = (inputs.clone(), topology.version);
        Ok(Self { inputs, regions, topology_version, rules, ruled, listed, dumped, geoip, base })
    }

    /// Who answers from what was read, without an engine that would follow anybody.
    #[must_use]
    pub fn resolver(self) -> Resolver {
        let nobody = Rib::new(self.inputs.limits);
        let writer = Writer::build(Routes { loaded: &self, live: &nobody }.content());
        Resolver::new(Arc::clone(writer.table()), self.regions)
    }

    /// Whether routes are judged alike by both, whatever lists and dumps say. Geoip's ranges are not compared.
    pub(super) fn orders_as(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.inputs, &other.inputs);
        self.regions == other.regions
            && (&ours.rules, &ours.feeds) == (&theirs.rules, &theirs.feeds)
            && (ours.choice, ours.damping) == (theirs.choice, theirs.damping)
    }

    /// A list with prefixes that were left out because no origin rule has their AS.
    pub(crate) fn list_of_origins(&self) -> Option<&str> {
        let file = self.listed.files.iter().find(|file| file.without_region > 0)?;
        Some(&file.file)
    }

    /// Degrees north and east of an address, if a file says.
    pub(super) fn position(&self, address: std::net::IpAddr) -> Option<(f64, f64)> {
        self.geoip.iter().find_map(|file| file.position(address))
    }
}

fn check_regions(inputs: &Inputs, regions: &Regions) -> Result<(), InputsError> {
    let feeds = inputs.feeds.iter().map(|feed| (format!("router {}", feed.name), feed.region));
    let dumps = inputs.dumps.iter().filter_map(|dump| Some((format!("dump {}", dump.file.display()), dump.region?)));
    let problems: Vec<String> = feeds
        .chain(dumps)
        .filter(|(_, region)| !regions.contains(*region))
        .map(|(what, region)| format!("{what}: region = {region}: the topology has no such region"))
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(InputsError(problems.join("\n"))) }
}

/// What geoip says, as the table takes it.
fn base(inputs: &Inputs, files: &[Geoip], regions: &Regions) -> Result<Base, InputsError> {
    let mut whole = Ranges::default();
    for (path, file) in inputs.geoip.iter().zip(files) {
        let refuse = |GeoipError(why)| InputsError(format!("{}: {why}", path.display()));
        let mut ranges = file.bake(&inputs.countries, regions).map_err(refuse)?;
        let behind = u32::try_from(whole.leaves.len()).unwrap_or(NOTHING);
        let moved = |leaf: &mut u32| *leaf = leaf.saturating_add(behind);
        ranges.v4.iter_mut().for_each(|(_, leaf)| moved(leaf));
        ranges.v6.iter_mut().for_each(|(_, leaf)| moved(leaf));
        whole.leaves.append(&mut ranges.leaves);
        if whole.v4.is_empty() {
            whole.v4 = ranges.v4;
        }
        if !has_v6(&whole) {
            whole.v6 = ranges.v6;
        }
    }
    Ok(Base::build(whole))
}

/// Whether something is said of IPv6 itself. A file of IPv4 alone in IPv6's form shows its records again at `::/96`, and
/// through Teredo (RFC 4380, section 2.6) and 6to4 (RFC 3056, section 2): those do not hide another file's IPv6.
fn has_v6(ranges: &Ranges) -> bool {
    let shows_v4 = |start: u128| start >> 32 == 0 || start >> 96 == 0x2001_0000 || start >> 112 == 0x2002;
    ranges.v6.iter().any(|(start, leaf)| *leaf != NOTHING && !shows_v4(*start))
}
