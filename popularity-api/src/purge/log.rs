//! The log: gives sequences, keeps entries on disk and in RAM, answers followers.
//!
//! ```text
//!   DATA/purges:   {"begin":{"sequence":1732190000000,"whole":true}}     where the kept entries begin
//!                  {"purge":{"sequence":1732190000000,"id":...}}         and then one line each (lines.rs)
//!                  {"skip":{"sequence":1732190004097}}                   the next entry has this sequence: a restart
//! ```
//!
//! # A log that fell back
//!
//! A log whose last line was damaged, or that was restored from a backup, would give sequences again that followers
//! know as other purges, and they would never hear of the new ones. So a start leaves out [`RESTART_GAP`] sequences. A
//! follower whose position lies among them knows entries that this log has lost: it is told to drop what it holds.
//! Whoever is further ahead than that is refused ([`Ahead`]) until the log has passed it.
//!
//! No gap follows a gap, or an API that restarts again and again would use up the numbers that rules reach back. So
//! a backup that was taken between a restart and the next purge is not covered.
//!
//! # What is kept
//!
//! The last [`KEPT`] entries at least, at most twice as many or [`KEPT_BYTES_MAX`]: then the older half goes and the file is written anew.
//! Fewer make no sense and more neither: that is how far the servers' own rules reach back
//! ([`RULES_MAX`]), so a follower that is further behind would drop what it holds from before anyway. Told to do so is also who
//! followed a log that was lost, and who comes without a position while entries have been dropped.

mod following;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use super::lines::Lines;
use super::rules::RULES_MAX;
use crate::wire::{PURGES_PER_ANSWER_MAX, Purge, PurgeLog, PurgeRequest};

/// See the module's doc. Shared by reference.
#[derive(Debug)]
pub struct Log {
    file: Mutex<OnDisk>,
    kept: RwLock<Kept>,
    kept_min: usize,
}

/// The file, and whether it says all that is in RAM: not so when the disk was full at the start. It is written anew before
/// anything is appended then.
#[derive(Debug)]
struct OnDisk {
    lines: Lines,
    behind: bool,
}

/// Entries in RAM.
#[derive(Clone, Debug)]
struct Kept {
    entries: VecDeque<Purge>,
    /// Sequences of the entries, by id.
    ids: HashMap<String, u64>,
    /// Of the next entry.
    next: u64,
    /// No entry was ever dropped.
    whole: bool,
    /// What the entries take, bytes, as [`Purge::bytes`].
    bytes: usize,
}

/// A line of the file.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    /// Where the entries of the file begin.
    Begin {
        /// Sequence of the first one.
        sequence: u64,
        /// No earlier one was ever dropped.
        whole: bool,
    },
    /// An entry.
    Purge(Purge),
    /// Sequences are left out.
    Skip {
        /// Of the next entry.
        sequence: u64,
    },
}

/// Why an entry was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// 409: the id is that of another purge.
    #[error("id: {0:?} is that of another purge; choose another one")]
    Id(String),
    /// 503: the disk refused it; it does not count.
    #[error("the purge could not be made durable and does not count: {0}; send it again")]
    Disk(#[from] io::Error),
}

/// 409: the follower knows more than the log: it was lost, and the clock went back.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "after = {after} lies behind the log's end {latest}: the log was lost while the clock went back; set the clock right \
     and move the API's file of purges away"
)]
pub struct Ahead {
    /// What the follower said.
    pub after: u64,
    /// The log's last sequence.
    pub latest: u64,
}

impl Log {
    /// Opens the log's file; a new one begins at `now_ms`, milliseconds since 1970. `kept_min` as [`KEPT`].
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn open(path: &Path, now_ms: u64, kept_min: usize) -> io::Result<Self> {
        let (file, found) = Lines::open::<Line>(path)?;
        if found.torn_bytes > 0 {
            tracing::warn!(bytes = found.torn_bytes, "the end of the purge log was torn; nobody was told of it");
        }
        let kept = Kept::new(found.lines, found.damaged_before, now_ms);
        if !kept.whole && found.damaged_before.is_some() {
            tracing::error!(
                entries = kept.entries.len(),
                "the purge log is damaged; servers that are behind the damage drop what they hold"
            );
        }
        let (whole, torn) = (file.bytes() > 0 && found.damaged_before.is_none(), found.torn_bytes > 0);
        Ok(Self::begin(file, kept, (whole, torn), kept_min))
    }

    /// Goes on from what a file has. A disk that takes nothing stops no start: what was kept is followed all the same, and
    /// only new purges are refused until it takes something.
    fn begin(mut file: Lines, mut kept: Kept, (whole, torn): (bool, bool), kept_min: usize) -> Self {
        let skips = kept.gapless_end() && (!kept.entries.is_empty() || torn);
        if skips {
            kept.next += RESTART_GAP;
        }
        let written = if !whole {
            file.replace(kept.lines())
        } else if skips {
            file.append(&[Line::Skip { sequence: kept.next }])
        } else {
            Ok(())
        };
        if let Err(error) = &written {
            tracing::warn!(%error, "the purge log cannot be written: it is followed as it is, and purges are refused until it can");
        }
        let file = OnDisk { lines: file, behind: written.is_err() };
        Self { file: Mutex::new(file), kept: RwLock::new(kept), kept_min: kept_min.max(1) }
    }

    /// Appends a purge, durable when this returns; the sequence it had if its id was there before. Its value is
    /// [`Target::value`](super::Target::value). True: it is new. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// [`PostError`].
    pub fn post(&self, request: PurgeRequest, now_ms: u64) -> Result<(Purge, bool), PostError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let sequence = {
            let kept = self.read();
            if let Some(known) = kept.ids.get(&request.id).and_then(|sequence| kept.entry(*sequence)) {
                let same = (known.what, &known.value, known.mode, known.region)
                    == (request.what, &request.value, request.mode, request.region);
                return if same { Ok((known.clone(), false)) } else { Err(PostError::Id(request.id)) };
            }
            kept.next
        };
        let PurgeRequest { id, what, value, mode, region } = request;
        let purge = Purge { sequence, at_ms: now_ms, id, what, value, mode, region };
        if file.behind {
            let mut changed = self.read().clone();
            changed.push(purge.clone());
            file.lines.replace(changed.lines())?;
            file.behind = false;
        } else {
            file.lines.append(&[Line::Purge(purge.clone())])?;
        }
        let crowded = {
            let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
            kept.push(purge.clone());
            kept.shorten(self.kept_min, KEPT_BYTES_MAX)
        };
        if crowded {
            // Only this writer changes the entries, so they are what the file must have. Failing, the file is longer
            // than need be until the next time.
            if let Err(error) = file.lines.replace(self.read().lines()) {
                tracing::warn!(%error, "the purge log could not be made shorter");
            }
        }
        Ok((purge, true))
    }

    /// What a follower gets that goes by everything up to `after`; 0: it has no position.
    ///
    /// # Errors
    ///
    /// [`Ahead`].
    pub fn after(&self, after: u64) -> Result<PurgeLog, Ahead> {
        let kept = self.read();
        let latest = kept.latest();
        if after >= kept.next {
            return Err(Ahead { after, latest });
        }
        let first = kept.first();
        let missed = if after == 0 { !kept.whole } else { after + 1 < first };
        let floor = if missed { Some(first - 1) } else { kept.gap_around(after) };
        let mut bytes = 0;
        let in_room = |purge: &&Purge| {
            bytes += purge.bytes();
            bytes <= ANSWER_BYTES_MAX
        };
        let behind = kept.entries.iter().skip(kept.up_to(after)).take(PURGES_PER_ANSWER_MAX);
        let purges = behind.take_while(in_room).cloned().collect();
        Ok(PurgeLog { latest, floor, purges })
    }

    /// An entry that is kept.
    #[must_use]
    pub fn entry(&self, sequence: u64) -> Option<Purge> {
        self.read().entry(sequence).cloned()
    }

    /// The last sequence; 0 while there was none.
    #[must_use]
    pub fn latest(&self) -> u64 {
        self.read().latest()
    }

    /// Entries kept, oldest first.
    pub fn for_each(&self, each: impl FnMut(&Purge)) {
        self.read().entries.iter().for_each(each);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Kept> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn new(lines: Vec<Line>, damaged_before: Option<usize>, now_ms: u64) -> Self {
        let mut kept = Self {
            entries: VecDeque::new(),
            ids: HashMap::new(),
            next: now_ms.max(1),
            whole: lines.is_empty(),
            bytes: 0,
        };
        for (index, line) in lines.into_iter().enumerate() {
            if damaged_before == Some(index) {
                kept.forget();
            }
            match line {
                Line::Begin { sequence, whole } => {
                    (kept.next, kept.whole) = (sequence.max(1), whole);
                    kept.entries.clear();
                    kept.bytes = 0;
                }
                Line::Purge(purge) => {
                    if purge.sequence != kept.next {
                        kept.forget();
                    }
                    kept.push(purge);
                }
                Line::Skip { sequence } => kept.next = kept.next.max(sequence),
            }
        }
        if damaged_before.is_some() {
            kept.whole = false;
        }
        kept
    }

    /// What came before is not to be relied on.
    fn forget(&mut self) {
        self.entries.clear();
        self.ids.clear();
        (self.whole, self.bytes) = (false, 0);
    }

    fn push(&mut self, purge: Purge) {
        self.next = purge.sequence + 1;
        self.ids.insert(purge.id.clone(), purge.sequence);
        self.bytes += purge.bytes();
        self.entries.push_back(purge);
    }

    /// Drops the oldest when there are twice as many as are wanted, or when they take too much, and then until half of
    /// that is free. Never the last one. Whether there was need.
    fn shorten(&mut self, wanted: usize, bytes_max: usize) -> bool {
        let (many, large) = (self.entries.len() >= 2 * wanted, self.bytes > bytes_max);
        while (many && self.entries.len() > wanted) || (large && self.entries.len() > 1 && self.bytes > bytes_max / 2) {
            let Some(purge) = self.entries.pop_front() else { break };
            self.bytes -= purge.bytes();
            self.ids.remove(&purge.id);
            self.whole = false;
        }
        many || large
    }

    /// Sequence of the oldest entry, or of the next one.
    fn first(&self) -> u64 {
        self.entries.front().map_or(self.next, |purge| purge.sequence)
    }

    fn latest(&self) -> u64 {
        match self.entries.back() {
            Some(last) => last.sequence,
            None if self.whole => 0,
            None => self.next - 1,
        }
    }

    fn entry(&self, sequence: u64) -> Option<&Purge> {
        self.entries.get(self.up_to(sequence).checked_sub(1)?).filter(|purge| purge.sequence == sequence)
    }

    /// How many entries have a sequence up to this one.
    fn up_to(&self, sequence: u64) -> usize {
        self.entries.partition_point(|purge| purge.sequence <= sequence)
    }

    /// The last sequence of the gap that this one is in; who was told to go by that one is not in the gap any more.
    fn gap_around(&self, sequence: u64) -> Option<u64> {
        let before = self.up_to(sequence);
        let last = self.entries.get(before.checked_sub(1)?)?.sequence;
        let end = self.entries.get(before).map_or(self.next, |purge| purge.sequence) - 1;
        (last < sequence && sequence < end).then_some(end)
    }

    /// The next entry has the sequence after the last one.
    fn gapless_end(&self) -> bool {
        self.entries.back().is_none_or(|last| last.sequence + 1 == self.next)
    }

    fn lines(&self) -> impl Iterator<Item = Line> {
        let begin = Line::Begin { sequence: self.first(), whole: self.whole };
        let mut expected = self.first();
        let entries = self.entries.iter().flat_map(move |purge| {
            let sequence = purge.sequence;
            let skip = (sequence != expected).then_some(Line::Skip { sequence });
            expected = sequence + 1;
            skip.into_iter().chain([Line::Purge(purge.clone())])
        });
        let end = (!self.gapless_end()).then_some(Line::Skip { sequence: self.next });
        std::iter::once(begin).chain(entries).chain(end)
    }
}

/// Entries that are kept at least; see the module's doc.
#[expect(clippy::cast_possible_truncation, reason = "a quarter of a million")]
pub const KEPT: usize = RULES_MAX as usize;

impl Purge {
    /// What an entry takes, bytes, in RAM and in an answer: its texts and about 200 more.
    const fn bytes(&self) -> usize {
        // The id is in RAM twice.
        self.value.len() + 2 * self.id.len() + 200
    }
}

/// Entries that are kept, bytes: room for [`KEPT`] * 2 with values of 300 bytes. Less: followers that are behind drop what they hold
/// although nothing is amiss. More: RAM, and as much on disk.
const KEPT_BYTES_MAX: usize = 256 << 20;

/// Entries of one answer, bytes: what a follower reads within its time limit for a call, 2 s, also over a slow line. Less:
/// more round trips after an absence. More: a follower that is behind never catches up. Above the longest entry.
const ANSWER_BYTES_MAX: usize = 2 << 20;

/// Sequences that a start leaves out. Fewer: a log that fell back by more than that is not recognised once it has passed its
/// followers. More: fewer restarts fit into what rules reach back ([`RULES_MAX`] / 4096 = 64 with purges in between), and
/// what was stored before is fetched once more.
const RESTART_GAP: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{PurgeMode, PurgeWhat};

    const NOW: u64 = 1_700_000_000_000;

    #[test]
    fn sequences_begin_with_the_clock_and_rise_across_restarts() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("purges");
        for restart in 0..3 {
            let log = Log::open(&path, NOW + 1000 * restart, KEPT).unwrap();
            let sequence = NOW + restart * (RESTART_GAP + 1);
            assert_eq!(log.post(request(&format!("id-{restart}")), 5).unwrap().0.sequence, sequence);
            assert_eq!(log.entry(sequence).unwrap().id, format!("id-{restart}"));
            assert_eq!(log.latest(), sequence);
        }
        check(&Log::open(&path, NOW, KEPT).unwrap(), 0, "+0 +4097 +8194");
    }

    #[test]
    fn a_log_with_a_torn_end_on_a_full_disk_is_followed_and_goes_on_when_there_is_room() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("purges");
        let log = Log::open(&path, NOW, KEPT).unwrap();
        ["a", "b"].iter().for_each(|id| drop(log.post(request(id), 5).unwrap()));
        drop(log);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        // Neither more of the file nor a new one beside it is taken.
        let full = path.with_extension("unfinished");
        std::fs::create_dir(&full).unwrap();
        let (mut file, found) = Lines::open::<Line>(&path).unwrap();
        file.jam();
        let log = Log::begin(file, Kept::new(found.lines, None, NOW), (true, true), KEPT);
        check(&log, 0, "+0");
        assert!(matches!(log.post(request("c"), 5), Err(PostError::Disk(_))));
        check(&log, 0, "+0");
        std::fs::remove_dir(&full).unwrap();
        assert_eq!(log.post(request("c"), 5).unwrap().0.sequence, NOW + 1 + RESTART_GAP);
        log.post(request("d"), 5).unwrap();
        drop(log);
        check(&Log::open(&path, NOW, KEPT).unwrap(), 0, "+0 +4097 +4098");
    }

    #[test]
    fn who_knows_entries_that_the_log_has_lost_drops_what_it_holds() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("purges");
        let open = || Log::open(&path, NOW, 4).unwrap();
        (0..2).for_each(|number| drop(open().post(request(&format!("id-{number}")), 5).unwrap()));
        let backup = std::fs::read(&path).unwrap();
        let log = open();
        ["b", "c", "d"].iter().for_each(|id| drop(log.post(request(id), 5).unwrap()));
        check(&log, NOW + 4097, "+8194 +8195 +8196");
        check(&log, NOW + 8195, "+8196");
        std::fs::write(&path, &backup[..backup.len() - 1]).unwrap(); // And its last line is torn.
        let log = open();
        check(&log, NOW, "");
        check(&log, NOW + 1, "floor +4096");
        check(&log, NOW + 4096, "");
        assert!(log.after(NOW + 4097).is_err());
        std::fs::write(&path, &backup).unwrap();
        for _ in 0..3 {
            let log = open();
            assert_eq!(log.latest(), NOW + 4097, "a follower from before reaches it");
            check(&log, NOW + 4097, "");
            check(&log, NOW + 4098, "floor +8193");
            check(&log, NOW + 8192, "floor +8193");
            check(&log, NOW + 8193, "");
        }
        let log = open();
        ["e", "f"].iter().for_each(|id| drop(log.post(request(id), 5).unwrap()));
        for log in [log, open()] {
            check(&log, NOW + 4097, "+8194 +8195");
            check(&log, NOW + 4098, "floor +8193 +8194 +8195");
        }
    }

    #[test]
    fn long_entries_count_by_their_bytes() {
        let place = tempfile::tempdir().unwrap();
        let log = Log::open(&place.path().join("purges"), NOW, KEPT).unwrap();
        let mut kept = Kept::new(Vec::new(), None, NOW);
        for number in 0..600 {
            let long = PurgeRequest { value: format!("c1/{}", "x".repeat(4000)), ..request(&format!("id-{number}")) };
            kept.push(log.post(long, 5).unwrap().0);
        }
        let first = log.after(0).unwrap().purges;
        assert_eq!(first.len(), ANSWER_BYTES_MAX / first[10].bytes());
        let second = log.after(first.last().unwrap().sequence).unwrap().purges;
        assert_eq!((second[0].sequence, second.len()), (NOW + first.len() as u64, 600 - first.len()));
        assert!(!kept.shorten(KEPT, kept.bytes));
        assert!(kept.shorten(KEPT, kept.bytes - 1));
        assert_eq!((kept.entries.len(), kept.ids.len(), kept.whole), (299, 299, false));
        assert_eq!(kept.bytes, kept.entries.iter().map(Purge::bytes).sum::<usize>());
    }

    #[test]
    fn gaps_are_kept_when_the_file_is_made_shorter() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("purges");
        let post = |log: &Log, ids: std::ops::Range<u32>| {
            ids.for_each(|id| drop(log.post(request(&id.to_string()), 5).unwrap()));
        };
        post(&Log::open(&path, NOW, 4).unwrap(), 0..6);
        let log = Log::open(&path, NOW, 4).unwrap();
        post(&log, 6..8);
        for log in [log, Log::open(&path, NOW, 4).unwrap()] {
            check(&log, 0, "floor +3 +4 +5 +4102 +4103");
            check(&log, NOW + 4, "+5 +4102 +4103");
            check(&log, NOW + 6, "floor +4101 +4102 +4103");
        }
    }

    #[test]
    fn a_purge_that_is_sent_again_is_one_purge() {
        let place = tempfile::tempdir().unwrap();
        let log = Log::open(&place.path().join("purges"), NOW, KEPT).unwrap();
        let (first, new) = log.post(request("a"), 5).unwrap();
        assert!(new);
        assert_eq!(log.post(request("a"), 6).unwrap(), (first, false));
        let other = PurgeRequest { value: "c1/other".to_owned(), ..request("a") };
        assert!(matches!(log.post(other, 6), Err(PostError::Id(_))));
        check(&log, 0, "+0");
    }

    #[test]
    fn a_follower_gets_what_came_after_its_position() {
        let place = tempfile::tempdir().unwrap();
        let log = Log::open(&place.path().join("purges"), NOW, KEPT).unwrap();
        check(&log, 0, "");
        assert_eq!(log.latest(), 0);
        for id in ["a", "b", "c"] {
            log.post(request(id), 5).unwrap();
        }
        check(&log, 0, "+0 +1 +2");
        check(&log, NOW, "+1 +2");
        check(&log, NOW + 2, "");
        assert_eq!(log.after(NOW + 3), Err(Ahead { after: NOW + 3, latest: NOW + 2 }));
        assert_eq!(log.after(u64::MAX), Err(Ahead { after: u64::MAX, latest: NOW + 2 }));
    }

    #[test]
    fn who_followed_a_log_that_was_lost_drops_what_it_holds() {
        let place = tempfile::tempdir().unwrap();
        let log = Log::open(&place.path().join("purges"), NOW, KEPT).unwrap();
        check(&log, NOW - 1_000_000, "floor -1");
        check(&log, NOW - 1, "");
        log.post(request("a"), 5).unwrap();
        check(&log, NOW - 1_000_000, "floor -1 +0");
        check(&log, NOW - 1, "+0");
    }

    #[test]
    fn old_entries_are_dropped_and_who_missed_them_is_told() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("purges");
        let log = Log::open(&path, NOW, 4).unwrap();
        (0..8).for_each(|number| drop(log.post(request(&format!("id-{number}")), 5).unwrap()));
        for log in [log, Log::open(&path, NOW, 4).unwrap()] {
            check(&log, 0, "floor +3 +4 +5 +6 +7");
            check(&log, NOW + 2, "floor +3 +4 +5 +6 +7");
            check(&log, NOW + 3, "+4 +5 +6 +7");
        }
    }

    #[test]
    fn damage_costs_what_came_before_it() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("purges");
        let log = Log::open(&path, NOW, KEPT).unwrap();
        (0..3).for_each(|number| drop(log.post(request(&format!("id-{number}")), 5).unwrap()));
        let text = std::fs::read_to_string(&path).unwrap();
        for (damaged, expected) in [
            (text.replace("id-0", "id-9"), "floor +0 +1 +2"),
            (text.replace("id-1", "id-9"), "floor +1 +2"),
            (text.replace("begin", "bogus"), "floor -1 +0 +1 +2"),
            (text.replace("id-2", "id-9"), "+0 +1"),
        ] {
            std::fs::write(&path, damaged).unwrap();
            check(&Log::open(&path, NOW, KEPT).unwrap(), 0, expected);
            check(&Log::open(&path, NOW, KEPT).unwrap(), 0, expected);
        }
    }

    fn request(id: &str) -> PurgeRequest {
        PurgeRequest {
            id: id.to_owned(),
            what: PurgeWhat::File,
            value: "c1/a".to_owned(),
            mode: PurgeMode::Hard,
            region: None,
        }
    }

    /// "floor +3 +4 +5": relative to [`NOW`].
    #[track_caller]
    fn check(log: &Log, after: u64, expected: &str) {
        let answer = log.after(after).unwrap();
        let relative = |sequence: u64| format!("{:+}", sequence.wrapping_sub(NOW).cast_signed());
        let floor = answer.floor.map(|floor| format!("floor {}", relative(floor)));
        let entries = answer.purges.iter().map(|purge| relative(purge.sequence));
        assert_eq!(floor.into_iter().chain(entries).collect::<Vec<_>>().join(" "), expected);
    }
}
