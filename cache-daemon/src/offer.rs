//! What a source answers: a whole file that may be kept, or why not. Pure.

use http::header::{self, HeaderName};
use http::{HeaderMap, StatusCode};
use sun::meta::Storable;

/// A file that a source offers.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// Length of the body, bytes.
    pub size: u64,
    /// Headers that are kept with it.
    pub headers: HeaderMap,
    /// When its content server made the response, seconds since 1970.
    pub born_at: u64,
}

/// Why an answer is no offer.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// 404 or 410: the source does not have it.
    #[error("it does not have the file ({0})")]
    Absent(StatusCode),
    /// It has the file, but not in a form that can be kept; asking again soon gives the same.
    #[error("{0}")]
    Unwanted(String),
    /// It answers something else, which may pass.
    #[error("it answers {0}")]
    Status(StatusCode),
}

/// Judges the head of a response.
///
/// # Arguments
///
/// - `size_max`: what the plan made room for, bytes.
/// - `now`: seconds since 1970.
///
/// # Errors
///
/// Why it is not taken.
pub fn judge(status: StatusCode, headers: &HeaderMap, size_max: u64, now: u64) -> Result<Offer, Refusal> {
    match status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND | StatusCode::GONE => return Err(Refusal::Absent(status)),
        _ => return Err(Refusal::Status(status)),
    }
    let unwanted = |why: String| Err(Refusal::Unwanted(why));
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        return unwanted(format!("the body is encoded ({encoding:?}) though it was asked for as it is"));
    }
    if Storable::of(headers) == Storable::No {
        return unwanted("Cache-Control says that it must not be stored".to_owned());
    }
    if headers.get_all(header::VARY).iter().any(|vary| vary.as_bytes().contains(&b'*')) {
        return unwanted("Vary: * says that the next answer may differ".to_owned());
    }
    let Some(size) = number(headers, &header::CONTENT_LENGTH) else {
        return unwanted("there is no Content-Length, so a cut body could not be told from a whole one".to_owned());
    };
    if size > size_max {
        return unwanted(format!("it has {size} bytes; there is room for {size_max}"));
    }
    let age = number(headers, &header::AGE).unwrap_or(0);
    Ok(Offer { size, headers: sun::headers::kept(headers), born_at: now.saturating_sub(age) })
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_whole_file_of_known_length_is_taken() {
        check(200, "content-length: 7", "7 bytes of 1000:");
        check(200, "content-length: 0", "0 bytes of 1000:");
        check(200, "content-length: 100", "100 bytes of 1000:");
        check(200, "content-length: 7\ncontent-encoding: identity", "7 bytes of 1000:");
        check(200, "content-length: 7\nage: 60", "7 bytes of 940:");
        check(200, "content-length: 7\nage: soon", "7 bytes of 1000:");
    }

    #[test]
    fn only_listed_headers_are_kept() {
        check(200, "content-length: 7\netag: \"a\"\nset-cookie: a=b\nserver: x", "7 bytes of 1000: etag");
        check(200, "content-length: 7\ncache-control: public\nvary: origin", "7 bytes of 1000: cache-control");
    }

    #[test]
    fn a_missing_file_is_absent() {
        check(404, "", "it does not have the file (404 Not Found)");
        check(410, "content-length: 7", "it does not have the file (410 Gone)");
    }

    #[test]
    fn anything_but_200_may_pass() {
        for status in [206, 204, 301, 302, 304, 403, 429, 500, 503] {
            check(status, "content-length: 7\nlocation: http://elsewhere/", &format!("it answers {status}"));
        }
    }

    #[test]
    fn what_must_not_or_cannot_be_kept_is_unwanted() {
        check(200, "", "there is no Content-Length");
        check(200, "content-length: many", "there is no Content-Length");
        check(200, "content-length: 101", "it has 101 bytes; there is room for 100");
        check(200, "content-length: 7\ncontent-encoding: gzip", "the body is encoded");
        check(200, "content-length: 7\ncache-control: max-age=1, No-Store", "Cache-Control says");
        check(200, "content-length: 7\ncache-control: private=\"x\"", "Cache-Control says");
        check(200, "content-length: 7\nvary: *", "Vary: * says");
    }

    #[track_caller]
    fn check(status: u16, head: &str, expected: &str) {
        let mut headers = HeaderMap::new();
        for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        }
        let answer = match judge(StatusCode::from_u16(status).unwrap(), &headers, 100, 1000) {
            Ok(offer) => {
                let names: String = offer.headers.keys().map(|name| format!(" {name}")).collect();
                format!("{} bytes of {}:{names}", offer.size, offer.born_at)
            }
            Err(refusal) => refusal.to_string(),
        };
        assert!(answer.starts_with(expected), "{answer}, expected {expected}");
    }
}
