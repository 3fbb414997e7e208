//! Where in the cluster things are: names of keys, shards of files. Pure.
//!
//! ```text
//!   sun:{4.17}:rank     sorted set   file --> minus its score: the best first, of equal ones the name that comes first
//!   sun:{4.17}:files    hash         file --> log2 of both sums and the size, three f64
//!                                    \0 source --> its last two boots, each with its last batch
//!   sun:{4.17}:seen     string       bits of files that a full shard turned away once
//!   sun:{sun4-2-1}      string       the source's last batch: boot and sequence
//!   sun:settings        string       what the sums were made with
//!
//!   {4.17}: shard 17 of region 4. What is in braces picks the hash slot (Redis Cluster specification, "Hash tags"), so
//!   all of a shard is in one slot, on one node, and changes in one script or not at all.
//! ```
//!
//! A canonical name has no NUL, so a source is never taken for a file.

use std::collections::BTreeMap;

use geo::{CanonicalName, ContentId, RegionId};

use crate::engine::batch::Batch;
use crate::engine::decay::Pulse;

/// A shard of a region.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Place {
    pub(super) region: RegionId,
    pub(super) shard: u32,
}

impl Place {
    /// Its keys: rank, files, seen.
    pub(super) fn keys(self, prefix: &str) -> [String; 3] {
        let Self { region, shard } = self;
        ["rank", "files", "seen"].map(|part| format!("{prefix}:{{{region}.{shard}}}:{part}"))
    }

    /// All places of a region.
    pub(super) fn all(region: RegionId, shards: u32) -> impl Iterator<Item = Self> {
        (0..shards).map(move |shard| Self { region, shard })
    }
}

/// The key with the last batch of a source.
pub(super) fn source_key(prefix: &str, source: &str) -> String {
    format!("{prefix}:{{{source}}}")
}

/// What placement and holdings go by; nothing for what is no canonical name.
pub(super) fn content(name: &str) -> Option<ContentId> {
    Some(CanonicalName::from_written(name).ok()?.content_id())
}

/// The shard of a file.
pub(super) fn shard(content: ContentId, shards: u32) -> u32 {
    // Below `shards`, which is 32 bits.
    (content.prefix() % u64::from(shards.max(1))) as u32
}

/// A batch as its places take it, each with its entries as [`put`] writes them, as of one moment.
pub(super) fn parts(batch: &Batch, shards: u32, pulse: Pulse) -> BTreeMap<Place, Vec<u8>> {
    let mut parts: BTreeMap<Place, Vec<u8>> = BTreeMap::new();
    for entry in &batch.entries {
        let Some(content) = content(&entry.file) else { continue };
        let place = Place { region: entry.region, shard: shard(content, shards) };
        put(parts.entry(place).or_default(), &entry.file, content, entry.size, entry.downloads, pulse);
    }
    parts
}

/// Appends an entry: `log2` of its downloads in both sums, f64 each | size, f64 | hash for `seen`, u32 | name bytes, u16 |
/// name. Little-endian.
fn put(out: &mut Vec<u8>, name: &str, content: ContentId, size: u64, downloads: f64, pulse: Pulse) {
    let (hour, days) = pulse.log2_ages();
    let new = downloads.log2();
    out.extend((new + hour).to_le_bytes());
    out.extend((new + days).to_le_bytes());
    // Sizes are below 2^53.
    out.extend((size as f64).to_le_bytes());
    // Not the bits that pick the shard.
    out.extend(((content.prefix() >> 32) as u32).to_le_bytes());
    out.extend(u16::try_from(name.len()).expect("canonical names have at most 1,024 bytes").to_le_bytes());
    out.extend(name.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::batch::Entry;
    use crate::engine::decay::{Decay, LANDMARK_MS};
    use crate::engine::table::Mark;

    #[test]
    fn a_part_is_written_like_this() {
        let entry = |downloads| Entry { region: RegionId(4), file: "c1/a".into(), size: 512, downloads };
        let batch = Batch {
            source: "sun4-1-1".to_owned(),
            mark: Mark { boot: 1, sequence: 1 },
            entries: vec![entry(4.0), entry(1.0)],
        };
        let pulse = Decay::new(1, 2, 0.25).unwrap().at(LANDMARK_MS + 4000);
        let parts = parts(&batch, 1, pulse);
        let one = |hour: f64, days: f64| {
            let hash = (content("c1/a").unwrap().prefix() >> 32) as u32;
            let numbers = [hour, days, 512.0].map(f64::to_le_bytes).concat();
            [&numbers[..], &hash.to_le_bytes(), &[4, 0], b"c1/a"].concat()
        };
        let place = Place { region: RegionId(4), shard: 0 };
        assert_eq!(parts, BTreeMap::from([(place, [one(6.0, 4.0), one(4.0, 2.0)].concat())]));
    }

    #[test]
    fn all_keys_of_a_place_have_one_hash_tag() {
        let place = Place { region: RegionId(4), shard: 17 };
        assert_eq!(place.keys("sun"), ["sun:{4.17}:rank", "sun:{4.17}:files", "sun:{4.17}:seen"]);
        assert_eq!(source_key("sun", "sun4-2-1"), "sun:{sun4-2-1}");
    }

    #[test]
    fn files_are_spread_over_all_shards() {
        let mut counts = [0; 16];
        for n in 0..16_000 {
            counts[shard(content(&format!("c1/{n}")).unwrap(), 16) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
