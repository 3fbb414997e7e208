//! `tests/lab`: faults of suns behind a router, and what clients have of them.

use anyhow::{Context, bail};
use tests::lab::fault::Fault;
use tests::lab::fleet::Options;
use tests::lab::outcome::Outcome;

fn main() -> anyhow::Result<()> {
    let mut options = Options { suns: 3, checked: true, passes_on: true, check_more: String::new() };
    let mut faults = Vec::new();
    let (mut tells, mut json) = (false, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--suns" => options.suns = arguments.next().context("--suns NUMBER")?.parse()?,
            "--unchecked" => options.checked = false,
            "--resets" => options.passes_on = false,
            "--tell" => tells = true,
            "--json" => json = true,
            word => match Fault::ALL.into_iter().find(|fault| fault.word() == word) {
                Some(fault) => faults.push(fault),
                None => bail!("{word}: the faults are {}", Fault::ALL.map(Fault::word).join(", ")),
            },
        }
    }
    if faults.is_empty() {
        faults = Fault::ALL.to_vec();
    }
    let mut outcomes = Vec::new();
    for fault in faults {
        let outcome = fault.play(&options);
        eprintln!("{}: {:?}, failed {} + {}", fault.word(), outcome.taken_over, outcome.new.0, outcome.kept.0);
        if tells {
            outcome.failures.iter().for_each(|(what, count)| eprintln!("  {count} x {what}"));
            eprintln!("  last failure began {:?} after the fault", outcome.last_failure);
            outcome.states.iter().for_each(|line| eprintln!("  {line}"));
        }
        outcomes.push(outcome);
    }
    if json {
        println!("{}", serde_json::Value::from_iter(outcomes.iter().map(Outcome::json)));
    } else {
        print!("{}", Outcome::table(&outcomes));
    }
    Ok(())
}
