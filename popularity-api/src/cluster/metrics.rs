//! What the cluster tells of itself. What the embedded engine tells too has the same name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::places::Place;
use super::scripts::Counted;
use crate::engine::COMMITS_FAILING;
use crate::engine::marks::Gaps;
use crate::engine::table::Standing;

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
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(format!("popularity_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let outcomes = |name: &str, help: &str| -> Result<IntCounterVec, prometheus::Error> {
            let counters = IntCounterVec::new(Opts::new(format!("popularity_{name}"), help), &["outcome"])?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let pairs = IntGaugeVec::new(Opts::new("popularity_pairs", "Rated files of each region"), &["region"])?;
        registry.register(Box::new(pairs.clone()))?;
        let buckets = vec![0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];
        let help = "Counting one group of batches, with its confirmation by copies";
        let commit_seconds = HistogramOpts::new("popularity_commit_seconds", help).buckets(buckets);
        let commit_seconds = Histogram::with_opts(commit_seconds)?;
        registry.register(Box::new(commit_seconds.clone()))?;
        let up = IntGauge::new("popularity_cluster_up", "1 while the cluster of the ratings can be used")?;
        registry.register(Box::new(up.clone()))?;
        let commits_failing = IntGauge::new("popularity_commits_failing", COMMITS_FAILING)?;
        registry.register(Box::new(commits_failing.clone()))?;
        Ok(Self {
            up,
            commits_failing,
            gaps: Gaps::register(registry)?,
            pairs,
            shards: Arc::default(),
            evicted: counter("pairs_evicted_total", "Lowest-rated pairs dropped to keep a shard's bound")?,
            turned_away: counter("pairs_turned_away_total", "Reports of files that a full shard did not let in")?,
            counted_pairs: counter("pair_updates_total", "Downloads entries counted")?,
            batches: outcomes("cluster_batches_total", "Batches, by how they ended")?,
            commit_seconds,
            parts: outcomes("cluster_parts_total", "Parts of batches, one a shard, by how they ended")?,
            retries: counter("cluster_retries_total", "Scripts sent again because the cluster did not confirm them")?,
            short: counter("cluster_wait_short_total", "Scripts that too few copies confirmed in time")?,
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
        self.pairs.with_label_values(&[&place.region.to_string()]).set(i64::try_from(pairs).unwrap_or(i64::MAX));
    }

    /// So many parts did not get through.
    pub(super) fn unconfirmed(&self, parts: usize) {
        self.parts.with_label_values(&["unconfirmed"]).inc_by(parts as u64);
    }
}
