//! Who takes an address over: the order in which the members of a group stand in for each other, address by address.
//!
//! ```text
//!   group sun4-2, 192.0.2.0/26          192.0.2.1   192.0.2.2   192.0.2.3   192.0.2.4   192.0.2.0/26
//!   sun4-2-1 owns .1 and .2                 0           0           2           1           last
//!   sun4-2-2 owns .3 and .4                 2           1           0           0           last
//!   sun4-2-3 owns none here                 1           2           1           2           last
//!                                      what each member announces, by rank: the lowest that is up is asked
//! ```
//!
//! Every member announces every address of its group, with a rank: 0 its own, 1 where it is the first backup, and so on. A
//! router sends to the lowest rank that is announced, so nobody has to notice a failure but the one who withdraws. The
//! covering subnet comes last: any address of its own is a longer prefix, which always wins.
//!
//! # Invariants
//!
//! - **One failure spreads.** The addresses of a member go to as many others as there are: with `k` addresses among `n`
//!   members the worst survivor gets `ceil(k / (n - 1))` of them. Eight members with four each: at most one more, +25 %;
//!   drawn at random it is
//!   +43 % on average, and up to +100 %.
//! - **A second one, too.** The next ranks are chosen for the case that the better ones are down: with eight members of four
//!   addresses, whichever two fail, no survivor has more than two more (+50 %, which is the least there is: eight addresses,
//!   six survivors); drawn at random, the worst pair gives one survivor three to seven more. Past [`RANKS_DESIGNED`] the order
//!   is by hash.
//! - **No coordination.** The order is a function of names and addresses; weights and the topology's order do not count.
//! - **Little movement.** A ninth member beside eight of four addresses changes 15 % of the first backups; were the orders
//!   drawn anew it would be 89 %, and the least there is is 11 %. Only sessions on addresses whose owner is down at that moment notice.
//!
//! Why not by rotation (`i`, `i + 1`, ... of the sorted names): as even, but a member whose name sorts first shifts all.

mod conflicts;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::topology::Topology;
pub use conflicts::conflicts;

/// The addresses of one group, each with its owner and the order of its backups.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Assignment {
    subnet: IpNet,
    /// In order of name.
    members: Vec<String>,
    /// In order of owner, then of address.
    addresses: Vec<Address>,
}

/// One address, with indices of members.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Address {
    address: IpAddr,
    owner: usize,
    /// Best first; all members but the owner.
    backups: Vec<usize>,
}

/// A route that a member announces while it is well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Announcement {
    /// An address as /32 or /128, or the covering subnet.
    pub prefix: IpNet,
    /// 0: its own address. From 1: it is that backup. None: the covering subnet.
    pub rank: Option<u16>,
}

impl Assignment {
    /// The assignment of a group, `sun4-2`; none when there is no such group.
    ///
    /// For `a` addresses and `n` members about `a * n` hashes and sorts: 20 ms for 64 addresses and 64 members.
    #[must_use]
    pub fn of(topology: &Topology, group: &str) -> Option<Self> {
        let mut all = topology.regions.iter().flat_map(|region| region.groups.iter().map(move |group| (region, group)));
        let (region, group) = all.find(|(_, candidate)| candidate.name == group)?;
        let members = region.suns.iter().filter(|sun| sun.group == group.number);
        let members = members.map(|sun| (sun.server.name.as_str(), sun.server.addresses.as_slice()));
        Some(Self::new(group.subnet, &members.collect::<Vec<_>>()))
    }

    /// The assignment of members, each with its own addresses, in any order.
    #[must_use]
    pub fn new(subnet: IpNet, members: &[(&str, &[IpAddr])]) -> Self {
        // Of members with one name, which no topology has, the last counts.
        let members: BTreeMap<&str, &[IpAddr]> = members.iter().copied().collect();
        let mut addresses = Vec::new();
        for (owner, own) in members.values().enumerate() {
            let mut own = own.to_vec();
            own.sort_unstable();
            addresses.extend(own.into_iter().map(|address| Address { address, owner, backups: Vec::new() }));
        }
        let members: Vec<String> = members.into_keys().map(str::to_owned).collect();
        let mut assignment = Self { subnet, members, addresses };
        for _rank in 1..assignment.members.len().min(RANKS_DESIGNED + 1) {
            for index in 0..assignment.addresses.len() {
                let backup = assignment.next_backup(index);
                assignment.addresses[index].backups.push(backup);
            }
        }
        for index in 0..assignment.addresses.len() {
            let rest = assignment.rest(index);
            assignment.addresses[index].backups.extend(rest);
        }
        assignment
    }

    /// Names of the members, sorted.
    #[must_use]
    pub fn members(&self) -> &[String] {
        &self.members
    }

    /// What a member announces: its own addresses, then those of others by rank, then the subnet. Empty when it is no
    /// member.
    #[must_use]
    pub fn announcements(&self, sun: &str) -> Vec<Announcement> {
        let Ok(member) = self.members.binary_search_by(|name| name.as_str().cmp(sun)) else { return Vec::new() };
        let mut ranked: Vec<(u16, IpAddr)> =
            self.addresses.iter().map(|address| (address.rank_of(member), address.address)).collect();
        ranked.sort_unstable();
        let hosts = ranked.into_iter().map(|(rank, address)| Announcement { prefix: address.into(), rank: Some(rank) });
        hosts.chain([Announcement { prefix: self.subnet, rank: None }]).collect()
    }

    /// Who answers for each address while these members are down: (address, name). Addresses that nobody is left for are
    /// not there.
    #[must_use]
    pub fn answering(&self, down: &[&str]) -> Vec<(IpAddr, &str)> {
        let down: Vec<bool> = self.members.iter().map(|name| down.contains(&name.as_str())).collect();
        let of = |address: &Address| Some((address.address, self.members[address.answering(&down)?].as_str()));
        self.addresses.iter().filter_map(of).collect()
    }

    /// The next backup of an address: who would have least while the owner and all better backups are down, and of those
    /// the one that the hash prefers.
    fn next_backup(&self, index: usize) -> usize {
        let address = &self.addresses[index];
        let load = self.load_without(address);
        let candidates = (0..self.members.len()).filter(|&member| address.takes(member));
        let best = candidates.min_by_key(|&member| (load[member], score(address.address, &self.members[member])));
        best.expect("there are as many ranks as other members")
    }

    /// The backups past [`RANKS_DESIGNED`], in the order of the hash.
    fn rest(&self, index: usize) -> Vec<usize> {
        let address = &self.addresses[index];
        let mut rest: Vec<usize> = (0..self.members.len()).filter(|&member| address.takes(member)).collect();
        rest.sort_by_cached_key(|&member| score(address.address, &self.members[member]));
        rest
    }

    /// How many addresses of the same family each member has taken over, as far as is decided, while those are down that
    /// come before the next backup of this address.
    fn load_without(&self, address: &Address) -> Vec<usize> {
        let mut down = vec![false; self.members.len()];
        down[address.owner] = true;
        address.backups.iter().for_each(|&backup| down[backup] = true);
        let mut load = vec![0; self.members.len()];
        let same = |other: &&Address| other.address.is_ipv4() == address.address.is_ipv4() && down[other.owner];
        for other in self.addresses.iter().filter(same) {
            if let Some(member) = other.answering(&down) {
                load[member] += 1;
            }
        }
        load
    }
}

impl Address {
    /// 0 of the owner.
    fn rank_of(&self, member: usize) -> u16 {
        let place = self.backups.iter().position(|&backup| backup == member);
        place.map_or(0, |place| u16::try_from(place + 1).unwrap_or(u16::MAX))
    }

    /// The best member that is not down.
    fn answering(&self, down: &[bool]) -> Option<usize> {
        std::iter::once(self.owner).chain(self.backups.iter().copied()).find(|&member| !down[member])
    }

    /// The member can become a backup.
    fn takes(&self, member: usize) -> bool {
        member != self.owner && !self.backups.contains(&member)
    }
}

/// Lower is better; each address and member have their own.
fn score(address: IpAddr, member: &str) -> u64 {
    let digest = blake3::hash(format!("{address} {member}").as_bytes());
    let (first, _) = digest.as_bytes().split_first_chunk().expect("a digest has 32 bytes");
    u64::from_be_bytes(*first)
}

/// Backups that are chosen by load: three failures of a group at once. What comes after is by hash alone.
pub const RANKS_DESIGNED: usize = 3;

#[cfg(test)]
mod tests;
