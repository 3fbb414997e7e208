//! The registry at one moment: whom links may name, how loaded servers are, what is hot.

use std::net::IpAddr;

use geo::resolver::{Standing, place_among_clients};
use geo::rest::Rests;
use geo::topology::{Region, Server};
use geo::{CanonicalName, Scheme};

use super::{Registry, SILENT_MS, Seen, rates, sun_count, takes_content};
use crate::saturation::Carried;
use crate::wire::{HotFile, HotNow, ServerNow, ServerState, StatusReport};

/// A registry at one moment; what links and answers go by.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub(super) registry: &'a Registry,
    pub(super) now_ms: u64,
}

impl<'a> View<'a> {
    /// Whether links may name the server: it is alive and healthy, or nothing is known yet.
    #[must_use]
    pub fn linkable(&self, server: &Server) -> bool {
        match self.live(&server.name) {
            Some(seen) => seen.report.healthy,
            None => self.nothing_known(),
        }
    }

    /// Whether the server has not been well for so long: dead, cut off, or ill. As of the start everybody was.
    #[must_use]
    pub fn gone(&self, server: &Server, after_ms: u64) -> bool {
        let seen = self.registry.servers.get(&server.name);
        let well_ms = seen.map_or(self.registry.started_ms, |seen| seen.well_ms);
        !self.registry.servers.is_empty() && self.now_ms.saturating_sub(well_ms) >= after_ms
    }

    /// How a region stands for a client's links of a scheme: down when links may name nobody there, saturated when it is
    /// full and the client one of those that go elsewhere. Servers that are draining are named by none, so they neither
    /// keep a region alive nor count for what it can carry.
    #[must_use]
    pub fn standing(&self, region: &Region, scheme: Scheme, client: IpAddr) -> Standing {
        let suns = region.suns.iter().map(|sun| &sun.server);
        let mut servers = suns.chain(region.caches.iter().map(|cache| &cache.server));
        let serves = |server: &Server| takes_content(server) && server.port(scheme).is_some() && self.linkable(server);
        match servers.any(serves) {
            false => Standing::Down,
            true if self.registry.saturated.diverts(region.id, place_among_clients(client, region.id)) => {
                Standing::Saturated
            }
            true => Standing::Live,
        }
    }

    /// What the living ones of some servers carry.
    pub(super) fn carried<'b>(&self, servers: impl Iterator<Item = &'b Server>) -> Carried {
        let mut carried = Carried::default();
        for server in servers.filter(|server| takes_content(server) && self.linkable(server)) {
            if let Some(seen) = self.live(&server.name) {
                carried.add(seen.gauge.bits, server.nic_gbps);
            }
        }
        carried
    }

    /// How loaded the server is, as a share of its network card; 0 when it has not reported.
    #[must_use]
    pub fn utilisation(&self, server: &Server) -> f64 {
        let bits = self.live(&server.name).map_or(0.0, |seen| seen.report.load.bits_per_second);
        if server.nic_gbps > 0.0 { bits / (server.nic_gbps * 1e9) } else { 0.0 }
    }

    /// How busy the server is beside the suns of its region: 1.0 as their mean, and while nothing is known.
    #[must_use]
    pub fn busy(&self, server: &Server) -> f64 {
        let sums = self.registry.sums.get(&server.region);
        sums.zip(self.live(&server.name)).map_or(1.0, |(sums, seen)| sums.busy(server, seen.gauge))
    }

    /// How many suns of the region keep the file, 1 unless it is hot.
    #[must_use]
    pub fn spread(&self, region: &Region, file: &str) -> usize {
        self.registry.hot.get(&region.id).map_or(1, |hot| hot.files.spread(file, sun_count(region)))
    }

    /// Of those known to rest, the ones that still report so, and this server.
    #[must_use]
    pub fn resting(&self, known: &Rests, server: &str) -> Rests {
        let names = known.keys().map(String::as_str).chain([server]);
        let rest = |name: &str| Some((name.to_owned(), self.live(name)?.report.rest.filter(|&share| share < 1.0)?));
        names.filter_map(rest).collect()
    }

    /// All that rest.
    #[must_use]
    pub fn all_resting(&self) -> Rests {
        let rest =
            |(name, seen): (&String, &Seen)| Some((name.clone(), seen.report.rest.filter(|&share| share < 1.0)?));
        let live = self.registry.servers.iter().filter(|(_, seen)| seen.live(self.now_ms));
        live.filter_map(rest).collect()
    }

    /// The region's live servers, by name.
    #[must_use]
    pub fn servers(&self, region: &Region) -> Vec<ServerState> {
        let suns = region.suns.iter().map(|sun| &sun.server);
        let caches = region.caches.iter().map(|cache| &cache.server);
        let mut live: Vec<ServerState> = suns
            .chain(caches)
            .filter_map(|server| {
                let report = &self.live(&server.name)?.report;
                let (healthy, load, busy) = (report.healthy, report.load, self.busy(server));
                Some(ServerState { name: server.name.clone(), healthy, load, busy, rest: report.rest })
            })
            .collect();
        live.sort_by(|a, b| a.name.cmp(&b.name));
        live
    }

    /// The same with what else they report.
    #[must_use]
    pub fn servers_now(&self, region: &Region) -> Vec<ServerNow> {
        let now = |state: ServerState| {
            let report = &self.live(&state.name)?.report;
            Some(ServerNow { state, tiers: report.tiers.clone(), topology_version: report.topology_version })
        };
        self.servers(region).into_iter().filter_map(now).collect()
    }

    /// The region's hot files, by name.
    #[must_use]
    pub fn hot(&self, region: &Region) -> Vec<HotFile> {
        let files = self.registry.hot.get(&region.id);
        let files = files.into_iter().flat_map(|hot| hot.files.iter(sun_count(region)));
        files.map(|(file, spread)| HotFile { file: file.to_owned(), spread }).collect()
    }

    /// The region's hot files with what they are asked for, the most asked-for first, at most `limit`.
    #[must_use]
    pub fn hot_now(&self, region: &Region, limit: usize) -> Vec<HotNow> {
        let live = self.live_suns(region);
        let rates = rates(&live);
        let mut files: Vec<HotNow> = self
            .hot(region)
            .into_iter()
            .map(|HotFile { file, spread }| {
                let rate = rates.get(file.as_str()).copied().unwrap_or_default();
                HotNow {
                    file,
                    requests_per_second: rate.requests,
                    bits_per_second: rate.bits,
                    spread,
                    suns: Vec::new(),
                }
            })
            .collect();
        files.sort_by(|a, b| {
            let by_requests = b.requests_per_second.total_cmp(&a.requests_per_second);
            by_requests.then(b.bits_per_second.total_cmp(&a.bits_per_second)).then_with(|| a.file.cmp(&b.file))
        });
        files.truncate(limit);
        // Only now: an order costs a microsecond a sun.
        for hot in &mut files {
            hot.suns = self.sharing(region, &hot.file, hot.spread);
        }
        files
    }

    /// The first `spread` suns of the file's order that links may name.
    fn sharing(&self, region: &Region, file: &str, spread: usize) -> Vec<String> {
        let Ok(name) = CanonicalName::from_written(file) else { return Vec::new() };
        let order = region.sun_order(name.content_id()).into_iter().map(|sun| &sun.server);
        order.filter(|server| self.linkable(server)).take(spread).map(|server| server.name.clone()).collect()
    }

    pub(super) fn live_suns(&self, region: &Region) -> Vec<&'a StatusReport> {
        region.suns.iter().filter_map(|sun| Some(&self.live(&sun.server.name)?.report)).collect()
    }

    pub(super) fn live(&self, name: &str) -> Option<&'a Seen> {
        self.registry.servers.get(name).filter(|seen| seen.live(self.now_ms))
    }

    fn nothing_known(&self) -> bool {
        self.registry.servers.is_empty() || self.now_ms.saturating_sub(self.registry.started_ms) < SILENT_MS
    }
}
