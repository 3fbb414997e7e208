//! A new process takes over from a running one: a new binary, config or certificate.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use tests::client::Client;
use tests::origin::{Gate, Script};
use tests::poll;
use tests::process::admin_get;
use tests::visitors::{Kind, Target, Visitors};
use tests::world::World;

use crate::{CacheStatus, until_hit};

const SUN: &str = "sun1-1-1";
const FILE: &str = "c1/a.jpg";
const SIZE: u64 = 20_000;

/// Seconds of drain: half of it is how long an idle connection of HTTP/1.1 is kept by the old process.
const DRAIN: &str = "drain_s = 8";

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_processes_config_and_certificate_change() {
    let world = World::new(&[SUN]);
    world.put(FILE, Script::file(SIZE));
    let settings = |workers: usize| format!("{DRAIN}\nworkers = {workers}");
    let mut sun = world.start_with(SUN, |other| other.more = settings(2)).await;
    let target = Target {
        address: world.server(SUN).https(),
        host: world.server(SUN).host(),
        path: format!("/{FILE}"),
        size: usize::try_from(SIZE).unwrap(),
        pause: Duration::from_millis(5),
    };
    let visitors = Visitors::start(&world.authority, &target, [20, 20, 4]);
    let mut former = Vec::new();
    for (turn, workers) in [2, 1, 3, 3].into_iter().enumerate() {
        progress(&visitors).await;
        if turn == 2 {
            let renewed = world.authority.issue(world.folder(), "renewed", &["*.cdn.test"]);
            std::fs::rename(&renewed.key, &world.certificate.key).unwrap();
            std::fs::rename(&renewed.chain, &world.certificate.chain).unwrap();
        }
        world.write_config(SUN, |other| other.more = settings(workers));
        former.push(sun.upgrade().await);
    }
    for process in former {
        poll::until_true("the end of a former process", || async { !sun.runs(process) }).await;
        progress(&visitors).await;
    }
    let tally = visitors.end().await;
    assert_eq!(tally.failures(), [""; 0], "of {} requests", tally.total());
    for (kind, (answered, connections)) in Kind::ALL.into_iter().zip(tally.answered.iter().zip(&tally.connections)) {
        let (answered, connections) = (answered.load(Ordering::Relaxed), connections.load(Ordering::Relaxed));
        println!("{}: {answered} requests on {connections} connections, none failed", kind.name());
        // All were led over at least once, and those that are kept were kept.
        assert!(connections >= if kind == Kind::New { answered } else { 40 }, "{kind:?}: {connections}");
        assert!(kind == Kind::New || answered > 2 * connections, "{kind:?}: {answered} on {connections}");
    }
    // All is as it was: the last process drains as any other.
    assert!(admin_get(sun.admin(), "/readyz").await.is_some_and(|(status, _)| status == 200));
    sun.terminate();
    poll::until_true("no new connections", || async { world.client().connect(&world.https(SUN, FILE)).await.is_err() })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_connections_end_with_an_answer_when_their_sun_drains_or_ends() {
    // Clients are led away while another sun of the group can take them.
    let world = World::new(&[SUN, "sun1-1-2"]);
    world.put(FILE, Script::file(SIZE));
    let mut sun = world.start(SUN).await;
    let url = world.https(SUN, FILE);
    let ask = |client: &Client| client.request(hyper::Method::GET, &url, "").unwrap();
    let (http1, http2) = (world.client(), world.client().http2());
    let mut kept = [http1.connect(&url).await.unwrap(), http2.connect(&url).await.unwrap()];
    for (client, connection) in [&http1, &http2].into_iter().zip(&mut kept) {
        let answer = connection.send(ask(client)).await.unwrap().finish().await.unwrap();
        assert_eq!((answer.status, answer.header("connection").as_str()), (200, ""));
    }
    let mut topology = std::fs::read_to_string(world.topology_file()).unwrap();
    let line = format!("name = \"{SUN}\"\n");
    topology = topology.replace(&line, &format!("{line}draining = true\n")).replacen("version = 1", "version = 2", 1);
    tests::files::write(&world.topology_file(), &topology);
    poll::until_true("the sun knows that it drains", || async {
        sun.metrics().await.sum("edge_topology_version", &[]) == Some(2.0)
    })
    .await;
    for (client, connection) in [&http1, &http2].into_iter().zip(&mut kept) {
        let answer = connection.send(ask(client)).await.unwrap().finish().await.unwrap();
        assert_eq!(answer.status, 200, "it still answers");
        let led = if answer.version == hyper::Version::HTTP_2 { "" } else { "close" };
        assert_eq!(answer.header("connection"), led);
        poll::until_true("the connection ends", || async { connection.is_closed() }).await;
    }

    // An ending sun says it with the answer that is under way.
    let gate = Gate::closed();
    world.put("c1/held.jpg", Script::file(SIZE).head_held(&gate));
    world.write_topology(&world.topology);
    poll::until_true("the sun drains no longer", || async {
        sun.metrics().await.sum("edge_topology_version", &[]) == Some(1.0)
    })
    .await;
    let url = world.https(SUN, "c1/held.jpg");
    let mut connection = http1.connect(&url).await.unwrap();
    let held = tokio::spawn(async move {
        let request = http1.request(hyper::Method::GET, &url, "").unwrap();
        connection.send(request).await.unwrap().finish().await.unwrap()
    });
    gate.reached().await;
    sun.terminate();
    let address = world.server(SUN).https();
    poll::until_true("nobody is accepted any more", || async { std::net::TcpStream::connect(address).is_err() }).await;
    gate.open();
    let answer = held.await.unwrap();
    assert_eq!((answer.status, answer.header("connection").as_str()), (200, "close"));
    assert!(sun.until_ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_leaves_the_old_process_serving() {
    let world = World::new(&[SUN]);
    world.put(FILE, Script::file(SIZE));
    let mut sun = world.start_with(SUN, |settings| settings.more = DRAIN.to_owned()).await;
    let (client, url) = (world.client(), world.https(SUN, FILE));
    until_hit(&world, &client, &url, FILE, SIZE).await;
    let mut kept = client.connect(&url).await.unwrap();
    let taken = TcpListener::bind((world.address(5), 8444)).unwrap();
    let taken = format!("{DRAIN}\nhttps = [\"{}\", \"{}\"]", world.server(SUN).https(), taken.local_addr().unwrap());
    let old = sun.id();
    for (at, (more, reason)) in
        [("no_such_option = 1", "unknown field `no_such_option`"), (taken.as_str(), "cannot listen on")]
            .into_iter()
            .enumerate()
    {
        let config = world.write_config(SUN, |settings| settings.more = more.to_owned());
        if at == 1 {
            // The listeners are named twice now: the harness's line goes.
            let text = std::fs::read_to_string(&config).unwrap();
            tests::files::write(&config, &text.replacen("https = ", "# https = ", 1));
        }
        sun.begin_upgrade();
        let failures = || sun.log().matches("the upgrade failed: this process goes on").count();
        poll::until_true("a failed upgrade", || async { failures() == at + 1 }).await;
        let log = sun.log();
        let line = log.lines().filter(|line| line.contains("the upgrade failed")).nth(at).unwrap();
        assert!(line.contains(reason), "{line}");
        // Who was connected before is served, and so is everybody else.
        let request = client.request(hyper::Method::GET, &url, "").unwrap();
        let answer = kept.send(request).await.unwrap().finish().await.unwrap();
        world.check_whole(FILE, SIZE, &answer);
        world.check_whole(FILE, SIZE, &client.get(&url).await.unwrap());
    }
    assert_eq!(sun.id(), old);
    // With a good config it goes as ever.
    world.write_config(SUN, |settings| settings.more = DRAIN.to_owned());
    sun.upgrade().await;
    assert_ne!(sun.id(), old);
    until_hit(&world, &client, &url, FILE, SIZE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_process_gets_the_store_and_the_old_one_finishes_what_it_sends() {
    let world = World::new(&[SUN]);
    let store = format!("{DRAIN}\nstore = [{{ path = {:?}, bytes = 67108864 }}]", world.path("store"));
    std::fs::create_dir(world.path("store")).unwrap();
    let mut sun = world.start_with(SUN, |settings| settings.more.clone_from(&store)).await;
    let (client, url) = (world.client(), world.https(SUN, FILE));
    world.put(FILE, Script::file(SIZE));
    until_hit(&world, &client, &url, FILE, SIZE).await;
    poll::until_true("the file is in the store", || async {
        sun.metrics().await.sum("edge_store_entries", &[]) == Some(1.0)
    })
    .await;
    // A download that lasts longer than the change.
    let gate = Gate::closed();
    world.put("c1/long.jpg", Script::file(300_000).held_at(1000, &gate));
    let mut long = client.start(hyper::Method::GET, &world.https(SUN, "c1/long.jpg")).await.unwrap();
    let first = long.read(1000).await.unwrap();
    let former = sun.upgrade().await;
    poll::until_true("the store of the new process", || async {
        let metrics = sun.metrics().await;
        // One that nobody has connected to yet: it is the new process that answers.
        let is_new = metrics.sum("edge_handshakes_total", &[]) == Some(0.0);
        is_new && metrics.sum("edge_store_entries", &[]) == Some(1.0)
    })
    .await;
    assert!(sun.runs(former), "it still has something to send");
    let fetches = world.fetches(FILE);
    let answer = client.get(&url).await.unwrap();
    world.check_whole(FILE, SIZE, &answer);
    assert!(CacheStatus::of(&answer).says(SUN, "hit"), "{:?}", answer.headers);
    assert_eq!(world.fetches(FILE), fetches, "it came from the store");
    assert_eq!(sun.metrics().await.sum("edge_requests_total", &["outcome=\"store\""]), Some(1.0));
    gate.open();
    let rest = poll::within("the end of the body", long.finish()).await.unwrap();
    assert_eq!(first.len() + rest.body.len(), 300_000);
    world.origin.pattern("/cs1/long.jpg").check(first.len() as u64, &rest.body);
    poll::until_true("the end of the former process", || async { !sun.runs(former) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_of_systemd_are_listened_at() {
    let world = World::new(&[SUN]);
    world.put(FILE, Script::file(SIZE));
    let config = world.write_config(SUN, |_| {});
    let server = world.server(SUN);
    // What systemd does: the socket is there before the process, and connections wait in it.
    let activate = format!(
        "import os, socket, sys\n\
         listener = socket.socket(); listener.bind(('{}', {})); listener.listen(16)\n\
         listener.fileno() == 3 or os.dup2(listener.fileno(), 3)\n\
         os.set_inheritable(3, True)\n\
         os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')\n\
         print('bound', flush=True); sys.stdin.readline()\n\
         os.execv(sys.argv[1], sys.argv[1:])",
        server.https().ip(),
        server.https().port()
    );
    let mut command = Command::new("python3");
    command.args(["-c", &activate]).arg(tests::process::binary("sun")).arg("--config").arg(config);
    let mut sun = Killed(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut said = [0; 6];
    std::io::Read::read_exact(sun.0.stdout.as_mut().unwrap(), &mut said).unwrap();
    let (client, url): (Client, String) = (world.client(), world.https(SUN, FILE));
    let waiting = tokio::spawn({
        let (client, url) = (client.clone(), url.clone());
        async move { client.get(&url).await }
    });
    drop(sun.0.stdin.take());
    let answer = poll::within("an answer to who waited", waiting).await.unwrap().unwrap();
    world.check_whole(FILE, SIZE, &answer);
    world.check_whole(FILE, SIZE, &client.get(&url).await.unwrap());
}

/// A process that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until every visitor has asked again, on average.
pub(crate) async fn progress(visitors: &Visitors) {
    let before = visitors.tally.total();
    poll::until_true("more requests", || async { visitors.tally.total() > before + 100 }).await;
}
