//! What the demo runs and where: pure, so that ports, names and documents can be read in one place.
//!
//! ```text
//!   region 4                                      region 5
//!   group sun4-2, 127.0.4.0/26                    group sun5-1, 127.0.5.0/26
//!   sun4-2-1 (100)  sun4-2-2 (60)  sun4-2-3 (30)  sun5-1-1 (100)
//!   cache4-1                                      cache5-1
//!   clients 127.4.0.0/16, and everyone else       clients 127.5.0.0/16
//!
//!   port   base: gallery     base + 10: https \
//!          +  1: content     base + 11: http   | of the first server;
//!          +  2: API         base + 12: inside | 20..23 of the second, and so on
//!          +  3: its admin   base + 13: admin /
//! ```

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// One sun or cache of the demo.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Node {
    /// Its name in the topology.
    pub name: &'static str,
    /// A cache, or else a sun.
    pub is_cache: bool,
    /// Its region.
    pub region: u16,
    /// The address the topology names, on loopback; it listens on 127.0.0.1 as well, which is what names
    /// under `localhost` mean to browsers and to curl.
    pub address: Ipv4Addr,
    /// Share of content.
    pub weight: u16,
    slot: u16,
}

/// All suns and caches.
pub const NODES: [Node; 6] = [
    sun("sun4-2-1", 4, 1, 100, 1),
    sun("sun4-2-2", 4, 2, 60, 2),
    sun("sun4-2-3", 4, 3, 30, 3),
    cache("cache4-1", 4, 4),
    sun("sun5-1-1", 5, 1, 100, 5),
    cache("cache5-1", 5, 6),
];

/// Number and name of each region.
pub const REGIONS: [(u16, &str); 2] = [(4, "Moscow"), (5, "Novosibirsk")];

/// Name under which all servers are; every name below it means this machine (RFC 6761, section 6.3).
pub const DOMAIN: &str = "localhost";

/// Which client addresses are in which region, as a prefix list of the geo crate.
pub const PREFIXES: &str = "\
# Clients of the demo: prefix, region. Anyone else is in the topology's default region.
127.4.0.0/16 4
127.5.0.0/16 5
";

/// Disk of a regional cache, bytes; less than the media, so that it has to choose.
pub const CACHE_BYTES: u64 = 64_000_000;

/// RAM of an edge for cached files, bytes; less than the media, so that other tiers are seen at work.
pub const RAM_BYTES: u64 = 32_000_000;

/// Where everything listens: a base and what is counted from it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ports {
    base: u16,
}

impl Ports {
    /// Ports from `base`, or nothing when they would not all fit below 65,536.
    #[must_use]
    pub const fn new(base: u16) -> Option<Self> {
        if base > 0 && base <= u16::MAX - PORTS_SPAN { Some(Self { base }) } else { None }
    }

    /// The next set of ports that shares none with this one.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.base.checked_add(PORTS_STEP) {
            Some(base) => Self::new(base),
            None => None,
        }
    }

    /// The first port.
    #[must_use]
    pub const fn base(self) -> u16 {
        self.base
    }

    /// The gallery.
    #[must_use]
    pub fn gallery(self) -> SocketAddr {
        loopback(self.base)
    }

    /// The content server.
    #[must_use]
    pub fn content(self) -> SocketAddr {
        loopback(self.base + 1)
    }

    /// The popularity API.
    #[must_use]
    pub fn api(self) -> SocketAddr {
        loopback(self.base + 2)
    }

    /// The API's admin port.
    #[must_use]
    pub fn api_admin(self) -> SocketAddr {
        loopback(self.base + 3)
    }

    /// A server's port for https.
    #[must_use]
    pub const fn https(self, node: &Node) -> u16 {
        self.base + 10 * node.slot
    }

    /// A server's port for http.
    #[must_use]
    pub const fn http(self, node: &Node) -> u16 {
        self.https(node) + 1
    }

    /// Where other servers reach a server.
    #[must_use]
    pub fn internal(self, node: &Node) -> SocketAddr {
        loopback(self.https(node) + 2)
    }

    /// A server's admin port.
    #[must_use]
    pub fn admin(self, node: &Node) -> SocketAddr {
        loopback(self.https(node) + 3)
    }

    /// Addresses on which a server listens for clients, on this port of its own.
    #[must_use]
    pub fn public(self, node: &Node, port: u16) -> Vec<SocketAddr> {
        [Ipv4Addr::LOCALHOST, node.address].map(|address| SocketAddrV4::new(address, port).into()).to_vec()
    }

    /// Everything that has to be free.
    #[must_use]
    pub fn all(self) -> Vec<SocketAddr> {
        let mut all = vec![self.gallery(), self.content(), self.api(), self.api_admin()];
        for node in &NODES {
            all.extend(self.public(node, self.https(node)));
            all.extend(self.public(node, self.http(node)));
            all.extend([self.internal(node), self.admin(node)]);
        }
        all
    }
}

/// The topology's document.
#[must_use]
pub fn topology(ports: Ports, version: u64) -> String {
    let mut text = format!(
        "# The demo's topology. Change it while the demo runs, or let `sunctl weight set` do so.\n\
         version = {version}\n\
         domain = \"{DOMAIN}\"\n\
         default_region = {default}\n\
         \n\
         [content_servers]\n\
         url = \"http://{content}/cs{{number}}\"\n\
         numbers = [\"{number}\"]\n",
        default = REGIONS[0].0,
        content = ports.content(),
        number = super::media::CONTENT_SERVER,
    );
    for (index, (id, name)) in REGIONS.iter().enumerate() {
        let neighbour = REGIONS[1 - index].0;
        let (latitude, longitude) = [(55.75, 37.6), (55.0, 82.9)][index];
        section(
            &mut text,
            "region",
            &[
                ("id", &id.to_string()),
                ("name", &quoted(name)),
                ("latitude", &format!("{latitude:?}")),
                ("longitude", &format!("{longitude:?}")),
                ("neighbours", &format!("[{neighbour}]")),
            ],
        );
    }
    for (group, subnet) in GROUPS {
        section(&mut text, "group", &[("name", &quoted(group)), ("subnet", &quoted(subnet))]);
    }
    for node in &NODES {
        let mut entry = vec![
            ("name", quoted(node.name)),
            ("addresses", format!("[\"{}\"]", node.address)),
            ("https_port", ports.https(node).to_string()),
            ("http_port", ports.http(node).to_string()),
            ("internal", quoted(&ports.internal(node).to_string())),
            ("weight", node.weight.to_string()),
        ];
        if node.is_cache {
            entry.push(("bytes", CACHE_BYTES.to_string()));
        }
        let entry: Vec<(&str, &str)> = entry.iter().map(|(key, value)| (*key, value.as_str())).collect();
        section(&mut text, if node.is_cache { "cache" } else { "sun" }, &entry);
    }
    // The gallery may read who answered and how, which it shows. No other page may: the media can be a folder of
    // the user's, and any page in the same browser reaches this machine's loopback.
    let origins = gallery_origins(ports).map(|origin| quoted(&origin)).join(", ");
    let cors = format!("{{ origins = [{origins}], expose_headers = [\"Cache-Status\", \"Age\", \"Via\"] }}");
    section(&mut text, "class", &[("name", "\"media\""), ("paths", "[\"*\"]"), ("cors", &cors)]);
    text
}

/// What a browser calls the gallery's origin, by address and by name.
#[must_use]
pub fn gallery_origins(ports: Ports) -> [String; 2] {
    [Ipv4Addr::LOCALHOST.to_string(), DOMAIN.to_owned()].map(|host| format!("http://{host}:{}", ports.gallery().port()))
}

/// Names for which a server has a certificate: its own, and its group's.
#[must_use]
pub fn host_names(node: &Node) -> Vec<String> {
    let own = format!("{}.{DOMAIN}", node.name);
    match node.name.rsplit_once('-') {
        Some((group, _)) if !node.is_cache => vec![own, format!("{group}.{DOMAIN}")],
        _ => vec![own],
    }
}

const fn sun(name: &'static str, region: u16, member: u8, weight: u16, slot: u16) -> Node {
    let address = Ipv4Addr::new(127, 0, region.to_le_bytes()[0], member);
    Node { name, is_cache: false, region, address, weight, slot }
}

const fn cache(name: &'static str, region: u16, slot: u16) -> Node {
    let address = Ipv4Addr::new(127, 0, region.to_le_bytes()[0], 70);
    Node { name, is_cache: true, region, address, weight: 100, slot }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into()
}

fn section(text: &mut String, name: &str, entry: &[(&str, &str)]) {
    // Writing to a string cannot fail.
    let _ = write!(text, "\n[[{name}]]\n");
    for (key, value) in entry {
        let _ = writeln!(text, "{key} = {value}");
    }
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

const GROUPS: [(&str, &str); 2] = [("sun4-2", "127.0.4.0/26"), ("sun5-1", "127.0.5.0/26")];
/// Ports from the base to the last one of the last server.
const PORTS_SPAN: u16 = 63;
const PORTS_STEP: u16 = 100;

#[cfg(test)]
mod tests {
    use geo::{Scheme, Topology};

    use super::*;

    #[test]
    fn no_address_is_given_twice() {
        let all = Ports::new(8400).unwrap().all();
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        let span = u16::from(all.iter().all(|address| (8400..=8400 + PORTS_SPAN).contains(&address.port())));
        assert_eq!(span, 1, "{all:?}");
    }

    #[test]
    fn a_base_leaves_room_for_all_ports() {
        assert!(Ports::new(0).is_none());
        assert!(Ports::new(65_472).is_some());
        assert!(Ports::new(65_473).is_none());
        assert_eq!(Ports::new(8400).and_then(Ports::next), Ports::new(8500));
        assert_eq!(Ports::new(65_400).and_then(Ports::next), None);
    }

    #[test]
    fn the_topology_checks_and_its_links_lead_to_the_ports() {
        let ports = Ports::new(8400).unwrap();
        let topology = Topology::parse(&topology(ports, 3)).unwrap();
        assert_eq!(topology.version, 3);
        let name = geo::CanonicalName::parse("c100500/pictures/000.png").unwrap();
        let link = |server: &str, scheme| topology.server(server).unwrap().link(scheme, &name).unwrap();
        assert_eq!(link("sun4-2-1", Scheme::Https), "https://sun4-2-1.localhost:8410/c100500/pictures/000.png");
        assert_eq!(link("cache5-1", Scheme::Http), "http://cache5-1.localhost:8461/c100500/pictures/000.png");
        assert_eq!(topology.content_servers.url_of(&name).unwrap(), "http://127.0.0.1:8401/cs100500/pictures/000.png");
        let cors = topology.class_of(&name).cors.as_ref().unwrap();
        assert!(cors.expose_headers.iter().any(|header| header == "Cache-Status"));
        assert_eq!(cors.origins, ["http://127.0.0.1:8400", "http://localhost:8400"], "nobody but the gallery");
    }

    #[test]
    fn a_sun_answers_for_its_group_too() {
        assert_eq!(host_names(&NODES[0]), ["sun4-2-1.localhost", "sun4-2.localhost"]);
        assert_eq!(host_names(&NODES[3]), ["cache4-1.localhost"]);
    }
}
