//! The daemon `popularity-api`.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use daemon::process::{self, Args, Process};
use popularity_api::server::{self, Config};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    process::status(run())
}

fn run() -> anyhow::Result<ExitCode> {
    if std::env::args().nth(1).as_deref() == Some("--openapi") {
        // Who reads only the beginning closes the pipe: that is no trouble.
        let written = std::io::stdout().write_all(popularity_api::openapi::DOCUMENT.as_bytes());
        return match written {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(ExitCode::SUCCESS),
        };
    }
    let about = "Rates files per region, knows what caches hold and who is alive, and makes links; --openapi prints its description.";
    let args = Args::read("popularity-api", env!("CARGO_PKG_VERSION"), about);
    let config: Config = args.config()?;
    if args.check {
        return Ok(process::checked(server::check(&config)));
    }
    let process = Process::begin(&config.log, 0)?;
    let (drain, drain_s) = (process.drain().clone(), config.drain_s);
    process.run(server::start(config, drain), drain_s)
}
