//! The daemon's library: `start` and `check`.

use std::sync::Arc;

use anyhow::Context;
use daemon::admin::Readiness;
use daemon::drain::Drain;
use daemon::findings::Findings;
use geo::Topology;

use crate::carrier::{Carrier, Tools};
pub use crate::config::{Config, PrefillConfig};
use crate::metrics::Metrics;
use crate::prefill::Prefill;
use crate::turns::Turns;
use crate::vault::Vault;

/// Starts the cache; it runs until its drain. It serves at once what its vault's scan has found so far, passes on
/// the rest, and is ready when the scan is done.
///
/// # Errors
///
/// What cannot be read or bound.
pub async fn start(config: Config, drain: Drain) -> anyhow::Result<sun::Running> {
    let problems = config.problems();
    anyhow::ensure!(problems.is_empty(), "config: {}", problems.join("; "));
    let vault = Arc::new(Vault::open(&config.vault).context("vault")?);
    let last_good = config.vault.join("topology.toml");
    let (registry, readiness) = (prometheus::Registry::new(), Readiness::default());
    let watched = geo::watch::Metrics::register(&registry, &readiness)?;
    let topology = geo::watch::follow(&config.edge.topology, Some(last_good), watched).await?;
    let bytes_max = own(&topology.borrow(), &config.edge.name)?;
    vault.limit(bytes_max);
    let purges = sun::purges(&config.edge, &topology.borrow())?;
    let held = Some(Arc::clone(&vault) as Arc<dyn sun::HeldFiles>);
    let (purged, followed) = (Some(Arc::clone(&purges)), Some(topology.clone()));
    let parts = sun::Parts { held, registry, readiness, topology: followed, purges: purged };
    let metrics = Metrics::new(&parts.registry, &vault)?;
    let readiness = parts.readiness.clone();
    readiness.expect(SCANNED);
    let carrier = match &config.edge.popularity {
        None => {
            tracing::warn!("no popularity API is configured (edge.popularity): nothing will be carried");
            None
        }
        Some(api) => {
            let token = daemon::tokens::read_secret(&config.edge.token)?;
            let tls = sun::origin_tls::client(&config.edge.upstream)?;
            let prefill = Prefill::new(&config.prefill, tls, token, Arc::clone(&vault), Arc::clone(&purges))?;
            let api = popularity_api::Client::new(api)?;
            let turns = Turns::new(api.clone(), topology.clone(), config.edge.name.clone());
            let prefill = prefill.in_turn(turns);
            Some(Carrier::new(&config, Tools { api, topology, vault: Arc::clone(&vault), purges, prefill, metrics }))
        }
    };
    let running = sun::start(config.edge, parts, drain.clone()).await?;
    let sun::Running { https, http, internal, admin, .. } = &running;
    tracing::info!(?https, ?http, %internal, %admin, "the cache listens");
    let until = drain.clone();
    drain.spawn(async move {
        let scanning = Arc::clone(&vault);
        let scan = tokio::task::spawn_blocking(move || scanning.scan());
        // A scan that panics leaves the cache not ready, which is what it is; a drain does not wait for one.
        let scanned = tokio::select! {
            scanned = scan => scanned.is_ok(),
            () = until.wait() => false,
        };
        if scanned {
            readiness.hold(SCANNED);
            match carrier {
                Some(carrier) => carrier.run(until).await,
                None => until.wait().await,
            }
        }
        vault.release();
    });
    Ok(running)
}

/// What keeps the cache from starting, one problem a line; empty when nothing does. Binds and writes nothing.
#[must_use]
pub fn check(config: &Config) -> Findings {
    let mut findings = Findings::from(config.problems());
    let of_the_edge = sun::check(&config.edge);
    if of_the_edge.problems.is_empty() {
        let topology = config.edge.topology.load();
        findings
            .problems
            .extend(topology.ok().and_then(|topology| own(&topology, &config.edge.name).err()).map(|e| e.to_string()));
    }
    findings.extend(of_the_edge.of_part("edge"));
    if config.vault.exists() && !config.vault.is_dir() {
        findings.problems.push(format!("vault {}: is not a folder", config.vault.display()));
    }
    findings
}

/// How much this cache may hold, bytes.
fn own(topology: &Topology, name: &str) -> anyhow::Result<u64> {
    let cache = topology.cache(name);
    let bytes = cache.map(|cache| cache.bytes);
    bytes.with_context(|| format!("edge.name = {name:?}: the topology has no cache of this name"))
}

/// The condition for `/readyz`.
const SCANNED: &str = "vault: its files are being counted";
