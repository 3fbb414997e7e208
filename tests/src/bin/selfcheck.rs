//! `tests/bench/selfcheck`: how often a self-check takes a sun for ill that is only busy.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use tests::origin::Script;
use tests::process::Daemon;
use tests::settings::token_file;
use tests::visitors::{Target, Visitors};
use tests::world::World;

const SUN: &str = "sun1-1-1";
const FILE: &str = "c1/a.jpg";
const SIZE: u64 = 10_000;

/// Visitors of each kind: HTTP/1.1 kept, HTTP/2 kept, a connection a request. All ask as fast as they are answered.
const LOADS: [[usize; 3]; 4] = [[0, 0, 0], [8, 8, 2], [64, 64, 16], [500, 500, 50]];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let seconds: u64 = std::env::args().nth(1).context("selfcheck SECONDS")?.parse().context("SECONDS")?;
    let world = World::new(&[SUN]);
    world.put(FILE, Script::file(SIZE));
    let _sun = world.start_with(SUN, |settings| settings.log_level = "info".to_owned()).await;
    let config = write_config(&world);
    let check = Daemon::start("sun-check", "sun-check", &config, admin(&world)).await;
    tests::poll::until_true("it is Up", || async {
        check.metrics().await.sum("sun_check_state", &["state=\"up\""]) == Some(1.0)
    })
    .await;
    println!("{seconds} s each; a probe every 500 ms, at most 400 ms; fall = 2");
    println!("visitors  requests/s  probes  mean ms  above 100 ms  failed  Falling  falls (fall = 2)");
    for load in LOADS {
        let target = Target {
            address: world.server(SUN).https(),
            host: world.server(SUN).host(),
            path: format!("/{FILE}"),
            size: usize::try_from(SIZE)?,
            pause: Duration::ZERO,
        };
        let before = Counts::of(&check).await;
        let visitors = Visitors::start(&world.authority, &target, load);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let requests = visitors.tally.total();
        let after = Counts::of(&check).await;
        let tally = visitors.end().await;
        let probes = after.probes - before.probes;
        println!(
            "{:8}  {:10}  {probes:6}  {:7.1}  {:12}  {:6}  {:7}  {:5}",
            load.iter().sum::<usize>(),
            requests / seconds,
            1000.0 * (after.seconds - before.seconds) / probes.max(1.0),
            after.slow - before.slow,
            after.failed - before.failed,
            after.falling - before.falling,
            after.falls - before.falls,
        );
        let failed = tally.failed.load(Ordering::Relaxed);
        if failed > 0 {
            println!("          {failed} requests failed: {:?}", tally.failures());
        }
    }
    Ok(())
}

/// What the self-check has counted so far.
struct Counts {
    probes: f64,
    seconds: f64,
    slow: f64,
    failed: f64,
    falling: f64,
    falls: f64,
}

impl Counts {
    async fn of(check: &Daemon) -> Self {
        let metrics = check.metrics().await;
        let sum = |name: &str, labels: &[&str]| metrics.sum(name, labels).unwrap_or(0.0);
        let probes = sum("sun_check_probes_total", &[]);
        Self {
            probes,
            seconds: sum("sun_check_probe_seconds_sum", &[]),
            slow: probes - sum("sun_check_probe_seconds_bucket", &["le=\"0.1\""]),
            failed: probes - sum("sun_check_probes_total", &["result=\"good\""]),
            falling: sum("sun_check_transitions_total", &["to=\"falling\""]),
            falls: sum("sun_check_transitions_total", &["to=\"down\""]),
        }
    }
}

fn admin(world: &World) -> std::net::SocketAddr {
    (world.server(SUN).address, 9084).into()
}

/// The defaults, but for places and names.
fn write_config(world: &World) -> PathBuf {
    let (config, trust) = (world.path("sun-check.toml"), world.path("root.pem"));
    tests::files::write(&trust, world.authority.root_pem());
    let text = format!(
        "name = {SUN:?}\ntopology = {:?}\ndata = {:?}\nadmin = \"{}\"\ninternal = \"{}:8084\"\ntokens = {:?}\ntoken = {:?}\n\
         [probe]\naddresses = [\"{}\"]\ntrust = {trust:?}\n",
        world.topology_file(),
        world.path("check"),
        admin(world),
        world.server(SUN).address,
        world.path("tokens.toml"),
        token_file(world.folder(), SUN),
        world.server(SUN).https()
    );
    tests::files::write(&config, &text);
    config
}
