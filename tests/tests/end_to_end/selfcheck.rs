//! The self-check beside a sun: what it sees, and what it has a real BIRD announce. No router listens; what BIRD's own
//! table has is what it would tell one.

use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tests::poll;
use tests::process::{Daemon, admin_get, run};
use tests::settings::token_file;
use tests::world::World;

use crate::store::Mounted;

const SUN: &str = "sun1-1-1";
const OTHER: &str = "sun1-1-2";

#[tokio::test(flavor = "multi_thread")]
async fn a_sun_that_is_killed_is_withdrawn_and_announced_again_when_it_is_back() {
    let group = Group::start(&[SUN, OTHER]).await;
    let mut suns = group.suns().await;
    let (world, checks) = (&group.world, &group.checks);
    until_state(world, SUN, "up").await;
    until_state(world, OTHER, "up").await;
    group.bird.until(2, 0).await;
    assert!(group.bird.ask(&["show", "route"]).contains("192.0.2.1/32"), "what routers would be told");

    suns[0].kill();
    group.bird.until(0, 0).await;
    until_state(world, SUN, "down").await;
    let told = status(world, SUN).await;
    assert!(told["reason"].as_str().is_some_and(|why| why.starts_with("nobody listens at ")), "{told:#}");

    suns[0].restart().await;
    group.bird.until(2, 0).await;
    poll::until_true("what is announced is told", || async {
        status(world, SUN).await["speaker"]["announced"] == "best"
    })
    .await;
    let told = run("sun-check", &["status", "--config", group.config(SUN).to_str().unwrap()]);
    for part in
        ["sun1-1-1 is Up for ", "announced  2 routes as best by BIRD", "Up -> Down (probe)", "other      sun1-1-2 Up"]
    {
        assert!(told.out.contains(part), "{part:?} is not in\n{}", told.out);
    }
    let metrics = checks[0].metrics().await;
    assert_eq!(metrics.sum("sun_check_state", &["state=\"up\""]), Some(1.0));
    assert_eq!(metrics.sum("sun_check_transitions_total", &["from=\"up\"", "to=\"down\""]), Some(1.0));
    assert_eq!(metrics.sum("sun_check_routes", &["as=\"best\""]), Some(2.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sun_that_hangs_is_withdrawn() {
    let group = Group::start(&[SUN, OTHER]).await;
    let suns = group.suns().await;
    group.bird.until(2, 0).await;
    until_state(&group.world, OTHER, "up").await;
    signal(&suns[0], Signal::STOP);
    group.bird.until(0, 0).await;
    let status = status(&group.world, SUN).await;
    assert!(status["reason"].as_str().is_some_and(|why| why.contains("no answer within 1000 ms")), "{status:#}");
    signal(&suns[0], Signal::CONT);
    group.bird.until(2, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_of_a_group_goes_on_being_announced() {
    let group = Group::start(&[SUN, OTHER]).await;
    let mut suns = group.suns().await;
    let world = &group.world;
    until_state(world, OTHER, "up").await;
    until_state(world, SUN, "up").await;
    suns[1].kill();
    until_state(world, OTHER, "down").await;
    suns[0].kill();
    until_state(world, SUN, "down").await;
    poll::until_true("the last one", || async { status(world, SUN).await["last"] == true }).await;
    assert_eq!(status(world, SUN).await["announce"], "drain", "whoever is well is to win");
    group.bird.until(0, 2).await;
    suns[1].restart().await;
    group.bird.until(0, 0).await;
    assert_eq!(status(world, SUN).await["last"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bird_that_is_restarted_announces_again() {
    let mut group = Group::start(&[SUN]).await;
    let _suns = group.suns().await;
    group.bird.until(2, 0).await;
    group.bird.kill();
    poll::until_true("the speaker is missed", || async {
        status(&group.world, SUN).await["speaker"]["problem"].as_str().is_some_and(|why| why.contains("does BIRD run"))
    })
    .await;
    assert_eq!(status(&group.world, SUN).await["state"], "up", "no reason to be ill");
    group.bird.restart();
    group.bird.until(2, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_compares_the_config_with_topology_tokens_and_bird() {
    let mut group = Group::start(&[SUN, OTHER]).await;
    let config = group.config(SUN);
    let (file, text) = (config.display().to_string(), std::fs::read_to_string(&config).unwrap());
    let check = || run("sun-check", &["--config", &file, "--check"]);
    // The lab's BIRD has two routes that no sun of this topology has.
    let found = check();
    let own = format!("{}/32", group.world.server(SUN).address);
    for part in ["BIRD's sun_drain_* lack ", &own, "BIRD's sun_up_* have 192.0.2.1/32, 192.0.2.2/32"] {
        assert!(found.out.contains(part), "{part:?} is not in\n{}{}", found.out, found.err);
    }
    assert!(found.err.contains("warning: speaker.socket: ") && found.err.contains("no session to a router"));
    assert_eq!(found.status, Some(1));

    group.bird.kill();
    let found = check();
    assert_eq!((found.status, found.out.as_str()), (Some(0), "ok\n"), "{}", found.err);
    assert!(found.err.contains("does BIRD run, and may this user use its socket?"), "{}", found.err);

    let others = token_file(group.world.folder(), OTHER);
    let odd = text.replace(&format!("{:?}", token_file(group.world.folder(), SUN)), &format!("{others:?}"));
    tests::files::write(&config, &format!("{odd}[guard]\nup_min = 2\n[guard.peers]\n\"sun9-9-9\" = \"127.0.0.1:1\"\n"));
    let found = check();
    for part in ["is that of \"sun1-1-2\" of region 1", "guard.up_min = 2", "guard.peers: \"sun9-9-9\" is no other sun"]
    {
        assert!(found.out.contains(part), "{part:?} is not in\n{}{}", found.out, found.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_of_the_sun_is_no_alarm() {
    let group = Group::start(&[SUN]).await;
    let mut suns = group.suns().await;
    until_state(&group.world, SUN, "up").await;
    // The sun was not there at the start.
    let before_down = group.checks[0].metrics().await.sum("sun_check_transitions_total", &["to=\"down\""]);
    let before = suns[0].upgrade().await;
    poll::until_true("the former process ended", || async { !suns[0].runs(before) }).await;
    let seen = suns[0].id();
    poll::until_true("the new process answers", || async { status(&group.world, SUN).await["probe"]["pid"] == seen })
        .await;
    let metrics = group.checks[0].metrics().await;
    assert_eq!(metrics.sum("sun_check_transitions_total", &["to=\"down\"", "cause=\"probe\""]), before_down, "no fall");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_withdraws_a_sun_until_it_is_renewed() {
    let group = Group::start(&[SUN, OTHER]).await;
    let world = &group.world;
    let own = world.authority.issue(world.folder(), "own", &["*.cdn.test"]);
    let sun = world.start_with(SUN, |settings| settings.certificates = vec![own.clone()]).await;
    let _other = world.start(OTHER).await;
    until_state(world, OTHER, "up").await;
    group.bird.until(2, 0).await;
    let replace = |with: tests::certificates::Files| {
        std::fs::rename(with.key, &own.key).unwrap();
        std::fs::rename(with.chain, &own.chain).unwrap();
    };
    // One that has expired is refused, so it has to expire while it is used.
    let soon = std::time::SystemTime::now() + std::time::Duration::from_secs(12);
    replace(world.authority.issue_valid_until(world.folder(), "old", &["*.cdn.test"], soon));
    poll::until_true("it is used", || async { sun.log().contains("certificates reloaded") }).await;
    group.bird.until(0, 0).await;
    let reason = status(world, SUN).await["reason"].to_string();
    assert!(reason.contains("certificate") && reason.contains("xpired"), "{reason}");
    replace(world.authority.issue(world.folder(), "new", &["*.cdn.test"]));
    group.bird.until(2, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sun_whose_only_disk_hangs_is_withdrawn() {
    let group = Group::start(&[SUN, OTHER]).await;
    let world = &group.world;
    let Some(mounted) = Mounted::new(&world.path("disk"), "96M") else {
        eprintln!("skipped: mounting a loop device needs root and loop devices");
        return;
    };
    let store = format!("\nstore = [{{ path = {:?}, bytes = {} }}]", mounted.at, 64 << 20);
    let mut sun = world.start_with(SUN, |settings| settings.more += &store).await;
    let _other = world.start(OTHER).await;
    until_state(world, OTHER, "up").await;
    group.bird.until(2, 0).await;
    poll::until_true("the disk is written and read", || async {
        sun.metrics().await.sum("edge_store_entries", &[]) == Some(1.0)
    })
    .await;
    let freeze = |option: &str| Command::new("fsfreeze").arg(option).arg(&mounted.at).status().unwrap().success();
    assert!(freeze("--freeze"));
    let thawed = Thaw(mounted.at.clone());
    group.bird.until(0, 0).await;
    let reason = status(world, SUN).await["reason"].to_string();
    assert!(reason.contains("nothing was written for"), "{reason}");
    drop(thawed);
    group.bird.until(2, 0).await;
    sun.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_takes_a_sun_out_and_lets_it_back_in() {
    let mut group = Group::start(&[SUN]).await;
    let _suns = group.suns().await;
    group.bird.until(2, 0).await;
    let config = group.config(SUN).display().to_string();
    let order =
        |arguments: &[&str]| run("sun-check", &[&arguments[..1], &["--config", &config], &arguments[1..]].concat());
    let refused = order(&["disable", "--reason", "a new disk"]);
    assert_eq!(refused.status, Some(1));
    assert!(refused.err.contains("too few others"), "{}", refused.err);
    let done = order(&["disable", "--force", "--reason", "a new disk"]);
    let said = "sun1-1-1 is Disabled now; BIRD announces nothing of it\n";
    assert_eq!((done.status, done.out.as_str()), (Some(0), said), "{}", done.err);
    group.bird.check(0, 0);
    let check = &mut group.checks[0];
    check.kill();
    check.restart().await;
    assert_eq!(status(&group.world, SUN).await["state"], "disabled", "also after a restart");
    let told = order(&["status"]).out;
    assert!(told.contains("is Disabled for") && told.contains("a new disk (ordered by sun1-1-1)"), "{told}");
    assert_eq!(order(&["enable"]).status, Some(0));
    group.bird.until(2, 0).await;
    let stranger = admin_post(group.checks[0].admin(), "/disable").await;
    assert_eq!(stranger, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_acts_when_it_cannot_be_written_and_says_what_bird_has_not_confirmed() {
    let mut group = Group::start(&[SUN, OTHER]).await;
    let _suns = group.suns().await;
    let world = &group.world;
    group.bird.until(2, 0).await;
    until_state(world, OTHER, "up").await;
    let config = group.config(SUN).display().to_string();
    let order =
        |arguments: &[&str]| run("sun-check", &[&arguments[..1], &["--config", &config], &arguments[1..]].concat());
    // What a full or dead disk does to the file of the order.
    let blocked = world.path(&format!("{SUN}-check.data/disabled.new"));
    std::fs::create_dir(&blocked).unwrap();
    let done = order(&["disable"]);
    assert_eq!(done.status, Some(3), "{} {}", done.out, done.err);
    group.bird.check(0, 0);
    let forced = order(&["disable", "--force"]);
    assert_eq!(forced.status, Some(0), "{} {}", forced.out, forced.err);
    assert!(forced.err.starts_with("WARNING: it is in force and cannot be written"), "{}", forced.err);
    assert!(order(&["status"]).out.contains("a restart of sun-check forgets what was ordered last"));
    let metrics = group.checks[0].metrics().await;
    assert_eq!(metrics.sum("sun_check_order_unkept", &[]), Some(1.0));
    std::fs::remove_dir(&blocked).unwrap();
    poll::until_true("it is written after all", || async { status(world, SUN).await["unkept"].is_null() }).await;

    assert_eq!(order(&["enable"]).status, Some(0));
    group.bird.until(2, 0).await;
    group.bird.signal(Signal::STOP);
    let hung = order(&["disable", "--force", "--reason", "first\nsecond"]);
    assert_eq!(hung.status, Some(4), "{} {}", hung.out, hung.err);
    assert!(hung.out.contains("BIRD was asked to withdraw its addresses and has not confirmed it"), "{}", hung.out);
    group.bird.signal(Signal::CONT);
    group.bird.until(0, 0).await;

    let check = &mut group.checks[0];
    check.terminate();
    assert!(check.until_ended().await.success());
    check.restart().await;
    let told = order(&["status"]).out;
    for part in ["first\\nsecond (ordered by", "Disabled (stop): ", "started; the one before was told to end"] {
        assert!(told.contains(part), "{part:?} is not in\n{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_sun_is_announced_with_a_lower_preference() {
    let group = Group::start(&[SUN, OTHER]).await;
    let _suns = group.suns().await;
    group.bird.until(2, 0).await;
    let mut topology = std::fs::read_to_string(group.world.topology_file()).unwrap();
    let line = format!("name = \"{SUN}\"\n");
    topology = topology.replace(&line, &format!("{line}draining = true\n")).replacen("version = 1", "version = 2", 1);
    tests::files::write(&group.world.topology_file(), &topology);
    group.bird.until(0, 2).await;
    assert_eq!(status(&group.world, SUN).await["state"], "draining");
    group.world.write_topology(&group.world.topology);
    group.bird.until(2, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_self_check_withdraws_before_it_ends_unless_it_is_to_leave_things_as_they_are() {
    let mut group = Group::start(&[SUN]).await;
    let _suns = group.suns().await;
    group.bird.until(2, 0).await;
    group.checks[0].terminate();
    assert!(group.checks[0].until_ended().await.success());
    group.bird.check(0, 0);

    let config = group.config(SUN);
    let text = std::fs::read_to_string(&config).unwrap();
    tests::files::write(&config, &format!("on_stop = \"keep\"\n{text}"));
    group.checks[0].restart().await;
    group.bird.until(2, 0).await;
    group.checks[0].terminate();
    assert!(group.checks[0].until_ended().await.success());
    group.bird.check(2, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_told_that_a_self_check_has_started_lives_and_ends() {
    let world = World::new(&[SUN]);
    let config = write_config(&world, SUN, "");
    for name in [Some(world.path("notify")), None] {
        // A path, or a name that is in no folder (unix(7)).
        let abstract_name = format!("sun-check-{}", std::process::id());
        let (socket, told) = match &name {
            Some(path) => (std::os::unix::net::UnixDatagram::bind(path).unwrap(), path.display().to_string()),
            None => {
                let address = std::os::unix::net::SocketAddr::from_abstract_name(&abstract_name).unwrap();
                (std::os::unix::net::UnixDatagram::bind_addr(&address).unwrap(), format!("@{abstract_name}"))
            }
        };
        socket.set_read_timeout(Some(poll::DEADLINE)).unwrap();
        let mut command = Command::new(tests::process::binary("sun-check"));
        let log = std::fs::File::create(world.path("told.log")).unwrap();
        command
            .arg("--config")
            .arg(&config)
            .env("NOTIFY_SOCKET", told)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap());
        let child = Ended(command.stderr(log).spawn().unwrap());
        let hear = || {
            let mut text = [0; 64];
            let length = socket.recv(&mut text).expect("systemd is told something");
            String::from_utf8_lossy(&text[..length]).into_owned()
        };
        // The driver may say that it lives before the start has come to its end.
        let mut first = hear();
        while first == "WATCHDOG=1" {
            first = hear();
        }
        assert_eq!(first, "READY=1");
        assert_eq!((hear(), hear()), ("WATCHDOG=1".to_owned(), "WATCHDOG=1".to_owned()));
        kill_process(Pid::from_child(&child.0), Signal::TERM).unwrap();
        let mut last = hear();
        while last == "WATCHDOG=1" {
            last = hear();
        }
        assert_eq!(last, "STOPPING=1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exabgp_announces_what_its_process_says() {
    let world = World::new(&[SUN]);
    // Routers take no routes within 127/8.
    let [a, b, c, d] = world.server(SUN).address.octets();
    let topology = std::fs::read_to_string(world.topology_file()).unwrap();
    let topology = topology
        .replace(&format!("addresses = [\"{a}.{b}.{c}.{d}\"]"), "addresses = [\"192.0.2.1\"]")
        .replace(&format!("subnet = \"{a}.{b}.{c}.{}/28\"", d & 0xf0), "subnet = \"192.0.2.0/28\"");
    tests::files::write(&world.topology_file(), &topology);
    let _sun = world.start(SUN).await;
    let mut router = Router::start(&world);
    let config = write_config(&world, SUN, "[speaker]\nkind = \"exabgp\"\nnext_hop = \"198.51.100.1\"\n");
    let program = tests::process::binary("sun-check");
    let (own, peer) = (world.server(SUN).address, world.address(3));
    let text = format!(
        "process sun-check {{ run {} --config {}; encoder text; }}\n\
         neighbor {peer} {{ router-id 192.0.2.1; local-address {own}; local-as 65001; peer-as 65000; connect 1790; hold-time 9; \
         family {{ ipv4 unicast; }} api {{ processes [ sun-check ]; }} }}\n",
        program.display(),
        config.display()
    );
    let file = world.path("exabgp.conf");
    tests::files::write(&file, &text);
    // It runs what it starts as `nobody` otherwise, who may not read the token.
    let mut command = Command::new("exabgp");
    command.arg(&file).env("exabgp.daemon.user", "root").env("exabgp.tcp.bind", "").env("exabgp.api.cli", "false");
    let log = std::fs::File::create(world.path("exabgp.log")).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let exabgp = Ended(command.spawn().expect("exabgp is installed"));
    until_state(&world, SUN, "up").await;
    poll::until_true("the route of a sun that is well", || async { router.ask("show route").contains("192.0.2.1/32") })
        .await;
    let told = router.ask("show route all");
    assert!(told.contains("BGP.med: 0") && told.contains("BGP.origin: IGP") && told.contains("192.0.2.0/28"), "{told}");

    // It tells of its sessions, as BIRD does.
    let sessions = |up: u64, carried: bool| {
        let world = &world;
        poll::until_true("its sessions are known", move || async move {
            let speaker = &status(world, SUN).await["speaker"];
            speaker["sessions"]["ipv4"] == serde_json::json!({ "up": up, "all": 1 }) && speaker["carried"] == carried
        })
    };
    sessions(1, true).await;
    let config = config.display().to_string();
    let order = |arguments: &[&str]| run("sun-check", &[arguments, &["--config", &config]].concat());
    let told = order(&["status"]).out;
    assert!(told.contains("2 routes as best by ExaBGP, 1 of 1 sessions of IPv4\n"), "{told}");
    router.child.kill();
    sessions(0, false).await;
    router = Router::start(&world);
    sessions(1, true).await;

    let done = order(&["disable", "--force"]);
    assert_eq!(
        (done.status, done.out.as_str()),
        (Some(0), "sun1-1-1 is Disabled now; ExaBGP announces nothing of it\n")
    );
    poll::until_true("no route", || async { !router.ask("show route").contains("/32") }).await;
    assert_eq!(order(&["enable"]).status, Some(0));
    poll::until_true("the route again", || async { router.ask("show route").contains("192.0.2.1/32") }).await;

    exabgp.signal(Signal::STOP);
    poll::until_true("of one that hangs nothing is known", || async {
        let speaker = &status(&world, SUN).await["speaker"];
        speaker["sessions"].is_null() && speaker["problem"] == "ExaBGP does not answer within 2 s"
    })
    .await;
    let done = order(&["disable", "--force"]);
    assert_eq!(done.status, Some(4), "{} {}", done.out, done.err);
    exabgp.signal(Signal::CONT);
    poll::until_true("no route", || async { !router.ask("show route").contains("/32") }).await;
}

/// A BIRD that listens to the sun's speaker.
struct Router {
    control: PathBuf,
    child: Ended,
}

impl Router {
    fn start(world: &World) -> Self {
        let (config, control) = (world.path("router.conf"), world.path("router.ctl"));
        let (own, sun) = (world.address(3), world.server(SUN).address);
        let text = format!(
            "router id 192.0.2.254;\nprotocol device {{}}\nprotocol bgp sun {{ local {own} port 1790 as 65000; \
             neighbor {sun} as 65001; multihop; passive; strict bind; hold time 9; ipv4 {{ import all; export none; }}; }}\n\
             protocol static {{ ipv4; route 198.51.100.0/24 blackhole; }}\n"
        );
        tests::files::write(&config, &text);
        let child = Ended(Bird::spawn(&config, &control));
        Self { control, child }
    }

    fn ask(&self, command: &str) -> String {
        let output =
            Command::new("/usr/sbin/birdc").arg("-s").arg(&self.control).args(command.split(' ')).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// A program that ends with its value.
struct Ended(Child);

impl Ended {
    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A group of suns with a self-check each; the first one's has a BIRD.
struct Group {
    world: World,
    bird: Bird,
    checks: Vec<Daemon>,
}

impl Group {
    /// The self-checks are started, the suns are not.
    async fn start(names: &[&str]) -> Self {
        let world = World::new(names);
        let bird = Bird::start(&world);
        let mut checks = Vec::new();
        for name in names {
            let speaker = match *name {
                SUN => format!("[speaker]\nkind = \"bird\"\nsocket = {:?}\n", bird.control),
                _ => String::new(),
            };
            let config = write_config(&world, name, &speaker);
            checks.push(Daemon::start("sun-check", name, &config, admin(&world, name)).await);
        }
        Self { world, bird, checks }
    }

    async fn suns(&self) -> Vec<Daemon> {
        let mut suns = Vec::new();
        for server in &self.world.topology.servers {
            suns.push(self.world.start(&server.name).await);
        }
        suns
    }

    fn config(&self, name: &str) -> PathBuf {
        self.world.path(&format!("{name}-check.toml"))
    }
}

fn write_config(world: &World, name: &str, more: &str) -> PathBuf {
    let server = world.server(name);
    let trust = world.path("authority.pem");
    tests::files::write(&trust, world.authority.root_pem());
    let text = format!(
        "name = {name:?}\ntopology = {:?}\ndata = {:?}\nadmin = \"{}\"\ninternal = \"{}:8084\"\ntokens = {:?}\ntoken = {:?}\n\
         {more}\n[probe]\naddresses = [\"{}\"]\ntrust = {trust:?}\n\
         every_ms = 1000\ntimeout_ms = 1000\n[log]\nlevel = \"debug,hyper=info,hyper_util=info,rustls=info\"\n",
        world.topology_file(),
        world.path(&format!("{name}-check.data")),
        admin(world, name),
        server.address,
        world.path("tokens.toml"),
        token_file(world.folder(), name),
        server.https()
    );
    let config = world.path(&format!("{name}-check.toml"));
    tests::files::write(&config, &text);
    config
}

fn admin(world: &World, name: &str) -> SocketAddr {
    (world.server(name).address, 9084).into()
}

async fn status(world: &World, name: &str) -> serde_json::Value {
    let (answer, _) = poll::until("the status", || async {
        admin_get(admin(world, name), "/status").await.filter(|(code, _)| *code == 200)
    })
    .await;
    serde_json::from_str(&answer.1).unwrap()
}

async fn until_state(world: &World, name: &str, state: &str) {
    poll::until_true(&format!("{name} is {state}"), || async { status(world, name).await["state"] == state }).await;
}

/// Status of a call without a token.
async fn admin_post(admin: SocketAddr, path: &str) -> u16 {
    let answer = tests::client::Client::new(&tests::certificates::Authority::new(), std::collections::HashMap::new())
        .post(&format!("http://{admin}{path}"), &serde_json::json!({ "reason": "stranger", "force": true }))
        .await;
    answer.unwrap().status
}

fn signal(daemon: &Daemon, signal: Signal) {
    let id = i32::try_from(daemon.id()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(id, signal).unwrap();
}

/// A filesystem that is frozen until this is dropped: nothing else could be taken down with it.
struct Thaw(PathBuf);

impl Drop for Thaw {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&self.0).status();
    }
}

/// BIRD with the protocols of two routes, none of them enabled, and no neighbour.
struct Bird {
    config: PathBuf,
    control: PathBuf,
    child: Child,
}

impl Bird {
    fn start(world: &World) -> Self {
        let (config, control) = (world.path("bird.conf"), world.path("bird.ctl"));
        let mut text = "router id 192.0.2.1;\nprotocol device {}\n".to_owned();
        for (family, preference) in [("up", 200), ("drain", 100)] {
            for number in 1..=2 {
                text += &format!(
                    "protocol static sun_{family}_{number} {{ disabled; ipv4 {{ preference {preference}; }}; \
                     route 192.0.2.{number}/32 blackhole; }}\n"
                );
            }
        }
        tests::files::write(&config, &text);
        let child = Self::spawn(&config, &control);
        Self { config, control, child }
    }

    fn spawn(config: &PathBuf, control: &PathBuf) -> Child {
        let pid = config.with_extension("pid");
        let mut command = Command::new("/usr/sbin/bird");
        command.arg("-f").arg("-c").arg(config).arg("-s").arg(control).arg("-P").arg(pid);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("BIRD is installed")
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn restart(&mut self) {
        self.child = Self::spawn(&self.config, &self.control);
    }

    fn ask(&self, command: &[&str]) -> String {
        let output = Command::new("/usr/sbin/birdc").arg("-s").arg(&self.control).args(command).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// How many of each family are up.
    fn up(&self) -> (usize, usize) {
        let told = self.ask(&["show", "protocols"]);
        let count = |family: &str| {
            let rows = told.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
            rows.filter(|row| row.len() > 3 && row[0].starts_with(family) && row[3] == "up").count()
        };
        (count("sun_up_"), count("sun_drain_"))
    }

    async fn until(&self, up: usize, drain: usize) {
        poll::until_true(&format!("{up} routes as best and {drain} to drain"), || async { self.up() == (up, drain) })
            .await;
    }

    #[track_caller]
    fn check(&self, up: usize, drain: usize) {
        assert_eq!(self.up(), (up, drain));
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
