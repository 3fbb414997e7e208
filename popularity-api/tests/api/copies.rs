//! Copies of the API: they follow under load, through kill -9 of either side, and answer as the primary.

use std::time::Duration;

use geo::{RegionId, Scheme};
use popularity_api::wire::{LinksRequest, PurgeMode, PurgeRequest, PurgeWhat};
use popularity_api::{Client, ClientError};

use crate::fixture::until;
use crate::processes::{Api, World, batch, flip};

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
