//! The units that are shipped, under a systemd that runs: they start, serve, take over, come back, drain and stop, each as its own
//! user who can do little else. `tests/run` leaves this out, and says so, where systemd cannot be booted.

use tests::poll;

use crate::upgrade::progress;

mod world;

use world::{ADDRESS, CORE, EDGE_SECRETS, FILE, FILE_BYTES, FILM, FILM_BYTES, HOST, INSIDE, World, in_a_world};

/// Capabilities, as `/proc/PID/status` has them.
const NOTHING: &str = "0000000000000000";
const NET_BIND: &str = "0000000000000400";

#[test]
fn the_units_of_a_sun_start_serve_reload_crash_and_stop_as_they_say() {
    in_a_world(async |world| {
        world.edge();
        start_with_broken_addresses(world).await;
        world.until_announced().await;
        serves(world).await;
        confined(world, &[("sun", "sun", NET_BIND), ("sun-check", "sun", NOTHING)]);
        private(world, &EDGE_SECRETS, "sun");
        private(world, &["/var/lib/sun/edge", "/var/lib/sun/store", "/var/lib/sun/check"], "sun");
        reload(world).await;
        crash(world).await;
        lose_the_self_check(world).await;
        restart(world).await;
        stop(world).await;
    });
}

#[test]
fn the_units_behind_a_sun_start_answer_reload_crash_and_restart_without_a_lost_request() {
    in_a_world(async |world| {
        world.core();
        let machine = &world.booted;
        machine.must(&["systemctl", "enable", "popularity-api", "cache-daemon", "geo"]);
        machine.must(&["systemctl", "enable", "--now", "popularity-api.socket", "cache-daemon.socket"]);
        machine.must(&["systemctl", "start", "multi-user.target"]);
        confined(
            world,
            &[
                ("popularity-api", "sun-api", NOTHING),
                ("cache-daemon", "sun-cache", NET_BIND),
                ("geo", "sun-geo", NOTHING),
            ],
        );
        for (name, user, data) in CORE {
            private(world, &[&format!("/etc/sun/{name}/tokens.toml"), &format!("/var/lib/sun/{data}")], user);
        }
        answers(world).await;
        machine.must(&["systemctl", "reload", "geo"]);
        for unit in ["popularity-api", "cache-daemon", "geo"] {
            machine.must(&["systemctl", "kill", "--kill-whom=main", "--signal=KILL", unit]);
            machine.until(unit, "NRestarts", "1").await;
            machine.until(unit, "ActiveState", "active").await;
        }
        answers(world).await;
        let asking = world.visitors((INSIDE, 443).into(), "cache1-1.cdn.test", [0, 0, 2]);
        for unit in ["popularity-api", "cache-daemon"] {
            progress(&asking).await;
            let restarting = machine.start(&["systemctl", "restart", unit]);
            while !restarting.is_finished() {
                answers(world).await;
            }
            assert_eq!(restarting.join().unwrap().status, Some(0), "{unit}");
        }
        progress(&asking).await;
        let tally = asking.end().await;
        assert_eq!(tally.failures(), [""; 0], "of {} requests", tally.total());
        println!("restart: {} requests, 0 failed", tally.total());
        machine.must(&["systemctl", "stop", "popularity-api.socket", "cache-daemon.socket"]);
        for unit in ["popularity-api", "cache-daemon", "geo"] {
            machine.must(&["systemctl", "stop", unit]);
            assert_eq!(machine.property(unit, "Result"), "success", "{unit}");
        }
    });
}

/// Links, a region and a file are what they are asked for.
async fn answers(world: &World) {
    let client = world.client().with("authorization", &format!("Bearer {}", tests::settings::token("backend")));
    let links = serde_json::json!({ "client": "198.51.100.7", "files": ["c1/a.jpg"] });
    let answer = client.post(&format!("http://{INSIDE}:8090/v1/links"), &links).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = client.get(&format!("http://{INSIDE}:8095/v1/resolve/198.51.100.7")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = client.get(&format!("https://cache1-1.cdn.test{FILE}")).await.unwrap();
    assert_eq!((answer.status, answer.body.len() as u64), (200, FILE_BYTES));
}

/// A script that fails keeps nobody from starting but the self-check, and that starts when the script does not fail any more.
async fn start_with_broken_addresses(world: &World) {
    let machine = &world.booted;
    let script = std::fs::read_to_string(world.folder.path().join("etc/sun/addresses")).unwrap();
    world.put("sun/addresses", "exit 1\n");
    machine.must(&["systemctl", "enable", "bird", "sun-addresses", "sun", "sun-check"]);
    machine.must(&["systemctl", "start", "--no-block", "multi-user.target"]);
    for unit in ["sun", "bird"] {
        machine.until(unit, "ActiveState", "active").await;
    }
    machine.until("sun-addresses", "SubState", "auto-restart").await;
    assert_eq!(machine.property("sun-check", "ActiveState"), "inactive");
    world.put("sun/addresses", &script);
    for unit in ["sun-addresses", "sun-check"] {
        machine.until(unit, "ActiveState", "active").await;
    }
}

async fn serves(world: &World) {
    let answer = world.client().get(&format!("https://{HOST}{FILE}")).await.unwrap();
    assert_eq!((answer.status, answer.body.len() as u64), (200, FILE_BYTES));
}

/// `systemctl reload`: a new process, and no request fails; the self-check goes on.
async fn reload(world: &World) {
    let machine = &world.booted;
    let [before, check] = ["sun", "sun-check"].map(|unit| machine.property(unit, "MainPID"));
    let visitors = world.visitors((ADDRESS, 443).into(), HOST, [4, 4, 2]);
    progress(&visitors).await;
    machine.must(&["systemctl", "reload", "sun"]);
    poll::until_true("another main process", || async { machine.property("sun", "MainPID") != before }).await;
    poll::until_true("the former one has ended", || async { machine.run(&["kill", "-0", &before]).status != Some(0) })
        .await;
    progress(&visitors).await;
    let tally = visitors.end().await;
    assert_eq!(tally.failures(), [""; 0], "of {} requests", tally.total());
    println!("reload: {} requests, 0 failed", tally.total());
    assert_eq!(machine.property("sun", "ActiveState"), "active");
    assert_eq!(machine.property("sun", "NRestarts"), "0");
    assert_eq!(machine.property("sun-check", "MainPID"), check);
}

/// kill -9: systemd starts it again, and the self-check goes on.
async fn crash(world: &World) {
    let machine = &world.booted;
    let check = machine.property("sun-check", "MainPID");
    machine.must(&["systemctl", "kill", "--kill-whom=main", "--signal=KILL", "sun"]);
    machine.until("sun", "NRestarts", "1").await;
    machine.until("sun", "ActiveState", "active").await;
    serves(world).await;
    world.until_announced().await;
    assert_eq!(machine.property("sun-check", "MainPID"), check);
}

/// A self-check that is killed, or hangs, leaves the sun the last choice until it is back.
async fn lose_the_self_check(world: &World) {
    let machine = &world.booted;
    for (signal, restarts) in [("KILL", "1"), ("STOP", "2")] {
        machine.must(&["systemctl", "kill", "--kill-whom=main", &format!("--signal={signal}"), "sun-check"]);
        poll::until_true("the sun is the last choice", || async { world.announced() == [false, true] }).await;
        machine.until("sun-check", "NRestarts", restarts).await;
        world.until_announced().await;
    }
    serves(world).await;
}

/// `systemctl restart`: withdrawn before it stops, announced after it started.
async fn restart(world: &World) {
    let machine = &world.booted;
    machine.must(&["systemctl", "restart", "sun"]);
    world.until_announced().await;
    let when = |unit: &str, what: &str| -> u64 { machine.property(unit, what).parse().unwrap() };
    let withdrawn = when("sun-check", "InactiveEnterTimestampMonotonic");
    let stopped = when("sun", "InactiveEnterTimestampMonotonic");
    let started = when("sun", "ActiveEnterTimestampMonotonic");
    let watched = when("sun-check", "ActiveEnterTimestampMonotonic");
    assert!(
        withdrawn < stopped && stopped < started && started <= watched,
        "{withdrawn} {stopped} {started} {watched}"
    );
}

/// `systemctl stop`: withdrawn, and what is being sent is sent to its end.
async fn stop(world: &World) {
    let machine = &world.booted;
    let url = format!("https://{HOST}{FILM}");
    let mut film = world.client().start(http::Method::GET, &url).await.unwrap();
    let first = film.read(1_000_000).await.unwrap();
    machine.must(&["systemctl", "stop", "--no-block", "sun"]);
    machine.until("sun", "SubState", "stop-sigterm").await;
    assert_eq!(world.announced(), [false, false]);
    assert!(world.client().get(&format!("https://{HOST}{FILE}")).await.is_err(), "it accepts nobody any more");
    let rest = film.finish().await.unwrap().body;
    assert_eq!((first.len() + rest.len()) as u64, FILM_BYTES);
    machine.until("sun", "ActiveState", "inactive").await;
    assert_eq!(machine.property("sun", "Result"), "success");
    assert_eq!(machine.property("sun-check", "ActiveState"), "inactive");
}

/// Each unit's main process is this user's, has these capabilities and can get no more.
fn confined(world: &World, units: &[(&str, &str, &str)]) {
    let machine = &world.booted;
    for &(unit, user, capabilities) in units {
        let id = machine.must(&["id", "--user", user]).trim().to_owned();
        let ids = machine.status_of(unit, "Uid");
        assert!(ids.split_whitespace().all(|one| one == id), "{unit}: {ids}");
        for key in ["CapEff", "CapPrm", "CapBnd", "CapAmb"] {
            assert_eq!(machine.status_of(unit, key), capabilities, "{unit}: {key}");
        }
        assert_eq!(machine.status_of(unit, "NoNewPrivs"), "1", "{unit}");
        assert_eq!(machine.status_of(unit, "Seccomp"), "2", "{unit}: it filters system calls");
    }
}

/// No daemon's user but the owner reads any of these.
fn private(world: &World, files: &[&str], owner: &str) {
    for user in ["sun", "sun-cache", "sun-api", "sun-geo", "nobody"] {
        for file in files {
            let read = "if [ -d \"$0\" ]; then ls \"$0\"; else cat \"$0\"; fi";
            let id = world.booted.must(&["id", "--user", user]).trim().to_owned();
            let as_user = ["setpriv", "--reuid", &id, "--clear-groups", "sh", "-c", read, file];
            assert_eq!(world.booted.run(&as_user).status == Some(0), user == owner, "{file} by {user}");
        }
    }
}
