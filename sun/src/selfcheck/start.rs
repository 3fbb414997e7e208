//! From settings to a running self-check.
//!
//! ```text
//!   prober --Round--+                                   +--> speaker --> BIRD, ExaBGP
//!   pidfd ---Ended--+                                   |
//!   peers --Members-+--> driver --> machine --> driver -+--> status --> admin, internal
//!   topology -------+                                   |
//!   orders ---------+                                   +--> history, metrics, log
//! ```

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use daemon::admin::{self, Readiness};
use daemon::clock::unix_ms;
use daemon::drain::Drain;
use daemon::files::{self, Seen};
use daemon::findings::Findings;
use daemon::folder::DataFolder;
use daemon::tokens::{self, Tokens};
use geo::topology::Watched;
use rustls::pki_types::ServerName;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use super::asking::{ask_api, ask_others};
use super::config::{Config, SpeakerKind};
use super::contradictions;
pub use super::driver::Heard;
use super::driver::{Driver, FIRST_PROBE, Links, Round};
use super::exabgp::Exabgp;
use super::history::{self, History};
use super::judge::Judge;
use super::local;
use super::machine::{Machine, Rules, State};
use super::metrics::Metrics;
use super::own::{Found, Own};
use super::peers::Asker;
use super::pressure::Pressure;
use super::probe::{Answer, Prober};
use super::process;
use super::pulse::Pulse;
use super::routes::{self, Desk};
use super::speaker::{Speaker, Speaking};
use super::status::Status;

/// A started self-check.
#[derive(Debug)]
pub struct Running {
    /// Where the others ask.
    pub internal: SocketAddr,
    /// Admin port.
    pub admin: SocketAddr,
    /// Nobody else uses the data folder.
    _folder: DataFolder,
}

/// Starts it; it runs until its drain.
///
/// # Errors
///
/// What cannot be read or bound.
pub async fn start(config: Config, drain: Drain) -> anyhow::Result<Running> {
    let problems = config.problems();
    anyhow::ensure!(problems.is_empty(), problems.join("; "));
    let folder = DataFolder::open(&config.data)?;
    let registry = prometheus::Registry::new();
    let last_good = Some(config.data.join("topology.toml"));
    let readiness = Readiness::default();
    let watched = geo::watch::Metrics::register(&registry, &readiness)?;
    let topology = geo::watch::follow(&config.topology, last_good, watched).await?;
    known(&config, &topology.borrow())?;
    let order = history::order(&config.data).context("the operator's order in `data`")?;
    let token = tokens::read_secret(&config.token)?;
    let tokens = Tokens::follow(&config.tokens, &drain)?;
    let seen = Seen::now(vec![config.probe.trust.clone()]);
    let prober = Prober::new(&token, &config.probe)?;
    let asker = Asker::new(&token, Duration::from_millis(config.guard.timeout_ms))?;
    let api = config.popularity.as_ref().map(popularity_api::Client::new).transpose()?;
    let metrics = Metrics::new(&registry)?;
    readiness.expect(FIRST_PROBE);

    let clock = Instant::now();
    let penalty = history::penalty(&config.data, config.thresholds.flap_half_life_s, unix_ms());
    let machine = Machine::new(Rules::of(&config), order.is_some(), penalty, 0);
    let announced = machine.announced();
    let mut status = Status::new(&config.name, machine.state(), Speaking::new(config.speaker.kind), unix_ms());
    if let Some(order) = &order {
        (status.reason, status.since_ms) = (order.reason.clone(), order.since_ms);
    }
    debug_assert!(order.is_none() || machine.state() == State::Disabled);
    status.order = order;
    let status = Arc::new(Mutex::new(status));
    let (sender, receiver) = mpsc::channel(EVENTS_MAX);
    let pulse = Pulse::new(clock);
    let desk = Desk {
        status: Arc::clone(&status),
        tokens,
        name: config.name.clone(),
        orders: sender.clone(),
        pulse: (pulse.clone(), config.probe.every_ms),
    };
    let internal = serve_internal(&config, desk.clone(), &drain).await?;
    let admin = admin::serve(config.admin, registry, readiness.clone(), &drain, routes::admin(desk)).await?;

    let speaker = speaker(&config, &topology, &drain).context("ExaBGP")?;
    let (wanted, orders) = watch::channel(announced);
    let (pid, pids) = watch::channel(0);
    let (probe, (look, looks)) = (Arc::new(Notify::new()), watch::channel(0));
    let speaking = speaker.shared();
    let links = Links { wanted, speaking, pid, probe: Arc::clone(&probe), look, heard: sender.clone() };
    drain.spawn(speaker.run(orders));
    let history = History::open(&config.data, config.history_entries_max).context("the history in `data`")?;
    let driver = Driver::new(config.clone(), machine, status, (metrics, readiness), (links, pulse, history));
    drain.spawn(driver.run(receiver, drain.clone()));
    // None of these holds anything that must be finished: they end with the process.
    tokio::spawn(process::watch(pids, sender.clone()));
    tokio::spawn(follow_topology(config.name.clone(), topology.clone(), sender.clone()));
    if let Some(client) = api {
        tokio::spawn(ask_api(config.name.clone(), topology.clone(), client, sender.clone()));
    }
    tokio::spawn(ask_others(config.clone(), topology.clone(), asker, (looks, clock), sender.clone()));
    let trust = config.probe.trust.clone();
    let reloading = prober.clone();
    drain.spawn(files::follow(seen, drain.clone(), move || reloading.reload(&trust)));
    tokio::spawn(probe_on(config, topology, prober, probe, sender));
    Ok(Running { internal, admin, _folder: folder })
}

fn speaker(config: &Config, topology: &Watched, drain: &Drain) -> std::io::Result<Speaker> {
    let exabgp = (config.speaker.kind == SpeakerKind::Exabgp)
        .then(|| Exabgp::new(&config.speaker, &config.name, topology.clone(), Box::new(std::io::stdout())))
        .transpose()?;
    if let Some(exabgp) = &exabgp {
        let drain = drain.clone();
        exabgp.listen(std::io::stdin(), move || drain.start())?;
    }
    Ok(Speaker::new(&config.speaker, exabgp))
}

async fn serve_internal(config: &Config, desk: Desk, drain: &Drain) -> anyhow::Result<SocketAddr> {
    let listener = drain.sockets().listener(config.internal).and_then(TcpListener::from_std);
    let listener = listener.with_context(|| format!("internal listener {}", config.internal))?;
    let bound = listener.local_addr()?;
    let ended = {
        let drain = drain.clone();
        async move { drain.wait().await }
    };
    // A self-check that ends is silent, which is what the others are to know of it.
    tokio::spawn(daemon::http::serve(listener, routes::internal(desk), daemon::http::Limits::default(), ended));
    Ok(bound)
}

async fn follow_topology(name: String, mut topology: Watched, heard: mpsc::Sender<Heard>) {
    loop {
        let draining = topology.borrow_and_update().sun(&name).map(|sun| sun.server.draining());
        if heard.send(Heard::Topology(draining)).await.is_err() {
            return;
        }
        if topology.changed().await.is_err() {
            return;
        }
    }
}

async fn probe_on(config: Config, topology: Watched, prober: Prober, now: Arc<Notify>, heard: mpsc::Sender<Heard>) {
    let every = Duration::from_millis(config.probe.every_ms);
    let mut next = tokio::time::Instant::now();
    let (mut known, mut judge, mut own) = (None, Judge::default(), Own::new(config.probe.own_address));
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = now.notified() => {}
        }
        next = tokio::time::Instant::now() + every;
        // A sun that the topology has lost is asked on: it may serve, and may be the last that does. The WARN of the loss is
        // the driver's.
        known = server_name(&config, &topology.borrow()).ok().or(known);
        let Some(name) = known.clone() else { continue };
        let Found { ask, lost, warnings } = own.look(&topology.borrow(), &config.name, local::is_local);
        let mut addresses: Vec<SocketAddr> = config.probe.addresses.iter().copied().chain(ask).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let mut asking = JoinSet::new();
        for address in addresses {
            let (prober, name) = (prober.clone(), name.clone());
            asking.spawn(async move { prober.ask(address, name).await });
        }
        let mut answers = asking.join_all().await;
        answers.extend(lost.into_iter().map(Answer::of_lost));
        answers.sort_by_key(|answer| answer.address);
        let pressure = Pressure::now();
        let now_s = i64::try_from(daemon::clock::unix_s()).unwrap_or(i64::MAX);
        let mut judged = judge.judge(&answers, &pressure, &config.checks, now_s);
        judged.warnings.extend(warnings);
        if heard.send(Heard::Probed(Box::new(Round { answers, judged, pressure }))).await.is_err() {
            return;
        }
    }
}

/// The name that the sun is asked for.
fn server_name(config: &Config, topology: &geo::Topology) -> anyhow::Result<ServerName<'static>> {
    let usual = || topology.sun(&config.name).map(|sun| sun.server.host.clone());
    let name = config.probe.server_name.clone().or_else(usual).context("the topology has no such sun any more")?;
    ServerName::try_from(name.clone()).with_context(|| format!("probe.server_name: {name:?} is no name"))
}

fn known(config: &Config, topology: &geo::Topology) -> anyhow::Result<()> {
    let (name, source) = (&config.name, &config.topology);
    anyhow::ensure!(topology.sun(name).is_some(), "name = {name:?}: no sun of {source} has this name");
    server_name(config, topology).map(drop)
}

/// Everything that is wrong with a config and the files it names; binds nothing.
#[must_use]
pub fn check(config: &Config) -> Findings {
    let mut findings = Findings::from(config.problems());
    let problems = &mut findings.problems;
    let topology = config.topology.load().map_err(|problem| problems.push(problem)).ok();
    let topology = topology.filter(|topology| {
        let unknown = if config.name.is_empty() { None } else { known(config, topology).err() };
        let is_known = unknown.is_none() && !config.name.is_empty();
        problems.extend(unknown.map(|error| error.to_string()));
        is_known
    });
    let tokens = Tokens::load(&config.tokens).map_err(|error| problems.push(error.to_string())).ok();
    let token = tokens::read_secret(&config.token).map_err(|error| problems.push(error.to_string())).ok();
    if let Some(token) = &token {
        let prober = Prober::new(token, &config.probe);
        problems.extend(prober.err().map(|error| error.to_string()));
    }
    problems.extend(daemon::folder::check(&config.data).err().map(|error| error.to_string()));
    let order = history::order(&config.data).err();
    problems.extend(order.map(|error| format!("data: {}: the operator's order: {error}", config.data.display())));
    problems.extend(daemon::telemetry::check(&config.log).err().map(|error| error.to_string()));
    if let Some(popularity) = &config.popularity {
        problems.extend(popularity_api::Client::new(popularity).err().map(|error| error.to_string()));
    }
    if let Some(topology) = &topology {
        if let (Some(tokens), Some(token)) = (&tokens, &token) {
            let whose = tokens.identify(Some(&format!("Bearer {token}")));
            problems.extend(contradictions::of_token(config, topology, whose.as_deref()));
        }
        findings.extend(contradictions::of_group(config, topology));
        findings.warnings.extend(contradictions::of_place(config, topology));
        if let Some(bird) = contradictions::ask_bird(config) {
            findings.extend(contradictions::of_bird(config, topology, bird.as_ref()));
        }
    }
    findings
}

/// What a drain may take, seconds: two rounds with a speaker that is slow, the one that is under way and the one that withdraws;
/// what is repeated of it; and the routers' time to hear of it.
pub const DRAIN_S: u64 = 5;

/// Events that may wait for the driver; it takes microseconds for each.
const EVENTS_MAX: usize = 256;
