//! The daemon's metrics, in the registry that its edge serves at `/metrics`.

use std::sync::Arc;

use daemon::metrics::Meters;
use prometheus::{IntCounter, IntCounterVec, IntGauge, PullingGauge, Registry};

use sun::HeldFiles;

use crate::prefill::{FetchError, Fetched};
use crate::vault::Vault;

/// Counters and gauges of carrying; the vault's own are read when they are asked for.
#[derive(Clone, Debug)]
pub struct Metrics {
    fetched: IntCounterVec,
    fetched_bytes: IntCounter,
    failures: IntCounterVec,
    /// Files dropped by the plan.
    pub dropped: IntCounter,
    /// Files dropped because they were purged.
    pub purged: IntCounter,
    /// Downloads that run.
    pub in_flight: IntGauge,
    /// Calls of the popularity API that failed.
    pub api_failures: IntCounter,
    /// 1 while the disk fails, 0 otherwise.
    pub disk_failing: IntGauge,
}

impl Metrics {
    /// Registers all of them.
    ///
    /// # Errors
    ///
    /// When the registry has one of these names already.
    pub fn new(registry: &Registry, vault: &Arc<Vault>) -> prometheus::Result<Self> {
        let meters = Meters::new(registry, "cache_");
        let metrics = Self {
            fetched: meters.counters("fetched_files_total", "Files carried into the vault, by source.", &["source"])?,
            fetched_bytes: meters.counter("fetched_bytes_total", "Bytes carried into the vault.")?,
            failures: meters.counters("fetch_failures_total", "Downloads that failed, by reason.", &["reason"])?,
            dropped: meters.counter("dropped_files_total", "Files dropped by the plan.")?,
            purged: meters.counter("purged_files_total", "Files dropped because they were purged.")?,
            in_flight: meters.gauge("downloads", "Downloads that run.")?,
            api_failures: meters.counter("api_failures_total", "Calls of the popularity API that failed.")?,
            disk_failing: meters.gauge("disk_failing", "1 while the vault's disk fails.")?,
        };
        // A label that was never counted is not shown, and an alert on it would stay silent for the wrong reason.
        for source in ["cache", "content_server"] {
            metrics.fetched.with_label_values(&[source]);
        }
        for reason in ["lasting", "passing", "waiting", "disk"] {
            metrics.failures.with_label_values(&[reason]);
        }
        pull(registry, vault, "cache_held_files", "Files held.", |vault| vault.files() as f64)?;
        pull(registry, vault, "cache_held_bytes", "Disk taken by held files.", |vault| vault.fullness().0 as f64)?;
        pull(registry, vault, "cache_held_bytes_max", "Disk that may be taken.", |vault| vault.fullness().1 as f64)?;
        pull(registry, vault, "cache_distrusted_files", "Held files that were not what was stored.", |vault| {
            vault.distrusted() as f64
        })?;
        Ok(metrics)
    }

    /// A file was carried.
    pub fn fetched(&self, fetched: Fetched) {
        let source = if fetched.from_cache { "cache" } else { "content_server" };
        self.fetched.with_label_values(&[source]).inc();
        self.fetched_bytes.inc_by(fetched.size);
    }

    /// A file was not.
    pub fn failed(&self, error: &FetchError) {
        let reason = match error {
            FetchError::Lasting(_) => "lasting",
            FetchError::Passing(_) => "passing",
            FetchError::Waiting { .. } => "waiting",
            FetchError::Disk(_) => "disk",
        };
        self.failures.with_label_values(&[reason]).inc();
    }
}

fn pull(
    registry: &Registry,
    vault: &Arc<Vault>,
    name: &str,
    help: &str,
    read: fn(&Vault) -> f64,
) -> prometheus::Result<()> {
    let vault = Arc::clone(vault);
    registry.register(Box::new(PullingGauge::new(name, help, Box::new(move || read(&vault)))?))
}
