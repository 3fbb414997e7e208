//! What the listener counts.

use daemon::metrics::Meters;
use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Registry};

use crate::feed::Ignored;

/// Counters of the listener, by router; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    connected: IntGaugeVec,
    connections: IntCounterVec,
    messages: IntCounterVec,
    malformed: IntCounterVec,
    ignored: IntCounterVec,
    bytes: IntCounterVec,
    refused: IntCounter,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    ///
    /// When the registry has one of these names already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let meters = Meters::new(registry, "geo_bmp_");
        let counter = |name: &str, help: &str| meters.counters(name, help, &["router"]);
        Ok(Self {
            connected: meters.gauges("connected", "Whether the router is connected", &["router"])?,
            connections: counter("connections_total", "Connections of the router")?,
            messages: counter("messages_total", "BMP messages")?,
            malformed: counter("malformed_total", "BMP messages or attributes that could not be read")?,
            ignored: meters.counters("ignored_total", "What was left out, by what it is", &["router", "what"])?,
            bytes: counter("bytes_total", "Bytes received")?,
            refused: meters.counter("refused_total", "Connections from addresses that no router has")?,
        })
    }

    pub(super) fn connected(&self, router: &str) {
        self.connected.with_label_values(&[router]).set(1);
        self.connections.with_label_values(&[router]).inc();
    }

    pub(super) fn lost(&self, router: &str) {
        self.connected.with_label_values(&[router]).set(0);
    }

    pub(super) fn message(&self, router: &str) {
        self.messages.with_label_values(&[router]).inc();
    }

    pub(super) fn malformed(&self, router: &str) {
        self.malformed.with_label_values(&[router]).inc();
    }

    pub(super) fn ignored(&self, router: &str, what: Ignored) {
        self.ignored.with_label_values(&[router, what.name()]).inc();
    }

    pub(super) fn read(&self, router: &str, bytes: usize) {
        self.bytes.with_label_values(&[router]).inc_by(bytes as u64);
    }

    pub(super) fn refused(&self) {
        self.refused.inc();
    }
}
