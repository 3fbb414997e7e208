//! A real Redis Cluster for tests: six nodes on loopback, three primaries with a replica each, from Debian's redis-server
//! (`tests/setup` installs it). Each node has a folder and an address of its own; ports are constants.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::addresses::Block;

/// Six nodes; killed when dropped.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Node>,
    options: Vec<String>,
    password: String,
    folder: tempfile::TempDir,
    _block: Block,
}

#[derive(Debug)]
struct Node {
    address: Ipv4Addr,
    folder: PathBuf,
    child: Option<Child>,
}

impl RedisCluster {
    /// Starts it, each node with these options beside its own, and waits until every slot is served and every primary has
    /// its replica.
    ///
    /// # Panics
    ///
    /// When redis-server is not there, or it is not ready within a minute.
    #[must_use]
    pub fn start(options: &[&str]) -> Self {
        let (block, folder) = (Block::claim(), tempfile::tempdir().expect("a folder"));
        let nodes = (1..=NODES).map(|host| Node {
            address: block.address(host),
            folder: folder.path().join(host.to_string()),
            child: None,
        });
        let password = options.iter().skip_while(|&&option| option != "--requirepass").nth(1);
        let password = password.map_or_else(String::new, |&password| password.to_owned());
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut cluster = Self { nodes: nodes.collect(), options, password, folder, _block: block };
        for node in 0..cluster.nodes.len() {
            std::fs::create_dir(&cluster.nodes[node].folder).expect("a folder");
            cluster.start_node(node);
        }
        let addresses = cluster.addresses();
        until("all nodes answer", || (0..addresses.len()).all(|node| cluster.ask(node, &["PING"]).trim() == "PONG"));
        let mut create = vec!["--cluster", "create"];
        create.extend(addresses.iter().map(String::as_str));
        create.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        let created = cluster.cli(&create);
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
        cluster.until_whole();
        cluster
    }

    /// All nodes, `address:port`.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("{}:{PORT}", node.address)).collect()
    }

    /// Starts a node that does not run, with what is in its folder.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn start_node(&mut self, node: usize) {
        let Node { address, folder, child } = &mut self.nodes[node];
        let address = address.to_string();
        let log = File::options().create(true).append(true).open(self.folder.path().join(format!("{node}.log")));
        let log = log.expect("a log");
        let (port, bus) = (PORT.to_string(), (PORT + 10_000).to_string());
        let mut command = Command::new("redis-server");
        for (option, value) in [
            ("bind", address.as_str()),
            ("bind-source-addr", &address),
            ("cluster-announce-ip", &address),
            ("port", &port),
            ("cluster-port", &bus),
            ("cluster-enabled", "yes"),
            ("cluster-node-timeout", "2000"),
            ("protected-mode", "no"),
            ("appendonly", "yes"),
            ("save", ""),
            ("repl-diskless-sync-delay", "0"),
        ] {
            command.arg(format!("--{option}")).arg(value);
        }
        command.args(&self.options).arg("--dir").arg(folder).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        *child = Some(command.spawn().expect("redis-server starts; tests/setup installs it"));
    }

    /// Ends a node at once, as a power switch does to its process.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn kill(&mut self, node: usize) {
        let mut child = self.nodes[node].child.take().expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    /// Stops a node's process for a while (`STOP`), or lets it go on (`CONT`).
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn signal(&self, node: usize, signal: &str) {
        let process = self.nodes[node].child.as_ref().expect("it runs").id();
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(process.to_string()).status();
        assert!(sent.expect("kill is there").success());
    }

    /// What a node answers to a command, as redis-cli prints it; empty when it does not answer.
    #[must_use]
    pub fn ask(&self, node: usize, command: &[&str]) -> String {
        let address = self.nodes[node].address.to_string();
        let port = PORT.to_string();
        // A node whose process is stopped never answers.
        let mut cli = Command::new("timeout");
        cli.args(["2", "redis-cli", "-h", &address, "-p", &port]).args(command).stdin(Stdio::null());
        let answer = self.with_password(&mut cli).output().expect("timeout and redis-cli are there: tests/setup");
        String::from_utf8_lossy(&answer.stdout).into_owned()
    }

    /// The primary of a key's slot, and its replicas, as a living node sees it.
    ///
    /// # Panics
    ///
    /// When no node answers.
    #[must_use]
    pub fn keepers(&self, key: &str) -> (usize, Vec<usize>) {
        let asked = self.nodes.iter().position(|node| node.child.is_some()).expect("a node runs");
        let slot: u16 = self.ask(asked, &["CLUSTER", "KEYSLOT", key]).trim().parse().expect("a slot");
        let known = self.ask(asked, &["CLUSTER", "NODES"]);
        let lines: Vec<Vec<&str>> = known.lines().map(|line| line.split(' ').collect()).collect();
        let index = |line: &Vec<&str>| {
            let place = line[1].split(':').next().expect("an address");
            self.nodes.iter().position(|node| node.address.to_string() == place).expect("one of ours")
        };
        let serves = |line: &&Vec<&str>| line.get(8..).is_some_and(|slots| slots.iter().any(|slots| has(slots, slot)));
        let primary = lines.iter().find(serves).expect("a primary has the slot");
        (index(primary), lines.iter().filter(|line| line[3] == primary[0]).map(index).collect())
    }

    /// Moves so many slots from one primary to another, with redis-cli; returns when they are moved.
    ///
    /// # Panics
    ///
    /// When they cannot be.
    pub fn reshard(&self, from: usize, to: usize, slots: u32) {
        let [from_id, to_id] = [from, to].map(|node| self.ask(node, &["CLUSTER", "MYID"]).trim().to_owned());
        let (address, slots) = (&self.addresses()[from], slots.to_string());
        let args = ["--cluster", "reshard", address, "--cluster-from", &from_id, "--cluster-to", &to_id];
        let moved = self.cli(&[&args[..], &["--cluster-slots", &slots, "--cluster-yes"]].concat());
        assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stdout));
    }

    fn cli(&self, arguments: &[&str]) -> Output {
        let mut cli = Command::new("redis-cli");
        let cli = self.with_password(cli.args(arguments).stdin(Stdio::null()));
        cli.output().expect("redis-cli is there: tests/setup")
    }

    fn with_password<'a>(&self, cli: &'a mut Command) -> &'a mut Command {
        if self.password.is_empty() { cli } else { cli.env("REDISCLI_AUTH", &self.password) }
    }

    /// Waits until all nodes see a whole cluster and all replicas are in step.
    ///
    /// # Panics
    ///
    /// When it takes more than a minute.
    pub fn until_whole(&self) {
        until("the cluster is whole", || {
            (0..self.nodes.len()).all(|node| {
                let (state, role) = (self.ask(node, &["CLUSTER", "INFO"]), self.ask(node, &["INFO", "replication"]));
                let in_step = match role.contains("role:master") {
                    true => role.contains("state=online"),
                    false => role.contains("master_link_status:up"),
                };
                let replicas = self.ask(node, &["CLUSTER", "NODES"]).matches("slave ").count();
                state.contains("cluster_state:ok")
                    && state.contains("slots_ok:16384")
                    && in_step
                    && replicas == REPLICAS
            })
        });
    }
}

impl Drop for RedisCluster {
    fn drop(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].child.is_some() {
                self.kill(node);
            }
        }
        if std::thread::panicking() {
            for node in 0..self.nodes.len() {
                let log = std::fs::read_to_string(self.folder.path().join(format!("{node}.log"))).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("node {node}:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
            }
        }
    }
}

/// Asks again and again until it is so.
///
/// # Panics
///
/// After a minute.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether `5461-10922` or `7000` has the slot.
fn has(slots: &str, slot: u16) -> bool {
    let (from, to) = slots.split_once('-').unwrap_or((slots, slots));
    match (from.parse(), to.parse()) {
        (Ok(from), Ok(to)) => (from..=to).contains(&slot),
        _ => false,
    }
}

const NODES: u8 = 6;
const REPLICAS: usize = 3;
const PORT: u16 = 7000;
const DEADLINE: Duration = Duration::from_secs(60);
