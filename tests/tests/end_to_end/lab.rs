//! A group of suns behind a router, while clients ask: what must hold of each fault, however slow the machine is. What it
//! takes in seconds, `tests/lab` prints.

use std::process::{Command, Stdio};

use serde_json::Value;

#[test]
fn a_group_survives_what_happens_to_one_of_its_suns() {
    let played = play(&[]);
    assert_eq!(played.len(), tests::lab::fault::Fault::ALL.len());
    played.iter().for_each(|(fault, outcome)| check(fault, outcome));
}

#[test]
fn a_group_survives_it_as_well_when_exabgp_speaks_for_it() {
    let played = play(&["--speaker", "exabgp", "killed", "hung", "drained"]);
    assert_eq!(played.len(), 3);
    played.iter().for_each(|(fault, outcome)| check(fault, outcome));
}

#[test]
fn a_group_survives_it_as_well_at_addresses_of_ipv6_and_of_both_families() {
    let mut played = play(&["--family", "both", "killed", "hung"]);
    played.extend(play(&["--family", "6", "drained"]));
    assert_eq!(played.len(), 3);
    played.iter().for_each(|(fault, outcome)| check(fault, outcome));
}

#[track_caller]
fn check(fault: &str, outcome: &Value) {
    // Others answer at the addresses of a sun that is ill or away.
    let stays = ["upgraded", "last"].contains(&fault);
    // A sun that has too much to do may be relieved of it or keep it; an overload never takes the whole group out.
    let either = fault == "overloaded";
    assert!(either || outcome["taken_over_s"].is_null() == stays, "{fault}: {outcome:#}");
    assert!(!either || outcome["most_away"].as_u64().unwrap() < 3, "{fault}: {outcome:#}");
    // What is done on purpose costs no request, neither on new connections nor on open ones.
    let spares = ["drained", "restarted", "upgraded", "last"].contains(&fault);
    let failed = outcome["new"]["failed"].as_u64().unwrap() + outcome["kept"]["failed"].as_u64().unwrap();
    assert!(failed == 0 || !spares, "{fault}: {outcome:#}");
    // Three suns with four addresses each: half of one's addresses go to each of the others.
    let busiest = outcome["busiest"].as_f64().unwrap();
    assert!(busiest < 1.75 || ["last", "flapping", "overloaded"].contains(&fault), "{fault}: {outcome:#}");
    // Sessions are resumed on another sun. A client runs out of tickets now and then.
    let count = |key: &str| outcome["resumed"][key].as_u64().unwrap();
    assert!(2 * count("resumed") >= count("all"), "{fault}: {outcome:#}");
    let states: Vec<&str> = outcome["states"].as_array().unwrap().iter().map(|state| state.as_str().unwrap()).collect();
    let held = states.iter().filter(|state| state.contains(" is Held ")).count();
    assert_eq!(held, if fault == "flapping" { 2 } else { 0 }, "{fault}: {states:?}");
}

#[test]
fn a_lab_that_cannot_be_made_is_refused_and_help_is_given() {
    for (words, status, says) in [
        (&["--suns", "300"][..], 2, "tests/lab: --suns 300: a whole number from 2 to 16\n"),
        (&["melted"], 2, "tests/lab: melted: no such fault; there are killed, hung, "),
        (&["--help"], 0, "usage: tests/lab [OPTION...] [FAULT...]"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_lab")).args(words).stdin(Stdio::null()).output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert_eq!(output.status.code(), Some(status), "{words:?}: {said}");
        assert!(said.contains(says), "{words:?}: {said}");
    }
}

/// Each fault with what clients had of it; all of them when none is named.
fn play(words: &[&str]) -> Vec<(String, Value)> {
    let lab = env!("CARGO_BIN_EXE_lab");
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new(lab)
    } else {
        let mut command = Command::new("unshare");
        let begin = "mount -t tmpfs none /run && mkdir /run/netns && exec \"$0\" \"$@\"";
        command.args(["--user", "--map-root-user", "--net", "--mount", "sh", "-c", begin, lab]);
        command
    };
    let programs = tests::process::binary("sun").parent().unwrap().to_owned();
    let output = command.args(words).arg("--json").env("SUN_BIN_DIR", programs).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let outcomes: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    println!("{said}");
    outcomes.into_iter().map(|outcome| (outcome["fault"].as_str().unwrap().to_owned(), outcome)).collect()
}
