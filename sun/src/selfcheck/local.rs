//! Whether this machine answers for an address: the kernel's own word, its route to it.
//!
//! ```text
//!   RTM_GETROUTE, RTA_DST = address  -->  RTM_NEWROUTE, of type RTN_LOCAL: it does; of any other: another machine does
//!                                         NLMSG_ERROR: no route
//! ```
//!
//! Why nothing simpler: that an address can be bound to says nothing where `net.ipv4.ip_nonlocal_bind` is set, and the source that
//! is chosen for a packet to it is another address of this machine where a whole network is local (`ip route add local`).
//! Where the kernel cannot be asked (a sandbox without `AF_NETLINK`), what can be bound to is taken for local.

use std::io::{self, Read};
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// Whether this machine answers for an address; none: it cannot be told now, for want of descriptors or memory.
#[must_use]
pub fn is_local(address: IpAddr) -> Option<bool> {
    match routed(address) {
        Ok(Some(local)) => Some(local),
        Ok(None) | Err(_) => bound(UdpSocket::bind((address, 0)).map(drop)),
    }
}

/// What a bind says: only an address that is not available is none of this machine.
fn bound(bound: io::Result<()>) -> Option<bool> {
    match bound {
        Ok(()) => Some(true),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Some(false),
        Err(_) => None,
    }
}

/// Asks the kernel; none: its answer is unreadable.
fn routed(address: IpAddr) -> io::Result<Option<bool>> {
    let mut socket = Socket::new(Domain::from(AF_NETLINK), Type::RAW, Some(Protocol::from(NETLINK_ROUTE)))?;
    // It answers before it returns from the question.
    socket.set_read_timeout(Some(ANSWER_MAX))?;
    socket.send(&question(address))?;
    let mut answer = [0; ANSWER_BYTES_MAX];
    let length = socket.read(&mut answer)?;
    Ok(read(&answer[..length]))
}

/// `nlmsghdr`, `rtmsg`, and one `rtattr` with the address.
fn question(address: IpAddr) -> Vec<u8> {
    let (family, octets) = match address {
        IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
    };
    // 16 bytes at most, so that no length is cut off.
    let bits = u8::try_from(octets.len() * 8).unwrap_or(u8::MAX);
    let attribute = u16::try_from(ATTRIBUTE_BYTES + octets.len()).unwrap_or(u16::MAX);
    let length = u32::try_from(HEADER_BYTES + ROUTE_BYTES + ATTRIBUTE_BYTES + octets.len()).unwrap_or(u32::MAX);
    let mut question = Vec::new();
    question.extend(length.to_ne_bytes());
    question.extend(RTM_GETROUTE.to_ne_bytes());
    question.extend(NLM_F_REQUEST.to_ne_bytes());
    // Number and port: the answer to the only question of this socket is known without.
    question.extend([0; 8]);
    question.extend([family, bits]);
    question.extend([0; ROUTE_BYTES - 2]);
    question.extend(attribute.to_ne_bytes());
    question.extend(RTA_DST.to_ne_bytes());
    question.extend(octets);
    question
}

/// What an answer says.
fn read(answer: &[u8]) -> Option<bool> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    match kind {
        RTM_NEWROUTE => Some(*answer.get(HEADER_BYTES + ROUTE_TYPE)? == RTN_LOCAL),
        NLMSG_ERROR => {
            let error = i32::from_ne_bytes(answer.get(HEADER_BYTES..HEADER_BYTES + 4)?.try_into().ok()?);
            let short = [ENOMEM, ENOBUFS].contains(&error.saturating_neg());
            (error != 0 && !short).then_some(false)
        }
        _ => None,
    }
}

/// Of linux/netlink.h and linux/rtnetlink.h, which are part of the kernel's interface and do not change.
const AF_NETLINK: i32 = 16;
const NETLINK_ROUTE: i32 = 0;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTN_LOCAL: u8 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const ENOMEM: i32 = 12;
const ENOBUFS: i32 = 105;

/// Lengths of `nlmsghdr`, `rtmsg` and the head of a `rtattr`, and where in `rtmsg` the type of the route is.
const HEADER_BYTES: usize = 16;
const ROUTE_BYTES: usize = 12;
const ATTRIBUTE_BYTES: usize = 4;
const ROUTE_TYPE: usize = 7;

/// A route has some hundred bytes; of one that has more, the head is enough.
const ANSWER_BYTES_MAX: usize = 4096;

/// The kernel is waited for so long.
const ANSWER_MAX: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_local_when_the_kernel_says_so() {
        // The second one is of a network that is local as a whole: its packets are from 127.0.0.1.
        for local in ["127.0.0.1", "127.9.9.9", "::1"] {
            assert_eq!(is_local(local.parse().unwrap()), Some(true), "{local}");
        }
        // Of documentation's networks (RFC 5737, RFC 3849).
        for other in ["192.0.2.1", "2001:db8::1"] {
            assert_eq!(is_local(other.parse().unwrap()), Some(false), "{other}");
        }
    }

    #[test]
    fn the_kernel_is_asked_where_a_bind_would_do() {
        assert_eq!(routed([127, 9, 9, 9].into()).unwrap(), Some(true));
        assert_eq!(routed([192, 0, 2, 1].into()).unwrap(), Some(false));
    }

    #[test]
    fn an_answer_says_local_other_or_nothing() {
        let message = |kind: u16, rest: &[u8]| [&[0; 4], &kind.to_ne_bytes()[..], &[0; 10], rest].concat();
        let route = |of_type| message(RTM_NEWROUTE, &[2, 32, 0, 0, 0, 0, 0, of_type, 0, 0, 0, 0]);
        assert_eq!([RTN_LOCAL, 1, 7].map(|of_type| read(&route(of_type))), [Some(true), Some(false), Some(false)]);
        let error = |code: i32| read(&message(NLMSG_ERROR, &code.to_ne_bytes()));
        assert_eq!([-101, -113, -ENOBUFS, 0].map(error), [Some(false), Some(false), None, None]);
        assert_eq!([read(&[]), read(&route(RTN_LOCAL)[..20]), read(&message(3, &[]))], [None; 3]);
    }

    #[test]
    fn only_an_address_that_is_not_available_is_lost_by_a_bind() {
        let told = |kind: io::ErrorKind| bound(Err(kind.into()));
        assert_eq!(told(io::ErrorKind::AddrNotAvailable), Some(false));
        assert_eq!(bound(Err(io::Error::from_raw_os_error(24))), None, "too many open files");
        assert_eq!(bound(Ok(())), Some(true));
    }
}
