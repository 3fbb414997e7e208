//! A piece of loopback for each test, so that all of them run at once and none needs a free port to be found.
//!
//! The whole of 127/8 is this machine. A test claims one 127.x.y.0/24 and gives each of its servers an address
//! there; ports can then be constants. The claim is a socket bound at .254 for as long as the test lives.
//!
//! Why not port 0: daemons read their ports from files that must be written before they start, links name
//! ports, and a daemon that was killed must come back where it was. A port found free a moment ago may be some
//! client's by then; an address nobody else uses cannot.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// 127.x.y.0/24, claimed until dropped.
#[derive(Debug)]
pub struct Block {
    high: u8,
    low: u8,
    _claim: TcpListener,
}

impl Block {
    /// Claims a block that neither this process nor another one has.
    ///
    /// # Panics
    ///
    /// When all are taken.
    #[must_use]
    pub fn claim() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let begin = std::process::id().wrapping_mul(61);
        for _ in 0..BLOCKS {
            let number = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % BLOCKS;
            let high = FIRST + u8::try_from(number / 256).expect("below 64");
            let low = u8::try_from(number % 256).expect("below 256");
            if let Ok(claim) = TcpListener::bind((Ipv4Addr::new(127, high, low, 254), CLAIM_PORT)) {
                return Self { high, low, _claim: claim };
            }
        }
        panic!("every 127.{FIRST}.0.0/10 block is taken, or 127/8 is not on this machine's loopback");
    }

    /// 127.x.y.`host`.
    #[must_use]
    pub const fn address(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.high, self.low, host)
    }
}

/// Blocks are those of 127.64.0.0/10.
const FIRST: u8 = 64;
const BLOCKS: u32 = 64 * 256;
const CLAIM_PORT: u16 = 10_009;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_blocks_differ() {
        let (one, other) = (Block::claim(), Block::claim());
        assert_ne!(one.address(1), other.address(1));
        assert!(one.address(1).is_loopback());
    }
}
