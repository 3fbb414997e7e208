//! What runs, and what of the news becomes it. No network and no clock; the last good copy's disk alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{News, disk};
use crate::topology::{DOCUMENT_BYTES_MAX, Topology};

/// The document that runs, and its copy.
#[derive(Debug)]
pub(super) struct Running {
    /// Of the source, for the log.
    source: String,
    last_good: Option<PathBuf>,
    topology: Arc<Topology>,
    /// Of the document that runs.
    digest: blake3::Hash,
    /// Why the source cannot be read, as it was said; it is said again after it was readable.
    away: Option<String>,
    /// The document that the source has, where it is refused; it is said once.
    refused: Option<Refused>,
}

/// A document that does not check.
#[derive(Debug)]
struct Refused {
    digest: blake3::Hash,
    why: String,
}

/// What the news led to.
#[derive(Debug)]
pub(super) enum Taken {
    /// What ran runs on.
    Nothing,
    /// The document does not check.
    Refused,
    /// This runs now.
    Accepted(Arc<Topology>),
}

impl Running {
    /// Begins with what the source says, or else with the last good copy.
    pub(super) fn start(source: String, first: News, last_good: Option<PathBuf>) -> Result<Self, String> {
        let (mut away, mut refused) = (None, None);
        let read = match first {
            News::Document { bytes, .. } => {
                let digest = blake3::hash(&bytes);
                parse(bytes).inspect_err(|why| refused = Some(Refused { digest, why: why.clone() }))
            }
            News::Away(why) => {
                away = Some(why.clone());
                Err(why)
            }
            News::Same | News::Back => Err("nothing was read".to_owned()),
        };
        let (topology, text) = match read {
            Ok(good) => good,
            Err(why) => {
                let Some(copy) = &last_good else { return Err(why) };
                let good = read_copy(copy)
                    .map_err(|copy_why| format!("{why}; and its last good copy {}: {copy_why}", copy.display()))?;
                let (copy, version) = (copy.display(), good.0.version);
                tracing::warn!(%source, %copy, version, %why, "no usable topology; starting from its last good copy");
                good
            }
        };
        keep(last_good.as_deref(), &text);
        let digest = blake3::hash(text.as_bytes());
        Ok(Self { source, last_good, topology: Arc::new(topology), digest, away, refused })
    }

    /// What runs.
    pub(super) fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.topology)
    }

    /// Why the document that the source has is refused, where it is.
    pub(super) fn refusal(&self) -> Option<&str> {
        self.refused.as_ref().map(|refused| refused.why.as_str())
    }

    /// What an operator is to know, in one line: that the source has something else than what runs, or cannot be read.
    pub(super) fn trouble(&self) -> Option<String> {
        let (what, why) = match (&self.away, self.refusal()) {
            (Some(why), _) => ("cannot be read", why.as_str()),
            (None, Some(why)) => ("is refused", why),
            (None, None) => return None,
        };
        let why: Vec<&str> = why.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let why: String = why.join("; ").chars().take(WHY_CHARS_MAX).collect();
        Some(format!("topology {} {what}, version {} stays in force: {why}", self.source, self.topology.version))
    }

    /// Takes news in.
    pub(super) fn take(&mut self, news: News) -> Taken {
        let source = &self.source;
        let away = if let News::Away(why) = &news { Some(why.clone()) } else { None };
        let said = std::mem::replace(&mut self.away, away).is_some();
        match news {
            News::Away(why) if !said => {
                tracing::warn!(%source, %why, "the topology cannot be read; the running one stays");
            }
            News::Away(_) | News::Same => {}
            News::Back if said => tracing::info!(%source, "the topology can be read again"),
            News::Back => {}
            News::Document { bytes, revision } => return self.take_document(bytes, revision),
        }
        Taken::Nothing
    }

    fn take_document(&mut self, bytes: Vec<u8>, revision: Option<u64>) -> Taken {
        let (source, digest) = (&self.source, blake3::hash(&bytes));
        let refused = self.refused.take();
        if digest == self.digest {
            tracing::info!(%source, revision, "the topology is again what runs");
            return Taken::Nothing;
        }
        match parse(bytes) {
            Ok((topology, text)) => Taken::Accepted(self.accept(topology, &text, revision)),
            Err(why) => {
                if refused.is_none_or(|refused| refused.digest != digest) {
                    tracing::warn!(%source, revision, %why, "the topology is refused; the running one stays");
                }
                self.refused = Some(Refused { digest, why });
                Taken::Refused
            }
        }
    }

    fn accept(&mut self, topology: Topology, text: &str, revision: Option<u64>) -> Arc<Topology> {
        let source = &self.source;
        if let Some(doubt) = doubt(&self.topology, &topology) {
            tracing::warn!(%source, before = self.topology.version, now = topology.version, "{doubt}");
        }
        tracing::info!(%source, version = topology.version, revision, "the topology changed");
        keep(self.last_good.as_deref(), text);
        self.topology = Arc::new(topology);
        self.digest = blake3::hash(text.as_bytes());
        self.topology()
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
    disk::read_bounded(copy, DOCUMENT_BYTES_MAX as u64).map_err(|error| error.to_string()).and_then(parse)
}

/// Keeps an accepted document. A disk that cannot take it costs a start without the source, nothing now.
fn keep(copy: Option<&Path>, text: &str) {
    let Some(copy) = copy else { return };
    if disk::read_bounded(copy, DOCUMENT_BYTES_MAX as u64).is_ok_and(|kept| kept == text.as_bytes()) {
        return;
    }
    let made = copy.parent().map_or(Ok(()), std::fs::create_dir_all);
    if let Err(error) = made.and_then(|()| disk::write_atomically(copy, text.as_bytes())) {
        tracing::warn!(copy = %copy.display(), %error, "the last good topology cannot be kept");
    }
}

/// Of a refusal in a line for people; the log has all of it.
const WHY_CHARS_MAX: usize = 1000;
