//! Tags and marks in headers. Pure.
//!
//! | header | from | to |
//! |---|---|---|
//! | `Cache-Tag: a, b` | content server | kept as hashes, not sent to clients |
//! | `Surrogate-Key: a b` | content server | kept as hashes, not sent to clients |
//! | `Sun-Purge-Mark: LOG DIRECT` | a server of ours | believed of those alone |
//! | `Sun-Purge-Tags: HASH HASH` | a server of ours | believed of those alone; 16 hexadecimal digits each |
//!
//! The first two are those that other CDNs know, and as there they end at the edge: they tell clients how a
//! site is built. The last two are only on answers to other servers, on the internal listener; a content server's own
//! are dropped with the first two when they have been read.

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use popularity_api::purge::target::{ANY_TAG, is_tag, tag_hash};

use super::Mark;

/// What a response says of itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Told {
    /// Hashes of its tags, sorted, without repetition.
    pub tags: Box<[u64]>,
    /// How old it is, if a server of ours said so; one that does not is as old as can be.
    pub mark: Option<Mark>,
}

impl Told {
    /// Reads a response; `ours`: a server of ours gave it.
    #[must_use]
    pub fn of(response: &HeaderMap, ours: bool) -> Self {
        if ours {
            Self { tags: told_tags(response), mark: Some(told_mark(response)) }
        } else {
            Self { tags: tags(response), mark: None }
        }
    }
}

/// Tags of a content server's response. Beyond [`TAGS_MAX`], or with one that is no tag, it counts as having all:
/// too much is purged then, never too little.
#[must_use]
pub fn tags(response: &HeaderMap) -> Box<[u64]> {
    let split = |name: &HeaderName, separator: fn(char) -> bool| {
        let values = response.get_all(name).iter();
        values.flat_map(move |value| match value.to_str() {
            Ok(text) => text.split(separator).map(str::trim).filter(|tag| !tag.is_empty()).map(hash).collect(),
            Err(_) => vec![ANY_TAG],
        })
    };
    let hash = split(&CACHE_TAG, |character| character == ',').chain(split(&SURROGATE_KEY, char::is_whitespace));
    bounded(hash)
}

/// Whether a response's field goes no further than to the server that reads it; `name` in lower case.
#[must_use]
pub fn ends_here(name: &str) -> bool {
    [CACHE_TAG, SURROGATE_KEY, MARK, TAGS].iter().any(|field| field == name)
}

/// Takes those fields away.
pub fn strip(response: &mut HeaderMap) {
    for name in [CACHE_TAG, SURROGATE_KEY, MARK, TAGS] {
        response.remove(name);
    }
}

/// Says mark and tags in an answer to a server of ours.
pub fn tell(headers: &mut HeaderMap, mark: Mark, tags: &[u64]) {
    strip(headers);
    if let Ok(value) = HeaderValue::from_str(&format!("{} {}", mark.log, mark.direct)) {
        headers.insert(MARK, value);
    }
    if !tags.is_empty() {
        let text: Vec<String> = tags.iter().map(|tag| format!("{tag:016x}")).collect();
        if let Ok(value) = HeaderValue::from_str(&text.join(" ")) {
            headers.insert(TAGS, value);
        }
    }
}

fn told_mark(response: &HeaderMap) -> Mark {
    let read = || {
        let (log, direct) = crate::headers::text(response, &MARK)?.split_once(' ')?;
        Some(Mark { log: log.parse().ok()?, direct: direct.parse().ok()? })
    };
    read().unwrap_or_default()
}

fn told_tags(response: &HeaderMap) -> Box<[u64]> {
    let text = crate::headers::text(response, &TAGS).unwrap_or_default();
    bounded(text.split_ascii_whitespace().map(|tag| u64::from_str_radix(tag, 16).unwrap_or(ANY_TAG)))
}

fn hash(tag: &str) -> u64 {
    if is_tag(tag) { tag_hash(tag) } else { ANY_TAG }
}

fn bounded(tags: impl Iterator<Item = u64>) -> Box<[u64]> {
    let mut tags: Vec<u64> = tags.take(TAGS_MAX + 1).collect();
    if tags.len() > TAGS_MAX {
        tags.truncate(TAGS_MAX);
        tags[0] = ANY_TAG;
    }
    tags.sort_unstable();
    tags.dedup();
    tags.into()
}

/// Tags of one response; 8 bytes each, and one probe each at a lookup while there are newer rules. More: the response
/// counts as having all tags.
pub const TAGS_MAX: usize = 128;

const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
const MARK: HeaderName = HeaderName::from_static("sun-purge-mark");
const TAGS: HeaderName = HeaderName::from_static("sun-purge-tags");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_from_both_headers() {
        check(&[("cache-tag", "a, b ,c")], &["a", "b", "c"]);
        check(&[("surrogate-key", "a b  c")], &["a", "b", "c"]);
        check(&[("cache-tag", "a"), ("cache-tag", "b"), ("surrogate-key", "a c/d")], &["a", "b", "c/d"]);
        check(&[("cache-tag", " , ,")], &[]);
        check(&[], &[]);
    }

    #[test]
    fn what_cannot_be_kept_counts_as_every_tag() {
        let many = (0..=TAGS_MAX).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
        for value in [many, "x".repeat(257), "two words, a".to_owned()] {
            let tags = tags(&map(&[("cache-tag", &value)]));
            assert_eq!(tags[0], ANY_TAG, "{value:.20}");
            assert!(tags.len() <= TAGS_MAX);
        }
        let as_many = (0..TAGS_MAX).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
        assert!(!tags(&map(&[("cache-tag", &as_many)])).contains(&ANY_TAG));
    }

    #[test]
    fn what_one_server_tells_another_reads() {
        let (mark, tags) = (Mark { log: 7, direct: 2 }, [ANY_TAG, tag_hash("a")]);
        let mut headers = HeaderMap::new();
        tell(&mut headers, mark, &tags);
        assert_eq!(headers["sun-purge-mark"], "7 2");
        let mut sorted = tags;
        sorted.sort_unstable();
        assert_eq!(Told::of(&headers, true), Told { tags: sorted.into(), mark: Some(mark) });
        assert_eq!(Told::of(&headers, false), Told::default(), "a content server is not believed");
        let silent = Told::of(&map(&[("sun-purge-mark", "soon")]), true);
        assert_eq!(silent.mark, Some(Mark::default()), "as old as can be");
    }

    #[test]
    fn what_somebody_else_said_is_not_told_on() {
        let mut headers = map(&[("sun-purge-tags", "1"), ("cache-tag", "a"), ("x-any", "b")]);
        tell(&mut headers, Mark::default(), &[]);
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["sun-purge-mark", "x-any"]);
        strip(&mut headers);
        assert_eq!(headers, map(&[("x-any", "b")]));
        assert!(headers.keys().all(|name| !ends_here(name.as_str())) && ends_here("surrogate-key"));
    }

    #[track_caller]
    fn check(headers: &[(&'static str, &str)], expected: &[&str]) {
        let mut expected: Vec<u64> = expected.iter().map(|tag| tag_hash(tag)).collect();
        expected.sort_unstable();
        assert_eq!(*tags(&map(headers)), *expected);
    }

    fn map(headers: &[(&'static str, &str)]) -> HeaderMap {
        let header = |&(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        let mut map = HeaderMap::new();
        map.extend(headers.iter().map(header));
        map
    }
}
