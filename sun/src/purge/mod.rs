//! What was purged, and what that means for what this server holds or is just fetching.
//!
//! ```text
//!   popularity API --log--> follower --+
//!   operator --------> direct ---------+--> Purges: rules --> every lookup: current, stale or gone
//!                                      |      ^                             every fill: joined? stored?
//!                                      +--> DATA/purges (lines), replayed before anything is served
//! ```
//!
//! A fill notes the [`Mark`] that it begins at: the last purge this server goes by. What it brings carries that mark, and
//! its tags, for as long as it is stored. A purge with a later number that matches is a later word. So nothing is
//! looked for when a purge comes, however many files it covers; and a fill that a purge overtakes is recognised when it ends.
//!
//! # Between servers
//!
//! What another server of ours gave is as old as *its* mark, which it tells ([`headers`]): the mark that is kept is the
//! older of the two. If this server goes by a purge of the file that the other did not, the answer is of no use, and the
//! next source is asked. Without that, a sun that has heard of a purge would take the purged file from one that has not.
//!
//! # Invariants
//!
//! - A hit is never older than a hard purge that this server acknowledged, also after kill -9: a rule is in force and
//!   on disk before it is acknowledged.
//! - Bytes from before a hard purge are never mixed into a version that was fetched after it, even if their validators
//!   are the same: the purge is part of the version's generation ([`Stamp`]).
//! - A response that is under way when a purge comes may be finished.
//!
//! # Without the log
//!
//! While the API is away an operator purges servers one by one over their internal listeners ([`direct`]). Those purges
//! have numbers of their own, the same at all servers, and a mark has a part for each kind. A server that was down then does
//! not hear of them when it comes back: `sunctl purge` names it, and asks for the purge to be repeated.

pub mod direct;
pub mod follower;
pub mod headers;
mod stamp;
mod state;

pub use popularity_api::purge::{Rules, Subject, Verdict};
pub use stamp::Stamp;
pub use state::{Purges, Refused};

use popularity_api::wire::PurgeMark;

/// How far a server goes by purges: what a fill remembers of its beginning.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Mark {
    /// Sequence of the log.
    pub log: u64,
    /// Number of the last direct purge.
    pub direct: u64,
}

impl Mark {
    /// The older one, in each part.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self { log: self.log.min(other.log), direct: self.direct.min(other.direct) }
    }

    /// 16 bytes for a disk format: log and direct, little-endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.log.to_le_bytes());
        bytes[8..].copy_from_slice(&self.direct.to_le_bytes());
        bytes
    }

    /// As [`Mark::to_bytes`] wrote it.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]));
        Self { log: number(0), direct: number(8) }
    }
}

impl From<Mark> for PurgeMark {
    fn from(mark: Mark) -> Self {
        Self { log: mark.log, direct: mark.direct }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_survives_being_written_down() {
        let mark = Mark { log: 0x0102_0304_0506_0708, direct: 9 };
        assert_eq!(mark.to_bytes(), [8, 7, 6, 5, 4, 3, 2, 1, 9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Mark::from_bytes(mark.to_bytes()), mark);
        assert_eq!(mark.min(Mark { log: 5, direct: 10 }), Mark { log: 5, direct: 9 });
    }
}
