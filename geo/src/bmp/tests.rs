//! The listener over real sockets of the loopback; what messages mean is tested where they are decoded.

use std::net::Ipv4Addr;

use prometheus::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::*;

const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const TWO: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A listener that knows the router `r1` at 127.0.0.1.
struct Station {
    at: SocketAddr,
    routers: watch::Sender<Arc<Routers>>,
    heard: mpsc::Receiver<(FeedId, SessionEvent)>,
    registry: Registry,
    drain: Drain,
}

async fn station(options: Options, room: usize) -> Station {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let at = SocketAddr::from((ONE, listener.local_addr().unwrap().port()));
    let router = Router { feed: FeedId(3), name: "r1".to_owned() };
    let (routers, known) = watch::channel(Arc::new(Routers::from([(ONE.into(), router)])));
    let (sink, heard) = mpsc::channel(room);
    let (registry, drain) = (Registry::new(), Drain::new());
    let metrics = Metrics::register(&registry).unwrap();
    tokio::spawn(listen(listener, known, sink, options, metrics, drain.clone()));
    Station { at, routers, heard, registry, drain }
}

impl Station {
    async fn connect_from(&self, from: Ipv4Addr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.connect(self.at).await.unwrap()
    }

    /// What is heard next, names of initiations joined: `+` connected, `-` lost.
    async fn next(&mut self) -> String {
        let (feed, event) = self.heard.recv().await.unwrap();
        assert_eq!(feed, FeedId(3));
        match event {
            SessionEvent::Connected => "+".to_owned(),
            SessionEvent::Lost => "-".to_owned(),
            SessionEvent::Events(events) => events.iter().map(name).collect(),
        }
    }

    /// What is heard up to this.
    async fn until(&mut self, end: &str) -> String {
        let mut all = String::new();
        while !all.ends_with(end) {
            all += &self.next().await;
        }
        all
    }

    fn metric(&self, name: &str) -> u64 {
        let text = prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

fn name(event: &Event) -> String {
    match event {
        Event::Initiation { name, .. } => name.clone().unwrap_or_default(),
        other => panic!("{other:?}"),
    }
}

/// A BMP message of this type with this body.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(6 + body.len()).unwrap();
    [&[3], &length.to_be_bytes()[..], &[kind], body].concat()
}

/// An initiation of a router with this name.
fn hello(name: &str) -> Vec<u8> {
    let length = u16::try_from(name.len()).unwrap();
    message(4, &[&[0, 2][..], &length.to_be_bytes(), name.as_bytes()].concat())
}

#[tokio::test]
async fn messages_arrive_whole_and_in_order_however_they_are_cut() {
    let stream: Vec<u8> = ["one ", "two ", "three."].iter().flat_map(|name| hello(name)).collect();
    for piece in [1, 2, 5, 7, 11, stream.len()] {
        let mut station = station(Options::default(), 2).await;
        let mut router = station.connect_from(ONE).await;
        router.set_nodelay(true).unwrap();
        for piece in stream.chunks(piece) {
            router.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        drop(router);
        assert_eq!(station.until("-").await, "+one two three.-", "in pieces of {piece}");
        assert_eq!(station.metric("geo_bmp_messages_total"), 3);
        assert_eq!(station.metric("geo_bmp_bytes_total"), stream.len() as u64);
        assert_eq!(station.metric("geo_bmp_connected"), 0);
    }
}

#[tokio::test]
async fn a_router_waits_for_a_slow_engine_and_loses_nothing() {
    let mut station = station(Options::default(), 1).await;
    let mut router = station.connect_from(ONE).await;
    let names: Vec<String> = (0..200_000).map(|number| format!("{number} ")).collect();
    let stream: Vec<u8> = names.iter().flat_map(|name| hello(name)).collect();
    let sent = tokio::spawn(async move { router.write_all(&stream).await });
    assert_eq!(station.until("-").await, format!("+{}-", names.concat()));
    sent.await.unwrap().unwrap();
}

#[tokio::test]
async fn strangers_are_refused() {
    let mut station = station(Options::default(), 2).await;
    let mut stranger = station.connect_from(TWO).await;
    assert_eq!(stranger.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(station.metric("geo_bmp_refused_total"), 1);
    station.connect_from(ONE).await.write_all(&hello("one")).await.unwrap();
    assert_eq!(station.until("-").await, "+one-", "and nothing of the stranger");
}

#[tokio::test]
async fn the_newest_connection_of_a_router_wins() {
    let mut station = station(Options::default(), 1).await;
    let mut first = station.connect_from(ONE).await;
    first.write_all(&hello("one")).await.unwrap();
    assert_eq!(station.until("one").await, "+one");
    let mut second = station.connect_from(ONE).await;
    second.write_all(&hello("two")).await.unwrap();
    assert_eq!(station.until("two").await, "-+two");
    assert_eq!(first.read(&mut [0]).await.unwrap(), 0, "the first one is closed");
    drop(second);
    assert_eq!(station.next().await, "-");
    assert_eq!(station.metric("geo_bmp_connections_total"), 2);
}

#[tokio::test]
async fn a_malformed_message_is_left_out_and_a_stream_out_of_step_is_closed() {
    let mut cut = hello("lost");
    let last = cut.len() - 6;
    cut[4] = last as u8 + 5;
    cut.pop();
    let stream = [hello("one "), cut, hello("two ")].concat();
    let mut station = station(Options::default(), 4).await;
    let mut router = station.connect_from(ONE).await;
    router.write_all(&stream).await.unwrap();
    assert_eq!(station.until("two ").await, "+one two ");
    assert_eq!(station.metric("geo_bmp_malformed_total"), 1);
    // What came before the fault is told, and what comes after is not.
    router.write_all(&[hello("three"), b"GET / HTTP/1.1\r\n".to_vec(), hello("four")].concat()).await.unwrap();
    assert_eq!(station.until("-").await, "three-");
}

/// Route monitoring of a session that is not up, with this UPDATE in it.
fn monitoring(update: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + update.len()).unwrap();
    message(0, &[&[0; 42][..], &[0xff; 16], &length.to_be_bytes(), &[2], update].concat())
}

#[tokio::test]
async fn a_router_tells_everything_anew_once_when_its_routes_cannot_be_read() {
    // One byte of attributes: a header that is cut.
    let unreadable = monitoring(&[0, 0, 0, 1, 0x40]);
    let mut station = station(Options::default(), 4).await;
    let mut router = station.connect_from(ONE).await;
    router.write_all(&[hello("one"), unreadable.clone()].concat()).await.unwrap();
    assert_eq!(station.until("-").await, "+one-", "what came before is told");
    assert_eq!(router.read(&mut [0]).await.unwrap_or(0), 0, "the router is disconnected");
    // It says the same again: now that is only counted.
    let mut router = station.connect_from(ONE).await;
    router.write_all(&[unreadable, hello("two")].concat()).await.unwrap();
    assert_eq!(station.until("two").await, "+two");
    assert_eq!(station.metric("geo_bmp_malformed_total"), 2);
}

#[tokio::test]
async fn what_is_left_out_is_counted_by_what_it_is() {
    let mut station = station(Options::default(), 4).await;
    let mut router = station.connect_from(ONE).await;
    // Statistics; and routes of a family that nobody needs: MP_REACH_NLRI of AFI 25.
    let other = monitoring(&[0, 0, 0, 8, 0x40, 14, 5, 0, 25, 65, 0, 0]);
    let stream = [message(1, &[0; 46]), other.clone(), other, hello("one")].concat();
    router.write_all(&stream).await.unwrap();
    assert_eq!(station.until("one").await, "+one");
    let count = |what: &str| station.metric(&format!("geo_bmp_ignored_total{{router=\"r1\",what=\"{what}\"}}"));
    assert_eq!((count("statistics"), count("family")), (1, 2));
}

#[tokio::test]
async fn a_message_that_is_too_long_ends_the_connection() {
    let options = Options { message_bytes_max: 20, ..Options::default() };
    let mut station = station(options, 4).await;
    let mut router = station.connect_from(ONE).await;
    router.write_all(&[hello("0123456789"), hello("0123456789a")].concat()).await.unwrap();
    assert_eq!(station.until("-").await, "+0123456789-");
}

#[tokio::test]
async fn a_silent_router_is_disconnected() {
    let mut station = station(Options { idle: Duration::from_millis(1), ..Options::default() }, 4).await;
    let _router = station.connect_from(ONE).await;
    assert_eq!(station.until("-").await, "+-");
}

#[tokio::test]
async fn a_router_that_is_configured_no_more_is_disconnected() {
    for other in [Routers::new(), Routers::from([(ONE.into(), Router { feed: FeedId(4), name: "r1".to_owned() })])] {
        let mut station = station(Options::default(), 4).await;
        let _router = station.connect_from(ONE).await;
        assert_eq!(station.next().await, "+");
        station.routers.send_replace(Arc::new(other));
        assert_eq!(station.next().await, "-");
    }
}

#[tokio::test]
async fn the_drain_ends_connections_and_tells_no_loss() {
    let mut station = station(Options::default(), 4).await;
    let mut router = station.connect_from(ONE).await;
    assert_eq!(station.next().await, "+");
    station.drain.start();
    assert!(station.drain.finished(Duration::from_secs(60)).await);
    assert_eq!(router.read(&mut [0]).await.unwrap_or(0), 0);
    assert_eq!(station.heard.recv().await, None);
}
