//! Ratings over a real Redis Cluster: the same as the embedded engine's, and none lost or counted twice whatever fails.
//!
//! Six nodes a test, and one test at a time: the machine has its own limits.

mod failing;
mod same;
mod serving;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use geo::RegionId;
use popularity_api::cluster::{Clock, Cluster, Metrics, Settings};
use popularity_api::engine::batch::{Batch, Entry};
use popularity_api::engine::decay::{Decay, LANDMARK_MS};
use popularity_api::engine::table::Mark;

use crate::redis_cluster::RedisCluster;

/// A cluster that has the machine for itself.
struct World {
    redis: RedisCluster,
    registry: prometheus::Registry,
    _alone: MutexGuard<'static, ()>,
}

impl World {
    fn start(options: &[&str]) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Self { redis: RedisCluster::start(options), registry: prometheus::Registry::new(), _alone: alone }
    }

    /// What one counter or gauge family sums up to, of those with this label's value.
    fn metric(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let of = families
            .iter()
            .filter(|family| family.name() == name)
            .flat_map(prometheus::proto::MetricFamily::get_metric);
        let of = of.filter(|metric| label.is_empty() || metric.get_label().iter().any(|pair| pair.value() == label));
        of.map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value()).sum()
    }

    fn settings(&self) -> Settings {
        Settings {
            nodes: self.redis.addresses(),
            username: None,
            password: None,
            prefix: "test".to_owned(),
            shards: SHARDS,
            replicas: 1,
            wait: Duration::from_millis(500),
            timeout: Duration::from_secs(4),
            scan_max: 10_000,
            decay: Decay::new(3600, 172_800, 0.25).unwrap(),
            pairs_max: 1_000_000,
            commit: Duration::from_millis(2),
            queue_bytes_max: 64 << 20,
            clock: Clock::simulated(|| LANDMARK_MS),
        }
    }

    fn ratings(&self) -> Cluster {
        Cluster::start(self.settings(), Metrics::register(&self.registry).unwrap()).unwrap()
    }

    fn other_ratings(&self, settings: Settings) -> Cluster {
        Cluster::start(settings, Metrics::register(&prometheus::Registry::new()).unwrap()).unwrap()
    }
}

fn batch(source: &str, (boot, sequence): (u64, u64), files: &[(&str, f64)]) -> Batch {
    let entry =
        |&(file, downloads): &(&str, f64)| Entry { region: REGION, file: file.into(), size: 1 << 20, downloads };
    Batch { source: source.to_owned(), mark: Mark { boot, sequence }, entries: files.iter().map(entry).collect() }
}

/// A clock that is set by hand.
#[derive(Clone, Default)]
struct Hand(Arc<AtomicU64>);

impl Hand {
    fn set(&self, ms: u64) {
        self.0.store(ms, Ordering::Relaxed);
    }

    fn clock(&self) -> Clock {
        let this = self.clone();
        Clock::simulated(move || this.0.load(Ordering::Relaxed))
    }
}

const REGION: RegionId = RegionId(4);
const SHARDS: u32 = 8;
