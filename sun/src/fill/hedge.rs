//! A second question when a source takes unusually long to answer the first.
//!
//! "The Tail at Scale" (Dean and Barroso, Communications of the ACM, February 2013) calls it a hedged request: it
//! is sent once the first has waited for longer than the 95th percentile of what is usual, and so costs about 5 %
//! more requests for a much shorter tail.
//!
//! ```text
//!   question ------ usual p95 passes ------+---- no head yet ---> second question: next source, or the same
//!      |                                   |                      content server on another connection
//!      +--- head: done                     +-- first good head wins, the other is dropped
//! ```
//!
//! What is usual is learned per source from the last [`SAMPLES`] answers of the last [`RECENT_MS`] and kept
//! within bounds. Each question earns the budget `percent_max` hundredths of a second question: hedges can never
//! be more than that share, however slow everything becomes. Pure but for the lock: time is an argument, in
//! milliseconds of any monotonic clock.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::config::UpstreamConfig;
use crate::sources::Source;

/// See the module's doc.
#[derive(Debug)]
pub struct Hedging {
    percent_max: u32,
    ms_min: u64,
    ms_max: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    usual: HashMap<Key, Usual>,
    /// Hundredths of a hedge that may be made.
    budget: u32,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Key {
    ContentServer(u32),
    Server(String),
}

/// How long the last answers of one source took.
#[derive(Clone, Debug, Default)]
struct Usual {
    /// When it came and how long it took, milliseconds; oldest first.
    answers: VecDeque<(u64, u64)>,
}

impl Hedging {
    /// With the settings.
    #[must_use]
    pub fn new(config: &UpstreamConfig) -> Self {
        Self {
            percent_max: config.hedge_percent_max.min(100),
            ms_min: config.hedge_ms_min,
            ms_max: config.hedge_ms_max.max(config.hedge_ms_min),
            state: Mutex::default(),
        }
    }

    /// A question is asked: earns its share of a hedge. Returns how long to wait for its answer before another.
    pub fn asked(&self, source: &Source, now_ms: u64) -> Duration {
        let mut state = self.lock();
        state.budget = (state.budget + self.percent_max).min(BUDGET_MAX);
        let usual = state.usual.get(&Key::of(source)).and_then(|usual| usual.p95_ms(now_ms));
        Duration::from_millis(usual.unwrap_or(self.ms_max).clamp(self.ms_min, self.ms_max))
    }

    /// The source answered after `took_ms`, or was given up after that.
    pub fn answered(&self, source: &Source, took_ms: u64, now_ms: u64) {
        let mut state = self.lock();
        let key = Key::of(source);
        if state.usual.len() >= SOURCES_MAX && !state.usual.contains_key(&key) {
            state.usual.retain(|_, usual| usual.p95_ms(now_ms).is_some());
            if state.usual.len() >= SOURCES_MAX {
                return;
            }
        }
        let answers = &mut state.usual.entry(key).or_default().answers;
        if answers.len() == SAMPLES {
            answers.pop_front();
        }
        answers.push_back((now_ms, took_ms));
    }

    /// Takes one hedge out of the budget, if there is one.
    pub fn take(&self) -> bool {
        let mut state = self.lock();
        let left = state.budget.checked_sub(100);
        state.budget = left.unwrap_or(state.budget);
        left.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code that holds this lock panics")
    }
}

impl Usual {
    /// The 95th percentile of the recent answers; none when they are too few to tell.
    fn p95_ms(&self, now_ms: u64) -> Option<u64> {
        let recent = self.answers.iter().filter(|(at, _)| now_ms.saturating_sub(*at) <= RECENT_MS);
        let mut took: Vec<u64> = recent.map(|(_, took)| *took).collect();
        if took.len() < SAMPLES_MIN {
            return None;
        }
        let rank = (took.len() * 95).div_ceil(100) - 1;
        Some(*took.select_nth_unstable(rank).1)
    }
}

impl Key {
    fn of(source: &Source) -> Self {
        match source {
            Source::ContentServer { number, .. } => Self::ContentServer(*number),
            Source::Sun { name, .. } | Source::Former { name, .. } | Source::Cache { name, .. } => {
                Self::Server(name.clone())
            }
        }
    }
}

/// The first good one of two answers, and one that came before it and was not good. Whoever has not answered by
/// then is dropped.
pub async fn race<T>(
    first: impl Future<Output = T>,
    second: impl Future<Output = T>,
    good: impl Fn(&T) -> bool,
) -> (T, Option<T>) {
    tokio::pin!(first, second);
    let (early, was_first) = tokio::select! {
        biased;
        answer = &mut first => (answer, true),
        answer = &mut second => (answer, false),
    };
    if good(&early) {
        return (early, None);
    }
    let late = if was_first { second.await } else { first.await };
    (late, Some(early))
}

/// Answers that are remembered of a source.
pub const SAMPLES: usize = 128;
/// Fewer recent answers tell nothing: with 20 the 95th percentile is the second slowest.
pub const SAMPLES_MIN: usize = 20;
/// Answers older than that are not recent, milliseconds.
pub const RECENT_MS: u64 = 60_000;
/// Hundredths of a hedge that can be saved up: ten at once after a quiet time.
const BUDGET_MAX: u32 = 1000;
/// Sources that are remembered.
const SOURCES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_is_usual_is_learned_within_bounds() {
        check(&[], 0, 1000);
        check(&[(0, 200); 19], 0, 1000);
        check(&[(0, 200); 20], 0, 200);
        check(&[(0, 3); 20], 0, 50);
        check(&[(0, 7000); 20], 0, 1000);
        let rising: Vec<(u64, u64)> = (1..=100).map(|ms| (0, 4 * ms)).collect();
        check(&rising, 0, 380);
        let one_slow: Vec<(u64, u64)> = [(0, 900)].into_iter().chain([(0, 100); 39]).collect();
        check(&one_slow, 0, 100);
    }

    #[test]
    fn what_was_usual_is_forgotten() {
        check(&[(0, 200); 20], RECENT_MS, 200);
        check(&[(0, 200); 20], RECENT_MS + 1, 1000);
        let replaced: Vec<(u64, u64)> = [(0, 900); 128].into_iter().chain([(1, 100); 128]).collect();
        check(&replaced, 1, 100);
    }

    #[test]
    fn hedges_are_at_most_five_in_a_hundred() {
        let hedging = hedging();
        assert!(!hedging.take(), "nothing was earned yet");
        let mut hedges = 0;
        for asked in 1..=1000 {
            hedging.asked(&source(), 0);
            hedges += usize::from(hedging.take());
            assert!(hedges * 20 <= asked, "{hedges} of {asked}");
        }
        assert_eq!(hedges, 50);
        for _ in 0..10_000 {
            hedging.asked(&source(), 0);
        }
        assert_eq!((0..100).filter(|_| hedging.take()).count(), 10, "a quiet day saves up ten");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_good_answer_wins() {
        for (first, second, expected) in [
            ((10, 1), (20, 2), (1, None)),
            ((20, 1), (10, 2), (2, None)),
            ((10, -1), (20, 2), (2, Some(-1))),
            ((20, 1), (10, -2), (1, Some(-2))),
            ((10, -1), (20, -2), (-2, Some(-1))),
        ] {
            let answer = |(ms, answer): (u64, i32)| async move {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                answer
            };
            let won = race(answer(first), answer(second), |answer| *answer > 0).await;
            assert_eq!(won, expected, "{first:?} {second:?}");
        }
    }

    #[test]
    fn sources_that_are_remembered_are_bounded() {
        let hedging = hedging();
        for number in 0..5000 {
            hedging.answered(&Source::ContentServer { number, url: String::new(), host: None }, 1, 0);
        }
        assert!(hedging.lock().usual.len() <= SOURCES_MAX);
    }

    #[track_caller]
    fn check(answers: &[(u64, u64)], now_ms: u64, expected_ms: u64) {
        let hedging = hedging();
        for (at_ms, took_ms) in answers {
            hedging.answered(&source(), *took_ms, *at_ms);
        }
        assert_eq!(hedging.asked(&source(), now_ms), Duration::from_millis(expected_ms));
    }

    fn hedging() -> Hedging {
        let config =
            UpstreamConfig { hedge_percent_max: 5, hedge_ms_min: 50, hedge_ms_max: 1000, ..UpstreamConfig::default() };
        Hedging::new(&config)
    }

    fn source() -> Source {
        Source::ContentServer { number: 7, url: "http://cs7/a".into(), host: None }
    }
}
