//! Sites, checked.

use std::collections::{BTreeMap, BTreeSet};

use super::check::name_numbers;
use super::classes::{self, default_class};
use super::document::Document;
use super::problems::{Problems, Row};
use super::{Class, ContentServers, Policy, Site, origin};

/// All sites by host; complete when no problem was added. `of_names`: the document's own classes.
pub(super) fn sites(
    document: &Document,
    content_servers: &ContentServers,
    of_names: &[Class],
    problems: &mut Problems,
) -> Vec<Site> {
    if document.site.len() > SITES_MAX {
        problems.push(format!("site: there are {}: at most {SITES_MAX}", document.site.len()));
        return Vec::new();
    }
    let (mut hosts, mut origin_hosts) = (BTreeSet::new(), BTreeMap::new());
    let mut sites = Vec::with_capacity(document.site.len());
    for (index, raw) in document.site.iter().enumerate() {
        let mut row = Row::new(problems, "site", index, &raw.host);
        let host = raw.host.to_ascii_lowercase();
        if let Some(allowed) = host_problem(&host, &document.domain) {
            row.refuse("host", &raw.host, allowed);
        } else if !hosts.insert(host.clone()) {
            row.refuse("host", &raw.host, "another site has this host");
        }
        let content_server = content_server(raw.content_server, content_servers, &mut row);
        let signed = of_names
            .iter()
            .find(|class| class.signed.is_some() && content_server.is_some_and(|number| class.reaches(number)));
        if let Some(class) = signed.filter(|_| !raw.opens_signed) {
            let allowed = format!(
                "the class {} signs files of this content server, and the site's URLs open them to everybody without; \
                 if they may, say opens_signed = true",
                class.name
            );
            row.refuse("content_server", raw.content_server, allowed);
        }
        let origin_host = raw.origin_host.as_ref().unwrap_or(&raw.host).to_ascii_lowercase();
        if raw.origin_host.is_some() && !origin::is_host(&origin_host) {
            row.refuse("origin_host", &origin_host, HOST_FORM);
        } else if origin_hosts.entry(raw.content_server).or_insert_with(|| origin_host.clone()) != &origin_host {
            // Files are kept by content server and path: two names would be two files in one place.
            let allowed = "another site asks this content server by another name: give both the same origin_host";
            row.refuse("origin_host", &origin_host, allowed);
        }
        let classes = classes::of_paths(&raw.class, index, problems);
        sites.extend(content_server.map(|content_server| Site {
            host,
            content_server,
            origin_host,
            classes,
            default_class: default_class(Policy::Rfc),
        }));
    }
    sites.sort_by(|a, b| a.host.cmp(&b.host));
    sites
}

/// What is wrong with a site's hostname in lower case.
fn host_problem(host: &str, domain: &str) -> Option<&'static str> {
    if !origin::is_host(host) {
        return Some(HOST_FORM);
    }
    if host == domain {
        return Some("it is the domain itself");
    }
    let own = host.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.'));
    own.filter(|name| is_server_or_group(name)).map(|_| "under the domain, it is the name of a sun, a group or a cache")
}

/// Whether a sun, a group or a cache may have the name: those there are, and those to come.
fn is_server_or_group(name: &str) -> bool {
    name_numbers::<3>(name, "sun").is_some()
        || name_numbers::<2>(name, "sun").is_some()
        || name_numbers::<2>(name, "cache").is_some()
}

fn content_server(number: i64, content_servers: &ContentServers, row: &mut Row<'_>) -> Option<u32> {
    // Without any there is a problem already, and it is not the site's.
    let allows = |&number: &u32| content_servers.numbers.is_empty() || content_servers.allows(number);
    let known = u32::try_from(number).ok().filter(allows);
    if known.is_none() {
        row.refuse("content_server", number, "there is no such content server");
    }
    known
}

const HOST_FORM: &str = "a host is labels of letters, digits and - joined by dots, without a port, at most 253 bytes";
const SITES_MAX: usize = 4096;
