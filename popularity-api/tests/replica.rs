//! Copies of the API over real processes: they follow under load, through kill -9 of either side, and answer as the primary.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "replica/world.rs"]
mod world;

use std::path::Path;
use std::time::Duration;

use geo::{RegionId, Scheme};
use popularity_api::backup;
use popularity_api::engine::folder::Disk;
use popularity_api::engine::{self, Engine};
use popularity_api::server::Config;
use popularity_api::wire::{LinksRequest, PurgeMode, PurgeRequest, PurgeWhat};
use popularity_api::{Client, ClientError};
use world::{Api, World, batch, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_follows_under_load_through_kills_of_both_and_is_the_primarys_equal() {
    let world = World::new();
    let mut primary = world.start("primary", "");
    let mut copy = world.start_copy("copy", &primary, "");
    tokio::join!(world.load(&primary, "sun4-1-1", 1..40), world.load(&primary, "sun4-1-2", 1..40), async {
        until("the copy is ready", async || copy.ready().await.then_some(())).await;
    });
    world.holds(&primary, 1, None, &["c1/0/3.jpg", "c1/7/20.jpg", "c1/none"]).await;
    world.equal(&copy, &primary).await;
    assert_eq!(copy.metric("popularity_replica_restarts_total").await, 1.0, "begun with one copy");
    until("it says so", async || (copy.metric("popularity_replica_behind_bytes").await == 0.0).then_some(())).await;

    // The primary dies while batches come; they are sent again until it is back.
    let loading = async {
        tokio::join!(world.load(&primary, "sun4-1-1", 40..80), world.load(&primary, "sun4-1-2", 40..80));
    };
    let killing = async {
        let client = world.client(&copy, "operator");
        let before = client.copies().await.unwrap().end;
        until("some are followed", async || (client.copies().await.unwrap().end > before).then_some(())).await;
        primary.kill();
        assert!(!client.top(RegionId(4), 10).await.unwrap().files.is_empty(), "the copy answers");
        world.restart(&primary, "")
    };
    let ((), again) = tokio::join!(loading, killing);
    drop(primary);
    primary = again;
    world.holds(&primary, 1, None, &["c1/0/3.jpg", "c1/7/20.jpg", "c1/none"]).await;
    world.equal(&copy, &primary).await;

    // The copy dies while frames come, and goes on from its own.
    let settings = world.replica(&primary, "");
    let loading = world.load(&primary, "sun4-1-1", 80..160);
    let killing = async {
        let client = world.client(&copy, "operator");
        let before = client.copies().await.unwrap().end;
        until("some are followed", async || (client.copies().await.unwrap().end > before).then_some(())).await;
        copy.kill();
        world.restart(&copy, &settings)
    };
    let ((), again) = tokio::join!(loading, killing);
    drop(copy);
    copy = again;
    until("the copy is ready", async || copy.ready().await.then_some(())).await;
    world.equal(&copy, &primary).await;
    assert_eq!(copy.metric("popularity_replica_restarts_total").await, 0.0, "it had its own");
    copy.kill();
    primary.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_fell_behind_what_is_kept_starts_again_from_a_snapshot() {
    let world = World::new();
    let settings = "[snapshots]\nevery_s = 1\ncopies_binlog_bytes = 0\n";
    let primary = world.start("primary", settings);
    world.load(&primary, "sun4-1-1", 1..5).await;
    let copy = world.start_copy("copy", &primary, "");
    until("the copy is ready", async || copy.ready().await.then_some(())).await;
    world.equal(&copy, &primary).await;
    copy.kill();
    let operator = world.client(&primary, "operator");
    let missed = operator.copies().await.unwrap().end;
    let mut sequence = 5;
    until("what the copy needs is gone", async || {
        world.load(&primary, "sun4-1-1", sequence..sequence + 1).await;
        sequence += 1;
        (operator.copies().await.unwrap().binlog_start > missed).then_some(())
    })
    .await;
    let copy = world.restart(&copy, &world.replica(&primary, ""));
    until("the copy is ready", async || copy.ready().await.then_some(())).await;
    world.equal(&copy, &primary).await;
    assert_eq!(copy.metric("popularity_replica_restarts_total").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_primary_is_not_taken_for_the_one_that_was_followed() {
    let world = World::new();
    let primary = world.start("primary", "");
    world.load(&primary, "sun4-1-1", 1..6).await;
    let copy = world.start_copy("copy", &primary, "");
    until("the copy is ready", async || copy.ready().await.then_some(())).await;
    world.equal(&copy, &primary).await;
    primary.kill();
    std::fs::remove_dir_all(primary.data().join("ratings")).unwrap();
    let primary = world.restart(&primary, "");
    // More than before, so that the offset that the copy is at exists.
    world.load(&primary, "sun4-1-2", 100..112).await;
    world.equal(&copy, &primary).await;
    assert_eq!(copy.metric("popularity_replica_restarts_total").await, 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_damaged_is_made_anew_and_one_of_a_damaged_snapshot_from_the_one_before() {
    let world = World::new();
    let primary = world.start("primary", "[snapshots]\nevery_s = 1\n");
    let operator = world.client(&primary, "operator");
    let mut sequence = 1;
    until("there are two snapshots", async || {
        world.load(&primary, "sun4-1-1", sequence..sequence + 1).await;
        sequence += 1;
        (operator.copies().await.unwrap().snapshots.len() == 2).then_some(())
    })
    .await;
    let newest = operator.copies().await.unwrap().snapshots[1].offset;
    flip(&primary.data().join(format!("ratings/snapshot-{newest:020}")), 40);
    let copy = world.start_copy("copy", &primary, "");
    until("the copy is ready", async || copy.ready().await.then_some(())).await;
    world.load(&primary, "sun4-1-2", 1..6).await;
    world.equal(&copy, &primary).await;
    copy.kill();
    // The copy's own disk: a flipped bit in the middle of its binlog.
    let binlog = std::fs::read_dir(copy.data().join("ratings")).unwrap().map(|entry| entry.unwrap().path());
    let binlog =
        binlog.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("binlog-")).min().unwrap();
    flip(&binlog, 30);
    let copy = world.restart(&copy, &world.replica(&primary, ""));
    until("the copy is ready", async || copy.ready().await.then_some(())).await;
    world.equal(&copy, &primary).await;
    assert_eq!(copy.metric("popularity_replica_restarts_total").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_refuses_what_is_written_and_names_the_primary() {
    let world = World::new();
    let primary = world.start("primary", "");
    world.load(&primary, "sun4-1-1", 1..2).await;
    let copy = world.start_copy("copy", &primary, "");
    until("the copy is ready", async || copy.ready().await.then_some(())).await;
    let refused = world.client(&copy, "sun4-1-1").report_downloads(&batch("sun4-1-1", 2)).await.unwrap_err();
    check_refused(&refused, &primary);
    let purge = PurgeRequest {
        id: "a".to_owned(),
        what: PurgeWhat::File,
        value: "c1/a".to_owned(),
        mode: PurgeMode::Hard,
        region: None,
    };
    check_refused(&world.client(&copy, "operator").purge(&purge).await.unwrap_err(), &primary);
    check_refused(&world.client(&copy, "operator").purges(0, Duration::ZERO).await.unwrap_err(), &primary);
    for bearer in ["backend", "sun4-1-1"] {
        let refused = world.client(&primary, bearer).copies().await.unwrap_err();
        assert!(matches!(&refused, ClientError::Refused(problem) if problem.status == 403), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_takes_the_primarys_place() {
    let world = World::new();
    let primary = world.start("primary", "");
    world.load(&primary, "sun4-1-1", 1..10).await;
    let copy = world.start_copy("copy", &primary, "");
    until("the copy is ready", async || copy.ready().await.then_some(())).await;
    world.equal(&copy, &primary).await;
    let of = world.client(&copy, "operator").copies().await.unwrap();
    primary.kill();
    copy.kill();
    let promoted = world.restart(&copy, "");
    let (sun, operator) = (world.client(&promoted, "sun4-1-1"), world.client(&promoted, "operator"));
    let again = until("it counts", async || sun.report_downloads(&batch("sun4-1-1", 9)).await.ok()).await;
    assert!(!again.counted, "what was counted before is counted once");
    assert!(sun.report_downloads(&batch("sun4-1-1", 10)).await.unwrap().counted);
    let now = operator.copies().await.unwrap();
    assert!(now.lineage != of.lineage && now.end > of.end, "{now:?}");
    // The old primary has ratings of its own: it is not made a copy by mistake.
    let old = world.restart(&primary, &world.replica(&promoted, ""));
    let log = old.ended().await;
    assert!(log.contains("the folder has ratings that are no copy; move them away to follow"), "{log}");
    std::fs::remove_dir_all(old.data().join("ratings")).unwrap();
    let copy = world.restart(&old, &world.replica(&promoted, ""));
    world.equal(&copy, &promoted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_of_a_copy_are_the_primarys_and_go_on_while_it_is_away() {
    let world = World::new();
    let primary = world.start("primary", "");
    let files = ["c1/held.jpg", "c1/other.jpg", "c1/purged.jpg"];
    until("the primary is there", async || primary.ready().await.then_some(())).await;
    // Links alone: no engine.
    let copy = world.start_copy("copy", &primary, "ratings = false\nstate_max_s = 86400");
    let short = world.start_copy("short", &primary, "ratings = false\nstate_max_s = 1");
    world.holds(&primary, 5, None, &files[..1]).await;
    world.holds(&primary, 6, Some(5), &files[2..]).await;
    world.alive(&primary, &["sun4-1-1", "cache4-1"]).await;
    let expected = links(&world.client(&primary, "backend"), &files).await;
    assert!(expected[0].contains("cache4-1") && expected[1].contains("sun4-1-"), "{expected:?}");
    for copy in [&copy, &short] {
        until("the copy is ready", async || copy.ready().await.then_some(())).await;
        let client = world.client(copy, "backend");
        until("the copy makes the same links", async || {
            world.alive(&primary, &["sun4-1-1", "cache4-1"]).await;
            (links(&client, &files).await == links(&world.client(&primary, "backend"), &files).await).then_some(())
        })
        .await;
    }
    let purge = PurgeRequest {
        id: "a".to_owned(),
        what: PurgeWhat::File,
        value: files[2].to_owned(),
        mode: PurgeMode::Hard,
        region: None,
    };
    world.client(&primary, "operator").purge(&purge).await.unwrap();
    let client = world.client(&copy, "backend");
    let last = until("the copy goes by the purge", async || {
        world.alive(&primary, &["sun4-1-1", "cache4-1"]).await;
        let links = links(&client, &files).await;
        (links[0].contains("cache4-1") && links[2].contains("sun4-1-")).then_some(links)
    })
    .await;
    let refused = client.top(RegionId(4), 1).await.unwrap_err();
    assert!(refused.to_string().contains("a copy without ratings (replica.ratings = false)"), "{refused}");
    assert!(matches!(&refused, ClientError::Refused(problem) if problem.status == 421), "{refused}");

    primary.kill();
    let shorts = world.client(&short, "backend");
    let degraded = until("the state is too old", async || {
        let links = links(&shorts, &files).await;
        links[0].contains("sun4-1-").then_some(links)
    })
    .await;
    assert_eq!(degraded, owners(&world, &files), "the owner sun by the topology");
    assert_eq!(links(&client, &files).await, last, "another copy believes it for longer");
    assert_eq!(short.metric("popularity_replica_links_degraded").await, 1.0);
    // Its last state is on disk, so a restart while the primary is away costs nothing.
    until("it is kept", async || copy.data().join("state/links").exists().then_some(())).await;
    until("it is kept", async || copy.data().join("state/holdings-cache4-1").exists().then_some(())).await;
    copy.kill();
    let settings = world.replica(&primary, "ratings = false\nstate_max_s = 86400");
    let copy = world.restart(&copy, &settings);
    until("the copy is ready", async || copy.ready().await.then_some(())).await;
    let again = links(&world.client(&copy, "backend"), &files).await;
    assert_eq!(again[0], last[0], "held by a cache");
}

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

/// The links' URLs.
async fn links(client: &Client, files: &[&str]) -> Vec<String> {
    let request = LinksRequest {
        client: [127, 0, 0, 1].into(),
        files: files.iter().map(|&file| file.to_owned()).collect(),
        scheme: Scheme::Https,
        explain: false,
    };
    client.links(&request).await.unwrap().links.into_iter().map(|link| link.url.unwrap()).collect()
}

/// What links name by the topology alone.
fn owners(world: &World, files: &[&str]) -> Vec<String> {
    let text = std::fs::read_to_string(world.path("topology.toml")).unwrap();
    let topology = geo::Topology::parse(&text).unwrap();
    let region = topology.region(RegionId(4)).unwrap();
    let link = |file: &&str| {
        let name = geo::CanonicalName::parse(file).unwrap();
        region.sun_order(name.content_id())[0].server.link(Scheme::Https, &name).unwrap()
    };
    files.iter().map(link).collect()
}

#[track_caller]
fn check_refused(error: &ClientError, primary: &Api) {
    let ClientError::Refused(problem) = error else { panic!("{error}") };
    assert_eq!(problem.status, 421, "{problem:?}");
    assert!(problem.detail.contains(&primary.listen.to_string()), "{problem:?}");
}

fn cut(file: &Path) {
    let bytes = std::fs::read(file).unwrap();
    std::fs::write(file, &bytes[..bytes.len() - 3]).unwrap();
}

fn edit(file: &Path, from: &str, to: &str) {
    std::fs::write(file, std::fs::read_to_string(file).unwrap().replace(from, to)).unwrap();
}

fn flip(file: &Path, at: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[at] ^= 1;
    std::fs::write(file, bytes).unwrap();
}
