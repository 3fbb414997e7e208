//! One question to the sun: a connection of its own, a full TLS handshake, the canary.
//!
//! ```text
//!   connect --refused--> nobody listens: certain
//!      |
//!   TLS: certificate, name, expiry
//!      |
//!   GET /.well-known/sun-canary --> crate::canary::Report
//! ```
//!
//! Why no connection is kept: what is to be known is whether a client that comes now is served.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use daemon::telemetry::causes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::trust::{Shown, Trust};
use crate::canary::{PATH, Report};

/// How the sun is asked; cheap to clone.
#[derive(Clone, Debug)]
pub struct Prober {
    authorization: HeaderValue,
    trust: Arc<ArcSwap<Trust>>,
    timeout: Duration,
}

/// What came of asking one address.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The address.
    pub address: SocketAddr,
    /// What the sun says, or why it does not.
    pub result: Result<Report, Failure>,
    /// Until when the certificate is valid, seconds since 1970.
    pub expires: Option<i64>,
    /// How long it took.
    pub took: Duration,
}

/// Why there is no answer.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Failure {
    /// No socket listens there.
    #[error("nobody listens at {0}")]
    Refused(SocketAddr),
    /// It took too long; how far it came.
    #[error("{address}: no answer within {timeout_ms} ms, {stage}")]
    TimedOut {
        /// Where.
        address: SocketAddr,
        /// Milliseconds.
        timeout_ms: u64,
        /// What was waited for.
        stage: &'static str,
    },
    /// Anything else.
    #[error("{address}: {why}")]
    Other {
        /// Where.
        address: SocketAddr,
        /// What.
        why: String,
    },
}

impl Prober {
    /// `token` is the sun's own.
    ///
    /// # Errors
    ///
    /// When the token cannot stand in a header, or the file of certificates is not usable.
    pub fn new(token: &str, trust: &Path, timeout_ms: u64) -> anyhow::Result<Self> {
        let mut authorization = HeaderValue::from_str(&format!("Bearer {token}"))?;
        authorization.set_sensitive(true);
        let trust = Trust::load(trust).map_err(anyhow::Error::msg)?;
        let trust = Arc::new(ArcSwap::from_pointee(trust));
        Ok(Self { authorization, trust, timeout: Duration::from_millis(timeout_ms) })
    }

    /// Reads the file of certificates again; one that is not usable changes nothing.
    pub fn reload(&self, trust: &Path) {
        match Trust::load(trust) {
            Ok(trust) => self.trust.store(Arc::new(trust)),
            Err(why) => tracing::warn!(%why, "the certificates in use stay"),
        }
    }

    /// Asks one address, as a client of `name`.
    pub async fn ask(&self, address: SocketAddr, name: ServerName<'static>) -> Answer {
        let begun = Instant::now();
        let mut course = Course { stage: "connecting", shown: Shown::default() };
        let asked = tokio::time::timeout(self.timeout, self.converse(address, name, &mut course)).await;
        let timeout_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        let result = asked.unwrap_or(Err(Failure::TimedOut { address, timeout_ms, stage: course.stage }));
        Answer { address, result, expires: course.shown.not_after(), took: begun.elapsed() }
    }

    async fn converse(
        &self,
        address: SocketAddr,
        name: ServerName<'static>,
        course: &mut Course,
    ) -> Result<Report, Failure> {
        let other = |why: String| Failure::Other { address, why };
        let stream = match TcpStream::connect(address).await {
            Ok(stream) => stream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Err(Failure::Refused(address)),
            Err(error) => return Err(other(format!("no connection: {error}"))),
        };
        course.stage = "in the TLS handshake";
        let (config, shown) = self.trust.load().client().map_err(|error| other(error.to_string()))?;
        course.shown = shown;
        let stream = TlsConnector::from(config).connect(name.clone(), stream).await;
        let stream = stream.map_err(|error| other(format!("TLS: {error}")))?;
        course.stage = "waiting for the canary";
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| other(causes(&error)))?;
        let connection = tokio::spawn(connection);
        let result = self.exchange(&mut sender, &name).await;
        connection.abort();
        result.map_err(other)
    }

    async fn exchange(
        &self,
        sender: &mut http1::SendRequest<Empty<Bytes>>,
        name: &ServerName<'static>,
    ) -> Result<Report, String> {
        let request = Request::get(PATH)
            .header(header::HOST, name.to_str().as_ref())
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::USER_AGENT, concat!("sun-check/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| causes(&error))?;
        if response.status() != StatusCode::OK {
            let status = response.status();
            return Err(format!("the canary is answered {status}: is the token in the sun's token file, is it a sun?"));
        }
        let body = Limited::new(response.into_body(), REPORT_BYTES_MAX).collect().await;
        let body = body.map_err(|error| format!("the canary breaks off: {error}"))?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| format!("the canary is unreadable: {error}"))
    }
}

/// How far a question came.
struct Course {
    stage: &'static str,
    shown: Shown,
}

/// A report of 64 devices with long names fits in.
const REPORT_BYTES_MAX: usize = 256 << 10;
