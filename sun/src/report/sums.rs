//! Downloads between two batches, summed by (region, file) in bounded RAM, and what is done when they are too many.
//!
//! Sums stay right on the average whatever is left out:
//!
//! - **Sampling**: when the API asks for it ([`popularity_api::pressure`]) a response is counted with probability `p`, and
//!   `1/p` times then.
//! - **Thinning**: when more files are asked for than fit, small sums make room: with a threshold `t` a sum of `d`
//!   downloads stays with probability `min(1, d / t)`, and is `max(d, t)` then, its bytes grown alike. The threshold is
//!   such that about half of them stay. Large sums are not touched, so what is popular keeps its exact figures (threshold
//!   sampling; Duffield, Lund, Thorup 2005).
//!
//! Why not drop what is new: a file that is asked for late in a busy second would never be rated, however often.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use geo::RegionId;
use popularity_api::wire::{DOWNLOADS_PER_BATCH_MAX, Download};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Downloads since the last batch. Shared by all workers.
#[derive(Debug)]
pub struct Downloads {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    sums: HashMap<(RegionId, Arc<str>), Sum>,
    pairs_max: usize,
    /// Probability with which a response is counted.
    sample: f64,
    thinned: u64,
    dice: SmallRng,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    size: u64,
    downloads: f64,
    bytes: f64,
}

impl Default for Downloads {
    fn default() -> Self {
        Self::new(PAIRS_MAX, rand::random())
    }
}

impl Downloads {
    /// At most `pairs_max` sums, at least two; what is left out is thrown with dice of this seed.
    #[must_use]
    pub fn new(pairs_max: usize, seed: u64) -> Self {
        let (sums, dice) = (HashMap::new(), SmallRng::seed_from_u64(seed));
        Self { state: Mutex::new(State { sums, pairs_max: pairs_max.max(2), sample: 1.0, thinned: 0, dice }) }
    }

    /// One response has ended: `sent` bytes of a file of `size`.
    #[expect(clippy::cast_precision_loss, reason = "bytes of a second need no more than 53 bits")]
    pub fn add(&self, region: RegionId, file: &Arc<str>, size: u64, sent: u64) {
        let mut state = self.lock();
        let sample = state.sample;
        if sample < 1.0 && state.dice.random::<f64>() >= sample {
            return;
        }
        let pair = (region, Arc::clone(file));
        if state.sums.len() >= state.pairs_max && !state.sums.contains_key(&pair) {
            state.thin();
        }
        let sum = state.sums.entry(pair).or_default();
        sum.size = size;
        sum.downloads += share(sent, size) / sample;
        sum.bytes += sent as f64 / sample;
    }

    /// From now on a response is counted with this probability; below 1/1024 it is that.
    pub fn sample(&self, sample: f64) {
        self.lock().sample = if sample.is_finite() { sample.clamp(SAMPLE_MIN, 1.0) } else { 1.0 };
    }

    /// Sums that made room for others since the last call.
    #[must_use]
    pub fn take_thinned(&self) -> u64 {
        std::mem::take(&mut self.lock().thinned)
    }

    /// Takes everything out: batches of entries in order of region and file, each of a size that the API takes.
    #[must_use]
    pub fn take(&self) -> Vec<Vec<Download>> {
        let sums = std::mem::take(&mut self.lock().sums);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a sum of bytes is not negative")]
        let download = |((region, file), sum): ((RegionId, Arc<str>), Sum)| Download {
            region,
            file: file.to_string(),
            size: sum.size,
            downloads: sum.downloads,
            bytes: sum.bytes.round() as u64,
        };
        let mut downloads: Vec<Download> = sums.into_iter().map(download).collect();
        downloads.sort_by(|a, b| (a.region, &a.file).cmp(&(b.region, &b.file)));
        batches(downloads)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No step leaves a sum half made.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes room for at least one more.
    fn thin(&mut self) {
        let Self { sums, dice, .. } = self;
        let before = sums.len();
        let mut threshold = f64::MIN_POSITIVE;
        while sums.len() >= self.pairs_max {
            threshold = threshold.max(halving(sums.values().map(|sum| sum.downloads)));
            sums.retain(|_, sum| {
                let grown = threshold / sum.downloads;
                if grown <= 1.0 {
                    return true;
                }
                sum.downloads = threshold;
                sum.bytes *= grown;
                dice.random::<f64>() * grown < 1.0
            });
        }
        self.thinned += (before - sums.len()) as u64;
    }
}

/// The threshold at which about half of these sums stay.
#[expect(clippy::cast_precision_loss, reason = "sums are counted in RAM")]
fn halving(sums: impl Iterator<Item = f64>) -> f64 {
    let mut sums: Vec<f64> = sums.collect();
    sums.sort_by(f64::total_cmp);
    // With the smallest `n` of `all` below it, `below / threshold + (all - n)` are expected to stay.
    let (half, all, mut below) = (sums.len() as f64 / 2.0, sums.len(), 0.0);
    for (at, sum) in sums.iter().enumerate() {
        below += sum;
        let room = half - (all - at - 1) as f64;
        let next = sums.get(at + 1).copied().unwrap_or(f64::INFINITY);
        if room > 0.0 && below / room <= next {
            return below / room;
        }
    }
    sums.last().copied().unwrap_or(1.0) * 2.0
}

/// Cuts a list into batches of at most [`DOWNLOADS_PER_BATCH_MAX`] entries and [`NAMES_PER_BATCH_BYTES`].
fn batches(downloads: Vec<Download>) -> Vec<Vec<Download>> {
    let mut batches: Vec<Vec<Download>> = Vec::new();
    let mut names_bytes = 0;
    for download in downloads {
        names_bytes += download.file.len();
        let full =
            |batch: &Vec<Download>| batch.len() == DOWNLOADS_PER_BATCH_MAX || names_bytes > NAMES_PER_BATCH_BYTES;
        match batches.last_mut().filter(|batch| !full(batch)) {
            Some(batch) => batch.push(download),
            None => {
                names_bytes = download.file.len();
                batches.push(vec![download]);
            }
        }
    }
    batches
}

/// What share of a download a response was: at most one, however often parts were repeated within it.
#[expect(clippy::cast_precision_loss, reason = "a share of a download needs no more than 53 bits")]
fn share(sent: u64, size: u64) -> f64 {
    if size == 0 { 1.0 } else { (sent as f64 / size as f64).min(1.0) }
}

/// (region, file) pairs summed between two batches. About 20 MiB.
const PAIRS_MAX: usize = 100_000;
/// Bytes of the names in one batch: with everything else in it, and every byte escaped, under the 32 MiB that the
/// API takes by default.
const NAMES_PER_BATCH_BYTES: usize = 12 << 20;
/// Least share that is counted: whatever an answer says, one response does not stand for millions.
const SAMPLE_MIN: f64 = 1.0 / 1024.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_neither_inflate_nor_lose_a_download() {
        let downloads = Downloads::default();
        let file: Arc<str> = "c1/a".into();
        for sent in [50, 25, 25, 300] {
            downloads.add(RegionId(4), &file, 100, sent);
        }
        downloads.add(RegionId(5), &file, 100, 100);
        let batches = downloads.take();
        let entry = |region, downloads, bytes| Download {
            region: RegionId(region),
            file: "c1/a".into(),
            size: 100,
            downloads,
            bytes,
        };
        assert_eq!(batches, [vec![entry(4, 2.0, 400), entry(5, 1.0, 100)]]);
        assert!(downloads.take().is_empty());
    }

    #[test]
    fn a_batch_is_bounded_in_entries_and_in_bytes() {
        check_batches(1, 25_000, &[10_000, 10_000, 5000]);
        check_batches(4096, 7000, &[3072, 3072, 856]);
        check_batches(1, 0, &[]);
    }

    #[track_caller]
    fn check_batches(name_bytes: usize, count: usize, expected: &[usize]) {
        let file = "a".repeat(name_bytes);
        let download = Download { region: RegionId(4), file, size: 1, downloads: 1.0, bytes: 1 };
        let lengths: Vec<usize> = batches(vec![download; count]).iter().map(Vec::len).collect();
        assert_eq!(lengths, expected);
    }

    /// Of 400 independent rounds with a fixed seed each: the mean of a file's estimate is within four standard errors of
    /// what was there. A sum that is off by a tenth is twenty of them away.
    #[test]
    fn what_is_sampled_is_right_on_the_average() {
        for sample in [1.0, 0.5, 0.25, 1.0 / 64.0] {
            check_mean(|downloads| downloads.sample(sample), 1000, &[("c1/a", 400), ("c1/b", 37), ("c1/c", 1)]);
        }
    }

    #[test]
    fn what_is_thinned_is_right_on_the_average_and_large_sums_are_exact() {
        let flood: Vec<String> = (0..500).map(|n| format!("c2/{n}")).collect();
        let mut files = vec![("c1/a", 400), ("c1/b", 37), ("c1/c", 1)];
        files.extend(flood.iter().map(|file| (file.as_str(), 1)));
        check_mean(|_| {}, 50, &files);
        check_mean(|downloads| downloads.sample(0.5), 50, &files);
        for seed in 0..100 {
            let downloads = Downloads::new(50, seed);
            add(&downloads, &files[..1]);
            add(&downloads, &files[3..]);
            let sums = sums(&downloads);
            assert!(sums.len() <= 50, "{}", sums.len());
            assert_eq!(sums["c1/a"], 400.0, "larger than any threshold here");
        }
    }

    #[test]
    fn it_says_how_many_made_room() {
        let downloads = Downloads::new(10, 7);
        let files: Vec<String> = (0..10).map(|n| format!("c2/{n}")).collect();
        let files: Vec<(&str, u32)> = files.iter().map(|file| (file.as_str(), 1)).collect();
        add(&downloads, &files);
        assert_eq!(downloads.take_thinned(), 0);
        add(&downloads, &[("c1/a", 1)]);
        let kept = sums(&downloads).len() as u64;
        assert_eq!((downloads.take_thinned(), downloads.take_thinned()), (11 - kept, 0));
    }

    #[test]
    fn half_of_equal_sums_stay_and_a_giant_takes_no_share_of_the_others() {
        assert_eq!(halving([1.0; 10].into_iter()), 2.0);
        assert_eq!(halving([1.0, 1.0, 1.0, 1e9].into_iter()), 3.0);
        assert_eq!(halving([0.25, 0.5, 8.0, 9.0].into_iter()), 8.75);
    }

    #[test]
    fn an_answer_that_asks_for_nonsense_changes_little() {
        let downloads = Downloads::new(10, 7);
        for (asked, expected) in [(0.5, 0.5), (0.0, SAMPLE_MIN), (-1.0, SAMPLE_MIN), (7.0, 1.0), (f64::NAN, 1.0)] {
            downloads.sample(asked);
            assert_eq!(downloads.lock().sample, expected, "{asked}");
        }
    }

    #[track_caller]
    fn check_mean(prepare: impl Fn(&Downloads), pairs_max: usize, files: &[(&str, u32)]) {
        const ROUNDS: u32 = 400;
        let mut estimates: HashMap<&str, Vec<f64>> = HashMap::new();
        for seed in 0..ROUNDS {
            let downloads = Downloads::new(pairs_max, seed.into());
            prepare(&downloads);
            add(&downloads, files);
            let sums = sums(&downloads);
            for &(file, _) in &files[..3] {
                estimates.entry(file).or_default().push(sums.get(file).copied().unwrap_or(0.0));
            }
            estimates.entry("all").or_default().push(sums.values().sum());
        }
        let all = files.iter().map(|(_, downloads)| downloads).sum();
        for (file, expected) in files[..3].iter().copied().chain([("all", all)]) {
            let (values, expected) = (&estimates[file], f64::from(expected));
            let mean = values.iter().sum::<f64>() / f64::from(ROUNDS);
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / f64::from(ROUNDS - 1);
            let error = (variance / f64::from(ROUNDS)).sqrt();
            assert!((mean - expected).abs() <= 4.0 * error + 1e-6, "{file}: {mean} ± {error}, not {expected}");
        }
    }

    fn add(downloads: &Downloads, files: &[(&str, u32)]) {
        // Interleaved: the flood comes in between.
        let mut left = files.to_vec();
        while !left.is_empty() {
            for (file, count) in &mut left {
                downloads.add(RegionId(4), &(*file).into(), 100, 100);
                *count -= 1;
            }
            left.retain(|(_, count)| *count > 0);
        }
    }

    fn sums(downloads: &Downloads) -> HashMap<String, f64> {
        downloads.take().into_iter().flatten().map(|one| (one.file, one.downloads)).collect()
    }
}
