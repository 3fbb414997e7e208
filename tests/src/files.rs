//! Files that daemons watch: written whole or not at all, readable by nobody else.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes a file that appears at once, with mode 0600: token files that others may read are refused.
///
/// # Panics
///
/// When the operating system refuses.
#[track_caller]
pub fn write(file: &Path, text: &str) {
    let beside = file.with_extension("new");
    let written = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside);
    written
        .and_then(|mut written| written.write_all(text.as_bytes()))
        .and_then(|()| std::fs::rename(&beside, file))
        .unwrap_or_else(|error| panic!("writing {}: {error}", file.display()));
}
