//! The table beside a list of prefixes that is searched from end to end.

mod codec;
mod concurrent;
mod model;

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::topology::RegionId;
use model::{Model, Step, address, prefix, probes, ranges, steps};

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_table_answers_as_a_list_does(
        start in prop::collection::vec((prefix(), 0..9_u16), 0..40), base in ranges(), changes in steps(40),
        random in prop::collection::vec(address(), 0..20),
    ) {
        let mut model = Model { prefixes: start.iter().copied().collect(), base };
        let mut writer = Writer::build(model.content(&start));
        check(&model, &writer, &random);
        for step in changes {
            let (same_model, same_table) = match step {
                Step::Set(prefix, number) => (model.set(prefix, number), writer.set(prefix, &leaf(number))),
                Step::Remove(prefix) => (model.remove(prefix), writer.remove(prefix)),
            };
            prop_assert_eq!(same_model, same_table, "{:?}", step);
            let (Step::Set(prefix, _) | Step::Remove(prefix)) = step;
            prop_assert_eq!(writer.get(&prefix).cloned(), model.prefixes.get(&prefix).map(|number| leaf(*number)));
            check(&model, &writer, &random);
        }
        check_ranges(writer.table(), "0.0.0.0".parse().unwrap());
        check_ranges(writer.table(), "::".parse().unwrap());
        check(&model, &Writer::build(writer.content()), &random);
        let stamp = Stamp { epoch: 1, sequence: 2, made_unix_s: 3, topology_version: 4 };
        let (decoded, read) = Writer::decode(&writer.encode(&stamp)).unwrap();
        prop_assert_eq!(read, stamp);
        check(&model, &decoded, &random);
    }
}

/// At every border, beside it, and at the addresses.
fn check(model: &Model, writer: &Writer, random: &[IpAddr]) {
    let table = writer.table();
    for client in probes(model).chain(random.iter().copied()) {
        let mut found = table.lookup(client);
        let mut first = true;
        for (prefix, number) in model.chain(client) {
            let at = found.unwrap_or_else(|| panic!("{client}: no {prefix}"));
            assert_eq!((table.prefix(client, at), table.leaf(at)), (Some(prefix), &leaf(number)), "{client}");
            found = table.covering(client, at);
            first = false;
        }
        let base = model.base_of(client).map(leaf);
        assert_eq!(table.base(client).map(|found| table.leaf(found)), base.as_ref(), "{client}");
        if first {
            assert_eq!(found, table.base(client), "{client}");
        } else {
            assert_eq!(found, None, "{client}: the chain goes on");
        }
    }
    let v4 = model.prefixes.keys().filter(|prefix| matches!(prefix, IpNet::V4(_))).count();
    let counts = table.counts();
    assert_eq!((counts.prefixes_v4, counts.prefixes_v6), (v4, model.prefixes.len() - v4));
}

/// Without gaps, to the end, and as lookups say; neighbours differ.
fn check_ranges(table: &Table, from: IpAddr) {
    let mut next = Some(bits(from));
    let mut before = None;
    for (first, last, found) in table.ranges(from) {
        assert_eq!(Some(bits(first)), next);
        assert_eq!(table.lookup(first), found);
        assert_eq!(table.lookup(last), found, "{last}");
        assert!(before.is_none_or(|before: Option<Found>| before != found), "{first}");
        before = Some(found);
        let unit = if from.is_ipv4() { 1 << 96 } else { 1 };
        next = bits(last).checked_add(unit);
    }
    assert_eq!(next, None);
}

/// Leaves that differ in all that leaves have.
fn leaf(number: u16) -> Leaf {
    let candidates = (0..number % 3).map(|at| Candidate { region: RegionId(number + 100 * at), rank: at as u8 / 2 });
    let source = match number % 6 {
        0 => Source::Rule,
        1 => Source::Bgp,
        2 => Source::List,
        3 => Source::Geoip(None),
        4 => Source::Geoip(Some(*b"RU")),
        _ => Source::Default,
    };
    Leaf { candidates: candidates.collect(), denied: (0..number / 3).map(RegionId).collect(), source }
}

#[test]
fn an_ipv4_address_in_ipv6_clothes_is_an_ipv4_address() {
    let mut writer = Writer::build(Content::default());
    assert!(writer.set("192.0.2.0/24".parse().unwrap(), &leaf(1)));
    let table = writer.table();
    let client = "::ffff:192.0.2.1".parse().unwrap();
    let found = table.lookup(client).unwrap();
    assert_eq!(table.prefix(client, found), Some("192.0.2.0/24".parse().unwrap()));
    assert_eq!(table.lookup("::192.0.2.1".parse().unwrap()), None);
}

#[test]
fn a_prefix_that_comes_and_goes_leaves_garbage_once() {
    let mut writer = Writer::build(Content::default());
    let before = writer.table().counts();
    let mut bytes = Vec::new();
    for round in 0..50 {
        for prefix in ["10.0.0.0/8", "10.1.2.128/25", "10.1.2.200/32", "2001:db8::/32", "2001:db8:1:2:3::/80"] {
            assert!(writer.set(prefix.parse().unwrap(), &leaf(round % 9)), "{prefix}");
        }
        for prefix in ["10.1.2.128/25", "10.0.0.0/8", "10.1.2.200/32", "2001:db8:1:2:3::/80", "2001:db8::/32"] {
            assert!(writer.remove(prefix.parse().unwrap()), "{prefix}");
        }
        bytes.push(writer.v4.garbage_words() + writer.v6.garbage_words());
    }
    assert_eq!(bytes.first(), bytes.last());
    assert!(!writer.wants_rebuild());
    let after = writer.table().counts();
    assert_eq!((after.prefixes_v4, after.prefixes_v6), (before.prefixes_v4, before.prefixes_v6));
}

#[test]
fn much_garbage_is_said() {
    let mut writer = Writer::build(Content::default());
    // Each is a leaf of its own, and none stays.
    for number in 0..=u16::MAX {
        assert!(!writer.wants_rebuild(), "{number}");
        let denied = vec![RegionId(number)];
        writer.set("192.0.2.0/24".parse().unwrap(), &Leaf { denied, ..Leaf::default() });
    }
    writer.set("192.0.2.0/24".parse().unwrap(), &leaf(1));
    assert!(writer.wants_rebuild());
    let built = Writer::build(writer.content());
    assert!(!built.wants_rebuild());
    assert_eq!(built.table().counts().leaves, 1);
}

#[test]
fn what_was_found_stays_good_when_its_prefix_goes() {
    let mut writer = Writer::build(Content::default());
    writer.set("10.0.0.0/8".parse().unwrap(), &leaf(1));
    writer.set("10.1.0.0/16".parse().unwrap(), &leaf(2));
    let table = std::sync::Arc::clone(writer.table());
    let client = "10.1.2.3".parse().unwrap();
    let found = table.lookup(client).unwrap();
    writer.remove("10.1.0.0/16".parse().unwrap());
    writer.set("10.1.2.0/24".parse().unwrap(), &leaf(3));
    assert_eq!((table.prefix(client, found), table.leaf(found)), (Some("10.1.0.0/16".parse().unwrap()), &leaf(2)));
    let covering = table.covering(client, found).unwrap();
    assert_eq!(table.prefix(client, covering), Some("10.0.0.0/8".parse().unwrap()));
}

#[test]
fn content_out_of_order_is_put_in_order() {
    let net = |text: &str| text.parse().unwrap();
    let leaves = vec![leaf(1), leaf(2), leaf(1)];
    let v4 = vec![(net("10.1.0.0/16"), 1), (net("10.0.0.0/8"), 0), (net("10.1.0.0/16"), 2), (net("10.2.0.0/16"), 7)];
    let mut writer = Writer::build(Content { v4, leaves, ..Content::default() });
    let content = writer.content();
    assert_eq!(content.v4, [(net("10.0.0.0/8"), 0), (net("10.1.0.0/16"), 0)]);
    assert_eq!(content.leaves, [leaf(1)]);
    assert!(!writer.set("10.1.0.0/16".parse().unwrap(), &leaf(1)), "equal leaves are one");
}

/// What a lookup does after it found nothing below, when that came meanwhile and what was on top went.
#[test]
fn a_lookup_misses_nothing_that_moves_from_the_one_trie_to_the_other() {
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let mut writer = Writer::build(Content::default());
    for (above, below) in [("8.0.0.0/7", "10.0.0.0/12"), ("2000::/12", "2001:db8::/32")] {
        writer.set(net(above), &leaf(1));
        writer.set(net(below), &leaf(2));
        writer.remove(net(above));
    }
    let table = writer.table();
    assert!(table.beneath_v4(0x0a00_0001).is_some_and(Found::is_prefix));
    assert!(table.beneath_v6(0x2001_0db8 << 96).is_some_and(Found::is_prefix));
}
