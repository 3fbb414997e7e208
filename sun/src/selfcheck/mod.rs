//! The self-check: what a sun's own daemon, `sun-check`, sees of it, and what it has announced accordingly.

pub mod config;
pub mod machine;

pub use config::Config;
