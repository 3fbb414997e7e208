//! Real routers tell their routes: BIRD announces and withdraws, gobgpd and FRR tell it by BMP, and the RIB knows; then
//! the same in front of `geo serve`, whose answers change.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use daemon::drain::Drain;
use geo::RegionId;
use geo::bmp::{self, Metrics, Options, SessionEvent};
use geo::feed::View;
use geo::rib::{Feed, FeedKind, FeedState, Limits, Rib};
use geo::route::SessionClass;
use serde_json::{Value, json};
use tests::addresses::Block;
use tests::poll;
use tests::routers::{self, Announced, BMP_PORT, Bird, Relay, Router, Speaker};
use tests::settings::token;
use tests::world::{GEO, World};
use tokio::sync::{mpsc, watch};

/// A listener with a RIB behind it.
struct Station {
    rib: Arc<Mutex<Rib>>,
    began: Instant,
    drain: Drain,
    _routers: watch::Sender<Arc<bmp::Routers>>,
}

impl Station {
    /// Knows one router for each address, of regions 1, 2 and so on.
    async fn start(at: SocketAddr, routers: &[std::net::Ipv4Addr], limits: Limits) -> Self {
        let mut rib = Rib::new(limits);
        let feeds: Vec<Feed> = (1..).zip(routers).map(|(region, _)| feed(region)).collect();
        let ids = rib.set_feeds(&feeds, Duration::ZERO);
        let known = routers.iter().zip(&feeds).zip(ids).map(|((address, feed), id)| {
            ((*address).into(), bmp::Router { feed: id.expect("few feeds"), name: feed.name.clone() })
        });
        let (keep, known) = watch::channel(Arc::new(HashMap::from_iter(known)));
        let (sink, mut events) = mpsc::channel(16);
        let (rib, began, drain) = (Arc::new(Mutex::new(rib)), Instant::now(), Drain::new());
        let listener = tokio::net::TcpListener::bind(at).await.expect("the station's address");
        let metrics = Metrics::register(&prometheus::Registry::new()).expect("a new registry");
        tokio::spawn(bmp::listen(listener, known, sink, Options::default(), metrics, drain.clone()));
        let shared = rib.clone();
        tokio::spawn(async move {
            while let Some((feed, event)) = events.recv().await {
                let (mut rib, now) = (shared.lock().expect("nobody panics with it"), began.elapsed());
                match event {
                    SessionEvent::Connected => rib.connected(feed, now),
                    SessionEvent::Events(events) => events.iter().for_each(|event| rib.apply(feed, event, now)),
                    SessionEvent::Lost => rib.lost(feed, now),
                }
            }
        });
        Self { rib, began, drain, _routers: keep }
    }

    /// What counts for a prefix: region, path and `~` when stale.
    fn heard(&self, prefix: &str) -> Vec<String> {
        let mut rib = self.rib.lock().expect("nobody panics with it");
        rib.tick(self.began.elapsed());
        while rib.pending() {
            rib.take_dirty(1000);
        }
        let mut heard = Vec::new();
        rib.heard(&prefix.parse().expect("a prefix"), &mut heard);
        let path = |path: &[u32]| path.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        let stale = |stale: bool| if stale { "~" } else { "" };
        let mut heard: Vec<String> = heard
            .iter()
            .map(|route| format!("{}: {}{}", route.region, path(&route.attributes.as_path), stale(route.stale)))
            .collect();
        heard.sort();
        heard
    }

    async fn until(&self, prefix: &str, expected: &[&str]) -> Duration {
        let mut seen = Vec::new();
        let took = poll::until_true(&format!("{prefix} heard as {expected:?}"), || {
            seen = self.heard(prefix);
            let is = seen == expected;
            async move { is }
        });
        took.await
    }

    /// Has something new to tell until the router is connected: gobgpd notices a broken link when it writes.
    async fn until_told_again(&self, bird: &Bird, routes: &[Announced]) {
        let mut number = 0;
        let connected = poll::until_true("the router is connected again", || {
            let is = self.states()[0].connected;
            number += 1;
            let news = Announced::with_path("198.51.100.0/24", &[number]);
            bird.announce(&[routes, &[news]].concat());
            async move { is }
        });
        connected.await;
    }

    /// Waits, for minutes if need be, until the only peer has so many routes.
    async fn until_routes(&self, routes: usize) -> Duration {
        let began = Instant::now();
        loop {
            let peers = &self.states()[0].peers;
            if peers.first().is_some_and(|peer| peer.v4.routes as usize == routes) {
                return began.elapsed();
            }
            assert!(began.elapsed() < Duration::from_secs(600), "not within ten minutes: {peers:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn states(&self) -> Vec<FeedState> {
        self.rib.lock().expect("nobody panics with it").states(self.began.elapsed())
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        self.drain.start();
    }
}

fn feed(region: u16) -> Feed {
    Feed {
        name: format!("r{region}"),
        region: RegionId(region),
        class: SessionClass::Transit,
        peers: Vec::new(),
        view: View::PrePolicy,
        prefixes_max: None,
        kind: FeedKind::Live,
    }
}

/// Of a test's block: who is where.
struct Lab {
    folder: tempfile::TempDir,
    block: Block,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("sun-routers-").tempdir().expect("a temporary folder");
        Self { folder, block: Block::claim() }
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn bird(&self) -> Speaker {
        Speaker { address: self.block.address(11), asn: 64_511 }
    }

    /// The first or second router that tells.
    fn router(&self, number: u8) -> Speaker {
        Speaker { address: self.block.address(20 + number), asn: 64_520 + u32::from(number) }
    }

    fn station(&self) -> SocketAddr {
        (self.block.address(31), BMP_PORT).into()
    }

    async fn relay(&self, number: u8) -> (SocketAddr, Relay) {
        let at = (self.block.address(40 + number), BMP_PORT).into();
        (at, Relay::start(at, self.station(), self.router(number).address).await)
    }
}

type Start = fn(&Path, Speaker, &[Speaker], SocketAddr) -> Router;

const V4: &str = "192.0.2.0/24";
const V6: &str = "2001:db8:1::/48";

/// A router of this kind, from its first word to its death.
async fn tells_what_it_hears(start: Start) {
    let lab = Lab::new();
    let limits = Limits { quiet: Duration::from_millis(300), ..Limits::default() };
    let station = Station::start(lab.station(), &[lab.router(1).address], limits).await;
    let (at, relay) = lab.relay(1).await;
    let mut router = start(lab.folder(), lab.router(1), &[lab.bird()], at);
    let both = [Announced::with_path(V4, &[64_600, 4_200_000_000]), Announced::new(V6)];
    let bird = Bird::start(lab.folder(), lab.bird(), &[lab.router(1)], &both).await;

    station.until(V4, &["1: 64511 64600 4200000000"]).await;
    station.until(V6, &["1: 64511"]).await;

    bird.announce(&both[1..]);
    println!("withdrawn within {:?}", station.until(V4, &[]).await);
    let other = [Announced::with_path(V4, &[64_601]), both[1].clone()];
    bird.announce(&other);
    println!("announced within {:?}", station.until(V4, &["1: 64511 64601"]).await);

    bird.session("disable", 0);
    println!("gone with the session within {:?}", station.until(V4, &[]).await);
    bird.session("enable", 0);
    station.until(V4, &["1: 64511 64601"]).await;

    relay.cut();
    station.until(V4, &["1: 64511 64601~"]).await;
    relay.mend();
    station.until_told_again(&bird, &other).await;
    station.until(V4, &["1: 64511 64601"]).await;

    router.kill();
    station.until(V6, &["1: 64511~"]).await;
    router.restart();
    station.until(V6, &["1: 64511"]).await;
}

#[tokio::test]
async fn gobgpd_tells_what_it_hears() {
    tells_what_it_hears(routers::gobgpd).await;
}

#[tokio::test]
async fn frr_tells_what_it_hears() {
    tells_what_it_hears(routers::frr).await;
}

/// The routers of two regions tell the same prefix to `geo serve`; one of them dies, and comes back.
#[tokio::test(flavor = "multi_thread")]
async fn clients_go_to_another_region_when_the_routes_of_a_dead_router_are_over() {
    let world = World::with_geo(&["sun1-1-1", "sun2-1-1"]);
    let speaker = |host, asn| Speaker { address: world.address(host), asn };
    let (bird, one, two) = (speaker(10, 64_511), speaker(11, 64_521), speaker(12, 64_522));
    let bmp = SocketAddr::from((world.geo().ip(), BMP_PORT));
    let routers = [(one, 1, "transit"), (two, 2, "private")].map(|(router, region, class)| {
        let address = router.address;
        format!("[[router]]\nname = \"r{region}\"\naddress = \"{address}\"\nregion = {region}\nclass = \"{class}\"\n")
    });
    let bmp_options = format!("[bmp]\nlisten = \"{bmp}\"\nquiet_s = 1\nstale_s = 3\n");
    let more = format!("damping.stable_s = 0\n{bmp_options}{}", routers.concat());
    // It is ready when the routers told what they have.
    let starting = world.start_with(GEO, |settings| settings.more = more);
    let at = |host| SocketAddr::from((world.address(host), BMP_PORT));
    let _relays = (Relay::start(at(21), bmp, one.address).await, Relay::start(at(22), bmp, two.address).await);
    let _one = routers::frr(world.folder(), one, &[bird], at(21));
    let mut two_runs = routers::gobgpd(world.folder(), two, &[bird], at(22));
    let both = [Announced::new(V4), Announced::new(V6)];
    let announcing = Bird::start(world.folder(), bird, &[one, two], &both).await;
    let geo = starting.await;

    for client in ["192.0.2.7", "2001:db8:1::7"] {
        until_resolved(&world, client, &[2, 1], "prefix").await;
    }
    two_runs.kill();
    let moved = until_resolved(&world, "192.0.2.7", &[1, 2], "prefix").await;
    println!("a dead router's clients are elsewhere after {moved:?}, with stale_s = 3");
    two_runs.restart();
    until_resolved(&world, "192.0.2.7", &[2, 1], "prefix").await;
    announcing.announce(&both[1..]);
    let gone = until_resolved(&world, "192.0.2.7", &[1, 2], "default").await;
    println!("a withdrawal from both is the answer after {gone:?}");
    until_resolved(&world, "2001:db8:1::7", &[2, 1], "prefix").await;
    let metrics = geo.metrics().await;
    for (router, connections) in [("r1", 1.0), ("r2", 2.0)] {
        let label = format!("router=\"{router}\"");
        assert_eq!(metrics.sum("geo_bmp_connections_total", &[&label]), Some(connections), "{router}");
        assert_eq!(metrics.sum("geo_bmp_malformed_total", &[&label]).unwrap_or(0.0), 0.0, "{router}");
    }
}

/// Waits until the geo server gives a client these regions, by evidence of this kind.
async fn until_resolved(world: &World, client: &str, regions: &[u16], evidence: &str) -> Duration {
    let operator = world.client().with("authorization", &format!("Bearer {}", token("operator")));
    let url = format!("http://{}/v1/resolve/{client}", world.geo());
    let resolved = poll::until_true(&format!("{client} in {regions:?} by {evidence}"), || {
        let (operator, url) = (operator.clone(), url.clone());
        async move {
            let answer = operator.get(&url).await.ok().filter(|answer| answer.status == 200);
            let answer: Option<Value> = answer.and_then(|answer| serde_json::from_slice(&answer.body).ok());
            answer.is_some_and(|answer| {
                let says = answer["evidence"].as_str().is_some_and(|says| says.starts_with(evidence));
                says && answer["regions"] == json!(regions)
            })
        }
    });
    resolved.await
}

#[tokio::test]
async fn a_router_that_dies_leaves_stale_routes_until_their_time_is_over() {
    let lab = Lab::new();
    let limits = Limits { quiet: Duration::from_millis(300), stale: Duration::from_secs(3), ..Limits::default() };
    let station = Station::start(lab.station(), &[lab.router(1).address, lab.router(2).address], limits).await;
    let (at_one, _relay_one) = lab.relay(1).await;
    let (at_two, _relay_two) = lab.relay(2).await;
    let mut one = routers::gobgpd(lab.folder(), lab.router(1), &[lab.bird()], at_one);
    let _two = routers::frr(lab.folder(), lab.router(2), &[lab.bird()], at_two);
    let neighbours = [lab.router(1), lab.router(2)];
    let _bird = Bird::start(lab.folder(), lab.bird(), &neighbours, &[Announced::new(V4)]).await;
    station.until(V4, &["1: 64511", "2: 64511"]).await;
    one.kill();
    station.until(V4, &["1: 64511~", "2: 64511"]).await;
    station.until(V4, &["2: 64511"]).await;
}

/// How long a whole table takes on its way through real routers.
#[tokio::test]
#[ignore = "takes a minute or more and prints: cargo test -p tests --test end_to_end whole_table -- --ignored --nocapture"]
async fn a_whole_table_of_gobgpd_arrives_and_goes() {
    let lab = Lab::new();
    let station = Station::start(lab.station(), &[lab.router(1).address], Limits::default()).await;
    let (at, _relay) = lab.relay(1).await;
    let _router = routers::gobgpd(lab.folder(), lab.router(1), &[lab.bird()], at);
    let prefix = |number: u32| format!("{}/24", std::net::Ipv4Addr::from(0x0100_0000 + (number << 8)));
    let table: Vec<Announced> = (0..512_621).map(|number| Announced::new(&prefix(number))).collect();
    let bird = Bird::start(lab.folder(), lab.bird(), &[lab.router(1)], &table).await;
    let told = station.until_routes(table.len()).await;
    println!("{} prefixes are told {told:?} after BIRD is up", table.len());
    bird.session("disable", 0);
    let gone = station.until_routes(0).await;
    println!("they are gone {gone:?} after the session's end");
}
