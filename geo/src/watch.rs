//! The topology's source: a watched file, and the last good copy of it.

use std::path::{Path, PathBuf};

use crate::topology::Watched;

/// Reads the file and follows its changes (looked at every 200 ms; a document that does not check is
/// refused with one WARN, the running one stays). With `last_good`, every accepted document is kept
/// there and is what a start falls back to. The task ends when every receiver is gone.
///
/// # Errors
///
/// When neither the file nor the last good copy can be read and checked.
pub async fn follow(file: PathBuf, last_good: Option<PathBuf>) -> Result<Watched, WatchError> {
    let _ = (file, last_good);
    todo!()
}

/// Writes a document atomically (temporary file beside it, fsync, rename, fsync of the folder).
///
/// # Errors
///
/// What the operating system says.
pub fn write_atomically(file: &Path, text: &str) -> std::io::Result<()> {
    let _ = (file, text);
    todo!()
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
