//! Recovery from every kind of end, on a simulated disk.

use geo::RegionId;

use super::super::batch::{Batch, Entry};
use super::super::decay::{Decay, LANDMARK_MS};
use super::super::folder::simulated::Simulated;
use super::super::table::{Mark, Ranked, SHARDS};
use super::*;

#[test]
fn a_start_finds_what_was_committed_wherever_the_crash_cuts() {
    // Three groups, of which the third is written and its sync does not return.
    for unsynced in 0..=FRAME_BYTES {
        let disk = Arc::new(Simulated::default());
        let (mut journal, ..) = open(&disk);
        journal.commit(&group(1)).unwrap();
        journal.commit(&group(2)).unwrap();
        disk.fail(true, true);
        journal.commit(&group(3)).unwrap_err();
        let found = Arc::new(disk.crash(unsynced));
        let (_, table, recovered) = open(&found);
        let whole = unsynced == FRAME_BYTES;
        assert_eq!(counted(&table), if whole { 3 } else { 2 }, "{unsynced} bytes of the third frame");
        assert_eq!(recovered.torn_bytes, if whole { 0 } else { unsynced as u64 });
        assert_eq!(recovered.damaged_bytes, 0);
    }
}

#[test]
fn a_batch_that_was_refused_and_sent_again_is_counted_once() {
    for (cut_fails, crashed) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut disk = Arc::new(Simulated::default());
        let (mut journal, mut table, _) = open(&disk);
        commit(&mut journal, &mut table, 1).unwrap();
        disk.fail(true, cut_fails);
        commit(&mut journal, &mut table, 2).unwrap_err();
        disk.fail(false, false);
        if crashed {
            disk = Arc::new(disk.crash(usize::MAX));
            (journal, table, _) = open(&disk);
        }
        // The committer asks the table before it commits; a batch that survived is acknowledged as counted before.
        if table.mark("sun4-1-1").sequence < 2 {
            commit(&mut journal, &mut table, 2).unwrap();
        }
        commit(&mut journal, &mut table, 3).unwrap();
        assert_eq!(counted(&table), 3);
        let (_, table, recovered) = open(&Arc::new(disk.crash(0)));
        assert_eq!((counted(&table), recovered.damaged_bytes), (3, 0), "{cut_fails} {crashed}");
    }
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    for room in 0..FRAME_BYTES {
        let disk = Arc::new(Simulated::default());
        let (mut journal, mut table, _) = open(&disk);
        commit(&mut journal, &mut table, 1).unwrap();
        disk.fill_up(Some(disk.bytes() + room));
        for _ in 0..3 {
            commit(&mut journal, &mut table, 2).unwrap_err();
        }
        disk.fill_up(None);
        commit(&mut journal, &mut table, 2).unwrap();
        let (_, table, recovered) = open(&Arc::new(disk.crash(0)));
        assert_eq!((counted(&table), recovered.damaged_bytes, recovered.torn_bytes), (2, 0, 0), "{room}");
    }
}

#[test]
fn snapshots_and_the_binlog_after_them_give_the_same_table() {
    let disk = Arc::new(Simulated::default());
    let (mut journal, mut table, _) = open(&disk);
    for sequence in 1..=20 {
        commit(&mut journal, &mut table, sequence).unwrap();
        if sequence % 5 == 0 {
            take_snapshot(&mut journal, &table);
        }
        let (_, found, recovered) = open(&Arc::new(disk.crash(0)));
        assert_eq!(snapshot::write(&found, 0, 0), snapshot::write(&table, 0, 0), "after {sequence}");
        assert_eq!(recovered.groups, sequence % 5);
    }
    let frame = |sequence: usize| (sequence * FRAME_BYTES) as u64;
    let expected = [binlog::segment_name(frame(15)), snapshot::name(frame(15)), snapshot::name(frame(20))];
    assert_eq!(disk.list().unwrap(), expected, "two snapshots, the binlog since the older one");
}

#[test]
fn what_comes_while_a_snapshot_is_written_is_counted_once() {
    // A group after every so many shards, of files all over the table; many of them are in sections before and after.
    for every in [1, 7, 100, 255] {
        let disk = Arc::new(Simulated::default());
        let (mut journal, mut table, _) = open(&disk);
        let mut sequence = 0;
        let mut count = |journal: &mut Journal, table: &mut Table| {
            sequence += 1;
            let mut group = group(sequence);
            group.time_ms += sequence * 1000;
            let file = |n: u64| format!("c1/{}", (sequence + n) % 90);
            let entry = |n| Entry { region: RegionId(4), file: file(n).into(), size: 1000, downloads: 1.0 };
            group.batches[0].entries = (0..20).map(entry).collect();
            journal.commit(&group).unwrap();
            table.apply(&group);
            table.reached = journal.end();
        };
        (0..20).for_each(|_| count(&mut journal, &mut table));
        let offset = journal.begin_snapshot();
        let header = snapshot::header(&table, offset, 0);
        let mut sections = Vec::new();
        for shard in 0..SHARDS {
            sections.push(snapshot::section(&table, shard, offset, table.reached));
            if shard % every == 0 {
                count(&mut journal, &mut table);
            }
        }
        let mut bytes = Vec::new();
        snapshot::write_to(&mut bytes, &header, offset, |shard| sections[shard].clone()).unwrap();
        disk.replace(&snapshot::name(offset), &bytes).unwrap();
        journal.end_snapshot(offset, &Needs::default()).unwrap();
        (0..3).for_each(|_| count(&mut journal, &mut table));
        let (_, found, recovered) = open(&Arc::new(disk.crash(0)));
        assert_eq!(recovered.snapshot, Some(offset));
        assert_eq!(found.mark("sun4-1-1"), table.mark("sun4-1-1"));
        let tops = |table: &Table| -> Vec<(String, f64, f64)> {
            let own = |ranked: &Ranked<'_>| (ranked.file.name.to_owned(), ranked.rating.hour, ranked.rating.days);
            table.top(RegionId(4), 100).iter().map(own).collect()
        };
        assert_eq!(tops(&found), tops(&table), "a group after every {every} shards");
    }
}

#[test]
fn a_snapshot_that_was_not_finished_leaves_the_one_before() {
    let disk = Arc::new(Simulated::default());
    let (mut journal, mut table, _) = open(&disk);
    commit(&mut journal, &mut table, 1).unwrap();
    take_snapshot(&mut journal, &table);
    commit(&mut journal, &mut table, 2).unwrap();
    journal.begin_snapshot();
    commit(&mut journal, &mut table, 3).unwrap();
    let unfinished = format!("{}{UNFINISHED}", snapshot::name(2));
    disk.replace(&unfinished, b"half").unwrap();
    let (_, table, recovered) = open(&disk);
    assert_eq!((counted(&table), recovered.groups, recovered.damaged_bytes), (3, 2, 0));
    assert!(!disk.list().unwrap().contains(&unfinished));
}

#[test]
fn a_flipped_bit_costs_its_group_and_is_reported() {
    let disk = Arc::new(Simulated::default());
    let (mut journal, mut table, _) = open(&disk);
    for sequence in 1..=3 {
        commit(&mut journal, &mut table, sequence).unwrap();
    }
    disk.tamper(&binlog::segment_name(0), |bytes| bytes[SEGMENT_HEADER_BYTES + FRAME_BYTES + 30] ^= 4);
    for _ in 0..2 {
        let (_, table, recovered) = open(&disk);
        assert_eq!((counted(&table), recovered.damaged_bytes, recovered.groups), (2, FRAME_BYTES as u64, 2));
    }
    // It goes on from there, and keeps what is damaged aside.
    let (mut journal, mut table, _) = open(&disk);
    for sequence in 4..=5 {
        commit(&mut journal, &mut table, sequence).unwrap();
        take_snapshot(&mut journal, &table);
    }
    let (_, table, recovered) = open(&disk);
    assert_eq!((counted(&table), recovered.damaged_bytes), (4, 0));
    assert!(disk.list().unwrap().contains(&format!("{}.damaged", binlog::segment_name(0))));
}

#[test]
fn a_segment_that_is_gone_is_reported() {
    let disk = Arc::new(Simulated::default());
    let (mut journal, mut table, _) = open(&disk);
    for sequence in 1..=3 {
        commit(&mut journal, &mut table, sequence).unwrap();
        journal.begin_snapshot();
    }
    disk.remove(&binlog::segment_name(FRAME_BYTES as u64)).unwrap();
    let (_, table, recovered) = open(&disk);
    assert_eq!((counted(&table), recovered.damaged_bytes), (2, FRAME_BYTES as u64));
}

#[test]
fn a_damaged_snapshot_gives_way_to_the_one_before() {
    let disk = Arc::new(Simulated::default());
    let (mut journal, mut table, _) = open(&disk);
    for sequence in 1..=3 {
        commit(&mut journal, &mut table, sequence).unwrap();
        if sequence < 3 {
            take_snapshot(&mut journal, &table);
        }
    }
    let (first, second) = (snapshot::name(FRAME_BYTES as u64), snapshot::name(2 * FRAME_BYTES as u64));
    disk.tamper(&second, |bytes| bytes[20] ^= 1);
    let (_, table, recovered) = open(&disk);
    assert_eq!((counted(&table), recovered.damaged_snapshots, recovered.damaged_bytes), (3, 1, 0));
    // With no good one left it says which, and starts with the binlog once they are removed.
    disk.tamper(&first, |bytes| bytes.truncate(9));
    let error = Journal::open(Arc::clone(&disk) as Arc<dyn Folder>, empty).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{second}, {first}: damaged")), "{error}");
    for snapshot in [first, second] {
        disk.remove(&snapshot).unwrap();
    }
    let (_, table, recovered) = open(&disk);
    assert_eq!((counted(&table), recovered.damaged_bytes), (2, FRAME_BYTES as u64));
}

#[test]
fn a_damaged_first_snapshot_gives_way_to_the_whole_binlog() {
    let disk = Arc::new(Simulated::default());
    let (mut journal, mut table, _) = open(&disk);
    for sequence in 1..=3 {
        commit(&mut journal, &mut table, sequence).unwrap();
        if sequence == 2 {
            take_snapshot(&mut journal, &table);
        }
    }
    disk.tamper(&snapshot::name(2 * FRAME_BYTES as u64), |bytes| bytes[20] ^= 1);
    let (mut journal, mut table, recovered) = open(&disk);
    let expected = Recovered { groups: 3, damaged_snapshots: 1, ..Recovered::default() };
    assert_eq!((counted(&table), recovered), (3, expected));
    // Two good snapshots later nothing of it is left.
    for sequence in 4..=5 {
        commit(&mut journal, &mut table, sequence).unwrap();
        take_snapshot(&mut journal, &table);
    }
    let (_, table, recovered) = open(&Arc::new(disk.crash(0)));
    assert_eq!((counted(&table), recovered.damaged_snapshots, recovered.groups), (5, 0, 0));
    assert!(!disk.list().unwrap().contains(&snapshot::name(2 * FRAME_BYTES as u64)));
}

fn take_snapshot(journal: &mut Journal, table: &Table) {
    let offset = journal.begin_snapshot();
    let bytes = snapshot::write(table, offset, 0);
    journal.folder.replace(&snapshot::name(offset), &bytes).unwrap();
    journal.end_snapshot(offset, &Needs::default()).unwrap();
}

fn commit(journal: &mut Journal, table: &mut Table, sequence: u64) -> io::Result<()> {
    journal.commit(&group(sequence))?;
    table.apply(&group(sequence));
    Ok(())
}

fn open(disk: &Arc<Simulated>) -> (Journal, Table, Recovered) {
    Journal::open(Arc::clone(disk) as Arc<dyn Folder>, empty).unwrap()
}

fn empty() -> Table {
    Table::new(Decay::new(3600, 172_800, 0.25).unwrap(), 100)
}

/// One download of one file; all groups have frames of the same length.
fn group(sequence: u64) -> Group {
    let entry = Entry { region: RegionId(4), file: "c1/a".into(), size: 1000, downloads: 1.0 };
    let mark = Mark { boot: 1, sequence };
    Group { time_ms: LANDMARK_MS, batches: vec![Batch { source: "sun4-1-1".to_owned(), mark, entries: vec![entry] }] }
}

/// How many downloads the table has of it.
fn counted(table: &Table) -> u64 {
    let rating = table.top(RegionId(4), 1)[0].rating;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a handful")]
    let counted = table.decay().at(LANDMARK_MS).left(rating).0.round() as u64;
    counted
}

const FRAME_BYTES: usize = 12 + 12 + (2 + 8 + 16 + 4) + (2 + 8 + 8 + 2 + 4);
