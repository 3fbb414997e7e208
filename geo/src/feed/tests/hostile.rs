//! Seeded mutations of good messages, through the functions that fuzzers call. A failure prints the bytes.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::fuzz;
use super::peer;
use super::wire::{
    attribute, bgp4mp, bmp, monitoring, open, path2, path4, peer_header, peer_index, plain, prefixes, reach, record,
    rib, unreach, up, update,
};

/// Runs `target` with so many mutations of each of the `seeds`, and with every prefix of them.
fn mutate(seeds: &[Vec<u8>], each: usize, target: fn(&[u8])) {
    let mut random = StdRng::seed_from_u64(0x5eed);
    let run = |bytes: &[u8]| {
        let outcome = std::panic::catch_unwind(|| target(bytes));
        assert!(outcome.is_ok(), "broken by {bytes:02x?}");
    };
    for seed in seeds {
        (0..=seed.len()).for_each(|length| run(&seed[..length]));
        for _ in 0..each {
            let mut bytes = seed.clone();
            for _ in 0..random.random_range(1..6) {
                change(&mut bytes, seeds, &mut random);
            }
            fix_length(&mut bytes, &mut random);
            run(&bytes);
        }
    }
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut StdRng) {
    let at = random.random_range(0..=bytes.len());
    match random.random_range(0..7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
        1 if at < bytes.len() => bytes[at] = random.random(),
        2 if at < bytes.len() => bytes[at] = [0, 1, 127, 128, 254, 255][random.random_range(0..6)],
        3 => bytes.truncate(at),
        4 => bytes.insert(at, random.random()),
        5 => drop(bytes.drain(at..(at + random.random_range(0..9)).min(bytes.len()))),
        _ => {
            let other = &seeds[random.random_range(0..seeds.len())];
            let from = random.random_range(0..other.len());
            let part = other[from..].iter().take(random.random_range(0..40)).copied().collect::<Vec<_>>();
            bytes.splice(at..at, part);
        }
    }
}

/// Most mutations would end at BMP's length: three of four messages get a right one.
fn fix_length(bytes: &mut [u8], random: &mut StdRng) {
    let length = u32::try_from(bytes.len()).unwrap();
    if bytes.first() == Some(&3) && random.random_range(0..4) > 0 {
        bytes.iter_mut().skip(1).zip(length.to_be_bytes()).for_each(|(byte, length)| *byte = length);
    }
}

/// BMP messages of every kind.
fn messages() -> Vec<Vec<u8>> {
    let rich = [
        plain(&[64_501, 70_000, 64_502]),
        attribute(4, &[0, 0, 0, 9]),
        attribute(8, &[0, 1, 0, 2, 0, 3, 0, 4]),
        attribute(32, &[1; 24]),
        reach(&["2001:db8::/32", "::/0"]),
        unreach(&["2001:db8:1::/48"]),
    ]
    .concat();
    let narrow = [
        attribute(1, &[0]),
        attribute(2, &path2(&[(2, &[1, 23_456]), (1, &[5, 6]), (3, &[7])])),
        attribute(17, &path4(&[(2, &[70_000]), (1, &[5])])),
        attribute(7, &[0x5b, 0xa0, 1, 2, 3, 4]),
        attribute(3, &[0; 4]),
    ]
    .concat();
    let nets = prefixes(&["0.0.0.0/0", "10.0.0.0/8", "192.0.2.0/25", "198.51.100.7/32"]);
    let offers = open(&[(1, &[0, 1, 0, 1]), (65, &[0, 1, 2, 3]), (69, &[0, 1, 1, 3, 0, 2, 1, 3])]);
    vec![
        monitoring(0, peer(), &update(&nets, &rich, &nets)),
        monitoring(0x20, peer(), &update(&[], &narrow, &nets)),
        monitoring(0, peer(), &update(&[], &[], &[])),
        up(peer(), &offers, &offers),
        bmp(2, &[peer_header(0, 0, peer()), vec![1, 2, 3]].concat()),
        bmp(4, &[0, 1, 0, 3, b'a', b'b', b'c', 0, 2, 0, 1, b'd']),
        bmp(5, &[0, 1, 0, 2, 0, 1, 0, 0, 0, 1, b'x']),
        bmp(1, &peer_header(0, 0, peer())),
    ]
}

#[test]
fn no_message_breaks_the_decoder() {
    mutate(&messages(), 4_000, fuzz::bmp);
}

#[test]
fn no_stream_breaks_the_framing() {
    let all = messages();
    let streams: Vec<Vec<u8>> = (0..all.len()).map(|first| all[first..].concat()).collect();
    mutate(&streams, 300, fuzz::stream);
}

#[test]
fn no_dump_breaks_the_decoder() {
    let message = update(&prefixes(&["10.0.0.0/8"]), &[plain(&[1]), reach(&["2001:db8::/32"])].concat(), &[]);
    let table = [
        peer_index(3),
        rib(2, "10.0.0.0/8", &[(0, None, plain(&[1, 2])), (2, None, plain(&[3]))]),
        rib(8, "10.1.0.0/16", &[(0, Some(1), plain(&[1])), (0, Some(2), plain(&[1]))]),
        rib(4, "2001:db8::/32", &[(1, None, plain(&[9]))]),
    ];
    let updates = [bgp4mp(4, &message), bgp4mp(5, &[0, 6, 0, 1]), bgp4mp(1, &message), record(17, 4, &[0; 40])];
    mutate(&[table.concat(), updates.concat()], 10_000, fuzz::dump);
}

#[test]
fn noise_breaks_nothing() {
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..10_000 {
        let bytes: Vec<u8> = (0..random.random_range(0..200)).map(|_| random.random()).collect();
        fuzz::bmp(&bytes);
        fuzz::stream(&bytes);
        fuzz::dump(&bytes);
    }
}
