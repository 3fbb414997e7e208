//! Downloads in, the best-rated files out.

use std::sync::PoisonError;
use std::time::Duration;

use axum::http::StatusCode;
use daemon::clock::unix_ms;
use daemon::problem::Refusal;
use geo::RegionId;

use super::refusals::{self, Refusals};
use super::{Api, find, find_server, unasked};
use crate::engine::CountError;
use crate::engine::batch::{Batch, Entry};
use crate::engine::table::Mark;
use crate::names;
use crate::pressure::Pressure;
use crate::ratings::RankedFile;
use crate::wanted;
use crate::wire::{DOWNLOADS_PER_BATCH_MAX, Download, DownloadsAck, DownloadsBatch, Rated, Top};

impl Api {
    /// `POST /v1/downloads`: resolves when the batch is durable.
    ///
    /// # Errors
    ///
    /// 400 for a batch that is too long, of a source without a sound name, or with a number that cannot be; 404 for a source
    /// that the topology does not have and that is no log of an operator's; 409 for a boot older than the source's latest, or
    /// far ahead, and a number far ahead; 429 and 503 when it cannot be made durable now.
    pub async fn downloads(&self, report: DownloadsBatch) -> Result<DownloadsAck, Refusal> {
        if report.downloads.len() > DOWNLOADS_PER_BATCH_MAX {
            let count = report.downloads.len();
            return Err(Refusal::bad(format!("downloads: {count} entries: at most {DOWNLOADS_PER_BATCH_MAX} a batch")));
        }
        if report.source.is_empty() || report.source.len() > SOURCE_BYTES_MAX {
            return Err(Refusal::bad(format!("source: a name has 1..={SOURCE_BYTES_MAX} bytes")));
        }
        if report.sequence == 0 {
            return Err(Refusal::bad("sequence: is 1 or more: batches of a boot are numbered 1, 2, 3, ...".to_owned()));
        }
        let topology = self.topology();
        // What is remembered of a source is never forgotten: invented names would fill the RAM.
        if !is_log(&report.source) {
            find_server(&topology, "source", &report.source)?;
        }
        let at_ms = unix_ms().saturating_sub(report.age_ms);
        let (mut entries, mut refusals) = (Vec::with_capacity(report.downloads.len()), Refusals::default());
        let mut noted = self.history.as_ref().map(|_| Vec::new());
        for (index, one) in report.downloads.into_iter().enumerate() {
            if let Err(why) = refusals::check(&one, &topology) {
                refusals.note(index, &one, &why, &self.metrics.refused);
                continue;
            }
            // Nothing of a file arrived: no mistake, and nothing to count.
            if one.downloads <= 0.0 {
                continue;
            }
            if let Some(noted) = &mut noted {
                noted.push(one.clone());
            }
            // Of what was purged since, nothing is rated.
            if self.purges.downloaded(one.region, &one.file, at_ms) {
                let Download { region, file, size, downloads, .. } = one;
                entries.push(Entry { region, file: file.into(), size, downloads });
            }
        }
        let source = report.source.clone();
        let mark = Mark { boot: report.boot, sequence: report.sequence };
        let counted = self.count(Batch { source: report.source, mark, entries }).await?;
        if let Some((history, noted)) = self.history.as_ref().zip(noted).filter(|_| counted) {
            history.note(&source, noted);
        }
        let sample = self.pressure(|pressure| pressure.sample());
        self.metrics.sample.set(sample);
        let Refusals { count: refused, first: refusals } = refusals;
        Ok(DownloadsAck { counted, refused, refusals, sample })
    }

    async fn count(&self, batch: Batch) -> Result<bool, Refusal> {
        let mut waits = Waits::begin(self, batch.bytes());
        let counted = self.ratings.count(batch).await;
        waits.durable = counted.is_ok();
        drop(waits);
        counted.map_err(|error| {
            let detail = error.to_string();
            match error {
                CountError::Busy => Refusal::busy_for(detail, self.pressure(|pressure| pressure.retry_after())),
                CountError::Stale { .. } | CountError::Mark(_) => Refusal::new(StatusCode::CONFLICT, detail),
                CountError::Disk(_) | CountError::Away(_) | CountError::Closed => Refusal::unavailable(detail),
            }
        })
    }

    fn pressure<T>(&self, ask: impl FnOnce(&mut Pressure) -> T) -> T {
        // Its steps set numbers one by one; what a panic leaves behind are still numbers.
        ask(&mut self.pressure.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `GET /v1/regions/{region}/top`.
    ///
    /// # Errors
    ///
    /// 404 for a region that the topology does not have, 503 when the ratings cannot be asked. Names that would be refused
    /// today are left out.
    pub async fn top(&self, region: RegionId, limit: usize) -> Result<Top, Refusal> {
        let topology = self.topology();
        let (region, limit) = (find(&topology, region)?.id, limit.min(wanted::CANDIDATES_MAX));
        let mut asked = limit;
        let ranked = loop {
            let found = self.ratings.top(region, asked).await.map_err(unasked)?;
            let there_is_more = found.len() >= asked && asked < TOP_ASKED_MAX;
            // Ratings outlive topologies, and releases that took any name.
            let good = |ranked: &RankedFile| names::reported(&topology, &ranked.name).is_ok();
            let good: Vec<RankedFile> = found.into_iter().filter(good).take(limit).collect();
            if good.len() >= limit || !there_is_more {
                break good;
            }
            asked = asked.saturating_mul(4).clamp(TOP_ASKED_AGAIN_MIN, TOP_ASKED_MAX);
        };
        let rated = |ranked: RankedFile| Rated {
            file: ranked.name.into(),
            size: ranked.size,
            score: ranked.score,
            rating_hour: ranked.rating.hour,
            rating_days: ranked.rating.days,
        };
        Ok(Top { region, files: ranked.into_iter().map(rated).collect() })
    }
}

/// A batch that waits for its commit, also when the caller goes away meanwhile.
struct Waits<'a> {
    api: &'a Api,
    bytes: usize,
    began_ms: u64,
    durable: bool,
}

impl<'a> Waits<'a> {
    fn begin(api: &'a Api, bytes: usize) -> Self {
        let began_ms = api.now_ms();
        api.pressure(|pressure| pressure.begin(bytes, began_ms));
        Self { api, bytes, began_ms, durable: false }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let now_ms = self.api.now_ms();
        let took = self.durable.then(|| Duration::from_millis(now_ms - self.began_ms));
        self.api.pressure(|pressure| pressure.end(self.bytes, took, now_ms));
    }
}

/// `log:N`: what an operator reports of content servers' logs. No server has such a name, so none is in its way. That only
/// operators use it is seen to where tokens are.
fn is_log(source: &str) -> bool {
    let number = source.strip_prefix("log:").and_then(|text| text.parse::<u16>().ok());
    number.is_some_and(|number| (1..=LOGS_MAX).contains(&number) && source == format!("log:{number}"))
}

/// Files that the ratings are asked for when names among the first are left out: at least, and at most.
const TOP_ASKED_AGAIN_MIN: usize = 100;
const TOP_ASKED_MAX: usize = 4 * wanted::CANDIDATES_MAX;
/// Longest name of a source; a host name's own bound.
const SOURCE_BYTES_MAX: usize = 255;
/// Sources that operators have for logs, each remembered for good.
const LOGS_MAX: u16 = 1000;
