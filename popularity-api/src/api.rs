//! What the API knows, and what it answers: every call of [`crate::wire`] as a method that neither reads a socket
//! nor writes one.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::http::StatusCode;
use daemon::problem::Refusal;
use daemon::tokens::Tokens;
use geo::topology::{Region, Server, Watched};
use geo::{CanonicalName, RegionId, Resolver, Topology};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Config;
use crate::engine::batch::{Batch, Entry};
use crate::engine::table::{Mark, Ranked};
use crate::engine::{CountError, Engine};
use crate::holdings::{Checked, Held, Holdings};
use crate::links::{self, Visitor};
use crate::purge::log::PostError;
use crate::purge::{Ledger, Target, target};
use crate::status::Registry;
use crate::wanted;
use crate::wire::{
    DOWNLOADS_PER_BATCH_MAX, Download, DownloadsAck, DownloadsBatch, HOTTEST_MAX, HoldingsAck, HoldingsReport, Hot,
    LINKS_PER_REQUEST_MAX, Links, LinksRequest, PurgeAck, PurgeAcknowledgements, PurgeLog, PurgeMode, PurgeRequest,
    Rated, RegionState, StatusReport, Top, Wanted, WantedRequest,
};

/// The API's state; shared by all connections.
#[derive(Debug)]
pub struct Api {
    /// Its settings.
    pub config: Config,
    /// Who may call.
    pub tokens: Tokens,
    /// The ratings.
    pub engine: Engine,
    /// Counters.
    pub metrics: Metrics,
    /// What was purged.
    pub purges: Ledger,
    topology: Watched,
    resolver: Arc<ArcSwap<Resolver>>,
    holdings: RwLock<Holdings>,
    registry: RwLock<Registry>,
    /// RAM for bodies, in units of [`ROOM_UNIT_BYTES`].
    bodies: Arc<Semaphore>,
    /// Rankings at a time.
    rankings: Arc<Semaphore>,
    started: Instant,
}

/// What the API counts beside the engine.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Calls, by route and status.
    pub calls: IntCounterVec,
    /// Files that caches say they hold, by cache.
    pub held: IntGaugeVec,
    /// Links made, by the kind of server they name: `cache`, `sun`, or `none`.
    pub links: IntCounterVec,
    /// Version of the running topology.
    pub topology_version: IntGauge,
    /// Purges accepted since the start.
    pub purges: IntCounter,
    /// Sequence of the last purge, 0 while there was none.
    pub purge_sequence: IntGauge,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    ///
    /// When the registry has one of these names already.
    pub fn register(registry: &prometheus::Registry) -> prometheus::Result<Self> {
        let calls = IntCounterVec::new(
            Opts::new("popularity_calls_total", "Calls, by route and status."),
            &["route", "status"],
        )?;
        let held =
            IntGaugeVec::new(Opts::new("popularity_held_files", "Files that a cache says it holds."), &["cache"])?;
        let links =
            IntCounterVec::new(Opts::new("popularity_links_total", "Links made, by kind of server."), &["server"])?;
        let topology_version = IntGauge::new("popularity_topology_version", "Version of the running topology.")?;
        let purges = IntCounter::new("popularity_purges_total", "Purges accepted.")?;
        let purge_sequence = IntGauge::new("popularity_purge_sequence", "Sequence of the last purge.")?;
        registry.register(Box::new(purges.clone()))?;
        registry.register(Box::new(purge_sequence.clone()))?;
        registry.register(Box::new(topology_version.clone()))?;
        registry.register(Box::new(calls.clone()))?;
        registry.register(Box::new(held.clone()))?;
        registry.register(Box::new(links.clone()))?;
        Ok(Self { calls, held, links, topology_version, purges, purge_sequence })
    }
}

impl Api {
    /// Puts the state together.
    #[must_use]
    pub fn new(
        config: Config,
        tokens: Tokens,
        engine: Engine,
        metrics: Metrics,
        purges: Ledger,
        topology: Watched,
        resolver: Arc<ArcSwap<Resolver>>,
    ) -> Self {
        Self {
            holdings: RwLock::new(Holdings::new(config.holdings())),
            registry: RwLock::new(Registry::new(config.rule(), 0).with_saturation(config.saturation())),
            bodies: Arc::new(Semaphore::new(config.limits.bodies_bytes_max.div_ceil(ROOM_UNIT_BYTES))),
            rankings: Arc::new(Semaphore::new(RANKINGS_MAX)),
            started: Instant::now(),
            config,
            tokens,
            engine,
            metrics,
            purges,
            topology,
            resolver,
        }
    }

    /// The topology as it changes.
    #[must_use]
    pub fn watched(&self) -> Watched {
        self.topology.clone()
    }

    /// The running topology.
    #[must_use]
    pub fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.topology.borrow())
    }

    /// Waits for room for a body of at most `limits.body_bytes_max`.
    pub async fn room(&self, bytes: usize) -> OwnedSemaphorePermit {
        let units = u32::try_from(bytes.div_ceil(ROOM_UNIT_BYTES)).unwrap_or(u32::MAX);
        Arc::clone(&self.bodies).acquire_many_owned(units).await.expect("the semaphore is never closed")
    }

    /// Waits for its turn to rank a region's files, [`Api::top`] or [`Api::wanted`]; keep it as long as that takes.
    ///
    /// # Errors
    ///
    /// 429 when there is none for two seconds.
    pub async fn ranking(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        turn(&self.rankings, RANKING_WAIT).await
    }

    /// `POST /v1/downloads`: resolves when the batch is durable.
    ///
    /// # Errors
    ///
    /// 400 for a batch that is too long or of a source without a sound name; 404 for a source that the topology does not
    /// have; 409 for a boot older than the source's latest; 429 and 503 when it cannot be made durable now.
    pub async fn downloads(&self, report: DownloadsBatch) -> Result<DownloadsAck, Refusal> {
        if report.downloads.len() > DOWNLOADS_PER_BATCH_MAX {
            let count = report.downloads.len();
            return Err(Refusal::bad(format!("downloads: {count} entries: at most {DOWNLOADS_PER_BATCH_MAX} a batch")));
        }
        if report.source.is_empty() || report.source.len() > SOURCE_BYTES_MAX {
            return Err(Refusal::bad(format!("source: a name has 1..={SOURCE_BYTES_MAX} bytes")));
        }
        let topology = self.topology();
        // What is remembered of a source is never forgotten: invented names would fill the RAM.
        find_server(&topology, "source", &report.source)?;
        let now_ms = unix_ms();
        report.downloads.iter().for_each(|one| self.purges.downloaded(one.region, &one.file, now_ms));
        let given = report.downloads.len();
        let mut entries: Vec<Entry> = report.downloads.into_iter().filter_map(|one| entry(one, &topology)).collect();
        let refused = given - entries.len();
        // Nothing of a file arrived: no mistake, and nothing to count.
        entries.retain(|entry| entry.downloads > 0.0);
        let mark = Mark { boot: report.boot, sequence: report.sequence };
        let counted = self.engine.count(Batch { source: report.source, mark, entries }).await.map_err(|error| {
            let detail = error.to_string();
            match error {
                CountError::Busy => Refusal::busy(detail),
                CountError::Stale { .. } => Refusal::new(StatusCode::CONFLICT, detail),
                CountError::Disk(_) | CountError::Closed => Refusal::unavailable(detail),
            }
        })?;
        Ok(DownloadsAck { counted, refused })
    }

    /// `GET /v1/regions/{region}/top`.
    ///
    /// # Errors
    ///
    /// 404 for a region that the topology does not have.
    pub fn top(&self, region: RegionId, limit: usize) -> Result<Top, Refusal> {
        let topology = self.topology();
        let region = find(&topology, region)?.id;
        let table = self.engine.table();
        let pulse = table.decay().at(unix_ms());
        let rated = |ranked: Ranked<'_>| {
            let (rating_hour, rating_days) = pulse.left(ranked.rating);
            Rated {
                file: ranked.file.name.to_string(),
                size: ranked.file.size,
                score: ranked.score,
                rating_hour,
                rating_days,
            }
        };
        Ok(Top { region, files: table.top(region, limit.min(wanted::CANDIDATES_MAX)).into_iter().map(rated).collect() })
    }

    /// `GET /v1/regions/{region}/hot`.
    ///
    /// # Errors
    ///
    /// 404 for a region that the topology does not have.
    pub fn hot(&self, region: RegionId, limit: usize) -> Result<Hot, Refusal> {
        let topology = self.topology();
        let region = find(&topology, region)?;
        let files = read(&self.registry).at(self.now_ms()).hot_now(region, limit);
        Ok(Hot { region: region.id, files })
    }

    /// `POST /v1/regions/{region}/caches/{cache}/wanted`.
    ///
    /// # Errors
    ///
    /// 404 for a region or cache that the topology does not have.
    pub fn wanted(&self, region: RegionId, cache: &str, request: &WantedRequest) -> Result<Wanted, Refusal> {
        let topology = self.topology();
        let region = find_cache(&topology, region, cache)?;
        let table = self.engine.table();
        let exponent = self.config.ratings.size_exponent;
        let holds = |prefix| read(&self.holdings).holds(cache, prefix);
        let ranked = wanted::rank(&table, exponent, region, cache, request, &self.purges, holds);
        // Only now: who reports and who makes links does not wait for the ranking.
        let (holdings, registry) = (read(&self.holdings), read(&self.registry));
        let knowledge = wanted::Knowledge {
            topology: &topology,
            table: &table,
            holdings: &holdings,
            view: registry.at(self.now_ms()),
            purges: &self.purges,
            exponent,
        };
        Ok(wanted::wanted(knowledge, ranked, region, cache))
    }

    /// `POST /v1/regions/{region}/caches/{cache}/holdings`.
    ///
    /// # Errors
    ///
    /// 404 for a region or cache that the topology does not have, 400 for too many files or a name that is not
    /// canonical.
    pub fn holdings(&self, region: RegionId, cache: &str, report: &HoldingsReport) -> Result<HoldingsAck, Refusal> {
        find_cache(&self.topology(), region, cache)?;
        let report = Checked::new(report).map_err(|error| Refusal::bad(error.to_string()))?;
        let mut holdings = self.holdings.write().unwrap_or_else(PoisonError::into_inner);
        let generation = holdings.report(cache, report);
        let files = holdings.of(cache).map_or(0, Held::len);
        self.metrics.held.with_label_values(&[cache]).set(i64::try_from(files).unwrap_or(i64::MAX));
        Ok(HoldingsAck { generation })
    }

    /// `POST /v1/links`.
    ///
    /// # Errors
    ///
    /// 400 for too many files.
    pub fn links(&self, request: &LinksRequest) -> Result<Links, Refusal> {
        if request.files.len() > LINKS_PER_REQUEST_MAX {
            let count = request.files.len();
            return Err(Refusal::bad(format!("files: {count} files: at most {LINKS_PER_REQUEST_MAX} a call")));
        }
        let topology = self.topology();
        let client = request.client.to_canonical();
        let (holdings, registry) = (read(&self.holdings), read(&self.registry));
        let view = registry.at(self.now_ms());
        let visitor = Visitor::new(client, request.scheme, &self.resolver.load(), &topology, view);
        let knowledge = links::Knowledge { topology: &topology, holdings: &holdings, view, purges: &self.purges };
        let mut draw = |below: usize| rand::random_range(0..below);
        let mut make = |file: &String| links::link(knowledge, &visitor, file, request.explain, &mut draw);
        let links: Vec<_> = request.files.iter().map(&mut make).collect();
        for link in &links {
            let kind = match link.server.as_deref() {
                Some(server) if server.starts_with("cache") => "cache",
                Some(_) => "sun",
                None => "none",
            };
            self.metrics.links.with_label_values(&[kind]).inc();
        }
        Ok(Links { regions: visitor.regions.iter().map(|region| region.id).collect(), links })
    }

    /// `POST /v1/status`.
    ///
    /// # Errors
    ///
    /// 400 for a report with too many files or a number that is none, 404 for a server that the topology does
    /// not have.
    pub fn status(&self, report: StatusReport) -> Result<RegionState, Refusal> {
        check_status(&report)?;
        let topology = self.topology();
        let server = find_server(&topology, "server", &report.server)?;
        let region = find(&topology, server.region)?;
        let known: std::collections::HashMap<String, u64> =
            report.holdings_known.iter().map(|known| (known.cache.clone(), known.generation)).collect();
        let now_ms = self.now_ms();
        self.registry.write().unwrap_or_else(PoisonError::into_inner).report(&topology, report, now_ms);
        let (holdings, registry) = (read(&self.holdings), read(&self.registry));
        let view = registry.at(now_ms);
        let caches = region.caches.iter().map(|cache| cache.server.name.as_str());
        Ok(RegionState {
            servers: view.servers(region),
            hot: view.hot(region),
            holdings: holdings.deltas(caches, |cache| known.get(cache).copied()),
            topology_version: topology.version,
        })
    }

    /// `POST /v1/purge`: durable when this returns. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// 400 for what names nothing, 404 for a region that the topology does not have, 409 for the id of another purge,
    /// 503 when it cannot be made durable.
    pub fn purge(&self, request: PurgeRequest) -> Result<PurgeAck, Refusal> {
        target::check_id(&request.id).map_err(|error| Refusal::bad(error.to_string()))?;
        let target = Target::parse(request.what, &request.value).map_err(|error| Refusal::bad(error.to_string()))?;
        if let Some(region) = request.region {
            find(&self.topology(), region)?;
        }
        let request = PurgeRequest { value: target.value().to_owned(), ..request };
        let (purge, new) = self.purges.post(request, unix_ms()).map_err(|error| match error {
            PostError::Id(_) => Refusal::new(StatusCode::CONFLICT, error.to_string()),
            PostError::Disk(_) => {
                tracing::warn!(%error, "a purge is refused");
                Refusal::unavailable(error.to_string())
            }
        })?;
        if new {
            tracing::info!(sequence = purge.sequence, what = ?purge.what, value = purge.value, mode = ?purge.mode,
                region = ?purge.region.map(|region| region.0), "purged");
            self.metrics.purges.inc();
            self.metrics.purge_sequence.set(i64::try_from(purge.sequence).unwrap_or(i64::MAX));
        }
        if new && purge.mode == PurgeMode::Hard {
            let named = |file: &str| {
                CanonicalName::from_written(file).is_ok_and(|name| target.names(name.as_str(), name.content_id()))
            };
            self.registry.write().unwrap_or_else(PoisonError::into_inner).forget(purge.region, named);
        }
        Ok(PurgeAck { sequence: purge.sequence })
    }

    /// `GET /v1/purge`: entries after the one that `follower` (a server's name, if it is one) goes by.
    ///
    /// # Errors
    ///
    /// 409 for a position that the log has not reached.
    pub async fn purges(&self, follower: Option<&str>, after: u64, wait: Duration) -> Result<PurgeLog, Refusal> {
        let ahead = |error: crate::purge::log::Ahead| Refusal::new(StatusCode::CONFLICT, error.to_string());
        let answer = self.purges.after(after).map_err(ahead)?;
        if let Some(follower) = follower.filter(|name| self.topology().server(name).is_some()) {
            self.purges.acknowledge(follower, after, self.now_ms());
        }
        if answer.floor.is_some() || !answer.purges.is_empty() || wait.is_zero() {
            return Ok(answer);
        }
        let wait = wait.min(Duration::from_secs(self.config.limits.request_s) / 2).min(PURGE_WAIT_MAX);
        // Whether it is in time or not, what there is now is the answer.
        let _ = tokio::time::timeout(wait, self.purges.behind(after)).await;
        self.purges.after(after).map_err(ahead)
    }

    /// `GET /v1/purge/{sequence}/acknowledgements`.
    ///
    /// # Errors
    ///
    /// 404 for a sequence that the log does not have, or no longer.
    pub fn acknowledgements(&self, sequence: u64) -> Result<PurgeAcknowledgements, Refusal> {
        let missing = || Refusal::missing(format!("the log has no purge {sequence}"));
        self.purges.acknowledgements(sequence, &self.topology(), self.now_ms()).ok_or_else(missing)
    }

    /// Milliseconds since the start: the registry's clock.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A reported download as the engine takes it; nothing when it names no file or region of ours, or what is told of it cannot be.
fn entry(download: Download, topology: &Topology) -> Option<Entry> {
    let name = CanonicalName::from_written(&download.file).ok()?;
    let known = topology.content_servers.allows(name.content_server()) && topology.region(download.region).is_some();
    let sound = (0.0..=DOWNLOADS_MAX).contains(&download.downloads) && download.size <= SIZE_MAX;
    (known && sound).then(|| Entry {
        region: download.region,
        file: download.file.into(),
        size: download.size,
        downloads: download.downloads,
    })
}

fn check_status(report: &StatusReport) -> Result<(), Refusal> {
    if report.hottest.len() > HOTTEST_MAX {
        return Err(Refusal::bad(format!("hottest: {} files: at most {HOTTEST_MAX}", report.hottest.len())));
    }
    if report.tiers.len() > TIERS_MAX || report.holdings_known.len() > CACHES_MAX {
        return Err(Refusal::bad(format!("tiers, holdings_known: at most {TIERS_MAX} and {CACHES_MAX} entries")));
    }
    let canonical = |file: &str| CanonicalName::from_written(file).is_ok();
    if let Some(index) = report.hottest.iter().position(|hot| !canonical(&hot.file)) {
        return Err(Refusal::bad(format!("hottest[{index}].file: it is no canonical name")));
    }
    let load = &report.load;
    let rates = report.hottest.iter().flat_map(|hot| [hot.requests_per_second, hot.bits_per_second]);
    let mut numbers = rates.chain([load.bits_per_second, load.requests_per_second, load.cpu_pressure]);
    if numbers.any(|number| !number.is_finite() || number < 0.0) {
        return Err(Refusal::bad("load, hottest: a rate is a finite number that is not negative".to_owned()));
    }
    Ok(())
}

async fn turn(turns: &Arc<Semaphore>, wait: Duration) -> Result<OwnedSemaphorePermit, Refusal> {
    let turn = tokio::time::timeout(wait, Arc::clone(turns).acquire_owned()).await;
    let busy =
        || Refusal::busy("too many rankings are asked for at a time; ask for this one again in a second".to_owned());
    Ok(turn.map_err(|_| busy())?.expect("the semaphore is never closed"))
}

fn find(topology: &Topology, region: RegionId) -> Result<&Region, Refusal> {
    topology.region(region).ok_or_else(|| Refusal::missing(format!("the topology has no region {region}")))
}

fn find_server<'a>(topology: &'a Topology, field: &str, name: &str) -> Result<&'a Server, Refusal> {
    let missing = || Refusal::missing(format!("{field}: no sun or cache of the topology is called {name:?}"));
    topology.server(name).ok_or_else(missing)
}

fn find_cache<'a>(topology: &'a Topology, region: RegionId, cache: &str) -> Result<&'a Region, Refusal> {
    let region = find(topology, region)?;
    if region.caches.iter().any(|known| known.server.name == cache) {
        return Ok(region);
    }
    Err(Refusal::missing(format!("region {} has no cache {cache:?}", region.id)))
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    // Writers replace entries of maps one by one; what a panic leaves behind is still a map.
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Rankings at a time: each takes a core for a while, and commits wait for those that have begun.
const RANKINGS_MAX: usize = 2;
/// How long a call waits for its turn to rank.
const RANKING_WAIT: Duration = Duration::from_secs(2);
/// What room for bodies is counted in.
const ROOM_UNIT_BYTES: usize = 1024;
/// Longest wait for an entry of the purge log; followers that ask again after so long are not silent.
const PURGE_WAIT_MAX: Duration = Duration::from_secs(5);
/// Longest name of a source; a host name's own bound.
const SOURCE_BYTES_MAX: usize = 255;
/// Downloads of one entry; a second of a whole region's traffic is far below.
const DOWNLOADS_MAX: f64 = 1e9;
/// Tiers of one server.
const TIERS_MAX: usize = 16;
/// Caches of one region.
const CACHES_MAX: usize = 1024;
/// Bytes of a file: 1 PiB, as at the edge.
const SIZE_MAX: u64 = 1 << 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_finds_no_turn_in_time_is_told_to_come_again() {
        let turns = Arc::new(Semaphore::new(2));
        let (first, _second) =
            (turn(&turns, Duration::ZERO).await.unwrap(), turn(&turns, Duration::ZERO).await.unwrap());
        assert_eq!(turn(&turns, Duration::ZERO).await.unwrap_err().status(), StatusCode::TOO_MANY_REQUESTS);
        drop(first);
        drop(turn(&turns, Duration::ZERO).await.unwrap());
    }
}
