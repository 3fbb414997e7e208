//! Who is alive, how loaded, and which files are hot, as suns and caches report it each second. Pure: the clock is
//! an argument, milliseconds on any scale that only rises.
//!
//! ```text
//!   report at t --> alive until t + 3 s --> silent: not linked, not in the region's state
//!                   healthy = false     --> in the region's state, not linked
//! ```
//!
//! What is hot in a region costs a walk over all that its suns report (100 files each), under the lock that links
//! wait for. So it is found out once a second and region ([`HOT_EVERY_MS`]), not with every report.
//!
//! Until three seconds after the start, and until the first report ever, silence says nothing: servers that did not
//! say that they are ill count as well.

mod following;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use geo::resolver::{Standing, place_among_clients};
use geo::rest::Rests;
use geo::topology::{Region, Server, Topology};
use geo::{CanonicalName, RegionId, Scheme};

use crate::balance::{Gauge, Sums};
use crate::hot::{HotFiles, Rate, Rule, Suns};
use crate::saturation::{Bounds, Carried, Saturated};
use crate::wire::{HotFile, HotNow, SILENT_S, ServerNow, ServerState, StatusReport};

/// The latest report of every server.
#[derive(Debug)]
pub struct Registry {
    started_ms: u64,
    servers: HashMap<String, Seen>,
    hot: HashMap<RegionId, HotRegion>,
    /// What the suns of a region carry together, as of the last report of one of them.
    sums: HashMap<RegionId, Sums>,
    saturated: Saturated,
    rule: Rule,
}

#[derive(Debug, Default)]
struct HotRegion {
    files: HotFiles,
    /// When they were found out; none: never yet.
    at_ms: Option<u64>,
}

#[derive(Debug)]
struct Seen {
    at_ms: u64,
    /// When it last said that it is well; the start, if it never did.
    well_ms: u64,
    report: StatusReport,
    gauge: Gauge,
}

impl Registry {
    /// Nobody has reported.
    #[must_use]
    pub fn new(rule: Rule, now_ms: u64) -> Self {
        let (servers, hot, sums) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { started_ms: now_ms, servers, hot, sums, saturated: Saturated::default(), rule }
    }

    /// The same with other bounds than the default.
    #[must_use]
    pub fn with_saturation(self, bounds: Bounds) -> Self {
        Self { saturated: Saturated::new(bounds), ..self }
    }

    /// Takes a report in; its server stands in the topology.
    pub fn report(&mut self, topology: &Topology, report: StatusReport, now_ms: u64) {
        let is_sun = topology.sun(&report.server).is_some();
        let region = topology.server(&report.server).and_then(|server| topology.region(server.region));
        let gauge = self.gauge(&report, now_ms);
        let well_before = self.servers.get(&report.server).map_or(self.started_ms, |seen| seen.well_ms);
        let well_ms = if report.healthy { now_ms } else { well_before };
        self.servers.insert(report.server.clone(), Seen { at_ms: now_ms, well_ms, report, gauge });
        let Some(region) = region else { return };
        if is_sun {
            self.update_hot(region, now_ms);
            self.update_sums(region, now_ms);
        }
        self.update_saturated(region, now_ms);
    }

    /// The share of a region's clients that are sent to their next one, 0..=1.
    #[must_use]
    pub fn diverted(&self, region: RegionId) -> f64 {
        self.saturated.diverted(region)
    }

    /// Forgets hot files, of one region or of all.
    pub fn forget(&mut self, region: Option<RegionId>, forgotten: impl Fn(&str) -> bool) {
        let meant = self.hot.iter_mut().filter(|(id, _)| region.is_none_or(|region| region == **id));
        meant.for_each(|(_, hot)| hot.files.forget(&forgotten));
    }

    /// Everything as it is at one moment.
    #[must_use]
    pub const fn at(&self, now_ms: u64) -> View<'_> {
        View { registry: self, now_ms }
    }

    /// A server that was silent begins anew: what it carried before says nothing.
    #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
    fn gauge(&self, report: &StatusReport, now_ms: u64) -> Gauge {
        let Some(seen) = self.servers.get(&report.server).filter(|seen| seen.live(now_ms)) else {
            return Gauge::new(&report.load);
        };
        let mut gauge = seen.gauge;
        gauge.take_in(&report.load, now_ms.saturating_sub(seen.at_ms) as f64 / 1000.0);
        gauge
    }

    fn update_sums(&mut self, region: &Region, now_ms: u64) {
        let mut sums = Sums::default();
        for sun in &region.suns {
            if let Some(seen) = self.at(now_ms).live(&sun.server.name) {
                sums.add(&sun.server, seen.gauge);
            }
        }
        self.sums.insert(region.id, sums);
    }

    fn update_saturated(&mut self, region: &Region, now_ms: u64) {
        let view = self.at(now_ms);
        let suns = view.carried(region.suns.iter().map(|sun| &sun.server));
        let caches = view.carried(region.caches.iter().map(|cache| &cache.server));
        let utilisation = suns.share().max(caches.share());
        self.saturated.update(region.id, utilisation, now_ms);
    }

    /// Sums what the region's live suns say of their hottest files, unless that was done a moment ago.
    fn update_hot(&mut self, region: &Region, now_ms: u64) {
        let last = self.hot.get(&region.id).and_then(|hot| hot.at_ms);
        if last.is_some_and(|last| now_ms.saturating_sub(last) < HOT_EVERY_MS) {
            return;
        }
        let mut hot = self.hot.remove(&region.id).unwrap_or_default();
        let view = View { registry: self, now_ms };
        let live = view.live_suns(region);
        let rates = rates(&live);
        let requests: f64 = live.iter().map(|report| report.load.requests_per_second.max(0.0)).sum();
        #[expect(clippy::cast_precision_loss, reason = "suns of a region are few")]
        let suns = Suns {
            count: sun_count(region),
            mean_requests: requests / live.len().max(1) as f64,
            nic_bits: region.suns.iter().map(|sun| sun.server.nic_gbps * 1e9).fold(f64::INFINITY, f64::min),
        };
        hot.files.update(&self.rule, suns, &rates, now_ms);
        hot.at_ms = Some(now_ms);
        self.hot.insert(region.id, hot);
    }
}

/// A registry at one moment; what links and answers go by.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    registry: &'a Registry,
    now_ms: u64,
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
    fn carried<'b>(&self, servers: impl Iterator<Item = &'b Server>) -> Carried {
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

    fn live_suns(&self, region: &Region) -> Vec<&'a StatusReport> {
        region.suns.iter().filter_map(|sun| Some(&self.live(&sun.server.name)?.report)).collect()
    }

    fn live(&self, name: &str) -> Option<&'a Seen> {
        self.registry.servers.get(name).filter(|seen| seen.live(self.now_ms))
    }

    fn nothing_known(&self) -> bool {
        self.registry.servers.is_empty() || self.now_ms.saturating_sub(self.registry.started_ms) < SILENT_MS
    }
}

impl Seen {
    const fn live(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.at_ms) < SILENT_MS
    }
}

/// What suns say of their hottest files, summed.
fn rates<'a>(live: &[&'a StatusReport]) -> BTreeMap<&'a str, Rate> {
    let mut rates: BTreeMap<&str, Rate> = BTreeMap::new();
    for hottest in live.iter().flat_map(|report| &report.hottest) {
        let rate = rates.entry(&hottest.file).or_default();
        rate.requests += hottest.requests_per_second.max(0.0);
        rate.bits += hottest.bits_per_second.max(0.0);
    }
    rates
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "three seconds")]
const SILENT_MS: u64 = (SILENT_S * 1000.0) as u64;

/// How long what is hot in a region holds, milliseconds. Shorter: more work under the lock that links wait for. Longer: a file
/// that is suddenly asked for is spread later. Each sun reports once a second, so little is new before.
const HOT_EVERY_MS: u64 = 1000;

/// Suns that keep files; draining ones do not.
fn sun_count(region: &Region) -> usize {
    region.suns.iter().filter(|sun| takes_content(&sun.server)).count()
}

const fn takes_content(server: &Server) -> bool {
    server.weight.get() > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::topology;
    use crate::wire::{HotRate, Load};

    #[test]
    fn a_server_is_gone_when_it_has_not_been_well_for_long() {
        let topology = topology();
        let mut registry = Registry::new(RULE, 0);
        let server = &topology.cache("cache4-1").unwrap().server;
        let check = |registry: &Registry, now_ms, gone| {
            assert_eq!(registry.at(now_ms).gone(server, 60_000), gone, "at {now_ms}");
        };
        check(&registry, 100_000, false); // Nobody has ever reported.
        registry.report(&topology, healthy("cache4-2"), 1000);
        check(&registry, 59_999, false);
        check(&registry, 60_000, true);
        registry.report(&topology, healthy("cache4-1"), 70_000);
        check(&registry, 129_999, false);
        check(&registry, 130_000, true);
        registry.report(&topology, StatusReport { healthy: false, ..healthy("cache4-1") }, 120_000);
        check(&registry, 130_000, true); // It reports, and is ill.
        registry.report(&topology, healthy("cache4-1"), 130_000);
        check(&registry, 130_000, false);
    }

    #[test]
    fn a_server_is_linked_while_it_reports_and_is_healthy() {
        let mut registry = Registry::new(RULE, 0);
        check(&registry, 10_000, "sun4-1-1 sun4-1-2 sun4-1-3"); // Nobody has ever reported.
        registry.report(&topology(), healthy("sun4-1-1"), 1000);
        check(&registry, 2999, "sun4-1-1 sun4-1-2 sun4-1-3"); // Others may just not have had the time.
        check(&registry, 3000, "sun4-1-1");
        check(&registry, 3999, "sun4-1-1");
        check(&registry, 4000, "");
        registry.report(&topology(), healthy("sun4-1-2"), 5000);
        registry.report(&topology(), StatusReport { healthy: false, ..healthy("sun4-1-1") }, 5000);
        check(&registry, 5001, "sun4-1-2");
        let names: Vec<String> =
            registry.at(5001).servers(region(&topology())).into_iter().map(|server| server.name).collect();
        assert_eq!(names, ["sun4-1-1", "sun4-1-2"]);
        assert_eq!(registry.at(9000).servers(region(&topology())), []);
    }

    #[test]
    fn who_says_that_it_is_ill_is_not_linked_from_the_start() {
        let mut registry = Registry::new(RULE, 0);
        registry.report(&topology(), StatusReport { healthy: false, ..healthy("sun4-1-1") }, 10);
        check(&registry, 20, "sun4-1-2 sun4-1-3");
    }

    #[test]
    fn a_file_is_hot_by_what_all_suns_of_its_region_say() {
        let mut registry = Registry::new(RULE, 0);
        let topology = topology();
        for (server, requests) in [("sun4-1-1", 40.0), ("sun4-1-2", 40.0), ("sun4-1-3", 40.0), ("sun5-1-1", 500.0)] {
            registry.report(&topology, busy(server, "c1/a", requests), 0);
        }
        registry.report(&topology, busy("sun4-1-1", "c1/a", 40.0), 1000);
        assert_eq!(registry.at(1000).spread(region(&topology), "c1/a"), 3);
        assert_eq!(registry.at(1000).spread(region(&topology), "c1/b"), 1);
        assert_eq!(
            registry.at(1000).hot(region(&topology)),
            [HotFile { file: "c1/a".to_owned(), spread: 3 }],
            "120 requests/s of a mean of 1,000 want 2.4 suns"
        );
        assert_eq!(registry.at(1000).hot(topology.region(RegionId(5)).unwrap()), [], "it has one sun");
        registry.forget(Some(RegionId(5)), |_| true);
        assert_eq!(registry.at(1000).spread(region(&topology), "c1/a"), 3);
        registry.forget(None, |file| file == "c1/a");
        assert_eq!(registry.at(1000).spread(region(&topology), "c1/a"), 1);
    }

    #[test]
    fn what_is_hot_is_found_out_once_a_second_and_region() {
        let mut registry = Registry::new(RULE, 0);
        let topology = topology();
        let mut spread = |server: &str, requests, now_ms| {
            registry.report(&topology, busy(server, "c1/a", requests), now_ms);
            registry.at(now_ms).spread(region(&topology), "c1/a")
        };
        assert_eq!(spread("sun4-1-1", 80.0, 5000), 2, "the first report counts at once");
        assert_eq!(spread("sun4-1-2", 80.0, 5001), 2);
        assert_eq!(spread("sun4-1-2", 80.0, 5999), 2);
        assert_eq!(spread("sun5-1-1", 80.0, 6000), 2, "another region");
        assert_eq!(spread("sun4-1-2", 80.0, 6000), 3);
    }

    #[test]
    fn the_hot_files_of_now_name_the_living_suns_that_share_them() {
        let mut registry = Registry::new(RULE, 0);
        let topology = topology();
        let hottest = |rates: &[(&str, f64)]| {
            let rate = |&(file, requests_per_second): &(&str, f64)| HotRate {
                file: file.to_owned(),
                requests_per_second,
                bits_per_second: requests_per_second * 8e3,
            };
            rates.iter().map(rate).collect::<Vec<_>>()
        };
        let asked = [("c1/a", 30.0), ("c1/b", 50.0), ("c1/cold", 10.0)];
        for server in ["sun4-1-1", "sun4-1-2", "sun4-1-3"] {
            registry.report(&topology, StatusReport { hottest: hottest(&asked), ..busy(server, "", 0.0) }, 5000);
        }
        // What is hot is found out anew when a second has passed.
        registry.report(&topology, StatusReport { hottest: hottest(&asked), ..busy("sun4-1-3", "", 0.0) }, 6000);
        let shown = |now_ms, limit| {
            let files = registry.at(now_ms).hot_now(region(&topology), limit);
            let line = |hot: &HotNow| format!("{} {} r {}", hot.file, hot.requests_per_second, hot.spread);
            (files.iter().map(line).collect::<Vec<_>>().join(", "), files)
        };
        let (line, files) = shown(6000, 100);
        assert_eq!(line, "c1/b 150 r 3, c1/a 90 r 2");
        let name = CanonicalName::parse("c1/a").unwrap();
        let order = region(&topology).sun_order(name.content_id());
        assert_eq!(files[1].suns, [&*order[0].server.name, &*order[1].server.name]);
        assert_eq!(files[1].bits_per_second, 90.0 * 8e3);
        assert_eq!(shown(6000, 1).0, "c1/b 150 r 3");
        // All have fallen silent: the files are hot until they were low for ten minutes, and nobody is named.
        let (line, files) = shown(10_000, 100);
        assert_eq!(line, "c1/a 0 r 2, c1/b 0 r 3");
        assert_eq!(files[0].suns, [""; 0]);
    }

    #[test]
    fn load_is_told_as_a_share_of_the_network_card() {
        let mut registry = Registry::new(RULE, 0);
        let topology = topology();
        registry.report(&topology, busy("sun4-1-1", "c1/a", 1.0), 0);
        let server = &topology.sun("sun4-1-1").unwrap().server;
        assert_eq!(registry.at(0).utilisation(server), 0.1);
        assert_eq!(registry.at(3000).utilisation(server), 0.0);
    }

    #[test]
    fn a_region_stands_as_its_servers_do() {
        let topology = topology();
        let mut registry = Registry::new(RULE, 0).with_saturation(Bounds { above: 0.8, below: 0.6, per_s: 1.0 });
        let client = [192, 0, 2, 1].into();
        let check = |registry: &Registry, now_ms, scheme, expected: &str| {
            let standing = |id| {
                format!("{:?}", registry.at(now_ms).standing(topology.region(RegionId(id)).unwrap(), scheme, client))
            };
            assert_eq!([4, 5, 6].map(standing).join(" "), expected, "at {now_ms}");
        };
        let report = |registry: &mut Registry, server: &str, bits_per_second, now_ms| {
            let load = Load { bits_per_second, ..Load::default() };
            registry.report(&topology, StatusReport { load, ..healthy(server) }, now_ms);
        };
        // Nothing is known; the servers of region 6 have no port for plain links.
        check(&registry, 0, Scheme::Https, "Live Live Live");
        check(&registry, 0, Scheme::Http, "Live Live Down");
        report(&mut registry, "sun4-1-1", 9.5e9, 5000);
        check(&registry, 5000, Scheme::Https, "Live Down Down"); // It takes time.
        report(&mut registry, "sun4-1-1", 9.5e9, 6000);
        check(&registry, 6000, Scheme::Https, "Saturated Down Down");
        report(&mut registry, "sun4-1-2", 5e9, 6500);
        report(&mut registry, "sun4-1-2", 5e9, 7500);
        check(&registry, 7500, Scheme::Https, "Saturated Down Down"); // 72.5 % is between the bounds.
        report(&mut registry, "sun4-1-3", 2e9, 7500);
        report(&mut registry, "sun4-1-1", 2e9, 8500);
        report(&mut registry, "sun4-1-3", 2e9, 8500);
        check(&registry, 8500, Scheme::Https, "Live Down Down");
        // Caches are idle together, then one of them is full and the other one gone.
        report(&mut registry, "cache4-1", 9.5e9, 8500);
        report(&mut registry, "cache4-1", 9.5e9, 9500);
        check(&registry, 9500, Scheme::Https, "Saturated Down Down");
        report(&mut registry, "cache4-2", 0.0, 9500);
        report(&mut registry, "cache4-2", 0.0, 10_500);
        check(&registry, 10_500, Scheme::Https, "Live Down Down");
        // A draining cache keeps no region alive, and one that is ill neither.
        report(&mut registry, "cache6-1", 0.0, 10_500);
        registry.report(&topology, StatusReport { healthy: false, ..healthy("sun5-1-1") }, 10_500);
        check(&registry, 10_500, Scheme::Https, "Live Down Down");
        report(&mut registry, "cache5-1", 0.0, 10_500);
        check(&registry, 10_500, Scheme::Https, "Live Live Down");
        check(&registry, 14_500, Scheme::Https, "Down Down Down");
    }

    #[test]
    fn a_sun_that_carries_more_than_its_share_is_busy() {
        let mut registry = Registry::new(RULE, 0);
        let topology = topology();
        let busy = |registry: &Registry, now_ms, name| registry.at(now_ms).busy(&topology.sun(name).unwrap().server);
        assert_eq!(busy(&registry, 0, "sun4-1-1"), 1.0, "nothing is known");
        // Weights 100, 100 and 50.
        for (server, requests) in [("sun4-1-1", 300.0), ("sun4-1-2", 150.0), ("sun4-1-3", 50.0)] {
            let load = Load { requests_per_second: requests, ..Load::default() };
            registry.report(&topology, StatusReport { load, ..healthy(server) }, 1000);
        }
        assert_eq!(busy(&registry, 1000, "sun4-1-1"), 1.5);
        assert_eq!(busy(&registry, 1000, "sun4-1-3"), 0.5);
        assert_eq!(registry.at(1000).servers(region(&topology))[1].busy, 0.75, "the answer says it too");
        assert_eq!(busy(&registry, 4000, "sun4-1-1"), 1.0, "silent");
        registry.report(&topology, healthy("sun4-1-1"), 9000);
        assert_eq!(busy(&registry, 9000, "sun4-1-1"), 1.0, "it begins anew");
    }

    fn healthy(server: &str) -> StatusReport {
        StatusReport { server: server.to_owned(), healthy: true, ..StatusReport::default() }
    }

    fn busy(server: &str, file: &str, requests_per_second: f64) -> StatusReport {
        StatusReport {
            load: Load { requests_per_second: 1000.0, bits_per_second: 1e9, ..Load::default() },
            hottest: vec![HotRate { file: file.to_owned(), requests_per_second, bits_per_second: 0.0 }],
            ..healthy(server)
        }
    }

    fn region(topology: &Topology) -> &Region {
        topology.region(RegionId(4)).unwrap()
    }

    #[track_caller]
    fn check(registry: &Registry, now_ms: u64, expected: &str) {
        let topology = topology();
        let linkable: Vec<&str> = region(&topology)
            .suns
            .iter()
            .filter(|sun| registry.at(now_ms).linkable(&sun.server))
            .map(|sun| sun.server.name.as_str())
            .collect();
        assert_eq!(linkable.join(" "), expected, "at {now_ms}");
    }

    const RULE: Rule = Rule {
        request_share: 0.05,
        nic_share: 0.5,
        requests_min: 20.0,
        lower_after_ms: 600_000,
        files_max: 10,
        copies_max: 20,
    };
}
