//! What a server goes by: rules in RAM and on disk, what they make of fills and answers.

use std::sync::Arc;

use http::HeaderMap;
use popularity_api::wire::{PurgeMode, PurgeWhat};

use super::*;
use crate::fill::answer::Answer;
use crate::fill::plan::Plan;
use crate::purge::Stamp;

#[test]
fn what_was_followed_is_gone_by_after_a_restart() {
    let place = tempfile::tempdir().unwrap();
    let purges = open(&place);
    assert_eq!((purges.position(), purges.mark()), (0, Mark::default()));
    purges.follow(&answer(&[(7, "c1/a", None), (8, "c1/b", Some(5)), (9, "c1/c", Some(4))])).unwrap();
    purges.directly(direct("d", 1, "c1/d")).unwrap();
    for purges in [purges, open(&place)] {
        assert_eq!((purges.position(), purges.mark()), (9, Mark { log: 9, direct: 1 }));
        check(&purges, "c1/a", (0, 0), Verdict::Gone);
        check(&purges, "c1/a", (7, 0), Verdict::Current);
        check(&purges, "c1/b", (0, 0), Verdict::Current);
        check(&purges, "c1/c", (8, 9), Verdict::Gone);
        check(&purges, "c1/d", (9, 0), Verdict::Gone);
        check(&purges, "c1/d", (9, 1), Verdict::Current);
    }
}

#[test]
fn an_answer_without_entries_changes_nothing() {
    let place = tempfile::tempdir().unwrap();
    let purges = open(&place);
    purges.follow(&PurgeLog { latest: 0, floor: None, purges: Vec::new() }).unwrap();
    assert_eq!((purges.position(), std::fs::read(place.path().join("purges")).unwrap()), (0, Vec::new()));
}

#[test]
fn who_missed_entries_drops_what_it_held() {
    let place = tempfile::tempdir().unwrap();
    open(&place).follow(&PurgeLog { latest: 50, floor: Some(50), purges: Vec::new() }).unwrap();
    let purges = open(&place);
    assert_eq!(purges.position(), 50);
    check(&purges, "c1/any", (49, 0), Verdict::Gone);
    check(&purges, "c1/any", (50, 0), Verdict::Current);
}

#[test]
fn damage_on_disk_costs_what_was_held() {
    let place = tempfile::tempdir().unwrap();
    open(&place).follow(&answer(&[(7, "c1/a", None), (8, "c1/b", None)])).unwrap();
    let path = place.path().join("purges");
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap().replacen("c1/a", "c1/x", 1)).unwrap();
    let purges = open(&place);
    check(&purges, "c1/any", (7, 0), Verdict::Gone);
    check(&purges, "c1/any", (8, 0), Verdict::Current);
}

#[test]
fn a_direct_purge_needs_a_number_above_the_last() {
    let place = tempfile::tempdir().unwrap();
    let purges = open(&place);
    assert_eq!(purges.directly(direct("a", 3, "c1/a")).unwrap(), Mark { log: 0, direct: 3 });
    assert_eq!(purges.directly(direct("a", 3, "c1/a")).unwrap().direct, 3, "sent again, it is the same");
    assert!(matches!(purges.directly(direct("b", 3, "c1/b")), Err(Refused::Behind(3))));
    assert!(matches!(open(&place).directly(direct("b", 3, "c1/b")), Err(Refused::Behind(3))));
    assert_eq!(open(&place).directly(direct("a", 3, "c1/a")).unwrap().direct, 3);
    assert!(matches!(purges.directly(direct("b", 4, "b")), Err(Refused::Bad(_))));
}

#[test]
fn a_file_of_purges_that_grew_is_made_shorter_and_says_the_same() {
    let place = tempfile::tempdir().unwrap();
    let purges = open(&place);
    for sequence in 1..=5 {
        purges.follow(&answer(&[(sequence, &format!("c1/{sequence}"), None)])).unwrap();
    }
    purges.directly(direct("d", 1, "c1/d")).unwrap();
    let long = std::fs::metadata(place.path().join("purges")).unwrap().len();
    purges.log.raise_floor(3);
    purges.shorten(&mut purges.writer(), FILE_BYTES_MAX).unwrap();
    purges.follow(&answer(&[(6, "c1/6", None)])).unwrap();
    assert!(std::fs::metadata(place.path().join("purges")).unwrap().len() < long);
    for purges in [purges, open(&place)] {
        assert_eq!((purges.position(), purges.mark()), (6, Mark { log: 6, direct: 1 }));
        check(&purges, "c1/5", (4, 1), Verdict::Gone);
        check(&purges, "c1/6", (5, 1), Verdict::Gone);
        check(&purges, "c1/d", (6, 0), Verdict::Gone);
        check(&purges, "c1/any", (2, 1), Verdict::Gone);
        check(&purges, "c1/any", (3, 1), Verdict::Current);
    }
}

#[test]
fn a_file_of_purges_keeps_what_there_is_room_for_and_drops_what_was_held_before() {
    let place = tempfile::tempdir().unwrap();
    let purges = open(&place);
    for number in 1..=4 {
        purges.directly(direct(&format!("d-{number}"), number, &format!("c1/{number}"))).unwrap();
        purges.follow(&answer(&[(number + 10, &format!("c1/{number}"), None)])).unwrap();
    }
    let room = 2 * (Line::Direct(direct("d-1", 1, "c1/1")).bytes() + 40) + 400;
    purges.shorten(&mut purges.writer(), room).unwrap();
    for purges in [purges, open(&place)] {
        assert_eq!((purges.log.floor(), purges.direct.floor(), purges.position()), (12, 2, 14));
        check(&purges, "c1/any", (14, 1), Verdict::Gone);
        check(&purges, "c1/any", (11, 4), Verdict::Gone);
        check(&purges, "c1/any", (12, 2), Verdict::Current);
        check(&purges, "c1/3", (14, 2), Verdict::Gone);
    }
}

#[test]
fn damage_that_is_found_while_the_file_is_made_shorter_costs_what_was_held() {
    let place = tempfile::tempdir().unwrap();
    let purges = open(&place);
    purges.follow(&answer(&[(7, "c1/a", None), (8, "c1/b", None)])).unwrap();
    purges.directly(direct("d", 1, "c1/d")).unwrap();
    let path = place.path().join("purges");
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap().replacen("c1/a", "c1/x", 1)).unwrap();
    purges.shorten(&mut purges.writer(), FILE_BYTES_MAX).unwrap();
    for purges in [purges, open(&place)] {
        check(&purges, "c1/any", (7, 1), Verdict::Gone);
        check(&purges, "c1/any", (8, 0), Verdict::Gone);
        check(&purges, "c1/any", (8, 1), Verdict::Current);
    }
}

#[test]
fn a_number_that_leaps_is_refused_and_blocks_nobody() {
    let place = tempfile::tempdir().unwrap();
    let purges = open(&place);
    purges.directly(direct("a", 3, "c1/a")).unwrap();
    for number in [u64::MAX, 3 + LEAP_MAX + 1] {
        assert!(matches!(purges.directly(direct("b", number, "c1/b")), Err(Refused::Far(3))), "{number}");
    }
    purges.directly(direct("b", 4, "c1/b")).unwrap();
    purges.directly(direct("c", 4 + LEAP_MAX, "c1/c")).unwrap();
}

#[test]
fn what_is_fetched_carries_the_mark_of_its_beginning() {
    let place = tempfile::tempdir().unwrap();
    let purges = open(&place);
    purges.follow(&answer(&[(7, "c1/other", None)])).unwrap();
    let fill = fill(Plan::Whole, purges.mark());
    purges.follow(&answer(&[(8, "c1/other", None)])).unwrap();
    let headers = [("cache-tag", "news")];
    let Answer::Bytes { meta, .. } = stamp(&purges, &fill, &headers, false) else { panic!("bytes were offered") };
    assert_eq!((meta.mark, &*meta.tags), (mark(7, 0), &[popularity_api::purge::target::tag_hash("news")][..]));
}

#[test]
fn a_server_that_missed_a_purge_of_the_file_is_of_no_use() {
    let place = tempfile::tempdir().unwrap();
    let purges = open(&place);
    purges.follow(&answer(&[(7, FILE, None), (8, "c1/other", None)])).unwrap();
    let fill = fill(Plan::Whole, purges.mark());
    for (told, expected) in [("6 0", None), ("", None), ("7 0", Some(7)), ("8 0", Some(8)), ("9 5", Some(8))] {
        let taken = match stamp(&purges, &fill, &[("sun-purge-mark", told)], true) {
            Answer::Bytes { meta, .. } => Some(meta.mark.log),
            Answer::Useless(_) => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(taken, expected, "{told}");
    }
    assert!(matches!(stamp(&purges, &fill, &[("sun-purge-mark", "0 0")], false), Answer::Bytes { .. }), "not believed");
}

#[test]
fn the_same_validator_after_a_hard_purge_is_another_version() {
    let place = tempfile::tempdir().unwrap();
    let purges = open(&place);
    let generation = |purges: &Purges| {
        let Answer::Bytes { meta, .. } = stamp(purges, &fill(Plan::Whole, purges.mark()), &[], false) else {
            panic!("bytes were offered")
        };
        meta.generation
    };
    let before = generation(&purges);
    purges.follow(&answer(&[(7, "c1/other", None)])).unwrap();
    assert_eq!(generation(&purges), before);
    let mut soft = answer(&[(8, FILE, None)]);
    soft.purges[0].mode = PurgeMode::Soft;
    purges.follow(&soft).unwrap();
    assert_eq!(generation(&purges), before, "a soft one trusts validators");
    purges.follow(&answer(&[(9, FILE, None)])).unwrap();
    let after = generation(&purges);
    assert_ne!(after, before);
    assert_eq!(generation(&purges), after, "and all fills after it agree");
    assert_eq!(after & 1, before & 1);
}

#[test]
fn unchanged_is_news_only_of_what_was_not_purged_meanwhile() {
    let place = tempfile::tempdir().unwrap();
    let purges = open(&place);
    let held = Arc::new(Meta { mark: mark(3, 0), ..Meta::new(&HeaderMap::new(), Some(1), 0, 9, 2) });
    let unchanged = |purges: &Purges| {
        let fill = fill(Plan::Revalidate { meta: Arc::clone(&held) }, purges.mark());
        let answer = Answer::Unchanged(Arc::clone(&held));
        match Stamp::new(purges, &fill, (&name(FILE), name(FILE).content_id()), &HeaderMap::new(), false).answer(answer)
        {
            Answer::Unchanged(meta) => meta.mark.log,
            other => panic!("{other:?}"),
        }
    };
    purges.follow(&answer(&[(4, "c1/other", None)])).unwrap();
    assert_eq!(unchanged(&purges), 4);
    purges.follow(&answer(&[(5, FILE, None)])).unwrap();
    assert_eq!(unchanged(&purges), 3, "purged hard while it was asked about");
}

#[test]
fn nobody_joins_a_fill_that_a_purge_has_overtaken() {
    let place = tempfile::tempdir().unwrap();
    let purges = open(&place);
    let name = name(FILE);
    let overtaken = |purges: &Purges, began: Option<Mark>| {
        let fill = Fill::new(name.content_id(), Plan::Whole, Vec::new());
        began.into_iter().for_each(|mark| fill.begin(mark));
        purges.overtaken(&name, name.content_id(), &fill)
    };
    assert!(!overtaken(&purges, Some(mark(0, 0))));
    purges.follow(&answer(&[(7, "c1/other", None)])).unwrap();
    assert!(!overtaken(&purges, Some(mark(6, 0))));
    purges.follow(&answer(&[(8, FILE, None)])).unwrap();
    assert!(overtaken(&purges, Some(mark(7, 0))) && !overtaken(&purges, Some(mark(8, 0))));
    assert!(!overtaken(&purges, None), "it has not asked yet");
    let mut tag = answer(&[(9, "news", None)]);
    tag.purges[0].what = PurgeWhat::Tag;
    purges.follow(&tag).unwrap();
    assert!(overtaken(&purges, Some(mark(8, 0))), "its tags are not known yet");
    purges.directly(direct("a", 1, FILE)).unwrap();
    assert!(overtaken(&purges, Some(mark(9, 0))) && !overtaken(&purges, Some(mark(9, 1))));
}

#[test]
fn a_file_that_is_lent_is_written_by_the_other_process_alone() {
    let place = tempfile::tempdir().unwrap();
    let purges = open(&place);
    purges.directly(direct("a", 1, "c1/a")).unwrap();
    purges.lend();
    let other = open(&place);
    // In force, and not acknowledged.
    assert!(matches!(purges.directly(direct("b", 2, "c1/b")), Err(Refused::Disk(_))));
    assert!(purges.follow(&answer(&[(7, "c1/c", None)])).is_err());
    check(&purges, "c1/b", (0, 1), Verdict::Gone);
    check(&purges, "c1/c", (0, 0), Verdict::Gone);
    assert_eq!(purges.position(), 0);
    other.follow(&answer(&[(7, "c1/c", None), (8, "c1/d", None)])).unwrap();
    other.directly(direct("e", 3, "c1/e")).unwrap();
    drop(other);
    // It failed: what it kept counts, and this one keeps more.
    purges.take_back().unwrap();
    purges.directly(direct("f", 4, "c1/f")).unwrap();
    for purges in [purges, open(&place)] {
        assert_eq!((purges.position(), purges.mark()), (8, Mark { log: 8, direct: 4 }));
        check(&purges, "c1/a", (8, 0), Verdict::Gone);
        check(&purges, "c1/d", (7, 4), Verdict::Gone);
        check(&purges, "c1/e", (8, 2), Verdict::Gone);
        check(&purges, "c1/f", (8, 3), Verdict::Gone);
    }
}

const FILE: &str = "c1/a/b.jpg";

fn stamp(purges: &Purges, fill: &Fill, headers: &[(&'static str, &'static str)], ours: bool) -> Answer {
    let headers = headers.iter().map(|&(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    let headers: HeaderMap = headers.collect();
    let etag = [(http::header::ETAG, "\"a\"".parse().unwrap())].into_iter().collect();
    let meta = Arc::new(Meta::new(&etag, Some(10), 0, 9, 2));
    Stamp::new(purges, fill, (&name(FILE), name(FILE).content_id()), &headers, ours)
        .answer(Answer::Bytes { meta, range: 0..10 })
}

fn fill(plan: Plan, mark: Mark) -> Fill {
    let fill = Fill::new(name(FILE).content_id(), plan, Vec::new());
    fill.begin(mark);
    fill
}

fn open(place: &tempfile::TempDir) -> Purges {
    Purges::open(place.path(), RegionId(4)).unwrap()
}

const fn mark(log: u64, direct: u64) -> Mark {
    Mark { log, direct }
}

fn name(file: &str) -> CanonicalName {
    CanonicalName::parse(file).unwrap()
}

/// Hard purges of files: sequence, name, region.
fn answer(purges: &[(u64, &str, Option<u16>)]) -> PurgeLog {
    let purge = |&(sequence, value, region): &(u64, &str, Option<u16>)| Purge {
        sequence,
        at_ms: 0,
        id: format!("id-{sequence}"),
        what: PurgeWhat::File,
        value: value.to_owned(),
        mode: PurgeMode::Hard,
        region: region.map(RegionId),
    };
    PurgeLog { latest: purges.last().unwrap().0, floor: None, purges: purges.iter().map(purge).collect() }
}

fn direct(id: &str, number: u64, value: &str) -> DirectPurge {
    DirectPurge { id: id.to_owned(), number, what: PurgeWhat::File, value: value.to_owned(), mode: PurgeMode::Hard }
}

#[track_caller]
fn check(purges: &Purges, file: &str, (log, direct): (u64, u64), expected: Verdict) {
    let name = name(file);
    let subject = Subject { name: file, content: name.content_id(), tags: &[] };
    assert_eq!(purges.verdict(subject, Mark { log, direct }), expected, "{file} at {log}, {direct}");
}
