//! The server's routes: bodies in, bodies out. Every call needs a token; one of any role will do, since none changes
//! anything and who serves whom is no secret among the fleet.
//!
//! See [`crate::wire`] for the calls. Refusals are problem details (RFC 9457).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Path, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use daemon::drain::Drain;
use daemon::problem::Refusal;
use daemon::tokens::Tokens;
use prometheus::IntCounterVec;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Oracle;
use super::publish::{Published, Publisher};
use crate::answer;
use crate::wire::{ADDRESSES_MAX, Position, ResolveAnswer, ResolveRequest};

/// What the routes stand on.
#[derive(Debug)]
pub(super) struct Shared<O> {
    /// Who knows.
    pub(super) oracle: Arc<O>,
    /// Who may call.
    pub(super) tokens: Tokens,
    /// RAM for bodies and answers of many addresses: [`RESOLVING_MAX`] permits.
    pub(super) resolving: Arc<Semaphore>,
    /// The table for all.
    pub(super) publisher: Publisher,
    /// Calls, by route and status.
    pub(super) calls: IntCounterVec,
    /// Deadline of one call.
    pub(super) request: Duration,
    /// Ends waiting calls.
    pub(super) drain: Drain,
}

type Answer = Result<Response, Refusal>;

/// All routes.
pub(super) fn routes<O: Oracle>(shared: Arc<Shared<O>>) -> Router {
    Router::new()
        .route("/v1/resolve/{address}", get(resolve::<O>))
        .route("/v1/resolve", axum::routing::post(resolve_many::<O>))
        .route("/v1/explain/{address}", get(explain::<O>))
        .route("/v1/audit", get(audit::<O>))
        .route("/v1/stats", get(stats::<O>))
        .route("/v1/table", get(table::<O>))
        .route("/v1/table/changes", get(changes::<O>))
        .fallback(async || Refusal::missing("there is no such call; all begin with /v1/".to_owned()))
        .method_not_allowed_fallback(async |method: Method| {
            let detail = format!("{method}: the call exists, with another method: see Allow");
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, detail)
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), watch::<O>))
        .with_state(shared)
}

async fn resolve<O: Oracle>(State(shared): State<Arc<Shared<O>>>, Path(path): Path<String>) -> Answer {
    Ok(Json(shared.oracle.resolve(address(&path)?)).into_response())
}

async fn resolve_many<O: Oracle>(State(shared): State<Arc<Shared<O>>>, body: Body) -> Answer {
    let permit = Arc::clone(&shared.resolving).acquire_owned().await.expect("the semaphore is never closed");
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| {
        let detail = format!("a body is at most {BODY_BYTES_MAX} bytes here, and has to arrive whole");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    })?;
    let ResolveRequest { addresses } = daemon::problem::from_json(&body)?;
    if addresses.len() > ADDRESSES_MAX {
        let count = addresses.len();
        return Err(Refusal::bad(format!("addresses: {count} of them: ask for at most {ADDRESSES_MAX} at a time")));
    }
    let oracle = Arc::clone(&shared.oracle);
    let resolve = move || {
        let answers = addresses.into_iter().map(|client| oracle.resolve(client)).collect();
        serde_json::to_vec(&ResolveAnswer { answers }).unwrap_or_default()
    };
    let body = blocking(resolve).await?;
    Ok(json(Bytes::from_owner(Answered { body, _permit: permit })))
}

/// An answer, and its room for as long as it is not sent.
struct Answered {
    body: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Answered {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

async fn explain<O: Oracle>(
    State(shared): State<Arc<Shared<O>>>,
    headers: HeaderMap,
    Path(path): Path<String>,
) -> Answer {
    let client = address(&path)?;
    Ok(told(&headers, &blocking(move || shared.oracle.explain(client)).await?))
}

async fn audit<O: Oracle>(State(shared): State<Arc<Shared<O>>>, headers: HeaderMap) -> Answer {
    let audited = shared.publisher.audit(&shared.oracle).await.map_err(failed)?;
    Ok(told(&headers, &audited.answer))
}

async fn stats<O: Oracle>(State(shared): State<Arc<Shared<O>>>, headers: HeaderMap) -> Answer {
    Ok(told(&headers, &blocking(move || shared.oracle.stats()).await?))
}

/// JSON, or columns for those who ask for `text/plain`.
fn told(headers: &HeaderMap, answer: &answer::Answer) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accepted.starts_with("text/plain") {
        answer.text.clone().into_response()
    } else {
        Json(&answer.json).into_response()
    }
}

async fn table<O: Oracle>(State(shared): State<Arc<Shared<O>>>, headers: HeaderMap) -> Answer {
    published(&*shared.oracle)?;
    let now = shared.oracle.position();
    if has(&headers, now) {
        return Ok(unchanged(now));
    }
    let published = shared.publisher.table(&shared.oracle).await.map_err(failed)?;
    if has(&headers, published.position) {
        return Ok(unchanged(published.position));
    }
    Ok(whole(&published, accepts_gzip(&headers)))
}

async fn changes<O: Oracle>(State(shared): State<Arc<Shared<O>>>, RawQuery(query): RawQuery) -> Answer {
    let (after, wait) = position(query.as_deref())?;
    published(&*shared.oracle)?;
    let gone = || {
        let detail = format!("what changed after {after} is not known here: take the whole table, GET /v1/table");
        Refusal::new(StatusCode::GONE, detail)
    };
    let mut moved = shared.oracle.moved();
    let ask = async || {
        let shared = Arc::clone(&shared);
        blocking(move || shared.publisher.changes(&*shared.oracle, after)).await?.ok_or_else(gone)
    };
    let answer = ask().await?;
    if answer.moved || wait.is_zero() {
        return Ok(json(answer.body));
    }
    let wait = wait.min(shared.request / 2).min(WAIT_MAX);
    // However the wait ends, what there is now is the answer.
    tokio::select! {
        _ = tokio::time::timeout(wait, moved.wait_for(|now| *now != after)) => {}
        () = shared.drain.wait() => {}
    }
    Ok(json(ask().await?.body))
}

fn failed(why: String) -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, why)
}

/// Refuses while there is no table for others: who has one keeps it.
fn published<O: Oracle>(oracle: &O) -> Result<(), Refusal> {
    let waits = "no table was saved, and the routers have not told theirs yet: keep the table you have, and ask again";
    if oracle.is_published() { Ok(()) } else { Err(Refusal::unavailable(waits.to_owned())) }
}

fn json(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

/// The table in the form that the caller reads.
fn whole(published: &Published, gzip: bool) -> Response {
    let body: Bytes = if gzip { published.gzip.clone() } else { published.plain.clone() };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ETAG, tag(published.position));
    // What has the tag has two forms (RFC 9110, section 12.5.5).
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn unchanged(position: Position) -> Response {
    (StatusCode::NOT_MODIFIED, [(header::ETAG, tag(position))]).into_response()
}

/// Weak, since the packed form has the same tag (RFC 9110, section 8.8.3.3).
fn tag(position: Position) -> HeaderValue {
    HeaderValue::try_from(format!("W/\"{position}\"")).expect("digits and a dash")
}

/// Whether `If-None-Match` names the position; tags are compared weakly (RFC 9110, section 13.1.2).
fn has(headers: &HeaderMap, position: Position) -> bool {
    let fields = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    fields.flat_map(|field| field.split(',')).any(|known| {
        let known = known.trim();
        let known = known.strip_prefix("W/").unwrap_or(known);
        known == "*" || known == format!("\"{position}\"")
    })
}

/// Whether gzip is among the accepted codings with a weight above 0 (RFC 9110, section 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let fields = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    fields.flat_map(|field| field.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
        let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.trim().parse::<f32>().ok());
        name.trim().eq_ignore_ascii_case("gzip") && weight.is_none_or(|weight| weight > 0.0)
    })
}

fn address(path: &str) -> Result<IpAddr, Refusal> {
    path.parse().map_err(|_| Refusal::bad(format!("{path:?} is no address: give 192.0.2.1 or 2001:db8::1")))
}

/// `epoch=E&after=N` and perhaps `wait_ms=W`.
fn position(query: Option<&str>) -> Result<(Position, Duration), Refusal> {
    let bad = |what: &str| {
        Refusal::bad(format!(
            "{what:?}: the parameters are epoch=E, after=N and wait_ms=W, whole numbers; E and N are the table's tag"
        ))
    };
    let query = query.unwrap_or_default();
    let (mut epoch, mut after, mut wait_ms) = (None, None, 0);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let value = |value: &str| value.parse::<u64>().map_err(|_| bad(pair));
        match pair.split_once('=') {
            Some(("epoch", text)) => epoch = Some(value(text)?),
            Some(("after", text)) => after = Some(value(text)?),
            Some(("wait_ms", text)) => wait_ms = value(text)?,
            _ => return Err(bad(pair)),
        }
    }
    let (Some(epoch), Some(sequence)) = (epoch, after) else { return Err(bad(query)) };
    Ok((Position { epoch, sequence }, Duration::from_millis(wait_ms)))
}

/// Runs what may take milliseconds off the runtime's own threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    let inside = |_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the call failed inside; see the log");
    tokio::task::spawn_blocking(work).await.map_err(inside)
}

/// Asks every call for its token, gives it its deadline and counts how it ended.
async fn watch<O: Oracle>(State(shared): State<Arc<Shared<O>>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let response = match shared.tokens.admit(authorization) {
        Err(refusal) => refusal.into_response(),
        Ok(_) => tokio::time::timeout(shared.request, next.run(request)).await.unwrap_or_else(|_| {
            let detail = format!("not done within {} s; send it again, smaller or later", shared.request.as_secs());
            Refusal::new(StatusCode::REQUEST_TIMEOUT, detail).into_response()
        }),
    };
    shared.calls.with_label_values(&[route.as_str(), response.status().as_str()]).inc();
    response
}

/// Body of one call, bytes: [`ADDRESSES_MAX`] addresses of the longest form are half of it.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Bodies of many addresses that are read and answered at the same time; others wait for as long as a call may take. Each
/// takes some 4 MB at most, with its answer. Fewer: large questions wait for slow callers.
pub(super) const RESOLVING_MAX: usize = 32;

/// Longest wait for a change. Longer: a connection that is dead without a sign is noticed later.
const WAIT_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
