//! `sunctl token`: a bearer token nobody can guess.

use std::fmt::Write;

use rand::{CryptoRng, RngExt};

/// 256 random bits as 64 hexadecimal digits.
#[must_use]
pub fn make(random: &mut impl CryptoRng) -> String {
    let bytes: [u8; 32] = random.random();
    bytes.iter().fold(String::with_capacity(64), |mut token, byte| {
        // Writing to a string cannot fail.
        let _ = write!(token, "{byte:02x}");
        token
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_the_same() {
        let (one, other) = (make(&mut rand::rng()), make(&mut rand::rng()));
        assert_ne!(one, other);
        assert_eq!(one.len(), 64);
        assert!(one.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
