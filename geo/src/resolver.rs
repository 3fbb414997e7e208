//! Which region a client is in.
//!
//! ```text
//!   client --IPv4-mapped? as IPv4--> longest listed prefix --none--> geoip record --none--> default region
//!                                        |                              |
//!                              its regions, then those      position: the nearest region
//!                              of the prefixes around it    country: as `countries` says
//!                                        +--------------+---------------+
//!                                                       v
//!                 those regions, then neighbours of the first, as they stand; at most four
//! ```
//!
//! Everything is read, checked and prepared when it is loaded, so that an answer is a lookup that cannot
//! fail, and a broken file is an error of the load, which leaves the running table in its place.
//!
//! # Invariants
//!
//! - An answer has 1..=4 regions of the topology that the table was made for, none twice.
//! - More specific evidence wins over less specific, and listed prefixes over geoip.

mod order;
mod remote;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::client::{Client, Server};
use crate::engine::{Inputs, InputsError, Loaded};
use crate::file::{Followed, Look};
use crate::follow::Metrics;
use crate::geoip;
use crate::lists::{self, Config as List};
use crate::regions::Regions;
use crate::route::SessionClass;
use crate::table::{Source, Table};
use crate::topology::{RegionId, Topology, Watched};
pub use order::{RegionList, Standing, place_among_clients};

/// Where the resolver's evidence is.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sources {
    /// Prefix lists: a line `prefix region` or `prefix,region`, `#` begins a comment; or another format of
    /// [`crate::lists`] with regions. Default none. A prefix that is listed twice with two regions is an error, in one
    /// file or in two.
    pub prefixes: Vec<PathBuf>,
    /// City or country files in MaxMind's format, one path or a list; IPv4 and IPv6 are each taken from the first that has
    /// it. Default none: addresses of no prefix are in the default region.
    #[serde(deserialize_with = "one_or_more")]
    pub geoip: Vec<PathBuf>,
    /// The region of a country, for geoip records without a position: `RU = 4`, by ISO 3166-1 code. Default
    /// none: such clients are in the default region. With too few, so are those of the countries
    /// left out; a position always comes first, so too many do no harm.
    pub countries: BTreeMap<String, RegionId>,
    /// A geo server whose table is followed, instead of all of the above: `url`, `token_file`. Default none. While it is
    /// away, its last table counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Server>,
}

impl Sources {
    /// A server's table is all or nothing.
    fn check(&self) -> Result<(), ResolverError> {
        let files = !self.prefixes.is_empty() || !self.geoip.is_empty() || !self.countries.is_empty();
        if self.server.is_some() && files {
            let why =
                "geo: a server is all the evidence there is: leave out prefixes, geoip and countries, or the server";
            return Err(ResolverError(why.to_owned()));
        }
        Ok(())
    }

    fn inputs(&self) -> Inputs {
        let list = |file: &PathBuf| List { file: file.clone(), values: None, class: SessionClass::Private };
        Inputs {
            lists: self.prefixes.iter().map(list).collect(),
            lists_agree: true,
            geoip: self.geoip.clone(),
            countries: self.countries.clone(),
            ..Inputs::default()
        }
    }
}

/// `"file"` or `["file", "file"]`.
fn one_or_more<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    #[derive(serde::Deserialize)]
    #[serde(untagged, expecting = "a path or a list of paths")]
    enum Paths {
        One(PathBuf),
        More(Vec<PathBuf>),
    }
    Ok(match serde::Deserialize::deserialize(deserializer)? {
        Paths::One(path) => vec![path],
        Paths::More(paths) => paths,
    })
}

/// A table of evidence; cheap to share, replaced whole.
#[derive(Clone, Debug)]
pub struct Resolver {
    table: Arc<Table>,
    regions: Regions,
}

/// The regions that serve a client, best first, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resolution {
    /// At least one, at most four.
    pub regions: RegionList,
    /// What decided the first.
    pub evidence: Evidence,
}

/// What told the region.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Evidence {
    /// An operator's rule for the prefix.
    Rule(IpNet),
    /// The most specific prefix that is heard or listed and has a region to serve from.
    Prefix(IpNet),
    /// The geoip file: the nearest region, or that of the country. The country's code, where the file tells one.
    Geoip(Option<[u8; 2]>),
    /// Nothing is known.
    Default,
}

/// "rule 127.1.0.0/16", "prefix 127.1.0.0/16", "geoip RU", "geoip", "default".
impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(prefix) => write!(f, "rule {prefix}"),
            Self::Prefix(prefix) => write!(f, "prefix {prefix}"),
            Self::Geoip(Some([a, b])) => write!(f, "geoip {}{}", char::from(*a), char::from(*b)),
            Self::Geoip(None) => f.write_str("geoip"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// As it prints.
impl serde::Serialize for Evidence {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Resolver {
    /// Reads the sources. It reads files and takes up to seconds where they are large: not for an
    /// async task. A server is not asked: nothing is known then.
    ///
    /// # Errors
    ///
    /// The file, the line and what is wrong there; a region the topology does not have.
    pub fn load(sources: &Sources, topology: &Topology) -> Result<Self, ResolverError> {
        sources.check()?;
        if let Some(server) = &sources.server {
            Client::new(server).map_err(|error| ResolverError(error.to_string()))?;
        }
        let loaded = Loaded::read(&sources.inputs(), topology)?;
        if let Some(list) = loaded.list_of_origins() {
            return Err(ResolverError(format!("{list}: it lists ASes, and only a geo server has their regions")));
        }
        Ok(loaded.resolver())
    }

    /// Answers from a table, for the regions of a topology. Regions of the table that are not among them are passed
    /// over.
    #[must_use]
    pub const fn new(table: Arc<Table>, regions: Regions) -> Self {
        Self { table, regions }
    }

    /// The table.
    #[must_use]
    pub const fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The regions of an address, as if all of them were live. An IPv4 address in IPv6's clothes (`::ffff:192.0.2.1`)
    /// is an IPv4 address.
    #[must_use]
    pub fn resolve(&self, client: IpAddr) -> Resolution {
        self.resolve_with(client, |_| Standing::Live)
    }

    /// The regions of an address as they stand: those that are down are passed over, saturated ones come last. Where
    /// nobody is live, the answer is that of [`Resolver::resolve`].
    #[must_use]
    pub fn resolve_with(&self, client: IpAddr, standing: impl Fn(RegionId) -> Standing) -> Resolution {
        let table = &*self.table;
        let client = client.to_canonical();
        let found = table.lookup(client);
        let chain =
            std::iter::successors(found.filter(|found| found.is_prefix()), |found| table.covering(client, *found));
        let chain = chain.map(|found| (found, table.leaf(found)));
        let base = || table.base(client).map(|found| (found, table.leaf(found)));
        let (regions, told) = order::order(client, &self.regions, &chain, base, standing);
        let evidence = told.map(|found| (table.prefix(client, found), &table.leaf(found).source));
        let evidence = match evidence {
            Some((Some(prefix), Source::Rule)) => Evidence::Rule(prefix),
            Some((Some(prefix), _)) => Evidence::Prefix(prefix),
            Some((None, Source::Geoip(country))) => Evidence::Geoip(*country),
            Some((None, _)) | None => Evidence::Default,
        };
        Resolution { regions, evidence }
    }
}

/// The sources cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ResolverError(pub String);

impl From<InputsError> for ResolverError {
    fn from(InputsError(why): InputsError) -> Self {
        Self(why)
    }
}

/// Loads the resolver and follows its files and the topology (every second); a source that turns bad is
/// refused with one WARN and the running table stays. A changed file is in use within three seconds. The
/// task ends when the table is dropped. Of a server's table, `copy` is the file of the last good one, and `registry` gets
/// the metrics of following it.
///
/// # Errors
///
/// When the sources are bad at the start.
pub async fn follow(
    sources: Sources,
    topology: Watched,
    copy: Option<PathBuf>,
    registry: &prometheus::Registry,
) -> Result<Arc<ArcSwap<Resolver>>, ResolverError> {
    sources.check()?;
    if let Some(server) = &sources.server {
        let metrics = Metrics::register(registry).map_err(|error| ResolverError(error.to_string()))?;
        return remote::follow(server, copy, topology, metrics).await;
    }
    let mut following = Following::of(sources, topology);
    let (following, resolver) = tokio::task::spawn_blocking(move || {
        let resolver = following.start();
        (following, resolver)
    })
    .await
    .map_err(|error| ResolverError(error.to_string()))?;
    let shared = Arc::new(ArcSwap::from_pointee(resolver?));
    tokio::spawn(run(following, Arc::downgrade(&shared)));
    Ok(shared)
}

/// Looks at the sources until nobody holds the table.
async fn run(mut following: Following, shared: Weak<ArcSwap<Resolver>>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if shared.strong_count() == 0 {
            return;
        }
        let looked = tokio::task::spawn_blocking(move || {
            let resolver = following.look(SystemTime::now());
            (following, resolver)
        });
        // Fails only while the process shuts down.
        let Ok((again, resolver)) = looked.await else { return };
        following = again;
        if let (Some(resolver), Some(shared)) = (resolver, shared.upgrade()) {
            shared.store(Arc::new(resolver));
        }
    }
}

/// The sources, their files and what the table was made for.
#[derive(Debug)]
struct Following {
    sources: Sources,
    topology: Watched,
    files: Vec<Followed>,
    /// What the last load, good or bad, was made for.
    regions: Regions,
    /// Why the last load failed; said already.
    said: Option<String>,
}

impl Following {
    fn of(sources: Sources, topology: Watched) -> Self {
        let prefixes = sources.prefixes.iter().map(|path| Followed::new(path.clone(), lists::FILE_BYTES_MAX));
        let geoip = sources.geoip.iter().map(|path| Followed::new(path.clone(), geoip::FILE_BYTES_MAX));
        let files = prefixes.chain(geoip).collect();
        let regions = Regions::of(&topology.borrow());
        Self { sources, topology, files, regions, said: None }
    }

    fn start(&mut self) -> Result<Resolver, ResolverError> {
        for file in &mut self.files {
            // What cannot be read is an error of the load, which names it.
            let _ = file.take();
        }
        Resolver::load(&self.sources, &self.topology.borrow())
    }

    /// A new table, when a file or the topology's regions changed and all of it can be used.
    fn look(&mut self, now: SystemTime) -> Option<Resolver> {
        let topology = Arc::clone(&self.topology.borrow());
        let regions = Regions::of(&topology);
        let mut changed = regions != self.regions;
        let mut unreadable = None;
        for file in &mut self.files {
            match file.look(now) {
                Look::Same | Look::Unsettled => {}
                Look::Changed(_) | Look::Back => changed = true,
                Look::Unreadable(why) => unreadable = Some(format!("{}: {why}", file.path().display())),
            }
        }
        let loaded = match unreadable {
            Some(why) => Err(ResolverError(why)),
            None if changed => {
                self.regions = regions;
                Resolver::load(&self.sources, &topology)
            }
            None => return None,
        };
        match loaded {
            Ok(resolver) => {
                tracing::info!("the regions of clients are read anew");
                self.said = None;
                Some(resolver)
            }
            Err(ResolverError(why)) => {
                if self.said.as_ref() != Some(&why) {
                    tracing::warn!(%why, "the regions of clients cannot be read anew; the running table stays");
                    self.said = Some(why);
                }
                None
            }
        }
    }
}

const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
