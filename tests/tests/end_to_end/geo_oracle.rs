//! `geo lookup` beside independent implementations, on real files.

use std::process::Command;

use tests::process;

#[test]
fn a_million_addresses_and_every_edge_have_the_regions_that_others_find() {
    let oracle = process::target_folder().join("oracle");
    let files = oracle.join("node_modules/@ip-location-db");
    let work = tempfile::tempdir().unwrap();
    let output = Command::new(oracle.join("venv/bin/python"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/oracle/geo.py"))
        .arg(process::binary("geo"))
        .args([files.join("asn"), files.join("dbip-country-mmdb/dbip-country.mmdb")])
        .arg(work.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.ends_with("\n0 differences\n"), "{said}");
}
