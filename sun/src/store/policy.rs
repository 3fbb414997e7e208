//! What the store writes, and what it keeps when it needs room. Pure: plain inputs, no clock, no disk.
//!
//! ```text
//!                          +-- remembered (the ghost: fingerprints, no bytes) <-----------+
//!                          |                       ^                                      |
//!   offer --seen before?---+ yes                   | no, and the budget is short          |
//!             | no         v                       |                                      |
//!             |          main (FIFO) <--hit--- probation (FIFO, a tenth) ---not hit-------+
//!             |            | ^  |                  ^
//!             |        hit +-+  | not hit: dropped |
//!             +--------------------- while the budget has bytes
//! ```
//!
//! The log is reclaimed a segment at a time, oldest first, so "FIFO" is what a log gives for free; a record that
//! was hit since it was written is written again at the log's head (reinsertion), which makes it nearly an LRU
//! for one counter per block. This is S3-FIFO (Yang and others, SOSP 2023) on a log, with one ghost for what was not
//! written and for what probation dropped, and a write budget in place of a fixed rule for first offers:
//!
//! | budget | first offer | offered before | hit when its segment is reclaimed |
//! |---|---|---|---|
//! | bytes left, or none set | probation | main | main |
//! | short | remembered | main | main |
//! | low: half an hour overdrawn | remembered | main the third time | main if hit twice |
//! | spent: an hour overdrawn | remembered | remembered | (nothing is reclaimed) |
//!
//! `tests/bench/cache` measures it, at 5 % of the footprint, without a budget and with a drive write a day at ten disk
//! sizes served: byte hits .607 and .613 on its media trace, for .52 and .10 bytes written per byte served. There S3-FIFO
//! in RAM, where moving is free and a hit count survives it, has .624. Why not LRU itself: it would rewrite on every
//! hit, or leave holes.
//!
//! The same code runs in the store's log and in the cache simulation.

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
    /// What is offered a second time while the ghost remembers the first, whatever the budget has left. Beside
    /// [`Admission::Always`] without a budget (`tests/bench/cache`): a fifth to a half of the writes, byte hits from
    /// 0.7 points more (videos, small disk) to 5 fewer (short web traces).
    SecondOffer,
    /// First offers too, while the write budget has bytes left.
    #[default]
    Always,
}

/// Settings of a policy.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Who is written at all.
    pub admission: Admission,
    /// Offers and drops that are remembered; 4 bytes each. Twice as many as there are blocks is what
    /// `tests/bench/cache` runs with. Too few: what comes back is taken for new; too many: RAM.
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
            admission: Admission::Always,
            ghost_entries: 1 << 20,
            write_bytes_per_day: 0,
            probation_percent: 10,
            reinsert_percent_max: 75,
        }
    }
}

/// What becomes of an offer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is written to this queue.
    Store(Queue),
    /// It was not offered before, or not often enough for what the budget has left.
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
    /// Names the block, as for [`Policy::offered`].
    pub hash: u64,
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
        let left = self.budget.left(now_ms);
        let before = self.ghost.take(hash);
        let offers = before + 1;
        let needed = match left {
            Left::Bytes if self.settings.admission == Admission::Always => 1,
            Left::Bytes | Left::Short => 2,
            Left::Low => 3,
            Left::Nothing => u8::MAX,
        };
        if offers < needed {
            self.ghost.remember(hash, offers);
            return if left == Left::Nothing { Verdict::OverBudget } else { Verdict::FirstOffer };
        }
        self.budget.spend(bytes);
        Verdict::Store(if offers > 1 { Queue::Main } else { Queue::Probation })
    }

    /// Decides on an offer that replaces a record that is in the store: it was admitted once.
    pub fn replaced(&mut self, bytes: u64, now_ms: u64) -> Verdict {
        if self.budget.left(now_ms) == Left::Nothing {
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
        let needed = if self.budget.low() { 2 } else { 1 };
        if live.hits < needed || segment.kept_bytes + live.bytes > most {
            if live.queue == Queue::Probation {
                self.ghost.remember(live.hash, 1);
            }
            return Fate::Drop;
        }
        // Never refused for the budget, only counted: without admissions nothing is reclaimed.
        self.budget.spend(live.bytes);
        Fate::Keep(Queue::Main)
    }
}

/// Blocks that were offered or dropped, as 30-bit fingerprints with how often (1 to 3) in sets of four, oldest of a
/// set forgotten first. A false "seen before" (1 in 10^8 a lookup) admits a block too early, no more.
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
        let fingerprint = u32::try_from(hash >> 32).unwrap_or(0) & !GHOST_TIMES;
        (&mut self.sets[usize::try_from(hash & 0xffff_ffff).unwrap_or(0) & mask], fingerprint)
    }

    /// The block is not in there: [`Ghost::take`] came before.
    fn remember(&mut self, hash: u64, times: u8) {
        let (set, fingerprint) = self.set(hash);
        set.copy_within(..3, 1);
        set[0] = fingerprint | u32::from(times).clamp(1, GHOST_TIMES);
    }

    /// Forgets a block; how often it was seen, 0 for never.
    fn take(&mut self, hash: u64) -> u8 {
        let (set, fingerprint) = self.set(hash);
        let seen = |slot: &u32| *slot & GHOST_TIMES != 0 && *slot & !GHOST_TIMES == fingerprint;
        let Some(at) = set.iter().position(seen) else { return 0 };
        let times = set[at] & GHOST_TIMES;
        set.copy_within(at + 1.., at);
        set[3] = 0;
        u8::try_from(times).unwrap_or(0)
    }
}

/// The bits of a slot that count; 0 is an empty slot.
const GHOST_TIMES: u32 = 3;

/// A token bucket that holds an hour of the day's bytes, and may be overdrawn by as much and one write.
#[derive(Debug)]
struct Budget {
    bytes_per_day: u64,
    /// Bytes that may be written now, times [`DAY_MS`]: whole numbers, nothing is rounded away.
    tokens: i128,
    filled_ms: u64,
}

/// What a budget has left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Left {
    Bytes,
    Short,
    Low,
    Nothing,
}

impl Budget {
    fn new(bytes_per_day: u64, now_ms: u64) -> Self {
        let mut new = Self { bytes_per_day, tokens: 0, filled_ms: now_ms };
        new.tokens = new.most();
        new
    }

    fn most(&self) -> i128 {
        i128::from(self.bytes_per_day) * i128::from(DAY_MS / 24)
    }

    fn left(&mut self, now_ms: u64) -> Left {
        let elapsed = now_ms.saturating_sub(self.filled_ms);
        self.filled_ms = self.filled_ms.max(now_ms);
        let filled = self.tokens + i128::from(self.bytes_per_day) * i128::from(elapsed);
        self.tokens = filled.min(self.most());
        match self.tokens {
            _ if self.bytes_per_day == 0 => Left::Bytes,
            1.. => Left::Bytes,
            tokens if tokens <= -self.most() => Left::Nothing,
            _ if self.low() => Left::Low,
            _ => Left::Short,
        }
    }

    fn low(&self) -> bool {
        self.bytes_per_day > 0 && self.tokens <= -self.most() / 2
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
    fn what_is_offered_is_written_where_the_number_of_offers_says() {
        let mut policy = policy(Admission::SecondOffer, 0);
        let mut offered = |hash| policy.offered(hash, 10, 0);
        assert_eq!(offered(7 << 32), Verdict::FirstOffer);
        assert_eq!(offered(8 << 32), Verdict::FirstOffer);
        assert_eq!(offered(8 << 32), Verdict::Store(Queue::Main));
        assert_eq!(offered(8 << 32), Verdict::FirstOffer, "it left the ghost when it was admitted");
    }

    #[test]
    fn the_ghost_forgets_the_oldest_and_stays_within_its_entries() {
        let settings = Settings { ghost_entries: 4, admission: Admission::SecondOffer, ..Settings::default() };
        let mut policy = Policy::new(settings, 0);
        let hashes: Vec<u64> = (1..=5).map(|at| at << 40).collect();
        assert!(hashes.iter().all(|hash| policy.offered(*hash, 1, 0) == Verdict::FirstOffer));
        assert_eq!(policy.offered(hashes[4], 1, 0), Verdict::Store(Queue::Main));
        assert_eq!(policy.offered(hashes[0], 1, 0), Verdict::FirstOffer);
    }

    #[test]
    fn the_shorter_the_budget_the_more_offers_it_takes() {
        // 100 bytes an hour.
        let hour_ms = DAY_MS / 24;
        let check = |spent: u64, verdicts: &[Verdict]| {
            let mut policy = policy(Admission::Always, 2400);
            policy.budget.spend(spent);
            let given: Vec<Verdict> = verdicts.iter().map(|_| policy.offered(7 << 32, 1, 0)).collect();
            assert_eq!(given, verdicts, "{spent}");
        };
        let (not_yet, main) = (Verdict::FirstOffer, Verdict::Store(Queue::Main));
        check(99, &[Verdict::Store(Queue::Probation)]);
        check(100, &[not_yet, main]);
        check(149, &[not_yet, main]);
        check(150, &[not_yet, not_yet, main]);
        check(199, &[not_yet, not_yet, main]);
        check(200, &[Verdict::OverBudget, Verdict::OverBudget, Verdict::OverBudget]);

        let mut policy = policy(Admission::Always, 2400);
        policy.budget.spend(200);
        assert_eq!(policy.offered(7 << 32, 1, hour_ms), not_yet, "an hour later it is even");
        assert_eq!(policy.offered(8 << 32, 1, hour_ms + hour_ms / 50), Verdict::Store(Queue::Probation));
        assert_eq!(policy.budget.left(100 * DAY_MS), Left::Bytes);
        assert_eq!(policy.budget.tokens, policy.budget.most(), "it fills no further");
    }

    #[test]
    fn what_was_hit_is_kept_up_to_a_share_of_the_segment() {
        let check = |hits, kept_bytes, spent, expected| {
            let mut policy = policy(Admission::Always, 2400);
            policy.budget.spend(spent);
            let live = Live { hash: 1, queue: Queue::Probation, hits, bytes: 10 };
            assert_eq!(policy.reclaimed(live, Reclaimed { segment_bytes: 100, kept_bytes }), expected);
        };
        check(0, 0, 0, Fate::Drop);
        check(1, 0, 0, Fate::Keep(Queue::Main));
        check(3, 65, 0, Fate::Keep(Queue::Main));
        check(3, 66, 0, Fate::Drop);
        check(1, 0, 149, Fate::Keep(Queue::Main));
        check(1, 0, 150, Fate::Drop);
        check(2, 0, 150, Fate::Keep(Queue::Main));
    }

    #[test]
    fn what_probation_drops_is_remembered_and_what_main_drops_is_not() {
        let check = |queue, expected| {
            let mut policy = policy(Admission::Always, 0);
            let live = Live { hash: 9 << 32, queue, hits: 0, bytes: 10 };
            assert_eq!(policy.reclaimed(live, Reclaimed { segment_bytes: 100, kept_bytes: 0 }), Fate::Drop);
            assert_eq!(policy.offered(9 << 32, 10, 0), Verdict::Store(expected));
        };
        check(Queue::Probation, Queue::Main);
        check(Queue::Main, Queue::Probation);
    }

    #[test]
    fn probation_is_reclaimed_while_it_is_over_its_share() {
        let policy = policy(Admission::Always, 0);
        assert_eq!(policy.victim(100, 0), Queue::Probation);
        assert_eq!(policy.victim(11, 89), Queue::Probation);
        assert_eq!(policy.victim(10, 90), Queue::Main);
        assert_eq!(policy.victim(0, 100), Queue::Main);
    }

    fn policy(admission: Admission, write_bytes_per_day: u64) -> Policy {
        Policy::new(Settings { admission, write_bytes_per_day, ..Settings::default() }, 0)
    }
}
