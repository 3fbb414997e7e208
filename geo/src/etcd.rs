//! An etcd cluster, through the JSON gateway that every member of it has (etcd 3.4 and later).
//!
//! ```text
//!   POST /v3/kv/range          the document and its revision         |  any member; the next one when it does not answer
//!   POST /v3/kv/txn            a change, if nobody else made one     |
//!   POST /v3/watch             what changes after a revision         |  one member, until it fails
//!   POST /v3/auth/authenticate a token for user and password         |
//! ```
//!
//! With `https://` members are known by the authority in `ca`; `certificate` is for clusters that want one of their clients,
//! `user` for those with authentication.
//!
//! Reads are linearizable: a member without a leader answers none. Keys and values are base64, numbers are strings
//! ([`wire`]).
//!
//! Why not the crate `etcd-client`: it speaks gRPC, and building it takes `protoc`.

mod connection;
mod gateway;
pub mod wire;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::client::base_of;
pub(crate) use gateway::{CALL, Watching};
pub use gateway::{EtcdError, Gateway, Written};
pub use wire::{Document, Put, Stored};

/// A cluster, and the key of the document in it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Etcd {
    /// Members, `http://10.0.0.1:2379` or `https://etcd-1.example.org:2379`, all of one kind. No default.
    pub etcd: Vec<String>,
    /// The document's key. Default /sun/topology. What `sunctl` keeps of earlier ones is below `key` + ".history/".
    #[serde(default = "key")]
    pub key: String,
    /// Who reads it, where the cluster has authentication. Default nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// File with the user's password, which nobody but its owner may read. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// File with the certificates (PEM) of the authorities of the members' certificates; https:// needs it. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// File with the certificate that is shown to members which ask for one (PEM, its chain after it). Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// File with its private key (PEM), which nobody but its owner may read. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_key: Option<PathBuf>,
    /// How often it is asked whether the watch missed nothing and the member is in its cluster, milliseconds. Default 3000.
    /// Too small: a read of the cluster from every daemon so often; too large: a member that is cut off is noticed late.
    #[serde(default = "check_ms")]
    pub check_ms: u64,
}

impl Default for Etcd {
    fn default() -> Self {
        Self {
            etcd: Vec::new(),
            key: key(),
            user: None,
            password_file: None,
            ca: None,
            certificate: None,
            certificate_key: None,
            check_ms: check_ms(),
        }
    }
}

impl Etcd {
    /// Whether connections are encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.etcd.iter().any(|url| is_https(url))
    }

    /// What is wrong with it first.
    #[must_use]
    pub fn problems(&self) -> Option<String> {
        if !(1..=MEMBERS_MAX).contains(&self.etcd.len()) {
            return Some(format!("etcd: there are {} addresses: 1..={MEMBERS_MAX}", self.etcd.len()));
        }
        if let Some(url) = self.etcd.iter().find(|url| base_of(url, &["http", "https"]).is_none()) {
            return Some(format!("etcd: {url:?}: it has the form http://host:port or https://host:port"));
        }
        if self.is_tls() && self.etcd.iter().any(|url| !is_https(url)) {
            return Some("etcd: either all members have https:// or none".to_owned());
        }
        if self.is_tls() != self.ca.is_some() {
            return Some("https:// and ca, the file of the authority, belong together".to_owned());
        }
        if self.certificate.is_some() != self.certificate_key.is_some() || self.certificate.is_some() && !self.is_tls()
        {
            return Some("certificate and certificate_key belong together, and to https://".to_owned());
        }
        if !(1..=KEY_BYTES_MAX).contains(&self.key.len()) {
            return Some(format!("key: it has 1..={KEY_BYTES_MAX} bytes"));
        }
        if self.password_file.is_some() != self.user.is_some() {
            return Some("user and password_file belong together".to_owned());
        }
        let allowed = CHECK_MS;
        let checks = allowed.contains(&self.check_ms);
        (!checks).then(|| format!("check_ms = {}: {}..={}", self.check_ms, allowed.start(), allowed.end()))
    }
}

fn is_https(url: &str) -> bool {
    base_of(url, &["https"]).is_some()
}

fn key() -> String {
    "/sun/topology".to_owned()
}

const fn check_ms() -> u64 {
    3000
}

/// Addresses of one cluster; etcd advises at most seven members.
const MEMBERS_MAX: usize = 16;
const KEY_BYTES_MAX: usize = 512;
const CHECK_MS: std::ops::RangeInclusive<u64> = 100..=60_000;
