//! What caches are compared with: an LRU, and the best that a knapsack can hold.

use std::collections::BTreeMap;

use crate::trace::Trace;

/// How a cache did in the second half of a trace.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) hits: u64,
    pub(crate) bytes: u64,
    pub(crate) hit_bytes: u64,
    /// Fetched into the cache for nobody who waited.
    pub(crate) ahead_bytes: u64,
    /// In the cache at its end.
    pub(crate) held_bytes: u64,
}

impl Outcome {
    pub(crate) fn count(&mut self, hit: bool, size: u64) {
        self.requests += 1;
        self.bytes += size;
        if hit {
            self.hits += 1;
            self.hit_bytes += size;
        }
    }

    /// Request and byte hit ratio.
    pub(crate) fn ratios(&self) -> (f64, f64) {
        (self.hits as f64 / self.requests as f64, self.hit_bytes as f64 / self.bytes as f64)
    }

    /// What content servers sent, misses and files fetched ahead, of the bytes that clients got.
    pub(crate) fn upstream(&self) -> f64 {
        (self.bytes - self.hit_bytes + self.ahead_bytes) as f64 / self.bytes as f64
    }
}

/// The files that a cache kept as it is holds, best value per byte first: that is the knapsack's optimum but for less
/// than one file. What has no value stays out; of equal ones that which is first in the trace is taken.
pub(crate) fn best_by(trace: &Trace, bytes_max: u64, value_per_byte: impl Fn(usize) -> f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..trace.sizes.len()).filter(|&key| value_per_byte(key) > 0.0).collect();
    order.sort_by(|&a, &b| value_per_byte(b).total_cmp(&value_per_byte(a)).then(a.cmp(&b)));
    let (mut held, mut left) = (vec![false; trace.sizes.len()], bytes_max);
    for key in order {
        if let Some(rest) = left.checked_sub(trace.size(key)) {
            (held[key], left) = (true, rest);
        }
    }
    held
}

/// How a cache does that holds these files throughout the second half.
pub(crate) fn score(trace: &Trace, held: &[bool]) -> Outcome {
    let mut outcome = Outcome::default();
    for &key in &trace.requests[trace.requests.len() / 2..] {
        outcome.count(held[key as usize], trace.size(key as usize));
    }
    let bytes = held.iter().zip(&trace.sizes).filter(|(held, _)| **held).map(|(_, size)| size).sum();
    Outcome { ahead_bytes: bytes, held_bytes: bytes, ..outcome }
}

/// An LRU that is empty at the trace's beginning; requests count from the one numbered `from`.
pub(crate) fn lru(trace: &Trace, bytes_max: u64, from: usize) -> Outcome {
    let mut outcome = Outcome::default();
    // When each file was asked for last, for those that are held.
    let mut last: Vec<Option<usize>> = vec![None; trace.sizes.len()];
    let (mut order, mut used) = (BTreeMap::new(), 0);
    for (now, &key) in trace.requests.iter().enumerate() {
        let (key, size) = (key as usize, trace.size(key as usize));
        let before = last[key].replace(now);
        if now >= from {
            outcome.count(before.is_some(), size);
        }
        match before {
            Some(before) => drop(order.remove(&before)),
            None if size > bytes_max => {
                last[key] = None;
                continue;
            }
            None => used += size,
        }
        order.insert(now, key);
        while used > bytes_max
            && let Some((_, oldest)) = order.pop_first()
        {
            last[oldest] = None;
            used -= trace.size(oldest);
        }
    }
    Outcome { held_bytes: used, ..outcome }
}
