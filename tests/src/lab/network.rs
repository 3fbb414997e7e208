//! Network namespaces: machines with addresses, links and routes of their own, on this one.
//!
//! A thread enters a namespace and what it opens or starts is there; nothing else of the process is. Namespaces are named
//! after the process that made them, and those of processes that are no more are removed at the next start.
//!
//! It takes root, or a user namespace in which one is root (`unshare --user --map-root-user --net --mount`).

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A set of namespaces, removed when dropped.
#[derive(Debug)]
pub struct Network {
    prefix: String,
    machines: Vec<Machine>,
}

/// One namespace.
#[derive(Clone, Debug)]
pub struct Machine {
    name: String,
}

impl Network {
    /// Without machines yet.
    #[must_use]
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        sweep();
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self { prefix: format!("{PREFIX}{process}-{number}"), machines: Vec::new() }
    }

    /// One more machine, with a loopback device.
    ///
    /// # Panics
    ///
    /// When the kernel refuses: this takes root.
    pub fn machine(&mut self, name: &str) -> Machine {
        let machine = Machine { name: format!("{}-{name}", self.prefix) };
        ip(&["netns", "add", &machine.name]);
        self.machines.push(machine.clone());
        machine.ip("link set lo up");
        // Its addresses are its own: none waits a second to find that out.
        machine.set("net/ipv6/conf/default/accept_dad", "0");
        machine
    }

    /// A cable between two machines, with the name of the device at each end.
    pub fn link(&self, one: (&Machine, &str), other: (&Machine, &str)) {
        let ((one, at_one), (other, at_other)) = (one, other);
        one.ip(&format!("link add {at_one} type veth peer name {at_other} netns {}", other.name));
        one.ip(&format!("link set {at_one} up"));
        other.ip(&format!("link set {at_other} up"));
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for machine in &self.machines {
            remove(&machine.name);
        }
    }
}

impl Machine {
    /// `ip` with these words, there.
    ///
    /// # Panics
    ///
    /// When it refuses.
    pub fn ip(&self, words: &str) -> String {
        let words: Vec<&str> = ["-n", &self.name].into_iter().chain(words.split(' ')).collect();
        ip(&words)
    }

    /// Sets `net/ipv4/ip_forward` and the like.
    ///
    /// # Panics
    ///
    /// When there is no such key.
    pub fn set(&self, key: &str, value: &str) {
        let file = format!("/proc/sys/{key}");
        self.inside(|| std::fs::write(&file, value)).unwrap_or_else(|error| panic!("{file}: {error}"));
    }

    /// Runs a shell script there, as root.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn shell(&self, script: &str) {
        let output = self.inside(|| Command::new("sh").arg("-c").arg(script).stdin(Stdio::null()).output());
        let output = output.expect("sh runs");
        assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Does something on a thread that is there; processes that it starts, and threads, stay there.
    ///
    /// # Panics
    ///
    /// When the namespace cannot be entered, or `action` panics.
    pub fn inside<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                action()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves this thread there for good.
    ///
    /// # Panics
    ///
    /// When that is not allowed.
    pub fn enter(&self) {
        let file = format!("/run/netns/{}", self.name);
        let namespace = File::open(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("a lab takes root");
    }
}

/// Removes what processes left that were killed.
fn sweep() {
    let Ok(folder) = std::fs::read_dir("/run/netns") else { return };
    for entry in folder.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if process.is_some_and(|process| !std::path::Path::new(&format!("/proc/{process}")).exists()) {
            remove(&name);
        }
    }
}

fn remove(name: &str) {
    let _ = Command::new("ip").args(["netns", "delete", name]).stderr(Stdio::null()).status();
}

fn ip(words: &[&str]) -> String {
    let output = Command::new("ip").args(words).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("ip: {error}; tests/setup installs it"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {said}", words.join(" "));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const PREFIX: &str = "sunlab";
