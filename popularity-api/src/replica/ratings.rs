//! The copy's ratings: an engine that is fed by the primary's frames, and what feeds it.
//!
//! ```text
//!   start:   DATA/ratings is a copy?  yes --> recover it --.
//!                                     none ----------------|--------.
//!                                                          v        v
//!              .------- frames from its end on ------> following   anew: a snapshot and the binlog after it into
//!              |                                           |         DATA/ratings.copy-next, checked, then in the place of DATA/ratings
//!              '--- trouble: again in a second, to 30 -----+           |
//!                                                          |           |
//!      fallen behind what is kept, another lineage,        '-----------'
//!      damaged twice at one offset, damaged here
//! ```
//!
//! While it begins anew the old ratings are still answered from, so for a moment the ratings take twice their RAM and
//! disk. They stay in their place until the new copy was read like a start reads it and nothing of it was damaged. One that
//! is damaged is left as it is until then: what is left of it is better than nothing to whoever makes it the primary.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use arc_swap::ArcSwapOption;
use daemon::drain::Drain;
use geo::RegionId;

use super::copying::{self, Avoided, CopyError};
use super::lag::Lag;
use crate::client::{Client, ClientError, Frames};
use crate::engine::batch::{Batch, Group};
use crate::engine::folder::Disk;
use crate::engine::lineage::Lineage;
use crate::engine::{self, CountError, Engine, FollowError};
use crate::ratings::{Answer, AskError, Carried, Carry, Embedded, HeldNote, RankedFile, Ratings};

/// Ratings that are copied: [`Ratings`] without counting. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Copy {
    current: Arc<ArcSwapOption<Current>>,
    /// Why there are none, while that is so.
    none: &'static str,
}

#[derive(Debug)]
struct Current {
    engine: Arc<Engine>,
    ratings: Embedded,
}

impl Copy {
    /// There are none; who asks is told why.
    #[must_use]
    pub fn empty(why: &'static str) -> Self {
        Self { current: Arc::default(), none: why }
    }

    fn set(&self, engine: Arc<Engine>) {
        let ratings = Embedded::new(Arc::clone(&engine));
        self.current.store(Some(Arc::new(Current { engine, ratings })));
    }

    fn ratings(&self) -> Result<Embedded, AskError> {
        let current = self.current.load();
        let current = current.as_ref().ok_or_else(|| AskError::Away(self.none.to_owned()))?;
        Ok(current.ratings.clone())
    }
}

impl Ratings for Copy {
    fn count(&self, _batch: Batch) -> Answer<'_, Result<bool, CountError>> {
        // The routes refuse it before.
        Box::pin(std::future::ready(Err(CountError::Closed)))
    }

    fn top(&self, region: RegionId, limit: usize) -> Answer<'_, Result<Vec<RankedFile>, AskError>> {
        Box::pin(async move { self.ratings()?.top(region, limit).await })
    }

    fn carried(&self, ask: Carry) -> Answer<'_, Result<Carried, AskError>> {
        Box::pin(async move { self.ratings()?.carried(ask).await })
    }

    fn note_held(&self, note: HeldNote) -> Answer<'_, ()> {
        Box::pin(async move {
            if let Ok(ratings) = self.ratings() {
                ratings.note_held(note).await;
            }
        })
    }

    fn failed(&self) -> Answer<'static, ()> {
        // Whoever follows notices, and says so.
        Box::pin(std::future::pending())
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            if let Ok(ratings) = self.ratings() {
                ratings.close().await;
            }
        })
    }
}

/// What feeds a [`Copy`].
pub struct Follower {
    /// The primary.
    pub client: Client,
    /// What is fed.
    pub copy: Copy,
    /// Folder of the copy; beside it the next one is made.
    pub folder: PathBuf,
    /// How its engine works.
    pub settings: engine::Settings,
    /// What the engine tells.
    pub engine_metrics: engine::Metrics,
    /// What the copy tells.
    pub metrics: super::Metrics,
    /// How far it is behind.
    pub lag: Arc<Mutex<Lag>>,
    /// The scale of `lag`.
    pub started: Instant,
    /// Called with every engine that takes over, and with what was counted.
    pub heard: Box<dyn Fn(News<'_>) + Send + Sync>,
}

/// What others are told of.
#[derive(Debug)]
pub enum News<'a> {
    /// Another engine has the ratings from now on.
    Engine(&'a Engine),
    /// These were counted.
    Counted(&'a [Group]),
}

/// Why following does not go on as it is.
#[derive(Debug)]
enum Trouble {
    /// It may be over when it is tried again.
    Again(String),
    /// Only a new copy helps.
    Anew(String),
    /// The engine has ended.
    Ended,
}

impl Follower {
    /// Takes up the copy that is in the folder, if there is one. Blocks.
    ///
    /// # Errors
    ///
    /// When the folder has ratings that are no copy, or the disk does not answer.
    pub fn recover(&self) -> anyhow::Result<()> {
        settle(&self.folder)?;
        let named = || self.folder.display().to_string();
        let folder = Disk::open(&self.folder).with_context(named)?;
        let names = engine::folder::Folder::list(&folder).with_context(named)?;
        let is_copy = Lineage::read(&folder).with_context(named)?.is_some_and(|lineage| lineage.is_copy());
        if !is_copy {
            let own = names.iter().any(|name| name.starts_with("binlog-") || name.starts_with("snapshot-"));
            anyhow::ensure!(
                !own,
                "{}: the folder has ratings that are no copy; move them away to follow, or start without [replica]",
                named()
            );
            return Ok(());
        }
        match Engine::open_copy(Arc::new(folder), &self.settings, self.engine_metrics.clone()) {
            Ok((engine, recovered)) => {
                tracing::info!(?recovered, lineage = %engine.feed().lineage(), "the copy of the ratings is recovered");
                self.take_over(engine);
            }
            Err(error) => tracing::warn!(%error, "the copy of the ratings cannot be read: a new one is made"),
        }
        Ok(())
    }

    /// Follows until the drain begins; false when the engine has ended before.
    pub async fn run(&self, drain: &Drain) -> bool {
        let (mut pause, mut anew, mut away) = (PAUSE_MIN, false, String::new());
        let mut compared = false;
        let mut avoided = Avoided::default();
        loop {
            let current = self.copy.current.load_full();
            let stepping = async {
                if !compared {
                    compared = self.compare().await;
                }
                match &current {
                    Some(current) if !anew => self.step(&current.engine, &mut avoided).await,
                    _ => self.begin(&mut avoided).await,
                }
            };
            let stepped = tokio::select! {
                stepped = stepping => stepped,
                () = drain.wait() => return true,
            };
            match stepped {
                Ok(()) => {
                    if !std::mem::take(&mut away).is_empty() {
                        tracing::info!("the ratings are followed again");
                    }
                    (pause, anew) = (PAUSE_MIN, false);
                    continue;
                }
                Err(Trouble::Again(why)) => {
                    // The primary may come back with another config.
                    compared = false;
                    // Once for each cause.
                    if away != why {
                        tracing::warn!(why, "the ratings cannot be followed; it is tried again until they can");
                        away = why;
                    }
                }
                Err(Trouble::Anew(why)) => {
                    tracing::warn!(why, "the copy of the ratings starts again from a snapshot");
                    anew = true;
                }
                Err(Trouble::Ended) => return false,
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = drain.wait() => return true,
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Says whether the primary keeps its ratings as they are kept here; false when it could not be asked.
    async fn compare(&self) -> bool {
        let Ok(there) = self.client.copies().await else { return false };
        let differences = there.settings.map(|primary| self.settings.told().differences(&primary)).unwrap_or_default();
        self.metrics.settings_differ.set(i64::from(!differences.is_empty()));
        if !differences.is_empty() {
            tracing::warn!(
                ?differences,
                "the primary keeps its ratings otherwise: the two rank files differently; make the configs alike and restart"
            );
        }
        true
    }

    /// Takes in what the primary has behind the copy's end.
    async fn step(&self, engine: &Engine, avoided: &mut Avoided) -> Result<(), Trouble> {
        let (feed, counted) = (engine.feed(), engine.table().time_ms());
        let position = feed.end();
        let Frames { bytes, end, time_ms } =
            self.client.binlog(feed.lineage().id(), position, WAIT).await.map_err(|error| trouble(&error))?;
        self.heard_of((end, time_ms), (position, counted));
        if bytes.is_empty() {
            return Ok(());
        }
        let groups = engine.follow(bytes).await.map_err(|error| match error {
            FollowError::Damaged(at) if avoided.stopped(feed.lineage().id(), at) => Trouble::Anew(error.to_string()),
            FollowError::Damaged(_) | FollowError::Count(CountError::Disk(_)) => Trouble::Again(error.to_string()),
            FollowError::Count(_) => Trouble::Ended,
        })?;
        avoided.went_on();
        (self.heard)(News::Counted(&groups));
        self.heard_of((end, time_ms), (feed.end(), engine.table().time_ms()));
        Ok(())
    }

    /// Makes a copy from the newest snapshot that is not avoided, and puts it in the place of the one that is there.
    async fn begin(&self, avoided: &mut Avoided) -> Result<(), Trouble> {
        let next = self.beside(NEXT);
        let made = remove(&next).and_then(|()| Ok(std::fs::create_dir_all(&next)?));
        made.map_err(|error| Trouble::Again(format!("{error:#}")))?;
        let copied = match copying::copy(&self.client, &next, avoided, |_| {}).await {
            Ok(copied) => copied,
            Err(error) => {
                // A part of a copy takes room that others may need.
                drop(remove(&next));
                if matches!(error, CopyError::Nothing(_)) {
                    avoided.forget_snapshots();
                }
                return Err(Trouble::Again(error.to_string()));
            }
        };
        tracing::info!(lineage = copied.lineage, start = copied.start, end = copied.end, "the ratings are copied");
        let opened = tokio::task::block_in_place(|| self.replace(&next, &copied.lineage));
        match opened {
            Ok(engine) => {
                *avoided = Avoided::default();
                self.metrics.restarts.inc();
                self.take_over(engine);
                Ok(())
            }
            Err(error) => {
                // The snapshot was damaged where it came from: another one may not be.
                avoided.snapshot(copied.start);
                Err(Trouble::Again(format!("the copy that was made cannot be read: {error:#}")))
            }
        }
    }

    /// Checks a new copy, puts it in its place and opens it. Blocks.
    fn replace(&self, next: &Path, lineage: &str) -> anyhow::Result<Engine> {
        let checked = Arc::new(Disk::open(next)?);
        let found = Engine::check(Arc::clone(&checked) as _, &self.settings)?;
        anyhow::ensure!(found.is_whole(), "it is not whole: {found:?}");
        // Only a copy that was checked has one, and takes the place after a crash.
        Lineage::follow(&*checked, lineage)?;
        drop(checked);
        if let Some(current) = self.copy.current.load_full() {
            // It is asked until the new one is there, and writes no more.
            current.engine.close();
        }
        let old = self.beside(OLD);
        remove(&old)?;
        if self.folder.exists() {
            std::fs::rename(&self.folder, &old)?;
        }
        std::fs::rename(next, &self.folder)?;
        let folder = Arc::new(Disk::open(&self.folder)?);
        let (engine, _) = Engine::open_copy(folder, &self.settings, self.engine_metrics.clone())?;
        remove(&old)?;
        Ok(engine)
    }

    fn take_over(&self, engine: Engine) {
        (self.heard)(News::Engine(&engine));
        self.copy.set(Arc::new(engine));
    }

    fn heard_of(&self, primary: (u64, u64), here: (u64, u64)) {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.lag.lock().unwrap_or_else(PoisonError::into_inner).heard(now_ms, primary, here);
    }

    /// `DATA/ratings.what`.
    fn beside(&self, what: &str) -> PathBuf {
        beside(&self.folder, what)
    }
}

/// `DATA/ratings.what`.
fn beside(folder: &Path, what: &str) -> PathBuf {
    folder.with_extension(what)
}

/// Ends what an earlier run had begun: a new copy that was whole when its place was already free is put there. Ratings that
/// are no copy are left where they are. Blocks.
///
/// # Errors
///
/// What the operating system says.
pub fn settle(folder: &Path) -> anyhow::Result<()> {
    let (next, old) = (beside(folder, NEXT), beside(folder, OLD));
    if !folder.exists() && next.join(engine::lineage::FILE).exists() {
        std::fs::rename(&next, folder).with_context(|| next.display().to_string())?;
    }
    for left in [next, old] {
        let folder = left.display().to_string();
        if is_own(&left)? {
            tracing::warn!(folder, "ratings that are no copy are in the way of copies; they are left as they are");
        } else if left.exists() {
            tracing::info!(folder, "what is left of an earlier copy is removed");
            remove(&left)?;
        }
    }
    Ok(())
}

/// Whether batches were counted there.
fn is_own(folder: &Path) -> anyhow::Result<bool> {
    let file = folder.join(engine::lineage::FILE);
    match std::fs::read(&file) {
        Ok(bytes) => Ok(Lineage::from_bytes(&bytes).is_some_and(|lineage| !lineage.is_copy())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| file.display().to_string()),
    }
}

/// What an error of the primary means.
fn trouble(error: &ClientError) -> Trouble {
    if error.is_gone() { Trouble::Anew(error.to_string()) } else { Trouble::Again(error.to_string()) }
}

/// Removes a folder of copies, if it is there.
fn remove(folder: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(!is_own(folder)?, "{}: there are ratings that are no copy; move them away", folder.display());
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| folder.display().to_string())
        }
        _ => Ok(()),
    }
}

/// How long the primary may wait for the next frame: also how coarse the lag in seconds is while nothing comes.
const WAIT: Duration = Duration::from_secs(1);
/// Between two tries.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// What a copy is called while it is made. Nobody who moves ratings away picks such a name.
const NEXT: &str = "copy-next";
/// What the one before is called while a new copy takes its place.
const OLD: &str = "copy-old";

#[cfg(test)]
mod tests;
