//! Nodes die, slots move, all of it goes away: what was acknowledged is there, once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use popularity_api::cluster::{Cluster, Settings};
use popularity_api::engine::CountError;
use popularity_api::ratings::Ratings;

use super::{REGION, World, batch};
use crate::redis_cluster::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_is_killed_under_load_and_comes_back() {
    let mut world = World::start(&["--min-replicas-to-write", "1"]);
    let load = Load::start(world.ratings());
    load.until_more(20).await;
    let (primary, replicas) = world.redis.keepers("test:{4.0}:rank");
    world.redis.kill(primary);
    tokio::task::block_in_place(|| {
        until("its replica serves", || world.redis.keepers("test:{4.0}:rank").0 == replicas[0]);
    });
    // The new primary has no copy yet: it takes no batch that has to be confirmed by one.
    world.redis.start_node(primary);
    tokio::task::block_in_place(|| world.redis.until_whole());
    load.until_more(20).await;
    load.check().await;
    assert!(world.metric("popularity_cluster_retries_total", "") > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_move_under_load() {
    let world = World::start(&[]);
    let load = Load::start(world.ratings());
    load.until_more(20).await;
    let (from, _) = world.redis.keepers("test:{4.0}:rank");
    let other =
        (0..8).map(|shard| world.redis.keepers(&format!("test:{{4.{shard}}}:rank")).0).find(|&node| node != from);
    let to = other.expect("eight shards are on more than one node");
    let keys = world.redis.ask(to, &["DBSIZE"]);
    tokio::task::block_in_place(|| world.redis.reshard(from, to, 5461));
    assert_ne!(world.redis.ask(to, &["DBSIZE"]), keys, "slots with keys moved");
    assert_eq!(world.redis.keepers("test:{4.0}:rank").0, to);
    load.until_more(20).await;
    load.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_cluster_goes_away_and_comes_back() {
    let mut world = World::start(&[]);
    let load = Load::start(world.ratings());
    load.until_more(20).await;
    (0..6).for_each(|node| world.redis.kill(node));
    load.until_refused().await;
    assert!(load.ratings.top(REGION, 9).await.is_err());
    (0..6).for_each(|node| world.redis.start_node(node));
    tokio::task::block_in_place(|| world.redis.until_whole());
    load.until_more(20).await;
    load.check().await;
}

/// Redis answers before its copies have a write. Who counts that as kept loses it with the primary; who waits for a copy
/// does not acknowledge it, and sends it again.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_acknowledged_is_lost_with_it_and_what_a_copy_confirmed_is_not() {
    let mut world = World::start(&[]);
    let confirmed = world.ratings();
    let unconfirmed = world.other_ratings(Settings { replicas: 0, ..world.settings() });
    assert!(confirmed.count(batch("sun4-1-1", (1, 1), &[("c1/a", 1.0)])).await.unwrap());
    let shard =
        (0..8).find(|shard| world.redis.ask(0, &["-c", "ZCARD", &format!("test:{{4.{shard}}}:rank")]).trim() == "1");
    let key = format!("test:{{4.{}}}:rank", shard.expect("it is in one"));
    let (primary, replicas) = world.redis.keepers(&key);
    world.redis.signal(replicas[0], "STOP");
    // What is on its way already would reach it later.
    assert_eq!(world.redis.ask(primary, &["CLIENT", "KILL", "TYPE", "replica"]).trim(), "1");
    // The same file, so the same shard.
    assert!(unconfirmed.count(batch("sun4-1-2", (1, 1), &[("c1/a", 16.0)])).await.unwrap(), "acknowledged");
    let refused = confirmed.count(batch("sun4-1-3", (1, 1), &[("c1/a", 4.0)])).await.unwrap_err();
    assert!(matches!(&refused, CountError::Away(why) if why.contains("0 of 1 copies")), "{refused}");
    assert!(world.metric("popularity_cluster_wait_short_total", "") > 0.0);
    world.redis.kill(primary);
    world.redis.signal(replicas[0], "CONT");
    tokio::task::block_in_place(|| {
        until("the replica serves", || world.redis.keepers(&key).0 == replicas[0]);
    });
    world.redis.start_node(primary);
    tokio::task::block_in_place(|| world.redis.until_whole());
    // It is sent again. Whether that counts it, or a question that waited in the client while the primary was away has by now: once.
    confirmed.count(batch("sun4-1-3", (1, 1), &[("c1/a", 4.0)])).await.unwrap();
    let top = confirmed.top(REGION, 9).await.unwrap();
    let downloads = top[0].rating.days;
    assert!((downloads - 5.0).abs() < 1e-6, "{downloads}: the 16 are lost, the 1 and the 4 are there once");
}

/// Suns that report without a pause, each batch until it is acknowledged.
struct Load {
    ratings: Arc<Cluster>,
    acknowledged: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    suns: Vec<tokio::task::JoinHandle<u64>>,
}

impl Load {
    fn start(ratings: Cluster) -> Self {
        let mut load = Self {
            ratings: Arc::new(ratings),
            acknowledged: Arc::default(),
            refused: Arc::default(),
            stop: Arc::default(),
            suns: Vec::new(),
        };
        for sun in 0..SUNS {
            let (ratings, stop) = (Arc::clone(&load.ratings), Arc::clone(&load.stop));
            let (acknowledged, refused) = (Arc::clone(&load.acknowledged), Arc::clone(&load.refused));
            load.suns.push(tokio::spawn(async move {
                let mut sequence = 0;
                while !stop.load(Ordering::Relaxed) {
                    sequence += 1;
                    let files: Vec<String> = (0..FILES).map(|n| format!("c1/{sun}/{n}")).collect();
                    let files: Vec<(&str, f64)> = files.iter().map(|file| (file.as_str(), 1.0)).collect();
                    while let Err(error) = ratings.count(batch(&format!("sun4-1-{sun}"), (1, sequence), &files)).await {
                        assert!(matches!(error, CountError::Away(_)), "{error}");
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                sequence
            }));
        }
        load
    }

    /// Until so many more batches are acknowledged.
    async fn until_more(&self, batches: u64) {
        let until = self.acknowledged.load(Ordering::Relaxed) + batches;
        self.wait("batches are acknowledged", || self.acknowledged.load(Ordering::Relaxed) >= until).await;
    }

    async fn until_refused(&self) {
        self.wait("a batch is refused", || self.refused.load(Ordering::Relaxed) > 0).await;
    }

    async fn wait(&self, what: &str, is_so: impl Fn() -> bool) {
        for _ in 0..6000 {
            if is_so() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not within a minute: {what}");
    }

    /// Ends, and compares: a download of each file for each batch that was acknowledged.
    async fn check(self) {
        self.stop.store(true, Ordering::Relaxed);
        let mut expected = BTreeMap::new();
        for (sun, done) in self.suns.into_iter().enumerate() {
            let batches = done.await.unwrap();
            expected.extend((0..FILES).map(|n| (format!("c1/{sun}/{n}"), batches)));
        }
        let top = self.ratings.top(REGION, 10_000).await.unwrap();
        let found = |rating: f64| {
            assert!((rating - rating.round()).abs() < 1e-6, "{rating}");
            rating.round() as u64
        };
        let found: BTreeMap<String, u64> =
            top.into_iter().map(|ranked| (ranked.name.into(), found(ranked.rating.days))).collect();
        assert_eq!(found, expected);
        println!("{:?} batches acknowledged, {:?} refused for a while", self.acknowledged, self.refused);
    }
}

const SUNS: u64 = 4;
const FILES: u64 = 40;
