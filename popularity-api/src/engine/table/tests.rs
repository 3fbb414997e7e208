//! The table beside a trivial model: a list of all downloads ever.

use proptest::prelude::*;

use super::super::batch::{Batch, Entry, Group};
use super::*;
use crate::engine::decay::LANDMARK_MS;

#[test]
fn the_best_rated_come_first_and_ties_go_by_name() {
    let mut table = table(100);
    table.apply(&group(0, 1, &[(4, "c1/b", 1.0), (4, "c1/a", 1.0), (4, "c1/c", 3.0), (5, "c1/d", 9.0)]));
    check_top(&table, 4, 10, "c1/c c1/a c1/b");
    check_top(&table, 4, 2, "c1/c c1/a");
    check_top(&table, 4, 0, "");
    check_top(&table, 5, 10, "c1/d");
    check_top(&table, 6, 10, "");
}

#[test]
fn size_counts_as_much_as_the_exponent_says() {
    let mut table = table(100);
    table.apply(&group(0, 1, &[(4, "c1/small", 1.0), (4, "c1/large", 1.9)]));
    for (name, size) in [("c1/small", 100), ("c1/large", 400)] {
        table.files.add(name, size);
    }
    let order = |exponent| -> Vec<String> {
        table.best(RegionId(4), exponent, 9, |_| true).iter().map(|ranked| ranked.file.name.to_string()).collect()
    };
    assert_eq!(order(0.0), ["c1/large", "c1/small"]);
    assert_eq!(order(0.5), ["c1/small", "c1/large"]);
    let best = &table.best(RegionId(4), 0.5, 1, |_| true)[0];
    assert_eq!(table.score(RegionId(4), "c1/small", 0.5), Some(best.score));
    assert_eq!(table.score(RegionId(5), "c1/small", 0.5), None);
    assert_eq!(table.score(RegionId(4), "c1/other", 0.5), None);
}

#[test]
fn the_best_of_those_that_are_accepted_are_found_also_behind_many_others() {
    let mut table = table(1000);
    let downloads: Vec<(String, f64)> = (0..200_u32).map(|n| (format!("c1/{n:03}"), 1.0 + f64::from(n % 50))).collect();
    let entries: Vec<(u16, &str, f64)> = downloads.iter().map(|(name, count)| (4, name.as_str(), *count)).collect();
    table.apply(&group(0, 1, &entries));
    let accept = |name: &str| name.as_bytes()[5].is_multiple_of(3) && !name.ends_with("49");
    let mut model: Vec<(String, f64)> = downloads.iter().filter(|(name, _)| accept(name)).cloned().collect();
    model.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    for limit in [0, 1, 2, 7, 40, model.len(), 1000] {
        let best = table.best(RegionId(4), 0.0, limit, |file| accept(&file.name));
        let best: Vec<&str> = best.iter().map(|ranked| &*ranked.file.name).collect();
        let expected: Vec<&str> = model.iter().take(limit).map(|(name, _)| name.as_str()).collect();
        assert_eq!(best, expected, "at most {limit}");
    }
}

#[test]
fn a_batch_is_counted_once() {
    let mut table = table(100);
    check_counted(&mut table, 7, 1, true);
    check_counted(&mut table, 7, 1, false);
    check_counted(&mut table, 7, 3, true);
    check_counted(&mut table, 7, 2, false);
    check_counted(&mut table, 8, 1, true);
    check_counted(&mut table, 7, 4, false);
    check_counted(&mut table, 8, 0, false);
}

#[test]
fn the_lowest_go_when_there_are_too_many() {
    let mut table = table(32);
    table.apply(&group(0, 1, &[(4, "c1/kept", 5.0)]));
    for n in 0..1000_u64 {
        let name = format!("c1/once{n}");
        table.apply(&group(n, n + 2, &[(4, &name, 1.0)]));
        assert!(table.pairs().all(|(_, pairs)| pairs <= 32));
    }
    assert!(table.score(RegionId(4), "c1/kept", 0.0).is_some());
    let (_, pairs) = table.pairs().next().unwrap();
    assert_eq!((table.evicted(), table.file_count()), (1001 - pairs as u64, pairs));
}

proptest! {
    #[test]
    fn it_equals_a_list_of_all_downloads(
        downloads in prop::collection::vec((0..3_u16, 0..20_u8, 0.01..100.0_f64, 0..50 * HOUR), 1..200)
    ) {
        let mut downloads = downloads;
        downloads.sort_by_key(|download| download.3);
        let mut table = table(1000);
        for (sequence, &(region, file, count, time)) in (1..).zip(&downloads) {
            table.apply(&group(time, sequence, &[(region, &format!("c1/{file}"), count)]));
        }
        let now = downloads.iter().map(|download| download.3).max().unwrap_or(0);
        for region in 0..3 {
            let mut model: HashMap<String, (f64, f64)> = HashMap::new();
            for &(_, file, count, time) in downloads.iter().filter(|download| download.0 == region) {
                #[expect(clippy::cast_precision_loss, reason = "test values")]
                let hours = (now - time) as f64 / HOUR as f64;
                let sums = model.entry(format!("c1/{file}")).or_default();
                sums.0 += count * (-hours).exp2();
                sums.1 += count * (-hours / 48.0).exp2();
            }
            let top = table.top(RegionId(region), 1000);
            prop_assert_eq!(top.len(), model.len());
            prop_assert!(top.is_sorted_by(|a, b| a.score >= b.score));
            for ranked in top {
                let left = table.decay.at(LANDMARK_MS + now).left(ranked.rating);
                let sums = model[&*ranked.file.name];
                prop_assert!((left.0 - sums.0).abs() < 1e-9 * sums.0 && (left.1 - sums.1).abs() < 1e-9 * sums.1);
            }
        }
    }
}

fn table(pairs_max: usize) -> Table {
    Table::new(Decay::new(3600, 172_800, 0.25).unwrap(), pairs_max)
}

fn group(after_ms: u64, sequence: u64, downloads: &[(u16, &str, f64)]) -> Group {
    let entries = downloads
        .iter()
        .map(|&(region, file, downloads)| Entry { region: RegionId(region), file: file.into(), size: 1000, downloads })
        .collect();
    let batch = Batch { source: "sun4-1-1".to_owned(), mark: Mark { boot: 1, sequence }, entries };
    Group { time_ms: LANDMARK_MS + after_ms, batches: vec![batch] }
}

#[track_caller]
fn check_top(table: &Table, region: u16, limit: usize, expected: &str) {
    let top: Vec<&str> = table.top(RegionId(region), limit).iter().map(|ranked| &*ranked.file.name).collect();
    assert_eq!(top.join(" "), expected);
}

#[track_caller]
fn check_counted(table: &mut Table, boot: u64, sequence: u64, expected: bool) {
    let rating = |table: &Table| table.top(RegionId(4), 1).first().map(|ranked| ranked.rating);
    let before = rating(table);
    let mut group = group(0, sequence, &[(4, "c1/a", 1.0)]);
    group.batches[0].mark.boot = boot;
    table.apply(&group);
    assert_eq!(rating(table) != before, expected, "boot {boot}, sequence {sequence}");
}

const HOUR: u64 = 3_600_000;
