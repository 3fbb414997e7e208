//! The daemon's library: `start` and what it returns.

use std::path::PathBuf;

/// Settings; `deploy/config/cache-daemon.toml` shows them all with their defaults.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The edge that serves clients and other servers: name, listeners, topology, certificates, API, geo.
    pub edge: sun::Config,
    /// Folder of the vault. Default /var/lib/sun/cache.
    pub vault: PathBuf,
    /// How often the plan is made, milliseconds. Default 3000.
    pub plan_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        todo!()
    }
}

/// Starts the cache; it runs until its drain.
///
/// # Errors
///
/// What cannot be read or bound.
pub async fn start(config: Config, drain: daemon::drain::Drain) -> anyhow::Result<sun::Running> {
    let _ = (config, drain);
    todo!()
}
