//! `geo serve`: the daemon that knows which region serves whom, and publishes it.
//!
//! ```text
//!   routers --BMP--------+                       +--> /v1/resolve, explain, audit, stats: people and programs
//!   dumps, lists, geoip  +--> engine --> table --+
//!   rules, topology -----+      |                +--> /v1/table, /v1/table/changes: suns, caches, the popularity API
//!                               |
//!                               +--> data: the saved table, what a start begins with
//! ```

use std::net::IpAddr;

use tokio::sync::watch;

use crate::wire::{Changes, Position, Resolved};

mod publish;
mod routes;

/// Who knows, as the routes ask it: the engine, and a small one in tests. What takes longer than a lookup is called off
/// the async threads.
pub(crate) trait Oracle: Send + Sync + 'static {
    /// The regions of a client.
    fn resolve(&self, client: IpAddr) -> Resolved;
    /// Why it is these.
    fn explain(&self, client: IpAddr) -> serde_json::Value;
    /// What an operator should look at.
    fn audit(&self) -> serde_json::Value;
    /// Sizes, sources, peers.
    fn stats(&self) -> serde_json::Value;
    /// Where the table is now.
    fn position(&self) -> Position;
    /// Tells where the table is, as it moves.
    fn moved(&self) -> watch::Receiver<Position>;
    /// The first `most` changes after a position; none when it does not know them.
    fn changes(&self, after: Position, most: usize) -> Option<Changes>;
    /// Whether it knows all changes after a position.
    fn reaches(&self, after: Position) -> bool;
    /// The table's bytes, and what they are of.
    fn encode(&self) -> (Position, Vec<u8>);
}
