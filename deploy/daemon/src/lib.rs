//! What every daemon needs to be deployed: its config, its logs, its admin port and its end.
//!
//! A daemon is a library with a `start(config, drain)`; this crate is everything around that call, so that
//! its `main.rs` is a page and all daemons behave alike on a command line, under systemd and in Prometheus.
//!
//! ```text
//!   NAME --config FILE [--check]
//!      |
//!   process::Args --> config::load --> process::Process --> start(config, drain) of the daemon's library
//!                                        | telemetry::init           |
//!                                        | drain::on_signals         +-- admin::serve: /metrics /healthz /readyz
//!                                        |                           +-- tokens::Tokens: who may ask for what
//!                                        v
//!                             SIGTERM: Drain::start --> listeners close, requests end --> exit status
//! ```
//!
//! In reading order:
//!
//! - [`process`]: the life of a daemon's process, command line to exit status; what a `main.rs` calls.
//! - [`config`]: a TOML file into a checked value, or an error with line, column and key.
//! - [`findings`]: what `--check` finds. [`files`]: those that are read again when they change.
//! - [`telemetry`]: one log line an event.
//! - [`drain`]: one signal that everything listens to, and everything that the end waits for. [`clock`]: the time of day.
//! - [`upgrade`], [`sockets`]: a new process takes over from a running one.
//! - [`admin`]: the private port that operators and Prometheus ask. [`metrics`]: what Prometheus gets, made and registered.
//! - [`http`]: serving axum's routes with bounds on connections and time. [`problem`]: how a call is refused.
//! - [`tokens`]: bearer tokens, and whose they are. [`folder`]: a data folder is one process's.
//!
//! # What it is not
//!
//! It knows nothing of topologies, files or regions, keeps no global state but the process's logger, and
//! serves nothing that clients ask for.

pub mod admin;
pub mod clock;
pub mod config;
pub mod drain;
pub mod files;
pub mod findings;
pub mod folder;
pub mod http;
pub mod metrics;
pub mod problem;
pub mod process;
pub mod sockets;
pub mod telemetry;
pub mod tokens;
pub mod upgrade;
