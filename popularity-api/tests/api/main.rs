//! The API over real sockets, by subject: in this process ([`world`]), as processes that are killed ([`processes`]), and over
//! a real Redis Cluster ([`cluster`]).

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[expect(unreachable_pub, reason = "the crate of the end-to-end tests has it too")]
#[path = "../../../tests/src/addresses.rs"]
mod addresses;
mod backups;
mod bodies;
mod carrying;
mod cluster;
mod copies;
mod fixture;
mod history;
mod openapi;
mod processes;
mod purging;
#[expect(unreachable_pub, reason = "the crate of the end-to-end tests has it too")]
#[path = "../../../tests/src/redis_cluster.rs"]
mod redis_cluster;
mod refusals;
mod rights;
mod world;
