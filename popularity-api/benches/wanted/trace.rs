//! A trace: lines of `time key size`, blank-separated, or one made by Zipf's law. Requests come at even distances: the
//! traces at hand number their requests instead of timing them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Requests in order, by the file's number.
pub(crate) struct Trace {
    pub(crate) requests: Vec<u32>,
    /// Bytes of each file, the first that the trace gives it.
    pub(crate) sizes: Vec<u64>,
}

impl Trace {
    /// Reads a file; one that ends in `.xz` through the command `xz`.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path)?;
        if path.extension().is_none_or(|extension| extension != "xz") {
            return Self::read(file);
        }
        let mut xz = Command::new("xz").arg("-dc").stdin(file).stdout(Stdio::piped()).spawn().context("xz")?;
        let trace = Self::read(xz.stdout.take().context("xz has no output")?);
        ensure!(xz.wait()?.success(), "xz does not like the file");
        trace
    }

    fn read(lines: impl Read) -> anyhow::Result<Self> {
        let (mut trace, mut known) = (Self { requests: Vec::new(), sizes: Vec::new() }, HashMap::new());
        for (number, line) in (1..).zip(BufReader::new(lines).lines()) {
            let line = line?;
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let &[_, key, size] = words.as_slice() else { anyhow::bail!("line {number} is not `time key size`") };
            let size: u64 = size.parse().with_context(|| format!("line {number}: the size"))?;
            let key = *known.entry(key.to_owned()).or_insert_with(|| {
                trace.sizes.push(size.max(1));
                trace.sizes.len() - 1
            });
            trace.requests.push(u32::try_from(key)?);
        }
        ensure!(trace.requests.len() > 1, "it has no two requests");
        Ok(trace)
    }

    /// A million requests for 50,000 files: the n-th is asked for in proportion to `n^-0.9`, whatever its size; sizes are
    /// log-normal, 60 kB in the middle, 1 kB to 1 GB.
    pub(crate) fn generated(seed: u64) -> anyhow::Result<Self> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut sums: Vec<f64> = Vec::new();
        for rank in 1..=50_000_u32 {
            sums.push(sums.last().unwrap_or(&0.0) + f64::from(rank).powf(-0.9));
        }
        let sizes = (0..sums.len()).map(|_| {
            // Box and Muller.
            let (a, b): (f64, f64) = (random.random(), random.random());
            let normal = (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos();
            (60_000.0 * (1.6 * normal).exp()).clamp(1e3, 1e9) as u64
        });
        let sizes = sizes.collect();
        let total = *sums.last().context("there are files")?;
        let requests = (0..1_000_000).map(|_| {
            let draw = random.random::<f64>() * total;
            u32::try_from(sums.partition_point(|sum| *sum <= draw).min(sums.len() - 1))
        });
        Ok(Self { requests: requests.collect::<Result<_, _>>()?, sizes })
    }

    /// Bytes of all files.
    pub(crate) fn catalogue_bytes(&self) -> u64 {
        self.sizes.iter().sum()
    }

    /// Bytes of a file.
    pub(crate) fn size(&self, key: usize) -> u64 {
        self.sizes[key]
    }

    pub(crate) fn size_f64(&self, key: usize) -> f64 {
        self.sizes[key] as f64
    }

    /// Requests for each file in the first half and in the second.
    pub(crate) fn counts(&self) -> (Vec<u32>, Vec<u32>) {
        let (first, second) = self.requests.split_at(self.requests.len() / 2);
        let count = |requests: &[u32]| {
            let mut counts = vec![0; self.sizes.len()];
            for &key in requests {
                counts[key as usize] += 1;
            }
            counts
        };
        (count(first), count(second))
    }
}
