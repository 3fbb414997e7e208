//! What `--check` finds: what keeps a daemon from doing its work, and what a person should look at all the same.

/// See the module's doc. Each is a sentence: what, where, and what to do.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Findings {
    /// What is wrong: the check fails.
    pub problems: Vec<String>,
    /// What may come right by itself, or be meant so: the check does not fail for it.
    pub warnings: Vec<String>,
}

impl Findings {
    /// The same, each beginning with the part of the config that it is of.
    #[must_use]
    pub fn of_part(self, part: &str) -> Self {
        let named = |all: Vec<String>| all.into_iter().map(|what| format!("{part}: {what}")).collect();
        Self { problems: named(self.problems), warnings: named(self.warnings) }
    }

    /// Those of both.
    pub fn extend(&mut self, other: Self) {
        self.problems.extend(other.problems);
        self.warnings.extend(other.warnings);
    }
}

impl From<Vec<String>> for Findings {
    fn from(problems: Vec<String>) -> Self {
        Self { problems, warnings: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_a_part_say_so() {
        let mut all = Findings::from(vec!["a".to_owned()]);
        let part = Findings { problems: vec!["b".to_owned()], warnings: vec!["c".to_owned()] };
        all.extend(part.of_part("edge"));
        assert_eq!(
            (all.problems, all.warnings),
            (vec!["a".to_owned(), "edge: b".to_owned()], vec!["edge: c".to_owned()])
        );
    }
}
