//! What the self-check counts, for `/metrics`.

use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

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
        let counters = |name: &str, text: &str, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
            let vector = IntCounterVec::new(Opts::new(name, text), labels)?;
            registry.register(Box::new(vector.clone()))?;
            Ok(vector)
        };
        let gauges = |name: &str, text: &str, labels: &[&str]| -> prometheus::Result<IntGaugeVec> {
            let vector = IntGaugeVec::new(Opts::new(name, text), labels)?;
            registry.register(Box::new(vector.clone()))?;
            Ok(vector)
        };
        let gauge = |name: &str, text: &str| -> prometheus::Result<IntGauge> {
            let gauge = IntGauge::new(name, text)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let float = |name: &str, text: &str| -> prometheus::Result<Gauge> {
            let gauge = Gauge::new(name, text)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let buckets = vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0];
        let seconds = HistogramOpts::new("sun_check_probe_seconds", "How long the slowest address of a probe took.");
        let probe_seconds = Histogram::with_opts(seconds.buckets(buckets))?;
        registry.register(Box::new(probe_seconds.clone()))?;
        let counter = |name: &str, text: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, text)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        Ok(Self {
            state: gauges("sun_check_state", "1 for the state that the sun is in.", &["state"])?,
            transitions: counters("sun_check_transitions_total", "Changes of state.", &["from", "to", "cause"])?,
            probes: counters("sun_check_probes_total", "Probes by what was wrong, or good.", &["result"])?,
            probe_seconds,
            routes: gauges("sun_check_routes", "Prefixes that are announced.", &["as"])?,
            sessions: gauge("sun_check_bgp_sessions", "BGP sessions that are up.")?,
            speaker_up: gauge("sun_check_speaker_up", "Whether the speaker does what it is told.")?,
            last: gauge("sun_check_last", "Whether the sun is ill and announced as the last of its group.")?,
            guard_holds: counter("sun_check_guard_holds_total", "Times that an ill sun was announced as the last.")?,
            history_dropped: counter(
                "sun_check_history_dropped_total",
                "Changes of state that history.jsonl lacks: the disk hung.",
            )?,
            others_up: gauge("sun_check_others_up", "Other members of the group that are known to be Up.")?,
            penalty: float("sun_check_penalty", "The penalty for falls.")?,
            certificate_expires: gauge(
                "sun_check_certificate_expires_seconds",
                "When the certificate that the sun shows expires, seconds since 1970.",
            )?,
            descriptors_percent: float("sun_check_descriptors_percent", "Open descriptors of the sun's limit.")?,
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
        let level = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
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

const STATES: [State; 8] =
    [State::Init, State::Rising, State::Up, State::Falling, State::Down, State::Draining, State::Disabled, State::Held];
