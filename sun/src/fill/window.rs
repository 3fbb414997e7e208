//! The bytes that a fill holds: the last few whole extents and the one that is arriving.
//!
//! ```text
//!             start                                     received
//!     ---------|----------|----------|----------|==..==.|
//!      dropped   complete   complete   complete   arriving: chunks as they came
//!                <------- readers find bytes here ------>
//! ```
//!
//! Pure: no clock, no task, no lock. Whole extents are handed to the caller, who caches them; readers that are
//! slower than the window find them there. Memory is at most [`WINDOW_EXTENTS`] + 1 extents.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::extent::{self, EXTENT_BYTES};

/// See the module's doc.
#[derive(Debug)]
pub struct Window {
    /// Whole extents, oldest first, without gaps.
    complete: VecDeque<(u32, Bytes)>,
    /// Chunks of the extent that is arriving, each with the position of its first byte.
    arriving: Vec<(u64, Bytes)>,
    /// Position of the next byte to come.
    received: u64,
}

/// What a reader finds at its position.
#[derive(Debug, Eq, PartialEq)]
pub enum Found {
    /// At least one byte.
    Bytes(Bytes),
    /// Not arrived yet.
    Later,
    /// Before the window: look in the tiers.
    Gone,
}

impl Window {
    /// A window whose first byte will be `start`, the first byte of an extent.
    #[must_use]
    pub fn starting_at(start: u64) -> Self {
        debug_assert!(start.is_multiple_of(EXTENT_BYTES), "a fill begins at an extent");
        Self { complete: VecDeque::new(), arriving: Vec::new(), received: start }
    }

    /// Position of the next byte to come.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Position of the oldest byte that is here.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        match (self.complete.front(), self.arriving.first()) {
            (Some((index, _)), _) => extent::start_of(*index),
            (None, Some((position, _))) => *position,
            (None, None) => self.received,
        }
    }

    /// Takes the next bytes; returns the extents that became whole.
    pub fn push(&mut self, mut chunk: Bytes) -> Vec<(u32, Bytes)> {
        let mut whole = Vec::new();
        while !chunk.is_empty() {
            let room = EXTENT_BYTES - self.received % EXTENT_BYTES;
            let take = usize::try_from(room).map_or(chunk.len(), |room| room.min(chunk.len()));
            self.append(chunk.split_to(take));
            if self.received.is_multiple_of(EXTENT_BYTES) {
                whole.extend(self.close());
            }
        }
        whole
    }

    /// Drops the bytes that are here; those before the next one to come are gone.
    pub fn empty(&mut self) {
        self.complete.clear();
        self.arriving.clear();
    }

    /// The file ends here: returns the last extent if it is shorter than the others.
    pub fn finish(&mut self) -> Option<(u32, Bytes)> {
        self.close()
    }

    /// The bytes at `position`, at most up to `end`.
    #[must_use]
    pub fn read(&self, position: u64, end: u64) -> Found {
        debug_assert!(position < end, "a reader at its end does not read");
        if position >= self.received {
            return Found::Later;
        }
        if position < self.oldest() {
            return Found::Gone;
        }
        let arriving = self.arriving.partition_point(|(first, _)| *first <= position);
        let (first, bytes) = match arriving.checked_sub(1) {
            Some(chunk) => (self.arriving[chunk].0, &self.arriving[chunk].1),
            None => {
                let oldest = self.complete.front().map_or(0, |(index, _)| *index);
                let (index, bytes) = &self.complete[(extent::index_of(position) - oldest) as usize];
                (extent::start_of(*index), bytes)
            }
        };
        Found::Bytes(slice(bytes, position - first, end - first))
    }

    fn append(&mut self, chunk: Bytes) {
        let position = self.received;
        self.received += chunk.len() as u64;
        if let Some((_, last)) = self.arriving.last_mut()
            && last.len() + chunk.len() <= MERGE_BYTES
        {
            *last = [last.as_ref(), chunk.as_ref()].concat().into();
            return;
        }
        self.arriving.push((position, chunk));
    }

    /// Joins the arriving chunks: cached bytes must not pin the larger buffers they were read into.
    fn close(&mut self) -> Option<(u32, Bytes)> {
        let (first, _) = self.arriving.first()?;
        let index = extent::index_of(*first);
        let length = self.arriving.iter().map(|(_, chunk)| chunk.len()).sum();
        let mut joined = BytesMut::with_capacity(length);
        for (_, chunk) in self.arriving.drain(..) {
            joined.extend_from_slice(&chunk);
        }
        let joined = joined.freeze();
        self.complete.push_back((index, joined.clone()));
        if self.complete.len() > WINDOW_EXTENTS {
            self.complete.pop_front();
        }
        Some((index, joined))
    }
}

/// `bytes[from..to]`, cut at its end.
pub(crate) fn slice(bytes: &Bytes, from: u64, to: u64) -> Bytes {
    let clamp = |offset: u64| usize::try_from(offset).map_or(bytes.len(), |offset| offset.min(bytes.len()));
    bytes.slice(clamp(from)..clamp(to))
}

/// Whole extents that a fill keeps for its readers.
pub const WINDOW_EXTENTS: usize = 4;

/// Chunks are joined up to this size, so that a source that drips single bytes costs no more entries than one
/// that does not: 256 per extent at most.
const MERGE_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_reader_sees_bytes_before_their_extent_is_whole() {
        let mut window = Window::starting_at(0);
        assert_eq!(window.read(0, 10), Found::Later);
        assert!(window.push(Bytes::from_static(b"hello")).is_empty());
        assert_eq!(window.read(1, 3), Found::Bytes(Bytes::from_static(b"el")));
        assert_eq!(window.read(5, 10), Found::Later);
        assert_eq!(window.finish(), Some((0, Bytes::from_static(b"hello"))));
        assert_eq!(window.finish(), None);
    }

    #[test]
    fn what_left_the_window_is_gone() {
        let mut window = Window::starting_at(EXTENT_BYTES);
        for _ in 0..WINDOW_EXTENTS + 2 {
            assert_eq!(window.push(Bytes::from(vec![1; EXTENT_BYTES as usize])).len(), 1);
        }
        assert_eq!(window.oldest(), 3 * EXTENT_BYTES);
        assert_eq!(window.read(EXTENT_BYTES, EXTENT_BYTES + 1), Found::Gone);
        assert_eq!(window.read(0, 1), Found::Gone);
        assert!(matches!(window.read(3 * EXTENT_BYTES, u64::MAX), Found::Bytes(_)));
        window.empty();
        assert_eq!(window.read(3 * EXTENT_BYTES, u64::MAX), Found::Gone);
        assert_eq!(window.read(window.received(), u64::MAX), Found::Later);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// However the bytes are cut into chunks and read, a reader that keeps up sees the file, and the
        /// extents that come out are the file.
        #[test]
        fn nothing_is_lost_or_moved(cuts in prop::collection::vec(1..400_000_usize, 1..20), step in 1..300_000_u64) {
            let size: usize = cuts.iter().sum();
            let file: Bytes = (0..size).map(|at| (at % 251) as u8).collect::<Vec<u8>>().into();
            let (mut window, mut rest) = (Window::starting_at(0), file.clone());
            let (mut read, mut cached) = (Vec::new(), Vec::new());
            for cut in cuts {
                cached.extend(window.push(rest.split_to(cut)));
                while (read.len() as u64) < window.received() {
                    let position = read.len() as u64;
                    match window.read(position, position + step) {
                        Found::Bytes(bytes) => read.extend_from_slice(&bytes),
                        other => prop_assert!(false, "{other:?} at {position}"),
                    }
                }
            }
            cached.extend(window.finish());
            prop_assert_eq!(&read[..], &file[..]);
            let joined: Vec<u8> = cached.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
            prop_assert_eq!(&joined[..], &file[..]);
            prop_assert!(cached.iter().enumerate().all(|(at, (index, _))| at == *index as usize));
        }
    }
}
