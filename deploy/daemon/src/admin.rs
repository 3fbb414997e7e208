//! The private admin port: `/metrics` (Prometheus text), `/healthz` (200 while the process works),
//! `/readyz` (200 when ready; when not, or draining, 503 with a line `not ready: ...` for each reason; a line `note: ...`
//! for each thing that is wrong and keeps nobody from being served).
//!
//! It outlives the listeners: while the daemon drains it still tells Prometheus how far that is, and stops
//! when the last tracked task has ended, or as soon as a new process has taken over. It is never bound where clients are.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus::{Encoder, Registry, TextEncoder};

use crate::drain::Drain;
use crate::http;

/// Conditions that must hold before the daemon is ready; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    waiting: Arc<Mutex<Vec<String>>>,
    /// What each is about, and the note.
    notes: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Readiness {
    /// Declares a condition that does not hold yet, so that it reads well behind "not ready: ".
    pub fn expect(&self, condition: &str) {
        self.change(|waiting| {
            if !waiting.iter().any(|known| known == condition) {
                waiting.push(condition.to_owned());
            }
        });
    }

    /// The condition holds now.
    pub fn hold(&self, condition: &str) {
        self.change(|waiting| waiting.retain(|known| known != condition));
    }

    /// Conditions that do not hold, in the order in which they were declared.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.change(|waiting| waiting.clone())
    }

    /// Notes what an operator has to know of something while the daemon is ready all the same, a line that reads well behind
    /// "note: "; none: there is nothing to know of it any more.
    pub fn note(&self, about: &'static str, note: Option<String>) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        match note {
            Some(note) => drop(notes.insert(about, note)),
            None => drop(notes.remove(about)),
        }
    }

    /// The notes, in the order of what they are about.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn change<T>(&self, with: impl FnOnce(&mut Vec<String>) -> T) -> T {
        // A list of names is whole after every step, also when a thread panicked between two of them.
        with(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Serves the admin port until the drain has ended (it still answers while draining, `/readyz` with 503).
/// `more` is merged in: a daemon's own admin routes. Returns the bound address (port 0 asks for a free one).
///
/// # Errors
///
/// When the address cannot be bound.
pub async fn serve(
    listen: SocketAddr,
    registry: Registry,
    readiness: Readiness,
    drain: &Drain,
    more: axum::Router,
) -> std::io::Result<SocketAddr> {
    let listener = drain.sockets().listener(listen).and_then(tokio::net::TcpListener::from_std);
    let listener =
        listener.map_err(|error| std::io::Error::new(error.kind(), format!("admin port {listen}: {error}")))?;
    let bound = listener.local_addr()?;
    // Refused only when this registry has the process's figures already.
    drop(registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self())));
    let routes = routes(Shared { registry, readiness, drain: drain.clone() }).merge(more);
    let drain = drain.clone();
    let ended = async move {
        drain.wait().await;
        // The port is the new process's, which answers for the daemon from now on.
        if !drain.handed_over() {
            drain.tracker().wait().await;
        }
    };
    // Not tracked: it waits for the tracker to be empty.
    tokio::spawn(http::serve(listener, routes, http::Limits::default(), ended));
    Ok(bound)
}

#[derive(Clone)]
struct Shared {
    registry: Registry,
    readiness: Readiness,
    drain: Drain,
}

fn routes(shared: Shared) -> axum::Router {
    axum::Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(shared)
}

async fn metrics(State(shared): State<Shared>) -> axum::response::Response {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&shared.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}\n")).into_response(),
    }
}

async fn ready(State(shared): State<Shared>) -> (StatusCode, String) {
    let mut reasons = shared.readiness.missing();
    if shared.drain.started() {
        reasons.insert(0, "draining".to_owned());
    }
    let notes: String = shared.readiness.notes().iter().map(|note| format!("note: {note}\n")).collect();
    if reasons.is_empty() {
        return (StatusCode::OK, format!("ready\n{notes}"));
    }
    let lines: String = reasons.iter().map(|reason| format!("not ready: {reason}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines + &notes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn ready_means_that_every_condition_holds() {
        let readiness = Readiness::default();
        readiness.expect("topology");
        readiness.expect("tokens");
        readiness.expect("topology");
        let admin = start(readiness.clone(), &Drain::new()).await;
        check(admin, "/readyz", "503 not ready: topology\nnot ready: tokens\n").await;
        readiness.hold("topology");
        check(admin, "/readyz", "503 not ready: tokens\n").await;
        readiness.hold("tokens");
        readiness.hold("never declared");
        check(admin, "/readyz", "200 ready\n").await;
        check(admin, "/healthz", "200 ok\n").await;
    }

    #[tokio::test]
    async fn what_is_wrong_and_stops_nobody_is_noted_beside_ready() {
        let readiness = Readiness::default();
        let admin = start(readiness.clone(), &Drain::new()).await;
        readiness.note("topology", Some("it is refused".to_owned()));
        check(admin, "/readyz", "200 ready\nnote: it is refused\n").await;
        readiness.expect("tokens");
        check(admin, "/readyz", "503 not ready: tokens\nnote: it is refused\n").await;
        readiness.hold("tokens");
        readiness.note("topology", None);
        check(admin, "/readyz", "200 ready\n").await;
    }

    #[tokio::test]
    async fn metrics_are_those_of_the_registry_and_the_process() {
        let admin = start(Readiness::default(), &Drain::new()).await;
        let answer = ask(admin, "/metrics").await.unwrap();
        assert!(
            answer.contains("# HELP suns_counted How many.\n# TYPE suns_counted counter\nsuns_counted 3\n"),
            "{answer}"
        );
        assert!(answer.contains("process_resident_memory_bytes"), "{answer}");
        check(admin, "/more", "200 more\n").await;
        check(admin, "/none", "404 ").await;
    }

    #[tokio::test]
    async fn it_answers_while_the_daemon_drains_and_then_stops() {
        let drain = Drain::new();
        let admin = start(Readiness::default(), &drain).await;
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        drain.spawn(async move { drop(released.await) });
        drain.start();
        check(admin, "/readyz", "503 not ready: draining\n").await;
        check(admin, "/healthz", "200 ok\n").await;
        release.send(()).unwrap();
        assert!(drain.finished(Duration::from_secs(60)).await);
        while ask(admin, "/healthz").await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_taken_address_is_named() {
        let admin = start(Readiness::default(), &Drain::new()).await;
        let again = serve(admin, Registry::new(), Readiness::default(), &Drain::new(), axum::Router::new()).await;
        let error = again.unwrap_err().to_string();
        assert!(error.starts_with(&format!("admin port {admin}: ")), "{error}");
    }

    async fn start(readiness: Readiness, drain: &Drain) -> SocketAddr {
        let registry = Registry::new();
        let counter = prometheus::IntCounter::new("suns_counted", "How many.").unwrap();
        registry.register(Box::new(counter.clone())).unwrap();
        counter.inc_by(3);
        let more = axum::Router::new().route("/more", get(async || "more\n"));
        serve(([127, 0, 0, 1], 0).into(), registry, readiness, drain, more).await.unwrap()
    }

    async fn check(admin: SocketAddr, path: &str, expected: &str) {
        let answer = ask(admin, path).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap();
        assert_eq!(format!("{status} {body}"), expected, "{path}");
    }

    async fn ask(admin: SocketAddr, path: &str) -> std::io::Result<String> {
        let mut connection = tokio::net::TcpStream::connect(admin).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}
