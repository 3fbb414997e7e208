//! Clearing up after changes that concern all routes of a peer, a slice at a time.
//!
//! A walk goes over all prefixes once, for any number of peers: it takes dead routes out and marks as dirty what
//! changed its worth. Changes that come while it is under way wait for the next one. Since [`super::peer`] says what a
//! route is worth, nobody sees whether a walk is under way; it only decides when the change is told.

use std::collections::BTreeMap;

use super::Rib;
use super::peer::Worth;
use super::store::{Key, PeerIndex, Route};

/// Which walks there are.
#[derive(Debug, Default)]
pub(super) struct Walks {
    /// Peers of the one that is under way, and the last prefix it was at.
    peers: BTreeMap<PeerIndex, Tell>,
    cursor: Option<Key>,
    /// Peers of the next one.
    next: BTreeMap<PeerIndex, Tell>,
    /// Nothing needs to be told: the reader took everything after the walk's cause.
    quiet: bool,
}

/// Which of a peer's prefixes a walk tells.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Tell {
    /// Those of routes that died, or that were held and count now.
    Changed,
    /// All: the peer's region or class changed.
    All,
}

impl Walks {
    /// Something changed about all routes of a peer.
    pub(super) fn want(&mut self, peer: PeerIndex, tell: Tell) {
        // A walk that is under way clears up after this, too, as far as it has not come: it must not do so quietly.
        self.quiet = false;
        let wanted = self.next.entry(peer).or_insert(tell);
        *wanted = (*wanted).max(tell);
    }

    /// Whether there is anything to do.
    pub(super) fn pending(&self) -> bool {
        !self.peers.is_empty() || !self.next.is_empty()
    }

    /// Whether a peer is waited for.
    pub(super) fn concern(&self, peer: PeerIndex) -> bool {
        self.peers.contains_key(&peer) || self.next.contains_key(&peer)
    }

    /// What the walks would tell is known: they only clear up, in one walk from the start.
    pub(super) fn hush(&mut self) {
        self.peers.append(&mut self.next);
        (self.cursor, self.quiet) = (None, !self.peers.is_empty());
    }
}

impl Rib {
    /// Looks at up to `count` more prefixes. False when there is nothing left to do.
    pub(super) fn step(&mut self, count: usize) -> bool {
        if self.walks.peers.is_empty() {
            self.walks.peers = std::mem::take(&mut self.walks.next);
            self.walks.cursor = None;
            if self.walks.peers.is_empty() {
                return false;
            }
        }
        let slice = self.store.after(self.walks.cursor, count);
        for &key in &slice {
            self.clear_up(key);
        }
        self.walks.cursor = slice.last().copied();
        if slice.len() < count {
            self.end_walk();
        }
        true
    }

    /// Does all that is left to do.
    pub(super) fn finish_walks(&mut self) {
        while self.step(self.slice) {}
    }

    fn clear_up(&mut self, key: Key) {
        let (peers, walks, family) = (&self.peers, &self.walks, key.family());
        let worth = |route: &Route| peers.get(route.peer).map_or(Worth::Dead, |peer| peer.worth(family, route.mark));
        let (mut dead, mut changed) = (false, false);
        self.store.visit(key, |route| {
            let Some(&tell) = walks.peers.get(&route.peer) else { return };
            changed |= tell == Tell::All;
            match worth(route) {
                Worth::Dead => dead = true,
                Worth::Counts if route.mark.held() => {
                    route.mark = route.mark.let_in();
                    changed = true;
                }
                Worth::Counts | Worth::Held => {}
            }
        });
        if dead {
            let mut gone = Vec::new();
            self.store.remove_where(key, |route| worth(route) == Worth::Dead, |route| gone.push(route));
            for route in gone {
                self.forget_route(route);
            }
        }
        if (changed || dead) && !self.walks.quiet {
            self.touch(key);
        }
    }

    fn end_walk(&mut self) {
        self.walks.quiet = false;
        self.walks.peers.clear();
    }
}

/// Prefixes that are looked at in one go: one to two milliseconds (`benches/rib.rs`, a machine with other work).
pub(super) const SLICE: usize = 2048;
