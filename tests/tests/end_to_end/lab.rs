//! A group of suns behind a router, while clients ask: what must hold of each fault, however slow the machine is. What it
//! takes in seconds, `tests/lab` prints.

use std::process::{Command, Stdio};

use serde_json::Value;

#[test]
fn a_group_survives_what_happens_to_one_of_its_suns() {
    for (fault, outcome) in play() {
        // Others answer at the addresses of a sun that is ill or away.
        let stays = ["upgraded", "last"].contains(&fault.as_str());
        assert_eq!(outcome["taken_over_s"].is_null(), stays, "{fault}: {outcome:#}");
        // What is done on purpose costs no request, neither on new connections nor on open ones.
        let spares = ["drained", "restarted", "upgraded", "last"].contains(&fault.as_str());
        let failed = outcome["new"]["failed"].as_u64().unwrap() + outcome["kept"]["failed"].as_u64().unwrap();
        assert!(failed == 0 || !spares, "{fault}: {outcome:#}");
        // Three suns with four addresses each: half of one's addresses go to each of the others.
        let busiest = outcome["busiest"].as_f64().unwrap();
        assert!(busiest < 1.75 || ["last", "flapping"].contains(&fault.as_str()), "{fault}: {outcome:#}");
        // Sessions are resumed on another sun. A client runs out of tickets now and then.
        let count = |key: &str| outcome["resumed"][key].as_u64().unwrap();
        assert!(2 * count("resumed") >= count("all"), "{fault}: {outcome:#}");
        let states: Vec<&str> =
            outcome["states"].as_array().unwrap().iter().map(|state| state.as_str().unwrap()).collect();
        let held = states.iter().filter(|state| state.contains(" is Held ")).count();
        assert_eq!(held, if fault == "flapping" { 2 } else { 0 }, "{fault}: {states:?}");
    }
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

/// Every fault with what clients had of it.
fn play() -> Vec<(String, Value)> {
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
    let output = command.arg("--json").env("SUN_BIN_DIR", programs).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let outcomes: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(outcomes.len(), tests::lab::fault::Fault::ALL.len());
    outcomes.into_iter().map(|outcome| (outcome["fault"].as_str().unwrap().to_owned(), outcome)).collect()
}
