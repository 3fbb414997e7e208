//! `sunctl`, the operator's tool: it checks and changes what the operator wants, asks what is so, and runs
//! the whole system on one machine to look at.
//!
//! ```text
//!                    cli
//!      +---------+----+----+--------+--------+
//!    check     weight   top,hot  where     demo ---------------------------+
//!      |         |         |    (locate)     |  content server, API, suns,  |
//!   topology  topology    API      |         |  caches, gallery, load       |
//!   configs     file           API or        +------------------------------+
//!                              topology              one process, loopback
//! ```
//!
//! In reading order:
//!
//! - [`cli`]: the command line and where its defaults come from.
//! - [`check`], [`weight`], [`top`], [`hot`], [`locate`] (`sunctl where`), [`purge`], [`token`]: a command each.
//! - [`demo`]: the whole system in one process. Its content server serves tests as well.
//! - [`content`]: that content server alone, with a folder of the user's.
//!
//! # What it is not
//!
//! It is no daemon and keeps no state: the topology is the operator's file, ratings are the API's. It
//! changes nothing but the topology file it is told to change, and takes out of caches what it is told to purge.

pub mod check;
pub mod cli;
pub mod content;
pub mod demo;
pub mod hot;
pub mod locate;
pub mod purge;
pub mod token;
pub mod top;
pub mod weight;
