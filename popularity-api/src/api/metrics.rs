//! What the API tells of itself.

use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};

/// What the API counts beside the engine.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Calls, by route and status.
    pub calls: IntCounterVec,
    /// Seconds from a call's head to its answer's, by route.
    pub seconds: HistogramVec,
    /// Entries that were left out of what was sent, by call and reason.
    pub refused: IntCounterVec,
    /// Files that caches say they hold, by cache.
    pub held: IntGaugeVec,
    /// Share of their responses that reporters are asked to count.
    pub sample: Gauge,
    /// Links made, by the kind of server they name: `cache`, `sun`, `content_server`, or `none`.
    pub links: IntCounterVec,
    /// Share of a region's clients whose links name their next region, because it is full.
    pub diverted: GaugeVec,
    /// Signing keys that the topology names and the key file does not have.
    pub keys_lacking: IntGauge,
    /// Version of the running topology.
    pub topology_version: IntGauge,
    /// Purges accepted since the start.
    pub purges: IntCounter,
    /// Sequence of the last purge, 0 while there was none.
    pub purge_sequence: IntGauge,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    ///
    /// When the registry has one of these names already.
    pub fn register(registry: &prometheus::Registry) -> prometheus::Result<Self> {
        let calls = IntCounterVec::new(
            Opts::new("popularity_calls_total", "Calls, by route and status."),
            &["route", "status"],
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new("popularity_call_seconds", "From a call's head to its answer's, by route.")
                .buckets(SECONDS.to_vec()),
            &["route"],
        )?;
        registry.register(Box::new(seconds.clone()))?;
        let refused = IntCounterVec::new(
            Opts::new("popularity_entries_refused_total", "Entries left out of what was sent, by call and reason."),
            &["call", "reason"],
        )?;
        registry.register(Box::new(refused.clone()))?;
        let held =
            IntGaugeVec::new(Opts::new("popularity_held_files", "Files that a cache says it holds."), &["cache"])?;
        let links =
            IntCounterVec::new(Opts::new("popularity_links_total", "Links made, by kind of server."), &["server"])?;
        let diverted = GaugeVec::new(
            Opts::new(
                "popularity_diverted_share",
                "Share of a region's clients that are sent on since it is full, 0..=1.",
            ),
            &["region"],
        )?;
        registry.register(Box::new(diverted.clone()))?;
        let topology_version = IntGauge::new("popularity_topology_version", "Version of the running topology.")?;
        let sample = Gauge::new("popularity_sample", "Share of their responses that reporters are asked to count.")?;
        sample.set(1.0);
        registry.register(Box::new(sample.clone()))?;
        let keys_lacking = IntGauge::new(
            "popularity_signing_keys_lacking",
            "Signing keys that the topology names and signing_keys does not have.",
        )?;
        registry.register(Box::new(keys_lacking.clone()))?;
        let purges = IntCounter::new("popularity_purges_total", "Purges accepted.")?;
        let purge_sequence = IntGauge::new("popularity_purge_sequence", "Sequence of the last purge.")?;
        registry.register(Box::new(purges.clone()))?;
        registry.register(Box::new(purge_sequence.clone()))?;
        registry.register(Box::new(topology_version.clone()))?;
        registry.register(Box::new(calls.clone()))?;
        registry.register(Box::new(held.clone()))?;
        registry.register(Box::new(links.clone()))?;
        Ok(Self {
            sample,
            calls,
            seconds,
            refused,
            held,
            links,
            diverted,
            keys_lacking,
            topology_version,
            purges,
            purge_sequence,
        })
    }
}

/// Bounds of the histogram's buckets: a commit of 200 ms and a long poll of seconds are in the middle of one.
const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.3, 1.0, 3.0, 10.0];
