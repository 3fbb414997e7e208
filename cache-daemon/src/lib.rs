//! A regional cache: carries the best-rated files to its region ahead of demand and hands them out.
pub mod plan;
pub mod server;
pub mod vault;
