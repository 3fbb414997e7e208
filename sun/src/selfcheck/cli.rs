//! The command line of `sun-check`.
//!
//! ```text
//!   sun-check --config FILE [--check]              the daemon
//!   sun-check status  --config FILE [--json]       what the sun's state is, and why
//!   sun-check disable --config FILE [--reason TEXT] [--force]
//!   sun-check enable  --config FILE [--reason TEXT]
//! ```
//!
//! Commands ask the daemon at its admin port, orders with the sun's own token: who may read that file may give them. An order
//! is carried out before it is kept, and what the speaker makes of it is looked at ([`ORDER_STATUS`]).

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Args, Parser, Subcommand};
use daemon::clock::unix_ms;
use daemon::problem::Problem;
use daemon::process::{self, Process};
use daemon::tokens;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::config::Config;
use super::driver::Done;
use super::routes::OrderBody;
use super::start::{self, DRAIN_S};
use super::status::{Status, plain};

/// Watches one sun and has its addresses announced while it is well.
#[derive(Debug, Parser)]
#[command(name = "sun-check", version, max_term_width = 100, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    daemon: DaemonArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct DaemonArgs {
    /// Config file (TOML).
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    /// Check the config and all it names, print "ok" or every problem; bind nothing.
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the sun's state and why it is in it.
    Status {
        /// Config file of the daemon.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// In JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Withdraw the sun's addresses until `enable`, also over restarts.
    #[command(after_help = ORDER_STATUS)]
    Disable {
        /// Config file of the daemon.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Why; shown with the state.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        /// Also if too few others of the group are well.
        #[arg(long)]
        force: bool,
    },
    /// Announce it again as soon as it is well, and forget that it flapped.
    #[command(after_help = ORDER_STATUS)]
    Enable {
        /// Config file of the daemon.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Why; shown with the state.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    process::status(run(Cli::parse()))
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        None => daemon(&cli.daemon),
        Some(Command::Status { config, json }) => status(&daemon::config::load(&config)?, json),
        Some(Command::Disable { config, reason, force }) => {
            order(&daemon::config::load(&config)?, "/disable", &OrderBody { reason, force })
        }
        Some(Command::Enable { config, reason }) => {
            order(&daemon::config::load(&config)?, "/enable", &OrderBody { reason, force: false })
        }
    }
}

fn daemon(args: &DaemonArgs) -> anyhow::Result<ExitCode> {
    let file = args.config.as_ref().context("--config FILE is missing")?;
    let config: Config = daemon::config::load(file)?;
    if args.check {
        return Ok(process::checked(start::check(&config)));
    }
    let process = Process::begin(&config.log, THREADS)?;
    let drain = process.drain().clone();
    process.run(start::start(config, drain), DRAIN_S)
}

fn status(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let body = ask(config, Method::GET, "/status", None)?;
    if json {
        println!("{}", String::from_utf8_lossy(&body));
    } else {
        let status: Status = serde_json::from_slice(&body).context("the answer of another version")?;
        print!("{}", status.text(unix_ms()));
    }
    Ok(ExitCode::SUCCESS)
}

fn order(config: &Config, path: &str, order: &OrderBody) -> anyhow::Result<ExitCode> {
    let body = ask(config, Method::POST, path, Some(order))?;
    let done: Done = serde_json::from_slice(&body).context("the answer of another version")?;
    println!("{}", plain(&done.said));
    if let Some(why) = &done.unkept {
        let why = plain(why);
        eprintln!(
            "WARNING: it is in force and cannot be written ({why}): a restart of sun-check forgets it. It is tried again every \
             5 s; see `sun-check status`"
        );
    }
    Ok(ExitCode::from(status_of(&done, order.force)))
}

/// See [`ORDER_STATUS`].
const fn status_of(done: &Done, force: bool) -> u8 {
    match (&done.unconfirmed, &done.unkept) {
        (Some(_), _) => 4,
        (None, Some(_)) if !force => 3,
        (None, _) => 0,
    }
}

/// Asks the daemon.
fn ask(config: &Config, method: Method, path: &str, order: Option<&OrderBody>) -> anyhow::Result<Bytes> {
    let admin = config.admin;
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, admin.to_string());
    let body = match order {
        None => Bytes::new(),
        Some(order) => {
            let token = tokens::read_secret(&config.token)?;
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            serde_json::to_vec(order)?.into()
        }
    };
    let request = request.body(Full::new(body))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (status, body) = runtime
        .block_on(async {
            let exchange = converse(admin, request);
            tokio::time::timeout(ANSWER_MAX, exchange).await.context("no answer in 5 s").flatten()
        })
        .with_context(|| format!("{admin}: does sun-check run?"))?;
    if status != StatusCode::OK {
        let told = serde_json::from_slice::<Problem>(&body).map(|problem| problem.detail);
        bail!("{}", told.as_deref().map(plain).unwrap_or_else(|_| format!("{admin} answers {status}")));
    }
    Ok(body)
}

async fn converse(address: std::net::SocketAddr, request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    connection.abort();
    Ok((status, body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes()))
}

/// For people and scripts.
const ORDER_STATUS: &str = "Exit status:
  0  it is in force, kept over restarts, and seen at the speaker; with --force also when it cannot be written
     (a WARNING says so)
  1  it is refused, or sun-check was not reached
  3  it is in force and cannot be written: a restart of sun-check forgets it
  4  it is in force, and BIRD or ExaBGP has not confirmed it within 3.5 s: after `disable` the addresses may
     still be announced. It is asked again and again";

/// Threads of the daemon: it mostly waits, and one that is held up must not hold up the other.
const THREADS: usize = 2;

/// How long a command waits.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// A status of 512 members and its history fits in.
const ANSWER_BYTES_MAX: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_an_order_says_what_of_it_is_so() {
        let check = |unkept: bool, unconfirmed: bool, force: bool, expected: u8| {
            let why = |is: bool| is.then(|| "why".to_owned());
            let done = Done { said: String::new(), unkept: why(unkept), unconfirmed: why(unconfirmed) };
            assert_eq!(status_of(&done, force), expected, "{done:?} {force}");
        };
        check(false, false, false, 0);
        check(true, false, false, 3);
        check(true, false, true, 0);
        check(false, true, true, 4);
        check(true, true, false, 4);
    }
}
