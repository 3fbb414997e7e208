//! What a spool keeps, in which order, and what a bad disk does to it.

use geo::RegionId;

use super::*;
use crate::engine::folder::simulated::{Renamed, Simulated};

#[test]
fn a_batch_is_written_like_this() {
    let folder = Arc::new(Simulated::default());
    open(&folder, 7).push(&downloads_of("c1/a", 1), 5);
    assert_eq!(folder.list().unwrap(), ["00000000000000000007-00000000000000000001.batch"]);
    let file = folder.read(&name(7, 1)).unwrap();
    assert_eq!(&file[..12], b"SUNSPL02\x01\0\0\0");
    assert_eq!(file[12..16], u32::try_from(file.len() - 28).unwrap().to_le_bytes());
    assert_eq!(file[16..24], 5_u64.to_le_bytes());
    assert_eq!(file[24..28], crc32c::crc32c(&[&file[8..24], &file[28..]].concat()).to_le_bytes());
    let json = Encoding::Zstd.unpack(&file[28..], 1000, |_| true).unwrap();
    assert_eq!(json, br#"[{"region":4,"file":"c1/a","size":9,"downloads":1.0,"bytes":9}]"#);
}

#[test]
fn a_batch_keeps_its_number_until_it_is_done_also_across_restarts() {
    let folder = Arc::new(Simulated::default());
    let mut spool = open(&folder, 7);
    (0..3).for_each(|_| spool.push(&downloads_of("c1/a", 1), 5));
    assert_eq!(marks(&mut spool, 1), [(7, 1)]);
    assert_eq!(first(&mut spool), Some((7, 2)));
    drop(spool);

    // The clock went back.
    let mut spool = open(&folder, 3);
    spool.push(&downloads_of("c1/b", 2), 5);
    assert_eq!(marks(&mut spool, 9), [(7, 2), (7, 3), (8, 1)]);
    assert_eq!(spool.first(905), None);
    assert_eq!(folder.list().unwrap(), [] as [&str; 0]);
}

#[test]
fn a_batch_tells_its_age_also_after_a_restart_and_one_of_an_earlier_release_that_of_its_life() {
    let folder = Arc::new(Simulated::default());
    let mut spool = open(&folder, 7_000_000);
    spool.push(&downloads_of("c1/a", 1), 8000);
    let age = |spool: &mut Spool, now_ms| spool.first(now_ms).map(|batch| batch.age_ms);
    assert_eq!((age(&mut spool, 8900), age(&mut spool, 7000)), (Some(900), Some(0)));
    assert_eq!(age(&mut open(&folder, 9_000_000), 9000), Some(1000));
    folder.tamper(&name(7_000_000, 1), |file: &mut Vec<u8>| {
        let (head, payload) = (file[8..16].to_vec(), file[28..].to_vec());
        let checksum = crc32c::crc32c(&[&head[..], &payload].concat()).to_le_bytes();
        *file = [&b"SUNSPL01"[..], &head, &checksum, &payload].concat();
    });
    assert_eq!(age(&mut open(&folder, 9_000_000), 9000), Some(2000));
}

#[test]
fn a_batch_that_is_too_long_becomes_two_until_it_is_one_entry() {
    let folder = Arc::new(Simulated::default());
    for in_ram in [false, true] {
        let folder = (!in_ram).then(|| Arc::clone(&folder) as Arc<dyn Folder>);
        let mut spool = Spool::open(folder, "sun4-2-1".into(), 7, 1 << 30).unwrap();
        let mut downloads = downloads_of("c1/a", 5);
        downloads.iter_mut().enumerate().for_each(|(n, one)| one.file = format!("c1/{n}"));
        spool.push(&downloads, 5);
        spool.push(&downloads_of("c1/b", 1), 6);
        let whole = spool.first(905).unwrap();
        assert_eq!(spool.split(&whole), Split::Done);
        assert_eq!(spool.split(&DownloadsBatch { sequence: 9, ..whole }), Split::Done, "not the first one");
        let mut found = Vec::new();
        while let Some(batch) = spool.first(905) {
            found.push((batch.sequence, batch.downloads.len(), batch.age_ms));
            let single = batch.downloads.len() == 1;
            assert_eq!(single, spool.split(&batch) == Split::Single, "{batch:?}");
            if single {
                spool.done(batch.boot, batch.sequence);
            } else {
                found.pop();
            }
        }
        assert_eq!(found, [(1, 1, 900), (2, 1, 899), (3, 1, 900), (4, 1, 900), (5, 1, 900), (6, 1, 900)], "{in_ram}");
    }
    assert_eq!(folder.list().unwrap(), [] as [&str; 0]);
}

#[test]
fn a_batch_that_a_full_disk_does_not_split_stays_whole() {
    let folder = Arc::new(Simulated::default());
    let mut spool = open(&folder, 7);
    spool.push(&downloads_of("c1/a", 4), 5);
    let whole = spool.first(5).unwrap();
    folder.fill_up(Some(folder.bytes() + 30));
    assert_eq!(spool.split(&whole), Split::Failed);
    assert_eq!(spool.first(5), Some(whole));
}

#[test]
fn a_folder_that_can_be_used_later_is_used_then_and_what_is_in_it_goes_first() {
    for (boot, expected) in [(9, [(7, 1), (9, 1), (9, 2)]), (5, [(7, 1), (5, 1), (8, 1)])] {
        let folder = Arc::new(Simulated::default());
        open(&folder, 7).push(&downloads_of("c1/a", 1), 5);
        let mut spool = Spool::open(None, "sun4-2-1".into(), boot, 0).unwrap();
        spool.push(&downloads_of("c1/b", 1), 5);
        assert!(!spool.is_on_disk());
        spool.attach(folder.clone(), 1 << 30).unwrap();
        assert!(spool.is_on_disk() && !spool.first_is_own());
        spool.push(&downloads_of("c1/c", 1), 5);
        assert_eq!((spool.figures().disk_bytes, spool.figures().ram_bytes), (8192, 4096));
        assert_eq!(marks(&mut spool, 9), expected, "{boot}");
    }
}

#[test]
fn a_crash_loses_nothing_that_was_pushed() {
    for unsynced in [0, 1, 10, 25, 1000] {
        let folder = Arc::new(Simulated::default());
        let mut spool = open(&folder, 7);
        (0..3).for_each(|_| spool.push(&downloads_of("c1/a", 1), 5));
        spool.done(7, 1);
        let mut spool = open(&Arc::new(folder.crash(unsynced)), 8);
        assert_eq!(marks(&mut spool, 9), [(7, 2), (7, 3)], "{unsynced}");
    }
}

#[test]
fn a_torn_file_and_a_changed_one_are_damaged_and_the_others_count() {
    let whole = file(&downloads_of("c1/b", 1), 1, 5).unwrap();
    for cut in 0..whole.len() {
        check_damaged(|file| file.truncate(cut), &format!("cut at {cut}"));
    }
    for at in 0..whole.len() {
        check_damaged(|file| file[at] ^= 4, &format!("changed at {at}"));
    }
    check_damaged(|file| file.push(0), "longer");
}

#[track_caller]
fn check_damaged(tamper: impl Fn(&mut Vec<u8>), what: &str) {
    for while_running in [false, true] {
        let folder = Arc::new(Simulated::default());
        let mut spool = open(&folder, 7);
        for file in ["c1/a", "c1/b", "c1/c"] {
            spool.push(&downloads_of(file, 1), 5);
        }
        folder.tamper(&name(7, 2), &tamper);
        let mut spool = if while_running { spool } else { open(&folder, 8) };
        assert_eq!(marks(&mut spool, 9), [(7, 1), (7, 3)], "{what}, while running: {while_running}");
        assert_eq!(spool.figures().damaged, 1, "{what}");
        assert_eq!(folder.list().unwrap(), [] as [&str; 0], "{what}");
    }
}

#[test]
fn what_cannot_be_read_for_a_moment_stays() {
    let folder = Arc::new(Simulated::default());
    let mut spool = open(&folder, 7);
    (0..3).for_each(|_| spool.push(&downloads_of("c1/a", 2), 5));
    folder.fail_reads(true);
    assert_eq!((spool.first(905), spool.figures().batches, spool.figures().failures), (None, 3, 1));
    drop(spool);
    let mut spool = open(&folder, 8);
    assert_eq!((spool.first(905), spool.figures().batches, spool.figures().disk_bytes), (None, 3, 3 * 4096));
    folder.fail_reads(false);
    // Somebody removed it, which is the way around one that can never be read.
    folder.remove(&name(7, 2)).unwrap();
    assert_eq!(marks(&mut spool, 9), [(7, 1), (7, 3)]);
    assert_eq!((spool.figures().damaged, spool.figures().dropped), (1, 0));
}

#[test]
fn a_full_disk_is_gone_around_through_ram() {
    let folder = Arc::new(Simulated::default());
    let mut spool = open(&folder, 7);
    spool.push(&downloads_of("c1/a", 1), 5);
    folder.fill_up(Some(folder.bytes() + 30));
    spool.push(&downloads_of("c1/b", 1), 5);
    let figures = spool.figures();
    assert_eq!((figures.batches, figures.disk_bytes, figures.ram_bytes, figures.failures), (2, 4096, 4096, 1));
    folder.fill_up(None);
    spool.push(&downloads_of("c1/c", 1), 5);
    assert_eq!(spool.figures().disk_bytes, 8192);

    // What waited in RAM ends with the process, and nothing else does.
    let mut after = open(&Arc::new(folder.crash(0)), 8);
    assert_eq!(marks(&mut after, 9), [(7, 1), (7, 3)]);
    assert_eq!(marks(&mut spool, 9), [(7, 1), (7, 2), (7, 3)]);
    assert_eq!(spool.figures().dropped, 0);
}

#[test]
fn a_full_spool_drops_the_oldest_and_says_so() {
    let folder = Arc::new(Simulated::default());
    let mut spool = Spool::open(Some(folder.clone()), "sun4-2-1".into(), 7, 3 * 4096).unwrap();
    for entries in [1, 20, 300, 4, 5] {
        spool.push(&downloads_of("c1/a", entries), 5);
    }
    let figures = spool.figures();
    assert_eq!((figures.batches, figures.disk_bytes, figures.dropped), (3, 3 * 4096, 21));
    assert_eq!(folder.list().unwrap().len(), 3);
    drop(spool);
    // The bound was lowered in between.
    let mut spool = Spool::open(Some(folder.clone()), "sun4-2-1".into(), 8, 4096).unwrap();
    assert_eq!(spool.figures().dropped, 304);
    assert_eq!(marks(&mut spool, 9), [(7, 5)]);
}

#[test]
fn a_batch_larger_than_the_whole_spool_is_dropped_and_never_written() {
    let folder = Arc::new(Simulated::default());
    let mut spool = Spool::open(Some(folder.clone()), "sun4-2-1".into(), 7, 100).unwrap();
    spool.push(&downloads_of("c1/a", 3), 5);
    assert_eq!((spool.figures().batches, spool.figures().dropped), (0, 3));
    assert_eq!(spool.first(905), None);
    assert_eq!(folder.list().unwrap(), [] as [&str; 0]);
}

#[test]
fn without_a_folder_everything_waits_in_ram_within_its_bound() {
    let mut spool = Spool::open(None, "sun4-2-1".into(), 7, 0).unwrap();
    let many = usize::try_from(RAM_BYTES_MAX / 4096).unwrap() + 3;
    for _ in 0..many {
        spool.push(&downloads_of("c1/a", 1), 5);
    }
    let figures = spool.figures();
    assert_eq!((figures.ram_bytes, figures.disk_bytes, figures.dropped, figures.failures), (RAM_BYTES_MAX, 0, 3, 0));
    assert_eq!(first(&mut spool), Some((7, 4)));
}

#[test]
fn only_the_first_batch_can_be_done() {
    let mut spool = open(&Arc::new(Simulated::default()), 7);
    (0..2).for_each(|_| spool.push(&downloads_of("c1/a", 1), 5));
    spool.done(7, 2);
    assert_eq!(first(&mut spool), Some((7, 1)), "the one that was sent may have been dropped meanwhile");
    spool.done(7, 1);
    assert_eq!(first(&mut spool), Some((7, 2)));
}

#[test]
fn batches_of_an_earlier_clock_get_a_later_boot() {
    let folder = Arc::new(Simulated::default());
    let mut spool = open(&folder, 7);
    for file in ["c1/a", "c1/b"] {
        spool.push(&downloads_of(file, 1), 5);
    }
    spool.renumber(1000);
    spool.push(&downloads_of("c1/c", 1), 5);
    let mut after = open(&Arc::new(folder.crash(0)), 8);
    after.push(&downloads_of("c1/d", 1), 5);
    assert_eq!(marks(&mut after, 9), [(1001, 1), (1001, 2), (1001, 3), (1002, 1)]);
    assert_eq!(marks(&mut spool, 9), [(1001, 1), (1001, 2), (1001, 3)]);
}

#[test]
fn what_could_not_be_renamed_stays_of_this_life_and_is_renamed_the_next_time() {
    for how in [Renamed::Not, Renamed::Already] {
        let folder = Arc::new(Simulated::default());
        let mut spool = open(&folder, 7);
        for file in ["c1/a", "c1/b"] {
            spool.push(&downloads_of(file, 1), 5);
        }
        folder.fail_renames(Some(how));
        spool.renumber(1000);
        let boot = if matches!(how, Renamed::Not) { 7 } else { 1001 };
        assert_eq!((first(&mut spool), spool.first_is_own()), (Some((boot, 1)), true), "{how:?}");
        folder.fail_renames(None);
        spool.renumber(1000);
        assert_eq!(marks(&mut spool, 9), [(1002, 1), (1002, 2)], "{how:?}");
        assert_eq!((spool.figures().damaged, spool.figures().failures), (0, 2), "{how:?}");
        assert_eq!(folder.list().unwrap(), [] as [&str; 0]);
    }
    let folder = Arc::new(Simulated::default());
    open(&folder, 7).push(&downloads_of("c1/a", 1), 5);
    assert!(!open(&folder, 8).first_is_own(), "of an earlier life");
}

#[test]
fn what_is_no_batch_is_left_alone_and_what_is_unfinished_goes() {
    let folder = Arc::new(Simulated::default());
    for name in ["lock", "7-1.batch", "00000000000000000007-00000000000000000001.batch.unfinished", "note.batch"] {
        folder.replace(name, b"x").unwrap();
    }
    let mut spool = open(&folder, 7);
    assert_eq!((spool.first(905), spool.figures()), (None, Figures::default()));
    assert_eq!(folder.list().unwrap(), ["7-1.batch", "lock", "note.batch"]);
}

proptest::proptest! {
    /// Against a list that forgets nothing: whatever happens, what was pushed is sent in order, once done never again, and
    /// a number names one batch only, as long as each start's boot is above the last one's: the reporter writes that down.
    #[test]
    fn pushes_sends_and_crashes_in_any_order_lose_and_double_nothing(steps in proptest::collection::vec(0_u8..6, 1..60)) {
        let mut folder = Arc::new(Simulated::default());
        let mut spool = open(&folder, 50);
        let mut model: VecDeque<String> = VecDeque::new();
        let mut sent: std::collections::HashMap<(u64, u64), String> = std::collections::HashMap::new();
        for (at, step) in steps.into_iter().enumerate() {
            match step {
                0..=2 => {
                    let file = format!("c1/{at}");
                    spool.push(&downloads_of(&file, 1), 5);
                    model.push_back(file);
                }
                3 => {
                    let batch = spool.first(905);
                    proptest::prop_assert_eq!(batch.as_ref().map(|one| &one.downloads[0].file), model.front());
                    if let Some(one) = batch {
                        let known = sent.entry((one.boot, one.sequence)).or_insert_with(|| one.downloads[0].file.clone());
                        proptest::prop_assert_eq!(&*known, &one.downloads[0].file);
                    }
                }
                4 => {
                    if let Some(mark) = first(&mut spool) {
                        spool.done(mark.0, mark.1);
                    }
                    model.pop_front();
                }
                _ => {
                    folder = Arc::new(folder.crash(at % 40));
                    // The clock jumps back and forth.
                    let clock = (at as u64 * 37) % 100;
                    spool = open(&folder, clock.max(spool.boot() + 1));
                }
            }
        }
    }
}

fn open(folder: &Arc<Simulated>, boot: u64) -> Spool {
    Spool::open(Some(Arc::<Simulated>::clone(folder)), "sun4-2-1".into(), boot, 1 << 30).unwrap()
}

fn first(spool: &mut Spool) -> Option<(u64, u64)> {
    spool.first(905).map(|batch| (batch.boot, batch.sequence))
}

/// Sends up to `most` batches.
fn marks(spool: &mut Spool, most: usize) -> Vec<(u64, u64)> {
    std::iter::from_fn(|| {
        let mark = first(spool)?;
        spool.done(mark.0, mark.1);
        Some(mark)
    })
    .take(most)
    .collect()
}

fn downloads_of(file: &str, entries: usize) -> Vec<Download> {
    let download = Download { region: RegionId(4), file: file.to_owned(), size: 9, downloads: 1.0, bytes: 9 };
    vec![download; entries]
}
