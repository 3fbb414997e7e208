//! What the API tells of itself.

use daemon::metrics::Meters;
use prometheus::{Gauge, GaugeVec, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

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
        let meters = Meters::new(registry, "popularity_");
        let sample = meters.fraction("sample", "Share of their responses that reporters are asked to count.")?;
        sample.set(1.0);
        Ok(Self {
            calls: meters.counters("calls_total", "Calls, by route and status.", &["route", "status"])?,
            seconds: meters.histograms(
                "call_seconds",
                "From a call's head to its answer's, by route.",
                &SECONDS,
                &["route"],
            )?,
            refused: meters.counters(
                "entries_refused_total",
                "Entries left out of what was sent, by call and reason.",
                &["call", "reason"],
            )?,
            held: meters.gauges("held_files", "Files that a cache says it holds.", &["cache"])?,
            sample,
            links: meters.counters("links_total", "Links made, by kind of server.", &["server"])?,
            diverted: meters.fractions(
                "diverted_share",
                "Share of a region's clients that are sent on since it is full, 0..=1.",
                &["region"],
            )?,
            keys_lacking: meters.gauge(
                "signing_keys_lacking",
                "Signing keys that the topology names and signing_keys does not have.",
            )?,
            topology_version: meters.gauge("topology_version", "Version of the running topology.")?,
            purges: meters.counter("purges_total", "Purges accepted.")?,
            purge_sequence: meters.gauge("purge_sequence", "Sequence of the last purge.")?,
        })
    }
}

/// Bounds of the histogram's buckets: a commit of 200 ms and a long poll of seconds are in the middle of one.
const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.3, 1.0, 3.0, 10.0];
