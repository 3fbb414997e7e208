//! From a request's head to a [`Lookup`], or to the refusal the client gets. Pure.
//!
//! Only what a `Lookup` holds goes any further: no host, port, cookie, query or forwarded header of a client
//! reaches a decision about where bytes come from.

use geo::{CanonicalName, ContentId, NameError};
use http::header::{self, HeaderName};
use http::{HeaderMap, Method, StatusCode, Version, request};

use crate::headers;
use crate::range::Spec;

/// A request for a file.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// The file.
    pub name: CanonicalName,
    /// Its id.
    pub content: ContentId,
    /// HEAD: the same without a body.
    pub head_only: bool,
    /// The part asked for.
    pub range: Option<Spec>,
    /// Conditions on it.
    pub conditions: Conditions,
    /// The page that asks by script.
    pub origin: Option<String>,
    /// It came from a server, through the internal listener.
    pub direct: bool,
    /// A server asks only for what is held (RFC 9111, section 5.2.1.7): no fill is joined or begun for it.
    pub held_only: bool,
}

/// Conditional headers (RFC 9110, section 13.1), as sent.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// `If-Match`.
    pub if_match: Option<String>,
    /// `If-None-Match`.
    pub if_none_match: Option<String>,
    /// `If-Modified-Since`.
    pub if_modified_since: Option<String>,
    /// `If-Unmodified-Since`.
    pub if_unmodified_since: Option<String>,
    /// `If-Range`.
    pub if_range: Option<String>,
}

/// What a request turns out to be.
#[derive(Clone, Debug)]
pub enum Parsed {
    /// A file is asked for.
    File(Lookup),
    /// A browser asks whether it may ask (CORS preflight).
    Preflight {
        /// The file.
        name: CanonicalName,
        /// The page.
        origin: String,
    },
    /// Nothing that is served.
    Refused(Refusal),
}

/// A refusal: status and one sentence.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// What, where and what to do, for the client.
    pub why: String,
    /// With 416: the length of the file, bytes (RFC 9110, section 14.4).
    pub unsatisfied_size: Option<u64>,
}

impl Refusal {
    /// A refusal.
    #[must_use]
    pub fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into(), unsatisfied_size: None }
    }
}

/// Reads a request's head. `domain` is what this CDN calls itself in `CDN-Loop`.
#[must_use]
pub fn parse(head: &request::Parts, direct: bool, domain: &str) -> Parsed {
    match read(head, direct, domain) {
        Ok(parsed) => parsed,
        Err(refusal) => Parsed::Refused(refusal),
    }
}

fn read(head: &request::Parts, direct: bool, domain: &str) -> Result<Parsed, Refusal> {
    check_host(head)?;
    check_loop(&head.headers, domain)?;
    let name = CanonicalName::from_url_path(head.uri.path()).map_err(|error| match error {
        NameError::NotAFile => Refusal::new(StatusCode::NOT_FOUND, error.to_string()),
        _ => Refusal::new(StatusCode::BAD_REQUEST, error.to_string()),
    })?;
    let origin = headers::text(&head.headers, &header::ORIGIN).map(str::to_owned);
    match (&head.method, origin) {
        (&Method::GET | &Method::HEAD, origin) => Ok(Parsed::File(lookup(head, name, origin, direct))),
        (&Method::OPTIONS, Some(origin)) => Ok(Parsed::Preflight { name, origin }),
        _ => Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "a file is asked for with GET or HEAD")),
    }
}

fn lookup(head: &request::Parts, name: CanonicalName, origin: Option<String>, direct: bool) -> Lookup {
    let own = |name: &HeaderName| headers::text(&head.headers, name).map(str::to_owned);
    let conditions = Conditions {
        if_match: own(&header::IF_MATCH),
        if_none_match: own(&header::IF_NONE_MATCH),
        if_modified_since: own(&header::IF_MODIFIED_SINCE),
        if_unmodified_since: own(&header::IF_UNMODIFIED_SINCE),
        if_range: own(&header::IF_RANGE),
    };
    // RFC 9110, section 14.2: Range means something with GET only, and several fields are no valid one.
    let single = head.headers.get_all(header::RANGE).iter().count() == 1;
    let range = (single && head.method == Method::GET)
        .then(|| headers::text(&head.headers, &header::RANGE).and_then(Spec::parse))
        .flatten();
    let content = name.content_id();
    let asked = headers::text(&head.headers, &header::CACHE_CONTROL);
    let held_only = direct && asked.is_some_and(|asked| asked == crate::upstream::ONLY_IF_CACHED);
    Lookup { name, content, head_only: head.method == Method::HEAD, range, conditions, origin, direct, held_only }
}

/// RFC 9112, section 3.2: exactly one Host field in HTTP/1.1. Its value is not looked at: every name that
/// leads here is served the same files.
fn check_host(head: &request::Parts) -> Result<(), Refusal> {
    let hosts = head.headers.get_all(header::HOST).iter().count();
    if hosts > 1 || (head.version == Version::HTTP_11 && hosts == 0) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "a request has exactly one Host field"));
    }
    Ok(())
}

/// RFC 8586: a request that has passed this CDN before is refused. That is all the header ever does.
fn check_loop(headers: &HeaderMap, domain: &str) -> Result<(), Refusal> {
    let passed = headers
        .get_all("cdn-loop")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|id| id.split(';').next())
        .any(|id| id.trim().eq_ignore_ascii_case(domain));
    if passed {
        return Err(Refusal::new(StatusCode::LOOP_DETECTED, "the request has passed this CDN before (CDN-Loop)"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[test]
    fn a_file_is_named_by_its_path_alone() {
        check("GET", "/c7/a.jpg", &[], "c7/a.jpg");
        check("HEAD", "/c7/%61.jpg?expires=1&signature=2", &[], "c7/a.jpg head");
        check("GET", "http://evil.example:81/c7/a.jpg", &[], "c7/a.jpg");
        check("GET", "/c7/a.jpg", &[("x-forwarded-host", "evil"), ("cookie", "a=b")], "c7/a.jpg");
        check("GET", "/c7/a.jpg", &[("range", "bytes=0-9")], "c7/a.jpg From { start: 0, end: 10 }");
        check("HEAD", "/c7/a.jpg", &[("range", "bytes=0-9")], "c7/a.jpg head");
        check("GET", "/c7/a.jpg", &[("range", "bytes=0-9"), ("range", "bytes=5-6")], "c7/a.jpg");
        check("OPTIONS", "/c7/a.jpg", &[("origin", "https://site")], "preflight c7/a.jpg https://site");
    }

    #[test]
    fn anything_else_is_refused() {
        check("GET", "/", &[], "404");
        check("GET", "/favicon.ico", &[], "404");
        check("GET", "/c7", &[], "404");
        check("GET", "/c07/a", &[], "404");
        check("GET", "/c99999999999/a", &[], "404");
        check("GET", "/c7/", &[], "400");
        check("GET", "/c7//a", &[], "400");
        check("GET", "/c7/../a", &[], "400");
        check("GET", "/c7/%2e%2e/a", &[], "400");
        check("GET", "/c7/a%2fb", &[], "400");
        check("GET", "/c7/a%00", &[], "400");
        check("GET", "/c7/%zz", &[], "400");
        check("POST", "/c7/a.jpg", &[], "405");
        check("OPTIONS", "/c7/a.jpg", &[], "405");
        check("GET", "/c7/a.jpg", &[("host", "two")], "400");
        check("GET", "/c7/a.jpg", &[("cdn-loop", "other; v=1, EXAMPLE.org")], "508");
        check("GET", "/c7/a.jpg", &[("cdn-loop", "other")], "c7/a.jpg");
    }

    #[test]
    fn http_1_1_needs_a_host() {
        let (head, ()) = Request::get("/c7/a.jpg").body(()).unwrap().into_parts();
        assert!(matches!(parse(&head, false, "d"), Parsed::Refused(Refusal { status: StatusCode::BAD_REQUEST, .. })));
    }

    #[track_caller]
    fn check(method: &str, uri: &str, headers: &[(&str, &str)], expected: &str) {
        let mut request = Request::builder().method(method).uri(uri).header("host", "sun4-2-1.example.org");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let answer = match parse(&head, false, "example.org") {
            Parsed::File(lookup) => {
                let head = if lookup.head_only { " head" } else { "" };
                let range = lookup.range.map(|range| format!(" {range:?}")).unwrap_or_default();
                format!("{}{head}{range}", lookup.name)
            }
            Parsed::Preflight { name, origin } => format!("preflight {name} {origin}"),
            Parsed::Refused(refusal) => refusal.status.as_u16().to_string(),
        };
        assert_eq!(answer, expected, "{method} {uri} {headers:?}");
    }
}
