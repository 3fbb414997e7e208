//! The engine as a whole: its thread, on a simulated disk and on a real one.

use super::batch::Entry;
use super::folder::Disk;
use super::folder::simulated::Simulated;
use super::table::Mark;
use super::*;

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_crash() {
    let disk = Arc::new(Simulated::default());
    let engine = open(&disk);
    for sequence in 1..=3 {
        assert!(engine.count(batch("sun4-1-1", sequence)).await.unwrap());
    }
    let engine = open(&Arc::new(disk.crash(0)));
    assert_eq!(engine.table().mark("sun4-1-1"), Mark { boot: 1, sequence: 3 });
    for (sequence, counted) in [(3, false), (1, false), (4, true), (4, false)] {
        assert_eq!(engine.count(batch("sun4-1-1", sequence)).await.unwrap(), counted, "{sequence}");
    }
}

#[tokio::test]
async fn a_batch_of_an_earlier_boot_is_refused_and_not_taken_for_counted() {
    let engine = open(&Arc::new(Simulated::default()));
    let of = |boot, sequence| Batch { mark: Mark { boot, sequence }, ..batch("sun4-1-1", 1) };
    assert!(engine.count(of(7, 2)).await.unwrap());
    for (boot, sequence) in [(6, 1), (6, 3), (0, 0)] {
        let error = engine.count(of(boot, sequence)).await.unwrap_err();
        assert!(matches!(error, CountError::Stale { known: 7, .. }), "{error}");
    }
    assert!(!engine.count(of(7, 1)).await.unwrap());
    assert!(engine.count(of(8, 1)).await.unwrap());
}

#[tokio::test]
async fn a_batch_is_judged_by_those_it_is_gathered_with() {
    let disk = Arc::new(Simulated::default());
    let engine = open_with(&disk, &Settings { commit: Duration::from_secs(3600), ..settings() });
    let engine = Arc::new(engine);
    let mut waiting = Vec::new();
    for (boot, sequence) in [(7, 1), (6, 2), (7, 1), (7, 2)] {
        let before = engine.queue.available_permits();
        let counting = Arc::clone(&engine);
        let batch = Batch { mark: Mark { boot, sequence }, ..batch("sun4-1-1", 1) };
        waiting.push(tokio::spawn(async move { counting.count(batch).await }));
        // It is in the queue before the next one comes.
        while engine.queue.available_permits() == before {
            tokio::task::yield_now().await;
        }
    }
    engine.close();
    let mut answers = Vec::new();
    for task in waiting {
        answers.push(task.await.unwrap());
    }
    let [Ok(true), Err(CountError::Stale { boot: 6, known: 7 }), Ok(false), Ok(true)] = &answers[..] else {
        panic!("{answers:?}");
    };
}

#[tokio::test]
async fn who_reports_does_not_wait_on_a_runtime_thread_for_the_table() {
    let engine = open(&Arc::new(Simulated::default()));
    engine.count(batch("sun4-1-1", 1)).await.unwrap();
    let again = batch("sun4-1-1", 1);
    let writing = engine.table.write().unwrap();
    assert!(engine.counted_before(&again).is_none(), "the committer looks");
    drop(writing);
    assert!(matches!(engine.counted_before(&again), Some(Ok(false))));
}

#[tokio::test]
async fn a_committer_that_panics_is_told_of_and_one_that_is_closed_is_not() {
    let disk = Arc::new(Simulated::default());
    let engine = open(&disk);
    // A panic inside poisons the disk, and whoever uses it next panics as well.
    engine.count(batch("sun4-1-1", 1)).await.unwrap();
    let poison = Arc::clone(&disk);
    std::thread::spawn(move || poison.tamper(&binlog::segment_name(0), |_| panic!("meant"))).join().unwrap_err();
    assert!(matches!(engine.count(batch("sun4-1-1", 2)).await, Err(CountError::Closed)));
    engine.failed().await;

    let engine = open(&Arc::new(Simulated::default()));
    engine.close();
    let failed = tokio::time::timeout(Duration::ZERO, engine.failed()).await;
    assert!(failed.is_err(), "closing is no failure");
}

#[tokio::test]
async fn batches_that_come_together_are_committed_together_and_counted_once() {
    let disk = Arc::new(Simulated::default());
    let engine = Arc::new(open_with(&disk, &Settings { commit: Duration::from_millis(50), ..settings() }));
    let together: Vec<_> = (0..20)
        .map(|n| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move { engine.count(batch(&format!("sun4-1-{}", n / 2), 1)).await.unwrap() })
        })
        .collect();
    let mut counted = 0;
    for task in together {
        counted += usize::from(task.await.unwrap());
    }
    assert_eq!(counted, 10, "each of ten sources sent its batch twice");
}

#[tokio::test]
async fn a_full_disk_refuses_batches_and_answers_reads() {
    let (disk, metrics) = (Arc::new(Simulated::default()), metrics());
    let (engine, _) = Engine::open(Arc::clone(&disk) as _, &settings(), metrics.clone()).unwrap();
    engine.count(batch("sun4-1-1", 1)).await.unwrap();
    assert_eq!(metrics.commits_failing.get(), 0);
    disk.fill_up(Some(0));
    assert!(matches!(engine.count(batch("sun4-1-1", 2)).await, Err(CountError::Disk(_))));
    assert_eq!(engine.table().top(RegionId(4), 9).len(), 1);
    assert_eq!(metrics.commits_failing.get(), 1);
    disk.fill_up(None);
    assert!(engine.count(batch("sun4-1-1", 2)).await.unwrap());
    assert_eq!(metrics.commits_failing.get(), 0);
}

#[tokio::test]
async fn numbers_that_nothing_could_follow_are_refused_and_gaps_are_counted() {
    let (disk, registry) = (Arc::new(Simulated::default()), Registry::new());
    let engine = Engine::open(disk, &settings(), Metrics::register(&registry).unwrap()).unwrap().0;
    let of = |boot, sequence| engine.count(Batch { mark: Mark { boot, sequence }, ..batch("log:1", 1) });
    assert!(of(1, 1).await.unwrap());
    assert!(matches!(of(1, u64::MAX).await, Err(CountError::Mark(BadMark::Sequence { known: 1, .. }))));
    assert!(matches!(of(u64::MAX, 2).await, Err(CountError::Mark(BadMark::Boot { .. }))));
    assert!(of(1, 5).await.unwrap(), "2 to 4 are missing");
    assert!(!of(1, 3).await.unwrap(), "and lost");
    let missing = registry.gather().into_iter().find(|family| family.name() == "popularity_batches_missing_total");
    assert_eq!(missing.unwrap().get_metric()[0].get_counter().get_value(), 3.0);
}

#[tokio::test]
async fn a_disk_too_full_for_a_snapshot_keeps_the_binlog_until_there_is_room() {
    let disk = Arc::new(Simulated::default());
    let often = Settings { snapshot_binlog_bytes: 1, snapshot_every: Duration::ZERO, ..settings() };
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let folder = Arc::clone(&disk) as Arc<dyn Folder>;
    let (engine, _) = Engine::open(folder, &often, metrics.clone()).unwrap();
    let entry = |n| Entry { file: format!("c1/{n}{}", "x".repeat(3000)).into(), ..batch("", 1).entries.remove(0) };
    let many = Batch { entries: (0..200).map(entry).collect(), ..batch("sun4-1-2", 1) };
    // A frame fits, and a second file of all names does not.
    disk.fill_up(Some(1_200_000));
    engine.count(many).await.unwrap();
    let mut sequence = 0;
    while metrics.snapshot_failures.get() == 0 {
        sequence += 1;
        engine.count(batch("sun4-1-1", sequence)).await.unwrap();
    }
    assert!(disk.list().unwrap().iter().all(|name| snapshot::offset_of(name).is_none()));
    disk.fill_up(None);
    while disk.list().unwrap().iter().all(|name| snapshot::offset_of(name).is_none()) {
        sequence += 1;
        engine.count(batch("sun4-1-1", sequence)).await.unwrap();
    }
    let found = open(&Arc::new(disk.crash(0)));
    assert_eq!(found.table().mark("sun4-1-1").sequence, sequence);
    assert_eq!((found.table().file_count(), found.table().mark("sun4-1-2").sequence), (201, 1));
}

#[tokio::test]
async fn a_queue_that_is_full_says_busy() {
    let disk = Arc::new(Simulated::default());
    let bytes = batch("sun4-1-1", 1).bytes();
    let slow = Settings { commit: Duration::from_secs(3600), queue_bytes_max: bytes, ..settings() };
    let engine = Arc::new(open_with(&disk, &slow));
    let first = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.count(batch("sun4-1-1", 1)).await }
    });
    while engine.queue.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(engine.count(batch("sun4-1-2", 1)).await, Err(CountError::Busy)));
    // Closing does not wait for the group to gather.
    engine.close();
    assert!(first.await.unwrap().unwrap());
    assert!(matches!(engine.count(batch("sun4-1-1", 2)).await, Err(CountError::Closed)));
}

#[tokio::test]
async fn closing_leaves_a_snapshot_and_nothing_to_replay() {
    let place = tempfile::tempdir().unwrap();
    let open = || {
        let disk = Arc::new(Disk::open(place.path()).unwrap());
        Engine::open(disk, &settings(), Metrics::register(&Registry::new()).unwrap()).unwrap()
    };
    let (engine, recovered) = open();
    assert_eq!(recovered, Recovered::default());
    engine.count(batch("sun4-1-1", 1)).await.unwrap();
    engine.close();
    drop(engine);
    let (engine, recovered) = open();
    assert!(recovered.snapshot.is_some());
    assert_eq!(recovered.groups, 0);
    assert_eq!(engine.table().mark("sun4-1-1"), Mark { boot: 1, sequence: 1 });
}

#[tokio::test]
async fn what_a_cache_says_it_holds_is_noted() {
    let engine = open(&Arc::new(Simulated::default()));
    engine.count(batch("sun4-1-1", 1)).await.unwrap();
    let held = |engine: &Engine| engine.table().carried(RegionId(4), "cache4-1", 0.5, 9, |_, _| true).held.len();
    for (complete, added, removed, expected) in [
        (true, &["c1/a", "c1/b"][..], &[][..], 1),
        (false, &[], &["c1/a"], 0),
        (false, &["c1/a"], &[], 1),
        (true, &[], &[], 0),
    ] {
        engine.note_held(RegionId(4), "cache4-1", complete, added.iter().copied(), removed.iter().copied());
        assert_eq!(held(&engine), expected, "{complete} {added:?} {removed:?}");
    }
}

#[tokio::test]
async fn a_long_binlog_is_replaced_by_a_snapshot_while_batches_come() {
    let disk = Arc::new(Simulated::default());
    let engine = open_with(&disk, &Settings { snapshot_binlog_bytes: 1, snapshot_every: Duration::ZERO, ..settings() });
    for sequence in 1.. {
        engine.count(batch("sun4-1-1", sequence)).await.unwrap();
        let names = disk.list().unwrap();
        if names.iter().any(|name| snapshot::offset_of(name).is_some()) && !names.contains(&binlog::segment_name(0)) {
            break;
        }
    }
    let sequence = engine.table().mark("sun4-1-1").sequence;
    assert_eq!(open(&Arc::new(disk.crash(0))).table().mark("sun4-1-1").sequence, sequence);
}

fn open(disk: &Arc<Simulated>) -> Engine {
    open_with(disk, &settings())
}

fn open_with(disk: &Arc<Simulated>, settings: &Settings) -> Engine {
    let metrics = Metrics::register(&Registry::new()).unwrap();
    Engine::open(Arc::clone(disk) as Arc<dyn Folder>, settings, metrics).unwrap().0
}

fn settings() -> Settings {
    Settings {
        decay: Decay::new(3600, 172_800, 0.25).unwrap(),
        pairs_max: 1000,
        commit: Duration::ZERO,
        queue_bytes_max: 1 << 20,
        snapshot_every: Duration::from_secs(3600),
        snapshot_binlog_bytes: 1 << 30,
        copies_binlog_bytes: 1 << 30,
    }
}

fn batch(source: &str, sequence: u64) -> Batch {
    let entry = Entry { region: RegionId(4), file: "c1/a".into(), size: 1000, downloads: 1.0 };
    Batch { source: source.to_owned(), mark: Mark { boot: 1, sequence }, entries: vec![entry] }
}

#[tokio::test]
async fn a_copy_counts_the_frames_of_another_engine_and_nothing_twice() {
    let primary = open(&Arc::new(Simulated::default()));
    for sequence in 1..=3 {
        primary.count(batch("sun4-1-1", sequence)).await.unwrap();
    }
    let disk = Arc::new(Simulated::default());
    assert!(Engine::open_copy(Arc::clone(&disk) as _, &settings(), metrics()).is_err(), "it is no copy");
    lineage::Lineage::follow(&*disk, primary.feed().lineage().id()).unwrap();
    let copy = Engine::open_copy(Arc::clone(&disk) as _, &settings(), metrics()).unwrap().0;
    let all = primary.feed().frames(0, 1 << 20).unwrap();
    let mut damaged = all.clone();
    damaged[20] ^= 1;
    assert!(matches!(copy.follow(damaged).await, Err(FollowError::Damaged(0))));
    assert!(matches!(copy.follow(all[..all.len() - 1].to_vec()).await, Err(FollowError::Damaged(_))), "a torn one");
    disk.fill_up(Some(disk.bytes()));
    assert!(matches!(copy.follow(all.clone()).await, Err(FollowError::Count(CountError::Disk(_)))));
    assert_eq!((copy.feed().end(), copy.table().top(RegionId(4), 9).len()), (0, 0), "nothing of them is counted");
    disk.fill_up(None);
    assert_eq!(copy.follow(all.clone()).await.unwrap().len(), 3);
    assert!(matches!(copy.follow(all.clone()).await, Err(FollowError::Damaged(_))), "they stand at another offset");
    check_equal(&copy, &primary);
    // It dies, and goes on from its own; then it takes the other one's place.
    let again = Arc::new(disk.crash(0));
    let copy = Engine::open_copy(Arc::clone(&again) as _, &settings(), metrics()).unwrap().0;
    check_equal(&copy, &primary);
    copy.close();
    drop(copy);
    let promoted = open(&again);
    assert_ne!(promoted.feed().lineage(), primary.feed().lineage());
    assert!(!promoted.count(batch("sun4-1-1", 3)).await.unwrap());
    assert!(promoted.count(batch("sun4-1-1", 4)).await.unwrap());
}

fn metrics() -> Metrics {
    Metrics::register(&Registry::new()).unwrap()
}

#[track_caller]
fn check_equal(copy: &Engine, primary: &Engine) {
    assert_eq!(copy.feed().end(), primary.feed().end());
    assert_eq!(copy.table().mark("sun4-1-1"), primary.table().mark("sun4-1-1"));
    assert_eq!(copy.table().top(RegionId(4), 9), primary.table().top(RegionId(4), 9));
}

#[tokio::test]
async fn a_full_disk_with_a_torn_end_is_started_from_and_counts_once_there_is_room() {
    let disk = Arc::new(Simulated::default());
    let engine = open(&disk);
    let before = engine.feed().lineage().clone();
    for sequence in 1..=2 {
        engine.count(batch("sun4-1-1", sequence)).await.unwrap();
    }
    let disk = Arc::new(disk.crash(0));
    disk.tamper(&binlog::segment_name(0), |bytes| bytes.truncate(bytes.len() - 1));
    disk.fill_up(Some(0));
    for _ in 0..2 {
        let engine = open(&disk);
        assert_eq!(engine.table().top(RegionId(4), 9).len(), 1, "it answers");
        assert_ne!(*engine.feed().lineage(), before);
        assert!(matches!(engine.count(batch("sun4-1-1", 2)).await, Err(CountError::Disk(_))));
        engine.close();
        assert_eq!(lineage::Lineage::read(&*disk).unwrap(), Some(before.clone()), "nothing is written");
    }
    let engine = open(&disk);
    disk.fill_up(None);
    assert!(engine.count(batch("sun4-1-1", 2)).await.unwrap());
    let kept = engine.feed().lineage().clone();
    let engine = open(&Arc::new(disk.crash(0)));
    assert_eq!((engine.feed().lineage(), engine.table().mark("sun4-1-1").sequence), (&kept, 2));
}

#[tokio::test]
async fn names_that_are_no_longer_taken_are_left_out_at_a_start() {
    // From the binlog, and from a snapshot that was written at the end.
    for closed in [false, true] {
        let disk = Arc::new(Simulated::default());
        let engine = open(&disk);
        for (sequence, file) in [(1, "c1//a"), (2, "c1/b"), (3, "c1/b"), (4, "c1/../c")] {
            let mut batch = batch("sun4-1-1", sequence);
            batch.entries[0].file = file.into();
            engine.count(batch).await.unwrap();
        }
        if closed {
            engine.close();
        }
        let found: Arc<dyn Folder> = Arc::new(disk.crash(0));
        let takes = Takes::new(|file| geo::CanonicalName::parse(file).is_ok());
        let engine = Engine::open_taking(found, &settings(), metrics(), Some(takes)).unwrap().0;
        let names = |engine: &Engine| {
            engine.table().top(RegionId(4), 9).iter().map(|ranked| ranked.file.name.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&engine), ["c1/b"], "closed: {closed}");
        assert_eq!(engine.table().mark("sun4-1-1"), Mark { boot: 1, sequence: 4 }, "all of them stay counted");
        // Who is to be counted now is decided before.
        let mut batch = batch("sun4-1-1", 5);
        batch.entries[0].file = "c1//a".into();
        engine.count(batch).await.unwrap();
        assert_eq!(names(&engine).len(), 2);
    }
}
