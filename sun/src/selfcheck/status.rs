//! What the self-check tells of its sun: `GET /status` as JSON, `sun-check status` for people.

use std::fmt::Write as _;

use super::config::SpeakerKind;
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
    /// The operator took it out.
    pub order: Option<Disabled>,
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
            order: None,
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
        let mut text = format!("{} is {:?} for {}: {}\n", self.name, self.state, ago(self.since_ms), self.reason);
        if self.last {
            text += "  it is ill and announced all the same: too few others are well\n";
        }
        if self.kept {
            text += "  it is slow and announced as before: too many others are not Up, and have as much to do\n";
        }
        if let Some(order) = &self.order {
            let _ = writeln!(text, "  disabled for {}: {}", ago(order.since_ms), order.reason);
        }
        if self.leaving {
            text += "  it is to be disabled if others of its group are Up: they are asked, or the disk is waited for\n";
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
            let _ = writeln!(text, "warning    {warning}");
        }
        for member in &self.members {
            let _ = writeln!(text, "other      {}", member.text());
        }
        if self.needed {
            text += "           too few others are known to be Up: it would not be withdrawn now\n";
        }
        for entry in self.history.iter().rev().take(HISTORY_LINES) {
            let Entry { from, to, cause, reason, at_ms } = entry;
            let _ = writeln!(text, "{:>8} ago {from:?} -> {to:?} ({cause}): {reason}", ago(*at_ms));
        }
        text
    }

    fn announced(&self) -> String {
        let Speaking { kind, announced, routes, sessions, problem, .. } = &self.speaker;
        let mut text = match (announced, routes) {
            (Some(announced), Some((up, _))) => format!("{announced:?} by {kind:?}, {up} routes"),
            _ => format!("not known of {kind:?}"),
        };
        if let Some((_, drain @ 1..)) = routes {
            let _ = write!(text, ", {drain} with lower preference");
        }
        match sessions {
            Some(Sessions { ipv4, ipv6 }) => {
                for (family, Count { up, all }) in [("IPv4", ipv4), ("IPv6", ipv6)] {
                    if *all > 0 {
                        let _ = write!(text, ", {up} of {all} sessions of {family}");
                    }
                }
            }
            None if *kind == SpeakerKind::Exabgp => text += ", which does not tell of its sessions",
            None => {}
        }
        if *announced != Some(self.announce) && self.announce != Announce::Unchanged {
            let _ = write!(text, "; wanted is {:?}", self.announce);
        }
        if self.speaker.carried == Some(false) {
            text += "; no session carries all of its routes: the others do not count on it";
        }
        if let Some(problem) = problem {
            let _ = write!(text, "; {problem}");
            if announced.is_none() {
                text += "; until then nothing can be announced and nothing withdrawn";
            }
        }
        text
    }

    fn probed(&self, now_ms: u64) -> String {
        let Some(probe) = &self.probe else { return "none yet".to_owned() };
        let result = probe.problem.as_deref().unwrap_or("good");
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
                let _ = write!(text, " {:?}, {} ago", said.state, span(age_ms));
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
            let _ = write!(text, "; {problem} ({})", self.address);
        }
        if self.witnessed {
            text += "; the popularity API hears from its sun (which does not count)";
        }
        text
    }
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
            "announced  not known of Bird; wanted is Best; BIRD is away; until then nothing can be announced and nothing withdrawn\n",
            "sun4-2-2 Falling, 1 s ago, not announced, has not looked at its sun for 1 s; no answer within 250 ms (10.0.0.2:8084)\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        let json = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
    }
}
