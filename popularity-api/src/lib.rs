//! Ratings per (region, file), what each cache holds, who is alive, and the links that follow from them.
//!
//! ```text
//!   suns, caches --downloads--> engine: ratings, binlog, snapshots ---+--> top          back ends, operators
//!                --status-----> status: who lives, hot: spread -------+--> links  --->  back ends
//!   caches ------holdings-----> holdings -----------------------------+--> wanted --->  caches
//!                                                                     +--> region state -> suns, caches
//! ```
//!
//! In reading order:
//!
//! - [`wire`]: every body, completely. [`client`]: how others call.
//! - [`engine`]: ratings that fade, in RAM and on disk.
//! - [`holdings`], [`status`], [`hot`], [`balance`], [`saturation`]: what is known of servers, and which of them is next.
//!   Pure.
//! - [`wanted`], [`links`]: what follows for caches and clients. Pure.
//! - [`purge`]: what must no longer be handed out; the log that servers follow.
//! - [`api`]: the state, a method a call. [`routes`]: HTTP around it.
//! - [`config`], [`server`]: settings and the beginning.
//!
//! # What it is not
//!
//! It fetches and stores no media, decides nothing for a cache (which candidate replaces what is the cache's plan),
//! and no client of the CDN ever talks to it.

pub mod api;
pub mod balance;
pub mod client;
pub mod config;
pub mod engine;
pub mod holdings;
pub mod hot;
pub mod links;
pub mod purge;
pub mod routes;
pub mod saturation;
pub mod server;
pub mod status;
#[cfg(test)]
mod testing;
pub mod wanted;
pub mod wire;

pub use client::{Client, ClientConfig, ClientError};
