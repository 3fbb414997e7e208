//! What a request has fetched for it: a name, and under the policy "rfc" what the client said.
//!
//! Media are fetched by name alone, whoever asks. Under the policy "rfc" the client's end-to-end fields go
//! upstream, since the answer may depend on any of them; conditions and ranges do not, they are made anew from
//! what is held. Nor does what a client says of where it comes from and which host it means: a site's content server
//! hears that from the sun that the client asked ([`Said::introduce`]), by way of the sun that owns the file. Why an `Arc`: the answer's body, its fills and what is asked behind it outlive the request.

use std::net::IpAddr;
use std::sync::Arc;

use geo::topology::{Class, Site};
use geo::{CanonicalName, ContentId, Topology};
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue};

use crate::caching::directives::RequestDirectives;
use crate::caching::update;
use crate::pass::crossing;
use crate::request::SITE;

/// See the module's doc.
#[derive(Clone, Debug)]
pub struct Errand {
    /// The file.
    pub name: CanonicalName,
    /// Its id.
    pub content: ContentId,
    /// The hostname of the site that it was asked for at.
    pub site: Option<Arc<str>>,
    /// What the client said; only under the policy "rfc".
    pub said: Option<Arc<Said>>,
}

/// What matters of a client's request beside the name.
#[derive(Clone, Debug)]
pub struct Said {
    /// Fields that go upstream.
    pub headers: HeaderMap,
    /// What they say to caches.
    pub directives: RequestDirectives,
    /// `Range` as sent.
    pub range: Option<HeaderValue>,
    /// `If-None-Match` as sent.
    pub if_none_match: Option<HeaderValue>,
    /// `If-Modified-Since` as sent.
    pub if_modified_since: Option<HeaderValue>,
    /// With `Authorization`: the answer is kept only if it says so.
    pub authorized: bool,
    /// With `Authorization` or `Cookie`: only the content server sees it.
    pub personal: bool,
    /// With a condition that only the content server can judge (RFC 9111, section 4.3.2).
    pub conditional: bool,
}

impl Errand {
    /// The class of the file as it was asked for.
    #[must_use]
    pub fn class<'a>(&self, topology: &'a Topology) -> &'a Class {
        class_of(topology, self.site.as_deref(), &self.name)
    }
}

/// The class of a file, at a site if it was asked for there. A site that is gone meanwhile has no classes.
#[must_use]
pub fn class_of<'a>(topology: &'a Topology, site: Option<&str>, name: &CanonicalName) -> &'a Class {
    let site: Option<&Site> = site.and_then(|host| topology.site(host));
    topology.class_for(site, name)
}

impl Said {
    /// Reads a request's headers. `from_server`: `Authorization` is a server's of ours and goes no further, and whom it
    /// asks for is believed.
    #[must_use]
    pub fn of(request: &HeaderMap, from_server: bool) -> Self {
        let mut headers = update::end_to_end(request);
        for name in OUR_BUSINESS {
            headers.remove(name);
        }
        let believed =
            |name: &HeaderName| from_server && (*name == crossing::FORWARDED_FOR || *name == crossing::FORWARDED_HOST);
        let claimed = |name: &&HeaderName| crossing::is_ours(name.as_str()) && !believed(name);
        let claims: Vec<HeaderName> = headers.keys().filter(claimed).cloned().collect();
        for name in claims {
            headers.remove(name);
        }
        if from_server {
            headers.remove(header::AUTHORIZATION);
        }
        let conditional = headers.contains_key(header::IF_MATCH) || headers.contains_key(header::IF_UNMODIFIED_SINCE);
        let authorized = headers.contains_key(header::AUTHORIZATION);
        Self {
            directives: RequestDirectives::of(request),
            range: request.get(header::RANGE).cloned(),
            if_none_match: request.get(header::IF_NONE_MATCH).cloned(),
            if_modified_since: request.get(header::IF_MODIFIED_SINCE).cloned(),
            authorized,
            personal: authorized || headers.contains_key(header::COOKIE),
            conditional,
            headers,
        }
    }

    /// Says for whom, and by which of its hosts, a site is asked.
    pub fn introduce(&mut self, site: &str, client: IpAddr) {
        crossing::introduce(&mut self.headers, site, client);
    }
}

/// Fields that this server makes anew or answers itself.
const OUR_BUSINESS: [HeaderName; 8] = [
    SITE,
    header::HOST,
    header::RANGE,
    header::IF_RANGE,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::CONTENT_LENGTH,
    header::EXPECT,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_and_ranges_stay_here_and_the_rest_goes_on() {
        let headers = map(&[
            ("host", "h"),
            ("range", "bytes=-5"),
            ("if-none-match", "\"a\""),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("accept", "*/*"),
            ("cache-control", "no-cache"),
            ("sun-site", "other.test"),
        ]);
        let said = Said::of(&headers, false);
        let mut names: Vec<_> = said.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "cache-control"]);
        assert_eq!(said.range.as_ref().unwrap(), "bytes=-5");
        assert!(said.directives.no_cache && !said.personal);
    }

    #[test]
    fn what_is_somebodys_is_told() {
        let said = |name, from_server| Said::of(&map(&[(name, "x")]), from_server);
        assert!(said("authorization", false).authorized && said("authorization", false).personal);
        assert!(!said("authorization", true).personal, "it is a server's token");
        assert!(!said("cookie", false).authorized && said("cookie", false).personal);
        assert!(said("if-match", false).conditional && !said("if-none-match", false).conditional);
    }

    #[test]
    fn who_asks_by_which_host_is_not_the_clients_to_say() {
        let claims = [
            ("forwarded", "for=192.0.2.1;host=evil.test"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-host", "evil.test"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-prefix", "/evil"),
            ("x-original-url", "/evil"),
            ("x-real-ip", "192.0.2.1"),
            ("x-any", "a"),
        ];
        check_introduced(&claims, false, "x-any:a x-forwarded-for:192.0.2.9 x-forwarded-host:www.site.test");
        let mut said = Said::of(&map(&claims), true);
        said.headers.remove("x-any");
        assert_eq!(said.headers.len(), 2, "what a server says of its client: {:?}", said.headers);
        assert_eq!(said.headers["x-forwarded-for"], "192.0.2.1");
    }

    #[track_caller]
    fn check_introduced(sent: &[(&'static str, &'static str)], from_server: bool, expected: &str) {
        let mut said = Said::of(&map(sent), from_server);
        said.introduce("www.site.test", [192, 0, 2, 9].into());
        let mut lines: Vec<String> =
            said.headers.iter().map(|(name, value)| format!("{name}:{}", value.to_str().unwrap())).collect();
        lines.sort();
        assert_eq!(lines.join(" "), expected);
    }

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }
}
