//! An API in this process and a folder of its own, what is told to it, and what it then says.

use std::time::Duration;

use daemon::drain::Drain;
use geo::RegionId;
use popularity_api::Client;
use popularity_api::server::{self, Config, Running};
use popularity_api::wire::{CacheGeneration, Download, DownloadsBatch, StatusReport};

use crate::fixture::{self, config, furnish, token};

/// An API in a folder of its own.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) running: Running,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        furnish(folder.path());
        let mut config = config(folder.path());
        change(&mut config);
        let running = server::start(config, Drain::new()).await.unwrap();
        Self { folder, running }
    }

    pub(crate) async fn restart(&mut self) {
        self.restart_with(|_| {}).await;
    }

    pub(crate) async fn restart_with(&mut self, change: impl FnOnce(&mut Config)) {
        self.running.drain.start();
        assert!(self.running.drain.finished(Duration::from_secs(60)).await);
        let mut config = config(self.folder.path());
        change(&mut config);
        self.running = server::start(config, Drain::new()).await.unwrap();
    }

    pub(crate) fn client(&self, bearer: &str) -> Client {
        fixture::client(self.running.listen, self.folder.path(), bearer)
    }

    /// All that the admin port tells.
    pub(crate) async fn metrics(&self) -> String {
        fixture::page(self.running.admin, "/metrics").await.unwrap().1
    }

    pub(crate) async fn call(&self, method: &str, path: &str, bearer: &str, body: &str) -> (u16, String) {
        let answer = self.request(method, path, bearer).body(body.to_owned()).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    pub(crate) fn request(&self, method: &str, path: &str, bearer: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}{path}", self.running.listen);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.request(method.parse().unwrap(), url);
        if bearer.is_empty() { request } else { request.bearer_auth(token(bearer)) }
    }
}

pub(crate) fn batch(sequence: u64, files: &[(&str, f64)]) -> DownloadsBatch {
    let download = |&(file, downloads): &(&str, f64)| Download {
        region: RegionId(4),
        file: file.to_owned(),
        size: 100,
        downloads,
        bytes: 100,
    };
    let downloads = files.iter().map(download).collect();
    DownloadsBatch { source: "sun4-1-1".to_owned(), boot: 1, sequence, age_ms: 0, downloads }
}

pub(crate) fn status(server: &str, known: &[(&str, u64)]) -> StatusReport {
    let known = known.iter().map(|&(cache, generation)| CacheGeneration { cache: cache.to_owned(), generation });
    StatusReport {
        server: server.to_owned(),
        healthy: true,
        holdings_known: known.collect(),
        ..StatusReport::default()
    }
}

pub(crate) async fn check_rating(world: &World, downloads: f64) {
    let top = world.client("backend").top(RegionId(4), 10).await.unwrap();
    assert_eq!(top.files.len(), 1, "{:?}", top.files);
    assert!((top.files[0].rating_days - downloads).abs() < 0.01, "{:?}", top.files);
}
