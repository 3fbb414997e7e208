//! Real API processes on loopback, in folders of their own; ended with kill -9 whenever a test wants it.

use std::fmt::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use geo::RegionId;
use popularity_api::wire::{Download, DownloadsBatch, Held, HoldingsReport, StatusReport, WantedRequest};
use popularity_api::{Client, ClientConfig};

/// Topology, tokens, and the folders of the processes.
pub(crate) struct World {
    folder: tempfile::TempDir,
}

/// A process.
pub(crate) struct Api {
    child: Mutex<Child>,
    folder: PathBuf,
    log: PathBuf,
    pub(crate) listen: SocketAddr,
    admin: SocketAddr,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("topology.toml"), TOPOLOGY).unwrap();
        let mut tokens = String::new();
        for (name, role, region) in [
            ("backend", "backend", ""),
            ("operator", "operator", ""),
            ("replica", "replica", ""),
            ("sun4-1-1", "sun", "region = 4\n"),
            ("sun4-1-2", "sun", "region = 4\n"),
            ("cache4-1", "cache", "region = 4\n"),
        ] {
            let token = token(name);
            writeln!(tokens, "[[token]]\ntoken = {token:?}\nrole = {role:?}\n{region}name = {name:?}").unwrap();
            secret(&folder.path().join(name), &token);
        }
        secret(&folder.path().join("tokens.toml"), &tokens);
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts an API that keeps its data in `name` and has these settings beside the world's.
    pub(crate) fn start(&self, name: &str, settings: &str) -> Api {
        let [listen, admin] = free();
        self.start_at(name, settings, listen, admin)
    }

    /// The same with a copy of another one; `settings` end with those of `[replica]`.
    pub(crate) fn start_copy(&self, name: &str, of: &Api, settings: &str) -> Api {
        self.start(name, &self.replica(of, settings))
    }

    pub(crate) fn replica(&self, of: &Api, settings: &str) -> String {
        let token = self.path("replica");
        format!("[replica]\nurl = \"http://{}\"\ntoken_file = {token:?}\n{settings}\n", of.listen)
    }

    /// Starts it again where it was.
    pub(crate) fn restart(&self, api: &Api, settings: &str) -> Api {
        let name = api.folder.file_name().unwrap().to_str().unwrap().to_owned();
        self.start_at(&name, settings, api.listen, api.admin)
    }

    fn start_at(&self, name: &str, settings: &str, listen: SocketAddr, admin: SocketAddr) -> Api {
        let (folder, config, log) =
            (self.path(name), self.path(&format!("{name}.toml")), self.path(&format!("{name}.log")));
        let text = format!(
            "listen = \"{listen}\"\nadmin = \"{admin}\"\ntopology = {:?}\ntokens = {:?}\ndata = {folder:?}\ncommit_ms = 5\n{settings}",
            self.path("topology.toml"),
            self.path("tokens.toml"),
        );
        std::fs::write(&config, text).unwrap();
        let out = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_popularity-api"))
            .arg("--config")
            .arg(&config)
            .stdout(Stdio::from(out.try_clone().unwrap()))
            .stderr(Stdio::from(out))
            .spawn()
            .unwrap();
        Api { child: Mutex::new(child), folder, log, listen, admin }
    }

    pub(crate) fn client(&self, api: &Api, bearer: &str) -> Client {
        let url = format!("http://{}", api.listen);
        Client::new(&ClientConfig { url, token_file: self.path(bearer), timeout_ms: 60_000 }).unwrap()
    }

    /// Sends the batches with these sequences, each until it is acknowledged.
    pub(crate) async fn load(&self, api: &Api, source: &str, sequences: std::ops::Range<u64>) {
        let client = self.client(api, source);
        for sequence in sequences {
            let batch = batch(source, sequence);
            until("a batch is acknowledged", async || client.report_downloads(&batch).await.ok()).await;
        }
    }

    /// Waits until `copy` has all that `of` has, and compares what they answer.
    pub(crate) async fn equal(&self, copy: &Api, of: &Api) {
        let (ours, theirs) = (self.client(copy, "operator"), self.client(of, "operator"));
        until("the copy has everything", async || {
            let (ours, theirs) = (ours.copies().await.ok()?, theirs.copies().await.ok()?);
            ((&ours.lineage, ours.end) == (&theirs.lineage, theirs.end)).then_some(())
        })
        .await;
        // Ratings fade between the two questions; what they are ranked by does not.
        let top = async |client: &Client| {
            let files = client.top(RegionId(4), 10_000).await.unwrap().files;
            files.into_iter().map(|file| (file.file, file.size, file.score.to_bits())).collect::<Vec<_>>()
        };
        let expected = top(&theirs).await;
        assert!(!expected.is_empty());
        assert_eq!(top(&ours).await, expected);
        let wanted = async |client: &Client| {
            let request = WantedRequest { bytes_max: 1 << 30, limit: 10_000 };
            let wanted = client.wanted(RegionId(4), "cache4-1", &request).await.unwrap();
            let mut held: Vec<_> = wanted.held.into_iter().map(|held| (held.file, held.score.to_bits())).collect();
            held.sort_unstable();
            let of = |candidate: popularity_api::wire::Candidate| (candidate.file, candidate.score.to_bits());
            (wanted.candidates.into_iter().map(of).collect::<Vec<_>>(), held, wanted.holdings_generation)
        };
        let expected = wanted(&theirs).await;
        until("the copy wants the same", async || (wanted(&ours).await == expected).then_some(())).await;
    }

    /// The cache reports that it holds these files.
    pub(crate) async fn holds(&self, api: &Api, generation: u64, since: Option<u64>, files: &[&str]) {
        let added = files.iter().map(|&file| Held { file: file.to_owned(), size: 1000 }).collect();
        let report = HoldingsReport { generation, since, added, removed: Vec::new() };
        let ack = self.client(api, "cache4-1").report_holdings(RegionId(4), "cache4-1", &report).await.unwrap();
        assert_eq!(ack.generation, generation);
    }

    /// Servers report that they are well.
    pub(crate) async fn alive(&self, api: &Api, servers: &[&str]) {
        for &server in servers {
            let report = StatusReport { server: server.to_owned(), healthy: true, ..StatusReport::default() };
            self.client(api, server).report_status(&report).await.unwrap();
        }
    }
}

impl Api {
    /// Ends it at once.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits until it ends by itself; its log.
    pub(crate) async fn ended(&self) -> String {
        until("the process ends", async || self.child.lock().unwrap().try_wait().unwrap()).await;
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn data(&self) -> &Path {
        &self.folder
    }

    pub(crate) async fn ready(&self) -> bool {
        self.get("/readyz").await.is_some_and(|(status, _)| status == 200)
    }

    /// A metric without labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics").await.unwrap();
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line.unwrap_or_else(|| panic!("no {name}")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    async fn get(&self, path: &str) -> Option<(u16, String)> {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.get(format!("http://{}{path}", self.admin)).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        drop(child.kill());
        drop(child.wait());
        drop(child);
        if std::thread::panicking() {
            eprintln!("---- {}\n{}", self.log.display(), std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// Asks again and again until there is an answer.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within a minute");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// 50 files, different ones with every batch and some in all.
pub(crate) fn batch(source: &str, sequence: u64) -> DownloadsBatch {
    let download = |n: u64| Download {
        region: RegionId(4 + u16::from(n.is_multiple_of(7))),
        file: format!("c1/{}/{}.jpg", if n < 10 { 0 } else { sequence }, n),
        size: 1000 + n,
        downloads: 1.0 + n as f64 / 10.0,
        bytes: 1000,
    };
    DownloadsBatch {
        source: source.to_owned(),
        boot: 1,
        sequence,
        age_ms: 0,
        downloads: (0..50).map(download).collect(),
    }
}

/// Two ports that nobody had a moment ago.
fn free() -> [SocketAddr; 2] {
    let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.each_ref().map(|listener| listener.local_addr().unwrap())
}

fn token(name: &str) -> String {
    format!("token-of-{name}-0123456789")
}

fn secret(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

const TOPOLOGY: &str = r#"
version = 1
domain = "example.org"
default_region = 4
[content_servers]
url = "http://cs{number}.storage.example.org"
numbers = ["1-9"]
[[region]]
id = 4
name = "Moscow"
latitude = 55.75
longitude = 37.6
[[region]]
id = 5
name = "Berlin"
latitude = 52.5
longitude = 13.4
[[group]]
name = "sun4-1"
subnet = "192.0.2.0/26"
[[sun]]
name = "sun4-1-1"
addresses = ["192.0.2.1"]
internal = "10.4.1.1:8081"
weight = 100
[[sun]]
name = "sun4-1-2"
addresses = ["192.0.2.2"]
internal = "10.4.1.2:8081"
weight = 100
[[cache]]
name = "cache4-1"
addresses = ["192.0.2.200"]
internal = "10.4.9.1:8081"
weight = 100
bytes = 1000000000
"#;
