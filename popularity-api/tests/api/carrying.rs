//! From downloads to what is carried and linked; what is counted is counted once.

use geo::{RegionId, Scheme};
use popularity_api::ClientError;
use popularity_api::wire::{DownloadsBatch, FetchNote, FetchState, Held, HoldingsReport, LinksRequest, WantedRequest};

use crate::fixture::page;
use crate::world::{World, batch, check_rating, status};

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_counts_once_also_across_a_restart() {
    let mut world = World::start().await;
    let sun = world.client("sun4-1-1");
    let batch = batch(1, &[("c1/a", 2.0), ("c77/a", 1.0), ("c1/a b", 1.0), ("c1/b", f64::MAX)]);
    let first = sun.report_downloads(&batch).await.unwrap();
    assert_eq!((first.counted, first.refused), (true, 3));
    assert!(!sun.report_downloads(&batch).await.unwrap().counted);
    check_rating(&world, 2.0).await;

    world.restart().await;
    let sun = world.client("sun4-1-1");
    check_rating(&world, 2.0).await;
    assert!(!sun.report_downloads(&batch).await.unwrap().counted, "counted before the restart");
    assert!(sun.report_downloads(&self::batch(2, &[("c1/a", 1.0)])).await.unwrap().counted);
    check_rating(&world, 3.0).await;
    let earlier = DownloadsBatch { boot: 0, ..self::batch(9, &[("c1/a", 1.0)]) };
    match sun.report_downloads(&earlier).await.unwrap_err() {
        ClientError::Refused(problem) => {
            assert_eq!(problem.status, 409);
            assert!(problem.detail.contains("its boot 0 is older") && problem.detail.contains("known boot 1"));
        }
        other => panic!("{other}"),
    }
    check_rating(&world, 3.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_from_downloads_to_the_cache_to_the_link() {
    let world = World::start().await;
    world.client("sun4-1-1").report_downloads(&batch(1, &[("c1/a", 5.0)])).await.unwrap();
    let cache = world.client("cache4-1");
    let wanted = cache.wanted(RegionId(4), "cache4-1", &WantedRequest { bytes_max: 1000, limit: 10 }).await.unwrap();
    assert_eq!(wanted.candidates.len(), 1);
    assert_eq!((wanted.candidates[0].file.as_str(), wanted.candidates[0].size), ("c1/a", 100));

    let backend = world.client("backend");
    let request = LinksRequest {
        client: "127.4.0.1".parse().unwrap(),
        files: vec!["c1/a".to_owned()],
        scheme: Scheme::Https,
        explain: false,
    };
    let before = backend.links(&request).await.unwrap();
    assert!(before.links[0].server.as_ref().unwrap().starts_with("sun4-1-"));
    let held = HoldingsReport {
        generation: 7,
        since: None,
        added: vec![Held { file: "c1/a".to_owned(), size: 100 }],
        removed: Vec::new(),
    };
    assert_eq!(cache.report_holdings(RegionId(4), "cache4-1", &held).await.unwrap().generation, 7);
    let after = backend.links(&request).await.unwrap();
    assert_eq!(after.links[0].url.as_deref(), Some("https://cache4-1.example.org/c1/a"));

    let holders = backend.held_by("/c1/%61").await.unwrap();
    assert_eq!((holders.file.as_str(), holders.caches[0].cache.as_str()), ("c1/a", "cache4-1"));
    assert!(backend.held_by("c1/a&b c").await.unwrap_err().to_string().contains("c1/a&b c"));
    assert!(cache.held_by("c1/a").await.is_err(), "caches are told by their region's state");

    let state = world.client("sun4-1-1").report_status(&status("sun4-1-1", &[])).await.unwrap();
    assert_eq!(state.servers.len(), 1);
    assert_eq!((state.holdings[0].cache.as_str(), state.holdings[0].generation), ("cache4-1", 7));
    assert_eq!(state.holdings[0].added.len(), 1);
    let state = world.client("sun4-1-1").report_status(&status("sun4-1-1", &[("cache4-1", 7)])).await.unwrap();
    assert!(state.holdings.is_empty(), "nothing new is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_cache_at_a_time_goes_to_a_content_server() {
    let world = World::start().await;
    let note = async |region, cache: &str, state| {
        let note = FetchNote { file: "c1/a".to_owned(), size: 100, state };
        world.client(cache).note_fetch(RegionId(region), cache, &note).await.unwrap().fetching
    };
    assert_eq!(note(4, "cache4-1", FetchState::Begins).await, None);
    assert_eq!(note(5, "cache5-1", FetchState::Begins).await.as_deref(), Some("cache4-1"));
    assert_eq!(note(4, "cache4-1", FetchState::Failed).await, None);
    assert_eq!(note(5, "cache5-1", FetchState::Begins).await, None);
    assert_eq!(note(4, "cache4-1", FetchState::Begins).await.as_deref(), Some("cache5-1"));
    // That one has it now, and is a source.
    let added = vec![Held { file: "c1/a".to_owned(), size: 100 }];
    let held = HoldingsReport { generation: 7, since: None, added, removed: Vec::new() };
    world.client("cache5-1").report_holdings(RegionId(5), "cache5-1", &held).await.unwrap();
    assert_eq!(note(4, "cache4-1", FetchState::Begins).await, None);
    world.client("sun4-1-1").report_downloads(&batch(1, &[("c1/a", 5.0)])).await.unwrap();
    let request = WantedRequest { bytes_max: 1000, limit: 10 };
    let wanted = world.client("cache4-1").wanted(RegionId(4), "cache4-1", &request).await.unwrap();
    assert_eq!(wanted.candidates[0].sources, ["cache5-1"]);
    // It starts again: what it had begun is begun no more.
    assert_eq!(note(5, "cache5-1", FetchState::Begins).await.as_deref(), Some("cache4-1"));
    let held = HoldingsReport { generation: 8, since: None, added: Vec::new(), removed: Vec::new() };
    world.client("cache4-1").report_holdings(RegionId(4), "cache4-1", &held).await.unwrap();
    assert_eq!(note(5, "cache5-1", FetchState::Begins).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_port_tells_what_the_api_does() {
    let world = World::start().await;
    world.client("sun4-1-1").report_downloads(&batch(1, &[("c1/a", 2.0)])).await.unwrap();
    assert_eq!(page(world.running.admin, "/readyz").await.unwrap().0, 200);
    let metrics = world.metrics().await;
    for line in [
        "popularity_calls_total{route=\"/v1/downloads\",status=\"200\"} 1",
        "popularity_pairs{region=\"4\"} 1",
        "popularity_batches_counted_total 1",
        "popularity_pair_updates_total 1",
        "popularity_commit_failures_total 0",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line}");
    }
}
