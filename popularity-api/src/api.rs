//! What the API knows, and what it answers: every call of [`crate::wire`] as a method that neither reads a socket
//! nor writes one.

mod carrying;
mod downloads;
mod followed;
mod following;
mod linking;
mod metrics;
mod purging;
mod refusals;
mod statuses;

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::http::StatusCode;
use daemon::problem::Refusal;
use daemon::tokens::Tokens;
use geo::rest::Rests;
use geo::topology::{Region, Server, Watched};
use geo::{RegionId, Resolver, Topology};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use self::carrying::Carrying;
use crate::config::Config;
use crate::engine::feed::Feed;
use crate::history::History;
use crate::holdings::Holdings;
use crate::pressure::Pressure;
use crate::purge::Ledger;
use crate::ratings::{AskError, Ratings};
use crate::signing::Keys;
use crate::status::Registry;
pub use metrics::Metrics;

/// The API's state; shared by all connections.
#[derive(Debug)]
pub struct Api {
    /// Its settings.
    pub config: Config,
    /// Who may call.
    pub tokens: Tokens,
    /// The ratings.
    pub ratings: Arc<dyn Ratings>,
    /// Counters.
    pub metrics: Metrics,
    /// What was purged.
    pub purges: Ledger,
    history: Option<History>,
    /// What signs links.
    pub keys: Arc<ArcSwap<Keys>>,
    topology: Watched,
    /// Suns that rest, as they report.
    rests: watch::Sender<Rests>,
    resolver: Arc<ArcSwap<Resolver>>,
    holdings: RwLock<Holdings>,
    registry: RwLock<Registry>,
    carrying: Mutex<Carrying>,
    /// RAM for bodies, in units of [`ROOM_UNIT_BYTES`].
    bodies: Arc<Semaphore>,
    /// Bodies unpacked at a time.
    unpackers: Arc<Semaphore>,
    /// What reporters are asked to do less.
    pressure: Mutex<Pressure>,
    /// Rankings at a time.
    rankings: Arc<Semaphore>,
    started: Instant,
    /// What copies read of the ratings.
    feed: ArcSwapOption<Feed>,
    /// What a copy of another API has beside.
    followed: Option<followed::Followed>,
    /// Set when the drain begins.
    ending: watch::Sender<bool>,
}

impl Api {
    /// Puts the state together.
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "each is another piece, and they are put together once")]
    pub fn new(
        config: Config,
        tokens: Tokens,
        ratings: Arc<dyn Ratings>,
        metrics: Metrics,
        purges: Ledger,
        keys: Arc<ArcSwap<Keys>>,
        topology: Watched,
        resolver: Arc<ArcSwap<Resolver>>,
    ) -> Self {
        Self {
            holdings: RwLock::new(Holdings::new(config.holdings())),
            registry: RwLock::new(Registry::new(config.rule(), 0).with_saturation(config.saturation())),
            carrying: Mutex::new(Carrying::new(config.wanted.claim_s)),
            bodies: Arc::new(Semaphore::new(config.limits.bodies_bytes_max.div_ceil(ROOM_UNIT_BYTES))),
            unpackers: Arc::new(Semaphore::new(UNPACKERS_MAX)),
            pressure: Mutex::new(config.pressure()),
            rankings: Arc::new(Semaphore::new(RANKINGS_MAX)),
            started: Instant::now(),
            feed: ArcSwapOption::empty(),
            followed: config.replica.as_ref().map(|_| followed::Followed::default()),
            config,
            tokens,
            ratings,
            metrics,
            purges,
            history: None,
            keys,
            topology,
            rests: watch::Sender::default(),
            resolver,
            ending: watch::Sender::new(false),
        }
    }

    /// The drain begins: who waits for something new is answered at once.
    pub fn end_waits(&self) {
        self.ending.send_replace(true);
    }

    /// Waits for something new, for so long at most, and not beyond the beginning of the drain.
    async fn wait_for(&self, something: impl Future, limit: Duration) {
        let mut ending = self.ending.subscribe();
        tokio::select! {
            _ = tokio::time::timeout(limit, something) => {}
            _ = ending.wait_for(|ending| *ending) => {}
        }
    }

    /// The same, which tells there who rests.
    #[must_use]
    pub fn with_rests(self, rests: watch::Sender<Rests>) -> Self {
        Self { rests, ..self }
    }

    /// Lets copies read the ratings of an engine.
    pub fn set_feed(&self, feed: Feed) {
        self.feed.store(Some(Arc::new(feed)));
    }

    /// The API that this one is a copy of.
    #[must_use]
    pub fn primary(&self) -> Option<&str> {
        self.config.replica.as_ref().map(|replica| replica.url.as_str())
    }

    /// The same, with a history of what is counted.
    #[must_use]
    pub fn with_history(self, history: Option<History>) -> Self {
        Self { history, ..self }
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

    /// Takes more room for a body that has some, if it is there now. It never waits: bodies that wait for each other with
    /// room in their hands would wait for good.
    pub fn more_room(&self, room: &mut OwnedSemaphorePermit, bytes: usize) -> bool {
        let units = u32::try_from(bytes.div_ceil(ROOM_UNIT_BYTES)).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.bodies).try_acquire_many_owned(units);
        more.map(|more| room.merge(more)).is_ok()
    }

    /// Waits for its turn to unpack a body; keep it as long as that takes.
    pub async fn unpacker(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.unpackers).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Waits for its turn to rank a region's files, [`Api::top`] or [`Api::wanted`]; keep it as long as that takes.
    ///
    /// # Errors
    ///
    /// 429 when there is none for two seconds.
    pub async fn ranking(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        turn(&self.rankings, RANKING_WAIT).await
    }

    /// The registry's clock: milliseconds since the start; at a copy the primary's, when that one answered last.
    fn now_ms(&self) -> u64 {
        if let Some(followed) = &self.followed {
            return followed.now_ms();
        }
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
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
    let hint = if name.starts_with("log:") { "; a log is log:1 to log:1000" } else { "" };
    let missing = || Refusal::missing(format!("{field}: no sun or cache of the topology is called {name:?}{hint}"));
    topology.server(name).ok_or_else(missing)
}

fn unasked(error: AskError) -> Refusal {
    let detail = error.to_string();
    match error {
        AskError::Away(_) => Refusal::unavailable(detail),
        AskError::Failed => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, detail),
    }
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    // Writers replace entries of maps one by one; what a panic leaves behind is still a map.
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Bodies unpacked at a time: each takes a core for a while, and up to 8 MiB beside its room ([`crate::encoding`]).
const UNPACKERS_MAX: usize = 8;
/// Rankings at a time: each takes a core for a while, and commits wait for those that have begun.
const RANKINGS_MAX: usize = 2;
/// How long a call waits for its turn to rank.
const RANKING_WAIT: Duration = Duration::from_secs(2);
/// What room for bodies is counted in.
const ROOM_UNIT_BYTES: usize = 1024;

#[cfg(test)]
mod tests;
