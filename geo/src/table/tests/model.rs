//! What a table must answer, found the long way; and random tables.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;

use super::leaf;
use crate::table::key::{Key, bits};
use crate::table::{Base, Content, Leaves, NOTHING, Ranges};

/// Prefixes and ranges with the numbers of leaves.
pub(super) struct Model {
    pub(super) prefixes: BTreeMap<IpNet, u16>,
    pub(super) base: BTreeMap<IpAddr, Option<u16>>,
}

/// A change.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Set(IpNet, u16),
    Remove(IpNet),
}

impl Model {
    pub(super) fn set(&mut self, prefix: IpNet, number: u16) -> bool {
        self.prefixes.insert(prefix, number) != Some(number)
    }

    pub(super) fn remove(&mut self, prefix: IpNet) -> bool {
        self.prefixes.remove(&prefix).is_some()
    }

    /// The prefixes that have the address, longest first.
    pub(super) fn chain(&self, client: IpAddr) -> Vec<(IpNet, u16)> {
        let mut chain: Vec<_> = self.prefixes.iter().filter(|(prefix, _)| prefix.contains(&client)).collect();
        chain.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.prefix_len()));
        chain.into_iter().map(|(prefix, number)| (*prefix, *number)).collect()
    }

    pub(super) fn base_of(&self, client: IpAddr) -> Option<u16> {
        let before = self.base.range(..=client).next_back();
        before.filter(|(start, _)| start.is_ipv4() == client.is_ipv4()).and_then(|(_, number)| *number)
    }

    /// With these prefixes, of which later ones count.
    pub(super) fn content(&self, prefixes: &[(IpNet, u16)]) -> Content {
        let mut leaves = Leaves::default();
        let mut content = Content { base: self.base(), ..Content::default() };
        for (prefix, number) in prefixes {
            content.push(*prefix, leaves.intern(&leaf(*number)));
        }
        content.leaves = leaves.into_vec();
        content
    }

    fn base(&self) -> Base {
        let mut leaves = Leaves::default();
        let mut ranges = Ranges::default();
        for (start, number) in &self.base {
            let leaf = number.map_or(NOTHING, |number| leaves.intern(&leaf(number)));
            match start {
                IpAddr::V4(start) => ranges.v4.push(((*start).into(), leaf)),
                IpAddr::V6(start) => ranges.v6.push(((*start).into(), leaf)),
            }
        }
        ranges.leaves = leaves.into_vec();
        Base::build(ranges)
    }
}

/// First and last addresses of all prefixes and ranges, and their neighbours outside.
pub(super) fn probes(model: &Model) -> impl Iterator<Item = IpAddr> {
    let prefixes =
        model.prefixes.keys().map(|prefix| (bits(prefix.network()), Key::from(*prefix).last(), prefix.addr()));
    let starts = model.base.keys().map(|start| (bits(*start), bits(*start), *start));
    prefixes.chain(starts).flat_map(|(first, last, family)| {
        let (unit, address): (u128, fn(u128) -> IpAddr) = match family {
            IpAddr::V4(_) => (1 << 96, |key| IpAddr::V4(((key >> 96) as u32).into())),
            IpAddr::V6(_) => (1, |key| IpAddr::V6(key.into())),
        };
        [first, first.wrapping_sub(unit), last, last.wrapping_add(unit)].map(address)
    })
}

/// Addresses of few different bytes, so that prefixes meet.
pub(super) fn address() -> impl Strategy<Value = IpAddr> {
    let byte = || prop_oneof![Just(0_u8), Just(1), Just(127), Just(128), Just(255), any::<u8>()];
    // Few first bytes: each that occurs is 65,536 slots to fill.
    let first = |byte: u8| [32, 10, 255, 1][usize::from(byte % 4)];
    let v4 = prop::array::uniform4(byte()).prop_map(move |bytes| {
        let [a, b, c, d] = bytes;
        IpAddr::from([first(a), b, c, d])
    });
    let v6 = prop::array::uniform16(byte()).prop_map(move |mut bytes: [u8; 16]| {
        bytes[0] = first(bytes[0]);
        IpAddr::from(bytes)
    });
    prop_oneof![v4, v6]
}

pub(super) fn prefix() -> impl Strategy<Value = IpNet> {
    (address(), any::<prop::sample::Index>()).prop_map(|(address, length)| {
        let max = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, length.index(max + 1) as u8).unwrap().trunc()
    })
}

/// Starts of ranges.
pub(super) fn ranges() -> impl Strategy<Value = BTreeMap<IpAddr, Option<u16>>> {
    prop::collection::btree_map(address(), prop::option::of(0..9_u16), 0..40)
}

/// Changes of few prefixes, so that they come and go.
pub(super) fn steps(max: usize) -> impl Strategy<Value = Vec<Step>> {
    let some = prop::collection::vec(prefix(), 1..20);
    (some, prop::collection::vec((any::<prop::sample::Index>(), 0..9_u16, any::<bool>()), 0..max)).prop_map(
        |(prefixes, steps)| {
            let step = |(index, number, set): (prop::sample::Index, u16, bool)| {
                let prefix = *index.get(&prefixes);
                if set { Step::Set(prefix, number) } else { Step::Remove(prefix) }
            };
            steps.into_iter().map(step).collect()
        },
    )
}
