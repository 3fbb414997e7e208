//! Who may call what, and as whom.

use geo::RegionId;
use popularity_api::wire::DownloadsBatch;

use crate::world::{World, batch, status};

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_for_those_it_is_meant_for() {
    let world = World::start().await;
    // Columns: nobody, backend, sun4-1-1, sun4-1-2, cache4-1, cache5-1, replica, operator.
    let bearers = ["", "backend", "sun4-1-1", "sun4-1-2", "cache4-1", "cache5-1", "replica", "operator"];
    let status = r#"{"server":"sun4-1-1","topology_version":1,"healthy":true,"tiers":[],"hottest":[],"holdings_known":[],
        "load":{"bits_per_second":0,"requests_per_second":0,"connections":0,"cpu_pressure":0}}"#;
    let batch = r#"{"source":"sun4-1-1","boot":1,"sequence":1,"downloads":[]}"#;
    let wanted = r#"{"bytes_max":1,"limit":1}"#;
    let fetch = r#"{"file":"c1/a","size":1,"state":"failed"}"#;
    let purge = r#"{"id":"a","what":"file","value":"c1/a","mode":"hard"}"#;
    let holdings = r#"{"generation":1,"since":null,"added":[],"removed":[]}"#;
    for (method, path, body, expected) in [
        ("POST", "/v1/downloads", batch, [401, 403, 200, 403, 403, 403, 403, 200]),
        ("POST", "/v1/status", status, [401, 403, 200, 403, 403, 403, 403, 200]),
        ("POST", "/v1/regions/4/caches/cache4-1/wanted", wanted, [401, 403, 403, 403, 200, 403, 403, 200]),
        ("POST", "/v1/regions/4/caches/cache4-1/holdings", holdings, [401, 403, 403, 403, 200, 403, 403, 200]),
        ("POST", "/v1/regions/4/caches/cache4-1/fetches", fetch, [401, 403, 403, 403, 200, 403, 403, 200]),
        ("POST", "/v1/links", r#"{"client":"127.0.0.1","files":[]}"#, [401, 200, 403, 403, 403, 403, 403, 200]),
        ("GET", "/v1/regions/4/top", "", [401, 200, 403, 403, 403, 403, 403, 200]),
        ("GET", "/v1/regions/4/hot", "", [401, 403, 403, 403, 403, 403, 403, 200]),
        ("GET", "/v1/regions/4/servers", "", [401, 403, 200, 200, 200, 200, 403, 200]),
        ("POST", "/v1/purge", purge, [401, 403, 403, 403, 403, 403, 403, 200]),
        ("GET", "/v1/purge", "", [401, 403, 200, 200, 200, 200, 200, 200]),
        ("GET", "/v1/purge/1/acknowledgements", "", [401, 404, 403, 403, 403, 403, 403, 404]),
        ("GET", "/v1/snapshot", "", [401, 403, 403, 403, 403, 403, 200, 200]),
        ("GET", "/v1/state", "", [401, 403, 403, 403, 403, 403, 200, 200]),
        (
            "GET",
            "/v1/snapshot/0?lineage=0123456789abcdef0123456789abcdef",
            "",
            [401, 403, 403, 403, 403, 403, 410, 410],
        ),
        ("GET", "/v1/binlog?after=0&lineage=x", "", [401, 403, 403, 403, 403, 403, 400, 400]),
        ("GET", "/v1/state/holdings/cache5-1", "", [401, 403, 403, 403, 403, 403, 404, 404]),
    ] {
        for (bearer, expected) in bearers.into_iter().zip(expected) {
            let (answer, _) = world.call(method, path, bearer, body).await;
            assert_eq!(answer, expected, "{method} {path} by {bearer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_speaks_as_what_the_topology_says_it_is() {
    let world = World::start().await;
    for (name, bearer, expected) in [
        ("sun4-1-1", "sun4-1-1", 200),
        ("sun4-1-1", "operator", 200),
        ("sun4-1-1", "cache-as-sun4-1-1", 403),
        ("sun4-1-1", "sun4-1-1-of-5", 403),
        ("cache4-1", "cache4-1", 200),
        ("cache4-1", "sun-as-cache4-1", 403),
        ("cache4-1", "cache4-1-of-5", 403),
        ("sun4-9-9", "sun4-9-9", 403),
        ("sun4-9-9", "operator", 404),
        ("sun4-9-9", "sun4-1-1", 403),
    ] {
        let batch = serde_json::to_string(&DownloadsBatch { source: name.to_owned(), ..batch(1, &[]) }).unwrap();
        let status = serde_json::to_string(&status(name, &[])).unwrap();
        for (path, body) in [("/v1/downloads", batch), ("/v1/status", status)] {
            let (answer, text) = world.call("POST", path, bearer, &body).await;
            assert_eq!(answer, expected, "{path} as {name} by {bearer}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_reports_logs_under_names_of_their_own() {
    let world = World::start().await;
    for (source, bearer, expected) in [
        ("log:1", "operator", 200),
        ("log:1000", "operator", 200),
        ("log:1", "sun4-1-1", 403),
        ("log:1", "backend", 403),
        ("log:0", "operator", 404),
        ("log:1001", "operator", 404),
        ("log:01", "operator", 404),
        ("log:+1", "operator", 404),
        ("log:", "operator", 404),
        ("log:a", "operator", 404),
    ] {
        let report = DownloadsBatch { source: source.to_owned(), ..batch(1, &[("c1/film", 3.0)]) };
        let (answer, text) =
            world.call("POST", "/v1/downloads", bearer, &serde_json::to_string(&report).unwrap()).await;
        assert_eq!(answer, expected, "{source} by {bearer}: {text}");
    }
    // Its later boot is none of a server's business.
    let operator = world.client("operator");
    let log = DownloadsBatch { source: "log:2".to_owned(), boot: 1 << 50, ..batch(1, &[("c1/film", 3.0)]) };
    assert!(operator.report_downloads(&log).await.unwrap().counted);
    assert!(!operator.report_downloads(&log).await.unwrap().counted, "it is counted once");
    assert!(world.client("sun4-1-1").report_downloads(&batch(1, &[("c1/film", 1.0)])).await.unwrap().counted);
    let rated = operator.top(RegionId(4), 1).await.unwrap().files;
    assert_eq!((rated[0].file.as_str(), rated[0].rating_days.round()), ("c1/film", 10.0));
}
