//! The units that are shipped, under a systemd that runs: they start, serve, take over, come back, drain and stop, each as its own
//! user who can do little else. `tests/run` leaves this out, and says so, where systemd cannot be booted.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use tests::poll;

use crate::upgrade::progress;

mod world;

use world::{ADDRESS, CORE, EDGE_SECRETS, FILE, FILE_BYTES, FILM, FILM_BYTES, HOST, INSIDE, World, in_a_world};

/// Capabilities, as `/proc/PID/status` has them.
const NOTHING: &str = "0000000000000000";
const NET_BIND: &str = "0000000000000400";

/// Capabilities of the whole kernel, as `capability.h` numbers them.
const REACHES_THE_HOST: [(&str, u32); 5] =
    [("sys_module", 16), ("sys_rawio", 17), ("sys_boot", 22), ("sys_time", 25), ("mknod", 27)];

/// In the environment of a test that another one kills.
const TO_BE_KILLED: &str = "SUN_TEST_TO_BE_KILLED";
/// Before what it prints of its machine.
const MACHINE: &str = "machine: ";

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

#[test]
fn a_machine_can_do_its_host_no_harm_and_runs_nothing_that_is_not_asked_for() {
    in_a_world(async |world| {
        let machine = &world.booted;
        for process in ["1", "self"] {
            let status = machine.must(&["cat", &format!("/proc/{process}/status")]);
            let bounds = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
            let bounds = u64::from_str_radix(bounds.trim(), 16).unwrap();
            for (capability, number) in REACHES_THE_HOST {
                assert_eq!(bounds >> number & 1, 0, "{process} has {capability}");
            }
        }
        assert_ne!(machine.run(&["mknod", "/run/disk", "b", "8", "0"]).status, Some(0));
        for file in ["/proc/sysrq-trigger", "/proc/sys/kernel/hostname", "/sys/kernel/uevent_helper", "/usr/bin/env"] {
            machine.must(&["sh", "-c", "[ ! -w \"$0\" ]", file]);
        }
        machine.must(&["systemctl", "start", "multi-user.target"]);
        for unit in ["modprobe@drm.service", "systemd-logind.service"] {
            assert_eq!(machine.property(unit, "LoadState"), "masked", "{unit}");
        }
        let runs =
            machine.must(&["systemctl", "list-units", "--type=service", "--state=active", "--plain", "--no-legend"]);
        let mut runs: Vec<_> = runs.lines().filter_map(|line| line.split_whitespace().next()).collect();
        runs.retain(|unit| !unit.starts_with("systemd-journal"));
        assert_eq!(runs, ["systemd-sysusers.service", "systemd-tmpfiles-setup.service"]);
    });
}

#[test]
fn a_test_that_is_killed_leaves_nothing_running_and_what_is_left_of_it_is_swept() {
    if std::env::var_os(TO_BE_KILLED).is_some() {
        in_a_world(async |world| {
            println!("{MACHINE}{} {}", world.booted.control_group().display(), world.folder.path().display());
            std::future::pending::<()>().await;
        });
    }
    let test = "booted::a_test_that_is_killed_leaves_nothing_running_and_what_is_left_of_it_is_swept";
    let mut killed = Command::new("/usr/bin/setpriv")
        .args(["--pdeathsig", "KILL"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(TO_BE_KILLED, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(killed.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.filter_map(|line| line.split_once(MACHINE).map(|(_, left)| left.to_owned())).next();
    let line = line.expect("it boots a machine");
    let (group, folder) = line.split_once(' ').unwrap();
    let runs = || std::fs::read_to_string(format!("{group}/cgroup.events")).unwrap().contains("populated 1");
    tests::booted::sweep();
    assert!(runs() && Path::new(folder).exists(), "a machine of a test that runs is left alone");
    killed.kill().unwrap();
    killed.wait().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(poll::until_true("nothing of it runs", || async { !runs() }));
    tests::booted::sweep();
    assert_eq!([group, folder].map(|left| Path::new(left).exists()), [false, false]);
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
