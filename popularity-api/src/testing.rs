//! A topology for unit tests: region 4 with three suns and two caches, region 5 with one of each, region 6 empty
//! but for a draining cache and a sun without plain HTTP.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use geo::RegionId;
use geo::topology::Topology;

use crate::api::{self, Api};
use crate::config::Config;
use crate::engine::decay::Decay;
use crate::engine::folder::simulated::Simulated;
use crate::engine::{self, Engine};
use crate::purge::Ledger;
use crate::purge::log::Log;
use crate::ratings::Embedded;
use crate::signing::Keys;
use crate::wire::{PurgeMode, PurgeRequest, PurgeWhat};

/// An empty log; its file is gone already, which nobody notices who does not open it again.
pub(crate) fn ledger() -> Ledger {
    let place = tempfile::tempdir().unwrap();
    Ledger::new(Log::open(&place.path().join("purges"), 1000, 100).unwrap())
}

/// Purges a file, hard.
pub(crate) fn purge(ledger: &Ledger, file: &str, region: Option<u16>) -> u64 {
    let id = format!("id-{}", ledger.latest());
    let (what, mode, region) = (PurgeWhat::File, PurgeMode::Hard, region.map(RegionId));
    ledger.post(PurgeRequest { id, what, value: file.to_owned(), mode, region }, 0).unwrap().0.sequence
}

/// An API of this topology over ratings on a simulated disk, which nobody can call by HTTP.
pub(crate) fn api() -> Arc<Api> {
    let registry = prometheus::Registry::new();
    let settings = engine::Settings {
        decay: Decay::new(3600, 172_800, 0.25).unwrap(),
        pairs_max: 1000,
        commit: Duration::ZERO,
        queue_bytes_max: 1 << 20,
        snapshot_every: Duration::from_secs(3600),
        snapshot_binlog_bytes: 1 << 30,
        copies_binlog_bytes: 0,
    };
    let metrics = engine::Metrics::register(&registry).unwrap();
    let engine = Engine::open(Arc::new(Simulated::default()), &settings, metrics).unwrap().0;
    let topology = topology();
    let resolver = geo::Resolver::load(&geo::resolver::Sources::default(), &topology).unwrap();
    Arc::new(Api::new(
        Config::default(),
        daemon::tokens::Tokens::default(),
        Arc::new(Embedded::new(Arc::new(engine))),
        api::Metrics::register(&registry).unwrap(),
        ledger(),
        Arc::new(ArcSwap::from_pointee(Keys::default())),
        tokio::sync::watch::Sender::new(Arc::new(topology)).subscribe(),
        Arc::new(ArcSwap::from_pointee(resolver)),
    ))
}

pub(crate) fn topology() -> Topology {
    Topology::parse(TOPOLOGY).unwrap()
}

/// The document, to make others of it.
pub(crate) const TOPOLOGY: &str = r#"
version = 3
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
neighbours = [5, 6]

[[region]]
id = 5
name = "Berlin"
latitude = 52.5
longitude = 13.4
neighbours = [4]

[[region]]
id = 6
name = "Oslo"
latitude = 59.9
longitude = 10.7

[[group]]
name = "sun4-1"
subnet = "192.0.2.0/26"

[[group]]
name = "sun5-1"
subnet = "192.0.2.64/26"

[[group]]
name = "sun6-1"
subnet = "192.0.2.128/26"

[[sun]]
name = "sun4-1-1"
addresses = ["192.0.2.1"]
http_port = 80
internal = "10.4.1.1:8081"
weight = 100

[[sun]]
name = "sun4-1-2"
addresses = ["192.0.2.2"]
http_port = 80
internal = "10.4.1.2:8081"
weight = 100

[[sun]]
name = "sun4-1-3"
addresses = ["192.0.2.3"]
http_port = 80
internal = "10.4.1.3:8081"
weight = 50

[[sun]]
name = "sun5-1-1"
addresses = ["192.0.2.65"]
http_port = 8080
internal = "10.5.1.1:8081"
weight = 100

[[sun]]
name = "sun6-1-1"
addresses = ["192.0.2.129"]
internal = "10.6.1.1:8081"
weight = 100

[[cache]]
name = "cache4-1"
addresses = ["192.0.2.200"]
http_port = 80
internal = "10.4.9.1:8081"
weight = 100
bytes = 1000000

[[cache]]
name = "cache4-2"
addresses = ["192.0.2.201"]
http_port = 80
internal = "10.4.9.2:8081"
weight = 100
bytes = 1000000

[[cache]]
name = "cache5-1"
addresses = ["192.0.2.202"]
http_port = 80
internal = "10.5.9.1:8081"
weight = 100
bytes = 1000000

[[cache]]
name = "cache6-1"
addresses = ["192.0.2.203"]
http_port = 80
internal = "10.6.9.1:8081"
weight = 0
bytes = 1000000

[[class]]
name = "logos"
paths = ["*.svg"]
spread = "all"
"#;
