//! What crosses the edge, by list. Everything that is not named here stays on its side.

use http::HeaderMap;
use http::header::{self, HeaderName};

/// Headers of a content server's response that are kept with the file and sent to clients. No `Set-Cookie`,
/// nothing hop-by-hop, nothing about the content server itself.
pub const KEPT: [HeaderName; 7] = [
    header::CONTENT_TYPE,
    header::CONTENT_LANGUAGE,
    header::CONTENT_DISPOSITION,
    header::ETAG,
    header::LAST_MODIFIED,
    header::CACHE_CONTROL,
    header::EXPIRES,
];

/// The kept headers of a response: the first value of each that is at most [`VALUE_BYTES_MAX`] long.
#[must_use]
pub fn kept(response: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(KEPT.len());
    for name in KEPT {
        if let Some(value) = response.get(&name).filter(|value| value.len() <= VALUE_BYTES_MAX) {
            headers.insert(name, value.clone());
        }
    }
    headers
}

/// Longest header value that is kept, bytes: with seven of them a file's headers stay under 4 KiB.
pub const VALUE_BYTES_MAX: usize = 512;

/// Values that are text, else nothing.
#[must_use]
pub fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_listed_headers_are_kept() {
        let mut response = HeaderMap::new();
        for (name, value) in [
            ("content-type", "image/png"),
            ("etag", "\"a\""),
            ("set-cookie", "session=1"),
            ("server", "apache"),
            ("x-internal", "10.0.0.1"),
            ("connection", "close"),
            ("content-encoding", "gzip"),
        ] {
            response.insert(name, HeaderValue::from_static(value));
        }
        let kept = kept(&response);
        let mut names: Vec<&str> = kept.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "etag"]);
    }

    #[test]
    fn a_value_that_is_too_long_is_left_out() {
        let mut response = HeaderMap::new();
        response.insert(header::ETAG, HeaderValue::from_str(&"a".repeat(VALUE_BYTES_MAX + 1)).unwrap());
        assert!(kept(&response).is_empty());
    }
}
