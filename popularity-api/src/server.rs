//! From settings to a running API.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use daemon::admin::{self, Readiness};
use daemon::drain::Drain;
use daemon::files::Seen;
use daemon::folder::DataFolder;
use daemon::http;
use daemon::metrics::level;
use daemon::tokens::Tokens;

use crate::api::{self, Api};
use crate::cluster::{self, Cluster};
pub use crate::config::Config;
use crate::engine::feed::Feed;
use crate::engine::folder::Disk;
use crate::engine::table::Takes;
use crate::engine::{self, Engine};
use crate::history::sender::Sender;
use crate::history::spool::Spool;
use crate::history::{self, History};
use crate::names;
use crate::purge::Ledger;
use crate::purge::log::{self, Log};
use crate::ratings::{Embedded, Ratings};
use crate::replica::ratings::settle;
use crate::replica::start::Beginning;
use crate::routes;
use crate::signing::{self, Keys};

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
    let folder = DataFolder::open(&config.data)?;
    let tokens = Tokens::follow(&config.tokens, &drain)?;
    let seen_keys = Seen::now(config.signing_keys.iter().cloned().collect());
    let keys = Arc::new(ArcSwap::from_pointee(Keys::load(config.signing_keys.as_deref())?));
    let (registry, readiness) = (prometheus::Registry::new(), Readiness::default());
    let last_good = Some(config.data.join("topology.toml"));
    let watched = geo::watch::Metrics::register(&registry, &readiness)?;
    let topology = geo::watch::follow(&config.topology, last_good, watched).await?;
    let table = Some(config.data.join("geo.table"));
    let resolver = geo::resolver::follow(config.geo.clone(), topology.clone(), table, &registry).await?;

    let rests = tokio::sync::watch::Sender::default();
    let topology = geo::rest::follow(topology, rests.subscribe());
    readiness.expect(RECOVERY);
    let metrics = api::Metrics::register(&registry)?;
    let kind = Kind::chosen(&config, &registry, &readiness)?;
    let history = history(&config, &registry, &drain).await?;
    let admin = admin::serve(config.admin, registry, readiness.clone(), &drain, axum::Router::new()).await?;
    let listener = drain.sockets().listener(config.listen).and_then(tokio::net::TcpListener::from_std);
    let listener = listener.with_context(|| format!("cannot listen on {}", config.listen))?;
    let listen = listener.local_addr()?;

    let purges = config.data.join("purges");
    let log = tokio::task::spawn_blocking(move || Log::open(&purges, daemon::clock::unix_ms(), log::KEPT)).await?;
    let purges = Ledger::new(log.with_context(|| format!("data: {}: purges", config.data.display()))?);
    metrics.purge_sequence.set(level(purges.latest()));
    let known = topology.borrow().clone();
    let takes = Takes::new(move |file| names::spelled(&known, file).is_ok());
    let (ratings, feed, copy) = kind.open(&config.data, takes).await?;

    let limits = http::Limits {
        connections_max: config.limits.connections_max,
        // The routes' own deadline comes first, with an answer that says so.
        request: Duration::from_secs(config.limits.request_s.saturating_add(1)),
        ..http::Limits::default()
    };
    let (key_file, lacking) = (config.signing_keys.clone(), metrics.keys_lacking.clone());
    let api = Api::new(config, tokens, ratings, metrics, purges, keys, topology, resolver)
        .with_history(history)
        .with_rests(rests);
    let api = Arc::new(api);
    if let Some(feed) = feed {
        api.set_feed(feed);
    }
    let following = (key_file, seen_keys);
    drain.spawn(signing::follow(Arc::clone(&api.keys), following, api.watched(), lacking, drain.clone()));
    if let (Some(copy), Some(replica)) = (copy, &api.config.replica) {
        copy.begin(&api, &api.config, replica, &drain).await?;
    }
    readiness.hold(RECOVERY);
    tracing::info!(%listen, %admin, "the popularity API listens");
    drain.spawn(tell_topology(Arc::clone(&api), drain.clone()));
    drain.spawn(tell_failure(api.ratings.failed(), readiness, drain.clone()));
    let ending = drain.clone();
    drain.spawn(async move {
        let end = async {
            ending.wait().await;
            api.end_waits();
        };
        http::serve(listener, routes::routes(Arc::clone(&api)), limits, end).await;
        // The last commit and snapshot.
        api.ratings.close().await;
        drop(folder);
    });
    Ok(Running { listen, admin, drain })
}

/// Starts the history, if one is to be kept. Its last batch is sealed when the API is no more.
async fn history(config: &Config, registry: &prometheus::Registry, drain: &Drain) -> anyhow::Result<Option<History>> {
    let settings = config.history.clone();
    let Some(access) = settings.access().context("history")? else { return Ok(None) };
    let metrics = Arc::new(history::Metrics::register(registry)?);
    let folder = config.data.join("history");
    let (waiting, sent) = (settings.spool_bytes_max, settings.sent_bytes_max);
    let opened = tokio::task::spawn_blocking(move || Spool::open(&folder, waiting, sent)).await?;
    let spool = opened.with_context(|| format!("data: {}: history", config.data.display()))?;
    let (history, noted) = History::new(Arc::clone(&metrics));
    let sender = Sender::new(spool, metrics);
    drain.spawn(sender.clone().gather(noted, Duration::from_secs(settings.flush_s), settings.rows_max));
    let ending = drain.clone();
    drain.spawn(async move {
        tokio::select! {
            () = sender.deliver(access) => {}
            () = ending.wait() => {}
        }
    });
    Ok(Some(history))
}

/// Tells which topology the API goes by, as it changes, until the drain.
async fn tell_topology(api: Arc<Api>, drain: Drain) {
    let mut topology = api.watched();
    loop {
        let (version, lacking) = {
            let topology = topology.borrow_and_update();
            (topology.version, api.keys.load().lacking(&topology).len())
        };
        // Whoever sees the version sees which of its keys are missing.
        api.metrics.keys_lacking.set(level(lacking));
        api.metrics.topology_version.set(level(version));
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
            readiness.expect(COMMITTER);
        }
        () = drain.wait() => {}
    }
}

/// What ratings are kept in.
enum Kind {
    Embedded(engine::Settings, engine::Metrics),
    Cluster(cluster::Settings, cluster::Metrics),
    Copy(Beginning),
}

/// What answers for ratings, the feed of its binlog if it has one, and what is to begin where it is a copy.
type Opened = (Arc<dyn Ratings>, Option<Feed>, Option<Beginning>);

impl Kind {
    fn chosen(config: &Config, registry: &prometheus::Registry, readiness: &Readiness) -> anyhow::Result<Self> {
        if let Some(settings) = config.cluster().map_err(anyhow::Error::msg)? {
            return Ok(Self::Cluster(settings, cluster::Metrics::register(registry)?));
        }
        let settings = config.engine().context("ratings: a half-life or share is out of bounds")?;
        let metrics = engine::Metrics::register(registry)?;
        let Some(replica) = &config.replica else { return Ok(Self::Embedded(settings, metrics)) };
        Ok(Self::Copy(Beginning::new(replica, settings, metrics, registry, readiness.clone())?))
    }

    async fn open(self, data: &Path, takes: Takes) -> anyhow::Result<Opened> {
        match self {
            Self::Embedded(settings, metrics) => {
                let folder = data.join("ratings");
                let opened = tokio::task::spawn_blocking(move || open(&folder, &settings, metrics, takes)).await??;
                let feed = opened.feed().clone();
                Ok((Arc::new(Embedded::new(Arc::new(opened))), Some(feed), None))
            }
            Self::Cluster(settings, metrics) => {
                tracing::info!(nodes = ?settings.nodes, "ratings are kept in a cluster");
                Ok((Arc::new(Cluster::start(settings, metrics).context("cluster.nodes")?), None, None))
            }
            Self::Copy(copy) => Ok((Arc::new(copy.ratings()), None, Some(copy))),
        }
    }
}

fn open(ratings: &Path, settings: &engine::Settings, metrics: engine::Metrics, takes: Takes) -> anyhow::Result<Engine> {
    settle(ratings)?;
    let folder = Disk::open(ratings).with_context(|| format!("data: {}", ratings.display()))?;
    let (engine, recovered) = Engine::open_taking(Arc::new(folder), settings, metrics, Some(takes))?;
    tracing::info!(?recovered, "ratings recovered");
    Ok(engine)
}

/// Everything that is wrong with a config and the files it names; binds nothing.
#[must_use]
pub fn check(config: &Config) -> Vec<String> {
    let mut problems = config.problems();
    problems.extend(daemon::telemetry::check(&config.log).err().map(|error| error.to_string()));
    problems.extend(Tokens::load(&config.tokens).err().map(|error| error.to_string()));
    problems.extend(daemon::folder::check(&config.data).err().map(|error| error.to_string()));
    problems.extend(config.cluster().err());
    if let Some(replica) = &config.replica {
        problems.extend(crate::replica::start::client(replica).err().map(|error| error.to_string()));
    }
    match config.topology.load() {
        Err(problem) => problems.push(problem),
        Ok(topology) => {
            problems.extend(geo::Resolver::load(&config.geo, &topology).err().map(|error| error.to_string()));
            problems.extend(signing::problems(config.signing_keys.as_deref(), &topology));
        }
    }
    problems
}

/// What is waited for before the API is ready.
const RECOVERY: &str = "the ratings are being recovered";
/// What it is never ready again for.
pub(crate) const COMMITTER: &str = "the committer thread has ended: restart this API";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_looks_at_the_data_folder() {
        let place = tempfile::tempdir().unwrap();
        let of_data = |data: &str| {
            let problems = check(&Config { data: data.into(), ..Config::default() });
            problems.iter().filter(|problem| problem.starts_with("data: ")).count()
        };
        assert_eq!(of_data("/proc/nope"), 1);
        assert_eq!(of_data(&place.path().join("made/later").display().to_string()), 0);
        assert!(!place.path().join("made").exists(), "it leaves nothing behind");
    }

    #[tokio::test]
    async fn an_api_whose_committer_failed_is_not_ready() {
        let (readiness, drain) = (Readiness::default(), Drain::new());
        tell_failure(async {}, readiness.clone(), drain.clone()).await;
        assert_eq!(readiness.missing(), [COMMITTER]);
        drain.start();
        let ready = Readiness::default();
        tell_failure(std::future::pending(), ready.clone(), drain).await;
        assert_eq!(ready.missing(), [] as [&str; 0], "it ends as it should");
    }
}
