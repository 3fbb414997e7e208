//! Connections to the members: HTTP/1.1, plain or in TLS. One that is idle is kept for the next call.
//!
//! The files of TLS are read for every connection, so that a renewed certificate needs no restart. Proxy variables of the
//! environment are not read, redirects are not followed.
//!
//! Why not reqwest as in [`client`](crate::client): what a client of it trusts and shows is settled when it is made.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use daemon::telemetry::causes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use reqwest::Url;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Etcd;

/// The members, and what is open to them.
pub(super) struct Connections {
    etcd: Etcd,
    members: Vec<Url>,
    /// One a member.
    idle: Vec<Mutex<Option<Sender>>>,
}

/// An answer whose body is not read yet, and the connection it comes over.
pub(super) struct Answered {
    pub(super) response: Response<Incoming>,
    sender: Sender,
}

type Sender = SendRequest<Full<Bytes>>;

impl Connections {
    /// Connects to nobody yet.
    ///
    /// # Errors
    ///
    /// What is wrong with the settings or the files that they name.
    pub(super) fn new(etcd: &Etcd, members: Vec<Url>) -> Result<Self, String> {
        if etcd.is_tls() {
            settings(etcd)?;
        }
        let idle = members.iter().map(|_| Mutex::default()).collect();
        Ok(Self { etcd: etcd.clone(), members, idle })
    }

    pub(super) fn members(&self) -> &[Url] {
        &self.members
    }

    /// `POST` to a member. A request that did not get away over an idle connection, which the other end may have closed, goes
    /// over a new one; one that may have arrived is not repeated.
    pub(super) async fn post(&self, member: usize, mut request: Request<Full<Bytes>>) -> Result<Answered, String> {
        let idle = self.idle(member).take();
        if let Some(mut sender) = idle
            && sender.ready().await.is_ok()
        {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(Answered { response, sender }),
                Err(mut error) => match error.take_message() {
                    Some(again) => request = again,
                    None => return Err(self.told(&causes(error.error()))),
                },
            }
        }
        let mut sender = self.connect(member).await?;
        let sent = sender.send_request(request).await;
        let response = sent.map_err(|error| self.told(&causes(&error)))?;
        Ok(Answered { response, sender })
    }

    /// The whole body, of at most `bytes_max`; the connection is kept.
    pub(super) async fn whole(&self, member: usize, answered: Answered, bytes_max: usize) -> Result<Vec<u8>, String> {
        let Answered { response, sender } = answered;
        let (mut incoming, mut body) = (response.into_body(), Vec::new());
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|error| self.told(&causes(&error)))?;
            let Some(chunk) = frame.data_ref() else { continue };
            if body.len() + chunk.len() > bytes_max {
                return Err(format!("its answer is longer than {bytes_max} bytes"));
            }
            body.extend_from_slice(chunk);
        }
        *self.idle(member) = Some(sender);
        Ok(body)
    }

    async fn connect(&self, member: usize) -> Result<Sender, String> {
        let url = &self.members[member];
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port = url.port_or_known_default().unwrap_or_default();
        let stream = within(CONNECT, TcpStream::connect((host, port))).await?.map_err(|error| error.to_string())?;
        // Failing costs latency, nothing else.
        let _ = stream.set_nodelay(true);
        if !self.etcd.is_tls() {
            return spoken(stream).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))?;
        let connector = TlsConnector::from(settings(&self.etcd)?);
        let connected = within(HANDSHAKE, connector.connect(name, stream)).await?;
        spoken(connected.map_err(|error| self.untrusted(host, &error))?).await
    }

    /// Why a handshake failed, by what an operator can do.
    fn untrusted(&self, host: &str, error: &std::io::Error) -> String {
        let why = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let ca = self.etcd.ca.as_deref().unwrap_or(Path::new("ca")).display();
        match why {
            // The latter of an authority with the same name.
            Some(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) => {
                format!("its certificate is of no authority in {ca} (ca)")
            }
            Some(rustls::Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => "its certificate has expired".to_owned(),
            Some(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => format!("its certificate is not for {host}"),
            Some(rustls::Error::InvalidMessage(_)) => {
                "it does not speak TLS: its address may begin with http://".to_owned()
            }
            _ => self.told(&error.to_string()),
        }
    }

    /// What a connection that ended says of its settings. In TLS 1.3 a server that does not like our certificate says so after
    /// the handshake; one that wants TLS ends what is none.
    fn told(&self, why: &str) -> String {
        if !self.etcd.is_tls() && why.contains("connection closed before message completed") {
            return format!("{why}: where it speaks TLS its address begins with https://");
        }
        let refused =
            ["CertificateRequired", "BadCertificate", "UnknownCA", "CertificateExpired", "CertificateUnknown"];
        if !refused.iter().any(|alert| why.contains(alert)) {
            return why.to_owned();
        }
        match &self.etcd.certificate {
            None => format!("it wants a certificate of its clients (certificate, certificate_key): {why}"),
            Some(file) => format!("it does not take the certificate {}: {why}", file.display()),
        }
    }

    fn idle(&self, member: usize) -> std::sync::MutexGuard<'_, Option<Sender>> {
        self.idle[member].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins HTTP; a task drives the connection until nobody has its ends any more.
async fn spoken<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> Result<Sender, String> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| causes(&error))?;
    // What it fails with, the request fails with.
    tokio::spawn(connection);
    Ok(sender)
}

async fn within<T>(bound: Duration, work: impl Future<Output = T>) -> Result<T, String> {
    tokio::time::timeout(bound, work).await.map_err(|_| format!("no connection within {} ms", bound.as_millis()))
}

/// TLS 1.2 and 1.3 by the files of the settings.
fn settings(etcd: &Etcd) -> Result<Arc<ClientConfig>, String> {
    let ca = etcd.ca.as_deref().ok_or("ca: https:// needs the file of the authority")?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca", ca)? {
        roots.add(certificate).map_err(|error| format!("ca: {}: {error}", ca.display()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let Some((chain, key)) = etcd.certificate.as_deref().zip(etcd.certificate_key.as_deref()) else {
        return Ok(Arc::new(builder.with_no_client_auth()));
    };
    let text = daemon::config::read_private(key).map_err(|error| format!("certificate_key: {error}"))?;
    let read = PrivateKeyDer::from_pem_slice(text.as_bytes());
    let read = read.map_err(|error| format!("certificate_key: {}: {error}", key.display()))?;
    let config = builder.with_client_auth_cert(certificates("certificate", chain)?, read);
    config.map(Arc::new).map_err(|error| format!("certificate: {} and {}: {error}", chain.display(), key.display()))
}

fn certificates(what: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let at = |why: String| format!("{what}: {}: {why}", file.display());
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|error| at(error.to_string()))?;
    if read.is_empty() { Err(at("it holds no certificate".to_owned())) } else { Ok(read) }
}

/// Two round trips in TLS 1.2, and a member that is busy.
const HANDSHAKE: Duration = Duration::from_millis(1000);
const CONNECT: Duration = Duration::from_millis(500);
