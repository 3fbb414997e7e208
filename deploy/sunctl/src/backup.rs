//! `sunctl backup` and `sunctl restore`: the ratings of a popularity API in a folder, and back.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use geo::answer::{Answer, Table, bytes};
use popularity_api::Client;
use popularity_api::backup::{self, Manifest};
use popularity_api::replica::copying::Progress;
use serde_json::json;

/// Takes a backup while the API counts on.
///
/// # Errors
///
/// What the API or the disk says; there is no folder of this name then. Also when there is no folder to put it in: a disk that
/// is not mounted is not what was meant.
pub async fn take(client: &Client, to: &Path) -> anyhow::Result<Answer> {
    let into = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    anyhow::ensure!(
        into.is_dir(),
        "{}: there is no such folder to put the backup in: make it, or mount what it is on",
        into.display()
    );
    let mut shown = Shown::new(std::io::stderr().is_terminal());
    let taken = backup::take(client, to, |progress| shown.show(progress)).await;
    shown.end();
    Ok(answer("backed up to", to, &taken?))
}

/// Verifies a backup and puts it into an API's data folder.
///
/// # Errors
///
/// What is damaged or in the way; the data folder is as before then.
pub fn restore(from: &Path, to: &Path) -> anyhow::Result<Answer> {
    Ok(answer("verified and restored to", to, &backup::restore(from, to)?))
}

/// Verifies a backup.
///
/// # Errors
///
/// What is damaged.
pub fn verify(from: &Path) -> anyhow::Result<Answer> {
    Ok(answer("verified", from, &backup::verify(from)?))
}

fn answer(done: &str, place: &Path, manifest: &Manifest) -> Answer {
    let counts = &manifest.counts;
    let mut table = Table::new(&["REGION", "RATED FILES"]);
    for (region, pairs) in &counts.pairs {
        table.row([region.to_string(), pairs.to_string()]);
    }
    let size = manifest.snapshot.as_ref().map_or(0, |snapshot| snapshot.bytes) + manifest.binlog.bytes;
    let text = format!(
        "{}{} regions, {} pairs, {} files, {} servers; binlog up to {}; {}\n{done} {}\n",
        table.text(),
        counts.pairs.len(),
        counts.pairs.values().sum::<u64>(),
        counts.files,
        counts.sources,
        counts.offset,
        bytes(size),
        place.display(),
    );
    let place: PathBuf = place.to_owned();
    Answer::good(text, json!({ "place": place, "manifest": manifest }))
}

/// Progress on a terminal, one line.
struct Shown {
    terminal: bool,
    last: Option<Instant>,
}

impl Shown {
    const fn new(terminal: bool) -> Self {
        Self { terminal, last: None }
    }

    fn show(&mut self, progress: Progress) {
        if !self.terminal || self.last.is_some_and(|last| last.elapsed() < EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        let mut terminal = std::io::stderr();
        // Who cannot be shown anything need not be.
        let _ = write!(terminal, "\r\x1b[K{}", line(progress));
        let _ = terminal.flush();
    }

    fn end(&self) {
        if self.last.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(progress: Progress) -> String {
    format!("{}: {} of {}", progress.part, bytes(progress.bytes), bytes(progress.of))
}

const EVERY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use popularity_api::engine::inspect::Inspected;
    use popularity_api::replica::copying::Written;

    use super::*;

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_not_made_on_the_way() {
        let place = tempfile::tempdir().unwrap();
        let token_file = place.path().join("token");
        std::fs::write(&token_file, "aaaaaaaaaaaaaaaa").unwrap();
        std::fs::set_permissions(&token_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let url = "http://127.0.0.1:9".to_owned();
        let client = Client::new(&popularity_api::ClientConfig { url, token_file, timeout_ms: 1000 }).unwrap();
        let refused = take(&client, &place.path().join("not-mounted/monday")).await.unwrap_err().to_string();
        assert!(refused.ends_with("there is no such folder to put the backup in: make it, or mount what it is on"));
        assert!(!place.path().join("not-mounted").exists());
    }

    #[test]
    fn what_there_is_is_said() {
        let written = |file: &str, bytes| Written { file: file.to_owned(), bytes, blake3: String::new() };
        let manifest = Manifest {
            format: backup::FORMAT,
            taken_ms: 0,
            lineage: String::new(),
            start: 5,
            snapshot: Some(written("snapshot-5", 90_000)),
            binlog: written("binlog-5", 2_300),
            counts: Inspected { offset: 2305, groups: 3, pairs: [(4, 120), (5, 7)].into(), files: 121, sources: 2 },
        };
        assert_eq!(
            answer("verified", Path::new("b"), &manifest).text,
            "REGION  RATED FILES\n     4          120\n     5            7\n\
             2 regions, 127 pairs, 121 files, 2 servers; binlog up to 2305; 92 KB\nverified b\n"
        );
        let progress = Progress { part: "snapshot", bytes: 1_500_000, of: 3_000_000 };
        assert_eq!(line(progress), "snapshot: 1.5 MB of 3.0 MB");
    }
}
