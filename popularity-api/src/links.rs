//! Which server a client is sent to for a file. Pure.
//!
//! ```text
//!   regions of the client, best first; in each:
//!     a living cache holds the file?   -> that cache; of several, of two drawn by weight mostly the less loaded
//!     heavy, and content servers have a public name?   -> the content server itself
//!     a living sun keeps files?        -> the owner; its stand-in when it is down;
//!                                         of the first r, when hot, of two drawn mostly the less busy
//!     none of these                    -> the next region
//! ```
//!
//! Which regions those are, the resolver says; those where nobody can be named are passed over, and one that is
//! full comes last for a share of its clients ([`crate::saturation`]). Servers without a port for the link's scheme are passed over, draining ones (weight 0) too. When no region of
//! the client has anybody left, the file's owner in the first region is named all the same: what is known of who
//! lives may be wrong, and a link to a server that comes back beats none.
//!
//! A [`Maker`] looks at the servers once for all files of a call; what is left for each file is its name and id, its class,
//! a look at the holdings of each cache of the region, and the owner (`tests/bench/links`). [`bulk`] writes what it makes.
//!
//! A file whose class is signed is never sent to its content server, which knows nothing of signatures.

pub mod bulk;

use std::fmt;
use std::net::IpAddr;

use geo::resolver::Standing;
use geo::topology::{Class, Kind, Region, Server, SignedLinks, Spread};
use geo::{CanonicalName, ContentId, NameError, Resolver, Scheme, Topology};

use crate::balance;
use crate::holdings::{Held, Holdings};
use crate::purge::Ledger;
use crate::signing::{self, Signer};
use crate::status::View;
use crate::wire::{Explanation, HeldBy, Holder, Link, SignedBy};

/// What links are made from.
#[derive(Clone, Copy, Debug)]
pub struct Knowledge<'a> {
    /// The topology.
    pub topology: &'a Topology,
    /// What caches hold.
    pub holdings: &'a Holdings,
    /// Who lives, how loaded, what is hot.
    pub view: View<'a>,
    /// What was purged.
    pub purges: &'a Ledger,
    /// What signs; none when this server has no key that the topology accepts.
    pub signer: Option<Signer<'a>>,
    /// Seconds since 1970, for when signed links expire.
    pub now_s: u64,
}

/// The client of one request for links.
#[derive(Clone, Debug)]
pub struct Visitor<'a> {
    /// Its regions that the topology has, best first, at least one.
    pub regions: Vec<&'a Region>,
    /// What told them.
    pub evidence: String,
    /// Scheme of its links.
    pub scheme: Scheme,
}

impl<'a> Visitor<'a> {
    /// Resolves a client, by how regions stand.
    #[must_use]
    pub fn new(client: IpAddr, scheme: Scheme, resolver: &Resolver, topology: &'a Topology, view: View<'_>) -> Self {
        let standing = |id| topology.region(id).map_or(Standing::Down, |region| view.standing(region, scheme, client));
        let resolution = resolver.resolve_with(client, standing);
        let mut regions: Vec<&Region> = resolution.regions.iter().filter_map(|&id| topology.region(id)).collect();
        if regions.is_empty() {
            // The table is a moment older than a topology that lost the region.
            regions.extend(topology.region(topology.default_region));
        }
        Self { regions, evidence: resolution.evidence.to_string(), scheme }
    }

    /// The same, whose evidence says as well which regions would come first and are passed over, and why.
    #[must_use]
    pub fn with_whom_it_misses(self, client: IpAddr, resolver: &Resolver, topology: &Topology, view: View<'_>) -> Self {
        let stands_in = self.regions.first().map(|region| region.id);
        let by_itself = resolver.resolve(client).regions;
        let before = by_itself.iter().take_while(|&&id| Some(id) != stands_in);
        let missed = before.filter_map(|&id| {
            let why = match view.standing(topology.region(id)?, self.scheme, client) {
                Standing::Down => "no server of it can be linked",
                Standing::Saturated => "it is full, and sends this client on",
                Standing::Live => return None,
            };
            Some(format!("; region {id} comes first, and {why}"))
        });
        let evidence = self.evidence.clone() + &missed.collect::<String>();
        Self { evidence, ..self }
    }
}

/// Makes the links of one call.
#[derive(Debug)]
pub struct Maker<'a> {
    knowledge: Knowledge<'a>,
    visitor: &'a Visitor<'a>,
    /// The visitor's regions.
    places: Vec<Place<'a>>,
}

/// A region, looked at once.
#[derive(Debug)]
struct Place<'a> {
    region: &'a Region,
    /// As in the region.
    suns: Vec<Named<'a>>,
    caches: Vec<Named<'a>>,
}

/// A server that links may name.
#[derive(Debug)]
struct Named<'a> {
    server: &'a Server,
    /// What its links begin with; none: it has no port for the scheme.
    origin: Option<String>,
    /// It is alive, healthy, and has a port.
    linkable: bool,
    /// Relative to the mean of its kind in the region.
    busy: f64,
    /// A cache's holdings.
    held: Option<&'a Held>,
}

/// Where one link leads, and why.
#[derive(Debug)]
pub struct Choice<'a> {
    region: &'a Region,
    /// None: the content server itself.
    server: Option<&'a Named<'a>>,
    reason: Reason<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Reason<'a> {
    Held,
    Straight,
    Hot { spread: usize },
    Owner,
    StandIn { owner: &'a str },
    NobodyLives,
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held => f.write_str("held by a cache"),
            Self::Straight => {
                f.write_str("heavy, and held by no cache of the region: straight from its content server")
            }
            Self::Hot { spread } => write!(f, "hot: one of {spread}"),
            Self::Owner => f.write_str("owner"),
            Self::StandIn { owner } => write!(f, "stand-in: {owner} is not linked"),
            Self::NobodyLives => f.write_str("owner, although no server is known to live"),
        }
    }
}

impl<'a> Maker<'a> {
    /// Looks at the servers of the visitor's regions.
    #[must_use]
    pub fn new(knowledge: Knowledge<'a>, visitor: &'a Visitor<'a>) -> Self {
        let places = visitor.regions.iter().map(|region| Place::new(knowledge, region, visitor.scheme)).collect();
        Self { knowledge, visitor, places }
    }

    /// Makes one link. `draw` gives random numbers below its argument, for the power of two choices.
    pub fn link(&self, file: &str, explain: bool, draw: &mut impl FnMut(usize) -> usize) -> Link {
        let mut url = Vec::new();
        let made = parse(file, self.knowledge.topology).and_then(|name| {
            let (class, content) = (self.knowledge.topology.class_of(&name), name.content_id());
            let choice = self.choose(&name, content, class, draw)?;
            self.write_url(&choice, class, &name, &mut url)?;
            Ok((name, content, choice))
        });
        match made {
            Err(error) => Link { file: file.to_owned(), url: None, server: None, error: Some(error), explain: None },
            Ok((name, content, choice)) => Link {
                file: file.to_owned(),
                url: Some(String::from_utf8_lossy(&url).into_owned()),
                server: Some(choice.server_name(&name)),
                error: None,
                explain: explain.then(|| self.explanation(&name, content, &choice)),
            },
        }
    }

    fn choose<'b>(
        &'b self,
        name: &CanonicalName,
        content: ContentId,
        class: &Class,
        draw: &mut impl FnMut(usize) -> usize,
    ) -> Result<Choice<'b>, String> {
        let straight = class.kind == Kind::Heavy && class.signed.is_none() && self.has_public_name();
        for place in &self.places {
            let region = place.region;
            if let Some(server) = place.holder(self.knowledge.purges, name, content, draw) {
                return Ok(Choice { region, server: Some(server), reason: Reason::Held });
            }
            if straight {
                return Ok(Choice { region, server: None, reason: Reason::Straight });
            }
            if let Some(choice) = self.sun(place, name, content, class, draw) {
                return Ok(choice);
            }
        }
        let listed = |place: &'b Place<'a>| {
            let mut order = place.region.sun_places(content).into_iter().map(|index| &place.suns[index]);
            let server = order.find(|server| server.origin.is_some())?;
            Some(Choice { region: place.region, server: Some(server), reason: Reason::NobodyLives })
        };
        self.places
            .iter()
            .find_map(listed)
            .ok_or_else(|| format!("no server of the client's regions has a port for {:?} links", self.visitor.scheme))
    }

    /// Whether content servers have a public name for the scheme.
    fn has_public_name(&self) -> bool {
        let public = self.knowledge.topology.content_servers.public.as_deref();
        public.is_some_and(|url| self.visitor.scheme == Scheme::Http || url.starts_with("https://"))
    }

    fn sun<'b>(
        &self,
        place: &'b Place<'a>,
        name: &CanonicalName,
        content: ContentId,
        class: &Class,
        draw: &mut impl FnMut(usize) -> usize,
    ) -> Option<Choice<'b>> {
        let region = place.region;
        let spread = self.spread(region, class, name);
        let owner = &place.suns[region.owner_place(content)?];
        if spread <= 1 && owner.linkable {
            return Some(Choice { region, server: Some(owner), reason: Reason::Owner });
        }
        let order = region.sun_places(content).into_iter().map(|index| &place.suns[index]);
        let living: Vec<&Named<'_>> = order.filter(|sun| sun.linkable).collect();
        let spread = spread.min(living.len());
        if spread > 1 {
            let busy: Vec<f64> = living[..spread].iter().map(|sun| sun.busy).collect();
            let server = Some(living[balance::choose(&busy, draw)]);
            return Some(Choice { region, server, reason: Reason::Hot { spread } });
        }
        let server = *living.first()?;
        let same = server.server.name == owner.server.name;
        let reason = if same { Reason::Owner } else { Reason::StandIn { owner: &owner.server.name } };
        Some(Choice { region, server: Some(server), reason })
    }

    fn spread(&self, region: &Region, class: &Class, name: &CanonicalName) -> usize {
        match class.spread {
            Spread::All => region.suns.len(),
            Spread::Auto => self.knowledge.view.spread(region, name.as_str()),
        }
    }

    /// Appends the file's address, signed if its class says so.
    fn write_url(
        &self,
        choice: &Choice<'_>,
        class: &Class,
        name: &CanonicalName,
        url: &mut Vec<u8>,
    ) -> Result<(), String> {
        let Some(server) = choice.server else {
            let public = self.knowledge.topology.content_servers.public_url_of(self.visitor.scheme, name);
            url.extend_from_slice(public.ok_or("the content server has no public name")?.as_bytes());
            return Ok(());
        };
        let origin = server.origin.as_ref().ok_or("the server has no port for the scheme")?.as_bytes();
        match class.signed {
            None => {
                url.extend_from_slice(origin);
                url.push(b'/');
                url.extend_from_slice(name.as_str().as_bytes());
            }
            Some(links) => {
                let signer = self.knowledge.signer.ok_or_else(|| no_key(class))?;
                url.extend_from_slice(origin);
                signer.write_path(url, name.as_str(), links.covers, signing::expiry(links, self.knowledge.now_s));
            }
        }
        Ok(())
    }

    fn explanation(&self, name: &CanonicalName, content: ContentId, choice: &Choice<'_>) -> Explanation {
        let class = self.knowledge.topology.class_of(name);
        let holders = self.places.iter().filter(|place| place.region.id == choice.region.id);
        let holders = holders.flat_map(|place| &place.caches);
        let holders = holders.filter(|cache| cache.holds(self.knowledge.purges, name, content));
        Explanation {
            evidence: self.visitor.evidence.clone(),
            region: choice.region.id,
            suns: choice.region.sun_order(content).into_iter().map(|sun| sun.server.name.clone()).collect(),
            holders: holders.map(|cache| cache.server.name.clone()).collect(),
            spread: self.spread(choice.region, class, name).max(1),
            reason: choice.reason.to_string(),
            signed: class.signed.and_then(|links| self.signed_by(links, name)),
        }
    }

    fn signed_by(&self, links: SignedLinks, name: &CanonicalName) -> Option<SignedBy> {
        let key = self.knowledge.signer?.key_id().to_owned();
        let expires_s = signing::expiry(links, self.knowledge.now_s);
        Some(SignedBy { key, expires_s, covers: signing::covered(name.as_str(), links.covers) })
    }
}

impl<'a> Place<'a> {
    fn new(knowledge: Knowledge<'a>, region: &'a Region, scheme: Scheme) -> Self {
        let view = knowledge.view;
        let named = |server: &'a Server, busy: f64, held: Option<&'a Held>| {
            let origin = server.origin(scheme);
            Named { server, linkable: origin.is_some() && view.linkable(server), origin, busy, held }
        };
        let suns = region.suns.iter().map(|sun| named(&sun.server, view.busy(&sun.server), None));
        let caches = region.caches.iter().map(|cache| {
            let server = &cache.server;
            named(server, view.utilisation(server), knowledge.holdings.of(&server.name))
        });
        let (suns, mut caches): (Vec<_>, Vec<_>) = (suns.collect(), caches.collect());
        relate(&mut caches);
        Self { region, suns, caches }
    }

    /// A living cache that holds the file.
    fn holder<'b>(
        &'b self,
        purges: &Ledger,
        name: &CanonicalName,
        content: ContentId,
        draw: &mut impl FnMut(usize) -> usize,
    ) -> Option<&'b Named<'a>> {
        let may = |cache: &&Named<'_>| cache.linkable && cache.server.weight.get() > 0;
        let mut holders = self.caches.iter().filter(may).filter(|cache| cache.holds(purges, name, content));
        let first = holders.next()?;
        let Some(second) = holders.next() else { return Some(first) };
        let all: Vec<&Named<'_>> = [first, second].into_iter().chain(holders).collect();
        let choices: Vec<(u16, f64)> = all.iter().map(|cache| (cache.server.weight.get(), cache.busy)).collect();
        Some(all[balance::choose_weighted(&choices, draw)])
    }
}

impl Named<'_> {
    /// Whether the cache has the file, and goes by the purges of it.
    fn holds(&self, purges: &Ledger, name: &CanonicalName, content: ContentId) -> bool {
        self.held.is_some_and(|held| held.holds(content.prefix()))
            && !purges.doubted(&self.server.name, self.server.region, name.as_str(), content)
    }
}

impl Choice<'_> {
    /// What answers call it: a server's name, or `content server 7`.
    fn server_name(&self, name: &CanonicalName) -> String {
        self.server
            .map_or_else(|| format!("content server {}", name.content_server()), |named| named.server.name.clone())
    }
}

/// Makes the utilisation of caches relative to their mean; while there is hardly any they are all alike.
fn relate(caches: &mut [Named<'_>]) {
    let (sum, count) = caches
        .iter()
        .filter(|cache| cache.linkable)
        .fold((0.0, 0.0), |(sum, count), cache| (sum + cache.busy, count + 1.0));
    let mean = if count > 0.0 { sum / count } else { 0.0 };
    for cache in caches {
        cache.busy = if mean < IDLE { 1.0 } else { cache.busy / mean };
    }
}

/// Makes one link; for several, a [`Maker`] looks at the servers only once.
pub fn link(
    knowledge: Knowledge<'_>,
    visitor: &Visitor<'_>,
    file: &str,
    explain: bool,
    draw: &mut impl FnMut(usize) -> usize,
) -> Link {
    Maker::new(knowledge, visitor).link(file, explain, draw)
}

/// Which caches hold a file, by region and name.
#[must_use]
pub fn held_by(
    topology: &Topology,
    holdings: &Holdings,
    purges: &Ledger,
    view: View<'_>,
    name: &CanonicalName,
) -> HeldBy {
    let content = name.content_id();
    let caches = topology.regions.iter().flat_map(|region| &region.caches).map(|cache| &cache.server);
    let holds = |server: &&Server| {
        holdings.holds(&server.name, content.prefix())
            && !purges.doubted(&server.name, server.region, name.as_str(), content)
    };
    let holder = |server: &Server| Holder {
        region: server.region,
        cache: server.name.clone(),
        linked: server.weight.get() > 0 && view.linkable(server),
    };
    HeldBy { file: name.as_str().to_owned(), caches: caches.filter(holds).map(holder).collect() }
}

/// A canonical name or a URL path, of a content server that is ours.
fn parse(file: &str, topology: &Topology) -> Result<CanonicalName, String> {
    let parsed = if file.starts_with('/') { CanonicalName::from_url_path(file) } else { CanonicalName::parse(file) };
    let name = parsed.map_err(|error: NameError| error.to_string())?;
    if topology.content_servers.allows(name.content_server()) {
        return Ok(name);
    }
    Err(format!("content server {} is not one of the topology's", name.content_server()))
}

fn no_key(class: &Class) -> String {
    format!("links to files of the class {} are signed, and this server has no key for it (signing_keys)", class.name)
}

/// Mean share of their network cards that a region's caches use, below which their load says nothing.
const IDLE: f64 = 0.01;

#[cfg(test)]
mod tests;
