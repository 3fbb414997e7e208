//! Settings of `geo serve`; `deploy/config/geo.toml` shows them all with their defaults.
//!
//! What is evidence (routers, rules, origins, lists, dumps, geoip, and how they are weighed) is taken over while the server
//! runs when the file changes; the rest counts from the next start.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bmp::Options;
use crate::engine::{Dump, Inputs};
use crate::feed::View;
use crate::feed::framing::MESSAGE_BYTES_MAX;
use crate::rib::{Feed, FeedKind, Fits, Limits as RibLimits, PeerClass};
use crate::route::SessionClass;
use crate::rules::{Origin, Rule};
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
    /// The topology's file. Default /etc/sun/topology.toml.
    pub topology: PathBuf,
    /// The saved table and the last good topology. Default /var/lib/sun/geo.
    pub data: PathBuf,
    /// Token file of all bearers. Default /etc/sun/tokens.toml.
    pub tokens: PathBuf,
    /// How long a drain may take, seconds. Default 10; too small: calls under way are cut, too large: a restart waits
    /// for the slowest caller.
    pub drain_s: u64,
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
    /// small: more switching, too large: RAM (some 100 KB each).
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
    /// Which of its tables counts: "pre-policy", "post-policy" or "loc-rib". Default "pre-policy": what the peers said.
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

/// Which peers have which class. Exactly one of `address` and `as` is given; an address is looked at before an AS.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// The peer at this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// All peers of this AS.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub peer_as: Option<u32>,
    /// Their class.
    pub class: SessionClass,
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
    /// What the router chose (RFC 9069).
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
            topology: "/etc/sun/topology.toml".into(),
            data: "/var/lib/sun/geo".into(),
            tokens: "/etc/sun/tokens.toml".into(),
            drain_s: 10,
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

impl Config {
    /// Everything that is wrong with it without a look at the files that it names.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut whole = |key: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                problems.push(format!("{key} = {value}: it is within {least}..={most}"));
            }
        };
        let size = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        whole("drain_s", self.drain_s, 0, DAY_S);
        // RFC 7854: a route monitoring message holds one BGP message, of up to 65,535 bytes (RFC 8654).
        whole("bmp.message_bytes_max", size(self.bmp.message_bytes_max), 1 << 16, 1 << 26);
        whole("bmp.queue_max", size(self.bmp.queue_max), 1, 1 << 20);
        whole("bmp.idle_s", self.bmp.idle_s, 1, 7 * DAY_S);
        whole("bmp.stale_s", self.bmp.stale_s, 0, 7 * DAY_S);
        whole("bmp.quiet_s", self.bmp.quiet_s, 0, DAY_S);
        whole("bmp.gate_s", self.bmp.gate_s, 0, DAY_S);
        whole("bmp.routes_max", self.bmp.routes_max.into(), 1, 1_000_000_000);
        whole("damping.stable_s", self.damping.stable_s, 0, DAY_S);
        whole("choice.ipv4_length_min", self.choice.ipv4_length_min.into(), 0, 32);
        whole("choice.ipv6_length_min", self.choice.ipv6_length_min.into(), 0, 128);
        whole("damping.pending_max", size(self.damping.pending_max), 1, 100_000_000);
        whole("publish.changes_max", size(self.publish.changes_max), 0, 100_000_000);
        whole("publish.save_s", self.publish.save_s, 1, DAY_S);
        whole("limits.connections_max", size(self.limits.connections_max), 1, 1_000_000);
        whole("limits.request_s", self.limits.request_s, 1, DAY_S);
        self.routers(&mut problems);
        problems
    }

    /// What the engine goes by.
    #[must_use]
    pub fn inputs(&self) -> Inputs {
        let dump = |mrt: &Mrt| Dump { file: mrt.file.clone(), region: mrt.region, class: mrt.class };
        Inputs {
            lists: self.list.clone(),
            lists_agree: false,
            dumps: self.mrt.iter().map(dump).collect(),
            rules: self.rule.clone(),
            origins: self.origin.clone(),
            geoip: self.geoip.files.clone(),
            countries: self.geoip.countries.clone(),
            feeds: self.router.iter().map(Router::feed).collect(),
            limits: RibLimits {
                routes_max: self.bmp.routes_max,
                stale: Duration::from_secs(self.bmp.stale_s),
                quiet: Duration::from_secs(self.bmp.quiet_s),
                gate: Duration::from_secs(self.bmp.gate_s),
                ..RibLimits::default()
            },
            choice: self.choice,
            damping: self.damping,
            changes_max: self.publish.changes_max,
        }
    }

    /// This config, as far as it counts at once, with the rest of `running`; and whether that rest is another one.
    #[must_use]
    pub fn taken_over(self, running: &Self) -> (Self, bool) {
        let new = self.clone();
        let taken = Self {
            listen: running.listen,
            admin: running.admin,
            topology: running.topology.clone(),
            data: running.data.clone(),
            tokens: running.tokens.clone(),
            drain_s: running.drain_s,
            bmp: running.bmp.clone(),
            publish: Publish { changes_max: self.publish.changes_max, ..running.publish },
            limits: running.limits.clone(),
            log: running.log.clone(),
            ..self
        };
        let differs = taken != new;
        (taken, differs)
    }

    fn routers(&self, problems: &mut Vec<String>) {
        if self.bmp.listen.is_none() && !self.router.is_empty() {
            problems.push("router: bmp.listen is missing: the routers have nowhere to connect to".to_owned());
        }
        for (index, router) in self.router.iter().enumerate() {
            let mut wrong = |what: String| problems.push(format!("router[{index}].{what}"));
            let earlier = self.router.iter().take(index);
            if router.name.is_empty() {
                wrong("name: is empty".to_owned());
            }
            for other in earlier {
                if other.name == router.name {
                    wrong(format!("name = {:?}: an earlier router has it", router.name));
                }
                if other.address.to_canonical() == router.address.to_canonical() {
                    wrong(format!("address = {}: it is {}'s, too", router.address, other.name));
                }
            }
            if !(1..=PREFIXES_MAX).contains(&router.prefixes_max) {
                wrong(format!("prefixes_max = {}: it is within 1..={PREFIXES_MAX}", router.prefixes_max));
            }
            for (index, peer) in router.peer.iter().enumerate() {
                if peer.address.is_some() == peer.peer_as.is_some() {
                    wrong(format!("peer[{index}]: give either address or as"));
                }
            }
        }
    }
}

impl Router {
    fn feed(&self) -> Feed {
        let class = |peer: &Peer| {
            let by_address = peer.address.map(|address| Fits::Address(address.to_canonical()));
            Some(PeerClass { fits: by_address.or(peer.peer_as.map(Fits::As))?, class: peer.class })
        };
        Feed {
            name: self.name.clone(),
            region: self.region,
            class: self.class,
            peers: self.peer.iter().filter_map(class).collect(),
            view: match self.view {
                WantedView::PrePolicy => View::PrePolicy,
                WantedView::PostPolicy => View::PostPolicy,
                WantedView::LocRib => View::LocRib,
            },
            prefixes_max: Some(self.prefixes_max),
            kind: FeedKind::Live,
        }
    }
}

const DAY_S: u64 = 86_400;
const PREFIXES_MAX: u32 = 100_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_shows_the_defaults_and_every_option() {
        let text = include_str!("../../../deploy/config/geo.toml");
        let shipped: Config = daemon::config::parse(text, "geo.toml").unwrap();
        assert_eq!(shipped, Config::default());
        let all = serde_json::to_value(Config::default()).unwrap();
        for (key, value) in all.as_object().unwrap() {
            assert!(text.contains(key.as_str()), "{key} is not in the shipped file");
            for inner in value.as_object().into_iter().flat_map(|table| table.keys()) {
                assert!(text.contains(inner.as_str()), "{key}.{inner} is not in the shipped file");
            }
        }
    }

    /// Tables of which there may be several have no default; the file shows one of each, commented out.
    #[test]
    fn what_the_shipped_file_shows_commented_out_is_read() {
        let text = include_str!("../../../deploy/config/geo.toml");
        let is_key = |rest: &str| rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
        let shown = |rest: &&str| rest.starts_with('[') || is_key(rest);
        let line = |line| format!("{}\n", str::strip_prefix(line, "# ").filter(shown).unwrap_or(line));
        let uncommented: String = text.lines().map(line).collect();
        let config: Config = daemon::config::parse(&uncommented, "geo.toml").unwrap();
        assert_eq!(config.problems(), Vec::<String>::new());
        let several = [
            config.router.len(),
            config.router[0].peer.len(),
            config.mrt.len(),
            config.list.len(),
            config.rule.len(),
            config.origin.len(),
        ];
        assert_eq!(several, [1, 2, 1, 2, 3, 1], "{config:?}");
        assert!(config.bmp.listen.is_some() && config.geoip.files.is_empty());
    }

    #[test]
    fn bad_settings_are_named() {
        check("", &[]);
        check("drain_s = 100000", &["drain_s = 100000: it is within 0..=86400"]);
        check("bmp.message_bytes_max = 1000", &["bmp.message_bytes_max = 1000: it is within 65536..=67108864"]);
        check("publish.save_s = 0", &["publish.save_s = 0: it is within 1..=86400"]);
        check("limits.request_s = 0", &["limits.request_s = 0: it is within 1..=86400"]);
        check("damping.pending_max = 0", &["damping.pending_max = 0: it is within 1..=100000000"]);
    }

    #[test]
    fn what_cannot_be_taken_over_stays_and_is_told() {
        let parse = |text: &str| daemon::config::parse::<Config>(text, "test").unwrap();
        let running = parse("drain_s = 7");
        for (text, differs) in [
            ("drain_s = 7", false),
            ("drain_s = 7\n[[origin]]\nas = 64500\nregion = 4", false),
            ("drain_s = 7\n[damping]\nstable_s = 1\n[publish]\nchanges_max = 1", false),
            ("drain_s = 8", true),
            ("drain_s = 7\n[publish]\nsave_s = 1", true),
            ("drain_s = 7\n[bmp]\nlisten = '127.0.0.1:1'", true),
        ] {
            let (taken, found) = parse(text).taken_over(&running);
            assert_eq!(found, differs, "{text}");
            assert_eq!((taken.drain_s, taken.bmp.listen, taken.publish.save_s), (7, None, 60), "{text}");
            assert_eq!((taken.origin, taken.damping), (parse(text).origin, parse(text).damping), "{text}");
        }
    }

    #[test]
    fn routers_are_told_apart() {
        const ONE: &str = "[[router]]\nname = 'a'\naddress = '10.0.0.1'\nregion = 4\nclass = 'transit'\n";
        let listening = |routers: &str| format!("bmp.listen = '10.0.0.9:11019'\n{routers}");
        check(&listening(ONE), &[]);
        check(ONE, &["router: bmp.listen is missing: the routers have nowhere to connect to"]);
        check(
            &listening(&format!("{ONE}{}", ONE.replace("10.0.0.1", "10.0.0.2"))),
            &["router[1].name = \"a\": an earlier router has it"],
        );
        check(
            &listening(&format!("{ONE}{}", ONE.replace("'a'", "'b'").replace("10.0.0.1", "::ffff:10.0.0.1"))),
            &["router[1].address = ::ffff:10.0.0.1: it is a's, too"],
        );
        check(
            &listening(&format!("{ONE}[[router.peer]]\nclass = 'private'")),
            &["router[0].peer[0]: give either address or as"],
        );
        check(
            &listening(&format!("{ONE}prefixes_max = 0")),
            &["router[0].prefixes_max = 0: it is within 1..=100000000"],
        );
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let config: Config = daemon::config::parse(text, "test").unwrap();
        assert_eq!(config.problems(), expected, "{text}");
    }
}
