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
//! - [`wire`]: every body, completely. [`encoding`]: how it may be packed. [`client`]: how others call.
//! - [`ratings`]: what the API asks of whatever counts and ranks. [`engine`]: ratings that fade, in RAM and on disk.
//!   [`cluster`]: the same in a Redis or Valkey Cluster.
//! - [`holdings`], [`status`], [`hot`], [`balance`], [`saturation`]: what is known of servers, and which of them is next.
//!   Pure.
//! - [`worth`], [`copies`], [`turnover`], [`claims`]: what is worth carrying, how often, for how long, and who fetches it
//!   now. Pure.
//! - [`names`]: which of the reported names are a file's. Pure.
//! - [`wanted`], [`links`]: what follows for caches and clients. Pure. [`signing`]: links that are good for a while.
//! - [`purge`]: what must no longer be handed out; the log that servers follow.
//! - [`pressure`]: what the API asks of reporters when it is too much. [`spool`], [`pace`]: what reporters do until it
//!   is not. Pure, but for the disk.
//! - [`api`]: the state, a method a call. [`routes`]: HTTP around it. [`openapi`]: its description for programs.
//! - [`history`]: what was downloaded, for ClickHouse.
//! - [`replica`]: a copy of another API. [`backup`]: a copy in a folder, and back.
//! - [`config`], [`server`]: settings and the beginning.
//!
//! # What it is not
//!
//! It fetches and stores no media, decides nothing for a cache (which candidate replaces what is the cache's plan),
//! and no client of the CDN ever talks to it.

pub mod api;
pub mod backup;
pub mod balance;
pub mod claims;
pub mod client;
pub mod cluster;
pub mod config;
pub mod copies;
pub mod encoding;
pub mod engine;
pub mod history;
pub mod holdings;
pub mod hot;
pub mod links;
pub mod names;
pub mod openapi;
pub mod pace;
pub mod pressure;
pub mod purge;
pub mod ratings;
pub mod replica;
pub mod routes;
pub mod saturation;
pub mod server;
pub mod signing;
pub mod spool;
pub mod status;
#[cfg(test)]
mod testing;
pub mod turnover;
pub mod wanted;
pub mod wire;
pub mod worth;

pub use client::{Client, ClientConfig, ClientError};
