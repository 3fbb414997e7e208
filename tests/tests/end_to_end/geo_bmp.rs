//! Real routers tell their routes: BIRD announces and withdraws, gobgpd and FRR tell it by BMP, and the RIB knows.

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
use tests::addresses::Block;
use tests::poll;
use tests::routers::{self, Announced, BMP_PORT, Bird, Relay, Router, Speaker};
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
