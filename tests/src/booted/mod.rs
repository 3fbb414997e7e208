//! Machines on which systemd runs, with the units that are shipped as a package puts them: namespaces of this kernel, `/usr` of this
//! machine, and an `/etc` of the test's own (`boot.sh`).
//!
//! It takes root, cgroup version 2 (beside version 1 will do) and overlayfs. Where that is not so, [`lacking`] says why.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::lab::network::Machine;
use crate::poll;
use crate::process::{Done, binary};

/// A machine whose first process is systemd. It goes down at once when dropped.
#[derive(Debug)]
pub struct Booted {
    boot: Child,
    /// Its first process, as this machine counts.
    init: String,
    control_group: PathBuf,
}

/// Why systemd cannot be booted here.
#[must_use]
pub fn lacking() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it takes root".to_owned());
    }
    for program in [SYSTEMD, "/usr/bin/unshare", "/usr/bin/nsenter", "/usr/sbin/bird", "/usr/sbin/nft"] {
        if !Path::new(program).is_file() {
            return Some(format!("there is no {program}; tests/setup installs it"));
        }
    }
    let kinds = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !kinds.lines().any(|line| line.ends_with("\toverlay")) {
        return Some("this kernel has no overlayfs".to_owned());
    }
    if control_groups().is_none() {
        return Some("cgroup version 2 is mounted nowhere".to_owned());
    }
    None
}

/// Writes the units and what belongs to them below `tree`, as a package would put them below `/`.
///
/// # Panics
///
/// When that fails.
pub fn install_units(tree: &Path) {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd");
    let put = |name: &str, place: &str| {
        let place = tree.join(place);
        std::fs::create_dir_all(&place).expect("a folder");
        let file = Path::new(name).file_name().expect("a file's name");
        std::fs::copy(shipped.join(name), place.join(file)).unwrap_or_else(|error| panic!("{name}: {error}"));
    };
    for entry in std::fs::read_dir(&shipped).expect("the units").flatten() {
        let name = entry.file_name().into_string().expect("a name");
        if name.ends_with(".service") || name.ends_with(".socket") {
            put(&name, "usr/lib/systemd/system");
        }
    }
    put("unwatched", "usr/lib/sun");
    put("sun-check.service.d/bird.conf", "etc/systemd/system/sun-check.service.d");
    std::fs::create_dir_all(tree.join("usr/lib/sysusers.d")).expect("a folder");
    std::fs::copy(shipped.join("sun.sysusers"), tree.join("usr/lib/sysusers.d/sun.conf")).expect("the users");
}

impl Booted {
    /// Boots a machine whose `/etc` is `tree/etc` and whose `/usr` is `tree/usr` laid over this machine's, and waits until
    /// systemd has nothing left to start.
    ///
    /// # Panics
    ///
    /// When it does not boot; see [`lacking`].
    pub async fn boot(machine: &Machine, name: &str, tree: &Path) -> Self {
        if let Some(lacks) = lacking() {
            panic!("systemd cannot be booted here: {lacks}");
        }
        let groups = control_groups().expect("cgroup version 2");
        sweep(&groups);
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let control_group = groups.join(format!("{PREFIX}{process}-{number}"));
        std::fs::create_dir_all(&control_group).expect("a control group");
        let script = tree.join("boot.sh");
        crate::files::write(&script, include_str!("boot.sh"));
        let programs = binary("sun");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", ENTER, "sh"]).arg(&control_group).arg("/bin/bash").arg(&script).arg(tree);
        command.arg(programs.parent().expect("a folder")).arg(name).stdin(Stdio::null());
        let boot = machine.inside(|| command.spawn()).expect("sh starts");
        let mut booted = Self { boot, init: String::new(), control_group };
        let children = format!("/proc/{0}/task/{0}/children", booted.boot.id());
        let init = || async {
            let child = std::fs::read_to_string(&children).ok()?.trim().to_owned();
            let program = std::fs::read_link(format!("/proc/{child}/exe")).ok()?;
            program.ends_with("systemd").then_some(child)
        };
        booted.init = poll::until("systemd is the first process", init).await.0;
        poll::until_true("it has started", || async {
            ["running", "degraded"].contains(&booted.run(&["systemctl", "is-system-running"]).out.trim())
        })
        .await;
        booted
    }

    /// Runs a program there, as root, to its end; for a minute at most.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[must_use]
    pub fn run(&self, words: &[&str]) -> Done {
        to_its_end(self.command(words))
    }

    /// The same, while this thread goes on.
    #[must_use]
    pub fn start(&self, words: &[&str]) -> JoinHandle<Done> {
        let command = self.command(words);
        std::thread::spawn(|| to_its_end(command))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/nsenter");
        command.args(["--target", &self.init, "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"]);
        command.args(["timeout", RUN_S]).args(words).stdin(Stdio::null());
        command
    }

    /// Runs a program there that must succeed; what it printed.
    ///
    /// # Panics
    ///
    /// When it fails.
    #[track_caller]
    pub fn must(&self, words: &[&str]) -> String {
        let done = self.run(words);
        assert_eq!(done.status, Some(0), "{words:?}: {}{}", done.out, done.err);
        done.out
    }

    /// A property of a unit, as `systemctl show` has it.
    #[track_caller]
    #[must_use]
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.must(&["systemctl", "show", "--value", "--property", name, unit]).trim().to_owned()
    }

    /// Waits until a unit's property has this value.
    ///
    /// # Panics
    ///
    /// After [`poll::DEADLINE`], with the unit's journal.
    pub async fn until(&self, unit: &str, name: &str, value: &str) {
        let what = format!("{name} of {unit} is {value}");
        let words = ["systemctl", "show", "--value", "--property", name, unit];
        // One that is reloading its units answers nobody.
        poll::until_true(&what, || async { self.run(&words).out.trim() == value }).await;
    }

    /// What a unit logged, and systemd about it.
    #[must_use]
    pub fn journal(&self, unit: &str) -> String {
        self.run(&["journalctl", "--no-pager", "--output=cat", "--unit", unit]).out
    }

    /// A line of the `status` of a unit's main process, as `proc(5)` has it.
    ///
    /// # Panics
    ///
    /// When there is no such process.
    #[track_caller]
    #[must_use]
    pub fn status_of(&self, unit: &str, key: &str) -> String {
        let file = format!("/proc/{}/status", self.property(unit, "MainPID"));
        let status = self.must(&["cat", &file]);
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {key} in {file}")).trim().to_owned()
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.init.is_empty() {
            let journal = self.run(&["journalctl", "--no-pager", "--lines=150"]);
            eprintln!("---- the last of its journal ----\n{}", journal.out);
        }
        let _ = self.boot.kill();
        let _ = self.boot.wait();
        end(&self.control_group);
    }
}

fn to_its_end(mut command: Command) -> Done {
    let output = command.output().expect("nsenter runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Done { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Ends the machines of processes that were killed.
fn sweep(groups: &Path) {
    for entry in std::fs::read_dir(groups).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            end(&entry.path());
        }
    }
}

/// Ends what runs in a control group, and removes it.
fn end(group: &Path) {
    let _ = std::fs::write(group.join("cgroup.kill"), "1");
    for _ in 0..GROUP_TRIES {
        remove(group);
        if !group.exists() {
            return;
        }
        std::thread::sleep(GROUP_PAUSE);
    }
}

/// Removes a control group with those below it, as far as they are empty.
fn remove(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(group);
}

/// Where cgroup version 2 is.
fn control_groups() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mut words = mounts.lines().map(|line| line.split(' '));
    words.find_map(|mut words| {
        let place = words.nth(1)?;
        (words.next()? == "cgroup2").then(|| PathBuf::from(place))
    })
}

const SYSTEMD: &str = "/usr/lib/systemd/systemd";

/// Enters a control group, then namespaces of its own.
const ENTER: &str = "echo $$ >\"$1/cgroup.procs\" && shift && \
    exec /usr/bin/unshare --mount --uts --ipc --cgroup --pid --fork --kill-child \"$@\"";

/// What is run in a machine ends after so many seconds.
const RUN_S: &str = "60";

/// The number of the next machine of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Of control groups; then come the process that made it and the machine's number.
const PREFIX: &str = "sun-tests-";

/// A control group is looked at so often until it is empty.
const GROUP_TRIES: usize = 200;

/// From one look to the next.
const GROUP_PAUSE: Duration = Duration::from_millis(10);
