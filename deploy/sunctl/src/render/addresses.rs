//! What a sun answers for: every address of its group's subnet, and those of members that lie outside of it.
//!
//! The kernel takes a whole subnet as local by one route (`ip route add local`, "AnyIP"), so that an address that is taken
//! over needs nothing to be set up, and listeners at 0.0.0.0 and [::] serve it. The routes stay while the sun is unhealthy
//! or drains: what still arrives is to be answered, not refused.

use std::collections::BTreeSet;

use geo::topology::{Group, Sun};
use ipnet::IpNet;

/// The script.
pub(super) fn script(sun: &str, group: &Group, members: &[&Sun]) -> String {
    let addresses = members.iter().flat_map(|member| member.server.addresses.iter().copied());
    let outside = addresses.filter(|address| !group.subnet.contains(address)).map(IpNet::from);
    let local: BTreeSet<IpNet> = outside.chain([group.subnet]).collect();
    let mut text = format!(
        "#!/bin/sh\n# What {sun} answers for: every address of {}, by `sunctl render addresses`. Run it at boot, as root, before\n\
         # the sun and BIRD. The routes stay whatever the sun's health.\nset -eu\n",
        group.name
    );
    for prefix in local {
        let family = if prefix.addr().is_ipv4() { "" } else { "-6 " };
        text += &format!("ip {family}route replace local {prefix} dev lo\n");
    }
    // Where the subnet is that of a wire as well, members would answer its ARP for each other.
    text += "# Addresses are reached by routes: no member answers ARP for them.\nsysctl -q -w net.ipv4.conf.all.arp_ignore=1\n";
    text
}
