//! The topology followed: a watched file or a key of an etcd cluster, and the last good copy of it.
//!
//! ```text
//!   file    every 200 ms, changed content --+
//!                                           +--News--> Running: checks?  yes --> receivers, last good copy
//!   etcd    watch from a revision ----------+                            no  --> one WARN, the running one stays
//!
//!   start:  source checks --> it      else  last good copy checks --> it, with a WARN      else  error
//! ```
//!
//! A change is seen within 250 ms. What runs is never worse than what ran before: a source that is away, or a document
//! that is unreadable, half-written or refused, changes nothing.
//!
//! # Invariants
//!
//! - **The source is the operator's word.** A version that goes backwards, or stays while the content changes,
//!   is accepted with a WARN: whoever restores yesterday's document means it, and a daemon that refused it would
//!   disagree with those that were started later.
//! - The last good copy is a document that was accepted, whole, or not there.

mod etcd;
mod file;
mod metrics;
mod running;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use crate::file as disk;
use crate::source::Source;
use crate::topology::{Topology, Watched};
pub use metrics::Metrics;

use self::etcd::EtcdFollowed;
use self::file::FileFollowed;
use running::Running;

/// Reads the document and follows its changes; one that does not check is refused with one WARN, the running one stays. With
/// `last_good`, every accepted document is kept there and is what a start falls back to. The task ends when every
/// receiver is gone.
///
/// # Errors
///
/// When neither the source nor the last good copy can be read and checked.
pub async fn follow(source: &Source, last_good: Option<PathBuf>, metrics: Metrics) -> Result<Watched, WatchError> {
    let name = source.to_string();
    let about = name.clone();
    let none = move |why: String| WatchError::NoTopology { place: about.clone(), why };
    match source {
        Source::File(file) => begin(FileFollowed::new(file.clone()), name, last_good, metrics).await,
        Source::Etcd(etcd) => {
            let followed = EtcdFollowed::new(etcd).map_err(&none)?;
            begin(followed, name, last_good, metrics).await
        }
    }
    .map_err(none)
}

/// Where documents come from.
trait Followed: Send + 'static {
    /// The document as it is now, or why there is none; within a few seconds.
    fn first(&mut self) -> impl Future<Output = News> + Send;

    /// Waits for the next thing to be known of the document.
    fn next(&mut self) -> impl Future<Output = News> + Send;
}

/// What becomes known of the document.
#[derive(Clone, Debug, PartialEq)]
enum News {
    /// It is another one, or the first.
    Document {
        /// As it was read.
        bytes: Vec<u8>,
        /// What the source counts its writes by; none for a file.
        revision: Option<u64>,
    },
    /// It was looked at, and is what it was.
    Same,
    /// It is what it was, after it could not be read.
    Back,
    /// It cannot be read.
    Away(String),
}

async fn begin(
    mut followed: impl Followed,
    name: String,
    last_good: Option<PathBuf>,
    metrics: Metrics,
) -> Result<Watched, String> {
    let first = followed.first().await;
    metrics.tell(&first);
    let started = tokio::task::spawn_blocking(move || Running::start(name, first, last_good)).await;
    let running = started.map_err(|error| error.to_string()).flatten()?;
    metrics.runs(&running);
    let (sender, receiver) = watch::channel(running.topology());
    tokio::spawn(run(followed, running, sender, metrics));
    Ok(receiver)
}

/// Waits for news until nobody wants to know.
async fn run(
    mut followed: impl Followed,
    mut running: Running,
    sender: watch::Sender<Arc<Topology>>,
    metrics: Metrics,
) {
    loop {
        let news = tokio::select! {
            () = sender.closed() => return,
            news = followed.next() => news,
        };
        metrics.tell(&news);
        if news == News::Same {
            continue;
        }
        // A large document takes milliseconds to check, and the copy waits for the disk.
        let taken = tokio::task::spawn_blocking(move || {
            let taken = running.take(news);
            (running, taken)
        });
        // Fails only while the process shuts down.
        let Ok((again, taken)) = taken.await else { return };
        running = again;
        metrics.took(&taken);
        metrics.runs(&running);
        if let running::Taken::Accepted(topology) = taken {
            sender.send_replace(topology);
        }
    }
}

/// Writes a document atomically (temporary file beside it, fsync, rename, fsync of the folder).
///
/// A file that is there keeps its mode and, where the process may set it, its owner; a symbolic link is
/// followed.
///
/// # Errors
///
/// What the operating system says.
pub fn write_atomically(file: &Path, text: &str) -> std::io::Result<()> {
    disk::write_atomically(file, text.as_bytes())
}

/// No topology to start with.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The source cannot be read or is refused, and there is no good copy.
    #[error("topology {place}: {why}")]
    NoTopology {
        /// Which file or key.
        place: String,
        /// What is wrong with it.
        why: String,
    },
}

#[cfg(test)]
mod tests;
