//! Addresses of a topology that a group's subnet takes away from whoever has them.
//!
//! Every member of a group answers for the whole subnet by itself. What somebody else has in it is reached by no member,
//! and by nobody behind a router that takes the subnet's route. Daemons run with such a document all the same: where no subnet is
//! announced it does no harm. `sunctl check` warns of it, `sunctl render` refuses it.

use std::net::IpAddr;

use crate::topology::{Group, Server, Topology};

/// What is in the way of whom, a line each, in the topology's order.
///
/// Loopback is left out: all of it is one machine's, whatever the subnets are.
#[must_use]
pub fn conflicts(topology: &Topology) -> Vec<String> {
    // They do not overlap, so the last that begins at or before an address is the only one that may contain it.
    let mut groups: Vec<&Group> = topology.regions.iter().flat_map(|region| &region.groups).collect();
    groups.sort_by_key(|group| group.subnet.network());
    let within = |address: IpAddr| {
        let end = groups.partition_point(|group| group.subnet.network() <= address);
        let group = groups[..end].last().filter(|group| group.subnet.contains(&address));
        group.filter(|_| !address.is_loopback())
    };
    let mut found = Vec::new();
    for region in &topology.regions {
        let suns = region.suns.iter().map(|sun| (&sun.server, Some(sun.group)));
        for (server, own) in suns.chain(region.caches.iter().map(|cache| (&cache.server, None))) {
            let Server { name, internal, addresses, .. } = server;
            if let Some(group) = within(internal.ip()) {
                found.push(format!(
                    "{name}: internal = {internal}: it is in {} of {}, for which each of its suns answers itself: others do \
                     not reach it",
                    group.subnet, group.name
                ));
            }
            for address in addresses {
                let own = |group: &&&Group| {
                    own == Some(group.number) && region.groups.iter().any(|known| known.name == group.name)
                };
                if let Some(group) = within(*address).filter(|group| !own(group)) {
                    found.push(format!(
                        "{name}: addresses = {address}: it is in {} of {}, for which the suns of that group answer",
                        group.subnet, group.name
                    ));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_in_a_subnet_is_told() {
        let good = ("192.0.2.1", "10.0.0.1:81", "192.0.2.130", "[2001:db8::9]:81");
        check(good, &[]);
        check(("192.0.2.200", good.1, good.2, good.3), &[]);
        check(
            ("192.0.2.65", good.1, good.2, good.3),
            &["sun1-1-1: addresses = 192.0.2.65: it is in 192.0.2.64/26 of sun1-2"],
        );
        check(
            ("192.0.2.1", "192.0.2.9:81", good.2, good.3),
            &["sun1-1-1: internal = 192.0.2.9:81: it is in 192.0.2.0/26 of sun1-1"],
        );
        check(
            (good.0, good.1, "192.0.2.40", "[2001:db8:1::9]:81"),
            &[
                "cache1-1: internal = [2001:db8:1::9]:81: it is in 2001:db8:1::/64 of sun1-3",
                "cache1-1: addresses = 192.0.2.40: it is in 192.0.2.0/26 of sun1-1",
            ],
        );
    }

    #[track_caller]
    fn check((sun, sun_internal, cache, cache_internal): (&str, &str, &str, &str), expected: &[&str]) {
        let topology = Topology::parse(&format!(
            r#"
version = 1
domain = "example.org"
default_region = 1
content_servers = {{ url = "http://cs{{number}}", numbers = ["1"] }}
region = [{{ id = 1, name = "one", latitude = 0, longitude = 0 }}]
group = [
  {{ name = "sun1-1", subnet = "192.0.2.0/26" }},
  {{ name = "sun1-2", subnet = "192.0.2.64/26" }},
  {{ name = "sun1-3", subnet = "2001:db8:1::/64" }},
]
sun = [
  {{ name = "sun1-1-1", addresses = ["{sun}"], internal = "{sun_internal}", weight = 1 }},
  {{ name = "sun1-2-1", addresses = ["192.0.2.66"], internal = "10.0.0.2:81", weight = 1 }},
]
cache = [{{ name = "cache1-1", addresses = ["{cache}"], internal = "{cache_internal}", weight = 1, bytes = 1 }}]
"#
        ))
        .unwrap();
        let found = conflicts(&topology);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    }
}
