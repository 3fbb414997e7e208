//! The whole table as ranges, for comparing and counting.

use std::net::IpAddr;

use super::key::bits;
use super::trie::Runs;
use super::{BASE, Found, Table, V6};

impl Table {
    /// Ranges of equal answer from this address to the last of its family: first and last address, and what
    /// [`lookup`](Self::lookup) finds there. They have no gaps; neighbours differ in what was found, but their leaves may
    /// be equal. But IPv4-mapped addresses (`::ffff:0:0/96`), which `lookup` finds among IPv4, are here what IPv6's prefixes say of
    /// them. While a writer changes the table, each range is as of some moment in between.
    pub fn ranges(&self, from: IpAddr) -> impl Iterator<Item = (IpAddr, IpAddr, Option<Found>)> + '_ {
        let mut walk = Walk::of(self, from);
        let mut ahead = walk.next();
        std::iter::from_fn(move || {
            let (first, mut last, found) = ahead?;
            ahead = walk.next();
            while let Some((_, end, _)) = ahead.filter(|(_, _, next)| *next == found) {
                last = end;
                ahead = walk.next();
            }
            Some((address(walk.v4, first), address(walk.v4, last), found))
        })
    }

    /// What the base says from this address to the last of its family, also where prefixes hide it: as [`ranges`](Self::ranges),
    /// but neighbours may be equal.
    pub fn base_ranges(&self, from: IpAddr) -> impl Iterator<Item = (IpAddr, IpAddr, Option<Found>)> + '_ {
        let (v4, at) = (from.is_ipv4(), bits(from));
        self.base.trie(v4).runs().starting(at).map(move |(first, last, number)| {
            (address(v4, first.max(at)), address(v4, last), Found::new(number, BASE | family(v4)))
        })
    }
}

/// Three tries side by side: the first that has a number has the say.
struct Walk<'a> {
    v4: bool,
    layers: [Layer<'a>; 3],
    at: Option<u128>,
}

struct Layer<'a> {
    runs: Runs<'a>,
    last: u128,
    number: u32,
}

impl<'a> Walk<'a> {
    fn of(table: &'a Table, from: IpAddr) -> Self {
        let v4 = from.is_ipv4();
        let (deep, top) = table.family(v4).runs();
        let at = bits(from);
        let layers = [deep, top, table.base.trie(v4).runs()].map(|runs| {
            let mut runs = runs.starting(at);
            let (_, last, number) = runs.next().unwrap_or((at, u128::MAX, 0));
            Layer { runs, last, number }
        });
        Self { v4, layers, at: Some(at) }
    }

    fn next(&mut self) -> Option<(u128, u128, Option<Found>)> {
        let first = self.at?;
        for layer in &mut self.layers {
            while layer.last < first {
                let (_, last, number) = layer.runs.next()?;
                (layer.last, layer.number) = (last, number);
            }
        }
        let [deep, top, base] = &self.layers;
        let family = family(self.v4);
        let (last, found) = match (deep.number, top.number, base.number) {
            (0, 0, 0) => (deep.last.min(top.last).min(base.last), None),
            (0, 0, number) => (deep.last.min(top.last).min(base.last), Found::new(number, BASE | family)),
            (0, entry, _) => (deep.last.min(top.last), Found::new(entry, family)),
            (entry, _, _) => (deep.last, Found::new(entry, family)),
        };
        self.at = last.checked_add(1);
        Some((first, last, found))
    }
}

/// The mark of what is found in it.
const fn family(v4: bool) -> u32 {
    if v4 { 0 } else { V6 }
}

fn address(v4: bool, key: u128) -> IpAddr {
    if v4 { IpAddr::V4(((key >> 96) as u32).into()) } else { IpAddr::V6(key.into()) }
}
