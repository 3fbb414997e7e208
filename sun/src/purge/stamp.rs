//! What a source answered gets the mark of the fill that asked, and its tags.
//!
//! A version that was fetched after a hard purge has another generation than before it, and an answer from before a
//! purge that this server goes by is of no use.

use std::sync::Arc;

use geo::{CanonicalName, ContentId};
use http::HeaderMap;
use popularity_api::purge::{Subject, Verdict};

use super::headers::Told;
use super::{Mark, Purges};
use crate::fill::Fill;
use crate::fill::answer::Answer;
use crate::fill::plan::Plan;
use crate::meta::Meta;

/// For one answer to one fill.
#[derive(Debug)]
pub struct Stamp<'a> {
    purges: &'a Purges,
    name: &'a CanonicalName,
    content: ContentId,
    /// The fill goes on with a version that has its mark already.
    continues: bool,
    began: Mark,
    mark: Mark,
    tags: Box<[u64]>,
}

impl<'a> Stamp<'a> {
    /// For what `response` brings of the file; `ours`: the source is a server of ours, whose word on marks counts.
    #[must_use]
    pub fn new(
        purges: &'a Purges,
        fill: &Fill,
        (name, content): (&'a CanonicalName, ContentId),
        response: &HeaderMap,
        ours: bool,
    ) -> Self {
        let mut began = fill.began().unwrap_or_default();
        if let Plan::Complete { meta, .. } = &fill.plan {
            // Some of it was here before.
            began = began.min(meta.mark);
        }
        let told = Told::of(response, ours);
        let mark = told.mark.map_or(began, |told| told.min(began));
        Self { purges, name, content, continues: fill.plan.version().is_some(), began, mark, tags: told.tags }
    }

    /// A version that this answer brings.
    #[must_use]
    pub fn version(&self, meta: &Arc<Meta>) -> Arc<Meta> {
        if self.continues {
            return Arc::clone(meta);
        }
        let generation = self.purges.salted(meta.generation, self.subject());
        Arc::new(Meta { mark: self.mark, tags: self.tags.clone(), generation, ..(**meta).clone() })
    }

    /// The answer.
    #[must_use]
    pub fn answer(&self, answer: Answer) -> Answer {
        match answer {
            Answer::Bytes { .. } | Answer::Sized(_) | Answer::Unchanged(_) if self.outdated() => {
                Answer::Useless("what it holds is from before a purge".to_owned())
            }
            Answer::Bytes { meta, range } => Answer::Bytes { meta: self.version(&meta), range },
            Answer::Sized(meta) => Answer::Sized(self.version(&meta)),
            // Purged while it was asked about: that it is unchanged is no news of the time after the purge.
            Answer::Unchanged(meta) if self.purges.of(self.name, self.content, &meta) == Verdict::Gone => {
                Answer::Unchanged(meta)
            }
            Answer::Unchanged(meta) => {
                let tags = if self.tags.is_empty() { meta.tags.clone() } else { self.tags.clone() };
                Answer::Unchanged(Arc::new(Meta { mark: self.mark, tags, ..(*meta).clone() }))
            }
            answer => answer,
        }
    }

    fn outdated(&self) -> bool {
        !self.continues && self.mark != self.began && self.purges.verdict(self.subject(), self.mark) != Verdict::Current
    }

    fn subject(&self) -> Subject<'_> {
        Subject { name: self.name.as_str(), content: self.content, tags: &self.tags }
    }
}
