//! The topology's source: a watched file, and the last good copy of it.
//!
//! ```text
//!             every 200 ms                     checks?  yes --> receivers, last good copy
//!   file ------------------> changed content --------->
//!                                                       no  --> one WARN, the running one stays
//!
//!   start:  file checks --> it      else  last good copy checks --> it, with a WARN      else  error
//! ```
//!
//! A change is seen within 250 ms. What runs is never worse than what ran before: a file that is away,
//! unreadable, half-written or refused changes nothing.
//!
//! # Invariants
//!
//! - **The file is the operator's word.** A version that goes backwards, or stays while the content changes,
//!   is accepted with a WARN: whoever restores yesterday's file means it, and a daemon that refused it would
//!   disagree with those that were started later.
//! - The last good copy is a document that was accepted, whole, or not there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::file::{self, Followed, Look};
use crate::topology::{DOCUMENT_BYTES_MAX, Topology, Watched};

/// Reads the file and follows its changes (looked at every 200 ms; a document that does not check is
/// refused with one WARN, the running one stays). With `last_good`, every accepted document is kept
/// there and is what a start falls back to. The task ends when every receiver is gone.
///
/// # Errors
///
/// When neither the file nor the last good copy can be read and checked.
pub async fn follow(file: PathBuf, last_good: Option<PathBuf>) -> Result<Watched, WatchError> {
    let name = file.display().to_string();
    let source = tokio::task::spawn_blocking(move || Source::start(file, last_good))
        .await
        .map_err(|error| error.to_string())
        .flatten()
        .map_err(|why| WatchError::NoTopology { file: name, why })?;
    let (sender, receiver) = watch::channel(source.running.clone());
    tokio::spawn(run(source, sender));
    Ok(receiver)
}

/// Looks at the source until nobody wants to know.
async fn run(mut source: Source, sender: watch::Sender<Arc<Topology>>) {
    let mut pause = LOOK_EVERY;
    loop {
        tokio::select! {
            () = sender.closed() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let looked = tokio::task::spawn_blocking(move || {
            let seen = source.look(SystemTime::now());
            (source, seen)
        });
        // Fails only while the process shuts down.
        let Ok((again, seen)) = looked.await else { return };
        source = again;
        pause = if matches!(seen, Seen::Unsettled) { SETTLE } else { LOOK_EVERY };
        if let Seen::Accepted(topology) = seen {
            sender.send_replace(topology);
        }
    }
}

/// The file, its last good copy and what runs.
#[derive(Debug)]
struct Source {
    file: Followed,
    last_good: Option<PathBuf>,
    running: Arc<Topology>,
    /// Of the document that runs.
    running_digest: blake3::Hash,
    /// That the file cannot be read was said; it is said again after it was readable.
    said_unreadable: bool,
}

/// What a look at the source leads to.
#[derive(Debug)]
enum Seen {
    Nothing,
    Unsettled,
    Accepted(Arc<Topology>),
}

impl Source {
    fn start(path: PathBuf, last_good: Option<PathBuf>) -> Result<Self, String> {
        let mut file = Followed::new(path, DOCUMENT_BYTES_MAX as u64);
        let taken = file.take().map_err(|error| error.to_string());
        let said_unreadable = taken.is_err();
        let (topology, text) = match taken.and_then(parse) {
            Ok(good) => good,
            Err(why) => {
                let Some(copy) = &last_good else { return Err(why) };
                let good = read_copy(copy)
                    .map_err(|copy_why| format!("{why}; and its last good copy {}: {copy_why}", copy.display()))?;
                let (file, copy, version) = (file.path().display(), copy.display(), good.0.version);
                tracing::warn!(%file, %copy, version, %why, "no usable topology; starting from its last good copy");
                good
            }
        };
        keep(last_good.as_deref(), &text);
        let running_digest = blake3::hash(text.as_bytes());
        Ok(Self { file, last_good, running: Arc::new(topology), running_digest, said_unreadable })
    }

    fn look(&mut self, now: SystemTime) -> Seen {
        let look = self.file.look(now);
        let file = self.file.path().display();
        let said = std::mem::replace(&mut self.said_unreadable, matches!(look, Look::Unreadable(_)));
        match look {
            Look::Same => {}
            Look::Unsettled => return Seen::Unsettled,
            Look::Unreadable(why) if !said => {
                tracing::warn!(%file, %why, "the topology cannot be read; the running one stays");
            }
            Look::Unreadable(_) => {}
            Look::Back => tracing::info!(%file, "the topology can be read again"),
            Look::Changed(bytes) if blake3::hash(&bytes) == self.running_digest => {
                tracing::info!(%file, "the topology is again what runs");
            }
            Look::Changed(bytes) => match parse(bytes) {
                Ok((topology, text)) => return self.accept(topology, &text),
                Err(why) => tracing::warn!(%file, %why, "the topology is refused; the running one stays"),
            },
        }
        Seen::Nothing
    }

    fn accept(&mut self, topology: Topology, text: &str) -> Seen {
        let file = self.file.path().display();
        if let Some(doubt) = doubt(&self.running, &topology) {
            tracing::warn!(%file, before = self.running.version, now = topology.version, "{doubt}");
        }
        tracing::info!(%file, version = topology.version, "the topology changed");
        keep(self.last_good.as_deref(), text);
        self.running = Arc::new(topology);
        self.running_digest = blake3::hash(text.as_bytes());
        Seen::Accepted(self.running.clone())
    }
}

/// What is odd about a document that is accepted all the same.
fn doubt(running: &Topology, new: &Topology) -> Option<&'static str> {
    match new.version.cmp(&running.version) {
        std::cmp::Ordering::Less => Some("the topology's version went backwards; it is accepted"),
        std::cmp::Ordering::Equal => Some("the topology changed and its version did not; it is accepted"),
        std::cmp::Ordering::Greater => None,
    }
}

fn parse(bytes: Vec<u8>) -> Result<(Topology, String), String> {
    let text = String::from_utf8(bytes).map_err(|error| format!("it is not UTF-8: {}", error.utf8_error()))?;
    let topology = Topology::parse(&text).map_err(|error| error.to_string())?;
    Ok((topology, text))
}

fn read_copy(copy: &Path) -> Result<(Topology, String), String> {
    file::read_bounded(copy, DOCUMENT_BYTES_MAX as u64).map_err(|error| error.to_string()).and_then(parse)
}

/// Keeps an accepted document. A disk that cannot take it costs a start without the source, nothing now.
fn keep(copy: Option<&Path>, text: &str) {
    let Some(copy) = copy else { return };
    if file::read_bounded(copy, DOCUMENT_BYTES_MAX as u64).is_ok_and(|kept| kept == text.as_bytes()) {
        return;
    }
    let made = copy.parent().map_or(Ok(()), std::fs::create_dir_all);
    if let Err(error) = made.and_then(|()| write_atomically(copy, text)) {
        tracing::warn!(copy = %copy.display(), %error, "the last good topology cannot be kept");
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
    file::write_atomically(file, text.as_bytes())
}

/// No topology to start with.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The file cannot be read or is refused, and there is no good copy.
    #[error("topology {file}: {why}")]
    NoTopology {
        /// Which file.
        file: String,
        /// What is wrong with it.
        why: String,
    },
}

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Between the two looks that must find the same new content.
const SETTLE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests;
