//! Which batches may follow the last one of their source, and what is missing between the two. Pure, but for the count.
//!
//! ```text
//!   known       boot 7, sequence 4
//!   next        boot 7, sequence 5
//!   a gap       boot 7, sequence 9: counted; 5 to 8 are missing, and lost when they come after it
//!   refused     boot 7, sequence 18446744073709551615: nothing could follow it
//!   refused     a boot in the year 55000 (nanoseconds?): nothing of that source could be counted until then
//! ```
//!
//! A source whose clock was far ahead once is not shut out: its boots may be as far above the last one counted as above now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use daemon::metrics::Meters;
use prometheus::IntCounter;

use super::table::{Mark, Standing};

/// Why a batch is not counted under its mark: 409, without `known boot` in its detail. So servers keep the batch until
/// somebody has mended what is wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadMark {
    /// Its source's start lies ahead.
    #[error(
        "boot {boot} is more than ten years ahead of the clock here: it is when the reporter started, microseconds since 1970; \
         mend its clock or the number, and send the batch again"
    )]
    Boot {
        /// The batch's.
        boot: u64,
    },
    /// Its number is far above the last one.
    #[error(
        "sequence {sequence} is more than {SEQUENCE_STEP_MAX} above the last one of this boot, {known}: number the batches \
         of a boot 1, 2, 3, ..."
    )]
    Sequence {
        /// The batch's.
        sequence: u64,
        /// The last one that was counted, 0 when none of this boot was.
        known: u64,
    },
}

/// Whether a batch may be counted at `now_us`, microseconds since 1970, beside the last mark `known` of its source.
///
/// # Errors
///
/// [`BadMark`].
pub fn check(mark: Mark, known: Mark, now_us: u64) -> Result<(), BadMark> {
    if mark.standing(known) != Standing::New {
        return Ok(());
    }
    let Mark { boot, sequence } = mark;
    if boot > known.boot && boot > now_us.max(known.boot).saturating_add(BOOT_AHEAD_US_MAX) {
        return Err(BadMark::Boot { boot });
    }
    let known = before(mark, known);
    if sequence - known > SEQUENCE_STEP_MAX { Err(BadMark::Sequence { sequence, known }) } else { Ok(()) }
}

/// Batches whose numbers were passed over by one that is counted. Nobody knows it of a source that is heard of first.
#[must_use]
pub fn missing(mark: Mark, known: Mark) -> u64 {
    if known == Mark::default() || mark.standing(known) != Standing::New {
        return 0;
    }
    (mark.sequence - before(mark, known)).saturating_sub(1)
}

/// The last sequence of a new batch's boot; at most the batch's own.
const fn before(mark: Mark, known: Mark) -> u64 {
    if mark.boot == known.boot { known.sequence } else { 0 }
}

/// Counts what is missing, and says it once for each start of a source. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gaps {
    missing: IntCounter,
    /// The boot that it was last said of, by source.
    said: Arc<Mutex<HashMap<String, u64>>>,
}

impl Gaps {
    /// Registers the count.
    ///
    /// # Errors
    ///
    /// When the registry has one of this name already.
    pub fn register(registry: &prometheus::Registry) -> prometheus::Result<Self> {
        let help =
            "Batches whose numbers a later batch of their source passed over; what they had is lost if they come now";
        let missing = Meters::new(registry, "popularity_").counter("batches_missing_total", help)?;
        Ok(Self { missing, said: Arc::default() })
    }

    /// A batch is counted that comes after the mark `known`. True when the operator is told of a gap.
    pub fn note(&self, source: &str, mark: Mark, known: Mark) -> bool {
        let missing = missing(mark, known);
        if missing == 0 {
            return false;
        }
        self.missing.inc_by(missing);
        // What a panic leaves behind is still a map; it is as long as the list of sources.
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.insert(source.to_owned(), mark.boot) == Some(mark.boot) {
            return false;
        }
        let (boot, sequence) = (mark.boot, mark.sequence);
        tracing::warn!(
            source,
            boot,
            sequence,
            missing,
            "numbers of batches are left out, and what has them is lost: the reporter dropped it (a full spool), or does not \
             repeat what failed before it sends the next; popularity_batches_missing_total counts on"
        );
        true
    }
}

/// How far ahead of now a start may lie, microseconds: ten years. What is in another unit is further off. A clock that is
/// wrong by less is none of this module's business: a server writes down the boot it had, and would be kept from reporting
/// long after its clock was mended; as it is, its later boots are above that one.
pub const BOOT_AHEAD_US_MAX: u64 = 3650 * 86_400_000_000;
/// Numbers that may be passed over: a batch a second makes less in thirty years.
pub const SEQUENCE_STEP_MAX: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_shut_a_source_out_is_refused() {
        let now = 1_800_000_000_000_000;
        let (most, first) = (BOOT_AHEAD_US_MAX, Mark::default());
        let late = mark(4 * now, 3);
        for (batch, known, expected) in [
            (mark(now, 1), first, None),
            (mark(now + most, 1), first, None),
            (mark(now + most + 1, 1), first, Some("boot")),
            (mark(u64::MAX, 1), first, Some("boot")),
            (mark(u64::MAX, 1), mark(7, 1), Some("boot")),
            // Its clock was ahead once, and what it has counted stands.
            (mark(4 * now, 4), late, None),
            (mark(4 * now + most, 1), late, None),
            (mark(4 * now + most + 1, 1), late, Some("boot")),
            (mark(u64::MAX, 2), mark(u64::MAX, 1), None),
            (mark(7, 1 + SEQUENCE_STEP_MAX), mark(7, 1), None),
            (mark(7, 2 + SEQUENCE_STEP_MAX), mark(7, 1), Some("sequence")),
            (mark(7, u64::MAX), mark(7, 1), Some("sequence")),
            (mark(8, u64::MAX), mark(7, u64::MAX), Some("sequence")),
            (mark(8, SEQUENCE_STEP_MAX), mark(7, u64::MAX), None),
            // Neither is new.
            (mark(6, u64::MAX), mark(7, 1), None),
            (mark(7, 1), mark(7, 1), None),
        ] {
            let said = check(batch, known, now).err().map(|error| error.to_string());
            let word = said.as_ref().and_then(|said| said.split(' ').next());
            assert_eq!(word, expected, "{batch:?} after {known:?}");
            assert!(!said.unwrap_or_default().contains("known boot"), "a server would renumber");
        }
    }

    #[test]
    fn what_was_passed_over_is_counted_and_said_once_a_start() {
        let gaps = Gaps::register(&prometheus::Registry::new()).unwrap();
        let mut known = Mark::default();
        for (boot, sequence, missing, said) in [
            (7, 5, 0, false), // Who knows what came before.
            (7, 6, 0, false),
            (7, 9, 2, true),
            (7, 11, 1, false),
            (7, 11, 0, false),
            (7, 8, 0, false),
            (6, 90, 0, false),
            (9, 1, 0, false),
            (10, 3, 2, true),
        ] {
            let before = gaps.missing.get();
            assert_eq!(gaps.note("log:1", mark(boot, sequence), known), said, "{boot} {sequence}");
            assert_eq!(gaps.missing.get() - before, missing, "{boot} {sequence}");
            if mark(boot, sequence).standing(known) == Standing::New {
                known = mark(boot, sequence);
            }
        }
        assert!(gaps.note("log:2", mark(10, 3), mark(10, 1)), "another source is told of by itself");
    }

    fn mark(boot: u64, sequence: u64) -> Mark {
        Mark { boot, sequence }
    }
}
