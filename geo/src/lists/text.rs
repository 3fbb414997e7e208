//! Lists of lines: `prefix value`, or CSV (RFC 4180, without line breaks inside fields). A header is the first line that is
//! neither a comment nor empty.

use super::{Column, Reading, Values, named, quoted};

/// Reads the lines.
pub(super) fn read(text: &str, values: Option<Values>, reading: &mut Reading<'_>) {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let mut lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with([';', '#'])).peekable();
    let first = lines.peek().map_or(1, |(number, _)| *number);
    let columns = lines.peek().and_then(|(_, line)| Columns::of(line));
    let values = match (values, columns.map(|columns| columns.values)) {
        (Some(asked), Some(told)) if asked != told => {
            return reading.refuse(&format!("{first}: the header's columns are not what the config's `values` says"));
        }
        (asked, told) => asked.or(told).unwrap_or(Values::Regions),
    };
    let mut fields = Vec::new();
    for (number, line) in lines.skip(usize::from(columns.is_some())) {
        // A field of a table with named columns may have a # of its own.
        let line = if columns.is_some() { line } else { line.split('#').next().unwrap_or_default().trim() };
        let entry = match columns {
            Some(columns) => columns.pick(line, &mut fields),
            None => pair(line),
        };
        if !reading.take(number, entry.map(|(prefix, value)| (prefix, value, values))) {
            return;
        }
    }
}

/// The two fields of a line without a header.
fn pair(line: &str) -> Result<(&str, &str), String> {
    let mut fields = line.split(|c: char| c == ',' || c.is_whitespace()).filter(|field| !field.is_empty());
    let (Some(first), Some(second), None) = (fields.next(), fields.next(), fields.next()) else {
        return Err(format!("{}: a line is `prefix region` or `prefix,region`", quoted(line)));
    };
    Ok((first.trim_matches('"'), second.trim_matches('"')))
}

/// Where a table has what.
#[derive(Clone, Copy, Debug)]
struct Columns {
    count: usize,
    prefix: usize,
    value: usize,
    values: Values,
}

impl Columns {
    /// The columns, if the line is a header: it names a prefix and a region or an AS. A region comes before an AS.
    fn of(line: &str) -> Option<Self> {
        let mut fields = Vec::new();
        split(line, &mut fields)?;
        let find = |wanted: Column| fields.iter().position(|field| named(field) == Some(wanted));
        let of = |values| find(Column::Value(values)).map(|at| (at, values));
        let prefix = find(Column::Prefix)?;
        let (value, values) = of(Values::Regions).or_else(|| of(Values::Origins))?;
        Some(Self { count: fields.len(), prefix, value, values })
    }

    /// A line's two fields that count.
    fn pick<'a>(&self, line: &'a str, fields: &mut Vec<&'a str>) -> Result<(&'a str, &'a str), String> {
        fields.clear();
        let whole = split(line, fields).is_some() && fields.len() == self.count;
        match (fields.get(self.prefix), fields.get(self.value)) {
            (Some(prefix), Some(value)) if whole => Ok((prefix, value)),
            _ => Err(format!("{}: the header has {} columns, this line has not", quoted(line), self.count)),
        }
    }
}

/// The fields of a line of CSV, without their quotes; none if a quote is not closed. A quote within a field (`""`)
/// stays doubled, since no field that counts has one.
pub(super) fn split<'a>(line: &'a str, fields: &mut Vec<&'a str>) -> Option<()> {
    let mut rest = line;
    loop {
        let trimmed = rest.trim_start();
        let (field, after) = match trimmed.strip_prefix('"') {
            Some(quoted) => {
                let end = closing_quote(quoted)?;
                (quoted.get(..end)?, quoted.get(end + 1..)?.trim_start())
            }
            None => {
                let end = trimmed.find(',').unwrap_or(trimmed.len());
                (trimmed.get(..end)?.trim(), trimmed.get(end..)?)
            }
        };
        fields.push(field);
        if after.is_empty() {
            return Some(());
        }
        rest = after.strip_prefix(',')?;
    }
}

/// Where a quoted field ends: at the first quote that is not doubled.
fn closing_quote(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        at += bytes.get(at..)?.iter().position(|&byte| byte == b'"')?;
        if bytes.get(at + 1) != Some(&b'"') {
            return Some(at);
        }
        at += 2;
    }
}
