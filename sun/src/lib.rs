//! The edge: TLS, HTTP, cache tiers, fills; a library (the edge) and the daemon.

pub mod config;
pub mod held;

use std::net::SocketAddr;
use std::sync::Arc;

pub use config::{Certificate, Config};
pub use held::{HeldFile, HeldFiles};

/// A started edge.
#[derive(Debug)]
pub struct Running {
    /// Bound TLS listeners (port 0 in the config asks for a free one).
    pub https: Vec<SocketAddr>,
    /// Bound plain listeners.
    pub http: Vec<SocketAddr>,
    /// Bound internal listener.
    pub internal: SocketAddr,
    /// Bound admin port.
    pub admin: SocketAddr,
    /// Ends it: `drain.start()`, then `drain.finished(..)`.
    pub drain: daemon::drain::Drain,
}

/// What a daemon built on the edge brings along.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Whole files on this machine's disk, served before anything else: a cache's vault. With it the edge
    /// is a cache: clients' requests for other files go through the owner sun, servers' get 404 "not held".
    pub held: Option<Arc<dyn HeldFiles>>,
    /// Registry for `/metrics`; the daemon's own metrics go there too.
    pub registry: prometheus::Registry,
    /// Conditions for `/readyz`.
    pub readiness: daemon::admin::Readiness,
}

/// Starts an edge; it runs until its drain.
///
/// # Errors
///
/// What cannot be read or bound.
pub async fn start(config: Config, parts: Parts, drain: daemon::drain::Drain) -> anyhow::Result<Running> {
    let _ = (config, parts, drain);
    todo!()
}
