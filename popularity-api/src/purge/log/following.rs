//! The log as a replica keeps it: the other API's entries, under the other API's sequences.

use std::io;
use std::sync::PoisonError;

use super::{Line, Log};
use crate::wire::{Purge, PurgeLog};

impl Log {
    /// Takes over what the other API's log says follows [`Log::position`]; the entries that are new here. With a floor
    /// everything before is dropped. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// What the operating system says; nothing was taken over then.
    pub fn follow(&self, told: &PurgeLog) -> io::Result<Vec<Purge>> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let position = self.position();
        let behind = |purge: &&Purge| told.floor.is_some() || purge.sequence > position;
        let new: Vec<Purge> = told.purges.iter().filter(behind).cloned().collect();
        if new.is_empty() && told.floor.is_none() {
            return Ok(new);
        }
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        // What the file has can be gone on from: no entry is missing in between.
        let expected = kept.next..;
        let on =
            !file.behind && told.floor.is_none() && new.iter().map(|purge| purge.sequence).eq(expected.take(new.len()));
        if on {
            file.lines.append(&new.iter().cloned().map(Line::Purge).collect::<Vec<_>>())?;
            new.iter().for_each(|purge| kept.push(purge.clone()));
            if kept.shorten(self.kept_min, super::KEPT_BYTES_MAX) {
                file.lines.replace(kept.lines())?;
            }
            return Ok(new);
        }
        let mut changed = kept.clone();
        if let Some(floor) = told.floor {
            changed.forget();
            changed.next = floor.saturating_add(1);
        }
        new.iter().for_each(|purge| changed.push(purge.clone()));
        changed.shorten(self.kept_min, super::KEPT_BYTES_MAX);
        file.lines.replace(changed.lines())?;
        file.behind = false;
        *kept = changed;
        Ok(new)
    }

    /// What a replica that has this log goes by: the last entry, or the floor it was told.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.read().latest()
    }
}

#[cfg(test)]
mod tests {
    use super::super::KEPT;
    use super::*;
    use crate::wire::{PurgeMode, PurgeRequest, PurgeWhat};

    #[test]
    fn a_replica_has_the_same_entries_through_restarts_of_both() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        let first = |now_ms| Log::open(&path("first"), now_ms, KEPT).unwrap();
        let replica = || Log::open(&path("replica"), NOW + 1_000_000, KEPT).unwrap();
        let (mut log, mut copy) = (first(NOW), replica());
        for round in 0..6 {
            post(&log, round);
            if round % 2 == 0 {
                post(&log, round + 100);
            }
            let new = copy.follow(&log.after(copy.position()).unwrap()).unwrap();
            assert_eq!(new.len(), if round % 2 == 0 { 2 } else { 1 }, "round {round}");
            check(&copy, &log);
            assert_eq!(copy.follow(&log.after(0).unwrap()).unwrap(), [], "what is known is not new");
            if round > 0 {
                drop(copy);
                copy = replica();
                check(&copy, &log);
            }
            if round % 3 == 2 {
                drop(log);
                log = first(NOW + 5);
            }
        }
    }

    #[test]
    fn a_floor_drops_everything_before() {
        let place = tempfile::tempdir().unwrap();
        let copy = || Log::open(&place.path().join("replica"), NOW, KEPT).unwrap();
        let purge = |sequence| Purge {
            sequence,
            at_ms: 5,
            id: format!("id-{sequence}"),
            what: PurgeWhat::File,
            value: "c1/a".to_owned(),
            mode: PurgeMode::Hard,
            region: None,
        };
        let told = |floor, purges: &[u64]| PurgeLog {
            latest: 900,
            floor,
            purges: purges.iter().map(|&sequence| purge(sequence)).collect(),
        };
        copy().follow(&told(None, &[5, 6])).unwrap();
        let log = copy();
        assert_eq!(log.position(), 6);
        log.follow(&told(Some(50), &[])).unwrap();
        assert_eq!((log.position(), log.entry(6)), (50, None));
        log.follow(&told(None, &[51])).unwrap();
        assert_eq!((log.position(), copy().position()), (51, 51));
        log.follow(&told(Some(10), &[11])).unwrap();
        assert_eq!((log.position(), log.entry(51)), (11, None), "the other log was lost");
    }

    fn post(log: &Log, id: u64) {
        let request = PurgeRequest {
            id: format!("id-{id}"),
            what: PurgeWhat::File,
            value: "c1/a".to_owned(),
            mode: PurgeMode::Hard,
            region: None,
        };
        log.post(request, 5).unwrap();
    }

    #[track_caller]
    fn check(copy: &Log, log: &Log) {
        let entries = |log: &Log| {
            let mut entries = Vec::new();
            log.for_each(|purge| entries.push((purge.sequence, purge.id.clone())));
            entries
        };
        assert_eq!(entries(copy), entries(log));
        assert_eq!(copy.position(), log.latest());
    }

    const NOW: u64 = 1_700_000_000_000;
}
