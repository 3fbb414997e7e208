//! Purges: what must no longer be handed out, as a sequenced log that every sun and cache follows.
//!
//! ```text
//!   operator, back end --POST--> log: one line, one fdatasync --> sequence
//!                                 |        ^
//!             entries after SEQ,  |        | next question names the sequence it goes by: the acknowledgement
//!             as soon as there is |        |
//!             one (long poll)     v        |
//!                               suns and caches:  rules, looked at with every stored response
//!                               this API:         ledger: what is not wanted and not linked at a cache any more
//! ```
//!
//! Nothing that is stored is touched by a purge. It becomes a *rule* with the log's sequence, and a stored response
//! remembers the sequence that its server went by when its fill began: older than a rule that matches it means purged.
//! So a purge of a million files costs as much as one of one, and a fill that was begun before a purge and ends after
//! it is recognised without being looked for.
//!
//! - [`target`]: what a purge names. [`rules`]: what matches a response; pure, shared with suns and caches.
//! - [`lines`]: the file format, for this log and for the servers' own copy.
//! - [`log`]: the log: sequences, what is kept, what a follower gets.
//! - [`ledger`]: the log with what follows from it for this API.
//!
//! # Invariants
//!
//! - A purge that was acknowledged is in the log after any crash, under its sequence.
//! - Sequences rise, and are not given twice even when the log's last lines are lost ([`log`]). A new log begins at the milliseconds since 1970, far above
//!   whatever a lost one had given, so a server that followed that one is told to drop what it holds.

pub mod ledger;
pub mod lines;
pub mod log;
pub mod rules;
pub mod target;

pub use ledger::Ledger;
pub use rules::{Rules, Subject, Verdict};
pub use target::Target;
