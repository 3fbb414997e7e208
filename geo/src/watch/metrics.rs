//! What a daemon tells of the topology's source.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

use super::News;
use super::running::Taken;

/// All of it; cheap to clone. The default is told to nobody.
#[derive(Clone, Debug)]
pub struct Metrics {
    up: IntGauge,
    revision: IntGauge,
    confirmed: IntGauge,
    failures: IntCounterVec,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    ///
    /// When the registry has one of these names already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self::new()?;
        registry.register(Box::new(metrics.up.clone()))?;
        registry.register(Box::new(metrics.revision.clone()))?;
        registry.register(Box::new(metrics.confirmed.clone()))?;
        registry.register(Box::new(metrics.failures.clone()))?;
        Ok(metrics)
    }

    fn new() -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| IntGauge::new(name, help);
        let failures = Opts::new("topology_source_failures_total", "Times the topology could not be taken, by why.");
        let failures = IntCounterVec::new(failures, &["why"])?;
        for why in [UNREADABLE, REFUSED] {
            failures.with_label_values(&[why]);
        }
        Ok(Self {
            up: gauge("topology_source_up", "Whether the topology's source can be read.")?,
            revision: gauge("topology_revision", "Revision of the topology's key in etcd; 0: the source is a file.")?,
            confirmed: gauge(
                "topology_confirmed_timestamp_seconds",
                "When the topology's source was read last, or said that nothing changed, Unix time; 0: not since the start.",
            )?,
            failures,
        })
    }

    pub(super) fn tell(&self, news: &News) {
        if let News::Away(_) = news {
            self.up.set(0);
            self.failures.with_label_values(&[UNREADABLE]).inc();
            return;
        }
        self.up.set(1);
        self.confirmed.set(i64::try_from(daemon::clock::unix_s()).unwrap_or(i64::MAX));
        if let News::Document { revision: Some(revision), .. } = news {
            self.revision.set(i64::try_from(*revision).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn took(&self, taken: &Taken) {
        if let Taken::Refused = taken {
            self.failures.with_label_values(&[REFUSED]).inc();
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new().expect("the names are well formed")
    }
}

const UNREADABLE: &str = "unreadable";
const REFUSED: &str = "refused";
