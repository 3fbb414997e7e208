//! An HTTP client that tells everything: the version spoken, every header, and whether a body ended as it should.
//!
//! One connection a request unless a test opens one itself ([`Client::connect`]): what a pool would do is not
//! what is tested. Names are resolved by the table of the test, never by the machine.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use crate::certificates::Authority;

/// Who asks, and how.
#[derive(Clone, Debug)]
pub struct Client {
    names: Arc<HashMap<String, IpAddr>>,
    http1: Arc<rustls::ClientConfig>,
    http2: Arc<rustls::ClientConfig>,
    version: Version,
    source: Option<IpAddr>,
    receive_bytes: Option<u32>,
    headers: Vec<(String, String)>,
}

impl Client {
    /// Speaks HTTP/1.1, trusts the authority and finds hosts by `names`.
    #[must_use]
    pub fn new(authority: &Authority, names: HashMap<String, IpAddr>) -> Self {
        Self {
            names: Arc::new(names),
            http1: authority.client(&[b"http/1.1"]),
            http2: authority.client(&[b"h2"]),
            version: Version::HTTP_11,
            source: None,
            receive_bytes: None,
            headers: Vec::new(),
        }
    }

    /// Speaks HTTP/2 (by ALPN over TLS, by prior knowledge otherwise).
    #[must_use]
    pub fn http2(mut self) -> Self {
        self.version = Version::HTTP_2;
        self
    }

    /// Speaks this version of TLS alone, and has no session to resume.
    #[must_use]
    pub fn tls(mut self, authority: &Authority, version: &'static rustls::SupportedProtocolVersion) -> Self {
        self.http1 = authority.client_of(&[b"http/1.1"], &[version]);
        self.http2 = authority.client_of(&[b"h2"], &[version]);
        self
    }

    /// Knows one more host, or one at another address.
    #[must_use]
    pub fn name(mut self, host: &str, address: IpAddr) -> Self {
        Arc::make_mut(&mut self.names).insert(host.to_owned(), address);
        self
    }

    /// Connects from this address of loopback: the client's region.
    #[must_use]
    pub const fn from(mut self, source: IpAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// Has the operating system hold about so many bytes that were not read yet, and no more.
    #[must_use]
    pub const fn receiving(mut self, bytes: u32) -> Self {
        self.receive_bytes = Some(bytes);
        self
    }

    /// Sends one more header with every request.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `GET`, to the end of the body.
    ///
    /// # Errors
    ///
    /// A connection that fails, or a body that does not end as it should.
    pub async fn get(&self, url: &str) -> anyhow::Result<Answer> {
        crate::poll::within(url, async { self.start(Method::GET, url).await?.finish().await }).await
    }

    /// `HEAD`.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn head(&self, url: &str) -> anyhow::Result<Answer> {
        crate::poll::within(url, async { self.start(Method::HEAD, url).await?.finish().await }).await
    }

    /// `POST` of a JSON body.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn post(&self, url: &str, json: &serde_json::Value) -> anyhow::Result<Answer> {
        let client = self.clone().with("content-type", "application/json");
        let exchange = async {
            let mut connection = client.connect(url).await?;
            connection.send(client.request(Method::POST, url, json.to_string())?).await?.finish().await
        };
        crate::poll::within(url, exchange).await
    }

    /// Sends a request and returns with the head of the response; the body is still to be read.
    ///
    /// # Errors
    ///
    /// A connection that fails.
    pub async fn start(&self, method: Method, url: &str) -> anyhow::Result<Streaming> {
        let mut connection = self.connect(url).await?;
        connection.send(self.request(method, url, "")?).await
    }

    /// `GET` of a URL of [`Client::connect`]'s host, for [`Connection::send`].
    ///
    /// # Errors
    ///
    /// A URL or header that does not parse.
    pub fn request(&self, method: Method, url: &str, body: impl Into<Bytes>) -> anyhow::Result<Request<Full<Bytes>>> {
        let uri: Uri = url.parse().with_context(|| url.to_owned())?;
        let authority = uri.authority().context("a URL with a host")?.clone();
        let mut request = Request::builder().method(method);
        if self.version == Version::HTTP_2 {
            request = request.uri(uri);
        } else {
            let target = uri.path_and_query().map_or("/", hyper::http::uri::PathAndQuery::as_str);
            request = request.uri(target).header("host", authority.as_str());
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        Ok(request.body(Full::new(body.into()))?)
    }

    /// Opens a connection to the host of a URL.
    ///
    /// # Errors
    ///
    /// An unknown name, a refused connection, a certificate that is not trusted.
    pub async fn connect(&self, url: &str) -> anyhow::Result<Connection> {
        let uri: Uri = url.parse().with_context(|| url.to_owned())?;
        let host = uri.host().context("a URL with a host")?;
        let tls = uri.scheme_str() == Some("https");
        let address = self.resolve(host, uri.port_u16().unwrap_or(if tls { 443 } else { 80 }))?;
        let stream = self.dial(address).await.with_context(|| format!("connecting to {address} for {url}"))?;
        if !tls {
            return self.handshake(stream).await;
        }
        let config = if self.version == Version::HTTP_2 { &self.http2 } else { &self.http1 };
        let name = ServerName::try_from(host.to_owned())?;
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await.context("TLS")?;
        let certificate =
            stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.to_vec());
        let resumed = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        let mut connection = self.handshake(stream).await?;
        connection.certificate = certificate;
        connection.resumed = resumed;
        Ok(connection)
    }

    fn resolve(&self, host: &str, port: u16) -> anyhow::Result<SocketAddr> {
        let address = host.parse().ok().or_else(|| self.names.get(host).copied());
        Ok((address.with_context(|| format!("the test has no host {host}"))?, port).into())
    }

    async fn dial(&self, address: SocketAddr) -> std::io::Result<tokio::net::TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = self.source {
            socket.bind((source, 0).into())?;
        }
        if let Some(bytes) = self.receive_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn handshake<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
    ) -> anyhow::Result<Connection> {
        let stream = TokioIo::new(stream);
        let sender = if self.version == Version::HTTP_2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            tokio::spawn(connection);
            Sender::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(stream).await?;
            tokio::spawn(connection);
            Sender::Http1(sender)
        };
        Ok(Connection { sender, certificate: None, resumed: false })
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    /// The server's certificate (DER), when it spoke TLS.
    pub certificate: Option<Vec<u8>>,
    /// A TLS session was resumed.
    pub resumed: bool,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    /// It ended, or takes no more requests.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }

    /// Sends a request and returns with the head of the response.
    ///
    /// # Errors
    ///
    /// A connection that ends, or speaks no HTTP.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Streaming> {
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        Ok(Streaming { response })
    }
}

/// A response whose body is on its way. Dropping it leaves: HTTP/1.1 closes, HTTP/2 resets the stream.
#[derive(Debug)]
pub struct Streaming {
    response: Response<Incoming>,
}

impl Streaming {
    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Reads on until there are at least `bytes` more, or the body ends (an error).
    ///
    /// # Errors
    ///
    /// A body that ends before, cleanly or not.
    pub async fn read(&mut self, bytes: usize) -> anyhow::Result<Bytes> {
        let mut read = BytesMut::new();
        while read.len() < bytes {
            match crate::poll::within("more of the body", self.response.frame()).await {
                Some(frame) => read.extend(frame?.into_data().ok()),
                None => bail!("the body ended after {} bytes, {bytes} were to come", read.len()),
            }
        }
        Ok(read.freeze())
    }

    /// Reads to the end. A body that breaks off is an error, with what came before in [`Cut`].
    ///
    /// # Errors
    ///
    /// [`Cut`].
    pub async fn finish(self) -> anyhow::Result<Answer> {
        let (head, mut body) = self.response.into_parts();
        let mut read = BytesMut::new();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => read.extend(frame.into_data().ok()),
                Err(error) => {
                    let status = head.status;
                    return Err(Cut { status, body: read.freeze(), error: error.to_string() }.into());
                }
            }
        }
        Ok(Answer { status: head.status.as_u16(), version: head.version, headers: head.headers, body: read.freeze() })
    }
}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// 200.
    pub status: u16,
    /// What was spoken.
    pub version: Version,
    /// All headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Answer {
    /// A header as text, "" when it is not there. Several of one name are joined by ", " (RFC 9110, section 5.2).
    #[must_use]
    pub fn header(&self, name: &str) -> String {
        let values = self.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        values.collect::<Vec<_>>().join(", ")
    }

    /// The body as JSON.
    ///
    /// # Panics
    ///
    /// When it is none.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("status {}, not JSON ({error}): {}", self.status, String::from_utf8_lossy(&self.body))
        })
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A body that broke off: what a client must see when the bytes are not all there.
#[derive(Debug)]
pub struct Cut {
    /// Of the head, which came before.
    pub status: StatusCode,
    /// What came.
    pub body: Bytes,
    /// How it broke.
    pub error: String,
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "status {}, the body broke off after {} bytes: {}", self.status, self.body.len(), self.error)
    }
}

impl std::error::Error for Cut {}
