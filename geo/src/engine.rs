//! What is heard becomes a table, and stays one while it changes.
//!
//! ```text
//!   lists, dumps, rules, geoip --Loaded--+
//!                                        +--Routes: a prefix's evidence--> choice --> damping --> Writer --> Arc<Table>
//!   routers --Update, step--> Rib -------+                                              |           |
//!                               \--dirty prefixes, a slice at a time                  due       Log: followers, moves
//! ```
//!
//! In reading order: `inputs` (what is read once, and how), `listed` and `dumps` (what of it are routes), `routes` (all
//! routes to a prefix), `saved` (what stands until they are known), this file (what is published when), `log` (what changed), `report` (what people see).
//!
//! # Invariants
//!
//! - **One writer, no waiting readers.** [`Engine::resolver`] is read without the engine; what its table says of an
//!   address is what was published before a change or after it.
//! - **No route is published from half a picture.** With routers configured, the saved table stands until all of them
//!   told what they have, or were waited for ([`Rib::settled`]); of what is configured today, as much counts meanwhile as
//!   `saved` says. Without a saved one there is no table for others until then ([`Engine::is_published`]).
//! - When a source cannot be read at the start, the saved table stands as it was until it can ([`Loaded::missing`]).
//! - A step does a bounded amount of work, so that whoever asks in between does not wait for a whole table; but the one in
//!   which the table settles, and [`Engine::install`], choose for all prefixes: explanations and changes wait for
//!   these, a second or so for a full table, clients' regions never.
//! - A reload of lists or dumps publishes at once what they say otherwise, and nothing else: what routers changed waits as
//!   long as [`crate::damping`] says. Rules, regions, routers and geoip put everything in another order, and all is published.
//! - Pure: what time it is, and what routers said, come in. Only [`Loaded::read`] touches files.

mod dumps;
mod inputs;
mod listed;
mod log;
mod report;
mod routes;
mod saved;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::sync::watch;

pub use crate::bmp::SessionEvent as Update;
use crate::damping::{Damping, Decision};
use crate::regions::Regions;
use crate::resolver::Resolver;
use crate::rib::{FeedId, Rib};
use crate::table::{Content, Leaf, Stamp, Table, Writer};
use crate::topology::Topology;
use crate::wire::{Changes, Position};
pub use dumps::{Dump, DumpRead};
pub(crate) use inputs::IDLE;
pub use inputs::{Inputs, InputsError, Loaded};
pub use listed::File;
use log::{Log, Move, Moves};
pub use report::{Audit, Examples, Explanation, GeoipFile, Link, Stats, Survey};
use routes::{Routes, firsts};
use saved::provisional;

/// Everything that is known, and the table that is made of it.
#[derive(Debug)]
pub struct Engine {
    loaded: Loaded,
    live: Rib,
    feeds: Vec<Option<FeedId>>,
    damping: Damping,
    writer: Writer,
    log: Log,
    moves: Moves,
    resolver: Arc<ArcSwap<Resolver>>,
    moved: watch::Sender<Position>,
    started: Instant,
    ticked: Instant,
    /// Whether the table is what is chosen from what is known now; else it is provisional.
    settled: bool,
    /// The table of the last run, until it is settled; none: there was none that could be used.
    saved: Option<Content>,
}

/// What a step did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stepped {
    /// Prefixes whose entry in the table changed.
    pub changed: usize,
    /// There is more to do: the next step shall not wait for updates.
    pub more: bool,
}

impl Engine {
    /// An engine that publishes what was saved, corrected by today's rules, lists, dumps and geoip, until routers told what
    /// they have; without routers, what is known. With routers and without anything saved, it has no table for
    /// others until then ([`Engine::is_published`]). `epoch` is another number in each life of the server.
    #[must_use]
    pub fn start(loaded: Loaded, saved: Option<&[u8]>, epoch: u64, now: Instant) -> Self {
        let mut live = Rib::new(loaded.inputs.limits);
        let feeds = live.set_feeds(&loaded.inputs.feeds, Duration::ZERO);
        let whole = loaded.missing.is_empty();
        let settled = loaded.inputs.feeds.is_empty() && whole;
        if settled {
            // Nothing is heard, and the content below is everything.
            live.take_everything();
        }
        // Also where it is not needed: that it is damaged is said.
        let saved = saved.and_then(restored).filter(|_| !settled);
        if saved.is_some() {
            tracing::info!("the table starts as it was saved");
        }
        if saved.is_none() {
            live.has_nothing_saved();
        }
        let writer = Writer::build(provisional(saved.as_ref(), &loaded));
        let resolver = Resolver::new(Arc::clone(writer.table()), loaded.regions.clone());
        let log = Log::new(epoch, loaded.inputs.changes_max);
        Self {
            damping: Damping::new(loaded.inputs.damping),
            resolver: Arc::new(ArcSwap::from_pointee(resolver)),
            moved: watch::Sender::new(log.position()),
            moves: Moves::default(),
            started: now,
            ticked: now,
            loaded,
            live,
            feeds,
            writer,
            log,
            settled,
            saved,
        }
    }

    /// Goes by other inputs from now on. Routers that are configured as before keep their routes.
    pub fn install(&mut self, mut loaded: Loaded, now: Instant) {
        loaded.keep_of(&self.loaded);
        let at = self.since_start(now);
        self.feeds = self.live.set_feeds(&loaded.inputs.feeds, at);
        if self.loaded.inputs.damping != loaded.inputs.damping {
            self.damping = Damping::new(loaded.inputs.damping);
        }
        self.log.shorten(loaded.inputs.changes_max);
        let same_base = self.loaded.base == loaded.base && self.loaded.missing.is_empty();
        let same_order = same_base && self.loaded.orders_as(&loaded);
        let before = std::mem::replace(&mut self.loaded, loaded);
        if self.settled && same_order {
            self.refresh_told(&before, now);
        } else if self.settled {
            self.refresh(same_base, now);
        } else {
            let wanted = provisional(self.saved.as_ref(), &self.loaded);
            self.adopt(wanted, same_base, now);
        }
        self.tell();
    }

    /// Takes in what routers said, and publishes what follows. To be called when there are updates, and each second.
    pub fn step(&mut self, now: Instant, updates: impl IntoIterator<Item = (FeedId, Update)>) -> Stepped {
        let at = self.since_start(now);
        for (feed, update) in updates {
            match update {
                Update::Connected => self.live.connected(feed, at),
                Update::Events(events) => events.iter().for_each(|event| self.live.apply(feed, event, at)),
                Update::Lost => self.live.lost(feed, at),
            }
        }
        if now.saturating_duration_since(self.ticked) >= TICK {
            self.live.tick(at);
            self.ticked = now;
        }
        let changed = if self.settled {
            self.follow(now)
        } else if self.live.settled() && self.loaded.missing.is_empty() {
            let first = !self.is_published();
            tracing::info!("the routers have told what they have: the table is what they say now");
            (self.settled, self.saved) = (true, None);
            let changed = self.refresh(true, now);
            if first {
                // The first table of all moves nobody.
                self.moves = Moves::default();
            }
            changed
        } else {
            return Stepped::default();
        };
        if self.writer.wants_rebuild() {
            // The same table in less room: followers need not know.
            self.writer = Writer::build(self.writer.content());
            self.share();
        }
        self.tell();
        let due = self.damping.next_due().is_some_and(|due| due <= now);
        Stepped { changed, more: self.live.pending() || due }
    }

    /// Whether updates may come: false while so many prefixes wait to be looked at that routers had better wait, too.
    #[must_use]
    pub fn takes_updates(&self) -> bool {
        !self.settled || self.live.dirty_at_most() < DIRTY_MAX
    }

    /// When a step has something to do even if nobody says anything.
    #[must_use]
    pub fn wakes(&self) -> Instant {
        let tick = self.ticked + TICK;
        self.damping.next_due().map_or(tick, |due| due.min(tick))
    }

    /// Which feed each configured router is, in the order of the inputs; none for those beyond the RIB's bound.
    #[must_use]
    pub fn feeds(&self) -> &[Option<FeedId>] {
        &self.feeds
    }

    /// Who answers; always the published table.
    #[must_use]
    pub fn resolver(&self) -> Arc<ArcSwap<Resolver>> {
        Arc::clone(&self.resolver)
    }

    /// The published table.
    #[must_use]
    pub fn table(&self) -> &Arc<Table> {
        self.writer.table()
    }

    /// Whether the table is for others: it is what routers say now, or what was saved and corrected. What is known before
    /// routers told theirs, with nothing saved, is not: followers would give up a good table for it.
    #[must_use]
    pub const fn is_published(&self) -> bool {
        self.settled || self.saved.is_some()
    }

    /// There is another topology. Its version is told when its regions are those in use: else it counts from the load that takes them.
    pub fn sees_topology(&mut self, topology: &Topology) {
        if Regions::of(topology) == self.loaded.regions {
            self.loaded.topology_version = topology.version;
        }
        self.loaded.idle = inputs::idle(topology);
    }

    /// Where the table is.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.log.position()
    }

    /// Tells where the table is, as it moves.
    #[must_use]
    pub fn moved(&self) -> watch::Receiver<Position> {
        self.moved.subscribe()
    }

    /// The first `most` changes after a position; none when they are not known (any more).
    #[must_use]
    pub fn changes_since(&self, after: Position, most: usize) -> Option<Changes> {
        self.log.after(after, most)
    }

    /// Whether all changes after a position are known.
    #[must_use]
    pub fn reaches(&self, after: Position) -> bool {
        self.log.reaches(after).is_some()
    }

    /// The table as it is published and saved, and where it is. Takes some 100 ms for a full table.
    #[must_use]
    pub fn encode(&self, unix_s: u64) -> (Position, Vec<u8>) {
        let position = self.position();
        let stamp = Stamp {
            epoch: position.epoch,
            sequence: position.sequence,
            made_unix_s: unix_s,
            topology_version: self.loaded.topology_version,
        };
        (position, self.writer.encode(&stamp))
    }

    /// A slice of the prefixes whose routes changed, then those that waited long enough.
    fn follow(&mut self, now: Instant) -> usize {
        if self.live.overflowed() {
            return self.refresh(true, now);
        }
        let dirty = self.live.take_dirty(SLICE);
        let dirty = Routes { loaded: &self.loaded, live: &self.live }.concerned(dirty);
        let decided = self.choose(dirty, |damping, prefix, published, wanted| {
            damping.decide(prefix, published, wanted, now) == Decision::Now
        });
        // What only rules name around them waits on its own.
        let due = self.damping.due(now, SLICE);
        let waited = self.choose(due, |_, _, _, _| true);
        let changes = decided.into_iter().chain(waited);
        changes.map(|(prefix, leaf)| usize::from(self.publish(prefix, leaf, now))).sum()
    }

    /// Chooses for each prefix; what is to be published of it.
    fn choose(
        &mut self,
        prefixes: Vec<IpNet>,
        mut publish: impl FnMut(&mut Damping, IpNet, Option<&Leaf>, Option<&Leaf>) -> bool,
    ) -> Vec<(IpNet, Option<Leaf>)> {
        let Self { loaded, live, damping, writer, .. } = self;
        let routes = Routes { loaded, live };
        routes.with_chooser(|chooser| {
            let (mut heard, mut decided) = (Vec::new(), Vec::new());
            for prefix in prefixes {
                routes.evidence(&prefix, &mut heard);
                let wanted = chooser.choose(prefix, &heard);
                let published = writer.get(&prefix);
                // Damping hears of wishes that are back at what is published, too.
                if publish(damping, prefix, published, wanted) && published != wanted {
                    decided.push((prefix, wanted.cloned()));
                }
            }
            decided
        })
    }

    /// Writes one prefix; whether that changed anything.
    fn publish(&mut self, prefix: IpNet, leaf: Option<Leaf>, now: Instant) -> bool {
        let from = firsts(self.writer.get(&prefix));
        let changed = match &leaf {
            Some(leaf) => self.writer.set(prefix, leaf),
            None => self.writer.remove(prefix),
        };
        if changed {
            self.note(prefix, from, firsts(leaf.as_ref()), now);
            self.log.push(prefix, leaf);
        }
        changed
    }

    fn note(
        &mut self,
        prefix: IpNet,
        from: Vec<crate::topology::RegionId>,
        to: Vec<crate::topology::RegionId>,
        now: Instant,
    ) {
        if from != to {
            self.moves.push(Move { at: now, prefix, from, to });
        }
    }

    /// Chooses for all prefixes, without damping: when routers told what they have after a start, and when rules, regions,
    /// routers or geoip changed.
    fn refresh(&mut self, same_base: bool, now: Instant) -> usize {
        self.live.take_everything();
        self.damping.clear();
        let wanted = Routes { loaded: &self.loaded, live: &self.live }.content();
        self.adopt(wanted, same_base, now)
    }

    /// Chooses for all prefixes when only lists and dumps may say something else than before: where they do, what
    /// is wanted is published at once; all other differences come from routers, and damping goes on.
    fn refresh_told(&mut self, before: &Loaded, now: Instant) -> usize {
        let wanted = Routes { loaded: &self.loaded, live: &self.live }.content();
        let nobody = Rib::new(self.loaded.inputs.limits);
        let (old, new) = (Routes { loaded: before, live: &nobody }, Routes { loaded: &self.loaded, live: &nobody });
        let differences = self.differences(&wanted);
        let (by_routers, told): (Vec<_>, Vec<_>) =
            differences.into_iter().partition(|(prefix, _)| old.say_the_same(new, prefix));
        if told.len() > CHANGES_APART_MAX {
            return self.refresh(true, now);
        }
        let mut count = 0;
        for (prefix, leaf) in told {
            // A wish that waited is fulfilled.
            self.damping.decide(prefix, leaf.as_ref(), leaf.as_ref(), now);
            count += usize::from(self.publish(prefix, leaf, now));
        }
        for (prefix, leaf) in by_routers {
            if self.damping.decide(prefix, self.writer.get(&prefix), leaf.as_ref(), now) == Decision::Now {
                count += usize::from(self.publish(prefix, leaf, now));
            }
        }
        count
    }

    /// Publishes another content. Few differences become changes that followers hear of; many, or another base, another
    /// table.
    fn adopt(&mut self, wanted: Content, same_base: bool, now: Instant) -> usize {
        let changes = self.differences(&wanted);
        let count = changes.len();
        if same_base && count <= CHANGES_APART_MAX {
            self.share();
            for (prefix, leaf) in changes {
                self.publish(prefix, leaf, now);
            }
            return count;
        }
        for (prefix, leaf) in changes {
            let from = firsts(self.writer.get(&prefix));
            self.note(prefix, from, firsts(leaf.as_ref()), now);
        }
        self.rebuild(wanted);
        count
    }

    /// What is published otherwise than it is wanted.
    fn differences(&self, wanted: &Content) -> Vec<(IpNet, Option<Leaf>)> {
        let v4 = wanted.v4.iter().map(|&(net, leaf)| (IpNet::V4(net), leaf));
        let v6 = wanted.v6.iter().map(|&(net, leaf)| (IpNet::V6(net), leaf));
        let new = v4.chain(v6).filter_map(|(prefix, leaf)| {
            let leaf = wanted.leaves.get(leaf as usize);
            (self.writer.get(&prefix) != leaf).then(|| (prefix, leaf.cloned()))
        });
        let published = self.writer.content();
        let has_v4 = |net| wanted.v4.binary_search_by_key(&net, |(net, _)| *net).is_ok();
        let has_v6 = |net| wanted.v6.binary_search_by_key(&net, |(net, _)| *net).is_ok();
        let gone_v4 = published.v4.iter().filter(|(net, _)| !has_v4(*net)).map(|(net, _)| (IpNet::V4(*net), None));
        let gone_v6 = published.v6.iter().filter(|(net, _)| !has_v6(*net)).map(|(net, _)| (IpNet::V6(*net), None));
        new.chain(gone_v4).chain(gone_v6).collect()
    }

    /// Another table, which followers have to take as a whole.
    fn rebuild(&mut self, content: Content) {
        self.writer = Writer::build(content);
        self.log.begin_anew();
        self.share();
    }

    /// Gives readers the table and the regions.
    fn share(&self) {
        let resolver = Resolver::new(Arc::clone(self.writer.table()), self.loaded.regions.clone());
        self.resolver.store(Arc::new(resolver));
    }

    /// Tells followers where the table is.
    fn tell(&self) {
        let position = self.position();
        self.moved.send_if_modified(|told| std::mem::replace(told, position) != position);
    }

    fn since_start(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }
}

/// What was saved, if it is whole.
fn restored(saved: &[u8]) -> Option<Content> {
    match Writer::decode(saved) {
        Ok((writer, _)) => Some(writer.content()),
        Err(error) => {
            tracing::warn!(%error, "the saved table is damaged: it is not used, and replaced when the table changes");
            None
        }
    }
}

/// How often the RIB is told what time it is.
const TICK: Duration = Duration::from_secs(1);
/// Prefixes that one step takes up, and as many that waited: some 20 ms.
const SLICE: usize = 5_000;
/// Prefixes that may wait to be looked at before no updates are taken: some 20 steps. Before the table is settled nothing is
/// looked at, and there are at most as many as routes.
const DIRTY_MAX: usize = 100_000;
/// Differences up to which a table is changed in place; a quarter of what followers are kept by default.
const CHANGES_APART_MAX: usize = 50_000;
