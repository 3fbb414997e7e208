//! Bytes that look random, made at any position without making those before.
//!
//! ```text
//!   word w of file f = scatter(f, w): 8 bytes, little end first
//!   position       |0       |8       |16      |
//!   bytes 3..20        [=====|========|====]
//! ```

use bytes::{Bytes, BytesMut};

use super::scatter;

/// A file of any length.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Noise {
    seed: u64,
}

impl Noise {
    /// The file with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self { seed: scatter(number ^ 0x006d_6564_6961) }
    }

    /// `count` bytes from `position`.
    #[must_use]
    pub fn read(self, position: u64, count: usize) -> Bytes {
        let skipped = usize::try_from(position % WORD_BYTES).expect("less than eight");
        let mut bytes = BytesMut::with_capacity(skipped + count + 8);
        let mut word = position / WORD_BYTES;
        while bytes.len() < skipped + count {
            bytes.extend_from_slice(&scatter(self.seed ^ word).to_le_bytes());
            word += 1;
        }
        bytes.freeze().slice(skipped..skipped + count)
    }
}

const WORD_BYTES: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_what_the_whole_has_there() {
        let whole = Noise::new(7).read(0, 100);
        check(&whole, 0, 100);
        check(&whole, 1, 7);
        check(&whole, 3, 17);
        check(&whole, 8, 8);
        check(&whole, 99, 1);
        check(&whole, 50, 0);
    }

    #[test]
    fn two_files_differ() {
        assert_ne!(Noise::new(1).read(0, 32), Noise::new(2).read(0, 32));
    }

    #[track_caller]
    fn check(whole: &Bytes, position: u64, count: usize) {
        let from = usize::try_from(position).unwrap();
        assert_eq!(Noise::new(7).read(position, count), whole[from..from + count], "{count} at {position}");
    }
}
