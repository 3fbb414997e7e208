//! Settings of an edge; `deploy/config/sun.toml` shows them all with their defaults.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::store::StoreConfig;
use crate::store::policy::Admission;

/// Settings of an edge (a sun, or the serving side of a cache).
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Name in the topology, `sun4-2-1` or `cache4-1`. No default.
    pub name: String,
    /// TLS listeners. Default 0.0.0.0:443 and [::]:443.
    pub https: Vec<SocketAddr>,
    /// Plain HTTP listeners. Default none.
    pub http: Vec<SocketAddr>,
    /// Listener for other servers, never where clients are. Default 127.0.0.1:8081.
    pub internal: SocketAddr,
    /// Admin port. Default 127.0.0.1:9081.
    pub admin: SocketAddr,
    /// Where the topology is: a file, or a key of an etcd cluster. Default the file /etc/sun/topology.toml.
    pub topology: geo::Source,
    /// Last good topology, when the last start was, and downloads that are not reported yet. Default /var/lib/sun/edge.
    pub data: PathBuf,
    /// Evidence for the region of a client. Default none.
    pub geo: geo::resolver::Sources,
    /// Certificate chains and keys (PEM), reread when they change; SNI chooses by the names in them,
    /// the first is for clients without or with an unknown name.
    pub certificates: Vec<Certificate>,
    /// File with the secret that the group's session tickets are sealed with, reread when it changes; see
    /// [`crate::tickets`]. Default none: tickets end with this process, and no other sun opens them.
    pub ticket_secret: Option<PathBuf>,
    /// File with the keys that signed links are checked with (see [`popularity_api::signing::Keys`]), reread when it
    /// changes. Default none: files of classes that are `signed` are refused.
    pub signing_keys: Option<PathBuf>,
    /// The popularity API. Default none: nothing is reported, and owners are the topology's.
    pub popularity: Option<popularity_api::ClientConfig>,
    /// Tokens of those who may use the internal listener. Default /etc/sun/tokens.toml.
    pub tokens: PathBuf,
    /// File with this server's own token. Default /etc/sun/token.
    pub token: PathBuf,
    /// RAM for cached files, bytes. Default 1 GiB; too small: files are fetched again and again, too large: the
    /// machine swaps. Fills and connections come on top.
    pub ram_bytes: u64,
    /// Devices of the NVMe tier. Default none.
    pub store: Vec<StoreConfig>,
    /// Bytes that all of them together may be written a day, reinsertions included; a day's may be written at once, on top
    /// of what is regained meanwhile. 0: no bound. Default: `bytes` of them all, one drive write a day. Too small: files
    /// are fetched again before they are stored; too large: drives wear out before their time.
    pub store_write_bytes_per_day: Option<u64>,
    /// Whether a file is stored when it is first fetched ("always": while the day's bytes last) or only when it is
    /// fetched again ("second-offer": least wear). Default "always".
    pub store_admission: Admission,
    /// Threads that accept and serve, one accept loop each. Default 0: one a core; fewer leave cores idle, more
    /// take turns on them.
    pub workers: usize,
    /// Limits on clients.
    pub limits: Limits,
    /// How sources are asked.
    pub upstream: UpstreamConfig,
    /// Hot files.
    pub hot: HotConfig,
    /// When it takes less than its weight.
    pub rest: RestConfig,
    /// How often downloads and status are reported, milliseconds. Default 1000; too small: needless calls, too
    /// large (3000): this server counts as silent and is not linked.
    pub report_ms: u64,
    /// Downloads that the popularity API has not acknowledged.
    pub spool: SpoolConfig,
    /// How long a drain may take, seconds. Default 30; too small: downloads are cut off, too large: a restart
    /// waits for the slowest client. When a new process has taken over, idle HTTP/1.1 connections are kept for half of it.
    pub drain_s: u64,
    /// Logs.
    pub log: daemon::telemetry::LogConfig,
}

/// Downloads that the popularity API has not acknowledged: a file a batch in `spool` under `data`.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolConfig {
    /// What they take of the disk at most, bytes; beyond, the oldest are dropped, and counted. Default 268435456 (256 MiB):
    /// at most 18 hours of a batch a second, an hour of a server that hands out 2,000 different files a second. Too small:
    /// what was asked for while the API was away is missing in the ratings; too large: the disk is needed otherwise. 0:
    /// they wait in RAM, 32 MiB of them, and a restart loses them.
    pub bytes_max: u64,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self { bytes_max: 256 << 20 }
    }
}

/// Limits on clients.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Open connections of clients, and as many of other servers; more are closed at once. Default 16384; too small: clients are turned away, too
    /// large: descriptors run out (each costs one, and about 20 KiB). This machine itself may have 16 more: its self-check.
    pub connections_max: usize,
    /// From the first byte waited for to the whole head of a request, seconds; also how long an idle
    /// HTTP/1.1 connection is kept (one of HTTP/2 is kept while the client answers pings). Default 30; too small: slow clients are cut off, too large: idle ones pile up.
    pub head_s: u64,
    /// A TLS handshake, seconds. Default 10.
    pub handshake_s: u64,
    /// A response of which nothing can be sent is given up after so many seconds. Default 60.
    pub stall_s: u64,
    /// Head of a request, bytes. Default 16384; larger ones are refused with 431. At least 8192.
    pub head_bytes_max: usize,
    /// Requests at once on one HTTP/2 connection. Default 128.
    pub streams_max: u32,
}

/// How sources are asked.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamConfig {
    /// A connection, milliseconds. Default 1000; too small: distant content servers are never reached, too
    /// large: clients wait for dead ones.
    pub connect_ms: u64,
    /// PEM file of the authorities that certificates of content servers are checked by, where `content_servers.url` is
    /// `https://`. Default: those of this machine (Debian's package ca-certificates). Read at the start.
    pub ca: Option<PathBuf>,
    /// From the question to the head of the answer, milliseconds. Default 10000; too small: slow content
    /// servers look dead, too large: clients wait for hung ones.
    pub first_byte_ms: u64,
    /// Between two pieces of a body, milliseconds. Default 10000; as above.
    pub idle_ms: u64,
    /// Idle connections kept to each source. Default 64; too small: connections are made anew, too large:
    /// descriptors of the source are held.
    pub idle_connections_max: usize,
    /// Uploads, and other requests that only a content server can answer, under way at once. Default 4096; too
    /// small: they are answered 503, too large: each holds a descriptor and up to 128 KiB.
    pub passes_max: usize,
    /// Bytes that all fills together may hold. Default 268435456 (256 MiB); too small: fills wait for each
    /// other, readers that stand still lose their windows to others, and in the end there are 503s; too large: it
    /// comes on top of `ram_bytes`. One fill holds at most 5 MiB.
    pub in_flight_bytes: u64,
    /// Requests at once to one content server, each with a connection of its own. Default 256; too small: misses
    /// queue although the content server could serve them, too large: one that is slow takes all fills.
    pub requests_max: usize,
    /// Requests that may wait for that. Default 1024; more are answered 503 at once. Too small: bursts are
    /// refused, too large: clients wait for a content server that cannot keep up.
    pub queued_max: usize,
    /// How long they may wait, milliseconds. Default 3000; then 503. As `queued_max`.
    pub queued_ms: u64,
    /// Second requests, sent while the first is unusually slow, per hundred requests. Default 5; 0: none. Too
    /// small: clients wait for stalled connections, too large: sources carry more load just when they are slow.
    pub hedge_percent_max: u32,
    /// Shortest wait before a second request, milliseconds, however fast answers usually are. Default 50; too
    /// small: the usual jitter uses up the second requests, too large: they hardly help.
    pub hedge_ms_min: u64,
    /// Longest wait before a second request, milliseconds, and the wait while it is not known what is usual.
    /// Default 1000; too small: slow sources get second requests that do not help, too large: they come too late.
    pub hedge_ms_max: u64,
    /// Most that is fetched ahead of a client that asks for successive ranges, bytes. Default 16777216 (16 MiB);
    /// 0: nothing. Too small: players wait at every extent (1 MiB), too large: much is fetched for clients that
    /// leave.
    pub read_ahead_bytes: u64,
}

/// Hot files: what their owner does with links that name it alone.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct HotConfig {
    /// Pass requests for a hot file on to other suns that keep it, by 307. Default true; without it this sun serves
    /// all that links name it for, however much that is.
    pub redirect: bool,
    /// Load from which that begins, relative to the mean of the region's suns. Default 1.1; too small (at 1 or
    /// below): clients are sent on for nothing, too large: this sun stays busier than the others until links are
    /// made anew.
    pub redirect_above: f64,
}

impl Default for HotConfig {
    fn default() -> Self {
        Self { redirect: true, redirect_above: 1.1 }
    }
}

/// Resting: while its processors are pressed, a sun takes less than its weight.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestConfig {
    /// Default true; without it the weight alone counts, however pressed the sun is.
    pub enabled: bool,
    /// Where the kernel says how pressed processors are (pressure stall information); without such a file it never rests.
    /// Default /proc/pressure/cpu, the whole machine's; a control group's `cpu.pressure` tells of that alone.
    pub pressure_file: PathBuf,
    /// Pressure (`some avg10`, percent of the time in which something waits for a processor) above which it rests more.
    /// Default 80; too small: it rests on an ordinary evening, too large: never.
    pub pressure_high: f64,
    /// Pressure below which it rests less, percent. Default 40; too near to `pressure_high`: it goes up and down, and files
    /// change their sun each time, too small: it never recovers.
    pub pressure_low: f64,
    /// How long either has to last for one step, seconds. Default 30; too small: every peak moves files, too large: it is
    /// pressed for long.
    pub after_s: u64,
    /// What it takes less or more by at a time, a share of its weight. Default 0.05: 10 % a minute; too small: it is pressed
    /// for long, too large: many files move at once.
    pub step: f64,
    /// The least that it takes, a share of its weight. Default 0.5; too small: the others get its load, and may be pressed
    /// next, too large: resting is no relief.
    pub share_min: f64,
}

impl Default for RestConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            pressure_file: "/proc/pressure/cpu".into(),
            pressure_high: 80.0,
            pressure_low: 40.0,
            after_s: 30,
            step: 0.05,
            share_min: 0.5,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            head_s: 30,
            handshake_s: 10,
            stall_s: 60,
            head_bytes_max: 16_384,
            streams_max: 128,
        }
    }
}

impl Default for UpstreamConfig {
    fn default() -> Self {
        Self {
            connect_ms: 1000,
            ca: None,
            first_byte_ms: 10_000,
            idle_ms: 10_000,
            idle_connections_max: 64,
            passes_max: 4096,
            in_flight_bytes: 256 << 20,
            requests_max: 256,
            queued_max: 1024,
            queued_ms: 3000,
            hedge_percent_max: 5,
            hedge_ms_min: 50,
            hedge_ms_max: 1000,
            read_ahead_bytes: 16 << 20,
        }
    }
}

/// One certificate.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// PEM file: leaf first, then intermediates.
    pub chain: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: String::new(),
            https: vec![([0, 0, 0, 0], 443).into(), (std::net::Ipv6Addr::UNSPECIFIED, 443).into()],
            http: Vec::new(),
            internal: ([127, 0, 0, 1], 8081).into(),
            admin: ([127, 0, 0, 1], 9081).into(),
            topology: geo::Source::File("/etc/sun/topology.toml".into()),
            data: "/var/lib/sun/edge".into(),
            geo: geo::resolver::Sources::default(),
            certificates: Vec::new(),
            ticket_secret: None,
            signing_keys: None,
            popularity: None,
            tokens: "/etc/sun/tokens.toml".into(),
            token: "/etc/sun/token".into(),
            ram_bytes: 1 << 30,
            store: Vec::new(),
            store_write_bytes_per_day: None,
            store_admission: Admission::default(),
            workers: 0,
            limits: Limits::default(),
            upstream: UpstreamConfig::default(),
            hot: HotConfig::default(),
            rest: RestConfig::default(),
            report_ms: 1000,
            spool: SpoolConfig::default(),
            drain_s: 30,
            log: daemon::telemetry::LogConfig::default(),
        }
    }
}

impl Config {
    /// Threads that accept and serve.
    #[must_use]
    pub fn workers_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_shows_the_defaults() {
        let text = include_str!("../../deploy/config/sun.toml");
        let shipped: Config = daemon::config::parse(text, "sun.toml").unwrap();
        assert_eq!(shipped, Config::default());
    }

    #[test]
    fn the_shipped_file_names_every_option() {
        let text = include_str!("../../deploy/config/sun.toml");
        let all = Config {
            name: "sun4-2-1".into(),
            certificates: vec![Certificate { chain: "a".into(), key: "b".into() }],
            geo: geo::resolver::Sources { geoip: vec!["c".into()], ..Default::default() },
            popularity: Some(popularity_api::ClientConfig {
                url: "http://d".into(),
                token_file: "e".into(),
                timeout_ms: 2000,
            }),
            store: vec![StoreConfig { path: "f".into(), bytes: 1 << 30 }],
            store_write_bytes_per_day: Some(1 << 30),
            ticket_secret: Some("g".into()),
            signing_keys: Some("h".into()),
            ..Config::default()
        };
        for line in toml::to_string(&all).unwrap().lines() {
            let key = line.split(" =").next().unwrap().trim_start_matches('[').trim_end_matches(']');
            let key = key.rsplit('.').next().unwrap();
            assert!(text.contains(key), "{key} is not in the shipped file");
        }
    }
}
