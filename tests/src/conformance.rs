//! The public conformance suite for HTTP caches, http-tests/cache-tests, run against a real sun.
//!
//! ```text
//!   suite's client (node) --> sun, with a site in policy rfc --> suite's own content server (node)
//!        |
//!     outcomes --judge--> verdicts --compare--> baseline: what passed must pass
//! ```
//!
//! Two cuts of the suite are run: the npm package that `tests/setup` installs, whose verdicts are committed
//! (`tests/conformance.baseline`), and any checkout, by `tests/conformance --suite`.

mod baseline;
mod verdict;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, bail};

use crate::poll;
use crate::topology::HTTP_PORT;
use crate::world::World;

pub use baseline::{Baseline, Comparison};
pub use verdict::{Judged, Outcome, Tested, Verdict, judge, score};

/// Where the suite's code lies.
#[derive(Clone, Debug)]
pub struct Suite {
    folder: PathBuf,
}

impl Suite {
    /// A checkout.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn at(folder: &Path) -> anyhow::Result<Self> {
        let folder = folder.canonicalize().with_context(|| folder.display().to_string())?;
        let suite = Self { folder };
        if !suite.folder.join("tests/index.mjs").is_file() || !suite.server().is_file() {
            bail!("{}: no checkout of http-tests/cache-tests", suite.folder.display());
        }
        Ok(suite)
    }

    /// The npm package, where `tests/setup` has put it.
    ///
    /// # Errors
    ///
    /// When it is not there.
    pub fn package() -> anyhow::Result<Self> {
        let folder = crate::process::target_folder().join("cache-tests/node_modules/http-cache-tests");
        Self::at(&folder).context("the conformance suite is not installed: run tests/setup")
    }

    /// The content server's program: where the package has it, or the repository since.
    fn server(&self) -> PathBuf {
        let since = self.folder.join("test-engine/server/server.mjs");
        if since.is_file() { since } else { self.folder.join("server/server.mjs") }
    }
}

/// The suite's content server and a sun before it.
#[derive(Debug)]
pub struct Bench {
    suite: Suite,
    origin: Child,
    /// Where the sun listens: the site's host is its address.
    base: String,
    world: World,
    _sun: crate::process::Daemon,
}

impl Bench {
    /// Starts both and waits for them.
    ///
    /// # Errors
    ///
    /// When node does not start.
    pub async fn start(suite: Suite) -> anyhow::Result<Self> {
        let mut world = World::new(&[SUN]);
        let port = free_port()?;
        let origin = Command::new("node")
            .arg("--no-warnings")
            .arg(suite.server())
            .current_dir(&suite.folder)
            .env("npm_config_protocol", "http")
            .env("npm_config_port", port.to_string())
            .env("npm_config_pidfile", world.path("origin.pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(world.path(ORIGIN_LOG))?)
            .spawn()
            .context("node: run tests/setup")?;
        let address = world.server(SUN).address;
        // Content server 1 is 127.0.0.1: without a path prefix, so that every URL is the site's own.
        world.topology.content_url = format!("http://127.0.0.{{number}}:{port}");
        world.topology.classes = format!("[[site]]\nhost = \"{address}\"\ncontent_server = 1\n");
        world.write_topology(&world.topology);
        let sun = world.start_with(SUN, |settings| settings.log_level = "warn".to_owned()).await;
        poll::until_true("the suite's content server", || async move {
            tokio::net::TcpStream::connect((IpAddr::from(Ipv4Addr::LOCALHOST), port)).await.is_ok()
        })
        .await;
        Ok(Self { suite, origin, base: format!("http://{address}:{HTTP_PORT}"), world, _sun: sun })
    }

    /// Waits until the sun asks the suite's content server again: tests that make that server close every connection open
    /// its breaker, and while it is open, for a second, all others fail within milliseconds.
    async fn settle(&self) {
        let client = self.world.client();
        let asked = AtomicU32::new(0);
        poll::until_true("an answer of the suite's content server", || async {
            // Each a file that nobody has asked for, and that is not there.
            let url = format!("{}/settled-{}", self.base, asked.fetch_add(1, Ordering::Relaxed));
            client.get(&url).await.is_ok_and(|answer| answer.status < 500)
        })
        .await;
    }

    /// Runs all tests, or those with these ids, and returns what each came to.
    ///
    /// # Errors
    ///
    /// When the suite itself fails.
    pub async fn run(&self, ids: &BTreeSet<String>) -> anyhow::Result<Vec<Tested>> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance.mjs");
        let (output, errors) = (self.world.path("outcomes.json"), self.world.path("suite.log"));
        let mut command = Command::new("node");
        command.arg("--no-warnings").arg(script).arg(&self.suite.folder).arg(&self.base).args(ids);
        command.stdin(Stdio::null()).stdout(std::fs::File::create(&output)?).stderr(std::fs::File::create(&errors)?);
        let status = tokio::task::spawn_blocking(move || command.status()).await??;
        let text = std::fs::read_to_string(&output)?;
        if !status.success() {
            bail!("the suite ended with {status}: {}", std::fs::read_to_string(&errors)?);
        }
        verdict::read(&text).with_context(|| format!("the suite's outcomes: {text:.200}"))
    }
}

impl Bench {
    /// How the suite's content server ended and what it said, if it did not live to the end: then nothing after that is the
    /// sun's failure.
    pub fn origin_ended(&mut self) -> Option<String> {
        let status = self.origin.try_wait().ok().flatten()?;
        let said = std::fs::read_to_string(self.world.path(ORIGIN_LOG)).unwrap_or_default();
        Some(format!("{status}: {said}"))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.origin.kill();
        let _ = self.origin.wait();
    }
}

/// Runs the suite and, up to [`RETRIES`] times, those tests again that were to pass by the baseline and did not: some
/// count seconds, and the machine may have been busy.
///
/// # Errors
///
/// As [`Bench::run`].
pub async fn run_against(bench: &Bench, baseline: &Baseline) -> anyhow::Result<Vec<Judged>> {
    let mut tested = bench.run(&BTreeSet::new()).await?;
    for _ in 0..RETRIES {
        let fallen: BTreeSet<String> = baseline.compare(&judge(&tested)).fallen.into_iter().collect();
        if fallen.is_empty() {
            break;
        }
        bench.settle().await;
        for again in bench.run(&verdict::with_dependencies(&fallen, &tested)).await? {
            let known = tested.iter_mut().find(|known| known.id == again.id);
            // One that passed once passes: what is looked for is what never does.
            if let Some(known) = known.filter(|known| known.outcome != Outcome::Passed) {
                *known = again;
            }
        }
    }
    Ok(judge(&tested))
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?.local_addr()?.port())
}

const SUN: &str = "sun1-1-1";
/// What the suite's content server says.
const ORIGIN_LOG: &str = "origin.log";
/// Second tries of what failed and should not have.
const RETRIES: usize = 2;
