//! Many visitors who ask for a small file again and again, in three ways, and for whom every failure counts.
//!
//! | kind | what it does |
//! |---|---|
//! | keep-alive | HTTP/1.1 over TLS, one connection for as long as the server keeps it |
//! | HTTP/2 | the same by HTTP/2 |
//! | new | a new connection with a TLS handshake for each request |
//!
//! What is no failure: a connection that the server has announced to end, by `Connection: close` or GOAWAY, and a request that
//! was not sent because it had ended. What is one: a connection that is refused or broken off, an answer that is not the
//! whole file, a request that was sent and not answered.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::certificates::Authority;

/// What is asked for, and where.
#[derive(Clone, Debug)]
pub struct Target {
    /// The listener.
    pub address: std::net::SocketAddr,
    /// The host, for TLS and HTTP.
    pub host: String,
    /// `/c1/a.jpg`.
    pub path: String,
    /// Its bytes.
    pub size: usize,
    /// Between two requests of a visitor.
    pub pause: Duration,
}

/// How a visitor connects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// HTTP/1.1, kept open.
    KeepAlive,
    /// HTTP/2, kept open.
    Http2,
    /// HTTP/1.1, a connection a request.
    New,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::KeepAlive, Self::Http2, Self::New];

    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive",
            Self::Http2 => "HTTP/2",
            Self::New => "new",
        }
    }
}

/// What became of their requests.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests that were answered whole.
    pub answered: [AtomicU64; 3],
    /// Connections that were made.
    pub connections: [AtomicU64; 3],
    /// Requests or connections that failed.
    pub failed: AtomicU64,
    /// The longest request, with its connection where it needed one, microseconds.
    pub longest_us: AtomicU64,
    failures: Mutex<BTreeMap<String, u64>>,
}

impl Tally {
    /// Requests that were answered, of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.answered.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// What failed and how often, for people.
    ///
    /// # Panics
    ///
    /// When a visitor panicked.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let failures = self.failures.lock().expect("no visitor panics");
        failures.iter().map(|(what, count)| format!("{what} ({count} times)")).collect()
    }

    fn failed(&self, kind: Kind, error: &anyhow::Error) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut failures = self.failures.lock().expect("no visitor panics");
        let what = format!("{}: {error:#}", kind.name());
        if failures.len() < FAILURES_TOLD || failures.contains_key(&what) {
            *failures.entry(what).or_default() += 1;
        }
    }
}

/// Visitors at work, until [`Visitors::end`].
#[derive(Debug)]
pub struct Visitors {
    /// What they see.
    pub tally: Arc<Tally>,
    end: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Visitors {
    /// Starts so many of each kind of [`Kind::ALL`].
    #[must_use]
    pub fn start(authority: &Authority, target: &Target, counts: [usize; 3]) -> Self {
        let (tally, end, mut tasks) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)), JoinSet::new());
        let tls = Kind::ALL.map(|kind| {
            let alpn: &[u8] = if kind == Kind::Http2 { b"h2" } else { b"http/1.1" };
            TlsConnector::from(authority.client(&[alpn]))
        });
        for ((kind, count), tls) in Kind::ALL.into_iter().zip(counts).zip(tls) {
            for _ in 0..count {
                let visitor = Visitor { kind, tls: tls.clone(), target: target.clone(), tally: Arc::clone(&tally) };
                tasks.spawn(visitor.run(Arc::clone(&end)));
            }
        }
        Self { tally, end, tasks }
    }

    /// Has them finish their requests.
    ///
    /// # Panics
    ///
    /// When one of them panicked.
    pub async fn end(mut self) -> Arc<Tally> {
        self.end.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no visitor panics");
        }
        self.tally
    }
}

struct Visitor {
    kind: Kind,
    tls: TlsConnector,
    target: Target,
    tally: Arc<Tally>,
}

enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Visitor {
    async fn run(self, end: Arc<AtomicBool>) {
        let mut kept = None;
        while !end.load(Ordering::Relaxed) {
            let began = Instant::now();
            match tokio::time::timeout(REQUEST_LIMIT, self.visit(&mut kept)).await {
                Ok(Ok(())) => {
                    self.tally.answered[self.kind as usize].fetch_add(1, Ordering::Relaxed);
                    let us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                    self.tally.longest_us.fetch_max(us, Ordering::Relaxed);
                }
                Ok(Err(error)) => {
                    kept = None;
                    self.tally.failed(self.kind, &error);
                }
                Err(_) => {
                    kept = None;
                    self.tally.failed(self.kind, &anyhow::anyhow!("no answer within {} s", REQUEST_LIMIT.as_secs()));
                }
            }
            tokio::time::sleep(self.target.pause).await;
        }
    }

    /// One request, on the connection that is kept if there is one.
    async fn visit(&self, kept: &mut Option<Sender>) -> anyhow::Result<()> {
        loop {
            let mut sender = match kept.take() {
                Some(sender) => sender,
                None => self.connect().await?,
            };
            let Some(response) = sender.send(self.request()?).await? else { continue };
            let closes = response.headers().get("connection").is_some_and(|value| value == "close");
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            anyhow::ensure!(status == 200 && body.len() == self.target.size, "{status}, {} bytes", body.len());
            *kept = Some(sender).filter(|_| !closes && self.kind != Kind::New);
            return Ok(());
        }
    }

    async fn connect(&self) -> anyhow::Result<Sender> {
        let stream = TcpStream::connect(self.target.address).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(ServerName::try_from(self.target.host.clone())?, stream).await?;
        self.tally.connections[self.kind as usize].fetch_add(1, Ordering::Relaxed);
        if self.kind == Kind::Http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            return Ok(Sender::Http2(sender));
        }
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Sender::Http1(sender))
    }

    fn request(&self) -> anyhow::Result<Request<Empty<Bytes>>> {
        let request = match self.kind {
            Kind::Http2 => Request::get(format!("https://{}{}", self.target.host, self.target.path)),
            Kind::KeepAlive | Kind::New => Request::get(&self.target.path).header("host", &self.target.host),
        };
        Ok(request.body(Empty::new())?)
    }
}

impl Sender {
    /// Nothing: the connection had ended, and the request was not sent.
    async fn send(&mut self, request: Request<Empty<Bytes>>) -> anyhow::Result<Option<Response<Incoming>>> {
        let sent = match self {
            Self::Http1(sender) => match sender.ready().await {
                // The server closed it while nothing was asked for.
                Err(_) => return Ok(None),
                Ok(()) => sender.try_send_request(request).await,
            },
            Self::Http2(sender) => match sender.ready().await {
                Err(_) => return Ok(None),
                Ok(()) => sender.try_send_request(request).await,
            },
        };
        match sent {
            Ok(response) => Ok(Some(response)),
            Err(mut failed) => {
                let unsent = failed.take_message().is_some();
                let error = failed.into_error();
                if unsent || went_away(&error) { Ok(None) } else { Err(error.into()) }
            }
        }
    }
}

/// GOAWAY came before the request was sent: a request that it does not count among those that are answered is not
/// processed, and may be sent again (RFC 9113, section 6.8). Others are answered still.
fn went_away(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    cause.starts_with("connection error received: not a result of an error")
}

/// Kinds of failures that are kept to be shown.
const FAILURES_TOLD: usize = 10;

/// A visitor that waits longer gives up.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
