//! Files that are read again when they change: certificates, secrets, keys.
//!
//! ```text
//!   Seen::now(files) --> load the files --> follow: each second, another stamp, seen twice? --> changed()
//! ```
//!
//! A file that is rewritten in place is still being written at the first look that sees it changed, perhaps, so a change counts
//! when the next one sees it the same, as with tokens. What changes between the load and the first look is not missed, because the stamps are older than the load. Why not
//! inotify: a stamp a second costs nothing, and works for files that are replaced, linked or on a network's disk.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::drain::Drain;

/// Calls `changed` when one of the files has changed, and not after the drain; looked at every second.
pub async fn follow(mut seen: Seen, drain: Drain, mut changed: impl FnMut()) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = drain.wait() => return,
        }
        if seen.look() {
            changed();
        }
    }
}

/// Files as they were at a look. To be made before they are loaded: what changes while a server starts, between the load and the
/// first look, would be missed otherwise.
#[derive(Debug)]
pub struct Seen {
    files: Vec<PathBuf>,
    stamps: Vec<Stamp>,
    /// They were others than before at the last look: perhaps one is being written.
    changing: bool,
}

impl Seen {
    /// As they are now; a file that is not there is one that may come.
    #[must_use]
    pub fn now(files: Vec<PathBuf>) -> Self {
        let stamps = stamps(&files);
        Self { files, stamps, changing: false }
    }

    /// Whether one of them has changed, and is the same now as at the last look.
    pub fn look(&mut self) -> bool {
        let now = stamps(&self.files);
        let same = now == self.stamps;
        self.stamps = now;
        std::mem::replace(&mut self.changing, !same) && same
    }
}

/// What tells that a file has changed: the time of that also when only its permissions did.
type Stamp = Option<(i64, i64, u64)>;

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.ctime(), metadata.ctime_nsec(), metadata.len()))
    };
    files.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_when_it_was_seen_twice() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys");
        let mut seen = Seen::now(vec![file.clone()]);
        let mut looks = |texts: [Option<&str>; 4]| {
            texts.map(|text| {
                text.iter().for_each(|text| std::fs::write(&file, text).unwrap());
                seen.look()
            })
        };
        assert_eq!(looks([None; 4]), [false; 4]);
        assert_eq!(looks([Some("half"), Some("the whole"), None, None]), [false, false, true, false]);
        assert_eq!(looks([Some("another one"), None, Some("a"), None]), [false, true, false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_between_the_load_and_the_first_look_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "a").unwrap();
        let seen = Seen::now(vec![file.clone(), folder.path().join("missing")]);
        // It is loaded, and then replaced, before anybody follows it.
        std::fs::write(&file, "longer").unwrap();
        let drain = Drain::new();
        let mut told = 0;
        follow(seen, drain.clone(), || {
            told += 1;
            if told == 1 {
                std::fs::write(&file, "longest of all").unwrap();
            } else {
                drain.start();
            }
        })
        .await;
        assert_eq!(told, 2);
    }
}
