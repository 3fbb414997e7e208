//! How a refused document is told: where, which key, which value, what is allowed.

use std::fmt::{Debug, Display};

/// What is wrong with a document so far.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: Vec<String>,
    untold: usize,
}

impl Problems {
    /// `place: key = value: allowed`, where `place` is "sun[2] sun4-2-3", or empty for a key of the document's own.
    pub(super) fn add(&mut self, place: &str, key: &str, value: impl Debug, allowed: impl Display) {
        let separator = if place.is_empty() { "" } else { ": " };
        self.push(format!("{place}{separator}{key} = {}: {allowed}", short(&value)));
    }

    /// A problem of no single value.
    pub(super) fn push(&mut self, problem: String) {
        if self.found.len() < PROBLEMS_MAX {
            self.found.push(problem);
        } else {
            self.untold += 1;
        }
    }

    /// Nothing, or what is wrong.
    pub(super) fn finish(mut self) -> Result<(), Vec<String>> {
        if self.untold > 0 {
            self.found.push(format!("and {} more problems", self.untold));
        }
        if self.found.is_empty() { Ok(()) } else { Err(self.found) }
    }
}

/// One table of the document: what its problems have in common.
#[derive(Debug)]
pub(super) struct Row<'a> {
    place: String,
    problems: &'a mut Problems,
}

impl<'a> Row<'a> {
    /// The `index`th `[[table]]`, which calls itself `name`.
    pub(super) fn new(problems: &'a mut Problems, table: &str, index: usize, name: &str) -> Self {
        let name: String = name.chars().take(40).flat_map(char::escape_debug).collect();
        Self { place: format!("{table}[{index}] {name}"), problems }
    }

    /// Refuses a value.
    pub(super) fn refuse(&mut self, key: &str, value: impl Debug, allowed: impl Display) {
        self.problems.add(&self.place, key, value, allowed);
    }

    /// Refuses something that is missing or of no single value.
    pub(super) fn refuse_whole(&mut self, problem: &str) {
        self.problems.push(format!("{}: {problem}", self.place));
    }

    /// The value, when it fits the type and the range.
    pub(super) fn integer<T: TryFrom<i64> + PartialOrd>(
        &mut self,
        key: &str,
        value: i64,
        range: std::ops::RangeInclusive<T>,
        allowed: &str,
    ) -> Option<T> {
        let fits = T::try_from(value).ok().filter(|value| range.contains(value));
        if fits.is_none() {
            self.refuse(key, value, allowed);
        }
        fits
    }

    /// The value, when it is in the range; NaN never is.
    pub(super) fn float(&mut self, key: &str, value: f64, range: (f64, f64), allowed: &str) -> Option<f64> {
        if (range.0..=range.1).contains(&value) {
            return Some(value);
        }
        self.refuse(key, value, allowed);
        None
    }
}

/// "line 12, column 1: unknown field `wieght`, expected one of ...", both counted from 1.
pub(super) fn located(text: &str, error: &toml::de::Error) -> String {
    let Some(span) = error.span() else {
        return error.message().to_owned();
    };
    let before = text.get(..span.start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    let column = before[line_start..].chars().count() + 1;
    format!("line {line}, column {column}: {}", error.message().replace('\n', ", "))
}

/// The value as the document writes it, cut where it gets long.
fn short(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// More than these are counted only: nobody reads them all at once.
const PROBLEMS_MAX: usize = 100;
const VALUE_CHARS_MAX: usize = 120;
