//! `/proc/pressure`: how much of the last ten seconds was lost waiting for cores, memory and devices, and what is too much.

use std::path::Path;

use super::config::Checks;
use crate::pressure::last_ten_seconds;

/// Percent of the last ten seconds; none: this kernel does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Pressure {
    /// Some task waited for a core.
    pub cpu_some: Option<f64>,
    /// All tasks waited for memory.
    pub memory_full: Option<f64>,
    /// All tasks waited for devices.
    pub io_full: Option<f64>,
}

impl Pressure {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        let read = |file: &str, line| last_ten_seconds(&Path::new("/proc/pressure").join(file), line);
        Self { cpu_some: read("cpu", "some"), memory_full: read("memory", "full"), io_full: read("io", "full") }
    }

    /// What is too much by the operator's bounds.
    #[must_use]
    pub fn beyond(&self, checks: &Checks) -> Option<String> {
        let bounds = [
            ("memory", self.memory_full, checks.memory_full_percent_max),
            ("devices", self.io_full, checks.io_full_percent_max),
            ("cores", self.cpu_some, checks.cpu_some_percent_max),
        ];
        bounds.into_iter().find_map(|(what, percent, max)| {
            let percent = percent.filter(|percent| max > 0.0 && *percent > max)?;
            Some(format!("{percent:.0} % of the last ten seconds went by waiting for {what}"))
        })
    }

    /// Whether this kernel tells nothing at all.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_a_bound_is_too_much() {
        let pressure = Pressure { cpu_some: Some(99.0), memory_full: Some(61.0), io_full: Some(99.0) };
        let told = |checks: Checks| pressure.beyond(&checks);
        assert!(told(Checks::default()).is_some_and(|why| why.contains("61 %") && why.contains("memory")));
        assert_eq!(told(Checks { memory_full_percent_max: 0.0, ..Checks::default() }), None);
        let cores = Checks { memory_full_percent_max: 80.0, cpu_some_percent_max: 90.0, ..Checks::default() };
        assert!(told(cores).is_some_and(|why| why.contains("cores")));
        assert_eq!(Pressure::default().beyond(&Checks::default()), None, "a kernel that does not tell");
    }
}
