//! What counts downloads and ranks files, whatever it runs on: the API asks this and nothing below it.
//!
//! ```text
//!   Api ---count, top, carried, note_held---> Ratings
//!                                               ^   ^
//!                     embedded.rs: the engine --'   '-- cluster: Redis or Valkey Cluster
//! ```
//!
//! # What every implementation keeps to
//!
//! - A batch for which [`Ratings::count`] said true is counted and durable; one that is sent again under its mark (source,
//!   boot, sequence) is counted once. After an error it may be counted or not: who sends it again finds out, and it is
//!   not counted twice.
//! - Files are ranked by the score of [`crate::engine::decay`], less `exponent * log2(size)` where a cache asks; of equal
//!   scores the name that comes first.

mod embedded;

use std::fmt::{self, Debug};
use std::pin::Pin;
use std::sync::Arc;

use geo::{ContentId, RegionId};

use crate::engine::CountError;
use crate::engine::batch::Batch;
use crate::engine::files::RatedFile;
pub use embedded::Embedded;

/// What an implementation takes its time for.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What counts downloads and ranks files: the embedded engine, or a Redis or Valkey Cluster.
pub trait Ratings: Debug + Send + Sync {
    /// Counts a batch and resolves when it is durable: true, or false when it had been counted before.
    ///
    /// # Errors
    ///
    /// [`CountError`]: send it again.
    fn count(&self, batch: Batch) -> Answer<'_, Result<bool, CountError>>;

    /// The best-rated files of a region, best first, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`AskError`].
    fn top(&self, region: RegionId, limit: usize) -> Answer<'_, Result<Vec<RankedFile>, AskError>>;

    /// What a cache is to carry, and what that which it holds is worth.
    ///
    /// # Errors
    ///
    /// [`AskError`].
    fn carried(&self, ask: Carry) -> Answer<'_, Result<Carried, AskError>>;

    /// Notes what a cache says it holds. It only makes [`Ratings::carried`] quick: what is held is what [`Carry`] says.
    fn note_held(&self, note: HeldNote) -> Answer<'_, ()>;

    /// Resolves when nothing is counted any more until a restart.
    fn failed(&self) -> Answer<'static, ()>;

    /// Makes everything durable that is not, and ends.
    fn close(&self) -> Answer<'_, ()>;
}

/// Whether a cache may carry a file with this rating. Asked file by file, best first.
pub type Accept = Arc<dyn Fn(&RatedFile<'_>, Decayed) -> bool + Send + Sync>;

/// Canonical names of all that a cache holds, told when they are needed.
pub type Names = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// What a cache is to carry is asked like this.
#[derive(Clone)]
pub struct Carry {
    /// Whose ratings count.
    pub region: RegionId,
    /// The cache.
    pub cache: String,
    /// Exponent of size in `rating / size^exponent`, 0..=1.
    pub exponent: f64,
    /// Candidates at most.
    pub limit: usize,
    /// `accept` takes no file with fewer downloads left of the long half-life; who knows that need not ask it.
    pub downloads_min: f64,
    /// Which files are candidates. It refuses all that the cache holds.
    pub accept: Accept,
    /// What the cache holds.
    pub held: Names,
}

impl Debug for Carry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { region, cache, exponent, limit, .. } = self;
        write!(out, "Carry({region}, {cache}, size^{exponent}, {limit})")
    }
}

/// Downloads that are left of a rating at the moment of the question.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decayed {
    /// With the short half-life.
    pub hour: f64,
    /// With the long one.
    pub days: f64,
}

/// A file and what ranks it.
#[derive(Clone, Debug, PartialEq)]
pub struct RankedFile {
    /// Canonical name.
    pub name: Box<str>,
    /// What placement and holdings go by.
    pub content: ContentId,
    /// Bytes, as last reported.
    pub size: u64,
    /// Its rating in the region asked about.
    pub rating: Decayed,
    /// What it was ranked by, `log2`; means nothing but its order.
    pub score: f64,
}

/// What a cache is to carry, and what it holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Carried {
    /// Accepted files, best first.
    pub best: Vec<RankedFile>,
    /// Files that it holds, with their score on the same scale, in no order; without those that are not rated.
    pub held: Vec<(String, f64)>,
}

/// What a cache says it holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeldNote {
    /// Its region.
    pub region: RegionId,
    /// The cache.
    pub cache: String,
    /// It holds nothing else.
    pub complete: bool,
    /// Canonical names of what it holds.
    pub added: Vec<String>,
    /// Canonical names of what it no longer has.
    pub removed: Vec<String>,
}

/// Why a question has no answer now: 503.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AskError {
    /// What ratings are kept in does not answer.
    #[error("the ratings cannot be asked now: {0}; ask again")]
    Away(String),
    /// It failed inside; the log says more.
    #[error("the call failed inside; see the log")]
    Failed,
}
