//! What a copy does with folders, each damaged or in the way in one manner.

use std::os::unix::fs::PermissionsExt;

use axum::routing::get;

use super::*;
use crate::client::ClientConfig;
use crate::engine::batch::Entry;
use crate::engine::decay::{Decay, LANDMARK_MS};
use crate::engine::table::{Mark, Table};
use crate::engine::{binlog, snapshot};
use crate::wire::{Copies, RatingsSettings};

#[test]
fn a_start_removes_no_ratings_that_are_no_copy() {
    let place = tempfile::tempdir().unwrap();
    let ratings = place.path().join("ratings");
    for name in ["ratings.old", "ratings.next", "ratings.before"] {
        write(&place.path().join(name), None);
    }
    settle(&ratings).unwrap();
    for name in ["ratings.old", "ratings.next", "ratings.before"] {
        assert!(place.path().join(name).join(binlog::segment_name(0)).exists(), "{name}");
    }
    assert!(!ratings.exists());
}

#[test]
fn a_start_ends_what_was_begun() {
    let place = tempfile::tempdir().unwrap();
    let ratings = place.path().join("ratings");
    let (next, old) = (beside(&ratings, NEXT), beside(&ratings, OLD));
    write(&next, None);
    settle(&ratings).unwrap();
    assert!(!next.exists() && !ratings.exists(), "a part of a copy is none");
    write(&next, Some("copy"));
    write(&old, Some("copy"));
    settle(&ratings).unwrap();
    assert!(ratings.join(binlog::segment_name(0)).exists() && !next.exists() && !old.exists());
    // Whoever moves ratings to such a name keeps them all the same.
    write(&old, Some("own"));
    settle(&ratings).unwrap();
    assert!(old.join(binlog::segment_name(0)).exists());
}

#[test]
fn a_damaged_copy_stays_one_until_another_is_there() {
    let place = tempfile::tempdir().unwrap();
    let follower = follower(place.path());
    write(&follower.folder, Some("copy"));
    let binlog = follower.folder.join(binlog::segment_name(0));
    let mut bytes = std::fs::read(&binlog).unwrap();
    bytes[30] ^= 1;
    std::fs::write(&binlog, &bytes).unwrap();
    for start in 0..2 {
        follower.recover().unwrap();
        assert!(follower.copy.current.load().is_none(), "start {start}: it is not followed with");
        assert_eq!(std::fs::read(&binlog).unwrap(), bytes, "start {start}: what is left of it is left");
    }
}

#[test]
fn a_new_copy_that_is_damaged_takes_no_place() {
    let place = tempfile::tempdir().unwrap();
    let follower = follower(place.path());
    write(&follower.folder, Some("copy"));
    follower.recover().unwrap();
    let rated = || follower.copy.current.load_full().unwrap().engine.table().pairs().map(|(_, pairs)| pairs).sum();
    let (expected, next): (usize, _) = (rated(), follower.beside(NEXT));
    let check = |what: &str, name: &str, damage: &dyn Fn(&mut Vec<u8>)| {
        std::fs::create_dir(&next).unwrap();
        let mut table = Table::new(follower.settings.decay, 100);
        table.apply(&group(1));
        let mut frames = binlog::segment_header(100).to_vec();
        binlog::write_frame(&group(2), 100, &mut frames);
        for (file, mut bytes) in
            [(snapshot::name(100), snapshot::write(&table, 100, LANDMARK_MS)), (binlog::segment_name(100), frames)]
        {
            if file.starts_with(name) {
                damage(&mut bytes);
            }
            std::fs::write(next.join(file), bytes).unwrap();
        }
        assert!(follower.replace(&next, ID).is_err(), "{what}");
        assert!(follower.folder.join(binlog::segment_name(0)).exists(), "{what}: the one before is in its place");
        assert_eq!(rated(), expected, "{what}");
        // A start in between makes nothing of it.
        settle(&follower.folder).unwrap();
        assert!(follower.folder.join(binlog::segment_name(0)).exists() && !next.exists(), "{what}");
    };
    check("snapshot", "snapshot-", &|bytes| bytes[40] ^= 1);
    check("frame", "binlog-", &|bytes| bytes[30] ^= 1);
    check("torn", "binlog-", &|bytes| bytes.truncate(bytes.len() - 1));
}

/// Three frames of one file each; with a lineage of this kind, if any.
fn write(folder: &Path, kind: Option<&str>) {
    std::fs::create_dir_all(folder).unwrap();
    let mut bytes = binlog::segment_header(0).to_vec();
    for sequence in 1..=3 {
        let at = (bytes.len() - binlog::SEGMENT_HEADER_BYTES) as u64;
        binlog::write_frame(&group(sequence), at, &mut bytes);
    }
    std::fs::write(folder.join(binlog::segment_name(0)), bytes).unwrap();
    if let Some(kind) = kind {
        let said = format!("{kind} {ID}");
        let text = format!("{said} {:08x}\n", crc32c::crc32c(said.as_bytes()));
        std::fs::write(folder.join(engine::lineage::FILE), text).unwrap();
    }
}

fn group(sequence: u64) -> Group {
    let entry = Entry { region: RegionId(4), file: format!("c1/{sequence}").into(), size: 1000, downloads: 1.0 };
    let mark = Mark { boot: 1, sequence };
    Group {
        time_ms: LANDMARK_MS + sequence,
        batches: vec![Batch { source: "sun".to_owned(), mark, entries: vec![entry] }],
    }
}

#[tokio::test]
async fn a_primary_that_keeps_its_ratings_otherwise_is_told_of() {
    let place = tempfile::tempdir().unwrap();
    let alike = follower(place.path()).settings.told();
    for (settings, expected) in [
        (Some(alike), 0),
        (Some(RatingsSettings { half_life_hour_s: 60.0, ..alike }), 1),
        (Some(RatingsSettings { pairs_max: 7, ..alike }), 1),
        (None, 0),
    ] {
        let there = Copies { lineage: ID.to_owned(), end: 0, binlog_start: 0, snapshots: Vec::new(), settings };
        let routes = axum::Router::new().route("/v1/snapshot", get(async || axum::Json(there)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async { axum::serve(listener, routes).await });
        let follower = follower_of(place.path(), url);
        follower.metrics.settings_differ.set(7);
        assert!(follower.compare().await);
        assert_eq!(follower.metrics.settings_differ.get(), expected, "{settings:?}");
        serving.abort();
    }
    assert!(!follower(place.path()).compare().await, "who is away is asked again");
}

/// One whose primary does not answer.
fn follower(place: &Path) -> Follower {
    follower_of(place, "http://127.0.0.1:9".to_owned())
}

fn follower_of(place: &Path, url: String) -> Follower {
    let token_file = place.join("token");
    std::fs::write(&token_file, "token-of-replica-0123456789").unwrap();
    std::fs::set_permissions(&token_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = ClientConfig { url, token_file, timeout_ms: 1000 };
    let registry = prometheus::Registry::new();
    let settings = engine::Settings {
        decay: Decay::new(3600, 172_800, 0.25).unwrap(),
        pairs_max: 1000,
        commit: Duration::ZERO,
        queue_bytes_max: 1 << 20,
        snapshot_every: Duration::from_secs(3600),
        // As soon as anything would have to be replayed.
        snapshot_binlog_bytes: 1,
        copies_binlog_bytes: 1 << 30,
    };
    Follower {
        client: Client::new(&config).unwrap(),
        copy: Copy::empty("none"),
        folder: place.join("ratings"),
        settings,
        engine_metrics: engine::Metrics::register(&registry).unwrap(),
        metrics: super::super::Metrics::register(&registry).unwrap(),
        lag: Arc::default(),
        started: Instant::now(),
        heard: Box::new(|_| {}),
    }
}

const ID: &str = "0123456789abcdef0123456789abcdef";
