//! Messages made by hand, and some that are wrong on purpose.

use std::net::IpAddr;

use ipnet::IpNet;

use super::PeerId;

/// An attribute: flags follow from the length alone, nothing looks at the others.
pub(super) fn attribute(kind: u8, value: &[u8]) -> Vec<u8> {
    match u8::try_from(value.len()) {
        Ok(length) => [&[0x40, kind, length], value].concat(),
        Err(_) => [&[0x50, kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat(),
    }
}

/// Segments of an `AS_PATH` with 4-byte numbers: type, numbers.
pub(super) fn path4(segments: &[(u8, &[u32])]) -> Vec<u8> {
    let mut value = Vec::new();
    for (kind, numbers) in segments {
        value.extend([*kind, u8::try_from(numbers.len()).unwrap()]);
        value.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
    }
    value
}

/// The same with 2-byte numbers.
pub(super) fn path2(segments: &[(u8, &[u16])]) -> Vec<u8> {
    let mut value = Vec::new();
    for (kind, numbers) in segments {
        value.extend([*kind, u8::try_from(numbers.len()).unwrap()]);
        value.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
    }
    value
}

/// `ORIGIN`, `AS_PATH` and `NEXT_HOP` of a plain route.
pub(super) fn plain(path: &[u32]) -> Vec<u8> {
    [attribute(1, &[0]), attribute(2, &path4(&[(2, path)])), attribute(3, &[192, 0, 2, 1])].concat()
}

/// Prefixes as BGP writes them.
pub(super) fn prefixes(prefixes: &[&str]) -> Vec<u8> {
    let mut list = Vec::new();
    for prefix in prefixes {
        let prefix: IpNet = prefix.parse().unwrap();
        let octets = match prefix.addr() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        list.push(prefix.prefix_len());
        list.extend(octets.iter().take(usize::from(prefix.prefix_len()).div_ceil(8)));
    }
    list
}

/// `MP_REACH_NLRI` of IPv6 unicast.
pub(super) fn reach(list: &[&str]) -> Vec<u8> {
    let next_hop = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    attribute(14, &[&[0, 2, 1, 16][..], &next_hop, &[0], &prefixes(list)].concat())
}

/// `MP_UNREACH_NLRI` of IPv6 unicast.
pub(super) fn unreach(list: &[&str]) -> Vec<u8> {
    attribute(15, &[&[0, 2, 1][..], &prefixes(list)].concat())
}

/// A BGP message of a type.
pub(super) fn bgp(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).unwrap();
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body].concat()
}

/// An UPDATE of raw parts.
pub(super) fn update(withdrawn: &[u8], attributes: &[u8], announced: &[u8]) -> Vec<u8> {
    let length = |part: &[u8]| u16::try_from(part.len()).unwrap().to_be_bytes();
    let parts = [&length(withdrawn)[..], withdrawn, &length(attributes), attributes, announced];
    bgp(2, &parts.concat())
}

/// An OPEN of AS 64999, unless they say another one, with these capabilities.
pub(super) fn open(capabilities: &[(u8, &[u8])]) -> Vec<u8> {
    let list: Vec<u8> = capabilities
        .iter()
        .flat_map(|(code, value)| [&[*code, u8::try_from(value.len()).unwrap()], *value].concat())
        .collect();
    let length = u8::try_from(list.len()).unwrap();
    bgp(1, &[&[4, 0xfd, 0xe7, 0, 90, 192, 0, 2, 9, length + 2, 2, length][..], &list].concat())
}

/// A BMP message of a type.
pub(super) fn bmp(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(6 + body.len()).unwrap();
    [&[3][..], &length.to_be_bytes(), &[kind], body].concat()
}

/// A per-peer header.
pub(super) fn peer_header(kind: u8, flags: u8, peer: PeerId) -> Vec<u8> {
    let (family, address) = match peer.address {
        IpAddr::V4(address) => (0, address.to_ipv6_compatible()),
        IpAddr::V6(address) => (0x80, address),
    };
    let mut header = vec![kind, flags | family];
    header.extend(peer.distinguisher.to_be_bytes());
    header.extend(address.octets());
    header.extend(peer.asn.to_be_bytes());
    header.extend([192, 0, 2, 9, 0, 0, 0, 1, 0, 0, 0, 2]);
    header
}

/// Route Monitoring of a peer's own session.
pub(super) fn monitoring(flags: u8, peer: PeerId, message: &[u8]) -> Vec<u8> {
    bmp(0, &[&peer_header(0, flags, peer), message].concat())
}

/// Peer Up with what each side offered.
pub(super) fn up(peer: PeerId, sent: &[u8], received: &[u8]) -> Vec<u8> {
    bmp(3, &[&peer_header(0, 0, peer), &[0; 20][..], sent, received].concat())
}

/// An MRT record.
pub(super) fn record(kind: u16, subtype: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[0, 0, 0, 1][..], &kind.to_be_bytes(), &subtype.to_be_bytes(), &length, body].concat()
}

/// `PEER_INDEX_TABLE` of IPv4 peers 192.0.2.1, .2, ... with AS 64501, 64502, ...
pub(super) fn peer_index(count: u8) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 0, 0, 2, b'v', b'w', 0, count];
    for peer in 1..=count {
        body.extend([2, 0, 0, 0, 0, 192, 0, 2, peer]);
        body.extend((64_500 + u32::from(peer)).to_be_bytes());
    }
    record(13, 1, &body)
}

/// A prefix's routes: peer's index, path identifier, attributes.
pub(super) fn rib(subtype: u16, prefix: &str, entries: &[(u16, Option<u32>, Vec<u8>)]) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 0];
    body.extend(prefixes(&[prefix]));
    body.extend(u16::try_from(entries.len()).unwrap().to_be_bytes());
    for (index, path, attributes) in entries {
        body.extend(index.to_be_bytes());
        body.extend([0; 4]);
        body.extend(path.iter().flat_map(|path| path.to_be_bytes()));
        body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
        body.extend(attributes);
    }
    record(13, subtype, &body)
}

/// `BGP4MP` of peer 192.0.2.9, AS 64501.
pub(super) fn bgp4mp(subtype: u16, message: &[u8]) -> Vec<u8> {
    let numbers: &[u8] = match subtype {
        0 | 1 => &[0xfb, 0xf5, 0xfd, 0xe9],
        _ => &[0, 0, 0xfb, 0xf5, 0, 0, 0xfd, 0xe9],
    };
    record(16, subtype, &[numbers, &[0, 0, 0, 1, 192, 0, 2, 9, 192, 0, 2, 10], message].concat())
}
