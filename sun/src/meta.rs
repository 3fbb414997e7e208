//! What is known of a file beside its bytes.
//!
//! A [`Meta`] is immutable and shared: by the RAM tier, by fills and by every response that is under way. Its
//! *generation* names one version of the file; bytes are cached under it, so that bytes of two versions can
//! never be mixed. It follows from a strong validator where there is one: bytes that are still cached when a
//! file comes back after its metadata were evicted are found again.

use http::{HeaderMap, StatusCode, header};

use crate::caching::directives::{RequestDirectives, ResponseDirectives};
use crate::caching::freshness::{Lifetime, Reuse};
use crate::caching::{date, update};
use crate::headers;
use crate::purge::Mark;

/// Metadata of one version of a file.
#[derive(Clone, Debug)]
pub struct Meta {
    /// Length in bytes; unknown while a content server that did not announce it is still sending.
    pub size: Option<u64>,
    /// Which version of the file; see the module's doc.
    pub generation: u64,
    /// 200, or under the policy "rfc" whatever the content server said.
    pub status: StatusCode,
    /// Kept response headers: [`headers::KEPT`], or under the policy "rfc" all that [`update::stored`] keeps.
    pub headers: HeaderMap,
    /// When the content server made the response, seconds since 1970: `Age` counts from it.
    pub born_at: u64,
    /// Until when it is served without asking again, seconds since 1970.
    pub fresh_until: u64,
    /// The last purge that was gone by when the fill of this version began.
    pub mark: Mark,
    /// Hashes of its tags, by which it can be purged; at most [`crate::purge::headers::TAGS_MAX`].
    pub tags: Box<[u64]>,
    /// Until when it is served at once and asked about behind the response, seconds since 1970.
    pub background_until: u64,
    /// Until when it is served if asking fails, seconds since 1970.
    pub error_until: u64,
}

/// What a content server's response says about storing it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Storable {
    /// It may be kept.
    Yes,
    /// `no-store` or `private` (RFC 9111, sections 5.2.2.5 and 5.2.2.7): it is handed on and forgotten.
    No,
}

impl Meta {
    /// Reads a response's headers. `now` is in seconds since 1970, `ttl_s` the class's freshness; `fallback` is
    /// the generation for responses without a strong validator, never used before.
    #[must_use]
    pub fn new(response: &HeaderMap, size: Option<u64>, now: u64, ttl_s: u64, fallback: u64) -> Self {
        let headers = headers::kept(response);
        let age = age(response);
        let generation = match strong_validator(&headers) {
            Some(validator) => generation_of(validator, size),
            None => fallback,
        };
        let fresh_until = now.saturating_add(ttl_s.saturating_sub(age));
        Self {
            size,
            generation,
            status: StatusCode::OK,
            headers,
            born_at: now.saturating_sub(age),
            fresh_until,
            background_until: fresh_until,
            error_until: u64::MAX,
            // The fill says both ([`crate::purge::Stamp`]); without it, as old as can be.
            mark: Mark::default(),
            tags: Box::default(),
        }
    }

    /// Under the policy "rfc": a response as it is to be kept, with what it says of its lifetime.
    #[must_use]
    pub fn of_response(
        status: StatusCode,
        headers: HeaderMap,
        size: Option<u64>,
        lifetime: Lifetime,
        fallback: u64,
    ) -> Self {
        let generation = match strong_validator(&headers) {
            Some(validator) if status == StatusCode::OK => generation_of(validator, size),
            _ => fallback,
        };
        let Lifetime { born_at, fresh_until, background_until, error_until } = lifetime;
        let (mark, tags) = (Mark::default(), Box::default());
        Self { size, generation, status, headers, born_at, fresh_until, background_until, error_until, mark, tags }
    }

    /// The same version with what a 304, or a 200 to HEAD, says under the policy "rfc".
    #[must_use]
    pub fn updated(&self, end_to_end: &HeaderMap, lifetime: impl FnOnce(&HeaderMap) -> Lifetime) -> Self {
        let headers = update::updated(&self.headers, end_to_end);
        let Lifetime { born_at, fresh_until, background_until, error_until } = lifetime(&headers);
        Self { headers, born_at, fresh_until, background_until, error_until, ..self.clone() }
    }

    /// With the length of the whole file, of which the response was a part.
    #[must_use]
    pub fn with_size(self, size: u64) -> Self {
        let generation = match strong_validator(&self.headers) {
            Some(validator) => generation_of(validator, Some(size)),
            None => self.generation,
        };
        Self { size: Some(size), generation, ..self }
    }

    /// With the class's windows past its freshness, seconds.
    #[must_use]
    pub fn with_windows(self, stale_while_revalidate_s: u64, stale_if_error_s: u64) -> Self {
        Self {
            background_until: self.fresh_until.saturating_add(stale_while_revalidate_s),
            error_until: self.fresh_until.saturating_add(stale_if_error_s),
            ..self
        }
    }

    /// What a request may do with it.
    #[must_use]
    pub fn reuse(&self, request: Option<&RequestDirectives>, now: u64) -> Reuse {
        let Self { born_at, fresh_until, background_until, error_until, .. } = *self;
        Lifetime { born_at, fresh_until, background_until, error_until }.reuse(request, now)
    }

    /// It was stale when it was made: whoever asks has to ask for themselves.
    #[must_use]
    pub const fn never_fresh(&self) -> bool {
        self.fresh_until <= self.born_at
    }

    /// The same version, found unchanged at `now` (304): fresh again, headers as updated by `response`
    /// (RFC 9111, section 4.3.4).
    #[must_use]
    pub fn revalidated(&self, response: &HeaderMap, now: u64, ttl_s: u64) -> Self {
        let mut headers = self.headers.clone();
        headers.extend(headers::kept(response).into_iter().filter_map(|(name, value)| Some((name?, value))));
        let age = age(response);
        let (born_at, fresh_until) = (now.saturating_sub(age), now.saturating_add(ttl_s.saturating_sub(age)));
        // The windows stay as long as they were.
        let (behind, failed) =
            (self.background_until.saturating_sub(self.fresh_until), self.error_until.saturating_sub(self.fresh_until));
        Self { headers, born_at, fresh_until, ..self.clone() }.with_windows(behind, failed)
    }

    /// Whether it may be served without asking again.
    #[must_use]
    pub const fn fresh(&self, now: u64) -> bool {
        now < self.fresh_until
    }

    /// Value for `If-Range` when the rest of this version is fetched: a strong `ETag`, else `Last-Modified`
    /// when there is no `ETag` at all (RFC 9110, section 13.1.5).
    #[must_use]
    pub fn resume_validator(&self) -> Option<&str> {
        strong_validator(&self.headers)
    }

    /// Whether a 206 with these headers and this size continues the same version. Without any validator the
    /// convention that files are immutable is all there is: then the size alone must agree.
    #[must_use]
    pub fn continued_by(&self, response: &HeaderMap, size: u64) -> bool {
        self.size == Some(size)
            && [header::ETAG, header::LAST_MODIFIED].iter().all(|name| self.headers.get(name) == response.get(name))
    }

    /// What it weighs in RAM beside the body, bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum();
        size_of::<Self>() + headers + size_of_val(&*self.tags)
    }
}

impl Storable {
    /// Reads the `Cache-Control` of a response. `private="field"` counts as well: what is not known to be for
    /// everybody is not kept.
    #[must_use]
    pub fn of(response: &HeaderMap) -> Self {
        let directives = ResponseDirectives::of(response);
        let forbidden = directives.no_store || directives.private || !directives.withheld.is_empty();
        if forbidden { Self::No } else { Self::Yes }
    }
}

/// How long ago the content server made the response, seconds: other servers of ours kept it meanwhile.
fn age(response: &HeaderMap) -> u64 {
    headers::text(response, &header::AGE).and_then(|age| age.trim().parse().ok()).unwrap_or(0)
}

fn strong_validator(headers: &HeaderMap) -> Option<&str> {
    match headers.get(header::ETAG) {
        Some(tag) => tag.to_str().ok().filter(|tag| tag.starts_with('"') && tag.len() > 1 && tag.ends_with('"')),
        None => headers::text(headers, &header::LAST_MODIFIED).filter(|text| long_unchanged(text, headers)),
    }
}

/// Whether a date of last change tells versions apart: not when the response was made in the minute after it
/// (RFC 9110, section 8.8.2.2). Where `Date` is not kept, files do not change by convention.
fn long_unchanged(modified: &str, headers: &HeaderMap) -> bool {
    let Some(made) = headers::text(headers, &header::DATE) else { return true };
    let (modified, made) = (date::parse(modified, 0), date::parse(made, 0));
    modified.zip(made).is_some_and(|(modified, made)| modified.saturating_add(60) <= made)
}

/// 64 bits of blake3 of validator and size; the lowest bit is set, so that it differs from every fallback
/// that [`fresh_generation`] makes.
fn generation_of(validator: &str, size: Option<u64>) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&size.unwrap_or(u64::MAX).to_be_bytes()).update(validator.as_bytes());
    let (bytes, _) = hasher.finalize().as_bytes().split_first_chunk().map(|(a, b)| (*a, b.len())).expect("32 bytes");
    u64::from_be_bytes(bytes) | 1
}

/// A generation that no validator gives, from 64 random bits.
#[must_use]
pub const fn fresh_generation(random: u64) -> u64 {
    random & !1
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_strong_validator_decides_the_generation() {
        let a = meta(&[("etag", "\"a\"")], 1);
        assert_eq!(a.generation, meta(&[("etag", "\"a\"")], 2).generation);
        assert_ne!(a.generation, meta(&[("etag", "\"b\"")], 1).generation);
        assert_eq!(a.resume_validator(), Some("\"a\""));
    }

    #[test]
    fn without_a_strong_validator_every_response_is_a_version_of_its_own() {
        assert_eq!(meta(&[], 2).generation, 2);
        let weak = meta(&[("etag", "W/\"a\""), ("last-modified", "Mon, 01 Jan 2024 00:00:00 GMT")], 4);
        assert_eq!(weak.generation, 4);
        assert_eq!(weak.resume_validator(), None);
    }

    #[test]
    fn last_modified_stands_in_for_a_missing_tag() {
        let date = "Mon, 01 Jan 2024 00:00:00 GMT";
        assert_eq!(meta(&[("last-modified", date)], 2).resume_validator(), Some(date));
    }

    #[test]
    fn a_206_continues_only_the_same_version() {
        let a = meta(&[("etag", "\"a\"")], 1);
        assert!(a.continued_by(&map(&[("etag", "\"a\"")]), 100));
        assert!(!a.continued_by(&map(&[("etag", "\"b\"")]), 100));
        assert!(!a.continued_by(&map(&[("etag", "\"a\"")]), 101));
        assert!(!a.continued_by(&map(&[]), 100));
    }

    #[test]
    fn age_counts_from_the_content_server() {
        let meta = Meta::new(&map(&[("age", "100")]), Some(1), 1000, 300, 2);
        assert_eq!((meta.born_at, meta.fresh_until), (900, 1200));
        assert!(meta.fresh(1199) && !meta.fresh(1200));
    }

    #[test]
    fn what_must_not_be_stored_is_not() {
        for (value, expected) in [
            ("max-age=60", Storable::Yes),
            ("no-store", Storable::No),
            ("max-age=60, Private", Storable::No),
            ("private=\"set-cookie\"", Storable::No),
            ("x-no-store-at-all", Storable::Yes),
        ] {
            assert_eq!(Storable::of(&map(&[("cache-control", value)])), expected, "{value}");
        }
    }

    fn meta(headers: &[(&'static str, &'static str)], fallback: u64) -> Meta {
        Meta::new(&map(headers), Some(100), 1000, 300, fallback)
    }

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        headers.iter().map(|&(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }
}
