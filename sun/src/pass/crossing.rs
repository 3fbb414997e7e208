//! Which headers of what is passed go up and which come down. Pure.
//!
//! ```text
//!              up                                          down
//!   /c...      what describes a body, what resumable        the same, and Location in this CDN's own terms
//!              uploads need, conditions
//!   a site     everything that is between the ends: a sun   everything that is between the ends
//!              is not to be noticed
//! ```
//!
//! What is between two hops (RFC 9110, section 7.6.1) never crosses, and who the client is comes from its socket:
//! forwarded headers of its own are dropped, here and where what is asked is kept ([`crate::errand`]).

use std::net::IpAddr;

use geo::CanonicalName;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue};

use crate::purge;
use crate::request::SITE;

/// Under `/c...`: what goes up, besides `upload-*` and `tus-*`. No cookie and no `Authorization`: who may upload is
/// told in the query, as the content server signs it.
const UP: [&str; 16] = [
    "accept",
    "content-type",
    "content-length",
    "content-range",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-md5",
    "content-digest",
    "repr-digest",
    "want-content-digest",
    "want-repr-digest",
    "digest",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
];

/// Under `/c...`: what comes down, besides `upload-*` and `tus-*`. `range` is how some protocols say how much of an
/// upload is there.
const DOWN: [&str; 17] = [
    "allow",
    "accept-patch",
    "accept-post",
    "cache-control",
    "content-type",
    "content-length",
    "content-language",
    "content-location",
    "content-digest",
    "repr-digest",
    "date",
    "etag",
    "last-modified",
    "location",
    "range",
    "retry-after",
    "expires",
];

/// Between two hops (RFC 9110, section 7.6.1; RFC 9113, section 8.2.2), whether `Connection` names them or not.
const HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Of a client's request to a site, what is this server's own to say, besides `x-forwarded-*`: where it came from, by
/// which host, and for which file. Programs behind a proxy believe these fields; in an answer that is kept for everybody
/// one client's would be told to all.
const OURS: [&str; 13] = [
    "host",
    "expect",
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "x-host",
    "x-original-host",
    "x-http-host-override",
    "x-original-url",
    "x-rewrite-url",
    SITE_NAME,
];
const SITE_NAME: &str = "sun-site";

/// The client's address, for the content server of a site.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The site's host, for its content server.
pub const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Whether a field of a request to a site is this server's own to say, in lower case.
#[must_use]
pub fn is_ours(name: &str) -> bool {
    OURS.contains(&name) || name.starts_with("x-forwarded-")
}

/// Says for whom and by which host a site is asked.
pub fn introduce(headers: &mut HeaderMap, site: &str, address: IpAddr) {
    for (name, value) in [(FORWARDED_FOR, address.to_string()), (FORWARDED_HOST, site.to_owned())] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
}

/// What scripts of other pages may send with an upload, for the answer to a preflight.
pub const UPLOAD_HEADERS: &str = "Range, If-Range, If-Match, If-None-Match, Content-Type, Content-Range, \
    Content-Disposition, Content-Encoding, Content-Digest, Repr-Digest, Tus-Resumable, Upload-Length, Upload-Offset, \
    Upload-Metadata, Upload-Defer-Length, Upload-Concat, Upload-Checksum, Upload-Complete, \
    Upload-Draft-Interop-Version";

/// The headers of a request as the content server gets them. `site` is the host of the site whose URL it is.
#[must_use]
pub fn up(client: &HeaderMap, site: Option<&str>, address: IpAddr) -> HeaderMap {
    debug_assert_eq!(SITE.as_str(), SITE_NAME);
    let Some(site) = site else { return listed(client, &UP) };
    let mut headers = between_ends(client, is_ours);
    introduce(&mut headers, site, address);
    headers
}

/// By which URLs a content server knows itself.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// Where it is, `http://cs7.storage.example.org`.
    pub base: &'a str,
    /// What it is asked as instead.
    pub host: Option<&'a str>,
}

/// The headers of a response as the client gets them: what the content server says of itself in `Location` and
/// `Content-Location` is told in terms of the URLs that clients know.
#[must_use]
pub fn down(server: &HeaderMap, target: &CanonicalName, at: At<'_>, site: bool) -> HeaderMap {
    let mut headers = if site { between_ends(server, purge::headers::ends_here) } else { listed(server, &DOWN) };
    let folder = if site { String::new() } else { format!("/c{}", target.content_server()) };
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        let told = headers.get(&name).and_then(|value| value.to_str().ok()).and_then(|url| public(url, at, &folder));
        if let Some(Ok(value)) = told.map(|told| HeaderValue::from_str(&told)) {
            headers.insert(name, value);
        }
    }
    headers
}

/// A URL of the content server's as clients know it; nothing when it is somebody else's, or relative to where it is.
fn public(url: &str, At { base, host }: At<'_>, folder: &str) -> Option<String> {
    let begins_a_path = |rest: &&str| rest.starts_with('/') && !rest.starts_with("//");
    let of_host = |host| url.strip_prefix("http://")?.strip_prefix(host).filter(begins_a_path);
    let url = host.and_then(of_host).unwrap_or(url);
    let prefix = base.strip_prefix("http://").and_then(|rest| rest.split_once('/')).map_or("", |(_, path)| path);
    let path = match url.strip_prefix(base).filter(begins_a_path) {
        Some(path) => path,
        None if begins_a_path(&url) && prefix.is_empty() => url,
        None if prefix.is_empty() => return None,
        None => url.strip_prefix('/')?.strip_prefix(prefix).filter(begins_a_path)?,
    };
    Some(format!("{folder}{path}"))
}

fn listed(headers: &HeaderMap, list: &[&str]) -> HeaderMap {
    let crosses = |name: &HeaderName| {
        let name = name.as_str();
        list.contains(&name) || name.starts_with("upload-") || name.starts_with("tus-")
    };
    select(headers, crosses)
}

fn between_ends(headers: &HeaderMap, but: impl Fn(&str) -> bool) -> HeaderMap {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    select(headers, |name| {
        let name = name.as_str();
        !HOP.contains(&name) && !but(name) && !named.iter().any(|other| other == name)
    })
}

/// Headers are bounded where they come in: requests by the listener, responses by the client that reads them.
fn select(headers: &HeaderMap, crosses: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    let chosen = headers.iter().filter(|(name, _)| crosses(name));
    chosen.map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_takes_its_own_headers_and_nobodys_secrets() {
        let sent = "content-type:a content-length:5 content-range:b upload-offset:7 tus-resumable:1.0.0 repr-digest:c \
            authorization:d cookie:e host:f x-forwarded-for:g connection:close expect:100-continue sun-site:h x-any:i";
        check_up(
            sent,
            None,
            "content-length:5 content-range:b content-type:a repr-digest:c tus-resumable:1.0.0 upload-offset:7",
        );
    }

    #[test]
    fn a_site_gets_what_is_between_the_ends() {
        let sent = "cookie:a authorization:b x-any:c host:d connection:x-hop,keep-alive x-hop:e te:f upgrade:g \
            proxy-authorization:h x-forwarded-for:i forwarded:j x-real-ip:k sun-site:l x-forwarded-prefix:o x-original-url:p expect:m content-type:n";
        let told = "authorization:b content-type:n cookie:a x-any:c x-forwarded-for:192.0.2.9 \
            x-forwarded-host:cdn.example.net";
        check_up(sent, Some("cdn.example.net"), told);
    }

    #[test]
    fn a_response_is_told_in_terms_of_the_urls_that_clients_know() {
        let (named, folder) = ("http://cs7.storage", "http://h:80/cs7");
        check_location("http://cs7.storage/up/1?a=b", named, "/c7/up/1?a=b", "/up/1?a=b");
        check_location("/up/1", named, "/c7/up/1", "/up/1");
        check_location("http://h:80/cs7/up/1", folder, "/c7/up/1", "/up/1");
        check_location("/cs7/up/1", folder, "/c7/up/1", "/up/1");
        for others in ["http://cs7.storage.evil/up", "//evil/up", "up/1", "http://cs8.storage/up", "?a"] {
            check_location(others, named, others, others);
        }
        check_location("http://cdn.example.net/up/1", named, "/c7/up/1", "/up/1");
        check_location("http://cdn.example.net/cs7/up/1", folder, "/c7/up/1", "/up/1");
        for others in ["http://cdn.example.net.evil/up", "http://cdn.example.net//evil", "http://evil/cdn.example.net/"]
        {
            check_location(others, named, others, others);
        }
        for others in ["/cs77/up", "/up/1", "http://h:80/cs77/up", "http://h:80/"] {
            check_location(others, folder, others, others);
        }
    }

    #[test]
    fn a_response_to_an_upload_sets_no_cookie() {
        let server = headers(
            "set-cookie:a server:b cache-tag:f surrogate-key:g sun-purge-tags:h sun-purge-mark:i location:/d upload-offset:5 tus-version:1.0.0 etag:e connection:x",
        );
        let name = CanonicalName::parse("c7/up").unwrap();
        let at = At { base: "http://cs7.storage", host: None };
        let told = text(&down(&server, &name, at, false));
        assert_eq!(told, "etag:e location:/c7/d tus-version:1.0.0 upload-offset:5");
        let told = text(&down(&server, &name, at, true));
        assert_eq!(told, "etag:e location:/d server:b set-cookie:a tus-version:1.0.0 upload-offset:5");
    }

    #[track_caller]
    fn check_up(sent: &str, site: Option<&str>, expected: &str) {
        assert_eq!(text(&up(&headers(sent), site, [192, 0, 2, 9].into())), expected);
    }

    #[track_caller]
    fn check_location(url: &str, base: &str, in_files: &str, in_site: &str) {
        let name = CanonicalName::parse("c7/up").unwrap();
        let server = [(header::LOCATION, HeaderValue::from_str(url).unwrap())].into_iter().collect();
        let at = At { base, host: Some("cdn.example.net") };
        let told = |site| down(&server, &name, at, site)[header::LOCATION].to_str().unwrap().to_owned();
        assert_eq!((told(false).as_str(), told(true).as_str()), (in_files, in_site), "{url} at {base}");
    }

    /// `name:value`, between blanks.
    fn headers(text: &str) -> HeaderMap {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once(':').unwrap();
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
        };
        text.split_whitespace().map(pair).collect()
    }

    /// The same, sorted.
    fn text(headers: &HeaderMap) -> String {
        let mut pairs: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}:{}", value.to_str().unwrap())).collect();
        pairs.sort();
        pairs.join(" ")
    }
}
