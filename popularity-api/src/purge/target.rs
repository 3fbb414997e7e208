//! What a purge names, and how responses say their tags.
//!
//! # Spellings
//!
//! A site's file is stored under the bytes of its URL (`c7/caf%c3%a9.jpg`), any other under its canonical name
//! (`c7/caf%C3%A9.jpg`), and nobody can tell from a purge which kind is meant. So the value stays as it was written,
//! in the log too, and means both: [`Target::files`] and [`Target::prefixes`]. At worst a file too many is fetched again.
//!
//! What has no canonical name (`c7/a//b`, `c7/list?page=2`) can be a site's alone. Of a content server without a site it
//! names nothing that a client can ask for, and who purges it means something else: [`Target::check_sites`].

use geo::{CanonicalName, ContentId, Topology};

use crate::wire::{PURGE_ID_BYTES_MAX, PurgeWhat};

/// What a purge names, as it was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// One file, in both [`Target::files`].
    File(CanonicalName),
    /// A folder and everything below, `c1/photos/`, in both [`Target::prefixes`]; empty: everything.
    Prefix(Box<str>),
    /// Responses with a tag.
    Tag(Box<str>),
}

/// Why a purge is refused: 400, or 422 for [`BadPurge::NoSite`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadPurge {
    /// Not the name of a file.
    #[error("value: {0:?} is no file's name, c100500/path: {1}")]
    File(String, geo::NameError),
    /// The name of what only a site has, and its content server has none.
    #[error(
        "value: {0:?} names nothing that clients can ask for: {1}. Only a site's URLs are written so, and the topology has no \
         site of content server {2}"
    )]
    NoSite(String, geo::NameError, u32),
    /// Not whole segments.
    #[error("value: {0:?} is no folder, c100500/path/: {1}")]
    Prefix(String, geo::NameError),
    /// Empty, too long, or with a separator in it.
    #[error("value: a tag has 1..={TAG_BYTES_MAX} visible ASCII characters without a comma")]
    Tag,
    /// Empty, too long, or of other characters.
    #[error("id: it has 1..={PURGE_ID_BYTES_MAX} of a-z, 0-9 and -")]
    Id,
}

impl Target {
    /// Reads what a purge names. A leading slash is taken off, a missing one behind a prefix is put there.
    ///
    /// # Errors
    ///
    /// [`BadPurge`].
    pub fn parse(what: PurgeWhat, value: &str) -> Result<Self, BadPurge> {
        let path = value.strip_prefix('/').unwrap_or(value);
        match what {
            PurgeWhat::File => name(path).map(Self::File).map_err(|why| BadPurge::File(value.to_owned(), why)),
            PurgeWhat::Prefix if path.is_empty() => Ok(Self::Prefix("".into())),
            PurgeWhat::Prefix => {
                // A folder is what some file in it begins with.
                let inside = format!("{}/x", path.strip_suffix('/').unwrap_or(path));
                let name = name(&inside).map_err(|why| BadPurge::Prefix(value.to_owned(), why))?;
                Ok(Self::Prefix(folder(&name)))
            }
            PurgeWhat::Tag if is_tag(value) => Ok(Self::Tag(value.into())),
            PurgeWhat::Tag => Err(BadPurge::Tag),
        }
    }

    /// Refuses a name that only a site's file can have where its content server has no site: it would be purged
    /// everywhere, and what was meant would go on being served.
    ///
    /// # Errors
    ///
    /// [`BadPurge::NoSite`].
    pub fn check_sites(&self, topology: &Topology) -> Result<(), BadPurge> {
        let inside = match self {
            Self::File(name) => name.as_str().to_owned(),
            Self::Prefix(prefix) if !prefix.is_empty() => format!("{prefix}x"),
            Self::Prefix(_) | Self::Tag(_) => return Ok(()),
        };
        let Err(why) = CanonicalName::parse(&inside) else { return Ok(()) };
        match self.content_server() {
            Some(number) if !topology.sites.iter().any(|site| site.content_server == number) => {
                Err(BadPurge::NoSite(self.value().to_owned(), why, number))
            }
            _ => Ok(()),
        }
    }

    /// The file as it was written and, if that is another one, by its canonical name.
    pub fn files(&self) -> impl Iterator<Item = CanonicalName> {
        let written = match self {
            Self::File(name) => Some(name.clone()),
            Self::Prefix(_) | Self::Tag(_) => None,
        };
        let canonical = written.as_ref().and_then(canonical);
        written.into_iter().chain(canonical)
    }

    /// The folder as it was written and, if that is another one, in canonical form.
    pub fn prefixes(&self) -> impl Iterator<Item = Box<str>> {
        let written = match self {
            Self::Prefix(prefix) => Some(prefix.clone()),
            Self::File(_) | Self::Tag(_) => None,
        };
        let inside = written.as_ref().and_then(|prefix| CanonicalName::from_written(&format!("{prefix}x")).ok());
        let canonical = inside.as_ref().and_then(canonical).map(|name| folder(&name));
        written.into_iter().chain(canonical)
    }

    /// The value as it was written, without a leading slash and with one behind a prefix: so it goes into the log.
    #[must_use]
    pub fn value(&self) -> &str {
        match self {
            Self::File(name) => name.as_str(),
            Self::Prefix(text) | Self::Tag(text) => text,
        }
    }

    /// The content server whose files it names; none for a tag and for everything.
    #[must_use]
    pub fn content_server(&self) -> Option<u32> {
        match self {
            Self::File(name) => Some(name.content_server()),
            Self::Prefix(prefix) if prefix.is_empty() => None,
            Self::Prefix(prefix) => name(&format!("{prefix}x")).ok().map(|inside| inside.content_server()),
            Self::Tag(_) => None,
        }
    }

    /// What it is called in the log.
    #[must_use]
    pub const fn what(&self) -> PurgeWhat {
        match self {
            Self::File(_) => PurgeWhat::File,
            Self::Prefix(_) => PurgeWhat::Prefix,
            Self::Tag(_) => PurgeWhat::Tag,
        }
    }

    /// Whether it names the file by its name; a tag never does.
    #[must_use]
    pub fn names(&self, name: &str, content: ContentId) -> bool {
        match self {
            Self::File(_) => self.files().any(|file| file.content_id() == content),
            Self::Prefix(_) => self.prefixes().any(|prefix| name.starts_with(&*prefix)),
            Self::Tag(_) => false,
        }
    }
}

/// The name as it was written, which a site's file may have; or else the canonical one.
fn name(path: &str) -> Result<CanonicalName, geo::NameError> {
    CanonicalName::from_written(path).or_else(|_| CanonicalName::parse(path))
}

/// The canonical name of what is written like this, if it has one and it is another.
fn canonical(written: &CanonicalName) -> Option<CanonicalName> {
    CanonicalName::parse(written.as_str()).ok().filter(|name| name != written)
}

/// The folder of a name that ends in `/x`.
fn folder(inside: &CanonicalName) -> Box<str> {
    inside.as_str().strip_suffix('x').unwrap_or_default().into()
}

/// Checks the id of a purge.
///
/// # Errors
///
/// [`BadPurge::Id`].
pub fn check_id(id: &str) -> Result<(), BadPurge> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=PURGE_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(allowed) { Ok(()) } else { Err(BadPurge::Id) }
}

/// Whether a text can be a tag: what stands between the separators of `Cache-Tag` and `Surrogate-Key`.
#[must_use]
pub fn is_tag(text: &str) -> bool {
    (1..=TAG_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// What a tag is kept as: the first eight bytes of its blake3. Never 0, which is [`ANY_TAG`].
///
/// Two of a million tags share it with probability 3e-8, and then too much is purged, never too little.
#[must_use]
pub fn tag_hash(tag: &str) -> u64 {
    let digest = blake3::hash(tag.as_bytes());
    let (first, _) = digest.as_bytes().split_first_chunk().expect("a digest has 32 bytes");
    u64::from_le_bytes(*first).max(1)
}

/// Among a response's tags: it had more than are kept, or one that cannot be named, so every purge by tag is meant.
pub const ANY_TAG: u64 = 0;

/// Longest tag, bytes.
pub const TAG_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_stays_as_it_was_written() {
        check(PurgeWhat::File, "c1/a.jpg", "c1/a.jpg");
        check(PurgeWhat::File, "/c1/%61.jpg", "c1/%61.jpg");
        check(PurgeWhat::File, "c7/list?page=2", "c7/list?page=2");
        check(PurgeWhat::File, "/c7/", "c7/");
        check(PurgeWhat::Prefix, "c1", "c1/");
        check(PurgeWhat::Prefix, "/c1/%61/b/", "c1/%61/b/");
        check(PurgeWhat::Prefix, "", "");
        check(PurgeWhat::Prefix, "/", "");
        check(PurgeWhat::Tag, "news/2024", "news/2024");
        check(PurgeWhat::Tag, "/news", "/news");
    }

    #[test]
    fn a_target_tells_its_content_server() {
        for (what, value, expected) in [
            (PurgeWhat::File, "c17/list?page=2", Some(17)),
            (PurgeWhat::Prefix, "/c17/a//", Some(17)),
            (PurgeWhat::Prefix, "c17", Some(17)),
            (PurgeWhat::Prefix, "", None),
            (PurgeWhat::Tag, "c17/a", None),
        ] {
            assert_eq!(Target::parse(what, value).unwrap().content_server(), expected, "{value}");
        }
    }

    #[test]
    fn a_target_names_what_is_stored_under_either_spelling() {
        check_spellings(PurgeWhat::File, "c1/a.jpg", &["c1/a.jpg"]);
        check_spellings(PurgeWhat::File, "c7/caf%c3%a9.jpg", &["c7/caf%c3%a9.jpg", "c7/caf%C3%A9.jpg"]);
        check_spellings(PurgeWhat::File, "/c1/%61.jpg", &["c1/%61.jpg", "c1/a.jpg"]);
        check_spellings(PurgeWhat::File, "c7/list?page=%61", &["c7/list?page=%61"]);
        check_spellings(PurgeWhat::File, "c7/a//b", &["c7/a//b"]);
        check_spellings(PurgeWhat::Prefix, "c1/a", &["c1/a/"]);
        check_spellings(PurgeWhat::Prefix, "c7/caf%c3%a9", &["c7/caf%c3%a9/", "c7/caf%C3%A9/"]);
        check_spellings(PurgeWhat::Prefix, "c7/a//", &["c7/a//"]);
        check_spellings(PurgeWhat::Prefix, "", &[""]);
        check_spellings(PurgeWhat::Tag, "%61", &[]);
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for (what, value) in [
            (PurgeWhat::File, ""),
            (PurgeWhat::File, "c1"),
            (PurgeWhat::File, "a/b"),
            (PurgeWhat::File, "c1/a b"),
            (PurgeWhat::Prefix, "photos/"),
            (PurgeWhat::Prefix, "c01/a"),
            (PurgeWhat::Prefix, "c1/a#b"),
            (PurgeWhat::Tag, ""),
            (PurgeWhat::Tag, "two tags"),
            (PurgeWhat::Tag, "two,tags"),
            (PurgeWhat::Tag, "n\u{e9}e"),
        ] {
            assert!(Target::parse(what, value).is_err(), "{what:?} {value:?}");
        }
        assert!(Target::parse(PurgeWhat::Tag, &"x".repeat(TAG_BYTES_MAX + 1)).is_err());
        for (id, good) in [("a-1", true), ("", false), ("A", false), ("a b", false), (&*"a".repeat(65), false)] {
            assert_eq!(check_id(id).is_ok(), good, "{id:?}");
        }
    }

    #[track_caller]
    fn check(what: PurgeWhat, value: &str, expected: &str) {
        let target = Target::parse(what, value).unwrap();
        assert_eq!((target.value(), target.what()), (expected, what));
        assert_eq!(Target::parse(what, target.value()).unwrap(), target, "what is logged reads the same");
    }

    #[track_caller]
    fn check_spellings(what: PurgeWhat, value: &str, expected: &[&str]) {
        let target = Target::parse(what, value).unwrap();
        let files = target.files().map(|name| name.as_str().into());
        let found: Vec<Box<str>> = files.chain(target.prefixes()).collect();
        assert_eq!(found.iter().map(|text| &**text).collect::<Vec<_>>(), expected, "{value}");
        for spelling in expected {
            let inside = if what == PurgeWhat::File { (*spelling).to_owned() } else { format!("{spelling}c1/b") };
            let name = CanonicalName::from_written(&inside).unwrap();
            assert!(target.names(name.as_str(), name.content_id()), "{value} names {inside}");
        }
    }
}
