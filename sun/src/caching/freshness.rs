//! How long a response may be used, and how (RFC 9111, section 4.2; RFC 5861).
//!
//! ```text
//!   born_at            fresh_until         background_until      error_until
//!      |--- lifetime -------|                    |                    |
//!      |      Serve         |  ServeStale and    |  Validate; stale   |  Validate
//!      |                    |  ask behind it     |  if that fails     |
//! ```

use http::{HeaderMap, StatusCode, header};

use crate::caching::date;
use crate::caching::directives::{RequestDirectives, ResponseDirectives, seconds};
use crate::caching::storable;

/// Until when a response may be used, seconds since 1970.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lifetime {
    /// When the content server made it: `Age` counts from here.
    pub born_at: u64,
    /// Until then it is used without asking. 0: never.
    pub fresh_until: u64,
    /// Until then it is used at once, and asked about behind the response.
    pub background_until: u64,
    /// Until then it is used if asking fails. 0: never without asking.
    pub error_until: u64,
}

/// When an exchange took place, seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// The question was sent.
    pub asked_at: u64,
    /// The answer's head came.
    pub answered_at: u64,
}

/// What may be done with a stored response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reuse {
    /// Use it.
    Serve,
    /// Use it and ask whether it is current, behind the response.
    ServeStale,
    /// Ask first.
    Validate,
}

impl Lifetime {
    /// Of a response. `negative_ttl` is what the class says about its status, if it does, seconds.
    #[must_use]
    pub fn of(
        status: StatusCode,
        response: &HeaderMap,
        directives: &ResponseDirectives,
        exchange: Exchange,
        negative_ttl: Option<u64>,
    ) -> Self {
        let now = exchange.answered_at;
        let born_at = now.saturating_sub(age(response, exchange));
        let lifetime = lifetime(status, response, directives, now, negative_ttl);
        let fresh_until = if directives.no_cache { 0 } else { born_at.saturating_add(lifetime) };
        let stale_for = |window: u64| if directives.forbids_stale() { 0 } else { fresh_until.saturating_add(window) };
        Self {
            born_at,
            fresh_until,
            background_until: stale_for(directives.stale_while_revalidate.unwrap_or(0)),
            error_until: stale_for(directives.stale_if_error.unwrap_or(STALE_IF_ERROR_DEFAULT_S)),
        }
    }

    /// What a request may do with it at `now`.
    #[must_use]
    pub fn reuse(&self, request: Option<&RequestDirectives>, now: u64) -> Reuse {
        let Some(request) = request else {
            return self.unrestricted(now);
        };
        let age = now.saturating_sub(self.born_at);
        if request.no_cache || request.max_age.is_some_and(|most| age > most) {
            return Reuse::Validate;
        }
        if let Some(rest) = request.min_fresh {
            let fresh = now.saturating_add(rest) < self.fresh_until;
            return if fresh { Reuse::Serve } else { Reuse::Validate };
        }
        let stale_until = self.fresh_until.saturating_add(request.max_stale.unwrap_or(0));
        if request.max_stale.is_some() && self.error_until > 0 && now < stale_until {
            return Reuse::Serve;
        }
        self.unrestricted(now)
    }

    fn unrestricted(&self, now: u64) -> Reuse {
        if now < self.fresh_until {
            Reuse::Serve
        } else if now < self.background_until {
            Reuse::ServeStale
        } else {
            Reuse::Validate
        }
    }
}

/// RFC 9111, section 4.2.1: the first of these that is there.
fn lifetime(
    status: StatusCode,
    response: &HeaderMap,
    directives: &ResponseDirectives,
    now: u64,
    negative_ttl: Option<u64>,
) -> u64 {
    if let Some(lifetime) = directives.s_maxage.or(directives.max_age) {
        return lifetime;
    }
    let made_at = first(response, header::DATE).and_then(|text| date::parse(text, now)).unwrap_or(now);
    if !directives.targeted
        && let Some(text) = first(response, header::EXPIRES)
    {
        return date::parse(text, now).map_or(0, |expires| expires.saturating_sub(made_at));
    }
    if let Some(lifetime) = negative_ttl {
        return lifetime;
    }
    heuristic(status, response, directives, made_at, now)
}

/// RFC 9111, section 4.2.2: a tenth of the time since the last change. Not with `Set-Cookie`: what hands out
/// cookies without a word about caching was hardly meant for everybody.
fn heuristic(status: StatusCode, response: &HeaderMap, directives: &ResponseDirectives, made_at: u64, now: u64) -> u64 {
    let allowed = storable::heuristically_cacheable(status) || directives.public;
    if !allowed || response.contains_key(header::SET_COOKIE) {
        return 0;
    }
    let modified_at = first(response, header::LAST_MODIFIED).and_then(|text| date::parse(text, now));
    modified_at.map_or(0, |modified_at| (made_at.saturating_sub(modified_at) / 10).min(HEURISTIC_MAX_S))
}

/// RFC 9111, section 4.2.3: how old the response was when it came, seconds.
fn age(response: &HeaderMap, exchange: Exchange) -> u64 {
    let now = exchange.answered_at;
    let made_at = first(response, header::DATE).and_then(|text| date::parse(text, now)).unwrap_or(now);
    let apparent = now.saturating_sub(made_at);
    apparent.max(told_age(response).saturating_add(now.saturating_sub(exchange.asked_at)))
}

/// What a response says of its age, seconds: the first of several values (RFC 9111, section 5.1), and none that is not
/// a number.
#[must_use]
pub fn told_age(response: &HeaderMap) -> u64 {
    let told = first(response, header::AGE).and_then(|text| text.split(',').next());
    told.and_then(|text| seconds(text.trim())).unwrap_or(0)
}

fn first(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Longest heuristic lifetime, seconds: a day. RFC 9111, section 4.2.2 wants a warning above that.
pub const HEURISTIC_MAX_S: u64 = 86_400;
/// How long a response that says nothing about it may be used when nobody can be asked, seconds: a day. RFC
/// 9111, section 4.2.4 allows it to a cache that is cut off.
pub const STALE_IF_ERROR_DEFAULT_S: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const NOW: u64 = 784_111_777;
    const DATE: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");

    #[test]
    fn the_first_source_of_a_lifetime_counts() {
        check(&[("cache-control", "max-age=60, s-maxage=30"), ("expires", FUTURE)], 30);
        check(&[("cache-control", "max-age=60"), ("expires", PAST)], 60);
        check(&[DATE, ("expires", FUTURE)], 10);
        check(&[("date", "foo"), ("expires", FUTURE)], 10);
        check(&[DATE, ("expires", "0")], 0);
        check(&[DATE, ("expires", PAST)], 0);
        check(&[("cdn-cache-control", "max-age=60"), ("cache-control", "max-age=1"), ("expires", PAST)], 60);
        check(&[("cdn-cache-control", "private"), ("expires", FUTURE)], 0);
        check(&[], 0);
    }

    #[test]
    fn without_a_word_a_tenth_of_the_time_since_the_last_change() {
        check(&[DATE, ("last-modified", "Sun, 06 Nov 1994 08:47:57 GMT")], 10);
        check(&[DATE, ("last-modified", "Sun, 06 Nov 1984 08:47:57 GMT")], HEURISTIC_MAX_S);
        check(&[DATE, ("last-modified", FUTURE)], 0);
        check(&[DATE, ("last-modified", "Sun, 06 Nov 1994 08:47:57 GMT"), ("set-cookie", "a=b")], 0);
        let teapot = StatusCode::IM_A_TEAPOT;
        let modified = ("last-modified", "Sun, 06 Nov 1994 08:47:57 GMT");
        assert_eq!(fresh_for(teapot, &[DATE, modified], None), 0);
        assert_eq!(fresh_for(teapot, &[DATE, modified, ("cache-control", "public")], None), 10);
    }

    #[test]
    fn the_class_decides_about_errors_that_say_nothing() {
        assert_eq!(fresh_for(StatusCode::NOT_FOUND, &[], Some(5)), 5);
        assert_eq!(fresh_for(StatusCode::NOT_FOUND, &[("cache-control", "max-age=1")], Some(5)), 1);
    }

    #[test]
    fn age_is_the_worst_of_what_is_known() {
        check_age(&[("age", "100")], 0, 100);
        check_age(&[("age", "100")], 3, 103);
        check_age(&[("age", "7, 100")], 0, 7);
        check_age(&[("age", "7"), ("age", "100")], 0, 7);
        check_age(&[("age", "99999999999")], 0, NOW);
        for invalid in ["abc", "-7200", "7200.0", ""] {
            check_age(&[("age", invalid)], 0, 0);
        }
        check_age(&[("date", PAST), ("age", "5")], 0, 10);
        check_age(&[("date", PAST), ("age", "25")], 0, 25);
        check_age(&[("date", FUTURE)], 0, 0);
    }

    #[test]
    fn a_stale_response_is_used_only_where_nothing_forbids_it() {
        let life = lifetime_of(&[("cache-control", "max-age=10, stale-while-revalidate=4, stale-if-error=6")]);
        assert_eq!((life.background_until, life.error_until), (NOW + 14, NOW + 16));
        assert_eq!(life.reuse(None, NOW + 9), Reuse::Serve);
        assert_eq!(life.reuse(None, NOW + 10), Reuse::ServeStale);
        assert_eq!(life.reuse(None, NOW + 14), Reuse::Validate);
        for forbidding in ["must-revalidate", "proxy-revalidate", "s-maxage=10", "no-cache"] {
            let text = format!("max-age=10, stale-while-revalidate=4, {forbidding}");
            let headers = HeaderMap::from_iter([(header::CACHE_CONTROL, HeaderValue::from_str(&text).unwrap())]);
            let life = made(StatusCode::OK, &headers, 0, None);
            assert_eq!((life.background_until, life.error_until), (0, 0), "{forbidding}");
        }
        assert_eq!(lifetime_of(&[("cache-control", "max-age=10, no-cache")]).reuse(None, NOW), Reuse::Validate);
    }

    #[test]
    fn a_request_takes_less_or_more() {
        let life = lifetime_of(&[("cache-control", "max-age=10"), ("age", "4")]);
        let reuse = |text: &'static str, now: u64| {
            let headers = HeaderMap::from_iter([(header::CACHE_CONTROL, HeaderValue::from_static(text))]);
            life.reuse(Some(&RequestDirectives::of(&headers)), now)
        };
        assert_eq!(reuse("foo", NOW), Reuse::Serve);
        assert_eq!(reuse("no-cache", NOW), Reuse::Validate);
        assert_eq!(reuse("max-age=3", NOW), Reuse::Validate);
        assert_eq!(reuse("max-age=4", NOW), Reuse::Serve);
        assert_eq!(reuse("min-fresh=5", NOW), Reuse::Serve);
        assert_eq!(reuse("min-fresh=6", NOW), Reuse::Validate);
        assert_eq!(reuse("max-stale=5", NOW + 10), Reuse::Serve);
        assert_eq!(reuse("max-stale=5", NOW + 11), Reuse::Validate);
        assert_eq!(reuse("max-stale", NOW + 11_000), Reuse::Serve);
    }

    const FUTURE: &str = "Sun, 06 Nov 1994 08:49:47 GMT";
    const PAST: &str = "Sun, 06 Nov 1994 08:49:27 GMT";

    #[track_caller]
    fn check(headers: &[(&'static str, &'static str)], expected: u64) {
        assert_eq!(fresh_for(StatusCode::OK, headers, None), expected, "{headers:?}");
    }

    #[track_caller]
    fn check_age(headers: &[(&'static str, &'static str)], waited: u64, expected: u64) {
        let life = made(StatusCode::OK, &map(headers), waited, None);
        assert_eq!(NOW - life.born_at, expected, "{headers:?}");
    }

    fn fresh_for(status: StatusCode, headers: &[(&'static str, &'static str)], negative_ttl: Option<u64>) -> u64 {
        made(status, &map(headers), 0, negative_ttl).fresh_until - NOW
    }

    fn lifetime_of(headers: &[(&'static str, &'static str)]) -> Lifetime {
        made(StatusCode::OK, &map(headers), 0, None)
    }

    fn made(status: StatusCode, headers: &HeaderMap, waited: u64, negative_ttl: Option<u64>) -> Lifetime {
        let exchange = Exchange { asked_at: NOW - waited, answered_at: NOW };
        Lifetime::of(status, headers, &ResponseDirectives::of(headers), exchange, negative_ttl)
    }

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }
}
