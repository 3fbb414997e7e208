//! The daemon's library: `start` and what it returns.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Settings; `deploy/config/popularity-api.toml` shows them all with their defaults.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the API listens; never where clients are. Default 127.0.0.1:8090.
    pub listen: SocketAddr,
    /// Admin port. Default 127.0.0.1:9090.
    pub admin: SocketAddr,
    /// The topology's file. Default /etc/sun/topology.toml.
    pub topology: PathBuf,
    /// Binlog, snapshots, last good topology. Default /var/lib/sun/popularity-api.
    pub data: PathBuf,
    /// Token file of all bearers. Default /etc/sun/tokens.toml.
    pub tokens: PathBuf,
    /// Evidence for the region of a client. Default none: every client is in the topology's default region.
    pub geo: geo::resolver::Sources,
    /// Group commit of the binlog, milliseconds. Default 200.
    pub commit_ms: u64,
    /// Logs.
    pub log: daemon::telemetry::LogConfig,
    // The helper who writes this crate adds what else is needed (snapshot interval, half-lives, bounds...).
}

impl Default for Config {
    fn default() -> Self {
        todo!()
    }
}

/// A started API.
#[derive(Debug)]
pub struct Running {
    /// Where it listens (port 0 in the config asks for a free one).
    pub listen: SocketAddr,
    /// Its admin port.
    pub admin: SocketAddr,
    /// Ends it: `drain.start()`, then `drain.finished(..)`.
    pub drain: daemon::drain::Drain,
}

/// Starts the API; it runs until its drain.
///
/// # Errors
///
/// What cannot be read, bound or recovered.
pub async fn start(config: Config, drain: daemon::drain::Drain) -> anyhow::Result<Running> {
    let _ = (config, drain);
    todo!()
}
