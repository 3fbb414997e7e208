//! How hard the API is pressed, and what it asks of reporters for it. Pure: the clock comes in as an argument.
//!
//! ```text
//!   pressed   more than half of the queue is taken, or a batch takes longer than `slow` to become durable
//!             -> the share that reporters count is halved, at most once a second, down to 1/64
//!   at ease   less than a quarter of the queue, and batches take less than half of `slow`, for ten seconds on end
//!             -> it is doubled, and ten seconds begin again
//!   between   nothing changes, and the ten seconds begin anew
//! ```
//!
//! A reporter that counts a share `p` of its responses counts each of them `1/p` times, so ratings stay right on the
//! average; what gets less is the number of files a batch names, which is what counting costs. When even that is too much,
//! batches are refused (429) and wait in the reporters' spools: [`Pressure::retry_after`] says how long.

use std::time::Duration;

/// What is known of the load. It goes by what calls see, so that it is the same for every engine.
#[derive(Clone, Debug)]
pub struct Pressure {
    queue_bytes_max: usize,
    slow_ms: f64,
    queued_bytes: usize,
    /// How long batches took lately, milliseconds.
    took_ms: f64,
    halvings: u32,
    halved_ms: Option<u64>,
    at_ease_since_ms: Option<u64>,
}

impl Pressure {
    /// Of a queue of so many bytes, whose groups gather for `commit`.
    #[must_use]
    pub fn new(queue_bytes_max: usize, commit: Duration) -> Self {
        let slow_ms = (commit + SLOW).as_secs_f64() * 1000.0;
        let (queued_bytes, took_ms) = (0, 0.0);
        Self { queue_bytes_max, slow_ms, queued_bytes, took_ms, halvings: 0, halved_ms: None, at_ease_since_ms: None }
    }

    /// A batch of so many bytes begins to wait for its commit.
    pub fn begin(&mut self, bytes: usize, now_ms: u64) {
        self.queued_bytes = self.queued_bytes.saturating_add(bytes);
        self.look(now_ms);
    }

    /// It waits no more. `took`: until it was durable; none: it was refused, and says nothing of commits.
    pub fn end(&mut self, bytes: usize, took: Option<Duration>, now_ms: u64) {
        self.queued_bytes = self.queued_bytes.saturating_sub(bytes);
        if let Some(took) = took {
            self.took_ms += (took.as_secs_f64() * 1000.0 - self.took_ms) * NEWEST_SHARE;
        }
        self.look(now_ms);
    }

    /// Share of their responses that reporters are to count, 1/64..=1.
    #[must_use]
    pub fn sample(&self) -> f64 {
        0.5_f64.powi(self.halvings.cast_signed())
    }

    /// How long whoever is refused now is to stay away: two commits as they are now.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        let seconds = (self.took_ms * 2.0 / 1000.0).ceil().clamp(1.0, RETRY_S_MAX);
        Duration::from_secs_f64(seconds)
    }

    fn look(&mut self, now_ms: u64) {
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
        let fill = self.queued_bytes as f64 / self.queue_bytes_max.max(1) as f64;
        if fill > FULL || self.took_ms > self.slow_ms {
            self.at_ease_since_ms = None;
            if self.halved_ms.is_none_or(|halved| now_ms >= halved.saturating_add(HALVE_MS)) {
                self.halvings = (self.halvings + 1).min(HALVINGS_MAX);
                self.halved_ms = Some(now_ms);
            }
        } else if fill < EMPTY && self.took_ms < self.slow_ms / 2.0 {
            let since = *self.at_ease_since_ms.get_or_insert(now_ms);
            if now_ms >= since.saturating_add(DOUBLE_MS) {
                self.halvings = self.halvings.saturating_sub(1);
                self.at_ease_since_ms = Some(now_ms);
            }
        } else {
            self.at_ease_since_ms = None;
        }
    }
}

/// What a commit may take beyond the time that its group gathers.
const SLOW: Duration = Duration::from_secs(1);
/// Share of the queue above which it is full.
const FULL: f64 = 0.5;
/// Share below which it is empty.
const EMPTY: f64 = 0.25;
/// Between two halvings.
const HALVE_MS: u64 = 1000;
/// At ease for so long before a doubling.
const DOUBLE_MS: u64 = 10_000;
/// Down to 1/64: below, a file that is asked for a thousand times an hour is hardly ever seen.
const HALVINGS_MAX: u32 = 6;
/// What the newest batch counts for in how long they take.
const NEWEST_SHARE: f64 = 0.125;
/// Longest time that whoever is refused is to stay away, seconds.
const RETRY_S_MAX: f64 = 30.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_fills_halves_the_share_once_a_second_down_to_a_bound() {
        let mut pressure = Pressure::new(1000, Duration::from_millis(200));
        pressure.begin(500, 0);
        assert_eq!(share(&pressure), 1, "half is not more than half");
        pressure.begin(1, 5);
        assert_eq!(share(&pressure), 2);
        for (now_ms, expected) in
            [(1004, 2), (1005, 4), (1006, 4), (9000, 8), (10_000, 16), (11_000, 32), (12_000, 64), (99_000, 64)]
        {
            pressure.begin(0, now_ms);
            assert_eq!(share(&pressure), expected, "at {now_ms}");
        }
    }

    #[test]
    fn it_is_doubled_after_ten_seconds_at_ease_on_end() {
        let mut pressure = Pressure::new(1000, Duration::from_millis(200));
        pressure.begin(501, 0);
        pressure.begin(0, 1000);
        assert_eq!(share(&pressure), 4);
        pressure.end(251, None, 2000);
        for now_ms in [3000, 13_000, 99_000] {
            pressure.begin(0, now_ms);
            assert_eq!(share(&pressure), 4, "between a quarter and half nothing changes");
        }
        pressure.end(100, None, 100_000);
        for (now_ms, taken, expected) in [
            (109_999, 0, 4),
            (109_999, 150, 4),
            (110_000, 0, 4),
            (119_998, -150, 4),
            (129_997, 0, 4),
            (129_998, 0, 2),
            (139_997, 0, 2),
            (139_998, 0, 1),
            (999_999, 0, 1),
        ] {
            match usize::try_from(taken) {
                Ok(taken) => pressure.begin(taken, now_ms),
                Err(_) => pressure.end(150, None, now_ms),
            }
            assert_eq!(share(&pressure), expected, "at {now_ms}");
        }
    }

    #[test]
    fn slow_commits_press_and_one_alone_does_not() {
        let mut pressure = Pressure::new(1000, Duration::from_millis(200));
        let mut end = |took_ms, now_ms| {
            pressure.begin(1, now_ms);
            pressure.end(1, Some(Duration::from_millis(took_ms)), now_ms);
            (share(&pressure), pressure.retry_after().as_secs())
        };
        assert_eq!(end(200, 0), (1, 1));
        assert_eq!(end(5000, 1), (1, 2));
        assert_eq!(end(5000, 2), (1, 3));
        assert_eq!(end(5000, 3), (2, 4), "above 1.2 s on the average");
        for now_ms in 4..100 {
            end(600_000, now_ms);
        }
        assert_eq!(end(600_000, 100), (2, 30));
        for now_ms in 101..200 {
            end(10, now_ms);
        }
        assert_eq!(end(10, 10_100), (2, 1));
        assert_eq!(end(10, 11_000), (1, 1));
    }

    #[test]
    fn a_refused_batch_says_nothing_of_commits() {
        let mut pressure = Pressure::new(1000, Duration::from_millis(200));
        pressure.begin(10, 0);
        pressure.end(10, None, 100_000);
        assert_eq!(pressure.retry_after(), Duration::from_secs(1));
        assert_eq!(pressure.queued_bytes, 0);
    }

    /// One of how many is counted.
    fn share(pressure: &Pressure) -> u64 {
        (1.0 / pressure.sample()) as u64
    }
}
