//! Logs: structured, one line an event, on standard error.

/// How a daemon logs.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives `sun=debug,hyper=warn`. Default `info`.
    pub level: String,
    /// `text` for people, `json` for collectors. Default `text`.
    pub format: Format,
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For collectors.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: Format::Text }
    }
}

/// Installs the process's logger; a second call in one process changes nothing.
///
/// # Errors
///
/// When the level does not parse.
pub fn init(config: &LogConfig) -> Result<(), crate::config::ConfigError> {
    let _ = config;
    todo!()
}
