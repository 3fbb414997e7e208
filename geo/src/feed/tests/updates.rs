//! UPDATE messages: which routes they change, and what their mistakes mean.

use super::super::{Event, bmp};
use super::wire::{attribute, bgp, monitoring, path2, path4, plain, prefixes, reach, unreach, update};
use super::{lines, peer};

/// What a message of a 4-byte session says.
fn check(message: &[u8], expected: &[&str]) {
    check_flags(0, message, expected);
}

fn check_flags(flags: u8, message: &[u8], expected: &[&str]) {
    let mut events = Vec::new();
    bmp(&monitoring(flags, peer(), message), &mut events).unwrap();
    assert_eq!(lines(&events), expected);
}

/// What is wrong with it, and at which byte: the UPDATE's body starts at 67.
fn check_error(message: &[u8], expected: &str) {
    let mut events = Vec::new();
    let error = bmp(&monitoring(0, peer(), message), &mut events).unwrap_err();
    assert_eq!(error.to_string(), format!("peer 192.0.2.9 (AS64501): {expected}"));
    assert!(error.in_step());
    assert_eq!(events, []);
}

/// An announcement of 10.0.0.0/8 with these attributes.
fn announce(attributes: &[&[u8]]) -> Vec<u8> {
    update(&[], &attributes.concat(), &prefixes(&["10.0.0.0/8"]))
}

#[test]
fn an_update_announces_and_withdraws_both_families() {
    let path = plain(&[64_501, 64_502]);
    check(&announce(&[&path]), &["+10.0.0.0/8 [64501, 64502]/2 AS64502"]);
    check(&update(&prefixes(&["10.0.0.0/8", "0.0.0.0/0"]), &[], &[]), &["-10.0.0.0/8 -0.0.0.0/0"]);
    check(&update(&[], &unreach(&["2001:db8::/32", "::/0"]), &[]), &["-2001:db8::/32 -::/0"]);
    let all = [path, reach(&["2001:db8::/32"]), unreach(&["2001:db8:1::/48"])].concat();
    let all = update(&prefixes(&["192.0.2.0/24"]), &all, &prefixes(&["198.51.100.7/32"]));
    check(&all, &["+198.51.100.7/32 +2001:db8::/32 -192.0.2.0/24 -2001:db8:1::/48 [64501, 64502]/2 AS64502"]);
    // IPv4 with a next hop of IPv6 (RFC 8950).
    let mixed = attribute(14, &[&[0, 1, 1, 16][..], &[0x20; 16], &[0], &prefixes(&["10.0.0.0/8"])].concat());
    check(&update(&[], &[plain(&[1]), mixed].concat(), &[]), &["+10.0.0.0/8 [1]/1 AS1"]);
    // Two messages in one.
    let two = [announce(&[&plain(&[1])]), update(&[], &[], &[])].concat();
    check(&two, &["+10.0.0.0/8 [1]/1 AS1", "end PrePolicy V4"]);
}

#[test]
fn prefixes_beside_a_default_route_stay_what_they_are() {
    let list = ["0.0.0.0/0", "192.0.2.0/24", "198.51.100.0/24", "0.0.0.0/1", "10.0.0.0/31", "255.255.255.255/32"];
    let words = list.map(|prefix| format!("+{prefix}")).join(" ");
    check(&update(&[], &plain(&[1]), &prefixes(&list)), &[&format!("{words} [1]/1 AS1")]);
    // Bits behind the length mean nothing (RFC 4271 4.3).
    check(&update(&[], &plain(&[1]), &[9, 10, 255]), &["+10.128.0.0/9 [1]/1 AS1"]);
}

#[test]
fn the_end_of_a_rib_is_an_empty_update() {
    check(&update(&[], &[], &[]), &["end PrePolicy V4"]);
    check(&update(&[], &unreach(&[]), &[]), &["end PrePolicy V6"]);
    // VPNv4: nobody here waits for its end.
    check(&update(&[], &attribute(15, &[0, 1, 128]), &[]), &["ignored family"]);
    // Attributes without a prefix are not an end.
    check(&update(&[], &plain(&[1]), &[]), &[]);
    check(&update(&[], &[plain(&[1]), unreach(&[])].concat(), &[]), &[]);
}

#[test]
fn paths_are_flattened_and_counted_as_the_choice_of_routes_does() {
    let path = |segments: &[(u8, &[u32])], expected: &str| {
        let message = announce(&[&attribute(1, &[2]), &attribute(2, &path4(segments)), &attribute(3, &[0; 4])]);
        check(&message, &[&format!("+10.0.0.0/8 {expected}")]);
    };
    path(&[], "[]/0");
    path(&[(2, &[1, 2, 2, 4_200_000_000])], "[1, 2, 2, 4200000000]/4 AS4200000000");
    path(&[(2, &[1, 2]), (1, &[3, 4, 5])], "[1, 2, 3, 4, 5]/3");
    path(&[(1, &[3, 4]), (2, &[5])], "[3, 4, 5]/2 AS5");
    path(&[(3, &[65_001, 65_002]), (4, &[65_003]), (2, &[1])], "[1]/1 AS1");
    path(&[(2, &[1]), (2, &[2])], "[1, 2]/2 AS2");
}

#[test]
fn two_byte_paths_take_wide_numbers_from_as4_path() {
    const TRANS: u16 = 23_456;
    let path = |narrow: &[(u8, &[u16])], more: &[u8], expected: &str| {
        let parts = [&attribute(1, &[0])[..], &attribute(2, &path2(narrow)), &attribute(3, &[0; 4]), more];
        check_flags(0x20, &announce(&parts), &[&format!("+10.0.0.0/8 {expected}")]);
    };
    let wide = |segments: &[(u8, &[u32])]| attribute(17, &path4(segments));
    path(&[(2, &[1, 2])], &[], "[1, 2]/2 AS2");
    path(&[(2, &[1, TRANS, TRANS])], &wide(&[(2, &[70_000, 80_000])]), "[1, 70000, 80000]/3 AS80000");
    // Longer than AS_PATH: ignored (RFC 6793 4.2.3).
    path(&[(2, &[1, 2])], &wide(&[(2, &[7, 8, 9])]), "[1, 2]/2 AS2");
    // Sets count as one on both sides; confederations as none.
    path(&[(2, &[1, TRANS]), (1, &[5, 6])], &wide(&[(2, &[70_000]), (1, &[90_000, 6])]), "[1, 70000, 90000, 6]/3");
    path(&[(3, &[65_001]), (2, &[1, TRANS])], &wide(&[(2, &[70_000])]), "[1, 70000]/2 AS70000");
    // A malformed one is as if it were not there (RFC 6793 6).
    path(&[(2, &[1, TRANS])], &attribute(17, &[2, 9, 0, 0]), "[1, 23456]/2 AS23456");
    // An old speaker aggregated on the way (RFC 6793 4.2.3).
    let aggregated = |asn: u16| {
        let old = [&asn.to_be_bytes()[..], &[192, 0, 2, 1]].concat();
        [wide(&[(2, &[70_000])]), attribute(7, &old), attribute(18, &[0; 8])].concat()
    };
    path(&[(2, &[1, TRANS])], &aggregated(TRANS), "[1, 70000]/2 AS70000");
    path(&[(2, &[1, TRANS])], &aggregated(77), "[1, 23456]/2 AS23456");
    // A 4-byte session has no use for it (RFC 6793 4.1).
    check(&announce(&[&plain(&[1, 2]), &wide(&[(2, &[9])])]), &["+10.0.0.0/8 [1, 2]/2 AS2"]);
}

#[test]
fn communities_come_sorted_and_once() {
    let standard = attribute(8, &[0xfb, 0xf4, 0, 20, 0, 1, 0, 2, 0xfb, 0xf4, 0, 20]);
    let large = attribute(32, &[0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
    let med = attribute(4, &[0, 0, 1, 0]);
    check(
        &announce(&[&plain(&[7]), &large, &standard, &med]),
        &["+10.0.0.0/8 [7]/1 AS7 med=256 1:2 64500:20 65536:1:2"],
    );
    let many: Vec<u8> = (0..4_000_u32).flat_map(u32::to_be_bytes).collect();
    let mut events = Vec::new();
    bmp(&monitoring(0, peer(), &announce(&[&plain(&[7]), &attribute(8, &many)])), &mut events).unwrap();
    let [Event::Routes { attributes: Some(attributes), .. }] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(attributes.communities.len(), super::super::attributes::COMMUNITIES_MAX);
}

#[test]
fn malformed_attributes_withdraw_their_routes() {
    // The attributes' values, at their offsets in the whole message: header 6 + 42, BGP 19, lengths 2 + 2.
    let withdrawn = |attributes: &[&[u8]], expected: &str| {
        check(&announce(attributes), &[&format!("malformed at {expected}"), "-10.0.0.0/8"]);
    };
    let [origin, path, next_hop] = [attribute(1, &[0]), attribute(2, &path4(&[(2, &[1])])), attribute(3, &[0; 4])];
    let good = plain(&[1]);
    withdrawn(&[&attribute(1, &[3]), &path, &next_hop], "74: ORIGIN is not 0, 1 or 2");
    withdrawn(&[&attribute(1, &[]), &path, &next_hop], "74: ORIGIN is not 0, 1 or 2");
    withdrawn(&[&path, &next_hop], "71: ORIGIN is missing");
    withdrawn(&[&origin, &next_hop], "71: AS_PATH is missing");
    withdrawn(&[&origin, &path], "71: NEXT_HOP is missing");
    withdrawn(&[&origin, &attribute(3, &[0; 5]), &path], "78: NEXT_HOP is not four bytes");
    withdrawn(&[&attribute(4, &[0; 3]), &good], "74: MULTI_EXIT_DISC is not four bytes");
    withdrawn(&[&attribute(8, &[0; 6]), &good], "74: COMMUNITIES is not a multiple of four bytes");
    withdrawn(&[&attribute(8, &[]), &good], "74: COMMUNITIES is not a multiple of four bytes");
    withdrawn(&[&attribute(32, &[0; 16]), &good], "74: LARGE_COMMUNITY is not a multiple of twelve bytes");
    let path = |value: &[u8]| [attribute(2, value), origin.clone(), next_hop.clone()].concat();
    withdrawn(&[&path(&[9, 1, 0, 0, 0, 1])], "74: AS_PATH: a segment's type is unknown");
    withdrawn(&[&path(&[2, 0])], "74: AS_PATH: a segment is empty");
    withdrawn(&[&path(&[2, 1, 0, 0, 0, 1, 2])], "81: AS_PATH: a segment's header is cut");
    withdrawn(&[&path(&[2, 2, 0, 0, 0, 1])], "76: AS_PATH: a segment is longer than the attribute");
    let long: Vec<u8> = (0..5).flat_map(|_| path4(&[(2, &[1; 205])])).collect();
    withdrawn(&[&path(&long)], "75: AS_PATH has more than 1024 AS numbers");
    withdrawn(&[&good, &[0x40, 99, 200, 1]], "94: an attribute is longer than what is left");
    withdrawn(&[&good, &[0x40]], "92: an attribute's header is cut");
}

#[test]
fn malformed_attributes_withdraw_ipv6_too_and_what_no_choice_needs_is_discarded() {
    let attributes = [attribute(1, &[7]), reach(&["2001:db8::/32"])].concat();
    check(&update(&[], &attributes, &[]), &["malformed at 74: ORIGIN is not 0, 1 or 2", "-2001:db8::/32"]);
    // Broken LOCAL_PREF, ATOMIC_AGGREGATE, AGGREGATOR, and one nobody knows (RFC 7606 7.5 to 7.7).
    let broken = [attribute(5, &[1]), attribute(6, &[1]), attribute(7, &[1]), attribute(200, &[1; 300])].concat();
    check(&announce(&[&broken, &plain(&[1])]), &["+10.0.0.0/8 [1]/1 AS1"]);
    // The second of a type is discarded (RFC 7606 3 g).
    let twice = [attribute(4, &[0, 0, 0, 1]), attribute(4, &[0, 0, 0, 2])].concat();
    check(&announce(&[&plain(&[1]), &twice]), &["+10.0.0.0/8 [1]/1 AS1 med=1"]);
}

#[test]
fn what_leaves_open_which_routes_are_meant_is_an_error() {
    check_error(&update(&[33, 10, 0, 0, 0, 0], &[], &[]), "byte 69: a prefix has more bits than an address");
    check_error(&update(&[24, 10, 0], &[], &[]), "byte 70: a prefix is longer than what is left");
    let far: Vec<u8> = [&[0, 2, 1, 129][..], &[0; 17]].concat();
    check_error(&update(&[], &attribute(15, &far), &[]), "byte 77: a prefix has more bits than an address");
    check_error(&update(&[], &attribute(14, &[0, 2]), &[]), "byte 76: MP_REACH_NLRI is cut");
    let lying = attribute(14, &[0, 2, 1, 16, 0]);
    check_error(&update(&[], &lying, &[]), "byte 78: MP_REACH_NLRI: the next hop is longer than the attribute");
    // The attributes are cut before anything that has prefixes (RFC 7606 3 j); with one, they are withdrawn.
    let cut = [&attribute(1, &[0])[..], &[0x40, 2, 200], &unreach(&["2001:db8::/32"])].concat();
    check_error(&update(&[], &cut, &[]), "byte 78: an attribute is longer than what is left");
    check_error(&update(&[], &[0x40], &[]), "byte 72: an attribute's header is cut");
    check(
        &update(&[], &[&reach(&["2001:db8::/32"])[..], &[0x40, 2, 200]].concat(), &[]),
        &["malformed at 103: an attribute is longer than what is left", "-2001:db8::/32"],
    );
    let twice = [unreach(&[]), unreach(&["::/0"])].concat();
    check_error(&update(&[], &twice, &[]), "byte 77: MP_REACH_NLRI or MP_UNREACH_NLRI is there twice");
    check_error(&bgp(2, &[]), "byte 67: UPDATE: the length of what is withdrawn is cut");
    check_error(&bgp(2, &[0, 9]), "byte 69: UPDATE: what is withdrawn is longer than the message");
    check_error(&bgp(2, &[0, 0, 0, 9]), "byte 71: UPDATE: the attributes are longer than the message");
    let mut lying = bgp(2, &[0; 4]);
    lying[17] += 1;
    check_error(&lying, "byte 67: a BGP message is longer than what carries it");
    lying[17] = 18;
    check_error(&lying, "byte 48: a BGP message is shorter than its header");
    check_error(&bgp(2, &[0; 4])[..18], "byte 66: a BGP message's header is cut");
}
