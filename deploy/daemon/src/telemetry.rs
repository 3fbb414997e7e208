//! Logs: structured, one line an event, on standard error, so that standard output stays free for answers
//! and the service manager adds the time of arrival.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::ConfigError;

/// An error with its causes, in one line: the outermost alone often says only that something failed.
#[must_use]
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// How a daemon logs.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives `sun=debug,hyper=warn`. Default `info`. Too
    /// little (`error`): what went wrong before an outage is not known; too much (`debug`): a line a request,
    /// which costs more than serving it.
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
pub fn init(config: &LogConfig) -> Result<(), ConfigError> {
    let filter = filter(&config.level)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = match config.format {
        Format::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => log.json().flatten_event(true).try_init(),
    };
    // Fails only when a logger is there already, and that one stays.
    drop(installed);
    Ok(())
}

/// Checks a level without installing anything, for `--check`.
///
/// # Errors
///
/// When the level does not parse.
pub fn check(config: &LogConfig) -> Result<(), ConfigError> {
    filter(&config.level).map(drop)
}

fn filter(level: &str) -> Result<EnvFilter, ConfigError> {
    let refused = |why: &str| {
        ConfigError(format!(
            "log.level = {level:?}: {why}; use error, warn, info, debug, trace or directives like sun=debug,hyper=warn"
        ))
    };
    if level.trim().is_empty() {
        return Err(refused("is empty"));
    }
    let filter = EnvFilter::builder().parse(level).map_err(|error| refused(&error.to_string()))?;
    // A single word that is no level would be taken for the name of a module, and nothing would be logged.
    let is_word = !level.contains(['=', ',', '[']);
    if is_word && level.parse::<tracing::level_filters::LevelFilter>().is_err() {
        return Err(refused("is no level"));
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_taken() {
        check_level("info", true);
        check_level("WARN", true);
        check_level("sun=debug,hyper=warn", true);
        check_level("warn,sun=trace", true);
        check_level("off", true);
    }

    #[test]
    fn anything_else_is_refused() {
        check_level("", false);
        check_level("loud", false);
        check_level("sun=loud", false);
        check_level("=", false);
    }

    #[test]
    fn a_second_logger_changes_nothing() {
        for format in [Format::Json, Format::Text] {
            init(&LogConfig { level: "error".to_owned(), format }).unwrap();
        }
        assert!(tracing::level_filters::LevelFilter::current() <= tracing::level_filters::LevelFilter::ERROR);
    }

    #[track_caller]
    fn check_level(level: &str, good: bool) {
        let result = check(&LogConfig { level: level.to_owned(), format: Format::Text });
        assert_eq!(result.is_ok(), good, "{level}: {result:?}");
    }
}
