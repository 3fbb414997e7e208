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
    sessions: IntGauge,
    speaker_up: IntGauge,
    last: IntGauge,
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
            routes: meters.gauges("routes", "Prefixes that are announced.", &["as"])?,
            sessions: meters.gauge("bgp_sessions", "BGP sessions that are up.")?,
            speaker_up: meters.gauge("speaker_up", "Whether the speaker does what it is told.")?,
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
        self.routes.with_label_values(&["best"]).set(level(speaker.routes.0));
        self.routes.with_label_values(&["drain"]).set(level(speaker.routes.1));
        self.sessions.set(level(speaker.sessions.map_or(0, |(up, _)| up)));
        self.speaker_up.set(i64::from(speaker.problem.is_none()));
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
