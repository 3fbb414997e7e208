//! nginx as a caching proxy of the same content server, set up to be fast.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tests::world::World;

/// nginx with one worker; ended when dropped.
#[derive(Debug)]
pub(crate) struct Nginx {
    master: Child,
    worker: u32,
    address: Ipv4Addr,
    cache: PathBuf,
    _cache: tempfile::TempDir,
}

impl Nginx {
    /// Starts it and waits until its worker runs.
    pub(crate) fn start(world: &World) -> anyhow::Result<Self> {
        Self::start_with(world, 3, "")
    }

    /// As [`Nginx::start`] on another of the world's addresses, with more directives for the location.
    pub(crate) fn start_with(world: &World, host: u8, more: &str) -> anyhow::Result<Self> {
        let address = world.address(host);
        // tmpfs, where there is one: sendfile from memory is the best nginx can do.
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = tempfile::Builder::new().prefix("sun-bench-").tempdir_in(place)?;
        let cache = folder.path().join("cache");
        let config = world.path(&format!("nginx{host}.conf"));
        tests::files::write(&config, &text(world, address, &cache, more));
        let master = Command::new("nginx")
            .arg("-p")
            .arg(world.folder())
            .arg("-c")
            .arg(&config)
            .arg("-e")
            .arg(world.path("nginx-error.log"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("nginx")?;
        let mut nginx = Self { worker: 0, master, address, cache, _cache: folder };
        nginx.worker = nginx.find_worker().with_context(|| {
            format!(
                "nginx did not start: {}",
                std::fs::read_to_string(world.path("nginx-error.log")).unwrap_or_default()
            )
        })?;
        Ok(nginx)
    }

    /// The process that serves.
    pub(crate) const fn worker(&self) -> u32 {
        self.worker
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Where its cache is.
    pub(crate) fn cache_folder(&self) -> std::path::Display<'_> {
        self.cache.display()
    }

    /// The master's child that listens: helpers that manage the cache come and go.
    fn find_worker(&mut self) -> anyhow::Result<u32> {
        let began = Instant::now();
        loop {
            ensure!(self.master.try_wait()?.is_none(), "it ended");
            ensure!(began.elapsed() < Duration::from_secs(10), "it has no worker");
            let master = self.master.id();
            let children =
                std::fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
            for child in children.split_whitespace() {
                let title = std::fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
                if title.contains("worker process") && std::net::TcpStream::connect((self.address, 8080)).is_ok() {
                    return Ok(child.parse()?);
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The quick way out is SIGTERM to the master, which ends its workers; a killed master would leave them.
        if let Some(id) = i32::try_from(self.master.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        let _ = self.master.wait();
    }
}

/// `tcp_nopush` stays off: with it, bodies of 100 KB wait for delayed acknowledgements on loopback, and nginx answers
/// 1,600 requests per second instead of 20,000.
fn text(world: &World, address: Ipv4Addr, cache: &Path, more: &str) -> String {
    let (chain, key) = (world.certificate.chain.display(), world.certificate.key.display());
    let (cache, origin) = (cache.display(), world.origin.address());
    format!(
        "user root;
daemon off;
worker_processes 1;
pid {cache}.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush off;
    tcp_nodelay on;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    open_file_cache max=10000 inactive=600s;
    open_file_cache_valid 600s;
    client_body_temp_path {cache}-body;
    proxy_temp_path {cache}-temp;
    fastcgi_temp_path {cache}-fastcgi;
    uwsgi_temp_path {cache}-uwsgi;
    scgi_temp_path {cache}-scgi;
    proxy_cache_path {cache} keys_zone=files:10m max_size=2g inactive=1d use_temp_path=off;
    ssl_certificate {chain};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    http2_max_concurrent_streams 256;
    server {{
        listen {address}:8080;
        listen {address}:8443 ssl http2;
        location ~ ^/c([0-9]+)/(.*)$ {{
            proxy_pass http://{origin}/cs$1/$2;
            proxy_cache files;
            proxy_cache_valid 200 1d;
            proxy_cache_lock on;
            {more}
        }}
    }}
}}
"
    )
}
