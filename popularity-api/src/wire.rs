//! What goes over the wire: every body of the API, completely.
//!
//! JSON both ways. Unknown fields of a request are refused, unknown fields of an answer are ignored.
//! Files are named by their canonical name, `c100500/path`. Scores are `log2` of a forward-decayed sum
//! and mean nothing but their order; ratings are the decayed downloads that the score stands for now.
//!
//! A file for each subject: `downloads` (and the ratings that follow), `carrying` (what caches are to hold, and hold), `linking`,
//! `statuses`, `purging`, and `following` (what copies of the API read).

mod carrying;
mod downloads;
mod following;
mod linking;
mod purging;
mod statuses;

pub use carrying::*;
pub use daemon::problem::Problem;
pub use downloads::*;
pub use following::*;
pub use linking::*;
pub use purging::*;
pub use statuses::*;

#[cfg(test)]
mod tests;
