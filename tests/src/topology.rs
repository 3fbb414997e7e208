//! The topology document of a test, made from the names of its servers.
//!
//! `["sun1-1-1", "sun1-1-2", "cache1-1", "sun2-1-1"]` is two regions, the first with a group of two suns and a
//! cache. Every server has its own address in the test's block of loopback, and the same ports:
//!
//! ```text
//!   127.x.y.1    content servers :9100
//!   127.x.y.2    popularity API :8090, admin :9090
//!   127.x.y.15   geo server :8095, admin :9095
//!   127.x.y.16+  the first group's suns, 16 addresses a group     https :8443, http :8080,
//!   127.x.y.128+ caches                                           internal :8081, admin :9081
//! ```

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};

use crate::addresses::Block;

/// What a topology document says; `render` writes it.
#[derive(Clone, Debug)]
pub struct Topology {
    /// Rises with every change.
    pub version: u64,
    /// Allowed content servers, `1-9`.
    pub numbers: Vec<String>,
    /// Where content servers are, with `{number}`.
    pub content_url: String,
    /// In the order in which the test named them.
    pub servers: Vec<Server>,
    /// More text at the end: `[[class]]` tables.
    pub classes: String,
}

/// A sun or cache of a test.
#[derive(Clone, Debug)]
pub struct Server {
    /// `sun1-1-1` or `cache1-1`.
    pub name: String,
    /// Its one address.
    pub address: Ipv4Addr,
    /// Share of content.
    pub weight: u16,
    /// Disk of a cache, bytes.
    pub bytes: u64,
    /// Network card, gigabits per second.
    pub nic_gbps: f64,
}

/// The domain of all tests.
pub const DOMAIN: &str = "cdn.test";
/// Port of every server's TLS listener.
pub const HTTPS_PORT: u16 = 8443;
/// Port of every server's plain listener.
pub const HTTP_PORT: u16 = 8080;
/// Port of every server's internal listener.
pub const INTERNAL_PORT: u16 = 8081;
/// Port of every server's admin port.
pub const ADMIN_PORT: u16 = 9081;
/// Port of the content server.
pub const CONTENT_PORT: u16 = 9100;

impl Topology {
    /// The document for these servers, each with weight 100.
    ///
    /// # Panics
    ///
    /// When a name is neither a sun's nor a cache's.
    #[must_use]
    pub fn new(block: &Block, names: &[&str]) -> Self {
        let mut groups: Vec<String> = Vec::new();
        let mut servers: Vec<Server> = Vec::new();
        for &name in names {
            let parts = numbers_of(name);
            let host = if name.starts_with("sun") {
                let group = group_of(name);
                let index = groups.iter().position(|known| *known == group).unwrap_or_else(|| {
                    groups.push(group);
                    groups.len() - 1
                });
                16 * (index + 1) + usize::from(parts[2])
            } else {
                128 + servers.len()
            };
            let address = block.address(u8::try_from(host).expect("few servers"));
            servers.push(Server { name: name.to_owned(), address, weight: 100, bytes: 1 << 30, nic_gbps: 10.0 });
        }
        let content_url = format!("http://{}:{CONTENT_PORT}/cs{{number}}", block.address(1));
        Self { version: 1, numbers: vec!["1-9".to_owned()], content_url, servers, classes: String::new() }
    }

    /// Gives a server another weight; the version rises.
    ///
    /// # Panics
    ///
    /// When there is no such server.
    pub fn set_weight(&mut self, name: &str, weight: u16) {
        let server = self.servers.iter_mut().find(|server| server.name == name);
        server.unwrap_or_else(|| panic!("no server {name}")).weight = weight;
        self.version += 1;
    }

    /// The server with this name.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn server(&self, name: &str) -> &Server {
        self.servers.iter().find(|server| server.name == name).unwrap_or_else(|| panic!("no server {name}"))
    }

    /// Region numbers, ascending.
    #[must_use]
    pub fn regions(&self) -> Vec<u16> {
        let mut regions: Vec<u16> = self.servers.iter().map(Server::region).collect();
        regions.sort_unstable();
        regions.dedup();
        regions
    }

    /// The document.
    #[must_use]
    pub fn render(&self) -> String {
        let regions = self.regions();
        let mut text = format!(
            "version = {}\ndomain = \"{DOMAIN}\"\ndefault_region = {}\n\n[content_servers]\nurl = \"{}\"\nnumbers = {:?}\n",
            self.version, regions[0], self.content_url, self.numbers
        );
        for region in &regions {
            let neighbours: Vec<u16> = regions.iter().copied().filter(|other| other != region).collect();
            let _ = write!(
                text,
                "\n[[region]]\nid = {region}\nname = \"Region {region}\"\nlatitude = {region}0.0\nlongitude = 30.0\nneighbours = {neighbours:?}\n",
            );
        }
        let mut groups: Vec<String> = Vec::new();
        for server in self.servers.iter().filter(|server| server.is_sun()) {
            let group = group_of(&server.name);
            if !groups.contains(&group) {
                let [a, b, c, d] = server.address.octets();
                let _ = write!(text, "\n[[group]]\nname = \"{group}\"\nsubnet = \"{a}.{b}.{c}.{}/28\"\n", d & 0xf0);
                groups.push(group);
            }
        }
        for server in &self.servers {
            let kind = if server.is_sun() { "sun" } else { "cache" };
            let _ = write!(
                text,
                "\n[[{kind}]]\nname = \"{}\"\naddresses = [\"{}\"]\nhttps_port = {HTTPS_PORT}\nhttp_port = {HTTP_PORT}\n\
                 internal = \"{}\"\nweight = {}\nnic_gbps = {}\n",
                server.name,
                server.address,
                server.internal(),
                server.weight,
                server.nic_gbps
            );
            if !server.is_sun() {
                let _ = writeln!(text, "bytes = {}", server.bytes);
            }
        }
        format!("{text}\n{}", self.classes)
    }

    /// As the programs see it.
    ///
    /// # Panics
    ///
    /// When the document is refused.
    #[must_use]
    #[track_caller]
    pub fn parsed(&self) -> geo::Topology {
        geo::Topology::parse(&self.render()).unwrap_or_else(|error| panic!("{error}\n{}", self.render()))
    }
}

impl Server {
    /// The 1 of `sun1-2-3`.
    #[must_use]
    pub fn region(&self) -> u16 {
        numbers_of(&self.name)[0]
    }

    /// A sun, not a cache.
    #[must_use]
    pub fn is_sun(&self) -> bool {
        self.name.starts_with("sun")
    }

    /// Its name in links.
    #[must_use]
    pub fn host(&self) -> String {
        format!("{}.{DOMAIN}", self.name)
    }

    /// Its TLS listener.
    #[must_use]
    pub fn https(&self) -> SocketAddr {
        (self.address, HTTPS_PORT).into()
    }

    /// Its plain listener.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        (self.address, HTTP_PORT).into()
    }

    /// Its listener for other servers.
    #[must_use]
    pub fn internal(&self) -> SocketAddr {
        (self.address, INTERNAL_PORT).into()
    }

    /// Its admin port.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        (self.address, ADMIN_PORT).into()
    }
}

/// `sun1-2` of `sun1-2-3`.
fn group_of(sun: &str) -> String {
    sun.rsplit_once('-').map_or(sun, |(group, _)| group).to_owned()
}

/// 1, 2, 3 of `sun1-2-3`.
fn numbers_of(name: &str) -> Vec<u16> {
    let numbers = name.strip_prefix("sun").or_else(|| name.strip_prefix("cache"));
    let numbers = numbers.unwrap_or_else(|| panic!("{name} is neither sunR-G-N nor cacheR-N"));
    numbers
        .split('-')
        .map(|number| number.parse().unwrap_or_else(|_| panic!("{name}: {number} is no number")))
        .collect()
}
