//! A content server that does as a test says, path by path, and remembers who asked for what.
//!
//! ```text
//!   Script::file(100_000).dying_at(40_000)          "/cs1/a.jpg"
//!   Script::file(100_000).held_at(1_000, &gate)     "/cs1/b.jpg"     --> Origin --> requests(), fetches(path)
//!   (nothing said)                                  everything else: 404, remembered as well
//! ```
//!
//! It runs on a thread of its own, so that a busy test does not slow it, and so that [`Origin::stop`] closes
//! every connection before it returns: a content server that is down.

mod answer;
mod script;
mod secured;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::pattern::Pattern;

pub use script::{Gate, Script};
pub use secured::Secured;

/// A scripted content server.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    running: Mutex<Option<Running>>,
}

/// What ends a content server, and its thread.
type Running = (oneshot::Sender<()>, JoinHandle<()>);

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `GET`.
    pub method: String,
    /// The request target, `/cs1/a.jpg`, with its query.
    pub target: String,
    /// All headers.
    pub headers: HeaderMap,
}

#[derive(Debug, Default)]
struct State {
    scripts: HashMap<String, Script>,
    seen: Vec<Seen>,
}

impl Origin {
    /// Starts to listen.
    ///
    /// # Panics
    ///
    /// When the address is taken.
    #[must_use]
    pub fn start(address: SocketAddr) -> Self {
        let origin = Self { address, state: Arc::default(), running: Mutex::default() };
        origin.resume();
        origin
    }

    /// Says what a path does from now on; running responses go on as they began.
    pub fn put(&self, path: &str, script: Script) {
        self.state().scripts.insert(path.to_owned(), script);
    }

    /// The bytes that a path sends.
    ///
    /// # Panics
    ///
    /// When nothing was put there.
    #[must_use]
    pub fn pattern(&self, path: &str) -> Pattern {
        Pattern::of(path, self.state().scripts.get(path).expect("a path that was put").version)
    }

    /// Everything that was asked for, in order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// What was asked of one path.
    #[must_use]
    pub fn requests_for(&self, path: &str) -> Vec<Seen> {
        self.state().seen.iter().filter(|seen| seen.target == path).cloned().collect()
    }

    /// How often a path's body was asked for (`GET`s).
    #[must_use]
    pub fn fetches(&self, path: &str) -> usize {
        self.state().seen.iter().filter(|seen| seen.target == path && seen.method == "GET").count()
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Goes down: no new connections, and every open one is closed at once.
    ///
    /// # Panics
    ///
    /// Never: no holder of the lock panics.
    pub fn stop(&self) {
        if let Some((stop, thread)) = self.running.lock().expect("no holder panics").take() {
            let _ = stop.send(());
            let _ = thread.join();
        }
    }

    /// Comes back where it was, with the same scripts.
    ///
    /// # Panics
    ///
    /// When the address is taken.
    pub fn resume(&self) {
        let mut running = self.running.lock().expect("no holder panics");
        if running.is_some() {
            return;
        }
        let (stop, stopped) = oneshot::channel();
        let (bound, is_bound) = std::sync::mpsc::channel();
        let (address, state) = (self.address, Arc::clone(&self.state));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = listen(address);
                let _ = bound.send(listener.as_ref().map_err(ToString::to_string).map(|_| ()));
                let Ok(listener) = listener else { return };
                tokio::select! {
                    () = serve(listener, state) => {}
                    _ = stopped => {}
                }
            });
        });
        is_bound
            .recv()
            .expect("the thread answers")
            .unwrap_or_else(|error| panic!("the content server cannot listen on {address}: {error}"));
        *running = Some((stop, thread));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A long backlog: a thousand clients that miss at once are no reason for a refused connection.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(4096)
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    // Dropped with this future, which closes every connection.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let answer = service_fn(|request| {
                let scripted = note(&state, &request);
                async move {
                    if let Some(gate) = scripted.as_ref().and_then(|scripted| scripted.head_gate.as_ref()) {
                        gate.pass().await;
                    }
                    Ok::<_, Infallible>(answer::to(&request, scripted))
                }
            });
            // A peer that goes away is its own business.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Remembers the request and finds what to do.
fn note(state: &Mutex<State>, request: &Request<Incoming>) -> Option<answer::Scripted> {
    let mut state = state.lock().expect("no holder panics");
    state.seen.push(Seen {
        method: request.method().to_string(),
        target: request.uri().to_string(),
        headers: request.headers().clone(),
    });
    let path = request.uri().path();
    let script = state.scripts.get_mut(path)?;
    let dies_at = script.take_death();
    let head_gate = script.take_head_gate();
    Some(answer::Scripted { head_gate, pattern: Pattern::of(path, script.version), dies_at, script: script.clone() })
}

#[cfg(test)]
mod tests;
