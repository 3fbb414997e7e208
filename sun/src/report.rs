//! Downloads, on their way to the popularity API.
//!
//! ```text
//!   response ends --> Tally --> Downloads, summed by (region, file) --each second--> batch --> spool --> API
//!                               bounded: sampled, thinned                            numbered  on disk
//! ```
//!
//! A batch keeps its number until the API has acknowledged it, also across restarts, so it is counted once however often
//! it is sent; [`popularity_api::spool`] says how. While the API is away batches wait on disk, oldest dropped first
//! beyond `spool.bytes_max` (counted in a metric). A kill -9 loses what was summed since the last batch: a second.
//!
//! "Sent" is what was handed to the connection: of what a client that leaves has not received, the last piece (at
//! most an extent) is counted too.

mod sending;
mod sums;

use std::sync::Arc;

use geo::{ContentId, RegionId};

use crate::edge::Edge;
use crate::hot::Detector;
use crate::request::Lookup;

pub use sending::report_downloads;
pub use sums::Downloads;

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
