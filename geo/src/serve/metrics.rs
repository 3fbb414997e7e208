//! What the server counts.

use daemon::metrics::{Meters, level};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use crate::engine::{Stats, Stepped};

/// All of it; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    /// Calls, by route and status.
    pub(super) calls: IntCounterVec,
    changes: IntCounter,
    sequence: IntGauge,
    settled: IntGauge,
    pending: IntGauge,
    early: IntGauge,
    prefixes: IntGaugeVec,
    table_bytes: IntGauge,
    table_refused: IntGauge,
    routes: IntGauge,
    routes_bytes: IntGauge,
    topology: IntGauge,
    peer_routes: IntGaugeVec,
    refused: IntGaugeVec,
    sources_refused: IntGauge,
    sources_missing: IntGauge,
}

impl Metrics {
    /// Makes and registers them.
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let meters = Meters::new(registry, "geo_");
        Ok(Self {
            calls: meters.counters("calls_total", "Calls, by route and status.", &["route", "status"])?,
            changes: meters.counter("changes_total", "Prefixes whose entry in the table changed.")?,
            sequence: meters.gauge("table_sequence", "Sequence of the table's last change.")?,
            settled: meters.gauge("settled", "1: the table is what routers say now; 0: what was saved.")?,
            pending: meters.gauge("pending_prefixes", "Prefixes that wait for their change.")?,
            early: meters.gauge("early_prefixes", "Prefixes moved before their time since too many waited.")?,
            prefixes: meters.gauges("table_prefixes", "Prefixes in the table.", &["family"])?,
            table_refused: meters
                .gauge("table_refused_prefixes", "Prefixes that the table had no room for since it was built.")?,
            table_bytes: meters.gauge("table_bytes", "RAM of the table.")?,
            routes: meters.gauge("routes", "Routes of routers.")?,
            routes_bytes: meters.gauge("routes_bytes", "RAM of routes.")?,
            topology: meters.gauge("topology_version", "Version of the topology whose regions count.")?,
            peer_routes: meters.gauges("router_routes", "Routes of a router's peers.", &["router", "state"])?,
            refused: meters.gauges("router_refused_prefixes", "Prefixes refused because of a limit.", &["router"])?,
            sources_missing: meters.gauge(
                "sources_missing",
                "Sources that could not be used at the start: the saved table stands until they can.",
            )?,
            sources_refused: meters
                .gauge("sources_refused", "1: something that was changed cannot be read or used; 0: all is in use.")?,
        })
    }

    /// Counts a step.
    pub(super) fn stepped(&self, stepped: Stepped) {
        self.changes.inc_by(stepped.changed as u64);
    }

    /// Takes the figures; to be called each second.
    pub(super) fn tell(&self, stats: &Stats) {
        self.sequence.set(level(stats.position.sequence));
        self.settled.set(i64::from(stats.settled));
        self.pending.set(level(stats.pending));
        self.early.set(level(stats.moved_early));
        self.prefixes.with_label_values(&["ipv4"]).set(level(stats.table.prefixes_v4));
        self.prefixes.with_label_values(&["ipv6"]).set(level(stats.table.prefixes_v6));
        self.table_bytes.set(level(stats.table.bytes));
        self.table_refused.set(level(stats.table.refused));
        self.routes.set(level(stats.routes.routes));
        self.routes_bytes.set(level(stats.routes.bytes));
        self.topology.set(level(stats.topology_version));
        self.sources_missing.set(level(stats.missing.len()));
        for feed in &stats.feeds {
            let sum = |of: fn(&crate::rib::SideState) -> u32| {
                feed.peers.iter().map(|peer| i64::from(of(&peer.v4)) + i64::from(of(&peer.v6))).sum::<i64>()
            };
            let name = feed.name.as_str();
            self.peer_routes.with_label_values(&[name, "all"]).set(sum(|side| side.routes));
            self.peer_routes.with_label_values(&[name, "stale"]).set(sum(|side| side.stale));
            self.peer_routes.with_label_values(&[name, "held"]).set(sum(|side| side.held));
            self.refused.with_label_values(&[name]).set(feed.peers.iter().map(|peer| level(peer.refused)).sum());
        }
    }

    /// Routers that are configured no more are not told any longer.
    pub(super) fn installed(&self) {
        [&self.peer_routes, &self.refused].into_iter().for_each(IntGaugeVec::reset);
    }

    /// Whether what was changed last is refused.
    pub(super) fn sources(&self, refused: bool) {
        self.sources_refused.set(i64::from(refused));
    }
}
