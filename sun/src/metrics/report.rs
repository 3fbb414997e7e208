//! What is told of downloads on their way to the popularity API.

use daemon::metrics::{Meters, level};
use popularity_api::spool::Figures;
use prometheus::{Gauge, IntCounter, IntGauge, Registry};

/// Counters and gauges of the reporter.
#[derive(Clone, Debug)]
pub struct ReportMetrics {
    /// Share of the responses that is counted, as the API asks for.
    pub sample: Gauge,
    /// Sums that made room for others.
    pub thinned: IntCounter,
    /// Entries of batches that the API refused for good.
    pub refused: IntCounter,
    batches: IntGauge,
    disk_bytes: IntGauge,
    ram_bytes: IntGauge,
    dropped: IntCounter,
    damaged: IntCounter,
    failures: IntCounter,
}

impl ReportMetrics {
    /// Makes and registers them.
    ///
    /// # Errors
    ///
    /// When the registry has something of the same name.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let meters = Meters::new(registry, "edge_report_");
        let sample = meters.fraction("sample", "Share of responses counted as downloads, as the API asks for.")?;
        sample.set(1.0);
        Ok(Self {
            sample,
            thinned: meters.counter("thinned_total", "Sums of small files that made room for others, unbiasedly.")?,
            refused: meters.counter("refused_total", "Downloads entries of batches that the API refused for good.")?,
            batches: meters.gauge("backlog", "Batches of downloads that wait for the popularity API.")?,
            disk_bytes: meters.gauge("spool_bytes", "What they take on disk.")?,
            ram_bytes: meters.gauge("ram_bytes", "What they take in RAM, because the disk did not take them.")?,
            dropped: meters.counter("dropped_total", "Downloads entries dropped because too many batches waited.")?,
            damaged: meters.counter("damaged_total", "Spooled batches that could not be read and were dropped.")?,
            failures: meters.counter("spool_failures_total", "Times that the disk refused something of the spool.")?,
        })
    }

    /// What the spool says of itself.
    pub fn spool(&self, figures: &Figures) {
        let Figures { batches, disk_bytes, ram_bytes, dropped, damaged, failures } = *figures;
        for (gauge, value) in [(&self.batches, batches), (&self.disk_bytes, disk_bytes), (&self.ram_bytes, ram_bytes)] {
            gauge.set(level(value));
        }
        for (counter, value) in [(&self.dropped, dropped), (&self.damaged, damaged), (&self.failures, failures)] {
            counter.inc_by(value.saturating_sub(counter.get()));
        }
    }
}
