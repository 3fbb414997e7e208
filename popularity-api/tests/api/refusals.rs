//! What is refused, and how it is said.

use geo::RegionId;
use popularity_api::wire::{DownloadsBatch, HotRate, StatusReport};
use popularity_api::{Client, ClientConfig, ClientError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fixture::token;
use crate::world::{World, batch, status};

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
