//! `tests/bench/run`: a sun beside Debian's nginx as caching proxy. (`tests/bench/fill` is [`fill`].)
//!
//! Both hold the same files and are asked for them over HTTP/1.1, HTTP/1.1 with TLS and HTTP/2 with TLS. The
//! server under test has one core to itself, the client another. Servers alternate, so that a change of the
//! machine's mood hits both, and of several rounds the median counts. The number to look at is CPU time per
//! request: requests per second on two cores also depends on what the client can take.

mod fill;
mod load;
mod nginx;
mod server;

use std::process::{Command, ExitCode};

use tests::origin::Script;
use tests::world::World;

use load::{Measured, Protocol};
use server::Server;

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let fills = arguments.first().is_some_and(|first| first == "fill");
    if fills {
        arguments.remove(0);
    }
    let quick = match arguments.as_slice() {
        [] => false,
        [flag] if flag == "--quick" => true,
        _ => {
            eprintln!("usage: tests/bench/run [--quick], tests/bench/fill [--quick]");
            return ExitCode::from(2);
        }
    };
    let plan = if quick { Plan { rounds: 1, seconds: 1 } } else { Plan { rounds: 3, seconds: 4 } };
    let outcome = if fills { fill::run(plan.rounds).await } else { run(plan).await };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    rounds: usize,
    seconds: u64,
}

/// A file's label, path and size.
const FILES: [(&str, &str, u64); 5] = [
    ("1 KB", "c1/1kb.bin", 1_000),
    ("10 KB", "c1/10kb.bin", 10_000),
    ("100 KB", "c1/100kb.bin", 100_000),
    ("1 MB", "c1/1mb.bin", 1_000_000),
    ("10 MB", "c1/10mb.bin", 10_000_000),
];

async fn run(plan: Plan) -> anyhow::Result<()> {
    let world = World::new(&["sun1-1-1"]);
    for (_, file, size) in FILES {
        world.put(file, Script::file(size));
    }
    let sun = world.start_with("sun1-1-1", |settings| {
        settings.ram_bytes = 1 << 30;
        settings.log_level = "warn".to_owned();
        settings.more = "workers = 1".to_owned();
    });
    let sun = sun.await;
    let nginx = nginx::Nginx::start(&world)?;
    let servers = [
        Server { name: "nginx", process: nginx.worker(), address: nginx.address() },
        Server { name: "sun", process: sun.id(), address: world.server("sun1-1-1").address },
    ];
    for server in &servers {
        server.pin()?;
        server.warm(&world).await?;
    }
    introduce(plan, &nginx);

    println!("\n                        requests/s                    server's CPU, us per request");
    println!("             size      nginx        sun   ratio           nginx        sun   ratio");
    for protocol in Protocol::ALL {
        for (label, file, _) in FILES {
            let mut rounds: [Vec<Measured>; 2] = Default::default();
            for round in 0..plan.rounds {
                // Who goes first alternates as well.
                for turn in 0..2 {
                    let which = (round + turn) % 2;
                    rounds[which].push(load::measure(protocol, &servers[which], file, plan.seconds)?);
                }
            }
            let [nginx, sun] = rounds.map(|rounds| median(&rounds));
            println!(
                "{:10} {label:>6} {:>10.0} {:>10.0} {:>7.2} {:>15.1} {:>10.1} {:>7.2}",
                protocol.name(),
                nginx.per_second,
                sun.per_second,
                sun.per_second / nginx.per_second,
                nginx.cpu_us,
                sun.cpu_us,
                sun.cpu_us / nginx.cpu_us
            );
        }
    }
    println!("\nratio is sun / nginx: above 1 is better for requests/s, below 1 for CPU.");
    let fetched: Vec<String> = FILES.iter().map(|(_, file, _)| world.fetches(file).to_string()).collect();
    println!(
        "the content server was asked {} times for the five files (once by each server is 2).",
        fetched.join(", ")
    );
    Ok(())
}

fn median(rounds: &[Measured]) -> Measured {
    let middle = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Measured {
        per_second: middle(rounds.iter().map(|round| round.per_second).collect()),
        cpu_us: middle(rounds.iter().map(|round| round.cpu_us).collect()),
    }
}

/// Says what is measured, on what, with what.
fn introduce(plan: Plan, nginx: &nginx::Nginx) {
    println!("== cached files: sun beside nginx proxy_cache, one core for the server, one for the client");
    println!("rounds of {} s a server and case: {}, alternating; medians", plan.seconds, plan.rounds);
    println!("{}", load::describe());
    println!(
        "nginx: 1 worker, sendfile, open_file_cache, keep-alive, access log off, cache in {}",
        nginx.cache_folder()
    );
    println!("sun: workers = 1, no API, cache in RAM");
    machine(&["nginx", "wrk", "h2load", "uname"]);
}

/// Versions of these programs and of the sun, and what they run on.
fn machine(programs: &[&str]) {
    for (program, arguments) in
        [("nginx", &["-v"][..]), ("wrk", &["-v"]), ("h2load", &["--version"]), ("uname", &["-srm"])]
    {
        if programs.contains(&program) {
            println!("{}", first_line(Command::new(program).args(arguments)));
        }
    }
    let sun = tests::process::run("sun", &["--version"]);
    println!("{}", sun.out.lines().next().unwrap_or("sun"));
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    println!("cpu{model}, {} cores", std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
}

fn first_line(command: &mut Command) -> String {
    let Ok(output) = command.output() else { return format!("{:?}: not there", command.get_program()) };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
}
