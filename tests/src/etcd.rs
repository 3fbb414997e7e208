//! A real etcd cluster for tests: three members on loopback, from Debian's etcd-server (`tests/setup` installs it). Each
//! member has a folder and an address of its own; ports are constants.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::addresses::Block;
use crate::poll;
use crate::process::Done;

/// Three members; killed when dropped.
#[derive(Debug)]
pub struct EtcdCluster {
    members: Vec<Member>,
    folder: tempfile::TempDir,
    _block: Block,
}

#[derive(Debug)]
struct Member {
    address: Ipv4Addr,
    folder: PathBuf,
    child: Option<Child>,
}

impl EtcdCluster {
    /// Starts it and waits until every member answers.
    ///
    /// # Panics
    ///
    /// When etcd is not there, or it is not ready within [`poll::DEADLINE`].
    pub async fn start() -> Self {
        let (block, folder) = (Block::claim(), tempfile::tempdir().expect("a folder"));
        let members = (1..=MEMBERS).map(|host| Member {
            address: block.address(host),
            folder: folder.path().join(host.to_string()),
            child: None,
        });
        let mut cluster = Self { members: members.collect(), folder, _block: block };
        for member in 0..cluster.members.len() {
            cluster.start_member(member);
        }
        cluster.until_all_answer().await;
        cluster
    }

    /// The cluster as a topology's source: all members, `etcd://a:2379,b:2379,c:2379/sun/topology`.
    #[must_use]
    pub fn source(&self) -> String {
        self.source_of(&(0..self.members.len()).collect::<Vec<_>>())
    }

    /// Some members as a topology's source.
    #[must_use]
    pub fn source_of(&self, members: &[usize]) -> String {
        let hosts: Vec<String> = members.iter().map(|&member| self.host(member)).collect();
        format!("etcd://{}{KEY}", hosts.join(","))
    }

    /// Starts a member that does not run, with what is in its folder.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn start_member(&mut self, member: usize) {
        let url = |address: &Ipv4Addr, port: u16| format!("http://{address}:{port}");
        let all: Vec<String> = self
            .members
            .iter()
            .enumerate()
            .map(|(n, other)| format!("m{n}={}", url(&other.address, PEER_PORT)))
            .collect();
        let log = self.folder.path().join(format!("{member}.log"));
        let log = File::options().create(true).append(true).open(log).expect("a log");
        let Member { address, folder, child } = &mut self.members[member];
        let (client, peer) = (url(address, PORT), url(address, PEER_PORT));
        let mut command = Command::new("etcd");
        command.arg("--name").arg(format!("m{member}")).arg("--data-dir").arg(folder);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"]);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        *child = Some(command.spawn().expect("etcd starts; tests/setup installs it"));
    }

    /// Ends a member at once, as a power switch does to its process.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn kill(&mut self, member: usize) {
        let mut child = self.members[member].child.take().expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    /// Waits until every member that runs answers a read of the whole cluster.
    pub async fn until_all_answer(&self) {
        let running: Vec<usize> = (0..self.members.len()).filter(|&m| self.members[m].child.is_some()).collect();
        for member in running {
            let reads = || async { self.ctl_at(member, &["get", KEY]).status == Some(0) };
            poll::until_true("a member of etcd answers", reads).await;
        }
    }

    /// Which member leads, by what they say themselves.
    pub async fn leader(&self) -> usize {
        let leads = |member: usize| {
            let told = self.ctl_at(member, &["endpoint", "status", "--write-out=fields"]).out;
            let field = |name: &str| {
                told.lines().find_map(|line| line.strip_prefix(&format!("\"{name}\" : ")).map(str::to_owned))
            };
            field("MemberID").is_some_and(|own| field("Leader") == Some(own))
        };
        let running = || (0..self.members.len()).filter(|&member| self.members[member].child.is_some());
        poll::until("a leader", || async { running().find(|&member| leads(member)) }).await.0
    }

    /// What etcdctl does at one member.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[must_use]
    pub fn ctl_at(&self, member: usize, arguments: &[&str]) -> Done {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").stdin(Stdio::null());
        command.args(["--command-timeout=5s", "--endpoints", &self.host(member)]).args(arguments);
        let output = command.output().expect("etcdctl is there: tests/setup");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Done { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// As [`EtcdCluster::ctl_at`], and it has to succeed.
    ///
    /// # Panics
    ///
    /// When it does not.
    #[track_caller]
    pub fn ctl(&self, member: usize, arguments: &[&str]) -> String {
        let done = self.ctl_at(member, arguments);
        assert_eq!(done.status, Some(0), "etcdctl {arguments:?}: {}{}", done.out, done.err);
        done.out
    }

    /// `address:port` of a member.
    #[must_use]
    pub fn host(&self, member: usize) -> String {
        format!("{}:{PORT}", self.members[member].address)
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        for child in self.members.iter_mut().filter_map(|member| member.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The topology's key.
pub const KEY: &str = "/sun/topology";
const MEMBERS: u8 = 3;
const PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
