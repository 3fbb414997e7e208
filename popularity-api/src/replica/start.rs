//! From settings to a running copy.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use daemon::admin::Readiness;
use daemon::drain::Drain;
use daemon::metrics::level;

use super::Metrics;
use super::kept::Kept;
use super::lag::Lag;
use super::ratings::{Copy, Follower, News};
use super::state::StateFollower;
use crate::api::Api;
use crate::client::{Client, ClientConfig};
use crate::config::{Config, Replica};
use crate::engine;
use crate::engine::batch::Group;
use crate::server::COMMITTER;

/// A copy before it runs.
#[derive(Debug)]
pub struct Beginning {
    client: Client,
    copy: Copy,
    settings: engine::Settings,
    engine_metrics: engine::Metrics,
    metrics: Metrics,
    readiness: Readiness,
}

/// The client for the API that is followed.
///
/// # Errors
///
/// What is wrong with its address or token file.
pub fn client(replica: &Replica) -> anyhow::Result<Client> {
    let config =
        ClientConfig { url: replica.url.clone(), token_file: replica.token_file.clone(), timeout_ms: CALL_TIMEOUT_MS };
    // The client speaks of its own section.
    Client::new(&config)
        .map_err(|error| anyhow::anyhow!("{}", error.to_string().replace("popularity.url", "replica.url")))
}

impl Beginning {
    /// Reads the token and registers metrics.
    ///
    /// # Errors
    ///
    /// What is wrong with address or token file.
    pub fn new(
        replica: &Replica,
        settings: engine::Settings,
        engine_metrics: engine::Metrics,
        registry: &prometheus::Registry,
        readiness: Readiness,
    ) -> anyhow::Result<Self> {
        let copy = Copy::empty(if replica.ratings {
            "there is no whole copy of them yet"
        } else {
            "this API makes links only; ask the one that it follows"
        });
        let metrics = Metrics::register(registry)?;
        Ok(Self { client: client(replica)?, copy, settings, engine_metrics, metrics, readiness })
    }

    /// The ratings, which are empty until a copy is there.
    #[must_use]
    pub fn ratings(&self) -> Copy {
        self.copy.clone()
    }

    /// Takes up what the last run left, and follows until the drain.
    ///
    /// # Errors
    ///
    /// When the folder has ratings that are no copy, or the disk does not answer.
    pub async fn begin(self, api: &Arc<Api>, config: &Config, replica: &Replica, drain: &Drain) -> anyhow::Result<()> {
        let Self { client, copy, settings, engine_metrics, metrics, readiness } = self;
        let (folder, state) = (config.data.join("ratings"), config.data.join("state"));
        let (state_api, state_client, state_metrics) = (Arc::clone(api), client.clone(), metrics.clone());
        let state_readiness = readiness.clone();
        let taking_up = move || {
            let kept = Kept::open(&state).with_context(|| format!("data: {}", state.display()))?;
            anyhow::Ok(StateFollower::new(state_api, state_client, kept, state_metrics, state_readiness))
        };
        let follower = tokio::task::spawn_blocking(taking_up).await??;
        drain.spawn(follower.run(drain.clone()));
        tracing::info!(primary = replica.url, ratings = replica.ratings, "this API is a copy");
        if !replica.ratings {
            return Ok(());
        }
        let (lag, started) = (Arc::new(Mutex::new(Lag::default())), Instant::now());
        let heard = hearing(Arc::clone(api));
        let (told, of_lag) = (metrics.clone(), Arc::clone(&lag));
        let follower = Follower { client, copy, folder, settings, engine_metrics, metrics, lag, started, heard };
        let follower = Arc::new(follower);
        let recovering = Arc::clone(&follower);
        tokio::task::spawn_blocking(move || recovering.recover()).await??;
        readiness.expect(CONDITION);
        let telling = tell(of_lag, started, replica.lag_max_s, told, readiness.clone(), drain.clone());
        drain.spawn(telling);
        let draining = drain.clone();
        drain.spawn(async move {
            if !follower.run(&draining).await {
                tracing::error!("the committer thread ended: nothing is followed until a restart; see above why");
                readiness.expect(COMMITTER);
            }
        });
        Ok(())
    }
}

/// Lets copies of the copy read, and takes note of purged files that are downloaded again.
fn hearing(api: Arc<Api>) -> Box<dyn Fn(News<'_>) + Send + Sync> {
    Box::new(move |news| match news {
        News::Engine(engine) => api.set_feed(engine.feed().clone()),
        News::Counted(groups) => groups.iter().for_each(|group| downloaded(&api, group)),
    })
}

fn downloaded(api: &Api, group: &Group) {
    for entry in group.batches.iter().flat_map(|batch| &batch.entries) {
        // What the primary counted counts here too, whatever its age.
        let _counts = api.purges.downloaded(entry.region, &entry.file, group.time_ms);
    }
}

/// Says each second how far behind the copy is, and whether it is ready.
async fn tell(
    lag: Arc<Mutex<Lag>>,
    started: Instant,
    lag_max_s: u64,
    metrics: Metrics,
    readiness: Readiness,
    drain: Drain,
) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut near = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = drain.wait() => return,
        }
        let now_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let lag = *lag.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(behind) = lag.behind(now_ms) {
            metrics.behind_bytes.set(level(behind.bytes));
            metrics.behind_seconds.set(behind.seconds);
        }
        let within = lag.is_within(now_ms, lag_max_s);
        if within != std::mem::replace(&mut near, within) {
            if within {
                readiness.hold(CONDITION);
                tracing::info!("the ratings are near to the primary's");
            } else {
                readiness.expect(CONDITION);
                tracing::warn!(lag_max_s, "the ratings are further behind than replica.lag_max_s: not ready");
            }
        }
    }
}

/// What is waited for before the API is ready.
const CONDITION: &str = "the ratings are further behind the primary's than replica.lag_max_s";
/// Deadline of a call that gives little, milliseconds.
const CALL_TIMEOUT_MS: u64 = 5000;
