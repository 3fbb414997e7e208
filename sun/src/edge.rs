//! The state that all workers of one edge share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use arc_swap::ArcSwap;
use geo::rest::Rests;
use geo::topology::{Class, Watched};
use geo::{CanonicalName, ContentId, RegionId, Resolver, Topology};
use popularity_api::signing::Keys;
use tokio::sync::watch;

use crate::breaker::{Breakers, Complaints, Leave};
use crate::caching::vary;
use crate::canary::Canary;
use crate::config::Config;
use crate::epochs::Epochs;
use crate::errand::{Errand, class_of};
use crate::extent;
use crate::fill::ahead::Sequences;
use crate::fill::hedge::Hedging;
use crate::fill::in_flight::InFlight;
use crate::fill::registry::Registry;
use crate::fill::slots::{ClassShare, Slots};
use crate::flow::Absent;
use crate::held::{HeldFile, HeldFiles};
use crate::hot::turn::Place;
use crate::hot::{self, Detector};
use crate::meta::Meta;
use crate::metrics::Metrics;
use crate::pass::Passing;
use crate::purge::{Mark, Purges, Subject, Verdict};
use crate::ram::{Head, Known, Note, Ram};
use crate::region::{RegionView, Suspended, Witnesses};
use crate::report::Downloads;
use crate::request::Lookup;
use crate::response::Signature;
use crate::sources::{self, History, Question, Source};
use crate::store::Store;
use crate::upstream::Upstream;

/// One edge. Every field is shared by reference and synchronises itself.
#[derive(Debug)]
pub struct Edge {
    /// Its settings.
    pub config: Config,
    /// The RAM tier.
    pub ram: Ram,
    /// The NVMe tier; without devices it has nothing.
    pub store: Store,
    /// The vault of a cache; a sun has none.
    pub held: Option<Arc<dyn HeldFiles>>,
    /// Fills under way.
    pub fills: Registry,
    /// The client for sources.
    pub upstream: Upstream,
    /// The client for what is passed on uncached.
    pub passing: Passing,
    /// What fills may hold; see [`crate::config::UpstreamConfig::in_flight_bytes`].
    pub in_flight: InFlight,
    /// How many questions each content server is asked at a time.
    pub slots: Slots,
    /// When a source is slow enough for a second question.
    pub hedging: Hedging,
    /// Clients that read files in sequence.
    pub sequences: Sequences,
    /// Counters.
    pub metrics: Metrics,
    /// How responses are signed.
    pub signature: Signature,
    /// Counts what is asked for most.
    pub detector: Arc<Detector>,
    /// Requests for hot files that siblings are to take over.
    pub sharing: ArcSwap<hot::Passing>,
    /// What was purged.
    pub purges: Arc<Purges>,
    /// Downloads that wait to be reported.
    pub downloads: Arc<Downloads>,
    /// Which region a client is in.
    pub resolver: Arc<ArcSwap<Resolver>>,
    /// What signed links are checked with.
    pub keys: Arc<ArcSwap<Keys>>,
    /// Who may use the internal listener.
    pub tokens: daemon::tokens::Tokens,
    /// What the popularity API says of the region.
    pub region: ArcSwap<RegionView>,
    /// What its self-check asks for.
    pub canary: Canary,
    /// The drain has begun: nobody is to link here.
    pub draining: AtomicBool,
    /// The topology drains this server: clients are led to another one.
    pub leads_away: AtomicBool,
    topology: Watched,
    /// Suns of the region that rest, as the API says.
    pub rests: watch::Sender<Rests>,
    history: ArcSwap<History>,
    suspended: ArcSwap<Suspended>,
    breakers: Breakers,
    /// How often content servers are spoken of in the log.
    complaints: Complaints,
    /// When files were changed through this server.
    pub epochs: Epochs,
    started: Instant,
}

/// What [`Edge::new`] needs beside the config.
#[derive(Debug)]
pub struct Pieces {
    /// The topology in effect.
    pub topology: Watched,
    /// Where it is told who rests.
    pub rests: watch::Sender<Rests>,
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
    /// What signed links are checked with.
    pub keys: Keys,
    /// The NVMe tier.
    pub store: Store,
}

impl Edge {
    /// Puts an edge together; nothing runs yet.
    #[must_use]
    pub fn new(config: Config, pieces: Pieces) -> Self {
        Self {
            ram: Ram::new(config.ram_bytes),
            store: pieces.store,
            held: pieces.held,
            fills: Registry::default(),
            in_flight: InFlight::new(config.upstream.in_flight_bytes),
            passing: Passing::new(&config.upstream, pieces.upstream.connector().clone()),
            upstream: pieces.upstream,
            sequences: Sequences::new(config.upstream.read_ahead_bytes),
            slots: Slots::new(&config.upstream),
            hedging: Hedging::new(&config.upstream),
            metrics: pieces.metrics,
            signature: pieces.signature,
            detector: Arc::new(Detector::new(config.workers_count())),
            sharing: ArcSwap::default(),
            purges: pieces.purges,
            downloads: Arc::default(),
            resolver: pieces.resolver,
            tokens: pieces.tokens,
            keys: Arc::new(ArcSwap::from_pointee(pieces.keys)),
            region: ArcSwap::default(),
            canary: Canary::default(),
            draining: AtomicBool::new(false),
            leads_away: AtomicBool::new(false),
            topology: pieces.topology,
            rests: pieces.rests,
            history: ArcSwap::default(),
            suspended: ArcSwap::default(),
            breakers: Breakers::default(),
            complaints: Complaints::default(),
            epochs: Epochs::default(),
            started: Instant::now(),
            config,
        }
    }

    /// The running topology.
    #[must_use]
    pub fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.topology.borrow())
    }

    /// What `read` finds in the class of a file as it was asked for: by the URL of the site with this host, or
    /// under `/c...`.
    pub fn with_class<T>(&self, site: Option<&str>, name: &CanonicalName, read: impl FnOnce(&Class) -> T) -> T {
        let topology = self.topology.borrow();
        read(topology.class_for(site.and_then(|host| topology.site(host)), name))
    }

    /// What the class of a file as it was asked for may take of what all share.
    #[must_use]
    pub fn share(&self, site: Option<&str>, name: &CanonicalName) -> ClassShare {
        let topology = self.topology.borrow();
        let site = site.and_then(|host| topology.site(host));
        ClassShare::of(site, topology.class_for(site, name))
    }

    /// The topology as it changes.
    #[must_use]
    pub fn watched(&self) -> Watched {
        self.topology.clone()
    }

    /// Where the bytes of a file come from, in order.
    #[must_use]
    pub fn sources(&self, name: &CanonicalName, content: ContentId, site: Option<&str>, direct: bool) -> Vec<Source> {
        let (topology, earlier) = self.topologies();
        let class = class_of(&topology, site, name);
        let (view, suspended) = (self.region.load(), self.suspended.load());
        let belief = Witnesses { view: &view, suspended: &suspended, now_ms: self.now_ms() };
        sources::sources(self.question((name, content, class), direct, &view, &earlier), &topology, &belief)
    }

    /// The same for an errand: what a request says of its sender is for the content server alone, and who kept a file
    /// before is asked for media only.
    #[must_use]
    pub fn sources_of(&self, errand: &Errand, direct: bool) -> Vec<Source> {
        let mut sources = self.sources(&errand.name, errand.content, errand.site.as_deref(), direct);
        if let Some(said) = &errand.said {
            sources.retain(|source| match source {
                Source::ContentServer { .. } => true,
                Source::Former { .. } => false,
                Source::Sun { .. } | Source::Cache { .. } => !said.personal,
            });
        }
        sources
    }

    /// Whether this sun is one of those that keep the file; others have it in passing.
    #[must_use]
    pub fn keeps(&self, name: &CanonicalName, content: ContentId, site: Option<&str>) -> bool {
        let topology = self.topology();
        let class = class_of(&topology, site, name);
        let (view, suspended) = (self.region.load(), self.suspended.load());
        let belief = Witnesses { view: &view, suspended: &suspended, now_ms: self.now_ms() };
        sources::keeps(self.question((name, content, class), false, &view, &[]), &topology, &belief)
    }

    fn question<'a>(
        &'a self,
        (name, content, class): (&'a CanonicalName, ContentId, &'a Class),
        direct: bool,
        view: &RegionView,
        earlier: &'a [Arc<Topology>],
    ) -> Question<'a> {
        let spread = view.spread(name.as_str(), self.now_ms());
        Question { me: &self.config.name, cache: self.held.is_some(), direct, name, content, class, spread, earlier }
    }

    /// The running topology, and those of the last ten minutes, newest first.
    #[must_use]
    pub fn topologies(&self) -> (Arc<Topology>, Vec<Arc<Topology>>) {
        let (topology, now_ms) = (self.topology(), self.now_ms());
        if !self.history.load().runs(&topology) {
            self.history.rcu(|history| {
                let mut history = History::clone(history);
                history.see(&topology, now_ms);
                history
            });
        }
        (topology, self.history.load().earlier(now_ms))
    }

    /// Hands what a turn of hot files goes by to `turn`.
    pub fn with_place<T>(&self, turn: impl FnOnce(&Place<'_, Witnesses<'_>>) -> T) -> T {
        let (topology, earlier) = self.topologies();
        let (view, suspended, now_ms) = (self.region.load(), self.suspended.load(), self.now_ms());
        let belief = &Witnesses { view: &view, suspended: &suspended, now_ms };
        let (me, topology, earlier) = (self.config.name.as_str(), &*topology, &*earlier);
        turn(&Place { me, topology, earlier, view: &view, belief, now_ms })
    }

    /// What becomes of a file that is not held: a cache fetches nothing for other servers, and nobody does when only
    /// what is held was asked for.
    #[must_use]
    pub fn absent(&self, request: &Lookup) -> Absent {
        if request.held_only || (request.direct && self.held.is_some()) { Absent::Refuse } else { Absent::Fill }
    }

    /// What is `known` of a file of which only what is held was asked for: nothing unless it is fresh and every byte
    /// of the part is there.
    #[must_use]
    pub fn held_whole(&self, request: &Lookup, known: Option<Known>) -> Option<Known> {
        let known = known.filter(|_| request.held_only)?;
        let Known::File(head) = &known else { return None };
        if !head.meta().fresh(daemon::clock::unix_s()) {
            return None;
        }
        let Head::Large { meta } = head else { return Some(known) };
        self.holds_part(request, request.slot, meta).then_some(known)
    }

    /// Whether every byte that the request asks for of a large file is held.
    #[must_use]
    pub fn holds_part(&self, request: &Lookup, slot: ContentId, meta: &Meta) -> bool {
        let Some(size) = meta.size else { return false };
        let part = match request.range.filter(|_| request.several.is_none()) {
            Some(range) => range.within(size),
            None => Some(0..size),
        };
        let Some(part) = part else { return false };
        let mut extents = extent::index_of(part.start)..=extent::index_of(part.end.saturating_sub(1));
        request.head_only || extents.all(|index| self.has_extent(slot, meta.generation, index))
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

    /// What the RAM tier says of a file's slot: nothing when it was purged hard, a stale copy when it was purged
    /// softly.
    #[must_use]
    pub fn known(&self, name: &CanonicalName, content: ContentId, slot: ContentId) -> Option<Known> {
        let known = self.ram.known(slot)?;
        let meta = match &known {
            Known::File(head) => head.meta(),
            Known::Note(Note::Piece { meta, .. }) => meta,
            Known::Note(Note::Refused { mark, .. }) => {
                let subject = Subject { name: name.as_str(), content, tags: &[] };
                let current = self.purges.verdict(subject, *mark) == Verdict::Current;
                return Some(known).filter(|_| current);
            }
            Known::Note(_) => return Some(known),
        };
        let verdict = self.purges.of(name, content, meta);
        self.metrics.purge_found(verdict);
        match (verdict, known) {
            (Verdict::Current, known) => Some(known),
            (Verdict::Stale, Known::File(head)) => Some(Known::File(head.stale())),
            (_, Known::File(head)) => {
                self.forget_version(slot, head.meta().generation);
                None
            }
            (_, Known::Note(_)) => None,
        }
    }

    /// Before a request joins a fill: those that a purge has overtaken go on for who reads them already, and nobody
    /// else.
    pub fn part_overtaken(&self, name: &CanonicalName, content: ContentId, slot: ContentId) {
        if self.purges.mark() != Mark::default() {
            self.fills.part(slot, |fill| self.purges.overtaken(name, content, fill));
        }
    }

    /// The file is another one now: what this server keeps of it is dropped (RFC 9111, section 4.4).
    pub fn invalidate(&self, name: &CanonicalName) {
        let content = name.content_id();
        // First, so that no fill that asked before keeps anything after this.
        self.epochs.raise(content);
        for slot in [content, vary::slot(content)] {
            self.fills.part(slot, |_| true);
            self.forget(slot);
        }
        self.distrust(content);
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

    /// Leave to ask the source now; none while its breaker is open.
    #[must_use]
    pub fn admits(&self, source: &Source) -> Option<Leave> {
        match source {
            Source::ContentServer { number, .. } => self.breakers.admits(*number, self.now_ms()),
            Source::Sun { .. } | Source::Former { .. } | Source::Cache { .. } => Some(Leave::ORDINARY),
        }
    }

    /// Whether a content server may be asked what a client alone answers for: that is no probe, since it may end without
    /// a verdict ([`crate::breaker::Breakers::admits_unprobed`]).
    #[must_use]
    pub fn admits_unprobed(&self, content_server: u32) -> bool {
        self.breakers.admits_unprobed(content_server, self.now_ms())
    }

    /// Whether nothing is held against a content server: then it may be asked for more than is needed.
    #[must_use]
    pub fn trusts(&self, content_server: u32) -> bool {
        self.breakers.closed(content_server)
    }

    /// The source gave an answer.
    pub fn succeeded(&self, source: &Source) {
        if let Source::ContentServer { number, .. } = source
            && self.breakers.succeeded(*number)
            && self.complaints.may(self.now_ms())
        {
            tracing::info!(content_server = number, "the content server answers again");
        }
    }

    /// The source answered 5xx or broke off. Of a server of ours that says nothing: what it asked may have failed.
    /// `leave` is what [`Edge::admits`] gave.
    pub fn faltered(&self, source: &Source, leave: &Leave) {
        if let Source::ContentServer { number, .. } = source {
            self.content_server_failed(*number, leave, "it answers 5xx, or breaks off");
        }
    }

    fn content_server_failed(&self, number: u32, leave: &Leave, why: &str) {
        let now_ms = self.now_ms();
        if self.breakers.failed(number, leave, now_ms) && self.complaints.may(now_ms) {
            tracing::warn!(
                content_server = number,
                why,
                "the content server fails: it is left alone, but for a try each second"
            );
        }
    }

    /// The source could not be reached, or did not answer in time, and why. `leave` is what [`Edge::admits`] gave.
    pub fn failed(&self, source: &Source, leave: &Leave, why: &str) {
        let now_ms = self.now_ms();
        match source {
            Source::ContentServer { number, .. } => self.content_server_failed(*number, leave, why),
            Source::Sun { name, .. } | Source::Former { name, .. } | Source::Cache { name, .. } => {
                self.suspended.rcu(|suspended| {
                    let mut suspended = Suspended::clone(suspended);
                    suspended.suspend(name, now_ms);
                    suspended
                });
            }
        }
    }

    /// Milliseconds since the edge began: the clock of breakers and beliefs.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
