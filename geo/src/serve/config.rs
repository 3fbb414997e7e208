//! Settings of `geo serve`; `deploy/config/geo.toml` shows them all with their defaults.
//!
//! What is evidence (routers, rules, origins, lists, dumps, geoip, and how they are weighed) is taken over while the server
//! runs when the file changes; the rest counts from the next start.

mod check;
mod take;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bmp::Options;
use crate::feed::framing::MESSAGE_BYTES_MAX;
use crate::route::SessionClass;
use crate::rules::{Origin, Rule};
use crate::source::Source;
use crate::topology::RegionId;
use crate::{choice, damping, lists};

/// All settings.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the server listens; never where clients are. Default 127.0.0.1:8095.
    pub listen: SocketAddr,
    /// Admin port. Default 127.0.0.1:9095.
    pub admin: SocketAddr,
    /// Where the topology is: a file, or a key of an etcd cluster. Default the file /etc/sun/topology.toml.
    pub topology: Source,
    /// The saved table and the last good topology. Default /var/lib/sun/geo.
    pub data: PathBuf,
    /// Token file of all bearers. Default /etc/sun/tokens.toml.
    pub tokens: PathBuf,
    /// How long a drain may take, seconds. Default 10; too small: calls under way are cut, too large: a restart waits
    /// for the slowest caller.
    pub drain_s: u64,
    /// The share of its entries that a list, dump, geoip file or the config itself may lose in one change. Default 0.5; one
    /// that loses more (ten entries at least, or all) is refused until SIGHUP comes after that was said. Too
    /// small: ordinary changes wait for somebody, too large: an emptied file moves clients. 1 minds nothing.
    pub shrink_max: f64,
    /// Sessions with routers.
    pub bmp: Bmp,
    /// Routers that send their routes. Default none.
    pub router: Vec<Router>,
    /// Dumps of routing tables. Default none.
    pub mrt: Vec<Mrt>,
    /// Prefix lists. Default none.
    pub list: Vec<lists::Config>,
    /// What the operator says of prefixes, AS and communities. Default nothing.
    pub rule: Vec<Rule>,
    /// Regions of origin AS, for lists and dumps that do not say a region. Default none.
    pub origin: Vec<Origin>,
    /// Positions and countries of addresses, where nobody hears a route.
    pub geoip: Geoip,
    /// What counts as evidence.
    pub choice: choice::Options,
    /// How long a change has to last.
    pub damping: damping::Options,
    /// What is kept for followers and for the next start.
    pub publish: Publish,
    /// Bounds on callers.
    pub limits: Limits,
    /// Logs.
    pub log: daemon::telemetry::LogConfig,
}

/// Sessions with routers (BMP, RFC 7854).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bmp {
    /// Where routers connect to. Default none: nobody can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Longest message, bytes. Default 262144; too small: a router's long messages end its session, too large: each
    /// session may take as much RAM.
    pub message_bytes_max: usize,
    /// Batches of messages that were read and wait to be taken in, of all routers; beyond, routers wait. Default 64; too
    /// small: more switching, too large: RAM (each some 100 KB as a rule, but a router that means harm makes it up to 12 MB:
    /// a prefix of one byte takes 18 in RAM). At most 1024.
    pub queue_max: usize,
    /// A session that says nothing for so long is closed, seconds; RFC 7854 has no keepalives, so this has to be above
    /// the router's interval of statistics reports. Default 3600; too small: quiet routers reconnect and send everything
    /// again, too large: a router that vanished without a sign counts on.
    pub idle_s: u64,
    /// How long routes are kept after their session was lost, seconds; after a start the saved table stands for so long while
    /// a router is not connected. Default 900; too small: a restart of a router throws its clients back on geoip, too
    /// large: what is no longer so is gone by.
    pub stale_s: u64,
    /// A peer that told routes and then none for so long has told its whole table, seconds. Default 10; too small: with a router
    /// that pauses half a table counts, too large: routers that never say that they are done are heard late.
    pub quiet_s: u64,
    /// How long a session may take to send its whole table before what it sent counts, seconds. Default 120; too
    /// small: half a table counts, too large: a router that never says that it is done is heard late.
    pub gate_s: u64,
    /// Routes of all sessions. Default 16000000; too small: routes are refused, and a metric says so, too large: RAM (some 60
    /// bytes each).
    pub routes_max: u32,
}

/// A router that sends its routes.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Router {
    /// For people and metrics, "mow-r1".
    pub name: String,
    /// Where it connects from.
    pub address: IpAddr,
    /// The region that it stands in.
    pub region: RegionId,
    /// What its peers are, but for those of `peer`.
    pub class: SessionClass,
    /// Which of its tables counts: "pre-policy", "post-policy" or "loc-rib". Default "pre-policy": what the peers said. "loc-rib"
    /// only where the router has no sessions within its AS: its table has what they told, too.
    #[serde(default)]
    pub view: WantedView,
    /// Prefixes of one peer. Default 2000000, a full table and half of one more; too small: prefixes are refused and counted, too large: a
    /// peer that leaks takes the RAM.
    #[serde(default = "prefixes_max")]
    pub prefixes_max: u32,
    /// Peers of another class than the router's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peer: Vec<Peer>,
}

/// Which peers have which class, or are left out. Exactly one of `address` and `as` is given; an address is looked at before an
/// AS. Sessions within the router's own AS are left out by themselves: what they tell was heard elsewhere.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// The peer at this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// All peers of this AS.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub peer_as: Option<u32>,
    /// Their class; for those that are not left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<SessionClass>,
    /// They are left out: what they tell was heard elsewhere, as by a collector or from a router of the operator's other AS.
    /// Default false. Who is to be heard again is heard when its session comes up the next time.
    #[serde(default)]
    pub ignore: bool,
}

/// Which of a router's tables counts.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WantedView {
    /// What peers said (Adj-RIB-In before policy).
    #[default]
    PrePolicy,
    /// What of it was accepted.
    PostPolicy,
    /// What the router chose (RFC 9069), from whomever: `peer` cannot be given.
    LocRib,
}

/// A dump of a routing table (MRT, RFC 6396), plain, gzip or bzip2.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Mrt {
    /// The file.
    pub file: PathBuf,
    /// The region whose router it is of; without it routes are where `[[origin]]` has their origin AS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<RegionId>,
    /// What its peers are. Default "transit".
    #[serde(default = "transit")]
    pub class: SessionClass,
}

/// Positions and countries of addresses.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Geoip {
    /// City or country files in MaxMind's format; of several, IPv4 and IPv6 are each taken from the first that has it.
    /// Default none: who hears no route is in the default region.
    pub files: Vec<PathBuf>,
    /// The region of a country, for records without a position: `RU = 4`. Default none: such clients are in the
    /// default region.
    pub countries: BTreeMap<String, RegionId>,
}

/// What is kept for followers and for the next start.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Publish {
    /// Changes that are kept for followers. Default 200000; too small: who was away for a moment fetches the whole table,
    /// too large: RAM (some 100 bytes each).
    pub changes_max: usize,
    /// The table is saved when it changed, at most each so many seconds, and at the end. Default 60; too small: needless
    /// writing, too large: a start after a crash begins with what was so then.
    pub save_s: u64,
}

/// Bounds on callers.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Open connections; more wait. Each follower keeps one. Default 4096; too small: followers wait for each other,
    /// too large: descriptors run out.
    pub connections_max: usize,
    /// One call, seconds; half of it is the longest wait for a change. Default 20; too small: large questions fail, too
    /// large: hung ones hold their connection.
    pub request_s: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 8095).into(),
            admin: ([127, 0, 0, 1], 9095).into(),
            topology: Source::File("/etc/sun/topology.toml".into()),
            data: "/var/lib/sun/geo".into(),
            tokens: "/etc/sun/tokens.toml".into(),
            drain_s: 10,
            shrink_max: 0.5,
            bmp: Bmp::default(),
            router: Vec::new(),
            mrt: Vec::new(),
            list: Vec::new(),
            rule: Vec::new(),
            origin: Vec::new(),
            geoip: Geoip::default(),
            choice: choice::Options::default(),
            damping: damping::Options::default(),
            publish: Publish::default(),
            limits: Limits::default(),
            log: daemon::telemetry::LogConfig::default(),
        }
    }
}

impl Default for Bmp {
    fn default() -> Self {
        Self {
            listen: None,
            message_bytes_max: MESSAGE_BYTES_MAX,
            queue_max: 64,
            idle_s: 3600,
            stale_s: 900,
            quiet_s: 10,
            gate_s: 120,
            routes_max: 16_000_000,
        }
    }
}

impl Bmp {
    /// Bounds of a connection.
    #[must_use]
    pub const fn options(&self) -> Options {
        Options { idle: Duration::from_secs(self.idle_s), message_bytes_max: self.message_bytes_max }
    }
}

impl Default for Publish {
    fn default() -> Self {
        Self { changes_max: 200_000, save_s: 60 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections_max: 4096, request_s: 20 }
    }
}

const fn prefixes_max() -> u32 {
    2_000_000
}

const fn transit() -> SessionClass {
    SessionClass::Transit
}

#[cfg(test)]
mod tests;
