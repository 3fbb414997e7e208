//! The edge: what stands between people and files. A library, and the daemon `sun`; a regional cache serves
//! with the same library.
//!
//! ```text
//!   client --TLS--> listener --> request --> flow decides <----> serve carries out
//!                                              |                   |
//!                     conditional, range: what the client gets     +-- ram, store   extents: moka, NVMe
//!                     sources: where missing bytes come from       +-- held         a cache's vault
//!                                                                  +-- fill ------> upstream: owner sun,
//!                                                                  |    one writer,           cache,
//!                                                                  |    many readers          content server
//!                                                                  +-- body, response --> client
//!                                                                         |
//!                                                     report, control --> popularity API
//! ```
//!
//! In reading order:
//!
//! - [`flow`]: the life of a request, all of it. Read this first.
//! - [`caching`]: the rules of RFC 9111. [`errand`]: what is fetched.
//! - [`request`], [`conditional`], [`range`], [`multipart`], [`headers`], [`response`]: HTTP, in and out.
//! - [`meta`], [`extent`], [`ram`], [`held`]: what is known and kept of a file.
//! - [`sources`], [`region`], [`breaker`]: whom to ask, and whom to leave alone.
//! - [`purge`]: what was purged, and what that makes of what is held.
//! - [`fill`]: getting bytes once for everybody. [`upstream`]: asking. [`origin_tls`]: whom to trust there.
//! - [`serve`], [`body`], [`vault_read`]: the shell that waits. [`pass`]: what is not cached, uploads.
//! - [`listener`], [`tls`] with [`validity`], [`tickets`], [`greeting`], [`farewell`], [`stall`], [`interim`]: sockets. [`edge`]: the shared state.
//! - [`hot`]: files that one sun is not enough for.
//! - [`resting`]: when this sun takes less than its weight. [`pressure`]: what it goes by.
//! - [`report`], [`control`], [`metrics`]: what is told to others.
//! - [`config`], [`start`], [`check`]: settings and the beginning.
//! - [`canary`]: what tells how this server is. [`selfcheck`]: another daemon, `sun-check`, that watches a sun and has its addresses announced.
//!
//! # What it is not
//!
//! It does not choose regions or make links (popularity-api), does not plan what to carry (cache-daemon), and is
//! no general proxy: `/c{number}/{path}`, the URLs of the topology's sites and nothing else ever become an upstream
//! request, and which host that goes to is the topology's word alone.

pub mod body;
pub mod breaker;
pub mod caching;
pub mod canary;
mod check;
pub mod conditional;
pub mod config;
pub mod control;
pub mod edge;
pub mod epochs;
pub mod errand;
pub mod extent;
pub mod farewell;
pub mod fill;
pub mod flow;
pub mod greeting;
pub mod headers;
pub mod held;
pub mod hot;
pub mod interim;
pub mod listener;
pub mod meta;
pub mod metrics;
pub mod multipart;
pub mod origin_tls;
pub mod pass;
pub mod pressure;
pub mod purge;
pub mod ram;
pub mod range;
pub mod region;
pub mod report;
pub mod request;
pub mod response;
pub mod resting;
pub mod selfcheck;
pub mod serve;
pub mod sources;
pub mod stall;
mod start;
pub mod store;
pub mod stored;
pub mod tickets;
pub mod tls;
pub mod upstream;
pub mod validity;
pub mod vault_read;

pub use check::check;
pub use config::{Certificate, Config};
pub use held::{HeldFile, HeldFiles};
pub use start::{Parts, Running, purges, start};
