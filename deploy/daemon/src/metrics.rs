//! Metrics are made and registered in one step, so that none is counted that `/metrics` does not show.

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, Result,
};

/// Makes metrics in a registry. Every call fails when the registry has something of that name already.
#[derive(Clone, Copy, Debug)]
pub struct Meters<'a> {
    registry: &'a Registry,
    prefix: &'a str,
}

impl<'a> Meters<'a> {
    /// The name of each begins with `prefix`.
    #[must_use]
    pub const fn new(registry: &'a Registry, prefix: &'a str) -> Self {
        Self { registry, prefix }
    }

    /// What only rises.
    ///
    /// # Errors
    ///
    /// As every call's.
    pub fn counter(self, name: &str, help: &str) -> Result<IntCounter> {
        self.register(IntCounter::new(self.named(name), help)?)
    }

    /// One for each value of the labels.
    ///
    /// # Errors
    ///
    /// As every call's.
    pub fn counters(self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        self.register(IntCounterVec::new(Opts::new(self.named(name), help), labels)?)
    }

    /// A whole number that rises and falls; [`level`] makes one of a count.
    ///
    /// # Errors
    ///
    /// As every call's.
    pub fn gauge(self, name: &str, help: &str) -> Result<IntGauge> {
        self.register(IntGauge::new(self.named(name), help)?)
    }

    /// One for each value of the labels.
    ///
    /// # Errors
    ///
    /// As every call's.
    pub fn gauges(self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(Opts::new(self.named(name), help), labels)?)
    }

    /// A gauge of fractions.
    ///
    /// # Errors
    ///
    /// As every call's.
    pub fn fraction(self, name: &str, help: &str) -> Result<Gauge> {
        self.register(Gauge::new(self.named(name), help)?)
    }

    /// One for each value of the labels.
    ///
    /// # Errors
    ///
    /// As every call's.
    pub fn fractions(self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec> {
        self.register(GaugeVec::new(Opts::new(self.named(name), help), labels)?)
    }

    /// How long something takes, by upper bounds in seconds.
    ///
    /// # Errors
    ///
    /// As every call's.
    pub fn histogram(self, name: &str, help: &str, bounds_s: &[f64]) -> Result<Histogram> {
        self.register(Histogram::with_opts(HistogramOpts::new(self.named(name), help).buckets(bounds_s.to_vec()))?)
    }

    /// One for each value of the labels.
    ///
    /// # Errors
    ///
    /// As every call's.
    pub fn histograms(self, name: &str, help: &str, bounds_s: &[f64], labels: &[&str]) -> Result<HistogramVec> {
        self.register(HistogramVec::new(HistogramOpts::new(self.named(name), help).buckets(bounds_s.to_vec()), labels)?)
    }

    fn named(self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn register<C: Collector + Clone + 'static>(self, metric: C) -> Result<C> {
        self.registry.register(Box::new(metric.clone())).map(|()| metric)
    }
}

/// A count as a gauge takes it; one that is too large is the largest.
#[must_use]
pub fn level(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_shown_from_the_start_and_its_name_is_taken() {
        let registry = Registry::new();
        let meters = Meters::new(&registry, "suns_");
        meters.counter("met_total", "Suns.").unwrap().inc();
        assert_eq!(registry.gather()[0].name(), "suns_met_total");
        assert!(meters.gauge("met_total", "Suns.").is_err());
    }

    #[test]
    fn what_is_too_large_for_a_gauge_is_the_largest() {
        assert_eq!(level(3_usize), 3);
        assert_eq!(level(u64::MAX), i64::MAX);
    }
}
