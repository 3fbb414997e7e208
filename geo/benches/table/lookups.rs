//! Nanoseconds of a lookup, contestants in turn.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::time::Instant;

use geo::table::Table;
use ip_network_table_deps_treebitmap::IpLookupTable;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use crate::data::{ADDRESSES, Full, anywhere, within};
use crate::used;

pub(crate) fn run(full: &Full, table: &Table) {
    let mut tries = (PrefixMap::<Ipv4Net, u32>::new(), PrefixMap::<Ipv6Net, u32>::new());
    let mut bitmaps = (IpLookupTable::<Ipv4Addr, u32>::new(), IpLookupTable::<Ipv6Addr, u32>::new());
    let times: Vec<f64> = [
        timed(|| full.v4.iter().for_each(|(net, value)| used(tries.0.insert(*net, *value)))),
        timed(|| full.v6.iter().for_each(|(net, value)| used(tries.1.insert(*net, *value)))),
        timed(|| {
            full.v4.iter().for_each(|(net, value)| used(bitmaps.0.insert(net.addr(), net.prefix_len().into(), *value)));
        }),
        timed(|| {
            full.v6.iter().for_each(|(net, value)| used(bitmaps.1.insert(net.addr(), net.prefix_len().into(), *value)));
        }),
    ]
    .to_vec();
    println!("| others | build, ms, IPv4 + IPv6 |\n|---|---|");
    println!("| prefix-trie | {:.0} + {:.0} |", times[0], times[1]);
    println!("| treebitmap | {:.0} + {:.0} |\n", times[2], times[3]);
    println!(
        "| lookup, ns, median | ours | ours and its leaf | prefix-trie | treebitmap | ours / prefix-trie | and its leaf |"
    );
    println!("|---|---|---|---|---|---|---|");
    let (v4, v6) = (within(&full.v4), within(&full.v6));
    for (what, addresses) in [
        ("IPv4, any", anywhere(false)),
        ("IPv4, of prefixes", v4),
        ("IPv6, any", anywhere(true)),
        ("IPv6, of prefixes", v6),
    ] {
        same(&addresses, table, &tries);
        compare(what, &addresses, table, &tries, &bitmaps);
    }
    println!();
}

type Tries = (PrefixMap<Ipv4Net, u32>, PrefixMap<Ipv6Net, u32>);
type Bitmaps = (IpLookupTable<Ipv4Addr, u32>, IpLookupTable<Ipv6Addr, u32>);

fn compare(what: &str, addresses: &[IpAddr], table: &Table, tries: &Tries, bitmaps: &Bitmaps) {
    let v4: Vec<Ipv4Addr> =
        addresses.iter().filter_map(|address| if let IpAddr::V4(v4) = address { Some(*v4) } else { None }).collect();
    let v6: Vec<Ipv6Addr> =
        addresses.iter().filter_map(|address| if let IpAddr::V6(v6) = address { Some(*v6) } else { None }).collect();
    let nets4: Vec<Ipv4Net> = v4.iter().map(|address| Ipv4Net::from(*address)).collect();
    let nets6: Vec<Ipv6Net> = v6.iter().map(|address| Ipv6Net::from(*address)).collect();
    let contestants: [Box<dyn Fn(Range<usize>)>; 4] = [
        Box::new(|part| addresses[part].iter().for_each(|client| used(table.lookup(*client)))),
        Box::new(|part| {
            for client in &addresses[part] {
                black_box(table.lookup(*client).map(|found| table.leaf(found).candidates.len()));
            }
        }),
        Box::new(|part| match nets4.get(part.clone()) {
            Some(nets) => nets.iter().for_each(|net| used(tries.0.get_lpm(net))),
            None => nets6[part].iter().for_each(|net| used(tries.1.get_lpm(net))),
        }),
        Box::new(|part| match v4.get(part.clone()) {
            Some(v4) => v4.iter().for_each(|address| used(bitmaps.0.longest_match(*address))),
            None => v6[part].iter().for_each(|address| used(bitmaps.1.longest_match(*address))),
        }),
    ];
    // Parts so small that most are not interrupted, on addresses that no contestant saw just before.
    let mut times = [const { Vec::new() }; 4];
    for round in 0..ADDRESSES / PART {
        for (number, times) in times.iter_mut().enumerate() {
            let contestant = &contestants[number];
            let begin = (round * 7 + OFFSETS[number]) % (ADDRESSES / PART) * PART;
            times.push(timed(|| contestant(begin..begin + PART)) * 1e6 / PART as f64);
        }
    }
    let [ours, leaf, trie, bitmap] = times.map(|mut times| {
        times.sort_unstable_by(f64::total_cmp);
        times[times.len() / 2]
    });
    println!(
        "| {what} | {ours:.1} | {leaf:.1} | {trie:.1} | {bitmap:.1} | 1 / {:.1} | 1 / {:.1} |",
        trie / ours,
        trie / leaf
    );
}

/// What is faster must not be so because it answers something else.
fn same(addresses: &[IpAddr], table: &Table, tries: &Tries) {
    for client in addresses {
        let ours = table.lookup(*client).and_then(|found| table.prefix(*client, found));
        let theirs = match client {
            IpAddr::V4(client) => tries.0.get_lpm(&Ipv4Net::from(*client)).map(|(net, _)| IpNet::V4(net)),
            IpAddr::V6(client) => tries.1.get_lpm(&Ipv6Net::from(*client)).map(|(net, _)| IpNet::V6(net)),
        };
        assert_eq!(ours, theirs, "{client}");
    }
}

/// Milliseconds.
fn timed(mut run: impl FnMut()) -> f64 {
    let began = Instant::now();
    run();
    began.elapsed().as_secs_f64() * 1e3
}

/// Addresses that are looked up in a row.
const PART: usize = 1 << 10;
/// Which part is each contestant's first.
const OFFSETS: [usize; 4] = [0, 256, 512, 768];
