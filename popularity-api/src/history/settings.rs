//! Settings of the history; `deploy/config/popularity-api.toml` shows them all with their defaults.

use std::path::PathBuf;

use super::clickhouse::{self, Access};

/// Whether and how a history is kept.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct History {
    /// ClickHouse's HTTP port, `http://10.0.0.8:8123`. Default none: no history is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The database with the tables. Default sun.
    pub database: String,
    /// Who inserts. Default default.
    pub user: String,
    /// File with that user's password (mode 600). Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// How often a batch is sealed and sent, seconds. Default 10; too small: many small inserts, which ClickHouse refuses
    /// beyond some a second, too large: more is lost by a kill, and in RAM.
    pub flush_s: u64,
    /// Rows at which one is sealed earlier. Default 200000; too small: many small inserts, too large: RAM (about 250
    /// bytes each).
    pub rows_max: usize,
    /// Batches on disk that ClickHouse does not have yet, bytes; beyond, the oldest go and are counted. Default
    /// 1073741824; too small: an absence leaves a gap, too large: disk that the binlog needs.
    pub spool_bytes_max: u64,
    /// Batches on disk that ClickHouse has, bytes, for `sunctl history fill`; beyond, the oldest go. Default 1073741824; 0:
    /// none are kept.
    pub sent_bytes_max: u64,
    /// One insert, milliseconds. Default 30000; too small: large batches are sent again and again, too large: a hung
    /// server is noticed late.
    pub timeout_ms: u64,
}

impl Default for History {
    fn default() -> Self {
        Self {
            url: None,
            database: "sun".to_owned(),
            user: "default".to_owned(),
            password_file: None,
            flush_s: 10,
            rows_max: 200_000,
            spool_bytes_max: 1 << 30,
            sent_bytes_max: 1 << 30,
            timeout_ms: 30_000,
        }
    }
}

impl History {
    /// Everything that is wrong with the settings.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let rows_max = u64::try_from(self.rows_max).unwrap_or(u64::MAX);
        for (key, value, least, most) in [
            ("history.flush_s", self.flush_s, 1, 3600),
            ("history.rows_max", rows_max, 1, 10_000_000),
            ("history.spool_bytes_max", self.spool_bytes_max, 1 << 20, 1 << 44),
            ("history.sent_bytes_max", self.sent_bytes_max, 0, 1 << 44),
            ("history.timeout_ms", self.timeout_ms, 1, 600_000),
        ] {
            if !(least..=most).contains(&value) {
                problems.push(format!("{key} = {value}: it is within {least}..={most}"));
            }
        }
        problems.extend(self.access().err().map(|error| format!("history: {error}")));
        problems
    }

    /// Where ClickHouse is and who asks; none when no history is kept. Reads the password.
    ///
    /// # Errors
    ///
    /// When the address or the database's name is none, or the password cannot be read.
    pub fn access(&self) -> Result<Option<Access>, clickhouse::ClickHouseError> {
        let Some(url) = &self.url else { return Ok(None) };
        Access::new(url, &self.database, &self.user, self.password_file.as_deref(), self.timeout_ms).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_settings_are_named() {
        assert_eq!(History::default().problems(), Vec::<String>::new());
        for (bad, expected) in [
            ("flush_s = 0", "history.flush_s = 0: it is within 1..=3600"),
            ("rows_max = 0", "history.rows_max = 0: it is within 1..=10000000"),
            ("spool_bytes_max = 1", "history.spool_bytes_max = 1: it is within 1048576..=17592186044416"),
            ("timeout_ms = 0", "history.timeout_ms = 0: it is within 1..=600000"),
            ("url = 'https://a'", "history: \"https://a\": ClickHouse's address has the form http://host:port"),
            ("url = 'http://a:1'\ndatabase = 'a;b'", "history: \"a;b\": a database's name is of a-z, A-Z, 0-9 and _"),
            (
                "url = 'http://a:1'\npassword_file = '/nowhere'",
                "history: /nowhere: cannot be read: No such file or directory (os error 2)",
            ),
        ] {
            let history: History = daemon::config::parse(bad, "test").unwrap();
            assert_eq!(history.problems(), [expected]);
        }
    }
}
