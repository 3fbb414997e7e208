//! From a request's head to a [`Lookup`], or to the refusal the client gets. Pure.
//!
//! ```text
//!   host is a site's   cdn.example.org/list?page=2   c7/list?page=2   GET, HEAD --> File
//!                                                                     others    --> Pass
//!   any other host     /c7/a.jpg?e=1&k=a&s=...       c7/a.jpg         GET, HEAD --> File
//!                      /s.1.2.a.../c7/b/a.jpg        c7/b/a.jpg       (signed links: popularity_api::signing)
//!                                                    a class with uploads: POST, PUT, PATCH, DELETE, ... --> Pass
//! ```
//!
//! Only what a `Lookup` holds goes any further (under the policy "rfc" the client's end-to-end fields are in it, for the
//! content server): no port, cookie or forwarded header of a client reaches a decision
//! about where bytes come from. Its host chooses among the topology's sites and does nothing else; its query is part
//! of a site's name, and under `/c...` goes upstream with what is passed (a content server's own signature of an
//! upload may be in it), but not with what is cached.

use std::net::IpAddr;
use std::sync::Arc;

use geo::topology::{Class, Policy, SignedLinks, Site};
use geo::{CanonicalName, ContentId, NameError, Topology};
use http::header::{self, HeaderName};
use http::{HeaderMap, Method, StatusCode, Version, request};
use popularity_api::signing::{self, Denied, Keys};

use crate::caching::vary;
use crate::errand::{Errand, Said};
use crate::headers;
use crate::multipart::Several;
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
    /// What the client said; only under the policy "rfc".
    pub said: Option<Arc<Said>>,
    /// HEAD: the same without a body.
    pub head_only: bool,
    /// The part asked for; of several the one that leads ([`Several::lead`]).
    pub range: Option<Spec>,
    /// The parts asked for, when the header is a list.
    pub several: Option<Several>,
    /// Conditions on it.
    pub conditions: Conditions,
    /// The page that asks by script.
    pub origin: Option<String>,
    /// It came from a server, through the internal listener.
    pub direct: bool,
    /// A server asks only for what is held (RFC 9111, section 5.2.1.7): no fill is joined or begun for it.
    pub held_only: bool,
    /// Host of the site whose URL it was asked for by.
    pub site: Option<Arc<str>>,
    /// Its class lets pages read it by script.
    pub cors: bool,
    /// It needs a signed link, made so: a client asks for a file of a class that says so.
    pub signed: Option<SignedLinks>,
}

/// A request that goes to the content server as it is, and whose answer is not kept.
#[derive(Clone, Debug)]
pub struct Pass {
    /// The file that it is about.
    pub name: CanonicalName,
    /// What the content server is asked for: the same with the whole query.
    pub target: CanonicalName,
    /// Host of the site whose URL it names.
    pub site: Option<Arc<str>>,
    /// The page that asks by script.
    pub origin: Option<String>,
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
        /// Host of the site whose URL it names.
        site: Option<Arc<str>>,
        /// The page.
        origin: String,
    },
    /// Something that only the content server can answer.
    Pass(Pass),
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

/// Reads a request's head. What the CDN calls itself in `CDN-Loop` is the topology's domain.
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
    if direct && let Some(host) = headers::text(&head.headers, &SITE) {
        return read_written(head, topology.site(host), topology);
    }
    let site = if direct { None } else { host(head).and_then(|host| topology.site(host)) };
    match site {
        Some(site) => read_sites(head, site),
        None => read_file(head, direct, topology),
    }
}

/// A request of a server for a site's file: it names it as it is written.
fn read_written(head: &request::Parts, site: Option<&Site>, topology: &Topology) -> Result<Parsed, Refusal> {
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    let name = CanonicalName::from_written(target.strip_prefix('/').unwrap_or(target)).map_err(refusal_of)?;
    match head.method {
        Method::GET | Method::HEAD => {
            let class = topology.class_for(site, &name);
            Ok(Parsed::File(lookup(head, name, true, site, class)))
        }
        _ => Err(only_read()),
    }
}

/// A request by a site's URL.
fn read_sites(head: &request::Parts, site: &Site) -> Result<Parsed, Refusal> {
    let (path, query) = (head.uri.path(), head.uri.query());
    let class = site.class_of(path);
    let name = |query| CanonicalName::for_site(site.content_server, path, query).map_err(refusal_of);
    let key = name(query.filter(|_| !class.ignore_query))?;
    match head.method {
        Method::GET | Method::HEAD => Ok(Parsed::File(lookup(head, key, false, Some(site), class))),
        // Answered by nobody: TRACE shows what was added on the way (RFC 9110, section 9.3.8), CONNECT is no request
        // for a file.
        Method::TRACE | Method::CONNECT => Err(only_read()),
        Method::OPTIONS if class.cors.is_some() && is_preflight(head) => Ok(preflight(head, key, Some(site))),
        _ => Ok(Parsed::Pass(pass(head, key, name(query)?, Some(site)))),
    }
}

/// A request under `/c...`.
fn read_file(head: &request::Parts, direct: bool, topology: &Topology) -> Result<Parsed, Refusal> {
    // Servers ask for the file itself.
    let path = if direct { head.uri.path() } else { signing::split(head.uri.path()).1 };
    let name = CanonicalName::from_url_path(path).map_err(refusal_of)?;
    // Once a request: it goes through the patterns of all classes.
    let class = topology.class_of(&name);
    let uploads = !direct && class.uploads.is_some();
    match head.method {
        Method::HEAD if uploads && is_about_an_upload(&head.headers) => {}
        Method::GET | Method::HEAD => return Ok(Parsed::File(lookup(head, name, direct, None, class))),
        Method::OPTIONS if uploads && !is_preflight(head) => {}
        Method::OPTIONS if head.headers.contains_key(header::ORIGIN) => return Ok(preflight(head, name, None)),
        Method::POST | Method::PUT | Method::PATCH | Method::DELETE if uploads => {}
        _ => return Err(only_read()),
    }
    let target = CanonicalName::for_site(name.content_server(), name.path(), head.uri.query()).map_err(refusal_of)?;
    Ok(Parsed::Pass(pass(head, name, target, None)))
}

/// Whether a request for a file that needs a signed link, made as `links` says, has one that is good at `now_s` (seconds
/// since 1970).
///
/// # Errors
///
/// [`Denied`].
pub fn admit(
    uri: &http::Uri,
    name: &CanonicalName,
    links: SignedLinks,
    topology: &Topology,
    keys: &Keys,
    now_s: u64,
) -> Result<(), Denied> {
    // A class is signed only in a topology that has keys.
    let signing = topology.signing.as_ref().ok_or(Denied::UnknownKey)?;
    signing::check(name.as_str(), signing::split(uri.path()).0, uri.query(), links, signing, keys, now_s)
}

/// What a client is told whose link is not good.
#[must_use]
pub fn denied(denied: Denied) -> Refusal {
    let status = match denied {
        Denied::NoSecret => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::FORBIDDEN,
    };
    Refusal::new(status, denied.to_string())
}

/// A resumable upload's state is asked for with HEAD; no cache can know it (tus 1.0, "Core protocol";
/// draft-ietf-httpbis-resumable-upload, "Offset retrieval").
fn is_about_an_upload(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("tus-") || name.as_str().starts_with("upload-"))
}

/// The Fetch standard, "CORS-preflight request".
fn is_preflight(head: &request::Parts) -> bool {
    head.headers.contains_key(header::ORIGIN) && head.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn only_read() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "a file is asked for with GET or HEAD")
}

fn refusal_of(error: NameError) -> Refusal {
    let status = match error {
        NameError::NotAFile => StatusCode::NOT_FOUND,
        NameError::SiteTooLong => StatusCode::URI_TOO_LONG,
        _ => StatusCode::BAD_REQUEST,
    };
    Refusal::new(status, error.to_string())
}

fn preflight(head: &request::Parts, name: CanonicalName, site: Option<&Site>) -> Parsed {
    let origin = headers::text(&head.headers, &header::ORIGIN).unwrap_or_default().to_owned();
    Parsed::Preflight { name, site: site.map(host_of), origin }
}

fn pass(head: &request::Parts, name: CanonicalName, target: CanonicalName, site: Option<&Site>) -> Pass {
    let origin = headers::text(&head.headers, &header::ORIGIN).map(str::to_owned);
    Pass { name, target, site: site.map(host_of), origin }
}

fn host_of(site: &Site) -> Arc<str> {
    site.host.as_str().into()
}

fn lookup(head: &request::Parts, name: CanonicalName, direct: bool, site: Option<&Site>, class: &Class) -> Lookup {
    let own = |name: &HeaderName| headers::text(&head.headers, name).map(str::to_owned);
    let rfc = class.policy == Policy::Rfc;
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
    let asked = headers::text(&head.headers, &header::RANGE).filter(|_| single && head.method == Method::GET);
    let several = asked.and_then(Several::parse);
    let range = several.as_ref().map(Several::lead).or_else(|| asked.and_then(Spec::parse));
    let content = name.content_id();
    let cache_control = headers::text(&head.headers, &header::CACHE_CONTROL);
    // Under the policy "rfc" the field is the client's own.
    let held_only = direct && !rfc && cache_control.is_some_and(|asked| asked == crate::upstream::ONLY_IF_CACHED);
    let origin = own(&header::ORIGIN);
    let head_only = head.method == Method::HEAD;
    let slot = if rfc { vary::slot(content) } else { content };
    let said = rfc.then(|| Arc::new(Said::of(&head.headers, direct)));
    let signed = class.signed.filter(|_| !direct);
    let (site, cors) = (site.map(host_of), class.cors.is_some());
    Lookup {
        name,
        content,
        slot,
        said,
        head_only,
        range,
        several,
        conditions,
        origin,
        direct,
        held_only,
        site,
        cors,
        signed,
    }
}

impl Lookup {
    /// The same as a client at `address` asks for it: a site's content server is told.
    #[must_use]
    pub fn from_client(mut self, address: IpAddr) -> Self {
        if let (Some(site), Some(said)) = (&self.site, self.said.as_mut().and_then(Arc::get_mut)) {
            said.introduce(site, address);
        }
        self
    }

    /// What is fetched for it.
    #[must_use]
    pub fn errand(&self) -> Errand {
        Errand { name: self.name.clone(), content: self.content, site: self.site.clone(), said: self.said.clone() }
    }

    /// Whether only the content server may see it.
    #[must_use]
    pub fn personal(&self) -> bool {
        self.said.as_ref().is_some_and(|said| said.personal)
    }
}

/// The hostname that the request is for, without a port (RFC 9110, section 7.2; RFC 9112, section 3.3): the target's
/// own where it has one, which also is HTTP/2's `:authority`.
fn host(head: &request::Parts) -> Option<&str> {
    let named = head.uri.host().or_else(|| {
        let host = headers::text(&head.headers, &header::HOST)?;
        let port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        Some(host.rsplit_once(':').filter(|(_, digits)| port(digits)).map_or(host, |(host, _)| host))
    })?;
    // One dot at the end says that the name is whole.
    Some(named.strip_suffix('.').unwrap_or(named))
}

/// In requests between servers: by which site's URL the file was asked for. The path then is the file's name as it is
/// written, query and all.
pub const SITE: HeaderName = HeaderName::from_static("sun-site");

/// RFC 9112, section 3.2: exactly one Host field in HTTP/1.1. Every name that leads here and is no site's is served
/// the same files.
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
        check("GET", "/s.1.2.a.b/c7/b/a.jpg", &[], "c7/b/a.jpg");
        check("GET", "/s.1.2.a.b/s.1.2.a.b/c7/b/a.jpg", &[], "404");
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
        let parsed = parse(&head, false, &topology());
        assert!(matches!(parsed, Parsed::Refused(Refusal { status: StatusCode::BAD_REQUEST, .. })));
    }

    #[test]
    fn a_sites_host_decides_what_its_urls_name() {
        check_host("cdn.example.net", "/a.jpg", "c9/a.jpg (cdn.example.net)");
        check_host("CDN.Example.NET.:8443", "/c7/a.jpg?b=/../c", "c9/c7/a.jpg?b=/../c (cdn.example.net)");
        check_host("cdn.example.net", "//a/../%2f?", "c9//a/../%2f? (cdn.example.net)");
        check_host("cdn.example.net", "/still/a?b=c", "c9/still/a (cdn.example.net)");
        check_host("cdn.example.net", &format!("/{}", "a".repeat(5000)), "414");
        check_host("sun4-2-1.example.org", "http://cdn.example.net:80/a", "c9/a (cdn.example.net)");
        check_host("cdn.example.net", "http://other.example.net/c7/a", "c7/a");
        check_host("other.cdn.example.net", "/c7/a", "c7/a");
        check_host("[cdn.example.net]", "/c7/a", "c7/a");
        check_host("cdn.example.net:x", "/c7/a", "c7/a");
        check_host("user@cdn.example.net", "/c7/a", "c7/a");
    }

    #[test]
    fn what_only_a_content_server_can_answer_is_passed() {
        let site = [("host", "cdn.example.net")];
        check_own("POST", "/still/a?b=c", &site, "pass c9/still/a as c9/still/a?b=c (cdn.example.net)");
        check_own("OPTIONS", "/a", &site, "pass c9/a as c9/a (cdn.example.net)");
        check_own("NEW-METHOD", "/a", &site, "pass c9/a as c9/a (cdn.example.net)");
        check_own("TRACE", "/a", &site, "405");
        let asks = ("access-control-request-method", "PUT");
        let page = [("host", "cdn.example.net"), ("origin", "https://page"), asks];
        check_own("OPTIONS", "/a", &page, "pass c9/a as c9/a (cdn.example.net)");
        check_own("OPTIONS", "/still/a", &page, "preflight c9/still/a https://page (cdn.example.net)");

        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            check(method, "/c7/up/a?hash=1", &[], "pass c7/up/a as c7/up/a?hash=1");
            check(method, "/c7/a", &[], "405");
            check(method, "/c7/up/../a", &[], "400");
        }
        check("HEAD", "/c7/up/a?hash=1", &[("tus-resumable", "1.0.0")], "pass c7/up/a as c7/up/a?hash=1");
        check("HEAD", "/c7/up/a", &[], "c7/up/a head");
        check("HEAD", "/c7/a", &[("tus-resumable", "1.0.0")], "c7/a head");
        check("OPTIONS", "/c7/up/a", &[("origin", "https://page")], "pass c7/up/a as c7/up/a");
        check("OPTIONS", "/c7/up/a", &[("origin", "https://page"), asks], "preflight c7/up/a https://page");
        check("TRACE", "/c7/up/a", &[], "405");
    }

    #[test]
    fn a_server_names_a_sites_file_as_it_is_written() {
        let site = [("host", "10.0.0.1"), ("sun-site", "cdn.example.net")];
        check_direct("GET", "/c9//a/../%61?b", &site, "c9//a/../%61?b (cdn.example.net)");
        check_direct("GET", "/c9//a", &[("host", "10.0.0.1"), ("sun-site", "unknown")], "c9//a");
        check_direct("POST", "/c9/a", &site, "405");
        check_direct("GET", "/c9//a", &[("host", "10.0.0.1")], "400");
        check_direct("GET", "/c9/a", &[("host", "cdn.example.net")], "c9/a");
        check_direct("GET", "/s.1.2.a.b/c9/a", &[("host", "10.0.0.1")], "404");
        check_direct("PUT", "/c7/up/a", &[("host", "10.0.0.1")], "405");
        // A client's header of that name means nothing.
        check("GET", "/c9//a", &[("sun-site", "cdn.example.net")], "400");
    }

    #[track_caller]
    fn check_host(host: &str, uri: &str, expected: &str) {
        check_own("GET", uri, &[("host", host)], expected);
    }

    #[track_caller]
    fn check_own(method: &str, uri: &str, headers: &[(&str, &str)], expected: &str) {
        assert_eq!(answer(method, uri, headers, false), expected, "{method} {uri:.80} {headers:?}");
    }

    #[track_caller]
    fn check_direct(method: &str, uri: &str, headers: &[(&str, &str)], expected: &str) {
        assert_eq!(answer(method, uri, headers, true), expected, "{method} {uri} {headers:?}");
    }

    fn topology() -> Topology {
        let text = "version = 1\ndomain = \"example.org\"\ndefault_region = 4\n\
            [content_servers]\nurl = \"http://cs{number}.storage\"\nnumbers = [\"1-9\"]\n\
            [[region]]\nid = 4\nname = \"Moscow\"\nlatitude = 55.75\nlongitude = 37.6\n\
            [[class]]\nname = \"up\"\npaths = [\"c*/up/*\"]\nuploads = { bytes_max = 5 }\n\
            [[site]]\nhost = \"cdn.example.net\"\ncontent_server = 9\n\
            [[site.class]]\nname = \"still\"\npaths = [\"/still/*\"]\nignore_query = true\n\
            cors = { origins = [\"*\"] }\n";
        Topology::parse(text).unwrap()
    }

    #[track_caller]
    fn check(method: &str, uri: &str, headers: &[(&str, &str)], expected: &str) {
        let headers: Vec<_> = [("host", "sun4-2-1.example.org")].iter().chain(headers).copied().collect();
        check_own(method, uri, &headers, expected);
    }

    fn answer(method: &str, uri: &str, headers: &[(&str, &str)], direct: bool) -> String {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let of = |site: Option<Arc<str>>| site.map(|host| format!(" ({host})")).unwrap_or_default();
        match parse(&head, direct, &topology()) {
            Parsed::File(lookup) => {
                let head = if lookup.head_only { " head" } else { "" };
                let range = lookup.range.map(|range| format!(" {range:?}")).unwrap_or_default();
                format!("{}{head}{range}{}", lookup.name, of(lookup.site))
            }
            Parsed::Preflight { name, origin, site } => format!("preflight {name} {origin}{}", of(site)),
            Parsed::Pass(pass) => format!("pass {} as {}{}", pass.name, pass.target, of(pass.site)),
            Parsed::Refused(refusal) => refusal.status.as_u16().to_string(),
        }
    }
}
