//! Config files: TOML into a value, or an error that says which file, which line, which key and what is wrong.
//!
//! Unknown keys are refused by the types themselves (`#[serde(deny_unknown_fields)]`), so that a misspelt
//! option is an error and not a default.
//!
//! ```text
//!   /etc/sun/sun.toml:7:13: edge.ram_bytes: invalid type: string "1 GiB", expected u64
//!   file              | |   key             what
//!                  line column, counted from 1
//! ```

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::de::DeserializeOwned;

/// Reads a config file.
///
/// # Errors
///
/// File, line, column and key of the first problem, and what to do.
pub fn load<T: DeserializeOwned>(file: &Path) -> Result<T, ConfigError> {
    let text = read(file)?;
    parse(&text, &file.display().to_string())
}

/// Reads a config from text; `origin` names it in errors.
///
/// # Errors
///
/// As [`load`].
pub fn parse<T: DeserializeOwned>(text: &str, origin: &str) -> Result<T, ConfigError> {
    let document =
        toml::Deserializer::parse(text).map_err(|error| refusal(text, origin, "", error.span(), error.message()))?;
    serde_path_to_error::deserialize(document).map_err(|error| {
        // The path is "." where the document's root is meant.
        let key = error.path().to_string();
        let key = if key == "." { String::new() } else { format!("{key}: ") };
        let error = error.into_inner();
        refusal(text, origin, &key, error.span(), error.message())
    })
}

/// An environment variable that is set and not empty: the default of an option.
#[must_use]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Reads a file that nobody but its owner may read.
///
/// # Errors
///
/// When it cannot be read, or when its permissions let its group or others in.
pub fn read_private(file: &Path) -> Result<String, ConfigError> {
    let metadata = std::fs::metadata(file).map_err(|error| unreadable(file, &error))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        let file = file.display();
        return Err(ConfigError(format!(
            "{file}: others than its owner may use this secret (mode {mode:04o}); run `chmod 600 {file}`"
        )));
    }
    read(file)
}

fn read(file: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(file).map_err(|error| unreadable(file, &error))
}

fn unreadable(file: &Path, error: &std::io::Error) -> ConfigError {
    ConfigError(format!("{}: cannot be read: {error}", file.display()))
}

fn refusal(text: &str, origin: &str, key: &str, span: Option<std::ops::Range<usize>>, what: &str) -> ConfigError {
    let place = span.map(|span| position(text, span.start)).map_or_else(String::new, |(l, c)| format!(":{l}:{c}"));
    let hint = if what == NO_ADDRESS { ": it is IP:port, \"127.0.0.1:8090\"; a name is not looked up" } else { "" };
    ConfigError(format!("{origin}{place}: {key}{what}{hint}"))
}

/// What the standard library says of a text that should be an address and a port, and does not say how that is written.
const NO_ADDRESS: &str = "invalid socket address syntax";

/// Line and column, counted from 1, of a byte.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let mut byte = byte.min(text.len());
    while !text.is_char_boundary(byte) {
        byte -= 1;
    }
    let before = &text[..byte];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// A config that is refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize, serde::Serialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        name: String,
        #[serde(default)]
        inner: Vec<Inner>,
    }

    #[derive(Debug, serde::Deserialize, serde::Serialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        count: u16,
    }

    #[test]
    fn a_good_document_is_read() {
        check("name = 'a'", "name = \"a\"\ninner = []\n");
        check("name = 'a'\n[[inner]]\ncount = 3\n", "name = \"a\"\n\n[[inner]]\ncount = 3\n");
    }

    #[test]
    fn an_error_names_the_place_the_key_and_the_problem() {
        check("", "test.toml:1:1: missing field `name`");
        check("name = 3", "test.toml:1:8: name: invalid type: integer `3`, expected a string");
        check("name = 'a'\nnmae = 'b'", "test.toml:2:1: nmae: unknown field `nmae`, expected `name` or `inner`");
        check(
            "name = 'ä'\n\n[[inner]]\ncount = 3\n[[inner]]\n  count = 70_000",
            "test.toml:6:11: inner[1].count: invalid value: integer `70000`, expected u16",
        );
        check("name = 'a\n", "test.toml:1:10: invalid literal string, expected `'`");
        check("name = 'a'\nname = 'b'\n", "test.toml:2:1: duplicate key");
    }

    #[test]
    fn a_name_where_an_address_should_be_is_told_how_one_is_written() {
        #[derive(Debug, serde::Deserialize)]
        struct Listener {
            #[serde(rename = "listen")]
            _listen: std::net::SocketAddr,
        }
        let error = parse::<Listener>("listen = 'localhost:1'", "test.toml").unwrap_err().to_string();
        let expected =
            "listen: invalid socket address syntax: it is IP:port, \"127.0.0.1:8090\"; a name is not looked up";
        assert_eq!(error, format!("test.toml:1:10: {expected}"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("none.toml");
        let error = load::<Outer>(&file).unwrap_err().to_string();
        assert_eq!(error, format!("{}: cannot be read: No such file or directory (os error 2)", file.display()));
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        check_mode(0o600, "");
        check_mode(0o400, "");
        check_mode(0o640, "(mode 0640)");
        check_mode(0o604, "(mode 0604)");
        check_mode(0o620, "(mode 0620)");
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let answer = match parse::<Outer>(text, "test.toml") {
            Ok(outer) => toml::to_string(&outer).unwrap(),
            Err(error) => error.to_string(),
        };
        assert_eq!(answer, expected);
    }

    #[track_caller]
    fn check_mode(mode: u32, expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "x").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        match read_private(&file) {
            Ok(text) => assert_eq!((text.as_str(), expected), ("x", "")),
            Err(error) => assert!(!expected.is_empty() && error.0.contains(expected), "{error}"),
        }
    }
}
