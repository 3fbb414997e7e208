//! Who speaks BGP for a sun: BIRD, which the self-check drives, or ExaBGP, which starts the self-check. The router is a BIRD too.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::network::Machine;
use crate::poll;

/// Which program it is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Kind {
    /// BIRD 2.
    #[default]
    Bird,
    /// ExaBGP 4.
    Exabgp,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Bird, Self::Exabgp];

    /// As `--speaker` and the configs have it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Bird => "bird",
            Self::Exabgp => "exabgp",
        }
    }
}

/// One that runs; it ends when dropped.
#[derive(Debug)]
pub struct Speaker {
    kind: Kind,
    child: Child,
    control: PathBuf,
}

impl Speaker {
    /// Starts BIRD and waits until it answers.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub async fn bird(machine: &Machine, config: &Path) -> Self {
        let control = config.with_extension("ctl");
        let _ = std::fs::remove_file(&control);
        let mut command = Command::new("/usr/sbin/bird");
        command.arg("-f").arg("-c").arg(config).arg("-s").arg(&control).arg("-P").arg(config.with_extension("pid"));
        let bird = Self::start(Kind::Bird, machine, command, config);
        poll::until_true("BIRD answers", || async { bird.ask(&["show", "status"]).contains("Daemon is up") }).await;
        bird
    }

    /// Starts ExaBGP, which starts what its config says.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[must_use]
    pub fn exabgp(machine: &Machine, config: &Path) -> Self {
        let mut command = Command::new("exabgp");
        // It runs what it starts as `nobody` otherwise, who may not read the token.
        command.arg(config).env("exabgp.daemon.user", "root").env("exabgp.tcp.bind", "").env("exabgp.api.cli", "false");
        Self::start(Kind::Exabgp, machine, command, config)
    }

    fn start(kind: Kind, machine: &Machine, mut command: Command, config: &Path) -> Self {
        let mut log = config.as_os_str().to_owned();
        log.push(".log");
        let log = File::options().create(true).append(true).open(log).expect("a log file");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        let child = machine.inside(|| command.spawn()).expect("it starts; tests/setup installs it");
        Self { kind, child, control: config.with_extension("ctl") }
    }

    /// kill -9.
    ///
    /// # Panics
    ///
    /// When it is no more.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        let _ = self.child.wait();
    }

    /// An order to BIRD.
    ///
    /// # Panics
    ///
    /// When `birdc` is not there.
    #[must_use]
    pub fn ask(&self, words: &[&str]) -> String {
        let output = Command::new("/usr/sbin/birdc").arg("-s").arg(&self.control).args(words).output();
        String::from_utf8_lossy(&output.expect("birdc runs").stdout).into_owned()
    }

    /// ExaBGP ends what it started, if it is asked to end.
    fn end(&mut self) {
        let process = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        let _ = kill_process(process, Signal::TERM);
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        if self.kind == Kind::Exabgp && matches!(self.child.try_wait(), Ok(None)) {
            self.end();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// ExaBGP has so long to end by itself.
const PATIENCE: Duration = Duration::from_secs(3);
