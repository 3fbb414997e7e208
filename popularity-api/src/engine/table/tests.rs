//! The table beside a trivial model: a list of all downloads ever.

use std::collections::HashMap;

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
    let mut group = group(0, 1, &[(4, "c1/small", 1.0), (4, "c1/large", 1.9)]);
    for (entry, size) in group.batches[0].entries.iter_mut().zip([100, 400]) {
        entry.size = size;
    }
    table.apply(&group);
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
    // All are of one size, so the exponent changes no order, only how the best are looked for.
    for exponent in [0.0, 0.5] {
        for limit in [0, 1, 2, 7, 40, model.len(), 1000] {
            let best = table.best(RegionId(4), exponent, limit, |file| accept(file.name));
            let best: Vec<&str> = best.iter().map(|ranked| ranked.file.name).collect();
            let expected: Vec<&str> = model.iter().take(limit).map(|(name, _)| name.as_str()).collect();
            assert_eq!(best, expected, "at most {limit}, exponent {exponent}");
        }
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
    assert_eq!((table.evicted(), table.turned_away(), table.file_count()), (0, 1001 - 32, 32));
    // What comes back is let in, and brings what it had; one of the lowest goes for it.
    table.apply(&group(2000, 2000, &[(4, "c1/again", 1.0)]));
    assert_eq!(table.score(RegionId(4), "c1/again", 0.0), None);
    table.apply(&group(2001, 2001, &[(4, "c1/again", 1.0)]));
    let again = table.top(RegionId(4), 2).remove(1);
    assert_eq!((again.file.name, table.evicted(), table.file_count()), ("c1/again", 1, 32));
    assert!((table.decay.at(LANDMARK_MS + 2001).left(again.rating).1 - 2.0).abs() < 1e-4);
}

#[test]
fn a_flood_of_files_that_nobody_asks_for_again_changes_no_rating() {
    let mut table = table(2000);
    for n in 0..2000_u64 {
        table.apply(&group(n, n + 1, &[(4, &format!("c1/rated{n}"), 1.0 + (n % 7) as f64)]));
    }
    let before: Vec<(String, f64)> = scores(&table);
    let bytes = table.bytes();
    for n in 0..20_u64 {
        let names: Vec<String> = (0..2000).map(|m| format!("c1/flood{n}-{m}")).collect();
        let flood: Vec<(u16, &str, f64)> = names.iter().map(|name| (4, name.as_str(), 1.0)).collect();
        table.apply(&group(3_600_000 * n, 3000 + n, &flood));
    }
    assert_eq!((scores(&table), table.evicted(), table.turned_away()), (before, 0, 40_000));
    assert!(table.bytes().pairs <= bytes.pairs + 2000 + 64, "a byte a pair for the sketch");
}

#[test]
fn a_full_region_gives_up_its_lowest_and_no_more_than_come() {
    let mut table = table(4000);
    for n in 0..4000_u64 {
        table.apply(&group(0, n + 1, &[(4, &format!("c1/{n}"), 1.0 + n as f64)]));
    }
    for n in 0..200_u64 {
        table.apply(&group(0, 5000 + n, &[(4, &format!("c1/new{n}"), 2000.0)]));
        assert_eq!(table.pairs().collect::<Vec<_>>(), [(RegionId(4), 4000)]);
    }
    assert_eq!(table.evicted(), 200);
    let lowest = (0..4000).filter(|n| table.score(RegionId(4), &format!("c1/{n}"), 0.0).is_none()).max().unwrap();
    assert!(lowest <= 250, "all that went were among the lowest sixteenth: {lowest}");
    // What scores less than the lowest is not let in, however often it comes.
    for n in 0..9 {
        table.apply(&group(0, 9000 + n, &[(4, "c1/0", 0.5)]));
    }
    assert_eq!((table.evicted(), table.score(RegionId(4), "c1/0", 0.0)), (200, None));
}

#[test]
fn a_bound_that_was_lowered_is_kept_from_the_next_group_on() {
    let mut table = table(4000);
    for n in 0..4000_u64 {
        table.apply(&group(0, n + 1, &[(4, &format!("c1/{n}"), 1.0 + n as f64)]));
    }
    table.pairs_max = 100;
    table.apply(&group(0, 9000, &[(4, "c1/3999", 1.0)]));
    assert_eq!(table.pairs().collect::<Vec<_>>(), [(RegionId(4), 100)]);
    assert!(scores(&table).iter().filter(|(name, _)| name[3..].parse::<u32>().unwrap() >= 3800).count() >= 90);
}

#[test]
fn the_best_are_those_of_a_scan_whatever_the_size_of_the_table() {
    let mut table = table(100_000);
    let mut model: Vec<(String, f64)> = (0..40_000_u32).map(|n| (format!("c1/{n}"), spread(n))).collect();
    for (n, names) in (1..).zip(model.chunks(1000)) {
        let entries: Vec<(u16, &str, f64)> = names.iter().map(|(name, count)| (4, name.as_str(), *count)).collect();
        table.apply(&group(0, n, &entries));
    }
    model.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    for limit in [1, 100, 1000] {
        let expected: Vec<&str> = model.iter().take(limit).map(|(name, _)| name.as_str()).collect();
        check_top(&table, 4, limit, &expected.join(" "));
    }
}

#[test]
fn few_that_are_accepted_are_found_behind_thousands_and_nobody_is_asked_about_twice() {
    let mut table = table(100_000);
    let model: Vec<(String, f64)> = (0..20_000_u32).map(|n| (format!("c1/{n}"), spread(n))).collect();
    for (n, names) in (1..).zip(model.chunks(1000)) {
        let entries: Vec<(u16, &str, f64)> = names.iter().map(|(name, count)| (4, name.as_str(), *count)).collect();
        table.apply(&group(0, n, &entries));
    }
    let mut accepted: Vec<&(String, f64)> = model.iter().filter(|(_, count)| *count < 1e5).collect();
    accepted.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut asked = std::collections::HashSet::new();
    let best = table.best(RegionId(4), 0.5, 5, |file| {
        assert!(asked.insert(file.name.to_owned()), "{}", file.name);
        accepted.iter().any(|(name, _)| name == file.name)
    });
    let best: Vec<&str> = best.iter().map(|ranked| ranked.file.name).collect();
    assert_eq!(best, accepted[..5].iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>());
    assert_eq!(asked.len(), 20_000 - accepted.len() + 5, "those before them and they themselves");
}

#[test]
fn of_many_of_one_worth_the_names_that_come_first_are_the_best() {
    let mut table = table(1000);
    let names: Vec<String> = (0..300_u32).map(|n| format!("c1/{:08x}", n.wrapping_mul(0x9e37_79b9))).collect();
    let entries: Vec<(u16, &str, f64)> = names.iter().map(|name| (4, name.as_str(), 1.0)).collect();
    table.apply(&group(0, 1, &entries));
    let mut expected: Vec<&str> = names.iter().map(String::as_str).collect();
    expected.sort_unstable();
    for exponent in [0.0, 0.5] {
        let best = table.best(RegionId(4), exponent, 40, |_| true);
        assert_eq!(best.iter().map(|ranked| ranked.file.name).collect::<Vec<_>>(), expected[..40], "{exponent}");
    }
}

#[test]
fn a_hundred_thousand_of_one_worth_are_as_good_as_each_other() {
    let mut table = table(200_000);
    for n in 0..10_u64 {
        let names: Vec<String> = (0..10_000).map(|m| format!("c1/{n}-{m}")).collect();
        let entries: Vec<(u16, &str, f64)> = names.iter().map(|name| (4, name.as_str(), 1.0)).collect();
        table.apply(&group(0, n + 1, &entries));
    }
    table.apply(&group(0, 99, &[(4, "c1/better", 2.0)]));
    let best = table.best(RegionId(4), 0.5, 5000, |_| true);
    let names: std::collections::HashSet<&str> = best.iter().map(|ranked| ranked.file.name).collect();
    assert_eq!((best[0].file.name, best.len(), names.len()), ("c1/better", 5000, 5000));
}

#[test]
fn time_goes_on_for_years_and_the_ratings_stay_what_they_are() {
    let mut table = table(100);
    // Two files, one twice as popular, through ten years: 87,660 of the short half-lives.
    for day in 0..3650_u64 {
        table.apply(&group(day * 24 * HOUR, day + 1, &[(4, "c1/a", 2.0), (4, "c1/b", 1.0)]));
    }
    table.apply(&group(3650 * 24 * HOUR, 5000, &[(4, "c1/new", 1.0)]));
    check_top(&table, 4, 9, "c1/new c1/a c1/b");
    let pulse = table.decay.at(LANDMARK_MS + 3650 * 24 * HOUR);
    let left: Vec<(f64, f64)> = table.top(RegionId(4), 9).iter().map(|ranked| pulse.left(ranked.rating)).collect();
    // A download a day is 1 / (sqrt(2) - 1) of the long half-life, a day later.
    let steady = 1.0 / (2_f64.sqrt() - 1.0);
    for (left, expected) in left.iter().zip([1.0, 2.0 * steady, steady]) {
        assert!((left.1 / expected - 1.0).abs() < 1e-3, "{left:?} {expected}");
    }
}

#[test]
fn a_clock_that_was_wrong_for_a_while_costs_no_later_order() {
    let mut table = table(100);
    table.apply(&group(0, 1, &[(4, "c1/a", 4.0)]));
    table.apply(&group(50 * 8766 * HOUR, 2, &[(4, "c1/wrong", 1.0)]));
    for hour in 1..400_u64 {
        table.apply(&group(hour * HOUR, 2 + hour, &[(4, "c1/a", 1.0), (4, "c1/b", 4.0)]));
    }
    let top = table.top(RegionId(4), 3);
    let pulse = table.decay.at(LANDMARK_MS + 399 * HOUR);
    let b = top.iter().find(|ranked| ranked.file.name == "c1/b").unwrap();
    assert!((pulse.left(b.rating).0 - 8.0).abs() < 0.01, "four an hour are eight: {:?}", pulse.left(b.rating));
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
                let sums = model[ranked.file.name];
                // What 32 bits keep of each; see `packed.rs`.
                prop_assert!((left.0 / sums.0 - 1.0).abs() < 1e-4 && (left.1 / sums.1 - 1.0).abs() < 1e-4);
            }
        }
    }
}

/// A number for each n, all different, far apart in any order.
fn spread(n: u32) -> f64 {
    1.0 + f64::from(n.wrapping_mul(0x9e37_79b9) >> 8)
}

/// Files and scores of region 4, by name.
fn scores(table: &Table) -> Vec<(String, f64)> {
    let mut scores: Vec<(String, f64)> =
        table.top(RegionId(4), 10_000).iter().map(|ranked| (ranked.file.name.to_owned(), ranked.score)).collect();
    scores.sort_by(|a, b| a.0.cmp(&b.0));
    scores
}

pub(super) fn table(pairs_max: usize) -> Table {
    Table::new(Decay::new(3600, 172_800, 0.25).unwrap(), pairs_max)
}

pub(super) fn group(after_ms: u64, sequence: u64, downloads: &[(u16, &str, f64)]) -> Group {
    let entries = downloads
        .iter()
        .map(|&(region, file, downloads)| Entry { region: RegionId(region), file: file.into(), size: 1000, downloads })
        .collect();
    let batch = Batch { source: "sun4-1-1".to_owned(), mark: Mark { boot: 1, sequence }, entries };
    Group { time_ms: LANDMARK_MS + after_ms, batches: vec![batch] }
}

#[track_caller]
fn check_top(table: &Table, region: u16, limit: usize, expected: &str) {
    let top: Vec<&str> = table.top(RegionId(region), limit).iter().map(|ranked| ranked.file.name).collect();
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
