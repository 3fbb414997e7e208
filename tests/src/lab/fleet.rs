//! What runs in the lab, and orders to it.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process};

use super::crowd::Crowd;
use super::documents::{self, ASN, CACHE, CORE, FILE, FILE_BYTES, ROUTER_ASN};
use super::family::Family;
use super::flow::{Flow, Target};
use super::network::{Machine, Network};
use super::speaker::{Kind, Speaker};
use crate::certificates::{Authority, Files};
use crate::origin::{Origin, Script};
use crate::poll;
use crate::process::{Daemon, admin_get, binary, run as run_to_its_end};
use crate::topology::DOMAIN;
use crate::visitors;

/// How a lab is made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// Suns in the group, as many as [`super::order::SUNS`] allows.
    pub suns: u8,
    /// A sun-check beside each; without it all are announced for ever.
    pub checked: bool,
    /// Open connections go on where they are when their address moves (`sunctl render addresses --pass-on`).
    pub passes_on: bool,
    /// Who speaks BGP for the suns.
    pub speaker: Kind,
    /// What clients ask by.
    pub family: Family,
    /// More text for every sun-check.toml.
    pub check_more: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            suns: 3,
            checked: true,
            passes_on: true,
            speaker: Kind::Bird,
            family: Family::V4,
            check_more: String::new(),
        }
    }
}

/// A lab. Everything ends with it.
#[derive(Debug)]
pub struct Fleet {
    /// In order of number.
    pub members: Vec<Member>,
    /// The router between the clients and the suns.
    pub router: Machine,
    /// The most members that were [`Fleet::away`] at one time, as far as somebody looked.
    pub most_away: usize,
    authority: Authority,
    client: Machine,
    core: Machine,
    router_bird: Option<Speaker>,
    services: Vec<Daemon>,
    origin: Option<Origin>,
    options: Options,
    version: u64,
    folder: tempfile::TempDir,
    _network: Network,
}

/// A sun with what stands beside it.
#[derive(Debug)]
pub struct Member {
    /// From 1.
    pub number: u8,
    /// `sun1-1-1`.
    pub name: String,
    /// Where it runs.
    pub machine: Machine,
    /// The sun; none after its end.
    pub sun: Option<Daemon>,
    /// Its self-check; none when ExaBGP started it.
    pub check: Option<Daemon>,
    /// Its BGP speaker.
    pub speaker: Option<Speaker>,
    family: Family,
    kind: Kind,
    certificate: Files,
    folder: PathBuf,
}

/// Makes a lab, has a scenario play in it and takes it down. The scenario runs in the core, from where everything but the
/// clients' side is reached.
///
/// # Panics
///
/// When the lab cannot be made, or the scenario panics.
pub fn in_a_lab<T: Send>(options: &Options, scenario: impl AsyncFnOnce(&mut Fleet) -> T + Send) -> T {
    let mut fleet = Fleet::wire(options);
    let core = fleet.core.clone();
    core.inside(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("a runtime").block_on(async {
            fleet.start().await;
            let result = scenario(&mut fleet).await;
            drop(fleet);
            result
        })
    })
}

impl Fleet {
    /// Machines, cables and addresses; nothing runs yet.
    fn wire(options: &Options) -> Self {
        let folder = tempfile::Builder::new().prefix("sun-lab-").tempdir().expect("a temporary folder");
        let mut network = Network::new();
        let (router, client, core) = (network.machine("router"), network.machine("client"), network.machine("core"));
        let family = options.family;
        let both = || Family::Both.each().iter().copied();
        network.link((&client, "router"), (&router, "client"));
        for family in both() {
            let at = |host| family.to_add(family.client(host));
            router.ip(&format!("addr add {} dev client", at(1)));
            (2..=9).for_each(|host| drop(client.ip(&format!("addr add {} dev router", at(host)))));
            client.ip(&format!("-{} route add default via {}", family.word(), family.client(1)));
            router.set(&format!("net/ipv{}/fib_multipath_hash_policy", family.word()), "1");
        }
        router.set("net/ipv4/ip_forward", "1");
        router.set("net/ipv6/conf/all/forwarding", "1");
        core.ip("link add internal type bridge");
        core.ip(&format!("addr add {CORE}/24 dev internal"));
        core.ip("link set internal up");
        let authority = Authority::new();
        documents::write_tokens(folder.path(), options.suns);
        crate::files::write(&folder.path().join("root.pem"), authority.root_pem());
        crate::files::write(&folder.path().join("topology.toml"), &documents::topology(family, options.suns, 1, &[]));
        let members = (1..=options.suns).map(|number| {
            let machine = network.machine(&format!("sun{number}"));
            network.link((&router, &format!("sun{number}")), (&machine, "public"));
            network.link((&core, &format!("sun{number}")), (&machine, "internal"));
            core.ip(&format!("link set sun{number} master internal"));
            for family in both() {
                router.ip(&format!("addr add {} dev sun{number}", family.to_add(family.gateway(number))));
                machine.ip(&format!("addr add {} dev public", family.to_add(family.public(number))));
                machine.ip(&format!("addr add {} dev internal", family.to_add(family.internal(number))));
                machine.ip(&format!("-{} route add default via {}", family.word(), family.gateway(number)));
            }
            Member::new(number, machine, folder.path(), &authority, options)
        });
        let members = members.collect();
        let options = options.clone();
        let (services, origin, router_bird) = (Vec::new(), None, None);
        let version = 1;
        Self {
            members,
            router,
            most_away: 0,
            authority,
            client,
            core,
            router_bird,
            services,
            origin,
            options,
            version,
            folder,
            _network: network,
        }
    }

    /// Starts everything, and waits until every address is at its owner.
    async fn start(&mut self) {
        let origin = Origin::start((CORE, 9100).into());
        origin.put("/cs1/a.jpg", Script::file(FILE_BYTES));
        self.origin = Some(origin);
        let folder = self.folder.path().to_owned();
        let config = folder.join("router.conf");
        crate::files::write(&config, &documents::router(self.options.family, self.options.suns));
        self.router_bird = Some(Speaker::bird(&self.router, &config).await);
        let config = write(&folder, "popularity-api", &documents::popularity_api(&folder));
        self.services.push(Daemon::start("popularity-api", "popularity-api", &config, (CORE, 9090).into()).await);
        let certificate = self.authority.issue(&folder, CACHE, &[&format!("*.{DOMAIN}")]);
        std::fs::create_dir_all(folder.join("vault")).expect("a folder");
        let config = write(&folder, CACHE, &documents::cache(&folder, &certificate));
        self.services.push(Daemon::start("cache-daemon", CACHE, &config, (CORE, 9081).into()).await);
        for member in &mut self.members {
            member.answer(self.options.passes_on);
            member.start_sun().await;
            if member.kind == Kind::Bird {
                member.start_bird().await;
            }
        }
        for member in &mut self.members {
            match (self.options.checked, member.kind) {
                (true, Kind::Bird) => member.start_check(&self.options.check_more).await,
                (true, Kind::Exabgp) => member.start_exabgp(&self.options.check_more).await,
                (false, _) => drop(member.birdc(&["enable", "\"sun_up_*\""])),
            }
        }
        self.until_home().await;
    }

    /// Waits until every address is routed to its owner.
    pub async fn until_home(&self) {
        poll::until_true("every address at its owner", || async {
            let routes = self.routes();
            self.members
                .iter()
                .all(|member| member.addresses().iter().all(|address| routes.contains(&(*address, member.number))))
        })
        .await;
    }

    /// Waits until no address is routed to a member that owns it.
    pub async fn until_away(&self, number: u8) {
        poll::until_true(&format!("no address at {}", documents::name(number)), || async {
            self.routes().iter().all(|(_, by)| *by != number)
        })
        .await;
    }

    /// What the router does: (address, number of the member that it is routed to).
    #[must_use]
    pub fn routes(&self) -> Vec<(IpAddr, u8)> {
        let told = |family: &Family| self.router.ip(&format!("-{} route show proto bird", family.word()));
        let text: String = self.options.family.each().iter().map(told).collect();
        let route = |line: &str| {
            let mut words = line.split_whitespace();
            let address = words.next()?.parse().ok()?;
            let device = words.skip_while(|word| *word != "dev").nth(1)?;
            Some((address, device.strip_prefix("sun")?.parse().ok()?))
        };
        text.lines().filter_map(route).collect()
    }

    /// How many members have lost an address of their own to another one.
    #[must_use]
    pub fn away(&self) -> usize {
        let routes = self.routes();
        let lost =
            |member: &&Member| member.addresses().iter().any(|address| !routes.contains(&(*address, member.number)));
        self.members.iter().filter(lost).count()
    }

    /// A crowd that asks a member's first address as fast as it is answered.
    ///
    /// # Panics
    ///
    /// When there is no such member.
    #[must_use]
    pub fn crowd(&self, number: u8) -> Crowd {
        let member = &self.members[usize::from(number) - 1];
        let target = visitors::Target {
            address: (member.addresses()[0], 443).into(),
            host: format!("{}.{DOMAIN}", member.name),
            path: format!("/{FILE}"),
            size: usize::try_from(FILE_BYTES).expect("a small file"),
            pause: Duration::ZERO,
        };
        Crowd::start(&self.client, &self.authority, &target)
    }

    /// Clients begin to ask; some of them aim at this member.
    #[must_use]
    pub fn flow(&self, aimed: u8) -> Flow {
        let of = |member: &Member| {
            let host = format!("{}.{DOMAIN}", member.name);
            member
                .addresses()
                .into_iter()
                .map(move |address| Target { address: (address, 443).into(), host: host.clone() })
        };
        let targets: Vec<Target> = self.members.iter().flat_map(of).collect();
        let own = self.options.family.own_addresses(aimed);
        let aimed = (0..targets.len()).filter(|&index| own.contains(&targets[index].address.ip())).collect();
        let bytes = usize::try_from(FILE_BYTES).expect("a small file");
        Flow::start(&self.client, &self.authority, targets, aimed, &format!("/{FILE}"), bytes)
    }

    /// A member by its number.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn member(&mut self, number: u8) -> &mut Member {
        &mut self.members[usize::from(number) - 1]
    }

    /// Writes the topology anew, with these draining.
    pub fn drain(&mut self, numbers: &[u8]) {
        self.version += 1;
        let text = documents::topology(self.options.family, self.options.suns, self.version, numbers);
        crate::files::write(&self.folder.path().join("topology.toml"), &text);
    }

    /// A certificate that expires soon takes the place of a member's; a sun refuses one that has expired already.
    pub fn expire_certificate(&mut self, number: u8, end: SystemTime) {
        let folder = self.folder.path().join("expired");
        std::fs::create_dir_all(&folder).expect("a folder");
        let expired = self.authority.issue_valid_until(&folder, "expired", &[&format!("*.{DOMAIN}")], end);
        let current = &self.members[usize::from(number) - 1].certificate;
        std::fs::rename(&expired.key, &current.key).expect("the key is replaced");
        std::fs::rename(&expired.chain, &current.chain).expect("the chain is replaced");
    }

    /// Pulls the cable between a member and the core.
    pub fn cut_internal(&self, number: u8) {
        self.core.ip(&format!("link set sun{number} down"));
    }
}

impl Member {
    fn new(number: u8, machine: Machine, folder: &Path, authority: &Authority, options: &Options) -> Self {
        let name = documents::name(number);
        let certificate = authority.issue(folder, &name, &[&format!("*.{DOMAIN}")]);
        let store = folder.join(format!("{name}.store"));
        std::fs::create_dir_all(&store).expect("a folder");
        mount(&store);
        for data in ["data", "check"] {
            std::fs::create_dir_all(folder.join(format!("{name}.{data}"))).expect("a folder");
        }
        write(folder, &name, &documents::sun(folder, options.family, number, &certificate, &store));
        let (sun, check, speaker, folder) = (None, None, None, folder.to_owned());
        let (family, kind) = (options.family, options.speaker);
        Self { number, name, machine, sun, check, speaker, family, kind, certificate, folder }
    }

    /// Its own addresses.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.family.own_addresses(self.number)
    }

    /// Starts the sun, or starts it again, and waits until it is ready.
    pub async fn start_sun(&mut self) {
        self.sun = None;
        let config = self.folder.join(format!("{}.toml", self.name));
        let admin: SocketAddr = (documents::admin(self.number), 9081).into();
        let starting = self.machine.inside(|| Daemon::start("sun", &self.name, &config, admin));
        self.sun = Some(starting.await);
    }

    /// Starts the self-check, or starts it again, and waits until it serves.
    pub async fn start_check(&mut self, more: &str) {
        self.check = None;
        let config = self.write_check(&format!("kind = \"bird\"\nsocket = {:?}", self.control()), more);
        let admin: SocketAddr = (documents::admin(self.number), 9084).into();
        let starting =
            self.machine.inside(|| Daemon::start("sun-check", &format!("{}-check", self.name), &config, admin));
        self.check = Some(starting.await);
    }

    /// Starts ExaBGP, or starts it again, with the rendered config; it starts the self-check.
    pub async fn start_exabgp(&mut self, more: &str) {
        self.speaker = None;
        let config = self.write_check("kind = \"exabgp\"", more);
        let run = format!("{} --config {}", binary("sun-check").display(), config.display());
        let config = self.folder.join(format!("{}.exabgp", self.name));
        crate::files::write(&config, &self.rendered_sessions(&["exabgp", "--run", &run]));
        self.speaker = Some(Speaker::exabgp(&self.machine, &config));
        let admin: SocketAddr = (documents::admin(self.number), 9084).into();
        let ready = || async { admin_get(admin, "/readyz").await.is_some_and(|(status, _)| status == 200) };
        poll::until_true("the self-check that ExaBGP starts is ready", ready).await;
    }

    fn write_check(&self, speaker: &str, more: &str) -> PathBuf {
        let text = documents::sun_check(&self.folder, self.family, self.number, speaker, more);
        write(&self.folder, &format!("{}-check", self.name), &text)
    }

    /// What `sunctl render` says with these words, and of the sessions with the router.
    fn rendered_sessions(&self, words: &[&str]) -> String {
        let (asn, id) = (ASN.to_string(), Family::V4.public(self.number).to_string());
        let own = self.family.each().iter().flat_map(|family| {
            let neighbour = format!("{}={ROUTER_ASN}", family.gateway(self.number));
            ["--neighbour".to_owned(), neighbour, "--local".to_owned(), family.public(self.number).to_string()]
        });
        let own: Vec<String> = own.collect();
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        self.rendered(&[words, &["--asn", &asn, "--router-id", &id], &own].concat())
    }

    /// Has it answer for the group's addresses, by the rendered script.
    fn answer(&self, passes_on: bool) {
        let words: &[&str] = if passes_on { &["addresses", "--pass-on", "internal"] } else { &["addresses"] };
        self.machine.shell(&self.rendered(words));
    }

    /// Starts its BIRD with the rendered config.
    pub async fn start_bird(&mut self) {
        self.speaker = None;
        let config = self.folder.join(format!("{}.bird", self.name));
        crate::files::write(&config, &self.rendered_sessions(&["bird"]));
        self.speaker = Some(Speaker::bird(&self.machine, &config).await);
    }

    /// What `sunctl render` says with these words, for this sun.
    fn rendered(&self, words: &[&str]) -> String {
        let topology = self.folder.join("topology.toml").display().to_string();
        let words = [&["render"], words, &["--sun", &self.name, "--topology", &topology]].concat();
        let done = run_to_its_end("sunctl", &words);
        assert_eq!(done.status, Some(0), "{}", done.err);
        done.out
    }

    /// An order to its BIRD.
    ///
    /// # Panics
    ///
    /// When it has none.
    pub fn birdc(&self, words: &[&str]) -> String {
        self.speaker.as_ref().expect("its BIRD runs").ask(words)
    }

    /// What its self-check says of it, in one line; that it cannot be asked, if so.
    #[must_use]
    pub fn state(&self) -> String {
        let config = self.folder.join(format!("{}-check.toml", self.name)).display().to_string();
        let done = run_to_its_end("sun-check", &["status", "--config", &config]);
        let said = if done.status == Some(0) { done.out } else { format!("{}: {}", self.name, done.err) };
        said.lines().next().unwrap_or_default().to_owned()
    }

    /// Sends the sun a signal.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn signal_sun(&self, signal: Signal) {
        let id = self.sun.as_ref().expect("the sun runs").id();
        let process = i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(process, signal).expect("it can be signalled");
    }

    /// The store's device takes nothing more and gives nothing back.
    ///
    /// # Panics
    ///
    /// When it cannot be broken.
    pub fn break_disk(&self) {
        let folder = self.folder.join(format!("{}.store", self.name));
        for entry in std::fs::read_dir(&folder).expect("the store").flatten() {
            let file = File::options().write(true).open(entry.path()).expect("the store's file");
            file.set_len(0).expect("it is cut");
        }
        let full = vec![0; 1 << 20];
        let mut filler = File::create(folder.join("full")).expect("a file");
        while std::io::Write::write_all(&mut filler, &full).is_ok() {}
    }

    fn control(&self) -> PathBuf {
        self.folder.join(format!("{}.ctl", self.name))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It is unmounted when the last process that has a file open in it is gone.
        (self.sun, self.check, self.speaker) = (None, None, None);
        let store = self.folder.join(format!("{}.store", self.name));
        let _ = Command::new("umount").arg("--lazy").arg(store).stderr(Stdio::null()).status();
    }
}

/// A filesystem of its own, a little larger than the store in it.
fn mount(folder: &Path) {
    let status = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=40m", "sun-lab"])
        .arg(folder)
        .status()
        .expect("mount runs");
    assert!(status.success(), "mount {}", folder.display());
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let config = folder.join(format!("{name}.toml"));
    crate::files::write(&config, text);
    config
}
