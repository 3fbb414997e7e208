//! The API over a cluster: its calls, and what it says while the cluster is away.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use daemon::drain::Drain;
use geo::RegionId;
use popularity_api::config;
use popularity_api::server::{self, Config};
use popularity_api::wire::{Download, DownloadsBatch, WantedRequest};

use super::World;
use crate::fixture::{self, furnish, secret};

#[tokio::test(flavor = "multi_thread")]
async fn the_api_counts_and_ranks_in_a_cluster_and_says_when_it_is_away() {
    let mut world = World::start(&["--requirepass", "a-password", "--masterauth", "a-password"]);
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), world.redis.addresses());
    assert_eq!(server::check(&config), Vec::<String>::new());
    let running = server::start(config.clone(), Drain::new()).await.unwrap();
    let client = |bearer: &str| fixture::client(running.listen, folder.path(), bearer);
    let (sun, cache, backend) = (client("sun4-1-1"), client("cache4-1"), client("backend"));
    assert!(sun.report_downloads(&batch(1)).await.unwrap().counted);
    assert!(!sun.report_downloads(&batch(1)).await.unwrap().counted);
    let top = backend.top(RegionId(4), 9).await.unwrap().files;
    assert_eq!((top.len(), top[0].file.as_str(), top[0].size), (1, "c1/a", 1000));
    assert!((top[0].rating_days - 3.0).abs() < 1e-3, "{top:?}");
    let wanted = WantedRequest { bytes_max: 1_000_000, limit: 9 };
    let candidates = cache.wanted(RegionId(4), "cache4-1", &wanted).await.unwrap().candidates;
    assert_eq!(candidates.len(), 1);

    (0..6).for_each(|node| world.redis.kill(node));
    let refused = sun.report_downloads(&batch(2)).await.unwrap_err().to_string();
    assert!(refused.contains("the ratings' cluster did not confirm the batch"), "{refused}");
    let refused = backend.top(RegionId(4), 9).await.unwrap_err().to_string();
    assert!(refused.contains("the ratings cannot be asked now"), "{refused}");
    running.drain.start();
    assert!(running.drain.finished(std::time::Duration::from_secs(30)).await);

    std::fs::set_permissions(folder.path().join("password"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let problems = server::check(&config);
    assert!(problems[0].starts_with("cluster.password_file: ") && problems.len() == 1, "{problems:?}");
}

fn batch(sequence: u64) -> DownloadsBatch {
    let file = Download { region: RegionId(4), file: "c1/a".to_owned(), size: 1000, downloads: 3.0, bytes: 3000 };
    DownloadsBatch { source: "sun4-1-1".to_owned(), boot: 1, sequence, age_ms: 0, downloads: vec![file] }
}

/// As everywhere, with ratings in these nodes.
fn config(folder: &Path, nodes: Vec<String>) -> Config {
    furnish(folder);
    let password = folder.join("password");
    secret(&password, "a-password\n");
    let cluster = config::Cluster { nodes, password_file: Some(password), timeout_ms: 2000, ..Default::default() };
    Config { cluster, ..fixture::config(folder) }
}
