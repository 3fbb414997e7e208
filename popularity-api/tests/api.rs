//! The API over real sockets: who may call what, what is counted once, what survives a restart, who is linked.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "api/history.rs"]
mod history;
#[path = "api/openapi.rs"]
mod openapi;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use daemon::drain::Drain;
use geo::{RegionId, Scheme};
use popularity_api::purge::log::Log;
use popularity_api::server::{self, Config, Running};
use popularity_api::wire::{
    CacheGeneration, Download, DownloadsBatch, FetchNote, FetchState, Held, HoldingsReport, HotRate, LinksRequest,
    PurgeMode, PurgeRequest, PurgeState, PurgeWhat, StatusReport, WantedRequest,
};
use popularity_api::{Client, ClientConfig, ClientError, encoding};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
            let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
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
async fn a_refusal_says_what_is_wrong_and_where() {
    let world = World::start().await;
    let long = format!("{{\"client\":\"127.0.0.1\",\"files\":[{}]}}", vec!["\"c1/a\""; 10_001].join(","));
    for (method, path, body, status, says) in [
        ("GET", "/", "", 404, "/v1/"),
        ("GET", "/v1/links", "", 405, "another method"),
        ("POST", "/v1/links", "{", 400, "EOF"),
        ("POST", "/v1/links", r#"{"client":"nowhere","files":[]}"#, 400, "client"),
        ("POST", "/v1/links", r#"{"client":"127.0.0.1","files":[],"region":4}"#, 400, "region"),
        ("POST", "/v1/links", r#"{"client":"127.0.0.1","files":[]} x"#, 400, "after the JSON value"),
        ("POST", "/v1/links", &long, 400, "10000"),
        ("POST", "/v1/links", &" ".repeat(33 << 20), 413, "at most"),
        ("GET", "/v1/regions/9/top", "", 404, "region 9"),
        ("GET", "/v1/regions/four/top", "", 400, "four"),
        ("GET", "/v1/regions/4/top?limit=0", "", 400, "limit"),
        ("GET", "/v1/regions/4/hot?limit=0", "", 400, "limit"),
        ("POST", "/v1/purge", r#"{"id":"A","what":"file","value":"c1/a","mode":"hard"}"#, 400, "id"),
        ("POST", "/v1/purge", r#"{"id":"a","what":"file","value":"a","mode":"hard"}"#, 400, "value"),
        ("POST", "/v1/purge", r#"{"id":"a","what":"all","value":"a","mode":"hard"}"#, 400, "what"),
        ("POST", "/v1/purge", r#"{"id":"a","what":"file","value":"c1/a","mode":"hard","region":9}"#, 404, "region 9"),
        ("GET", "/v1/purge?before=1", "", 400, "before=1"),
        ("GET", "/v1/purge?after=-1", "", 400, "after=-1"),
        ("GET", "/v1/purge?after=18446744073709551615", "", 409, "lost"),
        ("GET", "/v1/purge/x/acknowledgements", "", 400, "sequence"),
        ("POST", "/v1/regions/4/caches/cache5-1/wanted", r#"{"bytes_max":1,"limit":1}"#, 404, "cache5-1"),
        (
            "POST",
            "/v1/regions/4/caches/cache4-1/fetches",
            r#"{"file":"c1/a b","size":1,"state":"begins"}"#,
            400,
            "c1/a b",
        ),
    ] {
        let (answer, text) = world.call(method, path, "operator", body).await;
        assert_eq!(answer, status, "{method} {path}: {text}");
        let problem: popularity_api::wire::Problem = serde_json::from_str(&text).unwrap();
        assert_eq!(problem.status, status);
        assert!(problem.detail.contains(says), "{method} {path}: {}", problem.detail);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_carry_the_headers_that_go_with_them() {
    let world = World::start().await;
    for (method, path, bearer, status, header, expected) in [
        ("POST", "/v1/links", "", 401, "www-authenticate", "Bearer"),
        ("GET", "/v1/links", "", 405, "allow", "POST"),
        ("POST", "/v1/regions/4/top", "", 405, "allow", "GET,HEAD"),
        ("GET", "/nothing", "", 404, "content-type", "application/problem+json"),
        ("POST", "/v1/links", "sun4-1-1", 403, "content-type", "application/problem+json"),
    ] {
        let answer = world.request(method, path, bearer).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{method} {path}");
        assert_eq!(answer.headers()[header], expected, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_could_have_sent_is_refused_before_it_counts() {
    let world = World::start().await;
    let operator = world.client("operator");
    for source in [String::new(), "x".repeat(256), "x".repeat(70_000)] {
        let error = operator.report_downloads(&DownloadsBatch { source, ..batch(1, &[]) }).await.unwrap_err();
        assert!(matches!(&error, ClientError::Refused(problem) if problem.status == 400), "{error}");
    }
    let hottest = |file: &str| HotRate { file: file.to_owned(), requests_per_second: 1.0, bits_per_second: 1.0 };
    for (hottest, expected) in [
        (vec![hottest("c1/a")], None),
        (vec![hottest("c1/a"), hottest("c1/a b")], None),
        (vec![HotRate { bits_per_second: -1.0, ..hottest("c1/a") }], Some("not negative")),
        (vec![hottest("c1/a"); 101], Some("at most 100")),
    ] {
        let report = StatusReport { hottest, ..status("sun4-1-1", &[]) };
        let said = world.client("sun4-1-1").report_status(&report).await.err().map(|error| error.to_string());
        match expected {
            None => assert_eq!(said, None),
            Some(expected) => assert!(said.as_ref().is_some_and(|said| said.contains(expected)), "{said:?}"),
        }
    }
    // Zero downloads are no mistake, and nothing to rate.
    let ack = world.client("sun4-1-1").report_downloads(&batch(1, &[("c1/a", 0.0), ("c1/b", -1.0)])).await.unwrap();
    assert_eq!((ack.counted, ack.refused), (true, 1));
    assert_eq!(world.client("backend").top(RegionId(4), 9).await.unwrap().files, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_too_much_learns_it_whether_it_said_how_much_or_not() {
    let world = World::start_with(|config| config.limits.body_bytes_max = 8_000_000).await;
    for (size, announced) in [(8_000_001, true), (16_000_000, true), (8_000_001, false), (16_000_000, false)] {
        for _ in 0..3 {
            let mut stream = tokio::net::TcpStream::connect(world.running.listen).await.unwrap();
            let length =
                if announced { format!("content-length: {size}") } else { "transfer-encoding: chunked".into() };
            let head = format!(
                "POST /v1/links HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer {}\r\n{length}\r\n\r\n",
                token("backend")
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            if !announced {
                stream.write_all(format!("{size:x}\r\n").as_bytes()).await.unwrap();
            }
            stream.write_all(&vec![b' '; size]).await.unwrap();
            if !announced {
                stream.write_all(b"\r\n0\r\n\r\n").await.unwrap();
            }
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 413"), "{size} bytes, announced: {announced}: {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packed_batch_counts_and_one_that_lies_does_not() {
    let world = World::start_with(|config| {
        config.limits.body_bytes_max = 1 << 20;
        config.limits.bodies_bytes_max = 3 << 20;
    })
    .await;
    let sun = world.client("sun4-1-1");
    assert!(sun.report_downloads(&batch(1, &[("c1/a", 0.01); 300])).await.unwrap().counted);
    check_rating(&world, 3.0).await;

    let json = |sequence: u64, spaces: usize| {
        let mut json = serde_json::to_vec(&batch(sequence, &[("c1/a", 3.0)])).unwrap();
        json.resize(json.len() + spaces, b' ');
        json
    };
    let cut = gzip(&json(4, 0)).split_last().unwrap().1.to_vec();
    for (encoding, body, status, says) in [
        ("gzip", gzip(&json(2, 0)), 200, ""),
        ("zstd", encoding::pack(&json(3, 500_000)).unwrap(), 200, ""),
        ("zstd", encoding::pack(&json(4, 64 << 20)).unwrap(), 413, "1048576 bytes"),
        ("gzip", gzip(&json(4, 64 << 20)), 413, "1048576 bytes"),
        ("zstd", json(4, 0), 400, "does not unpack"),
        ("gzip", cut, 400, "does not unpack"),
        ("br", json(4, 0), 415, "\"br\""),
        ("gzip, zstd", json(4, 0), 415, "more than one"),
        ("identity", json(4, 0), 200, ""),
    ] {
        let request = world.request("POST", "/v1/downloads", "sun4-1-1").header("content-encoding", encoding);
        let answer = request.body(body).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{encoding} {says}");
        let accepted = answer.headers().get("accept-encoding").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(accepted.as_deref(), (status == 415).then_some("zstd, gzip"));
        let text = answer.text().await.unwrap();
        let detail = serde_json::from_str::<serde_json::Value>(&text).unwrap()["detail"].to_string();
        assert!(says.is_empty() || detail.replace('\\', "").contains(says), "{encoding}: {text}");
    }
    check_rating(&world, 12.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_packs_what_is_more_than_a_packet() {
    use axum::http::HeaderMap;
    let encoding = async |headers: HeaderMap, body: axum::body::Bytes| {
        let value = headers.get("content-encoding").map(|value| value.to_str().unwrap().to_owned());
        let refused = body.len() + usize::from(value.as_deref() == Some("zstd")) * 1_000_000;
        axum::Json(serde_json::json!({ "counted": true, "refused": refused }))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().route("/v1/downloads", axum::routing::post(encoding));
    let server = tokio::spawn(axum::serve(listener, router).into_future());
    let folder = tempfile::tempdir().unwrap();
    secret(&folder.path().join("token"), &token("sun4-1-1"));
    let (url, token_file) = (format!("http://{address}"), folder.path().join("token"));
    let client = Client::new(&ClientConfig { url, token_file, timeout_ms: 60_000 }).unwrap();
    let seen = async |entries: usize| {
        let batch = batch(1, &vec![("c1/a", 1.0); entries]);
        (client.report_downloads(&batch).await.unwrap().refused, serde_json::to_vec(&batch).unwrap().len())
    };
    let (plain, json) = seen(5).await;
    assert_eq!(plain, json);
    let (packed, json) = seen(1000).await;
    assert!((1_000_000..1_000_000 + json / 10).contains(&packed), "{packed} of {json}");
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_body_unpacks_to_counts_for_the_ram_of_all_bodies() {
    let world = World::start_with(|config| {
        config.limits.body_bytes_max = 1 << 20;
        config.limits.bodies_bytes_max = 3 << 20;
        config.limits.request_s = 600;
    })
    .await;
    let call = async || {
        let body = encoding::pack(&vec![b' '; 900_000]).unwrap();
        let request = world.request("POST", "/v1/links", "backend").header("content-encoding", "zstd");
        request.body(body).send().await.unwrap()
    };
    assert_eq!(call().await.status().as_u16(), 400, "it fits: what is in it is another matter");
    // Two others are about to send as much as a call may: what is left does for it packed, and not unpacked.
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut stream = tokio::net::TcpStream::connect(world.running.listen).await.unwrap();
        let head = format!(
            "POST /v1/links HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
            token("backend"),
            1 << 20
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        others.push(stream);
    }
    let mut answer = call().await;
    while answer.status().as_u16() == 400 {
        answer = call().await;
    }
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (429, "1"));
    drop(others);
    while answer.status().as_u16() == 429 {
        answer = call().await;
    }
    assert_eq!(answer.status().as_u16(), 400, "all of it was given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_take_turns_in_the_ram_that_they_may_take() {
    let world = World::start_with(|config| {
        config.limits.body_bytes_max = 4096;
        config.limits.bodies_bytes_max = 3 * 4096;
        let sun = |n| {
            format!("[[sun]]\nname = \"sun4-1-{n}\"\naddresses = [\"192.0.2.{n}\"]\ninternal = \"10.4.1.{n}:8081\"\nweight = 100\n")
        };
        let suns: String = (10..30).map(sun).collect();
        std::fs::write(config.topology.file().unwrap(), format!("{TOPOLOGY}{suns}")).unwrap();
    })
    .await;
    let calls: Vec<_> = (10..30)
        .map(|n| {
            let client = world.client("operator");
            let batch = DownloadsBatch { source: format!("sun4-1-{n}"), ..batch(1, &[("c1/a", 1.0)]) };
            tokio::spawn(async move { client.report_downloads(&batch).await.unwrap().counted })
        })
        .collect();
    for call in calls {
        assert!(call.await.unwrap());
    }
    check_rating(&world, 20.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_takes_too_long_is_told_so() {
    let world = World::start_with(|config| config.limits.request_s = 1).await;
    let mut stream = tokio::net::TcpStream::connect(world.running.listen).await.unwrap();
    let head = format!(
        "POST /v1/links HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-length: 99\r\n\r\nhalf",
        token("backend")
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("not done within 1 s"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_port_tells_what_the_api_does() {
    let world = World::start().await;
    world.client("sun4-1-1").report_downloads(&batch(1, &[("c1/a", 2.0)])).await.unwrap();
    let get = async |path: &str| {
        let url = format!("http://{}{path}", world.running.admin);
        let answer = reqwest::Client::builder().no_proxy().build().unwrap().get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(get("/readyz").await.0, 200);
    let (_, metrics) = get("/metrics").await;
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

async fn check_wanted(world: &World, expected: &str) {
    let request = WantedRequest { bytes_max: 1_000_000, limit: 10 };
    let wanted = world.client("cache4-1").wanted(RegionId(4), "cache4-1", &request).await.unwrap();
    let mut files: Vec<String> = wanted.candidates.into_iter().map(|one| one.file).collect();
    files.sort();
    assert_eq!(files.join(" "), expected);
}

async fn check_rating(world: &World, downloads: f64) {
    let top = world.client("backend").top(RegionId(4), 10).await.unwrap();
    assert_eq!(top.files.len(), 1, "{:?}", top.files);
    assert!((top.files[0].rating_days - downloads).abs() < 0.01, "{:?}", top.files);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

fn batch(sequence: u64, files: &[(&str, f64)]) -> DownloadsBatch {
    let download = |&(file, downloads): &(&str, f64)| Download {
        region: RegionId(4),
        file: file.to_owned(),
        size: 100,
        downloads,
        bytes: 100,
    };
    let downloads = files.iter().map(download).collect();
    DownloadsBatch { source: "sun4-1-1".to_owned(), boot: 1, sequence, age_ms: 0, downloads }
}

fn status(server: &str, known: &[(&str, u64)]) -> StatusReport {
    let known = known.iter().map(|&(cache, generation)| CacheGeneration { cache: cache.to_owned(), generation });
    StatusReport {
        server: server.to_owned(),
        healthy: true,
        holdings_known: known.collect(),
        ..StatusReport::default()
    }
}

/// An API in a folder of its own.
struct World {
    folder: tempfile::TempDir,
    running: Running,
}

impl World {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("topology.toml"), TOPOLOGY).unwrap();
        let mut tokens = String::new();
        for (bearer, role, region, name) in [
            ("backend", "backend", "", "backend"),
            ("operator", "operator", "", "operator"),
            ("replica", "replica", "", "replica"),
            ("sun4-1-1", "sun", "region = 4\n", "sun4-1-1"),
            ("sun4-1-2", "sun", "region = 4\n", "sun4-1-2"),
            ("cache4-1", "cache", "region = 4\n", "cache4-1"),
            ("cache5-1", "cache", "region = 5\n", "cache5-1"),
            ("cache-as-sun4-1-1", "cache", "region = 4\n", "sun4-1-1"),
            ("sun4-1-1-of-5", "sun", "region = 5\n", "sun4-1-1"),
            ("sun-as-cache4-1", "sun", "region = 4\n", "cache4-1"),
            ("cache4-1-of-5", "cache", "region = 5\n", "cache4-1"),
            ("sun4-9-9", "sun", "region = 4\n", "sun4-9-9"),
        ] {
            tokens.push_str(&format!(
                "[[token]]\ntoken = {:?}\nrole = {role:?}\n{region}name = {name:?}\n",
                token(bearer)
            ));
            secret(&folder.path().join(bearer), &token(bearer));
        }
        secret(&folder.path().join("tokens.toml"), &tokens);
        let mut config = config(folder.path());
        change(&mut config);
        let running = server::start(config, Drain::new()).await.unwrap();
        Self { folder, running }
    }

    async fn restart(&mut self) {
        self.restart_with(|_| {}).await;
    }

    async fn restart_with(&mut self, change: impl FnOnce(&mut Config)) {
        self.running.drain.start();
        assert!(self.running.drain.finished(Duration::from_secs(60)).await);
        let mut config = config(self.folder.path());
        change(&mut config);
        self.running = server::start(config, Drain::new()).await.unwrap();
    }

    fn client(&self, bearer: &str) -> Client {
        let url = format!("http://{}", self.running.listen);
        Client::new(&ClientConfig { url, token_file: self.folder.path().join(bearer), timeout_ms: 60_000 }).unwrap()
    }

    async fn call(&self, method: &str, path: &str, bearer: &str, body: &str) -> (u16, String) {
        let answer = self.request(method, path, bearer).body(body.to_owned()).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    fn request(&self, method: &str, path: &str, bearer: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}{path}", self.running.listen);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.request(method.parse().unwrap(), url);
        if bearer.is_empty() { request } else { request.bearer_auth(token(bearer)) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_an_api_says_so() {
    let world = World::start().await;
    let gone = ClientConfig {
        url: "http://127.0.0.1:1".to_owned(),
        token_file: world.folder.path().join("backend"),
        timeout_ms: 60_000,
    };
    let error = Client::new(&gone).unwrap().top(RegionId(4), 1).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

fn config(folder: &Path) -> Config {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        listen: free,
        admin: free,
        topology: folder.join("topology.toml").into(),
        data: folder.join("data"),
        tokens: folder.join("tokens.toml"),
        commit_ms: 1,
        ..Config::default()
    }
}

fn token(name: &str) -> String {
    format!("token-of-{name}-0123456789")
}

fn secret(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

const TOPOLOGY: &str = r#"
version = 1
domain = "example.org"
default_region = 4
[content_servers]
url = "http://cs{number}.storage.example.org"
numbers = ["1-9"]
[[region]]
id = 4
name = "Moscow"
latitude = 55.75
longitude = 37.6
[[region]]
id = 5
name = "Berlin"
latitude = 52.5
longitude = 13.4
[[group]]
name = "sun4-1"
subnet = "192.0.2.0/26"
[[sun]]
name = "sun4-1-1"
addresses = ["192.0.2.1"]
internal = "10.4.1.1:8081"
weight = 100
[[sun]]
name = "sun4-1-2"
addresses = ["192.0.2.2"]
internal = "10.4.1.2:8081"
weight = 100
[[cache]]
name = "cache4-1"
addresses = ["192.0.2.200"]
internal = "10.4.9.1:8081"
weight = 100
bytes = 1000000
[[cache]]
name = "cache5-1"
addresses = ["192.0.2.201"]
internal = "10.5.9.1:8081"
weight = 100
bytes = 1000000
"#;
