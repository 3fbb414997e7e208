//! Purges.

use std::sync::PoisonError;
use std::time::Duration;

use axum::http::StatusCode;
use daemon::clock::unix_ms;
use daemon::metrics::level;
use daemon::problem::Refusal;
use geo::CanonicalName;

use super::{Api, find};
use crate::purge::log::PostError;
use crate::purge::{Target, target};
use crate::wire::{PurgeAck, PurgeAcknowledgements, PurgeLog, PurgeMode, PurgeRequest};

impl Api {
    /// `POST /v1/purge`: durable when this returns. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// 400 for what is no name, 422 for one that no client can ask for by this topology, 404 for a region that the topology does not
    /// have, 409 for the id of another purge, 503 when it cannot be made durable.
    pub fn purge(&self, request: PurgeRequest) -> Result<PurgeAck, Refusal> {
        target::check_id(&request.id).map_err(|error| Refusal::bad(error.to_string()))?;
        let target = Target::parse(request.what, &request.value).map_err(|error| Refusal::bad(error.to_string()))?;
        let topology = self.topology();
        let nobodys = |error: target::BadPurge| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string());
        target.check_sites(&topology).map_err(nobodys)?;
        // It may have had it, or have it again, and servers keep what they held of it.
        let strange = target.content_server().filter(|&number| !topology.content_servers.allows(number));
        let note = strange.map(|number| format!("the topology has no content server {number}: is the name right?"));
        if let Some(region) = request.region {
            find(&topology, region)?;
        }
        let request = PurgeRequest { value: target.value().to_owned(), ..request };
        let (purge, new) = self.purges.post(request, unix_ms()).map_err(|error| match error {
            PostError::Id(_) => Refusal::new(StatusCode::CONFLICT, error.to_string()),
            PostError::Disk(_) => {
                tracing::warn!(%error, "a purge is refused");
                Refusal::unavailable(error.to_string())
            }
        })?;
        if new {
            tracing::info!(sequence = purge.sequence, what = ?purge.what, value = purge.value, mode = ?purge.mode,
                region = ?purge.region.map(|region| region.0), "purged");
            self.metrics.purges.inc();
            self.metrics.purge_sequence.set(level(purge.sequence));
        }
        if new && purge.mode == PurgeMode::Hard {
            let named = |file: &str| {
                CanonicalName::from_written(file).is_ok_and(|name| target.names(name.as_str(), name.content_id()))
            };
            self.registry.write().unwrap_or_else(PoisonError::into_inner).forget(purge.region, named);
        }
        Ok(PurgeAck { sequence: purge.sequence, note })
    }

    /// `GET /v1/purge`: entries after the one that `follower` (a server's name, if it is one) goes by.
    ///
    /// # Errors
    ///
    /// 409 for a position that the log has not reached.
    pub async fn purges(&self, follower: Option<&str>, after: u64, wait: Duration) -> Result<PurgeLog, Refusal> {
        let ahead = |error: crate::purge::log::Ahead| Refusal::new(StatusCode::CONFLICT, error.to_string());
        let answer = self.purges.after(after).map_err(ahead)?;
        if let Some(follower) = follower.filter(|name| self.topology().server(name).is_some()) {
            self.purges.acknowledge(follower, after, self.now_ms());
        }
        if answer.floor.is_some() || !answer.purges.is_empty() || wait.is_zero() {
            return Ok(answer);
        }
        let wait = wait.min(Duration::from_secs(self.config.limits.request_s) / 2).min(PURGE_WAIT_MAX);
        // Whether it is in time or not, what there is now is the answer.
        self.wait_for(self.purges.behind(after), wait).await;
        self.purges.after(after).map_err(ahead)
    }

    /// `GET /v1/purge/{sequence}/acknowledgements`.
    ///
    /// # Errors
    ///
    /// 404 for a sequence that the log does not have, or no longer.
    pub fn acknowledgements(&self, sequence: u64) -> Result<PurgeAcknowledgements, Refusal> {
        let missing = || Refusal::missing(format!("the log has no purge {sequence}"));
        self.purges.acknowledgements(sequence, &self.topology(), self.now_ms()).ok_or_else(missing)
    }
}

/// Longest wait for an entry of the purge log; followers that ask again after so long are not silent.
const PURGE_WAIT_MAX: Duration = Duration::from_secs(5);
