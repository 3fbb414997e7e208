//! Addresses of the lab, in one family or the other. Machines have IPv4 among themselves in any case; what clients ask, what BGP
//! tells and what the suns ask each other by is of the family that is played.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 or IPv6, or both at once.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Family {
    /// `192.0.2.0/24`.
    #[default]
    V4,
    /// `2001:db8:2::/64`.
    V6,
    /// The subnet and what is internal are of IPv4; each sun has addresses of IPv6 beside.
    Both,
}

impl Family {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Both];

    /// As `--family` has it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::V4 => "4",
            Self::V6 => "6",
            Self::Both => "both",
        }
    }

    /// One by one.
    #[must_use]
    pub const fn each(self) -> &'static [Self] {
        match self {
            Self::V4 => &[Self::V4],
            Self::V6 => &[Self::V6],
            Self::Both => &[Self::V4, Self::V6],
        }
    }

    /// All addresses of the group, but for those of IPv6 beside a subnet of IPv4.
    #[must_use]
    pub const fn subnet(self) -> &'static str {
        match self {
            Self::V4 | Self::Both => "192.0.2.0/24",
            Self::V6 => "2001:db8:2::/64",
        }
    }

    /// A sun's own addresses.
    #[must_use]
    pub fn own_addresses(self, number: u8) -> Vec<IpAddr> {
        let of = |family: Self, index| family.of([192, 0, 2], [0x2001, 0xdb8, 2], number * 8 + index);
        self.each().iter().flat_map(|&family| (0..ADDRESSES).map(move |index| of(family, index))).collect()
    }

    /// A sun's address on the internal network.
    #[must_use]
    pub fn internal(self, number: u8) -> IpAddr {
        self.of([10, 99, 0], [0xfd99, 0, 0], 10 + number)
    }

    /// A sun's end of the cable to the router.
    #[must_use]
    pub fn public(self, number: u8) -> IpAddr {
        self.of([10, 0, number], [0xfd00, u16::from(number), 0], 2)
    }

    /// The router's end of it.
    #[must_use]
    pub fn gateway(self, number: u8) -> IpAddr {
        self.of([10, 0, number], [0xfd00, u16::from(number), 0], 1)
    }

    /// An address of the clients' network; the router is 1.
    #[must_use]
    pub fn client(self, host: u8) -> IpAddr {
        self.of([198, 51, 100], [0x2001, 0xdb8, 9], host)
    }

    fn of(self, [a, b, c]: [u8; 3], [p, q, r]: [u16; 3], host: u8) -> IpAddr {
        match self {
            Self::V4 | Self::Both => Ipv4Addr::new(a, b, c, host).into(),
            Self::V6 => Ipv6Addr::new(p, q, r, 0, 0, 0, 0, u16::from(host)).into(),
        }
    }

    /// With the length of a network of the lab, as `ip addr add` wants it; no IPv6 address is looked for twice first.
    #[must_use]
    pub fn to_add(self, address: IpAddr) -> String {
        match self {
            Self::V4 | Self::Both => format!("{address}/24"),
            Self::V6 => format!("{address}/64 nodad"),
        }
    }
}

/// Own addresses of each sun, of a family.
pub const ADDRESSES: u8 = 4;
