//! Downloads become ratings, ratings fill the right region's cache, and the next link names that cache.

use popularity_api::wire::{Links, LinksRequest, Top};
use tests::client::Client;
use tests::origin::Script;
use tests::poll;
use tests::settings::token;
use tests::world::{API, World};

use crate::{CacheStatus, until_hit};

pub(crate) const SIZE: u64 = 200_000;
const ALL: [&str; 4] = ["sun1-1-1", "cache1-1", "sun2-1-1", "cache2-1"];

/// What a back end asks: links of files for a client of a region.
pub(crate) async fn links(world: &World, region: u8, files: &[String]) -> Links {
    let request = LinksRequest {
        client: World::address_in(region).into(),
        files: files.to_vec(),
        scheme: geo::Scheme::Https,
        explain: true,
    };
    let client = world.client().with("authorization", &format!("Bearer {}", token("backend")));
    let answer =
        client.post(&format!("http://{}/v1/links", world.api()), &serde_json::to_value(&request).unwrap()).await;
    let answer = answer.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

/// The link of one file.
async fn link(world: &World, region: u8, file: &str) -> (String, String) {
    let link = links(world, region, &[file.to_owned()]).await.links.remove(0);
    (link.server.unwrap_or_else(|| panic!("{file}: {:?}", link.error)), link.url.expect("a link"))
}

/// What the API thinks is best in a region.
pub(crate) async fn top(world: &World, region: u8) -> Top {
    let client = world.client().with("authorization", &format!("Bearer {}", token("operator")));
    let answer = client.get(&format!("http://{}/v1/regions/{region}/top", world.api())).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

/// Waits until the API knows that these servers live: from then on links name them.
pub(crate) async fn until_linked(world: &World, region: u8, file: &str, server: &str) -> (String, String) {
    poll::until(&format!("a link of {file} that names {server}"), || async {
        let (name, url) = link(world, region, file).await;
        (name == server).then_some((name, url))
    })
    .await
    .0
}

/// Downloads a file as a page would: by its link, and again.
pub(crate) async fn download(world: &World, client: &Client, region: u8, file: &str, times: usize) {
    for _ in 0..times {
        let (_, url) = link(world, region, file).await;
        let answer = client.get(&url).await.unwrap();
        world.check_whole(file, SIZE, &answer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_region_downloads_is_carried_to_its_cache() {
    let world = World::with_api(&ALL);
    let _api = world.start(API).await;
    let mut daemons = Vec::new();
    for name in ALL {
        daemons.push(world.start(name).await);
    }
    let (here, elsewhere) = ("c1/popular.jpg", "c1/other.jpg");
    world.put(here, Script::file(SIZE));
    world.put(elsewhere, Script::file(SIZE));

    // Nobody holds anything: links name the owner sun of the client's region.
    assert_eq!(until_linked(&world, 2, here, "sun2-1-1").await.1, world.https("sun2-1-1", here));
    until_linked(&world, 1, here, "sun1-1-1").await;
    download(&world, &world.client_in(2), 2, here, 20).await;
    download(&world, &world.client_in(1), 1, elsewhere, 20).await;

    let (_, url) = until_linked(&world, 2, here, "cache2-1").await;
    assert_eq!(url, world.https("cache2-1", here));
    let answer = world.client_in(2).get(&url).await.unwrap();
    world.check_whole(here, SIZE, &answer);
    let status = CacheStatus::of(&answer);
    assert!(status.says("cache2-1", "hit") && status.servers() == ["cache2-1"], "{status:?}");

    // Region 1 liked the other file, and got only that.
    until_linked(&world, 1, elsewhere, "cache1-1").await;
    assert_eq!(link(&world, 1, here).await.0, "sun1-1-1");
    assert_eq!(link(&world, 2, elsewhere).await.0, "sun2-1-1");
    // A sun and a cache each asked the content server at most once.
    assert!(world.fetches(here) <= 2, "{}", world.fetches(here));

    // What is sent by the cache is rated as well, or it would be dropped for what the sun still sends.
    let rating = |top: &Top| top.files.iter().find(|rated| rated.file == here).map_or(0.0, |rated| rated.rating_days);
    let before = rating(&top(&world, 2).await);
    let answer = world.client_in(2).http2().get(&url).await.unwrap();
    world.check_whole(here, SIZE, &answer);
    poll::until_true("the cache's download is rated", || async { rating(&top(&world, 2).await) > before + 0.5 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ratings_count_downloads_and_parts_of_downloads() {
    let world = World::with_api(&["sun1-1-1"]);
    let _api = world.start(API).await;
    let _sun = world.start("sun1-1-1").await;
    for file in ["c1/whole.jpg", "c1/half.jpg", "c1/head.jpg"] {
        world.put(file, Script::file(SIZE));
    }
    let client = world.client_in(1);
    for _ in 0..4 {
        let url = world.https("sun1-1-1", "c1/whole.jpg");
        world.check_whole("c1/whole.jpg", SIZE, &client.get(&url).await.unwrap());
        let half = client.clone().with("range", &format!("bytes=0-{}", SIZE / 2 - 1));
        assert_eq!(half.get(&world.https("sun1-1-1", "c1/half.jpg")).await.unwrap().status, 206);
        assert_eq!(client.head(&world.https("sun1-1-1", "c1/head.jpg")).await.unwrap().status, 200);
    }
    poll::until_true("all downloads are rated", || async {
        let top = top(&world, 1).await;
        let rating =
            |file: &str| top.files.iter().find(|rated| rated.file == file).map_or(0.0, |rated| rated.rating_days);
        assert!(rating("c1/head.jpg") == 0.0, "a HEAD is no download");
        let sizes = top.files.iter().all(|rated| rated.size == SIZE);
        assert!(sizes, "{top:?}");
        (rating("c1/whole.jpg") - 4.0).abs() < 0.1 && (rating("c1/half.jpg") - 2.0).abs() < 0.1
    })
    .await;
    assert_eq!(top(&world, 1).await.files[0].file, "c1/whole.jpg");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_suns_serve_and_report_later() {
    let world = World::with_api(&["sun1-1-1", "cache1-1"]);
    let _sun = world.start("sun1-1-1").await;
    let _cache = world.start("cache1-1").await;
    world.put("c1/a.jpg", Script::file(SIZE));
    let url = world.https("sun1-1-1", "c1/a.jpg");
    for _ in 0..5 {
        world.check_whole("c1/a.jpg", SIZE, &world.client_in(1).get(&url).await.unwrap());
    }
    let through_cache = world.client_in(1).get(&world.https("cache1-1", "c1/a.jpg")).await.unwrap();
    world.check_whole("c1/a.jpg", SIZE, &through_cache);

    let _api = world.start(API).await;
    poll::until_true("downloads from before are rated", || async {
        let top = top(&world, 1).await;
        top.files.iter().any(|rated| rated.file == "c1/a.jpg" && (rated.rating_days - 6.0).abs() < 0.1)
    })
    .await;
    until_linked(&world, 1, "c1/a.jpg", "cache1-1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sun_asks_the_cache_that_holds_a_file() {
    let world = World::with_api(&["sun1-1-1", "cache1-1"]);
    let _api = world.start(API).await;
    let mut sun = world.start("sun1-1-1").await;
    let _cache = world.start("cache1-1").await;
    world.put("c1/a.jpg", Script::file(SIZE));
    let url = world.https("sun1-1-1", "c1/a.jpg");
    until_hit(&world, &world.client_in(1), &url, "c1/a.jpg", SIZE).await;
    until_linked(&world, 1, "c1/a.jpg", "cache1-1").await;
    // A sun that lost its RAM finds the file at the cache: the content server is down.
    world.origin.stop();
    sun.kill();
    sun.restart().await;
    let answer = crate::until_whole(&world, &world.client_in(1), &url, "c1/a.jpg", SIZE).await;
    assert_eq!(CacheStatus::of(&answer).servers(), ["cache1-1", "sun1-1-1"], "{}", answer.header("cache-status"));
    // And the cache serves without either.
    let from_cache = world.client_in(1).get(&world.https("cache1-1", "c1/a.jpg")).await.unwrap();
    world.check_whole("c1/a.jpg", SIZE, &from_cache);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_cache_keeps_the_best_rated() {
    let mut world = World::with_api(&["sun1-1-1", "cache1-1"]);
    // Room for two of three files.
    world.topology.servers[1].bytes = 2 * SIZE + SIZE / 2;
    world.write_topology(&world.topology);
    let _api = world.start(API).await;
    let (_sun, cache) = (world.start("sun1-1-1").await, world.start("cache1-1").await);
    let files = ["c1/first.jpg", "c1/second.jpg", "c1/third.jpg"];
    for file in files {
        world.put(file, Script::file(SIZE));
    }
    let client = world.client_in(1);
    until_linked(&world, 1, files[0], "sun1-1-1").await;
    download(&world, &client, 1, files[0], 5).await;
    download(&world, &client, 1, files[1], 10).await;
    until_linked(&world, 1, files[0], "cache1-1").await;
    until_linked(&world, 1, files[1], "cache1-1").await;
    // The third becomes the best: the worst goes.
    download(&world, &client, 1, files[2], 40).await;
    until_linked(&world, 1, files[2], "cache1-1").await;
    until_linked(&world, 1, files[0], "sun1-1-1").await;
    assert_eq!(link(&world, 1, files[1]).await.0, "cache1-1");
    // What a client asks of it nevertheless is passed on.
    let passed = client.get(&world.https("cache1-1", files[0])).await.unwrap();
    world.check_whole(files[0], SIZE, &passed);
    drop(cache);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sun_that_dies_is_linked_no_more_until_it_is_back() {
    let world = World::with_api(&["sun1-1-1", "sun1-1-2"]);
    let _api = world.start(API).await;
    let mut first = world.start("sun1-1-1").await;
    let _second = world.start("sun1-1-2").await;
    let file = world.files_owned_by("sun1-1-1", "a", 1).remove(0);
    world.put(&file, Script::file(SIZE));
    until_linked(&world, 1, &file, "sun1-1-1").await;
    first.kill();
    let (_, url) = until_linked(&world, 1, &file, "sun1-1-2").await;
    world.check_whole(&file, SIZE, &world.client_in(1).get(&url).await.unwrap());
    first.restart().await;
    until_linked(&world, 1, &file, "sun1-1-1").await;
    // One that ends in order says so, and is not linked even before it falls silent.
    first.terminate();
    until_linked(&world, 1, &file, "sun1-1-2").await;
    assert!(first.until_ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_cannot_be_made_says_why_and_the_others_are_made() {
    let world = World::with_api(&["sun1-1-1"]);
    let _api = world.start(API).await;
    let files = ["c1/a.jpg", "/c1/%61.jpg", "c99/a.jpg", "c1/../a.jpg", "", "favicon.ico"].map(str::to_owned);
    let links = links(&world, 1, &files).await.links;
    assert_eq!(links.iter().map(|link| &link.file).collect::<Vec<_>>(), files.iter().collect::<Vec<_>>());
    for (link, good) in links.iter().zip([true, true, false, false, false, false]) {
        assert_eq!((link.url.is_some(), link.error.is_none()), (good, good), "{link:?}");
    }
    assert_eq!(links[0].url, links[1].url, "two spellings of one file have one link");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_breaks_off_puts_nothing_into_a_cache() {
    let world = World::with_api(&["sun1-1-1", "cache1-1"]);
    let _api = world.start(API).await;
    let _sun = world.start("sun1-1-1").await;
    world.put("c1/a.jpg", Script::file(SIZE));
    let client = world.client_in(1);
    until_hit(&world, &client, &world.https("sun1-1-1", "c1/a.jpg"), "c1/a.jpg", SIZE).await;
    // The cache comes when the source is ill already, and gets too little each time: nobody else asks the content
    // server, since the sun has the file and no client asks the cache yet.
    world.put("c1/a.jpg", Script::file(SIZE).dying_at(SIZE / 2));
    let before = world.fetches("c1/a.jpg");
    let _cache = world.start("cache1-1").await;
    poll::until_true("the cache tries twice", || async { world.fetches("c1/a.jpg") >= before + 2 }).await;
    let url = world.https("cache1-1", "c1/a.jpg");
    for _ in 0..20 {
        // Whatever the cache does meanwhile, its clients get the whole file or none, and it does not say it has it.
        if let Ok(answer) = client.get(&url).await
            && answer.status == 200
        {
            world.check_whole("c1/a.jpg", SIZE, &answer);
        }
        assert_eq!(link(&world, 1, "c1/a.jpg").await.0, "sun1-1-1");
    }
    // Once the source is well, the cache has it, and says so.
    world.put("c1/a.jpg", Script::file(SIZE));
    until_linked(&world, 1, "c1/a.jpg", "cache1-1").await;
    world.check_whole("c1/a.jpg", SIZE, &client.get(&url).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_answers_only_whom_it_knows() {
    let world = World::with_api(&["sun1-1-1", "sun1-1-2", "cache1-1"]);
    let _api = world.start(API).await;
    let base = format!("http://{}", world.api());
    let batch = serde_json::json!({ "source": "sun1-1-1", "boot": 1, "sequence": 1, "downloads": [] });
    let wanted = serde_json::json!({ "bytes_max": 1000, "limit": 10 });
    let files = serde_json::json!({ "client": "127.0.0.1", "files": ["c1/a.jpg"] });
    let cases: &[(&str, &serde_json::Value, &str, u16)] = &[
        ("/v1/downloads", &batch, "", 401),
        ("/v1/downloads", &batch, "nobody-at-all-is-this", 401),
        ("/v1/downloads", &batch, "sun1-1-2", 403),
        ("/v1/downloads", &batch, "backend", 403),
        ("/v1/downloads", &batch, "sun1-1-1", 200),
        ("/v1/regions/1/caches/cache1-1/wanted", &wanted, "", 401),
        ("/v1/regions/1/caches/cache1-1/wanted", &wanted, "sun1-1-1", 403),
        ("/v1/regions/1/caches/cache1-1/wanted", &wanted, "cache1-1", 200),
        ("/v1/links", &files, "", 401),
        ("/v1/links", &files, "backend", 200),
    ];
    for (path, body, bearer, expected) in cases {
        let client = match *bearer {
            "" => world.client(),
            bearer => world.client().with("authorization", &format!("Bearer {}", token(bearer))),
        };
        let answer = client.post(&format!("{base}{path}"), body).await.unwrap();
        assert_eq!(answer.status, *expected, "{path} by {bearer:?}: {}", answer.text());
    }
    for (bearer, expected) in [("", 401), ("sun1-1-1", 403), ("backend", 200), ("operator", 200)] {
        let client = world.client().with("authorization", &format!("Bearer {}", token(bearer)));
        assert_eq!(
            client.get(&format!("{base}/v1/regions/1/top")).await.unwrap().status,
            expected,
            "top by {bearer:?}"
        );
    }
}
