//! The binary, run as an operator runs it.
#![expect(clippy::unwrap_used, reason = "to the lint, what tests share is no test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

#[test]
fn addresses_are_told_with_their_regions_and_why() {
    let expected = "\
ADDRESS          REGIONS  EVIDENCE
127.1.2.3        4 5      prefix 127.1.0.0/16
::ffff:10.2.3.4  5        prefix 10.0.0.0/8
8.8.8.8          4 5      default
";
    let lists = ["--prefixes", "{folder}/list", "--prefixes", "{folder}/list.csv"];
    check(&[&["127.1.2.3", "::ffff:10.2.3.4", "8.8.8.8"], &lists[..]].concat(), 0, expected, "");
    check(&["8.8.8.8"], 0, "ADDRESS  REGIONS  EVIDENCE\n8.8.8.8  4 5      default\n", "");
}

#[test]
fn programs_are_told_in_json() {
    let (status, output, _) = geo_with("good.toml", &["127.1.2.3", "--json", "--prefixes", "{folder}/list"]);
    let json: serde_json::Value = serde_json::from_str(&output).unwrap();
    let expected = r#"[{"address": "127.1.2.3", "regions": [4, 5], "evidence": "prefix 127.1.0.0/16"}]"#;
    assert_eq!((status, json), (0, serde_json::from_str(expected).unwrap()));
}

#[test]
fn what_is_wrong_is_said_and_the_status_is_1_or_2_for_a_mistake_on_the_command_line() {
    let no_address = "geo: \"8.8.8\": give an address, 192.0.2.1 or 2001:db8::1\n";
    check(&["8.8.8"], 1, "", no_address);
    check(&["8.8.8", "8.8.8.8"], 1, "ADDRESS  REGIONS  EVIDENCE\n8.8.8.8  4 5      default\n", no_address);
    let no_region = r#"{"error": "countries: \"RU\" = 6: the topology has no such region"}"#;
    let (status, output, _) = geo_with("good.toml", &["8.8.8.8", "--country", "RU=6", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!((status, told), (1, serde_json::from_str(no_region).unwrap()));
    let no_region = "geo: {folder}/bad:1: region = 9: the topology has no such region\n";
    check(&["8.8.8.8", "--prefixes", "{folder}/bad"], 1, "", no_region);
    let no_file = "geo: {folder}/none: No such file or directory (os error 2)\n";
    check(&["8.8.8.8", "--geoip", "{folder}/none"], 1, "", no_file);
    let told = "error: invalid value 'RU' for '--country <CODE=REGION>': give CODE=REGION, RU=4\n\n\
                For more information, try '--help'.\n";
    check(&["8.8.8.8", "--country", "RU"], 2, "", told);
    let country = "geo: countries: \"RU\" = 6: the topology has no such region\n";
    check(&["8.8.8.8", "--country", "RU=6"], 1, "", country);
}

#[test]
fn every_problem_of_the_topology_is_said() {
    let expected = "geo: topology {folder}/bad.toml: region[1] Two: latitude = 91.0: a latitude is -90..=90 degrees north\n\
                    default_region = 6: there is no such region\n";
    assert_eq!(geo_with("bad.toml", &["8.8.8.8"]), (1, String::new(), expected.to_owned()));
    let (status, _, error) = geo_with("none.toml", &["8.8.8.8"]);
    assert_eq!(
        (status, error.as_str()),
        (1, "geo: topology {folder}/none.toml: No such file or directory (os error 2)\n")
    );
}

#[test]
fn the_source_that_is_named_answers_and_no_other() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    // The environment names a server that nobody runs, and the topology.
    let lookup = |arguments: &[&str]| {
        let environment = [
            ("SUN_GEO", "http://127.0.0.1:9".to_owned()),
            ("SUN_TOKEN_FILE", path("token")),
            ("SUN_TOPOLOGY", path("good.toml")),
        ];
        let arguments = [&["lookup", "127.1.2.3"], arguments].concat();
        let output = Command::new(env!("CARGO_BIN_EXE_geo")).envs(environment).args(arguments).output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (output.status.code().unwrap(), said)
    };
    let says = |arguments: &[&str], status, expected: &str| {
        let (code, said) = lookup(arguments);
        assert!(code == status && said.contains(expected), "{arguments:?}: {code} {said}");
    };
    says(&[], 1, "geo server at http://127.0.0.1:9");
    says(&["--prefixes", &path("list")], 0, "prefix 127.1.0.0/16");
    says(&["--geoip", &path("none")], 1, "/none: No such file");
    says(&["--country", "RU"], 2, "give CODE=REGION");
    says(&["--table", &path("list")], 1, "table ");
    says(&["--topology", &path("good.toml")], 0, "default");
    for local in ["--topology", "--prefixes", "--geoip", "--table", "--country"] {
        for other in [["--server", "http://127.0.0.1:9"], ["--config", "geo.toml"]] {
            says(&[local, "RU=4", other[0], other[1]], 2, "cannot be used with");
        }
    }
}

/// `{folder}` stands for where the files are.
#[track_caller]
fn check(arguments: &[&str], status: i32, output: &str, error: &str) {
    assert_eq!(geo_with("good.toml", arguments), (status, output.to_owned(), error.to_owned()), "{arguments:?}");
}

/// Runs `geo lookup`: its status, output and errors.
fn geo_with(topology: &str, arguments: &[&str]) -> (i32, String, String) {
    let folder = folder();
    let path = folder.path().to_str().unwrap();
    let arguments = arguments.iter().map(|argument| argument.replace("{folder}", path));
    let topology = ["--topology".to_owned(), format!("{path}/{topology}")];
    let output = Command::new(env!("CARGO_BIN_EXE_geo")).arg("lookup").args(topology).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().replace(path, "{folder}");
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let bad = TOPOLOGY.replace("default_region = 4", "default_region = 6").replace("59.94", "91");
    for (name, text) in [
        ("good.toml", TOPOLOGY),
        ("bad.toml", &bad),
        ("list", "# Moscow\n127.1.0.0/16 4\n"),
        ("list.csv", "prefix,region\n10.0.0.0/8,5\n"),
        ("bad", "10.0.0.0/8 9\n"),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let token = folder.path().join("token");
    fs::write(&token, "a-token-of-thirty-two-characters\n").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    folder
}

const TOPOLOGY: &str = r#"
version = 1
domain = "example.org"
default_region = 4
content_servers = { url = "http://cs{number}", numbers = ["1"] }
region = [
    { id = 4, name = "One", latitude = 55.75, longitude = 37.6, neighbours = [5] },
    { id = 5, name = "Two", latitude = 59.94, longitude = 30.3 },
]
"#;
