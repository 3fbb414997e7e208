//! Purges: who hears of them, and what they have to do with what is carried.

use std::time::Duration;

use geo::RegionId;
use popularity_api::purge::log::Log;
use popularity_api::wire::{DownloadsBatch, PurgeMode, PurgeRequest, PurgeState, PurgeWhat, WantedRequest};

use crate::world::{World, batch};

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_reaches_who_waits_and_is_acknowledged_by_the_next_question() {
    let world = World::start().await;
    let (backend, sun) = (world.client("backend"), world.client("sun4-1-1"));
    assert_eq!(sun.purges(0, Duration::ZERO).await.unwrap().latest, 0);
    let waits = tokio::spawn({
        let sun = sun.clone();
        async move { sun.purges(0, Duration::from_secs(4)).await.unwrap() }
    });
    let request = PurgeRequest {
        id: "a".to_owned(),
        what: PurgeWhat::Prefix,
        value: "/c1/a".to_owned(),
        mode: PurgeMode::Hard,
        region: Some(RegionId(4)),
    };
    let operator = world.client("operator");
    let sequence = operator.purge(&request).await.unwrap().sequence;
    assert_eq!(operator.purge(&request).await.unwrap().sequence, sequence, "one id, one purge");
    let heard = waits.await.unwrap();
    assert_eq!((heard.latest, heard.purges.len(), heard.purges[0].value.as_str()), (sequence, 1, "c1/a/"));
    let states = async || {
        let servers = backend.acknowledgements(sequence).await.unwrap().servers;
        servers.into_iter().map(|server| (server.server, server.state)).collect::<Vec<_>>()
    };
    let expected = |sun: PurgeState| {
        let silent = |name: &str| (name.to_owned(), PurgeState::Silent);
        let mut expected: Vec<_> = ["cache4-1", "sun4-1-1", "sun4-1-2"].map(silent).into();
        expected[1].1 = sun;
        expected
    };
    assert_eq!(states().await, expected(PurgeState::Waiting));
    sun.purges(sequence, Duration::ZERO).await.unwrap();
    assert_eq!(states().await, expected(PurgeState::Applied));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_purge_log_survives_a_restart() {
    let mut world = World::start().await;
    let request = |id: &str| PurgeRequest {
        id: id.to_owned(),
        what: PurgeWhat::Tag,
        value: "news".to_owned(),
        mode: PurgeMode::Soft,
        region: None,
    };
    let first = world.client("operator").purge(&request("a")).await.unwrap().sequence;
    world.restart().await;
    let operator = world.client("operator");
    let second = operator.purge(&request("b")).await.unwrap().sequence;
    assert_eq!(second, first + 4097, "a restart leaves some out");
    let log = operator.purges(0, Duration::ZERO).await.unwrap();
    assert_eq!(log.purges.iter().map(|purge| purge.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(operator.purges(first, Duration::ZERO).await.unwrap().purges.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_that_waited_since_before_a_purge_neither_count_nor_bring_the_file_back() {
    let mut world = World::start().await;
    let both = [("c1/a", 5.0), ("c1/b", 5.0)];
    world.client("sun4-1-1").report_downloads(&batch(1, &both)).await.unwrap();
    check_wanted(&world, "c1/a c1/b").await;
    // Purged half a minute ago: what was under way then has been reported.
    let purges = world.folder.path().join("data/purges");
    world
        .restart_with(|_| {
            let now_ms = daemon::clock::unix_ms();
            let (id, value) = ("a".to_owned(), "c1/a".to_owned());
            let request = PurgeRequest { id, what: PurgeWhat::File, value, mode: PurgeMode::Hard, region: None };
            Log::open(&purges, now_ms, 10).unwrap().post(request, now_ms - 30_000).unwrap();
        })
        .await;
    check_wanted(&world, "c1/b").await;
    let rating = async || {
        let top = world.client("backend").top(RegionId(4), 10).await.unwrap();
        let of = |file: &str| top.files.iter().find(|one| one.file == file).unwrap().rating_days.round();
        (of("c1/a"), of("c1/b"))
    };
    // From a spool, sealed before the purge; then within the ten seconds after it; then now.
    for (sequence, age_ms, wanted, ratings) in
        [(2, 3_600_000, "c1/b", (5.0, 10.0)), (3, 25_000, "c1/b", (10.0, 15.0)), (4, 0, "c1/a c1/b", (15.0, 20.0))]
    {
        let report = DownloadsBatch { age_ms, ..batch(sequence, &both) };
        assert!(world.client("sun4-1-1").report_downloads(&report).await.unwrap().counted);
        check_wanted(&world, wanted).await;
        assert_eq!(rating().await, ratings, "{age_ms}");
    }
}

async fn check_wanted(world: &World, expected: &str) {
    let request = WantedRequest { bytes_max: 1_000_000, limit: 10 };
    let wanted = world.client("cache4-1").wanted(RegionId(4), "cache4-1", &request).await.unwrap();
    let mut files: Vec<String> = wanted.candidates.into_iter().map(|one| one.file).collect();
    files.sort();
    assert_eq!(files.join(" "), expected);
}
