//! What clients may send, and what of it reaches a content server.

use std::collections::BTreeSet;
use std::time::Duration;

use hyper::Method;
use tests::origin::{Gate, Script};
use tests::raw::{End, Raw};
use tests::world::World;
use tokio::task::JoinSet;

use crate::until_hit;

const SUN: &str = "sun1-1-1";
const SUNS: [&str; 2] = [SUN, "sun1-1-2"];
const SITE: &str = "www.site.test";
const SIZE: u64 = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn no_target_reaches_what_it_does_not_name() {
    let world = World::new(&[SUN]);
    world.put("c1/a.jpg", Script::file(SIZE));
    let _sun = world.start(SUN).await;
    let targets: &[(&str, &[u16])] = &[
        ("/c1/../c2/a.jpg", &[400]),
        ("/c1/../../etc/passwd", &[400]),
        ("/c1/%2e%2e/a.jpg", &[400]),
        ("/c1/.%2E/a.jpg", &[400]),
        ("/c1/./a.jpg", &[400]),
        ("/c1/a%2fb.jpg", &[400]),
        ("/c1/..%2fb.jpg", &[400]),
        ("/c1/a%5cb.jpg", &[400]),
        ("/c1/a%00.jpg", &[400]),
        ("/c1/a%0d%0aX:%20y", &[400]),
        ("/c1/a%zz.jpg", &[400]),
        ("/c1//a.jpg", &[400]),
        ("/c1/a.jpg/", &[400]),
        ("/c1/", &[400]),
        ("//c1/a.jpg", &[400, 404]),
        ("//evil.test/c1/a.jpg", &[400, 404]),
        ("/c1", &[404]),
        ("/c01/a.jpg", &[404]),
        ("/c+1/a.jpg", &[404]),
        ("/c-1/a.jpg", &[404]),
        ("/c1@evil.test/a.jpg", &[404]),
        ("/c1:80/a.jpg", &[404]),
        ("/c99/a.jpg", &[404]),
        ("/c4294967297/a.jpg", &[404]),
        ("/C1/a.jpg", &[404]),
        ("/", &[404]),
        ("/metrics", &[404]),
        ("/v1/links", &[404]),
        ("*", &[400, 404]),
        ("evil.test:80", &[400, 404]),
        ("http://evil.test/metrics", &[400, 404]),
        ("http://evil.test/c1/../a.jpg", &[400]),
        ("ftp://evil.test/c99/a.jpg", &[400, 404]),
    ];
    for &(target, expected) in targets {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {SUN}.cdn.test\r\nConnection: close\r\n\r\n");
        let status = Raw::plain(world.server(SUN).http()).await.status(request.as_bytes()).await;
        assert!(status.is_some_and(|status| expected.contains(&status)), "{target}: {status:?}, expected {expected:?}");
    }
    assert_eq!(targets_seen(&world), [""; 0]);

    // These name the file, each in its own odd way: whatever the answer, nothing else is asked of a content server.
    for target in [
        "http://evil.test:81/c1/a.jpg",
        "/c1/%61.jpg",
        "/c1/a.jpg?url=http://evil.test/&signature=1",
        "/c1/a.jpg?/../x",
        "http://user:password@127.0.0.1:9/c1/a.jpg",
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n");
        let status = Raw::plain(world.server(SUN).http()).await.status(request.as_bytes()).await;
        assert!(matches!(status, Some(200 | 400)), "{target}: {status:?}");
    }
    assert_eq!(targets_seen(&world), ["/cs1/a.jpg"]);
}

fn targets_seen(world: &World) -> Vec<String> {
    world.origin.requests().into_iter().map(|seen| seen.target).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_header_of_a_client_goes_further() {
    let world = World::new(&[SUN]);
    let _sun = world.start(SUN).await;
    let sent = [
        ("forwarded", "for=192.0.2.1;host=evil.test;proto=http"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-host", "evil.test"),
        ("x-original-url", "/admin"),
        ("x-rewrite-url", "/admin"),
        ("cookie", "session=secret"),
        ("authorization", "Bearer secret"),
        ("proxy-authorization", "Basic secret"),
        ("cdn-loop", "someone-else"),
        ("via", "1.1 someone-else"),
        ("referer", "https://secret.test/"),
        ("cache-control", "no-cache, no-store, max-age=0"),
        ("pragma", "no-cache"),
        ("accept-encoding", "gzip, br"),
        ("accept-language", "xx"),
        ("user-agent", "secret/1"),
        ("expect", "nothing"),
        ("te", "trailers"),
        ("x-sun-from", "sun1-1-2"),
        ("range", "bytes=zzz-"),
        ("if-none-match", "\"secret"),
    ];
    let allowed = [
        "host",
        "accept",
        "accept-encoding",
        "user-agent",
        "via",
        "cdn-loop",
        "connection",
        "range",
        "if-range",
        "if-none-match",
        "if-modified-since",
    ];
    for (number, (name, value)) in sent.into_iter().enumerate() {
        let file = format!("c1/{number}.jpg");
        world.put(&file, Script::file(SIZE));
        let answer = world.client().with(name, value).get(&world.https(SUN, &file)).await.unwrap();
        if name != "expect" {
            world.check_whole(&file, SIZE, &answer);
        }
        for seen in world.origin.requests_for(&World::upstream(&file)) {
            assert_eq!(seen.headers["host"], world.origin.address().to_string(), "{name}");
            for (header, held) in &seen.headers {
                let held = String::from_utf8_lossy(held.as_bytes());
                assert!(allowed.contains(&header.as_str()), "{header}: {held} went upstream with {name}: {value}");
                assert!(
                    header == "cdn-loop" || header == "via" || held != value,
                    "{name}: {value} went upstream as {header}"
                );
                assert!(!held.contains("secret") && !held.contains("evil"), "{header}: {held}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused_and_others_go_on() {
    let world = World::new(&[SUN]);
    world.put("c1/a.jpg", Script::file(SIZE));
    let _sun = world.start(SUN).await;
    let url = world.https(SUN, "c1/a.jpg");
    until_hit(&world, &world.client(), &url, "c1/a.jpg", SIZE).await;
    let long = "x".repeat(200_000);
    let many = "a: b\r\n".repeat(5000);
    let host = "Host: h\r\n";
    let requests = [
        "\r\n\r\n\r\n\r\nnonsense\r\n\r\n".to_owned(),
        "GET\r\n\r\n".to_owned(),
        "GET /c1/a.jpg\r\n\r\n".to_owned(),
        format!("GET /c1/a.jpg HTTP/9.9\r\n{host}\r\n"),
        "GET /c1/a.jpg HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET /c1/a.jpg HTTP/1.1\r\n{host}{host}\r\n"),
        format!("GET /c1/a.jpg HTTP/1.1\r\n{host}no colon here\r\n\r\n"),
        format!("GET /c1/a.jpg HTTP/1.1\r\n{host}bad name: x\r\n\r\n"),
        format!("GET /c1/a.jpg HTTP/1.1\r\n{host}x: a\0b\r\n\r\n"),
        format!("GET /c1/a b.jpg HTTP/1.1\r\n{host}\r\n"),
        format!("GET /c1/\u{7f}.jpg HTTP/1.1\r\n{host}\r\n"),
        format!("GET /c1/{long} HTTP/1.1\r\n{host}\r\n"),
        format!("GET /c1/a.jpg HTTP/1.1\r\n{host}x: {long}\r\n\r\n"),
        format!("GET /c1/a.jpg HTTP/1.1\r\n{host}{many}\r\n"),
        format!("POST /c1/a.jpg HTTP/1.1\r\n{host}Content-Length: 5\r\n\r\nhello"),
        format!("POST /c1/a.jpg HTTP/1.1\r\n{host}Content-Length: -5\r\n\r\n"),
        format!("POST /c1/a.jpg HTTP/1.1\r\n{host}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
        format!("PUT /c1/a.jpg HTTP/1.1\r\n{host}Transfer-Encoding: nonsense\r\n\r\n"),
        format!("DELETE /c1/a.jpg HTTP/1.1\r\n{host}\r\n"),
        format!("TRACE /c1/a.jpg HTTP/1.1\r\n{host}\r\n"),
        format!("CONNECT evil.test:80 HTTP/1.1\r\n{host}\r\n"),
        "PRI * HTTP/2.0\r\n\r\nnonsense\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\r\n\r\n".to_owned(),
    ];
    for request in &requests {
        let begin: String = request.chars().take(60).collect();
        let status = Raw::plain(world.server(SUN).http()).await.status(request.as_bytes()).await;
        assert!(status.is_none_or(|status| (400..600).contains(&status)), "{begin:?}: {status:?}");
        let mut tls = Raw::tls(world.server(SUN).https(), "sun1-1-1.cdn.test", &world.authority, &[b"http/1.1"]).await;
        let status = tls.status(request.as_bytes()).await;
        assert!(status.is_none_or(|status| (400..600).contains(&status)), "TLS {begin:?}: {status:?}");
        world.check_whole("c1/a.jpg", SIZE, &world.client().get(&url).await.unwrap());
    }
    // What is no TLS at all, on the TLS port.
    for bytes in [&b"GET /c1/a.jpg HTTP/1.1\r\nHost: h\r\n\r\n"[..], &[0; 1000], &[0x16, 3, 1, 0xff, 0xff]] {
        let mut raw = Raw::plain(world.server(SUN).https()).await;
        raw.write(bytes).await;
        world.check_whole("c1/a.jpg", SIZE, &world.client().get(&url).await.unwrap());
    }
    // What is no HTTP/2, after both sides agreed on it.
    for bytes in [
        &b"GET /c1/a.jpg HTTP/1.1\r\nHost: h\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let mut raw = Raw::tls(world.server(SUN).https(), "sun1-1-1.cdn.test", &world.authority, &[b"h2"]).await;
        raw.write(bytes).await;
        let (_, end) = raw.read(usize::MAX, tests::poll::DEADLINE).await;
        assert_eq!(end, End::Closed);
        world.check_whole("c1/a.jpg", SIZE, &world.client().get(&url).await.unwrap());
    }
    assert_eq!(targets_seen(&world), ["/cs1/a.jpg"]);
}

/// Requests that never come to their end are given up, and cost the others nothing.
#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_closed_and_others_go_on() {
    let world = World::new(&[SUN]);
    world.put("c1/a.jpg", Script::file(SIZE));
    let _sun =
        world.start_with(SUN, |settings| settings.more = "limits.head_s = 3\nlimits.handshake_s = 3".to_owned()).await;
    let url = world.https(SUN, "c1/a.jpg");
    let mut slow = JoinSet::new();
    for begin in [
        "",
        "GET",
        "PRI * HTTP/2.0",
        "GET /c1/a.jpg HTTP/1.1\r\nHost: h\r\n",
        "GET /c1/a.jpg HTTP/1.1\r\nHost: h\r\nx: ",
    ] {
        for _ in 0..25 {
            let mut raw = Raw::plain(world.server(SUN).http()).await;
            raw.write(begin.as_bytes()).await;
            slow.spawn(async move { (begin, raw.read(usize::MAX, tests::poll::DEADLINE).await.1) });
        }
    }
    for _ in 0..25 {
        // A TLS handshake that stops after its first bytes.
        let mut raw = Raw::plain(world.server(SUN).https()).await;
        raw.write(&[0x16, 3, 1, 1, 0]).await;
        slow.spawn(async move { ("TLS", raw.read(usize::MAX, tests::poll::DEADLINE).await.1) });
    }
    for (name, protocol, begin) in [
        ("TLS, then nothing", &b"http/1.1"[..], &b""[..]),
        ("TLS, then half a request", b"http/1.1", b"GET /c1/a.jpg HTTP/1.1\r\nHost: h\r\n"),
        ("HTTP/2, then nothing", b"h2", b""),
        ("HTTP/2, then half its preface", b"h2", b"PRI * HTTP/2.0\r\n"),
    ] {
        let mut raw = Raw::tls(world.server(SUN).https(), "sun1-1-1.cdn.test", &world.authority, &[protocol]).await;
        raw.write(begin).await;
        slow.spawn(async move { (name, raw.read(usize::MAX, tests::poll::DEADLINE).await.1) });
    }
    for _ in 0..20 {
        for client in [world.client(), world.client().http2()] {
            world.check_whole("c1/a.jpg", SIZE, &client.get(&url).await.unwrap());
        }
    }
    let mut open = BTreeSet::new();
    while let Some(ended) = slow.join_next().await {
        let (begin, end) = ended.unwrap();
        if end != End::Closed {
            open.insert(begin);
        }
    }
    assert_eq!(open, BTreeSet::new(), "still open");
}

/// One who drips a valid request is served or closed, but is never in another's way.
#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let world = World::new(&[SUN]);
    world.put("c1/a.txt", Script::file(10));
    world.put("c1/b.txt", Script::file(20));
    let _sun = world.start(SUN).await;
    let mut raw = Raw::plain(world.server(SUN).http()).await;
    let request = |file: &str, more: &str| format!("GET /c1/{file} HTTP/1.1\r\nHost: h\r\n{more}\r\n");
    let requests = [request("a.txt", ""), request("nowhere", ""), request("b.txt", "Connection: close\r\n")].concat();
    assert!(raw.write(requests.as_bytes()).await);
    let (answers, end) = raw.read(usize::MAX, Duration::from_secs(30)).await;
    assert_eq!(end, End::Closed);
    let text = String::from_utf8_lossy(&answers);
    let statuses: Vec<&str> = text.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "404", "200"]);
    assert!(answers.ends_with(&world.origin.pattern("/cs1/b.txt").bytes(0, 20)));
}

/// Requests of one connection that are given up as soon as they are made (CVE-2023-44487) cost the content server
/// one fetch and the others nothing.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_given_up_at_once_cost_one_fetch() {
    let world = World::new(&[SUN]);
    let gate = Gate::closed();
    world.put("c1/held.jpg", Script::file(SIZE).held_at(0, &gate));
    world.put("c1/a.jpg", Script::file(SIZE));
    let _sun = world.start(SUN).await;
    let (client, url) = (world.client().http2(), world.https(SUN, "c1/held.jpg"));
    let mut connection = client.connect(&url).await.unwrap();
    let mut given_up = 0;
    while given_up < 2000 {
        let request = client.request(Method::GET, &url, "").unwrap();
        // A server that has had enough closes; then one begins anew.
        let Ok(answer) = tokio::time::timeout(Duration::from_millis(1), connection.send(request)).await else {
            given_up += 1;
            continue;
        };
        match answer {
            Ok(answer) => drop(answer),
            Err(_) => connection = client.connect(&url).await.unwrap(),
        }
        given_up += 1;
    }
    world.check_whole("c1/a.jpg", SIZE, &client.get(&world.https(SUN, "c1/a.jpg")).await.unwrap());
    gate.open();
    until_hit(&world, &client, &url, "c1/held.jpg", SIZE).await;
    assert_eq!(world.fetches("c1/held.jpg"), 1);
}

/// Two suns that a site's host leads to; every file has one that does not own it.
fn site_of_two() -> World {
    let mut world = World::new(&SUNS);
    world.topology.classes = format!("[[site]]\nhost = \"{SITE}\"\ncontent_server = 1\n");
    world.write_topology(&world.topology);
    world
}

fn site_url(path: &str) -> String {
    format!("http://{SITE}:{}/{path}", tests::topology::HTTP_PORT)
}

/// What a client says of itself and of the host it means is not believed by the sun that it asks, nor by the owner,
/// nor told to the content server; what the servers tell each other stays among them.
#[tokio::test(flavor = "multi_thread")]
async fn a_site_is_asked_for_in_this_cdns_own_words() {
    let world = site_of_two();
    let (_first, _second) = (world.start(SUNS[0]).await, world.start(SUNS[1]).await);
    let internal = ["cache-tag", "surrogate-key", "sun-purge-tags", "sun-purge-mark"];
    let claims = [
        ("sun-site", "evil.test"),
        ("x-forwarded-host", "evil.test"),
        ("x-forwarded-for", "192.0.2.1"),
        ("forwarded", "host=evil.test"),
    ];
    for owner in SUNS {
        let file = world.files_owned_by(owner, "site", 1).remove(0);
        let script = Script::file(SIZE).header("cache-control", "max-age=60");
        world.put(&file, internal.iter().fold(script, |script, name| script.header(name, "1")));
        let client = world.client().name(SITE, world.server(SUN).address.into());
        let client = claims.iter().fold(client, |client, (name, value)| client.with(name, value));
        for _ in 0..2 {
            let answer = client.get(&site_url(file.strip_prefix("c1/").unwrap())).await.unwrap();
            world.check_whole(&file, SIZE, &answer);
            for name in internal {
                assert!(!answer.headers.contains_key(name), "{owner}: {name} in {:?}", answer.headers);
            }
        }
        let seen = world.origin.requests_for(&World::upstream(&file));
        assert_eq!(seen.len(), 1, "{owner}: kept as the site's class says");
        let headers = &seen[0].headers;
        assert_eq!(headers["x-forwarded-host"], SITE, "{owner}");
        assert!(headers["x-forwarded-for"].to_str().unwrap().starts_with("127."), "{owner}: {headers:?}");
        assert!(!headers.contains_key("sun-site") && !headers.contains_key("forwarded"), "{owner}: {headers:?}");
    }
}

/// Whoever finds a request that the content server fails at has it alone to fail.
#[tokio::test(flavor = "multi_thread")]
async fn errors_that_a_client_provokes_are_its_own() {
    let world = site_of_two();
    let _sun = world.start(SUN).await;
    world.put("c1/form", Script::status(500).any_method());
    world.put("c1/a", Script::file(SIZE));
    let client = world.client().name(SITE, world.server(SUN).address.into());
    for _ in 0..10 {
        let failed = client.start(Method::POST, &site_url("form")).await.unwrap().finish().await.unwrap();
        assert_eq!(failed.status, 500);
    }
    let answer = client.get(&site_url("a")).await.unwrap();
    world.check_whole("c1/a", SIZE, &answer);
}
