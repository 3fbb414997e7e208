//! What an edge counts, for `/metrics` and for its own status report.
//!
//! Counters are looked up by label once, at the start: a request touches atomics only.

mod report;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use daemon::metrics::{Meters, level};
use popularity_api::signing::Denied;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use crate::fill::FillError;
use crate::purge::{Purges, Verdict};
use crate::sources::Source;

pub use report::ReportMetrics;

/// Counters of one edge.
#[derive(Clone, Debug)]
pub struct Metrics {
    responses: IntCounterVec,
    outcomes: [(Outcome, IntCounter); 8],
    sent: IntCounter,
    upstream: IntCounter,
    fills: IntCounterVec,
    failures: IntCounterVec,
    resumes: IntCounter,
    hedges: IntCounterVec,
    /// Bytes that were asked for ahead of sequential readers.
    pub read_ahead: IntCounter,
    /// Those of them that the readers asked for afterwards.
    pub read_ahead_used: IntCounter,
    /// Questions that content servers are being asked.
    pub upstream_requests: IntGauge,
    /// Questions that wait for a place at a content server.
    pub upstream_queued: IntGauge,
    /// Open client connections.
    pub connections: IntGauge,
    /// Open connections of other servers.
    pub server_connections: IntGauge,
    /// Connections refused because there were too many.
    pub refused_connections: IntCounter,
    /// TLS handshakes that failed.
    pub failed_handshakes: IntCounter,
    /// TLS handshakes with a certificate and a key exchange.
    full_handshakes: IntCounter,
    /// TLS handshakes that resumed a session.
    resumed_handshakes: IntCounter,
    /// Session tickets that no key opened: too old, damaged, or of a sun with another secret.
    pub unknown_tickets: IntCounter,
    /// Pairs of certificate and key whose files changed and are not taken.
    pub certificates_refused: IntGauge,
    /// Certificates in use that are not valid.
    pub certificates_invalid: IntGauge,
    /// When the first certificate in use ends.
    pub certificates_end: IntGauge,
    /// Bytes in the RAM tier.
    pub ram_bytes: IntGauge,
    /// Downloads on their way to the popularity API.
    pub report: ReportMetrics,
    /// Requests for hot files that were passed on to a sibling.
    pub hot_redirects: IntCounter,
    /// Files that several suns of the region keep, this one among them.
    pub hot_files: IntGauge,
    /// Of those, the ones that this sun does not own.
    pub hot_copies: IntGauge,
    /// Files of which requests are being passed on.
    pub hot_passing: IntGauge,
    /// How much of its weight this sun takes, percent: less than 100 while it rests.
    pub rest_percent: IntGauge,
    signatures: IntCounterVec,
    /// Signing keys that the topology names and the key file does not have.
    pub keys_lacking: IntGauge,
    /// Version of the running topology.
    pub topology_version: IntGauge,
    purge_sequence: IntGauge,
    purge_direct: IntGauge,
    purge_rules: IntGauge,
    purge_gone: IntCounter,
    purge_stale: IntCounter,
    /// Questions to the purge log that failed.
    pub purge_failures: IntCounter,
    /// Requests and bytes since the start, for rates.
    pub totals: Arc<Totals>,
}

/// Plain totals of client traffic.
#[derive(Debug, Default)]
pub struct Totals {
    /// Requests answered.
    pub requests: AtomicU64,
    /// Body bytes sent.
    pub bytes: AtomicU64,
}

/// Who answered a client's request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The RAM tier.
    Ram,
    /// The vault of a cache.
    Vault,
    /// The NVMe tier of a sun.
    Store,
    /// Another sun.
    Sun,
    /// A cache of the region.
    Cache,
    /// The content server.
    Origin,
    /// The RAM tier, past its time, because nothing newer could be had.
    Stale,
    /// Nobody: an error.
    Refused,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Ram, Self::Vault, Self::Store, Self::Sun, Self::Cache, Self::Origin, Self::Stale, Self::Refused];

    /// As label and for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ram => "ram",
            Self::Vault => "vault",
            Self::Store => "store",
            Self::Sun => "sun",
            Self::Cache => "cache",
            Self::Origin => "origin",
            Self::Stale => "stale",
            Self::Refused => "refused",
        }
    }

    /// Of a fill's source.
    #[must_use]
    pub const fn of(source: &Source) -> Self {
        match source {
            Source::Sun { .. } | Source::Former { .. } => Self::Sun,
            Source::Cache { .. } => Self::Cache,
            Source::ContentServer { .. } => Self::Origin,
        }
    }
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    ///
    /// When the registry has something of the same name.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let meters = Meters::new(registry, "edge_");
        let vector = |name: &str, help: &str, label: &str| meters.counters(name, help, &[label]);
        let requests = vector("requests_total", "Requests of clients, by who answered.", "outcome")?;
        let found = vector("purge_found_total", "Held files that a lookup found purged.", "verdict")?;
        let handshakes = vector("handshakes_total", "TLS handshakes with clients that succeeded, by kind.", "kind")?;
        Ok(Self {
            responses: vector("responses_total", "Responses to clients, by status.", "status")?,
            outcomes: Outcome::ALL.map(|outcome| (outcome, requests.with_label_values(&[outcome.name()]))),
            sent: meters.counter("sent_bytes_total", "Body bytes sent to clients.")?,
            upstream: meters.counter("upstream_bytes_total", "Body bytes received from sources.")?,
            fills: vector("fills_total", "Fills that a source answered, by kind of source.", "source")?,
            failures: vector("fill_failures_total", "Fills that failed, by reason.", "reason")?,
            resumes: meters.counter("fill_resumes_total", "Fills that broke off and were resumed.")?,
            hedges: vector("hedges_total", "Second questions to slow sources, by who answered first.", "result")?,
            read_ahead: meters.counter("read_ahead_bytes_total", "Bytes asked for ahead of sequential readers.")?,
            read_ahead_used: meters
                .counter("read_ahead_used_bytes_total", "Bytes read ahead that readers then used.")?,
            upstream_requests: meters.gauge("upstream_requests", "Questions that content servers are being asked.")?,
            upstream_queued: meters.gauge("upstream_queued", "Questions that wait for a place at a content server.")?,
            connections: meters.gauge("connections", "Open connections of clients.")?,
            server_connections: meters.gauge("server_connections", "Open connections of other servers.")?,
            refused_connections: meters.counter("refused_connections_total", "Connections beyond the limit.")?,
            failed_handshakes: meters.counter("failed_handshakes_total", "TLS handshakes that failed.")?,
            full_handshakes: handshakes.with_label_values(&["full"]),
            resumed_handshakes: handshakes.with_label_values(&["resumed"]),
            unknown_tickets: meters.counter("unknown_tickets_total", "TLS session tickets that no key opened.")?,
            certificates_refused: meters.gauge(
                "certificates_refused",
                "Changed certificates that are not taken: broken, expired, not valid yet or others'. The ones before stay.",
            )?,
            certificates_invalid: meters
                .gauge("certificates_invalid", "Certificates in use that have expired or are not valid yet.")?,
            certificates_end: meters.gauge(
                "certificate_expires_timestamp_seconds",
                "When the first certificate in use expires, Unix time; 0: none is known.",
            )?,
            ram_bytes: meters.gauge("ram_bytes", "Bytes in the RAM tier.")?,
            report: ReportMetrics::new(registry)?,
            hot_redirects: meters.counter("hot_redirects_total", "Requests for hot files passed on to a sibling.")?,
            hot_files: meters.gauge("hot_files", "Files that several suns keep, this one among them.")?,
            hot_copies: meters.gauge("hot_copies", "Hot files that this sun keeps and does not own.")?,
            hot_passing: meters.gauge("hot_passing", "Hot files of which requests are passed on.")?,
            rest_percent: meters
                .gauge("rest_percent", "How much of its weight this sun takes, less than 100 while it rests.")?,
            signatures: vector("signatures_total", "Requests that need a signed link, by how it was.", "verdict")?,
            keys_lacking: meters.gauge("signing_keys_lacking", "Signing keys that signing_keys does not have.")?,
            topology_version: meters.gauge("topology_version", "Version of the running topology.")?,
            purge_sequence: meters.gauge("purge_sequence", "Entry of the purge log that is gone by.")?,
            purge_direct: meters.gauge("purge_direct", "Number of the last purge brought directly.")?,
            purge_rules: meters.gauge("purge_rules", "Purge rules that are kept.")?,
            purge_gone: found.with_label_values(&["gone"]),
            purge_stale: found.with_label_values(&["stale"]),
            purge_failures: meters.counter("purge_failures_total", "Questions to the purge log that failed.")?,
            totals: Arc::default(),
        })
    }

    /// A client's TLS handshake succeeded.
    pub fn handshake(&self, resumed: bool) {
        if resumed { &self.resumed_handshakes } else { &self.full_handshakes }.inc();
    }

    /// A client's request was answered with `status` by `outcome`.
    pub fn answered(&self, outcome: Outcome, status: http::StatusCode) {
        self.totals.requests.fetch_add(1, Ordering::Relaxed);
        self.responses.with_label_values(&[status.as_str()]).inc();
        self.outcome(outcome).inc();
    }

    /// A client's request needed a signed link, which was good or was not.
    pub fn signature(&self, verdict: Result<(), Denied>) {
        self.signatures.with_label_values(&[verdict.map_or_else(Denied::label, |()| "good")]).inc();
    }

    /// A client was sent on to a sibling: no request served.
    pub fn passed_on(&self) {
        self.hot_redirects.inc();
        self.responses.with_label_values(&[http::StatusCode::TEMPORARY_REDIRECT.as_str()]).inc();
    }

    /// Requests answered by `outcome` since the start.
    #[must_use]
    pub fn answered_by(&self, outcome: Outcome) -> u64 {
        self.outcome(outcome).get()
    }

    /// A meter for the bytes of one response.
    #[must_use]
    pub fn meter(&self) -> Sent {
        Sent { counter: self.sent.clone(), totals: Arc::clone(&self.totals) }
    }

    /// Bytes arrived from a source.
    pub fn upstream_bytes(&self, bytes: usize) {
        self.upstream.inc_by(bytes as u64);
    }

    /// A source gave a usable answer.
    pub fn fill_opened(&self, source: &Source) {
        self.fills.with_label_values(&[source.kind()]).inc();
    }

    /// A fill failed.
    pub fn fill_failed(&self, error: &FillError) {
        let reason = match error {
            FillError::Missing(_) => "missing",
            FillError::Unsatisfiable { .. } => "unsatisfiable",
            FillError::Unreachable(_) => "unreachable",
            FillError::TimedOut(_) => "timeout",
            FillError::Busy => "busy",
            FillError::NotShared => "not_shared",
            FillError::Changed => "changed",
            FillError::Broken { .. } => "broken",
        };
        self.failures.with_label_values(&[reason]).inc();
    }

    /// A slow source was asked a second time; `won`: that brought the answer.
    pub fn hedged(&self, won: bool) {
        self.hedges.with_label_values(&[if won { "won" } else { "lost" }]).inc();
    }

    /// How far purges are gone by.
    pub fn purges(&self, purges: &Purges) {
        let mark = purges.mark();
        self.purge_sequence.set(level(mark.log));
        self.purge_direct.set(level(mark.direct));
        self.purge_rules.set(level(purges.rules()));
    }

    /// A lookup found something held, and this is what purges say of it.
    pub fn purge_found(&self, verdict: Verdict) {
        match verdict {
            Verdict::Current => {}
            Verdict::Stale => self.purge_stale.inc(),
            Verdict::Gone => self.purge_gone.inc(),
        }
    }

    /// A fill broke off and goes on elsewhere.
    pub fn fill_resumed(&self) {
        self.resumes.inc();
    }

    fn outcome(&self, outcome: Outcome) -> &IntCounter {
        let (_, counter) = self.outcomes.iter().find(|(name, _)| *name == outcome).expect("ALL lists every outcome");
        counter
    }
}

/// Counts the bytes of one response.
#[derive(Clone, Debug)]
pub struct Sent {
    counter: IntCounter,
    totals: Arc<Totals>,
}

impl Sent {
    /// Bytes were sent.
    pub fn add(&self, bytes: u64) {
        self.counter.inc_by(bytes);
        self.totals.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
