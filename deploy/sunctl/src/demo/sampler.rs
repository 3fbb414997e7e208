//! Asking everything that runs how it is: the daemons' own metrics and readiness, the API's ratings, the
//! content server's counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use geo::RegionId;
use popularity_api::Client;
use tokio::task::JoinSet;

use super::content_server::ContentServer;
use super::display::{Fullness, Snapshot, TOP_FILES, Tiers};
use super::load::Tally;
use super::metrics::Metrics;
use super::plan::{NODES, Ports, REGIONS};

/// Takes snapshots.
#[derive(Debug)]
pub struct Sampler {
    started: Instant,
    ports: Ports,
    http: reqwest::Client,
    /// With an operator's token.
    api: Client,
    content: ContentServer,
    tally: Arc<Tally>,
}

/// What one server said of itself.
#[derive(Clone, Debug, Default)]
struct Said {
    ready: bool,
    metrics: Metrics,
}

impl Sampler {
    /// A sampler of what listens at `ports`.
    ///
    /// # Errors
    ///
    /// When no HTTP client can be made.
    pub fn new(ports: Ports, api: Client, content: ContentServer, tally: Arc<Tally>) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(ANSWER_TIMEOUT).build()?;
        Ok(Self { started: Instant::now(), ports, http, api, content, tally })
    }

    /// How everything is now; what does not answer is not ready and counts nothing.
    pub async fn snapshot(&self) -> Snapshot {
        let mut asking = JoinSet::new();
        for (index, node) in NODES.iter().enumerate() {
            let (http, admin) = (self.http.clone(), self.ports.admin(node));
            asking.spawn(async move { (index, ask(&http, admin).await) });
        }
        let mut said = vec![Said::default(); NODES.len()];
        while let Some(answer) = asking.join_next().await {
            if let Ok((index, answer)) = answer {
                said[index] = answer;
            }
        }
        let mut top = Vec::new();
        for (region, _) in REGIONS {
            let files = self.api.top(RegionId(region), TOP_FILES).await.map(|top| top.files).unwrap_or_default();
            top.push((region, files.into_iter().map(|file| (file.rating_hour, file.file)).collect()));
        }
        let tallied = self.tally.now();
        let content = self.content.counts();
        let sum = |of: &dyn Fn(&Metrics) -> u64| said.iter().map(|said| of(&said.metrics)).sum::<u64>();
        Snapshot {
            at: self.started.elapsed(),
            requests: sum(&|metrics| metrics.count("edge_requests_total", &[])),
            sent_bytes: sum(&|metrics| metrics.count("edge_sent_bytes_total", &[])),
            errors: tallied.errors + sum(&server_errors),
            trouble: tallied.last_error,
            tiers: tiers(&said),
            content_requests: content.requests,
            caches: NODES
                .iter()
                .zip(&said)
                .filter(|(node, _)| node.is_cache)
                .map(|(node, said)| fullness(node.name, said))
                .collect(),
            servers: NODES.iter().zip(&said).map(|(node, said)| (node.name, said.ready)).collect(),
            top,
        }
    }
}

async fn ask(http: &reqwest::Client, admin: SocketAddr) -> Said {
    let ready = http.get(format!("http://{admin}/readyz")).send().await;
    let ready = ready.is_ok_and(|response| response.status().is_success());
    let scrape = async { http.get(format!("http://{admin}/metrics")).send().await?.text().await };
    let metrics = scrape.await.map(|text| Metrics::parse(&text)).unwrap_or_default();
    Said { ready, metrics }
}

/// Where the bytes of all answers were, by the edges' own count.
fn tiers(said: &[Said]) -> Tiers {
    let by = |outcome: &str| {
        said.iter().map(|said| said.metrics.count("edge_requests_total", &[("outcome", outcome)])).sum::<u64>()
    };
    Tiers { ram: by("ram") + by("stale"), vault: by("vault") + by("cache"), owner: by("sun"), content: by("origin") }
}

fn server_errors(metrics: &Metrics) -> u64 {
    ["500", "502", "503", "504"].iter().map(|status| metrics.count("edge_responses_total", &[("status", status)])).sum()
}

fn fullness(name: &'static str, said: &Said) -> Fullness {
    Fullness {
        name,
        files: said.metrics.count("cache_held_files", &[]),
        bytes: said.metrics.count("cache_held_bytes", &[]),
        bytes_max: said.metrics.count("cache_held_bytes_max", &[]),
    }
}

/// Longest wait for one answer; what is slower is not well.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(800);
