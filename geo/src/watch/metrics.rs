//! What a daemon tells of the topology's source: by metrics, and where something is wrong in a note of `/readyz`. A refused
//! document keeps nobody from being ready, since what runs is good; only an operator can mend it.

use daemon::admin::Readiness;
use daemon::metrics::{Meters, level};
use prometheus::{IntCounterVec, IntGauge, Registry};

use super::News;
use super::running::{Running, Taken};

/// All of it; cheap to clone. The default is told to nobody.
#[derive(Clone, Debug)]
pub struct Metrics {
    up: IntGauge,
    revision: IntGauge,
    confirmed: IntGauge,
    version: IntGauge,
    refused: IntGauge,
    readiness: Readiness,
    failures: IntCounterVec,
}

impl Metrics {
    /// Makes and registers them; notes go to `readiness`.
    ///
    /// # Errors
    ///
    /// When the registry has one of these names already.
    pub fn register(registry: &Registry, readiness: &Readiness) -> prometheus::Result<Self> {
        let meters = Meters::new(registry, "topology_");
        let failures =
            meters.counters("source_failures_total", "Times the topology could not be taken, by why.", &["why"])?;
        for why in [UNREADABLE, REFUSED] {
            failures.with_label_values(&[why]);
        }
        Ok(Self {
            up: meters.gauge("source_up", "Whether the topology's source can be read.")?,
            revision: meters.gauge("revision", "Revision of the topology's key in etcd; 0: the source is a file.")?,
            confirmed: meters.gauge("confirmed_timestamp_seconds", "When the topology's source was read last, or said that nothing changed, Unix time; 0: not since the start.")?,
            version: meters.gauge("version_in_force", "Version of the topology in force, as it was accepted.")?,
            refused: meters.gauge("refused", "Whether the topology that the source has is refused, and an earlier one stays in force.")?,
            readiness: readiness.clone(),
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
        self.confirmed.set(level(daemon::clock::unix_s()));
        if let News::Document { revision: Some(revision), .. } = news {
            self.revision.set(level(*revision));
        }
    }

    pub(super) fn took(&self, taken: &Taken) {
        if let Taken::Refused = taken {
            self.failures.with_label_values(&[REFUSED]).inc();
        }
    }

    /// Tells what runs, and what is wrong with what should.
    pub(super) fn runs(&self, running: &Running) {
        self.version.set(level(running.topology().version));
        self.refused.set(i64::from(running.refusal().is_some()));
        self.readiness.note("topology", running.trouble());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::register(&Registry::new(), &Readiness::default()).expect("the registry is empty")
    }
}

const UNREADABLE: &str = "unreadable";
const REFUSED: &str = "refused";
