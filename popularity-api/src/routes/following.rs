//! The calls of copies of this API: `GET /v1/snapshot`, `/v1/binlog`, `/v1/state`. And at such a copy: what it refuses.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use daemon::problem::Refusal;
use daemon::tokens::Role;

use super::{Answer, Shared, blocking, identify};
use crate::engine::lineage::is_id;
use crate::holdings::following::place;
use crate::wire::{BINLOG_END, BINLOG_TIME, STATE_NOW};

pub(super) async fn copies(State(api): Shared, headers: HeaderMap) -> Answer {
    identify(&api, &headers, &[Role::Replica])?;
    Ok(Json(blocking(move || api.copies()).await?).into_response())
}

pub(super) async fn snapshot(
    State(api): Shared,
    headers: HeaderMap,
    Path(offset): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    identify(&api, &headers, &[Role::Replica])?;
    let query = Query::parse(query.as_deref(), &["lineage", "from"])?;
    let offset = offset.parse().map_err(|_| Refusal::bad(format!("{offset:?} is no offset")))?;
    let (lineage, from) = (query.lineage()?, query.number("from")?.unwrap_or(0));
    let bytes = blocking(move || api.snapshot(&lineage, offset, from)).await?;
    Ok(octets(bytes))
}

pub(super) async fn binlog(State(api): Shared, headers: HeaderMap, RawQuery(query): RawQuery) -> Answer {
    identify(&api, &headers, &[Role::Replica])?;
    let query = Query::parse(query.as_deref(), &["lineage", "after", "wait_ms"])?;
    let after = query.number("after")?.ok_or_else(|| Refusal::bad("after: is missing".to_owned()))?;
    let wait = Duration::from_millis(query.number("wait_ms")?.unwrap_or(0));
    let frames = api.binlog(&query.lineage()?, after, wait).await?;
    let mut response = octets(frames.bytes);
    response.headers_mut().insert(BINLOG_END, frames.end.into());
    response.headers_mut().insert(BINLOG_TIME, frames.time_ms.into());
    Ok(response)
}

pub(super) async fn state(State(api): Shared, headers: HeaderMap) -> Answer {
    identify(&api, &headers, &[Role::Replica])?;
    let known = headers.get(header::IF_NONE_MATCH).and_then(|etag| etag.to_str().ok()).unwrap_or_default().to_owned();
    let (body, now_ms) = blocking(move || {
        let (state, now_ms) = api.state();
        let failed = |error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}"));
        Ok((serde_json::to_vec(&state).map_err(failed)?, now_ms))
    })
    .await?;
    // RFC 9110, section 8.8.3: a strong validator, a hash of the bytes.
    let etag = format!("\"{}\"", &blake3::hash(&body).to_hex()[..32]);
    let content = [(header::ETAG, etag.clone()), (header::CONTENT_TYPE, "application/json".to_owned())];
    let mut response = if etag == known {
        (StatusCode::NOT_MODIFIED, content, Body::empty()).into_response()
    } else {
        (content, body).into_response()
    };
    response.headers_mut().insert(STATE_NOW, now_ms.into());
    Ok(response)
}

pub(super) async fn holdings(
    State(api): Shared,
    headers: HeaderMap,
    Path(cache): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    identify(&api, &headers, &[Role::Replica])?;
    let query = Query::parse(query.as_deref(), &["since", "from"])?;
    let since = query.number("since")?;
    let bad = || Refusal::bad("from: is 16 hexadecimal digits".to_owned());
    let from = query.text("from").map_or(Ok(0), |from| place(from).ok_or_else(bad))?;
    Ok(Json(blocking(move || api.cache_holdings(&cache, since, from)).await?).into_response())
}

/// A copy answers what is read, and says where the rest goes to who has a token.
pub(super) async fn refuse_writes(State(api): Shared, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let rates = api.config.replica.as_ref().is_none_or(|replica| replica.ratings);
    let misdirected = !answered_by_a_copy(request.method(), path) || (!rates && goes_by_ratings(path));
    let Some(primary) = api.primary().filter(|_| misdirected) else { return next.run(request).await };
    if let Err(refusal) = identify(&api, request.headers(), &[Role::Sun, Role::Cache, Role::Backend, Role::Replica]) {
        return refusal.into_response();
    }
    // RFC 9110, section 15.5.20: another server is the one for this call.
    let kind = if rates { "a copy" } else { "a copy without ratings (replica.ratings = false)" };
    let detail = format!("this API is {kind}, and answers no such call: send it to {primary}");
    Refusal::new(StatusCode::MISDIRECTED_REQUEST, detail).into_response()
}

/// What is read. Following the purge log is not: a question there says what its server goes by.
fn answered_by_a_copy(method: &Method, path: &str) -> bool {
    let asks = path == "/v1/links" || path.ends_with("/wanted");
    let purges = path == "/v1/purge" || path.starts_with("/v1/purge/");
    asks || (*method != Method::POST && !purges)
}

/// What a copy without ratings has no answer to.
fn goes_by_ratings(path: &str) -> bool {
    path.ends_with("/wanted") || path.ends_with("/top")
}

fn octets(bytes: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response()
}

/// Parameters of a query: each at most once, none but those that are known.
struct Query<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Query<'a> {
    fn parse(query: Option<&'a str>, known: &[&str]) -> Result<Self, Refusal> {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !known.contains(&key) || pairs.iter().any(|(other, _)| *other == key) {
                return Err(Refusal::bad(format!("{pair:?}: the parameters are {}, each once", known.join(", "))));
            }
            pairs.push((key, value));
        }
        Ok(Self(pairs))
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(other, _)| *other == key).map(|&(_, value)| value)
    }

    fn number(&self, key: &str) -> Result<Option<u64>, Refusal> {
        let bad = |_| Refusal::bad(format!("{key}: is a whole number"));
        self.text(key).map(|value| value.parse().map_err(bad)).transpose()
    }

    fn lineage(&self) -> Result<String, Refusal> {
        let bad = || Refusal::bad("lineage: is 32 hexadecimal digits, as GET /v1/snapshot says it".to_owned());
        self.text("lineage").filter(|text| is_id(text)).map(str::to_owned).ok_or_else(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_answers_what_is_read() {
        for (method, path, expected) in [
            (Method::POST, "/v1/links", true),
            (Method::GET, "/v1/regions/4/top", true),
            (Method::GET, "/v1/regions/4/hot", true),
            (Method::POST, "/v1/regions/4/caches/cache4-1/wanted", true),
            (Method::GET, "/v1/binlog", true),
            (Method::GET, "/v1/state", true),
            (Method::POST, "/v1/downloads", false),
            (Method::POST, "/v1/status", false),
            (Method::POST, "/v1/regions/4/caches/cache4-1/holdings", false),
            (Method::POST, "/v1/purge", false),
            (Method::GET, "/v1/purge", false),
            (Method::GET, "/v1/purge/7/acknowledgements", false),
        ] {
            assert_eq!(answered_by_a_copy(&method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn a_copy_without_ratings_answers_nothing_from_them() {
        for (path, expected) in [
            ("/v1/regions/4/top", true),
            ("/v1/regions/4/caches/cache4-1/wanted", true),
            ("/v1/regions/4/hot", false),
            ("/v1/links", false),
        ] {
            assert_eq!(goes_by_ratings(path), expected, "{path}");
        }
    }

    #[test]
    fn a_query_has_known_parameters_once() {
        let known = ["since", "from"];
        for (query, expected) in [
            (None, "None None"),
            (Some("since=7"), "Some(7) None"),
            (Some("from=ab&since=0"), "Some(0) Some(\"ab\")"),
            (Some("since=7&since=7"), "refused"),
            (Some("sinc=7"), "refused"),
            (Some("since=x"), "refused"),
            (Some("since=-1"), "refused"),
        ] {
            let read = Query::parse(query, &known)
                .and_then(|read| Ok(format!("{:?} {:?}", read.number("since")?, read.text("from"))));
            assert_eq!(read.unwrap_or_else(|_| "refused".to_owned()), expected, "{query:?}");
        }
    }
}
