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
//! - The copy is a table that was in use, whole, or not there. Neither readers nor the next question wait for the disk.

mod copy;
mod course;
mod metrics;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use crate::client::{Client, ClientError, Server, Since, TABLE_BYTES_MAX, Whole};
use crate::file;
use crate::table::{Content, Stamp, Table, Writer};
use crate::wire::{Change, Position};
pub use metrics::Metrics;

use copy::{Copy, Disk};
use course::{Ask, Course, Heard, Then, WAIT};

/// Follows a server's table, which is changed in place, and swapped when a whole one comes. `copy` is the file of the last
/// good one. Until there is one, the table is empty: nothing is known of any address. The task ends when every receiver
/// is gone.
///
/// # Errors
///
/// When the address or the token cannot be used. A server that is away, or refuses, is none: it is asked again.
pub async fn follow(
    server: &Server,
    copy: Option<PathBuf>,
    metrics: Metrics,
) -> Result<watch::Receiver<Arc<Table>>, ClientError> {
    follow_onto(server, copy, copy::disk(), metrics).await
}

/// With this disk for the copy.
async fn follow_onto(
    server: &Server,
    copy: Option<PathBuf>,
    disk: Disk,
    metrics: Metrics,
) -> Result<watch::Receiver<Arc<Table>>, ClientError> {
    let client = Client::new(server)?;
    let path = copy.clone();
    let begun = tokio::task::spawn_blocking(move || Follower::start(path.as_deref())).await;
    let mut follower = begun.map_err(|error| ClientError::Config(format!("reading the copy: {error}")))?;
    let copy = copy.map(|path| Copy::new(path, disk, follower.course.at()));
    if follower.course.at().is_none() {
        let asked = tokio::time::timeout(FIRST, client.table(None)).await;
        let asked = asked.unwrap_or_else(|_| Err(client.late(FIRST)));
        follower = follower.take(asked.map(Got::Whole)).await;
    }
    metrics.tell(&follower, SystemTime::now());
    let (sender, receiver) = watch::channel(Arc::clone(follower.writer.table()));
    tokio::spawn(run(client, follower, copy, sender, metrics));
    Ok(receiver)
}

/// Asks until nobody wants to know.
async fn run(
    client: Client,
    mut follower: Follower,
    mut copy: Option<Copy>,
    sender: watch::Sender<Arc<Table>>,
    metrics: Metrics,
) {
    loop {
        if let Some(copy) = &mut copy {
            follower = follower.keep(copy).await;
        }
        let (ask, pause) = follower.course.next();
        let step = async {
            tokio::time::sleep(pause).await;
            let asked = Instant::now();
            let got = match ask {
                Ask::Table(have) => client.table(have).await.map(Got::Whole),
                Ask::Changes(after) => {
                    client.changes(after, WAIT).await.map(|since| Got::Since(since, asked.elapsed()))
                }
            };
            follower.take(got).await
        };
        follower = tokio::select! {
            follower = step => follower,
            () = sender.closed() => return,
        };
        metrics.tell(&follower, SystemTime::now());
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

/// The table, and where it is.
#[derive(Debug)]
struct Follower {
    writer: Writer,
    stamp: Stamp,
    course: Course,
    /// The server's last answer could not be used, or there was none; that was said.
    away: bool,
    /// Answers that could be used.
    heard: u64,
}

impl Follower {
    /// Begins with the copy, or with nothing.
    fn start(copy: Option<&Path>) -> Self {
        let (mut writer, mut stamp, mut at) = (Writer::build(Content::default()), Stamp::default(), None);
        if let Some(copy) = copy {
            file::remove_temporaries(copy);
        }
        match copy.map(read) {
            None | Some(Ok(None)) => {}
            Some(Ok(Some((read, of)))) => {
                at = Some(position(&of));
                (writer, stamp) = (read, of);
                tracing::info!(position = %position(&stamp), "the regions of clients are those of the last good table");
            }
            Some(Err(why)) => tracing::warn!(%why, "the last good table cannot be used"),
        }
        Self { writer, stamp, course: Course::from(at), away: false, heard: 0 }
    }

    /// Takes an answer; decoding and applying are done off the async threads.
    async fn take(self, got: Result<Got, ClientError>) -> Self {
        let taken = tokio::task::spawn_blocking(move || self.taken(got)).await;
        taken.unwrap_or_else(|error| Self::anew(&error))
    }

    /// Begins to write the copy, if it is time. What is waited for is the encoding, not the disk.
    async fn keep(self, copy: &mut Copy) -> Self {
        let now = Instant::now();
        let Some(at) = self.course.at() else { return self };
        if !copy.is_due(at, now).await {
            return self;
        }
        let encoded = tokio::task::spawn_blocking(move || {
            let bytes = self.writer.encode(&self.stamp);
            (self, bytes)
        });
        match encoded.await {
            Ok((follower, bytes)) => {
                copy.write(at, bytes, now);
                follower
            }
            Err(error) => Self::anew(&error),
        }
    }

    /// A panic is a mistake of ours, and the writer is gone with it: from the beginning, without the copy, which may have
    /// been the cause. Readers keep what they have until the next table.
    fn anew(error: &tokio::task::JoinError) -> Self {
        tracing::error!(%error, "the table's follower panicked; it begins anew");
        let mut fresh = Self::start(None);
        fresh.course.heard(Heard::Failed);
        fresh
    }

    fn taken(mut self, got: Result<Got, ClientError>) -> Self {
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
        self.heard += u64::from(heard.is_ok());
        match heard {
            Ok(()) if std::mem::take(&mut self.away) => tracing::info!("the geo server is followed again"),
            Ok(()) => {}
            Err(why) => {
                if !std::mem::replace(&mut self.away, true) {
                    tracing::warn!(%why, "the geo server cannot be followed; the table stays as it is");
                }
            }
        }
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

/// How long a start without a copy waits for the server's table. Shorter: clients are taken for those of the default
/// region for a moment. Longer: a start waits for a server that is away.
const FIRST: Duration = Duration::from_secs(5);
