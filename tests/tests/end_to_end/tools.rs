//! What an operator types.

use tests::origin::Script;
use tests::process::run;
use tests::settings::token_file;
use tests::world::{API, World, owner};

use crate::{check_done, text, until_hit};

#[test]
fn a_config_is_checked_without_starting_anything() {
    let world = World::with_api(&["sun1-1-1", "cache1-1"]);
    for (program, name) in [(API, API), ("sun", "sun1-1-1"), ("cache-daemon", "cache1-1")] {
        let config = world.write_config(name, |_| {});
        let good = std::fs::read_to_string(&config).unwrap();
        let check = || run(program, &["--config", text(&config), "--check"]);
        check_done(&check(), 0, &["ok"]);

        // An unknown key, named with its file.
        tests::files::write(&config, &format!("frobnicate = 1\n{good}"));
        check_done(&check(), 1, &["frobnicate"]);
        // A document that is none.
        tests::files::write(&config, "name = ");
        check_done(&check(), 1, &[text(&config)]);
        // A topology that is not there, a topology that is refused, tokens that others may read.
        tests::files::write(&config, &good.replace("/topology.toml", "/no-such-topology.toml"));
        check_done(&check(), 1, &["no-such-topology.toml"]);
        tests::files::write(&config, &good);
        tests::files::write(&world.topology_file(), &world.topology.render().replace("weight = 100", "weight = 300"));
        check_done(&check(), 1, &["weight", "300"]);
        world.write_topology(&world.topology);
        tests::files::write(&config, &good.replace("/tokens.toml", "/no-such-tokens.toml"));
        check_done(&check(), 1, &["no-such-tokens.toml"]);
        if name != API {
            tests::files::write(&config, &good.replace("/certificate.pem", "/no-such-certificate.pem"));
            check_done(&check(), 1, &["no-such-certificate.pem"]);
            tests::files::write(&config, &good.replace(&format!("name = \"{name}\""), "name = \"sun9-9-9\""));
            check_done(&check(), 1, &["sun9-9-9"]);
        }
        tests::files::write(&config, &good);
        check_done(&check(), 0, &["ok"]);
        check_done(&run(program, &["--config", "/no/such/file.toml", "--check"]), 1, &["/no/such/file.toml"]);
        check_done(&run(program, &["--frobnicate"]), 2, &["--frobnicate"]);
        check_done(&run(program, &["--version"]), 0, &[program]);
    }
}

#[test]
fn a_daemon_whose_port_is_taken_says_so() {
    let world = World::new(&["sun1-1-1"]);
    let config = world.write_config("sun1-1-1", |_| {});
    let address = world.server("sun1-1-1").internal();
    let _taken = std::net::TcpListener::bind(address).unwrap();
    check_done(&run("sun", &["--config", text(&config)]), 1, &[&address.to_string()]);
}

#[test]
fn weights_are_listed_previewed_and_set() {
    let world = World::new(&["sun1-1-1", "sun1-1-2", "cache1-1"]);
    let file = world.topology_file();
    let with_topology = |arguments: &[&str]| run("sunctl", &[arguments, &["--topology", text(&file)]].concat());
    check_done(&with_topology(&["weight", "list"]), 0, &["sun1-1-1", "cache1-1", "100"]);

    let before = std::fs::read_to_string(&file).unwrap();
    check_done(&with_topology(&["weight", "set", "sun1-1-1", "50", "--dry-run"]), 0, &["sun1-1-1"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    check_done(&with_topology(&["weight", "set", "sun1-1-1", "50"]), 0, &["sun1-1-1"]);
    let topology = geo::Topology::parse(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!((topology.version, topology.sun("sun1-1-1").unwrap().server.weight.get()), (2, 50));
    let json = with_topology(&["weight", "list", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!(json["version"], 2);

    check_done(&with_topology(&["drain", "sun1-1-1"]), 0, &["50 -> 50 draining", "version 3"]);
    let topology = geo::Topology::parse(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let server = &topology.sun("sun1-1-1").unwrap().server;
    assert_eq!((server.weight.get(), server.weight_wanted.get(), server.draining()), (0, 50, true));
    check_done(&with_topology(&["drain", "sun1-1-1"]), 0, &["drains already", "Nothing was written"]);
    check_done(&with_topology(&["resume", "sun1-1-1"]), 0, &["50 draining -> 50", "version 4"]);
    check_done(&with_topology(&["weight", "set", "sun9-9-9", "50"]), 1, &["sun9-9-9"]);
    check_done(&with_topology(&["weight", "set", "sun1-1-1", "257"]), 1, &["257", "256"]);
    check_done(&run("sunctl", &["weight", "list", "--topology", "/no/such/file"]), 1, &["/no/such/file"]);
}

#[test]
fn a_topology_and_configs_are_checked_together() {
    let world = World::with_api(&["sun1-1-1", "cache1-1"]);
    let configs = ["sun1-1-1", "cache1-1", API].map(|name| world.write_config(name, |_| {}));
    let file = world.topology_file();
    let mut arguments = vec!["check", "--topology", text(&file), "--config"];
    arguments.extend(configs.iter().map(|config| text(config)));
    check_done(&run("sunctl", &arguments), 0, &[]);
    let good = std::fs::read_to_string(&configs[0]).unwrap();
    tests::files::write(&configs[0], &format!("frobnicate = 1\n{good}"));
    check_done(&run("sunctl", &arguments), 1, &["frobnicate"]);
    tests::files::write(&configs[0], &good);
    tests::files::write(&file, &world.topology.render().replace("weight = 100", "weight = 300"));
    check_done(&run("sunctl", &arguments), 1, &["weight", "300"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_ratings_and_where_a_file_is() {
    const SIZE: u64 = 50_000;
    let world = World::with_api(&["sun1-1-1", "sun1-1-2", "cache1-1"]);
    let _api = world.start(API).await;
    let (_first, _second) = (world.start("sun1-1-1").await, world.start("sun1-1-2").await);
    let _cache = world.start("cache1-1").await;
    world.put("c1/a.jpg", Script::file(SIZE));
    let keeper = owner(&world.topology.parsed(), 1, "c1/a.jpg");

    let api = format!("http://{}", world.api());
    let token = token_file(world.folder(), "operator");
    let ask = |arguments: &[&str]| run("sunctl", &[arguments, &["--api", &api, "--token-file", text(&token)]].concat());
    let place = || ask(&["where", "c1/a.jpg", "--client", "127.200.1.1"]);
    check_done(&place(), 0, &["c1/a.jpg", &keeper, "https://"]);

    until_hit(&world, &world.client_in(1), &world.https(&keeper, "c1/a.jpg"), "c1/a.jpg", SIZE).await;
    tests::poll::until_true("sunctl top names the file", || async {
        let done = ask(&["top", "1"]);
        check_done(&done, 0, &[]);
        done.out.contains("c1/a.jpg")
    })
    .await;
    tests::poll::until_true("sunctl where names the cache", || async { place().out.contains("cache1-1.cdn.test") })
        .await;

    // Without the API, from the topology alone.
    let file = world.topology_file();
    let alone = run("sunctl", &["where", "c1/a.jpg", "--client", "127.200.1.1", "--topology", text(&file)]);
    check_done(&alone, 0, &[&keeper]);
    check_done(&ask(&["where", "../etc/passwd", "--client", "127.200.1.1"]), 1, &[]);
    check_done(
        &run("sunctl", &["top", "1", "--api", "http://127.0.0.1:9", "--token-file", text(&token)]),
        1,
        &["127.0.0.1:9"],
    );
}

#[test]
fn a_token_is_random_and_long_enough() {
    let (one, other) = (run("sunctl", &["token"]), run("sunctl", &["token"]));
    check_done(&one, 0, &[]);
    assert!(one.out.trim().len() >= 32 && one.out != other.out, "{} {}", one.out, other.out);
}

#[test]
fn geo_tells_the_region_of_an_address_and_why() {
    let world = World::new(&["sun1-1-1", "sun2-1-1"]);
    let (topology, prefixes) = (world.topology_file(), world.path("prefixes.txt"));
    let lookup =
        |address: &str| run("geo", &["lookup", address, "--topology", text(&topology), "--prefixes", text(&prefixes)]);
    check_done(&lookup("127.200.2.7"), 0, &["2", "127.200.2.0/24"]);
    check_done(&lookup("127.200.1.7"), 0, &["1", "127.200.1.0/24"]);
    check_done(&lookup("192.0.2.1"), 0, &["1", "default"]);
    check_done(&lookup("2001:db8::1"), 0, &["default"]);
    check_done(&lookup("not-an-address"), 1, &["not-an-address"]);
}
