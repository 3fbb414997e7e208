//! Downloads, on their way to the popularity API.
//!
//! ```text
//!   response ends --> Tally --> Downloads, summed by (region, file) --each second--> batch --> queue --> API
//!                                                                                  numbered   bounded
//! ```
//!
//! A batch keeps its number until the API has acknowledged it, so it is counted once however often it is sent.
//! While the API is away batches wait, newest dropped first beyond [`QUEUE_MAX`] (counted in a metric).
//!
//! "Sent" is what was handed to the connection: of what a client that leaves has not received, the last piece (at
//! most an extent) is counted too.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use geo::{ContentId, RegionId};
use popularity_api::wire::{DOWNLOADS_PER_BATCH_MAX, Download, DownloadsBatch};

use crate::edge::Edge;
use crate::hot::Detector;
use crate::request::Lookup;

/// Downloads since the last batch. Shared by all workers.
#[derive(Debug, Default)]
pub struct Downloads {
    dropped: AtomicU64,
    sums: Mutex<HashMap<(RegionId, Arc<str>), Sum>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    size: u64,
    downloads: f64,
    bytes: u64,
}

impl Downloads {
    /// One response has ended: `sent` bytes of a file of `size`.
    pub fn add(&self, region: RegionId, file: &Arc<str>, size: u64, sent: u64) {
        let mut sums = self.sums.lock().expect("no code that holds this lock panics");
        if sums.len() >= PAIRS_MAX && !sums.contains_key(&(region, Arc::clone(file))) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let sum = sums.entry((region, Arc::clone(file))).or_default();
        sum.size = size;
        sum.downloads += share(sent, size);
        sum.bytes += sent;
    }

    /// Downloads that were not summed since the last call, because too many files were asked for at once.
    #[must_use]
    pub fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    /// Takes everything out: batches of entries in order of region and file, each of a size that the API takes.
    #[must_use]
    pub fn take(&self) -> Vec<Vec<Download>> {
        let sums = std::mem::take(&mut *self.sums.lock().expect("no code that holds this lock panics"));
        let mut downloads: Vec<Download> = sums
            .into_iter()
            .map(|((region, file), sum)| Download {
                region,
                file: file.to_string(),
                size: sum.size,
                downloads: sum.downloads,
                bytes: sum.bytes,
            })
            .collect();
        downloads.sort_by(|a, b| (a.region, &a.file).cmp(&(b.region, &b.file)));
        batches(downloads)
    }
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

/// Batches that the API has not acknowledged, oldest first. Pure.
#[derive(Debug)]
pub struct Queue {
    source: String,
    boot: u64,
    next: u64,
    waiting: VecDeque<DownloadsBatch>,
    dropped: u64,
}

impl Queue {
    /// An empty queue of the server `source`, started at `boot` (microseconds since 1970).
    #[must_use]
    pub const fn new(source: String, boot: u64) -> Self {
        Self { source, boot, next: 1, waiting: VecDeque::new(), dropped: 0 }
    }

    /// Numbers a batch and puts it last; drops it when too many wait.
    pub fn push(&mut self, downloads: Vec<Download>) {
        if self.waiting.len() >= QUEUE_MAX {
            self.dropped += downloads.len() as u64;
            return;
        }
        let (source, sequence) = (self.source.clone(), self.next);
        self.next += 1;
        self.waiting.push_back(DownloadsBatch { source, boot: self.boot, sequence, downloads });
    }

    /// The batch to send next; it stays until [`Queue::done`].
    #[must_use]
    pub fn first(&self) -> Option<&DownloadsBatch> {
        self.waiting.front()
    }

    /// The first batch was acknowledged, or refused for good.
    pub fn done(&mut self) {
        self.waiting.pop_front();
    }

    /// Batches that wait, and entries that were dropped since the start.
    #[must_use]
    pub fn backlog(&self) -> (usize, u64) {
        (self.waiting.len(), self.dropped)
    }
}

/// Counts what one response sends; reports it when dropped, however the response ended.
#[derive(Debug)]
pub struct Tally {
    /// None: it is counted in the sun's own figures only.
    downloads: Option<Arc<Downloads>>,
    detector: Arc<Detector>,
    region: RegionId,
    content: ContentId,
    file: Arc<str>,
    /// None: not known before the end.
    size: Option<u64>,
    sent: u64,
    meter: crate::metrics::Sent,
}

impl Tally {
    /// For a response to a client of `region`, which is counted as a request of the file now. Under the policy "rfc"
    /// it is not reported as a download: what is rated is carried ahead, and a cache would keep for good what only its
    /// response says how long to keep, and for whom. It is load like any other, so the detector hears of it.
    #[must_use]
    pub fn new(edge: &Edge, region: RegionId, request: &Lookup, size: Option<u64>) -> Self {
        let (content, file): (ContentId, Arc<str>) = (request.content, request.name.as_str().into());
        edge.detector.requested(content, || Arc::clone(&file));
        Self {
            downloads: request.said.is_none().then(|| Arc::clone(&edge.downloads)),
            detector: Arc::clone(&edge.detector),
            region,
            content,
            file,
            size,
            sent: 0,
            meter: edge.metrics.meter(),
        }
    }

    /// Bytes were handed to the connection.
    pub fn sent(&mut self, bytes: u64) {
        self.sent += bytes;
        self.meter.add(bytes);
        self.detector.sent(self.content, bytes, || Arc::clone(&self.file));
    }

    /// The body ended as it should: a size that was not known is known now.
    pub const fn complete(&mut self) {
        if self.size.is_none() {
            self.size = Some(self.sent);
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if let (Some(downloads), Some(size)) = (&self.downloads, self.size)
            && (self.sent > 0 || size == 0)
        {
            downloads.add(self.region, &self.file, size, self.sent);
        }
    }
}

/// (region, file) pairs summed between two batches; more are dropped, and counted as that. About 20 MiB.
const PAIRS_MAX: usize = 100_000;
/// Bytes of the names in one batch: with everything else in it, and every byte escaped, under the 32 MiB that the
/// API takes by default.
const NAMES_PER_BATCH_BYTES: usize = 12 << 20;
/// Batches that wait while the API is away: ten minutes of one a second.
pub const QUEUE_MAX: usize = 600;

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

    #[test]
    fn a_batch_keeps_its_number_until_it_is_acknowledged() {
        let mut queue = Queue::new("sun4-2-1".into(), 7);
        queue.push(Vec::new());
        queue.push(Vec::new());
        assert_eq!(queue.first().unwrap().sequence, 1);
        assert_eq!(queue.first().unwrap().sequence, 1);
        queue.done();
        assert_eq!(queue.first().unwrap().sequence, 2);
    }

    #[test]
    fn the_queue_is_bounded_and_says_what_it_dropped() {
        let mut queue = Queue::new("sun4-2-1".into(), 7);
        let download = Download { region: RegionId(4), file: "c1/a".into(), size: 1, downloads: 1.0, bytes: 1 };
        for _ in 0..QUEUE_MAX + 3 {
            queue.push(vec![download.clone()]);
        }
        assert_eq!(queue.backlog(), (QUEUE_MAX, 3));
    }
}
