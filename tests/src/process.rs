//! Real binaries: found, started, watched until ready, ended or killed.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};

use crate::poll;

/// A program of the workspace: `sun`, `popularity-api`, `cache-daemon`, `geo`, `sunctl`.
///
/// Looked for in `$SUN_BIN_DIR`, else beside the test's own build (`target/debug`).
///
/// # Panics
///
/// When it is not there, saying how to build it.
#[must_use]
#[track_caller]
pub fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("SUN_BIN_DIR").map_or_else(profile_folder, PathBuf::from);
    let binary = folder.join(name);
    assert!(
        binary.is_file(),
        "there is no {}: build the programs first (cargo build --workspace), use tests/run, or set SUN_BIN_DIR",
        binary.display()
    );
    binary
}

/// `target/debug` of `target/debug/deps/end_to_end-0123`.
fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let folder = test.parent().expect("a folder");
    if folder.ends_with("deps") { folder.parent().expect("a profile's folder").to_owned() } else { folder.to_owned() }
}

/// The workspace's `target` folder, where artefacts to look at are kept.
///
/// # Panics
///
/// When this test was not built by cargo.
#[must_use]
pub fn target_folder() -> PathBuf {
    profile_folder().parent().expect("target").to_owned()
}

/// A daemon that runs; killed when dropped, its log's end printed when the test fails.
#[derive(Debug)]
pub struct Daemon {
    program: String,
    name: String,
    config: PathBuf,
    admin: SocketAddr,
    log: PathBuf,
    child: Child,
    /// The process that took over, after [`Daemon::upgrade`].
    successor: Option<Pid>,
}

impl Daemon {
    /// Starts `program --config FILE` and waits until it is ready. The program may have a command, `geo serve`.
    ///
    /// # Panics
    ///
    /// When it ends before, or takes longer than [`poll::DEADLINE`].
    #[track_caller]
    pub fn start(program: &str, name: &str, config: &Path, admin: SocketAddr) -> impl Future<Output = Self> + use<> {
        let log = config.with_extension("log");
        let child = spawn(program, config, &log);
        let (program, name, config) = (program.to_owned(), name.to_owned(), config.to_owned());
        let mut daemon = Self { program, name, config, admin, log, child, successor: None };
        async move {
            daemon.until_ready().await;
            daemon
        }
    }

    /// Waits for 200 of `/readyz`.
    ///
    /// # Panics
    ///
    /// As [`Daemon::start`].
    pub async fn until_ready(&mut self) {
        let (name, admin, child) = (&self.name, self.admin, &mut self.child);
        poll::until_true(&format!("{name} ready at {admin}"), || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("{name} ended before it was ready: {status}");
            }
            async move { admin_get(admin, "/readyz").await.is_some_and(|(status, _)| status == 200) }
        })
        .await;
    }

    /// What `/metrics` says.
    ///
    /// # Panics
    ///
    /// When the admin port does not answer.
    pub async fn metrics(&self) -> crate::metrics::Metrics {
        let (status, text) = admin_get(self.admin, "/metrics").await.expect("the admin port answers");
        assert_eq!(status, 200, "/metrics of {}", self.name);
        crate::metrics::Metrics::parse(&text)
    }

    /// Its admin port.
    #[must_use]
    pub const fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its process id.
    ///
    /// # Panics
    ///
    /// When it has none.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.pid().as_raw_nonzero().get().cast_unsigned()
    }

    fn pid(&self) -> Pid {
        let child = || i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        self.successor.unwrap_or_else(child)
    }

    /// Asks it to start a new process in its place: SIGUSR2.
    ///
    /// # Panics
    ///
    /// When it is no more.
    pub fn begin_upgrade(&self) {
        kill_process(self.pid(), Signal::USR2).expect("it can be signalled");
    }

    /// Has a new process take over, waits until it serves, and says which process it took over from. That one may still
    /// be ending.
    ///
    /// # Panics
    ///
    /// When that does not happen within [`poll::DEADLINE`].
    pub async fn upgrade(&mut self) -> Pid {
        let (before, count) = (self.pid(), self.successors().len());
        self.begin_upgrade();
        let (successor, _) = poll::until("a new process", || async { self.successors().get(count).copied() }).await;
        self.successor = Some(successor);
        before
    }

    /// The processes that took over, by the log.
    fn successors(&self) -> Vec<Pid> {
        let log = self.log();
        let told = log.lines().filter(|line| line.contains("handed over to a new process"));
        let number = |line: &str| line.rsplit_once("successor=")?.1.split(' ').next()?.parse().ok();
        told.filter_map(number).filter_map(Pid::from_raw).collect()
    }

    /// Whether a process of this daemon, [`Daemon::upgrade`]'s, is still there.
    #[must_use]
    pub fn runs(&self, process: Pid) -> bool {
        let config = self.config.display().to_string();
        // A process that has ended and is not waited for has no command line.
        let line = std::fs::read(format!("/proc/{}/cmdline", process.as_raw_nonzero())).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&config)
    }

    /// kill -9, without waiting for anything but the kernel.
    ///
    /// # Panics
    ///
    /// When it is no more.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        let _ = self.child.wait();
    }

    /// Begins the drain: SIGTERM.
    ///
    /// # Panics
    ///
    /// When it is no more.
    pub fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).expect("it can be signalled");
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// After [`poll::DEADLINE`].
    pub async fn until_ended(&mut self) -> ExitStatus {
        let (name, child) = (&self.name, &mut self.child);
        let what = format!("the end of {name}");
        let ended = poll::until(&what, || {
            let status = child.try_wait().expect("its status");
            async move { status }
        });
        ended.await.0
    }

    /// Its config file.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Starts it again from the same config, after a kill or an end, and waits until it is ready.
    ///
    /// # Panics
    ///
    /// As [`Daemon::start`].
    pub async fn restart(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.child = spawn(&self.program, &self.config, &self.log);
        self.until_ready().await;
    }

    /// Everything it has logged, over all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(successor) = self.successor.filter(|successor| self.runs(*successor)) {
            let _ = kill_process(successor, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
            eprintln!("---- the last of {}'s log ----\n{}", self.name, last.join("\n"));
        }
    }
}

/// What a program that ends by itself did.
#[derive(Clone, Debug)]
pub struct Done {
    /// Exit status; none: ended by a signal.
    pub status: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs a program of the workspace to its end.
///
/// # Panics
///
/// When it cannot be started.
#[must_use]
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) -> Done {
    let binary = binary(program);
    let output = Command::new(&binary).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Done { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Starts a daemon with its log appended to a file.
#[track_caller]
fn spawn(program: &str, config: &Path, log: &Path) -> Child {
    let (program, subcommand) = program.split_once(' ').map_or((program, None), |(name, rest)| (name, Some(rest)));
    let binary = binary(program);
    let log = File::options().create(true).append(true).open(log).expect("a log file");
    let out = log.try_clone().expect("a second handle");
    let mut command = Command::new(&binary);
    command.args(subcommand).arg("--config").arg(config).stdin(Stdio::null()).stdout(out).stderr(log);
    command.spawn().unwrap_or_else(|error| panic!("{}: {error}", binary.display()))
}

/// `GET` of an admin port; none while nobody answers.
pub async fn admin_get(admin: SocketAddr, path: &str) -> Option<(u16, String)> {
    let exchange = async {
        let stream = tokio::net::TcpStream::connect(admin).await.ok()?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        let request = hyper::Request::get(path).header("host", "admin").body(Empty::<bytes::Bytes>::new()).ok()?;
        let response = sender.send_request(request).await.ok()?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::time::timeout(ADMIN_PATIENCE, exchange).await.ok().flatten()
}

/// An admin port that is slower than this is asked again.
const ADMIN_PATIENCE: Duration = Duration::from_secs(2);

/// Lines of a log that a failed test shows.
const LOG_LINES: usize = 40;
