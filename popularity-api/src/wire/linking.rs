//! Where a client is to fetch a file.

use std::net::IpAddr;

use geo::{RegionId, Scheme};
use serde::{Deserialize, Serialize};

// ---- POST /v1/links ----------------------------------------------------------------------------

/// A back end asks for links.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LinksRequest {
    /// Address of the client who will follow the links.
    pub client: IpAddr,
    /// Canonical names or URL paths, at most [`LINKS_PER_REQUEST_MAX`].
    pub files: Vec<String>,
    /// Scheme of the links; servers without a port for it are passed over.
    #[serde(default)]
    pub scheme: Scheme,
    /// Say why each link names its server.
    #[serde(default)]
    pub explain: bool,
}

/// Links, in the order of the request's files.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Links {
    /// Regions of the client, best first.
    pub regions: Vec<RegionId>,
    /// One a file.
    pub links: Vec<Link>,
}

/// Where one file is to be fetched.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Link {
    /// As asked for.
    pub file: String,
    /// The link; none when the name is no file of ours (`error` says why).
    pub url: Option<String>,
    /// Name of the server, `cache4-1` or `sun4-2-1`; `content server 7` when the link leads there itself.
    pub server: Option<String>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// With `explain`: evidence for the region, order of suns, holders, hot spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explain: Option<Explanation>,
}

/// Why a link names its server.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Explanation {
    /// What told the region, "prefix 127.1.0.0/16". When another region comes first and has nobody to name, that too:
    /// "...; region 5 comes first, and no server of it can be linked".
    pub evidence: String,
    /// Region whose server the link names.
    pub region: RegionId,
    /// Suns of that region in the file's order, owner first.
    pub suns: Vec<String>,
    /// Caches of that region that hold it.
    pub holders: Vec<String>,
    /// How many suns share it, 1 unless hot.
    pub spread: usize,
    /// "held by a cache", "owner", "stand-in: owner is down", "hot: one of 3", ...
    pub reason: String,
    /// How the link is signed, where the file's class has signed links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<SignedBy>,
}

/// The signature of a link; see [`crate::signing`] for its form.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SignedBy {
    /// Id of the key.
    pub key: String,
    /// Until when the link is good, seconds since 1970.
    pub expires_s: u64,
    /// What it is good for, "file" or "folder /c7/films/1/".
    pub covers: String,
}

/// Files of one [`LinksRequest`].
pub const LINKS_PER_REQUEST_MAX: usize = 10_000;
