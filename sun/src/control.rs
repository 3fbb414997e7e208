//! The edge's conversation with the popularity API, and its other periodic work.
//!
//! Downloads and status go separately, so that a slow commit never makes this server look silent.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use daemon::drain::Drain;
use geo::CanonicalName;
use popularity_api::wire::{HotRate, Load, StatusReport, Tier};
use popularity_api::{Client, ClientError};
use tokio_util::task::TaskTracker;

use crate::config::Certificate;
use crate::edge::Edge;
use crate::hot::Passing;
use crate::hot::turn::Turns;
use crate::metrics::Outcome;
use crate::report::Queue;
use crate::tickets::Tickets;
use crate::tls::Certificates;

/// Reports downloads until the drain has ended all connections, then once more. Nothing is reported before the process
/// before this one has ended: the API takes what it has left for outdated once it has heard of a later start.
pub async fn report_downloads(edge: Arc<Edge>, client: Option<Client>, drain: Drain, connections: TaskTracker) {
    let mut queue = Queue::new(edge.config.name.clone(), boot(&edge.config.data));
    let period = Duration::from_millis(edge.config.report_ms);
    let mut refused_before = false;
    loop {
        let draining = drain.started();
        // While it drains, what is counted is still told as it comes: the deadline may cut the rest off.
        let ended = tokio::select! {
            () = tokio::time::sleep(period) => false,
            () = drain.wait(), if !draining => continue,
            () = connections.wait(), if draining => true,
        };
        if !drain.is_alone() {
            if !ended {
                continue;
            }
            drain.alone().await;
        }
        let batches = edge.downloads.take();
        let Some(client) = &client else {
            if ended {
                return;
            }
            continue;
        };
        let before = queue.backlog().1;
        batches.into_iter().for_each(|batch| queue.push(batch));
        edge.metrics.report_dropped.inc_by(queue.backlog().1 - before + edge.downloads.take_dropped());
        refused_before = flush(client, &mut queue, refused_before).await;
        edge.metrics.report_backlog.set(i64::try_from(queue.backlog().0).unwrap_or(i64::MAX));
        if ended {
            return;
        }
    }
}

/// Sends what waits, oldest first, until something does not get through. True: the API refused something,
/// which was said once and is not said again until it accepts.
async fn flush(client: &Client, queue: &mut Queue, mut refused_before: bool) -> bool {
    while let Some(batch) = queue.first() {
        match client.report_downloads(batch).await {
            Ok(_) => refused_before = false,
            Err(error @ ClientError::Refused(_)) if final_refusal(&error) => {
                if !refused_before {
                    tracing::warn!(%error, "downloads are refused and dropped");
                }
                refused_before = true;
            }
            Err(error) => {
                tracing::debug!(%error, "downloads wait");
                return refused_before;
            }
        }
        queue.done();
    }
    refused_before
}

/// A 4xx is the same next time. Not so 408 and 429, nor 401, 403 and 409: a person may mend token or clock.
fn final_refusal(error: &ClientError) -> bool {
    match error {
        ClientError::Refused(problem) => {
            (400..500).contains(&problem.status) && !matches!(problem.status, 401 | 403 | 408 | 409 | 429)
        }
        _ => false,
    }
}

/// Tells which topology this server goes by, as it changes, until the drain.
pub async fn tell_topology(edge: Arc<Edge>, drain: Drain) {
    let mut topology = edge.watched();
    loop {
        let version = topology.borrow_and_update().version;
        // So that it is remembered from now on, and not from the first request on that needs it.
        drop(edge.topologies());
        edge.metrics.topology_version.set(i64::try_from(version).unwrap_or(i64::MAX));
        tokio::select! {
            changed = topology.changed() => if changed.is_err() { return },
            () = drain.wait() => return,
        }
    }
}

/// Reports status and hears the region's state until the drain; the last report says that it drains, unless another
/// process serves in its place: that one reports.
pub async fn report_status(edge: Arc<Edge>, client: Option<Client>, drain: Drain) {
    let period = Duration::from_millis(edge.config.report_ms);
    let mut rates = Rates::new(&edge);
    let mut turns = Turns::default();
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
        edge.metrics.upstream_requests.set(i64::try_from(running).unwrap_or(i64::MAX));
        edge.metrics.upstream_queued.set(i64::try_from(queued).unwrap_or(i64::MAX));
        edge.metrics.ram_bytes.set(i64::try_from(edge.ram.fullness().0).unwrap_or(i64::MAX));
        let report = status(&edge, &mut rates, &mut turns);
        if let Some(client) = &client {
            match client.report_status(&report).await {
                Ok(state) => {
                    let now_ms = edge.now_ms();
                    edge.region.rcu(|view| {
                        let mut view = crate::region::RegionView::clone(view);
                        view.hear(&state, now_ms);
                        view
                    });
                    if std::mem::take(&mut away) {
                        tracing::info!("the popularity API answers again");
                    }
                }
                Err(error) => {
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
    let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    edge.metrics.hot_passing.set(gauge(passing.iter().count()));
    edge.sharing.store(Arc::new(passing));
    let (files, copies) = kept(edge);
    edge.metrics.hot_files.set(gauge(files));
    edge.metrics.hot_copies.set(gauge(copies));
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

fn status(edge: &Edge, rates: &mut Rates, turns: &mut Turns) -> StatusReport {
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
            cpu_pressure: cpu_pressure(),
        };
        *self = now;
        (load, seconds)
    }
}

/// `some avg10` of the kernel's pressure stall information, percent; 0 where there is none.
fn cpu_pressure() -> f64 {
    let text = std::fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let average = |line: &str| line.split(' ').find_map(|field| field.strip_prefix("avg10="))?.parse().ok();
    text.lines().find(|line| line.starts_with("some")).and_then(average).unwrap_or(0.0)
}

/// Rereads the certificates when one of their files changes; `seen` are [those files](certificate_files) from before they were loaded.
pub async fn follow_certificates(certificates: Arc<Certificates>, files: Vec<Certificate>, seen: Seen, drain: Drain) {
    follow_files(seen, drain, || match certificates.reload(&files) {
        Ok(()) => tracing::info!("certificates reloaded"),
        Err(error) => tracing::warn!(%error, "changed certificates are refused, the running ones stay"),
    })
    .await;
}

/// All files of certificates.
#[must_use]
pub fn certificate_files(certificates: &[Certificate]) -> Vec<PathBuf> {
    certificates.iter().flat_map(|file| [file.chain.clone(), file.key.clone()]).collect()
}

/// Rereads the secrets of session tickets when their file changes; `seen` is that file from before it was loaded.
pub async fn follow_tickets(tickets: Arc<Tickets>, file: PathBuf, seen: Seen, drain: Drain) {
    follow_files(seen, drain, || match tickets.reload(&file) {
        Ok(()) => tracing::info!("the secret of session tickets is reloaded"),
        Err(error) => tracing::warn!(%error, "a changed secret is refused, the running one stays"),
    })
    .await;
}

/// Calls `changed` when one of the files has changed; looked at every second.
async fn follow_files(mut seen: Seen, drain: Drain, mut changed: impl FnMut()) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = drain.wait() => return,
        }
        if seen.look() {
            changed();
        }
    }
}

/// Files as they were at a look. To be made before they are loaded: what changes while a server starts, between the load and the
/// first look, would be missed otherwise.
#[derive(Debug)]
pub struct Seen {
    files: Vec<PathBuf>,
    stamps: Vec<Stamp>,
}

impl Seen {
    /// As they are now; a file that is not there is one that may come.
    #[must_use]
    pub fn now(files: Vec<PathBuf>) -> Self {
        let stamps = stamps(&files);
        Self { files, stamps }
    }

    /// Whether one of them is another than at the last look.
    fn look(&mut self) -> bool {
        let now = stamps(&self.files);
        let changed = now != self.stamps;
        self.stamps = now;
        changed
    }
}

/// What tells that a file has changed: the time of that also when only its permissions did.
type Stamp = Option<(i64, i64, u64)>;

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.ctime(), metadata.ctime_nsec(), metadata.len()))
    };
    files.iter().map(stamp).collect()
}

/// Microseconds since 1970, and more than at the last start, also when the clock went back in between: the API
/// counts nothing that looks older than what it has counted. The last one is kept in the data folder.
fn boot(data: &std::path::Path) -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
    let file = data.join("boot");
    let last = std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let boot = last.map_or(now, |last| now.max(last.saturating_add(1)));
    if let Err(error) = geo::watch::write_atomically(&file, &format!("{boot}\n")) {
        tracing::warn!(file = %file.display(), %error, "the start is not written down: the next must not be earlier");
    }
    boot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_later_than_the_last_also_when_the_clock_went_back() {
        let data = tempfile::tempdir().unwrap();
        let first = boot(data.path());
        assert!(boot(data.path()) > first);
        let ahead = first + 1_000_000_000_000;
        std::fs::write(data.path().join("boot"), ahead.to_string()).unwrap();
        assert_eq!(boot(data.path()), ahead + 1);
        std::fs::write(data.path().join("boot"), "nonsense").unwrap();
        assert!(boot(data.path()) > first);
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_between_the_load_and_the_first_look_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "a").unwrap();
        let seen = Seen::now(vec![file.clone(), folder.path().join("missing")]);
        // It is loaded, and then replaced, before anybody follows it.
        std::fs::write(&file, "longer").unwrap();
        let drain = Drain::new();
        let mut told = 0;
        follow_files(seen, drain.clone(), || {
            told += 1;
            if told == 1 {
                std::fs::write(&file, "longest of all").unwrap();
            } else {
                drain.start();
            }
        })
        .await;
        assert_eq!(told, 2);
    }
}
