//! Config files: TOML, unknown keys refused, errors that say which file, which key and what is wrong.

use std::path::Path;

use serde::de::DeserializeOwned;

/// Reads a config file.
///
/// # Errors
///
/// File, line, column and key of the first problem, and what to do.
pub fn load<T: DeserializeOwned>(file: &Path) -> Result<T, ConfigError> {
    let _ = file;
    todo!()
}

/// Reads a config from text; `origin` names it in errors.
///
/// # Errors
///
/// As [`load`].
pub fn parse<T: DeserializeOwned>(text: &str, origin: &str) -> Result<T, ConfigError> {
    let _ = (text, origin);
    todo!()
}

/// A config that is refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);
