//! The API's client: one call a method, for suns, caches and operators.
//!
//! Connections are pooled, proxy variables of the environment are not read, redirects are not followed; every
//! call has a deadline and every answer a bound.

mod copying;

use std::path::PathBuf;
use std::time::Duration;

use daemon::telemetry::causes;
use geo::RegionId;
use reqwest::header::HeaderMap;
use reqwest::{StatusCode, Url, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{encoding, wire};
pub use copying::{Frames, StateAnswer};

/// Where the API is and who asks. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    /// Scheme, host and port; its path is "/".
    base: Url,
    token: String,
    /// Deadline of one call.
    timeout: Duration,
}

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
        let base = base(&config.url).ok_or_else(|| {
            ClientError::Config(format!("popularity.url = {:?}: it has the form http://host:port", config.url))
        })?;
        let token = daemon::tokens::read_secret(&config.token_file).map_err(|e| ClientError::Config(e.to_string()))?;
        let timeout = Duration::from_millis(config.timeout_ms);
        let http = reqwest::Client::builder()
            .no_proxy()
            // Plain HTTP only: the platform's authorities, which a machine may lack, are not asked for.
            .tls_certs_only([])
            .redirect(reqwest::redirect::Policy::none())
            .timeout(timeout)
            .connect_timeout(timeout)
            .build()
            .map_err(|error| ClientError::Config(format!("HTTP client: {error}")))?;
        Ok(Self { http, base, token, timeout })
    }

    /// `POST /v1/downloads`. A batch above [`PACKED_FROM_BYTES`] goes packed.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as every call.
    pub async fn report_downloads(&self, batch: &wire::DownloadsBatch) -> Result<wire::DownloadsAck, ClientError> {
        let json = serde_json::to_vec(batch).map_err(|error| ClientError::Config(format!("the batch: {error}")))?;
        let request = self.http.post(self.call(&["downloads"])).header(header::CONTENT_TYPE, "application/json");
        let packed = (json.len() >= PACKED_FROM_BYTES).then(|| encoding::pack(&json).ok()).flatten();
        let request = match packed {
            Some(packed) => request.header(header::CONTENT_ENCODING, "zstd").body(packed),
            None => request.body(json),
        };
        self.send(request).await
    }

    /// `GET /v1/regions/{region}/top`.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as every call.
    pub async fn top(&self, region: RegionId, limit: usize) -> Result<wire::Top, ClientError> {
        let mut url = self.call(&["regions", &region.to_string(), "top"]);
        url.query_pairs_mut().append_pair("limit", &limit.to_string());
        self.send(self.http.get(url)).await
    }

    /// `GET /v1/regions/{region}/hot`.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as every call.
    pub async fn hot(&self, region: RegionId, limit: usize) -> Result<wire::Hot, ClientError> {
        let mut url = self.call(&["regions", &region.to_string(), "hot"]);
        url.query_pairs_mut().append_pair("limit", &limit.to_string());
        self.send(self.http.get(url)).await
    }

    /// `GET /v1/regions/{region}/servers`.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as every call.
    pub async fn servers(&self, region: RegionId) -> Result<wire::Servers, ClientError> {
        self.send(self.http.get(self.call(&["regions", &region.to_string(), "servers"]))).await
    }

    /// `POST /v1/regions/{region}/caches/{cache}/wanted`.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as every call.
    pub async fn wanted(
        &self,
        region: RegionId,
        cache: &str,
        request: &wire::WantedRequest,
    ) -> Result<wire::Wanted, ClientError> {
        self.post(&["regions", &region.to_string(), "caches", cache, "wanted"], request).await
    }

    /// `POST /v1/regions/{region}/caches/{cache}/holdings`.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as every call.
    pub async fn report_holdings(
        &self,
        region: RegionId,
        cache: &str,
        report: &wire::HoldingsReport,
    ) -> Result<wire::HoldingsAck, ClientError> {
        self.post(&["regions", &region.to_string(), "caches", cache, "holdings"], report).await
    }

    /// `POST /v1/regions/{region}/caches/{cache}/fetches`.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as every call.
    pub async fn note_fetch(
        &self,
        region: RegionId,
        cache: &str,
        note: &wire::FetchNote,
    ) -> Result<wire::FetchAnswer, ClientError> {
        self.post(&["regions", &region.to_string(), "caches", cache, "fetches"], note).await
    }

    /// `POST /v1/links`.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as every call.
    pub async fn links(&self, request: &wire::LinksRequest) -> Result<wire::Links, ClientError> {
        self.post(&["links"], request).await
    }

    /// `GET /v1/held?file=NAME`.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as every call.
    pub async fn held_by(&self, file: &str) -> Result<wire::HeldBy, ClientError> {
        let mut url = self.call(&["held"]);
        url.query_pairs_mut().append_pair("file", file);
        self.send(self.http.get(url)).await
    }

    /// `POST /v1/status`.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as every call.
    pub async fn report_status(&self, report: &wire::StatusReport) -> Result<wire::RegionState, ClientError> {
        self.post(&["status"], report).await
    }

    /// `POST /v1/purge`.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as every call.
    pub async fn purge(&self, request: &wire::PurgeRequest) -> Result<wire::PurgeAck, ClientError> {
        self.post(&["purge"], request).await
    }

    /// `GET /v1/purge`: entries after `after`, which the caller goes by; waits up to `wait` for the first one.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as every call.
    pub async fn purges(&self, after: u64, wait: Duration) -> Result<wire::PurgeLog, ClientError> {
        let mut url = self.call(&["purge"]);
        url.query_pairs_mut()
            .append_pair("after", &after.to_string())
            .append_pair("wait_ms", &wait.as_millis().to_string());
        self.send(self.http.get(url).timeout(self.timeout + wait)).await
    }

    /// `GET /v1/purge/{sequence}/acknowledgements`.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as every call.
    pub async fn acknowledgements(&self, sequence: u64) -> Result<wire::PurgeAcknowledgements, ClientError> {
        self.send(self.http.get(self.call(&["purge", &sequence.to_string(), "acknowledgements"]))).await
    }

    async fn post<Q: Serialize, A: DeserializeOwned>(&self, path: &[&str], question: &Q) -> Result<A, ClientError> {
        self.send(self.http.post(self.call(path)).json(question)).await
    }

    /// The address of a call; what a name has that a path segment must not have is percent-encoded.
    fn call(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        url.path_segments_mut().expect("an http address has a path").clear().push("v1").extend(path);
        url
    }

    async fn send<A: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<A, ClientError> {
        let (_, _, body) = self.exchange(request).await?;
        serde_json::from_slice(&body).map_err(|error| self.unreachable(format!("its answer: {error}")))
    }

    /// A good answer: its status, which is none of an error, its headers and its whole body.
    async fn exchange(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<(StatusCode, HeaderMap, Vec<u8>), ClientError> {
        let sent = request.bearer_auth(&self.token).send().await;
        let mut response = sent.map_err(|error| self.unreachable(causes(&error)))?;
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let body = read(response).await.map_err(|why| self.unreachable(why))?;
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok((status, headers, body));
        }
        let problem = serde_json::from_slice(&body).unwrap_or_else(|_| wire::Problem {
            title: status.canonical_reason().unwrap_or("an unknown status").to_owned(),
            status: status.as_u16(),
            detail: String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned(),
        });
        if status == StatusCode::TOO_MANY_REQUESTS {
            let after = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
            return Err(ClientError::Busy { problem, after: Duration::from_secs(after.unwrap_or(1)) });
        }
        if status.is_client_error() {
            return Err(ClientError::Refused(problem));
        }
        Err(self.unreachable(format!("{} {}: {}", status.as_u16(), problem.title, problem.detail)))
    }

    fn unreachable(&self, why: String) -> ClientError {
        ClientError::Unreachable { url: self.base.as_str().trim_end_matches('/').to_owned(), why }
    }
}

/// Without the token.
impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("url", &self.base.as_str()).finish_non_exhaustive()
    }
}

/// A plain base address: `http`, a host, perhaps a port, nothing else.
fn base(url: &str) -> Option<Url> {
    let url = Url::parse(url).ok()?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let anonymous = url.username().is_empty() && url.password().is_none();
    (url.scheme() == "http" && url.has_host() && bare && anonymous).then_some(url)
}

/// A whole body of at most [`ANSWER_BYTES_MAX`].
async fn read(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| causes(&error))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(format!("its answer is longer than {ANSWER_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Shortest batch that is packed, bytes: a shorter one is one packet all the same.
pub const PACKED_FROM_BYTES: usize = 1024;
/// Longest answer that is read: holdings of several caches of a million files each.
const ANSWER_BYTES_MAX: usize = 128 << 20;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Token file or address.
    #[error("{0}")]
    Config(String),
    /// No answer in time, none that can be read, or one that says the API is in trouble (5xx); worth another try.
    #[error("popularity API at {url}: {why}")]
    Unreachable {
        /// Where.
        url: String,
        /// What happened.
        why: String,
    },
    /// The API is asked too much at a time (429); worth another try, but not before that.
    #[error("popularity API is busy: {}; again in {} s", .problem.detail, .after.as_secs())]
    Busy {
        /// What it said.
        problem: wire::Problem,
        /// How long it wants to be left alone.
        after: Duration,
    },
    /// The API refused; the same call will be refused again (4xx).
    #[error("popularity API refused: {} {}: {}", .0.status, .0.title, .0.detail)]
    Refused(wire::Problem),
}

impl ClientError {
    /// What was asked for is not there any more: 410.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Refused(problem) if problem.status == StatusCode::GONE.as_u16())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_a_plain_base_address_is_taken() {
        for (url, good) in [
            ("http://10.0.0.5:8090", true),
            ("http://10.0.0.5:8090/", true),
            ("http://[::1]:8090", true),
            ("https://10.0.0.5", false),
            ("10.0.0.5:8090", false),
            ("http://10.0.0.5/api", false),
            ("http://10.0.0.5/?a", false),
            ("http://10.0.0.5/#a", false),
            ("http://user@10.0.0.5", false),
            ("", false),
        ] {
            let client = client(url);
            assert_eq!(client.is_ok(), good, "{url}: {client:?}");
        }
    }

    #[test]
    fn names_stay_inside_their_path_segment() {
        let client = client("http://10.0.0.5:8090").unwrap();
        for (cache, expected) in [
            ("cache4-1", "http://10.0.0.5:8090/v1/regions/4/caches/cache4-1/wanted"),
            ("a/b?c#d%e f", "http://10.0.0.5:8090/v1/regions/4/caches/a%2Fb%3Fc%23d%25e%20f/wanted"),
        ] {
            assert_eq!(client.call(&["regions", "4", "caches", cache, "wanted"]).as_str(), expected);
        }
    }

    #[test]
    fn the_token_is_not_shown() {
        let shown = format!("{:?}", client("http://10.0.0.5:8090"));
        assert!(!shown.contains(TOKEN), "{shown}");
    }

    fn client(url: &str) -> Result<Client, ClientError> {
        let token_file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&token_file, TOKEN).unwrap();
        std::fs::set_permissions(&token_file, std::fs::Permissions::from_mode(0o600)).unwrap();
        Client::new(&ClientConfig { url: url.to_owned(), token_file: token_file.path().into(), timeout_ms: 1 })
    }

    const TOKEN: &str = "0123456789abcdef";
}
