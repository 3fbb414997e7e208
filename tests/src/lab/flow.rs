//! Clients whose requests flow the whole time, each of them written down: when, to which address, who answered, or why not.
//!
//! | stream | what it is | what it is for |
//! |---|---|---|
//! | even | a new connection a request, all addresses in turn | who carries how much |
//! | aimed | the same, to the addresses of one sun | how long these are not answered |
//! | kept | connections that are kept, a request each 100 ms | what becomes of those that are open |
//!
//! Nothing is asked twice: a request that fails has failed. Requests begin by the clock, whether or not others are answered, so
//! that an outage is not seen as fewer questions.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::network::Machine;
use crate::certificates::Authority;

/// An address that is asked.
#[derive(Clone, Debug)]
pub struct Target {
    /// With port.
    pub address: SocketAddr,
    /// The sun that owns it, which certificate and session are looked for under.
    pub host: String,
}

/// What kind of request it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stream {
    /// All addresses in turn.
    Even,
    /// Addresses of one sun.
    Aimed,
    /// On a connection that is kept.
    Kept,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Visit {
    /// Its kind.
    pub stream: Stream,
    /// Index of the target.
    pub target: usize,
    /// When it began, since the flow began.
    pub began: Duration,
    /// When it ended.
    pub ended: Duration,
    /// The sun that answered, and whether a TLS session was resumed for it; or what failed.
    pub outcome: Result<(String, bool), String>,
}

/// Clients at work.
#[derive(Debug)]
pub struct Flow {
    began: Instant,
    visits: Arc<Mutex<Vec<Visit>>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flow {
    /// Has clients on a machine ask for `path` (of `bytes`) until [`Flow::end`]; `aimed` are indices of targets.
    #[must_use]
    pub fn start(
        machine: &Machine,
        authority: &Authority,
        targets: Vec<Target>,
        aimed: Vec<usize>,
        path: &str,
        bytes: usize,
    ) -> Self {
        let (began, visits, end) = (Instant::now(), Arc::<Mutex<Vec<Visit>>>::default(), Arc::<AtomicBool>::default());
        let clients = Arc::new(Clients {
            began,
            visits: Arc::clone(&visits),
            tls: TlsConnector::from(authority.client(&[b"http/1.1"])),
            targets,
            path: path.to_owned(),
            bytes,
        });
        let (machine, ends) = (machine.clone(), Arc::clone(&end));
        let thread = std::thread::spawn(move || {
            machine.enter();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(run(clients, aimed, ends));
        });
        Self { began, visits, end, thread: Some(thread) }
    }

    /// Time since the beginning.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Requests that ended so far.
    ///
    /// # Panics
    ///
    /// When a client panicked.
    #[must_use]
    pub fn visits(&self) -> Vec<Visit> {
        self.visits.lock().expect("no client panics").clone()
    }

    /// Ends it, when what was begun has ended; all visits.
    ///
    /// # Panics
    ///
    /// When a client panicked.
    #[must_use]
    pub fn end(mut self) -> Vec<Visit> {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no client panics");
        }
        self.visits()
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

struct Clients {
    began: Instant,
    visits: Arc<Mutex<Vec<Visit>>>,
    tls: TlsConnector,
    targets: Vec<Target>,
    path: String,
    bytes: usize,
}

async fn run(clients: Arc<Clients>, aimed: Vec<usize>, end: Arc<AtomicBool>) {
    let mut tasks = JoinSet::new();
    for target in 0..clients.targets.len() {
        tasks.spawn(Arc::clone(&clients).keep(target, Arc::clone(&end)));
    }
    let mut clock = tokio::time::interval(EVERY);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for turn in 0.. {
        clock.tick().await;
        if end.load(Ordering::Relaxed) {
            break;
        }
        let even = turn % 2 == 0 || aimed.is_empty();
        let (stream, target) = if even {
            (Stream::Even, turn / 2 % clients.targets.len())
        } else {
            (Stream::Aimed, aimed[turn / 2 % aimed.len()])
        };
        tasks.spawn(Arc::clone(&clients).visit_once(stream, target));
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
}

impl Clients {
    /// A new connection, one request.
    async fn visit_once(self: Arc<Self>, stream: Stream, target: usize) {
        let began = self.began.elapsed();
        let visit = async {
            let (mut sender, resumed) = self.connect(target).await?;
            Ok((self.ask(&mut sender, target, true).await?, resumed))
        };
        let outcome = limited(visit).await;
        self.note(stream, target, began, outcome);
    }

    /// Requests on one connection, until it breaks; then on another one.
    async fn keep(self: Arc<Self>, target: usize, end: Arc<AtomicBool>) {
        let mut kept: Option<(SendRequest<Empty<Bytes>>, bool)> = None;
        while !end.load(Ordering::Relaxed) {
            tokio::time::sleep(KEPT_EVERY).await;
            let began = self.began.elapsed();
            let visit = async {
                // One that the server closed while nothing was asked for is no failure.
                let open = kept.take().filter(|(sender, _)| !sender.is_closed());
                let (mut sender, resumed) = match open {
                    Some(open) => open,
                    None => self.connect(target).await?,
                };
                let answered = self.ask(&mut sender, target, false).await?;
                kept = Some((sender, resumed));
                Ok((answered, resumed))
            };
            let outcome = limited(visit).await;
            if outcome.is_err() {
                kept = None;
            }
            self.note(Stream::Kept, target, began, outcome);
        }
    }

    async fn connect(&self, target: usize) -> anyhow::Result<(SendRequest<Empty<Bytes>>, bool)> {
        let Target { address, host } = &self.targets[target];
        let stream = TcpStream::connect(address).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(ServerName::try_from(host.clone())?, stream).await.context("TLS")?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok((sender, resumed))
    }

    /// The name of the sun that answered with the whole file.
    async fn ask(&self, sender: &mut SendRequest<Empty<Bytes>>, target: usize, last: bool) -> anyhow::Result<String> {
        let host = &self.targets[target].host;
        let mut request = hyper::Request::get(&self.path).header("host", host);
        if last {
            request = request.header("connection", "close");
        }
        sender.ready().await.context("the connection broke")?;
        let response = sender.send_request(request.body(Empty::new())?).await.context("the request")?;
        let status = response.status();
        let by = response.headers().get_all("cache-status").iter().next_back();
        let by = by.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let body = response.into_body().collect().await.context("the body")?.to_bytes();
        ensure!(status == 200 && body.len() == self.bytes, "{status}, {} bytes", body.len());
        // The sun nearest to the client is the last entry (RFC 9211, section 2).
        let last = by.rsplit(", ").next().unwrap_or_default();
        Ok(last.split(';').next().unwrap_or_default().trim().to_owned())
    }

    fn note(&self, stream: Stream, target: usize, began: Duration, outcome: Result<(String, bool), String>) {
        let visit = Visit { stream, target, began, ended: self.began.elapsed(), outcome };
        self.visits.lock().expect("no client panics").push(visit);
    }
}

async fn limited(visit: impl Future<Output = anyhow::Result<(String, bool)>>) -> Result<(String, bool), String> {
    match tokio::time::timeout(LIMIT, visit).await {
        Ok(Ok(answered)) => Ok(answered),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}

/// Between two new connections of all clients: half of them even, half aimed.
pub const EVERY: Duration = Duration::from_millis(8);

/// Between two requests on a connection that is kept.
const KEPT_EVERY: Duration = Duration::from_millis(100);

/// A request that is not answered by then has failed. A connection request that was lost is repeated after a second.
pub const LIMIT: Duration = Duration::from_secs(4);
