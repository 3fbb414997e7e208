//! The loop that keeps the vault filled with what its region asks for most.
//!
//! ```text
//!   every plan_ms:  holdings are told --> wanted? --> plan: steps --> drops, downloads begin
//!   a download ends:                                         steps --> the next one begins
//!   the vault changes:  holdings are told at once
//!   a purge comes:      what it names is dropped, and not fetched
//!   the API is away:  keep everything, finish what was begun, ask again later and later
//! ```
//!
//! It only waits and carries out: what to do is decided by [`crate::plan`], what to tell by [`crate::holdings`],
//! what to leave alone by [`crate::failures`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::drain::Drain;
use geo::topology::{Cache, Topology, Watched};
use geo::{CanonicalName, ContentId};
use popularity_api::{Client, ClientError, wire};
use sun::purge::{Mark, Purges, Subject, Verdict};
use tokio::task::{self, JoinSet};

use crate::config::Config;
use crate::failures::{Again, DiskHealth, Failures, backoff};
use crate::holdings::Holdings;
use crate::metrics::Metrics;
use crate::plan::{self, Action, Rated, Room, UNRATED};
use crate::prefill::{FetchError, Fetched, Order, Prefill, Source};
use crate::vault::{Changes, Held, Vault, footprint};

/// Carries files into a vault until the drain.
#[derive(Debug)]
pub struct Carrier {
    name: String,
    plan_every: Duration,
    candidates_max: usize,
    parallel: usize,
    api: Client,
    topology: Watched,
    vault: Arc<Vault>,
    purges: Arc<Purges>,
    prefill: Arc<Prefill>,
    metrics: Metrics,
    holdings: Holdings,
    failures: Failures,
    /// What the API says is worth carrying, without what has been fetched since.
    candidates: HashMap<ContentId, Candidate>,
    /// Purges gone by before the API was asked for the candidates.
    asked_at: Mark,
    /// What held files are worth.
    scores: HashMap<ContentId, f64>,
    in_flight: HashMap<ContentId, Rated>,
    /// What is left of the plan; a drop belongs to the fetch after it.
    steps: VecDeque<Action>,
    downloads: JoinSet<Result<Fetched, FetchError>>,
    /// Which file a download is of, also when it ends by a panic.
    files: HashMap<task::Id, ContentId>,
    /// Calls of the API that failed in a row.
    api_failures: u32,
    disk: DiskHealth,
}

/// A file worth carrying.
#[derive(Debug)]
struct Candidate {
    name: CanonicalName,
    size: u64,
    score: f64,
    /// Names of caches that hold it.
    holders: Vec<String>,
}

/// What a carrier works with.
#[derive(Debug)]
pub struct Tools {
    /// The popularity API.
    pub api: Client,
    /// Where caches and content servers are, and how much this cache may hold.
    pub topology: Watched,
    /// Where files go.
    pub vault: Arc<Vault>,
    /// What was purged.
    pub purges: Arc<Purges>,
    /// Downloads them.
    pub prefill: Prefill,
    /// Counts.
    pub metrics: Metrics,
}

impl Carrier {
    /// Nothing is asked or fetched before [`Carrier::run`].
    #[must_use]
    pub fn new(config: &Config, tools: Tools) -> Self {
        let again = Again {
            first: Duration::from_millis(config.prefill.retry_ms),
            last: Duration::from_millis(config.prefill.absent_ms),
        };
        Self {
            name: config.edge.name.clone(),
            plan_every: Duration::from_millis(config.plan_ms),
            candidates_max: config.candidates_max,
            parallel: config.prefill.parallel,
            api: tools.api,
            topology: tools.topology,
            vault: tools.vault,
            purges: tools.purges,
            prefill: Arc::new(tools.prefill),
            metrics: tools.metrics,
            holdings: Holdings::new(daemon::clock::unix_us()),
            failures: Failures::new(again),
            candidates: HashMap::new(),
            asked_at: Mark::default(),
            scores: HashMap::new(),
            in_flight: HashMap::new(),
            steps: VecDeque::new(),
            downloads: JoinSet::new(),
            files: HashMap::new(),
            api_failures: 0,
            disk: DiskHealth::default(),
        }
    }

    /// Runs until the drain; downloads that have not ended by then are given up.
    pub async fn run(mut self, drain: Drain) {
        let mut due = tokio::time::Instant::now();
        let vault = Arc::clone(&self.vault);
        let mut purged = self.purges.news();
        // What was purged while this cache was down is in the vault.
        self.sweep().await;
        loop {
            let event = tokio::select! {
                () = drain.wait() => break,
                () = tokio::time::sleep_until(due) => Event::Due,
                Some(ended) = self.downloads.join_next_with_id() => Event::Ended(ended),
                () = vault.changed(), if self.api_failures == 0 => Event::Changed,
                Ok(()) = purged.changed() => Event::Purged,
            };
            let work = async {
                match event {
                    Event::Due => {
                        self.round().await;
                        due = tokio::time::Instant::now() + backoff(self.plan_every, self.api_failures);
                    }
                    Event::Ended(ended) => {
                        self.ended(ended);
                        self.advance().await;
                    }
                    Event::Purged => self.sweep().await,
                    Event::Changed => {
                        let told = self.tell().await;
                        self.heard(told);
                    }
                }
            };
            tokio::select! {
                () = drain.wait() => break,
                () = work => {}
            }
        }
        self.downloads.shutdown().await;
    }

    /// Asks what to carry and begins to.
    async fn round(&mut self) {
        let asked = self.ask().await;
        let answered = asked.is_ok();
        self.heard(asked);
        if answered {
            self.carry().await;
        } else {
            // What is left of the last plan still counts; a new one would be made of old scores.
            self.advance().await;
        }
    }

    /// Tells the holdings, then asks for candidates and scores. When the API turns out not to have the holdings
    /// it was told, it is told everything and asked once more.
    async fn ask(&mut self) -> Result<(), ClientError> {
        for _ in 0..2 {
            self.tell().await?;
            let topology = Arc::clone(&self.topology.borrow());
            let Some(cache) = self.cache(&topology) else { return Ok(()) };
            let asked_at = self.purges.mark();
            let request = wire::WantedRequest { bytes_max: cache.bytes, limit: self.candidates_max };
            let wanted = self.api.wanted(cache.server.region, &self.name, &request).await?;
            if self.holdings.settled() == Some(wanted.holdings_generation) {
                self.asked_at = asked_at;
                self.learn(wanted);
                return Ok(());
            }
            self.holdings.lost();
        }
        // Its answer is not about what is held: everything held would look unrated.
        tracing::debug!("the popularity API does not keep the holdings; the last plan stays");
        Ok(())
    }

    /// Tells the API what it does not know of the holdings.
    async fn tell(&mut self) -> Result<(), ClientError> {
        let topology = Arc::clone(&self.topology.borrow());
        let Some(region) = self.cache(&topology).map(|cache| cache.server.region) else { return Ok(()) };
        match self.vault.changes() {
            Changes::Since(changes) => {
                changes.into_iter().for_each(|(name, size)| self.holdings.changed(name, size));
            }
            Changes::All => self.holdings.lost(),
        }
        loop {
            if self.holdings.needs_list() {
                self.holdings.restart(self.vault.list());
            }
            let Some(report) = self.holdings.report() else { return Ok(()) };
            match self.api.report_holdings(region, &self.name, &report).await {
                Ok(ack) => self.holdings.answered(ack.generation),
                Err(error) => {
                    self.holdings.failed();
                    return Err(error);
                }
            }
        }
    }

    fn learn(&mut self, wanted: wire::Wanted) {
        let scored = wanted.held.into_iter().filter_map(|held| Some((id(&held.file)?, held.score)));
        self.scores = scored.collect();
        let candidates = wanted.candidates.into_iter().take(self.candidates_max).filter_map(|candidate| {
            let name = CanonicalName::from_written(&candidate.file).ok()?;
            let wire::Candidate { size, score, sources: holders, .. } = candidate;
            Some((name.content_id(), Candidate { name, size, score, holders }))
        });
        self.candidates = candidates.collect();
    }

    /// Logs when the API goes away and comes back, once each.
    fn heard(&mut self, result: Result<(), ClientError>) {
        match result {
            Ok(()) if self.api_failures > 0 => {
                tracing::info!(failures = self.api_failures, "the popularity API answers again");
                self.api_failures = 0;
            }
            Ok(()) => {}
            Err(error) => {
                self.metrics.api_failures.inc();
                if self.api_failures == 0 {
                    tracing::warn!(%error, "the popularity API cannot be asked; keeping what is held");
                }
                self.api_failures = self.api_failures.saturating_add(1);
            }
        }
    }

    /// Plans anew; what is left of the last plan is forgotten.
    async fn carry(&mut self) {
        let topology = Arc::clone(&self.topology.borrow());
        let Some(bytes_max) = self.cache(&topology).map(|cache| cache.bytes) else { return };
        self.vault.limit(bytes_max);
        self.steps = self.plan(&topology, bytes_max).into();
        self.advance().await;
    }

    /// Takes steps until as many downloads run as may, or none is left.
    async fn advance(&mut self) {
        let topology = Arc::clone(&self.topology.borrow());
        while self.downloads.len() < self.parallel && !self.disk.rests(Instant::now()) {
            match self.steps.pop_front() {
                Some(Action::Drop(content)) => self.drop_file(content).await,
                Some(Action::Fetch(content)) => self.begin(content, &topology),
                None => break,
            }
        }
    }

    fn plan(&self, topology: &Topology, bytes_max: u64) -> Vec<Action> {
        let now = Instant::now();
        let fits_its_class = |file: &Candidate| file.size <= topology.class_of(&file.name).file_bytes_max;
        let possible = self
            .candidates
            .iter()
            .filter(|(content, file)| !self.failures.hold_back(**content, now) && fits_its_class(file));
        let candidates: Vec<Rated> = possible
            .map(|(&content, file)| Rated { content, bytes: footprint(file.size), score: file.score })
            .collect();
        let held = rated(&self.vault.held(), &self.in_flight, &self.scores);
        let in_flight: Vec<Rated> = self.in_flight.values().copied().collect();
        plan::plan(&candidates, &held, &in_flight, Room { bytes_max, fetches_max: self.candidates_max })
    }

    /// Drops what was purged, from the vault and from what is to come into it. Downloads that are under way find out
    /// at their end.
    async fn sweep(&mut self) {
        let (vault, purges) = (Arc::clone(&self.vault), Arc::clone(&self.purges));
        let purged = move |name: &CanonicalName, mark: Mark, tags: &[u64]| {
            let subject = Subject { name: name.as_str(), content: name.content_id(), tags };
            purges.verdict(subject, mark) == Verdict::Gone
        };
        let wanted = self.candidates.len();
        self.candidates.retain(|_, candidate| !purged(&candidate.name, self.asked_at, &[]));
        if self.candidates.len() < wanted {
            // Room was planned for what is not fetched now.
            self.steps.clear();
        }
        let swept = tokio::task::spawn_blocking(move || vault.sweep(purged)).await;
        let count = swept.unwrap_or_default();
        self.metrics.purged.inc_by(count as u64);
        if count > 0 {
            tracing::info!(files = count, "purged files were dropped");
        }
    }

    async fn drop_file(&mut self, content: ContentId) {
        let vault = Arc::clone(&self.vault);
        // Removing a large file takes the filesystem a while.
        let removed = tokio::task::spawn_blocking(move || vault.remove(content)).await;
        if matches!(removed, Ok(true)) {
            self.metrics.dropped.inc();
        }
        self.scores.remove(&content);
    }

    fn begin(&mut self, content: ContentId, topology: &Topology) {
        let Some(candidate) = self.candidates.get(&content) else { return };
        let order = Order {
            name: candidate.name.clone(),
            size_max: candidate.size,
            sources: sources(candidate, &self.name, topology),
        };
        let bytes = footprint(candidate.size);
        self.in_flight.insert(content, Rated { content, bytes, score: candidate.score });
        let prefill = Arc::clone(&self.prefill);
        let download = self.downloads.spawn(async move { prefill.fetch(&order).await });
        self.files.insert(download.id(), content);
        self.metrics.in_flight.set(self.in_flight.len() as i64);
    }

    fn ended(&mut self, ended: Ended) {
        let now = Instant::now();
        let (download, result) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(%error, "a download ended by a panic");
                // What made it panic is in the file or its server, and would do so again at once.
                (error.id(), Err(FetchError::Lasting(error.to_string())))
            }
        };
        let Some(content) = self.files.remove(&download) else { return };
        let rated = self.in_flight.remove(&content);
        self.metrics.in_flight.set(self.in_flight.len() as i64);
        match result {
            Ok(fetched) => {
                self.metrics.fetched(fetched);
                self.failures.forget(content);
                self.candidates.remove(&content);
                self.scores.insert(content, rated.map_or(UNRATED, |rated| rated.score));
                if self.disk.works() {
                    tracing::info!("the vault's disk takes files again");
                }
                self.metrics.disk_failing.set(0);
            }
            Err(error) => {
                self.metrics.failed(&error);
                tracing::debug!(%error, "a file was not carried");
                match error {
                    FetchError::Lasting(_) => self.failures.record(content, true, now),
                    FetchError::Passing(_) => self.failures.record(content, false, now),
                    // It did not fail: a peer fetches it, and may have it soon.
                    FetchError::Waiting { .. } => self.failures.wait(content, now),
                    FetchError::Disk(error) => {
                        if self.disk.fails(now) {
                            tracing::warn!(%error, "the vault's disk fails; what is held is served, downloads wait");
                        }
                        self.metrics.disk_failing.set(1);
                    }
                }
            }
        }
    }

    fn cache<'a>(&self, topology: &'a Topology) -> Option<&'a Cache> {
        topology.cache(&self.name)
    }
}

enum Event {
    Due,
    Purged,
    Ended(Ended),
    Changed,
}

/// A download, and what came of it.
type Ended = Result<(task::Id, Result<Fetched, FetchError>), task::JoinError>;

/// What is held, as the plan sees it. A file whose download has just ended may be in both places: it counts once,
/// as in flight, or its room would be taken twice and something dropped for nothing.
fn rated(held: &[Held], in_flight: &HashMap<ContentId, Rated>, scores: &HashMap<ContentId, f64>) -> Vec<Rated> {
    let only_held = held.iter().filter(|file| !in_flight.contains_key(&file.content));
    let rated = only_held.map(|&Held { content, size }| {
        let score = scores.get(&content).copied().unwrap_or(UNRATED);
        Rated { content, bytes: footprint(size), score }
    });
    rated.collect()
}

/// Where a file can be had: the nearest caches that hold it, then its content server.
fn sources(candidate: &Candidate, own_name: &str, topology: &Topology) -> Vec<Source> {
    let others = candidate.holders.iter().filter(|holder| *holder != own_name);
    let caches = others.filter_map(|holder| topology.cache(holder)).take(PEERS_MAX);
    let mut sources: Vec<Source> = caches.map(|cache| Source::Cache(cache.server.internal)).collect();
    let host = topology.origin_host(candidate.name.content_server()).map(str::to_owned);
    let url = topology.content_servers.url_of(&candidate.name);
    sources.extend(url.map(|url| Source::ContentServer { url, host }));
    sources
}

fn id(file: &str) -> Option<ContentId> {
    CanonicalName::from_written(file).ok().map(|name| name.content_id())
}

/// Caches that are asked for a file before its content server.
const PEERS_MAX: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_held_and_in_flight_counts_once() {
        let content = |file: &str| id(&format!("c1/{file}")).unwrap();
        let held = ["a", "b", "c"].map(|file| Held { content: content(file), size: 5 });
        let scores = HashMap::from([(content("a"), 2.0), (content("c"), 3.0)]);
        let landed = Rated { content: content("c"), bytes: 4096, score: 3.0 };
        let rated = rated(&held, &HashMap::from([(content("c"), landed)]), &scores);
        let expected = [("a", 2.0), ("b", UNRATED)];
        assert_eq!(rated, expected.map(|(file, score)| Rated { content: content(file), bytes: 4096, score }));
    }
}
