//! What copies of this API read: its ratings, and what links are made from.

use std::time::Duration;

use axum::http::StatusCode;
use daemon::clock::unix_ms;
use daemon::problem::Refusal;

use super::{Api, read};
use crate::client::Frames;
use crate::engine::feed::{Feed, FeedError};
use crate::wire::{COPY_BYTES_MAX, CacheHoldings, Copies, LinkState, SnapshotFile};

impl Api {
    /// `GET /v1/snapshot`. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// 404 when there is no engine to copy, 503 when the disk does not answer.
    pub fn copies(&self) -> Result<Copies, Refusal> {
        let feed = self.feed()?;
        let there = feed.copyable().map_err(|error| Refusal::unavailable(format!("ratings: {error}")))?;
        Ok(Copies {
            lineage: feed.lineage().id().to_owned(),
            end: there.end,
            binlog_start: there.binlog_start,
            snapshots: there.snapshots.into_iter().map(|(offset, bytes)| SnapshotFile { offset, bytes }).collect(),
            settings: self.config.engine().map(|engine| engine.told()),
        })
    }

    /// `GET /v1/snapshot/{offset}`. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// 410 when it is not there, 404 and 503 as above.
    pub fn snapshot(&self, lineage: &str, offset: u64, from: u64) -> Result<Vec<u8>, Refusal> {
        self.feed_of(lineage)?.snapshot(offset, from, COPY_BYTES_MAX).map_err(refusal)
    }

    /// `GET /v1/binlog`: waits up to `wait` for a frame behind `after`.
    ///
    /// # Errors
    ///
    /// 410 when frames from there on are not there, 404 and 503 as above.
    pub async fn binlog(&self, lineage: &str, after: u64, wait: Duration) -> Result<Frames, Refusal> {
        let feed = self.feed_of(lineage)?;
        let wait = wait.min(Duration::from_secs(self.config.limits.request_s) / 2).min(FRAME_WAIT_MAX);
        if feed.end() == after {
            // Whether it is in time or not, what there is now is the answer.
            self.wait_for(feed.beyond(after), wait).await;
        }
        // The end that is told is not behind the frames that go with it.
        let reading = move || {
            let bytes = feed.frames(after, COPY_BYTES_MAX).map_err(refusal)?;
            Ok(Frames { bytes, end: feed.end(), time_ms: unix_ms() })
        };
        tokio::task::spawn_blocking(reading).await.unwrap_or_else(|_| {
            Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the call failed inside; see the log"))
        })
    }

    /// `GET /v1/state`: what links are made from, and its moment, milliseconds since the start.
    #[must_use]
    pub fn state(&self) -> (LinkState, u64) {
        let now_ms = self.now_ms();
        let image = read(&self.registry).image(|server| self.purges.applied(server));
        let holdings = read(&self.holdings).generations();
        (LinkState { holdings, purge_sequence: self.purges.latest(), ..image }, now_ms)
    }

    /// `GET /v1/state/holdings/{cache}`. Takes milliseconds for a cache of a million files.
    ///
    /// # Errors
    ///
    /// 404 for a cache that has not reported.
    pub fn cache_holdings(&self, cache: &str, since: Option<u64>, from: u64) -> Result<CacheHoldings, Refusal> {
        let holdings = read(&self.holdings);
        let held = holdings.of(cache).ok_or_else(|| Refusal::missing(format!("nothing is known of {cache:?}")))?;
        Ok(held.following(since, from))
    }

    fn feed(&self) -> Result<Feed, Refusal> {
        let missing = || {
            let detail = "the ratings are not kept in this API: there is no binlog and no snapshot to copy";
            Refusal::missing(detail.to_owned())
        };
        self.feed.load_full().map(|feed| Feed::clone(&feed)).ok_or_else(missing)
    }

    fn feed_of(&self, lineage: &str) -> Result<Feed, Refusal> {
        let feed = self.feed()?;
        if feed.lineage().id() == lineage {
            return Ok(feed);
        }
        let detail = format!("lineage: the binlog here is {}; start again from a snapshot", feed.lineage());
        Err(Refusal::new(StatusCode::GONE, detail))
    }
}

fn refusal(error: FeedError) -> Refusal {
    match error {
        FeedError::Gone(_) => Refusal::new(StatusCode::GONE, error.to_string()),
        FeedError::Disk { .. } => Refusal::unavailable(error.to_string()),
    }
}

/// Longest wait for a frame.
const FRAME_WAIT_MAX: Duration = Duration::from_secs(5);
