//! Who served a response, read from its `Cache-Status` (RFC 9211).
//!
//! The list runs from the server nearest the content server to the one nearest the client; each member
//! begins with a server's name and says whether it had the file (`hit`) or had to ask on (`fwd=...`).
//!
//! ```text
//!   sun4-2-1; hit                                      RAM of sun4-2-1
//!   cache4-1; hit                                      vault of cache4-1
//!   sun4-2-2; hit, sun4-2-1; fwd=miss; stored          sun4-2-1 got it from the owner
//!   sun4-2-1; fwd=miss; stored                         sun4-2-1 got it from the content server
//! ```

/// What a response says of its way.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Served {
    /// The server that answered the client.
    pub server: String,
    /// Where the bytes were.
    pub tier: Tier,
}

/// Where the bytes of a response were.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tier {
    /// At the sun that answered.
    Sun,
    /// At the regional cache that answered, or that the answering sun asked.
    Cache,
    /// At the file's owner, which the answering server asked.
    Owner,
    /// At the content server.
    Content,
}

/// Reads a `Cache-Status`; nothing when it has no member.
#[must_use]
pub fn served(header: &str) -> Option<Served> {
    let members: Vec<(&str, bool)> = header.split(',').filter_map(member).collect();
    let (answered, _) = *members.last()?;
    let tier = match members.iter().rposition(|(_, hit)| *hit) {
        None => Tier::Content,
        Some(at) if members[at].0.starts_with("cache") => Tier::Cache,
        Some(at) if at + 1 == members.len() => Tier::Sun,
        Some(_) => Tier::Owner,
    };
    Some(Served { server: answered.to_owned(), tier })
}

/// A member's server and whether it was a hit.
fn member(text: &str) -> Option<(&str, bool)> {
    let mut parts = text.split(';').map(str::trim);
    let server = parts.next().filter(|server| !server.is_empty())?;
    Some((server.trim_matches('"'), parts.any(|parameter| parameter == "hit")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_of_a_response_is_read() {
        check("sun4-2-1; hit", "sun4-2-1 Sun");
        check("\"sun4-2-1\";hit;ttl=5", "sun4-2-1 Sun");
        check("cache4-1; hit", "cache4-1 Cache");
        check("cache4-1; hit, sun4-2-1; fwd=miss; stored", "sun4-2-1 Cache");
        check("sun4-2-2; hit, sun4-2-1; fwd=miss", "sun4-2-1 Owner");
        check("sun4-2-2; hit, cache4-1; fwd=miss", "cache4-1 Owner");
        check("sun4-2-2; fwd=miss; stored, sun4-2-1; hit", "sun4-2-1 Sun");
        check("sun4-2-1; fwd=miss; stored", "sun4-2-1 Content");
        check("sun4-2-2; fwd=miss, sun4-2-1; fwd=miss", "sun4-2-1 Content");
    }

    #[test]
    fn a_response_of_somebody_else_says_nothing() {
        assert_eq!(served(""), None);
        assert_eq!(served(" ; hit"), None);
    }

    #[track_caller]
    fn check(header: &str, expected: &str) {
        let served = served(header).unwrap();
        assert_eq!(format!("{} {:?}", served.server, served.tier), expected, "{header}");
    }
}
