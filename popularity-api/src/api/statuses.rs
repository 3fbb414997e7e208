//! How servers are, and what is hot.

use std::sync::PoisonError;

use daemon::problem::Refusal;
use geo::RegionId;

use super::{Api, find, find_server, read};
use crate::names;
use crate::wire::{HOTTEST_MAX, Hot, RegionState, Servers, StatusReport};

impl Api {
    /// `POST /v1/status`.
    ///
    /// # Errors
    ///
    /// 400 for a report with too many files or a number that is none, 404 for a server that the topology does
    /// not have. Files whose names are not canonical are left out: a server is alive whatever it is asked for.
    pub fn status(&self, mut report: StatusReport) -> Result<RegionState, Refusal> {
        check_status(&report)?;
        let topology = self.topology();
        let server = find_server(&topology, "server", &report.server)?;
        let region = find(&topology, server.region)?;
        report.hottest.retain(|hot| {
            let Err(why) = names::reported(&topology, &hot.file) else { return true };
            self.metrics.refused.with_label_values(&["status", why.reason()]).inc();
            tracing::debug!(server = server.name, file = hot.file, %why, "a hot file is left out");
            false
        });
        let known: std::collections::HashMap<String, u64> =
            report.holdings_known.iter().map(|known| (known.cache.clone(), known.generation)).collect();
        let (now_ms, server_name) = (self.now_ms(), server.name.as_str());
        self.registry.write().unwrap_or_else(PoisonError::into_inner).report(&topology, report, now_ms);
        let (holdings, registry) = (read(&self.holdings), read(&self.registry));
        self.metrics.diverted.with_label_values(&[region.id.to_string()]).set(registry.diverted(region.id));
        let view = registry.at(now_ms);
        self.rests.send_if_modified(|rests| {
            let now = view.resting(rests, server_name);
            std::mem::replace(rests, now) != *rests
        });
        let caches = region.caches.iter().map(|cache| cache.server.name.as_str());
        Ok(RegionState {
            servers: view.servers(region),
            hot: view.hot(region),
            holdings: holdings.deltas(caches, |cache| known.get(cache).copied()),
            topology_version: topology.version,
        })
    }

    /// `GET /v1/regions/{region}/servers`.
    ///
    /// # Errors
    ///
    /// 404 for a region that the topology does not have.
    pub fn servers(&self, region: RegionId) -> Result<Servers, Refusal> {
        let topology = self.topology();
        let region = find(&topology, region)?;
        Ok(Servers { region: region.id, servers: read(&self.registry).at(self.now_ms()).servers_now(region) })
    }

    /// `GET /v1/regions/{region}/hot`.
    ///
    /// # Errors
    ///
    /// 404 for a region that the topology does not have.
    pub fn hot(&self, region: RegionId, limit: usize) -> Result<Hot, Refusal> {
        let topology = self.topology();
        let region = find(&topology, region)?;
        let files = read(&self.registry).at(self.now_ms()).hot_now(region, limit);
        Ok(Hot { region: region.id, files })
    }
}

fn check_status(report: &StatusReport) -> Result<(), Refusal> {
    if report.hottest.len() > HOTTEST_MAX {
        return Err(Refusal::bad(format!("hottest: {} files: at most {HOTTEST_MAX}", report.hottest.len())));
    }
    if report.tiers.len() > TIERS_MAX || report.holdings_known.len() > CACHES_MAX {
        return Err(Refusal::bad(format!("tiers, holdings_known: at most {TIERS_MAX} and {CACHES_MAX} entries")));
    }
    if report.rest.is_some_and(|share| !(share > 0.0 && share <= 1.0)) {
        return Err(Refusal::bad("rest: a share is above 0 and at most 1".to_owned()));
    }
    let load = &report.load;
    let rates = report.hottest.iter().flat_map(|hot| [hot.requests_per_second, hot.bits_per_second]);
    let mut numbers = rates.chain([load.bits_per_second, load.requests_per_second, load.cpu_pressure]);
    if numbers.any(|number| !number.is_finite() || number < 0.0) {
        return Err(Refusal::bad("load, hottest: a rate is a finite number that is not negative".to_owned()));
    }
    Ok(())
}

/// Tiers of one server.
const TIERS_MAX: usize = 16;
/// Caches of one region.
const CACHES_MAX: usize = 1024;
