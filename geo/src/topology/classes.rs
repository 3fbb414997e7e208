//! Content classes, checked.

use std::collections::BTreeSet;

use super::document;
use super::pattern::Pattern;
use super::problems::{Problems, Row};
use super::{Class, Cors, Kind, Spread};

/// All classes in the document's order; complete when no problem was added.
pub(super) fn classes(raw: &[document::Class], problems: &mut Problems) -> Vec<Class> {
    if raw.len() > CLASSES_MAX {
        problems.push(format!("class: there are {}: at most {CLASSES_MAX}", raw.len()));
        return Vec::new();
    }
    let mut names = BTreeSet::new();
    let mut classes = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        let mut row = Row::new(problems, "class", index, &raw.name);
        if !names.insert(&raw.name) {
            row.refuse("name", &raw.name, "another class has this name");
        }
        classes.extend(class(raw, &mut row));
    }
    classes
}

/// The class of files that no class matches.
pub(super) fn default_class() -> Class {
    Class {
        name: "default".to_owned(),
        paths: Vec::new(),
        kind: Kind::Light,
        spread: Spread::Auto,
        ttl_s: document::ttl_s().unsigned_abs(),
        file_bytes_max: document::file_bytes_max().unsigned_abs(),
        cors: None,
        patterns: Vec::new(),
    }
}

fn class(raw: &document::Class, row: &mut Row<'_>) -> Option<Class> {
    let is_name_byte = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    if !(1..=32).contains(&raw.name.len()) || !raw.name.bytes().all(is_name_byte) {
        row.refuse("name", &raw.name, "a class's name has 1..=32 of a-z, 0-9, - and _");
    }
    let kind = match raw.kind.as_str() {
        "light" => Some(Kind::Light),
        "heavy" => Some(Kind::Heavy),
        other => {
            row.refuse("kind", other, "a kind is \"light\" or \"heavy\"");
            None
        }
    };
    let spread = match raw.spread.as_str() {
        "auto" => Some(Spread::Auto),
        "all" => Some(Spread::All),
        other => {
            row.refuse("spread", other, "a spread is \"auto\" or \"all\"");
            None
        }
    };
    let ttl_s = row.integer("ttl_s", raw.ttl_s, 0..=TTL_S_MAX, "a freshness is 0..=2147483647 seconds");
    let file_bytes_max =
        row.integer("file_bytes_max", raw.file_bytes_max, 1..=u64::MAX, "a largest size is 1 byte or more");
    let patterns = patterns(&raw.paths, row);
    let cors = raw.cors.as_ref().map(|raw| cors(raw, row));
    Some(Class {
        name: raw.name.clone(),
        paths: raw.paths.clone(),
        kind: kind?,
        spread: spread?,
        ttl_s: ttl_s?,
        file_bytes_max: file_bytes_max?,
        cors,
        patterns,
    })
}

fn patterns(texts: &[String], row: &mut Row<'_>) -> Vec<Pattern> {
    if texts.is_empty() || texts.len() > PATTERNS_MAX {
        row.refuse("paths", texts, "a class has 1..=256 patterns");
        return Vec::new();
    }
    let mut patterns = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match Pattern::parse(text) {
            Ok(pattern) => patterns.push(pattern),
            Err(allowed) => row.refuse(&format!("paths[{index}]"), text, allowed),
        }
    }
    patterns
}

fn cors(raw: &document::Cors, row: &mut Row<'_>) -> Cors {
    if raw.origins.is_empty() || raw.origins.len() > CORS_MAX {
        row.refuse("cors.origins", &raw.origins, "there are 1..=256 origins, or [\"*\"] for all");
    }
    if raw.origins.len() > 1 && raw.origins.iter().any(|origin| origin == "*") {
        row.refuse("cors.origins", &raw.origins, "\"*\" is all origins and stands alone");
    }
    for origin in raw.origins.iter().filter(|origin| *origin != "*" && !is_origin(origin)) {
        row.refuse("cors.origins", origin, "an origin is \"*\" or https://example.org[:port], lower case, no path");
    }
    if raw.expose_headers.len() > CORS_MAX {
        row.refuse("cors.expose_headers", &raw.expose_headers, "at most 256 headers");
    }
    for header in raw.expose_headers.iter().filter(|header| !is_token(header)) {
        row.refuse("cors.expose_headers", header, "a header's name is letters, digits and -");
    }
    Cors { origins: raw.origins.clone(), expose_headers: raw.expose_headers.clone() }
}

/// An origin as browsers send it (RFC 6454, section 6.2).
fn is_origin(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return false;
    };
    super::origin::is_authority(rest)
}

/// The part of RFC 9110's tokens that header names are made of (section 5.6.2), and `*`.
fn is_token(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && (text == "*" || text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'))
}

const CLASSES_MAX: usize = 256;
const PATTERNS_MAX: usize = 256;
const CORS_MAX: usize = 256;
/// The largest number of seconds that caches agree on (RFC 9111, section 1.2.2).
const TTL_S_MAX: u64 = (1 << 31) - 1;
