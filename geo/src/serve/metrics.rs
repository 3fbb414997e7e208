//! What the server counts.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

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
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone())).map(|()| gauge)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauges.clone())).map(|()| gauges)
        };
        let calls =
            IntCounterVec::new(Opts::new("geo_calls_total", "Calls, by route and status."), &["route", "status"])?;
        registry.register(Box::new(calls.clone()))?;
        let changes = IntCounter::new("geo_changes_total", "Prefixes whose entry in the table changed.")?;
        registry.register(Box::new(changes.clone()))?;
        Ok(Self {
            calls,
            changes,
            sequence: gauge("geo_table_sequence", "Sequence of the table's last change.")?,
            settled: gauge("geo_settled", "1: the table is what routers say now; 0: what was saved.")?,
            pending: gauge("geo_pending_prefixes", "Prefixes that wait for their change.")?,
            early: gauge("geo_early_prefixes", "Prefixes moved before their time since too many waited.")?,
            prefixes: gauges("geo_table_prefixes", "Prefixes in the table.", &["family"])?,
            table_refused: gauge(
                "geo_table_refused_prefixes",
                "Prefixes that the table had no room for since it was built.",
            )?,
            table_bytes: gauge("geo_table_bytes", "RAM of the table.")?,
            routes: gauge("geo_routes", "Routes of routers.")?,
            routes_bytes: gauge("geo_routes_bytes", "RAM of routes.")?,
            topology: gauge("geo_topology_version", "Version of the topology whose regions count.")?,
            peer_routes: gauges("geo_router_routes", "Routes of a router's peers.", &["router", "state"])?,
            refused: gauges("geo_router_refused_prefixes", "Prefixes refused because of a limit.", &["router"])?,
            sources_missing: gauge(
                "geo_sources_missing",
                "Sources that could not be used at the start: the saved table stands until they can.",
            )?,
            sources_refused: gauge(
                "geo_sources_refused",
                "1: something that was changed cannot be read or used; 0: all is in use.",
            )?,
        })
    }

    /// Counts a step.
    pub(super) fn stepped(&self, stepped: Stepped) {
        self.changes.inc_by(stepped.changed as u64);
    }

    /// Takes the figures; to be called each second.
    pub(super) fn tell(&self, stats: &Stats) {
        self.sequence.set(signed(stats.position.sequence));
        self.settled.set(i64::from(stats.settled));
        self.pending.set(signed(stats.pending as u64));
        self.early.set(signed(stats.moved_early));
        self.prefixes.with_label_values(&["ipv4"]).set(signed(stats.table.prefixes_v4 as u64));
        self.prefixes.with_label_values(&["ipv6"]).set(signed(stats.table.prefixes_v6 as u64));
        self.table_bytes.set(signed(stats.table.bytes as u64));
        self.table_refused.set(signed(stats.table.refused as u64));
        self.routes.set(signed(stats.routes.routes));
        self.routes_bytes.set(signed(stats.routes.bytes));
        self.topology.set(signed(stats.topology_version));
        self.sources_missing.set(signed(stats.missing.len() as u64));
        for feed in &stats.feeds {
            let sum = |of: fn(&crate::rib::SideState) -> u32| {
                feed.peers.iter().map(|peer| i64::from(of(&peer.v4)) + i64::from(of(&peer.v6))).sum::<i64>()
            };
            let name = feed.name.as_str();
            self.peer_routes.with_label_values(&[name, "all"]).set(sum(|side| side.routes));
            self.peer_routes.with_label_values(&[name, "stale"]).set(sum(|side| side.stale));
            self.peer_routes.with_label_values(&[name, "held"]).set(sum(|side| side.held));
            self.refused.with_label_values(&[name]).set(feed.peers.iter().map(|peer| signed(peer.refused)).sum());
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

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
