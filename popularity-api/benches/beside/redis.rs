//! The same reports into a Redis Cluster on this machine, by `Cluster` as the API uses it: six nodes, each batch confirmed by a
//! copy before the next one of its source. In seconds of the clock, for most of the work is not this process's; with it
//! what all nodes together took of the processors.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use geo::RegionId;
use popularity_api::cluster::{Clock, Cluster, Metrics, Settings};
use popularity_api::engine::batch::{Batch, Group};
use popularity_api::engine::decay::Decay;
use popularity_api::engine::table::Mark;
use popularity_api::ratings::{Carry, Ratings};

use crate::redis_cluster::RedisCluster;

/// Prints its lines, or that there is no redis-server.
pub(crate) fn redis(groups: &[Group]) -> anyhow::Result<()> {
    if !["/usr/bin/redis-server", "/usr/local/bin/redis-server"].iter().any(|server| Path::new(server).exists()) {
        println!("| Redis Cluster | no redis-server here: tests/setup |");
        return Ok(());
    }
    let nodes = RedisCluster::start(&[]);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(measured(&nodes, groups))
}

async fn measured(nodes: &RedisCluster, groups: &[Group]) -> anyhow::Result<()> {
    let metrics = Metrics::register(&prometheus::Registry::new())?;
    let ratings = Arc::new(Cluster::start(settings(nodes), metrics)?);
    let empty = used(nodes, "used_memory:");
    let batches: Vec<&Batch> = groups.iter().take(BATCHES).flat_map(|group| &group.batches).collect();
    for (boot, what) in [(1, "new and known files"), (2, "known files")] {
        let cpu = used(nodes, "used_cpu_user:") + used(nodes, "used_cpu_sys:");
        let began = Instant::now();
        count(&ratings, &batches, boot).await?;
        let (clock, updates) = (began.elapsed().as_secs_f64(), (BATCHES * super::PER_BATCH) as f64);
        let cpu = used(nodes, "used_cpu_user:") + used(nodes, "used_cpu_sys:") - cpu;
        let (clock, cpu) = (updates / clock / 1e6, updates / cpu / 1e6);
        println!("| Redis Cluster: pair updates, {what}, confirmed by a copy, clock | {clock:.3} M/s |");
        println!("| Redis Cluster: the same, a second of the six nodes' CPU time | {cpu:.3} M |");
    }
    let top = ratings.top(REGION, 1_000_000).await?;
    let bytes = (used(nodes, "used_memory:") - empty) / top.len() as f64;
    println!(
        "| Redis Cluster: RAM per file of one region, primary and copy | {bytes:.0} bytes of {} files |",
        top.len()
    );
    let began = Instant::now();
    anyhow::ensure!(ratings.top(REGION, 1000).await?.len() == 1000);
    println!("| Redis Cluster: top 1,000 of a region, clock | {:.1} ms |", began.elapsed().as_secs_f64() * 1e3);
    let held: Arc<[String]> = top.iter().step_by(10).map(|ranked| ranked.name.to_string()).collect();
    let count = held.len();
    let ask = Carry {
        region: REGION,
        cache: "cache4-1".to_owned(),
        exponent: 0.5,
        limit: 10_000,
        downloads_min: 0.0,
        accept: Arc::new(|_, _| true),
        held: Arc::new(move || held.to_vec()),
    };
    let began = Instant::now();
    anyhow::ensure!(ratings.carried(ask).await?.best.len() == 10_000);
    let took = began.elapsed().as_secs_f64() * 1e3;
    println!(
        "| Redis Cluster: best 10,000 of its 100,000 best-rated, and the worth of {count} held, clock | {took:.0} ms |"
    );
    ratings.close().await;
    Ok(())
}

/// Sixteen suns at a time.
async fn count(ratings: &Arc<Cluster>, batches: &[&Batch], boot: u64) -> anyhow::Result<()> {
    let mut suns = tokio::task::JoinSet::new();
    for sun in 0..SUNS {
        let ratings = Arc::clone(ratings);
        let own: Vec<Batch> = batches.iter().skip(sun).step_by(SUNS).map(|&batch| batch.clone()).collect();
        suns.spawn(async move {
            for (sequence, batch) in (1..).zip(own) {
                let (source, mark) = (format!("sun{sun}"), Mark { boot, sequence });
                // False when it was tried twice: it is counted all the same.
                ratings.count(Batch { source: source.clone(), mark, ..batch.clone() }).await?;
            }
            Ok::<_, popularity_api::engine::CountError>(())
        });
    }
    while let Some(sun) = suns.join_next().await {
        sun??;
    }
    Ok(())
}

fn settings(nodes: &RedisCluster) -> Settings {
    Settings {
        nodes: nodes.addresses(),
        username: None,
        password: None,
        prefix: "sun".to_owned(),
        shards: 16,
        replicas: 1,
        wait: Duration::from_secs(1),
        timeout: Duration::from_secs(30),
        scan_max: 100_000,
        decay: Decay::new(3600, 172_800, 0.25).expect("a sound decay"),
        pairs_max: 5_000_000,
        commit: Duration::from_millis(20),
        queue_bytes_max: 64 << 20,
        clock: Clock::system(),
    }
}

/// What `INFO` says, all nodes together.
fn used(nodes: &RedisCluster, what: &str) -> f64 {
    let of = |node| {
        let info = nodes.ask(node, &["INFO", "everything"]);
        info.lines().find_map(|line| line.strip_prefix(what)?.trim().parse::<f64>().ok()).unwrap_or_default()
    };
    (0..nodes.addresses().len()).map(of).sum()
}

const REGION: RegionId = RegionId(4);
const SUNS: usize = 16;
/// Of a thousand entries each.
const BATCHES: usize = 400;
