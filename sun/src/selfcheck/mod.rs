//! The self-check: the daemon `sun-check`, a process of its own beside a sun. It asks the sun twice a second whether it is
//! well, and has its addresses announced while it is.
//!
//! ```text
//!   sun <-- TLS, GET canary -- probe --> judge --> machine --> speaker --> BIRD, ExaBGP --> routers
//!    '------ pidfd ----------- process ------------^  ^
//!   the group's other self-checks <-- peers ----------'
//! ```
//!
//! In reading order: [`machine`] (what follows from what; pure), [`judge`] (what an answer is worth; pure), [`probe`] with
//! [`trust`] and [`own`] and [`local`], [`pressure`], [`process`], [`peers`] with [`asking`], [`speaker`] with [`bird`] and [`exabgp`]; around them [`driver`],
//! [`pulse`], [`start`], [`routes`], [`status`], [`history`], [`metrics`], [`config`] with [`contradictions`], [`cli`].
//!
//! # What it is not
//!
//! It starts and stops no sun, changes no weight, and asks no content server: what is wrong behind the sun is no reason to
//! take its addresses away. Nor does it touch the addresses themselves: every member answers for the whole subnet, always.

pub mod asking;
pub mod bird;
pub mod cli;
pub mod config;
pub mod contradictions;
pub mod driver;
pub mod exabgp;
#[cfg(test)]
mod fixture;
pub mod history;
pub mod judge;
pub mod local;
pub mod machine;
pub mod metrics;
pub mod own;
pub mod peers;
pub mod pressure;
pub mod probe;
pub mod process;
pub mod pulse;
pub mod routes;
pub mod speaker;
pub mod start;
pub mod status;
pub mod trust;

pub use config::Config;
pub use start::{Running, check, start};
