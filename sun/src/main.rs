//! The daemon `sun`: one edge proxy.

use std::process::ExitCode;

use daemon::process::{self, Args, Process};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    process::status(run())
}

fn run() -> anyhow::Result<ExitCode> {
    let about =
        "An edge proxy: terminates TLS and serves files from RAM, the owner sun, a cache or the content server.";
    let args = Args::read("sun", env!("CARGO_PKG_VERSION"), about);
    let config: sun::Config = args.config()?;
    if args.check {
        return Ok(process::checked(sun::check(&config)));
    }
    // The workers have threads of their own; two more carry reports, reloads and the admin port.
    let process = Process::begin(&config.log, 2)?.upgradable();
    let (drain, drain_s) = (process.drain().clone(), config.drain_s);
    // The connections' deadline comes first; what is left then is reported before the process ends.
    process.run(sun::start(config, sun::Parts::default(), drain), drain_s + 5)
}
