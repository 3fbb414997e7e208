//! The command line of `tests/lab`: what is to be played, and how. Everything that is wrong with it is said before a machine
//! is made.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use super::family::Family;
use super::fault::Fault;
use super::fleet::Options;
use super::speaker::Kind;

/// What the command line asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Order {
    /// To be told what there is.
    Help,
    /// To play these.
    Play(Play),
}

/// Faults, and how they are told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Play {
    /// In the order in which they are played.
    pub faults: Vec<Fault>,
    /// How each lab is made.
    pub options: Options,
    /// Also what failed, and what the self-checks say.
    pub tells: bool,
    /// JSON and no table.
    pub json: bool,
}

impl Order {
    /// Of the words after the program's name.
    ///
    /// # Errors
    ///
    /// What is wrong, and what there is instead.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut play = Play { faults: Vec::new(), options: Options::default(), tells: false, json: false };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--help" | "-h" => return Ok(Self::Help),
                "--suns" => play.options.suns = suns(words.next())?,
                "--speaker" => play.options.speaker = speaker(words.next())?,
                "--family" => play.options.family = family(words.next())?,
                "--unchecked" => play.options.checked = false,
                "--resets" => play.options.passes_on = false,
                "--tell" => play.tells = true,
                "--json" => play.json = true,
                option if option.starts_with('-') => {
                    return Err(format!("{option}: no such option; --help lists them"));
                }
                name => play.faults.push(fault(name)?),
            }
        }
        if play.options.speaker == Kind::Exabgp && !play.options.checked {
            return Err("--unchecked: ExaBGP announces only what a self-check says".to_owned());
        }
        let named = !play.faults.is_empty();
        let wanted = if named { play.faults } else { Fault::ALL.to_vec() };
        play.faults = Vec::new();
        for fault in wanted {
            match fault.lacks(&play.options) {
                None => play.faults.push(fault),
                Some(lacks) if named => return Err(format!("{}: {lacks}", fault.word())),
                Some(_) => {}
            }
        }
        Ok(Self::Play(play))
    }
}

/// What `tests/lab --help` prints.
#[must_use]
pub fn help() -> String {
    let mut text = HEAD.to_owned();
    for fault in Fault::ALL {
        let _ = writeln!(text, "  {:<13}{}", fault.word(), fault.name());
    }
    let (least, most) = (SUNS.start(), SUNS.end());
    let _ =
        write!(text, "\noptions:\n  --suns N     suns of the group, {least} to {most}; 3 if nothing is said\n{TAIL}");
    text
}

fn suns(word: Option<String>) -> Result<u8, String> {
    let (least, most) = (SUNS.start(), SUNS.end());
    let word = word.ok_or_else(|| format!("--suns takes a number, {least} to {most}"))?;
    let number = word.parse().ok().filter(|number| SUNS.contains(number));
    number.ok_or_else(|| format!("--suns {word}: a whole number from {least} to {most}"))
}

fn speaker(word: Option<String>) -> Result<Kind, String> {
    let word = word.unwrap_or_default();
    let found = Kind::ALL.into_iter().find(|kind| kind.word() == word);
    found.ok_or_else(|| format!("--speaker {word}: bird or exabgp"))
}

fn family(word: Option<String>) -> Result<Family, String> {
    let word = word.unwrap_or_default();
    let found = Family::ALL.into_iter().find(|family| family.word() == word);
    found.ok_or_else(|| format!("--family {word}: 4, 6 or both"))
}

fn fault(word: &str) -> Result<Fault, String> {
    let found = Fault::ALL.into_iter().find(|fault| fault.word() == word);
    found.ok_or_else(|| format!("{word}: no such fault; there are {}", Fault::ALL.map(Fault::word).join(", ")))
}

/// How many suns a group can have: one alone has nobody who takes over, and each has eight addresses of the subnet to itself.
pub const SUNS: RangeInclusive<u8> = 2..=16;

const HEAD: &str = "\
tests/lab: suns behind a router, each a machine of its own (network namespaces), with clients who ask the whole time. Plays
faults and prints a table of what clients have of each:

  ANSWERED BY ANOTHER   seconds from the fault until another sun answered at every address of the one that it happened to;
                        \"stays\": its addresses stayed, or some of them were answered by nobody else
  NEW FAILED, OF        requests on new connections (125 a second, half of them to that sun)
  KEPT FAILED, OF       requests on connections that are kept (10 a second on each, one connection to each address)
  BUSIEST               what the busiest sun carries afterwards, against an equal share before
  RESUMED               new connections to another sun that resumed a TLS session

usage: tests/lab [OPTION...] [FAULT...]

Without a FAULT all are played. Each has a lab of its own and takes about ten seconds (all of them: two to three minutes).
It takes root, or leave to make user namespaces, and BIRD 2, iproute2 and nftables, which tests/setup installs.

faults:
";

const TAIL: &str = "  \
  --speaker S  who speaks BGP for the suns, bird or exabgp; bird if nothing is said
  --family F   what clients ask by, 4, 6 or both; 4 if nothing is said. Of both, connections by IPv6 are not passed on:
               what the suns have among themselves is IPv4
  --unchecked  without self-checks: what becomes of a group that nobody watches
  --resets     without `sunctl render addresses --pass-on`: connections break when their address moves
  --tell       also what failed, and what the self-checks say at the end
  --json       for programs
  --help       this

The programs are built with --release first; PROFILE=debug takes what `cargo build` made.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_refused_with_what_there_is_instead() {
        for (line, expected) in [
            ("--suns 0", "--suns 0: a whole number from 2 to 16"),
            ("--suns 1", "--suns 1: a whole number from 2 to 16"),
            ("--suns 17", "--suns 17: a whole number from 2 to 16"),
            ("--suns 300", "--suns 300: a whole number from 2 to 16"),
            ("--suns three", "--suns three: a whole number from 2 to 16"),
            ("--suns", "--suns takes a number, 2 to 16"),
            ("--sun 3", "--sun: no such option; --help lists them"),
            ("--speaker frr", "--speaker frr: bird or exabgp"),
            ("--family 5", "--family 5: 4, 6 or both"),
            ("--speaker exabgp --unchecked", "--unchecked: ExaBGP announces only what a self-check says"),
            ("--speaker exabgp restarted", "restarted: with ExaBGP the self-check is no unit that is stopped first"),
            ("--suns 2 flapping", "flapping: it takes 3 suns: the last one that is well stays"),
        ] {
            check(line, &Err(expected.to_owned()));
        }
        let refusal = parse("killd").unwrap_err();
        assert!(refusal.starts_with("killd: no such fault; there are killed, hung, "), "{refusal}");
    }

    #[test]
    fn what_is_asked_for_is_played_in_that_order_and_all_that_can_be_if_nothing_is_named() {
        let play =
            Play { faults: vec![Fault::Hung, Fault::Killed], options: Options::default(), tells: false, json: false };
        check("hung killed", &Ok(Order::Play(play.clone())));
        let options = Options { suns: 8, checked: false, passes_on: false, family: Family::V6, ..Options::default() };
        let more = Play { faults: vec![Fault::Killed], options, tells: true, json: true };
        check("--suns 8 --unchecked --resets --family 6 --tell --json killed", &Ok(Order::Play(more)));
        check("", &Ok(Order::Play(Play { faults: Fault::ALL.to_vec(), ..play.clone() })));
        let Ok(Order::Play(two)) = parse("--suns 2") else { panic!("two suns are a group") };
        assert!(!two.faults.contains(&Fault::Flapping) && two.faults.len() + 1 == Fault::ALL.len());
        check("killed --help", &Ok(Order::Help));
    }

    #[test]
    fn the_help_names_every_fault() {
        let help = help();
        for fault in Fault::ALL {
            assert!(help.contains(&format!("\n  {:<13}{}\n", fault.word(), fault.name())), "{help}");
        }
        assert!(help.lines().all(|line| line.len() <= 130), "{help}");
    }

    #[track_caller]
    fn check(line: &str, expected: &Result<Order, String>) {
        assert_eq!(&parse(line), expected, "{line}");
    }

    fn parse(line: &str) -> Result<Order, String> {
        Order::parse(line.split_whitespace().map(str::to_owned))
    }
}
