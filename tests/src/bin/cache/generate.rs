//! Traces made here, the same for the same words on every machine.
//!
//! ```text
//!   zipf,requests=1000000,keys=100000,alpha=0.9,size=1,seed=1
//!   media,requests=2000000,seed=1
//!   cdn,requests=5000000,seed=1,popularity=FILE,sizes=FILE      as cachebench has them, .json or .json.xz
//! ```
//!
//! `zipf`: independent requests; the key of rank `r` with weight `r^-alpha`. `cdn`: independent requests by the
//! published distributions of a CDN. `media`: see [`media`]; the only one of them with an order of its own.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow, bail, ensure};

use crate::trace::{Builder, Trace, Versions};

/// Makes the trace that the words describe; see the module's doc.
///
/// # Errors
///
/// An unknown word, a value out of bounds, a distribution that cannot be read.
pub(crate) fn generate(words: &str) -> anyhow::Result<Trace> {
    let mut words = words.split(',');
    let kind = words.next().unwrap_or_default();
    let mut settings =
        Settings { requests: 0, keys: 100_000, alpha: 0.9, size: 1, seed: 1, popularity: None, sizes: None };
    for word in words {
        let (name, value) = word.split_once('=').with_context(|| format!("{word:?} is not name=value"))?;
        settings.set(name, value).with_context(|| format!("in {word:?}"))?;
    }
    let or = |default| if settings.requests == 0 { default } else { settings.requests };
    match kind {
        "zipf" => zipf(&settings, or(1_000_000)),
        "media" => media(settings.seed, or(2_000_000)),
        "cdn" => cdn(&settings, or(5_000_000)),
        _ => bail!("{kind:?} is none of zipf, media, cdn"),
    }
}

struct Settings<'a> {
    requests: usize,
    keys: usize,
    alpha: f64,
    size: u64,
    seed: u64,
    popularity: Option<&'a str>,
    sizes: Option<&'a str>,
}

impl<'a> Settings<'a> {
    fn set(&mut self, name: &str, value: &'a str) -> anyhow::Result<()> {
        match name {
            "requests" => self.requests = bounded(value, REQUESTS_MAX)?,
            "keys" => self.keys = bounded(value, REQUESTS_MAX)?,
            "alpha" => {
                self.alpha = value.parse()?;
                ensure!((0.0..=4.0).contains(&self.alpha), "not within 0 and 4");
            }
            "size" => self.size = bounded(value, 1 << 40)? as u64,
            "seed" => self.seed = value.parse()?,
            "popularity" => self.popularity = Some(value),
            "sizes" => self.sizes = Some(value),
            _ => bail!("there is no such setting"),
        }
        Ok(())
    }
}

fn bounded(value: &str, most: usize) -> anyhow::Result<usize> {
    let value = value.parse()?;
    ensure!((1..=most).contains(&value), "not within 1 and {most}");
    Ok(value)
}

fn zipf(settings: &Settings<'_>, requests: usize) -> anyhow::Result<Trace> {
    let mut dice = Dice(settings.seed);
    let ranks = Weights::new((1..=settings.keys).map(|rank| (rank as f64).powf(-settings.alpha)))?;
    let mut trace = Builder::new(Versions::New);
    for _ in 0..requests {
        trace.push(&ranks.pick(&mut dice).to_le_bytes(), settings.size)?;
    }
    Ok(trace.finish()?)
}

fn cdn(settings: &Settings<'_>, requests: usize) -> anyhow::Result<Trace> {
    let (Some(popularity), Some(sizes)) = (settings.popularity, settings.sizes) else {
        bail!("cdn needs popularity=FILE and sizes=FILE");
    };
    let (popularity, sizes) = (json(Path::new(popularity))?, json(Path::new(sizes))?);
    let per_bucket = numbers(&popularity, "popularityBuckets")?;
    let buckets = Weights::new(numbers(&popularity, "popularityWeights")?)?;
    let bytes = numbers(&sizes, "valSizeRange")?;
    let chances = Weights::new(numbers(&sizes, "valSizeRangeProbability")?)?;
    ensure!(buckets.0.len() == per_bucket.len(), "popularityWeights and popularityBuckets differ in length");
    ensure!(chances.0.len() == bytes.len(), "valSizeRangeProbability and valSizeRange differ in length");

    let mut dice = Dice(settings.seed);
    let mut sizes = std::collections::HashMap::new();
    let mut trace = Builder::new(Versions::New);
    for _ in 0..requests {
        let bucket = buckets.pick(&mut dice);
        let key = (bucket, dice.below(per_bucket[bucket] as u64));
        let size = *sizes.entry(key).or_insert_with(|| (bytes[chances.pick(&mut dice)] as u64).max(1));
        trace.push(&[key.0.to_le_bytes(), key.1.to_le_bytes()].concat(), size)?;
    }
    Ok(trace.finish()?)
}

/// People watch videos and look at pictures: each request is for one block of 1 MiB (or what is left of the file).
///
/// - Files: 10 KB to 200 MB, log-normal with a median of 1.2 MB and a sigma of 1.6. The catalogue has 20,000, asked for by
///   Zipf 0.9. With one start in fifty somebody uploads a file that takes the place, and the rank, of another.
/// - A start in ten is for a file that nobody asks for again.
/// - 200 are being watched at any time, each in turn asks for the next block; four in five begin at the start,
///   the others anywhere. After each block one in seventeen leaves.
fn media(seed: u64, requests: usize) -> anyhow::Result<Trace> {
    const CATALOGUE: usize = 20_000;
    let mut dice = Dice(seed);
    let ranks = Weights::new((1..=CATALOGUE).map(|rank| (rank as f64).powf(-0.9)))?;
    let mut files = 0_u64;
    let mut upload = |dice: &mut Dice| {
        files += 1;
        (files, ((1.2e6 * (1.6 * dice.normal()).exp()) as u64).clamp(10_000, 200_000_000))
    };
    let mut catalogue: Vec<(u64, u64)> = (0..CATALOGUE).map(|_| upload(&mut dice)).collect();
    let mut watching: Vec<((u64, u64), u64)> = Vec::new();
    let mut trace = Builder::new(Versions::New);
    for _ in 0..requests {
        while watching.len() < 200 {
            if dice.chance(0.02) {
                let rank = dice.below(CATALOGUE as u64) as usize;
                catalogue[rank] = upload(&mut dice);
            }
            let file = if dice.chance(0.1) { upload(&mut dice) } else { catalogue[ranks.pick(&mut dice)] };
            let begin = if dice.chance(0.2) { dice.below(file.1.div_ceil(BLOCK_BYTES)) } else { 0 };
            watching.push((file, begin));
        }
        let who = dice.below(watching.len() as u64) as usize;
        let ((file, size), block) = watching[who];
        let left = size - block * BLOCK_BYTES;
        trace.push(&[file.to_le_bytes(), block.to_le_bytes()].concat(), left.min(BLOCK_BYTES))?;
        if left <= BLOCK_BYTES || dice.chance(1.0 / 17.0) {
            watching.swap_remove(who);
        } else {
            watching[who].1 += 1;
        }
    }
    Ok(trace.finish()?)
}

fn json(path: &Path) -> anyhow::Result<serde_json::Value> {
    let mut text = String::new();
    let file = File::open(path).with_context(|| path.display().to_string())?;
    if path.extension().is_some_and(|extension| extension == "xz") {
        let output = Command::new("xz").arg("--decompress").stdin(file).stderr(Stdio::inherit()).output();
        let output = output.context("the command xz is needed: install xz-utils")?;
        ensure!(output.status.success(), "xz does not like {}", path.display());
        text = String::from_utf8(output.stdout)?;
    } else {
        { file }.read_to_string(&mut text)?;
    }
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

fn numbers(json: &serde_json::Value, name: &str) -> anyhow::Result<Vec<f64>> {
    let list = json[name].as_array().with_context(|| format!("it has no list {name}"))?;
    list.iter().map(|number| number.as_f64().ok_or_else(|| anyhow!("{name} is not of numbers"))).collect()
}

/// A discrete distribution, as running sums.
struct Weights(Vec<f64>);

impl Weights {
    fn new(weights: impl IntoIterator<Item = f64>) -> anyhow::Result<Self> {
        let mut sum = 0.0;
        let sums: Vec<f64> = weights
            .into_iter()
            .map(|weight| {
                sum += weight;
                sum
            })
            .collect();
        ensure!(sum.is_finite() && sum > 0.0, "the weights of a distribution are not above 0");
        Ok(Self(sums))
    }

    fn pick(&self, dice: &mut Dice) -> usize {
        let sum = self.0[self.0.len() - 1];
        let point = dice.unit() * sum;
        self.0.partition_point(|running| *running <= point).min(self.0.len() - 1)
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): the numbers of a seed never change with a release of a crate.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 <= x < 1.
    fn unit(&mut self) -> f64 {
        (self.roll() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.unit() * end as f64) as u64
    }

    fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    /// Box and Muller: mean 0, deviation 1.
    fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.unit(), self.unit());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

const BLOCK_BYTES: u64 = 1 << 20;
const REQUESTS_MAX: usize = 100_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_one_trace() {
        fn check(words: &str) {
            let requests = |seed| generate(&format!("{words},seed={seed}")).unwrap().requests;
            assert_eq!(requests(1), requests(1), "{words}");
            assert_ne!(requests(1), requests(2), "{words}");
        }
        check("zipf,requests=1000,keys=100");
        check("media,requests=1000");
    }

    #[test]
    fn zipf_has_its_shape() {
        let trace = generate("zipf,requests=200000,keys=10000,alpha=1").unwrap();
        let mut counts = vec![0_u32; trace.keys as usize];
        for request in &trace.requests {
            counts[request.key as usize] += 1;
        }
        counts.sort_unstable_by(|a, b| b.cmp(a));
        // 1 / H(10,000) = 0.1022 of all; rank 10 a tenth of it.
        assert!((19_500..21_500).contains(&counts[0]), "{}", counts[0]);
        assert!((1_800..2_300).contains(&counts[9]), "{}", counts[9]);
    }

    #[test]
    fn a_distribution_from_files_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let popularity = file("pop.json", r#"{"popularityBuckets": [1, 50], "popularityWeights": [50, 50]}"#);
        let sizes = file("sizes.json", r#"{"valSizeRange": [10, 1000], "valSizeRangeProbability": [3, 0]}"#);
        let trace = generate(&format!("cdn,requests=10000,popularity={popularity},sizes={sizes}")).unwrap();
        assert_eq!((trace.keys, trace.footprint_bytes), (51, 510));
        let first = trace.requests.iter().filter(|request| request.key == 0 || request.key == 1);
        assert!(first.count() > 4_500);

        let short = file("short.json", r#"{"valSizeRange": [10], "valSizeRangeProbability": [3, 0]}"#);
        let error = generate(&format!("cdn,popularity={popularity},sizes={short}")).unwrap_err();
        assert_eq!(error.to_string(), "valSizeRangeProbability and valSizeRange differ in length");
    }

    #[test]
    fn what_is_not_understood_is_told() {
        fn check(words: &str, told: &str) {
            assert_eq!(format!("{:#}", generate(words).unwrap_err()), told);
        }
        check("normal", r#""normal" is none of zipf, media, cdn"#);
        check("zipf,alpha", r#""alpha" is not name=value"#);
        check("zipf,beta=1", r#"in "beta=1": there is no such setting"#);
        check("zipf,keys=0", r#"in "keys=0": not within 1 and 100000000"#);
        check("zipf,alpha=nan", r#"in "alpha=nan": not within 0 and 4"#);
        check("cdn", "cdn needs popularity=FILE and sizes=FILE");
    }
}
