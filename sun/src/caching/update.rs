//! Which fields of a message go on, which are kept, and what a later response makes of them (RFC 9110, section
//! 7.6.1; RFC 9111, sections 3.1, 3.2 and 4.3.5).

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue};

use crate::caching::directives::members;

/// The fields of a message that are meant for its end: not those of the connection, nor those that `Connection`
/// lists.
#[must_use]
pub fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    for line in headers.get_all(header::CONNECTION) {
        for name in line.to_str().into_iter().flat_map(members) {
            // `close` and `keep-alive` name no field that matters either.
            kept.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        kept.remove(*name);
    }
    kept
}

/// What is kept of a response's end-to-end fields; nothing when they are too many or too long to be.
#[must_use]
pub fn stored(end_to_end: &HeaderMap, withheld: &[HeaderName]) -> Option<HeaderMap> {
    let mut kept = end_to_end.clone();
    for name in withheld {
        kept.remove(name);
    }
    for name in [header::CONTENT_LENGTH, header::AGE] {
        kept.remove(name);
    }
    let bytes: usize = kept.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    (kept.len() <= FIELDS_MAX && bytes <= BYTES_MAX).then_some(kept)
}

/// The stored fields as a 304, or a 200 to HEAD, updates them: each field that the response has replaces all of
/// its name, but for those that say how the stored bytes are framed (RFC 9111, section 3.2).
#[must_use]
pub fn updated(held: &HeaderMap, response: &HeaderMap) -> HeaderMap {
    let mut fields = held.clone();
    // Newly invented fields are added up to the bound that a whole response has.
    let room = |fields: &HeaderMap, name: &HeaderName| fields.len() < FIELDS_MAX || held.contains_key(name);
    for name in response.keys().filter(|name| !FRAMING.contains(name)) {
        fields.remove(name);
        for value in response.get_all(name) {
            if room(&fields, name) && fields.len() < 2 * FIELDS_MAX {
                fields.append(name.clone(), value.clone());
            }
        }
    }
    fields
}

/// Whether a response is about the version that is held, as far as it tells (RFC 9111, section 4.3.5): its
/// validators and length are the same or absent.
#[must_use]
pub fn agrees(held: &HeaderMap, held_size: Option<u64>, response: &HeaderMap) -> bool {
    let same = |name: &HeaderName| response.get(name).is_none_or(|value| held.get(name) == Some(value));
    let length = response.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let same_length = length.is_none_or(|length| held_size == Some(length));
    same(&header::ETAG) && same(&header::LAST_MODIFIED) && same_length
}

/// Adds this server to `Via` (RFC 9110, section 7.6.3), behind those that the message has passed.
#[must_use]
pub fn via(headers: &HeaderMap, me: &HeaderValue) -> HeaderValue {
    let mut line = Vec::new();
    for value in headers.get_all(header::VIA).iter().take(VIA_MAX) {
        line.extend_from_slice(value.as_bytes());
        line.extend_from_slice(b", ");
    }
    line.extend_from_slice(me.as_bytes());
    HeaderValue::from_bytes(&line).unwrap_or_else(|_| me.clone())
}

/// Fields of a connection (RFC 9110, section 7.6.1, and what older standards have).
const HOP_BY_HOP: [&str; 11] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];
/// Fields that describe the stored bytes, not the newer response.
const FRAMING: [HeaderName; 5] =
    [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_RANGE, header::AGE, header::VIA];
/// Fields of one response that are kept.
pub const FIELDS_MAX: usize = 96;
/// Their names and values together, bytes.
pub const BYTES_MAX: usize = 16 * 1024;
/// `Via` lines that are passed on.
const VIA_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_connection_go_no_further() {
        let headers = map(&[
            ("connection", "a, B"),
            ("a", "1"),
            ("b", "2"),
            ("c", "3"),
            ("keep-alive", "x"),
            ("te", "x"),
            ("upgrade", "x"),
            ("proxy-authorization", "x"),
            ("transfer-encoding", "chunked"),
        ]);
        assert_eq!(names(&end_to_end(&headers)), "c");
    }

    #[test]
    fn what_is_withheld_and_what_is_made_anew_is_not_kept() {
        let headers = map(&[("a", "1"), ("b", "2"), ("age", "3"), ("content-length", "4"), ("set-cookie", "5")]);
        assert_eq!(names(&stored(&headers, &["a".parse().unwrap()]).unwrap()), "b,set-cookie");
    }

    #[test]
    fn what_is_too_much_is_not_kept() {
        let mut many = HeaderMap::new();
        for index in 0..=FIELDS_MAX {
            many.insert(format!("field-{index}").parse::<HeaderName>().unwrap(), HeaderValue::from_static("a"));
        }
        assert_eq!(stored(&many, &[]), None);
        let long = HeaderValue::from_str(&"a".repeat(BYTES_MAX)).unwrap();
        assert_eq!(stored(&HeaderMap::from_iter([(header::ETAG, long)]), &[]), None);
    }

    #[test]
    fn a_304_replaces_fields_but_not_the_framing() {
        let held = map(&[("a", "1"), ("b", "2"), ("b", "3"), ("content-encoding", "gzip"), ("etag", "\"a\"")]);
        let newer = map(&[("b", "4"), ("c", "5"), ("c", "6"), ("content-encoding", "br"), ("content-length", "0")]);
        let fields = updated(&held, &newer);
        assert_eq!(names(&fields), "a,b,c,c,content-encoding,etag");
        assert_eq!(
            (&fields["b"], &fields["content-encoding"]),
            (&HeaderValue::from_static("4"), &HeaderValue::from_static("gzip"))
        );
    }

    #[test]
    fn a_head_is_about_another_version_when_something_differs() {
        let held = map(&[("etag", "\"a\"")]);
        assert!(agrees(&held, Some(5), &map(&[])));
        assert!(agrees(&held, Some(5), &map(&[("etag", "\"a\""), ("content-length", "5")])));
        assert!(!agrees(&held, Some(5), &map(&[("etag", "\"b\"")])));
        assert!(!agrees(&held, Some(5), &map(&[("content-length", "6")])));
        assert!(!agrees(&held, Some(5), &map(&[("last-modified", "x")])));
    }

    #[test]
    fn via_grows_at_its_end() {
        let me = HeaderValue::from_static("1.1 sun");
        assert_eq!(via(&map(&[]), &me), "1.1 sun");
        assert_eq!(via(&map(&[("via", "1.0 a"), ("via", "1.1 b")]), &me), "1.0 a, 1.1 b, 1.1 sun");
    }

    fn names(headers: &HeaderMap) -> String {
        let mut names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.join(",")
    }

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }
}
