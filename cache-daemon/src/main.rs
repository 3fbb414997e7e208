//! The daemon: `cache-daemon --config FILE [--check]`.

use std::process::ExitCode;

use cache_daemon::Config;
use daemon::process::{Args, Process, checked, status};

/// Records and buffers of all sizes come and go on all threads for months: it fragments less than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    status(run())
}

fn run() -> anyhow::Result<ExitCode> {
    let args = Args::read("cache-daemon", env!("CARGO_PKG_VERSION"), "A regional cache: carries files ahead of demand");
    let config: Config = args.config()?;
    if args.check {
        return Ok(checked(cache_daemon::check(&config)));
    }
    // The edge's workers have threads of their own; these carry the plan, the downloads and the admin port.
    let process = Process::begin(&config.edge.log, 2)?;
    let drain = process.drain().clone();
    let drain_s = config.edge.drain_s;
    // The connections' deadline comes first; what is left then is reported before the process ends.
    process.run(cache_daemon::start(config, drain), drain_s + 5)
}
