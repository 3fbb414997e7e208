//! Reads `/metrics`: the Prometheus text format, as far as a test needs it.

use std::collections::{BTreeMap, BTreeSet};

/// One scrape: series, with their labels, to values.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    series: BTreeMap<String, f64>,
}

impl Metrics {
    /// Reads a scrape; lines that are no sample are passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        });
        Self { series: samples.collect() }
    }

    /// Sum of the series of a name whose labels contain all of `labels`, each as `tier="ram"`; none: there is no such series.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let matching = self.series.iter().filter(|(series, _)| {
            let rest = series.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
                && labels.iter().all(|label| series.contains(label))
        });
        matching.map(|(_, value)| *value).reduce(|sum, value| sum + value)
    }

    /// Values of all series whose name ends with this, whatever daemon they are of.
    #[must_use]
    pub fn find(&self, ending: &str) -> Vec<f64> {
        let named = |series: &str| series.split('{').next().is_some_and(|name| name.ends_with(ending));
        self.series.iter().filter(|(series, _)| named(series)).map(|(_, value)| *value).collect()
    }

    /// Names of all series, for messages.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let names: BTreeSet<&str> =
            self.series.keys().map(|series| series.split('{').next().unwrap_or(series)).collect();
        names.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_name_and_labels() {
        let metrics = Metrics::parse(
            "# HELP hits Hits.\n# TYPE hits counter\nhits{tier=\"ram\",class=\"a\"} 3\nhits{tier=\"ram\",class=\"b\"} 4\n\
             hits{tier=\"owner\"} 5\nhits_more 9\nplain 1.5\n",
        );
        check(&metrics, "hits", &[], Some(12.0));
        check(&metrics, "hits", &["tier=\"ram\""], Some(7.0));
        check(&metrics, "hits", &["tier=\"ram\"", "class=\"b\""], Some(4.0));
        check(&metrics, "hits", &["tier=\"nvme\""], None);
        check(&metrics, "plain", &[], Some(1.5));
        check(&metrics, "pla", &[], None);
        assert_eq!(metrics.names(), ["hits", "hits_more", "plain"]);
    }

    #[track_caller]
    fn check(metrics: &Metrics, name: &str, labels: &[&str], expected: Option<f64>) {
        assert_eq!(metrics.sum(name, labels), expected, "{name} {labels:?}");
    }
}
