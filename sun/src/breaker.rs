//! A content server that fails is left alone for a moment, so that misses are answered at once.
//!
//! ```text
//!            FAILURES in a row            OPEN_MS later
//!   closed ---------------------> open -----------------> half open: one question, the probe, goes through
//!     ^  ^                         ^                        |            |
//!     |  +-------------------------|---- anything succeeds -+            |
//!     +--- a question succeeds     +---------------- the probe fails ----+
//! ```
//!
//! A probe that ends without a verdict (its client went, or another source answered first) makes room for the next at once.
//!
//! Questions that were under way when it opened may still fail or succeed: their failures say nothing new, their
//! success closes it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Breakers of all content servers. Pure: time is an argument, in milliseconds of any monotonic clock.
#[derive(Debug, Default)]
pub struct Breakers(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Those that have failed lately; all others are closed.
    by_number: HashMap<u32, Breaker>,
    /// The last probe that went out.
    probe: u64,
}

#[derive(Clone, Copy, Debug)]
enum Breaker {
    Closed {
        /// In a row.
        failures: u32,
    },
    Open {
        until_ms: u64,
    },
    HalfOpen {
        /// The probe that is out.
        probe: u64,
        /// From then on it counts as lost.
        probe_until_ms: u64,
    },
}

/// Leave to ask, kept until the verdict. Dropped without one, a probe leaves its place to the next.
#[derive(Debug)]
pub struct Leave(Option<Probe>);

#[derive(Debug)]
struct Probe {
    breakers: Arc<Mutex<Known>>,
    content_server: u32,
    id: u64,
}

impl Leave {
    /// Of a question that no breaker was asked about.
    pub const ORDINARY: Self = Self(None);

    fn is_of(&self, id: u64) -> bool {
        self.0.as_ref().is_some_and(|probe| probe.id == id)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Some(breaker) = known(&self.breakers).by_number.get_mut(&self.content_server)
            && matches!(*breaker, Breaker::HalfOpen { probe, .. } if probe == self.id)
        {
            *breaker = Breaker::Open { until_ms: 0 };
        }
    }
}

/// No code that holds the lock panics.
fn known(breakers: &Mutex<Known>) -> MutexGuard<'_, Known> {
    breakers.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Breakers {
    /// Whether a question may be asked now: in a half-open breaker one at a time.
    #[must_use]
    pub fn admits(&self, content_server: u32, now_ms: u64) -> Option<Leave> {
        let mut known = known(&self.0);
        let id = known.probe + 1;
        let Some(breaker) = known.by_number.get_mut(&content_server) else { return Some(Leave::ORDINARY) };
        match *breaker {
            Breaker::Closed { .. } => return Some(Leave::ORDINARY),
            Breaker::Open { until_ms: wait_ms } | Breaker::HalfOpen { probe_until_ms: wait_ms, .. }
                if now_ms < wait_ms =>
            {
                return None;
            }
            Breaker::Open { .. } | Breaker::HalfOpen { .. } => {}
        }
        *breaker = Breaker::HalfOpen { probe: id, probe_until_ms: now_ms + PROBE_MS };
        known.probe = id;
        Some(Leave(Some(Probe { breakers: Arc::clone(&self.0), content_server, id })))
    }

    /// Whether a question may be asked now that may end without a verdict, and so cannot be a probe: not while
    /// the breaker is open or a probe is out. Once it has been open for long enough such questions go through
    /// until the first of them fails.
    #[must_use]
    pub fn admits_unprobed(&self, content_server: u32, now_ms: u64) -> bool {
        match known(&self.0).by_number.get(&content_server) {
            None | Some(Breaker::Closed { .. }) => true,
            Some(Breaker::Open { until_ms: wait_ms } | Breaker::HalfOpen { probe_until_ms: wait_ms, .. }) => {
                now_ms >= *wait_ms
            }
        }
    }

    /// Whether nothing is held against the content server.
    #[must_use]
    pub fn closed(&self, content_server: u32) -> bool {
        matches!(known(&self.0).by_number.get(&content_server), None | Some(Breaker::Closed { .. }))
    }

    /// The content server answered (whatever it said, short of a 5xx). Whether it was left alone until now.
    pub fn succeeded(&self, content_server: u32) -> bool {
        !matches!(known(&self.0).by_number.remove(&content_server), None | Some(Breaker::Closed { .. }))
    }

    /// It could not be reached, did not answer in time, or answered 5xx. Whether it is left alone from now on, and was not before.
    pub fn failed(&self, content_server: u32, leave: &Leave, now_ms: u64) -> bool {
        let mut known = known(&self.0);
        let breaker = known.by_number.entry(content_server).or_insert(Breaker::Closed { failures: 0 });
        let was_closed = matches!(breaker, Breaker::Closed { .. });
        *breaker = match *breaker {
            Breaker::Closed { failures } if failures + 1 < FAILURES => Breaker::Closed { failures: failures + 1 },
            Breaker::HalfOpen { probe, .. } if !leave.is_of(probe) => return false,
            Breaker::Open { until_ms } if now_ms < until_ms => return false,
            Breaker::Closed { .. } | Breaker::Open { .. } | Breaker::HalfOpen { .. } => {
                Breaker::Open { until_ms: now_ms + OPEN_MS }
            }
        };
        was_closed && matches!(breaker, Breaker::Open { .. })
    }
}

/// Thousands of content servers may be away at once: only so much is said of them.
#[derive(Debug, Default)]
pub struct Complaints(Mutex<(u64, u32)>);

impl Complaints {
    /// Whether one more line may be said now; it counts as said.
    pub fn may(&self, now_ms: u64) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since_ms, count) = &mut *said;
        if now_ms.saturating_sub(*since_ms) >= COMPLAINTS_MS {
            (*since_ms, *count) = (now_ms, 0);
        }
        *count += 1;
        *count <= COMPLAINTS_MAX
    }
}

/// Lines of one [`COMPLAINTS_MS`].
const COMPLAINTS_MAX: u32 = 10;
const COMPLAINTS_MS: u64 = 60_000;

/// Failures in a row that open a breaker.
pub const FAILURES: u32 = 5;
/// How long it stays open, milliseconds.
pub const OPEN_MS: u64 = 1000;
/// After so long another probe goes through though that one is still out, milliseconds.
pub const PROBE_MS: u64 = 30_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row() {
        check("failed*4", 0, "ask");
        check("failed*5", 0, "wait");
        check("failed*4 ok failed*4", 0, "ask");
        check("failed*5", OPEN_MS - 1, "wait");
        check("failed*5", OPEN_MS, "probe");
    }

    #[test]
    fn half_open_lets_one_probe_through_at_a_time() {
        check("failed*5 later admits", OPEN_MS, "wait");
        check("failed*5 later admits", PROBE_MS, "wait");
        check("failed*5 later admits", OPEN_MS + PROBE_MS, "probe");
        check("failed*5 later admits ok", OPEN_MS, "ask");
        check("failed*5 later admits probe-failed", OPEN_MS, "wait");
        check("failed*5 later admits probe-failed", 2 * OPEN_MS - 1, "wait");
        check("failed*5 later admits probe-failed", 2 * OPEN_MS, "probe");
    }

    #[test]
    fn questions_from_before_decide_only_for_the_better() {
        check("failed*9", OPEN_MS, "probe");
        check("failed*5 later admits failed*9", OPEN_MS, "wait");
        check("failed*5 later admits failed*9 probe-failed", 2 * OPEN_MS, "probe");
        check("failed*5 ok", 0, "ask");
    }

    #[test]
    fn a_probe_without_a_verdict_makes_room_for_the_next() {
        check("failed*5 later admits dropped", OPEN_MS, "probe");
        check("failed*5 later admits probe-failed dropped", OPEN_MS, "wait");
        check("failed*5 later admits ok dropped", OPEN_MS, "ask");
    }

    #[test]
    fn a_probe_of_before_makes_no_room_beside_the_one_that_is_out() {
        let breakers = opened();
        let slow = breakers.admits(7, OPEN_MS);
        let next = breakers.admits(7, OPEN_MS + PROBE_MS);
        assert!(slow.is_some() && next.is_some());
        drop(slow);
        assert!(breakers.admits(7, OPEN_MS + PROBE_MS).is_none(), "the next is out");
        drop(next);
        assert!(breakers.admits(7, OPEN_MS + PROBE_MS).is_some());
    }

    #[test]
    fn questions_that_are_no_probes_go_through_until_one_fails() {
        assert!(Breakers::default().admits_unprobed(7, 0));
        let breakers = opened();
        assert!(!breakers.admits_unprobed(7, OPEN_MS - 1));
        assert!(breakers.admits_unprobed(7, OPEN_MS) && breakers.admits_unprobed(7, OPEN_MS));
        breakers.failed(7, &Leave::ORDINARY, OPEN_MS);
        assert!(!breakers.admits_unprobed(7, 2 * OPEN_MS - 1));
        let probe = breakers.admits(7, 2 * OPEN_MS);
        assert!(probe.is_some());
        assert!(!breakers.admits_unprobed(7, 2 * OPEN_MS), "while a probe is out");
        breakers.succeeded(7);
        assert!(breakers.admits_unprobed(7, 0));
    }

    #[test]
    fn a_flood_of_complaints_is_cut() {
        let complaints = Complaints::default();
        let said = |now_ms| (0..100).filter(|_| complaints.may(now_ms)).count();
        assert_eq!(
            [0, COMPLAINTS_MS - 1, COMPLAINTS_MS].map(said),
            [COMPLAINTS_MAX as usize, 0, COMPLAINTS_MAX as usize]
        );
    }

    #[test]
    fn its_opening_and_its_end_are_told_once() {
        let breakers = Breakers::default();
        let told: Vec<bool> = (0..=FAILURES).map(|_| breakers.failed(7, &Leave::ORDINARY, 0)).collect();
        assert_eq!(told.iter().position(|told| *told), Some(FAILURES as usize - 1));
        assert!(!breakers.failed(7, &Leave::ORDINARY, OPEN_MS), "it is still left alone");
        assert!(breakers.succeeded(7) && !breakers.succeeded(7));
    }

    #[test]
    fn others_are_not_affected() {
        let breakers = opened();
        assert!(!breakers.closed(7) && breakers.closed(8));
        assert!(breakers.admits(8, 0).is_some_and(|leave| leave.0.is_none()));
    }

    /// Breakers, that of content server 7 open since time 0.
    fn opened() -> Breakers {
        let breakers = Breakers::default();
        for _ in 0..FAILURES {
            breakers.failed(7, &Leave::ORDINARY, 0);
        }
        breakers
    }

    /// Plays events at time 0, or at `OPEN_MS` after `later`, and then asks for leave at `now_ms`.
    #[track_caller]
    fn check(events: &str, now_ms: u64, expected: &str) {
        let breakers = Breakers::default();
        let (mut at_ms, mut probe) = (0, Leave::ORDINARY);
        for event in events.split(' ') {
            let (event, times) = event.split_once('*').unwrap_or((event, "1"));
            for _ in 0..times.parse().unwrap() {
                match event {
                    "failed" => drop(breakers.failed(7, &Leave::ORDINARY, at_ms)),
                    "probe-failed" => assert!(!breakers.failed(7, &probe, at_ms), "told once"),
                    "ok" => drop(breakers.succeeded(7)),
                    "admits" => probe = breakers.admits(7, at_ms).unwrap(),
                    "dropped" => probe = Leave::ORDINARY,
                    "later" => at_ms = OPEN_MS,
                    other => panic!("{other}"),
                }
            }
        }
        let found = match breakers.admits(7, now_ms) {
            None => "wait",
            Some(Leave(None)) => "ask",
            Some(Leave(Some(_))) => "probe",
        };
        assert_eq!(found, expected, "{events} at {now_ms}");
    }
}
