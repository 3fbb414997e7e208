//! Which member is asked next and when, and what of what it says is news. Pure.

use std::time::Duration;

use super::News;
use crate::etcd::Document;

/// How far a cluster was followed.
#[derive(Clone, Debug)]
pub(super) struct Course {
    members: usize,
    member: usize,
    /// Failures on end.
    failures: u32,
    /// The revision that was told last, as long as there was a key; none before.
    told: Option<u64>,
    /// The last word was that it cannot be read.
    away: bool,
}

impl Course {
    /// Of so many members, beginning with one of them.
    pub(super) const fn new(members: usize, first: usize) -> Self {
        Self { members, member: first, failures: 0, told: None, away: false }
    }

    /// Whom to ask.
    pub(super) const fn member(&self) -> usize {
        self.member
    }

    /// How long to wait before: not at all until every member failed, then longer each round.
    pub(super) fn pause(&self) -> Duration {
        let rounds = self.failures / u32::try_from(self.members).unwrap_or(u32::MAX).max(1);
        match rounds {
            0 => Duration::ZERO,
            rounds => (PAUSE * 2_u32.saturating_pow(rounds - 1)).min(PAUSE_MAX),
        }
    }

    /// Whether this is what was told last.
    pub(super) fn is_at(&self, document: Option<&Document>) -> bool {
        document.map(|document| document.revision) == self.told
    }

    /// There is this under the key.
    pub(super) fn found(&mut self, document: Option<Document>, key: &str) -> News {
        self.failures = 0;
        let Some(Document { revision, bytes }) = document else {
            (self.away, self.told) = (true, None);
            return News::Away(format!("there is no key {key}"));
        };
        let away = std::mem::take(&mut self.away);
        if self.told.replace(revision) != Some(revision) {
            return News::Document { bytes, revision: Some(revision) };
        }
        if away { News::Back } else { News::Same }
    }

    /// The member did not answer, or refused; while another one may answer, nobody is alarmed.
    pub(super) fn failed(&mut self, why: String) -> Option<News> {
        self.failures = self.failures.saturating_add(1);
        self.member = (self.member + 1) % self.members;
        self.away |= self.failures as usize >= self.members;
        self.away.then_some(News::Away(why))
    }

    /// The watch ended, at a member that answers: who has no leader is left.
    pub(super) fn ended(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.member = (self.member + 1) % self.members;
    }
}

const PAUSE: Duration = Duration::from_millis(200);
/// A cluster that is back is noticed as soon; a thousand daemons that ask so often are no load.
const PAUSE_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_is_asked_at_once_and_then_with_growing_pauses() {
        let mut course = Course::new(3, 1);
        let mut seen = Vec::new();
        for _ in 0..20 {
            seen.push((course.member(), course.pause().as_millis()));
            course.failed("away".into());
        }
        assert_eq!(seen[..7], [(1, 0), (2, 0), (0, 0), (1, 200), (2, 200), (0, 200), (1, 400)]);
        assert_eq!(seen[19], (2, 2000));
        course.found(Some(document(5)), "/k");
        assert_eq!(course.pause(), Duration::ZERO);
    }

    #[test]
    fn one_member_that_fails_alarms_nobody() {
        let mut course = Course::new(2, 0);
        course.found(Some(document(5)), "/k");
        assert_eq!(course.failed("first".into()), None);
        assert_eq!(course.found(Some(document(5)), "/k"), News::Same);
        assert_eq!(course.failed("second".into()), None);
        assert_eq!(course.failed("first".into()), Some(News::Away("first".into())));
        assert_eq!(course.failed("second".into()), Some(News::Away("second".into())));
        assert_eq!(course.found(Some(document(5)), "/k"), News::Back);
        assert_eq!(course.found(Some(document(6)), "/k"), News::Document { bytes: b"6".to_vec(), revision: Some(6) });
    }

    #[test]
    fn a_document_is_told_once_a_revision_also_one_that_went_backwards() {
        let mut course = Course::new(1, 0);
        let told = |news| matches!(news, News::Document { .. });
        for (revision, news) in [(5, true), (5, false), (7, true), (7, false), (3, true)] {
            assert_eq!(told(course.found(Some(document(revision)), "/k")), news, "{revision}");
        }
        assert_eq!(course.found(None, "/k"), News::Away("there is no key /k".into()));
        assert!(course.is_at(None));
        assert!(told(course.found(Some(document(9)), "/k")));
        assert!(course.is_at(Some(&document(9))) && !course.is_at(Some(&document(10))) && !course.is_at(None));
    }

    #[test]
    fn a_watch_that_ends_is_begun_elsewhere_and_not_for_ever_at_once() {
        let mut course = Course::new(2, 0);
        course.found(Some(document(5)), "/k");
        course.ended();
        assert_eq!((course.member(), course.pause()), (1, Duration::ZERO));
        course.ended();
        assert_eq!((course.member(), course.pause()), (0, PAUSE));
    }

    fn document(revision: u64) -> Document {
        Document { revision, bytes: revision.to_string().into_bytes() }
    }
}
