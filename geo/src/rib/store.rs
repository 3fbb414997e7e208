//! Where routes are kept: for each prefix a short chain of routes, one for each peer that has one.
//!
//! ```text
//!   v4: 198.51.100.0/24 --+      arena: | peer mark attributes next | ...      12 bytes a route
//!   v6: 2001:db8::/32   --|--> index of the first one --------^   ---> the next one of the same prefix
//! ```
//!
//! # Why not a trie
//!
//! Longest matches are asked of the table, never here: this needs exact prefixes, and walks in order that can be
//! left and resumed while prefixes come and go. A B-tree does both; its keys are packed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Bound;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::feed::Family;

use super::interner::AttributesId;

/// A prefix without host bits; sorted by family, address, length, so that a covering prefix comes before what it covers.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum Key {
    /// `address << 8 | length`.
    V4(u64),
    /// The address's bytes, then the length.
    V6([u8; 17]),
}

impl Key {
    /// Its family.
    pub(super) const fn family(self) -> Family {
        match self {
            Self::V4(_) => Family::V4,
            Self::V6(_) => Family::V6,
        }
    }
}

impl From<&IpNet> for Key {
    fn from(prefix: &IpNet) -> Self {
        match prefix {
            IpNet::V4(prefix) => Self::V4(u64::from(u32::from(prefix.network())) << 8 | u64::from(prefix.prefix_len())),
            IpNet::V6(prefix) => {
                let mut key = [prefix.prefix_len(); 17];
                key[..16].copy_from_slice(&prefix.network().octets());
                Self::V6(key)
            }
        }
    }
}

impl From<Key> for IpNet {
    fn from(key: Key) -> Self {
        let (address, length) = match key {
            Key::V4(key) => (IpAddr::V4(Ipv4Addr::from((key >> 8) as u32)), (key & 0xff) as u8),
            Key::V6([address @ .., length]) => (IpAddr::V6(Ipv6Addr::from(address)), length),
        };
        match address {
            IpAddr::V4(address) => Self::V4(Ipv4Net::new_assert(address, length)),
            IpAddr::V6(address) => Self::V6(Ipv6Net::new_assert(address, length)),
        }
    }
}

/// A peer's place in the RIB's list.
pub(super) type PeerIndex = u16;

/// One peer's route to one prefix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    /// Whose.
    pub(super) peer: PeerIndex,
    /// Of which of the peer's sessions, and whether it was held back.
    pub(super) mark: Mark,
    /// What else was said.
    pub(super) attributes: AttributesId,
    next: u32,
}

impl Route {
    pub(super) const fn new(peer: PeerIndex, mark: Mark, attributes: AttributesId) -> Self {
        Self { peer, mark, attributes, next: NONE }
    }
}

/// The low 15 bits of a session's number, and the bit "held": when it came, the gate was shut and no route of the peer counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Mark(u16);

impl Mark {
    pub(super) const fn new(session: u32, held: bool) -> Self {
        Self((session & SESSION_BITS) as u16 | if held { HELD } else { 0 })
    }

    pub(super) const fn held(self) -> bool {
        self.0 & HELD != 0
    }

    /// The same without the bit.
    pub(super) const fn let_in(self) -> Self {
        Self(self.0 & !HELD)
    }

    /// The session's number, given the peer's newest one, which is less than 32,768 ahead.
    pub(super) const fn session(self, newest: u32) -> u32 {
        newest - (newest.wrapping_sub(self.0 as u32) & SESSION_BITS)
    }
}

/// All routes.
#[derive(Debug)]
pub(super) struct Store {
    v4: BTreeMap<u64, u32>,
    v6: BTreeMap<[u8; 17], u32>,
    arena: Vec<Route>,
    free: u32,
    routes: usize,
}

impl Default for Store {
    fn default() -> Self {
        Self { v4: BTreeMap::new(), v6: BTreeMap::new(), arena: Vec::new(), free: NONE, routes: 0 }
    }
}

impl Store {
    /// The routes to a prefix, by peer.
    pub(super) fn routes_to(&self, key: Key) -> impl Iterator<Item = &Route> {
        self.chain(self.first(key).unwrap_or(NONE))
    }

    /// Has `with` look at the routes to a prefix, by peer.
    pub(super) fn visit(&mut self, key: Key, mut with: impl FnMut(&mut Route)) {
        let mut next = self.first(key);
        while let Some(route) = next.and_then(|index| self.arena.get_mut(index as usize)) {
            with(route);
            next = Some(route.next);
        }
    }

    /// A peer's route to a prefix.
    pub(super) fn get_mut(&mut self, key: Key, peer: PeerIndex) -> Option<&mut Route> {
        let mut index = self.first(key)?;
        while index != NONE {
            let route = &self.arena[index as usize];
            if route.peer == peer {
                return self.arena.get_mut(index as usize);
            }
            index = route.next;
        }
        None
    }

    /// Adds a route of a peer that has none to this prefix.
    pub(super) fn insert(&mut self, key: Key, mut route: Route) {
        let first = self.first(key).unwrap_or(NONE);
        let (mut before, mut after) = (NONE, first);
        while after != NONE && self.arena[after as usize].peer < route.peer {
            (before, after) = (after, self.arena[after as usize].next);
        }
        route.next = after;
        let index = self.allocate(route);
        if before == NONE {
            self.set_first(key, index);
        } else {
            self.arena[before as usize].next = index;
        }
    }

    /// Takes out those of a prefix's routes that `goes` says, and hands them over.
    pub(super) fn remove_where(&mut self, key: Key, mut goes: impl FnMut(&Route) -> bool, mut gone: impl FnMut(Route)) {
        let Some(first) = self.first(key) else { return };
        let (mut new_first, mut before, mut index) = (first, NONE, first);
        while index != NONE {
            let route = self.arena[index as usize];
            if goes(&route) {
                if before == NONE {
                    new_first = route.next;
                } else {
                    self.arena[before as usize].next = route.next;
                }
                self.release(index);
                gone(route);
            } else {
                before = index;
            }
            index = route.next;
        }
        if new_first == NONE {
            self.remove_key(key);
        } else if new_first != first {
            self.set_first(key, new_first);
        }
    }

    /// Up to `count` prefixes after one, or from the first one on.
    pub(super) fn after(&self, cursor: Option<Key>, count: usize) -> Vec<Key> {
        let (v4, v6) = match cursor {
            None => (Bound::Unbounded, Bound::Unbounded),
            Some(Key::V4(key)) => (Bound::Excluded(key), Bound::Unbounded),
            Some(Key::V6(key)) => (Bound::Excluded(u64::MAX), Bound::Excluded(key)),
        };
        let v4 = self.v4.range((v4, Bound::Unbounded)).map(|(&key, _)| Key::V4(key));
        let v6 = self.v6.range((v6, Bound::Unbounded)).map(|(&key, _)| Key::V6(key));
        v4.chain(v6).take(count).collect()
    }

    /// Every prefix with its routes.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, impl Iterator<Item = &Route>)> {
        let v4 = self.v4.iter().map(|(&key, &first)| (Key::V4(key), first));
        let v6 = self.v6.iter().map(|(&key, &first)| (Key::V6(key), first));
        v4.chain(v6).map(|(key, first)| (key, self.chain(first)))
    }

    /// How many routes there are.
    pub(super) const fn routes(&self) -> usize {
        self.routes
    }

    /// How many prefixes have routes, by family.
    pub(super) fn prefixes(&self) -> [usize; 2] {
        [self.v4.len(), self.v6.len()]
    }

    /// RAM, about: B-tree nodes of random order are two thirds full.
    pub(super) fn bytes(&self) -> u64 {
        let [v4, v6] = self.prefixes();
        let trees =
            (v4 * (size_of::<u64>() + size_of::<u32>()) + v6 * (size_of::<[u8; 17]>() + size_of::<u32>())) * 3 / 2;
        (trees + self.arena.capacity() * size_of::<Route>()) as u64
    }

    fn chain(&self, first: u32) -> impl Iterator<Item = &Route> {
        let at = |index: u32| self.arena.get(index as usize);
        std::iter::successors(at(first), move |route| at(route.next))
    }

    fn first(&self, key: Key) -> Option<u32> {
        match key {
            Key::V4(key) => self.v4.get(&key).copied(),
            Key::V6(key) => self.v6.get(&key).copied(),
        }
    }

    fn set_first(&mut self, key: Key, first: u32) {
        match key {
            Key::V4(key) => self.v4.insert(key, first),
            Key::V6(key) => self.v6.insert(key, first),
        };
    }

    fn remove_key(&mut self, key: Key) {
        match key {
            Key::V4(key) => self.v4.remove(&key),
            Key::V6(key) => self.v6.remove(&key),
        };
    }

    fn allocate(&mut self, route: Route) -> u32 {
        self.routes += 1;
        if self.free == NONE {
            self.arena.push(route);
            return u32::try_from(self.arena.len() - 1).expect("routes_max is below");
        }
        let index = self.free;
        self.free = std::mem::replace(&mut self.arena[index as usize], route).next;
        index
    }

    fn release(&mut self, index: u32) {
        self.arena[index as usize].next = std::mem::replace(&mut self.free, index);
        self.routes -= 1;
        if self.routes == 0 {
            (self.arena, self.free) = (Vec::new(), NONE);
        }
    }
}

/// No route: past the end of any arena.
const NONE: u32 = u32::MAX;

const SESSION_BITS: u32 = 0x7fff;
const HELD: u16 = 0x8000;

/// How many sessions of a peer can be told apart, with room to spare: a peer's routes are never further apart.
pub(super) const SESSIONS_APART_MAX: u32 = 0x4000;
