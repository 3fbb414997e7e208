//! The state that all workers of one edge share.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use arc_swap::ArcSwap;
use geo::topology::Watched;
use geo::{CanonicalName, ContentId, RegionId, Resolver, Topology};
use tokio::sync::Semaphore;

use crate::breaker::Breakers;
use crate::config::Config;
use crate::fill::registry::Registry;
use crate::flow::Absent;
use crate::held::{HeldFile, HeldFiles};
use crate::metrics::Metrics;
use crate::purge::{Mark, Purges, Subject, Verdict};
use crate::ram::{Head, Ram};
use crate::region::{RegionView, Suspended, Witnesses};
use crate::report::Downloads;
use crate::response::Signature;
use crate::sources::{self, Question, Source};
use crate::upstream::Upstream;

/// One edge. Every field is shared by reference and synchronises itself.
#[derive(Debug)]
pub struct Edge {
    /// Its settings.
    pub config: Config,
    /// The RAM tier.
    pub ram: Ram,
    /// The vault of a cache; a sun has none.
    pub held: Option<Arc<dyn HeldFiles>>,
    /// Fills under way.
    pub fills: Registry,
    /// The client for sources.
    pub upstream: Upstream,
    /// KiB that fills may hold; see [`crate::config::UpstreamConfig::in_flight_bytes`].
    pub in_flight: Arc<Semaphore>,
    /// Counters.
    pub metrics: Metrics,
    /// How responses are signed.
    pub signature: Signature,
    /// What was purged.
    pub purges: Arc<Purges>,
    /// Downloads that wait to be reported.
    pub downloads: Arc<Downloads>,
    /// Which region a client is in.
    pub resolver: Arc<ArcSwap<Resolver>>,
    /// Who may use the internal listener.
    pub tokens: daemon::tokens::Tokens,
    /// What the popularity API says of the region.
    pub region: ArcSwap<RegionView>,
    /// The drain has begun: nobody is to link here.
    pub draining: AtomicBool,
    topology: Watched,
    suspended: ArcSwap<Suspended>,
    breakers: Mutex<Breakers>,
    started: Instant,
}

/// What [`Edge::new`] needs beside the config.
#[derive(Debug)]
pub struct Pieces {
    /// The topology.
    pub topology: Watched,
    /// The resolver.
    pub resolver: Arc<ArcSwap<Resolver>>,
    /// Tokens of other servers.
    pub tokens: daemon::tokens::Tokens,
    /// The client for sources.
    pub upstream: Upstream,
    /// Counters.
    pub metrics: Metrics,
    /// How responses are signed.
    pub signature: Signature,
    /// The vault of a cache.
    pub held: Option<Arc<dyn HeldFiles>>,
    /// What was purged.
    pub purges: Arc<Purges>,
}

impl Edge {
    /// Puts an edge together; nothing runs yet.
    #[must_use]
    pub fn new(config: Config, pieces: Pieces) -> Self {
        let kib = usize::try_from(config.upstream.in_flight_bytes / 1024).unwrap_or(usize::MAX);
        Self {
            ram: Ram::new(config.ram_bytes),
            held: pieces.held,
            fills: Registry::default(),
            upstream: pieces.upstream,
            in_flight: Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS))),
            metrics: pieces.metrics,
            signature: pieces.signature,
            purges: pieces.purges,
            downloads: Arc::default(),
            resolver: pieces.resolver,
            tokens: pieces.tokens,
            region: ArcSwap::default(),
            draining: AtomicBool::new(false),
            topology: pieces.topology,
            suspended: ArcSwap::default(),
            breakers: Mutex::default(),
            started: Instant::now(),
            config,
        }
    }

    /// The running topology.
    #[must_use]
    pub fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.topology.borrow())
    }

    /// The topology as it changes.
    #[must_use]
    pub fn watched(&self) -> Watched {
        self.topology.clone()
    }

    /// Where the bytes of a file come from, in order.
    #[must_use]
    pub fn sources(&self, name: &CanonicalName, content: ContentId, direct: bool) -> Vec<Source> {
        let (view, suspended) = (self.region.load(), self.suspended.load());
        let question = Question {
            me: &self.config.name,
            cache: self.held.is_some(),
            direct,
            name,
            content,
            spread: view.spread(name.as_str()),
        };
        let belief = Witnesses { view: &view, suspended: &suspended, now_ms: self.now_ms() };
        sources::sources(question, &self.topology(), &belief)
    }

    /// Whether a fill of the file begun for a client asks no sun: then requests of servers may join it.
    #[must_use]
    pub fn asks_no_sun(&self, name: &CanonicalName, content: ContentId) -> bool {
        !self.sources(name, content, false).iter().any(Source::is_sun)
    }

    /// What becomes of a file that is not held: a cache fetches nothing for other servers.
    #[must_use]
    pub fn absent(&self, direct: bool) -> Absent {
        if direct && self.held.is_some() { Absent::Refuse } else { Absent::Fill }
    }

    /// The vault's copy, and whether it may be served without asking; none when it was purged.
    #[must_use]
    pub fn open_held(&self, name: &CanonicalName, content: ContentId) -> Option<(HeldFile, bool)> {
        let held = self.held.as_ref()?;
        let file = held.open(content)?;
        let verdict = self.purges.verdict(Subject { name: name.as_str(), content, tags: &file.tags }, file.mark);
        self.metrics.purge_found(verdict);
        if verdict == Verdict::Gone {
            held.outdated(content);
            return None;
        }
        Some((file, verdict == Verdict::Current))
    }

    /// What the RAM tier knows of a file: nothing when it was purged hard, a stale copy when it was purged softly.
    #[must_use]
    pub fn head(&self, name: &CanonicalName, content: ContentId) -> Option<Head> {
        let head = self.ram.head(content)?;
        let verdict = self.purges.of(name, content, head.meta());
        self.metrics.purge_found(verdict);
        match verdict {
            Verdict::Current => Some(head),
            Verdict::Stale => Some(head.stale()),
            Verdict::Gone => {
                self.ram.forget_version(content, head.meta().generation);
                None
            }
        }
    }

    /// Before a request joins a fill: those that a purge has overtaken go on for who reads them already, and nobody
    /// else.
    pub fn part_overtaken(&self, name: &CanonicalName, content: ContentId) {
        if self.purges.mark() != Mark::default() {
            self.fills.part(content, |fill| self.purges.overtaken(name, fill));
        }
    }

    /// The vault's copy is not what was stored.
    pub fn distrust(&self, content: ContentId) {
        if let Some(held) = &self.held {
            held.distrust(content);
        }
    }

    /// The content server says that the version that is held is unchanged: the vault's copy is as good as new.
    pub fn confirmed(&self, content: ContentId, mark: Mark) {
        if let Some(held) = &self.held {
            held.confirmed(content, mark);
        }
    }

    /// The content server has another version than the one that is held.
    pub fn outdated(&self, content: ContentId) {
        if let Some(held) = &self.held {
            held.outdated(content);
        }
    }

    /// The region of a client.
    #[must_use]
    pub fn region_of(&self, client: std::net::IpAddr) -> RegionId {
        let regions = self.resolver.load().resolve(client).regions;
        regions.first().copied().unwrap_or_else(|| self.topology().default_region)
    }

    /// Whether the source is worth asking now.
    #[must_use]
    pub fn admits(&self, source: &Source) -> bool {
        match source {
            Source::ContentServer { number, .. } => self.breakers().admits(*number, self.now_ms()),
            Source::Sun { .. } | Source::Cache { .. } => true,
        }
    }

    /// The source gave an answer.
    pub fn succeeded(&self, source: &Source) {
        if let Source::ContentServer { number, .. } = source {
            self.breakers().succeeded(*number);
        }
    }

    /// The source answered 5xx or broke off. Of a server of ours that says nothing: what it asked may have failed.
    pub fn faltered(&self, source: &Source) {
        if let Source::ContentServer { number, .. } = source {
            self.breakers().failed(*number, self.now_ms());
        }
    }

    /// The source could not be reached, or did not answer in time.
    pub fn failed(&self, source: &Source) {
        let now_ms = self.now_ms();
        match source {
            Source::ContentServer { number, .. } => self.breakers().failed(*number, now_ms),
            Source::Sun { name, .. } | Source::Cache { name, .. } => {
                self.suspended.rcu(|suspended| {
                    let mut suspended = Suspended::clone(suspended);
                    suspended.suspend(name, now_ms);
                    suspended
                });
            }
        }
    }

    /// All KiB that fills may hold: the most that one may ask for.
    #[must_use]
    pub fn in_flight_kib_max(&self) -> u32 {
        u32::try_from(self.config.upstream.in_flight_bytes / 1024).unwrap_or(u32::MAX).max(1)
    }

    /// Milliseconds since the edge began: the clock of breakers and beliefs.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn breakers(&self) -> std::sync::MutexGuard<'_, Breakers> {
        self.breakers.lock().expect("no code that holds this lock panics")
    }
}
