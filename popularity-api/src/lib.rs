//! Ratings per (region, file), what each cache holds, who is alive, and the links that follow from them.

pub mod client;
pub mod engine;
pub mod holdings;
pub mod hot;
pub mod status;
#[cfg(test)]
mod testing;
pub mod wire;

pub use client::{Client, ClientConfig, ClientError};
pub mod server;
