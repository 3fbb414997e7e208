//! What the self-check counts, for `/metrics`.

use daemon::metrics::{Meters, level};
use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::machine::{State, Transition};
use super::status::Status;

/// Counters and gauges.
#[derive(Clone, Debug)]
pub struct Metrics {
    state: IntGaugeVec,
    transitions: IntCounterVec,
    probes: IntCounterVec,
    /// How long a round of probes takes.
    pub probe_seconds: Histogram,
    routes: IntGaugeVec,
    sessions: IntGaugeVec,
    speaker_up: IntGauge,
    last: IntGauge,
    kept: IntGauge,
    order_unkept: IntGauge,
    /// Times that an ill sun was announced because too few others were well.
    pub guard_holds: IntCounter,
    /// Changes of state that the file of the history lacks.
    pub history_dropped: IntCounter,
    others_up: IntGauge,
    penalty: Gauge,
    certificate_expires: IntGauge,
    descriptors_percent: Gauge,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// When the registry has metrics of the same names.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let meters = Meters::new(registry, "sun_check_");
        Ok(Self {
            state: meters.gauges("state", "1 for the state that the sun is in.", &["state"])?,
            transitions: meters.counters("transitions_total", "Changes of state.", &["from", "to", "cause"])?,
            probes: meters.counters("probes_total", "Probes by what was wrong, or good.", &["result"])?,
            probe_seconds: meters.histogram(
                "probe_seconds",
                "How long the slowest address of a probe took.",
                &SECONDS,
            )?,
            routes: meters.gauges("routes", "Prefixes that are announced; absent: not known.", &["as"])?,
            sessions: meters.gauges(
                "bgp_sessions",
                "BGP sessions to routers that are up; absent: not known.",
                &["family"],
            )?,
            speaker_up: meters.gauge("speaker_up", "Whether the speaker does what it is told.")?,
            kept: meters.gauge("slow", "Whether the sun is slow and announced as before, as most of its group is.")?,
            order_unkept: meters.gauge(
                "order_unkept",
                "Whether a restart forgets what the operator ordered last: it cannot be written.",
            )?,
            last: meters.gauge("last", "Whether the sun is ill and announced as the last of its group.")?,
            guard_holds: meters.counter("guard_holds_total", "Times that an ill sun was announced as the last.")?,
            history_dropped: meters
                .counter("history_dropped_total", "Changes of state that history.jsonl lacks: the disk hung.")?,
            others_up: meters.gauge("others_up", "Other members of the group that are known to be Up.")?,
            penalty: meters.fraction("penalty", "The penalty for falls.")?,
            certificate_expires: meters.gauge(
                "certificate_expires_seconds",
                "When the certificate that the sun shows expires, seconds since 1970.",
            )?,
            descriptors_percent: meters.fraction("descriptors_percent", "Open descriptors of the sun's limit.")?,
        })
    }

    /// A probe ended; no word: it was good.
    pub fn probed(&self, cause: &str) {
        self.probes.with_label_values(&[if cause.is_empty() { "good" } else { cause }]).inc();
    }

    /// The state changed.
    pub fn moved(&self, transition: &Transition) {
        let (from, to) = (name(transition.from), name(transition.to));
        self.transitions.with_label_values(&[from, to, transition.cause]).inc();
    }

    /// Everything that is a level.
    pub fn show(&self, status: &Status) {
        for state in STATES {
            self.state.with_label_values(&[name(state)]).set(i64::from(state == status.state));
        }
        let speaker = &status.speaker;
        for (of, count) in [("best", speaker.routes.map(|routes| routes.0)), ("drain", speaker.routes.map(|of| of.1))] {
            set_or_remove(&self.routes, of, count.map(level));
        }
        let sessions = speaker.sessions;
        for (of, count) in [("ipv4", sessions.map(|of| of.ipv4.up)), ("ipv6", sessions.map(|of| of.ipv6.up))] {
            set_or_remove(&self.sessions, of, count.map(level));
        }
        self.speaker_up.set(i64::from(speaker.problem.is_none()));
        self.kept.set(i64::from(status.kept));
        self.order_unkept.set(i64::from(status.unkept.is_some()));
        self.last.set(i64::from(status.last));
        self.others_up.set(level(status.view.up));
        self.penalty.set(status.penalty);
        if let Some(probe) = &status.probe {
            // A probe that ends before a certificate is shown says nothing of it: the last one stays.
            if let Some(expires) = probe.certificate_expires {
                self.certificate_expires.set(expires);
            }
            self.descriptors_percent.set(probe.descriptors_percent.unwrap_or(0.0));
        }
    }
}

/// What is not known is absent: an old level would look like a new one.
fn set_or_remove(gauges: &IntGaugeVec, label: &str, level: Option<i64>) {
    match level {
        Some(level) => gauges.with_label_values(&[label]).set(level),
        // It may be absent already.
        None => drop(gauges.remove_label_values(&[label])),
    }
}

const fn name(state: State) -> &'static str {
    match state {
        State::Init => "init",
        State::Rising => "rising",
        State::Up => "up",
        State::Falling => "falling",
        State::Down => "down",
        State::Draining => "draining",
        State::Disabled => "disabled",
        State::Held => "held",
    }
}

/// Bounds of the buckets of probes.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0];

const STATES: [State; 8] =
    [State::Init, State::Rising, State::Up, State::Falling, State::Down, State::Draining, State::Disabled, State::Held];

#[cfg(test)]
mod tests {
    use super::super::config::SpeakerKind;
    use super::super::machine::Announce;
    use super::super::speaker::{Count, Sessions, Speaking};
    use super::*;

    #[test]
    fn what_is_not_known_of_a_speaker_is_absent() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let mut status = Status::new("sun4-2-1", State::Up, Speaking::new(SpeakerKind::Bird), 0);
        let shown = |status: &Status| {
            metrics.show(status);
            let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
            let of = |line: &&str| line.starts_with("sun_check_routes") || line.starts_with("sun_check_bgp");
            text.lines().filter(of).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(shown(&status), [""; 0]);
        status.speaker.announced = Some(Announce::Best);
        status.speaker.routes = Some((2, 0));
        status.speaker.sessions = Some(Sessions { ipv4: Count { up: 1, all: 2 }, ipv6: Count::default() });
        let expected = [
            "sun_check_bgp_sessions{family=\"ipv4\"} 1",
            "sun_check_bgp_sessions{family=\"ipv6\"} 0",
            "sun_check_routes{as=\"best\"} 2",
            "sun_check_routes{as=\"drain\"} 0",
        ];
        assert_eq!(shown(&status), expected);
        status.speaker = Speaking::new(SpeakerKind::Bird);
        assert_eq!(shown(&status), [""; 0]);
    }
}
