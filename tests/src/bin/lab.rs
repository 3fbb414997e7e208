//! `tests/lab`: faults of suns behind a router, and what clients have of them.

use std::path::Path;
use std::process::ExitCode;

use tests::lab::order::{Order, Play, help};
use tests::lab::outcome::Outcome;
use tests::lab::speaker::Kind;

fn main() -> ExitCode {
    let play = match Order::parse(std::env::args().skip(1)) {
        Ok(Order::Help) => {
            print!("{}", help());
            return ExitCode::SUCCESS;
        }
        Ok(Order::Play(play)) => play,
        Err(why) => return refuse(&why),
    };
    if let Some(lacks) = lacking(&play) {
        return refuse(&lacks);
    }
    let mut outcomes = Vec::new();
    for fault in play.faults {
        let outcome = fault.play(&play.options);
        eprintln!("{}", outcome.line());
        if play.tells {
            outcome.details().iter().for_each(|line| eprintln!("  {line}"));
        }
        outcomes.push(outcome);
    }
    let table = Outcome::table(&outcomes);
    if play.json {
        // For people who look on.
        eprint!("{table}");
        println!("{}", serde_json::Value::from_iter(outcomes.iter().map(Outcome::json)));
    } else {
        print!("{table}");
    }
    ExitCode::SUCCESS
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("tests/lab: {why}");
    ExitCode::from(2)
}

/// What this machine does not have.
fn lacking(play: &Play) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it takes root, to make network namespaces".to_owned());
    }
    let more = (play.options.speaker == Kind::Exabgp).then_some("exabgp");
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let is_there = |name: &str| path.split(':').any(|folder| Path::new(folder).join(name).is_file());
    let lacking: Vec<&str> = PROGRAMS.into_iter().chain(more).filter(|name| !is_there(name)).collect();
    (!lacking.is_empty()).then(|| format!("there is no {}; tests/setup installs it", lacking.join(", no ")))
}

const PROGRAMS: [&str; 4] = ["bird", "birdc", "ip", "nft"];
