//! Heads of responses. Pure.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use geo::topology::{Class, Cors};

use crate::body::ResponseBody;
use crate::caching::update;
use crate::conditional::Conclusion;
use crate::fill::{Asked, Opened};
use crate::meta::Meta;
use crate::request::Refusal;

/// Who answers: what every response says of this server.
#[derive(Clone, Debug)]
pub struct Signature {
    /// `sun4-2-1`.
    name: String,
    via: HeaderValue,
    hit: HeaderValue,
}

/// Where the answer came from, for `Cache-Status` (RFC 9211).
#[derive(Clone, Debug)]
pub enum Provenance {
    /// A tier.
    Hit,
    /// A tier, past its time, since nothing newer could be had.
    Stale,
    /// A tier, past its time, while it is asked about.
    Refreshing,
    /// Some of it from a tier.
    Partial,
    /// A fill.
    Miss {
        /// Another request had begun it.
        collapsed: bool,
        /// What it brought.
        opened: Opened,
    },
    /// A tier, after asking whether it is still current.
    Revalidated,
}

impl Signature {
    /// For the server `name`.
    ///
    /// # Errors
    ///
    /// When the name cannot stand in a header; a topology's names can.
    pub fn new(name: &str) -> Result<Self, header::InvalidHeaderValue> {
        Ok(Self {
            name: name.to_owned(),
            via: HeaderValue::from_str(&format!("1.1 {name}"))?,
            hit: HeaderValue::from_str(&format!("{name}; hit"))?,
        })
    }

    /// The `Cache-Status` of an answer: entries of other servers first, as RFC 9211, section 2 orders them.
    #[must_use]
    pub fn cache_status(&self, provenance: &Provenance) -> HeaderValue {
        let name = &self.name;
        let text = match provenance {
            Provenance::Hit => return self.hit.clone(),
            Provenance::Stale => format!("{name}; hit; detail=stale-if-error"),
            Provenance::Refreshing => format!("{name}; hit; detail=stale-while-revalidate"),
            Provenance::Partial => format!("{name}; fwd=partial; stored"),
            Provenance::Revalidated => format!("{name}; fwd=stale; fwd-status=304"),
            Provenance::Miss { collapsed, opened } => {
                let before = opened.passed_on.as_ref().map(|status| format!("{status}, ")).unwrap_or_default();
                let stored = if opened.stored { "; stored" } else { "" };
                let collapsed = if *collapsed { "; collapsed" } else { "" };
                let fwd = match opened.asked {
                    Asked::Nothing => "fwd=miss".to_owned(),
                    Asked::Url => format!("fwd=uri-miss; fwd-status={}", opened.status.as_u16()),
                    Asked::Stale => format!("fwd=stale; fwd-status={}", opened.status.as_u16()),
                    Asked::Part => format!("fwd=partial; fwd-status={}", opened.status.as_u16()),
                };
                format!("{before}{name}; {fwd}{stored}{collapsed}")
            }
        };
        HeaderValue::from_str(&text).unwrap_or_else(|_| self.hit.clone())
    }

    /// The answer to a request for a known file; `body` is used where the conclusion has one.
    #[must_use]
    pub fn answer(
        &self,
        meta: &Arc<Meta>,
        conclusion: &Conclusion,
        provenance: &Provenance,
        now: u64,
        body: ResponseBody,
    ) -> Response<ResponseBody> {
        let (status, length, range) = shape(meta, conclusion);
        let keeps_body = matches!(conclusion, Conclusion::Whole | Conclusion::Part(_) | Conclusion::Parts(_));
        let mut response = Response::new(if keeps_body { body } else { ResponseBody::empty() });
        *response.status_mut() = status;
        let mut headers = meta.headers.clone();
        if !keeps_body {
            headers.remove(header::CONTENT_TYPE);
        }
        if let Some(length) = length {
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        if let Some(range) = range {
            headers.insert(header::CONTENT_RANGE, range);
        }
        if meta.size.is_some() {
            headers.insert(header::ACCEPT_RANGES, BYTES);
        }
        headers.insert(header::AGE, age(meta, provenance, now).into());
        headers.insert(CACHE_STATUS, self.cache_status(provenance));
        headers.insert(header::VIA, self.via.clone());
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        *response.headers_mut() = headers;
        response
    }

    /// Sends a client on to a sibling that keeps the file as well, for this time only (RFC 9110, section 15.4.8).
    /// `address` is the file's there; a signature goes along, before the file's name or in the query.
    #[must_use]
    pub fn pass_on(&self, address: &str, in_front: Option<&str>, query: Option<&str>) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        let headers = response.headers_mut();
        let location = location(address, in_front, query);
        // Both parts were part of a URL before.
        if let Ok(location) = HeaderValue::from_str(&location) {
            headers.insert(header::LOCATION, location);
        }
        headers.insert(header::CACHE_CONTROL, NO_STORE);
        headers.insert(header::CONTENT_LENGTH, 0.into());
        headers.insert(header::VIA, self.via.clone());
        response
    }

    /// The same under the policy "rfc": the content server's fields as they are, its status, and in `Cache-Status` also
    /// for how long the answer is fresh, seconds.
    #[must_use]
    pub fn answer_rfc(
        &self,
        meta: &Meta,
        conclusion: &Conclusion,
        provenance: &Provenance,
        now: u64,
        body: ResponseBody,
    ) -> Response<ResponseBody> {
        let (status, length, range) = shape(meta, conclusion);
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let mut headers = meta.headers.clone();
        headers.remove(header::CONTENT_LENGTH);
        let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if let Some(length) = length.filter(|_| !bodiless) {
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        if let Some(range) = range {
            headers.insert(header::CONTENT_RANGE, range);
        }
        if status == StatusCode::OK && meta.size.is_some() && !headers.contains_key(header::ACCEPT_RANGES) {
            headers.insert(header::ACCEPT_RANGES, BYTES);
        }
        headers.insert(header::AGE, age(meta, provenance, now).into());
        headers.insert(header::VIA, update::via(&headers, &self.via));
        let told = self.cache_status(provenance);
        let seconds = i128::from(meta.fresh_until) - i128::from(now);
        let ttl = format!("{}; ttl={}", told.to_str().unwrap_or(&self.name), seconds.max(-i128::from(now)));
        headers.insert(CACHE_STATUS, HeaderValue::from_str(&ttl).unwrap_or(told));
        *response.headers_mut() = headers;
        response
    }

    /// This server in the `Via` of a message.
    #[must_use]
    pub fn via(&self) -> HeaderValue {
        self.via.clone()
    }

    /// What this server says of an answer that it passed on: that the method had it forwarded (RFC 9211, section 2.2).
    pub fn sign_passed(&self, headers: &mut HeaderMap) {
        headers.append(header::VIA, self.via.clone());
        if let Ok(status) = HeaderValue::from_str(&format!("{}; fwd=method", self.name)) {
            headers.append(CACHE_STATUS, status);
        }
    }

    /// An error.
    #[must_use]
    pub fn refuse(&self, refusal: &Refusal, forwarded: bool) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::whole(Bytes::from(format!("{}\n", refusal.why))));
        *response.status_mut() = refusal.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, TEXT);
        headers.insert(header::CACHE_CONTROL, NO_STORE);
        headers.insert(header::VIA, self.via.clone());
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        if let Some(size) = refusal.unsatisfied_size
            && let Ok(range) = HeaderValue::from_str(&format!("bytes */{size}"))
        {
            headers.insert(header::CONTENT_RANGE, range);
        }
        if forwarded && let Ok(status) = HeaderValue::from_str(&format!("{}; fwd=miss", self.name)) {
            headers.insert(CACHE_STATUS, status);
        }
        match refusal.status {
            StatusCode::METHOD_NOT_ALLOWED => drop(headers.insert(header::ALLOW, ALLOWED)),
            StatusCode::SERVICE_UNAVAILABLE => drop(headers.insert(header::RETRY_AFTER, 1.into())),
            StatusCode::UNAUTHORIZED => drop(headers.insert(header::WWW_AUTHENTICATE, BEARER)),
            _ => {}
        }
        response
    }
}

/// How old an answer is, seconds: what is on its way to this client is as old as it was when it came.
fn age(meta: &Meta, provenance: &Provenance, now: u64) -> u64 {
    match provenance {
        Provenance::Miss { collapsed: false, opened } => opened.age,
        _ => now.saturating_sub(meta.born_at),
    }
}

/// The address with what stood in front of the name and behind it in the request's URL.
fn location(address: &str, in_front: Option<&str>, query: Option<&str>) -> String {
    let authority = address.find("://").map_or(0, |at| at + "://".len());
    let slash = address[authority..].find('/').map_or(address.len(), |at| authority + at);
    let (origin, path) = address.split_at(slash);
    let mut location = origin.to_owned();
    for (mark, part) in [("/", in_front), ("", Some(path)), ("?", query)] {
        if let Some(part) = part {
            location.push_str(mark);
            location.push_str(part);
        }
    }
    location
}

/// Status, Content-Length and Content-Range.
fn shape(meta: &Meta, conclusion: &Conclusion) -> (StatusCode, Option<u64>, Option<HeaderValue>) {
    let content_range = |text: String| HeaderValue::from_str(&text).ok();
    match conclusion {
        Conclusion::Whole => (meta.status, meta.size, None),
        Conclusion::Part(Range { start, end }) => {
            let size = meta.size.map_or_else(|| "*".to_owned(), |size| size.to_string());
            let range = content_range(format!("bytes {start}-{}/{size}", end.saturating_sub(1)));
            (StatusCode::PARTIAL_CONTENT, Some(end - start), range)
        }
        // Whoever makes the body says how long it is (Multipart::describe).
        Conclusion::Parts(_) => (StatusCode::PARTIAL_CONTENT, None, None),
        Conclusion::NotModified => (StatusCode::NOT_MODIFIED, None, None),
        Conclusion::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, Some(0), None),
        Conclusion::Unsatisfiable => {
            let range = content_range(format!("bytes */{}", meta.size.unwrap_or(0)));
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(0), range)
        }
    }
}

/// Adds what the Fetch standard's CORS protocol asks for, if the class lets the page read the file.
/// `origin` is the page that asks by script; without one the answer only says that it depends on it.
pub fn allow_origin(headers: &mut HeaderMap, cors: &Cors, origin: Option<&str>) {
    let any = cors.origins.iter().any(|allowed| allowed == "*");
    if !any {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    let Some(origin) = origin else { return };
    if !any && !cors.origins.iter().any(|allowed| allowed == origin) {
        return;
    }
    let value = if any { Ok(HeaderValue::from_static("*")) } else { HeaderValue::from_str(origin) };
    if let Ok(value) = value {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, value.clone());
        headers.insert(HeaderName::from_static("timing-allow-origin"), value);
    }
    if let Ok(value) = HeaderValue::from_str(&cors.expose_headers.join(", "))
        && !value.is_empty()
    {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, value);
    }
}

/// The answer to a CORS preflight about a file of this class.
#[must_use]
pub fn preflight(class: &Class, origin: &str) -> Response<ResponseBody> {
    let (methods, allowed) = match class.uploads {
        Some(_) => ("GET, HEAD, POST, PUT, PATCH, DELETE", crate::pass::crossing::UPLOAD_HEADERS),
        None => ("GET, HEAD", "Range, If-Range, If-None-Match"),
    };
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    if let Some(cors) = &class.cors {
        allow_origin(headers, cors, Some(origin));
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(allowed));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    }
    response
}

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const BYTES: HeaderValue = HeaderValue::from_static("bytes");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD");
const BEARER: HeaderValue = HeaderValue::from_static("Bearer");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_says_what_the_conclusion_means() {
        check(&Conclusion::Whole, "200 length=30 range=-");
        check(&Conclusion::Part(10..20), "206 length=10 range=bytes 10-19/30");
        check(&Conclusion::NotModified, "304 length=- range=-");
        check(&Conclusion::Unsatisfiable, "416 length=0 range=bytes */30");
        check(&Conclusion::PreconditionFailed, "412 length=0 range=-");
    }

    #[test]
    fn cache_status_lists_the_servers_from_the_origin_on() {
        let signature = Signature::new("sun4-2-1").unwrap();
        let opened = Opened {
            outcome: crate::metrics::Outcome::Sun,
            passed_on: Some("sun4-2-2; hit".into()),
            ..Opened::of_medium(meta())
        };
        let status = |provenance| signature.cache_status(&provenance).to_str().unwrap().to_owned();
        assert_eq!(status(Provenance::Hit), "sun4-2-1; hit");
        let miss = Provenance::Miss { collapsed: false, opened: opened.clone() };
        assert_eq!(status(miss), "sun4-2-2; hit, sun4-2-1; fwd=miss; stored");
        let opened = Opened { passed_on: None, stored: false, ..opened };
        assert_eq!(status(Provenance::Miss { collapsed: true, opened }), "sun4-2-1; fwd=miss; collapsed");
    }

    #[test]
    fn a_client_is_sent_on_for_this_time_only() {
        let signature = Signature::new("sun4-2-1").unwrap();
        let sent_on = |front, query| {
            let response = signature.pass_on("https://sun4-2-2.example.org/c1/a%20b", front, query);
            let text = |name| response.headers()[name].to_str().unwrap().to_owned();
            format!("{} {} {}", response.status().as_u16(), text(header::LOCATION), text(header::CACHE_CONTROL))
        };
        assert_eq!(sent_on(None, None), "307 https://sun4-2-2.example.org/c1/a%20b no-store");
        assert_eq!(sent_on(None, Some("e=1&s=x")), "307 https://sun4-2-2.example.org/c1/a%20b?e=1&s=x no-store");
        let in_front = Some("s.1.1.a.b");
        assert_eq!(sent_on(in_front, None), "307 https://sun4-2-2.example.org/s.1.1.a.b/c1/a%20b no-store");
    }

    #[test]
    fn a_page_reads_only_what_its_class_allows() {
        let cors = |origins: &[&str]| cors(origins);
        let allowed = |origins: &[&str]| {
            let mut headers = HeaderMap::new();
            allow_origin(&mut headers, &cors(origins), Some("https://site"));
            headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(allowed(&["*"]).as_deref(), Some("*"));
        assert_eq!(allowed(&["https://site"]).as_deref(), Some("https://site"));
        assert_eq!(allowed(&["https://other"]), None);
    }

    fn cors(origins: &[&str]) -> Cors {
        let list = origins.iter().map(|origin| format!("\"{origin}\"")).collect::<Vec<_>>().join(", ");
        let topology = geo::Topology::parse(&format!("{TOPOLOGY}\ncors = {{ origins = [{list}] }}\n")).unwrap();
        topology.classes[0].cors.clone().unwrap()
    }

    const TOPOLOGY: &str = r#"
        version = 1
        domain = "example.org"
        default_region = 4
        [content_servers]
        url = "http://cs{number}.storage.example.org"
        numbers = ["1-9"]
        [[region]]
        id = 4
        name = "Moscow"
        latitude = 55.75
        longitude = 37.6
        [[class]]
        name = "all"
        paths = ["*"]"#;

    #[track_caller]
    fn check(conclusion: &Conclusion, expected: &str) {
        let signature = Signature::new("sun4-2-1").unwrap();
        let response = signature.answer(&meta(), conclusion, &Provenance::Hit, 0, ResponseBody::empty());
        let text = |name| response.headers().get(name).map_or("-", |value: &HeaderValue| value.to_str().unwrap());
        let (length, range) = (text(header::CONTENT_LENGTH), text(header::CONTENT_RANGE));
        assert_eq!(format!("{} length={length} range={range}", response.status().as_u16()), expected);
    }

    fn meta() -> Arc<Meta> {
        Arc::new(Meta::new(&HeaderMap::new(), Some(30), 0, 0, 2))
    }
}
