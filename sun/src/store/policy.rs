//! What the store writes, and what it keeps when it needs room. Pure: plain inputs, no clock, no disk.
//!
//! ```text
//!                          +-- remembered (the ghost: fingerprints, no bytes) <-----------+
//!                          |                       ^                                      |
//!   offer --seen before?---+ yes                   | no, and the budget is short          |
//!             | no         v                       |                                      |
//!             |          main (FIFO) <--hit--- probation (FIFO, a tenth) ---not hit-------+
//!             |            | ^  |                  ^
//!             |        hit +-+  | not hit: remembered too
//!             +--------------------- while the budget has bytes
//! ```
//!
//! The log is reclaimed a segment at a time, oldest first, so "FIFO" is what a log gives for free; a record that
//! was hit since it was written is written again at the log's head (reinsertion), one of up to three hits spent each
//! time. This is S3-FIFO (Yang and others, SOSP 2023) on a log, with one ghost for what was not
//! written and for what was dropped, and a write budget in place of a fixed rule for first offers:
//!
//! | budget | first offer | offered before | hit when its segment is reclaimed |
//! |---|---|---|---|
//! | bytes left, or none set | probation | main | main |
//! | short | remembered | main | main |
//! | low: half an hour overdrawn | remembered | main the third time | main if hit twice |
//! | spent: an hour overdrawn | remembered | remembered | (nothing is reclaimed) |
//!
//! What RAM answers again and again counts as offered before ([`Policy::offered_again`]).
//!
//! `tests/bench/cache --sizes 1,5 --generate media,requests=2000000,seed=1`, at 5 % of the footprint, without a budget and
//! with a drive write a day at ten disk sizes served: byte hits .621 and .622, for .55 and .11 bytes written per byte
//! served. There S3-FIFO in RAM, where moving is free, has .624. Why not LRU itself: it would rewrite on every hit, or
//! leave holes.
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
    /// [`Admission::Always`] without a budget (`tests/bench/cache`): a tenth to six tenths of the writes, byte hits from
    /// 0.8 points more (videos, small disk) to 7 fewer (short web traces).
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
    /// Offers and drops that are remembered; 4 bytes each. As many as there are blocks (up to twice: a power of two) is what
    /// `tests/bench/cache` runs with. Too few: what comes back is taken for new; too many: what comes back late is
    /// taken for hot.
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
            reinsert_percent_max: 90,
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
    /// It is written again.
    Keep {
        /// To this queue.
        queue: Queue,
        /// Hits that it has there from the beginning.
        hits: u8,
    },
}

/// A live record whose segment is reclaimed.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    /// Names the block, as for [`Policy::offered`].
    pub hash: u64,
    /// The queue of its segment.
    pub queue: Queue,
    /// Hits since it was written there, saturating, and those that it had from the beginning.
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
        self.decide(hash, bytes, 1, now_ms)
    }

    /// The same for a block of which it is known that it is asked for often: it counts as offered before.
    pub fn offered_again(&mut self, hash: u64, bytes: u64, now_ms: u64) -> Verdict {
        self.decide(hash, bytes, 2, now_ms)
    }

    fn decide(&mut self, hash: u64, bytes: u64, times: u8, now_ms: u64) -> Verdict {
        let left = self.budget.left(now_ms);
        let offers = self.ghost.take(hash) + times;
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
            self.ghost.remember(live.hash, 1);
            return Fate::Drop;
        }
        // Never refused for the budget, only counted: without admissions nothing is reclaimed.
        self.budget.spend(live.bytes);
        let hits = match live.queue {
            Queue::Probation => 0,
            Queue::Main => live.hits.min(HITS_MAX) - 1,
        };
        Fate::Keep { queue: Queue::Main, hits }
    }
}

/// Hits that count: a record that nobody asks for any more is written again so many times, no more.
const HITS_MAX: u8 = 3;

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

/// A token bucket that holds a day's bytes, and may be overdrawn by an hour of them and one write. It begins full: a
/// blank device of which one write a day is allowed is filled as fast as files come, and nights pay for evenings.
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
        i128::from(self.bytes_per_day) * i128::from(DAY_MS)
    }

    fn overdraft(&self) -> i128 {
        self.most() / 24
    }

    fn left(&mut self, now_ms: u64) -> Left {
        let elapsed = now_ms.saturating_sub(self.filled_ms);
        self.filled_ms = self.filled_ms.max(now_ms);
        let filled = self.tokens + i128::from(self.bytes_per_day) * i128::from(elapsed);
        self.tokens = filled.min(self.most());
        match self.tokens {
            _ if self.bytes_per_day == 0 => Left::Bytes,
            1.. => Left::Bytes,
            tokens if tokens <= -self.overdraft() => Left::Nothing,
            _ if self.low() => Left::Low,
            _ => Left::Short,
        }
    }

    fn low(&self) -> bool {
        self.bytes_per_day > 0 && self.tokens <= -self.overdraft() / 2
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
        check(2399, &[Verdict::Store(Queue::Probation)]);
        check(2400, &[not_yet, main]);
        check(2449, &[not_yet, main]);
        check(2450, &[not_yet, not_yet, main]);
        check(2499, &[not_yet, not_yet, main]);
        check(2500, &[Verdict::OverBudget, Verdict::OverBudget, Verdict::OverBudget]);

        let mut policy = policy(Admission::Always, 2400);
        policy.budget.spend(2500);
        assert_eq!(policy.offered(7 << 32, 1, hour_ms), not_yet, "an hour later it is even");
        assert_eq!(policy.offered(8 << 32, 1, hour_ms + hour_ms / 50), Verdict::Store(Queue::Probation));
        assert_eq!(policy.budget.left(100 * DAY_MS), Left::Bytes);
        assert_eq!(policy.budget.tokens, policy.budget.most(), "it fills no further");
    }

    #[test]
    fn what_is_asked_for_often_counts_as_offered_before() {
        let check = |spent, expected| {
            let mut policy = policy(Admission::SecondOffer, 2400);
            policy.budget.spend(spent);
            assert_eq!(policy.offered_again(7 << 32, 1, 0), expected, "{spent}");
        };
        check(0, Verdict::Store(Queue::Main));
        check(2400, Verdict::Store(Queue::Main));
        check(2450, Verdict::FirstOffer);
        check(2500, Verdict::OverBudget);
    }

    #[test]
    fn what_was_hit_is_kept_up_to_a_share_of_the_segment() {
        let check = |queue, hits, kept_bytes, spent, expected: Option<u8>| {
            let mut policy = policy(Admission::Always, 2400);
            policy.budget.spend(spent);
            let live = Live { hash: 1, queue, hits, bytes: 10 };
            let expected = expected.map_or(Fate::Drop, |hits| Fate::Keep { queue: Queue::Main, hits });
            assert_eq!(policy.reclaimed(live, Reclaimed { segment_bytes: 100, kept_bytes }), expected);
        };
        check(Queue::Probation, 0, 0, 0, None);
        check(Queue::Probation, 1, 0, 0, Some(0));
        check(Queue::Probation, 7, 80, 0, Some(0));
        check(Queue::Probation, 7, 81, 0, None);
        check(Queue::Probation, 1, 0, 2449, Some(0));
        check(Queue::Probation, 1, 0, 2450, None);
        check(Queue::Probation, 2, 0, 2450, Some(0));
        check(Queue::Main, 0, 0, 0, None);
        check(Queue::Main, 1, 0, 0, Some(0));
        check(Queue::Main, 3, 0, 0, Some(2));
        check(Queue::Main, 7, 0, 0, Some(2));
    }

    #[test]
    fn what_is_dropped_is_remembered() {
        for queue in [Queue::Probation, Queue::Main] {
            let mut policy = policy(Admission::Always, 0);
            let live = Live { hash: 9 << 32, queue, hits: 0, bytes: 10 };
            assert_eq!(policy.reclaimed(live, Reclaimed { segment_bytes: 100, kept_bytes: 0 }), Fate::Drop);
            assert_eq!(policy.offered(9 << 32, 10, 0), Verdict::Store(Queue::Main));
        }
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
