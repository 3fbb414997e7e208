//! Downloads summed up until they are a batch. Pure.
//!
//! Reporters send the same files second after second; a row is what one of them sent of one file to one region's clients
//! within a batch. A row goes over the wire as a line of JSON (ClickHouse's `JSONEachRow`):
//!
//! ```text
//! {"at":1790000000,"batch":1790000010123456,"region":4,"source":"sun4-2-1","content_server":7,
//!  "file":"c7/a.jpg","size":2048,"downloads":1.5,"bytes":3072}
//! ```

use std::collections::BTreeMap;

use geo::CanonicalName;
use serde::{Deserialize, Serialize};

use super::Noted;

/// A line of a batch, and a row of the table `downloads`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// When the batch began, seconds since 1970.
    pub at: u64,
    /// The batch's number: when it was sealed, microseconds since 1970; each is greater than the one before.
    pub batch: u64,
    /// Region of the clients.
    pub region: u16,
    /// Who sent the file.
    pub source: String,
    /// Whose file it is.
    pub content_server: u32,
    /// Canonical name.
    pub file: String,
    /// Bytes of the whole file.
    pub size: u64,
    /// Sum over requests of bytes sent / size, at most 1 per request.
    pub downloads: f64,
    /// Bytes sent.
    pub bytes: u64,
}

/// What one batch has so far; rows come out in order.
#[derive(Debug)]
pub struct Buffer {
    sums: BTreeMap<(u16, String, String), Sum>,
    began_s: u64,
    rows_max: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    size: u64,
    downloads: f64,
    bytes: u64,
}

impl Buffer {
    /// An empty one that begins now, seconds since 1970. More than `rows_max` rows are too many for one batch.
    #[must_use]
    pub fn new(now_s: u64, rows_max: usize) -> Self {
        Self { sums: BTreeMap::new(), began_s: now_s, rows_max }
    }

    /// Adds what was downloaded; true when the batch is full.
    pub fn add(&mut self, noted: Noted) -> bool {
        for one in noted.downloads {
            let sum = self.sums.entry((one.region.0, one.file, noted.source.clone())).or_default();
            sum.size = one.size;
            sum.downloads += one.downloads;
            sum.bytes = sum.bytes.saturating_add(one.bytes);
        }
        self.sums.len() >= self.rows_max
    }

    /// Whether there is nothing to seal.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }

    /// Rows so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sums.len()
    }

    /// The lines of the batch with this number.
    #[must_use]
    pub fn seal(self, batch: u64) -> Vec<u8> {
        let mut lines = Vec::with_capacity(self.sums.len() * ROW_BYTES);
        for ((region, file, source), sum) in self.sums {
            let Sum { size, downloads, bytes } = sum;
            let content_server = CanonicalName::from_written(&file).map_or(0, |name| name.content_server());
            let row = Row { at: self.began_s, batch, region, source, content_server, file, size, downloads, bytes };
            // Numbers and strings: there is nothing that JSON cannot say, but for a sum that is no number.
            if serde_json::to_writer(&mut lines, &row).is_ok() {
                lines.push(b'\n');
            }
        }
        lines
    }
}

/// About what a row's line takes.
const ROW_BYTES: usize = 180;

#[cfg(test)]
mod tests {
    use geo::RegionId;

    use super::*;
    use crate::wire::Download;

    #[test]
    fn downloads_of_one_source_file_and_region_are_one_row() {
        let mut buffer = Buffer::new(1_790_000_000, 100);
        buffer.add(noted("sun4-1-1", &[(4, "c1/b", 1.0, 10), (4, "c1/a", 0.5, 5), (5, "c1/a", 1.0, 10)]));
        buffer.add(noted("sun4-1-2", &[(4, "c1/a", 1.0, 10)]));
        buffer.add(noted("sun4-1-1", &[(4, "c1/a", 2.0, u64::MAX)]));
        let rows = rows(&buffer.seal(7));
        let short: Vec<_> = rows
            .iter()
            .map(|row| (row.region, row.file.as_str(), row.source.as_str(), row.downloads, row.bytes))
            .collect();
        assert_eq!(
            short,
            [
                (4, "c1/a", "sun4-1-1", 2.5, u64::MAX),
                (4, "c1/a", "sun4-1-2", 1.0, 10),
                (4, "c1/b", "sun4-1-1", 1.0, 10),
                (5, "c1/a", "sun4-1-1", 1.0, 10),
            ]
        );
        assert!(rows.iter().all(|row| (row.at, row.batch, row.content_server) == (1_790_000_000, 7, 1)));
    }

    #[test]
    fn a_row_is_written_like_this() {
        let mut buffer = Buffer::new(1_790_000_000, 100);
        buffer.add(noted("sun4-1-1", &[(4, "c7/a.jpg", 1.5, 3072)]));
        assert_eq!(
            String::from_utf8(buffer.seal(1_790_000_010_123_456)).unwrap(),
            "{\"at\":1790000000,\"batch\":1790000010123456,\"region\":4,\"source\":\"sun4-1-1\",\"content_server\":7,\
             \"file\":\"c7/a.jpg\",\"size\":2048,\"downloads\":1.5,\"bytes\":3072}\n"
        );
    }

    #[test]
    fn a_batch_says_when_it_is_full() {
        let mut buffer = Buffer::new(0, 2);
        assert!(buffer.is_empty());
        assert!(!buffer.add(noted("s", &[(4, "c1/a", 1.0, 1), (4, "c1/a", 1.0, 1)])));
        assert!(buffer.add(noted("s", &[(4, "c1/b", 1.0, 1)])));
        assert_eq!((buffer.len(), buffer.is_empty()), (2, false));
    }

    fn noted(source: &str, downloads: &[(u16, &str, f64, u64)]) -> Noted {
        let download = |&(region, file, downloads, bytes): &(u16, &str, f64, u64)| Download {
            region: RegionId(region),
            file: file.to_owned(),
            size: 2048,
            downloads,
            bytes,
        };
        Noted { source: source.to_owned(), downloads: downloads.iter().map(download).collect() }
    }

    fn rows(lines: &[u8]) -> Vec<Row> {
        lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }
}
