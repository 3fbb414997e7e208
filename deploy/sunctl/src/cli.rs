//! The command line: what can be asked, where its defaults come from, and running it.

use std::io::{IsTerminal, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use daemon::config::variable;
use geo::answer::Answer;
use geo::resolver::Sources;
use geo::topology::Site;
use geo::{CanonicalName, RegionId, Scheme, Source, Topology};
use popularity_api::purge::Target;
use popularity_api::signing::{self, Keys};
use popularity_api::wire::{PurgeMode, PurgeWhat};
use popularity_api::{Client, ClientConfig, ClientError};

use crate::edit::Edit;
use crate::locate::Question;
use crate::purge::{self, Order};
use crate::topology::Compared;
use crate::topology::change::{Consent, Signature};
use crate::weight::Told;
use crate::{backup, check, content, demo, history, hot, locate, ramp, render, sign, token, top, topology, weight};

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
    Drain(ServerArgs),
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
    /// Change one weight in the topology file. On a terminal, what moves is shown first and then it asks;
    /// in a script it applies at once and says what moved.
    Set {
        /// Name of a sun or cache, sun4-2-1.
        server: String,
        /// 0..=256; 0 drains the server.
        weight: u16,
        /// In steps over so long, 90s, 10m, 2h: at most 5 % of the region's files change their server in a minute. Ctrl-C
        /// stops where it is.
        #[arg(long, value_name = "DURATION", value_parser = ramp::duration)]
        over: Option<Duration>,
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
    change: ChangeArgs,
    #[command(flatten)]
    topology: TopologyArgs,
}

/// How a change is made.
#[derive(Debug, Args)]
struct ChangeArgs {
    /// Preview only.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Apply without asking.
    #[arg(long)]
    yes: bool,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Who, for the history [env: SUDO_USER, USER].
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
    #[command(flatten)]
    api: ApiArgs,
}

impl ChangeArgs {
    /// On a terminal it is asked, in a script it is applied.
    fn consent<'a>(&self, ask: &'a mut dyn FnMut(&str) -> anyhow::Result<bool>) -> Consent<'a> {
        let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        match (self.dry_run, is_terminal && !self.yes) {
            (true, _) => Consent::Never,
            (false, true) => Consent::Asked(ask),
            (false, false) => Consent::Given,
        }
    }

    fn signature(&self) -> anyhow::Result<Signature> {
        let author = self.author.clone().or_else(|| variable("SUDO_USER")).or_else(|| variable("USER"));
        Signature::new(&author.unwrap_or_default(), &self.reason)
    }

    fn change(&self, topology: &TopologyArgs, server: &str, change: Edit) -> anyhow::Result<Answer> {
        let (source, by, told) = (topology.source()?, self.signature()?, self.api.told(topology, Some(server))?);
        waiting(weight::set(&source, server, change, &by, self.consent(&mut asked), &told))
    }
}

#[derive(Debug, Subcommand)]
enum TopologyCommand {
    /// Print the document.
    Show {
        /// What this change left, by its number in the history.
        #[arg(long)]
        number: Option<u64>,
        #[command(flatten)]
        topology: TopologyArgs,
    },
    /// Show what the last change changed, or what lies between two.
    Diff {
        /// From what this change left, by its number in the history [default: the one before the last].
        from: Option<u64>,
        /// To what this one left [default: what there is now].
        to: Option<u64>,
        /// From what there is now to this file.
        #[arg(long, value_name = "FILE", conflicts_with = "from")]
        file: Option<PathBuf>,
        #[command(flatten)]
        topology: TopologyArgs,
    },
    /// Show the latest changes: when, who, what, why. The last 100 are kept.
    History {
        /// How many.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=100))]
        limit: u16,
        #[command(flatten)]
        topology: TopologyArgs,
    },
    /// Make what a change left the document again, as a new version.
    Rollback {
        /// The change's number in the history.
        number: u64,
        #[command(flatten)]
        change: ChangeArgs,
        #[command(flatten)]
        topology: TopologyArgs,
    },
    /// Put a file in place of the document. Its version must be above that of the document there is.
    Put {
        /// The new document.
        file: PathBuf,
        #[command(flatten)]
        change: ChangeArgs,
        #[command(flatten)]
        topology: TopologyArgs,
    },
}

impl TopologyCommand {
    fn answer(&self) -> anyhow::Result<Answer> {
        match self {
            Self::Show { number, topology } => waiting(topology::show(&topology.source()?, *number)),
            Self::Diff { from, to, file, topology } => {
                let compared = match (file, from) {
                    (Some(file), _) => Compared::File(file),
                    (None, Some(from)) => Compared::Changes(*from, *to),
                    (None, None) => Compared::Last,
                };
                waiting(topology::diff(&topology.source()?, compared))
            }
            Self::History { limit, topology } => waiting(topology::history(&topology.source()?, usize::from(*limit))),
            Self::Rollback { number, change, topology } => {
                let (source, by) = (topology.source()?, change.signature()?);
                waiting(topology::rollback(&source, *number, &by, change.consent(&mut asked)))
            }
            Self::Put { file, change, topology } => {
                let (source, by) = (topology.source()?, change.signature()?);
                waiting(topology::put(&source, file, &by, change.consent(&mut asked)))
            }
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct TopologyArgs {
    /// The topology: a file, or etcd://[USER@]HOST:PORT,HOST:PORT/KEY [env: SUN_TOPOLOGY].
    #[arg(long, value_name = "FILE")]
    topology: Option<Source>,
    /// File with the password of etcd's USER [env: SUN_ETCD_PASSWORD_FILE].
    #[arg(long, value_name = "FILE")]
    etcd_password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ApiArgs {
    /// Address of the popularity API, http://10.0.0.5:8090 [env: SUN_API].
    #[arg(long, value_name = "URL")]
    api: Option<String>,
    /// File with an operator's token for it [env: SUN_TOKEN_FILE].
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct PurgeArgs {
    #[command(flatten)]
    what: PurgeTarget,
    /// Keep it as a stale copy: it is revalidated before it is served, and served if the content server is down.
    #[arg(long)]
    soft: bool,
    /// Only in this region.
    #[arg(long, value_name = "NUMBER")]
    region: Option<u16>,
    /// How long to wait for all servers, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    wait: u64,
    /// Not through the log, as if the API were away.
    #[arg(long)]
    direct: bool,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    topology: TopologyArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct PurgeTarget {
    /// One file, c100500/path/to/a.jpg; a link to it will do, and with a topology also a URL of one of its sites,
    /// <https://cdn.example.org/list?page=2>.
    file: Option<String>,
    /// A folder and everything below, c100500/path/; a link to it will do, and with a topology also a site's URL, which
    /// stands for that folder of the site's content server.
    #[arg(long, value_name = "FOLDER")]
    prefix: Option<String>,
    /// Everything whose Cache-Tag or Surrogate-Key has this tag.
    #[arg(long)]
    tag: Option<String>,
    /// Everything there is: all of it is fetched anew from the content servers.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
struct WhereArgs {
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
        Command::Check { topology, config } => Ok(check::check(&topology.source()?, config)),
        Command::Topology(command) => command.answer(),
        Command::Weight(WeightCommand::List { topology, api }) => {
            Ok(weight::list(&topology.read()?, &api.told(topology, None)?))
        }
        Command::Weight(WeightCommand::Set { server, weight, over: None, change, topology }) => {
            change.change(topology, server, Edit::Weight(*weight))
        }
        Command::Weight(WeightCommand::Set { server, weight, over: Some(over), change, topology }) => {
            let (source, by, told) =
                (topology.source()?, change.signature()?, change.api.told(topology, Some(server))?);
            waiting(ramp::set(&source, (server, *weight), *over, &by, change.consent(&mut asked), &told))
        }
        Command::Drain(ServerArgs { server, change, topology }) => change.change(topology, server, Edit::Drain),
        Command::Resume(ServerArgs { server, change, topology }) => change.change(topology, server, Edit::Resume),
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

impl TopologyArgs {
    fn source(&self) -> anyhow::Result<Source> {
        let set =
            || variable("SUN_TOPOLOGY").map(|text| text.parse::<Source>().map_err(anyhow::Error::msg)).transpose();
        let source = self.topology.clone().map_or_else(set, |said| Ok(Some(said)))?;
        let mut source = source.context("which topology? Say --topology FILE or set SUN_TOPOLOGY")?;
        if let Source::Etcd(etcd) = &mut source
            && etcd.user.is_some()
        {
            let set = || variable("SUN_ETCD_PASSWORD_FILE").map(PathBuf::from);
            let file = self.etcd_password_file.clone().or_else(set);
            etcd.password_file = Some(file.context("whose password? Say --etcd-password-file FILE")?);
        }
        Ok(source)
    }

    pub(crate) fn read(&self) -> anyhow::Result<Topology> {
        self.source()?.load().map_err(anyhow::Error::msg)
    }
}

impl ApiArgs {
    /// What servers tell: those of the region of one server, or all. Nothing where no API is named.
    fn told(&self, topology: &TopologyArgs, server: Option<&str>) -> anyhow::Result<Told> {
        if self.api.is_none() && variable("SUN_API").is_none() {
            return Ok(Told::default());
        }
        let (client, topology) = (self.client()?, topology.read()?);
        let region = server.and_then(|server| topology.server(server)).map(|server| server.region);
        let regions = topology.regions.iter().map(|known| known.id).filter(|id| region.is_none_or(|only| only == *id));
        waiting(async { Ok(Told::ask(&client, regions).await) })
    }

    fn client(&self) -> anyhow::Result<Client> {
        let url = self.api.clone().or_else(|| variable("SUN_API"));
        let token_file = self.token_file.clone().or_else(|| variable("SUN_TOKEN_FILE").map(PathBuf::from));
        let config = ClientConfig {
            url: url.context("which popularity API? Say --api URL or set SUN_API")?,
            token_file: token_file.context("whose token? Say --token-file FILE or set SUN_TOKEN_FILE")?,
            timeout_ms: API_TIMEOUT_MS,
        };
        Ok(Client::new(&config)?)
    }
}

impl WhereArgs {
    fn answer(&self) -> anyhow::Result<Answer> {
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

impl PurgeArgs {
    fn answer(&self) -> anyhow::Result<Answer> {
        // While there is an API it is needed for sites' URLs alone, and for the direct way should the API be away.
        let topology = if self.direct { Some(self.topology.read()?) } else { self.topology.read().ok() };
        let order = Order {
            id: purge::id(&mut rand::rng()),
            target: self.what.target(topology.as_ref())?,
            mode: if self.soft { PurgeMode::Soft } else { PurgeMode::Hard },
            region: self.region.map(RegionId),
            wait: Duration::from_secs(self.wait),
        };
        // What the token file is for either way.
        let token_file = self.api.token_file.clone().or_else(|| variable("SUN_TOKEN_FILE").map(PathBuf::from));
        let token_file = token_file.context("whose token? Say --token-file FILE or set SUN_TOKEN_FILE")?;
        let token = daemon::tokens::read_secret(&token_file)?;
        let api = if self.direct { None } else { Some(self.api.client()?) };
        waiting(purge::purge(&order, api.as_ref(), topology.as_ref(), &token))
    }
}

impl PurgeTarget {
    fn target(&self, topology: Option<&Topology>) -> anyhow::Result<Target> {
        if self.all {
            return Ok(Target::Prefix("".into()));
        }
        if let Some(tag) = &self.tag {
            return Ok(Target::parse(PurgeWhat::Tag, tag)?);
        }
        if let Some(prefix) = &self.prefix {
            if let Some((site, path, _)) = topology.and_then(|topology| site_of(topology, prefix)) {
                let folder = if path.ends_with('/') { path.to_owned() } else { format!("{path}/") };
                return Ok(Target::parse(PurgeWhat::Prefix, &format!("c{}{folder}", site.content_server))?);
            }
            let target = Target::parse(PurgeWhat::Prefix, path_of(prefix))?;
            anyhow::ensure!(
                !target.value().is_empty(),
                "an empty prefix is everything there is: say --all if you mean it"
            );
            return Ok(target);
        }
        let file = self.file.as_deref().context("what is to be purged?")?;
        if let Some((site, path, query)) = topology.and_then(|topology| site_of(topology, file)) {
            let query = query.filter(|_| !site.class_of(path).ignore_query);
            let name = CanonicalName::for_site(site.content_server, path, query)
                .with_context(|| format!("{file:?} names no file"))?;
            return Ok(Target::parse(PurgeWhat::File, name.as_str())?);
        }
        if file.contains("://") {
            let hint = if topology.is_some() { "none of the topology's sites" } else { "a site's needs --topology" };
            return file_name(file).map(Target::File).with_context(|| format!("no link, and {hint}"));
        }
        // A site's file is named with its query, c7/list?page=2.
        Ok(Target::parse(PurgeWhat::File, file)?)
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
fn file_name(file: &str) -> anyhow::Result<CanonicalName> {
    CanonicalName::parse(path_of(file)).with_context(|| format!("{file:?} names no file"))
}

/// The path in a name, a path or a link, without the first slash.
fn path_of(text: &str) -> &str {
    let path = match text.split_once("://") {
        // A signature in front of it is none of the name.
        Some((_, rest)) => rest.find('/').map_or("", |slash| signing::split(&rest[slash..]).1),
        None => text,
    };
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split('?').next().unwrap_or(path)
}

/// The site that a URL is of, with the URL's path and query; nothing when the topology has none of its host.
fn site_of<'a, 'b>(topology: &'a Topology, url: &'b str) -> Option<(&'a Site, &'b str, Option<&'b str>)> {
    let (_, rest) = url.split_once("://")?;
    let rest = rest.split('#').next().unwrap_or(rest);
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let site = topology.site(authority.split(':').next().unwrap_or(authority))?;
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    Some((site, if path.is_empty() { "/" } else { path }, query))
}

const AFTER_HELP: &str = "\
Environment:
  SUN_TOPOLOGY            default of --topology
  SUN_API                 default of --api
  SUN_TOKEN_FILE          default of --token-file
  SUN_ETCD_PASSWORD_FILE  default of --etcd-password-file

Exit status: 0 all is well, 1 something is wrong, 2 a mistake on the command line.";

/// What helps who asked an API that is away.
const API_AWAY: &str = "the API cannot be asked; by the topology alone: --topology FILE, with --prefixes or --geoip";
/// Deadline of one call, milliseconds: an operator waits longer than a daemon, but not for ever.
const API_TIMEOUT_MS: u64 = 5000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

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

    #[test]
    fn a_restore_says_that_there_is_verify() {
        let cli = Cli::try_parse_from(["sunctl", "restore", "/backup"]).unwrap();
        let refused = run(&cli).unwrap_err().to_string();
        assert_eq!(refused, "where to? Say --to FOLDER, the API's data, or --verify to put it nowhere");
    }

    #[test]
    fn what_is_purged_is_said_in_one_way() {
        check_purge(&["c1/a.jpg"], "File c1/a.jpg");
        check_purge(&["https://sun4-2-1.example.org/c1/a.jpg?sign=1"], "File c1/a.jpg");
        check_purge(&["c7/list?page=2"], "File c7/list?page=2");
        check_purge(&["--prefix", "https://sun4-2-1.example.org/c1/a/"], "Prefix c1/a/");
        check_purge(&["--prefix", "c1"], "Prefix c1/");
        check_purge(&["--tag", "news"], "Tag news");
        check_purge(&["--all"], "Prefix ");
        check_purge(&["--prefix", ""], "refused: an empty prefix is everything there is: say --all if you mean it");
        check_purge(&["--prefix", "/"], "refused: an empty prefix is everything there is: say --all if you mean it");
        check_purge(
            &["--prefix", "https://sun4-2-1.example.org"],
            "refused: an empty prefix is everything there is: say --all if you mean it",
        );
        check_purge(&["--tag", "a,b"], "refused: value: a tag has 1..=256 visible ASCII characters without a comma");
        for line in [&["purge"][..], &["purge", "c1/a", "--all"], &["purge", "--tag", "a", "--prefix", "c1"]] {
            assert!(Cli::try_parse_from(["sunctl"].iter().chain(line)).is_err(), "{line:?}");
        }
    }

    #[test]
    fn a_sites_url_is_what_its_content_server_calls_it() {
        let sites = sites();
        let check = |said: &[&str], expected| check_purge_with(Some(&sites), said, expected);
        check(&["https://cdn.example.net/list?page=2"], "File c7/list?page=2");
        check(&["http://CDN.example.net:8080/list#top"], "File c7/list");
        check(&["https://cdn.example.net/list?"], "File c7/list?");
        check(&["https://cdn.example.net"], "File c7/");
        check(&["https://cdn.example.net?a"], "File c7/?a");
        check(&["https://cdn.example.net/a/../b"], "File c7/a/../b");
        check(&["https://cdn.example.net/c1/a.jpg"], "File c7/c1/a.jpg");
        check(&["https://cdn.example.net/pictures/a.jpg?width=9"], "File c7/pictures/a.jpg");
        check(&["--prefix", "https://cdn.example.net/news"], "Prefix c7/news/");
        check(&["--prefix", "https://cdn.example.net/news/?page=2"], "Prefix c7/news/");
        check(&["--prefix", "https://cdn.example.net"], "Prefix c7/");
        check(&["https://sun4-2-1.example.org/c1/a.jpg?sign=1"], "File c1/a.jpg");
        check(&["https://other.example.net/list"], "refused: no link, and none of the topology's sites");
        check(&["https://cdn.example.net/%c3%a9"], "File c7/%c3%a9");
        check_purge(&["https://cdn.example.net/list"], "refused: no link, and a site's needs --topology");
    }

    #[track_caller]
    fn check_purge(said: &[&str], expected: &str) {
        check_purge_with(None, said, expected);
    }

    #[track_caller]
    fn check_purge_with(topology: Option<&Topology>, said: &[&str], expected: &str) {
        let line = ["sunctl", "purge"].iter().chain(said);
        let Command::Purge(args) = Cli::try_parse_from(line).unwrap().command else { panic!("asked to purge") };
        let answer = match args.what.target(topology) {
            Ok(target) => format!("{:?} {}", target.what(), target.value()),
            Err(error) => format!("refused: {error}"),
        };
        assert_eq!(answer, expected, "{said:?}");
    }

    /// With a site at content server 7, whose pictures have no query.
    fn sites() -> Topology {
        Topology::parse(
            r#"
            version = 1
            domain = "example.org"
            default_region = 4
            [content_servers]
            url = "http://cs{number}.storage.example.org"
            numbers = ["1-9"]
            [[region]]
            id = 4
            name = "Moscow"
            latitude = 55.75
            longitude = 37.6
            [[site]]
            host = "cdn.example.net"
            content_server = 7
            [[site.class]]
            name = "pictures"
            paths = ["/pictures/*"]
            ignore_query = true
            "#,
        )
        .unwrap()
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
