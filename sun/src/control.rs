//! The edge's status for the popularity API, and its other periodic work.
//!
//! Downloads go separately ([`crate::report`]), so that a slow commit never makes this server look silent.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use daemon::admin::Readiness;
use daemon::drain::Drain;
use daemon::files::{self, Seen};
use daemon::metrics::level;
use geo::rest::Rests;
use geo::{CanonicalName, Topology};
use popularity_api::Client;
use popularity_api::wire::{HotRate, Load, RegionState, StatusReport, Tier};
use prometheus::IntGauge;

use crate::config::Certificate;
use crate::edge::Edge;
use crate::hot::Passing;
use crate::hot::turn::Turns;
use crate::metrics::Outcome;
use crate::pressure;
use crate::resting::Resting;
use crate::tickets::Tickets;
use crate::tls::Certificates;

/// Tells which topology this server goes by, as it changes, until the drain.
pub async fn tell_topology(edge: Arc<Edge>, drain: Drain) {
    let mut topology = edge.watched();
    loop {
        let (version, lacking, drains) = {
            let topology = topology.borrow_and_update();
            (topology.version, edge.keys.load().lacking(&topology).len(), is_relieved(&topology, &edge.config.name))
        };
        edge.leads_away.store(drains, Ordering::Relaxed);
        // Whoever sees the version sees which of its keys are missing.
        edge.metrics.keys_lacking.set(level(lacking));
        // So that it is remembered from now on, and not from the first request on that needs it.
        drop(edge.topologies());
        edge.metrics.topology_version.set(level(version));
        tokio::select! {
            changed = topology.changed() => if changed.is_err() { return },
            () = drain.wait() => return,
        }
    }
}

/// Whether the topology drains this sun, and another one of its group is there for its clients.
fn is_relieved(topology: &Topology, name: &str) -> bool {
    let Some(sun) = topology.sun(name).filter(|sun| sun.server.draining()) else { return false };
    let region = topology.region(sun.server.region);
    let suns = region.map(|region| region.suns.as_slice()).unwrap_or_default();
    suns.iter().any(|other| other.group == sun.group && other.server.weight.get() > 0)
}

/// Reports status and hears the region's state until the drain; the last report says that it drains, unless another
/// process serves in its place: that one reports.
pub async fn report_status(edge: Arc<Edge>, client: Option<Client>, drain: Drain) {
    let period = Duration::from_millis(edge.config.report_ms);
    let mut rates = Rates::new(&edge);
    let mut turns = Turns::default();
    let mut resting = Resting::default();
    let mut away = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(period) => {}
            () = drain.wait() => {}
        }
        if drain.handed_over() {
            return;
        }
        edge.draining.store(drain.started(), Ordering::Relaxed);
        let (running, queued) = edge.slots.busy();
        edge.metrics.upstream_requests.set(level(running));
        edge.metrics.upstream_queued.set(level(queued));
        edge.metrics.ram_bytes.set(level(edge.ram.fullness().0));
        let report = status(&edge, &mut rates, &mut turns, &mut resting);
        if let Some(client) = &client {
            match client.report_status(&report).await {
                Ok(state) => {
                    let now_ms = edge.now_ms();
                    edge.region.rcu(|view| {
                        let mut view = crate::region::RegionView::clone(view);
                        view.hear(&state, now_ms);
                        view
                    });
                    hear_rests(&edge, resting_of(&state));
                    if std::mem::take(&mut away) {
                        tracing::info!("the popularity API answers again");
                    }
                }
                Err(error) => {
                    if !edge.region.load().recent(edge.now_ms()) {
                        // Nobody hears of the others: all go by the topology as it is written.
                        hear_rests(&edge, Rests::new());
                    }
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(%error, "no state of the region: owners are the topology's");
                    }
                }
            }
        }
        spread(&edge, &mut turns);
        if drain.started() {
            return;
        }
    }
}

/// The share of its weight that this sun takes while it rests.
fn rest(edge: &Edge, resting: &mut Resting, pressure: f64) -> Option<f64> {
    if edge.held.is_some() {
        return None;
    }
    let share = resting.look(&edge.config.rest, pressure, edge.now_ms());
    #[expect(clippy::cast_possible_truncation, reason = "at most a hundred")]
    let percent = (share * 100.0).round() as i64;
    let before = edge.metrics.rest_percent.get();
    edge.metrics.rest_percent.set(percent);
    if before != percent && before != 0 {
        tracing::info!(percent, pressure, "this sun takes another share of its weight");
    }
    (share < 1.0).then_some(share)
}

fn resting_of(state: &RegionState) -> Rests {
    state.servers.iter().filter_map(|server| Some((server.name.clone(), server.rest?))).collect()
}

fn hear_rests(edge: &Edge, heard: Rests) {
    edge.rests.send_if_modified(|rests| std::mem::replace(rests, heard.clone()) != heard);
}

/// Hot files, after what the API had to say of them.
fn spread(edge: &Edge, turns: &mut Turns) {
    let own = edge.with_place(|place| turns.own(place));
    edge.region.rcu(|view| {
        let mut view = crate::region::RegionView::clone(view);
        view.see(own.clone());
        view
    });
    let passing = if edge.draining.load(Ordering::Relaxed) || edge.held.is_some() {
        Passing::default()
    } else {
        edge.with_place(|place| turns.pass(&edge.config.hot, place))
    };
    edge.metrics.hot_passing.set(level(passing.iter().count()));
    edge.sharing.store(Arc::new(passing));
    let (files, copies) = kept(edge);
    edge.metrics.hot_files.set(level(files));
    edge.metrics.hot_copies.set(level(copies));
}

/// Hot files that this sun keeps, and how many of them it does not own.
fn kept(edge: &Edge) -> (usize, usize) {
    let (topology, view) = (edge.topology(), edge.region.load());
    let region = topology.sun(&edge.config.name).and_then(|sun| topology.region(sun.server.region));
    let Some(region) = region else { return (0, 0) };
    let names = view.hot(edge.now_ms()).filter_map(|file| CanonicalName::parse(file).ok());
    let kept: Vec<CanonicalName> = names.filter(|name| edge.keeps(name, name.content_id(), None)).collect();
    let owned = |name: &&CanonicalName| {
        region.owner(name.content_id()).is_some_and(|owner| owner.server.name == edge.config.name)
    };
    (kept.len(), kept.len() - kept.iter().filter(owned).count())
}

fn status(edge: &Edge, rates: &mut Rates, turns: &mut Turns, resting: &mut Resting) -> StatusReport {
    let (ram_bytes, ram_max) = edge.ram.fullness();
    let mut tiers = vec![Tier {
        name: "ram".to_owned(),
        bytes: ram_bytes,
        bytes_max: ram_max,
        hits: edge.metrics.answered_by(Outcome::Ram),
    }];
    if edge.store.is_configured() {
        let (bytes, bytes_max) = edge.store.fullness();
        let hits = edge.metrics.answered_by(Outcome::Store);
        tiers.push(Tier { name: "store".to_owned(), bytes, bytes_max, hits });
    }
    if let Some(held) = &edge.held {
        let (bytes, bytes_max) = held.fullness();
        let hits = edge.metrics.answered_by(Outcome::Vault);
        tiers.push(Tier { name: "vault".to_owned(), bytes, bytes_max, hits });
    }
    let (load, seconds) = rates.load(edge);
    let hottest = turns.count(&edge.detector.take(), load, edge.sharing.load().passed(), seconds);
    StatusReport {
        server: edge.config.name.clone(),
        topology_version: edge.topology().version,
        healthy: !edge.draining.load(Ordering::Relaxed),
        load,
        tiers,
        hottest: hottest.iter().map(HotRate::from).collect(),
        holdings_known: edge.region.load().known(),
        rest: rest(edge, resting, load.cpu_pressure),
    }
}

/// Totals at the last report.
struct Rates {
    at: Instant,
    requests: u64,
    bytes: u64,
}

impl Rates {
    fn new(edge: &Edge) -> Self {
        let totals = &edge.metrics.totals;
        Self {
            at: Instant::now(),
            requests: totals.requests.load(Ordering::Relaxed),
            bytes: totals.bytes.load(Ordering::Relaxed),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "rates need no more than 53 bits")]
    /// What was carried since the last report, and how many seconds that is.
    fn load(&mut self, edge: &Edge) -> (Load, f64) {
        let now = Self::new(edge);
        let seconds = now.at.duration_since(self.at).as_secs_f64().max(0.001);
        let load = Load {
            bits_per_second: (now.bytes - self.bytes) as f64 * 8.0 / seconds,
            requests_per_second: (now.requests - self.requests) as f64 / seconds,
            connections: u64::try_from(edge.metrics.connections.get()).unwrap_or(0),
            cpu_pressure: pressure::last_ten_seconds(&edge.config.rest.pressure_file, "some").unwrap_or(0.0),
        };
        *self = now;
        (load, seconds)
    }
}

/// Rereads the certificates when one of their files changes, and those that are refused now and then: the time of one that is not
/// valid yet comes, as that of one that runs ends. `seen` are [those files](certificate_files) from before they were loaded;
/// `told` is told of those refused, and of those that run and are not valid.
pub async fn follow_certificates(
    certificates: Arc<Certificates>,
    pairs: Vec<Certificate>,
    mut seen: Seen,
    told: Told,
    drain: Drain,
) {
    let (mut refused, mut looked) = (Vec::new(), Instant::now());
    let mut invalid = certificates.invalid(now_s());
    told.of(&certificates, &refused, &invalid);
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = drain.wait() => return,
        }
        let changed = seen.look();
        if !changed && looked.elapsed() < LOOKED_AT_EVERY {
            continue;
        }
        looked = Instant::now();
        let before = refused.clone();
        if changed || !refused.is_empty() {
            refused = certificates.reload(&pairs, now_s());
        } else {
            certificates.settle(now_s());
        }
        let no_good = certificates.invalid(now_s());
        told.of(&certificates, &refused, &no_good);
        for why in no_good.iter().filter(|why| !invalid.contains(why)) {
            tracing::error!(why, "a certificate in use is not valid: clients refuse it");
        }
        invalid = no_good;
        if !changed && refused.len() == before.len() {
            continue;
        }
        for why in &refused {
            tracing::error!(why, "a changed certificate is refused, the running one stays");
        }
        if refused.len() < pairs.len() {
            tracing::info!(refused = refused.len(), "certificates reloaded");
        }
    }
}

/// Who is told of certificates.
#[derive(Debug)]
pub struct Told {
    /// How many are refused.
    pub refused: IntGauge,
    /// How many are in use and not valid.
    pub invalid: IntGauge,
    /// When the first ends.
    pub ends: IntGauge,
    /// Where both are noted.
    pub readiness: Readiness,
}

impl Told {
    fn of(&self, certificates: &Certificates, refused: &[String], invalid: &[String]) {
        self.refused.set(level(refused.len()));
        self.invalid.set(level(invalid.len()));
        self.ends.set(certificates.first_end().unwrap_or(0));
        let of_refused = refused.iter().map(|why| format!("a changed certificate is refused: {why}"));
        let all: Vec<String> = invalid.iter().cloned().chain(of_refused).collect();
        self.readiness.note("certificates", (!all.is_empty()).then(|| all.join("; ")));
    }
}

/// Certificates of which no file changed are looked at so often.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(60);

/// Seconds since 1970.
#[must_use]
pub fn now_s() -> i64 {
    i64::try_from(daemon::clock::unix_s()).unwrap_or(i64::MAX)
}

/// All files of certificates.
#[must_use]
pub fn certificate_files(certificates: &[Certificate]) -> Vec<PathBuf> {
    certificates.iter().flat_map(|file| [file.chain.clone(), file.key.clone()]).collect()
}

/// Rereads the secrets of session tickets when their file changes; `seen` is that file from before it was loaded.
pub async fn follow_tickets(tickets: Arc<Tickets>, file: PathBuf, seen: Seen, drain: Drain) {
    files::follow(seen, drain, || match tickets.reload(&file) {
        Ok(()) => tracing::info!("the secret of session tickets is reloaded"),
        Err(error) => tracing::warn!(%error, "a changed secret is refused, the running one stays"),
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPOLOGY: &str = r#"
        version = 1
        domain = "example.org"
        default_region = 4
        [content_servers]
        url = "http://cs{number}.example.org"
        numbers = ["1-9"]
        [[region]]
        id = 4
        name = "north"
        latitude = 60.0
        longitude = 30.0
        [[group]]
        name = "sun4-1"
        subnet = "192.0.2.0/26"
        [[group]]
        name = "sun4-2"
        subnet = "192.0.2.64/26"
        [[sun]]
        name = "sun4-1-1"
        internal = "10.0.0.1:8081"
        addresses = ["192.0.2.1"]
        weight = 100
        draining = true
        [[sun]]
        name = "sun4-1-2"
        internal = "10.0.0.2:8081"
        addresses = ["192.0.2.2"]
        weight = 100
        [[sun]]
        name = "sun4-2-1"
        internal = "10.0.0.3:8081"
        addresses = ["192.0.2.65"]
        weight = 100
        draining = true
        [[cache]]
        name = "cache4-1"
        internal = "10.0.0.4:8081"
        addresses = ["192.0.2.129"]
        bytes = 1000
        weight = 100
        draining = true
    "#;

    #[test]
    fn clients_are_led_away_while_another_sun_of_the_group_takes_them() {
        check(TOPOLOGY, "sun4-1-1", true);
        check(TOPOLOGY, "sun4-1-2", false);
        check(TOPOLOGY, "sun4-2-1", false);
        check(TOPOLOGY, "cache4-1", false);
        check(&TOPOLOGY.replace("weight = 100", "weight = 0"), "sun4-1-1", false);
    }

    #[track_caller]
    fn check(topology: &str, name: &str, expected: bool) {
        assert_eq!(is_relieved(&Topology::parse(topology).unwrap(), name), expected, "{name}");
    }
}
