//! A whole system of a test's own: folder, addresses, authority, content server, documents. The test starts
//! the daemons it wants and holds them.
//!
//! ```no_run
//! # async fn test() {
//! let world = tests::world::World::new(&["sun1-1-1", "sun1-1-2", "cache1-1"]);
//! let sun = world.start("sun1-1-1").await;
//! # }
//! ```

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::addresses::Block;
use crate::certificates::{Authority, Files};
use crate::client::{Answer, Client};
use crate::origin::{Origin, Script};
use crate::process::Daemon;
use crate::settings::{self, Settings};
use crate::topology::{CONTENT_PORT, DOMAIN, HTTP_PORT, HTTPS_PORT, Server, Topology};

/// One test's system. Its folder and addresses are free again when it is dropped.
#[derive(Debug)]
pub struct World {
    /// Issues certificates that [`World::client`] trusts.
    pub authority: Authority,
    /// The content server behind all numbers.
    pub origin: Origin,
    /// What the shared topology file said when the world was made; see [`World::write_topology`].
    pub topology: Topology,
    /// `*.cdn.test`.
    pub certificate: Files,
    block: Block,
    uses_api: bool,
    uses_geo: bool,
    folder: tempfile::TempDir,
}

impl World {
    /// A system with these servers, none of them started, and no popularity API.
    ///
    /// # Panics
    ///
    /// When the machine refuses a folder or an address.
    #[must_use]
    pub fn new(names: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("sun-test-").tempdir().expect("a temporary folder");
        let block = Block::claim();
        let topology = Topology::new(&block, names);
        let authority = Authority::new();
        let wildcard = format!("*.{DOMAIN}");
        let certificate = authority.issue(folder.path(), "certificate", &[wildcard.as_str()]);
        let origin = Origin::start((block.address(1), CONTENT_PORT).into());
        settings::write_tokens(folder.path(), &topology);
        let prefixes: String =
            topology.regions().iter().map(|region| format!("127.200.{region}.0/24 {region}\n")).collect();
        crate::files::write(&folder.path().join("prefixes.txt"), &prefixes);
        let world = Self { authority, origin, topology, certificate, block, uses_api: false, uses_geo: false, folder };
        world.write_topology(&world.topology);
        world
    }

    /// As [`World::new`], with servers that report to the popularity API (which is to be started as well).
    #[must_use]
    pub fn with_api(names: &[&str]) -> Self {
        Self { uses_api: true, ..Self::new(names) }
    }

    /// As [`World::with_api`], and all follow the table of the geo server (which is to be started as well).
    #[must_use]
    pub fn with_geo(names: &[&str]) -> Self {
        Self { uses_geo: true, ..Self::with_api(names) }
    }

    /// Starts `sun1-1-1`, `cache1-1`, `popularity-api` or `geo`, and waits until it is ready.
    #[track_caller]
    pub fn start(&self, name: &str) -> impl Future<Output = Daemon> {
        self.start_with(name, |_| {})
    }

    /// As [`World::start`], with other settings.
    #[track_caller]
    pub fn start_with(&self, name: &str, change: impl FnOnce(&mut Settings)) -> impl Future<Output = Daemon> {
        let config = self.write_config(name, change);
        let (program, admin) = match name {
            API => (API, self.api_admin()),
            GEO => ("geo serve", self.geo_admin()),
            _ => {
                let server = self.server(name);
                (if server.is_sun() { "sun" } else { "cache-daemon" }, server.admin())
            }
        };
        Daemon::start(program, name, &config, admin)
    }

    /// Writes a daemon's config without starting it.
    pub fn write_config(&self, name: &str, change: impl FnOnce(&mut Settings)) -> PathBuf {
        let data = self.path(&format!("{name}.data"));
        std::fs::create_dir_all(&data).expect("a folder for state");
        let mut settings = Settings {
            topology: self.topology_file(),
            data,
            api: self.uses_api.then(|| self.api()),
            certificates: vec![self.certificate.clone()],
            ram_bytes: 256 << 20,
            tokens: self.folder.path().to_owned(),
            prefixes: self.path("prefixes.txt"),
            geo: self.uses_geo.then(|| self.geo()),
            log_level: "debug,h2=info,hyper=info,hyper_util=info,rustls=info".to_owned(),
            rest: "rest.enabled = false".to_owned(),
            more: String::new(),
        };
        change(&mut settings);
        let text = match name {
            API => settings.popularity_api(self.api(), self.api_admin()),
            GEO => settings.geo_serve(self.geo(), self.geo_admin()),
            _ if self.server(name).is_sun() => settings.sun(self.server(name)),
            _ => settings.cache(self.server(name)),
        };
        let config = self.path(&format!("{name}.toml"));
        crate::files::write(&config, &text);
        config
    }

    /// Replaces the topology file that all daemons watch.
    pub fn write_topology(&self, topology: &Topology) {
        crate::files::write(&self.topology_file(), &topology.render());
    }

    /// The topology file.
    #[must_use]
    pub fn topology_file(&self) -> PathBuf {
        self.path("topology.toml")
    }

    /// A file in the world's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The world's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A server of the topology.
    #[must_use]
    #[track_caller]
    pub fn server(&self, name: &str) -> &Server {
        self.topology.server(name)
    }

    /// Where the popularity API listens.
    #[must_use]
    pub fn api(&self) -> SocketAddr {
        (self.block.address(2), 8090).into()
    }

    /// The popularity API's admin port.
    #[must_use]
    pub fn api_admin(&self) -> SocketAddr {
        (self.block.address(2), 9090).into()
    }

    /// Where the geo server listens.
    #[must_use]
    pub fn geo(&self) -> SocketAddr {
        (self.block.address(15), 8095).into()
    }

    /// The geo server's admin port.
    #[must_use]
    pub fn geo_admin(&self) -> SocketAddr {
        (self.block.address(15), 9095).into()
    }

    /// An address of the world's own that none of its servers has: `host` 3 to 14.
    #[must_use]
    pub const fn address(&self, host: u8) -> Ipv4Addr {
        self.block.address(host)
    }

    /// A client that knows all hosts and trusts the authority.
    #[must_use]
    pub fn client(&self) -> Client {
        let host = |server: &Server| (server.host(), IpAddr::from(server.address));
        Client::new(&self.authority, self.topology.servers.iter().map(host).collect::<HashMap<_, _>>())
    }

    /// A client whose address is in this region.
    #[must_use]
    pub fn client_in(&self, region: u8) -> Client {
        self.client().from(Self::address_in(region).into())
    }

    /// An address whose region the resolver knows.
    #[must_use]
    pub const fn address_in(region: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, 200, region, 1)
    }

    /// A file's address with TLS: `https://sun1-1-1.cdn.test:8443/c1/a.jpg`.
    #[must_use]
    pub fn https(&self, server: &str, file: &str) -> String {
        format!("https://{}:{HTTPS_PORT}/{file}", self.server(server).host())
    }

    /// A file's address without.
    #[must_use]
    pub fn http(&self, server: &str, file: &str) -> String {
        format!("http://{}:{HTTP_PORT}/{file}", self.server(server).host())
    }

    /// What the content server sees of a file: `/cs1/a.jpg` of `c1/a.jpg`.
    ///
    /// # Panics
    ///
    /// When it is no file's name.
    #[must_use]
    #[track_caller]
    pub fn upstream(file: &str) -> String {
        format!("/cs{}", file.strip_prefix('c').unwrap_or_else(|| panic!("{file} is no file's name")))
    }

    /// Puts a file on the content server.
    #[track_caller]
    pub fn put(&self, file: &str, script: Script) {
        self.origin.put(&Self::upstream(file), script);
    }

    /// How often the content server was asked for a file's bytes.
    #[must_use]
    #[track_caller]
    pub fn fetches(&self, file: &str) -> usize {
        self.origin.fetches(&Self::upstream(file))
    }

    /// Panics unless the answer is the whole file, every byte in its place.
    #[track_caller]
    pub fn check_whole(&self, file: &str, size: u64, answer: &Answer) {
        assert_eq!(
            answer.status,
            200,
            "{file}: {:?} {}",
            answer.headers,
            answer.text().chars().take(200).collect::<String>()
        );
        self.origin.pattern(&Self::upstream(file)).check(0, &answer.body);
        assert_eq!(answer.body.len() as u64, size, "{file}: the length of the body");
    }

    /// Files that the topology as written gives to a server, out of `c1/{stem}0.jpg`, `c1/{stem}1.jpg`, ...
    #[must_use]
    pub fn files_owned_by(&self, sun: &str, stem: &str, count: usize) -> Vec<String> {
        let topology = self.topology.parsed();
        let names = (0..).map(|number| format!("c1/{stem}{number}.jpg"));
        names.filter(|file| owner(&topology, self.server(sun).region(), file) == sun).take(count).collect()
    }
}

/// The sun that keeps a file in a region.
///
/// # Panics
///
/// When the file has no canonical name, or the region no sun.
#[must_use]
#[track_caller]
pub fn owner(topology: &geo::Topology, region: u16, file: &str) -> String {
    let name = geo::CanonicalName::parse(file).expect("a file's name");
    let region = topology.region(geo::RegionId(region)).expect("a region");
    region.owner(name.content_id()).expect("a sun with weight").server.name.clone()
}

/// What the popularity API is called, as a program and in [`World::start`].
pub const API: &str = "popularity-api";

/// What the geo server is called in [`World::start`].
pub const GEO: &str = "geo";
