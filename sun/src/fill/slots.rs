//! How many questions a content server is asked at a time, so that a slow one does not take all fills.
//!
//! ```text
//!   question --> requests_max running, each until its body has ended ---> content server
//!                  | all taken
//!                  +--> queue: queued_max of them, queued_ms at most ---> 503, Retry-After
//! ```
//!
//! HTTP/1.1 has one request on a connection, so this bounds connections as well. A fill that only waits for
//! readers gives its place up to whoever queues for the same content server ([`InFlight::reclaim`]).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::UpstreamConfig;
use crate::fill::in_flight::{InFlight, LOOK};

/// See the module's doc.
#[derive(Debug)]
pub struct Slots {
    running_max: usize,
    queued_max: usize,
    patience: Duration,
    servers: Mutex<HashMap<u32, Arc<Server>>>,
}

/// One content server.
#[derive(Debug)]
struct Server {
    running: Arc<Semaphore>,
    queued: AtomicUsize,
}

/// Leave to ask; the place is free again when it is dropped.
#[derive(Debug)]
pub struct Slot {
    _place: OwnedSemaphorePermit,
}

impl Slots {
    /// With the limits of the settings.
    #[must_use]
    pub fn new(config: &UpstreamConfig) -> Self {
        Self {
            running_max: config.requests_max.clamp(1, Semaphore::MAX_PERMITS),
            queued_max: config.queued_max,
            patience: Duration::from_millis(config.queued_ms),
            servers: Mutex::default(),
        }
    }

    /// A place at a content server; waits in its queue when all are taken. None: the queue is full, or it took
    /// too long.
    pub async fn enter(&self, number: u32, in_flight: &InFlight, now_ms: impl Fn() -> u64) -> Option<Slot> {
        let server = self.server(number);
        if let Ok(place) = Arc::clone(&server.running).try_acquire_owned() {
            return Some(Slot { _place: place });
        }
        let _queued = Queued::join(&server, self.queued_max)?;
        let acquire = Arc::clone(&server.running).acquire_owned();
        let wait = async {
            tokio::pin!(acquire);
            loop {
                tokio::select! {
                    biased;
                    place = &mut acquire => return place.expect("the semaphore is never closed"),
                    () = tokio::time::sleep(LOOK) => in_flight.reclaim(now_ms(), Some(number)),
                }
            }
        };
        tokio::time::timeout(self.patience, wait).await.ok().map(|place| Slot { _place: place })
    }

    /// A place at a content server if one is free.
    #[must_use]
    pub fn try_enter(&self, number: u32) -> Option<Slot> {
        let place = Arc::clone(&self.server(number).running).try_acquire_owned().ok()?;
        Some(Slot { _place: place })
    }

    /// Questions that run and that wait, at all content servers.
    #[must_use]
    pub fn busy(&self) -> (usize, usize) {
        self.lock().values().fold((0, 0), |(running, queued), server| {
            let taken = self.running_max - server.running.available_permits();
            (running + taken, queued + server.queued.load(Ordering::Relaxed))
        })
    }

    fn server(&self, number: u32) -> Arc<Server> {
        let mut servers = self.lock();
        if servers.len() >= SERVERS_IDLE_MAX && !servers.contains_key(&number) {
            let idle = |server: &Arc<Server>| {
                Arc::strong_count(server) == 1 && server.running.available_permits() == self.running_max
            };
            servers.retain(|_, server| !idle(server));
        }
        let new =
            || Arc::new(Server { running: Arc::new(Semaphore::new(self.running_max)), queued: AtomicUsize::new(0) });
        Arc::clone(servers.entry(number).or_insert_with(new))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Arc<Server>>> {
        self.servers.lock().expect("no code that holds this lock panics")
    }
}

/// A place in the queue; left when it is dropped.
struct Queued<'a>(&'a Server);

impl<'a> Queued<'a> {
    fn join(server: &'a Server, queued_max: usize) -> Option<Self> {
        let joined = server
            .queued
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |queued| (queued < queued_max).then(|| queued + 1));
        joined.is_ok().then(|| Self(server))
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Content servers that are remembered while nothing is asked of them.
const SERVERS_IDLE_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn places_and_queue_are_bounded_in_count_and_time() {
        let (slots, in_flight) = (slots(), InFlight::new(1 << 20));
        let enter = |number| slots.enter(number, &in_flight, || 0);
        let first = enter(7).await.unwrap();
        let _second = enter(7).await.unwrap();
        assert!(slots.try_enter(7).is_none());
        assert!(enter(8).await.is_some(), "another content server");

        let queued = enter(7);
        tokio::pin!(queued);
        assert!(futures_pending(queued.as_mut()).await);
        assert_eq!(slots.busy(), (2, 1));
        assert!(enter(7).await.is_none(), "the queue is full");
        drop(first);
        let third = queued.await.expect("a place became free");
        assert!(enter(7).await.is_none(), "nobody leaves in time");
        drop(third);
        assert!(slots.try_enter(7).is_some());
        assert_eq!(slots.busy(), (1, 0));
    }

    /// Polls once.
    async fn futures_pending<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
        tokio::time::timeout(Duration::ZERO, future).await.is_err()
    }

    #[test]
    fn content_servers_that_are_idle_are_forgotten() {
        let slots = slots();
        let kept = slots.try_enter(0).unwrap();
        for number in 1..3 * SERVERS_IDLE_MAX {
            assert!(slots.try_enter(u32::try_from(number).unwrap()).is_some());
        }
        assert!(slots.lock().len() <= SERVERS_IDLE_MAX);
        assert_eq!(slots.busy(), (1, 0), "one that is asked is not");
        drop(kept);
    }

    fn slots() -> Slots {
        Slots::new(&UpstreamConfig { requests_max: 2, queued_max: 1, queued_ms: 1000, ..UpstreamConfig::default() })
    }
}
