//! The embedded engine as [`Ratings`]: ratings in this process's RAM and on its disk.
//!
//! Counting waits for the group commit; whatever walks over a region's ratings does so off the runtime's own threads.
//!
//! # What caches hold
//!
//! The engine keeps a bit for each cache beside a rating, so that one walk finds both what is worth carrying and what is
//! held. A bit is set when a cache tells of a file that is rated; of one that is rated only later it is missing. So all
//! names are noted when a cache first asks, and again every [`NOTED_AGAIN_MS`], in pieces between which commits go on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use daemon::clock::unix_ms;
use geo::RegionId;

use super::{Answer, AskError, Carried, Carry, Decayed, HeldNote, RankedFile, Ratings};
use crate::engine::batch::Batch;
use crate::engine::decay::{Pulse, Rating};
use crate::engine::files::RatedFile;
use crate::engine::table::Ranked;
use crate::engine::{CountError, Engine};

/// The engine, shared with whoever else needs its binlog.
#[derive(Clone, Debug)]
pub struct Embedded {
    engine: Arc<Engine>,
    noted: Arc<Noted>,
}

/// When all that a cache holds was last noted.
#[derive(Debug)]
struct Noted {
    started: Instant,
    at_ms: Mutex<HashMap<(RegionId, String), u64>>,
}

impl Embedded {
    /// Ratings of this engine.
    #[must_use]
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine, noted: Arc::new(Noted { started: Instant::now(), at_ms: Mutex::default() }) }
    }

    fn carried_now(&self, ask: &Carry, note_again: bool) -> Carried {
        if note_again {
            let names = (ask.held)();
            for names in names.chunks(NOTED_AT_ONCE) {
                let added = names.iter().map(String::as_str);
                self.engine.note_held(ask.region, &ask.cache, false, added, std::iter::empty());
            }
        }
        let table = self.engine.table();
        let pulse = table.decay().at(unix_ms());
        let accept = |file: &RatedFile<'_>, rating| (ask.accept)(file, left(pulse, rating));
        let (exponent, least) = (ask.exponent, ask.downloads_min);
        let found = table.carried_above(ask.region, &ask.cache, exponent, ask.limit, least, accept);
        let best = found.best.into_iter().map(|ranked| owned(pulse, ranked)).collect();
        let held = if table.notes(ask.region, &ask.cache) {
            found.held.iter().map(|held| (table.name(held).to_owned(), held.score)).collect()
        } else {
            // A region of more caches than there are bits: its names are looked up.
            let score = |name: String| table.score(ask.region, &name, ask.exponent).map(|score| (name, score));
            (ask.held)().into_iter().filter_map(score).collect()
        };
        Carried { best, held }
    }
}

impl Ratings for Embedded {
    fn count(&self, batch: Batch) -> Answer<'_, Result<bool, CountError>> {
        Box::pin(self.engine.count(batch))
    }

    fn top(&self, region: RegionId, limit: usize) -> Answer<'_, Result<Vec<RankedFile>, AskError>> {
        let engine = Arc::clone(&self.engine);
        Box::pin(blocking(move || {
            let table = engine.table();
            let pulse = table.decay().at(unix_ms());
            table.top(region, limit).into_iter().map(|ranked| owned(pulse, ranked)).collect()
        }))
    }

    fn carried(&self, ask: Carry) -> Answer<'_, Result<Carried, AskError>> {
        let this = self.clone();
        let note_again = self.noted.due(ask.region, &ask.cache);
        Box::pin(blocking(move || this.carried_now(&ask, note_again)))
    }

    fn note_held(&self, note: HeldNote) -> Answer<'_, ()> {
        let engine = Arc::clone(&self.engine);
        Box::pin(async move {
            let HeldNote { region, cache, complete, added, removed } = note;
            let noting = move || {
                let [added, removed] = [&added, &removed].map(|names| names.iter().map(String::as_str));
                engine.note_held(region, &cache, complete, added, removed);
            };
            // It is a help; when it fails the log says so and names are looked at one by one.
            drop(blocking(noting).await);
        })
    }

    fn failed(&self) -> Answer<'static, ()> {
        Box::pin(self.engine.failed())
    }

    fn close(&self) -> Answer<'_, ()> {
        let engine = Arc::clone(&self.engine);
        // When the thread cannot be had the binlog has everything all the same.
        Box::pin(async move { drop(blocking(move || engine.close()).await) })
    }
}

impl Noted {
    /// Whether all that the cache holds is to be noted now, by whoever asks.
    fn due(&self, region: RegionId, cache: &str) -> bool {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.due_at(region, cache, now_ms)
    }

    fn due_at(&self, region: RegionId, cache: &str, now_ms: u64) -> bool {
        // What a panic leaves behind is still a map.
        let mut at_ms = self.at_ms.lock().unwrap_or_else(PoisonError::into_inner);
        let last = at_ms.get(&(region, cache.to_owned()));
        // An engine that has just been opened knows only what caches told since.
        let due = last.is_none_or(|&last| now_ms.saturating_sub(last) >= NOTED_AGAIN_MS);
        if due {
            at_ms.insert((region, cache.to_owned()), now_ms);
        }
        due
    }
}

fn left(pulse: Pulse, rating: Rating) -> Decayed {
    let (hour, days) = pulse.left(rating);
    Decayed { hour, days }
}

fn owned(pulse: Pulse, ranked: Ranked<'_>) -> RankedFile {
    RankedFile {
        name: ranked.file.name.into(),
        content: ranked.file.content,
        size: ranked.file.size,
        rating: left(pulse, ranked.rating),
        score: ranked.score,
    }
}

/// Runs what may take milliseconds off the runtime's own threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, AskError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| AskError::Failed)
}

/// How long a file that was rated after its cache told of it may have no score among what is held, milliseconds: it takes
/// half a microsecond a file.
const NOTED_AGAIN_MS: u64 = 300_000;
/// Names that are noted in one piece, some 5 ms.
const NOTED_AT_ONCE: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::batch::Entry;
    use crate::engine::decay::Decay;
    use crate::engine::folder::simulated::Simulated;
    use crate::engine::table::Mark;
    use crate::engine::{Metrics, Settings};

    #[tokio::test]
    async fn what_is_held_is_scored_also_when_it_was_rated_after_its_cache_told_of_it() {
        let ratings = embedded();
        ratings.count(batch(1, &["c1/a", "c1/b"])).await.unwrap();
        let added = HELD.map(str::to_owned).to_vec();
        let note =
            HeldNote { region: REGION, cache: "cache4-1".to_owned(), complete: true, added, removed: Vec::new() };
        ratings.note_held(note).await;
        ratings.count(batch(2, &["c1/b", "c1/c"])).await.unwrap();
        check(&ratings, "cache4-1", false, "c1/b", "c1/a");
        check(&ratings, "cache4-1", true, "c1/b", "c1/a c1/c");
        check(&ratings, "cache4-1", false, "c1/b", "c1/a c1/c");
    }

    #[tokio::test]
    async fn a_cache_without_a_bit_is_told_the_same() {
        let ratings = embedded();
        ratings.count(batch(1, &["c1/a", "c1/b", "c1/c"])).await.unwrap();
        check(&ratings, "cache4-99", false, "c1/b", "c1/a c1/c");
    }

    #[test]
    fn names_are_noted_again_after_a_while() {
        let noted = Noted { started: Instant::now(), at_ms: Mutex::default() };
        for (cache, now_ms, due) in [
            ("cache4-1", 7, true),
            ("cache4-1", 6 + NOTED_AGAIN_MS, false),
            ("cache4-1", 7 + NOTED_AGAIN_MS, true),
            ("cache4-1", 8 + NOTED_AGAIN_MS, false),
            ("cache4-2", 8 + NOTED_AGAIN_MS, true),
            ("cache4-2", 9 + NOTED_AGAIN_MS, false),
        ] {
            assert_eq!(noted.due_at(REGION, cache, now_ms), due, "{cache} {now_ms}");
        }
    }

    #[track_caller]
    fn check(ratings: &Embedded, cache: &str, note_again: bool, best: &str, held: &str) {
        let ask = Carry {
            region: REGION,
            cache: cache.to_owned(),
            exponent: 0.5,
            limit: 9,
            downloads_min: 0.0,
            accept: Arc::new(|file, rating| !HELD.contains(&file.name) && rating.hour > 0.0 && rating.days > 0.0),
            held: Arc::new(|| HELD.map(str::to_owned).to_vec()),
        };
        let carried = ratings.carried_now(&ask, note_again);
        let found: Vec<&str> = carried.best.iter().map(|ranked| &*ranked.name).collect();
        assert_eq!(found.join(" "), best);
        let mut found: Vec<&str> = carried.held.iter().map(|(name, _)| name.as_str()).collect();
        found.sort_unstable();
        assert_eq!(found.join(" "), held);
    }

    fn embedded() -> Embedded {
        let settings = Settings {
            decay: Decay::new(3600, 172_800, 0.25).unwrap(),
            pairs_max: 100,
            commit: Duration::ZERO,
            queue_bytes_max: 1 << 20,
            snapshot_every: Duration::from_secs(3600),
            snapshot_binlog_bytes: 1 << 30,
            copies_binlog_bytes: 0,
        };
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        Embedded::new(Arc::new(Engine::open(Arc::new(Simulated::default()), &settings, metrics).unwrap().0))
    }

    fn batch(sequence: u64, files: &[&str]) -> Batch {
        let entry = |file: &&str| Entry { region: REGION, file: (*file).into(), size: 1000, downloads: 1.0 };
        let mark = Mark { boot: 1, sequence };
        Batch { source: "sun4-1-1".to_owned(), mark, entries: files.iter().map(entry).collect() }
    }

    const REGION: RegionId = RegionId(4);
    const HELD: [&str; 2] = ["c1/a", "c1/c"];
}
