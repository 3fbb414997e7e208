//! The systemd units that are shipped: systemd understands them, and they leave little open.

use std::path::Path;
use std::process::Command;

const UNITS: [&str; 6] = [
    "sun.service",
    "sun-check.service",
    "sun-addresses.service",
    "popularity-api.service",
    "cache-daemon.service",
    "geo.service",
];

#[test]
fn systemd_understands_the_units_and_finds_them_hardened() {
    let root = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd");
    let units = root.path().join("etc/systemd/system");
    std::fs::create_dir_all(&units).unwrap();
    let mut found: Vec<String> = std::fs::read_dir(&shipped)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".service"))
        .collect();
    found.sort();
    let mut expected = UNITS.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(found, expected);
    for unit in UNITS {
        std::fs::copy(shipped.join(unit), units.join(unit)).unwrap();
    }
    // What they start has to be there.
    std::fs::create_dir_all(root.path().join("usr/bin")).unwrap();
    for program in ["sun", "sun-check", "popularity-api", "cache-daemon", "geo"] {
        std::fs::copy("/bin/true", root.path().join("usr/bin").join(program)).unwrap();
    }
    std::fs::create_dir_all(root.path().join("bin")).unwrap();
    for program in ["sh", "kill"] {
        std::fs::copy("/bin/true", root.path().join("bin").join(program)).unwrap();
    }
    let root = format!("--root={}", root.path().display());
    let (good, said) = analyze(&[&["verify", &root, "--man=no", "--recursive-errors=no"], &UNITS[..]].concat());
    assert!(good && said.is_empty(), "{said}");
    for unit in UNITS {
        // Tenths of systemd's exposure: 0 is sealed, 100 is open.
        let (good, said) = analyze(&["security", &root, "--offline=yes", "--no-pager", "--threshold=25", unit]);
        assert!(good, "{said}");
    }
}

fn analyze(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("systemd-analyze: {error}; tests/setup installs it"));
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), said)
}
