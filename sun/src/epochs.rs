//! When files were last changed through this server: what was asked for before that is not kept afterwards.
//!
//! A fill notes the epoch of its file when it begins, and compares before it keeps anything. Files share epochs by
//! their id: a neighbour's change costs one file its place in the tiers, once.

use std::sync::atomic::{AtomicU64, Ordering};

use geo::ContentId;

/// See the module's doc.
#[derive(Debug)]
pub struct Epochs(Box<[AtomicU64]>);

impl Default for Epochs {
    fn default() -> Self {
        Self((0..EPOCHS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Epochs {
    /// The epoch of a file.
    #[must_use]
    pub fn of(&self, content: ContentId) -> u64 {
        self.slot(content).load(Ordering::Acquire)
    }

    /// The file changes.
    pub fn raise(&self, content: ContentId) {
        self.slot(content).fetch_add(1, Ordering::AcqRel);
    }

    fn slot(&self, content: ContentId) -> &AtomicU64 {
        &self.0[usize::try_from(content.prefix() % EPOCHS).expect("below EPOCHS")]
    }
}

/// Epochs kept: 32 KiB of them.
const EPOCHS: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_by_whoever_looked_before_it() {
        let epochs = Epochs::default();
        let file = |name: &str| geo::CanonicalName::parse(name).unwrap().content_id();
        let (before, other) = (epochs.of(file("c1/a")), epochs.of(file("c1/b")));
        epochs.raise(file("c1/a"));
        assert_ne!(epochs.of(file("c1/a")), before);
        assert_eq!(epochs.of(file("c1/b")), other);
    }
}
