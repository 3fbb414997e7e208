//! A group of suns behind a router, each a machine of its own, and what becomes of clients' requests when one of them fails.
//!
//! ```text
//!   client --- router (BIRD, shares by connection)              each machine is a network namespace, each line a veth
//!   198.51.100.0/24 |      |      |  10.0.N.0/30, BGP
//!                 sun 1  sun 2  sun 3   own addresses 192.0.2.(8N)..+3, all of 192.0.2.0/24 local
//!                   |      |      |     sun, sun-check, BIRD each
//!                  =+======+======+=    10.99.0.0/24, internal: a bridge
//!                         core          content server, cache, popularity API; this program
//! ```
//!
//! In reading order: [`network`] (machines and cables), [`family`] (their addresses), [`documents`] (topology and configs), [`fleet`]
//! (what runs), [`speaker`] (who speaks BGP), [`flow`] (clients), [`crowd`] (too many), [`fault`] (what fails, and how it is done), [`outcome`] (what clients had of it), [`order`] (what
//! `tests/lab` is asked for).
//!
//! `tests/lab` prints a table of it; the end-to-end tests assert what must hold whatever the machine's speed.

pub mod crowd;
pub mod documents;
pub mod family;
pub mod fault;
pub mod fleet;
pub mod flow;
pub mod network;
pub mod order;
pub mod outcome;
pub mod speaker;
