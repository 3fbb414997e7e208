//! The real binary: its command line, its end, and the end it does not choose.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
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
    let (mut daemon, mut log, _) = start(&file);
    signal(&daemon, "-TERM");
    let log = rest(&mut log);
    assert_eq!(daemon.wait().unwrap().code(), Some(0), "{log}");
    assert!(log.contains("drained"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_holds_the_drain_up_to_its_deadline_or_a_second_signal() {
    for (drain_s, signals, status, said) in [(600, 2, 130, "ending at once"), (0, 1, 0, "connections are cut off")] {
        let origin = Scripted::start(|_| found(&body(30_000_000))).await;
        let place = Place::new(&origin).await;
        place.api.rate("c1/a", 30_000_000, 3.0);
        let config = config(&place).replace("workers = 1", &format!("workers = 1\ndrain_s = {drain_s}"));
        let (mut daemon, mut log, http) = start(&place.write("config.toml", &config));
        place.api.until_held(&["c1/a"]).await;
        let mut client = std::net::TcpStream::connect(http).unwrap();
        client.write_all(b"GET /c1/a HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        client.read_exact(&mut [0; 1000]).unwrap();
        signal(&daemon, "-TERM");
        until_logged(&mut log, "draining");
        (1..signals).for_each(|_| signal(&daemon, "-TERM"));
        let log = rest(&mut log);
        assert_eq!(daemon.wait().unwrap().code(), Some(status), "{log}");
        assert!(log.contains(said), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_cache_comes_back_with_what_it_held() {
    let origin = Scripted::start(|_| found(&body(300_000))).await;
    let place = Place::new(&origin).await;
    let file = place.write("config.toml", &config(&place));
    place.api.rate("c1/a", 300_000, 3.0);
    let (mut daemon, _log, _) = start(&file);
    place.api.until_held(&["c1/a"]).await;
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    place.api.forget();
    let (mut daemon, _log, _) = start(&file);
    let state = place.api.until_held(&["c1/a"]).await;
    assert_eq!(state.reports.last().unwrap(), "all +c1/a");
    assert_eq!(origin.lines().len(), 1);
    signal(&daemon, "-INT");
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
}

type Log = BufReader<ChildStderr>;

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

/// Starts the daemon; its log from "started" on, and where it serves clients.
fn start(config: &str) -> (Child, Log, SocketAddr) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cache-daemon"));
    let mut daemon = command.args(["--config", config]).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(daemon.stderr.take().unwrap());
    let listens = until_logged(&mut log, "the cache listens");
    until_logged(&mut log, "started");
    let (_, http) = listens.split_once(" http=[").unwrap();
    (daemon, log, http.split(']').next().unwrap().parse().unwrap())
}

/// The first line with these words.
fn until_logged(log: &mut Log, words: &str) -> String {
    let mut line = String::new();
    while !line.contains(words) {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended and never said: {words}");
    }
    line
}

fn signal(daemon: &Child, signal: &str) {
    let sent = Command::new("kill").args([signal, &daemon.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

fn rest(log: &mut Log) -> String {
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    text
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
