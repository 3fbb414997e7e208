//! A content server that dies, lies, hangs or is away.

use std::time::Instant;

use hyper::Method;
use tests::client::{Client, Cut};
use tests::origin::{Gate, Script};
use tests::pattern::Pattern;
use tests::world::World;

use crate::{until_hit, until_whole};

const SUN: &str = "sun1-1-1";
const SIZE: u64 = 300_000;
const DEATH: u64 = 100_000;

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
async fn a_connection_that_breaks_once_is_resumed_or_told() {
    let world = World::new(&[SUN]);
    let _sun = world.start(SUN).await;
    world.put("c1/a.jpg", Script::file(SIZE).dying_at_for(DEATH, 1));
    let url = world.https(SUN, "c1/a.jpg");
    match world.client().get(&url).await {
        Ok(answer) => world.check_whole("c1/a.jpg", SIZE, &answer),
        Err(error) => Pattern::of("/cs1/a.jpg", 0).check(0, &error.downcast_ref::<Cut>().expect("a cut body").body),
    }
    until_hit(&world, &world.client(), &url, "c1/a.jpg", SIZE).await;
    // Only what was missing is asked for again, and only of the same version.
    for seen in world.origin.requests_for("/cs1/a.jpg").iter().skip(1).filter(|seen| seen.headers.contains_key("range"))
    {
        assert!(seen.headers.contains_key("if-range"), "{seen:?}");
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
    let _sun = world.start(SUN).await;
    world.put("c1/held.jpg", Script::file(SIZE));
    let held = world.https(SUN, "c1/held.jpg");
    until_hit(&world, &world.client(), &held, "c1/held.jpg", SIZE).await;

    world.origin.stop();
    for _ in 0..20 {
        let began = Instant::now();
        let miss = world.client().get(&world.https(SUN, "c1/miss.jpg")).await.unwrap();
        assert!([502, 503, 504].contains(&miss.status), "{}", miss.status);
        println!("a miss without a content server: {} after {:?}", miss.status, began.elapsed());
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
