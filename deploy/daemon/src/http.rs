//! Serving axum's routes to other programs: HTTP/1.1, with a bound on everything a caller could use up.
//!
//! ```text
//!   accept --[connections_max]--> head --[head]--> body and handler --[request]--> answer --+
//!               waits in the        closed           408, closed                            |
//!               kernel's queue        ^--------------------- the next request --------------+
//! ```
//!
//! For the admin port and the services between servers. Clients of media are served by the edge, which has its own.
//!
//! Why not `axum::serve`: it has no deadline for a request's head and no bound on connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::problem::Refusal;

/// Bounds on callers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Open connections; more wait in the kernel's queue until one closes.
    pub connections_max: usize,
    /// From the first byte waited for to the whole head of a request; also how long an idle connection is kept.
    pub head: Duration,
    /// From the head to the answer's head; the caller gets 408 afterwards. Also how long a caller may take nothing of its
    /// answer; then its connection is closed.
    pub request: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections_max: 256, head: Duration::from_secs(60), request: Duration::from_secs(30) }
    }
}

/// Serves until `end` resolves and the requests that are then under way are answered.
pub async fn serve(listener: TcpListener, routes: axum::Router, limits: Limits, end: impl Future<Output = ()>) {
    let routes = routes.layer(middleware::from_fn(move |request, next| deadline(request, next, limits.request)));
    let service = TowerToHyperService::new(routes);
    let permits = Arc::new(Semaphore::new(limits.connections_max));
    let (ending, connections) = (CancellationToken::new(), TaskTracker::new());
    tokio::pin!(end);
    loop {
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            () = &mut end => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = converse(stream, service.clone(), limits, ending.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Descriptors may have run out; accepting again at once would only spin.
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    ending.cancel();
    connections.close();
    connections.wait().await;
}

async fn converse(
    stream: TcpStream,
    service: TowerToHyperService<axum::Router>,
    limits: Limits,
    ending: CancellationToken,
) {
    // Answers are small and waited for.
    drop(stream.set_nodelay(true));
    // The kernel sees what is taken of an answer, also of the part that hyper is done with (RFC 5482).
    let untaken_ms = u32::try_from(limits.request.as_millis()).unwrap_or(u32::MAX);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, untaken_ms);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(HEAD_BYTES_MAX);
    let (began, asked) = (Instant::now(), Notify::new());
    let service = service_fn(|request| {
        asked.notify_one();
        service.call(request)
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // hyper closes at once where nothing came yet, and a caller tries again only on a connection that has served it before.
    let closing = async {
        ending.cancelled().await;
        let _ = tokio::time::timeout(FIRST_REQUEST.saturating_sub(began.elapsed()), asked.notified()).await;
    };
    let result = tokio::select! {
        result = &mut connection => result,
        () = closing => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a caller's connection ended");
    }
}

async fn deadline(request: Request, next: Next, limit: Duration) -> Response {
    tokio::time::timeout(limit, next.run(request)).await.unwrap_or_else(|_| {
        ([("connection", "close")], Refusal::new(StatusCode::REQUEST_TIMEOUT, "not done in time")).into_response()
    })
}

/// Head of a request and what is read of its body at a time, bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A connection that is younger is not closed at the end before its first request.
const FIRST_REQUEST: Duration = Duration::from_secs(2);

/// Pause after an accept that failed.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn requests_are_answered_one_after_another_on_a_connection() {
        let (server, _end) = start(Limits::default()).await;
        let request = "GET /fast HTTP/1.1\r\nhost: a\r\n\r\n";
        let closing = "GET /fast HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let answer = converse(server, &format!("{request}{request}{closing}")).await;
        assert_eq!(answer.matches("200 OK").count(), 3, "{answer}");
    }

    #[tokio::test]
    async fn a_caller_that_stalls_is_let_go() {
        let brief = Duration::from_millis(50);
        let (server, _end) = start(Limits { head: brief, request: brief, ..Limits::default() }).await;
        check(server, "", "").await;
        check(server, "GET /fast HTTP/1.1\r\nhost: a\r\n", "").await;
        check(server, "GET /never HTTP/1.1\r\nhost: a\r\n\r\n", "408").await;
        check(server, "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf", "408").await;
        check(server, &format!("GET /fast HTTP/1.1\r\nhost: {}\r\n\r\n", "a".repeat(4 * HEAD_BYTES_MAX)), "431").await;
    }

    #[tokio::test]
    async fn a_caller_that_takes_nothing_of_its_answer_is_let_go() {
        let brief = Duration::from_millis(50);
        let (server, _end) = start(Limits { connections_max: 1, request: brief, ..Limits::default() }).await;
        let mut stalls = connect(server).await;
        stalls.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let closing = "GET /fast HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        assert!(converse(server, closing).await.contains("200 OK"));
        drop(stalls);
    }

    #[tokio::test]
    async fn no_more_connections_than_allowed_are_served_at_once() {
        let (server, _end) = start(Limits { connections_max: 2, ..Limits::default() }).await;
        let request = "GET /count HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let callers: Vec<_> = (0..20).map(|_| tokio::spawn(converse(server, request))).collect();
        for caller in callers {
            let answer = caller.await.unwrap();
            let most: usize = answer.rsplit("\r\n\r\n").next().unwrap().parse().unwrap();
            assert!((1..=2).contains(&most), "{most} at once");
        }
    }

    #[tokio::test]
    async fn the_end_lets_what_is_under_way_finish() {
        let (server, end) = start(Limits::default()).await;
        let (mut idle, mut new, mut busy) = (connect(server).await, connect(server).await, connect(server).await);
        idle.write_all(b"GET /fast HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut fast = Vec::new();
        while !fast.ends_with(b"\r\n\r\nfast") {
            assert_ne!(idle.read_buf(&mut fast).await.unwrap(), 0);
        }
        busy.write_all(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nha").await.unwrap();
        // The handler is at work when it has counted itself.
        while converse(server, "GET /begun HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.ends_with("\n0") {}
        end.cancel();
        assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0, "an idle connection is closed");
        new.write_all(b"GET /fast HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        new.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("\r\n\r\nfast"), "the first request is answered: {answer}");
        busy.write_all(b"lf").await.unwrap();
        let mut answer = String::new();
        busy.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("\r\n\r\nhalf"), "{answer}");
    }

    async fn start(limits: Limits) -> (SocketAddr, CancellationToken) {
        let at_once = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let begun = Arc::new(AtomicUsize::new(0));
        let echo = {
            let begun = Arc::clone(&begun);
            async move |request: Request| {
                begun.fetch_add(1, Ordering::SeqCst);
                axum::body::to_bytes(request.into_body(), 100).await.unwrap_or_default()
            }
        };
        let count = async move || {
            most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            at_once.fetch_sub(1, Ordering::SeqCst);
            most.load(Ordering::SeqCst).to_string()
        };
        let routes = axum::Router::new()
            .route("/fast", get(async || "fast"))
            .route("/large", get(async || vec![0_u8; 64 << 20]))
            .route("/never", get(std::future::pending::<()>))
            .route("/count", get(count))
            .route("/echo", post(echo))
            .route("/begun", get(async move || begun.load(Ordering::SeqCst).to_string()));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let server = listener.local_addr().unwrap();
        let end = CancellationToken::new();
        let ended = end.clone();
        tokio::spawn(async move { serve(listener, routes, limits, ended.cancelled()).await });
        (server, end)
    }

    async fn check(server: SocketAddr, request: &str, expected: &str) {
        let answer = converse(server, request).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert_eq!(status, expected, "{request:.40}: {answer}");
    }

    /// Sends a request and reads until the server closes.
    async fn converse(server: SocketAddr, request: impl AsRef<str>) -> String {
        let mut connection = connect(server).await;
        connection.write_all(request.as_ref().as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is as good a close as any.
        drop(connection.read_to_end(&mut answer).await);
        String::from_utf8(answer).unwrap()
    }

    async fn connect(server: SocketAddr) -> TcpStream {
        TcpStream::connect(server).await.unwrap()
    }
}
