//! A regional cache: carries the best-rated files to its region ahead of demand and hands them out.
//!
//! Suns fetch a file when somebody asks for it; a cache fetches it because the popularity API says that its region
//! will. A file is downloaded whole, checked and synced, and only then served; it stays until something better
//! needs its room.
//!
//! ```text
//!                    wanted: candidates, scores of what is held
//!   popularity API --------------------------------------------> carrier --> plan: pure
//!                  <--------------------------------------------    |          fetch this, drop that
//!                    holdings: deltas, or everything                |
//!                                                                   v
//!   peer cache, content server --> prefill: whole files --> vault: one file each, checksums, warm restart
//!                                                                   |
//!   clients, other servers <-- sun's edge (crate `sun`) <-- held ---+
//! ```
//!
//! In reading order:
//!
//! - [`plan`]: what to fetch and what to drop; pure.
//! - [`vault`]: whole files on an ordinary filesystem, and the format they have there.
//! - [`offer`]: what a source answers, and whether it is taken; pure.
//! - [`prefill`]: one file from a source into the vault. [`turns`]: one cache at a time asks the content server for it.
//! - [`holdings`]: what the API is told about the vault; pure.
//! - [`failures`]: what to leave alone for a while; pure.
//! - [`carrier`]: the loop that carries all this out.
//! - [`metrics`], [`config`], [`server`]: what the daemon counts, its options, its start.
//!
//! # What it is not
//!
//! It does not rate files (the popularity API does), does not decide which cache of a region carries a file (the
//! API does, by placement), and serves nothing by itself: listeners, TLS, HTTP, the RAM tier and passing on what
//! is not held are the edge's. It takes no file because a client asks for it.

pub mod carrier;
pub mod config;
pub mod failures;
pub mod holdings;
pub mod metrics;
pub mod offer;
pub mod plan;
pub mod prefill;
pub mod server;
pub mod turns;
pub mod vault;

pub use config::Config;
pub use server::{check, start};
