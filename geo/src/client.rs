//! Calls to a `geo serve`, for followers and operators.
//!
//! Proxy variables of the environment are not read, redirects are not followed; every call has a deadline and every
//! answer a bound, also behind gzip: a server that is broken, or is none of ours, costs its followers bounded memory.

use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use daemon::problem::Problem;
use daemon::telemetry::causes;
use reqwest::{StatusCode, Url, header};
use serde::de::DeserializeOwned;

use crate::answer;
use crate::wire::{Changes, Position, ResolveAnswer, ResolveRequest};

/// Where a geo server is and who asks. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    /// Scheme, host and port; its path is "/".
    base: Url,
    token: String,
}

/// Which geo server, and the token for it.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// `http://10.0.0.6:8095`. No default.
    pub url: String,
    /// File with the bearer token; any role will do. No default.
    pub token_file: PathBuf,
}

/// An answer to [`Client::table`].
#[derive(Debug)]
pub enum Whole {
    /// The server has nothing newer than what the caller has.
    Same,
    /// The table's bytes, unpacked; what position they are of is in them.
    New(Vec<u8>),
}

/// An answer to [`Client::changes`].
#[derive(Debug)]
pub enum Since {
    /// What changed.
    Changes(Changes),
    /// The server does not know what changed since then: only the whole table will do.
    Gone,
}

impl Client {
    /// Reads the token.
    ///
    /// # Errors
    ///
    /// When the token file cannot be read or the address is no `http://` URL.
    pub fn new(server: &Server) -> Result<Self, ClientError> {
        let base = base(&server.url).ok_or_else(|| {
            ClientError::Config(format!("geo server {:?}: it has the form http://host:port", server.url))
        })?;
        let token = daemon::tokens::read_secret(&server.token_file).map_err(|e| ClientError::Config(e.to_string()))?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .build()
            .map_err(|error| ClientError::Config(format!("HTTP client: {error}")))?;
        Ok(Self { http, base, token })
    }

    /// `GET /v1/table`, unless the server's is at `have`.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as every call.
    pub async fn table(&self, have: Option<Position>) -> Result<Whole, ClientError> {
        let mut request = self.http.get(self.call(&["table"])).header(header::ACCEPT_ENCODING, "gzip").timeout(TABLE);
        if let Some(position) = have {
            request = request.header(header::IF_NONE_MATCH, format!("\"{position}\""));
        }
        let answer = self.send(request, TABLE_BYTES_MAX).await?;
        match answer.status {
            StatusCode::NOT_MODIFIED => Ok(Whole::Same),
            status if status.is_success() => self.unpacked(answer).await.map(Whole::New),
            _ => Err(self.refusal(&answer)),
        }
    }

    /// `GET /v1/table/changes`: waits up to `wait` for the first one.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as every call.
    pub async fn changes(&self, after: Position, wait: Duration) -> Result<Since, ClientError> {
        let mut url = self.call(&["table", "changes"]);
        url.query_pairs_mut()
            .append_pair("epoch", &after.epoch.to_string())
            .append_pair("after", &after.sequence.to_string())
            .append_pair("wait_ms", &wait.as_millis().to_string());
        let answer = self.send(self.http.get(url).timeout(CALL + wait), ANSWER_BYTES_MAX).await?;
        if answer.status == StatusCode::GONE {
            return Ok(Since::Gone);
        }
        self.read(&answer).map(Since::Changes)
    }

    /// `POST /v1/resolve`.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as every call.
    pub async fn resolve(&self, addresses: Vec<IpAddr>) -> Result<ResolveAnswer, ClientError> {
        let request = self.http.post(self.call(&["resolve"])).json(&ResolveRequest { addresses }).timeout(CALL);
        self.read(&self.send(request, ANSWER_BYTES_MAX).await?)
    }

    /// `GET` of a call whose answer is for people, `&["explain", "192.0.2.1"]`: its JSON, or else its columns.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as every call.
    pub async fn told(&self, path: &[&str], json: bool) -> Result<answer::Answer, ClientError> {
        let accept = if json { "application/json" } else { "text/plain" };
        let request = self.http.get(self.call(path)).header(header::ACCEPT, accept).timeout(CALL);
        let answer = self.send(request, ANSWER_BYTES_MAX).await?;
        if json || !answer.status.is_success() {
            return Ok(answer::Answer::good(String::new(), self.read(&answer)?));
        }
        Ok(answer::Answer::good(String::from_utf8_lossy(&answer.body).into_owned(), serde_json::Value::Null))
    }

    /// The address of a call; what a segment must not have is percent-encoded.
    fn call(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        url.path_segments_mut().expect("an http address has a path").clear().push("v1").extend(path);
        url
    }

    async fn send(&self, request: reqwest::RequestBuilder, bytes_max: usize) -> Result<Answer, ClientError> {
        let sent = request.bearer_auth(&self.token).send().await;
        let response = sent.map_err(|error| self.unreachable(causes(&error)))?;
        let status = response.status();
        let gzip = response.headers().get(header::CONTENT_ENCODING).is_some_and(|value| value == "gzip");
        let body = whole(response, bytes_max).await.map_err(|why| self.unreachable(why))?;
        Ok(Answer { status, gzip, body })
    }

    fn read<A: DeserializeOwned>(&self, answer: &Answer) -> Result<A, ClientError> {
        if !answer.status.is_success() {
            return Err(self.refusal(answer));
        }
        serde_json::from_slice(&answer.body).map_err(|error| self.unreachable(format!("its answer: {error}")))
    }

    /// Unpacking a full table takes tens of milliseconds: not on the runtime's own threads.
    async fn unpacked(&self, answer: Answer) -> Result<Vec<u8>, ClientError> {
        if !answer.gzip {
            return Ok(answer.body);
        }
        let unpacked = tokio::task::spawn_blocking(move || gunzip(&answer.body, TABLE_BYTES_MAX)).await;
        unpacked.map_err(|error| error.to_string()).flatten().map_err(|why| self.unreachable(why))
    }

    fn refusal(&self, answer: &Answer) -> ClientError {
        let status = answer.status;
        let problem = serde_json::from_slice(&answer.body).unwrap_or_else(|_| {
            let told = String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)]).trim().to_owned();
            let detail = if told.is_empty() { "it gave no reason: is this a geo server?".to_owned() } else { told };
            let title = status.canonical_reason().unwrap_or("an unknown status").to_owned();
            Problem { title, status: status.as_u16(), detail }
        });
        if status.is_client_error() {
            return ClientError::Refused(problem);
        }
        self.unreachable(format!("{} {}: {}", status.as_u16(), problem.title, problem.detail))
    }

    /// The error of an answer that was waited for long enough.
    pub(crate) fn late(&self, after: Duration) -> ClientError {
        self.unreachable(format!("no answer within {} s", after.as_secs()))
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

struct Answer {
    status: StatusCode,
    gzip: bool,
    body: Vec<u8>,
}

/// A plain base address: `http`, a host, perhaps a port, nothing else.
pub(crate) fn base(url: &str) -> Option<Url> {
    base_of(url, &["http"])
}

/// The same, of one of these schemes.
pub(crate) fn base_of(url: &str, schemes: &[&str]) -> Option<Url> {
    let url = Url::parse(url).ok()?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let anonymous = url.username().is_empty() && url.password().is_none();
    (schemes.contains(&url.scheme()) && url.has_host() && bare && anonymous).then_some(url)
}

/// A whole body of at most `bytes_max`.
pub(crate) async fn whole(mut response: reqwest::Response, bytes_max: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| causes(&error))? {
        if body.len() + chunk.len() > bytes_max {
            return Err(format!("its answer is longer than {bytes_max} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Unpacks to at most `bytes_max`.
fn gunzip(packed: &[u8], bytes_max: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let bound = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let unpacked = flate2::read::GzDecoder::new(packed).take(bound).read_to_end(&mut bytes);
    unpacked.map_err(|error| format!("its answer cannot be unpacked: {error}"))?;
    if bytes.len() > bytes_max {
        return Err(format!("its answer has more than {bytes_max} bytes when unpacked"));
    }
    Ok(bytes)
}

/// Longest table that is taken, packed or not, bytes. A full table of the Internet and a city file have some 20 MB.
pub(crate) const TABLE_BYTES_MAX: usize = 256 << 20;
/// Longest answer of other calls, bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;
const CONNECT: Duration = Duration::from_secs(2);
const CALL: Duration = Duration::from_secs(5);
const TABLE: Duration = Duration::from_secs(60);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Token file or address.
    #[error("{0}")]
    Config(String),
    /// No answer in time, none that can be read, or one that says the server is in trouble (5xx); worth another try.
    #[error("geo server at {url}: {why}")]
    Unreachable {
        /// Where.
        url: String,
        /// What happened.
        why: String,
    },
    /// The server refused; the same call will be refused again (4xx).
    #[error("geo server refused: {} {}: {}", .0.status, .0.title, .0.detail)]
    Refused(Problem),
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn only_a_plain_base_address_is_taken() {
        for (url, good) in [
            ("http://10.0.0.6:8095", true),
            ("http://[::1]:8095/", true),
            ("https://10.0.0.6", false),
            ("http://10.0.0.6/api", false),
            ("http://user@10.0.0.6", false),
            ("10.0.0.6:8095", false),
        ] {
            assert_eq!(base(url).is_some(), good, "{url}");
        }
    }

    #[test]
    fn what_unpacks_to_too_much_is_refused_before_it_is_all_there() {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(&vec![0; 1 << 20]).unwrap();
        let bomb = packer.finish().unwrap();
        assert!(bomb.len() < 4096);
        assert_eq!(gunzip(&bomb, 1 << 20).unwrap().len(), 1 << 20);
        let why = gunzip(&bomb, (1 << 20) - 1).unwrap_err();
        assert_eq!(why, "its answer has more than 1048575 bytes when unpacked");
        assert!(gunzip(&bomb[..100], 1 << 20).is_err());
    }
}
