//! `geo serve` and those who follow its table: what it is told reaches links and ratings, and stays while it is away.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use popularity_api::wire::Top;
use serde_json::{Value, json};
use tests::client::{Answer, Client};
use tests::origin::Script;
use tests::poll;
use tests::process::{Daemon, Done, run};
use tests::routers::{Announced, BMP_PORT, Bird, Relay, Speaker, gobgpd};
use tests::settings::{token, token_file};
use tests::world::{API, GEO, World};

use crate::carrying::{links, top};
use crate::{check_done, text};

const SIZE: u64 = 20_000;
const FILE: &str = "c1/a.jpg";

/// Says of the clients of region 2 that they are of this one.
fn move_region_2(world: &World, region: u8) {
    tests::files::write(&world.path("prefixes.txt"), &format!("127.200.1.0/24 1\n127.200.2.0/24 {region}\n"));
}

/// The sun that a client of region 2 is sent to.
async fn linked(world: &World) -> String {
    links(world, 2, &[FILE.to_owned()]).await.links.remove(0).server.unwrap_or_default()
}

async fn until_linked(world: &World, sun: &str) {
    poll::until_true(&format!("links name {sun}"), || async { linked(world).await == sun }).await;
}

/// Downloads from a sun as a client of region 2 until the API has a rating of the file in this region: the sun says
/// where its clients are.
async fn until_rated_in(world: &World, region: u8, file: &str) {
    let client = world.client_in(2);
    poll::until_true(&format!("{file} is rated in region {region}"), || async {
        let answer = client.get(&world.https("sun1-1-1", file)).await.unwrap();
        world.check_whole(file, SIZE, &answer);
        let Top { files, .. } = top(world, region).await;
        files.iter().any(|rated| rated.file == file)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_geo_server_is_told_reaches_links_and_ratings_and_stays_while_it_is_away() {
    let world = World::with_geo(&["sun1-1-1", "sun2-1-1"]);
    let mut geo = world.start(GEO).await;
    let mut api = world.start(API).await;
    let (mut sun, _other) = (world.start("sun1-1-1").await, world.start("sun2-1-1").await);
    for file in [FILE, "c1/moved.jpg", "c1/away.jpg", "c1/restarted.jpg"] {
        world.put(file, Script::file(SIZE));
    }
    until_linked(&world, "sun2-1-1").await;
    until_rated_in(&world, 2, FILE).await;

    move_region_2(&world, 1);
    until_linked(&world, "sun1-1-1").await;
    until_rated_in(&world, 1, "c1/moved.jpg").await;
    for name in ["popularity-api", "sun1-1-1"] {
        until_kept(&world, &world.path(&format!("{name}.data")), 1).await;
    }

    // The server dies; whoever starts anew has what it said last.
    geo.kill();
    assert_eq!(linked(&world).await, "sun1-1-1");
    until_rated_in(&world, 1, "c1/away.jpg").await;
    api.restart().await;
    sun.restart().await;
    until_linked(&world, "sun1-1-1").await;
    until_rated_in(&world, 1, "c1/restarted.jpg").await;

    // It comes back with another word, under another epoch: the table is taken whole.
    move_region_2(&world, 2);
    geo.restart().await;
    until_linked(&world, "sun2-1-1").await;
}

/// Waits until a follower's copy says that clients of region 2 are of this one.
async fn until_kept(world: &World, data: &Path, region: u16) {
    let (table, topology) = (data.join("geo.table"), world.topology_file());
    poll::until_true(&format!("{} says {region}", table.display()), || async {
        let done =
            run("geo", &["lookup", "127.200.2.1", "--table", text(&table), "--topology", text(&topology), "--json"]);
        done.status == Some(0) && json_of(&done)[0]["regions"][0] == region
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_nobody_can_give_is_no_reason_not_to_serve() {
    let world = World::with_geo(&["sun1-1-1", "sun2-1-1"]);
    let _api = world.start(API).await;
    let (_sun, _other) = (world.start("sun1-1-1").await, world.start("sun2-1-1").await);
    // Nothing is known: everybody is in the default region.
    until_linked(&world, "sun1-1-1").await;
    let _geo = world.start(GEO).await;
    until_linked(&world, "sun2-1-1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_asks_a_server_that_runs() {
    let world = World::with_geo(&["sun1-1-1", "sun2-1-1"]);
    let geo = world.start(GEO).await;
    let lookup = ask(&world, &["lookup", "127.200.2.7", "192.0.2.1"]);
    check_done(&lookup, 0, &["127.200.2.7  2 1      prefix 127.200.2.0/24", "192.0.2.1    1 2      default"]);
    let explained = ask(&world, &["explain", "127.200.2.7"]);
    check_done(
        &explained,
        0,
        &["127.200.2.7: regions 2 1, by prefix 127.200.2.0/24", "private", "prefixes.txt", "default: region 1"],
    );
    let explained = json_of(&ask(&world, &["explain", "127.200.2.7", "--json"]));
    assert_eq!((&explained["chain"][0]["prefix"], &explained["regions"]), (&json!("127.200.2.0/24"), &json!([2, 1])));
    check_done(&ask(&world, &["audit"]), 0, &["REGION  FIRST FOR", "Prefixes heard in several regions: 0"]);
    check_done(&ask(&world, &["stats"]), 0, &["prefixes", "2 IPv4, 0 IPv6"]);

    // What is configured changes while it runs: a rule, and one that cannot be used.
    let config = world.path("geo.toml");
    let good = fs::read_to_string(&config).unwrap();
    let rule = "\n[[rule]]\naction = \"pin\"\nregion = 1\nprefix = \"127.200.2.0/25\"\nnote = \"until friday\"\n";
    tests::files::write(&config, &format!("{good}{rule}"));
    poll::until_true("the rule counts", || async {
        ask(&world, &["lookup", "127.200.2.7"]).out.contains("rule 127.200.2.0/25")
    })
    .await;
    check_done(&ask(&world, &["explain", "127.200.2.7"]), 0, &["pin region 1 prefix 127.200.2.0/25 (until friday)"]);
    check_done(&ask(&world, &["lookup", "127.200.2.200"]), 0, &["prefix 127.200.2.0/24"]);
    tests::files::write(&config, &format!("{good}{}", rule.replace("region = 1", "region = 9")));
    poll::until_true("the bad rule is refused", || async {
        geo.metrics().await.sum("geo_sources_refused", &[]) == Some(1.0)
    })
    .await;
    check_done(&ask(&world, &["lookup", "127.200.2.7"]), 0, &["rule 127.200.2.0/25"]);
    assert_eq!(geo.log().matches("cannot be read anew").count(), 1, "it is said once");
    tests::files::write(&config, &good);
    poll::until_true("the rule is gone", || async {
        ask(&world, &["lookup", "127.200.2.7"]).out.contains("prefix 127.200.2.0/24")
    })
    .await;

    check_done(&ask(&world, &["lookup", "here"]), 1, &["\"here\": give an address, 192.0.2.1 or 2001:db8::1"]);
    check_done(&run("geo", &["audit"]), 2, &["who is asked? Say --server URL, set SUN_GEO, or say --config FILE"]);
    let secret = token_file(world.folder(), "operator");
    let away = ["audit", "--server", "http://127.0.0.1:9", "--token-file", text(&secret)];
    check_done(&run("geo", &away), 1, &["geo server at http://127.0.0.1:9: "]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_needs_a_token_and_asks_for_so_much_at_most() {
    let world = World::with_geo(&["sun1-1-1", "sun2-1-1"]);
    let geo = world.start(GEO).await;
    for path in ["/v1/resolve/127.200.2.1", "/v1/table", "/v1/table/changes?epoch=1&after=1", "/v1/stats", "/none"] {
        let refused = world.client().get(&url(&world, path)).await.unwrap();
        assert_eq!(
            (refused.status, refused.header("content-type").as_str()),
            (401, "application/problem+json"),
            "{path}"
        );
    }
    for bearer in ["sun2-1-1", "backend", "operator"] {
        let answer = with_token(&world, bearer).get(&url(&world, "/v1/resolve/127.200.2.1")).await.unwrap();
        let expected = json!({"address": "127.200.2.1", "regions": [2, 1], "evidence": "prefix 127.200.2.0/24"});
        assert_eq!((answer.status, json_in(&answer)), (200, expected), "{bearer}");
    }
    let client = with_token(&world, "backend");
    let many = async |addresses: Vec<&str>| {
        client.post(&url(&world, "/v1/resolve"), &json!({ "addresses": addresses })).await.unwrap()
    };
    assert_eq!(json_in(&many(vec!["::ffff:127.200.2.1"; 10_000]).await)["answers"].as_array().unwrap().len(), 10_000);
    assert_eq!(many(vec!["127.200.2.1"; 10_001]).await.status, 400);
    assert_eq!(many(vec!["127.200.2.1"; 100_000]).await.status, 413);

    // The table: its tag, packed or not, and what changed since.
    let table = client.get(&url(&world, "/v1/table")).await.unwrap();
    let tag = table.header("etag").to_owned();
    let packed = client.clone().with("accept-encoding", "gzip").get(&url(&world, "/v1/table")).await.unwrap();
    assert_eq!((packed.header("content-encoding"), packed.header("etag")), ("gzip".to_owned(), tag.clone()));
    let same = client.clone().with("if-none-match", &tag).get(&url(&world, "/v1/table")).await.unwrap();
    assert_eq!((same.status, same.body.len()), (304, 0));
    let (epoch, sequence) = tag.trim_matches(['W', '/', '"']).split_once('-').unwrap();
    let changes = url(&world, &format!("/v1/table/changes?epoch={epoch}&after={sequence}&wait_ms=8000"));
    let (first, ()) = tokio::join!(client.get(&changes), async { move_region_2(&world, 1) });
    let mut answer = json_in(&first.unwrap());
    // A loaded machine may take longer to see the list than one call waits.
    for _ in 0..10 {
        if answer["changes"].as_array().is_some_and(|changes| !changes.is_empty()) {
            break;
        }
        answer = json_in(&client.get(&changes).await.unwrap());
    }
    assert_eq!(answer["changes"][0]["prefix"], "127.200.2.0/24", "{answer}");
    assert_eq!(answer["changes"][0]["leaf"]["candidates"], json!([{"region": 1, "rank": 0}]), "{answer}");
    let gone = url(&world, &format!("/v1/table/changes?epoch=1&after={sequence}"));
    assert_eq!(client.get(&gone).await.unwrap().status, 410);
    let counted = geo.metrics().await.sum("geo_calls_total", &["route=\"/v1/table\"", "status=\"401\""]);
    assert_eq!(counted, Some(1.0));
}

#[test]
fn a_bad_config_is_refused_before_it_is_used() {
    let world = World::with_geo(&["sun1-1-1", "sun2-1-1"]);
    let config = world.write_config(GEO, |_| {});
    let good = fs::read_to_string(&config).unwrap();
    let check = |config: &Path| run("geo", &["serve", "--config", text(config), "--check"]);
    check_done(&check(&config), 0, &["ok"]);
    for (from, to, says) in [
        ("listen = ", "frobnicate = 1\nlisten = ", "geo.toml:1:1: frobnicate: unknown field"),
        ("listen = ", "drain_s = 100000\nlisten = ", "drain_s = 100000: it is within 0..=86400"),
        ("/topology.toml", "/no-such-topology.toml", "no-such-topology.toml"),
        ("/tokens.toml", "/no-such-tokens.toml", "no-such-tokens.toml"),
        ("/prefixes.txt", "/no-such-prefixes.txt", "no-such-prefixes.txt"),
        ("[log]", "[[rule]]\naction = \"pin\"\nregion = 9\nprefix = \"192.0.2.0/24\"\n[log]", "no such region"),
        ("[log]", "[[rule]]\naction = \"pin\"\nregion = 1\n[log]", "rule[0]"),
        ("[log]", "[geoip]\nfiles = [\"/no/such.mmdb\"]\n[log]", "/no/such.mmdb"),
        ("[log]", "[[mrt]]\nfile = \"/no/such.mrt\"\nregion = 1\n[log]", "/no/such.mrt"),
    ] {
        assert!(good.contains(from), "{from}");
        tests::files::write(&config, &good.replace(from, to));
        check_done(&check(&config), 1, &[says]);
        if to.contains("such") {
            check_done(&run("geo", &["serve", "--config", text(&config)]), 1, &[says]);
        }
    }
    tests::files::write(&config, &good);
    tests::files::write(&world.path("prefixes.txt"), "127.200.1.0/24 1\n127.200.1.0/33 1\n127.200.2.0/24 7\n");
    check_done(&check(&config), 1, &["prefixes.txt:2: ", "prefixes.txt:3: "]);
    check_done(&run("geo", &["serve", "--config", "/no/such/file.toml"]), 1, &["/no/such/file.toml"]);
    check_done(&run("geo", &["serve"]), 2, &["--config"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_built_asked_and_compared_without_a_server() {
    let world = World::with_geo(&["sun1-1-1", "sun2-1-1"]);
    let config = world.write_config(GEO, |_| {});
    let (before, after, topology) = (world.path("before.table"), world.path("after.table"), world.topology_file());
    let build = |table: &Path| run("geo", &["build", "--config", text(&config), "--out", text(table)]);
    check_done(&build(&before), 0, &["2 IPv4 and 0 IPv6 prefixes"]);
    move_region_2(&world, 1);
    check_done(&build(&after), 0, &["2 IPv4 and 0 IPv6 prefixes"]);
    for (table, regions) in [(&before, "2 1"), (&after, "1 2")] {
        let found = run("geo", &["lookup", "127.200.2.1", "--table", text(table), "--topology", text(&topology)]);
        check_done(&found, 0, &[&format!("127.200.2.1  {regions}      prefix 127.200.2.0/24")]);
    }
    let moves = run("geo", &["diff", text(&before), text(&after)]);
    check_done(&moves, 0, &["IPv4       2   1       1  50.00%        256  50.00%", "IPv4: 1 of 2 /24 move (50.00%)"]);
    let moved = json_of(&run("geo", &["diff", text(&before), text(&after), "--json"]));
    assert_eq!(moved["ipv4"]["moved"], json!([{"from": [2], "to": [1], "addresses": 256.0, "blocks": 1}]));

    // A server's table is compared in the same way.
    let _geo: Daemon = world.start(GEO).await;
    let (server, secret) = (format!("http://{}", world.geo()), token_file(world.folder(), "operator"));
    let moves = run("geo", &["diff", text(&after), &server, "--token-file", text(&secret)]);
    check_done(&moves, 0, &["IPv4: 0 of 2 /24 move (0%)"]);
    tests::files::write(&before, "no table");
    check_done(&run("geo", &["diff", text(&before), text(&after)]), 1, &[text(&before)]);
}

/// BIRD announces, gobgpd hears it and tells the geo server, whose answers change.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_router_hears_is_where_clients_go_and_stays_over_a_restart() {
    const CLIENT: &str = "192.0.2.7";
    let world = World::with_geo(&["sun1-1-1", "sun2-1-1"]);
    let bird = Speaker { address: world.address(10), asn: 64_511 };
    let router = Speaker { address: world.address(11), asn: 64_521 };
    let bmp = SocketAddr::from((world.geo().ip(), BMP_PORT));
    let evidence = format!(
        "publish.save_s = 1\ndamping.stable_s = 0\n[bmp]\nlisten = \"{bmp}\"\nquiet_s = 1\n\
         [[router]]\nname = \"r2\"\naddress = \"{}\"\nregion = 2\nclass = \"transit\"\n\
         [[router.peer]]\nas = 64511\nclass = \"private\"\n",
        router.address
    );
    let starting = world.start_with(GEO, |settings| settings.more = evidence);
    // Nothing was saved: there is no table for others before the router told what it has.
    let operator = with_token(&world, "operator");
    for path in ["/v1/table", "/v1/table/changes?epoch=1&after=1"] {
        poll::until_true(&format!("{path} is refused"), || async {
            operator.get(&url(&world, path)).await.is_ok_and(|answer| answer.status == 503)
        })
        .await;
    }
    let relay = Relay::start((world.address(12), BMP_PORT).into(), bmp, router.address).await;
    let _router = gobgpd(world.folder(), router, &[bird], (world.address(12), BMP_PORT).into());
    let heard = [Announced::with_path("192.0.2.0/24", &[64_600]), Announced::new("198.51.100.0/24")];
    let announcing = Bird::start(world.folder(), bird, &[router], &heard).await;

    let until = |what: &'static str| {
        let client = with_token(&world, "operator");
        let url = url(&world, &format!("/v1/resolve/{CLIENT}"));
        poll::until_true(what, move || {
            let (client, url) = (client.clone(), url.clone());
            async move {
                let answer = client.get(&url).await.ok().filter(|answer| answer.status == 200);
                answer.is_some_and(|answer| json_in(&answer)["evidence"] == what)
            }
        })
    };
    let mut geo = starting.await;
    until("prefix 192.0.2.0/24").await;
    check_done(
        &ask(&world, &["explain", CLIENT]),
        0,
        &["192.0.2.7: regions 2 1, by prefix 192.0.2.0/24", "private", "64511 64600", "r2"],
    );
    check_done(&ask(&world, &["stats"]), 0, &["r2", "connected", "64511"]);
    announcing.announce(&heard[1..]);
    println!("a withdrawal changes the answer within {:?}", until("default").await);
    announcing.announce(&heard);
    println!("an announcement changes the answer within {:?}", until("prefix 192.0.2.0/24").await);

    // The server is killed, and its router cannot be reached when it starts anew: what was heard last still counts.
    poll::until_true("the table is saved", || async {
        let (table, topology) = (world.path("geo.data/table"), world.topology_file());
        let asked = ["lookup", CLIENT, "--table", text(&table), "--topology", text(&topology)];
        run("geo", &asked).out.contains("prefix 192.0.2.0/24")
    })
    .await;
    relay.cut();
    geo.restart().await;
    check_done(&ask(&world, &["lookup", CLIENT]), 0, &["prefix 192.0.2.0/24"]);
    check_done(&ask(&world, &["stats"]), 0, &["settled               false", "away"]);
}

/// Asks the world's server as an operator.
fn ask(world: &World, arguments: &[&str]) -> Done {
    let (server, secret) = (format!("http://{}", world.geo()), token_file(world.folder(), "operator"));
    run("geo", &[arguments, &["--server", &server, "--token-file", text(&secret)]].concat())
}

fn url(world: &World, path: &str) -> String {
    format!("http://{}{path}", world.geo())
}

fn with_token(world: &World, bearer: &str) -> Client {
    world.client().with("authorization", &format!("Bearer {}", token(bearer)))
}

fn json_of(done: &Done) -> Value {
    serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {}{}", done.out, done.err))
}

fn json_in(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
}
