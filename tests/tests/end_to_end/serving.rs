//! One sun and one content server: what a single client sees.

use tests::origin::Script;
use tests::pattern::Pattern;
use tests::world::World;

use crate::{CacheStatus, until_hit};

const SUN: &str = "sun1-1-1";
const SIZE: u64 = 300_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_is_fetched_once_and_then_a_hit() {
    let world = World::new(&[SUN]);
    let script =
        Script::file(SIZE).header("set-cookie", "a=b").header("x-internal", "10.0.0.1").header("server", "disk-7");
    let etag = script.etag();
    world.put("c1/a.jpg", script);
    let _sun = world.start(SUN).await;
    let url = world.https(SUN, "c1/a.jpg");

    let miss = world.client().get(&url).await.unwrap();
    world.check_whole("c1/a.jpg", SIZE, &miss);
    let status = CacheStatus::of(&miss);
    assert_eq!(status.servers(), [SUN]);
    assert!(status.says(SUN, "fwd=miss") && status.says(SUN, "stored"), "{status:?}");

    let hit = until_hit(&world, &world.client(), &url, "c1/a.jpg", SIZE).await;
    let over_http2 = world.client().http2().get(&url).await.unwrap();
    world.check_whole("c1/a.jpg", SIZE, &over_http2);
    let plain = world.client().get(&world.http(SUN, "c1/a.jpg")).await.unwrap();
    world.check_whole("c1/a.jpg", SIZE, &plain);
    assert_eq!(world.fetches("c1/a.jpg"), 1);

    for answer in [&miss, &hit, &over_http2, &plain] {
        assert_eq!(answer.header("etag"), etag);
        assert_eq!(answer.header("content-type"), "image/jpeg");
        assert_eq!(answer.header("last-modified"), "Sun, 01 Nov 2026 10:00:00 GMT");
        assert_eq!(answer.header("accept-ranges"), "bytes");
        assert_eq!(answer.header("content-length"), SIZE.to_string());
        assert!(answer.header("via").contains(SUN), "Via: {}", answer.header("via"));
        for hidden in ["set-cookie", "x-internal"] {
            assert_eq!(answer.header(hidden), "", "{hidden}");
        }
        assert!(!answer.header("server").contains("disk-7"));
    }
    for answer in [&hit, &over_http2, &plain] {
        let age: u64 = answer.header("age").parse().expect("a hit has an Age of whole seconds");
        assert!(age < 60, "Age: {age}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_served_from_a_cold_and_from_a_warm_cache() {
    let world = World::new(&[SUN]);
    let _sun = world.start(SUN).await;
    let last = SIZE - 1;
    let cases = [
        ("bytes=0-0", Some((0, 1))),
        ("bytes=100-199", Some((100, 100))),
        ("bytes=100000-199999", Some((100_000, 100_000))),
        ("bytes=299990-", Some((299_990, 10))),
        ("bytes=299990-999999", Some((299_990, 10))),
        ("bytes=-10", Some((299_990, 10))),
        ("bytes=-999999", Some((0, SIZE))),
        ("bytes=0-1,5-6", Some((0, 7))),
        ("bytes=9-5", None),
        ("bytes=x", None),
        ("lines=0-1", None),
    ];
    for (number, (range, expected)) in cases.into_iter().enumerate() {
        let file = format!("c1/range{number}.jpg");
        world.put(&file, Script::file(SIZE));
        let url = world.https(SUN, &file);
        for round in ["cold", "warm"] {
            let answer = world.client().with("range", range).get(&url).await.unwrap();
            let (start, length) = expected.unwrap_or((0, SIZE));
            let status = if expected.is_some() { 206 } else { 200 };
            assert_eq!((answer.status, answer.body.len() as u64), (status, length), "{round} {range}");
            world.origin.pattern(&World::upstream(&file)).check(start, &answer.body);
            if expected.is_some() {
                let content_range = format!("bytes {start}-{}/{SIZE}", (start + length - 1).min(last));
                assert_eq!(answer.header("content-range"), content_range, "{round} {range}");
            }
            until_hit(&world, &world.client(), &url, &file, SIZE).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_long_file_make_up_the_whole() {
    const LONG: u64 = 5_000_000;
    let world = World::new(&[SUN]);
    let _sun = world.start(SUN).await;
    world.put("c1/long.mp4", Script::file(LONG));
    let url = world.https(SUN, "c1/long.mp4");
    for (start, end) in
        [(2_500_000, 2_500_100), (4_999_000, 5_000_000), (1_048_570, 1_048_590), (0, 10), (2_000_000, 3_000_000)]
    {
        let answer = world.client().with("range", &format!("bytes={start}-{}", end - 1)).get(&url).await.unwrap();
        assert_eq!((answer.status, answer.body.len() as u64), (206, end - start));
        world.origin.pattern("/cs1/long.mp4").check(start, &answer.body);
    }
    let whole = world.client().http2().get(&url).await.unwrap();
    world.check_whole("c1/long.mp4", LONG, &whole);
    until_hit(&world, &world.client(), &url, "c1/long.mp4", LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_past_the_end_is_416() {
    let world = World::new(&[SUN]);
    world.put("c1/a.jpg", Script::file(SIZE));
    let _sun = world.start(SUN).await;
    let url = world.https(SUN, "c1/a.jpg");
    for round in ["cold", "warm"] {
        let answer = world.client().with("range", "bytes=300000-").get(&url).await.unwrap();
        assert_eq!((answer.status, answer.header("content-range")), (416, format!("bytes */{SIZE}")), "{round}");
        until_hit(&world, &world.client(), &url, "c1/a.jpg", SIZE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_are_decided_by_the_validators() {
    let world = World::new(&[SUN]);
    let script = Script::file(SIZE);
    let etag = script.etag();
    let weak = format!("\"x\", W/{etag}");
    let date = "Sun, 01 Nov 2026 10:00:00 GMT";
    let earlier = "Sat, 31 Oct 2026 10:00:00 GMT";
    world.put("c1/a.jpg", script);
    let _sun = world.start(SUN).await;
    let url = world.https(SUN, "c1/a.jpg");
    let part = ("range", "bytes=0-9");
    let cases: &[(Fields<'_>, u16, u64)] = &[
        (&[("if-none-match", &etag)], 304, 0),
        (&[("if-none-match", &weak)], 304, 0),
        (&[("if-none-match", "*")], 304, 0),
        (&[("if-none-match", "\"other\"")], 200, SIZE),
        (&[("if-modified-since", date)], 304, 0),
        (&[("if-modified-since", earlier)], 200, SIZE),
        (&[("if-none-match", "\"other\""), ("if-modified-since", date)], 200, SIZE),
        (&[part, ("if-range", &etag)], 206, 10),
        (&[part, ("if-range", date)], 206, 10),
        (&[part, ("if-range", "\"other\"")], 200, SIZE),
        (&[part, ("if-range", earlier)], 200, SIZE),
        (&[("if-match", "\"other\"")], 412, 0),
    ];
    for (headers, status, length) in cases {
        let client = headers.iter().fold(world.client(), |client, (name, value)| client.with(name, value));
        let answer = client.get(&url).await.unwrap();
        assert_eq!(answer.status, *status, "{headers:?}");
        if *status != 412 {
            assert_eq!(answer.body.len() as u64, *length, "{headers:?}");
            Pattern::of("/cs1/a.jpg", 0).check(0, &answer.body);
        }
        if *status == 304 {
            assert_eq!(answer.header("etag"), etag);
        }
        until_hit(&world, &world.client(), &url, "c1/a.jpg", SIZE).await;
    }
    // Whatever the first condition made of a cold cache, the file was fetched whole at most once beside it.
    assert!(world.fetches("c1/a.jpg") <= 2, "{}", world.fetches("c1/a.jpg"));
}

/// Header fields of a request.
type Fields<'a> = &'a [(&'a str, &'a str)];

#[tokio::test(flavor = "multi_thread")]
async fn a_head_tells_all_but_the_body() {
    let world = World::new(&[SUN]);
    let _sun = world.start(SUN).await;
    for (number, client) in [world.client(), world.client().http2()].into_iter().enumerate() {
        let file = format!("c1/head{number}.jpg");
        let script = Script::file(SIZE);
        let etag = script.etag();
        world.put(&file, script);
        let url = world.https(SUN, &file);
        for round in ["cold", "warm"] {
            let head = client.head(&url).await.unwrap();
            assert_eq!((head.status, head.body.len()), (200, 0), "{round}");
            assert_eq!(
                (head.header("content-length"), head.header("etag")),
                (SIZE.to_string(), etag.clone()),
                "{round}"
            );
            until_hit(&world, &client, &url, &file, SIZE).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said_so() {
    let world = World::new(&[SUN]);
    world.put("c1/gone.jpg", Script::status(410));
    world.put("c1/secret.jpg", Script::status(403));
    world.put("c1/broken.jpg", Script::status(500));
    let _sun = world.start(SUN).await;
    for (file, expected) in [
        ("c1/nowhere.jpg", 404),
        ("c1/gone.jpg", 410),
        ("c1/secret.jpg", 403),
        ("c1/broken.jpg", 502),
        // No content server of ours.
        ("c10/a.jpg", 404),
        ("c4294967295/a.jpg", 404),
        ("favicon.ico", 404),
        ("", 404),
    ] {
        let answer = world.client().get(&world.https(SUN, file)).await.unwrap();
        assert_eq!(answer.status, expected, "{file}: {}", answer.text());
    }
    let asked: Vec<String> = world.origin.requests().into_iter().map(|seen| seen.target).collect();
    assert_eq!(asked, ["/cs1/nowhere.jpg", "/cs1/gone.jpg", "/cs1/secret.jpg", "/cs1/broken.jpg"]);
    // A file that appears is served: an error is not remembered for good.
    world.put("c1/broken.jpg", Script::file(SIZE));
    crate::until_whole(&world, &world.client(), &world.https(SUN, "c1/broken.jpg"), "c1/broken.jpg", SIZE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_file_and_a_file_of_unknown_length_are_served() {
    let world = World::new(&[SUN]);
    let _sun = world.start(SUN).await;
    for (file, script, size) in [
        ("c1/empty.txt", Script::file(0), 0),
        ("c1/chunked.bin", Script::file(SIZE).chunked(), SIZE),
        ("c1/chunked-empty.bin", Script::file(0).chunked(), 0),
        ("c1/no-ranges.bin", Script::file(SIZE).ignoring_ranges(), SIZE),
    ] {
        world.put(file, script);
        let url = world.https(SUN, file);
        for client in [world.client(), world.client().http2()] {
            let answer = client.get(&url).await.unwrap();
            world.check_whole(file, size, &answer);
        }
        until_hit(&world, &world.client(), &url, file, size).await;
        assert_eq!(world.fetches(file), 1, "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_may_read_what_its_class_lets_it() {
    let mut world = World::new(&[SUN]);
    world.topology.classes = "[[class]]\nname = \"pictures\"\npaths = [\"*.jpg\"]\n\
        cors = { origins = [\"https://site.test\"], expose_headers = [\"Cache-Status\", \"Age\"] }\n"
        .to_owned();
    world.write_topology(&world.topology);
    world.put("c1/a.jpg", Script::file(SIZE));
    world.put("c1/a.mp4", Script::file(SIZE));
    let _sun = world.start(SUN).await;
    for (file, origin, allowed) in [
        ("c1/a.jpg", "https://site.test", "https://site.test"),
        ("c1/a.jpg", "https://evil.test", ""),
        ("c1/a.mp4", "https://site.test", ""),
    ] {
        let answer = world.client().with("origin", origin).get(&world.https(SUN, file)).await.unwrap();
        world.check_whole(file, SIZE, &answer);
        assert_eq!(answer.header("access-control-allow-origin"), allowed, "{file} {origin}");
        let exposed = if allowed.is_empty() { "" } else { "cache-status, age" };
        assert_eq!(answer.header("access-control-expose-headers").to_lowercase(), exposed, "{file} {origin}");
    }
}
