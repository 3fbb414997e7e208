//! Backups: taken under load, restored as of their offset; a damaged one is not restored.

use std::path::Path;

use geo::RegionId;
use popularity_api::engine::folder::Disk;
use popularity_api::engine::{self, Engine};
use popularity_api::server::Config;
use popularity_api::{Client, backup};

use crate::fixture::until;
use crate::processes::{World, flip};

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_taken_under_load_is_restored_as_of_its_offset() {
    let world = World::new();
    let primary = world.start("primary", "[snapshots]\nevery_s = 1\n");
    world.load(&primary, "sun4-1-1", 1..30).await;
    let operator = world.client(&primary, "operator");
    let before = operator.copies().await.unwrap().end;
    let to = world.path("backup");
    let (manifest, ()) = tokio::join!(backup::take(&operator, &to, |_| {}), world.load(&primary, "sun4-1-1", 30..60));
    let manifest = manifest.unwrap();
    assert!(manifest.counts.offset >= before, "{manifest:?}");
    assert_eq!(backup::verify(&to).unwrap(), manifest);
    assert!(!world.path("backup.unfinished").exists());
    let taken = backup::take(&operator, &to, |_| {}).await.unwrap_err();
    assert!(taken.to_string().ends_with("is not empty; name a new folder"), "{taken}");

    // The same batches, up to that offset, counted by an API of its own.
    let (restored, other) = (world.path("restored"), world.path("other"));
    assert_eq!(backup::restore(&to, &restored).unwrap(), manifest);
    let restored = world.start("restored", "");
    let client = world.client(&restored, "operator");
    let copies = until("it is there", async || client.copies().await.ok()).await;
    assert_eq!(copies.end, manifest.counts.offset);
    assert!(copies.lineage != manifest.lineage, "nobody follows it as if it were the other one");
    let rated = client.top(RegionId(4), 10_000).await.unwrap().files;
    assert_eq!(rated.len() as u64, manifest.counts.pairs[&4]);
    // What an engine recovers from the two files as they are.
    let expected = reference(&to, &manifest, &other);
    let scores: Vec<(String, u64)> = rated.into_iter().map(|file| (file.file, file.score.to_bits())).collect();
    assert_eq!(scores, expected);
    world.load(&restored, "sun4-1-1", 1..60).await;
    let (rated, whole) =
        (client.top(RegionId(4), 10_000).await.unwrap(), operator.top(RegionId(4), 10_000).await.unwrap());
    let names = |top: popularity_api::wire::Top| {
        let mut names: Vec<String> = top.files.into_iter().map(|file| file.file).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names(rated), names(whole), "batches that came after it are counted once more, those in it are not");
    // Of a primary at rest it is the equal.
    let (quiet, again) = (world.path("quiet"), world.path("again"));
    let manifest = backup::take(&operator, &quiet, |_| {}).await.unwrap();
    assert_eq!(manifest.counts.offset, operator.copies().await.unwrap().end);
    backup::restore(&quiet, &again).unwrap();
    let again = world.start("again", "");
    let client = world.client(&again, "operator");
    until("it is there", async || client.copies().await.ok()).await;
    let scores = async |client: &Client| {
        let files = client.top(RegionId(4), 10_000).await.unwrap().files;
        files.into_iter().map(|file| (file.file, file.score.to_bits())).collect::<Vec<_>>()
    };
    assert_eq!(scores(&client).await, scores(&operator).await);

    let running = backup::restore(&to, restored.data()).unwrap_err();
    assert!(running.to_string().ends_with("an API runs there; end it first"), "{running}");
    restored.kill();
    let full = backup::restore(&to, restored.data()).unwrap_err();
    assert!(full.to_string().ends_with("has ratings; move them away first"), "{full}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_damaged_backup_is_restored() {
    let world = World::new();
    let primary = world.start("primary", "[snapshots]\nevery_s = 1\n");
    let operator = world.client(&primary, "operator");
    let mut sequence = 1;
    until("there is a snapshot", async || {
        world.load(&primary, "sun4-1-1", sequence..sequence + 1).await;
        sequence += 1;
        (!operator.copies().await.unwrap().snapshots.is_empty()).then_some(())
    })
    .await;
    world.load(&primary, "sun4-1-1", sequence..sequence + 3).await;
    let good = world.path("good");
    let manifest = backup::take(&operator, &good, |_| {}).await.unwrap();
    let (snapshot, binlog) = (manifest.snapshot.unwrap().file, manifest.binlog.file);
    let check = |what: &str, damage: &dyn Fn(&Path), expected: &str| {
        let (bad, data) = (world.path("bad"), world.path("data"));
        std::fs::create_dir(&bad).unwrap();
        for file in [&snapshot, &binlog, "backup.json"] {
            std::fs::copy(good.join(file), bad.join(file)).unwrap();
        }
        damage(&bad);
        let error = backup::restore(&bad, &data).unwrap_err().to_string();
        assert!(error.contains(expected), "{what}: {error}");
        assert!(!data.exists(), "{what}: nothing is put in place");
        std::fs::remove_dir_all(&bad).unwrap();
    };
    check("snapshot", &|bad| flip(&bad.join(&snapshot), 100), "its blake3 is not what the manifest says");
    check("binlog", &|bad| flip(&bad.join(&binlog), 100), "its blake3 is not what the manifest says");
    check("torn", &|bad| cut(&bad.join(&binlog)), "bytes, and its manifest says");
    check("no snapshot", &|bad| std::fs::remove_file(bad.join(&snapshot)).unwrap(), "is missing");
    check("half-made", &|bad| std::fs::remove_file(bad.join("backup.json")).unwrap(), "none that was finished");
    check(
        "manifest",
        &|bad| edit(&bad.join("backup.json"), "\"files\": ", "\"files\": 1"),
        "its checksum does not fit",
    );
    check("cut manifest", &|bad| cut(&bad.join("backup.json")), "is damaged, or of a later build");
}

/// Files and scores of region 4 that an engine recovers from a backup's files.
fn reference(backup: &Path, manifest: &backup::Manifest, folder: &Path) -> Vec<(String, u64)> {
    std::fs::create_dir(folder).unwrap();
    for written in manifest.snapshot.iter().chain([&manifest.binlog]) {
        std::fs::copy(backup.join(&written.file), folder.join(&written.file)).unwrap();
    }
    let disk = std::sync::Arc::new(Disk::open(folder).unwrap());
    let metrics = engine::Metrics::register(&prometheus::Registry::new()).unwrap();
    let (engine, recovered) = Engine::open(disk, &Config::default().engine().unwrap(), metrics).unwrap();
    assert_eq!((recovered.damaged_bytes, recovered.torn_bytes), (0, 0));
    let table = engine.table();
    let of = |ranked: &engine::table::Ranked<'_>| (ranked.file.name.to_string(), ranked.score.to_bits());
    table.top(RegionId(4), 10_000).iter().map(of).collect()
}

fn cut(file: &Path) {
    let bytes = std::fs::read(file).unwrap();
    std::fs::write(file, &bytes[..bytes.len() - 3]).unwrap();
}

fn edit(file: &Path, from: &str, to: &str) {
    std::fs::write(file, std::fs::read_to_string(file).unwrap().replace(from, to)).unwrap();
}
