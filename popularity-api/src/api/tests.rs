//! What is left out of what callers send, and what they are told of it.

use geo::RegionId;

use super::*;
use crate::engine::batch::{Batch, Entry};
use crate::engine::table::Mark;
use crate::testing;
use crate::wire::{
    Download, DownloadsBatch, FetchNote, FetchState, Held, HoldingsReport, HotRate, Load, PurgeMode, PurgeRequest,
    PurgeWhat, StatusReport, WantedRequest,
};

#[tokio::test]
async fn held_files_with_names_that_are_none_are_left_out_one_by_one() {
    let api = testing::api();
    let held = |file: &str| Held { file: file.to_owned(), size: 1 };
    let added = ["c1/a", "c1//b", "c1/c d", "c1/%7Ee", "c99/f"].map(held).to_vec();
    let report = HoldingsReport { generation: 1, since: None, added, removed: vec![] };
    assert_eq!(Arc::clone(&api).holdings(RegionId(4), "cache4-1".to_owned(), report).await.unwrap().generation, 1);
    // Another topology may have content server 99 again.
    assert_eq!(names_held(&api), ["c1/a", "c99/f"]);
    let removed = ["c1/a", "c1/c d", "c1//b"].map(str::to_owned).to_vec();
    let report = HoldingsReport { generation: 2, since: Some(1), added: vec![], removed };
    assert_eq!(Arc::clone(&api).holdings(RegionId(4), "cache4-1".to_owned(), report).await.unwrap().generation, 2);
    assert_eq!(names_held(&api), ["c99/f"]);
    let refused = |reason: &str| api.metrics.refused.with_label_values(&["holdings", reason]).get();
    assert_eq!((refused("name"), refused("spelling"), refused("content_server")), (3, 1, 0));
}

#[tokio::test]
async fn a_fetch_of_what_is_no_file_is_refused() {
    let api = testing::api();
    for (file, says) in [("c1/a", None), ("c1//a", Some("an empty segment")), ("c99/a", Some("no content server 99"))] {
        let note = FetchNote { file: file.to_owned(), size: 1, state: FetchState::Begins };
        let answer = api.note_fetch(RegionId(4), "cache4-1", &note);
        match says {
            None => assert_eq!(answer.unwrap().fetching, None),
            Some(says) => assert!(answer.as_ref().unwrap_err().detail().contains(says), "{answer:?}"),
        }
    }
}

#[tokio::test]
async fn a_server_lives_also_when_it_is_asked_for_what_is_no_file() {
    let api = testing::api();
    let hot = |file: &str| HotRate { file: file.to_owned(), requests_per_second: 500.0, bits_per_second: 8.0 };
    let report = StatusReport {
        server: "sun4-1-1".to_owned(),
        topology_version: 3,
        healthy: true,
        load: Load { requests_per_second: 1000.0, ..Load::default() },
        hottest: ["c1/a", "c1//a", "c99/a"].map(hot).to_vec(),
        ..StatusReport::default()
    };
    let state = api.status(report).unwrap();
    assert_eq!(state.servers.iter().map(|server| server.name.as_str()).collect::<Vec<_>>(), ["sun4-1-1"]);
    let hot: Vec<String> = api.hot(RegionId(4), 9).unwrap().files.into_iter().map(|hot| hot.file).collect();
    assert_eq!(hot, ["c1/a"]);
    assert_eq!(api.metrics.refused.with_label_values(&["status", "name"]).get(), 1);
}

#[tokio::test]
async fn what_was_counted_by_a_name_that_is_none_is_not_told_again() {
    let api = testing::api();
    let entry = |file: String, downloads| Entry { region: RegionId(4), file: file.into(), size: 1000, downloads };
    // More bad ones than are looked at first stand before the good ones.
    let bad = (0..150).map(|n| entry(format!("c1//{n}"), 50.0));
    let entries = bad.chain(["c1/a", "c1/b"].map(|file| entry(file.to_owned(), 9.0))).collect();
    let mark = Mark { boot: 1, sequence: 1 };
    api.ratings.count(Batch { source: "sun4-1-1".to_owned(), mark, entries }).await.unwrap();
    for (limit, expected) in [(1, &["c1/a"][..]), (2, &["c1/a", "c1/b"]), (9, &["c1/a", "c1/b"])] {
        let top = api.top(RegionId(4), limit).await.unwrap().files;
        assert_eq!(top.iter().map(|rated| rated.file.as_str()).collect::<Vec<_>>(), expected);
    }
    for cache in ["cache4-1", "cache4-2"] {
        let request = WantedRequest { bytes_max: 1_000_000, limit: 100 };
        let wanted = Arc::clone(&api).wanted(RegionId(4), cache.to_owned(), request).await.unwrap();
        assert!(wanted.candidates.iter().all(|one| ["c1/a", "c1/b"].contains(&one.file.as_str())), "{wanted:?}");
    }
}

#[tokio::test]
async fn a_reporter_is_told_which_entries_are_left_out_and_why() {
    let api = testing::api();
    let files = ["c1/a", "c1//b", "c1/c", "c1/%7Ed"];
    let ack = api.downloads(batch(1, &files)).await.unwrap();
    let told: Vec<(usize, &str, &str)> =
        ack.refusals.iter().map(|one| (one.index, one.file.as_str(), one.why.as_str())).collect();
    assert_eq!((ack.counted, ack.refused), (true, 2));
    assert_eq!(
        told,
        [
            (1, "c1//b", "file: the path has an empty segment"),
            (3, "c1/%7Ed", "file: it is not canonical: that is c1/~d")
        ]
    );
    let refused = |reason: &str| api.metrics.refused.with_label_values(&["downloads", reason]).get();
    assert_eq!((refused("name"), refused("spelling")), (1, 1));
    assert_eq!(api.top(RegionId(4), 9).await.unwrap().files.len(), 2);
}

#[tokio::test]
async fn numbers_that_nothing_could_follow_are_refused() {
    let api = testing::api();
    assert!(api.downloads(batch(1, &["c1/a"])).await.unwrap().counted);
    for (boot, sequence, status, says) in [
        (7, 0, 400, "sequence: is 1 or more"),
        (7, u64::MAX, 409, "above the last one of this boot, 1: number the batches of a boot 1, 2, 3, ..."),
        (u64::MAX, 1, 409, "boot 18446744073709551615 is more than ten years ahead"),
        (6, 1, 409, "known boot 7"),
    ] {
        let refusal = api.downloads(DownloadsBatch { boot, ..batch(sequence, &["c1/a"]) }).await.unwrap_err();
        assert_eq!(refusal.status().as_u16(), status, "{boot} {sequence}");
        assert!(refusal.detail().contains(says), "{}", refusal.detail());
    }
    assert!(api.downloads(batch(2, &["c1/a"])).await.unwrap().counted, "nothing is spoilt");
}

#[tokio::test]
async fn a_purge_of_a_content_server_that_there_is_not_is_kept_and_says_so() {
    let api = testing::api();
    let purge = |id: &str, what, value: &str| {
        let request =
            PurgeRequest { id: id.to_owned(), what, value: value.to_owned(), mode: PurgeMode::Hard, region: None };
        api.purge(request).map_err(|refusal| refusal.detail().to_owned())
    };
    let note = Some("the topology has no content server 99: is the name right?".to_owned());
    assert_eq!(purge("a", PurgeWhat::File, "c99/a").unwrap().note, note);
    assert_eq!(purge("b", PurgeWhat::Prefix, "/c99/").unwrap().note, note);
    for (id, what, value) in [
        ("c", PurgeWhat::File, "c1/a"),
        ("d", PurgeWhat::Prefix, "c1/a"),
        ("e", PurgeWhat::Prefix, ""),
        ("f", PurgeWhat::Tag, "c99/a"),
    ] {
        assert_eq!(purge(id, what, value).unwrap().note, None, "{value}");
    }
}

#[tokio::test]
async fn a_purge_of_what_no_client_can_ask_for_is_refused_before_it_is_in_the_log() {
    let api = testing::api();
    for (what, value, why) in [
        (PurgeWhat::File, "c1//a.jpg", Some("an empty segment")),
        (PurgeWhat::File, "c1/a/../b.jpg", Some("no site of content server 1")),
        (PurgeWhat::File, "c1/list?page=2", Some("no site of content server 1")),
        (PurgeWhat::Prefix, "c1/a//", Some("no site of content server 1")),
        (PurgeWhat::File, "c1/%61.jpg", None),
        (PurgeWhat::Prefix, "c1/a", None),
    ] {
        let (id, mode) = (format!("purge-{}", value.len()), PurgeMode::Hard);
        let before = api.purges(None, 0, Duration::ZERO).await.unwrap().latest;
        let request = PurgeRequest { id, what, value: value.to_owned(), mode, region: None };
        match (api.purge(request), why) {
            (Ok(_), None) => {}
            (Err(refusal), Some(why)) => {
                assert!(refusal.status().as_u16() == 422 && refusal.detail().contains(why), "{}", refusal.detail());
                assert_eq!(api.purges(None, 0, Duration::ZERO).await.unwrap().latest, before, "{value}");
            }
            (answer, _) => panic!("{value}: {answer:?}"),
        }
    }
}

#[tokio::test]
async fn who_finds_no_turn_in_time_is_told_to_come_again() {
    let turns = Arc::new(Semaphore::new(2));
    let (first, _second) = (turn(&turns, Duration::ZERO).await.unwrap(), turn(&turns, Duration::ZERO).await.unwrap());
    assert_eq!(turn(&turns, Duration::ZERO).await.unwrap_err().status(), StatusCode::TOO_MANY_REQUESTS);
    drop(first);
    drop(turn(&turns, Duration::ZERO).await.unwrap());
}

fn batch(sequence: u64, files: &[&str]) -> DownloadsBatch {
    let download = |file: &&str| Download {
        region: RegionId(4),
        file: (*file).to_owned(),
        size: 1000,
        downloads: 3.0,
        bytes: 3000,
    };
    let downloads = files.iter().map(download).collect();
    DownloadsBatch { source: "sun4-1-1".to_owned(), boot: 7, sequence, age_ms: 0, downloads }
}

fn names_held(api: &Api) -> Vec<String> {
    let holdings = read(&api.holdings);
    let mut names: Vec<String> = holdings.of("cache4-1").unwrap().names().map(str::to_owned).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn who_waits_for_a_purge_is_answered_when_the_drain_begins() {
    let api = testing::api();
    let mut waits = std::pin::pin!(api.purges(None, 0, Duration::from_secs(3600)));
    let begun = std::future::poll_fn(|context| std::task::Poll::Ready(waits.as_mut().poll(context).is_pending()));
    assert!(begun.await);
    api.end_waits();
    assert_eq!(tokio::time::timeout(Duration::from_secs(1), waits).await.unwrap().unwrap().latest, 0);
}
