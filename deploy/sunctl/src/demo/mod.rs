//! `sunctl demo`: the whole system in one process, on loopback.
//!
//! ```text
//!                 folder: topology, tokens, certificates, configs
//!                                    |
//!   media --> content_server <-- caches, suns <--https-- load: visitors in 127/8
//!                   fleet  \        |    ^
//!                           popularity API <---- links ---- gallery <-- a browser
//!                                   |
//!              sampler (metrics, ratings) --> display
//! ```
//!
//! In reading order:
//!
//! - [`plan`]: what runs where; [`folder`] and [`certificates`]: the files; [`fleet`]: starting and ending.
//! - [`media`]: the files it has; [`content_server`], on [`listener`] and [`body`]: their origin.
//! - [`gallery`]: what a site does. [`load`]: what its visitors do, with [`https`] and [`cache_status`].
//! - [`guide`]: what is printed first. [`sampler`], [`metrics`], [`display`]: what is shown each second.
//!
//! # What it is not
//!
//! No mock: the daemons are the libraries of their own crates, read their files and talk through sockets.
//! But no deployment either: one process, one disk, a CA that is thrown away.

pub mod body;
pub mod cache_status;
pub mod certificates;
pub mod content_server;
pub mod display;
pub mod fleet;
pub mod folder;
pub mod gallery;
pub mod guide;
pub mod https;
pub mod listener;
pub mod load;
pub mod media;
pub mod metrics;
pub mod plan;
pub mod sampler;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use daemon::drain::{self, Drain};
use daemon::telemetry::{self, LogConfig};
use popularity_api::{Client, ClientConfig};
use tokio::time::{Instant, MissedTickBehavior};

use display::Snapshot;
use fleet::{Files, Fleet};
use folder::Folder;
use media::Library;
use plan::Ports;
use sampler::Sampler;

/// Options of the demo.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// Serve the files of this folder instead of generated ones; without what is hidden (.name).
    #[arg(long, value_name = "DIR")]
    media: Option<PathBuf>,
    /// Keep what the demo leaves in this folder, which is empty or a demo's own. Another run in it goes on with the ratings
    /// and caches, and writes topology (with the weights of the start), configs, certificates (of a new CA) and tokens anew.
    /// Without it they are in a temporary one, which is removed at the end.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Send this many visitors in, from addresses of both regions.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=i64::from(load::VISITORS_MAX)))]
    load: u32,
    /// First of 64 ports. Without it the first free ones from 8400 on.
    #[arg(long, value_name = "BASE")]
    port: Option<u16>,
    /// Print a line a second instead of drawing; so it is anyway where standard output is no terminal.
    #[arg(long, visible_alias = "no-tty")]
    plain: bool,
    /// End by itself after so many seconds.
    #[arg(long = "for", value_name = "SECONDS")]
    for_s: Option<u64>,
}

/// Runs the demo until a signal, or for as long as was asked for. Leaves nothing behind but a named folder.
///
/// # Errors
///
/// What does not start, and why.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let draws = std::io::stdout().is_terminal() && !options.plain;
    // A warning in the middle of what is drawn would tear it.
    let level = if draws { "error" } else { "warn" };
    telemetry::init(&LogConfig { level: level.to_owned(), ..LogConfig::default() })?;
    let library = Arc::new(library(options.media.as_deref())?);
    let ports = fleet::free_ports(options.port)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no threads")?;
    let folder = Folder::open(options.data.as_deref())?;
    let stage = Stage { ports, folder: &folder, library, drain: Drain::new(), draws };
    let played = runtime.block_on(play(options, &stage));
    // What still follows a file ends before the file goes.
    runtime.shutdown_timeout(THREADS_LIMIT);
    let closed = folder.close();
    played.and(closed)
}

/// What a run stands on.
struct Stage<'a> {
    ports: Ports,
    folder: &'a Folder,
    library: Arc<Library>,
    drain: Drain,
    draws: bool,
}

/// Starts everything, shows it, and ends it, in whatever way it goes.
async fn play(options: &Options, stage: &Stage<'_>) -> anyhow::Result<()> {
    drain::on_signals(&stage.drain).context("signals cannot be listened to")?;
    let files = fleet::write_files(stage.folder, stage.ports)?;
    let fleet = Fleet::start(stage.ports, &files, Arc::clone(&stage.library)).await?;
    let shown = perform(options, stage, &files, &fleet).await;
    stage.drain.start();
    let visitors_left = stage.drain.finished(VISITORS_DRAIN_LIMIT).await;
    let ended = fleet.stop().await;
    let last = shown?;
    if !(visitors_left && ended) {
        say("Not everything ended in time; what was left is cut off.\n");
    }
    say(&display::farewell(&last));
    Ok(())
}

/// Opens the gallery, lets the visitors in and shows what happens; returns the last snapshot.
async fn perform(options: &Options, stage: &Stage<'_>, files: &Files, fleet: &Fleet) -> anyhow::Result<Snapshot> {
    let backend = api_client(stage.ports, &files.backend_token)?;
    let operator = api_client(stage.ports, &files.operator_token)?;
    let (ports, library) = (stage.ports, &stage.library);
    gallery::start(ports.gallery(), Arc::clone(library), backend.clone(), &stage.drain).await.context("the gallery")?;
    let trust = https::trust(&files.ca)?;
    let tally = load::start(options.load, Arc::clone(library), backend, trust, &stage.drain);
    let sampler = Sampler::new(ports, operator, fleet.content.clone(), tally)?;
    say(&guide::text(ports, stage.folder, files, library, &program()));
    Ok(show(options, stage, &sampler).await)
}

/// A frame a second, until the drain or the end of the time that was asked for.
async fn show(options: &Options, stage: &Stage<'_>, sampler: &Sampler) -> Snapshot {
    let until = options.for_s.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let over = async {
        match until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(over);
    let mut ticks = tokio::time::interval(FRAME);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = sampler.snapshot().await;
    let mut drawn = 0;
    loop {
        tokio::select! {
            () = stage.drain.wait() => break,
            () = &mut over => break,
            _ = ticks.tick() => {}
        }
        let now = sampler.snapshot().await;
        if stage.draws {
            let lines = display::block(&before, &now);
            say(&display::redraw(drawn, &lines));
            drawn = lines.len();
        } else {
            say(&format!("{}\n", display::line(&before, &now)));
        }
        before = now;
    }
    sampler.snapshot().await
}

fn library(folder: Option<&Path>) -> anyhow::Result<Library> {
    match folder {
        Some(folder) => Library::folder(folder).with_context(|| format!("--media {}", folder.display())),
        None => Ok(Library::generated()),
    }
}

fn api_client(ports: Ports, token_file: &Path) -> anyhow::Result<Client> {
    let url = format!("http://{}", ports.api());
    Ok(Client::new(&ClientConfig { url, token_file: token_file.to_owned(), timeout_ms: API_TIMEOUT_MS })?)
}

/// How this program is called, for commands that a reader may copy.
fn program() -> String {
    let Ok(program) = std::env::current_exe() else { return "sunctl".to_owned() };
    let here = std::env::current_dir().unwrap_or_default();
    // With a folder in front, or a shell would look for it elsewhere.
    let below = program.strip_prefix(&here).ok().map(|below| Path::new(".").join(below));
    guide::shell_word(&below.unwrap_or(program))
}

/// Writes to standard output. A reader that left has seen what it wanted: the demo goes on.
fn say(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

const FRAME: Duration = Duration::from_secs(1);
const API_TIMEOUT_MS: u64 = 2000;
/// What waits for a disk has this long before the folder is removed.
const THREADS_LIMIT: Duration = Duration::from_secs(2);
/// Visitors and gallery have this long for what they are at.
const VISITORS_DRAIN_LIMIT: Duration = Duration::from_secs(5);
