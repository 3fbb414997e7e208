//! The demo's content server over real sockets: what an edge asks of it, and what it counts.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::sync::Arc;
use std::time::Duration;

use daemon::drain::Drain;
use geo::CanonicalName;
use reqwest::{Client, Method, Response};
use sunctl::demo::content_server::{self, ContentServer, Counts};
use sunctl::demo::media::{Library, Noise};

const PICTURE: &str = "/cs100500/pictures/000.png";
/// The largest file, 50 MB of noise.
const CLIP: &str = "/cs100500/videos/clip-23.bin";

#[tokio::test]
async fn files_are_sent_whole_and_in_part() {
    let origin = Origin::start().await;
    origin.check("GET", PICTURE, &[], "200 192278").await;
    origin.check("GET", PICTURE, &[("range", "bytes=0-99")], "206 100 bytes 0-99/192278").await;
    origin.check("GET", PICTURE, &[("range", "bytes=-1")], "206 1 bytes 192277-192277/192278").await;
    origin.check("GET", PICTURE, &[("range", "bytes=192278-")], "416 0 bytes */192278").await;
    origin.check("GET", CLIP, &[("range", "bytes=49999990-")], "206 10 bytes 49999990-49999999/50000000").await;
    origin.check("HEAD", CLIP, &[], "200 0").await;
    origin.end().await;
}

#[tokio::test]
async fn a_part_is_what_the_whole_has_there() {
    let origin = Origin::start().await;
    let part = origin.ask("GET", CLIP, &[("range", "bytes=12345677-12445676")]).await.bytes().await.unwrap();
    assert!(part == Noise::new(23).read(12_345_677, 100_000), "100,000 bytes in the middle of the clip");
    origin.end().await;
}

#[tokio::test]
async fn what_an_edge_has_is_not_sent_again() {
    let origin = Origin::start().await;
    let first = origin.ask("HEAD", PICTURE, &[]).await;
    let header = |name: &str| first.headers()[name].to_str().unwrap().to_owned();
    let (tag, modified) = (header("etag"), header("last-modified"));
    origin.check("GET", PICTURE, &[("if-none-match", &tag)], "304 0").await;
    origin.check("GET", PICTURE, &[("if-modified-since", &modified)], "304 0").await;
    origin.check("GET", PICTURE, &[("if-none-match", "\"other\"")], "200 192278").await;
    let same = [("range", "bytes=0-9"), ("if-range", tag.as_str())];
    origin.check("GET", PICTURE, &same, "206 10 bytes 0-9/192278").await;
    let other = [("range", "bytes=0-9"), ("if-range", "\"other\"")];
    origin.check("GET", PICTURE, &other, "200 192278").await;
    origin.end().await;
}

#[tokio::test]
async fn nothing_else_is_there() {
    let origin = Origin::start().await;
    for path in ["/", "/pictures/000.png", "/c100500/pictures/000.png", "/cs7/pictures/000.png", "/cs100500/a.png"] {
        assert_eq!(origin.ask("GET", path, &[]).await.status(), 404, "{path}");
    }
    let refused = origin.ask("POST", PICTURE, &[]).await;
    assert_eq!((refused.status().as_u16(), refused.headers()["allow"].to_str().unwrap()), (405, "GET, HEAD"));
    origin.end().await;
}

#[tokio::test]
async fn it_counts_what_it_is_asked_for() {
    let origin = Origin::start().await;
    for range in ["bytes=0-9", "bytes=10-29"] {
        origin.ask("GET", PICTURE, &[("range", range)]).await.bytes().await.unwrap();
    }
    origin.ask("HEAD", PICTURE, &[]).await;
    origin.ask("GET", "/cs100500/none.png", &[]).await;
    assert_eq!(origin.server.counts(), Counts { requests: 4, bodies: 2, bytes: 30 });
    assert_eq!(origin.server.bodies_of(&CanonicalName::parse("c100500/pictures/000.png").unwrap()), 2);
    assert_eq!(origin.server.bodies_of(&CanonicalName::parse("c100500/none.png").unwrap()), 0);
    origin.end().await;
}

/// A content server of generated media, and somebody who asks it.
struct Origin {
    server: ContentServer,
    drain: Drain,
    client: Client,
}

impl Origin {
    async fn start() -> Self {
        let drain = Drain::new();
        let library = Arc::new(Library::generated());
        let server = content_server::start(([127, 0, 0, 1], 0).into(), library, &drain).await.unwrap();
        Self { server, drain, client: Client::builder().no_proxy().build().unwrap() }
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        let url = format!("http://{}{path}", self.server.listen);
        let request = self.client.request(Method::from_bytes(method.as_bytes()).unwrap(), url);
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap()
    }

    /// Compares status, bytes received and `Content-Range`.
    async fn check(&self, method: &str, path: &str, headers: &[(&str, &str)], expected: &str) {
        let response = self.ask(method, path, headers).await;
        let status = response.status().as_u16();
        let range = response.headers().get("content-range").map(|range| format!(" {}", range.to_str().unwrap()));
        let bytes = response.bytes().await.unwrap().len();
        assert_eq!(format!("{status} {bytes}{}", range.unwrap_or_default()), expected, "{method} {path} {headers:?}");
    }

    async fn end(self) {
        self.drain.start();
        // Its idle connections are closed by the server, so that the end does not wait for the client.
        assert!(self.drain.finished(Duration::from_secs(10)).await, "it ends when told to");
    }
}
