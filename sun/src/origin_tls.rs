//! TLS to content servers: whom to trust, and the connector of every question to a source.
//!
//! ```text
//!   http://10.0.0.7:8080/...        servers of ours, content servers of this network: plain TCP
//!   https://cs7.storage.example/... a content server elsewhere: TLS, its certificate checked for the host of the URL
//! ```
//!
//! The host of the URL is the one that is connected to, asked for by SNI (RFC 6066, section 3) and looked for in the
//! certificate, also where a site's `origin_host` is what the request says as `Host`. HTTP/1.1 only: a medium has a connection
//! for itself, and no other stream waits behind it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::config::UpstreamConfig;

/// Connects to any source.
pub type Connector = HttpsConnector<HttpConnector>;

/// Why no certificate of a content server could be checked.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file of `upstream.ca`.
    #[error("upstream.ca: {}: {why}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No protocol version in common with the provider, which aws-lc-rs does not do.
    #[error("TLS to content servers: {0}")]
    Tls(#[from] rustls::Error),
}

/// TLS of a client of content servers, which trusts the authorities of `upstream.ca`, or those of this machine.
///
/// # Errors
///
/// When `upstream.ca` cannot be read or holds no certificate. A machine without authorities is no error before a content
/// server has to be trusted.
pub fn client(config: &UpstreamConfig) -> Result<ClientConfig, TrustError> {
    let roots = match &config.ca {
        Some(file) => of_file(file).map_err(|why| TrustError::File { file: file.clone(), why })?,
        None => of_machine(),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = &[&rustls::version::TLS13, &rustls::version::TLS12];
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// What is wrong for a topology whose content servers are asked with TLS, or may be one day.
#[must_use]
pub fn problem(config: &UpstreamConfig, topology: &geo::Topology) -> Option<String> {
    let is_needed = topology.content_servers.url.starts_with("https://");
    match &config.ca {
        None => (is_needed && of_machine().is_empty()).then(|| NO_AUTHORITIES.to_owned()),
        Some(_) => client(config).err().map(|error| error.to_string()),
    }
}

/// Connects with the deadline of `upstream.connect_ms`; a handshake has that of the answer's head.
///
/// # Errors
///
/// As [`client`].
pub fn connector(config: &UpstreamConfig) -> Result<Connector, TrustError> {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(Duration::from_millis(config.connect_ms)));
    tcp.enforce_http(false);
    let tls = HttpsConnectorBuilder::new().with_tls_config(client(config)?);
    Ok(tls.https_or_http().enable_http1().wrap_connector(tcp))
}

fn of_file(file: &Path) -> Result<RootCertStore, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut roots = RootCertStore::empty();
    for certificate in read.map_err(|error| error.to_string())? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("it holds no certificate (PEM) of an authority".to_owned()) } else { Ok(roots) }
}

/// Those that cannot be read are left out: a machine has hundreds.
fn of_machine() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

const NO_AUTHORITIES: &str = "content_servers.url is https://, and this machine has no certificates of authorities: \
    install its package ca-certificates, or name a file in upstream.ca";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_authorities_is_read_or_said_to_be_none() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("ca.pem");
        let told = |content: &str| {
            std::fs::write(&file, content).unwrap();
            client(&UpstreamConfig { ca: Some(file.clone()), ..UpstreamConfig::default() }).err().map(|e| e.to_string())
        };
        let why = format!("upstream.ca: {}: it holds no certificate (PEM) of an authority", file.display());
        assert_eq!(told("no certificate"), Some(why));
        let key = rcgen::KeyPair::generate().unwrap();
        let authority = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        assert_eq!(told(&authority.pem()), None);
        let away = UpstreamConfig { ca: Some(place.path().join("none")), ..UpstreamConfig::default() };
        assert!(client(&away).unwrap_err().to_string().contains("none: "), "{:?}", client(&away));
    }
}
