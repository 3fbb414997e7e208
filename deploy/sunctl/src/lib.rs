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
//! - [`check`], [`topology`], [`weight`] (with [`edit`], what it changes of the text, and [`ramp`], in steps), [`top`], [`hot`], [`locate`] (`sunctl where`), [`purge`], [`sign`], [`token`]: a command each.
//! - [`backup`]: the ratings of an API in a folder, and back (`sunctl backup`, `sunctl restore`).
//! - `render`: the topology for BIRD, ExaBGP, a shell and DNS servers.
//! - [`history`]: the tables of the history of downloads.
//! - [`demo`]: the whole system in one process. Its content server serves tests as well.
//! - [`content`]: that content server alone, with a folder of the user's.
//!
//! # What it is not
//!
//! It is no daemon and keeps no state: the topology is the operator's document, ratings are the API's. It
//! changes nothing but the topology with its history, and the history's tables, as it is told, and takes out of caches what it is told to purge.

pub mod backup;
pub mod check;
pub mod cli;
pub mod content;
pub mod demo;
pub mod edit;
pub mod history;
pub mod hot;
pub mod locate;
pub mod purge;
pub mod ramp;
mod render;
pub mod sign;
pub mod token;
pub mod top;
pub mod topology;
pub mod weight;
