//! A prefix as the tables compare it: bits at the left, whatever the family.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The first `len` bits; the others are 0. In order of address, the shorter first.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Key {
    pub(super) bits: u128,
    pub(super) len: u8,
}

impl Key {
    /// `len`: at most 128; what is behind it in `bits` is cut off.
    pub(super) fn new(bits: u128, len: u8) -> Self {
        Self { bits: bits & !last_of(0, len), len }
    }

    /// The last key that begins with it.
    pub(super) fn last(self) -> u128 {
        last_of(self.bits, self.len)
    }
}

impl From<Ipv4Net> for Key {
    fn from(net: Ipv4Net) -> Self {
        Self::new(u128::from(u32::from(net.addr())) << 96, net.prefix_len())
    }
}

impl From<Ipv6Net> for Key {
    fn from(net: Ipv6Net) -> Self {
        Self::new(net.addr().into(), net.prefix_len())
    }
}

impl From<IpNet> for Key {
    fn from(net: IpNet) -> Self {
        match net {
            IpNet::V4(net) => net.into(),
            IpNet::V6(net) => net.into(),
        }
    }
}

/// An address as a key.
#[inline]
pub(super) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => address.into(),
    }
}

fn last_of(bits: u128, len: u8) -> u128 {
    bits | u128::MAX.checked_shr(len.into()).unwrap_or(0)
}
