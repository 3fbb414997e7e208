//! A copy of another API: it follows that one's binlog and state, answers what is read, and refuses what is written.
//!
//! ```text
//!   primary                                      this API
//!
//!   GET /v1/snapshot, /v1/binlog --ratings.rs--> folder DATA/ratings: the same frames at the same offsets
//!                                                engine ---------> top, wanted
//!   GET /v1/state, .../holdings, --state.rs----> registry, holdings, purges ---> links, hot
//!       /v1/purge                                folder DATA/state: the last of it, for a start while the primary is away
//! ```
//!
//! In reading order:
//!
//! - [`lag`]: how far behind it is. Pure.
//! - [`copying`]: a snapshot and the binlog after it, over HTTP into a folder; backups are made by it too.
//! - [`ratings`]: the engine that is fed by frames instead of batches, and what feeds it.
//! - [`state`], [`kept`]: what links are made from.
//! - [`start`]: the beginning.
//!
//! Without `replica.ratings` it is a maker of links and nothing else: no engine, no disk but for the last state.
//!
//! # Invariants
//!
//! - A copy has a prefix of the primary's binlog, byte by byte: the same offsets, the same marks of sources. So it is the
//!   primary's equal at its offset, and can take its place: started without `[replica]` it counts on from there, under a
//!   lineage of its own (`engine/lineage.rs`). Batches between its offset and the primary's end are lost then, unless their
//!   sources still have them.
//! - What was counted by itself is never overwritten: a folder that is no copy is not followed into.
//! - It answers by old ratings rather than not at all: what it has stays in use until a new copy is whole.

pub mod copying;
pub mod kept;
pub mod lag;
pub mod ratings;
pub mod start;
pub mod state;

use daemon::metrics::Meters;
use prometheus::{Gauge, IntCounter, IntGauge};

/// What a copy tells of itself.
#[derive(Clone, Debug)]
pub struct Metrics {
    behind_bytes: IntGauge,
    behind_seconds: Gauge,
    restarts: IntCounter,
    settings_differ: IntGauge,
    state_age_seconds: Gauge,
    degraded: IntGauge,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    ///
    /// When the registry has one of these names already.
    pub fn register(registry: &prometheus::Registry) -> prometheus::Result<Self> {
        let meters = Meters::new(registry, "popularity_replica_");
        Ok(Self {
            behind_bytes: meters.gauge("behind_bytes", "Binlog that is not counted here yet")?,
            behind_seconds: meters.fraction("behind_seconds", "How old the ratings are")?,
            restarts: meters.counter("restarts_total", "Whole copies made, each from a snapshot")?,
            settings_differ: meters.gauge("settings_differ", "1 while the primary keeps its ratings otherwise")?,
            state_age_seconds: meters.fraction("state_age_seconds", "How old the state of links is")?,
            degraded: meters.gauge("links_degraded", "1 while links go by the topology alone")?,
        })
    }
}
