//! `sunctl sign`: a signed link, as the popularity API makes them. `sunctl keys new`: a key for the key file.

use anyhow::{Context, bail};
use geo::answer::Answer;
use geo::topology::{Covers, SignedLinks, Signing, is_key_id};
use geo::{CanonicalName, Topology};
use popularity_api::signing::{self, Keys};
use rand::CryptoRng;
use serde_json::json;

use crate::token;

/// What is to be signed, and how; what is left out the topology says.
#[derive(Clone, Debug)]
pub struct Order {
    /// A link, or the name of a file.
    pub link: String,
    /// Id of the key.
    pub key: Option<String>,
    /// How long it is good for, seconds, exactly.
    pub ttl_s: Option<u64>,
    /// The file's folder instead of the file.
    pub folder: bool,
}

/// Signs a link at `now_s`, seconds since 1970.
///
/// # Errors
///
/// What is no file's link, what would be dead by the topology, when the file's class has no signed links and nothing else is said, and when there is no such key.
pub fn sign(order: &Order, keys: &Keys, topology: Option<&Topology>, now_s: u64) -> anyhow::Result<Answer> {
    let (origin, path) = split(&order.link);
    let name = CanonicalName::parse(path.strip_prefix('/').unwrap_or(path))?;
    let links = topology.and_then(|topology| topology.class_of(&name).signed);
    let signing = topology.and_then(|topology| topology.signing.as_ref());
    let signer = match (&order.key, signing) {
        (Some(id), _) => keys.signer_of(id).with_context(|| format!("the key file has no key {id:?}"))?,
        (None, Some(signing)) => keys.signer(signing).context("the key file has no key that the topology accepts")?,
        (None, None) => bail!("with which key? Say --key ID, or --topology FILE of one that has [signing]"),
    };
    let expires_s = match (order.ttl_s, links) {
        (Some(ttl_s), _) => now_s.saturating_add(ttl_s),
        (None, Some(links)) => signing::expiry(links, now_s),
        (None, None) => bail!("for how long? The file's class has no signed links; say --ttl-s SECONDS"),
    };
    let covers = if order.folder { Covers::Folder } else { links.map_or(Covers::File, |links| links.covers) };
    if let Some(why) = dead(order, links, signing, signer.key_id(), covers) {
        bail!("such a link would be refused: {why}");
    }
    let mut url = origin.as_bytes().to_vec();
    signer.write_path(&mut url, name.as_str(), covers, expires_s);
    let url = String::from_utf8_lossy(&url).into_owned();
    let covered = signing::covered(name.as_str(), covers);
    let json = json!({ "url": url, "key": signer.key_id(), "expires_s": expires_s, "covers": covered });
    Ok(Answer::good(format!("{url}\n"), json))
}

/// Why suns and caches of this topology would answer 403 to the link.
fn dead(
    order: &Order,
    links: Option<SignedLinks>,
    signing: Option<&Signing>,
    key: &str,
    covers: Covers,
) -> Option<String> {
    if order.ttl_s == Some(0) {
        return Some("it expires at once; --ttl-s is 1 or more".to_owned());
    }
    if let Some(signing) = signing.filter(|signing| !signing.accepts(key)) {
        let known: Vec<&str> = signing.ids().collect();
        let known = known.join(", ");
        return Some(format!(
            "the topology accepts the keys {known}, not {key:?}; put it among [signing] accepted first"
        ));
    }
    let of_the_file = links.is_some_and(|links| links.covers == Covers::File);
    (of_the_file && covers == Covers::Folder)
        .then(|| "links of the file's class cover the file (link_covers), and no folder's opens it".to_owned())
}

/// A line for the key file.
///
/// # Errors
///
/// When `id` is no id of a key.
pub fn new_key(id: &str, random: &mut impl CryptoRng) -> anyhow::Result<Answer> {
    anyhow::ensure!(is_key_id(id), "{id:?} is no id of a key: 1..=16 of letters, digits, - and _");
    let secret = token::make(random);
    Ok(Answer::good(format!("{id} = \"{secret}\"\n"), json!({ "id": id, "secret": secret })))
}

/// The origin of a link, empty for a name, and its path without a signature.
fn split(link: &str) -> (&str, &str) {
    let link = link.split(['?', '#']).next().unwrap_or(link);
    let authority = link.find("://").map_or(0, |at| at + "://".len());
    let slash = link[authority..].find('/').map_or(link.len(), |at| authority + at);
    let (origin, path) = if authority == 0 { ("", link) } else { link.split_at(slash) };
    (origin, signing::split(path).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_893_452_401;

    #[test]
    fn a_link_is_signed_as_its_class_says() {
        let of_class = |link: &str| format!("{} {}", said(link, None, None, false, true), expiry(link));
        let file = of_class("https://sun4-2-1.example.org:8443/c7/a.mp4");
        assert!(file.starts_with("https://sun4-2-1.example.org:8443/c7/a.mp4?e=1893456900&k=b&s="), "{file}");
        // What is signed already is signed anew.
        let again = said(&said("https://h/c7/f/a.m3u8", None, Some(9), true, true), None, Some(60), true, true);
        assert!(again.starts_with("https://h/s.1893452461.2.b."), "{again}");
        assert!(again.ends_with("/c7/f/a.m3u8"), "{again}");
        let named = said("/c7/a.jpg", Some("a"), Some(60), false, false);
        assert!(named.starts_with("/c7/a.jpg?e=1893452461&k=a&s="), "{named}");
    }

    #[test]
    fn what_is_not_said_and_not_in_the_topology_is_asked_for() {
        assert!(said("/c7/a.mp4", None, Some(60), false, false).contains("Say --key ID"));
        assert!(said("/c7/a.jpg", None, None, false, true).contains("say --ttl-s SECONDS"));
        assert_eq!(said("/c7/a.jpg", Some("z"), Some(60), false, true), "the key file has no key \"z\"");
        assert!(said("https://sun4-2-1.example.org", Some("a"), Some(60), false, true).contains("a file is asked for"));
    }

    #[test]
    fn a_link_that_would_be_dead_is_refused() {
        let refused = "such a link would be refused: ";
        let expired = format!("{refused}it expires at once; --ttl-s is 1 or more");
        assert_eq!(said("/c7/a.mp4", None, Some(0), false, true), expired);
        assert_eq!(said("/c7/a.jpg", Some("a"), Some(0), false, false), expired);
        assert_eq!(
            said("/c7/a.mp4", Some("a"), None, false, true),
            format!("{refused}the topology accepts the keys b, not \"a\"; put it among [signing] accepted first")
        );
        let folder = "links of the file's class cover the file (link_covers), and no folder's opens it";
        assert_eq!(said("/c7/f/a.mp4", None, None, true, true), format!("{refused}{folder}"));
        assert!(said("/c7/f/a.mp4", None, None, false, true).contains("?e="));
        assert!(said("/c7/f/a.m3u8", None, Some(60), true, true).starts_with("/s."));
    }

    #[test]
    fn a_new_key_is_a_line_of_a_key_file() {
        let line = new_key("2026b", &mut rand::rng()).unwrap().text;
        assert!(Keys::parse(&format!("[keys]\n{line}")).unwrap().signer_of("2026b").is_some());
        assert!(new_key("a.b", &mut rand::rng()).is_err());
    }

    fn expiry(link: &str) -> String {
        let order = Order { link: link.to_owned(), key: None, ttl_s: None, folder: false };
        sign(&order, &keys(), Some(&topology()), NOW).unwrap().json["expires_s"].to_string()
    }

    fn said(link: &str, key: Option<&str>, ttl_s: Option<u64>, folder: bool, with_topology: bool) -> String {
        let order = Order { link: link.to_owned(), key: key.map(str::to_owned), ttl_s, folder };
        let topology = with_topology.then(topology);
        match sign(&order, &keys(), topology.as_ref(), NOW) {
            Ok(answer) => answer.text.trim_end().to_owned(),
            Err(error) => error.to_string(),
        }
    }

    fn keys() -> Keys {
        Keys::parse(&format!("[keys]\na = \"{}\"\nb = \"{}\"", "a".repeat(64), "b".repeat(64))).unwrap()
    }

    fn topology() -> Topology {
        Topology::parse(
            "version = 1\ndomain = \"example.org\"\ndefault_region = 4\n[signing]\nkey = \"b\"\n\
             [content_servers]\nurl = \"http://cs{number}\"\nnumbers = [\"7\"]\n\
             [[region]]\nid = 4\nname = \"Moscow\"\nlatitude = 55.75\nlongitude = 37.6\n\
             [[class]]\nname = \"films\"\npaths = [\"*.mp4\"]\nsigned = true\n",
        )
        .unwrap()
    }
}
