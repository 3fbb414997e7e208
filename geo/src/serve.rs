//! `geo serve`: the daemon that knows which region serves whom, and publishes it.
//!
//! ```text
//!   routers --BMP--------+                       +--> /v1/resolve, explain, audit, stats: people and programs
//!   dumps, lists, geoip  +--> engine --> table --+
//!   rules, topology -----+      |                +--> /v1/table, /v1/table/changes: suns, caches, the popularity API
//!                               |
//!                               +--> data: the saved table, what a start begins with
//! ```
//!
//! In reading order: [`config`], this file (the start), `live` (the engine's shell), `sources` (what is followed),
//! `routes` and `publish` (who asks), `report` and `metrics` (what people see).

pub mod config;
mod live;
mod metrics;
mod publish;
pub(crate) mod report;
mod routes;
mod sources;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use daemon::admin::{self, Readiness};
use daemon::drain::Drain;
use daemon::folder::DataFolder;
use daemon::http;
use daemon::process::Process;
use daemon::tokens::Tokens;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::answer::Answer;
use crate::bmp;
use crate::client::TABLE_BYTES_MAX;
use crate::engine::{Engine, Loaded};
use crate::file;
use crate::table::Writer;
use crate::wire::{Changes, Position, Resolved};
pub use config::Config;
use live::Live;
use metrics::Metrics;
use publish::Publisher;
use sources::Sources;

/// Runs the process: `geo serve --config FILE`.
///
/// # Errors
///
/// Why it did not start.
pub fn run(file: &Path) -> anyhow::Result<ExitCode> {
    let config: Config = daemon::config::load(file)?;
    let process = Process::begin(&config.log, 0)?;
    let (drain, drain_s) = (process.drain().clone(), config.drain_s);
    process.run(start(Some(file.to_owned()), config, drain), drain_s)
}

/// A started server.
#[derive(Debug)]
pub struct Running {
    /// Where it listens (port 0 in the config asks for a free one).
    pub listen: SocketAddr,
    /// Its admin port.
    pub admin: SocketAddr,
    /// Where routers connect to.
    pub bmp: Option<SocketAddr>,
    /// Ends it: `drain.start()`, then `drain.finished(..)`.
    pub drain: Drain,
}

/// Starts the server; it runs until its drain. The admin port answers while files are read. With `file` the config is
/// followed there.
///
/// # Errors
///
/// What cannot be read or bound.
pub async fn start(file: Option<PathBuf>, config: Config, drain: Drain) -> anyhow::Result<Running> {
    let problems = config.problems();
    anyhow::ensure!(problems.is_empty(), "{}", problems.join("\n"));
    let folder = DataFolder::open(&config.data)?;
    let tokens = Tokens::follow(&config.tokens, &drain)?;
    let (registry, readiness) = (prometheus::Registry::new(), Readiness::default());
    let last_good = Some(config.data.join("topology.toml"));
    let watched = crate::watch::Metrics::register(&registry, &readiness)?;
    let topology = crate::watch::follow(&config.topology, last_good, watched).await?;
    readiness.expect(TABLE);
    let metrics = Metrics::register(&registry)?;
    let admin = admin::serve(config.admin, registry.clone(), readiness.clone(), &drain, axum::Router::new()).await?;
    let listener = bind(&drain, "listen", config.listen)?;
    let listen = listener.local_addr()?;
    let routers = match config.bmp.listen {
        Some(address) => Some(bind(&drain, "bmp.listen", address)?),
        None => None,
    };
    let bmp = routers.as_ref().map(TcpListener::local_addr).transpose()?;
    let heard = bmp::Metrics::register(&registry)?;

    let table = config.data.join("table");
    let (begun, saved) = (config.clone(), table.clone());
    let begun = tokio::task::spawn_blocking(move || begin(file, begun, topology, &saved));
    let (sources, engine) = begun.await.context("reading the sources")??;
    let (known, of_known) = watch::channel(live::fed(&config, &engine));
    let live = Arc::new(Live::new(engine));
    if !live.is_published() {
        tracing::warn!("there is no saved table: followers keep theirs until the routers have told what they have");
    }
    let waits_for = live.engine().stats(Instant::now()).waits_for;
    for router in waits_for {
        tracing::info!(%router, "waits for a router before the table counts as what they say");
    }
    tracing::info!(%listen, %admin, ?bmp, position = %live.position(), "the geo server listens");

    let (sink, updates) = mpsc::channel(config.bmp.queue_max);
    if let Some(routers) = routers {
        let (options, drain) = (config.bmp.options(), drain.clone());
        drain.clone().spawn(bmp::listen(routers, of_known, sink.clone(), options, heard, drain));
    }
    let queue = live::Queue { updates, _open: sink };
    drain.spawn(live::step(Arc::clone(&live), queue, metrics.clone(), readiness, drain.clone()));
    drain.spawn(live::follow(Arc::clone(&live), sources, known, metrics.clone(), drain.clone()));
    let saving = live::save(Arc::clone(&live), table, Duration::from_secs(config.publish.save_s), drain.clone());
    drain.spawn(async move {
        saving.await;
        drop(folder);
    });
    let request = Duration::from_secs(config.limits.request_s);
    let limits = http::Limits {
        connections_max: config.limits.connections_max,
        // The routes' own deadline comes first, with an answer that says so.
        request: request.saturating_add(Duration::from_secs(1)),
        ..http::Limits::default()
    };
    let (publisher, calls) = (Publisher::default(), metrics.calls.clone());
    let routes = routes::routes(Arc::new(routes::Shared {
        oracle: live,
        tokens,
        resolving: Arc::new(Semaphore::new(routes::RESOLVING_MAX)),
        publisher,
        calls,
        request,
        drain: drain.clone(),
    }));
    let ending = drain.clone();
    drain.spawn(http::serve(listener, routes, limits, async move { ending.wait().await }));
    Ok(Running { listen, admin, bmp, drain })
}

/// A socket that was inherited, or a new one.
fn bind(drain: &Drain, key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = drain.sockets().listener(address).and_then(TcpListener::from_std);
    listener.with_context(|| format!("{key}: cannot listen on {address}"))
}

/// Reads everything, and what was saved. When a source cannot be used, what was saved stands until it can.
fn begin(
    file: Option<PathBuf>,
    config: Config,
    topology: crate::topology::Watched,
    saved: &Path,
) -> anyhow::Result<(Sources, Engine)> {
    let mut sources = Sources::of(file, config, topology);
    let sizes = saved.with_file_name("sizes.json");
    file::remove_temporaries(saved);
    file::remove_temporaries(&sizes);
    let saved = match file::read_bounded(saved, TABLE_BYTES_MAX as u64) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(table = %saved.display(), %error, "the saved table cannot be read");
            None
        }
    };
    // A table that is damaged is nothing to stand on while sources are refused.
    let stands = saved.as_deref().is_some_and(|bytes| Writer::decode(bytes).is_ok());
    sources.remember(sizes, stands);
    let (loaded, why) = match sources.read() {
        Ok(loaded) => (loaded, None),
        Err(why) => (sources.read_partly(&why)?, Some(why)),
    };
    let engine = Engine::start(loaded, saved.as_deref(), epoch(), Instant::now());
    if let Some(why) = why {
        // Without a table to stand on, half of the sources are no table either.
        anyhow::ensure!(engine.is_published(), "{why}");
        tracing::warn!(%why, "a source cannot be used: the saved table stands until it can");
    }
    Ok((sources, engine))
}

/// Another number in each life of a server: milliseconds since 1970.
pub(crate) fn epoch() -> u64 {
    daemon::clock::unix_ms()
}

/// Everything that is wrong with a config and the files it names, and what of them does not count; binds nothing.
#[must_use]
pub fn check(config: &Config) -> Answer {
    let (mut problems, mut left_out) = (config.problems(), Vec::new());
    problems.extend(daemon::telemetry::check(&config.log).err().map(|error| error.to_string()));
    problems.extend(Tokens::load(&config.tokens).err().map(|error| error.to_string()));
    problems.extend(daemon::folder::check(&config.data).err().map(|error| error.to_string()));
    let inputs = config.inputs();
    match config.topology.load() {
        Err(problem) => {
            problems.push(problem);
            // Without regions only the files can be looked at.
            let files = inputs.files().into_iter().filter_map(|file| Some((file, std::fs::File::open(file).err()?)));
            problems.extend(files.map(|(file, error)| format!("{}: {error}", file.display())));
        }
        Ok(topology) => match Loaded::read(&inputs, &topology) {
            Err(error) => problems.extend(lines(&error.to_string())),
            Ok(loaded) => left_out = loaded.left_out(),
        },
    }
    let good = problems.is_empty();
    let told = left_out.iter().map(|what| format!("note: {what}\n"));
    let end = if good { "ok\n".to_owned() } else { problems.iter().map(|problem| format!("{problem}\n")).collect() };
    let json = serde_json::json!({ "ok": good, "problems": problems, "left_out": left_out });
    Answer { text: told.chain([end]).collect(), json, good }
}

/// What is waited for before the server is ready.
const TABLE: &str = "there is no table of addresses yet (geo stats says which routers are waited for)";

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// Who knows, as the routes ask it: the engine, and a small one in tests. What takes longer than a lookup is called off
/// the async threads.
pub(crate) trait Oracle: Send + Sync + 'static {
    /// The regions of a client.
    fn resolve(&self, client: IpAddr) -> Resolved;
    /// Why it is these.
    fn explain(&self, client: IpAddr) -> Answer;
    /// What an operator should look at.
    fn audit(&self) -> Answer;
    /// Sizes, sources, peers.
    fn stats(&self) -> Answer;
    /// Whether the table is for others, and not what is known before routers told theirs.
    fn is_published(&self) -> bool;
    /// Where the table is now.
    fn position(&self) -> Position;
    /// Tells where the table is, as it moves.
    fn moved(&self) -> watch::Receiver<Position>;
    /// The first `most` changes after a position; none when it does not know them.
    fn changes(&self, after: Position, most: usize) -> Option<Changes>;
    /// Whether it knows all changes after a position.
    fn reaches(&self, after: Position) -> bool;
    /// The table's bytes, and what they are of.
    fn encode(&self) -> (Position, Vec<u8>);
}
