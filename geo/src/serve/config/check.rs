//! What is wrong with a config, without a look at the files that it names.

use std::net::SocketAddr;

use super::{Config, WantedView};

impl Config {
    /// Everything that is wrong with it without a look at the files that it names.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut whole = |key: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                problems.push(format!("{key} = {value}: it is within {least}..={most}"));
            }
        };
        let size = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        whole("drain_s", self.drain_s, 0, DAY_S);
        // RFC 7854: a route monitoring message holds one BGP message, of up to 65,535 bytes (RFC 8654).
        whole("bmp.message_bytes_max", size(self.bmp.message_bytes_max), 1 << 16, 1 << 26);
        whole("bmp.queue_max", size(self.bmp.queue_max), 1, 1024);
        whole("bmp.idle_s", self.bmp.idle_s, 1, 7 * DAY_S);
        whole("bmp.stale_s", self.bmp.stale_s, 0, 7 * DAY_S);
        whole("bmp.quiet_s", self.bmp.quiet_s, 0, DAY_S);
        whole("bmp.gate_s", self.bmp.gate_s, 0, DAY_S);
        whole("bmp.routes_max", self.bmp.routes_max.into(), 1, 1_000_000_000);
        whole("damping.stable_s", self.damping.stable_s, 0, DAY_S);
        whole("choice.ipv4_length_min", self.choice.ipv4_length_min.into(), 0, 32);
        whole("choice.ipv6_length_min", self.choice.ipv6_length_min.into(), 0, 128);
        whole("damping.pending_max", size(self.damping.pending_max), 1, 100_000_000);
        whole("publish.changes_max", size(self.publish.changes_max), 0, 100_000_000);
        whole("publish.save_s", self.publish.save_s, 1, DAY_S);
        whole("limits.connections_max", size(self.limits.connections_max), 1, 1_000_000);
        whole("limits.request_s", self.limits.request_s, 1, DAY_S);
        if !(0.0..=1.0).contains(&self.shrink_max) {
            problems.push(format!("shrink_max = {}: it is within 0..=1", self.shrink_max));
        }
        self.addresses(&mut problems);
        self.routers(&mut problems);
        problems
    }

    /// No two listeners have the same address; port 0 asks for a free one.
    fn addresses(&self, problems: &mut Vec<String>) {
        let all = [("listen", Some(self.listen)), ("admin", Some(self.admin)), ("bmp.listen", self.bmp.listen)];
        let all: Vec<(&str, SocketAddr)> = all.into_iter().filter_map(|(key, address)| Some((key, address?))).collect();
        for (index, (key, address)) in all.iter().enumerate() {
            let collides = |other: &SocketAddr| {
                let everywhere = address.ip().is_unspecified() || other.ip().is_unspecified();
                address.port() != 0 && address.port() == other.port() && (address.ip() == other.ip() || everywhere)
            };
            if let Some((other, _)) = all.iter().take(index).find(|(_, other)| collides(other)) {
                problems.push(format!("{key} = {address}: it is that of {other}, too; give it another port"));
            }
        }
    }

    fn routers(&self, problems: &mut Vec<String>) {
        if self.bmp.listen.is_none() && !self.router.is_empty() {
            problems.push("router: bmp.listen is missing: the routers have nowhere to connect to".to_owned());
        }
        for (index, router) in self.router.iter().enumerate() {
            let mut wrong = |what: String| problems.push(format!("router[{index}].{what}"));
            let earlier = self.router.iter().take(index);
            if router.name.is_empty() {
                wrong("name: is empty".to_owned());
            }
            for other in earlier {
                if other.name == router.name {
                    wrong(format!("name = {:?}: an earlier router has it", router.name));
                }
                if other.address.to_canonical() == router.address.to_canonical() {
                    wrong(format!("address = {}: it is {}'s, too", router.address, other.name));
                }
            }
            if !(1..=PREFIXES_MAX).contains(&router.prefixes_max) {
                wrong(format!("prefixes_max = {}: it is within 1..={PREFIXES_MAX}", router.prefixes_max));
            }
            for (index, peer) in router.peer.iter().enumerate() {
                if peer.address.is_some() == peer.peer_as.is_some() {
                    wrong(format!("peer[{index}]: give either address or as"));
                }
                if peer.class.is_some() == peer.ignore {
                    wrong(format!("peer[{index}]: give either class or ignore = true"));
                }
            }
            if router.view == WantedView::LocRib && !router.peer.is_empty() {
                wrong(
                    "peer: view = \"loc-rib\" is one table, of the router's own class, and does not tell peers apart"
                        .to_owned(),
                );
            }
        }
    }
}
const DAY_S: u64 = 86_400;
const PREFIXES_MAX: u32 = 100_000_000;
