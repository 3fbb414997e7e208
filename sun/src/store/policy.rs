//! What the store writes, and what it keeps when it needs room. Pure: plain inputs, no clock, no disk.
//!
//! ```text
//!   offer ---> seen before? ---no---> ghost (a fingerprint, no bytes)
//!                 | yes, and the write budget allows it
//!                 v
//!            probation (FIFO) ---hit meanwhile---> main (FIFO) ---hit meanwhile---+
//!                 | never hit                        ^  | not hit since           |
//!                 v                                  |  v                         |
//!               dropped                              | dropped                    |
//!                                                    +----------------------------+
//! ```
//!
//! The log is reclaimed a segment at a time, oldest first, so "FIFO" is what a log gives for free; a record that
//! was hit since it was written is written again at the log's head (reinsertion), which makes it nearly an LRU
//! for one counter per block. Why not LRU itself: it would rewrite on every hit, or leave holes.
//!
//! The same code runs in the store ([`crate::store::log`]) and in the cache simulation.

/// Which FIFO a segment belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Queue {
    /// Not hit since it was admitted.
    Probation,
    /// Hit at least once while it was on probation.
    Main,
}

/// Who is written at all.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Admission {
    /// What is offered a second time while the ghost table remembers the first: most files are asked for once.
    #[default]
    SecondOffer,
    /// Everything, within the write budget: small sites, tests.
    Always,
}

/// Settings of a policy.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Who is written at all.
    pub admission: Admission,
    /// First offers that are remembered; 4 bytes each.
    pub ghost_entries: usize,
    /// Bytes that may be written a day, reinsertions included; 0: no bound.
    pub write_bytes_per_day: u64,
    /// Share of the log that probation is reclaimed down to, percent.
    pub probation_percent: u64,
    /// Most of a reclaimed segment that is written again, percent: what is left is the progress.
    pub reinsert_percent_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            admission: Admission::SecondOffer,
            ghost_entries: 1 << 20,
            write_bytes_per_day: 0,
            probation_percent: 20,
            reinsert_percent_max: 75,
        }
    }
}

/// What becomes of an offer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is written to this queue.
    Store(Queue),
    /// It was not offered before.
    FirstOffer,
    /// The day's bytes are written.
    OverBudget,
}

/// What becomes of a live record whose segment is reclaimed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It is forgotten.
    Drop,
    /// It is written again, to this queue, its hits set back to 0.
    Keep(Queue),
}

/// A live record whose segment is reclaimed.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    /// The queue of its segment.
    pub queue: Queue,
    /// Hits since it was written there, saturating.
    pub hits: u8,
    /// Its bytes in the log.
    pub bytes: u64,
}

/// A segment that is being reclaimed.
#[derive(Clone, Copy, Debug)]
pub struct Reclaimed {
    /// Bytes of the segment.
    pub segment_bytes: u64,
    /// Bytes of it that were kept so far.
    pub kept_bytes: u64,
}

/// See the module's doc.
#[derive(Debug)]
pub struct Policy {
    settings: Settings,
    ghost: Ghost,
    budget: Budget,
}

impl Policy {
    /// A policy that has seen nothing; `now_ms` is of any monotonic clock.
    #[must_use]
    pub fn new(settings: Settings, now_ms: u64) -> Self {
        let ghost = Ghost::new(settings.ghost_entries);
        let budget = Budget::new(settings.write_bytes_per_day, now_ms);
        Self { settings, ghost, budget }
    }

    /// Decides on an offer of a block that is not in the store. `hash` names the block, evenly spread.
    pub fn offered(&mut self, hash: u64, bytes: u64, now_ms: u64) -> Verdict {
        if self.settings.admission == Admission::SecondOffer && !self.ghost.take(hash) {
            self.ghost.remember(hash);
            return Verdict::FirstOffer;
        }
        if !self.budget.allows(now_ms) {
            // Remembered again: it is worth its bytes tomorrow too.
            self.ghost.remember(hash);
            return Verdict::OverBudget;
        }
        self.budget.spend(bytes);
        Verdict::Store(Queue::Probation)
    }

    /// The queue whose oldest segment is reclaimed next, from the segments that each holds.
    #[must_use]
    pub fn victim(&self, probation_segments: u64, main_segments: u64) -> Queue {
        let all = probation_segments + main_segments;
        let over = probation_segments * 100 > all * self.settings.probation_percent;
        if main_segments == 0 || (over && probation_segments > 0) { Queue::Probation } else { Queue::Main }
    }

    /// Decides on a live record of the victim.
    pub fn reclaimed(&mut self, live: Live, segment: Reclaimed) -> Fate {
        let most = segment.segment_bytes * self.settings.reinsert_percent_max / 100;
        if live.hits == 0 || segment.kept_bytes + live.bytes > most {
            return Fate::Drop;
        }
        // Never refused for the budget, only counted: a hit block is worth more than a new one.
        self.budget.spend(live.bytes);
        Fate::Keep(Queue::Main)
    }
}

/// First offers, remembered as 32-bit fingerprints in sets of four, oldest of a set forgotten first. A false
/// "seen before" (1 in 10^9 a lookup) admits a block too early, no more.
#[derive(Debug)]
struct Ghost {
    sets: Vec<[u32; 4]>,
}

impl Ghost {
    fn new(entries: usize) -> Self {
        Self { sets: vec![[0; 4]; (entries / 4).next_power_of_two().max(1)] }
    }

    fn set(&mut self, hash: u64) -> (&mut [u32; 4], u32) {
        let mask = self.sets.len() - 1;
        let fingerprint = u32::try_from(hash >> 32).unwrap_or(0) | 1;
        (&mut self.sets[usize::try_from(hash & 0xffff_ffff).unwrap_or(0) & mask], fingerprint)
    }

    fn remember(&mut self, hash: u64) {
        let (set, fingerprint) = self.set(hash);
        set.copy_within(..3, 1);
        set[0] = fingerprint;
    }

    fn take(&mut self, hash: u64) -> bool {
        let (set, fingerprint) = self.set(hash);
        let Some(at) = set.iter().position(|seen| *seen == fingerprint) else { return false };
        set.copy_within(at + 1.., at);
        set[3] = 0;
        true
    }
}

/// A token bucket that holds an hour of the day's bytes; it may be overdrawn by one write.
#[derive(Debug)]
struct Budget {
    bytes_per_day: u64,
    /// Bytes that may be written now, times [`DAY_MS`]: whole numbers, nothing is rounded away.
    tokens: i128,
    filled_ms: u64,
}

impl Budget {
    fn new(bytes_per_day: u64, now_ms: u64) -> Self {
        Self { bytes_per_day, tokens: Self::most(bytes_per_day), filled_ms: now_ms }
    }

    fn most(bytes_per_day: u64) -> i128 {
        i128::from(bytes_per_day) * i128::from(DAY_MS / 24)
    }

    fn allows(&mut self, now_ms: u64) -> bool {
        let elapsed = now_ms.saturating_sub(self.filled_ms);
        self.filled_ms = self.filled_ms.max(now_ms);
        let filled = self.tokens + i128::from(self.bytes_per_day) * i128::from(elapsed);
        self.tokens = filled.min(Self::most(self.bytes_per_day));
        self.bytes_per_day == 0 || self.tokens > 0
    }

    fn spend(&mut self, bytes: u64) {
        self.tokens -= i128::from(bytes) * i128::from(DAY_MS);
    }
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_written_when_it_is_offered_again() {
        let mut policy = policy(Admission::SecondOffer, 0);
        assert_eq!(policy.offered(7, 10, 0), Verdict::FirstOffer);
        assert_eq!(policy.offered(8, 10, 0), Verdict::FirstOffer);
        assert_eq!(policy.offered(7, 10, 0), Verdict::Store(Queue::Probation));
        assert_eq!(policy.offered(7, 10, 0), Verdict::FirstOffer, "it left the ghost when it was admitted");
    }

    #[test]
    fn the_ghost_forgets_the_oldest_and_stays_within_its_entries() {
        let mut policy = Policy::new(Settings { ghost_entries: 4, ..Settings::default() }, 0);
        let hashes: Vec<u64> = (1..=5).map(|at| at << 33).collect();
        assert!(hashes.iter().all(|hash| policy.offered(*hash, 1, 0) == Verdict::FirstOffer));
        assert_eq!(policy.offered(hashes[4], 1, 0), Verdict::Store(Queue::Probation));
        assert_eq!(policy.offered(hashes[0], 1, 0), Verdict::FirstOffer);
    }

    #[test]
    fn the_budget_is_an_hour_deep_and_fills_with_the_day() {
        let mut policy = policy(Admission::Always, 2400);
        assert_eq!(policy.offered(1, 100, 0), Verdict::Store(Queue::Probation));
        assert_eq!(policy.offered(2, 1, 0), Verdict::OverBudget);
        assert_eq!(policy.offered(2, 1, DAY_MS / 24), Verdict::Store(Queue::Probation));
        assert_eq!(policy.offered(3, 200, 3 * DAY_MS), Verdict::Store(Queue::Probation), "overdrawn by one write");
        assert_eq!(policy.offered(4, 1, 3 * DAY_MS + DAY_MS / 24), Verdict::OverBudget, "and paid back");
        assert_eq!(policy.offered(4, 1, 3 * DAY_MS + DAY_MS / 24 + 1), Verdict::Store(Queue::Probation));
    }

    #[test]
    fn what_was_hit_is_kept_up_to_a_share_of_the_segment() {
        let mut policy = policy(Admission::Always, 0);
        let mut check = |hits, kept_bytes, expected| {
            let live = Live { queue: Queue::Probation, hits, bytes: 10 };
            assert_eq!(policy.reclaimed(live, Reclaimed { segment_bytes: 100, kept_bytes }), expected);
        };
        check(0, 0, Fate::Drop);
        check(1, 0, Fate::Keep(Queue::Main));
        check(3, 65, Fate::Keep(Queue::Main));
        check(3, 66, Fate::Drop);
    }

    #[test]
    fn probation_is_reclaimed_while_it_is_over_its_share() {
        let policy = policy(Admission::Always, 0);
        assert_eq!(policy.victim(100, 0), Queue::Probation);
        assert_eq!(policy.victim(21, 79), Queue::Probation);
        assert_eq!(policy.victim(20, 80), Queue::Main);
        assert_eq!(policy.victim(0, 100), Queue::Main);
    }

    fn policy(admission: Admission, write_bytes_per_day: u64) -> Policy {
        Policy::new(Settings { admission, write_bytes_per_day, ..Settings::default() }, 0)
    }
}
