//! The life of a daemon's process, from its command line to its exit status, so that a `main.rs` is a page:
//!
//! ```no_run
//! # use std::process::ExitCode;
//! # #[derive(serde::Deserialize)] struct Config { log: daemon::telemetry::LogConfig, drain_s: u64 }
//! # fn check(_: &Config) -> Vec<String> { vec![] }
//! # async fn start(_: Config, _: daemon::drain::Drain) -> anyhow::Result<()> { Ok(()) }
//! use daemon::process::{Args, Process};
//!
//! fn main() -> ExitCode {
//!     daemon::process::status(run())
//! }
//!
//! fn run() -> anyhow::Result<ExitCode> {
//!     let args = Args::read("cache-daemon", env!("CARGO_PKG_VERSION"), "A regional cache");
//!     let config: Config = args.config()?;
//!     if args.check {
//!         return Ok(daemon::process::checked(check(&config)));
//!     }
//!     let process = Process::begin(&config.log, 0)?;
//!     let drain = process.drain().clone();
//!     let drain_s = config.drain_s;
//!     process.run(start(config, drain), drain_s)
//! }
//! ```
//!
//! | status | when |
//! |---|---|
//! | 0 | drained after a signal, or `--check` found nothing, or `--help`, `--version` |
//! | 1 | refused to start, or `--check` found problems (warnings do not count); standard error or output says which |
//! | 2 | the command line is wrong |
//! | 130 | a second signal ended it at once |
//!
//! SIGUSR2 has a new process take over ([`crate::upgrade`]), in daemons of which two can run at once
//! ([`Process::upgradable`]); the others say that they cannot.
//!
//! A drain whose deadline passes is status 0 with a WARN: cutting the last long downloads is an ordinary end,
//! and a service manager must not take it for a crash.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Arg, ArgAction, Command, value_parser};
use serde::de::DeserializeOwned;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::drain::{self, Drain};
use crate::findings::Findings;
use crate::sockets;
use crate::telemetry::{self, LogConfig};
use crate::upgrade::{self, Predecessor, Stage, Successor};

/// A daemon's command line: `NAME --config FILE [--check]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Args {
    /// The config file.
    pub config: PathBuf,
    /// Check the config and everything it names, print "ok" or every problem, bind nothing.
    pub check: bool,
}

impl Args {
    /// Reads the process's command line; ends the process for `--help`, `--version` and mistakes.
    #[must_use]
    pub fn read(name: &'static str, version: &'static str, about: &'static str) -> Self {
        Self::of(&command(name, version, about).get_matches())
    }

    /// The config that `--config` names.
    ///
    /// # Errors
    ///
    /// As [`crate::config::load`].
    pub fn config<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        Ok(crate::config::load(&self.config)?)
    }

    fn of(matches: &clap::ArgMatches) -> Self {
        let config: Option<&PathBuf> = matches.get_one("config");
        Self { config: config.cloned().unwrap_or_default(), check: matches.get_flag("check") }
    }
}

/// A process that runs one daemon: its logger is installed, its runtime stands, nothing is bound yet.
#[derive(Debug)]
pub struct Process {
    runtime: tokio::runtime::Runtime,
    drain: Drain,
    predecessor: Option<Predecessor>,
    upgradable: bool,
}

impl Process {
    /// Installs the logger and makes a runtime with `threads` worker threads; 0 asks for one a core.
    ///
    /// # Errors
    ///
    /// When the log level does not parse, the threads cannot be made, or sockets that were to be handed over are not.
    pub fn begin(log: &LogConfig, threads: usize) -> anyhow::Result<Self> {
        telemetry::init(log)?;
        let drain = Drain::new();
        drain.sockets().inherit(sockets::of_systemd().context("LISTEN_FDS")?).context("LISTEN_FDS")?;
        let predecessor = Predecessor::greet()
            .context("the process before this one")?
            .map(|(predecessor, handed)| drain.sockets().inherit(handed).map(|()| predecessor));
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        if threads > 0 {
            builder.worker_threads(threads);
        }
        let runtime = builder.enable_all().build().context("the runtime's threads cannot be made")?;
        Ok(Self { runtime, drain, predecessor: predecessor.transpose()?, upgradable: false })
    }

    /// A new process may take over from this daemon (SIGUSR2): two of them can run at once.
    #[must_use]
    pub fn upgradable(self) -> Self {
        Self { upgradable: true, ..self }
    }

    /// What SIGTERM and SIGINT begin; hand it to the daemon's library.
    #[must_use]
    pub const fn drain(&self) -> &Drain {
        &self.drain
    }

    /// Starts the daemon, waits for a signal (or for the daemon to begin its own drain), then for its tasks
    /// to end, `drain_s` seconds at most.
    ///
    /// # Errors
    ///
    /// What `start` says: the daemon did not start.
    pub fn run<R>(self, start: impl Future<Output = anyhow::Result<R>>, drain_s: u64) -> anyhow::Result<ExitCode> {
        let Self { runtime, drain, predecessor, upgradable } = self;
        let successor = runtime.block_on(async {
            drain::on_signals(&drain).context("signals cannot be listened to")?;
            let mut upgrades = signal(SignalKind::user_defined2()).context("signals cannot be listened to")?;
            // Without a handler it ends a process at once.
            let mut hangups = signal(SignalKind::hangup()).context("signals cannot be listened to")?;
            let limit = Duration::from_secs(drain_s);
            if let Some(predecessor) = &predecessor {
                drain.after(ended(predecessor.try_clone().context("the process before this one")?));
            }
            // What `start` returned lives until the end: dropping it must not end anything early.
            let running = tokio::select! {
                running = start => running?,
                () = passed(&drain, limit) => anyhow::bail!("it was told to end, and did not come to an end of its start"),
            };
            drain.sockets().drop_unclaimed();
            match predecessor {
                Some(predecessor) => predecessor.ready(),
                None => upgrade::notify("READY=1"),
            }
            tracing::info!("started");
            let successor = until_drain(&drain, &mut upgrades, &mut hangups, upgradable).await;
            if successor.is_none() {
                upgrade::notify("STOPPING=1");
            }
            if drain.finished(limit).await {
                tracing::info!("drained");
            } else {
                tracing::warn!(drain_s, "ending with unfinished work: the drain's deadline passed");
            }
            drop(running);
            anyhow::Ok(successor)
        })?;
        // Work on blocking threads (a read of a stuck disk) must not keep the process from ending.
        runtime.shutdown_background();
        // The new process learns from this that the old one is no more.
        drop(successor);
        Ok(ExitCode::SUCCESS)
    }
}

/// The drain has begun, and this time has passed since.
async fn passed(drain: &Drain, limit: Duration) {
    drain.wait().await;
    tokio::time::sleep(limit).await;
}

/// Waits for the drain; whenever SIGUSR2 comes, tries to hand over, which is a drain when it succeeds.
async fn until_drain(
    drain: &Drain,
    upgrades: &mut Signal,
    hangups: &mut Signal,
    upgradable: bool,
) -> Option<Successor> {
    loop {
        tokio::select! {
            () = drain.wait() => return None,
            _ = upgrades.recv() => {}
            _ = hangups.recv() => {
                tracing::info!("SIGHUP: what is followed is followed without it; the rest of a config takes a restart, or SIGUSR2");
                continue;
            }
        }
        if !upgradable {
            tracing::warn!("this daemon is not upgraded by SIGUSR2: restart it");
            continue;
        }
        match upgrade(drain).await {
            Ok(successor) => {
                upgrade::notify(&format!("MAINPID={}", successor.id()));
                drain.hand_over();
                tracing::info!(successor = successor.id(), "handed over to a new process; draining");
                return Some(successor);
            }
            Err(_) if drain.started() => return None,
            Err(reason) => tracing::error!(reason, "the upgrade failed: this process goes on"),
        }
    }
}

/// Starts a new process and waits until it serves, or the drain begins. An error is why this one has to go on.
async fn upgrade(drain: &Drain) -> Result<Successor, String> {
    tracing::info!("upgrading: a new process starts");
    let lender = drain.clone();
    let begun = on_thread(move || {
        lender.stage(Stage::Lend);
        let successor = lender.sockets().copies().and_then(|sockets| Successor::start(&sockets));
        let successor = successor.and_then(|successor| Ok((successor.interrupter()?, successor)));
        successor.map_err(|error| format!("it cannot be started: {error}"))
    });
    let result = match begun.await {
        Err(reason) => Err(reason),
        Ok((interrupter, successor)) => {
            let ready = on_thread(move || successor.ready());
            tokio::pin!(ready);
            tokio::select! {
                ready = &mut ready => ready,
                () = drain.wait() => {
                    interrupter.interrupt();
                    drop(ready.await);
                    Err("this process ends".to_owned())
                }
            }
        }
    };
    if result.is_err() {
        let lender = drain.clone();
        on_thread(move || {
            lender.stage(Stage::TakeBack);
            Ok(())
        })
        .await?;
    }
    result
}

async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

/// Cancelled when the process before this one has ended.
fn ended(predecessor: Predecessor) -> CancellationToken {
    let token = CancellationToken::new();
    let told = token.clone();
    // A thread of its own: the pool's are for work, and this one only waits.
    let waiting = std::thread::Builder::new().name("predecessor".to_owned()).spawn(move || {
        predecessor.until_ended();
        told.cancel();
    });
    if let Err(error) = waiting {
        tracing::warn!(%error, "nobody waits for the end of the process before this one");
        token.cancel();
    }
    token
}

/// The exit status of a `main`: an error is printed, with its causes, on standard error.
#[must_use]
pub fn status(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        upgrade::tell_failure(&format!("{error:#}"));
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// The answer to `--check`: "ok", or one problem a line, on standard output; warnings on standard error.
#[must_use]
pub fn checked(findings: impl Into<Findings>) -> ExitCode {
    let Findings { problems, warnings } = findings.into();
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    if problems.is_empty() {
        println!("ok");
        return ExitCode::SUCCESS;
    }
    for problem in problems {
        println!("{problem}");
    }
    ExitCode::FAILURE
}

fn command(name: &'static str, version: &'static str, about: &'static str) -> Command {
    Command::new(name)
        .version(version)
        .about(about)
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("Config file (TOML)"),
        )
        .arg(
            Arg::new("check")
                .long("check")
                .action(ArgAction::SetTrue)
                .help("Check the config and all it names, print \"ok\" or every problem, bind nothing"),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_a_config_and_perhaps_a_check() {
        check("cache-daemon --config a.toml", "a.toml");
        check("cache-daemon --config=a.toml --check", "a.toml, check");
        check("cache-daemon --check --config a.toml", "a.toml, check");
        check("cache-daemon", "MissingRequiredArgument");
        check("cache-daemon --config", "InvalidValue");
        check("cache-daemon a.toml", "UnknownArgument");
        check("cache-daemon --version", "DisplayVersion");
        check("cache-daemon --help", "DisplayHelp");
    }

    #[test]
    fn a_daemon_that_does_not_start_is_an_error() {
        let process = Process::begin(&quiet(), 1).unwrap();
        let error = process.run(async { anyhow::Result::<()>::Err(anyhow::anyhow!("no disk")) }, 1).unwrap_err();
        assert_eq!(error.to_string(), "no disk");
    }

    #[test]
    fn it_ends_when_the_tasks_have_ended_or_the_deadline_has_passed() {
        for (drain_s, task_ends) in [(60, true), (0, false)] {
            let process = Process::begin(&quiet(), 1).unwrap();
            let drain = process.drain().clone();
            let start = async move {
                drain.spawn(async move {
                    if !task_ends {
                        std::future::pending::<()>().await;
                    }
                });
                drain.start();
                Ok(())
            };
            assert_eq!(process.run(start, drain_s).unwrap(), ExitCode::SUCCESS);
        }
    }

    fn quiet() -> LogConfig {
        LogConfig { level: "error".to_owned(), ..LogConfig::default() }
    }

    #[track_caller]
    fn check(line: &str, expected: &str) {
        let answer = match command("cache-daemon", "1", "").try_get_matches_from(line.split(' ')) {
            Ok(matches) => {
                let args = Args::of(&matches);
                format!("{}{}", args.config.display(), if args.check { ", check" } else { "" })
            }
            Err(error) => format!("{:?}", error.kind()),
        };
        assert_eq!(answer, expected, "{line}");
    }
}
