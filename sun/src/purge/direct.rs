//! `/v1/purge` on the internal listener: purges that an operator brings while the API is away.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `GET /v1/purge` | | 200 and how far this server goes by purges |
//! | `POST /v1/purge` | a `DirectPurge` | 200 and the same; 409 and the same when its number is not above the last |
//!
//! Only an operator's token is good for either: a sun that is taken over must not empty the others.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use daemon::tokens::Role;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use popularity_api::wire::{DirectPurge, PurgeMark};

use super::Refused;
use crate::body::ResponseBody;
use crate::edge::Edge;
use crate::headers;
use crate::request::Refusal;

/// Path of the calls; no file's name.
pub const PATH: &str = "/v1/purge";

/// Answers a call.
pub async fn answer(edge: Arc<Edge>, request: Request<Incoming>) -> Response<ResponseBody> {
    let authorization = headers::text(request.headers(), &header::AUTHORIZATION);
    let refuse = |status, why: String| edge.signature.refuse(&Refusal::new(status, why), false);
    match edge.tokens.identify(authorization).map(|identity| identity.role) {
        Some(Role::Operator) => {}
        Some(_) => return refuse(StatusCode::FORBIDDEN, "only an operator purges directly".to_owned()),
        None => return refuse(StatusCode::UNAUTHORIZED, "an operator presents a token here".to_owned()),
    }
    match *request.method() {
        Method::GET => say(StatusCode::OK, edge.purges.mark().into()),
        Method::POST => match read(request.into_body()).await {
            Err(why) => refuse(StatusCode::BAD_REQUEST, why),
            Ok(purge) => post(&edge, purge).await,
        },
        _ => refuse(StatusCode::METHOD_NOT_ALLOWED, "GET or POST".to_owned()),
    }
}

async fn post(edge: &Arc<Edge>, purge: DirectPurge) -> Response<ResponseBody> {
    let (purges, said) = (Arc::clone(&edge.purges), format!("{:?} {:?} {}", purge.mode, purge.what, purge.value));
    let number = purge.number;
    let done = tokio::task::spawn_blocking(move || purges.directly(purge)).await;
    edge.metrics.purges(&edge.purges);
    let refuse = |status, why: String| edge.signature.refuse(&Refusal::new(status, why), false);
    match done {
        Ok(Ok(mark)) => {
            tracing::info!(number, purge = said, "purged directly");
            say(StatusCode::OK, mark.into())
        }
        Ok(Err(Refused::Behind(_))) => say(StatusCode::CONFLICT, edge.purges.mark().into()),
        Ok(Err(error @ (Refused::Bad(_) | Refused::Far(_)))) => refuse(StatusCode::BAD_REQUEST, error.to_string()),
        Ok(Err(error @ Refused::Disk(_))) => {
            tracing::warn!(%error, "a direct purge");
            refuse(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
        }
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn read(body: Incoming) -> Result<DirectPurge, String> {
    let limited = Limited::new(body, BODY_BYTES_MAX);
    let collected = tokio::time::timeout(BODY_TIME_MAX, limited.collect()).await;
    let bytes = collected.map_err(|_| "the body took too long")?.map_err(|error| error.to_string())?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

fn say(status: StatusCode, mark: PurgeMark) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::whole(Bytes::from(serde_json::to_vec(&mark).unwrap_or_default())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A name of 1,024 bytes, escaped, and the rest.
const BODY_BYTES_MAX: usize = 16 << 10;

/// From the head to the end of the body.
const BODY_TIME_MAX: Duration = Duration::from_secs(5);
