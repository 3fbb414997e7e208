//! Sun's RAM tier, the real one: [`sun::ram::Ram`] asked and filled as a request does it.
//!
//! Its bodies are slices of one shared buffer, so that a tier of 100 GB costs only its entries.

use std::sync::Arc;

use bytes::Bytes;
use geo::ContentId;
use sun::extent::EXTENT_BYTES;
use sun::meta::Meta;
use sun::ram::{Head, Ram};

use crate::policy::Policy;
use crate::trace::{Request, Trace};

/// See the module's doc.
#[derive(Debug)]
pub(crate) struct RamTier {
    ram: Ram,
    names: Names,
    extent: Bytes,
    written_bytes: u64,
}

/// The content id of each key, made beforehand: hashing names is not the policy's work.
pub(crate) type Names = Arc<[ContentId]>;

/// Names for the keys of a trace.
pub(crate) fn names(trace: &Trace) -> Names {
    let name = |key| geo::CanonicalName::parse(&format!("c1/{key}")).expect("it is a canonical name");
    (0..trace.keys).map(|key| name(key).content_id()).collect()
}

impl RamTier {
    pub(crate) fn new(bytes_max: u64, names: Names) -> Self {
        let extent = Bytes::from(vec![0; usize::try_from(EXTENT_BYTES).expect("1 MiB")]);
        Self { ram: Ram::new(bytes_max), names, extent, written_bytes: 0 }
    }

    /// Whether all of a file is here.
    pub(crate) fn holds(&self, request: Request) -> bool {
        let content = self.names[request.key as usize];
        match self.ram.head(content) {
            None => false,
            Some(Head::Small { .. }) => true,
            // No early end: a request for a large file asks for each extent, and the policy counts it.
            Some(Head::Large { meta }) => extents(&meta)
                .map(|index| self.ram.extent(content, meta.generation, index).is_some())
                .fold(true, |all, held| all & held),
        }
    }

    /// Keeps a file, as the end of a fill does.
    pub(crate) fn keep(&mut self, request: Request) {
        let content = self.names[request.key as usize];
        let meta = Arc::new(meta(request.size));
        self.written_bytes += request.size;
        if request.size <= EXTENT_BYTES {
            let bytes = usize::try_from(request.size).expect("at most 1 MiB");
            return self.ram.keep_small(content, meta, self.extent.slice(..bytes));
        }
        self.ram.keep_large(content, Arc::clone(&meta));
        for index in extents(&meta) {
            let left = request.size - sun::extent::start_of(index);
            let bytes = usize::try_from(left.min(EXTENT_BYTES)).expect("at most 1 MiB");
            self.ram.keep_extent(content, meta.generation, index, self.extent.slice(..bytes));
        }
    }
}

impl Policy for RamTier {
    fn request(&mut self, request: Request) -> bool {
        let hit = self.holds(request);
        if !hit {
            self.keep(request);
        }
        hit
    }

    fn written_bytes(&self) -> u64 {
        self.written_bytes
    }
}

/// What a content server with an entity tag would have sent.
fn meta(size: u64) -> Meta {
    let mut headers = http::HeaderMap::new();
    headers.insert(http::header::ETAG, http::HeaderValue::from_static("\"0123456789abcdef\""));
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("image/jpeg"));
    Meta::new(&headers, Some(size), 0, 0, 0)
}

fn extents(meta: &Meta) -> impl Iterator<Item = u32> + use<> {
    let size = meta.size.expect("it was given");
    (0..size.div_ceil(EXTENT_BYTES)).map(|index| u32::try_from(index).expect("a file has fewer than 2^32 extents"))
}
