//! The calls, in front of an oracle that the tests make.

use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};

use axum::http::Method;
use serde_json::json;
use tokio::sync::watch;

use super::*;
use crate::topology::RegionId;
use crate::wire::{Change, Changes, Resolved};

const TOKEN: &str = "sun-token-0123456789";

#[tokio::test]
async fn nobody_is_answered_without_a_token() {
    let api = Api::new().await;
    for (route, authorization) in [
        ("/v1/table", ""),
        ("/v1/stats", "Bearer another-token-0123456789"),
        ("/v1/none", ""),
        ("/v1/resolve/192.0.2.1", "Basic x"),
    ] {
        let answer = api.send(Method::GET, route, &[("authorization", authorization)], "").await;
        assert_eq!(answer.status, 401, "{route}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    assert_eq!(api.get("/v1/none").await.status, 404);
    assert_eq!(api.send(Method::DELETE, "/v1/table", &[], "").await.status, 405);
}

#[tokio::test]
async fn one_address_or_many_are_resolved() {
    let api = Api::new().await;
    let one = json!({"address": "192.0.2.1", "regions": [4, 5], "evidence": "default"});
    api.check("/v1/resolve/192.0.2.1", 200, &one).await;
    let many = api.send(Method::POST, "/v1/resolve", &[], r#"{"addresses": ["192.0.2.1", "192.0.2.1"]}"#).await;
    assert_eq!((many.status, many.json()), (200, json!({"answers": [one, one]})));
    for (body, status, says) in [
        (r#"{"addresses": ["192.0.2.1", "192.0.2.256"]}"#.to_owned(), 400, "addresses[1]: invalid IP address syntax"),
        (r#"{"addresses": []} {}"#.to_owned(), 400, "after the JSON value"),
        (r#"{"clients": []}"#.to_owned(), 400, "unknown field `clients`"),
        (json!({"addresses": vec!["::1"; 10_001]}).to_string(), 400, "10001 of them: ask for at most 10000"),
        (" ".repeat(BODY_BYTES_MAX + 1), 413, "a body is at most 1048576 bytes"),
    ] {
        let refused = api.send(Method::POST, "/v1/resolve", &[], &body).await;
        refused.check_problem(status, says);
    }
    api.get("/v1/resolve/example.org").await.check_problem(400, "\"example.org\" is no address");
}

#[tokio::test]
async fn what_people_ask_is_passed_on() {
    let api = Api::new().await;
    api.check("/v1/explain/2001:db8::1", 200, &json!({"explained": "2001:db8::1"})).await;
    api.check("/v1/audit", 200, &json!("audit")).await;
    api.check("/v1/stats", 200, &json!("stats")).await;
    let columns = api.send(Method::GET, "/v1/explain/::1", &[("accept", "text/plain")], "").await;
    assert_eq!((columns.status, &*columns.body), (200, &b"columns of ::1\n"[..]));
    api.get("/v1/explain/x").await.check_problem(400, "\"x\" is no address");
}

#[tokio::test]
async fn the_table_has_a_tag_and_is_packed_for_those_who_unpack() {
    let api = Api::new().await;
    let plain = api.get("/v1/table").await;
    assert_eq!((plain.status, plain.header("etag"), &*plain.body), (200, "W/\"7-0\"", &b"table at 7-0"[..]));
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), ("", "accept-encoding"));
    for (accepted, packed) in [
        ("gzip", true),
        ("br, GZIP;q=0.5", true),
        ("gzip;q=0", false),
        ("gzip; q=0.0, br", false),
        ("br", false),
        ("", false),
    ] {
        let answer = api.send(Method::GET, "/v1/table", &[("accept-encoding", accepted)], "").await;
        let unpacked =
            if answer.header("content-encoding") == "gzip" { gunzip(&answer.body) } else { answer.body.to_vec() };
        assert_eq!(
            (answer.header("content-encoding") == "gzip", &*unpacked),
            (packed, &b"table at 7-0"[..]),
            "{accepted}"
        );
    }
    for (tag, status) in
        [("\"7-0\"", 304), ("W/\"7-0\"", 304), ("\"6-9\", \"7-0\"", 304), ("*", 304), ("\"7-1\"", 200), ("7-0", 200)]
    {
        let answer = api.send(Method::GET, "/v1/table", &[("if-none-match", tag)], "").await;
        assert_eq!((answer.status, answer.header("etag")), (status, "W/\"7-0\""), "{tag}");
    }
}

#[tokio::test]
async fn a_table_is_encoded_once_while_changes_reach_back_to_it() {
    let api = Api::new().await;
    let tag = async || api.get("/v1/table").await.header("etag").to_owned();
    assert_eq!(tag().await, "W/\"7-0\"");
    api.shared.oracle.change(3);
    assert_eq!(tag().await, "W/\"7-0\"", "it is seconds old, and the changes after it are there");
    api.shared.oracle.forget();
    assert_eq!(tag().await, "W/\"7-3\"");
    assert_eq!(*api.shared.oracle.encoded.lock().unwrap(), 2);
}

#[tokio::test]
async fn a_table_that_is_not_for_others_is_not_handed_out() {
    let api = Api::new().await;
    api.shared.oracle.published.store(false, Relaxed);
    for route in ["/v1/table", "/v1/table/changes?epoch=7&after=0", "/v1/table/changes?epoch=6&after=1&wait_ms=60000"] {
        let refused = api.get(route).await;
        refused.check_problem(503, "keep the table you have");
        assert_eq!(refused.header("retry-after"), "1", "{route}");
    }
    assert_eq!(api.get("/v1/resolve/192.0.2.1").await.status, 200);
    api.shared.oracle.published.store(true, Relaxed);
    assert_eq!(api.get("/v1/table").await.status, 200);
}

#[tokio::test]
async fn a_table_is_encoded_once_also_for_callers_who_give_up() {
    let api = Api::new().await;
    let Shared { oracle, publisher, .. } = &*api.shared;
    oracle.busy.store(true, Relaxed);
    for _ in 0..3 {
        assert!(tokio::time::timeout(Duration::ZERO, publisher.table(oracle)).await.is_err());
    }
    oracle.busy.store(false, Relaxed);
    assert_eq!(publisher.table(oracle).await.unwrap().position, oracle.position());
    assert_eq!(*oracle.encoded.lock().unwrap(), 1);
}

#[tokio::test]
async fn an_audit_is_made_once_for_all_who_ask_within_seconds() {
    let api = Api::new().await;
    for _ in 0..3 {
        api.check("/v1/audit", 200, &json!("audit")).await;
    }
    assert_eq!(api.shared.oracle.audited.load(Relaxed), 1);
}

#[tokio::test]
async fn many_addresses_have_their_room_until_the_answer_is_sent() {
    let api = Api::new().await;
    let ask = || resolve_many(State(Arc::clone(&api.shared)), Body::from(r#"{"addresses": ["192.0.2.1"]}"#));
    let free = || api.shared.resolving.available_permits();
    let mut answers = Vec::new();
    for taken in 0..RESOLVING_MAX {
        assert_eq!(free(), RESOLVING_MAX - taken);
        answers.push(ask().await.unwrap());
    }
    assert!(tokio::time::timeout(Duration::ZERO, ask()).await.is_err(), "it waits");
    let body = axum::body::to_bytes(answers.pop().unwrap().into_body(), BODY_BYTES_MAX).await.unwrap();
    assert!(body.starts_with(b"{\"answers\":[{"));
    assert_eq!(free(), 0);
    drop(body);
    assert!(ask().await.is_ok());
    drop(answers);
    assert!(resolve_many(State(Arc::clone(&api.shared)), Body::from("{}")).await.is_err());
    assert_eq!(free(), RESOLVING_MAX);
}

#[tokio::test]
async fn changes_are_those_after_a_position() {
    let api = Api::new().await;
    api.shared.oracle.change(3);
    let answer = api.get("/v1/table/changes?epoch=7&after=1").await;
    let changes: Changes = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((changes.epoch, changes.sequence, changes.changes.len()), (7, 3, 2));
    assert_eq!(api.get("/v1/table/changes?epoch=7&after=2").await.json()["changes"].as_array().unwrap().len(), 1);
    api.shared.oracle.change(4);
    assert_eq!(api.get("/v1/table/changes?epoch=7&after=2").await.json()["sequence"], 4);
    api.shared.oracle.change(3);
    let none = api.get("/v1/table/changes?epoch=7&after=3").await;
    assert_eq!(none.json(), json!({"epoch": 7, "sequence": 3, "changes": []}));
    let gone = "is not known here: take the whole table, GET /v1/table";
    api.get("/v1/table/changes?epoch=6&after=1").await.check_problem(410, gone);
    api.get("/v1/table/changes?epoch=7&after=4").await.check_problem(410, gone);
    for query in ["", "?epoch=7", "?after=7", "?epoch=7&after=x", "?epoch=7&after=1&more=1", "?epoch=7&after=-1"] {
        api.get(&format!("/v1/table/changes{query}")).await.check_problem(400, "the parameters are epoch=E, after=N");
    }
}

#[tokio::test]
async fn a_question_waits_for_a_change() {
    let api = Api::new().await;
    // Nothing comes: the answer is that there is nothing, before the call's deadline.
    let none = api.get("/v1/table/changes?epoch=7&after=0&wait_ms=1").await;
    assert_eq!(none.json(), json!({"epoch": 7, "sequence": 0, "changes": []}));
    let waiting = tokio::spawn(api.question("/v1/table/changes?epoch=7&after=0&wait_ms=60000"));
    while api.shared.oracle.moved.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    api.shared.oracle.change(1);
    let answer = waiting.await.unwrap();
    assert_eq!((answer.status, answer.json()["sequence"].clone()), (200, json!(1)));
    // A rebuild: the position that was asked for is of another life.
    let waiting = tokio::spawn(api.question("/v1/table/changes?epoch=7&after=1&wait_ms=60000"));
    while api.shared.oracle.moved.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    api.shared.oracle.forget();
    assert_eq!(waiting.await.unwrap().status, 410);
    // The server ends, and does not wait for those who wait.
    let waiting = tokio::spawn(api.question("/v1/table/changes?epoch=7&after=3&wait_ms=60000"));
    while api.shared.oracle.moved.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    api.shared.drain.start();
    assert_eq!(waiting.await.unwrap().json(), json!({"epoch": 7, "sequence": 3, "changes": []}));
}

/// A table of changes that are all alike.
#[derive(Debug)]
struct Fake {
    /// The first sequence whose changes are known, and the last.
    known: Mutex<(u64, u64)>,
    moved: watch::Sender<Position>,
    encoded: Mutex<u32>,
    published: AtomicBool,
    /// Encoding does not end.
    busy: AtomicBool,
    audited: AtomicU32,
}

impl Fake {
    fn change(&self, sequence: u64) {
        self.known.lock().unwrap().1 = sequence;
        self.moved.send_replace(self.position());
    }

    /// What changed up to now is known no more, and something changed.
    fn forget(&self) {
        let mut known = self.known.lock().unwrap();
        *known = (known.1.max(3), known.1.max(3));
        drop(known);
        self.moved.send_replace(self.position());
    }
}

impl Oracle for Fake {
    fn resolve(&self, client: IpAddr) -> Resolved {
        Resolved { address: client, regions: vec![RegionId(4), RegionId(5)], evidence: "default".to_owned() }
    }

    fn explain(&self, client: IpAddr) -> answer::Answer {
        answer::Answer::good(format!("columns of {client}\n"), json!({ "explained": client }))
    }

    fn audit(&self) -> answer::Answer {
        self.audited.fetch_add(1, Relaxed);
        answer::Answer::good("columns\n".to_owned(), json!("audit"))
    }

    fn stats(&self) -> answer::Answer {
        answer::Answer::good("columns\n".to_owned(), json!("stats"))
    }

    fn is_published(&self) -> bool {
        self.published.load(Relaxed)
    }

    fn position(&self) -> Position {
        Position { epoch: 7, sequence: self.known.lock().unwrap().1 }
    }

    fn moved(&self) -> watch::Receiver<Position> {
        self.moved.subscribe()
    }

    fn changes(&self, after: Position, most: usize) -> Option<Changes> {
        let (_, last) = *self.known.lock().unwrap();
        let change = Change { prefix: "192.0.2.0/24".parse().unwrap(), leaf: None };
        let count = usize::try_from(last.saturating_sub(after.sequence)).unwrap();
        assert!(count <= most);
        self.reaches(after).then(|| Changes { epoch: 7, sequence: last, changes: vec![change; count] })
    }

    fn reaches(&self, after: Position) -> bool {
        let (first, last) = *self.known.lock().unwrap();
        after.epoch == 7 && (first..=last).contains(&after.sequence)
    }

    fn encode(&self) -> (Position, Vec<u8>) {
        *self.encoded.lock().unwrap() += 1;
        while self.busy.load(Relaxed) {
            std::thread::yield_now();
        }
        (self.position(), format!("table at {}", self.position()).into_bytes())
    }
}

/// The routes on a listener of their own.
struct Api {
    shared: Arc<Shared<Fake>>,
    listen: std::net::SocketAddr,
    http: reqwest::Client,
}

struct Got {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Api {
    async fn new() -> Self {
        let tokens = format!("[[token]]\ntoken = '{TOKEN}'\nrole = 'sun'\nregion = 4\nname = 'sun4-2-1'\n");
        let position = Position { epoch: 7, sequence: 0 };
        let (known, encoded, published) = (Mutex::new((0, 0)), Mutex::new(0), AtomicBool::new(true));
        let (moved, busy, audited) = (watch::Sender::new(position), AtomicBool::default(), AtomicU32::default());
        let oracle = Fake { known, moved, encoded, published, busy, audited };
        let calls = IntCounterVec::new(prometheus::Opts::new("calls", "Calls."), &["route", "status"]).unwrap();
        let shared = Arc::new(Shared {
            oracle: Arc::new(oracle),
            tokens: Tokens::parse(&tokens, "tokens.toml").unwrap(),
            resolving: Arc::new(Semaphore::new(RESOLVING_MAX)),
            publisher: Publisher::default(),
            calls,
            request: Duration::from_secs(120),
            drain: Drain::new(),
        });
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let listen = listener.local_addr().unwrap();
        let served = routes(Arc::clone(&shared));
        tokio::spawn(daemon::http::serve(listener, served, daemon::http::Limits::default(), std::future::pending()));
        Self { shared, listen, http: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    async fn get(&self, path: &str) -> Got {
        self.question(path).await
    }

    fn question(&self, path: &str) -> impl Future<Output = Got> + use<> {
        self.send(Method::GET, path, &[], "")
    }

    /// With the token, unless `headers` say otherwise.
    fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> impl Future<Output = Got> + use<> {
        let mut request = self.http.request(method, format!("http://{}{path}", self.listen));
        if headers.iter().all(|(name, _)| *name != "authorization") {
            request = request.header("authorization", format!("Bearer {TOKEN}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.to_owned());
        async move {
            let response = request.send().await.unwrap();
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Got { status, headers, body: response.bytes().await.unwrap() }
        }
    }

    async fn check(&self, path: &str, status: u16, expected: &serde_json::Value) {
        let answer = self.get(path).await;
        assert_eq!((answer.status, &answer.json()), (status, expected), "{path}");
    }
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    #[track_caller]
    fn check_problem(&self, status: u16, says: &str) {
        let problem: daemon::problem::Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!((self.status, problem.status), (status, status));
        assert!(problem.detail.contains(says), "{}", problem.detail);
    }
}

fn gunzip(packed: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed), &mut bytes).unwrap();
    bytes
}
