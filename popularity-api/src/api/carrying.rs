//! What caches hold, what they are to carry, and who fetches what.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use axum::http::StatusCode;
use daemon::metrics::level;
use daemon::problem::Refusal;
use geo::topology::Region;
use geo::{CanonicalName, RegionId, Topology};

use super::{Api, find, read, unasked};
use crate::claims::Claims;
use crate::copies::smallest_nic_bits;
use crate::engine::files::RatedFile;
use crate::holdings::{Checked, Held};
use crate::names::{self, BadName};
use crate::ratings::{AskError, Carry, HeldNote};
use crate::turnover::Turnover;
use crate::wanted::{self, Asker};
use crate::wire::{FetchAnswer, FetchNote, FetchState, HoldingsAck, HoldingsReport, Wanted, WantedRequest};

/// What is known of the caches' carrying.
#[derive(Debug)]
pub(super) struct Carrying {
    claims: Claims,
    /// By the cache's name.
    turnovers: HashMap<String, Turnover>,
}

impl Carrying {
    pub(super) fn new(claim_s: u64) -> Self {
        Self { claims: Claims::new(claim_s.saturating_mul(1000)), turnovers: HashMap::new() }
    }
}

impl Api {
    /// `POST /v1/regions/{region}/caches/{cache}/wanted`.
    ///
    /// # Errors
    ///
    /// 404 for a region or cache that the topology does not have, 503 when the ratings cannot be asked.
    pub async fn wanted(
        self: Arc<Self>,
        region: RegionId,
        cache: String,
        request: WantedRequest,
    ) -> Result<Wanted, Refusal> {
        self.believed()?;
        let topology = self.topology();
        find_cache(&topology, region, &cache)?;
        let ask = self.carry(&topology, region, &cache, &request);
        let carried = self.ratings.carried(ask).await.map_err(unasked)?;
        let answer = move || {
            let region = find_cache(&topology, region, &cache)?;
            // Only now: who reports and who makes links does not wait for the ranking.
            let (holdings, registry) = (read(&self.holdings), read(&self.registry));
            let knowledge = wanted::Knowledge {
                topology: &topology,
                holdings: &holdings,
                view: registry.at(self.now_ms()),
                purges: &self.purges,
            };
            Ok(wanted::wanted(knowledge, carried, region, &cache))
        };
        blocking(answer).await?
    }

    /// What the ratings are asked for a cache of the topology.
    fn carry(
        self: &Arc<Self>,
        topology: &Arc<Topology>,
        region: RegionId,
        cache: &str,
        request: &WantedRequest,
    ) -> Carry {
        let (api, asker) = (Arc::clone(self), cache.to_owned());
        let held = move || {
            let holdings = read(&api.holdings);
            holdings.of(&asker).map(|held| held.names().map(str::to_owned).collect()).unwrap_or_default()
        };
        // A draining cache comes first for no file: all of them would be looked at to find that out.
        let draining = topology.region(region).is_some_and(|region| wanted::draining(region, cache));
        let limit = if draining { 0 } else { request.limit.min(wanted::CANDIDATES_MAX) };
        let asker = topology.region(region).map(|region| self.asker(region, cache, request.bytes_max));
        let (api, topology, rules) = (Arc::clone(self), Arc::clone(topology), self.config.rules());
        let least = rules.zip(asker.as_ref()).map(|(rules, asker)| rules.worth.downloads_min(asker.residence_s));
        let accept = move |file: &RatedFile<'_>, rating| {
            let known = rules.zip(topology.region(region)).zip(asker.as_ref());
            known.is_some_and(|((rules, region), asker)| {
                let holds = |prefix| read(&api.holdings).holds(&asker.cache, prefix);
                // Ratings outlive topologies: a name that was a site's may be nobody's now.
                rules.acceptable(file, rating, (region, asker), &api.purges, holds)
                    && names::reported(&topology, file.name).is_ok()
            })
        };
        let exponent = self.config.ratings.size_exponent;
        Carry {
            region,
            cache: cache.to_owned(),
            exponent,
            limit,
            downloads_min: least.unwrap_or_default(),
            accept: Arc::new(accept),
            held: Arc::new(held),
        }
    }

    /// The cache that asks, as it is now.
    fn asker(&self, region: &Region, cache: &str, bytes_max: u64) -> Asker {
        let now_ms = self.now_ms();
        let held = read(&self.holdings).of(cache).map_or(0, Held::len);
        let turnover = self.carrying().turnovers.get(cache).copied().unwrap_or_default();
        let settings = &self.config.wanted;
        let servers = || region.caches.iter().map(|cache| &cache.server);
        let registry = read(&self.registry);
        let gone_ms = settings.stand_in_after_s.saturating_mul(1000);
        let gone = servers().filter(|server| registry.at(now_ms).gone(server, gone_ms));
        Asker {
            cache: cache.to_owned(),
            bytes_max,
            residence_s: turnover.residence_s(held, now_ms, seconds(settings.residence_max_s)),
            gone: gone.map(|server| server.name.clone()).collect(),
            nic_bits: smallest_nic_bits(servers()),
        }
    }

    /// `POST /v1/regions/{region}/caches/{cache}/fetches`.
    ///
    /// # Errors
    ///
    /// 404 for a region or cache that the topology does not have, 400 for what is no name, 422 for one that is not canonical or
    /// of a content server that the topology does not have.
    pub fn note_fetch(&self, region: RegionId, cache: &str, note: &FetchNote) -> Result<FetchAnswer, Refusal> {
        let topology = self.topology();
        find_cache(&topology, region, cache)?;
        let name = names::reported(&topology, &note.file).map_err(|why| {
            self.metrics.refused.with_label_values(&["fetches", why.reason()]).inc();
            // What no server could write, or what only this topology does not have.
            let written = CanonicalName::from_written(&note.file).is_ok();
            let status = if written { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::BAD_REQUEST };
            Refusal::new(status, format!("file: {:?} is not taken: {why}", note.file))
        })?;
        let prefix = name.content_id().prefix();
        let (now_ms, registry) = (self.now_ms(), read(&self.registry));
        let gone_ms = self.config.wanted.stand_in_after_s.saturating_mul(1000);
        let lives = |claimer: &str| {
            let server = topology.cache(claimer).map(|cache| &cache.server);
            server.is_some_and(|server| !registry.at(now_ms).gone(server, gone_ms))
        };
        let mut carrying = self.carrying();
        let fetching = match note.state {
            FetchState::Begins => carrying.claims.claim(cache, prefix, note.size, now_ms, lives).err(),
            FetchState::Failed => {
                carrying.claims.ended(cache, prefix);
                None
            }
        };
        Ok(FetchAnswer { fetching })
    }

    /// Leaves out the names that are none: a list of a million files counts all the same. What is no longer held may have
    /// been told of under any name.
    fn leave_out(&self, cache: &str, report: &mut HoldingsReport) {
        let topology = self.topology();
        let keep = |file: &str, trouble: Result<CanonicalName, BadName>| {
            let Err(why) = trouble else { return true };
            self.metrics.refused.with_label_values(&["holdings", why.reason()]).inc();
            tracing::debug!(cache, file, %why, "a file that a cache tells of is left out");
            false
        };
        report.added.retain(|held| keep(&held.file, names::spelled(&topology, &held.file)));
        report.removed.retain(|file| keep(file, CanonicalName::from_written(file).map_err(BadName::from)));
    }

    fn carrying(&self) -> MutexGuard<'_, Carrying> {
        // What a panic leaves behind is still two maps.
        self.carrying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `POST /v1/regions/{region}/caches/{cache}/holdings`.
    ///
    /// # Errors
    ///
    /// 404 for a region or cache that the topology does not have, 400 for too many files. Names that are not canonical are
    /// left out.
    pub async fn holdings(
        self: Arc<Self>,
        region: RegionId,
        cache: String,
        report: HoldingsReport,
    ) -> Result<HoldingsAck, Refusal> {
        find_cache(&self.topology(), region, &cache)?;
        let told = report.generation;
        let (api, name) = (Arc::clone(&self), cache.clone());
        let (generation, note) = blocking(move || api.take_in(region, name, report)).await??;
        if generation == told {
            self.ratings.note_held(note).await;
        }
        Ok(HoldingsAck { generation })
    }

    /// Takes a report in: the generation that is known now, and what the ratings are told of it.
    fn take_in(&self, region: RegionId, cache: String, report: HoldingsReport) -> Result<(u64, HeldNote), Refusal> {
        let mut report = report;
        self.leave_out(&cache, &mut report);
        let checked = Checked::new(&report).map_err(|error| Refusal::bad(error.to_string()))?;
        let fetched: Vec<u64> = checked.added().collect();
        let mut holdings = self.holdings.write().unwrap_or_else(PoisonError::into_inner);
        // A report that comes again drops nothing again.
        let dropped = report.since.filter(|_| holdings.takes(&cache, &checked)).map_or(0, |_| report.removed.len());
        let generation = holdings.report(&cache, checked);
        let files = holdings.of(&cache).map_or(0, Held::len);
        drop(holdings);
        self.metrics.held.with_label_values(&[&cache]).set(level(files));
        let mut carrying = self.carrying();
        fetched.into_iter().for_each(|file| carrying.claims.ended(&cache, file));
        if report.since.is_none() {
            // A cache begins with a list of all it holds; when it lives and sends one, a file is fetched twice at worst.
            carrying.claims.restarted(&cache);
        }
        if dropped > 0 {
            let turnover = carrying.turnovers.entry(cache.clone()).or_default();
            turnover.dropped(dropped, self.now_ms());
        }
        drop(carrying);
        let added = report.added.into_iter().map(|held| held.file).collect();
        Ok((generation, HeldNote { region, cache, complete: report.since.is_none(), added, removed: report.removed }))
    }
}

#[expect(clippy::cast_precision_loss, reason = "years")]
const fn seconds(seconds: u64) -> f64 {
    seconds as f64
}

/// Runs what may take milliseconds off the runtime's own threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|_| unasked(AskError::Failed))
}

fn find_cache<'a>(topology: &'a Topology, region: RegionId, cache: &str) -> Result<&'a Region, Refusal> {
    let region = find(topology, region)?;
    if region.caches.iter().any(|known| known.server.name == cache) {
        return Ok(region);
    }
    Err(Refusal::missing(format!("region {} has no cache {cache:?}", region.id)))
}
