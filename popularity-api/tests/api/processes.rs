//! Real API processes on loopback, in folders of their own; ended with kill -9 whenever a test wants it.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use geo::RegionId;
use popularity_api::Client;
use popularity_api::wire::{Download, DownloadsBatch, Held, HoldingsReport, StatusReport, WantedRequest};

use crate::addresses::Block;
use crate::fixture::{self, furnish, page, until};

/// Topology, tokens, and the folders of the processes.
pub(crate) struct World {
    folder: tempfile::TempDir,
    block: Block,
    /// Processes that have an address of their own.
    placed: AtomicU8,
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
        furnish(folder.path());
        Self { folder, block: Block::claim(), placed: AtomicU8::new(0) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts an API that keeps its data in `name` and has these settings beside the world's.
    pub(crate) fn start(&self, name: &str, settings: &str) -> Api {
        let address = self.block.address(1 + self.placed.fetch_add(1, Ordering::Relaxed)).into();
        self.start_at(name, settings, address)
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
        self.start_at(&name, settings, api.listen.ip())
    }

    fn start_at(&self, name: &str, settings: &str, address: IpAddr) -> Api {
        let [listen, admin] = [8402, 8403].map(|port| SocketAddr::new(address, port));
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
        fixture::client(api.listen, self.folder.path(), bearer)
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
        page(self.admin, "/readyz").await.is_some_and(|(status, _)| status == 200)
    }

    /// A metric without labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let (_, text) = page(self.admin, "/metrics").await.unwrap();
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line.unwrap_or_else(|| panic!("no {name}")).rsplit(' ').next().unwrap().parse().unwrap()
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

/// A bit of a file is another.
pub(crate) fn flip(file: &Path, at: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[at] ^= 1;
    std::fs::write(file, bytes).unwrap();
}
