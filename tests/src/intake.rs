//! A content server that takes uploads: it counts what comes, checks every byte, and remembers how each body ended.
//!
//! | path contains | it answers |
//! |---|---|
//! | `/refuse` | 401 at once; the body is read and dropped |
//! | `/held` | nothing and takes nothing, until its gate opens; then as below |
//! | `/resumable` | 201 and `Location` to `POST`, `Upload-Offset: 5` to `HEAD`, 204 to `PATCH` |
//! | anything else | `GET`: the number of changes so far, fresh for an hour; other methods: 201 after the whole body, a change |

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::origin::Gate;

/// See the module's doc. It runs on the test's own runtime, and ends when it is dropped.
#[derive(Debug)]
pub struct Intake {
    state: Arc<Mutex<State>>,
    /// Holds what is sent to `/held`.
    pub gate: Gate,
    serving: JoinHandle<()>,
}

/// One request and what became of its body.
#[derive(Clone, Debug)]
pub struct Taken {
    /// `PUT`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// All headers.
    pub headers: HeaderMap,
    /// Bytes of the body so far, all of them as [`byte`] says.
    pub bytes: u64,
    /// How the body ended; nothing while it comes.
    pub end: Option<End>,
}

/// How a body ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// As it should.
    Whole,
    /// In the middle.
    Broken,
    /// A byte was not the one that belongs there.
    Wrong,
}

#[derive(Debug, Default)]
struct State {
    taken: Vec<Taken>,
    changes: usize,
}

/// Which byte belongs at a position of every upload.
#[must_use]
pub const fn byte(position: u64) -> u8 {
    (position % PERIOD) as u8
}

/// The upload's bytes from `start` on.
#[must_use]
pub fn bytes(start: u64, length: usize) -> Vec<u8> {
    (start..).take(length).map(byte).collect()
}

/// A prime, so that no two pieces of a power of two are alike.
const PERIOD: u64 = 251;

impl Intake {
    /// Starts to listen.
    ///
    /// # Panics
    ///
    /// When the address is taken.
    pub async fn start(address: SocketAddr) -> Self {
        // Who had the address before may still be on its way out.
        let (listener, _) =
            crate::poll::until(&format!("{address} to listen on"), || async { TcpListener::bind(address).await.ok() })
                .await;
        let (state, gate) = (Arc::default(), Gate::closed());
        let serving = tokio::spawn(serve(listener, Arc::clone(&state), gate.clone()));
        Self { state, gate, serving }
    }

    /// Everything so far, in order of arrival.
    #[must_use]
    pub fn taken(&self) -> Vec<Taken> {
        lock(&self.state).taken.clone()
    }

    /// The one request whose target contains this.
    ///
    /// # Panics
    ///
    /// When there is none, or more than one.
    #[must_use]
    #[track_caller]
    pub fn only(&self, part: &str) -> Taken {
        let mut found: Vec<Taken> = self.taken().into_iter().filter(|taken| taken.target.contains(part)).collect();
        assert_eq!(found.len(), 1, "{part}: {found:?}");
        found.remove(0)
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no holder panics")
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>, gate: Gate) {
    while let Ok((stream, _)) = listener.accept().await {
        let (state, gate) = (Arc::clone(&state), gate.clone());
        tokio::spawn(async move {
            let answer = service_fn(|request| {
                let (state, gate) = (Arc::clone(&state), gate.clone());
                async move { Ok::<_, Infallible>(answer(request, state, gate).await) }
            });
            // A peer that goes away is its own business.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

async fn answer(request: Request<Incoming>, state: Arc<Mutex<State>>, gate: Gate) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let index = {
        let mut state = lock(&state);
        let (method, target) = (head.method.to_string(), head.uri.to_string());
        state.taken.push(Taken { method, target, headers: head.headers, bytes: 0, end: None });
        state.taken.len() - 1
    };
    let path = head.uri.path().to_owned();
    if path.contains("/refuse") {
        tokio::spawn(take(body, state, index));
        return respond(401, "");
    }
    if path.contains("/held") {
        gate.pass().await;
    }
    take(body, Arc::clone(&state), index).await;
    if path.contains("/resumable") {
        return resumable(&head.method, &path);
    }
    if head.method == Method::GET {
        let changes = lock(&state).changes.to_string();
        let mut response = respond(200, &changes);
        response.headers_mut().insert("cache-control", "max-age=3600".parse().expect("a value"));
        return response;
    }
    lock(&state).changes += 1;
    respond(201, "taken")
}

fn resumable(method: &Method, path: &str) -> Response<Full<Bytes>> {
    let (status, name, value) = match *method {
        Method::POST => (201, "location", format!("{path}/1")),
        Method::HEAD => (200, "upload-offset", "5".to_owned()),
        _ => (204, "upload-offset", "10".to_owned()),
    };
    let mut response = respond(status, "");
    response.headers_mut().insert(name, value.parse().expect("a value"));
    response.headers_mut().insert("tus-resumable", "1.0.0".parse().expect("a value"));
    response.headers_mut().insert("set-cookie", "session=1".parse().expect("a value"));
    response
}

fn respond(status: u16, body: &str) -> Response<Full<Bytes>> {
    let body = Full::new(Bytes::from(body.to_owned()));
    Response::builder().status(status).body(body).expect("a response")
}

/// Reads a body to its end.
async fn take(mut body: Incoming, state: Arc<Mutex<State>>, index: usize) {
    let mut position = 0;
    let end = loop {
        let Some(frame) = body.frame().await else { break End::Whole };
        let Ok(frame) = frame else { break End::Broken };
        let Ok(data) = frame.into_data() else { continue };
        let right = (position..).zip(&data).all(|(position, &found)| byte(position) == found);
        position += data.len() as u64;
        lock(&state).taken[index].bytes = position;
        if !right {
            break End::Wrong;
        }
    };
    lock(&state).taken[index].end = Some(end);
}
