//! The sketch beside exact counts.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

proptest! {
    // What a sketch loses is a matter of chance: one stream in a thousand is beyond the bounds below, so these are always the same.
    #![proptest_config(ProptestConfig { cases: 24, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    /// A second of a sun: 20,000 requests of 50,000 files.
    #[test]
    fn the_head_of_a_zipf_stream_is_found_and_counted(seed in any::<u64>(), skew in 0.7_f64..1.3) {
        let stream = zipf(seed, skew, 50_000, 20_000);
        let (sketch, exact) = count(seed, stream.iter().map(|&file| (file, 1)));
        prop_assert_eq!(sketch.total(), 20_000);
        let mut ranked: Vec<(u64, u64)> = exact.iter().map(|(&file, &count)| (count, file)).collect();
        ranked.sort_unstable_by(|a, b| b.cmp(a));
        for &(count, file) in ranked.iter().take(20) {
            let estimate = u64::from(sketch.estimate(content(file).prefix()));
            prop_assert!(estimate + LOST_MAX + count / 20 >= count, "file {}: {} of {}", file, estimate, count);
            let nominated = sketch.candidates().iter().any(|candidate| &*candidate.file == name(file).as_str());
            prop_assert!(nominated, "file {} with {} requests", file, count);
        }
    }

    #[test]
    fn nothing_is_counted_more_than_it_was_added(
        seed in any::<u64>(),
        added in prop::collection::vec((0_u64..3000, prop_oneof![Just(1_u32), 1_u32..5000]), 1..20_000),
    ) {
        let (sketch, exact) = count(seed, added.iter().copied());
        for candidate in sketch.candidates() {
            let file = exact.iter().find(|(file, _)| name(**file) == *candidate.file).unwrap();
            prop_assert!(u64::from(sketch.estimate(candidate.prefix)) <= *file.1, "{:?}", candidate);
            prop_assert!(u64::from(candidate.estimate) <= *file.1, "{:?}", candidate);
        }
        prop_assert!(sketch.candidates().len() <= CANDIDATES);
        prop_assert_eq!(sketch.places.len(), sketch.candidates().len());
        for (place, candidate) in sketch.candidates().iter().enumerate() {
            prop_assert_eq!(sketch.places[&candidate.prefix], place);
        }
    }

    /// One add of a weight wears a rival's bucket down as so many adds of one do, on average.
    #[test]
    fn units_at_once_are_units_one_by_one(count in 1_u32..40, units in 1_u32..400) {
        let (mut at_once, mut one_by_one) = (0_u64, 0_u64);
        let mut random = 99;
        for _ in 0..2000 {
            let mut bucket = Bucket { fingerprint: 1, count };
            let left = bucket.wear(units, &mut random);
            at_once += u64::from(if left.is_some() { 0 } else { bucket.count });
            let mut bucket = Bucket { fingerprint: 1, count };
            let _ = (0..units).any(|_| bucket.wear(1, &mut random).is_some());
            one_by_one += u64::from(bucket.count);
        }
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let (at_once, one_by_one) = (at_once as f64 / 2000.0, one_by_one as f64 / 2000.0);
        prop_assert!((at_once - one_by_one).abs() < 0.6, "{} and {}", at_once, one_by_one);
    }
}

#[test]
fn a_cleared_sketch_knows_nothing() {
    let (mut sketch, _) = count(1, (0..1000).map(|file| (file, 3)));
    sketch.clear();
    assert_eq!((sketch.total(), sketch.candidates().len(), sketch.estimate(content(1).prefix())), (0, 0, 0));
    sketch.add(content(1), 1, || name(1).into());
    assert_eq!(sketch.estimate(content(1).prefix()), 1);
}

/// What a file of the head may lose to the others: at first its buckets are theirs as well, each with 20,000 / 4,096
/// requests on average; four times that.
const LOST_MAX: u64 = 20;

/// Files are numbered; 0 is the most asked-for.
fn zipf(seed: u64, skew: f64, files: u32, requests: usize) -> Vec<u64> {
    let mut sums: Vec<f64> = Vec::new();
    for file in 1..=files {
        sums.push(sums.last().unwrap_or(&0.0) + f64::from(file).powf(-skew));
    }
    let mut random = seed | 1;
    let draw = |random: &mut u64| {
        // Two draws: one has 24 bits.
        let drawn = f64::from(uniform(random)) + f64::from(uniform(random)) / 16_777_216.0;
        sums.partition_point(|sum| *sum < drawn * sums.last().unwrap()).min(sums.len() - 1) as u64
    };
    (0..requests).map(|_| draw(&mut random)).collect()
}

fn count(seed: u64, added: impl Iterator<Item = (u64, u32)>) -> (Sketch, HashMap<u64, u64>) {
    let (mut sketch, mut exact) = (Sketch::new(seed), HashMap::new());
    for (file, weight) in added {
        sketch.add(content(file), weight, || name(file).into());
        *exact.entry(file).or_default() += u64::from(weight);
    }
    (sketch, exact)
}

fn name(file: u64) -> String {
    format!("c1/{file}")
}

fn content(file: u64) -> ContentId {
    geo::CanonicalName::parse(&name(file)).unwrap().content_id()
}
