//! Which names may be counted, rated and offered to caches.
//!
//! [`CanonicalName::from_written`] alone takes whatever a site's URL can be: dot segments, queries, encoded slashes. Such
//! bytes are right for the content server of a site and for no other: a cache would ask it for them.

use geo::topology::Topology;
use geo::{CanonicalName, NameError};

/// Why a name is not taken.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadName {
    /// It names no file at all.
    #[error("{0}")]
    Name(#[from] NameError),
    /// The same file has another name; only a site's may be spelled in several ways.
    #[error("it is not canonical: that is {0}")]
    Spelling(CanonicalName),
    /// The content server is not among the topology's.
    #[error("the topology has no content server {0}")]
    ContentServer(u32),
}

impl BadName {
    /// The kind of trouble, for counters.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Name(_) => "name",
            Self::Spelling(_) => "spelling",
            Self::ContentServer(_) => "content_server",
        }
    }
}

/// A name that a server reports: [`spelled`] as it should be, and of a content server that the topology has.
///
/// # Errors
///
/// [`BadName`] when nothing is to be counted under it.
pub fn reported(topology: &Topology, file: &str) -> Result<CanonicalName, BadName> {
    let name = spelled(topology, file)?;
    let content_server = name.content_server();
    if topology.content_servers.allows(content_server) { Ok(name) } else { Err(BadName::ContentServer(content_server)) }
}

/// A name that is canonical, or as a URL of a site when its content server has one. What is kept for long goes by this: a
/// content server that the topology lacks today may be there again tomorrow.
///
/// # Errors
///
/// [`BadName`], but for a content server that the topology does not have.
pub fn spelled(topology: &Topology, file: &str) -> Result<CanonicalName, BadName> {
    let trouble = match CanonicalName::parse(file) {
        Ok(name) if name.as_str() == file => return Ok(name),
        Ok(name) => BadName::Spelling(name),
        Err(error) => BadName::Name(error),
    };
    let Ok(written) = CanonicalName::from_written(file) else { return Err(trouble) };
    let content_server = written.content_server();
    let of_a_site = topology.sites.iter().any(|site| site.content_server == content_server);
    if of_a_site { Ok(written) } else { Err(trouble) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const HOSTILE: [&str; 9] =
        ["c5/../secret", "c5//y", "c5/%2e%2e/y", "c5/q?a=1", "c5/a%2fb", "c5/", "c5/%7Ex", "c5/caf%c3%a9", "c5/%ff"];

    #[test]
    fn only_canonical_names_are_taken_of_a_content_server_without_a_site() {
        let topology = testing::topology();
        for file in ["c5/a.jpg", "c5/a/b%20c", "c5/%D1%84.jpg"] {
            assert_eq!(reported(&topology, file).map(|name| name.to_string()), Ok(file.to_owned()));
        }
        for file in HOSTILE.into_iter().chain(["", "c5", "c5/a b", "c5/a#b", "c10/a"]) {
            assert!(reported(&topology, file).is_err(), "{file}");
            assert_eq!(spelled(&topology, file).is_ok(), file == "c10/a", "{file}");
        }
        assert_eq!(reported(&topology, &format!("c5/{}", "x".repeat(1100))), Err(NameError::TooLong.into()));
        assert_eq!(reported(&topology, "c5/%7Ex").unwrap_err().to_string(), "it is not canonical: that is c5/~x");
        assert_eq!(reported(&topology, "c10/a").unwrap_err().to_string(), "the topology has no content server 10");
    }

    #[test]
    fn a_sites_urls_are_taken_as_they_are_and_of_no_other_content_server() {
        let site = "[[site]]\nhost = \"www.example.net\"\ncontent_server = 5\n";
        let topology = Topology::parse(&format!("{}\n{site}", testing::TOPOLOGY)).unwrap();
        for file in HOSTILE {
            assert!(reported(&topology, file).is_ok(), "{file}");
            assert!(reported(&topology, &file.replace("c5/", "c6/")).is_err(), "{file}");
        }
    }
}
