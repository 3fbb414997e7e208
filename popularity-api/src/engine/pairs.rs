//! The ratings of one region's files in one shard: 16 bytes each, in a table of open addressing.
//!
//! ```text
//!   slots: | file u32 | hour u32 | days u32 | size u16, held u16 | ...   four to a line of the processor's cache
//!          '------------------ 128 of them: a block -----------------'
//!   peaks: | at least the best score in the block | ...
//! ```
//!
//! # Invariants
//!
//! - A pair's file has a record in the shard's names, and is held there once for it.
//! - A block's peak is at least the score of each pair in it: scores never fall while a pair is there, and when one is
//!   moved it takes its score along. It may be higher than that when the best pair has gone. So the best pairs of a
//!   region are found by looking into few blocks, those with the highest peaks, and no other order is kept.
//!
//! Of the slots 68 to 82 % are in use, so a pair takes 19.5 to 23.5 bytes, peaks included.

use std::sync::LazyLock;

use super::files::{FULL_PERCENT, FileIndex, NO_FILE, after, between, grown};
use super::packed::Packed;

/// The pairs.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    slots: Vec<Pair>,
    peaks: Vec<Peak>,
    count: usize,
}

/// A rated file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Pair {
    pub(super) file: FileIndex,
    pub(super) rating: Packed,
    size: u16,
    /// A bit for each cache of the region that is known to hold it; see `table/held.rs`.
    pub(super) held: u16,
}

/// A score, rounded up to 256ths: an order for blocks.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Peak(pub(super) i32);

impl Pair {
    pub(super) fn new(file: FileIndex, rating: Packed, size: u64) -> Self {
        let mut pair = Self { file, rating, size: 0, held: 0 };
        pair.resize(size);
        pair
    }

    /// Takes over the file's size, to 1,024ths of its `log2`; an empty file counts as one byte.
    pub(super) fn resize(&mut self, size: u64) {
        self.size = log2_size(size);
    }

    /// `log2` of its size in bytes.
    pub(super) fn log2_size(&self) -> f64 {
        f64::from(self.size) / IN_ONE
    }
}

/// `log2` of so many bytes as a pair keeps it.
pub(super) fn kept_log2_size(size: u64) -> f64 {
    f64::from(log2_size(size)) / IN_ONE
}

impl Peak {
    pub(super) const NONE: Self = Self(i32::MIN);

    pub(super) fn of(score: f64) -> Self {
        // What a score is computed from later differs in its last bits.
        let exact = score * 256.0 + 0.01;
        // `ceil` is a call on processors of the first x86-64 level, and a quarter of what counting a download takes.
        let whole = exact as i32;
        Self(whole.saturating_add(i32::from(exact > f64::from(whole))))
    }

    /// No pair of the block scores more.
    pub(super) fn score(self) -> f64 {
        // Beyond what 32 bits hold nothing is known.
        if self.0 == i32::MAX { f64::INFINITY } else { f64::from(self.0) / 256.0 }
    }
}

impl Pairs {
    /// How many.
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// Reads where a file's pair is, or is near by: the line of its home and half the next one.
    pub(super) fn touch(&self, file: FileIndex) -> u32 {
        let place = home(file, self.slots.len());
        let peak = self.peaks.get(place / BLOCK).map_or(0, |peak| peak.0);
        let (at, behind) = (self.slots.get(place), self.slots.get(place + 2));
        at.map_or(0, |pair| pair.file.0) ^ behind.map_or(0, |pair| pair.file.0) ^ peak.cast_unsigned()
    }

    /// The slot of a file's pair.
    pub(super) fn find(&self, file: FileIndex) -> Option<usize> {
        let mut place = home(file, self.slots.len());
        loop {
            let found = self.slots.get(place)?.file;
            if found == file {
                return Some(place);
            }
            if found == NO_FILE {
                return None;
            }
            place = after(place, self.slots.len());
        }
    }

    /// The pair in a slot, if there is one.
    pub(super) fn at(&self, place: usize) -> Option<&Pair> {
        self.slots.get(place).filter(|pair| pair.file != NO_FILE)
    }

    /// Rates the pair in a slot that [`Pairs::find`] gave.
    pub(super) fn set(&mut self, place: usize, rating: Packed, size: u64, peak: Peak) {
        let pair = &mut self.slots[place];
        pair.rating = rating;
        pair.resize(size);
        self.raise(place, peak);
    }

    /// Sets a cache's bit of the pair in a slot that [`Pairs::find`] gave, or takes it away.
    pub(super) fn set_held(&mut self, place: usize, bit: u16, held: bool) {
        let bits = &mut self.slots[place].held;
        *bits = if held { *bits | bit } else { *bits & !bit };
    }

    /// Takes a cache's bit away everywhere.
    pub(super) fn clear_held(&mut self, bit: u16) {
        self.slots.iter_mut().for_each(|pair| pair.held &= !bit);
    }

    /// A pair of a file that has none here.
    pub(super) fn insert(&mut self, pair: Pair, peak: Peak, of: impl Fn(&Pair) -> Peak) {
        if (self.count + 1) * 100 > self.slots.len() * FULL_PERCENT {
            self.grow(pair.file, of);
        }
        self.put(pair, peak);
        self.count += 1;
    }

    /// Takes the pair out of a slot; another one may be in it then.
    pub(super) fn remove(&mut self, place: usize) {
        let places = self.slots.len();
        let (mut gap, mut next) = (place, after(place, places));
        while self.slots[next].file != NO_FILE {
            if !between(gap, home(self.slots[next].file, places), next) {
                self.slots[gap] = self.slots[next];
                // Not its own peak but one that is not less, without computing it.
                self.raise(gap, self.peaks[next / BLOCK]);
                gap = next;
            }
            next = after(next, places);
        }
        self.slots[gap] = EMPTY;
        self.count -= 1;
    }

    /// Changes all ratings and what they peak at.
    pub(super) fn revise(&mut self, revised: impl Fn(Packed) -> Packed, of: impl Fn(&Pair) -> Peak) {
        for (block, peak) in self.slots.chunks_mut(BLOCK).zip(&mut self.peaks) {
            *peak = Peak::NONE;
            for pair in block.iter_mut().filter(|pair| pair.file != NO_FILE) {
                pair.rating = revised(pair.rating);
                *peak = (*peak).max(of(pair));
            }
        }
    }

    /// All pairs.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Pair> {
        self.slots.iter().filter(|pair| pair.file != NO_FILE)
    }

    /// The peaks of its blocks.
    pub(super) fn peaks(&self) -> &[Peak] {
        &self.peaks
    }

    /// The pairs of a block.
    pub(super) fn block(&self, block: usize) -> impl Iterator<Item = &Pair> {
        self.slots.chunks(BLOCK).nth(block).unwrap_or_default().iter().filter(|pair| pair.file != NO_FILE)
    }

    /// Slots, empty ones too.
    pub(super) const fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of RAM.
    pub(super) const fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Pair>() + self.peaks.capacity() * size_of::<Peak>()
    }

    fn grow(&mut self, new: FileIndex, of: impl Fn(&Pair) -> Peak) {
        let larger = grown(self.slots.len(), new.0) + 4;
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; larger]);
        self.peaks = vec![Peak::NONE; larger.div_ceil(BLOCK)];
        for pair in old.into_iter().filter(|pair| pair.file != NO_FILE) {
            self.put(pair, of(&pair));
        }
    }

    fn put(&mut self, pair: Pair, peak: Peak) {
        let mut place = home(pair.file, self.slots.len());
        while self.slots[place].file != NO_FILE {
            place = after(place, self.slots.len());
        }
        self.slots[place] = pair;
        self.raise(place, peak);
    }

    fn raise(&mut self, place: usize, peak: Peak) {
        let kept = &mut self.peaks[place / BLOCK];
        *kept = (*kept).max(peak);
    }
}

/// `log2` of a number above 0 in 1,024ths.
fn log2_size(size: u64) -> u16 {
    let size = size.max(1);
    let whole = size.ilog2();
    // The ten bits after the first.
    let rest = (size << (63 - whole) << 1) >> 54;
    (whole * 1024) as u16 + LOG2[rest as usize]
}

/// What `log2` of sizes are kept in.
const IN_ONE: f64 = 1024.0;

/// `log2(1 + x)` in 1,024ths, for x = 0, 1/1024, 2/1024 ...
static LOG2: LazyLock<[u16; 1024]> =
    LazyLock::new(|| std::array::from_fn(|x| ((x as f64 / 1024.0).ln_1p() * std::f64::consts::LOG2_E * 1024.0) as u16));

/// The first place of a file among so many: spread by Fibonacci hashing, as this process itself gave the number out, and
/// nobody can choose collisions.
const fn home(file: FileIndex, places: usize) -> usize {
    ((file.0.wrapping_mul(0x9e37_79b9) as u64 * places as u64) >> 32) as usize
}

const EMPTY: Pair = Pair { file: NO_FILE, rating: Packed { hour: 0, days: 0 }, size: 0, held: 0 };
/// Slots of a block.
const BLOCK: usize = 128;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pair_takes_sixteen_bytes() {
        assert_eq!(size_of::<Pair>(), 16);
    }

    #[test]
    fn sizes_are_kept_to_a_thousandth() {
        for size in [0, 1, 2, 3, 1000, 1023, 1024, 1025, 123_456_789, u64::from(u32::MAX), 1 << 47, u64::MAX] {
            let kept = Pair::new(FileIndex(1), packed(0), size).log2_size();
            assert!((kept - (size.max(1) as f64).log2()).abs() < 0.0025, "{size} {kept}");
        }
    }

    proptest! {
        #[test]
        fn pairs_that_come_and_go_are_those_of_a_map_and_peaks_cover_them(
            steps in prop::collection::vec((0..400_u32, 0..1000_u32, 0..4_u8), 1..1500)
        ) {
            let (mut pairs, mut model) = (Pairs::default(), BTreeMap::new());
            for (file, more, kind) in steps {
                // Files whose homes are near each other, so that they are moved about.
                let file = FileIndex(file / 8 * 0x10_0001 + file % 8 * 0x9e37);
                match (pairs.find(file), kind) {
                    (Some(place), 0) => { pairs.remove(place); model.remove(&file); }
                    (Some(place), _) => {
                        let rating = model.get_mut(&file).unwrap();
                        *rating += more;
                        pairs.set(place, packed(*rating), 1, peak(*rating));
                    }
                    (None, 0) => {}
                    (None, _) => {
                        pairs.insert(Pair::new(file, packed(more), 1), peak(more), |pair| peak(pair.rating.hour));
                        model.insert(file, more);
                    }
                }
            }
            let mut found: Vec<(FileIndex, u32)> = pairs.iter().map(|pair| (pair.file, pair.rating.hour)).collect();
            found.sort();
            prop_assert_eq!(found, model.iter().map(|(&file, &rating)| (file, rating)).collect::<Vec<_>>());
            prop_assert_eq!(pairs.len(), model.len());
            for (block, &kept) in pairs.peaks().iter().enumerate() {
                prop_assert!(pairs.block(block).all(|pair| peak(pair.rating.hour) <= kept));
            }
            for file in model.keys() {
                prop_assert_eq!(pairs.find(*file).and_then(|place| pairs.at(place)).map(|pair| pair.file), Some(*file));
            }
        }
    }

    fn packed(hour: u32) -> Packed {
        Packed { hour, days: 0 }
    }

    fn peak(rating: u32) -> Peak {
        Peak::of(f64::from(rating))
    }
}
