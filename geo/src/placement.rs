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
//! - **Least movement.** A server that joins, leaves or changes weight moves only the files it gains or loses;
//!   [`moved`] says how many that is.
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
    /// The seed, mixed once.
    mixed: u64,
    weight: Weight,
}

impl Candidate {
    /// `name` is the server's stable name, `sun4-2-1`; renaming a server moves all of its content.
    #[must_use]
    pub fn new(name: &str, weight: Weight) -> Self {
        let digest = blake3::hash(name.as_bytes());
        let (seed, _) = digest.as_bytes().split_first_chunk().expect("a digest has 32 bytes");
        let seed = u64::from_be_bytes(*seed);
        Self { seed, mixed: mix(seed), weight }
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

/// The first of [`order`], without sorting and with few logarithms: since `-ln(u)` is at least `1 - u`, most servers are
/// seen to be further than the best so far without one. Exactly the same owner, for 100 ns of 20 servers instead of 1 us.
///
/// Why not a table of slots, filled once: it would be quicker still, but it gives the owners of its slots, and every file is
/// placed by its own id. Whoever named owners by it would be wrong about nearly all of them.
#[must_use]
pub fn owner(content: ContentId, candidates: &[Candidate]) -> Option<usize> {
    let mut best: Option<(f64, u64, usize)> = None;
    for (index, candidate) in candidates.iter().enumerate().filter(|(_, candidate)| candidate.weight.get() > 0) {
        let (u, weight) = (uniform(content, *candidate), f64::from(candidate.weight.get()));
        // Rounding is a thousandth of the margin; 1 - u has none.
        if best.is_some_and(|(least, ..)| 1.0 - u > least * weight * (1.0 + 1e-12)) {
            continue;
        }
        let scored = (-u.ln() / weight, candidate.seed, index);
        if best.is_none_or(|best| scored.0.total_cmp(&best.0).then(scored.1.cmp(&best.1)).is_lt()) {
            best = Some(scored);
        }
    }
    best.map(|(_, _, index)| index)
}

/// The share of all files that each server owns, 0..=1; all 0 when none has weight.
#[must_use]
pub fn shares(weights: &[Weight]) -> Vec<f64> {
    let total: f64 = weights.iter().map(|weight| f64::from(weight.get())).sum();
    weights.iter().map(|weight| if total > 0.0 { f64::from(weight.get()) / total } else { 0.0 }).collect()
}

/// The share of all files, 0..=1, whose owner changes with the weights: `before[i]` and `after[i]` are the
/// same server's, and one that joins or leaves has the weight 0 on the other side.
///
/// Exact, not sampled. With `w` the weights before, `v` those after and `e` the `-ln(u)` of each server,
/// server `i` owns a file on both sides when `e[j] >= e[i] * max(w[j] / w[i], v[j] / v[i])` for every
/// other `j`. The `e` are exponentially distributed, so that has the probability
/// `1 / (sum over all j of that max)`, and what no server keeps in this way moves. It depends on ratios
/// alone: doubling every weight moves nothing.
///
/// When one server's weight changes, this is the least that any placement by these weights can move.
#[must_use]
pub fn moved(before: &[Weight], after: &[Weight]) -> f64 {
    debug_assert_eq!(before.len(), after.len());
    let pairs: Vec<(f64, f64)> =
        before.iter().zip(after).map(|(w, v)| (f64::from(w.get()), f64::from(v.get()))).collect();
    if pairs.iter().all(|&(w, v)| w == 0.0 && v == 0.0) {
        return 0.0;
    }
    let kept = pairs.iter().filter(|&&(w, v)| w > 0.0 && v > 0.0).map(|&(own_w, own_v)| {
        let rivals: f64 = pairs.iter().map(|&(w, v)| (w / own_w).max(v / own_v)).sum();
        1.0 / rivals
    });
    (1.0 - kept.sum::<f64>()).clamp(0.0, 1.0)
}

/// `-ln(u) / weight`, where `u` in (0, 1) is a hash of the pair.
fn score(content: ContentId, candidate: Candidate) -> f64 {
    -uniform(content, candidate).ln() / f64::from(candidate.weight.get())
}

fn uniform(content: ContentId, candidate: Candidate) -> f64 {
    let hash = mix(content.prefix() ^ candidate.mixed);
    // 52 bits and the half below them are as many as an f64 holds exactly, so u is never 0 or 1.
    #[expect(clippy::cast_precision_loss, reason = "52 bits fit an f64 exactly")]
    let u = ((hash >> 12) as f64 + 0.5) / TWO_POW_52;
    u
}

/// Spreads a 64-bit key evenly: the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
pub(crate) const fn mix(key: u64) -> u64 {
    let key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ (key >> 31)
}

const TWO_POW_52: f64 = 4_503_599_627_370_496.0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::name::CanonicalName;

    #[test]
    fn share_follows_weight() {
        check_share(&[100, 100], &[0.50, 0.50]);
        check_share(&[64, 192], &[0.25, 0.75]);
        check_share(&[64, 128, 128], &[0.20, 0.40, 0.40]);
        check_share(&[1, 9], &[0.10, 0.90]);
        check_share(&[100, 0, 100], &[0.50, 0.00, 0.50]); // The second is draining.
        check_share(&[256, 1], &[256.0 / 257.0, 1.0 / 257.0]);
        check_share(&[7], &[1.0]);
    }

    #[test]
    fn a_stand_in_takes_over_by_weight_too() {
        let servers = candidates(&[100, 50, 150]);
        let mut heirs = [0_u32; 3];
        let mut lost = 0_u32;
        for content in contents().map(|content| order(content, &servers)).filter(|order| order[0] == 2) {
            heirs[content[1]] += 1;
            lost += 1;
        }
        assert!((f64::from(heirs[0]) / f64::from(lost) - 2.0 / 3.0).abs() < 0.01, "{heirs:?}");
    }

    #[test]
    fn without_weight_nobody_owns_anything() {
        let content = CanonicalName::parse("c1/a").unwrap().content_id();
        for servers in [candidates(&[]), candidates(&[0]), candidates(&[0, 0])] {
            assert_eq!(order(content, &servers), [0_usize; 0]);
            assert_eq!(owner(content, &servers), None);
        }
    }

    #[test]
    fn what_a_change_moves_is_what_it_moves_in_theory() {
        check_moved(&[100, 100], &[100, 100], 0.0);
        check_moved(&[100, 100], &[50, 50], 0.0);
        check_moved(&[100, 100], &[100, 0], 0.5); // Leaves, or drains.
        check_moved(&[100, 100, 0], &[100, 100, 100], 1.0 / 3.0); // Joins.
        check_moved(&[100, 100], &[100, 50], 0.5 - 1.0 / 3.0);
        check_moved(&[64, 128, 128], &[64, 128, 192], 0.5 - 0.4);
        check_moved(&[64, 128, 128], &[128, 64, 128], 1.0 - (1.0 / 5.0 + 1.0 / 5.0 + 1.0 / 3.0));
        check_moved(&[200, 0], &[0, 200], 1.0);
        check_moved(&[100; 20], &[&[50], &[100; 19][..]].concat(), 0.05 - 0.5 / 19.5);
    }

    #[test]
    fn from_or_to_nobody_moves_everything() {
        assert_eq!(moved(&weights(&[0, 0]), &weights(&[1, 0])), 1.0);
        assert_eq!(moved(&weights(&[1, 0]), &weights(&[0, 0])), 1.0);
        assert_eq!(moved(&weights(&[0, 0]), &weights(&[0, 0])), 0.0);
        assert_eq!(moved(&[], &[]), 0.0);
    }

    #[test]
    fn a_weight_is_at_most_256() {
        assert_eq!(Weight::new(256).map(Weight::get), Some(256));
        assert_eq!(Weight::new(257), None);
    }

    /// Do not update these orders: a change here empties every cache of every region at once.
    #[test]
    fn orders_never_change() {
        check_order("c100500/path/to/a.jpg", &[4, 2, 1, 0]);
        check_order("c100500/path/to/b.jpg", &[2, 4, 0, 1]);
        check_order("c1/a", &[0, 2, 4, 1]);
        check_order("c1/b", &[4, 2, 0, 1]);
        check_order("c199/%D1%84.mp4", &[2, 0, 4, 1]);
    }

    proptest! {
        #[test]
        fn the_owner_is_the_first_of_the_order(name in "[a-z]{1,9}", weights in any_weights()) {
            let content = content(&name);
            let servers = candidates(&weights);
            let order = order(content, &servers);
            prop_assert_eq!(owner(content, &servers), order.first().copied());
            let mut sorted = order;
            sorted.sort_unstable();
            let with_weight: Vec<usize> = (0..weights.len()).filter(|&index| weights[index] > 0).collect();
            prop_assert_eq!(sorted, with_weight);
        }

        #[test]
        fn the_order_does_not_depend_on_the_list(name in "[a-z]{1,9}", weights in any_weights(), shift in 0_usize..20) {
            let content = content(&name);
            let servers = candidates(&weights);
            let shift = shift % servers.len();
            let mut turned = servers.clone();
            turned.rotate_left(shift);
            let seeds = |list: &[Candidate]| order(content, list).into_iter().map(|i| list[i].seed).collect::<Vec<_>>();
            prop_assert_eq!(seeds(&turned), seeds(&servers));
        }

        #[test]
        fn a_server_that_leaves_or_joins_changes_nothing_among_the_others(
            name in "[a-z]{1,9}", weights in any_weights(), gone in 0_usize..20,
        ) {
            let content = content(&name);
            let with = candidates(&weights);
            let gone = gone % with.len();
            let mut without = with.clone();
            without.remove(gone);
            let left: Vec<usize> = order(content, &with)
                .into_iter()
                .filter(|&index| index != gone)
                .map(|index| if index > gone { index - 1 } else { index })
                .collect();
            prop_assert_eq!(order(content, &without), left);
        }

        #[test]
        fn a_changed_weight_moves_only_that_server_up_or_down(
            name in "[a-z]{1,9}", weights in any_weights(), changed in 0_usize..20, weight in 0_u16..=256,
        ) {
            let content = content(&name);
            let changed = changed % weights.len();
            let mut after = weights.clone();
            after[changed] = weight;
            let (before, after) = (order(content, &candidates(&weights)), order(content, &candidates(&after)));
            let others = |order: &[usize]| order.iter().copied().filter(|&i| i != changed).collect::<Vec<_>>();
            prop_assert_eq!(others(&before), others(&after));
            let place = |order: &[usize]| order.iter().position(|&i| i == changed).unwrap_or(usize::MAX);
            if weight > weights[changed] {
                prop_assert!(place(&after) <= place(&before));
            } else {
                prop_assert!(place(&after) >= place(&before));
            }
        }

        #[test]
        fn one_changed_weight_moves_the_least_that_shares_allow(
            before in any_weights(), changed in 0_usize..20, weight in 0_u16..=256,
        ) {
            let changed = changed % before.len();
            let mut after = before.clone();
            after[changed] = weight;
            let (before, after) = (weights(&before), weights(&after));
            prop_assume!(shares(&before).iter().sum::<f64>() > 0.0 && shares(&after).iter().sum::<f64>() > 0.0);
            let least: f64 = shares(&before).iter().zip(shares(&after)).map(|(b, a)| (a - b).max(0.0)).sum();
            prop_assert!((moved(&before, &after) - least).abs() < 1e-9);
        }

        #[test]
        fn no_change_moves_less_than_shares_allow(pairs in prop::collection::vec((1_u16..=256, 0_u16..=256), 2..9)) {
            let (mut before, mut after): (Vec<u16>, Vec<u16>) = pairs.into_iter().unzip();
            before.push(1);
            after.push(1);
            let (before, after) = (weights(&before), weights(&after));
            let least: f64 = shares(&before).iter().zip(shares(&after)).map(|(b, a)| (a - b).max(0.0)).sum();
            prop_assert!(moved(&before, &after) > least - 1e-9);
        }
    }

    fn any_weights() -> impl Strategy<Value = Vec<u16>> {
        prop::collection::vec(prop_oneof![Just(0_u16), Just(100), 0..=256_u16], 1..20)
    }

    /// Places many files and compares each server's share with the expected one.
    ///
    /// The files are fixed, so the test cannot flake; 0.01 is six standard deviations.
    #[track_caller]
    fn check_share(values: &[u16], expected: &[f64]) {
        let servers = candidates(values);
        let mut owned = vec![0_u32; values.len()];
        for content in contents() {
            owned[owner(content, &servers).unwrap()] += 1;
        }
        for ((owned, expected), share) in owned.into_iter().zip(expected).zip(shares(&weights(values))) {
            let sampled = f64::from(owned) / f64::from(CONTENTS);
            assert!((sampled - expected).abs() < 0.01, "{values:?}: owns {sampled:.3}, expected {expected}");
            assert!((share - expected).abs() < 1e-9, "{values:?}: says {share:.3}, expected {expected}");
        }
    }

    /// Compares the computed share of moved files with the expected one and with what really moves.
    #[track_caller]
    fn check_moved(before: &[u16], after: &[u16], expected: f64) {
        let computed = moved(&weights(before), &weights(after));
        assert!((computed - expected).abs() < 1e-9, "{before:?} to {after:?}: {computed}, expected {expected}");
        let (before, after) = (candidates(before), candidates(after));
        let moves = contents().filter(|&content| owner(content, &before) != owner(content, &after)).count();
        #[expect(clippy::cast_precision_loss, reason = "at most 100,000")]
        let sampled = moves as f64 / f64::from(CONTENTS);
        assert!((sampled - expected).abs() < 0.01, "{sampled} of a sample moves, expected {expected}");
    }

    #[track_caller]
    fn check_order(name: &str, expected: &[usize]) {
        let content = CanonicalName::parse(name).unwrap().content_id();
        assert_eq!(order(content, &candidates(&[100, 50, 200, 0, 100])), expected, "{name}");
    }

    fn weights(values: &[u16]) -> Vec<Weight> {
        values.iter().map(|&value| Weight::new(value).unwrap()).collect()
    }

    /// `sun4-2-0`, `sun4-2-1`, ... with these weights.
    fn candidates(values: &[u16]) -> Vec<Candidate> {
        (0..).zip(weights(values)).map(|(number, weight)| Candidate::new(&format!("sun4-2-{number}"), weight)).collect()
    }

    fn content(name: &str) -> ContentId {
        CanonicalName::parse(&format!("c1/{name}")).unwrap().content_id()
    }

    fn contents() -> impl Iterator<Item = ContentId> {
        (0..CONTENTS).map(|number| content(&number.to_string()))
    }

    const CONTENTS: u32 = 100_000;
}
