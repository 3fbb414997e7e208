//! Sockets, workers and connections.
//!
//! ```text
//!   worker 1 (thread, one-thread runtime)      worker 2 ...
//!     accept loop for each address               the same addresses (SO_REUSEPORT: the kernel spreads)
//!        |
//!     TLS handshake, ALPN -- HTTP/1.1 or HTTP/2 -- serve::client
//!     plain ---------------------- HTTP/1.1 ------ serve::client
//!     internal address ----------- HTTP/1.1 ------ serve::server
//! ```
//!
//! Why a runtime a thread: a connection stays on the core that accepted it, and nothing steals its work. On
//! drain every worker stays until the connections of all workers have ended, because a response on one may
//! read a fill that runs on another.
//!
//! # When a new process has taken over
//!
//! A request that is on its way on a connection that is closed fails, and the client cannot know whether it was heard. HTTP/2
//! has a word for that (GOAWAY, RFC 9113, section 6.8). On HTTP/1.1 the next answer says `Connection: close`
//! (RFC 9112, section 9.6), and a connection on which nothing is asked for half the drain's time is closed then, as any
//! connection is that is idle for long. When nobody takes over, idle connections are closed at once.
//!
//! A server that the topology drains goes on, and says the same to clients with each answer: when their addresses have moved, new
//! connections are another server's, and kept ones would never end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use daemon::drain::Drain;
use daemon::sockets::Sockets;
use geo::Scheme;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulConnection;
use prometheus::IntGauge;
use rustls::HandshakeKind;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::config::Limits;
use crate::edge::Edge;
use crate::greeting::Greeting;
use crate::interim::{Interim, Passing};
use crate::selfcheck::config::ADDRESSES_MAX;
use crate::selfcheck::probe::LATE_QUESTIONS_MAX;
use crate::serve;
use crate::stall::Stall;

/// What a listener speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// TLS, to clients.
    Https,
    /// Plain, to clients.
    Http,
    /// Plain, to other servers.
    Internal,
}

/// Bound addresses, with as many sockets each as there are workers.
#[derive(Debug)]
pub struct Listeners {
    bound: Vec<(Kind, SocketAddr, Vec<std::net::TcpListener>)>,
}

impl Listeners {
    /// Takes over what was handed to this process of every address, and binds the others once a worker.
    ///
    /// # Errors
    ///
    /// Which address cannot be had, and why.
    pub fn bind(addresses: &[(Kind, SocketAddr)], workers: usize, handed: &Sockets) -> io::Result<Self> {
        let mut bound = Vec::new();
        for &(kind, address) in addresses {
            let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
            let inherited = handed.take(address);
            let sockets = if inherited.is_empty() { bind_all(address, workers) } else { Ok(inherited) };
            let mut sockets = sockets.map_err(named)?;
            sockets.iter().try_for_each(|socket| handed.keep(socket)).map_err(named)?;
            // Fewer than workers (another number of them before, or one of systemd): some share one.
            for at in 0..workers.saturating_sub(sockets.len()) {
                sockets.push(sockets[at].try_clone().map_err(named)?);
            }
            bound.push((kind, sockets[0].local_addr().map_err(named)?, sockets));
        }
        Ok(Self { bound })
    }

    /// The addresses of one kind, in the order given.
    #[must_use]
    pub fn addresses(&self, kind: Kind) -> Vec<SocketAddr> {
        self.bound.iter().filter(|(of, ..)| *of == kind).map(|(_, address, _)| *address).collect()
    }

    /// Takes the sockets of one worker out; `left` have not taken theirs, this one among them. More than one of an address
    /// where there were more workers before.
    fn take(&mut self, left: usize) -> Vec<(Kind, std::net::TcpListener)> {
        let mut taken = Vec::new();
        for (kind, _, sockets) in &mut self.bound {
            let stay = sockets.len() - sockets.len().div_ceil(left.max(1));
            taken.extend(sockets.split_off(stay).into_iter().map(|socket| (*kind, socket)));
        }
        taken
    }
}

fn bind_all(address: SocketAddr, workers: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let first = bind(address)?;
    // Port 0 is given once; the others share what was given.
    let address = first.local_addr()?;
    std::iter::once(Ok(first)).chain((1..workers).map(|_| bind(address))).collect()
}

fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What the workers of an edge share beside the edge.
#[derive(Clone)]
pub struct Shared {
    /// The edge.
    pub edge: Arc<Edge>,
    /// TLS settings; none without TLS listeners.
    pub tls: Option<TlsAcceptor>,
    /// Ends the accept loops.
    pub drain: Drain,
    /// Connections of all workers.
    pub connections: TaskTracker,
}

/// Starts the workers. Each holds the drain up until all connections have ended, `drain_s` at most.
///
/// # Errors
///
/// When a thread or its runtime cannot be made.
pub fn start(shared: &Shared, mut listeners: Listeners, workers: usize) -> io::Result<()> {
    for worker in 0..workers {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (shared, sockets) = (shared.clone(), listeners.take(workers - worker));
        let hold = shared.drain.tracker().token();
        std::thread::Builder::new().name(format!("worker-{worker}")).spawn(move || {
            runtime.block_on(work(&shared, sockets));
            runtime.shutdown_background();
            drop(hold);
        })?;
    }
    Ok(())
}

async fn work(shared: &Shared, sockets: Vec<(Kind, std::net::TcpListener)>) {
    let protocol = Arc::new(Protocols::new(&shared.edge.config.limits));
    for (kind, socket) in sockets {
        match TcpListener::from_std(socket) {
            Ok(listener) => drop(tokio::spawn(accept(shared.clone(), Arc::clone(&protocol), kind, listener))),
            Err(error) => tracing::error!(%error, "a listener cannot be used"),
        }
    }
    shared.drain.wait().await;
    shared.connections.close();
    let limit = Duration::from_secs(shared.edge.config.drain_s);
    if tokio::time::timeout(limit, shared.connections.wait()).await.is_err() {
        tracing::warn!(connections = shared.connections.len(), "connections are cut off: the drain took too long");
    }
}

async fn accept(shared: Shared, protocols: Arc<Protocols>, kind: Kind, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.drain.wait() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Who connects from one of this machine's own addresses has it on both ends.
                let own = peer.ip().is_loopback() || stream.local_addr().is_ok_and(|local| local.ip() == peer.ip());
                let Some(open) = Open::enter(&shared.edge, kind, own) else { continue };
                let connection = connection(shared.clone(), Arc::clone(&protocols), kind, stream, peer, open);
                drop(shared.connections.spawn(connection));
            }
            Err(error) => {
                // Out of descriptors, mostly: connections wait in the backlog meanwhile.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One open connection, counted. Those of servers have a bound of their own: a flood of clients must not keep the
/// region's other servers out; nor this machine's self-check, which would withdraw the sun for it.
struct Open(IntGauge);

impl Open {
    /// `own`: from this machine.
    fn enter(edge: &Edge, kind: Kind, own: bool) -> Option<Self> {
        let metrics = &edge.metrics;
        let gauge = match kind {
            Kind::Https | Kind::Http => &metrics.connections,
            Kind::Internal => &metrics.server_connections,
        };
        gauge.inc();
        let open = Self(gauge.clone());
        let within = admits(gauge.get(), edge.config.limits.connections_max, own);
        if !within {
            metrics.refused_connections.inc();
        }
        within.then_some(open)
    }
}

/// Whether one more may stay, which is counted in `open` already.
fn admits(open: i64, connections_max: usize, own: bool) -> bool {
    let reserved = if own { OWN_CONNECTIONS } else { 0 };
    usize::try_from(open).is_ok_and(|open| open <= connections_max.saturating_add(reserved))
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

async fn connection(
    shared: Shared,
    protocols: Arc<Protocols>,
    kind: Kind,
    stream: TcpStream,
    peer: SocketAddr,
    open: Open,
) {
    // A socket that is gone already fails on its first use just as well.
    let _ = stream.set_nodelay(true);
    let limits = &shared.edge.config.limits;
    let stream = Stall::new(stream, Duration::from_secs(limits.stall_s));
    match (kind, &shared.tls) {
        (Kind::Https, Some(tls)) => {
            let handshake = tokio::time::timeout(Duration::from_secs(limits.handshake_s), tls.accept(stream));
            match handshake.await {
                Ok(Ok(stream)) => {
                    let kind_of_handshake = stream.get_ref().1.handshake_kind();
                    shared.edge.metrics.handshake(kind_of_handshake == Some(HandshakeKind::Resumed));
                    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                        let stream = Greeting::new(stream, Duration::from_secs(limits.head_s));
                        drive(&shared, &protocols.http2, stream, kind, peer).await;
                    } else {
                        drive(&shared, &protocols.http1, stream, kind, peer).await;
                    }
                }
                Ok(Err(error)) => {
                    shared.edge.metrics.failed_handshakes.inc();
                    tracing::debug!(%peer, %error, "TLS handshake failed");
                }
                Err(_) => shared.edge.metrics.failed_handshakes.inc(),
            }
        }
        (Kind::Https, None) => {}
        (Kind::Http | Kind::Internal, _) => drive(&shared, &protocols.http1, stream, kind, peer).await,
    }
    drop(open);
}

async fn drive<S>(shared: &Shared, protocol: &auto::Builder<TokioExecutor>, stream: S, kind: Kind, peer: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let edge = &shared.edge;
    let interim = Interim::default();
    let stream = Passing::new(stream, interim.clone());
    // A clone of it takes a lock that all workers share.
    let drain = Arc::new(shared.drain.clone());
    let (led_away, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (leading, asking) = (Arc::clone(&led_away), Arc::clone(&asked));
    // Who comes back although this server is drained is led away again, but not after each answer.
    let (began, came_before) = (Instant::now(), !edge.leads_away.load(Ordering::Relaxed));
    let service = service_fn(move |request: Request<Incoming>| {
        asking.notify_one();
        let (edge, drain, leading) = (Arc::clone(edge), Arc::clone(&drain), Arc::clone(&leading));
        let interim = interim.clone();
        async move {
            let is_http2 = request.version() == http::Version::HTTP_2;
            let leads_away = edge.leads_away.load(Ordering::Relaxed)
                && kind != Kind::Internal
                && (came_before || began.elapsed() >= LED_AWAY_EVERY);
            let mut response = match kind {
                Kind::Internal => serve::server(edge, request).await,
                Kind::Https => serve::client(edge, peer.ip().to_canonical(), Scheme::Https, request, &interim).await,
                Kind::Http => serve::client(edge, peer.ip().to_canonical(), Scheme::Http, request, &interim).await,
            };
            if leads_away && is_http2 {
                leading.notify_one();
            }
            if (leads_away || drain.handed_over()) && !is_http2 {
                response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = protocol.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = until_closing(shared, protocol, began, &asked) => None,
        () = led_away.notified() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            GracefulConnection::graceful_shutdown(connection.as_mut());
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

/// Resolves when a connection is to end after what is under way on it. On one that `began` just now the first request is, though
/// nothing of it has come: hyper would close at once, and clients try again only on connections that have served them before.
async fn until_closing(shared: &Shared, protocol: &auto::Builder<TokioExecutor>, began: Instant, asked: &Notify) {
    shared.drain.wait().await;
    if shared.drain.handed_over() && protocol.is_http1_available() {
        tokio::time::sleep(Duration::from_secs(shared.edge.config.drain_s) / 2).await;
    }
    let _ = tokio::time::timeout(FIRST_REQUEST.saturating_sub(began.elapsed()), asked.notified()).await;
}

/// hyper's settings, made once a worker. There is none that finds out which of the two is spoken: hyper-util reads
/// the first bytes for that without a deadline, and clients that speak HTTP/2 without TLS hardly exist.
struct Protocols {
    http1: auto::Builder<TokioExecutor>,
    http2: auto::Builder<TokioExecutor>,
}

impl Protocols {
    fn new(limits: &Limits) -> Self {
        let builder = builder(limits);
        Self { http1: builder.clone().http1_only(), http2: builder.http2_only() }
    }
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(limits.head_s))
        .max_buf_size(limits.head_bytes_max.max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(limits.head_s))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

/// Connections that wait to be accepted, per socket; the kernel's own limit (net.core.somaxconn) counts too.
const BACKLOG: i32 = 4096;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A connection that is younger is not closed for a drain before its first request: some round trips of a slow client.
const FIRST_REQUEST: Duration = Duration::from_secs(2);
/// A connection that a client makes to a drained server is kept so long before the client is led away once more.
const LED_AWAY_EVERY: Duration = Duration::from_secs(10);

/// Connections from this machine itself beyond `limits.connections_max`: those of a self-check that asks all addresses it may
/// have, an own one of each family, and listens to the late questions before.
const OWN_CONNECTIONS: usize = (ADDRESSES_MAX + 2) * (1 + LATE_QUESTIONS_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_connections_leaves_some_for_this_machine() {
        assert_eq!([999, 1000, 1001].map(|open| admits(open, 1000, false)), [true, true, false]);
        assert_eq!([1001, 1198, 1199].map(|open| admits(open, 1000, true)), [true, true, false]);
    }
}
