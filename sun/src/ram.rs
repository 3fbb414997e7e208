//! The RAM tier: moka, weighed in bytes.
//!
//! ```text
//!   Key::Head(content)                  -> Small { meta, body }      files of at most one extent
//!                                       -> Large { meta }            larger ones; their bytes are extents
//!                                       -> Note: what is known where there is no file, see below
//!   Key::Extent(content, generation, k) -> Extent(bytes)
//! ```
//!
//! `content` is the file's id, under the policy "rfc" a slot made of it ([`crate::caching::vary::slot`]): that of
//! the URL, or of one variant.
//!
//! One lookup answers a request for a small file, and one more per extent a request for a large one. Extents
//! are keyed by the version they belong to, so a changed file cannot be mixed with its predecessor; what is
//! left of a predecessor is never asked for again and ages out.

use std::sync::Arc;

use bytes::Bytes;
use geo::ContentId;
use http::StatusCode;
use moka::sync::Cache;

use crate::caching::vary::Varying;
use crate::extent::EXTENT_BYTES;
use crate::meta::Meta;
use crate::purge::Mark;

/// See the module's doc. Cheap to clone.
#[derive(Clone)]
pub struct Ram {
    cache: Cache<Key, Entry>,
    bytes_max: u64,
}

/// What the tier knows of a file.
#[derive(Clone, Debug)]
pub enum Head {
    /// All of it.
    Small {
        /// Metadata, with a size.
        meta: Arc<Meta>,
        /// The whole file.
        body: Bytes,
    },
    /// Its metadata; the bytes are in extents, some of which may be missing.
    Large {
        /// Metadata, with a size.
        meta: Arc<Meta>,
    },
}

/// What the tier knows of a file that it does not hold.
#[derive(Clone, Debug)]
pub enum Note {
    /// Its responses vary: each variant has a slot of its own.
    Varying(Arc<Varying>),
    /// Some bytes of a small file.
    Piece {
        /// Metadata of the whole file.
        meta: Arc<Meta>,
        /// Position of the first byte that is here.
        start: u64,
        /// The bytes.
        body: Bytes,
    },
    /// There is none (negative caching).
    Refused {
        /// What the content server said.
        status: StatusCode,
        /// Until when that is taken for granted, seconds since 1970.
        until: u64,
        /// The last purge that was gone by when it was asked for.
        mark: Mark,
    },
    /// What it is lately was for one client only: nobody waits for another's answer (hit for miss).
    Alone {
        /// Until when, seconds since 1970.
        until: u64,
    },
}

/// All that the tier says of a file.
#[derive(Clone, Debug)]
pub enum Known {
    /// It is held, whole or in part.
    File(Head),
    /// It is not, but something is known.
    Note(Note),
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Key {
    Head(ContentId),
    Extent(ContentId, u64, u32),
}

#[derive(Clone, Debug)]
enum Entry {
    Head(Head),
    Note(Note),
    Extent(Bytes),
}

impl Ram {
    /// An empty tier of at most `bytes_max`, counting bodies, headers and an estimate of moka's own share.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        let cache = Cache::builder()
            .max_capacity(bytes_max)
            .weigher(|_, entry: &Entry| u32::try_from(entry.weight()).unwrap_or(u32::MAX))
            .build();
        Self { cache, bytes_max }
    }

    /// The file, if it is held.
    #[must_use]
    pub fn head(&self, content: ContentId) -> Option<Head> {
        match self.known(content)? {
            Known::File(head) => Some(head),
            Known::Note(_) => None,
        }
    }

    /// What is known of a file.
    #[must_use]
    pub fn known(&self, content: ContentId) -> Option<Known> {
        match self.cache.get(&Key::Head(content))? {
            Entry::Head(head) => Some(Known::File(head)),
            Entry::Note(note) => Some(Known::Note(note)),
            Entry::Extent(_) => None,
        }
    }

    /// How a URL's responses vary.
    #[must_use]
    pub fn varying(&self, content: ContentId) -> Option<Arc<Varying>> {
        match self.known(content)? {
            Known::Note(Note::Varying(varying)) => Some(varying),
            Known::Note(_) | Known::File(_) => None,
        }
    }

    /// Notes something of a file that is not held.
    pub fn note(&self, content: ContentId, note: Note) {
        self.cache.insert(Key::Head(content), Entry::Note(note));
    }

    /// One extent of one version of a file. A small file is its own first extent.
    #[must_use]
    pub fn extent(&self, content: ContentId, generation: u64, index: u32) -> Option<Bytes> {
        if let Some(Entry::Extent(bytes)) = self.cache.get(&Key::Extent(content, generation, index)) {
            return Some(bytes);
        }
        match self.head(content) {
            Some(Head::Small { meta, body }) if index == 0 && meta.generation == generation => Some(body),
            _ => None,
        }
    }

    /// Whether an extent of a large file is here. Counts as no use of it.
    #[must_use]
    pub fn has_extent(&self, content: ContentId, generation: u64, index: u32) -> bool {
        self.cache.contains_key(&Key::Extent(content, generation, index))
    }

    /// Keeps a whole small file.
    pub fn keep_small(&self, content: ContentId, meta: Arc<Meta>, body: Bytes) {
        debug_assert_eq!(meta.size, Some(body.len() as u64));
        debug_assert!(body.len() as u64 <= EXTENT_BYTES);
        self.cache.insert(Key::Head(content), Entry::Head(Head::Small { meta, body }));
    }

    /// Keeps what another tier knows of a file, unless something came meanwhile.
    pub fn keep_if_absent(&self, content: ContentId, head: Head) {
        let _ = self.cache.entry(Key::Head(content)).or_insert(Entry::Head(head));
    }

    /// Keeps the metadata of a large file.
    pub fn keep_large(&self, content: ContentId, meta: Arc<Meta>) {
        debug_assert!(meta.size.is_some_and(|size| size > EXTENT_BYTES));
        self.cache.insert(Key::Head(content), Entry::Head(Head::Large { meta }));
    }

    /// Keeps some bytes of a small file, together with those of the same version that they touch; a file that is whole
    /// by that is kept as such. What is held whole and fresh at `now` (seconds since 1970) stays.
    pub fn keep_piece(&self, content: ContentId, meta: Arc<Meta>, start: u64, body: Bytes, now: u64) {
        let (start, body) = match self.known(content) {
            Some(Known::File(head)) if head.meta().fresh(now) => return,
            Some(Known::Note(Note::Piece { meta: held, start: from, body: bytes }))
                if held.generation == meta.generation && meta.resume_validator().is_some() =>
            {
                joined((from, &bytes), (start, &body)).unwrap_or((start, body))
            }
            _ => (start, body),
        };
        if start == 0 && meta.size == Some(body.len() as u64) {
            self.keep_small(content, meta, body);
        } else {
            self.note(content, Note::Piece { meta, start, body });
        }
    }

    /// The version that is held was found current: its metadata are replaced, its bytes stay.
    pub fn refresh(&self, content: ContentId, meta: Arc<Meta>) {
        match self.head(content) {
            Some(Head::Small { meta: held, body }) if held.generation == meta.generation => {
                self.keep_small(content, meta, body);
            }
            Some(Head::Large { meta: held }) if held.generation == meta.generation => self.keep_large(content, meta),
            Some(_) | None => {}
        }
    }

    /// Keeps an extent.
    pub fn keep_extent(&self, content: ContentId, generation: u64, index: u32, bytes: Bytes) {
        self.cache.insert(Key::Extent(content, generation, index), Entry::Extent(bytes));
    }

    /// Forgets a file; its extents are not found without it unless the same version comes back.
    pub fn forget(&self, content: ContentId) {
        self.cache.invalidate(&Key::Head(content));
    }

    /// Forgets a file if this is still the version that is held.
    pub fn forget_version(&self, content: ContentId, generation: u64) {
        if self.head(content).is_some_and(|head| head.meta().generation == generation) {
            self.forget(content);
        }
    }

    /// Bytes held (as of moka's last housekeeping) and bytes that may be held.
    #[must_use]
    pub fn fullness(&self) -> (u64, u64) {
        (self.cache.weighted_size(), self.bytes_max)
    }
}

impl std::fmt::Debug for Ram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ram").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

impl Head {
    /// The same, past its time.
    #[must_use]
    pub fn stale(self) -> Self {
        let stale = |meta: Arc<Meta>| Arc::new(Meta { fresh_until: 0, background_until: 0, ..(*meta).clone() });
        match self {
            Self::Small { meta, body } => Self::Small { meta: stale(meta), body },
            Self::Large { meta } => Self::Large { meta: stale(meta) },
        }
    }

    /// The metadata.
    #[must_use]
    pub const fn meta(&self) -> &Arc<Meta> {
        match self {
            Self::Small { meta, .. } | Self::Large { meta } => meta,
        }
    }
}

impl Entry {
    fn weight(&self) -> usize {
        ENTRY_OVERHEAD_BYTES
            + match self {
                Self::Head(Head::Small { meta, body }) => meta.weight() + body.len(),
                Self::Head(Head::Large { meta }) => meta.weight(),
                Self::Note(Note::Varying(varying)) => varying.weight(),
                Self::Note(Note::Piece { meta, body, .. }) => meta.weight() + body.len(),
                Self::Note(Note::Refused { .. } | Note::Alone { .. }) => 0,
                Self::Extent(bytes) => bytes.len(),
            }
    }
}

/// Two pieces of one version as one, if there is no gap between them.
fn joined(a: (u64, &Bytes), b: (u64, &Bytes)) -> Option<(u64, Bytes)> {
    let (first, second) = if a.0 <= b.0 { (a, b) } else { (b, a) };
    let overlap = (first.0 + first.1.len() as u64).checked_sub(second.0)?;
    let rest = usize::try_from(overlap).ok().and_then(|overlap| second.1.get(overlap..)).unwrap_or_default();
    let joined: Bytes = [first.1, rest].concat().into();
    (joined.len() as u64 <= EXTENT_BYTES).then_some((first.0, joined))
}

/// moka's key, deque nodes, hash slot and the allocator's rounding, per entry; an estimate.
const ENTRY_OVERHEAD_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_two_versions_are_never_mixed() {
        let (ram, content) = (Ram::new(1 << 24), content());
        ram.keep_extent(content, 1, 0, Bytes::from_static(b"old"));
        ram.keep_extent(content, 2, 0, Bytes::from_static(b"new"));
        assert_eq!(ram.extent(content, 1, 0).as_deref(), Some(b"old".as_slice()));
        assert_eq!(ram.extent(content, 2, 0).as_deref(), Some(b"new".as_slice()));
        assert_eq!(ram.extent(content, 2, 1), None);
    }

    #[test]
    fn the_tier_stays_within_its_bytes() {
        let (ram, content) = (Ram::new(1 << 20), content());
        for index in 0..100 {
            ram.keep_extent(content, 1, index, Bytes::from(vec![0; 100_000]));
        }
        ram.cache.run_pending_tasks();
        let (held, most) = ram.fullness();
        assert!(held > 0 && held <= most, "{held} of {most}");
    }

    #[test]
    fn pieces_of_one_version_become_the_file() {
        let (ram, content) = (Ram::new(1 << 24), content());
        let headers = http::HeaderMap::from_iter([(http::header::ETAG, "\"a\"".parse().unwrap())]);
        let meta = Arc::new(Meta::new(&headers, Some(10), 0, 0, 2));
        let keep = |start, text: &'static str| {
            ram.keep_piece(content, Arc::clone(&meta), start, Bytes::from_static(text.as_bytes()), 0);
            match ram.known(content) {
                Some(Known::Note(Note::Piece { start, body, .. })) => format!("{start} {body:?}"),
                Some(Known::File(Head::Small { body, .. })) => format!("all {body:?}"),
                other => format!("{other:?}"),
            }
        };
        assert_eq!(keep(6, "67"), "6 b\"67\"");
        assert_eq!(keep(4, "456"), "4 b\"4567\"");
        assert_eq!(keep(5, "56"), "4 b\"4567\"");
        assert_eq!(keep(0, "01"), "0 b\"01\"", "there is a gap: the newer counts");
        assert_eq!(keep(2, "23456789"), "all b\"0123456789\"");
    }

    #[test]
    fn a_small_file_is_its_own_first_extent() {
        let (ram, content) = (Ram::new(1 << 24), content());
        let meta = Arc::new(Meta::new(&http::HeaderMap::new(), Some(3), 0, 0, 2));
        ram.keep_small(content, meta, Bytes::from_static(b"abc"));
        assert_eq!(ram.extent(content, 2, 0).as_deref(), Some(b"abc".as_slice()));
        assert_eq!(ram.extent(content, 4, 0), None, "another version");
        assert_eq!(ram.extent(content, 2, 1), None);
    }

    fn content() -> ContentId {
        geo::CanonicalName::parse("c1/a").unwrap().content_id()
    }
}
