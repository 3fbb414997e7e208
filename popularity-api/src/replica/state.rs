//! Follows what links are made from: who lives, what caches hold, what was purged. Asks once a second; an unchanged state costs
//! a 304, holdings come as what changed.
//!
//! ```text
//!   heard within state_max_s    links as the primary makes them
//!   not                         links name the owner sun; the last state is laid aside, and believed again with the next answer
//! ```

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::admin::Readiness;
use daemon::clock::unix_ms;
use daemon::drain::Drain;
use daemon::metrics::level;

use super::Metrics;
use super::kept::{Kept, KeptLinks};
use crate::api::Api;
use crate::client::{Client, ClientError, StateAnswer};
use crate::wire::{CacheHoldings, LinkState};

/// What follows.
#[derive(Debug)]
pub struct StateFollower {
    api: Arc<Api>,
    client: Client,
    kept: Arc<Kept>,
    metrics: Metrics,
    readiness: Readiness,
    state_max: Duration,
    etag: String,
    /// When the primary was heard last; a moment before the start for a state that was kept.
    heard: Option<Instant>,
    state: LinkState,
    now_ms: u64,
    links_kept: Option<Instant>,
    /// When the holdings of each cache were kept last.
    holdings_kept: HashMap<String, Instant>,
    /// Caches whose holdings changed since then.
    changed: BTreeSet<String>,
    away: bool,
    doubted: bool,
}

impl StateFollower {
    /// Begins with the state that was kept. Blocks.
    #[must_use]
    pub fn new(api: Arc<Api>, client: Client, kept: Kept, metrics: Metrics, readiness: Readiness) -> Self {
        let state_max_s = api.config.replica.as_ref().map_or(0, |replica| replica.state_max_s);
        let mut follower = Self {
            api,
            client,
            kept: Arc::new(kept),
            metrics,
            readiness,
            state_max: Duration::from_secs(state_max_s),
            etag: String::new(),
            heard: None,
            state: LinkState::default(),
            now_ms: 0,
            links_kept: None,
            holdings_kept: HashMap::new(),
            changed: BTreeSet::new(),
            away: false,
            doubted: false,
        };
        follower.readiness.expect(CONDITION);
        follower.take_up();
        follower
    }

    fn take_up(&mut self) {
        let Some(KeptLinks { state, now_ms, heard_ms }) = self.kept.links() else { return };
        for (cache, held) in self.kept.holdings() {
            drop(self.api.take_holdings(&cache, &held));
        }
        self.api.take_state(Some(&state), now_ms);
        let age = Duration::from_millis(unix_ms().saturating_sub(heard_ms));
        tracing::info!(age_s = age.as_secs(), servers = state.servers.len(), "the last state of links is taken up");
        // An age that this machine's clock cannot express is more than any bound.
        self.heard = Instant::now().checked_sub(age);
        if self.heard.is_none() {
            self.heard = Instant::now().checked_sub(self.state_max);
        }
        (self.state, self.now_ms) = (state, now_ms);
        self.readiness.hold(CONDITION);
        self.judge();
    }

    /// Follows until the drain begins, and keeps what it has then.
    pub async fn run(mut self, drain: Drain) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = drain.wait() => break,
            }
            let followed = tokio::select! {
                followed = self.follow() => followed,
                () = drain.wait() => break,
            };
            match followed {
                Ok(()) if std::mem::take(&mut self.away) => tracing::info!("the state of links is followed again"),
                Ok(()) => {}
                Err(error) => {
                    if !std::mem::replace(&mut self.away, true) {
                        tracing::warn!(%error, "the state of links cannot be followed; the last one counts for a while");
                    }
                }
            }
            self.judge();
            self.keep(false).await;
        }
        self.keep(true).await;
    }

    async fn follow(&mut self) -> Result<(), ClientError> {
        let StateAnswer { state, etag, now_ms } = self.client.state(&self.etag).await?;
        self.api.take_state(state.as_ref(), now_ms);
        (self.heard, self.now_ms) = (Some(Instant::now()), now_ms);
        if let Some(state) = state {
            self.state = state;
        }
        self.follow_holdings().await?;
        self.follow_purges().await?;
        // Only what was taken over whole need not be told again.
        self.etag = etag;
        self.readiness.hold(CONDITION);
        Ok(())
    }

    async fn follow_holdings(&mut self) -> Result<(), ClientError> {
        for known in self.state.holdings.clone() {
            let since = self.api.held_generation(&known.cache);
            if since == Some(known.generation) {
                continue;
            }
            let Some(told) = self.holdings(&known.cache, since).await? else { continue };
            let (_, note) = self.api.take_holdings(&known.cache, &told);
            if let Some(note) = note {
                self.api.ratings.note_held(note).await;
            }
            self.changed.insert(known.cache);
        }
        let caches: HashSet<&str> = self.state.holdings.iter().map(|known| known.cache.as_str()).collect();
        self.api.keep_only(&caches);
        Ok(())
    }

    /// What changed since a generation, or all pages. Nothing: the primary's restart came between.
    async fn holdings(&self, cache: &str, since: Option<u64>) -> Result<Option<CacheHoldings>, ClientError> {
        let mut told = match self.client.cache_holdings(cache, since, None).await {
            Err(ClientError::Refused(problem)) if problem.status == 404 => return Ok(None),
            told => told?,
        };
        // What changes while pages are read is told by the next question: all of it is after the first page's generation.
        while let Some(from) = told.next.take() {
            let page = self.client.cache_holdings(cache, None, Some(&from)).await?;
            if told.added.len() + page.added.len() > self.api.config.limits.held_max {
                break;
            }
            told.added.extend(page.added);
            told.next = page.next;
        }
        Ok(Some(told))
    }

    async fn follow_purges(&self) -> Result<(), ClientError> {
        while self.state.purge_sequence != self.api.purges.position() {
            let position = self.api.purges.position();
            let told = self.client.purges(position, Duration::ZERO).await?;
            let api = Arc::clone(&self.api);
            let taken = tokio::task::spawn_blocking(move || api.purges.follow(&told)).await;
            if let Ok(Err(error)) = taken {
                tracing::warn!(%error, "purges cannot be kept");
            }
            if self.api.purges.position() == position {
                break;
            }
        }
        self.api.metrics.purge_sequence.set(level(self.api.purges.latest()));
        Ok(())
    }

    /// Whether the state is still believed.
    fn judge(&mut self) {
        let Some(heard) = self.heard else { return };
        let age = heard.elapsed();
        self.metrics.state_age_seconds.set(age.as_secs_f64());
        let old = age > self.state_max;
        self.metrics.degraded.set(i64::from(old));
        if old != std::mem::replace(&mut self.doubted, old) {
            if old {
                self.etag.clear();
                self.api.doubt();
                tracing::warn!(age_s = age.as_secs(), "the state of links is too old: links name the owner sun");
            } else {
                tracing::info!("links go by the state again");
            }
        }
    }

    /// Keeps on disk what changed, not all the time unless it is the `last` time.
    async fn keep(&mut self, last: bool) {
        if self.doubted || self.heard.is_none() {
            return;
        }
        let due = |kept: Option<Instant>, every: Duration| last || kept.is_none_or(|at| at.elapsed() >= every);
        let links = due(self.links_kept, LINKS_KEPT_EVERY).then(|| KeptLinks {
            state: self.state.clone(),
            now_ms: self.now_ms,
            heard_ms: unix_ms().saturating_sub(millis(self.heard.map_or(Duration::ZERO, |heard| heard.elapsed()))),
        });
        let caches: BTreeSet<String> = self.state.holdings.iter().map(|known| known.cache.clone()).collect();
        self.changed.retain(|cache| caches.contains(cache));
        let of = |cache: &&String| due(self.holdings_kept.get(*cache).copied(), HOLDINGS_KEPT_EVERY);
        let changed: Vec<String> = self.changed.iter().filter(of).cloned().collect();
        if links.is_none() && changed.is_empty() {
            return;
        }
        let now = Instant::now();
        if links.is_some() {
            self.links_kept = Some(now);
        }
        for cache in &changed {
            self.changed.remove(cache);
            self.holdings_kept.insert(cache.clone(), now);
        }
        let (api, store) = (Arc::clone(&self.api), Arc::clone(&self.kept));
        let writing = move || {
            for cache in changed {
                if let Some(held) = api.held_by(&cache) {
                    store.keep_holdings(&cache, &held)?;
                }
            }
            store.keep_only(&caches)?;
            links.map_or(Ok(()), |links| store.keep_links(&links))
        };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(writing).await {
            tracing::warn!(%error, "the last state of links cannot be kept");
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What is waited for before the API is ready.
const CONDITION: &str = "the state of links has not been heard of";
/// How often the primary is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How often the state is kept on disk.
const LINKS_KEPT_EVERY: Duration = Duration::from_secs(5);
/// How often the holdings of one cache are.
const HOLDINGS_KEPT_EVERY: Duration = Duration::from_secs(30);
