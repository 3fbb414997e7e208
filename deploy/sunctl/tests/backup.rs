//! `sunctl backup` and `sunctl restore` as an operator runs them, also on a disk that is full.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use daemon::drain::Drain;
use geo::RegionId;
use popularity_api::server::{self, Config, Running};
use popularity_api::wire::{Download, DownloadsBatch};
use popularity_api::{Client, ClientConfig};

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_whole_or_not_there_and_so_is_what_is_restored() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    let api = start(place.path(), "data").await;
    let client = client(place.path(), &api);
    let download = |n: u64| Download {
        region: RegionId(4),
        file: format!("c1/{n}.jpg"),
        size: 1000,
        downloads: n as f64 + 1.0,
        bytes: 1000,
    };
    let downloads = (0..500).map(download).collect();
    let batch = DownloadsBatch { source: "sun4-1-1".to_owned(), boot: 1, sequence: 1, age_ms: 0, downloads };
    client.report_downloads(&batch).await.unwrap();
    let (url, token) = (format!("http://{}", api.listen), path("operator"));
    let arguments = ["backup", text(&path("monday")), "--api", &url, "--token-file", text(&token)].map(str::to_owned);

    let refused = blocking(arguments.clone(), true).await;
    check(&refused, 1, "File too large");
    assert!(!path("monday").exists() && !path("monday.unfinished").exists(), "no half of it");
    let taken = blocking(arguments.clone(), false).await;
    check(&taken, 0, "");
    let said = String::from_utf8(taken.stdout).unwrap();
    assert!(said.contains("1 regions, 500 pairs, 500 files, 1 servers"), "{said}");
    check(&blocking(arguments, false).await, 1, "is not empty; name a new folder");

    let restoring = ["restore", text(&path("monday")), "--to", text(&path("restored"))].map(str::to_owned);
    let refused = blocking(restoring.clone(), true).await;
    check(&refused, 1, "File too large");
    assert!(!path("restored/ratings").exists() && !path("restored/ratings.restoring").exists());
    let verified = blocking(["restore", text(&path("monday")), "--verify"].map(str::to_owned), false).await;
    check(&verified, 0, "");
    let restored = blocking(restoring.clone(), false).await;
    check(&restored, 0, "");
    assert_eq!(said.lines().nth(2), String::from_utf8(restored.stdout).unwrap().lines().nth(2), "the same counts");
    check(&blocking(restoring, false).await, 1, "has ratings; move them away first");
    let onto = ["restore", text(&path("monday")), "--to", text(&path("data"))].map(str::to_owned);
    check(&blocking(onto, false).await, 1, "an API runs there; end it first");

    let again = start(place.path(), "restored").await;
    let of = async |client: &Client| {
        let files = client.top(RegionId(4), 1000).await.unwrap().files;
        files.into_iter().map(|file| (file.file, file.score.to_bits())).collect::<Vec<_>>()
    };
    assert_eq!(of(&self::client(place.path(), &again)).await, of(&client).await);
    for running in [api, again] {
        running.drain.start();
        assert!(running.drain.finished(Duration::from_secs(60)).await);
    }
}

/// Runs `sunctl`; on a `full` disk no file gets longer than half a kilobyte.
async fn blocking<const N: usize>(arguments: [String; N], full: bool) -> Output {
    let limited = r#"trap "" XFSZ; ulimit -f 1; exec "$0" "$@""#;
    let running = move || {
        let script = if full { limited } else { r#"exec "$0" "$@""# };
        Command::new("sh").args(["-c", script, env!("CARGO_BIN_EXE_sunctl")]).args(arguments).output().unwrap()
    };
    tokio::task::spawn_blocking(running).await.unwrap()
}

#[track_caller]
fn check(output: &Output, status: i32, error: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert!(said.contains(error), "{said}");
}

async fn start(place: &Path, data: &str) -> Running {
    std::fs::write(place.join("topology.toml"), TOPOLOGY).unwrap();
    let token = |role: &str| format!("token-of-{role}-0123456789");
    let secret = |name: &str, text: String| {
        let file = place.join(name);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    secret("operator", token("operator"));
    secret("tokens.toml", format!("[[token]]\ntoken = {:?}\nrole = \"operator\"\n", token("operator")));
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = Config {
        listen: free,
        admin: free,
        topology: place.join("topology.toml").into(),
        data: place.join(data),
        tokens: place.join("tokens.toml"),
        commit_ms: 1,
        ..Config::default()
    };
    server::start(config, Drain::new()).await.unwrap()
}

fn client(place: &Path, api: &Running) -> Client {
    let url = format!("http://{}", api.listen);
    Client::new(&ClientConfig { url, token_file: place.join("operator"), timeout_ms: 60_000 }).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

const TOPOLOGY: &str = r#"
version = 1
domain = "example.org"
default_region = 4
content_servers = { url = "http://cs{number}.storage.example.org", numbers = ["1-9"] }
region = [{ id = 4, name = "Moscow", latitude = 55.75, longitude = 37.6 }]
group = [{ name = "sun4-1", subnet = "192.0.2.0/26" }]
sun = [{ name = "sun4-1-1", addresses = ["192.0.2.1"], internal = "10.4.1.1:8081", weight = 100 }]
"#;
