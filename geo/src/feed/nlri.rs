//! Prefixes as BGP writes them (RFC 4271 4.3, RFC 4760 5): a length in bits, then as many bytes as hold them.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Family;
use super::reader::{Fault, Reader};

/// Every prefix of a list.
///
/// # Errors
/// A length beyond the family's, or fewer bytes than it needs: the rest of the list cannot be told apart (RFC 7606 5.3).
pub(super) fn prefixes(mut list: Reader<'_>, family: Family, into: &mut Vec<IpNet>) -> Result<(), Fault> {
    while !list.is_empty() {
        into.push(prefix(&mut list, family)?);
    }
    Ok(())
}

/// The next prefix; bits behind its length are dropped (RFC 4271 4.3: "irrelevant").
pub(super) fn prefix(list: &mut Reader<'_>, family: Family) -> Result<IpNet, Fault> {
    let start = *list;
    let bits = list.u8("a prefix is missing")?;
    let bytes = list.part(usize::from(bits).div_ceil(8), "a prefix is longer than what is left")?;
    let too_long = start.fault("a prefix has more bits than an address");
    match family {
        Family::V4 => {
            let address = Ipv4Addr::from(padded(bytes.bytes()).ok_or(too_long)?);
            Ok(IpNet::V4(Ipv4Net::new(address, bits).map_err(|_| too_long)?.trunc()))
        }
        Family::V6 => {
            let address = Ipv6Addr::from(padded(bytes.bytes()).ok_or(too_long)?);
            Ok(IpNet::V6(Ipv6Net::new(address, bits).map_err(|_| too_long)?.trunc()))
        }
    }
}

/// The bytes, and zeros behind them; none if they are too many.
fn padded<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let mut address = [0; N];
    address.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(address)
}
