//! What a daemon tells of the table that it follows.

use std::time::SystemTime;

use daemon::metrics::{Meters, level};
use prometheus::{IntGauge, Registry};

use super::Follower;

/// All of it; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    sequence: IntGauge,
    heard: IntGauge,
    heard_at: IntGauge,
    bytes: IntGauge,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    ///
    /// When the registry has one of these names already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let meters = Meters::new(registry, "geo_followed_");
        Ok(Self {
            sequence: meters.gauge("sequence", "Sequence of the followed table's last change that is in use.")?,
            heard: meters.gauge("answers", "Answers of the geo server that could be used, since the start.")?,
            heard_at: meters.gauge(
                "timestamp_seconds",
                "When the geo server answered last so that it could be used, Unix time; 0: not since the start.",
            )?,
            bytes: meters.gauge("table_bytes", "RAM of the followed table.")?,
        })
    }

    /// Takes the figures; to be called when there was an answer or none.
    pub(super) fn tell(&self, follower: &Follower, now: SystemTime) {
        let sequence = follower.course.at().map_or(0, |at| at.sequence);
        self.sequence.set(level(sequence));
        self.bytes.set(level(follower.writer.table().counts().bytes));
        self.heard.set(level(follower.heard));
        if follower.heard > 0 && !follower.away {
            let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            self.heard_at.set(level(since.as_secs()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Got, Since};
    use super::*;
    use crate::client::{ClientError, Whole};
    use crate::table::{Content, Stamp, Writer};
    use crate::wire::Changes;

    #[test]
    fn how_old_and_how_large_the_followed_table_is_can_be_seen() {
        let (registry, now) = (Registry::new(), |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second));
        let metrics = Metrics::register(&registry).unwrap();
        let told = || [metrics.sequence.get(), metrics.heard.get(), metrics.heard_at.get()];
        let follower = Follower::start(None);
        metrics.tell(&follower, now(5));
        assert_eq!(told(), [0, 0, 0]);
        let stamp = Stamp { epoch: 7, sequence: 3, ..Stamp::default() };
        let bytes = Writer::build(Content::default()).encode(&stamp);
        let follower = follower.taken(Ok(Got::Whole(Whole::New(bytes))));
        metrics.tell(&follower, now(6));
        assert_eq!(told(), [3, 1, 6]);
        assert!(metrics.bytes.get() > 0);
        let away = ClientError::Unreachable { url: "x".to_owned(), why: "away".to_owned() };
        let follower = follower.taken(Err(away));
        metrics.tell(&follower, now(7));
        assert_eq!(told(), [3, 1, 6], "it is as old as it is");
        let nothing = Changes { epoch: 7, sequence: 3, changes: Vec::new() };
        let follower = follower.taken(Ok(Got::Since(Since::Changes(nothing), Duration::from_secs(20))));
        metrics.tell(&follower, now(8));
        assert_eq!(told(), [3, 2, 8]);
        assert!(Metrics::register(&registry).is_err(), "it is there");
    }
}
