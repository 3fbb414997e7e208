//! What the cluster tells of itself. What the embedded engine tells too has the same name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use daemon::metrics::{Meters, level};
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::places::Place;
use super::scripts::Counted;
use crate::engine::marks::Gaps;
use crate::engine::table::Standing;
use crate::engine::{COMMITS_FAILING, SECONDS};

/// The counters.
#[derive(Clone, Debug)]
pub struct Metrics {
    pairs: IntGaugeVec,
    /// Pairs of each shard, as it last said.
    shards: Arc<Mutex<BTreeMap<Place, u64>>>,
    evicted: IntCounter,
    turned_away: IntCounter,
    pub(super) counted_pairs: IntCounter,
    /// Batches, by outcome: `counted`, `duplicate`, `stale`, `misnumbered`, `unconfirmed`, `busy`.
    pub(super) batches: IntCounterVec,
    pub(super) commit_seconds: Histogram,
    /// 1 while the cluster can be used.
    pub(super) up: IntGauge,
    /// 1 while batches are not confirmed.
    pub(super) commits_failing: IntGauge,
    pub(super) gaps: Gaps,
    parts: IntCounterVec,
    pub(super) retries: IntCounter,
    pub(super) short: IntCounter,
    pub(super) asks: IntCounterVec,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    ///
    /// When the registry has one of these names already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let meters = Meters::new(registry, "popularity_");
        let outcomes = |name: &str, help: &str| meters.counters(name, help, &["outcome"]);
        Ok(Self {
            up: meters.gauge("cluster_up", "1 while the cluster of the ratings can be used")?,
            commits_failing: meters.gauge("commits_failing", COMMITS_FAILING)?,
            gaps: Gaps::register(registry)?,
            pairs: meters.gauges("pairs", "Rated files of each region", &["region"])?,
            shards: Arc::default(),
            evicted: meters.counter("pairs_evicted_total", "Lowest-rated pairs dropped to keep a shard's bound")?,
            turned_away: meters
                .counter("pairs_turned_away_total", "Reports of files that a full shard did not let in")?,
            counted_pairs: meters.counter("pair_updates_total", "Downloads entries counted")?,
            batches: outcomes("cluster_batches_total", "Batches, by how they ended")?,
            commit_seconds: meters.histogram(
                "commit_seconds",
                "Counting one group of batches, with its confirmation by copies",
                &SECONDS,
            )?,
            parts: outcomes("cluster_parts_total", "Parts of batches, one a shard, by how they ended")?,
            retries: meters
                .counter("cluster_retries_total", "Scripts sent again because the cluster did not confirm them")?,
            short: meters.counter("cluster_wait_short_total", "Scripts that too few copies confirmed in time")?,
            asks: outcomes("cluster_asks_total", "Questions for rankings, by how they ended")?,
        })
    }

    /// A shard has answered.
    pub(super) fn counted(&self, place: Place, counted: &Counted) {
        for (standing, _) in &counted.standings {
            let outcome = match standing {
                Standing::New => "counted",
                Standing::Counted => "duplicate",
                Standing::Stale => "stale",
            };
            self.parts.with_label_values(&[outcome]).inc();
        }
        self.evicted.inc_by(counted.evicted);
        self.turned_away.inc_by(counted.turned_away);
        // What a panic leaves behind is still a map.
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        shards.insert(place, counted.pairs);
        let of_region = Place { shard: 0, ..place }..=Place { shard: u32::MAX, ..place };
        let pairs: u64 = shards.range(of_region).map(|(_, pairs)| pairs).sum();
        self.pairs.with_label_values(&[&place.region.to_string()]).set(level(pairs));
    }

    /// So many parts did not get through.
    pub(super) fn unconfirmed(&self, parts: usize) {
        self.parts.with_label_values(&["unconfirmed"]).inc_by(parts as u64);
    }
}
