//! The topology document as it is written: every key, nothing checked but its type.
//!
//! Numbers are as wide as TOML's, so that a weight of 300 is a problem that names the sun rather than a
//! failure to read the document. [`check`](super::check) makes the rest of it.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) version: i64,
    pub(super) domain: String,
    pub(super) default_region: i64,
    pub(super) content_servers: ContentServers,
    pub(super) signing: Option<Signing>,
    #[serde(default)]
    pub(super) region: Vec<Region>,
    #[serde(default)]
    pub(super) group: Vec<Group>,
    #[serde(default)]
    pub(super) sun: Vec<Server>,
    #[serde(default)]
    pub(super) cache: Vec<Server>,
    #[serde(default)]
    pub(super) class: Vec<Class>,
    #[serde(default)]
    pub(super) site: Vec<Site>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Site {
    pub(super) host: String,
    pub(super) content_server: i64,
    pub(super) origin_host: Option<String>,
    #[serde(default)]
    pub(super) opens_signed: bool,
    #[serde(default)]
    pub(super) class: Vec<Class>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ContentServers {
    pub(super) url: String,
    pub(super) numbers: Vec<String>,
    pub(super) public: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Signing {
    pub(super) key: String,
    #[serde(default)]
    pub(super) accepted: Vec<String>,
    #[serde(default = "skew_s")]
    pub(super) skew_s: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Region {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) latitude: f64,
    pub(super) longitude: f64,
    #[serde(default)]
    pub(super) neighbours: Vec<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) subnet: String,
}

/// A sun or a cache; `bytes` is a cache's alone, which the check sees to.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) addresses: Vec<String>,
    #[serde(default = "https_port")]
    pub(super) https_port: i64,
    pub(super) http_port: Option<i64>,
    pub(super) internal: String,
    pub(super) weight: i64,
    #[serde(default)]
    pub(super) draining: bool,
    #[serde(default = "nic_gbps")]
    pub(super) nic_gbps: f64,
    pub(super) bytes: Option<i64>,
}

/// Of the document's own or a site's; `ignore_query` is a site's alone, and what else depends on the policy has no
/// default here: the check sees to both.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Class {
    pub(super) name: String,
    pub(super) paths: Vec<String>,
    #[serde(default = "kind")]
    pub(super) kind: String,
    #[serde(default = "spread")]
    pub(super) spread: String,
    pub(super) policy: Option<String>,
    pub(super) ttl_s: Option<i64>,
    pub(super) negative_ttl: Option<BTreeMap<String, i64>>,
    pub(super) stale_if_error_s: Option<i64>,
    pub(super) stale_while_revalidate_s: Option<i64>,
    pub(super) ignore_query: Option<bool>,
    #[serde(default = "file_bytes_max")]
    pub(super) file_bytes_max: i64,
    pub(super) uploads: Option<Uploads>,
    pub(super) cors: Option<Cors>,
    pub(super) share_max: Option<f64>,
    #[serde(default)]
    pub(super) signed: bool,
    pub(super) link_ttl_s: Option<i64>,
    pub(super) link_covers: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Uploads {
    pub(super) bytes_max: i64,
    #[serde(default)]
    pub(super) bytes_per_second: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cors {
    pub(super) origins: Vec<String>,
    #[serde(default)]
    pub(super) expose_headers: Vec<String>,
}

const fn skew_s() -> i64 {
    super::signing::SKEW_S.cast_signed()
}

const fn https_port() -> i64 {
    443
}

const fn nic_gbps() -> f64 {
    10.0
}

fn kind() -> String {
    "light".to_owned()
}

fn spread() -> String {
    "auto".to_owned()
}

/// 16 GiB.
pub(super) const fn file_bytes_max() -> i64 {
    16 << 30
}
