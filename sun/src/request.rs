//! From a request's head to a [`Lookup`], or to the refusal the client gets. Pure.
//!
//! Only what a `Lookup` holds goes any further: no port, cookie or forwarded header of a client reaches a decision
//! about where bytes come from, and a hostname only if it is one of the topology's sites.
//!
//! ```text
//!   Host is a site's?   --yes-->  the site's content server, path and query as sent
//!       | no
//!   /c{number}/path     ------>  content server {number}, canonical path
//! ```

use std::sync::Arc;

use geo::topology::Policy;
use geo::{CanonicalName, ContentId, NameError, Topology};
use http::header::{self, HeaderName};
use http::{HeaderMap, Method, StatusCode, Version, request};

use crate::caching::vary;
use crate::errand::{Asker, Errand, SUN_SITE, class_of};
use crate::headers;
use crate::range::Spec;

/// A request for a file.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// The file.
    pub name: CanonicalName,
    /// Its id.
    pub content: ContentId,
    /// Where it is kept: the id, or under the policy "rfc" what [`vary::slot`] makes of it.
    pub slot: ContentId,
    /// The hostname of the site that it is asked for at.
    pub site: Option<Arc<str>>,
    /// What the client said; only under the policy "rfc".
    pub asker: Option<Arc<Asker>>,
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
        /// The site.
        site: Option<Arc<str>>,
        /// The page.
        origin: String,
    },
    /// It is for the content server, whatever it is: an unsafe or unknown method under the policy "rfc".
    Pass(Lookup),
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

impl Lookup {
    /// What is fetched for it.
    #[must_use]
    pub fn errand(&self) -> Errand {
        Errand { name: self.name.clone(), content: self.content, site: self.site.clone(), asker: self.asker.clone() }
    }

    /// Whether only the content server may see it.
    #[must_use]
    pub fn personal(&self) -> bool {
        self.asker.as_ref().is_some_and(|asker| asker.personal)
    }
}

/// Reads a request's head; `direct`: it came from a server.
#[must_use]
pub fn parse(head: &request::Parts, direct: bool, topology: &Topology) -> Parsed {
    match read(head, direct, topology) {
        Ok(parsed) => parsed,
        Err(refusal) => Parsed::Refused(refusal),
    }
}

fn read(head: &request::Parts, direct: bool, topology: &Topology) -> Result<Parsed, Refusal> {
    check_host(head)?;
    check_loop(&head.headers, &topology.domain)?;
    let (name, site) = target(head, direct, topology)?;
    let origin = headers::text(&head.headers, &header::ORIGIN).map(str::to_owned);
    let class = class_of(topology, site.as_deref(), &name);
    let rfc = class.policy == Policy::Rfc;
    match (&head.method, origin) {
        (&Method::GET | &Method::HEAD, origin) => Ok(Parsed::File(lookup(head, name, site, rfc, origin, direct))),
        (&Method::OPTIONS, Some(origin)) if !rfc || class.cors.is_some() => {
            Ok(Parsed::Preflight { name, site, origin })
        }
        (_, origin) if rfc && !direct && head.method != Method::CONNECT => {
            Ok(Parsed::Pass(lookup(head, name, site, rfc, origin, direct)))
        }
        _ => Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "a file is asked for with GET or HEAD")),
    }
}

/// The file that is meant, and the site.
fn target(
    head: &request::Parts,
    direct: bool,
    topology: &Topology,
) -> Result<(CanonicalName, Option<Arc<str>>), Refusal> {
    let refused = |error: NameError| match error {
        NameError::NotAFile => Refusal::new(StatusCode::NOT_FOUND, error.to_string()),
        NameError::SiteTooLong => Refusal::new(StatusCode::URI_TOO_LONG, error.to_string()),
        _ => Refusal::new(StatusCode::BAD_REQUEST, error.to_string()),
    };
    // A server writes the name as it has it, and the site beside it.
    if direct && let Some(host) = headers::text(&head.headers, &SUN_SITE) {
        let written = head.uri.path_and_query().map_or("", |target| target.as_str());
        let name = CanonicalName::from_written(written.trim_start_matches('/')).map_err(refused)?;
        return Ok((name, Some(host.into())));
    }
    let site = if topology.sites.is_empty() || direct { None } else { topology.site(host(head)) };
    let Some(site) = site else {
        return Ok((CanonicalName::from_url_path(head.uri.path()).map_err(refused)?, None));
    };
    let ignored = site.class_of(head.uri.path()).ignore_query;
    let query = head.uri.query().filter(|_| !ignored);
    let name = CanonicalName::for_site(site.content_server, head.uri.path(), query).map_err(refused)?;
    Ok((name, Some(site.host.as_str().into())))
}

/// The hostname of a request, without its port: HTTP/2 has it in the URI.
#[must_use]
pub fn host(head: &request::Parts) -> &str {
    let field = || headers::text(&head.headers, &header::HOST).unwrap_or_default();
    let host = head.uri.authority().map_or_else(field, |authority| authority.as_str());
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn lookup(
    head: &request::Parts,
    name: CanonicalName,
    site: Option<Arc<str>>,
    rfc: bool,
    origin: Option<String>,
    direct: bool,
) -> Lookup {
    let own = |name: &HeaderName| headers::text(&head.headers, name).map(str::to_owned);
    // Under the policy "rfc" these are the content server's to judge (RFC 9111, section 4.3.2).
    let theirs = |name: &HeaderName| own(name).filter(|_| !rfc);
    let conditions = Conditions {
        if_match: theirs(&header::IF_MATCH),
        if_none_match: own(&header::IF_NONE_MATCH),
        if_modified_since: own(&header::IF_MODIFIED_SINCE),
        if_unmodified_since: theirs(&header::IF_UNMODIFIED_SINCE),
        if_range: own(&header::IF_RANGE),
    };
    // RFC 9110, section 14.2: Range means something with GET only, and several fields are no valid one.
    let single = head.headers.get_all(header::RANGE).iter().count() == 1;
    let range = (single && head.method == Method::GET)
        .then(|| headers::text(&head.headers, &header::RANGE).and_then(Spec::parse))
        .flatten();
    let content = name.content_id();
    let slot = if rfc { vary::slot(content) } else { content };
    let asker = rfc.then(|| Arc::new(Asker::of(&head.headers, direct)));
    let head_only = head.method == Method::HEAD;
    Lookup { name, content, slot, site, asker, head_only, range, conditions, origin, direct }
}

/// RFC 9112, section 3.2: exactly one Host field in HTTP/1.1. Its value matters only if it is that of a site:
/// every other name that leads here is served the same files.
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
pub(crate) mod tests {
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
    fn a_site_is_one_content_server_with_path_and_query_as_sent() {
        let at = |host| [("host", host)];
        check("GET", "/a//b/../%61?q=1", &at("www.site.test"), "c3/a//b/../%61?q=1");
        check("GET", "/a", &at("WWW.site.test:8080"), "c3/a");
        check("GET", "/images/a.png?v=1", &at("www.site.test"), "c3/images/a.png");
        check("GET", "http://www.site.test/a", &[], "c3/a");
        check("POST", "/a", &at("www.site.test"), "pass c3/a");
        check("M-SEARCH", "/a?b", &at("www.site.test"), "pass c3/a?b");
        check("CONNECT", "www.site.test:443", &at("www.site.test"), "404");
        check("POST", "/images/a.png", &at("www.site.test"), "405");
        check("OPTIONS", "/a", &[("host", "www.site.test"), ("origin", "https://x")], "pass c3/a");
        check("GET", "/a", &at("other.test"), "404");
    }

    #[test]
    fn a_server_names_the_site() {
        let request = Request::get("/c3/a//b?q=1").header("host", "x").header("sun-site", "www.site.test");
        let (head, ()) = request.body(()).unwrap().into_parts();
        let Parsed::File(lookup) = parse(&head, true, &topology()) else { panic!() };
        assert_eq!((lookup.name.as_str(), lookup.asker.is_some()), ("c3/a//b?q=1", true));
        // A client's means nothing.
        assert!(matches!(parse(&head, false, &topology()), Parsed::Refused(_)));
    }

    #[test]
    fn http_1_1_needs_a_host() {
        let (head, ()) = Request::get("/c7/a.jpg").body(()).unwrap().into_parts();
        assert!(matches!(
            parse(&head, false, &topology()),
            Parsed::Refused(Refusal { status: StatusCode::BAD_REQUEST, .. })
        ));
    }

    #[track_caller]
    fn check(method: &str, uri: &str, headers: &[(&str, &str)], expected: &str) {
        let mut request = Request::builder().method(method).uri(uri);
        // Most cases are about the host that every request has; some bring a second one.
        let site = headers.first().is_some_and(|(name, value)| *name == "host" && value.contains('.'));
        if !site {
            request = request.header("host", "sun4-2-1.example.org");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let answer = match parse(&head, false, &topology()) {
            Parsed::File(lookup) => {
                assert_eq!(lookup.asker.is_some(), lookup.slot != lookup.content);
                let head = if lookup.head_only { " head" } else { "" };
                let range = lookup.range.map(|range| format!(" {range:?}")).unwrap_or_default();
                format!("{}{head}{range}", lookup.name)
            }
            Parsed::Preflight { name, origin, .. } => format!("preflight {name} {origin}"),
            Parsed::Pass(lookup) => format!("pass {}", lookup.name),
            Parsed::Refused(refusal) => refusal.status.as_u16().to_string(),
        };
        assert_eq!(answer, expected, "{method} {uri} {headers:?}");
    }

    pub(crate) fn topology() -> Topology {
        let text = r#"
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
            [[site]]
            host = "www.site.test"
            content_server = 3
            [[site.class]]
            name = "images"
            paths = ["/images/*"]
            policy = "immutable"
            ignore_query = true"#;
        Topology::parse(text).unwrap()
    }
}
