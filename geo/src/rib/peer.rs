//! The life of a peer: which of its routes count.
//!
//! ```text
//!              Up                      end-of-RIB, or `quiet` after the last route, or `gate` later
//!   (nothing) ----> up, gate shut ----------------------------------> up, gate open <--+
//!                    | routes are held; what is said again of              |           | further sessions go the
//!                    | a stale route counts at once                        |           | same way, with the stale
//!               lost | the held ones go                               lost |           | routes counting meanwhile
//!                    +-----------------> lost: its routes are stale <------+ ----Up----+
//!                                          | `stale` later, or Down
//!                                          v
//!                                        down: nothing counts
//! ```
//!
//! Nothing here touches a route. A route says which session of its peer it came in and whether it was held, and the
//! peer says what that means now; a change of half a million routes is a change of two numbers, and [`super::walk`]
//! clears up after it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::feed::{Family, PeerId};
use crate::route::SessionClass;
use crate::topology::RegionId;

use super::feeds::{FeedId, Limits};
use super::store::{Mark, PeerIndex};

/// A peer of one of the feeds.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) feed: FeedId,
    pub(super) id: PeerId,
    pub(super) region: RegionId,
    pub(super) class: SessionClass,
    /// Router and peer, for people.
    pub(super) label: String,
    /// Its session is up, and so is the feed.
    pub(super) up: bool,
    /// Rises with every session; the first is 1.
    pub(super) session: u32,
    /// When it came up or ceased to be.
    pub(super) since: Duration,
    /// When it told routes, or an end of them, last, in this session.
    pub(super) heard_at: Option<Duration>,
    /// When it came up first.
    pub(super) known_since: Duration,
    /// Its table was told to the end once, in whatever session.
    pub(super) told: bool,
    pub(super) sides: [Side; 2],
    /// Routes that are kept, those that no longer count included.
    pub(super) kept: u32,
    /// Bytes of their attributes, as though none were shared.
    pub(super) attribute_bytes: u64,
    /// Prefixes that were refused in this session.
    pub(super) refused: u64,
}

/// What a peer's routes of one family are worth.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Side {
    /// Held routes of this session count.
    pub(super) open: bool,
    /// The end-of-RIB of this session came.
    pub(super) ended: bool,
    /// Routes of earlier sessions are dead.
    pub(super) floor: u32,
    /// The last two sessions whose gates opened: held routes of others are dead once those are over. Routes of a third are
    /// not alive: a session that is lost with its gate open is the floor.
    pub(super) opened: [u32; 2],
    /// Since when there are stale routes.
    pub(super) stale_since: Option<Duration>,
    /// Live routes of this session, of earlier ones, and the held ones among the former.
    pub(super) fresh: u32,
    pub(super) old: u32,
    pub(super) held: u32,
}

/// What a route is worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Worth {
    /// It is gone, only not cleared up.
    Dead,
    /// It waits for the gate.
    Held,
    /// It counts.
    Counts,
}

impl Peer {
    /// A peer that was never up.
    pub(super) fn new(feed: FeedId, id: PeerId) -> Self {
        Self {
            feed,
            id,
            region: RegionId(0),
            class: SessionClass::Transit,
            label: String::new(),
            up: false,
            session: 0,
            since: Duration::ZERO,
            heard_at: None,
            known_since: Duration::ZERO,
            told: false,
            sides: [Side { floor: 1, ..Side::default() }; 2],
            kept: 0,
            attribute_bytes: 0,
            refused: 0,
        }
    }

    /// What one of its routes is worth.
    pub(super) fn worth(&self, family: Family, mark: Mark) -> Worth {
        let (side, session) = (&self.sides[family as usize], mark.session(self.session));
        if session < side.floor {
            Worth::Dead
        } else if !mark.held() || side.opened.contains(&session) {
            Worth::Counts
        } else if session == self.session && self.up {
            Worth::Held
        } else {
            Worth::Dead
        }
    }

    /// Whether a route that counts is of a lost session.
    pub(super) const fn is_stale(&self, mark: Mark) -> bool {
        !self.up || mark.session(self.session) != self.session
    }

    /// A session begins; with `open` nobody waits for its end-of-RIB.
    pub(super) fn begin(&mut self, now: Duration, open: bool) {
        if self.session == 0 {
            self.known_since = now;
        }
        self.session += 1;
        (self.up, self.since, self.heard_at, self.refused) = (true, now, None, 0);
        for side in &mut self.sides {
            side.ended = false;
            side.set_open(open, self.session);
        }
    }

    /// Whether its table counts as told without an end-of-RIB: it paused after it began, or had time enough.
    pub(super) fn is_told(&self, now: Duration, limits: &Limits) -> bool {
        let paused = self.heard_at.is_some_and(|at| now.saturating_sub(at) >= limits.quiet);
        paused || now.saturating_sub(self.since) >= limits.gate
    }

    /// The gate opens; with `ended` because the table is told whole, so that what it did not repeat is gone.
    /// Whether there is something to clear up or to tell.
    pub(super) fn open(&mut self, family: Family, ended: bool) -> bool {
        let session = self.session;
        let side = &mut self.sides[family as usize];
        let mut changed = !side.open && side.held > 0;
        side.set_open(true, session);
        side.held = 0;
        if ended {
            changed |= side.old > 0;
            (side.ended, side.floor, side.old, side.stale_since) = (true, session, 0, None);
        }
        self.told |= self.sides.iter().all(|side| side.open);
        changed
    }

    /// The feed is lost: what counts becomes stale. Whether there is something to clear up.
    ///
    /// Routes that are stale already keep their time, unless this session's gate was open: then they had theirs.
    pub(super) fn lose(&mut self, now: Duration) -> bool {
        (self.up, self.since) = (false, now);
        let (session, mut changed) = (self.session, false);
        for side in &mut self.sides {
            if side.open {
                changed |= side.old > 0;
                (side.floor, side.old, side.stale_since) = (session, 0, None);
            } else {
                changed |= side.held > 0;
                side.fresh -= std::mem::take(&mut side.held);
            }
            side.old += std::mem::take(&mut side.fresh);
            side.stale_since = (side.old > 0).then_some(side.stale_since.unwrap_or(now));
        }
        changed
    }

    /// Everything of it goes. Whether there was anything.
    pub(super) fn kill(&mut self, now: Duration) -> bool {
        (self.up, self.since) = (false, now);
        let floor = self.session + 1;
        let had = self.routes() > 0;
        for side in &mut self.sides {
            *side = Side { floor, ..Side::default() };
        }
        had
    }

    /// Stale routes go before their sessions' numbers cannot be told apart any more. It takes thousands of sessions without
    /// an end-of-RIB to come to that.
    pub(super) fn set_apart(&mut self) {
        for side in &mut self.sides {
            (side.floor, side.old, side.stale_since) = (self.session, 0, None);
        }
    }

    /// Stale routes whose time is over go. Whether there were any.
    pub(super) fn expire(&mut self, now: Duration, stale: Duration) -> bool {
        let floor = self.session + u32::from(!self.up);
        let mut had = false;
        for side in &mut self.sides {
            if side.stale_since.is_some_and(|since| now.saturating_sub(since) >= stale) {
                had |= side.old > 0;
                (side.floor, side.old, side.stale_since) = (floor, 0, None);
            }
        }
        had
    }

    /// Live routes, held and stale ones included.
    pub(super) fn routes(&self) -> u32 {
        self.sides.iter().map(|side| side.fresh + side.old).sum()
    }

    /// Whether nobody needs to wait for its table any more: it was told once, both families, or it comes up again and
    /// again for so long without that.
    pub(super) fn is_settled(&self, now: Duration, patience: Duration) -> bool {
        self.told || now.saturating_sub(self.known_since) >= patience
    }
}

impl Side {
    fn set_open(&mut self, open: bool, session: u32) {
        self.open = open;
        if open && self.opened[1] != session {
            self.opened = [self.opened[1], session];
        }
    }

    /// A prefix was announced: what there was for it (`before` is its session), and what there is now.
    pub(super) fn count_announced(&mut self, worth: Worth, before: Option<u32>, session: u32, held: bool) {
        let is_replaced = worth != Worth::Dead;
        if is_replaced && before.is_some_and(|before| before != session) {
            self.old -= 1;
            self.fresh += 1;
        } else if !is_replaced {
            self.fresh += 1;
        }
        self.held += u32::from(held && !is_replaced);
    }

    /// A route was withdrawn.
    pub(super) fn count_withdrawn(&mut self, worth: Worth, is_fresh: bool) {
        match (worth, is_fresh) {
            (Worth::Dead, _) => {}
            (_, true) => self.fresh -= 1,
            (_, false) => self.old -= 1,
        }
        self.held -= u32::from(worth == Worth::Held);
    }
}

/// All peers, by where they are kept and by what they are known by.
#[derive(Debug, Default)]
pub(super) struct Peers {
    slots: Vec<Option<Peer>>,
    indices: BTreeMap<PeerName, PeerIndex>,
}

/// A peer of a feed: addresses can be those of several routing instances (RFC 7854 4.2).
type PeerName = (FeedId, (IpAddr, u64));

impl Peers {
    pub(super) fn get(&self, index: PeerIndex) -> Option<&Peer> {
        self.slots.get(usize::from(index))?.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: PeerIndex) -> Option<&mut Peer> {
        self.slots.get_mut(usize::from(index))?.as_mut()
    }

    /// Where a peer is.
    pub(super) fn find(&self, feed: FeedId, id: &PeerId) -> Option<PeerIndex> {
        self.indices.get(&(feed, id.identity())).copied()
    }

    /// Where a peer is, after it was added if need be. None when that would be more than `peers_max`.
    pub(super) fn find_or_add(&mut self, feed: FeedId, id: &PeerId, peers_max: u16) -> Option<PeerIndex> {
        if let Some(index) = self.find(feed, id) {
            return Some(index);
        }
        let free = self.slots.iter().position(Option::is_none);
        let index = PeerIndex::try_from(free.unwrap_or(self.slots.len())).ok().filter(|&index| index < peers_max)?;
        if free.is_none() {
            self.slots.push(None);
        }
        self.slots[usize::from(index)] = Some(Peer::new(feed, *id));
        self.indices.insert((feed, id.identity()), index);
        Some(index)
    }

    /// Forgets a peer that has no routes.
    pub(super) fn remove(&mut self, index: PeerIndex) {
        if let Some(peer) = self.slots.get_mut(usize::from(index)).and_then(Option::take) {
            debug_assert_eq!(peer.kept, 0, "routes must not change hands");
            self.indices.remove(&(peer.feed, peer.id.identity()));
        }
    }

    /// Every peer, by feed and address.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PeerIndex, &Peer)> {
        self.indices.values().filter_map(|&index| Some((index, self.get(index)?)))
    }

    /// Where the peers of a feed are, by address.
    pub(super) fn of_feed(&self, feed: FeedId) -> Vec<PeerIndex> {
        let first = (feed, (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
        let own = self.indices.range(first..).take_while(|((of, ..), _)| *of == feed);
        own.map(|(_, &index)| index).collect()
    }
}
