//! Signing of links, checked: which key signs, which ones are accepted. The secrets are files of the daemons.

use super::document;
use super::problems::{Problems, Row};

/// Keys of signed links, by their ids.
///
/// ```text
///   a key's life:   in every key file --> accepted --> key (signs) --> accepted --> gone
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Signing {
    /// Id of the key that signs; accepted, too.
    pub key: String,
    /// Ids of further keys that are accepted: the next one, and those that links still out there are signed with.
    pub accepted: Vec<String>,
    /// How long after its expiry a link is still served, seconds: clocks differ. Default [`SKEW_S`].
    pub skew_s: u64,
}

impl Signing {
    /// Ids of all accepted keys, the one that signs first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.key.as_str()).chain(self.accepted.iter().map(String::as_str))
    }

    /// Whether links signed with this key are accepted.
    #[must_use]
    pub fn accepts(&self, id: &str) -> bool {
        self.ids().any(|accepted| accepted == id)
    }
}

/// What the signature of a link is good for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Covers {
    /// The file alone.
    File,
    /// The file's folder and everything below: a playlist and its segments.
    Folder,
}

/// How links to the files of a class are signed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SignedLinks {
    /// How long a link is good for at least, seconds.
    pub ttl_s: u64,
    /// What its signature is good for.
    pub covers: Covers,
}

/// The document's signing; complete when no problem was added.
pub(super) fn signing(raw: Option<&document::Signing>, problems: &mut Problems) -> Option<Signing> {
    let raw = raw?;
    let mut problem = |key: &str, value: &str, allowed: &str| problems.add("signing", key, value, allowed);
    if !is_key_id(&raw.key) {
        problem("key", &raw.key, KEY_ID);
    }
    for (index, id) in raw.accepted.iter().enumerate() {
        if !is_key_id(id) {
            problem("accepted", id, KEY_ID);
        } else if *id == raw.key {
            problem("accepted", id, "it is the key that signs, which is accepted anyway");
        } else if raw.accepted[..index].contains(id) {
            problem("accepted", id, "it is there twice");
        }
    }
    if raw.accepted.len() > ACCEPTED_MAX {
        problems.add(
            "signing",
            "accepted",
            raw.accepted.len(),
            "at most 16 keys are accepted beside the one that signs",
        );
    }
    let skew_s = u64::try_from(raw.skew_s).ok().filter(|skew_s| *skew_s <= SKEW_S_MAX);
    if skew_s.is_none() {
        problems.add("signing", "skew_s", raw.skew_s, "a skew is 0..=3600 seconds");
    }
    Some(Signing { key: raw.key.clone(), accepted: raw.accepted.clone(), skew_s: skew_s.unwrap_or_default() })
}

/// How a class signs; none when it does not. `of_names`: it is the document's own class, no site's.
pub(super) fn links(raw: &document::Class, of_names: bool, row: &mut Row<'_>) -> Option<SignedLinks> {
    if !raw.signed {
        if let Some(ttl_s) = raw.link_ttl_s {
            row.refuse("link_ttl_s", ttl_s, "only with signed = true");
        }
        if let Some(covers) = &raw.link_covers {
            row.refuse("link_covers", covers, "only with signed = true");
        }
        return None;
    }
    if !of_names {
        row.refuse("signed", true, "only the files of /c... have signed links: a site's URLs are somebody else's");
    }
    if raw.uploads.is_some() {
        row.refuse("signed", true, "not with uploads: what uploads say in their query is the content server's");
    }
    let ttl_s = raw.link_ttl_s.unwrap_or(LINK_TTL_S);
    let ttl_s = row.integer("link_ttl_s", ttl_s, 1..=LINK_TTL_S_MAX, "a link is good for 1..=31536000 seconds");
    let covers = match raw.link_covers.as_deref().unwrap_or("file") {
        "file" => Some(Covers::File),
        "folder" => Some(Covers::Folder),
        other => {
            row.refuse("link_covers", other, "a link covers the \"file\" or its \"folder\"");
            None
        }
    };
    Some(SignedLinks { ttl_s: ttl_s?, covers: covers? })
}

/// Whether a text can be a key's id: it stands in URLs, between dots.
#[must_use]
pub fn is_key_id(text: &str) -> bool {
    (1..=KEY_ID_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Longest id of a key, bytes.
pub const KEY_ID_BYTES_MAX: usize = 16;
/// How long after its expiry a link is still served by default, seconds.
pub(super) const SKEW_S: u64 = 30;
/// How long a link is good for by default, seconds.
const LINK_TTL_S: i64 = 3600;
const LINK_TTL_S_MAX: u64 = 365 * 24 * 3600;
const SKEW_S_MAX: u64 = 3600;
const ACCEPTED_MAX: usize = 16;
const KEY_ID: &str = "a key's id has 1..=16 of letters, digits, - and _";

#[cfg(test)]
mod tests {
    use crate::CanonicalName;
    use crate::topology::{Topology, TopologyError};

    #[test]
    fn a_class_says_how_its_links_are_signed() {
        let topology = topology("key = \"b\"\naccepted = [\"a\", \"c\"]", "signed = true").unwrap();
        let signing = topology.signing.as_ref().unwrap();
        assert_eq!(signing.ids().collect::<Vec<_>>(), ["b", "a", "c"]);
        assert!(signing.accepts("a") && signing.accepts("b") && !signing.accepts("d") && !signing.accepts(""));
        assert_eq!(signing.skew_s, 30);
        check("signed = true", "Some(SignedLinks { ttl_s: 3600, covers: File })");
        check(
            "signed = true\nlink_ttl_s = 60\nlink_covers = \"folder\"",
            "Some(SignedLinks { ttl_s: 60, covers: Folder })",
        );
        check("", "None");
    }

    #[test]
    fn signing_that_makes_no_sense_is_refused() {
        let class = "class[0] film: ";
        refused(
            KEY,
            "signed = true\nlink_ttl_s = 0",
            &format!("{class}link_ttl_s = 0: a link is good for 1..=31536000 seconds"),
        );
        refused(KEY, "link_ttl_s = 9", &format!("{class}link_ttl_s = 9: only with signed = true"));
        refused(KEY, "link_covers = \"file\"", &format!("{class}link_covers = \"file\": only with signed = true"));
        refused(
            KEY,
            "signed = true\nlink_covers = \"all\"",
            &format!("{class}link_covers = \"all\": a link covers the \"file\" or its \"folder\""),
        );
        refused(
            KEY,
            "signed = true\nuploads = { bytes_max = 5 }",
            &format!("{class}signed = true: not with uploads: what uploads say in their query is the content server's"),
        );
        refused("", "signed = true", "class film: signed = true: there is no [signing] with a key");
        refused("key = \"a.b\"", "", "signing: key = \"a.b\": a key's id has 1..=16 of letters, digits, - and _");
        refused("key = \"\"", "", "signing: key = \"\": a key's id has 1..=16 of letters, digits, - and _");
        refused(
            "key = \"a\"\naccepted = [\"a\"]",
            "",
            "signing: accepted = \"a\": it is the key that signs, which is accepted anyway",
        );
        refused("key = \"a\"\naccepted = [\"b\", \"b\"]", "", "signing: accepted = \"b\": it is there twice");
        refused("key = \"a\"\nskew_s = 3601", "", "signing: skew_s = 3601: a skew is 0..=3600 seconds");
    }

    #[test]
    fn a_sites_urls_are_not_signed() {
        let site = "[[site]]\nhost = \"cdn.example.net\"\ncontent_server = 1\n[[site.class]]\nname = \"s\"\npaths = [\"*\"]\nsigned = true\n";
        let problems = Topology::parse(&format!("{}{site}", document(KEY, ""))).unwrap_err().to_string();
        let expected = "site[0].class[0] s: signed = true: only the files of /c... have signed links: a site's URLs are somebody else's";
        assert_eq!(problems, expected);
    }

    #[test]
    fn a_site_opens_signed_files_only_if_it_says_so() {
        let site = |paths: &str, more: &str| {
            let site = format!("[[site]]\nhost = \"cdn.example.net\"\ncontent_server = 1\n{more}\n");
            let text = document(KEY, "signed = true").replace("c1/film/*", paths);
            Topology::parse(&format!("{text}{site}")).map_err(|error| error.to_string())
        };
        let problem = "site[0] cdn.example.net: content_server = 1: the class film signs files of this content server, and \
            the site's URLs open them to everybody without; if they may, say opens_signed = true";
        for paths in ["c1/film/*", "c*/film/*", "*.mp4", "c1*"] {
            assert_eq!(site(paths, "").unwrap_err(), problem, "{paths}");
            assert_eq!(site(paths, "opens_signed = false").unwrap_err(), problem, "{paths}");
            assert_eq!(site(paths, "opens_signed = true").unwrap().sites.len(), 1, "{paths}");
        }
        for paths in ["c2/*", "c11/*"] {
            assert_eq!(site(paths, "").unwrap().sites.len(), 1, "{paths}");
        }
    }

    /// Whatever the spelling of what the pattern says, and of what the client asks for.
    #[test]
    fn no_spelling_of_a_file_gets_around_its_class() {
        for character in "!$&'()+,;=:@-._~aZ0".chars() {
            let encoded = format!("%{:02X}", u32::from(character));
            let spellings = [character.to_string(), encoded.clone(), encoded.to_lowercase()];
            for pattern in [&spellings[0], &spellings[1]] {
                let topology = of_paths(&format!("c1/film{pattern}1/*"));
                for spelling in &spellings {
                    check_signed(&topology, &format!("c1/film{spelling}1/a.mp4"), true);
                }
                check_signed(&topology, "c1/film1/a.mp4", false);
                check_signed(&topology, &format!("c1/film%25{:02X}1/a.mp4", u32::from(character)), false);
            }
        }
        let star = of_paths("c1/film%2A1/*");
        for (name, signed) in [("c1/film*1/a", true), ("c1/film%2a1/a", true), ("c1/film(1/a", false)] {
            check_signed(&star, name, signed);
        }
        // Some content servers take parameters off.
        let tail = of_paths("*.mp4");
        for name in ["c1/a.mp4", "c1/a.mp4;x", "c1/a.mp4%3Bx=y", "c1/b;x/a%2emp4;"] {
            check_signed(&tail, name, true);
        }
        check_signed(&tail, "c1/a.jpg;x.mp4;y", false);
    }

    #[test]
    fn a_class_before_a_signed_one_takes_every_spelling_too() {
        let open = "[[class]]\nname = \"open\"\npaths = [\"c1/film/trailer(1)*\"]\n[[class]]\nname = \"film\"";
        let text = document(KEY, "signed = true").replace("[[class]]\nname = \"film\"", open);
        let topology = Topology::parse(&text).unwrap();
        for (name, signed) in [("trailer(1).mp4", false), ("trailer%281%29.mp4", false), ("trailer%2528", true)] {
            check_signed(&topology, &format!("c1/film/{name}"), signed);
        }
    }

    #[track_caller]
    fn check_signed(topology: &Topology, name: &str, signed: bool) {
        let class = topology.class_of(&CanonicalName::parse(name).unwrap());
        assert_eq!(class.signed.is_some(), signed, "{name} of {:?}", topology.classes[0].paths);
    }

    fn of_paths(pattern: &str) -> Topology {
        Topology::parse(&document(KEY, "signed = true").replace("c1/film/*", pattern)).unwrap()
    }

    const KEY: &str = "key = \"a\"";

    #[track_caller]
    fn check(class: &str, expected: &str) {
        let topology = topology(KEY, class).unwrap();
        assert_eq!(format!("{:?}", topology.classes[0].signed), expected, "{class}");
    }

    #[track_caller]
    fn refused(signing: &str, class: &str, expected: &str) {
        assert_eq!(topology(signing, class).unwrap_err().to_string(), expected, "{signing} {class}");
    }

    fn topology(signing: &str, class: &str) -> Result<Topology, TopologyError> {
        Topology::parse(&document(signing, class))
    }

    fn document(signing: &str, class: &str) -> String {
        let signing = if signing.is_empty() { String::new() } else { format!("[signing]\n{signing}\n") };
        format!(
            "version = 1\ndomain = \"example.org\"\ndefault_region = 4\n{signing}\
            [content_servers]\nurl = \"http://cs{{number}}.storage\"\nnumbers = [\"1-9\"]\n\
            [[region]]\nid = 4\nname = \"Moscow\"\nlatitude = 55.75\nlongitude = 37.6\n\
            [[class]]\nname = \"film\"\npaths = [\"c1/film/*\"]\n{class}\n"
        )
    }
}
