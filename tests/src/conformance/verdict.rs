//! What a test came to, and what that means by the suite's own rules. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::Context;
use serde_json::Value;

/// One test and its outcome.
#[derive(Clone, Debug)]
pub struct Tested {
    /// `freshness-max-age`.
    pub id: String,
    /// The group it belongs to.
    pub suite: String,
    /// How much it counts.
    pub kind: Kind,
    /// Tests without which this one says nothing.
    pub depends_on: Vec<String>,
    /// What happened.
    pub outcome: Outcome,
    /// What was thrown; empty when it passed.
    pub thrown: String,
}

/// How much a test counts.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// A cache that fails it is wrong.
    Required,
    /// A cache that fails it could do better.
    Optimal,
    /// Neither answer is wrong.
    Check,
}

/// What happened in a test.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// All was as expected.
    Passed,
    /// What it is about was not as expected.
    Failed,
    /// Something it stands on was not as expected.
    Setup,
    /// The content server saw a request twice.
    Retried,
    /// No answer in time, or none that could be read.
    Broken,
    /// It was not run.
    None,
}

/// What an outcome means.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Verdict {
    /// It passes (for a check: yes).
    Pass,
    /// It does not (for a check: no).
    Fail,
    /// Nothing can be said: what it stands on fails.
    Setup,
    /// Nothing can be said: a test it depends on does not pass.
    Dependency,
    /// Nothing can be said: a request was sent twice.
    Retry,
    /// Nothing can be said: no answer.
    Broken,
    /// Nothing can be said: it was not run.
    Untested,
}

/// A test and its verdict.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The test's id.
    pub id: String,
    /// Its group.
    pub suite: String,
    /// How much it counts.
    pub kind: Kind,
    /// What its outcome means.
    pub verdict: Verdict,
    /// What was thrown; empty when it passed.
    pub thrown: String,
}

/// Reads the outcomes that `conformance.mjs` prints.
pub(super) fn read(text: &str) -> anyhow::Result<Vec<Tested>> {
    let document: Value = serde_json::from_str(text)?;
    document["tests"].as_array().context("no tests")?.iter().map(tested).collect()
}

fn tested(value: &Value) -> anyhow::Result<Tested> {
    let text = |key: &str| value[key].as_str().map(str::to_owned).with_context(|| format!("{key}: {value}"));
    let kind = match text("kind")?.as_str() {
        "required" => Kind::Required,
        "optimal" => Kind::Optimal,
        "check" => Kind::Check,
        other => anyhow::bail!("a test of kind {other}"),
    };
    let depends_on = value["depends_on"].as_array().context("depends_on")?;
    let depends_on = depends_on.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect();
    let thrown = match &value["outcome"] {
        Value::Bool(true) => String::new(),
        thrown => thrown.to_string(),
    };
    Ok(Tested { id: text("id")?, suite: text("suite")?, kind, depends_on, outcome: outcome(&value["outcome"]), thrown })
}

/// What is thrown tells by its name what failed.
fn outcome(value: &Value) -> Outcome {
    match (value, value[0].as_str(), value[1].as_str()) {
        (Value::Bool(true), ..) => Outcome::Passed,
        (Value::Null, ..) => Outcome::None,
        (_, Some("Setup"), Some("retry")) => Outcome::Retried,
        (_, Some("Setup"), _) => Outcome::Setup,
        (_, Some("AbortError"), _) => Outcome::Broken,
        _ => Outcome::Failed,
    }
}

/// The verdicts, by id.
#[must_use]
pub fn judge(tested: &[Tested]) -> Vec<Judged> {
    let by_id: BTreeMap<&str, &Tested> = tested.iter().map(|test| (test.id.as_str(), test)).collect();
    let judged = by_id.values().map(|test| Judged {
        id: test.id.clone(),
        suite: test.suite.clone(),
        kind: test.kind,
        verdict: verdict(test, &by_id, DEPTH_MAX),
        thrown: test.thrown.clone(),
    });
    judged.collect()
}

fn verdict(test: &Tested, by_id: &BTreeMap<&str, &Tested>, depth: usize) -> Verdict {
    let stands = |id: &String| {
        // A dependency that was left out was not looked at.
        by_id.get(id.as_str()).is_none_or(|other| depth > 0 && verdict(other, by_id, depth - 1) == Verdict::Pass)
    };
    match test.outcome {
        Outcome::None => Verdict::Untested,
        _ if !test.depends_on.iter().all(stands) => Verdict::Dependency,
        Outcome::Passed => Verdict::Pass,
        Outcome::Failed => Verdict::Fail,
        Outcome::Setup => Verdict::Setup,
        Outcome::Retried => Verdict::Retry,
        Outcome::Broken => Verdict::Broken,
    }
}

/// The ids and all they depend on.
pub(super) fn with_dependencies(ids: &BTreeSet<String>, tested: &[Tested]) -> BTreeSet<String> {
    let mut all = ids.clone();
    loop {
        let before = all.len();
        let more: Vec<String> =
            tested.iter().filter(|test| all.contains(&test.id)).flat_map(|test| test.depends_on.clone()).collect();
        all.extend(more);
        if all.len() == before {
            return all;
        }
    }
}

/// A table for people: a line a group, and the sums. Of each kind "passed/judged+unjudged".
#[must_use]
pub fn score(judged: &[Judged]) -> String {
    let mut groups: BTreeMap<&str, Vec<&Judged>> = BTreeMap::new();
    for test in judged {
        groups.entry(&test.suite).or_default().push(test);
    }
    let mut table = format!("{:<26} {:>16} {:>16} {:>16}\n", "", "required", "optimal", "check");
    let mut line = |name: &str, tests: &[&Judged]| {
        let cell = |kind| {
            let of_kind: Vec<Verdict> =
                tests.iter().filter(|test| test.kind == kind).map(|test| test.verdict).collect();
            let count = |of: &[Verdict]| of_kind.iter().filter(|verdict| of.contains(verdict)).count();
            let (pass, fail) = (count(&[Verdict::Pass]), count(&[Verdict::Fail]));
            format!("{pass}/{fail}/{}", of_kind.len() - pass - fail)
        };
        let cells = [Kind::Required, Kind::Optimal, Kind::Check].map(cell);
        table += &format!("{name:<26.26} {:>16} {:>16} {:>16}\n", cells[0], cells[1], cells[2]);
    };
    for (name, tests) in &groups {
        line(name, tests);
    }
    line("all: passed/failed/skipped", &judged.iter().collect::<Vec<_>>());
    table
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Pass, Self::Fail, Self::Setup, Self::Dependency, Self::Retry, Self::Broken, Self::Untested];
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Setup => "setup",
            Self::Dependency => "dependency",
            Self::Retry => "retry",
            Self::Broken => "broken",
            Self::Untested => "untested",
        })
    }
}

/// Tests do not depend on each other deeper than this; it ends a ring.
const DEPTH_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_means_what_the_suite_says() {
        check("true", &[], "pass");
        check(r#"["Assertion", "Response 2 does not come from cache"]"#, &[], "fail");
        check(r#"["TypeError", "fetch failed"]"#, &[], "fail");
        check(r#"["Setup", "Response 1 status is 500, not 200"]"#, &[], "setup");
        check(r#"["Setup", "retry"]"#, &[], "retry");
        check(r#"["AbortError", "This operation was aborted"]"#, &[], "broken");
        check("null", &[], "untested");
    }

    #[test]
    fn a_test_says_nothing_where_what_it_depends_on_does_not_pass() {
        check("true", &[("a", "true")], "pass");
        check("true", &[("a", "false")], "dependency");
        check("null", &[("a", "false")], "untested");
        check("true", &[("itself", "true")], "dependency");
    }

    #[test]
    fn dependencies_are_followed_to_their_end() {
        let text = r#"{"tests": [
            {"id": "a", "suite": "s", "kind": "required", "depends_on": ["b"], "outcome": true},
            {"id": "b", "suite": "s", "kind": "required", "depends_on": ["c"], "outcome": true},
            {"id": "c", "suite": "s", "kind": "check", "depends_on": [], "outcome": ["Assertion", ""]}]}"#;
        let tested = read(text).unwrap();
        let all = with_dependencies(&["a".to_owned()].into(), &tested);
        assert_eq!(all.into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
        let verdicts: Vec<String> = judge(&tested).iter().map(|test| test.verdict.to_string()).collect();
        assert_eq!(verdicts, ["dependency", "dependency", "fail"]);
        assert!(score(&judge(&tested)).lines().last().unwrap().ends_with("0/0/2            0/0/0            0/1/0"));
    }

    /// A test named "itself" that depends on others.
    #[track_caller]
    fn check(outcome_of_it: &str, others: &[(&str, &str)], expected: &str) {
        let test = |id: &str, depends_on: Vec<String>, outcome_text: &str| Tested {
            id: id.to_owned(),
            suite: "s".to_owned(),
            kind: Kind::Required,
            depends_on,
            outcome: outcome(&serde_json::from_str(outcome_text).unwrap()),
            thrown: String::new(),
        };
        let names = others.iter().map(|(id, _)| (*id).to_owned()).collect();
        let mut tested = vec![test("itself", names, outcome_of_it)];
        tested.extend(others.iter().filter(|(id, _)| *id != "itself").map(|(id, text)| test(id, Vec::new(), text)));
        let judged = judge(&tested);
        let found = judged.iter().find(|judged| judged.id == "itself").unwrap();
        assert_eq!(found.verdict.to_string(), expected, "{outcome_of_it}");
    }
}
