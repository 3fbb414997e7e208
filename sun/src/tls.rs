//! TLS 1.2 and 1.3 by rustls: certificates chosen by SNI, reread when their files change.
//!
//! A name is matched exactly, then by a wildcard for its first label (RFC 6125, section 6.4.3); a client
//! without a name, or with one that no certificate has, gets the first certificate. A changed file that cannot
//! be used leaves the running certificates in place, with one WARN.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::Certificate;
use crate::tickets::Tickets;

/// All certificates of an edge; replaced whole.
#[derive(Debug)]
pub struct Certificates {
    current: ArcSwap<ByName>,
}

#[derive(Debug)]
struct ByName {
    names: HashMap<String, Arc<CertifiedKey>>,
    first: Arc<CertifiedKey>,
}

/// Certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

impl Certificates {
    /// Reads all files.
    ///
    /// # Errors
    ///
    /// Which file, and what is wrong with it.
    pub fn load(files: &[Certificate]) -> Result<Self, TlsError> {
        Ok(Self { current: ArcSwap::from_pointee(ByName::load(files)?) })
    }

    /// Reads all files again; connections that are open keep what they have.
    ///
    /// # Errors
    ///
    /// As [`Certificates::load`]; the running certificates stay.
    pub fn reload(&self, files: &[Certificate]) -> Result<(), TlsError> {
        self.current.store(Arc::new(ByName::load(files)?));
        Ok(())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().choose(hello.server_name()))
    }
}

impl ByName {
    fn load(files: &[Certificate]) -> Result<Self, TlsError> {
        let mut names = HashMap::new();
        let mut first = None;
        for file in files {
            let key = Arc::new(read(file)?);
            first.get_or_insert_with(|| Arc::clone(&key));
            for name in dns_names(&key).map_err(|why| at(&file.chain, &why))? {
                names.entry(name).or_insert_with(|| Arc::clone(&key));
            }
        }
        let first = first.ok_or_else(|| TlsError("certificates: a TLS listener needs at least one".to_owned()))?;
        Ok(Self { names, first })
    }

    fn choose(&self, name: Option<&str>) -> Arc<CertifiedKey> {
        let name = name.map(str::to_ascii_lowercase);
        let exact = name.as_ref().and_then(|name| self.names.get(name));
        let wildcard = || name.as_ref()?.split_once('.').and_then(|(_, rest)| self.names.get(&format!("*.{rest}")));
        Arc::clone(exact.or_else(wildcard).unwrap_or(&self.first))
    }
}

fn read(file: &Certificate) -> Result<CertifiedKey, TlsError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&file.chain)
        .and_then(Iterator::collect)
        .map_err(|error| at(&file.chain, &error))?;
    if chain.is_empty() {
        return Err(at(&file.chain, &"it holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_file(&file.key).map_err(|error| at(&file.key, &error))?;
    let key = aws_lc_rs::sign::any_supported_type(&key).map_err(|error| at(&file.key, &error))?;
    let certified = CertifiedKey::new(chain, key);
    certified
        .keys_match()
        .map_err(|error| at(&file.key, &format!("it does not fit {}: {error}", file.chain.display())))?;
    Ok(certified)
}

fn dns_names(key: &CertifiedKey) -> Result<Vec<String>, String> {
    let leaf = key.end_entity_cert().map_err(|error| error.to_string())?;
    let leaf = webpki::EndEntityCert::try_from(leaf).map_err(|error| error.to_string())?;
    Ok(leaf.valid_dns_names().map(str::to_ascii_lowercase).collect())
}

fn at(file: &Path, why: &dyn std::fmt::Display) -> TlsError {
    TlsError(format!("{}: {why}", file.display()))
}

/// The TLS side of the public listeners: HTTP/2 and HTTP/1.1 by ALPN. Early data (0-RTT) is neither offered nor taken.
///
/// # Errors
///
/// When the provider lacks a protocol version, which aws-lc-rs does not.
pub fn server_config(
    certificates: Arc<Certificates>,
    tickets: Arc<Tickets>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = tickets;
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 2;
    Ok(Arc::new(config))
}
