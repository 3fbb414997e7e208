//! Several servers of a region: who asks whom, and that nobody waits for himself.

use hyper::Method;
use tests::origin::{Gate, Script};
use tests::settings;
use tests::world::World;

use crate::{CacheStatus, until_hit};

const SIZE: u64 = 300_000;

#[tokio::test(flavor = "multi_thread")]
async fn another_sun_goes_to_the_owner() {
    let world = World::new(&["sun1-1-1", "sun1-1-2"]);
    let (_first, _second) = (world.start("sun1-1-1").await, world.start("sun1-1-2").await);
    for file in world.files_owned_by("sun1-1-2", "a", 3) {
        world.put(&file, Script::file(SIZE));
        let miss = world.client().get(&world.https("sun1-1-1", &file)).await.unwrap();
        world.check_whole(&file, SIZE, &miss);
        let status = CacheStatus::of(&miss);
        assert_eq!(status.servers(), ["sun1-1-2", "sun1-1-1"], "{status:?}");
        assert!(status.says("sun1-1-2", "fwd=miss") && status.says("sun1-1-1", "fwd=miss"), "{status:?}");
        // The region has its copy: the owner's.
        until_hit(&world, &world.client(), &world.https("sun1-1-2", &file), &file, SIZE).await;
        until_hit(&world, &world.client(), &world.https("sun1-1-1", &file), &file, SIZE).await;
        assert_eq!(world.fetches(&file), 1, "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_comes_through_the_owner_too() {
    let world = World::new(&["sun1-1-1", "sun1-1-2"]);
    let (_first, _second) = (world.start("sun1-1-1").await, world.start("sun1-1-2").await);
    let file = &world.files_owned_by("sun1-1-2", "part", 1)[0];
    world.put(file, Script::file(5_000_000));
    for (start, end) in [(4_000_000, 4_000_100), (0, 100), (1_048_000, 3_000_000)] {
        let client = world.client().with("range", &format!("bytes={start}-{}", end - 1));
        let answer = client.get(&world.https("sun1-1-1", file)).await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (206, end - start));
        world.origin.pattern(&World::upstream(file)).check(start as u64, &answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_two_suns_are_streamed_to_from_one_fetch() {
    let world = World::new(&["sun1-1-1", "sun1-1-2"]);
    let (_first, _second) = (world.start("sun1-1-1").await, world.start("sun1-1-2").await);
    let file = &world.files_owned_by("sun1-1-2", "both", 1)[0];
    let gate = Gate::closed();
    world.put(file, Script::file(SIZE).held_at(1000, &gate));
    let pattern = world.origin.pattern(&World::upstream(file));
    let mut downloads = Vec::new();
    for sun in ["sun1-1-1", "sun1-1-2", "sun1-1-1", "sun1-1-2"] {
        let mut response = world.client().http2().start(Method::GET, &world.https(sun, file)).await.unwrap();
        let first = response.read(1000).await.unwrap();
        pattern.check(0, &first);
        downloads.push((first.len() as u64, response));
    }
    gate.open();
    for (read, response) in downloads {
        let rest = response.finish().await.unwrap();
        pattern.check(read, &rest.body);
        assert_eq!(read + rest.body.len() as u64, SIZE);
    }
    assert_eq!(world.fetches(file), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_suns_that_believe_each_other_the_owner_both_answer() {
    let world = World::new(&["sun1-1-1", "sun1-1-2"]);
    let mut suns = Vec::new();
    for sun in ["sun1-1-1", "sun1-1-2"] {
        // By its own topology it owns nothing: the other one owns all.
        let mut topology = world.topology.clone();
        topology.set_weight(sun, 0);
        let file = world.path(&format!("{sun}.topology.toml"));
        tests::files::write(&file, &topology.render());
        suns.push(world.start_with(sun, |settings| settings.topology = file).await);
    }
    for number in 0..10 {
        let file = format!("c1/ring{number}.jpg");
        let gate = Gate::closed();
        world.put(&file, Script::file(SIZE).held_at(1000, &gate));
        let pattern = world.origin.pattern(&World::upstream(&file));
        let mut downloads = Vec::new();
        for sun in ["sun1-1-1", "sun1-1-2"] {
            let mut response = world.client().start(Method::GET, &world.https(sun, &file)).await.unwrap();
            assert_eq!(response.status(), 200);
            let first = response.read(1000).await.unwrap();
            pattern.check(0, &first);
            downloads.push((first.len() as u64, response));
        }
        gate.open();
        for (read, response) in downloads {
            let rest = tests::poll::within("the end of the body", response.finish()).await.unwrap();
            pattern.check(read, &rest.body);
            assert_eq!(read + rest.body.len() as u64, SIZE);
        }
        assert!(world.fetches(&file) <= 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_owner_a_stand_in_serves() {
    let names = ["sun1-1-1", "sun1-1-2", "sun1-1-3"];
    let world = World::new(&names);
    let topology = world.topology.parsed();
    let region = topology.region(geo::RegionId(1)).unwrap();
    let (_second, _third) = (world.start("sun1-1-2").await, world.start("sun1-1-3").await);
    // The owner does not run.
    for file in world.files_owned_by("sun1-1-1", "down", 4) {
        world.put(&file, Script::file(SIZE));
        let content = geo::CanonicalName::parse(&file).unwrap().content_id();
        let order: Vec<&str> = region.sun_order(content).iter().map(|sun| sun.server.name.as_str()).collect();
        let (stand_in, last) = (order[1], order[2]);
        let answer = world.client().get(&world.https(last, &file)).await.unwrap();
        world.check_whole(&file, SIZE, &answer);
        assert_eq!(CacheStatus::of(&answer).servers(), [stand_in, last], "order {order:?}");
        until_hit(&world, &world.client(), &world.https(stand_in, &file), &file, SIZE).await;
        assert_eq!(world.fetches(&file), 1, "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_a_sun_serves_what_is_anothers() {
    let world = World::new(&["sun1-1-1", "sun1-1-2"]);
    let _first = world.start("sun1-1-1").await;
    for file in world.files_owned_by("sun1-1-2", "alone", 3) {
        world.put(&file, Script::file(SIZE));
        let answer = world.client().get(&world.https("sun1-1-1", &file)).await.unwrap();
        world.check_whole(&file, SIZE, &answer);
        assert_eq!(world.fetches(&file), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_dies_mid_body_is_no_end_of_the_body() {
    let world = World::new(&["sun1-1-1", "sun1-1-2"]);
    let _first = world.start("sun1-1-1").await;
    let mut second = world.start("sun1-1-2").await;
    let file = &world.files_owned_by("sun1-1-2", "dies", 1)[0];
    let gate = Gate::closed();
    world.put(file, Script::file(SIZE).held_at(1000, &gate));
    let url = world.https("sun1-1-1", file);
    let mut response = world.client().start(Method::GET, &url).await.unwrap();
    let first = response.read(1000).await.unwrap();
    second.kill();
    gate.open();
    let pattern = world.origin.pattern(&World::upstream(file));
    pattern.check(0, &first);
    // Resumed elsewhere, or broken off: never short and complete.
    match tests::poll::within("the end of the body", response.finish()).await {
        Ok(rest) => {
            pattern.check(first.len() as u64, &rest.body);
            assert_eq!((first.len() + rest.body.len()) as u64, SIZE);
        }
        Err(error) => pattern.check(first.len() as u64, &error.downcast_ref::<tests::client::Cut>().expect("cut").body),
    }
    crate::until_whole(&world, &world.client(), &url, file, SIZE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_passes_clients_on_and_tells_servers_it_has_nothing() {
    let world = World::new(&["sun1-1-1", "sun1-1-2", "cache1-1"]);
    let (_first, _second) = (world.start("sun1-1-1").await, world.start("sun1-1-2").await);
    let _cache = world.start("cache1-1").await;
    for owner in ["sun1-1-1", "sun1-1-2"] {
        let file = &world.files_owned_by(owner, "held", 1)[0];
        world.put(file, Script::file(SIZE));
        let internal = format!("http://{}/{file}", world.server("cache1-1").internal());
        let server = world.client().with("authorization", &format!("Bearer {}", settings::token("sun1-1-1")));
        assert_eq!(server.get(&internal).await.unwrap().status, 404, "a sun asks");
        assert_eq!(world.fetches(file), 0);

        let answer = world.client().get(&world.https("cache1-1", file)).await.unwrap();
        world.check_whole(file, SIZE, &answer);
        assert_eq!(CacheStatus::of(&answer).servers(), [owner, "cache1-1"]);
        until_hit(&world, &world.client(), &world.https(owner, file), file, SIZE).await;
        assert_eq!(world.fetches(file), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_internal_listener_wants_a_servers_token() {
    let world = World::new(&["sun1-1-1", "cache1-1"]);
    let (_sun, _cache) = (world.start("sun1-1-1").await, world.start("cache1-1").await);
    for (server, answered) in [("sun1-1-1", 200), ("cache1-1", 404)] {
        let file = &format!("c1/{server}.jpg");
        world.put(file, Script::file(SIZE));
        let url = format!("http://{}/{file}", world.server(server).internal());
        for (authorization, expected) in [
            (None, &[401][..]),
            (Some("Bearer wrong-wrong-wrong-wrong".to_owned()), &[401]),
            (Some(format!("Basic {}", settings::token("sun1-1-1"))), &[401]),
            (Some(format!("Bearer {}", settings::token("backend"))), &[401, 403]),
            (Some(format!("Bearer {}", settings::token("sun1-1-1"))), &[answered]),
        ] {
            let client = match &authorization {
                Some(value) => world.client().with("authorization", value),
                None => world.client(),
            };
            let status = client.get(&url).await.unwrap().status;
            assert!(expected.contains(&status), "{server} {authorization:?}: {status}, expected {expected:?}");
            if status != 200 {
                assert_eq!(world.fetches(file), 0);
            }
        }
        // The token opens nothing else.
        let token = format!("Bearer {}", settings::token("sun1-1-1"));
        let other = format!("http://{}/metrics", world.server(server).internal());
        assert_eq!(world.client().with("authorization", &token).get(&other).await.unwrap().status, 404);
    }
}
