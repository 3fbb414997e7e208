//! Which server a client is sent to for a file. Pure.
//!
//! ```text
//!   regions of the client, best first; in each:
//!     a living cache holds the file?   -> that cache, the less loaded of the first two in the file's order
//!     a living sun keeps files?        -> the owner; its stand-in when it is down;
//!                                         of the first r, when hot, of two drawn mostly the less busy
//!     neither                          -> the next region
//! ```
//!
//! Which regions those are, the resolver says; those where nobody can be named are passed over, and one that is
//! full comes last for a share of its clients ([`crate::saturation`]). Servers without a port for the link's scheme are passed over, draining ones (weight 0) too. When no region of
//! the client has anybody left, the file's owner in the first region is named all the same: what is known of who
//! lives may be wrong, and a link to a server that comes back beats none.

use std::net::IpAddr;

use geo::resolver::Standing;
use geo::topology::{Region, Server, Spread};
use geo::{CanonicalName, ContentId, NameError, Resolver, Scheme, Topology};

use crate::balance;
use crate::holdings::Holdings;
use crate::purge::Ledger;
use crate::status::View;
use crate::wire::{Explanation, Link};

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
}

impl Knowledge<'_> {
    /// Whether the cache has the file, and goes by the purges of it.
    fn holds(self, server: &Server, name: &CanonicalName, content: ContentId) -> bool {
        self.holdings.holds(&server.name, content.prefix())
            && !self.purges.doubted(&server.name, server.region, name.as_str(), content)
    }
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
}

/// Makes one link. `draw` gives random numbers below its argument, for the power of two choices.
pub fn link(
    knowledge: Knowledge<'_>,
    visitor: &Visitor<'_>,
    file: &str,
    explain: bool,
    draw: &mut impl FnMut(usize) -> usize,
) -> Link {
    let name = match parse(file, knowledge.topology) {
        Ok(name) => name,
        Err(error) => {
            return Link { file: file.to_owned(), url: None, server: None, error: Some(error), explain: None };
        }
    };
    let Some(choice) = choose(knowledge, visitor, &name, draw) else {
        let error = format!("no server of the client's regions has a port for {:?} links", visitor.scheme);
        return Link { file: file.to_owned(), url: None, server: None, error: Some(error), explain: None };
    };
    Link {
        file: file.to_owned(),
        url: choice.server.link(visitor.scheme, &name),
        server: Some(choice.server.name.clone()),
        error: None,
        explain: explain.then(|| explanation(knowledge, visitor, &name, &choice)),
    }
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

/// A server and why.
struct Choice<'a> {
    region: &'a Region,
    server: &'a Server,
    reason: String,
}

fn choose<'a>(
    knowledge: Knowledge<'a>,
    visitor: &Visitor<'a>,
    name: &CanonicalName,
    draw: &mut impl FnMut(usize) -> usize,
) -> Option<Choice<'a>> {
    for &region in &visitor.regions {
        if let Some(server) = holder(knowledge, visitor, region, name) {
            return Some(Choice { region, server, reason: "held by a cache".to_owned() });
        }
        if let Some(choice) = sun(knowledge, visitor, region, name, draw) {
            return Some(choice);
        }
    }
    let content = name.content_id();
    visitor.regions.iter().find_map(|&region| {
        let mut order = region.sun_order(content).into_iter().map(|sun| &sun.server);
        let server = order.find(|server| server.link(visitor.scheme, name).is_some())?;
        Some(Choice { region, server, reason: "owner, although no server is known to live".to_owned() })
    })
}

/// Of the first two living caches that hold the file, in its order, the less loaded.
fn holder<'a>(
    knowledge: Knowledge<'_>,
    visitor: &Visitor<'_>,
    region: &'a Region,
    name: &CanonicalName,
) -> Option<&'a Server> {
    let content = name.content_id();
    region
        .cache_order(content)
        .into_iter()
        .map(|cache| &cache.server)
        .filter(|server| knowledge.holds(server, name, content))
        .filter(|server| knowledge.view.linkable(server) && server.link(visitor.scheme, name).is_some())
        .take(2)
        .min_by(|a, b| knowledge.view.utilisation(a).total_cmp(&knowledge.view.utilisation(b)))
}

fn sun<'a>(
    knowledge: Knowledge<'_>,
    visitor: &Visitor<'_>,
    region: &'a Region,
    name: &CanonicalName,
    draw: &mut impl FnMut(usize) -> usize,
) -> Option<Choice<'a>> {
    let order = region.sun_order(name.content_id());
    let owner = order.first()?.server.name.clone();
    let living: Vec<&Server> = order
        .into_iter()
        .map(|sun| &sun.server)
        .filter(|server| knowledge.view.linkable(server) && server.link(visitor.scheme, name).is_some())
        .collect();
    let spread = spread(knowledge, region, name).min(living.len());
    if spread > 1 {
        let busy: Vec<f64> = living[..spread].iter().map(|server| knowledge.view.busy(server)).collect();
        let server = living[balance::choose(&busy, draw)];
        return Some(Choice { region, server, reason: format!("hot: one of {spread}") });
    }
    let server = *living.first()?;
    let reason = if server.name == owner { "owner".to_owned() } else { format!("stand-in: {owner} is not linked") };
    Some(Choice { region, server, reason })
}

fn spread(knowledge: Knowledge<'_>, region: &Region, name: &CanonicalName) -> usize {
    match knowledge.topology.class_of(name).spread {
        Spread::All => region.suns.len(),
        Spread::Auto => knowledge.view.spread(region, name.as_str()),
    }
}

fn explanation(
    knowledge: Knowledge<'_>,
    visitor: &Visitor<'_>,
    name: &CanonicalName,
    choice: &Choice<'_>,
) -> Explanation {
    let content = name.content_id();
    let holds = |server: &&Server| knowledge.holds(server, name, content);
    let caches = choice.region.caches.iter().map(|cache| &cache.server).filter(holds);
    Explanation {
        evidence: visitor.evidence.clone(),
        region: choice.region.id,
        suns: choice.region.sun_order(content).into_iter().map(|sun| sun.server.name.clone()).collect(),
        holders: caches.map(|server| server.name.clone()).collect(),
        spread: spread(knowledge, choice.region, name).max(1),
        reason: choice.reason.clone(),
    }
}

#[cfg(test)]
mod tests;
