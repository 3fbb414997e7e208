//! Whether a content server may be asked for a file now, or another cache fetches it already.
//!
//! ```text
//!   prefill: peer caches do not have it
//!      begins?  --> popularity API --> nobody does:         ask the content server
//!                                      cache5-1 does:       wait; when it has the file it is a source
//!                                      no answer in time:   ask the content server
//!      failed   --> popularity API: the next one may
//! ```
//!
//! So one region's fetch feeds the others. That it succeeded is told with the holdings.

use geo::CanonicalName;
use geo::topology::Watched;
use popularity_api::Client;
use popularity_api::wire::{FetchNote, FetchState};

/// Asks for turns.
#[derive(Debug)]
pub struct Turns {
    api: Client,
    topology: Watched,
    cache: String,
}

impl Turns {
    /// Turns of the cache with this name.
    #[must_use]
    pub const fn new(api: Client, topology: Watched, cache: String) -> Self {
        Self { api, topology, cache }
    }

    /// The cache to wait for; none: the content server may be asked. Nobody waits for an API that is away.
    pub async fn begins(&self, name: &CanonicalName, size: u64) -> Option<String> {
        self.note(name, size, FetchState::Begins).await
    }

    /// The content server did not give the file.
    pub async fn failed(&self, name: &CanonicalName, size: u64) {
        self.note(name, size, FetchState::Failed).await;
    }

    async fn note(&self, name: &CanonicalName, size: u64, state: FetchState) -> Option<String> {
        let region = self.topology.borrow().cache(&self.cache).map(|cache| cache.server.region)?;
        let note = FetchNote { file: name.to_string(), size, state };
        match self.api.note_fetch(region, &self.cache, &note).await {
            Ok(answer) => answer.fetching.filter(|other| *other != self.cache),
            Err(error) => {
                tracing::debug!(%name, %error, "nobody says who else fetches it");
                None
            }
        }
    }
}
