//! From settings to a running API.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use daemon::admin::{self, Readiness};
use daemon::drain::Drain;
use daemon::http;
use daemon::tokens::Tokens;

use crate::api::{self, Api};
pub use crate::config::Config;
use crate::engine::folder::Disk;
use crate::engine::{self, Engine};
use crate::purge::Ledger;
use crate::purge::log::{self, Log};
use crate::routes;

/// A started API.
#[derive(Debug)]
pub struct Running {
    /// Where it listens (port 0 in the config asks for a free one).
    pub listen: SocketAddr,
    /// Its admin port.
    pub admin: SocketAddr,
    /// Ends it: `drain.start()`, then `drain.finished(..)`.
    pub drain: Drain,
}

/// Starts the API; it runs until its drain. The admin port answers while the ratings are recovered.
///
/// # Errors
///
/// What cannot be read, bound or recovered.
pub async fn start(config: Config, drain: Drain) -> anyhow::Result<Running> {
    let problems = config.problems();
    anyhow::ensure!(problems.is_empty(), "{}", problems.join("\n"));
    let settings = config.engine().context("ratings: a half-life or share is out of bounds")?;
    std::fs::create_dir_all(&config.data).with_context(|| format!("data: {}", config.data.display()))?;
    let tokens = Tokens::load(&config.tokens)?;
    let topology = geo::watch::follow(config.topology.clone(), Some(config.data.join("topology.toml"))).await?;
    let table = Some(config.data.join("geo.table"));
    let resolver = geo::resolver::follow(config.geo.clone(), topology.clone(), table).await?;

    let (registry, readiness) = (prometheus::Registry::new(), Readiness::default());
    readiness.expect("recovery");
    let metrics = api::Metrics::register(&registry)?;
    let engine_metrics = engine::Metrics::register(&registry)?;
    let admin = admin::serve(config.admin, registry, readiness.clone(), &drain, axum::Router::new()).await?;
    let listener = drain.sockets().listener(config.listen).and_then(tokio::net::TcpListener::from_std);
    let listener = listener.with_context(|| format!("cannot listen on {}", config.listen))?;
    let listen = listener.local_addr()?;

    let purges = config.data.join("purges");
    let log = tokio::task::spawn_blocking(move || Log::open(&purges, api::unix_ms(), log::KEPT)).await?;
    let purges = Ledger::new(log.with_context(|| format!("data: {}: purges", config.data.display()))?);
    metrics.purge_sequence.set(i64::try_from(purges.latest()).unwrap_or(i64::MAX));
    let ratings = config.data.join("ratings");
    let opened = tokio::task::spawn_blocking(move || open(&ratings, &settings, engine_metrics)).await??;
    readiness.hold("recovery");
    tracing::info!(%listen, %admin, "the popularity API listens");

    let limits = http::Limits {
        connections_max: config.limits.connections_max,
        // The routes' own deadline comes first, with an answer that says so.
        request: Duration::from_secs(config.limits.request_s.saturating_add(1)),
        ..http::Limits::default()
    };
    let api = Arc::new(Api::new(config, tokens, opened, metrics, purges, topology, resolver));
    drain.spawn(tell_topology(Arc::clone(&api), drain.clone()));
    drain.spawn(tell_failure(api.engine.failed(), readiness, drain.clone()));
    let ending = drain.clone();
    drain.spawn(async move {
        let end = async { ending.wait().await };
        http::serve(listener, routes::routes(Arc::clone(&api)), limits, end).await;
        // The last commit and snapshot; when the thread cannot be had the binlog has everything all the same.
        drop(tokio::task::spawn_blocking(move || api.engine.close()).await);
    });
    Ok(Running { listen, admin, drain })
}

/// Tells which topology the API goes by, as it changes, until the drain.
async fn tell_topology(api: Arc<Api>, drain: Drain) {
    let mut topology = api.watched();
    loop {
        let version = topology.borrow_and_update().version;
        api.metrics.topology_version.set(i64::try_from(version).unwrap_or(i64::MAX));
        tokio::select! {
            changed = topology.changed() => if changed.is_err() { return },
            () = drain.wait() => return,
        }
    }
}

/// An API that counts no more is not ready, until somebody restarts it.
async fn tell_failure(failed: impl Future<Output = ()>, readiness: Readiness, drain: Drain) {
    tokio::select! {
        () = failed => {
            tracing::error!("the committer thread panicked: downloads are answered 503 until a restart; see above why");
            readiness.expect("committer");
        }
        () = drain.wait() => {}
    }
}

fn open(ratings: &std::path::Path, settings: &engine::Settings, metrics: engine::Metrics) -> anyhow::Result<Engine> {
    let folder = Disk::open(ratings).with_context(|| format!("data: {}", ratings.display()))?;
    let (engine, recovered) = Engine::open(Arc::new(folder), settings, metrics)?;
    tracing::info!(?recovered, "ratings recovered");
    Ok(engine)
}

/// Everything that is wrong with a config and the files it names; binds nothing.
#[must_use]
pub fn check(config: &Config) -> Vec<String> {
    let mut problems = config.problems();
    problems.extend(daemon::telemetry::check(&config.log).err().map(|error| error.to_string()));
    problems.extend(Tokens::load(&config.tokens).err().map(|error| error.to_string()));
    let file = config.topology.display();
    let topology = std::fs::read_to_string(&config.topology).map_err(|error| format!("{file}: {error}"));
    match topology.and_then(|text| geo::Topology::parse(&text).map_err(|error| format!("{file}: {error}"))) {
        Err(problem) => problems.push(problem),
        Ok(topology) => {
            problems.extend(geo::Resolver::load(&config.geo, &topology).err().map(|error| error.to_string()));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_api_whose_committer_failed_is_not_ready() {
        let (readiness, drain) = (Readiness::default(), Drain::new());
        tell_failure(async {}, readiness.clone(), drain.clone()).await;
        assert_eq!(readiness.missing(), ["committer"]);
        drain.start();
        let ready = Readiness::default();
        tell_failure(std::future::pending(), ready.clone(), drain).await;
        assert_eq!(ready.missing(), [] as [&str; 0], "it ends as it should");
    }
}
