//! Bytes on a socket: for requests that no HTTP library would send.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::certificates::Authority;

/// A connection that carries whatever is written to it.
pub struct Raw {
    stream: Box<dyn Stream>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl std::fmt::Debug for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Raw")
    }
}

impl Raw {
    /// A plain connection.
    ///
    /// # Panics
    ///
    /// When it is refused.
    pub async fn plain(address: SocketAddr) -> Self {
        let stream =
            TcpStream::connect(address).await.unwrap_or_else(|error| panic!("connecting to {address}: {error}"));
        Self { stream: Box::new(stream) }
    }

    /// A TLS connection that trusts the authority and offers `alpn`.
    ///
    /// # Panics
    ///
    /// When it is refused or the handshake fails.
    pub async fn tls(address: SocketAddr, host: &str, authority: &Authority, alpn: &[&[u8]]) -> Self {
        let stream =
            TcpStream::connect(address).await.unwrap_or_else(|error| panic!("connecting to {address}: {error}"));
        let name = match host.parse::<IpAddr>() {
            Ok(address) => ServerName::from(address),
            Err(_) => ServerName::try_from(host.to_owned()).expect("a host name"),
        };
        let connector = TlsConnector::from(authority.client(alpn) as Arc<_>);
        let stream = connector.connect(name, stream).await.unwrap_or_else(|error| panic!("TLS with {host}: {error}"));
        Self { stream: Box::new(stream) }
    }

    /// Writes bytes. False when the other side has closed.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// Reads until the other side closes, resets, has sent `limit` bytes or says nothing for `patience`.
    pub async fn read(&mut self, limit: usize, patience: Duration) -> (Vec<u8>, End) {
        let mut read = Vec::new();
        let mut chunk = [0; 16 * 1024];
        while read.len() < limit {
            match tokio::time::timeout(patience, self.stream.read(&mut chunk)).await {
                Err(_) => return (read, End::Silent),
                Ok(Ok(0) | Err(_)) => return (read, End::Closed),
                Ok(Ok(count)) => read.extend_from_slice(&chunk[..count]),
            }
        }
        (read, End::Limit)
    }

    /// Writes a request and reads the head of the response: its status, or none when the connection was closed
    /// without one.
    ///
    /// # Panics
    ///
    /// When the other side neither answers nor closes within [`crate::poll::DEADLINE`].
    pub async fn status(&mut self, request: &[u8]) -> Option<u16> {
        // A server may answer and close before it has read everything.
        let _ = self.write(request).await;
        let mut head = Vec::new();
        while !head.windows(4).any(|four| four == b"\r\n\r\n") {
            let (more, end) = self.read(1, crate::poll::DEADLINE).await;
            assert_ne!(
                end,
                End::Silent,
                "no answer to {:?}",
                String::from_utf8_lossy(&request[..request.len().min(200)])
            );
            head.extend(more);
            if end == End::Closed {
                break;
            }
        }
        let text = String::from_utf8_lossy(&head);
        text.strip_prefix("HTTP/1.1 ").or_else(|| text.strip_prefix("HTTP/1.0 "))?.get(..3)?.parse().ok()
    }
}

/// Why a read ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The other side closed or reset.
    Closed,
    /// It said nothing for as long as one was willing to wait.
    Silent,
    /// Everything asked for was read.
    Limit,
}
