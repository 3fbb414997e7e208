//! The purges that this server goes by, in RAM and on disk.
//!
//! ```text
//!   DATA/purges, one line each (popularity_api::purge::lines):
//!     {"purge":{...}}       of the log, and for this region
//!     {"position":9}        the log has been followed up to here
//!     {"floor":9}           what was stored before 9 is gone: entries of the log were missed
//!     {"direct":{...}}      brought by an operator
//!     {"directfloor":9}     what was stored before the operator's purge 9 is gone: the file was made shorter
//! ```
//!
//! A rule is in force first and durable next, and acknowledged only then: a crash in between brings it once more.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use geo::{CanonicalName, ContentId, RegionId};
use popularity_api::purge::lines::Lines;
use popularity_api::purge::rules::RULES_MAX;
use popularity_api::purge::{Rules, Subject, Target, Verdict};
use popularity_api::wire::{DirectPurge, Purge, PurgeLog};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Mark;
use crate::fill::Fill;
use crate::meta::Meta;

/// See the module's doc. Shared by reference.
#[derive(Debug)]
pub struct Purges {
    log: Rules,
    direct: Rules,
    region: RegionId,
    path: PathBuf,
    writer: Mutex<Writer>,
    /// The log has been followed, durably, up to here.
    position: AtomicU64,
    news: watch::Sender<()>,
}

#[derive(Debug)]
struct Writer {
    lines: Lines,
    count: u64,
    /// Another process writes the file now.
    lent: bool,
    /// Numbers and ids of the last direct purges.
    recent: VecDeque<(u64, String)>,
}

/// A line of the file.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Purge(Purge),
    Position(u64),
    Floor(u64),
    Direct(DirectPurge),
    DirectFloor(u64),
}

/// Why a direct purge is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// 409: its number is not above the last one.
    #[error("number: {0} direct purges are known here; take a greater number")]
    Behind(u64),
    /// 400: its number is so far above the last one that a mistake is likelier.
    #[error("number: {0} direct purges are known here; take a number at most {LEAP_MAX} greater")]
    Far(u64),
    /// 400: it names nothing.
    #[error("{0}")]
    Bad(#[from] popularity_api::purge::target::BadPurge),
    /// 503: the disk refused it.
    #[error("the purge is in force and could not be made durable: {0}; send it again with a greater number")]
    Disk(#[from] io::Error),
}

impl Purges {
    /// Takes up what the file in `data` says. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn open(data: &Path, region: RegionId) -> io::Result<Self> {
        let path = data.join("purges");
        let (lines, found) = Lines::open::<Line>(&path)?;
        let writer = Writer { lines, count: found.lines.len() as u64, lent: false, recent: VecDeque::new() };
        let purges = Self {
            log: Rules::new(RULES_MAX),
            direct: Rules::new(RULES_MAX),
            region,
            path,
            writer: Mutex::new(writer),
            position: AtomicU64::new(0),
            news: watch::Sender::new(()),
        };
        {
            let mut writer = purges.writer();
            found.lines.iter().for_each(|line| purges.take(line, &mut writer));
            if found.damaged_before.is_some() {
                tracing::error!(file = %purges.path.display(), "purges were damaged on disk: everything held from before is dropped");
                purges.drop_all();
            }
        }
        Ok(purges)
    }

    /// What a fill that begins now remembers.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { log: self.log.latest(), direct: self.direct.latest() }
    }

    /// What becomes of something whose fill began at `mark`: two loads while nothing is newer.
    #[must_use]
    pub fn verdict(&self, subject: Subject<'_>, mark: Mark) -> Verdict {
        self.log.verdict(subject, mark.log).max(self.direct.verdict(subject, mark.direct))
    }

    /// What becomes of a version of a file that is held.
    #[must_use]
    pub fn of(&self, name: &CanonicalName, content: ContentId, meta: &Meta) -> Verdict {
        self.verdict(Subject { name: name.as_str(), content, tags: &meta.tags }, meta.mark)
    }

    /// The log has been followed up to here, durably.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    /// Rules kept.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.log.len() + self.direct.len()
    }

    /// Ticks when there are new rules.
    #[must_use]
    pub fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Whether a purge has overtaken the fill, so that nobody may join it any more. One that has not asked yet will
    /// ask after all purges there are.
    #[must_use]
    pub fn overtaken(&self, name: &CanonicalName, content: ContentId, fill: &Fill) -> bool {
        let Some(began) = fill.began() else { return false };
        if began == self.mark() {
            return false;
        }
        let subject = |tags| Subject { name: name.as_str(), content, tags };
        match fill.meta() {
            Some(meta) => self.verdict(subject(&meta.tags), meta.mark) != Verdict::Current,
            // Its tags are not known yet.
            None => {
                self.log.latest_tag() > began.log
                    || self.direct.latest_tag() > began.direct
                    || self.verdict(subject(&[]), began) != Verdict::Current
            }
        }
    }

    /// The generation of what was fetched after a hard purge differs from that of the same validator before it. The lowest
    /// bit stays what it is ([`crate::meta`]).
    pub(super) fn salted(&self, generation: u64, subject: Subject<'_>) -> u64 {
        let (log, direct) = (self.log.matching(subject).hard, self.direct.matching(subject).hard);
        if log == 0 && direct == 0 {
            return generation;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&log.to_le_bytes()).update(&direct.to_le_bytes());
        let bytes = hasher.finalize();
        let (salt, _) = bytes.as_bytes().split_first_chunk().expect("a digest has 32 bytes");
        generation ^ (u64::from_le_bytes(*salt) & !1)
    }

    /// Takes an answer of the log in. In force, and durable, when this returns. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// What the disk says: then the rules are in force, and the position is the old one.
    pub fn follow(&self, answer: &PurgeLog) -> io::Result<()> {
        let mut lines: Vec<Line> = answer.floor.map(Line::Floor).into_iter().collect();
        let mine = |purge: &&Purge| purge.region.is_none_or(|region| region == self.region);
        lines.extend(answer.purges.iter().filter(mine).cloned().map(Line::Purge));
        let last = answer.purges.last().map(|purge| purge.sequence).or(answer.floor);
        lines.extend(last.map(Line::Position));
        let Some(position) = last else { return Ok(()) };
        let mut writer = self.writer();
        lines.iter().for_each(|line| self.enforce(line, &mut writer));
        self.news.send_replace(());
        self.write(&mut writer, &lines)?;
        self.position.fetch_max(position, Ordering::AcqRel);
        Ok(())
    }

    /// Takes an operator's purge in. In force, and durable, when this returns. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn directly(&self, purge: DirectPurge) -> Result<Mark, Refused> {
        popularity_api::purge::target::check_id(&purge.id)?;
        let target = Target::parse(purge.what, &purge.value)?;
        let mut writer = self.writer();
        if writer.recent.iter().any(|(number, id)| (*number, id) == (purge.number, &purge.id)) {
            return Ok(self.mark());
        }
        let latest = self.direct.latest();
        if purge.number <= latest {
            return Err(Refused::Behind(latest));
        }
        if purge.number - latest > LEAP_MAX {
            return Err(Refused::Far(latest));
        }
        // Also when the disk refuses it: a purge is too late rather than too early.
        self.direct.apply(purge.number, &target, purge.mode);
        self.news.send_replace(());
        self.write(&mut writer, &[Line::Direct(purge.clone())])?;
        writer.remember(purge.number, purge.id);
        Ok(self.mark())
    }

    /// Another process is about to take the file over: from now on purges are in force here, and neither kept nor
    /// acknowledged.
    pub fn lend(&self) {
        self.writer().lent = true;
    }

    /// Whether another process has the file.
    #[must_use]
    pub fn lent(&self) -> bool {
        self.writer().lent
    }

    /// The other process failed, and has ended: what it wrote counts here too. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// What the operating system says; then it stays lent.
    pub fn take_back(&self) -> io::Result<()> {
        let mut writer = self.writer();
        let (lines, found) = Lines::open::<Line>(&self.path)?;
        found.lines.iter().for_each(|line| self.take(line, &mut writer));
        (writer.lines, writer.count, writer.lent) = (lines, found.lines.len() as u64, false);
        Ok(())
    }

    /// A line of the file.
    fn take(&self, line: &Line, writer: &mut Writer) {
        self.enforce(line, writer);
        if let Line::Position(position) = line {
            self.position.fetch_max(*position, Ordering::AcqRel);
        }
    }

    fn enforce(&self, line: &Line, writer: &mut Writer) {
        match line {
            Line::Position(position) => self.log.pass(*position),
            Line::Floor(floor) => self.log.raise_floor(*floor),
            Line::DirectFloor(floor) => self.direct.raise_floor(*floor),
            Line::Purge(purge) => match Target::parse(purge.what, &purge.value) {
                Ok(target) => self.log.apply(purge.sequence, &target, purge.mode),
                // The API checked it; a newer one may know better what a name is.
                Err(error) => {
                    tracing::error!(%error, sequence = purge.sequence, "a purge cannot be read: everything held from before it is dropped");
                    self.log.raise_floor(purge.sequence);
                }
            },
            Line::Direct(purge) => match Target::parse(purge.what, &purge.value) {
                Ok(target) => {
                    self.direct.apply(purge.number, &target, purge.mode);
                    writer.remember(purge.number, purge.id.clone());
                }
                Err(_) => self.direct.raise_floor(purge.number),
            },
        }
    }

    fn write(&self, writer: &mut Writer, lines: &[Line]) -> io::Result<()> {
        if writer.lent {
            return Err(io::Error::other("another process takes over from this one"));
        }
        writer.lines.append(lines)?;
        writer.count += lines.len() as u64;
        if writer.count > LINES_MAX || writer.lines.bytes() > FILE_BYTES_MAX {
            self.shorten(writer, FILE_BYTES_MAX / 2)?;
        }
        Ok(())
    }

    /// What is held counts as purged.
    fn drop_all(&self) {
        self.log.raise_floor(self.log.latest());
        self.direct.raise_floor(self.direct.latest());
    }

    /// Leaves out of the file what the rules no longer reach back to, and the oldest of what takes more than `room`
    /// bytes: rules do not reach back to that any more.
    fn shorten(&self, writer: &mut Writer, mut room: u64) -> io::Result<()> {
        let (mut file, found) = Lines::open::<Line>(&self.path)?;
        if found.damaged_before.is_some() {
            // The next start would not know of the rules that were damaged.
            tracing::error!(file = %self.path.display(), "purges were damaged on disk: everything held from before is dropped");
            self.drop_all();
        }
        for line in found.lines.iter().rev() {
            room = room.saturating_sub(line.bytes());
            match line {
                Line::Purge(purge) if room == 0 => self.log.raise_floor(purge.sequence),
                Line::Direct(purge) if room == 0 => self.direct.raise_floor(purge.number),
                _ => {}
            }
        }
        let (log, direct) = (self.log.floor(), self.direct.floor());
        let needed = |line: &Line| match line {
            Line::Purge(purge) => purge.sequence > log,
            Line::Direct(purge) => purge.number > direct,
            Line::Position(_) | Line::Floor(_) | Line::DirectFloor(_) => false,
        };
        let mut kept = vec![Line::Floor(log), Line::DirectFloor(direct)];
        kept.extend(found.lines.into_iter().filter(needed));
        kept.push(Line::Position(self.position()));
        file.replace(&kept)?;
        (writer.lines, writer.count) = (file, kept.len() as u64);
        Ok(())
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// About what it takes in the file.
    const fn bytes(&self) -> u64 {
        let texts = match self {
            Self::Purge(purge) => purge.value.len() + purge.id.len(),
            Self::Direct(purge) => purge.value.len() + purge.id.len(),
            Self::Position(_) | Self::Floor(_) | Self::DirectFloor(_) => return 40,
        };
        texts as u64 + 150
    }
}

impl Writer {
    fn remember(&mut self, number: u64, id: String) {
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((number, id));
    }
}

/// Lines of the file before it is shortened; twice what rules can need, about 100 MB.
const LINES_MAX: u64 = 4 * RULES_MAX;

/// The file before it is shortened, bytes; a start reads it whole. Less: what is held from before long purges is fetched once more.
/// More: RAM while a server starts.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// How far a direct purge's number may be above the last one: far more than a server can have missed, and so little
/// that numbers do not run out.
const LEAP_MAX: u64 = 1 << 32;

/// Direct purges that are recognised when they are sent again.
const RECENT_MAX: usize = 256;

#[cfg(test)]
mod tests;
