//! The registry as a replica takes it over. Pure.
//!
//! A replica does not see reports: it takes over what follows from them, whole, and looks at it as of the moment at which
//! the other API looked. So it makes the same links, although it was not there when a file became hot.

use geo::Topology;

use super::{HotRegion, Registry, Seen};
use crate::balance::Gauge;
use crate::hot::HotFiles;
use crate::wire::{self, Diverted, HotFile, LinkState, ServerSeen, StatusReport};

impl Registry {
    /// What links are made from, without holdings and purges.
    #[must_use]
    pub fn image(&self, purges: impl Fn(&str) -> Option<u64>) -> LinkState {
        let mut servers: Vec<ServerSeen> = self.servers.iter().map(|(name, seen)| seen.image(name, &purges)).collect();
        servers.sort_by(|a, b| a.name.cmp(&b.name));
        let files = |files: &HotFiles| {
            files.iter(usize::MAX).map(|(file, spread)| HotFile { file: file.to_owned(), spread }).collect::<Vec<_>>()
        };
        let hot = self.hot.iter().map(|(&region, hot)| wire::HotRegion { region, files: files(&hot.files) });
        let mut hot: Vec<wire::HotRegion> = hot.filter(|hot| !hot.files.is_empty()).collect();
        hot.sort_by_key(|hot| hot.region.0);
        let diverted = self.saturated.shares().map(|(region, share)| Diverted { region, share });
        let mut diverted: Vec<Diverted> = diverted.filter(|diverted| diverted.share > 0.0).collect();
        diverted.sort_by_key(|diverted| diverted.region.0);
        LinkState { servers, hot, diverted, ..LinkState::default() }
    }

    /// Takes an image over that was made at `now_ms` of its own scale; [`Registry::at`] is asked with that from now on.
    pub fn restore(&mut self, image: &LinkState, topology: &Topology, now_ms: u64) {
        self.started_ms = 0;
        self.servers = image.servers.iter().map(|seen| (seen.name.clone(), Seen::restored(seen))).collect();
        let region = |hot: &wire::HotRegion| {
            let files = HotFiles::restored(hot.files.iter().map(|hot| (hot.file.clone(), hot.spread)));
            (hot.region, HotRegion { files, at_ms: Some(now_ms) })
        };
        self.hot = image.hot.iter().map(region).collect();
        self.saturated.restore(image.diverted.iter().map(|diverted| (diverted.region, diverted.share)), now_ms);
        self.sums.clear();
        for region in &topology.regions {
            self.update_sums(region, now_ms);
        }
    }
}

impl Seen {
    fn image(&self, name: &str, purges: impl Fn(&str) -> Option<u64>) -> ServerSeen {
        ServerSeen {
            name: name.to_owned(),
            at_ms: self.at_ms,
            well_ms: self.well_ms,
            healthy: self.report.healthy,
            load: self.report.load,
            requests: self.gauge.requests,
            bits: self.gauge.bits,
            purges: purges(name),
            rest: self.report.rest,
        }
    }

    fn restored(seen: &ServerSeen) -> Self {
        let (healthy, load) = (seen.healthy, seen.load);
        let report =
            StatusReport { server: seen.name.clone(), healthy, load, rest: seen.rest, ..StatusReport::default() };
        let gauge = Gauge { requests: seen.requests, bits: seen.bits };
        Self { at_ms: seen.at_ms, well_ms: seen.well_ms, report, gauge }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use geo::Scheme;

    use super::*;
    use crate::hot::Rule;
    use crate::testing::topology;
    use crate::wire::{HotRate, Load};

    #[test]
    fn a_restored_registry_looks_like_the_one_it_was_made_of() {
        let topology = topology();
        let mut registry = Registry::new(Rule::default(), 0);
        for second in 1..=60 {
            for (place, sun) in ["sun4-1-1", "sun4-1-2", "sun4-1-3", "cache4-1"].into_iter().enumerate() {
                let rate = 1000.0 + 100.0 * place as f64;
                let load = Load { bits_per_second: 1e12, requests_per_second: rate, ..Load::default() };
                let hot = HotRate { file: "c1/hot".to_owned(), requests_per_second: 500.0, bits_per_second: 1e9 };
                let report = StatusReport {
                    server: sun.to_owned(),
                    healthy: sun != "sun4-1-2",
                    load,
                    hottest: vec![hot],
                    ..StatusReport::default()
                };
                registry.report(&topology, report, second * 1000);
            }
        }
        let image = registry.image(|_| None);
        assert!(image.hot[0].files[0].spread > 1 && image.diverted[0].share > 0.1, "{image:?}");
        let mut restored = Registry::new(Rule::default(), 0);
        restored.restore(&image, &topology, 60_000);
        assert_eq!(restored.image(|_| None), image);
        for now_ms in [60_000, 61_000, 64_000] {
            let (ours, theirs) = (restored.at(now_ms), registry.at(now_ms));
            for region in &topology.regions {
                assert_eq!(ours.spread(region, "c1/hot"), theirs.spread(region, "c1/hot"));
                for last in 0..=255 {
                    let client = IpAddr::V4(Ipv4Addr::new(192, last, 2, 7));
                    let standing = |view: super::super::View<'_>| view.standing(region, Scheme::Http, client);
                    assert_eq!(format!("{:?}", standing(ours)), format!("{:?}", standing(theirs)));
                }
                let suns = region.suns.iter().map(|sun| &sun.server);
                for server in suns.chain(region.caches.iter().map(|cache| &cache.server)) {
                    let of = |view: super::super::View<'_>| {
                        (view.linkable(server), view.utilisation(server).to_bits(), view.busy(server).to_bits())
                    };
                    assert_eq!(of(ours), of(theirs), "{} at {now_ms}", server.name);
                }
            }
        }
    }
}
