//! The kernel's pressure stall information: how much of the last ten seconds was lost waiting for something.
//!
//! ```text
//!   some avg10=1.53 avg60=0.87 avg300=0.36 total=12345      some task waited
//!   full avg10=0.00 avg60=0.00 avg300=0.00 total=0          all tasks waited
//! ```

use std::path::Path;

/// What a file of it (`/proc/pressure/cpu`, a control group's `cpu.pressure`) says in its `line`, percent; none: this kernel
/// does not tell.
#[must_use]
pub fn last_ten_seconds(file: &Path, line: &str) -> Option<f64> {
    parse(&std::fs::read_to_string(file).ok()?, line)
}

/// `avg10` of a line.
fn parse(text: &str, line: &str) -> Option<f64> {
    let fields = text.lines().find_map(|found| found.strip_prefix(line))?;
    fields.split_whitespace().find_map(|field| field.strip_prefix("avg10="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "some avg10=1.53 avg60=0.87 avg300=0.36 total=1\nfull avg10=70.00 avg60=0.00 avg300=0.00 total=0\n";

    #[test]
    fn the_last_ten_seconds_are_read() {
        assert_eq!(parse(TEXT, "some"), Some(1.53));
        assert_eq!(parse(TEXT, "full"), Some(70.0));
        assert_eq!(parse("some avg10=x", "some"), None);
        assert_eq!(parse("", "some"), None);
    }
}
