//! Which server of a region keeps which file.
//!
//! Every file has one *owner* among a region's suns, so that the region holds one copy of it rather
//! than one per sun, and a sun owns a share of the files proportional to its weight. The next ones in
//! the order are its stand-ins, and the first `r` of it share a hot file.
//!
//! ```text
//!                 score(file, server) = -ln(u) / weight, smallest first
//!                 +-------------+-------------+-------------+
//!   ContentId --> | sun4-2-1 .7 | sun4-2-2 9. | sun4-2-3 2. |   order: 1, 3, 2
//!                 +-------------+-------------+-------------+
//! ```
//!
//! This is weighted rendezvous hashing: Thaler and Ravishankar, "Using Name-Based Mappings to Increase
//! Hit Rates" (IEEE/ACM Trans. Networking, 1998), with the weights of Resch, "New Hashing Algorithms
//! for Data Storage" (SNIA SDC, 2015). `-ln(u) / weight` is exponentially distributed with rate
//! `weight`, and the smallest of several such numbers falls to each with probability proportional to
//! its rate.
//!
//! # Invariants
//!
//! - **No coordination.** The order is a function of the arguments alone.
//! - **Least movement.** A server that joins, leaves or changes weight moves only the files it gains or loses.
//! - **Frozen.** Changing a score moves files on every server at once; `orders_never_change` pins it.
//!
//! Why not a hash ring: it spreads 0.83..1.11 of the fair share. Why not Maglev: it moves 50 % more
//! than it must on a small change of weight.

use crate::name::ContentId;

/// Share of content of a server, 0..=256; 0 = draining: it owns nothing.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Weight(u16);

impl Weight {
    /// Largest weight.
    pub const MAX: u16 = 256;

    /// A weight, or nothing when it is above [`Weight::MAX`].
    #[must_use]
    pub const fn new(weight: u16) -> Option<Self> {
        if weight <= Self::MAX { Some(Self(weight)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// A server as placement sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Candidate {
    seed: u64,
    weight: Weight,
}

impl Candidate {
    /// `name` is the server's stable name, `sun4-2-1`; renaming a server moves all of its content.
    #[must_use]
    pub fn new(name: &str, weight: Weight) -> Self {
        let digest = blake3::hash(name.as_bytes());
        let (seed, _) = digest.as_bytes().split_first_chunk().expect("a digest has 32 bytes");
        Self { seed: u64::from_be_bytes(*seed), weight }
    }
}

/// Indices into `candidates` of those with weight: owner first, then its stand-ins in order.
///
/// Linear in their number, about 50 ns each; at most a few hundred. Empty when none has weight.
/// Two builds whose `ln` differ in the last bit can disagree about a file whose two best scores are
/// equal to 16 digits; the price is a second copy of that file, never a wrong byte.
#[must_use]
pub fn order(content: ContentId, candidates: &[Candidate]) -> Vec<usize> {
    let mut scored: Vec<(f64, u64, usize)> = candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| candidate.weight.get() > 0)
        .map(|(index, candidate)| (score(content, *candidate), candidate.seed, index))
        .collect();
    scored.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    scored.into_iter().map(|(_, _, index)| index).collect()
}

/// The first of [`order`], without sorting.
#[must_use]
pub fn owner(content: ContentId, candidates: &[Candidate]) -> Option<usize> {
    candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| candidate.weight.get() > 0)
        .map(|(index, candidate)| (score(content, *candidate), candidate.seed, index))
        .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
        .map(|(_, _, index)| index)
}

/// `-ln(u) / weight`, where `u` in (0, 1) is a hash of the pair.
fn score(content: ContentId, candidate: Candidate) -> f64 {
    let hash = mix(content.prefix() ^ mix(candidate.seed));
    // The top 53 bits are as many as an f64 holds exactly; the half keeps u off 0 and 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64 exactly")]
    let u = ((hash >> 11) as f64 + 0.5) / TWO_POW_53;
    -u.ln() / f64::from(candidate.weight.get())
}

/// Spreads a 64-bit key evenly: the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
const fn mix(key: u64) -> u64 {
    let key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ (key >> 31)
}

const TWO_POW_53: f64 = 9_007_199_254_740_992.0;
