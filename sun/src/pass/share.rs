//! How many requests of one client may be passed on at once.
//!
//! Each holds one of the places that all sites share, for as long as the client likes to take: without a bound of its
//! own one address could hold them all. An IPv6 client has a network of 64 bits to itself (RFC 6177), so those count as
//! one. Addresses are in the table only while something of theirs is under way, so it has no more entries than there are
//! places.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};

/// Requests under way, by client.
#[derive(Debug, Default)]
pub struct Shares(Mutex<HashMap<IpAddr, usize>>);

/// One request's place in its client's share; given back when dropped.
#[derive(Debug)]
pub struct Share {
    shares: Arc<Shares>,
    client: IpAddr,
}

impl Shares {
    /// A place for one more request; none when the client has [`SHARE_MAX`] under way.
    #[must_use]
    pub fn enter(self: &Arc<Self>, client: IpAddr) -> Option<Share> {
        let client = network_of(client);
        let mut counts = self.lock();
        let count = counts.entry(client).or_default();
        if *count >= SHARE_MAX {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Share { shares: Arc::clone(self), client })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().expect("no code that holds this lock panics")
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.shares.lock();
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

/// What counts as one client.
fn network_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// Requests of one client that may be passed on at once. Browsers open 6 connections to a host; many people may be behind
/// one IPv4 address.
pub const SHARE_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_has_its_share_and_others_theirs() {
        let shares = Arc::new(Shares::default());
        check(&shares, "192.0.2.1", &["192.0.2.1", "::ffff:192.0.2.1"], &["192.0.2.2", "2001:db8::1"]);
        check(&shares, "2001:db8::1", &["2001:db8::ffff:1:2:3"], &["2001:db8:0:1::1", "192.0.2.1"]);
        assert!(shares.lock().is_empty(), "nothing is remembered of clients that are gone");
    }

    /// While `client` has its share, `same` get nothing and `others` do; and again once one place is given back.
    #[track_caller]
    fn check(shares: &Arc<Shares>, client: &str, same: &[&str], others: &[&str]) {
        let enter = |address: &str| shares.enter(address.parse().unwrap());
        let mut held: Vec<Share> = (0..SHARE_MAX).map(|_| enter(client).unwrap()).collect();
        for address in same {
            assert!(enter(address).is_none(), "{address}");
        }
        for address in others {
            assert!(enter(address).is_some(), "{address}");
        }
        held.pop();
        for address in same {
            assert!(enter(address).is_some(), "{address}");
        }
    }
}
