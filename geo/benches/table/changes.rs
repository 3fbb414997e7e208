//! Microseconds of a change, and what readers notice of it.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use geo::table::{Leaf, Source, Table, Writer};
use ipnet::IpNet;

use crate::data::{Full, absent, leaf, within};
use crate::used;

pub(crate) fn run(full: &Full, writer: &mut Writer) {
    let (a, b) = (leaf(1, Source::Rule), leaf(2, Source::Rule));
    println!("| change, us | median | p99 | max |\n|---|---|---|---|");
    let some = |nets: Vec<IpNet>| -> Vec<IpNet> { nets.into_iter().step_by(31).take(COUNT).collect() };
    let v4 = some(full.v4.iter().map(|(net, _)| (*net).into()).collect());
    let v6 = some(full.v6.iter().map(|(net, _)| (*net).into()).collect());
    row("another leaf, IPv4", &v4, |net| writer.set(*net, &a));
    row("another leaf, IPv6", &v6, |net| writer.set(*net, &a));
    let existing: Vec<(IpNet, Leaf)> =
        v4.iter().chain(&v6).filter_map(|net| Some((*net, writer.get(net)?.clone()))).collect();
    row("withdrawn, IPv4", &v4, |net| writer.remove(*net));
    row("withdrawn, IPv6", &v6, |net| writer.remove(*net));
    row("and back, both", &existing, |(net, leaf)| writer.set(*net, leaf));
    let v4 = |len| absent(&full.v4, len, COUNT);
    let v6 = |len| absent(&full.v6, len, COUNT);
    for (what, nets) in [("/24", v4(24)), ("/32 of IPv4", v4(32)), ("/48", v6(48)), ("/128", v6(128))] {
        row(&format!("a new {what}"), &nets, |net| writer.set(*net, &b));
        row(&format!("and without the {what}"), &nets, |net| writer.remove(*net));
    }
    for text in ["0.0.0.0/0", "4.0.0.0/6", "x.0.0.0/8", "::/0", "2a00::/12", "2a0e::/16"] {
        let nets: Vec<IpNet> = if text.starts_with('x') {
            (1..224)
                .filter_map(|byte| format!("{byte}.0.0.0/8").parse().ok())
                .filter(|net| writer.get(net).is_none())
                .collect()
        } else {
            [text.parse().expect("a prefix")].into_iter().filter(|net| writer.get(net).is_none()).collect()
        };
        let rounds: Vec<IpNet> = nets.iter().copied().cycle().take(200.min(200 * nets.len())).collect();
        let mut removals = Vec::new();
        row(&format!("a new {text}"), &rounds, |net| {
            let done = writer.set(*net, &b);
            removals.push(*net);
            done
        });
        row(&format!("and without {text}"), &nets, |net| writer.remove(*net));
    }
    println!();
    readers(full, writer, &a, &b);
}

/// Sorted times of `change` on each.
fn row<T>(what: &str, on: &[T], mut change: impl FnMut(&T) -> bool) {
    let mut times: Vec<f64> = on
        .iter()
        .map(|item| {
            let began = Instant::now();
            black_box(change(item));
            began.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_unstable_by(f64::total_cmp);
    let Some(max) = times.last() else { return };
    println!("| {what} | {:.1} | {:.1} | {max:.1} |", times[times.len() / 2], times[times.len() * 99 / 100]);
}

/// A reader beside a writer that withdraws prefixes and brings them back, and alone.
fn readers(full: &Full, writer: &mut Writer, a: &Leaf, b: &Leaf) {
    let mut clients = within(&full.v4);
    clients.truncate(clients.len() / 2);
    let table = Arc::clone(writer.table());
    let nets: Vec<IpNet> = full.v4.iter().map(|(net, _)| (*net).into()).collect();
    println!("| reader, ns a lookup in batches of {BATCH} | median | p99 | p99.9 |\n|---|---|---|---|");
    for _ in 0..3 {
        let alone = latencies(&table, &clients);
        let stop = AtomicBool::new(false);
        let (beside, changes) = std::thread::scope(|scope| {
            let changing = scope.spawn(|| change_until(writer, &nets, [a, b], &stop));
            let beside = latencies(&table, &clients);
            stop.store(true, Relaxed);
            (beside, changing.join().expect("it does not panic"))
        });
        print_latencies("alone", alone);
        print_latencies(&format!("beside {changes:.0} changes/s"), beside);
    }
}

/// Ten each millisecond; changes a second.
fn change_until(writer: &mut Writer, nets: &[IpNet], leaves: [&Leaf; 2], stop: &AtomicBool) -> f64 {
    let began = Instant::now();
    let mut done = 0;
    for (round, net) in nets.iter().cycle().step_by(97).enumerate() {
        if stop.load(Relaxed) {
            break;
        }
        writer.remove(*net);
        writer.set(*net, leaves[round % 2]);
        done += 2;
        let due = Duration::from_micros(100 * done);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
    done as f64 / began.elapsed().as_secs_f64()
}

fn latencies(table: &Table, clients: &[IpAddr]) -> Vec<f64> {
    let mut times = Vec::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        for batch in clients.chunks_exact(BATCH) {
            let began = Instant::now();
            batch.iter().for_each(|client| used(table.lookup(*client)));
            times.push(began.elapsed().as_nanos() as f64 / BATCH as f64);
        }
    }
    times
}

fn print_latencies(what: &str, mut times: Vec<f64>) {
    times.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("| {what} | {:.1} | {:.1} | {:.1} |", at(0.5), at(0.99), at(0.999));
}

const COUNT: usize = 10_000;
const BATCH: usize = 64;
