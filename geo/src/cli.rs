//! The command line of `geo`: what can be asked, and where the answer comes from.
//!
//! ```text
//!   geo serve   --config FILE [--check]                       the daemon
//!   geo build   --config FILE --out TABLE                     what the daemon would publish, without routers
//!   geo lookup  ADDRESS...   --topology FILE [--prefixes FILE]... | --table | --server | --config
//!   geo explain ADDRESS      --server URL | --config FILE
//!   geo audit, geo stats     --server URL | --config FILE
//!   geo diff    BEFORE AFTER                                  tables: files or servers
//! ```

mod ask;
mod diff;

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::answer::Answer;
use crate::source::Source;
use crate::topology::RegionId;

/// Which region serves a client, and why.
#[derive(Debug, Parser)]
#[command(name = "geo", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    /// Answer in JSON, for programs.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve and publish which region serves whom: the daemon.
    Serve(ServeArgs),
    /// Build the table that a server would publish from its files, without routers.
    Build(BuildArgs),
    /// Print the regions that serve each address, best first, and why.
    Lookup(LookupArgs),
    /// Print all that is known of an address: prefixes, regions, and what put one before the other.
    Explain(ExplainArgs),
    /// Print what an operator should look at.
    Audit(Asked),
    /// Print sizes, sources and peers.
    Stats(Asked),
    /// Print which share of the addresses moves between which regions, from one table to another.
    Diff(DiffArgs),
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Config file (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the config and all it names, print what does not count, then "ok" or every problem; bind nothing.
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Args)]
struct BuildArgs {
    /// A server's config.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where the table goes.
    #[arg(long, value_name = "TABLE")]
    out: PathBuf,
}

/// Who knows.
#[derive(Clone, Debug, Args)]
struct Asked {
    /// A server that runs, http://10.0.0.6:8095 [env: SUN_GEO].
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    server: Option<String>,
    /// File with a token for it [env: SUN_TOKEN_FILE].
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A server's config: the answer is worked out from the files that it names, without routers.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct LookupArgs {
    /// IPv4 or IPv6 addresses of clients; `-` reads them from the standard input, one a line.
    #[arg(required = true, value_name = "ADDRESS")]
    addresses: Vec<String>,
    #[command(flatten)]
    asked: Asked,
    /// A table, of `geo build` or of a follower's folder; with --topology.
    #[arg(long, value_name = "TABLE", conflicts_with_all = ["server", "config"])]
    table: Option<PathBuf>,
    /// The topology: a file, or etcd://HOST:PORT,.../KEY [env: SUN_TOPOLOGY].
    #[arg(long, value_name = "FILE", conflicts_with_all = ["server", "config"])]
    topology: Option<Source>,
    /// With --topology: a prefix list, lines of `prefix region` or `prefix,region`; may be given several times.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["server", "config", "table"])]
    prefixes: Vec<PathBuf>,
    /// With --topology: a city or country file in MaxMind's format; may be given several times, and IPv4 and IPv6 are each
    /// taken from the first that has it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["server", "config", "table"])]
    geoip: Vec<PathBuf>,
    /// The region of a country, for a geoip file without positions; may be given several times.
    #[arg(long = "country", value_name = "CODE=REGION", value_parser = country,
        conflicts_with_all = ["server", "config", "table"])]
    countries: Vec<(String, RegionId)>,
}

#[derive(Debug, Args)]
struct ExplainArgs {
    /// A client's address.
    #[arg(value_parser = ask::address)]
    address: IpAddr,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, Args)]
struct DiffArgs {
    /// A table's file, or a server that publishes one, http://10.0.0.6:8095.
    before: String,
    /// The other one.
    after: String,
    /// The topology, a file or etcd://HOST:PORT,.../KEY: whoever is unknown to a table is in its default region [env: SUN_TOPOLOGY].
    #[arg(long, value_name = "FILE")]
    topology: Option<Source>,
    /// File with a token for servers [env: SUN_TOKEN_FILE].
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Runs the process's command line; the exit status is 1 when something is wrong, 2 for a mistake in it.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Serve(args) = &cli.command
        && !args.check
    {
        return daemon::process::status(crate::serve::run(&args.config));
    }
    match run(&cli) {
        Ok(answer) => {
            let text = if cli.json { format!("{:#}\n", answer.json) } else { answer.text };
            // A reader that left (`| head`) has seen what it wanted.
            let _ = std::io::stdout().write_all(text.as_bytes());
            if answer.good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            if let Some(mistake) = error.downcast_ref::<clap::Error>() {
                mistake.exit();
            }
            if cli.json {
                println!("{:#}", serde_json::json!({ "error": format!("{error:#}") }));
            } else {
                eprintln!("geo: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<Answer> {
    match &cli.command {
        // That of a daemon; one that runs answers nothing here.
        Command::Serve(args) => Ok(crate::serve::check(&daemon::config::load(&args.config)?)),
        Command::Build(args) => build(args),
        Command::Lookup(args) => ask::lookup(args),
        Command::Explain(args) => ask::ask(&args.asked, ask::Question::Explain(args.address), cli.json),
        Command::Audit(asked) => ask::ask(asked, ask::Question::Audit, cli.json),
        Command::Stats(asked) => ask::ask(asked, ask::Question::Stats, cli.json),
        Command::Diff(args) => {
            let table = |named: &str| ask::table_of(named, args.token_file.as_deref());
            let source = topology(args.topology.as_ref())?;
            let topology = source.map(|source| source.load()).transpose().map_err(anyhow::Error::msg)?;
            let default = topology.map(|topology| topology.default_region);
            Ok(diff::answer(&table(&args.before)?, &table(&args.after)?, default))
        }
    }
}

/// The topology that is said, or else that is set.
fn topology(said: Option<&Source>) -> anyhow::Result<Option<Source>> {
    if said.is_some() {
        return Ok(said.cloned());
    }
    let set = daemon::config::variable("SUN_TOPOLOGY");
    set.map(|text| text.parse()).transpose().map_err(|why: String| anyhow::anyhow!("SUN_TOPOLOGY: {why}"))
}

/// Writes what a server would publish.
fn build(args: &BuildArgs) -> anyhow::Result<Answer> {
    let engine = ask::engine(&args.config)?;
    let (position, bytes) = engine.encode(daemon::clock::unix_s());
    let about = || format!("table {}", args.out.display());
    crate::file::write_atomically(&args.out, &bytes).with_context(about)?;
    let counts = engine.table().counts();
    let (v4, v6) = (counts.prefixes_v4, counts.prefixes_v6);
    let ranges = counts.ranges_v4 + counts.ranges_v6;
    let size = crate::answer::bytes(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    let text = format!("{}: {size}, {v4} IPv4 and {v6} IPv6 prefixes, {ranges} ranges of geoip\n", args.out.display());
    let json = serde_json::json!({
        "table": args.out, "bytes": bytes.len(), "position": position.to_string(),
        "prefixes_ipv4": v4, "prefixes_ipv6": v6, "ranges_geoip": ranges,
    });
    Ok(Answer::good(text, json))
}

fn country(pair: &str) -> Result<(String, RegionId), String> {
    let (code, region) = pair.split_once('=').ok_or("give CODE=REGION, RU=4")?;
    let region = region.parse().map_err(|_| format!("{region:?}: a region is a number from 0 to {}", u16::MAX))?;
    Ok((code.to_owned(), RegionId(region)))
}

/// What lacks on the command line and in the environment.
fn lacks(what: &str) -> clap::Error {
    Cli::command().error(clap::error::ErrorKind::MissingRequiredArgument, what)
}

const AFTER_HELP: &str = "\
Environment:
  SUN_GEO         default of --server
  SUN_TOPOLOGY    default of --topology
  SUN_TOKEN_FILE  default of --token-file

Exit status: 0 all is well, 1 something is wrong, 2 a mistake on the command line.";
