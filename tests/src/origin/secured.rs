//! TLS before a content server: what it is asked goes on to one that speaks plain HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::certificates::Files;

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Secured {
    shown: Arc<Mutex<Arc<ServerConfig>>>,
    listening: tokio::task::JoinHandle<()>,
}

impl Secured {
    /// Listens at `address` with a certificate, and passes everything on to `behind`.
    ///
    /// # Panics
    ///
    /// When the address is taken, or the certificate cannot be read.
    pub async fn start(address: SocketAddr, behind: SocketAddr, certificate: &Files) -> Self {
        let listener = TcpListener::bind(address).await.expect("an address of the test's own");
        let shown = Arc::new(Mutex::new(config(certificate)));
        let showing = Arc::clone(&shown);
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let config = Arc::clone(&showing.lock().expect("no holder panics"));
                tokio::spawn(pass(stream, behind, TlsAcceptor::from(config)));
            }
        });
        Self { shown, listening }
    }

    /// Shows another certificate to connections from now on.
    ///
    /// # Panics
    ///
    /// When it cannot be read.
    pub fn show(&self, certificate: &Files) {
        *self.shown.lock().expect("no holder panics") = config(certificate);
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn pass(stream: TcpStream, behind: SocketAddr, acceptor: TlsAcceptor) {
    // Whoever does not like the certificate ends here.
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let mut onward = TcpStream::connect(behind).await.expect("the content server behind");
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
}

fn config(certificate: &Files) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(&certificate.chain).and_then(Iterator::collect).expect("a chain");
    let key = PrivateKeyDer::from_pem_file(&certificate.key).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(rustls::DEFAULT_VERSIONS);
    let config = config.expect("TLS 1.2 and 1.3").with_no_client_auth().with_single_cert(chain, key);
    Arc::new(config.expect("a certificate with its key"))
}
