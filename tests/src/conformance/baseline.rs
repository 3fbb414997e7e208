//! The verdicts that are committed: what passed once must go on passing. Pure, but for reading and writing the file.
//!
//! ```text
//!   # a comment
//!   freshness-max-age pass
//!   partial-store-partial-reuse-partial fail
//! ```
//!
//! One test a line, sorted, of those that count (required and optimal).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::verdict::{Judged, Kind, Verdict};

/// Verdicts by test.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Baseline(BTreeMap<String, Verdict>);

/// How verdicts differ from the baseline; ids in order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Comparison {
    /// They passed and do not.
    pub fallen: Vec<String>,
    /// They did not pass, or were not there, and do.
    pub risen: Vec<String>,
    /// They are in the baseline and were not run.
    pub gone: Vec<String>,
}

impl Baseline {
    /// The file that is committed.
    #[must_use]
    pub fn file() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance.baseline")
    }

    /// Reads [`Baseline::file`].
    ///
    /// # Errors
    ///
    /// When it is not there, or a line is none.
    pub fn load() -> anyhow::Result<Self> {
        let file = Self::file();
        Self::parse(&std::fs::read_to_string(&file).with_context(|| file.display().to_string())?)
    }

    /// Reads a baseline.
    ///
    /// # Errors
    ///
    /// The line that is none.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut verdicts = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (id, verdict) = line.split_once(' ').with_context(|| format!("{line:?}: a line is: id verdict"))?;
            let verdict = Verdict::ALL.into_iter().find(|known| known.to_string() == verdict);
            let verdict = verdict.with_context(|| format!("{line:?}: no such verdict"))?;
            if verdicts.insert(id.to_owned(), verdict).is_some() {
                bail!("{id} is there twice");
            }
        }
        Ok(Self(verdicts))
    }

    /// The baseline that these verdicts make.
    #[must_use]
    pub fn of(judged: &[Judged]) -> Self {
        Self(counted(judged).map(|test| (test.id.clone(), test.verdict)).collect())
    }

    /// As it is written.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::from(HEAD);
        for (id, verdict) in &self.0 {
            text += &format!("{id} {verdict}\n");
        }
        text
    }

    /// What is otherwise in these verdicts.
    #[must_use]
    pub fn compare(&self, judged: &[Judged]) -> Comparison {
        let now: BTreeMap<&str, Verdict> = counted(judged).map(|test| (test.id.as_str(), test.verdict)).collect();
        let passes = |verdict: Option<&Verdict>| verdict == Some(&Verdict::Pass);
        let ids = |chosen: &dyn Fn(&str) -> bool| {
            let mut ids: Vec<String> = self.0.keys().cloned().chain(now.keys().map(|id| (*id).to_owned())).collect();
            ids.sort();
            ids.dedup();
            ids.retain(|id| chosen(id));
            ids
        };
        Comparison {
            fallen: ids(&|id| passes(self.0.get(id)) && now.contains_key(id) && !passes(now.get(id))),
            risen: ids(&|id| !passes(self.0.get(id)) && passes(now.get(id))),
            gone: ids(&|id| !now.contains_key(id)),
        }
    }
}

fn counted(judged: &[Judged]) -> impl Iterator<Item = &Judged> {
    judged.iter().filter(|test| test.kind != Kind::Check)
}

const HEAD: &str = "\
# What the conformance suite (npm http-cache-tests 0.4.5) says of a sun with a site in policy \"rfc\"; required and
# optimal tests. What passes here must pass; made by `tests/conformance --update`.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passed_must_pass_and_the_rest_may_rise() {
        let baseline = Baseline::parse("# x\na pass\nb fail\nc pass\nd pass\n").unwrap();
        let now = [
            judged("a", Verdict::Pass),
            judged("b", Verdict::Pass),
            judged("c", Verdict::Setup),
            judged("e", Verdict::Fail),
            judged("f", Verdict::Pass),
        ];
        let found = baseline.compare(&now);
        assert_eq!((found.fallen, found.risen, found.gone), (texts(&["c"]), texts(&["b", "f"]), texts(&["d"])));
    }

    #[test]
    fn a_baseline_survives_being_written() {
        let check = Judged { kind: Kind::Check, ..judged("x", Verdict::Pass) };
        let baseline = Baseline::of(&[judged("b", Verdict::Dependency), judged("a", Verdict::Pass), check]);
        assert_eq!(baseline.render(), format!("{HEAD}a pass\nb dependency\n"));
        assert_eq!(Baseline::parse(&baseline.render()).unwrap(), baseline);
        for wrong in ["a", "a good", "a pass\na pass"] {
            assert!(Baseline::parse(wrong).is_err(), "{wrong}");
        }
    }

    fn texts(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    fn judged(id: &str, verdict: Verdict) -> Judged {
        Judged { id: id.to_owned(), suite: "s".to_owned(), kind: Kind::Required, verdict, thrown: String::new() }
    }
}
