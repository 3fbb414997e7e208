//! A topology in a real cluster of three: followed by all daemons, changed by several people, while members die.

use std::time::{Duration, Instant};

use tests::etcd::{EtcdCluster, KEY};
use tests::files;
use tests::poll;
use tests::process::{Daemon, Done, admin_get, run};
use tests::world::{API, GEO, World};

/// A second is what is promised; the other one is for a machine that runs all tests at once.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn every_daemon_follows_the_key_and_every_change_says_who_and_why() {
    let (world, cluster) = (World::with_geo(&["sun1-1-1", "sun1-1-2", "cache1-1"]), EtcdCluster::start().await);
    let sunctl = Sunctl::new(cluster.source());
    let first = world.path("first.toml");
    files::write(&first, &world.topology.render());
    sunctl.good(&["topology", "put", text(&first), "--author", "ann", "--reason", "the beginning"]);
    std::fs::remove_file(world.topology_file()).unwrap();
    let mut daemons = Vec::new();
    for name in [GEO, API, "sun1-1-1", "sun1-1-2", "cache1-1"] {
        let daemon = world.start_with(name, |settings| settings.topology = cluster.source().into()).await;
        daemons.push((name, daemon));
    }
    let asked = Instant::now();
    sunctl.good(&["weight", "set", "sun1-1-1", "50", "--author", "bob", "--reason", "it is old"]);
    for (name, daemon) in daemons.iter().filter(|(name, _)| *name != GEO) {
        poll::until_true("the new topology's version", || goes_by(daemon, 2)).await;
        let seen = asked.elapsed();
        println!("a weight set in etcd was seen by {name} within {seen:?}");
        assert!(seen < SEEN_WITHIN, "{name} saw it after {seen:?}");
    }
    for (name, daemon) in &daemons {
        let sees = || async { daemon.metrics().await.sum("topology_source_up", &[]) == Some(1.0) };
        poll::until_true(&format!("{name} says that its source is there"), sees).await;
    }
    sunctl.good(&["drain", "sun1-1-2", "--author", "bob"]);
    let history = sunctl.good(&["topology", "history"]).out;
    let lines: Vec<&str> = history.lines().skip(1).collect();
    assert_eq!(lines.len(), 3, "{history}");
    assert!(lines[0].contains("bob") && lines[0].contains("drain sun1-1-2"), "{history}");
    assert!(lines[1].contains("weight set sun1-1-1 50") && lines[1].contains("it is old"), "{history}");
    assert!(lines[2].contains("ann") && lines[2].contains("the beginning"), "{history}");

    let back = sunctl.good(&["topology", "rollback", "1", "--reason", "too slow"]).out;
    assert!(back.contains("-weight = 50") && back.contains("+weight = 100"), "{back}");
    for (_, daemon) in daemons.iter().filter(|(name, _)| *name != GEO) {
        poll::until_true("the version of the rollback", || goes_by(daemon, 4)).await;
    }
    let now = sunctl.good(&["topology", "show"]).out;
    assert_eq!(now, world.topology.render().replace("version = 1", "version = 4"));
    assert!(sunctl.good(&["topology", "diff"]).out.contains("-draining = true"));
    assert!(sunctl.good(&["topology", "diff", "1", "4"]).out.contains("+version = 4"));
    assert!(sunctl.good(&["topology", "rollback", "4"]).out.contains("left what is there now"));
    sunctl.bad(&["topology", "rollback", "9"], "there is no change 9");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_write_at_once_one_is_refused_and_told_what_to_do() {
    let (world, cluster) = (World::new(&["sun1-1-1", "sun1-1-2"]), EtcdCluster::start().await);
    let sunctl = Sunctl::new(cluster.source());
    let documents: Vec<_> = (0..4).map(|n| world.path(&format!("{n}.toml"))).collect();
    for (n, file) in documents.iter().enumerate() {
        files::write(file, &world.topology.render().replace("Region 1", &format!("Region of {n}")));
    }
    let put = |file: &std::path::Path| sunctl.run(&["topology", "put", text(file)]);
    let done: Vec<Done> = std::thread::scope(|scope| {
        let threads: Vec<_> = documents.iter().map(|file| scope.spawn(|| put(file))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let good = done.iter().filter(|done| done.status == Some(0)).count();
    assert_eq!(good, 1, "{done:?}");
    for refused in done.iter().filter(|done| done.status != Some(0)) {
        assert!(refused.err.contains("somebody changed it") && refused.err.contains("sunctl topology"), "{refused:?}");
    }
    // Changes of different servers do not stand in each other's way.
    let set = |sun: &str, weight: &str| sunctl.run(&["weight", "set", sun, weight]);
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| set("sun1-1-1", "10"));
        (set("sun1-1-2", "20"), one.join().unwrap())
    });
    assert_eq!((one.status, two.status), (Some(0), Some(0)), "{one:?} {two:?}");
    let now = geo::Topology::parse(&sunctl.good(&["topology", "show"]).out).unwrap();
    let weight = |sun: &str| now.sun(sun).unwrap().server.weight.get();
    assert_eq!((now.version, weight("sun1-1-1"), weight("sun1-1-2")), (3, 10, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_and_was_compacted_while_a_daemon_was_cut_off_is_seen_when_it_is_back() {
    let (world, mut cluster) = (World::new(&["sun1-1-1"]), EtcdCluster::start().await);
    let sunctl = Sunctl::new(cluster.source_of(&[1, 2]));
    sunctl.good(&["topology", "put", text(&world.topology_file())]);
    let only = cluster.source_of(&[0]);
    let sun = world.start_with("sun1-1-1", |settings| settings.topology = only.into()).await;
    cluster.kill(0);
    poll::until_true("it says so", || async { sun.log().contains("the topology cannot be read") }).await;
    assert_eq!(sun.metrics().await.sum("topology_source_up", &[]), Some(0.0));
    for weight in ["90", "80", "70"] {
        sunctl.good(&["weight", "set", "sun1-1-1", weight]);
    }
    let revision = cluster.ctl(1, &["get", KEY, "--write-out=fields"]);
    let revision =
        revision.lines().find_map(|line| line.strip_prefix("\"Revision\" : ")).expect("a revision").to_owned();
    cluster.ctl(1, &["compact", &revision]);
    cluster.start_member(0);
    poll::until_true("the last version", || goes_by(&sun, 4)).await;
    // And what changes from now on, at a member that has compacted what the daemon saw last.
    sunctl.good(&["weight", "set", "sun1-1-1", "60"]);
    poll::until_true("the version after that", || goes_by(&sun, 5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_under_changes_loses_none() {
    let (world, mut cluster) = (World::new(&["sun1-1-1", "sun1-1-2"]), EtcdCluster::start().await);
    let sunctl = Sunctl::new(cluster.source());
    sunctl.good(&["topology", "put", text(&world.topology_file())]);
    let source = cluster.source();
    let sun = world.start_with("sun1-1-1", |settings| settings.topology = source.into()).await;
    let killed = cluster.leader().await;
    for round in 0..12_u16 {
        if round == 4 {
            cluster.kill(killed);
        }
        if round == 9 {
            cluster.start_member(killed);
        }
        sunctl.good(&["weight", "set", "sun1-1-2", &(round + 1).to_string()]);
    }
    let seen = poll::until_true("the last version", || goes_by(&sun, 13)).await;
    println!("after the leader was killed under changes, the last one was seen {seen:?} after it was made");
    let history = sunctl.good(&["topology", "history", "--json"]).out;
    let history: serde_json::Value = serde_json::from_str(&history).unwrap();
    let versions: Vec<u64> =
        history["changes"].as_array().unwrap().iter().map(|change| change["version"].as_u64().unwrap()).collect();
    assert_eq!(versions, (1..=13).rev().collect::<Vec<_>>(), "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_no_member_answers_a_daemon_starts_from_its_last_good_copy_and_follows_when_they_do() {
    let (world, mut cluster) = (World::new(&["sun1-1-1", "sun1-1-2"]), EtcdCluster::start().await);
    let sunctl = Sunctl::new(cluster.source());
    sunctl.good(&["topology", "put", text(&world.topology_file())]);
    let source = cluster.source();
    let mut sun = world.start_with("sun1-1-1", |settings| settings.topology = source.clone().into()).await;
    for member in 0..3 {
        cluster.kill(member);
    }
    sun.kill();
    sun.restart().await;
    assert!(goes_by(&sun, 1).await);
    assert!(sun.log().contains("starting from its last good copy"), "{}", sun.log());
    let config = world.write_config("sun1-1-2", |settings| settings.topology = source.into());
    let without = run("sun", &["--config", text(&config)]);
    assert_eq!(without.status, Some(1), "{without:?}");
    let said = format!("{}{}", without.out, without.err);
    assert!(said.contains("/sun/topology in etcd at http://") && said.contains("last good copy"), "{said}");
    for member in 0..3 {
        cluster.start_member(member);
    }
    cluster.until_all_answer().await;
    sunctl.good(&["weight", "set", "sun1-1-1", "50"]);
    poll::until_true("the new version", || goes_by(&sun, 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_does_not_check_and_a_key_that_is_deleted_change_nothing() {
    let (world, cluster) = (World::new(&["sun1-1-1"]), EtcdCluster::start().await);
    let sunctl = Sunctl::new(cluster.source());
    sunctl.good(&["topology", "put", text(&world.topology_file())]);
    let source = cluster.source();
    let sun = world.start_with("sun1-1-1", |settings| settings.topology = source.into()).await;
    cluster.ctl(0, &["put", KEY, "nonsense = 1"]);
    poll::until_true("it is refused in the log", || async { sun.log().contains("the topology is refused") }).await;
    assert!(goes_by(&sun, 1).await);
    assert_eq!(sun.metrics().await.sum("topology_source_failures_total", &["why=\"refused\""]), Some(1.0));
    let ready = readiness(&sun).await;
    assert!(ready.starts_with("ready\nnote: topology /sun/topology in etcd at "), "{ready}");
    assert!(ready.contains(" is refused, version 1 stays in force: ") && ready.contains("nonsense"), "{ready}");
    assert_eq!(in_force(&sun).await, (Some(1.0), Some(1.0)));
    let shown = sunctl.run(&["topology", "show"]);
    assert_eq!((shown.status, shown.out.as_str()), (Some(1), "nonsense = 1"), "the document, to be mended");
    for said in ["every daemon refuses it", "`sunctl topology rollback 1`"] {
        assert!(shown.err.contains(said), "{}", shown.err);
        assert!(sunctl.run(&["check"]).out.contains(said), "{:?}", sunctl.run(&["check"]));
    }
    cluster.ctl(1, &["del", KEY]);
    poll::until_true("it is missed in the log", || async { sun.log().contains("there is no key /sun/topology") }).await;
    assert!(goes_by(&sun, 1).await);
    cluster.ctl(2, &["put", KEY, &world.topology.render().replace("version = 1", "version = 7")]);
    poll::until_true("the good topology", || goes_by(&sun, 7)).await;
    assert_eq!(in_force(&sun).await, (Some(0.0), Some(7.0)));
    assert_eq!(readiness(&sun).await, "ready\n");
    // What etcdctl did is told in the history before what is done next.
    sunctl.good(&["weight", "set", "sun1-1-1", "50"]);
    let history = sunctl.good(&["topology", "history"]).out;
    assert!(history.contains("found: not made with sunctl"), "{history}");
    assert_eq!(sun.log().matches("the topology is refused").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_authentication_is_read_by_those_who_have_the_password() {
    let (world, mut cluster) = (World::new(&["sun1-1-1"]), EtcdCluster::start().await);
    cluster.authenticate("of-the-suns");
    let password = world.path("etcd.password");
    write_private(&password, "of-the-suns\n");
    Sunctl::new(cluster.source()).bad(&["topology", "show"], "user name is empty");
    let sunctl = Sunctl::new(cluster.source().replace("etcd://", "etcd://sun@"));
    sunctl.bad(&["topology", "show"], "--etcd-password-file");
    let first = world.topology_file();
    sunctl.good(&["topology", "put", text(&first), "--etcd-password-file", text(&password)]);
    let hosts: Vec<String> = (0..3).map(|member| format!("http://{}", cluster.host(member))).collect();
    let config = world.write_config("sun1-1-1", |_| {});
    let table = format!("topology = {{ etcd = {hosts:?}, user = \"sun\", password_file = {password:?} }}");
    let written = std::fs::read_to_string(&config).unwrap();
    let line = written.lines().find(|line| line.starts_with("topology = ")).unwrap();
    files::write(&config, &written.replace(line, &table));
    let sun = Daemon::start("sun", "sun1-1-1", &config, world.server("sun1-1-1").admin()).await;
    sunctl.good(&["weight", "set", "sun1-1-1", "50", "--etcd-password-file", text(&password)]);
    poll::until_true("the new version", || goes_by(&sun, 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_tls_and_authentication_is_read_by_those_who_have_certificate_and_password() {
    let (world, mut cluster) = (World::new(&["sun1-1-1"]), EtcdCluster::start_with_tls().await);
    cluster.authenticate("of-the-suns");
    let (password, wrong) = (world.path("etcd.password"), world.path("wrong.password"));
    write_private(&password, "of-the-suns\n");
    write_private(&wrong, "of-others\n");
    let stranger = world.path("stranger.pem");
    files::write(&stranger, tests::certificates::Authority::new().root_pem());
    let (ca, client) = (cluster.tls().ca.clone(), cluster.tls().client.clone());
    let sunctl = Sunctl::new(cluster.source().replace("etcds://", "etcds://sun@"));
    let by_password = ["--etcd-password-file", text(&password)];
    let by_certificate = ["--etcd-certificate", text(&client.chain), "--etcd-certificate-key", text(&client.key)];
    let all = [&by_password[..], &["--etcd-ca", text(&ca)], &by_certificate].concat();

    sunctl.bad(&show(&by_password), "--etcd-ca");
    sunctl.bad(
        &show(&[&by_password[..], &["--etcd-ca", text(&stranger)], &by_certificate].concat()),
        "is of no authority in",
    );
    sunctl.bad(&show(&[&by_password[..], &["--etcd-ca", text(&ca)]].concat()), "it wants a certificate of its clients");
    sunctl.bad(
        &show(&[&["--etcd-password-file", text(&wrong), "--etcd-ca", text(&ca)][..], &by_certificate].concat()),
        "authentication failed",
    );
    let named = cluster.tls().authority.issue(world.folder(), "named", &["client"]);
    write_private(&named.key, &std::fs::read_to_string(&named.key).unwrap());
    let by_name = ["--etcd-certificate", text(&named.chain), "--etcd-certificate-key", text(&named.key)];
    let with_name = [&by_password[..], &["--etcd-ca", text(&ca)], &by_name].concat();
    sunctl.bad(&show(&with_name), "takes certificates of clients without a CommonName only");
    let plain = Sunctl::new(cluster.source().replace("etcds://", "etcd://sun@"));
    plain.bad(&show(&by_password), "where it speaks TLS its address begins with https://");
    let first = world.topology_file();
    sunctl.good(&[&["topology", "put", text(&first)], &all[..]].concat());

    let hosts: Vec<String> = (0..3).map(|member| format!("https://{}", cluster.host(member))).collect();
    let config = world.write_config("sun1-1-1", |_| {});
    let table = format!(
        "topology = {{ etcd = {hosts:?}, user = \"sun\", password_file = {password:?}, ca = {ca:?}, certificate = {:?}, \
         certificate_key = {:?} }}",
        client.chain, client.key
    );
    let written = std::fs::read_to_string(&config).unwrap();
    let line = written.lines().find(|line| line.starts_with("topology = ")).unwrap();
    files::write(&config, &written.replace(line, &table));
    let sun = Daemon::start("sun", "sun1-1-1", &config, world.server("sun1-1-1").admin()).await;
    sunctl.good(&[&["weight", "set", "sun1-1-1", "50"], &all[..]].concat());
    poll::until_true("the new version", || goes_by(&sun, 2)).await;

    // Members that restart have forgotten the tokens that they gave.
    for member in 0..3 {
        cluster.kill(member);
        cluster.start_member(member);
    }
    cluster.until_all_answer().await;
    sunctl.good(&[&["weight", "set", "sun1-1-1", "60"], &all[..]].concat());
    poll::until_true("the version after that", || goes_by(&sun, 3)).await;

    std::fs::set_permissions(&client.key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    sunctl.bad(&show(&all), "chmod 600");
    std::fs::set_permissions(&client.key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    sunctl.good(&show(&all));
    let tls = cluster.tls();
    let addresses: Vec<String> = (0..3).map(|member| cluster.host(member).replace(":2379", "")).collect();
    let names: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let _ = tls.authority.issue_expired(tls.members.chain.parent().unwrap(), "member", &names);
    sunctl.bad(&show(&all), "its certificate has expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ramp_waits_for_a_cluster_that_is_away_and_is_one_entry_of_the_history() {
    let (world, mut cluster) = (World::new(&["sun1-1-1", "sun1-1-2"]), EtcdCluster::start().await);
    let sunctl = Sunctl::new(cluster.source());
    sunctl.good(&["topology", "put", text(&world.topology_file())]);
    let said = world.path("ramp.log");
    let mut command = std::process::Command::new(tests::process::binary("sunctl"));
    command.args(["weight", "set", "sun1-1-1", "97", "--over", "10s", "--topology", &cluster.source()]);
    command.stdin(std::process::Stdio::null()).stderr(std::fs::File::create(&said).unwrap());
    let child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let says = |what: &'static str| {
        let said = said.clone();
        async move { std::fs::read_to_string(said).unwrap().contains(what) }
    };
    poll::until_true("the first step", || says("step 1 of 2")).await;
    cluster.kill(0);
    cluster.kill(1);
    poll::until_true("that it waits", || says("waiting for the cluster, ")).await;
    cluster.start_member(0);
    cluster.start_member(1);
    let done = tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
    let out = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && out.contains("Done: sun1-1-1 has weight 97."), "{out}");
    let history = sunctl.good(&["topology", "history"]).out;
    assert_eq!(history.lines().count(), 3, "{history}");
    assert!(history.contains("weight set sun1-1-1 97 --over: weight 100 -> weight 97 in 2 steps"), "{history}");
    let limited = sunctl.good(&["topology", "history", "--limit", "1"]).out;
    assert!(limited.contains("--all shows the others") && limited.lines().count() == 4, "{limited}");
    assert!(sunctl.good(&["weight", "set", "sun1-1-1", "97"]).out.contains("already"), "nothing to do");
    sunctl.good(&["drain", "sun1-1-2"]);
    sunctl.bad(&["drain", "sun1-1-1"], "--force");
}

fn show<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["topology", "show"], more].concat()
}

fn write_private(file: &std::path::Path, content: &str) {
    files::write(file, content);
    std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

/// `sunctl` with this topology.
struct Sunctl {
    source: String,
}

impl Sunctl {
    fn new(source: String) -> Self {
        Self { source }
    }

    fn run(&self, arguments: &[&str]) -> Done {
        run("sunctl", &[arguments, &["--topology", &self.source]].concat())
    }

    #[track_caller]
    fn good(&self, arguments: &[&str]) -> Done {
        let done = self.run(arguments);
        assert_eq!(done.status, Some(0), "{arguments:?}: {}{}", done.out, done.err);
        done
    }

    #[track_caller]
    fn bad(&self, arguments: &[&str], expected: &str) {
        let done = self.run(arguments);
        assert_eq!(done.status, Some(1), "{arguments:?}: {}{}", done.out, done.err);
        assert!(done.err.contains(expected), "{}", done.err);
    }
}

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Whether the source's document is refused, and the version that is in force.
async fn in_force(daemon: &Daemon) -> (Option<f64>, Option<f64>) {
    let metrics = daemon.metrics().await;
    (metrics.sum("topology_refused", &[]), metrics.sum("topology_version_in_force", &[]))
}

async fn readiness(daemon: &Daemon) -> String {
    let (status, said) = admin_get(daemon.admin(), "/readyz").await.expect("the admin port answers");
    assert_eq!(status, 200, "{said}");
    said
}

async fn goes_by(daemon: &Daemon, version: u64) -> bool {
    daemon.metrics().await.find("topology_version").contains(&(version as f64))
}
