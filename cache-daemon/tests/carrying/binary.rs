//! The real binary: its command line, its end, and the end it does not choose.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use crate::body;
use crate::carrier::Place;
use crate::scripted::{Scripted, found, missing};

#[tokio::test(flavor = "multi_thread")]
async fn a_check_prints_ok_or_every_problem() {
    let place = Place::new(&Scripted::start(|_| missing()).await).await;
    let good = place.write("good.toml", &config(&place));
    let output = binary(&["--config", &good, "--check"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "ok\n".to_owned()), "{}", text(&output.stderr));
    assert!(!place.path("vault").exists(), "a check makes nothing");

    let bad = config(&place).replace("plan_ms = 20", "plan_ms = 0").replace("cache4-1", "cache9-9");
    let bad = place.write("bad.toml", &bad);
    let output = binary(&["--config", &bad, "--check"]);
    assert_eq!((output.status.code(), text(&output.stdout).lines().count()), (Some(1), 2), "{}", text(&output.stdout));

    let unknown = place.write("unknown.toml", &format!("plan_s = 3\n{}", config(&place)));
    let output = binary(&["--config", &unknown]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with(&format!("error: {unknown}:1:1: plan_s: ")), "{}", text(&output.stderr));
    assert_eq!(binary(&[]).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_drains() {
    let place = Place::new(&Scripted::start(|_| missing()).await).await;
    let file = place.write("config.toml", &config(&place));
    let (mut daemon, mut log) = start(&file);
    signal(&daemon, "-TERM");
    let log = rest(&mut log);
    assert_eq!(daemon.wait().unwrap().code(), Some(0), "{log}");
    assert!(log.contains("drained"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_cache_comes_back_with_what_it_held() {
    let origin = Scripted::start(|_| found(&body(300_000))).await;
    let place = Place::new(&origin).await;
    let file = place.write("config.toml", &config(&place));
    place.api.rate("c1/a", 300_000, 3.0);
    let (mut daemon, _log) = start(&file);
    place.api.until_held(&["c1/a"]).await;
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    place.api.forget();
    let (mut daemon, _log) = start(&file);
    let state = place.api.until_held(&["c1/a"]).await;
    assert_eq!(state.reports.last().unwrap(), "all +c1/a");
    assert_eq!(origin.lines().len(), 1);
    signal(&daemon, "-INT");
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
}

/// The place's config as a file.
fn config(place: &Place) -> String {
    let path = |file: &str| place.path(file).display().to_string();
    format!(
        "vault = '{}'\nplan_ms = 20\n\n[edge]\nname = 'cache4-1'\nhttps = []\nhttp = ['127.0.0.1:0']\n\
         internal = '127.0.0.1:0'\nadmin = '127.0.0.1:0'\ntopology = '{}'\ndata = '{}'\ntokens = '{}'\ntoken = '{}'\n\
         workers = 1\n\n[edge.popularity]\nurl = 'http://{}'\ntoken_file = '{}'\n",
        path("vault"),
        path("topology.toml"),
        path("edge"),
        path("tokens.toml"),
        path("token"),
        place.api.address,
        path("token"),
    )
}

fn binary(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cache-daemon")).args(arguments).output().unwrap()
}

/// Starts the daemon and reads its log up to "started".
fn start(config: &str) -> (Child, BufReader<ChildStderr>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cache-daemon"));
    let mut daemon = command.args(["--config", config]).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(daemon.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("started") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended before it had started");
    }
    (daemon, log)
}

fn signal(daemon: &Child, signal: &str) {
    let sent = Command::new("kill").args([signal, &daemon.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

fn rest(log: &mut BufReader<ChildStderr>) -> String {
    let mut text = String::new();
    std::io::Read::read_to_string(log, &mut text).unwrap();
    text
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
