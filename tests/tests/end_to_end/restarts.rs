//! kill -9, and the orderly end.

use hyper::Method;
use popularity_api::wire::Top;
use tests::client::Cut;
use tests::origin::{Gate, Script};
use tests::poll;
use tests::settings::token;
use tests::world::{API, World};

use crate::{CacheStatus, until_hit, until_whole};

const SIZE: u64 = 300_000;

#[tokio::test(flavor = "multi_thread")]
async fn ratings_that_were_acknowledged_survive_kill_9() {
    let world = World::with_api(&["sun1-1-1"]);
    let mut api = world.start(API).await;
    let sun = world.client().with("authorization", &format!("Bearer {}", token("sun1-1-1")));
    let operator = world.client().with("authorization", &format!("Bearer {}", token("operator")));
    let base = format!("http://{}", world.api());
    let batch = |sequence: u64| {
        let file = format!("c1/{sequence}.jpg");
        let download =
            serde_json::json!({ "region": 1, "file": file, "size": 1000, "downloads": sequence as f64, "bytes": 1000 });
        serde_json::json!({ "source": "sun1-1-1", "boot": 7, "sequence": sequence, "downloads": [download] })
    };
    for sequence in 1..=20 {
        let ack = sun.post(&format!("{base}/v1/downloads"), &batch(sequence)).await.unwrap();
        assert_eq!((ack.status, ack.json()["counted"].as_bool()), (200, Some(true)), "{}", ack.text());
        if sequence % 5 == 0 {
            api.kill();
            api.restart().await;
            // Sent again, as after an acknowledgement that was lost: counted once.
            let again = sun.post(&format!("{base}/v1/downloads"), &batch(sequence)).await.unwrap();
            assert_eq!(again.json()["counted"].as_bool(), Some(false), "{}", again.text());
        }
    }
    let answer = operator.get(&format!("{base}/v1/regions/1/top")).await.unwrap();
    let top: Top = serde_json::from_slice(&answer.body).unwrap();
    let rated: Vec<(String, f64)> =
        top.files.iter().map(|rated| (rated.file.clone(), rated.rating_days.round())).collect();
    let expected: Vec<(String, f64)> =
        (1..=20).rev().map(|number| (format!("c1/{number}.jpg"), f64::from(number))).collect();
    assert_eq!(rated, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_comes_back_warm_after_kill_9() {
    let world = World::with_api(&["sun1-1-1", "cache1-1"]);
    let _api = world.start(API).await;
    let _sun = world.start("sun1-1-1").await;
    let mut cache = world.start("cache1-1").await;
    let client = world.client_in(1);
    let files = ["c1/a.jpg", "c1/b.jpg", "c1/c.jpg"];
    for file in files {
        world.put(file, Script::file(SIZE));
        until_hit(&world, &client, &world.https("sun1-1-1", file), file, SIZE).await;
    }
    let held = |file: &'static str| {
        let (client, url) = (client.clone(), world.https("cache1-1", file));
        async move {
            let answer = client.get(&url).await.ok()?;
            CacheStatus::of(&answer).says("cache1-1", "hit").then_some(answer)
        }
    };
    for file in files {
        poll::until(&format!("{file} in the cache"), || held(file)).await;
    }
    cache.kill();
    world.origin.stop();
    cache.restart().await;
    for file in files {
        let (answer, _) = poll::until(&format!("{file} still in the cache"), || held(file)).await;
        world.check_whole(file, SIZE, &answer);
        assert_eq!(CacheStatus::of(&answer).servers(), ["cache1-1"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sun_that_was_killed_while_it_filled_serves_again() {
    let world = World::new(&["sun1-1-1"]);
    let mut sun = world.start("sun1-1-1").await;
    let gate = Gate::closed();
    world.put("c1/a.jpg", Script::file(SIZE).held_at(1000, &gate));
    let url = world.https("sun1-1-1", "c1/a.jpg");
    let mut response = world.client().start(Method::GET, &url).await.unwrap();
    response.read(1000).await.unwrap();
    sun.kill();
    let error = poll::within("the end of the body", response.finish()).await.unwrap_err();
    assert!(error.downcast_ref::<Cut>().is_some(), "{error:#}");
    gate.open();
    sun.restart().await;
    until_hit(&world, &world.client(), &url, "c1/a.jpg", SIZE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_finishes_what_runs_and_takes_nothing_new() {
    let world = World::new(&["sun1-1-1"]);
    let mut sun = world.start("sun1-1-1").await;
    let gate = Gate::closed();
    world.put("c1/a.jpg", Script::file(SIZE).held_at(1000, &gate));
    let url = world.https("sun1-1-1", "c1/a.jpg");
    let pattern = world.origin.pattern("/cs1/a.jpg");
    let mut running = Vec::new();
    for client in [world.client(), world.client().http2()] {
        let mut response = client.start(Method::GET, &url).await.unwrap();
        let first = response.read(1000).await.unwrap();
        pattern.check(0, &first);
        running.push((first.len() as u64, response));
    }
    // A connection that waits for nothing must not hold the drain up.
    let idle = world.client().connect(&url).await.unwrap();

    sun.terminate();
    poll::until_true("no new connections", || async { world.client().connect(&url).await.is_err() }).await;
    let ready = tests::process::admin_get(sun.admin(), "/readyz").await;
    assert!(ready.is_none_or(|(status, _)| status == 503));
    gate.open();
    for (read, response) in running {
        let rest = poll::within("the end of the body", response.finish()).await.unwrap();
        pattern.check(read, &rest.body);
        assert_eq!(read + rest.body.len() as u64, SIZE);
    }
    assert!(sun.until_ended().await.success());
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_daemon_ends_in_order_and_comes_back() {
    let names = [API, "sun1-1-1", "cache1-1"];
    let world = World::with_api(&names[1..]);
    world.put("c1/a.jpg", Script::file(SIZE));
    let mut daemons = Vec::new();
    for name in names {
        daemons.push(world.start(name).await);
    }
    until_hit(&world, &world.client(), &world.https("sun1-1-1", "c1/a.jpg"), "c1/a.jpg", SIZE).await;
    for daemon in &mut daemons {
        daemon.terminate();
        assert!(daemon.until_ended().await.success(), "{}", daemon.log());
        daemon.restart().await;
    }
    for server in ["sun1-1-1", "cache1-1"] {
        until_whole(&world, &world.client(), &world.https(server, "c1/a.jpg"), "c1/a.jpg", SIZE).await;
    }
    for daemon in &daemons {
        let panics: Vec<String> =
            daemon.log().lines().filter(|line| line.contains("panicked")).map(str::to_owned).collect();
        assert_eq!(panics, [""; 0]);
    }
}
