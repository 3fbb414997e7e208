//! The feed over a journal on a simulated disk.

use geo::RegionId;

use super::super::batch::{Batch, Entry, Group};
use super::super::decay::{Decay, LANDMARK_MS};
use super::super::folder::simulated::Simulated;
use super::super::journal::Journal;
use super::super::table::{Mark, Table};
use super::*;

#[test]
fn frames_are_handed_out_whole_from_every_frame_on() {
    let world = World::new(5);
    for from in 0..world.ends.len() {
        for bytes_max in [1, world.frame_bytes(), 2 * world.frame_bytes() + 1, 1 << 20] {
            let frames = world.feed.frames(world.ends[from], bytes_max).unwrap();
            let most = (bytes_max / world.frame_bytes()).max(1).min(5 - from);
            assert_eq!(frames.len(), most * world.frame_bytes(), "from {from}, {bytes_max} bytes");
            assert_eq!(binlog::read_frames(&frames, world.ends[from]).unwrap().len(), most);
        }
    }
    check(&world.feed, world.ends[5] + 1, "the binlog ends at");
    check(&world.feed, 1, "the binlog is damaged at 1");
}

#[test]
fn what_is_written_and_not_durable_is_not_handed_out() {
    let mut world = World::new(1);
    world.disk.fail(true, true);
    world.journal.commit(&group(2)).unwrap_err();
    assert_eq!(world.feed.frames(world.ends[1], 1 << 20).unwrap(), b"");
    assert_eq!(world.feed.frames(0, 1 << 20).unwrap().len(), world.frame_bytes());
}

#[test]
fn frames_go_on_in_the_next_segment() {
    let mut world = World::new(2);
    world.snapshot();
    world.commit(3);
    let first = world.feed.frames(0, 1 << 20).unwrap();
    assert_eq!(first.len(), 2 * world.frame_bytes(), "a segment's");
    assert_eq!(world.feed.frames(first.len() as u64, 1 << 20).unwrap().len(), world.frame_bytes());
}

#[test]
fn what_is_read_is_kept_for_a_while_and_within_bounds() {
    for (read, bytes_max, kept) in [(false, 1 << 20, false), (true, 1 << 20, true), (true, 10, false)] {
        let mut world = World::with(2, bytes_max);
        let first = world.ends[2];
        world.snapshot();
        if read {
            world.feed.frames(0, 1).unwrap();
            world.feed.snapshot(first, 0, 10).unwrap();
        }
        for sequence in 3..7 {
            world.commit(sequence);
            world.snapshot();
        }
        let there = world.feed.copyable().unwrap();
        assert_eq!(there.snapshots.len(), if kept { 3 } else { 2 }, "{read} {bytes_max}");
        assert_eq!(there.binlog_start == 0, kept);
        assert_eq!(there.end, world.ends[6]);
        if kept {
            assert!(!world.feed.snapshot(first, 0, 10).unwrap().is_empty());
        } else {
            check(&world.feed, 0, "the binlog is kept from");
            assert!(matches!(world.feed.snapshot(first, 0, 10), Err(FeedError::Gone(_))));
        }
    }
}

#[test]
fn what_was_asked_for_a_minute_ago_is_not_needed_any_more() {
    let (asked, start) = (Asked::new(100), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(asked.needs(1000, at(0)), Needs::default());
    asked.frames(950, at(0));
    asked.frames(960, at(0));
    asked.frames(990, at(30));
    assert_eq!(asked.needs(1000, at(30)).binlog_from, Some(950));
    assert_eq!(asked.needs(1060, at(30)).binlog_from, Some(960), "within the bound");
    assert_eq!(asked.needs(1000, at(60)).binlog_from, Some(990));
    assert_eq!(asked.needs(1000, at(90)).binlog_from, None);
    (0..100).for_each(|offset| asked.snapshot(offset, at(100)));
    assert_eq!(asked.needs(100, at(100)), Needs { binlog_from: Some(96), snapshots: vec![96, 97, 98, 99] });
}

#[test]
fn a_snapshot_is_read_in_pieces() {
    let mut world = World::new(2);
    world.snapshot();
    let &(offset, bytes) = world.feed.copyable().unwrap().snapshots.last().unwrap();
    let mut read = Vec::new();
    while (read.len() as u64) < bytes {
        let piece = world.feed.snapshot(offset, read.len() as u64, 100).unwrap();
        assert!(piece.len() <= 100 && !piece.is_empty());
        read.extend(piece);
    }
    assert_eq!(read, world.disk.read(&snapshot::name(offset)).unwrap());
    assert_eq!(world.feed.snapshot(offset, bytes, 100).unwrap(), b"");
}

#[test]
fn a_damaged_frame_sends_the_reader_to_a_snapshot() {
    let world = World::new(3);
    world.disk.tamper(&binlog::segment_name(0), |bytes| bytes[SEGMENT_HEADER_BYTES] ^= 1);
    check(&world.feed, 0, "the binlog is damaged at 0");
    assert_eq!(world.feed.frames(world.ends[1], 1 << 20).unwrap().len(), 2 * world.frame_bytes());
}

struct World {
    disk: Arc<Simulated>,
    journal: Journal,
    table: Table,
    end: watch::Sender<u64>,
    feed: Feed,
    /// Where each frame ends, and 0.
    ends: Vec<u64>,
}

impl World {
    fn new(frames: u64) -> Self {
        Self::with(frames, 1 << 20)
    }

    fn with(frames: u64, binlog_bytes_max: u64) -> Self {
        let disk = Arc::new(Simulated::default());
        let empty = || Table::new(Decay::new(3600, 172_800, 0.25).unwrap(), 100);
        let (journal, table, _) = Journal::open(Arc::clone(&disk) as _, empty).unwrap();
        let (end, lineage) = (watch::Sender::new(0), Lineage::own(&*disk, true).unwrap().0);
        let asked = Arc::new(Asked::new(binlog_bytes_max));
        let feed = Feed::new(Arc::clone(&disk) as _, lineage, end.subscribe(), asked);
        let mut world = Self { disk, journal, table, end, feed, ends: vec![0] };
        (1..=frames).for_each(|sequence| world.commit(sequence));
        world
    }

    fn commit(&mut self, sequence: u64) {
        self.journal.commit(&group(sequence)).unwrap();
        self.table.apply(&group(sequence));
        self.ends.push(self.journal.end());
        self.end.send_replace(self.journal.end());
    }

    fn snapshot(&mut self) {
        let offset = self.journal.begin_snapshot();
        self.disk.replace(&snapshot::name(offset), &snapshot::write(&self.table, offset, LANDMARK_MS)).unwrap();
        let needs = self.feed.asked.needs(self.journal.end(), Instant::now());
        self.journal.end_snapshot(offset, &needs).unwrap();
    }

    fn frame_bytes(&self) -> usize {
        usize::try_from(self.ends[1]).unwrap()
    }
}

fn group(sequence: u64) -> Group {
    let entry = Entry { region: RegionId(4), file: "c1/a".into(), size: 1000, downloads: 1.0 };
    let mark = Mark { boot: 1, sequence };
    Group { time_ms: LANDMARK_MS, batches: vec![Batch { source: "sun".to_owned(), mark, entries: vec![entry] }] }
}

#[track_caller]
fn check(feed: &Feed, after: u64, expected: &str) {
    let error = feed.frames(after, 1 << 20).unwrap_err();
    assert!(matches!(error, FeedError::Gone(_)), "{error}");
    assert!(error.to_string().starts_with(expected), "{error}");
}
