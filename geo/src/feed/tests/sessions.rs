//! BMP messages about routers and sessions, views, and the stream that carries them.

use bytes::BytesMut;
use tokio_util::codec::Decoder as _;

use super::super::{Decoder, Event, Framing, PeerId, View, bmp as decode};
use super::wire::{bmp, monitoring, open, peer_header, plain, prefixes, reach, unreach, up, update};
use super::{address, lines, peer, view};

fn check(message: &[u8], expected: &[&str]) {
    let mut events = Vec::new();
    decode(message, &mut events).unwrap();
    assert_eq!(lines(&events), expected);
}

fn check_error(message: &[u8], expected: &str) {
    let mut events = Vec::new();
    let error = decode(message, &mut events).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.in_step()), (expected, true));
}

/// An information TLV.
fn text(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[0, kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

#[test]
fn routers_introduce_themselves_and_leave() {
    check(
        &bmp(4, &[text(1, b"Vendor 1.0"), text(2, b"edge4")].concat()),
        &[r#"hello Some("edge4") Some("Vendor 1.0")"#],
    );
    check(&bmp(4, &[]), &["hello None None"]);
    check(&bmp(4, &text(2, b"a\n\xffb\x1b[0m")), &["hello Some(\"a\u{fffd}\u{fffd}b\u{fffd}[0m\") None"]);
    let long = format!("hello Some({:?}) None", "x".repeat(256));
    check(&bmp(4, &text(2, &[b'x'; 5_000])), &[&long]);
    check(&bmp(5, &text(1, &[0, 3])), &["bye: a second connection to the same station"]);
    check(&bmp(5, &[text(1, &[0, 0]), text(0, b"upgrade")].concat()), &["bye: closed by the operator: upgrade"]);
    check(&bmp(5, &[]), &["bye: no reason given"]);
    check_error(&bmp(4, &[0, 2, 0, 9, b'x']), "byte 10: an information TLV is longer than its message");
}

#[test]
fn what_nobody_needs_is_ignored() {
    check(&bmp(1, &peer_header(0, 0, peer())), &["ignored statistics"]);
    check(&bmp(6, &peer_header(0, 0, peer())), &["ignored mirroring"]);
    check(&bmp(77, &[1, 2, 3]), &["ignored kind"]);
    check(&bmp(0, &[peer_header(9, 0, peer()), update(&[], &[], &[])].concat()), &["ignored kind"]);
    let keepalive = [&[0xff; 16][..], &[0, 19, 4]].concat();
    check(&monitoring(0, peer(), &keepalive), &["ignored kind"]);
}

#[test]
fn sessions_come_and_go() {
    check(&up(peer(), &open(&[]), &open(&[])), &["up 192.0.2.9 (AS64501) PrePolicy 192.0.2.9 []"]);
    let wide = PeerId { address: address("2001:db8::9"), distinguisher: 0x1_0000_0002, asn: 4_200_000_000 };
    let down = |kind, peer, reason: u8| bmp(2, &[peer_header(kind, 0, peer), vec![reason, 1, 2, 3]].concat());
    check(&down(1, wide, 4), &["down 2001:db8::9 (AS4200000000, 0x100000002) PrePolicy: the peer closed the session"]);
    let own = PeerId { address: address("0.0.0.0"), distinguisher: 0, asn: 64_500 };
    check(&down(3, own, 6), &["down 0.0.0.0 (AS64500) LocRib: the router's own table is no longer monitored"]);
    // Down it is, whatever is cut off.
    check(
        &bmp(2, &peer_header(0, 0, peer())),
        &["down 192.0.2.9 (AS64501) PrePolicy: for a reason that is not known here"],
    );
    check_error(&bmp(2, &peer_header(0, 0, peer())[..41]), "byte 40: a per-peer header is cut");
    check_error(
        &up(peer(), &open(&[]), &update(&[], &[], &[])),
        "peer 192.0.2.9 (AS64501): byte 99: a Peer Up has something else where an OPEN belongs",
    );
}

#[test]
fn views_are_told_apart() {
    let check = |kind, flags, expected| {
        let mut events = Vec::new();
        let message = bmp(0, &[peer_header(kind, flags, peer()), update(&[], &[], &[])].concat());
        decode(&message, &mut events).unwrap();
        assert_eq!(events.iter().map(view).collect::<Vec<_>>(), [Some(expected)]);
    };
    check(0, 0, View::PrePolicy);
    check(1, 0x40, View::PostPolicy);
    check(2, 0x10, View::AdjOut);
    check(0, 0x50, View::AdjOut);
    check(3, 0, View::LocRib);
    // F, "filtered" (RFC 9069 4.2), where other peers have V.
    check(3, 0x80, View::LocRib);
}

#[test]
fn routes_with_path_identifiers_are_ignored_and_not_misread() {
    let both = [0, 1, 1, 3, 0, 2, 1, 3];
    let [offers, takes_v4] = [open(&[(65, &[0; 4]), (69, &both)]), open(&[(69, &[0, 1, 1, 1])])];
    let mut decoder = Decoder::default();
    let mut check = |message: &[u8], expected: &[&str]| {
        let mut events = Vec::new();
        decoder.decode(message, &mut events).unwrap();
        assert_eq!(lines(&events), expected);
    };
    let up_line = |families: &str| format!("up 192.0.2.9 (AS64501) PrePolicy 192.0.2.9 {families}");
    let v4 = update(&[], &plain(&[1]), &[0, 0, 0, 1, 8, 10]);
    let v4 = monitoring(0, peer(), &v4);
    let v6 = monitoring(0, peer(), &update(&[], &[plain(&[1]), reach(&["2001:db8::/32"])].concat(), &[]));
    // The router receives what the peer sends: v4 only.
    check(&up(peer(), &takes_v4, &offers), &[&up_line("[V4]")]);
    check(&v4, &["ignored add_path"]);
    check(&v6, &["+2001:db8::/32 [1]/1 AS1"]);
    check(&monitoring(0, peer(), &update(&[], &[], &[])), &["end PrePolicy V4"]);
    // The router offers to send, the peer does not: nothing for what comes in.
    check(&up(peer(), &offers, &takes_v4), &[&up_line("[]")]);
    check(&monitoring(0, peer(), &update(&prefixes(&["10.0.0.0/8"]), &[], &[])), &["-10.0.0.0/8"]);
    check(&monitoring(0x10, peer(), &update(&[0, 0, 0, 1, 8, 10], &[], &[])), &["ignored add_path"]);
    // Both families.
    check(&up(peer(), &offers, &offers), &[&up_line("[V4, V6]")]);
    check(&v6, &["ignored add_path"]);
    check(&monitoring(0, peer(), &update(&[], &unreach(&[]), &[])), &["end PrePolicy V6"]);
    // Another peer is not this one; and the session's end ends its terms.
    let other = PeerId { address: address("192.0.2.10"), ..peer() };
    check(&monitoring(0, other, &update(&prefixes(&["10.0.0.0/8"]), &[], &[])), &["-10.0.0.0/8"]);
    check(
        &bmp(2, &[peer_header(0, 0, peer()), vec![5]].concat()),
        &["down 192.0.2.9 (AS64501) PrePolicy: the peer is no longer monitored"],
    );
    check(&monitoring(0, peer(), &update(&prefixes(&["10.0.0.0/8"]), &[], &[])), &["-10.0.0.0/8"]);
}

#[test]
fn the_routers_own_as_in_front_of_a_path_is_none_of_the_neighbours() {
    // An AS of four bytes is in a capability, whatever the OPEN's two bytes say.
    let own = 4_200_000_000_u32;
    let opens = [open(&[(65, &own.to_be_bytes())]), open(&[])];
    let check = |flags, neighbour: u32, path: &[u32], expected: &str| {
        let (mut decoder, mut events) = (Decoder::default(), Vec::new());
        let peer = PeerId { asn: neighbour, ..peer() };
        decoder.decode(&up(peer, &opens[0], &opens[1]), &mut events).unwrap();
        let message = update(&[], &plain(path), &prefixes(&["10.0.0.0/8"]));
        decoder.decode(&monitoring(flags, peer, &message), &mut events).unwrap();
        assert_eq!(lines(&events)[1], format!("+10.0.0.0/8 {expected}"));
    };
    check(0, 64_501, &[own, 64_501, 7], "[64501, 7]/2 AS7");
    check(0x40, 64_501, &[own, 64_501, 7], "[64501, 7]/2 AS7");
    check(0, 64_501, &[own], "[]/0");
    check(0, 64_501, &[64_501, own], "[64501, 4200000000]/2 AS4200000000");
    // In what a router sends, it belongs there.
    check(0x10, 64_501, &[own, 7], "[4200000000, 7]/2 AS7");
}

#[test]
fn sessions_within_the_routers_own_as_are_left_out() {
    let of = |asn: u32| open(&[(65, &asn.to_be_bytes())]);
    let (own, inner) = (of(64_500), PeerId { asn: 64_500, ..peer() });
    let mut decoder = Decoder::default();
    let mut check = |message: &[u8], expected: &[&str]| {
        let mut events = Vec::new();
        decoder.decode(message, &mut events).unwrap();
        assert_eq!(lines(&events), expected);
    };
    let routes = update(&[], &plain(&[7]), &prefixes(&["10.0.0.0/8"]));
    let left_out = "down 192.0.2.9 (AS64500) PrePolicy: sessions within the router's own AS are left out";
    check(&up(inner, &own, &own), &[left_out, "ignored internal"]);
    for flags in [0, 0x40, 0x10] {
        check(&monitoring(flags, inner, &routes), &["ignored internal"]);
    }
    // Its own table is none of its sessions.
    let own_table = bmp(0, &[peer_header(3, 0, inner), routes.clone()].concat());
    check(
        &bmp(3, &[&peer_header(3, 0, inner), &[0; 20][..], &own, &own].concat()),
        &["up 192.0.2.9 (AS64500) LocRib 192.0.2.9 []"],
    );
    check(&own_table, &["+10.0.0.0/8 [7]/1 AS7"]);
    // The next session of the same address may be another AS's, even if the router tells the OPENs the wrong way round.
    for opens in [[&own, &of(64_501)], [&of(64_501), &own]] {
        check(&up(peer(), opens[0], opens[1]), &["up 192.0.2.9 (AS64501) PrePolicy 192.0.2.9 []"]);
        check(&monitoring(0, peer(), &routes), &["+10.0.0.0/8 [7]/1 AS7"]);
    }
}

#[test]
fn more_peers_than_a_router_can_have_are_refused() {
    let (mut decoder, mut events) = (Decoder::default(), Vec::new());
    let peer = |number: usize| PeerId { distinguisher: number as u64, ..peer() };
    let most = super::super::bmp::PEERS_MAX;
    for number in 0..most {
        decoder.decode(&up(peer(number), &open(&[]), &open(&[])), &mut events).unwrap();
    }
    let error = decoder.decode(&up(peer(most), &open(&[]), &open(&[])), &mut events).unwrap_err();
    assert_eq!(error.what, "more peers are up than 16384");
    // Those that are up may come up again, and who leaves makes room.
    decoder.decode(&up(peer(0), &open(&[]), &open(&[])), &mut events).unwrap();
    decoder.decode(&bmp(2, &[peer_header(0, 0, peer(1)), vec![1]].concat()), &mut events).unwrap();
    decoder.decode(&up(peer(most), &open(&[]), &open(&[])), &mut events).unwrap();
}

#[test]
fn extended_parameters_of_an_open_are_read_too() {
    // RFC 9072: 255, 255, length 2, then parameters with lengths of two bytes.
    let capability = [69, 4, 0, 1, 1, 3];
    let body = [&[4, 0, 1, 0, 90, 1, 1, 1, 1, 255, 255, 0, 9, 2, 0, 6][..], &capability].concat();
    let open = super::wire::bgp(1, &body);
    check(&up(peer(), &open, &open), &["up 192.0.2.9 (AS64501) PrePolicy 192.0.2.9 [V4]"]);
    // A router accepted it: what cannot be read in it is no error.
    let cut = super::wire::bgp(1, &body[..15]);
    check(&up(peer(), &open, &cut), &["up 192.0.2.9 (AS64501) PrePolicy 192.0.2.9 []"]);
}

#[test]
fn a_stream_is_cut_into_messages_however_it_arrives() {
    let messages = [bmp(4, b""), bmp(1, &[7; 3_000]), bmp(5, b"")];
    let stream = messages.concat();
    for piece in [1, 2, 5, 6, 7, 1_000, stream.len()] {
        let mut framing = Framing::default();
        let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
        for bytes in stream.chunks(piece) {
            buffer.extend_from_slice(bytes);
            while let Some(message) = framing.decode(&mut buffer).unwrap() {
                got.push(message.to_vec());
            }
        }
        assert_eq!(got, messages);
        assert_eq!(framing.decode_eof(&mut buffer), Ok(None));
    }
}

#[test]
fn a_stream_out_of_step_is_refused_at_its_offset() {
    let check = |stream: &[u8], expected: &str| {
        let mut framing = Framing::new(1_000);
        let mut buffer = BytesMut::from(stream);
        let error = loop {
            match framing.decode_eof(&mut buffer) {
                Ok(Some(_)) => {}
                Ok(None) => panic!("no error"),
                Err(error) => break error,
            }
        };
        assert_eq!((error.to_string().as_str(), error.in_step()), (expected, false));
    };
    let hello = bmp(4, b"");
    check(&[&hello[..], &[2]].concat(), "byte 6: BMP version 2, not 3");
    check(&[3, 0, 0, 0, 5, 4], "byte 0: a BMP message of 5 bytes; 6 to 1000 can be");
    check(&[3, 0, 0, 3, 233, 0], "byte 0: a BMP message of 1001 bytes; 6 to 1000 can be");
    check(&[3, 255, 255, 255, 255, 0], "byte 0: a BMP message of 4294967295 bytes; 6 to 1000 can be");
    check(&[&hello[..], &hello[..3]].concat(), "byte 6: the stream ends within a message");
}

#[test]
fn room_is_made_for_what_came_and_not_for_what_was_promised() {
    let mut framing = Framing::new(64 * 1_024 * 1_024);
    let mut buffer = BytesMut::from(&[3, 3, 0, 0, 0, 0][..]);
    assert_eq!(framing.decode(&mut buffer), Ok(None));
    assert!(buffer.capacity() <= 64 * 1_024, "{}", buffer.capacity());
}

#[test]
fn a_message_must_be_as_long_as_it_says() {
    check_error(&[&bmp(4, b"")[..], &[0]].concat(), "byte 0: a BMP message is not as long as it says");
    check_error(&[3, 0, 0, 0], "byte 1: a BMP message's header is cut");
    check_error(&[], "byte 0: a BMP message's header is cut");
    check_error(&[1, 0, 0, 0, 6, 4], "byte 0: the version of BMP is not 3");
}

#[test]
fn what_was_told_before_a_fault_stays() {
    let two = [update(&prefixes(&["10.0.0.0/8"]), &[], &[]), update(&[99], &[], &[])].concat();
    let mut events: Vec<Event> = Vec::new();
    let error = decode(&monitoring(0, peer(), &two), &mut events).unwrap_err();
    assert_eq!((lines(&events), error.peer), (vec!["-10.0.0.0/8".to_owned()], Some(peer())));
}
