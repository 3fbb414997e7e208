//! A content server: storage that owns files and hands them to suns and caches.
//!
//! ```text
//!   GET http://127.0.0.1:9100/cs100500/pictures/000.png
//!                             |        |
//!                             |        a name of the library, else 404
//!                             the number, as in the topology's `url`
//! ```
//!
//! Answers 200, 206, 304, 404, 405 and 416 (RFC 9110): one range, `If-Range`, `If-None-Match`,
//! `If-Modified-Since`, HEAD. Files carry a strong `ETag`, `Last-Modified`, and a `Cache-Control` that
//! calls them immutable, as the system's convention is. Counts what it is asked for, so that a test or
//! the display can tell how much reached it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use daemon::drain::Drain;
use geo::CanonicalName;
use hyper::body::Incoming;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, header};

use super::body::Body;
use super::listener;
use super::media::{Library, MediaFile, Version};

/// A started content server.
#[derive(Clone, Debug)]
pub struct ContentServer {
    /// Where it listens.
    pub listen: SocketAddr,
    shared: Arc<Shared>,
}

/// What it was asked for since it started.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Requests of any kind.
    pub requests: u64,
    /// Answers with a body: 200 and 206 to GET.
    pub bodies: u64,
    /// Bytes of those bodies, as announced.
    pub bytes: u64,
}

#[derive(Debug)]
struct Shared {
    library: Arc<Library>,
    requests: AtomicU64,
    bodies: AtomicU64,
    bytes: AtomicU64,
    /// Bodies by file; only files of the library are in it.
    by_file: Mutex<HashMap<CanonicalName, u64>>,
}

/// Starts a content server; it runs until the drain.
///
/// # Errors
///
/// When the address cannot be bound.
pub async fn start(listen: SocketAddr, library: Arc<Library>, drain: &Drain) -> io::Result<ContentServer> {
    let shared = Arc::new(Shared {
        library,
        requests: AtomicU64::new(0),
        bodies: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        by_file: Mutex::default(),
    });
    let serving = Arc::clone(&shared);
    let listen = listener::serve(listen, drain, move |request, _| answer(Arc::clone(&serving), request)).await?;
    Ok(ContentServer { listen, shared })
}

impl ContentServer {
    /// The topology's `content_servers.url`, `http://127.0.0.1:9100/cs{number}`.
    #[must_use]
    pub fn url_template(&self) -> String {
        format!("http://{}/cs{{number}}", self.listen)
    }

    /// Counts so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            requests: self.shared.requests.load(Ordering::Relaxed),
            bodies: self.shared.bodies.load(Ordering::Relaxed),
            bytes: self.shared.bytes.load(Ordering::Relaxed),
        }
    }

    /// How many answers with a body one file has had.
    #[must_use]
    pub fn bodies_of(&self, file: &CanonicalName) -> u64 {
        let by_file = self.shared.by_file.lock().unwrap_or_else(PoisonError::into_inner);
        by_file.get(file).copied().unwrap_or(0)
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let head_only = request.method() == Method::HEAD;
    if !head_only && request.method() != Method::GET {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED);
        response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let file = file_name(request.uri().path()).and_then(|name| shared.library.find(&name).cloned());
    let Some(file) = file else { return plain(StatusCode::NOT_FOUND) };
    let headers = request.headers().clone();
    let name = file.name.clone();
    // Painting and opening take a thread that may wait.
    let made = tokio::task::spawn_blocking(move || respond(&file, &headers, head_only)).await;
    let Ok(Ok(response)) = made else { return plain(StatusCode::NOT_FOUND) };
    let sent = hyper::body::Body::size_hint(response.body()).exact().unwrap_or(0);
    if sent > 0 && response.status().is_success() {
        shared.bodies.fetch_add(1, Ordering::Relaxed);
        shared.bytes.fetch_add(sent, Ordering::Relaxed);
        let mut by_file = shared.by_file.lock().unwrap_or_else(PoisonError::into_inner);
        *by_file.entry(name).or_default() += 1;
    }
    response
}

/// `/cs100500/a.jpg` to `c100500/a.jpg`.
fn file_name(path: &str) -> Option<CanonicalName> {
    CanonicalName::parse(&format!("c{}", path.strip_prefix("/cs")?)).ok()
}

fn respond(file: &MediaFile, headers: &HeaderMap, head_only: bool) -> io::Result<Response<Body>> {
    let (opened, version) = file.open()?;
    let size = version.size;
    let (status, part) = match decide(headers, &version) {
        Answer::NotModified => (StatusCode::NOT_MODIFIED, 0..0),
        Answer::Whole => (StatusCode::OK, 0..size),
        Answer::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
        Answer::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, 0..0),
    };
    let modified = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(version.modified_s));
    let mut response = Response::builder()
        .status(status)
        .header(header::ETAG, &version.entity_tag)
        .header(header::LAST_MODIFIED, modified)
        .header(header::CACHE_CONTROL, "public, max-age=31536000, immutable")
        .header(header::ACCEPT_RANGES, "bytes");
    response = match status {
        StatusCode::NOT_MODIFIED => response,
        StatusCode::RANGE_NOT_SATISFIABLE => response.header(header::CONTENT_RANGE, format!("bytes */{size}")),
        _ => response.header(header::CONTENT_TYPE, file.content_type),
    };
    if status == StatusCode::PARTIAL_CONTENT {
        response = response.header(header::CONTENT_RANGE, format!("bytes {}-{}/{size}", part.start, part.end - 1));
    }
    let body = if head_only {
        response = response.header(header::CONTENT_LENGTH, part.end - part.start);
        Body::empty()
    } else if part.is_empty() {
        Body::empty()
    } else {
        Body::part(opened, &part)
    };
    response.body(body).map_err(io::Error::other)
}

/// What a request for a file gets.
#[derive(Debug, Eq, PartialEq)]
enum Answer {
    /// 304.
    NotModified,
    /// 200.
    Whole,
    /// 206, never empty.
    Part(Range<u64>),
    /// 416.
    Unsatisfiable,
}

/// Conditions first, then the range (RFC 9110, section 13.2.2).
fn decide(headers: &HeaderMap, version: &Version) -> Answer {
    let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    if let Some(tags) = text(header::IF_NONE_MATCH) {
        if tags.split(',').any(|tag| names(tag.trim(), version)) {
            return Answer::NotModified;
        }
    } else if text(header::IF_MODIFIED_SINCE).and_then(seconds).is_some_and(|since| version.modified_s <= since) {
        return Answer::NotModified;
    }
    let Some(range) = text(header::RANGE) else { return Answer::Whole };
    // RFC 9110, section 13.1.5: a strong tag, or exactly the date.
    let same = text(header::IF_RANGE)
        .is_none_or(|condition| condition == version.entity_tag || seconds(condition) == Some(version.modified_s));
    if same { part_of(range, version.size) } else { Answer::Whole }
}

/// Weak comparison (RFC 9110, section 8.8.3.2).
fn names(tag: &str, version: &Version) -> bool {
    tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == version.entity_tag
}

fn seconds(date: &str) -> Option<u64> {
    Some(httpdate::parse_http_date(date).ok()?.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// One range of bytes (RFC 9110, section 14.1.2); several, or what is malformed, mean the whole file.
fn part_of(range: &str, size: u64) -> Answer {
    let digits = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true if text.is_empty() => Some(None),
        // Digits alone fail to parse only when there are too many, which is past any end of file.
        true => Some(Some(text.parse().unwrap_or(u64::MAX))),
        false => None,
    };
    let positions = range.strip_prefix("bytes=").and_then(|positions| positions.split_once('-'));
    let Some((Some(first), Some(last))) = positions.map(|(first, last)| (digits(first), digits(last))) else {
        return Answer::Whole;
    };
    let part = match (first, last) {
        (None, None) => return Answer::Whole,
        (Some(first), Some(last)) if first > last => return Answer::Whole,
        (Some(first), Some(last)) => first..last.saturating_add(1).min(size),
        (Some(first), None) => first..size,
        (None, Some(length)) => size.saturating_sub(length)..size,
    };
    if part.is_empty() { Answer::Unsatisfiable } else { Answer::Part(part) }
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::ram(format!("{status}\n")));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_served_and_anything_else_is_the_whole_file() {
        check(&[("range", "bytes=0-0")], "206 0..1");
        check(&[("range", "bytes=10-99")], "206 10..30");
        check(&[("range", "bytes=10-")], "206 10..30");
        check(&[("range", "bytes=-10")], "206 20..30");
        check(&[("range", "bytes=-99")], "206 0..30");
        check(&[("range", "bytes=30-")], "416");
        check(&[("range", "bytes=-0")], "416");
        check(&[("range", "bytes=9-5")], "200");
        check(&[("range", "bytes=+1-5")], "200");
        check(&[("range", "bytes=0-1,5-6")], "200");
        check(&[("range", "bytes=-")], "200");
        check(&[("range", "blocks=0-1")], "200");
        check(&[], "200");
    }

    #[test]
    fn a_range_is_served_only_of_the_version_it_was_asked_of() {
        check(&[("range", "bytes=0-1"), ("if-range", "\"a\"")], "206 0..2");
        check(&[("range", "bytes=0-1"), ("if-range", "W/\"a\"")], "200");
        check(&[("range", "bytes=0-1"), ("if-range", "\"b\"")], "200");
        check(&[("range", "bytes=0-1"), ("if-range", "Thu, 01 Jan 1970 00:01:40 GMT")], "206 0..2");
        check(&[("range", "bytes=0-1"), ("if-range", "Thu, 01 Jan 1970 00:01:41 GMT")], "200");
    }

    #[test]
    fn what_the_client_has_is_not_sent_again() {
        check(&[("if-none-match", "\"a\"")], "304");
        check(&[("if-none-match", "\"x\", W/\"a\"")], "304");
        check(&[("if-none-match", "*")], "304");
        check(&[("if-none-match", "\"b\"")], "200");
        check(&[("if-modified-since", "Thu, 01 Jan 1970 00:01:40 GMT")], "304");
        check(&[("if-modified-since", "Thu, 01 Jan 1970 00:01:39 GMT")], "200");
        check(&[("if-none-match", "\"b\""), ("if-modified-since", "Thu, 01 Jan 1970 00:01:40 GMT")], "200");
        check(&[("if-none-match", "\"a\""), ("range", "bytes=0-1")], "304");
    }

    #[test]
    fn a_path_names_a_file_of_a_content_server() {
        let name = |path| file_name(path).map(|name| name.to_string());
        assert_eq!(name("/cs100500/a/b.jpg").as_deref(), Some("c100500/a/b.jpg"));
        assert_eq!(name("/cs100500/a/../b.jpg"), None);
        assert_eq!(name("/c100500/a.jpg"), None);
        assert_eq!(name("/"), None);
    }

    #[track_caller]
    fn check(headers: &[(&'static str, &'static str)], expected: &str) {
        let version = Version { size: 30, entity_tag: "\"a\"".to_owned(), modified_s: 100 };
        let map = headers
            .iter()
            .map(|&(name, value)| (header::HeaderName::from_static(name), header::HeaderValue::from_static(value)));
        let answer = match decide(&map.collect(), &version) {
            Answer::NotModified => "304".to_owned(),
            Answer::Whole => "200".to_owned(),
            Answer::Part(part) => format!("206 {part:?}"),
            Answer::Unsatisfiable => "416".to_owned(),
        };
        assert_eq!(answer, expected, "{headers:?}");
    }
}
