//! What the operator wants: regions, groups, suns, caches, content servers, content classes and sites.
//!
//! ```text
//!   TOML text --toml, serde--> Document --check, every problem at once--> Topology
//!                 |                            |
//!       first problem, line and column      key, value and what is allowed
//! ```
//!
//! A [`Topology`] is always whole: every name it mentions exists, every number is in range, nothing is
//! there twice. So nobody who holds one checks anything again.

mod check;
mod classes;
mod document;
mod origin;
mod pattern;
mod problems;
mod servers;
mod signing;
mod sites;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::name::{CanonicalName, ContentId};
use crate::placement::{self, Candidate, Weight};
use crate::rest::{self, Rests};
use document::Document;
use pattern::Pattern;
pub use signing::{Covers, KEY_ID_BYTES_MAX, SignedLinks, Signing, is_key_id};

/// A region's number, the 4 of `sun4-2-1`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, serde::Serialize)]
#[serde(transparent)]
pub struct RegionId(pub u16);

/// As a number, with words of its own for one that is no region's.
impl<'de> serde::Deserialize<'de> for RegionId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        let region =
            u16::try_from(number).map_err(|_| format!("{number}: a region is a number from 0 to {}", u16::MAX));
        region.map(Self).map_err(serde::de::Error::custom)
    }
}

impl std::fmt::Display for RegionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One checked topology document.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Topology {
    /// Rises with every change.
    pub version: u64,
    /// What server names are prepended to, `example.org`.
    pub domain: String,
    /// The region of clients about whom nothing is known.
    pub default_region: RegionId,
    /// Where files come from.
    pub content_servers: ContentServers,
    /// Keys of signed links; there when a class signs.
    pub signing: Option<Signing>,
    /// In order of id.
    pub regions: Vec<Region>,
    /// In the document's order; the first whose pattern matches a file counts.
    pub classes: Vec<Class>,
    /// Hostnames that are mapped whole to a content server, in order of host.
    pub sites: Vec<Site>,
    /// Of files that no class matches.
    default_class: Class,
}

/// A hostname that is mapped whole to one content server: people put Sun before the origin they have without
/// changing a URL.
///
/// ```text
///   https://cdn.example.org/list?page=2  --site: content server 7-->  c7/list?page=2  --> http://cs7.storage.../list?page=2
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Site {
    /// Its hostname in lower case, without a port.
    pub host: String,
    /// The content server that has its files.
    pub content_server: u32,
    /// What that server is asked as (`Host`, RFC 9110, section 7.2), in lower case, without a port: the document's
    /// `origin_host`, or else the site's own host. All sites of a content server have the same.
    pub origin_host: String,
    /// In the document's order; the first whose pattern matches the path of a URL counts.
    pub classes: Vec<Class>,
    /// Of paths that no class matches.
    default_class: Class,
}

/// The origin: which content servers there are and where.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ContentServers {
    /// `http://cs{number}.storage.example.org`, or `https://`, with an optional port and path prefix.
    pub url: String,
    /// Inclusive ranges of allowed numbers, ascending, disjoint.
    pub numbers: Vec<(u32, u32)>,
    /// Where clients reach content servers themselves, `https://cs{number}.example.org`: links to heavy files that no cache
    /// of the client's region holds lead there. None: through the owner sun, as all others.
    pub public: Option<String>,
}

/// A place with suns and caches.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Region {
    /// Its number.
    pub id: RegionId,
    /// For people, "Moscow".
    pub name: String,
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
    /// Regions that take its clients over, best first.
    pub neighbours: Vec<RegionId>,
    /// In order of number.
    pub groups: Vec<Group>,
    /// In order of name.
    pub suns: Vec<Sun>,
    /// In order of name.
    pub caches: Vec<Cache>,
    sun_candidates: Vec<Candidate>,
    cache_candidates: Vec<Candidate>,
}

/// Suns that share a subnet and take over for each other.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Group {
    /// `sun4-2`.
    pub name: String,
    /// The 2 of `sun4-2`.
    pub number: u16,
    /// The addresses every member answers for.
    pub subnet: IpNet,
}

/// What suns and caches have in common.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Server {
    /// `sun4-2-1` or `cache4-1`; what placement hashes.
    pub name: String,
    /// `sun4-2-1.example.org`, what links name.
    pub host: String,
    /// The region it stands in.
    pub region: RegionId,
    /// Public addresses, at least one.
    pub addresses: Vec<IpAddr>,
    /// Port of links with `https`.
    pub https_port: u16,
    /// Port of links with `http`; without it there are none.
    pub http_port: Option<u16>,
    /// Where other servers reach it.
    pub internal: SocketAddr,
    /// Share of content as it is in effect: 0 while the server drains, less while it rests ([`crate::rest`]). What placement and
    /// links go by.
    pub weight: Weight,
    /// Share of content as the operator wrote it, kept while the server drains.
    pub weight_wanted: Weight,
    draining: bool,
    /// Network bandwidth, gigabits per second.
    pub nic_gbps: f64,
}

/// An edge proxy.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Sun {
    /// What it has in common with a cache.
    pub server: Server,
    /// The 2 of `sun4-2-1`.
    pub group: u16,
}

/// A regional cache.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Cache {
    /// What it has in common with a sun.
    pub server: Server,
    /// Disk it may fill, bytes.
    pub bytes: u64,
}

/// How files of one kind are treated.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Class {
    /// For people and metrics, "pictures".
    pub name: String,
    /// Patterns of canonical names, a site's of the paths of its URLs: `*` is any run of characters.
    pub paths: Vec<String>,
    /// Light content goes through the owner sun, heavy content is carried ahead.
    pub kind: Kind,
    /// How many suns of a region keep a file.
    pub spread: Spread,
    /// Who says how long a file is fresh.
    pub policy: Policy,
    /// How long a file is fresh, seconds; default a year, since files are immutable by convention. 0 under
    /// [`Policy::Rfc`], where responses say it.
    pub ttl_s: u64,
    /// How long an error is remembered instead of asking again, as (status, seconds), ascending. Default: 404 and
    /// 410 for [`NEGATIVE_TTL_S`] when immutable, nothing under [`Policy::Rfc`]. A status that is not here is
    /// remembered as long as the response itself says, under [`Policy::Rfc`] only.
    pub negative_ttl: Vec<(u16, u64)>,
    /// How long past its freshness a file is served while its content server fails (RFC 5861, section 4), seconds;
    /// 0 under [`Policy::Rfc`], where responses say it.
    pub stale_if_error_s: u64,
    /// How long past its freshness a file is served at once while it is asked about in the background (RFC 5861,
    /// section 3), seconds; 0 under [`Policy::Rfc`], where responses say it.
    pub stale_while_revalidate_s: u64,
    /// The query of a URL is no part of the file's name and goes no further. A site's classes only: under `/c...`
    /// that is so anyway.
    pub ignore_query: bool,
    /// Largest file that is cached, bytes; larger ones are passed through.
    pub file_bytes_max: u64,
    /// What clients may send to the content server; without it, nothing (405).
    pub uploads: Option<Uploads>,
    /// Which pages may read the files by script, and what of the headers.
    pub cors: Option<Cors>,
    /// Most of what all files may take of a sun's questions to one content server, of those that wait, and of the bytes that
    /// fills hold, 0.01..=1: the rest is kept for other classes. Default 0.75 for heavy content, 1 for light.
    pub share_max: f64,
    /// Its files are served to clients with signed links only, made so. None: links are plain.
    pub signed: Option<SignedLinks>,
    patterns: Vec<Pattern>,
}

/// Who says how long a file is fresh.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Policy {
    /// The class: a new version gets a new path. Of what a response says, `no-store` and `private` count.
    Immutable,
    /// The response, as RFC 9111 has it.
    Rfc,
}

/// Limits of what clients send to a content server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Uploads {
    /// Longest body, bytes; a longer one is a 413.
    pub bytes_max: u64,
    /// How fast one body is taken, bytes per second; 0: as fast as the content server takes it.
    pub bytes_per_second: u64,
}

/// Light or heavy content.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Pictures, documents.
    Light,
    /// Video, music.
    Heavy,
}

/// How many suns of a region keep a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spread {
    /// One, or more while it is hot.
    Auto,
    /// Every sun.
    All,
}

/// Cross-origin settings of a class (the Fetch standard's CORS protocol).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Cors {
    /// `*`, or exact origins, `https://example.org`.
    pub origins: Vec<String>,
    /// Response headers that scripts may read.
    pub expose_headers: Vec<String>,
}

/// Scheme of a link.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Plain.
    Http,
    /// TLS.
    #[default]
    Https,
}

impl Topology {
    /// Reads and checks a document as a whole.
    ///
    /// # Errors
    ///
    /// Every problem found, each with the key and value it is about and what is allowed. A text that is no
    /// TOML, a key that is unknown or missing and a value of another type are told alone, with line and
    /// column, since the rest of such a document means nothing yet.
    pub fn parse(text: &str) -> Result<Self, TopologyError> {
        if text.len() > DOCUMENT_BYTES_MAX {
            let problem = format!("{} bytes: a topology has at most {DOCUMENT_BYTES_MAX}", text.len());
            return Err(TopologyError { problems: vec![problem] });
        }
        let document: Document =
            toml::from_str(text).map_err(|error| TopologyError { problems: vec![problems::located(text, &error)] })?;
        check::check(&document).map_err(|problems| TopologyError { problems })
    }

    /// The same while some suns rest: they have a share of their weight.
    #[must_use]
    pub fn rested(&self, rests: &Rests) -> Self {
        let mut topology = self.clone();
        for region in &mut topology.regions {
            for sun in &mut region.suns {
                if let Some(&share) = rests.get(&sun.server.name) {
                    sun.server.weight = rest::rested(sun.server.weight, share);
                }
            }
            region.prepare();
        }
        topology
    }

    /// The region with this number.
    #[must_use]
    pub fn region(&self, id: RegionId) -> Option<&Region> {
        let index = self.regions.binary_search_by_key(&id, |region| region.id).ok()?;
        Some(&self.regions[index])
    }

    /// The sun with this name, `sun4-2-1`.
    #[must_use]
    pub fn sun(&self, name: &str) -> Option<&Sun> {
        self.regions.iter().flat_map(|region| &region.suns).find(|sun| sun.server.name == name)
    }

    /// The cache with this name, `cache4-1`.
    #[must_use]
    pub fn cache(&self, name: &str) -> Option<&Cache> {
        self.regions.iter().flat_map(|region| &region.caches).find(|cache| cache.server.name == name)
    }

    /// The sun or cache with this name.
    #[must_use]
    pub fn server(&self, name: &str) -> Option<&Server> {
        self.sun(name).map(|sun| &sun.server).or_else(|| self.cache(name).map(|cache| &cache.server))
    }

    /// The class of a file asked for under `/c...`: the first that matches, else the one named "default", which
    /// has the default of every setting. However the name is spelled: see the module `pattern`. Linear in the number of
    /// patterns and in the length of the name.
    #[must_use]
    pub fn class_of(&self, name: &CanonicalName) -> &Class {
        let name = pattern::form(name.without_query());
        let bare = pattern::without_parameters(&name);
        let matches = |class: &&Class| {
            // Who asks for /a.mp4;x may get /a.mp4, and is not to get it without a signature.
            let bare = bare.as_deref().filter(|_| class.signed.is_some());
            class.matches(&name) || bare.is_some_and(|bare| class.matches(bare))
        };
        self.classes.iter().find(matches).unwrap_or(&self.default_class)
    }

    /// The class of a file as it was asked for: by a site's URL, or under `/c...` when there is no site.
    #[must_use]
    pub fn class_for<'a>(&'a self, site: Option<&'a Site>, name: &CanonicalName) -> &'a Class {
        site.map_or_else(|| self.class_of(name), |site| site.class_of(name.path()))
    }

    /// What a content server that has sites is asked as (`Host`), whoever asks: a file is kept by content server and
    /// path, so there is one name to get it by. None: as what its URL says. Linear in the number of sites.
    #[must_use]
    pub fn origin_host(&self, content_server: u32) -> Option<&str> {
        let site = self.sites.iter().find(|site| site.content_server == content_server)?;
        Some(&site.origin_host)
    }

    /// The site of a hostname in any case, without a port.
    #[must_use]
    pub fn site(&self, host: &str) -> Option<&Site> {
        let lower = |byte: u8| byte.to_ascii_lowercase();
        let index = self.sites.binary_search_by(|site| site.host.bytes().cmp(host.bytes().map(lower))).ok()?;
        Some(&self.sites[index])
    }
}

impl Site {
    /// The class of a path, `/list`: the first that matches, else the one named "default", which has the policy
    /// [`Policy::Rfc`] and otherwise the default of every setting.
    #[must_use]
    pub fn class_of(&self, path: &str) -> &Class {
        let path = pattern::form(path);
        self.classes.iter().find(|class| class.matches(&path)).unwrap_or(&self.default_class)
    }
}

impl ContentServers {
    /// Whether the number is one of ours.
    #[must_use]
    pub fn allows(&self, number: u32) -> bool {
        self.numbers.iter().any(|&(first, last)| (first..=last).contains(&number))
    }

    /// Where the file is fetched from, or nothing when its content server is not one of ours (404).
    ///
    /// Nothing either for a site's path with dot segments where the template has a path prefix: the host behind it
    /// would resolve them into folders of other content servers.
    #[must_use]
    pub fn url_of(&self, name: &CanonicalName) -> Option<String> {
        let number = name.content_server().to_string();
        self.serves(name).then(|| format!("{}{}", self.url.replace("{number}", &number), name.path_and_query()))
    }

    /// A file's address for clients at its content server itself, where there is one and it has the scheme: a page that
    /// came with TLS follows no link without.
    #[must_use]
    pub fn public_url_of(&self, scheme: Scheme, name: &CanonicalName) -> Option<String> {
        let public = self.public.as_ref().filter(|url| scheme == Scheme::Http || url.starts_with("https://"))?;
        let number = name.content_server().to_string();
        self.serves(name).then(|| format!("{}{}", public.replace("{number}", &number), name.path_and_query()))
    }

    /// Whether [`ContentServers::url_of`] the file is anything.
    #[must_use]
    pub fn serves(&self, name: &CanonicalName) -> bool {
        self.allows(name.content_server()) && !(self.has_path_prefix() && name.has_dot_segment())
    }

    /// Whether all content servers stand behind one address, each in a folder of its own.
    fn has_path_prefix(&self) -> bool {
        self.url.strip_prefix("http://").is_some_and(|rest| rest.contains('/'))
    }
}

impl Region {
    /// Suns that keep the file, by content id and weight: owner first.
    #[must_use]
    pub fn sun_order(&self, content: ContentId) -> Vec<&Sun> {
        placement::order(content, &self.sun_candidates).into_iter().map(|index| &self.suns[index]).collect()
    }

    /// Caches in the order in which they are to carry the file.
    #[must_use]
    pub fn cache_order(&self, content: ContentId) -> Vec<&Cache> {
        placement::order(content, &self.cache_candidates).into_iter().map(|index| &self.caches[index]).collect()
    }

    /// The places in [`Region::suns`] of those that keep the file: owner first.
    #[must_use]
    pub fn sun_places(&self, content: ContentId) -> Vec<usize> {
        placement::order(content, &self.sun_candidates)
    }

    /// The place in [`Region::suns`] of the one that keeps the file.
    #[must_use]
    pub fn owner_place(&self, content: ContentId) -> Option<usize> {
        placement::owner(content, &self.sun_candidates)
    }

    /// The sun that keeps the file.
    #[must_use]
    pub fn owner(&self, content: ContentId) -> Option<&Sun> {
        placement::owner(content, &self.sun_candidates).map(|index| &self.suns[index])
    }

    /// Prepares placement by the weights as they are.
    fn prepare(&mut self) {
        let candidate = |server: &Server| Candidate::new(&server.name, server.weight);
        self.sun_candidates = self.suns.iter().map(|sun| candidate(&sun.server)).collect();
        self.cache_candidates = self.caches.iter().map(|cache| candidate(&cache.server)).collect();
    }

    /// The share of files, 0..=1, whose owner sun is another one in `after`, the same region at another time.
    #[must_use]
    pub fn suns_moved(&self, after: &Self) -> f64 {
        moved(self.suns.iter().map(|sun| &sun.server), after.suns.iter().map(|sun| &sun.server))
    }

    /// The share of files, 0..=1, whose first cache is another one in `after`, the same region at another time.
    #[must_use]
    pub fn caches_moved(&self, after: &Self) -> f64 {
        moved(self.caches.iter().map(|cache| &cache.server), after.caches.iter().map(|cache| &cache.server))
    }
}

impl Server {
    /// The address of a file on this server: `https://sun4-2-1.example.org/c100500/a.jpg`. The port is
    /// left out where it is the scheme's own. Nothing when the server has no port for the scheme.
    #[must_use]
    pub fn link(&self, scheme: Scheme, name: &CanonicalName) -> Option<String> {
        self.origin(scheme).map(|origin| format!("{origin}/{name}"))
    }

    /// What its links begin with: `https://sun4-2-1.example.org`, the port left out where it is the scheme's own.
    /// Nothing when the server has no port for the scheme.
    #[must_use]
    pub fn origin(&self, scheme: Scheme) -> Option<String> {
        let port = self.port(scheme)?;
        let (scheme, usual) = match scheme {
            Scheme::Https => ("https", 443),
            Scheme::Http => ("http", 80),
        };
        let host = &self.host;
        Some(if port == usual { format!("{scheme}://{host}") } else { format!("{scheme}://{host}:{port}") })
    }

    /// Whether the operator takes it out: it has no weight, whatever it had before.
    #[must_use]
    pub const fn draining(&self) -> bool {
        self.draining
    }

    /// Its port for links of a scheme; none when there are no such links.
    #[must_use]
    pub const fn port(&self, scheme: Scheme) -> Option<u16> {
        match scheme {
            Scheme::Https => Some(self.https_port),
            Scheme::Http => self.http_port,
        }
    }
}

impl Class {
    /// Whether there can be files of a content server in it, as far as its own patterns say.
    fn reaches(&self, content_server: u32) -> bool {
        let folder = format!("c{content_server}/");
        self.patterns.iter().any(|pattern| pattern.reaches(&folder))
    }

    /// Whether one of its patterns matches a name or path in the form of [`pattern::form`].
    fn matches(&self, name: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(name))
    }
}

/// Pairs two lists of servers by name and says what share of files moves between them.
fn moved<'a>(before: impl Iterator<Item = &'a Server>, after: impl Iterator<Item = &'a Server>) -> f64 {
    let mut weights: BTreeMap<&str, (Weight, Weight)> = BTreeMap::new();
    for server in before {
        weights.entry(&server.name).or_default().0 = server.weight;
    }
    for server in after {
        weights.entry(&server.name).or_default().1 = server.weight;
    }
    let (before, after): (Vec<Weight>, Vec<Weight>) = weights.into_values().unzip();
    placement::moved(&before, &after)
}

/// A document that is refused; prints one problem a line.
#[derive(Debug, thiserror::Error)]
#[error("{}", .problems.join("\n"))]
pub struct TopologyError {
    /// `sun[2] sun4-2-3: weight = 300: a weight is 0..=256`, counted from 0 as the document is written.
    pub problems: Vec<String>,
}

/// Longest document, bytes: some 30,000 servers.
pub const DOCUMENT_BYTES_MAX: usize = 8 << 20;

/// How long "there is no such file" is remembered under [`Policy::Immutable`], seconds: what the two largest
/// commercial CDNs take by default. A storm on a missing file reaches the content server every ten seconds; a file
/// that appears is seen as soon.
pub const NEGATIVE_TTL_S: u64 = 10;

/// Follows a topology file: an `Arc` that is replaced whole when a changed document checks.
pub type Watched = tokio::sync::watch::Receiver<Arc<Topology>>;

#[cfg(test)]
mod tests;
