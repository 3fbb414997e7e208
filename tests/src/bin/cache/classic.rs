//! The caches to compare with, as their authors describe them, in RAM: an entry moves for free.
//!
//! An entry larger than the cache (for SLRU: than a segment) is not taken. All of them write every miss once.

use std::collections::HashMap;

use crate::list::Queue;
use crate::policy::Policy;
use crate::trace::Request;

/// FIFO, and LRU: the same, but a hit makes an entry the newest again.
#[derive(Debug)]
pub(crate) struct Recency {
    bytes_max: u64,
    renews: bool,
    queue: Queue,
    written_bytes: u64,
}

impl Recency {
    pub(crate) fn fifo(bytes_max: u64) -> Self {
        Self { bytes_max, renews: false, queue: Queue::default(), written_bytes: 0 }
    }

    pub(crate) fn lru(bytes_max: u64) -> Self {
        Self { renews: true, ..Self::fifo(bytes_max) }
    }
}

impl Policy for Recency {
    fn request(&mut self, Request { key, size }: Request) -> bool {
        if self.queue.contains(key) {
            if self.renews {
                let size = self.queue.remove(key).expect("it is in there");
                self.queue.push(key, size);
            }
            return true;
        }
        if size <= self.bytes_max {
            while self.queue.bytes() + size > self.bytes_max {
                self.queue.pop();
            }
            self.queue.push(key, size);
            self.written_bytes += size;
        }
        false
    }

    fn written_bytes(&self) -> u64 {
        self.written_bytes
    }
}

/// Segmented LRU (Karedla, Love and Wherry, Caching strategies to improve disk system performance, 1994) of
/// four equal segments: a miss enters the lowest that has room (the bottom one, once all are full), a hit climbs
/// one segment, what falls out of one falls into the next lower.
#[derive(Debug)]
pub(crate) struct Slru {
    segment_bytes_max: u64,
    segments: [Queue; SLRU_SEGMENTS],
    written_bytes: u64,
}

impl Slru {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let segment_bytes_max = bytes_max / SLRU_SEGMENTS as u64;
        Self { segment_bytes_max, segments: Default::default(), written_bytes: 0 }
    }

    fn put(&mut self, segment: usize, key: u32, size: u64) {
        self.segments[segment].push(key, size);
        for lower in (0..=segment).rev() {
            while self.segments[lower].bytes() > self.segment_bytes_max {
                let (key, size) = self.segments[lower].pop().expect("it has bytes");
                if lower > 0 {
                    self.segments[lower - 1].push(key, size);
                }
            }
        }
    }
}

impl Policy for Slru {
    fn request(&mut self, Request { key, size }: Request) -> bool {
        for segment in 0..SLRU_SEGMENTS {
            if let Some(size) = self.segments[segment].remove(key) {
                self.put((segment + 1).min(SLRU_SEGMENTS - 1), key, size);
                return true;
            }
        }
        if size <= self.segment_bytes_max {
            let has_room = |segment: &usize| self.segments[*segment].bytes() + size <= self.segment_bytes_max;
            self.put((0..SLRU_SEGMENTS).find(has_room).unwrap_or(0), key, size);
            self.written_bytes += size;
        }
        false
    }

    fn written_bytes(&self) -> u64 {
        self.written_bytes
    }
}

/// S3-FIFO (Yang and others, FIFO queues are all you need for cache eviction, SOSP 2023): a small queue of a
/// tenth that only what was hit twice leaves alive, a main queue with second chances, and a ghost of main's size.
/// Before the first eviction what small has no room for fills main; what is larger than small is not taken.
#[derive(Debug)]
pub(crate) struct S3Fifo {
    bytes_max: u64,
    small: Queue,
    main: Queue,
    ghost: Queue,
    /// Hits since an entry came or was given its last chance, at most 3.
    hits: HashMap<u32, u8>,
    evicted: bool,
    written_bytes: u64,
}

impl S3Fifo {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let (small, main, ghost) = Default::default();
        Self { bytes_max, small, main, ghost, hits: HashMap::new(), evicted: false, written_bytes: 0 }
    }

    fn evict(&mut self) {
        self.evicted = true;
        if self.small.bytes() > self.bytes_max / 10 || self.main.is_empty() {
            self.evict_small();
        } else {
            self.evict_main();
        }
    }

    fn evict_small(&mut self) {
        let Some((key, size)) = self.small.pop() else { return };
        if self.hits.get(&key).is_some_and(|hits| *hits >= 2) {
            self.hits.insert(key, 0);
            self.main.push(key, size);
            return;
        }
        self.hits.remove(&key);
        self.ghost.push(key, size);
        while self.ghost.bytes() > self.bytes_max / 10 * 9 {
            self.ghost.pop();
        }
    }

    fn evict_main(&mut self) {
        let Some((key, size)) = self.main.pop() else { return };
        match self.hits.get_mut(&key) {
            Some(hits) if *hits > 0 => {
                *hits -= 1;
                self.main.push(key, size);
            }
            _ => {
                self.hits.remove(&key);
            }
        }
    }
}

impl Policy for S3Fifo {
    fn request(&mut self, Request { key, size }: Request) -> bool {
        if let Some(hits) = self.hits.get_mut(&key) {
            *hits = (*hits + 1).min(3);
            return true;
        }
        let known = self.ghost.remove(key).is_some();
        if size > self.bytes_max || (!known && size > self.bytes_max / 10) {
            return false;
        }
        while self.small.bytes() + self.main.bytes() + size > self.bytes_max {
            self.evict();
        }
        self.written_bytes += size;
        self.hits.insert(key, 0);
        let warming = !self.evicted && self.small.bytes() >= self.bytes_max / 10;
        let queue = if known || warming { &mut self.main } else { &mut self.small };
        queue.push(key, size);
        false
    }

    fn written_bytes(&self) -> u64 {
        self.written_bytes
    }
}

const SLRU_SEGMENTS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::generate;
    use crate::policy::run;
    use crate::trace::Trace;

    /// Each policy beside a model that is as plain as its description: vectors, newest last, searched through.
    #[test]
    fn the_classics_are_what_their_descriptions_say() {
        for words in ["zipf,requests=6000,keys=400,alpha=0.8,size=3", "media,requests=3000,seed=7"] {
            let trace = generate(words).unwrap();
            for share in [0.01, 0.05, 0.2] {
                let bytes_max = (trace.footprint_bytes as f64 * share) as u64;
                check(&trace, &mut Recency::fifo(bytes_max), recency_model(&trace, bytes_max, false));
                check(&trace, &mut Recency::lru(bytes_max), recency_model(&trace, bytes_max, true));
                check(&trace, &mut Slru::new(bytes_max), slru_model(&trace, bytes_max / 4));
                check(&trace, &mut S3Fifo::new(bytes_max), s3fifo_model(&trace, bytes_max));
            }
        }
    }

    fn check(trace: &Trace, policy: &mut dyn Policy, model_hits: usize) {
        let ratio = run(trace, policy).request_hit_ratio;
        let model = model_hits as f64 / trace.requests.len() as f64;
        assert!((ratio - model).abs() < 1e-9, "{ratio} {model}");
    }

    type Entries = Vec<(u32, u64)>;

    fn bytes(entries: &Entries) -> u64 {
        entries.iter().map(|entry| entry.1).sum()
    }

    fn take(entries: &mut Entries, key: u32) -> Option<(u32, u64)> {
        entries.iter().position(|entry| entry.0 == key).map(|at| entries.remove(at))
    }

    fn recency_model(trace: &Trace, bytes_max: u64, renews: bool) -> usize {
        let (mut held, mut hits) = (Entries::new(), 0);
        for Request { key, size } in trace.requests.iter().copied() {
            if held.iter().any(|entry| entry.0 == key) {
                hits += 1;
                if renews {
                    let entry = take(&mut held, key).unwrap();
                    held.push(entry);
                }
            } else if size <= bytes_max {
                held.push((key, size));
                while bytes(&held) > bytes_max {
                    held.remove(0);
                }
            }
        }
        hits
    }

    fn slru_model(trace: &Trace, segment_bytes_max: u64) -> usize {
        let (mut segments, mut hits) = (vec![Entries::new(); 4], 0);
        for Request { key, size } in trace.requests.iter().copied() {
            let held = (0..4).find(|segment| segments[*segment].iter().any(|entry| entry.0 == key));
            if held.is_none() && size > segment_bytes_max {
                continue;
            }
            hits += usize::from(held.is_some());
            let room = (0..4).find(|segment| bytes(&segments[*segment]) + size <= segment_bytes_max).unwrap_or(0);
            let to = held.map_or(room, |segment| (segment + 1).min(3));
            let entry = held.and_then(|segment| take(&mut segments[segment], key)).unwrap_or((key, size));
            segments[to].push(entry);
            for segment in (0..4).rev() {
                while bytes(&segments[segment]) > segment_bytes_max {
                    let entry = segments[segment].remove(0);
                    if segment > 0 {
                        segments[segment - 1].push(entry);
                    }
                }
            }
        }
        hits
    }

    fn s3fifo_model(trace: &Trace, bytes_max: u64) -> usize {
        let (mut small, mut main, mut ghost) = (Entries::new(), Entries::new(), Entries::new());
        let mut counts = vec![0_u8; trace.keys as usize];
        let (mut hits, mut evicted) = (0, false);
        for Request { key, size } in trace.requests.iter().copied() {
            if small.iter().chain(&main).any(|entry| entry.0 == key) {
                hits += 1;
                counts[key as usize] = (counts[key as usize] + 1).min(3);
                continue;
            }
            let known = take(&mut ghost, key).is_some();
            if size > bytes_max || (!known && size > bytes_max / 10) {
                continue;
            }
            while bytes(&small) + bytes(&main) + size > bytes_max {
                evicted = true;
                if bytes(&small) > bytes_max / 10 || main.is_empty() {
                    let entry = small.remove(0);
                    let popular = counts[entry.0 as usize] > 1;
                    counts[entry.0 as usize] = 0;
                    let queue = if popular { &mut main } else { &mut ghost };
                    queue.push(entry);
                    while bytes(&ghost) > bytes_max / 10 * 9 {
                        ghost.remove(0);
                    }
                } else {
                    let entry = main.remove(0);
                    if let Some(left) = counts[entry.0 as usize].checked_sub(1) {
                        counts[entry.0 as usize] = left;
                        main.push(entry);
                    }
                }
            }
            let warming = !evicted && bytes(&small) >= bytes_max / 10;
            let queue = if known || warming { &mut main } else { &mut small };
            queue.push((key, size));
        }
        hits
    }
}
