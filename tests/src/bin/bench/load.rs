//! The clients: wrk for HTTP/1.1, h2load for HTTP/2, on a core of their own.

use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::server::Server;

/// What is spoken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Protocol {
    Http1,
    Http1Tls,
    Http2Tls,
}

/// What one run gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    pub(crate) cpu_us: f64,
}

impl Protocol {
    pub(crate) const ALL: [Self; 3] = [Self::Http1, Self::Http1Tls, Self::Http2Tls];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP",
            Self::Http1Tls => "HTTPS",
            Self::Http2Tls => "HTTPS h2",
        }
    }

    fn url(self, server: &Server, file: &str) -> String {
        match self {
            Self::Http1 => format!("http://{}:8080/{file}", server.address),
            Self::Http1Tls | Self::Http2Tls => format!("https://{}:8443/{file}", server.address),
        }
    }
}

/// How the clients ask.
pub(crate) fn describe() -> String {
    format!(
        "client: wrk, {WRK_CONNECTIONS} connections, and h2load, {H2_CONNECTIONS} connections of {H2_STREAMS} streams; \
         TLS 1.3, one certificate (ECDSA P-256)"
    )
}

/// Loads a server with requests of one file for some seconds.
pub(crate) fn measure(protocol: Protocol, server: &Server, file: &str, seconds: u64) -> anyhow::Result<Measured> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &(cores - 1).to_string()]);
    let seconds_text = seconds.to_string();
    match protocol {
        Protocol::Http1 | Protocol::Http1Tls => {
            command.args(["wrk", "--threads", "1", "--connections", WRK_CONNECTIONS, "--duration", &seconds_text]);
        }
        Protocol::Http2Tls => {
            command.args(["h2load", "--threads", "1", "--clients", H2_CONNECTIONS, "--max-concurrent-streams"]);
            command.args([H2_STREAMS, "--duration", &seconds_text]);
        }
    }
    let before = server.cpu_us()?;
    let output = command.arg(protocol.url(server, file)).output().context("taskset")?;
    let cpu_us = server.cpu_us()? - before;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{}: {text}{}", server.name, String::from_utf8_lossy(&output.stderr));
    let requests = match protocol {
        Protocol::Http1 | Protocol::Http1Tls => wrk_requests(&text),
        Protocol::Http2Tls => h2load_requests(&text),
    };
    let requests = requests.with_context(|| format!("{} over {}: {text}", server.name, protocol.name()))?;
    Ok(Measured { per_second: requests / seconds as f64, cpu_us: cpu_us / requests })
}

/// `  12345 requests in 1.10s, 12.34MB read`, if none failed.
fn wrk_requests(text: &str) -> anyhow::Result<f64> {
    for line in text.lines() {
        if line.contains("Non-2xx") || (line.contains("Socket errors") && !line.contains("connect 0, read 0, write 0"))
        {
            bail!("{}", line.trim());
        }
    }
    let line = text.lines().find(|line| line.contains(" requests in ")).context("no count of requests")?;
    positive(line.trim().split(' ').next())
}

/// `requests: 12345 total, 12345 started, 12345 done, 12345 succeeded, 0 failed, 0 errored, 0 timeout`.
fn h2load_requests(text: &str) -> anyhow::Result<f64> {
    let line = text.lines().find(|line| line.starts_with("requests: ")).context("no count of requests")?;
    let count = |what: &str| line.split(", ").find_map(|part| part.strip_suffix(what));
    ensure!(count(" failed") == Some("0") && count(" errored") == Some("0"), "{line}");
    positive(count(" succeeded"))
}

fn positive(count: Option<&str>) -> anyhow::Result<f64> {
    let count: f64 = count.context("no count")?.trim().parse()?;
    ensure!(count > 0.0, "no request was answered");
    Ok(count)
}

const WRK_CONNECTIONS: &str = "32";
const H2_CONNECTIONS: &str = "8";
const H2_STREAMS: &str = "25";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_and_failures_are_not_counted() {
        let wrk = "Running 1s test\n  85421 requests in 1.10s, 99.58MB read\nRequests/sec:  77670.55\n";
        assert_eq!(wrk_requests(wrk).unwrap(), 85_421.0);
        assert!(wrk_requests(&format!("{wrk}  Non-2xx or 3xx responses: 7\n")).is_err());
        assert!(wrk_requests(&format!("{wrk}  Socket errors: connect 0, read 3, write 0, timeout 0\n")).is_err());
        let h2load = "requests: 500 total, 500 started, 480 done, 480 succeeded, 0 failed, 0 errored, 0 timeout";
        assert_eq!(h2load_requests(h2load).unwrap(), 480.0);
        assert!(h2load_requests(&h2load.replace("0 failed", "1 failed")).is_err());
    }
}
