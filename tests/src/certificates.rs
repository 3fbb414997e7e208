//! A throw-away certificate authority: nothing outside a test trusts it, and its keys die with the test's folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;

/// An authority that can issue certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    root_pem: String,
}

/// Where an issued certificate lies.
#[derive(Clone, Debug)]
pub struct Files {
    /// PEM chain.
    pub chain: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
}

impl Authority {
    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Sun's tests, throw-away");
        let key = KeyPair::generate().expect("a key");
        let root = params.self_signed(&key).expect("a root certificate");
        Self { root: root.der().clone(), root_pem: root.pem(), issuer: Issuer::new(params, key) }
    }

    /// Its root certificate, for programs that trust a file.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// Writes a certificate for the names, `*.cdn.test` or an address, to `folder/stem.pem` and `folder/stem.key`.
    #[must_use]
    pub fn issue(&self, folder: &Path, stem: &str, names: &[&str]) -> Files {
        self.issue_until(folder, stem, names, None)
    }

    /// The same, of a certificate that is valid until then, to the second.
    #[must_use]
    pub fn issue_valid_until(&self, folder: &Path, stem: &str, names: &[&str], end: SystemTime) -> Files {
        let since = end.duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs();
        let first = rcgen::date_time_ymd(2001, 1, 1);
        let last = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(since);
        self.issue_between(folder, stem, names, |params| (params.not_before, params.not_after) = (first, last))
    }

    /// The same, of a certificate whose subject has no name: etcd takes no other from clients of its gateway, where it has users.
    #[must_use]
    pub fn issue_nameless(&self, folder: &Path, stem: &str) -> Files {
        self.issue_between(folder, stem, &[stem], |params| {
            params.distinguished_name = rcgen::DistinguishedName::new();
        })
    }

    /// The same, of a certificate that expired years ago.
    #[must_use]
    pub fn issue_expired(&self, folder: &Path, stem: &str, names: &[&str]) -> Files {
        self.issue_until(folder, stem, names, Some(2001))
    }

    fn issue_until(&self, folder: &Path, stem: &str, names: &[&str], year: Option<i32>) -> Files {
        self.issue_between(folder, stem, names, |params| {
            if let Some(year) = year {
                params.not_before = rcgen::date_time_ymd(year - 1, 1, 1);
                params.not_after = rcgen::date_time_ymd(year, 1, 1);
            }
        })
    }

    fn issue_between(
        &self,
        folder: &Path,
        stem: &str,
        names: &[&str],
        dated: impl FnOnce(&mut CertificateParams),
    ) -> Files {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, stem);
        dated(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let files = Files { chain: folder.join(format!("{stem}.pem")), key: folder.join(format!("{stem}.key")) };
        crate::files::write(&files.key, &key.serialize_pem());
        crate::files::write(&files.chain, &certificate.pem());
        files
    }

    /// TLS settings of a client that trusts this authority alone; `alpn` is what it offers, best first.
    #[must_use]
    pub fn client(&self, alpn: &[&[u8]]) -> Arc<rustls::ClientConfig> {
        self.client_of(alpn, rustls::DEFAULT_VERSIONS)
    }

    /// The same, of certain versions of TLS.
    #[must_use]
    pub fn client_of(
        &self,
        alpn: &[&[u8]],
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.root.clone()).expect("our own root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
