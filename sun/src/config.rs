//! Settings of an edge; `deploy/config/sun.toml` shows them all with their defaults.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Settings of an edge (a sun, or the serving side of a cache).
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Name in the topology, `sun4-2-1` or `cache4-1`. No default.
    pub name: String,
    /// TLS listeners. Default 0.0.0.0:443 and [::]:443.
    pub https: Vec<SocketAddr>,
    /// Plain HTTP listeners. Default none.
    pub http: Vec<SocketAddr>,
    /// Listener for other servers, never where clients are. Default 127.0.0.1:8081.
    pub internal: SocketAddr,
    /// Admin port. Default 127.0.0.1:9081.
    pub admin: SocketAddr,
    /// The topology's file. Default /etc/sun/topology.toml.
    pub topology: PathBuf,
    /// Last good topology and spool. Default /var/lib/sun/edge.
    pub data: PathBuf,
    /// Evidence for the region of a client. Default none.
    pub geo: geo::resolver::Sources,
    /// Certificate chains and keys (PEM), reread when they change; SNI chooses by the names in them,
    /// the first is for clients without or with an unknown name.
    pub certificates: Vec<Certificate>,
    /// The popularity API. Default none: nothing is reported, and owners are the topology's.
    pub popularity: Option<popularity_api::ClientConfig>,
    /// Tokens of those who may use the internal listener. Default /etc/sun/tokens.toml.
    pub tokens: PathBuf,
    /// File with this server's own token. Default /etc/sun/token.
    pub token: PathBuf,
    /// RAM for cached files, bytes. Default 1 GiB.
    pub ram_bytes: u64,
    /// Threads that accept and serve, one accept loop each. Default 0: one a core.
    pub workers: usize,
    /// Logs.
    pub log: daemon::telemetry::LogConfig,
}

/// One certificate.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// PEM file: leaf first, then intermediates.
    pub chain: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: String::new(),
            https: vec![([0, 0, 0, 0], 443).into(), (std::net::Ipv6Addr::UNSPECIFIED, 443).into()],
            http: Vec::new(),
            internal: ([127, 0, 0, 1], 8081).into(),
            admin: ([127, 0, 0, 1], 9081).into(),
            topology: "/etc/sun/topology.toml".into(),
            data: "/var/lib/sun/edge".into(),
            geo: geo::resolver::Sources::default(),
            certificates: Vec::new(),
            popularity: None,
            tokens: "/etc/sun/tokens.toml".into(),
            token: "/etc/sun/token".into(),
            ram_bytes: 1 << 30,
            workers: 0,
            log: daemon::telemetry::LogConfig::default(),
        }
    }
}
