//! Real routers on loopback: BIRD announces, gobgpd or FRR hear it and tell it by BMP, each with a config made for one test.
//!
//! ```text
//!   Bird --BGP--> Gobgpd or Frr --BMP--> Relay --BMP--> whoever listens
//!   (routes of the test)                 (an address of its own; can be cut)
//! ```
//!
//! The relay is there because all routers of one machine would connect from 127.0.0.1, and routers are known by their
//! address; and because a cut link is another failure than a dead router.
//!
//! Every program ends with its value. Traps that the configs step around: BIRD 2.0 has no BMP; both ends need addresses and
//! router ids of their own; next hops within 127/8 are refused as martians; gobgpd's policy `all` tells every
//! route three times; FRR needs `soft-reconfiguration inbound` to know what came before its policy.

use std::fmt::Write as _;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::poll;

/// Where routers speak BGP, each on an address of its own.
pub const BGP_PORT: u16 = 1790;

/// Where relays, and who listens behind them, speak BMP.
pub const BMP_PORT: u16 = 11_019;

/// One end of a BGP session.
#[derive(Clone, Copy, Debug)]
pub struct Speaker {
    /// Its address, which is its router id as well.
    pub address: Ipv4Addr,
    /// Its AS.
    pub asn: u32,
}

/// A route that a test wants announced.
#[derive(Clone, Debug)]
pub struct Announced {
    /// `192.0.2.0/24` or `2001:db8::/32`.
    pub prefix: String,
    /// ASes behind the announcing router's own, nearest first.
    pub path: Vec<u32>,
    /// Comparable metric; none is sent without.
    pub med: Option<u32>,
}

impl Announced {
    /// Without a path behind the router's own AS.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self::with_path(prefix, &[])
    }

    /// With these ASes behind the router's own.
    #[must_use]
    pub fn with_path(prefix: &str, path: &[u32]) -> Self {
        Self { prefix: prefix.to_owned(), path: path.to_vec(), med: None }
    }

    /// As BIRD's static protocol takes it.
    fn statement(&self) -> String {
        let path = self.path.iter().rev().map(|asn| format!("bgp_path.prepend({asn}); "));
        let med = self.med.map(|med| format!("bgp_med = {med}; "));
        format!("route {} blackhole {{ {}}};\n", self.prefix, path.chain(med).collect::<String>())
    }
}

/// A router's program; killed when dropped, its log's end printed when the test fails.
#[derive(Debug)]
pub struct Router {
    name: String,
    command: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    child: Child,
}

impl Router {
    fn start(folder: &Path, name: &str, command: &str, arguments: Vec<String>) -> Self {
        let (log, command) = (folder.join(format!("{name}.log")), PathBuf::from(command));
        let child = spawn(&command, &arguments, &log);
        Self { name: name.to_owned(), command, arguments, log, child }
    }

    /// kill -9: a router that dies without a word.
    ///
    /// # Panics
    ///
    /// When it is no more.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        let _ = self.child.wait();
    }

    /// Starts it again after [`Router::kill`].
    pub fn restart(&mut self) {
        self.child = spawn(&self.command, &self.arguments, &self.log);
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
            eprintln!("---- the last of {}'s log ----\n{}", self.name, last.join("\n"));
        }
    }
}

/// A router that announces what a test says: BIRD.
#[derive(Debug)]
pub struct Bird {
    /// Its program.
    pub router: Router,
    folder: PathBuf,
    control: PathBuf,
}

impl Bird {
    /// Starts it with sessions to `neighbours`, to announce `routes` from the start.
    ///
    /// # Panics
    ///
    /// When it is not installed, or does not answer within [`poll::DEADLINE`].
    pub async fn start(folder: &Path, own: Speaker, neighbours: &[Speaker], routes: &[Announced]) -> Self {
        let folder = folder.join(format!("bird-{}", own.address));
        std::fs::create_dir(&folder).expect("a folder");
        let (config, control) = (folder.join("bird.conf"), folder.join("bird.ctl"));
        crate::files::write(&config, &bird_config(&folder, own, neighbours));
        write_routes(&folder, routes);
        let path = |path: &Path| path.display().to_string();
        let arguments = ["-f", "-c", &path(&config), "-s", &path(&control), "-P", &path(&folder.join("bird.pid"))];
        let arguments = arguments.map(str::to_owned).to_vec();
        let router = Router::start(&folder, "bird", "bird", arguments);
        let bird = Self { router, folder, control };
        poll::until_true("BIRD answers", || async { bird.ask(&["show", "status"]).contains("Daemon is up") }).await;
        bird
    }

    /// Announces exactly these from now on.
    ///
    /// # Panics
    ///
    /// When it refuses them.
    pub fn announce(&self, routes: &[Announced]) {
        write_routes(&self.folder, routes);
        let said = self.ask(&["configure"]);
        assert!(said.contains("Reconfigur"), "BIRD refuses its routes: {said}");
    }

    /// Ends a session, or begins it again: `enable` or `disable` of the neighbour with this number, from 0.
    pub fn session(&self, action: &str, neighbour: usize) {
        let said = self.ask(&[action, &format!("to{neighbour}")]);
        assert!(said.contains(action), "BIRD: {said}");
    }

    /// What it says to a command of `birdc`.
    #[must_use]
    pub fn ask(&self, command: &[&str]) -> String {
        let output = Command::new(in_sbin("birdc")).arg("-s").arg(&self.control).args(command).output();
        String::from_utf8_lossy(&output.expect("birdc runs").stdout).into_owned()
    }
}

fn bird_config(folder: &Path, own: Speaker, neighbours: &[Speaker]) -> String {
    let (address, asn, folder) = (own.address, own.asn, folder.display());
    let mut config = format!(
        "log stderr all;\nrouter id {address};\nprotocol device {{}}\n\
         protocol static v4 {{\nipv4;\ninclude \"{folder}/routes4.conf\";\n}}\n\
         protocol static v6 {{\nipv6;\ninclude \"{folder}/routes6.conf\";\n}}\n"
    );
    // BIRD tells another AS a metric only if the export filter sets it.
    let export = "export filter { if defined(bgp_med) then bgp_med = bgp_med; accept; };";
    for (number, neighbour) in neighbours.iter().enumerate() {
        let _ = write!(
            config,
            "protocol bgp to{number} {{\n  local {address} port {BGP_PORT} as {asn};\n  \
             neighbor {} port {BGP_PORT} as {};\n  multihop; strict bind; hold time 9;\n  \
             connect delay time 1; connect retry time 1; error wait time 1, 2;\n  \
             ipv4 {{ import none; {export} next hop address 198.51.100.1; }};\n  \
             ipv6 {{ import none; {export} next hop address 2001:db8:ffff::1; }};\n}}\n",
            neighbour.address, neighbour.asn
        );
    }
    config
}

fn write_routes(folder: &Path, routes: &[Announced]) {
    let of = |v6: bool| routes.iter().filter(move |route| route.prefix.contains(':') == v6);
    for (file, v6) in [("routes4.conf", false), ("routes6.conf", true)] {
        crate::files::write(&folder.join(file), &of(v6).map(Announced::statement).collect::<String>());
    }
}

/// Starts gobgpd: hears `neighbours` and tells it to `station` by BMP, before its own policy.
///
/// # Panics
///
/// When it is not installed.
#[must_use]
pub fn gobgpd(folder: &Path, own: Speaker, neighbours: &[Speaker], station: SocketAddr) -> Router {
    let address = own.address;
    let mut config = format!(
        "[global.config]\nas = {}\nrouter-id = \"{address}\"\nport = {BGP_PORT}\nlocal-address-list = [\"{address}\"]\n\
         [[bmp-servers]]\n[bmp-servers.config]\naddress = \"{}\"\nport = {}\nroute-monitoring-policy = \"pre-policy\"\n",
        own.asn,
        station.ip(),
        station.port()
    );
    for neighbour in neighbours {
        let _ = write!(
            config,
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{}\"\npeer-as = {}\n\
             [neighbors.transport.config]\npassive-mode = true\nlocal-address = \"{address}\"\n\
             [neighbors.timers.config]\nhold-time = 9\nkeepalive-interval = 3\n",
            neighbour.address, neighbour.asn
        );
        for family in ["ipv4-unicast", "ipv6-unicast"] {
            let _ =
                write!(config, "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{family}\"\n");
        }
    }
    let file = folder.join(format!("gobgpd-{address}.toml"));
    crate::files::write(&file, &config);
    let arguments = ["-f", &file.display().to_string(), "--api-hosts", &format!("{address}:50051")];
    Router::start(folder, &format!("gobgpd-{address}"), "gobgpd", arguments.map(str::to_owned).to_vec())
}

/// Starts FRR's bgpd: hears `neighbours` and tells it to `station` by BMP, before its own policy.
///
/// # Panics
///
/// When it is not installed.
#[must_use]
pub fn frr(folder: &Path, own: Speaker, neighbours: &[Speaker], station: SocketAddr) -> Router {
    let address = own.address;
    let folder = folder.join(format!("frr-{address}"));
    std::fs::create_dir(&folder).expect("a folder");
    let mut config = format!(
        "router bgp {}\n bgp router-id {address}\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n",
        own.asn
    );
    let mut families = [String::new(), String::new()];
    for Speaker { address: neighbour, asn } in neighbours {
        let _ = write!(
            config,
            " neighbor {neighbour} remote-as {asn}\n neighbor {neighbour} port {BGP_PORT}\n \
             neighbor {neighbour} update-source {address}\n neighbor {neighbour} ebgp-multihop\n \
             neighbor {neighbour} disable-connected-check\n neighbor {neighbour} timers 3 9\n \
             neighbor {neighbour} timers connect 1\n neighbor {neighbour} passive\n"
        );
        for family in &mut families {
            let _ = write!(
                family,
                "  neighbor {neighbour} activate\n  neighbor {neighbour} soft-reconfiguration inbound\n"
            );
        }
    }
    for (name, family) in ["ipv4 unicast", "ipv6 unicast"].into_iter().zip(&families) {
        let _ = write!(config, " address-family {name}\n{family} exit-address-family\n");
    }
    let _ = write!(
        config,
        " bmp targets sun\n  bmp connect {} port {} min-retry 100 max-retry 500\n  \
         bmp monitor ipv4 unicast pre-policy\n  bmp monitor ipv6 unicast pre-policy\n",
        station.ip(),
        station.port()
    );
    let path = |name: &str| folder.join(name).display().to_string();
    crate::files::write(&folder.join("bgpd.conf"), &config);
    let (address, port) = (address.to_string(), BGP_PORT.to_string());
    let arguments = ["-M", "bmp", "-Z", "-S", "-l", &address, "-p", &port, "-P", "0", "--log", "stdout"];
    let files = ["-f", &path("bgpd.conf"), "-i", &path("bgpd.pid"), "--vty_socket", &folder.display().to_string()];
    let arguments = arguments.into_iter().chain(files).map(str::to_owned).collect();
    Router::start(&folder, "bgpd", "/usr/lib/frr/bgpd", arguments)
}

/// Passes connections on, from an address of its own.
#[derive(Debug)]
pub struct Relay {
    open: Arc<AtomicBool>,
    cut: Arc<std::sync::Mutex<CancellationToken>>,
    ended: CancellationToken,
}

impl Relay {
    /// Listens at `at`, passes on to `to` from the address `from`.
    ///
    /// # Panics
    ///
    /// When the address is taken.
    pub async fn start(at: SocketAddr, to: SocketAddr, from: Ipv4Addr) -> Self {
        let listener = TcpListener::bind(at).await.expect("the relay's address");
        let (open, cut) = (Arc::new(AtomicBool::new(true)), Arc::default());
        let relay = Self { open, cut, ended: CancellationToken::new() };
        let (open, cut, ended) = (relay.open.clone(), relay.cut.clone(), relay.ended.clone());
        tokio::spawn(async move {
            let mut passing = JoinSet::new();
            loop {
                let accepted = tokio::select! {
                    () = ended.cancelled() => return,
                    Some(_) = passing.join_next() => continue,
                    accepted = listener.accept() => accepted,
                };
                if let (Ok((router, _)), true) = (accepted, open.load(Ordering::SeqCst)) {
                    passing.spawn(pass(router, to, from, token(&cut)));
                }
            }
        });
        relay
    }

    /// Breaks what is connected, and refuses more until [`Relay::mend`].
    pub fn cut(&self) {
        self.open.store(false, Ordering::SeqCst);
        token(&self.cut).cancel();
    }

    /// Lets the router connect again.
    pub fn mend(&self) {
        *self.cut.lock().expect("nobody panics with it") = CancellationToken::new();
        self.open.store(true, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

fn token(cut: &std::sync::Mutex<CancellationToken>) -> CancellationToken {
    cut.lock().expect("nobody panics with it").clone()
}

async fn pass(mut router: TcpStream, to: SocketAddr, from: Ipv4Addr, cut: CancellationToken) {
    let passing = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let mut station = socket.connect(to).await?;
        tokio::io::copy_bidirectional(&mut router, &mut station).await
    };
    // A station that is away, or an end: the router sees its connection closed and comes back.
    tokio::select! {
        () = cut.cancelled() => {}
        _ = passing => {}
    }
}

fn spawn(command: &Path, arguments: &[String], log: &Path) -> Child {
    let log = File::options().create(true).append(true).open(log).expect("a log file");
    let out = log.try_clone().expect("a second handle");
    let mut command = Command::new(in_sbin(&command.display().to_string()));
    command.args(arguments).stdin(Stdio::null()).stdout(out).stderr(log);
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; tests/setup installs the routers"))
}

/// Debian keeps daemons where not every user's PATH looks.
fn in_sbin(command: &str) -> PathBuf {
    let sbin = Path::new("/usr/sbin").join(command);
    if sbin.is_file() { sbin } else { PathBuf::from(command) }
}

/// Lines of a log that a failed test shows.
const LOG_LINES: usize = 40;
