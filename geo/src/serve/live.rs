//! The engine's shell: waits for what routers say, for changed files and for the time, and calls the engine, which waits
//! for nothing.
//!
//! ```text
//!   BMP connections --updates, a bounded queue--+
//!   a second, or what damping waits for --------+--> engine: step --> table, changes
//!   sources: changed? -----Loaded---------------+--> engine: install
//!                                               +--> saved table, each `save_s` and at the end
//! ```
//!
//! # Invariants
//!
//! - The engine works on threads for that; nothing async waits for its lock.
//! - Whoever only asks for a client's regions never waits for it.
//! - A table that is not for others ([`Engine::is_published`]) is neither handed out nor saved, and the server is not ready.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use daemon::admin::Readiness;
use daemon::drain::Drain;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::Oracle;
use super::config::Config;
use super::metrics::Metrics;
use super::sources::Sources;
use crate::answer::Answer;
use crate::bmp::{Router, Routers, SessionEvent};
use crate::engine::{Engine, Stats};
use crate::file;
use crate::resolver::Resolver;
use crate::rib::FeedId;
use crate::wire::{Changes, Position, Resolved};

/// The engine as others use it.
#[derive(Debug)]
pub(super) struct Live {
    engine: Mutex<Engine>,
    resolver: Arc<ArcSwap<Resolver>>,
    moved: watch::Receiver<Position>,
    /// As [`Engine::is_published`], which once true stays so.
    published: AtomicBool,
    /// What was changed and is refused.
    refused: Mutex<Vec<String>>,
}

impl Live {
    pub(super) fn new(engine: Engine) -> Self {
        let (resolver, moved, published) = (engine.resolver(), engine.moved(), engine.is_published().into());
        Self { engine: Mutex::new(engine), resolver, moved, published, refused: Mutex::default() }
    }

    /// Not from an async task: a step holds it for some 20 ms, a table that is built anew for longer.
    pub(super) fn engine(&self) -> MutexGuard<'_, Engine> {
        // An engine that panicked is stepped no more; what it says of itself until somebody restarts the server may be
        // odd, and the table that it published is whole.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Oracle for Live {
    fn resolve(&self, client: IpAddr) -> Resolved {
        let resolution = self.resolver.load().resolve(client);
        let (regions, evidence) = (resolution.regions.to_vec(), resolution.evidence.to_string());
        Resolved { address: client, regions, evidence }
    }

    fn explain(&self, client: IpAddr) -> Answer {
        super::report::explanation(&self.engine().explain(client))
    }

    fn audit(&self) -> Answer {
        // The table is gone through without the lock.
        let survey = self.engine().survey(Instant::now());
        super::report::audit(&survey.audit())
    }

    fn stats(&self) -> Answer {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
        super::report::stats(&Stats { refused, ..self.engine().stats(Instant::now()) })
    }

    fn is_published(&self) -> bool {
        self.published.load(Acquire)
    }

    fn position(&self) -> Position {
        *self.moved.borrow()
    }

    fn moved(&self) -> watch::Receiver<Position> {
        self.moved.clone()
    }

    fn changes(&self, after: Position, most: usize) -> Option<Changes> {
        self.engine().changes_since(after, most)
    }

    fn reaches(&self, after: Position) -> bool {
        self.engine().reaches(after)
    }

    fn encode(&self) -> (Position, Vec<u8>) {
        self.engine().encode(daemon::clock::unix_s())
    }
}

/// What routers say, on its way to the engine.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) updates: mpsc::Receiver<(FeedId, SessionEvent)>,
    /// Keeps the queue open where no router can connect: one that is closed is never waited for.
    pub(super) _open: mpsc::Sender<(FeedId, SessionEvent)>,
}

/// Steps the engine until the drain.
pub(super) async fn step(
    live: Arc<Live>,
    Queue { mut updates, _open }: Queue,
    metrics: Metrics,
    readiness: Readiness,
    drain: Drain,
) {
    let mut batch = Vec::new();
    let (mut more, mut behind, mut wakes, mut told) = (true, false, Instant::now(), None);
    loop {
        if more {
            while !behind
                && batch.len() < BATCH_MAX
                && let Ok(update) = updates.try_recv()
            {
                batch.push(update);
            }
        } else {
            tokio::select! {
                () = drain.wait() => {}
                () = tokio::time::sleep_until(wakes.into()) => {}
                _ = updates.recv_many(&mut batch, BATCH_MAX) => {}
            }
        }
        if drain.started() {
            return;
        }
        let (stepping, metrics) = (Arc::clone(&live), metrics.clone());
        let stepped = tokio::task::spawn_blocking(move || {
            let (mut engine, now) = (stepping.engine(), Instant::now());
            let stepped = engine.step(now, batch.drain(..));
            stepping.published.store(engine.is_published(), Release);
            metrics.stepped(stepped);
            if told.is_none_or(|told| now.saturating_duration_since(told) >= TELL_EVERY) {
                metrics.tell(&engine.stats(now));
                told = Some(now);
            }
            (stepped.more, !engine.takes_updates(), engine.wakes(), told, batch)
        });
        match stepped.await {
            Ok(after) => (more, behind, wakes, told, batch) = after,
            Err(error) => {
                tracing::error!(%error, "the engine panicked: the table stays as it is until a restart");
                readiness.expect("engine");
                return;
            }
        }
        if live.is_published() {
            readiness.hold(super::TABLE);
        }
    }
}

/// Looks at the sources until the drain, each second and on SIGHUP.
pub(super) async fn follow(
    live: Arc<Live>,
    mut sources: Sources,
    routers: watch::Sender<Arc<Routers>>,
    metrics: Metrics,
    drain: Drain,
) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => return tracing::error!(%error, "SIGHUP cannot be listened to: changed files are not read"),
    };
    let mut version = None;
    loop {
        let asked = tokio::select! {
            () = drain.wait() => return,
            _ = hangup.recv() => true,
            () = tokio::time::sleep(LOOK_EVERY) => false,
        };
        let (live, metrics) = (Arc::clone(&live), metrics.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let before = sources.refusals();
            let loaded = sources.look(SystemTime::now(), asked);
            let refuses = !sources.refusals().is_empty() && sources.refusals() != before;
            metrics.sources(sources.is_refused());
            *live.refused.lock().unwrap_or_else(PoisonError::into_inner) = sources.refusals();
            let fed = loaded.map(|loaded| {
                let mut engine = live.engine();
                engine.install(loaded, Instant::now());
                metrics.installed();
                fed(sources.config(), &engine)
            });
            let topology = sources.topology();
            let now = Some(topology.version);
            if now != version {
                live.engine().sees_topology(&topology);
            }
            (sources, fed, now, refuses)
        });
        match looked.await {
            Ok((again, fed, now, refuses)) => {
                (sources, version) = (again, now);
                // Who asked while it was read was not told yet what is refused.
                while refuses
                    && tokio::select! { biased; _ = hangup.recv() => true, () = std::future::ready(()) => false }
                {
                }
                if let Some(fed) = fed {
                    routers.send_replace(fed);
                }
            }
            Err(error) => return tracing::error!(%error, "reading sources panicked: changed files are read no more"),
        }
    }
}

/// Which routers may connect, and which feeds they are.
pub(super) fn fed(config: &Config, engine: &Engine) -> Arc<Routers> {
    let routers = config.router.iter().zip(engine.feeds()).filter_map(|(router, feed)| {
        let known = Router { feed: (*feed)?, name: router.name.clone() };
        Some((router.address.to_canonical(), known))
    });
    Arc::new(routers.collect())
}

/// Saves the table when it changed, at most each `every`, and at the drain.
pub(super) async fn save(live: Arc<Live>, table: PathBuf, every: Duration, drain: Drain) {
    let mut moved = live.moved();
    let (mut saved, mut failed) = (None, false);
    loop {
        tokio::select! {
            _ = moved.wait_for(|now| Some(*now) != saved) => {}
            () = drain.wait() => {}
        }
        let now = live.position();
        // One that is not for others is not for the next start either.
        if live.is_published() && Some(now) != saved {
            let (live, table) = (Arc::clone(&live), table.clone());
            let written = tokio::task::spawn_blocking(move || {
                let (position, bytes) = live.encode();
                file::write_atomically(&table, &bytes).map(|()| position)
            });
            match written.await.map_err(std::io::Error::other).flatten() {
                Ok(position) => (saved, failed) = (Some(position), false),
                Err(error) if !std::mem::replace(&mut failed, true) => {
                    tracing::warn!(%error, "the table cannot be saved: a start would begin with an older one");
                }
                Err(_) => {}
            }
        }
        if drain.started() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = drain.wait() => {}
        }
    }
}

/// Batches of routers' messages in one step: some 10 ms.
const BATCH_MAX: usize = 64;
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Metrics.
const TELL_EVERY: Duration = Duration::from_secs(1);
