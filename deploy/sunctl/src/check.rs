//! `sunctl check`: whether a topology and configs would be accepted.
//!
//! A topology is checked as a whole. A config is checked for what its daemon would refuse on reading: the
//! daemon it belongs to is told by the keys it has. What a config names (certificates, tokens) is checked
//! by the daemon's own `--check` on the machine where those files are.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use geo::answer::Answer;
use geo::{Source, Topology};
use serde_json::json;

/// Checks each file; the answer is bad when one of them is.
#[must_use]
pub fn check(topology: &Source, configs: &[PathBuf]) -> Answer {
    let checked: Vec<(String, &'static str, Result<String, String>)> =
        std::iter::once((topology.to_string(), "topology", check_topology(topology)))
            .chain(configs.iter().map(|file| {
                let (kind, result) = check_config(file);
                (file.display().to_string(), kind, result)
            }))
            .collect();
    let mut text = String::new();
    let mut files = Vec::new();
    for (file, kind, result) in &checked {
        // Writing to a string cannot fail.
        let _ = match result {
            Ok(summary) => writeln!(text, "ok    {kind} {file}: {summary}"),
            Err(problems) => writeln!(text, "WRONG {kind} {file}:\n      {}", problems.replace('\n', "\n      ")),
        };
        files.push(json!({
            "file": file,
            "kind": kind,
            "ok": result.is_ok(),
            "problems": result.as_ref().err().map_or_else(Vec::new, |problems| problems.lines().collect::<Vec<_>>()),
        }));
    }
    let good = checked.iter().all(|(_, _, result)| result.is_ok());
    Answer { text, json: json!({ "ok": good, "files": files }), good }
}

fn check_topology(source: &Source) -> Result<String, String> {
    let text = source.read()?;
    let topology = Topology::parse(&text).map_err(|error| error.to_string())?;
    let suns: usize = topology.regions.iter().map(|region| region.suns.len()).sum();
    let caches: usize = topology.regions.iter().map(|region| region.caches.len()).sum();
    let regions = topology.regions.len();
    Ok(format!(
        "version {}, {}, {}, {}",
        topology.version,
        count(regions, "region"),
        count(suns, "sun"),
        count(caches, "cache")
    ))
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

fn check_config(file: &Path) -> (&'static str, Result<String, String>) {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return ("config", Err(error.to_string())),
    };
    let table: toml::Table = match toml::from_str(&text) {
        Ok(table) => table,
        Err(error) => return ("config", Err(error.to_string())),
    };
    let origin = file.display().to_string();
    let accepted = |result: Result<(), daemon::config::ConfigError>| {
        result.map(|()| "accepted".to_owned()).map_err(|error| error.to_string())
    };
    match kind_of(&table) {
        Daemon::Cache => {
            let config = daemon::config::parse::<cache_daemon::server::Config>(&text, &origin);
            ("cache-daemon", accepted(config.map(drop)))
        }
        Daemon::Api => {
            let config = daemon::config::parse::<popularity_api::server::Config>(&text, &origin);
            ("popularity-api", accepted(config.map(drop)))
        }
        Daemon::Geo => {
            let config = daemon::config::parse::<geo::serve::Config>(&text, &origin);
            ("geo serve", accepted(config.map(drop)))
        }
        Daemon::Sun => ("sun", accepted(daemon::config::parse::<sun::Config>(&text, &origin).map(drop))),
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Daemon {
    Sun,
    Cache,
    Api,
    Geo,
}

/// A cache-daemon's settings are in `[edge]`, a geo server's evidence is in tables that nobody else has, the API has one
/// `listen`, what is none of these is a sun's.
fn kind_of(table: &toml::Table) -> Daemon {
    let has = |key| table.contains_key(key);
    if has("edge") || has("vault") {
        Daemon::Cache
    } else if GEO_TABLES.iter().any(|table| has(table)) {
        Daemon::Geo
    } else if has("listen") || has("commit_ms") {
        Daemon::Api
    } else {
        Daemon::Sun
    }
}

/// A geo server that is told where nobody is has none of them, and is of no use.
const GEO_TABLES: [&str; 9] = ["bmp", "router", "mrt", "list", "rule", "origin", "geoip", "damping", "publish"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_tells_its_daemon_by_its_keys() {
        check_kind("vault = '/v'\n[edge]\nname = 'cache4-1'", Daemon::Cache);
        check_kind("listen = '127.0.0.1:8090'", Daemon::Api);
        check_kind("name = 'sun4-2-1'\nhttps = []", Daemon::Sun);
        check_kind("listen = '127.0.0.1:8095'\n[[list]]\nfile = '/l'", Daemon::Geo);
        check_kind(include_str!("../../config/geo.toml"), Daemon::Geo);
        check_kind(include_str!("../../config/popularity-api.toml"), Daemon::Api);
        check_kind(include_str!("../../config/sun.toml"), Daemon::Sun);
    }

    #[test]
    fn what_is_wrong_with_each_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let topology = folder.path().join("topology.toml");
        let config = folder.path().join("sun.toml");
        fs::write(&topology, "version = 'one'").unwrap();
        fs::write(&config, "name = 'sun4-2-1'\nramm_bytes = 1").unwrap();
        let answer = check(&topology.into(), &[config, folder.path().join("missing.toml")]);
        assert!(!answer.good);
        assert_eq!(answer.text.matches("WRONG").count(), 3, "{}", answer.text);
        assert!(answer.text.contains("ramm_bytes"), "{}", answer.text);
    }

    #[track_caller]
    fn check_kind(text: &str, expected: Daemon) {
        assert_eq!(kind_of(&toml::from_str(text).unwrap()), expected, "{text}");
    }
}
