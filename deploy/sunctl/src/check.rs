//! `sunctl check`: whether a topology and configs would be accepted.
//!
//! A topology is checked as a whole. A config is checked by what its daemon's own `--check` goes by, with the files that it
//! names (certificates, tokens, lists), so where those are. The daemon it belongs to is told by the keys it has; what is no
//! daemon's config is refused.

use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use daemon::findings::Findings;
use geo::answer::Answer;
use geo::{Source, Topology};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::topology::warnings;

/// Checks each file; the answer is bad when one of them is. What `advice` says of a topology's text that does not check is
/// told beside its problems: nothing, where nobody has to follow it.
#[must_use]
pub fn check(topology: &Source, configs: &[PathBuf], advice: impl FnOnce(&str) -> Option<String>) -> Answer {
    let checked: Vec<(String, &'static str, Checked)> =
        std::iter::once((topology.to_string(), "topology", check_topology(topology, advice)))
            .chain(configs.iter().map(|file| {
                let (kind, checked) = check_config(file);
                (file.display().to_string(), kind, checked)
            }))
            .collect();
    let mut text = String::new();
    let mut files = Vec::new();
    for (file, kind, Checked { result, warnings, advice }) in &checked {
        // Writing to a string cannot fail.
        let _ = match result {
            Ok(summary) => writeln!(text, "ok    {kind} {file}: {summary}"),
            Err(problems) => writeln!(text, "WRONG {kind} {file}:\n      {}", problems.replace('\n', "\n      ")),
        };
        for warning in warnings {
            let _ = writeln!(text, "      warning: {warning}");
        }
        if let Some(advice) = advice {
            let _ = writeln!(text, "      {advice}");
        }
        files.push(json!({
            "file": file,
            "warnings": warnings,
            "advice": advice,
            "kind": kind,
            "ok": result.is_ok(),
            "problems": result.as_ref().err().map_or_else(Vec::new, |problems| problems.lines().collect::<Vec<_>>()),
        }));
    }
    let good = checked.iter().all(|(_, _, checked)| checked.result.is_ok());
    Answer { text, json: json!({ "ok": good, "files": files }), good }
}

/// What is said of a file.
struct Checked {
    result: Result<String, String>,
    warnings: Vec<String>,
    advice: Option<String>,
}

impl From<Result<String, String>> for Checked {
    fn from(result: Result<String, String>) -> Self {
        Self { result, warnings: Vec::new(), advice: None }
    }
}

fn check_topology(source: &Source, advice: impl FnOnce(&str) -> Option<String>) -> Checked {
    let text = match source.read() {
        Ok(text) => text,
        Err(error) => return Err(error).into(),
    };
    match Topology::parse(&text) {
        Ok(topology) => Checked { warnings: warnings(&topology), ..Ok(summary(&topology)).into() },
        Err(error) => Checked { advice: advice(&text), ..Err(error.to_string()).into() },
    }
}

fn summary(topology: &Topology) -> String {
    let suns: usize = topology.regions.iter().map(|region| region.suns.len()).sum();
    let caches: usize = topology.regions.iter().map(|region| region.caches.len()).sum();
    let regions = topology.regions.len();
    format!(
        "version {}, {}, {}, {}",
        topology.version,
        count(regions, "region"),
        count(suns, "sun"),
        count(caches, "cache")
    )
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

fn check_config(file: &Path) -> (&'static str, Checked) {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return ("config", Err(error.to_string()).into()),
    };
    let table: toml::Table = match toml::from_str(&text) {
        Ok(table) => table,
        Err(error) => return ("config", Err(error.to_string()).into()),
    };
    let origin = file.display().to_string();
    let (text, origin) = (text.as_str(), origin.as_str());
    match kind_of(&table, file.file_stem().and_then(OsStr::to_str)) {
        Ok(Daemon::Cache) => ("cache-daemon", judged(text, origin, cache_daemon::server::check)),
        Ok(Daemon::Api) => ("popularity-api", judged(text, origin, popularity_api::server::check)),
        Ok(Daemon::Geo) => ("geo serve", judged(text, origin, |config| problems_of(&geo::serve::check(config)))),
        Ok(Daemon::SelfCheck) => ("sun-check", judged(text, origin, sun::selfcheck::check)),
        Ok(Daemon::Sun) => ("sun", judged(text, origin, sun::check)),
        Err(what) => ("config", Err(format!("this is no daemon's config: {what}")).into()),
    }
}

/// What a daemon says of its config, and of the files that this names.
fn judged<Config: DeserializeOwned, Found: Into<Findings>>(
    text: &str,
    origin: &str,
    check: impl FnOnce(&Config) -> Found,
) -> Checked {
    let config = match daemon::config::parse(text, origin) {
        Ok(config) => config,
        Err(error) => return Err(error.to_string()).into(),
    };
    let Findings { problems, warnings } = check(&config).into();
    let accepted = problems.is_empty();
    let result = if accepted { Ok("accepted, with the files it names".to_owned()) } else { Err(problems.join("\n")) };
    Checked { result, warnings, advice: None }
}

fn problems_of(answer: &Answer) -> Vec<String> {
    let listed = answer.json["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
    listed.iter().filter_map(|problem| problem.as_str()).map(str::to_owned).collect()
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Daemon {
    Sun,
    SelfCheck,
    Cache,
    Api,
    Geo,
}

/// Whose config this is, or what it is instead: a cache-daemon's settings are in `[edge]`, a geo server's evidence and a
/// self-check's thresholds are in tables that nobody else has, the API has one `listen`, a sun's certificates, listeners
/// and tiers are at the top. One that has no more than a name may be any sun's or self-check's: its file's name decides.
fn kind_of(table: &toml::Table, stem: Option<&str>) -> Result<Daemon, &'static str> {
    let has = |key: &&str| table.contains_key(*key);
    if has(&"edge") || has(&"vault") {
        Ok(Daemon::Cache)
    } else if ["token", "keys"].iter().any(|key| table.get(*key).is_some_and(|value| !value.is_str())) {
        Err("it has tokens or keys, which a config names the file of (tokens, signing_keys)")
    } else if TOPOLOGY_TABLES.iter().any(has) {
        Err("it is a topology; say --topology FILE")
    } else if GEO_TABLES.iter().any(has) {
        Ok(Daemon::Geo)
    } else if SELF_CHECK_KEYS.iter().any(has) {
        Ok(Daemon::SelfCheck)
    } else if has(&"listen") || has(&"commit_ms") {
        Ok(Daemon::Api)
    } else if stem == Some("sun-check") && !SUN_KEYS[1..].iter().any(has) {
        Ok(Daemon::SelfCheck)
    } else if SUN_KEYS.iter().any(has) {
        Ok(Daemon::Sun)
    } else {
        Err("it has no key by which a daemon is told")
    }
}

/// A geo server that is told where nobody is has none of them, and is of no use.
const GEO_TABLES: [&str; 9] = ["bmp", "router", "mrt", "list", "rule", "origin", "geoip", "damping", "publish"];
/// A self-check that goes by the defaults alone has the first.
const SELF_CHECK_KEYS: [&str; 7] =
    ["probe", "thresholds", "checks", "guard", "speaker", "on_stop", "history_entries_max"];
/// No topology does without the first two.
const TOPOLOGY_TABLES: [&str; 4] = ["domain", "content_servers", "region", "sun"];
/// No sun does without its name, the first, which a self-check has too.
const SUN_KEYS: [&str; 6] = ["name", "https", "http", "certificates", "store", "ram_bytes"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_tells_its_daemon_by_its_keys() {
        check_kind("vault = '/v'\n[edge]\nname = 'cache4-1'", "Ok(Cache)");
        check_kind("listen = '127.0.0.1:8090'", "Ok(Api)");
        check_kind("listen = '127.0.0.1:8090'\ntokens = '/t'\nsigning_keys = '/k'", "Ok(Api)");
        check_kind("name = 'sun4-2-1'\nhttps = []\ntoken = '/t'", "Ok(Sun)");
        check_kind("listen = '127.0.0.1:8095'\n[[list]]\nfile = '/l'", "Ok(Geo)");
        check_kind("token = '/t'\n[probe]\nevery_ms = 500", "Ok(SelfCheck)");
        check_kind("name = 'sun4-2-1'\non_stop = 'keep'", "Ok(SelfCheck)");
        check_kind(include_str!("../../config/cache-daemon.toml"), "Ok(Cache)");
        check_kind(include_str!("../../config/geo.toml"), "Ok(Geo)");
        check_kind(include_str!("../../config/popularity-api.toml"), "Ok(Api)");
        check_kind(include_str!("../../config/sun.toml"), "Ok(Sun)");
        check_kind(include_str!("../../config/sun-check.toml"), "Ok(SelfCheck)");
    }

    #[test]
    fn the_files_name_tells_whose_config_with_a_name_alone_is() {
        let kind = |text: &str, stem| format!("{:?}", kind_of(&toml::from_str(text).unwrap(), Some(stem)));
        assert_eq!(kind("name = 'sun4-2-1'", "sun-check"), "Ok(SelfCheck)");
        assert_eq!(kind("name = 'sun4-2-1'", "sun"), "Ok(Sun)");
        assert_eq!(kind("name = 'sun4-2-1'\nram_bytes = 1", "sun-check"), "Ok(Sun)");
    }

    #[test]
    fn what_is_no_daemons_config_is_refused_as_such() {
        let tokens = "[[token]]\ntoken = 'aaaaaaaaaaaaaaaa'\nrole = 'operator'";
        check_kind(tokens, "Err(\"it has tokens or keys, which a config names the file of (tokens, signing_keys)\")");
        check_kind(
            "[keys]\na = 'b'",
            "Err(\"it has tokens or keys, which a config names the file of (tokens, signing_keys)\")",
        );
        let topology = "Err(\"it is a topology; say --topology FILE\")";
        check_kind(include_str!("../../config/topology.toml"), topology);
        check_kind("", "Err(\"it has no key by which a daemon is told\")");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens.toml");
        fs::write(&file, tokens).unwrap();
        let (kind, checked) = check_config(&file);
        assert_eq!(kind, "config");
        assert!(checked.result.unwrap_err().starts_with("this is no daemon's config: "));
    }

    #[test]
    fn the_files_that_a_config_names_are_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("api.toml");
        let missing = |name: &str| folder.path().join(name).display().to_string();
        let [topology, tokens, keys] = ["topology.toml", "tokens.toml", "keys.toml"].map(missing);
        fs::write(
            &config,
            format!("listen = '127.0.0.1:8090'\ntopology = '{topology}'\ntokens = '{tokens}'\nsigning_keys = '{keys}'\ndata = '{}'", folder.path().display()),
        )
        .unwrap();
        let (kind, checked) = check_config(&config);
        let problems = checked.result.unwrap_err();
        assert_eq!(kind, "popularity-api");
        assert!(problems.contains(&topology) && problems.contains(&tokens), "{problems}");
    }

    #[test]
    fn the_shipped_topology_is_good_and_one_whose_addresses_stand_in_each_others_way_is_warned_of() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("topology.toml");
        let shipped = include_str!("../../config/topology.toml");
        for (text, says) in [
            (
                shipped.replace("192.0.2.130", "192.0.2.40"),
                "      warning: cache4-1: addresses = 192.0.2.40: it is in 192.0.2.0/26",
            ),
            (
                shipped.replace("10.4.2.1:", "192.0.2.70:"),
                "      warning: sun4-2-1: internal = 192.0.2.70:8081: it is in 192.0.2.64/26",
            ),
        ] {
            fs::write(&file, text).unwrap();
            let answer = check(&file.clone().into(), &[], |_| unreachable!("daemons take it"));
            assert!(answer.good && answer.text.contains(says), "{}", answer.text);
        }
        fs::write(&file, shipped).unwrap();
        let answer = check(&file.into(), &[], |_| unreachable!("daemons take it"));
        assert!(answer.text.starts_with("ok    topology") && !answer.text.contains("warning"), "{}", answer.text);
    }

    #[test]
    fn what_is_wrong_with_each_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let topology = folder.path().join("topology.toml");
        let config = folder.path().join("sun.toml");
        fs::write(&topology, "version = 'one'").unwrap();
        fs::write(&config, "name = 'sun4-2-1'\nramm_bytes = 1").unwrap();
        let answer =
            check(&topology.into(), &[config, folder.path().join("missing.toml")], |_| Some("Mend it.".to_owned()));
        assert!(!answer.good);
        assert_eq!(answer.text.matches("WRONG").count(), 3, "{}", answer.text);
        assert!(answer.text.contains("ramm_bytes") && answer.text.contains("\n      Mend it.\n"), "{}", answer.text);
        assert_eq!(answer.json["files"][0]["advice"], "Mend it.");
        assert!(!answer.json["files"][0]["problems"].to_string().contains("Mend it."), "{}", answer.json);
    }

    #[track_caller]
    fn check_kind(text: &str, expected: &str) {
        assert_eq!(format!("{:?}", kind_of(&toml::from_str(text).unwrap(), None)), expected, "{text}");
    }
}
