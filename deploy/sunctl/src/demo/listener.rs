//! A small HTTP/1.1 server on loopback, for the demo's content server and its gallery.
//!
//! ```text
//!   accept --(at most CONNECTIONS_MAX)--> connection task --> answer(request, peer) -> response
//!      |                                        |
//!    drain: stops                             drain: finishes its request, then closes
//! ```
//!
//! Not an edge: it speaks to this machine alone, has no TLS and no limits of its own per client.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use daemon::drain::Drain;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::body::Body;

/// Serves `answer` until the drain; returns the bound address (port 0 asks for a free one).
///
/// # Errors
///
/// When the address cannot be bound.
pub async fn serve<A, F>(listen: SocketAddr, drain: &Drain, answer: A) -> io::Result<SocketAddr>
where
    A: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind(listen).await?;
    let bound = listener.local_addr()?;
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let accepting = drain.clone();
    drain.spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = accepting.wait() => return,
                accepted = accept(&listener, &permits) => accepted,
            };
            let Some((stream, peer, permit)) = accepted else { continue };
            let (drain, answer) = (accepting.clone(), answer.clone());
            accepting.spawn(async move {
                converse(stream, peer, &drain, answer).await;
                drop(permit);
            });
        }
    });
    Ok(bound)
}

/// The next connection, or nothing after an error that may pass (no file descriptors left).
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(_) => {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn converse<A, F>(stream: TcpStream, peer: SocketAddr, drain: &Drain, answer: A)
where
    A: Fn(Request<Incoming>, SocketAddr) -> F,
    F: Future<Output = Response<Body>>,
{
    // Without it a response's last piece waits for the peer's acknowledgement; failing is no harm.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let response = answer(request, peer);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // A broken connection is the peer's affair, at this server there is nobody to tell.
    let finished = tokio::select! {
        _ = connection.as_mut() => true,
        () = drain.wait() => false,
    };
    if !finished {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

/// Open connections; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;
/// A request's head must arrive within.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest request head, bytes; also what is buffered of a response.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
