//! `tests/bench/upgrade`: thousands of open connections while new processes take over one after the other.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tests::origin::Script;
use tests::poll;
use tests::visitors::{Kind, Target, Visitors};
use tests::world::World;

const SUN: &str = "sun1-1-1";
const FILE: &str = "c1/a.jpg";
const SIZE: u64 = 10_000;

/// Visitors who open a connection for each request.
const NEW: usize = 500;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [connections, upgrades, pause_s] = arguments.as_slice() else {
        anyhow::bail!("upgrade CONNECTIONS UPGRADES PAUSE_S")
    };
    let connections: usize = connections.parse().context("CONNECTIONS")?;
    let upgrades: usize = upgrades.parse().context("UPGRADES")?;
    let pause = Duration::from_secs(pause_s.parse().context("PAUSE_S")?);
    let world = World::new(&[SUN]);
    world.put(FILE, Script::file(SIZE));
    // A connection that is closed because nothing was asked for is not what is looked at: it may cross a request.
    let more = "[limits]\nconnections_max = 40000\nhead_s = 300\nhandshake_s = 60\n";
    let config = world.write_config(SUN, |settings| {
        settings.log_level = "info".to_owned();
        // Idle connections are kept for half of it.
        settings.more = format!("drain_s = {}", 4 * pause.as_secs());
    });
    let text = std::fs::read_to_string(&config)? + more;
    tests::files::write(&config, &text);
    let mut sun = tests::process::Daemon::start("sun", SUN, &config, world.server(SUN).admin()).await;
    let target = Target {
        address: world.server(SUN).https(),
        host: world.server(SUN).host(),
        path: format!("/{FILE}"),
        size: usize::try_from(SIZE)?,
        pause,
    };
    let visitors = Visitors::start(&world.authority, &target, [connections / 2, connections - connections / 2, NEW]);
    let began = Instant::now();
    settle(&visitors, &world, connections).await?;
    let seconds = began.elapsed().as_secs_f64();
    let failed = visitors.tally.failed.load(Ordering::Relaxed);
    println!(
        "{connections} connections are open and used after {seconds:.1} s, half HTTP/1.1, half HTTP/2; {failed} failures"
    );
    println!("upgrade  new process serves  old one ended  requests meanwhile  failed  longest request");
    for turn in 1..=upgrades {
        settle(&visitors, &world, connections).await?;
        let (began, before) = (Instant::now(), visitors.tally.total());
        visitors.tally.longest_us.store(0, Ordering::Relaxed);
        let former = sun.upgrade().await;
        let serves = began.elapsed();
        poll::until_true("the end of the former process", || async { !sun.runs(former) }).await;
        println!(
            "{turn:7}  {:16.2} s  {:11.2} s  {:18}  {:6}  {:13.0} ms",
            serves.as_secs_f64(),
            began.elapsed().as_secs_f64(),
            visitors.tally.total() - before,
            visitors.tally.failed.load(Ordering::Relaxed),
            visitors.tally.longest_us.load(Ordering::Relaxed) as f64 / 1e3,
        );
    }
    let tally = visitors.end().await;
    for (kind, (answered, made)) in Kind::ALL.iter().zip(tally.answered.iter().zip(&tally.connections)) {
        let count = |value: &std::sync::atomic::AtomicU64| value.load(Ordering::Relaxed);
        println!("{:10}  {:7} requests answered on {:6} connections", kind.name(), count(answered), count(made));
    }
    let failed = tally.failed.load(Ordering::Relaxed);
    println!("{} requests, {failed} failed", tally.total() + failed);
    tally.failures().iter().for_each(|failure| println!("  {failure}"));
    ensure!(failed == 0, "requests failed");
    Ok(())
}

/// Waits until everybody has asked once more, and all connections are open.
async fn settle(visitors: &Visitors, world: &World, connections: usize) -> anyhow::Result<()> {
    let (began, before) = (Instant::now(), visitors.tally.total());
    let requests = u64::try_from(connections + NEW)?;
    loop {
        let open = sun_connections(world.server(SUN).admin()).await;
        if open >= connections && visitors.tally.total() >= before + requests {
            return Ok(());
        }
        ensure!(began.elapsed() < Duration::from_secs(180), "{open} of {connections} connections are open");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Connections that the sun counts.
async fn sun_connections(admin: std::net::SocketAddr) -> usize {
    let metrics = tests::process::admin_get(admin, "/metrics").await.map(|(_, text)| text).unwrap_or_default();
    let open = tests::metrics::Metrics::parse(&metrics).sum("edge_connections", &[]).unwrap_or(0.0);
    format!("{open:.0}").parse().unwrap_or(0)
}
