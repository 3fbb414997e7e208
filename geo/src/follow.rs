//! Following a geo server's table: the whole of it once, then what changes, with the last good copy on disk.
//!
//! ```text
//!   geo serve --table, changes--> follower --changes in place--> Table <--- Resolver
//!                                    |     --whole one: swapped--^
//!                                    +--> copy on disk, what a start begins with
//! ```
//!
//! [`course`] decides what is asked next; here it is asked, applied and kept.
//!
//! # Invariants
//!
//! - What runs is never worse than what ran before: a server that is away, or a table that does not decode, changes
//!   nothing.
//! - A start never waits long: with a copy it does not ask first, without one it asks once.
//! - The copy is a table that was in use, whole, or not there.

mod course;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::client::{Client, ClientError, Server, Since, TABLE_BYTES_MAX, Whole};
use crate::file;
use crate::table::{Content, Stamp, Table, Writer};
use crate::wire::{Change, Position};
use course::{Ask, Course, Heard, Then, WAIT};

/// Follows a server's table, which is changed in place, and swapped when a whole one comes. `copy` is the file of the last
/// good one. Until there is one, the table is empty: nothing is known of any address. The task ends when every receiver
/// is gone.
///
/// # Errors
///
/// When the address or the token cannot be used. A server that is away, or refuses, is none: it is asked again.
pub async fn follow(server: &Server, copy: Option<PathBuf>) -> Result<watch::Receiver<Arc<Table>>, ClientError> {
    let client = Client::new(server)?;
    let begun = tokio::task::spawn_blocking(move || Follower::start(copy)).await;
    let mut follower = begun.map_err(|error| ClientError::Config(format!("reading the copy: {error}")))?;
    if follower.course.at().is_none() {
        let asked = tokio::time::timeout(FIRST, client.table(None)).await;
        let asked = asked.unwrap_or_else(|_| Err(client.late(FIRST)));
        follower = follower.take(asked.map(Got::Whole)).await;
    }
    let (sender, receiver) = watch::channel(Arc::clone(follower.writer.table()));
    tokio::spawn(run(client, follower, sender));
    Ok(receiver)
}

/// Asks until nobody wants to know.
async fn run(client: Client, mut follower: Follower, sender: watch::Sender<Arc<Table>>) {
    loop {
        let (ask, pause) = follower.course.next();
        let step = async {
            tokio::time::sleep(pause).await;
            let asked = Instant::now();
            let got = match ask {
                Ask::Table(have) => client.table(have).await.map(Got::Whole),
                Ask::Changes(after) => client.changes(after, WAIT).await.map(|since| Got::Since(since, asked.elapsed())),
            };
            follower.take(got).await
        };
        follower = tokio::select! {
            follower = step => follower,
            () = sender.closed() => return,
        };
        let table = follower.writer.table();
        sender.send_if_modified(|shown| {
            // Without a position there is no table yet that could be better than the one that is shown.
            let swapped = follower.course.at().is_some() && !Arc::ptr_eq(shown, table);
            if swapped {
                *shown = Arc::clone(table);
            }
            swapped
        });
    }
}

/// An answer to either question.
enum Got {
    Whole(Whole),
    /// And how long the server took.
    Since(Since, Duration),
}

/// The table, where it is, and its copy.
#[derive(Debug)]
struct Follower {
    writer: Writer,
    stamp: Stamp,
    course: Course,
    copy: Option<Copy>,
    /// That the server cannot be followed was said.
    away: bool,
}

/// The file of the last good table.
#[derive(Debug)]
struct Copy {
    path: PathBuf,
    /// What it has.
    saved: Option<Position>,
    /// Before that it is not written again.
    rest_until: Option<Instant>,
    /// That it cannot be written was said.
    failed: bool,
}

impl Copy {
    const fn new(path: PathBuf) -> Self {
        Self { path, saved: None, rest_until: None, failed: false }
    }
}

impl Follower {
    /// Begins with the copy, or with nothing.
    fn start(copy: Option<PathBuf>) -> Self {
        let (mut writer, mut stamp, mut at) = (Writer::build(Content::default()), Stamp::default(), None);
        match copy.as_deref().map(read) {
            None | Some(Ok(None)) => {}
            Some(Ok(Some((read, of)))) => {
                at = Some(position(&of));
                (writer, stamp) = (read, of);
                tracing::info!(position = %position(&stamp), "the regions of clients are those of the last good table");
            }
            Some(Err(why)) => tracing::warn!(%why, "the last good table cannot be used"),
        }
        let copy = copy.map(|path| Copy { saved: at, ..Copy::new(path) });
        Self { writer, stamp, course: Course::from(at), copy, away: false }
    }

    /// Takes an answer; decoding, applying and saving are done off the async threads.
    async fn take(self, got: Result<Got, ClientError>) -> Self {
        let path = self.copy.as_ref().map(|copy| copy.path.clone());
        let taken = tokio::task::spawn_blocking(move || self.taken(got, Instant::now())).await;
        taken.unwrap_or_else(|error| {
            // A panic inside is a mistake of ours, and the writer is gone with it: from the beginning, without the copy,
            // which may have been the cause. Readers keep what they have until the next table.
            tracing::error!(%error, "the table's follower panicked; it begins anew");
            let mut fresh = Self::start(None);
            fresh.copy = path.map(Copy::new);
            fresh.course.heard(Heard::Failed);
            fresh
        })
    }

    fn taken(mut self, got: Result<Got, ClientError>, now: Instant) -> Self {
        let heard = match got {
            Ok(Got::Whole(Whole::Same)) => self.heard(Heard::Same),
            Ok(Got::Whole(Whole::New(bytes))) => self.whole(&bytes),
            Ok(Got::Since(Since::Gone, _)) => self.heard(Heard::Gone),
            Ok(Got::Since(Since::Changes(changes), took)) => match self.course.heard(Heard::Changes(&changes, took)) {
                Then::Go => Ok(()),
                Then::Apply => {
                    self.apply(&changes.changes, changes.sequence);
                    Ok(())
                }
                Then::Doubt => Err("its changes are not those of its table".to_owned()),
            },
            Err(error) => {
                self.course.heard(Heard::Failed);
                Err(error.to_string())
            }
        };
        match heard {
            Ok(()) if std::mem::take(&mut self.away) => tracing::info!("the geo server is followed again"),
            Ok(()) => {}
            Err(why) => {
                if !std::mem::replace(&mut self.away, true) {
                    tracing::warn!(%why, "the geo server cannot be followed; the table stays as it is");
                }
            }
        }
        self.save(now);
        self
    }

    fn heard(&mut self, heard: Heard<'_>) -> Result<(), String> {
        self.course.heard(heard);
        Ok(())
    }

    fn whole(&mut self, bytes: &[u8]) -> Result<(), String> {
        match Writer::decode(bytes) {
            Ok((writer, stamp)) => {
                tracing::info!(position = %position(&stamp), bytes = bytes.len(), "the table is the geo server's");
                self.course.heard(Heard::Table(position(&stamp)));
                (self.writer, self.stamp) = (writer, stamp);
                Ok(())
            }
            Err(error) => {
                self.course.heard(Heard::Failed);
                Err(format!("its table: {error}"))
            }
        }
    }

    fn apply(&mut self, changes: &[Change], sequence: u64) {
        for change in changes {
            match &change.leaf {
                Some(leaf) => self.writer.set(change.prefix, leaf),
                None => self.writer.remove(change.prefix),
            };
        }
        self.stamp.sequence = sequence;
        if self.writer.wants_rebuild() {
            self.writer = Writer::build(self.writer.content());
        }
    }

    /// Keeps a copy of a table that changed, unless the last one was written a moment ago.
    fn save(&mut self, now: Instant) {
        let (at, Some(copy)) = (self.course.at(), &mut self.copy) else { return };
        if at.is_none() || copy.saved == at || copy.rest_until.is_some_and(|until| now < until) {
            return;
        }
        let bytes = self.writer.encode(&self.stamp);
        copy.rest_until = Some(now + rest(bytes.len()));
        let made = copy.path.parent().map_or(Ok(()), std::fs::create_dir_all);
        match made.and_then(|()| file::write_atomically(&copy.path, &bytes)) {
            Ok(()) => {
                copy.saved = at;
                copy.failed = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut copy.failed, true) {
                    tracing::warn!(copy = %copy.path.display(), %error, "the table's copy cannot be kept");
                }
            }
        }
    }
}

fn position(stamp: &Stamp) -> Position {
    Position { epoch: stamp.epoch, sequence: stamp.sequence }
}

/// The copy; nothing when there is none.
fn read(path: &Path) -> Result<Option<(Writer, Stamp)>, String> {
    let bytes = match file::read_bounded(path, TABLE_BYTES_MAX as u64) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| format!("{}: {error}", path.display()))?,
    };
    Writer::decode(&bytes).map(Some).map_err(|error| format!("{}: {error}", path.display()))
}

/// How long a copy of so many bytes is good for: disks take [`COPY_BYTES_PER_S`] of it on average.
fn rest(bytes: usize) -> Duration {
    let seconds = u64::try_from(bytes).unwrap_or(u64::MAX) / COPY_BYTES_PER_S;
    Duration::from_secs(seconds.clamp(1, REST_MAX_S))
}

/// How long a start without a copy waits for the server's table. Shorter: clients are taken for those of the default
/// region for a moment. Longer: a start waits for a server that is away.
const FIRST: Duration = Duration::from_secs(5);

/// Of a disk's writing: 8.6 GB a day. Less: a start begins with an older table. More: it wears flash.
const COPY_BYTES_PER_S: u64 = 100_000;
const REST_MAX_S: u64 = 600;
