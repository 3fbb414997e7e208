//! Settings of `sun-check`; `deploy/config/sun-check.toml` shows them all with their defaults.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Settings of the self-check daemon of one sun.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Name of the sun in the topology, `sun4-2-1`. No default.
    pub name: String,
    /// Where the topology is: a file, or a key of an etcd cluster. Default the file /etc/sun/topology.toml.
    pub topology: geo::Source,
    /// History, the operator's order and the last good topology. Default /var/lib/sun/check; one process a folder.
    pub data: PathBuf,
    /// Admin port: metrics, /healthz, /readyz, `GET /status`, orders. Default 127.0.0.1:9084.
    pub admin: SocketAddr,
    /// Listener for the self-checks of the group, never where clients are. Default 127.0.0.1:8084.
    pub internal: SocketAddr,
    /// Tokens of those who may ask at `internal` and give orders at `admin`. Default /etc/sun/tokens.toml.
    pub tokens: PathBuf,
    /// File with this sun's own token. Default /etc/sun/token.
    pub token: PathBuf,
    /// Transitions that are kept, in memory and in `data`. Default 1000; too small: last week's outage is not seen any
    /// more, too large: it is disk and RAM, 300 bytes each.
    pub history_entries_max: usize,
    /// What becomes of the announcements when this daemon is stopped.
    pub on_stop: OnStop,
    /// How the sun is asked.
    pub probe: ProbeConfig,
    /// From probes to states.
    pub thresholds: Thresholds,
    /// What beside an answer counts.
    pub checks: Checks,
    /// Never the last of a group.
    pub guard: GuardConfig,
    /// Who announces.
    pub speaker: SpeakerConfig,
    /// The popularity API: from which suns it hears is shown beside what their self-checks say, and counts for nothing. Default
    /// none.
    pub popularity: Option<popularity_api::ClientConfig>,
    /// Logs.
    pub log: daemon::telemetry::LogConfig,
}

/// What becomes of the announcements when the daemon is stopped by SIGTERM.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStop {
    /// They are withdrawn before it ends.
    #[default]
    Withdraw,
    /// BIRD goes on announcing what it announces, unwatched, until the next self-check has started.
    Keep,
}

impl std::fmt::Display for OnStop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Withdraw => "what is announced is withdrawn",
            Self::Keep => "what is announced stays (on_stop = \"keep\")",
        })
    }
}

/// How the sun is asked.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProbeConfig {
    /// TLS listeners of the sun; all of them must answer. Default 127.0.0.1:443.
    pub addresses: Vec<SocketAddr>,
    /// Whether one of the sun's own addresses of each family is asked as well, at its port of the topology. Default "auto".
    pub own_address: OwnRule,
    /// The name that the certificate is asked for and checked by. Default: `NAME.DOMAIN` of the topology.
    pub server_name: Option<String>,
    /// PEM file of the authorities that certificates may be from, or of the sun's own certificate; reread when it changes.
    /// Default /etc/ssl/certs/ca-certificates.crt.
    pub trust: PathBuf,
    /// From one probe to the next, milliseconds. Default 500; too small: it is load, too large: a hung sun is
    /// noticed late.
    pub every_ms: u64,
    /// A probe that takes longer has failed, milliseconds; at most `every_ms`. Default 400; too small: a busy sun looks
    /// dead, too large: a hung one is noticed late.
    pub timeout_ms: u64,
}

/// When the sun's own addresses are asked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OwnRule {
    /// From when on this machine answers for them.
    #[default]
    Auto,
    /// Always: one for which it does not answer makes the sun ill.
    Always,
    /// Never.
    Never,
}

/// From probes to states.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Thresholds {
    /// Good probes in a row until it is announced. Default 3; too small: a sun that is still ill gets clients, too large:
    /// the others carry its load longer.
    pub rise: u32,
    /// Bad probes in a row until it is withdrawn; where nobody listens any more, one. Default 2; too small: one slow answer
    /// withdraws it, too large: clients of a hung sun wait longer, `every_ms` for each.
    pub fall: u32,
    /// What each fall adds to the penalty. Default 1000; 0: a flapping sun is never held.
    pub flap_penalty: f64,
    /// The penalty halves in this time, seconds. Default 300; too small: slow flapping is not noticed, too large: a sun is
    /// held for outages of long ago.
    pub flap_half_life_s: f64,
    /// A sun with a higher penalty is held when it would rise. Default 2500: the third fall within some minutes. Too small:
    /// a single fall holds it, too large: its routes flap.
    pub flap_hold_above: f64,
    /// It is let go below this. Default 1000; too small: it is held long, too large: it flaps on at once.
    pub flap_release_below: f64,
}

/// What beside an answer counts.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checks {
    /// Which failed devices of the NVMe tier make the sun ill. Default "all".
    pub disk: DiskRule,
    /// Open descriptors in percent of the sun's limit from which it is ill. Default 95; too small: it is withdrawn for
    /// nothing, too large (100): connections are refused before it is.
    pub descriptors_percent_max: f64,
    /// A certificate that expires sooner is warned of, days. Default 14; it is ill only when it has expired.
    pub certificate_warn_days: u32,
    /// Percent of the last ten seconds in which all tasks waited for memory (`full avg10` of /proc/pressure/memory) from
    /// which the sun is ill. Default 60; 0: never. Too small: a busy sun is withdrawn and the others are busier, too large:
    /// one that swaps keeps its clients.
    pub memory_full_percent_max: f64,
    /// The same of /proc/pressure/io. Default 0: never.
    pub io_full_percent_max: f64,
    /// Percent of the last ten seconds in which some task waited for a core (`some avg10` of /proc/pressure/cpu). Default 0:
    /// never; weights are made for that.
    pub cpu_some_percent_max: f64,
}

/// Which failed devices make the sun ill.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskRule {
    /// All of them together.
    #[default]
    All,
    /// Any one.
    Any,
    /// None: it serves from RAM and from others.
    Never,
}

/// Never the last of a group.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuardConfig {
    /// Other members of the group that must be known to be Up before this sun withdraws. Default 1; 0: it withdraws
    /// whatever the others do. Too large: one ill sun of a small group is never withdrawn.
    pub up_min: usize,
    /// Percent of the group that may be anything else than Up, one at least, when a sun leaves that serves and has too much to
    /// do: it answers late, its machine stalls, its descriptors run out. Beyond that it is announced as before. Default 25;
    /// too small (0): a slow sun is never withdrawn, too large (100: only `up_min` counts): an overload goes from one member to
    /// the next.
    pub slow_percent_max: usize,
    /// How often the others are asked, milliseconds. Default 250; too small: it is load, too large: what is known is old.
    pub every_ms: u64,
    /// They may take so long to answer, milliseconds; so long, twice at most, a withdrawal waits for them. Default 250; too
    /// small: a busy one does not count, too large: an ill sun is announced for longer when one of them is away.
    pub timeout_ms: u64,
    /// Until when their answers count, milliseconds; at least `every_ms` and `timeout_ms` together. Default 1000; too small: one
    /// lost answer keeps an ill sun announced, too large: one that died counts for longer.
    pub age_ms_max: u64,
    /// A sun that was not well since the start of this daemon is announced as the last of its group only after so many
    /// seconds. Default 10; too small: a restart announces a sun that is still starting, too large: a group that
    /// was restarted ill stays silent.
    pub start_wait_s: u64,
    /// Port of the others' self-checks, at their internal addresses. Default 8084.
    pub port: u16,
    /// Members whose self-check listens elsewhere, by name. Default none.
    pub peers: BTreeMap<String, SocketAddr>,
}

/// Who announces.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpeakerConfig {
    /// Which program. Default "none".
    pub kind: SpeakerKind,
    /// Control socket of BIRD. Default /run/bird/bird.ctl.
    pub socket: PathBuf,
    /// ExaBGP: how backups are ranked. Default "med".
    pub rank: Rank,
    /// ExaBGP with `rank = "prepend"`: the AS that is put into paths. Default 0, which is none.
    pub asn: u32,
    /// The next hop that ExaBGP announces. Default "self".
    pub next_hop: String,
    /// A round at the control socket (a look, orders, another look) may take so long, milliseconds. Default 1000, 1600 at most;
    /// too small: a busy BIRD looks away, too large: a hung one is noticed late.
    pub timeout_ms: u64,
    /// While it drains, the sun stays best for so many seconds before it is announced with a lower preference. Default 0; too
    /// small: clients that links brought a moment ago move in the middle of what they do, too large: draining takes long.
    pub drain_wait_s: u64,
}

/// Which program announces.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SpeakerKind {
    /// None: the state is told and nothing is announced.
    #[default]
    None,
    /// BIRD 2, through its control socket.
    Bird,
    /// ExaBGP, which starts this daemon: orders are lines on standard output.
    Exabgp,
}

impl std::fmt::Display for SpeakerKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::None => "nobody (speaker.kind = \"none\")",
            Self::Bird => "BIRD",
            Self::Exabgp => "ExaBGP",
        })
    }
}

/// How backups are ranked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rank {
    /// By MED, 100 a rank: among routes of one neighbouring AS.
    #[default]
    Med,
    /// By a longer AS path.
    Prepend,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: String::new(),
            topology: geo::Source::File("/etc/sun/topology.toml".into()),
            data: "/var/lib/sun/check".into(),
            admin: ([127, 0, 0, 1], 9084).into(),
            internal: ([127, 0, 0, 1], 8084).into(),
            tokens: "/etc/sun/tokens.toml".into(),
            token: "/etc/sun/token".into(),
            history_entries_max: 1000,
            on_stop: OnStop::default(),
            probe: ProbeConfig::default(),
            thresholds: Thresholds::default(),
            checks: Checks::default(),
            guard: GuardConfig::default(),
            speaker: SpeakerConfig::default(),
            popularity: None,
            log: daemon::telemetry::LogConfig::default(),
        }
    }
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self {
            addresses: vec![([127, 0, 0, 1], 443).into()],
            own_address: OwnRule::Auto,
            server_name: None,
            trust: "/etc/ssl/certs/ca-certificates.crt".into(),
            every_ms: 500,
            timeout_ms: 400,
        }
    }
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            rise: 3,
            fall: 2,
            flap_penalty: 1000.0,
            flap_half_life_s: 300.0,
            flap_hold_above: 2500.0,
            flap_release_below: 1000.0,
        }
    }
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            disk: DiskRule::All,
            descriptors_percent_max: 95.0,
            certificate_warn_days: 14,
            memory_full_percent_max: 60.0,
            io_full_percent_max: 0.0,
            cpu_some_percent_max: 0.0,
        }
    }
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self {
            up_min: 1,
            slow_percent_max: 25,
            every_ms: 250,
            timeout_ms: 250,
            age_ms_max: 1000,
            start_wait_s: 10,
            port: 8084,
            peers: BTreeMap::new(),
        }
    }
}

impl Default for SpeakerConfig {
    fn default() -> Self {
        Self {
            kind: SpeakerKind::None,
            socket: "/run/bird/bird.ctl".into(),
            rank: Rank::Med,
            asn: 0,
            next_hop: "self".into(),
            timeout_ms: 1000,
            drain_wait_s: 0,
        }
    }
}

impl Config {
    /// What is wrong with the values themselves, a sentence each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let (probe, thresholds, guard) = (&self.probe, &self.thresholds, &self.guard);
        let rules = [
            (self.name.is_empty(), "name: is missing; say which sun of the topology this is"),
            (probe.addresses.is_empty(), "probe.addresses: is empty; name a TLS listener of the sun"),
            (probe.addresses.len() > ADDRESSES_MAX, "probe.addresses: are more than 64"),
            (probe.every_ms < EVERY_MS_MIN, "probe.every_ms: is below 50"),
            (probe.timeout_ms == 0, "probe.timeout_ms: is 0"),
            (probe.timeout_ms > probe.every_ms, "probe.timeout_ms: is above probe.every_ms"),
            (thresholds.rise == 0, "thresholds.rise: is 0"),
            (thresholds.fall == 0, "thresholds.fall: is 0"),
            (!positive(thresholds.flap_half_life_s), "thresholds.flap_half_life_s: is not above 0"),
            (!not_negative(thresholds.flap_penalty), "thresholds.flap_penalty: is below 0"),
            (!positive(thresholds.flap_release_below), "thresholds.flap_release_below: is not above 0"),
            (
                thresholds.flap_release_below > thresholds.flap_hold_above,
                "thresholds.flap_release_below: is above thresholds.flap_hold_above",
            ),
            (guard.every_ms < EVERY_MS_MIN, "guard.every_ms: is below 50"),
            (guard.slow_percent_max > 100, "guard.slow_percent_max: is above 100"),
            (guard.timeout_ms == 0, "guard.timeout_ms: is 0"),
            (
                guard.age_ms_max < guard.every_ms.saturating_add(guard.timeout_ms),
                "guard.age_ms_max: is below guard.every_ms and guard.timeout_ms together",
            ),
            (
                self.speaker.asn == 0 && self.speaker.rank == Rank::Prepend,
                "speaker.asn: is missing; rank = \"prepend\" needs it",
            ),
            (self.speaker.timeout_ms == 0, "speaker.timeout_ms: is 0"),
            (
                self.speaker.timeout_ms > SPEAKER_TIMEOUT_MS_MAX,
                "speaker.timeout_ms: is above 1600: the withdrawal on a stop could be cut off",
            ),
            (self.history_entries_max == 0, "history_entries_max: is 0"),
        ];
        let percents = [
            ("descriptors_percent_max", self.checks.descriptors_percent_max),
            ("memory_full_percent_max", self.checks.memory_full_percent_max),
            ("io_full_percent_max", self.checks.io_full_percent_max),
            ("cpu_some_percent_max", self.checks.cpu_some_percent_max),
        ];
        let mut problems: Vec<String> =
            rules.iter().filter(|(wrong, _)| *wrong).map(|(_, what)| (*what).to_owned()).collect();
        let wrong = percents.iter().filter(|(_, percent)| !(0.0..=100.0).contains(percent));
        problems.extend(wrong.map(|(key, percent)| format!("checks.{key} = {percent}: is no percentage")));
        problems
    }
}

fn positive(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

fn not_negative(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

/// A round that is under way, the one that withdraws, what is repeated of it, and the routers' time to hear of it fit into
/// [`super::start::DRAIN_S`].
pub const SPEAKER_TIMEOUT_MS_MAX: u64 = 1600;

/// Listeners of one sun that are asked, beside an own address of each family.
pub const ADDRESSES_MAX: usize = 64;

/// Shortest pause of anything that repeats, milliseconds.
const EVERY_MS_MIN: u64 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_shows_the_defaults() {
        let text = include_str!("../../../deploy/config/sun-check.toml");
        let shipped: Config = daemon::config::parse(text, "sun-check.toml").unwrap();
        assert_eq!(shipped, Config::default());
        assert_eq!(shipped.problems(), ["name: is missing; say which sun of the topology this is"]);
    }

    #[test]
    fn a_speaker_may_not_take_longer_than_a_stop_leaves() {
        let problems = |timeout_ms| {
            let speaker = SpeakerConfig { timeout_ms, ..SpeakerConfig::default() };
            Config { name: "sun1-1-1".into(), speaker, ..Config::default() }.problems()
        };
        assert_eq!(problems(SPEAKER_TIMEOUT_MS_MAX), [""; 0]);
        assert!(problems(SPEAKER_TIMEOUT_MS_MAX + 1)[0].starts_with("speaker.timeout_ms: is above 1600"));
    }

    #[test]
    fn the_shipped_file_names_every_option() {
        let text = include_str!("../../../deploy/config/sun-check.toml");
        let popularity = popularity_api::ClientConfig { url: "http://a".into(), token_file: "b".into(), timeout_ms: 1 };
        let all = Config {
            name: "sun4-2-1".into(),
            probe: ProbeConfig { server_name: Some("c".into()), ..ProbeConfig::default() },
            popularity: Some(popularity),
            ..Config::default()
        };
        for line in toml::to_string(&all).unwrap().lines() {
            let key = line.split(" =").next().unwrap().trim_start_matches('[').trim_end_matches(']');
            let key = key.rsplit('.').next().unwrap();
            assert!(text.contains(key), "{key} is not in the shipped file");
        }
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        check("name = 'sun1-1-1'", &[]);
        check("name = 'a'\nprobe.every_ms = 300", &["probe.timeout_ms: is above probe.every_ms"]);
        check("name = 'a'\nthresholds.fall = 0", &["thresholds.fall: is 0"]);
        check("name = 'a'\nthresholds.flap_half_life_s = nan", &["thresholds.flap_half_life_s: is not above 0"]);
        check(
            "name = 'a'\nchecks.disk = 'any'\nchecks.cpu_some_percent_max = 101",
            &["checks.cpu_some_percent_max = 101: is no percentage"],
        );
        check(
            "name = 'a'\nguard.age_ms_max = 10",
            &["guard.age_ms_max: is below guard.every_ms and guard.timeout_ms together"],
        );
        check("name = 'a'\nguard.timeout_ms = 0", &["guard.timeout_ms: is 0"]);
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let config: Config = daemon::config::parse(text, "test").unwrap();
        assert_eq!(config.problems(), expected);
    }
}
