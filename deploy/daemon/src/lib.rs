//! What every daemon needs to be deployed.

pub mod admin;
pub mod config;
pub mod drain;
pub mod telemetry;
pub mod tokens;
