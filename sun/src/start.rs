//! From settings to a running edge.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use daemon::admin::{self, Readiness};
use daemon::drain::Drain;
use daemon::files::Seen;
use daemon::tokens::{self, Tokens};
use daemon::upgrade::Stage;
use geo::rest::Rests;
use popularity_api::Client;
use popularity_api::signing::{self, Keys};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::control;
use crate::edge::{Edge, Pieces};
use crate::held::HeldFiles;
use crate::listener::{self, Kind, Listeners, Shared};
use crate::metrics::Metrics;
use crate::origin_tls;
use crate::purge::{Purges, follower};
use crate::report;
use crate::response::Signature;
use crate::store::Store;
use crate::store::policy::Settings;
use crate::tickets::Tickets;
use crate::tls::{self, Certificates};
use crate::upstream::Upstream;

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
    pub drain: Drain,
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
    pub readiness: Readiness,
    /// The topology, if the daemon follows it as well; without it the edge follows it itself.
    pub topology: Option<geo::topology::Watched>,
    /// What was purged ([`purges`]), if the daemon goes by it as well; without it the edge opens it itself.
    pub purges: Option<Arc<Purges>>,
}

impl Running {
    fn say(&self, name: &str) {
        let Self { https, http, internal, admin, .. } = self;
        tracing::info!(name, ?https, ?http, %internal, %admin, "the edge listens");
    }
}

/// Starts an edge; it runs until its drain.
///
/// # Errors
///
/// What cannot be read or bound.
pub async fn start(config: Config, parts: Parts, drain: Drain) -> anyhow::Result<Running> {
    let Topologies { written, topology, rests } = followed(&config, &parts).await?;
    let domain = {
        let topology = topology.borrow();
        known_name(&config, &topology)?;
        topology.domain.clone()
    };
    let table = Some(config.data.join("geo.table"));
    let resolver = geo::resolver::follow(config.geo.clone(), written, table, &parts.registry).await?;
    let purges = match parts.purges {
        Some(purges) => purges,
        None => purges(&config, &topology.borrow())?,
    };
    lend(&drain, &purges);
    let seen_keys = Seen::now(config.signing_keys.iter().cloned().collect());
    let keys = Keys::load(config.signing_keys.as_deref())?;
    let token = tokens::read_secret(&config.token)?;
    let client = config.popularity.as_ref().map(Client::new).transpose()?;
    let metrics = Metrics::new(&parts.registry)?;
    let secured =
        (!config.https.is_empty()).then(|| Secured::load(&config, &metrics, !drain.is_alone())).transpose()?;
    let workers = config.workers_count();
    let listeners = Listeners::bind(&addresses(&config), workers, drain.sockets())?;
    let store = open_store(&config, parts.registry.clone()).await?;
    let pieces = Pieces {
        topology,
        rests,
        resolver,
        tokens: Tokens::follow(&config.tokens, &drain)?,
        upstream: upstream(&config, &token, &domain)?,
        metrics,
        signature: Signature::new(&config.name)?,
        held: parts.held,
        purges: Arc::clone(&purges),
        keys,
        store,
    };
    parts.readiness.expect(PURGES);
    let running = Running {
        https: listeners.addresses(Kind::Https),
        http: listeners.addresses(Kind::Http),
        internal: listeners.addresses(Kind::Internal)[0],
        admin: admin::serve(config.admin, parts.registry, parts.readiness.clone(), &drain, axum::Router::new()).await?,
        drain: drain.clone(),
    };
    let tls = secured.as_ref().map(Secured::server_config).transpose()?.map(TlsAcceptor::from);
    let connections = TaskTracker::new();
    let edge = Arc::new(Edge::new(config, pieces));
    let shared = Shared { edge: Arc::clone(&edge), tls, drain: drain.clone(), connections: connections.clone() };
    // Nothing that was purged while this server was down may be served. Connections wait meanwhile; when the API is
    // away, what is known of the log has to do.
    let caught_up = match &client {
        Some(client) => follower::catch_up(&purges, client).await,
        None => true,
    };
    edge.metrics.purges(&purges);
    listener::start(&shared, listeners, workers)?;
    parts.readiness.hold(PURGES);
    running.say(&edge.config.name);
    if let Some(client) = client.clone() {
        drain.spawn(follower::follow(Arc::clone(&edge), client, !caught_up, drain.clone()));
    }
    Secured::follow(secured, &edge, &parts.readiness, &drain);
    follow_keys(&edge, seen_keys, &drain);
    drain.spawn(control::tell_topology(Arc::clone(&edge), drain.clone()));
    let ended = connections.clone();
    drain.spawn(report::report_downloads(Arc::clone(&edge), client.clone(), drain.clone(), connections));
    drain.spawn(close_store(Arc::clone(&edge), drain.clone(), ended));
    drain.spawn(control::report_status(edge, client, drain.clone()));
    Ok(running)
}

/// The topology as the operator wrote it, and in effect while suns rest.
struct Topologies {
    written: geo::topology::Watched,
    topology: geo::topology::Watched,
    rests: watch::Sender<Rests>,
}

/// The topology as the daemon follows it, or else followed for the edge alone.
async fn followed(config: &Config, parts: &Parts) -> anyhow::Result<Topologies> {
    if let Some(problem) = config.rest.problem() {
        anyhow::bail!(problem);
    }
    std::fs::create_dir_all(&config.data).with_context(|| format!("data: {}", config.data.display()))?;
    let written = match &parts.topology {
        Some(topology) => topology.clone(),
        None => {
            let metrics = geo::watch::Metrics::register(&parts.registry, &parts.readiness)?;
            geo::watch::follow(&config.topology, Some(config.data.join("topology.toml")), metrics).await?
        }
    };
    let rests = watch::Sender::default();
    let topology = geo::rest::follow(written.clone(), rests.subscribe());
    Ok(Topologies { written, topology, rests })
}

/// Has the keys of signed links reread when they change.
fn follow_keys(edge: &Edge, seen: Seen, drain: &Drain) {
    let (keys, file) = (Arc::clone(&edge.keys), edge.config.signing_keys.clone());
    let lacking = edge.metrics.keys_lacking.clone();
    drain.spawn(signing::follow(keys, (file, seen), edge.watched(), lacking, drain.clone()));
}

/// What TLS listeners need, and the files that it is from as they were before they were loaded.
struct Secured {
    certificates: Arc<Certificates>,
    tickets: Arc<Tickets>,
    seen_certificates: Seen,
    seen_secret: Seen,
}

impl Secured {
    fn load(config: &Config, metrics: &Metrics, takes_over: bool) -> anyhow::Result<Self> {
        let seen_certificates = Seen::now(control::certificate_files(&config.certificates));
        let seen_secret = Seen::now(config.ticket_secret.iter().cloned().collect());
        let certificates = Certificates::load(&config.certificates, control::now_s())?;
        // The process before this one may have a good one that its files no longer hold.
        if takes_over && let Some(why) = certificates.shown_invalid(control::now_s()) {
            anyhow::bail!("{why}; until then the process before this one stays");
        }
        for why in certificates.invalid(control::now_s()) {
            tracing::error!(why, "clients refuse this server");
        }
        let tickets = Tickets::new(config.ticket_secret.as_deref(), metrics.unknown_tickets.clone())?;
        Ok(Self { certificates: Arc::new(certificates), tickets: Arc::new(tickets), seen_certificates, seen_secret })
    }

    fn server_config(&self) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
        tls::server_config(Arc::clone(&self.certificates), Arc::clone(&self.tickets))
    }

    /// Has the files reread when they change.
    fn follow(secured: Option<Self>, edge: &Edge, readiness: &Readiness, drain: &Drain) {
        let Some(Self { certificates, tickets, seen_certificates, seen_secret }) = secured else { return };
        let (config, metrics, readiness) = (&edge.config, &edge.metrics, readiness.clone());
        let [refused, invalid, ends] =
            [&metrics.certificates_refused, &metrics.certificates_invalid, &metrics.certificates_end].map(Clone::clone);
        let told = control::Told { refused, invalid, ends, readiness };
        let files = config.certificates.clone();
        drain.spawn(control::follow_certificates(certificates, files, seen_certificates, told, drain.clone()));
        if let Some(file) = config.ticket_secret.clone() {
            drain.spawn(control::follow_tickets(tickets, file, seen_secret, drain.clone()));
        }
    }
}

/// Opens what is known of purges, in the edge's data folder. Blocks on the disk.
///
/// # Errors
///
/// When the folder cannot be made, or the file not be read or written.
pub fn purges(config: &Config, topology: &geo::Topology) -> anyhow::Result<Arc<Purges>> {
    known_name(config, topology)?;
    let region = topology.server(&config.name).context("its name was found just now")?.region;
    std::fs::create_dir_all(&config.data).with_context(|| format!("data: {}", config.data.display()))?;
    let purges = Purges::open(&config.data, region);
    Ok(Arc::new(purges.with_context(|| format!("data: {}: purges", config.data.display()))?))
}

/// What is known of purges is written by one process: a new one has the file as soon as it starts.
fn lend(drain: &Drain, purges: &Arc<Purges>) {
    let purges = Arc::clone(purges);
    drain.on_upgrade(move |stage| match stage {
        Stage::Lend => purges.lend(),
        Stage::TakeBack => {
            if let Err(error) = purges.take_back() {
                tracing::error!(%error, "what is purged from now on is in force and not kept: restart this server");
            }
        }
    });
}

/// Opens the devices: their segments' first and last pages are read before anything is served.
async fn open_store(config: &Config, registry: prometheus::Registry) -> anyhow::Result<Store> {
    let (devices, settings) = (config.store.clone(), policy(config));
    tokio::task::spawn_blocking(move || Store::open(&devices, settings, &registry)).await?
}

fn policy(config: &Config) -> Settings {
    let bytes = config.store.iter().fold(0_u64, |sum, device| sum.saturating_add(device.bytes));
    let admission = config.store_admission;
    // A drive write a day: what the plainest drives are made for.
    let write_bytes_per_day = config.store_write_bytes_per_day.unwrap_or(bytes);
    let ghost_entries = usize::try_from(bytes / GHOST_BYTES).unwrap_or(usize::MAX);
    Settings { admission, write_bytes_per_day, ghost_entries, ..Settings::default() }
}

/// Publishes what the store counts until the drain has ended all connections, then closes it. When a new process has taken
/// over it gets the devices at once; what is served until the end is still read from them.
async fn close_store(edge: Arc<Edge>, drain: Drain, connections: TaskTracker) {
    if !edge.store.is_configured() {
        return;
    }
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = tick.tick() => edge.store.publish(),
            () = drain.wait() => break,
        }
    }
    let (store, handed_over) = (edge.store.clone(), drain.handed_over());
    if !handed_over {
        connections.wait().await;
    }
    let closing = move || if handed_over { store.hand_over() } else { store.close() };
    if tokio::task::spawn_blocking(closing).await.is_err() {
        tracing::error!("the store was not closed");
    }
}

fn upstream(config: &Config, token: &str, domain: &str) -> anyhow::Result<Upstream> {
    let connector = origin_tls::connector(&config.upstream)?;
    Ok(Upstream::new(&config.upstream, connector, token, &config.name, domain)?)
}

pub(crate) fn known_name(config: &Config, topology: &geo::Topology) -> anyhow::Result<()> {
    anyhow::ensure!(
        !config.name.is_empty(),
        "name: is missing: it is what the topology calls this server, \"sun4-2-1\""
    );
    anyhow::ensure!(
        topology.server(&config.name).is_some(),
        "name = {:?}: no sun or cache of {} has this name",
        config.name,
        config.topology
    );
    Ok(())
}

fn addresses(config: &Config) -> Vec<(Kind, SocketAddr)> {
    let https = config.https.iter().map(|address| (Kind::Https, *address));
    let http = config.http.iter().map(|address| (Kind::Http, *address));
    https.chain(http).chain([(Kind::Internal, config.internal)]).collect()
}

/// One offer or drop is remembered for so many bytes of store: one for each block, if half of them are small files.
const GHOST_BYTES: u64 = 512 << 10;

/// Readiness waits for the purges that came while this server was down.
const PURGES: &str = "purges of its downtime are being caught up with";
