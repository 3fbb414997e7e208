//! Every address's regions in one table: prefixes with their leaves, and geoip's ranges where no prefix is heard.
//!
//! ```text
//!   client --longest prefix--> Found --leaf--> candidates, denied, source
//!      |                         |  \--covering--> the next shorter prefix --covering--> ... --> None
//!      |                         |
//!      +-- none: the base -------+       the base (geoip) is seen where no prefix covers the address
//!
//!   Writer --set, remove: atomic stores in place--> Arc<Table> <--lookup: no locks, no waiting-- any number of readers
//!      \--encode--> file --decode--> Writer
//! ```
//!
//! # Invariants
//!
//! - A reader sees, for each address, what was so before a change or after it, and nothing in between. Different addresses of
//!   one changed prefix may differ for as long as the change takes (microseconds). Prefixes are in two tries, so an address may
//!   miss what covers it when that moves from one to the other and back while a single lookup is under way.
//! - A [`Found`] stays good as long as its table: entries are never used for another prefix.
//! - One writer. What it leaves behind grows slowly and is gone after a rebuild ([`Writer::wants_rebuild`]).
//!
//! # Figures
//!
//! `tests/bench/geo` with 1,042,325 IPv4 prefixes (half of them real), 246,175 IPv6 ones and a base of 489,233 ranges, in a virtual
//! machine of two processors with 32 MB of shared third-level cache:
//!
//! | | |
//! |---|---|
//! | an IPv4 address of a prefix | 16 to 18 ns, 1/10.2 to 1/11 of prefix-trie; its leaf as well: 53 to 70 ns |
//! | an IPv6 address of a prefix | 95 to 170 ns, 1/2.7 to 1/3.1 of prefix-trie; its leaf as well: 150 to 240 ns |
//! | the list of regions for it, of 200 | 640 to 700 ns (IPv4), 300 to 450 ns (IPv6) |
//! | rebuild | 44 ms, 101 of processor time, on two threads |
//! | change | 0.1 to 3 us; a /8 of IPv4 90 to 150 us; 2a0e::/16 below 1 us |
//! | file | 6.9 MB, 2.8 MB by gzip; loaded in 54 ms, 84 of processor time |
//! | RAM | 72 MiB, with the base 79 |
//!
//! Medians of several runs, the milliseconds on an idle machine. A lookup alone waits for memory 130 to 170 ns, whether in
//! 8 MiB or in 64: contestants leave nothing in the caches. What counts is how many lookups overlap, so there are few
//! instructions in one, no guess that can be wrong and little to store.

mod arena;
mod base;
mod codec;
mod key;
mod leaf;
mod prefixes;
mod ranges;
mod trie;
mod writer;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use ipnet::IpNet;

use arena::Arena;
pub use base::{Base, NOTHING, Ranges};
pub use codec::{DecodeError, Stamp};
use key::bits;
pub use leaf::{CANDIDATES_MAX, Candidate, DENIED_MAX, Leaf, Source};
use prefixes::{Entry, Prefixes};
pub use writer::{Content, Leaves, Writer};

/// What is known of every address. Shared by its [`Writer`], which changes it in place, and readers.
#[derive(Debug)]
pub struct Table {
    v4: Prefixes,
    v6: Prefixes,
    leaves: Arena<OnceLock<Leaf>>,
    leaf_count: AtomicUsize,
    /// Prefixes that found no room.
    refused: AtomicUsize,
    base: Base,
}

/// What was found for a client; of one table. It is one word, so that lookups of many clients overlap: with the client in it, each
/// took twice as long. What it was found for comes along where it is asked for.
///
/// ```text
///   bit 31: of the base, 30: of IPv6   0..30: an entry of the family, or a number of the base; not 0
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Found(NonZeroU32);

impl Found {
    /// Whether a prefix was found; else it is a range of the base.
    #[must_use]
    #[inline]
    pub const fn is_prefix(self) -> bool {
        self.0.get() & BASE == 0
    }

    /// None for 0.
    #[inline]
    const fn new(number: u32, flags: u32) -> Option<Self> {
        if number == 0 {
            return None;
        }
        match NonZeroU32::new(number | flags) {
            Some(word) => Some(Self(word)),
            None => None,
        }
    }

    #[inline]
    const fn number(self) -> u32 {
        self.0.get() & !(BASE | V6)
    }
}

const BASE: u32 = 1 << 31;
const V6: u32 = 1 << 30;

/// How much a table has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Serialize)]
pub struct Counts {
    /// IPv4 prefixes.
    pub prefixes_v4: usize,
    /// IPv6 prefixes.
    pub prefixes_v6: usize,
    /// IPv4 ranges of the base about which something is known.
    pub ranges_v4: usize,
    /// The same of IPv6.
    pub ranges_v6: usize,
    /// Different leaves of prefixes, those no longer used among them.
    pub leaves: usize,
    /// Prefixes that found no room since it was built; at least.
    pub refused: usize,
    /// RAM of everything, the writer's hash tables and the leaves' own lists apart.
    pub bytes: usize,
}

impl Table {
    /// The longest prefix that has the address, or else its range of the base. None: nothing is known of it. An IPv4
    /// address in IPv6's clothes (`::ffff:192.0.2.1`) is an IPv4 address.
    #[must_use]
    #[inline]
    pub fn lookup(&self, client: IpAddr) -> Option<Found> {
        match client {
            IpAddr::V4(client) => self.lookup_v4(client.into()),
            IpAddr::V6(client) => self.lookup_v6(client.into()),
        }
    }

    #[inline(always)]
    fn lookup_v4(&self, client: u32) -> Option<Found> {
        Found::new(self.v4.deep_v4(client), 0).or_else(|| self.beneath_v4(client))
    }

    /// Apart: what IPv4 goes through is then so small that it becomes part of its caller, and more lookups overlap.
    #[inline(never)]
    fn lookup_v6(&self, key: u128) -> Option<Found> {
        if key >> 32 == 0xffff {
            return self.lookup_v4(key as u32);
        }
        Found::new(self.v6.deep(key), V6).or_else(|| self.beneath_v6(key))
    }

    /// Apart, as is the next: what is always gone through stays small.
    #[inline(never)]
    fn beneath_v4(&self, client: u32) -> Option<Found> {
        let key = u128::from(client) << 96;
        // Where nothing is on top any more, something may have come below since it was looked for there.
        let prefix = Found::new(self.v4.top(key), 0).or_else(|| Found::new(self.v4.deep_v4(client), 0));
        prefix.or_else(|| Found::new(self.base.number(true, key), BASE))
    }

    #[inline(never)]
    fn beneath_v6(&self, key: u128) -> Option<Found> {
        let prefix = Found::new(self.v6.top(key), V6).or_else(|| Found::new(self.v6.deep(key), V6));
        prefix.or_else(|| Found::new(self.base.number(false, key), BASE | V6))
    }

    /// What is said there. Of a `Found` of another table it is some leaf or an empty one.
    #[must_use]
    #[inline]
    pub fn leaf(&self, found: Found) -> &Leaf {
        let leaf = match self.entry(found) {
            Some(entry) => self.leaf_at(entry.leaf),
            None if found.is_prefix() => None,
            None => self.base.leaf(found.number()),
        };
        leaf.unwrap_or(&EMPTY)
    }

    /// The prefix that was found for this client; None for a range of the base.
    #[must_use]
    pub fn prefix(&self, client: IpAddr, found: Found) -> Option<IpNet> {
        let entry = self.entry(found)?;
        Some(IpNet::new(client.to_canonical(), entry.len).ok()?.trunc())
    }

    /// The next shorter prefix that has this client, for which the one was found. None when there is no other; the base is not among
    /// them.
    #[must_use]
    pub fn covering(&self, client: IpAddr, found: Found) -> Option<Found> {
        if !found.is_prefix() {
            return None;
        }
        let covering = self.prefixes(found).covering(found.number(), bits(client.to_canonical()));
        Found::new(covering, found.0.get() & V6)
    }

    /// What the base says of the address, also where a prefix hides it.
    #[must_use]
    pub fn base(&self, client: IpAddr) -> Option<Found> {
        let client = client.to_canonical();
        let v4 = client.is_ipv4();
        Found::new(self.base.number(v4, bits(client)), BASE | if v4 { 0 } else { V6 })
    }

    /// How much there is. Takes microseconds.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let (ranges_v4, ranges_v6) = self.base.counts();
        Counts {
            prefixes_v4: self.v4.count(),
            prefixes_v6: self.v6.count(),
            ranges_v4,
            ranges_v6,
            leaves: self.leaf_count.load(Relaxed),
            refused: self.refused.load(Relaxed),
            bytes: self.v4.bytes() + self.v6.bytes() + self.leaves.bytes() + self.base.bytes(),
        }
    }

    /// Whether some of what it was built of has no room in it.
    fn is_cut(&self) -> bool {
        self.v4.is_cut() || self.v6.is_cut() || self.base.is_cut()
    }

    #[inline]
    fn entry(&self, found: Found) -> Option<Entry> {
        if found.is_prefix() { self.prefixes(found).entry(found.number()) } else { None }
    }

    #[inline]
    fn prefixes(&self, found: Found) -> &Prefixes {
        self.family(found.0.get() & V6 == 0)
    }

    #[inline]
    const fn family(&self, v4: bool) -> &Prefixes {
        if v4 { &self.v4 } else { &self.v6 }
    }

    #[inline]
    fn leaf_at(&self, leaf: u32) -> Option<&Leaf> {
        self.leaves.get(leaf as usize).and_then(OnceLock::get)
    }
}

/// Says nothing.
static EMPTY: Leaf = Leaf { candidates: Vec::new(), denied: Vec::new(), source: Source::Default };

#[cfg(test)]
mod tests;
