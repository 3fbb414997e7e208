//! The API's routes: who may call what, bodies in, bodies out.
//!
//! | call | sun, cache | backend | operator |
//! |---|---|---|---|
//! | `POST /v1/downloads`, `POST /v1/status` | as the server it is in the topology | | yes |
//! | `POST /v1/regions/{region}/caches/{cache}/wanted`, `.../holdings`, `.../fetches` | that cache | | yes |
//! | `GET /v1/regions/{region}/top`, `POST /v1/links`, `GET /v1/held` | | yes | yes |
//! | `GET /v1/purge/{sequence}/acknowledgements` | | yes | yes |
//! | `GET /v1/regions/{region}/hot`, `POST /v1/purge` | | | yes |
//! | `GET /v1/regions/{region}/servers` | yes | | yes |
//! | `GET /v1/purge` | yes; says that it goes by the entries up to `after` | | yes |
//! | `GET /v1/openapi.json` | anybody | | |
//! | `GET /v1/snapshot`, `/v1/snapshot/{offset}`, `/v1/binlog`, `/v1/state`, `/v1/state/holdings/{cache}` | | | yes |
//!
//! A token of the role replica is for those of the last line, and for `GET /v1/purge`. An API that is a copy itself answers
//! what is read and refuses the rest with 421.
//!
//! Authorisation comes before the body is read, as far as it does not depend on it. Every body may come packed
//! ([`encoding`]); its bounds hold for what it unpacks to as well.

mod following;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::rejection::QueryRejection;
use axum::extract::{MatchedPath, Path, Query, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use daemon::problem::Refusal;
use daemon::tokens::{Identity, Role};
use geo::RegionId;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;

use crate::api::Api;
use crate::encoding::{self, Encoding, Trouble};
use crate::wire::{DownloadsBatch, FetchNote, HoldingsReport, PurgeRequest, StatusReport, WantedRequest};

type Shared = State<Arc<Api>>;
type Answer = Result<Response, Refusal>;

/// All routes.
pub fn routes(api: Arc<Api>) -> Router {
    Router::new()
        .route("/v1/downloads", post(downloads))
        .route("/v1/status", post(status))
        .route("/v1/links", post(links))
        .route("/v1/held", get(held))
        .route("/v1/purge", get(purges).post(purge))
        .route("/v1/purge/{sequence}/acknowledgements", get(acknowledgements))
        .route("/v1/regions/{region}/top", get(top))
        .route("/v1/regions/{region}/hot", get(hot))
        .route("/v1/regions/{region}/servers", get(servers))
        .route("/v1/regions/{region}/caches/{cache}/wanted", post(wanted))
        .route("/v1/regions/{region}/caches/{cache}/holdings", post(holdings))
        .route("/v1/regions/{region}/caches/{cache}/fetches", post(fetches))
        .route("/v1/openapi.json", get(description))
        .route("/v1/snapshot", get(following::copies))
        .route("/v1/snapshot/{offset}", get(following::snapshot))
        .route("/v1/binlog", get(following::binlog))
        .route("/v1/state", get(following::state))
        .route("/v1/state/holdings/{cache}", get(following::holdings))
        .layer(middleware::from_fn_with_state(Arc::clone(&api), following::refuse_writes))
        .fallback(async || Refusal::missing("there is no such call; all begin with /v1/".to_owned()))
        .method_not_allowed_fallback(async |method: Method| {
            let detail = format!("{method}: the call exists, with another method: see Allow");
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, detail)
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&api), watch))
        .with_state(api)
}

async fn downloads(State(api): Shared, headers: HeaderMap, body: Body) -> Answer {
    let caller = identify(&api, &headers, &[Role::Sun, Role::Cache])?;
    let (batch, room): (DownloadsBatch, _) = parse(&api, &headers, body).await?;
    own_server(&api, &caller, "source", &batch.source)?;
    // It is committed also when the caller goes away, and slow commits are when callers do: the pressure and the history
    // must hear of it all the same.
    let ack = apart(async move {
        let _room = room;
        api.downloads(batch).await
    })
    .await?;
    Ok(Json(ack).into_response())
}

async fn status(State(api): Shared, headers: HeaderMap, body: Body) -> Answer {
    let caller = identify(&api, &headers, &[Role::Sun, Role::Cache])?;
    let (report, _room): (StatusReport, _) = parse(&api, &headers, body).await?;
    own_server(&api, &caller, "server", &report.server)?;
    // A server that has just started is told all that the caches of its region hold.
    let state = blocking(move || api.status(report)).await?;
    Ok(Json(state).into_response())
}

async fn links(State(api): Shared, headers: HeaderMap, body: Body) -> Answer {
    identify(&api, &headers, &[Role::Backend])?;
    let (body, _room) = collect(&api, &headers, body).await?;
    let links =
        if body.len() <= LINKS_AT_ONCE_BYTES { api.links(&body)? } else { blocking(move || api.links(&body)).await? };
    Ok(([(header::CONTENT_TYPE, "application/json")], links).into_response())
}

async fn held(State(api): Shared, headers: HeaderMap, query: Result<Query<HeldQuery>, QueryRejection>) -> Answer {
    identify(&api, &headers, &[Role::Backend])?;
    let Query(HeldQuery { file }) = query.map_err(|error| {
        let text = error.body_text();
        let what = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
        Refusal::bad(format!("the one parameter is file=NAME, percent-encoded: {what}"))
    })?;
    Ok(Json(api.holders(&file)?).into_response())
}

/// `file=NAME`, percent-encoded as queries are.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct HeldQuery {
    file: String,
}

async fn purge(State(api): Shared, headers: HeaderMap, body: Body) -> Answer {
    // Who takes something from everybody's screens is asked for more than a back end's token.
    identify(&api, &headers, &[])?;
    let (request, _room): (PurgeRequest, _) = parse(&api, &headers, body).await?;
    let ack = blocking(move || api.purge(request)).await?;
    Ok(Json(ack).into_response())
}

async fn purges(State(api): Shared, headers: HeaderMap, RawQuery(query): RawQuery) -> Answer {
    let caller = identify(&api, &headers, &[Role::Sun, Role::Cache, Role::Replica])?;
    let (after, wait) = position(query.as_deref())?;
    let follower = (caller.role != Role::Operator).then_some(caller.name.as_str());
    Ok(Json(api.purges(follower, after, wait).await?).into_response())
}

async fn acknowledgements(State(api): Shared, headers: HeaderMap, Path(sequence): Path<String>) -> Answer {
    identify(&api, &headers, &[Role::Backend])?;
    let sequence = sequence.parse().map_err(|_| Refusal::bad(format!("{sequence:?} is no sequence")))?;
    Ok(Json(api.acknowledgements(sequence)?).into_response())
}

async fn top(State(api): Shared, headers: HeaderMap, Path(path): Path<String>, RawQuery(query): RawQuery) -> Answer {
    identify(&api, &headers, &[Role::Backend])?;
    let (region, limit) = (region(&path)?, limit(query.as_deref())?);
    let turn = api.ranking().await?;
    let top = apart(async move {
        let _turn = turn;
        api.top(region, limit).await
    })
    .await?;
    Ok(Json(top).into_response())
}

async fn hot(State(api): Shared, headers: HeaderMap, Path(path): Path<String>, RawQuery(query): RawQuery) -> Answer {
    identify(&api, &headers, &[])?;
    let (region, limit) = (region(&path)?, limit(query.as_deref())?);
    Ok(Json(blocking(move || api.hot(region, limit)).await?).into_response())
}

async fn servers(State(api): Shared, headers: HeaderMap, Path(path): Path<String>) -> Answer {
    identify(&api, &headers, &[Role::Sun, Role::Cache])?;
    let region = region(&path)?;
    Ok(Json(blocking(move || api.servers(region)).await?).into_response())
}

async fn wanted(
    State(api): Shared,
    headers: HeaderMap,
    Path((path, cache)): Path<(String, String)>,
    body: Body,
) -> Answer {
    let caller = identify(&api, &headers, &[Role::Cache])?;
    let region = own_cache(&caller, &path, &cache)?;
    let (request, _room): (WantedRequest, _) = parse(&api, &headers, body).await?;
    let turn = api.ranking().await?;
    let wanted = apart(async move {
        let _turn = turn;
        api.wanted(region, cache, request).await
    })
    .await?;
    Ok(Json(wanted).into_response())
}

async fn holdings(
    State(api): Shared,
    headers: HeaderMap,
    Path((path, cache)): Path<(String, String)>,
    body: Body,
) -> Answer {
    let caller = identify(&api, &headers, &[Role::Cache])?;
    let region = own_cache(&caller, &path, &cache)?;
    let (report, _room): (HoldingsReport, _) = parse(&api, &headers, body).await?;
    // What is noted of it must not be torn apart when the caller goes away.
    let ack = apart(api.holdings(region, cache, report)).await?;
    Ok(Json(ack).into_response())
}

async fn description() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], crate::openapi::DOCUMENT).into_response()
}

async fn fetches(
    State(api): Shared,
    headers: HeaderMap,
    Path((path, cache)): Path<(String, String)>,
    body: Body,
) -> Answer {
    let caller = identify(&api, &headers, &[Role::Cache])?;
    let region = own_cache(&caller, &path, &cache)?;
    let (note, _room): (FetchNote, _) = parse(&api, &headers, body).await?;
    Ok(Json(api.note_fetch(region, &cache, &note)?).into_response())
}

/// Whose token the call carries; an operator's is good for every call.
fn identify(api: &Api, headers: &HeaderMap, roles: &[Role]) -> Result<Arc<Identity>, Refusal> {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let identity = api.tokens.admit(authorization)?;
    if identity.role == Role::Operator || roles.contains(&identity.role) {
        return Ok(identity);
    }
    Err(Refusal::new(StatusCode::FORBIDDEN, format!("a token of the role {:?} is not for this call", identity.role)))
}

/// A server speaks for itself alone.
fn itself(caller: &Identity, field: &str, name: &str) -> Result<(), Refusal> {
    if caller.role == Role::Operator || caller.name == name {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::FORBIDDEN, format!("{field}: {name:?}: the token is that of {}", caller.name)))
}

/// A server speaks as what it is: a token that has its name and another role or region is not its token. One that the
/// topology does not have yet is refused like one without the right (403): it keeps its batches and tries again, and
/// by then the newer topology may be here.
fn own_server(api: &Api, caller: &Identity, field: &str, name: &str) -> Result<(), Refusal> {
    itself(caller, field, name)?;
    let topology = api.topology();
    let role = if topology.cache(name).is_some() { Role::Cache } else { Role::Sun };
    let fits = |region: RegionId| caller.role == role && caller.region == Some(region.0);
    if caller.role == Role::Operator || topology.server(name).is_some_and(|server| fits(server.region)) {
        return Ok(());
    }
    let detail = format!(
        "{field}: {name:?}: the topology has no server of this name with the token's role ({:?}) and region",
        caller.role
    );
    Err(Refusal::new(StatusCode::FORBIDDEN, detail))
}

fn own_cache(caller: &Identity, path: &str, cache: &str) -> Result<RegionId, Refusal> {
    let region = region(path)?;
    if caller.role != Role::Operator && caller.region != Some(region.0) {
        return Err(Refusal::new(StatusCode::FORBIDDEN, format!("the token is not of region {region}")));
    }
    itself(caller, "cache", cache)?;
    Ok(region)
}

fn region(path: &str) -> Result<RegionId, Refusal> {
    path.parse().map(RegionId).map_err(|_| Refusal::bad(format!("{path:?} is no number of a region")))
}

/// `limit=N` and nothing else; 100 without it.
fn limit(query: Option<&str>) -> Result<usize, Refusal> {
    let Some(query) = query.filter(|query| !query.is_empty()) else {
        return Ok(100);
    };
    let limit = query.strip_prefix("limit=").and_then(|limit| limit.parse().ok());
    limit
        .filter(|limit| (1..=10_000).contains(limit))
        .ok_or_else(|| Refusal::bad(format!("{query:?}: the one parameter is limit=N, with N in 1..=10000")))
}

/// `after=SEQ` and perhaps `wait_ms=N`; 0 for what is not there.
fn position(query: Option<&str>) -> Result<(u64, Duration), Refusal> {
    let bad = |pair: &str| Refusal::bad(format!("{pair:?}: the parameters are after=SEQ and wait_ms=N, whole numbers"));
    let (mut after, mut wait_ms) = (0, 0);
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let value = |value: &str| value.parse::<u64>().map_err(|_| bad(pair));
        match pair.split_once('=') {
            Some(("after", text)) => after = value(text)?,
            Some(("wait_ms", text)) => wait_ms = value(text)?,
            _ => return Err(bad(pair)),
        }
    }
    Ok((after, Duration::from_millis(wait_ms)))
}

/// Reads a JSON body of bounded length, packed or not. What comes with it is the body's share of the RAM that all bodies
/// may take: keep it as long as the value.
async fn parse<T: DeserializeOwned + Send + 'static>(
    api: &Arc<Api>,
    headers: &HeaderMap,
    body: Body,
) -> Result<(T, OwnedSemaphorePermit), Refusal> {
    let (bytes, room) = collect(api, headers, body).await?;
    Ok((daemon::problem::from_json(&bytes)?, room))
}

/// Reads a body of bounded length, unpacked, with its share of the RAM that all bodies may take.
async fn collect(api: &Arc<Api>, headers: &HeaderMap, body: Body) -> Result<(Bytes, OwnedSemaphorePermit), Refusal> {
    let most = api.config.limits.body_bytes_max;
    let too_long = || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body is at most {most} bytes here"));
    let encoding = match Encoding::of(headers) {
        Ok(encoding) => encoding,
        Err(refusal) => {
            discard(body, most).await;
            return Err(refusal);
        }
    };
    let announced = body.size_hint().upper().map_or(most, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    if announced > most {
        discard(body, most.saturating_mul(2)).await;
        return Err(too_long());
    }
    let room = api.room(announced).await;
    let mut body = body;
    let bytes: Bytes = match Limited::new(&mut body, most).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            discard(body, most).await;
            return Err(too_long());
        }
        Err(error) => return Err(Refusal::bad(format!("the body broke off: {error}"))),
    };
    let Some(encoding) = encoding else { return Ok((bytes, room)) };
    let (api, unpacker) = (Arc::clone(api), api.unpacker().await);
    blocking(move || {
        let _unpacker = unpacker;
        let mut room = room;
        let unpacked = encoding.unpack(&bytes, most, |more| api.more_room(&mut room, more));
        let unpacked = unpacked.map_err(|trouble| refused(&trouble, most))?;
        Ok((unpacked.into(), room))
    })
    .await
}

fn refused(trouble: &Trouble, most: usize) -> Refusal {
    match trouble {
        Trouble::Bad(detail) => Refusal::bad(detail.clone()),
        Trouble::TooLong => {
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body is at most {most} bytes here, unpacked too"))
        }
        Trouble::NoRoom => {
            Refusal::busy("bodies take all the RAM that they may have; send this one again in a second".to_owned())
        }
    }
}

/// Reads `most` bytes and keeps none: who is refused while it still sends meets a reset connection, and the answer that
/// says why is lost. Who sends more than that has to live with it.
async fn discard(mut body: Body, most: usize) {
    let mut left = most;
    while let Some(Ok(frame)) = body.frame().await {
        let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
        left = rest;
    }
}

/// Runs what may take milliseconds off the runtime's own threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Refusal> + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(failed()))
}

/// Runs what goes on to its end when the caller has gone away before: turns that go along end with the work.
async fn apart<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::spawn(work).await.unwrap_or_else(|_| Err(failed()))
}

fn failed() -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the call failed inside; see the log")
}

/// Gives every call its deadline, has every refusal be a problem, and counts how the call ended and how long it took.
async fn watch(State(api): Shared, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let seconds = api.config.limits.request_s;
    let answered = tokio::time::timeout(Duration::from_secs(seconds), next.run(request)).await;
    let response = answered.unwrap_or_else(|_| {
        let detail = format!("not done within {seconds} s; send it again, smaller or later");
        Refusal::new(StatusCode::REQUEST_TIMEOUT, detail).into_response()
    });
    let mut response = as_problem(response).await;
    if response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static(encoding::ACCEPTED));
    }
    api.metrics.seconds.with_label_values(&[route.as_str()]).observe(began.elapsed().as_secs_f64());
    api.metrics.calls.with_label_values(&[route.as_str(), response.status().as_str()]).inc();
    response
}

/// What the framework refuses by itself (a path that is no UTF-8), said as everything else is refused.
async fn as_problem(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    if status.as_u16() < 400 || kind.is_some_and(|kind| kind == "application/problem+json") {
        return response;
    }
    let said = Limited::new(response.into_body(), PROBLEM_BYTES_MAX).collect().await;
    let said = said.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    Refusal::new(status, String::from_utf8_lossy(&said).into_owned()).into_response()
}

/// Bodies of calls for links that are answered on the runtime's own thread, which they keep for some 100 us.
const LINKS_AT_ONCE_BYTES: usize = 4096;
/// Longest text of the framework's own refusals, bytes.
const PROBLEM_BYTES_MAX: usize = 1024;
