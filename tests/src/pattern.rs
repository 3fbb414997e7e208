//! Bytes that tell where they belong: what a scripted content server sends and what every download is
//! compared with.
//!
//! Each byte is a function of (file, version, offset). A byte of another file, of another version of it or
//! from another place in it is therefore seen, and named by its offset, without keeping any file anywhere.

/// The bytes of one version of one file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pattern {
    seed: u64,
}

impl Pattern {
    /// `path` as the content server sees it, `/cs1/a.jpg`; `version` tells apart what a path held at different times.
    #[must_use]
    pub fn of(path: &str, version: u32) -> Self {
        let seed = path.bytes().fold(u64::from(version), |seed, byte| mix(seed ^ u64::from(byte)));
        Self { seed }
    }

    /// The bytes `start..start + length`.
    #[must_use]
    pub fn bytes(self, start: u64, length: usize) -> Vec<u8> {
        let end = start + length as u64;
        let mut bytes = Vec::with_capacity(length + 2 * WORD);
        let mut word = start / WORD as u64;
        while word * (WORD as u64) < end {
            bytes.extend_from_slice(&mix(self.seed ^ mix(word)).to_le_bytes());
            word += 1;
        }
        let skipped = usize::try_from(start % WORD as u64).expect("less than a word");
        bytes.drain(..skipped);
        bytes.truncate(length);
        bytes
    }

    /// Where `found`, which should be the file from `start` on, is first wrong.
    #[must_use]
    pub fn first_wrong(self, start: u64, found: &[u8]) -> Option<u64> {
        let expected = self.bytes(start, found.len());
        let wrong = expected.iter().zip(found).position(|(expected, found)| expected != found)?;
        Some(start + wrong as u64)
    }

    /// Panics when `found` is not the file from `start` on.
    #[track_caller]
    pub fn check(self, start: u64, found: &[u8]) {
        if let Some(offset) = self.first_wrong(start, found) {
            panic!("the byte at {offset} is wrong ({} bytes from {start} on)", found.len());
        }
    }
}

/// Bytes that one hash gives.
const WORD: usize = 8;

/// The finalizer of `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014).
const fn mix(key: u64) -> u64 {
    let key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ (key >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_cut_from_the_whole() {
        let pattern = Pattern::of("/cs1/a.jpg", 0);
        let whole = pattern.bytes(0, 100);
        for start in 0..100 {
            for length in 0..=100 - start {
                assert_eq!(pattern.bytes(start as u64, length), whole[start..start + length]);
            }
        }
    }

    #[test]
    fn a_wrong_byte_is_found_where_it_is() {
        let pattern = Pattern::of("/cs1/a.jpg", 0);
        let mut bytes = pattern.bytes(1000, 500);
        assert_eq!(pattern.first_wrong(1000, &bytes), None);
        bytes[77] ^= 1;
        assert_eq!(pattern.first_wrong(1000, &bytes), Some(1077));
    }

    #[test]
    fn files_versions_and_offsets_differ() {
        let bytes = |path, version, start| Pattern::of(path, version).bytes(start, 64);
        let one = bytes("/cs1/a.jpg", 0, 0);
        for other in [
            bytes("/cs1/b.jpg", 0, 0),
            bytes("/cs2/a.jpg", 0, 0),
            bytes("/cs1/a.jpg", 1, 0),
            bytes("/cs1/a.jpg", 0, 64),
        ] {
            assert_ne!(one, other);
        }
    }
}
