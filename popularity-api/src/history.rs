//! The history: what was downloaded when, where and from whom, row by row into ClickHouse, for questions that ratings
//! forget. Optional, and never in the way of counting.
//!
//! ```text
//!   api/downloads --try_send--> worker --every flush_s--> spool: a file a batch --oldest first--> ClickHouse
//!   (counted batches)  |        sums by (region,         | on disk, bounded:    |  POST, gzip     | over HTTP
//!                      |        file, source)            | the oldest go        +- again, later --+
//!                      +- full: dropped and counted      |
//!                                                        +- sent/: what was delivered, bounded, for `fill`
//! ```
//!
//! In reading order: [`buffer`] sums (pure), [`spool`] keeps batches on disk, [`clickhouse`] speaks HTTP, [`pace`] says
//! when to try again (pure), [`sender`] takes the oldest batch there. The tables and queries are in `deploy/clickhouse`.
//!
//! # Invariants
//!
//! - Counting never waits: what finds no room is dropped here and counted as dropped.
//! - A batch leaves the spool when ClickHouse has said 200, or again and again that it is no good. One whose answer was
//!   lost is sent again with the same rows, which the table (`ReplacingMergeTree`, the batch's number in its key) keeps once.
//! - What the process had not yet sealed when it was killed is lost to the history, `flush_s` at most; ratings lose nothing.

//!
//! # What is tested
//!
//! The whole way, with kills, and every query on Debian's clickhouse-server 18.16 (`tests/run history`); tables, lifetime of
//! rows and queries on a current engine, in a process (`tests/history/run`). Not tested, as there is none here: inserts over
//! HTTP into a current server, a replicated or distributed table (there `sunctl history init` is not for you: make `downloads`
//! by hand), and TLS, which is not spoken: where ClickHouse is not on the internal network, put a tunnel before it.

pub mod buffer;
pub mod clickhouse;
pub mod pace;
pub mod sender;
pub mod settings;
pub mod spool;

use std::sync::Arc;

use daemon::metrics::Meters;
use prometheus::{IntCounter, IntCounterVec, IntGauge};
use tokio::sync::mpsc;

pub use settings::History as Settings;

use crate::wire::Download;

/// Where counted downloads go; cheap to clone.
#[derive(Clone, Debug)]
pub struct History {
    noted: mpsc::Sender<Noted>,
    metrics: Arc<Metrics>,
}

/// Downloads of one counted batch.
#[derive(Clone, Debug)]
pub struct Noted {
    /// Who sent the files.
    pub source: String,
    /// Sound ones only.
    pub downloads: Vec<Download>,
}

impl History {
    /// A history and the end that its worker takes from.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<Noted>) {
        let (noted, taken) = mpsc::channel(NOTED_MAX);
        (Self { noted, metrics }, taken)
    }

    /// Takes downloads if there is room, and counts them as dropped if not. Never waits.
    pub fn note(&self, source: &str, downloads: Vec<Download>) {
        let count = downloads.len() as u64;
        if count > 0 && self.noted.try_send(Noted { source: source.to_owned(), downloads }).is_err() {
            self.metrics.dropped("busy", count);
        }
    }
}

/// What the history tells of itself.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Rows that ClickHouse has.
    pub sent: IntCounter,
    /// Rows that were given up, by why: `busy` (the worker did not keep up), `full` (the oldest in a full spool), `disk` (did
    /// not take them), `damaged`, `gone`, `refused` (as no good). Of `busy` and `disk` they are downloads as reported.
    pub dropped: IntCounterVec,
    /// Inserts that failed and were tried again, and reads of the spool.
    pub failures: IntCounter,
    /// Bytes of batches that wait on disk.
    pub spool_bytes: IntGauge,
    /// Batches that wait on disk.
    pub spool_batches: IntGauge,
    /// When the oldest of them was sealed, seconds since 1970; 0 while none waits.
    pub oldest: IntGauge,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    ///
    /// When the registry has one of these names already.
    pub fn register(registry: &prometheus::Registry) -> prometheus::Result<Self> {
        let meters = Meters::new(registry, "popularity_history_");
        Ok(Self {
            sent: meters.counter("rows_sent_total", "Rows that the history's database has taken.")?,
            dropped: meters.counters(
                "rows_dropped_total",
                "Rows of the history that were given up, by why.",
                &["why"],
            )?,
            failures: meters.counter("failures_total", "Inserts that failed and are tried again.")?,
            spool_bytes: meters.gauge("spool_bytes", "Batches of the history on disk, bytes.")?,
            spool_batches: meters.gauge("spool_batches", "Batches of the history on disk.")?,
            oldest: meters.gauge(
                "oldest_timestamp_seconds",
                "When the oldest batch on disk was sealed; 0 while there is none.",
            )?,
        })
    }

    /// Counts rows that were given up, and why.
    pub fn dropped(&self, why: &str, rows: u64) {
        self.dropped.with_label_values(&[why]).inc_by(rows);
    }
}

/// Counted batches that wait for the worker; it takes 10,000 downloads in some milliseconds.
const NOTED_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use geo::RegionId;

    use super::*;

    #[tokio::test]
    async fn who_counts_does_not_wait_and_what_finds_no_room_is_counted() {
        let metrics = Arc::new(Metrics::register(&prometheus::Registry::new()).unwrap());
        let (history, mut taken) = History::new(Arc::clone(&metrics));
        let one = Download { region: RegionId(4), file: "c1/a".to_owned(), size: 1, downloads: 1.0, bytes: 1 };
        for _ in 0..NOTED_MAX + 3 {
            history.note("sun4-1-1", vec![one.clone(), one.clone()]);
        }
        history.note("sun4-1-1", Vec::new());
        assert_eq!(metrics.dropped.with_label_values(&["busy"]).get(), 6);
        drop(history);
        let mut count = 0;
        while taken.recv().await.is_some() {
            count += 1;
        }
        assert_eq!(count, NOTED_MAX);
    }
}
