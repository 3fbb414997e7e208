//! What an unsafe request makes invalid (RFC 9111, section 4.4).

use http::{HeaderMap, Method, StatusCode, header};

/// Whether a method changes nothing (RFC 9110, section 9.2.1). One that is not known may change anything.
#[must_use]
pub fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// Paths with queries, on the host of the request, whose stored responses are no longer good: the target and
/// what `Location` and `Content-Location` name, if it is of the same host. Empty after an error.
#[must_use]
pub fn targets(method: &Method, target: &str, host: &str, status: StatusCode, response: &HeaderMap) -> Vec<String> {
    if is_safe(method) || !(status.is_success() || status.is_redirection()) {
        return Vec::new();
    }
    let mut targets = vec![target.to_owned()];
    for field in [header::LOCATION, header::CONTENT_LOCATION] {
        let reference = response.get(field).and_then(|value| value.to_str().ok());
        targets.extend(reference.and_then(|reference| resolve(target, host, reference)));
    }
    targets.dedup();
    targets
}

/// Whether the answer to a POST is also what a GET of the target would give (RFC 9110, section 9.3.3): it says so
/// by a `Content-Location` that is the target.
#[must_use]
pub fn answers_get(target: &str, host: &str, response: &HeaderMap) -> bool {
    let reference = response.get(header::CONTENT_LOCATION).and_then(|value| value.to_str().ok());
    reference.and_then(|reference| resolve(target, host, reference)).as_deref() == Some(target)
}

/// A reference (RFC 3986, section 5.2) as path and query on `host`, if it leads there. Dot segments are left as
/// they are: such a reference finds nothing, and nothing is lost by that.
fn resolve(target: &str, host: &str, reference: &str) -> Option<String> {
    let reference = reference.split('#').next().unwrap_or_default().trim();
    let elsewhere = ["http://", "https://", "//"].iter().find_map(|scheme| {
        let prefix = reference.get(..scheme.len())?;
        prefix.eq_ignore_ascii_case(scheme).then(|| &reference[scheme.len()..])
    });
    if let Some(rest) = elsewhere {
        let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        return authority.eq_ignore_ascii_case(host).then(|| path.to_owned());
    }
    let path = target.split('?').next().unwrap_or(target);
    match reference.chars().next() {
        None => Some(target.to_owned()),
        Some('/') => Some(reference.to_owned()),
        Some('?') => Some(format!("{path}{reference}")),
        // A scheme that is not HTTP's.
        _ if reference.split(['/', '?']).next().is_some_and(|first| first.contains(':')) => None,
        _ => Some(format!("{}/{reference}", path.rsplit_once('/').map_or("", |(folder, _)| folder))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_change_that_worked_makes_its_targets_invalid() {
        check("POST", 200, &[], "/a/b?c");
        check("M-SEARCH", 200, &[], "/a/b?c");
        check("DELETE", 301, &[], "/a/b?c");
        check("PUT", 201, &[("location", "/x"), ("content-location", "y?z")], "/a/b?c /x /a/y?z");
        check("PUT", 201, &[("location", "http://h:1/x#y"), ("content-location", "//H:1")], "/a/b?c /x /");
        check("PUT", 201, &[("location", "http://other/x"), ("content-location", "mailto:a")], "/a/b?c");
        check("PUT", 201, &[("location", "?q")], "/a/b?c /a/b?q");
    }

    #[test]
    fn nothing_else_does() {
        check("GET", 200, &[], "");
        check("HEAD", 200, &[], "");
        check("POST", 500, &[("location", "/x")], "");
        check("POST", 404, &[], "");
    }

    #[test]
    fn the_answer_to_a_post_may_be_one_to_get() {
        let says = |value: &'static str| {
            answers_get(
                "/a/b",
                "h",
                &HeaderMap::from_iter([(header::CONTENT_LOCATION, HeaderValue::from_static(value))]),
            )
        };
        assert!(says("/a/b") && says("b") && says("") && says("http://h/a/b"));
        assert!(!says("/a/c") && !says("http://other/a/b"));
        assert!(!answers_get("/a/b", "h", &HeaderMap::new()));
    }

    #[track_caller]
    fn check(method: &str, status: u16, headers: &[(&'static str, &'static str)], expected: &str) {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let found = targets(&method, "/a/b?c", "h:1", StatusCode::from_u16(status).unwrap(), &headers);
        assert_eq!(found.join(" "), expected);
    }
}
