//! Files: what is written, and what is refused.

use std::collections::BTreeMap;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use ipnet::{IpNet, Ipv6Net};

use super::leaf;
use super::model::{Model, prefix, ranges};
use crate::table::codec::encoded;
use crate::table::{Base, Content, Leaf, Ranges, Stamp, Writer};
use crate::topology::RegionId;

const STAMP: Stamp = Stamp { epoch: 7, sequence: 300, made_unix_s: 1_700_000_000, topology_version: 2 };

/// A format that changes gets another version.
#[test]
fn the_format_is_this_one() {
    let base = BTreeMap::from([
        ("10.0.0.0".parse().unwrap(), Some(4)),
        ("10.0.0.64".parse().unwrap(), None),
        ("2001:db8::".parse().unwrap(), Some(3)),
    ]);
    let model = Model { prefixes: BTreeMap::new(), base };
    let prefixes = [("192.0.2.0/24", 1), ("192.0.2.128/25", 5), ("2001:db8::/32", 2), ("2001:db8:1::/48", 1)];
    let prefixes = prefixes.map(|(prefix, number)| (prefix.parse().unwrap(), number));
    let bytes = Writer::build(model.content(&prefixes)).encode(&STAMP);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = [
        // magic, stamp
        "53554e47454f000107000000000000002c0100000000000000f15365000000000200000000000000",
        // leaves
        "15030101010000050205006900010002020200660000",
        // IPv4 prefixes
        "0d02021819058280800601020001",
        // IPv6 prefixes
        "0e0202203006b89b84800201020200",
        // leaves of the base
        "0d02045255010400010003000100",
        // IPv4 ranges
        "0a02021906020501020100",
        // IPv6 ranges
        "0a01016304b7c380200102",
        // sum
        "e0b35819",
    ];
    assert_eq!(hex, expected.concat());
}

#[test]
fn an_empty_table_is_a_file_too() {
    let bytes = Writer::build(Content::default()).encode(&STAMP);
    let (writer, stamp) = Writer::decode(&bytes).unwrap();
    assert_eq!((writer.table().lookup("10.0.0.1".parse().unwrap()), stamp), (None, STAMP));
}

#[test]
fn a_file_that_was_cut_is_an_error() {
    let bytes = some(1);
    for length in 0..bytes.len() {
        Writer::decode(&bytes[..length]).unwrap_err();
    }
}

#[test]
fn a_changed_byte_is_an_error() {
    let bytes = some(2);
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        Writer::decode(&changed).unwrap_err();
    }
}

/// With a sum that fits, the error is where the byte is or behind, and nothing panics.
#[test]
fn what_a_liar_writes_is_refused_or_is_a_table() {
    let mut random = SmallRng::seed_from_u64(3);
    let mut refused = 0;
    let files: Vec<_> = (0..5).map(some).collect();
    for round in 0..600 {
        let mut bytes = files[round / 120].clone();
        bytes.truncate(bytes.len() - 4);
        let mut first = bytes.len();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(8..bytes.len());
            match random.random_range(0..4) {
                0 => bytes[at] = random.random(),
                1 => bytes[at] = 0xff,
                2 => bytes.truncate(at),
                _ => bytes.insert(at, random.random()),
            }
            first = first.min(at);
            if bytes.len() < 9 {
                break;
            }
        }
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        match Writer::decode(&bytes) {
            Ok((writer, _)) => assert!(Writer::decode(&writer.encode(&STAMP)).is_ok()),
            Err(error) => {
                assert!(error.offset <= bytes.len(), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 300, "{refused}");
}

/// Each with a sum that fits: where it is refused.
#[test]
fn an_error_names_the_byte() {
    let empty = Writer::build(Content::default()).encode(&STAMP);
    let check = |change: &dyn Fn(&mut Vec<u8>), expected: &str| {
        let mut bytes = empty.clone();
        bytes.truncate(bytes.len() - 4);
        change(&mut bytes);
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        assert_eq!(Writer::decode(&bytes).unwrap_err().to_string(), expected);
    };
    check(&|bytes| bytes[0] = b'X', "byte 0: not a geo table of version 1");
    check(&|bytes| bytes[7] = 2, "byte 0: not a geo table of version 1");
    check(&|bytes| bytes.truncate(39), "byte 32: it ends too early");
    // The length of the leaves' part, then their count.
    check(&|bytes| bytes[40] = 0x7f, "byte 40: more than there is room for");
    check(&|bytes| bytes[41] = 1, "byte 41: too many");
    check(&|bytes| bytes.push(0), "byte 64: more than was announced");
}

/// A leaf takes a hundred times its three bytes, and those compress well.
#[test]
fn there_are_no_more_leaves_than_are_named() {
    // Of prefixes, then of the base.
    for (at, expected) in [(0, "byte 41: too many"), (3, "byte 53: too many")] {
        let mut bytes = Writer::build(Content::default()).encode(&STAMP);
        bytes.truncate(40);
        for part in 0..6 {
            match part {
                _ if part == at => bytes.extend([4, 1, 0, 0, 0]),
                0 | 3 => bytes.extend([1, 0]),
                _ => bytes.extend([4, 0, 0, 0, 0]),
            }
        }
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        assert_eq!(Writer::decode(&bytes).unwrap_err().to_string(), expected);
    }
}

/// A table that does not fit is refused as a file, and what is built or set of it fits a file.
#[test]
fn a_table_has_no_more_nodes_than_a_file_may_make() {
    let net = |number: u32| IpNet::V6(Ipv6Net::new((u128::from(0x20_0000 + number) << 104).into(), 128).unwrap());
    let mut content = Content { leaves: vec![leaf(1)], ..Content::default() };
    (0..12_000).for_each(|number| content.push(net(number), 0));
    let file = encoded(content.clone(), &STAMP);
    assert!(Writer::decode(&file).unwrap_err().to_string().ends_with("more than a table has room for"));

    let built = Writer::build(content);
    let counts = built.table().counts();
    assert!(counts.refused > 0 && counts.prefixes_v6 + counts.refused == 12_000, "{counts:?}");
    let mut set = Writer::build(Content::default());
    let mut wanted = None;
    for number in 0..12_000 {
        if set.wants_rebuild() && wanted.is_none() {
            wanted = Some(set.table().counts().refused);
        }
        set.set(net(number), &leaf(1));
    }
    assert_eq!(wanted, Some(0), "it asked to be built anew before anything was refused");
    assert!(set.table().counts().refused > 0);
    assert_eq!(set.table().counts().prefixes_v6 + set.table().counts().refused, 12_000);
    for writer in [built, set] {
        let (read, _) = Writer::decode(&writer.encode(&STAMP)).unwrap();
        assert!(!read.table().is_cut());
        assert!(read.table().counts().prefixes_v6 > 4_000, "{:?}", read.table().counts());
    }
}

#[test]
fn a_leaf_beyond_its_bounds_gets_into_no_file() {
    let denied = |count| Leaf { denied: (0..count).map(RegionId).collect(), ..Leaf::default() };
    let (prefix, large) = ("192.0.2.0/24".parse().unwrap(), denied(65));
    let mut writer = Writer::build(Content::default());
    assert!(!writer.set(prefix, &large) && writer.set(prefix, &denied(64)) && !writer.set(prefix, &large));
    assert_eq!((writer.table().counts().refused, writer.get(&prefix)), (2, Some(&denied(64))));
    let base = Ranges { v4: vec![(0, 0), (9, 1)], v6: vec![], leaves: vec![large.clone(), leaf(1)] };
    let mut content = Content { leaves: vec![large, leaf(1)], base: Base::build(base), ..Content::default() };
    content.push(prefix, 0);
    content.push("10.0.0.0/8".parse().unwrap(), 1);
    let writer = Writer::build(content);
    let (read, _) = Writer::decode(&writer.encode(&STAMP)).unwrap();
    assert_eq!((read.content().leaves, read.get(&prefix)), (vec![leaf(1)], None));
    assert_eq!(read.content().base.ranges(), Ranges { v4: vec![(9, 0)], v6: vec![], leaves: vec![leaf(1)] });
}

/// A file of a random table, the same for a seed.
fn some(seed: usize) -> Vec<u8> {
    let mut runner = TestRunner::deterministic();
    let prefixes = proptest::collection::vec((prefix(), 0..9_u16), 10..30);
    let strategy = (prefixes, ranges());
    (0..seed).for_each(|_| drop(strategy.new_tree(&mut runner)));
    let (prefixes, base) = strategy.new_tree(&mut runner).unwrap().current();
    let model = Model { prefixes: BTreeMap::new(), base };
    Writer::build(model.content(&prefixes)).encode(&STAMP)
}
