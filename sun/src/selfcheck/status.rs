//! What the self-check tells of its sun: `GET /status` as JSON, `sun-check status` for people.

use std::fmt::Write as _;

use super::config::SpeakerKind;
use super::driver::UNLISTED;
use super::history::{Disabled, Entry};
use super::machine::{Announce, State, View};
use super::peers::{Member, Peer};
use super::pressure::Pressure;
use super::speaker::{Count, Sessions, Speaking};

/// Everything; the body of `GET /status`.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Status {
    /// The sun.
    pub name: String,
    /// Its state.
    pub state: State,
    /// Why it is in it.
    pub reason: String,
    /// Since when, milliseconds since 1970.
    pub since_ms: u64,
    /// What is to be announced.
    pub announce: Announce,
    /// It is ill, and announced because too few others are well.
    pub last: bool,
    /// It is slow, and announced as before because most of its group is.
    pub kept: bool,
    /// Too few others are known to be Up: it would not be withdrawn now.
    pub needed: bool,
    /// The operator wants it out, and the others are being asked.
    pub leaving: bool,
    /// The topology drains it.
    pub draining: bool,
    /// The topology has no such sun any more; what is announced stays.
    #[serde(default)]
    pub unlisted: bool,
    /// The operator took it out.
    pub order: Option<Disabled>,
    /// Why a restart of this daemon forgets what the operator ordered last; null: it does not.
    #[serde(default)]
    pub unkept: Option<String>,
    /// The penalty for its falls.
    pub penalty: f64,
    /// The last probe; null: there was none yet.
    pub probe: Option<Probed>,
    /// What is not as it should be, and is no reason to withdraw.
    pub warnings: Vec<String>,
    /// How much is lost waiting.
    pub pressure: Pressure,
    /// The speaker.
    pub speaker: Speaking,
    /// What counts of the others.
    pub view: View,
    /// The others.
    pub members: Vec<Member>,
    /// The last changes, oldest first.
    pub history: Vec<Entry>,
}

/// A round of probes.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Probed {
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// The slowest address, milliseconds.
    pub took_ms: f64,
    /// What was wrong; null: nothing.
    pub problem: Option<String>,
    /// The sun's process.
    pub pid: Option<u32>,
    /// When the certificate that was shown expires, seconds since 1970.
    pub certificate_expires: Option<i64>,
    /// Open descriptors in percent of the sun's limit.
    pub descriptors_percent: Option<f64>,
}

impl Status {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(name: &str, state: State, speaker: Speaking, now_ms: u64) -> Self {
        Self {
            name: name.to_owned(),
            state,
            reason: "nothing is known yet".to_owned(),
            since_ms: now_ms,
            announce: Announce::Unchanged,
            last: false,
            kept: false,
            needed: true,
            leaving: false,
            draining: false,
            unlisted: false,
            order: None,
            unkept: None,
            penalty: 0.0,
            probe: None,
            warnings: Vec::new(),
            pressure: Pressure::default(),
            speaker,
            view: View::default(),
            members: Vec::new(),
            history: Vec::new(),
        }
    }

    /// What the others are told, with the age of the last round of probes and their pause, milliseconds.
    #[must_use]
    pub fn peer(&self, round_age_ms: u64, every_ms: u64) -> Peer {
        Peer {
            name: self.name.clone(),
            state: self.state,
            reachable: self.speaker.reaches_clients(),
            last: self.last,
            leaving: self.leaving,
            round_age_ms,
            every_ms,
        }
    }

    /// For people; `now_ms` in milliseconds since 1970.
    #[must_use]
    pub fn text(&self, now_ms: u64) -> String {
        let ago = |at_ms: u64| span(now_ms.saturating_sub(at_ms));
        let mut text = format!("{} is {} for {}: {}\n", self.name, self.state, ago(self.since_ms), plain(&self.reason));
        if self.last {
            text += "  it is ill and announced all the same: too few others are well\n";
        }
        if self.kept {
            text += "  it is slow and announced as before: too many others are not Up, and have as much to do\n";
        }
        if let Some(now) = self.meanwhile() {
            let _ = writeln!(text, "  that is why it fell; now: {now}");
        }
        // As long as it is why the sun is where it is, it stands above.
        if let Some(order) = self.order.as_ref().filter(|order| order.reason != self.reason) {
            let _ = writeln!(text, "  disabled for {}: {}", ago(order.since_ms), plain(&order.reason));
        }
        if let Some(why) = &self.unkept {
            let why = plain(why);
            let _ =
                writeln!(text, "  a restart of sun-check forgets what was ordered last: it cannot be written ({why})");
        }
        if self.leaving {
            text += "  it is to be disabled if others of its group are Up: they are asked\n";
        }
        if self.unlisted {
            let _ = writeln!(text, "  {UNLISTED}");
        }
        if self.draining {
            text += "  the topology drains it\n";
        }
        let _ = writeln!(text, "announced  {}", self.announced());
        let _ = writeln!(text, "probe      {}", self.probed(now_ms));
        if self.penalty >= 1.0 {
            let _ = writeln!(text, "penalty    {:.0} for falls", self.penalty);
        }
        if self.pressure.is_unknown() {
            text += "pressure   this kernel does not tell (/proc/pressure)\n";
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "warning    {}", plain(warning));
        }
        for member in &self.members {
            let _ = writeln!(text, "other      {}", member.text());
        }
        if self.needed {
            text += "           too few others are known to be Up: it would not be withdrawn now\n";
        }
        for entry in self.history.iter().rev().take(HISTORY_LINES) {
            let _ = writeln!(text, "{:>8} ago {}", ago(entry.at_ms), entry.text());
        }
        text
    }

    /// What the last probe of a sun that fell found, if it is something else than what it fell for.
    fn meanwhile(&self) -> Option<String> {
        let fell = matches!(self.state, State::Falling | State::Down | State::Held);
        let probe = self.probe.as_ref().filter(|_| fell)?;
        match probe.problem.as_deref() {
            Some(problem) => (problem != self.reason && problem != AS_BEFORE).then(|| plain(problem)),
            None => Some("the last probe was good".to_owned()),
        }
    }

    fn announced(&self) -> String {
        let Speaking { kind, announced, routes, sessions, problem, .. } = &self.speaker;
        let mut text = match (announced, routes) {
            _ if *kind == SpeakerKind::None => format!("by {kind}"),
            (Some(Announce::Nothing), _) => format!("nothing by {kind}"),
            (Some(_), Some((best, 0))) => format!("{} as best by {kind}", routes_of(*best)),
            (Some(_), Some((0, drain))) => format!("{} with a lower preference by {kind}", routes_of(*drain)),
            (Some(_), Some((best, drain))) => {
                format!("{} as best and {drain} with a lower preference by {kind}", routes_of(*best))
            }
            _ => format!("not known of {kind}"),
        };
        match sessions {
            Some(Sessions { ipv4, ipv6 }) => {
                for (family, Count { up, all }) in [("IPv4", ipv4), ("IPv6", ipv6)] {
                    if *all > 0 {
                        let _ = write!(text, ", {up} of {all} sessions of {family}");
                    }
                }
            }
            None if *kind == SpeakerKind::Exabgp => text += ", whose sessions are not known",
            None => {}
        }
        if *announced != Some(self.announce) && self.announce != Announce::Unchanged {
            let _ = match self.announce {
                Announce::Nothing => write!(text, "; nothing is to be announced"),
                announce => write!(text, "; it is to be announced {announce}"),
            };
        }
        if self.speaker.carried == Some(false) {
            text += "; no session carries all of its routes: the others do not count on it";
        }
        if let Some(problem) = problem {
            let _ = write!(text, "; {}", plain(problem));
            if announced.is_none() {
                text += "; until then nothing can be announced and nothing withdrawn";
            }
        }
        text
    }

    fn probed(&self, now_ms: u64) -> String {
        let Some(probe) = &self.probe else { return "none yet".to_owned() };
        let result = probe.problem.as_deref().map_or_else(|| "good".to_owned(), plain);
        let mut text = format!("{} ago, {:.1} ms: {result}", span(now_ms.saturating_sub(probe.at_ms)), probe.took_ms);
        if let Some(expires) = probe.certificate_expires {
            let left_s = expires - i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
            let _ = match left_s {
                ..0 => write!(text, "; its certificate has expired"),
                _ => write!(text, "; its certificate is good for {} days", left_s / 86_400),
            };
        }
        text
    }
}

impl Member {
    fn text(&self) -> String {
        let mut text = self.name.clone();
        match (&self.said, self.age_ms) {
            (Some(said), Some(age_ms)) => {
                let _ = write!(text, " {}, {} ago", said.state, span(age_ms));
                if !said.reachable {
                    text += ", not announced";
                }
                if said.leaving {
                    text += ", about to be disabled";
                }
                if said.is_stuck() {
                    let _ = write!(text, ", has not looked at its sun for {}", span(said.round_age_ms));
                }
                if said.last {
                    text += ", ill and announced as the last";
                }
            }
            _ => text += " never answered",
        }
        if let Some(problem) = &self.problem {
            let _ = write!(text, "; {} ({})", plain(problem), self.address);
        }
        if self.witnessed {
            text += "; the popularity API hears from its sun (which does not count)";
        }
        text
    }
}

impl Entry {
    /// For people, one line.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { from, to, cause, reason, .. } = self;
        let (cause, reason) = (plain(cause), plain(reason));
        if from == to { format!("{to} ({cause}): {reason}") } else { format!("{from} -> {to} ({cause}): {reason}") }
    }
}

fn routes_of(count: usize) -> String {
    if count == 1 { "1 route".to_owned() } else { format!("{count} routes") }
}

/// A text of somebody else as it may stand on a line of a terminal: what controls it, or turns its direction, is escaped, and
/// what is longer than [`PLAIN_CHARACTERS_MAX`] is cut.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut shown = String::new();
    for (at, letter) in text.chars().enumerate() {
        if at == PLAIN_CHARACTERS_MAX {
            shown.push_str("...");
            break;
        }
        match letter {
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => {
                shown.extend(letter.escape_unicode());
            }
            _ if letter.is_control() => shown.extend(letter.escape_default()),
            _ => shown.push(letter),
        }
    }
    shown
}

/// A span of time, roughly.
fn span(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{} s", ms / 1000),
        60_000..3_600_000 => format!("{} min", ms / 60_000),
        3_600_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} days", ms / 86_400_000),
    }
}

/// What a round of probes is worth that had nothing new to look at.
pub const AS_BEFORE: &str = "as before, and not looked at again since";

/// A reason of an order and who gave it fit in.
const PLAIN_CHARACTERS_MAX: usize = 600;

/// Changes that people are shown; the JSON has more.
const HISTORY_LINES: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_what_and_why() {
        let mut status = Status::new("sun4-2-1", State::Down, Speaking::new(SpeakerKind::Bird), 0);
        status.reason = "nobody listens at 127.0.0.1:443".to_owned();
        status.last = true;
        status.announce = Announce::Best;
        status.speaker.problem = Some("BIRD is away".to_owned());
        let said = Peer {
            name: "sun4-2-2".into(),
            state: State::Falling,
            reachable: false,
            last: false,
            leaving: false,
            round_age_ms: 1600,
            every_ms: 500,
        };
        status.members = vec![Member {
            name: "sun4-2-2".into(),
            address: ([10, 0, 0, 2], 8084).into(),
            said: Some(said),
            age_ms: Some(1500),
            problem: Some("no answer within 250 ms".into()),
            witnessed: false,
        }];
        let text = status.text(61_000);
        for part in [
            "sun4-2-1 is Down for 1 min: nobody listens at 127.0.0.1:443\n",
            "it is ill and announced all the same: too few others are well\n",
            "announced  not known of BIRD; it is to be announced as best; BIRD is away; until then nothing can be announced and nothing withdrawn\n",
            "sun4-2-2 Falling, 1 s ago, not announced, has not looked at its sun for 1 s; no answer within 250 ms (10.0.0.2:8084)\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        let json = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
    }

    #[test]
    fn what_is_announced_is_told_in_words() {
        let check = |kind, announced, routes, wanted, expected: &str| {
            let mut status = Status::new("sun4-2-1", State::Up, Speaking::new(kind), 0);
            (status.speaker.announced, status.speaker.routes, status.announce) = (announced, routes, wanted);
            assert_eq!(status.announced(), expected);
        };
        let bird = SpeakerKind::Bird;
        check(bird, Some(Announce::Best), Some((2, 0)), Announce::Best, "2 routes as best by BIRD");
        check(bird, Some(Announce::Drain), Some((0, 1)), Announce::Drain, "1 route with a lower preference by BIRD");
        check(
            bird,
            Some(Announce::Best),
            Some((1, 2)),
            Announce::Drain,
            "1 route as best and 2 with a lower preference by BIRD; it is to be announced with a lower preference",
        );
        check(
            bird,
            Some(Announce::Best),
            Some((2, 0)),
            Announce::Nothing,
            "2 routes as best by BIRD; nothing is to be announced",
        );
        check(bird, Some(Announce::Nothing), Some((0, 0)), Announce::Nothing, "nothing by BIRD");
        let none = SpeakerKind::None;
        check(none, Some(Announce::Best), Some((0, 0)), Announce::Best, "by nobody (speaker.kind = \"none\")");
    }

    #[test]
    fn what_is_wrong_now_is_told_beside_what_a_sun_fell_for() {
        let check = |state, problem: Option<&str>, expected: Option<&str>| {
            let mut status = Status::new("sun4-2-1", state, Speaking::new(SpeakerKind::Bird), 0);
            status.reason = "nobody listens".to_owned();
            status.probe = Some(Probed {
                at_ms: 0,
                took_ms: 1.0,
                problem: problem.map(str::to_owned),
                pid: None,
                certificate_expires: None,
                descriptors_percent: None,
            });
            assert_eq!(status.meanwhile().as_deref(), expected);
        };
        check(State::Down, Some("the certificate has expired"), Some("the certificate has expired"));
        check(State::Down, Some("nobody listens"), None);
        check(State::Down, Some(AS_BEFORE), None);
        check(State::Held, None, Some("the last probe was good"));
        check(State::Up, None, None);
    }

    #[test]
    fn what_somebody_wrote_stays_on_its_line_and_moves_no_cursor() {
        let mut status = Status::new("sun4-2-1", State::Disabled, Speaking::new(SpeakerKind::Bird), 0);
        status.reason = "new disk\nsun4-2-1 is Up\u{1b}[2J\u{202e}".to_owned();
        status.order = Some(Disabled { since_ms: 0, reason: status.reason.clone() });
        let (from, to, cause) = (State::Up, State::Disabled, "operator".to_owned());
        status.history = vec![Entry { at_ms: 0, from, to, cause, reason: status.reason.clone() }];
        let text = status.text(0);
        assert_eq!(text.matches("new disk\\nsun4-2-1 is Up\\u{1b}[2J\\u{202e}\n").count(), 2, "{text}");
        status.reason = "the disk is full".to_owned();
        assert_eq!(status.text(0).matches("new disk\\nsun4").count(), 2, "an order that is not the reason");
        assert_eq!(plain(&"ä".repeat(1000)), "ä".repeat(PLAIN_CHARACTERS_MAX) + "...");
    }
}
