//! What the engine is told to go by, and what of it is read once: lists, dumps, rules, geoip.
//!
//! ```text
//!   Inputs, Topology --read: files, checked as a whole--> Loaded --Engine::start, Engine::install--> in use
//! ```
//!
//! Reading takes seconds where files are large and needs no engine, so that a running one goes on meanwhile. What
//! cannot be read or contradicts itself is an error that names the file and the place; what runs stays.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
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
use crate::topology::{Region, RegionId, Topology};

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
    /// Regions that no sun serves now: see [`idle`].
    pub(super) idle: Vec<RegionId>,
    pub(super) rules: Rules,
    /// Prefixes with rules, sorted.
    pub(super) ruled: Vec<IpNet>,
    pub(super) listed: Listed,
    pub(super) dumped: Arc<Dumped>,
    /// With their paths.
    pub(super) geoip: Vec<(String, Arc<Geoip>)>,
    pub(super) base: Base,
    /// See [`Loaded::missing`].
    pub(super) missing: Vec<String>,
    /// See [`Loaded::keep`].
    kept: BTreeSet<String>,
}

/// What is wrong, a line each, with the file and the place in it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct InputsError(pub String);

/// Regions without a sun that has weight: the table may send clients there all the same.
pub(super) fn idle(topology: &Topology) -> Vec<RegionId> {
    let serves = |region: &&Region| region.suns.iter().any(|sun| sun.server.weight.get() > 0);
    topology.regions.iter().filter(|region| !serves(region)).map(|region| region.id).collect()
}

/// What is to be said of such a region.
pub(crate) const IDLE: &str = "no sun of it has weight: its clients are served from elsewhere";

impl Inputs {
    /// The files that are read.
    #[must_use]
    pub fn files(&self) -> Vec<&Path> {
        let lists = self.lists.iter().map(|list| &list.file);
        let dumps = self.dumps.iter().map(|dump| &dump.file);
        lists.chain(dumps).chain(&self.geoip).map(PathBuf::as_path).collect()
    }
}

impl Loaded {
    /// Reads everything. It takes seconds where files are large: not for an async task.
    ///
    /// # Errors
    ///
    /// Every file that cannot be used; every rule, feed or country with a region that the topology does not have.
    pub fn read(inputs: &Inputs, topology: &Topology) -> Result<Self, InputsError> {
        let (loaded, problems) = Self::read_each(inputs, topology);
        if problems.is_empty() && loaded.missing.is_empty() {
            return Ok(loaded);
        }
        Err(InputsError([problems, loaded.missing].concat().join("\n")))
    }

    /// As [`Loaded::read`], without the files that cannot be used: see [`Loaded::missing`].
    ///
    /// # Errors
    ///
    /// What is wrong with what the config says itself.
    pub fn read_partly(inputs: &Inputs, topology: &Topology) -> Result<Self, InputsError> {
        let (loaded, problems) = Self::read_each(inputs, topology);
        if problems.is_empty() { Ok(loaded) } else { Err(InputsError(problems.join("\n"))) }
    }

    /// What can be read, and what is wrong with the config.
    fn read_each(inputs: &Inputs, topology: &Topology) -> (Self, Vec<String>) {
        let (regions, mut problems, mut missing) = (Regions::of(topology), Vec::new(), Vec::new());
        problems.extend(geoip::check_countries(&inputs.countries, &regions).err().map(|GeoipError(why)| why));
        let rules = Rules::check(&inputs.rules, &inputs.origins, &regions).unwrap_or_else(|error| {
            problems.push(error.0);
            Rules::default()
        });
        problems.extend(check_regions(inputs, &regions));
        let listed = Listed::read(&inputs.lists, inputs.lists_agree, &rules, &regions, &mut missing);
        let limits = dumps::limits(inputs.limits);
        let dumped = dumps::read(&inputs.dumps, &inputs.origins, &rules, limits, &mut missing);
        let mut files = Vec::with_capacity(inputs.geoip.len());
        for path in &inputs.geoip {
            match Geoip::load(path) {
                Ok(file) => files.push((path.display().to_string(), Arc::new(file))),
                Err(GeoipError(why)) => missing.push(why),
            }
        }
        // Countries that are wrong would only be told twice.
        let base = if problems.is_empty() { base(inputs, &files, &regions) } else { Ok(Base::default()) };
        let base = base.unwrap_or_else(|InputsError(why)| {
            missing.push(why);
            Base::default()
        });
        let mut ruled: Vec<IpNet> = rules.prefixes().collect();
        ruled.sort_unstable();
        let (inputs, topology_version, dumped) = (inputs.clone(), topology.version, Arc::new(dumped));
        let idle = idle(topology);
        let (geoip, kept) = (files, BTreeSet::new());
        (
            Self { inputs, regions, topology_version, idle, rules, ruled, listed, dumped, geoip, base, missing, kept },
            problems,
        )
    }

    /// Files that cannot be used, and why; none when all was read. Then the table is what was saved: what is known without
    /// them would move their clients.
    #[must_use]
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// What of the sources does not count, a line each.
    #[must_use]
    pub fn left_out(&self) -> Vec<String> {
        let lists = self.listed.files.iter().map(|list| (&list.file, list.left_out()));
        let dumps = self.dumped.files.iter().map(|dump| (&dump.file, dump.left_out()));
        let files = lists.chain(dumps).filter_map(|(file, what)| Some(format!("{file}: {}", what?)));
        let idle = self.idle.iter().map(|region| format!("region {region}: {IDLE}"));
        files.chain(idle).collect()
    }

    /// Says why it is not whole, if no file of it does.
    pub(crate) fn lacks(&mut self, why: &str) {
        if self.missing.is_empty() {
            self.missing.push(why.to_owned());
        }
    }

    /// Of these files what the engine has counts further, and not what was read; of dumps, all of them.
    pub(crate) fn keep(&mut self, files: BTreeSet<String>) {
        self.kept = files;
    }

    /// Takes what is kept from the load in use.
    pub(super) fn keep_of(&mut self, before: &Self) {
        if self.kept.is_empty() {
            return;
        }
        self.listed.keep(&before.listed, &self.kept, &self.regions);
        if before.dumped.files.iter().any(|dump| self.kept.contains(&dump.file)) {
            self.dumped = Arc::clone(&before.dumped);
        }
        let mut bakes = false;
        for (path, file) in self.geoip.iter_mut().filter(|(path, _)| self.kept.contains(path)) {
            if let Some((_, old)) = before.geoip.iter().find(|(known, _)| known == path) {
                (*file, bakes) = (Arc::clone(old), true);
            }
        }
        if bakes {
            self.base = base(&self.inputs, &self.geoip, &self.regions).unwrap_or_else(|_| before.base.clone());
        }
    }

    /// How much each source says, by name: a file and a family, or "the config" for what it names itself, all of it and by kind.
    #[must_use]
    pub(crate) fn sizes(&self) -> BTreeMap<String, u64> {
        let of = &self.inputs;
        let kinds = [
            (": lists", of.lists.len()),
            (": dumps", of.dumps.len()),
            (": geoip files", of.geoip.len()),
            (": routers", of.feeds.len()),
            ("", of.lists.len() + of.dumps.len() + of.geoip.len() + of.feeds.len() + of.rules.len() + of.origins.len()),
        ];
        let named = kinds.into_iter().map(|(kind, count)| (format!("the config{kind}"), count as u64));
        let mut sizes: BTreeMap<String, u64> = named.collect();
        let lists = self.listed.sizes().map(|(file, size)| (file.to_owned(), size));
        let geoip = self.geoip.iter().map(|(path, file)| (path.clone(), file.known()));
        for (file, [v4, v6]) in lists.chain(self.dumped.sizes()).chain(geoip) {
            *sizes.entry(format!("{file} IPv4")).or_default() += v4;
            *sizes.entry(format!("{file} IPv6")).or_default() += v6;
        }
        sizes
    }

    /// The file that a name of [`Loaded::sizes`] is of; none for the config's.
    pub(crate) fn file_of(name: &str) -> Option<&str> {
        name.strip_suffix(" IPv4").or_else(|| name.strip_suffix(" IPv6"))
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
        self.geoip.iter().find_map(|(_, file)| file.position(address))
    }
}

fn check_regions(inputs: &Inputs, regions: &Regions) -> Vec<String> {
    let feeds = inputs.feeds.iter().map(|feed| (format!("router {}", feed.name), feed.region));
    let dumps = inputs.dumps.iter().filter_map(|dump| Some((format!("dump {}", dump.file.display()), dump.region?)));
    let unknown = |(what, region)| regions.known(region).err().map(|why| format!("{what}: {why}"));
    feeds.chain(dumps).filter_map(unknown).collect()
}

/// What geoip says, as the table takes it.
fn base(inputs: &Inputs, files: &[(String, Arc<Geoip>)], regions: &Regions) -> Result<Base, InputsError> {
    let mut whole = Ranges::default();
    for (path, file) in files {
        let refuse = |GeoipError(why)| InputsError(format!("{path}: {why}"));
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

/// Whether something is said of IPv6 itself: IPv4 that a file shows again does not hide another file's IPv6.
fn has_v6(ranges: &Ranges) -> bool {
    ranges.v6.iter().any(|(start, leaf)| *leaf != NOTHING && !geoip::shows_v4(*start))
}
