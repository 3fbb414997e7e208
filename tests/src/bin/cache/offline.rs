//! What a cache that knows the future could do: a floor and a ceiling under and over the optimum.
//!
//! The optimum for files of different sizes is NP-hard, so it is enclosed. Between two requests for a file a
//! cache either keeps it, for `size` bytes during `distance` requests, or misses:
//!
//! ```text
//!   requests   a  b  c  a  b  d  a          a: two intervals of distance 3; b: one of 3; c, d: none
//!              |--------|--------|
//!                 |--------|
//! ```
//!
//! - **Belady**: evict what is needed again last, itself included (L. A. Belady, A study of replacement
//!   algorithms for a virtual-storage computer, 1966). For files of one size that is the optimum (R. L. Mattson
//!   and others, 1970); otherwise something a cache could do, so a *floor*.
//! - **Packing**: take intervals, cheapest `size * distance` per request (or per byte) gained first, wherever the cache has room
//!   during all of it. Also something a cache could do: another floor, and the better one for requests.
//! - **PFOO-L** (D. S. Berger, N. Beckmann, M. Harchol-Balter, Practical bounds on optimal caching with variable
//!   object sizes, SIGMETRICS 2018): the same order, but room is only asked for on average over the whole trace,
//!   and the last interval may be taken in part. It is a relaxation, so a *ceiling*: no cache of this size has more hits.
//!   Computed for requests and for bytes apart; no one cache need reach both.

use std::collections::BTreeMap;

use crate::policy::Outcome;
use crate::trace::Trace;

/// The reuse of a trace: what all three work on.
#[derive(Debug)]
pub(crate) struct Reuse {
    intervals: Vec<Interval>,
    /// Of each request, the next one for its key, or none.
    next: Vec<u32>,
    requests: usize,
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Interval {
    /// The request that brings the file in.
    from: u32,
    /// The one that would be a hit.
    to: u32,
    /// Bytes that are kept.
    size: u64,
    /// Bytes the hit is worth.
    gain_bytes: u64,
}

/// What is gained by a hit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Gain {
    Requests,
    Bytes,
}

impl Reuse {
    pub(crate) fn new(trace: &Trace) -> Self {
        let requests = &trace.requests;
        let mut next = vec![NEVER; requests.len()];
        let mut coming = vec![NEVER; trace.keys as usize];
        let mut intervals = Vec::new();
        for (from, request) in requests.iter().enumerate().rev() {
            let to = coming[request.key as usize];
            let at = u32::try_from(from).expect("a trace has fewer than 2^32 requests");
            if to != NEVER {
                let gain_bytes = requests[to as usize].size;
                intervals.push(Interval { from: at, to, size: request.size, gain_bytes });
            }
            next[from] = to;
            coming[request.key as usize] = at;
        }
        Self { intervals, next, requests: requests.len(), bytes: trace.bytes() }
    }

    /// What a cache without bounds would hit.
    pub(crate) fn everything(&self) -> Outcome {
        let bytes = self.intervals.iter().map(|interval| interval.gain_bytes as f64).sum();
        self.outcome(self.intervals.len() as f64, bytes, None)
    }

    /// See the module's doc.
    pub(crate) fn belady(&self, trace: &Trace, bytes_max: u64) -> Outcome {
        // Next use -> key and size; a request is the next use of one key only.
        let mut held = BTreeMap::<u32, u64>::new();
        let (mut used, mut hits, mut hit_bytes, mut written) = (0, 0_u64, 0_u64, 0_u64);
        for (now, request) in trace.requests.iter().enumerate() {
            let now_at = u32::try_from(now).expect("checked before");
            let hit = held.remove(&now_at);
            let size = hit.unwrap_or(request.size);
            if let Some(size) = hit {
                hits += 1;
                hit_bytes += request.size;
                used -= size;
            }
            let next = self.next[now];
            if next == NEVER {
                continue;
            }
            held.insert(next, size);
            used += size;
            while used > bytes_max {
                let (_, size) = held.pop_last().expect("it has bytes");
                used -= size;
            }
            if hit.is_none() && held.contains_key(&next) {
                written += size;
            }
        }
        self.outcome(hits as f64, hit_bytes as f64, Some(written))
    }

    /// See the module's doc; each ratio from its own packing, bytes written from the one for bytes.
    pub(crate) fn packing(&self, bytes_max: u64) -> Outcome {
        let for_requests = self.pack(Gain::Requests, bytes_max);
        let for_bytes = self.pack(Gain::Bytes, bytes_max);
        let hit_bytes = for_bytes.iter().map(|interval| interval.gain_bytes as f64).sum();
        // What is kept twice in a row was brought in once.
        let mut kept_until = vec![false; self.requests];
        for interval in &for_bytes {
            kept_until[interval.to as usize] = true;
        }
        let brought = for_bytes.iter().filter(|interval| !kept_until[interval.from as usize]);
        let written = brought.map(|interval| interval.size).sum();
        self.outcome(for_requests.len() as f64, hit_bytes, Some(written))
    }

    /// See the module's doc.
    pub(crate) fn ceiling(&self, bytes_max: u64) -> Outcome {
        let requests = self.relaxed(Gain::Requests, bytes_max);
        let bytes = self.relaxed(Gain::Bytes, bytes_max);
        self.outcome(requests, bytes, None)
    }

    fn pack(&self, gain: Gain, bytes_max: u64) -> Vec<Interval> {
        let mut room = Room::new(self.requests, bytes_max);
        let cheapest = self.cheapest_first(gain, bytes_max);
        cheapest.into_iter().filter(|interval| room.take(interval.from, interval.to, interval.size)).collect()
    }

    fn relaxed(&self, gain: Gain, bytes_max: u64) -> f64 {
        let mut room = bytes_max as f64 * self.requests as f64;
        let mut gained = 0.0;
        for interval in self.cheapest_first(gain, bytes_max) {
            let part = (room / interval.cost()).min(1.0);
            gained += part * interval.gain(gain);
            room -= part * interval.cost();
            if part < 1.0 {
                break;
            }
        }
        gained
    }

    /// What fits at all, by cost per gain; ties in the order of the trace.
    fn cheapest_first(&self, gain: Gain, bytes_max: u64) -> Vec<Interval> {
        let mut order: Vec<Interval> =
            self.intervals.iter().copied().filter(|interval| interval.size <= bytes_max).collect();
        let price = |interval: &Interval| interval.cost() / interval.gain(gain);
        order.sort_by(|a, b| price(a).total_cmp(&price(b)).then(a.from.cmp(&b.from)));
        order
    }

    fn outcome(&self, hits: f64, hit_bytes: f64, written: Option<u64>) -> Outcome {
        Outcome {
            request_hit_ratio: hits / self.requests as f64,
            byte_hit_ratio: hit_bytes / self.bytes as f64,
            written_per_served: written.map(|written| written as f64 / self.bytes as f64),
            cpu_ns_per_request: None,
        }
    }
}

impl Interval {
    /// Byte-requests that keeping it takes.
    fn cost(&self) -> f64 {
        self.size as f64 * f64::from(self.to - self.from)
    }

    fn gain(&self, gain: Gain) -> f64 {
        match gain {
            Gain::Requests => 1.0,
            Gain::Bytes => self.gain_bytes as f64,
        }
    }
}

/// Bytes taken at each moment of a trace: a tree of maxima over moments, with what is added to a whole subtree
/// noted at its root.
///
/// ```text
///   node 1: moments 0..n         highest[i] = added[i] + max(highest[2i], highest[2i + 1])
///   node 2: 0..n/2   node 3: n/2..n
/// ```
#[derive(Debug)]
struct Room {
    bytes_max: u64,
    /// A power of two.
    moments: usize,
    highest: Vec<u64>,
    added: Vec<u64>,
}

impl Room {
    fn new(moments: usize, bytes_max: u64) -> Self {
        let moments = moments.next_power_of_two();
        Self { bytes_max, moments, highest: vec![0; 2 * moments], added: vec![0; 2 * moments] }
    }

    /// Takes `bytes` during `from..to` if they fit throughout.
    fn take(&mut self, from: u32, to: u32, bytes: u64) -> bool {
        let span = (from as usize, to as usize);
        let fits = self.highest_in(1, (0, self.moments), span) + bytes <= self.bytes_max;
        if fits {
            self.add(1, (0, self.moments), span, bytes);
        }
        fits
    }

    fn highest_in(&self, node: usize, here: (usize, usize), span: (usize, usize)) -> u64 {
        if span.1 <= here.0 || here.1 <= span.0 {
            return 0;
        }
        if span.0 <= here.0 && here.1 <= span.1 {
            return self.highest[node];
        }
        let middle = usize::midpoint(here.0, here.1);
        let left = self.highest_in(2 * node, (here.0, middle), span);
        let right = self.highest_in(2 * node + 1, (middle, here.1), span);
        self.added[node] + left.max(right)
    }

    fn add(&mut self, node: usize, here: (usize, usize), span: (usize, usize), bytes: u64) {
        if span.1 <= here.0 || here.1 <= span.0 {
            return;
        }
        if span.0 <= here.0 && here.1 <= span.1 {
            self.highest[node] += bytes;
            self.added[node] += bytes;
            return;
        }
        let middle = usize::midpoint(here.0, here.1);
        self.add(2 * node, (here.0, middle), span, bytes);
        self.add(2 * node + 1, (middle, here.1), span, bytes);
        self.highest[node] = self.added[node] + self.highest[2 * node].max(self.highest[2 * node + 1]);
    }
}

const NEVER: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trace::Versions;

    /// The most hits and hit bytes any cache could have, by trying every choice: each file that was just asked
    /// for is kept until its next request or not at all.
    fn optimum(trace: &Trace, reuse: &Reuse, bytes_max: u64) -> (f64, f64) {
        let intervals = &reuse.intervals;
        let (mut requests, mut bytes) = (0, 0);
        for choice in 0_u32..1 << intervals.len() {
            let kept = || intervals.iter().enumerate().filter(|(i, _)| choice >> i & 1 == 1).map(|(_, kept)| kept);
            let fits = (0..trace.requests.len() as u32).all(|now| {
                let during = kept().filter(|interval| (interval.from..interval.to).contains(&now));
                during.map(|interval| interval.size).sum::<u64>() <= bytes_max
            });
            if fits {
                requests = requests.max(kept().count());
                bytes = bytes.max(kept().map(|interval| interval.gain_bytes).sum());
            }
        }
        (requests as f64 / reuse.requests as f64, bytes as f64 / reuse.bytes as f64)
    }

    proptest! {
        #[test]
        fn floors_are_below_the_optimum_and_the_ceiling_above(
            requests in proptest::collection::vec((0_usize..5, 0_u64..2), 1..13),
            bytes_max in 1_u64..20,
        ) {
            let requests: Vec<(&str, u64)> =
                requests.iter().map(|(key, odd)| (["a", "b", "c", "d", "e"][*key], 1 + 3 * *key as u64 + odd)).collect();
            for versions in [Versions::New, Versions::Same] {
                let trace = Trace::of(&requests, versions);
                let reuse = Reuse::new(&trace);
                let (most_requests, most_bytes) = optimum(&trace, &reuse, bytes_max);
                for floor in [reuse.belady(&trace, bytes_max), reuse.packing(bytes_max)] {
                    // With sizes that change under one key Belady keeps the first one, the intervals the latest.
                    if versions == Versions::New {
                        prop_assert!(floor.request_hit_ratio <= most_requests + 1e-9, "{floor:?} {most_requests}");
                        prop_assert!(floor.byte_hit_ratio <= most_bytes + 1e-9, "{floor:?} {most_bytes}");
                    }
                }
                let ceiling = reuse.ceiling(bytes_max);
                prop_assert!(ceiling.request_hit_ratio >= most_requests - 1e-9, "{ceiling:?} {most_requests}");
                prop_assert!(ceiling.byte_hit_ratio >= most_bytes - 1e-9, "{ceiling:?} {most_bytes}");
            }
        }

        #[test]
        fn belady_is_the_optimum_for_files_of_one_size(
            requests in proptest::collection::vec(0_usize..5, 1..13), files_max in 1_u64..5,
        ) {
            let requests: Vec<(&str, u64)> = requests.iter().map(|key| (["a", "b", "c", "d", "e"][*key], 3)).collect();
            let trace = Trace::of(&requests, Versions::New);
            let reuse = Reuse::new(&trace);
            let belady = reuse.belady(&trace, files_max * 3);
            prop_assert!((belady.request_hit_ratio - optimum(&trace, &reuse, files_max * 3).0).abs() < 1e-9);
        }
    }
}
