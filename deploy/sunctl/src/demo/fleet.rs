//! Starting and ending the daemons: each from its own config file in the data folder, as it would start
//! on a machine of its own.
//!
//! ```text
//!   data folder                                         started in this order, ended in the reverse
//!     ca.pem  certificates/  tokens.toml  tokens/          1. content server
//!     topology.toml  prefixes.txt                          2. popularity API
//!     popularity-api.toml  sun4-2-1.toml  ...              3. caches and suns
//!     popularity-api/  sun4-2-1/  cache4-1/ ...  state
//! ```

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use daemon::drain::Drain;
use daemon::telemetry::LogConfig;
use popularity_api::ClientConfig;
use serde::Serialize;

use super::certificates::Authority;
use super::content_server::{self, ContentServer};
use super::folder::{Folder, write, write_private};
use super::media::Library;
use super::plan::{self, NODES, Node, Ports};
use crate::token;

/// Files of the data folder that people use.
#[derive(Clone, Debug)]
pub struct Files {
    /// Certificate of the demo's CA.
    pub ca: PathBuf,
    /// The topology.
    pub topology: PathBuf,
    /// The prefix list.
    pub prefixes: PathBuf,
    /// A back end's token.
    pub backend_token: PathBuf,
    /// An operator's token.
    pub operator_token: PathBuf,
    /// Token file of all bearers.
    tokens: PathBuf,
    /// Configs of the caches and suns, in the order of [`NODES`].
    configs: Vec<PathBuf>,
    api_config: PathBuf,
}

/// Everything that runs.
#[derive(Debug)]
pub struct Fleet {
    /// Where everything listens.
    pub ports: Ports,
    /// The origin.
    pub content: ContentServer,
    content_drain: Drain,
    api_drain: Drain,
    edges: BTreeMap<&'static str, Drain>,
}

/// Ports from `base`; without one, the first free set.
///
/// # Errors
///
/// When the named base has a port that is taken, or no set is free.
pub fn free_ports(base: Option<u16>) -> anyhow::Result<Ports> {
    let Some(mut ports) = Ports::new(base.unwrap_or(PORTS_DEFAULT)) else {
        bail!("--port {}: the demo needs 64 ports from there; say 1..=65472", base.unwrap_or_default());
    };
    for _ in 0..PORT_SETS_TRIED {
        match ports.all().into_iter().find_map(taken) {
            None => return Ok(ports),
            Some((address, error)) if base.is_some() => {
                bail!("{address}: {error}; say another --port, or none for the next free ones")
            }
            Some(_) => ports = ports.next().context("no ports are free")?,
        }
    }
    bail!("ports {PORTS_DEFAULT} to {} are taken; say others with --port", ports.base())
}

fn taken(address: SocketAddr) -> Option<(SocketAddr, std::io::Error)> {
    TcpListener::bind(address).err().map(|error| (address, error))
}

/// Writes everything the daemons read. Ratings and vaults of an earlier run in the same folder stay.
///
/// # Errors
///
/// When a file cannot be written.
pub fn write_files(folder: &Folder, ports: Ports) -> anyhow::Result<Files> {
    unused(folder)?;
    let root = folder.path();
    let files = Files {
        ca: root.join("ca.pem"),
        topology: root.join("topology.toml"),
        prefixes: root.join("prefixes.txt"),
        backend_token: folder.below("tokens")?.join("backend"),
        operator_token: folder.below("tokens")?.join("operator"),
        tokens: root.join("tokens.toml"),
        configs: NODES.iter().map(|node| root.join(format!("{}.toml", node.name))).collect(),
        api_config: root.join("popularity-api.toml"),
    };
    // Daemons that kept a copy of the last run's topology go by the higher version.
    let version = version_of(&files.topology).unwrap_or(0) + 1;
    write(&files.topology, &plan::topology(ports, version))?;
    write(&files.prefixes, plan::PREFIXES)?;
    write_tokens(folder, &files)?;
    let authority = Authority::new()?;
    write(&files.ca, &authority.certificate_pem())?;
    let certificates = folder.below("certificates")?;
    write_config(&files.api_config, &api_config(folder, ports, &files)?)?;
    for (node, config) in NODES.iter().zip(&files.configs) {
        let (chain, key) = authority.issue(&certificates, &plan::host_names(node))?;
        let edge = edge_config(folder, ports, &files, node, sun::Certificate { chain, key })?;
        if node.is_cache {
            let vault = folder.below(&format!("{}/vault", node.name))?;
            let cache = cache_daemon::server::Config { edge, vault, plan_ms: PLAN_MS, ..Default::default() };
            write_config(config, &cache)?;
        } else {
            write_config(config, &edge)?;
        }
    }
    Ok(files)
}

/// Daemons that were started from a kept folder follow its files: they would go by another CA, tokens and ports at once.
fn unused(folder: &Folder) -> anyhow::Result<()> {
    let of = |node: &Node| ["edge", "edge/spool", "vault"].map(|part| format!("{}/{part}", node.name));
    let edges = NODES.iter().flat_map(of);
    edges.chain(["popularity-api".to_owned()]).try_for_each(|name| folder.unused(&name))
}

fn version_of(topology: &Path) -> Option<u64> {
    let document: toml::Table = toml::from_str(&std::fs::read_to_string(topology).ok()?).ok()?;
    document.get("version")?.as_integer()?.try_into().ok()
}

/// One token for each server, a back end, an operator and a copy of the API: all in the file of bearers, each in its own.
fn write_tokens(folder: &Folder, files: &Files) -> anyhow::Result<()> {
    let mut bearers = String::new();
    let own = folder.below("tokens")?;
    for node in &NODES {
        let secret = token::make(&mut rand::rng());
        let role = if node.is_cache { "cache" } else { "sun" };
        write_private(&own.join(node.name), &secret)?;
        bearers.push_str(&format!(
            "[[token]]\ntoken = \"{secret}\"\nrole = \"{role}\"\nregion = {}\nname = \"{}\"\n\n",
            node.region, node.name
        ));
    }
    // Of nobody here: for who tries a copy of the API out.
    let replica = own.join("replica");
    for (role, file) in [("backend", &files.backend_token), ("operator", &files.operator_token), ("replica", &replica)]
    {
        let secret = token::make(&mut rand::rng());
        write_private(file, &secret)?;
        bearers.push_str(&format!("[[token]]\ntoken = \"{secret}\"\nrole = \"{role}\"\n\n"));
    }
    write_private(&files.tokens, &bearers)
}

fn api_config(folder: &Folder, ports: Ports, files: &Files) -> anyhow::Result<popularity_api::server::Config> {
    Ok(popularity_api::server::Config {
        listen: ports.api(),
        admin: ports.api_admin(),
        topology: files.topology.clone().into(),
        data: folder.below("popularity-api")?,
        tokens: files.tokens.clone(),
        geo: evidence(files),
        ..Default::default()
    })
}

fn edge_config(
    folder: &Folder,
    ports: Ports,
    files: &Files,
    node: &Node,
    certificate: sun::Certificate,
) -> anyhow::Result<sun::Config> {
    let token = folder.below("tokens")?.join(node.name);
    Ok(sun::Config {
        name: node.name.to_owned(),
        https: ports.public(node, ports.https(node)),
        http: ports.public(node, ports.http(node)),
        internal: ports.internal(node),
        admin: ports.admin(node),
        topology: files.topology.clone().into(),
        data: folder.below(&format!("{}/edge", node.name))?,
        geo: evidence(files),
        certificates: vec![certificate],
        popularity: Some(ClientConfig {
            url: format!("http://{}", ports.api()),
            token_file: token.clone(),
            timeout_ms: API_TIMEOUT_MS,
        }),
        tokens: files.tokens.clone(),
        token,
        ram_bytes: plan::RAM_BYTES,
        // Six edges share this machine's cores.
        workers: 1,
        // All of them are as pressed as this machine is: nobody could take over.
        rest: sun::config::RestConfig { enabled: node.is_cache, ..Default::default() },
        log: LogConfig::default(),
        ..sun::Config::default()
    })
}

fn evidence(files: &Files) -> geo::resolver::Sources {
    geo::resolver::Sources { prefixes: vec![files.prefixes.clone()], ..Default::default() }
}

fn write_config(file: &Path, config: &impl Serialize) -> anyhow::Result<()> {
    let text = toml::to_string(config).with_context(|| format!("the config {}", file.display()))?;
    write(file, &text)
}

impl Fleet {
    /// Starts everything, and ends what has been started when something will not.
    ///
    /// # Errors
    ///
    /// Which daemon does not start, and why.
    pub async fn start(ports: Ports, files: &Files, library: Arc<Library>) -> anyhow::Result<Self> {
        let (content_drain, api_drain) = (Drain::new(), Drain::new());
        let content = content_server::start(ports.content(), library, &content_drain).await;
        let content = content.context("the content server does not start")?;
        let mut fleet = Self { ports, content, content_drain, api_drain, edges: BTreeMap::new() };
        match fleet.start_daemons(files).await {
            Ok(()) => Ok(fleet),
            Err(error) => {
                fleet.stop().await;
                Err(error)
            }
        }
    }

    async fn start_daemons(&mut self, files: &Files) -> anyhow::Result<()> {
        let config = daemon::config::load(&files.api_config)?;
        let started = popularity_api::server::start(config, self.api_drain.clone()).await;
        started.context("the popularity API does not start")?;
        for (node, file) in NODES.iter().zip(&files.configs) {
            let drain = Drain::new();
            self.edges.insert(node.name, drain.clone());
            let started = if node.is_cache {
                cache_daemon::server::start(daemon::config::load(file)?, drain).await
            } else {
                sun::start(daemon::config::load(file)?, sun::Parts::default(), drain).await
            };
            started.with_context(|| format!("{} does not start", node.name))?;
        }
        Ok(())
    }

    /// Ends everything in order, edges first, so that what they have to report is still taken; whether
    /// all of it ended in time.
    pub async fn stop(&self) -> bool {
        for drain in self.edges.values() {
            drain.start();
        }
        let mut ended = true;
        for drain in self.edges.values().chain([&self.api_drain, &self.content_drain]) {
            drain.start();
            ended &= drain.finished(DRAIN_LIMIT).await;
        }
        ended
    }
}

const PORTS_DEFAULT: u16 = 8400;
const PORT_SETS_TRIED: usize = 20;
/// Plan of a cache, milliseconds: shorter than a fleet's, so that a visitor sees a rating act at once.
const PLAN_MS: u64 = 1000;
const API_TIMEOUT_MS: u64 = 2000;
/// Longest drain of one daemon.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_base_with_a_taken_port_is_refused() {
        let other = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = other.local_addr().unwrap().port();
        let Some(ports) = Ports::new(port) else { return };
        let error = free_ports(Some(ports.base())).unwrap_err().to_string();
        assert!(error.contains("say another --port"), "{error}");
    }

    #[test]
    fn a_base_without_room_is_refused() {
        let error = free_ports(Some(65_500)).unwrap_err().to_string();
        assert!(error.contains("1..=65472"), "{error}");
    }

    #[test]
    fn the_files_are_those_the_daemons_read() {
        let folder = Folder::open(None).unwrap();
        let files = write_files(&folder, Ports::new(8400).unwrap()).unwrap();
        for (node, file) in NODES.iter().zip(&files.configs) {
            let edge = if node.is_cache {
                daemon::config::load::<cache_daemon::server::Config>(file).unwrap().edge
            } else {
                daemon::config::load::<sun::Config>(file).unwrap()
            };
            assert_eq!(edge.name, node.name);
        }
        daemon::config::load::<popularity_api::server::Config>(&files.api_config).unwrap();
        let tokens = daemon::tokens::Tokens::load(&files.tokens).unwrap();
        let operator = daemon::tokens::read_secret(&files.operator_token).unwrap();
        let known = tokens.identify(Some(&format!("Bearer {operator}"))).unwrap();
        assert_eq!(known.role, daemon::tokens::Role::Operator);
        // One that runs with them keeps them.
        let before = std::fs::read_to_string(&files.tokens).unwrap();
        let running = daemon::folder::DataFolder::open(&folder.path().join("popularity-api")).unwrap();
        let error = write_files(&folder, Ports::new(8500).unwrap()).unwrap_err().to_string();
        assert!(error.contains("a daemon uses popularity-api in it"), "{error}");
        assert_eq!(std::fs::read_to_string(&files.tokens).unwrap(), before);
        drop(running);
        folder.close().unwrap();
    }
}
