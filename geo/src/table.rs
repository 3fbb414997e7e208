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
//!   one changed prefix may differ for as long as the change takes (microseconds).
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
//! | an IPv4 address of a prefix | 57 ns, 1/4.4 of prefix-trie (in other runs 34 ns, 1/5.6) |
//! | an IPv6 address of a prefix | 403 ns, 1/1.3 of prefix-trie (264 ns, 1/1.8) |
//! | rebuild | 51 ms |
//! | change | 0.2 to 2 us, p99 below 3; a /8 of IPv4 120 us, p99 340; 2a0e::/16 with all it has 1.7 ms |
//! | file | 6.9 MB, 2.8 MB by gzip; loaded in 109 ms, without the base in 56 |
//! | RAM | 80 MiB, with the base 98 |
//!
//! Contestants take turns every 4,096 addresses, so each finds little of its own in the caches. Huge pages brought IPv4 from
//! 1/3.4 to here; 16 bits of root in the place of 24 (22 MiB) were slower, 189 against 92 ns. It is not known what bounds it now.

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
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use ipnet::IpNet;

use arena::Arena;
pub use base::{Base, NOTHING, Ranges};
pub use codec::{DecodeError, Stamp};
use key::bits;
pub use leaf::{CANDIDATES_MAX, Candidate, DENIED_MAX, Leaf, Source};
use prefixes::Prefixes;
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

/// What was found for a client; of one table.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Found {
    /// In canonical form.
    client: IpAddr,
    at: At,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum At {
    /// An entry of the client's family.
    Prefix(u32),
    /// A number of the base.
    Base(u32),
}

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
        let client = client.to_canonical();
        let entry = match client {
            IpAddr::V4(client) => self.v4.get_v4(client.into()),
            IpAddr::V6(client) => self.v6.get(client.into()),
        };
        match entry {
            0 => self.base_of(client),
            entry => Some(Found { client, at: At::Prefix(entry) }),
        }
    }

    /// What is said there. Of a `Found` of another table it is some leaf or an empty one.
    #[must_use]
    #[inline]
    pub fn leaf(&self, found: Found) -> &Leaf {
        let leaf = match found.at {
            At::Prefix(entry) => self.prefixes(found.client).entry(entry).and_then(|entry| self.leaf_at(entry.leaf)),
            At::Base(number) => self.base.leaf(number),
        };
        leaf.unwrap_or(&EMPTY)
    }

    /// The prefix that was found; None for a range of the base.
    #[must_use]
    pub fn prefix(&self, found: Found) -> Option<IpNet> {
        let At::Prefix(entry) = found.at else { return None };
        let entry = self.prefixes(found.client).entry(entry)?;
        Some(IpNet::new(found.client, entry.len).ok()?.trunc())
    }

    /// The next shorter prefix that has the address. None when there is no other; the base is not among them.
    #[must_use]
    pub fn covering(&self, found: Found) -> Option<Found> {
        let At::Prefix(entry) = found.at else { return None };
        match self.prefixes(found.client).covering(entry, bits(found.client)) {
            0 => None,
            entry => Some(Found { client: found.client, at: At::Prefix(entry) }),
        }
    }

    /// What the base says of the address, also where a prefix hides it.
    #[must_use]
    pub fn base(&self, client: IpAddr) -> Option<Found> {
        self.base_of(client.to_canonical())
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
    fn base_of(&self, client: IpAddr) -> Option<Found> {
        match self.base.number(client) {
            0 => None,
            number => Some(Found { client, at: At::Base(number) }),
        }
    }

    #[inline]
    fn prefixes(&self, client: IpAddr) -> &Prefixes {
        if client.is_ipv4() { &self.v4 } else { &self.v6 }
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
