//! What the end-to-end tests and the benchmarks stand on: both ends of the system, scripted, and the real
//! programs between them.
//!
//! ```text
//!    client / raw          the programs, as built                   origin
//!   +------------+       +------------------------------+       +-----------------+
//!   | every byte |  -->  | sun  cache-daemon            |  -->  | does as told,   |
//!   | is checked |       | popularity-api  geo  sunctl  |       | remembers asks  |
//!   +------------+       +------------------------------+       +-----------------+
//!                          world: folder, addresses, certificates, tokens, topology, configs
//! ```
//!
//! In reading order: [`world`] (a system of a test's own), [`topology`] and [`settings`] (its documents), [`origin`] (the content
//! server), [`intake`] (one that takes uploads), [`client`], [`raw`] and [`visitors`] (who asks), [`routers`] (real ones),
//! [`lab`] (a group of suns behind a router, and what fails there), [`booted`] (machines with systemd), [`process`] (programs), [`pattern`] (which byte belongs where), [`poll`] (waiting),
//! [`conformance`] (the public suite for HTTP caches), [`addresses`], [`certificates`], [`files`], [`metrics`].
//!
//! Not here: a mock of any part of Sun. Nor does anything sleep to wait for something: it polls with a deadline.

pub mod addresses;
pub mod booted;
pub mod certificates;
pub mod client;
pub mod conformance;
pub mod etcd;
pub mod files;
pub mod intake;
pub mod lab;
pub mod metrics;
pub mod origin;
pub mod pattern;
pub mod poll;
pub mod process;
pub mod raw;
pub mod redis_cluster;
pub mod routers;
pub mod settings;
pub mod topology;
pub mod visitors;
pub mod world;
