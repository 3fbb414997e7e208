//! Machines on which systemd runs, with the units that are shipped as a package puts them: namespaces of this kernel, `/usr` of this
//! machine, and an `/etc` of the test's own (`boot.sh`).
//!
//! Who is root there is root of the host. So nobody there has the capabilities of [`NEVER`], what is the whole kernel's is only to
//! be read, and nothing is started that the test does not start. A machine ends with its test, also when that is killed.
//!
//! It takes root, cgroup version 2 (beside version 1 will do) and overlayfs. Where that is not so, [`lacking`] says why.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::lab::network::Machine;
use crate::poll;
use crate::process::{Done, binary};

mod owned;

use owned::{Owned, abandoned};

/// A machine whose first process is systemd. It goes down at once when dropped.
#[derive(Debug)]
pub struct Booted {
    kept: Kept,
    /// Its first process, as this machine counts.
    init: String,
    control_group: Owned,
}

/// A folder for a machine's tree, removed when dropped; by the next test if this one is killed.
#[derive(Debug)]
pub struct Tree(Owned);

impl Tree {
    /// An empty one.
    ///
    /// # Panics
    ///
    /// When the operating system refuses.
    #[must_use]
    pub fn new() -> Self {
        Self(Owned::make(&std::env::temp_dir()))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0.path);
    }
}

/// Why systemd cannot be booted here.
#[must_use]
pub fn lacking() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it takes root".to_owned());
    }
    for program in
        [SYSTEMD, "/usr/bin/unshare", "/usr/bin/setpriv", "/usr/bin/nsenter", "/usr/sbin/bird", "/usr/sbin/nft"]
    {
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
        sweep();
        let control_group = Owned::make(&control_groups().expect("cgroup version 2"));
        let script = tree.join("boot.sh");
        crate::files::write(&script, include_str!("boot.sh"));
        let programs = binary("sun");
        let mut command = Command::new("/usr/bin/setpriv");
        command.args(["--pdeathsig", "KILL", "/bin/sh", "-c", ENTER, "sh"]).arg(std::process::id().to_string());
        command.arg(&control_group.path).arg("/bin/bash").arg(&script).arg(tree);
        command.arg(programs.parent().expect("a folder")).args([name, NEVER]).stdin(Stdio::null());
        let mut booted = Self { kept: Kept::start(machine.clone(), command), init: String::new(), control_group };
        let children = format!("/proc/{0}/task/{0}/children", booted.kept.process);
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

    /// The control group of all of it.
    #[must_use]
    pub fn control_group(&self) -> &Path {
        &self.control_group.path
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
        command.args(["setpriv", "--bounding-set", NEVER, "timeout", RUN_S]).args(words).stdin(Stdio::null());
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
        self.kept.end();
        end(&self.control_group.path);
    }
}

/// A process that the kernel kills when the thread that started it ends, and the thread, which does nothing else.
#[derive(Debug)]
struct Kept {
    process: u32,
    /// Dropped when the process is to end.
    stays: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Kept {
    fn start(machine: Machine, mut command: Command) -> Self {
        let (stays, until) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            machine.enter();
            let mut process = command.spawn().expect("setpriv starts");
            let _ = tell.send(process.id());
            let _ = until.recv();
            let _ = process.kill();
            let _ = process.wait();
        });
        Self { process: told.recv().expect("the thread says why not"), stays: Some(stays), thread: Some(thread) }
    }

    fn end(&mut self) {
        drop(self.stays.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn to_its_end(mut command: Command) -> Done {
    let output = command.output().expect("nsenter runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Done { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Ends the machines of tests that were killed, and removes their folders. Those of tests that run, here or in another container,
/// stay.
pub fn sweep() {
    for group in control_groups().iter().flat_map(|groups| abandoned(groups)) {
        end(&group.path);
    }
    for folder in abandoned(&std::env::temp_dir()) {
        let _ = std::fs::remove_dir_all(&folder.path);
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

/// Enters a control group, then namespaces of its own, unless the test has ended before the kernel knew what to do then.
const ENTER: &str = "[ \"$PPID\" = \"$1\" ] && echo $$ >\"$2/cgroup.procs\" && shift 2 && \
    exec /usr/bin/unshare --mount --uts --ipc --cgroup --pid --fork --kill-child \"$@\"";

/// Capabilities that nobody in a machine has, for `setpriv`: systemd can do without, and they reach the host.
pub const NEVER: &str = "-sys_module,-sys_rawio,-sys_boot,-sys_time,-mknod,-sys_pacct,-sys_tty_config,-syslog,\
    -wake_alarm,-block_suspend,-mac_admin,-mac_override,-audit_control,-linux_immutable";

/// What is run in a machine ends after so many seconds.
const RUN_S: &str = "60";

/// A control group is looked at so often until it is empty.
const GROUP_TRIES: usize = 200;

/// From one look to the next.
const GROUP_PAUSE: Duration = Duration::from_millis(10);
