//! How far a copy is behind: bytes of binlog, and seconds. Pure: clocks are arguments.
//!
//! ```text
//!   primary's binlog   ====|====|====|====>        behind: the bytes between, and how old the last group counted here is by
//!   counted here       ====|====|                          the primary's own clock
//!
//!   nothing missing at the last answer: 0 then, and as old as that answer now (0..1 s while all is well, and it grows
//!   while the primary is away)
//! ```
//!
//! Why the primary's clock: the two machines' clocks may differ by more than the lag.

/// See the module's doc.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Lag {
    heard: Option<Heard>,
}

/// The primary's last answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Heard {
    /// On this machine's scale.
    at_ms: u64,
    behind_bytes: u64,
    /// At the moment of the answer.
    behind_ms: u64,
}

/// How far a copy is behind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Behind {
    /// Binlog.
    pub bytes: u64,
    /// Seconds.
    pub seconds: f64,
}

impl Lag {
    /// The primary said, `at_ms` on any scale of this machine that only rises, that its binlog ends at `end`, at `time_ms` of its
    /// own clock; this copy has counted up to `position`, and its last group is of `counted_ms` (0: there is none yet).
    pub fn heard(&mut self, at_ms: u64, (end, time_ms): (u64, u64), (position, counted_ms): (u64, u64)) {
        let behind_bytes = end.saturating_sub(position);
        let behind_ms = if behind_bytes == 0 { 0 } else { time_ms.saturating_sub(counted_ms) };
        self.heard = Some(Heard { at_ms, behind_bytes, behind_ms });
    }

    /// How far the copy is behind now; nothing while the primary has not answered yet.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are far below 2^53")]
    pub fn behind(&self, now_ms: u64) -> Option<Behind> {
        let Heard { at_ms, behind_bytes, behind_ms } = self.heard?;
        let ms = behind_ms.saturating_add(now_ms.saturating_sub(at_ms));
        Some(Behind { bytes: behind_bytes, seconds: ms as f64 / 1000.0 })
    }

    /// Whether that is at most so much.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a day at most")]
    pub fn is_within(&self, now_ms: u64, max_s: u64) -> bool {
        self.behind(now_ms).is_some_and(|behind| behind.seconds <= max_s as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_behind_by_what_it_has_not_counted() {
        // The primary's end and clock, this copy's position and last group, this machine's clock now (the answer came at 5000).
        check((900, 70_000), (900, 10_000), 5000, "0 bytes 0 s");
        check((900, 70_000), (900, 10_000), 5400, "0 bytes 0.4 s");
        check((900, 70_000), (700, 67_500), 5000, "200 bytes 2.5 s");
        check((900, 70_000), (700, 67_500), 6000, "200 bytes 3.5 s");
        check((900, 70_000), (700, 71_000), 5000, "200 bytes 0 s"); // The clock of the primary went back.
        check((600, 70_000), (700, 10_000), 5000, "0 bytes 0 s");
        check((900, 70_000), (900, 10_000), 4000, "0 bytes 0 s");
    }

    #[test]
    fn who_has_heard_nothing_is_behind_by_more_than_any_bound() {
        assert_eq!(Lag::default().behind(5), None);
        assert!(!Lag::default().is_within(5, 86_400));
        let mut lag = Lag::default();
        lag.heard(0, (5, 5), (5, 5));
        assert!(lag.is_within(30_000, 30) && !lag.is_within(30_001, 30));
    }

    #[track_caller]
    fn check(primary: (u64, u64), here: (u64, u64), now_ms: u64, expected: &str) {
        let mut lag = Lag::default();
        lag.heard(5000, primary, here);
        let behind = lag.behind(now_ms).unwrap();
        assert_eq!(format!("{} bytes {} s", behind.bytes, behind.seconds), expected);
    }
}
