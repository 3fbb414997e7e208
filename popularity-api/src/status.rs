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
mod view;

use std::collections::{BTreeMap, HashMap};

use geo::RegionId;
use geo::topology::{Region, Server, Topology};

use crate::balance::{Gauge, Sums};
use crate::hot::{HotFiles, Rate, Rule, Suns};
use crate::saturation::{Bounds, Saturated};
use crate::wire::{SILENT_S, StatusReport};
pub use view::View;

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
        let view = self.at(now_ms);
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
mod tests;
