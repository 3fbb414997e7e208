//! Names and addresses outside the regions: the domain and the content servers.

use super::ContentServers;
use super::document;
use super::problems::Problems;
use crate::name::CanonicalName;

/// The domain that server names are prepended to.
pub(super) fn domain(text: &str, problems: &mut Problems) {
    if !is_host(text) || text.len() > DOMAIN_BYTES_MAX {
        let allowed = "a domain is labels of a-z, 0-9 and - joined by dots, in lower case, at most 200 bytes";
        problems.add("", "domain", text, allowed);
    }
}

/// The content servers, complete when no problem was added.
pub(super) fn content_servers(raw: &document::ContentServers, problems: &mut Problems) -> ContentServers {
    let numbers = numbers(&raw.numbers, problems);
    // What holds for the shortest and for the longest number holds for those between.
    let tried = numbers.first().map_or([1, 1], |first| [first.0, numbers.last().map_or(first.1, |last| last.1)]);
    let problem = |url: &str| tried.iter().find_map(|&number| url_problem(url, number));
    if let Some(allowed) = problem(&raw.url) {
        problems.add("content_servers", "url", &raw.url, allowed);
    }
    if let Some(public) = &raw.public
        && let Some(allowed) = problem(public)
    {
        problems.add("content_servers", "public", public, allowed);
    }
    ContentServers { url: raw.url.clone(), numbers, public: raw.public.clone() }
}

/// What is wrong with the template when `{number}` is this number.
fn url_problem(template: &str, number: u32) -> Option<&'static str> {
    if !template.contains("{number}") {
        return Some("it holds {number}, http://cs{number}.storage.example.org");
    }
    let url = template.replace("{number}", &number.to_string());
    let Some(rest) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) else {
        return Some("it begins with https:// or http://");
    };
    let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    if path.ends_with('/') {
        return Some("it does not end with a slash, since paths begin with one");
    }
    // A path prefix is held to the rules of names, since it becomes the beginning of one.
    let canonical = CanonicalName::parse(&format!("c0{path}/a"));
    if canonical.ok().is_none_or(|name| name.path().strip_suffix("/a") != Some(path)) {
        return Some("its path is canonical: no empty or dot segment, no query, nothing needlessly encoded");
    }
    if !is_authority(authority) {
        return Some(
            "between the scheme and the path are a host in lower case or an address, and a port 1..=65535 or none",
        );
    }
    None
}

/// `host`, `host:port`, `192.0.2.1:80` or `[2001:db8::1]:80`; nobody's name and password.
pub(super) fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_is_good = inside.map_or_else(|| is_host(host), |inside| inside.parse::<std::net::Ipv6Addr>().is_ok());
    let port_is_good = port.is_none_or(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    host_is_good && port_is_good
}

/// A host name in lower case (RFC 1123, section 2.1), or an IPv4 address, which looks like one.
pub(super) fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// Reads `"1-199"` and `"100500"`: ascending and disjoint.
fn numbers(texts: &[String], problems: &mut Problems) -> Vec<(u32, u32)> {
    if texts.is_empty() || texts.len() > RANGES_MAX {
        problems.add("content_servers", "numbers", texts, "there are 1..=10000 ranges, \"1-199\" or \"100500\"");
        return Vec::new();
    }
    let mut ranges: Vec<((u32, u32), &str)> = Vec::with_capacity(texts.len());
    for text in texts {
        match range(text) {
            Some(range) => ranges.push((range, text)),
            None => problems.add(
                "content_servers",
                "numbers",
                text,
                "a range is \"1-199\" or \"100500\", its ends 0..=4294967295, the first not above the last",
            ),
        }
    }
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        let ((first, first_text), (second, second_text)) = (pair[0], pair[1]);
        if second.0 <= first.1 {
            let allowed = format!("it overlaps {first_text:?}; ranges are disjoint");
            problems.add("content_servers", "numbers", second_text, allowed);
        }
    }
    ranges.into_iter().map(|(range, _)| range).collect()
}

fn range(text: &str) -> Option<(u32, u32)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = (super::check::plain_number(first)?, super::check::plain_number(last)?);
    (range.0 <= range.1).then_some(range)
}

/// Leaves room for a server's name in the 253 bytes of a host.
const DOMAIN_BYTES_MAX: usize = 200;
const RANGES_MAX: usize = 10_000;
