//! A server under test: its process, pinned and warmed.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use tests::world::World;

use crate::FILES;

/// Who is measured.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    /// The process that serves.
    pub(crate) process: u32,
    /// It listens on the ports of every server of a test.
    pub(crate) address: Ipv4Addr,
}

impl Server {
    /// Gives it the first core, all threads; the client takes the last.
    pub(crate) fn pin(&self) -> anyhow::Result<()> {
        let mut command = Command::new("taskset");
        command.args(["--all-tasks", "--cpu-list", "--pid", "0", &self.process.to_string()]);
        let status = command.stdout(Stdio::null()).status().context("taskset")?;
        ensure!(status.success(), "{} could not be pinned to core 0", self.name);
        Ok(())
    }

    /// Has it fetch every file, and checks the bytes it serves then, over all protocols.
    pub(crate) async fn warm(&self, world: &World) -> anyhow::Result<()> {
        let client = world.client().name("bench.cdn.test", self.address.into());
        for (_, file, size) in FILES {
            for client in [client.clone(), client.clone().http2()] {
                for _ in 0..3 {
                    let answer = client.get(&format!("https://bench.cdn.test:8443/{file}")).await?;
                    world.check_whole(file, size, &answer);
                }
            }
            let answer = client.get(&format!("http://{}:8080/{file}", self.address)).await?;
            world.check_whole(file, size, &answer);
        }
        Ok(())
    }

    /// CPU time of all its threads so far, user and system, microseconds.
    pub(crate) fn cpu_us(&self) -> anyhow::Result<f64> {
        // proc(5): after the name in brackets, which may hold anything, utime and stime are fields 14 and 15.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process))
            .with_context(|| format!("{} is no more", self.name))?;
        let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks: f64 =
            fields.get(11).context("utime")?.parse::<f64>()? + fields.get(12).context("stime")?.parse::<f64>()?;
        Ok(ticks * US_PER_TICK)
    }
}

/// Linux tells user space of ticks of 1/100 s on every machine (`USER_HZ`).
const US_PER_TICK: f64 = 10_000.0;
