//! MRT dumps: tables, updates, packing, and files that end too early.

use std::io::{Read, Write};

use super::super::{Event, FeedError, FeedErrorKind, mrt};
use super::lines;
use super::wire::{attribute, bgp4mp, path2, path4, peer_index, plain, prefixes, record, rib, unreach, update};

/// Everything a dump says, and how it ended.
fn read(dump: &[u8]) -> (Vec<Event>, Vec<FeedError>) {
    let (mut events, mut errors) = (Vec::new(), Vec::new());
    for item in mrt(dump) {
        match item {
            Ok(event) => events.push(event),
            Err(error) => errors.push(error),
        }
    }
    (events, errors)
}

fn check(dump: &[u8], expected: &[&str], expected_errors: &[&str]) {
    let (events, errors) = read(dump);
    assert_eq!(lines(&events), expected);
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected_errors);
}

/// A small table: two peers, two prefixes.
fn records() -> [Vec<u8>; 3] {
    let path = attribute(2, &path4(&[(2, &[64_502])]));
    let v6 = [attribute(1, &[0]), path, attribute(14, &[4, 192, 0, 2, 1])].concat();
    [
        peer_index(2),
        rib(2, "10.0.0.0/8", &[(0, None, plain(&[64_501, 1])), (1, None, plain(&[64_502, 1]))]),
        rib(4, "2001:db8::/32", &[(1, None, v6)]),
    ]
}

fn table() -> Vec<u8> {
    records().concat()
}

const TABLE: &[&str] =
    &["+10.0.0.0/8 [64501, 1]/2 AS1", "+10.0.0.0/8 [64502, 1]/2 AS1", "+2001:db8::/32 [64502]/1 AS64502"];

#[test]
fn a_table_is_told_route_by_route() {
    check(&table(), TABLE, &[]);
    let (events, _) = read(&table());
    let peers: Vec<_> = events
        .iter()
        .filter_map(|event| if let Event::Routes { peer, .. } = event { Some(peer.to_string()) } else { None })
        .collect();
    assert_eq!(peers, ["192.0.2.1 (AS64501)", "192.0.2.2 (AS64502)", "192.0.2.2 (AS64502)"]);
    check(&[], &[], &[]);
}

#[test]
fn packed_dumps_are_known_by_their_magic() {
    let gzip = |bytes: &[u8]| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    };
    let bzip2 = |bytes: &[u8]| {
        let mut packed = Vec::new();
        bzip2::read::BzEncoder::new(bytes, bzip2::Compression::fast()).read_to_end(&mut packed).unwrap();
        packed
    };
    check(&gzip(&table()), TABLE, &[]);
    check(&bzip2(&table()), TABLE, &[]);
    // Members one behind the other.
    let middle = table().len() / 2;
    check(&[gzip(&table()[..middle]), gzip(&table()[middle..])].concat(), TABLE, &[]);
    check(&[bzip2(&table()[..middle]), bzip2(&table()[middle..])].concat(), TABLE, &[]);
    // Cut packing: what could be unpacked counts.
    let packed = gzip(&table());
    let (events, errors) = read(&packed[..packed.len() - 8]);
    assert_eq!((lines(&events), errors.len()), (TABLE.iter().map(ToString::to_string).collect(), 1));
    assert_eq!((errors[0].kind, errors[0].offset), (FeedErrorKind::Cut, table().len() as u64));
    // Within the last record.
    let last = records()[2].len();
    let cut = gzip(&table()[..table().len() - 1]);
    let (events, errors) = read(&cut[..cut.len() - 8]);
    assert_eq!((events.len(), errors.len(), errors[0].kind), (2, 1, FeedErrorKind::Cut));
    assert_eq!(errors[0].offset, (table().len() - last) as u64);
    let (_, errors) = read(&[0x1f, 0x8b, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
    assert_eq!(errors.iter().map(|error| error.kind).collect::<Vec<_>>(), [FeedErrorKind::Read]);
}

#[test]
fn a_cut_dump_gives_what_was_whole_and_then_the_place() {
    let whole = table();
    let [peers, first, _] = records();
    let starts = [0, peers.len(), peers.len() + first.len()];
    for length in 1..whole.len() {
        let (events, errors) = read(&whole[..length]);
        let boundary = length == starts[1] || length == starts[2];
        assert_eq!(errors.len(), usize::from(!boundary), "{length}: {errors:?}");
        assert_eq!(events.len(), if length < starts[2] { 0 } else { 2 }, "{length}");
        let last = starts.iter().rev().find(|start| **start <= length).unwrap();
        for error in errors {
            assert_eq!(error.kind, FeedErrorKind::Cut);
            assert!((*last as u64..=length as u64).contains(&error.offset), "{length}: {error}");
        }
    }
}

#[test]
fn a_broken_record_costs_only_itself() {
    let good = rib(2, "10.0.0.0/8", &[(0, None, plain(&[1]))]);
    let table = |records: &[&[u8]]| [&peer_index(1)[..], &records.concat(), &good].concat();
    let good_line = "+10.0.0.0/8 [1]/1 AS1";
    // The table of peers is 35 bytes, the next record's body starts at 47.
    assert_eq!(peer_index(1).len(), 35);
    let check_one = |bad: &[u8], expected: &str| check(&table(&[bad]), &[good_line], &[expected]);
    check_one(&record(13, 2, &[0, 0]), "byte 47: a RIB record is cut");
    check_one(
        &record(13, 2, &[0, 0, 0, 0, 33, 1, 2, 3, 4, 5, 0, 1]),
        "byte 51: a prefix has more bits than an address",
    );
    check_one(&rib(2, "10.0.0.0/8", &[(1, None, plain(&[1]))]), "byte 55: a peer is not in the table of peers");
    let mut short = rib(2, "10.0.0.0/8", &[(0, None, plain(&[1]))]);
    short[27] = 200;
    check_one(&short, "peer 192.0.2.1 (AS64501): byte 63: a RIB entry's attributes are longer than the record");
    // More entries than there are: those before it count.
    let mut more = good.clone();
    more[19] = 2;
    check(&table(&[&more]), &[good_line, good_line], &["byte 83: a RIB entry is cut"]);
    // Malformed attributes: that route is not heard.
    let odd = rib(2, "10.0.0.0/8", &[(0, None, attribute(1, &[9])), (0, None, plain(&[1]))]);
    check(&table(&[&odd]), &["malformed at 66: ORIGIN is not 0, 1 or 2", good_line, good_line], &[]);
    check(&good, &[], &["byte 20: routes come before the table of peers"]);
}

#[test]
fn a_record_too_long_ends_the_dump() {
    let dump = [&peer_index(1)[..], &[0, 0, 0, 1, 0, 13, 0, 2, 1, 0, 0, 1], &table()].concat();
    check(&dump, &[], &["byte 35: a record of 16777217 bytes; at most 16777216 can be"]);
}

#[test]
fn updates_between_tables_are_read() {
    let message = update(&prefixes(&["192.0.2.0/24"]), &plain(&[64_501]), &prefixes(&["10.0.0.0/8"]));
    let expected = "+10.0.0.0/8 -192.0.2.0/24 [64501]/1 AS64501";
    check(&bgp4mp(4, &message), &[expected], &[]);
    let narrow = [attribute(1, &[0]), attribute(2, &path2(&[(2, &[64_501])])), attribute(3, &[0; 4])].concat();
    let narrow = update(&[], &narrow, &prefixes(&["10.0.0.0/8"]));
    check(&bgp4mp(1, &narrow), &["+10.0.0.0/8 [64501]/1 AS64501"], &[]);
    check(&bgp4mp(4, &update(&[], &unreach(&[]), &[])), &["end PrePolicy V6"], &[]);
    check(&bgp4mp(5, &[0, 3, 0, 6]), &["up 192.0.2.9 (AS64501) PrePolicy 0.0.0.0 []"], &[]);
    check(&bgp4mp(0, &[0, 6, 0, 1]), &["down 192.0.2.9 (AS64501) PrePolicy: the session of the collector ended"], &[]);
    check(&bgp4mp(5, &[0, 3, 0, 4]), &["ignored kind"], &[]);
    check(&bgp4mp(9, &message), &["ignored add_path"], &[]);
    check(&bgp4mp(7, &message), &["ignored kind"], &[]);
    check(&record(12, 1, &[1, 2, 3]), &["ignored kind"], &[]);
    // With microseconds.
    let plain = bgp4mp(4, &message);
    check(&record(17, 4, &[&[0, 0, 0, 9], &plain[12..]].concat()), &[expected], &[]);
    check(&record(17, 4, &[0, 0]), &[], &["byte 12: BGP4MP_ET is cut"]);
    check(
        &bgp4mp(4, &message[..30]),
        &[],
        &["peer 192.0.2.9 (AS64501): byte 51: a BGP message is longer than what carries it"],
    );
}

#[test]
fn of_several_paths_of_a_peer_the_first_is_taken() {
    let entries =
        [(0, Some(1), plain(&[1])), (0, Some(2), plain(&[2])), (1, Some(9), plain(&[3])), (0, Some(3), plain(&[4]))];
    let dump = [peer_index(2), rib(8, "10.0.0.0/8", &entries)].concat();
    check(&dump, &["+10.0.0.0/8 [1]/1 AS1", "+10.0.0.0/8 [3]/1 AS3"], &[]);
}
