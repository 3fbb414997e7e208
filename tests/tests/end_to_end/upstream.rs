//! A content server that dies, lies, hangs or is away.

use std::time::{Duration, Instant};

use hyper::Method;
use tests::client::{Client, Cut};
use tests::origin::{Gate, Script};
use tests::pattern::Pattern;
use tests::world::World;

use crate::{until_hit, until_whole};

const SUN: &str = "sun1-1-1";
const SIZE: u64 = 300_000;
const DEATH: u64 = 100_000;
/// Answered without waiting for a deadline of [`PATIENT`], on a machine that runs all tests at once.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Deadlines that a test would notice.
const PATIENT: &str = "upstream.connect_ms = 15000\nupstream.first_byte_ms = 15000\nupstream.idle_ms = 15000";

/// HTTP/1.1 and HTTP/2 with TLS, and plain HTTP/1.1: each ends a broken body in its own way.
fn ways(world: &World, file: &str) -> Vec<(Client, String)> {
    vec![
        (world.client(), world.https(SUN, file)),
        (world.client().http2(), world.https(SUN, file)),
        (world.client(), world.http(SUN, file)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_upstream_never_looks_complete() {
    let world = World::new(&[SUN]);
    let _sun = world.start(SUN).await;
    let breaking = [
        ("dies", Script::file(SIZE).dying_at(DEATH)),
        ("dies-at-once", Script::file(SIZE).dying_at(0)),
        ("dies-chunked", Script::file(SIZE).chunked().dying_at(DEATH)),
        ("short", Script::file(SIZE).declaring_too_much(7)),
        ("dies-without-ranges", Script::file(SIZE).ignoring_ranges().dying_at(DEATH)),
    ];
    for (name, script) in breaking {
        for way in 0..3 {
            let file = format!("c{}/{name}.jpg", way + 1);
            world.put(&file, script.clone());
            let (client, url) = ways(&world, &file).remove(way);
            match client.get(&url).await {
                Ok(answer) => {
                    assert!(answer.status >= 500, "{url}: {} with {} bytes", answer.status, answer.body.len());
                }
                Err(error) => {
                    let cut = error.downcast_ref::<Cut>();
                    let body = cut.map_or(&[][..], |cut| &cut.body);
                    world.origin.pattern(&World::upstream(&file)).check(0, body);
                    assert!(body.len() as u64 <= SIZE, "{url}");
                }
            }
            world.put(&file, Script::file(SIZE));
            until_whole(&world, &client, &url, &file, SIZE).await;
            until_hit(&world, &client, &url, &file, SIZE).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everyone_who_waits_for_a_fill_that_breaks_is_told() {
    let world = World::new(&[SUN]);
    let _sun = world.start(SUN).await;
    let gate = Gate::closed();
    world.put("c1/a.jpg", Script::file(SIZE).held_at(1000, &gate).dying_at(DEATH));
    let mut waiting = Vec::new();
    for (client, url) in ways(&world, "c1/a.jpg") {
        waiting.push(client.start(Method::GET, &url).await.unwrap());
    }
    gate.open();
    for response in waiting {
        let error = tests::poll::within("the end of the body", response.finish()).await.unwrap_err();
        Pattern::of("/cs1/a.jpg", 0).check(0, &error.downcast_ref::<Cut>().expect("a cut body").body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_once_is_resumed_and_the_client_gets_all_of_it() {
    let world = World::new(&[SUN]);
    let _sun = world.start(SUN).await;
    for way in 0..3 {
        let file = format!("c{}/a.jpg", way + 1);
        let script = Script::file(SIZE).dying_at_for(DEATH, 1);
        let etag = script.etag();
        world.put(&file, script);
        let (client, url) = ways(&world, &file).remove(way);
        let answer = client.get(&url).await.unwrap_or_else(|error| panic!("{url}: {error:#}"));
        world.check_whole(&file, SIZE, &answer);

        // One more question, for what was missing of the same version.
        let seen = world.origin.requests_for(&World::upstream(&file));
        assert_eq!(seen.len(), 2, "{seen:#?}");
        let header = |at: usize, name: &str| seen[at].headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!((header(0, "range"), header(0, "if-range")), (None, None), "{seen:#?}");
        assert_eq!(header(1, "if-range"), Some(etag.as_str()), "{seen:#?}");
        let range = header(1, "range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        let (first, last) = range.unwrap_or_else(|| panic!("{seen:#?}"));
        assert!((1..=DEATH).contains(&first.parse().unwrap()), "{first}: where it broke off");
        assert!(last.is_empty() || last == (SIZE - 1).to_string(), "{last}: to the end");

        until_hit(&world, &client, &url, &file, SIZE).await;
        assert_eq!(world.fetches(&file), 2, "what was resumed is kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_two_versions_never_mix() {
    let world = World::new(&[SUN]);
    let _sun = world.start(SUN).await;
    let gate = Gate::closed();
    world.put("c1/a.jpg", Script::file(SIZE).held_at(1000, &gate).dying_at(DEATH));
    let url = world.https(SUN, "c1/a.jpg");
    let response = world.client().start(Method::GET, &url).await.unwrap();
    gate.reached().await;
    world.put("c1/a.jpg", Script::file(SIZE).version(2));
    gate.open();
    let error = tests::poll::within("the end of the body", response.finish()).await.unwrap_err();
    Pattern::of("/cs1/a.jpg", 0).check(0, &error.downcast_ref::<Cut>().expect("a cut body").body);
    until_hit(&world, &world.client(), &url, "c1/a.jpg", SIZE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cached_outlives_the_content_server() {
    let world = World::new(&[SUN]);
    let _sun = world.start_with(SUN, |settings| PATIENT.clone_into(&mut settings.more)).await;
    world.put("c1/held.jpg", Script::file(SIZE));
    let held = world.https(SUN, "c1/held.jpg");
    until_hit(&world, &world.client(), &held, "c1/held.jpg", SIZE).await;

    world.origin.stop();
    for _ in 0..20 {
        let began = Instant::now();
        let miss = world.client().get(&world.https(SUN, "c1/miss.jpg")).await.unwrap();
        assert!([502, 503, 504].contains(&miss.status), "{}", miss.status);
        let answered = began.elapsed();
        println!("a miss without a content server: {} after {answered:?}", miss.status);
        assert!(answered < AT_ONCE, "{answered:?}");
        let hit = world.client().get(&held).await.unwrap();
        world.check_whole("c1/held.jpg", SIZE, &hit);
    }

    world.put("c1/miss.jpg", Script::file(SIZE));
    world.origin.resume();
    until_whole(&world, &world.client(), &world.https(SUN, "c1/miss.jpg"), "c1/miss.jpg", SIZE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_of_a_content_server_are_not_followed() {
    let world = World::new(&[SUN]);
    let _sun = world.start(SUN).await;
    world.put("c1/moved.jpg", Script::status(302));
    let answer = world.client().get(&world.https(SUN, "c1/moved.jpg")).await.unwrap();
    assert!(answer.status >= 400, "{}", answer.status);
    assert_eq!(world.origin.requests().len(), 1);
}
