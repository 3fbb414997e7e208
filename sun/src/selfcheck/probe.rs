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
//!
//! A question that takes too long has failed, and is listened to for some time more: an answer that comes late tells a sun that
//! has too much to do from one that hangs. An answer that came in time says nothing of that: it is from before the hang. Of each
//! address [`LATE_QUESTIONS_MAX`] are listened to at once, the oldest: the sun keeps connections for its self-check, and
//! must not run out of them.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

use super::config::ProbeConfig;
use super::trust::{Shown, Trust};
use crate::canary::{PATH, Report};

/// How the sun is asked; cheap to clone.
#[derive(Clone, Debug)]
pub struct Prober {
    authorization: HeaderValue,
    trust: Arc<ArcSwap<Trust>>,
    timeout: Duration,
    /// A question that timed out is listened to for so long, and what it hears counts for so long.
    late_max: Duration,
    late: Arc<Mutex<BTreeMap<SocketAddr, Late>>>,
}

/// What becomes of the questions to one address that timed out.
#[derive(Clone, Copy, Debug, Default)]
struct Late {
    /// Are listened to.
    waiting: usize,
    /// When the last answer came.
    heard: Option<Instant>,
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
    /// An answer came lately to a question that had timed out.
    pub answers_late: bool,
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
    /// This machine does not answer for an address of its sun.
    #[error("{0}: this machine does not answer for it any more: see `sunctl render addresses`")]
    NotLocal(SocketAddr),
    /// Anything else.
    #[error("{address}: {why}")]
    Other {
        /// Where.
        address: SocketAddr,
        /// What.
        why: String,
    },
}

impl Answer {
    /// Of an address for which this machine does not answer.
    #[must_use]
    pub const fn of_lost(address: SocketAddr) -> Self {
        let (result, took) = (Err(Failure::NotLocal(address)), Duration::ZERO);
        Self { address, result, expires: None, took, answers_late: false }
    }
}

impl Prober {
    /// `token` is the sun's own.
    ///
    /// # Errors
    ///
    /// When the token cannot stand in a header, or the file of certificates is not usable.
    pub fn new(token: &str, config: &ProbeConfig) -> anyhow::Result<Self> {
        let mut authorization = HeaderValue::from_str(&format!("Bearer {token}"))?;
        authorization.set_sensitive(true);
        let trust = Trust::load(&config.trust).map_err(anyhow::Error::msg)?;
        let trust = Arc::new(ArcSwap::from_pointee(trust));
        let timeout = Duration::from_millis(config.timeout_ms);
        Ok(Self { authorization, trust, timeout, late_max: late_max(config), late: Arc::default() })
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
        let course = Arc::new(Mutex::new(Course { stage: "connecting", shown: Shown::default() }));
        let (prober, on_course) = (self.clone(), Arc::clone(&course));
        let mut conversing = Box::pin(async move { prober.converse(address, name, &on_course).await });
        let asked = tokio::time::timeout(self.timeout, &mut conversing).await;
        let timeout_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        let Course { stage, shown } = lock(&course).clone();
        let result = asked.unwrap_or_else(|_| {
            self.listen_on(address, conversing);
            Err(Failure::TimedOut { address, timeout_ms, stage })
        });
        let heard = lock(&self.late).get(&address).and_then(|late| late.heard);
        let answers_late = heard.is_some_and(|heard| heard.elapsed() <= self.late_max);
        Answer { address, result, expires: shown.not_after(), took: begun.elapsed(), answers_late }
    }

    /// Listens to a question that timed out, if there are not enough of them already.
    fn listen_on(&self, address: SocketAddr, question: impl Future<Output = Result<Report, Failure>> + Send + 'static) {
        {
            let mut late = lock(&self.late);
            let late = late.entry(address).or_default();
            if late.waiting >= LATE_QUESTIONS_MAX {
                return;
            }
            late.waiting += 1;
        }
        let (all, late_max) = (Arc::clone(&self.late), self.late_max);
        tokio::spawn(async move {
            let answer = tokio::time::timeout(late_max, question).await;
            let mut all = lock(&all);
            let late = all.entry(address).or_default();
            late.waiting -= 1;
            if let Ok(Ok(_)) = answer {
                late.heard = Some(Instant::now());
            }
        });
    }

    async fn converse(
        &self,
        address: SocketAddr,
        name: ServerName<'static>,
        course: &Mutex<Course>,
    ) -> Result<Report, Failure> {
        let other = |why: String| Failure::Other { address, why };
        let stream = match TcpStream::connect(address).await {
            Ok(stream) => stream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Err(Failure::Refused(address)),
            Err(error) => return Err(other(format!("no connection: {error}"))),
        };
        let (config, shown) = self.trust.load().client().map_err(|error| other(error.to_string()))?;
        *lock(course) = Course { stage: "in the TLS handshake", shown };
        let stream = TlsConnector::from(config).connect(name.clone(), stream).await;
        let stream = stream.map_err(|error| other(format!("TLS: {error}")))?;
        lock(course).stage = "waiting for the canary";
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| other(causes(&error)))?;
        let connection = Aborted(tokio::spawn(connection));
        let result = self.exchange(&mut sender, &name).await;
        drop(connection);
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

/// A connection that ends with the question.
struct Aborted(tokio::task::JoinHandle<hyper::Result<()>>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept is whole after every step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How far a question came.
#[derive(Clone, Debug)]
struct Course {
    stage: &'static str,
    shown: Shown,
}

/// How long a late answer is listened for, and counts: until the next one can have come, where questions are far apart.
fn late_max(config: &ProbeConfig) -> Duration {
    LATE_MIN.max(Duration::from_millis(config.timeout_ms.saturating_add(config.every_ms)))
}

/// A late answer counts for so long at least.
const LATE_MIN: Duration = Duration::from_secs(3);

/// Questions to one address that are listened to after they timed out. Two: one may be stuck in a worker that hangs.
pub const LATE_QUESTIONS_MAX: usize = 2;

/// A report of 64 devices with long names fits in.
const REPORT_BYTES_MAX: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_sun_that_answers_late_is_told_from_one_that_hangs() {
        let sun = Sun::listen(50).await;
        let answer = sun.asked().await;
        assert!(matches!(answer.result, Err(Failure::TimedOut { stage: "in the TLS handshake", .. })), "{answer:?}");
        assert!(!answer.answers_late, "it hangs");

        let _kept = sun.answer().await;
        let deadline = Instant::now() + Duration::from_secs(60);
        while lock(&sun.prober.late)[&sun.address].heard.is_none() {
            assert!(Instant::now() < deadline, "it answered late and nobody listened");
            tokio::task::yield_now().await;
        }
        let answer = sun.asked().await;
        assert!(matches!(answer.result, Err(Failure::TimedOut { .. })), "{answer:?}");
        assert!(answer.answers_late, "late");
        for _ in 0..3 {
            sun.asked().await;
        }
        assert_eq!(lock(&sun.prober.late)[&sun.address].waiting, LATE_QUESTIONS_MAX, "the others are given up");
    }

    #[tokio::test]
    async fn an_answer_in_time_says_nothing_of_a_hang_after_it() {
        let sun = Sun::listen(60_000).await;
        let (answer, _kept) = tokio::join!(sun.asked(), sun.answer());
        assert!(answer.result.is_ok() && !answer.answers_late, "{answer:?}");
        assert!(lock(&sun.prober.late).is_empty());
    }

    /// A sun that answers when the test says so, and who asks it.
    struct Sun {
        listener: TcpListener,
        address: SocketAddr,
        tls: tokio_rustls::TlsAcceptor,
        prober: Prober,
        _folder: tempfile::TempDir,
    }

    impl Sun {
        async fn listen(timeout_ms: u64) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let folder = tempfile::tempdir().unwrap();
            let key = rcgen::generate_simple_self_signed(["sun".to_owned()]).unwrap();
            let trust = folder.path().join("trust.pem");
            std::fs::write(&trust, key.cert.pem()).unwrap();
            let prober = Prober::new("token", &ProbeConfig { timeout_ms, trust, ..ProbeConfig::default() }).unwrap();
            let certificate = rustls::pki_types::CertificateDer::from(key.cert);
            let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config =
                rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
            let config = config.with_no_client_auth().with_single_cert(vec![certificate], private).unwrap();
            let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            Self { listener, address, tls, prober, _folder: folder }
        }

        async fn asked(&self) -> Answer {
            self.prober.ask(self.address, ServerName::try_from("sun").unwrap()).await
        }

        /// Answers the first question that waits; what is returned is its connection.
        async fn answer(&self) -> tokio_rustls::server::TlsStream<TcpStream> {
            let (stream, _) = self.listener.accept().await.unwrap();
            let mut tls = self.tls.accept(stream).await.unwrap();
            let mut question = [0; 16];
            tls.read_exact(&mut question).await.unwrap();
            let body = serde_json::to_string(&Report::default()).unwrap();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            tokio::io::AsyncWriteExt::write_all(&mut tls, (head + &body).as_bytes()).await.unwrap();
            tls
        }
    }

    #[test]
    fn late_answers_are_waited_for_until_the_next_question_can_have_been_answered() {
        let late_ms = |timeout_ms, every_ms| late_max(&ProbeConfig { timeout_ms, every_ms, ..ProbeConfig::default() });
        assert_eq!(late_ms(400, 500), Duration::from_secs(3));
        assert_eq!(late_ms(5000, 10_000), Duration::from_secs(15));
        assert_eq!(late_ms(400, u64::MAX), Duration::from_millis(u64::MAX));
    }
}
