//! A full table: as many prefixes as a full routing table has, of the lengths that it has, nested as it is.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr};

use geo::RegionId;
use geo::table::{Base, Candidate, Content, Leaf, Leaves, Ranges, Source};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Prefixes in order, and the number of an origin AS or allocation for each.
pub(crate) struct Full {
    pub(crate) v4: Vec<(Ipv4Net, u32)>,
    pub(crate) v6: Vec<(Ipv6Net, u32)>,
}

impl Full {
    /// Grown from the prefixes of a file (`prefix AS` a line, gzip or plain), or from made-up allocations.
    pub(crate) fn of(file: Option<&str>) -> Self {
        let mut random = SmallRng::seed_from_u64(1);
        let known = file.map_or_else(|| allocations_v4(&mut random), read);
        println!("IPv4: {} prefixes {}, grown to {V4}", known.len(), file.map_or("made up", |_| "from the file"));
        Self { v4: grown_v4(known, &mut random), v6: grown_v6(&mut random) }
    }

    /// With as many leaves as the neighbour regions of a big network come to, and a base of ranges a part of which is
    /// shorter than a /24.
    pub(crate) fn content(&self) -> Content {
        let mut leaves = Leaves::default();
        let numbers: Vec<u32> = (0..LEAVES).map(|number| leaves.intern(&leaf(number, Source::Bgp))).collect();
        let number = |origin: u32| numbers[(origin.wrapping_mul(2_654_435_761) >> 16) as usize % numbers.len()];
        Content {
            v4: self.v4.iter().map(|(net, origin)| (*net, number(*origin))).collect(),
            v6: self.v6.iter().map(|(net, origin)| (*net, number(*origin))).collect(),
            leaves: leaves.into_vec(),
            base: base(),
        }
    }
}

pub(crate) fn leaf(number: u32, source: Source) -> Leaf {
    let candidates = (0..1 + number % 4)
        .map(|rank| Candidate { region: RegionId((number / 4 + rank * 7) as u16 % 200), rank: rank as u8 });
    Leaf { candidates: candidates.collect(), denied: Vec::new(), source }
}

/// 400,000 ranges of IPv4, 100,000 of IPv6: neighbours differ, as after nearest regions were merged.
fn base() -> Base {
    let mut random = SmallRng::seed_from_u64(2);
    let mut leaves = Leaves::default();
    let numbers: Vec<u32> = (0..200).map(|at| leaves.intern(&leaf(at * 4, Source::Geoip(Some(*b"RU"))))).collect();
    let pick = |count: usize, random: &mut SmallRng, start: &dyn Fn(&mut SmallRng) -> u128| {
        let mut starts: Vec<u128> = (0..count).map(|_| start(random)).collect();
        starts.sort_unstable();
        starts.dedup();
        starts.into_iter().map(|start| (start, numbers[random.random_range(0..numbers.len())])).collect::<Vec<_>>()
    };
    let v4 = pick(400_000, &mut random, &|random| {
        let cut = if random.random_range(0..5) == 0 { random.random_range(3..8) } else { random.random_range(8..12) };
        u128::from(random.random_range(1 << 24..224_u32 << 24) >> cut << cut)
    });
    let v6 = pick(100_000, &mut random, &|random| {
        let cut = random.random_range(80..100);
        u128::from(random.random_range(0x2000_u32..0x2c10)) << 112 | random.random::<u128>() >> 16 >> cut << cut
    });
    let v4 = v4.into_iter().map(|(start, leaf)| (start as u32, leaf)).collect();
    Base::build(Ranges { v4, v6, leaves: leaves.into_vec() })
}

fn read(path: &str) -> Vec<(Ipv4Net, u32)> {
    let file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let reader: Box<dyn Read> =
        if path.ends_with(".gz") { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) };
    let prefix = |line: String| {
        let (prefix, origin) = line.split_once(char::is_whitespace)?;
        Some((prefix.parse::<Ipv4Net>().ok()?.trunc(), origin.trim().parse().unwrap_or(0)))
    };
    let mut prefixes: Vec<_> = BufReader::new(reader).lines().map_while(Result::ok).filter_map(prefix).collect();
    prefixes.sort_unstable();
    prefixes.dedup_by_key(|(prefix, _)| *prefix);
    prefixes
}

/// 100,000 networks that more specific prefixes will be within.
fn allocations_v4(random: &mut SmallRng) -> Vec<(Ipv4Net, u32)> {
    let mut seen = HashSet::new();
    while seen.len() < 100_000 {
        let len = picked(
            random,
            &[(10, 1), (12, 3), (14, 10), (16, 130), (18, 60), (19, 120), (20, 180), (22, 300), (24, 196)],
        );
        let first = random.random_range(1 << 24..224_u32 << 24);
        if ![10, 127].contains(&(first >> 24)) {
            seen.insert(v4(first, len));
        }
    }
    numbered(seen)
}

/// More specifics of what there is, until there are [`V4`]: a network announces several of one length side by side.
fn grown_v4(known: Vec<(Ipv4Net, u32)>, random: &mut SmallRng) -> Vec<(Ipv4Net, u32)> {
    let mut seen: HashSet<Ipv4Net> = known.iter().map(|(net, _)| *net).collect();
    let mut grown = known;
    while grown.len() < V4 {
        let (around, origin) = grown[random.random_range(0..grown.len())];
        let len = picked(
            random,
            &[(16, 13), (17, 8), (18, 14), (19, 25), (20, 45), (21, 52), (22, 110), (23, 100), (24, 633)],
        );
        if len <= around.prefix_len() {
            continue;
        }
        let subnets = 1_u32 << (len - around.prefix_len());
        let first = random.random_range(0..subnets);
        for subnet in first..subnets.min(first + random.random_range(1..5)) {
            let net = v4(u32::from(around.addr()) + (subnet << (32 - len)), len);
            if grown.len() < V4 && seen.insert(net) {
                grown.push((net, origin));
            }
        }
    }
    grown.sort_unstable();
    grown
}

/// Allocations under the registries' blocks, and what is announced of them: the shares of lengths of a table of 2025.
fn grown_v6(random: &mut SmallRng) -> Vec<(Ipv6Net, u32)> {
    let mut seen = HashSet::new();
    while seen.len() < 60_000 {
        let block = picked(
            random,
            &[
                (0x2001_u32, 15),
                (0x2400, 15),
                (0x2404, 6),
                (0x2600, 8),
                (0x2604, 8),
                (0x2800, 10),
                (0x2804, 18),
                (0x2a00, 10),
                (0x2a02, 6),
                (0x2a0e, 14),
                (0x2c0f, 5),
            ],
        );
        let len = picked(random, &[(29, 12), (32, 64), (36, 4), (40, 5), (48, 15)]);
        // Registries hand out from the left, in steps: allocations are dense where there are any.
        let within = u128::from(random.random_range(0_u32..1 << 14)) << 98;
        let deeper = if len > 32 { random.random::<u128>() >> 32 } else { 0 };
        seen.insert(v6(u128::from(block) << 112 | within | deeper, len));
    }
    let mut grown = numbered(seen.clone());
    let allocations = grown.len();
    while grown.len() < V6 {
        let (around, origin) = grown[random.random_range(0..allocations)];
        let len = picked(
            random,
            &[
                (30, 4),
                (32, 20),
                (33, 18),
                (34, 18),
                (36, 50),
                (38, 15),
                (40, 90),
                (42, 25),
                (44, 105),
                (45, 15),
                (46, 40),
                (47, 30),
                (48, 560),
                (56, 5),
                (64, 5),
            ],
        );
        if len <= around.prefix_len() {
            continue;
        }
        let subnets = 1_u128 << (len - around.prefix_len()).min(16);
        // Low numbers first, a few side by side.
        let first = random.random_range(0..subnets) >> random.random_range(0..8);
        for subnet in first..subnets.min(first + random.random_range(1..8)) {
            let net = v6(u128::from(around.addr()) + (subnet << (128 - len)), len);
            if grown.len() < V6 && seen.insert(net) {
                grown.push((net, origin));
            }
        }
    }
    grown.sort_unstable();
    grown
}

/// In order, each with a number of its own.
fn numbered<N: Ord>(nets: HashSet<N>) -> Vec<(N, u32)> {
    let mut nets: Vec<N> = nets.into_iter().collect();
    nets.sort_unstable();
    nets.into_iter().zip(0..).collect()
}

/// One of them, by weight.
fn picked<T: Copy>(random: &mut SmallRng, weights: &[(T, u32)]) -> T {
    let mut at = random.random_range(0..weights.iter().map(|(_, weight)| weight).sum());
    for (what, weight) in weights {
        if at < *weight {
            return *what;
        }
        at -= weight;
    }
    weights[0].0
}

fn v4(address: u32, len: u8) -> Ipv4Net {
    Ipv4Net::new(address.into(), len).expect("a length").trunc()
}

fn v6(address: u128, len: u8) -> Ipv6Net {
    Ipv6Net::new(address.into(), len).expect("a length").trunc()
}

/// Any addresses: of IPv4 those that hosts have, of IPv6 those that are handed out (2000::/3).
pub(crate) fn anywhere(ipv6: bool) -> Vec<IpAddr> {
    let mut random = SmallRng::seed_from_u64(3);
    let v4 = |random: &mut SmallRng| IpAddr::V4(Ipv4Addr::from(random.random_range(1 << 24..224_u32 << 24)));
    let v6 = |random: &mut SmallRng| IpAddr::V6((1 << 125 | random.random::<u128>() >> 3).into());
    (0..ADDRESSES).map(|_| if ipv6 { v6(&mut random) } else { v4(&mut random) }).collect()
}

/// Any addresses of any of the prefixes.
pub(crate) fn within<N: Copy + Into<IpNet>>(prefixes: &[(N, u32)]) -> Vec<IpAddr> {
    let mut random = SmallRng::seed_from_u64(4);
    let mut inside = || match prefixes[random.random_range(0..prefixes.len())].0.into() {
        IpNet::V4(net) => {
            IpAddr::V4((u32::from(net.addr()) | random.random::<u32>() & u32::from(net.hostmask())).into())
        }
        IpNet::V6(net) => {
            IpAddr::V6((u128::from(net.addr()) | random.random::<u128>() & u128::from(net.hostmask())).into())
        }
    };
    (0..ADDRESSES).map(|_| inside()).collect()
}

/// Prefixes that are not among these: /24 and /48 of any prefixes that are shorter.
pub(crate) fn absent<N: Copy + Into<IpNet>>(prefixes: &[(N, u32)], len: u8, count: usize) -> Vec<IpNet> {
    let there: HashSet<IpNet> = prefixes.iter().map(|(net, _)| (*net).into()).collect();
    let nets = within(prefixes).into_iter().map(|address| IpNet::new(address, len).expect("a length").trunc());
    let absent: HashSet<IpNet> = nets.filter(|net| !there.contains(net)).take(count).collect();
    absent.into_iter().collect()
}

/// A full table of May 2026, as one peer of RIPE's RIS had it.
const V4: usize = 1_042_325;
const V6: usize = 246_175;
const LEAVES: u32 = 2_000;
pub(crate) const ADDRESSES: usize = 1 << 20;
