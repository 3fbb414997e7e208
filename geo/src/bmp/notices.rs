//! What people should know of what a router says: counted always, logged once in each connection.

use crate::feed::{Event, FeedError, Ignored};

use super::Metrics;

/// What was logged in this connection.
#[derive(Debug, Default)]
pub(super) struct Notices {
    malformed: bool,
    add_path: bool,
    internal: bool,
    hello: bool,
    goodbye: bool,
}

impl Notices {
    /// A message could not be read.
    pub(super) fn malformed(&mut self, router: &str, error: &FeedError, metrics: &Metrics) {
        metrics.malformed(router);
        if first(&mut self.malformed) {
            tracing::warn!(%router, %error, "a BMP message is malformed and left out; further ones are only counted");
        }
    }

    /// Messages were read.
    pub(super) fn look(&mut self, router: &str, events: &[Event], metrics: &Metrics) {
        for event in events {
            match event {
                Event::Malformed { peer, what, offset, .. } => {
                    metrics.malformed(router);
                    if first(&mut self.malformed) {
                        tracing::warn!(%router, %peer, what, offset, "malformed attributes withdraw their routes; further ones are only counted");
                    }
                }
                Event::Up { peer, add_path, .. } if !add_path.is_empty() && first(&mut self.add_path) => {
                    tracing::warn!(%router, %peer, families = ?add_path, "routes of a session with add-path are left out, as are those of further such sessions");
                }
                Event::Initiation { name, description } if first(&mut self.hello) => {
                    tracing::info!(%router, name, description, "a router introduces itself");
                }
                Event::Termination { reason } if first(&mut self.goodbye) => {
                    tracing::warn!(%router, reason, "a router ends its connection");
                }
                Event::Ignored(what) => {
                    metrics.ignored(router, *what);
                    if *what == Ignored::Internal && first(&mut self.internal) {
                        tracing::info!(%router, "sessions within the router's own AS are left out: their routes were heard elsewhere");
                    }
                }
                _ => {}
            }
        }
    }
}

/// Whether it is the first time.
fn first(seen: &mut bool) -> bool {
    !std::mem::replace(seen, true)
}
