//! The command line: what can be asked, and running it. Where defaults come from is in `sources`; what takes more words to be
//! said, or to be understood, is in `change`, `locate` and `purge`.

mod change;
mod locate;
mod purge;
mod sources;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use geo::answer::Answer;
use geo::{RegionId, Source};
use popularity_api::signing::Keys;

use self::change::{ChangeArgs, TopologyCommand};
use self::locate::WhereArgs;
use self::purge::PurgeArgs;
use self::sources::ApiArgs;
pub(crate) use self::sources::TopologyArgs;
use crate::edit::Edit;
use crate::weight::Guard;
use crate::{backup, check, content, demo, history, hot, ramp, render, sign, token, top, topology, weight};

/// The operator's tool of a Sun CDN.
#[derive(Debug, Parser)]
#[command(name = "sunctl", version, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Cli {
    /// Answer in JSON, for programs.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole system in this process, on loopback, to look at and play with.
    Demo(demo::Options),
    /// Serve a folder as content server 100500, for trying daemons out without a storage.
    ///
    /// The file FOLDER/a/b.jpg is http://ADDRESS/cs100500/a/b.jpg for daemons, c100500/a/b.jpg in links. The
    /// topology's [content_servers] has url = "http://ADDRESS/cs{number}" and numbers = ["100500"].
    Content(content::Options),
    /// Check a topology and configs before they are put in place.
    Check {
        #[command(flatten)]
        topology: TopologyArgs,
        /// Config files of daemons; each daemon is told by its keys.
        #[arg(long, value_name = "FILE", num_args = 1..)]
        config: Vec<PathBuf>,
    },
    /// Show or change the document that all daemons follow; who changed it, when and why; take a change back.
    #[command(subcommand)]
    Topology(TopologyCommand),
    /// Show or change what share of a region's files each server keeps.
    #[command(subcommand)]
    Weight(WeightCommand),
    /// Take a sun or cache out: it owns nothing and is not linked, and its weight is kept for `sunctl resume`.
    Drain {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        force: ForceArgs,
    },
    /// Give a drained sun or cache the weight back that it had.
    Resume(ServerArgs),
    /// Show the best-rated files of a region.
    Top {
        /// The region's number.
        region: u16,
        /// How many files.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000))]
        limit: u16,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Show which files of a region are hot: how much they are asked for, and the suns that share them.
    Hot {
        /// The region's number.
        region: u16,
        /// How many files.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000))]
        limit: u16,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Take a file, a folder or a tag out of all suns and caches, and say who did not answer.
    ///
    /// The purge goes into the popularity API's log, which servers follow, also those that are down now. While the API is
    /// away it goes to every server of the topology directly (over `internal`). A direct purge is in no log: a server
    /// that did not get it is named, never hears of it later and serves what it holds. Repeat the purge when that server
    /// or the API is back. Exit status 1 when some have not answered.
    Purge(PurgeArgs),
    /// Make, fill again or delete the tables of the history of downloads in ClickHouse.
    #[command(subcommand)]
    History(history::Command),
    /// Show who serves a file to a client, and why.
    Where(WhereArgs),
    /// Copy the ratings of a popularity API into a folder, while it counts on.
    ///
    /// A snapshot and the binlog after it, with what they come to. The folder gets its name when everything in it is
    /// checked and durable, so what has the name is whole.
    Backup {
        /// A new folder, in one that there is.
        folder: PathBuf,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Put a backup into the data folder of a popularity API that does not run and has no ratings.
    ///
    /// Everything is verified first: lengths, hashes and checksums, that snapshot and binlog fit together, and how many
    /// regions, pairs and files they come to.
    Restore {
        /// The backup.
        folder: PathBuf,
        /// The API's folder: `data` of its config.
        #[arg(long, value_name = "FOLDER")]
        to: Option<PathBuf>,
        /// Verify it and put it nowhere.
        #[arg(long, conflicts_with = "to")]
        verify: bool,
    },
    /// Sign a link to a file, as the popularity API does for files of classes that are `signed`.
    Sign(SignArgs),
    /// Keys of signed links.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Print the topology in the language of others: BIRD, ExaBGP, a shell, DNS servers.
    #[command(subcommand)]
    Render(render::Command),
    /// Make a random bearer token.
    Token,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Make a random key: a line for [keys] of the key file (`signing_keys`), the same on all machines.
    New {
        /// Its id, which stands in links: 1 to 16 letters, digits, - and _.
        id: String,
    },
}

#[derive(Debug, Args)]
struct SignArgs {
    /// A link to the file, or its name; a signature it has already is replaced.
    link: String,
    /// The key file.
    #[arg(long, value_name = "FILE", default_value = "/etc/sun/keys.toml")]
    keys: PathBuf,
    /// Id of the key [default: the topology's].
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    /// How long the link is good for, seconds [default: the file's class's].
    #[arg(long, value_name = "SECONDS")]
    ttl_s: Option<u64>,
    /// Sign the file's folder, as for a playlist [default: the file's class's].
    #[arg(long)]
    folder: bool,
    #[command(flatten)]
    topology: TopologyArgs,
}

impl SignArgs {
    fn answer(&self) -> anyhow::Result<Answer> {
        let keys = Keys::load(Some(&self.keys))?;
        let topology = self.topology.source().is_ok().then(|| self.topology.read()).transpose()?;
        let Self { link, key, ttl_s, folder, .. } = self;
        let order = sign::Order { link: link.clone(), key: key.clone(), ttl_s: *ttl_s, folder: *folder };
        sign::sign(&order, &keys, topology.as_ref(), daemon::clock::unix_s())
    }
}

#[derive(Debug, Subcommand)]
enum WeightCommand {
    /// Show all weights and the shares they give; where a popularity API is named, also who rests and what servers hold.
    #[command(visible_alias = "show")]
    List {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        topology: TopologyArgs,
    },
    /// Change one weight. On a terminal, what moves is shown first and then it asks;
    /// in a script it applies at once and says what moved.
    Set {
        /// Name of a sun or cache, sun4-2-1.
        server: String,
        /// 0..=256; 0 drains the server.
        weight: u16,
        #[command(flatten)]
        over: OverArgs,
        #[command(flatten)]
        force: ForceArgs,
        #[command(flatten)]
        change: ChangeArgs,
        #[command(flatten)]
        topology: TopologyArgs,
    },
}

#[derive(Debug, Args)]
struct ServerArgs {
    /// Name of a sun or cache, sun4-2-1.
    server: String,
    #[command(flatten)]
    over: OverArgs,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    topology: TopologyArgs,
}

#[derive(Debug, Args)]
struct OverArgs {
    /// In steps over so long, 90s, 10m, 2h; longer where more than 5 % of the region's files would change their server in a
    /// minute. It waits up to 5 minutes for a cluster that does not answer. Ctrl-C stops where it is, with status 1.
    #[arg(long, value_name = "DURATION", value_parser = ramp::duration)]
    over: Option<Duration>,
}

#[derive(Debug, Args)]
struct ForceArgs {
    /// Also when no other sun of the group or region has weight then.
    #[arg(long)]
    force: bool,
}

impl ServerArgs {
    fn change(&self, edit: Edit, force: bool) -> anyhow::Result<Answer> {
        let Self { server, over, change, topology } = self;
        change.change(topology, (server, edit), over.over, Guard::unless(force))
    }
}

/// Runs the process's command line; the exit status is 1 when something is wrong, 2 for a mistake in it.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(answer)) => {
            let text = if cli.json { format!("{:#}\n", answer.json) } else { answer.text };
            // A reader that left (`| head`) has seen what it wanted.
            let _ = std::io::stdout().write_all(text.as_bytes());
            if answer.good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("sunctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<Option<Answer>> {
    match &cli.command {
        Command::Demo(options) => return demo::run(options).map(|()| None),
        Command::Content(options) => return waiting(content::run(options)).map(|()| None),
        Command::Check { topology, config } => {
            let source = topology.source()?;
            // A key is what daemons follow; a file may be a draft that nobody does.
            let advice = |text: &str| match source {
                Source::File(_) => None,
                Source::Etcd(_) => waiting(topology::refused(&source, text)).ok(),
            };
            Ok(check::check(&source, config, advice))
        }
        Command::Topology(command) => command.answer(),
        Command::Weight(WeightCommand::List { topology, api }) => {
            Ok(weight::list(&topology.read()?, &api.told(topology, None)?))
        }
        Command::Weight(WeightCommand::Set { server, weight, over, force, change, topology }) => {
            change.change(topology, (server, Edit::Weight(*weight)), over.over, Guard::unless(force.force))
        }
        Command::Drain { server, force } => server.change(Edit::Drain, force.force),
        Command::Resume(server) => server.change(Edit::Resume, false),
        Command::Top { region, limit, api } => {
            let client = api.client()?;
            waiting(top::top(&client, RegionId(*region), usize::from(*limit)))
        }
        Command::Hot { region, limit, api } => {
            let client = api.client()?;
            waiting(hot::hot(&client, RegionId(*region), usize::from(*limit)))
        }
        Command::Purge(args) => args.answer(),
        Command::History(command) => waiting(history::run(command, |question| {
            let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
            anyhow::ensure!(is_terminal, "{question}: say --yes");
            asked(question)
        })),
        Command::Where(args) => args.answer(),
        Command::Backup { folder, api } => {
            let client = api.client()?;
            waiting(backup::take(&client, folder))
        }
        Command::Restore { folder, to: Some(to), .. } => backup::restore(folder, to),
        Command::Restore { folder, to: None, verify: true } => backup::verify(folder),
        Command::Restore { to: None, verify: false, .. } => {
            Err(anyhow::anyhow!("where to? Say --to FOLDER, the API's data, or --verify to put it nowhere"))
        }
        Command::Sign(args) => args.answer(),
        Command::Keys(KeysCommand::New { id }) => sign::new_key(id, &mut rand::rng()),
        Command::Render(command) => render::render(command),
        Command::Token => {
            let token = token::make(&mut rand::rng());
            Ok(Answer::good(format!("{token}\n"), serde_json::json!({ "token": token })))
        }
    }
    .map(Some)
}

/// Shows a preview to who is at the terminal and asks; anything but a yes is a no.
fn asked(preview: &str) -> anyhow::Result<bool> {
    let mut terminal = std::io::stdout();
    write!(terminal, "{preview}\napply? [y/N] ").and_then(|()| terminal.flush()).context("the terminal is gone")?;
    let mut said = String::new();
    std::io::stdin().read_line(&mut said).context("the terminal is gone")?;
    Ok(["y", "yes"].contains(&said.trim().to_ascii_lowercase().as_str()))
}

/// Runs what waits for the network.
fn waiting<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no threads")?;
    let result = runtime.block_on(work);
    // Nothing that still reads a disk keeps the process.
    runtime.shutdown_background();
    result
}

const AFTER_HELP: &str = "\
Environment:
  SUN_TOPOLOGY            default of --topology
  SUN_API                 default of --api
  SUN_TOKEN_FILE          default of --token-file
  SUN_ETCD_PASSWORD_FILE  default of --etcd-password-file
  SUN_ETCD_CA, SUN_ETCD_CERTIFICATE, SUN_ETCD_CERTIFICATE_KEY   and of the others of that kind

Exit status: 0 all is well, 1 something is wrong, 2 a mistake on the command line.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_restore_says_that_there_is_verify() {
        let cli = Cli::try_parse_from(["sunctl", "restore", "/backup"]).unwrap();
        let refused = run(&cli).unwrap_err().to_string();
        assert_eq!(refused, "where to? Say --to FOLDER, the API's data, or --verify to put it nowhere");
    }
}
