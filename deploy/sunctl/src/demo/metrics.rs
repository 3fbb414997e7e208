//! Reading what a daemon's `/metrics` says: the lines of Prometheus' text format that are numbers.
//!
//! ```text
//!   sun_requests_total{tier="ram",status="200"} 42
//!   name               labels                   value
//! ```

/// The samples of one scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    /// Reads a scrape; lines that are no samples are skipped.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self { samples: text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect() }
    }

    /// Sum over the samples of a name that have all of these labels; 0 when there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &Sample, (key, value): &(&str, &str)| {
            sample.labels.iter().any(|(known, held)| known == key && held == value)
        };
        self.samples
            .iter()
            .filter(|sample| sample.name == name && labels.iter().all(|label| has(sample, label)))
            .map(|sample| sample.value)
            .sum()
    }

    /// As [`Metrics::sum`], of a counter.
    #[must_use]
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are whole and positive")]
        let count = self.sum(name, labels).max(0.0) as u64;
        count
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, labels)) = series.split_once('{') else {
        return Some(Sample { name: series.to_owned(), labels: Vec::new(), value });
    };
    let label = |pair: &str| {
        let (key, value) = pair.split_once("=\"")?;
        Some((key.trim_start_matches(',').to_owned(), value.to_owned()))
    };
    // Values of the labels that are read here hold no quotes.
    let labels = labels.trim_end_matches('}').split_terminator('"').collect::<Vec<_>>();
    let labels = labels.chunks(2).filter_map(|pair| label(&pair.join("\""))).collect();
    Some(Sample { name: name.to_owned(), labels, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRAPE: &str = "\
# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{tier=\"ram\",status=\"200\"} 40
requests_total{tier=\"ram\",status=\"206\"} 2
requests_total{tier=\"nvme\",status=\"200\"} 7
bytes_held 1.5e6
broken
";

    #[test]
    fn samples_are_summed_by_name_and_labels() {
        check("requests_total", &[], 49.0);
        check("requests_total", &[("tier", "ram")], 42.0);
        check("requests_total", &[("tier", "ram"), ("status", "206")], 2.0);
        check("requests_total", &[("tier", "vault")], 0.0);
        check("bytes_held", &[], 1.5e6);
        check("bytes_held", &[("tier", "ram")], 0.0);
        check("broken", &[], 0.0);
    }

    #[track_caller]
    fn check(name: &str, labels: &[(&str, &str)], expected: f64) {
        let sum = Metrics::parse(SCRAPE).sum(name, labels);
        assert!((sum - expected).abs() < 1e-9, "{name} {labels:?}: {sum}");
    }
}
