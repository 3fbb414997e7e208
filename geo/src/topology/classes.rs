//! Content classes, checked.

use std::collections::{BTreeMap, BTreeSet};

use super::check::plain_number;
use super::document;
use super::pattern::Pattern;
use super::problems::{Problems, Row};
use super::{Class, Cors, Kind, NEGATIVE_TTL_S, Policy, Spread, Uploads, signing};

/// The document's own classes in its order; complete when no problem was added.
pub(super) fn of_names(raw: &[document::Class], problems: &mut Problems) -> Vec<Class> {
    classes(raw, "class", Whose::Names, problems)
}

/// The classes of the `site`th site in the document's order; complete when no problem was added.
pub(super) fn of_paths(raw: &[document::Class], site: usize, problems: &mut Problems) -> Vec<Class> {
    classes(raw, &format!("site[{site}].class"), Whose::Site, problems)
}

/// The class of what no class matches.
pub(super) fn default_class(policy: Policy) -> Class {
    let lifetimes = Lifetimes::of(policy);
    Class {
        name: "default".to_owned(),
        paths: Vec::new(),
        kind: Kind::Light,
        spread: Spread::Auto,
        policy,
        ttl_s: lifetimes.ttl_s,
        negative_ttl: lifetimes.negative_ttl,
        stale_if_error_s: lifetimes.stale_if_error_s,
        stale_while_revalidate_s: lifetimes.stale_while_revalidate_s,
        ignore_query: false,
        file_bytes_max: document::file_bytes_max().unsigned_abs(),
        uploads: None,
        cors: None,
        share_max: 1.0,
        signed: None,
        patterns: Vec::new(),
    }
}

/// What the patterns of a class are about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Whose {
    Names,
    Site,
}

/// How long things live, all of it.
#[derive(Debug)]
struct Lifetimes {
    ttl_s: u64,
    negative_ttl: Vec<(u16, u64)>,
    stale_if_error_s: u64,
    stale_while_revalidate_s: u64,
}

impl Lifetimes {
    /// The defaults of a policy.
    fn of(policy: Policy) -> Self {
        match policy {
            Policy::Immutable => Self {
                ttl_s: 365 * 24 * 3600,
                negative_ttl: vec![(404, NEGATIVE_TTL_S), (410, NEGATIVE_TTL_S)],
                stale_if_error_s: 7 * 24 * 3600,
                stale_while_revalidate_s: 60,
            },
            Policy::Rfc => {
                Self { ttl_s: 0, negative_ttl: Vec::new(), stale_if_error_s: 0, stale_while_revalidate_s: 0 }
            }
        }
    }
}

fn classes(raw: &[document::Class], table: &str, whose: Whose, problems: &mut Problems) -> Vec<Class> {
    if raw.len() > CLASSES_MAX {
        problems.push(format!("{table}: there are {}: at most {CLASSES_MAX}", raw.len()));
        return Vec::new();
    }
    let mut names = BTreeSet::new();
    let mut classes = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        let mut row = Row::new(problems, table, index, &raw.name);
        if !names.insert(&raw.name) {
            row.refuse("name", &raw.name, "another class has this name");
        }
        classes.extend(class(raw, whose, &mut row));
    }
    classes
}

fn class(raw: &document::Class, whose: Whose, row: &mut Row<'_>) -> Option<Class> {
    let is_name_byte = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    if !(1..=32).contains(&raw.name.len()) || !raw.name.bytes().all(is_name_byte) {
        row.refuse("name", &raw.name, "a class's name has 1..=32 of a-z, 0-9, - and _");
    }
    let kinds = [("light", Kind::Light), ("heavy", Kind::Heavy)];
    let kind = one_of("kind", &raw.kind, &kinds, "a kind is \"light\" or \"heavy\"", row);
    let spreads = [("auto", Spread::Auto), ("all", Spread::All)];
    let spread = one_of("spread", &raw.spread, &spreads, "a spread is \"auto\" or \"all\"", row);
    let policies = [("immutable", Policy::Immutable), ("rfc", Policy::Rfc)];
    let policy = match (&raw.policy, whose) {
        (Some(text), _) => one_of("policy", text, &policies, "a policy is \"immutable\" or \"rfc\"", row),
        (None, Whose::Names) => Some(Policy::Immutable),
        (None, Whose::Site) => Some(Policy::Rfc),
    };
    if let Some(ignore_query) = raw.ignore_query.filter(|_| whose == Whose::Names) {
        row.refuse("ignore_query", ignore_query, "only a site's class has it: under /c... a query never counts");
    }
    let file_bytes_max =
        row.integer("file_bytes_max", raw.file_bytes_max, 1..=u64::MAX, "a largest size is 1 byte or more");
    let lifetimes = policy.map(|policy| lifetimes(raw, policy, row));
    let patterns = patterns(&raw.paths, whose, row);
    let uploads = raw.uploads.as_ref().and_then(|raw| uploads(raw, row));
    let cors = raw.cors.as_ref().map(|raw| cors(raw, row));
    let share_max = raw.share_max.unwrap_or(if kind == Some(Kind::Heavy) { HEAVY_SHARE } else { 1.0 });
    let share_max = row.float("share_max", share_max, (0.01, 1.0), "a share is 0.01..=1");
    let signed = signing::links(raw, whose == Whose::Names, row);
    let lifetimes = lifetimes?;
    Some(Class {
        name: raw.name.clone(),
        paths: raw.paths.clone(),
        kind: kind?,
        spread: spread?,
        policy: policy?,
        ttl_s: lifetimes.ttl_s,
        negative_ttl: lifetimes.negative_ttl,
        stale_if_error_s: lifetimes.stale_if_error_s,
        stale_while_revalidate_s: lifetimes.stale_while_revalidate_s,
        ignore_query: raw.ignore_query.unwrap_or(false),
        file_bytes_max: file_bytes_max?,
        uploads,
        cors,
        share_max: share_max?,
        signed,
        patterns,
    })
}

/// The choice that a text names.
fn one_of<T: Copy>(key: &str, text: &str, choices: &[(&str, T)], allowed: &str, row: &mut Row<'_>) -> Option<T> {
    let choice = choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
    if choice.is_none() {
        row.refuse(key, text, allowed);
    }
    choice
}

/// What the class says of lifetimes, the policy's defaults where it says nothing; what was refused is left at
/// its default, since a problem leaves no topology.
fn lifetimes(raw: &document::Class, policy: Policy, row: &mut Row<'_>) -> Lifetimes {
    let mut lifetimes = Lifetimes::of(policy);
    let keys = [
        ("ttl_s", raw.ttl_s, &mut lifetimes.ttl_s),
        ("stale_if_error_s", raw.stale_if_error_s, &mut lifetimes.stale_if_error_s),
        ("stale_while_revalidate_s", raw.stale_while_revalidate_s, &mut lifetimes.stale_while_revalidate_s),
    ];
    for (key, value, lifetime) in keys {
        let Some(value) = value else { continue };
        if policy == Policy::Rfc {
            row.refuse(key, value, "only with policy = \"immutable\": under \"rfc\" responses say it");
        }
        *lifetime = row.integer(key, value, 0..=TTL_S_MAX, "a time is 0..=2147483647 seconds").unwrap_or(*lifetime);
    }
    if let Some(raw) = &raw.negative_ttl {
        lifetimes.negative_ttl = negative_ttl(raw, row);
    }
    lifetimes
}

/// Statuses in ascending order.
fn negative_ttl(raw: &BTreeMap<String, i64>, row: &mut Row<'_>) -> Vec<(u16, u64)> {
    let mut lifetimes = Vec::with_capacity(raw.len());
    for (text, &value) in raw {
        let status = plain_number::<u16>(text).filter(|status| (400..=599).contains(status));
        if status.is_none() {
            row.refuse("negative_ttl", text, "a status is \"400\"..=\"599\"");
        }
        let key = format!("negative_ttl.{text:.8}");
        let ttl_s = row.integer(&key, value, 0..=TTL_S_MAX, "a time is 0..=2147483647 seconds");
        lifetimes.extend(status.zip(ttl_s));
    }
    lifetimes.sort_unstable();
    lifetimes
}

fn uploads(raw: &document::Uploads, row: &mut Row<'_>) -> Option<Uploads> {
    let bytes_max = row.integer("uploads.bytes_max", raw.bytes_max, 1..=u64::MAX, "a longest body is 1 byte or more");
    let bytes_per_second = row.integer(
        "uploads.bytes_per_second",
        raw.bytes_per_second,
        0..=u64::MAX,
        "a rate is 1 byte per second or more, or 0 for no limit",
    );
    Some(Uploads { bytes_max: bytes_max?, bytes_per_second: bytes_per_second? })
}

fn patterns(texts: &[String], whose: Whose, row: &mut Row<'_>) -> Vec<Pattern> {
    if texts.is_empty() || texts.len() > PATTERNS_MAX {
        row.refuse("paths", texts, "a class has 1..=256 patterns");
        return Vec::new();
    }
    let mut patterns = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let pattern = match whose {
            Whose::Names => Pattern::of_names(text),
            Whose::Site => Pattern::of_paths(text),
        };
        match pattern {
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

/// A quarter is left when films are slow.
const HEAVY_SHARE: f64 = 0.75;
const CLASSES_MAX: usize = 256;
const PATTERNS_MAX: usize = 256;
const CORS_MAX: usize = 256;
/// The largest number of seconds that caches agree on (RFC 9111, section 1.2.2).
const TTL_S_MAX: u64 = (1 << 31) - 1;
