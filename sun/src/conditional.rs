//! What a request gets of a file that is known: conditions and ranges (RFC 9110, sections 13 and 14). Pure.

use std::ops::Range;
use std::time::SystemTime;

use http::{StatusCode, header};

use crate::headers;
use crate::meta::Meta;
use crate::multipart::{Selection, Several};
use crate::request::{Conditions, Lookup};

/// What a request gets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Conclusion {
    /// The whole file: 200.
    Whole,
    /// Some of its bytes: 206.
    Part(Range<u64>),
    /// Several parts of it: 206, `multipart/byteranges`. At least two, which do not overlap.
    Parts(Vec<Range<u64>>),
    /// The client's copy is good: 304.
    NotModified,
    /// A condition for doing anything at all failed: 412.
    PreconditionFailed,
    /// Every byte asked for lies past the end: 416.
    Unsatisfiable,
}

/// Evaluates in the order of RFC 9110, section 13.2.2. A file whose size is not known yet is given whole.
#[must_use]
pub fn conclude(request: &Lookup, meta: &Meta) -> Conclusion {
    // RFC 9110, section 13.2.1: conditions and ranges are about what a request without them would be given.
    if meta.status != StatusCode::OK {
        return Conclusion::Whole;
    }
    let conditions = &request.conditions;
    if precondition_failed(conditions, meta) {
        return Conclusion::PreconditionFailed;
    }
    if not_modified(conditions, meta) {
        return Conclusion::NotModified;
    }
    let range = request.range.filter(|_| if_range_holds(conditions, meta));
    match (range, &request.several, meta.size) {
        (Some(_), Some(several), Some(size)) => select(several, size),
        (Some(range), None, Some(size)) => range.within(size).map_or(Conclusion::Unsatisfiable, Conclusion::Part),
        _ => Conclusion::Whole,
    }
}

/// Never a multipart of one part: a client that did not ask for several may not understand it (RFC 9110,
/// section 15.3.7.2).
fn select(several: &Several, size: u64) -> Conclusion {
    match several.within(size) {
        Selection::Whole => Conclusion::Whole,
        Selection::Unsatisfiable => Conclusion::Unsatisfiable,
        Selection::Parts(mut parts) if parts.len() == 1 => Conclusion::Part(parts.remove(0)),
        Selection::Parts(parts) => Conclusion::Parts(parts),
    }
}

/// RFC 9110, sections 13.1.1 and 13.1.4.
fn precondition_failed(conditions: &Conditions, meta: &Meta) -> bool {
    if let Some(tags) = &conditions.if_match {
        return !lists(tags, tag(meta), strongly);
    }
    match (&conditions.if_unmodified_since, last_modified(meta)) {
        (Some(since), Some(modified)) => date(since).is_some_and(|since| modified > since),
        _ => false,
    }
}

/// RFC 9110, sections 13.1.2 and 13.1.3.
fn not_modified(conditions: &Conditions, meta: &Meta) -> bool {
    if let Some(tags) = &conditions.if_none_match {
        return lists(tags, tag(meta), weakly);
    }
    match (&conditions.if_modified_since, last_modified(meta)) {
        (Some(since), Some(modified)) => date(since).is_some_and(|since| modified <= since),
        _ => false,
    }
}

/// RFC 9110, section 13.1.5: a strong tag that matches, or exactly the date.
fn if_range_holds(conditions: &Conditions, meta: &Meta) -> bool {
    let Some(validator) = &conditions.if_range else {
        return true;
    };
    let validator = validator.trim();
    if validator.starts_with('"') || validator.starts_with("W/") {
        return tag(meta).is_some_and(|tag| strongly(validator, tag));
    }
    headers::text(&meta.headers, &header::LAST_MODIFIED) == Some(validator)
}

/// Whether a list of entity tags, or `*`, names this one.
fn lists(list: &str, tag: Option<&str>, same: fn(&str, &str) -> bool) -> bool {
    if list.trim() == "*" {
        return true;
    }
    tag.is_some_and(|tag| list.split(',').any(|listed| same(listed.trim(), tag)))
}

fn strongly(a: &str, b: &str) -> bool {
    !a.starts_with("W/") && a == b
}

fn weakly(a: &str, b: &str) -> bool {
    a.strip_prefix("W/").unwrap_or(a) == b.strip_prefix("W/").unwrap_or(b)
}

fn tag(meta: &Meta) -> Option<&str> {
    headers::text(&meta.headers, &header::ETAG)
}

fn last_modified(meta: &Meta) -> Option<SystemTime> {
    headers::text(&meta.headers, &header::LAST_MODIFIED).and_then(date)
}

fn date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::range::Spec;
    use http::{HeaderMap, HeaderValue};

    const DATE: &str = "Mon, 01 Jan 2024 00:00:00 GMT";
    const LATER: &str = "Tue, 02 Jan 2024 00:00:00 GMT";
    const EARLIER: &str = "Sun, 31 Dec 2023 00:00:00 GMT";

    #[test]
    fn conditions_are_evaluated_in_the_standards_order() {
        check(&[], "Whole");
        check(&[("if-none-match", "\"a\"")], "NotModified");
        check(&[("if-none-match", "W/\"a\"")], "NotModified");
        check(&[("if-none-match", "\"x\", \"a\"")], "NotModified");
        check(&[("if-none-match", "*")], "NotModified");
        check(&[("if-none-match", "\"b\"")], "Whole");
        check(&[("if-none-match", "\"b\""), ("if-modified-since", LATER)], "Whole");
        check(&[("if-modified-since", DATE)], "NotModified");
        check(&[("if-modified-since", EARLIER)], "Whole");
        check(&[("if-modified-since", "yesterday")], "Whole");
        check(&[("if-match", "\"b\"")], "PreconditionFailed");
        check(&[("if-match", "W/\"a\"")], "PreconditionFailed");
        check(&[("if-match", "\"a\"")], "Whole");
        check(&[("if-unmodified-since", EARLIER)], "PreconditionFailed");
        check(&[("if-unmodified-since", DATE)], "Whole");
    }

    #[test]
    fn a_range_counts_only_for_the_version_it_was_meant_for() {
        check(&[("range", "bytes=0-9")], "Part(0..10)");
        check(&[("range", "bytes=0-9"), ("if-range", "\"a\"")], "Part(0..10)");
        check(&[("range", "bytes=0-9"), ("if-range", "\"b\"")], "Whole");
        check(&[("range", "bytes=0-9"), ("if-range", "W/\"a\"")], "Whole");
        check(&[("range", "bytes=0-9"), ("if-range", DATE)], "Part(0..10)");
        check(&[("range", "bytes=0-9"), ("if-range", LATER)], "Whole");
        check(&[("range", "bytes=30-")], "Unsatisfiable");
        check(&[("range", "bytes=30-"), ("if-none-match", "\"a\"")], "NotModified");
    }

    #[test]
    fn several_ranges_are_several_parts_unless_one_or_none_is_left() {
        check_of(1000, &[("range", "bytes=0-9,500-509")], "Parts([0..10, 500..510])");
        check_of(1000, &[("range", "bytes=0-9,500-509"), ("if-range", "\"a\"")], "Parts([0..10, 500..510])");
        check_of(1000, &[("range", "bytes=0-9,500-509"), ("if-range", "\"b\"")], "Whole");
        check_of(1000, &[("range", "bytes=0-9,500-509"), ("if-none-match", "\"a\"")], "NotModified");
        check_of(1000, &[("range", "bytes=0-9,10-19")], "Part(0..20)");
        check_of(1000, &[("range", "bytes=0-9,1000-")], "Part(0..10)");
        check_of(1000, &[("range", "bytes=2000-,1000-")], "Unsatisfiable");
        check_of(1000, &[("range", "bytes=0-499,600-999")], "Whole");
    }

    #[track_caller]
    fn check(headers: &[(&str, &str)], expected: &str) {
        check_of(30, headers, expected);
    }

    #[track_caller]
    fn check_of(size: u64, headers: &[(&str, &str)], expected: &str) {
        let own = |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let conditions = Conditions {
            if_match: own("if-match"),
            if_none_match: own("if-none-match"),
            if_modified_since: own("if-modified-since"),
            if_unmodified_since: own("if-unmodified-since"),
            if_range: own("if-range"),
        };
        let name = geo::CanonicalName::parse("c1/a").unwrap();
        let content = name.content_id();
        let several = own("range").and_then(|range| Several::parse(&range));
        let range = own("range").and_then(|range| Spec::parse(&range)).or(several.as_ref().map(Several::lead));
        let request = Lookup {
            name,
            content,
            slot: content,
            said: None,
            head_only: false,
            range,
            several,
            conditions,
            origin: None,
            direct: false,
            held_only: false,
            site: None,
            cors: false,
            signed: None,
        };
        let mut kept = HeaderMap::new();
        kept.insert(header::ETAG, HeaderValue::from_static("\"a\""));
        kept.insert(header::LAST_MODIFIED, HeaderValue::from_static(DATE));
        let meta = Meta::new(&kept, Some(size), 0, 0, 2);
        assert_eq!(format!("{:?}", conclude(&request, &meta)), expected, "{headers:?}");
    }
}
