//! The bytes that all fills together may hold, and who gives some back when others wait for them.
//!
//! ```text
//!   fill begins --reserve--> window's worth of KiB --held with its window--> the last reader has left
//!                  |                                      ^
//!                  | nothing is free                      | gives its window back
//!                  +--- looks again and again: the fill whose readers have not moved for longest
//! ```
//!
//! A fill that runs ahead of readers that do not read (any more) keeps its window for them, and so does one
//! that has brought everything: that is kind to a player on pause, and starves everybody else when many clients
//! stand still. Whoever waits for bytes therefore takes them from the fill whose readers have stood still for
//! longest, at least [`IDLE_MS`]. Its readers find the window gone, look in the tiers, and ask again for what is
//! not there when they move on: an extent at a time from then on, so that little is fetched in vain.
//!
//! # Invariants
//!
//! - What is held in windows is reserved: bytes go back only with the window, when it is emptied or dropped.
//! - A fill that waits for its source, or whose readers follow, loses nothing.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::fill::{Fill, FillError};

/// See the module's doc.
#[derive(Debug)]
pub struct InFlight {
    kib: Arc<Semaphore>,
    kib_max: u32,
    fills: Mutex<Vec<Weak<Fill>>>,
}

impl InFlight {
    /// At most `bytes_max` in all windows.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        let kib = usize::try_from(bytes_max / 1024).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            kib: Arc::new(Semaphore::new(kib)),
            kib_max: u32::try_from(kib).unwrap_or(u32::MAX),
            fills: Mutex::default(),
        }
    }

    /// Reserves what the window of a fill may hold, `bytes`; the fill keeps it with its window. `now_ms` is the
    /// clock of [`Fill::idle_since`].
    ///
    /// # Errors
    ///
    /// [`FillError::Busy`] when there is nothing within `patience`.
    pub async fn reserve(
        &self,
        fill: &Arc<Fill>,
        bytes: u64,
        patience: Duration,
        now_ms: impl Fn() -> u64,
    ) -> Result<(), FillError> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).clamp(1, self.kib_max);
        let permit = tokio::time::timeout(patience, self.wait(kib, now_ms)).await.map_err(|_| FillError::Busy)?;
        fill.hold(permit);
        let mut fills = self.lock();
        if fills.len() == fills.capacity() {
            fills.retain(|fill| fill.strong_count() > 0);
        }
        fills.push(Arc::downgrade(fill));
        Ok(())
    }

    /// Whether so many bytes are free now.
    #[must_use]
    pub fn has_room(&self, bytes: u64) -> bool {
        self.kib.available_permits() as u64 >= bytes.div_ceil(1024)
    }

    async fn wait(&self, kib: u32, now_ms: impl Fn() -> u64) -> OwnedSemaphorePermit {
        let acquire = Arc::clone(&self.kib).acquire_many_owned(kib);
        tokio::pin!(acquire);
        loop {
            tokio::select! {
                biased;
                permit = &mut acquire => return permit.expect("the semaphore is never closed"),
                () = tokio::time::sleep(LOOK) => self.reclaim(now_ms(), None),
            }
        }
    }

    /// Has the fill give its window back, and its place at the content server, whose readers have stood still for
    /// longest; of those that may ask content server `number`, if it is given.
    pub fn reclaim(&self, now_ms: u64, number: Option<u32>) {
        let asks = |fill: &Arc<Fill>| number.is_none_or(|number| fill.asks(number));
        let fills: Vec<Arc<Fill>> = self.lock().iter().filter_map(Weak::upgrade).filter(asks).collect();
        let idle = fills.iter().map(|fill| fill.idle_since(now_ms));
        if let Some(victim) = longest_idle(idle, now_ms) {
            fills[victim].give_back();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Fill>>> {
        self.fills.lock().expect("no code that holds this lock panics")
    }
}

/// Which of the fills has stood still for longest, and long enough. Pure.
fn longest_idle(since: impl Iterator<Item = Option<u64>>, now_ms: u64) -> Option<usize> {
    let idle = since.enumerate().filter_map(|(place, since)| Some((since?, place)));
    idle.filter(|(since, _)| now_ms.saturating_sub(*since) >= IDLE_MS).min().map(|(_, place)| place)
}

/// Readers that have not moved for so long may lose their window to others, milliseconds. A client that takes an
/// extent (1 MiB) in less reads at 8 Mbit/s or more.
pub const IDLE_MS: u64 = 1000;

/// How often whoever waits for bytes looks for a fill that can give some back.
pub(super) const LOOK: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fill::plan::Plan;
    use crate::fill::{Opened, Reader};

    const MIB: u64 = 1 << 20;

    #[test]
    fn whoever_has_stood_still_for_longest_gives_back() {
        check(&[], 5000, None);
        check(&[None, None], 5000, None);
        check(&[Some(4500), None, Some(4001)], 5000, None);
        check(&[Some(4500), None, Some(4000)], 5000, Some(2));
        check(&[Some(3000), Some(1000), Some(2000)], 5000, Some(1));
        check(&[Some(1000), Some(1000)], 5000, Some(0));
    }

    #[track_caller]
    fn check(since: &[Option<u64>], now_ms: u64, expected: Option<usize>) {
        assert_eq!(longest_idle(since.iter().copied(), now_ms), expected, "{since:?} at {now_ms}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fill_whose_readers_stand_still_makes_room_and_one_that_is_read_does_not() {
        let in_flight = InFlight::new(10 * MIB);
        let patience = Duration::from_secs(5);
        let (still, moving) = (fill(), fill());
        let (_lazy, _eager) = (Reader::new(Arc::clone(&still)), Reader::new(Arc::clone(&moving)));
        for fill in [&still, &moving] {
            in_flight.reserve(fill, 5 * MIB, patience, || 0).await.unwrap();
            fill.open(opened(), 0);
            fill.push(vec![7; 5 * MIB as usize].into());
        }
        still.stand_still(100);
        let third = fill();
        let early = in_flight.reserve(&third, 5 * MIB, patience, || 100 + IDLE_MS - 1).await;
        assert!(matches!(early, Err(FillError::Busy)), "nobody has stood still for long enough");
        in_flight.reserve(&third, 5 * MIB, patience, || 100 + IDLE_MS).await.unwrap();
        assert!(still.gave_back() && !moving.gave_back());
        assert_eq!(still.window_bytes(), 0, "what is not reserved is not held");
        let fourth = fill();
        let none = in_flight.reserve(&fourth, MIB, patience, || u64::MAX).await;
        assert!(matches!(none, Err(FillError::Busy)), "a fill that is read keeps its window");
        drop((third, fourth));
        assert!(in_flight.has_room(5 * MIB), "a fill that is dropped gives back");
    }

    fn fill() -> Arc<Fill> {
        let content = geo::CanonicalName::parse("c1/a").unwrap().content_id();
        Arc::new(Fill::new(content, Plan::Whole, Vec::new()))
    }

    fn opened() -> Opened {
        let meta = crate::meta::Meta::new(&http::HeaderMap::new(), Some(100 * MIB), 0, 0, 2);
        Opened::of_medium(Arc::new(meta))
    }
}
