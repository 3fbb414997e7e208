//! Carrying end to end: scripted content servers, caches and a scripted popularity API, over real sockets.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod api;
mod binary;
mod carrier;
mod prefill;
mod scripted;

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use cache_daemon::vault::Vault;
use geo::CanonicalName;
use sun::HeldFiles;

fn name(file: &str) -> CanonicalName {
    CanonicalName::parse(file).unwrap()
}

/// A body that depends on its length alone.
fn body(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 % 251) as u8).collect()
}

fn vault() -> (tempfile::TempDir, Arc<Vault>) {
    let folder = tempfile::tempdir().unwrap();
    let vault = Arc::new(Vault::open(folder.path()).unwrap());
    (folder, vault)
}

/// The body of a held file, read as the edge reads it.
fn held(vault: &Vault, file: &str) -> Option<Vec<u8>> {
    let held = HeldFiles::open(vault, name(file).content_id())?;
    let mut body = vec![0; usize::try_from(held.size).unwrap()];
    held.file.read_exact_at(&mut body, held.offset).unwrap();
    Some(body)
}
