//! A weight changes: seen by every daemon at once, moving the least that could move.

use std::time::{Duration, Instant};

use tests::origin::Script;
use tests::poll;
use tests::process::{Daemon, run};
use tests::world::{API, World, owner};

use crate::carrying::links;

const SUNS: [&str; 4] = ["sun1-1-1", "sun1-1-2", "sun1-1-3", "sun1-1-4"];
const FILES: usize = 2000;
/// A second is what is promised; the other one is for a machine that runs all tests at once.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_weight_set_moves_the_theoretical_share_and_everybody_sees_it() {
    let world = World::with_api(&[SUNS[0], SUNS[1], SUNS[2], SUNS[3], "cache1-1"]);
    let mut daemons = Vec::new();
    for name in [API].into_iter().chain(SUNS).chain(["cache1-1"]) {
        daemons.push((name, world.start(name).await));
    }
    let files: Vec<String> = (0..FILES).map(|number| format!("c1/weights/{number}.jpg")).collect();
    let before = until_links_are_the_owners(&world, &world.topology.parsed(), &files).await;

    let file = world.topology_file();
    let asked = Instant::now();
    let done = run("sunctl", &["weight", "set", "sun1-1-1", "50", "--topology", file.to_str().unwrap()]);
    assert_eq!(done.status, Some(0), "{}{}", done.out, done.err);
    let changed = std::fs::read_to_string(&file).unwrap();
    let topology = geo::Topology::parse(&changed).unwrap();
    assert_eq!(topology.version, world.topology.version + 1);

    // Seen: by its own word, each daemon goes by the new version. They are asked in turn, so what is measured, from
    // before the command ran, is never less than what it took.
    for (name, daemon) in &daemons {
        poll::until_true("the new topology's version", || goes_by(daemon, topology.version)).await;
        let seen = asked.elapsed();
        println!("a weight set was seen by {name} within {seen:?}");
        assert!(seen < SEEN_WITHIN, "{name} saw it after {seen:?}");
    }

    let after = until_links_are_the_owners(&world, &topology, &files).await;
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    let strayed = before.iter().zip(&after).filter(|(before, after)| before != after && *before != SUNS[0]).count();
    assert_eq!(strayed, 0, "only files of the server whose weight sank may move");
    // A quarter becomes a seventh: 1/4 - 1/7 of the files move, give or take four standard deviations.
    let share = moved as f64 / FILES as f64;
    println!("moved {share:.4} of the files, the theoretical share is {:.4}", 1.0 / 4.0 - 1.0 / 7.0);
    assert!((share - (1.0 / 4.0 - 1.0 / 7.0)).abs() < 4.0 * (0.1071_f64 * 0.8929 / FILES as f64).sqrt(), "{share}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sun_that_stays_pressed_rests_and_everybody_goes_by_it_until_it_recovers() {
    let world = World::with_api(&[SUNS[0], SUNS[1], SUNS[2]]);
    let pressure = world.path("pressure");
    let press = |percent: u8| {
        tests::files::write(&pressure, &format!("some avg10={percent}.00 avg60=0.00 avg300=0.00 total=0\n"));
    };
    press(95);
    let _api = world.start(API).await;
    let rest = format!("rest.pressure_file = {pressure:?}\nrest.after_s = 1\nrest.step = 0.25");
    let pressed = world.start_with(SUNS[0], |settings| settings.rest = rest).await;
    let other = world.start(SUNS[1]).await;
    let _third = world.start(SUNS[2]).await;
    let rests = |percent: f64| {
        let pressed = &pressed;
        move || async move { pressed.metrics().await.find("rest_percent").contains(&percent) }
    };
    poll::until_true("it takes half of its weight", rests(50.0)).await;
    let written = world.topology.parsed();
    let rested = written.rested(&[(SUNS[0].to_owned(), 0.5)].into());
    let files: Vec<String> = (0..200).map(|number| format!("c1/rest/{number}.jpg")).collect();
    until_links_are_the_owners(&world, &rested, &files).await;
    // A file that moved from the one that rests is kept by the sun that is linked now.
    let moved = files.iter().find(|file| owner(&written, 1, file) == SUNS[0] && owner(&rested, 1, file) == SUNS[1]);
    let moved = moved.expect("some file moves there");
    world.put(moved, Script::file(1000));
    let keeps = || async {
        let answer = world.client().get(&world.https(SUNS[1], moved)).await.unwrap();
        world.check_whole(moved, 1000, &answer);
        other.metrics().await.find("topology_version").contains(&1.0) && world.fetches(moved) == 1
    };
    poll::until_true("the other sun has it", keeps).await;
    let (file, token) = (world.topology_file(), tests::settings::token_file(world.folder(), "operator"));
    let api = format!("http://{}", world.api());
    let shown = run(
        "sunctl",
        &[
            "weight",
            "show",
            "--api",
            &api,
            "--token-file",
            token.to_str().unwrap(),
            "--topology",
            file.to_str().unwrap(),
        ],
    );
    assert!(shown.out.contains("rests, takes 50.0%"), "{}{}", shown.out, shown.err);
    press(1);
    poll::until_true("it takes all again", rests(100.0)).await;
    until_links_are_the_owners(&world, &written, &files).await;
}

#[test]
fn a_ramp_that_is_interrupted_stays_where_it_is() {
    let world = World::new(&[SUNS[0], SUNS[1]]);
    let file = world.topology_file();
    let binary = tests::process::binary("sunctl");
    let mut command = std::process::Command::new(binary);
    command.args(["weight", "set", SUNS[0], "50", "--over", "10m", "--yes", "--topology", file.to_str().unwrap()]);
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    let child = command.spawn().unwrap();
    let weight = || {
        let topology = geo::Topology::parse(&std::fs::read_to_string(&file).unwrap()).unwrap();
        topology.sun(SUNS[0]).unwrap().server.weight.get()
    };
    let begun = Instant::now();
    while weight() == 100 {
        assert!(begun.elapsed() < poll::DEADLINE, "no first step");
        std::thread::yield_now();
    }
    let process = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    let done = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.code() == Some(1) && said.contains("Stopped: sun1-1-1 has weight"), "{said}");
    assert!((51..100).contains(&weight()), "{}", weight());
}

/// Asks for links until each names its owner, and returns the servers.
async fn until_links_are_the_owners(world: &World, topology: &geo::Topology, files: &[String]) -> Vec<String> {
    poll::until("links that name the owners", || async {
        let links = links(world, 1, files).await.links;
        let servers: Vec<String> = links.into_iter().map(|link| link.server.expect("a server")).collect();
        let right = servers.iter().zip(files).all(|(server, file)| *server == owner(topology, 1, file));
        right.then_some(servers)
    })
    .await
    .0
}

async fn goes_by(daemon: &Daemon, version: u64) -> bool {
    let metrics = daemon.metrics().await;
    let known = metrics.find("topology_version");
    assert!(!known.is_empty(), "no metric tells the topology's version: {:?}", metrics.names());
    known.contains(&(version as f64))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topology_that_does_not_check_changes_nothing() {
    let world = World::new(&SUNS);
    // The one file there is would be hot, and be passed on to suns that do not run.
    let sun = world.start_with("sun1-1-1", |settings| settings.more = "hot.redirect = false".to_owned()).await;
    world.put("c1/a.jpg", Script::file(1000));
    tests::files::write(
        &world.topology_file(),
        &world.topology.render().replace("version = 1", "version = 9\nnonsense = 1"),
    );
    poll::until_true("the bad topology is refused in the log", || async { sun.log().contains("nonsense") }).await;
    let mut changed = world.topology.clone();
    for _ in 0..20 {
        let answer = world.client().get(&world.https("sun1-1-1", "c1/a.jpg")).await.unwrap();
        world.check_whole("c1/a.jpg", 1000, &answer);
    }
    assert!(goes_by(&sun, 1).await, "{:?}", sun.metrics().await);
    changed.version = 10;
    world.write_topology(&changed);
    poll::until_true("the good topology", || goes_by(&sun, 10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_topology_file_a_daemon_starts_from_the_last_good_copy() {
    let world = World::with_api(&["sun1-1-1", "cache1-1"]);
    let mut daemons = Vec::new();
    for name in [API, "sun1-1-1", "cache1-1"] {
        daemons.push(world.start(name).await);
    }
    world.put("c1/a.jpg", Script::file(1000));
    std::fs::remove_file(world.topology_file()).unwrap();
    for daemon in &mut daemons {
        daemon.kill();
        daemon.restart().await;
        let daemon = &*daemon;
        poll::until_true("the topology of the last good copy", || goes_by(daemon, 1)).await;
    }
    for server in ["sun1-1-1", "cache1-1"] {
        let answer = world.client().get(&world.https(server, "c1/a.jpg")).await.unwrap();
        world.check_whole("c1/a.jpg", 1000, &answer);
    }
}
