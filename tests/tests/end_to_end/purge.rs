//! Purges: what was purged is served by nobody any more, whoever was down, away, or just fetching it.

use hyper::Method;
use popularity_api::wire::{PurgeMark, Wanted};
use tests::client::{Answer, Client};
use tests::origin::{Gate, Script};
use tests::poll;
use tests::process::{Daemon, Done, run};
use tests::settings::{token, token_file};
use tests::world::{API, World};

use crate::{CacheStatus, check_done, until_hit};

const SIZE: u64 = 100_000;
const ALL: [&str; 3] = ["sun1-1-1", "sun1-1-2", "cache1-1"];
const FILE: &str = "c1/file.jpg";

#[tokio::test(flavor = "multi_thread")]
async fn a_hard_purge_by_file_folder_and_tag_reaches_every_server() {
    let world = World::with_api(&ALL);
    let _api = world.start(API).await;
    let daemons = start(&world, &ALL).await;
    let purged = [FILE, "c1/folder/a/b.jpg", "c1/tagged.jpg"];
    let kept = "c1/kept.jpg";
    let script = |file: &str| match file {
        "c1/tagged.jpg" => Script::file(SIZE).header("cache-tag", "sport, news"),
        _ => Script::file(SIZE).header("surrogate-key", "other"),
    };
    for file in purged.iter().chain([&kept]) {
        world.put(file, script(file));
        held_everywhere(&world, file).await;
    }
    let fetches = world.fetches(kept);
    for file in purged {
        world.put(file, script(file).version(1));
    }
    for what in [&[FILE][..], &["--prefix", "c1/folder"], &["--tag", "news"]] {
        check_done(&purge(&world, what), 0, &["all 3 servers", "cache1-1  yes", "sun1-1-2  yes"]);
    }
    for file in purged {
        for server in ALL {
            let answer = world.client_in(1).get(&world.https(server, file)).await.unwrap();
            world.check_whole(file, SIZE, &answer);
            let [tag, key] = ["cache-tag", "surrogate-key"].map(|name| answer.header(name));
            assert_eq!((tag.as_str(), key.as_str()), ("", ""), "tags are not for clients");
        }
    }
    for server in ALL {
        let answer = until_hit(&world, &world.client_in(1), &world.https(server, kept), kept, SIZE).await;
        assert_eq!(CacheStatus::of(&answer).servers(), [server]);
    }
    assert_eq!(world.fetches(kept), fetches, "what was not purged is still there");
    let metrics = daemons[2].metrics().await;
    assert_eq!(metrics.sum("cache_purged_files_total", &[]), Some(3.0));
    let sequence = |metrics: &tests::metrics::Metrics| metrics.sum("edge_purge_sequence", &[]).unwrap();
    assert_eq!(sequence(&metrics), sequence(&daemons[0].metrics().await));
    check_done(&purge(&world, &["--prefix", ""]), 1, &["--all"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soft_purge_asks_once_and_serves_what_is_there_when_nobody_answers() {
    let world = World::with_api(&ALL);
    let _api = world.start(API).await;
    let _daemons = start(&world, &ALL).await;
    world.put(FILE, Script::file(SIZE).header("cache-tag", "news"));
    held_everywhere(&world, FILE).await;
    let bodies = || {
        let requests = world.origin.requests_for(&World::upstream(FILE));
        requests.iter().filter(|seen| !seen.headers.contains_key("if-none-match")).count()
    };
    let asked = || world.origin.requests_for(&World::upstream(FILE)).len();
    for what in [&[FILE][..], &["--prefix", "https://sun1-1-1.cdn.test/c1/"], &["--tag", "news"]] {
        let (before, bodies_before) = (asked(), bodies());
        check_done(&purge(&world, &[what, &["--soft"]].concat()), 0, &["all 3 servers"]);
        for server in ALL {
            for _ in 0..2 {
                let answer = world.client_in(1).get(&world.https(server, FILE)).await.unwrap();
                world.check_whole(FILE, SIZE, &answer);
            }
            until_hit(&world, &world.client_in(1), &world.https(server, FILE), FILE, SIZE).await;
        }
        assert!(asked() > before, "{what:?}: the content server was not asked");
        assert_eq!(bodies(), bodies_before, "{what:?}: it was asked whether the file changed, and for nothing else");
    }
    // Nobody to ask: the copy is better than nothing, at each of them.
    check_done(&purge(&world, &[FILE, "--soft"]), 0, &["all 3 servers"]);
    world.origin.stop();
    for server in ALL {
        let answer = world.client_in(1).get(&world.https(server, FILE)).await.unwrap();
        world.check_whole(FILE, SIZE, &answer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soft_purge_brings_what_has_changed() {
    let world = World::with_api(&ALL);
    let _api = world.start(API).await;
    let _daemons = start(&world, &ALL).await;
    world.put(FILE, Script::file(SIZE));
    held_everywhere(&world, FILE).await;
    world.put(FILE, Script::file(SIZE).version(1));
    check_done(&purge(&world, &[FILE, "--soft"]), 0, &["all 3 servers"]);
    for server in ALL {
        for _ in 0..2 {
            let answer = world.client_in(1).get(&world.https(server, FILE)).await.unwrap();
            world.check_whole(FILE, SIZE, &answer);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_down_is_gone_and_not_carried_again() {
    let world = World::with_api(&ALL);
    let _api = world.start(API).await;
    let _daemons = start(&world, &ALL).await;
    world.put(FILE, Script::file(SIZE));
    held_everywhere(&world, FILE).await;
    world.put(FILE, Script::status(410));
    check_done(&purge(&world, &[FILE]), 0, &["all 3 servers"]);
    for server in ALL {
        let answer = world.client_in(1).get(&world.https(server, FILE)).await.unwrap();
        assert_eq!(answer.status, 410, "{server}");
    }
    let operator = operator(&world);
    let ask =
        async |path: &str, body| operator.post(&format!("http://{}/v1/{path}", world.api()), &body).await.unwrap();
    poll::until_true("the cache does not say that it holds it", || async {
        let request = serde_json::json!({ "bytes_max": 1_u64 << 30, "limit": 100 });
        let answer = ask("regions/1/caches/cache1-1/wanted", request).await;
        let wanted: Wanted = serde_json::from_slice(&answer.body).unwrap();
        assert!(wanted.candidates.iter().all(|candidate| candidate.file != FILE), "{wanted:?}");
        wanted.held.iter().all(|held| held.file != FILE)
    })
    .await;
    let links = ask("links", serde_json::json!({ "client": "127.200.1.1", "files": [FILE] })).await.json();
    assert!(links["links"][0]["server"].as_str().unwrap().starts_with("sun"), "{links}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_down_learns_of_a_purge_before_it_serves() {
    let world = World::with_api(&ALL);
    let mut api = world.start(API).await;
    let mut daemons = start(&world, &ALL).await;
    world.put(FILE, Script::file(SIZE));
    held_everywhere(&world, FILE).await;
    daemons[1].kill();
    daemons[2].kill();
    world.put(FILE, Script::file(SIZE).version(1));
    let done = purge(&world, &[FILE, "--wait", "0"]);
    check_done(&done, 1, &["cache1-1  ", "sun1-1-1  ", "did not answer"]);
    // The log survives its server's end as well.
    api.kill();
    api.restart().await;
    for daemon in &mut daemons[1..] {
        daemon.restart().await;
    }
    for server in ["cache1-1", "sun1-1-2"] {
        let answer = world.client_in(1).get(&world.https(server, FILE)).await.unwrap();
        world.check_whole(FILE, SIZE, &answer);
    }
    check_done(&purge(&world, &["c1/another.jpg"]), 0, &["all 3 servers"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9_while_the_api_is_away() {
    let world = World::with_api(&ALL);
    let mut api = world.start(API).await;
    let mut daemons = start(&world, &ALL).await;
    check_done(&purge(&world, &[FILE]), 0, &["all 3 servers"]);
    let before = mark(&world, "cache1-1").await;
    assert!(before.log > 0);
    api.kill();
    for (daemon, name) in daemons.iter_mut().zip(ALL) {
        daemon.kill();
        daemon.restart().await;
        assert_eq!(mark(&world, name).await, before, "{name}");
    }
    api.restart().await;
    check_done(&purge(&world, &[FILE]), 0, &["all 3 servers"]);
    assert!(mark(&world, "cache1-1").await.log > before.log, "the log goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_begun_before_a_purge_is_finished_and_neither_joined_nor_stored() {
    let world = World::with_api(&["sun1-1-1"]);
    let _api = world.start(API).await;
    let sun = world.start("sun1-1-1").await;
    for (file, what) in
        [(FILE, &[FILE][..]), ("c1/folder/a.jpg", &["--prefix", "c1/folder/"]), ("c1/tagged.jpg", &["--tag", "news"])]
    {
        let (gate, url) = (Gate::closed(), world.https("sun1-1-1", file));
        let script = Script::file(SIZE).header("cache-tag", "news");
        world.put(file, script.clone().held_at(1000, &gate));
        let before = world.origin.pattern(&World::upstream(file));
        let mut early = world.client().start(Method::GET, &url).await.unwrap();
        let first = early.read(1000).await.unwrap();
        world.put(file, script.version(1));
        check_done(&purge(&world, what), 0, &["all 1 servers"]);
        let late = world.client().get(&url).await.unwrap();
        world.check_whole(file, SIZE, &late);
        gate.open();
        let rest = early.finish().await.unwrap();
        before.check(0, &first);
        before.check(first.len() as u64, &rest.body);
        let hit = until_hit(&world, &world.client(), &url, file, SIZE).await;
        assert_eq!(CacheStatus::of(&hit).servers(), ["sun1-1-1"]);
        assert_eq!(world.fetches(file), 2, "{file}: one before and one after");
    }
    drop(sun);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_an_operator_purges_every_server_directly() {
    let world = World::with_api(&ALL);
    let mut api = world.start(API).await;
    let mut daemons = start(&world, &ALL).await;
    world.put(FILE, Script::file(SIZE));
    held_everywhere(&world, FILE).await;
    api.kill();
    world.put(FILE, Script::file(SIZE).version(1));
    check_done(&purge(&world, &[FILE]), 0, &["directly", "direct purge 1: all 3 servers"]);
    for server in ALL {
        let answer = world.client_in(1).get(&world.https(server, FILE)).await.unwrap();
        world.check_whole(FILE, SIZE, &answer);
    }
    daemons[1].kill();
    let done = purge(&world, &[FILE, "--wait", "0"]);
    check_done(&done, 1, &["sun1-1-2  no answer", "direct purge 2: 1 of 3 servers did not answer", "repeated"]);
    // kill -9 does not lose it, and numbers go on.
    daemons[0].kill();
    daemons[0].restart().await;
    daemons[1].restart().await;
    let marks = [mark(&world, "sun1-1-1").await.direct, mark(&world, "sun1-1-2").await.direct];
    assert_eq!(marks, [2, 1]);
    check_done(&purge(&world, &[FILE, "--direct"]), 0, &["direct purge 3: all 3 servers"]);
    // Only an operator may.
    for (bearer, expected) in [(None, 401), (Some("sun1-1-1"), 403), (Some("backend"), 403), (Some("operator"), 409)] {
        let body = serde_json::json!({ "id": "a", "number": 3, "what": "file", "value": FILE, "mode": "hard" });
        let client = bearer.map_or_else(|| world.client(), |name| bearing(&world, name));
        let url = format!("http://{}/v1/purge", world.server("sun1-1-1").internal());
        assert_eq!(client.post(&url, &body).await.unwrap().status, expected, "{bearer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_not_heard_is_no_source_for_one_that_has() {
    let world = World::new(&["sun1-1-1", "sun1-1-2"]);
    let _daemons = start(&world, &["sun1-1-1", "sun1-1-2"]).await;
    let file = world.files_owned_by("sun1-1-2", "a", 1).remove(0);
    world.put(&file, Script::file(SIZE));
    let (asker, owner) = (world.https("sun1-1-1", &file), world.https("sun1-1-2", &file));
    until_hit(&world, &world.client(), &owner, &file, SIZE).await;
    let old = world.origin.pattern(&World::upstream(&file));
    world.put(&file, Script::file(SIZE).version(1));
    let body = serde_json::json!({ "id": "a", "number": 1, "what": "file", "value": file, "mode": "hard" });
    let url = format!("http://{}/v1/purge", world.server("sun1-1-1").internal());
    assert_eq!(operator(&world).post(&url, &body).await.unwrap().status, 200);
    // Its owner still has the old one, and would give it.
    let answer = world.client().get(&asker).await.unwrap();
    world.check_whole(&file, SIZE, &answer);
    assert_eq!(CacheStatus::of(&answer).servers(), ["sun1-1-1"], "not through the owner");
    old.check(0, &world.client().get(&owner).await.unwrap().body);
}

async fn start(world: &World, names: &[&str]) -> Vec<Daemon> {
    let mut daemons = Vec::new();
    for name in names {
        daemons.push(world.start(name).await);
    }
    daemons
}

/// Both suns and the cache have the file and serve it themselves.
async fn held_everywhere(world: &World, file: &str) {
    let client = world.client_in(1);
    for server in ["sun1-1-1", "sun1-1-2"] {
        until_hit(world, &client, &world.https(server, file), file, SIZE).await;
    }
    let url = world.https("cache1-1", file);
    poll::until_true(&format!("{file} in the cache"), || async {
        let answer: Answer = client.get(&url).await.unwrap();
        let status = CacheStatus::of(&answer);
        // Not from its RAM: the cache's own metric tells.
        status.is_hit() && status.servers() == ["cache1-1"] && in_vault(world, file).await
    })
    .await;
}

/// Whether the API has heard from the cache that it holds the file.
async fn in_vault(world: &World, file: &str) -> bool {
    let request = serde_json::json!({ "client": "127.200.1.1", "files": [file] });
    let answer = operator(world).post(&format!("http://{}/v1/links", world.api()), &request).await.unwrap();
    answer.json()["links"][0]["server"] == "cache1-1"
}

/// How far a server goes by purges.
async fn mark(world: &World, server: &str) -> PurgeMark {
    let url = format!("http://{}/v1/purge", world.server(server).internal());
    let answer = operator(world).get(&url).await.unwrap();
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
}

fn operator(world: &World) -> Client {
    bearing(world, "operator")
}

fn bearing(world: &World, name: &str) -> Client {
    world.client().with("authorization", &format!("Bearer {}", token(name)))
}

/// `sunctl purge`.
fn purge(world: &World, what: &[&str]) -> Done {
    let (api, topology) = (format!("http://{}", world.api()), world.topology_file());
    let token = token_file(world.folder(), "operator");
    let [topology, token] = [&topology, &token].map(|path| path.to_str().expect("a path in UTF-8"));
    let more = ["--api", &api, "--token-file", token, "--topology", topology];
    tokio::task::block_in_place(|| run("sunctl", &[&["purge"], what, &more].concat()))
}
