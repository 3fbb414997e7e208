//! The embedded engine, the cluster and a trivial model are asked the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use geo::RegionId;
use popularity_api::cluster::Clock;
use popularity_api::engine::batch::{Batch, Entry, Group};
use popularity_api::engine::decay::{Decay, LANDMARK_MS};
use popularity_api::engine::folder::Disk;
use popularity_api::engine::table::{Mark, Table};
use popularity_api::engine::{self, CountError, Engine};
use popularity_api::ratings::{Carried, Carry, Embedded, HeldNote, RankedFile, Ratings};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{Hand, REGION, World, batch};

#[tokio::test(flavor = "multi_thread")]
async fn both_kinds_of_ratings_keep_to_what_the_trait_says() {
    let place = tempfile::tempdir().unwrap();
    check_ratings(&embedded(place.path())).await;
    let world = World::start(&[]);
    let settings = popularity_api::cluster::Settings { clock: Clock::system(), ..world.settings() };
    check_ratings(&world.other_ratings(settings)).await;
}

/// What every caller relies on.
async fn check_ratings(ratings: &dyn Ratings) {
    // Once, whatever comes again; nothing of an earlier boot.
    let files = [("c1/b", 1.0), ("c1/a", 1.0), ("c1/c", 64.0), ("c1/d", 0.25)];
    // Equal ones are counted at one moment: a sum of two is rounded up or down, each by itself.
    let later = &files[2..];
    for (mark, files, expected) in [
        ((7, 2), &files[..], "counted"),
        ((7, 2), &files, "before"),
        ((7, 1), &files, "before"),
        ((6, 9), &files, "stale, known 7"),
        ((8, 1), later, "counted"),
        ((8, 1), later, "before"),
        ((7, 3), &files, "stale, known 8"),
    ] {
        let counted = match ratings.count(batch("sun4-1-1", mark, files)).await {
            Ok(true) => "counted".to_owned(),
            Ok(false) => "before".to_owned(),
            Err(CountError::Stale { known, .. }) => format!("stale, known {known}"),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(counted, expected, "{mark:?}");
    }
    // Nothing could follow these.
    let refused = async |mark| ratings.count(batch("sun4-1-3", mark, &files)).await.unwrap_err().to_string();
    assert!(refused((u64::MAX, 1)).await.contains("boot 18446744073709551615 is more than ten years ahead"));
    assert!(refused((7, u64::MAX)).await.contains("above the last one of this boot, 0:"));
    assert!(ratings.count(batch("sun4-1-3", (7, 4), &[])).await.unwrap());
    assert!(refused((7, 1_000_000_005)).await.contains("above the last one of this boot, 4:"));
    assert!(refused((u64::MAX, 1)).await.contains("is more than ten years ahead"));
    assert!(ratings.count(batch("sun4-1-3", (7, 1_000_000_004), &[])).await.unwrap(), "a gap, as wide as it may be");
    assert!(ratings.count(batch("sun4-1-2", (1, 1), &[])).await.unwrap(), "a batch of nothing");
    assert!(!ratings.count(batch("sun4-1-2", (1, 1), &[])).await.unwrap());
    // Best first; of equal ones the name that comes first.
    let top = ratings.top(REGION, 9).await.unwrap();
    assert_eq!(names(&top), ["c1/c", "c1/a", "c1/b", "c1/d"]);
    assert_eq!(names(&ratings.top(REGION, 2).await.unwrap()), ["c1/c", "c1/a"]);
    assert!(ratings.top(RegionId(5), 9).await.unwrap().is_empty());
    near(top[0].rating.hour, 128.0);
    near(top[3].rating.days, 0.5);
    assert_eq!(top[0].size, 1 << 20);
    // What a cache wants: smaller ones are worth more, and what it holds comes with its worth.
    let mut small = batch("sun4-1-1", (8, 2), &[("c1/e", 1.0)]);
    small.entries[0].size = 1 << 4;
    assert!(ratings.count(small).await.unwrap());
    ratings
        .note_held(HeldNote {
            region: REGION,
            cache: "cache4-1".to_owned(),
            complete: true,
            added: vec!["c1/a".to_owned(), "c1/unrated".to_owned()],
            removed: Vec::new(),
        })
        .await;
    let carried = ratings.carried(carry(9, &["c1/a", "c1/unrated"])).await.unwrap();
    assert_eq!(names(&carried.best), ["c1/e", "c1/c", "c1/b", "c1/d"]);
    assert_eq!(carried.held.len(), 1);
    let (held, worth) = &carried.held[0];
    assert_eq!(held, "c1/a");
    near(*worth, carried.best[2].score);
    assert_eq!(names(&ratings.carried(carry(1, &["c1/a"])).await.unwrap().best), ["c1/e"]);
    ratings.close().await;
    assert!(matches!(ratings.count(batch("sun4-1-1", (8, 3), &files)).await, Err(CountError::Closed)));
}

#[test]
fn the_cluster_ranks_as_the_engine_and_a_plain_sum_do() {
    let world = World::start(&[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let config = Config { cases: 12, failure_persistence: None, ..Config::default() };
    let case = std::sync::atomic::AtomicU64::new(0);
    TestRunner::new(config)
        .run(&prop::collection::vec(step(), 1..40), |steps| {
            let case = case.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let hand = Hand::default();
            let prefix = format!("case{case}-{}", steps.len());
            let settings = popularity_api::cluster::Settings { prefix, clock: hand.clock(), ..world.settings() };
            let cluster = world.other_ratings(settings);
            let (mut model, mut now) = (Model::default(), LANDMARK_MS);
            let mut table = Table::new(decay(), 1_000_000);
            let mut sent: BTreeMap<(String, Mark), Batch> = BTreeMap::new();
            for Step { after_ms, batch } in steps {
                // What comes again under its mark is the same.
                let batch = sent.entry((batch.source.clone(), batch.mark)).or_insert(batch).clone();
                now += after_ms;
                hand.set(now);
                let expected = model.count(&batch, now);
                let before = table.mark(&batch.source);
                let counted = runtime.block_on(cluster.count(batch.clone()));
                table.apply(&Group { time_ms: now, batches: vec![batch.clone()] });
                prop_assert_eq!(table.mark(&batch.source) != before, expected == Some(true));
                // One that had to be tried twice may be told as counted before; the sums below say whether it is, and once.
                let counted = counted.ok();
                let as_expected = counted.is_some() == expected.is_some() && counted <= expected;
                prop_assert!(as_expected, "{counted:?}, {expected:?}: {:?} after {before:?}", batch.mark);
            }
            let of_cluster = runtime.block_on(cluster.top(REGION, 100)).unwrap();
            let carried = runtime.block_on(cluster.carried(carry(100, &HELD))).unwrap();
            model.compare(&table, now, &of_cluster, &carried);
            Ok(())
        })
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_files_seen_once_neither_fills_a_region_nor_drives_out_what_is_rated() {
    let world = World::start(&[]);
    let bounded = popularity_api::cluster::Settings { pairs_max: 800, ..world.settings() };
    let metrics = popularity_api::cluster::Metrics::register(&world.registry).unwrap();
    let ratings = popularity_api::cluster::Cluster::start(bounded, metrics).unwrap();
    let rated: Vec<String> = (0..500).map(|n| format!("c1/rated/{n}")).collect();
    let named: Vec<(&str, f64)> = rated.iter().map(|name| (name.as_str(), 5.0)).collect();
    ratings.count(batch("sun4-1-1", (1, 1), &named)).await.unwrap();
    for sequence in 2..12 {
        let flood: Vec<String> = (0..2000).map(|n| format!("c1/flood/{sequence}/{n}")).collect();
        let flood: Vec<(&str, f64)> = flood.iter().map(|name| (name.as_str(), 1.0)).collect();
        ratings.count(batch("sun4-1-1", (1, sequence), &flood)).await.unwrap();
    }
    let top = ratings.top(REGION, 10_000).await.unwrap();
    assert!(top.len() <= 800, "{}", top.len());
    assert_eq!(world.metric("popularity_pairs", "4"), top.len() as f64);
    let kept: BTreeSet<&str> = top.iter().map(|ranked| &*ranked.name).collect();
    assert!(rated.iter().all(|name| kept.contains(name.as_str())));
    let (gone, away) =
        (world.metric("popularity_pairs_evicted_total", ""), world.metric("popularity_pairs_turned_away_total", ""));
    assert_eq!(gone + away + top.len() as f64, 20_500.0, "each was let in, or turned away, or went");
    assert!(away > 15_000.0, "{away}");
    // What comes again and is worth more than the lowest is let in; the lowest goes.
    for sequence in [12, 13] {
        ratings.count(batch("sun4-1-1", (1, sequence), &[("c1/comer", 50.0)])).await.unwrap();
    }
    assert_eq!(&*ratings.top(REGION, 1).await.unwrap()[0].name, "c1/comer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_that_was_lowered_is_reached_in_pieces() {
    let world = World::start(&[]);
    let one = popularity_api::cluster::Settings { shards: 1, ..world.settings() };
    let files: Vec<String> = (0..10_500).map(|n| format!("c1/{n}")).collect();
    let named: Vec<(&str, f64)> = files.iter().map(|name| (name.as_str(), 1.0)).collect();
    world.other_ratings(one.clone()).count(batch("sun4-1-1", (1, 1), &named)).await.unwrap();
    let lowered = world.other_ratings(popularity_api::cluster::Settings { pairs_max: 100, ..one });
    for (sequence, left) in [(2, 500), (3, 100)] {
        lowered.count(batch("sun4-1-1", (1, sequence), &[("c1/0", 1.0)])).await.unwrap();
        assert_eq!(lowered.top(REGION, 20_000).await.unwrap().len(), left);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_counts_otherwise_does_not_touch_the_ratings() {
    let world = World::start(&[]);
    world.ratings().count(batch("sun4-1-1", (1, 1), &[("c1/a", 1.0)])).await.unwrap();
    let timeout = Duration::from_millis(300);
    let other = popularity_api::cluster::Settings { shards: 9, timeout, ..world.settings() };
    let error = world.other_ratings(other).count(batch("sun4-1-1", (1, 2), &[("c1/a", 1.0)])).await.unwrap_err();
    assert!(error.to_string().contains("were made with shards=8 half_lives_ms=3600000,172800000"), "{error}");
}

/// A batch, and how long after the one before.
#[derive(Clone, Debug)]
struct Step {
    after_ms: u64,
    batch: Batch,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop::sample::select(vec![0_u64, 1 << 10, 1 << 20, 3 << 28]);
    let entry = (4_u16..6, 0..12_usize, 0.01..100.0_f64, size);
    let batch = (0..2_u8, 1..4_u64, 0..5_u64, prop::collection::vec(entry, 0..6));
    (0..7_200_000_u64, batch).prop_map(|(after_ms, (source, boot, sequence, entries))| {
        let entry = |(region, file, downloads, size)| Entry {
            region: RegionId(region),
            file: format!("c1/{file}").into(),
            size,
            downloads,
        };
        let entries = entries.into_iter().map(entry).collect();
        Step { after_ms, batch: Batch { source: format!("sun{source}"), mark: Mark { boot, sequence }, entries } }
    })
}

/// Every download with its moment, and nothing clever.
#[derive(Default)]
struct Model {
    marks: BTreeMap<String, (u64, u64)>,
    downloads: BTreeMap<String, Vec<(u64, f64)>>,
}

impl Model {
    /// Whether it is counted; nothing when it is stale.
    fn count(&mut self, batch: &Batch, now: u64) -> Option<bool> {
        let mark = (batch.mark.boot, batch.mark.sequence);
        let known = self.marks.get(&batch.source).copied().unwrap_or_default();
        if mark.0 < known.0 {
            return None;
        }
        if mark <= known {
            return Some(false);
        }
        self.marks.insert(batch.source.clone(), mark);
        for entry in &batch.entries {
            if entry.region == REGION {
                self.downloads.entry(entry.file.to_string()).or_default().push((now, entry.downloads));
            }
        }
        Some(true)
    }

    fn left(&self, file: &str, now: u64) -> (f64, f64) {
        let sum = |half_life_ms: f64| {
            let faded = |&(at, downloads): &(u64, f64)| downloads * (-((now - at) as f64) / half_life_ms).exp2();
            self.downloads[file].iter().map(faded).sum::<f64>()
        };
        (sum(3_600_000.0), sum(172_800_000.0))
    }

    fn score(&self, file: &str, now: u64) -> f64 {
        let (hour, days) = self.left(file, now);
        0.25 * hour.log2() + 0.75 * days.log2()
    }

    fn compare(&self, table: &Table, now: u64, top: &[RankedFile], carried: &Carried) {
        let all: BTreeSet<&str> = self.downloads.keys().map(String::as_str).collect();
        let engine = table.top(REGION, 100);
        assert_eq!(engine.iter().map(|ranked| ranked.file.name).collect::<BTreeSet<_>>(), all);
        assert_eq!(top.iter().map(|ranked| &*ranked.name).collect::<BTreeSet<_>>(), all);
        for ranked in top {
            let (hour, days) = self.left(&ranked.name, now);
            near(ranked.rating.hour / hour, 1.0);
            near(ranked.rating.days / days, 1.0);
            near(ranked.score, table.score(REGION, &ranked.name, 0.0).unwrap());
        }
        self.sorted(top.iter().map(|ranked| &*ranked.name), |file| self.score(file, now));
        self.sorted(engine.iter().map(|ranked| ranked.file.name), |file| self.score(file, now));
        let named =
            |files: &[&str]| files.iter().filter(|file| all.contains(*file)).map(|file| (*file).to_owned()).collect();
        let held: BTreeSet<String> = carried.held.iter().map(|(file, _)| file.clone()).collect();
        assert_eq!(held, named(&HELD));
        let best: BTreeSet<&str> = carried.best.iter().map(|ranked| &*ranked.name).collect();
        assert_eq!(best, all.iter().copied().filter(|file| !HELD.contains(file)).collect());
        for (file, worth) in carried
            .best
            .iter()
            .map(|ranked| (&*ranked.name, ranked.score))
            .chain(carried.held.iter().map(|(file, worth)| (file.as_str(), *worth)))
        {
            near(worth, table.score(REGION, file, 0.5).unwrap());
        }
        assert!(carried.best.is_sorted_by(|a, b| a.score >= b.score));
    }

    /// In the model's order, but for what is equal to it.
    #[track_caller]
    fn sorted<'a>(&self, files: impl Iterator<Item = &'a str>, score: impl Fn(&str) -> f64) {
        let scores: Vec<f64> = files.map(score).collect();
        assert!(scores.is_sorted_by(|a, b| *a >= b - 1e-3), "{scores:?}");
    }
}

fn carry(limit: usize, held: &'static [&'static str]) -> Carry {
    Carry {
        region: REGION,
        cache: "cache4-1".to_owned(),
        exponent: 0.5,
        limit,
        downloads_min: 0.0,
        accept: Arc::new(move |file, rating| !held.contains(&file.name) && rating.hour >= 0.0 && rating.days > 0.0),
        held: Arc::new(move || held.iter().map(|&name| name.to_owned()).collect()),
    }
}

fn names(files: &[RankedFile]) -> Vec<&str> {
    files.iter().map(|ranked| &*ranked.name).collect()
}

/// The engine keeps 2^-20 of a half-life.
#[track_caller]
fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-3 * expected.abs().max(1.0), "{found} is not {expected}");
}

fn embedded(place: &std::path::Path) -> Embedded {
    let settings = engine::Settings {
        decay: decay(),
        pairs_max: 1_000_000,
        commit: Duration::ZERO,
        queue_bytes_max: 1 << 20,
        snapshot_every: Duration::from_secs(3600),
        snapshot_binlog_bytes: 1 << 30,
        copies_binlog_bytes: 1 << 30,
    };
    let metrics = engine::Metrics::register(&prometheus::Registry::new()).unwrap();
    let disk = Arc::new(Disk::open(place).unwrap());
    Embedded::new(Arc::new(Engine::open(disk, &settings, metrics).unwrap().0))
}

fn decay() -> Decay {
    Decay::new(3600, 172_800, 0.25).unwrap()
}

const HELD: [&str; 3] = ["c1/0", "c1/5", "c1/unrated"];
