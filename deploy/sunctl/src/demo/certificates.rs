//! A certificate authority that lives as long as the demo, and the servers' certificates.
//!
//! Its own key is never written anywhere, so what trusts its certificate trusts nothing that is made later.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::folder::{write, write_private};

/// A throw-away authority.
#[derive(Debug)]
pub struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority with a new key.
    ///
    /// # Errors
    ///
    /// When no key can be made.
    pub fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Sun demo, throw-away CA");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().context("a key for the demo's CA")?;
        let certificate = params.self_signed(&key)?;
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// The authority's own certificate, for `curl --cacert`.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        self.certificate.pem()
    }

    /// Issues a certificate for `names`, the first of which names its files in `folder`; returns chain and key.
    ///
    /// # Errors
    ///
    /// When the files cannot be written.
    pub fn issue(&self, folder: &Path, names: &[String]) -> anyhow::Result<(PathBuf, PathBuf)> {
        let name = names.first().context("a certificate has at least one name")?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().with_context(|| format!("a key for {name}"))?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let (chain_file, key_file) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        write(&chain_file, &certificate.pem())?;
        write_private(&key_file, &key.serialize_pem())?;
        Ok((chain_file, key_file))
    }
}
