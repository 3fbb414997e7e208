//! An HTTPS client that speaks from an address of its choice and goes where it is told, not where a name
//! leads: what the demo's visitors use, since each of them is somewhere else in 127/8.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;

/// Reads the only authority that is trusted.
///
/// # Errors
///
/// When the file holds no certificate.
pub fn trust(ca: &Path) -> anyhow::Result<Arc<rustls::ClientConfig>> {
    let certificate = CertificateDer::from_pem_file(ca).map_err(|error| anyhow!("{}: {error}", ca.display()))?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// One client with its open connections, one a server.
#[derive(Debug)]
pub struct HttpsClient {
    source: Ipv4Addr,
    trust: Arc<rustls::ClientConfig>,
    /// Connections outlive a request on tasks of this tracker, and end when the client is dropped.
    tasks: TaskTracker,
    connections: HashMap<String, SendRequest<Empty<Bytes>>>,
}

/// What came back, the body counted and dropped.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Status.
    pub status: StatusCode,
    /// Bytes of the body.
    pub bytes: u64,
    /// The `Cache-Status`, empty when there is none.
    pub cache_status: String,
}

impl HttpsClient {
    /// A client that speaks from `source`.
    #[must_use]
    pub fn new(source: Ipv4Addr, trust: Arc<rustls::ClientConfig>, tasks: TaskTracker) -> Self {
        Self { source, trust, tasks, connections: HashMap::new() }
    }

    /// Fetches a link, the range of bytes alone if there is one.
    ///
    /// # Errors
    ///
    /// What went wrong, with the link; a body that ends early too.
    pub async fn fetch(&mut self, url: &str, range: Option<&str>) -> anyhow::Result<Fetched> {
        let fetched = tokio::time::timeout(FETCH_TIMEOUT, self.exchange(url, range)).await;
        fetched.with_context(|| format!("{url}: no whole answer in {FETCH_TIMEOUT:?}"))?.with_context(|| url.to_owned())
    }

    async fn exchange(&mut self, url: &str, range: Option<&str>) -> anyhow::Result<Fetched> {
        let uri: Uri = url.parse()?;
        let Some(authority) = uri.authority().filter(|_| uri.scheme_str() == Some("https")) else {
            bail!("is no https link")
        };
        let authority = authority.as_str().to_owned();
        let mut sender = match self.connections.remove(&authority) {
            Some(open) if !open.is_closed() => open,
            _ => self.connect(&uri).await?,
        };
        sender.ready().await?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::get(path).header(header::HOST, &authority);
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        let response = sender.send_request(request.body(Empty::new())?).await?;
        let fetched = drink(response).await?;
        self.connections.insert(authority, sender);
        Ok(fetched)
    }

    async fn connect(&self, uri: &Uri) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
        let host = uri.host().context("the link has no host")?.to_owned();
        let port = uri.port_u16().unwrap_or(443);
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((self.source, 0)))?;
        let stream = socket.connect(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into()).await?;
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(Arc::clone(&self.trust)).connect(ServerName::try_from(host)?, stream).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // What ends a connection shows at the request that is on it.
        self.tasks.spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

async fn drink(response: Response<hyper::body::Incoming>) -> anyhow::Result<Fetched> {
    let (head, mut body) = response.into_parts();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame.context("the body ended early")?.data_ref().map_or(0, |data| data.len() as u64);
    }
    let cache_status = head.headers.get("cache-status").and_then(|value| value.to_str().ok()).unwrap_or_default();
    Ok(Fetched { status: head.status, bytes, cache_status: cache_status.to_owned() })
}

/// Longest wait for a whole answer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
