//! What a command answers: columns for people, JSON for programs.

use std::fmt::Write;

/// A command's answer in both forms.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// For people, with its line ends.
    pub text: String,
    /// For programs: `--json`.
    pub json: serde_json::Value,
    /// False: the question was answered, and the answer is that something is wrong (exit status 1).
    pub good: bool,
}

impl Answer {
    /// All is well.
    #[must_use]
    pub const fn good(text: String, json: serde_json::Value) -> Self {
        Self { text, json, good: true }
    }
}

/// Rows under column titles. Columns of numbers are flush right.
#[derive(Clone, Debug, Default)]
pub struct Table {
    titles: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(titles: &[&'static str]) -> Self {
        Self { titles: titles.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; missing cells stay empty, surplus ones are not shown.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table's lines.
    #[must_use]
    pub fn text(&self) -> String {
        let cell = |row: &'_ Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
        let columns: Vec<(usize, bool)> = (0..self.titles.len())
            .map(|column| {
                let cells = || self.rows.iter().map(|row| cell(row, column));
                let widest = cells().map(|cell| cell.chars().count()).max().unwrap_or(0);
                let numeric = !self.rows.is_empty() && cells().all(|cell| is_number(&cell));
                (widest.max(self.titles[column].len()), numeric)
            })
            .collect();
        let titles: Vec<String> = self.titles.iter().map(|&title| title.to_owned()).collect();
        let mut text = String::new();
        for row in std::iter::once(&titles).chain(&self.rows) {
            let mut line = String::new();
            for (column, &(width, numeric)) in columns.iter().enumerate() {
                let cell = cell(row, column);
                // Writing to a string cannot fail.
                let _ = if numeric { write!(line, "{cell:>width$}  ") } else { write!(line, "{cell:<width$}  ") };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A share for people: `0%`, `12.34%`; small ones with two digits that say something, `0.0000023%`.
#[must_use]
pub fn share(part: f64, all: f64) -> String {
    if part <= 0.0 || all <= 0.0 {
        return "0%".to_owned();
    }
    let percent = 100.0 * part / all;
    let decimals = (2..40).find(|&decimals| percent * 10_f64.powi(decimals) >= 10.0).unwrap_or(40);
    let decimals = if percent >= 0.01 { 2 } else { usize::try_from(decimals).unwrap_or(2) };
    format!("{percent:.decimals$}%")
}

/// Bytes for people, in powers of a thousand: `192 KB`, `1.7 MB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    let (unit, name) = match count {
        0..1_000 => return format!("{count} B"),
        1_000..1_000_000 => (1e3, "KB"),
        1_000_000..1_000_000_000 => (1e6, "MB"),
        1_000_000_000..1_000_000_000_000 => (1e9, "GB"),
        _ => (1e12, "TB"),
    };
    let scaled = count as f64 / unit;
    if scaled < 10.0 { format!("{scaled:.1} {name}") } else { format!("{scaled:.0} {name}") }
}

/// A number, perhaps with a unit behind it; an address is none.
fn is_number(cell: &str) -> bool {
    let number = |text: &str| text.parse::<f64>().is_ok() && text.starts_with(|first: char| first.is_ascii_digit());
    let unit = |of: char| of.is_alphabetic() || matches!(of, '%' | '/' | ' ');
    cell.is_empty() || cell == "-" || number(cell) || number(cell.trim_end_matches(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_flush_right_and_lines_have_no_trailing_space() {
        let mut table = Table::new(&["SERVER", "WEIGHT", "NOTE"]);
        table.row(["sun4-2-1".to_owned(), "100".to_owned(), String::new()]);
        table.row(["sun4-2-10".to_owned(), "5".to_owned(), "draining".to_owned()]);
        assert_eq!(
            table.text(),
            "SERVER     WEIGHT  NOTE\n\
             sun4-2-1      100\n\
             sun4-2-10       5  draining\n"
        );
    }

    #[test]
    fn addresses_are_no_numbers() {
        for (cell, number) in [
            ("", true),
            ("-", true),
            ("5", true),
            ("0.25%", true),
            ("1.7 MB", true),
            ("10 Gbit/s", true),
            ("7.9e28", true),
            ("192.0.2.1", false),
            ("192.0.2.0/24", false),
            ("2001:db8::1", false),
            ("4 5", false),
            ("nan", false),
        ] {
            assert_eq!(is_number(cell), number, "{cell}");
        }
    }

    #[test]
    fn small_shares_are_not_nothing() {
        for (part, all, expected) in [
            (0.0, 0.0, "0%"),
            (0.0, 5.0, "0%"),
            (1.0, 3.0, "33.33%"),
            (5.0, 5.0, "100.00%"),
            (1.0, 10_000.0, "0.01%"),
            (1.0, 20_000.0, "0.0050%"),
            (256.0, 4_294_967_296.0, "0.0000060%"),
            (2f64.powi(96), 2f64.powi(128), "0.000000023%"),
        ] {
            assert_eq!(share(part, all), expected, "{part} of {all}");
        }
    }

    #[test]
    fn bytes_have_two_or_three_digits() {
        check(0, "0 B");
        check(999, "999 B");
        check(2_023, "2.0 KB");
        check(192_345, "192 KB");
        check(1_728_000, "1.7 MB");
        check(50_000_000, "50 MB");
        check(64_000_000_000, "64 GB");
        check(2_000_000_000_000, "2.0 TB");
    }

    #[track_caller]
    fn check(count: u64, expected: &str) {
        assert_eq!(bytes(count), expected);
    }
}
