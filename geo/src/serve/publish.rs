//! The table as it is published: encoded and packed once for all who ask, and what changed since for those who have it. The
//! audit, too, is made once for all who ask at the same time.
//!
//! ```text
//!   GET /v1/table ----> kept one good enough? --yes--> its bytes, shared
//!                          | no
//!                          +--> encode, pack (off the async threads, one at a time) --> kept
//! ```
//!
//! A kept table is handed out while the log of changes reaches back to it: who takes it asks for the changes after it next,
//! and is where everybody is. So a table that changes all the time is encoded once in [`KEPT_FOR`], not once for each
//! follower that starts.

use std::io::Write;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio::sync::Mutex;

use super::Oracle;
use crate::answer::Answer;
use crate::wire::{CHANGES_MAX, Position};

/// What was handed out last.
#[derive(Debug, Default)]
pub(super) struct Publisher {
    table: Kept<Arc<Published>>,
    audit: Kept<Arc<Audited>>,
    /// What the last question for changes was answered: after a change, all followers ask the same.
    told: std::sync::Mutex<Option<Told>>,
}

/// An answer to a question for changes.
#[derive(Clone, Debug)]
pub(super) struct Told {
    after: Position,
    /// Where the table was.
    at: Position,
    /// Whether there are changes in it.
    pub(super) moved: bool,
    /// [`crate::wire::Changes`], as JSON.
    pub(super) body: Bytes,
}

/// A table, ready to be sent.
#[derive(Debug)]
pub(super) struct Published {
    /// What it is of.
    pub(super) position: Position,
    /// As it is.
    pub(super) plain: Bytes,
    /// Packed.
    pub(super) gzip: Bytes,
    made: Instant,
}

/// What an operator should look at.
#[derive(Debug)]
pub(super) struct Audited {
    pub(super) answer: Answer,
    made: Instant,
}

/// What is made for one caller and handed to those who come meanwhile and after. One at a time is made, also when callers
/// give up: the work has the lock, not who waits for it.
#[derive(Debug)]
struct Kept<T>(Arc<Mutex<Option<T>>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone + Send + 'static> Kept<T> {
    /// What `make` makes of the last one; off the async threads.
    async fn get(&self, make: impl FnOnce(Option<T>) -> Result<T, String> + Send + 'static) -> Result<T, String> {
        let mut kept = Arc::clone(&self.0).lock_owned().await;
        let work = move || {
            let made = make((*kept).clone())?;
            *kept = Some(made.clone());
            Ok(made)
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string()).flatten()
    }
}

impl Publisher {
    /// The table, at most [`KEPT_FOR`] behind.
    ///
    /// # Errors
    ///
    /// Why it cannot be encoded.
    pub(super) async fn table<O: Oracle>(&self, oracle: &Arc<O>) -> Result<Arc<Published>, String> {
        let oracle = Arc::clone(oracle);
        let good = move |published: &Published, oracle: &O| {
            good_enough(published, oracle.position(), |at| oracle.reaches(at), published.made.elapsed())
        };
        let make = move |before: Option<Arc<Published>>| match before {
            Some(published) if good(&published, &oracle) => Ok(published),
            _ => make(&*oracle).map(Arc::new),
        };
        self.table.get(make).await
    }

    /// The audit, at most [`KEPT_FOR`] old: it goes through the whole table.
    ///
    /// # Errors
    ///
    /// That it failed inside.
    pub(super) async fn audit<O: Oracle>(&self, oracle: &Arc<O>) -> Result<Arc<Audited>, String> {
        let oracle = Arc::clone(oracle);
        let make = move |before: Option<Arc<Audited>>| match before {
            Some(audited) if audited.made.elapsed() < KEPT_FOR => Ok(audited),
            _ => Ok(Arc::new(Audited { answer: oracle.audit(), made: Instant::now() })),
        };
        self.audit.get(make).await
    }

    /// What changed after a position; none when that is not known. Not from an async task.
    pub(super) fn changes<O: Oracle>(&self, oracle: &O, after: Position) -> Option<Told> {
        // Held while it is made: who comes meanwhile most likely wants the same.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let at = oracle.position();
        if let Some(told) = told.as_ref().filter(|told| (told.after, told.at) == (after, at)) {
            return Some(told.clone());
        }
        let changes = oracle.changes(after, CHANGES_MAX)?;
        let body = serde_json::to_vec(&changes).unwrap_or_default().into();
        let answer = Told { after, at, moved: changes.sequence > after.sequence, body };
        *told = Some(answer.clone());
        Some(answer)
    }
}

fn make<O: Oracle>(oracle: &O) -> Result<Published, String> {
    let made = Instant::now();
    let (position, plain) = oracle.encode();
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let packed = packer.write_all(&plain).and_then(|()| packer.finish()).map_err(|error| error.to_string())?;
    Ok(Published { position, plain: plain.into(), gzip: packed.into(), made })
}

/// Whether a table of some age may be handed out while the current one is at `now`.
fn good_enough(published: &Published, now: Position, reaches: impl FnOnce(Position) -> bool, age: Duration) -> bool {
    published.position == now
        || (published.position.epoch == now.epoch && age < KEPT_FOR && reaches(published.position))
}

/// How long a table, or an audit, may be behind. Shorter: a full one is encoded for nearly everybody who starts, which takes a core
/// for a third of a second. Longer: who starts fetches more changes after it.
const KEPT_FOR: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_kept_while_changes_reach_back_to_it() {
        check("7-3", "7-3", false, 3600, true);
        check("7-3", "7-4", true, 1, true);
        check("7-3", "7-4", true, 5, false);
        check("7-3", "7-4", false, 1, false);
        check("7-3", "8-3", true, 1, false);
    }

    #[track_caller]
    fn check(published: &str, now: &str, reaches: bool, age_s: u64, expected: bool) {
        let published = Published {
            position: published.parse().unwrap(),
            plain: Bytes::new(),
            gzip: Bytes::new(),
            made: Instant::now(),
        };
        let found = good_enough(&published, now.parse().unwrap(), |_| reaches, Duration::from_secs(age_s));
        assert_eq!(found, expected);
    }
}
