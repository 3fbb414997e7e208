//! In how many caches a file is, and where they have it from.

use std::collections::BTreeSet;

use tests::origin::{Gate, Script};
use tests::poll;
use tests::process::Daemon;
use tests::world::{API, World};

use crate::carrying::links;

const SIZE: u64 = 200_000;

/// The caches of a region that the API knows to hold a file.
async fn holders(world: &World, region: u8, file: &str) -> BTreeSet<String> {
    let link = links(world, region, &[file.to_owned()]).await.links.remove(0);
    link.explain.map(|explain| explain.holders).unwrap_or_default().into_iter().collect()
}

/// Downloads a file from a sun.
async fn download(world: &World, sun: &str, file: &str, times: usize) {
    let client = world.client_in(u8::try_from(world.server(sun).region()).unwrap());
    for _ in 0..times {
        world.check_whole(file, SIZE, &client.get(&world.https(sun, file)).await.unwrap());
    }
}

/// What the metrics of some daemons say, summed.
async fn counted(daemons: &[Daemon], name: &str, label: &str) -> f64 {
    let mut sum = 0.0;
    for daemon in daemons {
        sum += daemon.metrics().await.sum(name, &[label]).unwrap_or_default();
    }
    sum
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_one_network_card_cannot_send_is_carried_by_several_caches() {
    let mut world = World::with_api(&["sun1-1-1", "cache1-1", "cache1-2", "cache1-3"]);
    for server in world.topology.servers.iter_mut().filter(|server| !server.is_sun()) {
        server.nic_gbps = 0.001;
    }
    world.write_topology(&world.topology);
    // 20 kbit/s of one file for each cache; 90 downloads of 1.6 Mbit, as of the hour's half-life, are 28.
    let share = |settings: &mut tests::settings::Settings| settings.more += "wanted.nic_share = 0.02\n";
    let _api = world.start_with(API, share).await;
    let mut daemons = Vec::new();
    for name in ["sun1-1-1", "cache1-1", "cache1-2", "cache1-3"] {
        daemons.push(world.start(name).await);
    }
    let (hot, cold, last) = ("c1/hot.jpg", "c1/cold.jpg", "c1/last.jpg");
    for file in [hot, cold, last] {
        world.put(file, Script::file(SIZE));
    }
    download(&world, "sun1-1-1", cold, 10).await;
    download(&world, "sun1-1-1", hot, 90).await;
    let topology = world.topology.parsed();
    let first = |file: &str, count: usize| {
        let content = geo::CanonicalName::parse(file).unwrap().content_id();
        let order = topology.region(geo::RegionId(1)).unwrap().cache_order(content);
        order.into_iter().take(count).map(|cache| cache.server.name.clone()).collect::<BTreeSet<_>>()
    };
    poll::until_true("two caches hold it", || async { holders(&world, 1, hot).await == first(hot, 2) }).await;
    // What comes later is carried as well, and nothing else meanwhile.
    download(&world, "sun1-1-1", last, 10).await;
    poll::until_true("one cache holds it", || async { holders(&world, 1, last).await == first(last, 1) }).await;
    assert_eq!(holders(&world, 1, hot).await, first(hot, 2));
    assert_eq!(holders(&world, 1, cold).await, first(cold, 1));
    assert_eq!(world.fetches(hot), 2, "the sun and one cache: the other one had it from that");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_regions_fetch_feeds_the_other_region() {
    let world = World::with_api(&["sun1-1-1", "cache1-1", "sun2-1-1", "cache2-1"]);
    let _api = world.start(API).await;
    let _suns = (world.start("sun1-1-1").await, world.start("sun2-1-1").await);
    let file = "c1/a.jpg";
    world.put(file, Script::file(SIZE));
    download(&world, "sun1-1-1", file, 10).await;
    download(&world, "sun2-1-1", file, 10).await;
    // Both regions want it at the same time, and the content server is slow.
    let before = world.fetches(file);
    let gate = Gate::closed();
    world.put(file, Script::file(SIZE).held_at(SIZE / 2, &gate));
    let caches = [world.start("cache1-1").await, world.start("cache2-1").await];
    gate.reached().await;
    poll::until_true("the other cache is told to wait", || async {
        counted(&caches, "cache_fetch_failures_total", "reason=\"waiting\"").await >= 1.0
    })
    .await;
    gate.open();
    for (region, cache) in [(1, "cache1-1"), (2, "cache2-1")] {
        let holds = || async { holders(&world, region, file).await.contains(cache) };
        poll::until_true("the region's cache holds it", holds).await;
    }
    assert_eq!(world.fetches(file), before + 1, "the content server was asked by one cache");
    assert_eq!(counted(&caches, "cache_fetched_files_total", "source=\"content_server\"").await, 1.0);
    assert_eq!(counted(&caches, "cache_fetched_files_total", "source=\"cache\"").await, 1.0);
    for (region, cache) in [(1, "cache1-1"), (2, "cache2-1")] {
        world.check_whole(file, SIZE, &world.client_in(region).get(&world.https(cache, file)).await.unwrap());
    }
}
