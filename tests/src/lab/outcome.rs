//! What clients had of a fault, from what they wrote down.

use std::collections::BTreeMap;
use std::time::Duration;

use geo::answer::Table;

use super::fault::Fault;
use super::flow::{Stream, Visit};

/// A row of the table.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What happened.
    pub fault: Fault,
    /// From the fault until another sun answered at each address of the one it happened to; none: none did at one of them.
    pub taken_over: Option<Duration>,
    /// Requests on new connections: failed, all.
    pub new: (usize, usize),
    /// Requests on connections that were kept: failed, all.
    pub kept: (usize, usize),
    /// What the busiest survivor carries afterwards, in shares of what each carried before.
    pub worst: f64,
    /// New connections to the addresses that others took over: with a session resumed, all.
    pub resumed: (usize, usize),
    /// What failed, and how often.
    pub failures: BTreeMap<String, usize>,
    /// The last request that failed began so long after the fault.
    pub last_failure: Option<Duration>,
    /// Members whose addresses were others' at the same time, at most; looked at where a crowd comes.
    pub most_away: usize,
    /// What the self-checks said at the end.
    pub states: Vec<String>,
}

impl Outcome {
    /// Of all visits, those that ended after the fault and began before the end count. `owners` has the owner of each
    /// target.
    #[must_use]
    pub fn of(
        fault: Fault,
        visits: &[Visit],
        owners: &[String],
        victim: &str,
        (from, to): (Duration, Duration),
    ) -> Self {
        let visits: Vec<&Visit> = visits.iter().filter(|visit| visit.ended >= from && visit.began < to).collect();
        let count = |kept: bool| {
            let mine: Vec<_> = visits.iter().filter(|visit| (visit.stream == Stream::Kept) == kept).collect();
            (mine.iter().filter(|visit| visit.outcome.is_err()).count(), mine.len())
        };
        let mut failures = BTreeMap::new();
        for (stream, error) in visits.iter().filter_map(|visit| Some((visit.stream, visit.outcome.as_ref().err()?))) {
            let kind = if stream == Stream::Kept { "kept" } else { "new" };
            *failures.entry(format!("{kind}: {error}")).or_insert(0) += 1;
        }
        let failed = visits.iter().filter(|visit| visit.outcome.is_err());
        let last_failure = failed.map(|visit| visit.began.saturating_sub(from)).max();
        let taken_over = taken_over(&visits, owners, victim, from);
        let moved = visits.iter().filter(|visit| visit.stream != Stream::Kept && owners[visit.target] == victim);
        let moved = moved.filter_map(|visit| visit.outcome.as_ref().ok()).filter(|(by, _)| by != victim);
        let moved: Vec<bool> = moved.map(|&(_, resumed)| resumed).collect();
        Self {
            fault,
            taken_over,
            new: count(false),
            kept: count(true),
            worst: worst(&visits, owners, from + taken_over.unwrap_or_default()),
            resumed: (moved.iter().filter(|&&resumed| resumed).count(), moved.len()),
            failures,
            last_failure,
            most_away: 0,
            states: Vec::new(),
        }
    }

    /// For people, while others are still played.
    #[must_use]
    pub fn line(&self) -> String {
        let taken_over = self.taken_over.map_or_else(
            || "its addresses stay".to_owned(),
            |time| format!("another one answers after {}", seconds(time)),
        );
        let ((new_failed, new), (kept_failed, kept)) = (self.new, self.kept);
        let word = self.fault.word();
        format!("{word}: {taken_over}; failed: {new_failed} of {new} new connections, {kept_failed} of {kept} kept")
    }

    /// What failed, when last, and what the self-checks say: a line each.
    #[must_use]
    pub fn details(&self) -> Vec<String> {
        let failures = self.failures.iter().map(|(what, count)| format!("{count} x {what}"));
        let last =
            self.last_failure.map(|time| format!("the last one that failed began {} after the fault", seconds(time)));
        let away = self.most_away;
        let away = (away > 0).then(|| format!("of so many, others had the addresses at one time: {away}"));
        failures.chain(last).chain(away).chain(self.states.iter().cloned()).collect()
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "fault": self.fault.word(),
            "taken_over_s": self.taken_over.map(|time| time.as_secs_f64()),
            "new": { "failed": self.new.0, "all": self.new.1 },
            "kept": { "failed": self.kept.0, "all": self.kept.1 },
            "busiest": self.worst,
            "resumed": { "resumed": self.resumed.0, "all": self.resumed.1 },
            "most_away": self.most_away,
            "failures": self.failures,
            "states": self.states,
        })
    }

    /// The table of several.
    #[must_use]
    pub fn table(outcomes: &[Self]) -> String {
        let titles = ["FAULT", "ANSWERED BY ANOTHER", "NEW FAILED", "OF", "KEPT FAILED", "OF", "BUSIEST", "RESUMED"];
        let mut table = Table::new(&titles);
        for outcome in outcomes {
            let (resumed, moved) = outcome.resumed;
            table.row([
                outcome.fault.name().to_owned(),
                outcome.taken_over.map_or_else(|| "stays".to_owned(), seconds),
                outcome.new.0.to_string(),
                outcome.new.1.to_string(),
                outcome.kept.0.to_string(),
                outcome.kept.1.to_string(),
                // Not "-0 %".
                format!("{:+.0} %", ((outcome.worst - 1.0) * 100.0).round() + 0.0),
                (100 * resumed).checked_div(moved).map_or_else(|| "-".to_owned(), |percent| format!("{percent} %")),
            ]);
        }
        table.text()
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// The time until the last of the victim's addresses was answered by somebody else.
fn taken_over(visits: &[&Visit], owners: &[String], victim: &str, from: Duration) -> Option<Duration> {
    let own = (0..owners.len()).filter(|&target| owners[target] == victim);
    let first = own.map(|target| {
        let elsewhere = visits.iter().filter(|visit| {
            let another = visit.outcome.as_ref().is_ok_and(|(by, _)| by != victim);
            visit.target == target && visit.stream != Stream::Kept && another
        });
        elsewhere.map(|visit| visit.ended.saturating_sub(from)).min()
    });
    first.collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// What the busiest sun carries of the even stream after that time, in fair shares of all suns. Every address weighs the same,
/// however often it was asked.
fn worst(visits: &[&Visit], owners: &[String], after: Duration) -> f64 {
    let even = visits.iter().filter(|visit| visit.stream == Stream::Even && visit.began >= after);
    let mut answers: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for visit in even {
        if let Ok((by, _)) = &visit.outcome {
            answers.entry(visit.target).or_default().push(by);
        }
    }
    let mut loads: BTreeMap<&str, f64> = BTreeMap::new();
    for by in answers.values() {
        by.iter().for_each(|sun| *loads.entry(sun).or_default() += 1.0 / by.len() as f64);
    }
    let mut suns: Vec<&String> = owners.iter().collect();
    suns.dedup();
    let fair = answers.len().max(1) as f64 / suns.len() as f64;
    loads.into_values().fold(0.0, f64::max) / fair
}
