//! The API's client: one call a method, for suns, caches and operators.

use std::path::PathBuf;

use geo::RegionId;

use crate::wire;

/// Where the API is and who asks. Cheap to clone; connections are pooled, proxies of the environment
/// are ignored, redirects are not followed, every call has a deadline.
#[derive(Clone, Debug)]
pub struct Client {}

/// Settings of a client.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientConfig {
    /// `http://10.0.0.5:8090`. No default.
    pub url: String,
    /// File with the bearer token. No default.
    pub token_file: PathBuf,
    /// Deadline of one call, milliseconds. Default 2000; too small: calls fail under load, too large: a
    /// hung API is noticed late.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
}

const fn default_timeout_ms() -> u64 {
    2000
}

impl Client {
    /// Reads the token.
    ///
    /// # Errors
    ///
    /// When the token file cannot be read or the address is no `http://` URL.
    pub fn new(config: &ClientConfig) -> Result<Self, ClientError> {
        let _ = config;
        todo!()
    }

    /// `POST /v1/downloads`. # Errors: as every call.
    pub async fn report_downloads(&self, batch: &wire::DownloadsBatch) -> Result<wire::DownloadsAck, ClientError> {
        let _ = batch;
        todo!()
    }

    /// `GET /v1/regions/{region}/top`.
    pub async fn top(&self, region: RegionId, limit: usize) -> Result<wire::Top, ClientError> {
        let _ = (region, limit);
        todo!()
    }

    /// `POST /v1/regions/{region}/caches/{cache}/wanted`.
    pub async fn wanted(
        &self,
        region: RegionId,
        cache: &str,
        request: &wire::WantedRequest,
    ) -> Result<wire::Wanted, ClientError> {
        let _ = (region, cache, request);
        todo!()
    }

    /// `POST /v1/regions/{region}/caches/{cache}/holdings`.
    pub async fn report_holdings(
        &self,
        region: RegionId,
        cache: &str,
        report: &wire::HoldingsReport,
    ) -> Result<wire::HoldingsAck, ClientError> {
        let _ = (region, cache, report);
        todo!()
    }

    /// `POST /v1/links`.
    pub async fn links(&self, request: &wire::LinksRequest) -> Result<wire::Links, ClientError> {
        let _ = request;
        todo!()
    }

    /// `POST /v1/status`.
    pub async fn report_status(&self, report: &wire::StatusReport) -> Result<wire::RegionState, ClientError> {
        let _ = report;
        todo!()
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Token file or address.
    #[error("{0}")]
    Config(String),
    /// No answer in time, or none that can be read; worth another try.
    #[error("popularity API at {url}: {why}")]
    Unreachable {
        /// Where.
        url: String,
        /// What happened.
        why: String,
    },
    /// The API refused; the same call will be refused again (4xx), unless it says 429.
    #[error("popularity API refused: {} {}: {}", .0.status, .0.title, .0.detail)]
    Refused(wire::Problem),
}
