//! `tests/bench/fill`: what clients wait for while a proxy fetches what it does not hold.
//!
//! A sun stands beside two nginx, one with `proxy_cache_lock on` and its defaults, one with the lock's deadlines
//! at 60 s, so that it never fetches twice. All have the same content server, each its own files. Clients speak
//! plain HTTP/1.1, so that nothing but the fill is measured.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tests::origin::Script;
use tests::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::nginx::Nginx;

/// A proxy under test.
#[derive(Clone, Copy, Debug)]
struct Proxy {
    name: &'static str,
    label: &'static str,
    address: Ipv4Addr,
}

/// Runs everything and prints a table.
pub(crate) async fn run(rounds: usize) -> anyhow::Result<()> {
    let world = World::new(&["sun1-1-1"]);
    let sun = world.start_with("sun1-1-1", |settings| {
        settings.ram_bytes = 1 << 30;
        settings.log_level = "warn".to_owned();
    });
    let _sun = sun.await;
    let locked = Nginx::start(&world)?;
    let deadlines = "proxy_cache_lock_timeout 60s; proxy_cache_lock_age 60s;";
    let patient = Nginx::start_with(&world, 4, deadlines)?;
    let proxies = [
        Proxy { name: "nginx", label: "nginx", address: locked.address() },
        Proxy { name: "nginx60", label: "nginx 60 s lock", address: patient.address() },
        Proxy { name: "sun", label: "sun", address: world.server("sun1-1-1").address },
    ];
    println!("== files that are not held: sun beside nginx proxy_cache with proxy_cache_lock, plain HTTP/1.1");
    crate::machine(&["nginx", "uname"]);
    println!("\n{:58}{:>20}{:>20}{:>20}", "", proxies[0].label, proxies[1].label, proxies[2].label);
    crowd(&world, &proxies).await?;
    drip(&world, &proxies).await?;
    speed(&world, &proxies, rounds).await
}

fn row(what: &str, values: &[String]) {
    println!("{what:58}{:>20}{:>20}{:>20}", values[0], values[1], values[2]);
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// (a) A thousand clients ask at once for a file of 1 MB that the content server sends within a second.
async fn crowd(world: &World, proxies: &[Proxy]) -> anyhow::Result<()> {
    const CLIENTS: usize = 1000;
    const SIZE: u64 = 1_000_000;
    let mut rows: [Vec<String>; 5] = Default::default();
    for proxy in proxies {
        let file = format!("c1/crowd-{}.bin", proxy.name);
        world.put(&file, Script::file(SIZE).dripping(SIZE));
        let start = Arc::new(Barrier::new(CLIENTS));
        let began = Instant::now();
        let mut clients = JoinSet::new();
        let address: SocketAddr = (proxy.address, 8080).into();
        for _ in 0..CLIENTS {
            let (start, file) = (Arc::clone(&start), file.clone());
            clients.spawn(async move {
                let connection = TcpStream::connect(address).await?;
                start.wait().await;
                download(connection, &file, None).await
            });
        }
        let mut first_bytes = Vec::new();
        let (mut asked, mut last) = (Duration::MAX, Duration::ZERO);
        while let Some(client) = clients.join_next().await {
            let got = client??;
            ensure!(got.bytes == SIZE, "{}: {} bytes", proxy.label, got.bytes);
            // All by one clock: a client that is late to ask is not early to be answered.
            first_bytes.push(got.began + got.first_byte - began);
            asked = asked.min(got.began - began);
            last = last.max(got.began + got.end - began);
        }
        first_bytes.sort();
        rows[0].push(world.fetches(&file).to_string());
        rows[1].push(ms(first_bytes[0] - asked));
        rows[2].push(ms(first_bytes[1] - first_bytes[0]));
        rows[3].push(ms(first_bytes[CLIENTS - 1] - first_bytes[0]));
        rows[4].push(ms(last - asked));
    }
    row("1,000 clients, 1 MB in 1 s: fetches from the content server", &rows[0]);
    row("  first client's first byte", &rows[1]);
    row("  second client's after the first's", &rows[2]);
    row("  1,000th client's after the first's", &rows[3]);
    row("  everybody has everything", &rows[4]);
    Ok(())
}

/// (b) 10 MB that the content server sends in 10 s.
async fn drip(world: &World, proxies: &[Proxy]) -> anyhow::Result<()> {
    const SIZE: u64 = 10_000_000;
    let mut all = JoinSet::new();
    for (place, proxy) in proxies.iter().copied().enumerate() {
        let name = |what: &str| format!("c1/{what}-{}.bin", proxy.name);
        let (shared, cold, begun) = (name("drip"), name("end"), name("end-begun"));
        for file in [&shared, &cold, &begun] {
            world.put(file, Script::file(SIZE).dripping(SIZE / 10));
        }
        all.spawn(async move {
            let address: SocketAddr = (proxy.address, 8080).into();
            let get = |file: String, range: Option<&'static str>, after: u64| async move {
                tokio::time::sleep(Duration::from_secs(after)).await;
                download(TcpStream::connect(address).await?, &file, range).await
            };
            let end = Some("bytes=-100");
            let (first, second, cold, begun, last) = tokio::try_join!(
                get(shared.clone(), None, 0),
                get(shared, None, 1),
                get(cold, end, 0),
                get(begun.clone(), None, 0),
                get(begun, end, 1),
            )?;
            ensure!(first.bytes == SIZE && second.bytes == SIZE && begun.bytes == SIZE, "{}: whole files", proxy.label);
            ensure!(cold.bytes == 100 && last.bytes == 100, "{}: 100 bytes", proxy.label);
            Ok((place, [first.first_byte, second.first_byte, second.end, cold.first_byte, last.first_byte]))
        });
    }
    let mut columns = vec![[Duration::ZERO; 5]; proxies.len()];
    while let Some(measured) = all.join_next().await {
        let (place, times) = measured??;
        columns[place] = times;
    }
    let fetches: Vec<String> =
        proxies.iter().map(|proxy| world.fetches(&format!("c1/drip-{}.bin", proxy.name)).to_string()).collect();
    let times = |which: usize| columns.iter().map(|times| ms(times[which])).collect::<Vec<_>>();
    row("10 MB in 10 s, a second client after 1 s: fetches", &fetches);
    row("  first client's first byte", &times(0));
    row("  second client's first byte", &times(1));
    row("  second client has everything", &times(2));
    row("  the last 100 bytes of a cold file: first byte", &times(3));
    row("  the last 100 bytes while another downloads: first byte", &times(4));
    Ok(())
}

/// (c) The first download of 250 MB through each proxy against one from the content server itself.
async fn speed(world: &World, proxies: &[Proxy], rounds: usize) -> anyhow::Result<()> {
    const SIZE: u64 = 250_000_000;
    let cases = [("at 1 Gbit/s", Some(125_000_000)), ("as fast as this machine can", None)];
    for (label, rate) in cases {
        let mut direct = Vec::new();
        let mut through = vec![Vec::new(); proxies.len()];
        for round in 0..rounds {
            let script = || rate.map_or(Script::file(SIZE), |rate| Script::file(SIZE).dripping(rate));
            let name = |who: &str| format!("c1/speed-{who}-{}-{round}.bin", rate.unwrap_or(0));
            let file = name("direct");
            world.put(&file, script());
            let upstream = World::upstream(&file);
            direct.push(timed(world.origin.address(), upstream.trim_start_matches('/'), SIZE).await?);
            for (proxy, times) in proxies.iter().zip(&mut through) {
                let file = name(proxy.name);
                world.put(&file, script());
                times.push(timed((proxy.address, 8080).into(), &file, SIZE).await?);
            }
        }
        let direct = median(direct);
        let shares: Vec<String> = through
            .into_iter()
            .map(|times| {
                let time = median(times);
                format!("{:.0} MB/s {:.0} %", SIZE as f64 / time / 1e6, 100.0 * direct / time)
            })
            .collect();
        let direct = SIZE as f64 / direct / 1e6;
        row(&format!("first download of 250 MB, {label} (direct {direct:.0} MB/s)"), &shares);
    }
    Ok(())
}

async fn timed(address: SocketAddr, file: &str, size: u64) -> anyhow::Result<f64> {
    let began = Instant::now();
    let got = download(TcpStream::connect(address).await?, file, None).await?;
    ensure!(got.bytes == size, "{file}: {} bytes", got.bytes);
    Ok(began.elapsed().as_secs_f64())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// What a client saw.
#[derive(Clone, Copy, Debug)]
struct Got {
    began: Instant,
    /// From the request to the first byte of the body.
    first_byte: Duration,
    /// To the end of the body.
    end: Duration,
    /// Length of the body.
    bytes: u64,
}

/// Asks on an open connection and reads the body to its end, which is where the connection closes.
async fn download(mut connection: TcpStream, file: &str, range: Option<&str>) -> anyhow::Result<Got> {
    connection.set_nodelay(true)?;
    let range = range.map(|range| format!("Range: {range}\r\n")).unwrap_or_default();
    let request = format!("GET /{file} HTTP/1.1\r\nHost: bench.cdn.test\r\nConnection: close\r\n{range}\r\n");
    let began = Instant::now();
    connection.write_all(request.as_bytes()).await?;
    let mut buffer = vec![0; 256 * 1024];
    let mut filled = 0;
    let head = loop {
        let read = connection.read(&mut buffer[filled..]).await?;
        ensure!(read > 0, "{file}: closed before a body");
        filled += read;
        let head = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        // The first byte of the body counts, not the head.
        if let Some(head) = head.filter(|head| *head < filled) {
            break head;
        }
    };
    let first_byte = began.elapsed();
    let status = std::str::from_utf8(&buffer[..12]).context("a status line")?;
    ensure!(status.ends_with("200") || status.ends_with("206"), "{file}: {status}");
    let mut bytes = (filled - head) as u64;
    loop {
        let read = connection.read(&mut buffer).await?;
        if read == 0 {
            return Ok(Got { began, first_byte, end: began.elapsed(), bytes });
        }
        bytes += read as u64;
    }
}
