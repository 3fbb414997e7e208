//! What failed, and when it may be tried again: files, the disk, the popularity API. Pure: the time comes in.
//!
//! Without the memory of files, a rated file that its content server no longer has would be asked for every few seconds for as long
//! as its rating lasts.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use geo::ContentId;

/// A bounded memory of failures.
#[derive(Debug)]
pub struct Failures {
    known: HashMap<ContentId, Failure>,
    again: Again,
}

/// How long a file is left alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Again {
    /// After the first failure that may pass by itself; doubled by each further one.
    pub first: Duration,
    /// At most, and after an answer that will not change soon: 404, not to be cached, another length.
    pub last: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    until: Instant,
    /// Failures in a row.
    count: u32,
}

impl Failures {
    /// No file failed yet.
    #[must_use]
    pub fn new(again: Again) -> Self {
        Self { known: HashMap::new(), again }
    }

    /// The file failed now; `lasting` when there is no sense in trying again soon.
    pub fn record(&mut self, content: ContentId, lasting: bool, now: Instant) {
        let count = self.known.get(&content).map_or(1, |failure| failure.count.saturating_add(1));
        let doubled = self.again.first.saturating_mul(1_u32.checked_shl(count - 1).unwrap_or(u32::MAX));
        let wait = if lasting { self.again.last } else { doubled.min(self.again.last) };
        self.leave_alone(content, Failure { until: now + wait, count }, now);
    }

    /// The file did not fail: somebody else fetches it, and it is looked at again after the shortest wait, however often.
    pub fn wait(&mut self, content: ContentId, now: Instant) {
        let count = self.known.get(&content).map_or(0, |failure| failure.count);
        self.leave_alone(content, Failure { until: now + self.again.first, count }, now);
    }

    fn leave_alone(&mut self, content: ContentId, failure: Failure, now: Instant) {
        if self.known.len() >= FAILURES_MAX && !self.known.contains_key(&content) {
            self.make_room(now);
        }
        self.known.insert(content, failure);
    }

    /// The file was fetched: its past is forgotten.
    pub fn forget(&mut self, content: ContentId) {
        self.known.remove(&content);
    }

    /// Whether the file is to be left alone.
    #[must_use]
    pub fn hold_back(&self, content: ContentId, now: Instant) -> bool {
        self.known.get(&content).is_some_and(|failure| now < failure.until)
    }

    /// Forgets what may be tried again, else what may be tried again soonest.
    fn make_room(&mut self, now: Instant) {
        self.known.retain(|_, failure| now < failure.until);
        if self.known.len() < FAILURES_MAX {
            return;
        }
        let soonest = self.known.iter().min_by_key(|(content, failure)| (failure.until, **content));
        if let Some((&content, _)) = soonest {
            self.known.remove(&content);
        }
    }
}

/// Whether the vault's disk takes files.
#[derive(Debug, Default)]
pub struct DiskHealth {
    /// No download begins before.
    rests_until: Option<Instant>,
    failures: u32,
}

impl DiskHealth {
    /// Whether no download is to begin now.
    #[must_use]
    pub fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }

    /// A file could not be stored now; true for the first one in a row.
    pub fn fails(&mut self, now: Instant) -> bool {
        self.rests_until = Some(now + backoff(DISK_RETRY, self.failures));
        self.failures = self.failures.saturating_add(1);
        self.failures == 1
    }

    /// A file was stored; true when the one before could not be.
    pub fn works(&mut self) -> bool {
        std::mem::take(self).failures > 0
    }
}

/// `usual`, doubled by each failure in a row, at most [`BACKOFF_MAX`] (or what is usual, if that is longer).
#[must_use]
pub fn backoff(usual: Duration, failures: u32) -> Duration {
    usual.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(BACKOFF_MAX.max(usual))
}

/// Longest wait for an API or a disk that fails.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// First wait for a disk that fails.
const DISK_RETRY: Duration = Duration::from_secs(5);

/// Failures that are remembered: as many as there can be candidates.
const FAILURES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    const AGAIN: Again = Again { first: Duration::from_secs(10), last: Duration::from_secs(60) };

    #[test]
    fn a_passing_failure_is_tried_again_ever_later() {
        check(&[false], 10);
        check(&[false, false], 20);
        check(&[false, false, false], 40);
        check(&[false, false, false, false], 60);
        check(&[false; 100], 60);
    }

    #[test]
    fn a_lasting_failure_is_left_alone_for_the_longest_time() {
        check(&[true], 60);
        check(&[false, true], 60);
        check(&[true, false], 20);
    }

    #[test]
    fn a_file_that_a_peer_fetches_is_looked_at_again_and_again() {
        let now = Instant::now();
        let mut failures = Failures::new(AGAIN);
        failures.record(content(1), false, now);
        for _ in 0..9 {
            failures.wait(content(1), now);
            assert!(failures.hold_back(content(1), now) && !failures.hold_back(content(1), now + AGAIN.first));
        }
        failures.record(content(1), false, now);
        assert!(failures.hold_back(content(1), now + AGAIN.first), "its failures are remembered");
    }

    #[test]
    fn a_fetched_file_has_no_past() {
        let now = Instant::now();
        let mut failures = Failures::new(AGAIN);
        failures.record(content(1), true, now);
        failures.forget(content(1));
        assert!(!failures.hold_back(content(1), now));
        failures.record(content(1), false, now);
        assert!(!failures.hold_back(content(1), now + AGAIN.first));
    }

    #[test]
    fn the_memory_is_bounded_and_the_soonest_goes_first() {
        let now = Instant::now();
        let mut failures = Failures::new(AGAIN);
        failures.record(content(0), false, now);
        for number in 1..=FAILURES_MAX {
            failures.record(content(number), true, now);
        }
        assert_eq!(failures.known.len(), FAILURES_MAX);
        assert!(!failures.hold_back(content(0), now));
        assert!(failures.hold_back(content(1), now));
        failures.record(content(FAILURES_MAX + 1), true, now + AGAIN.last);
        assert_eq!(failures.known.len(), 1, "what may be tried again needs no memory");
    }

    #[test]
    fn what_fails_is_tried_again_ever_later() {
        let wait = |usual, failures| backoff(Duration::from_secs(usual), failures).as_secs();
        assert_eq!([0, 1, 2, 3, 4, 5, 40].map(|failures| wait(3, failures)), [3, 6, 12, 24, 48, 60, 60]);
        assert_eq!(wait(300, 5), 300);
    }

    #[test]
    fn a_disk_rests_after_a_failure_until_it_works() {
        let now = Instant::now();
        let mut disk = DiskHealth::default();
        assert!(!disk.rests(now) && !disk.works());
        assert!(disk.fails(now), "the first is told");
        assert!(disk.rests(now) && !disk.rests(now + DISK_RETRY));
        assert!(!disk.fails(now), "the next are not");
        assert!(disk.rests(now + DISK_RETRY));
        assert!(disk.works() && !disk.rests(now));
    }

    /// The file may be tried again `seconds` after the last of these failures, and not before.
    #[track_caller]
    fn check(lasting: &[bool], seconds: u64) {
        let now = Instant::now();
        let mut failures = Failures::new(AGAIN);
        for &lasting in lasting {
            failures.record(content(1), lasting, now);
        }
        let wait = Duration::from_secs(seconds);
        assert!(failures.hold_back(content(1), now + wait - Duration::from_nanos(1)), "{lasting:?}");
        assert!(!failures.hold_back(content(1), now + wait), "{lasting:?}");
    }

    fn content(number: usize) -> ContentId {
        geo::CanonicalName::parse(&format!("c1/{number}")).unwrap().content_id()
    }
}
