//! What may be kept (RFC 9111, section 3).

use http::{HeaderMap, Method, StatusCode, header};

use crate::caching::directives::{RequestDirectives, ResponseDirectives};

/// What matters of an exchange.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request carried `Authorization`.
    pub authorized: bool,
    /// What the request says to caches.
    pub request: &'a RequestDirectives,
    /// The response's status.
    pub status: StatusCode,
    /// The response's headers.
    pub response: &'a HeaderMap,
    /// What they say to this cache.
    pub directives: &'a ResponseDirectives,
    /// The class gives the status a lifetime.
    pub negative: bool,
}

/// Whether a shared cache may keep the response. A 206 counts as what it is a part of; whether a `Content-Location`
/// makes the answer to a POST one to GET is the caller's to see ([`crate::caching::invalidate`]).
#[must_use]
pub fn may_store(exchange: Exchange<'_>) -> bool {
    let Exchange { method, authorized, request, status, response, directives, negative } = exchange;
    let named = directives.names_a_lifetime() || (!directives.targeted && response.contains_key(header::EXPIRES));
    let by_method = *method == Method::GET || (*method == Method::POST && named);
    // Section 5.2.2.3: `must-understand` overrides `no-store` for those who understand the status.
    let forbidden = if directives.must_understand {
        !understood(status)
    } else {
        directives.no_store || (matches!(status.as_u16(), 206 | 304) && !understood(status))
    };
    // Section 3.5.
    let shared = !authorized || directives.public || directives.must_revalidate || directives.s_maxage.is_some();
    by_method
        && !status.is_informational()
        && status != StatusCode::NOT_MODIFIED
        && !forbidden
        && !request.no_store
        && !directives.private
        && shared
        && (named || directives.public || negative || heuristically_cacheable(status))
}

/// Statuses whose responses may be kept without a word about how long (RFC 9110, section 15.1).
#[must_use]
pub fn heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Statuses whose caching requirements this cache implements.
#[must_use]
pub fn understood(status: StatusCode) -> bool {
    heuristically_cacheable(status) || matches!(status.as_u16(), 302 | 303 | 304 | 307 | 451)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_says_nothing_is_kept_by_its_status() {
        check(200, "", true);
        check(404, "", true);
        check(201, "", false);
        check(403, "", false);
        check(599, "", false);
        check(599, "public", true);
        check(599, "max-age=5", true);
        check(103, "max-age=5", false);
        check(304, "max-age=5", false);
    }

    #[test]
    fn what_is_for_one_or_for_nobody_is_not_kept() {
        check(200, "max-age=5, no-store", false);
        check(200, "max-age=5, private", false);
        check(200, "max-age=5, private=\"set-cookie\"", true);
        check(200, "max-age=5, no-cache", true);
        check(200, "max-age=5, no-store, must-understand", true);
        check(599, "max-age=5, no-store, must-understand", false);
        check(599, "max-age=5, must-understand", false);
    }

    #[test]
    fn an_authorised_answer_is_kept_only_if_it_says_so() {
        for (text, expected) in [
            ("max-age=5", false),
            ("max-age=5, public", true),
            ("max-age=5, must-revalidate", true),
            ("s-maxage=5", true),
        ] {
            assert_eq!(kept(&Method::GET, true, 200, text, false), expected, "{text}");
        }
    }

    #[test]
    fn methods_and_classes_have_a_say() {
        assert!(kept(&Method::POST, false, 200, "max-age=5", false));
        assert!(!kept(&Method::POST, false, 200, "", false));
        assert!(!kept(&Method::PUT, false, 200, "max-age=5", false));
        assert!(!kept(&Method::HEAD, false, 200, "max-age=5", false));
        assert!(kept(&Method::GET, false, 403, "", true));
        assert!(!kept(&Method::GET, false, 403, "no-store", true));
    }

    #[track_caller]
    fn check(status: u16, cache_control: &str, expected: bool) {
        assert_eq!(kept(&Method::GET, false, status, cache_control, false), expected, "{status} {cache_control}");
    }

    fn kept(method: &Method, authorized: bool, status: u16, cache_control: &str, negative: bool) -> bool {
        let response = HeaderMap::from_iter([(header::CACHE_CONTROL, HeaderValue::from_str(cache_control).unwrap())]);
        may_store(Exchange {
            method,
            authorized,
            request: &RequestDirectives::default(),
            status: StatusCode::from_u16(status).unwrap(),
            response: &response,
            directives: &ResponseDirectives::of(&response),
            negative,
        })
    }
}
