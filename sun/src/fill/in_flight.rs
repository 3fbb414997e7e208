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
//! A class that may not take all ([`ClassShare`]) reserves from its own share first, so that slow films leave room for
//! pictures. Who waits for its class's share takes back from fills of that class only.
//!
//! # Invariants
//!
//! - What is held in windows is reserved: bytes go back only with the window, when it is emptied or dropped.
//! - A fill that waits for its source, or whose readers follow, loses nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::fill::slots::{ClassId, ClassShare};
use crate::fill::{Fill, FillError};

/// See the module's doc.
#[derive(Debug)]
pub struct InFlight {
    kib: Arc<Semaphore>,
    kib_max: u32,
    /// Of classes that may not take all: how many KiB, and those that are left.
    classes: Mutex<HashMap<ClassId, (u32, Arc<Semaphore>)>>,
    fills: Mutex<Vec<Known>>,
}

/// A fill that has a window.
#[derive(Debug)]
struct Known {
    fill: Weak<Fill>,
    class: ClassId,
}

/// What a fill has reserved; given back when it is dropped.
#[derive(Debug)]
pub struct Reserved {
    _of_all: OwnedSemaphorePermit,
    _of_class: Option<OwnedSemaphorePermit>,
}

impl InFlight {
    /// At most `bytes_max` in all windows.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        let kib = usize::try_from(bytes_max / 1024).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            kib: Arc::new(Semaphore::new(kib)),
            kib_max: u32::try_from(kib).unwrap_or(u32::MAX),
            classes: Mutex::default(),
            fills: Mutex::default(),
        }
    }

    /// Reserves what the window of a fill of a class may hold, `bytes`; the fill keeps it with its window. `now_ms` is the
    /// clock of [`Fill::idle_since`].
    ///
    /// # Errors
    ///
    /// [`FillError::Busy`] when there is nothing within `patience`.
    pub async fn reserve(
        &self,
        fill: &Arc<Fill>,
        bytes: u64,
        share: &ClassShare,
        patience: Duration,
        now_ms: impl Fn() -> u64,
    ) -> Result<(), FillError> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).clamp(1, self.kib_max);
        let reserve = async {
            let of_class = match self.of_class(share) {
                Some((kib_max, left)) => Some(self.wait(&left, kib.min(kib_max), Some(share.class()), &now_ms).await),
                None => None,
            };
            Reserved { _of_all: self.wait(&self.kib, kib, None, &now_ms).await, _of_class: of_class }
        };
        fill.hold(tokio::time::timeout(patience, reserve).await.map_err(|_| FillError::Busy)?);
        let mut fills = self.lock();
        if fills.len() == fills.capacity() {
            fills.retain(|known| known.fill.strong_count() > 0);
        }
        fills.push(Known { fill: Arc::downgrade(fill), class: share.class().clone() });
        Ok(())
    }

    /// Whether so many bytes are free now.
    #[must_use]
    pub fn has_room(&self, bytes: u64) -> bool {
        self.kib.available_permits() as u64 >= bytes.div_ceil(1024)
    }

    fn of_class(&self, share: &ClassShare) -> Option<(u32, Arc<Semaphore>)> {
        let (class, limit) = share.limit(usize::try_from(self.kib_max).unwrap_or(usize::MAX))?;
        let kib_max = u32::try_from(limit).unwrap_or(u32::MAX);
        let mut classes = self.classes.lock().expect("no code that holds this lock panics");
        if let Some(own) = classes.get(class).filter(|(known, _)| *known == kib_max) {
            return Some(own.clone());
        }
        let own = (kib_max, Arc::new(Semaphore::new(limit)));
        classes.insert(class.clone(), own.clone());
        Some(own)
    }

    /// `class`: whose share is waited for; none: what all share.
    async fn wait(
        &self,
        left: &Arc<Semaphore>,
        kib: u32,
        class: Option<&ClassId>,
        now_ms: impl Fn() -> u64,
    ) -> OwnedSemaphorePermit {
        let acquire = Arc::clone(left).acquire_many_owned(kib);
        tokio::pin!(acquire);
        loop {
            tokio::select! {
                biased;
                permit = &mut acquire => return permit.expect("the semaphore is never closed"),
                () = tokio::time::sleep(LOOK) => self.reclaim(now_ms(), None, class),
            }
        }
    }

    /// Has the fill give its window back, and its place at the content server, whose readers have stood still for
    /// longest; of those that may ask content server `number` and of those of a class, if they are given: what others give
    /// back frees nothing of the class's share.
    pub fn reclaim(&self, now_ms: u64, number: Option<u32>, class: Option<&ClassId>) {
        let of_class = |known: &&Known| class.is_none_or(|class| known.class == *class);
        let asks = |fill: &Arc<Fill>| number.is_none_or(|number| fill.asks(number));
        let upgrade = |known: &Known| known.fill.upgrade();
        let fills: Vec<Arc<Fill>> = self.lock().iter().filter(of_class).filter_map(upgrade).filter(asks).collect();
        let idle = fills.iter().map(|fill| fill.idle_since(now_ms));
        if let Some(victim) = longest_idle(idle, now_ms) {
            fills[victim].give_back();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Known>> {
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
            in_flight.reserve(fill, 5 * MIB, &all(), patience, || 0).await.unwrap();
            fill.open(opened(), 0);
            fill.push(vec![7; 5 * MIB as usize].into());
        }
        still.stand_still(100);
        let third = fill();
        let early = in_flight.reserve(&third, 5 * MIB, &all(), patience, || 100 + IDLE_MS - 1).await;
        assert!(matches!(early, Err(FillError::Busy)), "nobody has stood still for long enough");
        in_flight.reserve(&third, 5 * MIB, &all(), patience, || 100 + IDLE_MS).await.unwrap();
        assert!(still.gave_back() && !moving.gave_back());
        assert_eq!(still.window_bytes(), 0, "what is not reserved is not held");
        let fourth = fill();
        let none = in_flight.reserve(&fourth, MIB, &all(), patience, || u64::MAX).await;
        assert!(matches!(none, Err(FillError::Busy)), "a fill that is read keeps its window");
        drop((third, fourth));
        assert!(in_flight.has_room(5 * MIB), "a fill that is dropped gives back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_class_takes_its_share_and_leaves_the_rest() {
        let (in_flight, patience) = (InFlight::new(10 * MIB), Duration::from_secs(5));
        let (films, fills) = (share(0.5), [fill(), fill(), fill(), fill()]);
        in_flight.reserve(&fills[0], 4 * MIB, &films, patience, || 0).await.unwrap();
        let second = in_flight.reserve(&fills[1], 4 * MIB, &films, patience, || 0).await;
        assert!(matches!(second, Err(FillError::Busy)), "half of it");
        in_flight.reserve(&fills[2], 5 * MIB, &all(), patience, || 0).await.unwrap();
        drop(fills);
        in_flight
            .reserve(&fill(), 9 * MIB, &films, patience, || 0)
            .await
            .expect("a window above the share takes it whole");
    }

    #[tokio::test(start_paused = true)]
    async fn a_class_that_waits_for_its_share_robs_no_other() {
        let (in_flight, patience) = (InFlight::new(10 * MIB), Duration::from_secs(5));
        let (picture, film) = (fill(), fill());
        let _readers = [&picture, &film].map(|fill| Reader::new(Arc::clone(fill)));
        for (fill, share, since) in [(&picture, all(), 100), (&film, share(0.5), 200)] {
            in_flight.reserve(fill, 4 * MIB, &share, patience, || 0).await.unwrap();
            fill.open(opened(), 0);
            fill.push(vec![7; 4 * MIB as usize].into());
            fill.stand_still(since);
        }
        in_flight.reserve(&fill(), 4 * MIB, &share(0.5), patience, || 200 + IDLE_MS).await.unwrap();
        assert!(film.gave_back(), "it is of the class");
        assert!(
            !picture.gave_back(),
            "it has stood still for longer, and would have freed nothing of the class's share"
        );
    }

    fn all() -> ClassShare {
        ClassShare::new(None, "pictures", 1.0)
    }

    fn share(share: f64) -> ClassShare {
        ClassShare::new(None, "films", share)
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
