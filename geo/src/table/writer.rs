//! Who builds a table and changes it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::arena::Arena;
use super::key::Key;
use super::prefixes::{Growth, LEAVES_MAX, PREFIXES_MAX, Prefixes};
use super::trie::Shape;
use super::{Base, Leaf, Table};

/// Everything that a table says, on its way from one table to the next, or to and from a file.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// Prefixes with the index of their leaf. Best in order of address, then length; of two equal ones the last counts. A prefix whose leaf
    /// is not there, or beyond a leaf's bounds, is left out; of each family at most 4,194,304 count.
    pub v4: Vec<(Ipv4Net, u32)>,
    /// The same.
    pub v6: Vec<(Ipv6Net, u32)>,
    /// The leaves that the prefixes name; at most 16,777,216 count.
    pub leaves: Vec<Leaf>,
    /// What shows where no prefix covers.
    pub base: Base,
}

impl Content {
    /// Adds a prefix.
    pub fn push(&mut self, prefix: IpNet, leaf: u32) {
        match prefix {
            IpNet::V4(net) => self.v4.push((net, leaf)),
            IpNet::V6(net) => self.v6.push((net, leaf)),
        }
    }
}

/// Leaves on their way into a [`Content`] or [`Ranges`](super::Ranges): equal ones are kept once.
#[derive(Clone, Debug, Default)]
pub struct Leaves {
    list: Vec<Leaf>,
    index: HashMap<Leaf, u32>,
}

impl Leaves {
    /// The index of this leaf.
    pub fn intern(&mut self, leaf: &Leaf) -> u32 {
        if let Some(index) = self.index.get(leaf) {
            return *index;
        }
        let index = self.list.len() as u32;
        self.list.push(leaf.clone());
        self.index.insert(leaf.clone(), index);
        index
    }

    /// All, by index.
    #[must_use]
    pub fn into_vec(self) -> Vec<Leaf> {
        self.list
    }
}

/// The one who changes a [`Table`]. Its methods take time that grows with how many /24 a prefix has, not with the table.
#[derive(Debug)]
pub struct Writer {
    table: Arc<Table>,
    pub(super) v4: Growth,
    pub(super) v6: Growth,
    index: HashMap<Leaf, u32>,
    built_leaves: usize,
    next_leaf: usize,
}

impl Writer {
    /// A table of this content; two threads work on it. What finds no room is left out: a WARN says so, and it
    /// [counts](super::Counts::refused).
    #[must_use]
    pub fn build(content: Content) -> Self {
        let Content { v4, v6, mut leaves, base } = content;
        leaves.truncate(LEAVES_MAX);
        // Where equal leaves are given twice, the first is used.
        let same: Vec<u32> = {
            let mut index = HashMap::with_capacity(leaves.len());
            let numbered = leaves.iter().zip(0_u32..);
            numbered.map(|(leaf, at)| if leaf.fits() { *index.entry(leaf).or_insert(at) } else { u32::MAX }).collect()
        };
        let (mut v4, mut v6) = (sorted(v4, &same), sorted(v6, &same));
        let given = v4.len() + v6.len();
        v4.truncate(PREFIXES_MAX);
        v6.truncate(PREFIXES_MAX);
        let leaf = |leaf: u32| same.get(leaf as usize).copied().unwrap_or(leaf);
        let v4 = v4.into_iter().map(v4_key).map(|(key, at)| (key, leaf(at)));
        let v6 = v6.into_iter().map(v6_key).map(|(key, at)| (key, leaf(at)));
        let Ok(writer) = Self::assemble::<Infallible>(leaves, v4, v6, || Ok(base));
        let left_out = given.saturating_sub(writer.table.v4.count() + writer.table.v6.count());
        if left_out > 0 {
            writer.table.refused.store(left_out, Relaxed);
            tracing::warn!(left_out, "there are more prefixes than a table has room for: some are left out");
        }
        writer
    }

    /// Of leaves and sorted prefixes, which name the first of equal leaves.
    pub(super) fn assemble<E: Send>(
        leaves: Vec<Leaf>,
        v4: impl ExactSizeIterator<Item = (Key, u32)>,
        v6: impl ExactSizeIterator<Item = (Key, u32)> + Send,
        base: impl FnOnce() -> Result<Base, E> + Send,
    ) -> Result<Self, E> {
        let (v4, v6, base) = std::thread::scope(|scope| {
            let others = scope.spawn(|| (Prefixes::build(v6, Shape::Starts, V6_TOP_BITS), base()));
            let v4 = Prefixes::build(v4, Shape::Slots, V4_TOP_BITS);
            let (v6, base) = others.join().expect("it does not panic");
            (v4, v6, base)
        });
        let base = base?;
        let mut index = HashMap::with_capacity(leaves.len());
        for (at, leaf) in leaves.iter().enumerate() {
            index.entry(leaf.clone()).or_insert(at as u32);
        }
        let count = leaves.len();
        let leaves = Arena::new(leaves.into_iter().map(OnceLock::from).collect(), LEAF_SEGMENT_BITS, LEAF_SEGMENTS);
        let table = Table {
            v4: v4.0,
            v6: v6.0,
            leaves,
            leaf_count: AtomicUsize::new(count),
            refused: AtomicUsize::new(0),
            base,
        };
        Ok(Self { table: Arc::new(table), v4: v4.1, v6: v6.1, index, built_leaves: count, next_leaf: count })
    }

    /// What readers share.
    #[must_use]
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Adds a prefix or gives it another leaf. False when it had this one; and when it is refused, which
    /// [counts](super::Counts::refused): a leaf beyond its bounds, or a table that is full (4,194,304 prefixes of a family, 256 MiB of
    /// nodes), or one that was not built anew long after it [wanted to be](Self::wants_rebuild).
    pub fn set(&mut self, prefix: IpNet, leaf: &Leaf) -> bool {
        let set = self.intern(leaf).and_then(|leaf| match prefix {
            IpNet::V4(net) => self.table.v4.set(&mut self.v4, net.into(), leaf),
            IpNet::V6(net) => self.table.v6.set(&mut self.v6, net.into(), leaf),
        });
        if set.is_none() && self.table.refused.fetch_add(1, Relaxed) == 0 {
            tracing::warn!(%prefix, "the table is full or the leaf too large: it is not set, and more may follow");
        }
        set.unwrap_or(false)
    }

    /// Removes a prefix. Its addresses are then the covering prefix's, or the base's. False when there was none.
    pub fn remove(&mut self, prefix: IpNet) -> bool {
        match prefix {
            IpNet::V4(net) => self.table.v4.remove(&mut self.v4, net.into()),
            IpNet::V6(net) => self.table.v6.remove(&mut self.v6, net.into()),
        }
    }

    /// The leaf of exactly this prefix.
    #[must_use]
    pub fn get(&self, prefix: &IpNet) -> Option<&Leaf> {
        let prefixes = self.table.family(prefix.addr().is_ipv4());
        let entry = prefixes.entry(prefixes.exact((*prefix).into())?)?;
        self.table.leaf_at(entry.leaf)
    }

    /// Whether what changes left behind is so much (16 MiB of nodes, a quarter of the prefixes), or half of the room for
    /// changes is taken, so that the table should be built anew:
    /// `writer = Writer::build(writer.content())`, and readers get the new [`table`](Self::table).
    #[must_use]
    pub fn wants_rebuild(&self) -> bool {
        let Self { table, v4, v6, built_leaves, next_leaf, .. } = self;
        let grown = next_leaf.saturating_sub(*built_leaves);
        table.v4.wants_rebuild(v4)
            || table.v6.wants_rebuild(v6)
            || grown > (built_leaves + LEAVES_GROWN_MAX).min(LEAF_SEGMENTS << LEAF_SEGMENT_BITS >> 1)
    }

    /// All that the table says, in order, without leaves that no prefix has.
    #[must_use]
    pub fn content(&self) -> Content {
        let mut used = Used { of: vec![u32::MAX; self.next_leaf], list: Vec::new() };
        let v4 = self.table.v4.all().into_iter().map(|(key, leaf)| (v4_net(key), used.number(leaf))).collect();
        let v6 = self.table.v6.all().into_iter().map(|(key, leaf)| (v6_net(key), used.number(leaf))).collect();
        let leaves = used.list.iter().filter_map(|leaf| self.table.leaf_at(*leaf)).cloned().collect();
        Content { v4, v6, leaves, base: self.table.base.clone() }
    }

    fn intern(&mut self, leaf: &Leaf) -> Option<u32> {
        if let Some(index) = self.index.get(leaf) {
            return Some(*index);
        }
        if !leaf.fits() {
            return None;
        }
        let at = self.table.leaves.reserve(self.next_leaf, 1).filter(|at| *at < LEAVES_MAX)?;
        self.table.leaves.get(at)?.set(leaf.clone()).ok()?;
        self.next_leaf = at + 1;
        self.table.leaf_count.fetch_add(1, Relaxed);
        self.index.insert(leaf.clone(), at as u32);
        Some(at as u32)
    }
}

/// New numbers of leaves, in the order of their use.
struct Used {
    /// By old number; `u32::MAX`: none yet.
    of: Vec<u32>,
    /// Old numbers, by new one.
    list: Vec<u32>,
}

impl Used {
    fn number(&mut self, leaf: u32) -> u32 {
        let Some(number) = self.of.get_mut(leaf as usize) else { return u32::MAX };
        if *number == u32::MAX {
            *number = self.list.len() as u32;
            self.list.push(leaf);
        }
        *number
    }
}

/// Prefixes in order, none twice, with leaves that there are.
fn sorted<N: Copy + Into<Key>>(mut prefixes: Vec<(N, u32)>, leaves: &[u32]) -> Vec<(N, u32)> {
    prefixes.retain(|(_, leaf)| leaves.get(*leaf as usize).is_some_and(|leaf| *leaf != u32::MAX));
    let key = |(net, _): &(N, u32)| -> Key { (*net).into() };
    if !prefixes.is_sorted_by(|a, b| key(a) < key(b)) {
        // Stable: of equal ones the last given stays the last.
        prefixes.sort_by_key(key);
        prefixes.dedup_by(|later, kept| {
            let same = key(later) == key(kept);
            if same {
                kept.1 = later.1;
            }
            same
        });
    }
    prefixes
}

pub(super) fn v4_key((net, leaf): (Ipv4Net, u32)) -> (Key, u32) {
    (net.into(), leaf)
}

pub(super) fn v6_key((net, leaf): (Ipv6Net, u32)) -> (Key, u32) {
    (net.into(), leaf)
}

fn v4_net(key: Key) -> Ipv4Net {
    Ipv4Net::new(((key.bits >> 96) as u32).into(), key.len).unwrap_or_default()
}

fn v6_net(key: Key) -> Ipv6Net {
    Ipv6Net::new(key.bits.into(), key.len).unwrap_or_default()
}

/// IPv4 prefixes shorter than this are looked at last.
const V4_TOP_BITS: u8 = 8;
/// The same of IPv6: what registries hand out begins at /20, and a /16 of those is an eighth of the table to change.
const V6_TOP_BITS: u8 = 20;
/// Leaves that come by changes: segments of 4,096.
const LEAF_SEGMENT_BITS: u32 = 12;
const LEAF_SEGMENTS: usize = 1 << 12;
const LEAVES_GROWN_MAX: usize = 1 << 16;
