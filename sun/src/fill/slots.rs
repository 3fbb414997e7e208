//! How many questions a content server is asked at a time, so that a slow one does not take all fills.
//!
//! ```text
//!   question --> requests_max running, each until its body has ended ---> content server
//!                  | all taken
//!                  +--> queue: queued_max of them, queued_ms at most ---> 503, Retry-After
//! ```
//!
//! A class of files whose share is less than all ([`ClassShare`]) has such places and such a queue of its own before that:
//! when its files are slow, it is its own files that wait, and the others still find places.
//!
//! HTTP/1.1 has one request on a connection, so this bounds connections as well. A fill that only waits for
//! readers gives its place up to whoever queues for the same content server ([`InFlight::reclaim`]).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use geo::topology::{Class, Site};
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
    all: Places,
    /// Of classes that may not take all.
    classes: Mutex<HashMap<ClassId, Arc<Places>>>,
}

/// Places and a queue for them.
#[derive(Debug)]
struct Places {
    running_max: usize,
    running: Arc<Semaphore>,
    queued_max: usize,
    queued: AtomicUsize,
}

/// Leave to ask; the place is free again when it is dropped.
#[derive(Debug)]
pub struct Slot {
    _place: OwnedSemaphorePermit,
    _of_class: Option<OwnedSemaphorePermit>,
}

/// A class among all of the topology's: sites have classes of their own, and names of classes are unique in each only.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ClassId {
    /// Host of the site whose class it is.
    site: Option<String>,
    class: String,
}

/// What the files of a class may take of what all share.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassShare {
    class: ClassId,
    share: f64,
}

impl ClassShare {
    /// The share, 0..=1, of the class with this name, of the site with this host or of none.
    #[must_use]
    pub fn new(site: Option<&str>, class: &str, share: f64) -> Self {
        Self { class: ClassId { site: site.map(str::to_owned), class: class.to_owned() }, share }
    }

    /// The share of a class, of a site or of none.
    #[must_use]
    pub fn of(site: Option<&Site>, class: &Class) -> Self {
        Self::new(site.map(|site| site.host.as_str()), &class.name, class.share_max)
    }

    /// Whose share it is.
    #[must_use]
    pub const fn class(&self) -> &ClassId {
        &self.class
    }

    /// Of so many, at least one; none: it may take all.
    #[must_use]
    pub fn limit(&self, all: usize) -> Option<(&ClassId, usize)> {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of it"
        )]
        let limit = (all as f64 * self.share).ceil() as usize;
        (limit < all).then_some((&self.class, limit.max(1)))
    }
}

impl Places {
    fn new(running_max: usize, queued_max: usize) -> Self {
        let running = Arc::new(Semaphore::new(running_max));
        Self { running_max, running, queued_max, queued: AtomicUsize::new(0) }
    }

    fn try_take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.running).try_acquire_owned().ok()
    }

    /// Waits for a place; meanwhile fills that stand still may give theirs back. None: the queue is full.
    async fn take(&self, look: impl Fn()) -> Option<OwnedSemaphorePermit> {
        if let Some(place) = self.try_take() {
            return Some(place);
        }
        let _queued = Queued::join(self)?;
        let acquire = Arc::clone(&self.running).acquire_owned();
        tokio::pin!(acquire);
        loop {
            tokio::select! {
                biased;
                place = &mut acquire => return Some(place.expect("the semaphore is never closed")),
                () = tokio::time::sleep(LOOK) => look(),
            }
        }
    }
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

    /// A place at a content server for a file of a class; waits in its queue when all are taken. None: the queue is full,
    /// or it took too long.
    pub async fn enter(
        &self,
        number: u32,
        share: &ClassShare,
        in_flight: &InFlight,
        now_ms: impl Fn() -> u64,
    ) -> Option<Slot> {
        let server = self.server(number);
        // Who waits for the class's own places gains nothing from what others give back.
        let look_of_class = || in_flight.reclaim(now_ms(), Some(number), Some(share.class()));
        let look = || in_flight.reclaim(now_ms(), Some(number), None);
        let enter = async {
            let of_class = match self.of_class(&server, share) {
                Some(places) => Some(places.take(look_of_class).await?),
                None => None,
            };
            Some(Slot { _place: server.all.take(look).await?, _of_class: of_class })
        };
        tokio::time::timeout(self.patience, enter).await.ok().flatten()
    }

    /// A place at a content server if one is free.
    #[must_use]
    pub fn try_enter(&self, number: u32, share: &ClassShare) -> Option<Slot> {
        let server = self.server(number);
        let of_class = match self.of_class(&server, share) {
            Some(places) => Some(places.try_take()?),
            None => None,
        };
        Some(Slot { _place: server.all.try_take()?, _of_class: of_class })
    }

    /// The places of a class that may not take all.
    fn of_class(&self, server: &Server, share: &ClassShare) -> Option<Arc<Places>> {
        let (class, running_max) = share.limit(self.running_max)?;
        let mut classes = server.classes.lock().expect("no code that holds this lock panics");
        if let Some(places) = classes.get(class).filter(|places| places.running_max == running_max) {
            return Some(Arc::clone(places));
        }
        let queued_max = share.limit(self.queued_max).map_or(self.queued_max, |(_, limit)| limit);
        let places = Arc::new(Places::new(running_max, queued_max));
        classes.insert(class.clone(), Arc::clone(&places));
        Some(places)
    }

    /// Questions that run and that wait, at all content servers.
    #[must_use]
    pub fn busy(&self) -> (usize, usize) {
        self.lock().values().fold((0, 0), |(running, queued), server| {
            let taken = self.running_max - server.all.running.available_permits();
            let classes = server.classes.lock().expect("no code that holds this lock panics");
            let waiting: usize = classes.values().map(|places| places.queued.load(Ordering::Relaxed)).sum();
            (running + taken, queued + waiting + server.all.queued.load(Ordering::Relaxed))
        })
    }

    fn server(&self, number: u32) -> Arc<Server> {
        let mut servers = self.lock();
        if servers.len() >= SERVERS_IDLE_MAX && !servers.contains_key(&number) {
            let idle = |server: &Arc<Server>| {
                Arc::strong_count(server) == 1 && server.all.running.available_permits() == self.running_max
            };
            servers.retain(|_, server| !idle(server));
        }
        let new =
            || Arc::new(Server { all: Places::new(self.running_max, self.queued_max), classes: Mutex::default() });
        Arc::clone(servers.entry(number).or_insert_with(new))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Arc<Server>>> {
        self.servers.lock().expect("no code that holds this lock panics")
    }
}

/// A place in the queue; left when it is dropped.
struct Queued<'a>(&'a Places);

impl<'a> Queued<'a> {
    fn join(places: &'a Places) -> Option<Self> {
        let one_more = |queued| (queued < places.queued_max).then(|| queued + 1);
        let joined = places.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        joined.is_ok().then(|| Self(places))
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
        let (slots, all) = (&slots, &share(1.0));
        let in_flight = &in_flight;
        let enter = |number| slots.enter(number, all, in_flight, || 0);
        let first = enter(7).await.unwrap();
        let _second = enter(7).await.unwrap();
        assert!(slots.try_enter(7, all).is_none());
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
        assert!(slots.try_enter(7, all).is_some());
        assert_eq!(slots.busy(), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_class_waits_for_itself_and_others_pass() {
        let config = UpstreamConfig { requests_max: 4, queued_max: 4, queued_ms: 1000, ..UpstreamConfig::default() };
        let (slots, in_flight) = (&Slots::new(&config), &InFlight::new(1 << 20));
        let (films, pictures) = (&share(0.5), &share(1.0));
        let film = || slots.enter(7, films, in_flight, || 0);
        let _running = (film().await.unwrap(), film().await.unwrap());
        assert!(slots.try_enter(7, films).is_none(), "half of the places");
        let (first, second) = (film(), film());
        tokio::pin!(first, second);
        assert!(futures_pending(first.as_mut()).await && futures_pending(second.as_mut()).await);
        assert_eq!(slots.busy(), (2, 2));
        assert!(film().await.is_none(), "half of the queue");
        let picture = slots.enter(7, pictures, in_flight, || 0).await.expect("others find places");
        let _other = slots.try_enter(7, pictures).unwrap();
        assert!(slots.try_enter(8, films).is_some(), "another content server");
        drop(picture);
        assert!(slots.try_enter(7, films).is_none() && slots.try_enter(7, pictures).is_some());
    }

    #[test]
    fn classes_of_one_name_at_two_sites_are_two() {
        let config = UpstreamConfig { requests_max: 4, queued_max: 4, queued_ms: 1000, ..UpstreamConfig::default() };
        let slots = Slots::new(&config);
        let of = |site: Option<&str>, share: f64| ClassShare::new(site, "films", share);
        let (own, first, second) = (of(None, 0.25), of(Some("a.test"), 0.25), of(Some("b.test"), 0.5));
        let running =
            [&own, &first, &second].map(|share| slots.try_enter(7, share).expect("none takes another's place"));
        assert!(slots.try_enter(7, &own).is_none() && slots.try_enter(7, &first).is_none());
        let _more = slots.try_enter(7, &second).unwrap();
        drop(running);
        assert!(slots.try_enter(7, &own).is_some() && slots.try_enter(7, &first).is_some());
    }

    fn share(share: f64) -> ClassShare {
        ClassShare::new(None, "films", share)
    }

    /// Polls once.
    async fn futures_pending<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
        tokio::time::timeout(Duration::ZERO, future).await.is_err()
    }

    #[test]
    fn content_servers_that_are_idle_are_forgotten() {
        let slots = slots();
        let kept = slots.try_enter(0, &share(1.0)).unwrap();
        for number in 1..3 * SERVERS_IDLE_MAX {
            assert!(slots.try_enter(u32::try_from(number).unwrap(), &share(1.0)).is_some());
        }
        assert!(slots.lock().len() <= SERVERS_IDLE_MAX);
        assert_eq!(slots.busy(), (1, 0), "one that is asked is not");
        drop(kept);
    }

    fn slots() -> Slots {
        Slots::new(&UpstreamConfig { requests_max: 2, queued_max: 1, queued_ms: 1000, ..UpstreamConfig::default() })
    }
}
