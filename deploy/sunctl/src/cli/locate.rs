//! Which file and which client are asked about, and whom to ask about them.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use daemon::config::variable;
use geo::answer::Answer;
use geo::resolver::Sources;
use geo::{CanonicalName, Scheme};
use popularity_api::{ClientError, signing};

use super::sources::{ApiArgs, TopologyArgs};
use super::waiting;
use crate::locate::{self, Question};

#[derive(Debug, Args)]
pub(super) struct WhereArgs {
    /// The file's name, c100500/path/to/a.jpg; a link to it will do.
    file: String,
    /// The client's address.
    #[arg(long, value_name = "ADDRESS")]
    client: IpAddr,
    /// Scheme of the link.
    #[arg(long, value_enum, default_value_t = SchemeArg::Https)]
    scheme: SchemeArg,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    topology: TopologyArgs,
    /// By the topology alone: lists of prefixes and their regions.
    #[arg(long, value_name = "FILE", conflicts_with = "api")]
    prefixes: Vec<PathBuf>,
    /// By the topology alone: a city or country file in MaxMind's format; may be given several times, and IPv4 and IPv6
    /// are each taken from the first that has it.
    #[arg(long, value_name = "FILE", conflicts_with = "api")]
    geoip: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SchemeArg {
    Http,
    Https,
}

impl WhereArgs {
    pub(super) fn answer(&self) -> anyhow::Result<Answer> {
        let question = Question { file: file_name(&self.file)?, client: self.client, scheme: self.scheme.into() };
        if self.asks_the_api(|name| variable(name).is_some()) {
            let client = self.api.client()?;
            return waiting(locate::ask(&client, &question)).map_err(|error| match error.downcast_ref() {
                Some(ClientError::Unreachable { .. }) => error.context(API_AWAY),
                _ => error,
            });
        }
        let sources = Sources { prefixes: self.prefixes.clone(), geoip: self.geoip.clone(), ..Sources::default() };
        let topology = self.topology.read().context("neither an API (--api) nor a topology can be asked")?;
        locate::work_out(&topology, &sources, &question)
    }

    /// What was said comes before what is set, and the API, which knows more, before the topology. Evidence of one's own
    /// is for the topology: the API goes by its own.
    fn asks_the_api(&self, is_set: impl Fn(&str) -> bool) -> bool {
        let works_it_out = self.topology.topology.is_some() || !self.prefixes.is_empty() || !self.geoip.is_empty();
        self.api.api.is_some() || (!works_it_out && is_set("SUN_API"))
    }
}

impl From<SchemeArg> for Scheme {
    fn from(scheme: SchemeArg) -> Self {
        match scheme {
            SchemeArg::Http => Self::Http,
            SchemeArg::Https => Self::Https,
        }
    }
}

/// A name, a path, or a link, whose query does not count.
pub(super) fn file_name(file: &str) -> anyhow::Result<CanonicalName> {
    CanonicalName::parse(path_of(file)).with_context(|| format!("{file:?} names no file"))
}

/// The path in a name, a path or a link, without the first slash.
pub(super) fn path_of(text: &str) -> &str {
    let path = match text.split_once("://") {
        // A signature in front of it is none of the name.
        Some((_, rest)) => rest.find('/').map_or("", |slash| signing::split(&rest[slash..]).1),
        None => text,
    };
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split('?').next().unwrap_or(path)
}

/// What helps who asked an API that is away.
const API_AWAY: &str = "the API cannot be asked; by the topology alone: --topology FILE, with --prefixes or --geoip";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    #[test]
    fn a_file_is_named_by_name_path_or_link() {
        check_file("c100500/a/b.jpg", "c100500/a/b.jpg");
        check_file("/c100500/a/b.jpg", "c100500/a/b.jpg");
        check_file("https://sun4-2-1.example.org:8443/c100500/a/%62.jpg?sign=1", "c100500/a/b.jpg");
        check_file("https://sun4-2-1.example.org/s.1.3.a.x/c100500/a/b.jpg", "c100500/a/b.jpg");
        check_file("https://sun4-2-1.example.org", "refused");
        check_file("a/b.jpg", "refused");
        check_file("c100500/../b.jpg", "refused");
    }

    #[test]
    fn what_was_said_comes_before_what_is_set() {
        check_source(&["--api", "http://a"], &[], "api");
        check_source(&["--topology", "t"], &["SUN_API"], "topology");
        check_source(&["--topology", "t", "--api", "http://a"], &[], "api");
        check_source(&["--prefixes", "p"], &["SUN_API", "SUN_TOPOLOGY"], "topology");
        check_source(&["--geoip", "g"], &["SUN_API", "SUN_TOPOLOGY"], "topology");
        for both in [["--prefixes", "p"], ["--geoip", "g"]] {
            let line =
                ["sunctl", "where", "c1/a", "--client", "127.0.0.1", "--api", "http://a"].into_iter().chain(both);
            assert!(Cli::try_parse_from(line).is_err(), "the API goes by its own evidence: {both:?}");
        }
        check_source(&[], &["SUN_API", "SUN_TOPOLOGY"], "api");
        check_source(&[], &["SUN_TOPOLOGY"], "topology");
        check_source(&[], &[], "topology");
    }

    #[track_caller]
    fn check_file(file: &str, expected: &str) {
        let name = file_name(file).map_or_else(|_| "refused".to_owned(), |name| name.to_string());
        assert_eq!(name, expected, "{file}");
    }

    #[track_caller]
    fn check_source(said: &[&str], set: &[&str], expected: &str) {
        let line = ["sunctl", "where", "c1/a", "--client", "127.0.0.1"].iter().chain(said);
        let Command::Where(args) = Cli::try_parse_from(line).unwrap().command else { panic!("asked where") };
        let source = if args.asks_the_api(|name| set.contains(&name)) { "api" } else { "topology" };
        assert_eq!(source, expected, "{said:?} {set:?}");
    }
}
