//! Which certificate the sun shows, and whether clients would take it.
//!
//! A certificate counts when a client that trusts the authorities of one file would accept it for the server's name, or when it
//! is itself in that file. Whatever comes of that, the certificate is kept, so that its expiry is known.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::validity::not_after;

/// Whom to trust. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Trust {
    pinned: Arc<Vec<CertificateDer<'static>>>,
    authorities: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

/// The certificate of one connection.
#[derive(Clone, Debug, Default)]
pub struct Shown(Arc<Mutex<Option<CertificateDer<'static>>>>);

impl Trust {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// When it cannot be read or holds no certificate.
    pub fn load(file: &Path) -> Result<Self, String> {
        let at = |why: String| format!("probe.trust: {}: {why}", file.display());
        let certificates: Vec<CertificateDer<'static>> =
            CertificateDer::pem_file_iter(file).and_then(Iterator::collect).map_err(|error| at(error.to_string()))?;
        if certificates.is_empty() {
            return Err(at("it holds no certificate".to_owned()));
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        // Not all that may be pinned can sign others.
        let (taken, _) = roots.add_parsable_certificates(certificates.iter().cloned());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let authorities = (taken > 0).then(|| verifier.build()).transpose().map_err(|error| at(error.to_string()))?;
        Ok(Self { pinned: Arc::new(certificates), authorities, provider })
    }

    /// Settings of one connection, and where its certificate will be. No session is resumed: a certificate is shown each time.
    ///
    /// # Errors
    ///
    /// When the provider lacks a protocol version, which aws-lc-rs does not.
    pub fn client(&self) -> Result<(Arc<ClientConfig>, Shown), rustls::Error> {
        let shown = Shown::default();
        let verifier = Looking { trust: self.clone(), shown: shown.clone() };
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok((Arc::new(config), shown))
    }
}

impl Shown {
    /// Until when it is valid, seconds since 1970; none: none was shown, or it cannot be read.
    #[must_use]
    pub fn not_after(&self) -> Option<i64> {
        not_after(self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?)
    }
}

/// Keeps what it sees.
#[derive(Debug)]
struct Looking {
    trust: Trust,
    shown: Shown,
}

impl ServerCertVerifier for Looking {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.shown.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(leaf.clone().into_owned());
        if self.trust.pinned.contains(leaf) {
            let expires = not_after(leaf).ok_or(CertificateError::BadEncoding)?;
            let expired = u64::try_from(expires).is_ok_and(|expires| expires < now.as_secs());
            return if expired { Err(CertificateError::Expired.into()) } else { Ok(ServerCertVerified::assertion()) };
        }
        match &self.trust.authorities {
            Some(authorities) => authorities.verify_server_cert(leaf, intermediates, name, ocsp, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signed, &self.trust.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signed, &self.trust.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.provider.signature_verification_algorithms.supported_schemes()
    }
}
