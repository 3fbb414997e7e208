//! Where the bytes of a missing file come from, in order. Pure.
//!
//! ```text
//!   request of a client at ...          sources
//!   a sun that does not keep the file   owner sun, its stand-in, caches that hold it, content server
//!   a sun that keeps it                 caches that hold it, content server
//!   a cache that does not hold it       owner sun, its stand-in, content server
//!   request of a server at a sun        caches that hold it, content server: never a sun (no ring)
//!   request of a server at a cache      nothing: "not held"
//! ```

use std::collections::HashSet;
use std::net::SocketAddr;

use geo::topology::{Region, Spread};
use geo::{CanonicalName, ContentId, Topology};

/// One place to ask.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// Another sun's internal listener.
    Sun {
        /// Its name.
        name: String,
        /// Its internal listener.
        address: SocketAddr,
    },
    /// A cache's internal listener; it answers only what it holds.
    Cache {
        /// Its name.
        name: String,
        /// Its internal listener.
        address: SocketAddr,
    },
    /// The content server that owns the file.
    ContentServer {
        /// Its number.
        number: u32,
        /// The file's address there.
        url: String,
    },
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// This server's name.
    pub me: &'a str,
    /// This server is a cache.
    pub cache: bool,
    /// The request came from a server: ask no sun.
    pub direct: bool,
    /// The file.
    pub name: &'a CanonicalName,
    /// The file's id.
    pub content: ContentId,
    /// How many first suns of its order keep it (hot files).
    pub spread: usize,
}

/// What is believed of the region's other servers.
pub trait Belief {
    /// Whether the server is worth asking.
    fn alive(&self, server: &str) -> bool;
    /// Whether the cache says that it holds the file.
    fn holds(&self, cache: &str, content: ContentId) -> bool;
}

/// The sources of a file; empty when its content server is not one of ours (404) or this server is not in
/// the topology.
#[must_use]
pub fn sources(question: Question<'_>, topology: &Topology, belief: &impl Belief) -> Vec<Source> {
    let Some(url) = topology.content_servers.url_of(question.name) else {
        return Vec::new();
    };
    let region = topology.server(question.me).and_then(|server| topology.region(server.region));
    let mut sources = Vec::new();
    if let Some(region) = region {
        if !question.direct {
            sources.extend(suns(question, topology, region, belief));
        }
        if !question.cache {
            sources.extend(caches(question, region, belief));
        }
    }
    sources.push(Source::ContentServer { number: question.name.content_server(), url });
    sources
}

/// Living suns that come before this one in the file's order; none if it is among those that keep the file.
fn suns(question: Question<'_>, topology: &Topology, region: &Region, belief: &impl Belief) -> Vec<Source> {
    let order = region.sun_order(question.content);
    let keepers = match topology.class_of(question.name).spread {
        Spread::All => order.len(),
        Spread::Auto => question.spread.max(1),
    };
    let alive = order
        .into_iter()
        .map(|sun| &sun.server)
        .filter(|server| server.name == question.me || belief.alive(&server.name))
        .collect::<Vec<_>>();
    if alive.iter().take(keepers).any(|server| server.name == question.me) {
        return Vec::new();
    }
    alive
        .into_iter()
        .take_while(|server| server.name != question.me)
        .take(SUNS_ASKED_MAX)
        .map(|server| Source::Sun { name: server.name.clone(), address: server.internal })
        .collect()
}

/// Living caches of the region that hold the file, in its order.
fn caches(question: Question<'_>, region: &Region, belief: &impl Belief) -> Vec<Source> {
    let mut seen = HashSet::new();
    region
        .cache_order(question.content)
        .into_iter()
        // A draining cache has no place in the order and is still asked for what it holds.
        .chain(&region.caches)
        .map(|cache| &cache.server)
        .filter(|server| belief.holds(&server.name, question.content) && belief.alive(&server.name))
        .filter(|server| seen.insert(server.name.as_str()))
        .take(CACHES_ASKED_MAX)
        .map(|server| Source::Cache { name: server.name.clone(), address: server.internal })
        .collect()
}

/// The owner and one stand-in: after two that fail, the content server is nearer than a third.
const SUNS_ASKED_MAX: usize = 2;
/// After two caches that do not answer, the content server is asked.
const CACHES_ASKED_MAX: usize = 2;

impl Source {
    /// For logs and metrics: "sun", "cache" or "origin".
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Sun { .. } => "sun",
            Self::Cache { .. } => "cache",
            Self::ContentServer { .. } => "origin",
        }
    }

    /// Whether its 404 is the last word: the content server's own, or that of a sun that has asked it.
    #[must_use]
    pub const fn authority(&self) -> bool {
        !matches!(self, Self::Cache { .. })
    }

    /// The name of one of ours.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        match self {
            Self::Sun { name, .. } | Self::Cache { name, .. } => Some(name),
            Self::ContentServer { .. } => None,
        }
    }
}
