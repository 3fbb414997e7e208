//! `Cache-Control` of responses and requests, and `CDN-Cache-Control` (RFC 9111, section 5.2; RFC 9213).
//!
//! # What is read how
//!
//! - A list: commas inside quotes separate nothing, so `extension="max-age=3600"` is no `max-age`.
//! - The first of several values counts (RFC 9111, section 4.2.1).
//! - A lifetime that is not a number counts as 0: the response is stale (the same section). A number beyond
//!   [`SECONDS_MAX`] is [`SECONDS_MAX`] (section 1.2.2).
//! - `CDN-Cache-Control` is a structured field. When it is there and well-formed it alone counts, and neither
//!   `Cache-Control` nor `Expires` does (RFC 9213, section 2.2); when not, it is as if it were absent.

use http::HeaderMap;
use http::header::{self, HeaderName};

/// What a response says to this cache.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ResponseDirectives {
    /// `max-age`, seconds.
    pub max_age: Option<u64>,
    /// `s-maxage`, seconds: for shared caches, before `max-age`.
    pub s_maxage: Option<u64>,
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache` without fields: never used without asking.
    pub no_cache: bool,
    /// `private` without fields: for one person.
    pub private: bool,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `stale-while-revalidate`, seconds (RFC 5861, section 3).
    pub stale_while_revalidate: Option<u64>,
    /// `stale-if-error`, seconds (RFC 5861, section 4).
    pub stale_if_error: Option<u64>,
    /// Fields of `no-cache="..."` and `private="..."`: they are not kept.
    pub withheld: Vec<HeaderName>,
    /// It is `CDN-Cache-Control` that says so: `Expires` does not count.
    pub targeted: bool,
}

/// What a request says to this cache.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RequestDirectives {
    /// `no-cache`, or `Pragma: no-cache` without a `Cache-Control`.
    pub no_cache: bool,
    /// `no-store`: the answer is not kept.
    pub no_store: bool,
    /// `only-if-cached`: 504 rather than asking.
    pub only_if_cached: bool,
    /// `max-age`, seconds.
    pub max_age: Option<u64>,
    /// `min-fresh`, seconds.
    pub min_fresh: Option<u64>,
    /// `max-stale`, seconds; without a value, any staleness.
    pub max_stale: Option<u64>,
}

impl ResponseDirectives {
    /// Reads a response's headers.
    #[must_use]
    pub fn of(response: &HeaderMap) -> Self {
        if let Some(targeted) = Self::targeted(response) {
            return targeted;
        }
        let mut directives = Self::default();
        for (name, argument) in list(response, &header::CACHE_CONTROL) {
            directives.take(&name, argument.as_deref());
        }
        directives
    }

    /// Whether nothing but silence is said of freshness.
    #[must_use]
    pub const fn names_a_lifetime(&self) -> bool {
        self.s_maxage.is_some() || self.max_age.is_some()
    }

    /// Whether a stale response must not be used without asking (RFC 9111, sections 5.2.2.2, 5.2.2.8 and
    /// 5.2.2.10: `s-maxage` says so too).
    #[must_use]
    pub const fn forbids_stale(&self) -> bool {
        self.no_cache || self.must_revalidate || self.proxy_revalidate || self.s_maxage.is_some()
    }

    fn take(&mut self, name: &str, argument: Option<&str>) {
        let lifetime = || Some(seconds(argument.unwrap_or_default()).unwrap_or(0));
        match name {
            "max-age" => self.max_age = self.max_age.or_else(lifetime),
            "s-maxage" => self.s_maxage = self.s_maxage.or_else(lifetime),
            "stale-while-revalidate" => self.stale_while_revalidate = self.stale_while_revalidate.or_else(lifetime),
            "stale-if-error" => self.stale_if_error = self.stale_if_error.or_else(lifetime),
            "no-store" => self.no_store = true,
            "no-cache" => self.no_cache |= !self.withhold(argument),
            "private" => self.private |= !self.withhold(argument),
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            _ => {}
        }
    }

    /// Takes the fields of `no-cache="a, b"` in; false when there are none, and the directive is about all.
    fn withhold(&mut self, argument: Option<&str>) -> bool {
        let fields = argument.unwrap_or_default().split(',').filter_map(|field| field.trim().parse().ok());
        let before = self.withheld.len();
        self.withheld.extend(fields.take(WITHHELD_MAX));
        self.withheld.len() > before
    }

    /// `CDN-Cache-Control`, if it is there and well-formed.
    fn targeted(response: &HeaderMap) -> Option<Self> {
        let mut lines = response.get_all(CDN_CACHE_CONTROL).iter().peekable();
        lines.peek()?;
        let mut text = String::new();
        for line in lines {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(line.to_str().ok()?);
        }
        let mut directives = Self { targeted: true, ..Self::default() };
        let members = dictionary(&text)?;
        if members.is_empty() {
            return None;
        }
        for (name, value) in members {
            directives.take_member(&name, &value)?;
        }
        Some(directives)
    }

    /// Nothing when the value is of a type that the directive does not have.
    fn take_member(&mut self, name: &str, value: &Item) -> Option<()> {
        match (name, value) {
            ("max-age" | "s-maxage" | "stale-while-revalidate" | "stale-if-error", Item::Integer(value)) => {
                self.take(name, Some(&value.to_string()));
            }
            ("max-age" | "s-maxage" | "stale-while-revalidate" | "stale-if-error", _) => return None,
            ("no-cache" | "private", Item::Text(fields)) => self.take(name, Some(fields)),
            (_, Item::Boolean(true)) => self.take(name, None),
            _ => {}
        }
        Some(())
    }
}

impl RequestDirectives {
    /// Reads a request's headers. A directive that makes no sense is as if it were absent.
    #[must_use]
    pub fn of(request: &HeaderMap) -> Self {
        let mut directives = Self::default();
        for (name, argument) in list(request, &header::CACHE_CONTROL) {
            let value = argument.as_deref().and_then(seconds);
            match name.as_str() {
                "no-cache" => directives.no_cache = true,
                "no-store" => directives.no_store = true,
                "only-if-cached" => directives.only_if_cached = true,
                "max-age" => directives.max_age = directives.max_age.or(value),
                "min-fresh" => directives.min_fresh = directives.min_fresh.or(value),
                "max-stale" => directives.max_stale = Some(value.unwrap_or(u64::MAX)),
                _ => {}
            }
        }
        // RFC 9111, section 5.4: only for requests that know no better.
        let pragma = list(request, &header::PRAGMA).any(|(name, _)| name == "no-cache");
        directives.no_cache |= pragma && !request.contains_key(header::CACHE_CONTROL);
        directives
    }
}

/// A number of seconds: digits only, cut at [`SECONDS_MAX`].
#[must_use]
pub fn seconds(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(SECONDS_MAX).min(SECONDS_MAX))
}

/// The directives of all lines of a field: name in lower case, and its argument without quotes.
fn list<'a>(headers: &'a HeaderMap, field: &HeaderName) -> impl Iterator<Item = (String, Option<String>)> + 'a {
    let lines = headers.get_all(field).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(members).map(|member| match member.split_once('=') {
        Some((name, argument)) => (name.to_ascii_lowercase(), Some(unquoted(argument))),
        None => (member.to_ascii_lowercase(), None),
    })
}

/// The members of a comma-separated list, trimmed, without empty ones. Commas in quotes are part of a member.
pub fn members(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = text.bytes().position(|byte| {
            let separates = byte == b',' && !quoted;
            quoted ^= byte == b'"' && !escaped;
            escaped = byte == b'\\' && quoted && !escaped;
            separates
        });
        rest = end.map(|end| &text[end + 1..]);
        Some(text[..end.unwrap_or(text.len())].trim_matches([' ', '\t']))
    })
    .filter(|member| !member.is_empty())
}

/// A token as it is, a quoted string without its quotes and escapes.
fn unquoted(argument: &str) -> String {
    let Some(inside) = argument.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return argument.to_owned();
    };
    let mut escaped = false;
    let mut text = String::with_capacity(inside.len());
    for character in inside.chars() {
        escaped = character == '\\' && !escaped;
        if !escaped {
            text.push(character);
        }
    }
    text
}

/// A value of a structured dictionary (RFC 8941), as far as this module tells them apart.
#[derive(Debug)]
enum Item {
    Integer(u64),
    Boolean(bool),
    Text(String),
    Other,
}

/// A structured dictionary (RFC 8941, section 3.2) without inner lists; nothing when it is malformed.
fn dictionary(text: &str) -> Option<Vec<(String, Item)>> {
    let mut list = Vec::new();
    for member in members(text) {
        let member = without_parameters(member);
        let (key, value) = match member.split_once('=') {
            Some((key, value)) => (key, item(value)?),
            None => (member, Item::Boolean(true)),
        };
        let first = key.bytes().next()?;
        let is_key_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte);
        if !(first.is_ascii_lowercase() || first == b'*') || !key.bytes().all(is_key_byte) {
            return None;
        }
        list.push((key.to_owned(), value));
    }
    Some(list)
}

fn without_parameters(member: &str) -> &str {
    let mut quoted = false;
    let end = member.bytes().position(|byte| {
        quoted ^= byte == b'"';
        byte == b';' && !quoted
    });
    member[..end.unwrap_or(member.len())].trim_end()
}

fn item(value: &str) -> Option<Item> {
    let first = value.bytes().next()?;
    match first {
        b'0'..=b'9' => match seconds(value) {
            Some(seconds) => Some(Item::Integer(seconds)),
            None => value.parse::<f64>().ok().map(|_| Item::Other),
        },
        b'-' => value.parse::<f64>().ok().map(|_| Item::Other),
        b'?' => matches!(value, "?0" | "?1").then(|| Item::Boolean(value == "?1")),
        b'"' => (value.len() > 1 && value.ends_with('"')).then(|| Item::Text(unquoted(value))),
        b'A'..=b'Z' | b'a'..=b'z' | b'*' | b':' | b'(' => (!value.contains([' ', '"'])).then_some(Item::Other),
        _ => None,
    }
}

/// The largest number of seconds that caches agree on (RFC 9111, section 1.2.2).
pub const SECONDS_MAX: u64 = 1 << 31;
const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
/// Fields that one directive may withhold.
const WITHHELD_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn lifetimes_are_read_strictly() {
        check(&["max-age=3600"], "max-age=3600");
        check(&["MaX-aGe=3600"], "max-age=3600");
        check(&["max-age=003600"], "max-age=3600");
        check(&["max-age=\"3600\""], "max-age=3600");
        check(&["max-age=99999999999"], "max-age=2147483648");
        check(&["max-age='3600'"], "max-age=0");
        check(&["max-age=-3600"], "max-age=0");
        check(&["max-age=3600.5"], "max-age=0");
        check(&["max-age= 3600"], "max-age=0");
        check(&["max-age"], "max-age=0");
        check(&["max-age =3600"], "");
        check(&["foobar, max-age=3600"], "max-age=3600");
    }

    #[test]
    fn the_first_of_several_counts_and_quotes_hide_commas() {
        check(&["max-age=1800, max-age=1"], "max-age=1800");
        check(&["max-age=1", "max-age=1800"], "max-age=1");
        check(&["extension=\"max-age=3600\", max-age=1"], "max-age=1");
        check(&["extension=\"a, max-age=3600\", max-age=1"], "max-age=1");
        check(&["extension=\"\\\", max-age=3600\", max-age=1"], "max-age=1");
        check(&["extension=\"max-age=1, never closed"], "");
    }

    #[test]
    fn directives_without_fields_are_about_the_whole_response() {
        check(&["No-StOrE"], "no-store");
        check(&["no-cache, private"], "no-cache private");
        check(&["no-cache=\"a, B\""], "withheld=a,b");
        check(&["private=\"a\", max-age=5"], "max-age=5 withheld=a");
        check(&["no-cache=\"\""], "no-cache");
        check(
            &["s-maxage=5, must-revalidate, proxy-revalidate, public, must-understand"],
            "s-maxage=5 must proxy public understand",
        );
        check(&["stale-while-revalidate=4,stale-if-error=60"], "swr=4 sie=60");
    }

    #[test]
    fn the_targeted_field_counts_alone_if_it_is_well_formed() {
        check_cdn(&["max-age=3600"], "max-age=3600 targeted");
        check_cdn(&["foobar, max-age=3600;a=1"], "max-age=3600 targeted");
        check_cdn(&["max-age=99999999999"], "max-age=2147483648 targeted");
        check_cdn(&["private"], "private targeted");
        check_cdn(&["no-cache=?0, max-age=1"], "max-age=1 targeted");
        for malformed in
            ["", "max-age =100", "max-age= 100", "max-age=10000, &&&&&", "max-age=\"10000\"", "MaX-aGe=1", "a=b c"]
        {
            check_cdn(&[malformed], "no-store");
        }
    }

    #[test]
    fn a_request_restricts_what_it_takes() {
        let read = |lines: &[(&'static str, &'static str)]| RequestDirectives::of(&map(lines));
        assert!(read(&[("cache-control", "no-cache")]).no_cache);
        assert!(read(&[("pragma", "no-cache")]).no_cache);
        assert!(!read(&[("pragma", "no-cache"), ("cache-control", "max-age=5")]).no_cache);
        let all = read(&[("cache-control", "max-age=5, min-fresh=6, max-stale=7, only-if-cached, no-store")]);
        assert_eq!((all.max_age, all.min_fresh, all.max_stale), (Some(5), Some(6), Some(7)));
        assert!(all.only_if_cached && all.no_store);
        assert_eq!(read(&[("cache-control", "max-stale")]).max_stale, Some(u64::MAX));
        assert_eq!(read(&[("cache-control", "max-age=x, nothing")]), RequestDirectives::default());
    }

    #[track_caller]
    fn check(lines: &[&'static str], expected: &str) {
        let lines: Vec<_> = lines.iter().map(|line| ("cache-control", *line)).collect();
        assert_eq!(shown(&ResponseDirectives::of(&map(&lines))), expected, "{lines:?}");
    }

    #[track_caller]
    fn check_cdn(lines: &[&'static str], expected: &str) {
        let mut all = vec![("cache-control", "no-store")];
        all.extend(lines.iter().map(|line| ("cdn-cache-control", *line)));
        assert_eq!(shown(&ResponseDirectives::of(&map(&all))), expected, "{lines:?}");
    }

    fn shown(directives: &ResponseDirectives) -> String {
        let mut words = Vec::new();
        let numbers = [
            ("max-age", directives.max_age),
            ("s-maxage", directives.s_maxage),
            ("swr", directives.stale_while_revalidate),
            ("sie", directives.stale_if_error),
        ];
        words.extend(numbers.iter().filter_map(|(name, value)| Some(format!("{name}={}", (*value)?))));
        let flags = [
            ("no-store", directives.no_store),
            ("no-cache", directives.no_cache),
            ("private", directives.private),
            ("must", directives.must_revalidate),
            ("proxy", directives.proxy_revalidate),
            ("public", directives.public),
            ("understand", directives.must_understand),
            ("targeted", directives.targeted),
        ];
        words.extend(flags.iter().filter(|(_, set)| *set).map(|(name, _)| (*name).to_owned()));
        if !directives.withheld.is_empty() {
            let fields: Vec<_> = directives.withheld.iter().map(HeaderName::as_str).collect();
            words.push(format!("withheld={}", fields.join(",")));
        }
        words.join(" ")
    }

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }
}
