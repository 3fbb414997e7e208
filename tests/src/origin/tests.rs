//! The content server does what it is told, since every other test believes it.

use std::collections::HashMap;
use std::net::SocketAddr;

use hyper::Method;

use super::{Gate, Origin, Script};
use crate::addresses::Block;
use crate::certificates::Authority;
use crate::client::{Client, Cut};
use crate::pattern::Pattern;

const SIZE: u64 = 300_000;
const PATH: &str = "/cs1/a.jpg";

struct Bench {
    origin: Origin,
    client: Client,
    url: String,
    _block: Block,
}

fn bench(script: Script) -> Bench {
    let block = Block::claim();
    let origin = Origin::start(SocketAddr::from((block.address(1), 8080)));
    origin.put(PATH, script);
    let client = Client::new(&Authority::new(), HashMap::new());
    Bench { url: format!("http://{}{PATH}", origin.address()), origin, client, _block: block }
}

#[tokio::test]
async fn a_file_has_the_bytes_of_its_pattern() {
    let bench = bench(Script::file(SIZE).version(3).header("x-more", "yes"));
    let answer = bench.client.get(&bench.url).await.unwrap();
    assert_eq!((answer.status, answer.body.len() as u64), (200, SIZE));
    assert_eq!(answer.header("x-more"), "yes");
    bench.origin.pattern(PATH).check(0, &answer.body);
    Pattern::of(PATH, 3).check(0, &answer.body);
}

#[tokio::test]
async fn ranges_and_validators_are_honoured() {
    let script = Script::file(SIZE);
    let etag = script.etag();
    let bench = bench(script);
    for (headers, expected) in [
        (vec![("range", "bytes=10-19")], (206, 10, 10)),
        (vec![("range", "bytes=299990-")], (206, 10, 299_990)),
        (vec![("range", "bytes=-5")], (206, 5, 299_995)),
        (vec![("range", "bytes=10-19"), ("if-range", &etag)], (206, 10, 10)),
        (vec![("range", "bytes=10-19"), ("if-range", "\"other\"")], (200, SIZE, 0)),
        (vec![("range", "bytes=300000-")], (416, 0, 0)),
        (vec![("if-none-match", &etag)], (304, 0, 0)),
    ] {
        let client = headers.iter().fold(bench.client.clone(), |client, (name, value)| client.with(name, value));
        let answer = client.get(&bench.url).await.unwrap();
        let (status, length, start) = expected;
        assert_eq!((answer.status, answer.body.len() as u64), (status, length), "{headers:?}");
        bench.origin.pattern(PATH).check(start, &answer.body);
    }
}

#[tokio::test]
async fn a_body_that_dies_is_seen_as_cut() {
    for (script, status) in [
        (Script::file(SIZE).dying_at(100_000), 200),
        (Script::file(SIZE).chunked().dying_at(100_000), 200),
        (Script::file(SIZE).declaring_too_much(1), 200),
    ] {
        let bench = bench(script);
        let error = bench.client.get(&bench.url).await.unwrap_err();
        let cut = error.downcast_ref::<Cut>().unwrap_or_else(|| panic!("not cut: {error}"));
        assert_eq!(cut.status, status);
        bench.origin.pattern(PATH).check(0, &cut.body);
    }
}

#[tokio::test]
async fn deaths_are_counted() {
    let bench = bench(Script::file(SIZE).dying_at_for(10, 2));
    for complete in [false, false, true, true] {
        assert_eq!(bench.client.get(&bench.url).await.is_ok(), complete);
    }
    assert_eq!(bench.origin.fetches(PATH), 4);
}

#[tokio::test]
async fn a_gate_holds_the_body_at_its_byte() {
    let gate = Gate::closed();
    let bench = bench(Script::file(SIZE).held_at(1000, &gate));
    let mut response = bench.client.start(Method::GET, &bench.url).await.unwrap();
    gate.reached().await;
    bench.origin.pattern(PATH).check(0, &response.read(1000).await.unwrap());
    gate.open();
    let rest = response.finish().await.unwrap();
    assert_eq!(rest.body.len() as u64, SIZE - 1000);
    bench.origin.pattern(PATH).check(1000, &rest.body);
}

#[tokio::test]
async fn a_drip_arrives_whole() {
    let bench = bench(Script::file(1000).dripping(5000));
    bench.origin.pattern(PATH).check(0, &bench.client.get(&bench.url).await.unwrap().body);
}

#[tokio::test]
async fn what_was_asked_is_remembered() {
    let bench = bench(Script::file(10));
    let base = format!("http://{}", bench.origin.address());
    assert_eq!(bench.client.get(&format!("{base}/nowhere?x=1")).await.unwrap().status, 404);
    let answer = bench.client.clone().with("x-who", "me").head(&bench.url).await.unwrap();
    assert_eq!((answer.status, answer.header("content-length")), (200, "10".to_owned()));
    let seen = bench.origin.requests();
    assert_eq!(seen.iter().map(|seen| seen.target.as_str()).collect::<Vec<_>>(), ["/nowhere?x=1", PATH]);
    assert_eq!(seen[1].headers["x-who"], "me");
    assert_eq!((bench.origin.fetches(PATH), bench.origin.requests_for(PATH).len()), (0, 1));
}

#[tokio::test]
async fn it_goes_down_and_comes_back() {
    let gate = Gate::closed();
    let bench = bench(Script::file(SIZE).held_at(1000, &gate));
    let response = bench.client.start(Method::GET, &bench.url).await.unwrap();
    gate.reached().await;
    bench.origin.stop();
    assert!(response.finish().await.is_err());
    assert!(bench.client.get(&bench.url).await.is_err());
    gate.open();
    bench.origin.resume();
    assert_eq!(bench.client.get(&bench.url).await.unwrap().body.len() as u64, SIZE);
}
