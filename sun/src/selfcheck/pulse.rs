//! The clocks of a self-check, and when its driver last heard of the sun: whoever is stuck must not look well.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// When the last round of probes reached the driver; shared with whoever tells others.
#[derive(Clone, Debug)]
pub struct Pulse {
    clock: Instant,
    round_ms: Arc<AtomicU64>,
}

impl Pulse {
    /// The first round is due. Time is that of `clock`.
    #[must_use]
    pub fn new(clock: Instant) -> Self {
        Self { clock, round_ms: Arc::default() }
    }

    /// A round.
    pub fn beat(&self) {
        self.round_ms.store(elapsed_ms(self.clock), Ordering::Relaxed);
    }

    /// Where its time begins.
    #[must_use]
    pub const fn clock(&self) -> Instant {
        self.clock
    }

    /// How long ago that was, milliseconds.
    #[must_use]
    pub fn age_ms(&self) -> u64 {
        elapsed_ms(self.clock).saturating_sub(self.round_ms.load(Ordering::Relaxed))
    }
}

/// Milliseconds since `clock`.
#[must_use]
pub fn elapsed_ms(clock: Instant) -> u64 {
    u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX)
}
