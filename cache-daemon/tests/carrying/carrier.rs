//! The whole cache: its edge, its vault and its loop, between a scripted API and scripted sources.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use cache_daemon::Config;
use cache_daemon::config::PrefillConfig;
use cache_daemon::vault::footprint;
use daemon::drain::Drain;

use crate::api::Api;
use crate::body;
use crate::scripted::{Answer, Scripted, found, missing};

#[tokio::test]
async fn a_rated_file_is_carried_told_and_served() {
    let origin = Scripted::start(|_| found(&body(600_000))).await;
    let place = Place::new(&origin).await;
    let cache = place.start().await;
    place.api.rate("c1/a.png", 600_000, 3.0);
    let state = place.api.until_held(&["c1/a.png"]).await;
    assert_eq!(state.reports, ["all", "+c1/a.png"]);
    assert_eq!(origin.lines(), ["GET /c1/a.png"]);
    let (status, received) = get(cache.http, "/c1/a.png").await;
    assert_eq!((status, received.len()), (200, 600_000));
    assert!(received == body(600_000));
    assert_eq!(origin.lines().len(), 1, "it is served from the vault");
    for line in [
        "cache_fetched_files_total{source=\"content_server\"} 1",
        "cache_fetched_bytes_total 600000",
        "cache_held_files 1",
        &format!("cache_held_bytes {}", footprint(600_000)),
        "cache_downloads 0",
    ] {
        place.until_counted(&cache, line).await;
    }
    cache.stop().await;
}

#[tokio::test]
async fn a_cache_that_holds_it_is_asked_before_the_content_server() {
    let origin = Scripted::start(|_| found(b"12345")).await;
    let place = Place::new(&origin).await;
    let cache = place.start().await;
    place.api.rate_with("c1/a.png", 5, 3.0, &["cache4-2", "cache9-9", "cache4-1"]);
    place.api.until_held(&["c1/a.png"]).await;
    assert_eq!(place.peer.lines(), ["GET /c1/a.png"]);
    assert!(place.peer.asked()[0].head.contains("authorization: bearer cache-token-0123456789"));
    assert_eq!(origin.lines(), [""; 0]);
    cache.stop().await;
}

#[tokio::test]
async fn what_another_cache_fetches_is_waited_for_and_then_had_from_it() {
    let origin = Scripted::start(|_| found(b"12345")).await;
    let place = Place::new(&origin).await;
    let cache = place.start().await;
    place.api.fetching(Some("cache4-2"));
    place.api.rate("c1/a.png", 5, 3.0);
    place.api.until("two turns were asked for", |state| state.fetches.len() >= 2).await;
    assert_eq!(origin.lines(), [""; 0]);
    place.api.rate_with("c1/a.png", 5, 3.0, &["cache4-2"]);
    let state = place.api.until_held(&["c1/a.png"]).await;
    assert_eq!((origin.lines().len(), place.peer.lines()), (0, vec!["GET /c1/a.png".to_owned()]));
    assert!(state.fetches.iter().all(|fetch| fetch == "begins c1/a.png"), "{:?}", state.fetches);
    cache.stop().await;
}

#[tokio::test]
async fn a_fetch_that_failed_is_told_so_that_the_next_cache_need_not_wait() {
    let origin = Scripted::start(|_| missing()).await;
    let place = Place::new(&origin).await;
    let cache = place.start().await;
    place.api.rate("c1/a.png", 5, 3.0);
    let state = place.api.until("told", |state| state.fetches.len() >= 2).await;
    assert_eq!(state.fetches, ["begins c1/a.png", "failed c1/a.png"]);
    cache.stop().await;
}

#[tokio::test]
async fn a_full_cache_gives_up_its_worst_for_something_better() {
    let origin = Scripted::start(|_| found(&body(1000))).await;
    let place = Place::with_bytes(&origin, 2 * footprint(1000)).await;
    let cache = place.start().await;
    place.api.rate("c1/low", 1000, 1.0);
    place.api.rate("c1/middle", 1000, 2.0);
    place.api.until_held(&["c1/low", "c1/middle"]).await;
    place.api.rate("c1/nearly", 1000, 1.1);
    place.api.until_asked(3).await;
    place.api.rate("c1/high", 1000, 5.0);
    let state = place.api.until_held(&["c1/high", "c1/middle"]).await;
    assert!(!state.reports.iter().any(|report| report.contains("nearly")), "{:?}", state.reports);
    cache.stop().await;
}

#[tokio::test]
async fn an_api_that_forgot_is_told_everything() {
    let origin = Scripted::start(|_| found(b"12345")).await;
    let place = Place::new(&origin).await;
    let cache = place.start().await;
    place.api.rate("c1/a", 5, 3.0);
    place.api.rate("c1/b", 5, 2.0);
    place.api.until_held(&["c1/a", "c1/b"]).await;
    place.api.forget();
    let state = place.api.until_held(&["c1/a", "c1/b"]).await;
    assert_eq!(state.reports.last().unwrap(), "all +c1/a +c1/b");
    assert_eq!(origin.lines().len(), 2, "nothing is fetched again, nothing was dropped");
    cache.stop().await;
}

#[tokio::test]
async fn while_the_api_is_away_everything_stays() {
    let origin = Scripted::start(|_| found(b"12345")).await;
    let place = Place::new(&origin).await;
    let cache = place.start().await;
    place.api.rate("c1/a", 5, 3.0);
    place.api.until_held(&["c1/a"]).await;
    place.api.away(true);
    place.api.until("missed", |state| state.missed >= 3).await;
    assert_eq!(get(cache.http, "/c1/a").await, (200, b"12345".to_vec()));
    place.api.rate("c1/b", 5, 2.0);
    place.api.away(false);
    place.api.until_held(&["c1/a", "c1/b"]).await;
    assert_eq!(origin.lines().len(), 2);
    cache.stop().await;
}

#[tokio::test]
async fn a_file_that_does_not_exist_is_asked_for_once() {
    let origin =
        Scripted::start(|request| if request.line.contains("gone") { missing() } else { found(b"12345") }).await;
    let place = Place::new(&origin).await;
    let cache = place.start().await;
    place.api.rate("c1/gone", 5, 9.0);
    place.api.rate("c1/there", 5, 1.0);
    place.api.until_held(&["c1/there"]).await;
    place.api.until_asked(5).await;
    let asked = origin.lines().iter().filter(|line| line.contains("gone")).count();
    assert_eq!(asked, 1);
    cache.stop().await;
}

#[tokio::test]
async fn what_may_not_be_fetched_is_not() {
    let origin = Scripted::start(|_| found(b"12345")).await;
    let place = Place::new(&origin).await;
    let cache = place.start().await;
    place.api.rate("c7/not-our-content-server", 5, 9.0);
    place.api.rate("c1/too-large.mp4", 2_000_000, 8.0);
    place.api.rate("c1/../../no-name", 5, 7.0);
    place.api.rate("c1/good", 5, 1.0);
    place.api.until_held(&["c1/good"]).await;
    assert_eq!(origin.lines(), ["GET /c1/good"]);
    cache.stop().await;
}

#[tokio::test]
async fn a_restart_is_warm() {
    let origin = Scripted::start(|_| found(&body(300_000))).await;
    let place = Place::new(&origin).await;
    let cache = place.start().await;
    place.api.rate("c1/a", 300_000, 3.0);
    place.api.until_held(&["c1/a"]).await;
    cache.stop().await;
    place.api.forget();
    let cache = place.start().await;
    let state = place.api.until_held(&["c1/a"]).await;
    assert_eq!(state.reports.last().unwrap(), "all +c1/a");
    assert!(get(cache.http, "/c1/a").await == (200, body(300_000)));
    assert_eq!(origin.lines().len(), 1);
    cache.stop().await;
}

#[tokio::test]
async fn a_changed_file_is_never_served_and_the_api_hears_of_it() {
    let origin = Scripted::start(|_| found(&body(300_000))).await;
    let place = Place::new(&origin).await;
    let cache = place.start().await;
    place.api.rate("c1/a", 300_000, 3.0);
    place.api.until_held(&["c1/a"]).await;
    place.api.rate("c1/a", 300_000, f64::MIN);
    let id = crate::name("c1/a").content_id().to_string();
    let stored = place.folder.path().join("vault").join(&id[..2]).join(&id);
    let mut bytes = std::fs::read(&stored).unwrap();
    bytes[290_000] ^= 1;
    std::fs::write(&stored, bytes).unwrap();
    let (_, received) = get(cache.http, "/c1/a").await;
    assert!(body(300_000).starts_with(&received) || received == *b"owner's", "no changed byte is sent");
    place.api.until("removed", |state| state.reports.iter().any(|report| report.starts_with("-c1/a"))).await;
    cache.stop().await;
}

#[tokio::test]
async fn what_is_not_held_is_passed_on_for_clients_and_denied_to_servers() {
    let origin = Scripted::start(|_| found(b"12345")).await;
    let place = Place::new(&origin).await;
    let cache = place.start().await;
    assert_eq!(get(cache.http, "/c1/other").await, (200, b"owner's".to_vec()));
    assert_eq!(place.owner.lines(), ["GET /c1/other"]);
    let client = client();
    let request = client.get(format!("http://{}/c1/another", cache.internal)).bearer_auth("sun-token-0123456789");
    assert_eq!(request.send().await.unwrap().status(), 404);
    assert_eq!((place.owner.lines().len(), origin.lines().len()), (1, 0));
    cache.stop().await;
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_download() {
    let origin = Scripted::start(|_| Answer::Silence).await;
    let place = Place::new(&origin).await;
    let cache = place.start().await;
    place.api.rate("c1/a", 5, 3.0);
    place.until_counted(&cache, "cache_downloads 1").await;
    cache.stop().await;
    assert_eq!(std::fs::read_dir(place.folder.path().join("vault/tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_disk_that_fails_is_told_and_the_rest_goes_on() {
    let origin = Scripted::start(|_| found(b"12345")).await;
    let place = Place::new(&origin).await;
    let cache = place.start().await;
    place.api.rate("c1/a", 5, 3.0);
    place.api.until_held(&["c1/a"]).await;
    std::fs::remove_dir(place.folder.path().join("vault/tmp")).unwrap();
    place.api.rate("c1/b", 5, 3.0);
    place.until_counted(&cache, "cache_disk_failing 1").await;
    place.until_counted(&cache, "cache_fetch_failures_total{reason=\"disk\"} 1").await;
    assert_eq!(get(cache.http, "/c1/a").await, (200, b"12345".to_vec()));
    cache.stop().await;
}

#[tokio::test]
async fn a_config_is_checked_without_starting() {
    let origin = Scripted::start(|_| missing()).await;
    let place = Place::new(&origin).await;
    assert_eq!(cache_daemon::check(&place.config()).problems, Vec::<String>::new());
    let mut config = place.config();
    config.edge.name = "sun4-1-1".to_owned();
    assert_eq!(
        cache_daemon::check(&config).problems,
        ["edge.name = \"sun4-1-1\": the topology has no cache of this name"]
    );
    config.plan_ms = 0;
    config.vault = config.edge.token.clone();
    assert_eq!(cache_daemon::check(&config).problems.len(), 3);
    assert!(cache_daemon::start(config, Drain::new()).await.is_err());
    config = place.config();
    config.edge.topology = geo::Source::File("/nonexistent".into());
    assert!(
        cache_daemon::check(&config).problems[0].starts_with("edge: topology /nonexistent"),
        "{:?}",
        cache_daemon::check(&config).problems
    );
}

/// A region with this cache, another one, and a sun that owns everything.
pub(crate) struct Place {
    pub api: Api,
    peer: Scripted,
    owner: Scripted,
    folder: tempfile::TempDir,
}

/// A started cache.
struct Started {
    http: SocketAddr,
    internal: SocketAddr,
    admin: SocketAddr,
    drain: Drain,
}

impl Place {
    pub(crate) async fn new(origin: &Scripted) -> Self {
        Self::with_bytes(origin, 1 << 30).await
    }

    async fn with_bytes(origin: &Scripted, bytes: u64) -> Self {
        let peer = Scripted::start(|_| found(b"12345")).await;
        let owner = Scripted::start(|_| found(b"owner's")).await;
        let place = Self { api: Api::start().await, peer, owner, folder: tempfile::tempdir().unwrap() };
        let topology = TOPOLOGY
            .replace("ORIGIN", &origin.address.to_string())
            .replace("PEER", &place.peer.address.to_string())
            .replace("OWNER", &place.owner.address.to_string())
            .replace("BYTES", &bytes.to_string());
        place.write("topology.toml", &topology);
        place.write(
            "tokens.toml",
            "[[token]]\ntoken = 'sun-token-0123456789'\nrole = 'sun'\nregion = 4\nname = 'sun4-1-1'\n",
        );
        place.write("token", "cache-token-0123456789\n");
        place
    }

    /// Writes a file of this place, for its owner alone; returns its path.
    pub(crate) fn write(&self, file: &str, text: &str) -> String {
        let path = self.path(file);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    }

    pub(crate) fn path(&self, file: impl AsRef<Path>) -> std::path::PathBuf {
        self.folder.path().join(file)
    }

    fn config(&self) -> Config {
        let anywhere = ([127, 0, 0, 1], 0).into();
        let edge = sun::Config {
            name: "cache4-1".to_owned(),
            https: vec![],
            http: vec![anywhere],
            internal: anywhere,
            admin: anywhere,
            topology: self.path("topology.toml").into(),
            data: self.path("edge"),
            tokens: self.path("tokens.toml"),
            token: self.path("token"),
            popularity: Some(popularity_api::ClientConfig {
                url: format!("http://{}", self.api.address),
                token_file: self.path("token"),
                timeout_ms: 2000,
            }),
            workers: 1,
            ..sun::Config::default()
        };
        // A silence that outlasts every test: what must not wait for it is seen not to.
        let prefill = PrefillConfig { idle_ms: 600_000, ..PrefillConfig::default() };
        Config { vault: self.path("vault"), plan_ms: 20, prefill, edge, ..Config::default() }
    }

    async fn start(&self) -> Started {
        let running = cache_daemon::start(self.config(), Drain::new()).await.unwrap();
        Started { http: running.http[0], internal: running.internal, admin: running.admin, drain: running.drain }
    }

    /// Resolves when the metrics have this line; they are looked at once a round.
    async fn until_counted(&self, cache: &Started, line: &str) {
        let mut metrics = String::new();
        for _ in 0..ROUNDS_MAX {
            metrics = String::from_utf8(get(cache.admin, "/metrics").await.1).unwrap();
            if metrics.lines().any(|metric| metric == line) {
                return;
            }
            self.api.until_asked(1).await;
        }
        panic!("never: {line} in\n{metrics}");
    }
}

/// Rounds of the plan that something may take to be counted.
const ROUNDS_MAX: usize = 200;

impl Started {
    async fn stop(self) {
        self.drain.start();
        assert!(self.drain.finished(Duration::from_secs(60)).await);
    }
}

async fn get(address: SocketAddr, path: &str) -> (u16, Vec<u8>) {
    let mut response = client().get(format!("http://{address}{path}")).send().await.unwrap();
    let mut body = Vec::new();
    // A body that breaks off is what it is up to there.
    while let Ok(Some(bytes)) = response.chunk().await {
        body.extend_from_slice(&bytes);
    }
    (response.status().as_u16(), body)
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

const TOPOLOGY: &str = r#"
version = 1
domain = "example.org"
default_region = 4

[content_servers]
url = "http://ORIGIN/c{number}"
numbers = ["1-5"]

[[region]]
id = 4
name = "Moscow"
latitude = 55.75
longitude = 37.6

[[group]]
name = "sun4-1"
subnet = "192.0.2.0/26"

[[sun]]
name = "sun4-1-1"
addresses = ["192.0.2.1"]
internal = "OWNER"
weight = 100

[[cache]]
name = "cache4-1"
addresses = ["192.0.2.70"]
internal = "192.0.2.70:8081"
weight = 100
bytes = BYTES

[[cache]]
name = "cache4-2"
addresses = ["192.0.2.71"]
internal = "PEER"
weight = 100
bytes = 1000

[[class]]
name = "video"
paths = ["*.mp4"]
file_bytes_max = 1_000_000
"#;
