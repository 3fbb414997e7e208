//! A real etcd cluster for tests: three members on loopback, from Debian's etcd-server (`tests/setup` installs it). Each
//! member has a folder and an address of its own; ports are constants. With TLS members want certificates of their clients.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::addresses::Block;
use crate::certificates::{Authority, Files};
use crate::poll;
use crate::process::Done;

/// Three members; killed when dropped.
#[derive(Debug)]
pub struct EtcdCluster {
    members: Vec<Member>,
    folder: tempfile::TempDir,
    tls: Option<Tls>,
    /// Name and password of who administers it, once it has authentication.
    root: Option<&'static str>,
    _block: Block,
}

/// Certificates of a cluster: its authority, the members' and that of a client.
#[derive(Debug)]
pub struct Tls {
    /// Whom members and clients trust.
    pub ca: PathBuf,
    /// What every member shows; read by etcd for each connection.
    pub members: Files,
    /// What a client shows.
    pub client: Files,
    /// Who issued them.
    pub authority: Authority,
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
        Self::start_with(false).await
    }

    /// The same with TLS between it and its clients.
    ///
    /// # Panics
    ///
    /// As [`EtcdCluster::start`].
    pub async fn start_with_tls() -> Self {
        Self::start_with(true).await
    }

    async fn start_with(tls: bool) -> Self {
        let (block, folder) = (Block::claim(), tempfile::tempdir().expect("a folder"));
        let members = (1..=MEMBERS).map(|host| Member {
            address: block.address(host),
            folder: folder.path().join(host.to_string()),
            child: None,
        });
        let members: Vec<Member> = members.collect();
        let tls = tls.then(|| Tls::new(folder.path(), &members));
        let mut cluster = Self { members, folder, tls, root: None, _block: block };
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
        let scheme = if self.tls.is_some() { "etcds" } else { "etcd" };
        format!("{scheme}://{}{KEY}", hosts.join(","))
    }

    /// Its certificates.
    ///
    /// # Panics
    ///
    /// When it has none.
    #[must_use]
    pub fn tls(&self) -> &Tls {
        self.tls.as_ref().expect("it was started with TLS")
    }

    /// Has it ask for users: `sun`, whose password this is, reads and writes the topology.
    pub fn authenticate(&mut self, password: &str) {
        for command in [
            &["user", "add", ROOT][..],
            &["user", "grant-role", "root", "root"],
            &["role", "add", "suns"],
            &["role", "grant-permission", "suns", "readwrite", "--prefix=true", KEY],
            &["user", "add", &format!("sun:{password}")],
            &["user", "grant-role", "sun", "suns"],
            &["auth", "enable"],
        ] {
            self.ctl(0, command);
        }
        self.root = Some(ROOT);
    }

    /// Starts a member that does not run, with what is in its folder.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn start_member(&mut self, member: usize) {
        let url = |address: &Ipv4Addr, port: u16| format!("http://{address}:{port}");
        let tls: Vec<String> = self.tls.as_ref().map_or_else(Vec::new, Tls::of_member);
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
        let client = if tls.is_empty() { client } else { client.replace("http://", "https://") };
        let mut command = Command::new("etcd");
        command.arg("--name").arg(format!("m{member}")).arg("--data-dir").arg(folder);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"]);
        command.args(tls);
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
        let host = self.host(member);
        let endpoint = if self.tls.is_some() { format!("https://{host}") } else { host };
        command.args(["--command-timeout=5s", "--endpoints", &endpoint]);
        if let Some(Tls { ca, client, .. }) = &self.tls {
            command.arg("--cacert").arg(ca).arg("--cert").arg(&client.chain).arg("--key").arg(&client.key);
        }
        command.args(self.root.iter().flat_map(|root| ["--user", root])).args(arguments);
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

impl Tls {
    fn new(folder: &std::path::Path, members: &[Member]) -> Self {
        let authority = Authority::new();
        let ca = folder.join("ca.pem");
        crate::files::write(&ca, authority.root_pem());
        let addresses: Vec<String> = members.iter().map(|member| member.address.to_string()).collect();
        let names: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let (members, client) = (authority.issue(folder, "member", &names), authority.issue_nameless(folder, "client"));
        for key in [&members.key, &client.key] {
            std::fs::set_permissions(key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("it is ours");
        }
        Self { ca, members, client, authority }
    }

    fn of_member(&self) -> Vec<String> {
        let Files { chain, key } = &self.members;
        let options = [("cert-file", chain), ("key-file", key), ("trusted-ca-file", &self.ca)];
        let options = options.map(|(option, file)| format!("--{option}={}", file.display()));
        options.into_iter().chain(["--client-cert-auth=true".to_owned()]).collect()
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
const ROOT: &str = "root:of-root";
const MEMBERS: u8 = 3;
const PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
