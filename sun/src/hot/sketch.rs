//! The most asked-for files of a stream, in memory that does not grow with it: HeavyKeeper. Pure.
//!
//! ```text
//!   content --> row 0: bucket [fingerprint | count]     the same fingerprint: count += weight
//!           \-> row 1: bucket [fingerprint | count]     another: for each unit, with probability 1.08^-count,
//!                                                       count -= 1; at 0 the bucket changes hands
//!                      |
//!             largest matching count = estimate  --more than the least candidate's?--> candidates (name, estimate)
//! ```
//!
//! Gong et al., "HeavyKeeper: An Accurate Algorithm for Finding Top-k Elephant Flows" (USENIX ATC 2018), section 3:
//! a large count is hardly ever decayed, so elephants keep their buckets, and mice that share one wear each other
//! down. Why not Space-Saving: at a few thousand counters it finds half of the top 100 of a Zipf stream, this finds
//! all of them.
//!
//! # Invariants
//!
//! - An estimate is never more than what was added, unless two files of one bucket agree in all 32 bits of the
//!   fingerprint (once in four thousand million pairs).
//! - Memory: [`ROWS`] * [`WIDTH`] buckets of 8 bytes and [`CANDIDATES`] names, whatever is added.
//!
//! Weights above 1 (bytes are counted in units) are added as so many units at once: how many units the next
//! decrement takes is drawn from the geometric distribution that single draws would give.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use geo::ContentId;

/// See the module's doc.
#[derive(Debug)]
pub struct Sketch {
    buckets: Box<[Bucket]>,
    /// At most [`CANDIDATES`].
    candidates: Vec<Candidate>,
    /// Places in `candidates`, by content.
    places: HashMap<u64, usize, BuildHasherDefault<Prefix>>,
    /// No candidate's estimate is less, once there are [`CANDIDATES`].
    least: u32,
    random: u64,
    total: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    fingerprint: u32,
    count: u32,
}

/// A file that may be among the most asked-for.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// First 8 bytes of its content id.
    pub prefix: u64,
    /// Its canonical name.
    pub file: Arc<str>,
    /// What was added of it, at least.
    pub estimate: u32,
}

impl Sketch {
    /// An empty sketch; `seed` begins its random numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            buckets: vec![Bucket::default(); ROWS * WIDTH].into(),
            candidates: Vec::with_capacity(CANDIDATES),
            places: HashMap::default(),
            least: 0,
            random: seed | 1,
            total: 0,
        }
    }

    /// `weight` units of a file were asked for.
    pub fn add(&mut self, content: ContentId, weight: u32, name: impl FnOnce() -> Arc<str>) {
        self.total += u64::from(weight);
        let prefix = content.prefix();
        let mut estimate = 0;
        for (place, fingerprint) in places(prefix) {
            let bucket = &mut self.buckets[place];
            if bucket.fingerprint == fingerprint || bucket.count == 0 {
                *bucket = Bucket { fingerprint, count: bucket.count.saturating_add(weight) };
                estimate = estimate.max(bucket.count);
            } else if let Some(left) = bucket.wear(weight, &mut self.random) {
                *bucket = Bucket { fingerprint, count: left };
                estimate = estimate.max(left);
            }
        }
        if estimate > self.least || self.candidates.len() < CANDIDATES {
            self.nominate(prefix, estimate, name);
        }
    }

    /// What was added of a file, at least.
    #[must_use]
    pub fn estimate(&self, prefix: u64) -> u32 {
        let of = |(place, fingerprint): (usize, u32)| {
            let bucket = self.buckets[place];
            if bucket.fingerprint == fingerprint { bucket.count } else { 0 }
        };
        places(prefix).into_iter().map(of).max().unwrap_or(0)
    }

    /// The files that may be the most asked-for, in no order.
    #[must_use]
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// All that was added.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.buckets.fill(Bucket::default());
        self.candidates.clear();
        self.places.clear();
        self.least = 0;
        self.total = 0;
    }

    fn nominate(&mut self, prefix: u64, estimate: u32, name: impl FnOnce() -> Arc<str>) {
        if let Some(&place) = self.places.get(&prefix) {
            let known = &mut self.candidates[place].estimate;
            *known = estimate.max(*known);
            return;
        }
        if self.candidates.len() < CANDIDATES {
            self.places.insert(prefix, self.candidates.len());
            self.candidates.push(Candidate { prefix, file: name(), estimate });
            return;
        }
        let estimates = self.candidates.iter().enumerate().map(|(place, candidate)| (candidate.estimate, place));
        let Some((least, place)) = estimates.min() else { return };
        self.least = least;
        if estimate > least {
            self.places.remove(&self.candidates[place].prefix);
            self.places.insert(prefix, place);
            self.candidates[place] = Candidate { prefix, file: name(), estimate };
        }
    }
}

impl Bucket {
    /// Another file adds units: what it has left when the count has come to nothing.
    fn wear(&mut self, mut units: u32, random: &mut u64) -> Option<u32> {
        while self.count > 0 {
            let chance = CHANCES[usize::try_from(self.count).unwrap_or(usize::MAX).min(CHANCES.len() - 1)];
            let spent = spent(chance, units, random);
            if spent > units {
                return None;
            }
            units -= spent;
            self.count -= 1;
        }
        // The unit that took the last of the count is the first of the new owner.
        Some(units + 1)
    }
}

/// How many units it takes for the next one to come true: one with probability `chance`, two with
/// `(1 - chance) * chance`, ...; anything more than `units` when none of them does.
fn spent(chance: f32, units: u32, random: &mut u64) -> u32 {
    let drawn = uniform(random);
    if units == 1 {
        return if drawn < chance { 1 } else { 2 };
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
    let trials = (drawn.ln() / (-chance).ln_1p()).ceil() as u32;
    trials.max(1)
}

/// 1.08^-count (the paper's base) for small counts; a count at the end of the table is worn down once in 200,000 units.
static CHANCES: [f32; 160] = {
    let mut chances = [1.0_f32; 160];
    let mut count = 1;
    while count < chances.len() {
        chances[count] = chances[count - 1] / 1.08;
        count += 1;
    }
    chances
};

/// A number above 0 and below 1: xorshift64* (Vigna, "An Experimental Exploration of Marsaglia's xorshift
/// Generators, Scrambled", ACM TOMS 2016).
#[expect(clippy::cast_precision_loss, reason = "24 bits are exact")]
fn uniform(state: &mut u64) -> f32 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    let bits = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40;
    (bits as f32 + 0.5) / 16_777_216.0
}

/// Places and fingerprints of a file, one a row. Content ids are hashes already: each row takes bits of its own.
#[expect(clippy::cast_possible_truncation, reason = "the bits that are wanted")]
const fn places(prefix: u64) -> [(usize, u32); ROWS] {
    let fingerprint = prefix as u32;
    let first = (prefix >> 52) as usize % WIDTH;
    let second = (prefix >> 40) as usize % WIDTH;
    [(first, fingerprint), (WIDTH + second, fingerprint)]
}

/// A content id's prefix is a hash: it need not be hashed once more.
#[derive(Debug, Default)]
struct Prefix(u64);

impl Hasher for Prefix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only prefixes are hashed")
    }

    fn write_u64(&mut self, prefix: u64) {
        self.0 = prefix;
    }
}

/// Rows of buckets.
pub const ROWS: usize = 2;
/// Buckets of a row.
pub const WIDTH: usize = 4096;
/// Names that are kept.
pub const CANDIDATES: usize = 256;

#[cfg(test)]
mod tests;
