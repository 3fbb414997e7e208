//! The same bytes read by bgpkit-parser, an implementation of other people; and bytes that it wrote.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;

use bgpkit_parser::encoder::{MrtRibEncoder, MrtUpdatesEncoder};
use bgpkit_parser::models::{
    AsPath, AsPathSegment, Asn, BgpElem, BgpMessage, ElemType, LargeCommunity, MetaCommunity, MrtMessage,
    NetworkPrefix, Origin,
};
use bgpkit_parser::parser::bgp::messages::parse_bgp_message;
use bgpkit_parser::parser::mrt::mrt_record::parse_mrt_record;
use bgpkit_parser::{Elementor, models};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::{Event, bmp, input, mrt};
use super::wire::{attribute, monitoring, path2, path4, plain, prefixes, reach, unreach, update};
use super::{address, lines, peer};

/// A route in words both sides can be put into: sign, prefix, path, its length, MED, communities. A missing MED is 0, as they have it.
type Words = (bool, String, Vec<u32>, usize, u32, Vec<String>);

fn ours(events: &[Event]) -> Vec<Words> {
    let mut routes = Vec::new();
    for event in events {
        let Event::Routes { announced, withdrawn, attributes, .. } = event else { continue };
        routes.extend(withdrawn.iter().map(|prefix| (false, prefix.to_string(), Vec::new(), 0, 0, Vec::new())));
        let Some(said) = attributes else { continue };
        let mut communities: Vec<String> = said.communities.iter().map(ToString::to_string).collect();
        communities.sort();
        let length = usize::from(said.path_length);
        routes.extend(announced.iter().map(|prefix| {
            (true, prefix.to_string(), said.as_path.to_vec(), length, said.med.unwrap_or(0), communities.clone())
        }));
    }
    routes.sort();
    routes
}

fn theirs(elems: Vec<BgpElem>) -> Vec<Words> {
    let mut routes: Vec<Words> = elems
        .into_iter()
        .map(|elem| {
            let prefix = elem.prefix.prefix.to_string();
            if elem.elem_type == ElemType::WITHDRAW {
                return (false, prefix, Vec::new(), 0, 0, Vec::new());
            }
            let path = elem.as_path.unwrap_or_default();
            let numbers = path.segments.iter().flat_map(numbers).collect();
            let mut communities: Vec<String> = elem.communities.iter().flatten().filter_map(community).collect();
            communities.sort();
            communities.dedup();
            (true, prefix, numbers, path.route_len(), elem.med.unwrap_or(0), communities)
        })
        .collect();
    routes.sort();
    routes
}

/// The first difference is what is printed.
fn same(ours: &[Words], theirs: &[Words], of: &[u8]) {
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert_eq!(ours, theirs, "{of:02x?}");
    }
    assert_eq!(ours.len(), theirs.len(), "{of:02x?}");
}

fn numbers(segment: &AsPathSegment) -> Vec<u32> {
    match segment {
        AsPathSegment::AsSequence(list) | AsPathSegment::AsSet(list) => list.iter().copied().map(u32::from).collect(),
        AsPathSegment::ConfedSequence(_) | AsPathSegment::ConfedSet(_) => Vec::new(),
    }
}

fn community(community: &MetaCommunity) -> Option<String> {
    match community {
        MetaCommunity::Plain(models::Community::Custom(asn, value)) => Some(format!("{asn}:{value}")),
        MetaCommunity::Plain(models::Community::NoExport) => Some("65535:65281".to_owned()),
        MetaCommunity::Plain(models::Community::NoAdvertise) => Some("65535:65282".to_owned()),
        MetaCommunity::Plain(models::Community::NoExportSubConfed) => Some("65535:65283".to_owned()),
        MetaCommunity::Large(large) => {
            Some(format!("{}:{}:{}", large.global_admin, large.local_data[0], large.local_data[1]))
        }
        _ => None,
    }
}

/// Some prefixes of a family. None of length 0: see the module's doc.
fn random_prefixes(random: &mut StdRng, v6: bool) -> Vec<String> {
    (0..random.random_range(0..5))
        .map(|_| match v6 {
            false => {
                let address = std::net::Ipv4Addr::from(random.random::<u32>());
                ipnet::Ipv4Net::new(address, random.random_range(1..=32)).unwrap().trunc().to_string()
            }
            true => {
                let address = std::net::Ipv6Addr::from(random.random::<u128>());
                ipnet::Ipv6Net::new(address, random.random_range(1..=128)).unwrap().trunc().to_string()
            }
        })
        .collect()
}

/// Segments: (type, numbers). Of both sequences and sets, with confederations if `confederations`.
fn random_segments(random: &mut StdRng, confederations: bool) -> Vec<(u8, Vec<u32>)> {
    let kinds: &[u8] = if confederations { &[1, 2, 2, 3, 4] } else { &[1, 2, 2, 2] };
    (0..random.random_range(0..4))
        .map(|_| {
            let kind = kinds[random.random_range(0..kinds.len())];
            let number = |random: &mut StdRng| match random.random_range(0..3) {
                0 => random.random::<u32>(),
                _ => u32::from(random.random::<u16>()),
            };
            (kind, (0..random.random_range(1..6)).map(|_| number(random)).collect())
        })
        .collect()
}

fn random_message(random: &mut StdRng, narrow: bool) -> Vec<u8> {
    let borrowed = |list: &[String]| prefixes(&list.iter().map(String::as_str).collect::<Vec<_>>());
    let segments = random_segments(random, true);
    let wide: Vec<(u8, &[u32])> = segments.iter().map(|(kind, list)| (*kind, list.as_slice())).collect();
    let mut attributes = vec![attribute(1, &[0]), attribute(3, &[192, 0, 2, 1])];
    if narrow {
        let cut = |number: &u32| u16::try_from(*number).unwrap_or(23_456);
        let short: Vec<(u8, Vec<u16>)> =
            segments.iter().map(|(k, list)| (*k, list.iter().map(cut).collect())).collect();
        let short: Vec<(u8, &[u16])> = short.iter().map(|(kind, list)| (*kind, list.as_slice())).collect();
        attributes.push(attribute(2, &path2(&short)));
        let behind = random_segments(random, false);
        let behind: Vec<(u8, &[u32])> = behind.iter().map(|(kind, list)| (*kind, list.as_slice())).collect();
        attributes.push(attribute(17, &path4(&behind)));
    } else {
        attributes.push(attribute(2, &path4(&wide)));
    }
    if random.random() {
        attributes.push(attribute(4, &random.random::<u32>().to_be_bytes()));
    }
    if random.random() {
        let list: Vec<u8> = (0..4 * random.random_range(1..9)).map(|_| random.random()).collect();
        attributes.push(attribute(8, &list));
    }
    if random.random() {
        let list: Vec<u8> = (0..12 * random.random_range(1..9)).map(|_| random.random()).collect();
        attributes.push(attribute(32, &list));
    }
    let v6 = [random_prefixes(random, true), random_prefixes(random, true)];
    let [announced, withdrawn] = v6.each_ref().map(|list| list.iter().map(String::as_str).collect::<Vec<_>>());
    attributes.push(reach(&announced));
    attributes.push(unreach(&withdrawn));
    let v4 = [random_prefixes(random, false), random_prefixes(random, false)];
    update(&borrowed(&v4[0]), &attributes.concat(), &borrowed(&v4[1]))
}

#[test]
fn updates_read_the_same() {
    let mut random = StdRng::seed_from_u64(11);
    for round in 0..4_000 {
        let narrow = round % 2 == 1;
        let message = random_message(&mut random, narrow);
        let mut events = Vec::new();
        bmp(&monitoring(if narrow { 0x20 } else { 0 }, peer(), &message), &mut events).unwrap();
        let width = if narrow { models::AsnLength::Bits16 } else { models::AsnLength::Bits32 };
        let parsed = parse_bgp_message(&mut Bytes::from(message.clone()), false, &width).unwrap();
        let BgpMessage::Update(parsed) = parsed else { panic!("not an update") };
        let elems = Elementor::bgp_update_to_elems(parsed, 0.0, &peer().address, &Asn::from(1_u32));
        same(&ours(&events), &theirs(elems), &message);
    }
}

/// Routes for their encoders, each of another prefix.
fn random_elems(random: &mut StdRng) -> Vec<BgpElem> {
    let (mut elems, mut seen) = (Vec::new(), HashSet::new());
    for number in 0..200_u32 {
        let v6 = number % 3 == 0;
        let Some(prefix) = random_prefixes(random, v6).pop().filter(|prefix| seen.insert(prefix.clone())) else {
            continue;
        };
        let path: Vec<u32> = (0..random.random_range(1..9)).map(|_| random.random()).collect();
        let large = LargeCommunity::new(random.random(), [random.random(), random.random()]);
        let plain = models::Community::Custom(Asn::new_16bit(random.random_range(0..60_000)), random.random());
        elems.push(BgpElem {
            elem_type: ElemType::ANNOUNCE,
            timestamp: 1.0,
            peer_ip: address(&format!("192.0.2.{}", number % 7)),
            peer_asn: Asn::from(70_000 + number % 7),
            prefix: NetworkPrefix::new(prefix.parse().unwrap(), None),
            // It would write an IPv6 next hop into NEXT_HOP as well, which is malformed (RFC 7606 7.3).
            next_hop: (!v6).then(|| address("192.0.2.1")),
            as_path: Some(AsPath::from_sequence(path)),
            origin: Some(Origin::IGP),
            med: random.random::<bool>().then_some(number),
            communities: Some(vec![MetaCommunity::Plain(plain), MetaCommunity::Large(large)]),
            ..BgpElem::default()
        });
    }
    elems
}

#[test]
fn what_its_encoders_write_is_read_back() {
    let elems = random_elems(&mut StdRng::seed_from_u64(5));
    let (mut table, mut updates) = (MrtRibEncoder::new(), MrtUpdatesEncoder::new());
    // It writes the prefix of an update twice, within the attributes and behind them, where only IPv4 may be.
    let v4: Vec<BgpElem> = elems.iter().filter(|elem| elem.prefix.prefix.addr().is_ipv4()).cloned().collect();
    elems.iter().for_each(|elem| table.process_elem(elem).unwrap());
    v4.iter().for_each(|elem| updates.process_elem(elem));
    let withdrawn = BgpElem { elem_type: ElemType::WITHDRAW, ..v4[0].clone() };
    let read = |dump: &[u8]| {
        let mut routes = ours(&mrt(dump).collect::<Result<Vec<Event>, _>>().unwrap());
        routes.dedup();
        routes
    };
    same(&read(&table.export_bytes().unwrap()), &theirs(elems), &[]);
    same(&read(&updates.export_bytes().unwrap()), &theirs(v4), &[]);
    updates.process_elem(&withdrawn);
    same(&read(&updates.export_bytes().unwrap()), &theirs(vec![withdrawn]), &[]);
}

/// Why it is not what reads our feeds. When this fails, a newer version may do.
#[test]
fn it_takes_a_default_route_for_a_path_identifier() {
    let message = update(&[], &plain(&[1]), &prefixes(&["0.0.0.0/0", "192.0.2.0/24", "198.51.100.0/24"]));
    let mut events = Vec::new();
    bmp(&monitoring(0, peer(), &message), &mut events).unwrap();
    assert_eq!(lines(&events), ["+0.0.0.0/0 +192.0.2.0/24 +198.51.100.0/24 [1]/1 AS1"]);
    let parsed = parse_bgp_message(&mut Bytes::from(message), false, &models::AsnLength::Bits32).unwrap();
    let BgpMessage::Update(parsed) = parsed else { panic!("not an update") };
    assert_eq!(parsed.announced_prefixes, []);
}

/// `GEO_FEED_MRT=rib.bz2 cargo test -p geo --lib feed -- --nocapture`: every route of a real dump, one by one.
#[test]
fn a_real_dump_reads_the_same() {
    let Some(path) = std::env::var_os("GEO_FEED_MRT") else { return };
    let mut dump = mrt(File::open(&path).unwrap()).filter_map(Result::ok);
    let mut bytes = Vec::new();
    // Cut packing ends with an error; what was unpacked counts.
    let _ = input::unpacked(File::open(&path).unwrap()).unwrap().read_to_end(&mut bytes);
    let (mut rest, mut elementor, mut routes) = (bytes.as_slice(), Elementor::new(), 0);
    while let Ok(record) = parse_mrt_record(&mut rest) {
        if let MrtMessage::TableDumpV2Message(models::TableDumpV2Message::PeerIndexTable(_)) = &record.message {
            elementor.set_peer_table(record).unwrap();
            continue;
        }
        for elem in elementor.record_to_elems(record) {
            let (address, asn) = (elem.peer_ip, elem.peer_asn.to_u32());
            let event = dump.next().unwrap();
            let Event::Routes { peer, .. } = &event else { panic!("{event:?}") };
            assert_eq!((peer.address, peer.asn), (address, asn));
            assert_eq!(ours(&[event]), theirs(vec![elem]));
            routes += 1;
        }
    }
    assert_eq!(dump.next(), None);
    println!("{routes} routes are the same");
}
