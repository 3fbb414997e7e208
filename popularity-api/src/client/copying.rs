//! Calls of those that copy the API: replicas and backups.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{ETAG, HeaderMap, IF_NONE_MATCH};

use super::{Client, ClientError};
use crate::wire::{self, BINLOG_END, BINLOG_TIME, STATE_NOW};

/// Frames of the binlog.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frames {
    /// As they stand in the binlog; not checked yet.
    pub bytes: Vec<u8>,
    /// Offset after the last durable frame of the other API.
    pub end: u64,
    /// Its time then, milliseconds since 1970.
    pub time_ms: u64,
}

/// What links are made from, at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct StateAnswer {
    /// Nothing: as at the last answer.
    pub state: Option<wire::LinkState>,
    /// Names it in the next question.
    pub etag: String,
    /// Milliseconds since the other API started.
    pub now_ms: u64,
}

impl Client {
    /// `GET /v1/snapshot`.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as every call.
    pub async fn copies(&self) -> Result<wire::Copies, ClientError> {
        self.send(self.http.get(self.call(&["snapshot"]))).await
    }

    /// `GET /v1/snapshot/{offset}`: bytes from the byte `from` on; none at its end.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; [`ClientError::is_gone`] when there is no such snapshot.
    pub async fn snapshot(&self, lineage: &str, offset: u64, from: u64) -> Result<Vec<u8>, ClientError> {
        let mut url = self.call(&["snapshot", &offset.to_string()]);
        url.query_pairs_mut().append_pair("lineage", lineage).append_pair("from", &from.to_string());
        Ok(self.exchange(self.http.get(url).timeout(COPY_TIMEOUT.max(self.timeout))).await?.2)
    }

    /// `GET /v1/binlog`: frames from `after` on; waits up to `wait` for the first one.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; [`ClientError::is_gone`] when they are not kept any more or of another lineage.
    pub async fn binlog(&self, lineage: &str, after: u64, wait: Duration) -> Result<Frames, ClientError> {
        let mut url = self.call(&["binlog"]);
        url.query_pairs_mut()
            .append_pair("lineage", lineage)
            .append_pair("after", &after.to_string())
            .append_pair("wait_ms", &wait.as_millis().to_string());
        let request = self.http.get(url).timeout(COPY_TIMEOUT.max(self.timeout) + wait);
        let (_, headers, bytes) = self.exchange(request).await?;
        Ok(Frames { bytes, end: self.number(&headers, BINLOG_END)?, time_ms: self.number(&headers, BINLOG_TIME)? })
    }

    /// `GET /v1/state`; `etag` of the last answer, or empty.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as every call.
    pub async fn state(&self, etag: &str) -> Result<StateAnswer, ClientError> {
        let request = self.http.get(self.call(&["state"])).header(IF_NONE_MATCH, etag);
        let (status, headers, body) = self.exchange(request).await?;
        let now_ms = self.number(&headers, STATE_NOW)?;
        if status == StatusCode::NOT_MODIFIED {
            return Ok(StateAnswer { state: None, etag: etag.to_owned(), now_ms });
        }
        let etag = headers.get(ETAG).and_then(|etag| etag.to_str().ok()).unwrap_or_default().to_owned();
        let state = serde_json::from_slice(&body).map_err(|error| self.unreachable(format!("its answer: {error}")))?;
        Ok(StateAnswer { state: Some(state), etag, now_ms })
    }

    /// `GET /v1/state/holdings/{cache}`.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as every call.
    pub async fn cache_holdings(
        &self,
        cache: &str,
        since: Option<u64>,
        from: Option<&str>,
    ) -> Result<wire::CacheHoldings, ClientError> {
        let mut url = self.call(&["state", "holdings", cache]);
        if let Some(since) = since {
            url.query_pairs_mut().append_pair("since", &since.to_string());
        }
        if let Some(from) = from {
            url.query_pairs_mut().append_pair("from", from);
        }
        self.send(self.http.get(url).timeout(COPY_TIMEOUT.max(self.timeout))).await
    }

    fn number(&self, headers: &HeaderMap, name: &str) -> Result<u64, ClientError> {
        let number = headers.get(name).and_then(|value| value.to_str().ok()?.parse().ok());
        number.ok_or_else(|| self.unreachable(format!("its answer has no header {name}: is it a popularity API?")))
    }
}

/// Deadline of a call that gives megabytes.
const COPY_TIMEOUT: Duration = Duration::from_secs(20);
